//! The time of a trial: virtual, and wrong where the plan says so. Servers on one machine share its clocks; those whose clocks on the
//! wall are apart stand on a machine each, whose running time counts from a moment of its own.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};

use tokio::time::Instant;
use utmos_core::{
    replica::CLOCK_OFF_MAX_MS,
    time::{BootId, Clock, Deadline, Mono, Now, Timestamp},
};

use crate::{life::LifeLine, mutation::Mutation, plan::CLOCK_APART_MS};

/// What the wall shows when a trial begins.
const WALL_AT_START: i64 = 1_780_000_000_000;
/// What a machine's running time shows when it has just started, and how much more that of each next one.
const MONO_AT_BOOT: u64 = 1_000;
const MONO_APART: u64 = 7_000;

/// What the time of a trial shows, for whoever looks from outside.
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU64);

impl Progress {
    /// In milliseconds, as of the last time that somebody in the trial asked.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Ticks with the runtime's paused clock.
#[derive(Debug)]
pub(crate) struct TrialClock {
    start: Instant,
    progress: Arc<Progress>,
    wall_off_by: AtomicI64,
    /// Servers stand on a machine each: who sets the clock sets theirs, and not the store's.
    is_apart: bool,
    machines_off_by: AtomicI64,
    /// Somebody has set those clocks right that were too far off.
    are_right: AtomicBool,
    /// When somebody set the clock, in milliseconds of the trial.
    set_at: Mutex<Vec<u64>>,
    /// When each run of the machine began, in milliseconds of the trial.
    boots: Mutex<Vec<u64>>,
    mutation: Option<Mutation>,
}

impl TrialClock {
    pub(crate) fn new(mutation: Option<Mutation>, is_apart: bool) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            progress: Arc::default(),
            wall_off_by: AtomicI64::new(0),
            is_apart,
            machines_off_by: AtomicI64::new(0),
            are_right: AtomicBool::new(false),
            set_at: Mutex::default(),
            boots: Mutex::new(vec![0]),
            mutation,
        })
    }

    /// Milliseconds since the trial began: the only time that nothing moves.
    pub(crate) fn elapsed(&self) -> u64 {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.progress.0.store(elapsed, Ordering::Relaxed);
        elapsed
    }

    /// Whoever could not start, or do its work, for its clock can do so now.
    pub(crate) fn set_right(&self) {
        self.are_right.store(true, Ordering::Relaxed);
    }

    /// By how much a clock is ahead now that was so far ahead at first. One that is right enough stays so, however it is set.
    pub(crate) fn still_ahead(&self, ahead: i64) -> i64 {
        if ahead.abs() > CLOCK_OFF_MAX_MS {
            return if self.are_right.load(Ordering::Relaxed) { 0 } else { ahead };
        }
        let set = ahead + self.machines_off_by.load(Ordering::Relaxed) + CLOCK_APART_MS;
        set.rem_euclid(2 * CLOCK_APART_MS + 1) - CLOCK_APART_MS
    }

    pub(crate) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    pub(crate) fn set_wall(&self, by: i64) {
        if self.is_apart {
            self.machines_off_by.fetch_add(by, Ordering::Relaxed);
            return;
        }
        self.wall_off_by.fetch_add(by, Ordering::Relaxed);
        if by != 0 {
            let now = self.elapsed();
            self.set_at.lock().unwrap_or_else(PoisonError::into_inner).push(now);
        }
    }

    /// Whether nobody can know how much time passed between the two: the machine restarted, after which only the wall can
    /// tell, and somebody has moved the wall meanwhile.
    pub(crate) fn is_lost_between(&self, from: u64, to: u64) -> bool {
        let is_between = |at: &u64| (from..=to).contains(at);
        let mut restarts = self.boots().clone().into_iter().skip(1);
        let set_at = self.set_at.lock().unwrap_or_else(PoisonError::into_inner);
        restarts.any(|at| is_between(&at)) && set_at.iter().any(is_between)
    }

    /// Whether somebody has moved the wall between the two.
    pub(crate) fn is_set_between(&self, from: u64, to: u64) -> bool {
        let set_at = self.set_at.lock().unwrap_or_else(PoisonError::into_inner);
        set_at.iter().any(|at| (from..=to).contains(at))
    }

    pub(crate) fn reboot(&self) {
        let now = self.elapsed();
        self.boots().push(now);
    }

    fn boots(&self) -> MutexGuard<'_, Vec<u64>> {
        self.boots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a deadline passes, in milliseconds of the trial; `None` when a mutation has made it something else.
    pub(crate) fn elapsed_at(&self, deadline: Deadline) -> Option<u64> {
        if matches!(self.mutation, Some(Mutation::DeadlineOnTheWall | Mutation::BootsMixedUp)) {
            return None;
        }
        let BootId(boot) = deadline.boot;
        let number = u64::from_be_bytes(boot.first_chunk().copied()?);
        let booted = *self.boots().get(usize::try_from(number).ok()?.checked_sub(1)?)?;
        let at_boot = mono_at_boot(boot.last().copied()?);
        Some(booted + deadline.mono.as_millis().saturating_sub(at_boot))
    }

    /// What the wall shows of a machine whose clock is right: that of the store, and of callers.
    pub(crate) fn wall(&self) -> i64 {
        self.wall_at(self.elapsed())
    }

    fn wall_at(&self, elapsed: u64) -> i64 {
        let passed = i64::try_from(elapsed).unwrap_or(i64::MAX);
        WALL_AT_START + passed + self.wall_off_by.load(Ordering::Relaxed)
    }
}

fn mono_at_boot(machine: u8) -> u64 {
    MONO_AT_BOOT + u64::from(machine) * MONO_APART
}

/// The clocks of the machine of a server.
#[derive(Debug)]
pub(crate) struct MachineClock {
    pub(crate) trial: Arc<TrialClock>,
    /// Nought where there is but one.
    pub(crate) machine: u8,
    /// By how many milliseconds its wall is ahead of the store's, until it is set right.
    pub(crate) ahead: i64,
    /// Whose it is: what stands still sees no time pass.
    pub(crate) line: LifeLine,
}

impl Clock for MachineClock {
    fn now(&self) -> Now {
        let trial = &self.trial;
        let elapsed = trial.elapsed();
        let elapsed = self.line.still().since().unwrap_or(elapsed);
        let wall = trial.wall_at(elapsed) + trial.still_ahead(self.ahead);
        let booted = trial.boots().last().copied().unwrap_or(0);
        let running = mono_at_boot(self.machine) + elapsed.saturating_sub(booted);
        let mono = match trial.mutation {
            Some(Mutation::DeadlineOnTheWall) => u64::try_from(wall).unwrap_or(0),
            Some(_) | None => running,
        };
        Now { wall: Timestamp::from_millis(wall), mono: Mono::from_millis(mono) }
    }

    fn boot(&self) -> BootId {
        let boots = match self.trial.mutation {
            Some(Mutation::BootsMixedUp | Mutation::DeadlineOnTheWall) => 1,
            Some(_) | None => self.trial.boots().len() as u64,
        };
        let mut id = [0; 16];
        id[..8].copy_from_slice(&boots.to_be_bytes());
        id[15] = self.machine;
        BootId(id)
    }
}
