//! The gate in other languages, as a process of its own: what is approved goes through once, and whatever else happens
//! holds.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use approval_authority::proto::{self, ApprovalState, Outcome, RequireApprovalResponse};
use tempfile::TempDir;
use tokio::process::Command;
use tonic::Status;

use crate::{
    gate::{
        Token,
        fake::{Fake, SILENCE, through},
    },
    harness::TestServer,
};

const LET_THROUGH: i32 = 0;
const PENDING: i32 = 3;
const DENIED: i32 = 5;
const UNAVAILABLE: i32 = 7;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What a program prints; it must succeed.
async fn said(command: &mut Command) -> String {
    let done = command.stdin(Stdio::null()).output().await.expect("started");
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("text").trim().to_owned()
}

/// A Python with the example's requirements, and the contract's code, made as the example says.
struct Python {
    program: String,
    contract: TempDir,
}

impl Python {
    async fn get() -> Self {
        let program = match std::env::var("PYTHON_GRPC") {
            Ok(program) => program,
            Err(_) => said(&mut Command::new(repository("scripts/python-grpc"))).await,
        };
        let contract = tempfile::tempdir().expect("a folder");
        let out = contract.path().display();
        let mut protoc = Command::new(&program);
        protoc.args(["-m", "grpc_tools.protoc", "-I", "proto", "approvals/v1/approvals.proto"]);
        protoc.args([format!("--python_out={out}"), format!("--grpc_python_out={out}")]);
        said(protoc.current_dir(repository(""))).await;
        Self { program, contract }
    }

    /// Has the example delete a workspace: its exit code, and what it says.
    async fn delete(&self, server: SocketAddr, token: &Path) -> (i32, String) {
        let mut example = Command::new(&self.program);
        example.arg(repository("examples/python/delete_workspace.py"));
        example.arg(format!("http://{server}")).arg(token).arg("w1");
        // It leaves nothing in the repository.
        example.env("PYTHONPATH", self.contract.path()).env("PYTHONDONTWRITEBYTECODE", "1");
        let done = example.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("started");
        let said = [done.stdout, done.stderr].concat();
        let said = String::from_utf8(said).expect("text");
        let code = done.status.code().expect("an end of its own");
        assert_eq!(said.contains("deleted w1"), code == LET_THROUGH, "{code}: {said}");
        (code, said)
    }
}

#[tokio::test]
async fn what_is_approved_goes_through_once_and_its_result_is_recorded() {
    let (python, (_database, server)) = tokio::join!(Python::get(), TestServer::new());
    let (alice, token) = (server.caller("alice").await, Token::of("backend"));
    let delete = async || python.delete(server.address, &token.path()).await;
    let pending = async || {
        let (code, said) = delete().await;
        assert_eq!(code, PENDING, "{said}");
        said.split(' ').nth(1).expect("an id").to_owned()
    };
    let id = pending().await;
    assert_eq!(pending().await, id, "asking again joins it");
    alice.approve(&id).await;
    let (code, said) = delete().await;
    assert_eq!((code, said.trim()), (LET_THROUGH, "deleted w1"));
    assert_eq!(alice.get(&id).await.expect("it").result(), proto::Result::Succeeded);

    let another = pending().await;
    assert_ne!(another, id, "it was good for once");
    alice.deny(&another).await;
    let (code, said) = delete().await;
    assert_eq!(code, DENIED, "{said}");
    assert!(said.contains("as discussed"), "{said}");
    token.replace("nobody-token-for-tests");
    let (code, said) = delete().await;
    assert_eq!(code, UNAVAILABLE, "{said}");
    assert!(said.starts_with("UNAUTHENTICATED"), "{said}");
    std::fs::remove_file(token.path()).expect("removed");
    assert_eq!(delete().await.0, UNAVAILABLE);
}

#[tokio::test]
async fn an_authority_that_cannot_be_reached_holds_what_it_is_asked() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address")
    };
    let (code, said) = Python::get().await.delete(gone, &Token::of("backend").path()).await;
    assert_eq!(code, UNAVAILABLE, "{said}");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_attempts_key() {
    let mut calls = 0;
    let fake = Fake::new(move |asked| {
        calls += 1;
        match calls {
            1 => Err(Status::unavailable("")),
            2 => Err(Status::unavailable(SILENCE)),
            _ => Ok(RequireApprovalResponse { replayed: calls == 3, ..through(asked) }),
        }
    })
    .await;
    let (python, token) = (Python::get().await, Token::of("backend"));
    for _ in 0..2 {
        let (code, said) = python.delete(fake.address, &token.path()).await;
        assert_eq!(code, LET_THROUGH, "{said}");
    }
    let keys = fake.keys();
    assert!(keys.len() == 4 && keys[0] == keys[1] && keys[1] == keys[2], "{keys:?}");
    assert_ne!(keys[2], keys[3], "another attempt is another key");
    assert_eq!(keys[3].len(), 36);
}

#[tokio::test]
async fn an_answer_that_is_not_to_what_was_asked_lets_nobody_through() {
    type Change = fn(&mut RequireApprovalResponse);
    fn approval(answer: &mut RequireApprovalResponse) -> &mut proto::Approval {
        answer.approval.as_mut().expect("an approval")
    }
    let changes: &[(&str, Change)] = &[
        ("an outcome of a time to come", |answer| answer.outcome = 99),
        ("no outcome", |answer| answer.outcome = 0),
        ("no approval", |answer| answer.approval = None),
        ("none required, with an approval", |answer| answer.outcome = Outcome::NotRequired.into()),
        ("pending, without an approval", |answer| {
            answer.outcome = Outcome::Pending.into();
            answer.approval = None;
        }),
        ("no id", |answer| approval(answer).id.clear()),
        ("another namespace", |answer| approval(answer).namespace = "acme".to_owned()),
        ("another workspace", |answer| approval(answer).workspace_id = "w2".to_owned()),
        ("another action", |answer| approval(answer).action = "secret_write".to_owned()),
        ("another context", |answer| approval(answer).context = None),
        ("another's name", |answer| approval(answer).on_behalf_of = "sam".to_owned()),
        ("no state", |answer| approval(answer).state = 0),
        ("not consumed", |answer| approval(answer).state = ApprovalState::Approved.into()),
    ];
    let (python, token) = (Python::get().await, Token::of("backend"));
    for (name, change) in changes {
        let fake = Fake::new(move |asked| {
            let mut answer = through(asked);
            change(&mut answer);
            Ok(answer)
        })
        .await;
        let (code, said) = python.delete(fake.address, &token.path()).await;
        assert_eq!(code, UNAVAILABLE, "{name}: {said}");
        assert_eq!(fake.keys().len(), 1, "{name}");
    }
}
