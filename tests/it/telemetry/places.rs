//! Who is here, for how many there is a place, and who was turned away.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use approval_authority::proto::RequireApprovalRequest;
use tonic::Code;

use super::{SERVICE, numbers, until_page};
use crate::{
    database::Database,
    harness::{id, request},
    server::Process,
};

/// The calls, those that wait for people, and the subscribers.
fn each_kind(page: &BTreeMap<String, f64>, name: &str) -> [f64; 3] {
    ["call", "waiter", "subscriber"]
        .map(|kind| page[&format!("approval_authority_calls_{name}{{kind=\"{kind}\"}}")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_here_is_counted_until_they_leave_and_who_finds_no_place_at_once() {
    let database = Database::new().await;
    let limits = [
        ("LIMITS__CALLS", "101"),
        ("LIMITS__WAITERS", "102"),
        ("LIMITS__WATCHERS", "2"),
        ("LIMITS__WATCHERS_PER_PRINCIPAL", "1"),
    ];
    let mut process = Process::with_settings(&database.url, &limits).await;
    let admin = process.admin().await;
    let (backend, alice) = (process.caller("backend").await, process.caller("alice").await);
    let (bob, carol) = (process.caller("bob").await, process.caller("carol").await);
    let pending = id(&backend.require("w0", "delete_workspace").await);
    assert_eq!(each_kind(&numbers(admin).await, "limit"), [101.0, 102.0, 2.0]);
    until_page(admin, |page| each_kind(page, "in_progress") == [0.0; 3]).await;

    let streams = [alice.watch(Default::default()).await, bob.watch(Default::default()).await];
    for (subscriber, code) in [
        (&alice, Code::ResourceExhausted),
        (&alice, Code::ResourceExhausted),
        (&carol, Code::Unavailable),
    ] {
        let refused = subscriber.watch(Default::default()).await.expect_err("no place");
        assert_eq!(refused.code(), code);
    }
    let ask = |workspace: &str, wait: Option<i64>| {
        let wait = wait.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
        let ask = RequireApprovalRequest { wait, ..request(workspace, "delete_workspace") };
        let backend = backend.clone();
        tokio::spawn(async move { backend.ask(ask).await })
    };
    let waiters = [(); 3].map(|()| ask("w0", Some(60)));
    until_page(admin, |page| each_kind(page, "in_progress") == [0.0, 3.0, 2.0]).await;
    let mut other = database.connect().await;
    let held = other.transaction().await.expect("begun");
    let lock = "LOCK TABLE approval_authority.approvals IN ACCESS EXCLUSIVE MODE";
    held.execute(lock, &[]).await.expect("locked");
    let calls = ["w1", "w2", "w3", "w4"].map(|workspace| ask(workspace, None));
    until_page(admin, |page| each_kind(page, "in_progress") == [4.0, 3.0, 2.0]).await;

    held.rollback().await.expect("ended");
    for call in calls {
        call.await.expect("no panic").expect("held");
    }
    alice.deny(&pending).await;
    for waiter in waiters {
        waiter.await.expect("no panic").expect("denied");
    }
    drop(streams);
    until_page(admin, |page| each_kind(page, "in_progress") == [0.0; 3]).await;
    let page = numbers(admin).await;
    let refused = ["principal", "server"]
        .map(|whose| page[&format!("approval_authority_refused_calls_total{{limit=\"{whose}\"}}")]);
    assert_eq!(refused, [2.0, 1.0]);
}

/// In seconds: no less than the server was told to wait, and no more than the caller waited for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_takes_until_it_is_answered() {
    let database = Database::new().await;
    let mut process = Process::serve(&database.url).await;
    let admin = process.admin().await;
    let backend = process.caller("backend").await;
    let wait = Some(prost_types::Duration { seconds: 0, nanos: 250_000_000 });
    let began = Instant::now();
    let ask = RequireApprovalRequest { wait, ..request("w1", "delete_workspace") };
    backend.ask(ask).await.expect("held");
    // The end of an answer is behind all that a caller reads of it.
    let series = |part: &str| {
        let labels = format!(
            "grpc_method=\"RequireApproval\",grpc_service=\"{SERVICE}\",grpc_type=\"unary\""
        );
        format!("grpc_server_handling_seconds_{part}{{{labels}}}")
    };
    until_page(admin, |page| page[&series("count")] == 1.0).await;
    let took = numbers(admin).await[&series("sum")];
    let range = 0.25..=began.elapsed().as_secs_f64();
    assert!(range.contains(&took) && took < Duration::from_secs(60).as_secs_f64(), "{took}");
}
