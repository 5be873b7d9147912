//! The one table of permissions, from which every decision about roles is taken. What it does not open is closed: a
//! call that is not in it answers nobody.

use self::Reach::{Actions, Everything, Own, Workspaces};
use crate::{
    error::Error,
    policy::Role::{self, Admin, Approver, Requester, Viewer},
};

/// For what a role opens a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// For the workspaces of its binding and all below them.
    Workspaces,
    /// For these workspaces, and the actions of its binding.
    Actions,
    /// For what the caller itself requested, anywhere in the namespaces of its binding.
    Own,
    /// For all there is: the call is of no namespace.
    Everything,
}

/// A role that opens a call, and for what.
pub type Grant = (Role, Reach);

/// What opens a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The call's path, as in gRPC.
    pub path: &'static str,
    /// Any of these opens it.
    pub grants: &'static [Grant],
}

/// Every call of the contract.
pub const PERMISSIONS: &[Permission] = &[
    allow("/approvals.v1.ApprovalService/RequireApproval", &[(Requester, Workspaces)]),
    allow("/approvals.v1.ApprovalService/Decide", &[(Approver, Actions)]),
    allow("/approvals.v1.ApprovalService/WatchApprovals", READERS),
    allow("/approvals.v1.ApprovalService/GetApproval", SIGHT),
    allow("/approvals.v1.ApprovalService/ListApprovals", READERS),
    allow("/approvals.v1.ApprovalService/WithdrawApproval", &[(Requester, Own)]),
    allow("/approvals.v1.ApprovalService/RevokeApproval", &[(Approver, Actions)]),
    allow("/approvals.v1.ApprovalService/ReportResult", &[(Requester, Own)]),
    allow("/approvals.v1.ApprovalService/GetPolicy", ANYBODY),
    allow("/approvals.v1.WorkspaceService/PutWorkspace", &[(Admin, Workspaces)]),
    allow("/approvals.v1.WorkspaceService/ListWorkspaces", READERS),
    allow("/approvals.v1.WorkspaceService/DeleteWorkspace", &[(Admin, Workspaces)]),
];

/// Who reads lists and streams.
const READERS: &[Grant] = &[(Viewer, Workspaces), (Approver, Workspaces), (Admin, Workspaces)];

/// Who may see an approval. To all others it is not there, whatever they call.
pub const SIGHT: &[Grant] =
    &[(Requester, Own), (Viewer, Workspaces), (Approver, Workspaces), (Admin, Workspaces)];

/// Whoever holds a role.
const ANYBODY: &[Grant] =
    &[(Requester, Everything), (Viewer, Everything), (Approver, Everything), (Admin, Everything)];

/// What opens a call; nothing, if it is not in the table.
pub fn grants_for(path: &str) -> &'static [Grant] {
    PERMISSIONS.iter().find(|permission| permission.path == path).map_or(&[], |p| p.grants)
}

/// What a caller is told to whom none of these opens a call. The contract has a name of its own for a decision by
/// somebody who may not decide.
pub fn refusal(grants: &[Grant]) -> Error {
    match grants {
        [(Approver, Actions)] => Error::NotAnApprover,
        _ => Error::RoleMissing,
    }
}

const fn allow(path: &'static str, grants: &'static [Grant]) -> Permission {
    Permission { path, grants }
}
