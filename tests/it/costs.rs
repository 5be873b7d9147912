//! What a call costs the database, counted: statements, transactions, rows. Speed is measured elsewhere; a statement more for each
//! call is a fault that no measurement on a busy machine would show.

use std::{path::PathBuf, time::Duration};

use futures_util::future::join_all;
use tokio_postgres::Client;

use crate::{
    database::Database,
    harness::{Caller, TestServer, id},
};

/// What goes on beside calls: the keeper, the feed and the poll; and what a server asks once.
const BESIDE: [&str; 12] = [
    "-- clock()",
    "-- compatibility()",
    "-- due()",
    "-- heads()",
    "-- log()",
    "-- logs_with_old_approvals()",
    "-- logs_with_old_events()",
    "-- notify()",
    "-- pending_ages()",
    "-- ping()",
    "-- rights()",
    "-- granted()",
];

/// Calls at once.
const CROWD: usize = 64;

const BEGIN: &str = "BEGIN";
const COMMIT: &str = "COMMIT";
const LOCK: [&str; 5] =
    ["-- lock_approvals()", "-- lock_log()", "-- read_approvals()", "-- meet()", "-- facts()"];

/// The statements of a test's database, from PostgreSQL's log.
struct Statements {
    log: PathBuf,
    seen: usize,
    /// A session of the test's own, which is logged too.
    client: Client,
    fences: usize,
}

impl Statements {
    async fn of(database: &Database) -> Self {
        let client = database.connect().await;
        let tell = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET log_statement = ''all''', current_database()); END $$";
        client.batch_execute(tell).await.expect("sessions tell from now on");
        let log = database.server_log().await;
        let mut statements = Self { log, seen: 0, client: database.connect().await, fences: 0 };
        statements.since().await;
        statements
    }

    /// Those since the last time, without what goes on beside calls.
    async fn since(&mut self) -> Vec<String> {
        // What was logged before it is in the file before it.
        self.fences += 1;
        let fence = format!("fence {}.", self.fences);
        self.client.batch_execute(&format!("SELECT '{fence}'")).await.expect("said");
        let new = loop {
            let log = std::fs::read(&self.log).expect("a log");
            let new = String::from_utf8_lossy(&log[self.seen..]).into_owned();
            if let Some(end) = new.find(&fence) {
                self.seen += end;
                break new[..end].to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let statements = new.lines().filter_map(|line| {
            let (_, rest) = line.split_once("LOG:  ")?;
            let (how, text) = rest.split_once(": ")?;
            (how == "statement" || how.starts_with("execute ")).then(|| first_words(text))
        });
        statements.filter(|text| text != "SELECT" && !BESIDE.contains(&text.as_str())).collect()
    }
}

/// The label of a statement; of one without, its first word.
fn first_words(text: &str) -> String {
    let end = if text.starts_with("-- ") {
        text.find(')').map(|at| at + 1)
    } else {
        text.find([' ', ';'])
    };
    text[..end.unwrap_or(text.len())].to_owned()
}

/// Each kind of call, so that connections are there and their statements prepared.
async fn warm_up(backend: &Caller, alice: &Caller) {
    for number in 0..20 {
        let workspace = format!("warm-{number}");
        let held = id(&backend.require(&workspace, "delete_workspace").await);
        alice.approve(&held).await;
        backend.require(&workspace, "delete_workspace").await;
    }
}

/// One test, since all databases of the cluster have one log.
#[tokio::test]
async fn a_call_costs_no_more_statements_than_it_did() {
    let database = Database::new().await;
    let mut statements = Statements::of(&database).await;
    let server = TestServer::on(&database.url).await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    warm_up(&backend, &alice).await;
    statements.since().await;

    let held = id(&backend.require("w1", "delete_workspace").await);
    let new = ["-- insert_approvals()", "-- append_events()"];
    let created = [&["-- meet()", BEGIN][..], &LOCK, &new, &[COMMIT]].concat();
    assert_eq!(statements.since().await, created);

    backend.require("w1", "delete_workspace").await;
    assert_eq!(statements.since().await, ["-- meet()"], "to join is to read");

    alice.approve(&held).await;
    let decision = [
        "-- update_approvals()",
        "-- replace_verdicts()",
        "-- insert_verdicts()",
        "-- append_events()",
    ];
    let decided = [&["-- read_approvals()", BEGIN][..], &LOCK, &decision, &[COMMIT]].concat();
    assert_eq!(statements.since().await, decided);

    backend.require("w1", "delete_workspace").await;
    let changed = ["-- update_approvals()", "-- append_events()"];
    let consumed = [&["-- meet()", BEGIN][..], &LOCK, &changed, &[COMMIT]].concat();
    assert_eq!(statements.since().await, consumed);

    // Each transaction is a wait for the disk: a crowd shares them.
    let crowd = (0..CROWD).map(|number| {
        let backend = backend.clone();
        async move { backend.require(&format!("crowd-{number}"), "delete_workspace").await }
    });
    join_all(crowd).await;
    let commits = statements.since().await.iter().filter(|text| *text == COMMIT).count();
    // The first comes alone; what comes while it is in flight makes the next one, and so on.
    assert!((1..=CROWD / 4).contains(&commits), "{commits} transactions for {CROWD} calls");
}
