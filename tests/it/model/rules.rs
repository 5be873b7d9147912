//! The rules, said once more and without the service's own words for them, so that the two can disagree. Time is counted
//! in units of five minutes, approvals in the order in which they were requested, and everything is in its place as
//! soon as its time has come, unless somebody is said to have been quicker.

use std::collections::BTreeMap;

use approval_authority::proto::{
    ApprovalState, Decision, EventType, Outcome, Result as OperationResult,
};
use tonic::Code;

use super::words::{
    APPROVERS, About, Answer, Command, Entry, Operation, REQUESTERS, Rule, Shown, Target,
    ancestors, meant_by, rule,
};

/// How long the attempt that used an approval can read its answer again.
const REPLAY: u32 = 2;
const DAY: u32 = 24 * 12;

#[derive(Clone, Debug)]
pub struct Approval {
    pub operation: Operation,
    pub state: ApprovalState,
    /// The key of the attempt that used it.
    pub key: &'static str,
    version: i32,
    verdicts: BTreeMap<&'static str, Decision>,
    created: u32,
    deadline: u32,
    /// When it was approved or denied, and how many events there were before.
    decided: (u32, usize),
    used: u32,
    result: OperationResult,
    recent_denials: i32,
    /// How many ancestors know, and how many of the steps towards them have passed.
    told: usize,
    passed: usize,
}

impl Approval {
    /// Whether the attempt that used it has the time to ask again.
    pub fn may_be_read_again(&self, now: u32) -> bool {
        !self.key.is_empty() && now < self.used + REPLAY
    }
}

/// A namespace.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub now: u32,
    pub approvals: Vec<Approval>,
    pub log: Vec<Entry>,
}

impl World {
    pub fn find(&self, target: &Target) -> Option<usize> {
        let same = |place: &usize| self.approvals[*place].operation == target.operation;
        (0..self.approvals.len()).rev().filter(same).nth(target.before)
    }

    pub fn about(&self, place: usize) -> About {
        let approval = &self.approvals[place];
        About {
            approval: place,
            state: approval.state,
            version: approval.version,
            verdicts: approval
                .verdicts
                .iter()
                .map(|(by, decision)| format!("tokens:{by} {}", decision.as_str_name()))
                .collect(),
            deadline: approval.deadline.into(),
            recent_denials: approval.recent_denials,
        }
    }

    /// What time has come for: whatever lapses lapses, whatever climbs climbs.
    pub fn settle(&mut self) {
        for place in 0..self.approvals.len() {
            self.lapse(place);
            let approval = &self.approvals[place];
            if approval.state != ApprovalState::Pending {
                continue;
            }
            let due = rule(approval.operation.action).expect("gated").steps;
            let passed = due.iter().filter(|step| approval.created + **step <= self.now).count();
            for _ in approval.passed..passed {
                self.climb(place);
            }
            self.approvals[place].passed = passed;
        }
    }

    pub fn carry_out(&mut self, command: &Command) -> Answer {
        let answer = match command {
            Command::Require { operation, key } => self.require(operation, key),
            Command::Decide { on, by, decision, shown } => {
                self.on(on, by, APPROVERS).and_then(|place| {
                    self.decide(place, by, *decision, *shown)?;
                    Ok(Answer::Approval(self.about(place)))
                })
            }
            Command::Withdraw { on, by } => self.on(on, by, REQUESTERS).and_then(|place| {
                self.requested_by(place, by)?;
                self.must_be(place, ApprovalState::Pending, "NOT_PENDING")?;
                self.enter(place, ApprovalState::Withdrawn, EventType::Withdrawn, by);
                Ok(Answer::Approval(self.about(place)))
            }),
            Command::Revoke { on, by } => self.on(on, by, APPROVERS).and_then(|place| {
                self.must_be(place, ApprovalState::Approved, "NOT_APPROVED")?;
                self.enter(place, ApprovalState::Revoked, EventType::Revoked, by);
                Ok(Answer::Approval(self.about(place)))
            }),
            Command::Report { on, by, result } => self.on(on, by, REQUESTERS).and_then(|place| {
                self.requested_by(place, by)?;
                self.must_be(place, ApprovalState::Consumed, "NOT_CONSUMED")?;
                match self.approvals[place].result {
                    OperationResult::Unspecified => {
                        self.approvals[place].result = *result;
                        self.tell(place, EventType::ResultReported, by);
                    }
                    recorded if recorded == *result => {}
                    recorded => {
                        let word = recorded.as_str_name().trim_start_matches("RESULT_");
                        return Err(refused(Code::FailedPrecondition, "RESULT_RECORDED", word));
                    }
                }
                Ok(Answer::Approval(self.about(place)))
            }),
        };
        answer.unwrap_or_else(|refused| refused)
    }

    fn require(&mut self, operation: &Operation, key: &'static str) -> Result<Answer, Answer> {
        let gate =
            |outcome, about| Answer::Gate { outcome, about, retry_after: None, replayed: false };
        let Some(rule) = rule(operation.action) else {
            return Ok(gate(Outcome::NotRequired, None));
        };
        let attempt = |a: &Approval| {
            a.state == ApprovalState::Consumed
                && !key.is_empty()
                && (a.operation.requester, a.key) == (operation.requester, key)
        };
        if let Some(place) = self.approvals.iter().position(attempt) {
            let used = &self.approvals[place];
            if used.operation != *operation {
                return Err(refused(Code::Aborted, "IDEMPOTENCY_KEY_REUSED", ""));
            }
            let reported = used.result != OperationResult::Unspecified;
            if reported || self.now >= used.used + REPLAY {
                return Err(refused(Code::Aborted, "IDEMPOTENCY_KEY_SPENT", ""));
            }
            let about = Some(self.about(place));
            let outcome = Outcome::Approved;
            return Ok(Answer::Gate { outcome, about, retry_after: None, replayed: true });
        }
        let denied = (0..self.approvals.len()).filter(|place| {
            let denied = &self.approvals[*place];
            denied.state == ApprovalState::Denied && denied.operation.is_denied_with(operation)
        });
        if let Some(place) = denied.max_by_key(|place| self.approvals[*place].decided) {
            let end = self.approvals[place].decided.0 + rule.cooldown;
            if end > self.now {
                let about = Some(self.about(place));
                let retry_after = Some((end - self.now).into());
                let outcome = Outcome::Denied;
                return Ok(Answer::Gate { outcome, about, retry_after, replayed: false });
            }
        }
        if let Some(place) = self.open(operation) {
            self.lapse(place);
            match self.approvals[place].state {
                ApprovalState::Pending => {
                    return Ok(gate(Outcome::Pending, Some(self.about(place))));
                }
                ApprovalState::Approved => {
                    self.approvals[place].used = self.now;
                    self.approvals[place].key = key;
                    let by = operation.requester;
                    self.enter(place, ApprovalState::Consumed, EventType::Consumed, by);
                    return Ok(gate(Outcome::Approved, Some(self.about(place))));
                }
                _ => {}
            }
        }
        let pending = self.approvals.iter().filter(|a| {
            a.operation.workspace == operation.workspace
                && a.state == ApprovalState::Pending
                && a.deadline > self.now
        });
        if pending.count() >= rule.cap {
            let limit = rule.cap.to_string();
            return Err(refused(Code::ResourceExhausted, "TOO_MANY_PENDING", &limit));
        }
        let place = self.ask(operation, &rule);
        Ok(gate(Outcome::Pending, Some(self.about(place))))
    }

    fn open(&self, operation: &Operation) -> Option<usize> {
        let open = |a: &Approval| {
            matches!(a.state, ApprovalState::Pending | ApprovalState::Approved)
                && a.operation == *operation
        };
        self.approvals.iter().position(open)
    }

    fn ask(&mut self, operation: &Operation, rule: &Rule) -> usize {
        let denials = self.approvals.iter().filter(|a| {
            a.state == ApprovalState::Denied
                && (a.operation.workspace, a.operation.action)
                    == (operation.workspace, operation.action)
                && a.decided.0 + DAY > self.now
        });
        let recent_denials = denials.count().try_into().expect("a few");
        self.approvals.push(Approval {
            operation: operation.clone(),
            state: ApprovalState::Pending,
            key: "",
            version: 0,
            verdicts: BTreeMap::new(),
            created: self.now,
            deadline: self.now + rule.pending,
            decided: (0, 0),
            used: 0,
            result: OperationResult::Unspecified,
            recent_denials,
            told: 0,
            passed: 0,
        });
        let place = self.approvals.len() - 1;
        self.tell(place, EventType::Requested, operation.requester);
        self.climb(place);
        place
    }

    fn decide(
        &mut self,
        place: usize,
        by: &'static str,
        decision: Decision,
        shown: Shown,
    ) -> Result<(), Answer> {
        let operation = &self.approvals[place].operation;
        let rule = rule(operation.action).expect("gated");
        if operation.requester == by || meant_by(operation.on_behalf_of) == by {
            return Err(refused(Code::PermissionDenied, "SELF_APPROVAL", ""));
        }
        if shown == Shown::Another {
            return Err(refused(Code::Aborted, "HASH_MISMATCH", ""));
        }
        if self.approvals[place].verdicts.get(by) == Some(&decision) {
            return Ok(());
        }
        self.must_be(place, ApprovalState::Pending, "NOT_PENDING")?;
        let decided = (self.now, self.log.len());
        let approval = &mut self.approvals[place];
        approval.verdicts.insert(by, decision);
        if decision == Decision::Deny {
            approval.decided = decided;
            self.enter(place, ApprovalState::Denied, EventType::Denied, by);
        } else if approval.verdicts.len() >= rule.quorum {
            approval.decided = decided;
            approval.deadline = self.now + rule.approved;
            self.enter(place, ApprovalState::Approved, EventType::Approved, by);
        } else {
            self.tell(place, EventType::Reviewed, by);
        }
        Ok(())
    }

    /// The approval that somebody means who has such a role. Who may approve may see all; others what they asked for.
    fn on(&mut self, target: &Target, by: &str, role: &[&str]) -> Result<usize, Answer> {
        if !role.contains(&by) {
            let reason = if role == APPROVERS { "NOT_AN_APPROVER" } else { "ROLE_MISSING" };
            return Err(refused(Code::PermissionDenied, reason, ""));
        }
        let visible = |place: &usize| {
            APPROVERS.contains(&by) || self.approvals[*place].operation.requester == by
        };
        let found = self.find(target).filter(visible);
        let place = found.ok_or_else(|| refused(Code::NotFound, "APPROVAL_NOT_FOUND", ""))?;
        self.lapse(place);
        Ok(place)
    }

    fn requested_by(&self, place: usize, by: &str) -> Result<(), Answer> {
        if self.approvals[place].operation.requester == by {
            return Ok(());
        }
        Err(refused(Code::PermissionDenied, "ROLE_MISSING", ""))
    }

    fn must_be(&self, place: usize, state: ApprovalState, or: &str) -> Result<(), Answer> {
        let is = self.approvals[place].state;
        if is == state {
            return Ok(());
        }
        let word = is.as_str_name().trim_start_matches("APPROVAL_STATE_");
        Err(refused(Code::FailedPrecondition, or, word))
    }

    fn lapse(&mut self, place: usize) {
        let approval = &self.approvals[place];
        let open = matches!(approval.state, ApprovalState::Pending | ApprovalState::Approved);
        if open && approval.deadline <= self.now {
            self.enter(place, ApprovalState::Expired, EventType::Expired, "");
        }
    }

    fn climb(&mut self, place: usize) {
        let approval = &mut self.approvals[place];
        if let Some(ancestor) = ancestors(approval.operation.workspace).get(approval.told) {
            approval.told += 1;
            self.tell(place, EventType::Escalated, "");
            self.log.last_mut().expect("told").workspace = (*ancestor).to_owned();
        }
    }

    fn enter(&mut self, place: usize, state: ApprovalState, kind: EventType, actor: &str) {
        self.approvals[place].state = state;
        self.tell(place, kind, actor);
    }

    fn tell(&mut self, place: usize, kind: EventType, actor: &str) {
        let approval = &mut self.approvals[place];
        approval.version += 1;
        self.log.push(Entry {
            approval: place,
            version: approval.version,
            kind,
            workspace: approval.operation.workspace.to_owned(),
            actor: actor.to_owned(),
        });
    }
}

fn refused(code: Code, reason: &str, detail: &str) -> Answer {
    Answer::Refused { code, reason: reason.to_owned(), detail: detail.to_owned() }
}
