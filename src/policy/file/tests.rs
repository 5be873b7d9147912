use std::collections::HashSet;

use super::*;
use crate::{
    error::Error,
    names::WorkspaceId,
    policy::{Gating, Star},
};

mod faults;

/// A policy that says everything there is to say.
const WHOLE: &str = r#"
unlisted_actions = "refuse"

[defaults]
approvals_required = 1
pending_ttl = "24h"
approved_ttl = "1h"
deny_cooldown = "15m"
escalate_after = ["1h", "4h"]
max_pending = 100

[actions.deploy]
description = "Puts a release into production"
approvals_required = 2
pending_ttl = "2h"
approved_ttl = "10m"
deny_cooldown = "0s"
escalate_after = []
max_pending = 5

[[bindings]]
role = "requester"
principals = ["tokens:backend"]
namespaces = ["*"]
workspaces = ["*"]

[[bindings]]
role = "approver"
principals = ["corp:alice", "corp:bob"]
groups = ["corp:admins"]
namespaces = ["acme", "default"]
workspaces = ["ws-1", "ws-2"]
actions = ["deploy"]
"#;

fn policy(text: &str) -> Policy {
    match parse(text) {
        Ok(policy) => policy,
        Err(faults) => panic!("{faults:?}"),
    }
}

fn action(name: &str) -> Action {
    Action::parse(name).unwrap()
}

fn rule(text: &str, name: &str) -> Rule {
    policy(text).actions()[&action(name)].clone()
}

/// A policy of one binding, which begins on line 2, with these lines in it.
fn binding(lines: &[&str]) -> String {
    format!("\n[[bindings]]\n{}\n", lines.join("\n"))
}

#[test]
fn the_built_in_policy_gates_four_actions() {
    let built_in = policy(BUILT_IN);
    let names: Vec<&str> = built_in.actions().keys().map(Action::as_str).collect();
    let expected = ["delete_workspace", "deprovision_workspace", "org_token_mint", "secret_write"];
    assert_eq!(names, expected);
    assert_eq!(built_in.unlisted_actions(), UnlistedActions::Allow);
}

#[test]
fn the_built_in_policy_wants_two_approvers_for_a_token_and_one_for_the_rest() {
    for (name, rule) in policy(BUILT_IN).actions() {
        let expected = if name.as_str() == "org_token_mint" { 2 } else { 1 };
        assert_eq!(rule.approvals_required, expected, "{name}");
    }
}

#[test]
fn the_built_in_policy_describes_its_actions() {
    for (name, rule) in policy(BUILT_IN).actions() {
        assert!(!rule.description.is_empty(), "{name}");
    }
}

#[test]
fn the_built_in_policy_binds_nobody() {
    assert_eq!(policy(BUILT_IN).bindings(), []);
}

#[test]
fn an_empty_file_is_the_built_in_policy() {
    assert_eq!(policy(""), policy(BUILT_IN));
}

#[test]
fn actions_that_are_listed_replace_those_built_in() {
    let own = policy("[actions.deploy]\n");
    assert_eq!(own.actions().keys().collect::<Vec<_>>(), [&action("deploy")]);
}

#[test]
fn a_rule_takes_what_it_leaves_out_from_the_defaults() {
    let text = "[defaults]\napprovals_required = 3\n[actions.deploy]\npending_ttl = \"2h\"\n";
    let deploy = rule(text, "deploy");
    assert_eq!(deploy.approvals_required, 3);
    assert_eq!(deploy.pending_ttl, SignedDuration::from_hours(2));
    assert_eq!(deploy.approved_ttl, SignedDuration::from_hours(1));
    let hours = [1, 4].map(SignedDuration::from_hours);
    assert_eq!(deploy.escalate_after, hours);
}

#[test]
fn a_rule_says_what_it_says_itself() {
    let expected = Rule {
        description: "Puts a release into production".to_owned(),
        approvals_required: 2,
        pending_ttl: SignedDuration::from_hours(2),
        approved_ttl: SignedDuration::from_mins(10),
        deny_cooldown: SignedDuration::ZERO,
        escalate_after: Vec::new(),
        max_pending: 5,
    };
    assert_eq!(rule(WHOLE, "deploy"), expected);
}

#[test]
fn a_binding_says_what_it_says_itself() {
    let expected = Binding {
        role: Role::Approver,
        principals: ["corp:alice", "corp:bob"].map(|p| Principal::parse(p).unwrap()).into(),
        groups: vec![Principal::parse("corp:admins").unwrap()],
        namespaces: Selector::Some(
            ["acme", "default"].map(|n| Namespace::parse(n).unwrap()).into(),
        ),
        workspaces: Selector::Some(["ws-1", "ws-2"].map(|w| WorkspaceId::parse(w).unwrap()).into()),
        actions: Selector::Some(vec![action("deploy")]),
    };
    assert_eq!(policy(WHOLE).bindings()[1], expected);
}

#[test]
fn a_star_stands_for_everything() {
    let whole = policy(WHOLE);
    let requester = &whole.bindings()[0];
    assert_eq!(requester.namespaces, Selector::All(Star::Star));
    assert_eq!(requester.workspaces, Selector::All(Star::Star));
}

#[test]
fn a_binding_without_namespaces_is_for_the_default_one() {
    let text =
        binding(&[r#"role = "viewer""#, r#"groups = ["corp:all"]"#, r#"workspaces = ["*"]"#]);
    let namespaces = policy(&text).bindings()[0].namespaces.clone();
    assert_eq!(namespaces, Selector::Some(vec![Namespace::default_namespace()]));
    assert!(!namespaces.selects(&Namespace::parse("acme").unwrap()));
}

#[test]
fn an_unlisted_action_is_treated_as_the_file_says() {
    let unlisted =
        |word: &str| policy(&format!("unlisted_actions = {word:?}")).gating(&action("unheard_of"));
    assert_eq!(unlisted("allow"), Ok(Gating::NotGated));
    assert_eq!(unlisted("refuse"), Err(Error::ActionUnknown));
    assert!(matches!(unlisted("gate"), Ok(Gating::Gated(terms)) if terms.approvals_required == 1));
}

#[test]
fn a_listed_action_is_gated_whatever_is_done_with_the_others() {
    for word in ["allow", "gate", "refuse"] {
        let gating =
            policy(&format!("unlisted_actions = {word:?}")).gating(&action("secret_write"));
        assert!(matches!(gating, Ok(Gating::Gated(_))), "{word}: {gating:?}");
    }
}

#[test]
fn files_that_say_the_same_have_the_same_digest() {
    let other_words = WHOLE
        .replace("\"24h\"", "\"1d\"")
        .replace("[\"1h\", \"4h\"]", "[ \"PT1H\", # first\n  \"240m\" ]")
        .replace("[actions.deploy]", "# Reviewed in May.\n[actions . 'deploy']\n");
    assert_ne!(other_words, WHOLE);
    assert_eq!(policy(&other_words).digest(), policy(WHOLE).digest());
}

#[test]
fn a_file_that_says_anything_else_has_another_digest() {
    let changes = [
        ("approvals_required = 1\n", "approvals_required = 2\n"),
        ("\"24h\"", "\"25h\""),
        ("approved_ttl = \"1h\"", "approved_ttl = \"90m\""),
        ("\"15m\"", "\"16m\""),
        ("[\"1h\", \"4h\"]", "[\"1h\", \"5h\"]"),
        ("max_pending = 100", "max_pending = 101"),
        ("deploy", "deploy_all"),
        ("into production", "into use"),
        ("approvals_required = 2", "approvals_required = 3"),
        ("\"2h\"", "\"3h\""),
        ("\"10m\"", "\"11m\""),
        ("\"0s\"", "\"1s\""),
        ("escalate_after = []", "escalate_after = [\"1h\"]"),
        ("max_pending = 5", "max_pending = 6"),
        ("\"requester\"", "\"viewer\""),
        ("tokens:backend", "corp:backend"),
        ("groups = [\"corp:admins\"]\n", ""),
        ("namespaces = [\"*\"]", "namespaces = [\"acme\"]"),
        ("workspaces = [\"*\"]", "workspaces = [\"ws-1\"]"),
        ("corp:alice", "corp:carol"),
        ("\"acme\"", "\"acme-2\""),
        ("\"ws-2\"", "\"ws-3\""),
        ("actions = [\"deploy\"]", "actions = [\"*\"]"),
    ];
    let mut digests = HashSet::from([policy(WHOLE).digest().to_owned()]);
    for (before, after) in changes {
        let changed = WHOLE.replace(before, after);
        assert!(digests.insert(policy(&changed).digest().to_owned()), "{after}");
    }
}

#[test]
fn a_digest_is_64_hexadecimal_digits() {
    let policy = policy(WHOLE);
    assert_eq!(policy.digest().len(), 64);
    assert!(policy.digest().bytes().all(|b| b.is_ascii_hexdigit()));
}

#[test]
fn what_becomes_of_unlisted_actions_is_part_of_the_digest() {
    let digest = |said| policy(&format!("unlisted_actions = \"{said}\"")).digest().to_owned();
    assert_ne!(digest("gate"), digest("refuse"));
    assert_ne!(digest("gate"), digest("allow"));
}

#[test]
fn a_file_that_lists_actions_and_says_no_more_refuses_the_others() {
    let policy = policy("[actions.deploy]\n");
    assert_eq!(policy.unlisted_actions(), UnlistedActions::Refuse);
}

#[test]
fn a_quorum_that_is_built_in_is_not_lowered_by_leaving_it_out() {
    let policy = policy("[actions.org_token_mint]\npending_ttl = \"2h\"\n");
    let mint = &policy.actions()[&Action::parse("org_token_mint").unwrap()];
    assert_eq!(mint.approvals_required, 2);
}

/// The README's policy listed one action and allowed the rest, three destructive ones among them.
#[test]
fn the_readme_has_a_policy_that_gates_what_is_built_in() {
    let readme = include_str!("../../../README.md");
    let blocks = readme.split("```toml\n").skip(1).map(|block| block.split("```").next().unwrap());
    let text = blocks.into_iter().find(|block| block.contains("[[bindings]]")).unwrap();
    let policy = policy(text);
    for name in policy_built_in().actions().keys() {
        assert!(policy.actions().contains_key(name), "{name}");
    }
}

fn policy_built_in() -> Policy {
    policy(BUILT_IN)
}

/// The built-in quorum of two took the place of a default of three.
#[test]
fn a_default_that_asks_for_more_than_what_is_built_in_holds() {
    for listed in ["", "[actions.org_token_mint]\n[actions.delete_workspace]\n"] {
        let text =
            format!("unlisted_actions = \"refuse\"\n[defaults]\napprovals_required = 3\n{listed}");
        let policy = policy(&text);
        for rule in policy.actions().values() {
            assert_eq!(rule.approvals_required, 3, "{text}");
        }
    }
}
