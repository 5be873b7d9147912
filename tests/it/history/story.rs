//! A small history, made by hand, in which all is well.

use std::time::Duration;

use approval_authority::approval::{Decision, EventKind, OperationResult, State};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::record::{Answer, Ask, Call, Event, History, Operation, Row, Seen, Terms};

/// Writes a history: each step is a call, the event it brought about, and the row it changed.
pub struct Story {
    pub history: History,
    now: Timestamp,
    clock: Duration,
}

impl Story {
    fn new() -> Self {
        let terms = Terms {
            quorums: [("one".to_owned(), 1), ("two".to_owned(), 2)].into(),
            pending_ttl: SignedDuration::from_secs(10),
            approved_ttl: SignedDuration::from_secs(10),
            deny_cooldown: SignedDuration::from_secs(5),
            max_pending: 2,
        };
        let history = History { terms, ..History::default() };
        Self { history, now: Timestamp::UNIX_EPOCH, clock: Duration::ZERO }
    }

    fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    fn call(&mut self, by: &str, ask: Ask, answer: Answer) {
        let began = self.clock + Duration::from_millis(1);
        let ended = began + Duration::from_millis(1);
        self.clock = ended;
        self.history.calls.push(Call { began, ended, by: by.to_owned(), ask, answer });
    }

    /// The approval as it stands.
    fn seen(&self, approval: Uuid) -> Seen {
        let row = self.history.rows.iter().find(|row| row.id == approval).expect("a row");
        Seen { approval, version: row.version, state: row.state }
    }

    /// Something happens to an approval that is there.
    fn event(&mut self, approval: Uuid, kind: EventKind, actor: Option<&str>) {
        let row = self.history.rows.iter_mut().find(|row| row.id == approval).expect("a row");
        row.version += 1;
        row.state = match kind {
            EventKind::Requested | EventKind::Escalated | EventKind::Reviewed => State::Pending,
            EventKind::Approved => State::Approved,
            EventKind::Denied => State::Denied,
            EventKind::Consumed | EventKind::ResultReported => State::Consumed,
            EventKind::Expired => State::Expired,
            EventKind::Withdrawn => State::Withdrawn,
            EventKind::Revoked => State::Revoked,
        };
        let before = self.history.events.iter().rfind(|event| event.approval == approval);
        let expire_time = match kind {
            EventKind::Requested => self.now + self.history.terms.pending_ttl,
            EventKind::Approved => self.now + self.history.terms.approved_ttl,
            _ => before.expect("an event before").expire_time,
        };
        self.history.events.push(Event {
            revision: i64::try_from(self.history.events.len()).expect("few") + 1,
            kind,
            approval,
            version: row.version,
            state: row.state,
            expire_time,
            result: row.result,
            actor: actor.map(str::to_owned),
            time: self.now,
        });
    }

    fn require(&mut self, operation: &Operation, key: Option<&str>, answer: Answer) {
        let ask = Ask::Require { operation: operation.clone(), key: key.map(str::to_owned) };
        self.call(&operation.requested_by, ask, answer);
    }

    /// A new approval, and nobody told of it.
    fn appear(&mut self, operation: &Operation) -> Uuid {
        let id = Uuid::from_u128(self.history.rows.len() as u128 + 1);
        self.history.rows.push(Row {
            id,
            operation: operation.clone(),
            state: State::Pending,
            version: 0,
            result: None,
            consumed_key: None,
        });
        self.event(id, EventKind::Requested, Some(&operation.requested_by));
        id
    }

    fn request(&mut self, operation: &Operation) -> Uuid {
        let id = self.appear(operation);
        self.require(operation, None, Answer::Held(self.seen(id)));
        id
    }

    fn decide(&mut self, approval: Uuid, by: &str, kind: EventKind) {
        let decision = if kind == EventKind::Denied { Decision::Deny } else { Decision::Approve };
        self.command(by, Ask::Decide { approval, decision }, approval, kind);
    }

    fn command(&mut self, by: &str, ask: Ask, approval: Uuid, kind: EventKind) {
        self.event(approval, kind, Some(by));
        self.call(by, ask, Answer::Done(self.seen(approval)));
    }

    /// The approval is used up, and nobody told of it.
    fn consume(&mut self, operation: &Operation, approval: Uuid, key: Option<&str>) {
        let row = self.history.rows.iter_mut().find(|row| row.id == approval).expect("a row");
        row.consumed_key = key.map(str::to_owned);
        self.event(approval, EventKind::Consumed, Some(&operation.requested_by));
    }

    fn let_through(&mut self, operation: &Operation, approval: Uuid, key: Option<&str>) {
        self.consume(operation, approval, key);
        let seen = self.seen(approval);
        self.require(operation, key, Answer::LetThrough { seen, replayed: false });
    }

    fn report(&mut self, by: &str, approval: Uuid) {
        let result = OperationResult::Succeeded;
        let row = self.history.rows.iter_mut().find(|row| row.id == approval).expect("a row");
        row.result = Some(result);
        self.command(by, Ask::Report { approval, result }, approval, EventKind::ResultReported);
    }
}

pub const BACKEND: &str = "tokens:backend";
pub const ALICE: &str = "tokens:alice";
pub const BOB: &str = "tokens:bob";

/// An operation in a workspace of its own.
pub fn operation(workspace: &str, action: &str, on_behalf_of: &str) -> Operation {
    Operation {
        workspace: workspace.to_owned(),
        action: action.to_owned(),
        context: "{}".to_owned(),
        requested_by: BACKEND.to_owned(),
        on_behalf_of: on_behalf_of.to_owned(),
    }
}

/// One of everything: what the mutations begin from.
pub fn all_is_well() -> History {
    let mut story = Story::new();
    // A quorum of two, an answer repeated, a result.
    let minted = operation("minted", "two", "carol");
    let id = story.request(&minted);
    story.event(id, EventKind::Escalated, None);
    story.decide(id, ALICE, EventKind::Reviewed);
    story.decide(id, BOB, EventKind::Approved);
    story.let_through(&minted, id, Some("attempt"));
    let seen = story.seen(id);
    story.require(&minted, Some("attempt"), Answer::LetThrough { seen, replayed: true });
    story.report(BACKEND, id);
    let refused = Answer::Refused("IDEMPOTENCY_KEY_SPENT".to_owned());
    story.require(&minted, Some("attempt"), refused);

    // Denied, asked again, and asked again after the cooldown.
    let denied = operation("denied", "one", "");
    let id = story.request(&denied);
    story.decide(id, ALICE, EventKind::Denied);
    story.wait(4);
    story.require(&operation("denied", "one", "dave"), None, Answer::Held(story.seen(id)));
    story.wait(1);
    let id = story.request(&denied);
    story.command(BACKEND, Ask::Withdraw { approval: id }, id, EventKind::Withdrawn);

    // As many as the cap allows, of which one lapses and is asked for again.
    let full = ["", "dave", "erin"].map(|name| operation("full", "one", name));
    story.request(&full[0]);
    story.wait(5);
    let second = story.request(&full[1]);
    story.require(&full[2], None, Answer::Refused("TOO_MANY_PENDING".to_owned()));
    story.wait(5);
    story.event(story.history.rows[3].id, EventKind::Expired, None);
    story.request(&full[0]);
    story.decide(second, BOB, EventKind::Approved);
    story.command(ALICE, Ask::Revoke { approval: second }, second, EventKind::Revoked);

    // Nobody was told: of a request, a verdict and a consumption that were carried out, and of a verdict that
    // was not.
    let silent = operation("silent", "two", "");
    story.require(&silent, None, Answer::Unknown);
    let id = story.appear(&silent);
    story.call(ALICE, Ask::Decide { approval: id, decision: Decision::Deny }, Answer::Unknown);
    let approve = Ask::Decide { approval: id, decision: Decision::Approve };
    story.call(ALICE, approve.clone(), Answer::Unknown);
    story.event(id, EventKind::Reviewed, Some(ALICE));
    story.call(ALICE, approve, Answer::Done(story.seen(id)));
    story.decide(id, BOB, EventKind::Approved);
    story.require(&silent, Some("lost"), Answer::Unknown);
    story.consume(&silent, id, Some("lost"));

    // Nobody approves what was asked for in their name.
    let own = operation("own", "one", "alice");
    let id = story.request(&own);
    let approve = Ask::Decide { approval: id, decision: Decision::Approve };
    story.call(ALICE, approve, Answer::Refused("SELF_APPROVAL".to_owned()));
    story.history
}
