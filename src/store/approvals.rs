//! The approvals: read with or without locks, inserted, updated. What is written is what events say.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio_postgres::{Statement, types::Json};
use uuid::Uuid;

use super::{
    Connection, Failure, Store,
    rows::{Columns, approval, in_lock_order, request_columns, standing_columns},
};
use crate::{
    approval::{Approval, Event, Standing, Verdict},
    names::{Namespace, WorkspaceId},
};

pub(super) const LOCK: &str =
    "-- lock_approvals(): in one order everywhere, so that no two wait for each other
SELECT a.id FROM approval_authority.approvals AS a
WHERE a.namespace = $1 AND a.id = ANY($2) ORDER BY a.id FOR UPDATE";

/// Reads what `LOCK` has locked, in a statement of its own: one that waits for a lock and reads on sees the
/// locked rows as they are, but the verdicts as they were before it waited.
pub(super) const READ: &str = concat!(
    "-- read_approvals(): by id
SELECT ",
    request_columns!(),
    ", ",
    standing_columns!(),
    "
FROM approval_authority.approvals AS a WHERE a.namespace = $1 AND a.id = ANY($2)"
);

pub(super) const INSERT: &str = "-- insert_approvals(): a row that loses to an open one of the same operation is left out
INSERT INTO approval_authority.approvals (namespace, id, workspace_id, action, context, request_hash,
    requested_by, on_behalf_of, reason, approvals_required, approved_ttl_ms, deny_cooldown_ms,
    escalate_after_ms, policy_digest, recent_denials, create_time, state, version, expire_time,
    escalated_to, escalate_time)
SELECT $1, n.id, n.workspace_id, n.action, n.context, n.request_hash, n.requested_by, n.on_behalf_of,
    n.reason, n.approvals_required, n.approved_ttl_ms, n.deny_cooldown_ms, n.escalate_after_ms,
    n.policy_digest, n.recent_denials, n.create_time, n.state, n.version, n.expire_time, n.escalated_to,
    n.escalate_time
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::text[], $8::text[], $9::text[],
    $10::integer[], $11::bigint[], $12::bigint[], $13::jsonb[], $14::text[], $15::integer[],
    $16::timestamptz[], $17::text[], $18::integer[], $19::timestamptz[], $20::text[], $21::timestamptz[])
    AS n (id, workspace_id, action, context, request_hash, requested_by, on_behalf_of, reason,
    approvals_required, approved_ttl_ms, deny_cooldown_ms, escalate_after_ms, policy_digest, recent_denials,
    create_time, state, version, expire_time, escalated_to, escalate_time)
ON CONFLICT DO NOTHING
RETURNING id";

pub(super) const UPDATE: &str = "-- update_approvals(): only from the version that was read
UPDATE approval_authority.approvals AS a
SET state = n.state, version = n.version, expire_time = n.expire_time, decide_time = n.decide_time,
    consume_time = n.consume_time, consumed_by = n.consumed_by, consumed_key = n.consumed_key,
    cooldown_end = n.cooldown_end, result = n.result, escalated_to = n.escalated_to,
    escalate_time = n.escalate_time
FROM unnest($2::uuid[], $3::integer[], $4::text[], $5::integer[], $6::timestamptz[], $7::timestamptz[],
    $8::timestamptz[], $9::text[], $10::text[], $11::timestamptz[], $12::text[], $13::text[],
    $14::timestamptz[])
    AS n (id, version_read, state, version, expire_time, decide_time, consume_time, consumed_by,
    consumed_key, cooldown_end, result, escalated_to, escalate_time)
WHERE a.namespace = $1 AND a.id = ANY($2) AND a.id = n.id AND a.version = n.version_read";

pub(super) const REPLACE_VERDICTS: &str =
    "-- replace_verdicts(): of approvers who have changed their mind
UPDATE approval_authority.verdicts AS v
SET decision = n.decision, reason = n.reason, verdict_time = n.verdict_time
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
    AS n (approval_id, approver, decision, reason, verdict_time)
WHERE v.namespace = $1 AND v.approval_id = ANY($2) AND v.approval_id = n.approval_id
    AND v.approver = n.approver";

pub(super) const INSERT_VERDICTS: &str = "-- insert_verdicts(): one for each approver
INSERT INTO approval_authority.verdicts (namespace, approval_id, approver, decision, reason, verdict_time)
SELECT $1, n.approval_id, n.approver, n.decision, n.reason, n.verdict_time
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
    AS n (approval_id, approver, decision, reason, verdict_time)
ON CONFLICT DO NOTHING";

impl Store {
    /// One approval, as it stands.
    pub async fn approval(
        &self,
        namespace: &Namespace,
        id: Uuid,
    ) -> Result<Option<Approval>, Failure> {
        let lease = self.lookup_connection().await?;
        let found = lease
            .patiently(async {
                let statement = lease.prepare_cached(READ).await?;
                read(&lease, &statement, namespace, &[id]).await
            })
            .await?;
        Ok(found.into_values().next())
    }
}

/// Runs `LOCK`.
pub(super) async fn lock(
    connection: &Connection,
    statement: &Statement,
    namespace: &Namespace,
    ids: &[Uuid],
) -> Result<(), Failure> {
    connection.query(statement, &[&namespace.as_str(), &in_lock_order(ids)]).await?;
    Ok(())
}

/// Runs `READ`.
pub(super) async fn read(
    connection: &Connection,
    statement: &Statement,
    namespace: &Namespace,
    ids: &[Uuid],
) -> Result<BTreeMap<Uuid, Approval>, Failure> {
    let rows = connection.query(statement, &[&namespace.as_str(), &ids]).await?;
    rows.iter()
        .map(|row| {
            let approval = approval(&mut Columns::of(row))?;
            Ok((approval.id(), approval))
        })
        .collect()
}

/// Runs `INSERT`; returns the ids of the rows that are there now.
pub(super) async fn insert(
    connection: &Connection,
    statement: &Statement,
    namespace: &Namespace,
    new: &[&Approval],
) -> Result<Vec<Uuid>, Failure> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let requests = || new.iter().map(|a| &a.request);
    let operations = || new.iter().map(|a| &a.request.operation);
    let rows = connection
        .query(
            statement,
            &[
                &namespace.as_str(),
                &requests().map(|r| r.id).collect::<Vec<Uuid>>(),
                &operations().map(|o| o.workspace_id.as_str()).collect::<Vec<&str>>(),
                &operations().map(|o| o.action.as_str()).collect::<Vec<&str>>(),
                &operations().map(|o| o.context.as_str()).collect::<Vec<&str>>(),
                &operations().map(|o| o.request_hash.as_bytes()).collect::<Vec<&[u8]>>(),
                &operations().map(|o| o.requested_by.as_str()).collect::<Vec<&str>>(),
                &operations()
                    .map(|o| o.on_behalf_of.as_ref().map_or("", |name| name.as_str()))
                    .collect::<Vec<&str>>(),
                &requests().map(|r| r.reason.as_str()).collect::<Vec<&str>>(),
                &requests().map(|r| r.approvals_required.cast_signed()).collect::<Vec<i32>>(),
                &requests().map(|r| milliseconds(r.approved_ttl)).collect::<Vec<i64>>(),
                &requests().map(|r| milliseconds(r.deny_cooldown)).collect::<Vec<i64>>(),
                &requests().map(|r| steps(&r.escalate_after)).collect::<Vec<Json<Vec<i64>>>>(),
                &requests().map(|r| &*r.policy_digest).collect::<Vec<&str>>(),
                &requests().map(|r| r.recent_denials.cast_signed()).collect::<Vec<i32>>(),
                &requests().map(|r| r.create_time).collect::<Vec<Timestamp>>(),
                &new.iter().map(|a| a.standing.state.as_str()).collect::<Vec<&str>>(),
                &new.iter().map(|a| a.standing.version.cast_signed()).collect::<Vec<i32>>(),
                &new.iter().map(|a| a.standing.expire_time).collect::<Vec<Timestamp>>(),
                &new.iter().map(|a| escalated_to(&a.standing)).collect::<Vec<Option<&str>>>(),
                &new.iter().map(|a| a.standing.escalate_time).collect::<Vec<_>>(),
            ],
        )
        .await?;
    rows.iter().map(|row| Columns::of(row).next()).collect()
}

/// Runs `UPDATE`: each approval from the version beside it. All of them, or it is a fault.
pub(super) async fn update(
    connection: &Connection,
    statement: &Statement,
    namespace: &Namespace,
    changed: &[(u32, &Approval)],
) -> Result<(), Failure> {
    if changed.is_empty() {
        return Ok(());
    }
    let standings = || changed.iter().map(|(_, a)| &a.standing);
    let consumptions = || standings().map(|s| s.consumption.as_ref());
    let updated = connection
        .execute(
            statement,
            &[
                &namespace.as_str(),
                &changed.iter().map(|(_, a)| a.id()).collect::<Vec<Uuid>>(),
                &changed.iter().map(|(read, _)| read.cast_signed()).collect::<Vec<i32>>(),
                &standings().map(|s| s.state.as_str()).collect::<Vec<&str>>(),
                &standings().map(|s| s.version.cast_signed()).collect::<Vec<i32>>(),
                &standings().map(|s| s.expire_time).collect::<Vec<Timestamp>>(),
                &standings().map(|s| s.decide_time).collect::<Vec<Option<Timestamp>>>(),
                &consumptions().map(|c| c.map(|c| c.time)).collect::<Vec<Option<Timestamp>>>(),
                &consumptions().map(|c| c.map(|c| c.by.as_str())).collect::<Vec<Option<&str>>>(),
                &consumptions()
                    .map(|c| c.and_then(|c| c.key.as_ref()).map(|key| key.as_str()))
                    .collect::<Vec<Option<&str>>>(),
                &standings().map(|s| s.cooldown_end).collect::<Vec<Option<Timestamp>>>(),
                &standings().map(|s| s.result.map(|r| r.as_str())).collect::<Vec<Option<&str>>>(),
                &standings().map(escalated_to).collect::<Vec<Option<&str>>>(),
                &standings().map(|s| s.escalate_time).collect::<Vec<Option<Timestamp>>>(),
            ],
        )
        .await?;
    if updated != changed.len() as u64 {
        return Err(Failure::Fault(format!("{updated} of {} approvals updated", changed.len())));
    }
    Ok(())
}

/// Runs `REPLACE_VERDICTS` or `INSERT_VERDICTS`.
pub(super) async fn write_verdicts(
    connection: &Connection,
    statement: &Statement,
    namespace: &Namespace,
    verdicts: &[(Uuid, &Verdict)],
) -> Result<(), Failure> {
    if verdicts.is_empty() {
        return Ok(());
    }
    connection
        .execute(
            statement,
            &[
                &namespace.as_str(),
                &verdicts.iter().map(|(id, _)| *id).collect::<Vec<Uuid>>(),
                &verdicts.iter().map(|(_, v)| v.approver.as_str()).collect::<Vec<&str>>(),
                &verdicts.iter().map(|(_, v)| v.decision.as_str()).collect::<Vec<&str>>(),
                &verdicts.iter().map(|(_, v)| v.reason.as_str()).collect::<Vec<&str>>(),
                &verdicts.iter().map(|(_, v)| v.time).collect::<Vec<Timestamp>>(),
            ],
        )
        .await?;
    Ok(())
}

/// The rows that some events leave behind: those that are new, and those that were at a version before.
pub(super) fn rows_after(events: &[Event]) -> (Vec<&Approval>, Vec<(u32, &Approval)>) {
    let mut rows: BTreeMap<Uuid, (u32, &Approval)> = BTreeMap::new();
    for event in events {
        let before = event.approval.standing.version - 1;
        rows.entry(event.approval.id()).or_insert((before, &event.approval)).1 = &event.approval;
    }
    let (new, changed): (Vec<_>, Vec<_>) = rows.into_values().partition(|(before, _)| *before == 0);
    (new.into_iter().map(|(_, approval)| approval).collect(), changed)
}

fn steps(escalate_after: &[jiff::SignedDuration]) -> Json<Vec<i64>> {
    Json(escalate_after.iter().copied().map(milliseconds).collect())
}

fn escalated_to(standing: &Standing) -> Option<&str> {
    standing.escalated_to.as_ref().map(WorkspaceId::as_str)
}

fn milliseconds(duration: jiff::SignedDuration) -> i64 {
    // Policies hold a year at most, some 3.2e10 ms.
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
