DROP INDEX approval_authority.approvals_of_an_action;
ALTER TABLE approval_authority.approvals ALTER COLUMN workspace_id RESET (n_distinct);
ALTER TABLE approval_authority.approvals ALTER COLUMN action RESET (n_distinct);
ALTER TABLE approval_authority.approvals ALTER COLUMN request_hash RESET (n_distinct);
ALTER TABLE approval_authority.verdicts ALTER COLUMN approval_id RESET (n_distinct);
ALTER TABLE approval_authority.events ALTER COLUMN approval_id RESET (n_distinct);
ALTER TABLE approval_authority.approvals RESET (autovacuum_vacuum_threshold, autovacuum_vacuum_insert_threshold,
    autovacuum_analyze_threshold);
ALTER TABLE approval_authority.verdicts RESET (autovacuum_vacuum_threshold, autovacuum_vacuum_insert_threshold,
    autovacuum_analyze_threshold);
ALTER TABLE approval_authority.events RESET (autovacuum_vacuum_threshold, autovacuum_vacuum_insert_threshold,
    autovacuum_analyze_threshold);
ALTER TABLE approval_authority.workspaces RESET (autovacuum_vacuum_threshold, autovacuum_vacuum_insert_threshold,
    autovacuum_analyze_threshold);
DELETE FROM approval_authority.schema_compatibility WHERE migration = 9;
DELETE FROM approval_authority.schema_history WHERE version = 9;
