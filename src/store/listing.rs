//! Lists of approvals, in pages.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{
    Failure, Store,
    log::{self, Log},
    rows::{Columns, approval, request_columns, standing_columns},
    transaction::Transaction,
};
use crate::{
    approval::{Approval, State},
    names::{Action, Namespace, WorkspaceId},
};

/// Which approvals of a namespace; what is none or empty selects all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of these workspaces.
    pub workspaces: Option<Vec<WorkspaceId>>,
    /// In these states.
    pub states: Vec<State>,
    /// Of these actions.
    pub actions: Vec<Action>,
}

const LIST: &str = concat!(
    "-- list_approvals(): a page, newest first; ids are UUIDv7 and so in order of time
SELECT ",
    request_columns!(),
    ", ",
    standing_columns!(),
    "
FROM approval_authority.approvals AS a
WHERE a.namespace = $1 AND ($2::text[] IS NULL OR a.workspace_id = ANY($2))
    AND (cardinality($3::text[]) = 0 OR a.state = ANY($3))
    AND (cardinality($4::text[]) = 0 OR a.action = ANY($4))
    AND ($5::uuid IS NULL OR a.id < $5)
ORDER BY a.namespace DESC, a.id DESC LIMIT $6"
);

const PENDING: &str = concat!(
    "-- pending_approvals(): a page, newest first, of those that were brought before some workspaces
SELECT ",
    request_columns!(),
    ", ",
    standing_columns!(),
    "
FROM approval_authority.approvals AS a
WHERE a.namespace = $1 AND a.state = 'PENDING' AND ($2::text[] IS NULL OR a.workspace_id = ANY($2))
    AND ($3::text[] IS NULL OR EXISTS (
        SELECT e.revision FROM approval_authority.events AS e
        WHERE e.namespace = $1 AND e.approval_id = a.id AND e.workspace_id = ANY($3)))
    AND ($4::uuid IS NULL OR a.id < $4)
ORDER BY a.namespace DESC, a.id DESC LIMIT $5"
);

/// Approvals that a snapshot of pending ones is read in at once.
const SNAPSHOT_PAGE: i64 = 500;

impl Store {
    /// At most `limit` approvals older than `before`, newest first, and the log as it was when they were read:
    /// what happened since is after its head.
    pub async fn approvals(
        &self,
        namespace: &Namespace,
        filter: &Filter,
        before: Option<Uuid>,
        limit: i64,
    ) -> Result<(Vec<Approval>, Log), Failure> {
        let tx = self.begin_snapshot().await?;
        let (log, approvals) = tx
            .patiently(async {
                let log = log::read(&tx, namespace).await?.unwrap_or(Log::NONE);
                Ok::<_, Failure>((log, page(&tx, namespace, filter, before, limit).await?))
            })
            .await?;
        tx.rollback().await?;
        Ok((approvals, log))
    }

    /// Every pending approval, oldest first, and the log as it was then: of `visible` workspaces, and brought
    /// before one of `addressed`, where these are given.
    pub async fn pending(
        &self,
        namespace: &Namespace,
        visible: Option<&[WorkspaceId]>,
        addressed: Option<&[WorkspaceId]>,
    ) -> Result<(Vec<Approval>, Log), Failure> {
        let (visible, addressed) = (visible.map(texts), addressed.map(texts));
        self.log(namespace).await?;
        let tx = self.begin_snapshot().await?;
        let log = tx.patiently(log::read(&tx, namespace)).await?.ok_or(Failure::NoLog)?;
        let statement = tx.patiently(tx.prepare_cached(PENDING)).await?;
        let mut all: Vec<Approval> = Vec::new();
        loop {
            let before = all.last().map(Approval::id);
            let name = namespace.as_str();
            let parameters: [&(dyn ToSql + Sync); 5] =
                [&name, &visible, &addressed, &before, &SNAPSHOT_PAGE];
            let rows = tx.patiently(tx.query(&statement, &parameters)).await?;
            for row in &rows {
                all.push(approval(&mut Columns::of(row))?);
            }
            if (rows.len() as i64) < SNAPSHOT_PAGE {
                break;
            }
        }
        tx.rollback().await?;
        all.reverse();
        Ok((all, log))
    }
}

fn texts(ids: &[WorkspaceId]) -> Vec<&str> {
    ids.iter().map(WorkspaceId::as_str).collect()
}

async fn page(
    tx: &Transaction,
    namespace: &Namespace,
    filter: &Filter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Approval>, Failure> {
    let workspaces: Option<Vec<&str>> = filter.workspaces.as_deref().map(texts);
    let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
    let actions: Vec<&str> = filter.actions.iter().map(Action::as_str).collect();
    let statement = tx.prepare_cached(LIST).await?;
    let rows = tx
        .query(&statement, &[&namespace.as_str(), &workspaces, &states, &actions, &before, &limit])
        .await?;
    rows.iter().map(|row| approval(&mut Columns::of(row))).collect()
}
