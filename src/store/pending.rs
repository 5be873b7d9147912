//! All that is pending, for a stream that begins with it.

use std::collections::HashSet;

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{
    Failure, Lease, Store,
    listing::Selection,
    log::{self, Log},
    rows::{Columns, all_columns, approval, request_columns},
    workspaces::subtrees,
};
use crate::{approval::Approval, names::Namespace};

/// So many are read at once: to read all of a million the planner would go through the whole history, and sort.
const CHUNK: i64 = 1_000;

/// Before whom each was brought is told by its events. Before its own workspace it always was, and the first event tells nothing else.
const PENDING: &str = "-- pending_approvals(): a chunk, oldest first; where they are, and before whom they were brought
SELECT a.id, a.workspace_id, CASE WHEN $4 AND a.version > 1 THEN ARRAY(
    SELECT e.workspace_id FROM approval_authority.events AS e
    WHERE e.namespace = $1 AND e.approval_id = a.id
    ORDER BY e.namespace, e.approval_id, e.version) ELSE '{}' END
FROM approval_authority.approvals AS a
WHERE a.namespace = $1 AND a.state = 'PENDING' AND a.id > $2
ORDER BY a.namespace, a.state, a.id LIMIT $3";

/// Each event holds the whole of what its approval was then, so the last one up to a revision tells it.
const AS_OF: &str = concat!(
    "-- approvals_as_of(): some approvals as they were at a revision
SELECT ",
    request_columns!(),
    ", e.state, e.version, e.verdicts, e.expire_time, e.decide_time, e.consume_time, e.consumed_by,
    NULL::text, e.cooldown_end, e.result, NULL::text, NULL::timestamptz
FROM unnest($2::uuid[]) WITH ORDINALITY AS q (id, ordinal)
CROSS JOIN LATERAL (
    SELECT ",
    all_columns!(),
    " FROM approval_authority.approvals AS a
    WHERE a.namespace = $1 AND a.id = q.id OFFSET 0
) AS a
CROSS JOIN LATERAL (
    SELECT e.state, e.version, e.verdicts, e.expire_time, e.decide_time, e.consume_time, e.consumed_by,
        e.cooldown_end, e.result
    FROM approval_authority.events AS e
    WHERE e.namespace = $1 AND e.approval_id = q.id AND e.revision <= $3
    ORDER BY e.namespace, e.approval_id, e.version DESC LIMIT 1
) AS e
ORDER BY q.ordinal"
);

impl Store {
    /// The ids of all pending approvals, oldest first, and the log as it was then: of `visible` workspaces, and
    /// brought before one that is `addressed`.
    pub async fn pending(
        &self,
        namespace: &Namespace,
        visible: &Selection,
        addressed: &Selection,
    ) -> Result<(Vec<Uuid>, Log), Failure> {
        self.log(namespace).await?;
        let tx = self.begin_snapshot().await?;
        let log = log::read(&tx, namespace).await?.ok_or(Failure::NoLog)?;
        let visible = selected(&tx, namespace, visible).await?;
        let addressed = selected(&tx, namespace, addressed).await?;
        let (mut ids, mut last) = (Vec::new(), Uuid::nil());
        loop {
            let parameters: [&(dyn ToSql + Sync); 4] =
                [&namespace.as_str(), &last, &CHUNK, &addressed.is_some()];
            let rows = tx.rows(PENDING, &parameters).await?;
            for row in &rows {
                let mut columns = Columns::of(row);
                last = columns.next()?;
                let (workspace, before): (&str, Vec<&str>) = (columns.next()?, columns.next()?);
                let is_visible = visible.as_ref().is_none_or(|these| these.contains(workspace));
                let is_addressed = addressed.as_ref().is_none_or(|these| {
                    these.contains(workspace) || before.iter().any(|at| these.contains(*at))
                });
                if is_visible && is_addressed {
                    ids.push(last);
                }
            }
            if (rows.len() as i64) < CHUNK {
                break;
            }
        }
        tx.rollback().await?;
        Ok((ids, log))
    }

    /// Some approvals as they were at a revision of their log, in the order of `ids`.
    pub async fn approvals_as_of(
        &self,
        namespace: &Namespace,
        ids: &[Uuid],
        revision: i64,
    ) -> Result<Vec<Approval>, Failure> {
        let lease = self.reading_connection().await?;
        let rows = lease.rows(AS_OF, &[&namespace.as_str(), &ids, &revision]).await?;
        rows.iter().map(|row| approval(&mut Columns::of(row))).collect()
    }
}

/// The workspaces that are selected; none for all.
async fn selected(
    on: &Lease,
    namespace: &Namespace,
    selection: &Selection,
) -> Result<Option<HashSet<String>>, Failure> {
    let workspaces = match selection {
        Selection::All => return Ok(None),
        Selection::These(workspaces) => workspaces,
        Selection::Below(roots) => &subtrees(on, namespace, roots, usize::MAX).await?,
    };
    Ok(Some(workspaces.iter().map(ToString::to_string).collect()))
}
