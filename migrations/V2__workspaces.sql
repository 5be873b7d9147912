-- The trees of workspaces along which approvals escalate.

CREATE TABLE approval_authority.workspaces (
    namespace    text NOT NULL,
    id           text NOT NULL,
    parent_id    text,
    display_name text NOT NULL,
    CONSTRAINT workspaces_pkey PRIMARY KEY (namespace, id),
    CONSTRAINT workspaces_parent_fkey FOREIGN KEY (namespace, parent_id)
        REFERENCES approval_authority.workspaces (namespace, id),
    CONSTRAINT workspaces_id_is_bounded CHECK (octet_length(id) BETWEEN 1 AND 128),
    CONSTRAINT workspaces_no_workspace_is_its_own_parent CHECK (parent_id <> id),
    CONSTRAINT workspaces_display_name_is_bounded CHECK (char_length(display_name) <= 200)
);
COMMENT ON TABLE approval_authority.workspaces IS 'The trees of workspaces; an approval may name one that is not here';
COMMENT ON COLUMN approval_authority.workspaces.namespace IS 'The organisation';
COMMENT ON COLUMN approval_authority.workspaces.id IS 'The workspace';
COMMENT ON COLUMN approval_authority.workspaces.parent_id IS 'Its parent in the same namespace; null for a root';
COMMENT ON COLUMN approval_authority.workspaces.display_name IS 'For people';

CREATE INDEX workspaces_children ON approval_authority.workspaces (namespace, parent_id);
COMMENT ON INDEX approval_authority.workspaces_children IS 'Walks down a tree';

INSERT INTO approval_authority.schema_compatibility (migration, oldest_server) VALUES (2, '0.1.0');
