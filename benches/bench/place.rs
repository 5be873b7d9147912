//! Where the operations of one measurement are: namespaces of its own, with workspaces that have a parent.

use std::sync::Arc;

use super::Bench;

/// Workspaces of a namespace; no more than a hundred operations may be pending in each.
const WORKSPACES: usize = 4_000;

/// Namespaces of one measurement. Cheap to clone.
#[derive(Clone)]
pub struct Place {
    namespaces: Arc<[String]>,
    /// Of each namespace.
    workspaces: usize,
    /// The number of its first operation.
    first: usize,
}

/// What somebody asks about.
pub struct Operation {
    pub namespace: String,
    pub workspace: String,
    /// Canonical JSON.
    pub context: String,
    pub number: usize,
}

impl Place {
    /// Makes so many namespaces, named after what is measured there.
    pub async fn new(bench: &Bench, what: &str, callers: usize, namespaces: usize) -> Self {
        let name = what.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let name = |number: usize| format!("{name}-{callers}-{number}");
        let namespaces: Arc<[String]> = (0..namespaces).map(name).collect();
        let workspaces = WORKSPACES / namespaces.len();
        Self::begin(bench, &namespaces, workspaces).await;
        Self { namespaces, workspaces, first: 0 }
    }

    /// A part of a namespace that is there: the operations from a number on.
    pub fn within(namespace: &str, workspaces: usize, first: usize) -> Self {
        Self { namespaces: [namespace.to_owned()].into(), workspaces, first }
    }

    /// Makes namespaces with so many workspaces each.
    pub async fn begin(bench: &Bench, namespaces: &[String], workspaces: usize) {
        let fill = "WITH log AS (
                INSERT INTO approval_authority.logs (namespace, epoch)
                SELECT n, gen_random_uuid() FROM unnest($1::text[]) AS n
            ), lock AS (
                INSERT INTO approval_authority.log_locks (namespace) SELECT n FROM unnest($1::text[]) AS n
            ), root AS (
                INSERT INTO approval_authority.workspaces (namespace, id, display_name)
                SELECT n, 'root', '' FROM unnest($1::text[]) AS n
            )
            INSERT INTO approval_authority.workspaces (namespace, id, parent_id, display_name)
            SELECT n, 'w' || w, 'root', '' FROM unnest($1::text[]) AS n CROSS JOIN generate_series(0, $2::int - 1) AS w";
        let workspaces = i32::try_from(workspaces).expect("fits");
        let client = bench.connect().await;
        client.execute(fill, &[&namespaces, &workspaces]).await.expect("filled");
    }

    /// Another for each number.
    pub fn operation(&self, number: usize) -> Operation {
        let namespaces = self.namespaces.len();
        let workspace = (number / namespaces) % self.workspaces;
        let n = self.first + number;
        Operation {
            namespace: self.namespaces[number % namespaces].clone(),
            workspace: format!("w{workspace}"),
            context: format!("{{\"n\":{n}}}"),
            number: n,
        }
    }

    /// Its only namespace.
    pub fn namespace(&self) -> &str {
        &self.namespaces[0]
    }
}
