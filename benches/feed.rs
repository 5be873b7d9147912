//! How fast the feed is, and what a subscriber costs. `make bench` runs it; figures of one run belong together, and only
//! those: the machine is whatever it is.
//!
//! The server is a process of its own, the subscribers are in this one and share its cores with it.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use approval_authority::proto::{Start, watch_approvals_response::Message};
use futures_util::{StreamExt, future::join_all, pin_mut};
use tokio::{sync::Barrier, task::JoinHandle};

mod bench;

use bench::{Bench, Caller, percentile};

/// Streams on one connection.
const STREAMS_EACH: usize = 100;

/// Events of which the delay is measured, one after the other.
const EVENTS: usize = 200;

/// Events of a flood.
const FLOOD: usize = 2_000;

/// Events of which a subscriber that begins at the oldest is told.
const LOG: usize = 200_000;

fn main() {
    // A subscriber that fails would be waited for.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(1);
    }));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let bench = Bench::start().await;
        if bench::wanted("memory") {
            memory(&bench).await;
        }
        if bench::wanted("delay") {
            for subscribers in [1, 100, 1_000] {
                delay(&bench, subscribers).await;
            }
        }
        if bench::wanted("catch-up") {
            catch_up(&bench).await;
        }
    });
}

/// Connections enough for so many streams.
async fn connections(bench: &Bench, streams: usize) -> Vec<Caller> {
    join_all((0..streams.div_ceil(STREAMS_EACH)).map(|_| bench.caller("viewer"))).await
}

async fn memory(bench: &Bench) {
    const IDLE: usize = 2_000;
    let namespace = "memory";
    let callers = connections(bench, IDLE).await;
    let before = bench.server_kib();
    let mut streams = Vec::with_capacity(IDLE);
    for number in 0..IDLE {
        let mut stream = callers[number / STREAMS_EACH].watch(namespace, Start::Unspecified).await;
        stream.message().await.expect("a message").expect("a bookmark");
        streams.push(stream);
    }
    let each = (bench.server_kib() - before) as f64 / IDLE as f64;
    println!("memory of an idle subscriber: {each:.1} KiB ({IDLE} of them)");
}

/// From an event's time, which is read before its commit, to a subscriber's hands; and then a flood.
async fn delay(bench: &Bench, subscribers: usize) {
    let namespace = format!("delay-{subscribers}");
    let callers = connections(bench, subscribers).await;
    let ready = Arc::new(Barrier::new(subscribers + 1));
    let watching: Vec<JoinHandle<(Vec<Duration>, Instant)>> = (0..subscribers)
        .map(|number| {
            let (caller, namespace) = (callers[number / STREAMS_EACH].clone(), namespace.clone());
            tokio::spawn(follow(caller, namespace, ready.clone()))
        })
        .collect();
    ready.wait().await;
    let backend = bench.caller("backend").await;
    for number in 0..EVENTS {
        backend.require(&namespace, &format!("w{number}")).await;
    }
    // Until everybody has been told of these.
    ready.wait().await;
    let began = Instant::now();
    let writing = futures_util::stream::iter(0..FLOOD)
        .map(|number| backend.require(&namespace, Box::leak(format!("f{number}").into_boxed_str())))
        .buffer_unordered(64);
    pin_mut!(writing);
    while writing.next().await.is_some() {}
    let written = began.elapsed();
    let mut delays = Vec::new();
    let mut last = began;
    for watcher in watching {
        let (own, end) = watcher.await.expect("no panic");
        delays.extend(own);
        last = last.max(end);
    }
    let delivered = (FLOOD * subscribers) as f64 / (last - began).as_secs_f64();
    println!(
        "{subscribers} subscribers: delay p50 {:.1?}, p99 {:.1?}; a flood of {FLOOD} events written in {written:.1?}: \
         {delivered:.0} events/s delivered in all",
        percentile(&mut delays, 50),
        percentile(&mut delays, 99),
    );
}

/// The delays of the first events, and when the last event of the flood arrived.
async fn follow(
    caller: Caller,
    namespace: String,
    ready: Arc<Barrier>,
) -> (Vec<Duration>, Instant) {
    let mut stream = caller.watch(&namespace, Start::Unspecified).await;
    stream.message().await.expect("a message").expect("a bookmark");
    ready.wait().await;
    let (mut delays, mut seen) = (Vec::with_capacity(EVENTS), 0);
    while seen < EVENTS + FLOOD {
        let response = stream.message().await.expect("a message").expect("no end");
        let Some(Message::Event(event)) = response.message else { continue };
        seen += 1;
        if seen <= EVENTS {
            let time = SystemTime::try_from(event.time.expect("a time")).expect("a time");
            delays.push(time.elapsed().unwrap_or_default());
        }
        if seen == EVENTS {
            ready.wait().await;
        }
    }
    (delays, Instant::now())
}

/// From the oldest event to the newest, against reading the same rows with COPY.
async fn catch_up(bench: &Bench) {
    let namespace = "catch-up";
    bench.fill_log(namespace, LOG).await;
    let began = Instant::now();
    let bytes = bench.copy_log(namespace).await;
    let copied = began.elapsed();
    let viewer = bench.caller("viewer").await;
    let began = Instant::now();
    let mut stream = viewer.watch(namespace, Start::Oldest).await;
    let mut seen = 0;
    while seen < LOG {
        let response = stream.message().await.expect("a message").expect("no end");
        seen += usize::from(matches!(response.message, Some(Message::Event(_))));
    }
    let caught_up = began.elapsed();
    println!(
        "catch-up of {LOG} events: {:.0} events/s; COPY of the same rows ({} MiB): {:.0} events/s",
        LOG as f64 / caught_up.as_secs_f64(),
        bytes / (1024 * 1024),
        LOG as f64 / copied.as_secs_f64(),
    );
}
