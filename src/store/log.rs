//! Each namespace's log: its lock, its history's name, its two ends.

use uuid::Uuid;

use super::{
    Failure, Store, events::Position, rows::Columns, schema::check_durability,
    transaction::Transaction,
};
use crate::{error::Error, names::Namespace};

/// The state of a namespace's log, read in one statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Names the history.
    pub epoch: Uuid,
    /// The last revision that retention has removed; 0 while the log is whole.
    pub floor: i64,
    /// The tag of the event there.
    pub floor_tag: i64,
    /// The newest revision; equals the floor while there is no event.
    pub head: i64,
    /// The tag of the event there.
    pub head_tag: i64,
}

pub(super) const LOCK_LOG: &str =
    "-- lock_log(): serialises the namespace's appends; held until the end
SELECT current_setting('fsync'), current_setting('synchronous_commit')
FROM approval_authority.log_locks AS l WHERE l.namespace = $1 FOR UPDATE";

impl Log {
    /// Where it ends.
    pub fn end(&self) -> Position {
        Position { revision: self.head, tag: self.head_tag }
    }

    /// Whether a position at which no event stands is where the log begins. What has come after it since does not
    /// matter: it has yet to be read.
    pub fn begins_at(&self, position: Position) -> Result<(), Error> {
        if self.floor > position.revision {
            return Err(Error::CursorExpired);
        }
        let floor = Position { revision: self.floor, tag: self.floor_tag };
        if floor == position { Ok(()) } else { Err(Error::HistoryChanged) }
    }

    /// The log that is not there: a cursor of it stands before the first event of whatever history begins.
    pub const NONE: Self =
        Self { epoch: Uuid::nil(), floor: 0, floor_tag: 0, head: 0, head_tag: 0 };
}

const LOG: &str = "-- log(): a log's epoch and its two ends
SELECT l.epoch, l.floor_revision, l.floor_tag, e.revision, e.batch_id
FROM approval_authority.logs AS l
LEFT JOIN LATERAL (
    SELECT t.revision, t.batch_id FROM approval_authority.events AS t
    WHERE t.namespace = l.namespace ORDER BY t.namespace DESC, t.revision DESC LIMIT 1
) AS e ON true
WHERE l.namespace = $1";

const HEADS: &str = "-- heads(): how far each of some logs has come
SELECT n.namespace, e.revision, e.batch_id
FROM unnest($1::text[]) AS n (namespace)
CROSS JOIN LATERAL (
    SELECT t.revision, t.batch_id FROM approval_authority.events AS t
    WHERE t.namespace = n.namespace ORDER BY t.namespace DESC, t.revision DESC LIMIT 1
) AS e";

const CREATE_LOG: &str = "-- create_log(): a namespace's first use
INSERT INTO approval_authority.logs (namespace, epoch) VALUES ($1, $2) ON CONFLICT DO NOTHING";

const CREATE_LOG_LOCK: &str = "-- create_log_lock(): a namespace's first use
INSERT INTO approval_authority.log_locks (namespace) VALUES ($1) ON CONFLICT DO NOTHING";

/// What tells one event from any other that might stand at its revision in another history: the first eight
/// bytes of the random id of the transaction that wrote it.
pub(super) fn tag(batch_id: Uuid) -> i64 {
    let (first, _) = batch_id.as_u64_pair();
    i64::from_ne_bytes(first.to_ne_bytes())
}

/// Takes the namespace's lock: the last of a transaction's locks. Every transaction that writes takes it, so it
/// also sees to it that what is written will last. [`Failure::NoLog`] where nothing has ever
/// been written in the namespace; [`Failure::Unavailable`], and not [`Failure::Busy`], where another transaction holds it
/// for too long: whatever a batch is made of, it would meet that.
pub async fn lock(tx: &Transaction, namespace: &Namespace) -> Result<(), Failure> {
    let statement = tx.prepare_cached(LOCK_LOG).await?;
    match tx.query_opt(&statement, &[&namespace.as_str()]).await.map_err(Failure::from) {
        Ok(Some(row)) => check_durability(row.try_get(0)?, row.try_get(1)?),
        Ok(None) => Err(Failure::NoLog),
        Err(Failure::Busy(why)) => Err(Failure::Unavailable(why)),
        Err(failure) => Err(failure),
    }
}

/// The log as this transaction sees it.
pub async fn read(tx: &Transaction, namespace: &Namespace) -> Result<Option<Log>, Failure> {
    tx.rows(LOG, &[&namespace.as_str()]).await?.first().map(from_row).transpose()
}

const NAMESPACES: &str = "-- namespaces(): all that have a log
SELECT l.namespace FROM approval_authority.logs AS l ORDER BY l.namespace";

const OPEN: &str = "-- open_approvals(): some that are pending, or approved and unused
SELECT a.id FROM approval_authority.approvals AS a
WHERE a.namespace = $1 AND a.state IN ('PENDING', 'APPROVED') LIMIT $2";

const NEW_EPOCH: &str = "-- new_epoch(): cursors of the history so far are refused from now on
UPDATE approval_authority.logs SET epoch = $2 WHERE namespace = $1";

impl Store {
    /// Every namespace that has a log.
    pub async fn namespaces(&self) -> Result<Vec<Namespace>, Failure> {
        let lease = self.reading_connection().await?;
        let rows = lease.rows(NAMESPACES, &[]).await?;
        rows.iter().map(|row| Columns::of(row).name(Namespace::parse)).collect()
    }

    /// At most `limit` approvals that are open.
    pub async fn open_approvals(
        &self,
        namespace: &Namespace,
        limit: i64,
    ) -> Result<Vec<Uuid>, Failure> {
        let lease = self.reading_connection().await?;
        let rows = lease.rows(OPEN, &[&namespace.as_str(), &limit]).await?;
        rows.iter().map(|row| Columns::of(row).next()).collect()
    }

    /// Gives a log another epoch, unless something is open in it.
    pub async fn begin_epoch(&self, namespace: &Namespace) -> Result<bool, Failure> {
        let tx = self.begin().await?;
        let name = namespace.as_str();
        tx.patiently(lock(&tx, namespace)).await?;
        let is_closed = tx.rows(OPEN, &[&name, &1_i64]).await?.is_empty();
        if is_closed {
            tx.patiently(tx.execute(NEW_EPOCH, &[&name, &Uuid::new_v4()])).await?;
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
        Ok(is_closed)
    }

    /// A namespace's log; one that has none is given one.
    pub async fn log(&self, namespace: &Namespace) -> Result<Log, Failure> {
        loop {
            let lease = self.reading_connection().await?;
            let rows = lease.rows(LOG, &[&namespace.as_str()]).await?;
            drop(lease);
            match rows.first() {
                Some(row) => return from_row(row),
                None => self.create_log(namespace).await?,
            }
        }
    }

    /// Gives a namespace its log; another replica may have done so already.
    pub async fn create_log(&self, namespace: &Namespace) -> Result<(), Failure> {
        let tx = self.begin().await?;
        let name = namespace.as_str();
        tx.patiently(tx.execute(CREATE_LOG, &[&name, &Uuid::new_v4()])).await?;
        tx.patiently(tx.execute(CREATE_LOG_LOCK, &[&name])).await?;
        tx.commit().await
    }

    /// The newest event of each of some logs; those that have none are left out.
    pub async fn heads(
        &self,
        namespaces: &[Namespace],
    ) -> Result<Vec<(Namespace, Position)>, Failure> {
        let names: Vec<&str> = namespaces.iter().map(Namespace::as_str).collect();
        let lease = self.reading_connection().await?;
        let rows = lease.rows(HEADS, &[&names]).await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                let namespace = columns.name(Namespace::parse)?;
                let revision = columns.next()?;
                Ok((namespace, Position { revision, tag: tag(columns.next()?) }))
            })
            .collect()
    }
}

fn from_row(row: &tokio_postgres::Row) -> Result<Log, Failure> {
    let mut columns = Columns::of(row);
    let (epoch, floor, floor_tag) = (columns.next()?, columns.next()?, columns.next()?);
    let head: Option<i64> = columns.next()?;
    let head_batch: Option<Uuid> = columns.next()?;
    Ok(Log {
        epoch,
        floor,
        floor_tag,
        head: head.unwrap_or(floor),
        head_tag: head_batch.map_or(floor_tag, tag),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event that was appended between the look for it and the look at the log passed for another history.
    #[test]
    fn a_log_begins_where_it_does_whatever_has_been_appended_since() {
        let at = |revision, tag| Position { revision, tag };
        for head in [4, 5, 900] {
            let log = Log { epoch: Uuid::nil(), floor: 4, floor_tag: 44, head, head_tag: 1 };
            assert_eq!(log.begins_at(at(4, 44)), Ok(()));
            assert_eq!(log.begins_at(at(3, 33)), Err(Error::CursorExpired));
            assert_eq!(log.begins_at(at(0, 0)), Err(Error::CursorExpired));
            assert_eq!(log.begins_at(at(4, 45)), Err(Error::HistoryChanged));
            assert_eq!(log.begins_at(at(5, 1)), Err(Error::HistoryChanged));
        }
        let whole = Log { epoch: Uuid::nil(), floor: 0, floor_tag: 0, head: 3, head_tag: 1 };
        assert_eq!(whole.begins_at(at(0, 0)), Ok(()));
    }
}
