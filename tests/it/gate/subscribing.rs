//! A subscription goes on, whatever ends its stream.

use std::time::Duration;

use approval_authority::{
    gate::{
        Gate,
        subscribe::{Ended, EventType, Message, Start, Subscription, WatchApprovalsRequest},
    },
    proto,
};

use tokio::time::timeout;

use super::{Token, gate_of, to};
use crate::{
    database::Database,
    harness::{TestServer, id},
    relay::Relay,
    server::Process,
    watch::{after, from},
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The viewer's gate.
async fn viewer(server: std::net::SocketAddr) -> Gate {
    gate_of("viewer", &[server], |gate| gate).await
}

/// The next event and its cursor.
async fn event(subscription: &mut Subscription) -> (proto::ApprovalEvent, String) {
    loop {
        let next = timeout(PATIENCE, subscription.next()).await.expect("in time");
        let (message, cursor) = next.expect("it goes on");
        assert!(!cursor.is_empty());
        if let Message::Event(event) = message {
            return (event, cursor);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_goes_on_over_the_end_of_its_server() {
    let database = Database::new().await;
    let mut server = Process::serve(&database.url).await;
    let address = server.address;
    let pending = id(&server.caller("backend").await.require("w0", "delete_workspace").await);
    let gate = viewer(address).await;
    let mut subscription = gate.subscribe(from(Start::Pending));
    let (message, cursor) = subscription.next().await.expect("a message");
    let Message::PendingApproval(approval) = message else { panic!("{message:?}") };
    assert_eq!((approval.id, cursor.as_str()), (pending, ""));
    let (message, cursor) = subscription.next().await.expect("a message");
    let Message::Bookmark(mark) = message else { panic!("{message:?}") };
    assert!(mark.pending_complete && !cursor.is_empty());

    let mut revision = mark.revision;
    let mut cursors = vec![cursor];
    for life in 0..3 {
        for workspace in ["a", "b"] {
            let backend = server.caller("backend").await;
            backend.require(&format!("{workspace}{life}"), "delete_workspace").await;
        }
        for _ in 0..2 {
            let (event, cursor) = event(&mut subscription).await;
            assert_eq!((event.revision, event.r#type()), (revision + 1, EventType::Requested));
            revision = event.revision;
            cursors.push(cursor);
        }
        server.child.kill().await.expect("killed");
        let listen = address.to_string();
        server = Process::with_settings(&database.url, &[("SERVER__LISTEN", &listen)]).await;
    }
    // Another one goes on from where the caller stored it.
    let (event, cursor) = event(&mut gate.subscribe(after(&cursors[3]))).await;
    assert_eq!((event.revision, &cursor), (revision - 2, &cursors[4]));
}

#[tokio::test]
async fn a_subscription_outlives_its_credential_and_goes_to_the_next_server() {
    let (_database, server) = TestServer::new().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone = nobody.local_addr().expect("an address");
    drop(nobody);
    let token = Token::new("not-yet-a-token-of-anybody");
    let gate = to(&[gone, server.address], &token).connect().await.expect("a gate");
    let mut subscription = gate.subscribe(from(Start::Oldest));
    let waiting = tokio::spawn(async move { event(&mut subscription).await.0 });
    super::pending(super::gate(server.address).await.require(super::operation("w1")).await);
    token.replace("viewer-token-for-tests");
    assert_eq!(waiting.await.expect("no panic").revision, 1);
}

#[tokio::test]
async fn it_ends_only_where_it_cannot_go_on_and_says_why() {
    let (database, server) = TestServer::new().await;
    let backend = server.caller("backend").await;
    let gate = viewer(server.address).await;
    let mut subscription = gate.subscribe(from(Start::Oldest));
    let mut cursors = Vec::new();
    for workspace in ["w1", "w2", "w3"] {
        backend.require(workspace, "delete_workspace").await;
        cursors.push(event(&mut subscription).await.1);
    }
    let ended = async |request: WatchApprovalsRequest| {
        let ended = timeout(PATIENCE, async { gate.subscribe(request).next().await }).await;
        ended.expect("in time").expect_err("it cannot go on")
    };
    assert!(matches!(ended(after("no cursor")).await, Ended::CursorInvalid));
    let both = WatchApprovalsRequest { start: Start::Oldest.into(), ..after(&cursors[0]) };
    assert!(matches!(ended(both).await, Ended::Invalid(_)));
    let client = database.connect().await;
    let cut = "DELETE FROM approval_authority.events WHERE revision <= 2;
        UPDATE approval_authority.logs SET floor_revision = 2";
    client.batch_execute(cut).await.expect("cut");
    assert!(matches!(ended(after(&cursors[0])).await, Ended::CursorExpired));
    let new_epoch = "UPDATE approval_authority.logs SET epoch = gen_random_uuid()";
    client.batch_execute(new_epoch).await.expect("another history");
    assert!(matches!(ended(after(&cursors[2])).await, Ended::HistoryChanged));
}

/// Asks in the way of a loop that has other things to do too: it drops the future each time.
async fn impatiently(subscription: &mut Subscription, turns: usize) -> Option<Message> {
    for _ in 0..turns {
        tokio::select! {
            next = subscription.next() => return Some(next.expect("it goes on").0),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_drops_the_future_gets_on_and_asks_no_more_often() {
    let (_database, server) = TestServer::new().await;
    let slow = Relay::new(server.address, Duration::from_millis(40)).await;
    let mut subscription = viewer(slow.address).await.subscribe(from(Start::Oldest));
    let message = impatiently(&mut subscription, 1_500).await;
    assert!(matches!(message, Some(Message::Bookmark(_))), "{message:?}");
    assert_eq!(slow.connections(), 1);

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone = nobody.local_addr().expect("an address");
    drop(nobody);
    let broken = Relay::new(gone, Duration::ZERO).await;
    let mut subscription = viewer(broken.address).await.subscribe(from(Start::Oldest));
    assert!(impatiently(&mut subscription, 100).await.is_none());
    // Pauses of at least 50, 100, 200, 400 and 800 ms lie within these two seconds, if they took no longer.
    assert!((1..40).contains(&broken.connections()), "{}", broken.connections());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_that_begins_anew_is_told_from_the_one_before() {
    let (_database, server) = TestServer::new().await;
    let relay = Relay::of_a_hundred_pending(&server).await;
    let mut subscription = viewer(relay.address).await.subscribe(from(Start::Pending));
    let (message, _) = subscription.next().await.expect("a message");
    let Message::PendingApproval(first) = message else { panic!("{message:?}") };
    assert_eq!(subscription.beginnings(), 1);
    server.caller("alice").await.deny(&first.id).await;
    relay.narrow_to(usize::MAX);
    relay.cut();
    let mut anew = Vec::new();
    loop {
        let next = timeout(PATIENCE, subscription.next()).await.expect("in time");
        match next.expect("it goes on").0 {
            Message::PendingApproval(approval) if subscription.beginnings() == 2 => {
                anew.push(approval.id);
            }
            Message::PendingApproval(_) => assert!(anew.is_empty()),
            Message::Bookmark(bookmark) if bookmark.pending_complete => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((anew.len(), anew.contains(&first.id)), (99, false));
}
