//! What the parts behind the calls count, and the log for programs.

use std::{collections::BTreeMap, time::Duration};

use approval_authority::proto::{DeleteWorkspaceRequest, RequireApprovalRequest};

use super::{get, numbers, until_page};
use crate::{
    database::Database,
    harness::{id, request},
    proxy::{Fate, Proxy},
    server::{Process, policy_text},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_gate_said_what_people_did_and_what_waits_is_counted() {
    let database = Database::new().await;
    let before = "-- the test's own
        SELECT count(*) FROM approval_authority.approvals WHERE state = 'PENDING'";
    assert_eq!(database.count(before).await, 0);
    let mut process = Process::serve(&database.url).await;
    let admin = process.admin().await;
    let (backend, alice) = (process.caller("backend").await, process.caller("alice").await);

    let first = id(&backend.require("w1", "delete_workspace").await);
    let attempt = RequireApprovalRequest {
        idempotency_key: "attempt".to_owned(),
        ..request("w1", "delete_workspace")
    };
    alice.approve(&first).await;
    backend.ask(attempt.clone()).await.expect("let through");
    backend.ask(attempt).await.expect("told again");
    alice.deny(&id(&backend.require("w2", "delete_workspace").await)).await;
    backend.require("w2", "delete_workspace").await;
    backend.require("w3", "nobody_listed_it").await;
    backend.require("w4", "delete_workspace").await;
    let _stream = alice.watch(Default::default()).await.expect("a stream");

    let page = numbers(admin).await;
    let outcome =
        |outcome| page[&format!("approval_authority_gate_outcomes_total{{outcome=\"{outcome}\"}}")];
    let outcomes = ["approved", "repeated", "denied", "not_required", "pending"].map(outcome);
    assert_eq!(outcomes, [1.0, 1.0, 1.0, 1.0, 3.0]);
    let event = |kind| page[&format!("approval_authority_events_total{{type=\"{kind}\"}}")];
    let events = ["REQUESTED", "APPROVED", "CONSUMED", "DENIED", "EXPIRED"].map(event);
    assert_eq!(events, [3.0, 1.0, 1.0, 1.0, 0.0]);
    for decision in ["approve", "deny"] {
        let count = format!("approval_authority_decision_seconds_count{{decision=\"{decision}\"}}");
        assert_eq!(page[&count], 1.0, "{decision}");
    }
    assert_eq!(page["approval_authority_calls_in_progress{kind=\"subscriber\"}"], 1.0);
    assert_eq!(page["approval_authority_feed_logs"], 1.0);
    assert_eq!(page["approval_authority_feed_lag_seconds"], 0.0);
    assert!(page["approval_authority_batch_size_count{kind=\"commit\"}"] >= 6.0);
    assert!(page["approval_authority_batch_size_sum{kind=\"look\"}"] >= 6.0);
    for kind in ["commit", "look"] {
        let took = format!("approval_authority_batch_seconds_count{{kind=\"{kind}\"}}");
        assert!(page[&took] >= 6.0, "{kind}");
    }
    assert_eq!(page["approval_authority_database_pool_limit"], 8.0);
    assert!(page["approval_authority_database_connections_made_total"] >= 1.0);

    // The keeper comes by by itself.
    let young = "approval_authority_pending_approvals{age=\"under_5m\"}";
    until_page(admin, |page| page.get(young) == Some(&1.0)).await;
    let page = numbers(admin).await;
    for work in ["deadlines", "retention", "pending"] {
        let last = "approval_authority_keeper_last_run_timestamp_seconds";
        assert!(page[&format!("{last}{{work=\"{work}\"}}")] > 1.7e9, "{work}");
    }
    let waits = page["approval_authority_pending_oldest_seconds"];
    assert!(waits > 0.0 && waits < 300.0, "{waits}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_became_of_an_unanswered_commit_is_counted() {
    let database = Database::new().await;
    let proxy = Proxy::new(&database.url).await;
    let mut process = Process::serve(&proxy.url).await;
    let admin = process.admin().await;
    let backend = process.caller("backend").await;
    backend.require("w0", "delete_workspace").await;
    let found = |page: &BTreeMap<String, f64>| {
        ["committed", "rolled_back", "nothing"].map(|found| {
            page[&format!("approval_authority_commits_unknown_total{{found=\"{found}\"}}")]
        })
    };
    assert_eq!(found(&numbers(admin).await), [0.0; 3]);
    proxy.next(&[Fate::AnswerLost]);
    backend.require("w1", "delete_workspace").await;
    assert_eq!(found(&numbers(admin).await), [1.0, 0.0, 0.0]);
    proxy.next(&[Fate::Lost]);
    backend.require("w2", "delete_workspace").await;
    assert_eq!(found(&numbers(admin).await), [1.0, 1.0, 0.0]);
}

/// A table that somebody holds: the heads of the logs can be read, and what is behind them cannot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_the_database_shows() {
    let database = Database::new().await;
    let mut process = Process::serve(&database.url).await;
    let admin = process.admin().await;
    let (backend, alice) = (process.caller("backend").await, process.caller("alice").await);
    backend.require("w1", "delete_workspace").await;
    let mut stream = alice.watch(Default::default()).await.expect("a stream");
    stream.message().await.expect("a message").expect("a bookmark");

    let mut other = database.connect().await;
    let held = other.transaction().await.expect("begun");
    let lock = "LOCK TABLE approval_authority.approvals IN ACCESS EXCLUSIVE MODE";
    held.execute(lock, &[]).await.expect("locked");
    // Without a look at the approval, which would have to wait.
    let written_elsewhere = "SET session_replication_role = replica;
        INSERT INTO approval_authority.events
        SELECT (jsonb_populate_record(e, jsonb_build_object('revision', e.revision + 1, 'version', e.version + 1))).*
        FROM approval_authority.events AS e";
    database.connect().await.batch_execute(written_elsewhere).await.expect("written");
    let asked: Vec<_> = (0..10)
        .map(|number| {
            let mut it = request("w1", "delete_workspace");
            it.namespace = format!("n{number}");
            let backend = backend.clone();
            tokio::spawn(async move { backend.ask(it).await })
        })
        .collect();
    let pool = |page: &BTreeMap<String, f64>| {
        ["connections", "in_use", "waiting"]
            .map(|what| page[&format!("approval_authority_database_pool_{what}")])
    };
    until_page(admin, |page| matches!(pool(page), [8.0, 8.0, waiting] if waiting >= 2.0)).await;
    let lag = "approval_authority_feed_lag_seconds";
    until_page(admin, |page| page[lag] > 0.0).await;

    held.rollback().await.expect("ended");
    for call in asked {
        call.await.expect("no panic").expect("held");
    }
    until_page(admin, |page| page[lag] == 0.0 && pool(page) == [8.0, 0.0, 0.0]).await;
}

/// The oldest of each namespace is seen, however many there are in others.
#[tokio::test]
async fn pending_approvals_are_counted_within_bounds_and_the_oldest_first() {
    let database = Database::new().await;
    let fill = "INSERT INTO approval_authority.logs (namespace, epoch)
            VALUES ('large', gen_random_uuid()), ('small', gen_random_uuid());
        INSERT INTO approval_authority.approvals (namespace, id, workspace_id, action, context, request_hash, requested_by,
            on_behalf_of, reason, approvals_required, approved_ttl_ms, deny_cooldown_ms, policy_digest, recent_denials,
            create_time, state, version, expire_time)
        SELECT a.namespace, (lpad(to_hex((extract(epoch FROM a.time) * 1000)::bigint), 12, '0') || '7000'
                || '8' || substr(md5(a.namespace || a.n), 1, 15))::uuid,
            'w1', 'delete_workspace', '{}', sha256(convert_to(a.namespace || a.n, 'UTF8')), 'tokens:backend', '', '', 1, 1, 1,
            '', 0, a.time, 'PENDING', 1, a.time + interval '50 days'
        FROM (SELECT 'large' AS namespace, n, clock_timestamp() - n * interval '1 second' AS time
                FROM generate_series(1, 3000) AS n
            UNION ALL SELECT 'small', 1, clock_timestamp() - interval '2 days') AS a";
    database.connect().await.batch_execute(fill).await.expect("filled");
    let ages = database.store().pending_ages().await.expect("ages");
    assert_eq!(ages.len(), 501, "half of a thousand for each of two, and one has one");
    let most = ages.iter().max().expect("some");
    assert!(*most > Duration::from_secs(47 * 3600), "{most:?}");
    let oldest_of_the_large = ages.iter().filter(|age| **age < Duration::from_secs(4000));
    assert!(oldest_of_the_large.clone().all(|age| *age > Duration::from_secs(2400)));
    assert_eq!(oldest_of_the_large.count(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_for_programs_is_an_object_on_each_line() {
    let database = Database::new().await;
    let json = "[log]\nformat = \"json\"\n";
    let mut process = Process::with_config(&database.url, &policy_text(), json).await;
    let admin = process.admin().await;
    assert_eq!(get(admin, "/livez").await.0, 200);
    let caller = process.caller("admin").await;
    caller.put_workspace("a \"quoted\"\u{202e} name", "").await.expect("put");
    let request = DeleteWorkspaceRequest {
        workspace_id: "a \"quoted\"\u{202e} name".to_owned(),
        ..Default::default()
    };
    caller.workspaces.clone().delete_workspace(request).await.expect("deleted");
    let lines = process.logs("workspace deleted").await;
    for line in &lines {
        let object: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        for key in ["timestamp", "level", "target", "message"] {
            assert!(object[key].is_string(), "{key} in {line}");
        }
    }
    assert!(!lines.concat().contains('\u{202e}'), "{lines:?}");
}
