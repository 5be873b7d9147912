//! A schema that becomes newer than the servers on it.

use std::{path::Path, time::Duration};

use refinery::{Migration, Runner};

use super::{
    load::Load,
    restarts::{start_again, stop},
};
use crate::{
    database::{Database, connect},
    processes::refuses,
    server::{Process, program, write_deployment},
};

/// What a release to come would bring: it only adds, and says that the servers of this one may go on.
const EXPAND: &str = "
ALTER TABLE approval_authority.approvals ADD COLUMN ticket text;
ALTER TABLE approval_authority.events ADD COLUMN ticket text;
CREATE TABLE approval_authority.tickets (name text PRIMARY KEY, opened timestamptz NOT NULL DEFAULT now());
CREATE INDEX approvals_by_ticket ON approval_authority.approvals (namespace, ticket);
INSERT INTO approval_authority.schema_compatibility (migration, oldest_server) VALUES (99, '0.1.0');
";

/// `migrate`, as that release would.
async fn expand(owner_url: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut migrations = refinery::load_sql_migrations(folder).expect("ours");
    migrations.push(Migration::unapplied("V99__tickets", EXPAND).expect("a migration"));
    let mut runner = Runner::new(&migrations);
    runner.set_migration_table_name("approval_authority.schema_history");
    let mut client = connect(owner_url).await;
    let report = runner.run_async(&mut client).await.expect("migrated");
    let applied = report.applied_migrations().iter().map(|migration| migration.version());
    assert_eq!(applied.collect::<Vec<_>>(), [99]);
}

/// `migrate` of this release.
async fn migrate(owner_url: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = write_deployment(folder.path(), owner_url, "");
    let migrated = program().arg("migrate").arg("--config").arg(config).output().await;
    let migrated = migrated.expect("the program");
    assert!(migrated.status.success(), "{migrated:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_goes_on_and_starts_again_while_the_schema_becomes_newer() {
    let database = Database::new().await;
    let mut servers = vec![Process::serve(&database.url).await];
    let load = Load::start(&[servers[0].address], |gate| gate.wait(Duration::from_secs(2))).await;
    load.goes_on().await;
    migrate(&database.owner_url).await;
    load.goes_on().await;
    expand(&database.owner_url).await;
    load.goes_on().await;
    stop(&mut servers[0]).await;
    start_again(&mut servers[0], &database.url).await;
    load.goes_on().await;
    assert_eq!(load.faults(), [""; 0]);
    load.end(servers, &database.owner_url).await;

    let contract = "UPDATE approval_authority.schema_compatibility SET oldest_server = '99.0.0' WHERE migration = 99";
    database.connect().await.batch_execute(contract).await.expect("updated");
    let folder = tempfile::tempdir().expect("a folder");
    write_deployment(folder.path(), &database.url, "");
    assert!(refuses(folder.path()).await.contains("99.0.0"), "it is too old for the schema now");
}
