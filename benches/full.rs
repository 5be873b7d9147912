//! Whether calls take as long on a full database as on an empty one. `make bench ARGS="-- full 10000000"` fills a namespace with
//! so many closed approvals (a million unless said), five times as many events and a tenth as many open approvals, and measures
//! there and in an empty namespace by turns. Take the ratios.
//!
//! Ten million take longer to fill than to measure. `BENCH_DATABASE=folder` keeps the database there, for the next time,
//! and for `tests/it/plans.rs` to look at what every statement does there.

use std::path::PathBuf;

use approval_authority::embedded::Keep;
use approval_authority::proto::{ApprovalState, ListApprovalsRequest};
use jiff::Timestamp;

mod bench;

use bench::{
    Bench, Caller,
    calls::{consume, create, join},
    measure::{Figures, head, measure},
    place::{Operation, Place},
    wanted,
};

const CLOSED: usize = 1_000_000;

/// The namespace that is filled: the one that `tests/it/plans.rs` looks at.
const FULL: &str = "default";

/// Closed approvals that are written at once.
const CHUNK: usize = 50_000;

/// With ten million closed, fifty open ones lie in each, of a hundred that there may be.
const WORKSPACES: usize = 20_000;

/// Workspaces of a tree in which nothing was ever asked: too many to be looked at one by one.
const RARE: i32 = 12_000;

/// Approvals that are consumed by one measurement at most.
const PREPARED: usize = 12_000;

/// A workspace whose list is measured, and how long that is.
const LISTED: &str = "w7";
const PAGE: usize = 50;

/// Each is measured so often in each namespace.
const TURNS: usize = 3;

const CALLERS: [usize; 2] = [1, 16];

const RARE_TREE: &str = "INSERT INTO approval_authority.workspaces (namespace, id, parent_id, display_name)
    SELECT $1, 'rare', NULL, '' UNION ALL SELECT $1, 'r' || n, 'rare', '' FROM generate_series(1, $2) AS n
    ON CONFLICT DO NOTHING";

/// Statements that read a table from end to end, and what they read.
const SCANS: &str = "SELECT relname::text, seq_scan, seq_tup_read FROM pg_stat_user_tables
    WHERE schemaname = 'approval_authority' AND relname IN ('approvals', 'events', 'verdicts') ORDER BY relname";

#[tokio::main]
async fn main() {
    if !wanted("full") {
        return;
    }
    let closed = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(CLOSED);
    let kept = std::env::var_os("BENCH_DATABASE").map(PathBuf::from);
    let is_filled = kept.as_ref().is_some_and(|folder| folder.exists());
    let bench = match kept {
        Some(folder) => Bench::start_in(&folder, Keep::Data).await,
        None => Bench::start().await,
    };
    // Named anew each time: what was asked there before is there still.
    let run = usize::try_from(Timestamp::now().as_second()).expect("a time of ours");
    let empty = format!("empty-{run}");
    Place::begin(&bench, std::slice::from_ref(&empty), WORKSPACES).await;
    consume_a_page(&bench, &empty).await;
    if !is_filled {
        Place::begin(&bench, &[FULL.to_owned()], WORKSPACES).await;
        fill(&bench, closed).await;
    }
    for namespace in [&empty, FULL] {
        bench.connect().await.execute(RARE_TREE, &[&namespace, &RARE]).await.expect("filled");
    }
    let scans = scans(&bench).await;
    println!("{closed} closed approvals\n\n{}", head());
    let mut rows = Vec::new();
    for turn in 0..TURNS {
        for callers in CALLERS {
            // Numbers that nobody has used, in this run or another.
            let first =
                run * 1_000_000 + (turn * CALLERS.len() + usize::from(callers > 1)) * 100_000;
            for (what, namespace) in [("empty", empty.as_str()), ("full", FULL)] {
                rows.extend(measured(&bench, what, namespace, callers, first).await);
            }
        }
    }
    println!("\np50 in the full one / in the empty one, the median of {TURNS} turns");
    let mut names: Vec<&str> =
        rows.iter().filter_map(|row| row.what.strip_prefix("full ")).collect();
    names.sort_unstable();
    names.dedup();
    for callers in CALLERS {
        for name in &names {
            let p50 = |namespace: &str| {
                let what = format!("{namespace} {name}");
                let these = rows.iter().filter(|row| row.what == what && row.callers == callers);
                let mut these: Vec<_> = these.map(|row| row.p50).collect();
                these.sort_unstable();
                these[these.len() / 2].as_secs_f64()
            };
            println!("{name:<22} {callers:>7} {:>10.2}", p50("full") / p50("empty"));
        }
    }
    println!();
    for (before, after) in scans.iter().zip(self::scans(&bench).await) {
        let (statements, read) = (after.1 - before.1, after.2 - before.2);
        println!("{}: {statements} sequential scans, which read {read} rows", after.0);
    }
}

/// A list is to be as long in the empty namespace as in the full one.
async fn consume_a_page(bench: &Bench, namespace: &str) {
    let (backend, alice) = (bench.caller("backend").await, bench.caller("alice").await);
    for number in 0..PAGE {
        let (namespace, workspace) = (namespace.to_owned(), LISTED.to_owned());
        let operation = Operation { namespace, workspace, context: String::new(), number };
        alice.approve(&backend.ask_about(&operation).await).await;
        backend.ask_about(&operation).await;
    }
}

async fn measured(
    bench: &Bench,
    what: &str,
    namespace: &str,
    callers: usize,
    first: usize,
) -> Vec<Figures> {
    let place = |offset: usize| Place::within(namespace, WORKSPACES, first + offset);
    let backends: Vec<Caller> = vec![bench.caller("backend").await; callers];
    let viewers = vec![bench.caller("viewer").await; callers];
    let mut rows = vec![
        create(&format!("{what} create"), place(0), backends.clone()).await,
        join(&format!("{what} join"), place(60_000), backends.clone()).await,
        consume(bench, &format!("{what} consume"), place(70_000), backends, PREPARED).await,
    ];
    let used_below = |root: &str| ListApprovalsRequest {
        workspace_ids: vec![root.to_owned()],
        include_descendants: true,
        states: vec![ApprovalState::Consumed.into()],
        ..Default::default()
    };
    let lists = [
        ("list", ListApprovalsRequest::default()),
        (
            "list pending",
            ListApprovalsRequest {
                states: vec![ApprovalState::Pending.into()],
                ..Default::default()
            },
        ),
        (
            "list a workspace",
            ListApprovalsRequest { workspace_ids: vec![LISTED.to_owned()], ..Default::default() },
        ),
        ("list used in a tree", used_below("root")),
        ("list a rare tree", used_below("rare")),
    ];
    for (list, request) in lists {
        let request = ListApprovalsRequest { namespace: namespace.to_owned(), ..request };
        rows.push(
            measure(&format!("{what} {list}"), viewers.clone(), usize::MAX, move |caller, _| {
                let request = request.clone();
                async move { caller.list(request).await }
            })
            .await,
        );
    }
    rows.iter().for_each(|figures| println!("{}", figures.line()));
    rows
}

async fn fill(bench: &Bench, closed: usize) {
    let client = bench.connect().await;
    client.batch_execute("SET session_replication_role = replica").await.expect("an owner");
    for first in (1..=closed).step_by(CHUNK) {
        let last = (first + CHUNK - 1).min(closed);
        let fill = format!(
            include_str!("bench/full.sql"),
            workspaces = WORKSPACES,
            first = first,
            last = last
        );
        client.batch_execute(&fill).await.expect("filled");
        eprint!("\r{last} of {closed} filled in");
    }
    eprintln!();
    client.batch_execute("VACUUM ANALYZE").await.expect("analyzed");
}

async fn scans(bench: &Bench) -> Vec<(String, i64, i64)> {
    let rows = bench.connect().await.query(SCANS, &[]).await.expect("statistics");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}
