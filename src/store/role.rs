//! The role that the service works as: it can do what the service does, and no more (`migrations/grants.sql`).

use tokio_postgres::error::SqlState;

use super::{Failure, Lease, Store};

/// A role without a login, which the service's login is made a member of.
pub const ROLE: &str = "approval_authority_service";

const GRANTS: &str = include_str!("../../migrations/grants.sql");

const ROLE_EXISTS: &str = "-- role_exists()
SELECT count(*) > 0 FROM pg_catalog.pg_roles AS r WHERE r.rolname = 'approval_authority_service'";

const CREATE_ROLE: &str = "CREATE ROLE approval_authority_service NOLOGIN";

/// A table's columns count: the right to change a single one is too much for events.
const RIGHTS: &str = "-- rights(): of the session, on the schema
SELECT current_user::text, has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'INSERT'),
    has_schema_privilege(n.oid, 'CREATE') OR has_table_privilege(c.oid, 'DELETE, TRUNCATE')
        OR has_any_column_privilege(c.oid, 'UPDATE')
FROM pg_catalog.pg_namespace AS n
JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = 'events'
WHERE n.nspname = 'approval_authority'";

/// What the session's role may do, beside what the service does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// That, and no more.
    Fit,
    /// That, and to rewrite what happened. The name is the role's.
    TooMany(String),
    /// Not even that. The name is the role's.
    TooFew(String),
}

/// Makes the role if it is not there, and grants it what it needs; what else it had is taken away.
pub(super) async fn grant(client: &tokio_postgres::Client) -> Result<(), Failure> {
    if !client.query_one(ROLE_EXISTS, &[]).await?.try_get(0)? {
        create(client).await?;
    }
    // One flight, and so one transaction.
    Ok(client.batch_execute(GRANTS).await?)
}

/// Roles belong to the whole cluster: somebody who migrates another database of it may be making it too.
async fn create(client: &tokio_postgres::Client) -> Result<(), Failure> {
    let Err(error) = client.batch_execute(CREATE_ROLE).await else { return Ok(()) };
    match error.code() {
        Some(&SqlState::DUPLICATE_OBJECT | &SqlState::UNIQUE_VIOLATION) => Ok(()),
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Err(Failure::Fault(format!(
            "this login may not create roles; have somebody who may run: {CREATE_ROLE}"
        ))),
        _ => Err(error.into()),
    }
}

/// What a session may do on a schema that is there.
pub(super) async fn rights(lease: &Lease) -> Result<Rights, Failure> {
    let row = lease.patiently(lease.query_one(RIGHTS, &[])).await?;
    let (name, enough, too_many): (String, bool, bool) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    Ok(match (enough, too_many) {
        (true, false) => Rights::Fit,
        (true, true) => Rights::TooMany(name),
        (false, _) => Rights::TooFew(name),
    })
}

impl Store {
    /// What this store's sessions may do on a schema that is there.
    pub async fn rights(&self) -> Result<Rights, Failure> {
        rights(&self.connection().await?).await
    }

    /// Whether the role is there, for the service's login to be made a member of.
    pub async fn has_role(&self) -> Result<bool, Failure> {
        let lease = self.connection().await?;
        Ok(lease.patiently(lease.query_one(ROLE_EXISTS, &[])).await?.try_get(0)?)
    }
}
