-- Statements are planned for the largest namespace, and lists read no more than their page.
--
-- A plan must do for every namespace: a new one, of which no statistics tell, may have ten thousand rows by the time that
-- the next ANALYZE comes, and plans that took it for empty walk through all of them to find one. The service has its
-- statements planned without their parameters (plan_cache_mode), and the planner then takes a namespace for an average
-- one. Told that there is but one, it takes each for the most common.

ALTER TABLE approval_authority.approvals ALTER COLUMN namespace SET (n_distinct = 1);
ALTER TABLE approval_authority.verdicts ALTER COLUMN namespace SET (n_distinct = 1);
ALTER TABLE approval_authority.events ALTER COLUMN namespace SET (n_distinct = 1);
ALTER TABLE approval_authority.workspaces ALTER COLUMN namespace SET (n_distinct = 1);

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

    CREATE INDEX approvals_of_a_workspace_by_state ON approval_authority.approvals
        (namespace, workspace_id, state, id);
    DROP INDEX approval_authority.approvals_of_a_workspace;

    IF in_use THEN
        ANALYZE approval_authority.approvals, approval_authority.verdicts, approval_authority.events,
            approval_authority.workspaces;
    ELSE
        DELETE FROM approval_authority.approvals WHERE namespace = 'default';
        DELETE FROM approval_authority.logs WHERE namespace = 'default';
    END IF;
END
$$;
COMMENT ON INDEX approval_authority.approvals_of_a_workspace_by_state IS 'Lists a workspace by state, newest first';

INSERT INTO approval_authority.schema_compatibility (migration, oldest_server) VALUES (6, '0.1.0');
