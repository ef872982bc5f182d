-- Running it: one trace across processes, the latest check of the books, the log level at run time. Only adds.

-- The W3C `traceparent` of the request it came with; NULL when that is not traced.
ALTER TABLE generations ADD COLUMN trace_context TEXT;

-- One row: when a process of the installation recomputed the books last, and what it found.
CREATE TABLE ledger_checks (
    id                     INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    -- Whoever sets this does the next one; a check that was not finished is done again when its time comes.
    started_at             INTEGER NOT NULL,
    finished_at            INTEGER,
    took_ms                INTEGER,
    faults                 INTEGER,
    charged_without_output INTEGER
) STRICT;

-- One row: the filter of the logs that an operator has asked for, until when.
CREATE TABLE log_levels (
    id         INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    filter     TEXT    NOT NULL,
    until      INTEGER NOT NULL,
    actor      TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
