//! The one thread that writes the history: whatever is queued, in one transaction.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use utmos_core::ports::StoreError;

use crate::sqlite::fault::{again, closed, to_store_error};

/// Writes that may wait; further callers wait for a place.
const QUEUE_MAX: usize = 1_024;
/// Writes that share a transaction.
const BATCH_MAX: usize = 256;

/// A write that waits.
trait Job: Send {
    /// Does it. May run again after a transaction was rolled back.
    fn run(&mut self, tx: &Transaction<'_>) -> rusqlite::Result<()>;
    /// Tells the caller.
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
    F: FnMut(&Transaction<'_>) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        self.value = Some((self.work)(tx)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let value = match (outcome, self.value) {
            (Ok(()), Some(value)) => Ok(value),
            (Ok(()), None) => Err(closed()),
            (Err(error), _) => Err(error),
        };
        // Whoever does not wait any more needs no answer.
        drop(self.caller.send(value));
    }
}

pub(super) struct Writer {
    /// `None` once closed.
    queue: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    places: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(mut conn: Connection) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel::<Box<dyn Job>>();
        let thread =
            std::thread::Builder::new().name("history-writer".to_owned()).spawn(move || {
                while let Ok(first) = jobs.recv() {
                    let more = jobs.try_iter().take(BATCH_MAX - 1);
                    let batch: Vec<_> = std::iter::once(first).chain(more).collect();
                    write(&mut conn, batch);
                }
            })?;
        Ok(Self {
            queue: Mutex::new(Some(queue)),
            places: Arc::new(Semaphore::new(QUEUE_MAX)),
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(super) async fn submit<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let place = self.places.clone().acquire_owned().await.map_err(|_| closed())?;
        let (caller, told) = oneshot::channel();
        let task = Task { work, value: None, caller, _place: place };
        let sent = {
            let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.as_ref().is_some_and(|queue| queue.send(Box::new(task)).is_ok())
        };
        if !sent {
            return Err(closed());
        }
        told.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Writes what is queued and ends.
    pub(super) async fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && !matches!(tokio::task::spawn_blocking(move || thread.join()).await, Ok(Ok(())))
        {
            tracing::error!("the history's writer ended badly");
        }
    }
}

/// All in one transaction; where that fails each in one of its own, so that one bad write takes no other with it.
fn write(conn: &mut Connection, mut batch: Vec<Box<dyn Job>>) {
    if let Err(err) = transact(conn, &mut batch) {
        if batch.len() == 1 {
            let error = to_store_error(&err);
            return batch.into_iter().for_each(|job| job.answer(Err(again(&error))));
        }
        return batch.into_iter().for_each(|job| write(conn, vec![job]));
    }
    batch.into_iter().for_each(|job| job.answer(Ok(())));
}

fn transact(conn: &mut Connection, batch: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for job in batch {
        job.run(&tx)?;
    }
    tx.commit()
}
