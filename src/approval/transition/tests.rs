use jiff::ToSpan;

use super::*;
use crate::names::OnBehalfOf;

mod builders;

fn text(words: &str) -> Text {
    Text::parse(words).unwrap()
}

fn decide(approver: &str, decision: Decision) -> Command {
    Command::Decide {
        approver: Principal::example(approver),
        decision,
        reason: text("Looks right"),
        request_hash: None,
    }
}

fn approve(approver: &str) -> Command {
    decide(approver, Decision::Approve)
}

fn deny(approver: &str) -> Command {
    decide(approver, Decision::Deny)
}

fn withdraw(requester: &str) -> Command {
    Command::Withdraw { requester: Principal::example(requester), reason: text("No longer needed") }
}

fn revoke(approver: &str) -> Command {
    Command::Revoke { approver: Principal::example(approver), reason: text("Wrong workspace") }
}

fn report(consumer: &str, result: OperationResult) -> Command {
    Command::Report { consumer: Principal::example(consumer), result, detail: text("Took 3 s") }
}

/// Applies a command while the approval has not lapsed.
fn apply_in_time(approval: &Approval, command: &Command) -> Outcome<Approval> {
    apply(approval, command, approval.last_moment())
}

/// Where commands that all succeed lead.
fn after_all(approval: Approval, commands: &[Command]) -> Approval {
    commands
        .iter()
        .fold(approval, |approval, command| apply_in_time(&approval, command).answer.unwrap())
}

fn requiring(approvals_required: u32) -> Approval {
    Approval::example().with_request(|request| request.approvals_required = approvals_required)
}

fn on_behalf_of(name: &str) -> Approval {
    Approval::example().with_request(|request| {
        request.operation.on_behalf_of = Some(OnBehalfOf::parse(name).unwrap());
    })
}

fn commands() -> [Command; 6] {
    [
        approve("alice"),
        deny("alice"),
        withdraw("backend"),
        revoke("alice"),
        report("backend", OperationResult::Succeeded),
        Command::Abandon,
    ]
}

/// The state after a command, the events it makes, and whether it is carried out.
type Row = (State, Vec<EventKind>, Result<(), Error>);

/// The table of states, for an approval that has not lapsed and needs one approver.
fn in_time(state: State, command: &Command) -> Row {
    use Decision::{Approve, Deny};
    use State::{Approved, Consumed, Denied, Expired, Pending, Revoked, Withdrawn};
    let moves = |state, kind| (state, vec![kind], Ok(()));
    let refused = |error| (state, vec![], Err(error));
    match (command, state) {
        (Command::Decide { decision, .. }, Pending) => match decision {
            Approve => moves(Approved, EventKind::Approved),
            Deny => moves(Denied, EventKind::Denied),
        },
        (Command::Decide { .. }, Approved | Denied | Consumed | Expired | Withdrawn | Revoked) => {
            refused(Error::NotPending(state))
        }
        (Command::Withdraw { .. }, Pending) => moves(Withdrawn, EventKind::Withdrawn),
        (
            Command::Withdraw { .. },
            Approved | Denied | Consumed | Expired | Withdrawn | Revoked,
        ) => refused(Error::NotPending(state)),
        (Command::Revoke { .. }, Approved) => moves(Revoked, EventKind::Revoked),
        (Command::Revoke { .. }, Pending | Denied | Consumed | Expired | Withdrawn | Revoked) => {
            refused(Error::NotApproved(state))
        }
        (Command::Report { .. }, Consumed) => moves(Consumed, EventKind::ResultReported),
        (Command::Report { .. }, Pending | Approved | Denied | Expired | Withdrawn | Revoked) => {
            refused(Error::NotConsumed(state))
        }
        (Command::Abandon, Pending) => moves(Expired, EventKind::Expired),
        (Command::Abandon, Approved) => moves(Revoked, EventKind::Revoked),
        (Command::Abandon, Denied | Consumed | Expired | Withdrawn | Revoked) => {
            (state, vec![], Ok(()))
        }
    }
}

/// The same at its deadline: what was open expires first and then meets the command as expired.
fn at_the_deadline(state: State, command: &Command) -> Row {
    match state {
        State::Pending | State::Approved => {
            let (after, events, answer) = in_time(State::Expired, command);
            (after, [vec![EventKind::Expired], events].concat(), answer)
        }
        State::Denied | State::Consumed | State::Expired | State::Withdrawn | State::Revoked => {
            in_time(state, command)
        }
    }
}

fn row(approval: &Approval, outcome: &Outcome<Approval>) -> Row {
    let after = outcome.events.last().map_or(approval, |e| &e.approval);
    if let Ok(answer) = &outcome.answer {
        assert_eq!(answer, after);
    }
    let answer = outcome.answer.clone().map(|_| ());
    (after.state(), outcome.kinds(), answer)
}

#[test]
fn every_command_does_to_every_state_what_the_table_says() {
    for &state in State::ALL {
        let approval = Approval::example_in(state);
        for command in commands() {
            let early = apply(&approval, &command, approval.last_moment());
            let late = apply(&approval, &command, approval.deadline());
            let told = format!("{command:?} on {state:?}");
            assert_eq!(row(&approval, &early), in_time(state, &command), "{told}");
            assert_eq!(row(&approval, &late), at_the_deadline(state, &command), "{told}, lapsed");
        }
    }
}

#[test]
fn every_event_is_one_version_on_and_leaves_the_request_alone() {
    for &state in State::ALL {
        let approval = Approval::example_in(state);
        for command in commands() {
            for now in [approval.last_moment(), approval.deadline()] {
                let outcome = apply(&approval, &command, now);
                for (event, version) in outcome.events.iter().zip(approval.standing.version + 1..) {
                    assert_eq!(event.approval.standing.version, version);
                    assert_eq!(event.approval.request, approval.request);
                    assert_eq!(event.workspace_id, approval.request.operation.workspace_id);
                    assert_eq!(event.time, now);
                }
            }
        }
    }
}

#[test]
fn a_quorum_of_two_takes_two_people() {
    let approval = requiring(2);
    let first = apply_in_time(&approval, &approve("alice"));
    assert_eq!(first.kinds(), [EventKind::Reviewed]);
    let reviewed = first.answer.unwrap();
    assert_eq!(reviewed.state(), State::Pending);
    assert_eq!(reviewed.standing.decide_time, None);
    let second = apply_in_time(&reviewed, &approve("bob"));
    assert_eq!(second.kinds(), [EventKind::Approved]);
    assert_eq!(second.answer.unwrap().state(), State::Approved);
}

#[test]
fn the_same_approver_counts_once() {
    let reviewed = after_all(requiring(2), &[approve("alice")]);
    let again = apply_in_time(&reviewed, &approve("alice"));
    assert_eq!(again, Outcome::unchanged(Ok(reviewed)));
}

#[test]
fn a_quorum_of_nobody_never_approves() {
    let approval = after_all(requiring(0), &[approve("alice"), approve("bob")]);
    assert_eq!(approval.state(), State::Pending);
}

#[test]
fn an_approval_that_was_given_lapses_on_its_own_terms() {
    let pending = Approval::example();
    let now = pending.request.create_time + 2.hours();
    let approved = apply(&pending, &approve("alice"), now).answer.unwrap();
    assert_eq!(approved.standing.decide_time, Some(now));
    assert_eq!(approved.deadline(), now + 1.hour());
}

#[test]
fn a_deadline_beyond_the_end_of_time_is_the_end_of_time() {
    let forever = Approval::example().with_request(|r| r.approved_ttl = SignedDuration::MAX);
    let approved = after_all(forever, &[approve("alice")]);
    assert_eq!(approved.deadline(), Timestamp::MAX);
}

#[test]
fn a_denial_starts_the_cooldown() {
    let pending = Approval::example();
    let now = pending.last_moment();
    let denied = apply(&pending, &deny("alice"), now).answer.unwrap();
    assert_eq!(denied.standing.decide_time, Some(now));
    assert_eq!(denied.standing.cooldown_end, Some(now + 15.minutes()));
    assert_eq!(denied.deadline(), pending.deadline());
}

#[test]
fn one_denial_settles_whatever_the_others_said() {
    let denied = after_all(requiring(3), &[approve("alice"), deny("bob")]);
    assert_eq!(denied.state(), State::Denied);
    assert_eq!(denied.standing.verdicts.len(), 2);
}

#[test]
fn a_denial_replaces_the_approvers_own_approval() {
    let denied = after_all(requiring(2), &[approve("alice"), deny("alice")]);
    assert_eq!(denied.state(), State::Denied);
    let [verdict] = denied.standing.verdicts.as_slice() else {
        panic!("{:?}", denied.standing.verdicts);
    };
    assert_eq!(verdict.decision, Decision::Deny);
}

#[test]
fn the_event_of_a_verdict_carries_it() {
    let reviewed = after_all(requiring(3), &[approve("alice"), approve("bob")]);
    let outcome = apply_in_time(&reviewed, &deny("alice"));
    let verdict = outcome.only_event().verdict().unwrap();
    assert_eq!(verdict.approver, Principal::example("alice"));
    assert_eq!(verdict.decision, Decision::Deny);
    assert_eq!(verdict.reason, text("Looks right"));
    assert_eq!(verdict.time, reviewed.last_moment());
}

#[test]
fn repeating_a_verdict_changes_nothing_after_settling_either() {
    for (state, verdict) in [
        (State::Approved, approve("bob")),
        (State::Consumed, approve("bob")),
        (State::Revoked, approve("bob")),
        (State::Denied, deny("bob")),
    ] {
        let settled = Approval::example_in(state);
        let again = apply_in_time(&settled, &verdict);
        assert_eq!(again, Outcome::unchanged(Ok(settled)));
    }
}

#[test]
fn changing_a_verdict_after_settling_is_refused() {
    let approved = Approval::example_in(State::Approved);
    let refused = apply_in_time(&approved, &deny("bob"));
    assert_eq!(refused.answer, Err(Error::NotPending(State::Approved)));
}

#[test]
fn nobody_decides_what_they_asked_for() {
    for (approval, asker) in [
        (Approval::example(), "backend"),
        (on_behalf_of("tokens:alice"), "alice"),
        (on_behalf_of("alice"), "alice"),
        (on_behalf_of("alice"), "backend"),
    ] {
        for verdict in [approve(asker), deny(asker)] {
            let refused = apply_in_time(&approval, &verdict);
            assert_eq!(refused, Outcome::unchanged(Err(Error::SelfApproval)));
        }
    }
}

/// A backend has its names from a directory of its own: in doubt it is the same person.
#[test]
fn a_namesake_of_another_source_may_not_decide() {
    for name in ["corp:alice", "Alice", "alice@corp.example"] {
        let refused = apply_in_time(&on_behalf_of(name), &approve("alice"));
        assert_eq!(refused, Outcome::unchanged(Err(Error::SelfApproval)), "{name}");
    }
}

#[test]
fn a_verdict_on_another_request_is_refused() {
    let shown = |request_hash| Command::Decide {
        approver: Principal::example("alice"),
        decision: Decision::Approve,
        reason: text("Looks right"),
        request_hash: Some(request_hash),
    };
    let approval = Approval::example();
    let other = RequestHash::from_bytes(&[7; 32]).unwrap();
    let refused = apply_in_time(&approval, &shown(other));
    assert_eq!(refused, Outcome::unchanged(Err(Error::HashMismatch)));
    let own = approval.request.operation.request_hash;
    assert!(apply_in_time(&approval, &shown(own)).answer.is_ok());
}

#[test]
fn a_verdict_that_comes_too_late_records_the_lapse() {
    let reviewed = after_all(requiring(2), &[approve("bob")]);
    let late = apply(&reviewed, &approve("alice"), reviewed.deadline());
    let expired = late.only_event();
    assert_eq!(expired.actor, None);
    assert_eq!(expired.approval.standing.verdicts, reviewed.standing.verdicts);
    assert_eq!(expired.approval.deadline(), reviewed.deadline());
    assert_eq!(late.answer, Err(Error::NotPending(State::Expired)));
}

#[test]
fn only_the_principal_that_asked_takes_a_request_back() {
    for other in ["alice", "backend-2"] {
        let refused = apply_in_time(&on_behalf_of("alice"), &withdraw(other));
        assert_eq!(refused, Outcome::unchanged(Err(Error::RoleMissing)));
    }
}

#[test]
fn only_the_consumer_reports_a_result() {
    let consumed = Approval::example_in(State::Consumed);
    let refused = apply_in_time(&consumed, &report("backend-2", OperationResult::Failed));
    assert_eq!(refused, Outcome::unchanged(Err(Error::RoleMissing)));
}

#[test]
fn the_first_result_stands() {
    let failed = report("backend", OperationResult::Failed);
    let reported = after_all(Approval::example_in(State::Consumed), std::slice::from_ref(&failed));
    assert_eq!(reported.standing.result, Some(OperationResult::Failed));
    let again = apply_in_time(&reported, &failed);
    assert_eq!(again, Outcome::unchanged(Ok(reported.clone())));
    let other = apply_in_time(&reported, &report("backend", OperationResult::Succeeded));
    let recorded = Error::ResultRecorded(OperationResult::Failed);
    assert_eq!(other, Outcome::unchanged(Err(recorded)));
}

#[test]
fn an_event_tells_who_and_in_which_words() {
    for (state, command, actor, note) in [
        (State::Pending, approve("alice"), "alice", None),
        (State::Pending, withdraw("backend"), "backend", Some("No longer needed")),
        (State::Approved, revoke("alice"), "alice", Some("Wrong workspace")),
        (State::Consumed, report("backend", OperationResult::Unknown), "backend", Some("Took 3 s")),
    ] {
        let outcome = apply_in_time(&Approval::example_in(state), &command);
        assert_eq!(outcome.events[0].actor, Some(Principal::example(actor)));
        assert_eq!(outcome.events[0].note, note.map(text));
    }
}
