//! What the parts behind the calls count, and the log for programs.

use std::collections::BTreeMap;

use approval_authority::proto::{DeleteWorkspaceRequest, RequireApprovalRequest};

use super::{following::write_elsewhere, get, numbers, until_page};
use crate::{
    database::Database,
    harness::{id, request},
    server::{Process, policy_text},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_gate_said_and_what_people_did_is_counted() {
    let database = Database::new().await;
    let mut process = Process::serve(&database.url).await;
    let admin = process.admin().await;
    let (backend, alice) = (process.caller("backend").await, process.caller("alice").await);

    // No two numbers are equal, so that none is taken for another.
    let ask = async |workspace: &str| id(&backend.require(workspace, "delete_workspace").await);
    let attempt = RequireApprovalRequest {
        idempotency_key: "attempt".to_owned(),
        ..request("w1", "delete_workspace")
    };
    alice.approve(&ask("w1").await).await;
    for _ in 0..3 {
        backend.ask(attempt.clone()).await.expect("let through, and told again");
    }
    alice.approve(&ask("w2").await).await;
    for workspace in ["w3", "w4", "w5"] {
        alice.deny(&ask(workspace).await).await;
    }
    ask("w6").await;
    for _ in 0..4 {
        backend.require("w3", "delete_workspace").await;
    }
    for _ in 0..5 {
        backend.require("w1", "nobody_listed_it").await;
    }

    let page = numbers(admin).await;
    let outcome =
        |outcome| page[&format!("approval_authority_gate_outcomes_total{{outcome=\"{outcome}\"}}")];
    let outcomes = ["approved", "repeated", "denied", "not_required", "pending"].map(outcome);
    assert_eq!(outcomes, [1.0, 2.0, 4.0, 5.0, 6.0]);
    let event = |kind| page[&format!("approval_authority_events_total{{type=\"{kind}\"}}")];
    let events = ["REQUESTED", "APPROVED", "CONSUMED", "DENIED", "EXPIRED"].map(event);
    assert_eq!(events, [6.0, 2.0, 1.0, 3.0, 0.0]);
    for (decision, times) in [("approve", 2.0), ("deny", 3.0)] {
        let count = format!("approval_authority_decision_seconds_count{{decision=\"{decision}\"}}");
        assert_eq!(page[&count], times, "{decision}");
    }
    assert_eq!(page["approval_authority_database_pool_limit"], 8.0);
    let connections = |page: &BTreeMap<String, f64>| {
        ["connections_made_total", "pool_connections", "connections_failed_total"]
            .map(|name| page[&format!("approval_authority_database_{name}")])
    };
    until_page(admin, |page| {
        let [made, held, failed] = connections(page);
        made == held && failed == 0.0
    })
    .await;
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
    write_elsewhere(&database).await;
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
    // Some may have waited for longer than one may, which costs them an answer, and their connection.
    for call in asked {
        drop(call.await.expect("no panic"));
    }
    until_page(admin, |page| page[lag] == 0.0 && matches!(pool(page), [_, 0.0, 0.0])).await;
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
