-- Finds the commands of a tenant and of a device. An index would dirty a page of its own for almost every command, since the
-- next is another device's: a third of all pages that were written. So rows come into these tables some hundreds at a time, in
-- their order. 'sorted' in `meta` is the last row of `commands` that is in them; those after it are looked through.
CREATE TABLE commands_of_tenants (
    tenant BLOB NOT NULL,
    id     BLOB NOT NULL,
    row    INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
INSERT INTO commands_of_tenants SELECT tenant, id, row FROM commands INDEXED BY commands_by_tenant ORDER BY tenant, id;
DROP INDEX commands_by_tenant;
CREATE TABLE commands_of_devices (
    tenant BLOB NOT NULL,
    device TEXT NOT NULL,
    id     BLOB NOT NULL,
    row    INTEGER NOT NULL,
    PRIMARY KEY (tenant, device, id)
) STRICT, WITHOUT ROWID;
INSERT INTO commands_of_devices SELECT tenant, device, id, row FROM commands INDEXED BY commands_by_device ORDER BY tenant, device, id;
DROP INDEX commands_by_device;
INSERT INTO meta (name, value) SELECT 'sorted', coalesce(max(row), 0) FROM commands;
