-- The ledger: approvals, their verdicts, and the ordered log of what happened to them.
--
-- The namespace comes first in every key, so that the schema can be distributed by it. No statement and no
-- function here uses an advisory lock, a sequence, DO UPDATE or an exception block.

CREATE TABLE approval_authority.schema_compatibility (
    migration     integer NOT NULL,
    oldest_server text    NOT NULL,
    CONSTRAINT schema_compatibility_pkey PRIMARY KEY (migration),
    CONSTRAINT schema_compatibility_oldest_server_is_a_version
        CHECK (oldest_server ~ '^[0-9]+\.[0-9]+\.[0-9]+$')
);
COMMENT ON TABLE approval_authority.schema_compatibility IS
    'What each migration asks of the servers that run on it, so that an old server goes on during a rolling deployment';
COMMENT ON COLUMN approval_authority.schema_compatibility.migration IS 'Number of the migration';
COMMENT ON COLUMN approval_authority.schema_compatibility.oldest_server IS
    'Oldest version of the server that can run on the schema after this migration';

-- The only clock. Statements that need the time call it, so that a test can put another in its place.
CREATE FUNCTION approval_authority.clock() RETURNS timestamptz
    LANGUAGE sql VOLATILE PARALLEL SAFE
    AS 'SELECT clock_timestamp()';
COMMENT ON FUNCTION approval_authority.clock() IS
    'The time, read once per transaction after its locks and passed on as a parameter';

CREATE TABLE approval_authority.logs (
    namespace      text   NOT NULL,
    epoch          uuid   NOT NULL,
    floor_revision bigint NOT NULL DEFAULT 0,
    floor_tag      bigint NOT NULL DEFAULT 0,
    CONSTRAINT logs_pkey PRIMARY KEY (namespace),
    CONSTRAINT logs_namespace_is_a_name CHECK (namespace ~ '^[a-z0-9-]{1,63}$'),
    CONSTRAINT logs_floor_is_a_revision CHECK (floor_revision >= 0)
);
COMMENT ON TABLE approval_authority.logs IS 'The event log of each namespace';
COMMENT ON COLUMN approval_authority.logs.namespace IS 'The organisation';
COMMENT ON COLUMN approval_authority.logs.epoch IS
    'Names this history; another history, as after a restore, is given another';
COMMENT ON COLUMN approval_authority.logs.floor_revision IS
    'The last revision that retention has removed; 0 while the log is whole';
COMMENT ON COLUMN approval_authority.logs.floor_tag IS
    'Tag of the event at floor_revision, so that a cursor that stands there can still be checked';

CREATE TABLE approval_authority.log_locks (
    namespace text NOT NULL,
    CONSTRAINT log_locks_pkey PRIMARY KEY (namespace),
    CONSTRAINT log_locks_log_fkey FOREIGN KEY (namespace)
        REFERENCES approval_authority.logs (namespace) ON DELETE CASCADE
);
COMMENT ON TABLE approval_authority.log_locks IS
    'Locked FOR UPDATE by whoever appends to a log, and never updated: a row that is counted up crawls under an old snapshot';
COMMENT ON COLUMN approval_authority.log_locks.namespace IS 'The organisation';

CREATE TABLE approval_authority.approvals (
    namespace          text        NOT NULL,
    id                 uuid        NOT NULL,
    workspace_id       text        NOT NULL,
    action             text        NOT NULL,
    context            text        NOT NULL,
    request_hash       bytea       NOT NULL,
    requested_by       text        NOT NULL,
    on_behalf_of       text        NOT NULL,
    reason             text        NOT NULL,
    approvals_required integer     NOT NULL,
    approved_ttl_ms    bigint      NOT NULL,
    deny_cooldown_ms   bigint      NOT NULL,
    policy_digest      text        NOT NULL,
    recent_denials     integer     NOT NULL,
    create_time        timestamptz NOT NULL,
    state              text        NOT NULL,
    version            integer     NOT NULL,
    expire_time        timestamptz NOT NULL,
    decide_time        timestamptz,
    consume_time       timestamptz,
    consumed_by        text,
    consumed_key       text,
    cooldown_end       timestamptz,
    result             text,
    CONSTRAINT approvals_pkey PRIMARY KEY (namespace, id),
    CONSTRAINT approvals_log_fkey FOREIGN KEY (namespace)
        REFERENCES approval_authority.logs (namespace),
    CONSTRAINT approvals_names_are_bounded CHECK (
        octet_length(workspace_id) BETWEEN 1 AND 128
        AND action ~ '^[a-z0-9_.-]{1,64}$'
        AND octet_length(on_behalf_of) <= 256
        AND octet_length(consumed_key) BETWEEN 1 AND 128),
    CONSTRAINT approvals_context_is_bounded CHECK (octet_length(context) BETWEEN 2 AND 65536),
    CONSTRAINT approvals_request_hash_is_sha256 CHECK (octet_length(request_hash) = 32),
    CONSTRAINT approvals_somebody_is_asked CHECK (approvals_required >= 1),
    CONSTRAINT approvals_state_is_known CHECK (state IN
        ('PENDING', 'APPROVED', 'DENIED', 'CONSUMED', 'EXPIRED', 'WITHDRAWN', 'REVOKED')),
    CONSTRAINT approvals_result_is_known CHECK (result IN ('SUCCEEDED', 'FAILED', 'UNKNOWN')),
    CONSTRAINT approvals_version_counts_events CHECK (version >= 1),
    CONSTRAINT approvals_pending_is_undecided CHECK (
        state NOT IN ('PENDING', 'WITHDRAWN') OR decide_time IS NULL),
    CONSTRAINT approvals_decided_has_its_time CHECK (
        state NOT IN ('APPROVED', 'DENIED', 'CONSUMED', 'REVOKED') OR decide_time IS NOT NULL),
    CONSTRAINT approvals_consumed_says_when CHECK (
        (state = 'CONSUMED') = (consume_time IS NOT NULL)),
    CONSTRAINT approvals_consumed_says_by_whom CHECK (
        (state = 'CONSUMED') = (consumed_by IS NOT NULL)),
    CONSTRAINT approvals_key_is_of_a_consumption CHECK (
        state = 'CONSUMED' OR consumed_key IS NULL),
    CONSTRAINT approvals_consumed_before_it_lapsed CHECK (consume_time < expire_time),
    CONSTRAINT approvals_denied_has_a_cooldown CHECK ((state = 'DENIED') = (cooldown_end IS NOT NULL)),
    CONSTRAINT approvals_result_is_of_a_consumption CHECK (state = 'CONSUMED' OR result IS NULL)
);
COMMENT ON TABLE approval_authority.approvals IS 'One request for human approval each, as it stands now';
COMMENT ON COLUMN approval_authority.approvals.namespace IS 'The organisation';
COMMENT ON COLUMN approval_authority.approvals.id IS 'UUIDv7 made from the database''s clock';
COMMENT ON COLUMN approval_authority.approvals.workspace_id IS 'Where the operation acts; need not be in the tree';
COMMENT ON COLUMN approval_authority.approvals.action IS 'What the operation does';
COMMENT ON COLUMN approval_authority.approvals.context IS
    'Its parameters in RFC 8785 form: the very bytes that were hashed';
COMMENT ON COLUMN approval_authority.approvals.request_hash IS
    'SHA-256(workspace_id || 0x00 || action || 0x00 || context)';
COMMENT ON COLUMN approval_authority.approvals.requested_by IS 'The principal that asked';
COMMENT ON COLUMN approval_authority.approvals.on_behalf_of IS 'In whose name it asked; empty for nobody''s';
COMMENT ON COLUMN approval_authority.approvals.reason IS 'Why, for approvers to read';
COMMENT ON COLUMN approval_authority.approvals.approvals_required IS 'Distinct approvers needed, fixed when requested';
COMMENT ON COLUMN approval_authority.approvals.approved_ttl_ms IS
    'How long, once approved, it may wait to be consumed; milliseconds';
COMMENT ON COLUMN approval_authority.approvals.deny_cooldown_ms IS
    'How long, once denied, the same request is refused; milliseconds';
COMMENT ON COLUMN approval_authority.approvals.policy_digest IS 'SHA-256 (hex) of the policy it was requested under';
COMMENT ON COLUMN approval_authority.approvals.recent_denials IS
    'Denials of the same workspace and action in the 24 hours before';
COMMENT ON COLUMN approval_authority.approvals.create_time IS 'When it was requested';
COMMENT ON COLUMN approval_authority.approvals.state IS 'PENDING and APPROVED are open, all others final';
COMMENT ON COLUMN approval_authority.approvals.version IS 'Counts its events';
COMMENT ON COLUMN approval_authority.approvals.expire_time IS 'When it lapses while open';
COMMENT ON COLUMN approval_authority.approvals.decide_time IS 'When it was approved or denied';
COMMENT ON COLUMN approval_authority.approvals.consume_time IS 'When it was consumed';
COMMENT ON COLUMN approval_authority.approvals.consumed_by IS 'The principal that consumed it';
COMMENT ON COLUMN approval_authority.approvals.consumed_key IS 'The consumer''s idempotency key, if it gave one';
COMMENT ON COLUMN approval_authority.approvals.cooldown_end IS
    'Once denied: until when the same workspace, action and context is refused, whoever asks';
COMMENT ON COLUMN approval_authority.approvals.result IS 'What became of the operation, as reported';

CREATE UNIQUE INDEX approvals_one_open_per_operation ON approval_authority.approvals
    (namespace, workspace_id, action, request_hash, requested_by, on_behalf_of)
    WHERE state IN ('PENDING', 'APPROVED');
COMMENT ON INDEX approval_authority.approvals_one_open_per_operation IS
    'One question: no two open approvals for one operation, however calls race';
CREATE UNIQUE INDEX approvals_one_use_per_attempt ON approval_authority.approvals
    (namespace, consumed_by, consumed_key) WHERE consumed_key IS NOT NULL;
COMMENT ON INDEX approval_authority.approvals_one_use_per_attempt IS
    'An idempotency key consumes once among those of its principal';
CREATE INDEX approvals_denials_of_a_request ON approval_authority.approvals
    (namespace, request_hash, cooldown_end) WHERE state = 'DENIED';
COMMENT ON INDEX approval_authority.approvals_denials_of_a_request IS 'Finds the denial whose cooldown stands';
CREATE INDEX approvals_denials_of_an_action ON approval_authority.approvals
    (namespace, workspace_id, action, decide_time) WHERE state = 'DENIED';
COMMENT ON INDEX approval_authority.approvals_denials_of_an_action IS 'Counts recent denials';
CREATE INDEX approvals_pending_of_a_workspace ON approval_authority.approvals
    (namespace, workspace_id, expire_time) WHERE state = 'PENDING';
COMMENT ON INDEX approval_authority.approvals_pending_of_a_workspace IS
    'Counts what has not lapsed towards the cap';
CREATE INDEX approvals_of_a_workspace ON approval_authority.approvals (namespace, workspace_id, id);
COMMENT ON INDEX approval_authority.approvals_of_a_workspace IS 'Lists a workspace, newest first';
CREATE INDEX approvals_by_state ON approval_authority.approvals (namespace, state, id);
COMMENT ON INDEX approval_authority.approvals_by_state IS 'Lists by state, newest first';

CREATE TABLE approval_authority.verdicts (
    namespace   text        NOT NULL,
    approval_id uuid        NOT NULL,
    approver    text        NOT NULL,
    decision    text        NOT NULL,
    reason      text        NOT NULL,
    verdict_time timestamptz NOT NULL,
    CONSTRAINT verdicts_pkey PRIMARY KEY (namespace, approval_id, approver),
    CONSTRAINT verdicts_approval_fkey FOREIGN KEY (namespace, approval_id)
        REFERENCES approval_authority.approvals (namespace, id) ON DELETE CASCADE,
    CONSTRAINT verdicts_decision_is_known CHECK (decision IN ('APPROVE', 'DENY'))
);
COMMENT ON TABLE approval_authority.verdicts IS 'What each approver decided; the key lets one person count once';
COMMENT ON COLUMN approval_authority.verdicts.namespace IS 'The organisation';
COMMENT ON COLUMN approval_authority.verdicts.approval_id IS 'The approval';
COMMENT ON COLUMN approval_authority.verdicts.approver IS 'The authenticated principal';
COMMENT ON COLUMN approval_authority.verdicts.decision IS 'What was decided';
COMMENT ON COLUMN approval_authority.verdicts.reason IS 'Why';
COMMENT ON COLUMN approval_authority.verdicts.verdict_time IS 'When it was recorded';

CREATE TABLE approval_authority.events (
    namespace    text        NOT NULL,
    revision     bigint      NOT NULL,
    type         text        NOT NULL,
    workspace_id text        NOT NULL,
    approval_id  uuid        NOT NULL,
    version      integer     NOT NULL,
    state        text        NOT NULL,
    verdicts     jsonb       NOT NULL,
    expire_time  timestamptz NOT NULL,
    decide_time  timestamptz,
    consume_time timestamptz,
    consumed_by  text,
    cooldown_end timestamptz,
    result       text,
    actor        text,
    note         text,
    event_time   timestamptz NOT NULL,
    batch_id     uuid        NOT NULL,
    CONSTRAINT events_pkey PRIMARY KEY (namespace, revision),
    CONSTRAINT events_one_per_version UNIQUE (namespace, approval_id, version),
    CONSTRAINT events_approval_fkey FOREIGN KEY (namespace, approval_id)
        REFERENCES approval_authority.approvals (namespace, id),
    CONSTRAINT events_revision_counts_from_1 CHECK (revision >= 1),
    CONSTRAINT events_type_is_known CHECK (type IN
        ('REQUESTED', 'ESCALATED', 'REVIEWED', 'APPROVED', 'DENIED', 'CONSUMED', 'EXPIRED',
         'WITHDRAWN', 'REVOKED', 'RESULT_REPORTED'))
);
COMMENT ON TABLE approval_authority.events IS
    'What happened, in commit order; each event with the part of its approval that events change, as it left it';
COMMENT ON COLUMN approval_authority.events.namespace IS 'The organisation, whose log this is';
COMMENT ON COLUMN approval_authority.events.revision IS 'Position in the log: dense and in commit order';
COMMENT ON COLUMN approval_authority.events.type IS 'What happened';
COMMENT ON COLUMN approval_authority.events.workspace_id IS
    'Whom it is addressed to: the approval''s workspace, or the ancestor it was brought before';
COMMENT ON COLUMN approval_authority.events.approval_id IS 'The approval';
COMMENT ON COLUMN approval_authority.events.version IS 'The version at which the event left it';
COMMENT ON COLUMN approval_authority.events.state IS 'The state in which the event left it';
COMMENT ON COLUMN approval_authority.events.verdicts IS 'The verdicts so far, oldest first';
COMMENT ON COLUMN approval_authority.events.expire_time IS 'As in approvals, after the event';
COMMENT ON COLUMN approval_authority.events.decide_time IS 'As in approvals, after the event';
COMMENT ON COLUMN approval_authority.events.consume_time IS 'As in approvals, after the event';
COMMENT ON COLUMN approval_authority.events.consumed_by IS 'As in approvals, after the event';
COMMENT ON COLUMN approval_authority.events.cooldown_end IS 'As in approvals, after the event';
COMMENT ON COLUMN approval_authority.events.result IS 'As in approvals, after the event';
COMMENT ON COLUMN approval_authority.events.actor IS 'The principal that caused it; null where the authority did';
COMMENT ON COLUMN approval_authority.events.note IS 'The actor''s words where no verdict holds them';
COMMENT ON COLUMN approval_authority.events.event_time IS 'When, by the database''s clock';
COMMENT ON COLUMN approval_authority.events.batch_id IS
    'The transaction that wrote it, so that a writer that lost its answer can find out, and a cursor can be checked';

INSERT INTO approval_authority.schema_compatibility (migration, oldest_server) VALUES (1, '0.1.0');
