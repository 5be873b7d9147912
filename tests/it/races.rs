//! Two server processes on one database, and many callers at once.

use approval_authority::proto::{ApprovalState, Decision, Outcome, RequireApprovalResponse};
use futures_util::future::join_all;

use crate::{
    database::Database,
    harness::{Caller, id, request},
    server::Process,
};

const CALLS: usize = 200;
const RUNS: usize = 8;

struct Two {
    database: Database,
    one: Process,
    two: Process,
}

impl Two {
    async fn new() -> Self {
        let database = Database::new().await;
        let (one, two) = tokio::join!(Process::serve(&database.url), Process::serve(&database.url));
        Self { database, one, two }
    }

    /// The same caller on each server.
    async fn both(&self, subject: &str) -> [Caller; 2] {
        [self.one.caller(subject).await, self.two.caller(subject).await]
    }

    /// 200 calls for one operation at once, half to each server.
    async fn storm(&self, workspace: &str) -> Vec<RequireApprovalResponse> {
        let callers = self.both("backend").await;
        let calls = (0..CALLS).map(|number| {
            let caller = callers[number % 2].clone();
            let ask = request(workspace, "delete_workspace");
            tokio::spawn(async move { caller.ask(ask).await.expect("an answer of the gate's") })
        });
        join_all(calls).await.into_iter().map(|call| call.expect("no panic")).collect()
    }

    async fn pending_rows(&self, workspace: &str) -> i64 {
        let query = format!(
            "SELECT count(*) FROM approval_authority.approvals
             WHERE workspace_id = '{workspace}' AND state = 'PENDING'"
        );
        self.database.count(&query).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_calls_one_asks_and_of_many_more_one_is_let_through() {
    let two = Two::new().await;
    let [alice, _] = two.both("alice").await;
    for run in 0..RUNS {
        let workspace = format!("w{run}");
        let answers = two.storm(&workspace).await;
        let asked = id(&answers[0]);
        assert!(answers.iter().all(|a| a.outcome() == Outcome::Pending && id(a) == asked));
        assert_eq!(two.pending_rows(&workspace).await, 1, "run {run}");

        alice.approve(&asked).await;
        let answers = two.storm(&workspace).await;
        let through: Vec<_> = answers.iter().filter(|a| a.outcome() == Outcome::Approved).collect();
        assert_eq!(through.len(), 1, "run {run}");
        assert_eq!(id(through[0]), asked);
        let held: Vec<_> = answers.iter().filter(|a| a.outcome() == Outcome::Pending).collect();
        assert_eq!(held.len(), CALLS - 1, "run {run}");
        assert!(held.iter().all(|a| id(a) == id(held[0]) && id(a) != asked), "run {run}");
        assert_eq!(two.pending_rows(&workspace).await, 1, "run {run}");
    }
    println!("{RUNS} runs of 2 x {CALLS} calls on two servers: one asked, one let through in each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_verdicts_at_once_settle_once() {
    const RUNS: usize = 100;
    let two = Two::new().await;
    let [backend, _] = two.both("backend").await;
    let (alice, bob) = (two.one.caller("alice").await, two.two.caller("bob").await);
    let mut denied = 0;
    for run in 0..RUNS {
        let held = backend.require(&format!("w{run}"), "delete_workspace").await;
        let asked = id(&held);
        let (yes, no) = tokio::join!(
            alice.decide(&asked, Decision::Approve),
            bob.decide(&asked, Decision::Deny)
        );
        let settled = backend.get(&asked).await.expect("it").state();
        match (&yes, &no) {
            (Ok(first), Err(late)) => {
                assert_eq!(first.state(), settled);
                assert!(late.message().contains("APPROVED"), "{late:?}");
            }
            (Err(late), Ok(first)) => {
                denied += 1;
                assert_eq!(first.state(), settled);
                assert!(late.message().contains("DENIED"), "{late:?}");
            }
            _ => panic!("run {run}: {yes:?} and {no:?}"),
        }
        let events =
            format!("SELECT count(*) FROM approval_authority.events WHERE approval_id = '{asked}'");
        assert_eq!(two.database.count(&events).await, 2, "asked and settled");
    }
    println!(
        "{RUNS} runs of two verdicts at once on two servers: {denied} denied, the rest approved"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_is_counted_across_servers() {
    const RUNS: usize = 50;
    let two = Two::new().await;
    let [backend, _] = two.both("backend").await;
    let (alice, bob) = (two.one.caller("alice").await, two.two.caller("bob").await);
    for run in 0..RUNS {
        let asked = id(&backend.require(&format!("w{run}"), "org_token_mint").await);
        let (a, b) = tokio::join!(alice.approve(&asked), bob.approve(&asked));
        let mut states = [a.state(), b.state()];
        states.sort_unstable();
        assert_eq!(states, [ApprovalState::Pending, ApprovalState::Approved], "run {run}");
    }
    println!("{RUNS} runs of a quorum of two given at once on two servers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_log_stays_dense_whoever_writes() {
    let two = Two::new().await;
    let callers = two.both("backend").await;
    let writers = (0..16).map(|writer: usize| {
        let caller = callers[writer % 2].clone();
        tokio::spawn(async move {
            for number in 0..25 {
                caller.require(&format!("w{}-{number}", writer / 2), "secret_write").await;
            }
        })
    });
    for writer in join_all(writers).await {
        writer.expect("written");
    }
    let gaps = "SELECT count(*) FROM (
            SELECT revision - lag(revision, 1, 0::bigint) OVER (ORDER BY revision) AS step
            FROM approval_authority.events) AS steps
        WHERE step <> 1";
    assert_eq!(two.database.count(gaps).await, 0);
    let events = "SELECT count(*) FROM approval_authority.events";
    assert_eq!(two.database.count(events).await, 8 * 25, "one question for each operation");
}
