//! What is written about the service, against the contract and the code.

use std::{collections::BTreeSet, path::PathBuf};

use approval_authority::{
    auth::tokens::Tokens,
    document::Fault,
    policy::{Policy, file},
    proto::{ApprovalState, EventType},
};

pub fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// The rows of the tables whose first cell is code: their cells, as they are written.
pub fn rows(text: &str) -> Vec<Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split(" |").map(str::trim).collect()).collect()
}

/// What stands in a cell as code.
pub fn code(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The text of a chapter.
fn chapter<'t>(text: &'t str, heading: &str) -> &'t str {
    let (_, after) = text.split_once(&format!("\n## {heading}\n")).expect(heading);
    after.split("\n## ").next().expect("its text")
}

/// The fenced blocks of a text, in order: what follows the fence, and what is between the two.
fn blocks(text: &str) -> Vec<(&str, &str)> {
    let fenced = text.split("```").skip(1).step_by(2);
    fenced.map(|block| block.split_once('\n').expect("a block")).collect()
}

/// The transitions that a diagram of states shows: from, to, and what is told.
fn transitions(text: &str) -> Vec<(&str, &str, &str)> {
    let (_, diagram) = text.split_once("stateDiagram-v2").expect("a diagram");
    let (diagram, _) = diagram.split_once("```").expect("its end");
    let lines = diagram.lines().filter_map(|line| line.trim().split_once(" --> "));
    lines
        .map(|(from, to)| {
            let (to, told) = to.split_once(": ").unwrap_or((to, ""));
            (from, to, told)
        })
        .collect()
}

#[test]
fn the_diagram_of_states_shows_every_state_and_every_event() {
    let text = read("docs/architecture.md");
    let transitions = transitions(&text);
    let states = (1..).map_while(|number| ApprovalState::try_from(number).ok());
    for state in states {
        let name = state.as_str_name().trim_start_matches("APPROVAL_STATE_");
        assert!(transitions.iter().any(|(_, to, _)| *to == name), "nothing leads to {name}");
        assert!(transitions.iter().any(|(from, ..)| *from == name), "nothing leads on from {name}");
    }
    let events = (1..).map_while(|number| EventType::try_from(number).ok());
    for event in events {
        let name = event.as_str_name().trim_start_matches("EVENT_TYPE_");
        let mut told = transitions.iter().flat_map(|(_, _, told)| told.split([' ', ',']));
        assert!(told.any(|word| word == name), "nothing tells {name}");
    }
}

const POLICY: &str = "docs/policy.md";

/// The policy of a text, or its faults as `policy check` tells them.
fn policy(text: &str) -> Result<Policy, String> {
    file::parse(text).map_err(|faults| {
        faults.iter().map(|fault: &Fault| format!("{fault}\n")).collect::<Vec<_>>().concat()
    })
}

#[test]
fn policies_are_taken_and_refused_as_it_is_written() {
    let text = read(POLICY);
    let (mut taken, mut refused) = (0, 0);
    let mut blocks = blocks(&text).into_iter();
    while let Some((kind, block)) = blocks.next() {
        match kind {
            "toml" => {
                policy(block).unwrap_or_else(|faults| panic!("{block}{faults}"));
                taken += 1;
            }
            "toml refused" => {
                let told = blocks.next();
                let faults = policy(block).expect_err(block);
                assert_eq!(told, Some(("text", faults.as_str())), "{block}");
                refused += 1;
            }
            other => panic!("a block of {other:?}"),
        }
    }
    assert!(taken >= 2 && refused >= 4, "{taken} {refused}");
}

/// Each table of the policy's keys, and where they are taken.
#[test]
fn every_key_of_a_policy_is_written_down_and_no_other() {
    let text = read(POLICY);
    for (heading, place) in [
        ("The file", ""),
        ("Rules", "[defaults]\n"),
        ("Rules", "[actions.deploy]\n"),
        ("Bindings", "[[bindings]]\n"),
    ] {
        let written: BTreeSet<&str> =
            rows(chapter(&text, heading)).iter().flat_map(|row| code(row[0])).collect();
        // The fault names those that there are.
        let fault = policy(&format!("{place}surely_none = 1\n")).expect_err("an unknown key");
        let (_, known) = fault.trim_end().split_once("expected one of: ").expect("those known");
        assert_eq!(written, known.split(", ").collect(), "{heading} {place}");
    }
}

#[test]
fn a_rule_has_the_defaults_and_the_limits_that_are_written() {
    let text = read(POLICY);
    let built_in = policy("").expect("the built-in policy");
    let of_deploy = |rule: &str| policy(&format!("[actions.deploy]\n{rule}\n"));
    let unsaid = of_deploy("").expect("a policy");
    let mut limits = 0;
    for row in rows(chapter(&text, "Rules")) {
        let (key, default) = (code(row[0])[0], code(row[2])[0]);
        let said = of_deploy(&format!("{key} = {default}")).expect(key);
        assert_eq!(said.digest(), unsaid.digest(), "{key} = {default}");
        if key != "description" {
            let said = policy(&format!("[defaults]\n{key} = {default}\n")).expect(key);
            assert_eq!(said.digest(), built_in.digest(), "{key} = {default}");
        }
        let [least, most] = code(row[1])[..] else { continue };
        let said = |value: &str| of_deploy(&format!("{key} = {value}"));
        let beyond = match (least.parse::<i64>(), most.parse::<i64>()) {
            (Ok(least), Ok(most)) => [(least - 1).to_string(), (most + 1).to_string()],
            _ => [least, most].map(|bound| match bound {
                "\"0s\"" => "\"-1ms\"".to_owned(),
                "\"1s\"" => "\"999ms\"".to_owned(),
                bound => bound.replace("d\"", "d 1s\""),
            }),
        };
        for value in [least, most] {
            assert!(said(value).is_ok(), "{key} = {value}");
        }
        for value in beyond {
            let fault = said(&value).expect_err(&value);
            assert!(fault.contains(&format!("{key} must be between")), "{fault}");
        }
        limits += 1;
    }
    assert_eq!(limits, 5, "two counts and three durations");
}

#[test]
fn a_binding_that_leaves_a_key_out_means_what_is_written() {
    const WHOLE: [(&str, &str); 6] = [
        ("role", r#""approver""#),
        ("principals", r#"["corp:alice", "corp:bob"]"#),
        ("groups", r#"["corp:admins"]"#),
        ("namespaces", r#"["acme"]"#),
        ("workspaces", r#"["w1"]"#),
        ("actions", r#"["*"]"#),
    ];
    let text = read(POLICY);
    let rows = rows(chapter(&text, "Bindings"));
    assert_eq!(rows.len(), WHOLE.len());
    for row in rows {
        let key = code(row[0])[0];
        let others = WHOLE.iter().filter(|(other, _)| *other != key);
        let others: String = others.map(|(key, value)| format!("{key} = {value}\n")).collect();
        let with = |rest: &str| policy(&format!("[[bindings]]\n{others}{rest}"));
        match code(row[2])[..] {
            [default] => {
                let said = with(&format!("{key} = {default}\n")).expect(key);
                assert_eq!(with("").expect(key).digest(), said.digest(), "{key}");
            }
            _ => {
                assert!(row[2].starts_with("needed"), "{key}");
                let fault = with("").expect_err(key);
                assert!(fault.contains(key), "{fault}");
            }
        }
    }
}

#[test]
fn what_is_built_in_is_what_is_written() {
    let text = read(POLICY);
    let built_in = policy("").expect("the built-in policy");
    // All of it stands at the top, with bindings.
    let (_, top) = blocks(&text)[0];
    let (rules, _) = top.split_once("[[bindings]]").expect("bindings");
    assert_eq!(policy(rules).expect("a policy").digest(), built_in.digest());
    let (_, named) = text.split_once("these are gated: ").expect("the list");
    let (named, _) = named.split_once('.').expect("its end");
    let actions = built_in.actions().iter().flat_map(|(action, rule)| {
        let quorum = (rule.approvals_required > 1).then(|| rule.approvals_required.to_string());
        [Some(action.to_string()), quorum].into_iter().flatten()
    });
    assert_eq!(code(named), actions.collect::<Vec<_>>());

    let (_, left_out) = text.split_once("`unlisted_actions` is ").expect("what it is left out");
    for (word, rest) in code(left_out).into_iter().zip(["[actions.deploy]\n", ""]) {
        let said = policy(&format!("unlisted_actions = {word}\n{rest}")).expect(word);
        assert_eq!(policy(rest).expect("a policy").digest(), said.digest(), "{word}");
    }
}

#[test]
fn the_numbers_between_the_words_are_those_that_hold() {
    let text = read(POLICY);
    let number = |before: &str| -> usize {
        let (_, after) = text.split_once(before).expect(before);
        after.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).expect("it")
    };
    let longest = number("A name has 1 to ");
    let named = |length: usize| policy(&format!("[actions.{}]\n", "a".repeat(length)));
    assert!(named(longest).is_ok() && named(longest + 1).is_err(), "{longest}");
    let most = number("from its creation: at most ");
    let steps = |count: usize| {
        let times: Vec<String> = (1..=count).map(|seconds| format!("\"{seconds}s\"")).collect();
        policy(&format!("[defaults]\nescalate_after = [{}]\n", times.join(", ")))
    };
    assert!(steps(most).is_ok() && steps(most + 1).is_err(), "{most}");
}

#[test]
fn the_words_of_a_policy_are_those_that_are_written() {
    let text = read(POLICY);
    for (heading, key, place) in
        [("The file", "unlisted_actions", ""), ("Bindings", "role", "[[bindings]]\n")]
    {
        let rows = rows(chapter(&text, heading));
        let row = rows.iter().find(|row| code(row[0]) == [key]).expect(key);
        let written: Vec<&str> = code(row[1]).iter().map(|word| word.trim_matches('"')).collect();
        let fault = policy(&format!("{place}{key} = \"surely_none\"\n")).expect_err(key);
        let (_, known) = fault.split_once("expected one of ").expect("those known");
        assert_eq!(written.iter().collect::<BTreeSet<_>>(), code(known).iter().collect(), "{key}");
    }
}

/// The heading's name in links.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().chars();
    let kept = kept.filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_leads_somewhere() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let docs =
        std::fs::read_dir(root.join("docs")).expect("docs").map(|file| file.expect("one").path());
    let pages = ["README.md", "SECURITY.md", "CHANGELOG.md"].map(|page| root.join(page));
    let mut links = 0;
    for page in docs.chain(pages) {
        let text = std::fs::read_to_string(&page).expect("a page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, to) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { page.clone() } else { page.with_file_name("").join(file) };
            assert!(target.exists(), "{}: {link}", page.display());
            if !to.is_empty() {
                let text = std::fs::read_to_string(&target).expect("a page");
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                assert!(
                    headings.any(|heading| anchor(heading) == to),
                    "{}: {link}",
                    page.display()
                );
            }
            links += 1;
        }
    }
    assert!(links > 30, "{links}");
}

#[test]
fn the_tokens_that_are_shown_are_taken() {
    let text = read("docs/configuration.md");
    let shown = blocks(chapter(&text, "Tokens"));
    let [("toml", entry)] = shown[..] else { panic!("one entry: {shown:?}") };
    Tokens::parse(entry).expect("taken");
}
