//! The layer in front of HTTP routes: the example as it stands, and what it leaves alone.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use approval_authority::{
    gate::{
        Gate, Operation,
        layer::{Clearance, GateLayer, Gating},
    },
    proto::{self, EventType, watch_approvals_response::Message},
};
use axum::{Router, http::StatusCode, routing::post};
use reqwest::Client;
use serde_json::Value;
use tokio::{net::TcpListener, sync::Notify};

use super::gate;
use crate::{database::Database, harness::Caller, server::Process, watch, workspace_server};

/// Serves it on a port of its own; returns its URL.
async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

/// An answer: its status, and its body as JSON.
async fn delete(url: &str) -> (StatusCode, Value) {
    let answer = Client::new().delete(url).header("x-reason", "unused").send().await;
    let answer = answer.expect("an answer");
    let status = answer.status();
    let body = answer.text().await.expect("a body");
    (status, serde_json::from_str(&body).unwrap_or_default())
}

async fn list(url: &str) -> String {
    let answer = Client::new().get(format!("{url}/workspaces")).send().await.expect("an answer");
    answer.text().await.expect("a body")
}

/// The first result that is reported for an approval. Streams never go quiet, so it is the search that has a deadline.
async fn reported(viewer: &Caller, id: &str) -> proto::Result {
    let mut request = watch::from(proto::Start::Oldest);
    request.event_types = vec![EventType::ResultReported.into()];
    let mut stream = viewer.watch(request).await.expect("a stream");
    let search = async {
        loop {
            if let Some(Message::Event(event)) = watch::next(&mut stream).await.message {
                let approval = event.approval.expect("it");
                if approval.id == id {
                    return approval.result();
                }
            }
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(30), search).await;
    found.unwrap_or_else(|_| panic!("nothing was reported of {id}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_deletes_a_workspace_once_a_person_has_approved() {
    let database = Database::new().await;
    let mut server = Process::serve(&database.url).await;
    let app = workspace_server::app(gate(server.address).await, ["w1", "w2", "a b"]);
    let url = serve(app).await;
    let (alice, viewer) = (server.caller("alice").await, server.caller("viewer").await);

    let (status, body) = delete(&format!("{url}/workspaces/w1")).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let id = body["approval_id"].as_str().expect("an id").to_owned();
    let expected = serde_json::json!({
        "status": "pending_approval", "approval_id": id, "action": "delete_workspace", "reason": "unused",
    });
    assert_eq!(body, expected);
    assert_eq!(list(&url).await, "a b\nw1\nw2\n", "and nothing was deleted");
    alice.approve(&id).await;
    assert_eq!(delete(&format!("{url}/workspaces/w1")).await.0, StatusCode::OK);
    assert_eq!(list(&url).await, "a b\nw2\n");
    assert_eq!(reported(&viewer, &id).await, proto::Result::Succeeded);

    // What is approved is what is deleted, however it is spelt.
    let (_, body) = delete(&format!("{url}/workspaces/a%20b")).await;
    let id = body["approval_id"].as_str().expect("an id").to_owned();
    assert_eq!(alice.approve(&id).await.workspace_id, "a b");
    assert_eq!(delete(&format!("{url}/workspaces/%61%20b")).await.0, StatusCode::OK);
    assert_eq!(list(&url).await, "w2\n");
    for unclear in ["%FF", "%00", &"x".repeat(129)] {
        let (status, body) = delete(&format!("{url}/workspaces/{unclear}")).await;
        assert_eq!((status, &body["status"]), (StatusCode::BAD_REQUEST, &"invalid".into()));
    }

    let (_, body) = delete(&format!("{url}/workspaces/w2")).await;
    alice.deny(body["approval_id"].as_str().expect("an id")).await;
    let denied =
        Client::new().delete(format!("{url}/workspaces/w2")).send().await.expect("an answer");
    assert_eq!(denied.status(), StatusCode::FORBIDDEN);
    let seconds: u64 = denied.headers()["retry-after"].to_str().expect("text").parse().expect("s");
    assert!((600..=900).contains(&seconds), "{seconds}");
    let denied: Value = serde_json::from_str(&denied.text().await.expect("a body")).expect("JSON");
    assert_eq!((&denied["status"], &denied["reason"]), (&"denied".into(), &"as discussed".into()));

    server.child.kill().await.expect("killed");
    let (status, body) = delete(&format!("{url}/workspaces/w2")).await;
    assert_eq!((status, &body["status"]), (StatusCode::SERVICE_UNAVAILABLE, &"unavailable".into()));
    assert_eq!(list(&url).await, "w2\n", "what is not gated needs no authority");
}

/// A gate to nobody.
async fn nowhere() -> Gate {
    let address: SocketAddr = ([127, 0, 0, 1], 1).into();
    gate(address).await
}

#[tokio::test]
async fn what_is_not_gated_passes_untouched() {
    async fn echo(request: axum::extract::Request) -> (StatusCode, axum::body::Body) {
        assert!(request.extensions().get::<Clearance>().is_none());
        (StatusCode::IM_A_TEAPOT, request.into_body())
    }
    let layer = GateLayer::new(nowhere().await, |_: &axum::http::request::Parts| Gating::Ungated);
    let url = serve(Router::new().route("/", post(echo)).layer(layer)).await;
    let body = "x".repeat(100_000);
    let answer = Client::new().post(url).body(body.clone()).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT);
    assert!(answer.text().await.expect("a body") == body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_became_of_it_is_reported_whatever_became_of_it() {
    let (_database, server) = crate::harness::TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let hangs = Arc::new(Notify::new());
    let begun = hangs.clone();
    let by_body = async move |body: String| match body.as_str() {
        "fail" => StatusCode::CONFLICT,
        "break" => StatusCode::BAD_GATEWAY,
        "see what came of it" => StatusCode::SEE_OTHER,
        "ask somebody else" => StatusCode::TEMPORARY_REDIRECT,
        "panic" => panic!("as a test wants it"),
        "hang" => {
            begun.notify_one();
            std::future::pending().await
        }
        _ => StatusCode::NO_CONTENT,
    };
    let name = |_: &axum::http::request::Parts| Gating::Gated(Operation::new("w1", "secret_write"));
    let layer = GateLayer::new(gate(server.address).await, name);
    let url = serve(Router::new().route("/", post(by_body)).layer(layer)).await;
    for (body, expected) in [
        ("go", proto::Result::Succeeded),
        ("see what came of it", proto::Result::Succeeded),
        ("fail", proto::Result::Failed),
        ("break", proto::Result::Failed),
        ("ask somebody else", proto::Result::Unknown),
        ("panic", proto::Result::Unknown),
        ("hang", proto::Result::Unknown),
    ] {
        let id = crate::harness::id(&backend.require("w1", "secret_write").await);
        alice.approve(&id).await;
        // Whoever asked for what hangs goes away.
        tokio::select! {
            _ = Client::new().post(&url).body(body).send() => {}
            () = hangs.notified() => {}
        }
        assert_eq!(reported(&alice, &id).await, expected, "{body}");
    }
}
