//! What one more test needs: a database, a server on it, and callers.

use std::net::SocketAddr;

use approval_authority::proto::{
    self, ApprovalState, Decision, Outcome, RequireApprovalRequest, RequireApprovalResponse,
    approval_service_client::ApprovalServiceClient,
    workspace_service_client::WorkspaceServiceClient,
};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

pub use crate::server::TestServer;

/// Everybody that tests speak for. Each one's token is the subject with `-token-for-tests` behind it.
pub const SUBJECTS: &[(&str, &[&str])] = &[
    ("backend", &[]),
    ("backend-2", &[]),
    ("alice", &["approvers"]),
    ("bob", &["approvers"]),
    ("carol", &["approvers"]),
    ("viewer", &[]),
    ("admin", &[]),
    ("stranger", &[]),
    ("acme-only", &[]),
    ("tree-approver", &[]),
    ("secrets-approver", &[]),
];

/// The tests' policy: the built-in actions, and a role for each of those above but the stranger.
pub const BINDINGS: &str = r#"
[[bindings]]
role = "requester"
principals = ["tokens:backend", "tokens:backend-2"]
namespaces = ["*"]
workspaces = ["*"]

[[bindings]]
role = "approver"
groups = ["tokens:approvers"]
namespaces = ["*"]
workspaces = ["*"]
actions = ["*"]

[[bindings]]
role = "viewer"
principals = ["tokens:viewer"]
namespaces = ["*"]
workspaces = ["*"]

[[bindings]]
role = "admin"
principals = ["tokens:admin"]
namespaces = ["*"]
workspaces = ["*"]

[[bindings]]
role = "approver"
principals = ["tokens:acme-only"]
namespaces = ["acme"]
workspaces = ["*"]
actions = ["*"]

[[bindings]]
role = "approver"
principals = ["tokens:tree-approver"]
workspaces = ["tree"]
actions = ["*"]

[[bindings]]
role = "approver"
principals = ["tokens:secrets-approver"]
workspaces = ["*"]
actions = ["secret_write"]
"#;

/// A binding of one subject's, for the end of a policy; `rest` says where it holds.
pub fn binding(role: &str, subject: &str, rest: &str) -> String {
    format!("\n[[bindings]]\nrole = \"{role}\"\nprincipals = [\"tokens:{subject}\"]\n{rest}\n")
}

/// Adds a caller's credential to each call.
#[derive(Clone)]
pub struct Credential(Option<MetadataValue<Ascii>>);

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(credential) = &self.0 {
            request.metadata_mut().insert("authorization", credential.clone());
        }
        Ok(request)
    }
}

/// Somebody who calls a server.
#[derive(Clone)]
pub struct Caller {
    pub approvals: ApprovalServiceClient<InterceptedService<Channel, Credential>>,
    pub workspaces: WorkspaceServiceClient<InterceptedService<Channel, Credential>>,
}

impl Caller {
    /// One of `SUBJECTS`, on a connection of its own; nobody, without a credential, for "".
    pub async fn new(address: SocketAddr, subject: &str) -> Self {
        match subject {
            "" => Self::with(address, None).await,
            subject => Self::with_token(address, &format!("{subject}-token-for-tests")).await,
        }
    }

    pub async fn with_token(address: SocketAddr, token: &str) -> Self {
        Self::with(address, Some(format!("Bearer {token}").parse().expect("ASCII"))).await
    }

    /// One of `SUBJECTS`, on a connection that is made when it is needed: the server need not be there.
    pub fn lazy(address: SocketAddr, subject: &str) -> Self {
        let token = format!("Bearer {subject}-token-for-tests").parse().expect("ASCII");
        Self::over(endpoint(address).connect_lazy(), Some(token))
    }

    /// One of `SUBJECTS`, on a connection that takes little more than it reads (RFC 9113 section 6.9.2).
    pub async fn with_least_windows(address: SocketAddr, subject: &str) -> Self {
        const LEAST: u32 = 65_535;
        let token = format!("Bearer {subject}-token-for-tests").parse().expect("ASCII");
        let endpoint = endpoint(address)
            .initial_stream_window_size(LEAST)
            .initial_connection_window_size(LEAST);
        let channel = endpoint.connect().await.expect("a server there");
        Self::over(channel, Some(token))
    }

    async fn with(address: SocketAddr, credential: Option<MetadataValue<Ascii>>) -> Self {
        let channel = endpoint(address).connect().await.expect("a server there");
        Self::over(channel, credential)
    }

    /// By a channel of the test's own.
    pub fn over(channel: Channel, credential: Option<MetadataValue<Ascii>>) -> Self {
        let with = Credential(credential);
        Self {
            approvals: ApprovalServiceClient::with_interceptor(channel.clone(), with.clone()),
            workspaces: WorkspaceServiceClient::with_interceptor(channel, with),
        }
    }

    /// Asks for an action in a workspace, with no context.
    pub async fn require(&self, workspace: &str, action: &str) -> RequireApprovalResponse {
        self.ask(request(workspace, action)).await.expect("an answer of the gate's")
    }

    pub async fn ask(
        &self,
        request: RequireApprovalRequest,
    ) -> Result<RequireApprovalResponse, Status> {
        Ok(self.approvals.clone().require_approval(request).await?.into_inner())
    }

    pub async fn decide(&self, id: &str, decision: Decision) -> Result<proto::Approval, Status> {
        let request = proto::DecideRequest {
            approval_id: id.to_owned(),
            decision: decision.into(),
            reason: "as discussed".to_owned(),
            ..Default::default()
        };
        let decided = self.approvals.clone().decide(request).await?.into_inner();
        Ok(decided.approval.expect("the approval"))
    }

    pub async fn approve(&self, id: &str) -> proto::Approval {
        self.decide(id, Decision::Approve).await.expect("approved")
    }

    pub async fn deny(&self, id: &str) -> proto::Approval {
        self.decide(id, Decision::Deny).await.expect("denied")
    }

    pub async fn get(&self, id: &str) -> Result<proto::Approval, Status> {
        let request =
            proto::GetApprovalRequest { approval_id: id.to_owned(), ..Default::default() };
        let got = self.approvals.clone().get_approval(request).await?.into_inner();
        Ok(got.approval.expect("the approval"))
    }

    pub async fn list(
        &self,
        request: proto::ListApprovalsRequest,
    ) -> Result<proto::ListApprovalsResponse, Status> {
        Ok(self.approvals.clone().list_approvals(request).await?.into_inner())
    }

    pub async fn watch(
        &self,
        request: proto::WatchApprovalsRequest,
    ) -> Result<tonic::Streaming<proto::WatchApprovalsResponse>, Status> {
        Ok(self.approvals.clone().watch_approvals(request).await?.into_inner())
    }

    pub async fn put_workspace(&self, id: &str, parent: &str) -> Result<(), Status> {
        let workspace = proto::Workspace {
            id: id.to_owned(),
            parent_id: parent.to_owned(),
            ..Default::default()
        };
        let request = proto::PutWorkspaceRequest { workspace: Some(workspace) };
        self.workspaces.clone().put_workspace(request).await.map(|_| ())
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).expect("an address")
}

/// A call to the gate with no context.
pub fn request(workspace: &str, action: &str) -> RequireApprovalRequest {
    RequireApprovalRequest {
        workspace_id: workspace.to_owned(),
        action: action.to_owned(),
        reason: "because".to_owned(),
        ..Default::default()
    }
}

/// A context of names and numbers, in the order given.
pub fn context(members: &[(&str, f64)]) -> prost_types::Struct {
    let fields = members.iter().map(|(name, number)| {
        let kind = Some(prost_types::value::Kind::NumberValue(*number));
        ((*name).to_owned(), prost_types::Value { kind })
    });
    prost_types::Struct { fields: fields.collect() }
}

/// The id in a gate's answer.
pub fn id(answer: &RequireApprovalResponse) -> String {
    answer.approval.as_ref().expect("an approval").id.clone()
}

/// The answer's outcome and the state of its approval.
pub fn told(answer: &RequireApprovalResponse) -> (Outcome, ApprovalState) {
    let approval = answer.approval.as_ref().expect("an approval");
    (answer.outcome(), approval.state())
}

/// The code of a status and the reason in its details.
pub fn refusal(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
    (status.code(), reason)
}
