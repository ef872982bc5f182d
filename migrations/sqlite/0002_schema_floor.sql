-- The oldest migration that a program must know to work with this schema. A migration that takes something away raises it.
CREATE TABLE schema_floor (
    only_row INTEGER NOT NULL PRIMARY KEY DEFAULT 1 CHECK (only_row = 1),
    floor    INTEGER NOT NULL
) STRICT;
INSERT INTO schema_floor (floor) VALUES (2);
