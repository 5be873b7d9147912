//! Errors as gRPC statuses with rich details: one exhaustive match.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    error::{Error, Violation},
    proto::ErrorReason,
};

/// The domain of every `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "approvals.v1";

/// When to try again after a failure that passes.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a status says beside its message.
struct Shape {
    code: Code,
    reason: ErrorReason,
    metadata: Option<(&'static str, String)>,
    retry_after: Option<Duration>,
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let shape = shape(&error);
        let mut details = ErrorDetails::new();
        let metadata: HashMap<String, String> =
            shape.metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let reason = shape.reason.as_str_name().trim_start_matches("ERROR_REASON_");
        details.set_error_info(reason, DOMAIN, metadata);
        if let Some(delay) = shape.retry_after {
            details.set_retry_info(Some(delay));
        }
        for Violation { field, description } in violations(&error) {
            details.add_bad_request_violation(field, description);
        }
        Status::with_error_details(shape.code, error.to_string(), details)
    }
}

/// The fields that are to blame, for an error that blames fields.
fn violations(error: &Error) -> Vec<Violation> {
    let blame =
        |field: &str| vec![Violation { field: field.to_owned(), description: error.to_string() }];
    match error {
        Error::Invalid(violations) => violations.clone(),
        Error::CursorInvalid => blame("after_cursor"),
        Error::WorkspaceCycle => blame("workspace.parent_id"),
        _ => Vec::new(),
    }
}

fn shape(error: &Error) -> Shape {
    use ErrorReason as Reason;
    let plain = |code, reason| Shape { code, reason, metadata: None, retry_after: None };
    let with = |code, reason, key, value: String| Shape {
        metadata: Some((key, value)),
        ..plain(code, reason)
    };
    let passing = |code, reason| Shape { retry_after: Some(RETRY_AFTER), ..plain(code, reason) };
    match error {
        Error::Invalid(_) => plain(Code::InvalidArgument, Reason::FieldInvalid),
        Error::Unauthenticated => plain(Code::Unauthenticated, Reason::Unauthenticated),
        Error::RoleMissing => plain(Code::PermissionDenied, Reason::RoleMissing),
        Error::NotAnApprover => plain(Code::PermissionDenied, Reason::NotAnApprover),
        Error::SelfApproval => plain(Code::PermissionDenied, Reason::SelfApproval),
        Error::ApprovalNotFound => plain(Code::NotFound, Reason::ApprovalNotFound),
        Error::NotPending(state) => {
            with(Code::FailedPrecondition, Reason::NotPending, "state", state.as_str().to_owned())
        }
        Error::NotApproved(state) => {
            with(Code::FailedPrecondition, Reason::NotApproved, "state", state.as_str().to_owned())
        }
        Error::NotConsumed(state) => {
            with(Code::FailedPrecondition, Reason::NotConsumed, "state", state.as_str().to_owned())
        }
        Error::ResultRecorded(result) => with(
            Code::FailedPrecondition,
            Reason::ResultRecorded,
            "result",
            result.as_str().to_owned(),
        ),
        Error::HashMismatch => plain(Code::Aborted, Reason::HashMismatch),
        Error::IdempotencyKeyReused => plain(Code::Aborted, Reason::IdempotencyKeyReused),
        Error::IdempotencyKeySpent => plain(Code::Aborted, Reason::IdempotencyKeySpent),
        Error::TooManyPending { limit } => {
            with(Code::ResourceExhausted, Reason::TooManyPending, "limit", limit.to_string())
        }
        Error::ActionUnknown => plain(Code::FailedPrecondition, Reason::ActionUnknown),
        Error::CursorInvalid => plain(Code::InvalidArgument, Reason::CursorInvalid),
        Error::CursorExpired => plain(Code::OutOfRange, Reason::CursorExpired),
        Error::HistoryChanged => plain(Code::FailedPrecondition, Reason::HistoryChanged),
        Error::WorkspaceNotFound => plain(Code::NotFound, Reason::WorkspaceNotFound),
        Error::ParentNotFound => plain(Code::FailedPrecondition, Reason::ParentNotFound),
        Error::WorkspaceCycle => plain(Code::InvalidArgument, Reason::WorkspaceCycle),
        Error::StoreUnavailable => passing(Code::Unavailable, Reason::StoreUnavailable),
        Error::OutcomeUnknown => passing(Code::Unavailable, Reason::StoreUnavailable),
        Error::Overloaded => passing(Code::Unavailable, Reason::Overloaded),
        Error::TooManyCalls => passing(Code::ResourceExhausted, Reason::Overloaded),
        Error::Draining => passing(Code::Unavailable, Reason::Draining),
        Error::SubscriberTooSlow => passing(Code::Unavailable, Reason::SubscriberTooSlow),
        // The contract has no reason for a fault of ours; what it says of this one holds: nothing was decided.
        Error::Internal { .. } => plain(Code::Internal, Reason::StoreUnavailable),
    }
}

#[cfg(test)]
mod tests;
