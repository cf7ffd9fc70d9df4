//! Where a device was, one position after another.

use super::each_block;
use crate::time::Timestamp;

/// Positions of a track: between half and the whole of this for a long one.
pub const POSITIONS_MAX: usize = 2_000;
/// A device without a fix says 0/0.
const NOWHERE_DEGREES: f64 = 1e-6;
/// Heights above the ellipsoid that an aircraft can have, in metres.
const HEIGHTS: std::ops::RangeInclusive<f64> = -1_000.0..=20_000.0;

/// A position, in degrees and metres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// When it was told.
    pub at: Timestamp,
    /// East of Greenwich.
    pub longitude: f64,
    /// North of the equator.
    pub latitude: f64,
    /// `height` as the device tells it: above the ellipsoid.
    pub height: Option<f64>,
}

/// The position a message tells; nothing where it tells none, or nonsense: no fix is 0/0, and remote controllers have told
/// millions of degrees.
#[must_use]
pub fn position_of(values: &str, at: Timestamp) -> Option<Position> {
    let (mut longitude, mut latitude, mut height) = (None, None, None);
    let number = |text: &str| serde_json::from_str::<f64>(text).ok();
    each_block(values, &mut |key, value| match key {
        "longitude" => longitude = number(value),
        "latitude" => latitude = number(value),
        "height" => height = number(value),
        _ => {}
    })
    .ok()?;
    let (longitude, latitude) = (longitude?, latitude?);
    let exists = (-180.0..=180.0).contains(&longitude) && (-90.0..=90.0).contains(&latitude);
    let is_nowhere = longitude.abs() < NOWHERE_DEGREES && latitude.abs() < NOWHERE_DEGREES;
    (exists && !is_nowhere).then_some(Position {
        at,
        longitude,
        latitude,
        height: height.filter(|height| HEIGHTS.contains(height)),
    })
}

/// Positions in a row, thinned evenly when they become too many. The first and the last are always there.
#[derive(Debug, Default)]
pub struct Track {
    positions: Vec<Position>,
    last: Option<Position>,
    /// One of 2 to the power of this is taken.
    thinned: u32,
    seen: u64,
}

impl Track {
    /// Adds one.
    pub fn push(&mut self, position: Position) {
        self.last = Some(position);
        if self.seen.is_multiple_of(1 << self.thinned) {
            if self.positions.len() + 1 >= POSITIONS_MAX {
                let mut number = 0_usize;
                self.positions.retain(|_| {
                    number += 1;
                    !number.is_multiple_of(2)
                });
                self.thinned += 1;
            }
            if self.seen.is_multiple_of(1 << self.thinned) {
                self.positions.push(position);
            }
        }
        self.seen += 1;
    }

    /// All of them.
    #[must_use]
    pub fn finish(mut self) -> Vec<Position> {
        if self.last != self.positions.last().copied() {
            self.positions.extend(self.last);
        }
        self.positions
    }
}
