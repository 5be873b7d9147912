//! Lists of approvals, in pages.

use std::collections::BTreeSet;

use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{
    Failure, Lease, Store,
    log::{self, Log},
    rows::{Columns, all_columns, approval, request_columns, standing_columns},
    transaction::Transaction,
    workspaces::{is_below, paths, subtrees},
};
use crate::{
    approval::{Approval, State},
    names::{Action, Namespace, WorkspaceId},
};

/// Which approvals of a namespace; what is empty selects all.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Of these workspaces.
    pub workspaces: Selection,
    /// In these states.
    pub states: Vec<State>,
    /// Of these actions.
    pub actions: Vec<Action>,
}

/// Which workspaces of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All, and those that are not in the tree.
    All,
    /// These.
    These(Vec<WorkspaceId>),
    /// These and all below them.
    Below(Vec<WorkspaceId>),
}

impl Selection {
    /// What somebody asks for who may see everything.
    pub fn of(asked: &[WorkspaceId], include_descendants: bool) -> Self {
        match (asked, include_descendants) {
            ([], _) => Self::All,
            (asked, false) => Self::These(asked.to_vec()),
            (asked, true) => Self::Below(asked.to_vec()),
        }
    }
}

/// With more workspaces than this, a list is looked for among so many of the newest approvals first.
const MANY: i64 = 1_000;

/// The ids of a page, newest first, and where each is: of what some index lookups find, each of which finds a page at most.
/// Ids are UUIDv7 and so in order of time. However long the history is, no more is read: one statement with a condition
/// for each part of a filter that may be unset would walk through it.
macro_rules! ids_of {
    ($label:literal, $lookups:literal, $condition:literal, $order:literal) => {
        concat!(
            $label,
            "
SELECT c.id, c.workspace_id FROM ",
            $lookups,
            "
CROSS JOIN LATERAL (
    SELECT a.id, a.workspace_id FROM approval_authority.approvals AS a
    WHERE a.namespace = $1 AND a.id < $2 AND ",
            $condition,
            "
    ORDER BY a.namespace DESC, ",
            $order,
            "a.state DESC, a.id DESC LIMIT $3
) AS c
ORDER BY c.id DESC LIMIT $3"
        )
    };
}

const IDS: &str = ids_of!(
    "-- list_ids(): of some states",
    "unnest($4::text[]) AS s (state)",
    "a.state = s.state",
    ""
);

const IDS_OF_ACTIONS: &str = ids_of!(
    "-- list_ids_of_actions(): and of some actions",
    "unnest($4::text[]) AS s (state) CROSS JOIN unnest($5::text[]) AS n (action)",
    "a.action = n.action AND a.state = s.state",
    "a.action DESC, "
);

const IDS_OF_WORKSPACES: &str = ids_of!(
    "-- list_ids_of_workspaces(): of some states and workspaces",
    "unnest($4::text[]) AS s (state) CROSS JOIN unnest($5::text[]) AS w (id)",
    "a.workspace_id = w.id AND a.state = s.state",
    "a.workspace_id DESC, "
);

const IDS_OF_ACTIONS_IN_WORKSPACES: &str = ids_of!(
    "-- list_ids_of_actions_in_workspaces(): and of some actions",
    "unnest($4::text[]) AS s (state) CROSS JOIN unnest($5::text[]) AS w (id) CROSS JOIN unnest($6::text[]) AS n (action)",
    "a.workspace_id = w.id AND a.action = n.action AND a.state = s.state",
    "a.workspace_id DESC, a.action DESC, "
);

const APPROVALS: &str = concat!(
    "-- list_approvals(): a page, newest first
SELECT ",
    request_columns!(),
    ", ",
    standing_columns!(),
    "
FROM unnest($2::uuid[]) AS p (id)
CROSS JOIN LATERAL (
    SELECT ",
    all_columns!(),
    " FROM approval_authority.approvals AS a
    WHERE a.namespace = $1 AND a.id = p.id OFFSET 0
) AS a
ORDER BY p.id DESC"
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
        let log = log::read(&tx, namespace).await?.unwrap_or(Log::NONE);
        let approvals = page(&tx, namespace, filter, before, limit).await?;
        tx.rollback().await?;
        Ok((approvals, log))
    }
}

async fn page(
    tx: &Transaction,
    namespace: &Namespace,
    filter: &Filter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Approval>, Failure> {
    let states = if filter.states.is_empty() { State::ALL } else { &filter.states[..] };
    let list = List {
        on: tx,
        namespace,
        before: before.unwrap_or(Uuid::max()),
        // Each once: a page of each is read.
        states: once(states.iter().map(|state| state.as_str())),
        actions: once(filter.actions.iter().map(Action::as_str)),
    };
    let ids = match &filter.workspaces {
        Selection::All => list.newest(limit).await?.into_iter().map(|(id, _)| id).collect(),
        Selection::These(workspaces) => list.of(workspaces, limit).await?,
        Selection::Below(roots) => list.below(roots, limit).await?,
    };
    let rows = tx.rows(APPROVALS, &[&namespace.as_str(), &ids]).await?;
    rows.iter().map(|row| approval(&mut Columns::of(row))).collect()
}

/// A list that is being read.
struct List<'a> {
    on: &'a Lease,
    namespace: &'a Namespace,
    before: Uuid,
    states: Vec<&'a str>,
    /// None for all.
    actions: Vec<&'a str>,
}

impl List<'_> {
    /// The newest of all, and where they are.
    async fn newest(&self, limit: i64) -> Result<Vec<(Uuid, WorkspaceId)>, Failure> {
        let namespace = self.namespace.as_str();
        let Self { before, states, actions, .. } = self;
        let rows = if actions.is_empty() {
            self.on.rows(IDS, &[&namespace, before, &limit, states]).await?
        } else {
            self.on.rows(IDS_OF_ACTIONS, &[&namespace, before, &limit, states, actions]).await?
        };
        rows.iter().map(id_and_workspace).collect()
    }

    /// The newest of some workspaces, each of which is looked at.
    async fn of(&self, workspaces: &[WorkspaceId], limit: i64) -> Result<Vec<Uuid>, Failure> {
        let namespace = self.namespace.as_str();
        let Self { before, states, actions, .. } = self;
        let workspaces = once(workspaces.iter().map(WorkspaceId::as_str));
        let rows = if actions.is_empty() {
            let parameters: [&(dyn ToSql + Sync); 5] =
                [&namespace, before, &limit, states, &workspaces];
            self.on.rows(IDS_OF_WORKSPACES, &parameters).await?
        } else {
            let parameters: [&(dyn ToSql + Sync); 6] =
                [&namespace, before, &limit, states, &workspaces, actions];
            self.on.rows(IDS_OF_ACTIONS_IN_WORKSPACES, &parameters).await?
        };
        rows.iter().map(|row| Columns::of(row).next()).collect()
    }

    /// The newest of some workspaces and all below them.
    async fn below(&self, roots: &[WorkspaceId], limit: i64) -> Result<Vec<Uuid>, Failure> {
        let some = subtrees(self.on, self.namespace, roots, MANY + 1).await?;
        if some.len() as i64 <= MANY {
            return self.of(&some, limit).await;
        }
        match self.newest_below(roots, limit).await? {
            Some(ids) => Ok(ids),
            None => {
                let all = subtrees(self.on, self.namespace, roots, i64::MAX).await?;
                self.of(&all, limit).await
            }
        }
    }

    /// The same, if they are among the newest of all; none if one has to look further.
    async fn newest_below(
        &self,
        roots: &[WorkspaceId],
        limit: i64,
    ) -> Result<Option<Vec<Uuid>>, Failure> {
        let newest = self.newest(MANY).await?;
        let workspaces: BTreeSet<&WorkspaceId> = newest.iter().map(|(_, at)| at).collect();
        let workspaces: Vec<WorkspaceId> = workspaces.into_iter().cloned().collect();
        let paths = paths(self.on, self.namespace, &workspaces).await?;
        let ids = newest.iter().filter(|(_, at)| is_below(&paths, at, roots)).map(|(id, _)| *id);
        let ids: Vec<Uuid> = ids.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect();
        let is_all_there_is = (newest.len() as i64) < MANY;
        Ok((is_all_there_is || ids.len() as i64 == limit).then_some(ids))
    }
}

fn id_and_workspace(row: &Row) -> Result<(Uuid, WorkspaceId), Failure> {
    let mut columns = Columns::of(row);
    Ok((columns.next()?, columns.name(WorkspaceId::parse)?))
}

fn once<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    Vec::from_iter(BTreeSet::from_iter(texts))
}
