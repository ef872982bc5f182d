-- The first schema, with the same tables and columns as SQLite's. Times: timestamptz, to the microsecond. Ids: uuid.
-- Credits: bigint. Columns that other rows are found by are indexed; others are not, so that most updates stay in their
-- page (HOT) and write no index.

-- Rows arrive as JSON arrays with times in microseconds since the Unix epoch.
CREATE FUNCTION velro_time(micros bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$ SELECT to_timestamp(micros / 1000000.0::double precision) $$;

CREATE FUNCTION velro_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% are append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

-- ---------------------------------------------------------------- people

CREATE TABLE users (
    id              uuid        NOT NULL PRIMARY KEY,
    email           text        NOT NULL UNIQUE CHECK (email = lower(email)),
    password_hash   text,
    full_name       text,
    display_name    text,
    avatar_url      text,
    role            text        NOT NULL CHECK (role IN ('user', 'operator')),
    plan            text        NOT NULL DEFAULT 'free',
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    last_sign_in_at timestamptz
);

-- A session is the family of refresh tokens that began with one login.
CREATE TABLE sessions (
    id         uuid        NOT NULL PRIMARY KEY,
    user_id    uuid        NOT NULL REFERENCES users (id),
    created_at timestamptz NOT NULL,
    revoked_at timestamptz
);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_revoked ON sessions (revoked_at) WHERE revoked_at IS NOT NULL;

CREATE TABLE refresh_tokens (
    hash       text        NOT NULL PRIMARY KEY,
    session_id uuid        NOT NULL REFERENCES sessions (id),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id);

-- ---------------------------------------------------------------- projects and generations

CREATE TABLE projects (
    id          uuid        NOT NULL PRIMARY KEY,
    user_id     uuid        NOT NULL REFERENCES users (id),
    name        text        NOT NULL,
    description text,
    visibility  text        NOT NULL CHECK (visibility IN ('private', 'team-only', 'public')),
    tags        jsonb       NOT NULL,
    metadata    jsonb       NOT NULL,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);
CREATE INDEX projects_by_user ON projects (user_id, updated_at, id);
CREATE INDEX projects_public ON projects (updated_at, id) WHERE visibility = 'public';

CREATE TABLE generations (
    id                  uuid        NOT NULL PRIMARY KEY,
    user_id             uuid        NOT NULL REFERENCES users (id),
    project_id          uuid        REFERENCES projects (id) ON DELETE SET NULL,
    model_id            text        NOT NULL,
    provider            text        NOT NULL,
    media_type          text        NOT NULL CHECK (media_type IN ('image', 'video', 'audio')),
    prompt              text        NOT NULL,
    negative_prompt     text,
    reference_image_url text,
    parameters          jsonb       NOT NULL,
    dropped_parameters  jsonb       NOT NULL,
    provider_model      text        NOT NULL,
    -- Canonical text, sent as it is: not jsonb, which would rewrite it.
    provider_input      text        NOT NULL,
    price               bigint      NOT NULL CHECK (price >= 0),
    price_basis         jsonb       NOT NULL,
    status              text        NOT NULL CHECK (status IN ('queued', 'processing', 'completed', 'failed', 'cancelled')),
    cancel_requested    boolean     NOT NULL DEFAULT false,
    error_code          text,
    error_message       text,
    captured            bigint      CHECK (captured >= 0),
    outputs             jsonb       NOT NULL DEFAULT '[]',
    progress_permille   bigint      CHECK (progress_permille >= 0),
    billed              jsonb,
    result_meta         jsonb,
    is_favorite         boolean     NOT NULL DEFAULT false,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    started_at          timestamptz,
    completed_at        timestamptz,
    -- Hidden from its owner; the books still refer to it.
    deleted_at          timestamptz,
    CONSTRAINT generations_charged_when_over
        CHECK ((status IN ('queued', 'processing')) = (captured IS NULL)),
    CONSTRAINT generations_error_is_whole
        CHECK ((error_code IS NULL) = (error_message IS NULL)),
    CONSTRAINT generations_hidden_when_over
        CHECK (deleted_at IS NULL OR status IN ('completed', 'failed', 'cancelled'))
) WITH (fillfactor = 85);
CREATE INDEX generations_by_user ON generations (user_id, id) WHERE deleted_at IS NULL;
CREATE INDEX generations_by_project ON generations (project_id, id) WHERE project_id IS NOT NULL;
CREATE INDEX generations_by_status ON generations (status, id);

CREATE TABLE idempotency_keys (
    user_id       uuid        NOT NULL REFERENCES users (id),
    key           text        NOT NULL,
    fingerprint   text        NOT NULL,
    generation_id uuid        NOT NULL REFERENCES generations (id),
    created_at    timestamptz NOT NULL,
    PRIMARY KEY (user_id, key)
);

-- What happened to a generation; `seq` is the id of an SSE frame and is never used twice.
CREATE TABLE events (
    seq           bigint      GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    generation_id uuid        NOT NULL REFERENCES generations (id),
    kind          text        NOT NULL CHECK (kind IN ('queued', 'processing', 'completed', 'error', 'cancelled')),
    data          jsonb       NOT NULL,
    created_at    timestamptz NOT NULL
);
CREATE INDEX events_by_generation ON events (generation_id, seq);

-- ---------------------------------------------------------------- attempts

-- Until when a worker holds the attempts that name it: one row to extend, however many attempts it holds.
CREATE TABLE leases (
    worker      text        NOT NULL PRIMARY KEY,
    lease_until timestamptz NOT NULL
);

CREATE TABLE attempts (
    id            uuid        NOT NULL PRIMARY KEY,
    generation_id uuid        NOT NULL REFERENCES generations (id),
    ordinal       bigint      NOT NULL CHECK (ordinal >= 1),
    provider      text        NOT NULL,
    state         text        NOT NULL
                  CHECK (state IN ('prepared', 'sending', 'accepted', 'finished', 'rejected', 'unknown')),
    remote_id     text,
    plugin_state  bytea       NOT NULL DEFAULT '',
    pending       jsonb       NOT NULL,
    steps         bigint      NOT NULL DEFAULT 0 CHECK (steps >= 0),
    due_at        timestamptz NOT NULL,
    deadline_at   timestamptz NOT NULL,
    inbox         bytea,
    -- A worker of `leases`; no foreign key, because its check would scan the table when a worker leaves.
    lease_owner   text,
    -- Why it ended, for the operator.
    detail        text,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    CONSTRAINT attempts_one_per_ordinal UNIQUE (generation_id, ordinal),
    CONSTRAINT attempts_over_without_lease
        CHECK (lease_owner IS NULL OR state NOT IN ('finished', 'rejected'))
) WITH (fillfactor = 70);
-- At most one attempt of a generation goes on.
CREATE UNIQUE INDEX attempts_one_alive ON attempts (generation_id)
    WHERE state IN ('prepared', 'sending', 'accepted', 'unknown');
CREATE INDEX attempts_by_lease ON attempts (lease_owner)
    WHERE state IN ('prepared', 'sending', 'accepted', 'unknown');
CREATE INDEX attempts_by_state ON attempts (state, id);

-- ---------------------------------------------------------------- money

-- A user's account is named by the user's id. Balance and held are sums of the rows below, kept for speed.
CREATE TABLE accounts (
    id      text   COLLATE "C" NOT NULL PRIMARY KEY,
    user_id uuid   UNIQUE REFERENCES users (id),
    balance bigint NOT NULL DEFAULT 0,
    held    bigint NOT NULL DEFAULT 0,
    CONSTRAINT accounts_named_by_user CHECK (user_id IS NULL OR user_id::text = id),
    CONSTRAINT accounts_held_not_negative CHECK (held >= 0),
    CONSTRAINT accounts_not_overdrawn CHECK (user_id IS NULL OR balance - held >= 0)
) WITH (fillfactor = 50);
INSERT INTO accounts (id) VALUES
    ('platform:grants'), ('platform:purchases'), ('platform:revenue'), ('platform:refunds');

CREATE TABLE transfers (
    id              uuid        NOT NULL PRIMARY KEY,
    kind            text        NOT NULL CHECK (kind IN ('grant', 'purchase', 'capture', 'refund')),
    from_account    text        COLLATE "C" NOT NULL REFERENCES accounts (id),
    to_account      text        COLLATE "C" NOT NULL REFERENCES accounts (id),
    amount          bigint      NOT NULL CHECK (amount > 0),
    generation_id   uuid        REFERENCES generations (id),
    reason          text        NOT NULL,
    actor           text        NOT NULL,
    -- The same key moves credits once.
    idempotency_key text        UNIQUE,
    created_at      timestamptz NOT NULL,
    CONSTRAINT transfers_between_two CHECK (from_account <> to_account)
);
CREATE UNIQUE INDEX transfers_one_capture ON transfers (generation_id) WHERE kind = 'capture';

CREATE TABLE holds (
    generation_id uuid        NOT NULL PRIMARY KEY REFERENCES generations (id),
    account_id    text        COLLATE "C" NOT NULL REFERENCES accounts (id),
    amount        bigint      NOT NULL CHECK (amount >= 0),
    created_at    timestamptz NOT NULL
);

-- The primary key is what makes a settlement happen exactly once.
CREATE TABLE settlements (
    generation_id uuid        NOT NULL PRIMARY KEY REFERENCES holds (generation_id),
    account_id    text        COLLATE "C" NOT NULL REFERENCES accounts (id),
    captured      bigint      NOT NULL CHECK (captured >= 0),
    released      bigint      NOT NULL CHECK (released >= 0),
    actor         text        NOT NULL,
    created_at    timestamptz NOT NULL
);
CREATE INDEX settlements_by_account ON settlements (account_id, created_at);

-- What a person sees; `seq` is the order of the books.
CREATE TABLE statement_lines (
    seq           bigint      GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    id            uuid        NOT NULL UNIQUE,
    user_id       uuid        NOT NULL REFERENCES users (id),
    line_type     text        NOT NULL CHECK (line_type IN ('purchase', 'usage', 'refund', 'bonus')),
    amount        bigint      NOT NULL,
    balance_after bigint      NOT NULL CHECK (balance_after >= 0),
    description   text        NOT NULL,
    generation_id uuid        REFERENCES generations (id),
    metadata      jsonb       NOT NULL,
    created_at    timestamptz NOT NULL,
    CONSTRAINT statement_lines_signed
        CHECK (CASE line_type WHEN 'usage' THEN amount < 0 ELSE amount > 0 END)
);
CREATE INDEX statement_lines_by_user ON statement_lines (user_id, seq);
CREATE INDEX statement_lines_by_time ON statement_lines (user_id, created_at);

-- What operators decided, and why.
CREATE TABLE audit (
    seq        bigint      GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    actor      text        NOT NULL,
    action     text        NOT NULL,
    subject    text        NOT NULL,
    reason     text        NOT NULL,
    details    jsonb       NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX audit_by_subject ON audit (subject, seq);

-- ---------------------------------------------------------------- append-only

CREATE TRIGGER transfers_keep BEFORE UPDATE OR DELETE ON transfers
    FOR EACH ROW EXECUTE FUNCTION velro_append_only();
CREATE TRIGGER transfers_stay BEFORE TRUNCATE ON transfers
    FOR EACH STATEMENT EXECUTE FUNCTION velro_append_only();
CREATE TRIGGER statement_lines_keep BEFORE UPDATE OR DELETE ON statement_lines
    FOR EACH ROW EXECUTE FUNCTION velro_append_only();
CREATE TRIGGER statement_lines_stay BEFORE TRUNCATE ON statement_lines
    FOR EACH STATEMENT EXECUTE FUNCTION velro_append_only();
CREATE TRIGGER holds_keep BEFORE UPDATE OR DELETE ON holds
    FOR EACH ROW EXECUTE FUNCTION velro_append_only();
CREATE TRIGGER holds_stay BEFORE TRUNCATE ON holds
    FOR EACH STATEMENT EXECUTE FUNCTION velro_append_only();
CREATE TRIGGER settlements_keep BEFORE UPDATE OR DELETE ON settlements
    FOR EACH ROW EXECUTE FUNCTION velro_append_only();
CREATE TRIGGER settlements_stay BEFORE TRUNCATE ON settlements
    FOR EACH STATEMENT EXECUTE FUNCTION velro_append_only();
CREATE TRIGGER audit_keep BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION velro_append_only();
CREATE TRIGGER audit_stay BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION velro_append_only();
