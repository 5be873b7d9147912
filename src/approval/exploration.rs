//! Every path there is, up to a depth: one operation, two attempts to execute it, three who would approve it (one of
//! them the requester), the keeper, a clock that crosses every deadline, and answers that are lost after the command was
//! carried out. What each state promises is asked of the core itself, by making the call.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
};

use jiff::SignedDuration;
use stateright::{Checker, HasDiscoveries, Model, Property};
use uuid::Uuid;

use super::{
    Decision, Operation, OperationResult, State, Terms,
    gate::{Gate, Require},
    transition::Command,
    world::World,
};
use crate::{
    error::Error,
    names::{IdempotencyKey, Namespace, Principal, Text},
};

/// How far. One more takes three times as long.
const STEPS: usize = 9;

const TICK: SignedDuration = SignedDuration::from_mins(5);
const PENDING_TTL: SignedDuration = SignedDuration::from_mins(15);
const APPROVED_TTL: SignedDuration = SignedDuration::from_mins(10);
const COOLDOWN: SignedDuration = SignedDuration::from_mins(10);
const TEN_MINUTES: SignedDuration = SignedDuration::from_mins(10);

const REQUESTER: &str = "backend";
const WOULD_BE_APPROVERS: &[&str] = &["alice", "bob", REQUESTER];
const ATTEMPTS: &[&str] = &["attempt-1", "attempt-2"];

/// What is explored.
struct Approvals {
    required: u32,
    /// The call that each of `ATTEMPTS` makes.
    calls: Vec<Require>,
    /// Calls for the same, by others or without a key.
    other_calls: Vec<Require>,
    checked: AtomicUsize,
}

/// A state of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Moment {
    world: World,
    /// How far each of `ATTEMPTS` has come.
    attempts: [Attempt; 2],
    /// Which attempts the gate has let through, and under which approval, whether or not they know.
    let_through: BTreeSet<(usize, Uuid)>,
    /// Who has approved what.
    approvers: BTreeSet<(Uuid, &'static str)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Attempt {
    /// Asks the gate, until it is told that it is let through.
    Asks,
    /// Was told so; `again` if it had been before, and the answer was lost.
    Runs { under: Uuid, again: bool },
    /// Has reported its result.
    Ended,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Ask { attempt: usize, lost: bool },
    Report { attempt: usize, lost: bool },
    Decide { on: usize, approver: &'static str, decision: Decision },
    Withdraw { on: usize },
    Revoke { on: usize },
    Keep { on: usize },
    Tick,
}

impl Approvals {
    fn new(required: u32) -> Self {
        let call = |requester, key| call(required, requester, key);
        let other_calls =
            [(REQUESTER, None), (REQUESTER, Some("another")), ("other-backend", None)];
        Self {
            required,
            calls: ATTEMPTS.iter().map(|key| call(REQUESTER, Some(key))).collect(),
            other_calls: other_calls.map(|(requester, key)| call(requester, key)).into(),
            checked: AtomicUsize::new(0),
        }
    }

    fn ask(&self, moment: &mut Moment, attempt: usize) -> Result<Gate, Error> {
        moment.world.require(&self.calls[attempt]).answer
    }

    /// What an attempt would be told now.
    fn would_be_told(&self, moment: &Moment, attempt: usize) -> Result<Gate, Error> {
        self.ask(&mut moment.clone(), attempt)
    }
}

fn call(required: u32, requester: &str, key: Option<&str>) -> Require {
    let mut operation = Operation::example();
    operation.requested_by = Principal::example(requester);
    Require {
        namespace: Namespace::default_namespace(),
        operation,
        reason: Text::empty(),
        key: key.map(|key| IdempotencyKey::parse(key).unwrap()),
        terms: Terms {
            approvals_required: required,
            pending_ttl: PENDING_TTL,
            approved_ttl: APPROVED_TTL,
            deny_cooldown: COOLDOWN,
            escalate_after: [].into(),
            max_pending: 1,
            policy_digest: "".into(),
        },
    }
}

impl Moment {
    fn any(&self, state: State) -> bool {
        self.world.approvals.iter().any(|approval| approval.state() == state)
    }

    /// Whether the attempt that an approval was used for can still read its answer.
    fn may_read_again(&self, id: Uuid) -> bool {
        self.world.approvals.iter().filter(|approval| approval.id() == id).any(|approval| {
            let used = approval.standing.consumption.as_ref().unwrap().time;
            self.world.now < used + TEN_MINUTES && approval.standing.result.is_none()
        })
    }
}

impl Model for Approvals {
    type State = Moment;
    type Action = Step;

    fn init_states(&self) -> Vec<Moment> {
        vec![Moment {
            world: World::new(),
            attempts: [Attempt::Asks; 2],
            let_through: BTreeSet::new(),
            approvers: BTreeSet::new(),
        }]
    }

    fn actions(&self, moment: &Moment, steps: &mut Vec<Step>) {
        for (attempt, stands) in moment.attempts.iter().enumerate() {
            for lost in [false, true] {
                match stands {
                    Attempt::Asks => steps.push(Step::Ask { attempt, lost }),
                    Attempt::Runs { .. } => steps.push(Step::Report { attempt, lost }),
                    Attempt::Ended => {}
                }
            }
        }
        for on in 0..moment.world.approvals.len() {
            for &approver in WOULD_BE_APPROVERS {
                for &decision in Decision::ALL {
                    steps.push(Step::Decide { on, approver, decision });
                }
            }
            steps.extend([Step::Withdraw { on }, Step::Revoke { on }, Step::Keep { on }]);
        }
        steps.push(Step::Tick);
    }

    fn next_state(&self, before: &Moment, step: Step) -> Option<Moment> {
        let mut after = before.clone();
        let reason = Text::empty();
        match step {
            Step::Ask { attempt, lost } => {
                if let Ok(Gate::Approved { approval, replayed }) = self.ask(&mut after, attempt) {
                    let under = approval.id();
                    after.let_through.insert((attempt, under));
                    if !lost {
                        after.attempts[attempt] = Attempt::Runs { under, again: replayed };
                    }
                }
            }
            Step::Report { attempt, lost } => {
                let Attempt::Runs { under, .. } = before.attempts[attempt] else { return None };
                let on = before.world.approvals.iter().position(|a| a.id() == under)?;
                let consumer = Principal::example(REQUESTER);
                let result = OperationResult::Succeeded;
                let report = Command::Report { consumer, result, detail: reason };
                let reported = after.world.apply(on, &report);
                if reported.answer.is_ok() && !lost {
                    after.attempts[attempt] = Attempt::Ended;
                }
            }
            Step::Decide { on, approver, decision } => {
                let principal = Principal::example(approver);
                let verdict =
                    Command::Decide { approver: principal, decision, reason, request_hash: None };
                let decided = after.world.apply(on, &verdict);
                if let (Ok(approval), Decision::Approve) = (decided.answer, decision) {
                    after.approvers.insert((approval.id(), approver));
                }
            }
            Step::Withdraw { on } => {
                let requester = Principal::example(REQUESTER);
                after.world.apply(on, &Command::Withdraw { requester, reason });
            }
            Step::Revoke { on } => {
                let approver = Principal::example("alice");
                after.world.apply(on, &Command::Revoke { approver, reason });
            }
            Step::Keep { on } => {
                after.world.keep(on);
            }
            Step::Tick => after.world.now += TICK,
        }
        (after != *before).then_some(after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let always = Property::<Self>::always;
        let sometimes = Property::<Self>::sometimes;
        vec![
            always("each state is counted", |model, _| {
                model.checked.fetch_add(1, Ordering::Relaxed);
                true
            }),
            always("an approval lets one attempt through at most", |_, moment| {
                let ids: BTreeSet<Uuid> = moment.let_through.iter().map(|(_, id)| *id).collect();
                ids.len() == moment.let_through.len()
            }),
            always("an attempt is let through under one approval", |_, moment| {
                let attempts: BTreeSet<_> = moment.let_through.iter().map(|(n, _)| n).collect();
                attempts.len() == moment.let_through.len()
            }),
            always("what lets through was approved by enough others", |model, moment| {
                moment.let_through.iter().all(|(_, under)| {
                    let others = moment
                        .approvers
                        .iter()
                        .filter(|(id, who)| id == under && *who != REQUESTER);
                    others.count() >= model.required as usize
                })
            }),
            always("what lets through had not lapsed, and is used for ever", |_, moment| {
                moment.let_through.iter().all(|(_, id)| {
                    moment.world.approvals.iter().filter(|a| a.id() == *id).all(|approval| {
                        let used = approval.standing.consumption.as_ref().unwrap().time;
                        approval.state() == State::Consumed && used < approval.standing.expire_time
                    })
                })
            }),
            always("an attempt reads its answer again, for a while", |model, moment| {
                moment.let_through.iter().all(|(attempt, id)| {
                    match model.would_be_told(moment, *attempt) {
                        Ok(Gate::Approved { approval, replayed }) => {
                            replayed && approval.id() == *id && moment.may_read_again(*id)
                        }
                        told => {
                            told == Err(Error::IdempotencyKeySpent) && !moment.may_read_again(*id)
                        }
                    }
                })
            }),
            always("a denial holds for everybody", |model, moment| {
                let stands = moment.world.approvals.iter().any(|approval| {
                    approval.state() == State::Denied
                        && moment.world.now < approval.standing.decide_time.unwrap() + COOLDOWN
                });
                model.other_calls.iter().all(|call| {
                    let told = moment.world.clone().require(call).answer;
                    matches!(told, Ok(Gate::Denied { .. })) == stands
                })
            }),
            always("one question at a time", |_, moment| {
                moment.world.approvals.iter().filter(|a| a.state().is_open()).count() <= 1
            }),
            // What the store reads of verdicts hangs on it (`standing_columns`).
            always("what is pending has fewer verdicts than it needs", |model, moment| {
                let mut approvals = moment.world.approvals.iter();
                approvals.all(|approval| {
                    approval.state() != State::Pending
                        || approval.standing.verdicts.len() < model.required as usize
                })
            }),
            sometimes("an answer is read again", |_, moment| {
                moment.attempts.iter().any(|a| matches!(a, Attempt::Runs { again: true, .. }))
            }),
            sometimes("a lost answer is lost for good", |_, moment| {
                moment.let_through.iter().any(|(attempt, id)| {
                    moment.attempts[*attempt] == Attempt::Asks && !moment.may_read_again(*id)
                })
            }),
            sometimes("both attempts run, each under its own", |_, moment| {
                moment.attempts.iter().all(|a| matches!(a, Attempt::Runs { .. }))
            }),
            sometimes("a result is reported", |_, moment| {
                moment.attempts.contains(&Attempt::Ended)
            }),
            sometimes("denied", |_, moment| moment.any(State::Denied)),
            sometimes("withdrawn", |_, moment| moment.any(State::Withdrawn)),
            sometimes("revoked", |_, moment| moment.any(State::Revoked)),
            sometimes("expired undecided", |_, moment| {
                let approvals = moment.world.approvals.iter();
                let mut expired = approvals.filter(|a| a.state() == State::Expired);
                expired.any(|approval| approval.standing.decide_time.is_none())
            }),
            sometimes("expired unused", |_, moment| {
                let approvals = moment.world.approvals.iter();
                let mut expired = approvals.filter(|a| a.state() == State::Expired);
                expired.any(|approval| approval.standing.decide_time.is_some())
            }),
            sometimes("asked anew after a denial", |_, moment| {
                let approvals = &moment.world.approvals;
                approvals.len() > 1 && approvals[0].state() == State::Denied
            }),
        ]
    }
}

/// One thread, so that the search is breadth-first and no state is missed that is within reach. What is reached last,
/// one step further, is not looked at.
fn explore(required: u32) {
    let checker = Approvals::new(required).checker().finish_when(HasDiscoveries::AnyFailures);
    let explored = checker.target_max_depth(STEPS + 2).spawn_bfs().join();
    let checked = explored.model().checked.load(Ordering::Relaxed);
    println!("{required} approvers required: {checked} states, all within {STEPS} steps");
    explored.assert_properties();
}

#[test]
fn no_path_lets_through_what_one_approval_does_not_allow() {
    explore(1);
}

#[test]
fn no_path_lets_through_what_two_have_not_approved() {
    explore(2);
}
