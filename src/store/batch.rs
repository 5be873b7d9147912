//! The two flights of a batch's transaction: what it locks and reads, and what it writes.
//!
//! Both are pipelined. tokio-postgres sends a request when its future is first polled, and the joins below poll
//! in the order they are written; the statements are prepared beforehand so that the first poll sends the
//! statement itself.

use std::collections::BTreeMap;

use futures_util::future::try_join5;
use jiff::Timestamp;
use tokio_postgres::Statement;
use uuid::Uuid;

use super::{Failure, Lease, approvals, due, events, log, requests, transaction::Transaction};
use crate::{
    approval::{
        Approval, Event,
        gate::{Circumstances, Require},
    },
    names::{Namespace, WorkspaceId},
};

/// What a batch stands on: every row of it locked, and read after the last lock was granted.
pub struct Found {
    /// The approvals that commands name.
    pub approvals: BTreeMap<Uuid, Approval>,
    /// What each call to the gate meets, in the order of the calls.
    pub circumstances: Vec<Circumstances>,
    /// The workspace of each approval that the keeper sees to, and its ancestors, nearest first.
    pub paths: BTreeMap<Uuid, Vec<WorkspaceId>>,
    /// The time, read after the locks: the time of all that the batch does.
    pub now: Timestamp,
}

/// Locks approvals in order of id, then the log; then reads the time, the approvals, what calls meet, and the tree
/// above those that the keeper sees to: `kept` are among `ids`.
///
/// Every change to an approval is appended to the log, so nothing read here can change before the end of the
/// transaction, not even what is not there yet: the cap, the cooldown and the keys are exact.
pub async fn lock_and_read(
    tx: &Transaction,
    namespace: &Namespace,
    ids: &[Uuid],
    calls: &[&Require],
    kept: &[Uuid],
) -> Result<Found, Failure> {
    let [lock, read, meet, facts] =
        prepare(tx, [approvals::LOCK, approvals::READ, requests::MEET, requests::FACTS]).await?;
    prepare(tx, [log::LOCK_LOG]).await?;
    let flight = try_join5(
        approvals::lock(tx, &lock, namespace, ids),
        log::lock(tx, namespace),
        approvals::read(tx, &read, namespace, ids),
        async { requests::meet(tx, &meet, namespace, calls).await.map_err(Failure::from) },
        async { requests::facts(tx, &facts, namespace, calls).await.map_err(Failure::from) },
    );
    let (_, (), approvals, met, facts) = tx.in_one_flight(flight).await?;
    let (circumstances, now) = requests::circumstances(&met, &facts, calls.len())?;
    let paths = due::paths(tx, namespace, kept).await?;
    Ok(Found { approvals, circumstances, paths, now })
}

/// Writes down what happened: the rows as the events leave them, the verdicts, the events; and the rows of `noted`,
/// to which nothing happened that would be told.
///
/// Returns the ids of new approvals that lost to an open one of the same operation; of those nothing is
/// written. Anything else that does not fit is a fault, and the transaction must be abandoned.
pub async fn write(
    tx: &Transaction,
    namespace: &Namespace,
    batch_id: Uuid,
    happened: &[Event],
    noted: &[&Approval],
) -> Result<Vec<Uuid>, Failure> {
    let [insert, update, append] =
        prepare(tx, [approvals::INSERT, approvals::UPDATE, events::APPEND]).await?;
    let [replace_verdicts, insert_verdicts] =
        prepare(tx, [approvals::REPLACE_VERDICTS, approvals::INSERT_VERDICTS]).await?;
    let (new, mut changed) = approvals::rows_after(happened);
    changed.extend(noted.iter().map(|approval| (approval.standing.version, *approval)));
    let verdicts: Vec<_> = happened
        .iter()
        .filter_map(|event| event.verdict().map(|verdict| (event.approval.id(), verdict)))
        .collect();
    // Updates first: an approval that lapses makes room in the unique index for the one that replaces it.
    let flight = try_join5(
        approvals::update(tx, &update, namespace, &changed),
        approvals::insert(tx, &insert, namespace, &new),
        approvals::write_verdicts(tx, &replace_verdicts, namespace, &verdicts),
        approvals::write_verdicts(tx, &insert_verdicts, namespace, &verdicts),
        events::append(tx, &append, namespace, batch_id, happened),
    );
    let ((), inserted, (), (), appended) = tx.in_one_flight(flight).await?;
    let lost: Vec<Uuid> =
        new.iter().map(|approval| approval.id()).filter(|id| !inserted.contains(id)).collect();
    let expected = happened.iter().filter(|event| !lost.contains(&event.approval.id())).count();
    if appended != expected as u64 {
        return Err(Failure::Fault(format!("{appended} of {expected} events appended")));
    }
    Ok(lost)
}

/// Whether a batch whose COMMIT was not answered is in the log. Waits until the other transaction has ended;
/// the caller commits this one, so that the answer is as durable as the batch was to be.
pub async fn is_committed(
    tx: &Transaction,
    namespace: &Namespace,
    batch_id: Uuid,
    event: &Event,
) -> Result<bool, Failure> {
    tx.patiently(log::lock(tx, namespace)).await?;
    tx.patiently(events::is_written(tx, namespace, batch_id, event)).await
}

async fn prepare<const N: usize>(
    lease: &Lease,
    statements: [&str; N],
) -> Result<[Statement; N], Failure> {
    let mut prepared = Vec::with_capacity(N);
    for statement in statements {
        prepared.push(lease.patiently(lease.prepare_cached(statement)).await?);
    }
    prepared.try_into().map_err(|_| Failure::Fault("a statement was not prepared".to_owned()))
}
