//! The connection of a writer: whether what goes on it arrives.
//!
//! A network that forgot a connection tells nobody, and a batch on it would wait for as long as the system waits. Whoever gives
//! signs of life on another connection asks PostgreSQL there what it does for the batch: one that is slow, or waits for a lock or
//! a standby, is at work on it, and is left in peace for as long as it needs. One that has nothing to do for a batch that waits for
//! its answer never got it, or its answer is lost.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::limits::{FLOW_LOOK_WAIT, FLOW_LOOKS, REOPEN_WAIT_MAX};

/// A connection, as PostgreSQL knows it: the number of its process, and when that began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) pid: i32,
    pub(super) began: String,
}

/// Something that was sent to PostgreSQL, and whose answer takes long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owed {
    /// By the writer for emergencies.
    pub(super) is_urgent: bool,
    flight: u64,
    pub(super) backend: Backend,
}

/// The connection of one writer.
#[derive(Default)]
pub(super) struct Flow {
    state: Mutex<State>,
    given_up: Notify,
}

#[derive(Default)]
struct State {
    backend: Option<Backend>,
    /// Of what was sent last: its number, and since when it waits for its answer.
    flight: u64,
    since: Option<Instant>,
    /// Since when its batch is under way.
    batch_since: Option<Instant>,
    /// How often in a row PostgreSQL had nothing to do for it.
    looks: u32,
    is_given_up: bool,
    /// A connection was given up, and nothing was answered since.
    is_lost: bool,
    /// Since when no connection can be made.
    unopened: Option<Instant>,
}

impl Flow {
    /// A batch begins.
    pub(super) fn begin(&self) {
        let mut state = self.lock();
        state.batch_since = Some(Instant::now());
        state.depart();
    }

    /// A part of it was answered, and the next is sent.
    pub(super) fn goes_on(&self) {
        self.lock().depart();
    }

    /// The batch is over, whatever came of it.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        (state.since, state.batch_since) = (None, None);
    }

    /// PostgreSQL has answered a whole batch, whatever it said.
    pub(super) fn answered(&self) {
        self.lock().is_lost = false;
    }

    /// This is the connection from now on.
    pub(super) fn opened(&self, backend: Backend) {
        let mut state = self.lock();
        (state.backend, state.unopened) = (Some(backend), None);
        state.depart();
    }

    /// There is none.
    pub(super) fn closed(&self) {
        self.lock().backend = None;
    }

    /// None could be made.
    pub(super) fn not_opened(&self) {
        self.lock().unopened.get_or_insert_with(Instant::now);
    }

    /// Returns when the connection is given up on which this batch went.
    pub(super) async fn given_up(&self) {
        loop {
            let heard = self.given_up.notified();
            if self.lock().is_given_up {
                return;
            }
            heard.await;
        }
    }

    /// For how long a batch has been under way.
    pub(super) fn silence(&self) -> Option<Duration> {
        self.lock().batch_since.map(|since| since.elapsed())
    }

    /// Whether a connection was given up, and nothing was answered since.
    pub(super) fn is_lost(&self) -> bool {
        self.lock().is_lost
    }

    /// What has waited for its answer for so long that PostgreSQL is to be asked about it.
    pub(super) fn owed(&self, is_urgent: bool) -> Option<Owed> {
        let state = self.lock();
        let is_long = state.since.is_some_and(|since| since.elapsed() >= FLOW_LOOK_WAIT);
        let backend = state.backend.clone().filter(|_| is_long && !state.is_given_up)?;
        Some(Owed { is_urgent, flight: state.flight, backend })
    }

    /// Takes note of whether PostgreSQL is at work on it. Answers whether the connection is given up with that.
    pub(super) fn looked(&self, owed: &Owed, is_at_work: bool) -> bool {
        let mut state = self.lock();
        if state.flight != owed.flight || state.since.is_none() {
            return false;
        }
        state.looks = if is_at_work { 0 } else { state.looks + 1 };
        state.is_given_up = state.looks >= FLOW_LOOKS;
        if state.is_given_up {
            state.is_lost = true;
            self.given_up.notify_waiters();
        }
        state.is_given_up
    }

    /// Whether what is written reaches PostgreSQL, as far as is known, where another connection has been answered since then.
    pub(super) fn is_reached(&self, answered_since: Instant) -> bool {
        let state = self.lock();
        let unopened = state.unopened.map(|since| since.max(answered_since).elapsed());
        !state.is_lost && state.looks == 0 && unopened.is_none_or(|lasts| lasts < REOPEN_WAIT_MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn depart(&mut self) {
        self.flight += 1;
        self.since = Some(Instant::now());
        (self.looks, self.is_given_up) = (0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend() -> Backend {
        Backend { pid: 7, began: "today".to_owned() }
    }

    /// One that waits for an answer since so long that it is asked about.
    async fn waiting() -> (Flow, Owed) {
        let flow = Flow::default();
        flow.opened(backend());
        flow.begin();
        assert_eq!(flow.owed(false), None, "it may be answered yet");
        tokio::time::advance(FLOW_LOOK_WAIT).await;
        let owed = flow.owed(false).unwrap_or_else(|| panic!("it waits"));
        (flow, owed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_is_slow_is_left_in_peace_however_long_it_takes() {
        let (flow, owed) = waiting().await;
        for _ in 0..1_000 {
            assert!(!flow.looked(&owed, true));
            // Now and then it is between two statements.
            assert!(!flow.looked(&owed, false));
            assert!(!flow.looked(&owed, true));
            assert!(flow.is_reached(Instant::now()));
            tokio::time::advance(FLOW_LOOK_WAIT).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_postgresql_does_nothing_for_is_given_up_and_only_that() {
        let (flow, owed) = waiting().await;
        assert!((1..FLOW_LOOKS).all(|_| !flow.looked(&owed, false)));
        assert!(!flow.is_reached(Instant::now()), "from the first look on");
        assert!(flow.looked(&owed, false));
        flow.given_up().await;
        // The next batch has nothing to do with that, and a late look at the one before says nothing of it.
        flow.end();
        flow.begin();
        assert!((0..FLOW_LOOKS).all(|_| !flow.looked(&owed, false)));
        let given_up = tokio::time::timeout(FLOW_LOOK_WAIT, flow.given_up());
        assert!(given_up.await.is_err());
        assert!(!flow.is_reached(Instant::now()), "nothing was answered yet");
        flow.answered();
        assert!(flow.is_reached(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_cannot_be_made_counts_where_another_is_answered_all_the_while() {
        let flow = Flow::default();
        flow.not_opened();
        tokio::time::advance(REOPEN_WAIT_MAX * 10).await;
        let restarted = Instant::now();
        assert!(flow.is_reached(restarted), "all have to connect anew");
        tokio::time::advance(REOPEN_WAIT_MAX).await;
        assert!(!flow.is_reached(restarted));
        flow.opened(backend());
        assert!(flow.is_reached(restarted));
    }
}
