//! Two servers on a database of their own, the people who call them, and the model that they are held against.

use std::collections::HashMap;

use approval_authority::{
    keeper::Keeper,
    ledger::Ledger,
    proto::{self, Outcome},
    store::Store,
};
use proptest::{prop_assert_eq, test_runner::TestCaseError};
use tokio_postgres::Client;
use tonic::Status;
use tonic_types::StatusExt;

use super::{
    rules::World,
    steps::Step,
    words::{About, Answer, Command, Entry, POLICY, Shown, TREE, Target},
};
use crate::{
    database::Database,
    harness::{Caller, TestServer, context},
    server::RETENTION,
};

/// What the model counts in, in seconds.
const UNIT: i64 = 300;

/// The id of no approval.
const NOBODYS: &str = "01890000-0000-7000-8000-000000000000";

const DUE: &str = "SELECT count(*) FROM approval_authority.approvals
    WHERE state IN ('PENDING', 'APPROVED') AND least(expire_time, escalate_time) <= approval_authority.clock()";

const EVENTS: &str =
    "SELECT revision, approval_id::text, version, type, workspace_id, coalesce(actor, '')
    FROM approval_authority.events WHERE revision > $1 ORDER BY revision";

const ROWS: &str = "SELECT a.id::text, a.state, a.version, (
        SELECT array_agg(v.approver || ' DECISION_' || v.decision ORDER BY v.approver)
        FROM approval_authority.verdicts AS v WHERE v.approval_id = a.id),
    floor(extract(epoch FROM a.expire_time))::bigint, a.recent_denials
    FROM approval_authority.approvals AS a ORDER BY a.id";

pub struct System {
    database: Database,
    client: Client,
    store: Store,
    servers: [TestServer; 2],
    callers: HashMap<(usize, &'static str), Caller>,
    /// The model, and the ids of its approvals.
    world: World,
    ids: Vec<String>,
    /// When it began, in seconds.
    start: i64,
}

/// What the database holds, as far as it is compared.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    /// What is new in the log.
    log: Vec<Entry>,
    approvals: Vec<About>,
}

impl System {
    pub async fn new() -> Self {
        let database = Database::new().await;
        let servers = [
            TestServer::with_policy(&database.url, POLICY).await,
            TestServer::with_policy(&database.url, POLICY).await,
        ];
        let admin = servers[0].caller("admin").await;
        for (workspace, parent) in TREE {
            admin.put_workspace(workspace, parent).await.expect("put");
        }
        let start = database
            .count("SELECT floor(extract(epoch FROM approval_authority.clock()))::bigint")
            .await;
        Self {
            client: database.connect().await,
            store: database.store(),
            database,
            servers,
            callers: HashMap::new(),
            world: World::default(),
            ids: Vec::new(),
            start,
        }
    }

    /// Takes a step and compares: the answer, each row, and what is new in the log. Returns the answer.
    pub async fn take(&mut self, step: &Step) -> Result<Answer, TestCaseError> {
        let hurry = step.hurry && step.pass > 0;
        if step.pass > 0 {
            self.world.now += step.pass;
            let minutes = i64::from(self.world.now) * UNIT / 60;
            self.database.move_clock(&format!("{minutes} minutes")).await;
        }
        if !hurry {
            self.keep().await;
            let mut settled = self.world.clone();
            settled.settle();
            let written = self.written(true).await?;
            let expected = self.expected(&settled, true);
            prop_assert_eq!(written, expected, "what the keeper left before {:?}", step);
            self.world = settled;
        }
        let answer = self.call(step).await;
        let mut model = self.world.clone();
        let mut expected = model.carry_out(&step.command);
        if hurry {
            // Nobody knows whether the command or the keeper was first; nothing else may differ.
            self.keep().await;
            model.settle();
            let mut other = self.world.clone();
            other.settle();
            let other_answer = other.carry_out(&step.command);
            if answer == other_answer && self.written(true).await? == self.expected(&other, true) {
                (model, expected) = (other, other_answer);
            }
        }
        prop_assert_eq!(&answer, &expected, "what was answered to {:?}", step);
        let written = self.written(hurry).await?;
        prop_assert_eq!(written, self.expected(&model, hurry), "what is left by {:?}", step);
        self.world = model;
        Ok(answer)
    }

    /// What has happened, as the model and the database agree.
    pub fn log(&self) -> &[Entry] {
        &self.world.log
    }

    /// Lets go of the servers and the database.
    pub async fn end(self) {
        drop((self.callers, self.client, self.store));
        for server in self.servers {
            server.drain().await;
        }
        self.database.remove().await;
    }

    /// What the database holds once it has come to where the model is.
    fn expected(&self, model: &World, any_order: bool) -> Written {
        let mut log = model.log[self.world.log.len()..].to_vec();
        if any_order {
            log.sort();
        }
        let approvals = (0..model.approvals.len()).map(|place| model.about(place)).collect();
        Written { log, approvals }
    }

    /// What the database holds. In which order the keeper sees to several approvals is its own affair.
    async fn written(&self, any_order: bool) -> Result<Written, TestCaseError> {
        let seen = self.world.log.len() as i64;
        let rows = self.client.query(EVENTS, &[&seen]).await.expect("the log");
        let mut log = Vec::new();
        for (row, revision) in rows.iter().zip(seen + 1..) {
            prop_assert_eq!(row.get::<_, i64>(0), revision, "revisions are dense");
            let kind = format!("EVENT_TYPE_{}", row.get::<_, &str>(3));
            let actor: String = row.get(5);
            log.push(Entry {
                approval: self.place(row.get(1)),
                version: row.get(2),
                kind: proto::EventType::from_str_name(&kind).expect("a type"),
                workspace: row.get(4),
                actor: actor.trim_start_matches("tokens:").to_owned(),
            });
        }
        if any_order {
            log.sort();
        }
        let rows = self.client.query(ROWS, &[]).await.expect("the rows");
        let mut approvals: Vec<About> = rows
            .iter()
            .map(|row| {
                let state = format!("APPROVAL_STATE_{}", row.get::<_, &str>(1));
                About {
                    approval: self.place(row.get(0)),
                    state: proto::ApprovalState::from_str_name(&state).expect("a state"),
                    version: row.get(2),
                    verdicts: row.get::<_, Option<Vec<String>>>(3).unwrap_or_default(),
                    deadline: (row.get::<_, i64>(4) - self.start) / UNIT,
                    recent_denials: row.get(5),
                }
            })
            .collect();
        approvals.sort_by_key(|about| about.approval);
        Ok(Written { log, approvals })
    }

    /// A keeper more, until there is nothing left for one to do.
    async fn keep(&self) {
        let ledger = Ledger::new(self.store.clone());
        let keeper = Keeper::new(self.store.clone(), ledger, RETENTION);
        let nothing_is_due = async {
            while self.client.query_one(DUE, &[]).await.expect("a count").get::<_, i64>(0) > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = nothing_is_due => {}
            () = keeper.run() => {}
        }
    }

    /// The place of an approval in the model; one that the model does not know has a place behind all others.
    fn place(&self, id: &str) -> usize {
        self.ids.iter().position(|known| known == id).unwrap_or(self.ids.len())
    }

    fn id(&self, target: &Target) -> String {
        self.world.find(target).map_or_else(|| NOBODYS.to_owned(), |place| self.ids[place].clone())
    }

    async fn call(&mut self, step: &Step) -> Answer {
        let by = match &step.command {
            Command::Require { operation, .. } => operation.requester,
            Command::Decide { by, .. }
            | Command::Withdraw { by, .. }
            | Command::Revoke { by, .. }
            | Command::Report { by, .. } => by,
        };
        if !self.callers.contains_key(&(step.server, by)) {
            let caller = self.servers[step.server].caller(by).await;
            self.callers.insert((step.server, by), caller);
        }
        let caller = self.callers[&(step.server, by)].clone();
        let answer = match &step.command {
            Command::Require { operation, key } => {
                let request = proto::RequireApprovalRequest {
                    workspace_id: operation.workspace.to_owned(),
                    action: operation.action.to_owned(),
                    context: operation.force.then(|| context(&[("force", 1.0)])),
                    idempotency_key: (*key).to_owned(),
                    on_behalf_of: operation.on_behalf_of.to_owned(),
                    ..Default::default()
                };
                caller.ask(request).await.map(|gate| self.gate(&gate))
            }
            Command::Decide { on, decision, shown, .. } => {
                let approval_id = self.id(on);
                let request_hash = self.hash(&approval_id, *shown).await;
                let reason = "as discussed".to_owned();
                let request = proto::DecideRequest {
                    approval_id,
                    decision: (*decision).into(),
                    reason,
                    request_hash,
                    ..Default::default()
                };
                let decided = caller.approvals.clone().decide(request).await;
                decided.map(|decided| self.approval(decided.into_inner().approval))
            }
            Command::Withdraw { on, .. } => {
                let approval_id = self.id(on);
                let request = proto::WithdrawApprovalRequest { approval_id, ..Default::default() };
                let withdrawn = caller.approvals.clone().withdraw_approval(request).await;
                withdrawn.map(|withdrawn| self.approval(withdrawn.into_inner().approval))
            }
            Command::Revoke { on, .. } => {
                let (approval_id, reason) = (self.id(on), "on second thoughts".to_owned());
                let request =
                    proto::RevokeApprovalRequest { approval_id, reason, ..Default::default() };
                let revoked = caller.approvals.clone().revoke_approval(request).await;
                revoked.map(|revoked| self.approval(revoked.into_inner().approval))
            }
            Command::Report { on, result, .. } => {
                let (approval_id, result) = (self.id(on), (*result).into());
                let request =
                    proto::ReportResultRequest { approval_id, result, ..Default::default() };
                let reported = caller.approvals.clone().report_result(request).await;
                reported.map(|reported| self.approval(reported.into_inner().approval))
            }
        };
        answer.unwrap_or_else(|status| refused(&status))
    }

    /// The hash that an approver says it was shown.
    async fn hash(&self, id: &str, shown: Shown) -> String {
        let of_it = "SELECT encode(request_hash, 'hex') FROM approval_authority.approvals
            WHERE id = $1::text::uuid";
        let row = self.client.query_opt(of_it, &[&id]).await.expect("a row");
        let hash = row.map_or_else(|| "00".repeat(32), |row| row.get(0));
        match shown {
            Shown::Unsaid => String::new(),
            Shown::This => hash,
            Shown::Another => hash.chars().rev().collect(),
        }
    }

    /// A new approval takes its place in the model.
    fn gate(&mut self, gate: &proto::RequireApprovalResponse) -> Answer {
        if let (Outcome::Pending, Some(approval)) = (gate.outcome(), &gate.approval)
            && !self.ids.contains(&approval.id)
        {
            self.ids.push(approval.id.clone());
        }
        Answer::Gate {
            outcome: gate.outcome(),
            about: gate.approval.as_ref().map(|approval| self.about(approval)),
            retry_after: gate.retry_after.as_ref().map(|after| (after.seconds + UNIT - 1) / UNIT),
            replayed: gate.replayed,
        }
    }

    fn approval(&self, approval: Option<proto::Approval>) -> Answer {
        Answer::Approval(self.about(&approval.expect("the approval")))
    }

    fn about(&self, approval: &proto::Approval) -> About {
        let deadline = approval.expire_time.as_ref().expect("a deadline");
        let verdicts = approval.verdicts.iter();
        let mut verdicts: Vec<String> =
            verdicts.map(|v| format!("{} {}", v.approver, v.decision().as_str_name())).collect();
        verdicts.sort();
        About {
            approval: self.place(&approval.id),
            state: approval.state(),
            version: approval.version,
            verdicts,
            deadline: (deadline.seconds - self.start) / UNIT,
            recent_denials: approval.recent_denials,
        }
    }
}

fn refused(status: &Status) -> Answer {
    let details = status.get_error_details();
    let info = details.error_info().expect("details");
    let detail = info.metadata.values().next().cloned().unwrap_or_default();
    Answer::Refused { code: status.code(), reason: info.reason.clone(), detail }
}
