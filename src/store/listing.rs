//! Lists of approvals, in pages.

use std::collections::{BTreeSet, HashMap, HashSet};

use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{
    Failure, Lease, Store,
    log::{self, Log},
    rows::{Columns, all_columns, approval, at_most, request_columns, standing_columns},
    workspaces::{paths, subtrees},
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

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// Newest first. Fewer than asked for, or none, does not say that there are no more: `rest` does.
    pub approvals: Vec<Approval>,
    /// Where the list goes on: with what is older than this. None where it ends.
    pub rest: Option<Uuid>,
    /// The log as it was when they were read: what happened since is after its head.
    pub log: Log,
}

/// A list of workspaces that takes no more lookups than this, one for each workspace, state and action, is read by them.
const FEW: usize = 1_000;

/// Of more, a page is looked for among so many of the newest of all first: it mostly is there.
const WINDOW: usize = 1_000;

/// If it is not, a list is read by lookups that takes no more of them than this;
const MANY: usize = 10_000;

/// any other is looked for among so many times the newest. A page may be short then, and even empty, though the list goes on
/// (AIP-158): the time that it takes has an end, however few of the approvals of a namespace are of the workspaces that are
/// asked for.
const WINDOWS: usize = 10;

/// What the contexts of a page hold together, in bytes, if it has more than one approval.
const CONTEXT_BYTES: i64 = 3 * 1024 * 1024;

/// The ids of a page, newest first, and where each is, by a lookup for each state and so on. Ids are UUIDv7 and so in order of time.
/// Each lookup finds the newest that it leads to. A page of these is no older than the page that is wanted, so only what they
/// lead to is on it, and nothing that is older than they are. However long the history is, no more is read: one statement
/// with a condition for each part of a filter that may be unset would walk through it.
macro_rules! ids_of {
    ($label:literal, $columns:literal, $lookups:literal, $condition:literal, $order:literal) => {
        concat!(
            $label,
            "
WITH heads AS MATERIALIZED (
    SELECT ",
            $columns,
            ", c.id FROM (",
            $lookups,
            ") AS l
    CROSS JOIN LATERAL (
        SELECT a.id FROM approval_authority.approvals AS a
        WHERE a.namespace = $1 AND a.id < $2 AND ",
            $condition,
            "
        ORDER BY a.namespace DESC, ",
            $order,
            "a.state DESC, a.id DESC LIMIT 1
    ) AS c
    ORDER BY c.id DESC LIMIT $3
), oldest AS MATERIALIZED (
    SELECT coalesce((SELECT h.id FROM heads AS h ORDER BY h.id DESC OFFSET $3 - 1 LIMIT 1),
        '00000000-0000-0000-0000-000000000000') AS id
)
SELECT c.id, c.workspace_id FROM heads AS l
CROSS JOIN oldest AS o
CROSS JOIN LATERAL (
    SELECT a.id, a.workspace_id FROM approval_authority.approvals AS a
    WHERE a.namespace = $1 AND a.id < $2 AND a.id >= o.id AND ",
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
    "l.state",
    "SELECT s.state FROM unnest($4::text[]) AS s (state)",
    "a.state = l.state",
    ""
);

const IDS_OF_ACTIONS: &str = ids_of!(
    "-- list_ids_of_actions(): and of some actions",
    "l.state, l.action",
    "SELECT s.state, n.action FROM unnest($4::text[]) AS s (state) CROSS JOIN unnest($5::text[]) AS n (action)",
    "a.action = l.action AND a.state = l.state",
    "a.action DESC, "
);

const IDS_OF_WORKSPACES: &str = ids_of!(
    "-- list_ids_of_workspaces(): of some states and workspaces",
    "l.state, l.workspace_id",
    "SELECT s.state, w.workspace_id FROM unnest($4::text[]) AS s (state) CROSS JOIN unnest($5::text[]) AS w (workspace_id)",
    "a.workspace_id = l.workspace_id AND a.state = l.state",
    "a.workspace_id DESC, "
);

const IDS_OF_ACTIONS_IN_WORKSPACES: &str = ids_of!(
    "-- list_ids_of_actions_in_workspaces(): and of some actions",
    "l.state, l.workspace_id, l.action",
    "SELECT s.state, w.workspace_id, n.action FROM unnest($4::text[]) AS s (state)
    CROSS JOIN unnest($5::text[]) AS w (workspace_id) CROSS JOIN unnest($6::text[]) AS n (action)",
    "a.workspace_id = l.workspace_id AND a.action = l.action AND a.state = l.state",
    "a.workspace_id DESC, a.action DESC, "
);

/// No more of them than have room in a page: contexts can be large. Their lengths are known without reading them.
const APPROVALS: &str = concat!(
    "-- list_approvals(): a page, newest first
SELECT ",
    request_columns!(),
    ", ",
    standing_columns!(),
    "
FROM (
    SELECT ",
    all_columns!(),
    ", sum(octet_length(a.context)) OVER (ORDER BY p.id DESC) AS bytes, row_number() OVER (ORDER BY p.id DESC) AS place
    FROM unnest($2::uuid[]) AS p (id)
    CROSS JOIN LATERAL (
        SELECT ",
    all_columns!(),
    " FROM approval_authority.approvals AS a
        WHERE a.namespace = $1 AND a.id = p.id OFFSET 0
    ) AS a
) AS a
WHERE a.bytes <= $3 OR a.place = 1
ORDER BY a.place"
);

impl Store {
    /// At most `size` approvals older than `before`, newest first.
    pub async fn approvals(
        &self,
        namespace: &Namespace,
        filter: &Filter,
        before: Option<Uuid>,
        size: usize,
    ) -> Result<Page, Failure> {
        let tx = self.begin_snapshot().await?;
        let log = log::read(&tx, namespace).await?.unwrap_or(Log::NONE);
        let (approvals, rest) = page(&tx, namespace, filter, before, size).await?;
        tx.rollback().await?;
        Ok(Page { approvals, rest, log })
    }
}

async fn page(
    on: &Lease,
    namespace: &Namespace,
    filter: &Filter,
    before: Option<Uuid>,
    size: usize,
) -> Result<(Vec<Approval>, Option<Uuid>), Failure> {
    let states = if filter.states.is_empty() { State::ALL } else { &filter.states[..] };
    let list = List {
        on,
        namespace,
        // Each once: each is looked up.
        states: once(states.iter().map(|state| state.as_str())),
        actions: once(filter.actions.iter().map(Action::as_str)),
    };
    let before = before.unwrap_or(Uuid::max());
    // One more than the page has tells whether the list goes on.
    let Found { mut ids, searched_to } = list.find(&filter.workspaces, before, size + 1).await?;
    let rest = if ids.len() > size {
        ids.truncate(size);
        ids.last().copied()
    } else {
        searched_to
    };
    let rows = on.rows(APPROVALS, &[&namespace.as_str(), &ids, &CONTEXT_BYTES]).await?;
    let approvals: Result<Vec<Approval>, Failure> =
        rows.iter().map(|row| approval(&mut Columns::of(row))).collect();
    let approvals = approvals?;
    let rest = if approvals.len() < ids.len() { approvals.last().map(Approval::id) } else { rest };
    Ok((approvals, rest))
}

/// What was found of a list.
struct Found {
    /// Newest first; all that there are, or at least as many as were wanted, unless `searched_to` says otherwise.
    ids: Vec<Uuid>,
    /// There may be more of them that are older than this, which were not looked at.
    searched_to: Option<Uuid>,
}

impl Found {
    /// There are no more, or enough of them.
    fn all(ids: Vec<Uuid>) -> Self {
        Self { ids, searched_to: None }
    }
}

/// A list that is being read.
struct List<'a> {
    on: &'a Lease,
    namespace: &'a Namespace,
    states: Vec<&'a str>,
    /// None for all.
    actions: Vec<&'a str>,
}

impl List<'_> {
    /// The newest that are older than `before`; `limit` at most.
    async fn find(
        &self,
        selection: &Selection,
        before: Uuid,
        limit: usize,
    ) -> Result<Found, Failure> {
        if *selection == Selection::All {
            let newest = self.newest(before, limit).await?;
            return Ok(Found::all(newest.into_iter().map(|(id, _)| id).collect()));
        }
        if let Some(few) = self.workspaces(selection, FEW).await? {
            return Ok(Found::all(self.newest_of(&few, before, limit).await?));
        }
        let Found { mut ids, searched_to } = self.search(selection, before, limit, 1).await?;
        let Some(last) = searched_to else { return Ok(Found::all(ids)) };
        if let Some(many) = self.workspaces(selection, MANY).await? {
            return Ok(Found::all(self.newest_of(&many, before, limit).await?));
        }
        let older = self.search(selection, last, limit - ids.len(), WINDOWS - 1).await?;
        ids.extend(older.ids);
        Ok(Found { ids, searched_to: older.searched_to })
    }

    /// The workspaces that are selected, if so many lookups do for them.
    async fn workspaces(
        &self,
        selection: &Selection,
        lookups: usize,
    ) -> Result<Option<Vec<WorkspaceId>>, Failure> {
        let most = lookups / (self.states.len() * self.actions.len().max(1));
        let workspaces = match selection {
            Selection::All => return Ok(None),
            Selection::These(these) => these.clone(),
            Selection::Below(roots) => subtrees(self.on, self.namespace, roots, most + 1).await?,
        };
        Ok((workspaces.len() <= most).then_some(workspaces))
    }

    /// The newest of all, and where they are.
    async fn newest(
        &self,
        before: Uuid,
        limit: usize,
    ) -> Result<Vec<(Uuid, WorkspaceId)>, Failure> {
        let (namespace, limit) = (self.namespace.as_str(), at_most(limit));
        let Self { states, actions, .. } = self;
        let rows = if actions.is_empty() {
            self.on.rows(IDS, &[&namespace, &before, &limit, states]).await?
        } else {
            self.on.rows(IDS_OF_ACTIONS, &[&namespace, &before, &limit, states, actions]).await?
        };
        rows.iter().map(id_and_workspace).collect()
    }

    /// The newest of some workspaces, each of which is looked at.
    async fn newest_of(
        &self,
        workspaces: &[WorkspaceId],
        before: Uuid,
        limit: usize,
    ) -> Result<Vec<Uuid>, Failure> {
        let (namespace, limit) = (self.namespace.as_str(), at_most(limit));
        let Self { states, actions, .. } = self;
        let workspaces = once(workspaces.iter().map(WorkspaceId::as_str));
        let rows = if actions.is_empty() {
            let parameters: [&(dyn ToSql + Sync); 5] =
                [&namespace, &before, &limit, states, &workspaces];
            self.on.rows(IDS_OF_WORKSPACES, &parameters).await?
        } else {
            let parameters: [&(dyn ToSql + Sync); 6] =
                [&namespace, &before, &limit, states, &workspaces, actions];
            self.on.rows(IDS_OF_ACTIONS_IN_WORKSPACES, &parameters).await?
        };
        rows.iter().map(|row| Columns::of(row).next()).collect()
    }

    /// Those that are selected of the newest of all.
    async fn search(
        &self,
        selection: &Selection,
        mut before: Uuid,
        limit: usize,
        windows: usize,
    ) -> Result<Found, Failure> {
        let mut is_selected: HashMap<WorkspaceId, bool> = HashMap::new();
        let mut ids = Vec::new();
        for _ in 0..windows {
            let window = self.newest(before, WINDOW).await?;
            let unknown = window.iter().filter(|(_, at)| !is_selected.contains_key(at));
            let unknown: HashSet<WorkspaceId> = unknown.map(|(_, at)| at.clone()).collect();
            is_selected.extend(self.selected(selection, Vec::from_iter(unknown)).await?);
            let selected = window.iter().filter(|(_, at)| is_selected.get(at) == Some(&true));
            ids.extend(selected.map(|(id, _)| *id));
            match window.last() {
                Some((last, _)) if window.len() == WINDOW && ids.len() < limit => before = *last,
                Some(_) | None => return Ok(Found::all(ids)),
            }
        }
        Ok(Found { ids, searched_to: Some(before) })
    }

    /// Some workspaces, and whether each is selected.
    async fn selected(
        &self,
        selection: &Selection,
        some: Vec<WorkspaceId>,
    ) -> Result<HashMap<WorkspaceId, bool>, Failure> {
        Ok(match selection {
            Selection::All => some.into_iter().map(|id| (id, true)).collect(),
            Selection::These(these) => {
                let these: HashSet<&WorkspaceId> = these.iter().collect();
                some.into_iter().map(|id| (id.clone(), these.contains(&id))).collect()
            }
            Selection::Below(roots) => {
                let roots: HashSet<&WorkspaceId> = roots.iter().collect();
                let paths = paths(self.on, self.namespace, &some).await?;
                let is_below = |path: &[WorkspaceId]| path.iter().any(|id| roots.contains(id));
                paths.into_iter().map(|(id, path)| (id, is_below(&path))).collect()
            }
        })
    }
}

fn id_and_workspace(row: &Row) -> Result<(Uuid, WorkspaceId), Failure> {
    let mut columns = Columns::of(row);
    Ok((columns.next()?, columns.name(WorkspaceId::parse)?))
}

fn once<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    Vec::from_iter(BTreeSet::from_iter(texts))
}
