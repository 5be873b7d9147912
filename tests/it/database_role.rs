//! What the service's login may do in the database, and what somebody who has stolen its password may not.

use approval_authority::{
    approval::{Decision, gate::Gate},
    embedded::{Cluster, Keep},
    store::{
        Failure, Store,
        role::{ROLE, Rights, RoleState},
        schema::SchemaStatus,
    },
};
use futures_util::future::try_join_all;
use tokio_postgres::{Client, error::SqlState};
use uuid::Uuid;

use crate::{
    database::{Database, cluster_folder, connect, installation, store},
    harness::{TestServer, id},
    processes::refuses,
    server::{Process, write_deployment},
    service::{Service, call},
};

/// Each of what it must not do, with rows there to do it to.
const FORBIDDEN: &[&str] = &[
    "CREATE TABLE approval_authority.another (n integer)",
    "CREATE TABLE public.another (n integer)",
    "CREATE FUNCTION approval_authority.another() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION approval_authority.clock() RETURNS timestamptz LANGUAGE sql AS 'SELECT clock_timestamp()'",
    "ALTER TABLE approval_authority.approvals DROP CONSTRAINT approvals_somebody_is_asked",
    "ALTER TABLE approval_authority.events DISABLE TRIGGER ALL",
    "ALTER FUNCTION approval_authority.cut_log SECURITY INVOKER",
    "CREATE TRIGGER another BEFORE INSERT ON approval_authority.events
        EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE SCHEMA another",
    "DROP INDEX approval_authority.approvals_one_open_per_operation",
    "DROP SCHEMA approval_authority CASCADE",
    "TRUNCATE approval_authority.events",
    "TRUNCATE approval_authority.approvals CASCADE",
    "TRUNCATE approval_authority.verdicts",
    "TRUNCATE approval_authority.workspaces",
    "TRUNCATE approval_authority.logs CASCADE",
    "TRUNCATE approval_authority.log_locks",
    "TRUNCATE approval_authority.schema_compatibility",
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
    "INSERT INTO approval_authority.approvals (state, decide_time) VALUES ('APPROVED', clock_timestamp())",
    "INSERT INTO approval_authority.approvals (state, consumed_by) VALUES ('CONSUMED', 'tokens:nobody')",
    "INSERT INTO approval_authority.logs (namespace, floor_revision) VALUES ('another', 1000)",
    "UPDATE approval_authority.verdicts SET approver = 'tokens:nobody'",
    "UPDATE approval_authority.workspaces SET namespace = 'another'",
    "INSERT INTO approval_authority.schema_compatibility (migration, oldest_server) VALUES (99, '0.1.0')",
    "SELECT version FROM approval_authority.schema_history",
    "INSERT INTO approval_authority.schema_history (version) VALUES (99)",
    "DELETE FROM approval_authority.schema_history",
    "SELECT approval_authority.cut_log('default', 86399999, 1000)",
    "SELECT approval_authority.clear_approvals('default', 3600000, gen_random_uuid(), 1000)",
    "SELECT approval_authority.tag(gen_random_uuid())",
    "SET session_replication_role = replica",
    "SET ROLE authority",
    "ALTER ROLE approval_authority_service CREATEROLE",
    "CREATE ROLE another",
    "COPY approval_authority.events TO PROGRAM 'cat'",
];

/// Everything that the role has been granted, as the database has understood `migrations/grants.sql`.
const GRANTED: &str = "
    approvals SELECT; approvals.action INSERT; approvals.approvals_required INSERT;
    approvals.approved_ttl_ms INSERT; approvals.consume_time UPDATE; approvals.consumed_by UPDATE;
    approvals.consumed_key UPDATE; approvals.context INSERT; approvals.cooldown_end UPDATE;
    approvals.create_time INSERT; approvals.decide_time UPDATE; approvals.deny_cooldown_ms INSERT;
    approvals.escalate_after_ms INSERT; approvals.escalate_time INSERT; approvals.escalate_time UPDATE;
    approvals.escalated_to INSERT; approvals.escalated_to UPDATE; approvals.expire_time INSERT;
    approvals.expire_time UPDATE; approvals.id INSERT; approvals.namespace INSERT;
    approvals.on_behalf_of INSERT; approvals.policy_digest INSERT; approvals.reason INSERT;
    approvals.recent_denials INSERT; approvals.request_hash INSERT; approvals.requested_by INSERT;
    approvals.result UPDATE; approvals.state INSERT; approvals.state UPDATE; approvals.version INSERT;
    approvals.version UPDATE; approvals.workspace_id INSERT; clear_approvals() EXECUTE; clock() EXECUTE;
    cut_log() EXECUTE; events INSERT; events SELECT; log_locks SELECT; log_locks.lockable UPDATE;
    log_locks.namespace INSERT; logs SELECT; logs.epoch INSERT; logs.namespace INSERT; schema USAGE;
    schema_compatibility SELECT; verdicts INSERT; verdicts SELECT; verdicts.decision UPDATE;
    verdicts.reason UPDATE; verdicts.verdict_time UPDATE; workspaces DELETE; workspaces INSERT; workspaces SELECT;
    workspaces.display_name UPDATE; workspaces.parent_id UPDATE";

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
    let Ok(Rights::TooMany { name, beyond }) = database.owners_store().rights().await else {
        panic!("a superuser")
    };
    assert_eq!(name, "authority");
    for more in [
        "anything, as a superuser",
        "CREATE in the schema",
        "UPDATE on events",
        "DELETE on verdicts",
    ] {
        assert!(beyond.contains(more), "{more} in {beyond}");
    }
    let create = "CREATE ROLE stranger LOGIN";
    database.connect().await.batch_execute(create).await.expect("a login");
    let stranger = store(&database.url.replace("user=service", "user=stranger"));
    let status = stranger.schema_status().await.expect("a status");
    assert_eq!(status, SchemaStatus::NotGranted("stranger".to_owned()));
}

/// What a thief may have beyond the service is told by name, were it a single column.
#[tokio::test]
async fn each_right_that_the_service_does_not_need_is_named() {
    let database = Database::new().await;
    let owner = database.connect().await;
    for (grant, role, beyond) in [
        ("UPDATE (note) ON approval_authority.events", ROLE, "UPDATE on events"),
        ("DELETE ON approval_authority.events", ROLE, "DELETE on events"),
        ("UPDATE (context) ON approval_authority.approvals", "service", "UPDATE on approvals"),
        ("INSERT ON approval_authority.logs", "service", "INSERT on logs"),
        ("TRUNCATE ON approval_authority.verdicts", "service", "TRUNCATE on verdicts"),
        ("CREATE ON SCHEMA approval_authority", "service", "CREATE in the schema"),
    ] {
        owner.batch_execute(&format!("GRANT {grant} TO {role}")).await.expect("granted");
        let (name, beyond) = ("service".to_owned(), beyond.to_owned());
        let rights = database.store().rights().await.expect("asked");
        assert_eq!(rights, Rights::TooMany { name, beyond });
        owner.batch_execute(&format!("REVOKE {grant} FROM {role}")).await.expect("revoked");
    }
}

#[tokio::test]
async fn migrate_takes_away_what_is_not_listed_and_its_status_says_so_before() {
    let database = Database::new().await;
    let (owner, store) = (database.connect().await, database.owners_store());
    assert_eq!(store.role_state().await.expect("asked"), RoleState::AsListed);
    for (change, point) in [
        (
            "GRANT UPDATE ON approval_authority.events TO approval_authority_service",
            "approval_authority_service UPDATE on events",
        ),
        ("GRANT DELETE ON approval_authority.approvals TO PUBLIC", "PUBLIC DELETE on approvals"),
        (
            "GRANT EXECUTE ON FUNCTION approval_authority.cut_log TO PUBLIC",
            "PUBLIC EXECUTE on cut_log",
        ),
        (
            "REVOKE UPDATE (state) ON approval_authority.approvals FROM approval_authority_service",
            "not approval_authority_service UPDATE on approvals.state",
        ),
    ] {
        owner.batch_execute(change).await.expect("changed");
        let differs = RoleState::Differs(vec![point.to_owned()]);
        assert_eq!(store.role_state().await.expect("asked"), differs);
        assert_eq!(store.role_state().await.expect("asked"), differs, "asking changes nothing");
        store.migrate().await.expect("migrated");
        assert_eq!(store.role_state().await.expect("asked"), RoleState::AsListed);
    }
}

#[tokio::test]
async fn nothing_young_or_open_is_deleted_whoever_asks_and_however_often() {
    let service = Service::new().await;
    let used = service.pending().await;
    service.decide(used, Decision::Approve).await.expect("approved");
    assert!(matches!(service.ledger.require(call()).await, Ok(Gate::Approved { .. })));
    service.pending().await;
    let thief = connect(&service.database.url).await;
    let cut = async |age: &str, chunk: i32| -> Result<Option<i64>, tokio_postgres::Error> {
        let call = format!("SELECT approval_authority.cut_log('default', {age}, {chunk})");
        Ok(thief.query_one(&call, &[]).await?.get(0))
    };
    let clear = async |age: &str| -> Result<Option<Uuid>, tokio_postgres::Error> {
        let nil = Uuid::nil();
        let call =
            format!("SELECT approval_authority.clear_approvals('default', {age}, '{nil}', 1000)");
        Ok(thief.query_one(&call, &[]).await?.get(0))
    };
    let left = async || {
        let (approvals, events) = ("approval_authority.approvals", "approval_authority.events");
        let count =
            async |table| service.database.count(&format!("SELECT count(*) FROM {table}")).await;
        (count(approvals).await, count(events).await)
    };

    service.database.move_clock("23 hours").await;
    for age in ["86399999", "0", "-86400000", "-9223372036854775808"] {
        for error in [cut(age, 1000).await.expect_err(age), clear(age).await.expect_err(age)] {
            assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{age}: {error:?}");
        }
    }
    for age in ["86400000", "NULL"] {
        assert_eq!(cut(age, 1000).await.expect("answered").unwrap_or_default(), 0, "{age}");
        assert_eq!(clear(age).await.expect("answered"), None, "{age}");
    }
    assert_eq!(left().await, (2, 4));

    service.database.move_clock("25 hours").await;
    let day = "86400000";
    assert_eq!(clear(day).await.expect("answered"), None, "its events are there");
    for (chunk, deleted) in [(2, 2), (1000, 1), (1000, 0), (1000, 0)] {
        assert_eq!(cut(day, chunk).await.expect("answered"), Some(deleted));
    }
    assert_eq!(
        service.database.count("SELECT floor_revision FROM approval_authority.logs").await,
        3
    );
    assert_eq!(clear(day).await.expect("answered"), Some(used));
    assert_eq!(clear(day).await.expect("answered"), None);
    assert_eq!(left().await, (1, 1), "what is open");
}

/// By the program: what it says to an operator who has given it the wrong login.
#[tokio::test]
async fn serve_says_what_is_wrong_with_its_login() {
    let database = Database::new().await;
    let mut as_owner = Process::serve(&database.owner_url).await;
    let warned = as_owner.logs("may do what the service never does").await;
    assert!(warned.last().expect("a line").contains("anything, as a superuser"), "{warned:?}");

    let create = "CREATE ROLE newcomer LOGIN";
    database.connect().await.batch_execute(create).await.expect("a login");
    let folder = tempfile::tempdir().expect("a folder");
    write_deployment(folder.path(), &database.url.replace("user=service", "user=newcomer"), "");
    let why = refuses(folder.path()).await;
    assert!(why.contains("GRANT approval_authority_service TO newcomer"), "{why}");

    let older = "DELETE FROM approval_authority.schema_compatibility WHERE migration > 1";
    database.connect().await.batch_execute(older).await.expect("deleted");
    let config = write_deployment(folder.path(), &database.url, "");
    let text = std::fs::read_to_string(&config).expect("text");
    let migrating = text.replace("[database]", "[database]\nmigrate_on_start = true");
    std::fs::write(&config, migrating).expect("written");
    let why = refuses(folder.path()).await;
    assert!(why.contains("permission denied") && why.contains("as the owner"), "{why}");
}

/// Of databases that belong to somebody who may not make roles, and to somebody who may. The role is the cluster's.
#[tokio::test]
async fn migrate_makes_the_role_or_says_what_to_run() {
    let folder = cluster_folder();
    let cluster = Cluster::start(&installation(), &folder, &[], Keep::Nothing).await;
    let cluster = cluster.expect("a cluster");
    let administrator = connect(&cluster.url("postgres")).await;
    for statement in ["CREATE ROLE owner LOGIN", "CREATE DATABASE approvals OWNER owner"] {
        administrator.batch_execute(statement).await.expect("prepared");
    }
    let owner = store(&cluster.url_as("owner", "approvals"));
    let Err(Failure::Denied(why)) = owner.migrate().await else { panic!("may not make roles") };
    assert!(why.contains("CREATE ROLE approval_authority_service NOLOGIN"), "{why}");
    assert_eq!(owner.role_state().await.expect("asked"), RoleState::Missing);
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'approval_authority'";
    let there = connect(&cluster.url("approvals")).await.query_one(schemas, &[]).await;
    assert_eq!(there.expect("a count").get::<_, i64>(0), 0, "nothing is done by halves");

    let databases = ["one", "two", "three", "four"];
    for database in databases {
        cluster.create_database(database).await.expect("a database");
    }
    let at_once = databases.map(|database| store(&cluster.url(database)));
    try_join_all(at_once.iter().map(Store::migrate)).await.expect("all make one role");

    owner.migrate().await.expect("migrated");
    assert_eq!(owner.role_state().await.expect("asked"), RoleState::AsListed);
    cluster.add_login("service", ROLE).await.expect("a login");
    let service = store(&cluster.url_as("service", "approvals"));
    assert_eq!(service.rights().await.expect("asked"), Rights::Fit);

    let more = "ALTER ROLE approval_authority_service CREATEROLE; GRANT owner TO approval_authority_service";
    administrator.batch_execute(more).await.expect("made more of");
    owner.migrate().await.expect("migrated");
    let points = ["CREATEROLE", "member of owner"].map(|point| format!("{ROLE} {point}")).to_vec();
    assert_eq!(owner.role_state().await.expect("asked"), RoleState::Differs(points));
    let rights = service.rights().await.expect("asked");
    assert!(
        matches!(&rights, Rights::TooMany { beyond, .. } if beyond.contains("DELETE on events")),
        "{rights:?}"
    );
}
