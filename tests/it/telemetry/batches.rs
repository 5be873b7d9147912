//! What the ledger does in batches, how long people take, and what becomes of COMMITs that are not answered.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tonic::Code;

use super::{numbers, until_page};
use crate::{
    database::Database,
    harness::{id, request},
    proxy::{Fate, Proxy},
    server::Process,
};

/// How many batches of a kind there were, how many commands they were for, and for how long.
#[derive(Clone, Copy, Debug)]
struct Batches {
    count: f64,
    commands: f64,
    seconds: f64,
}

async fn batches(admin: SocketAddr, kind: &str) -> Batches {
    let page = numbers(admin).await;
    let of = |what| page[&format!("approval_authority_batch_{what}{{kind=\"{kind}\"}}")];
    assert_eq!(of("size_count"), of("seconds_count"), "{kind}");
    Batches { count: of("size_count"), commands: of("size_sum"), seconds: of("seconds_sum") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_counted_once_with_all_that_share_it_and_for_as_long_as_it_takes() {
    const CROWD: usize = 10;
    let database = Database::new().await;
    let mut process = Process::serve(&database.url).await;
    let began = Instant::now();
    let admin = process.admin().await;
    let (backend, alice) = (process.caller("backend").await, process.caller("alice").await);
    let held = id(&backend.require("w0", "delete_workspace").await);
    let both = async || (batches(admin, "look").await, batches(admin, "commit").await);
    let asked = both().await;
    backend.require("w0", "delete_workspace").await;
    let joined = both().await;
    assert_eq!([joined.0.count, joined.0.commands], [2.0, 2.0], "a look for each: {joined:?}");
    assert_eq!(joined.1.count, asked.1.count, "and nothing to commit for who joins");
    alice.approve(&held).await;
    let approved = both().await;
    assert_eq!(approved.0.count, 2.0, "a verdict needs no look: {approved:?}");
    assert_eq!(approved.1.count, joined.1.count + 1.0);
    assert_eq!(approved.1.commands, joined.1.commands + 1.0);

    let mut other = database.connect().await;
    let lock = other.transaction().await.expect("begun");
    let table = "LOCK TABLE approval_authority.approvals IN ACCESS EXCLUSIVE MODE";
    lock.execute(table, &[]).await.expect("locked");
    let crowd: Vec<_> = (1..=CROWD)
        .map(|number| {
            let ask = request(&format!("w{number}"), "delete_workspace");
            let backend = backend.clone();
            tokio::spawn(async move { backend.ask(ask).await })
        })
        .collect();
    let here = "approval_authority_calls_in_progress{kind=\"call\"}";
    until_page(admin, |page| page[here] == CROWD as f64).await;
    // What is measured: the first of them has waited since before this.
    let waits = Duration::from_millis(200);
    tokio::time::sleep(waits).await;
    lock.rollback().await.expect("ended");
    for call in crowd {
        call.await.expect("no panic").expect("held");
    }
    let (looks, commits) = both().await;
    for (now, before) in [(looks, approved.0), (commits, approved.1)] {
        let commands = now.commands - before.commands;
        assert_eq!(commands, CROWD as f64, "{now:?}");
        assert!(now.count - before.count < commands, "they shared: {now:?}");
    }
    // No two looks of one namespace are in flight at once.
    let seconds = looks.seconds - approved.0.seconds;
    let range = waits.as_secs_f64()..=began.elapsed().as_secs_f64();
    assert!(range.contains(&seconds), "{seconds} not in {range:?}");
}

/// By the database's clock, which alone knows when somebody asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_took_from_the_request_to_the_verdict() {
    let database = Database::new().await;
    let mut process = Process::serve(&database.url).await;
    let began = Instant::now();
    let admin = process.admin().await;
    let (backend, alice) = (process.caller("backend").await, process.caller("alice").await);
    let mut asked = Vec::new();
    for workspace in ["w1", "w2", "w3"] {
        asked.push(id(&backend.require(workspace, "delete_workspace").await));
    }
    database.move_clock("20 minutes").await;
    alice.approve(&asked[0]).await;
    backend.require("w1", "delete_workspace").await;
    database.move_clock("50 minutes").await;
    alice.deny(&asked[1]).await;
    alice.deny(&asked[2]).await;
    let page = numbers(admin).await;
    for (decision, count, minutes) in [("approve", 1.0, 20.0), ("deny", 2.0, 100.0)] {
        let of = |part| {
            page[&format!("approval_authority_decision_seconds_{part}{{decision=\"{decision}\"}}")]
        };
        assert_eq!(of("count"), count, "{decision}");
        let seconds = of("sum") - minutes * 60.0;
        let range = 0.0..=count * began.elapsed().as_secs_f64();
        assert!(range.contains(&seconds), "{decision}: {seconds} not in {range:?}");
    }
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
    // To find out takes a COMMIT, too.
    proxy.each(|| Fate::Lost);
    let refused = backend.ask(request("w3", "delete_workspace")).await.expect_err("unknown");
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(found(&numbers(admin).await), [1.0, 1.0, 1.0]);
}
