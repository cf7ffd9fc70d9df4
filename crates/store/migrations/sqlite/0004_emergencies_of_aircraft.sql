-- Finds the emergencies of an aircraft through whichever gateway, for the same reason.
CREATE INDEX commands_emergencies_of_aircraft ON commands (aircraft) WHERE risk = 1;
