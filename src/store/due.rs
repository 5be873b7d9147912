//! What time has come for: open approvals to lapse or to climb, and the tree above them.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use uuid::Uuid;

use super::{Failure, Store, rows::Columns, transaction::Transaction};
use crate::names::{Namespace, WorkspaceId};

/// Pending approvals that are counted.
const COUNTED: i64 = 1000;

/// Approvals of one namespace that are seen to at once: a batch of the ledger's.
const OF_A_NAMESPACE: i64 = 128;

/// One index lookup for each namespace. Which come first is left to chance, so that some with much to do keep no
/// other waiting for long.
const DUE: &str = "-- due(): open approvals whose time has come
SELECT d.namespace, d.id FROM (
    SELECT l.namespace FROM approval_authority.logs AS l ORDER BY random()
) AS l
CROSS JOIN LATERAL (
    SELECT a.namespace, a.id FROM approval_authority.approvals AS a
    WHERE a.namespace = l.namespace AND a.state IN ('PENDING', 'APPROVED')
        AND least(a.expire_time, a.escalate_time) <= $3
    ORDER BY a.namespace, least(a.expire_time, a.escalate_time) LIMIT $1
) AS d LIMIT $2";

/// One index lookup for each namespace, and some hundred rows in all: the namespaces share them, but each may show its oldest.
/// Ids are in the order of time.
const PENDING_AGES: &str =
    "-- pending_ages(): since when approvals are pending, the oldest of each namespace
SELECT p.create_time FROM approval_authority.logs AS l
CROSS JOIN LATERAL (
    SELECT a.create_time FROM approval_authority.approvals AS a
    WHERE a.namespace = l.namespace AND a.state = 'PENDING'
    ORDER BY a.namespace, a.state, a.id
    LIMIT greatest(1, $1 / (SELECT count(*) FROM approval_authority.logs AS all_logs))
) AS p";

const PATHS: &str = "-- paths_of(): the workspaces of some approvals with their ancestors
WITH RECURSIVE path (approval_id, id, distance) AS (
    SELECT a.id, a.workspace_id, 0 FROM approval_authority.approvals AS a
    WHERE a.namespace = $1 AND a.id = ANY($2)
    UNION
    SELECT p.approval_id, w.parent_id, p.distance + 1 FROM path AS p
    JOIN approval_authority.workspaces AS w ON w.namespace = $1 AND w.id = p.id
    WHERE w.parent_id IS NOT NULL AND p.distance < 1000)
SELECT p.approval_id, p.id FROM path AS p ORDER BY p.approval_id, p.distance";

impl Store {
    /// At most `limit` open approvals, of all namespaces, whose time to lapse or to climb has come.
    pub async fn due(&self, limit: i64) -> Result<Vec<(Namespace, Uuid)>, Failure> {
        let now = self.clock().await?;
        let lease = self.reading_connection().await?;
        let rows = lease.rows(DUE, &[&OF_A_NAMESPACE, &limit, &now]).await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                Ok((columns.name(Namespace::parse)?, columns.next()?))
            })
            .collect()
    }

    /// How long each pending approval has been so, of all namespaces: of at most a thousand, the oldest of each, and no fewer
    /// than one where there is one.
    pub async fn pending_ages(&self) -> Result<Vec<Duration>, Failure> {
        let now = self.clock().await?;
        let lease = self.reading_connection().await?;
        let rows = lease.rows(PENDING_AGES, &[&COUNTED]).await?;
        rows.iter()
            .map(|row| {
                let since: Timestamp = Columns::of(row).next()?;
                Ok(Duration::try_from(now.duration_since(since)).unwrap_or_default())
            })
            .collect()
    }
}

/// The workspace of each of some approvals and its ancestors, nearest first. With the log locked the tree stays as it
/// is until the transaction ends.
pub(super) async fn paths(
    tx: &Transaction,
    namespace: &Namespace,
    ids: &[Uuid],
) -> Result<BTreeMap<Uuid, Vec<WorkspaceId>>, Failure> {
    let mut paths: BTreeMap<Uuid, Vec<WorkspaceId>> = BTreeMap::new();
    if ids.is_empty() {
        return Ok(paths);
    }
    for row in &tx.rows(PATHS, &[&namespace.as_str(), &ids]).await? {
        let mut columns = Columns::of(row);
        let path = paths.entry(columns.next()?).or_default();
        path.push(columns.name(WorkspaceId::parse)?);
    }
    Ok(paths)
}
