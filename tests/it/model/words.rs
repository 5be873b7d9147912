//! What the model and the service both speak of: the policy, commands, and what comes of them as far as it is compared.

use approval_authority::proto::{
    ApprovalState, Decision, EventType, Outcome, Result as OperationResult,
};
use tonic::Code;

pub const APPROVERS: &[&str] = &["alice", "bob", "carol"];
pub const REQUESTERS: &[&str] = &["backend", "backend-2", "alice"];

/// What the policy asks for an action.
pub struct Rule {
    pub quorum: usize,
    pub pending: u32,
    pub approved: u32,
    pub cooldown: u32,
    pub steps: &'static [u32],
    pub cap: usize,
}

const DELETE: Rule =
    Rule { quorum: 1, pending: 12, approved: 6, cooldown: 4, steps: &[2, 5], cap: 2 };
const MINT: Rule = Rule { quorum: 2, pending: 18, approved: 4, cooldown: 8, steps: &[3], cap: 3 };

/// The same for the service. An action that it leaves out is not gated.
pub const POLICY: &str = r#"
unlisted_actions = "allow"

[actions.delete_workspace]
approvals_required = 1
pending_ttl = "60m"
approved_ttl = "30m"
deny_cooldown = "20m"
escalate_after = ["10m", "25m"]
max_pending = 2

[actions.org_token_mint]
approvals_required = 2
pending_ttl = "90m"
approved_ttl = "20m"
deny_cooldown = "40m"
escalate_after = ["15m"]
max_pending = 3

[actions.deprovision_workspace]
[actions.secret_write]

[[bindings]]
role = "requester"
principals = ["tokens:backend", "tokens:backend-2", "tokens:alice"]
workspaces = ["*"]

[[bindings]]
role = "approver"
groups = ["tokens:approvers"]
workspaces = ["*"]
actions = ["*"]

[[bindings]]
role = "admin"
principals = ["tokens:admin"]
workspaces = ["*"]
"#;

pub fn rule(action: &str) -> Option<Rule> {
    match action {
        "delete_workspace" => Some(DELETE),
        "org_token_mint" => Some(MINT),
        _ => None,
    }
}

/// Each workspace with its parent, from the root down; "alone" is not in the tree.
pub const TREE: &[(&str, &str)] =
    &[("root", ""), ("area", "root"), ("team", "area"), ("leaf", "team")];

/// Nearest first.
pub fn ancestors(workspace: &str) -> &'static [&'static str] {
    match workspace {
        "leaf" => &["team", "area", "root"],
        "team" => &["area", "root"],
        _ => &[],
    }
}

/// Whom a name means, however a backend spells it.
pub fn meant_by(on_behalf_of: &str) -> &'static str {
    match on_behalf_of {
        "bob" => "bob",
        "Carol@corp.example" => "carol",
        _ => "",
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub workspace: &'static str,
    pub action: &'static str,
    pub force: bool,
    pub requester: &'static str,
    pub on_behalf_of: &'static str,
}

impl Operation {
    /// Whether a denial of the one refuses the other.
    pub fn is_denied_with(&self, other: &Self) -> bool {
        let bound = |operation: &Self| (operation.workspace, operation.action, operation.force);
        bound(self) == bound(other)
    }
}

/// The latest approval of an operation, or the one so many before it, if it exists.
#[derive(Clone, Debug)]
pub struct Target {
    pub operation: Operation,
    pub before: usize,
}

/// What an approver says it was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Unsaid,
    This,
    Another,
}

#[derive(Clone, Debug)]
pub enum Command {
    Require { operation: Operation, key: &'static str },
    Decide { on: Target, by: &'static str, decision: Decision, shown: Shown },
    Withdraw { on: Target, by: &'static str },
    Revoke { on: Target, by: &'static str },
    Report { on: Target, by: &'static str, result: OperationResult },
}

/// What a caller is told of an approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    pub approval: usize,
    pub state: ApprovalState,
    pub version: i32,
    /// Who has decided what, in order of name.
    pub verdicts: Vec<String>,
    pub deadline: i64,
    pub recent_denials: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Gate { outcome: Outcome, about: Option<About>, retry_after: Option<i64>, replayed: bool },
    Approval(About),
    Refused { code: Code, reason: String, detail: String },
}

/// An event, as far as it is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub approval: usize,
    pub version: i32,
    pub kind: EventType,
    pub workspace: String,
    pub actor: String,
}
