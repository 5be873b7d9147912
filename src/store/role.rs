//! The role that the service works as: it can do what the service does, and no more (`migrations/grants.sql`).

use tokio_postgres::Client;

use super::{Failure, Lease, Store};

/// A role without a login, which the service's login is made a member of.
pub const ROLE: &str = "approval_authority_service";

const GRANTS: &str = include_str!("../../migrations/grants.sql");

const ROLE_EXISTS: &str = "-- role_exists()
SELECT count(*) > 0 FROM pg_catalog.pg_roles AS r WHERE r.rolname = 'approval_authority_service'";

const CREATE_ROLE: &str = "CREATE ROLE approval_authority_service NOLOGIN";

/// Columns count: the right to change a single one is too much. Of events it is too much even if the role has it.
const RIGHTS: &str = "-- rights(): of the session, on the schema; and those that the service's role has not
SELECT current_user::text, has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(e.oid, 'INSERT'), (
    SELECT string_agg(DISTINCT b.line, ', ') FROM (
        SELECT 'anything, as a superuser' WHERE current_setting('is_superuser') = 'on'
        UNION ALL
        SELECT 'CREATE in the schema' WHERE has_schema_privilege(n.oid, 'CREATE')
        UNION ALL
        SELECT p.name || ' on ' || c.relname FROM pg_catalog.pg_class AS c
        CROSS JOIN (VALUES ('DELETE'), ('TRUNCATE'), ('REFERENCES'), ('TRIGGER')) AS p (name)
        WHERE c.relnamespace = n.oid AND c.relkind = 'r' AND has_table_privilege(c.oid, p.name)
            AND (c.oid = e.oid OR has_table_privilege(r.oid, c.oid, p.name) IS NOT TRUE)
        UNION ALL
        SELECT p.name || ' on ' || c.relname FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_attribute AS t ON t.attrelid = c.oid AND t.attnum > 0 AND NOT t.attisdropped
        CROSS JOIN (VALUES ('INSERT'), ('UPDATE')) AS p (name)
        WHERE c.relnamespace = n.oid AND c.relkind = 'r' AND has_column_privilege(c.oid, t.attnum, p.name)
            AND (c.oid = e.oid AND p.name = 'UPDATE'
                OR has_column_privilege(r.oid, c.oid, t.attnum, p.name) IS NOT TRUE)
    ) AS b (line))
FROM pg_catalog.pg_namespace AS n
JOIN pg_catalog.pg_class AS e ON e.relnamespace = n.oid AND e.relname = 'events'
LEFT JOIN pg_catalog.pg_roles AS r ON r.rolname = 'approval_authority_service'
WHERE n.nspname = 'approval_authority'";

/// What the service's role and everybody may do in the schema, each with true; and with false what the role is beside
/// a holder of rights, which must be nothing.
const GRANTED: &str = "-- granted(): to the service's role, and to everybody
SELECT format('%s %s on %s%s', coalesce(r.rolname, 'PUBLIC'), a.privilege_type, o.name,
    CASE WHEN a.is_grantable THEN ', to hand on' END), true
FROM (
    SELECT 'the schema', n.nspacl FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'approval_authority'
    UNION ALL
    SELECT c.relname, c.relacl FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = 'approval_authority'::regnamespace
    UNION ALL
    SELECT c.relname || '.' || t.attname, t.attacl FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_attribute AS t ON t.attrelid = c.oid AND NOT t.attisdropped
    WHERE c.relnamespace = 'approval_authority'::regnamespace
    UNION ALL
    SELECT p.proname, coalesce(p.proacl, acldefault('f', p.proowner)) FROM pg_catalog.pg_proc AS p
    WHERE p.pronamespace = 'approval_authority'::regnamespace
) AS o (name, acl)
CROSS JOIN LATERAL aclexplode(o.acl) AS a
LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = a.grantee
WHERE a.grantee = 0 OR r.rolname = 'approval_authority_service'
UNION ALL
SELECT format('%s %s', r.rolname, w.line), false FROM pg_catalog.pg_roles AS r
CROSS JOIN LATERAL (
    SELECT f.line FROM (VALUES (r.rolsuper, 'SUPERUSER'), (r.rolcreaterole, 'CREATEROLE'),
        (r.rolcreatedb, 'CREATEDB'), (r.rolreplication, 'REPLICATION'), (r.rolbypassrls, 'BYPASSRLS')) AS f (has, line)
    WHERE f.has
    UNION ALL
    SELECT 'member of ' || g.rolname FROM pg_catalog.pg_auth_members AS m
    JOIN pg_catalog.pg_roles AS g ON g.oid = m.roleid WHERE m.member = r.oid
) AS w WHERE r.rolname = 'approval_authority_service'
ORDER BY 1";

/// What the session's role may do, beside what the service does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// That, and no more.
    Fit,
    /// That, and more.
    TooMany {
        /// The role's name.
        name: String,
        /// What more, to be read.
        beyond: String,
    },
    /// Not even that. The name is the role's.
    TooFew(String),
}

/// How the service's role stands to what it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleState {
    /// It is not there.
    Missing,
    /// It has what `migrations/grants.sql` lists, and neither it nor everybody has anything else.
    AsListed,
    /// The schema is of a newer release, and so is the list.
    OfNewerRelease,
    /// Otherwise, in these points.
    Differs(Vec<String>),
}

/// Makes the role if it is not there. Roles belong to the whole cluster: whoever loses to somebody who migrates another
/// database of it is told of a duplicate, and tries again.
pub(super) async fn ensure(client: &Client) -> Result<(), Failure> {
    if exists(client).await? {
        return Ok(());
    }
    match client.batch_execute(CREATE_ROLE).await.map_err(Failure::from) {
        Err(Failure::Denied(_)) => Err(Failure::Denied(format!(
            "this login may not create roles; have somebody who may run: {CREATE_ROLE}"
        ))),
        made => made,
    }
}

/// Grants the role what it needs; what else it had is taken away.
pub(super) async fn grant(client: &Client) -> Result<(), Failure> {
    // One flight, and so one transaction.
    Ok(client.batch_execute(GRANTS).await?)
}

/// Compares what is granted with what would be after [`grant`], which is taken back: the list stands in one place.
pub(super) async fn state(client: &Client) -> Result<RoleState, Failure> {
    client.batch_execute("BEGIN").await?;
    let before = granted(client).await?;
    grant(client).await?;
    let after = granted(client).await?;
    client.batch_execute("ROLLBACK").await?;
    let found: Vec<&String> = before.iter().map(|(line, _)| line).collect();
    let listed: Vec<&String> = after.iter().filter(|(_, may)| *may).map(|(line, _)| line).collect();
    let beyond = found.iter().filter(|line| !listed.contains(line)).map(|line| (*line).clone());
    let missing = listed.iter().filter(|line| !found.contains(line));
    let points: Vec<String> = beyond.chain(missing.map(|line| format!("not {line}"))).collect();
    Ok(if points.is_empty() { RoleState::AsListed } else { RoleState::Differs(points) })
}

async fn granted(client: &Client) -> Result<Vec<(String, bool)>, Failure> {
    let rows = client.query(GRANTED, &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

pub(super) async fn exists(client: &Client) -> Result<bool, Failure> {
    Ok(client.query_one(ROLE_EXISTS, &[]).await?.try_get(0)?)
}

/// What a session may do on a schema that is there.
pub(super) async fn rights(lease: &Lease) -> Result<Rights, Failure> {
    let row = lease.patiently(lease.query_one(RIGHTS, &[])).await?;
    let (name, enough): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
    let beyond: Option<String> = row.try_get(2)?;
    Ok(match (enough, beyond) {
        (true, None) => Rights::Fit,
        (true, Some(beyond)) => Rights::TooMany { name, beyond },
        (false, _) => Rights::TooFew(name),
    })
}

impl Store {
    /// What this store's sessions may do on a schema that is there.
    pub async fn rights(&self) -> Result<Rights, Failure> {
        rights(&self.connection().await?).await
    }
}
