//! The run.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use jiff::SignedDuration;
use uuid::Uuid;

use super::{
    check::check,
    client::{Board, Client},
    nemesis::{Replica, strike},
    outcome::{Figures, read},
    record::{History, Terms},
};
use crate::{
    database::Database,
    harness::{BINDINGS, Caller},
    rng::Rng,
};

const REPLICAS: usize = 3;
const CLIENTS: usize = 12;

/// Each client makes at least so many calls, and goes on until the last fault has passed.
const CALLS_OF_EACH: usize = 250;

/// A seed that is always run; another is drawn. Set `HISTORY_SEED` to run one alone. A seed repeats what is
/// chosen, not how it interleaves.
const SEED: u64 = 2_026;

/// Short times, so that they matter in a short run.
const POLICY: &str = r#"
unlisted_actions = "refuse"
[defaults]
pending_ttl = "3s"
approved_ttl = "2s"
deny_cooldown = "2s"
max_pending = 10
[actions.delete_workspace]
approvals_required = 1
[actions.org_token_mint]
approvals_required = 2
"#;

/// The same, for the checker.
fn terms() -> Terms {
    Terms {
        quorums: [("delete_workspace".to_owned(), 1), ("org_token_mint".to_owned(), 2)].into(),
        pending_ttl: SignedDuration::from_secs(3),
        approved_ttl: SignedDuration::from_secs(2),
        deny_cooldown: SignedDuration::from_secs(2),
        max_pending: 10,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_history_keeps_the_promises() {
    let (random, _) = Uuid::new_v4().as_u64_pair();
    let seeds = match std::env::var("HISTORY_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => vec![SEED, random],
    };
    let mut all = Figures::default();
    for seed in seeds {
        let began = Instant::now();
        let (history, figures) = run(seed).await;
        println!(
            "seed {seed}: {} calls of {CLIENTS} clients to {REPLICAS} servers in {:?}; {} servers killed, {} \
             stopped, {} COMMITs or their answers lost\n  answers: {:?}\n  {} events: {:?}",
            history.calls.len(),
            began.elapsed(),
            figures.kills,
            figures.stops,
            figures.lost,
            figures.answers,
            history.events.len(),
            figures.events,
        );
        let broken = check(&history);
        let first: Vec<_> = broken.iter().take(5).collect();
        assert!(broken.is_empty(), "seed {seed}: {} violations, such as {first:#?}", broken.len());
        all.add(figures);
    }
    assert_that_much_has_happened(&all);
}

/// Runs in which little happens show little.
fn assert_that_much_has_happened(figures: &Figures) {
    for answer in [
        "require: let through",
        "require: replayed",
        "require: PENDING",
        "require: DENIED",
        "require: TOO_MANY_PENDING",
        "require: IDEMPOTENCY_KEY_REUSED",
        "require: unknown",
        "decide: SELF_APPROVAL",
        "decide: unknown",
        "withdraw: done",
        "revoke: done",
        "report: done",
    ] {
        assert!(figures.answers.contains_key(answer), "{answer}: none of {:?}", figures.answers);
    }
    for event in ["REVIEWED", "ESCALATED", "EXPIRED"] {
        assert!(figures.events.contains_key(event), "{event}: none of {:?}", figures.events);
    }
    assert!(figures.lost > 0, "nothing was lost around COMMIT");
}

async fn run(seed: u64) -> (History, Figures) {
    let mut rng = Rng::new(seed);
    let database = Database::new().await;
    let policy = format!("{POLICY}{BINDINGS}");
    let replicas = join_all(
        (0..REPLICAS).map(|_| Replica::start(&database.url, &policy, Rng::new(rng.next()))),
    );
    let replicas = Arc::new(replicas.await);
    let admin = Caller::lazy(replicas[0].address().expect("alive"), "admin");
    for (workspace, parent) in [("w1", ""), ("w2", "w1")] {
        // A COMMIT may be lost here too; the second time it is there already.
        while admin.put_workspace(workspace, parent).await.is_err() {}
    }

    let began = Instant::now();
    let board = Arc::new(Board::default());
    let quiet = Arc::new(AtomicBool::new(false));
    let clients = (0..CLIENTS).map(|number| {
        let mut client = Client {
            number,
            rng: Rng::new(rng.next()),
            began,
            replicas: replicas.clone(),
            board: board.clone(),
            calls: Vec::new(),
            callers: HashMap::new(),
        };
        let quiet = quiet.clone();
        tokio::spawn(async move {
            while client.calls.len() < CALLS_OF_EACH || !quiet.load(Ordering::Relaxed) {
                client.step().await;
                // A caller has other things to do, and so have the machine's cores.
                tokio::time::sleep(Duration::from_millis(client.rng.within(0..20))).await;
            }
            client.calls
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut figures = Figures::default();
    strike(&replicas, Rng::new(rng.next()), &mut figures).await;
    quiet.store(true, Ordering::Relaxed);
    let calls = join_all(clients).await.into_iter().flat_map(|calls| calls.expect("no panic"));
    let calls = calls.collect();

    figures.lost = replicas.iter().map(Replica::lost).sum();
    drop(replicas);
    let (events, rows) = read(&database.connect().await).await;
    let history = History { calls, events, rows, terms: terms() };
    figures.count(&history);
    (history, figures)
}
