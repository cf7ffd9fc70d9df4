//! `commands_of_tenants` and `commands_of_devices`: what lists of commands are read from.
//!
//! Fifty docks that are told something in a moment have their newest commands on fifty pages of any index by device, and as
//! many tenants theirs. So the newest commands are in none: they go into these tables some hundreds at a time, in their
//! order, which dirties a page for several each. Whoever lists commands looks through the newest as well; they lie side
//! by side.

use rusqlite::{Connection, params};

use super::{
    fault::Fault,
    limits::{SORTED_AT_ONCE_MAX, SORTED_AT_ONCE_MIN, SPREAD, UNSORTED_MAX},
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
    let unsorted = newest.saturating_sub(sorted);
    if unsorted < UNSORTED_MAX {
        return Ok(());
    }
    let portion = portion(conn, sorted)?.max(unsorted - UNSORTED_MAX).min(SORTED_AT_ONCE_MAX);
    let until = newest.min(sorted.saturating_add(portion));
    for insert in [SORT_BY_TENANT, SORT_BY_DEVICE] {
        conn.prepare_cached(insert)?.execute(params![sorted, until])?;
    }
    conn.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'sorted'")?
        .execute(params![until])?;
    Ok(())
}

/// How many are sorted at once: as many as there are where they are of few devices, and few where nearly each is of another. There
/// a page is dirtied for each however many there are, and with all of them everybody would wait for hundreds of pages.
fn portion(conn: &Connection, sorted: i64) -> Result<i64, Fault> {
    let sample = params![sorted, sorted.saturating_add(SORTED_AT_ONCE_MIN)];
    let devices: i64 = conn.prepare_cached(COUNT_DEVICES)?.query_row(sample, |row| row.get(0))?;
    let is_spread = devices * SPREAD.1 >= SORTED_AT_ONCE_MIN * SPREAD.0;
    Ok(if is_spread { SORTED_AT_ONCE_MIN } else { UNSORTED_MAX })
}

const SELECT_SORTED: &str = "SELECT value FROM meta WHERE name = 'sorted'";
pub(super) const COUNT_DEVICES: &str =
    "SELECT count(DISTINCT device) FROM commands WHERE row > ?1 AND row <= ?2";
pub(super) const SORT_BY_TENANT: &str = "
    INSERT INTO commands_of_tenants (tenant, id, row)
    SELECT tenant, id, row FROM commands WHERE row > ?1 AND row <= ?2 ORDER BY tenant, id";
pub(super) const SORT_BY_DEVICE: &str = "
    INSERT INTO commands_of_devices (tenant, device, id, row)
    SELECT tenant, device, id, row FROM commands WHERE row > ?1 AND row <= ?2 ORDER BY tenant, device, id";
/// A condition on a command `c`: it is not in the tables yet.
pub(super) const IS_NEW: &str = "c.row > (SELECT value FROM meta WHERE name = 'sorted')";

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// So many commands, in turn of so many devices, that come so many at a time. Answers how many were sorted at once, each time.
    fn portions(devices: i64, commands: i64, at_once: usize) -> Vec<i64> {
        let conn = Connection::open_in_memory().unwrap();
        let tables = "
            CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER);
            CREATE TABLE commands (row INTEGER PRIMARY KEY, tenant INTEGER, device TEXT, id INTEGER);
            CREATE TABLE commands_of_tenants (tenant INTEGER, id INTEGER, row INTEGER, PRIMARY KEY (tenant, id));
            CREATE TABLE commands_of_devices (tenant INTEGER, device TEXT, id INTEGER, row INTEGER, PRIMARY KEY (tenant, device, id));";
        conn.execute_batch(tables).unwrap();
        begin(&conn).unwrap();
        let sorted = || conn.query_row(SELECT_SORTED, [], |row| row.get::<_, i64>(0)).unwrap();
        let mut portions = Vec::new();
        for row in 1..=commands {
            let device = (row % devices).to_string();
            let insert = "INSERT INTO commands (row, tenant, device, id) VALUES (?1, 1, ?2, ?1)";
            conn.execute(insert, params![row, device]).unwrap();
            if row % i64::try_from(at_once).unwrap() == 0 {
                let before = sorted();
                sort(&conn, row).unwrap();
                let after = sorted();
                assert!(row - after <= UNSORTED_MAX, "{row} of which {after}");
                portions.extend((after > before).then_some(after - before));
            }
        }
        for table in ["commands_of_tenants", "commands_of_devices"] {
            let count = format!("SELECT count(*) FROM {table}");
            let count: i64 = conn.query_row(&count, [], |row| row.get(0)).unwrap();
            assert_eq!(count, sorted(), "{table}");
        }
        portions
    }

    #[test]
    fn what_is_spread_over_many_devices_is_sorted_in_small_portions() {
        assert_eq!(portions(10, 1_100, 1), [UNSORTED_MAX, UNSORTED_MAX]);
        let spread = portions(1_000, 1_100, 1);
        assert_eq!(spread.len(), 10, "{spread:?}");
        assert!(spread.iter().all(|portion| *portion == SORTED_AT_ONCE_MIN), "{spread:?}");
    }

    #[test]
    fn as_many_are_sorted_as_come_in() {
        let spread = portions(1_000, 4_096, 256);
        assert!(spread.contains(&256), "{spread:?}");
    }
}
