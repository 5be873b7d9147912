//! Bytes of all kinds as the body of every call, to a real server: each is answered with a status, and the server goes on. What is decoded, and into what, is fuzzed beside the decoders.

use std::{collections::BTreeMap, time::Duration};

use approval_authority::{auth::permissions::PERMISSIONS, proto};
use http_body_util::{BodyExt, Full};
use proptest::test_runner::Config;
use prost::Message;
use tokio::time::timeout;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Bytes, Service, http},
    transport::{Channel, Endpoint},
};

use crate::{
    harness::{TestServer, context, id},
    rng::Rng,
};

/// Longer than any call takes that says that it has 2 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who may make a call, so that it is read at all.
fn caller(path: &str) -> &'static str {
    match path.rsplit('/').next() {
        Some("RequireApproval" | "WithdrawApproval" | "ReportResult") => "backend",
        Some("PutWorkspace" | "DeleteWorkspace") => "admin",
        _ => "alice",
    }
}

/// A good request of a call's, or, once in a while and where there is none, of another's: it may be taken for one.
fn good(rng: &mut Rng, path: &str, approval_id: &str) -> Vec<u8> {
    let (namespace, approval_id) = (String::new(), approval_id.to_owned());
    let calls = ["RequireApproval", "Decide", "PutWorkspace", "ListApprovals", "WatchApprovals"];
    let own = calls.iter().position(|call| path.ends_with(call)).filter(|_| !rng.one_in(8));
    match own.unwrap_or_else(|| rng.index(0..calls.len())) {
        0 => proto::RequireApprovalRequest {
            workspace_id: format!("w{}", rng.within(0..4)),
            action: "secret_write".to_owned(),
            context: Some(context(&[("a", 1.0), ("b", -0.5)])),
            wait: Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 }),
            ..Default::default()
        }
        .encode_to_vec(),
        1 => proto::DecideRequest {
            namespace,
            approval_id,
            decision: proto::Decision::Approve.into(),
            reason: "because".to_owned(),
            ..Default::default()
        }
        .encode_to_vec(),
        2 => {
            let workspace = proto::Workspace { id: "w1".to_owned(), ..Default::default() };
            proto::PutWorkspaceRequest { workspace: Some(workspace) }.encode_to_vec()
        }
        3 => proto::ListApprovalsRequest {
            workspace_ids: vec!["w1".to_owned()],
            states: vec![1, 2],
            page_size: 3,
            ..Default::default()
        }
        .encode_to_vec(),
        _ => proto::WatchApprovalsRequest { start: 2, event_types: vec![1], ..Default::default() }
            .encode_to_vec(),
    }
}

fn bytes(rng: &mut Rng, most: u64) -> Vec<u8> {
    (0..rng.within(0..most)).map(|_| rng.next() as u8).collect()
}

/// A body: a good message, a spoilt one, or bytes that mean nothing; as gRPC sends it, or nearly.
fn body(rng: &mut Rng, path: &str, approval_id: &str) -> Vec<u8> {
    let mut message = good(rng, path, approval_id);
    for _ in 0..rng.within(0..4) {
        let at = rng.index(0..message.len() + 1);
        match rng.within(0..4) {
            0 => message.truncate(at),
            1 => drop(message.splice(at..at, bytes(rng, 8))),
            2 => drop(message.splice(at..at, good(rng, path, approval_id))),
            _ => {
                if let Some(byte) = message.get_mut(at) {
                    *byte ^= 1 << rng.within(0..8);
                }
            }
        }
    }
    if rng.one_in(8) {
        message = bytes(rng, 1_000);
    }
    let mut length = u32::try_from(message.len()).expect("short");
    if rng.one_in(16) {
        length = rng.next() as u32 >> rng.within(0..32);
    }
    let flag = u8::from(rng.one_in(32));
    let body = [&[flag], &length.to_be_bytes()[..], &message].concat();
    if rng.one_in(16) { bytes(rng, 1_000) } else { body }
}

/// The status that a call is answered with; that of a stream which has begun is good.
async fn status(channel: &mut Channel, path: &str, body: Vec<u8>) -> Status {
    let call = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "2S")
        .header("authorization", format!("Bearer {}-token-for-tests", caller(path)))
        .body(Body::new(Full::new(Bytes::from(body))))
        .expect("a request");
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.expect("a connection");
    let (head, mut body) = channel.call(call).await.expect("an answer").into_parts();
    if let Some(status) = Status::from_header_map(&head.headers) {
        return status;
    }
    while let Some(frame) = body.frame().await {
        match frame.expect("no broken stream").into_trailers() {
            Ok(trailers) => return Status::from_header_map(&trailers).expect("a status"),
            Err(_) if path.ends_with("WatchApprovals") => return Status::ok("it has begun"),
            Err(_) => {}
        }
    }
    panic!("{path} ended without a status");
}

#[tokio::test]
async fn every_body_is_answered_and_the_server_goes_on() {
    let (_database, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let approval_id = id(&backend.require("w0", "delete_workspace").await);
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).expect("an address");
    let mut channel = endpoint.connect().await.expect("a connection");
    let (mut rng, mut seen) = (Rng::drawn("bodies"), BTreeMap::<String, u32>::new());
    for permission in PERMISSIONS.iter().cycle().take(Config::default().cases as usize * 4) {
        let path = permission.path;
        let body = body(&mut rng, path, &approval_id);
        let status = timeout(PATIENCE, status(&mut channel, path, body.clone())).await;
        let status = status.unwrap_or_else(|_| panic!("{path} is not answered: {body:?}"));
        let ours = matches!(status.code(), Code::Unknown | Code::Internal | Code::Unauthenticated);
        assert!(!ours, "{path}: {status:?}: {body:?}");
        *seen.entry(format!("{:?}", status.code())).or_default() += 1;
    }
    println!("fuzzed bodies to a server: {seen:?}");
    assert!(seen.contains_key("Ok") && seen.contains_key("InvalidArgument"), "{seen:?}");
    let held = backend.require("honest", "delete_workspace").await;
    alice.approve(&id(&held)).await;
}
