//! The trees of workspaces.

use std::{collections::HashMap, sync::Arc};

use tokio_postgres::types::ToSql;

use super::{
    Failure, Lease, Store, log,
    rows::{Columns, at_most},
    transaction::Transaction,
};
use crate::{
    error::Error,
    names::{Namespace, WorkspaceId},
};

/// A node of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// The organisation.
    pub namespace: Namespace,
    /// The workspace.
    pub id: WorkspaceId,
    /// Its parent; none for a root.
    pub parent_id: Option<WorkspaceId>,
    /// For people; at most 200 characters.
    pub display_name: String,
}

/// Workspaces, each with its ancestors: itself first, then the nearest.
pub type Paths = HashMap<WorkspaceId, Arc<[WorkspaceId]>>;

/// Whether a workspace is one of some, or below one.
pub fn is_below(paths: &Paths, id: &WorkspaceId, roots: &[WorkspaceId]) -> bool {
    paths.get(id).is_some_and(|path| path.iter().any(|above| roots.contains(above)))
}

/// A workspace and its ancestors, nearest first, for each of some workspaces. UNION, not UNION ALL, so that
/// it ends whatever the tree holds.
const PATHS: &str = "-- paths(): each workspace with its ancestors
WITH RECURSIVE path (start, id, distance) AS (
    SELECT n.id, n.id, 0 FROM unnest($2::text[]) AS n (id)
    UNION
    SELECT p.start, w.parent_id, p.distance + 1 FROM path AS p
    JOIN approval_authority.workspaces AS w ON w.namespace = $1 AND w.id = p.id
    WHERE w.parent_id IS NOT NULL AND p.distance < 1000)
SELECT p.start, p.id FROM path AS p ORDER BY p.start, p.distance";

/// `below`: some workspaces of `$1` and all below them, walked by an index no further than is read of it.
macro_rules! below {
    ($roots:literal) => {
        concat!(
            "WITH RECURSIVE below (id) AS (
    SELECT n.id FROM unnest(",
            $roots,
            "::text[]) AS n (id)
    UNION
    SELECT w.id FROM below AS b
    CROSS JOIN LATERAL (
        SELECT w.id FROM approval_authority.workspaces AS w
        WHERE w.namespace = $1 AND w.parent_id = b.id OFFSET 0
    ) AS w)
"
        )
    };
}

const SUBTREES: &str = concat!(
    "-- subtrees(): some workspaces and all below them\n",
    below!("$2"),
    "SELECT b.id FROM below AS b LIMIT $3"
);

/// Without a distance, and so to the root however far it is.
const ANCESTORS: &str = "-- ancestors(): of a workspace, itself included
WITH RECURSIVE up (id) AS (
    SELECT $2::text
    UNION
    SELECT w.parent_id FROM up AS u
    JOIN approval_authority.workspaces AS w ON w.namespace = $1 AND w.id = u.id
    WHERE w.parent_id IS NOT NULL)
SELECT u.id FROM up AS u";

const EXISTS: &str = "-- workspace_exists()
SELECT w.id FROM approval_authority.workspaces AS w WHERE w.namespace = $1 AND w.id = $2";

const UPDATE: &str = "-- update_workspace()
UPDATE approval_authority.workspaces SET parent_id = $3, display_name = $4
WHERE namespace = $1 AND id = $2";

const INSERT: &str = "-- insert_workspace()
INSERT INTO approval_authority.workspaces (namespace, id, parent_id, display_name)
VALUES ($1, $2, $3, $4)";

const ORPHAN: &str = "-- orphan_children(): they become roots
UPDATE approval_authority.workspaces SET parent_id = NULL WHERE namespace = $1 AND parent_id = $2";

const DELETE: &str = "-- delete_workspace()
DELETE FROM approval_authority.workspaces WHERE namespace = $1 AND id = $2";

const LIST: &str = "-- list_workspaces(): a page in order of id
SELECT w.namespace, w.id, w.parent_id, w.display_name FROM approval_authority.workspaces AS w
WHERE w.namespace = $1 AND w.id > $2
ORDER BY w.namespace, w.id LIMIT $3";

const LIST_BELOW: &str = concat!(
    "-- list_workspaces_below(): some workspaces and all below them\n",
    below!("$4"),
    "SELECT w.namespace, w.id, w.parent_id, w.display_name FROM below AS b
JOIN approval_authority.workspaces AS w ON w.namespace = $1 AND w.id = b.id
WHERE w.id > $2
ORDER BY w.namespace, w.id LIMIT $3"
);

impl Store {
    /// Creates a workspace or replaces its parent and display name. It has to be `open` for a change, by itself and
    /// its ancestors, and so has its new parent: who hangs a workspace below another gives others a say in it.
    ///
    /// The namespace's log lock is held meanwhile, so that two that are put at once cannot make a cycle, nor
    /// a request escalate to a parent that is being taken away, nor a change be made by a right that has just been
    /// taken away with the workspace.
    pub async fn put_workspace(
        &self,
        workspace: &Workspace,
        open: impl Fn(&[WorkspaceId]) -> bool,
    ) -> Result<(), Error> {
        let tx = self.lock_tree(&workspace.namespace).await?;
        match put(&tx, workspace, open).await? {
            Ok(()) => Ok(tx.commit().await?),
            Err(refused) => {
                tx.rollback().await?;
                Err(refused)
            }
        }
    }

    /// Removes a workspace that is `open` for a change, as in [`put_workspace`](Self::put_workspace); its children
    /// become roots.
    pub async fn delete_workspace(
        &self,
        namespace: &Namespace,
        id: &WorkspaceId,
        open: impl Fn(&[WorkspaceId]) -> bool,
    ) -> Result<(), Error> {
        let tx = self.lock_tree(namespace).await?;
        match delete(&tx, namespace, id, open).await? {
            Ok(()) => Ok(tx.commit().await?),
            Err(refused) => {
                tx.rollback().await?;
                Err(refused)
            }
        }
    }

    /// At most `limit` workspaces after an id, in order of id; only `roots` and what is below them, if given.
    pub async fn workspaces(
        &self,
        namespace: &Namespace,
        after: &str,
        roots: Option<&[WorkspaceId]>,
        limit: usize,
    ) -> Result<Vec<Workspace>, Failure> {
        let (namespace, limit) = (namespace.as_str(), at_most(limit));
        let lease = self.reading_connection().await?;
        let rows = match roots.map(texts) {
            None => lease.rows(LIST, &[&namespace, &after, &limit]).await?,
            Some(roots) => lease.rows(LIST_BELOW, &[&namespace, &after, &limit, &roots]).await?,
        };
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                Ok(Workspace {
                    namespace: columns.name(Namespace::parse)?,
                    id: columns.name(WorkspaceId::parse)?,
                    parent_id: columns.optional_name(WorkspaceId::parse)?,
                    display_name: columns.next()?,
                })
            })
            .collect()
    }

    /// Each of some workspaces with its ancestors, itself first. A workspace that is not in the tree is alone.
    pub async fn paths(
        &self,
        namespace: &Namespace,
        workspaces: &[WorkspaceId],
    ) -> Result<Paths, Failure> {
        let lease = self.reading_connection().await?;
        paths(&lease, namespace, workspaces).await
    }

    /// A workspace with its ancestors, itself first: what a right is looked up by.
    pub async fn path(
        &self,
        namespace: &Namespace,
        workspace: &WorkspaceId,
    ) -> Result<Arc<[WorkspaceId]>, Failure> {
        let lease = self.lookup_connection().await?;
        let mut paths = paths(&lease, namespace, std::slice::from_ref(workspace)).await?;
        Ok(paths.remove(workspace).unwrap_or_default())
    }

    async fn lock_tree(&self, namespace: &Namespace) -> Result<Transaction, Failure> {
        loop {
            let tx = self.begin().await?;
            match tx.patiently(log::lock(&tx, namespace)).await {
                Ok(()) => return Ok(tx),
                Err(Failure::NoLog) => {
                    tx.rollback().await?;
                    self.create_log(namespace).await?;
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}

async fn put(
    tx: &Transaction,
    workspace: &Workspace,
    open: impl Fn(&[WorkspaceId]) -> bool,
) -> Result<Result<(), Error>, Failure> {
    let Workspace { namespace, id, parent_id, display_name } = workspace;
    if !open(&ancestors(tx, namespace, id).await?) {
        return Ok(Err(Error::RoleMissing));
    }
    if let Some(parent) = parent_id {
        let above = ancestors(tx, namespace, parent).await?;
        if !open(&above) {
            return Ok(Err(Error::RoleMissing));
        }
        if above.contains(id) {
            return Ok(Err(Error::WorkspaceCycle));
        }
        if tx.rows(EXISTS, &[&namespace.as_str(), &parent.as_str()]).await?.is_empty() {
            return Ok(Err(Error::ParentNotFound));
        }
    }
    let (namespace, id) = (namespace.as_str(), id.as_str());
    let parent = parent_id.as_ref().map(WorkspaceId::as_str);
    let parameters: [&(dyn ToSql + Sync); 4] = [&namespace, &id, &parent, display_name];
    if tx.patiently(tx.execute(UPDATE, &parameters)).await? == 0 {
        tx.patiently(tx.execute(INSERT, &parameters)).await?;
    }
    Ok(Ok(()))
}

async fn delete(
    tx: &Transaction,
    namespace: &Namespace,
    id: &WorkspaceId,
    open: impl Fn(&[WorkspaceId]) -> bool,
) -> Result<Result<(), Error>, Failure> {
    if !open(&ancestors(tx, namespace, id).await?) {
        return Ok(Err(Error::RoleMissing));
    }
    let parameters: [&(dyn ToSql + Sync); 2] = [&namespace.as_str(), &id.as_str()];
    tx.patiently(tx.execute(ORPHAN, &parameters)).await?;
    let deleted = tx.patiently(tx.execute(DELETE, &parameters)).await?;
    Ok(if deleted == 0 { Err(Error::WorkspaceNotFound) } else { Ok(()) })
}

pub(super) async fn paths(
    on: &Lease,
    namespace: &Namespace,
    workspaces: &[WorkspaceId],
) -> Result<Paths, Failure> {
    let rows = on.rows(PATHS, &[&namespace.as_str(), &texts(workspaces)]).await?;
    let mut paths: HashMap<WorkspaceId, Vec<WorkspaceId>> = HashMap::new();
    for row in &rows {
        let mut columns = Columns::of(row);
        let start = columns.name(WorkspaceId::parse)?;
        paths.entry(start).or_default().push(columns.name(WorkspaceId::parse)?);
    }
    Ok(paths.into_iter().map(|(start, path)| (start, path.into())).collect())
}

/// Some workspaces and all below them; `limit` at most.
pub(super) async fn subtrees(
    on: &Lease,
    namespace: &Namespace,
    roots: &[WorkspaceId],
    limit: usize,
) -> Result<Vec<WorkspaceId>, Failure> {
    let parameters: [&(dyn ToSql + Sync); 3] =
        [&namespace.as_str(), &texts(roots), &at_most(limit)];
    let rows = on.rows(SUBTREES, &parameters).await?;
    rows.iter().map(|row| Columns::of(row).name(WorkspaceId::parse)).collect()
}

fn texts(ids: &[WorkspaceId]) -> Vec<&str> {
    ids.iter().map(WorkspaceId::as_str).collect()
}

/// A workspace and its ancestors.
async fn ancestors(
    tx: &Transaction,
    namespace: &Namespace,
    id: &WorkspaceId,
) -> Result<Vec<WorkspaceId>, Failure> {
    let rows = tx.rows(ANCESTORS, &[&namespace.as_str(), &id.as_str()]).await?;
    rows.iter().map(|row| Columns::of(row).name(WorkspaceId::parse)).collect()
}
