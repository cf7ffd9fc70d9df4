//! When nothing happens, time does: tells every command that is due.

use std::{sync::Arc, time::Duration};

use utmos_core::{
    id::CommandId,
    life::{Input, Presence},
};

use super::{Inner, Told};

/// Sleeps no longer than this, so that a running time that jumps (a machine that slept) is noticed.
const LOOK_WAIT_MAX: Duration = Duration::from_secs(1);
/// Commands told in one go.
const DUE_PER_LOOK_MAX: usize = 1_000;

impl Inner {
    pub(super) async fn run_timers(self: Arc<Self>) {
        loop {
            let (due, wait) = self.take_due();
            for id in due {
                // The lane puts the presence of its own moment in.
                self.tell_here(
                    id,
                    Told::Input {
                        id,
                        input: Box::new(Input::Tick(Presence::NeverHeard)),
                        done: None,
                    },
                );
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return,
                () = self.timer_moved.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Takes the timers that have passed, and says how long the next one has.
    fn take_due(&self) -> (Vec<CommandId>, Duration) {
        let now = self.clock.now();
        let mut state = self.lock();
        let mut due = Vec::new();
        while let Some(&(at, id)) = state.timers.first() {
            if at > now.mono {
                return (due, at.since(now.mono).min(LOOK_WAIT_MAX));
            }
            if due.len() == DUE_PER_LOOK_MAX {
                return (due, Duration::ZERO);
            }
            state.timers.pop_first();
            due.push(id);
        }
        (due, LOOK_WAIT_MAX)
    }
}
