//! A caller that asks, decides, takes back and reports at random, and writes down what it was told.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use approval_authority::{
    approval::{Decision, OperationResult, State},
    proto::{
        self, DecideRequest, Outcome, ReportResultRequest, RequireApprovalRequest,
        RevokeApprovalRequest, WithdrawApprovalRequest,
    },
};
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use super::{
    nemesis::Replica,
    record::{Answer, Ask, Call, Operation, Seen},
};
use crate::harness::{Caller, context, refusal};
use crate::rng::Rng;

/// How long a caller waits.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// How often a caller repeats a call to the gate that nobody answered.
const RETRIES: usize = 3;

/// How many of the latest approvals callers choose from.
const RECENT: usize = 24;

const WORKSPACES: &[&str] = &["w1", "w2", "w3"];
const ACTIONS: &[&str] = &["delete_workspace", "org_token_mint"];
const CONTEXTS: &[&str] = &["{}", "{\"n\":1}"];
const REQUESTERS: &[&str] = &["backend", "backend-2"];
const NAMES: &[&str] = &["", "alice", "tokens:bob"];
const APPROVERS: &[&str] = &["alice", "bob", "carol"];
const RESULTS: &[OperationResult] = &[OperationResult::Succeeded, OperationResult::Failed];

/// What callers know of each other's approvals: the latest that were seen in some state, and who asked.
#[derive(Default)]
pub struct Board(Mutex<Vec<(Seen, &'static str)>>);

impl Board {
    fn post(&self, seen: Seen, requester: &'static str) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|(other, _)| other.approval != seen.approval);
        recent.push((seen, requester));
        let excess = recent.len().saturating_sub(RECENT);
        recent.drain(..excess);
    }

    fn any(&self, rng: &mut Rng) -> Option<(Seen, &'static str)> {
        rng.pick(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).copied()
    }
}

pub struct Client {
    pub number: usize,
    pub rng: Rng,
    pub began: Instant,
    pub replicas: Arc<Vec<Replica>>,
    pub board: Arc<Board>,
    pub calls: Vec<Call>,
    pub callers: HashMap<(usize, &'static str), (SocketAddr, Caller)>,
}

impl Client {
    /// One thing that somebody does.
    pub async fn step(&mut self) {
        let chance = self.rng.within(0..100);
        let Some((seen, requester)) = self.board.any(&mut self.rng).filter(|_| chance >= 40) else {
            return self.go_through_the_gate().await;
        };
        let approval = seen.approval;
        let approver = *self.rng.pick(APPROVERS).expect("some");
        let (by, ask) = match chance {
            40..85 => {
                let deny = self.rng.one_in(20);
                let decision = if deny { Decision::Deny } else { Decision::Approve };
                (approver, Ask::Decide { approval, decision })
            }
            85..88 => (requester, Ask::Withdraw { approval }),
            88..91 => (approver, Ask::Revoke { approval }),
            _ => {
                let result = *self.rng.pick(RESULTS).expect("some");
                (requester, Ask::Report { approval, result })
            }
        };
        let answer = self.call(by, ask).await;
        if let Some(seen) = answer.seen() {
            self.board.post(seen, requester);
        }
    }

    /// Asks for an operation; asks the same again, of any server, where it was not told, and at times where it was.
    async fn go_through_the_gate(&mut self) {
        let requester = *self.rng.pick(REQUESTERS).expect("some");
        let mut any = |among: &[&str]| (*self.rng.pick(among).expect("some")).to_owned();
        let operation = Operation {
            workspace: any(WORKSPACES),
            action: any(ACTIONS),
            context: any(CONTEXTS),
            requested_by: format!("tokens:{requester}"),
            on_behalf_of: any(NAMES),
        };
        let key = match self.rng.within(0..10) {
            0..3 => None,
            // Keys that are used by mistake for whatever comes, by anybody.
            3 => Some(format!("key {}", self.rng.within(0..20))),
            _ => Some(format!("attempt {} of {}", self.calls.len(), self.number)),
        };
        let ask = Ask::Require { operation, key };
        for _ in 0..=RETRIES {
            let answer = self.call(requester, ask.clone()).await;
            match answer {
                Answer::Unknown => {}
                Answer::LetThrough { seen, .. } if self.rng.one_in(4) => {
                    self.board.post(seen, requester);
                }
                Answer::LetThrough { seen, .. } | Answer::Held(seen) => {
                    return self.board.post(seen, requester);
                }
                Answer::Done(_) | Answer::Refused(_) => return,
            }
        }
    }

    /// Makes a call to one of the servers, and writes it down.
    async fn call(&mut self, by: &'static str, ask: Ask) -> Answer {
        let caller = self.caller(by);
        let began = self.began.elapsed();
        let answer = make(&caller, &ask).await;
        let answer = answer.unwrap_or_else(|status| not_done(&status));
        let ended = self.began.elapsed();
        let by = format!("tokens:{by}");
        self.calls.push(Call { began, ended, by, ask, answer: answer.clone() });
        answer
    }

    /// Somebody, on a connection to one of the servers that are there.
    fn caller(&mut self, subject: &'static str) -> Caller {
        let there = self.replicas.iter().map(Replica::address).enumerate();
        let there: Vec<_> = there.filter_map(|(n, address)| Some((n, address?))).collect();
        let (replica, address) = *self.rng.pick(&there).expect("one is there at any time");
        let known = self.callers.get(&(replica, subject)).filter(|(at, _)| *at == address);
        if let Some((_, caller)) = known {
            return caller.clone();
        }
        let caller = Caller::lazy(address, subject);
        self.callers.insert((replica, subject), (address, caller.clone()));
        caller
    }
}

/// Makes a call, whatever it is.
pub async fn make(caller: &Caller, ask: &Ask) -> Result<Answer, Status> {
    let mut approvals = caller.approvals.clone();
    let reason = "as it goes".to_owned();
    let namespace = String::new();
    let approval = match ask.clone() {
        Ask::Require { operation, key } => {
            let request = RequireApprovalRequest {
                workspace_id: operation.workspace,
                action: operation.action,
                context: (operation.context != "{}").then(|| context(&[("n", 1.0)])),
                on_behalf_of: operation.on_behalf_of,
                idempotency_key: key.unwrap_or_default(),
                reason,
                ..Default::default()
            };
            let gate = patiently(request, |request| approvals.require_approval(request)).await?;
            let seen = seen(gate.approval.as_ref());
            return Ok(match gate.outcome() {
                Outcome::Approved => Answer::LetThrough { seen, replayed: gate.replayed },
                Outcome::Pending | Outcome::Denied => Answer::Held(seen),
                other => panic!("{other:?} to {ask:?}"),
            });
        }
        Ask::Decide { approval, decision } => {
            let decision = match decision {
                Decision::Approve => proto::Decision::Approve.into(),
                Decision::Deny => proto::Decision::Deny.into(),
            };
            let approval_id = approval.to_string();
            let request =
                DecideRequest { namespace, approval_id, decision, reason, ..Default::default() };
            patiently(request, |request| approvals.decide(request)).await?.approval
        }
        Ask::Withdraw { approval } => {
            let approval_id = approval.to_string();
            let request = WithdrawApprovalRequest { namespace, approval_id, reason };
            patiently(request, |request| approvals.withdraw_approval(request)).await?.approval
        }
        Ask::Revoke { approval } => {
            let approval_id = approval.to_string();
            let request = RevokeApprovalRequest { namespace, approval_id, reason };
            patiently(request, |request| approvals.revoke_approval(request)).await?.approval
        }
        Ask::Report { approval, result } => {
            let result = match result {
                OperationResult::Succeeded => proto::Result::Succeeded.into(),
                OperationResult::Failed => proto::Result::Failed.into(),
                OperationResult::Unknown => proto::Result::Unknown.into(),
            };
            let approval_id = approval.to_string();
            let request = ReportResultRequest { namespace, approval_id, result, detail: reason };
            patiently(request, |request| approvals.report_result(request)).await?.approval
        }
    };
    Ok(Answer::Done(seen(approval.as_ref())))
}

/// A call with a deadline, which the server is told and which holds even where there is none to be told.
async fn patiently<M, T, F>(message: M, call: impl FnOnce(Request<M>) -> F) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    match tokio::time::timeout(PATIENCE, call(request)).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Status::deadline_exceeded("nobody answered")),
    }
}

/// An approval as an answer shows it.
pub fn seen(approval: Option<&proto::Approval>) -> Seen {
    let approval = approval.expect("the approval");
    let state = approval.state().as_str_name().trim_start_matches("APPROVAL_STATE_");
    Seen {
        approval: Uuid::try_parse(&approval.id).expect("an id"),
        version: approval.version.try_into().expect("a count"),
        state: State::parse(state).expect("a state"),
    }
}

/// What is known of a call that failed: that nothing was changed, where the service says so, and else nothing.
pub fn not_done(status: &Status) -> Answer {
    let (code, reason) = refusal(status);
    if reason.is_empty() || status.message().contains("unknown") {
        return Answer::Unknown;
    }
    assert_ne!(code, Code::Internal, "a fault of the server's: {status:?}");
    Answer::Refused(reason)
}
