-- Takes V4 back. What was to be escalated is not, any more.
ALTER TABLE approval_authority.approvals
    DROP COLUMN escalate_time,
    DROP COLUMN escalated_to,
    DROP COLUMN escalate_after_ms;
DELETE FROM approval_authority.schema_compatibility WHERE migration = 4;
DELETE FROM approval_authority.schema_history WHERE version = 4;
