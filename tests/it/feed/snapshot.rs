//! An old snapshot, as of a dump or an analyst, keeps PostgreSQL from removing dead versions. Appends do not make any
//! that the next append would have to walk over.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use approval_authority::{
    embedded::{Cluster, Keep},
    grpc::server::Drained,
};
use futures_util::future::join_all;

use crate::{
    database::{Database, cluster_folder, deploy, installation},
    harness::{TestServer, id},
};

const WRITERS: usize = 8;

/// Operations of each writer in a third of the run; each is asked for, approved and used: three events.
const OPERATIONS: usize = 60;

/// What visits to the blocks of a table and its indexes may grow by: a B-tree grows a level.
const FACTOR: f64 = 1.5;
const LEVELS: f64 = 3.0;

/// Visits to blocks so far, by table.
async fn visits(database: &Database) -> BTreeMap<String, i64> {
    let query = "SELECT relname::text, heap_blks_hit + heap_blks_read
            + coalesce(idx_blks_hit + idx_blks_read, 0)
        FROM pg_statio_user_tables WHERE schemaname = 'approval_authority'";
    let rows = database.connect().await.query(query, &[]).await.expect("statistics");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// A third of the run, with a server of its own: what its sessions have counted is known once they have ended.
async fn third(database: &Database, number: usize) -> Duration {
    let server = TestServer::on(&database.url).await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let began = Instant::now();
    let writers = (0..WRITERS).map(|writer| {
        let (backend, alice) = (backend.clone(), alice.clone());
        async move {
            for operation in 0..OPERATIONS {
                let workspace = format!("w{number}-{writer}-{operation}");
                let held = backend.require(&workspace, "secret_write").await;
                alice.approve(&id(&held)).await;
                backend.require(&workspace, "secret_write").await;
            }
        }
    });
    join_all(writers).await;
    let took = began.elapsed();
    drop((backend, alice));
    assert_eq!(server.drain().await, Drained::Completely);
    let sessions = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'approval-authority'";
    while database.count(sessions).await > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    took
}

/// Statements are planned for tables of some size before there is anything in them. An index that was made on an empty
/// table told the planner that it is empty, and whatever reads one row went through all of its namespace.
#[tokio::test]
async fn the_planner_takes_no_table_of_a_new_schema_for_empty() {
    let database = Database::new().await;
    let taken_for_empty = "SELECT count(*) FROM pg_class
        WHERE relnamespace = 'approval_authority'::regnamespace AND reltuples < 1000
            AND relname IN ('approvals', 'verdicts', 'events', 'workspaces')";
    assert_eq!(database.count(taken_for_empty).await, 0);
}

/// Nor does the first automatic VACUUM or ANALYZE say so, which would come within a minute. This cluster's comes at once.
#[tokio::test]
async fn nor_once_it_has_been_looked_after() {
    let folder = cluster_folder();
    let settings = &["autovacuum_naptime=1s"];
    let cluster = Cluster::start(&installation(), &folder, settings, Keep::Nothing).await;
    let cluster = cluster.expect("a cluster");
    deploy(&cluster, "approvals").await;
    let database = Database::of(&cluster, "approvals");
    let beside = "CREATE TABLE public.beside AS SELECT n FROM generate_series(1, 4000) AS n; DELETE FROM public.beside";
    database.connect().await.batch_execute(beside).await.expect("something to look after");
    let looked_after =
        "SELECT vacuum_count + autovacuum_count FROM pg_stat_user_tables WHERE relname = 'beside'";
    while database.count(looked_after).await == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let due = "SELECT count(*) FROM pg_stat_user_tables
        WHERE schemaname = 'approval_authority' AND relname IN ('approvals', 'verdicts', 'events', 'workspaces')
            AND (autovacuum_count > 0 OR autoanalyze_count > 0 OR n_dead_tup > 50000 OR n_ins_since_vacuum > 50000
                OR n_mod_since_analyze > 50000)";
    assert_eq!(database.count(due).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_do_not_slow_down_under_an_old_snapshot() {
    let database = Database::new().await;
    let mut analyst = database.connect().await;
    let old = analyst
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .start()
        .await
        .expect("begun");
    let events = "SELECT count(*) FROM approval_authority.events";
    assert_eq!(old.query_one(events, &[]).await.expect("a snapshot").get::<_, i64>(0), 0);

    let (mut took, mut visited) = (Vec::new(), Vec::new());
    for number in 0..3 {
        let before = visits(&database).await;
        took.push(third(&database, number).await);
        let mut visits = visits(&database).await;
        visits.iter_mut().for_each(|(table, visits)| *visits -= before[table]);
        visited.push(visits);
    }
    assert_eq!(old.query_one(events, &[]).await.expect("a snapshot").get::<_, i64>(0), 0);
    let appended = (WRITERS * OPERATIONS * 3) as f64;
    assert_eq!(database.count(events).await as f64, 3.0 * appended);
    println!(
        "{appended} events a third under an old snapshot: {took:?}, the last against the first {:.2}",
        took[2].as_secs_f64() / took[0].as_secs_f64()
    );
    for (table, first) in &visited[0] {
        let [first, last] = [*first, visited[2][table]].map(|visits| visits as f64 / appended);
        println!("{table}: {first:.2} visits to blocks for an event, then {last:.2}");
        assert!(last < FACTOR * first + LEVELS, "{table}: from {first:.2} to {last:.2}");
    }
}
