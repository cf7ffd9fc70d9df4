-- With its last sign of life it reached the broker, and its clock was right.
ALTER TABLE replicas ADD COLUMN fit boolean NOT NULL DEFAULT true;
