//! What devices tell of themselves by and by: the latest value of every property, and samples over time. Pure.
//!
//! A property of the top level (`battery`, `mode_code`, `52-0-0`) is a block. A message carries some of them; what it does
//! not name is unchanged. A block that it does name takes the place of the former one whole, also an object: recorded docks
//! never spread one object over two messages, and a member that is gone from it means something (`sub_device` loses
//! `device_model_key` when the aircraft is switched off).
//!
//! Values are kept as they were written. Keys that nobody has documented are kept like all others.

mod latest;
mod samples;
mod step;
mod track;

pub use self::{
    latest::{BLOCKS_MAX, BYTES_MAX, Block, KEY_BYTES_MAX, Latest, Merged},
    samples::{DamagedSamples, SPAN_MAX, Samples},
    step::{Steps, merge_by_step},
    track::{POSITIONS_MAX, Position, Track, position_of},
};
use crate::{json, reply::RawJson, time::Timestamp};

/// Where values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Told regularly.
    Osd,
    /// Told when it changes.
    State,
    /// Told several times a second under direct control.
    Drc,
    /// Several messages, merged into one.
    Merged,
}

impl Source {
    const ALL: [Self; 4] = [Self::Osd, Self::State, Self::Drc, Self::Merged];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Osd => "osd",
            Self::State => "state",
            Self::Drc => "drc",
            Self::Merged => "merged",
        }
    }

    /// Reads a word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }

    fn code(self) -> u8 {
        match self {
            Self::Osd => 0,
            Self::State => 1,
            Self::Drc => 2,
            Self::Merged => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.code() == code)
    }
}

/// What a device told in one message, or in several that were merged.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When it came; of several messages, when the last of them came.
    pub at: Timestamp,
    /// Where it comes from.
    pub source: Source,
    /// The text of one JSON object.
    pub values: RawJson,
}

/// Data that is no JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("telemetry must be a JSON object")]
pub struct NotAnObject;

/// Calls `each` with the name and the text of every block, in the order written.
///
/// # Errors
/// When `data` is not one JSON object.
pub fn each_block<'a>(
    data: &'a str,
    each: &mut dyn FnMut(&str, &'a str),
) -> Result<(), NotAnObject> {
    json::each_field(data, &mut |key, value| each(key, value.get())).map_err(|_| NotAnObject)
}

/// The blocks of these names, as one object; nothing where there is none of them.
#[must_use]
pub fn pick_blocks(data: &str, wanted: &dyn Fn(&str) -> bool) -> Option<String> {
    let mut text = String::new();
    let read = each_block(data, &mut |key, value| {
        if wanted(key) {
            push_member(&mut text, key, value);
        }
    });
    if read.is_err() || text.is_empty() {
        return None;
    }
    text.push('}');
    Some(text)
}

/// Adds a member to an object that is being written; it begins with its first member.
fn push_member(text: &mut String, key: &str, value: &str) {
    text.push(if text.is_empty() { '{' } else { ',' });
    text.push_str(&serde_json::Value::from(key).to_string());
    text.push(':');
    text.push_str(value);
}

#[cfg(test)]
mod tests;
