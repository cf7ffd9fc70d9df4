//! The statements of one transaction.

use std::{
    borrow::Cow,
    collections::btree_map::{BTreeMap, Entry},
};

use rusqlite::{CachedStatement, Connection};

/// Statements of a connection, each of which is looked for once, however often it runs: to find one among those that the
/// connection has prepared takes a copy of its text and a new place in the order of use, each time.
pub(super) struct Statements<'a> {
    conn: &'a Connection,
    held: BTreeMap<Cow<'static, str>, CachedStatement<'a>>,
}

impl<'a> Statements<'a> {
    pub(super) fn of(conn: &'a Connection) -> Self {
        Self { conn, held: BTreeMap::new() }
    }

    /// The statement of this text, which nobody has left running: rows borrow it.
    pub(super) fn get(
        &mut self,
        sql: impl Into<Cow<'static, str>>,
    ) -> rusqlite::Result<&mut CachedStatement<'a>> {
        Ok(match self.held.entry(sql.into()) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(place) => {
                let statement = self.conn.prepare_cached(place.key())?;
                place.insert(statement)
            }
        })
    }
}
