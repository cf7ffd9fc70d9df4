//! The latest value of every block of one device.

use std::{collections::BTreeMap, time::Duration};

use serde_json::value::RawValue;

use super::{NotAnObject, Source, each_block, push_member};
use crate::time::{Mono, Now, Timestamp};

/// Blocks of one device. A flying dock has some 60, its aircraft some 80.
pub const BLOCKS_MAX: usize = 512;
/// Bytes of one device: keys and values together.
pub const BYTES_MAX: usize = 256 * 1024;
/// What holding one block takes beside its key and value, about.
const BLOCK_BYTES: usize = 128;
/// Bytes of one key.
pub const KEY_BYTES_MAX: usize = 128;

/// The latest value of every block. Invariant: never more than [`BLOCKS_MAX`] blocks and [`BYTES_MAX`] bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Latest {
    blocks: BTreeMap<Box<str>, Block>,
    bytes: usize,
    updated_at: Option<Timestamp>,
}

/// One block.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    value: String,
    source: Source,
    at: Timestamp,
    /// The running time when it came; nothing for what an earlier process heard.
    heard: Option<Mono>,
}

/// What a message changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// Blocks that are new or have another value.
    pub changed: usize,
    /// Blocks that found no room.
    pub left_out: usize,
    /// Blocks that would have found room, had others not taken it.
    pub crowded_out: usize,
}

impl Block {
    /// The value as it was written.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Where it comes from.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// When it came.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// How long ago it came. By the running time where this process heard it, so that no clock adjustment shows.
    #[must_use]
    pub fn age(&self, now: Now) -> Duration {
        self.heard.map_or_else(|| now.wall.since(self.at), |heard| now.mono.since(heard))
    }
}

impl Latest {
    /// Takes in a message. What finds no room is left out: a new block, and the value of a known one that has grown too
    /// long, since the former value is not true any more.
    ///
    /// # Errors
    /// When `data` is not a JSON object; nothing is taken of it then.
    pub fn merge(&mut self, data: &str, source: Source, now: Now) -> Result<Merged, NotAnObject> {
        self.merge_within(data, source, now, usize::MAX, &mut |_, _| ())
    }

    /// The same, where [`Latest::held_bytes`] may grow by no more than `room`. `lost` is told name and value of every block
    /// that found no room, here or at all.
    ///
    /// # Errors
    /// As [`Latest::merge`].
    pub fn merge_within(
        &mut self,
        data: &str,
        source: Source,
        now: Now,
        room: usize,
        lost: &mut dyn FnMut(&str, &str),
    ) -> Result<Merged, NotAnObject> {
        let held_max = self.held_bytes().saturating_add(room);
        self.take_within(data, source, (now.wall, Some(now.mono)), held_max, lost)
    }

    /// The same for what was heard at some other time.
    pub(super) fn take(
        &mut self,
        data: &str,
        source: Source,
        at: Timestamp,
    ) -> Result<Merged, NotAnObject> {
        self.take_within(data, source, (at, None), usize::MAX, &mut |_, _| ())
    }

    fn take_within(
        &mut self,
        data: &str,
        source: Source,
        (at, heard): (Timestamp, Option<Mono>),
        held_max: usize,
        lost: &mut dyn FnMut(&str, &str),
    ) -> Result<Merged, NotAnObject> {
        if !data.trim_start().starts_with('{') {
            return Err(NotAnObject);
        }
        let mut merged = Merged::default();
        each_block(data, &mut |key, value| {
            let block = Block { value: String::new(), source, at, heard };
            if !self.put(key, value, block, held_max, &mut merged) {
                lost(key, value);
            }
        })?;
        self.updated_at = Some(at);
        Ok(merged)
    }

    /// Answers whether it is there now.
    fn put(
        &mut self,
        key: &str,
        value: &str,
        block: Block,
        held_max: usize,
        merged: &mut Merged,
    ) -> bool {
        let held = self.held_bytes();
        if let Some(known) = self.blocks.get_mut(key) {
            let rest = self.bytes - known.value.len();
            let grows = value.len().saturating_sub(known.value.len());
            let is_too_long = BYTES_MAX < rest + value.len();
            if is_too_long || (grows > 0 && held_max < held + grows) {
                self.bytes = rest - key.len();
                self.blocks.remove(key);
                if is_too_long {
                    merged.left_out += 1
                } else {
                    merged.crowded_out += 1
                }
                return false;
            }
            self.bytes = rest + value.len();
            if known.value != value {
                merged.changed += 1;
                known.value.clear();
                known.value.push_str(value);
            }
            (known.source, known.at, known.heard) = (block.source, block.at, block.heard);
            return true;
        }
        let bytes = self.bytes + key.len() + value.len();
        if BLOCKS_MAX <= self.blocks.len() || BYTES_MAX < bytes || KEY_BYTES_MAX < key.len() {
            merged.left_out += 1;
            return false;
        }
        if held_max < held + key.len() + value.len() + BLOCK_BYTES {
            merged.crowded_out += 1;
            return false;
        }
        self.bytes = bytes;
        merged.changed += 1;
        self.blocks.insert(key.into(), Block { value: value.to_owned(), ..block });
        true
    }

    /// Adds what was known earlier and has not been told anew.
    pub fn recall(&mut self, earlier: Self) {
        self.recall_within(earlier, usize::MAX);
    }

    /// The same, where [`Latest::held_bytes`] may grow by no more than `room`.
    pub fn recall_within(&mut self, earlier: Self, room: usize) -> Merged {
        let held_max = self.held_bytes().saturating_add(room);
        let mut merged = Merged::default();
        for (key, block) in earlier.blocks {
            if !self.blocks.contains_key(&key) {
                let value = block.value.clone();
                self.put(&key, &value, block, held_max, &mut merged);
            }
        }
        self.updated_at = self.updated_at.max(earlier.updated_at);
        merged
    }

    /// Leaves only the blocks whose names `stays` says yes to.
    pub fn retain(&mut self, stays: &dyn Fn(&str) -> bool) {
        for (key, block) in self.blocks.extract_if(.., |key, _| !stays(key)) {
            self.bytes -= key.len() + block.value.len();
        }
    }

    /// Adds what another server heard of the same device: of each block the newer one counts. As [`Latest::recall_within`]
    /// otherwise.
    pub fn join_within(&mut self, other: Self, room: usize) -> Merged {
        let held_max = self.held_bytes().saturating_add(room);
        let mut merged = Merged::default();
        for (key, block) in other.blocks {
            if self.blocks.get(&key).is_none_or(|known| known.at < block.at) {
                let value = block.value.clone();
                self.put(&key, &value, block, held_max, &mut merged);
            }
        }
        self.updated_at = self.updated_at.max(other.updated_at);
        merged
    }

    /// Every block, by name.
    pub fn blocks(&self) -> impl Iterator<Item = (&str, &Block)> {
        self.blocks.iter().map(|(key, block)| (&**key, block))
    }

    /// When the last message came.
    #[must_use]
    pub fn updated_at(&self) -> Option<Timestamp> {
        self.updated_at
    }

    /// Keys and values together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What holding it takes, about.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.bytes + self.blocks.len() * BLOCK_BYTES
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The values alone, as one object.
    #[must_use]
    pub fn to_values(&self) -> String {
        let mut text = String::new();
        self.blocks().for_each(|(key, block)| push_member(&mut text, key, &block.value));
        text.push_str(if text.is_empty() { "{}" } else { "}" });
        text
    }

    /// The form in which it is kept: each block with its time and source.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (key, block) in self.blocks() {
            let Block { value, source, at, .. } = block;
            let member = format!("[{},\"{}\",{value}]", at.as_millis(), source.as_str());
            push_member(&mut text, key, &member);
        }
        text.push_str(if text.is_empty() { "{}" } else { "}" });
        text
    }

    /// Reads what [`Latest::to_text`] wrote. A block that cannot be read is passed over.
    ///
    /// # Errors
    /// When it is no object at all.
    pub fn parse(text: &str) -> Result<Self, NotAnObject> {
        let mut latest = Self::default();
        let mut merged = Merged::default();
        each_block(text, &mut |key, member| {
            let Ok((at, source, value)) = serde_json::from_str::<(i64, &str, &RawValue)>(member)
            else {
                return;
            };
            let Some(source) = Source::parse(source) else { return };
            let at = Timestamp::from_millis(at);
            let block = Block { value: String::new(), source, at, heard: None };
            latest.put(key, value.get(), block, usize::MAX, &mut merged);
            latest.updated_at = latest.updated_at.max(Some(at));
        })?;
        Ok(latest)
    }
}
