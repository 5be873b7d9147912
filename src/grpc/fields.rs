//! Parses requests: every field is checked, and one error names all that are wrong.

use prost_types::{Duration as ProtoDuration, Struct};
use uuid::Uuid;

use crate::{
    approval::{Decision, OperationResult, State},
    digest::{Context, RequestHash},
    error::{Error, Violation},
    names::{Namespace, Text},
    proto,
};

/// Longest wait for a decision.
const WAIT: std::time::Duration = std::time::Duration::from_secs(60);

/// Names in one list that an error blames at most, which is more than anybody reads: all that is told has to fit into what a
/// client takes in headers, and no list keeps it from what is wrong with other fields.
const BLAMED: usize = 20;

/// Values in a list of enums at most.
const ENUM_VALUES: usize = 100;

/// Collects what is wrong with a request.
#[derive(Debug, Default)]
pub struct Fields {
    violations: Vec<Violation>,
}

impl Fields {
    /// The value, or a violation on record.
    pub fn check<T>(&mut self, field: &str, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|description| self.refuse(field, description)).ok()
    }

    /// As `check`, where an empty text means that the field is unset.
    pub fn optional<T>(
        &mut self,
        field: &str,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        if text.is_empty() {
            return Some(None);
        }
        self.check(field, parse(text)).map(Some)
    }

    /// Puts a violation on record.
    pub fn refuse(&mut self, field: &str, description: impl Into<String>) {
        self.violations
            .push(Violation { field: field.to_owned(), description: description.into() });
    }

    /// All that is wrong.
    pub fn into_error(self) -> Error {
        Error::Invalid(self.violations)
    }

    /// A namespace; empty means the default.
    pub fn namespace(&mut self, text: &str) -> Option<Namespace> {
        self.namespace_in("namespace", text)
    }

    /// As `namespace`, in a field of another name.
    pub fn namespace_in(&mut self, field: &str, text: &str) -> Option<Namespace> {
        self.optional(field, text, |text| Namespace::parse(text))
            .map(|name| name.unwrap_or_else(Namespace::default_namespace))
    }

    /// The id of an approval.
    pub fn approval_id(&mut self, text: &str) -> Option<Uuid> {
        self.check("approval_id", Uuid::try_parse(text).map_err(|_| "must be a UUID".to_owned()))
    }

    /// A text that must not be blank.
    pub fn required_text(&mut self, field: &str, text: &str, why: &str) -> Option<Text> {
        let text = self.check(field, Text::parse(text))?;
        if text.is_blank() {
            self.refuse(field, why);
            return None;
        }
        Some(text)
    }

    /// The operation's parameters.
    pub fn context(&mut self, context: Option<Struct>) -> Option<Context> {
        let parameters = proto::json::members(context.unwrap_or_default());
        self.check("context", parameters.and_then(Context::new))
    }

    /// An approver's verdict.
    pub fn decision(&mut self, decision: i32) -> Option<Decision> {
        let decision = match proto::Decision::try_from(decision) {
            Ok(proto::Decision::Approve) => Ok(Decision::Approve),
            Ok(proto::Decision::Deny) => Ok(Decision::Deny),
            Ok(proto::Decision::Unspecified) | Err(_) => {
                Err("must be DECISION_APPROVE or DECISION_DENY".to_owned())
            }
        };
        self.check("decision", decision)
    }

    /// What became of an operation.
    pub fn result(&mut self, result: i32) -> Option<OperationResult> {
        let result = match proto::Result::try_from(result) {
            Ok(proto::Result::Succeeded) => Ok(OperationResult::Succeeded),
            Ok(proto::Result::Failed) => Ok(OperationResult::Failed),
            Ok(proto::Result::Unknown) => Ok(OperationResult::Unknown),
            Ok(proto::Result::Unspecified) | Err(_) => {
                Err("must be RESULT_SUCCEEDED, RESULT_FAILED or RESULT_UNKNOWN".to_owned())
            }
        };
        self.check("result", result)
    }

    /// The hash that an approver was shown, if the request names one.
    pub fn request_hash(&mut self, text: &str) -> Option<Option<RequestHash>> {
        self.optional("request_hash", text, RequestHash::parse)
    }

    /// States to list.
    pub fn states(&mut self, states: &[i32]) -> Option<Vec<State>> {
        self.few("states", states)?;
        let parsed: Result<Vec<State>, String> = states
            .iter()
            .map(|state| match proto::ApprovalState::try_from(*state) {
                Ok(proto::ApprovalState::Pending) => Ok(State::Pending),
                Ok(proto::ApprovalState::Approved) => Ok(State::Approved),
                Ok(proto::ApprovalState::Denied) => Ok(State::Denied),
                Ok(proto::ApprovalState::Consumed) => Ok(State::Consumed),
                Ok(proto::ApprovalState::Expired) => Ok(State::Expired),
                Ok(proto::ApprovalState::Withdrawn) => Ok(State::Withdrawn),
                Ok(proto::ApprovalState::Revoked) => Ok(State::Revoked),
                Ok(proto::ApprovalState::Unspecified) | Err(_) => {
                    Err(format!("holds {state}, which is no state"))
                }
            })
            .collect();
        self.check("states", parsed)
    }

    /// Refuses a list of enums that is longer than any sense in it.
    pub fn few(&mut self, field: &str, values: &[i32]) -> Option<()> {
        let few = values.len() <= ENUM_VALUES;
        let why = || format!("must not hold more than {ENUM_VALUES} values");
        self.check(field, few.then_some(()).ok_or_else(why))
    }

    /// Names in a list; at most 1,000. Of those that are wrong the first few are told.
    pub fn names<T>(
        &mut self,
        field: &str,
        texts: &[String],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        self.names_up_to(1_000, field, texts, parse)
    }

    /// As `names`, of so many at most.
    pub fn names_up_to<T>(
        &mut self,
        most: usize,
        field: &str,
        texts: &[String],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        if texts.len() > most {
            let most = if most == 1_000 { "1,000".to_owned() } else { most.to_string() };
            self.refuse(field, format!("must not hold more than {most} names"));
            return None;
        }
        let (mut names, mut wrong) = (Vec::new(), 0);
        for (index, text) in texts.iter().enumerate() {
            match parse(text) {
                Ok(name) => names.push(name),
                Err(_) if wrong == BLAMED => break,
                Err(why) => {
                    wrong += 1;
                    self.refuse(&format!("{field}[{index}]"), why);
                }
            }
        }
        (wrong == 0).then_some(names)
    }

    /// How long to wait for a decision.
    pub fn wait(&mut self, wait: Option<ProtoDuration>) -> Option<std::time::Duration> {
        let Some(wait) = wait else {
            return Some(std::time::Duration::ZERO);
        };
        let parsed = std::time::Duration::try_from(wait)
            .ok()
            .filter(|wait| *wait <= WAIT)
            .ok_or_else(|| "must be between 0 and 60 s".to_owned());
        self.check("wait", parsed)
    }

    /// How many to put on a page.
    pub fn page_size(&mut self, size: i32) -> Option<usize> {
        match usize::try_from(size) {
            Ok(0) => Some(50),
            Ok(size) => Some(size.min(500)),
            Err(_) => {
                self.refuse("page_size", "must not be negative");
                None
            }
        }
    }
}
