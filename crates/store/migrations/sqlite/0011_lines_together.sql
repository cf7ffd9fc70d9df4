-- Lines of one change share a row: `n` is the number of the first, `at` and `status_from` are its, `status_to` is the last's.
ALTER TABLE timeline ADD COLUMN lines INTEGER NOT NULL DEFAULT 1;
