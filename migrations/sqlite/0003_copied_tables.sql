-- What `velro db copy` left in each table of the database it wrote; the next copy sees by it whether that database has been
-- used in between. Never filled in SQLite, which is only copied from.
CREATE TABLE copied_tables (
    name      TEXT    NOT NULL PRIMARY KEY,
    row_count INTEGER NOT NULL CHECK (row_count >= 0),
    digest    TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
