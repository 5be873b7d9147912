//! What a run has come to: what the database holds, and figures.

use std::collections::BTreeMap;

use approval_authority::approval::{EventKind, OperationResult, State};
use tokio_postgres::{Client, Row};

use super::record::{self, Answer, Ask, Event, History, Operation};

const EVENTS: &str =
    "SELECT revision, type, approval_id, version, state, expire_time, result, actor, event_time
    FROM approval_authority.events ORDER BY revision";

const ROWS: &str =
    "SELECT id, workspace_id, action, context, requested_by, on_behalf_of, state, version, result,
    consumed_key FROM approval_authority.approvals";

/// The log and the approvals, once nobody is connected who could still change them.
pub async fn read(client: &Client) -> (Vec<Event>, Vec<record::Row>) {
    let others = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    while client.query_one(others, &[]).await.expect("a count").get::<_, i64>(0) > 0 {
        tokio::task::yield_now().await;
    }
    let events = client.query(EVENTS, &[]).await.expect("the log");
    let rows = client.query(ROWS, &[]).await.expect("the approvals");
    (events.iter().map(event).collect(), rows.iter().map(row).collect())
}

fn event(row: &Row) -> Event {
    Event {
        revision: row.get(0),
        kind: EventKind::parse(row.get(1)).expect("a kind"),
        approval: row.get(2),
        version: row.get::<_, i32>(3).try_into().expect("a count"),
        state: State::parse(row.get(4)).expect("a state"),
        expire_time: row.get(5),
        result: row.get::<_, Option<&str>>(6).map(result),
        actor: row.get(7),
        time: row.get(8),
    }
}

fn row(row: &Row) -> record::Row {
    record::Row {
        id: row.get(0),
        operation: Operation {
            workspace: row.get(1),
            action: row.get(2),
            context: row.get(3),
            requested_by: row.get(4),
            on_behalf_of: row.get(5),
        },
        state: State::parse(row.get(6)).expect("a state"),
        version: row.get::<_, i32>(7).try_into().expect("a count"),
        result: row.get::<_, Option<&str>>(8).map(result),
        consumed_key: row.get(9),
    }
}

fn result(word: &str) -> OperationResult {
    OperationResult::parse(word).expect("a result")
}

/// What a run was made of.
#[derive(Default)]
pub struct Figures {
    pub kills: usize,
    pub stops: usize,
    pub lost: usize,
    /// How often each call was answered in each way.
    pub answers: BTreeMap<String, usize>,
    /// How often each thing happened.
    pub events: BTreeMap<&'static str, usize>,
}

impl Figures {
    /// Adds those of another run.
    pub fn add(&mut self, other: Self) {
        self.kills += other.kills;
        self.stops += other.stops;
        self.lost += other.lost;
        for (answer, count) in other.answers {
            *self.answers.entry(answer).or_default() += count;
        }
        for (event, count) in other.events {
            *self.events.entry(event).or_default() += count;
        }
    }

    pub fn count(&mut self, history: &History) {
        for call in &history.calls {
            let asked = match &call.ask {
                Ask::Require { .. } => "require",
                Ask::Decide { .. } => "decide",
                Ask::Withdraw { .. } => "withdraw",
                Ask::Revoke { .. } => "revoke",
                Ask::Report { .. } => "report",
            };
            let told = match &call.answer {
                Answer::LetThrough { replayed: false, .. } => "let through".to_owned(),
                Answer::LetThrough { replayed: true, .. } => "replayed".to_owned(),
                Answer::Held(seen) => seen.state.as_str().to_owned(),
                Answer::Done(_) => "done".to_owned(),
                Answer::Refused(reason) => reason.clone(),
                Answer::Unknown => "unknown".to_owned(),
            };
            *self.answers.entry(format!("{asked}: {told}")).or_default() += 1;
        }
        for event in &history.events {
            *self.events.entry(event.kind.as_str()).or_default() += 1;
        }
    }
}
