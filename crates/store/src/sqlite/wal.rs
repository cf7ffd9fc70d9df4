//! Looks at the write-ahead log before SQLite does. SQLite reads it up to the first frame that does not fit and silently
//! drops the rest: right for a write that a crash cut off, wrong for damage in the middle, behind which commands may stand
//! that were accepted. And it takes any log that lies beside the file, also one of another database.
//!
//! The format: <https://www.sqlite.org/fileformat2.html#walformat>.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// Of checksums in big-endian words; the other kind has a zero for the last bit.
const MAGIC: u32 = 0x377f_0683;
/// Where a database file says how long its pages are, and whose it is.
const PAGE_BYTES_AT: usize = 16;
const APPLICATION_ID_AT: usize = 68;
const DATABASE_HEADER_BYTES: usize = 100;

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalFault {
    /// It belongs to another database.
    Foreign,
    /// Something in it was damaged after it was written.
    Damaged {
        /// The first frame that cannot be read, counted from 1; 0 is the log's head.
        frame: usize,
    },
}

impl fmt::Display for WalFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("belongs to another database"),
            Self::Damaged { frame: 0 } => f.write_str("has a damaged head"),
            Self::Damaged { frame } => {
                write!(f, "is damaged at frame {frame}, with complete writes behind it")
            }
        }
    }
}

/// The log beside a database file.
pub(super) fn path_of(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    path.into()
}

/// Looks at the log beside `database`, if there is one. While another process writes to it, what is found must be found
/// again with the write lock held before it counts.
pub(super) fn look(database: &Path, application_id: u32) -> io::Result<Option<WalFault>> {
    let log = match std::fs::read(path_of(database)) {
        Ok(log) => log,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err),
    };
    let mut head = Vec::with_capacity(DATABASE_HEADER_BYTES);
    File::open(database)?.take(DATABASE_HEADER_BYTES as u64).read_to_end(&mut head)?;
    Ok(judge(&log, &head, application_id))
}

/// Sums of a chain of frames.
type Sums = (u32, u32);

struct Log<'a> {
    bytes: &'a [u8],
    page_bytes: usize,
    is_big_endian: bool,
}

fn judge(log: &[u8], database_head: &[u8], application_id: u32) -> Option<WalFault> {
    let database_page_bytes = match word16(database_head, PAGE_BYTES_AT)? {
        1 => 65_536,
        bytes => usize::from(bytes),
    };
    if log.len() < HEADER_BYTES + FRAME_HEADER_BYTES || database_page_bytes < 512 {
        return None;
    }
    let magic = word(log, 0)?;
    let page_bytes = usize::try_from(word(log, 8)?).ok()?;
    let is_big_endian = magic == MAGIC;
    let sums = summed((0, 0), log.get(..HEADER_BYTES - 8)?, is_big_endian);
    let is_head_whole = magic | 1 == MAGIC && Some(sums) == sums_at(log, HEADER_BYTES - 8);
    if !is_head_whole {
        // A crash right at its making leaves a head without writes behind it.
        let log = Log { bytes: log, page_bytes: database_page_bytes, is_big_endian: false };
        let has_writes = log.has_two_writes_after(0, None);
        return has_writes.then_some(WalFault::Damaged { frame: 0 });
    }
    if page_bytes != database_page_bytes {
        return Some(WalFault::Foreign);
    }
    let salts = (word(log, 16)?, word(log, 20)?);
    let log = Log { bytes: log, page_bytes, is_big_endian };
    let mut sums = sums;
    let mut number = 0;
    while let Some(frame) = log.frame(number) {
        let next = log.summed_frame(sums, frame);
        if salts_of(frame) != Some(salts) || sums_at(frame, 16) != Some(next) {
            break;
        }
        let is_first_page = word(frame, 0) == Some(1);
        let page = frame.get(FRAME_HEADER_BYTES..)?;
        if is_first_page && word(page, APPLICATION_ID_AT) != Some(application_id) {
            return Some(WalFault::Foreign);
        }
        sums = next;
        number += 1;
    }
    log.has_two_writes_after(number, Some(salts)).then_some(WalFault::Damaged { frame: number + 1 })
}

impl<'a> Log<'a> {
    /// The frame of this number, counted from 0, with its page.
    fn frame(&self, number: usize) -> Option<&'a [u8]> {
        let length = FRAME_HEADER_BYTES + self.page_bytes;
        let from = HEADER_BYTES + number.checked_mul(length)?;
        self.bytes.get(from..from.checked_add(length)?)
    }

    fn summed_frame(&self, sums: Sums, frame: &[u8]) -> Sums {
        let (head, page) = frame.split_at(FRAME_HEADER_BYTES);
        let sums = summed(sums, head.get(..8).unwrap_or_default(), self.is_big_endian);
        summed(sums, page, self.is_big_endian)
    }

    /// Whether behind this frame stands a complete write that another one was chained to. The other begins only when
    /// the first is on the disk, so such a pair was not left by a crash. A write that failed and was rolled back leaves at
    /// most one of them: the next begins where it began.
    fn has_two_writes_after(&self, number: usize, salts: Option<(u32, u32)>) -> bool {
        let (mut before, mut number): (Option<&[u8]>, _) = (self.frame(number), number + 1);
        while let (Some(last), Some(frame)) = (before, self.frame(number)) {
            let is_one_log = salts_of(last) == salts_of(frame)
                && salts.is_none_or(|salts| salts_of(frame) == Some(salts));
            // The number of pages of the database after a write stands in its last frame alone.
            let ends_a_write = word(last, 4) != Some(0);
            if is_one_log
                && ends_a_write
                && sums_at(last, 16).map(|sums| self.summed_frame(sums, frame))
                    == sums_at(frame, 16)
            {
                return true;
            }
            before = Some(frame);
            number += 1;
        }
        false
    }
}

fn summed((mut one, mut two): Sums, bytes: &[u8], is_big_endian: bool) -> Sums {
    let word = |bytes: &[u8; 4]| match is_big_endian {
        true => u32::from_be_bytes(*bytes),
        false => u32::from_le_bytes(*bytes),
    };
    let (words, _) = bytes.as_chunks::<4>();
    for pair in words.chunks_exact(2) {
        if let [first, second] = pair {
            one = one.wrapping_add(word(first)).wrapping_add(two);
            two = two.wrapping_add(word(second)).wrapping_add(one);
        }
    }
    (one, two)
}

fn salts_of(frame: &[u8]) -> Option<(u32, u32)> {
    Some((word(frame, 8)?, word(frame, 12)?))
}

fn sums_at(bytes: &[u8], at: usize) -> Option<Sums> {
    Some((word(bytes, at)?, word(bytes, at + 4)?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}

fn word16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::fs;

    use rusqlite::{Connection, config::DbConfig};
    use tempfile::TempDir;

    use super::*;

    const OURS: u32 = 7;

    /// A database whose log holds so many writes, as a killed process leaves it.
    fn killed(writes: usize) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let conn = Connection::open(&path).unwrap();
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        conn.execute_batch(&format!(
            "PRAGMA application_id = {OURS}; CREATE TABLE t (x); PRAGMA journal_mode = WAL;"
        ))
        .unwrap();
        for _ in 0..writes {
            conn.execute("INSERT INTO t VALUES (randomblob(9000))", []).unwrap();
        }
        drop(conn);
        (folder, path)
    }

    fn frames(path: &Path) -> usize {
        (fs::read(path_of(path)).unwrap().len() - HEADER_BYTES) / (FRAME_HEADER_BYTES + 4096)
    }

    fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn what_a_crash_leaves_is_well() {
        let (_folder, path) = killed(5);
        assert_eq!(look(&path, OURS).unwrap(), None);
        let whole = fs::read(path_of(&path)).unwrap();
        for cut in [0, 1, 31, 32, 40, 5_000, whole.len() - 5_000, whole.len() - 1] {
            fs::write(path_of(&path), &whole[..cut]).unwrap();
            assert_eq!(look(&path, OURS).unwrap(), None, "cut off at {cut}");
        }
        // A write that was under way, of which the last frame came to the disk and the first did not.
        let mut torn = whole.clone();
        let from = whole.len() - 2 * (FRAME_HEADER_BYTES + 4096);
        torn[from..from + 4096].fill(0);
        fs::write(path_of(&path), torn).unwrap();
        assert_eq!(look(&path, OURS).unwrap(), None);
        fs::remove_file(path_of(&path)).unwrap();
        assert_eq!(look(&path, OURS).unwrap(), None);
    }

    #[test]
    fn damage_before_complete_writes_is_found_wherever_it_is() {
        let (_folder, path) = killed(5);
        let frame_bytes = FRAME_HEADER_BYTES + 4096;
        for frame in 0..frames(&path) - 7 {
            let whole = fs::read(path_of(&path)).unwrap();
            change(&path_of(&path), |log| log[HEADER_BYTES + frame * frame_bytes + 999] ^= 1);
            assert_eq!(look(&path, OURS).unwrap(), Some(WalFault::Damaged { frame: frame + 1 }));
            change(&path_of(&path), |log| {
                let from = HEADER_BYTES + frame * frame_bytes;
                log[from..from + frame_bytes].fill(0);
            });
            assert_eq!(look(&path, OURS).unwrap(), Some(WalFault::Damaged { frame: frame + 1 }));
            fs::write(path_of(&path), whole).unwrap();
        }
        change(&path_of(&path), |log| log[..HEADER_BYTES].fill(0));
        assert_eq!(look(&path, OURS).unwrap(), Some(WalFault::Damaged { frame: 0 }));
    }

    #[test]
    fn an_older_round_of_the_log_behind_the_present_one_is_well() {
        let (_folder, path) = killed(9);
        let conn = Connection::open(&path).unwrap();
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        conn.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
        let before = frames(&path);
        conn.execute("INSERT INTO t VALUES (1)", []).unwrap();
        drop(conn);
        assert_eq!(frames(&path), before, "it starts over in the same space");
        assert_eq!(look(&path, OURS).unwrap(), None);
    }

    #[test]
    fn the_log_of_another_program_is_known() {
        let (_folder, path) = killed(2);
        let (_other_folder, other) = killed(2);
        let conn = Connection::open(&other).unwrap();
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        conn.execute_batch("PRAGMA application_id = 8").unwrap();
        drop(conn);
        fs::copy(path_of(&other), path_of(&path)).unwrap();
        assert_eq!(look(&path, OURS).unwrap(), Some(WalFault::Foreign));
    }
}
