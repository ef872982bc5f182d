-- The oldest migration that a program must know to work with this schema. A migration that takes something away raises it.
CREATE TABLE schema_floor (
    only_row boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (only_row),
    floor    bigint  NOT NULL
);
INSERT INTO schema_floor (floor) VALUES (2);
