-- What the planner should know before there is anything to measure.
--
-- The service's statements are planned once per connection. On tables that have never been analyzed the planner
-- takes every column for equally telling, the namespace too, and walks a whole namespace to find one row; it
-- goes on doing so until the first automatic ANALYZE, a minute of growth later. So the tables, which nobody has
-- used yet, are filled with rows of the shape that a deployment's have, analyzed, and emptied: the statistics
-- stay until real ones replace them, and so do the empty pages, so that no table looks small enough to be read
-- from end to end.

ALTER TABLE approval_authority.approvals SET (vacuum_truncate = off);
ALTER TABLE approval_authority.verdicts SET (vacuum_truncate = off);
ALTER TABLE approval_authority.events SET (vacuum_truncate = off);
ALTER TABLE approval_authority.workspaces SET (vacuum_truncate = off);

-- One statement, so that it is done wholly or not at all. A database that is in use has better to go by.
DO $$
BEGIN
    IF EXISTS (SELECT l.namespace FROM approval_authority.logs AS l) THEN
        RETURN;
    END IF;

    INSERT INTO approval_authority.logs (namespace, epoch) VALUES ('default', gen_random_uuid());

    INSERT INTO approval_authority.approvals (namespace, id, workspace_id, action, context, request_hash,
        requested_by, on_behalf_of, reason, approvals_required, approved_ttl_ms, deny_cooldown_ms,
        policy_digest, recent_denials, create_time, state, version, expire_time, decide_time, consume_time,
        consumed_by, consumed_key, cooldown_end)
    SELECT 'default', gen_random_uuid(), 'workspace-' || n % 500, 'action-' || n % 4, '{}',
        sha256(convert_to(n::text, 'UTF8')), 'tokens:backend-' || n % 3, '', '', 1, 1, 1, '', 0, t.time, s.state, 3,
        t.time + interval '1 hour',
        CASE WHEN s.state IN ('PENDING', 'EXPIRED') THEN NULL ELSE t.time END,
        CASE WHEN s.state = 'CONSUMED' THEN t.time END,
        CASE WHEN s.state = 'CONSUMED' THEN 'tokens:backend-' || n % 3 END,
        CASE WHEN s.state = 'CONSUMED' THEN n::text END,
        CASE WHEN s.state = 'DENIED' THEN t.time END
    FROM generate_series(1, 4000) AS n
    CROSS JOIN LATERAL (SELECT timestamptz '2026-01-01 00:00:00Z' + n * interval '1 minute' AS time) AS t
    CROSS JOIN LATERAL (SELECT CASE WHEN n % 100 < 80 THEN 'CONSUMED' WHEN n % 100 < 90 THEN 'DENIED'
        WHEN n % 100 < 94 THEN 'EXPIRED' WHEN n % 100 < 98 THEN 'PENDING' ELSE 'APPROVED' END AS state) AS s;

    INSERT INTO approval_authority.verdicts (namespace, approval_id, approver, decision, reason, verdict_time)
    SELECT a.namespace, a.id, 'tokens:person-' || a.approved_ttl_ms, 'APPROVE', '', a.create_time
    FROM approval_authority.approvals AS a WHERE a.namespace = 'default' AND a.decide_time IS NOT NULL;

    INSERT INTO approval_authority.events (namespace, revision, type, workspace_id, approval_id, version, state,
        verdicts, expire_time, event_time, batch_id)
    SELECT a.namespace, row_number() OVER (ORDER BY v, a.id), 'REQUESTED', a.workspace_id, a.id, v, a.state, '[]',
        a.expire_time, a.create_time, gen_random_uuid()
    FROM approval_authority.approvals AS a CROSS JOIN generate_series(1, 3) AS v
    WHERE a.namespace = 'default';

    INSERT INTO approval_authority.workspaces (namespace, id, parent_id, display_name)
    SELECT 'default', 'workspace-' || n, NULL, '' FROM generate_series(1, 4000) AS n;
    UPDATE approval_authority.workspaces SET parent_id = 'workspace-1'
    WHERE namespace = 'default' AND id <> 'workspace-1';

    ANALYZE approval_authority.approvals;
    ANALYZE approval_authority.verdicts;
    ANALYZE approval_authority.events;
    ANALYZE approval_authority.workspaces;

    DELETE FROM approval_authority.events WHERE namespace = 'default';
    DELETE FROM approval_authority.approvals WHERE namespace = 'default';
    DELETE FROM approval_authority.workspaces WHERE namespace = 'default';
    DELETE FROM approval_authority.logs WHERE namespace = 'default';
END
$$;

INSERT INTO approval_authority.schema_compatibility (migration, oldest_server) VALUES (3, '0.1.0');
