-- Takes V5 back. The keeper finds what is due by walking through what is open.
DROP INDEX approval_authority.approvals_due;
DELETE FROM approval_authority.schema_compatibility WHERE migration = 5;
DELETE FROM approval_authority.schema_history WHERE version = 5;
