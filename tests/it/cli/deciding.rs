//! Nothing is decided that was not shown, on a terminal and without one.

use approval_authority::proto::{ApprovalState, Decision};
use prost_types::{Struct, Value, value::Kind};

use super::{Person, asked, pending, short};
use crate::harness::{TestServer, request};

const QUESTION: &str = "Approve this? [y/N] ";

async fn state(server: &TestServer, id: &str) -> ApprovalState {
    server.caller("viewer").await.get(id).await.expect("it").state()
}

#[tokio::test]
async fn what_is_decided_is_shown_whole_and_a_yes_is_bound_to_it() {
    let (_database, server) = TestServer::new().await;
    let long = "x".repeat(5_000);
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let hostile =
        "\u{1b}[2J\u{1b}[1;1H\u{9b}2J\u{202e}ecilA\u{2069}\u{200b}\r\nApprove this? [y/N] y";
    let fields = [("evil\u{202e}", text(hostile)), ("long", text(&long))];
    let approval = asked(
        &server,
        approval_authority::proto::RequireApprovalRequest {
            context: Some(Struct {
                fields: fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            }),
            on_behalf_of: "sam".to_owned(),
            reason: format!("because{hostile}"),
            ..request("w1", "delete_workspace")
        },
    )
    .await;

    let alice = Person::of("alice", server.address);
    let mut terminal = alice.types(&["approve", short(&approval)]);
    terminal.shows(&approval.request_hash).await;
    terminal.shows(&format!("\n{QUESTION}")).await;
    let screen = terminal.screen.clone();
    for shown in [
        "tokens:backend",
        "sam",
        "delete_workspace",
        "w1",
        &approval.id,
        &long,
        r#""evil\u202e": "\u001b[2J\u001b[1;1H\u009b2J\u202eecilA\u2069\u200b\r\nApprove this? [y/N] y""#,
        r"because\u{1b}[2J\u{1b}[1;1H\u{9b}2J\u{202e}ecilA\u{2069}\u{200b}\r\nApprove this? [y/N] y",
        "PENDING, 0 of 1 approvals",
    ] {
        assert!(screen.contains(shown), "{shown} in {screen}");
    }
    for obeyed in ["\u{1b}[2J", "\u{1b}[1;1H", "\u{9b}", "\u{202e}", "\u{2069}", "\u{200b}"] {
        assert!(!screen.contains(obeyed), "{obeyed:?} in {screen:?}");
    }
    assert!(screen.contains("\u{1b}[33m"), "what is pending is yellow");
    assert_eq!(state(&server, &approval.id).await, ApprovalState::Pending, "nobody has answered");
    terminal.types("yes\n");
    let (code, screen) = terminal.ends().await;
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("approved: "), "{screen}");
    assert_eq!(state(&server, &approval.id).await, ApprovalState::Approved);
}

#[tokio::test]
async fn whatever_is_no_yes_is_a_no() {
    let (_database, server) = TestServer::new().await;
    let approval = pending(&server, "w1").await;
    let alice = Person::of("alice", server.address);
    for answer in ["n\n", "\n", "\u{4}", "yess\n", "no, yes\n"] {
        let mut terminal = alice.types(&["approve", &approval.id]);
        terminal.shows(QUESTION).await;
        terminal.types(answer);
        let (code, screen) = terminal.ends().await;
        assert_eq!(code, Some(1), "{answer:?}: {screen}");
        assert!(screen.contains("not approved"), "{screen}");
    }
    assert_eq!(state(&server, &approval.id).await, ApprovalState::Pending);

    let mut terminal = alice.types(&["deny", &approval.id, "--reason", "still needed"]);
    terminal.shows("Deny this? [y/N] ").await;
    terminal.types("Y\n");
    assert_eq!(terminal.ends().await.0, Some(0));
    assert_eq!(state(&server, &approval.id).await, ApprovalState::Denied);
}

#[tokio::test]
async fn what_was_typed_before_it_was_shown_is_no_answer() {
    let (_database, server) = TestServer::new().await;
    let (one, two) = (pending(&server, "w1").await, pending(&server, "w2").await);
    let alice = Person::of("alice", server.address);
    let mut terminal = alice.types(&["approve", &one.id, &two.id]);
    terminal.shows(QUESTION).await;
    terminal.types("y\ny\n");
    terminal.shows(QUESTION).await;
    terminal.types("n\n");
    let (code, screen) = terminal.ends().await;
    assert_eq!(code, Some(1), "{screen}");
    assert_eq!(state(&server, &one.id).await, ApprovalState::Approved);
    assert_eq!(state(&server, &two.id).await, ApprovalState::Pending, "{screen}");
}

#[tokio::test]
async fn what_changed_while_somebody_read_is_refused() {
    let (_database, server) = TestServer::new().await;
    let approval = pending(&server, "w1").await;
    let alice = Person::of("alice", server.address);
    let mut terminal = alice.types(&["approve", &approval.id]);
    terminal.shows(QUESTION).await;
    server.caller("bob").await.decide(&approval.id, Decision::Deny).await.expect("denied");
    terminal.types("y\n");
    let (code, screen) = terminal.ends().await;
    assert_eq!(code, Some(6), "{screen}");
    assert!(screen.contains("it is DENIED"), "{screen}");
}

#[tokio::test]
async fn without_a_terminal_nothing_is_decided_but_by_its_hash() {
    let (_database, server) = TestServer::new().await;
    let (one, two) = (pending(&server, "w1").await, pending(&server, "w2").await);
    let alice = Person::of("alice", server.address);
    for verb in [&["approve"][..], &["deny", "--reason", "no"]] {
        let blind = alice.runs(&[verb, &[&one.id]].concat()).await;
        assert_eq!(blind.code, Some(2), "{blind:?}");
        assert!(blind.err.contains("--request-hash"), "{blind:?}");
        let arguments = [verb, &[&one.id, "--request-hash", &two.request_hash]].concat();
        let other = alice.runs(&arguments).await;
        assert_eq!(other.code, Some(6), "{other:?}");
        assert!(other.err.contains("look at it again"), "{other:?}");
    }
    // One hash does not do for two.
    let hash = ["--request-hash", &one.request_hash];
    let blind = alice.runs(&[&["approve", &one.id, &two.id], &hash[..]].concat()).await;
    assert_eq!(blind.code, Some(2), "{blind:?}");
    assert_eq!(state(&server, &one.id).await, ApprovalState::Pending);

    let approved = alice.runs(&[&["approve", short(&one)], &hash[..]].concat()).await;
    assert_eq!(approved.code, Some(0), "{approved:?}");
    assert!(approved.out.starts_with("approved: "), "{approved:?}");
    assert_eq!(state(&server, &one.id).await, ApprovalState::Approved);

    let speechless = alice.runs(&["deny", &two.id, "--request-hash", &two.request_hash]).await;
    assert_eq!(speechless.code, Some(2), "a reason is needed: {speechless:?}");
    assert_eq!(state(&server, &two.id).await, ApprovalState::Pending);
}

#[tokio::test]
async fn each_of_several_is_reported_and_the_first_failure_is_the_exit_code() {
    let (_database, server) = TestServer::new().await;
    let (one, two) = (pending(&server, "w1").await, pending(&server, "w2").await);
    let nobody = "0198c0de-0000-7000-8000-000000000000";
    let hashes = [&one, &one, &two].map(|it| it.request_hash.as_str());
    let hashes = hashes.into_iter().flat_map(|hash| ["--request-hash", hash]);
    let ids = ["approve", &one.id, nobody, &two.id];
    let arguments: Vec<&str> = ids.into_iter().chain(hashes).collect();
    let ran = Person::of("alice", server.address).runs(&arguments).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(ran.out.matches("approved: ").count(), 2, "{ran:?}");
    assert!(ran.err.contains(&format!("{nobody}: no such approval")), "{ran:?}");

    let revoked = ["revoke", &one.id, short(&two), "--reason", "the wrong ones"];
    let ran = Person::of("bob", server.address).runs(&revoked).await;
    assert_eq!((ran.code, ran.out.matches("revoked: ").count()), (Some(0), 2), "{ran:?}");
}

#[tokio::test]
async fn of_a_quorum_each_is_told_how_many_more_it_takes() {
    let (_database, server) = TestServer::new().await;
    let approval = asked(&server, request("w1", "org_token_mint")).await;
    let approve = ["approve", &approval.id, "--request-hash", &approval.request_hash];
    let first = Person::of("alice", server.address).runs(&approve).await;
    assert!(first.out.contains("1 more must approve"), "{first:?}");
    let second = Person::of("bob", server.address).runs(&approve).await;
    assert!(second.out.starts_with("approved: "), "{second:?}");
}

#[tokio::test]
async fn its_requester_takes_back_what_nobody_decided() {
    let (_database, server) = TestServer::new().await;
    let approval = pending(&server, "w1").await;
    let backend = Person::of("backend", server.address);
    let part = backend.runs(&["withdraw", short(&approval)]).await;
    assert_eq!(part.code, Some(5), "{part:?}");
    assert!(part.err.contains("give all of it"), "{part:?}");
    let ran = backend.runs(&["withdraw", &approval.id, "--reason", "not needed"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.starts_with("withdrawn: "), "{ran:?}");
}
