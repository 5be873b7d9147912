//! Random steps: what people, backends, the keeper and the clock may do.

use jiff::SignedDuration;
use proptest::{
    prelude::*,
    sample::{Index, select},
};
use serde_json::json;

use crate::{
    approval::{
        Decision, Operation, OperationResult, State, Terms, gate::Require, transition::Command,
    },
    digest::Context,
    names::{Action, IdempotencyKey, Namespace, OnBehalfOf, Principal, Text, WorkspaceId},
};

pub(super) const MAX_PENDING: u32 = 3;

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The clock moves on.
    Pass(SignedDuration),
    Ask(Require),
    /// For what has been asked for before, preferably where it was approved or used.
    AskAgain(Index, Option<IdempotencyKey>),
    /// On one of the approvals that can be so commanded, or on any where there is none.
    Do(Index, Command),
    /// On any.
    DoLate(Index, Command),
    /// The keeper sees to an approval, whether or not its time has come.
    Keep(Index),
}

/// What is asked for each action.
pub(super) fn terms(action: &str) -> Terms {
    Terms {
        approvals_required: if action == "org_token_mint" { 2 } else { 1 },
        pending_ttl: SignedDuration::from_hours(3),
        approved_ttl: SignedDuration::from_mins(30),
        deny_cooldown: SignedDuration::from_mins(20),
        escalate_after: [SignedDuration::from_mins(15), SignedDuration::from_hours(1)].into(),
        max_pending: MAX_PENDING,
        policy_digest: "ab".repeat(32).into(),
    }
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let minutes =
        select(vec![1, 5, 9, 10, 20, 30, 60, 180, 1440]).prop_map(SignedDuration::from_mins);
    let moment = SignedDuration::from_nanos(1);
    let time = prop_oneof![
        8 => minutes.clone(),
        1 => Just(moment),
        1 => minutes.prop_map(move |minutes| minutes - moment),
    ];
    let step = prop_oneof![
        2 => time.prop_map(Step::Pass),
        3 => call().prop_map(Step::Ask),
        4 => (any::<Index>(), key()).prop_map(|(on, key)| Step::AskAgain(on, key)),
        6 => (any::<Index>(), command()).prop_map(|(on, command)| Step::Do(on, command)),
        1 => (any::<Index>(), command()).prop_map(|(on, command)| Step::DoLate(on, command)),
        1 => any::<Index>().prop_map(Step::Keep),
    ];
    proptest::collection::vec(step, 1..80)
}

fn key() -> impl Strategy<Value = Option<IdempotencyKey>> {
    let key = select(vec!["1", "2", "3", "4"]);
    proptest::option::of(key.prop_map(|key| IdempotencyKey::parse(key).unwrap()))
}

fn call() -> impl Strategy<Value = Require> {
    (
        select(vec!["leaf", "alone"]),
        select(vec!["delete_workspace", "org_token_mint"]),
        any::<bool>(),
        select(vec!["backend", "alice"]),
        prop_oneof![4 => Just(None), 1 => Just(Some("bob"))],
        key(),
    )
        .prop_map(|(workspace, action, force, by, on_behalf_of, key)| {
            let serde_json::Value::Object(parameters) = json!({ "force": force }) else {
                unreachable!("an object");
            };
            let operation = Operation::new(
                WorkspaceId::parse(workspace).unwrap(),
                Action::parse(action).unwrap(),
                Context::new(parameters).unwrap(),
                Principal::example(by),
                on_behalf_of.map(|name| OnBehalfOf::parse(name).unwrap()),
            );
            ask(operation, key)
        })
}

pub(super) fn ask(operation: Operation, key: Option<IdempotencyKey>) -> Require {
    let terms = terms(operation.action.as_str());
    let namespace = Namespace::default_namespace();
    Require { namespace, operation, reason: Text::empty(), key, terms }
}

fn command() -> impl Strategy<Value = Command> {
    let person = || select(vec!["alice", "bob", "carol"]).prop_map(Principal::example);
    let requester = || select(vec!["backend", "alice"]).prop_map(Principal::example);
    let reason = Text::empty;
    prop_oneof![
        8 => (person(), prop_oneof![4 => Just(Decision::Approve), 1 => Just(Decision::Deny)])
            .prop_map(move |(approver, decision)| Command::Decide {
                approver, decision, reason: reason(), request_hash: None
            }),
        1 => requester().prop_map(move |requester| Command::Withdraw { requester, reason: reason() }),
        1 => person().prop_map(move |approver| Command::Revoke { approver, reason: reason() }),
        2 => (requester(), select(OperationResult::ALL)).prop_map(move |(consumer, result)| {
            Command::Report { consumer, result, detail: reason() }
        }),
        // Not Abandon: it ends a history, and what holds within one ends with it.
    ]
}

/// The state that a command is for.
pub(super) fn fits(command: &Command) -> impl Fn(State) -> bool {
    let wanted: &[State] = match command {
        Command::Decide { .. } | Command::Withdraw { .. } => &[State::Pending],
        Command::Revoke { .. } => &[State::Approved],
        Command::Report { .. } => &[State::Consumed],
        Command::Abandon => &[State::Pending, State::Approved],
    };
    |state| wanted.contains(&state)
}
