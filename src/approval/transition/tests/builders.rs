//! What tests start from, here and at the gate: associated functions, which both can call.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp, ToSpan};
use serde_json::json;
use uuid::Uuid;

use crate::{
    approval::{
        Approval, Consumption, Decision, Event, EventKind, Operation, Request, Standing, State,
        Verdict, transition::Outcome,
    },
    digest::Context,
    names::{Action, Namespace, Principal, Text, WorkspaceId},
};

impl Principal {
    /// The principal of a token.
    pub(crate) fn example(subject: &str) -> Self {
        Self::new("tokens", subject).unwrap()
    }
}

impl Operation {
    /// What the principal `backend` asks for, in nobody's name.
    pub(crate) fn example() -> Self {
        let serde_json::Value::Object(parameters) = json!({ "force": true }) else {
            unreachable!("an object");
        };
        Self::new(
            WorkspaceId::parse("ws-1").unwrap(),
            Action::parse("delete_workspace").unwrap(),
            Context::new(parameters).unwrap(),
            Principal::example("backend"),
            None,
        )
    }
}

impl Approval {
    /// What `Operation::example` needs: one approver, within a day; ancestors hear of it after one hour and four.
    pub(crate) fn example() -> Self {
        let create_time: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        Self {
            request: Arc::new(Request {
                id: Uuid::from_u128(1),
                namespace: Namespace::default_namespace(),
                operation: Operation::example(),
                reason: Text::parse("Unused since May").unwrap(),
                approvals_required: 1,
                approved_ttl: SignedDuration::from_hours(1),
                deny_cooldown: SignedDuration::from_mins(15),
                escalate_after: [SignedDuration::from_hours(1), SignedDuration::from_hours(4)]
                    .into(),
                policy_digest: "0f".repeat(32).into(),
                recent_denials: 0,
                create_time,
            }),
            standing: Standing {
                state: State::Pending,
                version: 1,
                verdicts: Vec::new(),
                expire_time: create_time + 24.hours(),
                decide_time: None,
                consumption: None,
                cooldown_end: None,
                result: None,
                escalated_to: None,
                escalate_time: Some(create_time + 1.hour()),
            },
        }
    }

    /// One that stands there as it would had `bob` decided, and `backend` used it.
    pub(crate) fn example_in(state: State) -> Self {
        let mut approval = Self::example();
        let decide_time = approval.request.create_time + 1.hour();
        let standing = &mut approval.standing;
        standing.state = state;
        let decision = match state {
            State::Pending => None,
            State::Withdrawn | State::Expired => {
                standing.version = 2;
                None
            }
            State::Denied => {
                standing.version = 2;
                standing.cooldown_end = Some(decide_time + 15.minutes());
                Some(Decision::Deny)
            }
            State::Approved => {
                standing.version = 2;
                Some(Decision::Approve)
            }
            State::Revoked => {
                standing.version = 3;
                Some(Decision::Approve)
            }
            State::Consumed => {
                standing.version = 3;
                standing.consumption = Some(Consumption {
                    time: decide_time + 1.minute(),
                    by: Principal::example("backend"),
                    key: None,
                });
                Some(Decision::Approve)
            }
        };
        if state != State::Pending {
            standing.escalate_time = None;
        }
        if let Some(decision) = decision {
            standing.decide_time = Some(decide_time);
            standing.verdicts.push(Verdict {
                approver: Principal::example("bob"),
                decision,
                reason: Text::parse("As agreed").unwrap(),
                time: decide_time,
            });
        }
        approval
    }

    /// The same, with something else asked for.
    pub(crate) fn with_request(mut self, alter: impl FnOnce(&mut Request)) -> Self {
        alter(Arc::make_mut(&mut self.request));
        self
    }

    /// The last moment at which it has not lapsed.
    pub(crate) fn last_moment(&self) -> Timestamp {
        self.deadline() - 1.nanosecond()
    }

    /// The first moment at which it has.
    pub(crate) fn deadline(&self) -> Timestamp {
        self.standing.expire_time
    }
}

impl<T> Outcome<T> {
    /// What happened, in order.
    pub(crate) fn kinds(&self) -> Vec<EventKind> {
        self.events.iter().map(|event| event.kind).collect()
    }

    /// The one thing that happened.
    pub(crate) fn only_event(&self) -> &Event {
        match self.events.as_slice() {
            [event] => event,
            events => panic!("not one event: {events:?}"),
        }
    }
}
