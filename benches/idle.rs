//! What a server costs that nobody calls, and whether it grows with what it has done. `make bench ARGS="-- idle 3600"` has it
//! work for an hour (for a minute unless said) between two idle minutes.

use std::time::{Duration, Instant};

use approval_authority::proto::{Outcome, Start};
use futures_util::future::join_all;
use tokio::time::{interval, sleep};

mod bench;

use bench::{Bench, Caller, place::Place, wanted};

/// How long an idle server is looked at.
const IDLE: Duration = Duration::from_secs(60);

/// How long it works, in seconds.
const WORK: u64 = 60;

/// It is looked at so often while it works.
const LOOKS: u32 = 6;

/// So many callers each have an operation asked about, approved and let through, so often.
const CALLERS: usize = 16;
const PACE: Duration = Duration::from_millis(100);

/// What the database has been used for since it was made, and the service's sessions.
const USE: &str = "SELECT (SELECT d.xact_commit + d.xact_rollback FROM pg_stat_database AS d WHERE d.datname = current_database()),
    pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint,
    (SELECT count(*) FROM pg_stat_activity AS a WHERE a.usename = 'service')";

/// What has been used up to a moment.
struct Used {
    cpu: Duration,
    transactions: i64,
    log_bytes: i64,
    connections: i64,
}

impl Used {
    async fn now(bench: &Bench) -> Self {
        let row = bench.connect().await.query_one(USE, &[]).await.expect("statistics");
        let (transactions, log_bytes, connections) = (row.get(0), row.get(1), row.get(2));
        Self { cpu: bench.server_cpu(), transactions, log_bytes, connections }
    }
}

#[tokio::main]
async fn main() {
    if !wanted("idle") {
        return;
    }
    let seconds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(WORK);
    let bench = Bench::start().await;
    println!("{:<24} {:>7} KiB", "at start", bench.server_kib());
    idle(&bench).await;

    let place = Place::new(&bench, "idle", CALLERS, 1).await;
    let mut stream = bench.caller("viewer").await.watch(place.namespace(), Start::Oldest).await;
    let follower = tokio::spawn(async move { while stream.message().await.is_ok() {} });
    let until = Instant::now() + Duration::from_secs(seconds);
    let workers = (0..CALLERS).map(|first| work(&bench, &place, first, until));
    let looks = async {
        for look in 1..=LOOKS {
            sleep(Duration::from_secs(seconds) / LOOKS).await;
            let after = format!("after {} s of work", seconds * u64::from(look) / u64::from(LOOKS));
            println!("{after:<24} {:>7} KiB", bench.server_kib());
        }
    };
    let (cycles, ()) = tokio::join!(join_all(workers), looks);
    let cycles: usize = cycles.iter().sum();
    println!("{cycles} operations asked about, approved and let through\n");
    follower.abort();
    idle(&bench).await;
}

/// Has one operation after another let through, until it is time; returns how many.
async fn work(bench: &Bench, place: &Place, first: usize, until: Instant) -> usize {
    let (backend, alice): (Caller, Caller) =
        tokio::join!(bench.caller("backend"), bench.caller("alice"));
    let (mut ticks, mut done) = (interval(PACE), 0);
    while Instant::now() < until {
        ticks.tick().await;
        let operation = place.operation(first + done * CALLERS);
        alice.approve(&backend.ask_about(&operation).await).await;
        assert_eq!(backend.ask_about(&operation).await.outcome(), Outcome::Approved);
        done += 1;
    }
    done
}

async fn idle(bench: &Bench) {
    // What has been begun is done.
    sleep(Duration::from_secs(5)).await;
    let before = Used::now(bench).await;
    sleep(IDLE).await;
    let after = Used::now(bench).await;
    let share = (after.cpu - before.cpu).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    println!("{:<24} {:>7} KiB", "idle for a minute", bench.server_kib());
    println!("  {share:.2} % of a processor, {} connections to PostgreSQL", after.connections);
    let (transactions, bytes) =
        (after.transactions - before.transactions, after.log_bytes - before.log_bytes);
    println!("  {transactions} transactions, {bytes} bytes of write-ahead log\n");
}
