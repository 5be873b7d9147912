//! A server that is asked to stop, with many streams open.

use std::time::{Duration, Instant};

use approval_authority::proto::{Start, WatchApprovalsRequest};
use futures_util::future::{join_all, try_join_all};
use nix::sys::signal::Signal;
use tonic::Code;

use super::{
    check::{Asked, check_stream, entries},
    read_to_the_end,
};
use crate::{
    database::Database,
    harness::{Caller, id, refusal},
    server::Process,
    watch::{from, next},
};

use super::unread::large;

const CONNECTIONS: usize = 10;
const STREAMS: usize = 100;
const GRACE: Duration = Duration::from_secs(4);

/// A process that has to be waited for, on a machine that does other things.
const SLACK: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stream_ends_after_its_last_event_and_nobody_is_waited_for_beyond_the_grace() {
    let database = Database::new().await;
    let settings = [("SERVER__DRAIN_GRACE", "4s"), ("LIMITS__WATCHERS_PER_PRINCIPAL", "2000")];
    let mut process = Process::with_settings(&database.url, &settings).await;
    let backend = process.caller("backend").await;

    // One never reads: more than its windows hold is on its way to it.
    let acme = |number: usize| {
        let mut ask = large(&format!("w{number}"), 60_000);
        ask.namespace = "acme".to_owned();
        backend.ask(ask)
    };
    try_join_all((0..50).map(acme)).await.expect("held");
    let never_reads = Caller::with_least_windows(process.address, "viewer").await;
    let unread = WatchApprovalsRequest { namespace: "acme".to_owned(), ..from(Start::Oldest) };
    let _unread = never_reads.watch(unread).await.expect("a stream");

    let mut readers = Vec::new();
    for _ in 0..CONNECTIONS {
        let viewer = process.caller("viewer").await;
        for _ in 0..STREAMS {
            let mut stream = viewer.watch(from(Start::Unspecified)).await.expect("a stream");
            let first = next(&mut stream).await;
            readers.push(tokio::spawn(async move {
                let (mut history, ended) = read_to_the_end(&mut stream).await;
                history.insert(0, first);
                (history, ended)
            }));
        }
    }
    let last = id(&backend.require("last", "secret_write").await);
    process.signal(Signal::SIGTERM);
    let asked = Instant::now();
    let exited = process.child.wait();
    let exited = tokio::time::timeout(GRACE + SLACK, exited).await.expect("within the grace");
    println!(
        "{} streams and one that does not read: exit {:?} after SIGTERM, grace {GRACE:?}",
        readers.len(),
        asked.elapsed()
    );
    assert_eq!(exited.expect("exited").code(), Some(0));
    process.logs("the grace is over").await;
    for reader in join_all(readers).await {
        let (history, ended) = reader.expect("read");
        assert_eq!(refusal(&ended), (Code::Unavailable, "DRAINING".to_owned()));
        assert_eq!(check_stream(&history, Asked::All), []);
        let seen: Vec<String> = entries(&history).into_iter().map(|entry| entry.approval).collect();
        assert_eq!(seen, std::slice::from_ref(&last), "its last event");
    }
}
