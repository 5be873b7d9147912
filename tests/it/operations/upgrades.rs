//! A schema that becomes newer than the servers on it.

use std::{path::Path, time::Duration};

use approval_authority::proto::ApprovalState;
use refinery::{Migration, Runner};

use super::{
    load::Load,
    restarts::{start_again, stop},
};
use crate::{
    cli::{Ran, run},
    database::{Database, connect},
    harness::id,
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
async fn migrate(owner_url: &str, flags: &[&str]) -> Ran {
    let folder = tempfile::tempdir().expect("a folder");
    let config = write_deployment(folder.path(), owner_url, "");
    let mut command = program();
    command.arg("migrate").arg("--config").arg(config).args(flags);
    run(command).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_goes_on_and_starts_again_while_the_schema_becomes_newer() {
    let database = Database::new().await;
    let mut servers = vec![Process::serve(&database.url).await];
    let load = Load::start(&[servers[0].address], |gate| gate.wait(Duration::from_secs(2))).await;
    load.goes_on().await;
    let migrated = migrate(&database.owner_url, &[]).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
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

/// All that `migrate` could change.
const SCHEMA: &str = "SELECT string_agg(o.line, E'\\n' ORDER BY o.line) FROM (
    SELECT format('%s %s', c.relname, c.relacl) FROM pg_class AS c
    WHERE c.relnamespace = 'approval_authority'::regnamespace
    UNION ALL SELECT format('migration %s', h.version) FROM approval_authority.schema_history AS h
    UNION ALL SELECT format('epoch %s', l.epoch) FROM approval_authority.logs AS l
) AS o (line)";

/// A release is taken back, with all that its deployment runs before it serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_release_changes_nothing_about_a_newer_schema_and_works_on_it_if_it_may() {
    let database = Database::new().await;
    expand(&database.owner_url).await;
    let owner = database.connect().await;
    let used = "GRANT SELECT, INSERT ON approval_authority.tickets TO approval_authority_service";
    owner.batch_execute(used).await.expect("granted");
    let schema = async || -> String { owner.query_one(SCHEMA, &[]).await.expect("it").get(0) };

    let itself = [("DATABASE__MIGRATE_ON_START", "true")];
    let server = Process::with_settings(&database.owner_url, &itself).await;
    let held = id(&server.caller("backend").await.require("w1", "delete_workspace").await);
    let before = schema().await;
    for flags in [&[][..], &["--status"]] {
        let ran = migrate(&database.owner_url, flags).await;
        assert_eq!(ran.code, Some(0), "{flags:?}: {ran:?}");
        for line in ["applied  V1__ledger\n", "newer    V99__tickets\n", "newer    role"] {
            assert!(ran.out.contains(line), "{flags:?}: {ran:?}");
        }
        assert_eq!(schema().await, before, "{flags:?}");
    }

    let contract = "UPDATE approval_authority.schema_compatibility SET oldest_server = '99.0.0' WHERE migration = 99";
    owner.batch_execute(contract).await.expect("updated");
    let why = "the schema needs a server of version 99.0.0 or newer";
    for (flags, code) in [(&[][..], 1), (&["--new-history"], 1), (&["--status"], 1)] {
        let ran = migrate(&database.owner_url, flags).await;
        assert_eq!(ran.code, Some(code), "{flags:?}: {ran:?}");
        assert!(format!("{}{}", ran.out, ran.err).contains(why), "{flags:?}: {ran:?}");
        assert_eq!(schema().await, before, "{flags:?}");
    }
    let alice = server.caller("alice").await;
    assert_eq!(alice.get(&held).await.expect("it").state(), ApprovalState::Pending);
}
