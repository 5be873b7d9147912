//! What can go wrong, in the domain's words. `grpc::status` turns each into a status, in one exhaustive
//! match.

use crate::{
    approval::{OperationResult, State},
    traces,
};

/// A field of a request that is missing, malformed or over its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's path in the request, as in the contract: `context`, `workspace.id`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// Why a call was not carried out. No variant lets a caller proceed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Fields of the request are wrong; all of them are named.
    #[error("the request is invalid: {}", describe(.0))]
    Invalid(Vec<Violation>),
    /// No credential, or one that is unknown, expired or not yet valid.
    #[error("a valid credential is required")]
    Unauthenticated,
    /// No role of the caller allows the call here.
    #[error("no role of yours allows this call here")]
    RoleMissing,
    /// The caller holds no approver role for this workspace and action.
    #[error("you hold no approver role for this workspace and action")]
    NotAnApprover,
    /// The caller requested the approval, or it was requested in its name.
    #[error("nobody approves what they asked for")]
    SelfApproval,
    /// No such approval, or the caller may not see it.
    #[error("no such approval")]
    ApprovalNotFound,
    /// The approval is settled already.
    #[error("the approval is not pending; it is {}", .0.as_str())]
    NotPending(State),
    /// There is no unused approval to take back.
    #[error("the approval is not approved and unused; it is {}", .0.as_str())]
    NotApproved(State),
    /// Nothing was executed under the approval.
    #[error("the approval was not consumed; it is {}", .0.as_str())]
    NotConsumed(State),
    /// Another result is on record.
    #[error("another result is on record: {}", .0.as_str())]
    ResultRecorded(OperationResult),
    /// The approver was shown another request than this one.
    #[error("request_hash is not that of this approval")]
    HashMismatch,
    /// The idempotency key was used for another operation.
    #[error("the idempotency key was used for another operation")]
    IdempotencyKeyReused,
    /// The attempt of the idempotency key is over.
    #[error("the attempt of this idempotency key is over")]
    IdempotencyKeySpent,
    /// The workspace's cap is reached.
    #[error("the workspace has {limit} pending approvals, as many as the policy allows")]
    TooManyPending {
        /// The cap.
        limit: u32,
    },
    /// The policy refuses actions that it does not list.
    #[error("the policy does not know this action and refuses it")]
    ActionUnknown,
    /// The cursor is not one that this service made for this namespace.
    #[error("after_cursor is not a cursor of this namespace")]
    CursorInvalid,
    /// The log no longer reaches back to the cursor.
    #[error("the log no longer reaches back to after_cursor; start again with START_PENDING")]
    CursorExpired,
    /// The cursor is of another log, or ahead of this one.
    #[error("after_cursor is of another history; start again with START_PENDING")]
    HistoryChanged,
    /// No such workspace.
    #[error("no such workspace")]
    WorkspaceNotFound,
    /// The parent does not exist.
    #[error("the parent does not exist in this namespace")]
    ParentNotFound,
    /// The parent is the workspace itself or one of its descendants.
    #[error("the parent is the workspace itself or one of its descendants")]
    WorkspaceCycle,
    /// The database cannot be reached; nothing was decided.
    #[error("the database cannot be reached; nothing was decided")]
    StoreUnavailable,
    /// The answer was lost around COMMIT and could not be found out.
    #[error("the database did not confirm the change; the outcome is unknown")]
    OutcomeUnknown,
    /// The server has too much to do, whoever asks.
    #[error("the server has too much to do; try again later, or another server")]
    Overloaded,
    /// As many calls, waiting calls or streams are in progress as one principal, or a caller that nobody knows, may have.
    #[error("too many calls or streams of yours are in progress; let some end first")]
    TooManyCalls,
    /// The server is shutting down.
    #[error("the server is shutting down; try another")]
    Draining,
    /// The stream was read too slowly.
    #[error("the stream was read too slowly; resume from the last cursor")]
    SubscriberTooSlow,
    /// A fault of ours. The details are in the log under this id and are never sent.
    #[error("internal error {trace_id}; nothing was let through")]
    Internal {
        /// Where to look in the log.
        trace_id: String,
    },
}

impl Error {
    /// One offending field.
    pub fn invalid(field: &str, description: impl Into<String>) -> Self {
        Self::Invalid(vec![Violation { field: field.to_owned(), description: description.into() }])
    }

    /// A fault of ours: logged here under the id of its trace, or a fresh one where there is none, which is all that the caller is told.
    pub fn internal(fault: impl std::fmt::Display) -> Self {
        let trace_id = traces::id().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        tracing::error!(%trace_id, %fault, "internal error");
        Self::Internal { trace_id }
    }
}

/// Enough for a person to begin with; the details hold them all.
fn describe(violations: &[Violation]) -> String {
    let each: Vec<String> =
        violations.iter().take(8).map(|v| format!("{} {}", v.field, v.description)).collect();
    let more = if violations.len() > 8 { "; and more" } else { "" };
    format!("{}{more}", each.join("; "))
}
