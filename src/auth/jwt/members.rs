//! A JSON object of a token.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, error::Category};

use super::Refusal;
use crate::json;

/// The members.
pub(super) struct Members(Map<String, Value>);

impl Members {
    /// Reads an object; the error says what is wrong without saying what stands there.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        match json::parse(json) {
            Ok(Value::Object(members)) => Ok(Self(members)),
            Ok(_) => Err("no object".to_owned()),
            Err(error) if error.classify() == Category::Data => {
                Err("a member stands twice".to_owned())
            }
            Err(_) => Err("no JSON".to_owned()),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A member that is text, if it is there.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| wrong(name, "text"))
    }

    /// A member that is a list of texts, if it is there.
    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<&str>>, Refusal> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let texts = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        texts.map(Some).ok_or_else(|| wrong(name, "a list of texts"))
    }

    /// A member that is a time in seconds since 1970, if it is there, moved by so much.
    pub(super) fn time(
        &self,
        name: &str,
        by: SignedDuration,
    ) -> Result<Option<Timestamp>, Refusal> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let time = value.as_f64().and_then(|seconds| {
            let since_1970 = SignedDuration::try_from_secs_f64(seconds).ok()?;
            Timestamp::from_duration(since_1970.checked_add(by)?).ok()
        });
        time.map(Some).ok_or_else(|| wrong(name, "a time"))
    }
}

fn wrong(name: &str, expected: &str) -> Refusal {
    Refusal::Malformed(format!("{name} is not {expected}"))
}
