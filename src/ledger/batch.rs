//! One batch: a transaction that locks, decides, writes and commits for all of its commands, and what to do
//! when it fails.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, stream};
use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Answer, Job, Shared, Task};
use crate::{
    approval::{
        Approval, Event,
        gate::{self, Circumstances, Require},
        time, transition,
    },
    error::Error,
    names::{Namespace, WorkspaceId},
    store::{
        Failure, Store,
        batch::{self, Found},
        transaction::Transaction,
    },
    traces,
};

/// How often a batch is tried when the database was not there, or turned out to have rolled it back.
const ATTEMPTS: u32 = 2;

/// Transactions of one namespace at once when a batch has failed: the others need connections too.
const AT_ONCE: usize = 4;

/// How long the ledger tries to find out what became of a COMMIT that was not answered.
const FIND_OUT_PATIENCE: Duration = Duration::from_secs(8);

/// Between two such tries.
const FIND_OUT_PAUSE: Duration = Duration::from_millis(100);

/// What a command came to.
enum Decided {
    /// It is answered so, once its events are durable.
    Answered(Vec<Event>, Result<Answer, Error>),
    /// Nothing happened, but for the time at which the keeper comes back to this approval.
    Noted(Approval),
    /// What it met is not what it had looked at.
    LookAgain,
}

/// Carries out a batch and answers its callers.
pub(super) async fn run(shared: Arc<Shared>, namespace: Namespace, jobs: Vec<Job>) {
    let unanswered = run_together(&shared, &namespace, jobs).await;
    // The failure belongs to one of them; the others must not suffer for it, nor wait for it.
    let each = unanswered.into_iter().map(|job| run_together(&shared, &namespace, vec![job]));
    stream::iter(each).for_each_concurrent(AT_ONCE, |work| work.map(drop)).await;
}

/// Carries out commands in one transaction and answers their callers; where it fails for a reason that may be
/// only one command's, returns them unanswered. A command by itself is always answered.
async fn run_together(shared: &Arc<Shared>, namespace: &Namespace, mut jobs: Vec<Job>) -> Vec<Job> {
    let mut attempts = 0;
    loop {
        // A caller that has given up must not use an approval that nobody will act on.
        jobs.retain(|job| !job.is_given_up());
        if jobs.is_empty() {
            return jobs;
        }
        attempts += 1;
        let began = Instant::now();
        let work = attempt(shared, namespace, &jobs);
        let calls = jobs.iter().map(|job| &job.trace);
        let attempted = traces::batch("ledger.commit", calls, work).await;
        shared.counts.commits.done(jobs.len(), began.elapsed());
        match attempted {
            Ok(decided) => {
                answer(shared, namespace, jobs, decided);
                return Vec::new();
            }
            Err(failure @ (Failure::Fault(_) | Failure::Busy(_))) if jobs.len() > 1 => {
                tracing::warn!(%failure, "a batch failed and its commands are run each by itself");
                return jobs;
            }
            Err(Failure::Unavailable(why)) if attempts < ATTEMPTS => {
                tracing::info!(%why, "a batch is tried again");
            }
            Err(failure) => {
                refuse(jobs, failure);
                return Vec::new();
            }
        }
    }
}

/// Tells every caller that it cannot be done.
pub(super) fn refuse(jobs: Vec<Job>, failure: Failure) {
    // A fault is logged under the trace of the first of them.
    let within = jobs.iter().find_map(|job| job.trace.attach());
    let error = Error::from(failure);
    drop(within);
    jobs.into_iter().for_each(|job| job.answer(Err(error.clone())));
}

fn answer(shared: &Arc<Shared>, namespace: &Namespace, jobs: Vec<Job>, decided: Vec<Decided>) {
    let mut again = Vec::new();
    for (job, decided) in jobs.into_iter().zip(decided) {
        match decided {
            Decided::Answered(_, answer) => job.answer(answer),
            Decided::Noted(approval) => job.answer(Ok(Answer::Approval(approval))),
            Decided::LookAgain => again.push(job),
        }
    }
    shared.look_again(namespace, again);
}

async fn attempt(
    shared: &Shared,
    namespace: &Namespace,
    jobs: &[Job],
) -> Result<Vec<Decided>, Failure> {
    let calls: Vec<&Require> = jobs.iter().filter_map(Job::call).collect();
    let ids: Vec<Uuid> = jobs.iter().flat_map(Job::approvals).collect();
    let kept: Vec<Uuid> = jobs.iter().filter_map(Job::kept).collect();
    let Shared { store, counts, .. } = shared;
    let (tx, found) = begin(store, namespace, &ids, &calls, &kept).await?;
    let mut decided = decide(jobs, found);
    let events: Vec<Event> = events_of(&decided);
    let noted: Vec<&Approval> = decided.iter().filter_map(Decided::noted).collect();
    let promises = decided.iter().any(Decided::promises);
    if events.is_empty() && noted.is_empty() && !promises {
        tx.rollback().await?;
        return Ok(decided);
    }
    let batch_id = Uuid::new_v4();
    if !events.is_empty() || !noted.is_empty() {
        let lost = batch::write(&tx, namespace, batch_id, &events, &noted).await?;
        for decided in &mut decided {
            if decided.asks_as(&lost) {
                *decided = Decided::LookAgain;
            }
        }
    }
    match tx.commit().await {
        Ok(()) => {}
        Err(Failure::Unknown) => {
            let found = find_out(store, namespace, batch_id, &events_of(&decided)).await;
            counts.found_out(match &found {
                Ok(()) => Some(true),
                Err(Failure::Unavailable(_)) => Some(false),
                Err(_) => None,
            });
            found?;
        }
        Err(failure) => return Err(failure),
    }
    let mut happened = decided.iter().flat_map(Decided::events).peekable();
    if happened.peek().is_some() {
        store.announcer().announce(namespace);
    }
    happened.for_each(|event| counts.event(event));
    Ok(decided)
}

/// Begins a transaction that holds and has read what the batch stands on. The first of a namespace finds no log to
/// lock, and sees to it that there is one.
async fn begin(
    store: &Store,
    namespace: &Namespace,
    ids: &[Uuid],
    calls: &[&Require],
    kept: &[Uuid],
) -> Result<(Transaction, Found), Failure> {
    loop {
        let tx = store.begin().await?;
        match batch::lock_and_read(&tx, namespace, ids, calls, kept).await {
            Ok(found) => return Ok((tx, found)),
            Err(Failure::NoLog) => {
                tx.rollback().await?;
                store.create_log(namespace).await?;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Whether a batch whose COMMIT was not answered was committed: an error says that it was not, or that it
/// cannot be found out.
///
/// The log's lock waits for the other transaction to end, and a commit of this one's own makes what was seen
/// as durable as an answer must be: a plain read would not wait for the standby.
async fn find_out(
    store: &Store,
    namespace: &Namespace,
    batch_id: Uuid,
    events: &[Event],
) -> Result<(), Failure> {
    // A batch that only repeats answers, or takes notes, has left nothing to look for.
    let event = events.first().ok_or(Failure::Unknown)?;
    let until = Instant::now() + FIND_OUT_PATIENCE;
    while Instant::now() < until {
        match ask_once(store, namespace, batch_id, event).await {
            Ok(true) => return Ok(()),
            Ok(false) => {
                return Err(Failure::Unavailable("the batch was rolled back".to_owned()));
            }
            Err(failure) => tracing::warn!(%failure, "the outcome of a batch is not known yet"),
        }
        tokio::time::sleep(FIND_OUT_PAUSE).await;
    }
    Err(Failure::Unknown)
}

async fn ask_once(
    store: &Store,
    namespace: &Namespace,
    batch_id: Uuid,
    event: &Event,
) -> Result<bool, Failure> {
    let tx = store.begin().await?;
    let committed = batch::is_committed(&tx, namespace, batch_id, event).await?;
    tx.commit().await?;
    Ok(committed)
}

/// What each command comes to, from what was read with all locks held.
fn decide(jobs: &[Job], found: Found) -> Vec<Decided> {
    let now = found.now;
    let mut circumstances = found.circumstances.into_iter();
    let mut asked: HashMap<WorkspaceId, u32> = HashMap::new();
    jobs.iter()
        .map(|job| match &job.task {
            Task::Gate(require) => {
                let circumstances = circumstances.next().unwrap_or_default();
                // The locks may have taken long.
                if job.is_given_up() {
                    return Decided::Answered(Vec::new(), Err(Error::OutcomeUnknown));
                }
                gate(require, circumstances, &job.met, &mut asked, now)
            }
            Task::On(id, command) => match found.approvals.get(id) {
                Some(approval) => {
                    let outcome = transition::apply(approval, command, now);
                    Decided::Answered(outcome.events, outcome.answer.map(Answer::Approval))
                }
                None => Decided::Answered(Vec::new(), Err(Error::ApprovalNotFound)),
            },
            Task::Keep(id) => match found.approvals.get(id) {
                Some(approval) => keep(approval, found.paths.get(id), now),
                None => Decided::Answered(Vec::new(), Err(Error::ApprovalNotFound)),
            },
        })
        .collect()
}

fn keep(approval: &Approval, path: Option<&Vec<WorkspaceId>>, now: Timestamp) -> Decided {
    let path = path.map_or(&[][..], Vec::as_slice);
    let kept = time::keep(approval, path, now);
    if kept.events.is_empty() && kept.approval != *approval {
        return Decided::Noted(kept.approval);
    }
    Decided::Answered(kept.events, Ok(Answer::Approval(kept.approval)))
}

fn gate(
    require: &Require,
    mut circumstances: Circumstances,
    met: &[Uuid],
    asked: &mut HashMap<WorkspaceId, u32>,
    now: Timestamp,
) -> Decided {
    let found = [&circumstances.open, &circumstances.key_holder];
    if found.into_iter().flatten().any(|approval| !met.contains(&approval.id())) {
        return Decided::LookAgain;
    }
    let asked_here = asked.entry(require.operation.workspace_id.clone()).or_default();
    circumstances.pending += *asked_here;
    let outcome = gate::require(require, &circumstances, new_id(now), now);
    if outcome.events.iter().any(Event::is_request) {
        *asked_here += 1;
    }
    Decided::Answered(outcome.events, outcome.answer.map(Answer::Gate))
}

/// A UUIDv7 (RFC 9562 section 5.7) of the database's time, so that ids are in the order of time whichever
/// replica makes them.
fn new_id(now: Timestamp) -> Uuid {
    let seconds = now.as_second().max(0).cast_unsigned();
    let nanoseconds = now.subsec_nanosecond().max(0).cast_unsigned();
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanoseconds))
}

/// What happened, in the order of the log. Calls to the gate come first: they were decided without a denial of
/// the same batch in view, so that denial must come after them.
fn events_of(decided: &[Decided]) -> Vec<Event> {
    let mut requests_first = Vec::new();
    let mut commands = Vec::new();
    for decided in decided {
        match decided {
            Decided::Answered(events, Ok(Answer::Gate(_))) => requests_first.extend(events),
            other => commands.extend(other.events()),
        }
    }
    requests_first.into_iter().chain(commands).cloned().collect()
}

impl Decided {
    /// Whether the caller is told that something is so. Even where nothing changes, as when a verdict is
    /// repeated, what was read must be durable first: the COMMIT that wrote it may not have been confirmed.
    fn promises(&self) -> bool {
        matches!(self, Self::Answered(_, Ok(_)))
    }

    /// What happens by it.
    fn events(&self) -> &[Event] {
        match self {
            Self::Answered(events, _) => events,
            Self::Noted(_) | Self::LookAgain => &[],
        }
    }

    /// Whether it asks for one of these new approvals.
    fn asks_as(&self, lost: &[Uuid]) -> bool {
        self.events().iter().any(|event| lost.contains(&event.approval.id()))
    }

    fn noted(&self) -> Option<&Approval> {
        match self {
            Self::Noted(approval) => Some(approval),
            Self::Answered(..) | Self::LookAgain => None,
        }
    }
}

impl Job {
    /// The approval that the keeper sees to.
    fn kept(&self) -> Option<Uuid> {
        match self.task {
            Task::Keep(id) => Some(id),
            Task::Gate(_) | Task::On(..) => None,
        }
    }

    /// The approvals that must be locked for it.
    fn approvals(&self) -> Vec<Uuid> {
        match &self.task {
            Task::Gate(_) => self.met.clone(),
            Task::On(id, _) | Task::Keep(id) => vec![*id],
        }
    }
}
