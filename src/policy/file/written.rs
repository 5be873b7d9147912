//! What stands in a `policy.toml`: its tables and keys and their types. What is missing, and whether it makes
//! sense, is the checker's to say.

use jiff::SignedDuration;
use toml::Spanned;

use super::super::{Role, UnlistedActions};
use crate::{
    document::{Keys, Section},
    duration::Written,
    names::Principal,
};

pub(super) struct PolicyFile {
    pub(super) unlisted_actions: Option<UnlistedActions>,
    pub(super) defaults: RuleTable,
    pub(super) actions: Option<Vec<(Spanned<String>, RuleTable)>>,
    pub(super) bindings: Vec<Section<BindingTable>>,
}

#[derive(Clone, Default)]
pub(super) struct RuleTable {
    pub(super) description: Option<String>,
    pub(super) approvals_required: Option<Spanned<i64>>,
    pub(super) pending_ttl: Option<Spanned<SignedDuration>>,
    pub(super) approved_ttl: Option<Spanned<SignedDuration>>,
    pub(super) deny_cooldown: Option<Spanned<SignedDuration>>,
    pub(super) escalate_after: Option<Spanned<Vec<SignedDuration>>>,
    pub(super) max_pending: Option<Spanned<i64>>,
}

pub(super) struct BindingTable {
    pub(super) role: Option<Role>,
    pub(super) principals: Vec<Principal>,
    pub(super) groups: Vec<Principal>,
    pub(super) namespaces: Option<Vec<String>>,
    pub(super) workspaces: Option<Vec<String>>,
    pub(super) actions: Option<Vec<String>>,
}

impl PolicyFile {
    pub(super) fn read(keys: &mut Keys) -> Self {
        Self {
            unlisted_actions: keys.value("unlisted_actions").map(Spanned::into_inner),
            defaults: keys.table("defaults", RuleTable::read).unwrap_or_default(),
            actions: keys.named("actions", RuleTable::read),
            bindings: keys.tables("bindings", BindingTable::read),
        }
    }
}

impl RuleTable {
    fn read(keys: &mut Keys) -> Self {
        Self {
            description: keys.value("description").map(Spanned::into_inner),
            approvals_required: keys.value("approvals_required"),
            pending_ttl: duration(keys, "pending_ttl"),
            approved_ttl: duration(keys, "approved_ttl"),
            deny_cooldown: duration(keys, "deny_cooldown"),
            escalate_after: keys.list("escalate_after").map(|steps| {
                let durations = steps.get_ref().iter().map(|Written(step)| *step).collect();
                Spanned::new(steps.span(), durations)
            }),
            max_pending: keys.value("max_pending"),
        }
    }
}

fn duration(keys: &mut Keys, key: &'static str) -> Option<Spanned<SignedDuration>> {
    let written: Spanned<Written> = keys.value(key)?;
    Some(Spanned::new(written.span(), written.get_ref().0))
}

impl BindingTable {
    fn read(keys: &mut Keys) -> Self {
        Self {
            role: keys.value("role").map(Spanned::into_inner),
            principals: keys.list("principals").map(Spanned::into_inner).unwrap_or_default(),
            groups: keys.list("groups").map(Spanned::into_inner).unwrap_or_default(),
            namespaces: keys.list("namespaces").map(Spanned::into_inner),
            workspaces: keys.list("workspaces").map(Spanned::into_inner),
            actions: keys.list("actions").map(Spanned::into_inner),
        }
    }
}
