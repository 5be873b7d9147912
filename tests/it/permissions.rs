//! Who may call what.

use approval_authority::{
    auth::{
        permissions::{PERMISSIONS, Permission, Reach},
        tokens,
    },
    policy::Role,
    proto::{self, DESCRIPTORS, Decision, GetPolicyRequest, ListApprovalsRequest},
};
use prost::Message;
use tonic::{Code, transport::Endpoint};
use tonic_prost::ProstCodec;

use crate::{
    harness::{Caller, TestServer, id, refusal, request},
    server::policy_text,
};

mod matrix;
mod sight;

fn denied(reason: &str) -> (Code, String) {
    (Code::PermissionDenied, reason.to_owned())
}

/// Every call of the contract, by its path.
fn calls() -> Vec<String> {
    let descriptors = prost_types::FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors");
    let contract = descriptors.file.into_iter().filter(|file| file.package() == "approvals.v1");
    let services = contract.flat_map(|file| file.service);
    let calls = services.flat_map(|service| {
        let path = format!("/approvals.v1.{}", service.name());
        service.method.into_iter().map(move |method| format!("{path}/{}", method.name()))
    });
    calls.collect()
}

#[test]
fn every_call_of_the_contract_is_in_the_table_once_and_nothing_else() {
    let mut calls = calls();
    let mut table: Vec<&str> = PERMISSIONS.iter().map(|permission| permission.path).collect();
    calls.sort();
    table.sort_unstable();
    assert_eq!(calls, table);
}

/// The table as the README shows it.
fn rendered() -> String {
    const ROLES: [Role; 4] = [Role::Requester, Role::Viewer, Role::Approver, Role::Admin];
    let heads = ROLES.map(|role| format!(" {} |", role.as_str())).concat();
    let mut lines = vec![format!("| call |{heads}"), "|---|---|---|---|---|".to_owned()];
    for Permission { path, grants } in PERMISSIONS {
        let cells = ROLES.map(|role| {
            let reaches = grants.iter().filter(|(other, _)| *other == role);
            let words = reaches.map(|(_, reach)| match reach {
                Reach::Workspaces => " workspaces",
                Reach::Actions => " workspaces and actions",
                Reach::Own => " own",
                Reach::Everything => " yes",
            });
            format!("{} |", words.collect::<Vec<_>>().join(","))
        });
        let call = path.rsplit('/').next().expect("a name");
        lines.push(format!("| `{call}` |{}", cells.concat()));
    }
    lines.join("\n")
}

#[test]
fn the_readme_shows_the_table() {
    let readme = include_str!("../../README.md");
    let (_, section) = readme.split_once("## Who may call what\n").expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    let shown: Vec<&str> = section.lines().filter(|line| line.starts_with('|')).collect();
    let table = rendered();
    assert!(shown.join("\n") == table, "in \"Who may call what\" of the README, paste:\n{table}");
}

/// Makes a call by its path, with nothing in it, and returns how it ends.
async fn call(server: &TestServer, subject: Option<&str>, path: &str) -> (Code, String) {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address));
    let channel = endpoint.expect("an address").connect().await.expect("connected");
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("ready");
    let mut request = tonic::Request::new(());
    if let Some(subject) = subject {
        let token = format!("Bearer {subject}-token-for-tests").parse().expect("ASCII");
        request.metadata_mut().insert("authorization", token);
    }
    let path = path.parse().expect("a path");
    let answer = client.unary(request, path, ProstCodec::<(), ()>::default()).await;
    refusal(&answer.expect_err("refused"))
}

#[tokio::test]
async fn no_call_of_the_contract_answers_who_has_no_credential_or_no_role() {
    let (_, server) = TestServer::new().await;
    for path in calls() {
        for nobody in [None, Some("unknown")] {
            let refused = call(&server, nobody, &path).await;
            let expected = (Code::Unauthenticated, "UNAUTHENTICATED".to_owned());
            assert_eq!(refused, expected, "{path} by {nobody:?}");
        }
        let refused = call(&server, Some("stranger"), &path).await;
        assert_eq!(refused.0, Code::PermissionDenied, "{path}");
    }
}

/// Not even that there is no such call.
#[tokio::test]
async fn a_call_that_is_not_in_the_table_answers_nobody() {
    let (_, server) = TestServer::new().await;
    for service in ["ApprovalService", "WorkspaceService"] {
        let path = format!("/approvals.v1.{service}/Purge");
        assert_eq!(call(&server, None, &path).await.0, Code::Unauthenticated);
        for subject in ["admin", "alice", "backend", "viewer"] {
            assert_eq!(call(&server, Some(subject), &path).await, denied("ROLE_MISSING"));
        }
    }
}

#[tokio::test]
async fn two_credentials_are_none() {
    let (_, server) = TestServer::new().await;
    let mut ask = tonic::Request::new(request("w1", "delete_workspace"));
    ask.metadata_mut()
        .append("authorization", "Bearer backend-token-for-tests".parse().expect("ASCII"));
    ask.metadata_mut()
        .append("authorization", "Bearer alice-token-for-tests".parse().expect("ASCII"));
    let mut nobody = server.caller("").await;
    let refused = nobody.approvals.require_approval(ask).await.expect_err("two");
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn default_deny() {
    let (_, server) = TestServer::new().await;
    let held = server.caller("backend").await.require("w1", "secret_write").await;
    let mut stranger = server.caller("stranger").await;
    let missing = denied("ROLE_MISSING");
    let refused = stranger.ask(request("w1", "secret_write")).await.expect_err("no role");
    assert_eq!(refusal(&refused), missing);
    let refused = stranger.list(ListApprovalsRequest::default()).await.expect_err("no role");
    assert_eq!(refusal(&refused), missing);
    let refused = stranger.get(&id(&held)).await.expect_err("no role");
    assert_eq!(refusal(&refused), missing);
    let refused = stranger.approvals.get_policy(GetPolicyRequest {}).await.expect_err("no role");
    assert_eq!(refusal(&refused), missing);
}

#[tokio::test]
async fn a_role_opens_its_own_calls_only() {
    let (_, server) = TestServer::new().await;
    let backend = server.caller("backend").await;
    let held = backend.require("w1", "secret_write").await;
    backend.get(&id(&held)).await.expect("a requester reads what it requested");
    let refused = backend.decide(&id(&held), Decision::Approve).await.expect_err("a requester");
    assert_eq!(refusal(&refused), denied("NOT_AN_APPROVER"));
    let refused = backend.list(ListApprovalsRequest::default()).await.expect_err("a requester");
    assert_eq!(refusal(&refused), denied("ROLE_MISSING"));
    let other = server.caller("backend-2").await.get(&id(&held)).await.expect_err("not its own");
    assert_eq!(refusal(&other), (Code::NotFound, "APPROVAL_NOT_FOUND".to_owned()));

    let viewer = server.caller("viewer").await;
    viewer.get(&id(&held)).await.expect("a viewer reads");
    let refused = viewer.decide(&id(&held), Decision::Approve).await.expect_err("a viewer");
    assert_eq!(refusal(&refused), denied("NOT_AN_APPROVER"));
    let refused = viewer.ask(request("w1", "secret_write")).await.expect_err("a viewer");
    assert_eq!(refusal(&refused), denied("ROLE_MISSING"));

    let alice = server.caller("alice").await;
    let refused = alice.put_workspace("w1", "").await.expect_err("an approver");
    assert_eq!(refusal(&refused), denied("ROLE_MISSING"));
    let admin = server.caller("admin").await;
    admin.put_workspace("w1", "").await.expect("an admin");
    let refused = admin.decide(&id(&held), Decision::Approve).await.expect_err("an admin");
    assert_eq!(refusal(&refused), denied("NOT_AN_APPROVER"));
}

#[tokio::test]
async fn a_role_holds_in_its_namespace_subtree_and_actions() {
    let (_, server) = TestServer::new().await;
    let (backend, admin) = (server.caller("backend").await, server.caller("admin").await);
    admin.put_workspace("tree", "").await.expect("put");
    admin.put_workspace("branch", "tree").await.expect("put");
    let inside = id(&backend.require("branch", "delete_workspace").await);
    let outside = id(&backend.require("outside", "delete_workspace").await);

    let elsewhere = server.caller("acme-only").await;
    let refused = elsewhere.decide(&inside, Decision::Approve).await.expect_err("elsewhere");
    assert_eq!(refusal(&refused), (Code::NotFound, "APPROVAL_NOT_FOUND".to_owned()));
    let refused = elsewhere.list(ListApprovalsRequest::default()).await.expect_err("elsewhere");
    assert_eq!(refusal(&refused), denied("ROLE_MISSING"));

    let tree = server.caller("tree-approver").await;
    let refused = tree.decide(&outside, Decision::Approve).await.expect_err("outside");
    assert_eq!(refusal(&refused), (Code::NotFound, "APPROVAL_NOT_FOUND".to_owned()));
    tree.decide(&inside, Decision::Approve).await.expect("in its subtree");

    let secrets = server.caller("secrets-approver").await;
    let refused = secrets.decide(&outside, Decision::Approve).await.expect_err("another action");
    assert_eq!(refusal(&refused), denied("NOT_AN_APPROVER"));
    let secret = id(&backend.require("outside", "secret_write").await);
    secrets.decide(&secret, Decision::Approve).await.expect("its action");
}

#[tokio::test]
async fn nobody_approves_what_they_asked_for() {
    let database = crate::database::Database::new().await;
    let both = "[[bindings]]\nrole = \"requester\"\nprincipals = [\"tokens:alice\"]\n\
        workspaces = [\"*\"]\n";
    let server = TestServer::with_policy(&database.url, &format!("{}{both}", policy_text())).await;
    let own = denied("SELF_APPROVAL");
    let alice = server.caller("alice").await;
    let asked = id(&alice.require("w1", "secret_write").await);
    let refused = alice.decide(&asked, Decision::Approve).await.expect_err("her own");
    assert_eq!(refusal(&refused), own);
    for name in ["alice", "tokens:alice", "Alice", "corp:alice", "alice@corp.example"] {
        let mut for_alice = request("w1", "secret_write");
        for_alice.on_behalf_of = name.to_owned();
        let asked = id(&server.caller("backend").await.ask(for_alice).await.expect("held"));
        let refused = alice.decide(&asked, Decision::Approve).await.expect_err("for her");
        assert_eq!(refusal(&refused), own, "{name}");
        server.caller("bob").await.approve(&asked).await;
    }
    let state = alice.get(&asked).await.expect("it").state();
    assert_eq!(state, proto::ApprovalState::Pending);
}

/// A stream outlived the credential that had opened it.
#[tokio::test]
async fn a_watch_ends_with_the_credential() {
    let database = crate::database::Database::new().await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(5);
    let token = "brief-token-for-tests";
    let entry = tokens::entry("viewer", token, &[]).expect("well-formed");
    let tokens = format!("{entry}expires = {soon}\n");
    let server = TestServer::with_tokens(&database.url, &tokens).await;
    let viewer = Caller::with_token(server.address, token).await;
    let watch = proto::WatchApprovalsRequest::default();
    let mut stream = viewer.watch(watch).await.expect("a stream");
    stream.message().await.expect("a message").expect("a bookmark");
    let ended = stream.message().await.expect_err("expired");
    assert_eq!(refusal(&ended), (Code::Unauthenticated, "UNAUTHENTICATED".to_owned()));
    assert!(jiff::Timestamp::now() >= soon);
}
