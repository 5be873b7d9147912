//! `policy check`: what is in force, or everything that is wrong.

use std::{path::Path, process::Output};

use approval_authority::policy::file;

use crate::server::program;

async fn check(file: &Path) -> Output {
    program().args(["policy", "check"]).arg(file).output().await.expect("the program")
}

/// Checks a file that holds this text; what is printed names it `policy.toml`.
async fn check_text(text: impl AsRef<[u8]>) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("policy.toml");
    std::fs::write(&path, text).expect("written");
    let output = check(&path).await;
    let told = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).expect("text");
        text.replace(&format!("{}/", folder.path().display()), "")
    };
    (output.status.code(), told(output.stdout), told(output.stderr))
}

/// Names that a list could blur, and text that would tamper with the terminal.
const GOOD: &str = r#"
unlisted_actions = "refuse"

[defaults]
pending_ttl = "1440 minutes"

[actions.deploy]
description = "Löscht\u001b[2Jalles\n\u202eund\u200b削除"
approvals_required = 2
approved_ttl = "90m"
deny_cooldown = "0s"
escalate_after = []
max_pending = 5

[actions.secret_write]

[[bindings]]
role = "requester"
principals = ["tokens:backend", "tokens:a, tokens:b"]
namespaces = ["*"]
workspaces = ["-", "team/\u202eeno", "ws-1"]

[[bindings]]
role = "approver"
groups = ["corp:admins"]
workspaces = ["*"]
actions = ["deploy", "secret_write"]
"#;

#[tokio::test]
async fn a_good_policy_is_printed_as_a_table() {
    let expected = r#"digest            DIGEST
unlisted actions  refuse

ACTION        APPROVALS  PENDING_TTL  APPROVED_TTL  DENY_COOLDOWN  ESCALATE_AFTER  MAX_PENDING  DESCRIPTION
deploy        2          24h          1h 30m        0s             -               5            Löscht\u{1b}[2Jalles\n\u{202e}und\u{200b}削除
secret_write  1          24h          1h            15m            1h, 4h          100          Writes or replaces a secret
(defaults)    1          24h          1h            15m            1h, 4h          100

ROLE       PRINCIPALS                            GROUPS       NAMESPACES  WORKSPACES                   ACTIONS
requester  tokens:backend, "tokens:a, tokens:b"  -            *           "-", team/\u{202e}eno, ws-1  -
approver   -                                     corp:admins  default     *                            deploy, secret_write
"#;
    let digest = file::parse(GOOD).expect("a policy").digest().to_owned();
    let (code, printed, faults) = check_text(GOOD).await;
    assert_eq!(printed, expected.replace("DIGEST", &digest));
    assert_eq!((code, faults.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn the_built_in_policy_binds_nobody_and_is_what_an_empty_file_says() {
    let output = check(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/policy/built_in.toml")));
    let built_in = String::from_utf8(output.await.stdout).expect("text");
    let expected = r#"unlisted actions  allow

ACTION                 APPROVALS  PENDING_TTL  APPROVED_TTL  DENY_COOLDOWN  ESCALATE_AFTER  MAX_PENDING  DESCRIPTION
delete_workspace       1          24h          1h            15m            1h, 4h          100          Deletes a workspace and all that is in it
deprovision_workspace  1          24h          1h            15m            1h, 4h          100          Tears down a workspace's compute
org_token_mint         2          24h          1h            15m            1h, 4h          100          Mints an organisation-wide token
secret_write           1          24h          1h            15m            1h, 4h          100          Writes or replaces a secret
(defaults)             1          24h          1h            15m            1h, 4h          100

no bindings: nobody holds a role
"#;
    assert_eq!(built_in.split_once('\n').expect("lines").1, expected);
    assert_eq!(check_text("").await, (Some(0), built_in, String::new()));

    let asks =
        "[[bindings]]\nrole = \"requester\"\nprincipals = [\"tokens:a\"]\nworkspaces = [\"*\"]\n";
    let (code, out, _) = check_text(asks).await;
    assert_eq!(code, Some(0), "{out}");
    assert!(out.ends_with("no approver: what is asked for waits until it lapses\n"), "{out}");
}

#[tokio::test]
async fn every_fault_is_told_in_one_run_with_its_line() {
    let bad = r#"unlisted_actions = "ask"
"quorum\u001b[2J" = 2
[defaults]
max_pending = "many"
pending_ttl = "tomorrow"
approved_ttl = "0s"
ttl = "1h"
[actions.deploy]
approvals_required = 0
escalate_after = ["2h", 3, "soon"]
description = 7
[actions."Deploy now"]
quorum = 1
[actions]
restart = true
[[bindings]]
role = "owner"
principals = ["alice", "corp:bob", "carol "]
workspaces = "*"
[[bindings]]
role = "requester"
principals = ["tokens:backend"]
[[bindings]]
role = "viewer"
group = ["corp:all"]
namespaces = ["Acme"]
[[bindings]]
groups = ["corp:all"]
workspaces = []
[[bindings]]
"#;
    let (code, printed, faults) = check_text(bad).await;
    let duration = "is no duration, such as 15m or 90d";
    let keys = "expected one of: description, approvals_required";
    let expected: [(usize, &[&str]); 25] = [
        (1, &["unlisted_actions: unknown variant `ask`"]),
        (2, &["unknown field `quorum\\u{1b}[2J`, expected one of: unlisted_actions, defaults"]),
        (4, &["max_pending: invalid type: string, expected"]),
        (5, &["pending_ttl: ", duration]),
        (6, &["approved_ttl must be between 1s and a year"]),
        (7, &["unknown field `ttl`", keys]),
        (9, &["approvals_required must be between 1 and 10000"]),
        (10, &["escalate_after: invalid type: integer `3`"]),
        (10, &["escalate_after: ", duration]),
        (11, &["description: invalid type: integer `7`, expected a string"]),
        (12, &["the action \"Deploy now\" must be 1 to 64 characters"]),
        (13, &["unknown field `quorum`", keys]),
        (15, &["restart: expected a table"]),
        (17, &["role: unknown variant `owner`"]),
        (18, &["principals: must be <authenticator>:<subject>"]),
        (18, &["principals: must not begin or end with white space"]),
        (19, &["workspaces: expected a list"]),
        (20, &["a binding needs workspaces"]),
        (23, &["namespaces: \"Acme\" must be 1 to 63 characters"]),
        (25, &["unknown field `group`, expected one of: role, principals, groups"]),
        (27, &["a binding needs a role"]),
        (27, &["workspaces must name something"]),
        (30, &["a binding needs a role"]),
        (30, &["a binding needs principals or groups"]),
        (30, &["a binding needs workspaces"]),
    ];
    let told: Vec<&str> = faults.lines().collect();
    for (fault, (line, words)) in told.iter().zip(&expected) {
        assert!(fault.starts_with(&format!("policy.toml: line {line}: ")), "{line}: {fault}");
        assert!(words.iter().all(|words| fault.contains(words)), "{words:?}: {fault}");
    }
    assert_eq!(told.len(), expected.len(), "{faults}");
    assert_eq!((code, printed.as_str()), (Some(1), ""));
}

#[tokio::test]
async fn what_is_no_policy_at_all_is_refused() {
    let (code, printed, faults) = check_text("[defaults]\nmax_pending = \n").await;
    assert!(faults.starts_with("policy.toml: line 2: "), "{faults}");
    assert_eq!((code, printed.as_str()), (Some(1), ""));

    let (code, _, faults) = check_text(b"\xff\xfe").await;
    assert!(faults.starts_with("policy.toml: cannot be read: "), "{faults}");
    assert_eq!(code, Some(1));

    let nowhere = tempfile::tempdir().expect("a folder").path().join("policy.toml");
    let output = check(&nowhere).await;
    let faults = String::from_utf8(output.stderr).expect("text");
    assert!(faults.contains("policy.toml: cannot be read: No such file"), "{faults}");
    assert_eq!(output.status.code(), Some(1));
}
