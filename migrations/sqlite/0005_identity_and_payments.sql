-- API keys, purchases, redeem codes, the operator's desk. Only adds and loosens: the version before works beside it.

-- ---------------------------------------------------------------- people

-- A suspended person may look, and spend nothing. Of a deleted one the row stays, without personal data, for the books.
ALTER TABLE users ADD COLUMN suspended_at INTEGER;
ALTER TABLE users ADD COLUMN suspended_reason TEXT;
ALTER TABLE users ADD COLUMN deleted_at INTEGER;
-- When nothing personal was left.
ALTER TABLE users ADD COLUMN erased_at INTEGER;
CREATE INDEX users_deleted ON users (deleted_at) WHERE deleted_at IS NOT NULL;

-- For the list of one's own sessions.
ALTER TABLE sessions ADD COLUMN user_agent TEXT;
ALTER TABLE sessions ADD COLUMN address TEXT;
ALTER TABLE sessions ADD COLUMN last_used_at INTEGER;

CREATE TABLE api_keys (
    id           TEXT    NOT NULL PRIMARY KEY,
    user_id      TEXT    NOT NULL REFERENCES users (id),
    name         TEXT    NOT NULL,
    -- SHA-256 of the key, hex; the key itself is shown once and never stored.
    hash         TEXT    NOT NULL UNIQUE,
    -- The first characters, so that its owner knows it again.
    hint         TEXT    NOT NULL,
    scopes       TEXT    NOT NULL CHECK (json_valid(scopes)),
    -- Models it may use; NULL for all.
    models       TEXT    CHECK (json_valid(models)),
    -- What it may spend in its life; NULL without a limit.
    spending_cap INTEGER CHECK (spending_cap >= 0),
    -- What its generations hold or have captured; written under the lock of its owner's account.
    spent        INTEGER NOT NULL DEFAULT 0 CHECK (spent >= 0),
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    revoked_at   INTEGER,
    last_used_at INTEGER
) STRICT;
CREATE INDEX api_keys_by_user ON api_keys (user_id, id);
CREATE INDEX api_keys_revoked ON api_keys (revoked_at) WHERE revoked_at IS NOT NULL;

ALTER TABLE generations ADD COLUMN api_key_id TEXT REFERENCES api_keys (id);
-- To erase what its owner has hidden too.
CREATE INDEX generations_hidden ON generations (user_id, id) WHERE deleted_at IS NOT NULL;
CREATE INDEX generations_by_api_key ON generations (api_key_id, id) WHERE api_key_id IS NOT NULL;

-- ---------------------------------------------------------------- money

-- What somebody wants to buy, written before the payment provider is asked.
CREATE TABLE orders (
    id              TEXT    NOT NULL PRIMARY KEY,
    user_id         TEXT    NOT NULL REFERENCES users (id),
    package_id      TEXT    NOT NULL,
    credits         INTEGER NOT NULL CHECK (credits > 0),
    -- In the smallest unit of the currency, as the payment provider counts.
    amount_minor    INTEGER NOT NULL CHECK (amount_minor > 0),
    currency        TEXT    NOT NULL CHECK (currency = lower(currency)),
    payment         TEXT    NOT NULL CHECK (payment IN ('stripe', 'sandbox')),
    livemode        INTEGER NOT NULL CHECK (livemode IN (0, 1)),
    status          TEXT    NOT NULL CHECK (status IN ('created', 'open', 'processing', 'paid', 'expired', 'failed')),
    -- Of the payment provider, once they are known.
    session_id      TEXT    UNIQUE,
    payment_intent  TEXT    UNIQUE,
    checkout_url    TEXT,
    -- Credits that refunds and disputes have taken back so far.
    reversed        INTEGER NOT NULL DEFAULT 0 CHECK (reversed >= 0),
    -- Why it needs an operator; NULL when it does not.
    trouble         TEXT,
    idempotency_key TEXT,
    -- SHA-256 of what was asked for with that key, hex.
    fingerprint     TEXT,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    expires_at      INTEGER,
    paid_at         INTEGER,
    CONSTRAINT orders_one_per_key UNIQUE (user_id, idempotency_key),
    CONSTRAINT orders_reversed_within CHECK (reversed <= credits)
) STRICT;
CREATE INDEX orders_by_user ON orders (user_id, id);
CREATE INDEX orders_by_status ON orders (status, id);
CREATE INDEX orders_in_trouble ON orders (id) WHERE trouble IS NOT NULL;

-- SQLite cannot change a constraint in place: the tables are built anew. Foreign keys are off while this runs, and checked
-- after it (`store/sql/sqlite.rs`).

CREATE TABLE accounts_new (
    id      TEXT    NOT NULL PRIMARY KEY,
    user_id TEXT    UNIQUE REFERENCES users (id),
    balance INTEGER NOT NULL DEFAULT 0,
    held    INTEGER NOT NULL DEFAULT 0,
    -- How far below zero a reversed purchase has taken the account; nothing else may.
    debt    INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT accounts_named_by_user CHECK (user_id IS NULL OR user_id = id),
    CONSTRAINT accounts_held_not_negative CHECK (held >= 0),
    CONSTRAINT accounts_debt_not_negative CHECK (debt >= 0),
    CONSTRAINT accounts_not_overdrawn CHECK (user_id IS NULL OR balance - held + debt >= 0)
) STRICT;
INSERT INTO accounts_new (id, user_id, balance, held) SELECT id, user_id, balance, held FROM accounts;
DROP TABLE accounts;
ALTER TABLE accounts_new RENAME TO accounts;
-- What is held now is a sum over the few accounts that hold something.
CREATE INDEX accounts_holding ON accounts (held) WHERE held > 0;
-- For the sum of all debts; few have one.
CREATE INDEX accounts_in_debt ON accounts (debt) WHERE debt > 0;

CREATE TABLE transfers_new (
    id              TEXT    NOT NULL PRIMARY KEY,
    -- A reversal takes a purchase back, a correction a grant.
    kind            TEXT    NOT NULL
                    CHECK (kind IN ('grant', 'purchase', 'capture', 'refund', 'reversal', 'correction')),
    from_account    TEXT    NOT NULL REFERENCES accounts (id),
    to_account      TEXT    NOT NULL REFERENCES accounts (id),
    amount          INTEGER NOT NULL CHECK (amount > 0),
    generation_id   TEXT    REFERENCES generations (id),
    order_id        TEXT    REFERENCES orders (id),
    reason          TEXT    NOT NULL,
    actor           TEXT    NOT NULL,
    -- The same key moves credits once.
    idempotency_key TEXT    UNIQUE,
    created_at      INTEGER NOT NULL,
    CONSTRAINT transfers_between_two CHECK (from_account <> to_account)
) STRICT;
INSERT INTO transfers_new (id, kind, from_account, to_account, amount, generation_id, reason, actor, idempotency_key,
    created_at)
    SELECT id, kind, from_account, to_account, amount, generation_id, reason, actor, idempotency_key, created_at
    FROM transfers ORDER BY rowid;
DROP TABLE transfers;
ALTER TABLE transfers_new RENAME TO transfers;
CREATE UNIQUE INDEX transfers_one_capture ON transfers (generation_id) WHERE kind = 'capture';
CREATE INDEX transfers_refunds ON transfers (generation_id) WHERE kind = 'refund';
CREATE INDEX transfers_by_order ON transfers (order_id) WHERE order_id IS NOT NULL;
-- An order is booked once.
CREATE UNIQUE INDEX transfers_one_purchase ON transfers (order_id) WHERE kind = 'purchase' AND order_id IS NOT NULL;
CREATE TRIGGER transfers_keep BEFORE UPDATE ON transfers
    BEGIN SELECT RAISE(ABORT, 'transfers are append-only'); END;
CREATE TRIGGER transfers_stay BEFORE DELETE ON transfers
    BEGIN SELECT RAISE(ABORT, 'transfers are append-only'); END;

CREATE TABLE statement_lines_new (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT    NOT NULL UNIQUE,
    user_id       TEXT    NOT NULL REFERENCES users (id),
    line_type     TEXT    NOT NULL CHECK (line_type IN ('purchase', 'usage', 'refund', 'bonus')),
    amount        INTEGER NOT NULL,
    balance_after INTEGER NOT NULL,
    description   TEXT    NOT NULL,
    generation_id TEXT    REFERENCES generations (id),
    metadata      TEXT    NOT NULL CHECK (json_valid(metadata)),
    created_at    INTEGER NOT NULL,
    CONSTRAINT statement_lines_signed
        CHECK (CASE line_type WHEN 'usage' THEN amount < 0 WHEN 'refund' THEN amount > 0 ELSE amount <> 0 END)
) STRICT;
INSERT INTO statement_lines_new (seq, id, user_id, line_type, amount, balance_after, description, generation_id, metadata,
    created_at)
    SELECT seq, id, user_id, line_type, amount, balance_after, description, generation_id, metadata, created_at
    FROM statement_lines ORDER BY seq;
DROP TABLE statement_lines;
ALTER TABLE statement_lines_new RENAME TO statement_lines;
CREATE INDEX statement_lines_by_user ON statement_lines (user_id, seq);
CREATE INDEX statement_lines_by_time ON statement_lines (user_id, created_at);
CREATE TRIGGER statement_lines_keep BEFORE UPDATE ON statement_lines
    BEGIN SELECT RAISE(ABORT, 'statement_lines are append-only'); END;
CREATE TRIGGER statement_lines_stay BEFORE DELETE ON statement_lines
    BEGIN SELECT RAISE(ABORT, 'statement_lines are append-only'); END;

-- What the payment provider has said: each of its events counts once.
CREATE TABLE payment_events (
    id             TEXT    NOT NULL PRIMARY KEY,
    kind           TEXT    NOT NULL,
    -- Of what it speaks; NULL when it is not ours.
    order_id       TEXT    REFERENCES orders (id),
    -- What came of it, for the operator.
    outcome        TEXT    NOT NULL,
    created_at     INTEGER NOT NULL,
    received_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX payment_events_by_order ON payment_events (order_id, created_at) WHERE order_id IS NOT NULL;

-- Money that went back or is disputed, by the payment provider's own ids; may come before the order is known to be paid.
CREATE TABLE payment_reversals (
    id             TEXT    NOT NULL PRIMARY KEY,
    payment_intent TEXT    NOT NULL,
    kind           TEXT    NOT NULL CHECK (kind IN ('refund', 'refunded_total', 'dispute')),
    amount_minor   INTEGER NOT NULL CHECK (amount_minor >= 0),
    currency       TEXT    NOT NULL,
    -- `void`: a refund that failed, a dispute that was won. It stays so, whatever comes late.
    state          TEXT    NOT NULL CHECK (state IN ('valid', 'void')),
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX payment_reversals_by_intent ON payment_reversals (payment_intent, id);

-- ---------------------------------------------------------------- redeem codes

CREATE TABLE redeem_codes (
    id             TEXT    NOT NULL PRIMARY KEY,
    -- SHA-256 of the normalised code, hex; the code itself is shown once and never stored.
    hash           TEXT    NOT NULL UNIQUE,
    hint           TEXT    NOT NULL,
    credits        INTEGER NOT NULL CHECK (credits > 0),
    max_uses       INTEGER NOT NULL CHECK (max_uses > 0),
    uses           INTEGER NOT NULL DEFAULT 0,
    per_user_limit INTEGER NOT NULL CHECK (per_user_limit > 0),
    note           TEXT    NOT NULL,
    created_by     TEXT    NOT NULL,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER,
    disabled_at    INTEGER,
    CONSTRAINT redeem_codes_uses_within CHECK (uses BETWEEN 0 AND max_uses)
) STRICT;

CREATE TABLE redemptions (
    code_id    TEXT    NOT NULL REFERENCES redeem_codes (id),
    user_id    TEXT    NOT NULL REFERENCES users (id),
    -- The first, second ... time of this user.
    ordinal    INTEGER NOT NULL CHECK (ordinal >= 1),
    credits    INTEGER NOT NULL CHECK (credits > 0),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (code_id, user_id, ordinal)
) STRICT;
CREATE INDEX redemptions_by_user ON redemptions (user_id, created_at);

-- ---------------------------------------------------------------- the operator's desk

-- What an operator has stopped: `queue` for all, or `provider:ID`. Paused, nothing begins and what comes waits; draining,
-- nothing new is taken and what was taken is worked off.
CREATE TABLE pauses (
    scope      TEXT    NOT NULL PRIMARY KEY,
    mode       TEXT    NOT NULL CHECK (mode IN ('running', 'paused', 'draining')),
    reason     TEXT    NOT NULL,
    actor      TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX audit_by_actor ON audit (actor, seq);
