INSERT INTO approval_authority.logs (namespace, epoch) VALUES ('{namespace}', gen_random_uuid());
INSERT INTO approval_authority.log_locks (namespace) VALUES ('{namespace}');
INSERT INTO approval_authority.approvals (namespace, id, workspace_id, action, context, request_hash,
    requested_by, on_behalf_of, reason, approvals_required, approved_ttl_ms, deny_cooldown_ms,
    policy_digest, recent_denials, create_time, state, version, expire_time)
SELECT '{namespace}', lpad(to_hex(n), 32, '0')::uuid, 'workspace-' || n % 500, 'delete_workspace',
    '{{"force":true,"reason":"unused"}}', sha256(convert_to(n::text, 'UTF8')), 'tokens:backend', '',
    'nobody has used it since May', 1, 3600000, 900000, repeat('0f', 32), 0, clock_timestamp(), 'EXPIRED', 2,
    clock_timestamp()
FROM generate_series(1, {approvals}) AS n;
INSERT INTO approval_authority.events (namespace, revision, type, workspace_id, approval_id, version, state,
    verdicts, expire_time, actor, event_time, batch_id)
SELECT '{namespace}', 2 * n - 2 + v, CASE v WHEN 1 THEN 'REQUESTED' ELSE 'EXPIRED' END, 'workspace-' || n % 500,
    lpad(to_hex(n), 32, '0')::uuid, v, CASE v WHEN 1 THEN 'PENDING' ELSE 'EXPIRED' END, '[]', clock_timestamp(),
    CASE v WHEN 1 THEN 'tokens:backend' END, clock_timestamp(), gen_random_uuid()
FROM generate_series(1, {approvals}) AS n CROSS JOIN generate_series(1, 2) AS v
ORDER BY n, v;
ANALYZE approval_authority.approvals;
ANALYZE approval_authority.events;
