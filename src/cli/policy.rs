//! `policy check`: what a policy puts in force, for people and auditors.

use std::{fmt, io::Write, path::Path};

use anyhow::Result;
use jiff::SignedDuration;

use super::{files, table::Table};
use crate::policy::{Binding, Policy, Role, Rule, Selector, file};

/// For what there is none of.
const NONE: &str = "-";

pub(super) fn check(file: &Path) -> Result<()> {
    let policy = files::read(file, file::parse)?;
    Ok(std::io::stdout().write_all(describe(&policy).as_bytes())?)
}

fn describe(policy: &Policy) -> String {
    let mut rules = Table::new([
        "ACTION",
        "APPROVALS",
        "PENDING_TTL",
        "APPROVED_TTL",
        "DENY_COOLDOWN",
        "ESCALATE_AFTER",
        "MAX_PENDING",
        "DESCRIPTION",
    ]);
    for (action, rule) in policy.actions() {
        rules.row(rule_row(action.as_str(), rule));
    }
    // No action is called that.
    rules.row(rule_row("(defaults)", policy.defaults()));

    let mut bindings =
        Table::new(["ROLE", "PRINCIPALS", "GROUPS", "NAMESPACES", "WORKSPACES", "ACTIONS"]);
    for binding in policy.bindings() {
        bindings.row(binding_row(binding));
    }
    let holds = |role: Role| policy.bindings().iter().any(|binding| binding.role == role);
    let bindings = match policy.bindings() {
        [] => "no bindings: nobody holds a role\n".to_owned(),
        _ if holds(Role::Requester) && !holds(Role::Approver) => {
            format!("{bindings}\nno approver: what is asked for waits until it lapses\n")
        }
        _ => bindings.to_string(),
    };
    let (digest, unlisted) = (policy.digest(), policy.unlisted_actions().as_str());
    format!("digest            {digest}\nunlisted actions  {unlisted}\n\n{rules}\n{bindings}")
}

fn rule_row(name: &str, rule: &Rule) -> [String; 8] {
    [
        name.to_owned(),
        rule.approvals_required.to_string(),
        duration(&rule.pending_ttl),
        duration(&rule.approved_ttl),
        duration(&rule.deny_cooldown),
        list(rule.escalate_after.iter().map(duration)),
        rule.max_pending.to_string(),
        rule.description.clone(),
    ]
}

fn binding_row(binding: &Binding) -> [String; 6] {
    [
        binding.role.as_str().to_owned(),
        list(binding.principals.iter().map(name)),
        list(binding.groups.iter().map(name)),
        selector(&binding.namespaces),
        selector(&binding.workspaces),
        match binding.role {
            Role::Approver => selector(&binding.actions),
            Role::Requester | Role::Viewer | Role::Admin => NONE.to_owned(),
        },
    ]
}

/// As in the file.
fn duration(duration: &SignedDuration) -> String {
    format!("{duration:#}")
}

fn selector<T: fmt::Display>(selector: &Selector<T>) -> String {
    match selector {
        Selector::All(_) => "*".to_owned(),
        Selector::Some(names) => list(names.iter().map(name)),
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() { NONE.to_owned() } else { items.join(", ") }
}

/// In quotes where it could be taken for something else: for two names, or for none.
fn name(name: &impl fmt::Display) -> String {
    let name = name.to_string();
    let plain = |c: char| !c.is_whitespace() && !matches!(c, ',' | '"');
    if name.chars().all(plain) && name != NONE { name } else { format!("{name:?}") }
}
