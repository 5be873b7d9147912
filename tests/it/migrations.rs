//! The schema: up, down, up; and that it explains and defends itself.

use std::{fs, path::Path};

use approval_authority::{
    embedded::{Cluster, Keep},
    store::{
        Failure,
        schema::{MigrationState, SchemaStatus},
    },
};

use crate::{
    database::{Database, cluster_folder, connect, deploy, installation, store},
    harness::{TestServer, id, request},
};

/// Everything that makes up the schema, as text that can be compared.
const SHAPE: &str = "
SELECT coalesce(string_agg(line, E'\\n' ORDER BY line), '') FROM (
    SELECT format('column %s.%s %s %s %s', table_name, column_name, data_type, is_nullable, column_default)
    FROM information_schema.columns WHERE table_schema = 'approval_authority'
    UNION ALL SELECT format('constraint %s %s', conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE connamespace = to_regnamespace('approval_authority')
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'approval_authority'
    UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc
    WHERE pronamespace = to_regnamespace('approval_authority')
    UNION ALL SELECT format('options %s %s', relname, reloptions) FROM pg_class
    WHERE relnamespace = to_regnamespace('approval_authority') AND reloptions IS NOT NULL
) AS shape (line)
WHERE line NOT LIKE '%schema_history%'";

async fn shape(database: &Database) -> String {
    database.connect().await.query_one(SHAPE, &[]).await.expect("a shape").get(0)
}

/// The reversals, newest first.
fn reversals() -> Vec<(u32, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/revert");
    let mut files: Vec<(u32, String)> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            let number = name.split("__").next().and_then(|n| n.parse().ok()).expect("a number");
            (number, fs::read_to_string(&path).expect("SQL"))
        })
        .collect();
    files.sort();
    files.reverse();
    files
}

#[tokio::test]
async fn up_down_up() {
    let database = Database::new().await;
    let up = shape(&database).await;
    assert!(up.contains("approvals_one_open_per_operation"));
    let store = database.owners_store();
    let known = store.migrations().await.expect("the history");
    assert_eq!(known.len(), reversals().len(), "each has its reversal");

    let client = database.connect().await;
    for (number, sql) in reversals() {
        client.batch_execute(&sql).await.expect("reverted");
        let left = store.migrations().await.expect("the history");
        let applied: Vec<bool> =
            left.iter().map(|migration| migration.state == MigrationState::Applied).collect();
        let expected: Vec<bool> = (1..=known.len() as u32).map(|n| n < number).collect();
        assert_eq!(applied, expected, "after taking back {number}");
    }
    assert_eq!(shape(&database).await, "", "nothing is left");
    let status = store.schema_status().await.expect("a status");
    assert_eq!(status, SchemaStatus::TooOld(known.len() as i32));

    assert_eq!(store.migrate().await.expect("migrated").len(), known.len());
    assert_eq!(shape(&database).await, up);
    assert_eq!(store.schema_status().await.expect("a status"), SchemaStatus::Fits);
}

#[tokio::test]
async fn two_that_migrate_at_once_both_succeed() {
    let database = Database::new().await;
    let client = database.connect().await;
    for (_, sql) in reversals() {
        client.batch_execute(&sql).await.expect("reverted");
    }
    let (one, two) = (store(&database.owner_url), store(&database.owner_url));
    let (first, second) = tokio::join!(one.migrate(), two.migrate());
    first.expect("migrated");
    second.expect("migrated");
    assert_eq!(one.schema_status().await.expect("a status"), SchemaStatus::Fits);
}

#[tokio::test]
async fn a_schema_that_asks_for_a_newer_server_is_refused() {
    let database = Database::new().await;
    let newer = "INSERT INTO approval_authority.schema_compatibility VALUES (99, '99.0.0')";
    let client = database.connect().await;
    client.batch_execute(newer).await.expect("inserted");
    let status = database.store().schema_status().await.expect("a status");
    assert_eq!(status, SchemaStatus::NeedsNewerServer("99.0.0".to_owned()));
    let as_new = "UPDATE approval_authority.schema_compatibility SET oldest_server = '0.1.0'";
    client.batch_execute(as_new).await.expect("updated");
    let status = database.store().schema_status().await.expect("a status");
    assert_eq!(status, SchemaStatus::Fits, "an old server goes on with a newer schema");
}

#[tokio::test]
async fn every_table_and_column_is_explained_and_every_check_has_a_name() {
    let database = Database::new().await;
    let silent = "SELECT count(*) FROM pg_class AS c
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum >= 0 OR a.attnum IS NULL
        WHERE c.relnamespace = 'approval_authority'::regnamespace AND c.relkind = 'r'
            AND c.relname <> 'schema_history' AND NOT a.attisdropped
            AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL)";
    assert_eq!(database.count(silent).await, 0);
    let unnamed = "SELECT count(*) FROM pg_constraint
        WHERE connamespace = 'approval_authority'::regnamespace AND contype = 'c'
            AND conname ~ '_check[0-9]*$'";
    assert_eq!(database.count(unnamed).await, 0);
}

#[tokio::test]
async fn the_schema_refuses_what_no_transition_leads_to() {
    let (database, server) = TestServer::new().await;
    let held = server.caller("backend").await.require("w1", "delete_workspace").await;
    let client = database.connect().await;
    for (set, constraint) in [
        ("state = 'CONSUMED'", "approvals_consumed_says_by_whom"),
        ("state = 'APPROVED'", "approvals_decided_has_its_time"),
        ("decide_time = create_time", "approvals_pending_is_undecided"),
        ("approvals_required = 0", "approvals_somebody_is_asked"),
        ("result = 'SUCCEEDED'", "approvals_result_is_of_a_consumption"),
        ("consumed_key = 'k'", "approvals_key_is_of_a_consumption"),
        ("state = 'GRANTED'", "approvals_state_is_known"),
    ] {
        let update =
            format!("UPDATE approval_authority.approvals SET {set} WHERE id = $1::text::uuid");
        let refused = client.execute(&update, &[&id(&held)]).await.expect_err(set);
        let refused = refused.as_db_error().and_then(|db| db.constraint()).map(str::to_owned);
        // Where several are broken, PostgreSQL names the first by name.
        assert_eq!(refused.as_deref(), Some(constraint), "{set}");
    }
    // A second open approval for the operation, whoever writes it and however.
    let twin = "INSERT INTO approval_authority.approvals
        SELECT (jsonb_populate_record(a, jsonb_build_object('id', gen_random_uuid()))).*
        FROM approval_authority.approvals AS a";
    let refused = client.execute(twin, &[]).await.expect_err("one question");
    let refused = refused.as_db_error().and_then(|db| db.constraint()).map(str::to_owned);
    assert_eq!(refused.as_deref(), Some("approvals_one_open_per_operation"));
}

#[tokio::test]
async fn a_server_that_forgets_what_it_acknowledged_is_refused() {
    let database = Database::new().await;
    let name: String = database
        .connect()
        .await
        .query_one("SELECT current_database()", &[])
        .await
        .expect("it")
        .get(0);
    let forget = format!("ALTER DATABASE {name} SET synchronous_commit = off");
    database.connect().await.batch_execute(&forget).await.expect("altered");
    match database.store().schema_status().await {
        Err(Failure::Unavailable(why)) => assert!(why.contains("synchronous_commit"), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// The settings were read on new connections only, and a running server went on answering.
#[tokio::test]
async fn a_server_that_begins_to_forget_is_noticed_by_the_next_change() {
    let folder = cluster_folder();
    let cluster = Cluster::start(&installation(), &folder, &[], Keep::Nothing).await.expect("it");
    let server = TestServer::on(&deploy(&cluster, "approvals").await).await;
    let backend = server.caller("backend").await;
    backend.require("w1", "delete_workspace").await;
    let admin = connect(&cluster.url("postgres")).await;
    admin.batch_execute("ALTER SYSTEM SET synchronous_commit = off").await.expect("set");
    admin.batch_execute("SELECT pg_reload_conf()").await.expect("reloaded");
    // A session takes the new setting up between two statements, so the next answer may still be an old one.
    let mut refused = None;
    for number in 0..100 {
        let ask = request(&format!("x{number}"), "delete_workspace");
        refused = backend.ask(ask).await.err();
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(refused.expect("refused").code(), tonic::Code::Unavailable);
    cluster.stop();
}

/// The statistics were laid down in the namespace that deployments use, whatever was there.
#[tokio::test]
async fn a_database_in_use_is_migrated_and_keeps_what_it_has() {
    let (database, server) = TestServer::new().await;
    let held = server.caller("backend").await.require("w1", "delete_workspace").await;
    let client = database.connect().await;
    let down_to_statistics: Vec<_> =
        reversals().into_iter().take_while(|(number, _)| *number >= 3).collect();
    for (_, reversal) in &down_to_statistics {
        client.batch_execute(reversal).await.expect("reverted");
    }
    let again = database.owners_store().migrate().await.expect("migrated");
    assert_eq!(again.len(), down_to_statistics.len());
    server.caller("alice").await.approve(&id(&held)).await;
}
