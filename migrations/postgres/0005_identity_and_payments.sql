-- API keys, purchases, redeem codes, the operator's desk. Only adds and loosens: the version before works beside it.

-- ---------------------------------------------------------------- people

-- A suspended person may look, and spend nothing. Of a deleted one the row stays, without personal data, for the books.
ALTER TABLE users
    ADD COLUMN suspended_at     timestamptz,
    ADD COLUMN suspended_reason text,
    ADD COLUMN deleted_at       timestamptz,
    -- When nothing personal was left.
    ADD COLUMN erased_at        timestamptz;
CREATE INDEX users_deleted ON users (deleted_at) WHERE deleted_at IS NOT NULL;

-- For the list of one's own sessions.
ALTER TABLE sessions
    ADD COLUMN user_agent   text,
    ADD COLUMN address      text,
    ADD COLUMN last_used_at timestamptz;

CREATE TABLE api_keys (
    id           uuid        NOT NULL PRIMARY KEY,
    user_id      uuid        NOT NULL REFERENCES users (id),
    name         text        NOT NULL,
    -- SHA-256 of the key, hex; the key itself is shown once and never stored.
    hash         text        NOT NULL UNIQUE,
    -- The first characters, so that its owner knows it again.
    hint         text        NOT NULL,
    scopes       jsonb       NOT NULL,
    -- Models it may use; NULL for all.
    models       jsonb,
    -- What it may spend in its life; NULL without a limit.
    spending_cap bigint      CHECK (spending_cap >= 0),
    -- What its generations hold or have captured; written under the lock of its owner's account.
    spent        bigint      NOT NULL DEFAULT 0 CHECK (spent >= 0),
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
) WITH (fillfactor = 70);
CREATE INDEX api_keys_by_user ON api_keys (user_id, id);
CREATE INDEX api_keys_revoked ON api_keys (revoked_at) WHERE revoked_at IS NOT NULL;

ALTER TABLE generations ADD COLUMN api_key_id uuid REFERENCES api_keys (id);
-- To erase what its owner has hidden too.
CREATE INDEX generations_hidden ON generations (user_id, id) WHERE deleted_at IS NOT NULL;
CREATE INDEX generations_by_api_key ON generations (api_key_id, id) WHERE api_key_id IS NOT NULL;

-- ---------------------------------------------------------------- money

-- How far below zero a reversed purchase has taken the account; nothing else may.
ALTER TABLE accounts ADD COLUMN debt bigint NOT NULL DEFAULT 0;
ALTER TABLE accounts
    ADD CONSTRAINT accounts_debt_not_negative CHECK (debt >= 0),
    DROP CONSTRAINT accounts_not_overdrawn,
    ADD CONSTRAINT accounts_not_overdrawn CHECK (user_id IS NULL OR balance - held + debt >= 0);

-- For the sum of all debts; few have one.
CREATE INDEX accounts_in_debt ON accounts (id) WHERE debt > 0;

-- A reversal takes a purchase back, a correction a grant.
ALTER TABLE transfers
    ADD COLUMN order_id uuid,
    DROP CONSTRAINT transfers_kind_check,
    ADD CONSTRAINT transfers_kind_check
        CHECK (kind IN ('grant', 'purchase', 'capture', 'refund', 'reversal', 'correction'));
CREATE INDEX transfers_by_order ON transfers (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX transfers_refunds ON transfers (generation_id) WHERE kind = 'refund';

ALTER TABLE statement_lines
    DROP CONSTRAINT statement_lines_balance_after_check,
    DROP CONSTRAINT statement_lines_signed,
    ADD CONSTRAINT statement_lines_signed
        CHECK (CASE line_type WHEN 'usage' THEN amount < 0 WHEN 'refund' THEN amount > 0 ELSE amount <> 0 END);

-- What somebody wants to buy, written before the payment provider is asked.
CREATE TABLE orders (
    id              uuid        NOT NULL PRIMARY KEY,
    user_id         uuid        NOT NULL REFERENCES users (id),
    package_id      text        NOT NULL,
    credits         bigint      NOT NULL CHECK (credits > 0),
    -- In the smallest unit of the currency, as the payment provider counts.
    amount_minor    bigint      NOT NULL CHECK (amount_minor > 0),
    currency        text        NOT NULL CHECK (currency = lower(currency)),
    payment         text        NOT NULL CHECK (payment IN ('stripe', 'sandbox')),
    livemode        boolean     NOT NULL,
    status          text        NOT NULL CHECK (status IN ('created', 'open', 'processing', 'paid', 'expired', 'failed')),
    -- Of the payment provider, once they are known.
    session_id      text        UNIQUE,
    payment_intent  text        UNIQUE,
    checkout_url    text,
    -- Credits that refunds and disputes have taken back so far.
    reversed        bigint      NOT NULL DEFAULT 0 CHECK (reversed >= 0),
    -- Why it needs an operator; NULL when it does not.
    trouble         text,
    idempotency_key text,
    -- SHA-256 of what was asked for with that key, hex.
    fingerprint     text,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    expires_at      timestamptz,
    paid_at         timestamptz,
    CONSTRAINT orders_one_per_key UNIQUE (user_id, idempotency_key),
    CONSTRAINT orders_reversed_within CHECK (reversed <= credits)
);
CREATE INDEX orders_by_user ON orders (user_id, id);
CREATE INDEX orders_by_status ON orders (status, id);
CREATE INDEX orders_in_trouble ON orders (id) WHERE trouble IS NOT NULL;

ALTER TABLE transfers ADD CONSTRAINT transfers_order_id_fkey FOREIGN KEY (order_id) REFERENCES orders (id);
-- An order is booked once.
CREATE UNIQUE INDEX transfers_one_purchase ON transfers (order_id) WHERE kind = 'purchase' AND order_id IS NOT NULL;

-- What the payment provider has said: each of its events counts once.
CREATE TABLE payment_events (
    id             text        NOT NULL PRIMARY KEY,
    kind           text        NOT NULL,
    -- Of what it speaks; NULL when it is not ours.
    order_id       uuid        REFERENCES orders (id),
    -- What came of it, for the operator.
    outcome        text        NOT NULL,
    created_at     timestamptz NOT NULL,
    received_at    timestamptz NOT NULL
);
CREATE INDEX payment_events_by_order ON payment_events (order_id, created_at) WHERE order_id IS NOT NULL;

-- Money that went back or is disputed, by the payment provider's own ids; may come before the order is known to be paid.
CREATE TABLE payment_reversals (
    id             text        NOT NULL PRIMARY KEY,
    payment_intent text        NOT NULL,
    kind           text        NOT NULL CHECK (kind IN ('refund', 'refunded_total', 'dispute')),
    amount_minor   bigint      NOT NULL CHECK (amount_minor >= 0),
    currency       text        NOT NULL,
    -- `void`: a refund that failed, a dispute that was won. It stays so, whatever comes late.
    state          text        NOT NULL CHECK (state IN ('valid', 'void')),
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL
);
CREATE INDEX payment_reversals_by_intent ON payment_reversals (payment_intent, id);

-- ---------------------------------------------------------------- redeem codes

CREATE TABLE redeem_codes (
    id             uuid        NOT NULL PRIMARY KEY,
    -- SHA-256 of the normalised code, hex; the code itself is shown once and never stored.
    hash           text        NOT NULL UNIQUE,
    hint           text        NOT NULL,
    credits        bigint      NOT NULL CHECK (credits > 0),
    max_uses       bigint      NOT NULL CHECK (max_uses > 0),
    uses           bigint      NOT NULL DEFAULT 0,
    per_user_limit bigint      NOT NULL CHECK (per_user_limit > 0),
    note           text        NOT NULL,
    created_by     text        NOT NULL,
    created_at     timestamptz NOT NULL,
    expires_at     timestamptz,
    disabled_at    timestamptz,
    CONSTRAINT redeem_codes_uses_within CHECK (uses BETWEEN 0 AND max_uses)
);

CREATE TABLE redemptions (
    code_id    uuid        NOT NULL REFERENCES redeem_codes (id),
    user_id    uuid        NOT NULL REFERENCES users (id),
    -- The first, second ... time of this user.
    ordinal    bigint      NOT NULL CHECK (ordinal >= 1),
    credits    bigint      NOT NULL CHECK (credits > 0),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (code_id, user_id, ordinal)
);
CREATE INDEX redemptions_by_user ON redemptions (user_id, created_at);

-- ---------------------------------------------------------------- the operator's desk

-- What an operator has stopped: `queue` for all, or `provider:ID`. Paused, nothing begins and what comes waits; draining,
-- nothing new is taken and what was taken is worked off.
CREATE TABLE pauses (
    scope      text        NOT NULL PRIMARY KEY,
    mode       text        NOT NULL CHECK (mode IN ('running', 'paused', 'draining')),
    reason     text        NOT NULL,
    actor      text        NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE INDEX audit_by_actor ON audit (actor, seq);
