//! Every reason that a server gives to a command: by a real run of it, its words and its exit code.

use std::{collections::BTreeSet, net::SocketAddr};

use approval_authority::proto::{self, ErrorReason, RequireApprovalRequest, Start};

use super::Person;
use crate::{
    database::Database,
    harness::request,
    server::{Process, policy_text},
    watch,
};

/// Those that no run of a command can meet, and why.
const OUT_OF_REACH: [(ErrorReason, &str); 8] = [
    (ErrorReason::Unspecified, "no server gives it"),
    (ErrorReason::NotConsumed, "no command reports what became of an operation"),
    (ErrorReason::ResultRecorded, "nor does any report it again"),
    (ErrorReason::WorkspaceNotFound, "no command changes workspaces"),
    (ErrorReason::ParentNotFound, "nor puts them below another"),
    (ErrorReason::WorkspaceCycle, "nor moves them"),
    (ErrorReason::Draining, "each run makes a connection, and a server that drains takes none"),
    (ErrorReason::SubscriberTooSlow, "`watch` connects again, and goes on where it was"),
];

/// A reason, the exit code it leads to, who runs what, and what they are told.
type Run<'a> = (ErrorReason, i32, &'a str, &'a [&'a str], &'a str);

/// Runs commands against a server, and remembers which reasons they were given.
struct Runs {
    server: SocketAddr,
    met: BTreeSet<ErrorReason>,
}

impl Runs {
    async fn lead(&mut self, runs: &[Run<'_>]) {
        for (reason, exit, whose, arguments, words) in runs {
            let ran = Person::of(whose, self.server).runs(arguments).await;
            assert_eq!(ran.code, Some(*exit), "{reason:?}: {ran:?}");
            assert!(ran.err.contains(words), "{reason:?}: {ran:?}");
            assert!(self.met.insert(*reason), "{reason:?} again");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_reason_leads_to_its_exit_code() {
    use ErrorReason as Reason;
    let database = Database::new().await;
    let policy = policy_text()
        .replace("max_pending = 100", "max_pending = 1")
        .replace("unlisted_actions = \"allow\"", "unlisted_actions = \"refuse\"");
    let limits = "[limits]\nwatchers_per_principal = 1\n";
    let server = Process::with_config(&database.url, &policy, limits).await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let ask = async |request: RequireApprovalRequest| {
        let answer = backend.ask(request).await.expect("an answer");
        answer.approval.expect("an approval")
    };
    let mut runs = Runs { server: server.address, met: BTreeSet::new() };

    let one = ask(request("w1", "delete_workspace")).await;
    let in_a_name = RequireApprovalRequest {
        on_behalf_of: "alice".to_owned(),
        ..request("w2", "delete_workspace")
    };
    let own = ask(in_a_name).await;
    let nobody = "0198c0de-0000-7000-8000-000000000000";
    let approve = ["approve", &one.id, "--request-hash", &one.request_hash];
    let another = ["approve", &one.id, "--request-hash", &own.request_hash];
    let approve_own = ["approve", &own.id, "--request-hash", &own.request_hash];
    let revoke = ["revoke", &one.id, "--reason", "a slip"];
    runs.lead(&[
        (Reason::FieldInvalid, 2, "alice", &["pending", "--action", "No"], "request is invalid"),
        (Reason::Unauthenticated, 4, "nobody", &["pending"], "a valid credential is required"),
        (Reason::RoleMissing, 5, "stranger", &["pending"], "no role of yours"),
        (Reason::ApprovalNotFound, 1, "alice", &["show", nobody], "no such approval"),
        (Reason::NotAnApprover, 5, "viewer", &approve, "you hold no approver role"),
        (Reason::SelfApproval, 5, "alice", &approve_own, "nobody approves what they asked for"),
        (Reason::HashMismatch, 6, "alice", &another, "request_hash is not that of this approval"),
        (Reason::NotApproved, 6, "alice", &revoke, "not approved and unused; it is PENDING"),
        (Reason::TooManyPending, 7, "backend", &["require", "w1", "secret_write"], "1 pending"),
        (Reason::ActionUnknown, 5, "backend", &["require", "w1", "guess"], "not know this action"),
    ])
    .await;

    alice.approve(&one.id).await;
    let attempt = RequireApprovalRequest {
        idempotency_key: "attempt".to_owned(),
        ..request("w1", "delete_workspace")
    };
    ask(attempt).await;
    let reused = ["require", "w3", "delete_workspace", "--idempotency-key", "attempt"];
    runs.lead(&[
        (Reason::NotPending, 6, "bob", &approve, "not pending; it is CONSUMED"),
        (Reason::IdempotencyKeyReused, 2, "backend", &reused, "used for another operation"),
    ])
    .await;
    let report = proto::ReportResultRequest {
        approval_id: one.id.clone(),
        result: proto::Result::Succeeded.into(),
        ..Default::default()
    };
    backend.approvals.clone().report_result(report).await.expect("reported");
    let spent = ["require", "w1", "delete_workspace", "--idempotency-key", "attempt"];
    runs.lead(&[(Reason::IdempotencyKeySpent, 6, "backend", &spent, "attempt of this")]).await;

    // Each as somebody else, since each may watch once.
    let mut stream = alice.watch(watch::from(Start::Oldest)).await.expect("a stream");
    let (first, second) = (watch::next(&mut stream).await, watch::next(&mut stream).await);
    runs.lead(&[
        (Reason::Overloaded, 7, "alice", &["watch"], "too many calls or streams of yours"),
        (Reason::CursorInvalid, 2, "bob", &["watch", "--after", "x"], "not one of this namespace"),
    ])
    .await;
    let owner = database.connect().await;
    let cut = "DELETE FROM approval_authority.events WHERE revision <= 2;
        UPDATE approval_authority.logs SET floor_revision = 2";
    owner.batch_execute(cut).await.expect("cut");
    let expired = ["watch", "--after", &first.cursor];
    runs.lead(&[(Reason::CursorExpired, 6, "carol", &expired, "no longer reaches back")]).await;
    let new_history = "UPDATE approval_authority.logs SET epoch = gen_random_uuid()";
    owner.batch_execute(new_history).await.expect("another history");
    let changed = ["watch", "--after", &second.cursor];
    runs.lead(&[(Reason::HistoryChanged, 6, "viewer", &changed, "another one now")]).await;

    let broken = "ALTER TABLE approval_authority.approvals RENAME TO lost";
    owner.batch_execute(broken).await.expect("renamed");
    let show = ["show", &own.id];
    runs.lead(&[(Reason::StoreUnavailable, 7, "alice", &show, "internal error")]).await;

    runs.met.extend(OUT_OF_REACH.map(|(reason, _)| reason));
    let all = (0..).map_while(|number| ErrorReason::try_from(number).ok());
    assert_eq!(runs.met, all.collect());
}
