use jiff::ToSpan;

use super::{
    State::{Approved, Consumed, Denied, Expired, Pending, Revoked, Withdrawn},
    *,
};
use crate::{
    approval::OperationResult,
    names::{OnBehalfOf, Principal},
};

const NEW_ID: Uuid = Uuid::from_u128(2);

impl Require {
    /// A call for `Operation::example`, under a policy that asks for two approvers.
    fn example() -> Self {
        Self {
            namespace: Namespace::default_namespace(),
            operation: Operation::example(),
            reason: Text::parse("Unused since May").unwrap(),
            key: Some(IdempotencyKey::parse("attempt-1").unwrap()),
            terms: Terms {
                approvals_required: 2,
                pending_ttl: SignedDuration::from_hours(24),
                approved_ttl: SignedDuration::from_hours(2),
                deny_cooldown: SignedDuration::from_mins(30),
                escalate_after: [SignedDuration::from_hours(1), SignedDuration::from_hours(4)]
                    .into(),
                max_pending: 3,
                policy_digest: "ab".repeat(32).into(),
            },
        }
    }

    fn by(mut self, subject: &str) -> Self {
        self.operation.requested_by = Principal::example(subject);
        self
    }
}

fn nothing() -> Circumstances {
    Circumstances::default()
}

impl Circumstances {
    fn open(mut self, approval: Approval) -> Self {
        self.open = Some(approval);
        self
    }

    fn denial(mut self, approval: Approval) -> Self {
        self.denial = Some(approval);
        self
    }

    fn key_holder(mut self, approval: Approval) -> Self {
        self.key_holder = Some(approval);
        self
    }

    fn pending(mut self, count: u32) -> Self {
        self.pending = count;
        self
    }
}

fn call_at(found: &Circumstances, now: Timestamp) -> Outcome<Gate> {
    require(&Require::example(), found, NEW_ID, now)
}

fn call(found: &Circumstances) -> Outcome<Gate> {
    call_at(found, Approval::example().request.create_time)
}

fn denied() -> Approval {
    Approval::example_in(State::Denied)
}

fn cooldown_end() -> Timestamp {
    denied().standing.cooldown_end.unwrap()
}

fn consumed() -> Approval {
    Approval::example_in(State::Consumed)
}

fn consume_time() -> Timestamp {
    consumed().standing.consumption.unwrap().time
}

fn repeat_at(consumed: &Approval, now: Timestamp) -> Outcome<Gate> {
    call_at(&nothing().key_holder(consumed.clone()), now)
}

fn answer_again() -> Gate {
    Gate::Approved { approval: consumed(), replayed: true }
}

fn spent() -> Outcome<Gate> {
    Outcome::unchanged(Err(Error::IdempotencyKeySpent))
}

/// What a call to the gate comes to where it finds one approval.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Joins,
    Consumes,
    Asks,
    ExpiresItAndAsks,
}

fn in_time(state: State) -> Found {
    match state {
        Pending => Found::Joins,
        Approved => Found::Consumes,
        Denied | Consumed | Expired | Withdrawn | Revoked => Found::Asks,
    }
}

fn at_the_deadline(state: State) -> Found {
    match state {
        Pending | Approved => Found::ExpiresItAndAsks,
        Denied | Consumed | Expired | Withdrawn | Revoked => Found::Asks,
    }
}

/// Reads what happened from the events and the answer together; they must agree.
fn what_happened(open: &Approval, outcome: &Outcome<Gate>) -> Found {
    let answer = outcome.answer.as_ref().unwrap();
    match (outcome.kinds().as_slice(), answer) {
        ([], Gate::Pending(joined)) if joined == open => Found::Joins,
        ([EventKind::Consumed], Gate::Approved { approval, replayed })
            if approval.id() == open.id() && !replayed =>
        {
            Found::Consumes
        }
        ([EventKind::Requested], Gate::Pending(new)) if new.id() == NEW_ID => Found::Asks,
        ([EventKind::Expired, EventKind::Requested], Gate::Pending(new))
            if new.id() == NEW_ID && outcome.events[0].approval.id() == open.id() =>
        {
            Found::ExpiresItAndAsks
        }
        _ => panic!("{outcome:?}"),
    }
}

#[test]
fn the_gate_does_to_every_state_what_the_table_says() {
    for &state in State::ALL {
        let open = Approval::example_in(state);
        let found = nothing().open(open.clone());
        let early = call_at(&found, open.last_moment());
        let late = call_at(&found, open.deadline());
        assert_eq!(what_happened(&open, &early), in_time(state), "{state:?}");
        assert_eq!(what_happened(&open, &late), at_the_deadline(state), "{state:?}, lapsed");
    }
}

#[test]
fn a_request_is_recorded_on_the_terms_of_the_policy() {
    let found = Circumstances { recent_denials: 4, ..nothing() };
    let outcome = call(&found);
    let event = outcome.only_event();
    let command = Require::example();
    let expected = Request {
        id: NEW_ID,
        namespace: command.namespace,
        operation: command.operation,
        reason: command.reason,
        approvals_required: 2,
        approved_ttl: SignedDuration::from_hours(2),
        deny_cooldown: SignedDuration::from_mins(30),
        escalate_after: command.terms.escalate_after,
        policy_digest: "ab".repeat(32).into(),
        recent_denials: 4,
        create_time: Approval::example().request.create_time,
    };
    assert_eq!(*event.approval.request, expected);
    assert_eq!(event.approval.standing, Approval::example().standing);
    assert_eq!(event.actor, Some(Principal::example("backend")));
    assert_eq!(event.workspace_id.as_str(), "ws-1");
    assert_eq!(outcome.answer, Ok(Gate::Pending(event.approval.clone())));
}

#[test]
fn a_request_is_brought_before_the_parent_at_once() {
    let parent = WorkspaceId::parse("ws-parent").unwrap();
    let outcome = call(&Circumstances { parent: Some(parent.clone()), ..nothing() });
    let [requested, escalated] = outcome.events.as_slice() else {
        panic!("{outcome:?}");
    };
    assert_eq!(requested.kind, EventKind::Requested);
    assert_eq!(requested.approval.standing.version, 1);
    assert_eq!(requested.workspace_id.as_str(), "ws-1");
    assert_eq!(escalated.kind, EventKind::Escalated);
    assert_eq!(escalated.approval.standing.version, 2);
    assert_eq!(escalated.workspace_id, parent);
    assert_eq!(escalated.actor, None);
    assert_eq!(escalated.approval.deadline(), requested.approval.deadline());
    let joined = Gate::Pending(escalated.approval.clone());
    assert_eq!(outcome.answer, Ok(joined));
}

#[test]
fn an_approval_that_lapsed_makes_way_for_a_new_request() {
    for state in [State::Pending, State::Approved] {
        let open = Approval::example_in(state);
        let outcome = call_at(&nothing().open(open.clone()), open.deadline());
        let [expired, requested] = outcome.events.as_slice() else {
            panic!("{outcome:?}");
        };
        assert_eq!(expired.approval.state(), State::Expired);
        assert_eq!(expired.approval.standing.version, open.standing.version + 1);
        assert_eq!(expired.actor, None);
        assert_eq!(requested.approval.id(), NEW_ID);
        assert_eq!(requested.approval.standing.version, 1);
        assert!(requested.is_request());
    }
}

#[test]
fn consuming_says_when_by_whom_and_in_which_attempt() {
    let approved = Approval::example_in(State::Approved);
    let now = approved.last_moment();
    let outcome = call_at(&nothing().open(approved.clone()), now);
    let event = outcome.only_event();
    let mut expected = approved.standing.clone();
    expected.state = State::Consumed;
    expected.version += 1;
    expected.consumption = Some(Consumption {
        time: now,
        by: Principal::example("backend"),
        key: Some(IdempotencyKey::parse("attempt-1").unwrap()),
    });
    assert_eq!(event.approval.standing, expected);
    assert_eq!(event.approval.request, approved.request);
    assert_eq!(event.actor, Some(Principal::example("backend")));
}

#[test]
fn the_same_attempt_reads_its_answer_again_for_ten_minutes() {
    let end = consume_time() + 10.minutes();
    for now in [consume_time(), end - 1.nanosecond()] {
        let outcome = repeat_at(&consumed(), now);
        assert_eq!(outcome, Outcome::unchanged(Ok(answer_again())));
    }
    assert_eq!(repeat_at(&consumed(), end), spent());
}

#[test]
fn an_attempt_is_over_once_its_result_is_reported() {
    for &result in OperationResult::ALL {
        let mut reported = consumed();
        reported.standing.result = Some(result);
        assert_eq!(repeat_at(&reported, consume_time()), spent());
    }
}

#[test]
fn a_key_is_of_one_operation() {
    let found = nothing().key_holder(consumed());
    let mut elsewhere = Require::example();
    elsewhere.operation = Operation::new(
        WorkspaceId::parse("ws-2").unwrap(),
        elsewhere.operation.action,
        elsewhere.operation.context,
        elsewhere.operation.requested_by,
        None,
    );
    let mut for_somebody = Require::example();
    for_somebody.operation.on_behalf_of = Some(OnBehalfOf::parse("alice").unwrap());
    for command in [elsewhere, for_somebody] {
        let refused = require(&command, &found, NEW_ID, consume_time());
        assert_eq!(refused, Outcome::unchanged(Err(Error::IdempotencyKeyReused)));
    }
}

// The operation may have run already: its caller must be able to learn that, whatever was decided since.
#[test]
fn a_repeated_answer_is_given_in_a_cooldown_too() {
    let found = nothing().key_holder(consumed()).denial(denied());
    let outcome = call_at(&found, consume_time());
    assert_eq!(outcome.answer, Ok(answer_again()));
}

#[test]
fn a_denial_answers_whoever_asks() {
    let found = nothing().denial(denied());
    let now = cooldown_end() - 90.seconds();
    for subject in ["backend", "backend-2"] {
        let outcome = require(&Require::example().by(subject), &found, NEW_ID, now);
        let refusal =
            Gate::Denied { approval: denied(), retry_after: SignedDuration::from_secs(90) };
        assert_eq!(outcome, Outcome::unchanged(Ok(refusal)));
    }
}

#[test]
fn a_denial_comes_before_what_is_open() {
    for state in [State::Pending, State::Approved] {
        let found = nothing().denial(denied()).open(Approval::example_in(state));
        let outcome = call_at(&found, cooldown_end() - 1.minute());
        let Ok(Gate::Denied { .. }) = outcome.answer else {
            panic!("{outcome:?}");
        };
        assert_eq!(outcome.events, []);
    }
}

#[test]
fn a_denial_is_over_when_its_cooldown_ends() {
    let found = nothing().denial(denied());
    let before = call_at(&found, cooldown_end() - 1.nanosecond());
    let Ok(Gate::Denied { retry_after, .. }) = before.answer else {
        panic!("{before:?}");
    };
    assert_eq!(retry_after, SignedDuration::from_nanos(1));
    let at_the_end = call_at(&found, cooldown_end());
    assert_eq!(at_the_end.kinds(), [EventKind::Requested]);
}

#[test]
fn a_workspace_has_at_most_max_pending_requests() {
    let pending = |count| nothing().pending(count);
    assert_eq!(call(&pending(2)).kinds(), [EventKind::Requested]);
    for at_least_three in [3, 4] {
        let too_many = Err(Error::TooManyPending { limit: 3 });
        assert_eq!(call(&pending(at_least_three)), Outcome::unchanged(too_many));
    }
}

#[test]
fn the_cap_stops_only_new_requests() {
    for state in [State::Pending, State::Approved] {
        let open = Approval::example_in(state);
        let found = nothing().open(open.clone()).pending(3);
        let outcome = call_at(&found, open.last_moment());
        assert_eq!(what_happened(&open, &outcome), in_time(state));
    }
}

#[test]
fn a_lapse_is_recorded_though_the_cap_stops_the_request() {
    let open = Approval::example();
    let found = nothing().open(open.clone()).pending(3);
    let outcome = call_at(&found, open.deadline());
    assert_eq!(outcome.kinds(), [EventKind::Expired]);
    assert_eq!(outcome.answer, Err(Error::TooManyPending { limit: 3 }));
}

#[test]
fn joining_answers_for_a_pending_approval_in_time_and_for_no_other() {
    for &state in State::ALL {
        let open = Approval::example_in(state);
        let found = nothing().open(open.clone());
        let expected = match in_time(state) {
            Found::Joins => Some(Gate::Pending(open.clone())),
            Found::Consumes | Found::Asks | Found::ExpiresItAndAsks => None,
        };
        assert_eq!(join(&found, open.last_moment()), expected, "{state:?}");
        assert_eq!(join(&found, open.deadline()), None, "{state:?}, lapsed");
    }
}

#[test]
fn joining_answers_with_a_denial_that_stands() {
    let now = cooldown_end() - 1.second();
    let alone = nothing().denial(denied());
    for found in [alone.clone(), alone.open(Approval::example())] {
        let refusal = join(&found, now);
        assert!(matches!(refusal, Some(Gate::Denied { .. })), "{refusal:?}");
        assert_eq!(refusal, call_at(&found, now).answer.ok());
    }
}

#[test]
fn joining_leaves_a_known_key_to_the_gate() {
    let known = nothing().key_holder(consumed());
    for found in [known.clone(), known.clone().denial(denied()), known.open(Approval::example())] {
        assert_eq!(join(&found, consume_time()), None);
    }
}
