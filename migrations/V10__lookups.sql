-- Three lookups read what they need and no more: a workspace's list by action, the oldest event that retention has left, and
-- the approvals that are over.
--
-- The list of a workspace that has done one thing a million times walked through all of it for the few of another.

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

    CREATE INDEX approvals_of_a_workspace_by_action ON approval_authority.approvals
        (namespace, workspace_id, action, state, id);

    IF in_use THEN
        ANALYZE approval_authority.approvals;
    ELSE
        DELETE FROM approval_authority.approvals WHERE namespace = 'default';
        DELETE FROM approval_authority.logs WHERE namespace = 'default';
    END IF;
END
$$;
COMMENT ON INDEX approval_authority.approvals_of_a_workspace_by_action IS 'Lists an action in a workspace, newest first';

-- As in V7, but that it looks at a chunk and no more, and returns the last that it has looked at; and that the oldest event is looked
-- for from the floor on: before it lies what has been cut, and until VACUUM comes by the index leads through all of it.
CREATE OR REPLACE FUNCTION approval_authority.clear_approvals(namespace_ text, age_ms bigint, after uuid, chunk integer)
    RETURNS uuid
    LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    time_ timestamptz;
    cutoff timestamptz;
    oldest timestamptz;
    before uuid;
    last_ uuid;
    ids uuid[];
BEGIN
    PERFORM approval_authority.check_age(age_ms);
    time_ := approval_authority.clock();
    cutoff := time_ - age_ms * interval '1 millisecond';
    -- What was requested since the oldest event that is left still has its events.
    SELECT e.event_time INTO oldest FROM approval_authority.events AS e
    WHERE e.namespace = namespace_ AND e.revision > (
        SELECT l.floor_revision FROM approval_authority.logs AS l WHERE l.namespace = namespace_)
    ORDER BY e.namespace, e.revision LIMIT 1;
    before := approval_authority.first_id(least(cutoff, oldest));
    -- A chunk is what is looked at: of what is old and may not be deleted yet there can be any number.
    SELECT o.id INTO last_ FROM (
        SELECT a.id FROM approval_authority.approvals AS a
        WHERE a.namespace = namespace_ AND a.id > after AND a.id < before
        ORDER BY a.namespace, a.id LIMIT chunk
    ) AS o ORDER BY o.id DESC LIMIT 1;
    -- A subquery with a LIMIT is an index lookup for each; NOT EXISTS can become a walk through all events for each.
    SELECT array_agg(o.id ORDER BY o.id) INTO ids FROM (
        SELECT a.id FROM approval_authority.approvals AS a
        WHERE a.namespace = namespace_ AND a.id > after AND a.id <= last_ AND a.state NOT IN ('PENDING', 'APPROVED')
            AND a.expire_time < cutoff AND (a.cooldown_end IS NULL OR a.cooldown_end < time_)
            AND (SELECT e.revision FROM approval_authority.events AS e
                WHERE e.namespace = namespace_ AND e.approval_id = a.id
                ORDER BY e.namespace, e.approval_id, e.version LIMIT 1) IS NULL
        ORDER BY a.namespace, a.id FOR UPDATE SKIP LOCKED
    ) AS o;
    DELETE FROM approval_authority.approvals AS a WHERE a.namespace = namespace_ AND a.id = ANY (ids);
    RETURN last_;
END
$$;
COMMENT ON FUNCTION approval_authority.clear_approvals(text, bigint, uuid, integer) IS
    'Retention: the only way in which the service deletes approvals; returns the last it looked at, or null when there are no more';

INSERT INTO approval_authority.schema_compatibility (migration, oldest_server) VALUES (10, '0.1.0');
