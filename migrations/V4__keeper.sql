-- How far each pending approval has climbed, and when it climbs on. By itself: it locks readers out, for a moment.

ALTER TABLE approval_authority.approvals
    ADD COLUMN escalate_after_ms jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN escalated_to      text,
    ADD COLUMN escalate_time     timestamptz;
COMMENT ON COLUMN approval_authority.approvals.escalate_after_ms IS
    'When it is brought before the next ancestor while pending, counted from create_time; milliseconds, rising';
COMMENT ON COLUMN approval_authority.approvals.escalated_to IS 'The last ancestor it was brought before';
COMMENT ON COLUMN approval_authority.approvals.escalate_time IS
    'While pending: when it is to be brought before the next. The keeper alone moves it without an event';

INSERT INTO approval_authority.schema_compatibility (migration, oldest_server) VALUES (4, '0.1.0');
