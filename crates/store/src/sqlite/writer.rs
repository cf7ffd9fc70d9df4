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
    /// What can wait was tried and cannot be done, so that it holds up no batch until the next start.
    pub(super) leaves_untidy: bool,
}

/// How a transaction went.
enum Attempt {
    Committed,
    /// This one failed, and with it the attempt; the others may go on without it.
    OneFailed(usize, StoreError),
    /// The nonces of those who only read cannot be taken in; everything else may go on without them.
    ReadersFailed(StoreError),
    /// The nonces of the batch cannot be written together; each goes with its own write then.
    NoncesFailed(StoreError),
    /// What can wait cannot be done; everything else may go on without it.
    TidyingFailed(StoreError),
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
                Attempt::ReadersFailed(error) => {
                    self.condition.met(&error);
                    tracing::error!(
                        "reading waits for the database from now on, and the next start takes in what was answered: {error}"
                    );
                    self.nonces.leave_quick();
                }
                Attempt::NoncesFailed(error) => {
                    self.condition.met(&error);
                    tracing::error!("nonces are written one by one from now on: {error}");
                    self.nonces.go_one_by_one();
                }
                Attempt::TidyingFailed(error) => {
                    self.condition.met(&error);
                    tracing::error!(
                        "commands are not sorted for lists any more, which take longer until that is mended: {error}"
                    );
                    self.leaves_untidy = true;
                }
            }
        }
    }

    fn attempt(&mut self, jobs: &mut VecDeque<Box<dyn Job>>, may_cut: &mut bool) -> Attempt {
        let conn = match self.connection() {
            Ok(conn) => conn,
            Err(error) => return Attempt::AllFailed(error),
        };
        let tidy = !self.leaves_untidy;
        let outcome =
            transact(&conn, &self.queue, &mut self.nonces, self.newest, jobs, may_cut, tidy);
        let (attempt, keep) = match outcome {
            Ok(newest) => {
                self.newest = newest;
                (Attempt::Committed, true)
            }
            Err((part, fault)) => {
                self.nonces.undo();
                let rolled_back = conn.is_autocommit() || conn.execute_batch("ROLLBACK").is_ok();
                match (part, fault) {
                    (Part::Job(at), Fault::Own(error)) => {
                        (Attempt::OneFailed(at, error), rolled_back)
                    }
                    (Part::Readers, Fault::Own(error)) => {
                        (Attempt::ReadersFailed(error), rolled_back)
                    }
                    (Part::Nonces, Fault::Own(error)) => {
                        (Attempt::NoncesFailed(error), rolled_back)
                    }
                    (Part::Tidying, Fault::Own(error)) => {
                        (Attempt::TidyingFailed(error), rolled_back)
                    }
                    (Part::Whole, Fault::Own(error)) => (Attempt::AllFailed(error), rolled_back),
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

/// What of a transaction failed.
enum Part {
    Job(usize),
    /// Taking in the nonces of those who only read.
    Readers,
    /// Writing what nonces the batch spent.
    Nonces,
    /// Sorting commands for lists.
    Tidying,
    Whole,
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
    may_tidy: bool,
) -> Result<i64, (Part, Fault)> {
    nonces.begin();
    let begin = conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]));
    begin.map_err(|err| (Part::Whole, err.into()))?;
    // An emergency waits for nobody who reads.
    if *may_cut {
        nonces.take_in(conn).map_err(|fault| (Part::Readers, fault))?;
    }
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
        run(job.as_mut(), &mut batch).map_err(|fault| (Part::Job(at), fault))?;
        at += 1;
    }
    if may_tidy && *may_cut && !queue.urgent_waits() {
        batch.tidy().map_err(|fault| (Part::Tidying, fault))?;
    }
    let newest = batch.finish(newest).map_err(|fault| (Part::Whole, fault))?;
    nonces.pay(conn).map_err(|fault| (Part::Nonces, fault))?;
    let commit = conn.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
    commit.map_err(|err| (Part::Whole, everyone(&err)))?;
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use utmos_core::{signing::NonceUse, time::Timestamp};

    use super::{super::quick::Desk, *};

    #[test]
    fn an_emergency_does_not_wait_for_those_who_read() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("../../migrations/sqlite/0001_first.sql")).unwrap();
        conn.execute_batch(include_str!("../../migrations/sqlite/0002_nonces_in_order.sql"))
            .unwrap();
        conn.execute_batch(include_str!("../../migrations/sqlite/0010_nonces_together.sql"))
            .unwrap();
        let desk = Arc::new(Desk::default());
        let mut nonces = Nonces::load(&conn, desk.clone()).unwrap();
        let expires_at = Timestamp::from_millis(9);
        desk.put_in_file(NonceUse { key: [1; 16], expires_at });
        let mut transact = |mut may_cut: bool| {
            let queue = Queue::new();
            let jobs = &mut VecDeque::new();
            assert!(
                super::transact(&conn, &queue, &mut nonces, 0, jobs, &mut may_cut, true).is_ok()
            );
            let count = "SELECT count(*) FROM nonces";
            conn.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(transact(false), 0);
        assert_eq!(transact(true), 1);
        assert_eq!(transact(true), 1, "once");
    }
}
