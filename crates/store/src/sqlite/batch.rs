//! One transaction in the making, shared by the writes of a batch.

use std::borrow::Cow;

use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, params};

use super::{fault::Fault, nonces::Nonces, sorted, statements::Statements};

pub(super) struct Batch<'a> {
    pub(super) conn: &'a Connection,
    pub(super) statements: Statements<'a>,
    pub(super) nonces: &'a mut Nonces,
    /// The row of the next command, once it was asked for.
    next_row: Option<i64>,
    newest: i64,
    registry_changed: bool,
}

impl<'a> Batch<'a> {
    /// `newest` is the latest wall time known to be on record.
    pub(super) fn new(conn: &'a Connection, nonces: &'a mut Nonces, newest: i64) -> Self {
        let statements = Statements::of(conn);
        Self { conn, statements, nonces, next_row: None, newest, registry_changed: false }
    }

    pub(super) fn statement(
        &mut self,
        sql: impl Into<Cow<'static, str>>,
    ) -> Result<&mut CachedStatement<'a>, Fault> {
        Ok(self.statements.get(sql)?)
    }

    /// Runs a statement that changes rows; answers how many.
    pub(super) fn execute(
        &mut self,
        sql: impl Into<Cow<'static, str>>,
        params: impl Params,
    ) -> Result<usize, Fault> {
        Ok(self.statement(sql)?.execute(params)?)
    }

    /// A row number no command has. No other process can take it: the transaction holds the write lock.
    pub(super) fn new_row(&mut self) -> Result<i64, Fault> {
        let row = match self.next_row {
            Some(row) => row,
            None => {
                let last: i64 = self.statement(LAST_ROW)?.query_row([], |row| row.get(0))?;
                last.saturating_add(1)
            }
        };
        self.next_row = Some(row + 1);
        Ok(row)
    }

    /// Notes a wall time that goes on record.
    pub(super) fn record_time(&mut self, millis: i64) {
        self.newest = self.newest.max(millis);
    }

    pub(super) fn registry_has_changed(&mut self) {
        self.registry_changed = true;
    }

    /// Does what can wait.
    pub(super) fn tidy(&self) -> Result<(), Fault> {
        match self.next_row {
            Some(next) => sorted::sort(self.conn, next - 1),
            None => Ok(()),
        }
    }

    /// Writes what the batch owes as a whole. Answers the latest wall time on record.
    pub(super) fn finish(mut self, newest_before: i64) -> Result<i64, Fault> {
        let newest = self.newest;
        if newest > newest_before {
            self.execute(
                "INSERT INTO meta (name, value) VALUES ('newest_record', ?1)
                 ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
                params![newest],
            )?;
        }
        if self.registry_changed {
            self.execute(
                "INSERT INTO meta (name, value) VALUES ('generation', 1)
                 ON CONFLICT (name) DO UPDATE SET value = value + 1",
                [],
            )?;
        }
        Ok(newest)
    }
}

/// Of a database out of which was saved what could be read, any of the tables may lack its end.
pub(super) const LAST_ROW: &str = "
    SELECT max(coalesce((SELECT max(row) FROM commands), 0), coalesce((SELECT max(row) FROM lives), 0),
               coalesce((SELECT value FROM meta WHERE name = 'sorted'), 0))";

/// The latest wall time on record.
pub(super) fn newest_record(conn: &Connection) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT value FROM meta WHERE name = 'newest_record'")?
        .query_row([], |row| row.get(0))
        .optional()
}
