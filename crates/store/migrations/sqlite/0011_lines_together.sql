-- Lines of a timeline in the order they came, whoever's they are: in an order by command each new line went between others, and
-- dirtied pages of its own. Each row leads to the one before it of the same command, and `lives.last_line` to the newest.
-- Lines of one change share a row: `n` is the number of the first, `at` and `status_from` are its, `status_to` is the last's.
CREATE TABLE lines_in_order (
    line        INTEGER PRIMARY KEY,
    row         INTEGER NOT NULL,
    before      INTEGER,
    n           INTEGER NOT NULL,
    lines       INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    status_from INTEGER NOT NULL,
    status_to   INTEGER NOT NULL,
    proof       BLOB NOT NULL  -- sealed
) STRICT;
INSERT INTO lines_in_order (line, row, before, n, lines, at, status_from, status_to, proof)
    SELECT line, row, CASE WHEN row_before = row THEN line - 1 END, n, 1, at, status_from, status_to, proof
    FROM (SELECT row_number() OVER in_order AS line, lag(row) OVER in_order AS row_before, * FROM timeline
          WINDOW in_order AS (ORDER BY row, n));
ALTER TABLE lives ADD COLUMN last_line INTEGER;
UPDATE lives SET last_line = newest.line FROM (SELECT row, max(line) AS line FROM lines_in_order GROUP BY row) AS newest
    WHERE newest.row = lives.row;
DROP TABLE timeline;
ALTER TABLE lines_in_order RENAME TO timeline;
