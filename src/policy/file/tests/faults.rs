//! What a person got wrong, and where they are told it is.

use std::collections::HashSet;

use super::*;

/// The only fault of the text; `words` are in its message.
fn assert_fault(text: &str, line: usize, words: &str) {
    let found = parse(text).expect_err("a faulty policy");
    let [fault] = found.as_slice() else {
        panic!("not one fault: {found:?}");
    };
    assert_eq!(fault.line, line, "{fault}");
    assert!(fault.message.contains(words), "{fault}");
}

/// A policy that requires three approvers, on line 2, and has these bindings.
fn three_approvers_for_deploy(bindings: &[&str]) -> String {
    let rule = "\n[actions.deploy]\napprovals_required = 3\n";
    let binding =
        |who: &&str| format!("[[bindings]]\nrole = \"approver\"\nworkspaces = [\"*\"]\n{who}\n");
    rule.to_owned() + &bindings.iter().map(binding).collect::<String>()
}

#[test]
fn unknown_keys_are_refused_wherever_they_are() {
    assert_fault("\nunlisted = \"allow\"\n", 2, "unknown field `unlisted`");
    assert_fault("[defaults]\nquorum = 2\n", 2, "unknown field `quorum`");
    assert_fault("[actions.deploy]\n\nttl = \"1h\"\n", 3, "unknown field `ttl`");
    let misspelt = binding(&[r#"role = "viewer""#, r#"principal = ["corp:alice"]"#]);
    assert_fault(&misspelt, 4, "unknown field `principal`");
}

#[test]
fn unknown_words_are_refused() {
    assert_fault(&binding(&[r#"role = "owner""#]), 3, "unknown variant `owner`");
    assert_fault("\n\nunlisted_actions = \"ask\"\n", 3, "unknown variant `ask`");
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
            assert_fault(&format!("[actions.deploy]\n{key} = \"{duration}\"\n"), 2, &words);
        }
        policy(&format!("[defaults]\n{key} = \"1s\"\n"));
    }
}

#[test]
fn a_cooldown_may_be_zero_and_not_negative() {
    policy("[defaults]\ndeny_cooldown = \"0s\"\n");
    assert_fault("[defaults]\ndeny_cooldown = \"-1s\"\n", 2, "deny_cooldown must be between");
}

#[test]
fn escalation_steps_rise_and_are_positive() {
    for steps in [r#"["4h", "1h"]"#, r#"["1h", "1h"]"#, r#"["0s", "1h"]"#, r#"["-1h"]"#] {
        let text = format!("[actions.deploy]\nescalate_after = {steps}\n");
        assert_fault(&text, 2, "escalate_after must be at most 16 rising, positive times");
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
    assert_fault("\n[actions.\"Deploy now\"]\n", 2, "the action \"Deploy now\" must be");
}

#[test]
fn a_binding_needs_somebody() {
    let text = binding(&[r#"role = "viewer""#, r#"workspaces = ["*"]"#]);
    assert_fault(&text, 2, "needs principals or groups");
}

#[test]
fn a_binding_needs_workspaces() {
    let text = binding(&[r#"role = "requester""#, r#"principals = ["tokens:backend"]"#]);
    assert_fault(&text, 2, "needs workspaces");
}

#[test]
fn an_approver_needs_actions() {
    let text =
        binding(&[r#"role = "approver""#, r#"groups = ["corp:admins"]"#, r#"workspaces = ["*"]"#]);
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
        (r#"namespaces = ["*", "acme"]"#, "namespaces: \"*\" stands for all and so stands alone"),
        (r#"namespaces = [""]"#, "namespaces: \"\" must be"),
    ] {
        let viewer = [r#"role = "viewer""#, r#"groups = ["corp:all"]"#, r#"workspaces = ["*"]"#];
        assert_fault(&binding(&[&viewer[..], &[line]].concat()), 2, words);
    }
}

#[test]
fn a_workspace_is_not_called_star_beside_others() {
    let text = binding(&[
        r#"role = "viewer""#,
        r#"groups = ["corp:all"]"#,
        r#"workspaces = ["*", "ws-1"]"#,
    ]);
    assert_fault(&text, 2, "workspaces: \"*\" stands for all and so stands alone");
}

#[test]
fn gated_unlisted_actions_need_somebody_too() {
    let approver = binding(&[
        r#"role = "approver""#,
        r#"principals = ["corp:alice"]"#,
        r#"workspaces = ["*"]"#,
        r#"actions = ["delete_workspace", "deprovision_workspace", "secret_write"]"#,
    ]);
    let listed = "[actions.delete_workspace]\n";
    let text = format!("unlisted_actions = \"gate\"\n{listed}{approver}");
    assert_fault(&text, 1, "an unlisted action requires 1 approvers and the bindings name 0");
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
    policy(&three_approvers_for_deploy(&["groups = [\"corp:admins\"]\nactions = [\"deploy\"]"]));
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
    let lines: Vec<usize> =
        parse(text).expect_err("a faulty policy").iter().map(|fault| fault.line).collect();
    assert_eq!(HashSet::from_iter(lines), HashSet::from([2, 3, 5, 6, 7]));
}

#[test]
fn a_fault_is_told_with_its_line() {
    let faults = parse("\n\n[defaults]\nmax_pending = 0\n").expect_err("a faulty policy");
    assert_eq!(faults[0].to_string(), "line 4: max_pending must be between 1 and 10000");
}

#[test]
fn a_built_in_action_is_not_forgotten_where_others_are_allowed() {
    let text = "unlisted_actions = \"allow\"\n[actions.secret_write]\n[actions.org_token_mint]\n\
        [actions.delete_workspace]\n";
    assert_fault(text, 1, "deprovision_workspace is built in and would not be gated");
}
