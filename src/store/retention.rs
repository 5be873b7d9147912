//! Retention: what is old is taken off the log's beginning and out of the approvals, in chunks. Nobody who writes
//! waits for it: it takes no lock that a writer needs, and passes over rows that a writer holds.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{Failure, Store, rows::Columns};
use crate::names::Namespace;

/// Rows of a table that one transaction deletes.
const CHUNK: i32 = 1000;

const CLOCK: &str = "-- clock()
SELECT approval_authority.clock()";

const WITH_OLD_EVENTS: &str =
    "-- logs_with_old_events(): namespaces whose oldest event is from before a time
SELECT l.namespace FROM approval_authority.logs AS l
CROSS JOIN LATERAL (
    SELECT e.event_time FROM approval_authority.events AS e
    WHERE e.namespace = l.namespace AND e.revision > l.floor_revision ORDER BY e.namespace, e.revision LIMIT 1
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

/// The service may delete events and approvals through these two functions alone (`migrations/V7__retention.sql`).
const CUT: &str = "-- cut_log(): the oldest events\nSELECT approval_authority.cut_log($1, $2, $3)";

const CLEAR: &str = "-- clear_approvals(): old and closed, with their verdicts
SELECT approval_authority.clear_approvals($1, $2, $3, $4)";

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
        let (name, age) = (namespace.as_str(), milliseconds(age));
        let row = tx.patiently(tx.query_one(CUT, &[&name, &age, &CHUNK])).await?;
        let cut: i64 = Columns::of(&row).next()?;
        if cut > 0 {
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
        u64::try_from(cut).map_err(Failure::corrupt)
    }

    /// Of a chunk of approvals after an id, deletes those that were closed longer than `age` ago and whose events have been
    /// cut. Returns the last of the chunk; none when there are no more.
    pub async fn clear_approvals(
        &self,
        namespace: &Namespace,
        age: SignedDuration,
        after: Uuid,
    ) -> Result<Option<Uuid>, Failure> {
        let tx = self.begin().await?;
        let (name, age) = (namespace.as_str(), milliseconds(age));
        let row = tx.patiently(tx.query_one(CLEAR, &[&name, &age, &after, &CHUNK])).await?;
        let last: Option<Uuid> = Columns::of(&row).next()?;
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
        let rows = lease.rows(statement, &[bound]).await?;
        rows.iter().map(|row| Columns::of(row).name(Namespace::parse)).collect()
    }
}

fn milliseconds(age: SignedDuration) -> i64 {
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
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
