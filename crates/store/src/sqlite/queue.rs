//! The way to the writer: two lanes, both bounded, and a gate that holds the writer back between two batches.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use utmos_core::ports::StoreError;

use super::{
    batch::Batch,
    fault::{Fault, closed},
    limits::{BATCH_MAX, GATHER_ENOUGH, GATHER_FROM, GATHER_WAIT, QUEUE_MAX, URGENT_QUEUE_MAX},
};
use crate::urgent::Lane;

/// A write that waits for its turn.
pub(super) trait Job: Send {
    /// Does the write. May run again after a batch was rolled back.
    fn run(&mut self, batch: &mut Batch<'_>) -> Result<(), Fault>;
    /// Tells the caller, once the batch is durable or given up.
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Task<T, F> {
    work: F,
    value: Option<T>,
    caller: oneshot::Sender<Result<T, StoreError>>,
    _place: OwnedSemaphorePermit,
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnMut(&mut Batch<'_>) -> Result<T, Fault> + Send,
{
    fn run(&mut self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        self.value = Some((self.work)(batch)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { value, caller, .. } = *self;
        // Whoever asked may be gone; the write stands.
        drop(caller.send(outcome.and_then(|()| value.ok_or_else(closed))));
    }
}

pub(super) struct Queue {
    state: Mutex<State>,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes whoever holds the gate.
    rest: Condvar,
    urgent_places: Arc<Semaphore>,
    normal_places: Arc<Semaphore>,
    urgent_waits: AtomicBool,
}

#[derive(Default)]
struct State {
    urgent: VecDeque<Box<dyn Job>>,
    normal: VecDeque<Box<dyn Job>>,
    closed: bool,
    writing: bool,
    /// The writer lets company come, and is not to be woken for each.
    gathering: bool,
    held: bool,
    /// How many the last batch held.
    last: usize,
    batches: u64,
}

impl State {
    /// Whether nothing speaks against waiting for company.
    fn should_gather(&self) -> bool {
        self.urgent.is_empty() && self.normal.len() < GATHER_ENOUGH && !self.closed && !self.held
    }
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            work: Condvar::new(),
            rest: Condvar::new(),
            urgent_places: Arc::new(Semaphore::new(URGENT_QUEUE_MAX)),
            normal_places: Arc::new(Semaphore::new(QUEUE_MAX)),
            urgent_waits: AtomicBool::new(false),
        }
    }

    /// Queues a write and waits until it is durable.
    pub(super) async fn submit<T, F>(&self, lane: Lane, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Batch<'_>) -> Result<T, Fault> + Send + 'static,
    {
        let places = match lane {
            Lane::Urgent => &self.urgent_places,
            Lane::Normal => &self.normal_places,
        };
        let place = places.clone().acquire_owned().await.map_err(|_| closed())?;
        let (caller, answer) = oneshot::channel();
        self.push(lane, Box::new(Task { work, value: None, caller, _place: place }))?;
        answer.await.map_err(|_| closed())?
    }

    pub(super) fn push(&self, lane: Lane, job: Box<dyn Job>) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.closed {
            return Err(closed());
        }
        match lane {
            Lane::Urgent => {
                state.urgent.push_back(job);
                self.urgent_waits.store(true, Ordering::Relaxed);
            }
            Lane::Normal => state.normal.push_back(job),
        }
        let is_awake = state.writing || (state.gathering && state.should_gather());
        drop(state);
        if !is_awake {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Waits for work and takes what is there, emergencies alone. `None` once the store is closed and all is written.
    pub(super) fn next(&self) -> Option<(Lane, VecDeque<Box<dyn Job>>)> {
        let mut state = self.lock();
        state.writing = false;
        if state.held {
            self.rest.notify_all();
        }
        if state.should_gather() && state.last >= GATHER_FROM {
            state.gathering = true;
            let gathered = self.work.wait_timeout_while(state, GATHER_WAIT, |s| s.should_gather());
            state = gathered.unwrap_or_else(PoisonError::into_inner).0;
            state.gathering = false;
        }
        loop {
            let is_empty = state.urgent.is_empty() && state.normal.is_empty();
            if is_empty && state.closed {
                return None;
            }
            if !is_empty && !state.held {
                break;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.writing = true;
        state.batches += 1;
        if !state.urgent.is_empty() {
            return Some((Lane::Urgent, self.take_urgent_of(&mut state)));
        }
        let count = state.normal.len().min(BATCH_MAX);
        state.last = count;
        Some((Lane::Normal, state.normal.drain(..count).collect()))
    }

    /// Whether emergencies came in while a batch is under way.
    pub(super) fn urgent_waits(&self) -> bool {
        self.urgent_waits.load(Ordering::Relaxed)
    }

    pub(super) fn take_urgent(&self) -> VecDeque<Box<dyn Job>> {
        self.take_urgent_of(&mut self.lock())
    }

    fn take_urgent_of(&self, state: &mut State) -> VecDeque<Box<dyn Job>> {
        self.urgent_waits.store(false, Ordering::Relaxed);
        std::mem::take(&mut state.urgent)
    }

    /// Puts back what a batch did not get to, in its order.
    pub(super) fn put_back(&self, jobs: VecDeque<Box<dyn Job>>) {
        let mut state = self.lock();
        for job in jobs.into_iter().rev() {
            state.normal.push_front(job);
        }
    }

    /// Takes no more writes; what is queued is still written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.urgent_places.close();
        self.normal_places.close();
        self.work.notify_all();
    }

    /// Gives up what is queued, and lets go whoever holds the gate.
    pub(super) fn clear(&self) {
        let mut state = self.lock();
        state.writing = false;
        let given_up = (std::mem::take(&mut state.urgent), std::mem::take(&mut state.normal));
        drop(state);
        self.rest.notify_all();
        drop(given_up);
    }

    /// Writes that are not answered yet: emergencies, and others.
    pub(super) fn depth(&self) -> (usize, usize) {
        let taken = |places: &Semaphore, max: usize| max.saturating_sub(places.available_permits());
        (taken(&self.urgent_places, URGENT_QUEUE_MAX), taken(&self.normal_places, QUEUE_MAX))
    }

    /// How many batches have begun, and whether none is under way or waiting.
    pub(super) fn activity(&self) -> (u64, bool) {
        let state = self.lock();
        let is_quiet = !state.writing && state.urgent.is_empty() && state.normal.is_empty();
        (state.batches, is_quiet)
    }

    /// Holds the writer back from its next batch and waits for the end of the present one.
    pub(super) fn hold(&self) -> Hold<'_> {
        let mut state = self.lock();
        state.held = true;
        while state.writing {
            state = self.rest.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        Hold(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer rests as long as this lives.
pub(super) struct Hold<'a>(&'a Queue);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.lock().held = false;
        self.0.work.notify_all();
    }
}
