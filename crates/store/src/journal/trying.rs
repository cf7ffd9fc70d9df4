//! The reader of the journal without its file, for those who try lines on it.

use utmos_core::ports::StoreError;

use super::{
    file::{key_of, read_lines, seal_line},
    pending::Pending,
};
use crate::{key::MasterKey, seal::Sealer};

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
    while let Some((id, _, last)) = pending.next(None) {
        let _looked_at = (pending.command(id), pending.timeline(id));
        settled += usize::from(pending.settled(id, last));
    }
    Ok(Found { records, damaged, settled })
}
