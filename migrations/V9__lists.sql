-- The list of an action reads no more than its page, and no lookup is planned by how many rows a key has now.
--
-- Where one action is nearly all there is, statistics say that a lookup by action finds everything, and a plan made for that
-- walks through the history for the few of another; so with workspaces, and with approvals of many events. Each of these
-- columns keys a lookup by an index, and the planner is told that such a lookup finds little, whatever there is.

ALTER TABLE approval_authority.approvals ALTER COLUMN workspace_id SET (n_distinct = -1);
ALTER TABLE approval_authority.approvals ALTER COLUMN action SET (n_distinct = -1);
ALTER TABLE approval_authority.approvals ALTER COLUMN request_hash SET (n_distinct = -1);
ALTER TABLE approval_authority.verdicts ALTER COLUMN approval_id SET (n_distinct = -1);
ALTER TABLE approval_authority.events ALTER COLUMN approval_id SET (n_distinct = -1);

-- What V3 has the planner believe of tables that nobody has used yet was gone with the first automatic VACUUM or ANALYZE, within a
-- minute: it found them empty. They are left alone until they have changed by more than migrations leave behind.
ALTER TABLE approval_authority.approvals SET (autovacuum_vacuum_threshold = 50000,
    autovacuum_vacuum_insert_threshold = 50000, autovacuum_analyze_threshold = 50000);
ALTER TABLE approval_authority.verdicts SET (autovacuum_vacuum_threshold = 50000,
    autovacuum_vacuum_insert_threshold = 50000, autovacuum_analyze_threshold = 50000);
ALTER TABLE approval_authority.events SET (autovacuum_vacuum_threshold = 50000,
    autovacuum_vacuum_insert_threshold = 50000, autovacuum_analyze_threshold = 50000);
ALTER TABLE approval_authority.workspaces SET (autovacuum_vacuum_threshold = 50000,
    autovacuum_vacuum_insert_threshold = 50000, autovacuum_analyze_threshold = 50000);

-- A database that nobody has used yet has rows while the index is made, as in V5. One that is in use has its
-- statistics brought into line.
DO $$
DECLARE
    in_use boolean := EXISTS (SELECT l.namespace FROM approval_authority.logs AS l);
BEGIN
    IF NOT in_use THEN
        INSERT INTO approval_authority.logs (namespace, epoch) VALUES ('default', gen_random_uuid());
        INSERT INTO approval_authority.approvals (namespace, id, workspace_id, action, context, request_hash,
            requested_by, on_behalf_of, reason, approvals_required, approved_ttl_ms, deny_cooldown_ms,
            policy_digest, recent_denials, create_time, state, version, expire_time)
        SELECT 'default', gen_random_uuid(), 'workspace-' || n % 500, 'action-' || n % 4, '{}',
            sha256(convert_to(n::text, 'UTF8')), 'tokens:backend-' || n % 3, '', '', 1, 1, 1, '', 0, t.time,
            'EXPIRED', 2, t.time
        FROM generate_series(1, 4000) AS n
        CROSS JOIN LATERAL (SELECT timestamptz '2026-01-01 00:00:00Z' + n * interval '1 minute' AS time) AS t;
    END IF;

    CREATE INDEX approvals_of_an_action ON approval_authority.approvals (namespace, action, state, id);

    IF in_use THEN
        ANALYZE approval_authority.approvals, approval_authority.verdicts, approval_authority.events;
    ELSE
        DELETE FROM approval_authority.approvals WHERE namespace = 'default';
        DELETE FROM approval_authority.logs WHERE namespace = 'default';
    END IF;
END
$$;
COMMENT ON INDEX approval_authority.approvals_of_an_action IS 'Lists an action, newest first';

INSERT INTO approval_authority.schema_compatibility (migration, oldest_server) VALUES (9, '0.1.0');
