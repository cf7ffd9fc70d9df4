//! Requests that only read are answered before their nonce is in the database, and are refused all the same when they come
//! again, whatever happens to the process or the machine.
//!
//! Such a nonce is written to a small file and not synced: a process that dies takes nothing of it along, and the next one
//! puts it into the database before it answers anything. A machine that goes down can take it along. So only requests whose
//! timestamp is in a span go this way, and that span is synced in the database before. After a power cut (another boot,
//! or a file that is not the one the database names) whatever was signed in the span is refused, answered or not, and nothing
//! else. It goes along with the clock, from some seconds behind it to some seconds ahead. All others wait for the
//! database, and so does everybody while the database is unwell.

mod kept;
mod ring;
mod span;
mod state;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use rusqlite::Connection;
use tokio::sync::oneshot;
use utmos_core::{
    ports::{ReadNonce, StoreError},
    signing::{NonceUse, RequestTimes},
    time::{BootId, Timestamp},
};

use self::{
    kept::Kept,
    ring::RingId,
    span::{Span, Spans},
    state::{Spent, State, Way},
};
use super::{
    SqliteStore,
    batch::Batch,
    condition::Condition,
    fault::{Fault, closed, to_store_error},
    limits::BATCH_MAX,
    nonces::KnownNonces,
    queue::{Job, Queue},
};
use crate::urgent::Lane;

/// The state, and those who wait for the file.
#[derive(Default)]
pub(super) struct Desk {
    inside: Mutex<Inside>,
    /// Wakes the thread that writes.
    news: Condvar,
}

#[derive(Default)]
struct Inside {
    state: State,
    /// Who waits for what is being written, in the same order.
    waiting: VecDeque<(Spent, oneshot::Sender<bool>)>,
    /// The writer of the database has been told that there is something for it.
    is_told: bool,
    closed: bool,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes into the transaction that begins.
    pub(super) fn take(&self, most: usize) -> Vec<NonceUse> {
        self.lock().state.take(most)
    }

    /// The transaction stands.
    pub(super) fn saved(&self) {
        self.lock().state.saved();
    }

    /// It came to nothing.
    pub(super) fn not_saved(&self) {
        self.lock().state.not_saved();
    }

    /// The database does not take them in: they stay in the file, and the span in the database.
    pub(super) fn give_up(&self) {
        self.lock().state.give_up();
    }

    /// One that is in the file already.
    #[cfg(test)]
    pub(super) fn put_in_file(&self, nonce: NonceUse) {
        let mut inside = self.lock();
        inside.state.give(Spent { nonce, signed_at: Timestamp::from_millis(0) });
        inside.state.written(1, true);
    }

    fn close(&self) {
        let mut inside = self.lock();
        inside.closed = true;
        inside.state.turn_off();
        drop(inside);
        self.news.notify_all();
    }

    /// Waits for some that are to be written. `None` when there are none and will be none.
    fn next(&self) -> Option<Vec<(Spent, oneshot::Sender<bool>)>> {
        let inside = self.lock();
        let mut inside = self
            .news
            .wait_while(inside, |inside| inside.waiting.is_empty() && !inside.closed)
            .unwrap_or_else(PoisonError::into_inner);
        let count = inside.waiting.len().min(BATCH_MAX);
        let taken: Vec<_> = inside.waiting.drain(..count).collect();
        (!taken.is_empty()).then_some(taken)
    }
}

/// The quick way.
#[derive(Clone)]
pub(super) struct Quick {
    desk: Arc<Desk>,
    known: KnownNonces,
    queue: Arc<Queue>,
    condition: Arc<Condition>,
    writing: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Quick {
    pub(super) fn new(
        desk: Arc<Desk>,
        known: KnownNonces,
        queue: Arc<Queue>,
        condition: Arc<Condition>,
    ) -> Self {
        Self { desk, known, queue, condition, writing: Arc::default() }
    }

    /// Spends a nonce the quick way. `None` when it is to be spent the other way.
    pub(super) async fn spend(&self, nonce: NonceUse, times: RequestTimes) -> Option<ReadNonce> {
        let answer = {
            let mut inside = self.desk.lock();
            if let Some(target) = inside.state.renewal(times.came_at) {
                let renewal = Renewal { quick: self.clone(), target, is_put: false };
                if self.queue.push(Lane::Normal, Box::new(renewal)).is_err() {
                    inside.state.renewed(None);
                }
            }
            match inside.state.judge(times) {
                Way::Unclear(up_to) => return Some(ReadNonce::Unclear { up_to }),
                Way::Durable => return None,
                Way::Quick => {}
            }
            if self.condition.trouble().is_some() {
                return None;
            }
            if !self.known.insert(nonce.key) {
                return Some(ReadNonce::Replayed);
            }
            let (told, answer) = oneshot::channel();
            let spent = Spent { nonce, signed_at: times.signed_at };
            inside.state.give(spent);
            inside.waiting.push_back((spent, told));
            answer
        };
        self.desk.news.notify_one();
        match answer.await {
            Ok(true) => Some(ReadNonce::Spent),
            Ok(false) | Err(_) => None,
        }
    }

    /// Writes to the file until the store is closed, or nothing can be written.
    fn write(&self, file: &File, id: &RingId) {
        let mut number = 0;
        while let Some(taken) = self.desk.next() {
            let written = write_at(file, id, number, &taken);
            if let Err(err) = &written {
                tracing::warn!("reading waits for the database from now on: {err}");
                // What waits for the other way is spent there.
                taken.iter().for_each(|(spent, _)| self.known.remove(&spent.nonce.key));
            }
            let mut inside = self.desk.lock();
            inside.state.written(taken.len(), written.is_ok());
            match &written {
                Ok(()) => {
                    number += taken.len() as u64;
                    self.tell(&mut inside);
                }
                Err(_) => inside.state.turn_off(),
            }
            drop(inside);
            for (_, told) in taken {
                // Whoever asked may be gone.
                let _gone = told.send(written.is_ok());
            }
        }
    }

    /// Has the writer of the database take in what waits.
    fn tell(&self, inside: &mut Inside) {
        if inside.is_told || !inside.state.is_waiting() {
            return;
        }
        inside.is_told = self.queue.push(Lane::Normal, Box::new(Wake(self.clone()))).is_ok();
    }

    /// Ends it; what is on its way gets into the file.
    pub(super) fn close(&self) {
        self.desk.close();
    }

    fn end_of_writing(&self) -> Option<JoinHandle<()>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn write_at(
    file: &File,
    id: &RingId,
    mut number: u64,
    mut spent: &[(Spent, oneshot::Sender<bool>)],
) -> io::Result<()> {
    while !spent.is_empty() {
        let (now, later) = spent.split_at(spent.len().min(ring::in_a_row(number)));
        let bytes: Vec<u8> =
            now.iter().flat_map(|(spent, _)| ring::record(id, &spent.nonce)).collect();
        file.write_all_at(&bytes, ring::place(number))?;
        number += now.len() as u64;
        spent = later;
    }
    Ok(())
}

/// Nothing but an occasion: every transaction takes in what waits.
struct Wake(Quick);

impl Job for Wake {
    fn run(&mut self, _: &mut Batch<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let mut inside = self.0.desk.lock();
        inside.is_told = false;
        if outcome.is_ok() {
            self.0.tell(&mut inside);
        }
    }
}

/// Puts a new span into the database, if it may be.
struct Renewal {
    quick: Quick,
    target: Span,
    is_put: bool,
}

impl Job for Renewal {
    fn run(&mut self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        self.is_put = self.quick.desk.lock().state.may_move(self.target);
        if self.is_put {
            kept::put_quick(batch.conn, Some(self.target))?;
        }
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let put = (self.is_put && outcome.is_ok()).then_some(self.target);
        self.quick.desk.lock().state.renewed(put);
    }
}

impl SqliteStore {
    /// From now on requests that only read are answered before their nonce is in the database, and what an earlier process so
    /// answered is spent. For whoever has this database to itself: another process would not know of such a nonce at once.
    ///
    /// # Errors
    /// When the database cannot be read or written. A file that cannot be is only told of in the log.
    pub async fn read_quickly(&self, boot: BootId) -> Result<(), StoreError> {
        let path = self.ring_path();
        let (file, found) = blocking(move || Ok(open_ring(&path))).await?;
        let id = RingId::from(*uuid::Uuid::new_v4().as_bytes());
        let taken_in = self.take_in_ring(found.clone(), boot, id).await;
        let file = match taken_in {
            Ok(refused) => {
                self.quick.desk.lock().state.refuse(refused);
                file
            }
            Err(error) => {
                self.bear_in_mind(found, boot).await?;
                Err(io::Error::other(error))
            }
        };
        let begun = match file {
            Ok(file) => blocking(move || Ok(begin_ring(&file, &id).map(|()| file))).await?,
            Err(err) => Err(err),
        };
        let quick = self.quick.clone();
        let begun = begun.and_then(|file| {
            let write = move || quick.write(&file, &id);
            std::thread::Builder::new().name("store-nonces".to_owned()).spawn(write)
        });
        match begun {
            Ok(writing) => {
                let mut place = self.quick.writing.lock().unwrap_or_else(PoisonError::into_inner);
                *place = Some(writing);
                self.quick.desk.lock().state.turn_on();
            }
            Err(err) => tracing::warn!(
                path = %self.ring_path().display(),
                "this file cannot be used, so reading waits for the database: {err}"
            ),
        }
        Ok(())
    }

    /// The last time at which a request that only reads may have been signed, answered, and forgotten; `None` when there is
    /// none. Whoever takes the database elsewhere waits until nobody can send it again.
    #[must_use]
    pub fn reads_refused_up_to(&self) -> Option<Timestamp> {
        self.quick.desk.lock().state.refused().last()
    }

    /// The database cannot be written: what is refused is so for the time of this process, and the file stays as it is.
    async fn bear_in_mind(
        &self,
        found: Option<(RingId, Vec<NonceUse>)>,
        boot: BootId,
    ) -> Result<(), StoreError> {
        let read = |conn: &Connection| Kept::read(conn).map_err(|err| to_store_error(&err));
        let before = self.readers.read(read).await?;
        let refused = before.refused_at_start(boot, found.as_ref().map(|(id, _)| id));
        self.quick.desk.lock().state.refuse(refused);
        for nonce in found.into_iter().flat_map(|(_, nonces)| nonces) {
            self.quick.known.insert(nonce.key);
        }
        Ok(())
    }

    /// Takes over what the file has, and notes which ring comes next. Answers what is refused.
    async fn take_in_ring(
        &self,
        found: Option<(RingId, Vec<NonceUse>)>,
        boot: BootId,
        next: RingId,
    ) -> Result<Spans, StoreError> {
        self.write(Lane::Normal, move |batch| {
            let before = Kept::read(batch.conn)?;
            // Another process may have had the database until a moment ago.
            batch.nonces.catch_up(batch.conn)?;
            // Whichever ring it is: they were spent, and most are there already.
            for nonce in found.iter().flat_map(|(_, nonces)| nonces) {
                batch.nonces.spend(batch.conn, *nonce)?;
            }
            let refused = before.refused_at_start(boot, found.as_ref().map(|(id, _)| id));
            let kept =
                Kept { refused, quick: None, boot: Some(boot.0), ring: Some(next) };
            kept.write(batch.conn)?;
            if kept.refused != before.refused
                && let Some(span) = before.quick
            {
                tracing::warn!(
                    from = %span.from,
                    up_to = %span.to,
                    "the machine went down unexpectedly: what was signed in this time to read is refused, since it may have been answered"
                );
            }
            Ok(kept.refused)
        })
        .await
    }

    /// The orderly end: everything is in the database, and says so.
    pub(super) async fn end_quick_reads(&self) {
        self.quick.close();
        let Some(writing) = self.quick.end_of_writing() else { return };
        if blocking(move || Ok(writing.join())).await.is_err() {
            return;
        }
        let desk = &self.quick.desk;
        for _ in 0..=ring::RECORDS / BATCH_MAX {
            let desk = desk.clone();
            let ended = self.write(Lane::Normal, move |batch| {
                let (is_done, is_given_up) = {
                    let inside = desk.lock();
                    (inside.state.is_done(), inside.state.is_given_up())
                };
                if is_done {
                    kept::put_quick(batch.conn, None)?;
                }
                Ok(is_done || is_given_up)
            });
            match ended.await {
                Ok(false) => {}
                // Else the next start finds them in the file.
                Ok(true) | Err(_) => return,
            }
        }
    }

    fn ring_path(&self) -> PathBuf {
        path_of(&self.path)
    }
}

/// The file beside a database.
pub(super) fn path_of(database: &Path) -> PathBuf {
    database.with_added_extension("nonces")
}

type Opened = (io::Result<File>, Option<(RingId, Vec<NonceUse>)>);

fn open_ring(path: &Path) -> Opened {
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let read = opened.and_then(|file| {
        let mut bytes = Vec::new();
        Read::take(&file, ring::BYTES as u64).read_to_end(&mut bytes)?;
        Ok((file, bytes))
    });
    match read {
        Ok((file, bytes)) => (Ok(file), ring::read(&bytes)),
        Err(err) => (Err(err), None),
    }
}

/// Makes it anew, in space that is set aside.
fn begin_ring(file: &File, id: &RingId) -> io::Result<()> {
    file.write_all_at(&ring::blank(id), 0)?;
    file.set_len(ring::BYTES as u64)?;
    file.sync_all()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(closed()))
}
