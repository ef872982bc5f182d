-- What `velro db copy` left in each table of the database it wrote; the next copy sees by it whether that database has been
-- used in between.
CREATE TABLE copied_tables (
    name      text   NOT NULL PRIMARY KEY,
    row_count bigint NOT NULL CHECK (row_count >= 0),
    digest    text   NOT NULL
);
