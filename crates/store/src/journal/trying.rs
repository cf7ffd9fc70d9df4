//! The reader of the journal without its file, for those who try lines on it, and its file in memory, for those who try
//! whole ones.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use utmos_core::{ports::StoreError, signing::NonceUse, time::Timestamp};

use super::{
    Medium,
    file::{EMPTIED, JournalError, JournalFile, key_of, read_lines, seal_line},
    pending::{Pending, Record},
};
use crate::{key::MasterKey, seal::Sealer};

/// Stands at the beginning of a file that is being emptied.
pub const EMPTIED_MARK: u8 = EMPTIED;

/// How much room a file in memory has, at least.
const SPACE: usize = 64 << 10;

/// What a start would make of a journal.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The records that can be read, as JSON, as they would be kept.
    pub records: Vec<String>,
    /// The lines that cannot, with what is wrong with them.
    pub damaged: Vec<(usize, String)>,
    /// How many commands were put on record until nothing was left.
    pub settled: usize,
}

/// A line as it stands in the file.
///
/// # Errors
/// When it cannot be sealed.
pub fn sealed(key: &MasterKey, record: &str) -> Result<String, StoreError> {
    seal_line(&key_of(&Sealer::new(key)), record)
}

/// Reads lines and settles whatever they hold.
///
/// # Errors
/// When a record cannot be written again.
pub fn read(key: &MasterKey, lines: &[u8]) -> Result<Found, StoreError> {
    let (all, damaged) = read_lines(&key_of(&Sealer::new(key)), lines);
    let (mut pending, mut records) = (Pending::default(), Vec::new());
    for record in all {
        let kept = record.clone().kept()?;
        records.push(
            serde_json::to_string(&kept).map_err(|err| StoreError::Damaged(err.to_string()))?,
        );
        pending.add(record);
    }
    let mut settled = 0;
    for one in pending.oldest(usize::MAX, &BTreeSet::new()) {
        let _looked_at = (pending.command(one.id), pending.timeline(one.id));
        settled += usize::from(pending.settled(one.id, one.last));
    }
    Ok(Found { records, damaged, settled })
}

/// What a start makes of a file, and what becomes of that.
#[derive(Debug)]
pub struct Tried {
    /// The records that were read.
    pub records: Vec<String>,
    /// Copies of what could not be read in part.
    pub copies: Vec<Vec<u8>>,
    /// The records that the next start reads.
    pub again: Vec<String>,
    /// The same once one more was written, where there was room.
    pub appended: Option<Vec<String>>,
    /// The same once all that was read was set aside, where there was room.
    pub set_aside: Option<Vec<String>>,
    /// The same once nothing of it was left to be settled.
    pub emptied: Vec<String>,
}

/// Opens a file, and what was set aside beside it.
///
/// # Errors
/// When it cannot be opened, which no bytes can bring about.
pub fn open(key: &MasterKey, file: &[u8], aside: &[u8]) -> Result<Tried, JournalError> {
    let sealer = Sealer::new(key);
    let memory = Memory::default();
    memory.state().bytes = file.to_vec();
    memory.state().aside = aside.to_vec();
    let start = || JournalFile::open(Box::new(memory.clone()), &sealer);
    let (_, first) = start()?;
    let records = texts(&first);
    let copies = memory.state().copies.clone();
    let again = texts(&start()?.1);
    let (mut file, _) = start()?;
    let nonce = NonceUse { key: [0xa5; 16], expires_at: Timestamp::from_millis(0) };
    let appended = match file.append(&Record::Nonce { nonce }) {
        Ok(()) => {
            let appended = texts(&start()?.1);
            file.take_back();
            Some(appended)
        }
        Err(JournalError::Full) => None,
        Err(other) => return Err(other),
    };
    let set_aside = match file.tidy(&first) {
        Ok(()) => Some(texts(&start()?.1)),
        Err(JournalError::Full) => None,
        Err(other) => return Err(other),
    };
    start()?.0.tidy(&[])?;
    let emptied = texts(&start()?.1);
    Ok(Tried { records, copies, again, appended, set_aside, emptied })
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().filter_map(|record| serde_json::to_string(record).ok()).collect()
}

/// A medium in memory that never fails.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Bytes>>);

#[derive(Default)]
struct Bytes {
    bytes: Vec<u8>,
    aside: Vec<u8>,
    copies: Vec<Vec<u8>>,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Medium for Memory {
    fn path(&self) -> &Path {
        Path::new("memory")
    }

    fn space(&self) -> usize {
        SPACE
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.state().bytes.clone())
    }

    fn write(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let end = at + bytes.len();
        if state.bytes.len() < end {
            state.bytes.resize(end, 0);
        }
        state.bytes[at..end].copy_from_slice(bytes);
        drop(state);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn keep_copy(&mut self, bytes: &[u8]) -> io::Result<PathBuf> {
        let mut state = self.state();
        if !state.copies.iter().any(|copy| copy == bytes) {
            state.copies.push(bytes.to_vec());
        }
        drop(state);
        Ok(PathBuf::from("copy"))
    }

    fn set_aside(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.state().aside = bytes.to_vec();
        Ok(())
    }

    fn aside(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.state().aside.clone())
    }
}
