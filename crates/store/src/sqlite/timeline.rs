//! The timeline of a command: appended to, and read whole.

use rusqlite::{Connection, params};
use utmos_core::{evidence::Entry, id::CommandId, ports::StoreError};

use super::{batch::Batch, fault::Fault, fault::to_store_error, rows};
use crate::{entry::EntryRow, seal::Sealer};

pub(super) const SELECT_TIMELINE: &str = "
    SELECT t.lines, t.at, t.status_from, t.status_to, t.proof
    FROM lives l JOIN timeline t ON t.row = l.row
    WHERE l.id = ?1 ORDER BY t.n";

pub(super) fn append(
    batch: &mut Batch<'_>,
    row: i64,
    n: i64,
    entry: &EntryRow,
) -> Result<(), Fault> {
    batch.execute(
        "INSERT INTO timeline (row, n, at, status_from, status_to, proof, lines) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![row, n, entry.at, entry.from, entry.to, entry.proof, entry.lines],
    )?;
    batch.record_time(entry.latest);
    Ok(())
}

pub(super) fn read(
    conn: &Connection,
    sealer: &Sealer,
    id: CommandId,
) -> Result<Vec<Entry>, StoreError> {
    let sql = |err| to_store_error(&err);
    let mut select = conn.prepare_cached(SELECT_TIMELINE).map_err(sql)?;
    let mut found = select.query(params![id.uuid().as_bytes()]).map_err(sql)?;
    let key = sealer.data_key(id);
    let mut entries = Vec::new();
    while let Some(row) = found.next().map_err(sql)? {
        entries.extend(rows::entries(row, id, &key)?);
    }
    Ok(entries)
}
