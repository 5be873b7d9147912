//! What holds in the log, whatever anybody was told.

use std::collections::{BTreeSet, HashMap, HashSet};

use approval_authority::approval::{EventKind, State};
use jiff::Timestamp;
use uuid::Uuid;

use super::Facts;
use crate::history::record::{Event, Operation};

pub fn revisions_and_versions_are_dense(facts: &Facts) -> Vec<String> {
    let mut broken = Vec::new();
    for (event, revision) in facts.history.events.iter().zip(1..) {
        if event.revision != revision {
            broken.push(format!("{event:?} stands where revision {revision} should"));
        }
    }
    for events in facts.events.values() {
        for (event, version) in events.iter().zip(1..) {
            if event.version != version {
                broken.push(format!("{event:?} should be version {version}"));
            }
        }
    }
    broken
}

/// The clock is read under the log's lock, so the log's order is that of time, unless the system's clock is set.
pub fn time_does_not_go_back(facts: &Facts) -> Vec<String> {
    let pairs = facts.history.events.windows(2).filter(|pair| pair[1].time < pair[0].time);
    pairs.map(|pair| format!("{:?} is earlier than {:?}", pair[1], pair[0])).collect()
}

/// Where a change leads, by the table of states.
fn next(from: Option<State>, kind: EventKind) -> Option<State> {
    match (from, kind) {
        (None, EventKind::Requested) => Some(State::Pending),
        (Some(State::Pending), EventKind::Escalated | EventKind::Reviewed) => Some(State::Pending),
        (Some(State::Pending), EventKind::Approved) => Some(State::Approved),
        (Some(State::Pending), EventKind::Denied) => Some(State::Denied),
        (Some(State::Pending), EventKind::Withdrawn) => Some(State::Withdrawn),
        (Some(State::Pending | State::Approved), EventKind::Expired) => Some(State::Expired),
        (Some(State::Approved), EventKind::Consumed) => Some(State::Consumed),
        (Some(State::Approved), EventKind::Revoked) => Some(State::Revoked),
        (Some(State::Consumed), EventKind::ResultReported) => Some(State::Consumed),
        _ => None,
    }
}

pub fn changes_are_those_of_the_table(facts: &Facts) -> Vec<String> {
    let mut broken = Vec::new();
    for events in facts.events.values() {
        let mut before: Option<&Event> = None;
        for event in events {
            let again = before.is_some_and(|before| before.kind == EventKind::ResultReported);
            let led = next(before.map(|before| before.state), event.kind);
            if led != Some(event.state) || again {
                broken.push(format!("{event:?} cannot follow {before:?}"));
            }
            before = Some(event);
        }
    }
    broken
}

pub fn one_open_approval_for_each_operation(facts: &Facts) -> Vec<String> {
    let mut broken = Vec::new();
    let mut open: HashMap<&Operation, HashSet<Uuid>> = HashMap::new();
    for event in &facts.history.events {
        let open = open.entry(&facts.row(event).operation).or_default();
        if event.state.is_open() {
            open.insert(event.approval);
        } else {
            open.remove(&event.approval);
        }
        if open.len() > 1 {
            broken.push(format!("{open:?} are open for one operation after {event:?}"));
        }
    }
    broken
}

/// The quorum and the two pairs of eyes: what approvals there are is told by who caused the events.
pub fn enough_others_have_approved(facts: &Facts) -> Vec<String> {
    let mut broken = Vec::new();
    for events in facts.events.values() {
        let mut approvers = BTreeSet::new();
        for event in events {
            let row = facts.row(event);
            if let EventKind::Reviewed | EventKind::Approved = event.kind {
                approvers.extend(&event.actor);
            }
            let enough = approvers.len() >= facts.history.terms.quorums[&row.operation.action];
            let settles = matches!(event.kind, EventKind::Approved | EventKind::Consumed);
            if settles && !enough {
                broken.push(format!("{event:?} with approvals of {approvers:?} only: {row:?}"));
            }
            let own = approvers.iter().find(|who| row.operation.is_asked_for_by(who));
            if let Some(who) = own {
                broken.push(format!("{who} approved what it asked for: {event:?} of {row:?}"));
            }
        }
    }
    broken
}

pub fn a_denial_holds_for_its_cooldown(facts: &Facts) -> Vec<String> {
    let mut broken = Vec::new();
    let mut refused_until: HashMap<[&str; 3], Timestamp> = HashMap::new();
    for event in &facts.history.events {
        let request = facts.row(event).operation.request();
        let passes = matches!(event.kind, EventKind::Requested | EventKind::Consumed);
        if passes && refused_until.get(&request).is_some_and(|until| event.time < *until) {
            broken.push(format!("{event:?} although it was denied"));
        }
        if event.kind == EventKind::Denied {
            refused_until.insert(request, event.time + facts.history.terms.deny_cooldown);
        }
    }
    broken
}

pub fn the_cap_is_never_exceeded(facts: &Facts) -> Vec<String> {
    let mut broken = Vec::new();
    let mut pending: HashMap<&str, HashMap<Uuid, Timestamp>> = HashMap::new();
    for event in &facts.history.events {
        let here = pending.entry(&facts.row(event).operation.workspace).or_default();
        if event.state == State::Pending {
            here.insert(event.approval, event.expire_time);
        } else {
            here.remove(&event.approval);
        }
        let count = here.values().filter(|end| **end > event.time).count();
        if count > facts.history.terms.max_pending {
            broken.push(format!("{count} are pending in one workspace after {event:?}"));
        }
    }
    broken
}

/// An open approval lasts as long as the policy says; after that it changes in one way alone, and not before in
/// that way.
pub fn deadlines_hold(facts: &Facts) -> Vec<String> {
    let mut broken = Vec::new();
    let terms = &facts.history.terms;
    for event in &facts.history.events {
        let lasts = match event.kind {
            EventKind::Requested => terms.pending_ttl,
            EventKind::Approved => terms.approved_ttl,
            _ => continue,
        };
        if event.expire_time != event.time + lasts {
            broken.push(format!("{event:?} should last {lasts}"));
        }
    }
    for events in facts.events.values() {
        for pair in events.windows(2).filter(|pair| pair[0].state.is_open()) {
            let late = pair[1].time >= pair[0].expire_time;
            if late != (pair[1].kind == EventKind::Expired) {
                broken.push(format!(
                    "{:?} at the wrong side of the deadline of {:?}",
                    pair[1], pair[0]
                ));
            }
        }
    }
    broken
}

pub fn a_key_consumes_once(facts: &Facts) -> Vec<String> {
    let mut attempts = HashMap::new();
    for row in &facts.history.rows {
        if let Some(key) = &row.consumed_key {
            let attempt = (&row.operation.requested_by, key);
            attempts.entry(attempt).or_insert_with(Vec::new).push(row.id);
        }
    }
    let broken = attempts.into_iter().filter(|(_, approvals)| approvals.len() > 1);
    broken.map(|(attempt, approvals)| format!("{attempt:?} consumed {approvals:?}")).collect()
}

pub fn rows_are_as_the_log_left_them(facts: &Facts) -> Vec<String> {
    let mut broken = Vec::new();
    for row in &facts.history.rows {
        let last = facts.events_of(row.id).last();
        if last.map(|last| (last.state, last.version, last.result))
            != Some((row.state, row.version, row.result))
        {
            broken.push(format!("{row:?} and the last event {last:?}"));
        }
    }
    broken
}
