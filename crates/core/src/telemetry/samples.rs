//! Samples of one device in a row, as one piece of bytes. A store packs it and keeps it; this is its form before that.
//!
//! One record after another: milliseconds since the one before, source, length, text. Numbers are written seven bits at a
//! time, the lowest first.

use std::time::Duration;

use super::{Sample, Source};
use crate::time::Timestamp;

/// Longest time from the first sample of a piece to its last.
pub const SPAN_MAX: Duration = Duration::from_secs(3600);

/// Samples in a row. Invariant: not empty, never back in time, within [`SPAN_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Samples {
    first: Timestamp,
    last: Timestamp,
    count: usize,
    bytes: Vec<u8>,
}

/// Bytes that are no samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the samples cannot be read")]
pub struct DamagedSamples;

impl Samples {
    /// Begins with one.
    #[must_use]
    pub fn of(at: Timestamp, source: Source, values: &str) -> Self {
        let mut samples = Self { first: at, last: at, count: 0, bytes: Vec::new() };
        samples.push(at, source, values);
        samples
    }

    /// Adds one. Answers whether it could: not when it is older than the last, or too long after the first; then it
    /// begins a piece of its own.
    #[must_use]
    pub fn add(&mut self, at: Timestamp, source: Source, values: &str) -> bool {
        let fits = self.last <= at && at.since(self.first) <= SPAN_MAX;
        if fits {
            self.push(at, source, values);
        }
        fits
    }

    fn push(&mut self, at: Timestamp, source: Source, values: &str) {
        let waited = u64::try_from(at.since(self.last).as_millis()).unwrap_or(0);
        put_number(&mut self.bytes, waited);
        self.bytes.push(source.code());
        put_number(&mut self.bytes, values.len() as u64);
        self.bytes.extend_from_slice(values.as_bytes());
        self.last = at;
        self.count += 1;
    }

    /// Puts samples into as few pieces as may be.
    #[must_use]
    pub fn pieces(samples: impl IntoIterator<Item = Sample>) -> Vec<Self> {
        let mut pieces: Vec<Self> = Vec::new();
        for Sample { at, source, values } in samples {
            let added = pieces.last_mut().is_some_and(|piece| piece.add(at, source, &values));
            if !added {
                pieces.push(Self::of(at, source, &values));
            }
        }
        pieces
    }

    /// When the first came.
    #[must_use]
    pub fn first(&self) -> Timestamp {
        self.first
    }

    /// When the last came.
    #[must_use]
    pub fn last(&self) -> Timestamp {
        self.last
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads the bytes of samples, of which the first came at `first`.
    ///
    /// # Errors
    /// When they are no samples.
    pub fn read(first: Timestamp, mut bytes: &[u8]) -> Result<Vec<Sample>, DamagedSamples> {
        let (mut samples, mut at) = (Vec::new(), first);
        while !bytes.is_empty() {
            at = at.plus(Duration::from_millis(take_number(&mut bytes)?));
            let (code, rest) = bytes.split_first().ok_or(DamagedSamples)?;
            bytes = rest;
            let source = Source::from_code(*code).ok_or(DamagedSamples)?;
            let length = usize::try_from(take_number(&mut bytes)?).map_err(|_| DamagedSamples)?;
            let (text, rest) = bytes.split_at_checked(length).ok_or(DamagedSamples)?;
            bytes = rest;
            let values = std::str::from_utf8(text).map_err(|_| DamagedSamples)?.into();
            samples.push(Sample { at, source, values });
        }
        Ok(samples)
    }
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Result<u64, DamagedSamples> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(DamagedSamples)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(DamagedSamples)
}
