//! What the service's login may do in the database, and what somebody who has stolen its password may not.

use approval_authority::{
    embedded::{Cluster, Keep},
    store::{
        Failure,
        role::{ROLE, Rights},
        schema::SchemaStatus,
    },
};
use tokio_postgres::{Client, error::SqlState};

use crate::{
    database::{Database, cluster_folder, connect, installation, store},
    harness::{TestServer, id},
};

/// Each of what it must not do, with rows there to do it to.
const FORBIDDEN: &[&str] = &[
    "CREATE TABLE approval_authority.another (n integer)",
    "CREATE TABLE public.another (n integer)",
    "CREATE FUNCTION approval_authority.another() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION approval_authority.clock() RETURNS timestamptz LANGUAGE sql AS 'SELECT clock_timestamp()'",
    "ALTER TABLE approval_authority.approvals DROP CONSTRAINT approvals_somebody_is_asked",
    "ALTER TABLE approval_authority.events DISABLE TRIGGER ALL",
    "DROP INDEX approval_authority.approvals_one_open_per_operation",
    "DROP SCHEMA approval_authority CASCADE",
    "TRUNCATE approval_authority.events",
    "TRUNCATE approval_authority.approvals CASCADE",
    "TRUNCATE approval_authority.verdicts",
    "TRUNCATE approval_authority.workspaces",
    "TRUNCATE approval_authority.logs CASCADE",
    "UPDATE approval_authority.events SET actor = 'tokens:nobody'",
    "UPDATE approval_authority.events SET revision = revision + 1",
    "DELETE FROM approval_authority.events",
    "DELETE FROM approval_authority.approvals",
    "DELETE FROM approval_authority.verdicts",
    "DELETE FROM approval_authority.logs",
    "DELETE FROM approval_authority.log_locks",
    "UPDATE approval_authority.log_locks SET namespace = 'another'",
    "UPDATE approval_authority.logs SET epoch = gen_random_uuid()",
    "UPDATE approval_authority.logs SET floor_revision = 1000",
    "UPDATE approval_authority.approvals SET context = '{}'",
    "UPDATE approval_authority.approvals SET request_hash = sha256('')",
    "UPDATE approval_authority.approvals SET requested_by = 'tokens:nobody'",
    "UPDATE approval_authority.approvals SET on_behalf_of = 'nobody'",
    "UPDATE approval_authority.approvals SET workspace_id = 'another'",
    "UPDATE approval_authority.approvals SET approvals_required = 1",
    "UPDATE approval_authority.verdicts SET approver = 'tokens:nobody'",
    "UPDATE approval_authority.workspaces SET namespace = 'another'",
    "INSERT INTO approval_authority.schema_compatibility (migration, oldest_server) VALUES (99, '0.1.0')",
    "SELECT version FROM approval_authority.schema_history",
    "SELECT approval_authority.cut_log('default', 86399999, 1000)",
    "SELECT approval_authority.clear_approvals('default', 3600000, gen_random_uuid(), 1000)",
    "SELECT approval_authority.tag(gen_random_uuid())",
    "SET session_replication_role = replica",
    "SET ROLE authority",
    "COPY approval_authority.events TO PROGRAM 'cat'",
];

/// Everything that the role has been granted, as the database has understood `migrations/grants.sql`.
const GRANTED: &str = "
    approvals INSERT; approvals SELECT; approvals.consume_time UPDATE; approvals.consumed_by UPDATE;
    approvals.consumed_key UPDATE; approvals.cooldown_end UPDATE; approvals.decide_time UPDATE;
    approvals.escalate_time UPDATE; approvals.escalated_to UPDATE; approvals.expire_time UPDATE;
    approvals.result UPDATE; approvals.state UPDATE; approvals.version UPDATE; clear_approvals() EXECUTE;
    clock() EXECUTE; cut_log() EXECUTE; events INSERT; events SELECT; log_locks INSERT; log_locks SELECT;
    log_locks.lockable UPDATE; logs INSERT; logs SELECT; schema USAGE; schema_compatibility SELECT; verdicts INSERT;
    verdicts SELECT; verdicts.decision UPDATE; verdicts.reason UPDATE; verdicts.verdict_time UPDATE;
    workspaces DELETE; workspaces INSERT; workspaces SELECT; workspaces.display_name UPDATE;
    workspaces.parent_id UPDATE";

/// What somebody other than the owner has been granted, by whom it was granted to.
const GRANTS: &str = "
SELECT g.grantee::regrole::text, string_agg(g.line, '; ' ORDER BY g.line COLLATE \"C\") FROM (
    SELECT a.grantee, 'schema ' || a.privilege_type AS line, n.nspowner AS owner
    FROM pg_namespace AS n CROSS JOIN aclexplode(n.nspacl) AS a WHERE n.nspname = 'approval_authority'
    UNION ALL SELECT a.grantee, c.relname || ' ' || a.privilege_type, c.relowner
    FROM pg_class AS c CROSS JOIN aclexplode(c.relacl) AS a WHERE c.relnamespace = 'approval_authority'::regnamespace
    UNION ALL SELECT a.grantee, c.relname || '.' || t.attname || ' ' || a.privilege_type, c.relowner
    FROM pg_class AS c JOIN pg_attribute AS t ON t.attrelid = c.oid CROSS JOIN aclexplode(t.attacl) AS a
    WHERE c.relnamespace = 'approval_authority'::regnamespace
    UNION ALL SELECT a.grantee, p.proname || '() ' || a.privilege_type, p.proowner
    FROM pg_proc AS p CROSS JOIN aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
    WHERE p.pronamespace = 'approval_authority'::regnamespace
) AS g WHERE g.grantee <> g.owner GROUP BY g.grantee";

async fn one_approved() -> (Database, Client) {
    let (database, server) = TestServer::new().await;
    let held = server.caller("backend").await.require("w1", "delete_workspace").await;
    server.caller("alice").await.approve(&id(&held)).await;
    server.caller("admin").await.put_workspace("w1", "").await.expect("put");
    let thief = connect(&database.url).await;
    (database, thief)
}

#[tokio::test]
async fn what_happened_cannot_be_rewritten_with_the_services_password() {
    let (_database, thief) = one_approved().await;
    for statement in FORBIDDEN {
        let error = thief.batch_execute(statement).await.expect_err(statement);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}: {error:?}");
    }
    let lock = "UPDATE approval_authority.log_locks SET lockable = false";
    let error = thief.batch_execute(lock).await.expect_err("says nothing");
    assert_eq!(error.code(), Some(&SqlState::CHECK_VIOLATION));
}

#[tokio::test]
async fn the_role_has_what_the_file_of_grants_says_and_nobody_else_has_anything() {
    let database = Database::new().await;
    let rows = database.connect().await.query(GRANTS, &[]).await.expect("grants");
    let granted: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let expected = GRANTED.split_whitespace().collect::<Vec<&str>>().join(" ");
    assert_eq!(granted, [(ROLE.to_owned(), expected)]);
}

/// Whoever calls a function that runs as its owner must not choose what the names in it mean.
#[tokio::test]
async fn functions_that_run_as_their_owner_have_a_search_path_of_their_own() {
    let database = Database::new().await;
    let query = "SELECT count(*) FROM pg_proc AS p WHERE p.pronamespace = 'approval_authority'::regnamespace
        AND p.prosecdef AND p.proconfig IS DISTINCT FROM ARRAY['search_path=pg_catalog, pg_temp']";
    assert_eq!(database.count(query).await, 0);
    assert_eq!(database.count(&query.replace("IS DISTINCT FROM", "=")).await, 2);
}

#[tokio::test]
async fn a_login_with_too_few_rights_is_refused_and_one_with_too_many_is_noticed() {
    let database = Database::new().await;
    assert_eq!(database.store().rights().await.expect("asked"), Rights::Fit);
    let owner = Rights::TooMany("authority".to_owned());
    assert_eq!(database.owners_store().rights().await.expect("asked"), owner);
    let create = "CREATE ROLE stranger LOGIN";
    database.connect().await.batch_execute(create).await.expect("a login");
    let stranger = store(&database.url.replace("user=service", "user=stranger"));
    let status = stranger.schema_status().await.expect("a status");
    assert_eq!(status, SchemaStatus::NotGranted("stranger".to_owned()));
}

/// Of a database that belongs to somebody who may not make roles.
#[tokio::test]
async fn migrate_makes_the_role_or_says_what_to_run() {
    let folder = cluster_folder();
    let cluster = Cluster::start(&installation(), &folder, &[], Keep::Nothing).await;
    let cluster = cluster.expect("a cluster");
    let administrator = connect(&cluster.url("postgres")).await;
    let prepare = "CREATE ROLE owner LOGIN";
    administrator.batch_execute(prepare).await.expect("a login");
    administrator.batch_execute("CREATE DATABASE approvals OWNER owner").await.expect("a database");
    let owner = store(&cluster.url_as("owner", "approvals"));
    let Err(Failure::Fault(why)) = owner.migrate().await else { panic!("may not make roles") };
    assert!(why.contains("CREATE ROLE approval_authority_service NOLOGIN"), "{why}");
    assert!(!owner.has_role().await.expect("asked"));
    let create = "CREATE ROLE approval_authority_service NOLOGIN";
    administrator.batch_execute(create).await.expect("made");
    owner.migrate().await.expect("migrated");
    cluster.add_login("service", ROLE).await.expect("a login");
    assert_eq!(
        store(&cluster.url_as("service", "approvals")).rights().await.expect("asked"),
        Rights::Fit
    );
}
