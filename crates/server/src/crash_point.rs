//! Named points at which the process kills itself, so that a test can see what the next one makes of what is left. Only
//! a debug build has them; elsewhere they are nothing at all.
//!
//! `CRASH_POINT=writing` dies the first time that point is reached, `CRASH_POINT=writing#3` the third time.

use utmos_core::evidence::Entry;

/// Dies here if this is the point.
pub(crate) fn reached(name: &str) {
    if cfg!(debug_assertions) {
        imp::reached(|point| point == name);
    }
}

/// Each cause among these timeline entries is a point of its own: `saving:reply`, `saved:reply`, `told:reply`, …
pub(crate) fn entries(stage: &str, entries: &[Entry]) {
    if cfg!(debug_assertions) {
        for entry in entries {
            imp::reached(|point| {
                let cause = serde_json::to_value(&entry.proof).unwrap_or_default();
                point.strip_prefix(stage).and_then(|rest| rest.strip_prefix(':'))
                    == cause["cause"].as_str()
            });
        }
    }
}

mod imp {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };

    use rustix::process::{Signal, getpid, kill_process};

    /// The point to die at, and how often it must still be reached.
    static WANTED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();

    pub(super) fn reached(is_it: impl Fn(&str) -> bool) {
        let wanted = WANTED.get_or_init(|| {
            #[expect(clippy::disallowed_methods, reason = "not a setting, and in no release")]
            let text = std::env::var("CRASH_POINT").ok()?;
            let (name, count) = text.split_once('#').unwrap_or((&text, "1"));
            Some((name.to_owned(), AtomicU64::new(count.parse().unwrap_or(1))))
        });
        let Some((point, left)) = wanted else { return };
        if !is_it(point) || left.fetch_sub(1, Ordering::Relaxed) != 1 {
            return;
        }
        let _dead = kill_process(getpid(), Signal::KILL);
        // Not one step further, should the signal take its time.
        loop {
            std::thread::park();
        }
    }
}
