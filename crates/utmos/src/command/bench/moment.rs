//! Moments that are met to some tens of microseconds. The runtime's own timer goes by whole milliseconds and is late by up to
//! two of them, which would count as the server's time wherever something is timed from when it was meant to begin.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What the runtime's timer may be late by, and a thread's way to a processor.
const COARSE: Duration = Duration::from_millis(3);

/// Waits for it; at once when it has passed.
pub async fn reach(moment: Instant) {
    if let Some(early) = moment.checked_sub(COARSE) {
        sleep_until(early).await;
    }
    if moment.saturating_duration_since(Instant::now()).is_zero() {
        return;
    }
    let rest = move || std::thread::sleep(moment.saturating_duration_since(Instant::now()));
    if tokio::task::spawn_blocking(rest).await.is_err() {
        // The runtime ends.
        sleep_until(moment).await;
    }
}
