//! Callers with JWTs, through the wire: issuers whose keys come from a URL or a file, beside the tokens file.

use std::{sync::Arc, time::Duration};

use approval_authority::{
    auth::{
        jwks::{Fetched, Keys, Pace},
        jwt::{Issuer, Issuers},
    },
    proto::{ApprovalState, Decision, Outcome, Start, WatchApprovalsRequest},
};
use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    database::Database,
    harness::{Caller, id, refusal, request, told},
    issuer::{JwksServer, Key, key_set, published},
    server::{Process, TestServer, policy_text},
};

mod suite;

/// Alice of one issuer and Alice of the other both ask; a group of the first decides.
const BINDINGS: &str = r#"
[[bindings]]
role = "requester"
principals = ["corp:alice", "partner:alice"]
workspaces = ["*"]

[[bindings]]
role = "approver"
groups = ["corp:org-admins"]
workspaces = ["*"]
actions = ["*"]
"#;

fn policy() -> String {
    policy_text() + BINDINGS
}

/// The table of an issuer.
fn table(name: &str, jwks: &str) -> String {
    format!(
        "[auth.jwt.{name}]\nissuer = \"https://{name}.example\"\naudience = \"approval-authority\"\n\
         jwks = {jwks:?}\ngroups_claim = \"groups\"\n"
    )
}

/// Claims of somebody in some groups; good for so many seconds and the leeway.
fn claims_for(issuer: &str, subject: &str, groups: &[&str], seconds: i64) -> Value {
    json!({
        "iss": format!("https://{issuer}.example"), "aud": "approval-authority", "sub": subject,
        "groups": groups, "exp": Timestamp::now().as_second() + seconds,
    })
}

fn claims(issuer: &str, subject: &str, groups: &[&str]) -> Value {
    claims_for(issuer, subject, groups, 3600)
}

/// Asks as whoever a token speaks for.
async fn asks(process: &Process, token: &str) -> Result<Outcome, Code> {
    let caller = Caller::with_token(process.address, token).await;
    let asked = caller.ask(request("w1", "secret_write")).await;
    asked.map(|answer| answer.outcome()).map_err(|status| status.code())
}

#[tokio::test]
async fn equal_names_of_two_issuers_and_of_the_tokens_are_three() {
    let (of_corp, of_partner) = (Key::ec(), Key::ed());
    let keys = JwksServer::new(&[of_corp.jwk("k")]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("partner.json");
    std::fs::write(&file, published(&[of_partner.jwk("k")])).expect("written");
    let database = Database::new().await;
    let issuers = table("corp", &keys.url) + &table("partner", file.to_str().expect("text"));
    let process = Process::with_config(&database.url, &policy(), &issuers).await;
    let caller = async |key: &Key, claims: Value| {
        Caller::with_token(process.address, &key.token("k", &claims)).await
    };

    // Each asks for the same, and they do not meet.
    let of_corp_alice = caller(&of_corp, claims("corp", "alice", &["org-admins"])).await;
    let of_partner_alice = caller(&of_partner, claims("partner", "alice", &["org-admins"])).await;
    let held = of_corp_alice.require("w1", "secret_write").await;
    assert_eq!(held.approval.as_ref().expect("it").requested_by, "corp:alice");
    let others = of_partner_alice.require("w1", "secret_write").await;
    assert_eq!(others.approval.as_ref().expect("it").requested_by, "partner:alice");
    assert_ne!(id(&held), id(&others));
    let backends = process.caller("backend").await.require("w1", "secret_write").await;
    assert_ne!(id(&held), id(&backends));

    // The partner's org-admins are no org-admins of corp's.
    let decide = async |caller: &Caller, id: &str| {
        refusal(&caller.decide(id, Decision::Approve).await.expect_err("refused")).1
    };
    let of_partner_bob = caller(&of_partner, claims("partner", "bob", &["org-admins"])).await;
    assert_eq!(decide(&of_partner_bob, &id(&held)).await, "NOT_AN_APPROVER");
    let of_corp_dave = caller(&of_corp, claims("corp", "dave", &["staff"])).await;
    assert_eq!(decide(&of_corp_dave, &id(&held)).await, "NOT_AN_APPROVER");
    // Nobody approves what they asked for.
    assert_eq!(decide(&of_corp_alice, &id(&held)).await, "SELF_APPROVAL");
    let of_corp_bob = caller(&of_corp, claims("corp", "bob", &["staff", "org-admins"])).await;
    let approved = of_corp_bob.approve(&id(&held)).await;
    assert_eq!(approved.state(), ApprovalState::Approved);
    assert_eq!(approved.verdicts[0].approver, "corp:bob");
    let through = of_corp_alice.require("w1", "secret_write").await;
    assert_eq!(told(&through), (Outcome::Approved, ApprovalState::Consumed));
    // Tokens go on as ever.
    process.caller("alice").await.approve(&id(&backends)).await;
}

#[tokio::test]
async fn why_a_token_is_refused_is_logged_and_not_sent() {
    let (key, other) = (Key::ec(), Key::ec());
    let keys = JwksServer::new(&[key.jwk("k")]).await;
    let database = Database::new().await;
    let mut process =
        Process::with_config(&database.url, &policy(), &table("corp", &keys.url)).await;
    let good = claims("corp", "alice", &[]);
    let unknown = Caller::with_token(process.address, "a token that nobody knows").await;
    let unknown = unknown.ask(request("w1", "secret_write")).await.expect_err("refused");
    let expired = claims_for("corp", "alice", &[], -31);
    for (token, reason) in [
        (other.token("k", &good), "the signature is wrong"),
        (key.token("k", &expired), "it has expired"),
        (key.token("k", &claims("evil", "alice", &[])), "no issuer \"https://evil.example\""),
        (key.token("k\u{1b}[2J\n", &good), "the issuer has no key \"k\\u{1b}[2J\\n\""),
        ("a.b.c".to_owned(), "it is malformed"),
    ] {
        let caller = Caller::with_token(process.address, &token).await;
        let refused = caller.ask(request("w1", "secret_write")).await.expect_err("refused");
        assert_eq!(refusal(&refused), (Code::Unauthenticated, "UNAUTHENTICATED".to_owned()));
        assert_eq!(refused.message(), unknown.message());
        assert_eq!(refused.details(), unknown.details());
        let log = process.logs("refused a JWT").await;
        let last = log.last().expect("a line");
        assert!(last.contains(reason) && last.contains("INFO"), "{last}");
        for part in token.split('.').filter(|part| part.len() > 1) {
            assert!(!log.iter().any(|line| line.contains(part)), "{log:#?}");
        }
    }
    assert_eq!(asks(&process, &key.token("k", &good)).await, Ok(Outcome::Pending));
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it_and_not_at_every_made_up_name() {
    let (old, new) = (Key::ec(), Key::ed());
    let keys = JwksServer::new(&[old.jwk("old")]).await;
    let database = Database::new().await;
    let process = Process::with_config(&database.url, &policy(), &table("corp", &keys.url)).await;
    let good = claims("corp", "alice", &[]);
    assert_eq!(asks(&process, &old.token("old", &good)).await, Ok(Outcome::Pending));
    assert_eq!(keys.fetches(), 1, "at the start");

    keys.publish(&[new.jwk("new")]);
    assert_eq!(asks(&process, &new.token("new", &good)).await, Ok(Outcome::Pending));
    assert_eq!(keys.fetches(), 2, "the key was not known");
    let withdrawn = asks(&process, &old.token("old", &good)).await;
    assert_eq!(withdrawn, Err(Code::Unauthenticated), "its issuer does not publish it any more");
    for made_up in ["a", "b", "c"] {
        let refused = asks(&process, &new.token(made_up, &good)).await;
        assert_eq!(refused, Err(Code::Unauthenticated));
    }
    assert_eq!(keys.fetches(), 2, "once in a while");
    assert_eq!(asks(&process, &new.token("new", &good)).await, Ok(Outcome::Pending));
}

/// A server in this process with one issuer, whose keys are fetched at a pace.
async fn at_pace(keys: &JwksServer, pace: Pace) -> (Database, TestServer, Fetched) {
    let url = keys.url.parse().expect("a URL");
    let fetched = Fetched::start("corp", url, pace).expect("started");
    let issuer = Issuer {
        name: "corp".to_owned(),
        issuer: "https://corp.example".to_owned(),
        audience: "approval-authority".to_owned(),
        groups_claim: Some("groups".to_owned()),
        keys: Keys::Fetched(fetched.clone()),
    };
    let database = Database::new().await;
    let issuers = [issuer].into_iter().collect();
    let server = TestServer::with_issuers(&database.url, &policy(), issuers).await;
    (database, server, fetched)
}

/// As fast as it goes, but for keys that are not known.
const FAST: Pace = Pace {
    usual: Duration::from_millis(5),
    least: Duration::from_millis(5),
    most: Duration::from_millis(5),
    retry: Duration::from_millis(5),
    unknown_key: Duration::from_hours(1),
};

#[tokio::test]
async fn keys_are_kept_while_their_server_is_away() {
    let (old, new) = (Key::ec(), Key::ed());
    let keys = JwksServer::new(&[old.jwk("old")]).await;
    let (_database, server, _) = at_pace(&keys, FAST).await;
    let good = claims("corp", "alice", &[]);
    let caller = async |key: &Key, name: &str| {
        Caller::with_token(server.address, &key.token(name, &good)).await
    };
    let alice = caller(&old, "old").await;
    alice.require("w1", "secret_write").await;
    keys.fetched_again(3).await;
    alice.require("w1", "secret_write").await;

    // Hung up on, answered nonsense, answered too much: what is known stays.
    keys.go_away();
    keys.fetched_again(3).await;
    alice.require("w1", "secret_write").await;
    keys.answer_with("<html>down for maintenance</html>");
    keys.fetched_again(3).await;
    alice.require("w1", "secret_write").await;
    keys.answer_with(&format!("{}{}", published(&[new.jwk("new")]), " ".repeat(300 * 1024)));
    keys.fetched_again(3).await;
    alice.require("w1", "secret_write").await;

    // It is back with another key, which nobody has to name for it to be known.
    keys.publish(&[new.jwk("new")]);
    keys.fetched_again(3).await;
    caller(&new, "new").await.require("w1", "secret_write").await;
    let refused = alice.ask(request("w1", "secret_write")).await;
    assert_eq!(refused.expect_err("withdrawn").code(), Code::Unauthenticated);
    // An issuer that publishes no key vouches for nobody.
    keys.publish(&[]);
    keys.fetched_again(3).await;
    let refused = caller(&new, "new").await.ask(request("w1", "secret_write")).await;
    assert_eq!(refused.expect_err("no key").code(), Code::Unauthenticated);
}

#[tokio::test]
async fn an_issuer_that_is_away_at_the_start_stops_nobody_and_comes_later() {
    let key = Key::ec();
    let keys = JwksServer::new(&[key.jwk("k")]).await;
    keys.go_away();
    let (_database, server, fetched) = at_pace(&keys, FAST).await;
    let token = key.token("k", &claims("corp", "alice", &[]));
    let alice = Caller::with_token(server.address, &token).await;
    let refused = alice.ask(request("w1", "secret_write")).await.expect_err("no key is known");
    assert_eq!(refused.code(), Code::Unauthenticated);
    server.caller("backend").await.require("w1", "secret_write").await;

    keys.publish(&[key.jwk("k")]);
    keys.fetched_again(3).await;
    assert!(!fetched.now().is_empty());
    alice.require("w1", "secret_write").await;
}

#[tokio::test]
async fn calls_that_name_the_same_new_key_wait_for_one_fetch() {
    let (old, new) = (Key::ec(), Key::ec());
    let keys = JwksServer::new(&[old.jwk("old")]).await;
    let (_database, server, _) = at_pace(&keys, Pace::default()).await;
    let good = claims("corp", "alice", &[]);
    // Its first call may come before the keys have: it waits for them.
    let alice = Caller::with_token(server.address, &old.token("old", &good)).await;
    alice.require("w1", "secret_write").await;
    assert_eq!(keys.fetches(), 1);

    keys.publish(&[new.jwk("new")]);
    let alice = Caller::with_token(server.address, &new.token("new", &good)).await;
    let asked = (0..20).map(|_| alice.ask(request("w1", "secret_write")));
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer.expect("let in").outcome(), Outcome::Pending);
    }
    assert_eq!(keys.fetches(), 2);
}

#[tokio::test]
async fn a_watch_ends_when_its_token_expires() {
    let key = Key::ec();
    let keys = JwksServer::new(&[key.jwk("k")]).await;
    let (_database, server, _) = at_pace(&keys, Pace::default()).await;
    // Over already, but for the leeway.
    let token = key.token("k", &claims_for("corp", "bob", &["org-admins"], -28));
    let bob = Caller::with_token(server.address, &token).await;
    let watch = WatchApprovalsRequest { start: Start::Unspecified.into(), ..Default::default() };
    let mut stream = bob.watch(watch).await.expect("a stream");
    stream.message().await.expect("a message").expect("a bookmark");
    let ended = async {
        loop {
            match stream.message().await {
                Ok(message) => assert!(message.is_some(), "it does not just end"),
                Err(status) => break status,
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(30), ended).await.expect("it ends");
    assert_eq!(refusal(&ended), (Code::Unauthenticated, "UNAUTHENTICATED".to_owned()));
    let refused = bob.ask(request("w1", "secret_write")).await.expect_err("expired");
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_stream_ends_when_its_issuer_is_configured_no_more() {
    let key = Key::ec();
    let keys = Keys::Read(Arc::new(key_set(&[key.jwk("k")])));
    let issuer = Issuer {
        name: "corp".to_owned(),
        issuer: "https://corp.example".to_owned(),
        audience: "approval-authority".to_owned(),
        groups_claim: Some("groups".to_owned()),
        keys,
    };
    let database = Database::new().await;
    let issuers: Issuers = [issuer].into_iter().collect();
    let server = TestServer::with_issuers(&database.url, &policy(), issuers.clone()).await;
    let token = key.token("k", &claims("corp", "bob", &["org-admins"]));
    let bob = Caller::with_token(server.address, &token).await;
    let mut stream = bob.watch(WatchApprovalsRequest::default()).await.expect("a stream");
    stream.message().await.expect("a message").expect("a bookmark");
    server.reload(&policy(), &crate::server::tokens_text());
    let ended = tokio::time::timeout(Duration::from_secs(30), stream.message()).await;
    let ended = ended.expect("it ends").expect_err("nobody vouches for bob");
    assert_eq!(ended.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_file_of_keys_is_read_again_with_the_policy() {
    let (old, new) = (Key::ec(), Key::ed());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("corp.json");
    let write = |keys: &[Value]| std::fs::write(&file, published(keys)).expect("written");
    write(&[old.jwk("old")]);
    let database = Database::new().await;
    let table = table("corp", file.to_str().expect("text"));
    let mut process = Process::with_config(&database.url, &policy(), &table).await;
    let good = claims("corp", "alice", &[]);
    let (old_token, new_token) = (old.token("old", &good), new.token("new", &good));
    assert_eq!(asks(&process, &old_token).await, Ok(Outcome::Pending));
    assert_eq!(asks(&process, &new_token).await, Err(Code::Unauthenticated));

    // A file without a key changes nothing, and neither does a good one beside a bad policy.
    for (keys, policy, fault) in [
        (&[][..], policy(), "corp.json: holds no key that can be used"),
        (&[new.jwk("new")][..], "nonsense".to_owned(), "policy.toml: line 1"),
    ] {
        write(keys);
        process.write("policy.toml", &policy);
        process.signal(Signal::SIGHUP);
        let log = process.logs("stay as they were").await;
        assert!(log.iter().any(|line| line.contains(fault)), "{log:#?}");
        assert_eq!(asks(&process, &old_token).await, Ok(Outcome::Pending));
        assert_eq!(asks(&process, &new_token).await, Err(Code::Unauthenticated));
    }

    process.write("policy.toml", &policy());
    process.signal(Signal::SIGHUP);
    process.logs("are read again").await;
    assert_eq!(asks(&process, &new_token).await, Ok(Outcome::Pending));
    assert_eq!(asks(&process, &old_token).await, Err(Code::Unauthenticated));
}
