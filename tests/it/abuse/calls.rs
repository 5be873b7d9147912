//! Calls: how many there may be at once, of one principal and in all, and what a call holds that does not end.

use std::time::Duration;

use approval_authority::{
    grpc::limits::Limits,
    proto::{ListApprovalsRequest, Outcome, RequireApprovalRequest},
};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{
    assert_others_are_served,
    peer::{END_STREAM, HEADERS, Peer},
    until,
};
use crate::{
    database::Database,
    harness::{Caller, TestServer, refusal, request},
    server::LIMITS,
};

async fn server(limits: Limits) -> (Database, TestServer) {
    let database = Database::new().await;
    let server = TestServer::with_limits(&database.url, limits).await;
    (database, server)
}

/// A refusal for want of room says what it is, and when to try again.
fn assert_says_when(status: &Status, code: Code) {
    assert_eq!(refusal(status), (code, "OVERLOADED".to_owned()), "{status:?}");
    let retry = status.get_error_details().retry_info().and_then(|retry| retry.retry_delay);
    assert!(retry.is_some_and(|delay| !delay.is_zero()), "{status:?}");
}

async fn ask(caller: &Caller) -> Result<(), Status> {
    caller.ask(request("w1", "delete_workspace")).await.map(|_| ())
}

/// As many calls as a principal may have that have begun, and say no more: each has its place before anything of it is read.
/// One more is answered before it has said what it wants, and that is a refusal.
async fn all_begun(server: &TestServer, most: u32, subject: &str) -> Peer {
    let mut peer = Peer::new(server.address, &[]).await;
    for call in 0..=most {
        peer.begin(2 * call + 1, "RequireApproval", subject).await;
    }
    let answer = peer.read_to(HEADERS).await.expect("an answer");
    assert_eq!((answer.stream, answer.flags & END_STREAM), (2 * most + 1, END_STREAM));
    peer
}

#[tokio::test]
async fn one_principal_has_its_share_of_calls_and_others_are_served() {
    const EACH: u32 = 8;
    let limits = Limits { calls_per_principal: EACH as usize, ..LIMITS };
    let (_database, server) = server(limits).await;
    let flood = all_begun(&server, EACH, "backend").await;
    let backend = server.caller("backend").await;
    assert_says_when(&ask(&backend).await.expect_err("one more"), Code::ResourceExhausted);
    assert_others_are_served(server.address).await;
    drop(flood);
    until("its share is free", async || ask(&backend).await.is_ok()).await;
}

#[tokio::test]
async fn all_together_have_no_more_calls_than_the_server_takes_on() {
    let limits = Limits { calls: 8, calls_per_principal: 4, ..LIMITS };
    let (_database, server) = server(limits).await;
    let flood = [all_begun(&server, 4, "backend").await, all_begun(&server, 4, "backend-2").await];
    let alice = server.caller("alice").await;
    let list = async || alice.list(ListApprovalsRequest::default()).await;
    assert_says_when(&list().await.expect_err("one more"), Code::Unavailable);
    super::check_health(server.address).await;
    drop(flood);
    until("places are free", async || list().await.is_ok()).await;
}

#[tokio::test]
async fn calls_that_wait_are_bounded_and_are_not_in_the_way_of_those_that_do_not() {
    let limits = Limits { calls_per_principal: 3, waiters: 3, waiters_per_principal: 2, ..LIMITS };
    let (_database, server) = server(limits).await;
    let (backend, other) = (server.caller("backend").await, server.caller("backend-2").await);
    let wait = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let waiting = |caller: &Caller, workspace: &str| {
        let asked = RequireApprovalRequest { wait, ..request(workspace, "delete_workspace") };
        let caller = caller.clone();
        async move { caller.ask(asked).await }
    };
    let mut calls: JoinSet<_> =
        ["w1", "w2", "w3"].map(|id| waiting(&backend, id)).into_iter().collect();
    // Two of them wait, and the third is told that it may not.
    let refused =
        calls.join_next().await.expect("one").expect("no panic").expect_err("one too many");
    assert_says_when(&refused, Code::ResourceExhausted);
    for _ in 0..3 {
        ask(&backend).await.expect("answered");
    }
    let mut others: JoinSet<_> = ["w1", "w2"].map(|id| waiting(&other, id)).into_iter().collect();
    let refused =
        others.join_next().await.expect("one").expect("no panic").expect_err("four in all");
    assert_says_when(&refused, Code::Unavailable);
    drop(calls);
    until("who has gone does not wait", async || {
        let short = Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 });
        let asked = RequireApprovalRequest { wait: short, ..request("w9", "delete_workspace") };
        backend.ask(asked).await.is_ok_and(|answer| answer.outcome() == Outcome::Pending)
    })
    .await;
}

/// What was asked of the database is not taken back with the call. If it were not counted any more, there would be no bound
/// on it.
#[tokio::test]
async fn a_call_that_is_taken_back_keeps_its_place_until_its_work_is_done() {
    const EACH: u32 = 4;
    let limits = Limits { calls_per_principal: EACH as usize, ..LIMITS };
    let (database, server) = server(limits).await;
    let session = database.connect().await;
    let lock = "BEGIN; LOCK TABLE approval_authority.approvals IN ACCESS EXCLUSIVE MODE";
    session.batch_execute(lock).await.expect("locked");
    let mut peer = Peer::new(server.address, &[]).await;
    for stream in (1..).step_by(2).take(EACH as usize) {
        peer.call(stream, "ListApprovals", "viewer").await;
    }
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND query LIKE '-- list_ids%'";
    until("they wait for the database", async || database.count(waiting).await >= EACH.into())
        .await;
    for stream in (1..).step_by(2).take(EACH as usize) {
        peer.take_back(stream).await;
    }
    // What comes behind them is answered: they have been taken back by then.
    peer.call(2 * EACH + 1, "ListApprovals", "viewer").await;
    peer.read_to(HEADERS).await.expect("an answer");
    let viewer = server.caller("viewer").await;
    let list = async || viewer.list(ListApprovalsRequest::default()).await;
    assert_says_when(&list().await.expect_err("they are still there"), Code::ResourceExhausted);
    session.batch_execute("ROLLBACK").await.expect("unlocked");
    until("their work is done", async || list().await.is_ok()).await;
}

#[tokio::test]
async fn a_request_that_does_not_arrive_gives_up_its_place() {
    let limits = Limits { calls_per_principal: 1, ..LIMITS };
    let (_database, server) = server(limits).await;
    let mut peer = all_begun(&server, 1, "backend").await;
    let backend = server.caller("backend").await;
    ask(&backend).await.expect_err("its place is in use");
    peer.read_to(HEADERS).await.expect("an answer, in the end");
    until("its place is free", async || ask(&backend).await.is_ok()).await;
}

#[tokio::test]
async fn a_request_that_is_too_long_is_refused_and_says_so() {
    let (_database, server) = server(LIMITS).await;
    let backend = server.caller("backend").await;
    let refused = backend
        .ask(RequireApprovalRequest {
            reason: "x".repeat(600 * 1024),
            ..request("w1", "delete_workspace")
        })
        .await
        .expect_err("too long");
    assert_eq!(refusal(&refused), (Code::InvalidArgument, "FIELD_INVALID".to_owned()));
    assert!(refused.message().contains("is longer than"), "{refused:?}");
    ask(&backend).await.expect("the connection goes on");
}

/// Nobody whom the server does not know costs it more than a look at what they show.
#[tokio::test]
async fn callers_with_no_good_credential_take_no_place() {
    let limits = Limits { calls: 1, calls_per_principal: 1, ..LIMITS };
    let (_database, server) = server(limits).await;
    let mut peer = Peer::new(server.address, &[]).await;
    for stream in (1..).step_by(2).take(500) {
        peer.begin(stream, "RequireApproval", "nobody-we-know").await;
        if stream % 100 == 1 {
            assert_others_are_served(server.address).await;
        }
    }
    for _ in 0..500 {
        peer.read_to(HEADERS).await.expect("an answer to each");
    }
    tokio::time::timeout(Duration::from_secs(30), ask(&server.caller("backend").await))
        .await
        .expect("in time")
        .expect("served");
}
