//! Answers that are not taken.

use std::time::Duration;

use approval_authority::{
    grpc::limits::Limits,
    proto::{RequireApprovalRequest, WatchApprovalsRequest},
};
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{
    assert_others_are_served,
    peer::{DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, Peer, frame, headers},
    until,
};
use crate::{
    database::Database,
    harness::{Caller, TestServer, refusal, request},
    server::LIMITS,
};

const EACH: u32 = 3;

/// A server on which an answer may wait for so long.
async fn server(unread: Duration) -> (Database, TestServer) {
    let limits = Limits {
        calls_per_principal: EACH as usize,
        watchers_per_principal: EACH as usize,
        unread,
        ..LIMITS
    };
    let database = Database::new().await;
    let server = TestServer::with_limits(&database.url, limits).await;
    (database, server)
}

/// Records something with some 60 KB to it, which takes four pieces to list.
async fn record(server: &TestServer) {
    let kind = Some(prost_types::value::Kind::StringValue("x".repeat(60_000)));
    let fields = [("payload".to_owned(), prost_types::Value { kind })];
    let context = Some(prost_types::Struct { fields: fields.into_iter().collect() });
    let large = RequireApprovalRequest { context, ..request("w1", "delete_workspace") };
    server.caller("backend").await.ask(large).await.expect("recorded");
}

async fn list(caller: &Caller) -> Result<(), tonic::Status> {
    caller.list(Default::default()).await.map(|_| ())
}

/// A peer whose windows take so many bytes of each answer, and who has had that much of `EACH`.
async fn peer(server: &TestServer, window: u32) -> Peer {
    let mut peer = Peer::new(server.address, &[(INITIAL_WINDOW_SIZE, window)]).await;
    for call in 0..EACH {
        peer.call(2 * call + 1, "ListApprovals", "viewer").await;
    }
    for _ in 0..EACH {
        let kind = if window == 0 { HEADERS } else { DATA };
        peer.read_to(kind).await.expect("the beginning of an answer");
    }
    peer
}

/// By HTTP/2's windows a peer can answer every ping and still take nothing. With a byte's worth of it the transport hands over
/// what it is given, all at once, which is why it is given pieces.
#[tokio::test]
async fn an_answer_that_is_not_taken_holds_its_place() {
    let (_database, server) = server(LIMITS.unread).await;
    record(&server).await;
    let viewer = server.caller("viewer").await;
    for window in [0, 1] {
        let peer = peer(&server, window).await;
        let refused = list(&viewer).await.expect_err("their places are in use");
        let too_many = (Code::ResourceExhausted, "OVERLOADED".to_owned());
        assert_eq!(refusal(&refused), too_many, "{window}");
        assert_others_are_served(server.address).await;
        drop(peer);
        until("who has gone holds nothing", async || list(&viewer).await.is_ok()).await;
    }
}

#[tokio::test]
async fn a_connection_on_which_answers_are_not_taken_is_closed() {
    let (_database, server) = server(Duration::from_secs(1)).await;
    record(&server).await;
    let mut peer = peer(&server, 1).await;
    peer.read_to_the_end().await;
    until("places are free", async || list(&server.caller("viewer").await).await.is_ok()).await;
}

/// What is left of a stream that was closed because nobody reads it does not stay for ever, either.
#[tokio::test]
async fn a_connection_on_which_a_closed_stream_is_not_taken_is_closed() {
    let (_database, server) = server(Duration::from_secs(1)).await;
    record(&server).await;
    let mut peer = Peer::new(server.address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    peer.call(1, "WatchApprovals", "viewer").await;
    peer.read_to(HEADERS).await.expect("the beginning of the stream");
    // Until there is more than is made ahead for it.
    let backend = server.caller("backend").await;
    for number in 0..40 {
        backend.require(&format!("w{number}"), "delete_workspace").await;
    }
    peer.read_to_the_end().await;
}

/// A stream that is read lives on however short the patience with answers is.
#[tokio::test]
async fn a_stream_that_is_read_is_not_closed_with_the_answers() {
    let (_database, server) = server(Duration::from_millis(200)).await;
    let viewer = server.caller("viewer").await;
    let mut stream = viewer.watch(WatchApprovalsRequest::default()).await.expect("a stream");
    stream.message().await.expect("a message").expect("a bookmark");
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.caller("backend").await.require("w1", "delete_workspace").await;
    stream.message().await.expect("a message").expect("an event");
}

/// A peer that does not even read what TCP brings it. It is closed although it takes part in TCP.
#[tokio::test]
async fn a_peer_that_reads_nothing_is_closed() {
    let (_database, server) = server(Duration::from_secs(1)).await;
    let mut peer = Peer::new(server.address, &[]).await;
    let pings = super::peer::frame(super::peer::PING, 0, 0, &[0; 8]).repeat(10_000);
    // Each ping is answered, until neither side's buffers take any more.
    until("the connection is closed", async || {
        let sent = tokio::time::timeout(Duration::from_secs(1), peer.send(&pings)).await;
        matches!(sent, Ok(Err(_)))
    })
    .await;
    assert_others_are_served(server.address).await;
}

/// Nobody needs long names to ask for, and nobody knows who asks.
#[tokio::test]
async fn requests_to_what_is_open_to_everybody_are_short() {
    let (_database, server) = server(LIMITS.unread).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).expect("an address");
    let mut health = HealthClient::new(endpoint.connect().await.expect("connected"));
    let mut check = async |bytes| {
        let service = "x".repeat(bytes);
        health.check(HealthCheckRequest { service }).await.expect_err("no such service").code()
    };
    assert_eq!(check(4_000).await, Code::NotFound);
    assert_eq!(check(4_200).await, Code::OutOfRange);
}

/// Health may be watched by anybody, for ever; not by any number.
#[tokio::test]
async fn what_is_open_to_everybody_is_bounded_on_each_connection() {
    const STREAMS: usize = 16;
    let (_database, server) = server(LIMITS.unread).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).expect("an address");
    let mut health = HealthClient::new(endpoint.connect().await.expect("connected"));
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = health.watch(HealthCheckRequest::default()).await.expect("a stream");
        stream.get_mut().message().await.expect("a message").expect("the status");
        streams.push(stream);
    }
    let refused = health.watch(HealthCheckRequest::default()).await.expect_err("one more");
    assert_eq!(refusal(&refused), (Code::ResourceExhausted, "OVERLOADED".to_owned()));
    assert_others_are_served(server.address).await;
    drop(streams);
    let mut peer = Peer::new(server.address, &[]).await;
    for stream in [1, 3, 5] {
        let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        let block = headers(path, None);
        peer.send(&frame(HEADERS, END_HEADERS, stream, &block)).await.expect("sent");
    }
    // The others begin to be answered.
    let mut ended = async || loop {
        let answer = peer.read_to(HEADERS).await.expect("the third ends at once");
        if answer.flags & END_STREAM != 0 {
            return answer.stream;
        }
    };
    assert_eq!(ended().await, 5);
    let again = async || health.clone().watch(HealthCheckRequest::default()).await.is_ok();
    until("there is room again", again).await;
}
