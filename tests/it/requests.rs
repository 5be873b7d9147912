//! Bad requests: one clear answer that names everything that is wrong.

use approval_authority::proto::{
    self, DecideRequest, GetApprovalRequest, ListApprovalsRequest, RequireApprovalRequest,
    WatchApprovalsRequest,
};
use prost_types::{ListValue, Struct, Value, value::Kind};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{TestServer, context, id, refusal, request};

/// The fields that a refusal names.
fn fields(refused: &Status) -> Vec<String> {
    assert_eq!(refusal(refused), (Code::InvalidArgument, "FIELD_INVALID".to_owned()));
    let details = refused.get_error_details();
    let violations = &details.bad_request().expect("violations").field_violations;
    violations.iter().map(|violation| violation.field.clone()).collect()
}

#[tokio::test]
async fn all_violations_are_named_at_once() {
    let (_, server) = TestServer::new().await;
    let backend = server.caller("backend").await;
    let all_wrong = RequireApprovalRequest {
        namespace: "Acme!".to_owned(),
        workspace_id: String::new(),
        action: "Delete Workspace".to_owned(),
        reason: "x".repeat(2_001),
        context: Some(context(&[("n", f64::NAN)])),
        idempotency_key: "k".repeat(129),
        wait: Some(prost_types::Duration { seconds: 61, nanos: 0 }),
        on_behalf_of: "o".repeat(257),
    };
    assert_eq!(
        fields(&backend.ask(all_wrong).await.expect_err("wrong")),
        [
            "namespace",
            "workspace_id",
            "action",
            "reason",
            "context",
            "idempotency_key",
            "wait",
            "on_behalf_of"
        ]
    );
    let alice = server.caller("alice").await;
    let all_wrong = DecideRequest {
        namespace: "-".repeat(64),
        approval_id: "7".to_owned(),
        decision: 9,
        reason: "\0".to_owned(),
        request_hash: "ABC".to_owned(),
    };
    let refused = alice.approvals.clone().decide(all_wrong).await.expect_err("wrong");
    assert_eq!(
        fields(&refused),
        ["namespace", "approval_id", "decision", "reason", "request_hash"]
    );
    let all_wrong = ListApprovalsRequest {
        namespace: "!".to_owned(),
        workspace_ids: vec!["fine".to_owned(), String::new()],
        states: vec![1, 0],
        actions: vec!["?".to_owned()],
        page_size: -1,
        ..Default::default()
    };
    let refused = alice.list(all_wrong).await.expect_err("wrong");
    assert_eq!(
        fields(&refused),
        ["namespace", "workspace_ids[1]", "states", "actions[0]", "page_size"]
    );
    let all_wrong = WatchApprovalsRequest {
        namespace: "!".to_owned(),
        event_types: vec![77],
        start: 5,
        ..Default::default()
    };
    let refused = alice.watch(all_wrong).await.expect_err("wrong");
    assert_eq!(fields(&refused), ["namespace", "event_types", "start"]);
    let nothing = GetApprovalRequest::default();
    let refused = alice.approvals.clone().get_approval(nothing).await.expect_err("wrong");
    assert_eq!(fields(&refused), ["approval_id"]);
}

#[tokio::test]
async fn to_deny_takes_a_reason() {
    let (_, server) = TestServer::new().await;
    let held = server.caller("backend").await.require("w1", "secret_write").await;
    let alice = server.caller("alice").await;
    let deny = DecideRequest {
        approval_id: id(&held),
        decision: proto::Decision::Deny.into(),
        reason: " \n".to_owned(),
        ..Default::default()
    };
    let refused = alice.approvals.clone().decide(deny).await.expect_err("no reason");
    assert_eq!(fields(&refused), ["reason"]);
}

#[tokio::test]
async fn a_verdict_on_something_else_than_was_shown_is_refused() {
    let (_, server) = TestServer::new().await;
    let held = server.caller("backend").await.require("w1", "secret_write").await;
    let alice = server.caller("alice").await;
    let decide = |request_hash: &str| DecideRequest {
        approval_id: id(&held),
        decision: proto::Decision::Approve.into(),
        request_hash: request_hash.to_owned(),
        ..Default::default()
    };
    let other = alice.approvals.clone().decide(decide(&"0".repeat(64))).await.expect_err("other");
    assert_eq!(refusal(&other), (Code::Aborted, "HASH_MISMATCH".to_owned()));
    let shown = held.approval.as_ref().expect("it").request_hash.clone();
    alice.approvals.clone().decide(decide(&shown)).await.expect("what was shown");
}

#[tokio::test]
async fn a_settled_approval_says_how_it_stands() {
    let (_, server) = TestServer::new().await;
    let held = server.caller("backend").await.require("w1", "secret_write").await;
    server.caller("alice").await.deny(&id(&held)).await;
    let bob = server.caller("bob").await;
    let late = bob.decide(&id(&held), proto::Decision::Approve).await.expect_err("settled");
    assert_eq!(refusal(&late), (Code::FailedPrecondition, "NOT_PENDING".to_owned()));
    let details = late.get_error_details();
    assert_eq!(details.error_info().expect("it").metadata["state"], "DENIED");
    let missing = "01890000-0000-7000-8000-000000000000";
    let missing = bob.decide(missing, proto::Decision::Approve).await.expect_err("no such");
    assert_eq!(refusal(&missing), (Code::NotFound, "APPROVAL_NOT_FOUND".to_owned()));
}

#[tokio::test]
async fn a_context_has_its_limits() {
    let (_, server) = TestServer::new().await;
    let backend = server.caller("backend").await;
    let with = |context: Struct| {
        let mut ask = request("w1", "secret_write");
        ask.context = Some(context);
        ask
    };
    let of = |kind: Option<Kind>| Struct {
        fields: [("k".to_owned(), Value { kind })].into_iter().collect(),
    };
    let text = |length: usize| of(Some(Kind::StringValue("x".repeat(length))));
    let nested = |levels: usize| {
        // The context and the innermost list are levels too.
        let mut value = Value { kind: Some(Kind::ListValue(ListValue::default())) };
        for _ in 2..levels {
            value = Value { kind: Some(Kind::ListValue(ListValue { values: vec![value] })) };
        }
        of(value.kind)
    };
    let around = r#"{"k":""}"#.len();
    for fine in [
        text(64 * 1024 - around),
        nested(32),
        context(&[("n", 9_007_199_254_740_991.0)]),
        of(Some(Kind::StringValue("a\0b\u{202e}".to_owned()))),
    ] {
        let held = backend.ask(with(fine.clone())).await.expect("within limits");
        assert_eq!(held.approval.expect("it").context, Some(fine));
    }
    for wrong in [
        text(64 * 1024 - around + 1),
        nested(33),
        context(&[("n", 9_007_199_254_740_992.0)]),
        context(&[("n", f64::INFINITY)]),
        of(None),
    ] {
        let refused = backend.ask(with(wrong)).await.expect_err("over a limit");
        assert_eq!(fields(&refused), ["context"]);
    }
    let refused = backend.ask(with(text(600 * 1024))).await.expect_err("far too long");
    assert_eq!(fields(&refused), ["request"], "before it is read");
    let refused = backend.ask(with(nested(200))).await.expect_err("deeper than is decoded");
    assert_eq!(fields(&refused), ["request"]);
}

#[tokio::test]
async fn lists_come_newest_first_in_pages_and_go_on_where_they_left_off() {
    let (_, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let mut expected = Vec::new();
    for number in 0..7 {
        expected.insert(0, id(&backend.require(&format!("w{number}"), "secret_write").await));
    }
    let mut list = ListApprovalsRequest { page_size: 3, ..Default::default() };
    let mut listed = Vec::new();
    let mut pages = 0;
    loop {
        let page = alice.list(list.clone()).await.expect("a page");
        assert_eq!(page.watch_cursor.is_empty(), pages > 0, "on the first page");
        listed.extend(page.approvals.into_iter().map(|approval| approval.id));
        pages += 1;
        if page.next_page_token.is_empty() {
            break;
        }
        list.page_token = page.next_page_token;
    }
    assert_eq!((listed, pages), (expected.clone(), 3));

    alice.approve(&expected[0]).await;
    let approved = ListApprovalsRequest {
        states: vec![proto::ApprovalState::Approved.into()],
        actions: vec!["secret_write".to_owned()],
        ..Default::default()
    };
    let page = alice.list(approved.clone()).await.expect("a page");
    assert_eq!(page.approvals.len(), 1);
    let mut other_list = approved;
    other_list.page_token = list.page_token;
    let refused = alice.list(other_list).await.expect_err("a token of another list");
    assert_eq!(fields(&refused), ["page_token"]);
}

/// A dozen requests of the largest context made a page that no client accepts.
#[tokio::test]
async fn nobody_can_make_a_list_that_cannot_be_read() {
    let (_, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let ones = vec![Value { kind: Some(Kind::NumberValue(1.0)) }; 32_000];
    let large = Value { kind: Some(Kind::ListValue(ListValue { values: ones })) };
    let context = Struct { fields: [("k".to_owned(), large)].into_iter().collect() };
    for number in 0..12 {
        let mut ask = request(&format!("w{number}"), "secret_write");
        ask.context = Some(context.clone());
        backend.ask(ask).await.expect("held");
    }
    let mut list = ListApprovalsRequest::default();
    let mut listed = 0;
    loop {
        // The client refuses a message of more than 4 MiB.
        let page = alice.list(list.clone()).await.expect("a page");
        listed += page.approvals.len();
        if page.next_page_token.is_empty() {
            break;
        }
        list.page_token = page.next_page_token;
    }
    assert_eq!(listed, 12);
}

#[tokio::test]
async fn a_great_many_violations_still_fit_into_an_answer_and_hide_no_other() {
    let (_, server) = TestServer::new().await;
    let alice = server.caller("alice").await;
    let list = ListApprovalsRequest {
        workspace_ids: vec![String::new(); 1_000],
        actions: vec!["?".to_owned(); 50],
        page_size: -1,
        ..Default::default()
    };
    let named = fields(&alice.list(list).await.expect_err("wrong"));
    let of = |list: &str| named.iter().filter(|field| field.starts_with(list)).count();
    assert_eq!((of("workspace_ids"), of("actions"), of("page_size")), (20, 20, 1));
    let too_many = ListApprovalsRequest {
        workspace_ids: vec!["w1".to_owned(); 1_001],
        states: vec![1; 101],
        actions: vec!["deploy".to_owned(); 51],
        ..Default::default()
    };
    let named = fields(&alice.list(too_many).await.expect_err("too many"));
    assert_eq!(named, ["workspace_ids", "states", "actions"]);
}

#[tokio::test]
async fn the_policy_in_force_can_be_read() {
    let (_, server) = TestServer::new().await;
    let mut backend = server.caller("backend").await;
    let policy = backend.approvals.get_policy(proto::GetPolicyRequest {}).await.expect("it");
    let policy = policy.into_inner();
    let quorums: Vec<(&str, i32)> =
        policy.actions.iter().map(|a| (a.action.as_str(), a.approvals_required)).collect();
    assert_eq!(
        quorums,
        [
            ("delete_workspace", 1),
            ("deprovision_workspace", 1),
            ("org_token_mint", 2),
            ("secret_write", 1)
        ]
    );
    let held = backend.require("w1", "secret_write").await;
    assert_eq!(held.approval.expect("it").policy_digest, policy.digest);
}
