//! The event log: appended to under the namespace's lock, read in pages.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use tokio_postgres::{
    Row, Statement,
    types::{Json, ToSql},
};
use uuid::Uuid;

use super::{
    Connection, Failure, Store,
    log::{self, Log},
    rows::{Columns, all_columns, request, request_columns, standing},
    transaction::Transaction,
};
use crate::{
    approval::{Approval, Event, EventKind, Verdict},
    error::Error,
    names::{Namespace, Principal, Text, WorkspaceId},
};

/// A place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Everything up to here has been read.
    pub revision: i64,
    /// The tag of the event there; 0 before the first.
    pub tag: i64,
}

/// An event in its place.
#[derive(Clone, Debug)]
pub struct LoggedEvent {
    /// Position in the namespace's log.
    pub revision: i64,
    /// Tells it from what stands at this revision in another history.
    pub tag: i64,
    /// The tag of the event before it: an event follows a position only if the tags fit.
    pub follows: i64,
    /// What happened.
    pub event: Event,
    /// The workspace it is addressed to and its ancestors, as the tree is now.
    pub path: Arc<[WorkspaceId]>,
    /// The workspace of its approval and its ancestors: those that an approval was brought before are not always
    /// among them any more.
    pub requested_in: Arc<[WorkspaceId]>,
}

impl LoggedEvent {
    /// The workspace it is addressed to, and that of its approval.
    fn workspaces(&self) -> [WorkspaceId; 2] {
        let Event { workspace_id, approval, .. } = &self.event;
        [workspace_id.clone(), approval.request.operation.workspace_id.clone()]
    }
}

/// Numbers the events from the tail on. It runs under the namespace's lock, in a statement that began after
/// the lock was granted, and so sees every earlier number. An approval whose row lost has no events.
pub(super) const APPEND: &str = "-- append_events(): dense, in commit order
INSERT INTO approval_authority.events (namespace, revision, type, workspace_id, approval_id, version, state,
    verdicts, expire_time, decide_time, consume_time, consumed_by, cooldown_end, result, actor, note,
    event_time, batch_id)
SELECT $1, coalesce((
        SELECT t.revision FROM approval_authority.events AS t
        WHERE t.namespace = $1 ORDER BY t.namespace DESC, t.revision DESC LIMIT 1), (
        SELECT l.floor_revision FROM approval_authority.logs AS l WHERE l.namespace = $1))
    + row_number() OVER (ORDER BY n.ordinal), n.type, n.workspace_id, n.approval_id, n.version, n.state,
    n.verdicts, n.expire_time, n.decide_time, n.consume_time, n.consumed_by, n.cooldown_end, n.result,
    n.actor, n.note, n.event_time, $2
FROM unnest($3::text[], $4::text[], $5::uuid[], $6::integer[], $7::text[], $8::jsonb[], $9::timestamptz[],
    $10::timestamptz[], $11::timestamptz[], $12::text[], $13::timestamptz[], $14::text[], $15::text[],
    $16::text[], $17::timestamptz[]) WITH ORDINALITY
    AS n (type, workspace_id, approval_id, version, state, verdicts, expire_time, decide_time,
    consume_time, consumed_by, cooldown_end, result, actor, note, event_time, ordinal)
CROSS JOIN LATERAL (
    SELECT a.id FROM approval_authority.approvals AS a
    WHERE a.namespace = $1 AND a.id = n.approval_id OFFSET 0
) AS a";

/// From the position on, and not only what comes after it: the event there must still be the one that was read.
const AFTER: &str = concat!(
    "-- events_after(): a page of the log
SELECT e.revision, e.batch_id, e.type, e.workspace_id, e.actor, e.note, e.event_time, ",
    request_columns!(),
    ", e.state, e.version, e.verdicts, e.expire_time, e.decide_time, e.consume_time, e.consumed_by,
    NULL::text, e.cooldown_end, e.result, NULL::text, NULL::timestamptz
FROM approval_authority.events AS e
CROSS JOIN LATERAL (
    SELECT ",
    all_columns!(),
    " FROM approval_authority.approvals AS a
    WHERE a.namespace = $1 AND a.id = e.approval_id OFFSET 0
) AS a
WHERE e.namespace = $1 AND e.revision >= $2 ORDER BY e.namespace, e.revision LIMIT $3"
);

const AT: &str = "-- event_at(): which transaction wrote a revision
SELECT e.batch_id FROM approval_authority.events AS e WHERE e.namespace = $1 AND e.revision = $2";

const WRITTEN_BY: &str = "-- written_by(): whether a transaction has left this event behind
SELECT e.revision FROM approval_authority.events AS e
WHERE e.namespace = $1 AND e.approval_id = $2 AND e.version = $3 AND e.batch_id = $4";

/// Runs `APPEND`; returns how many events are in the log now.
pub(super) async fn append(
    connection: &Connection,
    statement: &Statement,
    namespace: &Namespace,
    batch_id: Uuid,
    events: &[Event],
) -> Result<u64, Failure> {
    let standings = || events.iter().map(|e| &e.approval.standing);
    let consumptions = || standings().map(|s| s.consumption.as_ref());
    let appended = connection
        .execute(
            statement,
            &[
                &namespace.as_str(),
                &batch_id,
                &events.iter().map(|e| e.kind.as_str()).collect::<Vec<&str>>(),
                &events.iter().map(|e| e.workspace_id.as_str()).collect::<Vec<&str>>(),
                &events.iter().map(|e| e.approval.id()).collect::<Vec<Uuid>>(),
                &standings().map(|s| s.version.cast_signed()).collect::<Vec<i32>>(),
                &standings().map(|s| s.state.as_str()).collect::<Vec<&str>>(),
                &standings().map(|s| Json(&s.verdicts)).collect::<Vec<Json<&Vec<Verdict>>>>(),
                &standings().map(|s| s.expire_time).collect::<Vec<Timestamp>>(),
                &standings().map(|s| s.decide_time).collect::<Vec<Option<Timestamp>>>(),
                &consumptions().map(|c| c.map(|c| c.time)).collect::<Vec<Option<Timestamp>>>(),
                &consumptions().map(|c| c.map(|c| c.by.as_str())).collect::<Vec<Option<&str>>>(),
                &standings().map(|s| s.cooldown_end).collect::<Vec<Option<Timestamp>>>(),
                &standings().map(|s| s.result.map(|r| r.as_str())).collect::<Vec<Option<&str>>>(),
                &events.iter().map(|e| e.actor.as_ref().map(|a| a.as_str())).collect::<Vec<_>>(),
                &events.iter().map(|e| e.note.as_ref().map(|n| n.as_str())).collect::<Vec<_>>(),
                &events.iter().map(|e| e.time).collect::<Vec<Timestamp>>(),
            ],
        )
        .await?;
    Ok(appended)
}

/// Whether this transaction sees that another has committed the event. Call it with the log locked: then the
/// other has ended, one way or the other.
pub async fn is_written(
    tx: &Transaction,
    namespace: &Namespace,
    batch_id: Uuid,
    event: &Event,
) -> Result<bool, Failure> {
    let version = event.approval.standing.version.cast_signed();
    let found = tx
        .query_opt(WRITTEN_BY, &[&namespace.as_str(), &event.approval.id(), &version, &batch_id])
        .await?;
    Ok(found.is_some())
}

impl Store {
    /// At most `limit` events after a position, in order and without a gap.
    ///
    /// [`Error::HistoryChanged`] when the event at the position is not the one that it was: the database has
    /// lost its tail, as in a failover, and may have written another since. [`Error::CursorExpired`] when
    /// retention has removed what follows.
    pub async fn events_after(
        &self,
        namespace: &Namespace,
        position: Position,
        limit: i64,
    ) -> Result<Vec<LoggedEvent>, Error> {
        let lease = self.reading_connection().await?;
        let name = namespace.as_str();
        let parameters: [&(dyn ToSql + Sync); 3] = [&name, &position.revision, &(limit + 1)];
        let rows = lease.rows(AFTER, &parameters).await?;
        drop(lease);
        let mut events = Vec::with_capacity(rows.len());
        let mut last = position;
        for row in &rows {
            let logged = logged_event(row, last.tag)?;
            if logged.revision == position.revision {
                if logged.tag != position.tag {
                    return Err(Error::HistoryChanged);
                }
                continue;
            }
            if logged.revision != last.revision + 1 {
                return Err(Error::CursorExpired);
            }
            last = Position { revision: logged.revision, tag: logged.tag };
            events.push(logged);
        }
        if rows.is_empty() {
            // A position at which nothing stands, and after which nothing comes, is where retention has cut.
            self.log(namespace).await?.begins_at(position)?;
        }
        Ok(self.with_paths(namespace, events).await?)
    }

    /// The log, and the tag of the event at a revision, as one state.
    pub async fn locate(
        &self,
        namespace: &Namespace,
        revision: i64,
    ) -> Result<(Log, Option<i64>), Failure> {
        // Makes the log if there is none, so that what follows finds it.
        self.log(namespace).await?;
        let tx = self.begin_snapshot().await?;
        let log = log::read(&tx, namespace).await?.ok_or(Failure::NoLog)?;
        let at = tx.rows(AT, &[&namespace.as_str(), &revision]).await?;
        let tag = at.first().map(|row| Columns::of(row).next().map(log::tag)).transpose()?;
        tx.rollback().await?;
        Ok((log, tag))
    }

    async fn with_paths(
        &self,
        namespace: &Namespace,
        mut events: Vec<LoggedEvent>,
    ) -> Result<Vec<LoggedEvent>, Failure> {
        let ends: BTreeSet<WorkspaceId> = events.iter().flat_map(LoggedEvent::workspaces).collect();
        if ends.is_empty() {
            return Ok(events);
        }
        let ends: Vec<WorkspaceId> = ends.into_iter().collect();
        let paths: HashMap<WorkspaceId, Arc<[WorkspaceId]>> = self.paths(namespace, &ends).await?;
        for logged in &mut events {
            let [path, requested_in] = logged.workspaces().map(|end| paths.get(&end).cloned());
            logged.path = path.unwrap_or_else(|| logged.path.clone());
            logged.requested_in = requested_in.unwrap_or_else(|| logged.requested_in.clone());
        }
        Ok(events)
    }
}

fn logged_event(row: &Row, follows: i64) -> Result<LoggedEvent, Failure> {
    let mut columns = Columns::of(row);
    let revision = columns.next()?;
    let tag = log::tag(columns.next()?);
    let kind = columns.name(EventKind::parse)?;
    let workspace_id = columns.name(WorkspaceId::parse)?;
    let actor = columns.optional_name(Principal::parse)?;
    let note = columns.optional_name(Text::parse)?;
    let time = columns.next()?;
    let approval =
        Approval { request: Arc::new(request(&mut columns)?), standing: standing(&mut columns)? };
    let path = [workspace_id.clone()].into();
    let requested_in = [approval.request.operation.workspace_id.clone()].into();
    Ok(LoggedEvent {
        revision,
        tag,
        follows,
        event: Event { kind, workspace_id, approval, actor, note, time },
        path,
        requested_in,
    })
}
