//! Nothing is decided that was not shown, on a terminal and without one.

use approval_authority::proto::{ApprovalState, Decision};
use prost_types::{Struct, Value, value::Kind};

use super::{Person, asked, pending, short};
use crate::harness::{TestServer, request};

const QUESTION: &str = "as tokens:backend asks? [y/N] ";

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
    terminal
        .shows("\nApprove delete_workspace in w1, as tokens:backend for sam asks? [y/N] ")
        .await;
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
        "Deletes a workspace and all that is in it",
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
    terminal.shows("\nDeny delete_workspace in w1, as tokens:backend asks? [y/N] ").await;
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
    let alice = Person::of("alice", server.address);
    for told in ["recorded: ", "approved by you before: "] {
        let first = alice.runs(&approve).await;
        assert!(first.out.starts_with(told), "{first:?}");
        assert!(first.out.contains("1 more must approve"), "{first:?}");
    }
    let listed = alice.runs(&["pending"]).await;
    assert!(listed.out.contains("  1/2  "), "{listed:?}");
    let second = Person::of("bob", server.address).runs(&approve).await;
    assert!(second.out.starts_with("approved: "), "{second:?}");

    let other = pending(&server, "w2").await;
    let deny = ["deny", &other.id, "--reason", "no", "--request-hash", &other.request_hash];
    for told in ["denied: ", "denied by you before: "] {
        let denied = alice.runs(&deny).await;
        assert_eq!(denied.code, Some(0), "{denied:?}");
        assert!(denied.out.starts_with(told), "{denied:?}");
    }
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

/// A terminal has a long line go on at its left edge, where words of the requester's would pass for the program's.
#[tokio::test]
async fn nothing_that_a_requester_wrote_begins_where_the_programs_words_do() {
    let (_database, server) = TestServer::new().await;
    let forged = |before: usize| format!("{}  action       secret_write", " ".repeat(before));
    let long = (0..200).map(forged).collect::<Vec<_>>().join("|");
    let text = Value { kind: Some(Kind::StringValue(long.clone())) };
    let approval = asked(
        &server,
        approval_authority::proto::RequireApprovalRequest {
            context: Some(Struct { fields: [("note".to_owned(), text)].into() }),
            reason: long[..2_000].to_owned(),
            on_behalf_of: format!("sam {}", "x".repeat(100)),
            ..request("w1", "delete_workspace")
        },
    )
    .await;
    let alice = Person::of("alice", server.address);
    let mut asked = alice.types_within(80, &["approve", &approval.id]);
    asked.shows("asks? [y/N] ").await;
    asked.types("n\n");
    let mut screens = vec![asked.ends().await.1];
    for command in [&["show", &approval.id][..], &["pending"], &["list"]] {
        let (code, screen) = alice.types_within(80, command).ends().await;
        assert_eq!(code, Some(0), "{screen}");
        screens.push(screen);
    }
    let mut watch = alice.types_within(80, &["watch"]);
    watch.shows(" left\r\n").await;
    screens.push(watch.screen.clone());
    let mut rows = 0;
    for screen in screens {
        assert!(screen.contains("delete_workspace"), "{screen}");
        for line in screen.split("\r\n") {
            let styled: String = line
                .split('\u{1b}')
                .enumerate()
                .map(|(part, text)| match part {
                    0 => text,
                    _ => text.split_once('m').map_or("", |(_, text)| text),
                })
                .collect();
            assert!(styled.chars().count() <= 80, "{line:?} in {screen}");
            let begins_with_an_id = |line: &str| line.get(..8) == Some(short(&approval));
            rows += usize::from(begins_with_an_id(&styled) && styled.ends_with('…'));
        }
    }
    assert_eq!(rows, 1, "what is pending is a line");
    // A pipe is given lines as they are.
    let piped = alice.runs(&["show", &approval.id]).await;
    assert!(piped.out.contains(&long), "{piped:?}");
}
