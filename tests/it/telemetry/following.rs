//! What the feed says of the logs that somebody follows.

use std::time::Instant;

use approval_authority::proto::WatchApprovalsRequest;

use super::{numbers, until_page};
use crate::{database::Database, server::Process, watch};

const LOGS: &str = "approval_authority_feed_logs";
const LAG: &str = "approval_authority_feed_lag_seconds";
const FAILURES: &str = "approval_authority_feed_failures_total";

/// Adds an event that no server here knows of. Without a look at its approval, which might have to wait.
pub async fn write_elsewhere(database: &Database) {
    let write = "SET session_replication_role = replica;
        INSERT INTO approval_authority.events
        SELECT (jsonb_populate_record(e, jsonb_build_object('revision', e.revision + 1, 'version', e.version + 1))).*
        FROM approval_authority.events AS e ORDER BY e.revision DESC LIMIT 1";
    database.connect().await.batch_execute(write).await.expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_count_while_they_are_followed_and_lag_from_when_they_are_behind() {
    let database = Database::new().await;
    let owner = database.connect().await;
    let rename = async |from: &str, to: &str| {
        let rename = format!("ALTER TABLE approval_authority.{from} RENAME TO {to}");
        owner.batch_execute(&rename).await.expect("renamed");
    };
    let mut process = Process::serve(&database.url).await;
    let admin = process.admin().await;
    let alice = process.caller("alice").await;
    process.caller("backend").await.require("w1", "delete_workspace").await;
    assert_eq!(numbers(admin).await[LOGS], 0.0);
    let mut stream = alice.watch(Default::default()).await.expect("a stream");
    watch::next(&mut stream).await;
    let elsewhere = WatchApprovalsRequest { namespace: "acme".to_owned(), ..Default::default() };
    let other = alice.watch(elsewhere).await.expect("a stream");
    until_page(admin, |page| page[LOGS] == 2.0).await;
    drop(other);
    until_page(admin, |page| page[LOGS] == 1.0 && page[LAG] == 0.0).await;
    assert_eq!(numbers(admin).await[FAILURES], 0.0);

    // The log's end cannot be seen; nothing is read of it for as long as nobody knows of anything new.
    rename("events", "hidden").await;
    until_page(admin, |page| page[FAILURES] > 0.0).await;
    rename("hidden", "events").await;

    // The log's end can be seen, and what is before it cannot be read.
    let failures = numbers(admin).await[FAILURES];
    rename("approvals", "hidden").await;
    let began = Instant::now();
    write_elsewhere(&database).await;
    until_page(admin, |page| page[LAG] > 1.0).await;
    let page = numbers(admin).await;
    assert!(page[LAG] <= began.elapsed().as_secs_f64(), "{}", page[LAG]);
    assert!(page[FAILURES] > failures, "it was tried");
    rename("hidden", "approvals").await;
    watch::next(&mut stream).await;
    until_page(admin, |page| page[LAG] == 0.0).await;

    // Nobody is behind where nobody follows.
    rename("approvals", "hidden").await;
    write_elsewhere(&database).await;
    until_page(admin, |page| page[LAG] > 0.0).await;
    drop(stream);
    until_page(admin, |page| page[LOGS] == 0.0 && page[LAG] == 0.0).await;
    rename("hidden", "approvals").await;
}
