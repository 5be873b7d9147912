//! What a caller may not see is not there: not in lists and streams, not behind page tokens and cursors that others
//! were given, and not in how it is refused.

use approval_authority::proto::{
    Decision, DeleteWorkspaceRequest, EventType, GetApprovalRequest, ListApprovalsRequest,
    ListApprovalsResponse, ListWorkspacesRequest, Outcome, ReportResultRequest, Result as Became,
    RevokeApprovalRequest, Start, WatchApprovalsRequest, WithdrawApprovalRequest,
};
use tonic::{Code, Status};
use uuid::Uuid;

use super::denied;
use crate::{
    database::Database,
    feed::event,
    harness::{Caller, TestServer, binding, id, refusal, request},
    server::{policy_text, tokens_text},
};

const MINE: &str = "workspaces = [\"mine\"]";

/// A server on which the stranger is not one: bindings are added to the tests' policy.
async fn with(bindings: &[String]) -> (Database, TestServer) {
    let database = Database::new().await;
    let policy = format!("{}{}", policy_text(), bindings.concat());
    let server = TestServer::with_policy(&database.url, &policy).await;
    (database, server)
}

fn listed(list: &ListApprovalsResponse) -> Vec<&str> {
    list.approvals.iter().map(|approval| approval.workspace_id.as_str()).collect()
}

/// The workspace and the type of each event from a cursor on, or from the oldest, up to the first of a workspace.
async fn events(caller: &Caller, after_cursor: &str, last: &str) -> Vec<(String, EventType)> {
    let start = if after_cursor.is_empty() { Start::Oldest } else { Start::Unspecified };
    let (after_cursor, start) = (after_cursor.to_owned(), start.into());
    let watch = WatchApprovalsRequest { after_cursor, start, ..Default::default() };
    let mut stream = caller.watch(watch).await.expect("a stream");
    let mut events = Vec::new();
    loop {
        let response = stream.message().await.expect("a message").expect("no end");
        let Some(event) = event(&response) else { continue };
        let approval = event.approval.as_ref().expect("its approval");
        events.push((approval.workspace_id.clone(), event.r#type()));
        if approval.workspace_id == last {
            return events;
        }
    }
}

#[tokio::test]
async fn a_page_token_opens_nothing_that_its_bearer_may_not_see() {
    let (_, server) = with(&[binding("viewer", "stranger", MINE)]).await;
    let (backend, viewer) = (server.caller("backend").await, server.caller("viewer").await);
    let stranger = server.caller("stranger").await;
    for (workspace, action) in [
        ("mine", "delete_workspace"),
        ("hidden", "secret_write"),
        ("mine", "secret_write"),
        ("hidden", "delete_workspace"),
    ] {
        backend.require(workspace, action).await;
    }
    let one = ListApprovalsRequest { page_size: 1, ..Default::default() };
    let first = viewer.list(one.clone()).await.expect("a page");
    assert_eq!(listed(&first), ["hidden"]);
    let anothers = ListApprovalsRequest { page_token: first.next_page_token, ..one.clone() };
    let next = stranger.list(anothers.clone()).await.expect("a page");
    assert_eq!(listed(&next), ["mine"]);
    let again = ListApprovalsRequest { page_token: next.next_page_token, ..one };
    let last = stranger.list(again).await.expect("a page");
    assert_eq!((listed(&last), last.next_page_token.as_str()), (vec!["mine"], ""));

    let elsewhere = ListApprovalsRequest { namespace: "acme".to_owned(), ..anothers.clone() };
    let refused = viewer.list(elsewhere).await.expect_err("of another list");
    assert_eq!(refused.code(), Code::InvalidArgument);
    // Whether it is good is nothing to who holds no role here.
    for page_token in [anothers.page_token.clone(), "x".to_owned()] {
        let request = ListApprovalsRequest { page_token, ..anothers.clone() };
        let refused = server.caller("acme-only").await.list(request).await.expect_err("no role");
        assert_eq!(refusal(&refused), denied("ROLE_MISSING"));
    }
}

#[tokio::test]
async fn a_page_token_opens_no_workspace_either() {
    let (_, server) = with(&[binding("viewer", "stranger", MINE)]).await;
    let (admin, mut stranger) = (server.caller("admin").await, server.caller("stranger").await);
    for (workspace, parent) in [("above", ""), ("hidden", ""), ("mine", "above"), ("nook", "mine")]
    {
        admin.put_workspace(workspace, parent).await.expect("put");
    }
    let one = ListWorkspacesRequest { page_size: 1, ..Default::default() };
    let mut all = admin.workspaces.clone();
    let first = all.list_workspaces(one.clone()).await.expect("a page").into_inner();
    assert_eq!(first.workspaces[0].id, "above");
    let mut request = ListWorkspacesRequest { page_token: first.next_page_token, ..one };
    let mut seen = Vec::new();
    loop {
        let page = stranger.workspaces.list_workspaces(request.clone()).await.expect("a page");
        let page = page.into_inner();
        seen.extend(page.workspaces.into_iter().map(|workspace| workspace.id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(seen, ["mine", "nook"]);
}

#[tokio::test]
async fn a_cursor_opens_nothing_that_its_bearer_may_not_see() {
    let (_, server) = with(&[binding("viewer", "stranger", MINE)]).await;
    let (backend, viewer) = (server.caller("backend").await, server.caller("viewer").await);
    let cursor = viewer.list(ListApprovalsRequest::default()).await.expect("a list").watch_cursor;
    for workspace in ["hidden", "mine"] {
        backend.require(workspace, "secret_write").await;
    }
    let requested = |workspace: &str| (workspace.to_owned(), EventType::Requested);
    let all = events(&viewer, &cursor, "mine").await;
    assert_eq!(all, [requested("hidden"), requested("mine")]);
    let stranger = server.caller("stranger").await;
    assert_eq!(events(&stranger, &cursor, "mine").await, [requested("mine")]);

    let watch = |namespace: &str, after_cursor: &str| WatchApprovalsRequest {
        namespace: namespace.to_owned(),
        after_cursor: after_cursor.to_owned(),
        ..Default::default()
    };
    let refused = viewer.watch(watch("acme", &cursor)).await.expect_err("of another namespace");
    assert_eq!(refusal(&refused).1, "CURSOR_INVALID");
    let elsewhere = server.caller("acme-only").await;
    for cursor in [&cursor, "x"] {
        let refused = elsewhere.watch(watch("default", cursor)).await.expect_err("no role here");
        assert_eq!(refusal(&refused), denied("ROLE_MISSING"));
    }
}

/// All that a refusal says.
fn said<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String, Vec<u8>) {
    let status = answer.expect_err("refused");
    (status.code(), status.message().to_owned(), status.details().to_vec())
}

#[tokio::test]
async fn what_is_hidden_and_what_is_not_there_are_refused_in_the_same_words() {
    let roles = ["requester", "viewer", "approver", "admin"];
    let actions = "\nactions = [\"*\"]";
    let bindings = roles.map(|role| {
        let actions = if role == "approver" { actions } else { "" };
        binding(role, "stranger", &format!("{MINE}{actions}"))
    });
    let (_, server) = with(&bindings).await;
    let (admin, stranger) = (server.caller("admin").await, server.caller("stranger").await);
    for workspace in ["hidden", "mine"] {
        admin.put_workspace(workspace, "").await.expect("put");
    }
    let hidden = id(&server.caller("backend").await.require("hidden", "secret_write").await);

    let Caller { approvals, workspaces } = stranger.clone();
    for call in ["get", "decide", "withdraw", "revoke", "report"] {
        let says = async |approval_id: String| {
            let (mut approvals, namespace) = (approvals.clone(), String::new());
            let reason = "because".to_owned();
            match call {
                "get" => said(
                    approvals.get_approval(GetApprovalRequest { namespace, approval_id }).await,
                ),
                "decide" => said(stranger.decide(&approval_id, Decision::Approve).await),
                "withdraw" => {
                    let request = WithdrawApprovalRequest { namespace, approval_id, reason };
                    said(approvals.withdraw_approval(request).await)
                }
                "revoke" => {
                    let request = RevokeApprovalRequest { namespace, approval_id, reason };
                    said(approvals.revoke_approval(request).await)
                }
                _ => {
                    let (result, detail) = (Became::Failed.into(), reason);
                    let request = ReportResultRequest { namespace, approval_id, result, detail };
                    said(approvals.report_result(request).await)
                }
            }
        };
        let refused = says(hidden.clone()).await;
        assert_eq!(refused.0, Code::NotFound, "{call}");
        assert_eq!(refused, says(Uuid::now_v7().to_string()).await, "{call}");
    }

    // Nor do filters tell, or calls about workspaces.
    for include_descendants in [false, true] {
        let list = async |workspace: &str| {
            let (workspace_ids, page_size) = (vec![workspace.to_owned()], 1);
            let request = ListApprovalsRequest {
                workspace_ids,
                include_descendants,
                page_size,
                ..Default::default()
            };
            stranger.list(request).await.expect("a list")
        };
        assert_eq!(listed(&list("hidden").await), Vec::<&str>::new());
        assert_eq!(list("hidden").await, list("nowhere").await);
    }
    let require = async |workspace: &str| said(stranger.ask(request(workspace, "x")).await);
    assert_eq!(require("hidden").await, require("nowhere").await);
    let below = async |parent: &str| said(stranger.put_workspace("mine", parent).await);
    assert_eq!(below("hidden").await, below("nowhere").await);
    let delete = async |workspace: &str| {
        let workspace_id = workspace.to_owned();
        let request = DeleteWorkspaceRequest { workspace_id, ..Default::default() };
        said(workspaces.clone().delete_workspace(request).await)
    };
    assert_eq!(delete("hidden").await, delete("nowhere").await);
}

/// A requester's role in one namespace opened calls in another, for who could see the approval there.
#[tokio::test]
async fn a_role_in_another_namespace_takes_back_and_reports_nothing_here() {
    let everywhere = "workspaces = [\"*\"]";
    let (_, server) = with(&[binding("requester", "stranger", everywhere)]).await;
    let mut stranger = server.caller("stranger").await;
    let consumed = id(&stranger.require("w1", "secret_write").await);
    server.caller("alice").await.approve(&consumed).await;
    assert_eq!(stranger.require("w1", "secret_write").await.outcome(), Outcome::Approved);
    let pending = id(&stranger.require("w1", "secret_write").await);

    let moved = [
        binding("requester", "stranger", &format!("namespaces = [\"acme\"]\n{everywhere}")),
        binding("viewer", "stranger", everywhere),
    ];
    server.reload(&format!("{}{}", policy_text(), moved.concat()), &tokens_text());
    let seen = stranger.get(&pending).await.expect("a viewer");
    let withdraw = WithdrawApprovalRequest { approval_id: pending, ..Default::default() };
    let refused = stranger.approvals.withdraw_approval(withdraw).await.expect_err("not here");
    assert_eq!(refusal(&refused), denied("ROLE_MISSING"));
    let result = Became::Succeeded.into();
    let report = ReportResultRequest { approval_id: consumed, result, ..Default::default() };
    let refused = stranger.approvals.report_result(report).await.expect_err("not here");
    assert_eq!(refusal(&refused), denied("ROLE_MISSING"));
    assert_eq!(stranger.get(&seen.id).await.expect("a viewer"), seen);
}

/// Who sees it and did not request it may not take it back, nor say what became of it.
#[tokio::test]
async fn what_another_requested_is_not_taken_back_by_who_can_see_it() {
    let everywhere = "workspaces = [\"*\"]";
    let bindings = ["requester", "viewer"].map(|role| binding(role, "stranger", everywhere));
    let (_, server) = with(&bindings).await;
    let (backend, mut stranger) = (server.caller("backend").await, server.caller("stranger").await);
    let consumed = id(&backend.require("w1", "secret_write").await);
    server.caller("alice").await.approve(&consumed).await;
    backend.require("w1", "secret_write").await;
    let pending = backend.require("w1", "secret_write").await.approval.expect("it");
    let withdraw =
        WithdrawApprovalRequest { approval_id: pending.id.clone(), ..Default::default() };
    let refused = stranger.approvals.withdraw_approval(withdraw).await.expect_err("another's");
    assert_eq!(refusal(&refused), denied("ROLE_MISSING"));
    let result = Became::Failed.into();
    let report = ReportResultRequest { approval_id: consumed, result, ..Default::default() };
    let refused = stranger.approvals.report_result(report).await.expect_err("another's");
    assert_eq!(refusal(&refused), denied("ROLE_MISSING"));
    assert_eq!(stranger.get(&pending.id).await.expect("seen"), pending);
}

#[tokio::test]
async fn an_attempt_is_repeated_in_its_namespace_by_its_principal_only() {
    let (_, server) = with(&[]).await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let mut attempt = request("w1", "secret_write");
    attempt.idempotency_key = "attempt 1".to_owned();
    let held = id(&backend.ask(attempt.clone()).await.expect("held"));
    alice.approve(&held).await;
    let through = backend.ask(attempt.clone()).await.expect("let through");
    assert_eq!((through.outcome(), id(&through)), (Outcome::Approved, held.clone()));
    let mut elsewhere = attempt.clone();
    elsewhere.namespace = "acme".to_owned();
    let other = server.caller("backend-2").await;
    for (caller, attempt) in [(&other, &attempt), (&backend, &elsewhere)] {
        let answer = caller.ask(attempt.clone()).await.expect("held");
        assert_eq!((answer.outcome(), answer.replayed), (Outcome::Pending, false));
        assert_ne!(id(&answer), held);
    }
}

#[tokio::test]
async fn nobody_draws_a_workspace_into_a_subtree_of_theirs() {
    let roles = ["admin", "viewer"].map(|role| binding(role, "stranger", MINE));
    let (_, server) = with(&roles).await;
    let (admin, stranger) = (server.caller("admin").await, server.caller("stranger").await);
    for (workspace, parent) in [("hidden", ""), ("mine", ""), ("nook", "mine"), ("corner", "mine")]
    {
        admin.put_workspace(workspace, parent).await.expect("put");
    }
    stranger.put_workspace("nook", "corner").await.expect("moved within its subtree");
    let backend = server.caller("backend").await;
    for workspace in ["hidden", "not in the tree"] {
        let approval = id(&backend.require(workspace, "secret_write").await);
        for (child, parent) in [(workspace, "mine"), (workspace, ""), ("mine", workspace)] {
            let refused = stranger.put_workspace(child, parent).await.expect_err("not its own");
            assert_eq!(refusal(&refused), denied("ROLE_MISSING"), "{child:?} below {parent:?}");
        }
        let unseen = stranger.get(&approval).await.expect_err("not its own");
        assert_eq!(refusal(&unseen).1, "APPROVAL_NOT_FOUND");
    }
}

/// The right was looked at before the tree was locked, and a workspace that was moved away meanwhile came back.
#[tokio::test]
async fn a_right_that_goes_with_a_workspace_is_gone_when_it_is_used() {
    let (database, server) = with(&[binding("admin", "stranger", MINE)]).await;
    let (admin, stranger) = (server.caller("admin").await, server.caller("stranger").await);
    for (workspace, parent) in [("hidden", ""), ("mine", ""), ("nook", "mine")] {
        admin.put_workspace(workspace, parent).await.expect("put");
    }
    let mut moving = database.connect().await;
    for delete in [false, true] {
        let away = moving.transaction().await.expect("begun");
        let statements = "
            SELECT namespace FROM approval_authority.log_locks WHERE namespace = 'default' FOR UPDATE;
            UPDATE approval_authority.workspaces SET parent_id = 'hidden' WHERE id = 'nook'";
        away.batch_execute(statements).await.expect("locked, and moved");
        let caller = stranger.clone();
        let waits = tokio::spawn(async move {
            if !delete {
                return caller.put_workspace("nook", "mine").await;
            }
            let workspace_id = "nook".to_owned();
            let request = DeleteWorkspaceRequest { workspace_id, ..Default::default() };
            caller.workspaces.clone().delete_workspace(request).await.map(|_| ())
        });
        database.until_a_lock_is_waited_for().await;
        away.commit().await.expect("moved");
        let refused = waits.await.expect("no panic").expect_err("it is not there any more");
        assert_eq!(refusal(&refused), denied("ROLE_MISSING"));
        admin.put_workspace("nook", "mine").await.expect("back");
    }
}

/// It was brought before its parent then, and that stayed to be read there when the workspace had been moved away.
#[tokio::test]
async fn what_was_brought_before_a_workspace_goes_with_its_own() {
    let (_, server) = with(&[binding("viewer", "stranger", MINE)]).await;
    let (admin, stranger) = (server.caller("admin").await, server.caller("stranger").await);
    for (workspace, parent) in [("mine", ""), ("nook", "mine")] {
        admin.put_workspace(workspace, parent).await.expect("put");
    }
    let backend = server.caller("backend").await;
    let approval = id(&backend.require("nook", "secret_write").await);
    backend.require("mine", "secret_write").await;
    let both = ["nook", "nook", "mine"].map(str::to_owned);
    let shown = async || events(&stranger, "", "mine").await.into_iter().map(|(id, _)| id);
    assert_eq!(shown().await.collect::<Vec<_>>(), both, "requested, and brought before its parent");

    admin.put_workspace("nook", "").await.expect("moved away");
    stranger.get(&approval).await.expect_err("not to be seen any more");
    assert_eq!(shown().await.collect::<Vec<_>>(), ["mine"]);
    admin.put_workspace("nook", "mine").await.expect("back");
    assert_eq!(shown().await.collect::<Vec<_>>(), both);
}
