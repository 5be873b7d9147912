//! `policy.toml`: what a person writes, turned into a [`Policy`] or into every fault at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
};

use jiff::SignedDuration;
use serde::Deserialize;
use toml::Spanned;

use super::{Binding, Policy, Role, Rule, Selector, UnlistedActions};
use crate::names::{Action, Namespace, Principal};

/// The policy of a deployment that names none; it binds nobody.
pub const BUILT_IN: &str = include_str!("built_in.toml");

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    unlisted_actions: Option<UnlistedActions>,
    #[serde(default)]
    defaults: RuleTable,
    actions: Option<BTreeMap<Spanned<String>, RuleTable>>,
    #[serde(default)]
    bindings: Vec<Spanned<BindingTable>>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    description: Option<String>,
    approvals_required: Option<Spanned<i64>>,
    pending_ttl: Option<Spanned<SignedDuration>>,
    approved_ttl: Option<Spanned<SignedDuration>>,
    deny_cooldown: Option<Spanned<SignedDuration>>,
    escalate_after: Option<Spanned<Vec<SignedDuration>>>,
    max_pending: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BindingTable {
    role: Role,
    #[serde(default)]
    principals: Vec<Principal>,
    #[serde(default)]
    groups: Vec<Principal>,
    namespaces: Option<Vec<String>>,
    workspaces: Option<Vec<String>>,
    actions: Option<Vec<String>>,
}

/// Reads a policy, or says everything that is wrong with it.
pub fn parse(text: &str) -> Result<Policy, Vec<Fault>> {
    let built_in: PolicyFile = read(BUILT_IN)?;
    let written: PolicyFile = read(text)?;
    let mut checker = Checker { text, faults: Vec::new() };

    let base = checker.rule(&built_in.defaults, None);
    let defaults = checker.rule(&written.defaults, Some(&base));
    let mut actions = BTreeMap::new();
    let mut lines = BTreeMap::new();
    for (name, table) in &actions_of(&written, &built_in) {
        match Action::parse(name.get_ref()) {
            Ok(action) => {
                if written.actions.as_ref().is_some_and(|listed| listed.contains_key(name)) {
                    lines.insert(action.clone(), line_of(text, name.span().start));
                }
                actions.insert(action, checker.rule(table, Some(&defaults)));
            }
            Err(why) => {
                checker.fault(name.span(), format!("the action {:?} {why}", name.get_ref()))
            }
        }
    }
    // A file that lists actions and does not say what becomes of the others lets none of them through.
    let unlisted = match (written.unlisted_actions, &written.actions, built_in.unlisted_actions) {
        (Some(said), _, _) | (None, None, Some(said)) => said,
        (None, Some(_), _) | (None, None, None) => UnlistedActions::Refuse,
    };
    if unlisted == UnlistedActions::Allow {
        checker.check_that_none_is_forgotten(&actions, &built_in);
    }
    let bindings: Vec<Binding> =
        written.bindings.iter().filter_map(|binding| checker.binding(binding)).collect();
    // A binding that is at fault says nothing yet of whom it binds.
    if bindings.len() == written.bindings.len() {
        for (action, rule) in &actions {
            let line = lines.get(action).copied().unwrap_or(1);
            checker.check_quorum(action.as_str(), line, rule, &bindings, |binding| {
                binding.actions.selects(action)
            });
        }
        if unlisted == UnlistedActions::Gate {
            checker.check_quorum("an unlisted action", 1, &defaults, &bindings, |binding| {
                binding.actions == Selector::all()
            });
        }
    }
    checker.faults.sort_by_key(|fault| fault.line);
    if checker.faults.is_empty() {
        let unexpected = |message| vec![Fault { line: 1, message }];
        return Policy::new(actions, defaults, unlisted, bindings).map_err(unexpected);
    }
    Err(checker.faults)
}

/// The actions that a file lists; those that are built in, where it lists none. A built-in action keeps what the
/// file does not say of it, so that its quorum is not lowered by being left out.
fn actions_of(written: &PolicyFile, built_in: &PolicyFile) -> BTreeMap<Spanned<String>, RuleTable> {
    let own = built_in.actions.clone().unwrap_or_default();
    let Some(mut actions) = written.actions.clone() else { return own };
    for (name, own) in own {
        if let Some(table) = actions.get_mut(&name) {
            table.description = table.description.take().or(own.description);
            table.approvals_required = table.approvals_required.take().or(own.approvals_required);
        }
    }
    actions
}

fn read(text: &str) -> Result<PolicyFile, Vec<Fault>> {
    toml::from_str(text).map_err(|error| {
        let line = line_of(text, error.span().map_or(0, |span| span.start));
        vec![Fault { line, message: error.message().to_owned() }]
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

struct Checker<'a> {
    text: &'a str,
    faults: Vec<Fault>,
}

impl Checker<'_> {
    fn fault(&mut self, span: Range<usize>, message: impl Into<String>) {
        let line = line_of(self.text, span.start);
        self.faults.push(Fault { line, message: message.into() });
    }

    /// The rule of a table, with what it leaves out taken from `base`.
    fn rule(&mut self, table: &RuleTable, base: Option<&Rule>) -> Rule {
        Rule {
            description: table.description.clone().unwrap_or_default(),
            approvals_required: self.count(
                "approvals_required",
                table.approvals_required.as_ref(),
                base.map(|b| b.approvals_required),
            ),
            pending_ttl: self.span_of_time(
                "pending_ttl",
                table.pending_ttl.as_ref(),
                base.map(|b| b.pending_ttl),
                false,
            ),
            approved_ttl: self.span_of_time(
                "approved_ttl",
                table.approved_ttl.as_ref(),
                base.map(|b| b.approved_ttl),
                false,
            ),
            deny_cooldown: self.span_of_time(
                "deny_cooldown",
                table.deny_cooldown.as_ref(),
                base.map(|b| b.deny_cooldown),
                true,
            ),
            escalate_after: self.steps(table.escalate_after.as_ref(), base),
            max_pending: self.count(
                "max_pending",
                table.max_pending.as_ref(),
                base.map(|b| b.max_pending),
            ),
        }
    }

    fn count(&mut self, key: &str, written: Option<&Spanned<i64>>, base: Option<u32>) -> u32 {
        let Some(written) = written else {
            return base.unwrap_or(1);
        };
        match u32::try_from(*written.get_ref()) {
            Ok(count) if (1..=10_000).contains(&count) => count,
            _ => {
                self.fault(written.span(), format!("{key} must be between 1 and 10000"));
                base.unwrap_or(1)
            }
        }
    }

    fn span_of_time(
        &mut self,
        key: &str,
        written: Option<&Spanned<SignedDuration>>,
        base: Option<SignedDuration>,
        zero_is_allowed: bool,
    ) -> SignedDuration {
        let Some(written) = written else {
            return base.unwrap_or(SignedDuration::ZERO);
        };
        let duration = *written.get_ref();
        let least = SignedDuration::from_secs(if zero_is_allowed { 0 } else { 1 });
        if duration < least || duration > SignedDuration::from_hours(24 * 366) {
            self.fault(written.span(), format!("{key} must be between {least} and a year"));
        }
        duration
    }

    fn steps(
        &mut self,
        written: Option<&Spanned<Vec<SignedDuration>>>,
        base: Option<&Rule>,
    ) -> Vec<SignedDuration> {
        let Some(written) = written else {
            return base.map(|b| b.escalate_after.clone()).unwrap_or_default();
        };
        let steps = written.get_ref();
        let rising = steps.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || steps.iter().any(|step| !step.is_positive()) || steps.len() > 16 {
            self.fault(written.span(), "escalate_after must be at most 16 rising, positive times");
        }
        steps.clone()
    }

    fn binding(&mut self, written: &Spanned<BindingTable>) -> Option<Binding> {
        let table = written.get_ref();
        let before = self.faults.len();
        if table.principals.is_empty() && table.groups.is_empty() {
            self.fault(written.span(), "a binding needs principals or groups");
        }
        if table.actions.is_some() && table.role != Role::Approver {
            self.fault(written.span(), "only an approver's binding is narrowed by actions");
        }
        let namespaces = match &table.namespaces {
            None => Selector::Some(vec![Namespace::default_namespace()]),
            Some(names) => self.selector(written.span(), "namespaces", names, Namespace::parse),
        };
        let workspaces = match &table.workspaces {
            None => {
                self.fault(written.span(), "a binding needs workspaces; [\"*\"] stands for all");
                Selector::Some(Vec::new())
            }
            Some(names) => self.selector(written.span(), "workspaces", names, |name| {
                crate::names::WorkspaceId::parse(name)
            }),
        };
        let actions = match (&table.actions, table.role) {
            (Some(names), _) => self.selector(written.span(), "actions", names, Action::parse),
            (None, Role::Approver) => {
                let message = "an approver's binding needs actions; [\"*\"] stands for all";
                self.fault(written.span(), message);
                Selector::Some(Vec::new())
            }
            (None, Role::Requester | Role::Viewer | Role::Admin) => Selector::all(),
        };
        (self.faults.len() == before).then(|| Binding {
            role: table.role,
            principals: table.principals.clone(),
            groups: table.groups.clone(),
            namespaces,
            workspaces,
            actions,
        })
    }

    fn selector<T: PartialEq>(
        &mut self,
        span: Range<usize>,
        key: &str,
        names: &[String],
        parse: impl Fn(String) -> Result<T, String>,
    ) -> Selector<T> {
        if names == ["*"] {
            return Selector::all();
        }
        if names.iter().any(|name| name == "*") {
            self.fault(span.clone(), format!("{key}: \"*\" stands for all and so stands alone"));
        }
        if names.is_empty() {
            self.fault(span.clone(), format!("{key} must name something; [\"*\"] stands for all"));
        }
        let mut parsed = Vec::new();
        for name in names.iter().filter(|name| *name != "*") {
            match parse(name.clone()) {
                Ok(name) => parsed.push(name),
                Err(why) => self.fault(span.clone(), format!("{key}: {name:?} {why}")),
            }
        }
        Selector::Some(parsed)
    }

    /// An action as destructive as those that are built in is not let through by being left out.
    fn check_that_none_is_forgotten(
        &mut self,
        actions: &BTreeMap<Action, Rule>,
        built_in: &PolicyFile,
    ) {
        for name in built_in.actions.iter().flat_map(BTreeMap::keys) {
            let name = name.get_ref();
            if !actions.keys().any(|action| action.as_str() == name) {
                let message = format!(
                    "{name} is built in and would not be gated: list it, or say what happens to \
                     unlisted actions: \"gate\" or \"refuse\""
                );
                self.faults.push(Fault { line: 1, message });
            }
        }
    }

    /// A policy nobody could satisfy: more approvers required than the bindings name, where they name people
    /// only. A group may have any number of members.
    fn check_quorum(
        &mut self,
        what: &str,
        line: usize,
        rule: &Rule,
        bindings: &[Binding],
        for_it: impl Fn(&Binding) -> bool,
    ) {
        let mut approving =
            bindings.iter().filter(|binding| binding.role == Role::Approver).peekable();
        if approving.peek().is_none() {
            return;
        }
        let able: Vec<&Binding> = approving.filter(|binding| for_it(binding)).collect();
        if able.iter().any(|binding| !binding.groups.is_empty()) {
            return;
        }
        let people: BTreeSet<&Principal> = able.iter().flat_map(|b| &b.principals).collect();
        if people.len() < rule.approvals_required as usize {
            let message = format!(
                "{what} requires {} approvers and the bindings name {}",
                rule.approvals_required,
                people.len()
            );
            self.faults.push(Fault { line, message });
        }
    }
}

#[cfg(test)]
mod tests;
