//! A database that was restored from a backup.

use approval_authority::proto::{ApprovalState, Outcome, Start, WatchApprovalsRequest};
use tonic::Code;

use crate::{
    database::Database,
    harness::{Caller, TestServer, id, refusal},
    server::{program, write_deployment},
};

async fn end_of_log(caller: &Caller) -> String {
    let mut stream = caller.watch(WatchApprovalsRequest::default()).await.expect("a stream");
    stream.message().await.expect("a message").expect("no end").cursor
}

async fn begin_history(database: &Database) -> std::process::Output {
    let folder = tempfile::tempdir().expect("a folder");
    let config = write_deployment(folder.path(), &database.owner_url, "");
    let mut migrate = program();
    migrate.arg("migrate").arg("--config").arg(config).arg("--new-history");
    migrate.output().await.expect("the program")
}

async fn new_history(database: &Database) -> String {
    let output = begin_history(database).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Without a new history what was used after the backup would be used again: the first half shows it.
#[tokio::test]
async fn what_was_used_after_the_backup_does_not_come_back_to_life() {
    let (database, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let approved = id(&backend.require("w1", "delete_workspace").await);
    alice.approve(&approved).await;
    let pending = id(&backend.require("w2", "delete_workspace").await);
    let cursor = end_of_log(&alice).await;
    server.drain().await;
    let (as_it_was, restored) = (database.copy().await, database.copy().await);

    let server = TestServer::on(&as_it_was.url).await;
    let backend = server.caller("backend").await;
    assert_eq!(backend.require("w1", "delete_workspace").await.outcome(), Outcome::Approved);

    let said = new_history(&restored).await;
    assert!(said.ends_with("default: a new history; open approvals taken back: 2\n"), "{said}");
    let server = TestServer::on(&restored.url).await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let asked = backend.require("w1", "delete_workspace").await;
    assert_eq!(asked.outcome(), Outcome::Pending, "people are asked anew");
    assert_ne!(id(&asked), approved);
    let state = async |id: &str| alice.get(id).await.expect("it").state();
    assert_eq!(state(&approved).await, ApprovalState::Revoked);
    assert_eq!(state(&pending).await, ApprovalState::Expired);

    let resume = WatchApprovalsRequest { after_cursor: cursor, ..Default::default() };
    let refused = alice.watch(resume).await.expect_err("a cursor of the history before");
    assert_eq!(refusal(&refused), (Code::FailedPrecondition, "HISTORY_CHANGED".to_owned()));
    let oldest = WatchApprovalsRequest { start: Start::Oldest.into(), ..Default::default() };
    let told = crate::watch::events(&alice, oldest, 6).await;
    assert!(told[3..5].iter().all(|event| event.actor.is_empty()), "the authority did it");

    let too_early = begin_history(&restored).await;
    assert_eq!(too_early.status.code(), Some(1), "{too_early:?}");
    let why = String::from_utf8(too_early.stderr).expect("text");
    assert!(why.contains("stop the servers first") && why.contains("as service, pid"), "{why}");
    server.drain().await;
    assert!(new_history(&restored).await.contains("taken back: 1\n"), "and again");
}
