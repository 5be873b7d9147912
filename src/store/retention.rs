//! Retention: what is old is taken off the log's beginning and out of the approvals, in chunks. Nobody who writes
//! waits for it: it takes no lock that a writer needs, and passes over rows that a writer holds.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{Failure, Store, log, rows::Columns, transaction::Transaction};
use crate::{approval::State, names::Namespace};

/// Rows of a table that one transaction deletes.
const CHUNK: i64 = 1000;

const CLOCK: &str = "-- clock()
SELECT approval_authority.clock()";

const WITH_OLD_EVENTS: &str =
    "-- logs_with_old_events(): namespaces whose oldest event is from before a time
SELECT l.namespace FROM approval_authority.logs AS l
CROSS JOIN LATERAL (
    SELECT e.event_time FROM approval_authority.events AS e
    WHERE e.namespace = l.namespace ORDER BY e.namespace, e.revision LIMIT 1
) AS e
WHERE e.event_time < $1";

const WITH_OLD_APPROVALS: &str =
    "-- logs_with_old_approvals(): namespaces with approvals older than an id
SELECT l.namespace FROM approval_authority.logs AS l
CROSS JOIN LATERAL (
    SELECT a.id FROM approval_authority.approvals AS a
    WHERE a.namespace = l.namespace ORDER BY a.namespace, a.id LIMIT 1
) AS a
WHERE a.id < $1";

/// Keeps a second replica from cutting the same log. Not FOR UPDATE: that would make whoever asks for an approval
/// wait, since a new row looks up its log.
const LOCK_FLOOR: &str = "-- lock_floor(): of a log that nobody else is cutting
SELECT l.floor_revision FROM approval_authority.logs AS l WHERE l.namespace = $1
FOR NO KEY UPDATE SKIP LOCKED";

const OLDEST: &str = "-- oldest_events(): the beginning of a log
SELECT e.revision, e.batch_id, e.event_time, a.state FROM approval_authority.events AS e
CROSS JOIN LATERAL (
    SELECT a.state FROM approval_authority.approvals AS a
    WHERE a.namespace = $1 AND a.id = e.approval_id OFFSET 0
) AS a
WHERE e.namespace = $1 AND e.revision > $2 ORDER BY e.namespace, e.revision LIMIT $3";

/// With both ends, so that the planner expects few.
const CUT: &str = "-- cut_log(): deletes the events between two revisions
DELETE FROM approval_authority.events WHERE namespace = $1 AND revision > $2 AND revision <= $3";

const RAISE_FLOOR: &str = "-- raise_floor(): in the transaction that cuts
UPDATE approval_authority.logs SET floor_revision = $2, floor_tag = $3
WHERE namespace = $1 AND floor_revision < $2";

/// Of those whose events are gone, and only once no cooldown hangs on them. A subquery with a LIMIT is an index lookup
/// for each; NOT EXISTS can become a walk through all events for each.
const OLD_APPROVALS: &str = "-- old_approvals(): closed ones that nothing refers to any more
SELECT a.id FROM approval_authority.approvals AS a
WHERE a.namespace = $1 AND a.id > $2 AND a.id < $3 AND a.state NOT IN ('PENDING', 'APPROVED')
    AND a.expire_time < $4 AND (a.cooldown_end IS NULL OR a.cooldown_end < $5)
    AND (SELECT e.revision FROM approval_authority.events AS e
        WHERE e.namespace = $1 AND e.approval_id = a.id
        ORDER BY e.namespace, e.approval_id, e.version LIMIT 1) IS NULL
ORDER BY a.namespace, a.id LIMIT $6 FOR UPDATE SKIP LOCKED";

const OLDEST_TIME: &str = "-- oldest_time(): of what is left of a log
SELECT e.event_time FROM approval_authority.events AS e
WHERE e.namespace = $1 ORDER BY e.namespace, e.revision LIMIT 1";

const DELETE_APPROVALS: &str = "-- delete_approvals(): with their verdicts
DELETE FROM approval_authority.approvals WHERE namespace = $1 AND id = ANY($2)";

impl Store {
    /// Namespaces whose logs hold events older than `age`.
    pub async fn logs_to_cut(&self, age: SignedDuration) -> Result<Vec<Namespace>, Failure> {
        let cutoff = cutoff(self.clock().await?, age);
        self.namespaces_where(WITH_OLD_EVENTS, &cutoff).await
    }

    /// Namespaces with approvals older than `age`.
    pub async fn logs_to_clear(&self, age: SignedDuration) -> Result<Vec<Namespace>, Failure> {
        let before = first_id(cutoff(self.clock().await?, age));
        self.namespaces_where(WITH_OLD_APPROVALS, &before).await
    }

    /// Cuts at most a chunk of events older than `age` off the beginning of a log, and moves its floor in the same
    /// transaction. It stops before the first event of an approval that is still open. Returns how many were cut.
    pub async fn cut_log(
        &self,
        namespace: &Namespace,
        age: SignedDuration,
    ) -> Result<u64, Failure> {
        let tx = self.begin().await?;
        let cut = tx.patiently(cut(&tx, namespace, age)).await?;
        if cut > 0 {
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
        Ok(cut)
    }

    /// Deletes at most a chunk of approvals after an id that were closed longer than `age` ago and whose events have
    /// been cut. Returns the last of them; none when there are no more.
    pub async fn clear_approvals(
        &self,
        namespace: &Namespace,
        age: SignedDuration,
        after: Uuid,
    ) -> Result<Option<Uuid>, Failure> {
        let tx = self.begin().await?;
        let last = tx.patiently(clear(&tx, namespace, age, after)).await?;
        if last.is_some() {
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
        Ok(last)
    }

    /// The time, for what is not a part of a transaction.
    pub(super) async fn clock(&self) -> Result<Timestamp, Failure> {
        let lease = self.reading_connection().await?;
        let row = lease.patiently(lease.query_one(CLOCK, &[])).await?;
        Columns::of(&row).next()
    }

    async fn namespaces_where(
        &self,
        statement: &str,
        bound: &(dyn tokio_postgres::types::ToSql + Sync),
    ) -> Result<Vec<Namespace>, Failure> {
        let lease = self.reading_connection().await?;
        let rows = lease
            .patiently(async {
                let statement = lease.prepare_cached(statement).await?;
                lease.query(&statement, &[bound]).await
            })
            .await?;
        rows.iter().map(|row| Columns::of(row).name(Namespace::parse)).collect()
    }
}

async fn cut(tx: &Transaction, namespace: &Namespace, age: SignedDuration) -> Result<u64, Failure> {
    let name = namespace.as_str();
    let Some(row) = tx.query_opt(LOCK_FLOOR, &[&name]).await? else { return Ok(0) };
    let floor: i64 = Columns::of(&row).next()?;
    let cutoff = cutoff(Columns::of(&tx.query_one(CLOCK, &[]).await?).next()?, age);
    let mut last: Option<(i64, i64)> = None;
    for row in &tx.query(OLDEST, &[&name, &floor, &CHUNK]).await? {
        let mut columns = Columns::of(row);
        let (revision, batch_id) = (columns.next()?, columns.next()?);
        let time: Timestamp = columns.next()?;
        if time >= cutoff || columns.name(State::parse)?.is_open() {
            break;
        }
        last = Some((revision, log::tag(batch_id)));
    }
    let Some((revision, tag)) = last else { return Ok(0) };
    let cut = tx.execute(CUT, &[&name, &floor, &revision]).await?;
    match tx.execute(RAISE_FLOOR, &[&name, &revision, &tag]).await? {
        1 => Ok(cut),
        raised => Err(Failure::Fault(format!("{raised} floors were raised"))),
    }
}

async fn clear(
    tx: &Transaction,
    namespace: &Namespace,
    age: SignedDuration,
    after: Uuid,
) -> Result<Option<Uuid>, Failure> {
    let now: Timestamp = Columns::of(&tx.query_one(CLOCK, &[]).await?).next()?;
    let cutoff = cutoff(now, age);
    let name = namespace.as_str();
    // What was requested since the oldest event that is left still has its events.
    let oldest = tx.query_opt(OLDEST_TIME, &[&name]).await?;
    let oldest = oldest.map(|row| Columns::of(&row).next()).transpose()?.unwrap_or(cutoff);
    let before = first_id(cutoff.min(oldest));
    let rows = tx.query(OLD_APPROVALS, &[&name, &after, &before, &cutoff, &now, &CHUNK]).await?;
    let ids: Vec<Uuid> =
        rows.iter().map(|row| Columns::of(row).next()).collect::<Result<_, _>>()?;
    if !ids.is_empty() {
        tx.execute(DELETE_APPROVALS, &[&name, &ids]).await?;
    }
    Ok(ids.last().copied())
}

fn cutoff(now: Timestamp, age: SignedDuration) -> Timestamp {
    now.checked_sub(age).unwrap_or(Timestamp::MIN)
}

/// The least id (UUIDv7) that could have been made at a time: its first 48 bits are milliseconds (RFC 9562 section
/// 5.7).
fn first_id(time: Timestamp) -> Uuid {
    let milliseconds = time.as_millisecond().max(0).cast_unsigned();
    Uuid::from_u128(u128::from(milliseconds) << 80)
}
