//! The gate: whether a call consumes an approval, joins the pending one, meets a denial, or asks people.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{
    Approval, Consumption, EventKind, Operation, Request, Standing, State, Terms,
    time::{escalate, first_step},
    transition::{Outcome, after, change, lapse},
};
use crate::{
    error::Error,
    names::{IdempotencyKey, Namespace, Text, WorkspaceId},
};

/// How long the attempt that consumed an approval can read its answer again. A key that is reused by
/// mistake must not become a standing permission.
pub const REPLAY_WINDOW: SignedDuration = SignedDuration::from_mins(10);

/// A call to the gate.
#[derive(Clone, Debug)]
pub struct Require {
    /// The organisation.
    pub namespace: Namespace,
    /// What is to be executed, and by whom.
    pub operation: Operation,
    /// Why, for approvers to read.
    pub reason: Text,
    /// The attempt.
    pub key: Option<IdempotencyKey>,
    /// What the policy asks for.
    pub terms: Terms,
}

/// What the shell found, with its locks held, that bears on a call to the gate.
#[derive(Clone, Debug, Default)]
pub struct Circumstances {
    /// The approval that this caller consumed with the same idempotency key.
    pub key_holder: Option<Approval>,
    /// The latest denial of the same workspace, action and context, whoever asked.
    pub denial: Option<Approval>,
    /// The open approval for the same operation.
    pub open: Option<Approval>,
    /// The workspace's parent.
    pub parent: Option<WorkspaceId>,
    /// Pending approvals in the workspace that have not lapsed.
    pub pending: u32,
    /// Denials of the same workspace and action in the last 24 hours.
    pub recent_denials: u32,
}

/// The gate's answer. A caller may execute on `Approved` only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// The approval was consumed for this attempt.
    Approved {
        /// The approval.
        approval: Approval,
        /// Whether this repeats an answer given before to the same key.
        replayed: bool,
    },
    /// Waiting for people.
    Pending(Approval),
    /// Refused, and the cooldown has not passed.
    Denied {
        /// The approval that was denied.
        approval: Approval,
        /// How long the cooldown still lasts.
        retry_after: SignedDuration,
    },
}

/// Consumes, joins or creates. `new_id` is the id of the approval that is created, if one is.
pub fn require(
    command: &Require,
    found: &Circumstances,
    new_id: Uuid,
    now: Timestamp,
) -> Outcome<Gate> {
    if let Some(consumed) = &found.key_holder {
        return Outcome::unchanged(replay(command, consumed, now));
    }
    if let Some(refusal) = refusal(found.denial.as_ref(), now) {
        return Outcome::unchanged(Ok(refusal));
    }
    let mut events = Vec::new();
    if let Some(open) = &found.open {
        if open.has_lapsed(now) {
            events.push(lapse(open, now));
        } else {
            match open.state() {
                State::Pending => return Outcome::unchanged(Ok(Gate::Pending(open.clone()))),
                State::Approved => return consume(command, open, now),
                // A closed approval answers nobody: as if it had not been found.
                State::Denied
                | State::Consumed
                | State::Expired
                | State::Withdrawn
                | State::Revoked => {}
            }
        }
    }
    if found.pending >= command.terms.max_pending {
        let limit = command.terms.max_pending;
        return Outcome { events, answer: Err(Error::TooManyPending { limit }) };
    }
    ask(command, found, new_id, now, events)
}

/// What a call to the gate is told without any change: the approval it joins, or the denial that stands.
/// None: the call has to go through [`require`] with locks held.
pub fn join(found: &Circumstances, now: Timestamp) -> Option<Gate> {
    if found.key_holder.is_some() {
        return None;
    }
    if let Some(refusal) = refusal(found.denial.as_ref(), now) {
        return Some(refusal);
    }
    let open = found.open.as_ref()?;
    (open.state() == State::Pending && !open.has_lapsed(now)).then(|| Gate::Pending(open.clone()))
}

fn replay(command: &Require, consumed: &Approval, now: Timestamp) -> Result<Gate, Error> {
    if !consumed.request.operation.is_same_as(&command.operation) {
        return Err(Error::IdempotencyKeyReused);
    }
    let Some(consumption) = &consumed.standing.consumption else {
        return Err(Error::IdempotencyKeySpent);
    };
    let over = consumption.time.checked_add(REPLAY_WINDOW).map_or(true, |end| end <= now);
    if over || consumed.standing.result.is_some() || consumed.state() != State::Consumed {
        return Err(Error::IdempotencyKeySpent);
    }
    Ok(Gate::Approved { approval: consumed.clone(), replayed: true })
}

fn refusal(denial: Option<&Approval>, now: Timestamp) -> Option<Gate> {
    let denial = denial?;
    let retry_after = denial.standing.cooldown_end?.duration_since(now);
    retry_after.is_positive().then(|| Gate::Denied { approval: denial.clone(), retry_after })
}

fn consume(command: &Require, approved: &Approval, now: Timestamp) -> Outcome<Gate> {
    let by = command.operation.requested_by.clone();
    let event = change(approved, EventKind::Consumed, Some(&by), now, |standing| {
        standing.state = State::Consumed;
        standing.consumption =
            Some(Consumption { time: now, by: by.clone(), key: command.key.clone() });
    });
    let approval = event.approval.clone();
    Outcome { events: vec![event], answer: Ok(Gate::Approved { approval, replayed: false }) }
}

fn ask(
    command: &Require,
    found: &Circumstances,
    new_id: Uuid,
    now: Timestamp,
    mut events: Vec<super::Event>,
) -> Outcome<Gate> {
    let terms = &command.terms;
    let request = Request {
        id: new_id,
        namespace: command.namespace.clone(),
        operation: command.operation.clone(),
        reason: command.reason.clone(),
        approvals_required: terms.approvals_required,
        approved_ttl: terms.approved_ttl,
        deny_cooldown: terms.deny_cooldown,
        escalate_after: terms.escalate_after.clone(),
        policy_digest: terms.policy_digest.clone(),
        recent_denials: found.recent_denials,
        create_time: now,
    };
    let escalate_time = first_step(&request);
    let unborn = Approval {
        request: Arc::new(request),
        standing: Standing {
            state: State::Pending,
            version: 0,
            verdicts: Vec::new(),
            expire_time: after(now, terms.pending_ttl),
            decide_time: None,
            consumption: None,
            cooldown_end: None,
            result: None,
            escalated_to: None,
            escalate_time,
        },
    };
    let requester = &command.operation.requested_by;
    let requested = change(&unborn, EventKind::Requested, Some(requester), now, |_| {});
    let mut approval = requested.approval.clone();
    events.push(requested);
    if let Some(parent) = &found.parent {
        let escalated = escalate(&approval, parent, now);
        approval = escalated.approval.clone();
        events.push(escalated);
    }
    Outcome { events, answer: Ok(Gate::Pending(approval)) }
}

#[cfg(test)]
mod tests;
