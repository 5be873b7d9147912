//! An operation is held, approved, let through once, and held again.

use approval_authority::proto::{
    self, ApprovalState, Decision, EventType, ListApprovalsRequest, Outcome, Start,
    WatchApprovalsRequest,
};
use tonic::Code;

use crate::{
    harness::{TestServer, context, id, refusal, request, told},
    watch::events,
};

#[tokio::test]
async fn held_approved_let_through_once_and_held_again() {
    let (database, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);

    let first = backend.require("w1", "delete_workspace").await;
    assert_eq!(told(&first), (Outcome::Pending, ApprovalState::Pending));
    let again = backend.require("w1", "delete_workspace").await;
    assert_eq!(again, first, "a retry joins, and is told the same");
    let rows = "SELECT count(*) FROM approval_authority.approvals";
    assert_eq!(database.count(rows).await, 1);

    let approved = alice.approve(&id(&first)).await;
    assert_eq!(approved.state(), ApprovalState::Approved);
    assert_eq!(approved.verdicts[0].approver, "tokens:alice");

    let through = backend.require("w1", "delete_workspace").await;
    assert_eq!(told(&through), (Outcome::Approved, ApprovalState::Consumed));
    assert_eq!(id(&through), id(&first));
    assert!(!through.replayed);
    assert_eq!(through.approval.as_ref().expect("it").consumed_by, "tokens:backend");

    let held = backend.require("w1", "delete_workspace").await;
    assert_eq!(told(&held), (Outcome::Pending, ApprovalState::Pending));
    assert_ne!(id(&held), id(&first), "another approval is asked for");

    alice.approve(&id(&held)).await;
    let mut other = request("w1", "delete_workspace");
    other.context = Some(context(&[("force", 1.0)]));
    let other = backend.ask(other).await.expect("held");
    assert_eq!(told(&other), (Outcome::Pending, ApprovalState::Pending), "another operation");
    assert_ne!(id(&other), id(&held));
}

#[tokio::test]
async fn an_approval_is_for_who_asked_and_for_whom() {
    let (_, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let held = backend.require("w1", "secret_write").await;
    alice.approve(&id(&held)).await;

    let somebody_else = server.caller("backend-2").await.require("w1", "secret_write").await;
    assert_eq!(somebody_else.outcome(), Outcome::Pending);
    let mut in_a_name = request("w1", "secret_write");
    in_a_name.on_behalf_of = "mallory".to_owned();
    let in_a_name = backend.ask(in_a_name).await.expect("held");
    assert_eq!(in_a_name.outcome(), Outcome::Pending);
    assert_eq!(backend.require("w1", "secret_write").await.outcome(), Outcome::Approved);
}

#[tokio::test]
async fn a_root_asks_its_own_and_a_child_its_parent_too() {
    let (_, server) = TestServer::new().await;
    let (backend, admin) = (server.caller("backend").await, server.caller("admin").await);
    admin.put_workspace("root", "").await.expect("put");
    admin.put_workspace("child", "root").await.expect("put");
    let root = backend.require("root", "delete_workspace").await;
    let child = backend.require("child", "delete_workspace").await;
    assert_eq!(child.approval.as_ref().expect("it").version, 2);

    let watch = WatchApprovalsRequest { start: Start::Oldest.into(), ..Default::default() };
    let told: Vec<_> = events(&server.caller("viewer").await, watch, 3)
        .await
        .into_iter()
        .map(|event| {
            let approval = event.approval.clone().expect("it");
            (event.r#type(), event.workspace_id, approval.id, approval.version)
        })
        .collect();
    assert_eq!(
        told,
        [
            (EventType::Requested, "root".to_owned(), id(&root), 1),
            (EventType::Requested, "child".to_owned(), id(&child), 1),
            (EventType::Escalated, "root".to_owned(), id(&child), 2),
        ]
    );
}

#[tokio::test]
async fn an_unlisted_action_is_not_gated_and_leaves_nothing() {
    let (database, server) = TestServer::new().await;
    let backend = server.caller("backend").await;
    let answer = backend.require("w1", "read_logs").await;
    assert_eq!(answer.outcome(), Outcome::NotRequired);
    assert_eq!(answer.approval, None);
    assert_eq!(database.count("SELECT count(*) FROM approval_authority.approvals").await, 0);
    assert_eq!(database.count("SELECT count(*) FROM approval_authority.events").await, 0);
}

#[tokio::test]
async fn the_order_of_keys_does_not_matter() {
    let (_, server) = TestServer::new().await;
    let backend = server.caller("backend").await;
    let mut ask = request("w1", "secret_write");
    ask.context = Some(context(&[("a", 1.0), ("b", 2.5), ("c", -0.0)]));
    let first = backend.ask(ask.clone()).await.expect("held");
    ask.context = Some(context(&[("c", 0.0), ("b", 2.5), ("a", 1.0)]));
    let second = backend.ask(ask).await.expect("held");
    assert_eq!(id(&first), id(&second));
    let approval = first.approval.expect("it");
    assert_eq!(approval.context, Some(context(&[("a", 1.0), ("b", 2.5), ("c", 0.0)])));
}

#[tokio::test]
async fn two_namespaces_have_nothing_in_common() {
    let (_, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let in_acme = |mut ask: proto::RequireApprovalRequest| {
        ask.namespace = "acme".to_owned();
        ask
    };
    let ours = backend.require("w1", "delete_workspace").await;
    let theirs = backend.ask(in_acme(request("w1", "delete_workspace"))).await.expect("held");
    assert_ne!(id(&ours), id(&theirs));

    let elsewhere = alice.get(&id(&theirs)).await.expect_err("of another namespace");
    assert_eq!(refusal(&elsewhere), (Code::NotFound, "APPROVAL_NOT_FOUND".to_owned()));
    let elsewhere = alice.decide(&id(&theirs), Decision::Approve).await.expect_err("not here");
    assert_eq!(refusal(&elsewhere), (Code::NotFound, "APPROVAL_NOT_FOUND".to_owned()));

    let list = |namespace: &str, token: &str| ListApprovalsRequest {
        namespace: namespace.to_owned(),
        page_token: token.to_owned(),
        page_size: 1,
        ..Default::default()
    };
    backend.require("w2", "delete_workspace").await;
    let page = alice.list(list("", "")).await.expect("a page");
    assert!(!page.next_page_token.is_empty());
    let crossed = alice.list(list("acme", &page.next_page_token)).await.expect_err("crossed");
    assert_eq!(refusal(&crossed), (Code::InvalidArgument, "FIELD_INVALID".to_owned()));

    let watch = |namespace: &str, cursor: &str| WatchApprovalsRequest {
        namespace: namespace.to_owned(),
        after_cursor: cursor.to_owned(),
        ..Default::default()
    };
    let crossed = alice.watch(watch("acme", &page.watch_cursor)).await.expect_err("crossed");
    assert_eq!(refusal(&crossed), (Code::InvalidArgument, "CURSOR_INVALID".to_owned()));
    let oldest = WatchApprovalsRequest {
        namespace: "acme".to_owned(),
        start: Start::Oldest.into(),
        ..Default::default()
    };
    let seen = events(&alice, oldest, 1).await;
    assert_eq!(seen[0].revision, 1, "each namespace counts for itself");
    assert_eq!(seen[0].approval.as_ref().expect("it").id, id(&theirs));
}
