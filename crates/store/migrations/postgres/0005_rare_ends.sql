-- Whose the command is, where it ended as few do: delivered and no more, failed, timed out, unmatched. Lists of those
-- would read all the others otherwise. A command that succeeds pays nothing for it.
ALTER TABLE lives ADD COLUMN rare_of uuid;
UPDATE lives l SET rare_of = c.tenant FROM commands c WHERE c.id = l.id AND l.phase IN (4, 6, 7, 8);
CREATE INDEX lives_rare ON lives (rare_of, phase, id) WHERE rare_of IS NOT NULL;
