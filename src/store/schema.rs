//! Migrations, and what a server asks of the database before it works with it.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use refinery::{Migration, Runner};
use tokio_postgres::Row;

use super::{
    Connection, Failure, Store,
    role::{self, Rights, RoleState},
};

mod embedded {
    //! `migrations/`, compiled in.
    #![allow(missing_docs)]
    refinery::embed_migrations!("migrations");
}

/// Where refinery notes what it has applied.
const HISTORY: &str = "approval_authority.schema_history";

/// How often it is tried to migrate, beside once for each migration: another replica may be migrating too, and one of the
/// two then fails on the history's primary key.
const ATTEMPTS: usize = 5;

const SERVER: &str = "-- check_server(): whether the server keeps what it acknowledges
SELECT current_setting('fsync'), current_setting('synchronous_commit'),
    current_setting('server_version_num')::integer, pg_is_in_recovery()";

const HAS_SCHEMA: &str = "-- has_schema(): whoever may use it
SELECT count(*) > 0 FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'approval_authority' AND c.relname = 'schema_compatibility'";

const COMPATIBILITY: &str = "-- compatibility(): what each migration asks of servers
SELECT c.migration, c.oldest_server FROM approval_authority.schema_compatibility AS c";

const APPLIED: &str = "-- applied(): migrations that the database has, named as their files are
SELECT h.version, format('V%s__%s', h.version, h.name) FROM approval_authority.schema_history AS h";

const SERVERS: &str = "-- sessions_of_servers(): in this database, but for one's own
SELECT format('%s as %s, pid %s', a.application_name, a.usename, a.pid)
FROM pg_catalog.pg_stat_activity AS a
JOIN pg_catalog.pg_roles AS r ON r.oid = a.usesysid
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
    AND (a.application_name = 'approval-authority' OR NOT r.rolsuper AND r.rolname <> current_user
        AND pg_has_role(r.oid, to_regrole('approval_authority_service'), 'MEMBER'))
ORDER BY a.pid";

/// The oldest PostgreSQL that is supported, as `server_version_num` has it.
const OLDEST_POSTGRES: i32 = 150_000;

/// What the schema is to this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaStatus {
    /// It can be used.
    Fits,
    /// Migrations up to this number are needed and not applied.
    TooOld(i32),
    /// A migration asks for a newer server than this one.
    NeedsNewerServer(String),
    /// The session's role, which is named, has not been granted what the service does.
    NotGranted(String),
}

/// A migration and what has become of it.
#[derive(Clone, Debug)]
pub struct MigrationStatus {
    /// As its file is named: `V1__ledger`.
    pub name: String,
    /// Whether the database has it.
    pub state: MigrationState,
}

/// What has become of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationState {
    /// The database has it.
    Applied,
    /// The database lacks it.
    Missing,
    /// The database has it, and this release does not: a newer one has been here.
    Newer,
}

/// Refuses a server that is too old, is a standby, or loses what it has acknowledged. Asked on every new
/// connection, since a failover can lead to a server that is set up otherwise.
pub(super) async fn check_server(connection: &Connection) -> Result<(), Failure> {
    let row = connection.query_one(SERVER, &[]).await?;
    let (version, is_standby): (i32, bool) = (row.get(2), row.get(3));
    if version < OLDEST_POSTGRES {
        return refuse(format!("PostgreSQL 15 or newer is needed; this is {version}"));
    }
    check_durability(row.get(0), row.get(1))?;
    if is_standby {
        return refuse("the server is a standby".to_owned());
    }
    Ok(())
}

/// Refuses settings under which an acknowledged change can be lost. They can be altered while we run.
pub(super) fn check_durability(fsync: &str, synchronous_commit: &str) -> Result<(), Failure> {
    if fsync != "on" {
        return refuse(format!("fsync is {fsync}; approvals could be used twice after a crash"));
    }
    match synchronous_commit {
        "on" | "remote_apply" => Ok(()),
        weaker => refuse(format!("synchronous_commit is {weaker}; it must be on or remote_apply")),
    }
}

fn refuse(why: String) -> Result<(), Failure> {
    tracing::error!(%why, "the database server is refused");
    Err(Failure::Unavailable(why))
}

impl Store {
    /// Whether this server can run on the schema as it is.
    pub async fn schema_status(&self) -> Result<SchemaStatus, Failure> {
        let needed = last_migration();
        let lease = self.connection().await?;
        if !lease.patiently(lease.query_one(HAS_SCHEMA, &[])).await?.try_get(0)? {
            return Ok(SchemaStatus::TooOld(needed));
        }
        if let Rights::TooFew(name) = role::rights(&lease).await? {
            return Ok(SchemaStatus::NotGranted(name));
        }
        let rows = lease.patiently(lease.query(COMPATIBILITY, &[])).await?;
        if let Some(newer) = newer_server(&rows)? {
            return Ok(SchemaStatus::NeedsNewerServer(newer));
        }
        let mut newest = 0;
        for row in &rows {
            newest = newest.max(row.try_get(0)?);
        }
        Ok(if newest < needed { SchemaStatus::TooOld(needed) } else { SchemaStatus::Fits })
    }

    /// The server that the schema asks for, if this one is older. For the schema's owner.
    pub async fn needs_newer_server(&self) -> Result<Option<String>, Failure> {
        let client = self.unpooled().await?;
        if !has_schema(&client).await? {
            return Ok(None);
        }
        newer_server(&client.query(COMPATIBILITY, &[]).await?)
    }

    /// Applies the migrations that are missing; returns their names. A schema that a newer release has migrated is left as it
    /// is: it has all of ours, and what the service may do on it is for that release to say.
    pub async fn migrate(&self) -> Result<Vec<String>, Failure> {
        let mut applied = Vec::new();
        // Of two that migrate at once, one may lose to the other at each of them.
        let most = runner().get_migrations().len() + ATTEMPTS;
        for attempt in 1.. {
            match self.try_migrate().await {
                Ok(names) => {
                    applied.extend(names);
                    break;
                }
                Err(failure @ (Failure::Unavailable(_) | Failure::Denied(_))) => {
                    return Err(failure);
                }
                Err(failure) if attempt < most => {
                    tracing::info!(%failure, "migrating again");
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(applied)
    }

    /// Sessions in this database that are a server's, whoever began them: by their name, or by what their login may.
    pub async fn sessions_of_servers(&self) -> Result<Vec<String>, Failure> {
        let rows = self.unpooled().await?.query(SERVERS, &[]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Whether the service's role is there, and has what it is to have and no more. For the schema's owner.
    pub async fn role_state(&self) -> Result<RoleState, Failure> {
        let client = self.unpooled().await?;
        if !role::exists(&client).await? {
            return Ok(RoleState::Missing);
        }
        let migrations = self.migrations().await?;
        let any = |state| migrations.iter().any(|migration| migration.state == state);
        if any(MigrationState::Newer) {
            return Ok(RoleState::OfNewerRelease);
        }
        if any(MigrationState::Missing) {
            return Ok(RoleState::Differs(vec!["the schema lacks migrations".to_owned()]));
        }
        role::state(&client).await
    }

    /// Every migration that this server knows, and whether it is applied; then those that it does not know.
    pub async fn migrations(&self) -> Result<Vec<MigrationStatus>, Failure> {
        migrations(&self.unpooled().await?).await
    }

    async fn try_migrate(&self) -> Result<Vec<String>, Failure> {
        let mut client = self.unpooled().await?;
        let there = migrations(&client).await?;
        let any = |state| there.iter().any(|migration| migration.state == state);
        if any(MigrationState::Newer) && !any(MigrationState::Missing) {
            return Ok(Vec::new());
        }
        // A migration that waits for a lock has everybody wait behind it: better it gives up and tries again.
        client.batch_execute("SET lock_timeout = '2s'").await?;
        // Before anything is changed: no schema is left without it.
        role::ensure(&client).await?;
        client.batch_execute("CREATE SCHEMA IF NOT EXISTS approval_authority").await?;
        let report = runner().run_async(&mut client).await.map_err(fault)?;
        role::grant(&client).await?;
        Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
    }

    /// A connection of its own, without the timeouts of the service: a migration may take long.
    async fn unpooled(&self) -> Result<tokio_postgres::Client, Failure> {
        let (client, mut messages) = self.connector.connect_unchecked().await?;
        tokio::spawn(async move { while let Some(Ok(_)) = messages.next().await {} });
        Ok(client)
    }
}

async fn has_schema(client: &tokio_postgres::Client) -> Result<bool, Failure> {
    Ok(client.query_one(HAS_SCHEMA, &[]).await?.try_get(0)?)
}

async fn migrations(client: &tokio_postgres::Client) -> Result<Vec<MigrationStatus>, Failure> {
    let rows =
        if has_schema(client).await? { client.query(APPLIED, &[]).await? } else { Vec::new() };
    let mut applied: BTreeMap<i32, String> = BTreeMap::new();
    for row in rows {
        applied.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let status = |name: String, state| MigrationStatus { name, state };
    let mut all = Vec::new();
    // They come in the order of their files' names, in which V10 is before V2.
    let mut ours = runner().get_migrations().clone();
    ours.sort_by_key(Migration::version);
    for known in &ours {
        let state = match applied.remove(&known.version()) {
            Some(_) => MigrationState::Applied,
            None => MigrationState::Missing,
        };
        all.push(status(known.to_string(), state));
    }
    all.extend(applied.into_values().map(|name| status(name, MigrationState::Newer)));
    Ok(all)
}

fn runner() -> Runner {
    let mut runner = embedded::migrations::runner();
    runner.set_migration_table_name(HISTORY);
    runner
}

fn last_migration() -> i32 {
    let versions = runner().get_migrations().iter().map(Migration::version).max();
    versions.unwrap_or(0)
}

fn fault(error: refinery::Error) -> Failure {
    Failure::Fault(error.to_string())
}

/// The server that one of these rows of [`COMPATIBILITY`] asks for, if this one is older.
fn newer_server(rows: &[Row]) -> Result<Option<String>, Failure> {
    let own = version(env!("CARGO_PKG_VERSION"))?;
    for row in rows {
        let oldest_server: &str = row.try_get(1)?;
        if version(oldest_server)? > own {
            return Ok(Some(oldest_server.to_owned()));
        }
    }
    Ok(None)
}

fn version(text: &str) -> Result<(u64, u64, u64), Failure> {
    let numbers: Vec<u64> = text.split('.').filter_map(|n| n.parse().ok()).collect();
    match numbers[..] {
        [major, minor, patch] => Ok((major, minor, patch)),
        _ => Err(Failure::corrupt(format!("version {text}"))),
    }
}
