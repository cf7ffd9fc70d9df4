//! What the database keeps of the quick way, and what a start makes of it.

use rusqlite::{Connection, OptionalExtension, ToSql, params, types::FromSql};
use utmos_core::time::{BootId, Timestamp};

use super::{
    ring::RingId,
    span::{Span, Spans},
};

const REFUSED: &str = "reads_refused";
const FROM: &str = "reads_quick_from";
const UP_TO: &str = "reads_quick_up_to";
const BOOT: &str = "reads_boot";
const RING: &str = "reads_ring";

/// What the database keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// What was signed then is refused.
    pub(super) refused: Spans,
    /// What was signed then may have been answered before its nonce was in the database; `None` when nothing was, and after an
    /// orderly stop.
    pub(super) quick: Option<Span>,
    /// The run of the machine in which that was.
    pub(super) boot: Option<[u8; 16]>,
    /// The ring in which those nonces are.
    pub(super) ring: Option<RingId>,
}

impl Kept {
    /// What is refused from now on. The file has every nonce that was answered as long as the machine has not been down since,
    /// whatever became of the process: what was written is the system's to keep, synced or not.
    pub(super) fn refused_at_start(&self, boot: BootId, found: Option<&RingId>) -> Spans {
        let is_whole = self.boot == Some(boot.0) && found.is_some() && self.ring.as_ref() == found;
        match self.quick {
            Some(span) if !is_whole => self.refused.clone().with(span),
            Some(_) | None => self.refused.clone(),
        }
    }

    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let refused: Option<Vec<u8>> = value(conn, REFUSED)?;
        let from: Option<i64> = value(conn, FROM)?;
        let up_to: Option<i64> = value(conn, UP_TO)?;
        let quick = up_to.map(|up_to| Span {
            from: Timestamp::from_millis(from.unwrap_or(i64::MIN)),
            to: Timestamp::from_millis(up_to),
        });
        Ok(Self {
            refused: refused.map_or_else(Spans::default, |bytes| Spans::from_bytes(&bytes)),
            quick,
            boot: value(conn, BOOT)?,
            ring: value(conn, RING)?,
        })
    }

    pub(super) fn write(&self, conn: &Connection) -> rusqlite::Result<()> {
        put(conn, REFUSED, Some(self.refused.to_bytes()).filter(|bytes| !bytes.is_empty()))?;
        put_quick(conn, self.quick)?;
        put(conn, BOOT, self.boot)?;
        put(conn, RING, self.ring)
    }
}

pub(super) fn put_quick(conn: &Connection, span: Option<Span>) -> rusqlite::Result<()> {
    put(conn, FROM, span.map(|span| span.from.as_millis()))?;
    put(conn, UP_TO, span.map(|span| span.to.as_millis()))
}

fn value<T: FromSql>(conn: &Connection, name: &str) -> rusqlite::Result<Option<T>> {
    conn.prepare_cached("SELECT value FROM meta WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

fn put<T: ToSql>(conn: &Connection, name: &str, value: Option<T>) -> rusqlite::Result<()> {
    match value {
        Some(value) => conn
            .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?
            .execute(params![name, value])?,
        None => conn.prepare_cached("DELETE FROM meta WHERE name = ?1")?.execute([name])?,
    };
    Ok(())
}
