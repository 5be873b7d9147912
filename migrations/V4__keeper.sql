-- What the keeper needs: which open approvals time has come for, and how far each has climbed.

ALTER TABLE approval_authority.approvals
    ADD COLUMN escalate_after_ms jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN escalated_to      text,
    ADD COLUMN escalate_time     timestamptz;
COMMENT ON COLUMN approval_authority.approvals.escalate_after_ms IS
    'When it is brought before the next ancestor while pending, counted from create_time; milliseconds, rising';
COMMENT ON COLUMN approval_authority.approvals.escalated_to IS 'The last ancestor it was brought before';
COMMENT ON COLUMN approval_authority.approvals.escalate_time IS
    'While pending: when it is to be brought before the next. The keeper alone moves it without an event';

-- LEAST passes over what is null. A server of before this migration leaves escalate_time behind when it settles a
-- request, so that no constraint forbids it: the keeper clears it away.
CREATE INDEX approvals_due ON approval_authority.approvals (namespace, (least(expire_time, escalate_time)))
    WHERE state IN ('PENDING', 'APPROVED');
COMMENT ON INDEX approval_authority.approvals_due IS 'Finds what the keeper has to see to';

INSERT INTO approval_authority.schema_compatibility (migration, oldest_server) VALUES (4, '0.1.0');
