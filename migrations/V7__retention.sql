-- What the service's role needs without the right to more (grants.sql): to lock a log that it must not change, and to
-- delete what is over and nothing else.

-- FOR UPDATE asks for the right to update some column of the row.
ALTER TABLE approval_authority.log_locks ADD COLUMN lockable boolean NOT NULL DEFAULT true;
ALTER TABLE approval_authority.log_locks ADD CONSTRAINT log_locks_lockable_says_nothing CHECK (lockable);
COMMENT ON COLUMN approval_authority.log_locks.lockable IS
    'Always true: the one column that the service may update, so that it may lock the row, and that it cannot change';

-- Cuts at most a chunk of the events older than an age off the beginning of a log, and moves its floor in the same
-- transaction. It stops before the first event of an approval that is still open. Whoever is locked out by another that cuts
-- the same log cuts nothing; nobody who writes waits: a new row looks up its log, and FOR NO KEY UPDATE lets it.
CREATE FUNCTION approval_authority.cut_log(namespace_ text, age_ms bigint, chunk integer) RETURNS bigint
    LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    floor_ bigint;
    cutoff timestamptz;
    event record;
    last_revision bigint;
    last_batch uuid;
    cut bigint;
BEGIN
    PERFORM approval_authority.check_age(age_ms);
    SELECT l.floor_revision INTO floor_ FROM approval_authority.logs AS l WHERE l.namespace = namespace_
    FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    cutoff := approval_authority.clock() - age_ms * interval '1 millisecond';
    FOR event IN
        SELECT e.revision, e.batch_id, e.event_time, a.state FROM approval_authority.events AS e
        CROSS JOIN LATERAL (
            SELECT a.state FROM approval_authority.approvals AS a
            WHERE a.namespace = namespace_ AND a.id = e.approval_id OFFSET 0
        ) AS a
        WHERE e.namespace = namespace_ AND e.revision > floor_ ORDER BY e.namespace, e.revision LIMIT chunk
    LOOP
        EXIT WHEN event.event_time >= cutoff OR event.state IN ('PENDING', 'APPROVED');
        last_revision := event.revision;
        last_batch := event.batch_id;
    END LOOP;
    IF last_revision IS NULL THEN
        RETURN 0;
    END IF;
    -- With both ends, so that the planner expects few.
    DELETE FROM approval_authority.events AS e
    WHERE e.namespace = namespace_ AND e.revision > floor_ AND e.revision <= last_revision;
    GET DIAGNOSTICS cut = ROW_COUNT;
    UPDATE approval_authority.logs AS l
    SET floor_revision = last_revision, floor_tag = approval_authority.tag(last_batch)
    WHERE l.namespace = namespace_;
    RETURN cut;
END
$$;
COMMENT ON FUNCTION approval_authority.cut_log(text, bigint, integer) IS
    'Retention: the only way in which the service deletes events; returns how many';

-- Deletes at most a chunk of the approvals after an id that were closed longer than an age ago, whose events have been cut
-- and on which no cooldown hangs; their verdicts go with them. It passes over rows that somebody holds.
CREATE FUNCTION approval_authority.clear_approvals(namespace_ text, age_ms bigint, after uuid, chunk integer)
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

-- Whoever has stolen the service's password cannot wipe out what has just happened.
CREATE FUNCTION approval_authority.check_age(age_ms bigint) RETURNS void
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF age_ms < 86400000 THEN
        RAISE EXCEPTION 'what is younger than a day is not deleted' USING ERRCODE = 'insufficient_privilege';
    END IF;
END
$$;
COMMENT ON FUNCTION approval_authority.check_age(bigint) IS 'Retention: nothing younger than a day is deleted';

CREATE FUNCTION approval_authority.tag(batch_id uuid) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
    AS $$ SELECT ('x' || left(replace(batch_id::text, '-', ''), 16))::bit(64)::bigint $$;
COMMENT ON FUNCTION approval_authority.tag(uuid) IS
    'What tells an event from any other that might stand at its revision: the first eight bytes of its transaction''s id';

CREATE FUNCTION approval_authority.first_id(time_ timestamptz) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
    AS $$ SELECT (lpad(to_hex(floor(extract(epoch FROM time_) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid $$;
COMMENT ON FUNCTION approval_authority.first_id(timestamptz) IS
    'The least id (UUIDv7) that could have been made at a time: its first 48 bits are milliseconds (RFC 9562 section 5.7)';

INSERT INTO approval_authority.schema_compatibility (migration, oldest_server) VALUES (7, '0.1.0');
