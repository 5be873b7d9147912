//! Subscribers that never read, beside one that does.

use std::time::{Duration, Instant};

use approval_authority::proto::{RequireApprovalRequest, Start, WatchApprovalsResponse};
use futures_util::future::join_all;
use prost_types::value::Kind;
use tonic::Streaming;

use super::{
    assert_resumable,
    check::{self, Asked, check_log, check_stream},
    read_up_to,
};
use crate::{
    database::Database,
    harness::{Caller, refusal, request},
    rng::Rng,
    server::Process,
    watch::{after, from},
};

/// Half of them start at the oldest event, behind the tail, and half at the newest.
const UNREAD: usize = 200;

const WRITERS: usize = 16;

/// Events before the subscribers come, and after.
const BEFORE: usize = 480;
const AFTER: usize = 1_600;

/// What the context of each adds to it.
const BYTES: usize = 4_000;

/// What the server may keep for each that does not read: a message, what HTTP/2 lets it send ahead, the connection.
const KEPT_KIB: i64 = 512;

/// And for each that is behind the tail, a page of 64 events that it is in no hurry to take: as rows, as events, and as
/// what the allocator does not give back.
const PAGE_KIB: i64 = 3 * 64 * 4;

/// What the rest of the work may take meanwhile: the tail of the log, other pages, other calls.
const REST_KIB: i64 = 64 * 1024;

/// A request that is about so large.
pub fn large(workspace: &str, bytes: usize) -> RequireApprovalRequest {
    let kind = Some(prost_types::value::Kind::StringValue("x".repeat(bytes)));
    let fields = [("payload".to_owned(), prost_types::Value { kind })];
    let context = Some(prost_types::Struct { fields: fields.into_iter().collect() });
    RequireApprovalRequest { context, ..request(workspace, "secret_write") }
}

async fn write(backend: &Caller, events: std::ops::Range<usize>) {
    let numbers: Vec<usize> = events.collect();
    let writers = numbers.chunks(numbers.len() / WRITERS).map(|numbers| async move {
        for number in numbers {
            backend.ask(large(&format!("w{number}"), BYTES)).await.expect("held");
        }
    });
    join_all(writers).await;
}

/// Resident memory of a process, and the most that it has been.
fn memory(process: &Process) -> [i64; 2] {
    let status = format!("/proc/{}/status", process.child.id().expect("running"));
    let status = std::fs::read_to_string(status).expect("a process");
    ["VmRSS:", "VmHWM:"].map(|key| {
        let value = status.lines().find_map(|line| line.strip_prefix(key)).expect(key);
        value.trim().trim_end_matches(" kB").parse().expect("a number")
    })
}

/// Reads what a stream has for its subscriber, and goes on behind it when it is closed: why it was.
async fn read_whole(
    address: std::net::SocketAddr,
    mut stream: Streaming<WatchApprovalsResponse>,
    head: i64,
) -> (Vec<WatchApprovalsResponse>, Vec<String>) {
    let (mut history, mut closed) = (Vec::new(), Vec::new());
    let viewer = Caller::new(address, "viewer").await;
    while let Err(ended) = read_up_to(&mut stream, head, &mut history).await {
        assert_resumable(&ended);
        closed.push(refusal(&ended).1);
        let last = history.last().expect("the first bookmark");
        stream = loop {
            match viewer.watch(after(&last.cursor)).await {
                Ok(stream) => break stream,
                Err(refused) => assert_resumable(&refused),
            }
        };
    }
    (history, closed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_that_never_read_cost_one_that_does_nothing() {
    let database = Database::new().await;
    let settings = [("LIMITS__WATCHERS_PER_PRINCIPAL", "2000")];
    let process = Process::with_settings(&database.url, &settings).await;
    let backend = process.caller("backend").await;
    write(&backend, 0..BEFORE).await;
    let head = i64::try_from(BEFORE + AFTER).expect("fits");
    let [before, _] = memory(&process);

    let opened = (0..UNREAD).map(|number| async move {
        let start = if number % 2 == 0 { Start::Oldest } else { Start::Unspecified };
        let viewer = Caller::with_least_windows(process.address, "viewer").await;
        viewer.watch(from(start)).await.expect("a stream")
    });
    let mut unread = join_all(opened).await;
    let [opened, _] = memory(&process);
    let alice = process.caller("alice").await;
    let stream = alice.watch(from(Start::Oldest)).await.expect("a stream");
    let address = process.address;
    let reading = tokio::spawn(async move {
        let (history, closed) = read_whole(address, stream, head).await;
        println!("the reader was closed for {closed:?}");
        (history, Instant::now())
    });
    write(&backend, BEFORE..BEFORE + AFTER).await;
    let written = Instant::now();
    let (history, read) = reading.await.expect("read");
    let [after, most] = memory(&process);
    let log = check::log(&database.url).await;
    assert_eq!(check_stream(&history, Asked::All), []);
    assert_eq!(check_log(&history, &log), []);
    println!(
        "{head} events of {BYTES} bytes beside {UNREAD} that never read: the reader had the last {:?} after its \
         answer; the server held {before} KiB without them, {opened} with them, {after} at the end, {most} at most",
        read.saturating_duration_since(written)
    );
    let bound = i64::try_from(UNREAD).expect("fits") * (KEPT_KIB + PAGE_KIB / 2) + REST_KIB;
    assert!(most - before < bound, "{} KiB more, and {bound} are allowed", most - before);

    // At last some of them read. The others go, and hold nothing up.
    let mut rng = Rng::drawn("readers");
    for number in 0..8 {
        let at = rng.index(0..unread.len());
        let (history, closed) = read_whole(process.address, unread.swap_remove(at), head).await;
        assert_eq!(check_stream(&history, Asked::All), []);
        let first = check::entries(&history)[0].revision;
        let due: Vec<_> = log.iter().filter(|entry| entry.revision >= first).cloned().collect();
        assert_eq!(check_log(&history, &due), []);
        assert!([1, 1 + i64::try_from(BEFORE).expect("fits")].contains(&first), "{first}");
        println!("reader {number}: {} messages, closed for {closed:?}", history.len());
    }
}

/// A context of many small lists takes thirty times the room in the contract's words, and a stream that was not read kept tens
/// of them so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_read_is_not_spelt_out() {
    const PENDING: usize = 40;
    const STREAMS: usize = 12;
    let database = Database::new().await;
    let server = Process::serve(&database.url).await;
    let value = |kind| prost_types::Value { kind: Some(kind) };
    let list = |values| value(Kind::ListValue(prost_types::ListValue { values }));
    let lists = list(vec![list(vec![value(Kind::NumberValue(0.0))]); 13_000]);
    let backend = server.caller("backend").await;
    for number in 0..PENDING {
        let fields = [("a".to_owned(), lists.clone())].into();
        let context = Some(prost_types::Struct { fields });
        let ask = request(&format!("w{number}"), "secret_write");
        backend.ask(RequireApprovalRequest { context, ..ask }).await.expect("held");
    }
    let [before, _] = memory(&server);
    let mut unread = Vec::new();
    for start in [Start::Pending, Start::Oldest] {
        for _ in 0..STREAMS / 2 {
            // Its first message has come; the others are not taken.
            let mut stream =
                server.caller("viewer").await.watch(from(start)).await.expect("a stream");
            stream.message().await.expect("a message").expect("no end");
            unread.push(stream);
        }
    }
    // What is measured: the most within some seconds, in which what is to be read ahead is.
    let until = Instant::now() + Duration::from_secs(3);
    let mut most = 0;
    while Instant::now() < until {
        most = most.max(memory(&server)[0]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let each = (most - before) / STREAMS as i64;
    println!("{each} KiB for each of {STREAMS} that do not read");
    assert!(each < 12 * 1024, "{each} KiB");
}
