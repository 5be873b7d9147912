//! Applies commands: the one door through which approvals change.
//!
//! Calls to the gate first take the *look* lane: one read for all that wait, which answers those that join what
//! is pending or meet a denial. The others, and every command on an approval, take the *commit* lane: one
//! transaction for all that wait. Each lane has at most one batch of a namespace in flight; what arrives
//! meanwhile makes the next one, so a lone caller waits for nobody and a crowd shares one commit.
//!
//! Callers hold a receiver and nothing else: one that gives up disturbs no batch. How many of them there are is bounded where they
//! are let in, for each principal and in all; a lane takes them in the order in which they come.

use std::{collections::HashSet, sync::Arc, time::Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    approval::{
        Approval, OperationKey,
        gate::{self, Gate, Require},
        transition::Command,
    },
    error::Error,
    metrics::{Batches, Measures},
    names::{IdempotencyKey, Namespace, Principal},
    store::{Failure, Store},
    traces::{self, Trace},
};

mod batch;
mod history;
mod lane;

use lane::Lane;

/// Commands in a transaction at most: more gain little and hold the log longer.
const BATCH: usize = 128;

/// How often a call to the gate starts over because what it met had changed, before it is told to come back.
const ROUNDS: u32 = 50;

/// Applies commands to approvals. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    looks: Lane<Job>,
    commits: Lane<Job>,
    counts: Batches,
}

/// A command on its way, and where its answer goes.
struct Job {
    task: Task,
    /// The approvals that a call to the gate met when it looked.
    met: Vec<Uuid>,
    rounds: u32,
    /// The call that gives it.
    trace: Trace,
    /// Cancelled when the caller is not there any more, though somebody may still wait for the reply.
    gone: CancellationToken,
    reply: oneshot::Sender<Result<Answer, Error>>,
}

enum Task {
    Gate(Box<Require>),
    On(Uuid, Command),
    /// The keeper's: see to an approval whose time has come.
    Keep(Uuid),
}

#[derive(Clone)]
enum Answer {
    Gate(Gate),
    Approval(Approval),
}

/// What no two commands of a batch may share.
#[derive(PartialEq, Eq, Hash)]
enum Claim {
    Operation(OperationKey),
    Approval(Uuid),
    Attempt(Principal, IdempotencyKey),
}

impl Ledger {
    /// A ledger on this store.
    pub fn new(store: Store) -> Self {
        let (looks, commits, counts) = (Lane::default(), Lane::default(), Batches::default());
        let shared = Shared { store, looks, commits, counts };
        Self { shared: Arc::new(shared) }
    }

    /// What it does in batches, and how long people take.
    pub fn measures(&self) -> Measures {
        self.shared.counts.measures()
    }

    /// Consumes a matching approval, or joins or creates the pending one.
    pub async fn require(&self, require: Require) -> Result<Gate, Error> {
        self.require_unless(require, &CancellationToken::new()).await
    }

    /// The same, unless the caller is `gone` by the time that it would be decided: an approval is not to be used by
    /// somebody who will not act on it. Then the answer, which nobody is there for, is [`Error::OutcomeUnknown`].
    pub async fn require_unless(
        &self,
        require: Require,
        gone: &CancellationToken,
    ) -> Result<Gate, Error> {
        let namespace = require.namespace.clone();
        match self.submit(namespace, Task::Gate(Box::new(require)), gone.clone()).await? {
            Answer::Gate(gate) => Ok(gate),
            Answer::Approval(_) => {
                Err(Error::internal("a call to the gate was answered as a command"))
            }
        }
    }

    /// Carries out a command on an approval.
    pub async fn command(
        &self,
        namespace: &Namespace,
        id: Uuid,
        command: Command,
    ) -> Result<Approval, Error> {
        let here = CancellationToken::new();
        match self.submit(namespace.clone(), Task::On(id, command), here).await? {
            Answer::Approval(approval) => Ok(approval),
            Answer::Gate(_) => Err(Error::internal("a command was answered as a call to the gate")),
        }
    }

    /// Does to an approval what passing time does: lets it lapse, or brings it before the next ancestor.
    pub async fn keep(&self, namespace: &Namespace, id: Uuid) -> Result<(), Error> {
        let here = CancellationToken::new();
        self.submit(namespace.clone(), Task::Keep(id), here).await.map(|_| ())
    }

    async fn submit(
        &self,
        namespace: Namespace,
        task: Task,
        gone: CancellationToken,
    ) -> Result<Answer, Error> {
        let (reply, answer) = oneshot::channel();
        let trace = Trace::current();
        let job = Job { task, met: Vec::new(), rounds: 0, trace, gone: gone.clone(), reply };
        match &job.task {
            Task::Gate(_) => self.shared.look(namespace, vec![job]),
            Task::On(..) | Task::Keep(_) => self.shared.commit(namespace, vec![job]),
        }
        match answer.await {
            Ok(answer) => answer,
            Err(_) if gone.is_cancelled() => Err(Error::OutcomeUnknown),
            Err(_) => Err(Error::internal("a batch ended without an answer")),
        }
    }
}

impl Shared {
    fn look(self: &Arc<Self>, namespace: Namespace, jobs: Vec<Job>) {
        if self.looks.push(&namespace, jobs) {
            tokio::spawn(self.clone().run_looks(namespace));
        }
    }

    fn commit(self: &Arc<Self>, namespace: Namespace, jobs: Vec<Job>) {
        if self.commits.push(&namespace, jobs) {
            tokio::spawn(self.clone().run_commits(namespace));
        }
    }

    async fn run_looks(self: Arc<Self>, namespace: Namespace) {
        while let Some(mut waiting) = self.looks.take(&namespace) {
            waiting.retain(|job| !job.is_given_up());
            if waiting.is_empty() {
                continue;
            }
            let rest = waiting.split_off(BATCH.min(waiting.len()));
            self.looks.put_back(&namespace, rest);
            let batch = self.clone().look_together(namespace.clone(), waiting);
            // In a task of its own, so that a panic costs these callers an error and the lane nothing.
            if let Err(panic) = tokio::spawn(batch).await {
                tracing::error!(%panic, "a batch of looks was lost");
            }
        }
    }

    async fn run_commits(self: Arc<Self>, namespace: Namespace) {
        while let Some(waiting) = self.commits.take(&namespace) {
            let (batch, same_call, rest) = choose(waiting);
            self.commits.put_back(&namespace, rest);
            let work = batch::run(self.clone(), namespace.clone(), batch);
            if let Err(panic) = tokio::spawn(work).await {
                tracing::error!(%panic, "a batch of commands was lost");
            }
            // What these were about to do has just been done by another: let them look first.
            if !same_call.is_empty() {
                self.look(namespace.clone(), same_call);
            }
        }
    }

    async fn look_together(self: Arc<Self>, namespace: Namespace, jobs: Vec<Job>) {
        let began = Instant::now();
        let calls: Vec<&Require> = jobs.iter().filter_map(Job::call).collect();
        let look = async {
            let looked = self.store.peek(&namespace, &calls).await;
            let Err(Failure::Unavailable(why) | Failure::Busy(why)) = &looked else {
                return looked;
            };
            // A connection may have died unseen, and its successor may do; what stood in the way may be gone.
            tracing::info!(%why, "a look is tried again");
            self.store.peek(&namespace, &calls).await
        };
        let looked = traces::batch("ledger.look", jobs.iter().map(|job| &job.trace), look).await;
        self.counts.looks.done(jobs.len(), began.elapsed());
        let found = match looked {
            Ok(found) => found,
            Err(failure) => return batch::refuse(jobs, failure),
        };
        let mut to_commit = Vec::new();
        for (mut job, (circumstances, now)) in jobs.into_iter().zip(found) {
            match now.and_then(|now| gate::join(&circumstances, now)) {
                Some(gate) => job.answer(Ok(Answer::Gate(gate))),
                None => {
                    let met = [circumstances.open, circumstances.key_holder];
                    job.met = met.into_iter().flatten().map(|approval| approval.id()).collect();
                    to_commit.push(job);
                }
            }
        }
        if !to_commit.is_empty() {
            self.commit(namespace, to_commit);
        }
    }

    /// A call to the gate that met what is no longer so looks again.
    fn look_again(self: &Arc<Self>, namespace: &Namespace, jobs: Vec<Job>) {
        let mut again = Vec::new();
        for mut job in jobs {
            job.rounds += 1;
            if job.rounds > ROUNDS {
                job.answer(Err(Error::Overloaded));
            } else {
                again.push(job);
            }
        }
        if !again.is_empty() {
            self.look(namespace.clone(), again);
        }
    }
}

/// Parts what waits into a batch in which no two commands touch the same thing, the calls to the gate that do
/// what one in the batch does, and the rest. Callers that have given up are left out.
fn choose(waiting: Vec<Job>) -> (Vec<Job>, Vec<Job>, Vec<Job>) {
    let (mut batch, mut same_call, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    let mut claimed = HashSet::new();
    for job in waiting.into_iter().filter(|job| !job.is_given_up()) {
        let claims = job.claims();
        let free = claims.iter().all(|claim| !claimed.contains(claim));
        if free && batch.len() < BATCH {
            claimed.extend(claims);
            batch.push(job);
        } else if !free && job.call().is_some() {
            same_call.push(job);
        } else {
            rest.push(job);
        }
    }
    (batch, same_call, rest)
}

impl Job {
    fn call(&self) -> Option<&Require> {
        match &self.task {
            Task::Gate(require) => Some(require),
            Task::On(..) | Task::Keep(_) => None,
        }
    }

    /// Whether nobody will act on its answer.
    fn is_given_up(&self) -> bool {
        self.gone.is_cancelled() || self.reply.is_closed()
    }

    fn answer(self, answer: Result<Answer, Error>) {
        // A caller that has given up is not there to be told.
        let _ = self.reply.send(answer);
    }

    fn claims(&self) -> Vec<Claim> {
        let mut claims: Vec<Claim> = self.met.iter().copied().map(Claim::Approval).collect();
        match &self.task {
            Task::Gate(require) => {
                claims.push(Claim::Operation(require.operation.key()));
                let principal = &require.operation.requested_by;
                claims.extend(
                    require.key.iter().map(|key| Claim::Attempt(principal.clone(), key.clone())),
                );
            }
            Task::On(id, _) | Task::Keep(id) => claims.push(Claim::Approval(*id)),
        }
        claims
    }
}
