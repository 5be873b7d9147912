use std::collections::HashSet;

use super::*;
use crate::{
    error::Error,
    names::WorkspaceId,
    policy::{Gating, Star},
};

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

/// Every fault of the text as `line: message`.
fn faults(text: &str) -> Vec<String> {
    let faults = parse(text).expect_err("a faulty policy");
    faults.iter().map(Fault::to_string).collect()
}

/// The only fault of the text; `words` are in its message.
fn assert_fault(text: &str, line: usize, words: &str) {
    let found = parse(text).expect_err("a faulty policy");
    let [fault] = found.as_slice() else {
        panic!("not one fault: {found:?}");
    };
    assert_eq!(fault.line, line, "{fault}");
    assert!(fault.message.contains(words), "{fault}");
}

/// A policy of one binding, which begins on line 2, with these lines in it.
fn binding(lines: &[&str]) -> String {
    format!("\n[[bindings]]\n{}\n", lines.join("\n"))
}

/// A policy that requires three approvers, on line 2, and has these bindings.
fn three_approvers_for_deploy(bindings: &[&str]) -> String {
    let rule = "\n[actions.deploy]\napprovals_required = 3\n";
    let binding =
        |who: &&str| format!("[[bindings]]\nrole = \"approver\"\nworkspaces = [\"*\"]\n{who}\n");
    rule.to_owned() + &bindings.iter().map(binding).collect::<String>()
}

#[test]
fn the_built_in_policy_gates_four_actions() {
    let built_in = policy(BUILT_IN);
    let names: Vec<&str> = built_in.actions().keys().map(Action::as_str).collect();
    let expected = [
        "delete_workspace",
        "deprovision_workspace",
        "org_token_mint",
        "secret_write",
    ];
    assert_eq!(names, expected);
    assert_eq!(built_in.unlisted_actions(), UnlistedActions::Allow);
}

#[test]
fn the_built_in_policy_wants_two_approvers_for_a_token_and_one_for_the_rest() {
    for (name, rule) in policy(BUILT_IN).actions() {
        let expected = if name.as_str() == "org_token_mint" {
            2
        } else {
            1
        };
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
    assert_eq!(
        own.actions().keys().collect::<Vec<_>>(),
        [&action("deploy")]
    );
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
        principals: ["corp:alice", "corp:bob"]
            .map(|p| Principal::parse(p).unwrap())
            .into(),
        groups: vec![Principal::parse("corp:admins").unwrap()],
        namespaces: Selector::Some(
            ["acme", "default"]
                .map(|n| Namespace::parse(n).unwrap())
                .into(),
        ),
        workspaces: Selector::Some(
            ["ws-1", "ws-2"]
                .map(|w| WorkspaceId::parse(w).unwrap())
                .into(),
        ),
        actions: Selector::Some(vec![action("deploy")]),
    };
    assert_eq!(policy(WHOLE).bindings()[1], expected);
}

#[test]
fn a_star_stands_for_everything() {
    let requester = &policy(WHOLE).bindings()[0];
    assert_eq!(requester.namespaces, Selector::All(Star::Star));
    assert_eq!(requester.workspaces, Selector::All(Star::Star));
}

#[test]
fn a_binding_without_namespaces_is_for_the_default_one() {
    let text = binding(&[
        r#"role = "viewer""#,
        r#"groups = ["corp:all"]"#,
        r#"workspaces = ["*"]"#,
    ]);
    let namespaces = policy(&text).bindings()[0].namespaces.clone();
    assert_eq!(
        namespaces,
        Selector::Some(vec![Namespace::default_namespace()])
    );
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
fn unknown_keys_are_refused_wherever_they_are() {
    assert_fault("\nunlisted = \"allow\"\n", 2, "unknown field `unlisted`");
    assert_fault("[defaults]\nquorum = 2\n", 2, "unknown field `quorum`");
    assert_fault(
        "[actions.deploy]\n\nttl = \"1h\"\n",
        3,
        "unknown field `ttl`",
    );
    let misspelt = binding(&[r#"role = "viewer""#, r#"principal = ["corp:alice"]"#]);
    assert_fault(&misspelt, 4, "unknown field `principal`");
}

#[test]
fn unknown_words_are_refused() {
    assert_fault(
        &binding(&[r#"role = "owner""#]),
        3,
        "unknown variant `owner`",
    );
    assert_fault(
        "\n\nunlisted_actions = \"ask\"\n",
        3,
        "unknown variant `ask`",
    );
}

#[test]
fn a_file_that_is_no_toml_is_refused_at_its_line() {
    let faults = parse("[defaults]\nmax_pending = \n").expect_err("no TOML");
    assert_eq!(faults[0].line, 2);
}

#[test]
fn a_count_is_at_least_one() {
    for key in ["approvals_required", "max_pending"] {
        for count in ["0", "-1", "10001", "4294967297"] {
            let words = format!("{key} must be between 1 and 10000");
            assert_fault(&format!("[defaults]\n{key} = {count}\n"), 2, &words);
            assert_fault(&format!("[actions.deploy]\n{key} = {count}\n"), 2, &words);
        }
    }
}

#[test]
fn a_time_to_live_is_at_least_a_second_and_at_most_a_year() {
    for key in ["pending_ttl", "approved_ttl"] {
        for duration in ["0s", "-1h", "999ms", "8785h"] {
            let words = format!("{key} must be between");
            assert_fault(&format!("[defaults]\n{key} = \"{duration}\"\n"), 2, &words);
            assert_fault(
                &format!("[actions.deploy]\n{key} = \"{duration}\"\n"),
                2,
                &words,
            );
        }
        policy(&format!("[defaults]\n{key} = \"1s\"\n"));
    }
}

#[test]
fn a_cooldown_may_be_zero_and_not_negative() {
    policy("[defaults]\ndeny_cooldown = \"0s\"\n");
    assert_fault(
        "[defaults]\ndeny_cooldown = \"-1s\"\n",
        2,
        "deny_cooldown must be between",
    );
}

#[test]
fn escalation_steps_rise_and_are_positive() {
    for steps in [
        r#"["4h", "1h"]"#,
        r#"["1h", "1h"]"#,
        r#"["0s", "1h"]"#,
        r#"["-1h"]"#,
    ] {
        let text = format!("[actions.deploy]\nescalate_after = {steps}\n");
        assert_fault(
            &text,
            2,
            "escalate_after must be at most 16 rising, positive times",
        );
    }
}

#[test]
fn there_are_at_most_sixteen_escalation_steps() {
    let steps = |count| {
        let each: Vec<String> = (1..=count).map(|hours| format!("\"{hours}h\"")).collect();
        format!("[defaults]\nescalate_after = [{}]\n", each.join(","))
    };
    policy(&steps(16));
    assert_fault(&steps(17), 2, "escalate_after must be at most 16");
}

#[test]
fn a_name_that_is_no_action_is_refused() {
    assert_fault(
        "\n[actions.\"Deploy now\"]\n",
        2,
        "the action \"Deploy now\" must be",
    );
}

#[test]
fn a_binding_needs_somebody() {
    let text = binding(&[r#"role = "viewer""#, r#"workspaces = ["*"]"#]);
    assert_fault(&text, 2, "needs principals or groups");
}

#[test]
fn a_binding_needs_workspaces() {
    let text = binding(&[
        r#"role = "requester""#,
        r#"principals = ["tokens:backend"]"#,
    ]);
    assert_fault(&text, 2, "needs workspaces");
}

#[test]
fn an_approver_needs_actions() {
    let text = binding(&[
        r#"role = "approver""#,
        r#"groups = ["corp:admins"]"#,
        r#"workspaces = ["*"]"#,
    ]);
    assert_fault(&text, 2, "needs actions");
}

#[test]
fn only_an_approver_is_narrowed_by_actions() {
    let text = binding(&[
        r#"role = "requester""#,
        r#"groups = ["corp:admins"]"#,
        r#"workspaces = ["*"]"#,
        r#"actions = ["deploy"]"#,
    ]);
    assert_fault(&text, 2, "only an approver's binding");
}

#[test]
fn a_selector_names_something_that_can_exist() {
    for (line, words) in [
        ("namespaces = []", "namespaces must name something"),
        (r#"namespaces = ["Acme"]"#, "namespaces: \"Acme\" must be"),
        (r#"namespaces = ["*", "acme"]"#, "namespaces: \"*\" must be"),
        (r#"namespaces = [""]"#, "namespaces: \"\" must be"),
    ] {
        let viewer = [
            r#"role = "viewer""#,
            r#"groups = ["corp:all"]"#,
            r#"workspaces = ["*"]"#,
        ];
        assert_fault(&binding(&[&viewer[..], &[line]].concat()), 2, words);
    }
}

#[test]
fn a_principal_names_its_source() {
    let text = binding(&[r#"role = "viewer""#, r#"principals = ["alice"]"#]);
    assert_fault(&text, 4, "must be <authenticator>:<subject>");
}

#[test]
fn people_too_few_for_a_quorum_are_a_fault() {
    let two = r#"principals = ["corp:alice", "corp:bob"]
actions = ["*"]"#;
    let fault = "deploy requires 3 approvers and the bindings name 2";
    assert_fault(&three_approvers_for_deploy(&[two]), 2, fault);
}

#[test]
fn people_enough_for_a_quorum_are_counted_over_all_bindings() {
    policy(&three_approvers_for_deploy(&[
        "principals = [\"corp:alice\", \"corp:bob\"]\nactions = [\"*\"]",
        "principals = [\"corp:carol\"]\nactions = [\"deploy\"]",
    ]));
}

#[test]
fn a_person_bound_twice_is_one_person() {
    let text = three_approvers_for_deploy(&[
        "principals = [\"corp:alice\", \"corp:bob\"]\nactions = [\"*\"]",
        "principals = [\"corp:bob\"]\nactions = [\"deploy\"]",
    ]);
    assert_fault(&text, 2, "the bindings name 2");
}

#[test]
fn who_may_approve_other_actions_is_not_counted() {
    let text = three_approvers_for_deploy(&[
        "principals = [\"corp:alice\", \"corp:bob\"]\nactions = [\"*\"]",
        "principals = [\"corp:carol\"]\nactions = [\"secret_write\"]",
    ]);
    assert_fault(&text, 2, "the bindings name 2");
}

#[test]
fn a_group_may_have_any_number_of_members() {
    policy(&three_approvers_for_deploy(&[
        "groups = [\"corp:admins\"]\nactions = [\"deploy\"]",
    ]));
}

#[test]
fn all_faults_are_told_at_once() {
    let text = r#"[defaults]
approvals_required = 0
pending_ttl = "0s"
[actions.deploy]
max_pending = -1
escalate_after = ["2h", "1h"]
[[bindings]]
role = "requester"
principals = ["tokens:backend"]
"#;
    let lines: Vec<usize> = parse(text)
        .expect_err("a faulty policy")
        .iter()
        .map(|fault| fault.line)
        .collect();
    assert_eq!(lines, [2, 3, 5, 6, 7]);
}

#[test]
fn a_fault_is_told_with_its_line() {
    let told = faults("\n\n[defaults]\nmax_pending = 0\n");
    assert_eq!(told, ["line 4: max_pending must be between 1 and 10000"]);
}

#[test]
fn files_that_say_the_same_have_the_same_digest() {
    let other_words = WHOLE
        .replace("\"24h\"", "\"1440 minutes\"")
        .replace("[\"1h\", \"4h\"]", "[ \"PT1H\", # first\n  \"240m\" ]")
        .replace(
            "[actions.deploy]",
            "# Reviewed in May.\n[actions . 'deploy']\n",
        );
    assert_ne!(other_words, WHOLE);
    assert_eq!(policy(&other_words).digest(), policy(WHOLE).digest());
}

#[test]
fn a_file_that_says_anything_else_has_another_digest() {
    let changes = [
        ("\"refuse\"", "\"gate\""),
        ("max_pending = 100", "max_pending = 101"),
        ("[\"1h\", \"4h\"]", "[\"1h\", \"5h\"]"),
        ("[actions.deploy]", "[actions.deploy_all]"),
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
        ("actions = [\"deploy\"]", "actions = [\"*\"]"),
    ];
    let mut digests = HashSet::from([policy(WHOLE).digest().to_owned()]);
    for (before, after) in changes {
        let changed = WHOLE.replacen(before, after, 1);
        assert!(
            digests.insert(policy(&changed).digest().to_owned()),
            "{after}"
        );
    }
}

#[test]
fn a_digest_is_64_hexadecimal_digits() {
    let policy = policy(WHOLE);
    assert_eq!(policy.digest().len(), 64);
    assert!(policy.digest().bytes().all(|b| b.is_ascii_hexdigit()));
}
