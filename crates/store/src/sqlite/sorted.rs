//! `commands_of_tenants` and `commands_of_devices`: what lists of commands are read from.
//!
//! Fifty docks that are told something in a moment have their newest commands on fifty pages of any index by device, and as
//! many tenants theirs. So the newest commands are in none: they go into these tables some hundreds at a time, in their
//! order, which dirties a page for several each. Whoever lists commands looks through the newest as well; they lie side
//! by side.

use rusqlite::{Connection, params};

use super::{
    fault::Fault,
    limits::{SORTED_AT_ONCE_MAX, UNSORTED_MAX},
};

/// Sees to it that the database says what is sorted: one that was saved out of a damaged one may not, and then nothing is. Writes
/// nothing elsewhere.
pub(super) fn begin(conn: &Connection) -> rusqlite::Result<()> {
    if conn.prepare(SELECT_SORTED)?.exists([])? {
        return Ok(());
    }
    conn.execute("INSERT OR IGNORE INTO meta (name, value) VALUES ('sorted', 0)", []).map(drop)
}

/// Sorts some of the newest commands, where there are many. `newest` is the last row of `commands`.
pub(super) fn sort(conn: &Connection, newest: i64) -> Result<(), Fault> {
    let sorted: i64 = conn.prepare_cached(SELECT_SORTED)?.query_row([], |row| row.get(0))?;
    if newest.saturating_sub(sorted) < UNSORTED_MAX {
        return Ok(());
    }
    let until = newest.min(sorted.saturating_add(SORTED_AT_ONCE_MAX));
    for insert in [SORT_BY_TENANT, SORT_BY_DEVICE] {
        conn.prepare_cached(insert)?.execute(params![sorted, until])?;
    }
    conn.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'sorted'")?
        .execute(params![until])?;
    Ok(())
}

const SELECT_SORTED: &str = "SELECT value FROM meta WHERE name = 'sorted'";
pub(super) const SORT_BY_TENANT: &str = "
    INSERT INTO commands_of_tenants (tenant, id, row)
    SELECT tenant, id, row FROM commands WHERE row > ?1 AND row <= ?2 ORDER BY tenant, id";
pub(super) const SORT_BY_DEVICE: &str = "
    INSERT INTO commands_of_devices (tenant, device, id, row)
    SELECT tenant, device, id, row FROM commands WHERE row > ?1 AND row <= ?2 ORDER BY tenant, device, id";
/// A condition on a command `c`: it is not in the tables yet.
pub(super) const IS_NEW: &str = "c.row > (SELECT value FROM meta WHERE name = 'sorted')";
