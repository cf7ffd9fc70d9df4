//! The whole database looked at by its owner, and copied: reads every page, changes nothing.

use std::path::Path;

use rusqlite::{Connection, params};

use super::open::{self, OpenError, explain};

/// Faults of SQLite's that are told at most.
const FAULTS_MAX: u32 = 20;

/// What must hold between the tables, and how many rows break it.
const RULES: [(&str, &str); 10] = [
    (
        "commands without a state",
        "SELECT count(*) FROM commands c WHERE NOT EXISTS (SELECT 1 FROM lives l WHERE l.row = c.row AND l.id = c.id)",
    ),
    (
        "states without a command",
        "SELECT count(*) FROM lives l WHERE NOT EXISTS (SELECT 1 FROM commands c WHERE c.row = l.row)",
    ),
    (
        "commands without their idempotency key",
        "SELECT (SELECT count(*) FROM commands) - (SELECT count(*) FROM idempotency i JOIN commands c ON c.row = i.row)",
    ),
    (
        "commands whose timeline lacks lines",
        "SELECT count(*) FROM lives l
         LEFT JOIN (SELECT row, sum(lines) AS lines FROM timeline GROUP BY row) t ON t.row = l.row
         WHERE l.entries <> coalesce(t.lines, 0)",
    ),
    (
        "lines that no timeline leads to, or another's",
        "SELECT (SELECT count(*) FROM timeline WHERE line NOT IN (SELECT last_line FROM lives WHERE last_line IS NOT NULL
                     UNION ALL SELECT before FROM timeline WHERE before < line))
              + (SELECT count(*) FROM lives l JOIN timeline t ON t.line = l.last_line WHERE t.row <> l.row)
              + (SELECT count(*) FROM timeline t JOIN timeline b ON b.line = t.before WHERE b.row <> t.row OR b.n >= t.n)",
    ),
    (
        "commands that lists of a tenant miss or should not have",
        "SELECT (SELECT count(*) FROM commands c WHERE c.row <= (SELECT value FROM meta WHERE name = 'sorted')
                 AND NOT EXISTS (SELECT 1 FROM commands_of_tenants t
                     WHERE t.tenant = c.tenant AND t.id = c.id AND t.row = c.row))
              + (SELECT count(*) FROM commands_of_tenants t WHERE t.row > (SELECT value FROM meta WHERE name = 'sorted')
                 OR NOT EXISTS (SELECT 1 FROM commands c WHERE c.row = t.row AND c.id = t.id AND c.tenant = t.tenant))",
    ),
    (
        "commands that lists of a device miss or should not have",
        "SELECT (SELECT count(*) FROM commands c WHERE c.row <= (SELECT value FROM meta WHERE name = 'sorted')
                 AND NOT EXISTS (SELECT 1 FROM commands_of_devices d
                     WHERE d.tenant = c.tenant AND d.device = c.device AND d.id = c.id AND d.row = c.row))
              + (SELECT count(*) FROM commands_of_devices d WHERE d.row > (SELECT value FROM meta WHERE name = 'sorted')
                 OR NOT EXISTS (SELECT 1 FROM commands c WHERE c.row = d.row AND c.id = d.id AND c.tenant = d.tenant
                     AND c.device = d.device))",
    ),
    (
        "movements in the way of none",
        "SELECT count(*) FROM motions m WHERE NOT EXISTS (SELECT 1 FROM lives l WHERE l.row = m.row AND l.holds_motion = 1)",
    ),
    (
        "movements that do not stand in the way",
        "SELECT count(*) FROM lives l WHERE l.holds_motion = 1 AND NOT EXISTS (SELECT 1 FROM motions m WHERE m.row = l.row)",
    ),
    (
        "commands that lists of rare ends miss or should not have",
        "SELECT count(*) FROM lives l JOIN commands c ON c.row = l.row
         WHERE l.rare_of IS NOT CASE WHEN l.phase IN (4, 6, 7, 8) THEN c.tenant END",
    ),
];

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Examination {
    /// Everything that is wrong; empty when nothing is.
    pub faults: Vec<String>,
    /// How many commands can be counted.
    pub commands: Option<i64>,
    /// How many of them are not ended.
    pub open: Option<i64>,
    /// Its schema, where that is older than the program's: then its pages were looked at, and not what is between its tables.
    pub older: Option<i64>,
}

/// Looks at the whole file: its log, every page and index, and what must hold between its tables. Reads all of it. A
/// server may run on it meanwhile.
///
/// # Errors
/// When there is no such file, or it is none of ours.
pub fn examine(path: &Path) -> Result<Examination, OpenError> {
    let mut found = Examination::default();
    let conn = match check_files(path).and_then(|()| to_read(path)) {
        Ok(conn) => conn,
        Err(err @ (OpenError::Damaged { .. } | OpenError::Log { .. } | OpenError::Lost { .. })) => {
            found.faults.push(err.to_string());
            return Ok(found);
        }
        Err(err) => return Err(err),
    };
    let check = format!("PRAGMA integrity_check({FAULTS_MAX})");
    match lines(&conn, &check) {
        Ok(lines) => found.faults.extend(lines.into_iter().filter(|line| line != "ok")),
        Err(err) => found.faults.push(format!("it cannot be read to its end: {err}")),
    }
    // What holds between the tables of an older schema is not what holds between those of today.
    let known = i64::try_from(open::SCHEMA.migrations.len()).unwrap_or(i64::MAX);
    found.older = open::version(&conn).ok().filter(|version| *version < known);
    for (what, sql) in RULES.iter().filter(|_| found.older.is_none()) {
        match conn.query_row(sql, [], |row| row.get::<_, i64>(0)) {
            Ok(0) => {}
            Ok(count) => found.faults.push(format!("{what}: {count}")),
            Err(err) => found.faults.push(format!("{what}: cannot be counted: {err}")),
        }
    }
    let count = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).ok();
    found.commands = count("SELECT count(*) FROM commands");
    found.open = count("SELECT count(*) FROM lives WHERE needs_care = 1");
    Ok(found)
}

/// Copies the database as it is at this moment into a new file. A server may run on it meanwhile. A damaged one is not
/// copied: the copy would be no backup.
///
/// # Errors
/// When it cannot be read to its end, or the new file is there already or cannot be written.
pub fn back_up(path: &Path, into: &Path) -> Result<(), OpenError> {
    check_files(path)?;
    let conn = to_read(path)?;
    open::create_new(into)?;
    let copied = conn.execute("VACUUM INTO ?1", params![into.to_string_lossy()]);
    if copied.is_err() {
        // Half a copy must not look like one.
        drop(std::fs::remove_file(into));
    }
    copied.map(drop).map_err(|err| explain(path, err))
}

/// What must be seen before SQLite opens the file.
fn check_files(path: &Path) -> Result<(), OpenError> {
    open::check_not_lost(path, &[])?;
    open::check_log(path)
}

fn to_read(path: &Path) -> Result<Connection, OpenError> {
    let conn = open::connect_and_leave(path).map_err(|err| explain(path, err))?;
    open::check_ours(&conn, path)?;
    Ok(conn)
}

fn lines(conn: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = conn.prepare(sql)?;
    let lines = statement.query_map([], |row| row.get(0))?;
    lines.collect()
}
