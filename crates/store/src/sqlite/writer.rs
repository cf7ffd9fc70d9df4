//! The one thread that writes. It takes everything queued, runs it in one transaction, and answers after the commit.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
};

use rusqlite::Connection;
use utmos_core::ports::StoreError;

use super::{
    batch::Batch,
    checkpoint::WalSize,
    condition::Condition,
    fault::{Fault, again, to_store_error},
    nonces::Nonces,
    open,
    queue::{Job, Queue},
};
use crate::urgent::Lane;

pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) queue: Arc<Queue>,
    pub(super) wal: Arc<WalSize>,
    pub(super) condition: Arc<Condition>,
    /// `None` when it was lost and could not be opened again yet.
    pub(super) conn: Option<Connection>,
    /// The latest wall time this process knows to be on record.
    pub(super) newest: i64,
    pub(super) nonces: Nonces,
}

/// How a transaction went.
enum Attempt {
    Committed,
    /// This one failed, and with it the attempt; the others may go on without it.
    OneFailed(usize, StoreError),
    AllFailed(StoreError),
}

impl Writer {
    pub(super) fn run(mut self) {
        let queue = self.queue.clone();
        let written = catch_unwind(AssertUnwindSafe(|| {
            while let Some((lane, jobs)) = self.queue.next() {
                self.write(lane, jobs);
            }
        }));
        if written.is_err() {
            tracing::error!(
                "the store's writer ran into a bug and has stopped; restart the server"
            );
        }
        // Nobody may wait for a writer that is gone.
        queue.close();
        queue.clear();
    }

    /// Every job is answered here, or put back.
    fn write(&mut self, lane: Lane, mut jobs: VecDeque<Box<dyn Job>>) {
        let mut may_cut = lane == Lane::Normal;
        while !jobs.is_empty() {
            match self.attempt(&mut jobs, &mut may_cut) {
                Attempt::Committed => {
                    self.condition.written();
                    return answer_all(jobs, || Ok(()));
                }
                Attempt::AllFailed(error) => {
                    self.condition.not_written(&error);
                    return answer_all(jobs, || Err(again(&error)));
                }
                Attempt::OneFailed(at, error) => {
                    self.condition.met(&error);
                    if let Some(job) = jobs.remove(at) {
                        job.answer(Err(error));
                    }
                }
            }
        }
    }

    fn attempt(&mut self, jobs: &mut VecDeque<Box<dyn Job>>, may_cut: &mut bool) -> Attempt {
        let conn = match self.connection() {
            Ok(conn) => conn,
            Err(error) => return Attempt::AllFailed(error),
        };
        let outcome = transact(&conn, &self.queue, &mut self.nonces, self.newest, jobs, may_cut);
        let (attempt, keep) = match outcome {
            Ok(newest) => {
                self.newest = newest;
                (Attempt::Committed, true)
            }
            Err((at, fault)) => {
                self.nonces.undo();
                let rolled_back = conn.is_autocommit() || conn.execute_batch("ROLLBACK").is_ok();
                match (at, fault) {
                    (Some(at), Fault::Own(error)) => (Attempt::OneFailed(at, error), rolled_back),
                    (None, Fault::Own(error)) => (Attempt::AllFailed(error), rolled_back),
                    (_, Fault::Everyone { error, reopen }) => {
                        (Attempt::AllFailed(error), rolled_back && !reopen)
                    }
                }
            }
        };
        if keep {
            self.conn = Some(conn);
        }
        attempt
    }

    fn connection(&mut self) -> Result<Connection, StoreError> {
        match self.conn.take() {
            Some(conn) => Ok(conn),
            None => open::writer(&self.path, &self.wal).map_err(|err| to_store_error(&err)),
        }
    }
}

/// Runs `jobs` and whatever emergencies come in meanwhile, and commits. An emergency ends the batch: what has not run by
/// then goes back to its place.
fn transact(
    conn: &Connection,
    queue: &Queue,
    nonces: &mut Nonces,
    newest: i64,
    jobs: &mut VecDeque<Box<dyn Job>>,
    may_cut: &mut bool,
) -> Result<i64, (Option<usize>, Fault)> {
    nonces.begin();
    let begin = conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]));
    begin.map_err(|err| (None, err.into()))?;
    nonces.take_in(conn).map_err(|fault| (None, fault))?;
    let mut batch = Batch::new(conn, &mut *nonces, newest);
    let mut at = 0;
    while at < jobs.len() {
        if *may_cut && queue.urgent_waits() {
            *may_cut = false;
            let rest = jobs.split_off(at);
            queue.put_back(rest);
            jobs.append(&mut queue.take_urgent());
        }
        let Some(job) = jobs.get_mut(at) else { break };
        run(job.as_mut(), &mut batch).map_err(|fault| (Some(at), fault))?;
        at += 1;
    }
    let newest = batch.finish(newest).map_err(|fault| (None, fault))?;
    let commit = conn.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
    commit.map_err(|err| (None, everyone(&err)))?;
    nonces.settle();
    Ok(newest)
}

fn run(job: &mut dyn Job, batch: &mut Batch<'_>) -> Result<(), Fault> {
    // A bug in one write must not end the thread that all writes need.
    catch_unwind(AssertUnwindSafe(|| job.run(batch))).unwrap_or_else(|_| {
        Err(Fault::Own(StoreError::Unavailable(
            "this write ran into a bug of the store; see the log".to_owned(),
        )))
    })
}

/// A commit that failed failed for all; whether its sync happened is unknown, so the connection is not trusted either.
fn everyone(err: &rusqlite::Error) -> Fault {
    let (StoreError::Unavailable(text) | StoreError::Damaged(text)) = to_store_error(err);
    Fault::Everyone { error: StoreError::Unavailable(text), reopen: true }
}

fn answer_all(jobs: VecDeque<Box<dyn Job>>, outcome: impl Fn() -> Result<(), StoreError>) {
    for job in jobs {
        job.answer(outcome());
    }
}
