//! Why a command did not do what it was asked to, in plain words, and the exit code that tells scripts so.

use std::{
    error::Error,
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

use tonic::Status;

use super::fold::fitted;
use crate::{
    gate::{self, Fault},
    proto::ErrorReason,
    visible::{Sentence, Visible},
};

/// What a script is told. 0 is for what was done, or let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Failure = 1,
    /// What was asked for cannot be, by anybody.
    Usage = 2,
    /// People have been asked.
    Held = 3,
    /// None, or none that is known.
    Credential = 4,
    /// By a person, by the policy, or for want of a role.
    Refused = 5,
    /// The state is another than was thought.
    MovedOn = 6,
    TryAgain = 7,
}

/// A command that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    /// Empty if it has been told already.
    message: String,
    /// Nobody answered who is the authority.
    is_unreached: bool,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: message.to_string(), is_unreached: false }
    }

    /// One that a person was told of.
    pub(super) fn told(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// Says what it was that failed.
    pub(super) fn about(self, what: &str) -> Self {
        if self.message.is_empty() {
            return self;
        }
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    /// Says where the authority was looked for, if it was not there.
    pub(super) fn at(self, server: &str) -> Self {
        if !self.is_unreached {
            return self;
        }
        // What a server says that is greeted in TLS and does not speak it.
        let is_plain = ["reset by peer", "corrupt message", "close_notify", "unexpected end"]
            .iter()
            .any(|sign| self.message.contains(sign));
        let advice = match server.starts_with("https:") && is_plain {
            true => "; does it speak TLS?",
            false => "; is it --server that you want?",
        };
        Self { message: format!("{}: {}{advice}", Visible(server), self.message), ..self }
    }

    /// Says what to do about it.
    pub(super) fn and(self, advice: &str) -> Self {
        Self { message: format!("{}; {advice}", self.message), ..self }
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn tell(&self) -> ExitCode {
        if !self.message.is_empty() {
            let words = format!("approval-authority: {}\n", self.message);
            // Where nobody can be told, the exit code says what it can.
            let _ = io::stderr().write_all(fitted(&words, io::stderr()).as_bytes());
        }
        ExitCode::from(self.exit as u8)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Who reads the output has seen enough.
            io::ErrorKind::BrokenPipe => Self::told(Exit::Failure),
            _ => Self::new(Exit::Failure, error),
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Invalid(_) => Self::new(Exit::Usage, fault),
            Fault::Untrue(_) => Self::new(Exit::Failure, fault),
            Fault::Refused(status) | Fault::Unreachable(status) => status.into(),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let name = format!("ERROR_REASON_{}", gate::reason(&status));
        let message = Sentence(status.message());
        match ErrorReason::from_str_name(&name).map(judge) {
            Some((exit, "")) => Self::new(exit, message),
            Some((exit, advice)) => Self::new(exit, format!("{message}; {advice}")),
            // It was not the authority that spoke, or one that knows more than this program.
            None if gate::passes(&status) => {
                let why = root(&status).unwrap_or_else(|| message.to_string());
                let why = format!("the authority cannot be reached: {}", Sentence(&why));
                Self { is_unreached: true, ..Self::new(Exit::TryAgain, why) }
            }
            None => Self::new(Exit::Failure, message),
        }
    }
}

/// What lies at the bottom of a connection that failed.
fn root(status: &Status) -> Option<String> {
    let mut cause = status.source()?;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Some(cause.to_string())
}

/// The exit code for each reason of the contract's, and what to do next where the authority's words leave that open.
fn judge(reason: ErrorReason) -> (Exit, &'static str) {
    match reason {
        ErrorReason::Unspecified => (Exit::Failure, ""),
        ErrorReason::FieldInvalid => (Exit::Usage, ""),
        ErrorReason::Unauthenticated => {
            (Exit::Credential, "yours is not known, or has expired: ask for another")
        }
        ErrorReason::RoleMissing => {
            (Exit::Refused, "check --namespace, or ask who keeps the policy")
        }
        ErrorReason::NotAnApprover => (Exit::Refused, "somebody else has to decide"),
        ErrorReason::SelfApproval => (Exit::Refused, "somebody else has to decide"),
        ErrorReason::ApprovalNotFound => {
            (Exit::Failure, "or none that you may see: check the id and --namespace")
        }
        ErrorReason::NotPending => (Exit::MovedOn, ""),
        ErrorReason::NotApproved => (Exit::MovedOn, ""),
        ErrorReason::NotConsumed => (Exit::MovedOn, ""),
        ErrorReason::ResultRecorded => (Exit::MovedOn, ""),
        ErrorReason::HashMismatch => {
            (Exit::MovedOn, "nothing was decided: look at it again with `show`")
        }
        ErrorReason::IdempotencyKeyReused => (Exit::Usage, "make a new one for each attempt"),
        ErrorReason::IdempotencyKeySpent => (Exit::MovedOn, "make a new one for each attempt"),
        ErrorReason::TooManyPending => (Exit::TryAgain, "let people decide those first"),
        ErrorReason::ActionUnknown => (Exit::Refused, ""),
        ErrorReason::CursorInvalid => (Exit::Usage, ""),
        ErrorReason::CursorExpired => (Exit::MovedOn, ""),
        ErrorReason::HistoryChanged => (Exit::MovedOn, ""),
        ErrorReason::WorkspaceNotFound => (Exit::Failure, ""),
        ErrorReason::ParentNotFound => (Exit::Failure, ""),
        ErrorReason::WorkspaceCycle => (Exit::Usage, ""),
        ErrorReason::StoreUnavailable => (Exit::TryAgain, "try again"),
        ErrorReason::Overloaded => (Exit::TryAgain, ""),
        ErrorReason::Draining => (Exit::TryAgain, ""),
        ErrorReason::SubscriberTooSlow => (Exit::TryAgain, ""),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// That all reasons are there is for the test of the statuses to see.
    #[test]
    fn the_exit_codes_are_described_as_they_are() {
        let text = include_str!("../../../docs/errors.md");
        let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
        let rows = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
        let (mut reached, mut described) = (BTreeSet::from([0, Exit::Held as u8]), BTreeSet::new());
        for row in rows {
            match row[..] {
                [_, reason, _, _, exit, ..] if reason.starts_with('`') => {
                    let name = format!("ERROR_REASON_{}", reason.trim_matches('`'));
                    let reason = ErrorReason::from_str_name(&name).expect(&name);
                    let code = judge(reason).0 as u8;
                    assert_eq!(exit, code.to_string(), "{name}");
                    reached.insert(code);
                }
                [exit, _, ""] if exit != "exit" => {
                    described.insert(exit.parse().expect("a code"));
                }
                _ => {}
            }
        }
        assert_eq!(described, reached);
    }
}
