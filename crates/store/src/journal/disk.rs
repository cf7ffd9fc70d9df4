//! Whoever has the journal's file to itself, a thread: a slow disk holds up nobody but whoever waits for it, and those not
//! for long.

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use tokio::sync::{
    mpsc::{self as jobs, UnboundedReceiver, UnboundedSender},
    oneshot,
};
use utmos_core::ports::StoreError;

use super::file::JournalFile;

/// How long an emergency waits for the journal.
pub(super) const WRITE_PATIENCE: Duration = Duration::from_secs(2);

type Job = Box<dyn FnOnce(&mut JournalFile) + Send>;

/// Whoever waits for a job. Closed when they went away, for example because it took too long.
pub(super) type Caller<T> = oneshot::Sender<Result<T, StoreError>>;

/// Writes the journal of one [`super::JournalledStore`], one job after another. Ends with it.
pub struct JournalWriter {
    file: JournalFile,
    work: UnboundedReceiver<Job>,
}

impl JournalWriter {
    /// Waits for a job. `None` once there will be no more.
    pub async fn next(&mut self) -> Option<JournalJob> {
        self.work.recv().await.map(JournalJob)
    }

    /// Does a job: what it writes is synced when this returns, or refused.
    pub fn perform(&mut self, JournalJob(job): JournalJob) {
        job(&mut self.file);
    }

    /// Does every job until there will be no more, on a thread of its own.
    fn start_thread(mut self) -> io::Result<mpsc::Receiver<()>> {
        let (alive, ended) = mpsc::channel();
        thread::Builder::new().name("store-journal".to_owned()).spawn(move || {
            while let Some(job) = self.work.blocking_recv() {
                job(&mut self.file);
            }
            // The lock on the file ends before anybody hears of it.
            drop(self);
            drop(alive);
        })?;
        Ok(ended)
    }
}

/// Something that is to be written.
pub struct JournalJob(Job);

pub(super) struct Disk {
    /// `None` once it is to end.
    jobs: Option<UnboundedSender<Job>>,
    /// Never told anything: it closes when the thread has ended, where there is one.
    ended: Option<Mutex<mpsc::Receiver<()>>>,
}

impl Disk {
    /// With a thread of its own.
    pub(super) fn start(file: JournalFile) -> io::Result<Self> {
        let (mut disk, writer) = Self::with_writer(file);
        disk.ended = Some(Mutex::new(writer.start_thread()?));
        Ok(disk)
    }

    /// Its jobs are done by whoever has the writer.
    pub(super) fn with_writer(file: JournalFile) -> (Self, JournalWriter) {
        let (jobs, work) = jobs::unbounded_channel();
        (Self { jobs: Some(jobs), ended: None }, JournalWriter { file, work })
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
        let Some(ended) = &mut self.ended else { return };
        let ended = ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(WRITE_PATIENCE) == Err(RecvTimeoutError::Timeout) {
            tracing::error!("the disk takes too long for the emergency journal; it was left alone");
        }
    }
}
