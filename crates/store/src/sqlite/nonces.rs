//! Nonces that were spent: on disk in the order they came, and in memory, where they are looked up.
//!
//! An index over them would be over random keys: every request would dirty a page of its own. On disk they are only
//! appended to and read again at a start; a nonce is in memory because it is on disk, never instead of it. Those of a
//! transaction that are remembered as long share a row. The newest row is never deleted, so that numbers only rise and what
//! another process adds is always newer than what is known.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rusqlite::{Connection, Row, params};
use utmos_core::{ports::Nonce, signing::NonceUse, time::Timestamp};

use super::{
    fault::Fault,
    limits::{BATCH_MAX, FORGET_BATCH, KEYS_PER_ROW_MAX},
    quick::Desk,
};

type Key = [u8; 16];

/// The keys in memory. The writer changes them, and whoever answers before the disk ([`super::quick`]); others may ask,
/// whatever the disk does.
#[derive(Clone, Default)]
pub(super) struct KnownNonces(Arc<Mutex<HashSet<Key>>>);

impl KnownNonces {
    fn lock(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn contains(&self, nonce: &NonceUse) -> bool {
        self.lock().contains(&nonce.key)
    }

    /// Answers whether it is new.
    pub(super) fn insert(&self, key: Key) -> bool {
        self.lock().insert(key)
    }

    pub(super) fn remove(&self, key: &Key) {
        self.lock().remove(key);
    }
}

/// The writer's memory of what the table holds.
#[derive(Default)]
pub(super) struct Nonces {
    known: KnownNonces,
    /// Those that were spent before they are in the table.
    quick: Arc<Desk>,
    /// The number of the newest that is known.
    last: i64,
    /// Whether this transaction has looked for what other processes added.
    is_up_to_date: bool,
    /// What this transaction added, to be undone with it.
    added: Vec<Key>,
    /// What of it is not in the table yet.
    owed: Vec<NonceUse>,
    /// Each is put into the table at once, because it did not take some together: so that only those fail that have one.
    one_by_one: bool,
    /// What it deletes. It is known until that stands: spent once more before, it would be there twice, and as one that is over.
    forgotten: Vec<Key>,
    last_before: i64,
}

impl Nonces {
    pub(super) fn load(conn: &Connection, quick: Arc<Desk>) -> rusqlite::Result<Self> {
        let mut nonces = Self { quick, ..Self::default() };
        nonces.read_after(conn, 0)?;
        Ok(nonces)
    }

    /// For those who only ask.
    pub(super) fn known(&self) -> KnownNonces {
        self.known.clone()
    }

    /// A transaction begins.
    pub(super) fn begin(&mut self) {
        self.is_up_to_date = false;
        self.last_before = self.last;
        self.added.clear();
        self.owed.clear();
        self.forgotten.clear();
    }

    /// The transaction stands.
    pub(super) fn settle(&mut self) {
        self.quick.saved();
        self.added.clear();
        let mut known = self.known.lock();
        for key in self.forgotten.drain(..) {
            known.remove(&key);
        }
    }

    /// The transaction came to nothing.
    pub(super) fn undo(&mut self) {
        self.quick.not_saved();
        let mut known = self.known.lock();
        for key in self.added.drain(..) {
            known.remove(&key);
        }
        drop(known);
        self.owed.clear();
        self.forgotten.clear();
        self.last = self.last_before;
    }

    pub(super) fn spend(&mut self, conn: &Connection, nonce: NonceUse) -> Result<Nonce, Fault> {
        self.catch_up(conn)?;
        if !self.known.insert(nonce.key) {
            return Ok(Nonce::Replayed);
        }
        self.added.push(nonce.key);
        if self.one_by_one {
            self.record(conn, nonce.expires_at, &nonce.key)?;
        } else {
            self.owed.push(nonce);
        }
        Ok(Nonce::Spent)
    }

    /// Puts into the table what the transaction spent. Has to be done before it is committed.
    pub(super) fn pay(&mut self, conn: &Connection) -> Result<(), Fault> {
        let owed = std::mem::take(&mut self.owed);
        self.record_all(conn, owed)
    }

    /// The table does not take what a transaction owes.
    pub(super) fn go_one_by_one(&mut self) {
        self.one_by_one = true;
    }

    /// Takes into the table what was spent before it was there, some of it.
    pub(super) fn take_in(&mut self, conn: &Connection) -> Result<(), Fault> {
        let waiting = self.quick.take(BATCH_MAX);
        if !waiting.is_empty() {
            self.catch_up(conn)?;
        }
        self.record_all(conn, waiting)
    }

    /// The table does not take them in. They stay where they are until the next start, and hold up nobody else.
    pub(super) fn leave_quick(&self) {
        self.quick.give_up();
    }

    fn record_all(&mut self, conn: &Connection, nonces: Vec<NonceUse>) -> Result<(), Fault> {
        let mut together: BTreeMap<Timestamp, Vec<u8>> = BTreeMap::new();
        for nonce in nonces {
            together.entry(nonce.expires_at).or_default().extend(nonce.key);
        }
        for (expires_at, keys) in together {
            for keys in keys.chunks(KEYS_PER_ROW_MAX * size_of::<Key>()) {
                self.record(conn, expires_at, keys)?;
            }
        }
        Ok(())
    }

    fn record(
        &mut self,
        conn: &Connection,
        expires_at: Timestamp,
        keys: &[u8],
    ) -> Result<(), Fault> {
        conn.prepare_cached("INSERT INTO nonces (expires_at, keys) VALUES (?1, ?2)")?
            .execute(params![expires_at.as_millis(), keys])?;
        self.last = conn.last_insert_rowid();
        Ok(())
    }

    /// Forgets some of those whose time is over. Answers how many, and whether there may be more.
    pub(super) fn forget(
        &mut self,
        conn: &Connection,
        at: Timestamp,
    ) -> Result<(usize, bool), Fault> {
        self.catch_up(conn)?;
        let most = i64::try_from(FORGET_BATCH).unwrap_or(i64::MAX);
        let mut delete = conn.prepare_cached(DELETE_NONCES)?;
        let mut gone = delete.query(params![at.as_millis(), most])?;
        let (mut rows, before) = (0, self.forgotten.len());
        while let Some(row) = gone.next()? {
            rows += 1;
            self.forgotten.extend(keys_of(row)?);
        }
        Ok((self.forgotten.len() - before, rows == FORGET_BATCH))
    }

    /// Another process may have spent some.
    pub(super) fn catch_up(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        if self.is_up_to_date {
            return Ok(());
        }
        let newest = newest(conn)?;
        if newest > self.last {
            self.read_after(conn, self.last)?;
        }
        self.last_before = self.last;
        self.is_up_to_date = true;
        Ok(())
    }

    fn read_after(&mut self, conn: &Connection, last: i64) -> rusqlite::Result<()> {
        self.last = last;
        let mut select = conn.prepare_cached(SELECT_AFTER)?;
        let mut rows = select.query(params![last])?;
        while let Some(row) = rows.next()? {
            self.known.lock().extend(keys_of(row)?);
            self.last = row.get("n")?;
        }
        Ok(())
    }
}

/// The keys of a row. What is no whole key at its end was written by nobody.
fn keys_of(row: &Row<'_>) -> rusqlite::Result<Vec<Key>> {
    let keys: Vec<u8> = row.get("keys")?;
    Ok(keys.as_chunks().0.to_vec())
}

fn newest(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("SELECT coalesce(max(n), 0) FROM nonces")?.query_row([], |row| row.get(0))
}

pub(super) const SELECT_AFTER: &str = "SELECT n, keys FROM nonces WHERE n > ?1 ORDER BY n";
pub(super) const DELETE_NONCES: &str = "DELETE FROM nonces WHERE n IN (SELECT n FROM nonces WHERE expires_at < ?1 AND n < (SELECT max(n) FROM nonces) ORDER BY expires_at LIMIT ?2) RETURNING keys";

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn place() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        let sql = include_str!("../../migrations/sqlite/0001_first.sql");
        conn.execute_batch(sql).unwrap();
        conn.execute_batch(
            "INSERT INTO nonces (key, expires_at) VALUES (x'00112233445566778899aabbccddeeff', 7)",
        )
        .unwrap();
        conn.execute_batch(include_str!("../../migrations/sqlite/0002_nonces_in_order.sql"))
            .unwrap();
        conn.execute_batch(include_str!("../../migrations/sqlite/0010_nonces_together.sql"))
            .unwrap();
        conn
    }

    fn nonce(number: u8, expires_at: i64) -> NonceUse {
        NonceUse { key: [number; 16], expires_at: Timestamp::from_millis(expires_at) }
    }

    #[test]
    fn what_was_spent_before_the_table_changed_stays_spent() {
        let conn = place();
        let mut nonces = Nonces::load(&conn, Arc::default()).unwrap();
        nonces.begin();
        let key = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.to_be_bytes();
        let again = NonceUse { key, expires_at: Timestamp::from_millis(9) };
        assert_eq!(nonces.spend(&conn, again).unwrap(), Nonce::Replayed);
    }

    #[test]
    fn what_is_rolled_back_was_neither_spent_nor_forgotten() {
        let conn = place();
        let mut nonces = Nonces::load(&conn, Arc::default()).unwrap();
        nonces.begin();
        assert_eq!(nonces.spend(&conn, nonce(1, 10)).unwrap(), Nonce::Spent);
        nonces.pay(&conn).unwrap();
        nonces.settle();
        conn.execute_batch("BEGIN").unwrap();
        nonces.begin();
        assert_eq!(nonces.spend(&conn, nonce(2, 10)).unwrap(), Nonce::Spent);
        nonces.pay(&conn).unwrap();
        let gone = nonces.forget(&conn, Timestamp::from_millis(11)).unwrap();
        assert_eq!(gone, (2, false), "the newest stays");
        conn.execute_batch("ROLLBACK").unwrap();
        nonces.undo();
        nonces.begin();
        assert_eq!(nonces.spend(&conn, nonce(1, 10)).unwrap(), Nonce::Replayed);
        assert_eq!(nonces.spend(&conn, nonce(2, 10)).unwrap(), Nonce::Spent);
        assert_eq!(nonces.spend(&conn, nonce(2, 10)).unwrap(), Nonce::Replayed);
    }

    #[test]
    fn those_of_a_transaction_share_rows_by_their_end_and_are_known_after_a_start() {
        let conn = place();
        let mut nonces = Nonces::load(&conn, Arc::default()).unwrap();
        nonces.begin();
        for number in 1..=200 {
            let end = if number % 2 == 0 { 20 } else { 30 };
            assert_eq!(nonces.spend(&conn, nonce(number, end)).unwrap(), Nonce::Spent);
        }
        assert_eq!(nonces.spend(&conn, nonce(7, 30)).unwrap(), Nonce::Replayed);
        nonces.pay(&conn).unwrap();
        nonces.settle();
        let rows = || conn.query_row("SELECT count(*) FROM nonces", [], |row| row.get::<_, i64>(0));
        assert_eq!(rows(), Ok(3));

        let mut nonces = Nonces::load(&conn, Arc::default()).unwrap();
        nonces.begin();
        for number in 1..=200 {
            assert_eq!(nonces.spend(&conn, nonce(number, 30)).unwrap(), Nonce::Replayed);
        }
        assert_eq!(nonces.spend(&conn, nonce(201, 30)).unwrap(), Nonce::Spent);
        nonces.pay(&conn).unwrap();
        nonces.settle();
        let gone = nonces.forget(&conn, Timestamp::from_millis(21)).unwrap();
        nonces.settle();
        assert_eq!((gone, rows()), ((101, false), Ok(2)));
        nonces.begin();
        assert_eq!(nonces.spend(&conn, nonce(2, 30)).unwrap(), Nonce::Spent);
        assert_eq!(nonces.spend(&conn, nonce(3, 30)).unwrap(), Nonce::Replayed);
    }

    #[test]
    fn what_does_not_go_together_goes_one_by_one() {
        let conn = place();
        let mut nonces = Nonces::load(&conn, Arc::default()).unwrap();
        nonces.begin();
        assert_eq!(nonces.spend(&conn, nonce(1, 10)).unwrap(), Nonce::Spent);
        conn.execute_batch("PRAGMA query_only = ON").unwrap();
        assert!(nonces.pay(&conn).is_err());
        nonces.undo();
        nonces.go_one_by_one();
        nonces.begin();
        assert!(nonces.spend(&conn, nonce(1, 10)).is_err(), "whoever has one is told");
        nonces.pay(&conn).unwrap();
    }
}
