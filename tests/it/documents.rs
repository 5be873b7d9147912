//! What is written about the service, against the contract.

use std::path::PathBuf;

use approval_authority::proto::{ApprovalState, EventType};

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
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
