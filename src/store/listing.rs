//! Lists of approvals, in pages.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{
    Failure, Store,
    log::{self, Log},
    rows::{Columns, all_columns, approval, request_columns, standing_columns},
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

/// A page of what some index lookups find, each of which finds a page at most, newest first; ids are UUIDv7 and so in
/// order of time. However long the history is, no more is read: one statement with a condition for each part of a filter
/// that may be unset would walk through it.
macro_rules! page_of {
    ($label:literal, $lookups:literal, $condition:literal, $order:literal) => {
        concat!(
            $label,
            "\nSELECT ",
            request_columns!(),
            ", ",
            standing_columns!(),
            "
FROM (
    SELECT c.id FROM ",
            $lookups,
            "
    CROSS JOIN LATERAL (
        SELECT a.id FROM approval_authority.approvals AS a
        WHERE a.namespace = $1 AND ",
            $condition,
            " AND a.id < $4 AND (cardinality($3::text[]) = 0 OR a.action = ANY($3))
        ORDER BY a.namespace DESC, ",
            $order,
            "a.state DESC, a.id DESC LIMIT $5
    ) AS c
    ORDER BY c.id DESC LIMIT $5
) AS p
CROSS JOIN LATERAL (
    SELECT ",
            all_columns!(),
            " FROM approval_authority.approvals AS a
    WHERE a.namespace = $1 AND a.id = p.id OFFSET 0
) AS a
ORDER BY p.id DESC"
        )
    };
}

const LIST: &str = page_of!(
    "-- list_approvals(): a page of some states",
    "unnest($2::text[]) AS s (state)",
    "a.state = s.state",
    ""
);

const LIST_WORKSPACES: &str = page_of!(
    "-- list_approvals_of(): a page of some workspaces and states",
    "unnest($2::text[]) AS s (state) CROSS JOIN unnest($6::text[]) AS w (id)",
    "a.workspace_id = w.id AND a.state = s.state",
    "a.workspace_id DESC, "
);

const PENDING: &str =
    "-- pending_approvals(): those that were brought before some workspaces, oldest first
SELECT a.id FROM approval_authority.approvals AS a
WHERE a.namespace = $1 AND a.state = 'PENDING' AND ($2::text[] IS NULL OR a.workspace_id = ANY($2))
    AND ($3::text[] IS NULL OR (
        SELECT e.revision FROM approval_authority.events AS e
        WHERE e.namespace = $1 AND e.approval_id = a.id AND e.workspace_id = ANY($3)
        ORDER BY e.namespace, e.approval_id, e.version LIMIT 1) IS NOT NULL)
ORDER BY a.namespace, a.id";

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

    /// The ids of all pending approvals, oldest first, and the log as it was then: of `visible` workspaces, and
    /// brought before one of `addressed`, where these are given.
    pub async fn pending(
        &self,
        namespace: &Namespace,
        visible: Option<&[WorkspaceId]>,
        addressed: Option<&[WorkspaceId]>,
    ) -> Result<(Vec<Uuid>, Log), Failure> {
        let (visible, addressed) = (visible.map(texts), addressed.map(texts));
        self.log(namespace).await?;
        let tx = self.begin_snapshot().await?;
        let (log, rows) = tx
            .patiently(async {
                let log = log::read(&tx, namespace).await?.ok_or(Failure::NoLog)?;
                let statement = tx.prepare_cached(PENDING).await?;
                let rows =
                    tx.query(&statement, &[&namespace.as_str(), &visible, &addressed]).await?;
                Ok::<_, Failure>((log, rows))
            })
            .await?;
        tx.rollback().await?;
        let ids = rows.iter().map(|row| Columns::of(row).next()).collect::<Result<_, _>>()?;
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
        let rows = lease
            .patiently(async {
                let statement = lease.prepare_cached(AS_OF).await?;
                lease.query(&statement, &[&namespace.as_str(), &ids, &revision]).await
            })
            .await?;
        rows.iter().map(|row| approval(&mut Columns::of(row))).collect()
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
    let namespace = namespace.as_str();
    let states = if filter.states.is_empty() { State::ALL } else { &filter.states[..] };
    // Each once: a page of each is read.
    let states: BTreeSet<&str> = states.iter().map(|state| state.as_str()).collect();
    let states = Vec::from_iter(states);
    let actions: Vec<&str> = filter.actions.iter().map(Action::as_str).collect();
    let before = before.unwrap_or(Uuid::max());
    let rows = match filter.workspaces.as_deref().map(texts) {
        None => {
            let statement = tx.prepare_cached(LIST).await?;
            tx.query(&statement, &[&namespace, &states, &actions, &before, &limit]).await?
        }
        Some(workspaces) => {
            let workspaces = Vec::from_iter(BTreeSet::from_iter(workspaces));
            let statement = tx.prepare_cached(LIST_WORKSPACES).await?;
            tx.query(&statement, &[&namespace, &states, &actions, &before, &limit, &workspaces])
                .await?
        }
    };
    rows.iter().map(|row| approval(&mut Columns::of(row))).collect()
}
