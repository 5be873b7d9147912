//! The client's gate, in front of real servers: what is approved goes through once, and whatever else happens holds.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use approval_authority::{
    gate::{Builder, Fault, Gate, Held, Operation, Outcome, Permit, Report},
    proto::{self, Decision},
};
use tempfile::TempDir;

use crate::{
    database::Database,
    harness::TestServer,
    proxy::{Fate, Proxy},
    server::{Process, policy_text, tokens_text},
    watch,
};

mod errors;
pub mod fake;
mod http;
mod retries;
mod secured;
mod subscribing;

/// A file with a token, which can be replaced.
pub struct Token(TempDir);

impl Token {
    /// That of one of the harness's subjects, or of nobody.
    pub fn of(subject: &str) -> Self {
        Self::new(&format!("{subject}-token-for-tests"))
    }

    pub fn new(text: &str) -> Self {
        let token = Self(tempfile::tempdir().expect("a folder"));
        token.replace(text);
        token
    }

    pub fn replace(&self, text: &str) {
        let new = self.0.path().join("new");
        std::fs::write(&new, text).expect("written");
        std::fs::rename(new, self.path()).expect("replaced");
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().join("token")
    }
}

/// A gate to some servers.
pub fn to(servers: &[SocketAddr], token: &Token) -> Builder {
    let urls: Vec<String> = servers.iter().map(|address| format!("http://{address}")).collect();
    let (first, others) = urls.split_first().expect("a server");
    others.iter().fold(Gate::builder(first).token_file(token.path()), Builder::endpoint)
}

/// A gate of a subject's to some servers, with other settings. Its token's file is gone, and it is used on.
pub async fn gate_of(
    subject: &str,
    servers: &[SocketAddr],
    change: impl FnOnce(Builder) -> Builder,
) -> Gate {
    let token = Token::of(subject);
    change(to(servers, &token)).connect().await.expect("a gate")
}

/// The backend's gate to a server.
pub async fn gate(server: SocketAddr) -> Gate {
    gate_of("backend", &[server], |builder| builder).await
}

pub fn operation(workspace: &str) -> Operation {
    Operation::new(workspace, "delete_workspace").context(serde_json::json!({"n": [1, 2.5, "é"]}))
}

#[track_caller]
pub fn permitted(outcome: Outcome) -> Permit {
    match outcome {
        Outcome::Permitted(permit) => permit,
        Outcome::Held(held) => panic!("held: {held:?}"),
    }
}

/// Lets it be, and returns the id of the approval that was consumed.
#[track_caller]
pub fn let_through(outcome: Outcome) -> String {
    permitted(outcome).approval().expect("consumed").id.clone()
}

#[track_caller]
pub fn held(outcome: Outcome) -> Held {
    match outcome {
        Outcome::Held(held) => held,
        Outcome::Permitted(permit) => panic!("let through: {permit:?}"),
    }
}

/// The id of what is pending.
#[track_caller]
pub fn pending(outcome: Outcome) -> String {
    match held(outcome) {
        Held::Pending(approval) => approval.id,
        other => panic!("not pending: {other:?}"),
    }
}

/// Why an operation is held, when the authority's word could not be had.
#[track_caller]
pub fn fault(outcome: Outcome) -> Fault {
    match held(outcome) {
        Held::Unavailable(fault) => fault,
        other => panic!("an answer: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_approved_is_permitted_once_and_its_result_is_recorded() {
    let (_database, server) = TestServer::new().await;
    let (gate, alice) = (gate(server.address).await, server.caller("alice").await);
    let asked = || operation("w1").on_behalf_of("sam").reason("spring cleaning");
    let id = pending(gate.require(asked()).await);
    assert_eq!(pending(gate.require(asked()).await), id, "asking again joins it");
    let shown = alice.approve(&id).await;
    assert_eq!((shown.on_behalf_of.as_str(), shown.reason.as_str()), ("sam", "spring cleaning"));

    let other = gate.require(asked().context(serde_json::json!({"n": [1, 2.5]}))).await;
    assert_ne!(pending(other), id, "another context is another operation");
    let permit = permitted(gate.require(asked()).await);
    assert_eq!(permit.approval().expect("consumed").id, id);
    permit.report(Report::Failed).await.expect("recorded");
    assert_eq!(alice.get(&id).await.expect("it").result(), proto::Result::Failed);
    assert_ne!(pending(gate.require(asked()).await), id, "it was good for once");
}

#[tokio::test]
async fn what_is_denied_is_held_and_what_is_not_gated_is_not() {
    let (_database, server) = TestServer::new().await;
    let (gate, alice) = (gate(server.address).await, server.caller("alice").await);
    alice.deny(&pending(gate.require(operation("w1")).await)).await;
    let Held::Denied(denied) = held(gate.require(operation("w1")).await) else { panic!("denied") };
    assert_eq!(denied.reason(), "as discussed");
    assert!(denied.retry_after > Duration::from_secs(600), "{denied:?}");

    let permit = permitted(gate.require(Operation::new("w1", "list_secrets")).await);
    assert!(permit.approval().is_none());
    permit.report(Report::Succeeded).await.expect("nothing to record");
}

#[tokio::test]
async fn a_gate_waits_for_the_decision() {
    let (_database, server) = TestServer::new().await;
    let seconds = Duration::from_secs;
    let patient = |gate: Builder| gate.wait(seconds(30)).deadline(seconds(40));
    let gate = gate_of("backend", &[server.address], patient).await;
    let alice = server.caller("alice").await;
    let waiting = tokio::spawn(async move { gate.require(operation("w1")).await });
    let requested = watch::events(&alice, watch::from(proto::Start::Oldest), 1).await;
    alice.approve(&requested[0].approval.as_ref().expect("it").id).await;
    let_through(waiting.await.expect("no panic"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_whose_answer_was_lost_is_asked_again_and_consumes_once() {
    let database = Database::new().await;
    let proxy = Proxy::new(&database.url).await;
    let (mut behind, beside) =
        tokio::join!(Process::serve(&proxy.url), Process::serve(&database.url));
    let gate = gate_of("backend", &[behind.address, beside.address], |gate| gate).await;
    let id = pending(gate.require(operation("w1")).await);
    beside.caller("alice").await.approve(&id).await;

    proxy.next(&[Fate::AnswerHeld]);
    let unanswered = tokio::spawn({
        let gate = gate.clone();
        async move { gate.require(operation("w1")).await }
    });
    proxy.until_struck(1).await;
    behind.child.kill().await.expect("killed");
    assert_eq!(let_through(unanswered.await.expect("no panic")), id);
    let consumed = "SELECT count(*) FROM approval_authority.events WHERE type = 'CONSUMED'";
    assert_eq!(database.count(consumed).await, 1);
    assert_ne!(pending(gate.require(operation("w1")).await), id, "another attempt is another key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_in_the_middle_of_a_call_holds_it_and_the_next_one_serves() {
    let database = Database::new().await;
    let mut server = Process::serve(&database.url).await;
    let address = server.address;
    let alice = server.caller("alice").await;
    let waits =
        |gate: Builder| gate.wait(Duration::from_millis(2_900)).deadline(Duration::from_secs(3));
    let gate = gate_of("backend", &[address], waits).await;
    let waiting = tokio::spawn({
        let gate = gate.clone();
        async move { gate.require(operation("w1")).await }
    });
    let requested = watch::events(&alice, watch::from(proto::Start::Oldest), 1).await;
    let id = requested[0].approval.as_ref().expect("it").id.clone();
    server.child.kill().await.expect("killed");
    let fault = fault(waiting.await.expect("no panic"));
    assert!(matches!(fault, Fault::Unreachable(_)), "{fault:?}");

    let listen = address.to_string();
    let server = Process::with_settings(&database.url, &[("SERVER__LISTEN", &listen)]).await;
    server.caller("alice").await.decide(&id, Decision::Approve).await.expect("approved");
    assert_eq!(let_through(gate.require(operation("w1")).await), id);
}

#[tokio::test]
async fn a_token_that_is_replaced_is_used_from_the_next_call_on() {
    let (_database, server) = TestServer::new().await;
    let token = Token::of("backend");
    let gate = to(&[server.address], &token).connect().await.expect("a gate");
    pending(gate.require(operation("w1")).await);
    let renewed = tokens_text().replace(
        &sha256_of("backend-token-for-tests"),
        &sha256_of("the-next-token-of-the-backend"),
    );
    server.reload(&policy_text(), &renewed);
    assert_eq!(fault(gate.require(operation("w1")).await).reason(), "UNAUTHENTICATED");
    token.replace("the-next-token-of-the-backend\n");
    pending(gate.require(operation("w1")).await);
}

fn sha256_of(token: &str) -> String {
    approval_authority::digest::sha256_hex(token)
}
