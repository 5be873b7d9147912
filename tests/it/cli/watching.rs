//! `watch`, over servers that come and go.

use std::{process::Stdio, time::Duration};

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use super::{Person, Terminal};
use crate::{
    database::Database,
    harness::{TestServer, id},
    relay::Relay,
    server::{Process, log_of, until},
};

struct Watcher {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watcher {
    fn start(person: &Person, arguments: &[&str]) -> Self {
        let mut command = person.command(&[&["watch"], arguments].concat());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(Duration::from_secs(30), self.lines.next_line());
        line.await.expect("in time").expect("output").expect("a line")
    }

    /// The next message with an event, of a watch that prints JSON.
    async fn event(&mut self) -> serde_json::Value {
        loop {
            let line = self.line().await;
            let message: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            if message.get("event").is_some() {
                return message;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_over_a_server_that_was_killed_and_prints_each_event_once() {
    let database = Database::new().await;
    let mut server = Process::serve(&database.url).await;
    let address = server.address;
    let backend = server.caller("backend").await;
    let before = id(&backend.require("w1", "delete_workspace").await);
    let viewer = Person::of("viewer", address);
    let mut text = Watcher::start(&viewer, &[]);
    let mut json = Watcher::start(&viewer, &["--from", "oldest", "--output", "json"]);
    let mut told = log_of(&mut text.child);
    let short = |id: &str| format!("{}  delete_workspace in w", &id[28..]);
    let first = text.line().await;
    assert!(first.contains("  PENDING          ") && first.contains(&short(&before)), "{first}");
    assert!(first.contains("by tokens:backend: because, 23h 59m left"), "{first}");

    let during = id(&backend.require("w2", "delete_workspace").await);
    let second = text.line().await;
    assert!(second.contains("REQUESTED") && second.contains(&short(&during)), "{second}");

    server.signal(Signal::SIGKILL);
    server.child.wait().await.expect("killed");
    let lost = until(&mut told, "trying again").await;
    assert!(!lost.join("\n").contains("status:"), "plain words: {lost:?}");
    let listen = address.to_string();
    let server = Process::with_settings(&database.url, &[("SERVER__LISTEN", &listen)]).await;
    server.caller("alice").await.deny(&during).await;
    let third = text.line().await;
    assert!(third.contains("DENIED") && third.contains(&short(&during)), "{third}");
    assert!(third.contains("by tokens:alice: as discussed"), "{third}");
    until(&mut told, "connected again").await;

    let mut events = Vec::new();
    for _ in 0..3 {
        let message = json.event().await;
        assert!(message["cursor"].as_str().is_some_and(|cursor| !cursor.is_empty()));
        events.push((message["event"]["revision"].clone(), message["event"]["type"].clone()));
    }
    let expected = [("1", "REQUESTED"), ("2", "REQUESTED"), ("3", "DENIED")];
    let expected = expected.map(|(revision, kind)| {
        (revision.into(), serde_json::Value::from(format!("EVENT_TYPE_{kind}")))
    });
    assert_eq!(events, expected);
}

#[tokio::test]
async fn a_watch_is_coloured_and_escaped_and_goes_on_after_a_cursor() {
    let (_database, server) = crate::harness::TestServer::new().await;
    let backend = server.caller("backend").await;
    let hostile = approval_authority::proto::RequireApprovalRequest {
        reason: "\u{1b}[2J\u{202e}\n".to_owned(),
        ..crate::harness::request("w1\u{200d}", "delete_workspace")
    };
    let one = id(&backend.ask(hostile).await.expect("an answer"));
    let viewer = Person::of("viewer", server.address);
    let mut terminal = Terminal::start(viewer.command(&["watch", "--from", "oldest"]));
    terminal.shows(r"in w1\u{200d}  by tokens:backend: \u{1b}[2J\u{202e}\n").await;
    assert!(terminal.screen.contains("\u{1b}[33mREQUESTED"), "{:?}", terminal.screen);
    assert!(!terminal.screen.contains("\u{1b}[2J"), "{:?}", terminal.screen);

    let mut json = Watcher::start(&viewer, &["--from", "oldest", "-o", "json"]);
    let first = json.event().await;
    assert_eq!(first["event"]["approval"]["id"], one.as_str());
    server.caller("alice").await.approve(&one).await;
    let mut after = Watcher::start(&viewer, &["--after", first["cursor"].as_str().expect("one")]);
    let next = after.line().await;
    assert!(next.contains("APPROVED") && next.contains("by tokens:alice: as discussed"), "{next}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_before_all_that_is_pending_had_come_is_told() {
    let (_database, server) = TestServer::new().await;
    let relay = Relay::of_a_hundred_pending(&server).await;
    let viewer = Person::of("viewer", relay.address);
    let mut text = Watcher::start(&viewer, &[]);
    let mut json = Watcher::start(&viewer, &["-o", "json"]);
    let of = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
    let first = of(&json.line().await)["pendingApproval"]["id"].as_str().expect("one").to_owned();
    let line = text.line().await;
    assert!(line.contains("  PENDING  ") && line.contains(&first[28..]), "{line}");
    server.caller("alice").await.deny(&first).await;
    relay.narrow_to(usize::MAX);
    relay.cut();

    let told = loop {
        let line = text.line().await;
        if line.contains(&first[28..]) {
            break line;
        }
        assert!(line.contains("  PENDING  "), "{line}");
    };
    assert!(told.contains("  DENIED  ") && told.ends_with("while not connected"), "{told}");
    let mut told = Vec::new();
    loop {
        let message = of(&json.line().await);
        if message["bookmark"]["pendingComplete"] == true {
            break;
        }
        told.push(message["pendingApproval"].clone());
    }
    let (last, others) = told.split_last().expect("some");
    assert_eq!(
        (last["id"].as_str(), &last["state"]),
        (Some(&*first), &"APPROVAL_STATE_DENIED".into())
    );
    assert_eq!(others.len(), 99, "each once");
}
