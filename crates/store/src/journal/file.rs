//! The journal's file: a sealed line for each record, in space that was set aside, so that a full disk does not stop an
//! emergency.

use std::{io, path::PathBuf};

use utmos_core::ports::StoreError;

use super::{medium::Medium, pending::Record};
use crate::seal::{DataKey, Sealer, Slot};

/// This part of the space, half of it, is for emergencies and for what becomes of them: a device that talks much does not
/// fill it.
const RESERVED_PART: usize = 2;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be used.
    #[error("the emergency journal {} cannot be used; check its folder, permissions and free space", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Another process has it.
    #[error("the emergency journal {} is used by another server; give each its own data_dir", .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// There is no room left.
    #[error("the emergency journal is full: the store has been unwell for too many emergencies")]
    Full,
}

/// The file.
pub(super) struct JournalFile {
    medium: Box<dyn Medium>,
    key: DataKey,
    /// Where the last line begins.
    last: usize,
    /// Where the next line begins.
    end: usize,
    /// From `end` to here may stand what does not count.
    dirty: usize,
    /// What was found damaged and could not be copied yet.
    damaged: Option<Vec<u8>>,
}

impl JournalFile {
    /// Reads what is there. A last line without its end was never relied on and is passed over. Where another line cannot
    /// be read, a copy of the file is kept beside it.
    pub(super) fn open(
        mut medium: Box<dyn Medium>,
        sealer: &Sealer,
    ) -> Result<(Self, Vec<Record>), JournalError> {
        let path = medium.path().to_owned();
        let io = |cause| JournalError::Io { path: path.clone(), cause };
        let mut bytes = medium.read().map_err(io)?;
        let length = bytes.len().max(medium.space());
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let key = key_of(sealer);
        let mut journal = Self { medium, key, last: end, end, dirty: end, damaged: None };
        let (records, is_whole) = journal.read(&bytes[..end]);
        if !is_whole {
            journal.found_damaged(bytes, records.is_empty());
        }
        journal.fill(length).map_err(io)?;
        Ok((journal, records))
    }

    /// The records of those lines that can be read, and whether all can.
    fn read(&self, lines: &[u8]) -> (Vec<Record>, bool) {
        let (records, damaged) = read_lines(&self.key, lines);
        for (number, why) in &damaged {
            tracing::error!(
                path = %self.medium.path().display(),
                line = number,
                why,
                "a line of the emergency journal cannot be read"
            );
        }
        (records, damaged.is_empty())
    }

    /// Keeps a copy of what is in the file. The lines that cannot be read are dropped once the others are on record, or
    /// at once where there are no others.
    fn found_damaged(&mut self, bytes: Vec<u8>, nothing_is_readable: bool) {
        self.damaged = Some(bytes);
        match self.copy_damaged() {
            Ok(()) if nothing_is_readable => (self.last, self.end) = (0, 0),
            Ok(()) => {}
            Err(err) => tracing::error!(
                path = %self.medium.path().display(),
                %err,
                "the damaged emergency journal could not be copied; it is left as it is"
            ),
        }
    }

    fn copy_damaged(&mut self) -> io::Result<()> {
        let Some(bytes) = &self.damaged else { return Ok(()) };
        let copy = self.medium.keep_copy(bytes)?;
        tracing::error!(
            path = %self.medium.path().display(),
            copy = %copy.display(),
            "the emergency journal is damaged: a copy was kept, and what can be read is put on record"
        );
        self.damaged = None;
        Ok(())
    }

    /// Appends a record, on the disk when this returns.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        let other = |error: String| self.error(io::Error::other(error));
        let text = serde_json::to_string(record).map_err(|error| other(error.to_string()))?;
        let line = seal_line(&self.key, &text).map_err(|error| other(error.to_string()))?;
        let end = self.end + line.len();
        let space = self.medium.space();
        let reserved = if record.is_talk() { space / RESERVED_PART } else { 0 };
        if end > space - reserved {
            return Err(JournalError::Full);
        }
        let written = self.write_at_end(line.into_bytes());
        self.dirty = self.dirty.max(end);
        if let Err(cause) = written {
            self.wipe();
            return Err(self.error(cause));
        }
        (self.last, self.end, self.dirty) = (self.end, end, end);
        Ok(())
    }

    /// Takes the last line back.
    pub(super) fn take_back(&mut self) {
        self.end = self.last;
        self.wipe();
    }

    /// Empties the file and keeps its space.
    pub(super) fn clear(&mut self) -> Result<(), JournalError> {
        self.copy_damaged().map_err(|cause| self.error(cause))?;
        (self.last, self.end) = (0, 0);
        self.fill(self.medium.space()).map_err(|cause| self.error(cause))
    }

    /// Writes a line, and zeros over what stands after it and does not count.
    fn write_at_end(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        line.resize(line.len().max(self.dirty.saturating_sub(self.end)), 0);
        self.medium.write(self.end, &line)?;
        self.medium.sync()
    }

    /// Writes zeros over what does not count. What stays there is written over with the next line.
    fn wipe(&mut self) {
        match self.write_at_end(Vec::new()) {
            Ok(()) => self.dirty = self.end,
            Err(err) => tracing::error!(
                path = %self.medium.path().display(),
                %err,
                "an emergency that was refused may still stand in the emergency journal"
            ),
        }
    }

    /// Writes zeros from the end of what counts to `length`, so that the disk has given the space.
    fn fill(&mut self, length: usize) -> io::Result<()> {
        self.medium.write(self.end, &vec![0; length.saturating_sub(self.end)])?;
        self.medium.sync()?;
        self.dirty = self.end;
        Ok(())
    }

    fn error(&self, cause: io::Error) -> JournalError {
        JournalError::Io { path: self.medium.path().to_owned(), cause }
    }
}

/// The records of those lines that can be read, and the numbers of the others with what is wrong with them.
pub(super) fn read_lines(key: &DataKey, lines: &[u8]) -> (Vec<Record>, Vec<(usize, String)>) {
    let (mut records, mut damaged) = (Vec::new(), Vec::new());
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    for (number, line) in (1..).zip(lines) {
        match read_line(key, line) {
            Ok(record) => records.push(record),
            Err(why) => damaged.push((number, why)),
        }
    }
    (records, damaged)
}

fn read_line(key: &DataKey, line: &[u8]) -> Result<Record, String> {
    let sealed = hex::decode(line).map_err(|err| err.to_string())?;
    let text = key.open(Slot::Journal, &sealed)?;
    serde_json::from_str(&text).map_err(|err| err.to_string())
}

/// A line as it stands in the file.
pub(super) fn seal_line(key: &DataKey, text: &str) -> Result<String, StoreError> {
    Ok(hex::encode(key.seal(Slot::Journal, text)?) + "\n")
}

/// The key of the journal's lines.
pub(super) fn key_of(sealer: &Sealer) -> DataKey {
    sealer.data_key_of(b"emergency journal")
}
