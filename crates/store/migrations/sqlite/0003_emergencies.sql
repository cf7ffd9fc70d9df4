-- Finds the emergencies of a gateway, so that a restart does not send a movement from before one of them.
CREATE INDEX commands_emergencies ON commands (gateway) WHERE risk = 1;
