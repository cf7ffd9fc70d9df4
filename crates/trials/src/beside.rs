//! A real store beside the one of the trials. It is given every write that reaches the disk of a trial, and is asked
//! whatever that is asked; where the two answer differently, one of them is wrong. It dies with the processes.
//!
//! Its threads know nothing of the trial's time. So the trial stands still until it has answered: in the trial's time, it
//! answers at once.

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::pin,
    process,
    sync::{
        Arc, Mutex, PoisonError,
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
}

/// [`SqliteStore`] in a folder of its own, which goes with this.
pub struct SqliteBeside {
    folder: PathBuf,
    /// How often it has died: each life has a folder, so that what the last one still does is in nobody's way.
    lives: u64,
}

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
        let beside = Self { folder, lives: 0 };
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
        let store = SqliteStore::open(config).map_err(|error| error.to_string())?;
        Ok(Arc::new(store))
    }

    /// What the system has of its files is what is there. Everything that was told is synced, so that a power cut takes
    /// nothing of it; what was being written then is there in part.
    fn die(&mut self, power_too: bool) -> Result<(), String> {
        let before = self.life();
        self.lives += 1;
        let after = self.life();
        let copy = || -> io::Result<()> {
            fs::create_dir_all(&after)?;
            // The log first: it may be poured into the file meanwhile, and poured once more it changes nothing.
            if before.join(LOG).exists() {
                let mut log = fs::read(before.join(LOG))?;
                if power_too && !log.is_empty() {
                    log.extend(TORN);
                }
                fs::write(after.join(LOG), log)?;
            }
            fs::copy(before.join(FILE), after.join(FILE))?;
            Ok(())
        };
        copy().map_err(|error| error.to_string())?;
        let _gone = fs::remove_dir_all(before);
        Ok(())
    }
}

/// The store beside the disk of a trial.
pub(crate) struct Twin {
    place: Mutex<Box<dyn Beside>>,
    store: Option<Arc<dyn Store>>,
    /// Where it was of another opinion.
    found: Mutex<Vec<String>>,
}

impl Twin {
    pub(crate) fn new(place: Box<dyn Beside>) -> Self {
        let mut twin = Self { place: Mutex::new(place), store: None, found: Mutex::default() };
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
        match wait(ask(store.clone())) {
            Ok(other) if other == *answer => {}
            other => self.find(format!(
                "of {}, the trial's store says {answer:?}, the one beside {other:?}",
                what()
            )),
        }
    }

    fn find(&self, found: String) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).push(found);
    }

    pub(crate) fn found(&self) -> Vec<String> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
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
