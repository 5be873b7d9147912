//! A primary that dies while it is used, and its synchronous standby that takes over.

use std::time::Duration;

use futures_util::FutureExt;
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::load::Load;
use crate::{
    database::service_url,
    failover::Pair,
    history::record::{Answer, Ask},
    server::Process,
    telemetry::get,
};

/// How the service reaches whichever of the two is the primary.
fn either(pair: &Pair) -> String {
    let url = service_url(&pair.primary, "approvals");
    let host = |url: &str| url.split('\'').nth(1).expect("a host").to_owned();
    let (one, two) = (host(&url), host(&service_url(&pair.standby, "approvals")));
    url.replace(&one, &format!("{one},{two}")) + " target_session_attrs=read-write"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_primary_everything_is_held_and_then_it_goes_on_by_itself() {
    let pair = Pair::start().await;
    let url = either(&pair);
    let (one, two) = tokio::join!(Process::serve(&url), Process::serve(&url));
    let mut servers = vec![one, two];
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let admin = servers[0].admin().await;
    let endpoint = Endpoint::from_shared(format!("http://{}", addresses[0])).expect("an address");
    let mut health = HealthClient::new(endpoint.connect().await.expect("a server"));
    let all = HealthCheckRequest { service: String::new() };
    let mut status = health.watch(all).await.expect("a stream").into_inner();
    let first = status.message().await.expect("a message").expect("no end");
    assert_eq!(first.status(), ServingStatus::Serving);

    // Soon held, rather than answered late.
    let impatient = |gate: approval_authority::gate::Builder| {
        gate.wait(Duration::from_millis(300)).deadline(Duration::from_secs(1))
    };
    let load = Load::start(&addresses, impatient).await;
    load.goes_on().await;
    pair.lose_primary();
    let lost = load.now();
    load.is_held().await;
    assert_eq!(get(admin, "/readyz").await, (200, "ready\n".to_owned()));
    let restored = load.now();
    let (dead, promoted) = pair.promote().await;
    load.goes_on().await;
    assert_eq!(get(admin, "/readyz").await, (200, "ready\n".to_owned()));
    assert!(status.message().now_or_never().is_none(), "health has not changed meanwhile");
    drop((status, health));

    let calls = load.end(servers, &promoted.url("approvals")).await;
    let between = calls.iter().filter(|call| {
        matches!(call.ask, Ask::Require { .. }) && call.began > lost && call.ended < restored
    });
    let answers: Vec<&Answer> = between.map(|call| &call.answer).collect();
    assert!(
        !answers.is_empty() && answers.iter().all(|answer| **answer == Answer::Unknown),
        "{answers:?}"
    );
    promoted.stop();
    drop(dead);
}
