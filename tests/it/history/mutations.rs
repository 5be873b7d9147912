//! The checker is checked: it finds nothing in a history in which all is well, and each rule finds what breaks it.

use std::collections::BTreeSet;

use approval_authority::approval::{EventKind, State};
use jiff::SignedDuration;

use super::{
    check::{RULES, check},
    record::{Answer, Ask, Call, Event, History, Row},
    story::{ALICE, BACKEND, BOB, all_is_well, operation},
};

impl History {
    /// The first event of a kind in a workspace.
    fn event(&mut self, workspace: &str, kind: EventKind) -> &mut Event {
        let rows = &self.rows;
        let of_it = |event: &&mut Event| {
            let row = rows.iter().find(|row| row.id == event.approval).expect("its row");
            row.operation.workspace == workspace && event.kind == kind
        };
        self.events.iter_mut().find(of_it).expect("one")
    }

    fn row(&mut self, workspace: &str) -> &mut Row {
        self.rows.iter_mut().find(|row| row.operation.workspace == workspace).expect("one")
    }

    fn call(&mut self, such: impl Fn(&Call) -> bool) -> &mut Call {
        self.calls.iter_mut().find(|call| such(call)).expect("one")
    }

    fn remove(&mut self, workspace: &str, kind: EventKind) {
        let revision = self.event(workspace, kind).revision;
        self.events.retain(|event| event.revision != revision);
    }

    /// Makes the log dense again, and the rows what it left, so that nothing is wrong but what is meant to be.
    fn mend(&mut self) {
        for (event, revision) in self.events.iter_mut().zip(1..) {
            event.revision = revision;
        }
        for row in &mut self.rows {
            let events = self.events.iter_mut().filter(|event| event.approval == row.id);
            for (event, version) in events.zip(1..) {
                event.version = version;
                (row.state, row.version, row.result) = (event.state, version, event.result);
            }
        }
    }
}

fn was_let_through(again: bool) -> impl Fn(&Call) -> bool {
    move |call| matches!(call.answer, Answer::LetThrough { replayed, .. } if replayed == again)
}

type Mutation = fn(&mut History);

/// Each is one thing that went wrong, and the rule that has to say so.
const MUTATIONS: &[(&str, &str, Mutation)] = &[
    ("revisions_and_versions_are_dense", "a revision is left out", |history| {
        history.events.last_mut().expect("one").revision += 1;
    }),
    ("revisions_and_versions_are_dense", "a version is left out", |history| {
        history.event("minted", EventKind::ResultReported).version += 1;
    }),
    ("time_does_not_go_back", "an event is earlier than the one before", |history| {
        history.event("denied", EventKind::Withdrawn).time -= SignedDuration::from_secs(1);
    }),
    ("changes_are_those_of_the_table", "a withdrawn approval is approved", |history| {
        let mut approved = history.event("denied", EventKind::Withdrawn).clone();
        (approved.kind, approved.state) = (EventKind::Approved, State::Approved);
        approved.actor = Some(BOB.to_owned());
        history.events.push(approved);
        history.mend();
    }),
    ("changes_are_those_of_the_table", "a result is reported twice", |history| {
        let again = history.event("minted", EventKind::ResultReported).clone();
        history.events.push(again);
        history.mend();
    }),
    ("changes_are_those_of_the_table", "an approval begins as approved", |history| {
        let first = history.event("own", EventKind::Requested);
        (first.kind, first.state) = (EventKind::Approved, State::Approved);
        history.mend();
    }),
    ("one_open_approval_for_each_operation", "two people ask the same at once", |history| {
        history.rows[4].operation = history.rows[3].operation.clone();
    }),
    ("enough_others_have_approved", "one approval is taken for two", |history| {
        history.remove("minted", EventKind::Reviewed);
        history.mend();
    }),
    ("enough_others_have_approved", "one person counts twice", |history| {
        history.event("minted", EventKind::Approved).actor = Some(ALICE.to_owned());
    }),
    ("enough_others_have_approved", "the requester approves", |history| {
        history.event("minted", EventKind::Reviewed).actor = Some(BACKEND.to_owned());
    }),
    ("enough_others_have_approved", "it was asked for in an approver's bare name", |history| {
        history.row("minted").operation.on_behalf_of = "bob".to_owned();
    }),
    ("enough_others_have_approved", "it was asked for in an approver's full name", |history| {
        history.row("minted").operation.on_behalf_of = ALICE.to_owned();
    }),
    ("a_denial_holds_for_its_cooldown", "it is asked again too early", |history| {
        history.terms.deny_cooldown = SignedDuration::from_millis(5_001);
    }),
    ("a_denial_holds_for_its_cooldown", "another requester's is consumed meanwhile", |history| {
        history.row("minted").operation = operation("denied", "two", "");
        let mut denied = history.row("denied").clone();
        denied.operation = operation("denied", "two", "dave");
        let mut requested = history.event("own", EventKind::Requested).clone();
        let mut event = history.event("denied", EventKind::Denied).clone();
        denied.id = uuid::Uuid::from_u128(99);
        (requested.approval, event.approval) = (denied.id, denied.id);
        history.rows.push(denied);
        history.events.insert(0, event);
        history.events.insert(0, requested);
        history.mend();
    }),
    ("the_cap_is_never_exceeded", "one more is pending", |history| {
        history.terms.max_pending = 1;
    }),
    ("the_cap_is_never_exceeded", "what lapses is asked again a moment early", |history| {
        let lapsed = history.event("full", EventKind::Requested).approval;
        for event in history.events.iter_mut().filter(|event| event.approval == lapsed) {
            event.expire_time += SignedDuration::from_millis(1);
        }
        history.remove("full", EventKind::Expired);
        history.mend();
    }),
    ("deadlines_hold", "an approval is used after it has lapsed", |history| {
        let approved = history.event("minted", EventKind::Approved);
        approved.expire_time = approved.time;
    }),
    ("deadlines_hold", "a request is settled after it has lapsed", |history| {
        let approved = history.event("minted", EventKind::Reviewed);
        approved.expire_time = approved.time;
    }),
    ("deadlines_hold", "one lapses early", |history| {
        history.event("full", EventKind::Expired).time -= SignedDuration::from_millis(1);
    }),
    ("deadlines_hold", "one lasts longer than the policy says", |history| {
        history.event("own", EventKind::Requested).expire_time += SignedDuration::from_secs(1);
    }),
    ("a_key_consumes_once", "one key has consumed two", |history| {
        history.row("silent").consumed_key = Some("attempt".to_owned());
    }),
    ("rows_are_as_the_log_left_them", "a row is at another state", |history| {
        history.row("own").state = State::Approved;
    }),
    ("rows_are_as_the_log_left_them", "a row is at another version", |history| {
        history.row("own").version += 1;
    }),
    ("rows_are_as_the_log_left_them", "a row has no event", |history| {
        history.remove("own", EventKind::Requested);
        history.mend();
    }),
    ("an_approval_lets_one_attempt_through", "two are let through", |history| {
        let again = history.call(was_let_through(true));
        if let Answer::LetThrough { replayed, .. } = &mut again.answer {
            *replayed = false;
        }
    }),
    ("what_is_let_through_has_been_consumed", "it was for another workspace", |history| {
        let call = history.call(was_let_through(false));
        if let Ask::Require { operation, .. } = &mut call.ask {
            operation.workspace = "elsewhere".to_owned();
        }
    }),
    ("what_is_let_through_has_been_consumed", "it was for somebody else", |history| {
        let call = history.call(was_let_through(false));
        if let Ask::Require { operation, .. } = &mut call.ask {
            operation.on_behalf_of = "dave".to_owned();
        }
    }),
    ("what_is_let_through_has_been_consumed", "it is approved and not consumed", |history| {
        let call = history.call(was_let_through(false));
        if let Answer::LetThrough { seen, .. } = &mut call.answer {
            seen.version -= 1;
        }
    }),
    ("what_is_let_through_has_been_consumed", "nothing is in the log", |history| {
        let calls = &mut history.calls;
        let held = calls.iter_mut().find(|call| matches!(call.answer, Answer::Held(_)));
        let held = held.expect("one");
        let seen = held.answer.seen().expect("it");
        held.answer = Answer::LetThrough { seen, replayed: false };
    }),
    ("only_the_attempt_that_consumed_is_told_again", "another key is", |history| {
        let call = history.call(was_let_through(true));
        if let Ask::Require { key, .. } = &mut call.ask {
            *key = Some("another".to_owned());
        }
    }),
    ("only_the_attempt_that_consumed_is_told_again", "a call without a key is", |history| {
        history.row("minted").consumed_key = None;
        for call in &mut history.calls {
            if let (Ask::Require { key, .. }, Answer::LetThrough { .. }) =
                (&mut call.ask, &call.answer)
            {
                *key = None;
            }
        }
    }),
    ("only_the_attempt_that_consumed_is_told_again", "after the result", |history| {
        let late = history.calls.last().expect("one").ended;
        let call = history.call(was_let_through(true));
        (call.began, call.ended) = (late + late, late + late);
    }),
    ("what_was_acknowledged_is_in_the_log", "a verdict is lost", |history| {
        history.remove("minted", EventKind::Reviewed);
        history.mend();
    }),
    ("what_was_acknowledged_is_in_the_log", "the last event is lost", |history| {
        history.remove("own", EventKind::Requested);
        history.mend();
    }),
    ("what_was_acknowledged_is_in_the_log", "a withdrawal is lost", |history| {
        history.remove("denied", EventKind::Withdrawn);
        history.mend();
    }),
    ("what_was_acknowledged_is_in_the_log", "a verdict is another's", |history| {
        history.event("minted", EventKind::Reviewed).actor = Some("tokens:erin".to_owned());
    }),
    ("what_was_acknowledged_is_in_the_log", "another operation's approval is joined", |history| {
        history.row("own").operation.context = "{\"n\":1}".to_owned();
    }),
    ("nothing_is_in_the_log_that_nobody_asked_for", "what was refused is done", |history| {
        let call = history.call(|call| matches!(call.ask, Ask::Withdraw { .. }));
        call.answer = Answer::Refused("NOT_PENDING".to_owned());
    }),
    ("nothing_is_in_the_log_that_nobody_asked_for", "a verdict nobody gave", |history| {
        history.event("silent", EventKind::Approved).actor = Some("tokens:erin".to_owned());
    }),
    (
        "nothing_is_in_the_log_that_nobody_asked_for",
        "one verdict is there three times",
        |history| {
            let reviewed = history.event("silent", EventKind::Reviewed).clone();
            let at = reviewed.revision as usize;
            history.events.splice(at..at, [reviewed.clone(), reviewed]);
            history.mend();
        },
    ),
    ("nothing_is_in_the_log_that_nobody_asked_for", "a refused call consumes", |history| {
        let call = history
            .call(|call| matches!(&call.ask, Ask::Require { key: Some(key), .. } if key == "lost"));
        call.answer = Answer::Refused("STORE_UNAVAILABLE".to_owned());
    }),
    ("nothing_is_in_the_log_that_nobody_asked_for", "another attempt consumes", |history| {
        history.row("silent").consumed_key = Some("another".to_owned());
    }),
    ("nothing_is_in_the_log_that_nobody_asked_for", "one call asks twice", |history| {
        // Its first request may be the work of the call that consumed, and one of these of the call that asked.
        for id in [98, 99] {
            let row = Row { id: uuid::Uuid::from_u128(id), ..history.row("silent").clone() };
            let mut requested = history.event("silent", EventKind::Requested).clone();
            requested.approval = row.id;
            history.rows.push(row);
            history.events.push(requested);
        }
        history.mend();
    }),
    (
        "the_log_is_in_the_order_of_time",
        "a let-through is logged before what preceded it",
        |history| {
            let late = history.calls.last().expect("one").ended;
            let call = history.call(was_let_through(false));
            (call.began, call.ended) = (late + late, late + late);
        },
    ),
    ("nobody_is_shown_what_is_over", "a verdict is shown before it was given", |history| {
        let reviewed = history.event("minted", EventKind::Reviewed).clone();
        let late = history.calls.last().expect("one").ended;
        let stale = history
            .call(|call| call.answer.seen().is_some_and(|seen| seen.approval == reviewed.approval));
        (stale.began, stale.ended) = (late + late, late + late);
    }),
];

#[test]
fn nothing_is_found_where_all_is_well() {
    let history = all_is_well();
    assert_eq!(check(&history), [], "{history:#?}");
}

/// It waits for the decision, or tries again with the same key.
#[test]
fn one_call_may_ask_and_consume_and_have_no_answer() {
    let mut history = all_is_well();
    let asked = |call: &Call| matches!(&call.ask, Ask::Require { operation, key: None } if operation.workspace == "silent");
    assert_eq!(history.calls.iter().filter(|call| asked(call)).count(), 1);
    history.calls.retain(|call| !asked(call));
    assert_eq!(check(&history), [], "{history:#?}");
}

#[test]
fn each_rule_finds_what_breaks_it() {
    for (rule, what, mutate) in MUTATIONS {
        let mut history = all_is_well();
        mutate(&mut history);
        let broken = check(&history);
        assert!(broken.iter().any(|(name, _)| name == rule), "{what}: {broken:#?}");
    }
    let mutated: BTreeSet<&str> = MUTATIONS.iter().map(|(rule, ..)| *rule).collect();
    let rules: BTreeSet<&str> = RULES.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(mutated, rules, "no rule without a mutation");
    println!(
        "{} mutations of a history, each found by its rule, of {}",
        MUTATIONS.len(),
        RULES.len()
    );
}
