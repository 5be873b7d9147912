//! The exit codes, each by what leads to it.

use std::{process::Stdio, time::Duration};

use approval_authority::proto::RequireApprovalResponse;

use super::{Person, bare, pending, run};
use crate::{
    gate::{
        Token,
        fake::{Fake, through},
    },
    harness::TestServer,
};

#[tokio::test]
async fn each_exit_code_says_what_became_of_it() {
    let (_database, server) = TestServer::new().await;
    let (open, denied) = (pending(&server, "w1").await, pending(&server, "w2").await);
    server.caller("alice").await.deny(&denied.id).await;
    let nobody = "0198c0de-0000-7000-8000-000000000000";
    let approve = ["approve", &open.id, "--request-hash", &open.request_hash];
    let too_late = ["approve", &denied.id, "--request-hash", &denied.request_hash];
    let own = ["require", "w3", "delete_workspace", "--on-behalf-of", "alice", "-o", "json"];
    let ran = Person::of("backend", server.address).runs(&own).await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let own: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    let text = |field: &str| own["approval"][field].as_str().expect("text").to_owned();
    let (own, own_hash) = (text("id"), text("requestHash"));

    let table: &[(i32, &str, &[&str], &str)] = &[
        (0, "alice", &["pending"], ""),
        (0, "backend", &["require", "w1", "list_secrets"], ""),
        (1, "alice", &["show", nobody], "no such approval"),
        (2, "alice", &["show", "what?"], "is no id"),
        (2, "alice", &["approve", &open.id], "--request-hash"),
        (2, "backend", &["require", "w1", "No Action"], "action"),
        (2, "backend", &["require", "w1", "a", "--context", "[1]"], "context"),
        (
            2,
            "backend",
            &["require", "w1", "a", "--context", r#"{"x":{"a":1,"a":2}}"#],
            "stands twice",
        ),
        (2, "backend", &["require", "w1", "a", "--idempotency-key", ""], "--idempotency-key"),
        (2, "backend", &["require", "w1", "a", "--wait", "2m"], "60s"),
        (2, "alice", &["pending", "--token", "x"], "--token"),
        (2, "alice", &["watch", "--after", "x"], "cursor"),
        (2, "alice", &["watch", "--after", ""], "--after"),
        (3, "backend", &["require", "w1", "delete_workspace", "--reason", "because"], ""),
        (4, "nobody-knows", &["pending"], "credential"),
        (5, "stranger", &["pending"], "no role of yours"),
        (5, "backend", &["require", "w2", "delete_workspace"], ""),
        (5, "viewer", &approve, "somebody else has to decide"),
        (5, "alice", &["approve", &own, "--request-hash", &own_hash], "somebody else"),
        (6, "alice", &too_late, "it is DENIED"),
        (6, "alice", &["revoke", &open.id, "--reason", "x"], "it is PENDING"),
    ];
    for (code, subject, arguments, words) in table {
        let ran = Person::of(subject, server.address).runs(arguments).await;
        assert_eq!(ran.code, Some(*code), "{arguments:?}: {ran:?}");
        assert!(ran.err.contains(words), "{arguments:?}: {ran:?}");
    }

    let address = server.address;
    server.drain().await;
    let gone = Person::of("alice", address).runs(&["pending"]).await;
    assert_eq!(gone.code, Some(7), "{gone:?}");
    assert!(
        gone.err.contains("cannot be reached: Connection refused (os error 111); is it --server"),
        "{gone:?}"
    );
    let gone = Person::of("backend", address).runs(&["require", "w1", "delete_workspace"]).await;
    assert_eq!(gone.code, Some(7), "{gone:?}");
    assert!(gone.err.contains("repeat it with --idempotency-key "), "{gone:?}");
}

#[tokio::test]
async fn a_script_goes_on_only_once_it_is_let_through() {
    let (_database, server) = TestServer::new().await;
    let backend = Person::of("backend", server.address);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), r#"{"force": true}"#).expect("written");
    let context = format!("@{}", file.path().display());
    let ask = ["require", "w1", "delete_workspace", "--context", &context, "--reason", "why not"];
    let held = backend.runs(&ask).await;
    assert_eq!(held.code, Some(3), "{held:?}");
    let alice = server.caller("alice").await;
    let listed = alice.list(Default::default()).await.expect("a list");
    let approval = &listed.approvals[0];
    assert!(held.out.starts_with("held: ") && held.out.contains(&approval.id), "{held:?}");
    alice.approve(&approval.id).await;

    let key = [&ask[..], &["--idempotency-key", "one"]].concat();
    let other = backend.runs(&["require", "w1", "delete_workspace"]).await;
    assert_eq!(other.code, Some(3), "another context: {other:?}");
    for words in ["execute it now, once", "let through before"] {
        let through = backend.runs(&key).await;
        assert_eq!(through.code, Some(0), "{through:?}");
        assert!(through.out.contains(words), "{through:?}");
    }
    assert_eq!(backend.runs(&ask).await.code, Some(3), "once");

    // It waits for the decision.
    let listed = alice.list(Default::default()).await.expect("a list");
    let waiting = [&ask[..], &["--wait", "30s"]].concat();
    let waiting = backend.runs(&waiting);
    let decided = async { alice.approve(&listed.approvals[0].id).await };
    let (through, _) = tokio::join!(waiting, decided);
    assert_eq!(through.code, Some(0), "{through:?}");
}

#[tokio::test]
async fn a_credential_is_needed_and_never_an_argument_nor_printed() {
    let (_database, server) = TestServer::new().await;
    let address = server.address.to_string();
    let with = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = bare(arguments);
        command.env("APPROVAL_AUTHORITY_SERVER", &address);
        let variables =
            variables.iter().map(|(name, value)| (format!("APPROVAL_AUTHORITY_{name}"), value));
        command.envs(variables);
        run(command)
    };
    let token = ("TOKEN", "alice-token-for-tests");
    let none = with(&[], &["pending"]).await;
    assert_eq!(none.code, Some(4), "{none:?}");
    assert!(none.err.contains("--token-file"), "{none:?}");
    // What the server is configured with is nothing to people.
    let of_the_server = ("DATABASE__URL", "postgres://nowhere");
    for arguments in [&["pending"][..], &["pending", "--output", "json"], &["show", "ffffffff"]] {
        let ran = with(&[token, of_the_server], arguments).await;
        assert_ne!(ran.code, Some(4), "{ran:?}");
        assert!(!ran.out.contains(token.1) && !ran.err.contains(token.1), "{ran:?}");
    }
    let acme = with(&[token, ("NAMESPACE", "acme"), ("TOKEN_FILE", "")], &["pending"]).await;
    assert_eq!(acme.code, Some(0), "{acme:?}");
    let wrong = with(&[("TOKEN", "nobody-knows-this-token")], &["pending"]).await;
    assert_eq!(wrong.code, Some(4), "{wrong:?}");
    assert!(!wrong.err.contains("nobody-knows"), "{wrong:?}");
    let both = with(&[token, ("TOKEN_FILE", "/nowhere")], &["pending"]).await;
    assert_eq!(both.code, Some(2), "{both:?}");
    for broken in ["/nowhere", "/dev/null"] {
        let ran = with(&[("TOKEN_FILE", broken)], &["pending"]).await;
        assert_eq!(ran.code, Some(4), "{ran:?}");
        assert!(ran.err.contains(broken), "{ran:?}");
    }
    let alice = Token::of("alice");
    let file = alice.path().display().to_string();
    let ran =
        with(&[("TOKEN", "nobody-knows-this-token")], &["pending", "--token-file", &file]).await;
    assert_eq!(ran.code, Some(0), "what is said goes before the environment: {ran:?}");
}

#[tokio::test]
async fn what_came_to_nothing_since_is_no_success_and_what_is_done_already_is() {
    let (_database, server) = TestServer::new().await;
    let (one, two) = (pending(&server, "w1").await, pending(&server, "w2").await);
    let alice = Person::of("alice", server.address);
    let approve = ["approve", &one.id, "--request-hash", &one.request_hash];
    for _ in 0..2 {
        assert_eq!(alice.runs(&approve).await.code, Some(0));
    }
    // As when the answer to the first is lost, and the command asks again.
    for told in ["revoked: ", "revoked already: "] {
        let revoked = alice.runs(&["revoke", &one.id, "--reason", "x"]).await;
        assert_eq!(revoked.code, Some(0), "{revoked:?}");
        assert!(revoked.out.starts_with(told), "{revoked:?}");
    }
    let approved = alice.runs(&approve).await;
    assert_eq!(approved.code, Some(6), "{approved:?}");
    assert!(approved.err.contains("it is REVOKED"), "{approved:?}");

    let backend = Person::of("backend", server.address);
    let backend_2 = Person::of("backend-2", server.address);
    let others = backend_2.runs(&["withdraw", &two.id]).await;
    assert_eq!(others.code, Some(1), "it is not there for those that did not ask: {others:?}");
    let unasked = alice.runs(&["withdraw", &two.id]).await;
    assert_eq!(unasked.code, Some(5), "{unasked:?}");
    assert!(unasked.err.contains("only whoever asked can withdraw it"), "{unasked:?}");
    for told in ["withdrawn: ", "withdrawn already: "] {
        let withdrawn = backend.runs(&["withdraw", &two.id]).await;
        assert_eq!(withdrawn.code, Some(0), "{withdrawn:?}");
        assert!(withdrawn.out.starts_with(told), "{withdrawn:?}");
    }
    let other = backend.runs(&["withdraw", &one.id]).await;
    assert_eq!(other.code, Some(6), "{other:?}");
}

#[tokio::test]
async fn an_exit_code_is_given_though_nobody_can_be_told() {
    let (_database, server) = TestServer::new().await;
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let mut unreachable = bare(&["pending", "--server", "127.0.0.1:1"]);
    unreachable.env("APPROVAL_AUTHORITY_TOKEN", "a-token").stderr(full());
    let code = unreachable.status().await.expect("the program").code();
    assert_eq!(code, Some(7));

    let backend = Person::of("backend", server.address);
    let mut ungated = backend.command(&["require", "w1", "list_secrets"]);
    let child = ungated.stdout(full()).stderr(Stdio::piped()).spawn().expect("the program");
    let ran = child.wait_with_output().await.expect("ended");
    assert_eq!(ran.status.code(), Some(1));
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(told.contains("repeat it with --idempotency-key "), "{told}");
}

/// As of a mount that has gone away.
#[tokio::test]
async fn a_token_that_cannot_be_read_again_keeps_no_command_from_ending() {
    let (_database, server) = TestServer::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("token");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    let writer = pipe.clone();
    let writing = std::thread::spawn(move || std::fs::write(writer, "alice-token-for-tests"));
    let mut command = bare(&["pending", "--token-file", &pipe.display().to_string()]);
    command.arg("--server").arg(server.address.to_string());
    let ran = tokio::time::timeout(Duration::from_secs(30), run(command)).await;
    let ran = ran.expect("it ends");
    assert_eq!(ran.code, Some(7), "{ran:?}");
    writing.join().expect("no panic").expect("written");
}

#[tokio::test]
async fn an_attempt_of_one_run_has_executed_nothing_before() {
    let fake = Fake::new(|asked| Ok(RequireApprovalResponse { replayed: true, ..through(asked) }));
    let fake = fake.await;
    let backend = Person::of("backend", fake.address);
    let ask = ["require", "w1", "delete_workspace"];
    for (key, words) in
        [(&[][..], "execute it now, once"), (&["--idempotency-key", "k"], "let through before")]
    {
        let ran = backend.runs(&[&ask[..], key].concat()).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.out.contains(words), "{ran:?}");
    }
}
