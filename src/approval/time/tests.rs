use jiff::ToSpan;

use super::*;

fn path(ids: &[&str]) -> Vec<WorkspaceId> {
    ids.iter().map(|id| WorkspaceId::parse(*id).unwrap()).collect()
}

/// `Approval::example`, of the workspace "ws-1", brought before its parent when it was requested.
fn told_the_parent() -> Approval {
    let example = Approval::example();
    let mut told = escalate(&example, &path(&["parent"])[0], example.request.create_time).approval;
    told.standing.escalate_time = example.standing.escalate_time;
    told
}

/// Whom the events address.
fn told(kept: &Kept) -> Vec<&str> {
    assert!(kept.events.iter().all(|event| event.kind == EventKind::Escalated));
    kept.events.iter().map(|event| event.workspace_id.as_str()).collect()
}

fn hours(approval: &Approval, hours: i64) -> Timestamp {
    approval.request.create_time + hours.hours()
}

const TREE: &[&str] = &["ws-1", "parent", "grandparent", "root"];

#[test]
fn each_step_brings_it_before_the_next_ancestor() {
    let approval = told_the_parent();
    let before = hours(&approval, 1) - 1.nanosecond();
    let early = keep(&approval, &path(TREE), before);
    assert_eq!(early, Kept { events: vec![], approval: approval.clone() });

    let first = keep(&approval, &path(TREE), hours(&approval, 1));
    assert_eq!(told(&first), ["grandparent"]);
    assert_eq!(first.approval.standing.escalate_time, Some(hours(&approval, 4)));
    let again = keep(&first.approval, &path(TREE), hours(&approval, 3));
    assert_eq!(again, Kept { events: vec![], approval: first.approval.clone() });

    let second = keep(&first.approval, &path(TREE), hours(&approval, 5));
    assert_eq!(told(&second), ["root"]);
    assert_eq!(second.approval.standing.escalate_time, None);
    let [event] = second.events.as_slice() else { panic!("one event") };
    assert_eq!((event.actor.as_ref(), event.time), (None, hours(&approval, 5)));
    assert_eq!(event.approval, second.approval);
}

#[test]
fn a_climb_moves_no_deadline_and_nothing_that_people_decide() {
    let approval = told_the_parent();
    let climbed = keep(&approval, &path(TREE), hours(&approval, 4)).approval;
    let mut expected = approval.clone();
    expected.standing.version = 4;
    expected.standing.escalated_to = Some(path(&["root"])[0].clone());
    expected.standing.escalate_time = None;
    assert_eq!(climbed, expected);
}

#[test]
fn steps_that_passed_unseen_are_made_up_for_one_ancestor_each() {
    let approval = told_the_parent();
    let late = keep(&approval, &path(TREE), hours(&approval, 10));
    assert_eq!(told(&late), ["grandparent", "root"]);
    let versions: Vec<u32> = late.events.iter().map(|e| e.approval.standing.version).collect();
    assert_eq!(versions, [3, 4]);
}

#[test]
fn where_nobody_is_left_above_a_step_passes_in_silence() {
    let approval = told_the_parent();
    for tree in [&["ws-1", "parent"][..], &["ws-1"], &[]] {
        let kept = keep(&approval, &path(tree), hours(&approval, 1));
        assert_eq!(kept.events, [], "{tree:?}");
        assert_eq!(kept.approval.standing.escalate_time, Some(hours(&approval, 4)));
        assert_eq!(kept.approval.standing.version, 2, "{tree:?}");
    }
}

#[test]
fn who_is_no_longer_above_it_is_not_told() {
    let approval = told_the_parent();
    let moved = keep(&approval, &path(&["ws-1", "new", "newer"]), hours(&approval, 4));
    assert_eq!(told(&moved), ["new", "newer"]);
    let put_between =
        keep(&approval, &path(&["ws-1", "new", "parent", "top"]), hours(&approval, 1));
    assert_eq!(told(&put_between), ["top"], "those below have had their time");
    let orphaned = Approval::example();
    let found = keep(&orphaned, &path(TREE), hours(&approval, 1));
    assert_eq!(told(&found), ["parent"], "it had none when it was requested");
}

#[test]
fn what_lapses_does_so_whatever_was_to_be_escalated() {
    for state in [State::Pending, State::Approved] {
        let approval = Approval::example_in(state);
        let kept = keep(&approval, &path(TREE), approval.deadline());
        let [expired] = kept.events.as_slice() else { panic!("one event") };
        assert_eq!((expired.kind, expired.approval.state()), (EventKind::Expired, State::Expired));
        assert_eq!(kept.approval, expired.approval);
        assert_eq!(kept.approval.standing.escalate_time, None);
        let early = keep(&approval, &[], approval.last_moment());
        assert_eq!(early.events, []);
    }
}

#[test]
fn what_is_not_pending_climbs_no_further() {
    for &state in State::ALL.iter().filter(|state| **state != State::Pending) {
        let settled = Approval::example_in(state);
        let mut left_behind = settled.clone();
        left_behind.standing.escalate_time = Some(hours(&settled, 1));
        let kept = keep(&left_behind, &path(TREE), settled.last_moment());
        assert_eq!(kept, Kept { events: vec![], approval: settled }, "{state:?}");
    }
}
