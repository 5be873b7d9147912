ALTER TABLE approval_authority.workspaces ALTER COLUMN parent_id RESET (n_distinct);
DELETE FROM approval_authority.schema_compatibility WHERE migration = 8;
DELETE FROM approval_authority.schema_history WHERE version = 8;
