//! `policy.toml`: what a person writes, turned into a [`Policy`] or into every fault at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use jiff::SignedDuration;
use toml::Spanned;

use self::written::{BindingTable, PolicyFile, RuleTable};
use super::{Binding, Policy, Role, Rule, Selector, UnlistedActions};
use crate::{
    document::{self, Fault, Faults, Section},
    names::{Action, Namespace, Principal, WorkspaceId},
};

mod written;

/// The policy of a deployment that names none; it binds nobody.
pub const BUILT_IN: &str = include_str!("built_in.toml");

/// Reads a policy, or says everything that is wrong with it.
pub fn parse(text: &str) -> Result<Policy, Vec<Fault>> {
    let (built_in, _) = document::read(BUILT_IN, PolicyFile::read)?;
    let (written, faults) = document::read(text, PolicyFile::read)?;
    let mut checker = Checker { faults };

    let base = checker.rule(&built_in.defaults, None);
    let defaults = checker.rule(&written.defaults, Some(&base));
    let mut actions = BTreeMap::new();
    let mut places = BTreeMap::new();
    for (name, table) in &actions_of(&written, &built_in) {
        match Action::parse(name.get_ref()) {
            Ok(action) => {
                if written.actions.is_some() {
                    places.insert(action.clone(), name.span());
                }
                actions.insert(action, checker.rule(table, Some(&defaults)));
            }
            Err(why) => {
                checker.faults.add(name.span(), format!("the action {:?} {why}", name.get_ref()))
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
            let place = places.get(action).cloned().unwrap_or_default();
            checker.check_quorum(action.as_str(), place, rule, &bindings, |binding| {
                binding.actions.selects(action)
            });
        }
        if unlisted == UnlistedActions::Gate {
            checker.check_quorum("an unlisted action", 0..0, &defaults, &bindings, |binding| {
                binding.actions == Selector::all()
            });
        }
    }
    let policy = Policy::new(actions, defaults, unlisted, bindings);
    checker.faults.or(())?;
    policy.map_err(|why| vec![Fault { line: 1, message: why }])
}

/// The actions that a file lists; those that are built in, where it lists none. A built-in action keeps what the
/// file does not say of it, so that its quorum is not lowered by being left out.
fn actions_of(written: &PolicyFile, built_in: &PolicyFile) -> Vec<(Spanned<String>, RuleTable)> {
    let mut own = built_in.actions.clone().unwrap_or_default();
    let asked = written.defaults.approvals_required.as_ref().map(|count| *count.get_ref());
    for (_, table) in &mut own {
        // Nor is it lowered by being built in, where the file asks for more of every action.
        let quorum = table.approvals_required.take();
        table.approvals_required = quorum.filter(|own| asked <= Some(*own.get_ref()));
    }
    let Some(mut actions) = written.actions.clone() else { return own };
    for (name, own) in own {
        if let Some((_, table)) = actions.iter_mut().find(|(listed, _)| *listed == name) {
            table.description = table.description.take().or(own.description);
            table.approvals_required = table.approvals_required.take().or(own.approvals_required);
        }
    }
    actions
}

struct Checker<'t> {
    faults: Faults<'t>,
}

impl Checker<'_> {
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
                self.faults.add(written.span(), format!("{key} must be between 1 and 10000"));
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
            self.faults.add(written.span(), format!("{key} must be between {least:#} and a year"));
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
            self.faults
                .add(written.span(), "escalate_after must be at most 16 rising, positive times");
        }
        steps.clone()
    }

    fn binding(&mut self, written: &Section<BindingTable>) -> Option<Binding> {
        let (table, span) = (&written.value, &written.span);
        let before = self.faults.count();
        // What a table seems to leave out may be what it misspells.
        let lacks = |checker: &mut Self, what: &str| {
            if written.understood {
                checker.faults.add(span.clone(), what);
            }
        };
        if table.role.is_none() {
            lacks(self, "a binding needs a role");
        }
        if table.principals.is_empty() && table.groups.is_empty() {
            lacks(self, "a binding needs principals or groups");
        }
        let namespaces = match &table.namespaces {
            None => Selector::Some(vec![Namespace::default_namespace()]),
            Some(names) => self.selector(span, "namespaces", names, Namespace::parse),
        };
        let workspaces = match &table.workspaces {
            None => {
                lacks(self, "a binding needs workspaces; [\"*\"] stands for all");
                Selector::Some(Vec::new())
            }
            Some(names) => self.selector(span, "workspaces", names, WorkspaceId::parse),
        };
        let actions = match (&table.actions, table.role) {
            (Some(names), role) => {
                if role.is_some_and(|role| role != Role::Approver) {
                    let message = "only an approver's binding is narrowed by actions";
                    self.faults.add(span.clone(), message);
                }
                self.selector(span, "actions", names, Action::parse)
            }
            (None, Some(Role::Approver)) => {
                lacks(self, "an approver's binding needs actions; [\"*\"] stands for all");
                Selector::Some(Vec::new())
            }
            (None, Some(Role::Requester | Role::Viewer | Role::Admin) | None) => Selector::all(),
        };
        let good = written.understood && self.faults.count() == before;
        good.then_some(Binding {
            role: table.role?,
            principals: table.principals.clone(),
            groups: table.groups.clone(),
            namespaces,
            workspaces,
            actions,
        })
    }

    fn selector<T: PartialEq>(
        &mut self,
        span: &Range<usize>,
        key: &str,
        names: &[String],
        parse: impl Fn(String) -> Result<T, String>,
    ) -> Selector<T> {
        if names == ["*"] {
            return Selector::all();
        }
        if names.iter().any(|name| name == "*") {
            self.faults
                .add(span.clone(), format!("{key}: \"*\" stands for all and so stands alone"));
        }
        if names.is_empty() {
            self.faults
                .add(span.clone(), format!("{key} must name something; [\"*\"] stands for all"));
        }
        let mut parsed = Vec::new();
        for name in names.iter().filter(|name| *name != "*") {
            match parse(name.clone()) {
                Ok(name) => parsed.push(name),
                Err(why) => {
                    self.faults.add(span.clone(), format!("{key}: {name:?} {why}"));
                }
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
        for (name, _) in built_in.actions.iter().flatten() {
            let name = name.get_ref();
            if !actions.keys().any(|action| action.as_str() == name) {
                let message = format!(
                    "{name} is built in and would not be gated: list it, or say what happens to \
                     unlisted actions: \"gate\" or \"refuse\""
                );
                self.faults.add_to_whole(message);
            }
        }
    }

    /// A policy nobody could satisfy: more approvers required than the bindings name, where they name people
    /// only. A group may have any number of members.
    fn check_quorum(
        &mut self,
        what: &str,
        place: Range<usize>,
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
            self.faults.add(place, message);
        }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
