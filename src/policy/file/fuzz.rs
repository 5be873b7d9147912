use proptest::prelude::*;
use toml::{Table, Value};

use super::*;
use crate::fuzz::{can_be_shown, few_slips, run, spoilt_text, toml_table};

/// Keys, each with what is good for it.
type Known = &'static [(&'static str, &'static [&'static str])];

const RULE: Known = &[
    ("description", &["\"What it does\""]),
    ("approvals_required", &["1", "1", "2", "2", "3", "0"]),
    ("pending_ttl", &["\"24h\"", "\"1s\""]),
    ("approved_ttl", &["\"1h\""]),
    ("deny_cooldown", &["\"15m\"", "\"0s\""]),
    ("escalate_after", &["[]", "[\"1h\", \"4h\"]"]),
    ("max_pending", &["1", "100", "10000"]),
];

const BINDING: Known = &[
    ("role", &["\"approver\"", "\"approver\"", "\"requester\"", "\"viewer\"", "\"admin\""]),
    ("principals", &["[\"tokens:a\"]", "[\"tokens:a\", \"tokens:b\", \"mtls:c\"]"]),
    ("groups", &["[\"corp:g\"]"]),
    ("namespaces", &["[\"*\"]", "[\"acme\"]"]),
    ("workspaces", &["[\"*\"]", "[\"w1\", \"w2\"]"]),
    ("actions", &["[\"*\"]", "[\"secret_write\"]", "[\"secret_write\", \"x\"]"]),
];

const TOP: Known = &[("unlisted_actions", &["\"allow\"", "\"gate\"", "\"refuse\""])];

fn policies() -> impl Strategy<Value = String> {
    let names = ["delete_workspace", "org_token_mint", "x", "\"a b\"", "a.b"];
    let actions = (proptest::sample::select(names.to_vec()), toml_table(RULE));
    let actions = proptest::collection::vec(actions, 0..3);
    let bindings = proptest::collection::vec(toml_table(BINDING), 0..4);
    (toml_table(TOP), proptest::option::of(toml_table(RULE)), actions, bindings, any::<bool>()).prop_map(
        |(top, defaults, actions, bindings, built_in)| {
            let mut text = top;
            if let Some(defaults) = defaults {
                text += &format!("[defaults]\n{defaults}");
            }
            for (name, rule) in actions {
                text += &format!("[actions.{name}]\n{rule}");
            }
            for binding in bindings {
                text += &format!("[[bindings]]\n{binding}");
            }
            // A good one, for slips alone to spoil.
            if built_in { format!("{BUILT_IN}\n[[bindings]]\nrole = \"viewer\"\ngroups = [\"corp:g\"]\nworkspaces = [\"*\"]\n") } else { text }
        },
    )
}

fn keys_are_known(table: Option<&Value>, known: Known) -> Result<(), TestCaseError> {
    for key in table.and_then(Value::as_table).into_iter().flat_map(Table::keys) {
        prop_assert!(known.iter().any(|(name, _)| name == key), "{} is no key", key);
    }
    Ok(())
}

fn rule_makes_sense(
    rule: &Rule,
    written: Option<&Value>,
    base: &Rule,
) -> Result<(), TestCaseError> {
    prop_assert!((1..=10_000).contains(&rule.approvals_required), "{:?}", rule);
    prop_assert!((1..=10_000).contains(&rule.max_pending), "{:?}", rule);
    let second = SignedDuration::from_secs(1);
    prop_assert!(rule.pending_ttl >= second && rule.approved_ttl >= second, "{:?}", rule);
    prop_assert!(!rule.deny_cooldown.is_negative(), "{:?}", rule);
    prop_assert!(rule.escalate_after.is_sorted(), "{:?}", rule);
    match written.and_then(|rule| rule.get("approvals_required")) {
        Some(asked) => prop_assert_eq!(asked.as_integer(), Some(rule.approvals_required.into())),
        None => prop_assert!(rule.approvals_required >= base.approvals_required, "{:?}", rule),
    }
    Ok(())
}

/// What a selector comes to, by what stands in the file.
fn selects<T: PartialEq + std::fmt::Debug>(
    selector: &Selector<T>,
    written: Option<&Value>,
    unset: Selector<T>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<(), TestCaseError> {
    let expected = match written.and_then(Value::as_array) {
        None => unset,
        Some(names) if *names == [Value::from("*")] => Selector::all(),
        Some(names) => {
            prop_assert!(!names.is_empty(), "a selector of nothing");
            let names = names.iter().map(|name| parse(name.as_str().unwrap_or_default()));
            Selector::Some(names.collect::<Result<_, _>>().map_err(TestCaseError::fail)?)
        }
    };
    prop_assert_eq!(selector, &expected);
    Ok(())
}

/// A binding holds for those who are written there, and nowhere else.
fn binding_is_as_written(binding: &Binding, written: &Value) -> Result<(), TestCaseError> {
    keys_are_known(Some(written), BINDING)?;
    let Binding { role, principals, groups, namespaces, workspaces, actions } = binding;
    prop_assert_eq!(written.get("role").and_then(Value::as_str), Some(role.as_str()));
    for (bound, key) in [(principals, "principals"), (groups, "groups")] {
        let names = written.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let bound: Vec<Value> = bound.iter().map(|one| one.as_str().into()).collect();
        prop_assert_eq!(bound, names);
    }
    prop_assert!(!principals.is_empty() || !groups.is_empty());
    let default = || Selector::Some(vec![Namespace::default_namespace()]);
    selects(namespaces, written.get("namespaces"), default(), |name| Namespace::parse(name))?;
    prop_assert!(written.get("workspaces").is_some());
    selects(workspaces, written.get("workspaces"), Selector::all(), |name| {
        WorkspaceId::parse(name)
    })?;
    prop_assert!(*role == Role::Approver || written.get("actions").is_none());
    prop_assert!(*role != Role::Approver || written.get("actions").is_some());
    selects(actions, written.get("actions"), Selector::all(), |name| Action::parse(name))
}

#[test]
fn a_policy_says_what_stands_there_or_is_refused() {
    let built_in = parse(BUILT_IN).unwrap();
    run("policies", &["in force", "refused"], (policies(), few_slips()), |(text, slips)| {
        let text = spoilt_text(&text, &slips);
        let policy = match parse(&text) {
            Ok(policy) => policy,
            Err(faults) => {
                prop_assert!(!faults.is_empty());
                for fault in faults {
                    prop_assert!((1..=text.lines().count().max(1) + 1).contains(&fault.line));
                    can_be_shown(&fault.to_string().chars().take(500).collect::<String>())?;
                }
                return Ok("refused");
            }
        };
        let written =
            Value::Table(text.parse().map_err(|error| TestCaseError::fail(format!("{error}")))?);
        for key in written.as_table().into_iter().flat_map(Table::keys) {
            let known = ["unlisted_actions", "defaults", "actions", "bindings"];
            prop_assert!(known.contains(&key.as_str()), "{} is no key", key);
        }
        keys_are_known(written.get("defaults"), RULE)?;
        rule_makes_sense(policy.defaults(), written.get("defaults"), built_in.defaults())?;
        for (name, rule) in policy.actions() {
            let written = written.get("actions").and_then(|actions| actions.get(name.as_str()));
            keys_are_known(written, RULE)?;
            let base = built_in.actions().get(name).unwrap_or(policy.defaults());
            rule_makes_sense(rule, written, base)?;
        }
        if policy.unlisted_actions() == UnlistedActions::Allow {
            let all = built_in.actions().keys().all(|name| policy.actions().contains_key(name));
            prop_assert!(all, "an action that is built in is let through");
        }
        let none = Vec::new();
        let bindings = written.get("bindings").and_then(Value::as_array).unwrap_or(&none);
        prop_assert_eq!(policy.bindings().len(), bindings.len());
        for (binding, written) in policy.bindings().iter().zip(bindings) {
            binding_is_as_written(binding, written)?;
        }
        prop_assert_eq!(parse(&text), Ok(policy), "and always says the same");
        Ok("in force")
    });
}

/// Text that goes deeper than anybody writes does not take the process down.
#[test]
fn depth_is_refused_or_taken_and_survived() {
    let open = proptest::sample::select(vec!["[", "{a=", "a.", "[a.", "a.b.", "\"\".", "[["]);
    let cases = (open, prop_oneof![30 => 0..500usize, 1 => 0..4_000usize], any::<bool>());
    run("deep policies", &["refused"], cases, |(open, times, close)| {
        let key = if open.starts_with(['[', '{']) { "unlisted_actions = " } else { "" };
        let end = if close { "x = 1" } else { "" };
        Ok(if parse(&format!("{key}{}{end}", open.repeat(times))).is_ok() {
            "in force"
        } else {
            "refused"
        })
    });
}
