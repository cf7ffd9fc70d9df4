//! `commands_of_devices`: finds the commands of a device.
//!
//! Fifty docks that are told something in a moment have their newest commands on fifty pages of any index by device. So the
//! newest commands are in none: they go into this table some hundreds at a time, in its order, which dirties its pages
//! for several each. Whoever lists a device's commands looks through the newest as well; they lie side by side.

use rusqlite::{Connection, params};

use super::{
    fault::Fault,
    limits::{SORTED_AT_ONCE_MAX, UNSORTED_MAX},
};

/// Sorts some of the newest commands, where there are many. `newest` is the last row of `commands`.
pub(super) fn sort(conn: &Connection, newest: i64) -> Result<(), Fault> {
    let sorted: i64 = conn.prepare_cached(SELECT_SORTED)?.query_row([], |row| row.get(0))?;
    if newest.saturating_sub(sorted) < UNSORTED_MAX {
        return Ok(());
    }
    let until = newest.min(sorted.saturating_add(SORTED_AT_ONCE_MAX));
    conn.prepare_cached(INSERT_SORTED)?.execute(params![sorted, until])?;
    conn.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'by_device'")?
        .execute(params![until])?;
    Ok(())
}

const SELECT_SORTED: &str = "SELECT value FROM meta WHERE name = 'by_device'";
pub(super) const INSERT_SORTED: &str = "
    INSERT INTO commands_of_devices (tenant, device, id, row)
    SELECT tenant, device, id, row FROM commands WHERE row > ?1 AND row <= ?2 ORDER BY tenant, device, id";
/// A condition on a command `c`: it is not in the table yet.
pub(super) const IS_NEW: &str = "c.row > (SELECT value FROM meta WHERE name = 'by_device')";
