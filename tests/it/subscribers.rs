//! Subscribers that take their time.

use std::time::{Duration, Instant};

use approval_authority::{
    grpc::limits::Limits,
    proto::{
        ApprovalState, EventType, RequireApprovalRequest, Start, WatchApprovalsRequest,
        watch_approvals_response::Message,
    },
};
use futures_util::future::join_all;
use tonic::Code;

use crate::{
    database::Database,
    harness::{Caller, TestServer, id, refusal, request},
    server::LIMITS,
};

fn from(start: Start) -> WatchApprovalsRequest {
    WatchApprovalsRequest { start: start.into(), ..Default::default() }
}

/// A request with some 60 KB to it.
fn large(workspace: &str) -> RequireApprovalRequest {
    let kind = Some(prost_types::value::Kind::StringValue("x".repeat(60_000)));
    let fields = [("payload".to_owned(), prost_types::Value { kind })];
    let context = Some(prost_types::Struct { fields: fields.into_iter().collect() });
    RequireApprovalRequest { context, ..request(workspace, "delete_workspace") }
}

/// Reads until the stream ends: the revisions, the last cursor, and why it ended.
async fn read_to_the_end(
    mut stream: tonic::Streaming<approval_authority::proto::WatchApprovalsResponse>,
    until: i64,
) -> (Vec<i64>, String, Option<tonic::Status>) {
    let (mut revisions, mut cursor) = (Vec::new(), String::new());
    while revisions.last().is_none_or(|last| *last < until) {
        match stream.message().await {
            Ok(response) => {
                let response = response.expect("an error ends it");
                cursor = response.cursor;
                if let Some(Message::Event(event)) = response.message {
                    revisions.push(event.revision);
                }
            }
            Err(status) => return (revisions, cursor, Some(status)),
        }
    }
    (revisions, cursor, None)
}

#[tokio::test]
async fn one_that_does_not_read_is_closed_and_resumes_where_it_was() {
    const EVENTS: i64 = 200;
    let database = Database::new().await;
    let limits = Limits { watchers_per_principal: 1, unread: Duration::from_secs(2), ..LIMITS };
    let server = TestServer::with_limits(&database.url, limits).await;
    let backend = server.caller("backend").await;
    join_all((0..EVENTS).map(|number| backend.ask(large(&format!("w{number}"))))).await;
    let viewer = server.caller("viewer").await;
    let stream = viewer.watch(from(Start::Oldest)).await.expect("a stream");
    // More than its windows hold is on its way to it. Once it is closed, its place is free.
    let other = server.caller("viewer").await;
    let until = Instant::now() + Duration::from_secs(60);
    while other.watch(from(Start::Unspecified)).await.is_err() {
        assert!(Instant::now() < until, "it is never closed");
    }
    let (first, cursor, ended) = read_to_the_end(stream, EVENTS).await;
    let ended = ended.expect("closed before the end");
    assert_eq!(refusal(&ended), (Code::Unavailable, "SUBSCRIBER_TOO_SLOW".to_owned()));
    assert!(!first.is_empty(), "what was on its way arrives");

    let resume = WatchApprovalsRequest { after_cursor: cursor, ..Default::default() };
    let stream = loop {
        if let Ok(stream) = viewer.watch(resume.clone()).await {
            break stream;
        }
    };
    let (rest, _, ended) = read_to_the_end(stream, EVENTS).await;
    assert!(ended.is_none(), "{ended:?}");
    let all: Vec<i64> = first.into_iter().chain(rest).collect();
    assert_eq!(all, (1..=EVENTS).collect::<Vec<i64>>());
}

async fn next(
    stream: &mut tonic::Streaming<approval_authority::proto::WatchApprovalsResponse>,
) -> Message {
    let response = stream.message().await.expect("a message").expect("no end");
    response.message.expect("a message")
}

/// More than are read at once, while people decide on those that have not been read yet.
#[tokio::test]
async fn what_was_pending_is_told_as_it_was_and_what_came_of_it_follows() {
    const PENDING: usize = 120;
    let (_, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let mut asked = Vec::new();
    for number in 0..PENDING {
        let workspace = format!("w{number}");
        asked.push(id(&backend.require(&workspace, "delete_workspace").await));
    }
    let mut stream = alice.watch(from(Start::Pending)).await.expect("a stream");
    let mut told = Vec::new();
    decide_while_reading(&alice, &asked, &mut stream, &mut told).await;
    assert_eq!(told, asked, "oldest first");
    let Message::Bookmark(bookmark) = next(&mut stream).await else { panic!("a bookmark") };
    assert!(bookmark.pending_complete);
    assert_eq!(bookmark.revision, PENDING as i64);
    for id in asked.iter().rev().take(10) {
        let Message::Event(event) = next(&mut stream).await else { panic!("an event") };
        assert_eq!(event.r#type(), EventType::Denied);
        assert_eq!(event.approval.expect("it").id, *id);
    }
}

async fn decide_while_reading(
    alice: &Caller,
    asked: &[String],
    stream: &mut tonic::Streaming<approval_authority::proto::WatchApprovalsResponse>,
    told: &mut Vec<String>,
) {
    while told.len() < asked.len() {
        let Message::PendingApproval(approval) = next(stream).await else { panic!("pending") };
        assert_eq!((approval.state(), approval.version), (ApprovalState::Pending, 1));
        told.push(approval.id);
        if told.len() == 1 {
            for id in asked.iter().rev().take(10) {
                alice.deny(id).await;
            }
        }
    }
}
