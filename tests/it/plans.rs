//! No statement reads more than it needs, however much there is: each is carried out in a namespace of which no statistics
//! tell, beside a larger one, and PostgreSQL says what it did (auto_explain).

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use approval_authority::{
    embedded::{Cluster, Keep},
    names::Namespace,
    proto::{
        ApprovalState, DeleteWorkspaceRequest, ListApprovalsRequest, ListWorkspacesRequest,
        ReportResultRequest, RevokeApprovalRequest, Start, WatchApprovalsRequest,
        WithdrawApprovalRequest,
    },
    store::batch,
};
use jiff::SignedDuration;
use serde_json::Value;

use crate::{
    database::{Database, installation},
    harness::{Caller, TestServer, id, request},
    server::RETENTION,
    service::{Service, call},
    watch::{after, from},
};

mod told;

use told::{NOT_SEEN, explain};

/// Approvals and workspaces in the namespace that is used; and as many of both in the one that statistics tell of.
const APPROVALS: usize = 8_000;
const WORKSPACES: usize = 1_499;
const BESIDE: usize = 20_000;

/// Workspaces of a tree in which only some of the oldest approvals are.
const RARE: usize = 1_200;

/// What one statement may read of a table, or pass over: a page of the feed, a lookup for each namespace, a thousand approvals
/// of each state for a list of a large tree, and the ancestors of their workspaces.
const MOST: f64 = 4_000.0;

/// The same among millions, where a list walks down a tree of thousands of workspaces before it gives up looking at each.
const MOST_OF_MILLIONS: f64 = 15_000.0;

/// So many approvals: of all states, in workspaces so many of which lie below another, each with two events. Two fifths of
/// them, all used, are of one workspace. The oldest five
/// hundred are older than what is kept, and some of those that are pending have lapsed.
fn fill(namespace: &str, approvals: usize, workspaces: usize, below_each: usize) -> String {
    format!(
        "CREATE TEMPORARY TABLE filled AS
        SELECT n, t.time, (lpad(to_hex((extract(epoch FROM t.time) * 1000)::bigint), 12, '0') || '7'
                || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid AS id,
            CASE WHEN n <= 500 OR n % 100 < 60 THEN 'CONSUMED' WHEN n % 100 < 70 THEN 'DENIED' WHEN n % 100 < 74
                THEN 'EXPIRED' WHEN n % 100 < 94 THEN 'PENDING' ELSE 'APPROVED' END AS state,
            CASE WHEN n BETWEEN 501 AND 700 THEN 'r' || n ELSE 'w' || CASE WHEN n % 100 < 40 THEN 80 ELSE n % {workspaces} END END
                AS workspace_id
        FROM generate_series(1, {approvals}) AS n
        CROSS JOIN LATERAL (SELECT clock_timestamp() - CASE WHEN n <= 500 THEN interval '200 days'
            ELSE ({approvals} - n) * interval '10 seconds' END AS time) AS t;
        INSERT INTO approval_authority.logs (namespace, epoch) VALUES ('{namespace}', gen_random_uuid());
        INSERT INTO approval_authority.log_locks (namespace) VALUES ('{namespace}');
        INSERT INTO approval_authority.workspaces (namespace, id, parent_id, display_name)
        SELECT '{namespace}', 'root', NULL, '' UNION ALL
        SELECT '{namespace}', 'w' || n, CASE n / {below_each} WHEN 0 THEN 'root' ELSE 'w' || n / {below_each} END, ''
        FROM generate_series(1, {workspaces} - 1) AS n;
        INSERT INTO approval_authority.workspaces (namespace, id, parent_id, display_name)
        SELECT '{namespace}', 'rare', NULL, '' UNION ALL
        SELECT '{namespace}', 'r' || n, 'rare', '' FROM generate_series(1, {RARE}) AS n;
        INSERT INTO approval_authority.approvals (namespace, id, workspace_id, action, context, request_hash,
            requested_by, on_behalf_of, reason, approvals_required, approved_ttl_ms, deny_cooldown_ms,
            policy_digest, recent_denials, create_time, state, version, expire_time, decide_time, consume_time,
            consumed_by, consumed_key, cooldown_end)
        SELECT '{namespace}', f.id, f.workspace_id, 'delete_workspace', '{{}}', sha256(convert_to(f.n::text, 'UTF8')),
            'tokens:backend', '', '', 1, 1, 1, '', 0, f.time, f.state, 2,
            f.time + CASE WHEN f.n % 400 = 93 THEN interval '1 second' ELSE interval '50 days' END,
            CASE WHEN f.state NOT IN ('PENDING', 'EXPIRED') THEN f.time END,
            CASE WHEN f.state = 'CONSUMED' THEN f.time END,
            CASE WHEN f.state = 'CONSUMED' THEN 'tokens:backend' END,
            CASE WHEN f.state = 'CONSUMED' THEN f.n::text END,
            CASE WHEN f.state = 'DENIED' THEN f.time END
        FROM filled AS f;
        INSERT INTO approval_authority.verdicts (namespace, approval_id, approver, decision, reason, verdict_time)
        SELECT '{namespace}', f.id, 'tokens:alice', CASE f.state WHEN 'DENIED' THEN 'DENY' ELSE 'APPROVE' END, '', f.time
        FROM filled AS f WHERE f.state NOT IN ('PENDING', 'EXPIRED');
        INSERT INTO approval_authority.events (namespace, revision, type, workspace_id, approval_id, version, state,
            verdicts, expire_time, event_time, batch_id)
        SELECT '{namespace}', 2 * f.n - 2 + v, CASE v WHEN 1 THEN 'REQUESTED' ELSE 'REVIEWED' END,
            f.workspace_id, f.id, v,
            'PENDING', '[]', f.time, f.time, gen_random_uuid()
        FROM filled AS f CROSS JOIN generate_series(1, 2) AS v;
        DROP TABLE filled;"
    )
}

/// As many namespaces with one of everything, so that an average one has next to nothing.
const SMALL: &str = "
    INSERT INTO approval_authority.logs (namespace, epoch)
    SELECT 'small-' || n, gen_random_uuid() FROM generate_series(1, 1000) AS n;
    INSERT INTO approval_authority.workspaces (namespace, id, display_name)
    SELECT 'small-' || n, 'w1', '' FROM generate_series(1, 1000) AS n;
    INSERT INTO approval_authority.approvals (namespace, id, workspace_id, action, context, request_hash, requested_by,
        on_behalf_of, reason, approvals_required, approved_ttl_ms, deny_cooldown_ms, policy_digest, recent_denials,
        create_time, state, version, expire_time)
    SELECT 'small-' || n, gen_random_uuid(), 'w1', 'delete_workspace', '{}', sha256(''), 'tokens:backend', '', '', 1, 1, 1,
        '', 0, clock_timestamp(), 'EXPIRED', 1, clock_timestamp() FROM generate_series(1, 1000) AS n;
    INSERT INTO approval_authority.verdicts (namespace, approval_id, approver, decision, reason, verdict_time)
    SELECT a.namespace, a.id, 'tokens:alice', 'APPROVE', '', a.create_time
    FROM approval_authority.approvals AS a WHERE a.namespace LIKE 'small-%';
    INSERT INTO approval_authority.events (namespace, revision, type, workspace_id, approval_id, version, state, verdicts,
        expire_time, event_time, batch_id)
    SELECT a.namespace, 1, 'EXPIRED', 'w1', a.id, 1, 'EXPIRED', '[]', a.create_time, a.create_time, gen_random_uuid()
    FROM approval_authority.approvals AS a WHERE a.namespace LIKE 'small-%'";

const NO_AUTOVACUUM: &str = "
    ALTER TABLE approval_authority.approvals SET (autovacuum_enabled = off);
    ALTER TABLE approval_authority.verdicts SET (autovacuum_enabled = off);
    ALTER TABLE approval_authority.events SET (autovacuum_enabled = off);
    ALTER TABLE approval_authority.workspaces SET (autovacuum_enabled = off)";

/// Everything that is asked of the service, at least once.
async fn use_all(database: &Database, server: &TestServer, of_subtree: Start) {
    let backend = server.caller("backend").await;
    let (alice, viewer) = (server.caller("alice").await, server.caller("viewer").await);
    let admin = server.caller("admin").await;

    let held = id(&backend.require("w7", "delete_workspace").await);
    backend.require("w7", "delete_workspace").await;
    alice.approve(&held).await;
    let attempt = approval_authority::proto::RequireApprovalRequest {
        idempotency_key: uuid::Uuid::new_v4().to_string(),
        ..request("w7", "delete_workspace")
    };
    backend.ask(attempt.clone()).await.expect("let through");
    backend.ask(attempt).await.expect("again");
    let report = ReportResultRequest {
        approval_id: held.clone(),
        result: approval_authority::proto::Result::Succeeded.into(),
        ..Default::default()
    };
    backend.approvals.clone().report_result(report).await.expect("reported");
    alice.deny(&id(&backend.require("w8", "delete_workspace").await)).await;
    let approval_id = id(&backend.require("w9", "delete_workspace").await);
    let withdraw = WithdrawApprovalRequest { approval_id, ..Default::default() };
    backend.approvals.clone().withdraw_approval(withdraw).await.expect("withdrawn");
    let approval_id = id(&backend.require("w10", "delete_workspace").await);
    alice.approve(&approval_id).await;
    let reason = "changed my mind".to_owned();
    let revoke = RevokeApprovalRequest { approval_id, reason, ..Default::default() };
    alice.approvals.clone().revoke_approval(revoke).await.expect("revoked");
    viewer.get(&held).await.expect("it");
    for workspace in ["w11", "w12", "w80"] {
        backend.require(workspace, "org_token_mint").await;
    }

    lists(&viewer).await;
    streams(&viewer, of_subtree).await;

    admin.put_workspace("new", "w3").await.expect("put");
    admin.put_workspace("new", "w4").await.expect("moved");
    let delete = DeleteWorkspaceRequest { workspace_id: "new".to_owned(), ..Default::default() };
    admin.workspaces.clone().delete_workspace(delete).await.expect("deleted");
    for caller in [admin, server.caller("tree-approver").await] {
        let list = ListWorkspacesRequest::default();
        caller.workspaces.clone().list_workspaces(list).await.expect("a page");
    }

    let lapsed = "-- the test's own
        SELECT count(*) FROM approval_authority.approvals
        WHERE namespace = 'default' AND state = 'PENDING' AND expire_time < clock_timestamp()";
    while database.count(lapsed).await > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn lists(viewer: &Caller) {
    let [root, rarely, w80] = ["root", "rare", "w80"].map(|id| vec![id.to_owned()]);
    let pending = vec![ApprovalState::Pending.into()];
    let denied = vec![ApprovalState::Denied.into(), ApprovalState::Consumed.into()];
    let (deletions, rare) =
        (vec!["delete_workspace".to_owned()], vec!["org_token_mint".to_owned()]);
    for (workspace_ids, states, include_descendants, actions) in [
        (vec![], vec![], false, vec![]),
        (vec![], pending.clone(), false, vec![]),
        (vec![], denied, false, vec![]),
        (vec![], vec![], false, deletions.clone()),
        (vec![], vec![], false, rare.clone()),
        (w80.clone(), vec![], false, vec![]),
        (w80.clone(), vec![], false, rare.clone()),
        (w80.clone(), pending.clone(), false, vec![]),
        (w80, vec![], true, deletions.clone()),
        (rarely, pending.clone(), true, vec![]),
        (root.clone(), pending.clone(), true, vec![]),
        (root.clone(), vec![], true, vec![]),
        (root, pending, true, deletions),
    ] {
        let list = ListApprovalsRequest {
            workspace_ids,
            states,
            actions,
            include_descendants,
            page_size: 2,
            ..Default::default()
        };
        let first = viewer.list(list.clone()).await.expect("a page");
        // Of millions, the search for what is rare ends before it finds any.
        let goes_on = list.workspace_ids == ["rare"] && !first.next_page_token.is_empty();
        assert!(!first.approvals.is_empty() || goes_on);
        let page_token = first.next_page_token;
        viewer.list(ListApprovalsRequest { page_token, ..list }).await.expect("another");
    }
}

async fn streams(viewer: &Caller, of_subtree: Start) {
    let subtree = WatchApprovalsRequest {
        workspace_ids: vec!["w1".to_owned()],
        include_descendants: true,
        ..from(of_subtree)
    };
    for watch in [from(Start::Oldest), from(Start::Pending), subtree] {
        let mut stream = viewer.watch(watch).await.expect("a stream");
        let mut cursor = String::new();
        for _ in 0..50 {
            cursor = stream.message().await.expect("a message").expect("no end").cursor;
        }
        if !cursor.is_empty() {
            let mut resumed = viewer.watch(after(&cursor)).await.expect("a stream");
            resumed.message().await.expect("a message").expect("no end");
        }
    }
}

/// What a plan's nodes did that they should not have.
fn faults(node: &Value, most: f64, found: &mut Vec<String>) {
    let number = |key: &str| {
        node[key].as_f64().unwrap_or(0.0) * node["Actual Loops"].as_f64().unwrap_or(1.0)
    };
    let [kind, relation] =
        ["Node Type", "Relation Name"].map(|key| node[key].as_str().unwrap_or(""));
    let passed_over = number("Rows Removed by Filter") + number("Rows Removed by Join Filter");
    let large = ["approvals", "verdicts", "events", "workspaces"].contains(&relation);
    if large && kind == "Seq Scan" {
        found.push(format!("reads all of {relation}"));
    }
    if passed_over + number("Actual Rows") > most {
        found.push(format!(
            "{kind} {relation}: {} rows, {passed_over} passed over",
            number("Actual Rows")
        ));
    }
    for below in node["Plans"].as_array().into_iter().flatten() {
        faults(below, most, found);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_reads_more_than_it_needs_of_a_namespace_that_statistics_do_not_know() {
    let database = Database::new().await;
    let client = database.connect().await;
    client.batch_execute(NO_AUTOVACUUM).await.expect("no ANALYZE but this test's");
    client.batch_execute(&fill("beside", BESIDE, BESIDE, BESIDE)).await.expect("filled");
    client.batch_execute(SMALL).await.expect("filled");
    client.batch_execute("ANALYZE").await.expect("analyzed");
    client.batch_execute(&fill("default", APPROVALS, WORKSPACES, 8)).await.expect("filled");
    examine(&database, RETENTION.events, Start::Pending, MOST).await;
}

/// The same with ten million closed approvals, fifty million events and a million open approvals:
/// `BENCH_DATABASE=folder make bench ARGS="-- full 10000000"`, and then with the same folder
/// `cargo test --test it plans -- --ignored`. Once for each filling: it cuts all that may be cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a database that benches/full.rs has filled"]
async fn no_statement_reads_more_than_it_needs_of_millions() {
    let folder = std::env::var_os("BENCH_DATABASE").expect("where benches/full.rs keeps it");
    let cluster = Cluster::start(&installation(), &PathBuf::from(folder), &[], Keep::Data).await;
    let cluster = cluster.expect("its cluster");
    let database = Database::of(&cluster, "bench");
    let lapse = "UPDATE approval_authority.approvals SET expire_time = clock_timestamp()
        WHERE namespace = 'default' AND id IN (
            SELECT p.id FROM approval_authority.approvals AS p
            WHERE p.namespace = 'default' AND p.state = 'PENDING' ORDER BY p.namespace, p.state, p.id LIMIT 10)";
    database.connect().await.batch_execute(lapse).await.expect("something for the keeper");
    // Retention of an age that some of what is there has, and not all.
    let age = SignedDuration::from_hours(30 * 24);
    // Before whom a million were brought takes longer to find out, plans told, than a call may take.
    examine(&database, age, Start::Oldest, MOST_OF_MILLIONS).await;
}

/// A database of which much was deleted by a statement, and that nobody has vacuumed since.
async fn filled_and(cut: &str) -> Database {
    let database = Database::new().await;
    let client = database.connect().await;
    for statements in [NO_AUTOVACUUM, &fill("default", BESIDE, WORKSPACES, 8), cut] {
        client.batch_execute(statements).await.expect("done");
    }
    database
}

/// Until VACUUM comes by, the index leads through all that has been cut.
#[tokio::test]
async fn retention_does_not_go_through_what_it_has_cut() {
    let cut = "DELETE FROM approval_authority.events WHERE revision <= 20000;
        UPDATE approval_authority.logs SET floor_revision = 20000";
    let database = filled_and(cut).await;
    let log = explain(&database).await;
    let (store, age) = (database.store(), RETENTION.events);
    store.logs_to_cut(age).await.expect("none");
    let default = Namespace::default_namespace();
    store.clear_approvals(&default, age, uuid::Uuid::nil()).await.expect("some");
    let plans = log.plans(&database).await;
    for which in ["logs_with_old_events", "SELECT e.event_time"] {
        let plan = plans.iter().find(|(label, _)| label.starts_with(which));
        let (_, plan) = plan.unwrap_or_else(|| panic!("{which} is not told of"));
        let blocks = ["Shared Hit Blocks", "Shared Read Blocks"].map(|key| plan[key].as_u64());
        let blocks: u64 = blocks.iter().map(|blocks| blocks.expect("a number")).sum();
        assert!(blocks < 30, "{which} reads {blocks} blocks");
    }
}

/// One old snapshot makes the database count past all that has been pending since; it was counted past once for each call.
#[tokio::test]
async fn what_bears_on_all_calls_of_a_batch_is_counted_once() {
    const PENDING: u32 = 90;
    let service = Service::new().await;
    service.pending().await;
    let more = format!(
        "INSERT INTO approval_authority.approvals (namespace, id, workspace_id, action, context, request_hash, requested_by,
            on_behalf_of, reason, approvals_required, approved_ttl_ms, deny_cooldown_ms, policy_digest, recent_denials,
            create_time, state, version, expire_time, decide_time, cooldown_end)
        SELECT a.namespace, gen_random_uuid(), a.workspace_id, a.action, '{{}}', sha256(convert_to(n::text, 'UTF8')),
            a.requested_by, '', '', 1, 1, 1, '', 0, a.create_time, s.state, 1, a.expire_time,
            CASE s.state WHEN 'DENIED' THEN a.create_time END, CASE s.state WHEN 'DENIED' THEN a.create_time END
        FROM approval_authority.approvals AS a CROSS JOIN generate_series(2, {PENDING}) AS n
        CROSS JOIN (VALUES ('PENDING'), ('DENIED')) AS s (state)"
    );
    service.database.connect().await.batch_execute(&more).await.expect("filled");
    let told = explain(&service.database).await;
    let store = service.database.store();
    let (tx, call) = (store.begin().await.expect("begun"), call());
    let calls = vec![&call; 100];
    let namespace = Namespace::default_namespace();
    let found = batch::lock_and_read(&tx, &namespace, &[], &calls, &[]).await.expect("read");
    tx.rollback().await.expect("ended");
    assert_eq!(found.circumstances.len(), calls.len());
    for circumstances in &found.circumstances {
        let counted = (circumstances.pending, circumstances.recent_denials);
        assert_eq!(counted, (PENDING, PENDING - 1));
    }
    let plans = told.plans(&service.database).await;
    let (_, facts) = plans.iter().find(|(label, _)| label == "facts").expect("it is told of");
    let mut read = Vec::new();
    rows_of_approvals(facts, &mut read);
    assert_eq!(read.iter().sum::<f64>(), f64::from(2 * PENDING - 1), "{read:?}");
}

/// What a plan's nodes read of the approvals.
fn rows_of_approvals(node: &Value, read: &mut Vec<f64>) {
    if node["Relation Name"] == "approvals" {
        let number = |key: &str| node[key].as_f64().unwrap_or(0.0);
        read.push(number("Actual Rows") * number("Actual Loops"));
    }
    for below in node["Plans"].as_array().into_iter().flatten() {
        rows_of_approvals(below, read);
    }
}

/// Old approvals that may not be deleted yet are looked at a chunk at a time.
#[tokio::test]
async fn retention_looks_at_no_more_than_a_chunk() {
    let cut = "DELETE FROM approval_authority.events;
        UPDATE approval_authority.logs SET floor_revision = 40000;
        UPDATE approval_authority.approvals SET expire_time = clock_timestamp() + interval '1 day'";
    let database = filled_and(cut).await;
    let told = explain(&database).await;
    let (store, default) = (database.store(), Namespace::default_namespace());
    // By ids they are seconds old to two days.
    let day = SignedDuration::from_hours(24);
    let last = store.clear_approvals(&default, day, uuid::Uuid::nil()).await.expect("a chunk");
    assert!(last.is_some());
    let plans = told.plans(&database).await;
    let mut read = Vec::new();
    plans.iter().for_each(|(_, plan)| rows_of_approvals(plan, &mut read));
    assert!(read.iter().all(|rows| *rows <= 1_000.0), "{read:?}");
}

/// Uses all of the service on a database, and looks at what each statement did there.
async fn examine(database: &Database, age: SignedDuration, of_subtree: Start, most: f64) {
    let told = explain(database).await;
    let server = TestServer::on(&database.url).await;
    use_all(database, &server, of_subtree).await;
    server.drain().await;
    let store = database.store();
    store.heads(&[Namespace::default_namespace()]).await.expect("the poll's");
    let new = format!("new-{}", uuid::Uuid::new_v4());
    store.log(&Namespace::parse(&new).expect("a name")).await.expect("a log");
    for namespace in store.logs_to_cut(age).await.expect("some") {
        assert!(store.cut_log(&namespace, age).await.expect("cut") > 0);
    }
    for namespace in store.logs_to_clear(age).await.expect("some") {
        store.clear_approvals(&namespace, age, uuid::Uuid::nil()).await.expect("cleared");
    }

    let plans = told.plans(database).await;
    let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (label, plan) in &plans {
        faults(plan, most, all.entry(label).or_default());
    }
    let labels: Vec<&str> = all.keys().copied().collect();
    println!("{} statements of {} kinds", plans.len(), labels.len());
    for nested in
        ["DELETE FROM approval_authority.events", "DELETE FROM approval_authority.approvals"]
    {
        assert!(labels.iter().any(|label| label.starts_with(nested)), "{nested} is not told of");
    }
    all.retain(|_, faults| !faults.is_empty());
    assert!(all.is_empty(), "{all:#?}");
    for label in store_labels() {
        let seen = labels.contains(&label.as_str()) || NOT_SEEN.contains(&label.as_str());
        assert!(seen, "{label} was not carried out");
    }
}

/// The labels of all statements that there are.
fn store_labels() -> Vec<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let files = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("a file"));
    let texts = files.map(|file| std::fs::read_to_string(file.path()).expect("a file"));
    let labels = texts.flat_map(|text| {
        let found = text.split("\"-- ").skip(1).filter_map(|rest| rest.split_once("()"));
        found.map(|(label, _)| label.to_owned()).collect::<Vec<String>>()
    });
    labels.collect()
}
