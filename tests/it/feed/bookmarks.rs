//! Bookmarks: they move quiet streams on, and are never ahead and never back.

use std::time::Duration;

use approval_authority::proto::{
    EventType, Start, WatchApprovalsRequest, WatchApprovalsResponse,
    watch_approvals_response::Message,
};
use futures_util::future::join_all;
use tokio::sync::watch;
use tonic::Streaming;

use super::{
    check::{self, Asked, check_log, check_stream},
    event,
};
use crate::{
    database::Database,
    harness::{Caller, TestServer},
    rng::Rng,
    watch::{after, events, from, next, revision},
};

/// Streams, each of one workspace's events.
const STREAMS: usize = 60;

/// Between the beginnings of two streams, so that their bookmarks fall due one after the other.
const STAGGER: Duration = Duration::from_millis(25);

/// Events that nobody has asked for go on all the time.
async fn write_what_nobody_asked_for(backend: Caller, stopped: watch::Receiver<bool>) {
    for number in 0.. {
        if *stopped.borrow() {
            return;
        }
        backend.require(&format!("other-{number}"), "secret_write").await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is_bookmark(response: &WatchApprovalsResponse) -> bool {
    matches!(response.message, Some(Message::Bookmark(_)))
}

/// Reads up to the one event of the stream's workspace. Says when the first bookmark of a quiet stream has come.
async fn up_to_the_event(
    mut stream: Streaming<WatchApprovalsResponse>,
    quiet: watch::Sender<bool>,
) -> Vec<WatchApprovalsResponse> {
    let mut history = vec![next(&mut stream).await];
    while history.last().is_some_and(is_bookmark) {
        history.push(next(&mut stream).await);
        quiet.send_if_modified(|quiet| !std::mem::replace(quiet, true));
    }
    history
}

/// The events that are asked for come while bookmarks do, some before and some after that of their stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookmarks_move_what_is_filtered_and_no_event_comes_late() {
    let database = Database::new().await;
    let (one, two) = (TestServer::on(&database.url).await, TestServer::on(&database.url).await);
    let (quiet, mut quiets) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    let writing = tokio::spawn(write_what_nobody_asked_for(two.caller("backend").await, stopped));
    let viewer = one.caller("viewer").await;
    let mut watchers = Vec::new();
    for number in 0..STREAMS {
        let mut request = from(Start::Unspecified);
        request.workspace_ids = vec![format!("w{number}")];
        let stream = viewer.watch(request).await.expect("a stream");
        watchers.push(tokio::spawn(up_to_the_event(stream, quiet.clone())));
        tokio::time::sleep(STAGGER).await;
    }
    let nothing = WatchApprovalsRequest {
        event_types: vec![EventType::Revoked.into()],
        ..from(Start::Oldest)
    };
    let mut matches_nothing = viewer.watch(nothing.clone()).await.expect("a stream");
    let mut moved = vec![next(&mut matches_nothing).await];

    quiets.wait_for(|quiet| *quiet).await.expect("a bookmark");
    let backend = two.caller("backend").await;
    let mut left: Vec<usize> = (0..STREAMS).collect();
    let mut rng = Rng::drawn("order of events");
    while !left.is_empty() {
        let number = left.swap_remove(rng.index(0..left.len()));
        backend.require(&format!("w{number}"), "secret_write").await;
        tokio::time::sleep(STAGGER).await;
    }
    let histories: Vec<_> =
        join_all(watchers).await.into_iter().map(|watcher| watcher.expect("watched")).collect();
    moved.push(next(&mut matches_nothing).await);
    stop.send_replace(true);
    writing.await.expect("written");
    backend.require("the last", "secret_write").await;

    let log = check::log(&database.url).await;
    let mut with_bookmarks = 0;
    for (number, history) in histories.iter().enumerate() {
        assert_eq!(check_stream(history, Asked::Some), []);
        let workspace = format!("w{number}");
        let asked: Vec<_> = log.iter().filter(|e| e.workspace == workspace).cloned().collect();
        assert_eq!(check_log(history, &asked), []);
        let [first, .., last] = history.as_slice() else { panic!("{history:?}") };
        assert!(is_bookmark(first) && event(last).is_some());
        let between = &history[1..history.len() - 1];
        with_bookmarks += usize::from(!between.is_empty());
        assert!(between.iter().all(|bookmark| revision(bookmark) > revision(first)), "it moves");
    }
    println!("{with_bookmarks} of {STREAMS} quiet streams had a bookmark before their event");
    assert!(with_bookmarks > 0);

    // What matches nothing has moved too, and goes on from there on the other server.
    assert_eq!(check_stream(&moved, Asked::Some), []);
    assert!(moved.iter().all(is_bookmark) && revision(&moved[0]) == 0);
    assert!(revision(&moved[1]) > 0, "{moved:?}");
    let following = events(&two.caller("viewer").await, after(&moved[1].cursor), 1).await;
    assert_eq!(following[0].revision, revision(&moved[1]) + 1);
}
