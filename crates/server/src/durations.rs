//! How long something took, each time: counts in classes, cheap enough for every command.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// Upper ends of the classes, in microseconds and as they are shown in seconds; what is longer has a class of its own.
pub const CLASSES: [(u64, &str); 12] = [
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (10_000_000, "10"),
];

/// Durations since the start.
#[derive(Debug, Default)]
pub struct Durations {
    classes: [AtomicU64; CLASSES.len()],
    longer: AtomicU64,
    micros: AtomicU64,
}

impl Durations {
    /// Does `work` and takes its time.
    pub async fn of<T>(&self, work: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let done = work.await;
        self.take(start.elapsed());
        done
    }

    /// Takes a time that was measured elsewhere.
    pub(crate) fn take(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let place = CLASSES.iter().position(|(end, _)| micros <= *end);
        let class = place.and_then(|place| self.classes.get(place)).unwrap_or(&self.longer);
        class.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// How many took at most as long as each class allows, how many there are, and their sum in seconds.
    #[must_use]
    pub fn read(&self) -> ([u64; CLASSES.len()], u64, f64) {
        let mut count = 0;
        let up_to = self.classes.each_ref().map(|class| {
            count += class.load(Ordering::Relaxed);
            count
        });
        let sum = Duration::from_micros(self.micros.load(Ordering::Relaxed)).as_secs_f64();
        (up_to, count + self.longer.load(Ordering::Relaxed), sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_holds_those_before_it() {
        let durations = Durations::default();
        for micros in [0, 500, 501, 30_000, 20_000_000] {
            durations.take(Duration::from_micros(micros));
        }
        let (up_to, count, sum) = durations.read();
        assert_eq!(up_to, [2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4]);
        assert_eq!((count, sum), (5, 20.031_001));
    }
}
