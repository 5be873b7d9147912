//! Random steps. Which are likely depends on how the model stands, so that most of them do something; a step names
//! approvals by their operation, so that it means the same when the steps before it are taken away.

use approval_authority::proto::{ApprovalState, Decision, Result as OperationResult};
use proptest::{prelude::*, sample::select};
use proptest_state_machine::ReferenceStateMachine;

use super::{
    rules::{Approval, World},
    words::{APPROVERS, Command, Operation, REQUESTERS, Shown, Target},
};

/// Some time passes, and then somebody calls one of the servers.
#[derive(Clone, Debug)]
pub struct Step {
    /// In units.
    pub pass: u32,
    /// Whether the call comes before the keeper has seen to what is due.
    pub hurry: bool,
    pub server: usize,
    pub command: Command,
}

/// The model, as it decides which steps are likely.
pub struct Model;

impl ReferenceStateMachine for Model {
    type State = World;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<World> {
        Just(World::default()).boxed()
    }

    fn transitions(world: &World) -> BoxedStrategy<Step> {
        let pass = prop_oneof![16 => Just(0), 5 => 1..8u32, 1 => select(vec![12, 20, 288])];
        (pass, proptest::bool::weighted(0.3), 0..2usize, command(world))
            .prop_map(|(pass, hurry, server, command)| Step { pass, hurry, server, command })
            .boxed()
    }

    fn apply(mut world: World, step: &Step) -> World {
        world.now += step.pass;
        world.settle();
        world.carry_out(&step.command);
        world
    }
}

fn command(world: &World) -> BoxedStrategy<Command> {
    let ask = (operation(), key()).prop_map(|(operation, key)| Command::Require { operation, key });
    let known = known(world);
    if known.is_empty() {
        return ask.boxed();
    }
    let (pending, some_pending) = likely(&known, |a| a.state == ApprovalState::Pending);
    let (approved, some_approved) = likely(&known, |a| a.state == ApprovalState::Approved);
    // An answer can be read again for a short while only, and only until the result is reported.
    let (used, some_used) = likely(&known, |a| a.may_be_read_again(world.now));
    prop_oneof![
        5 => ask,
        2 * some_pending => (pending.clone(), approver(), decision(), shown())
            .prop_map(|((on, _), by, decision, shown)| Command::Decide { on, by, decision, shown }),
        2 * some_approved => (approved.clone(), key())
            .prop_map(|((on, _), key)| Command::Require { operation: on.operation, key }),
        2 * some_used => used.clone()
            .prop_map(|(on, key)| Command::Require { operation: on.operation, key }),
        2 * some_used => (used.prop_flat_map(requester), result())
            .prop_map(|((on, by), result)| Command::Report { on, by, result }),
        1 => pending.prop_flat_map(requester).prop_map(|(on, by)| Command::Withdraw { on, by }),
        1 => (approved, approver()).prop_map(|((on, _), by)| Command::Revoke { on, by }),
    ]
    .boxed()
}

/// An approval, as a step names it, and the key of the attempt that used it.
type Named = (Target, &'static str);

fn known(world: &World) -> Vec<(Named, &Approval)> {
    let approvals = world.approvals.iter().enumerate();
    let named = approvals.map(|(place, approval)| {
        let later = world.approvals[place + 1..].iter();
        let before = later.filter(|later| later.operation == approval.operation).count();
        let target = Target { operation: approval.operation.clone(), before };
        ((target, approval.key), approval)
    });
    named.collect()
}

/// Approvals that fit, where there are some, and now and then another or none at all; and a weight: little where
/// there are none that fit.
fn likely(
    known: &[(Named, &Approval)],
    fits: impl Fn(&Approval) -> bool,
) -> (BoxedStrategy<Named>, u32) {
    let named = |(named, _): &(Named, &Approval)| named.clone();
    let all: Vec<Named> = known.iter().map(named).collect();
    let fit: Vec<Named> = known.iter().filter(|(_, approval)| fits(approval)).map(named).collect();
    let missing = operation().prop_map(|operation| (Target { operation, before: 2 }, ""));
    let weight = if fit.is_empty() { 1 } else { 6 };
    let fit = if fit.is_empty() { all.clone() } else { fit };
    (prop_oneof![16 => select(fit), 3 => select(all), 1 => missing].boxed(), weight)
}

/// Mostly who asked for it.
fn requester((on, _): Named) -> impl Strategy<Value = (Target, &'static str)> {
    let requester = Just(on.operation.requester);
    let by = prop_oneof![6 => requester, 1 => select(["backend-2", "alice", "bob"].as_slice())];
    (Just(on), by)
}

fn key() -> impl Strategy<Value = &'static str> + Clone {
    select(["attempt-1", "attempt-2", "attempt-3", "attempt-4", ""].as_slice())
}

fn operation() -> impl Strategy<Value = Operation> + Clone {
    let action = prop_oneof![
        6 => Just("delete_workspace"), 4 => Just("org_token_mint"), 1 => Just("list_files")
    ];
    let on_behalf_of =
        prop_oneof![6 => Just(""), 1 => Just("bob"), 1 => Just("Carol@corp.example")];
    (
        prop_oneof![1 => Just("alone"), 1 => Just("team"), 3 => Just("leaf")],
        action,
        proptest::bool::weighted(0.2),
        select(REQUESTERS),
        on_behalf_of,
    )
        .prop_map(|(workspace, action, force, requester, on_behalf_of)| Operation {
            workspace,
            action,
            force,
            requester,
            on_behalf_of,
        })
}

fn approver() -> impl Strategy<Value = &'static str> {
    prop_oneof![20 => select(APPROVERS), 1 => Just("backend")]
}

fn decision() -> impl Strategy<Value = Decision> {
    prop_oneof![4 => Just(Decision::Approve), 1 => Just(Decision::Deny)]
}

fn shown() -> impl Strategy<Value = Shown> {
    prop_oneof![6 => Just(Shown::Unsaid), 6 => Just(Shown::This), 1 => Just(Shown::Another)]
}

fn result() -> impl Strategy<Value = OperationResult> {
    prop_oneof![3 => Just(OperationResult::Succeeded), 1 => Just(OperationResult::Failed)]
}
