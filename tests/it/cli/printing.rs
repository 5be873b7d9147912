//! What is printed: tables for people, the contract's JSON for programs.

use approval_authority::proto::{Approval, RequireApprovalRequest};
use tokio::task::JoinSet;

use super::{Person, Terminal, asked, pending, short};
use crate::harness::{TestServer, context, request};

/// Puts a word for all that differs from run to run.
fn scrubbed(text: &str, approval: &Approval) -> String {
    let strings = text.split('"').map(|part| match part {
        hash if hash.len() == 64 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()) => "HASH",
        time if time.starts_with("20") && time.ends_with('Z') => "TIME",
        other => other,
    });
    let text = strings.collect::<Vec<_>>().join("\"");
    text.replace(&approval.id, "ID").replace(short(approval), "SHORT-ID")
}

async fn one(server: &TestServer) -> Approval {
    let request = RequireApprovalRequest {
        reason: "nobody has used it since May".to_owned(),
        on_behalf_of: "sam@example.com".to_owned(),
        context: Some(context(&[("depth", 3.0), ("share", 0.5)])),
        ..request("w1", "delete_workspace")
    };
    asked(server, request).await
}

#[tokio::test]
async fn json_is_the_contracts() {
    let (_database, server) = TestServer::new().await;
    let approval = one(&server).await;
    let alice = Person::of("alice", server.address);
    let fields = r#"    "id": "ID",
    "namespace": "default",
    "workspaceId": "w1",
    "action": "delete_workspace",
    "reason": "nobody has used it since May",
    "context": {
      "depth": 3,
      "share": 0.5
    },
    "requestHash": "HASH",
    "state": "APPROVAL_STATE_PENDING",
    "requestedBy": "tokens:backend",
    "onBehalfOf": "sam@example.com",
    "approvalsRequired": 1,
    "createTime": "TIME",
    "expireTime": "TIME",
    "policyDigest": "HASH",
    "version": 1
"#;
    let shown = alice.runs(&["show", &approval.id, "--output", "json"]).await;
    let expected = format!("{{\n  \"approval\": {{\n{fields}  }}\n}}\n");
    assert_eq!(scrubbed(&shown.out, &approval), expected);

    for command in ["pending", "list"] {
        let listed = alice.runs(&[command, "-o", "json"]).await;
        let listed: serde_json::Value = serde_json::from_str(&listed.out).expect("JSON");
        let shown: serde_json::Value = serde_json::from_str(&shown.out).expect("JSON");
        assert_eq!(listed["approvals"], serde_json::json!([shown["approval"]]));
        assert!(listed["watchCursor"].is_string() && listed.get("nextPageToken").is_none());
    }
    let reason = ["--reason", "agreed", "--request-hash", &approval.request_hash, "-o", "json"];
    let decided = alice.runs(&[&["approve", &approval.id], &reason[..]].concat()).await;
    let decided = scrubbed(&decided.out, &approval);
    let verdicts = r#"    "verdicts": [
      {
        "approver": "tokens:alice",
        "decision": "DECISION_APPROVE",
        "reason": "agreed",
        "time": "TIME"
      }
    ],
"#;
    assert!(decided.contains(verdicts), "{decided}");
    let revoke = ["revoke", &approval.id, "--reason", "the wrong one", "-o", "json"];
    let revoked = alice.runs(&revoke).await;
    assert!(revoked.out.contains(r#""state": "APPROVAL_STATE_REVOKED""#), "{revoked:?}");
    let ask = ["require", "w1", "list_secrets", "-o", "json"];
    let free = Person::of("backend", server.address).runs(&ask).await;
    assert_eq!(free.out, "{\n  \"outcome\": \"OUTCOME_NOT_REQUIRED\"\n}\n");
}

#[tokio::test]
async fn tables_say_who_what_why_and_how_long() {
    let (_database, server) = TestServer::new().await;
    let alice = Person::of("alice", server.address);
    assert_eq!(alice.runs(&["pending"]).await.out, "nothing is pending\n");
    let approval = one(&server).await;
    let expected = "\
ID        LEFT     GIVEN  ACTION            WORKSPACE  REQUESTER                           REASON
SHORT-ID  23h 59m  0/1    delete_workspace  w1         tokens:backend for sam@example.com  nobody has used it since May
";
    assert_eq!(scrubbed(&alice.runs(&["pending"]).await.out, &approval), expected);

    // The reason is as long as reasons may be, and moves the cursor. Only `show` has the whole.
    let long = format!("\u{1b}[2J\n{}", "long ".repeat(300).trim());
    let request = RequireApprovalRequest { reason: long, ..request("w2", "secret_write") };
    let second = asked(&server, request).await;
    server.caller("bob").await.deny(&second.id).await;
    let listed = alice.runs(&["list"]).await.out;
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    let denied = format!("{}  DENIED   ", short(&second));
    assert!(lines[1].starts_with(&denied), "newest first: {listed}");
    assert!(lines[1].contains(r"\u{1b}[2J\nlong long") && lines[1].ends_with('…'), "{listed}");
    assert!(lines[2].starts_with(&format!("{}  PENDING  20", short(&approval))), "{listed}");
    let denied = alice.runs(&["list", "--state", "denied", "--action", "secret_write"]).await.out;
    assert!(denied.contains(short(&second)) && !denied.contains(short(&approval)), "{denied}");
    let newest = alice.runs(&["list", "--limit", "1"]).await.out;
    assert!(newest.contains(short(&second)) && !newest.contains(short(&approval)), "{newest}");
    let elsewhere = alice.runs(&["pending", "--workspace", "w2"]).await.out;
    assert_eq!(elsewhere, "nothing is pending\n");
    let shown = alice.runs(&["show", short(&second)]).await.out;
    assert!(shown.contains("long ".repeat(300).trim()) && shown.contains("DENIED"), "{shown}");
    assert!(shown.contains("tokens:bob denied, ") && shown.contains(": as discussed"), "{shown}");
}

#[tokio::test]
async fn lists_are_read_to_their_end() {
    let (_database, server) = TestServer::new().await;
    let backend = server.caller("backend").await;
    let mut asking = JoinSet::new();
    for number in 0..510 {
        let backend = backend.clone();
        let workspace = format!("w{}", number / 90);
        let asked = RequireApprovalRequest {
            context: Some(context(&[("number", f64::from(number))])),
            ..request(&workspace, "delete_workspace")
        };
        asking.spawn(async move { backend.ask(asked).await.expect("an answer") });
    }
    asking.join_all().await;
    let alice = Person::of("alice", server.address);
    for command in ["pending", "list"] {
        let listed = alice.runs(&[command]).await.out;
        assert_eq!(listed.lines().count(), 511, "a heading, and all that are there");
    }
}

#[tokio::test]
async fn colours_are_for_terminals_that_want_them() {
    let (_database, server) = TestServer::new().await;
    let approval = pending(&server, "w1").await;
    let alice = Person::of("alice", server.address);
    let show = ["show", &approval.id];
    assert!(!alice.runs(&show).await.out.contains('\u{1b}'), "not in a pipe");
    let (_, coloured) = alice.types(&show).ends().await;
    assert!(coloured.contains("\u{1b}[33m"), "{coloured:?}");
    let mut command = alice.command(&show);
    command.env("NO_COLOR", "1");
    let (_, plain) = Terminal::start(command).ends().await;
    assert!(plain.contains(&approval.id) && !plain.contains('\u{1b}'), "{plain:?}");
}
