//! The thread that has the journal's file to itself: a slow disk holds up nobody but whoever waits for it, and those not
//! for long.

use std::{
    io,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use tokio::sync::oneshot;
use utmos_core::ports::StoreError;

use super::file::JournalFile;

/// How long an emergency waits for the journal.
pub(super) const WRITE_PATIENCE: Duration = Duration::from_secs(2);

type Job = Box<dyn FnOnce(&mut JournalFile) + Send>;

/// Whoever waits for a job. Closed when they went away, for example because it took too long.
pub(super) type Caller<T> = oneshot::Sender<Result<T, StoreError>>;

pub(super) struct Disk {
    /// `None` once it is to end.
    jobs: Option<mpsc::Sender<Job>>,
    /// Never told anything: it closes when the thread has ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl Disk {
    pub(super) fn start(mut file: JournalFile) -> io::Result<Self> {
        let (jobs, work) = mpsc::channel::<Job>();
        let (alive, ended) = mpsc::channel();
        thread::Builder::new().name("store-journal".to_owned()).spawn(move || {
            for job in work {
                job(&mut file);
            }
            // The lock on the file ends before anybody hears of it.
            drop(file);
            drop(alive);
        })?;
        Ok(Self { jobs: Some(jobs), ended: Mutex::new(ended) })
    }

    /// Runs a job when its turn comes and waits for its answer. A job whose caller is gone by then is not begun; one
    /// that finds its caller gone at its end has to undo what it did.
    pub(super) async fn run<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut JournalFile, Caller<T>) + Send + 'static,
    {
        let ended = || StoreError::Unavailable("the emergency journal is closed".to_owned());
        let (caller, mut answer) = oneshot::channel();
        let job = move |file: &mut JournalFile| {
            if !caller.is_closed() {
                job(file, caller);
            }
        };
        self.jobs.as_ref().ok_or_else(ended)?.send(Box::new(job)).map_err(|_| ended())?;
        match tokio::time::timeout(WRITE_PATIENCE, &mut answer).await {
            Ok(answer) => answer.map_err(|_| ended())?,
            Err(_) => {
                // It may have come at the last moment.
                answer.close();
                answer.try_recv().unwrap_or_else(|_| {
                    Err(StoreError::Unavailable(
                        "the disk takes too long for the emergency journal".to_owned(),
                    ))
                })
            }
        }
    }
}

impl Drop for Disk {
    /// Waits for the thread, so that the file is free for the next server; not for ever, should the disk hang.
    fn drop(&mut self) {
        self.jobs = None;
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(WRITE_PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::error!("the disk takes too long for the emergency journal; it was left alone");
        }
    }
}
