//! A real store beside the one of the trials. It is given every write that reaches the disk of a trial, and is asked
//! whatever that is asked; where the two answer differently, one of them is wrong. It dies with the processes.
//!
//! Its threads know nothing of the trial's time. So the trial stands still until it has answered: in the trial's time, it
//! answers at once. What the trial's store writes as one group is asked of it all at once, and its answers are awaited
//! together. Where the trial's store refuses, its connection is read-only until it is opened anew: it says itself what it could
//! not write, and what it wrote all the same the trial's store has written as well.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    pin::{Pin, pin},
    process,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use utmos_core::ports::{Store, StoreError};
use utmos_store::{SqliteConfig, SqliteStore};

use crate::journal::key;

/// A place where a store keeps what survives its process.
pub trait Beside: Send {
    /// Opens the store, as the next process does.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn open(&mut self) -> Result<Arc<dyn Store>, String>;

    /// Its process dies, and with `power_too` the machine. Called while the store is open; it is dropped afterwards.
    ///
    /// # Errors
    /// When what is left cannot be kept.
    fn die(&mut self, power_too: bool) -> Result<(), String>;

    /// How many pages of its file a power cut has left half written.
    fn pages_torn(&self) -> usize;

    /// It refuses something of what it is to write from now on, or nothing any more.
    ///
    /// # Errors
    /// When that cannot be brought about.
    fn upset(&mut self, is_upset: bool) -> Result<(), String>;
}

/// [`SqliteStore`] in a folder of its own, which goes with this.
pub struct SqliteBeside {
    folder: PathBuf,
    /// How often it has died: each life has a folder, so that what the last one still does is in nobody's way.
    lives: u64,
    store: Option<Arc<SqliteStore>>,
    pages_torn: usize,
}

/// More than any trial fills.
const PAGES_MAX: u32 = 1 << 20;
const FILE: &str = "utmos.sqlite";
const LOG: &str = "utmos.sqlite-wal";
/// What a write that was under way leaves at the end of the log: the head of a frame that nothing follows.
const TORN: [u8; 24 + 100] = [0x5a; 24 + 100];

impl SqliteBeside {
    /// Nothing is kept yet.
    ///
    /// # Errors
    /// When no folder can be made.
    pub fn new() -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // A memory disk, where there is one: what is synced there costs nothing.
        let shared = Path::new("/dev/shm");
        let parent = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("utmos-trials-{}-{number}", process::id()));
        let beside = Self { folder, lives: 0, store: None, pages_torn: 0 };
        fs::create_dir_all(beside.life())?;
        Ok(beside)
    }

    fn life(&self) -> PathBuf {
        self.folder.join(self.lives.to_string())
    }
}

impl Drop for SqliteBeside {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

impl Beside for SqliteBeside {
    fn open(&mut self) -> Result<Arc<dyn Store>, String> {
        let config = SqliteConfig { path: self.life().join(FILE), master_key: key() };
        let store = Arc::new(SqliteStore::open(config).map_err(|error| error.to_string())?);
        self.store = Some(store.clone());
        Ok(store)
    }

    fn upset(&mut self, is_upset: bool) -> Result<(), String> {
        let Some(store) = &self.store else { return Ok(()) };
        if is_upset {
            return wait(store.turn_read_only()).map_err(|error| error.to_string());
        }
        // Where nothing was written meanwhile, this fails, and it opens its file anew for the next.
        drop(wait(store.limit_pages(PAGES_MAX)));
        wait(store.limit_pages(PAGES_MAX)).map_err(|error| error.to_string())
    }

    fn pages_torn(&self) -> usize {
        self.pages_torn
    }

    /// What the system has of its files is what is there. Everything that was told is synced in its log, so that a power cut
    /// takes nothing of that; what was being written then is there in part: at the end of the log, and in the file those pages
    /// that the log still holds, which nobody has synced there.
    fn die(&mut self, power_too: bool) -> Result<(), String> {
        let before = self.life();
        self.store = None;
        self.lives += 1;
        let after = self.life();
        let mut torn = 0;
        let mut copy = || -> io::Result<()> {
            fs::create_dir_all(&after)?;
            let mut pages = Vec::new();
            // The log first: it may be poured into the file meanwhile, and poured once more it changes nothing.
            if before.join(LOG).exists() {
                let mut log = fs::read(before.join(LOG))?;
                if power_too && !log.is_empty() {
                    pages = half_written(&log);
                    log.extend(TORN);
                }
                fs::write(after.join(LOG), log)?;
            }
            fs::copy(before.join(FILE), after.join(FILE))?;
            let file = fs::OpenOptions::new().write(true).open(after.join(FILE))?;
            for (at, bytes) in &pages {
                file.write_all_at(bytes, *at)?;
            }
            torn = pages.len();
            Ok(())
        };
        copy().map_err(|error| error.to_string())?;
        self.pages_torn += torn;
        let _gone = fs::remove_dir_all(before);
        Ok(())
    }
}

/// What a log holds that was being poured into the file: for each page the beginning of its last version, and where it goes. Every
/// other one has not been begun.
fn half_written(log: &[u8]) -> Vec<(u64, Vec<u8>)> {
    const HEAD: usize = 32;
    const FRAME_HEAD: usize = 24;
    let number = |at: usize| -> Option<u32> {
        Some(u32::from_be_bytes(log.get(at..at + 4)?.try_into().ok()?))
    };
    let (Some(page_bytes), Some(salts)) = (number(8), log.get(16..24)) else { return Vec::new() };
    let page_bytes = page_bytes as usize;
    let (mut committed, mut under_way) = (BTreeMap::new(), BTreeMap::new());
    let mut at = HEAD;
    while let Some(page) = log.get(at + FRAME_HEAD..at + FRAME_HEAD + page_bytes) {
        // From here on it is what is left of a log of before.
        if log.get(at + 8..at + 16) != Some(salts) {
            break;
        }
        let (Some(which), Some(ends)) = (number(at), number(at + 4)) else { break };
        under_way.insert(which, page);
        if ends != 0 {
            committed.append(&mut under_way);
        }
        at += FRAME_HEAD + page_bytes;
    }
    let begun = committed.into_iter().step_by(2);
    begun
        .filter_map(|(which, page)| {
            let place = u64::from(which.checked_sub(1)?) * page_bytes as u64;
            Some((place, page.get(..page_bytes / 2)?.to_vec()))
        })
        .collect()
}

/// The store beside the disk of a trial.
pub(crate) struct Twin {
    place: Mutex<Box<dyn Beside>>,
    store: Option<Arc<dyn Store>>,
    /// Where it was of another opinion.
    found: Mutex<Vec<String>>,
    /// What it was asked and has not been waited for; `None` while it is waited for each time.
    flight: Mutex<Option<Flight>>,
    /// How much of what it was to refuse it did refuse, and how much it wrote all the same.
    refusals: Mutex<(usize, usize)>,
    /// How many writes were under way at once, at most.
    widest: Mutex<usize>,
}

/// A question to the store beside, which finds something where it answers otherwise.
type Question = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

/// Questions of one lane, in the order in which they were asked.
#[derive(Default)]
struct Flight {
    is_urgent: bool,
    questions: Vec<Question>,
}

impl Twin {
    pub(crate) fn new(place: Box<dyn Beside>) -> Self {
        let mut twin = Self {
            place: Mutex::new(place),
            store: None,
            found: Mutex::default(),
            flight: Mutex::default(),
            refusals: Mutex::default(),
            widest: Mutex::default(),
        };
        twin.open();
        twin
    }

    fn open(&mut self) {
        let opened = self.place.get_mut().unwrap_or_else(PoisonError::into_inner).open();
        match opened {
            Ok(store) => self.store = Some(store),
            Err(why) => self.find(format!("the store beside does not open: {why}")),
        }
    }

    /// One of those that have it open dies, and all of them for it.
    pub(crate) fn die(&mut self, power_too: bool) {
        let died = self.place.get_mut().unwrap_or_else(PoisonError::into_inner).die(power_too);
        if let Err(why) = died {
            self.find(format!("the store beside cannot be kept: {why}"));
        }
        self.store = None;
        self.open();
    }

    /// From now on it is not waited for after each write.
    pub(crate) fn depart(&self) {
        *lock(&self.flight) = Some(Flight::default());
    }

    /// Waits for everything that is under way.
    pub(crate) fn arrive(&self) {
        let flight = lock(&self.flight).take();
        self.land(flight.unwrap_or_default().questions);
    }

    fn land(&self, questions: Vec<Question>) {
        let mut widest = lock(&self.widest);
        *widest = (*widest).max(questions.len());
        drop(widest);
        for question in questions {
            if let Some(found) = wait(question) {
                self.find(found);
            }
        }
    }

    /// Whatever is under way in the other lane is waited for: what is urgent would overtake it, or be overtaken.
    fn land_others(&self, is_urgent: Option<bool>) {
        let mut guard = lock(&self.flight);
        let Some(flight) = guard.as_mut() else { return };
        let mut others = Vec::new();
        if Some(flight.is_urgent) != is_urgent {
            others = std::mem::take(&mut flight.questions);
        }
        flight.is_urgent = is_urgent.unwrap_or(flight.is_urgent);
        drop(guard);
        self.land(others);
    }

    /// Has it write the same, and compares: now, or when the flight arrives.
    pub(crate) fn write<T: PartialEq + std::fmt::Debug + Send + 'static, F>(
        &self,
        what: String,
        is_urgent: bool,
        answer: T,
        ask: impl FnOnce(Arc<dyn Store>) -> F,
    ) where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let Some(store) = &self.store else { return };
        self.land_others(Some(is_urgent));
        let asked = ask(store.clone());
        let mut question: Question = Box::pin(async move {
            let other = asked.await;
            (other.as_ref().ok() != Some(&answer)).then(|| differs(&what, &answer, &other))
        });
        let mut guard = lock(&self.flight);
        let Some(flight) = guard.as_mut() else {
            drop(guard);
            self.land(vec![question]);
            return;
        };
        // Asked for the first time it takes its place in the queue.
        let noop = Waker::noop();
        let mut unconstrained = pin!(tokio::task::unconstrained(question.as_mut()));
        match unconstrained.as_mut().poll(&mut Context::from_waker(noop)) {
            Poll::Ready(found) => {
                drop(guard);
                found.into_iter().for_each(|found| self.find(found));
            }
            Poll::Pending => flight.questions.push(question),
        }
    }

    /// Has it write while it is upset. What it has written all the same, if it has.
    pub(crate) fn write_upset<T, F>(&self, ask: impl FnOnce(Arc<dyn Store>) -> F) -> Option<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let store = self.store.as_ref()?;
        let written = wait(ask(store.clone())).ok();
        let mut refusals = lock(&self.refusals);
        match written {
            Some(_) => refusals.1 += 1,
            None => refusals.0 += 1,
        }
        drop(refusals);
        written
    }

    /// It refuses something from now on, or no longer.
    pub(crate) fn upset(&self, is_upset: bool) {
        if let Err(why) = lock(&self.place).upset(is_upset) {
            self.find(format!("the store beside cannot be upset or calmed: {why}"));
        }
    }

    /// What it refused, what it wrote though it was upset, and how many writes were under way at once.
    pub(crate) fn figures(&self) -> (usize, usize, usize) {
        let (refused, written) = *lock(&self.refusals);
        (refused, written, *lock(&self.widest))
    }

    /// How many pages of its file power cuts have left half written.
    pub(crate) fn pages_torn(&self) -> usize {
        lock(&self.place).pages_torn()
    }

    /// Asks it the same, and compares.
    pub(crate) fn compare<T: PartialEq + std::fmt::Debug, F>(
        &self,
        what: impl FnOnce() -> String,
        answer: &T,
        ask: impl FnOnce(Arc<dyn Store>) -> F,
    ) where
        F: Future<Output = Result<T, StoreError>>,
    {
        let Some(store) = &self.store else { return };
        self.land_others(None);
        match wait(ask(store.clone())) {
            Ok(other) if other == *answer => {}
            other => self.find(differs(&what(), answer, &other)),
        }
    }

    fn find(&self, found: String) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).push(found);
    }

    pub(crate) fn found(&self) -> Vec<String> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn differs<T: std::fmt::Debug>(what: &str, answer: &T, other: &Result<T, StoreError>) -> String {
    format!("of {what}, the trial's store says {answer:?}, the one beside {other:?}")
}

/// Waits on this thread. What the runtime allows one task to do at once does not count here.
fn wait<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(tokio::task::unconstrained(work));
    let waker = Waker::from(Arc::new(Waiting(thread::current())));
    loop {
        match work.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => thread::park(),
        }
    }
}

struct Waiting(Thread);

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
