//! The one table of permissions. A call that is not in it answers nobody.

use crate::policy::Role::{self, Admin, Approver, Requester, Viewer};

/// Which roles open a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The call's path, as in gRPC.
    pub path: &'static str,
    /// Any of these opens it. Where in the tree the role must hold, and what else the call asks for, is in the
    /// contract.
    pub roles: &'static [Role],
}

/// Every call of the contract.
pub const PERMISSIONS: &[Permission] = &[
    allow("/approvals.v1.ApprovalService/RequireApproval", &[Requester]),
    allow("/approvals.v1.ApprovalService/Decide", &[Approver]),
    allow("/approvals.v1.ApprovalService/WatchApprovals", READERS),
    // A requester may read what it requested.
    allow("/approvals.v1.ApprovalService/GetApproval", &[Viewer, Approver, Admin, Requester]),
    allow("/approvals.v1.ApprovalService/ListApprovals", READERS),
    allow("/approvals.v1.ApprovalService/WithdrawApproval", &[Requester]),
    allow("/approvals.v1.ApprovalService/RevokeApproval", &[Approver]),
    allow("/approvals.v1.ApprovalService/ReportResult", &[Requester]),
    allow("/approvals.v1.ApprovalService/GetPolicy", &[Requester, Viewer, Approver, Admin]),
    allow("/approvals.v1.WorkspaceService/PutWorkspace", &[Admin]),
    allow("/approvals.v1.WorkspaceService/ListWorkspaces", READERS),
    allow("/approvals.v1.WorkspaceService/DeleteWorkspace", &[Admin]),
];

/// The roles that may read approvals and workspaces.
pub const READERS: &[Role] = &[Viewer, Approver, Admin];

/// The roles that open a call; none for a call that is not in the table.
pub fn roles_for(path: &str) -> &'static [Role] {
    PERMISSIONS.iter().find(|permission| permission.path == path).map_or(&[], |p| p.roles)
}

const fn allow(path: &'static str, roles: &'static [Role]) -> Permission {
    Permission { path, roles }
}
