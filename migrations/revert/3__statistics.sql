-- Takes V3 back. The statistics stay; they do no harm, and the next ANALYZE replaces them.
ALTER TABLE approval_authority.workspaces RESET (vacuum_truncate);
ALTER TABLE approval_authority.events RESET (vacuum_truncate);
ALTER TABLE approval_authority.verdicts RESET (vacuum_truncate);
ALTER TABLE approval_authority.approvals RESET (vacuum_truncate);
DELETE FROM approval_authority.schema_compatibility WHERE migration = 3;
DELETE FROM approval_authority.schema_history WHERE version = 3;
