//! Sums with times.

use std::time::Duration;

use utmos_core::time::{Mono, Now, Timestamp};

/// Slowest a dock may live.
pub const SPEED_MIN: f64 = 0.01;

/// `now` as it was when the running time was `at`, which is not later.
pub fn earlier(now: Now, at: u64) -> Now {
    let back = now.mono.as_millis().saturating_sub(at);
    let back = i64::try_from(back).unwrap_or(i64::MAX);
    Now {
        mono: Mono::from_millis(at.min(now.mono.as_millis())),
        wall: Timestamp::from_millis(now.wall.as_millis().saturating_sub(back)),
    }
}

/// A duration in whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A duration from seconds of a real dock's life.
pub fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::ZERO)
}
