//! The machine's two clocks. The only place of the product that reads them.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest, Sha256};
use utmos_core::time::{BootId, Clock, Mono, Now, Timestamp};

/// Where Linux tells which run of the machine this is.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// The machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    boot: BootId,
}

impl SystemClock {
    /// Finds out which run of the machine this is. Where the system does not tell, every process counts as a run of
    /// its own, and deadlines of an earlier process are found again by the wall clock.
    #[must_use]
    pub fn new() -> Self {
        let name = std::fs::read_to_string(BOOT_ID_FILE)
            .unwrap_or_else(|_| format!("{}-{}", std::process::id(), wall().as_millis()));
        let hash = Sha256::digest(name.trim().as_bytes());
        let mut boot = [0; 16];
        boot.copy_from_slice(&hash[..16]);
        Self { boot: BootId(boot) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let running = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(running.tv_sec).unwrap_or(0);
        let millis = u64::try_from(running.tv_nsec / 1_000_000).unwrap_or(0);
        Now {
            wall: wall(),
            mono: Mono::from_millis(seconds.saturating_mul(1_000).saturating_add(millis)),
        }
    }

    fn boot(&self) -> BootId {
        self.boot
    }
}

fn wall() -> Timestamp {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the wall clock"
    )]
    let now = SystemTime::now();
    let millis = match now.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    };
    Timestamp::from_millis(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_time_never_goes_back_and_the_boot_stays_the_same() {
        let clock = SystemClock::new();
        let readings: Vec<_> = (0..1_000).map(|_| clock.now().mono).collect();
        assert!(readings.is_sorted());
        assert_eq!(SystemClock::new().boot(), clock.boot());
    }
}
