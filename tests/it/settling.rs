//! Taking back, revoking, reporting: each by whom it is for, and as the table of states has it.

use approval_authority::proto::{
    self, ApprovalState, EventType, Outcome, ReportResultRequest, RevokeApprovalRequest, Start,
    WatchApprovalsRequest, WithdrawApprovalRequest,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    harness::{Caller, TestServer, id, refusal},
    watch::events,
};

async fn withdraw(caller: &Caller, id: &str) -> Result<proto::Approval, Status> {
    let request = WithdrawApprovalRequest { approval_id: id.to_owned(), ..Default::default() };
    let answer = caller.approvals.clone().withdraw_approval(request).await?.into_inner();
    Ok(answer.approval.expect("it"))
}

async fn revoke(caller: &Caller, id: &str, reason: &str) -> Result<proto::Approval, Status> {
    let request = RevokeApprovalRequest {
        approval_id: id.to_owned(),
        reason: reason.to_owned(),
        ..Default::default()
    };
    let answer = caller.approvals.clone().revoke_approval(request).await?.into_inner();
    Ok(answer.approval.expect("it"))
}

async fn report(
    caller: &Caller,
    id: &str,
    result: proto::Result,
) -> Result<proto::Approval, Status> {
    let request = ReportResultRequest {
        approval_id: id.to_owned(),
        result: result.into(),
        detail: "it went as it went".to_owned(),
        ..Default::default()
    };
    let answer = caller.approvals.clone().report_result(request).await?.into_inner();
    Ok(answer.approval.expect("it"))
}

fn precondition(reason: &str) -> (Code, String) {
    (Code::FailedPrecondition, reason.to_owned())
}

#[tokio::test]
async fn a_request_is_taken_back_by_who_made_it_while_it_is_pending() {
    let (_, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let held = id(&backend.require("w1", "secret_write").await);
    let other = withdraw(&server.caller("backend-2").await, &held).await.expect_err("another");
    assert_eq!(refusal(&other), (Code::NotFound, "APPROVAL_NOT_FOUND".to_owned()));
    let approver = withdraw(&alice, &held).await.expect_err("no requester");
    assert_eq!(refusal(&approver), (Code::PermissionDenied, "ROLE_MISSING".to_owned()));

    let withdrawn = withdraw(&backend, &held).await.expect("its own");
    assert_eq!(withdrawn.state(), ApprovalState::Withdrawn);
    let again = withdraw(&backend, &held).await.expect_err("settled");
    assert_eq!(refusal(&again), precondition("NOT_PENDING"));
    assert_eq!(again.get_error_details().error_info().expect("it").metadata["state"], "WITHDRAWN");
    assert_ne!(id(&backend.require("w1", "secret_write").await), held, "asked anew");
}

#[tokio::test]
async fn an_approval_is_revoked_before_it_is_used() {
    let (_, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let held = id(&backend.require("w1", "secret_write").await);
    let pending = revoke(&alice, &held, "too early").await.expect_err("pending");
    assert_eq!(refusal(&pending), precondition("NOT_APPROVED"));
    alice.approve(&held).await;
    let silent = revoke(&alice, &held, " ").await.expect_err("no reason");
    assert_eq!(refusal(&silent), (Code::InvalidArgument, "FIELD_INVALID".to_owned()));
    let requester = revoke(&backend, &held, "mine").await.expect_err("no approver");
    assert_eq!(refusal(&requester), (Code::PermissionDenied, "NOT_AN_APPROVER".to_owned()));
    let bob = server.caller("bob").await;
    let revoked = revoke(&bob, &held, "second thoughts").await.expect("revoked");
    assert_eq!(revoked.state(), ApprovalState::Revoked);
    assert_eq!(backend.require("w1", "secret_write").await.outcome(), Outcome::Pending);
}

#[tokio::test]
async fn the_consumer_reports_what_became_of_it_once() {
    let (_, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let held = id(&backend.require("w1", "secret_write").await);
    let early = report(&backend, &held, proto::Result::Failed).await.expect_err("not yet");
    assert_eq!(refusal(&early), precondition("NOT_CONSUMED"));
    alice.approve(&held).await;
    backend.require("w1", "secret_write").await;
    let unsaid = report(&backend, &held, proto::Result::Unspecified).await.expect_err("nothing");
    assert_eq!(refusal(&unsaid), (Code::InvalidArgument, "FIELD_INVALID".to_owned()));
    for _ in 0..2 {
        let reported = report(&backend, &held, proto::Result::Failed).await.expect("reported");
        assert_eq!((reported.result(), reported.version), (proto::Result::Failed, 4));
    }
    let other = report(&backend, &held, proto::Result::Succeeded).await.expect_err("recorded");
    assert_eq!(refusal(&other), precondition("RESULT_RECORDED"));
    assert_eq!(other.get_error_details().error_info().expect("it").metadata["result"], "FAILED");

    let watch = WatchApprovalsRequest { start: Start::Oldest.into(), ..Default::default() };
    let told: Vec<EventType> =
        events(&alice, watch, 4).await.iter().map(|event| event.r#type()).collect();
    assert_eq!(
        told,
        [EventType::Requested, EventType::Approved, EventType::Consumed, EventType::ResultReported]
    );
}

#[tokio::test]
async fn the_attempt_that_consumed_reads_its_answer_again_until_it_reports() {
    let (_, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let held = id(&backend.require("w1", "secret_write").await);
    alice.approve(&held).await;
    let attempt = |workspace: &str| {
        let mut ask = crate::harness::request(workspace, "secret_write");
        ask.idempotency_key = "attempt-1".to_owned();
        ask
    };
    let first = backend.ask(attempt("w1")).await.expect("let through");
    assert_eq!((first.outcome(), first.replayed), (Outcome::Approved, false));
    let again = backend.ask(attempt("w1")).await.expect("the same answer");
    assert_eq!((again.outcome(), again.replayed), (Outcome::Approved, true));
    assert_eq!(id(&again), held);
    let reused = backend.ask(attempt("w2")).await.expect_err("another operation");
    assert_eq!(refusal(&reused), (Code::Aborted, "IDEMPOTENCY_KEY_REUSED".to_owned()));
    let somebody_else = server.caller("backend-2").await.ask(attempt("w1")).await.expect("held");
    assert_eq!(somebody_else.outcome(), Outcome::Pending, "keys are each principal's own");
    report(&backend, &held, proto::Result::Succeeded).await.expect("reported");
    let spent = backend.ask(attempt("w1")).await.expect_err("over");
    assert_eq!(refusal(&spent), (Code::Aborted, "IDEMPOTENCY_KEY_SPENT".to_owned()));
}
