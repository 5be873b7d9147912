//! The policy: which actions are gated, how, and who holds which role. The one map that an auditor reads.

use std::{collections::BTreeMap, sync::Arc};

use jiff::SignedDuration;
use serde::Serialize;

use crate::{
    approval::Terms,
    digest::{canonical, sha256_hex},
    error::Error,
    names::{Action, Namespace, Principal, WorkspaceId},
};

pub mod file;

/// How an action is gated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// What the action does, for people.
    pub description: String,
    /// Distinct approvers needed; at least 1.
    pub approvals_required: u32,
    /// How long a request may wait for approvers.
    pub pending_ttl: SignedDuration,
    /// How long an approval may wait to be consumed.
    pub approved_ttl: SignedDuration,
    /// How long after a denial the same operation is refused without asking.
    pub deny_cooldown: SignedDuration,
    /// When a request still pending is brought before the next ancestor, counted from its creation.
    pub escalate_after: Vec<SignedDuration>,
    /// Pending approvals allowed at once per workspace.
    pub max_pending: u32,
}

/// What happens to an action that the policy does not list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnlistedActions {
    /// It is not gated.
    Allow,
    /// It is gated under the defaults.
    Gate,
    /// It is refused.
    Refuse,
}

impl UnlistedActions {
    /// The word for it in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Gate => "gate",
            Self::Refuse => "refuse",
        }
    }
}

/// What a caller may be allowed to do; the calls each role opens are in `auth::permissions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Asks, takes back, reports.
    Requester,
    /// Decides, revokes, reads.
    Approver,
    /// Reads.
    Viewer,
    /// Keeps the tree of workspaces, reads.
    Admin,
}

impl Role {
    /// The word for it in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requester => "requester",
            Self::Approver => "approver",
            Self::Viewer => "viewer",
            Self::Admin => "admin",
        }
    }
}

/// Some names, or all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Selector<T> {
    /// `*`
    All(Star),
    /// These.
    Some(Vec<T>),
}

/// The word `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Star {
    /// Everything.
    #[serde(rename = "*")]
    Star,
}

impl<T: PartialEq> Selector<T> {
    /// Everything.
    pub fn all() -> Self {
        Self::All(Star::Star)
    }

    /// Whether this name is selected.
    pub fn selects(&self, name: &T) -> bool {
        match self {
            Self::All(_) => true,
            Self::Some(names) => names.contains(name),
        }
    }
}

/// Grants a role to some, in some places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// The role.
    pub role: Role,
    /// To these.
    pub principals: Vec<Principal>,
    /// And to the members of these groups, `<authenticator>:<group>`.
    pub groups: Vec<Principal>,
    /// In these organisations.
    pub namespaces: Selector<Namespace>,
    /// For these workspaces and all below them.
    pub workspaces: Selector<WorkspaceId>,
    /// For approvers: for these actions.
    pub actions: Selector<Action>,
}

/// What the policy says of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gating {
    /// It needs an approval on these terms.
    Gated(Terms),
    /// It needs none.
    NotGated,
}

/// A policy, whole and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    actions: BTreeMap<Action, Rule>,
    defaults: Rule,
    unlisted_actions: UnlistedActions,
    bindings: Vec<Binding>,
    digest: Arc<str>,
}

impl Policy {
    /// Puts a policy together; [`file::parse`] checks one that a person wrote.
    fn new(
        actions: BTreeMap<Action, Rule>,
        defaults: Rule,
        unlisted_actions: UnlistedActions,
        bindings: Vec<Binding>,
    ) -> Result<Self, String> {
        let everything = serde_json::json!({
            "actions": &actions,
            "bindings": &bindings,
            "defaults": &defaults,
            "unlisted_actions": unlisted_actions,
        });
        let digest = sha256_hex(canonical(&everything)?).into();
        Ok(Self { actions, defaults, unlisted_actions, bindings, digest })
    }

    /// SHA-256 (hex) of the policy in canonical form: equal on all replicas that agree.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The gated actions, by name.
    pub fn actions(&self) -> &BTreeMap<Action, Rule> {
        &self.actions
    }

    /// What a rule that does not say otherwise says, and the rule for actions that are gated unlisted.
    pub fn defaults(&self) -> &Rule {
        &self.defaults
    }

    /// What happens to the others.
    pub fn unlisted_actions(&self) -> UnlistedActions {
        self.unlisted_actions
    }

    /// Who holds which role.
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// Whether and how an action is gated. An error where the policy refuses actions it does not list.
    pub fn gating(&self, action: &Action) -> Result<Gating, Error> {
        match (self.actions.get(action), self.unlisted_actions) {
            (Some(rule), _) => Ok(Gating::Gated(self.terms(rule))),
            (None, UnlistedActions::Gate) => Ok(Gating::Gated(self.terms(&self.defaults))),
            (None, UnlistedActions::Allow) => Ok(Gating::NotGated),
            (None, UnlistedActions::Refuse) => Err(Error::ActionUnknown),
        }
    }

    fn terms(&self, rule: &Rule) -> Terms {
        Terms {
            approvals_required: rule.approvals_required,
            pending_ttl: rule.pending_ttl,
            approved_ttl: rule.approved_ttl,
            deny_cooldown: rule.deny_cooldown,
            escalate_after: rule.escalate_after.as_slice().into(),
            max_pending: rule.max_pending,
            policy_digest: self.digest.clone(),
        }
    }
}
