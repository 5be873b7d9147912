//! What a call to the gate meets: the open approval for its operation, a denial that stands, the approval its
//! attempt has consumed already, and what else bears on a new request.

use jiff::Timestamp;
use tokio_postgres::{Row, Statement};

use super::{
    Connection, Failure, Store,
    rows::{Columns, all_columns, approval, request_columns, standing_columns},
};
use crate::{
    approval::gate::{Circumstances, Require},
    names::{Namespace, WorkspaceId},
};

/// Three index lookups for each call, whatever the planner believes of a namespace: each part names an index's columns, and
/// nothing is joined to what it finds.
pub(super) const MEET: &str = concat!(
    "-- meet(): what each of some calls to the gate meets
SELECT q.ordinal, a.part, approval_authority.clock(), ",
    request_columns!(),
    ", ",
    standing_columns!(),
    "
FROM unnest($2::text[], $3::text[], $4::bytea[], $5::text[], $6::text[], $7::text[])
    WITH ORDINALITY AS q (workspace_id, action, request_hash, requested_by, on_behalf_of, key, ordinal)
CROSS JOIN LATERAL (
    SELECT 'open' AS part, ",
    all_columns!(),
    " FROM approval_authority.approvals AS a
    WHERE a.namespace = $1 AND a.workspace_id = q.workspace_id AND a.action = q.action
        AND a.request_hash = q.request_hash AND a.requested_by = q.requested_by
        AND a.on_behalf_of = q.on_behalf_of AND a.state IN ('PENDING', 'APPROVED')
    UNION ALL
    (SELECT 'denial', ",
    all_columns!(),
    " FROM approval_authority.approvals AS a
    WHERE a.namespace = $1 AND a.request_hash = q.request_hash AND a.state = 'DENIED'
    ORDER BY a.namespace DESC, a.request_hash DESC, a.cooldown_end DESC LIMIT 1)
    UNION ALL
    SELECT 'key', ",
    all_columns!(),
    " FROM approval_authority.approvals AS a
    WHERE a.namespace = $1 AND a.consumed_by = q.requested_by AND a.consumed_key = q.key
) AS a"
);

/// What is counted is counted once for all calls of a batch that it bears on: while somebody holds an old snapshot, dead rows are
/// counted past as well. Of denials no more than a thousand are counted.
pub(super) const FACTS: &str = "-- facts(): the time, and what bears on new requests
WITH instant AS MATERIALIZED (SELECT approval_authority.clock() AS now),
asked AS MATERIALIZED (
    SELECT q.workspace_id, q.action, q.max_pending, q.ordinal
    FROM unnest($2::text[], $3::text[], $4::bigint[]) WITH ORDINALITY
        AS q (workspace_id, action, max_pending, ordinal)),
pending AS MATERIALIZED (
    SELECT q.workspace_id, (
        SELECT count(*) FROM (
            SELECT p.id FROM approval_authority.approvals AS p
            WHERE p.namespace = $1 AND p.workspace_id = q.workspace_id AND p.state = 'PENDING'
                AND p.expire_time > i.now LIMIT max(q.max_pending)) AS counted) AS count
    FROM asked AS q CROSS JOIN instant AS i GROUP BY q.workspace_id, i.now),
denials AS MATERIALIZED (
    SELECT q.workspace_id, q.action, (
        SELECT count(*) FROM (
            SELECT d.id FROM approval_authority.approvals AS d
            WHERE d.namespace = $1 AND d.workspace_id = q.workspace_id AND d.action = q.action
                AND d.state = 'DENIED' AND d.decide_time > i.now - interval '24 hours' LIMIT 1000) AS counted) AS count
    FROM asked AS q CROSS JOIN instant AS i GROUP BY q.workspace_id, q.action, i.now)
SELECT i.now, q.ordinal, w.parent_id, p.count, d.count
FROM instant AS i
LEFT JOIN asked AS q ON true
LEFT JOIN pending AS p ON p.workspace_id = q.workspace_id
LEFT JOIN denials AS d ON d.workspace_id = q.workspace_id AND d.action = q.action
LEFT JOIN approval_authority.workspaces AS w ON w.namespace = $1 AND w.id = q.workspace_id";

/// Columns of `MEET` before the approval's.
const MEET_HEAD: usize = 3;

impl Store {
    /// Looks, without a lock, at what some calls of one namespace would meet. The time is that of the look;
    /// it is none where nothing was met.
    pub async fn peek(
        &self,
        namespace: &Namespace,
        calls: &[&Require],
    ) -> Result<Vec<(Circumstances, Option<Timestamp>)>, Failure> {
        let lease = self.connection().await?;
        let rows = lease
            .patiently(async {
                let statement = lease.prepare_cached(MEET).await?;
                meet(&lease, &statement, namespace, calls).await
            })
            .await?;
        let mut found = vec![(Circumstances::default(), None); calls.len()];
        for row in &rows {
            let place = place(row, calls.len())?;
            found[place].1 = Some(Columns::after(row, 2).next()?);
            fill(&mut found[place].0, row)?;
        }
        Ok(found)
    }
}

/// Runs `MEET`.
pub(super) async fn meet(
    connection: &Connection,
    statement: &Statement,
    namespace: &Namespace,
    calls: &[&Require],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let operations = || calls.iter().map(|call| &call.operation);
    let workspaces: Vec<&str> = operations().map(|o| o.workspace_id.as_str()).collect();
    let actions: Vec<&str> = operations().map(|o| o.action.as_str()).collect();
    let hashes: Vec<&[u8]> = operations().map(|o| o.request_hash.as_bytes()).collect();
    let requesters: Vec<&str> = operations().map(|o| o.requested_by.as_str()).collect();
    let on_behalf_of: Vec<&str> =
        operations().map(|o| o.on_behalf_of.as_ref().map_or("", |name| name.as_str())).collect();
    let keys: Vec<Option<&str>> =
        calls.iter().map(|call| call.key.as_ref().map(|key| key.as_str())).collect();
    let namespace = namespace.as_str();
    connection
        .query(
            statement,
            &[&namespace, &workspaces, &actions, &hashes, &requesters, &on_behalf_of, &keys],
        )
        .await
}

/// Runs `FACTS`.
pub(super) async fn facts(
    connection: &Connection,
    statement: &Statement,
    namespace: &Namespace,
    calls: &[&Require],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let workspaces: Vec<&str> =
        calls.iter().map(|call| call.operation.workspace_id.as_str()).collect();
    let actions: Vec<&str> = calls.iter().map(|call| call.operation.action.as_str()).collect();
    let most: Vec<i64> = calls.iter().map(|call| call.terms.max_pending.into()).collect();
    connection.query(statement, &[&namespace.as_str(), &workspaces, &actions, &most]).await
}

/// The circumstances of each call, from the rows of `MEET` and `FACTS`, and the time.
pub(super) fn circumstances(
    met: &[Row],
    facts: &[Row],
    calls: usize,
) -> Result<(Vec<Circumstances>, Timestamp), Failure> {
    let mut found = vec![Circumstances::default(); calls];
    for row in met {
        fill(&mut found[place(row, calls)?], row)?;
    }
    let mut now = None;
    for row in facts {
        let mut columns = Columns::of(row);
        now = Some(columns.next()?);
        let ordinal: Option<i64> = columns.next()?;
        let Some(ordinal) = ordinal else { continue };
        let circumstances = &mut found[index(ordinal, calls)?];
        circumstances.parent = columns.optional_name(WorkspaceId::parse)?;
        circumstances.pending = count(columns.next()?)?;
        circumstances.recent_denials = count(columns.next()?)?;
    }
    let now = now.ok_or_else(|| Failure::corrupt("facts without a time"))?;
    Ok((found, now))
}

fn fill(circumstances: &mut Circumstances, row: &Row) -> Result<(), Failure> {
    let part: &str = Columns::after(row, 1).next()?;
    let met = Some(approval(&mut Columns::after(row, MEET_HEAD))?);
    match part {
        "open" => circumstances.open = met,
        "denial" => circumstances.denial = met,
        "key" => circumstances.key_holder = met,
        other => return Err(Failure::corrupt(format!("part {other}"))),
    }
    Ok(())
}

fn place(row: &Row, calls: usize) -> Result<usize, Failure> {
    index(Columns::of(row).next()?, calls)
}

/// An ordinal of SQL, which counts from 1, as an index into `calls`.
fn index(ordinal: i64, calls: usize) -> Result<usize, Failure> {
    match usize::try_from(ordinal) {
        Ok(ordinal) if (1..=calls).contains(&ordinal) => Ok(ordinal - 1),
        _ => Err(Failure::corrupt(format!("ordinal {ordinal}"))),
    }
}

fn count(count: i64) -> Result<u32, Failure> {
    u32::try_from(count).map_err(Failure::corrupt)
}
