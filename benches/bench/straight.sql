-- The same changes as the authority's, written by hand: what a gate inside a backend can do that is done well. One call is
-- one statement and one transaction; the log is as dense and as ordered as the authority's.
CREATE SCHEMA straight;

-- Locks the log as late as it can, and numbers its two events from the tail.
CREATE FUNCTION straight.ask(namespace_ text, workspaces text[], contexts text[]) RETURNS SETOF uuid
LANGUAGE plpgsql AS $$
DECLARE
    head bigint;
    now_ timestamptz;
    batch uuid := gen_random_uuid();
BEGIN
    PERFORM l.namespace FROM approval_authority.log_locks AS l WHERE l.namespace = namespace_ FOR UPDATE;
    now_ := clock_timestamp();
    SELECT e.revision INTO head FROM approval_authority.events AS e
    WHERE e.namespace = namespace_ ORDER BY e.namespace DESC, e.revision DESC LIMIT 1;
    RETURN QUERY
    WITH asked AS (
        SELECT gen_random_uuid() AS id, q.workspace_id, q.context, q.ordinal, w.parent_id
        FROM unnest(workspaces, contexts) WITH ORDINALITY AS q (workspace_id, context, ordinal)
        JOIN approval_authority.workspaces AS w ON w.namespace = namespace_ AND w.id = q.workspace_id
    ), written AS (
        INSERT INTO approval_authority.approvals AS n (namespace, id, workspace_id, action, context, request_hash,
            requested_by, on_behalf_of, reason, approvals_required, approved_ttl_ms, deny_cooldown_ms, policy_digest,
            recent_denials, create_time, state, version, expire_time, escalated_to, escalate_time)
        SELECT namespace_, a.id, a.workspace_id, 'delete_workspace', a.context,
            sha256(convert_to(a.workspace_id || a.context, 'UTF8')), 'tokens:straight', '', 'nobody has used it since May',
            1, 3600000, 900000, repeat('0f', 32), 0, now_, 'PENDING', 2, now_ + interval '1 day', a.parent_id,
            now_ + interval '1 hour'
        FROM asked AS a
        ON CONFLICT DO NOTHING
        RETURNING n.id, n.workspace_id, n.escalated_to
    ), told AS (
        INSERT INTO approval_authority.events (namespace, revision, type, workspace_id, approval_id, version, state,
            verdicts, expire_time, actor, event_time, batch_id)
        SELECT namespace_, coalesce(head, 0) + row_number() OVER (ORDER BY w.id, v.version),
            v.type, CASE v.version WHEN 1 THEN w.workspace_id ELSE w.escalated_to END, w.id, v.version, 'PENDING', '[]',
            now_ + interval '1 day', 'tokens:straight', now_, batch
        FROM written AS w CROSS JOIN (VALUES (1, 'REQUESTED'), (2, 'ESCALATED')) AS v (version, type)
    )
    SELECT w.id FROM written AS w;
END
$$;

CREATE FUNCTION straight.join_(namespace_ text, workspace text, context_ text) RETURNS uuid
LANGUAGE sql AS $$
    SELECT a.id FROM approval_authority.approvals AS a
    WHERE a.namespace = namespace_ AND a.workspace_id = workspace AND a.action = 'delete_workspace'
        AND a.request_hash = sha256(convert_to(workspace || context_, 'UTF8'))
        AND a.requested_by = 'tokens:straight' AND a.on_behalf_of = '' AND a.state IN ('PENDING', 'APPROVED')
$$;

CREATE FUNCTION straight.append(namespace_ text, approval uuid, type_ text, now_ timestamptz) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO approval_authority.events (namespace, revision, type, workspace_id, approval_id, version, state,
        verdicts, expire_time, decide_time, consume_time, consumed_by, actor, event_time, batch_id)
    SELECT namespace_, (
            SELECT e.revision FROM approval_authority.events AS e
            WHERE e.namespace = namespace_ ORDER BY e.namespace DESC, e.revision DESC LIMIT 1) + 1,
        type_, a.workspace_id, a.id, a.version, a.state, '[]', a.expire_time, a.decide_time, a.consume_time,
        a.consumed_by, 'tokens:straight', now_, gen_random_uuid()
    FROM approval_authority.approvals AS a WHERE a.namespace = namespace_ AND a.id = approval
$$;

CREATE FUNCTION straight.approve(namespace_ text, approval uuid) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    now_ timestamptz;
BEGIN
    PERFORM a.id FROM approval_authority.approvals AS a
    WHERE a.namespace = namespace_ AND a.id = approval AND a.state = 'PENDING' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM l.namespace FROM approval_authority.log_locks AS l WHERE l.namespace = namespace_ FOR UPDATE;
    now_ := clock_timestamp();
    INSERT INTO approval_authority.verdicts (namespace, approval_id, approver, decision, reason, verdict_time)
    VALUES (namespace_, approval, 'tokens:alice', 'APPROVE', '', now_);
    UPDATE approval_authority.approvals AS a
    SET state = 'APPROVED', version = a.version + 1, decide_time = now_, expire_time = now_ + interval '1 hour',
        escalate_time = NULL
    WHERE a.namespace = namespace_ AND a.id = approval;
    PERFORM straight.append(namespace_, approval, 'APPROVED', now_);
    RETURN true;
END
$$;

CREATE FUNCTION straight.consume(namespace_ text, workspace text, context_ text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    now_ timestamptz;
    approval uuid;
BEGIN
    SELECT a.id INTO approval FROM approval_authority.approvals AS a
    WHERE a.namespace = namespace_ AND a.workspace_id = workspace AND a.action = 'delete_workspace'
        AND a.request_hash = sha256(convert_to(workspace || context_, 'UTF8'))
        AND a.requested_by = 'tokens:straight' AND a.on_behalf_of = '' AND a.state = 'APPROVED' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM l.namespace FROM approval_authority.log_locks AS l WHERE l.namespace = namespace_ FOR UPDATE;
    now_ := clock_timestamp();
    UPDATE approval_authority.approvals AS a
    SET state = 'CONSUMED', version = a.version + 1, consume_time = now_, consumed_by = 'tokens:straight'
    WHERE a.namespace = namespace_ AND a.id = approval AND a.expire_time > now_;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM straight.append(namespace_, approval, 'CONSUMED', now_);
    RETURN true;
END
$$;
