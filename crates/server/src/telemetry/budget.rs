//! How much of one device is kept, so that a device that never stops talking fills no disk.

use std::time::Duration;

use utmos_core::time::{Mono, Now};

/// Bytes of one device that are kept of one minute. A flying dock's aircraft under direct control at 30 Hz tells half of it,
/// a dock that is doing nothing a tenth.
pub(super) const BYTES_A_MINUTE_MAX: usize = 1024 * 1024;

const MINUTE: Duration = Duration::from_secs(60);

/// What one device has used of its minute.
#[derive(Debug)]
pub(super) struct Budget {
    began: Mono,
    used: usize,
}

impl Budget {
    pub(super) fn new(now: Now) -> Self {
        Self { began: now.mono, used: 0 }
    }

    /// Takes so many bytes if they are left.
    pub(super) fn spend(&mut self, bytes: usize, now: Now) -> bool {
        if now.mono.since(self.began) >= MINUTE {
            *self = Self::new(now);
        }
        let fits = self.used + bytes <= BYTES_A_MINUTE_MAX;
        if fits {
            self.used += bytes;
        }
        fits
    }
}
