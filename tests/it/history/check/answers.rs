//! What holds between what callers were told, when, and what the log says.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use approval_authority::approval::{Decision, EventKind, State};
use uuid::Uuid;

use super::Facts;
use crate::history::record::{Answer, Ask, Call, Event, Operation, Seen};

/// The calls to the gate that were let through.
fn let_through<'a>(
    facts: &Facts<'a>,
) -> impl Iterator<Item = (&'a Call, &'a Operation, &'a Option<String>, Seen, bool)> {
    facts.history.calls.iter().filter_map(|call| match (&call.ask, &call.answer) {
        (Ask::Require { operation, key }, Answer::LetThrough { seen, replayed }) => {
            Some((call, operation, key, *seen, *replayed))
        }
        _ => None,
    })
}

pub fn an_approval_lets_one_attempt_through(facts: &Facts) -> Vec<String> {
    let mut first: HashMap<Uuid, &Call> = HashMap::new();
    let mut broken = Vec::new();
    for (call, _, _, seen, _) in let_through(facts).filter(|(.., replayed)| !replayed) {
        if let Some(other) = first.insert(seen.approval, call) {
            broken.push(format!("{call:?} and {other:?} were both let through"));
        }
    }
    broken
}

/// With the rules about the log this says that enough people had approved it before.
pub fn what_is_let_through_has_been_consumed(facts: &Facts) -> Vec<String> {
    let mut broken = Vec::new();
    for (call, operation, _, seen, _) in let_through(facts) {
        let consumed = facts.event(seen.approval, seen.version).is_some_and(|event| {
            event.kind == EventKind::Consumed && event.actor.as_ref() == Some(&call.by)
        });
        let row = facts.rows.get(&seen.approval);
        if !consumed || row.is_none_or(|row| row.operation != *operation) {
            broken.push(format!("{call:?} was let through by {row:?}"));
        }
    }
    broken
}

pub fn only_the_attempt_that_consumed_is_told_again(facts: &Facts) -> Vec<String> {
    let mut broken = Vec::new();
    let mut reported: HashMap<Uuid, Duration> = HashMap::new();
    for call in &facts.history.calls {
        if let (Ask::Report { approval, .. }, Answer::Done(_)) = (&call.ask, &call.answer) {
            let ended = reported.entry(*approval).or_insert(call.ended);
            *ended = call.ended.min(*ended);
        }
    }
    for (call, _, key, seen, replayed) in let_through(facts) {
        let consumed_key = facts.rows.get(&seen.approval).and_then(|row| row.consumed_key.as_ref());
        if key.as_ref() != consumed_key || (replayed && key.is_none()) {
            broken.push(format!("{call:?} is not the attempt that consumed: {consumed_key:?}"));
        }
        if reported.get(&seen.approval).is_some_and(|ended| *ended < call.began) {
            broken.push(format!("{call:?} was let through after its result was reported"));
        }
    }
    broken
}

pub fn what_was_acknowledged_is_in_the_log(facts: &Facts) -> Vec<String> {
    let mut broken = Vec::new();
    for call in &facts.history.calls {
        let Some(seen) = call.answer.seen() else { continue };
        let logged = facts.event(seen.approval, seen.version);
        if !logged.is_some_and(|event| event.state == seen.state && bears_out(facts, call, event)) {
            broken.push(format!("{call:?} is not borne out by {logged:?}"));
        }
    }
    broken
}

/// Whether the event that left an approval as an answer shows it, or one before, is what the answer says.
fn bears_out(facts: &Facts, call: &Call, shown: &Event) -> bool {
    let operation = &facts.row(shown).operation;
    let happened = facts
        .events_of(shown.approval)
        .iter()
        .any(|event| event.version <= shown.version && is_of(event, &call.by, &call.ask));
    match &call.ask {
        Ask::Require { operation: asked, .. } => match shown.state {
            State::Denied => asked.request() == operation.request(),
            _ => asked == operation,
        },
        Ask::Decide { approval, .. }
        | Ask::Withdraw { approval }
        | Ask::Revoke { approval }
        | Ask::Report { approval, .. } => *approval == shown.approval && happened,
    }
}

/// Whether an event is what such a command brings about.
fn is_of(event: &Event, by: &str, ask: &Ask) -> bool {
    let (approval, fits) = match ask {
        Ask::Require { .. } => return false,
        Ask::Decide { approval, decision: Decision::Approve } => {
            (approval, matches!(event.kind, EventKind::Reviewed | EventKind::Approved))
        }
        Ask::Decide { approval, decision: Decision::Deny } => {
            (approval, event.kind == EventKind::Denied)
        }
        Ask::Withdraw { approval } => (approval, event.kind == EventKind::Withdrawn),
        Ask::Revoke { approval } => (approval, event.kind == EventKind::Revoked),
        Ask::Report { approval, result } => {
            let reported = event.kind == EventKind::ResultReported;
            (approval, reported && event.result == Some(*result))
        }
    };
    fits && event.approval == *approval && event.actor.as_deref() == Some(by)
}

/// Every event that has an actor was asked for by a call of the actor's that was not refused, and no call has
/// brought about two: what was unknown is there once or not at all, what was refused is not.
pub fn nothing_is_in_the_log_that_nobody_asked_for(facts: &Facts) -> Vec<String> {
    let mut broken = Vec::new();
    let mut asked: HashMap<(&str, &Ask), usize> = HashMap::new();
    for call in &facts.history.calls {
        let not_refused = usize::from(!matches!(call.answer, Answer::Refused(_)));
        *asked.entry((&call.by, &call.ask)).or_default() += not_refused;
    }
    let mut commanded: HashMap<Uuid, Vec<(&str, &Ask, usize)>> = HashMap::new();
    for ((by, ask), times) in &asked {
        if let Ask::Decide { approval, .. }
        | Ask::Withdraw { approval }
        | Ask::Revoke { approval }
        | Ask::Report { approval, .. } = ask
        {
            commanded.entry(*approval).or_default().push((by, ask, *times));
        }
    }
    for event in facts.history.events.iter().filter(|event| event.actor.is_some()) {
        if matches!(event.kind, EventKind::Requested | EventKind::Consumed) {
            continue;
        }
        let commands = commanded.get_mut(&event.approval).into_iter().flatten();
        let mut causes = commands.filter(|(by, ask, times)| *times > 0 && is_of(event, by, ask));
        match causes.next() {
            Some((.., times)) => *times -= 1,
            None => broken.push(format!("{event:?} was not asked for")),
        }
    }
    broken.extend(unasked_at_the_gate(facts));
    broken
}

/// What the gate wrote down and told nobody of must be the work of a call whose outcome is unknown.
fn unasked_at_the_gate(facts: &Facts) -> Vec<String> {
    let mut unknown: HashMap<&Operation, Vec<&Option<String>>> = HashMap::new();
    let mut told: HashSet<(Uuid, bool)> = HashSet::new();
    for call in &facts.history.calls {
        match (&call.ask, &call.answer) {
            (Ask::Require { operation, key }, Answer::Unknown) => {
                unknown.entry(operation).or_default().push(key);
            }
            (Ask::Require { .. }, Answer::Held(seen)) => {
                told.insert((seen.approval, false));
            }
            (Ask::Require { .. }, Answer::LetThrough { seen, replayed: false }) => {
                // One that waits for the decision, or tries again, asks and consumes, and has one answer.
                told.extend([(seen.approval, true), (seen.approval, false)]);
            }
            _ => {}
        }
    }
    let mut broken = Vec::new();
    // Consumptions first: of the unknown calls, only those of the same attempt can have made them.
    for kind in [EventKind::Consumed, EventKind::Requested] {
        let consumed = kind == EventKind::Consumed;
        for event in facts.history.events.iter().filter(|event| event.kind == kind) {
            if told.contains(&(event.approval, consumed)) {
                continue;
            }
            let row = facts.row(event);
            let calls = unknown.entry(&row.operation).or_default();
            match calls.iter().position(|key| !consumed || **key == row.consumed_key) {
                Some(cause) => {
                    calls.swap_remove(cause);
                    // So may one have that has no answer.
                    told.insert((event.approval, false));
                }
                None => broken.push(format!("{event:?} was not asked for")),
            }
        }
    }
    broken
}

/// What changed when a call was made comes after all that had been shown to anybody before the call began.
pub fn the_log_is_in_the_order_of_time(facts: &Facts) -> Vec<String> {
    let mut asked: HashMap<(&str, &Ask), usize> = HashMap::new();
    for call in &facts.history.calls {
        *asked.entry((&call.by, &call.ask)).or_default() += 1;
    }
    let revision = |seen: Seen| facts.event(seen.approval, seen.version).map(|e| e.revision);
    let shown = |call: &Call| call.answer.seen().and_then(revision);
    let changed = |call: &Call| match (&call.ask, &call.answer) {
        (_, Answer::LetThrough { replayed: false, .. })
        | (Ask::Withdraw { .. } | Ask::Revoke { .. }, Answer::Done(_)) => shown(call),
        // One that is repeated may have changed nothing, and be shown what changed before.
        (_, Answer::Done(_)) if asked[&(call.by.as_str(), &call.ask)] == 1 => shown(call),
        _ => None,
    };
    out_of_order(&facts.history.calls.iter().collect::<Vec<_>>(), shown, changed, |before, own| {
        before >= own
    })
}

/// An answer shows an approval no older than any answer before it had shown it.
pub fn nobody_is_shown_what_is_over(facts: &Facts) -> Vec<String> {
    let mut calls: HashMap<Uuid, Vec<&Call>> = HashMap::new();
    for call in &facts.history.calls {
        if let Some(seen) = call.answer.seen() {
            calls.entry(seen.approval).or_default().push(call);
        }
    }
    let version = |call: &Call| call.answer.seen().map(|seen| i64::from(seen.version));
    let each = calls.values();
    each.flat_map(|calls| out_of_order(calls, version, version, |before, own| before > own))
        .collect()
}

/// The calls before whose beginning an answer had already shown something later than their own.
fn out_of_order(
    calls: &[&Call],
    shown: impl Fn(&Call) -> Option<i64>,
    own: impl Fn(&Call) -> Option<i64>,
    is_later: impl Fn(i64, i64) -> bool,
) -> Vec<String> {
    let mut by_end: Vec<&Call> = calls.to_vec();
    by_end.sort_by_key(|call| call.ended);
    let mut by_begin = calls.to_vec();
    by_begin.sort_by_key(|call| call.began);
    let mut ended = by_end.into_iter().peekable();
    let mut latest: Option<(i64, &Call)> = None;
    let mut broken = Vec::new();
    for call in by_begin {
        while let Some(earlier) = ended.next_if(|earlier| earlier.ended < call.began) {
            let position = shown(earlier).map(|position| (position, earlier));
            if position.map(|(at, _)| at) > latest.map(|(at, _)| at) {
                latest = position;
            }
        }
        if let (Some((before, earlier)), Some(own)) = (latest, own(call))
            && is_later(before, own)
        {
            broken.push(format!("{call:?} comes in the log before {earlier:?}"));
        }
    }
    broken
}
