-- Takes V1 back. Every approval and the whole log are lost.
DROP TABLE approval_authority.events;
DROP TABLE approval_authority.verdicts;
DROP TABLE approval_authority.approvals;
DROP TABLE approval_authority.log_locks;
DROP TABLE approval_authority.logs;
DROP FUNCTION approval_authority.clock();
DROP TABLE approval_authority.schema_compatibility;
DELETE FROM approval_authority.schema_history WHERE version = 1;
