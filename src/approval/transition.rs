//! What each command does to an approval: pure functions of the approval, the command and the time. The
//! shell reads and locks what they need, and writes down the events they return; an approval changes in
//! no other way.

use jiff::{SignedDuration, Timestamp};

use super::{
    Approval, Decision, Event, EventKind, Operation, OperationResult, Standing, State, Verdict,
};
use crate::{
    digest::RequestHash,
    error::Error,
    names::{Principal, Text},
};

/// A command on an approval that exists.
#[derive(Clone, Debug)]
pub enum Command {
    /// An approver's verdict.
    Decide {
        /// Who.
        approver: Principal,
        /// What.
        decision: Decision,
        /// Why.
        reason: Text,
        /// What the approver was shown; must be this approval's, if given.
        request_hash: Option<RequestHash>,
    },
    /// The requester takes a pending request back.
    Withdraw {
        /// Who.
        requester: Principal,
        /// Why.
        reason: Text,
    },
    /// An approver takes an unused approval back.
    Revoke {
        /// Who.
        approver: Principal,
        /// Why.
        reason: Text,
    },
    /// The consumer says what became of the operation.
    Report {
        /// Who.
        consumer: Principal,
        /// What became of it.
        result: OperationResult,
        /// What happened.
        detail: Text,
    },
    /// The authority takes back what is open: the history that it belongs to has ended.
    Abandon,
}

/// What a command came to. The events are to be written whatever the answer is: a verdict on a request that
/// has lapsed is refused, and the lapse is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<T> {
    /// What happened, in order.
    pub events: Vec<Event>,
    /// What the caller is told.
    pub answer: Result<T, Error>,
}

impl<T> Outcome<T> {
    pub(super) fn unchanged(answer: Result<T, Error>) -> Self {
        Self { events: Vec::new(), answer }
    }
}

/// Carries out a command on an approval.
pub fn apply(approval: &Approval, command: &Command, now: Timestamp) -> Outcome<Approval> {
    if approval.has_lapsed(now) {
        let lapsed = lapse(approval, now);
        let after = apply(&lapsed.approval, command, now);
        let events = [vec![lapsed], after.events].concat();
        return Outcome { events, answer: after.answer };
    }
    let changed = match command {
        Command::Decide { approver, decision, reason, request_hash } => {
            decide(approval, approver, *decision, reason, *request_hash, now)
        }
        Command::Withdraw { requester, reason } => withdraw(approval, requester, reason, now),
        Command::Revoke { approver, reason } => revoke(approval, approver, reason, now),
        Command::Report { consumer, result, detail } => {
            report(approval, consumer, *result, detail, now)
        }
        Command::Abandon => Ok(abandon(approval, now)),
    };
    match changed {
        Ok(None) => Outcome::unchanged(Ok(approval.clone())),
        Ok(Some(event)) => {
            let answer = Ok(event.approval.clone());
            Outcome { events: vec![event], answer }
        }
        Err(error) => Outcome::unchanged(Err(error)),
    }
}

fn decide(
    approval: &Approval,
    approver: &Principal,
    decision: Decision,
    reason: &Text,
    request_hash: Option<RequestHash>,
    now: Timestamp,
) -> Result<Option<Event>, Error> {
    let request = &approval.request;
    if requested_it(approver, &request.operation) {
        return Err(Error::SelfApproval);
    }
    if request_hash.is_some_and(|shown| shown != request.operation.request_hash) {
        return Err(Error::HashMismatch);
    }
    let earlier = approval.standing.verdicts.iter().find(|v| v.approver == *approver);
    if earlier.is_some_and(|verdict| verdict.decision == decision) {
        return Ok(None);
    }
    if approval.state() != State::Pending {
        return Err(Error::NotPending(approval.state()));
    }
    let verdict =
        Verdict { approver: approver.clone(), decision, reason: reason.clone(), time: now };
    let mut verdicts: Vec<Verdict> =
        approval.standing.verdicts.iter().filter(|v| v.approver != *approver).cloned().collect();
    verdicts.push(verdict);
    let approving = verdicts.iter().filter(|v| v.decision == Decision::Approve).count();
    let enough = approving >= request.approvals_required as usize && request.approvals_required > 0;
    let kind = match decision {
        Decision::Deny => EventKind::Denied,
        Decision::Approve if enough => EventKind::Approved,
        Decision::Approve => EventKind::Reviewed,
    };
    Ok(Some(change(approval, kind, Some(approver), now, |standing| {
        standing.verdicts = verdicts;
        match decision {
            Decision::Deny => {
                standing.state = State::Denied;
                standing.decide_time = Some(now);
                standing.cooldown_end = Some(after(now, request.deny_cooldown));
            }
            Decision::Approve if enough => {
                standing.state = State::Approved;
                standing.decide_time = Some(now);
                standing.expire_time = after(now, request.approved_ttl);
            }
            Decision::Approve => {}
        }
    })))
}

/// Whether this principal asked for the operation, in its own name or in another's: the one place where two
/// pairs of eyes are demanded.
fn requested_it(approver: &Principal, operation: &Operation) -> bool {
    operation.requested_by == *approver
        || operation.on_behalf_of.as_ref().is_some_and(|name| name.may_name(approver))
}

fn withdraw(
    approval: &Approval,
    requester: &Principal,
    reason: &Text,
    now: Timestamp,
) -> Result<Option<Event>, Error> {
    if approval.request.operation.requested_by != *requester {
        return Err(Error::RoleMissing);
    }
    if approval.state() != State::Pending {
        return Err(Error::NotPending(approval.state()));
    }
    let mut event = change(approval, EventKind::Withdrawn, Some(requester), now, |standing| {
        standing.state = State::Withdrawn;
    });
    event.note = Some(reason.clone());
    Ok(Some(event))
}

fn revoke(
    approval: &Approval,
    approver: &Principal,
    reason: &Text,
    now: Timestamp,
) -> Result<Option<Event>, Error> {
    if approval.state() != State::Approved {
        return Err(Error::NotApproved(approval.state()));
    }
    let mut event = change(approval, EventKind::Revoked, Some(approver), now, |standing| {
        standing.state = State::Revoked;
    });
    event.note = Some(reason.clone());
    Ok(Some(event))
}

fn report(
    approval: &Approval,
    consumer: &Principal,
    result: OperationResult,
    detail: &Text,
    now: Timestamp,
) -> Result<Option<Event>, Error> {
    let Some(consumption) = &approval.standing.consumption else {
        return Err(Error::NotConsumed(approval.state()));
    };
    if consumption.by != *consumer {
        return Err(Error::RoleMissing);
    }
    match approval.standing.result {
        Some(recorded) if recorded == result => return Ok(None),
        Some(recorded) => return Err(Error::ResultRecorded(recorded)),
        None => {}
    }
    let mut event = change(approval, EventKind::ResultReported, Some(consumer), now, |standing| {
        standing.result = Some(result);
    });
    event.note = Some(detail.clone());
    Ok(Some(event))
}

/// After a restore an approval may be open again that was used since the backup. A pending request has to be made
/// anew, and an approval to be given anew.
fn abandon(approval: &Approval, now: Timestamp) -> Option<Event> {
    let (kind, state) = match approval.state() {
        State::Pending => (EventKind::Expired, State::Expired),
        State::Approved => (EventKind::Revoked, State::Revoked),
        State::Denied | State::Consumed | State::Expired | State::Withdrawn | State::Revoked => {
            return None;
        }
    };
    Some(change(approval, kind, None, now, |standing| {
        standing.state = state;
        if state == State::Expired {
            standing.expire_time = now;
        }
    }))
}

/// Time has run out.
pub(super) fn lapse(approval: &Approval, now: Timestamp) -> Event {
    change(approval, EventKind::Expired, None, now, |standing| standing.state = State::Expired)
}

/// The one way an approval changes: a new standing, one version on, and the event that tells it.
pub(super) fn change(
    approval: &Approval,
    kind: EventKind,
    actor: Option<&Principal>,
    now: Timestamp,
    alter: impl FnOnce(&mut Standing),
) -> Event {
    let mut after = approval.clone();
    after.standing.version += 1;
    alter(&mut after.standing);
    if after.state() != State::Pending {
        after.standing.escalate_time = None;
    }
    Event {
        kind,
        workspace_id: approval.request.operation.workspace_id.clone(),
        approval: after,
        actor: actor.cloned(),
        note: None,
        time: now,
    }
}

/// A deadline. One beyond the end of time (the year 9999) is the end of time.
pub(super) fn after(now: Timestamp, duration: SignedDuration) -> Timestamp {
    now.checked_add(duration).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
