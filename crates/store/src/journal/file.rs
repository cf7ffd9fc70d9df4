//! The journal's file: lines of JSON in space that was set aside, so that a full disk does not stop an emergency.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::pending::Record;

/// Space that is set aside. An emergency takes a few KiB.
const BYTES: usize = 4 << 20;

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
    /// A line cannot be read.
    #[error("line {line} of the emergency journal {} cannot be read; keep a copy for inspection and remove the file", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which line.
        line: usize,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
    /// There is no room left.
    #[error("the emergency journal is full: the store has been unwell for too many emergencies")]
    Full,
}

/// The file. Locked while it is open.
pub(super) struct JournalFile {
    file: File,
    path: PathBuf,
    end: usize,
}

impl JournalFile {
    /// Opens the file, makes it if it is not there, and reads what is in it. A last line without its end was never
    /// relied on and is passed over.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Record>), JournalError> {
        let io = |cause| JournalError::Io { path: path.to_owned(), cause };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        if file.try_lock().is_err() {
            return Err(JournalError::InUse { path: path.to_owned() });
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let written = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let text = &bytes[..written];
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let mut records = Vec::new();
        for (index, line) in
            text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate()
        {
            let damaged =
                |cause| JournalError::Damaged { path: path.to_owned(), line: index + 1, cause };
            records.push(serde_json::from_slice(line).map_err(damaged)?);
        }
        let mut journal = Self { file, path: path.to_owned(), end: whole };
        journal.fill(bytes.len().max(BYTES)).map_err(io)?;
        Ok((journal, records))
    }

    /// Appends a record, on the disk when this returns.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        let io = |cause| JournalError::Io { path: self.path.clone(), cause };
        let mut line = serde_json::to_vec(record).map_err(|error| io(io::Error::other(error)))?;
        line.push(b'\n');
        if self.end + line.len() > BYTES {
            return Err(JournalError::Full);
        }
        self.file.seek(SeekFrom::Start(self.end as u64)).map_err(io)?;
        self.file.write_all(&line).map_err(io)?;
        self.file.sync_data().map_err(io)?;
        self.end += line.len();
        Ok(())
    }

    /// Empties the file and keeps its space.
    pub(super) fn clear(&mut self) -> Result<(), JournalError> {
        self.end = 0;
        self.fill(BYTES).map_err(|cause| JournalError::Io { path: self.path.clone(), cause })
    }

    /// Writes zeros from the end of what counts to `length`, so that the disk has given the space.
    fn fill(&mut self, length: usize) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.end as u64))?;
        self.file.write_all(&vec![0; length.saturating_sub(self.end)])?;
        self.file.sync_all()
    }
}
