//! A server that drains ends, whoever is connected.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use super::{
    PATIENCE,
    peer::{HEADERS, INITIAL_WINDOW_SIZE, PING, Peer, frame},
};
use crate::{
    certificates::Authority,
    database::Database,
    harness::TestServer,
    server::{Process, write_deployment},
};

const GRACE: (&str, &str) = ("SERVER__DRAIN_GRACE", "2s");

async fn ends(mut process: Process) {
    process.signal(Signal::SIGTERM);
    let exited = timeout(PATIENCE, process.child.wait()).await.expect("it ends");
    assert_eq!(exited.expect("exited").code(), Some(0));
}

#[tokio::test]
async fn with_peers_that_say_nothing_read_nothing_or_take_nothing() {
    let database = Database::new().await;
    let process = Process::with_settings(&database.url, &[GRACE]).await;
    let _silent = TcpStream::connect(process.address).await.expect("accepted");
    let mut reads_nothing = Peer::new(process.address, &[]).await;
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(10_000);
    while let Ok(sent) = timeout(Duration::from_millis(500), reads_nothing.send(&pings)).await {
        sent.expect("not closed yet");
    }
    let mut takes_nothing = Peer::new(process.address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    for (stream, call) in [(1, "GetPolicy"), (3, "WatchApprovals")] {
        takes_nothing.call(stream, call, "viewer").await;
        takes_nothing.read_to(HEADERS).await.expect("the beginning of an answer");
    }
    let mut says_half = Peer::new(process.address, &[]).await;
    says_half.begin(1, "RequireApproval", "backend").await;
    ends(process).await;
}

#[tokio::test]
async fn with_a_peer_that_does_not_finish_its_handshake() {
    let database = Database::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let tls = "[server.tls]\ncert = \"server.pem\"\nkey = \"server.key\"\n";
    write_deployment(folder.path(), &database.url, tls);
    Authority::new("servers").certify(&["authority.test"]).write(folder.path());
    let process = Process::of(folder).await;
    let mut begins = TcpStream::connect(process.address).await.expect("accepted");
    begins.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.expect("written");
    ends(process).await;
}

/// They hold up nothing, and so the drain is complete.
#[tokio::test]
async fn who_has_not_been_greeted_is_not_waited_for() {
    use approval_authority::grpc::server::Drained;
    let (_database, server) = TestServer::new().await;
    let _silent = TcpStream::connect(server.address).await.expect("accepted");
    super::assert_others_are_served(server.address).await;
    assert_eq!(server.drain().await, Drained::Completely);
}
