//! A primary that dies before its synchronous standby has what it committed.

use std::{
    net::SocketAddr,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use approval_authority::{
    embedded::{Cluster, Keep},
    proto::{ApprovalState, DecideRequest, Decision, Outcome},
};
use nix::sys::signal::Signal;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tonic::{Code, Status};

use crate::{
    database::{cluster_folder, connect, deploy, installation, service_url},
    harness::{id, refusal, request, told},
    processes::{Silence, processes, signal},
    server::{Process, TestServer},
    telemetry::numbers,
};

/// A primary and its synchronous standby.
pub struct Pair {
    pub primary: Cluster,
    pub standby: Cluster,
    standby_folder: PathBuf,
}

impl Pair {
    pub async fn start() -> Self {
        let folder = cluster_folder();
        let primary =
            Cluster::start(&installation(), &folder, &[], Keep::Nothing).await.expect("started");
        deploy(&primary, "approvals").await;

        // Within the primary's folder, and so removed with it.
        let standby_folder = folder.join("standby");
        base_backup(&folder, &standby_folder);
        let standby = Cluster::start(&installation(), &standby_folder, &[], Keep::Data)
            .await
            .expect("started");
        let admin = connect(&primary.url("postgres")).await;
        let synchronous = "ALTER SYSTEM SET synchronous_standby_names = '*'";
        admin.batch_execute(synchronous).await.expect("set");
        admin.batch_execute("SELECT pg_reload_conf()").await.expect("reloaded");
        let follows = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        until_positive(&admin, follows).await;
        Self { primary, standby, standby_folder }
    }

    /// The primary's machine dies, its WAL senders too.
    pub fn lose_primary(&self) {
        signal(&processes(&self.primary), Signal::SIGKILL);
    }

    /// The primary's machine dies, and with it what the standby had not written down. Then the standby takes over.
    async fn fail_over(self) -> (Cluster, Cluster) {
        self.lose_primary();
        self.promote().await
    }

    /// The standby takes over with what it had written down.
    pub async fn promote(self) -> (Cluster, Cluster) {
        signal(&processes(&self.standby), Signal::SIGKILL);
        drop(self.standby);
        let promoted = Cluster::start(&installation(), &self.standby_folder, &[], Keep::Data)
            .await
            .expect("started");
        let admin = connect(&promoted.url("postgres")).await;
        admin.batch_execute("SELECT pg_promote()").await.expect("promoted");
        (self.primary, promoted)
    }
}

fn base_backup(primary: &Path, standby: &Path) {
    let owner = std::fs::metadata(primary).expect("a folder");
    let mut command = Command::new(installation().bin().join("pg_basebackup"));
    command.arg("-h").arg(primary.join("socket")).args([
        "-U",
        "authority",
        "-R",
        "-c",
        "fast",
        "-D",
    ]);
    command.arg(standby.join("data")).current_dir("/");
    if nix::unistd::geteuid().is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    let output = command.output().expect("pg_basebackup");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn until_positive(client: &Client, query: &str) {
    let began = Instant::now();
    while client.query_one(query, &[]).await.expect("a count").get::<_, i64>(0) == 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "still none: {query}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Cancels every COMMIT that waits for the standby, until a call has its answer.
async fn cancelling<T>(admin: &Client, call: JoinHandle<T>) -> (T, i64) {
    let mut cancelled = 0;
    let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
        WHERE wait_event = 'SyncRep'";
    while !call.is_finished() {
        cancelled += admin.query_one(cancel, &[]).await.expect("cancelled").get::<_, i64>(0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (call.await.expect("no panic"), cancelled)
}

/// How many COMMITs were not confirmed, by what was found out: committed, rolled back, nothing.
async fn unknown_commits(page: SocketAddr) -> [f64; 3] {
    let numbers = numbers(page).await;
    ["committed", "rolled_back", "nothing"].map(|found| {
        numbers[&format!("approval_authority_commits_unknown_total{{found=\"{found}\"}}")]
    })
}

fn assert_unknown<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let refused = answer.expect_err("not durable, not done");
    assert_eq!(refusal(&refused), (Code::Unavailable, "STORE_UNAVAILABLE".to_owned()));
    assert!(refused.message().contains("unknown"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_standby_has_not_confirmed_is_not_answered_as_done() {
    let pair = Pair::start().await;
    let mut server = Process::serve(&service_url(&pair.primary, "approvals")).await;
    let page = server.admin().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let approved = id(&backend.require("w1", "delete_workspace").await);
    alice.approve(&approved).await;
    // In another namespace, so that the two have nothing to wait for but the standby.
    let mut elsewhere = request("w2", "delete_workspace");
    elsewhere.namespace = "acme".to_owned();
    let pending = id(&backend.ask(elsewhere).await.expect("held"));

    let silence = Silence::of(&pair.standby);
    let admin = connect(&pair.primary.url("postgres")).await;
    let consume = tokio::spawn({
        let backend = backend.clone();
        async move { backend.ask(request("w1", "delete_workspace")).await }
    });
    let decide = DecideRequest {
        namespace: "acme".to_owned(),
        approval_id: pending.clone(),
        decision: Decision::Approve.into(),
        ..Default::default()
    };
    let deciding = tokio::spawn({
        let (mut approvals, decide) = (alice.approvals.clone(), decide.clone());
        async move { approvals.decide(decide).await }
    });
    let (consumed, cancelled) = cancelling(&admin, consume).await;
    assert_unknown(consumed);
    assert!(cancelled > 0, "a COMMIT was cancelled");
    assert_unknown(cancelling(&admin, deciding).await.0);
    assert_eq!(unknown_commits(page).await, [0.0, 0.0, 2.0], "nothing is found out");
    let state = format!(
        "SELECT count(*) FROM approval_authority.approvals
        WHERE id = '{approved}' AND state = 'CONSUMED'"
    );
    let primary = connect(&pair.primary.url("approvals")).await;
    let there = primary.query_one(&state, &[]).await.expect("a count").get::<_, i64>(0);
    assert_eq!(there, 1, "the primary has it, and would have said so");
    drop(server);

    let (dead, promoted) = pair.fail_over().await;
    drop(silence);
    let server = TestServer::on(&service_url(&promoted, "approvals")).await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let decided = alice.approvals.clone().decide(decide).await.expect("decided").into_inner();
    assert_eq!(
        decided.approval.expect("it").version,
        2,
        "the verdict was lost, and is given again"
    );
    let first = backend.require("w1", "delete_workspace").await;
    assert_eq!(told(&first), (Outcome::Approved, ApprovalState::Consumed), "for the first time");
    let second = backend.require("w1", "delete_workspace").await;
    assert_eq!(second.outcome(), Outcome::Pending, "and the last");
    promoted.stop();
    drop(dead);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_standby_confirms_in_time_is_answered() {
    let pair = Pair::start().await;
    let mut server = Process::serve(&service_url(&pair.primary, "approvals")).await;
    let page = server.admin().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let approved = id(&backend.require("w1", "delete_workspace").await);
    alice.approve(&approved).await;

    // One COMMIT is cancelled while the standby is silent; then it speaks, and the ledger finds out.
    let silence = Silence::of(&pair.standby);
    let admin = connect(&pair.primary.url("postgres")).await;
    let consume = tokio::spawn({
        let backend = backend.clone();
        async move { backend.ask(request("w1", "delete_workspace")).await }
    });
    let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
        WHERE wait_event = 'SyncRep'";
    until_positive(&admin, cancel).await;
    drop(silence);
    let through = consume.await.expect("no panic").expect("found out");
    assert_eq!(told(&through), (Outcome::Approved, ApprovalState::Consumed));
    assert_eq!(unknown_commits(page).await, [1.0, 0.0, 0.0], "it was committed");

    let (dead, promoted) = pair.fail_over().await;
    let server = TestServer::on(&service_url(&promoted, "approvals")).await;
    let again = server.caller("backend").await.require("w1", "delete_workspace").await;
    assert_eq!(again.outcome(), Outcome::Pending, "what was acknowledged survived");
    promoted.stop();
    drop(dead);
}

/// A repeated verdict was answered from a read that waited for nothing: the denial it acknowledged was lost with
/// the primary, and the operation was let through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_verdict_is_as_durable_as_the_first() {
    let pair = Pair::start().await;
    let server = TestServer::on(&service_url(&pair.primary, "approvals")).await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let held = id(&backend.require("w1", "delete_workspace").await);

    let silence = Silence::of(&pair.standby);
    let admin = connect(&pair.primary.url("postgres")).await;
    for attempt in ["the first", "a repeated"] {
        let deny = tokio::spawn({
            let (alice, held) = (alice.clone(), held.clone());
            async move { alice.decide(&held, Decision::Deny).await }
        });
        let (denied, cancelled) = cancelling(&admin, deny).await;
        assert_unknown(denied);
        assert!(cancelled > 0, "{attempt} denial waits for the standby");
    }
    drop(silence);
    let denied = alice.deny(&held).await;
    assert_eq!(denied.state(), ApprovalState::Denied);

    let (dead, promoted) = pair.fail_over().await;
    let server = TestServer::on(&service_url(&promoted, "approvals")).await;
    let refused = server.caller("backend").await.require("w1", "delete_workspace").await;
    assert_eq!(refused.outcome(), Outcome::Denied, "no is no");
    promoted.stop();
    drop(dead);
}
