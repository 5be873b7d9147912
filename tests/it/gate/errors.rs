//! Every way in which the authority's word cannot be had holds the operation.

use std::{net::SocketAddr, time::Duration};

use approval_authority::{
    gate::{Fault, Operation},
    proto::Outcome,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    fake::{Fake, through},
    fault, gate, gate_of, operation, pending,
};
use crate::{
    database::Database,
    harness::TestServer,
    server::{LIMITS, policy_text},
};

async fn fault_of(server: SocketAddr, subject: &str, asked: Operation) -> Fault {
    let gate = gate_of(subject, &[server], |gate| gate.deadline(Duration::from_secs(2))).await;
    fault(gate.require(asked).await)
}

#[tokio::test]
async fn what_the_authority_refuses_is_held_with_its_reason() {
    let database = Database::new().await;
    let policy =
        policy_text().replace("unlisted_actions = \"allow\"", "unlisted_actions = \"refuse\"");
    let policy = policy.replace("max_pending = 100", "max_pending = 1");
    let server = TestServer::with_policy(&database.url, &policy).await;
    pending(gate(server.address).await.require(operation("w1")).await);
    for (subject, asked, reason) in [
        ("nobody", operation("w1"), "UNAUTHENTICATED"),
        ("stranger", operation("w1"), "ROLE_MISSING"),
        ("viewer", operation("w1"), "ROLE_MISSING"),
        ("backend", Operation::new("w1", "reboot"), "ACTION_UNKNOWN"),
        ("backend", operation("w1").context(json!({"another": 1})), "TOO_MANY_PENDING"),
    ] {
        let fault = fault_of(server.address, subject, asked).await;
        assert!(matches!(fault, Fault::Refused(_)), "{fault:?}");
        assert_eq!(fault.reason(), reason);
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_held_without_a_call() {
    let fake = Fake::new(|asked| Ok(through(asked))).await;
    for wrong in [
        Operation::new("", "delete_workspace"),
        Operation::new("w1", "Delete Workspace"),
        operation("w1").context(json!("no object")),
        operation("w1").on_behalf_of(""),
        operation("w1").namespace(""),
    ] {
        let fault = fault_of(fake.address, "backend", wrong).await;
        assert!(matches!(fault, Fault::Invalid(_)), "{fault:?}");
    }
    assert!(fake.keys().is_empty());
}

#[tokio::test]
async fn an_authority_that_has_too_much_to_do_holds_what_it_is_asked() {
    let database = Database::new().await;
    let limits = approval_authority::grpc::limits::Limits { calls: 0, ..LIMITS };
    let server = TestServer::with_limits(&database.url, limits).await;
    let fault = fault_of(server.address, "backend", operation("w1")).await;
    assert!(matches!(fault, Fault::Unreachable(_)), "{fault:?}");
    assert_eq!(fault.reason(), "OVERLOADED");
}

/// A peer that takes connections and does with each what it is told.
async fn peer<Done: Future<Output = ()> + Send>(
    behave: impl Fn(TcpStream) -> Done + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            behave(connection).await;
        }
    });
    address
}

#[tokio::test]
async fn peers_that_are_no_authority_hold_what_they_are_asked() {
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address")
    };
    let closes = peer(|_| async {}).await;
    let silent = peer(|connection| async move {
        std::future::pending::<()>().await;
        drop(connection);
    })
    .await;
    let speaks_http_1 = peer(|mut connection| async move {
        let mut preface = [0; 24];
        let _ = connection.read_exact(&mut preface).await;
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let peers = [gone, closes, silent, speaks_http_1];
    let faults = peers.map(|peer| fault_of(peer, "backend", operation("w1")));
    for fault in futures_util::future::join_all(faults).await {
        assert!(matches!(fault, Fault::Unreachable(_)), "{fault:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_to_what_was_asked_lets_nobody_through() {
    let mut case = 0;
    let fake = Fake::new(move |asked| {
        let mut answer = through(asked);
        let approval = answer.approval.as_mut().expect("an approval");
        case += 1;
        match case {
            1 => answer.outcome = 99,
            2 => answer.outcome = Outcome::Unspecified.into(),
            3 => answer.approval = None,
            4 => approval.workspace_id = "w2".to_owned(),
            5 => approval.request_hash = "0".repeat(64),
            _ => approval.state = 0,
        }
        Ok(answer)
    })
    .await;
    for _ in 1..=6 {
        let fault = fault_of(fake.address, "backend", operation("w1")).await;
        assert!(matches!(fault, Fault::Untrue(_)), "{fault:?}");
    }
}
