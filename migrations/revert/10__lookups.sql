CREATE OR REPLACE FUNCTION approval_authority.clear_approvals(namespace_ text, age_ms bigint, after uuid, chunk integer)
    RETURNS uuid
    LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    time_ timestamptz;
    cutoff timestamptz;
    oldest timestamptz;
    before uuid;
    ids uuid[];
BEGIN
    PERFORM approval_authority.check_age(age_ms);
    time_ := approval_authority.clock();
    cutoff := time_ - age_ms * interval '1 millisecond';
    -- What was requested since the oldest event that is left still has its events.
    SELECT e.event_time INTO oldest FROM approval_authority.events AS e
    WHERE e.namespace = namespace_ ORDER BY e.namespace, e.revision LIMIT 1;
    before := approval_authority.first_id(least(cutoff, oldest));
    -- A subquery with a LIMIT is an index lookup for each; NOT EXISTS can become a walk through all events for each.
    SELECT array_agg(o.id ORDER BY o.id) INTO ids FROM (
        SELECT a.id FROM approval_authority.approvals AS a
        WHERE a.namespace = namespace_ AND a.id > after AND a.id < before AND a.state NOT IN ('PENDING', 'APPROVED')
            AND a.expire_time < cutoff AND (a.cooldown_end IS NULL OR a.cooldown_end < time_)
            AND (SELECT e.revision FROM approval_authority.events AS e
                WHERE e.namespace = namespace_ AND e.approval_id = a.id
                ORDER BY e.namespace, e.approval_id, e.version LIMIT 1) IS NULL
        ORDER BY a.namespace, a.id LIMIT chunk FOR UPDATE SKIP LOCKED
    ) AS o;
    DELETE FROM approval_authority.approvals AS a WHERE a.namespace = namespace_ AND a.id = ANY (ids);
    RETURN ids[cardinality(ids)];
END
$$;
COMMENT ON FUNCTION approval_authority.clear_approvals(text, bigint, uuid, integer) IS
    'Retention: the only way in which the service deletes approvals; returns the last, or null when there are no more';
DROP INDEX approval_authority.approvals_of_a_workspace_by_action;
DELETE FROM approval_authority.schema_compatibility WHERE migration = 10;
DELETE FROM approval_authority.schema_history WHERE version = 10;
