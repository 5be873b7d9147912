//! What holds whatever happens: random commands and a clock that moves on, in a namespace in memory, and the promises
//! checked on what came of each step. What is promised is said here again in other words than the core's.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use jiff::{SignedDuration, Timestamp};
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};
use uuid::Uuid;

use super::{
    Approval, Decision, Event, EventKind, State, Verdict,
    gate::{Gate, Require},
    transition::Command,
    world::World,
};
use crate::{
    error::Error,
    names::{Principal, Text},
};

mod steps;

use steps::{MAX_PENDING, Step, ask, fits, steps, terms};

const TEN_MINUTES: SignedDuration = SignedDuration::from_mins(10);

/// A namespace, all that happened in it, and who has approved what, by the commands that were accepted.
struct History {
    world: World,
    log: Vec<Event>,
    approvers: BTreeMap<Uuid, BTreeSet<Principal>>,
}

type Checked = Result<(), TestCaseError>;

impl History {
    fn new() -> Self {
        Self { world: World::new(), log: Vec::new(), approvers: BTreeMap::new() }
    }

    /// Takes a step and checks it; `seen` counts what was seen on the way.
    fn take(&mut self, step: &Step, seen: &mut BTreeMap<&'static str, u32>) -> Checked {
        let before = self.world.clone();
        let events = match step {
            Step::Pass(duration) => {
                self.world.now += *duration;
                Vec::new()
            }
            Step::Ask(call) => self.call(call, seen)?,
            Step::AskAgain(on, key) => {
                let used = |state| matches!(state, State::Approved | State::Consumed);
                match self.choose(on, used) {
                    Some(place) => {
                        let operation = before.approvals[place].request.operation.clone();
                        self.call(&ask(operation, key.clone()), seen)?
                    }
                    None => Vec::new(),
                }
            }
            Step::Do(on, command) => self.command(self.choose(on, fits(command)), command),
            Step::DoLate(on, command) => self.command(self.choose(on, |_| true), command),
            Step::Keep(on) => {
                self.choose(on, |_| true).map(|place| self.world.keep(place)).unwrap_or_default()
            }
        };
        for event in &events {
            *seen.entry(event.kind.as_str()).or_default() += 1;
            self.an_event_is_due(event)?;
            self.log.push(event.clone());
        }
        self.a_final_state_is_final(&before)?;
        self.one_question_and_a_cap()?;
        self.the_log_tells_it_all()
    }

    /// One of the approvals in such a state, or any where there is none.
    fn choose(&self, on: &Index, wanted: impl Fn(State) -> bool) -> Option<usize> {
        let approvals = self.world.approvals.iter().enumerate();
        let places: Vec<usize> =
            approvals.filter(|(_, a)| wanted(a.state())).map(|(place, _)| place).collect();
        if !places.is_empty() {
            return Some(*on.get(&places));
        }
        (!self.world.approvals.is_empty()).then(|| on.index(self.world.approvals.len()))
    }

    fn call(
        &mut self,
        call: &Require,
        seen: &mut BTreeMap<&'static str, u32>,
    ) -> Result<Vec<Event>, TestCaseError> {
        let before = self.world.clone();
        let outcome = self.world.require(call);
        self.an_answer_is_true(&before, call, &outcome.answer)?;
        *seen.entry(name(&outcome.answer)).or_default() += 1;
        Ok(outcome.events)
    }

    fn command(&mut self, place: Option<usize>, command: &Command) -> Vec<Event> {
        let Some(place) = place else { return Vec::new() };
        let outcome = self.world.apply(place, command);
        if let (Ok(approval), Command::Decide { approver, decision, .. }) =
            (&outcome.answer, command)
        {
            let approvers = self.approvers.entry(approval.id()).or_default();
            match decision {
                Decision::Approve => approvers.insert(approver.clone()),
                Decision::Deny => approvers.remove(approver),
            };
        }
        outcome.events
    }

    fn told<'a>(&'a self, id: Uuid) -> impl DoubleEndedIterator<Item = &'a Event> + use<'a> {
        self.log.iter().filter(move |event| event.approval.id() == id)
    }

    /// The gate lets through only what the log bears out, and refuses everybody while a denial stands.
    fn an_answer_is_true(
        &self,
        before: &World,
        call: &Require,
        answer: &Result<Gate, Error>,
    ) -> Checked {
        let now = before.now;
        let attempt = before.approvals.iter().find(|approval| {
            approval.standing.consumption.as_ref().is_some_and(|consumption| {
                consumption.by == call.operation.requested_by
                    && call.key.is_some()
                    && consumption.key == call.key
            })
        });
        if let Some(consumed) = attempt {
            let used = self.told(consumed.id()).find(|event| event.kind == EventKind::Consumed);
            let in_time = used.is_some_and(|used| now < used.time + TEN_MINUTES);
            let reported = self.told(consumed.id()).any(|e| e.kind == EventKind::ResultReported);
            let expected = if consumed.request.operation.key() != call.operation.key() {
                Err(Error::IdempotencyKeyReused)
            } else if in_time && !reported {
                Ok(Gate::Approved { approval: consumed.clone(), replayed: true })
            } else {
                Err(Error::IdempotencyKeySpent)
            };
            prop_assert_eq!(answer, &expected, "a key answers again for its attempt alone");
            return Ok(());
        }
        let refused = matches!(answer, Ok(Gate::Denied { .. }));
        prop_assert_eq!(refused, self.denied(call, now).is_some(), "a denial holds for everybody");
        if let Ok(Gate::Denied { approval, retry_after }) = answer {
            prop_assert_eq!(Some(now + *retry_after), self.denied(call, now));
            prop_assert_eq!(approval.state(), State::Denied);
        }
        if let Ok(Gate::Approved { approval, replayed }) = answer {
            prop_assert!(!replayed);
            prop_assert_eq!(approval.request.operation.key(), call.operation.key());
            prop_assert_eq!(
                self.told(approval.id()).last().map(|e| e.kind),
                Some(EventKind::Approved)
            );
        }
        Ok(())
    }

    /// Until when the log has the operation refused, if it does.
    fn denied(&self, call: &Require, now: Timestamp) -> Option<Timestamp> {
        let denials = self.log.iter().filter(|event| {
            event.kind == EventKind::Denied
                && event.approval.request.operation.request_hash == call.operation.request_hash
        });
        denials
            .map(|event| event.time + event.approval.request.deny_cooldown)
            .filter(|end| *end > now)
            .max()
    }

    /// What an event says may happen at this point of the log.
    fn an_event_is_due(&self, event: &Event) -> Checked {
        let approval = &event.approval;
        let last = self.told(approval.id()).last();
        prop_assert_eq!(event.time, self.world.now);
        let version = self.told(approval.id()).count() as u32 + 1;
        prop_assert_eq!(approval.standing.version, version, "versions count the events");
        let deadline = last.map(|last| last.approval.standing.expire_time);
        match event.kind {
            EventKind::Requested => prop_assert!(last.is_none()),
            EventKind::Approved => {
                let end = event.time + approval.request.approved_ttl;
                prop_assert_eq!(approval.standing.expire_time, end);
                self.enough_others_approved(approval)?;
            }
            EventKind::Consumed => {
                prop_assert!(Some(event.time) < deadline, "nothing is used that has lapsed");
                let used = self.told(approval.id()).any(|e| e.kind == EventKind::Consumed);
                prop_assert!(!used, "an approval is used once");
                self.enough_others_approved(approval)?;
            }
            EventKind::Reviewed => {
                let twice = |e: &Event| e.kind == event.kind && e.actor == event.actor;
                prop_assert!(
                    !self.told(approval.id()).any(twice),
                    "a repeated verdict is no event"
                );
            }
            EventKind::Expired => prop_assert!(Some(event.time) >= deadline),
            EventKind::Escalated
            | EventKind::Denied
            | EventKind::Withdrawn
            | EventKind::Revoked
            | EventKind::ResultReported => {}
        }
        if !matches!(event.kind, EventKind::Requested | EventKind::Approved) {
            prop_assert_eq!(Some(approval.standing.expire_time), deadline, "no deadline moves");
        }
        Ok(())
    }

    fn enough_others_approved(&self, approval: &Approval) -> Checked {
        let operation = &approval.request.operation;
        let named = operation.on_behalf_of.as_ref().map(|name| Principal::example(name.as_str()));
        let others = self.approvers.get(&approval.id()).into_iter().flatten();
        let others = others.filter(|a| **a != operation.requested_by && Some(*a) != named.as_ref());
        let required = terms(operation.action.as_str()).approvals_required as usize;
        prop_assert!(others.count() >= required, "enough people, none of whom asked for it");
        Ok(())
    }

    fn a_final_state_is_final(&self, before: &World) -> Checked {
        for (before, after) in before.approvals.iter().zip(&self.world.approvals) {
            if !matches!(before.state(), State::Pending | State::Approved) {
                prop_assert_eq!(after.state(), before.state(), "no path leaves a final state");
            }
        }
        Ok(())
    }

    fn one_question_and_a_cap(&self) -> Checked {
        let mut open = BTreeSet::new();
        for approval in self.world.approvals.iter().filter(|a| a.state().is_open()) {
            let operation = format!("{:?}", approval.request.operation.key());
            prop_assert!(open.insert(operation), "at most one open approval for an operation");
            let pending = self.world.pending_in(&approval.request.operation.workspace_id);
            prop_assert!(pending <= MAX_PENDING, "{} are pending", pending);
        }
        Ok(())
    }

    /// What there is can be told from the log alone, but for the time of the next escalation.
    fn the_log_tells_it_all(&self) -> Checked {
        let mut told: BTreeMap<Uuid, Approval> = BTreeMap::new();
        for event in &self.log {
            let id = event.approval.id();
            let approval = told.entry(id).or_insert_with(|| event.approval.clone());
            if event.kind != EventKind::Requested {
                follow(approval, event);
            }
            approval.standing.escalate_time = None;
        }
        let mut there = self.world.approvals.clone();
        there.iter_mut().for_each(|approval| approval.standing.escalate_time = None);
        prop_assert_eq!(told.into_values().collect::<Vec<_>>(), there);
        Ok(())
    }
}

/// What an event makes of the approval, from its kind, its time and its actor.
fn follow(approval: &mut Approval, event: &Event) {
    let request = approval.request.clone();
    let standing = &mut approval.standing;
    let after = &event.approval.standing;
    let mut decided = |decision, state, settled: bool| {
        let approver = event.actor.clone().unwrap();
        standing.verdicts.retain(|verdict| verdict.approver != approver);
        let (reason, time) = (Text::empty(), event.time);
        standing.verdicts.push(Verdict { approver, decision, reason, time });
        standing.state = state;
        standing.decide_time = settled.then_some(event.time);
    };
    match event.kind {
        EventKind::Requested => {}
        EventKind::Escalated => standing.escalated_to = Some(event.workspace_id.clone()),
        EventKind::Reviewed => decided(Decision::Approve, State::Pending, false),
        EventKind::Approved => {
            decided(Decision::Approve, State::Approved, true);
            standing.expire_time = event.time + request.approved_ttl;
        }
        EventKind::Denied => {
            decided(Decision::Deny, State::Denied, true);
            standing.cooldown_end = Some(event.time + request.deny_cooldown);
        }
        EventKind::Consumed => {
            standing.state = State::Consumed;
            standing.consumption = after.consumption.clone();
        }
        EventKind::Expired => standing.state = State::Expired,
        EventKind::Withdrawn => standing.state = State::Withdrawn,
        EventKind::Revoked => standing.state = State::Revoked,
        EventKind::ResultReported => standing.result = after.result,
    }
    standing.version += 1;
}

fn name(answer: &Result<Gate, Error>) -> &'static str {
    match answer {
        Ok(Gate::Approved { replayed: false, .. }) => "let through",
        Ok(Gate::Approved { replayed: true, .. }) => "let through again",
        Ok(Gate::Pending(_)) => "held",
        Ok(Gate::Denied { .. }) => "refused",
        Err(Error::IdempotencyKeyReused) => "key reused",
        Err(Error::IdempotencyKeySpent) => "key spent",
        Err(Error::TooManyPending { .. }) => "too many",
        Err(other) => panic!("{other}"),
    }
}

/// What every run must have come across, or it has shown nothing.
const ANSWERS: &[&str] =
    &["let through", "let through again", "held", "refused", "key reused", "key spent", "too many"];

#[test]
fn the_promises_hold_whatever_happens() {
    let seen = RefCell::new(BTreeMap::new());
    let config = ProptestConfig { cases: 1500, failure_persistence: None, ..Default::default() };
    let checked = TestRunner::new(config).run(&steps(), |steps| {
        let mut history = History::new();
        steps.iter().try_for_each(|step| history.take(step, &mut seen.borrow_mut()))
    });
    let seen = seen.into_inner();
    println!("{seen:?}");
    if let Err(failed) = checked {
        panic!("{failed}");
    }
    let events = EventKind::ALL.iter().map(|kind| kind.as_str());
    for wanted in events.chain(ANSWERS.iter().copied()) {
        assert!(seen.contains_key(wanted), "never seen: {wanted}");
    }
}
