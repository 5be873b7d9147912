-- Finds what the keeper has to see to. Readers go on while it is made.

-- LEAST passes over what is null. A server of before this migration leaves escalate_time behind when it settles a
-- request, so that no constraint forbids it: the keeper clears it away.
--
-- To make an index tells the planner how many rows the table has. On the table that nobody has used yet that would
-- be none, and what V3 has it believe would be gone; so there are rows while it is made.
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

    CREATE INDEX approvals_due ON approval_authority.approvals (namespace, (least(expire_time, escalate_time)))
        WHERE state IN ('PENDING', 'APPROVED');

    IF NOT in_use THEN
        DELETE FROM approval_authority.approvals WHERE namespace = 'default';
        DELETE FROM approval_authority.logs WHERE namespace = 'default';
    END IF;
END
$$;
COMMENT ON INDEX approval_authority.approvals_due IS 'Finds what the keeper has to see to';

INSERT INTO approval_authority.schema_compatibility (migration, oldest_server) VALUES (5, '0.1.0');
