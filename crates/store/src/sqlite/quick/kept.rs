//! What the database keeps of the quick way, and what a start makes of it.

use rusqlite::{Connection, OptionalExtension, params};
use utmos_core::time::{BootId, Timestamp};

use super::ring::RingId;

const FLOOR: &str = "reads_refused_up_to";
const MARK: &str = "reads_quick_up_to";
const BOOT: &str = "reads_boot";
const RING: &str = "reads_ring";

/// What the database keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// What was signed up to then is refused.
    pub(super) floor: Option<Timestamp>,
    /// What was signed up to then may have been answered before its nonce was in the database; `None` when nothing was, and
    /// after an orderly stop.
    pub(super) mark: Option<Timestamp>,
    /// The run of the machine in which that was.
    pub(super) boot: Option<[u8; 16]>,
    /// The ring in which those nonces are.
    pub(super) ring: Option<RingId>,
}

impl Kept {
    /// What is refused from now on. The file has every nonce that was answered as long as the machine has not been down since,
    /// whatever became of the process: what was written is the system's to keep, synced or not.
    pub(super) fn floor_at_start(&self, boot: BootId, found: Option<&RingId>) -> Option<Timestamp> {
        let is_whole = self.boot == Some(boot.0) && found.is_some() && self.ring.as_ref() == found;
        match is_whole {
            true => self.floor,
            false => self.floor.max(self.mark),
        }
    }

    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            floor: time(conn, FLOOR)?,
            mark: mark(conn)?,
            boot: bytes(conn, BOOT)?,
            ring: bytes(conn, RING)?,
        })
    }

    pub(super) fn write(&self, conn: &Connection) -> rusqlite::Result<()> {
        put_time(conn, FLOOR, self.floor)?;
        put_time(conn, MARK, self.mark)?;
        for (name, value) in [(BOOT, self.boot), (RING, self.ring)] {
            conn.prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?
                .execute(params![name, value.unwrap_or_default()])?;
        }
        Ok(())
    }
}

pub(super) fn mark(conn: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    time(conn, MARK)
}

pub(super) fn put_mark(conn: &Connection, mark: Option<Timestamp>) -> rusqlite::Result<()> {
    put_time(conn, MARK, mark)
}

const SELECT: &str = "SELECT value FROM meta WHERE name = ?1";

fn time(conn: &Connection, name: &str) -> rusqlite::Result<Option<Timestamp>> {
    let millis = conn.prepare_cached(SELECT)?.query_row([name], |row| row.get(0)).optional()?;
    Ok(millis.map(Timestamp::from_millis))
}

fn bytes(conn: &Connection, name: &str) -> rusqlite::Result<Option<[u8; 16]>> {
    conn.prepare_cached(SELECT)?.query_row([name], |row| row.get(0)).optional()
}

fn put_time(conn: &Connection, name: &str, time: Option<Timestamp>) -> rusqlite::Result<()> {
    match time {
        Some(time) => conn
            .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?
            .execute(params![name, time.as_millis()])?,
        None => conn.prepare_cached("DELETE FROM meta WHERE name = ?1")?.execute([name])?,
    };
    Ok(())
}
