//! The database goes away, and comes back.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use approval_authority::{
    approval::{self, Operation, gate::Require},
    embedded::{Cluster, Keep},
    error::Error,
    names::{Namespace, WorkspaceId},
    proto::{self, ApprovalState, Decision, Outcome},
    store::listing::{Filter, Selection},
};
use futures_util::{FutureExt, future::join_all};
use tonic::{Code, Status};

use crate::{
    database::{cluster_folder, deploy, installation, store},
    harness::{Caller, id, refusal, request},
    processes::Silence,
    server::TestServer,
    service::{Service, call},
};

/// Longer than any call may take: the server's patience is 10 s.
const DEADLINE: Duration = Duration::from_secs(12);

const LOCK_THE_LOG: &str =
    "SELECT FROM approval_authority.log_locks WHERE namespace = 'default' FOR UPDATE";

async fn unavailable<T: std::fmt::Debug>(call: impl Future<Output = Result<T, Status>>) {
    let began = Instant::now();
    let answer = tokio::time::timeout(DEADLINE, call).await.expect("an answer in time");
    let refused = answer.expect_err("no database, no answer that lets through");
    let expected = (Code::Unavailable, "STORE_UNAVAILABLE".to_owned());
    assert_eq!(refusal(&refused), expected, "{refused:?} after {:?}", began.elapsed());
}

/// Calls until the service has recovered.
async fn until_answered(backend: &Caller, workspace: &str) -> proto::RequireApprovalResponse {
    let began = Instant::now();
    loop {
        match backend.ask(request(workspace, "delete_workspace")).await {
            Ok(answer) => return answer,
            Err(refused) => {
                assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
                assert!(began.elapsed() < Duration::from_secs(30), "it does not recover");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_ends_in_unavailable_and_the_service_recovers_by_itself() {
    let folder = cluster_folder();
    let cluster = Cluster::start(&installation(), &folder, &[], Keep::Data).await.expect("started");
    let url = deploy(&cluster, "approvals").await;
    let server = TestServer::on(&url).await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let admin = server.caller("admin").await;
    let approved = id(&backend.require("w1", "delete_workspace").await);
    alice.approve(&approved).await;
    let pending = id(&backend.require("w2", "delete_workspace").await);

    cluster.stop();
    unavailable(backend.ask(request("w1", "delete_workspace"))).await;
    unavailable(backend.ask(request("w2", "delete_workspace"))).await;
    unavailable(backend.ask(request("w3", "delete_workspace"))).await;
    unavailable(alice.decide(&pending, Decision::Approve)).await;
    unavailable(alice.get(&pending)).await;
    unavailable(alice.list(proto::ListApprovalsRequest::default())).await;
    unavailable(alice.watch(proto::WatchApprovalsRequest::default())).await;
    unavailable(admin.put_workspace("w1", "")).await;
    let mut trees = admin.workspaces.clone();
    unavailable(trees.list_workspaces(proto::ListWorkspacesRequest::default())).await;
    let delete = proto::DeleteWorkspaceRequest { workspace_id: "w1".into(), ..Default::default() };
    unavailable(trees.delete_workspace(delete)).await;
    let withdraw =
        proto::WithdrawApprovalRequest { approval_id: pending.clone(), ..Default::default() };
    unavailable(backend.approvals.clone().withdraw_approval(withdraw)).await;

    let cluster =
        Cluster::start(&installation(), &folder, &[], Keep::Nothing).await.expect("again");
    let through = until_answered(&backend, "w1").await;
    assert_eq!((through.outcome(), id(&through)), (Outcome::Approved, approved));
    assert_eq!(id(&until_answered(&backend, "w2").await), pending);
    drop(server);
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_stops_answering_holds_nobody_past_the_deadline() {
    let folder = cluster_folder();
    let cluster =
        Cluster::start(&installation(), &folder, &[], Keep::Nothing).await.expect("started");
    let url = deploy(&cluster, "approvals").await;
    let server = TestServer::on(&url).await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let approved = id(&backend.require("w1", "delete_workspace").await);
    alice.approve(&approved).await;

    // The processes are still there and say nothing, as behind a network that drops everything.
    let silence = Silence::of(&cluster);
    // Answered by the server, before the caller's own clock would have said CANCELLED or DEADLINE_EXCEEDED.
    let mut ask = tonic::Request::new(request("w1", "delete_workspace"));
    ask.set_timeout(Duration::from_secs(5));
    let refused = backend.approvals.clone().require_approval(ask).await.expect_err("no answer");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    drop(silence);

    // What the caller gave up on may have gone through meanwhile, and then it was used: once, and for nothing.
    let answer = until_answered(&backend, "w1").await;
    let consumed = alice.get(&approved).await.expect("it").consume_time.is_some();
    assert_eq!(answer.outcome() == Outcome::Approved || id(&answer) != approved, consumed);
    cluster.stop();
}

/// A row that another session held failed every command that waited with the one that needed it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_approval_holds_up_its_own_command_only() {
    let (database, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let locked = id(&backend.require("w1", "delete_workspace").await);
    let mut client = database.connect().await;
    let holder = client.transaction().await.expect("begun");
    let lock =
        format!("SELECT id FROM approval_authority.approvals WHERE id = '{locked}' FOR UPDATE");
    holder.batch_execute(&lock).await.expect("locked");

    let stuck = tokio::spawn({
        let (alice, locked) = (alice.clone(), locked.clone());
        async move { alice.decide(&locked, Decision::Approve).await }
    });
    database.until_a_lock_is_waited_for().await;
    // These make the next batch, together with another verdict that meets the same lock.
    let bob = server.caller("bob").await;
    let stuck_too = tokio::spawn({
        let locked = locked.clone();
        async move { bob.decide(&locked, Decision::Approve).await }
    });
    let others = (0..4).map(|number| backend.ask(request(&format!("x{number}"), "secret_write")));
    for other in join_all(others).await {
        assert_eq!(other.expect("not held up for good").outcome(), Outcome::Pending);
    }
    for stuck in [stuck, stuck_too] {
        let refused = stuck.await.expect("no panic").expect_err("its row is held");
        assert_eq!(refused.code(), Code::Unavailable);
    }
    holder.rollback().await.expect("released");
    alice.approve(&locked).await;
}

/// Of several hosts the first one that said nothing kept the others from being tried.
#[tokio::test]
async fn a_host_that_accepts_and_says_nothing_is_passed_over() {
    let database = crate::database::Database::new().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let (host, rest) = database.url.split_once("user=").expect("a URL");
    let socket = host.trim().trim_start_matches("host='").trim_end_matches('\'');
    let url = format!("host=127.0.0.1,{socket} port={port},5432 user={rest}");
    let nowhere = format!("host=127.0.0.1,127.0.0.1 port={port},1 user={rest}");
    let failed = store(&nowhere).schema_status().await.expect_err("none of them").to_string();
    let first = format!("127.0.0.1:{port}: the database did not answer in time; 127.0.0.1:1: ");
    assert!(failed.contains(&first), "{failed}");
    while silent.accept().now_or_never().is_some() {}
    let store = store(&url);
    let status = store.schema_status().await.expect("the second host");
    assert_eq!(status, approval_authority::store::schema::SchemaStatus::Fits);
    let mut at_once = Vec::new();
    for _ in 0..4 {
        at_once.push(store.begin().await.expect("begun"));
    }
    assert!(silent.accept().now_or_never().is_some(), "it was tried");
    assert!(silent.accept().now_or_never().is_none(), "once: then the other is the first");
}

/// The database's end of a connection that was closed goes on waiting for a lock, and with each try there would be one more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_was_given_up_does_not_wait_on_in_the_database() {
    let service = Service::new().await;
    service.pending().await;
    let mut other = service.database.connect().await;
    let held = other.transaction().await.expect("begun");
    let lock = "LOCK TABLE approval_authority.approvals IN ACCESS EXCLUSIVE MODE";
    held.execute(lock, &[]).await.expect("locked");
    let waited_for = service.database.until_a_lock_is_waited_for();
    let (answer, ()) = tokio::join!(service.ledger.require(call()), waited_for);
    assert!(matches!(answer, Err(Error::StoreUnavailable)), "{answer:?}");
    let until = Instant::now() + DEADLINE;
    while service.database.waiting_for_locks().await > 0 {
        assert!(Instant::now() < until, "it waits on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A batch that met a lock on its log was parted, and each of its commands waited for that lock on a connection of its own:
/// no other namespace got one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_held_keeps_one_connection() {
    let service = Service::new().await;
    service.pending().await;
    let mut other = service.database.connect().await;
    let held = other.transaction().await.expect("begun");
    held.execute(LOCK_THE_LOG, &[]).await.expect("locked");
    let in_workspace = |number: usize| {
        let call = call();
        let workspace = WorkspaceId::parse(format!("x{number}")).expect("a name");
        let Operation { action, context, requested_by, .. } = call.operation;
        Require {
            operation: Operation::new(workspace, action, context, requested_by, None),
            ..call
        }
    };
    let mut held_up =
        pin!(join_all((0..40).map(|number| service.ledger.require(in_workspace(number)))));
    let mut most = 0;
    let answers = loop {
        tokio::select! {
            answers = &mut held_up => break answers,
            waiting = service.database.waiting_for_locks() => most = most.max(waiting),
        }
    };
    for answer in answers {
        assert!(matches!(answer, Err(Error::StoreUnavailable)), "{answer:?}");
    }
    assert_eq!(most, 1, "at once");
}

/// The statements of a list shared one patience: those that took long together condemned every connection that there was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_statement_of_a_list_has_its_own_time() {
    const HELD: Duration = Duration::from_millis(3500);
    let service = Service::new().await;
    service.pending().await;
    let (mut one, mut two) = (service.database.connect().await, service.database.connect().await);
    let mut held = Vec::new();
    for (client, table) in [(&mut one, "logs"), (&mut two, "approvals")] {
        let lock = format!("LOCK TABLE approval_authority.{table} IN ACCESS EXCLUSIVE MODE");
        let transaction = client.transaction().await.expect("begun");
        transaction.batch_execute(&lock).await.expect("locked");
        held.push(transaction);
    }
    let all = Filter { workspaces: Selection::All, states: vec![], actions: vec![] };
    let namespace = Namespace::default_namespace();
    let list = service.store.approvals(&namespace, &all, None, 10);
    let releases = async {
        for transaction in held {
            service.database.until_a_lock_is_waited_for().await;
            tokio::time::sleep(HELD).await;
            transaction.rollback().await.expect("released");
        }
    };
    let (listed, ()) = tokio::join!(list, releases);
    assert_eq!(listed.expect("a list").approvals.len(), 1);
}

/// A call that was cancelled while the log was held used its approval all the same, and nobody acted on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_gone_uses_no_approval() {
    tokio::join!(gone(None), gone(Some(60)));
}

/// Of a call that would wait for so many seconds, if any.
async fn gone(wait: Option<i64>) {
    let (database, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let approved = id(&backend.require("w1", "delete_workspace").await);
    alice.approve(&approved).await;
    backend.require("w2", "delete_workspace").await;
    let mut client = database.connect().await;
    let holder = client.transaction().await.expect("begun");
    holder.execute(LOCK_THE_LOG, &[]).await.expect("locked");
    let cancelled = tokio::spawn({
        let backend = backend.clone();
        let wait = wait.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
        let ask = proto::RequireApprovalRequest { wait, ..request("w1", "delete_workspace") };
        async move { backend.ask(ask).await }
    });
    database.until_a_lock_is_waited_for().await;
    cancelled.abort();
    // Calls on the same connection, which the server reads behind the one that takes the first back: they need no log.
    for _ in 0..3 {
        assert_eq!(backend.require("w2", "delete_workspace").await.outcome(), Outcome::Pending);
    }
    holder.rollback().await.expect("released");
    // Behind whatever became of the first.
    backend.require("w3", "delete_workspace").await;
    assert_eq!(alice.get(&approved).await.expect("it").state(), ApprovalState::Approved);
    assert_eq!(backend.require("w1", "delete_workspace").await.outcome(), Outcome::Approved);
}

/// Lists, and subscribers that come back, kept those waiting who decide.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_do_not_keep_decisions_waiting() {
    let service = Service::new().await;
    let held = service.pending().await;
    let mut readers = Vec::new();
    let a_while = Duration::from_millis(500);
    while let Ok(reader) = tokio::time::timeout(a_while, service.store.begin_snapshot()).await {
        readers.push(reader.expect("begun"));
    }
    assert!(!readers.is_empty());
    let namespace = Namespace::default_namespace();
    let found = service.store.approval(&namespace, held);
    let found = tokio::time::timeout(DEADLINE, found).await.expect("in time").expect("read");
    assert!(found.is_some());
    let root = WorkspaceId::parse("w1").expect("a name");
    let path = service.store.path(&namespace, &root);
    let path = tokio::time::timeout(DEADLINE, path).await.expect("in time").expect("read");
    assert_eq!(path[..], [root]);
    service.decide(held, approval::Decision::Approve).await.expect("approved");
}
