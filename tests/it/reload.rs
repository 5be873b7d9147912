//! SIGHUP: policy and tokens are read again while the program runs, both or neither.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use approval_authority::{
    auth::tokens,
    policy::file,
    proto::{ApprovalState, GetPolicyRequest},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{io::AsyncWriteExt, net::unix::pipe};
use tonic::Code;

use crate::{
    database::Database,
    harness::{Caller, id, refusal, told},
    server::{Process, log_of, policy_text, program, tokens_text, until, write_deployment},
};

/// Logged when both files were good.
const READ_AGAIN: &str = "policy and tokens are read again";
/// Logged when one was not.
const STAY: &str = "policy and tokens stay as they were";

fn digest(policy: &str) -> String {
    file::parse(policy).expect("a policy").digest().to_owned()
}

/// The tests' policy with one part of it replaced.
fn policy_with(from: &str, to: &str) -> String {
    let text = policy_text();
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

fn tokens_with(subject: &str) -> String {
    let token = format!("{subject}-token-for-tests");
    tokens_text() + &tokens::entry(subject, &token, &[]).expect("a subject")
}

fn tokens_without(subject: &str) -> String {
    let begin = format!("[[tokens]]\nsubject = \"{subject}\"\n");
    let text = tokens_text();
    let (before, after) = text.split_once(&begin).expect(subject);
    let (_, after) = after.split_once("[[tokens]]").expect("more");
    format!("{before}[[tokens]]{after}")
}

async fn digest_in_force(caller: &Caller) -> String {
    let policy = caller.approvals.clone().get_policy(GetPolicyRequest {}).await;
    policy.expect("answered").into_inner().digest
}

impl Process {
    /// Has the files read again and waits until they are in force.
    async fn reload(&mut self) {
        self.signal(Signal::SIGHUP);
        let log = self.logs(READ_AGAIN).await;
        assert!(!log.iter().any(|line| line.contains("ERROR")), "{log:#?}");
    }

    /// Has the files read again, and returns the faults that are logged.
    async fn reload_in_vain(&mut self) -> Vec<String> {
        self.signal(Signal::SIGHUP);
        let mut faults = self.logs(STAY).await;
        faults.pop();
        faults.retain(|line| line.contains("ERROR"));
        faults
    }
}

#[tokio::test]
async fn a_new_policy_and_a_new_token_are_in_force_without_a_restart() {
    let database = Database::new().await;
    let mut process = Process::serve(&database.url).await;
    let newcomer = process.caller("newcomer").await;
    let refused = newcomer.ask(crate::harness::request("w1", "secret_write")).await;
    assert_eq!(refused.expect_err("unknown").code(), Code::Unauthenticated);
    let backend = process.caller("backend").await;
    assert_eq!(digest_in_force(&backend).await, digest(&policy_text()));

    let new = policy_with("\"tokens:backend-2\"", "\"tokens:newcomer\"");
    process.write("policy.toml", &new);
    process.write("tokens.toml", &tokens_with("newcomer"));
    assert_eq!(digest_in_force(&backend).await, digest(&policy_text()), "nobody has asked yet");
    process.reload().await;
    assert_eq!(digest_in_force(&backend).await, digest(&new));
    // On the connection on which it was refused.
    let held = newcomer.require("w1", "secret_write").await;
    assert_eq!(held.approval.expect("it").policy_digest, digest(&new));
    let refused = process.caller("backend-2").await;
    let refused = refused.ask(crate::harness::request("w1", "secret_write")).await;
    assert_eq!(refusal(&refused.expect_err("bound no more")).1, "ROLE_MISSING");
}

#[tokio::test]
async fn what_an_approval_needs_is_fixed_when_it_is_requested() {
    let database = Database::new().await;
    let mut process = Process::serve(&database.url).await;
    let (backend, alice) = (process.caller("backend").await, process.caller("alice").await);
    let before = backend.require("w1", "secret_write").await.approval.expect("it");
    assert_eq!((before.approvals_required, &before.policy_digest), (1, &digest(&policy_text())));

    let rule = "[actions.secret_write]\napprovals_required = 2\npending_ttl = \"5m\"";
    let new = policy_with("[actions.secret_write]", rule);
    process.write("policy.toml", &new);
    process.reload().await;

    // It is joined, and still is what it was.
    let joined = backend.require("w1", "secret_write").await.approval.expect("it");
    assert_eq!(joined, before);
    let approved = alice.approve(&before.id).await;
    assert_eq!(approved.state(), ApprovalState::Approved, "one is enough for it");
    // One that is asked for now is under the new terms.
    let after = backend.require("w2", "secret_write").await.approval.expect("it");
    assert_eq!((after.approvals_required, after.policy_digest), (2, digest(&new)));
    let lifetime =
        after.expire_time.expect("a time").seconds - after.create_time.expect("a time").seconds;
    assert!((299..=301).contains(&lifetime), "{lifetime} s");
    assert_eq!(alice.approve(&after.id).await.state(), ApprovalState::Pending);
}

#[tokio::test]
async fn who_may_approve_is_judged_when_they_decide() {
    let database = Database::new().await;
    let mut process = Process::serve(&database.url).await;
    let backend = process.caller("backend").await;
    let (alice, bob) = (process.caller("alice").await, process.caller("bob").await);
    let (carol, viewer) = (process.caller("carol").await, process.caller("viewer").await);
    let held = backend.require("w1", "secret_write").await;
    // Each of them could see it, and decide.
    for approver in [&alice, &bob, &carol] {
        approver.get(&id(&held)).await.expect("an approver sees it");
    }

    // Bob may decide about something else only, carol about nothing, and alice's token is gone.
    let approvers = "groups = [\"tokens:approvers\"]\nnamespaces = [\"*\"]\nworkspaces = [\"*\"]\nactions = [\"*\"]";
    let bindings = approvers
        .replace("groups = [\"tokens:approvers\"]", "principals = [\"tokens:alice\"]")
        + "\n\n[[bindings]]\nrole = \"approver\"\nprincipals = [\"tokens:bob\"]\nworkspaces = [\"*\"]\nactions = [\"org_token_mint\"]";
    process.write("policy.toml", &policy_with(approvers, &bindings));
    process.write("tokens.toml", &tokens_without("alice"));
    process.reload().await;

    let decide = async |caller: &Caller| {
        let decided = caller.decide(&id(&held), approval_authority::proto::Decision::Approve).await;
        refusal(&decided.expect_err("refused"))
    };
    assert_eq!(decide(&bob).await, (Code::PermissionDenied, "NOT_AN_APPROVER".to_owned()));
    assert_eq!(decide(&carol).await, (Code::PermissionDenied, "NOT_AN_APPROVER".to_owned()));
    assert_eq!(decide(&alice).await, (Code::Unauthenticated, "UNAUTHENTICATED".to_owned()));
    let pending = viewer.get(&id(&held)).await.expect("seen");
    assert_eq!((pending.state(), pending.version), (ApprovalState::Pending, 1));

    // Alice is back.
    process.write("tokens.toml", &tokens_text());
    process.reload().await;
    alice.approve(&id(&held)).await;
    let through = backend.require("w1", "secret_write").await;
    assert_eq!(told(&through).1, ApprovalState::Consumed);
}

#[tokio::test]
async fn a_bad_file_changes_nothing() {
    let database = Database::new().await;
    let mut process = Process::serve(&database.url).await;
    let (backend, newcomer) = (process.caller("backend").await, process.caller("newcomer").await);
    let good = policy_with("\"tokens:backend-2\"", "\"tokens:newcomer\"");
    let bad = policy_with("approvals_required = 2", "approvals_required = 0") + "\nquorum = 2\n";
    let line_of = |text: &str, words: &str| {
        let before = text.lines().position(|line| line.starts_with(words));
        before.expect("it is there") + 1
    };
    let count = "approvals_required must be between 1 and 10000";
    let policy_faults = [
        format!("policy.toml: line {}: {count}", line_of(&bad, "approvals_required = 0")),
        format!("policy.toml: line {}: unknown field `quorum`", line_of(&bad, "quorum")),
    ];
    let bad_tokens = tokens_with("newcomer") + "admin = true\n[[tokens]]\nsubject = \"x\"\n";
    let token_faults = [
        format!("tokens.toml: line {}: unknown field `admin`", line_of(&bad_tokens, "admin")),
        format!("tokens.toml: line {}: sha256 is missing", line_of(&bad_tokens, "admin") + 1),
    ];
    let both = [&policy_faults[..], &token_faults[..]].concat();
    let good_tokens = tokens_with("newcomer");

    for (policy, tokens, faults) in [
        (&bad, &good_tokens, &policy_faults[..]),
        (&good, &bad_tokens, &token_faults[..]),
        (&bad, &bad_tokens, &both[..]),
    ] {
        process.write("policy.toml", policy);
        process.write("tokens.toml", tokens);
        let log = process.reload_in_vain().await;
        assert_eq!(log.len(), faults.len(), "{log:#?}");
        for (line, fault) in log.iter().zip(faults) {
            assert!(line.contains(fault), "{fault}: {line}");
        }
        assert_eq!(digest_in_force(&backend).await, digest(&policy_text()));
        let refused = newcomer.ask(crate::harness::request("w1", "secret_write")).await;
        assert_eq!(refused.expect_err("still unknown").code(), Code::Unauthenticated);
    }
    std::fs::remove_file(process.file("policy.toml")).expect("removed");
    let log = process.reload_in_vain().await;
    assert!(log.iter().any(|line| line.contains("policy.toml: cannot be read")), "{log:#?}");
    assert_eq!(digest_in_force(&backend).await, digest(&policy_text()));

    process.write("policy.toml", &good);
    process.write("tokens.toml", &good_tokens);
    process.reload().await;
    assert_eq!(digest_in_force(&newcomer).await, digest(&good));
}

/// Makes a pipe of a file, so that who reads it waits for us.
fn make_pipe(file: &Path) {
    std::fs::remove_file(file).expect("removed");
    let made = std::process::Command::new("mkfifo").arg(file).status().expect("mkfifo");
    assert!(made.success());
}

#[tokio::test]
async fn a_signal_during_a_reload_has_the_files_read_once_more() {
    let database = Database::new().await;
    let mut process = Process::serve(&database.url).await;
    let [first, second] = ["6h", "7h"].map(|ttl| policy_with("\"24h\"", &format!("{ttl:?}")));
    let tokens = process.file("tokens.toml");
    make_pipe(&tokens);
    let read_by_the_program = async || {
        let until = Instant::now() + Duration::from_secs(30);
        // It cannot be opened before somebody reads it.
        loop {
            match pipe::OpenOptions::new().open_sender(&tokens) {
                Ok(pipe) => return pipe,
                Err(error) => assert!(Instant::now() < until, "nobody reads it: {error}"),
            }
            tokio::task::yield_now().await;
        }
    };

    process.write("policy.toml", &first);
    process.signal(Signal::SIGHUP);
    // It has read the policy and is in the middle of the tokens.
    let mut pipe = read_by_the_program().await;
    process.write("policy.toml", &second);
    process.signal(Signal::SIGHUP);
    pipe.write_all(tokens_text().as_bytes()).await.expect("written");
    drop(pipe);
    let log = process.logs(READ_AGAIN).await;
    assert!(log.last().is_some_and(|line| line.contains(&digest(&first))), "{log:#?}");

    let mut pipe = read_by_the_program().await;
    pipe.write_all(tokens_text().as_bytes()).await.expect("written");
    drop(pipe);
    let log = process.logs(READ_AGAIN).await;
    assert!(log.last().is_some_and(|line| line.contains(&digest(&second))), "{log:#?}");
}

#[tokio::test]
async fn a_signal_while_it_waits_for_its_database_does_not_end_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = format!("host={} user=nobody dbname=none", folder.path().display());
    let config = write_deployment(folder.path(), &nowhere, "");
    let mut command = program();
    command.env("RUST_LOG", "approval_authority=info").stderr(Stdio::piped());
    let mut child = command.arg("serve").arg("--config").arg(config).spawn().expect("the program");
    let mut log = log_of(&mut child);
    until(&mut log, "waiting for the database").await;
    let pid = Pid::from_raw(child.id().expect("running").cast_signed());
    kill(pid, Signal::SIGHUP).expect("signalled");
    until(&mut log, READ_AGAIN).await;
    kill(pid, Signal::SIGTERM).expect("signalled");
    assert_eq!(child.wait().await.expect("exited").code(), Some(0));
}
