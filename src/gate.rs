//! The client side: a gate in front of an operation, which lets nobody through but on the authority's word.
//!
//! ```no_run
//! use approval_authority::gate::{Gate, Held, Operation, Outcome, Report};
//!
//! # async fn delete(_: &str) -> Result<(), ()> { Ok(()) }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // Once, at start. The authority need not be there yet.
//! let gate = Gate::connect("https://approvals.example.com:50051", "/run/secrets/token").await?;
//!
//! let operation = Operation::new("w1", "delete_workspace")
//!     .context(serde_json::json!({"with_backups": true}))
//!     .on_behalf_of("sam@example.com")
//!     .reason("nobody has used it since May");
//! match gate.require(operation).await {
//!     Outcome::Permitted(permit) => {
//!         let deleted = delete("w1").await;
//!         permit.report(if deleted.is_ok() { Report::Succeeded } else { Report::Failed }).await?;
//!     }
//!     Outcome::Held(Held::Pending(approval)) => println!("{} waits for a person", approval.id),
//!     Outcome::Held(held) => println!("not now: {held}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! There is no way from an [`Outcome`] to a [`Permit`] but by telling the two outcomes apart, and every error is the
//! one that holds:
//!
//! ```compile_fail
//! # async fn example(gate: approval_authority::gate::Gate) {
//! # use approval_authority::gate::{Operation, Outcome};
//! let Outcome::Permitted(permit) = gate.require(Operation::new("w1", "delete_workspace")).await;
//! # }
//! ```
//!
//! [`layer`] gates the routes of an HTTP server; [`subscribe`] follows what happens to approvals.

use std::{fmt, sync::Arc, time::Duration};

use tonic::Status;
use tonic_types::StatusExt;
use uuid::Uuid;

pub use self::{builder::Builder, operation::Operation};
pub use crate::proto::Approval;

#[cfg(feature = "server")]
pub(crate) use self::calls::passes;
use self::{answer::Answer, calls::Calls, operation::Asked};
use crate::proto::{
    self, Decision, ReportResultRequest, RequireApprovalRequest, RequireApprovalResponse,
};

pub(crate) mod answer;
pub(crate) mod builder;
mod calls;
pub mod layer;
mod operation;
pub mod subscribe;
pub(crate) mod token;

/// A gate. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Gate(pub(crate) Arc<Calls>);

/// What the authority says of an operation. Whatever is not `Permitted` must not be executed.
#[derive(Debug)]
#[must_use = "an operation may be executed only when it is permitted"]
pub enum Outcome {
    /// Execute it now, once.
    Permitted(Permit),
    /// Do not execute it.
    Held(Held),
}

/// Why an operation must not be executed.
#[derive(Debug)]
#[must_use = "tell whoever asked why it is held"]
pub enum Held {
    /// A person has been asked. Ask again later for the same operation.
    Pending(Box<Approval>),
    /// A person said no.
    Denied(Denied),
    /// It could not be found out whether it may be executed.
    Unavailable(Fault),
}

/// A person's no.
#[derive(Debug)]
pub struct Denied {
    /// The approval that was refused. It may have been asked for by somebody else.
    pub approval: Box<Approval>,
    /// How long until the same may be asked for again.
    pub retry_after: Duration,
}

/// Why the authority's word could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The operation cannot be asked for; all that is wrong with it.
    #[error("the operation cannot be asked for: {0}")]
    Invalid(String),
    /// The authority refuses the call, and would refuse it again.
    #[error("the authority refuses the call: {}", .0.message())]
    Refused(Status),
    /// The authority could not be reached, or not in time.
    #[error("the authority cannot be reached: {}", .0.message())]
    Unreachable(Status),
    /// What was answered cannot be relied upon.
    #[error("the authority's answer cannot be relied upon: {0}")]
    Untrue(String),
}

/// What a gate is told at start and cannot work with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misconfigured(String);

/// The authority's word that an operation may be executed once.
#[derive(Debug)]
#[must_use = "execute the operation, and report what became of it"]
pub struct Permit {
    calls: Arc<Calls>,
    operation: Operation,
    approval: Option<Box<Approval>>,
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It ran to its end.
    Succeeded,
    /// It failed.
    Failed,
    /// Nobody can tell.
    Unknown,
}

impl Gate {
    /// A gate to the authority at a URL, with the token in a file: `Gate::builder(endpoint).token_file(file).connect()`.
    pub async fn connect(
        endpoint: impl Into<String>,
        token_file: impl Into<std::path::PathBuf>,
    ) -> Result<Self, Misconfigured> {
        Self::builder(endpoint).token_file(token_file).connect().await
    }

    /// A gate to the authority at a URL, as in `https://approvals.example.com:50051`.
    pub fn builder(endpoint: impl Into<String>) -> Builder {
        Builder::new(endpoint.into())
    }

    /// Asks whether an operation may be executed now, once.
    ///
    /// Where the policy gates it, that takes a person's approval of exactly this, which is consumed. Each call is an
    /// attempt of its own: what it asks again after an answer was lost, it asks under the same idempotency key. An answer
    /// comes within the gate's deadline. A caller that drops this future may have consumed an approval for nothing.
    pub async fn require(&self, operation: Operation) -> Outcome {
        match self.ask(&operation).await {
            Ok(Answer::Through(approval)) => {
                Outcome::Permitted(Permit { calls: self.0.clone(), operation, approval })
            }
            Ok(Answer::Pending(approval)) => Outcome::Held(Held::Pending(approval)),
            Ok(Answer::Denied(denied)) => Outcome::Held(Held::Denied(denied)),
            Err(fault) => Outcome::Held(Held::Unavailable(fault)),
        }
    }

    async fn ask(&self, operation: &Operation) -> Result<Answer, Fault> {
        let asked = operation.ask()?;
        let answer = self.put(&asked, &Uuid::new_v4().to_string()).await?;
        answer::read(&asked, answer)
    }

    /// The authority's answer as it came. Nothing may be made of it before it was read.
    pub(crate) async fn put(
        &self,
        asked: &Asked,
        idempotency_key: &str,
    ) -> Result<RequireApprovalResponse, Fault> {
        let message = |wait: Duration| RequireApprovalRequest {
            idempotency_key: idempotency_key.to_owned(),
            // Of a minute at most, so it can be expressed.
            wait: (!wait.is_zero()).then(|| wait.try_into().unwrap_or_default()),
            ..asked.message.clone()
        };
        let answer = self.0.call(self.0.wait, message, |mut approvals, request| async move {
            approvals.require_approval(request).await
        });
        answer.await
    }
}

impl Permit {
    /// What may be executed.
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    /// The approval that was consumed; none where the policy asks for none.
    pub fn approval(&self) -> Option<&Approval> {
        self.approval.as_deref()
    }

    /// Puts on record what became of the operation. Nothing is to be done about an error but to tell it: the operation
    /// was executed.
    pub async fn report(self, report: Report) -> Result<(), Fault> {
        let Some(approval) = self.approval else { return Ok(()) };
        let result = match report {
            Report::Succeeded => proto::Result::Succeeded,
            Report::Failed => proto::Result::Failed,
            Report::Unknown => proto::Result::Unknown,
        };
        let message = |_| ReportResultRequest {
            namespace: approval.namespace.clone(),
            approval_id: approval.id.clone(),
            result: result.into(),
            ..Default::default()
        };
        let recorded =
            self.calls.call(Duration::ZERO, message, |mut approvals, request| async move {
                approvals.report_result(request).await
            });
        recorded.await.map(|_| ())
    }
}

impl Denied {
    /// What was said by who denied it.
    pub fn reason(&self) -> &str {
        let no = |verdict: &&proto::Verdict| verdict.decision() == Decision::Deny;
        self.approval.verdicts.iter().find(no).map_or("", |verdict| &verdict.reason)
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending(approval) => write!(f, "approval {} is pending", approval.id),
            Self::Denied(denied) => write!(f, "approval {} was denied", denied.approval.id),
            Self::Unavailable(fault) => write!(f, "{fault}"),
        }
    }
}

impl Fault {
    /// Why the authority refused, as in the contract's `ErrorReason`; empty if it was not the authority that spoke.
    pub fn reason(&self) -> String {
        match self {
            Self::Refused(status) | Self::Unreachable(status) => reason(status),
            Self::Invalid(_) | Self::Untrue(_) => String::new(),
        }
    }
}

pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}
