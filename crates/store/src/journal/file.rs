//! The journal's file: a sealed line for each record, in space that was set aside, so that a full disk does not stop an
//! emergency.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use utmos_core::ports::StoreError;

use super::pending::Record;
use crate::seal::{DataKey, Sealer, Slot};

/// Space that is set aside. An emergency takes about ten KiB.
const BYTES: usize = 8 << 20;

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

/// The file. Locked while it is open.
pub(super) struct JournalFile {
    file: File,
    path: PathBuf,
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

/// Whether a server has the journal at `path`. Changes nothing.
///
/// # Errors
/// When there is a file that cannot be opened.
pub(super) fn is_in_use(path: &Path) -> io::Result<bool> {
    match File::open(path) {
        Ok(file) => match file.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(err)) => Err(err),
        },
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(err) => Err(err),
    }
}

impl JournalFile {
    /// Opens the file, makes it if it is not there, and reads what is in it. A last line without its end was never
    /// relied on and is passed over. Where another line cannot be read, a copy of the file is kept beside it.
    pub(super) fn open(path: &Path, sealer: &Sealer) -> Result<(Self, Vec<Record>), JournalError> {
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
        let length = bytes.len().max(BYTES);
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let key = key_of(sealer);
        let mut journal =
            Self { file, path: path.to_owned(), key, last: end, end, dirty: end, damaged: None };
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
                path = %self.path.display(),
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
                path = %self.path.display(),
                %err,
                "the damaged emergency journal could not be copied; it is left as it is"
            ),
        }
    }

    fn copy_damaged(&mut self) -> io::Result<()> {
        let Some(bytes) = &self.damaged else { return Ok(()) };
        let mut number = 1_u32;
        let copy = loop {
            let copy = self.path.with_added_extension(format!("damaged-{number}"));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&copy) {
                Ok(mut file) => {
                    let written = file.write_all(bytes).and_then(|()| file.sync_all());
                    if written.is_err() {
                        drop(fs::remove_file(&copy));
                    }
                    written?;
                    break copy;
                }
                // An earlier start copied the same already.
                Err(_) if fs::read(&copy).is_ok_and(|kept| kept == *bytes) => break copy,
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(err) => return Err(err),
            }
        };
        let folder = copy.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        tracing::error!(
            path = %self.path.display(),
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
        if end > BYTES {
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
        self.fill(BYTES).map_err(|cause| self.error(cause))
    }

    /// Writes a line, and zeros over what stands after it and does not count.
    fn write_at_end(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        line.resize(line.len().max(self.dirty.saturating_sub(self.end)), 0);
        self.file.seek(SeekFrom::Start(self.end as u64))?;
        self.file.write_all(&line)?;
        self.file.sync_data()
    }

    /// Writes zeros over what does not count. What stays there is written over with the next line.
    fn wipe(&mut self) {
        match self.write_at_end(Vec::new()) {
            Ok(()) => self.dirty = self.end,
            Err(err) => tracing::error!(
                path = %self.path.display(),
                %err,
                "an emergency that was refused may still stand in the emergency journal"
            ),
        }
    }

    /// Writes zeros from the end of what counts to `length`, so that the disk has given the space.
    fn fill(&mut self, length: usize) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.end as u64))?;
        self.file.write_all(&vec![0; length.saturating_sub(self.end)])?;
        self.file.sync_all()?;
        self.dirty = self.end;
        Ok(())
    }

    fn error(&self, cause: io::Error) -> JournalError {
        JournalError::Io { path: self.path.clone(), cause }
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
