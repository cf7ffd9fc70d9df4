//! When nothing happens, time does: tells every command that is due, and what was kept back for long enough.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use utmos_core::{
    id::CommandId,
    life::{Input, Presence},
    time::Mono,
};

use super::{Inner, LaneKey, Told};

/// Sleeps no longer than this, so that a running time that jumps (a machine that slept) is noticed.
const LOOK_WAIT_MAX: Duration = Duration::from_secs(1);
/// Commands told in one go.
const DUE_PER_LOOK_MAX: usize = 1_000;
/// So long a confirmation waits for the device's answer, to be saved together with it. Nothing is lost by it: until it is
/// saved, the command stands as possibly sent.
const CONFIRMATION_KEPT_BACK: Duration = Duration::from_millis(20);

/// What time will do.
#[derive(Default)]
pub(super) struct Timers {
    due: BTreeSet<(Mono, CommandId)>,
    /// Commands whose confirmation was kept back, and until when. All are for the same time, so the first is the next. Most have
    /// been answered, and are gone, long before.
    kept_back: VecDeque<(Mono, CommandId)>,
    /// Nobody looks any more.
    over: bool,
}

impl Timers {
    /// Has a command be told when it is due. Answers whether whoever waits for the next one waits too long now.
    pub(super) fn set(&mut self, at: Mono, id: CommandId) -> bool {
        self.due.insert((at, id));
        self.due.first() == Some(&(at, id))
    }

    pub(super) fn unset(&mut self, at: Mono, id: CommandId) {
        self.due.remove(&(at, id));
    }

    /// Remembers that a confirmation is kept back. `None` when nothing can be any more; else as [`Self::set`].
    pub(super) fn keep_back(&mut self, now: Mono, id: CommandId) -> Option<bool> {
        if self.over {
            return None;
        }
        let is_first = self.kept_back.is_empty();
        self.kept_back.push_back((now.plus(CONFIRMATION_KEPT_BACK), id));
        Some(is_first)
    }

    /// Takes those that are due, up to a bound.
    fn take_due(&mut self, now: Mono) -> Vec<CommandId> {
        let mut due = Vec::new();
        while due.len() < DUE_PER_LOOK_MAX
            && let Some(&(at, id)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            due.push(id);
        }
        due
    }

    /// Takes those that were kept back for long enough.
    fn take_kept_back(&mut self, now: Mono) -> Vec<CommandId> {
        let count =
            self.kept_back.iter().take_while(|(until, _)| self.over || *until <= now).count();
        self.kept_back.drain(..count).map(|(_, id)| id).collect()
    }

    /// How long nothing happens.
    fn wait(&self, now: Mono) -> Duration {
        let due = self.due.first().map(|(at, _)| *at);
        let kept_back = self.kept_back.front().map(|(until, _)| *until);
        let next = due.into_iter().chain(kept_back).min();
        next.map_or(LOOK_WAIT_MAX, |next| next.since(now).min(LOOK_WAIT_MAX))
    }
}

impl Inner {
    pub(super) async fn run_timers(self: Arc<Self>) {
        loop {
            self.tell_kept_back();
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
                () = self.stopping.cancelled() => break,
                () = self.timer_moved.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.lock().timers.over = true;
        self.tell_kept_back();
    }

    /// Takes the timers that have passed, and says how long the next one has.
    fn take_due(&self) -> (Vec<CommandId>, Duration) {
        let now = self.clock.now().mono;
        let mut state = self.lock();
        let due = state.timers.take_due(now);
        (due, state.timers.wait(now))
    }

    /// Tells commands of confirmations for which no answer came in time.
    fn tell_kept_back(self: &Arc<Self>) {
        let now = self.clock.now().mono;
        let mut must_run: Vec<LaneKey> = Vec::new();
        {
            // In one step, or a command could be let go in between.
            let mut guard = self.lock();
            let state = &mut *guard;
            for id in state.timers.take_kept_back(now) {
                let Some(key) = state.homes.get(&id) else { continue };
                let Some(lane) = state.lanes.get_mut(key) else { continue };
                let Some(confirmed) = lane.kept_back(id) else { continue };
                let input = Box::new(confirmed);
                if lane.take_in(Told::Input { id, input, done: None }) {
                    must_run.push(key.clone());
                }
            }
        }
        for key in must_run {
            self.spawn_lane(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> CommandId {
        CommandId::new(Uuid::from_u128(number))
    }

    fn at(millis: u64) -> Mono {
        Mono::from_millis(millis)
    }

    #[test]
    fn whoever_waits_is_woken_for_what_comes_sooner_and_for_nothing_else() {
        let mut timers = Timers::default();
        assert_eq!(timers.wait(at(0)), LOOK_WAIT_MAX);
        assert!(timers.set(at(500), id(1)));
        assert!(!timers.set(at(600), id(2)));
        assert!(timers.set(at(400), id(3)));
        assert_eq!(timers.wait(at(100)), Duration::from_millis(300));
        timers.unset(at(400), id(3));
        assert_eq!(timers.take_due(at(499)), []);
        assert_eq!(timers.take_due(at(600)), [id(1), id(2)]);
        assert_eq!(timers.wait(at(600)), LOOK_WAIT_MAX);
    }

    #[test]
    fn confirmations_are_kept_back_for_as_long_as_that_lasts_and_no_longer_once_it_is_over() {
        let mut timers = Timers::default();
        timers.set(at(10_000), id(9));
        assert_eq!(timers.keep_back(at(100), id(1)), Some(true));
        assert_eq!(timers.keep_back(at(110), id(2)), Some(false));
        assert_eq!(timers.wait(at(100)), CONFIRMATION_KEPT_BACK);
        assert_eq!(timers.take_kept_back(at(119)), []);
        assert_eq!(timers.take_kept_back(at(120)), [id(1)]);
        assert_eq!(timers.wait(at(120)), Duration::from_millis(10));
        timers.over = true;
        assert_eq!(timers.take_kept_back(at(120)), [id(2)], "at once");
        assert_eq!(timers.keep_back(at(120), id(3)), None);
    }
}
