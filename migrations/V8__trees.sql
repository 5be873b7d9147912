-- A tree is walked by its index, whatever its shape.
--
-- Where most workspaces lie directly below one, statistics say that a workspace has most of the others below it, and a walk
-- planned for that read all workspaces again for each: twenty thousand took longer than a statement may. Nearly all of
-- them have few below them or none, which is what the planner is told.

ALTER TABLE approval_authority.workspaces ALTER COLUMN parent_id SET (n_distinct = -1);

-- In a database that is in use it is to hold at once, and not with the next ANALYZE.
DO $$
BEGIN
    IF EXISTS (SELECT w.id FROM approval_authority.workspaces AS w) THEN
        ANALYZE approval_authority.workspaces;
    END IF;
END
$$;

INSERT INTO approval_authority.schema_compatibility (migration, oldest_server) VALUES (8, '0.1.0');
