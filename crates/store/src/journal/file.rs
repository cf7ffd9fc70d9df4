//! The journal's file: a sealed line for each record, in space that was set aside, so that a full disk does not stop an
//! emergency. What cannot be settled goes into a second file in the end, so that the space comes back.

use std::{collections::BTreeSet, io, path::PathBuf};

use utmos_core::ports::StoreError;

use super::{medium::Medium, pending::Record};
use crate::seal::{DataKey, Sealer, Slot};

/// This part of the space, half of it, is for emergencies and for what becomes of them: a device that talks much does not
/// fill it.
const RESERVED_PART: usize = 2;

/// Stands where the first line begins, and nothing in the file counts any more: emptying it has begun. One byte, so that it is
/// there or not, and none that a line has.
pub(super) const EMPTIED: u8 = 0xcf;

/// Written over a byte that was damaged into the mark. No line has it either.
const NO_MARK: u8 = b'!';

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
    damaged: Vec<Vec<u8>>,
    /// Whether anything was set aside.
    has_aside: bool,
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
        let aside = medium.aside().map_err(io)?;
        let length = bytes.len().max(medium.space());
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        let has_aside = !aside.is_empty();
        let mut journal = Self {
            medium,
            key: key_of(sealer),
            last: 0,
            end: 0,
            dirty: bytes.len(),
            damaged: Vec::new(),
            has_aside,
        };
        let (mut records, is_whole) = journal.read(&aside);
        if !is_whole {
            journal.found_damaged(aside);
        }
        if is_emptied(&bytes) {
            // Its process died in the middle of that.
            tracing::warn!(path = %path.display(), "the emergency journal was being emptied when its process ended; what it held is on record");
            journal.empty().map_err(io)?;
        } else {
            let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
            (journal.last, journal.end) = (end, end);
            let (own, is_whole) = journal.read(&bytes[..end]);
            let is_marked = bytes.first() == Some(&EMPTIED);
            if !is_whole && journal.found_damaged(bytes) && own.is_empty() {
                (journal.last, journal.end) = (0, 0);
            } else if is_marked && end > 0 {
                // Damage, and no mark. Without the torn last line, which goes now, the next start would take it for one.
                journal
                    .medium
                    .write(0, &[NO_MARK])
                    .and_then(|()| journal.medium.sync())
                    .map_err(io)?;
            }
            add_new(&mut records, own);
        }
        journal.fill(length).map_err(io)?;
        Ok((journal, records))
    }

    /// Where the next line begins.
    #[cfg(test)]
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Whether nothing stands in it.
    pub(super) fn is_empty(&self) -> bool {
        self.end == 0 && !self.has_aside
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
    /// at once where there are no others. Answers whether there is a copy.
    fn found_damaged(&mut self, bytes: Vec<u8>) -> bool {
        self.damaged.push(bytes);
        let copied = self.copy_damaged();
        if let Err(err) = &copied {
            tracing::error!(
                path = %self.medium.path().display(),
                %err,
                "the damaged emergency journal could not be copied; it is left as it is"
            );
        }
        copied.is_ok()
    }

    fn copy_damaged(&mut self) -> io::Result<()> {
        while let Some(bytes) = self.damaged.last() {
            let copy = self.medium.keep_copy(bytes)?;
            tracing::error!(
                path = %self.medium.path().display(),
                copy = %copy.display(),
                "the emergency journal is damaged: a copy was kept, and what can be read is put on record"
            );
            self.damaged.pop();
        }
        Ok(())
    }

    /// Appends a record, on the disk when this returns.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        let mut line = self.line(record)?;
        let mut end = self.end + line.len();
        let space = self.medium.space();
        let for_talk = space - space / RESERVED_PART;
        if end > for_talk {
            if record.is_talk() {
                return Err(JournalError::Full);
            }
            // What was said while nothing could be written comes as one, with what changed meanwhile.
            if let Some(less) = record.without_talk() {
                line = self.line(&less)?;
                end = self.end + line.len();
            }
        }
        if end > space {
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

    /// Empties the file and keeps its space. What is left of the records is set aside before.
    pub(super) fn tidy(&mut self, left: &[Record]) -> Result<(), JournalError> {
        let lines: String =
            left.iter().map(|record| self.line(record)).collect::<Result<_, _>>()?;
        // What is set aside has the bound of the file itself; beyond, it stays there, and the file fills.
        if lines.len() > self.medium.space() {
            return Err(JournalError::Full);
        }
        self.tidy_to(lines.as_bytes()).map_err(|cause| self.error(cause))
    }

    fn tidy_to(&mut self, left: &[u8]) -> io::Result<()> {
        self.copy_damaged()?;
        if !left.is_empty() {
            self.has_aside = true;
            self.medium.set_aside(left)?;
        }
        self.empty()?;
        if left.is_empty() && self.has_aside {
            self.medium.set_aside(&[])?;
            self.has_aside = false;
        }
        Ok(())
    }

    /// Writes zeros over what was written, and no more: whoever comes with an emergency meanwhile waits for that. First the
    /// mark, on the disk before any of the zeros: a line of which a part is left must not look like a damaged one.
    fn empty(&mut self) -> io::Result<()> {
        self.dirty = self.dirty.max(self.end);
        (self.last, self.end) = (0, 0);
        if self.dirty == 0 {
            return Ok(());
        }
        self.medium.write(0, &[EMPTIED])?;
        self.medium.sync()?;
        if self.dirty > 1 {
            self.medium.write(1, &vec![0; self.dirty - 1])?;
            self.medium.sync()?;
        }
        // With or without the mark the file is empty now.
        self.medium.write(0, &[0])?;
        self.dirty = 0;
        Ok(())
    }

    fn line(&self, record: &Record) -> Result<String, JournalError> {
        let other = |error: String| self.error(io::Error::other(error));
        let text = serde_json::to_string(record).map_err(|error| other(error.to_string()))?;
        seal_line(&self.key, &text).map_err(|error| other(error.to_string()))
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

/// Whether emptying it has begun: the mark stands before nothing but what may be left of lines.
fn is_emptied(bytes: &[u8]) -> bool {
    let is_left = |byte: &u8| matches!(byte, 0 | b'\n' | b'0'..=b'9' | b'a'..=b'f');
    bytes.split_first().is_some_and(|(first, rest)| *first == EMPTIED && rest.iter().all(is_left))
}

/// Adds those records that are not there yet: what was set aside may still stand in the file.
fn add_new(records: &mut Vec<Record>, own: Vec<Record>) {
    let text = |record: &Record| serde_json::to_string(record).ok();
    let known: BTreeSet<_> = records.iter().filter_map(text).collect();
    records.extend(own.into_iter().filter(|record| {
        known.is_empty() || text(record).is_none_or(|text| !known.contains(&text))
    }));
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
