//! Floods of HTTP/2's own frames. The server goes on serving others, and holds no more memory for it than a few connections
//! are worth.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    assert_others_are_served,
    peer::{
        ACK, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY,
        HEADERS, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE, PING, Peer,
        REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_UPDATE, approvals, frame, headers, literal,
        token,
    },
};
use crate::{database::Database, harness::TestServer, server::Process};

/// What a flood may cost, in KiB. It is generous: allocators keep what they have had.
const MEMORY_KIB: i64 = 64 * 1024;

/// Peers at once.
const PEERS: usize = 4;

/// Sends some bytes again and again from several peers that read nothing, up to so many bytes each, or until they are held up
/// or closed; meanwhile others are served. Then the server holds little more memory than before.
async fn flood(bytes: impl Fn(u32) -> Vec<u8> + Clone + Send + 'static, most: usize) {
    let database = Database::new().await;
    let server = Process::serve(&database.url).await;
    assert_others_are_served(server.address).await;
    let before = server.resident_kib();
    let mut flooding = tokio::task::JoinSet::new();
    for _ in 0..PEERS {
        let mut peer = Peer::new(server.address, &[]).await;
        let bytes = bytes.clone();
        flooding.spawn(async move {
            let (mut sent, mut stream) = (0, 1);
            while sent < most {
                let some = bytes(stream);
                match timeout(Duration::from_secs(2), peer.send(&some)).await {
                    Ok(Ok(())) => sent += some.len(),
                    Ok(Err(_)) | Err(_) => break,
                }
                stream += 2;
            }
            // It stays for as long as the others are at it.
            peer
        });
    }
    let mut peers = Vec::new();
    while let Some(peer) = flooding.join_next().await {
        assert_others_are_served(server.address).await;
        peers.push(peer.expect("no panic"));
    }
    assert_others_are_served(server.address).await;
    let cost = server.resident_kib() - before;
    println!("{cost} KiB for the flood");
    assert!(cost < MEMORY_KIB, "{cost} KiB");
}

const MIB: usize = 1024 * 1024;

/// CVE-2023-44487: calls that are taken back at once, so that they count among none.
#[tokio::test]
async fn calls_that_are_taken_back_at_once() {
    let block = headers(&approvals("RequireApproval"), Some(&token("backend")));
    let pairs = move |first: u32| {
        let mut bytes = Vec::new();
        // Streams only go up: each lot takes up where the last one ended.
        let streams = (0..100).map(|n| (first - 1) * 100 + 2 * n + 1);
        for stream in streams {
            bytes.extend(frame(HEADERS, END_HEADERS, stream, &block));
            bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
        }
        bytes
    };
    flood(pairs, 20 * MIB).await;
}

#[tokio::test]
async fn who_takes_calls_back_at_once_is_told_to_calm_down() {
    let (_database, server) = TestServer::new().await;
    let mut peer = Peer::new(server.address, &[]).await;
    peer.read_to(SETTINGS).await.expect("the server's settings");
    let block = headers(&approvals("RequireApproval"), Some(&token("backend")));
    let mut bytes = Vec::new();
    for stream in (1..).step_by(2).take(1_000) {
        bytes.extend(frame(HEADERS, END_HEADERS, stream, &block));
        bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    }
    // It may be closed before all of it is sent.
    let _ = peer.send(&bytes).await;
    let told = peer.read_to(GOAWAY).await.expect("told to go away");
    assert_eq!(told.code(), ENHANCE_YOUR_CALM);
    peer.read_to_the_end().await;
    assert_others_are_served(server.address).await;
}

/// CVE-2025-8671: calls that the server has to take back itself, because of what is wrong with them.
#[tokio::test]
async fn who_has_calls_taken_back_by_breaking_rules_is_told_to_calm_down() {
    const AT_FAULT: usize = 256;
    let (_database, server) = TestServer::new().await;
    let block = headers(&approvals("RequireApproval"), Some(&token("backend")));
    for (calls, calm) in [(AT_FAULT, true), (AT_FAULT + 1, false)] {
        let mut peer = Peer::new(server.address, &[]).await;
        peer.read_to(SETTINGS).await.expect("the server's settings");
        let mut bytes = Vec::new();
        for stream in (1..).step_by(2).take(calls) {
            bytes.extend(frame(HEADERS, END_HEADERS, stream, &block));
            // More than a window may be (RFC 9113 section 6.9.1).
            bytes.extend(frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes()));
        }
        bytes.extend(frame(PING, 0, 0, &[0; 8]));
        // It may be closed before all of it is sent.
        let _ = peer.send(&bytes).await;
        let told = loop {
            let frame = peer.read().await.expect("an answer");
            if let PING | GOAWAY = frame.kind {
                break frame;
            }
        };
        assert_eq!(told.kind == PING, calm, "{calls}: {told:?}");
        assert!(calm || told.code() == ENHANCE_YOUR_CALM, "{told:?}");
    }
    assert_others_are_served(server.address).await;
}

#[tokio::test]
async fn pings() {
    flood(|_| frame(PING, 0, 0, &[0; 8]).repeat(1_000), 50 * MIB).await;
}

#[tokio::test]
async fn settings() {
    flood(|_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]).repeat(1_000), 50 * MIB).await;
}

/// CVE-2024-27316 and its like: a list of headers that never ends.
#[tokio::test]
async fn continuations() {
    let mut block = Vec::new();
    literal(&mut block, "x", &"y".repeat(1_000));
    let endless = move |stream: u32| match stream {
        1 => frame(HEADERS, 0, 1, &headers(&approvals("Decide"), Some(&token("alice")))),
        _ => frame(CONTINUATION, 0, 1, &block),
    };
    flood(endless, 20 * MIB).await;
}

/// Data of calls that nobody waits for.
#[tokio::test]
async fn empty_data() {
    let empty = |stream: u32| match stream {
        1 => frame(HEADERS, END_HEADERS, 1, &headers(&approvals("Decide"), Some(&token("alice")))),
        _ => frame(DATA, 0, 1, &[]).repeat(1_000),
    };
    flood(empty, 20 * MIB).await;
}

/// Calls that are made and not taken, in any number.
#[tokio::test]
async fn calls_whose_answers_nobody_reads() {
    let block = headers(&approvals("GetPolicy"), Some(&token("viewer")));
    let calls = move |stream: u32| {
        let mut call = frame(HEADERS, END_HEADERS, stream, &block);
        call.extend(frame(DATA, END_STREAM, stream, &super::peer::EMPTY_MESSAGE));
        call
    };
    flood(calls, 20 * MIB).await;
}

/// A peer that nobody knows, which takes no answer, has the transport keep what it sends: the window, and no more.
#[tokio::test]
async fn what_is_sent_and_not_taken_is_bounded() {
    const FLOW_CONTROL_ERROR: u32 = 3;
    let (_database, server) = TestServer::new().await;
    let mut peer = Peer::new(server.address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    // Until they are acknowledged the server's settings bind nobody.
    peer.read_to(SETTINGS).await.expect("the server's settings");
    peer.send(&frame(SETTINGS, ACK, 0, &[])).await.expect("sent");
    let reflection = headers("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", None);
    peer.send(&frame(HEADERS, END_HEADERS, 1, &reflection)).await.expect("sent");
    // Asks for the list of services, as often as fits into 300 bytes.
    let asks = [0, 0, 0, 0, 3, 0x3a, 1, b'*'].repeat(37);
    for _ in 0..230 {
        // Once it has been told off, it is not listened to.
        let _ = peer.send(&frame(DATA, 0, 1, &asks)).await;
    }
    let told = loop {
        let frame = peer.read().await.expect("a word before the end");
        if [GOAWAY, RST_STREAM].contains(&frame.kind) {
            break frame;
        }
    };
    assert_eq!(told.code(), FLOW_CONTROL_ERROR, "{told:?}");
    assert_others_are_served(server.address).await;
}

#[tokio::test]
async fn headers_and_streams_are_bounded_and_the_peer_is_told() {
    let (_database, server) = TestServer::new().await;
    let mut peer = Peer::new(server.address, &[]).await;
    let told = peer.read_to(SETTINGS).await.expect("the server's settings").settings();
    assert!(told.contains(&(MAX_CONCURRENT_STREAMS, 1024)), "{told:?}");
    assert!(told.contains(&(MAX_HEADER_LIST_SIZE, 16 * 1024)), "{told:?}");

    // Longer than it was told to: refused by the transport, which goes on.
    let mut block = headers(&approvals("Decide"), Some(&token("alice")));
    literal(&mut block, "x", &"y".repeat(12_000));
    let first = frame(HEADERS, END_STREAM, 1, &block);
    let mut more = Vec::new();
    literal(&mut more, "x", &"y".repeat(12_000));
    peer.send(&[first, frame(CONTINUATION, END_HEADERS, 1, &more)].concat()).await.expect("sent");
    let refused = peer.read_to(HEADERS).await.expect("an answer");
    assert_eq!((refused.stream, refused.flags & END_STREAM), (1, END_STREAM));

    for stream in (3..).step_by(2).take(1_024) {
        peer.begin(stream, "RequireApproval", "backend").await;
    }
    let one_more = 3 + 2 * 1_024;
    peer.begin(one_more, "RequireApproval", "backend").await;
    let refused = peer.read_to(RST_STREAM).await.expect("refused");
    assert_eq!((refused.stream, refused.code()), (one_more, REFUSED_STREAM));
    assert_others_are_served(server.address).await;
}
