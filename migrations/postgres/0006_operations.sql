-- Running it: one trace across processes, the latest check of the books, the log level at run time. Only adds: the version
-- before works beside it.

-- The W3C `traceparent` of the request it came with; NULL when that is not traced.
ALTER TABLE generations ADD COLUMN trace_context text;

-- One row: when a process of the installation recomputed the books last, and what it found.
CREATE TABLE ledger_checks (
    id                     bigint      NOT NULL PRIMARY KEY CHECK (id = 1),
    -- Whoever sets this does the next one; a check that was not finished is done again when its time comes.
    started_at             timestamptz NOT NULL,
    finished_at            timestamptz,
    took_ms                bigint,
    faults                 bigint,
    charged_without_output bigint
);

-- One row: the filter of the logs that an operator has asked for, until when.
CREATE TABLE log_levels (
    id         bigint      NOT NULL PRIMARY KEY CHECK (id = 1),
    filter     text        NOT NULL,
    until      timestamptz NOT NULL,
    actor      text        NOT NULL,
    created_at timestamptz NOT NULL
);
