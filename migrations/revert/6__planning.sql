-- Takes V6 back. The next ANALYZE counts the namespaces again.
CREATE INDEX approvals_of_a_workspace ON approval_authority.approvals (namespace, workspace_id, id);
COMMENT ON INDEX approval_authority.approvals_of_a_workspace IS 'Lists a workspace, newest first';
DROP INDEX approval_authority.approvals_of_a_workspace_by_state;
ALTER TABLE approval_authority.workspaces ALTER COLUMN namespace RESET (n_distinct);
ALTER TABLE approval_authority.events ALTER COLUMN namespace RESET (n_distinct);
ALTER TABLE approval_authority.verdicts ALTER COLUMN namespace RESET (n_distinct);
ALTER TABLE approval_authority.approvals ALTER COLUMN namespace RESET (n_distinct);
DELETE FROM approval_authority.schema_compatibility WHERE migration = 6;
DELETE FROM approval_authority.schema_history WHERE version = 6;
