-- Where other servers reach this one directly, as address and port; null where they cannot.
ALTER TABLE replicas ADD COLUMN line text
