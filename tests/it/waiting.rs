//! Calls to the gate that wait for people.

use std::time::{Duration, Instant};

use approval_authority::{
    grpc::server::Drained,
    proto::{
        ApprovalState, Outcome, RequireApprovalRequest, RequireApprovalResponse,
        WithdrawApprovalRequest,
    },
};
use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tonic::{Code, Request, Status};

use crate::{
    database::Database,
    harness::{Caller, TestServer, id, request, told},
    server::Process,
};

/// Longer than any of these tests lasts: a call that comes back later was not woken.
const LONG: Duration = Duration::from_secs(60);

fn waiting(workspace: &str, wait: Duration) -> RequireApprovalRequest {
    let wait = prost_types::Duration::try_from(wait).expect("a duration");
    RequireApprovalRequest { wait: Some(wait), ..request(workspace, "delete_workspace") }
}

type Call = JoinHandle<Result<RequireApprovalResponse, Status>>;

fn call(caller: &Caller, request: RequireApprovalRequest) -> Call {
    let caller = caller.clone();
    tokio::spawn(async move { caller.ask(request).await })
}

async fn answer(call: Call) -> RequireApprovalResponse {
    let answer = tokio::time::timeout(LONG / 2, call).await.expect("it was woken");
    answer.expect("no panic").expect("an answer of the gate's")
}

#[tokio::test]
async fn a_call_that_waits_is_told_what_is_decided_on_any_server() {
    let (database, server) = TestServer::new().await;
    let other = TestServer::on(&database.url).await;
    let (backend, alice) = (server.caller("backend").await, other.caller("alice").await);
    let approved = id(&backend.require("w1", "delete_workspace").await);
    let denied = id(&backend.require("w2", "delete_workspace").await);
    let (one, two) = (waiting("w1", LONG), waiting("w2", LONG));
    let (one, two) = (call(&backend, one), call(&backend, two));
    alice.approve(&approved).await;
    alice.deny(&denied).await;
    let one = answer(one).await;
    assert_eq!((told(&one), id(&one)), ((Outcome::Approved, ApprovalState::Consumed), approved));
    let two = answer(two).await;
    assert_eq!((told(&two), id(&two)), ((Outcome::Denied, ApprovalState::Denied), denied));
    assert!(two.retry_after.is_some());
}

/// Each in a namespace of its own, whose tail begins while the verdict is on its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_verdict_falls_between_asking_and_waiting() {
    const ROUNDS: usize = 60;
    let (_, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let rounds = (0..ROUNDS).map(|round| {
        let (backend, alice) = (backend.clone(), alice.clone());
        async move {
            let namespace = format!("round-{round}");
            let ask = RequireApprovalRequest { namespace, ..waiting("w", LONG) };
            let held = RequireApprovalRequest { wait: None, ..ask.clone() };
            let held = backend.ask(held).await.expect("held");
            let verdict = approval_authority::proto::DecideRequest {
                namespace: ask.namespace.clone(),
                approval_id: id(&held),
                decision: approval_authority::proto::Decision::Approve.into(),
                ..Default::default()
            };
            let call = call(&backend, ask);
            alice.approvals.clone().decide(verdict).await.expect("approved");
            assert_eq!(answer(call).await.outcome(), Outcome::Approved, "round {round}");
        }
    });
    join_all(rounds).await;
}

#[tokio::test]
async fn of_two_that_wait_for_one_approval_one_is_let_through_and_the_other_asks_again() {
    let (_, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let first = id(&backend.require("w1", "delete_workspace").await);
    let calls = [(); 2].map(|()| call(&backend, waiting("w1", LONG)));
    alice.approve(&first).await;
    let [mut one, mut two] = calls;
    let (through, held) = tokio::select! {
        through = &mut one => (through, two),
        through = &mut two => (through, one),
    };
    let through = through.expect("no panic").expect("let through");
    assert_eq!((through.outcome(), id(&through)), (Outcome::Approved, first.clone()));
    let second = id(&backend.require("w1", "delete_workspace").await);
    assert_ne!(second, first);
    alice.approve(&second).await;
    let held = answer(held).await;
    assert_eq!((held.outcome(), id(&held)), (Outcome::Approved, second));
}

#[tokio::test]
async fn a_denial_of_the_same_request_to_somebody_else_ends_the_wait() {
    let (_, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    backend.require("w1", "delete_workspace").await;
    let others = id(&server.caller("backend-2").await.require("w1", "delete_workspace").await);
    let call = call(&backend, waiting("w1", LONG));
    alice.deny(&others).await;
    let refused = answer(call).await;
    assert_eq!((refused.outcome(), id(&refused)), (Outcome::Denied, others));
}

/// It asked anew within milliseconds, and people were asked again for what had been taken back.
#[tokio::test]
async fn what_is_taken_back_ends_the_wait_and_is_not_asked_for_again() {
    let (database, server) = TestServer::new().await;
    let backend = server.caller("backend").await;
    let asked = "SELECT count(*) FROM approval_authority.approvals";
    let call = call(&backend, waiting("w1", LONG));
    while database.count(asked).await == 0 {
        tokio::task::yield_now().await;
    }
    let held = id(&backend.require("w1", "delete_workspace").await);
    let others = id(&server.caller("backend-2").await.require("w1", "delete_workspace").await);
    let withdraw = async |subject: &str, approval_id: &str| {
        let approval_id = approval_id.to_owned();
        let withdraw = WithdrawApprovalRequest { approval_id, ..Default::default() };
        let caller = server.caller(subject).await;
        caller.approvals.clone().withdraw_approval(withdraw).await.expect("withdrawn");
    };
    // Of the same request, and somebody else's: it wakes, and the wait goes on.
    withdraw("backend-2", &others).await;
    withdraw("backend", &held).await;
    let answer = answer(call).await;
    assert_eq!((answer.outcome(), id(&answer)), (Outcome::Pending, held));
    assert_eq!(database.count(asked).await, 2);
}

#[tokio::test]
async fn a_wait_ends_with_its_time_or_in_time_for_the_callers_deadline() {
    let (_, server) = TestServer::new().await;
    let backend = server.caller("backend").await;
    let began = Instant::now();
    let short = backend.ask(waiting("w1", Duration::from_millis(300))).await.expect("held");
    assert_eq!(short.outcome(), Outcome::Pending);
    assert!(began.elapsed() >= Duration::from_millis(300), "it waited");

    let mut hurried = Request::new(waiting("w1", LONG));
    hurried.set_timeout(Duration::from_secs(3));
    let held = backend.approvals.clone().require_approval(hurried).await.expect("in time");
    assert_eq!(held.into_inner(), short);

    for wrong in [
        prost_types::Duration { seconds: 61, nanos: 0 },
        prost_types::Duration { seconds: -1, nanos: 0 },
    ] {
        let ask = RequireApprovalRequest { wait: Some(wrong), ..request("w1", "secret_write") };
        let refused = backend.ask(ask).await.expect_err("out of bounds");
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_server_that_drains_lets_go_of_those_that_wait() {
    let (database, server) = TestServer::new().await;
    let backend = server.caller("backend").await;
    let calls: Vec<Call> =
        (0..50).map(|number| call(&backend, waiting(&format!("w{number}"), LONG))).collect();
    let asked = "SELECT count(*) FROM approval_authority.approvals";
    while database.count(asked).await < 50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.drain().await, Drained::Completely);
    for call in calls {
        assert_eq!(answer(call).await.outcome(), Outcome::Pending);
    }
}

/// While they wait the database hears of nobody: what it is asked is the keeper's and the feed's. In a process of its
/// own, so that its memory can be told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_that_wait_cost_no_connection_and_ask_the_database_nothing() {
    const WAITERS: usize = 10_000;
    const OPERATIONS: usize = 50;
    // A connection takes 1,024 streams.
    const CALLERS: usize = 12;
    let database = Database::new().await;
    let settings = [
        ("LIMITS__CALLS", "10000"),
        ("LIMITS__CALLS_PER_PRINCIPAL", "10000"),
        ("LIMITS__WAITERS_PER_PRINCIPAL", "10000"),
    ];
    let server = Process::with_settings(&database.url, &settings).await;
    let alice = server.caller("alice").await;
    let callers: Vec<Caller> = join_all((0..CALLERS).map(|_| server.caller("backend"))).await;
    let asked = join_all((0..OPERATIONS).map(|number| {
        let caller = callers[0].clone();
        async move { id(&caller.require(&format!("w{number}"), "delete_workspace").await) }
    }))
    .await;
    let before = server.resident_kib();
    let calls: Vec<Call> = (0..WAITERS)
        .map(|number| {
            let workspace = format!("w{}", number % OPERATIONS);
            call(&callers[number % CALLERS], waiting(&workspace, LONG))
        })
        .collect();
    // A call behind all of these on each connection is answered, so they have been read.
    for caller in &callers {
        caller.require("w0", "delete_workspace").await;
    }
    let statements = "SELECT xact_commit + xact_rollback FROM pg_stat_database
        WHERE datname = current_database()";
    let mut busy = i64::MAX;
    // The last of them may still be asking for the first time: the quietest of some seconds counts.
    for _ in 0..4 {
        let earlier = database.count(statements).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        busy = busy.min(database.count(statements).await - earlier);
    }
    let sessions = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let sessions = database.count(sessions).await;
    let cost = (server.resident_kib() - before) / WAITERS as i64;
    assert!(calls.iter().all(|call| !call.is_finished()), "they wait");
    println!(
        "{WAITERS} waiters: {sessions} sessions, {busy} transactions a second, {cost} KiB each"
    );
    assert!(sessions <= 9, "{sessions} sessions: the pool and the one that listens");
    assert!(busy < 50, "{busy} transactions a second");

    let decided = Instant::now();
    alice.deny(&asked[0]).await;
    let mut refused = 0;
    for (number, call) in calls.into_iter().enumerate() {
        if number % OPERATIONS == 0 {
            assert_eq!(answer(call).await.outcome(), Outcome::Denied);
            refused += 1;
        } else {
            call.abort();
        }
    }
    println!("{refused} of them refused within {:?} of the verdict's call", decided.elapsed());
}
