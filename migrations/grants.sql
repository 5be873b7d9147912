-- All that the service may do in the database. `migrate` carries this out after the migrations, each time, and what is not
-- in it is taken away, so take away nothing that a server of the release before still uses. Somebody who has stolen the
-- service's password can write and decide approvals, as the service can; they cannot rewrite what was asked, wipe out what
-- happened, or change the schema.

REVOKE ALL ON SCHEMA approval_authority FROM PUBLIC, approval_authority_service;
REVOKE ALL ON ALL TABLES IN SCHEMA approval_authority FROM PUBLIC, approval_authority_service;
REVOKE ALL ON ALL ROUTINES IN SCHEMA approval_authority FROM PUBLIC, approval_authority_service;

GRANT USAGE ON SCHEMA approval_authority TO approval_authority_service;
GRANT SELECT ON approval_authority.schema_compatibility TO approval_authority_service;

-- The log is appended to. Its lock is a row that can be locked and not changed.
GRANT SELECT, INSERT (namespace, epoch) ON approval_authority.logs TO approval_authority_service;
GRANT SELECT, INSERT (namespace), UPDATE (lockable) ON approval_authority.log_locks TO approval_authority_service;
GRANT SELECT, INSERT ON approval_authority.events TO approval_authority_service;

-- Nothing is decided when it is asked for. It stays as it was asked for; what becomes of it changes.
GRANT SELECT,
    INSERT (namespace, id, workspace_id, action, context, request_hash, requested_by, on_behalf_of, reason,
        approvals_required, approved_ttl_ms, deny_cooldown_ms, escalate_after_ms, policy_digest, recent_denials,
        create_time, state, version, expire_time, escalated_to, escalate_time),
    UPDATE (state, version, expire_time, decide_time, consume_time, consumed_by, consumed_key, cooldown_end, result,
        escalated_to, escalate_time)
    ON approval_authority.approvals TO approval_authority_service;
GRANT SELECT, INSERT, UPDATE (decision, reason, verdict_time) ON approval_authority.verdicts
    TO approval_authority_service;
GRANT SELECT, INSERT, UPDATE (parent_id, display_name), DELETE ON approval_authority.workspaces
    TO approval_authority_service;

-- The time, and retention: what is older than a day at least, and over.
GRANT EXECUTE ON FUNCTION approval_authority.clock() TO approval_authority_service;
GRANT EXECUTE ON FUNCTION approval_authority.cut_log(text, bigint, integer) TO approval_authority_service;
GRANT EXECUTE ON FUNCTION approval_authority.clear_approvals(text, bigint, uuid, integer)
    TO approval_authority_service;
