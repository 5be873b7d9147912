//! What a caller may do while its call goes on.

use std::time::Duration;

use approval_authority::{
    grpc::limits::Limits,
    proto::{
        ApprovalState, Outcome, RequireApprovalRequest, RequireApprovalResponse,
        WatchApprovalsRequest, WatchApprovalsResponse, watch_approvals_response::Message,
    },
};
use tokio::task::JoinHandle;
use tonic::{Code, Status, Streaming};

use crate::{
    database::Database,
    harness::{Caller, TestServer, id, refusal, request},
    server::{LIMITS, policy_text, tokens_text},
};

async fn watch(caller: &Caller) -> Result<Streaming<WatchApprovalsResponse>, Status> {
    let mut stream = caller.watch(WatchApprovalsRequest::default()).await?;
    stream.message().await?.expect("a bookmark");
    Ok(stream)
}

/// The workspace of the next event.
async fn next(stream: &mut Streaming<WatchApprovalsResponse>) -> Result<String, Status> {
    loop {
        if let Some(Message::Event(event)) = stream.message().await?.expect("no end").message {
            return Ok(event.workspace_id);
        }
    }
}

/// The tests' policy without the binding that names this principal.
fn without(principal: &str) -> String {
    let policy = policy_text();
    let blocks: Vec<&str> = policy.split("[[bindings]]").collect();
    let kept: Vec<&str> =
        blocks.into_iter().filter(|block| !block.contains(&format!("\"{principal}\""))).collect();
    kept.join("[[bindings]]")
}

#[tokio::test]
async fn a_stream_ends_at_once_with_the_right_to_it() {
    let (_, server) = TestServer::new().await;
    let (viewer, alice) = (server.caller("viewer").await, server.caller("alice").await);
    let (mut loses_its_role, mut goes_on) =
        (watch(&viewer).await.expect("one"), watch(&alice).await.expect("one"));
    let admin = server.caller("admin").await;
    let mut loses_its_token = watch(&admin).await.expect("one");

    let without_the_admins = tokens_text().replace("subject = \"admin\"", "subject = \"nobody\"");
    server.reload(&without("tokens:viewer"), &without_the_admins);
    let ended = next(&mut loses_its_role).await.expect_err("no role");
    assert_eq!(refusal(&ended), (Code::PermissionDenied, "ROLE_MISSING".to_owned()));
    let ended = next(&mut loses_its_token).await.expect_err("another's token");
    assert_eq!(refusal(&ended), (Code::Unauthenticated, "UNAUTHENTICATED".to_owned()));
    server.caller("backend").await.require("w1", "delete_workspace").await;
    assert_eq!(next(&mut goes_on).await.expect("an event"), "w1");
}

#[tokio::test]
async fn a_stream_shows_no_more_than_its_subscriber_may_see_by_now() {
    let (_, server) = TestServer::new().await;
    let viewer = server.caller("viewer").await;
    let mut stream = watch(&viewer).await.expect("one");
    let backend = server.caller("backend").await;
    backend.require("before", "delete_workspace").await;
    assert_eq!(next(&mut stream).await.expect("an event"), "before");
    let only_one = "role = \"viewer\"\nprincipals = [\"tokens:viewer\"]\nworkspaces = [\"mine\"]\n";
    server
        .reload(&format!("{}\n[[bindings]]\n{only_one}", without("tokens:viewer")), &tokens_text());
    backend.require("hidden", "delete_workspace").await;
    backend.require("mine", "delete_workspace").await;
    assert_eq!(next(&mut stream).await.expect("an event"), "mine");
}

/// A call about "w1" that has been let in and waits, and the approval that it waits for.
async fn waiting(
    backend: &Caller,
) -> (String, JoinHandle<Result<RequireApprovalResponse, Status>>) {
    let held = id(&backend.require("w1", "delete_workspace").await);
    let wait = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let call = RequireApprovalRequest { wait, ..request("w1", "delete_workspace") };
    let waiting = backend.clone();
    let call = tokio::spawn(async move { waiting.ask(call).await });
    tokio::task::yield_now().await;
    // A call behind it on the same connection is answered, so it has been let in.
    backend.require("w2", "delete_workspace").await;
    (held, call)
}

/// What was approved while the caller waited stays approved, and unused.
#[tokio::test]
async fn a_call_that_lost_its_right_while_it_waited_is_not_let_through() {
    let (_, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let (held, call) = waiting(&backend).await;
    server.reload(&without("tokens:backend"), &tokens_text());
    alice.approve(&held).await;
    let ended = tokio::time::timeout(Duration::from_secs(30), call).await.expect("woken");
    let refused = ended.expect("no panic").expect_err("not let through");
    assert_eq!(refusal(&refused), (Code::PermissionDenied, "ROLE_MISSING".to_owned()));
    assert_eq!(alice.get(&held).await.expect("it").state(), ApprovalState::Approved);
    server.reload(&policy_text(), &tokens_text());
    let through = server.caller("backend").await.require("w1", "delete_workspace").await;
    assert_eq!((through.outcome(), id(&through)), (Outcome::Approved, held));
}

#[tokio::test]
async fn streams_are_counted_for_each_principal_and_for_all() {
    let database = Database::new().await;
    let limits = Limits { watchers: 3, watchers_per_principal: 2, ..LIMITS };
    let server = TestServer::with_limits(&database.url, limits).await;
    let (alice, bob) = (server.caller("alice").await, server.caller("bob").await);
    let first = watch(&alice).await.expect("one");
    let _second = watch(&alice).await.expect("two");
    let too_many = (Code::ResourceExhausted, "OVERLOADED".to_owned());
    let too_many_in_all = (Code::Unavailable, "OVERLOADED".to_owned());
    assert_eq!(refusal(&watch(&alice).await.expect_err("three of hers")), too_many);
    let _third = watch(&bob).await.expect("one of his");
    assert_eq!(refusal(&watch(&bob).await.expect_err("four in all")), too_many_in_all);
    drop(first);
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while let Err(refused) = watch(&alice).await {
        assert_eq!(refusal(&refused), too_many);
        assert!(std::time::Instant::now() < until, "a place that is given up is free");
    }
}

/// What is asked anew after a reload is asked on the terms that are in force by then.
#[tokio::test]
async fn a_call_that_waits_asks_anew_under_the_new_policy() {
    let (_, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let (held, call) = waiting(&backend).await;
    let (_, other) = waiting(&backend).await;
    let stricter = policy_text().replace("approvals_required = 1", "approvals_required = 2");
    server.reload(&stricter, &tokens_text());
    // One of them uses it, and the other asks anew.
    alice.approve(&held).await;
    let until = std::time::Instant::now() + Duration::from_secs(30);
    let anew = loop {
        let pending = approval_authority::proto::ListApprovalsRequest {
            workspace_ids: vec!["w1".to_owned()],
            states: vec![ApprovalState::Pending.into()],
            ..Default::default()
        };
        let listed = alice.list(pending).await.expect("a list").approvals;
        if let Some(anew) = listed.into_iter().next() {
            break anew;
        }
        assert!(std::time::Instant::now() < until, "it asks anew");
    };
    assert_ne!(anew.id, held);
    assert_eq!(anew.approvals_required, 2);
    call.abort();
    other.abort();
}
