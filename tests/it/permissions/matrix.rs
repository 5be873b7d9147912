//! The table of permissions through the wire: every call, by every role, bound in every place. What is expected is
//! stated here, and not read from the server's table.

use std::collections::{BTreeSet, HashMap};

use approval_authority::{
    auth::tokens,
    policy::file::BUILT_IN,
    proto::{
        self, DeleteWorkspaceRequest, GetPolicyRequest, ListApprovalsRequest,
        ListWorkspacesRequest, ReportResultRequest, RequireApprovalRequest, RevokeApprovalRequest,
        Start, WatchApprovalsRequest, WithdrawApprovalRequest, watch_approvals_response::Message,
    },
};
use futures_util::future::join_all;
use tonic::Status;

use super::calls;
use crate::{
    database::Database,
    harness::{BINDINGS, Caller, TestServer, binding, context, id, refusal, request},
    server::tokens_text,
};

/// Every call, and those about an approval once more, for one that the caller requested itself.
const CALLS: [&str; 15] = [
    "RequireApproval",
    "Decide",
    "WatchApprovals",
    "GetApproval",
    "GetApproval of its own",
    "ListApprovals",
    "WithdrawApproval",
    "WithdrawApproval of its own",
    "RevokeApproval",
    "ReportResult",
    "ReportResult of its own",
    "GetPolicy",
    "PutWorkspace",
    "ListWorkspaces",
    "DeleteWorkspace",
];

/// Where a role is bound, as seen from the workspace that a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Here,
    Above,
    Below,
    Elsewhere,
    InAnotherNamespace,
    Nowhere,
}
use Bound::{Above, Below, Elsewhere, Here, InAnotherNamespace, Nowhere};

const ROLES: [&str; 5] = ["requester", "viewer", "approver", "approver of another action", "admin"];

/// What each call comes to: "ok", the workspaces that a list shows, or the reason of the refusal.
fn expected(call: &str, role: &str, bound: Bound) -> &'static str {
    let holds = matches!(bound, Here | Above);
    let holds_in_the_namespace = matches!(bound, Here | Above | Below | Elsewhere);
    let reads = role != "requester" && bound != Nowhere;
    let ok_if = |open, otherwise| if open { "ok" } else { otherwise };
    match call {
        "RequireApproval" => ok_if(role == "requester" && holds, "ROLE_MISSING"),
        "Decide" | "RevokeApproval" => match role {
            "approver" if holds => "ok",
            "approver of another action" if holds => "NOT_AN_APPROVER",
            "approver" | "approver of another action" if bound != Nowhere => "APPROVAL_NOT_FOUND",
            _ => "NOT_AN_APPROVER",
        },
        "WatchApprovals" | "ListApprovals" | "ListWorkspaces" => match bound {
            Above if reads => "above below here",
            Here if reads => "below here",
            Below if reads => "below",
            Elsewhere if reads => "elsewhere",
            _ => "ROLE_MISSING",
        },
        _ if bound == Nowhere => "ROLE_MISSING",
        "GetPolicy" => "ok",
        "GetApproval" => ok_if(reads && holds, "APPROVAL_NOT_FOUND"),
        "GetApproval of its own" if role == "requester" => {
            ok_if(holds_in_the_namespace, "APPROVAL_NOT_FOUND")
        }
        "GetApproval of its own" => ok_if(holds, "APPROVAL_NOT_FOUND"),
        "WithdrawApproval" | "ReportResult" if role == "requester" => "APPROVAL_NOT_FOUND",
        "WithdrawApproval of its own" | "ReportResult of its own" if role == "requester" => {
            ok_if(holds_in_the_namespace, "APPROVAL_NOT_FOUND")
        }
        "WithdrawApproval" | "ReportResult" => "ROLE_MISSING",
        "WithdrawApproval of its own" | "ReportResult of its own" => "ROLE_MISSING",
        "PutWorkspace" | "DeleteWorkspace" => ok_if(role == "admin" && holds, "ROLE_MISSING"),
        other => panic!("nothing is said of {other}"),
    }
}

/// Somebody who holds one role in one place, and what is there for them to try.
struct Actor {
    role: &'static str,
    bound: Bound,
    subject: String,
    caller: Caller,
    own_pending: String,
    own_consumed: String,
    pending: String,
    approved: String,
}

fn everybody() -> Vec<(&'static str, Bound)> {
    let places = [Here, Above, Below, Elsewhere, InAnotherNamespace];
    let bound = ROLES.iter().flat_map(|role| places.map(|place| (*role, place)));
    bound.chain([("no role", Nowhere)]).collect()
}

fn subject(role: &str, bound: Bound) -> String {
    format!("{role} {bound:?}")
}

fn bindings() -> String {
    let each =
        everybody().into_iter().filter(|(_, bound)| *bound != Nowhere).map(|(role, bound)| {
            let place = match bound {
                Here => "workspaces = [\"here\"]",
                Above => "workspaces = [\"above\"]",
                Below => "workspaces = [\"below\"]",
                Elsewhere => "workspaces = [\"elsewhere\"]",
                InAnotherNamespace => "namespaces = [\"acme\"]\nworkspaces = [\"*\"]",
                Nowhere => unreachable!("it is bound"),
            };
            let (kind, actions) = match role {
                "approver" => ("approver", "\nactions = [\"delete_workspace\"]"),
                "approver of another action" => ("approver", "\nactions = [\"secret_write\"]"),
                other => (other, ""),
            };
            binding(kind, &subject(role, bound), &format!("{place}{actions}"))
        });
    each.collect()
}

/// An operation of its own for each name.
fn operation(workspace: &str, name: &str) -> RequireApprovalRequest {
    RequireApprovalRequest {
        context: Some(context(&[(name, 1.0)])),
        ..request(workspace, "delete_workspace")
    }
}

async fn asked(caller: &Caller, workspace: &str, name: &str) -> String {
    id(&caller.ask(operation(workspace, name)).await.expect("held"))
}

/// A server with all of them, as long as they may all ask, and what they ask for.
async fn scene(url: &str) -> (TestServer, Vec<Actor>) {
    let tokens: Vec<String> = everybody()
        .into_iter()
        .map(|(role, bound)| {
            let subject = subject(role, bound);
            let token = format!("{subject}-token-for-tests");
            tokens::entry(&subject, &token, &["everybody"]).expect("a subject")
        })
        .collect();
    let tokens = format!("{}\n{}", tokens_text(), tokens.join("\n"));
    let policy = format!("{BUILT_IN}{BINDINGS}").replace("max_pending = 100", "max_pending = 1000");
    let all_may_ask = "\n[[bindings]]\nrole = \"requester\"\ngroups = [\"tokens:everybody\"]\nworkspaces = [\"*\"]\n";
    let server = TestServer::with_policy(url, &policy).await;
    server.reload(&format!("{policy}{all_may_ask}"), &tokens);

    let admin = server.caller("admin").await;
    for (workspace, parent) in
        [("above", ""), ("here", "above"), ("below", "here"), ("elsewhere", "")]
    {
        admin.put_workspace(workspace, parent).await.expect("put");
    }
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    for workspace in ["above", "here", "below", "elsewhere"] {
        asked(&backend, workspace, "for all to see").await;
    }
    let actors = everybody().into_iter().map(async |(role, bound)| {
        let subject = subject(role, bound);
        admin.put_workspace(&format!("leaf of {subject}"), "here").await.expect("put");
        let caller = server.caller(&subject).await;
        let own_consumed = asked(&caller, "here", "consumed").await;
        alice.approve(&own_consumed).await;
        caller.ask(operation("here", "consumed")).await.expect("let through");
        let own_pending = asked(&caller, "here", "pending").await;
        let pending = asked(&backend, "here", &format!("for {subject} to decide")).await;
        let approved = asked(&backend, "here", &format!("for {subject} to revoke")).await;
        alice.approve(&approved).await;
        Actor { role, bound, subject, caller, own_pending, own_consumed, pending, approved }
    });
    let actors = join_all(actors).await;
    server.reload(&format!("{policy}{}", bindings()), &tokens);
    (server, actors)
}

/// Tries a call, and says what it came to.
async fn attempt(call: &str, actor: &Actor, anothers_consumed: &str) -> String {
    let Caller { mut approvals, mut workspaces } = actor.caller.clone();
    let ok = "ok".to_owned();
    let answer: Result<String, Status> = match call {
        "RequireApproval" => actor.caller.ask(operation("here", "now")).await.map(|_| ok),
        "Decide" => actor.caller.decide(&actor.pending, proto::Decision::Approve).await.map(|_| ok),
        "GetApproval" => actor.caller.get(&actor.pending).await.map(|_| ok),
        "GetApproval of its own" => actor.caller.get(&actor.own_consumed).await.map(|_| ok),
        "WithdrawApproval" | "WithdrawApproval of its own" => {
            let own = call.ends_with("own");
            let approval_id = if own { &actor.own_pending } else { &actor.pending }.clone();
            let request = WithdrawApprovalRequest { approval_id, ..Default::default() };
            approvals.withdraw_approval(request).await.map(|_| ok)
        }
        "RevokeApproval" => {
            let (approval_id, reason) = (actor.approved.clone(), "no longer".to_owned());
            let request = RevokeApprovalRequest { approval_id, reason, ..Default::default() };
            approvals.revoke_approval(request).await.map(|_| ok)
        }
        "ReportResult" | "ReportResult of its own" => {
            let own = call.ends_with("own");
            let approval_id = if own { &actor.own_consumed } else { anothers_consumed }.to_owned();
            let result = proto::Result::Succeeded.into();
            let request = ReportResultRequest { approval_id, result, ..Default::default() };
            approvals.report_result(request).await.map(|_| ok)
        }
        "GetPolicy" => approvals.get_policy(GetPolicyRequest {}).await.map(|_| ok),
        "WatchApprovals" => watched(&actor.caller).await,
        "ListApprovals" => {
            let all = ListApprovalsRequest { page_size: 500, ..Default::default() };
            let listed = actor.caller.list(all).await;
            listed.map(|list| names(list.approvals.into_iter().map(|it| it.workspace_id)))
        }
        "PutWorkspace" => {
            let leaf = format!("leaf of {}", actor.subject);
            actor.caller.put_workspace(&leaf, "here").await.map(|()| ok)
        }
        "ListWorkspaces" => {
            let all = ListWorkspacesRequest { page_size: 500, ..Default::default() };
            let listed = workspaces.list_workspaces(all).await;
            listed.map(|list| names(list.into_inner().workspaces.into_iter().map(|it| it.id)))
        }
        "DeleteWorkspace" => {
            let workspace_id = format!("leaf of {}", actor.subject);
            let request = DeleteWorkspaceRequest { workspace_id, ..Default::default() };
            workspaces.delete_workspace(request).await.map(|_| ok)
        }
        other => panic!("nobody tries {other}"),
    };
    answer.unwrap_or_else(|status| refusal(&status).1)
}

/// The workspaces of what is pending, as a watch shows it.
async fn watched(caller: &Caller) -> Result<String, Status> {
    let pending = WatchApprovalsRequest { start: Start::Pending.into(), ..Default::default() };
    let mut stream = caller.watch(pending).await?;
    let mut seen = Vec::new();
    loop {
        match stream.message().await?.expect("no end").message {
            Some(Message::PendingApproval(approval)) => seen.push(approval.workspace_id),
            Some(Message::Bookmark(mark)) if mark.pending_complete => return Ok(names(seen)),
            other => panic!("{other:?}"),
        }
    }
}

/// Each once, in order, without the leaves.
fn names(workspaces: impl IntoIterator<Item = String>) -> String {
    let all: BTreeSet<String> = workspaces.into_iter().collect();
    let named: Vec<String> = all.into_iter().filter(|name| !name.starts_with("leaf")).collect();
    named.join(" ")
}

async fn versions(database: &Database) -> HashMap<String, i32> {
    let all = "SELECT id::text, version FROM approval_authority.approvals";
    let rows = database.connect().await.query(all, &[]).await.expect("rows");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn every_call_of_the_contract_is_tried() {
    let of = |call: &str| call.rsplit('/').next().unwrap_or(call).to_owned();
    let tried: BTreeSet<String> = CALLS.map(|call| call.replace(" of its own", "")).into();
    assert_eq!(tried, calls().iter().map(|path| of(path)).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_by_every_role_bound_in_every_place() {
    let database = Database::new().await;
    let (_server, actors) = scene(&database.url).await;
    let before = versions(&database).await;
    // Somebody else's, of which nothing but a report is expected.
    let anothers = |index: usize| actors[(index + 1) % actors.len()].own_consumed.clone();
    let cells = join_all(actors.iter().enumerate().map(async |(index, actor)| {
        let mut cells = Vec::new();
        for call in CALLS {
            cells.push((call, actor, attempt(call, actor, &anothers(index)).await));
        }
        cells
    }));
    let cells = cells.await.concat();
    assert_eq!(cells.len(), CALLS.len() * (ROLES.len() * 5 + 1));
    let wrong: Vec<String> = cells
        .iter()
        .filter_map(|(call, Actor { role, bound, .. }, came_to)| {
            let expected = expected(call, role, *bound);
            let told = || format!("{call} by {role}, bound {bound:?}: {came_to}, not {expected}");
            (came_to != expected).then(told)
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");

    // What was refused has changed nothing.
    let after = versions(&database).await;
    let changed: BTreeSet<&String> =
        before.iter().filter(|(id, version)| after[*id] != **version).map(|(id, _)| id).collect();
    let done = |call: &str| -> Vec<&Actor> {
        cells.iter().filter(|cell| cell.0 == call && cell.2 == "ok").map(|cell| cell.1).collect()
    };
    let to_change = done("Decide").into_iter().map(|actor| &actor.pending);
    let to_change = to_change
        .chain(done("RevokeApproval").into_iter().map(|actor| &actor.approved))
        .chain(done("WithdrawApproval of its own").into_iter().map(|actor| &actor.own_pending))
        .chain(done("ReportResult of its own").into_iter().map(|actor| &actor.own_consumed));
    assert_eq!(changed, to_change.collect());
    assert_eq!(after.len() - before.len(), done("RequireApproval").len());
}
