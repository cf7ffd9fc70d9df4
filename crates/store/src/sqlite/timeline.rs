//! The timeline of a command: appended to, and read whole.
//!
//! Lines lie in the order they came, whoever's they are, so that those of a moment share pages. Each row leads to the one before
//! it of the same command; the command's life leads to the newest.

use rusqlite::{Connection, params};
use utmos_core::{evidence::Entry, id::CommandId, ports::StoreError};

use super::{batch::Batch, fault::Fault, fault::to_store_error, rows};
use crate::{entry::EntryRow, seal::Sealer};

/// Newest first. What is before a line has a smaller number and is of the same command, whatever is damaged.
pub(super) const SELECT_TIMELINE: &str = "
    WITH RECURSIVE chain (line, row) AS (
        SELECT last_line, row FROM lives WHERE id = ?1
        UNION ALL SELECT t.before, t.row FROM chain CROSS JOIN timeline t ON t.line = chain.line AND t.row = chain.row
            WHERE t.before < t.line)
    SELECT t.lines, t.at, t.status_from, t.status_to, t.proof
    FROM chain CROSS JOIN timeline t ON t.line = chain.line AND t.row = chain.row";

/// Where a timeline ends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct End {
    /// How many lines it has.
    pub(super) lines: i64,
    /// The newest row.
    pub(super) last: Option<i64>,
}

/// Puts lines at the end of a command's timeline.
pub(super) fn append(
    batch: &mut Batch<'_>,
    row: i64,
    end: &mut End,
    entry: &EntryRow,
) -> Result<(), Fault> {
    batch.execute(
        "INSERT INTO timeline (row, before, n, lines, at, status_from, status_to, proof)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![row, end.last, end.lines, entry.lines, entry.at, entry.from, entry.to, entry.proof],
    )?;
    end.last = Some(batch.conn.last_insert_rowid());
    end.lines += i64::from(entry.lines);
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
    let mut rows = Vec::new();
    while let Some(row) = found.next().map_err(sql)? {
        rows.push(rows::entries(row, id, &key)?);
    }
    Ok(rows.into_iter().rev().flatten().collect())
}
