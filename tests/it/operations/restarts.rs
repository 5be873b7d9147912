//! A rolling restart.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::load::Load;
use crate::{database::Database, server::Process};

/// Told to stop, as by an orchestrator, and gone.
pub async fn stop(server: &mut Process) {
    server.signal(Signal::SIGTERM);
    let status = tokio::time::timeout(Duration::from_secs(30), server.child.wait()).await;
    let status = status.expect("within its grace").expect("exited");
    assert!(status.success(), "it drains: {status}");
}

/// Another one in its place.
pub async fn start_again(server: &mut Process, url: &str) {
    let listen = server.address.to_string();
    *server = Process::with_settings(url, &[("SERVER__LISTEN", &listen)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_that_servers_are_restarted_one_by_one() {
    let database = Database::new().await;
    let (one, two) = tokio::join!(Process::serve(&database.url), Process::serve(&database.url));
    let mut servers = vec![one, two];
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    // Calls that wait for the approver are in progress whenever a server is told to stop.
    let load = Load::start(&addresses, |gate| gate.wait(Duration::from_secs(2))).await;
    for server in [0, 1, 0, 1] {
        load.goes_on().await;
        stop(&mut servers[server]).await;
        load.goes_on().await;
        start_again(&mut servers[server], &database.url).await;
    }
    load.goes_on().await;
    assert_eq!(load.faults(), [""; 0]);
    load.end(servers, &database.owner_url).await;
}
