-- Takes V7 back.
DROP FUNCTION approval_authority.clear_approvals(text, bigint, uuid, integer);
DROP FUNCTION approval_authority.cut_log(text, bigint, integer);
DROP FUNCTION approval_authority.first_id(timestamptz);
DROP FUNCTION approval_authority.tag(uuid);
DROP FUNCTION approval_authority.check_age(bigint);
ALTER TABLE approval_authority.log_locks DROP COLUMN lockable;
DELETE FROM approval_authority.schema_compatibility WHERE migration = 7;
DELETE FROM approval_authority.schema_history WHERE version = 7;
