-- Takes V2 back. The trees of workspaces are lost.
DROP TABLE approval_authority.workspaces;
DELETE FROM approval_authority.schema_compatibility WHERE migration = 2;
DELETE FROM approval_authority.schema_history WHERE version = 2;
