//! Callers and peers that mean no good, or do no good: each is bounded, and everybody else is served.

use std::{net::SocketAddr, time::Duration};

use tokio::time::timeout;
use tonic::transport::Endpoint;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::Caller;

mod answers;
mod calls;
mod connections;
mod drain;
mod frames;
mod peer;

/// Longer than anything here takes, the patience with peers included.
const PATIENCE: Duration = Duration::from_secs(60);

/// An honest caller on a connection of its own, and a health check on another, are answered.
async fn assert_others_are_served(address: SocketAddr) {
    let served = timeout(PATIENCE, async {
        Caller::new(address, "backend-2").await.require("honest", "delete_workspace").await;
        check_health(address).await;
    });
    served.await.expect("served while it goes on");
}

/// As a probe does it: on a connection that is made for it.
async fn check_health(address: SocketAddr) {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let channel = endpoint.connect().await.expect("a connection");
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.expect("healthy");
}

/// Returns once something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("it never comes to this: {what}"));
}
