//! Connections: those that say nothing, and those that are too many.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use approval_authority::{
    grpc::limits::Limits,
    proto::{RequireApprovalRequest, WatchApprovalsRequest},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::timeout,
};
use tonic::transport::Endpoint;

use super::{
    PATIENCE, assert_others_are_served, check_health,
    peer::{HEADERS, PING, Peer, SETTINGS},
    until,
};
use crate::{
    database::Database,
    harness::{Caller, TestServer, request},
    server::{LIMITS, start, write_deployment},
};

async fn server(connections: usize) -> (Database, TestServer) {
    let database = Database::new().await;
    let limits = Limits { connections, ..LIMITS };
    let server = TestServer::with_limits(&database.url, limits).await;
    (database, server)
}

fn is_open(socket: &TcpStream) -> bool {
    match socket.try_read(&mut [0; 4096]) {
        Ok(read) => read > 0,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("accepted")
}

#[tokio::test]
async fn who_says_nothing_or_not_all_or_something_else_is_closed() {
    let (_database, server) = server(100).await;
    let mut sockets = Vec::new();
    for said in ["", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r", "GET / HTTP/1.1\r\nHost: test\r\n\r\n"] {
        let mut socket = connect(server.address).await;
        socket.write_all(said.as_bytes()).await.expect("sent");
        sockets.push(socket);
    }
    assert_others_are_served(server.address).await;
    for mut socket in sockets {
        let end = timeout(PATIENCE, socket.read(&mut [0])).await.expect("it is closed");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
}

/// A stream's machine is gone, and TCP has not heard of it.
#[tokio::test]
async fn a_peer_that_gives_no_sign_of_life_is_closed_and_others_are_not() {
    let database = Database::new().await;
    let limits = Limits { silent: Duration::from_secs(3), ..LIMITS };
    let server = TestServer::with_limits(&database.url, limits).await;
    let [mut gone, mut quiet] =
        [Peer::new(server.address, &[]).await, Peer::new(server.address, &[]).await];
    for peer in [&mut gone, &mut quiet] {
        peer.call(1, "WatchApprovals", "viewer").await;
        peer.read_to(HEADERS).await.expect("the beginning of the stream");
    }
    let alive = async {
        for _ in 0..3 {
            quiet.read_to(PING).await.expect("still there");
        }
    };
    let closed = async { while gone.read_silently().await.is_some() {} };
    timeout(PATIENCE, async { tokio::join!(alive, closed) }).await.expect("closed");
}

/// Those that say nothing, and those that speak HTTP/2 and do not say who they are.
#[tokio::test]
async fn connections_on_which_nobody_calls_give_way_to_those_who_do() {
    const SEATS: usize = 10;
    let (_database, server) = server(SEATS).await;
    let viewer = server.caller("viewer").await;
    let mut stream = viewer.watch(WatchApprovalsRequest::default()).await.expect("a stream");
    stream.message().await.expect("a message").expect("a bookmark");
    let idle = server.caller("backend").await;
    idle.require("w1", "delete_workspace").await;
    let mut flood = Vec::new();
    for number in 0..10 * SEATS {
        if number % 2 == 0 {
            flood.push(connect(server.address).await);
        } else {
            let mut peer = Peer::new(server.address, &[]).await;
            // It may have had to give way already.
            let _ = peer.read_to(SETTINGS).await;
            flood.push(peer.socket);
        }
        if number % SEATS == 0 {
            assert_others_are_served(server.address).await;
        }
    }
    until("there are no more than there are seats for", async || {
        flood.iter().filter(|socket| is_open(socket)).count() < SEATS
    })
    .await;
    // Neither who has a call in progress nor who had one gave way to those that never had.
    idle.require("w2", "delete_workspace").await;
    let event = stream.message().await.expect("a message").expect("no end");
    assert!(event.message.is_some());
}

#[tokio::test]
async fn when_somebody_calls_on_each_connection_one_more_is_turned_away_at_once() {
    const SEATS: usize = 5;
    let (_database, server) = server(SEATS).await;
    let wait = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let mut callers = Vec::new();
    for number in 0..SEATS {
        let mut peer = Peer::new(server.address, &[]).await;
        peer.call(1, "WatchApprovals", "viewer").await;
        peer.read_to(HEADERS).await.unwrap_or_else(|| panic!("stream {number}"));
        callers.push(peer);
    }
    let mut one_more = connect(server.address).await;
    let end = timeout(Duration::from_secs(5), one_more.read(&mut [0])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "it is not left waiting: {end:?}");
    let asked = RequireApprovalRequest { wait, ..request("w1", "delete_workspace") };
    let endpoint =
        Endpoint::from_shared(format!("http://{}", server.address)).expect("well-formed");
    let refused = match endpoint.connect().await {
        Ok(channel) => Caller::over(channel, None).ask(asked).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    drop(callers.pop());
    until("there is room again", async || {
        let endpoint = endpoint.clone();
        endpoint.connect().await.is_ok()
            && timeout(PATIENCE, probe(&endpoint)).await.is_ok_and(|ok| ok)
    })
    .await;
}

async fn probe(endpoint: &Endpoint) -> bool {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    match endpoint.connect().await {
        Ok(channel) => {
            HealthClient::new(channel).check(HealthCheckRequest::default()).await.is_ok()
        }
        Err(_) => false,
    }
}

/// A process may open fewer files than the configuration has connections.
#[tokio::test]
async fn a_server_that_runs_out_of_files_goes_on() {
    const FILES: usize = 100;
    let database = Database::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = write_deployment(folder.path(), &database.url, "");
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -Sn 64 && ulimit -Hn {FILES} && exec \"$@\"")).arg("sh");
    command.arg(env!("CARGO_BIN_EXE_approval-authority")).arg("serve").arg("--config").arg(config);
    command.kill_on_drop(true).stderr(Stdio::null());
    let (_child, address) = start(command).await;
    let mut flood = Vec::new();
    for _ in 0..3 * FILES {
        flood.push(connect(address).await);
    }
    assert_others_are_served(address).await;
    check_health(address).await;
}
