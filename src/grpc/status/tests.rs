use std::collections::BTreeSet;

use tonic_types::RetryInfo;

use super::*;
use crate::{
    approval::{OperationResult, State},
    error::Violation,
};

/// What a caller reads from a status beside its message.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    code: Code,
    reason: &'static str,
    metadata: Option<(&'static str, &'static str)>,
    retry: bool,
}

/// One row for each error: `expected` is exhaustive, so an error without a row does not compile.
macro_rules! table {
    ($($pattern:pat, $example:expr => $code:ident, $reason:literal, $metadata:expr, $retry:literal;)+) => {
        fn examples() -> Vec<Error> {
            $(assert!(matches!($example, $pattern), "a row's example is of its own error");)+
            vec![$($example),+]
        }

        fn expected(error: &Error) -> Told {
            match error {
                $($pattern => Told {
                    code: Code::$code,
                    reason: $reason,
                    metadata: $metadata,
                    retry: $retry,
                },)+
            }
        }
    };
}

#[rustfmt::skip]
table! {
    Error::Invalid(_), Error::invalid("context", "is too long")
        => InvalidArgument, "FIELD_INVALID", None, false;
    Error::Unauthenticated, Error::Unauthenticated
        => Unauthenticated, "UNAUTHENTICATED", None, false;
    Error::RoleMissing, Error::RoleMissing
        => PermissionDenied, "ROLE_MISSING", None, false;
    Error::NotAnApprover, Error::NotAnApprover
        => PermissionDenied, "NOT_AN_APPROVER", None, false;
    Error::SelfApproval, Error::SelfApproval
        => PermissionDenied, "SELF_APPROVAL", None, false;
    Error::ApprovalNotFound, Error::ApprovalNotFound
        => NotFound, "APPROVAL_NOT_FOUND", None, false;
    Error::NotPending(_), Error::NotPending(State::Expired)
        => FailedPrecondition, "NOT_PENDING", Some(("state", "EXPIRED")), false;
    Error::NotApproved(_), Error::NotApproved(State::Consumed)
        => FailedPrecondition, "NOT_APPROVED", Some(("state", "CONSUMED")), false;
    Error::NotConsumed(_), Error::NotConsumed(State::Pending)
        => FailedPrecondition, "NOT_CONSUMED", Some(("state", "PENDING")), false;
    Error::ResultRecorded(_), Error::ResultRecorded(OperationResult::Failed)
        => FailedPrecondition, "RESULT_RECORDED", Some(("result", "FAILED")), false;
    Error::HashMismatch, Error::HashMismatch
        => Aborted, "HASH_MISMATCH", None, false;
    Error::IdempotencyKeyReused, Error::IdempotencyKeyReused
        => Aborted, "IDEMPOTENCY_KEY_REUSED", None, false;
    Error::IdempotencyKeySpent, Error::IdempotencyKeySpent
        => Aborted, "IDEMPOTENCY_KEY_SPENT", None, false;
    Error::TooManyPending { .. }, Error::TooManyPending { limit: 100 }
        => ResourceExhausted, "TOO_MANY_PENDING", Some(("limit", "100")), false;
    Error::ActionUnknown, Error::ActionUnknown
        => FailedPrecondition, "ACTION_UNKNOWN", None, false;
    Error::CursorInvalid, Error::CursorInvalid
        => InvalidArgument, "CURSOR_INVALID", None, false;
    Error::CursorExpired, Error::CursorExpired
        => OutOfRange, "CURSOR_EXPIRED", None, false;
    Error::HistoryChanged, Error::HistoryChanged
        => FailedPrecondition, "HISTORY_CHANGED", None, false;
    Error::WorkspaceNotFound, Error::WorkspaceNotFound
        => NotFound, "WORKSPACE_NOT_FOUND", None, false;
    Error::ParentNotFound, Error::ParentNotFound
        => FailedPrecondition, "PARENT_NOT_FOUND", None, false;
    Error::WorkspaceCycle, Error::WorkspaceCycle
        => InvalidArgument, "WORKSPACE_CYCLE", None, false;
    Error::StoreUnavailable, Error::StoreUnavailable
        => Unavailable, "STORE_UNAVAILABLE", None, true;
    Error::OutcomeUnknown, Error::OutcomeUnknown
        => Unavailable, "STORE_UNAVAILABLE", None, true;
    Error::Overloaded, Error::Overloaded
        => Unavailable, "OVERLOADED", None, true;
    Error::TooManyCalls, Error::TooManyCalls
        => ResourceExhausted, "OVERLOADED", None, true;
    Error::Draining, Error::Draining
        => Unavailable, "DRAINING", None, true;
    Error::SubscriberTooSlow, Error::SubscriberTooSlow
        => Unavailable, "SUBSCRIBER_TOO_SLOW", None, true;
    Error::Internal { .. }, Error::Internal { trace_id: "0-1".to_owned() }
        => Internal, "STORE_UNAVAILABLE", None, false;
}

fn details(error: &Error) -> ErrorDetails {
    Status::from(error.clone()).get_error_details()
}

fn reason(error: &Error) -> String {
    details(error).error_info().unwrap().reason.clone()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn every_error_is_told_as_the_contract_says() {
    for error in examples() {
        let expected = expected(&error);
        let status = Status::from(error.clone());
        assert_eq!(status.code(), expected.code, "{error:?}");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, expected.reason, "{error:?}");
        let metadata = expected.metadata.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(info.metadata, HashMap::from_iter(metadata), "{error:?}");
        assert_eq!(details.retry_info().is_some(), expected.retry, "{error:?}");
    }
}

#[test]
fn every_error_is_of_one_domain() {
    for error in examples() {
        assert_eq!(details(&error).error_info().unwrap().domain, "approvals.v1");
    }
}

#[test]
fn every_status_says_something() {
    for error in examples() {
        assert_eq!(Status::from(error.clone()).message(), error.to_string());
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn every_reason_of_the_contract_is_given_by_some_error() {
    let given: BTreeSet<String> = examples().iter().map(reason).collect();
    let contract = (1..100).filter_map(|number| ErrorReason::try_from(number).ok());
    for each in contract {
        let name = each.as_str_name().trim_start_matches("ERROR_REASON_");
        assert!(given.contains(name), "{name}");
    }
}

#[test]
fn a_retry_is_advised_after_a_moment() {
    let advised: Vec<RetryInfo> =
        examples().iter().filter_map(|error| details(error).retry_info().cloned()).collect();
    assert!(!advised.is_empty());
    for RetryInfo { retry_delay } in advised {
        assert!(retry_delay.is_some_and(|delay| !delay.is_zero()));
    }
}

#[test]
fn the_metadata_names_the_state() {
    for &state in State::ALL {
        for error in
            [Error::NotPending(state), Error::NotApproved(state), Error::NotConsumed(state)]
        {
            let details = details(&error);
            let metadata = &details.error_info().unwrap().metadata;
            assert_eq!(metadata["state"], state.as_str());
        }
    }
}

#[test]
fn the_metadata_names_the_result() {
    for &result in OperationResult::ALL {
        let details = details(&Error::ResultRecorded(result));
        let metadata = &details.error_info().unwrap().metadata;
        assert_eq!(metadata["result"], result.as_str());
    }
}

#[test]
fn bad_input_is_told_with_every_violation() {
    let violations = [
        ("workspace_id", "must be 1 to 128 bytes"),
        ("action", "must not be empty"),
        ("context", "is too long"),
    ];
    let error = Error::Invalid(
        violations
            .iter()
            .map(|(field, description)| Violation {
                field: (*field).to_owned(),
                description: (*description).to_owned(),
            })
            .collect(),
    );
    let details = details(&error);
    let told: Vec<(&str, &str)> = details
        .bad_request()
        .unwrap()
        .field_violations
        .iter()
        .map(|v| (v.field.as_str(), v.description.as_str()))
        .collect();
    assert_eq!(told, violations);
    for (field, description) in violations {
        assert!(error.to_string().contains(&format!("{field} {description}")));
    }
}

#[test]
fn a_fault_of_ours_is_told_by_its_trace_id_alone() {
    let error = Error::internal("password=hunter2 at 10.0.0.7");
    let Error::Internal { trace_id } = &error else {
        panic!("{error:?}");
    };
    assert!(uuid::Uuid::parse_str(trace_id).is_ok(), "{trace_id}");
    let status = Status::from(error.clone());
    let message = format!("internal error {trace_id}; nothing was let through");
    assert_eq!(status.message(), message);
    assert!(!holds(status.details(), "hunter2"));
    assert_eq!(details(&error).error_info().unwrap().metadata, HashMap::new());
}

#[test]
fn each_fault_of_ours_has_its_own_trace_id() {
    assert_ne!(Error::internal("one"), Error::internal("one"));
}

#[test]
fn an_unreachable_store_is_told_in_fixed_words() {
    assert_eq!(
        Status::from(Error::StoreUnavailable).message(),
        "the database cannot be reached; nothing was decided"
    );
}

// Both have one reason; the contract tells them apart by these words.
#[test]
fn only_an_unknown_outcome_is_called_unknown() {
    for error in examples() {
        let unknown = error.to_string().contains("the outcome is unknown");
        assert_eq!(unknown, error == Error::OutcomeUnknown, "{error:?}");
    }
}

/// `docs/errors.md` has a row for each code and reason that there are, and for no other.
#[test]
fn the_errors_are_described_as_they_are() {
    let name = |code: Code| {
        let mut name = String::new();
        for letter in format!("{code:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
        }
        name
    };
    let sent: BTreeSet<[String; 4]> = examples()
        .iter()
        .map(|error| {
            let Told { code, reason, metadata, retry } = expected(error);
            let metadata = metadata.map_or("", |(key, _)| key).to_owned();
            let retry = if retry { "yes" } else { "no" };
            [name(code), reason.to_owned(), metadata, retry.to_owned()]
        })
        .collect();
    let text = include_str!("../../../docs/errors.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let described: BTreeSet<[String; 4]> = rows
        .map(|row| {
            let mut cells =
                row.split('|').skip(1).map(|cell| cell.trim().trim_matches('`').to_owned());
            std::array::from_fn(|_| cells.next().expect("a cell"))
        })
        .collect();
    assert_eq!(described, sent);
}
