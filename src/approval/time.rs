//! What passing time does to an approval while nobody commands anything: it lapses, or it is brought before the next
//! ancestor of its workspace. Pure functions of the approval, the tree and the time.

use jiff::Timestamp;

use super::{
    Approval, Event, EventKind, Request, State,
    transition::{after, change, lapse},
};
use crate::names::WorkspaceId;

/// An approval whose time has come, seen to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What happened, in order.
    pub events: Vec<Event>,
    /// The approval afterwards. Without an event it differs at most in the time of its next escalation.
    pub approval: Approval,
}

/// Lets an approval lapse whose time has run out, and brings a pending one before an ancestor for each step
/// that has passed since it was last seen to.
///
/// `path` is the approval's workspace and its ancestors, nearest first, as the tree is now: who is no longer above
/// the workspace is not told. Where nobody is left above, a step passes in silence.
pub fn keep(approval: &Approval, path: &[WorkspaceId], now: Timestamp) -> Kept {
    if approval.has_lapsed(now) {
        let lapsed = lapse(approval, now);
        return Kept { approval: lapsed.approval.clone(), events: vec![lapsed] };
    }
    let mut events = Vec::new();
    let mut kept = approval.clone();
    kept.standing.escalate_time = next_step(approval, now);
    for _ in 0..steps_passed(approval, now) {
        if let Some(ancestor) = next_ancestor(&kept, path) {
            let escalated = escalate(&kept, ancestor, now);
            kept = escalated.approval.clone();
            events.push(escalated);
        }
    }
    Kept { events, approval: kept }
}

/// Brings a pending approval before an ancestor. It moves no deadline and does not change who may decide.
pub(super) fn escalate(approval: &Approval, ancestor: &WorkspaceId, now: Timestamp) -> Event {
    let mut escalated = change(approval, EventKind::Escalated, None, now, |standing| {
        standing.escalated_to = Some(ancestor.clone());
    });
    escalated.workspace_id = ancestor.clone();
    escalated
}

/// When a new request is brought before the next ancestor.
pub(super) fn first_step(request: &Request) -> Option<Timestamp> {
    step_after(request, request.create_time)
}

fn next_step(approval: &Approval, now: Timestamp) -> Option<Timestamp> {
    (approval.state() == State::Pending).then(|| step_after(&approval.request, now)).flatten()
}

fn step_after(request: &Request, now: Timestamp) -> Option<Timestamp> {
    steps(request).find(|step| *step > now)
}

/// The steps from the one that was due up to now.
fn steps_passed(approval: &Approval, now: Timestamp) -> usize {
    let Some(due) = approval.standing.escalate_time else { return 0 };
    if approval.state() != State::Pending {
        return 0;
    }
    steps(&approval.request).filter(|step| (due..=now).contains(step)).count()
}

fn steps(request: &Request) -> impl Iterator<Item = Timestamp> {
    request.escalate_after.iter().map(|step| after(request.create_time, *step))
}

/// The ancestor above the last one that was told. If that one is no longer above the workspace, the tree has
/// changed, and the climb begins anew at the parent.
fn next_ancestor<'a>(approval: &Approval, path: &'a [WorkspaceId]) -> Option<&'a WorkspaceId> {
    let ancestors = path.get(1..).unwrap_or_default();
    let told = approval.standing.escalated_to.as_ref();
    let above = told.and_then(|told| ancestors.iter().position(|ancestor| ancestor == told));
    ancestors.get(above.map_or(0, |told| told + 1))
}

#[cfg(test)]
mod tests;
