//! Answers that are lost around COMMIT, attempts that are repeated, and a cap that two servers share.

use approval_authority::proto::{
    ApprovalState, Decision, Outcome, RequireApprovalRequest, RequireApprovalResponse,
};
use futures_util::future::join_all;
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    database::Database,
    harness::{Caller, id, refusal, request, told},
    proxy::{Fate, Proxy},
    server::{Process, policy_text},
};

/// A server behind a proxy, and another beside it on the same database.
struct Scene {
    database: Database,
    behind: Process,
    beside: Process,
    proxy: Proxy,
}

impl Scene {
    async fn new() -> Self {
        let database = Database::new().await;
        let proxy = Proxy::new(&database.url).await;
        let (behind, beside) =
            tokio::join!(Process::serve(&proxy.url), Process::serve(&database.url));
        Self { database, behind, beside, proxy }
    }

    /// An operation that has been approved; returns the approval.
    async fn approved(&self, workspace: &str) -> String {
        let held =
            id(&self.beside.caller("backend").await.require(workspace, "secret_write").await);
        self.beside.caller("alice").await.approve(&held).await;
        held
    }

    /// How often the log says that this happened to the approval.
    async fn times(&self, kind: &str, approval: &str) -> i64 {
        let query = format!(
            "SELECT count(*) FROM approval_authority.events
             WHERE type = '{kind}' AND approval_id = '{approval}'"
        );
        self.database.count(&query).await
    }
}

/// A call of one attempt to execute the operation.
fn attempt(workspace: &str) -> RequireApprovalRequest {
    let mut ask = request(workspace, "secret_write");
    ask.idempotency_key = format!("attempt on {workspace}");
    ask
}

fn assert_let_through(answer: &RequireApprovalResponse, approval: &str, replayed: bool) {
    assert_eq!(told(answer), (Outcome::Approved, ApprovalState::Consumed));
    assert_eq!((id(answer).as_str(), answer.replayed), (approval, replayed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_is_repeated_after_its_server_was_killed_between_commit_and_answer() {
    let mut scene = Scene::new().await;
    let approved = scene.approved("w1").await;
    scene.proxy.next(&[Fate::AnswerHeld]);
    let backend = scene.behind.caller("backend").await;
    let unanswered = tokio::spawn(async move { backend.ask(attempt("w1")).await });
    scene.proxy.until_struck(1).await;
    assert_eq!(scene.times("CONSUMED", &approved).await, 1, "committed, and nobody was told");
    scene.behind.child.kill().await.expect("killed");
    unanswered.await.expect("no panic").expect_err("the server is gone");

    let backend = scene.beside.caller("backend").await;
    for _ in 0..2 {
        let again = backend.ask(attempt("w1")).await.expect("the answer that was lost");
        assert_let_through(&again, &approved, true);
    }
    assert_eq!(scene.times("CONSUMED", &approved).await, 1);
    let without_the_key = backend.require("w1", "secret_write").await;
    assert_eq!(without_the_key.outcome(), Outcome::Pending, "another attempt asks anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_finds_out_by_itself_what_became_of_a_commit() {
    let scene = Scene::new().await;
    let backend = scene.behind.caller("backend").await;
    let cases: [(&str, &[Fate]); 4] = [
        ("the answer is lost", &[Fate::AnswerLost]),
        ("so is that of the first try to find out", &[Fate::AnswerLost, Fate::AnswerLost]),
        ("COMMIT is lost", &[Fate::Lost]),
        ("the answer does not come", &[Fate::AnswerHeld]),
    ];
    let mut struck = 0;
    for (case, fates) in cases {
        let approved = scene.approved(case).await;
        scene.proxy.next(fates);
        let through = backend.ask(attempt(case)).await.expect(case);
        assert_let_through(&through, &approved, false);
        struck += fates.len();
        assert_eq!(scene.proxy.struck(), struck, "{case}");
        assert_eq!(scene.times("CONSUMED", &approved).await, 1, "{case}");
        let again = backend.ask(attempt(case)).await.expect(case);
        assert_let_through(&again, &approved, true);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_could_not_be_carried_out_says_so_and_has_changed_nothing() {
    let scene = Scene::new().await;
    let approved = scene.approved("w1").await;
    let backend = scene.behind.caller("backend").await;
    // The second COMMIT is that of the ledger's own look at what became of the first.
    scene.proxy.next(&[Fate::Lost, Fate::Passed, Fate::Lost]);
    let refused = backend.ask(attempt("w1")).await.expect_err("lost twice");
    assert_eq!(refusal(&refused), (Code::Unavailable, "STORE_UNAVAILABLE".to_owned()));
    assert!(refused.message().contains("nothing was decided"), "{refused:?}");
    assert_eq!(scene.times("CONSUMED", &approved).await, 0);
    let through = backend.ask(attempt("w1")).await.expect("let through");
    assert_let_through(&through, &approved, false);
}

/// There is nothing in the log by which the ledger could find out whether a repeated answer is durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_answer_that_was_not_confirmed_is_not_given() {
    let scene = Scene::new().await;
    let approved = scene.approved("w1").await;
    let backend = scene.behind.caller("backend").await;
    assert_let_through(&backend.ask(attempt("w1")).await.expect("first"), &approved, false);
    for fate in [Fate::Lost, Fate::AnswerLost] {
        scene.proxy.next(&[fate]);
        let refused = backend.ask(attempt("w1")).await.expect_err("not confirmed");
        assert_eq!(refusal(&refused), (Code::Unavailable, "STORE_UNAVAILABLE".to_owned()));
        assert!(refused.message().contains("unknown"), "{refused:?}");
    }
    assert_let_through(&backend.ask(attempt("w1")).await.expect("again"), &approved, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_whose_answer_is_lost_counts_once() {
    let scene = Scene::new().await;
    let held = id(&scene.beside.caller("backend").await.require("w1", "org_token_mint").await);
    let alice = scene.behind.caller("alice").await;
    scene.proxy.next(&[Fate::AnswerLost]);
    let reviewed = alice.decide(&held, Decision::Approve).await.expect("found out");
    assert_eq!((reviewed.state(), reviewed.version), (ApprovalState::Pending, 2));
    assert_eq!((scene.proxy.struck(), scene.times("REVIEWED", &held).await), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_good_for_ten_minutes() {
    let scene = Scene::new().await;
    let approved = scene.approved("w1").await;
    let backend = scene.behind.caller("backend").await;
    assert_let_through(&backend.ask(attempt("w1")).await.expect("first"), &approved, false);
    scene.database.move_clock("9 minutes 50 seconds").await;
    assert_let_through(&backend.ask(attempt("w1")).await.expect("in time"), &approved, true);
    scene.database.move_clock("10 minutes").await;
    for process in [&scene.behind, &scene.beside] {
        let spent = process.caller("backend").await.ask(attempt("w1")).await.expect_err("over");
        assert_eq!(refusal(&spent), (Code::Aborted, "IDEMPOTENCY_KEY_SPENT".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cap_is_exact_whichever_server_is_asked() {
    const LIMIT: usize = 5;
    const CALLS: usize = 60;
    let database = Database::new().await;
    let policy = policy_text().replacen("max_pending = 100", &format!("max_pending = {LIMIT}"), 1);
    let serve = || Process::with_policy(&database.url, &policy);
    let (one, two) = tokio::join!(serve(), serve());
    let backends: [Caller; 2] = [one.caller("backend").await, two.caller("backend").await];
    let calls = (0..CALLS).map(|number| {
        let backend = backends[number % 2].clone();
        let mut ask = request("w1", "secret_write");
        ask.on_behalf_of = format!("agent-{number}");
        tokio::spawn(async move { backend.ask(ask).await })
    });
    let (mut pending, mut refused) = (0, 0);
    for call in join_all(calls).await {
        match call.expect("no panic") {
            Ok(answer) => {
                assert_eq!(answer.outcome(), Outcome::Pending);
                pending += 1;
            }
            Err(status) => {
                let expected = (Code::ResourceExhausted, "TOO_MANY_PENDING".to_owned());
                assert_eq!(refusal(&status), expected);
                let details = status.get_error_details();
                let info = details.error_info().expect("details");
                assert_eq!(info.metadata["limit"], LIMIT.to_string());
                refused += 1;
            }
        }
    }
    assert_eq!((pending, refused), (LIMIT, CALLS - LIMIT));
    let rows = "SELECT count(*) FROM approval_authority.approvals";
    assert_eq!(database.count(rows).await, 5);
}
