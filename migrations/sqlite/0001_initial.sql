-- The first schema. Times: microseconds since the Unix epoch. Ids: lower-case UUIDs. Credits: integers.

-- ---------------------------------------------------------------- people

CREATE TABLE users (
    id              TEXT    NOT NULL PRIMARY KEY,
    email           TEXT    NOT NULL UNIQUE CHECK (email = lower(email)),
    password_hash   TEXT,
    full_name       TEXT,
    display_name    TEXT,
    avatar_url      TEXT,
    role            TEXT    NOT NULL CHECK (role IN ('user', 'operator')),
    plan            TEXT    NOT NULL DEFAULT 'free',
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    last_sign_in_at INTEGER
) STRICT;

-- A session is the family of refresh tokens that began with one login.
CREATE TABLE sessions (
    id         TEXT    NOT NULL PRIMARY KEY,
    user_id    TEXT    NOT NULL REFERENCES users (id),
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_revoked ON sessions (revoked_at) WHERE revoked_at IS NOT NULL;

CREATE TABLE refresh_tokens (
    hash       TEXT    NOT NULL PRIMARY KEY,
    session_id TEXT    NOT NULL REFERENCES sessions (id),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER
) STRICT;
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id);

-- ---------------------------------------------------------------- projects and generations

CREATE TABLE projects (
    id          TEXT    NOT NULL PRIMARY KEY,
    user_id     TEXT    NOT NULL REFERENCES users (id),
    name        TEXT    NOT NULL,
    description TEXT,
    visibility  TEXT    NOT NULL CHECK (visibility IN ('private', 'team-only', 'public')),
    tags        TEXT    NOT NULL CHECK (json_valid(tags)),
    metadata    TEXT    NOT NULL CHECK (json_valid(metadata)),
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX projects_by_user ON projects (user_id, updated_at, id);
CREATE INDEX projects_public ON projects (updated_at, id) WHERE visibility = 'public';

CREATE TABLE generations (
    id                  TEXT    NOT NULL PRIMARY KEY,
    user_id             TEXT    NOT NULL REFERENCES users (id),
    project_id          TEXT    REFERENCES projects (id) ON DELETE SET NULL,
    model_id            TEXT    NOT NULL,
    provider            TEXT    NOT NULL,
    media_type          TEXT    NOT NULL CHECK (media_type IN ('image', 'video', 'audio')),
    prompt              TEXT    NOT NULL,
    negative_prompt     TEXT,
    reference_image_url TEXT,
    parameters          TEXT    NOT NULL CHECK (json_valid(parameters)),
    dropped_parameters  TEXT    NOT NULL CHECK (json_valid(dropped_parameters)),
    provider_model      TEXT    NOT NULL,
    provider_input      TEXT    NOT NULL,
    price               INTEGER NOT NULL CHECK (price >= 0),
    price_basis         TEXT    NOT NULL CHECK (json_valid(price_basis)),
    status              TEXT    NOT NULL CHECK (status IN ('queued', 'processing', 'completed', 'failed', 'cancelled')),
    cancel_requested    INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    error_code          TEXT,
    error_message       TEXT,
    captured            INTEGER CHECK (captured >= 0),
    outputs             TEXT    NOT NULL DEFAULT '[]' CHECK (json_valid(outputs)),
    progress_permille   INTEGER CHECK (progress_permille >= 0),
    billed              TEXT    CHECK (billed IS NULL OR json_valid(billed)),
    result_meta         TEXT    CHECK (result_meta IS NULL OR json_valid(result_meta)),
    is_favorite         INTEGER NOT NULL DEFAULT 0 CHECK (is_favorite IN (0, 1)),
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    started_at          INTEGER,
    completed_at        INTEGER,
    -- Hidden from its owner; the books still refer to it.
    deleted_at          INTEGER,
    CONSTRAINT generations_charged_when_over
        CHECK ((status IN ('queued', 'processing')) = (captured IS NULL)),
    CONSTRAINT generations_error_is_whole
        CHECK ((error_code IS NULL) = (error_message IS NULL)),
    CONSTRAINT generations_hidden_when_over
        CHECK (deleted_at IS NULL OR status IN ('completed', 'failed', 'cancelled'))
) STRICT;
CREATE INDEX generations_by_user ON generations (user_id, id) WHERE deleted_at IS NULL;
CREATE INDEX generations_by_project ON generations (project_id, id) WHERE project_id IS NOT NULL;
CREATE INDEX generations_by_status ON generations (status, id);

CREATE TABLE idempotency_keys (
    user_id       TEXT    NOT NULL REFERENCES users (id),
    key           TEXT    NOT NULL,
    fingerprint   TEXT    NOT NULL,
    generation_id TEXT    NOT NULL REFERENCES generations (id),
    created_at    INTEGER NOT NULL,
    PRIMARY KEY (user_id, key)
) STRICT, WITHOUT ROWID;

-- What happened to a generation; `seq` is the id of an SSE frame and is never used twice.
CREATE TABLE events (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    generation_id TEXT    NOT NULL REFERENCES generations (id),
    kind          TEXT    NOT NULL CHECK (kind IN ('queued', 'processing', 'completed', 'error', 'cancelled')),
    data          TEXT    NOT NULL CHECK (json_valid(data)),
    created_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX events_by_generation ON events (generation_id, seq);

-- ---------------------------------------------------------------- attempts

-- Until when a worker holds the attempts that name it: one row to extend, however many attempts it holds.
CREATE TABLE leases (
    worker      TEXT    NOT NULL PRIMARY KEY,
    lease_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX leases_by_end ON leases (lease_until);

CREATE TABLE attempts (
    id            TEXT    NOT NULL PRIMARY KEY,
    generation_id TEXT    NOT NULL REFERENCES generations (id),
    ordinal       INTEGER NOT NULL CHECK (ordinal >= 1),
    provider      TEXT    NOT NULL,
    state         TEXT    NOT NULL
                  CHECK (state IN ('prepared', 'sending', 'accepted', 'finished', 'rejected', 'unknown')),
    remote_id     TEXT,
    plugin_state  BLOB    NOT NULL DEFAULT x'',
    pending       TEXT    NOT NULL CHECK (json_valid(pending)),
    steps         INTEGER NOT NULL DEFAULT 0 CHECK (steps >= 0),
    due_at        INTEGER NOT NULL,
    deadline_at   INTEGER NOT NULL,
    inbox         BLOB,
    -- A worker of `leases`; no foreign key, because its check would scan the table when a worker leaves.
    lease_owner   TEXT,
    -- Why it ended, for the operator.
    detail        TEXT,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    CONSTRAINT attempts_one_per_ordinal UNIQUE (generation_id, ordinal),
    CONSTRAINT attempts_over_without_lease
        CHECK (lease_owner IS NULL OR state NOT IN ('finished', 'rejected'))
) STRICT;
-- At most one attempt of a generation goes on.
CREATE UNIQUE INDEX attempts_one_alive ON attempts (generation_id)
    WHERE state IN ('prepared', 'sending', 'accepted', 'unknown');
CREATE INDEX attempts_by_lease ON attempts (lease_owner)
    WHERE state IN ('prepared', 'sending', 'accepted', 'unknown');
CREATE INDEX attempts_by_state ON attempts (state, id);

-- ---------------------------------------------------------------- money

-- A user's account is named by the user's id. Balance and held are sums of the rows below, kept for speed.
CREATE TABLE accounts (
    id      TEXT    NOT NULL PRIMARY KEY,
    user_id TEXT    UNIQUE REFERENCES users (id),
    balance INTEGER NOT NULL DEFAULT 0,
    held    INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT accounts_named_by_user CHECK (user_id IS NULL OR user_id = id),
    CONSTRAINT accounts_held_not_negative CHECK (held >= 0),
    CONSTRAINT accounts_not_overdrawn CHECK (user_id IS NULL OR balance - held >= 0)
) STRICT;
-- What is held now is a sum over the few accounts that hold something.
CREATE INDEX accounts_holding ON accounts (held) WHERE held > 0;
INSERT INTO accounts (id) VALUES
    ('platform:grants'), ('platform:purchases'), ('platform:revenue'), ('platform:refunds');

CREATE TABLE transfers (
    id              TEXT    NOT NULL PRIMARY KEY,
    kind            TEXT    NOT NULL CHECK (kind IN ('grant', 'purchase', 'capture', 'refund')),
    from_account    TEXT    NOT NULL REFERENCES accounts (id),
    to_account      TEXT    NOT NULL REFERENCES accounts (id),
    amount          INTEGER NOT NULL CHECK (amount > 0),
    generation_id   TEXT    REFERENCES generations (id),
    reason          TEXT    NOT NULL,
    actor           TEXT    NOT NULL,
    -- The same key moves credits once.
    idempotency_key TEXT    UNIQUE,
    created_at      INTEGER NOT NULL,
    CONSTRAINT transfers_between_two CHECK (from_account <> to_account)
) STRICT;
CREATE UNIQUE INDEX transfers_one_capture ON transfers (generation_id) WHERE kind = 'capture';

CREATE TABLE holds (
    generation_id TEXT    NOT NULL PRIMARY KEY REFERENCES generations (id),
    account_id    TEXT    NOT NULL REFERENCES accounts (id),
    amount        INTEGER NOT NULL CHECK (amount >= 0),
    created_at    INTEGER NOT NULL
) STRICT;

-- The primary key is what makes a settlement happen exactly once.
CREATE TABLE settlements (
    generation_id TEXT    NOT NULL PRIMARY KEY REFERENCES holds (generation_id),
    account_id    TEXT    NOT NULL REFERENCES accounts (id),
    captured      INTEGER NOT NULL CHECK (captured >= 0),
    released      INTEGER NOT NULL CHECK (released >= 0),
    actor         TEXT    NOT NULL,
    created_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX settlements_by_account ON settlements (account_id, created_at);

-- What a person sees; `seq` is the order of the books.
CREATE TABLE statement_lines (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT    NOT NULL UNIQUE,
    user_id       TEXT    NOT NULL REFERENCES users (id),
    line_type     TEXT    NOT NULL CHECK (line_type IN ('purchase', 'usage', 'refund', 'bonus')),
    amount        INTEGER NOT NULL,
    balance_after INTEGER NOT NULL CHECK (balance_after >= 0),
    description   TEXT    NOT NULL,
    generation_id TEXT    REFERENCES generations (id),
    metadata      TEXT    NOT NULL CHECK (json_valid(metadata)),
    created_at    INTEGER NOT NULL,
    CONSTRAINT statement_lines_signed
        CHECK (CASE line_type WHEN 'usage' THEN amount < 0 ELSE amount > 0 END)
) STRICT;
CREATE INDEX statement_lines_by_user ON statement_lines (user_id, seq);
CREATE INDEX statement_lines_by_time ON statement_lines (user_id, created_at);

-- What operators decided, and why.
CREATE TABLE audit (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    actor      TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    subject    TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    details    TEXT    NOT NULL CHECK (json_valid(details)),
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX audit_by_subject ON audit (subject, seq);

-- ---------------------------------------------------------------- append-only

CREATE TRIGGER transfers_keep BEFORE UPDATE ON transfers
    BEGIN SELECT RAISE(ABORT, 'transfers are append-only'); END;
CREATE TRIGGER transfers_stay BEFORE DELETE ON transfers
    BEGIN SELECT RAISE(ABORT, 'transfers are append-only'); END;
CREATE TRIGGER statement_lines_keep BEFORE UPDATE ON statement_lines
    BEGIN SELECT RAISE(ABORT, 'statement_lines are append-only'); END;
CREATE TRIGGER statement_lines_stay BEFORE DELETE ON statement_lines
    BEGIN SELECT RAISE(ABORT, 'statement_lines are append-only'); END;
CREATE TRIGGER holds_keep BEFORE UPDATE ON holds
    BEGIN SELECT RAISE(ABORT, 'holds are append-only'); END;
CREATE TRIGGER holds_stay BEFORE DELETE ON holds
    BEGIN SELECT RAISE(ABORT, 'holds are append-only'); END;
CREATE TRIGGER settlements_keep BEFORE UPDATE ON settlements
    BEGIN SELECT RAISE(ABORT, 'settlements are append-only'); END;
CREATE TRIGGER settlements_stay BEFORE DELETE ON settlements
    BEGIN SELECT RAISE(ABORT, 'settlements are append-only'); END;
CREATE TRIGGER audit_keep BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
CREATE TRIGGER audit_stay BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
