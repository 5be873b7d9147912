//! Rows into the domain's types and back. A select list and the function that reads it stand side by side,
//! since columns are read in their order.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::{
    Row,
    types::{FromSql, Json},
};
use uuid::Uuid;

use super::Failure;
use crate::{
    approval::{
        Approval, Consumption, Operation, OperationResult, Request, Standing, State, Verdict,
    },
    digest::{Context, RequestHash},
    names::{Action, IdempotencyKey, Namespace, OnBehalfOf, Principal, Text, WorkspaceId},
};

/// The columns of `approvals AS a` that never change, in the order of [`request`].
macro_rules! request_columns {
    () => {
        "a.id, a.namespace, a.workspace_id, a.action, a.context, a.request_hash, a.requested_by, \
         a.on_behalf_of, a.reason, a.approvals_required, a.approved_ttl_ms, a.deny_cooldown_ms, \
         a.escalate_after_ms, a.policy_digest, a.recent_denials, a.create_time"
    };
}

/// The columns of `approvals AS a` that events change, with the verdicts, in the order of [`standing`]. Where one verdict is
/// enough, what is pending has none (`approval::exploration` makes sure), and to look for them would cost a fifth of a look at it.
macro_rules! standing_columns {
    () => {
        "a.state, a.version, CASE WHEN a.state = 'PENDING' AND a.approvals_required = 1 THEN '[]' ELSE \
         (SELECT coalesce(jsonb_agg(jsonb_build_object('approver', v.approver, \
         'decision', v.decision, 'reason', v.reason, 'time', v.verdict_time) \
         ORDER BY v.verdict_time, v.approver), '[]') FROM approval_authority.verdicts AS v \
         WHERE v.namespace = a.namespace AND v.approval_id = a.id) END, a.expire_time, a.decide_time, \
         a.consume_time, a.consumed_by, a.consumed_key, a.cooldown_end, a.result, a.escalated_to, \
         a.escalate_time"
    };
}

/// What the two above are taken from, where approvals are fetched in a subquery of their own.
macro_rules! all_columns {
    () => {
        "a.id, a.namespace, a.workspace_id, a.action, a.context, a.request_hash, a.requested_by, \
         a.on_behalf_of, a.reason, a.approvals_required, a.approved_ttl_ms, a.deny_cooldown_ms, \
         a.escalate_after_ms, a.policy_digest, a.recent_denials, a.create_time, a.state, a.version, \
         a.expire_time, a.decide_time, a.consume_time, a.consumed_by, a.consumed_key, a.cooldown_end, \
         a.result, a.escalated_to, a.escalate_time"
    };
}

/// What LIMIT takes.
pub(super) fn at_most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) use {all_columns, request_columns, standing_columns};

/// A row's columns, read from left to right.
pub(super) struct Columns<'a> {
    row: &'a Row,
    at: usize,
}

impl<'a> Columns<'a> {
    /// The first column is next.
    pub(super) fn of(row: &'a Row) -> Self {
        Self { row, at: 0 }
    }

    /// The first columns have been dealt with.
    pub(super) fn after(row: &'a Row, read: usize) -> Self {
        Self { row, at: read }
    }

    /// The next column.
    pub(super) fn next<T: FromSql<'a>>(&mut self) -> Result<T, Failure> {
        let value = self.row.try_get(self.at).map_err(Failure::corrupt)?;
        self.at += 1;
        Ok(value)
    }

    /// The next column, of text, as a checked name.
    pub(super) fn name<T>(
        &mut self,
        parse: impl FnOnce(&'a str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        parse(self.next()?).map_err(Failure::corrupt)
    }

    /// The next column, of text or null, as a checked name.
    pub(super) fn optional_name<T>(
        &mut self,
        parse: impl FnOnce(&'a str) -> Result<T, String>,
    ) -> Result<Option<T>, Failure> {
        let text: Option<&str> = self.next()?;
        text.map(parse).transpose().map_err(Failure::corrupt)
    }

    fn steps(&mut self) -> Result<Arc<[SignedDuration]>, Failure> {
        let Json(steps): Json<Vec<i64>> = self.next()?;
        Ok(steps.into_iter().map(SignedDuration::from_millis).collect())
    }

    fn count(&mut self) -> Result<u32, Failure> {
        let count: i32 = self.next()?;
        u32::try_from(count).map_err(Failure::corrupt)
    }
}

/// Reads `request_columns`.
pub(super) fn request(columns: &mut Columns<'_>) -> Result<Request, Failure> {
    Ok(Request {
        id: columns.next()?,
        namespace: columns.name(Namespace::parse)?,
        operation: Operation {
            workspace_id: columns.name(WorkspaceId::parse)?,
            action: columns.name(Action::parse)?,
            context: Context::from_canonical(columns.next()?),
            request_hash: RequestHash::from_bytes(columns.next()?).map_err(Failure::corrupt)?,
            requested_by: columns.name(Principal::parse)?,
            on_behalf_of: match columns.next()? {
                "" => None,
                name => Some(OnBehalfOf::stored(name)),
            },
        },
        reason: columns.name(Text::parse)?,
        approvals_required: columns.count()?,
        approved_ttl: SignedDuration::from_millis(columns.next()?),
        deny_cooldown: SignedDuration::from_millis(columns.next()?),
        escalate_after: columns.steps()?,
        policy_digest: columns.next::<&str>()?.into(),
        recent_denials: columns.count()?,
        create_time: columns.next()?,
    })
}

/// Reads `standing_columns`, or the same of an event.
pub(super) fn standing(columns: &mut Columns<'_>) -> Result<Standing, Failure> {
    let state = columns.name(State::parse)?;
    let version = columns.count()?;
    let Json(verdicts): Json<Vec<Verdict>> = columns.next()?;
    let expire_time = columns.next()?;
    let decide_time = columns.next()?;
    let consume_time: Option<Timestamp> = columns.next()?;
    let consumed_by = columns.optional_name(Principal::parse)?;
    let consumed_key = columns.optional_name(IdempotencyKey::parse)?;
    let consumption = match (consume_time, consumed_by) {
        (Some(time), Some(by)) => Some(Consumption { time, by, key: consumed_key }),
        (None, None) => None,
        _ => return Err(Failure::corrupt("consume_time without consumed_by")),
    };
    Ok(Standing {
        state,
        version,
        verdicts,
        expire_time,
        decide_time,
        consumption,
        cooldown_end: columns.next()?,
        result: columns.optional_name(OperationResult::parse)?,
        escalated_to: columns.optional_name(WorkspaceId::parse)?,
        escalate_time: columns.next()?,
    })
}

/// Reads `request_columns, standing_columns`.
pub(super) fn approval(columns: &mut Columns<'_>) -> Result<Approval, Failure> {
    Ok(Approval { request: Arc::new(request(columns)?), standing: standing(columns)? })
}

/// The ids of some approvals, in the order in which everybody locks them.
pub(super) fn in_lock_order(ids: &[Uuid]) -> Vec<Uuid> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids
}
