-- How far each table came while a SQLite database is taken over: its last row, in the order in which they are read.
CREATE TABLE import_positions (
    name   text PRIMARY KEY,
    number bigint,
    bytes  bytea,
    words  text
);
