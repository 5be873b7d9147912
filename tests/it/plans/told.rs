//! Where PostgreSQL tells what statements did (auto_explain).

use std::path::PathBuf;

use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

use crate::database::Database;

/// What has only `migrate`, or a server that starts, or that reads no table.
pub const NOT_SEEN: [&str; 13] = [
    "applied",
    "check_server",
    "compatibility",
    "granted",
    "has_schema",
    "namespaces",
    "new_epoch",
    "open_approvals",
    "ping",
    "rights",
    "role_exists",
    "sessions_of_servers",
    "written_by",
];

/// The databases of all tests share a log, and it does not say of which a statement is.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Where the log tells of statements, and from where on.
pub struct Told {
    _alone: MutexGuard<'static, ()>,
    log: PathBuf,
    from: usize,
}

impl Told {
    /// What every statement since did, by its label. No more is told.
    pub async fn plans(self, database: &Database) -> Vec<(String, Value)> {
        let quiet = format!("ALTER DATABASE {} RESET ALL", database.name);
        database.connect().await.batch_execute(&quiet).await.expect("quiet");
        plans(&self.log, self.from)
    }
}

/// Has sessions tell from now on what their statements do.
pub async fn explain(database: &Database) -> Told {
    let alone = ALONE.lock().await;
    let client = database.connect().await;
    let explain = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET session_preload_libraries = auto_explain',
            current_database());
        EXECUTE format('ALTER DATABASE %I SET auto_explain.log_min_duration = 0', current_database());
        EXECUTE format('ALTER DATABASE %I SET auto_explain.log_analyze = on', current_database());
        EXECUTE format('ALTER DATABASE %I SET auto_explain.log_timing = off', current_database());
        EXECUTE format('ALTER DATABASE %I SET auto_explain.log_buffers = on', current_database());
        EXECUTE format('ALTER DATABASE %I SET auto_explain.log_nested_statements = on', current_database());
        EXECUTE format('ALTER DATABASE %I SET auto_explain.log_format = json', current_database());
        EXECUTE format('ALTER DATABASE %I SET jit_above_cost = 0', current_database()); END $$";
    client.batch_execute("LOAD 'auto_explain'").await.expect("PostgreSQL's auto_explain");
    client.batch_execute(explain).await.expect("sessions tell from now on");
    let log = database.server_log().await;
    let from = std::fs::metadata(&log).expect("a log").len();
    Told { _alone: alone, log, from: usize::try_from(from).expect("fits") }
}

/// What every statement did, by its label: those that the log tells of behind a place.
fn plans(log: &PathBuf, from: usize) -> Vec<(String, Value)> {
    let log = String::from_utf8_lossy(&std::fs::read(log).expect("a log")[from..]).into_owned();
    let mut lines = log.lines().peekable();
    let mut plans = Vec::new();
    while let Some(line) = lines.next() {
        if !line.ends_with("plan:") {
            continue;
        }
        let mut json = String::new();
        while let Some(line) = lines.next_if(|line| line.starts_with('\t')) {
            json.push_str(line);
        }
        let plan: Value = serde_json::from_str(&json).expect("a plan in JSON");
        let text = plan["Query Text"].as_str().expect("its statement");
        if text.starts_with("-- the test's own") {
            continue;
        }
        // Functions and foreign keys have statements of their own, without a label.
        let label = match text.strip_prefix("-- ").and_then(|rest| rest.split_once('(')) {
            Some((label, _)) => label,
            None => text,
        };
        // To compile one takes longer than any of them.
        assert!(plan["JIT"].is_null() || NOT_SEEN.contains(&label), "{label} is compiled");
        plans.push((label.to_owned(), plan["Plan"].clone()));
    }
    plans
}
