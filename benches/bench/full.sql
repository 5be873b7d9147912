-- So many closed approvals from one number to another, with five events each, and an open one with two for every ten; as the service
-- leaves them. In {workspaces} workspaces.
WITH request AS MATERIALIZED (
    SELECT n, (lpad(to_hex((extract(epoch FROM t.closed) * 1000)::bigint), 12, '0') || t.random)::uuid AS id,
        (lpad(to_hex((extract(epoch FROM t.opened) * 1000)::bigint), 12, '0') || t.random)::uuid AS open_id,
        'w' || n % {workspaces} AS workspace_id, '{{"closed":' || n || '}}' AS context, t.closed AS time, t.opened,
        CASE WHEN n % 10 = 0 THEN 'DENIED' WHEN n % 10 = 1 THEN 'EXPIRED' ELSE 'CONSUMED' END AS state
    FROM generate_series({first}::bigint, {last}::bigint) AS n
    CROSS JOIN LATERAL (
        SELECT timestamptz 'yesterday' - interval '30 days' + n * interval '100 milliseconds' AS closed,
            timestamptz 'yesterday' + n * interval '8 milliseconds' AS opened,
            '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15) AS random
    ) AS t
), written AS (
    INSERT INTO approval_authority.approvals (namespace, id, workspace_id, action, context, request_hash, requested_by,
        on_behalf_of, reason, approvals_required, approved_ttl_ms, deny_cooldown_ms, policy_digest, recent_denials,
        create_time, state, version, expire_time, decide_time, consume_time, consumed_by, cooldown_end, result)
    SELECT 'default', r.id, r.workspace_id, 'delete_workspace', r.context, sha256(convert_to(r.context, 'UTF8')),
        'tokens:backend', '', 'nobody has used it since May', 1, 3600000, 900000, repeat('0f', 32), 0, r.time, r.state, 5,
        r.time + interval '1 hour', CASE WHEN r.state <> 'EXPIRED' THEN r.time END,
        CASE WHEN r.state = 'CONSUMED' THEN r.time END, CASE WHEN r.state = 'CONSUMED' THEN 'tokens:backend' END,
        CASE WHEN r.state = 'DENIED' THEN r.time END, CASE WHEN r.state = 'CONSUMED' THEN 'SUCCEEDED' END
    FROM request AS r
), open AS (
    INSERT INTO approval_authority.approvals (namespace, id, workspace_id, action, context, request_hash, requested_by,
        on_behalf_of, reason, approvals_required, approved_ttl_ms, deny_cooldown_ms, policy_digest, recent_denials,
        create_time, state, version, expire_time, escalated_to, escalate_time)
    SELECT 'default', r.open_id, 'w' || (r.n / 10) % {workspaces}, 'delete_workspace',
        '{{"open":' || r.n || '}}', sha256(convert_to('open' || r.n, 'UTF8')), 'tokens:backend', '',
        'nobody has used it since May', 1, 3600000, 900000, repeat('0f', 32), 0, r.opened, 'PENDING', 2,
        now() + interval '30 days', 'root', now() + interval '20 days'
    FROM request AS r WHERE r.n % 10 = 0
), decided AS (
    INSERT INTO approval_authority.verdicts (namespace, approval_id, approver, decision, reason, verdict_time)
    SELECT 'default', r.id, 'tokens:alice', CASE r.state WHEN 'DENIED' THEN 'DENY' ELSE 'APPROVE' END, 'as agreed', r.time
    FROM request AS r WHERE r.state <> 'EXPIRED'
), happened AS (
    SELECT 5 * (r.n - 1) + 2 * ((r.n - 1) / 10) + v.version AS revision, v.type, r.workspace_id, r.id, v.version, r.time
    FROM request AS r CROSS JOIN (VALUES (1, 'REQUESTED'), (2, 'ESCALATED'), (3, 'APPROVED'), (4, 'CONSUMED'),
        (5, 'RESULT_REPORTED')) AS v (version, type)
    UNION ALL
    SELECT 5 * r.n + 2 * ((r.n - 1) / 10) + v.version, v.type, 'w' || (r.n / 10) % {workspaces}, r.open_id, v.version, r.opened
    FROM request AS r CROSS JOIN (VALUES (1, 'REQUESTED'), (2, 'ESCALATED')) AS v (version, type) WHERE r.n % 10 = 0
)
INSERT INTO approval_authority.events (namespace, revision, type, workspace_id, approval_id, version, state, verdicts,
    expire_time, actor, event_time, batch_id)
SELECT 'default', h.revision, h.type, h.workspace_id, h.id, h.version, 'PENDING', '[]', h.time, 'tokens:backend', h.time,
    gen_random_uuid()
FROM happened AS h ORDER BY h.revision;
