//! The trees of workspaces.

use approval_authority::proto::{
    self, DeleteWorkspaceRequest, ListWorkspacesRequest, PutWorkspaceRequest, Workspace,
};
use tonic::Code;

use crate::harness::{Caller, TestServer, refusal};

async fn listed(caller: &Caller, page_size: i32) -> Vec<(String, String)> {
    let mut request = ListWorkspacesRequest { page_size, ..Default::default() };
    let mut all = Vec::new();
    loop {
        let mut workspaces = caller.workspaces.clone();
        let page = workspaces.list_workspaces(request.clone()).await.expect("a page").into_inner();
        all.extend(page.workspaces.into_iter().map(|w| (w.id, w.parent_id)));
        if page.next_page_token.is_empty() {
            return all;
        }
        request.page_token = page.next_page_token;
    }
}

fn pair(id: &str, parent: &str) -> (String, String) {
    (id.to_owned(), parent.to_owned())
}

#[tokio::test]
async fn a_tree_is_built_listed_and_taken_apart() {
    let (_, server) = TestServer::new().await;
    let mut admin = server.caller("admin").await;
    for (id, parent) in [("a", ""), ("b", "a"), ("c", "b"), ("d", "")] {
        admin.put_workspace(id, parent).await.expect("put");
    }
    assert_eq!(
        listed(&admin, 2).await,
        [pair("a", ""), pair("b", "a"), pair("c", "b"), pair("d", "")]
    );
    admin.put_workspace("d", "a").await.expect("moved");
    let delete = DeleteWorkspaceRequest { workspace_id: "b".to_owned(), ..Default::default() };
    admin.workspaces.delete_workspace(delete.clone()).await.expect("deleted");
    assert_eq!(listed(&admin, 50).await, [pair("a", ""), pair("c", ""), pair("d", "a")]);
    let gone = admin.workspaces.delete_workspace(delete).await.expect_err("gone");
    assert_eq!(refusal(&gone), (Code::NotFound, "WORKSPACE_NOT_FOUND".to_owned()));
}

#[tokio::test]
async fn a_tree_has_no_cycle_and_no_parent_that_is_not_there() {
    let (_, server) = TestServer::new().await;
    let admin = server.caller("admin").await;
    for (id, parent) in [("a", ""), ("b", "a"), ("c", "b")] {
        admin.put_workspace(id, parent).await.expect("put");
    }
    let cycle = (Code::InvalidArgument, "WORKSPACE_CYCLE".to_owned());
    for parent in ["a", "b", "c"] {
        let refused = admin.put_workspace("a", parent).await.expect_err("a cycle");
        assert_eq!(refusal(&refused), cycle, "below {parent}");
    }
    let refused = admin.put_workspace("e", "nowhere").await.expect_err("no parent");
    assert_eq!(refusal(&refused), (Code::FailedPrecondition, "PARENT_NOT_FOUND".to_owned()));
    let refused = admin.put_workspace("e", "e").await.expect_err("its own parent");
    assert_eq!(refusal(&refused), cycle);
}

/// The walk to the root gave up after a thousand steps, and the cycle behind them was not seen.
#[tokio::test]
async fn a_deep_tree_has_no_cycle_either() {
    let (database, server) = TestServer::new().await;
    let admin = server.caller("admin").await;
    admin.put_workspace("c0", "").await.expect("put");
    let chain = "INSERT INTO approval_authority.workspaces (namespace, id, parent_id, display_name)
        SELECT 'default', 'c' || n, 'c' || n - 1, '' FROM generate_series(1, 1100) AS n";
    database.connect().await.batch_execute(chain).await.expect("a chain");
    let refused = admin.put_workspace("c0", "c1100").await.expect_err("a cycle");
    assert_eq!(refusal(&refused), (Code::InvalidArgument, "WORKSPACE_CYCLE".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_are_put_below_each_other_at_once_make_no_cycle() {
    let (_, server) = TestServer::new().await;
    let admin = server.caller("admin").await;
    for run in 0..20 {
        let (a, b) = (format!("a{run}"), format!("b{run}"));
        admin.put_workspace(&a, "").await.expect("put");
        admin.put_workspace(&b, "").await.expect("put");
        let (one, two) = tokio::join!(admin.put_workspace(&a, &b), admin.put_workspace(&b, &a));
        assert_eq!([one, two].iter().filter(|put| put.is_ok()).count(), 1, "run {run}");
    }
}

#[tokio::test]
async fn bad_fields_are_all_named() {
    let (_, server) = TestServer::new().await;
    let mut admin = server.caller("admin").await;
    let workspace = Workspace {
        namespace: "!".to_owned(),
        id: "\u{7}".to_owned(),
        parent_id: "x".repeat(129),
        display_name: "n".repeat(201),
    };
    let request = PutWorkspaceRequest { workspace: Some(workspace) };
    let refused = admin.workspaces.put_workspace(request).await.expect_err("wrong");
    let details = tonic_types::StatusExt::get_error_details(&refused);
    let violations = &details.bad_request().expect("violations").field_violations;
    let fields: Vec<&str> = violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(
        fields,
        ["workspace.namespace", "workspace.id", "workspace.parent_id", "workspace.display_name"]
    );
    let nothing = proto::PutWorkspaceRequest { workspace: None };
    let refused = admin.workspaces.put_workspace(nothing).await.expect_err("nothing");
    assert_eq!(refused.code(), Code::InvalidArgument);
}
