-- What a device says in words may repeat a secret it was given, so its words are sealed, all of a life in one:
-- response_message, response_code where it is no number, failure_reason, execution_state, execution_step. Those columns
-- stay empty in what is written from now on. Rows from before keep their clear ones until they change next; they are read
-- where `texts` is null.
ALTER TABLE lives ADD COLUMN texts BLOB;
