//! Trials that do not get on. A task that gives way for ever keeps a trial's time from passing, and one that never gives way
//! keeps everything: nobody inside can tell. So somebody outside looks whether the time of each trial goes on, and names
//! the plan of one whose time does not.

use std::{
    collections::BTreeMap,
    io::Write,
    process,
    sync::{
        Arc, Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    clock::Progress,
    plan::{Plan, VERSION},
};

/// How often it is looked.
const LOOK_WAIT: Duration = Duration::from_millis(100);
/// How the program ends that found one.
pub const EXIT_CODE: i32 = 3;

/// How long a trial's time may stand still, in milliseconds of this machine's time.
static PATIENCE: AtomicU64 = AtomicU64::new(120_000);
static NEXT: AtomicU64 = AtomicU64::new(0);
static UNDER_WAY: Mutex<BTreeMap<u64, Watched>> = Mutex::new(BTreeMap::new());

/// From now on a trial hangs whose time has stood still for so long.
pub fn set_patience(patience: Duration) {
    PATIENCE.store(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

struct Watched {
    seed: u64,
    plan: String,
    progress: Arc<Progress>,
    /// What its time showed at the last look, and for how long it has.
    last: u64,
    still_for: Duration,
}

/// A trial is watched as long as this lives.
pub(crate) struct Watch(u64);

/// Watches a trial.
pub(crate) fn watch(plan: &Plan, progress: Arc<Progress>) -> Watch {
    static WATCHER: Once = Once::new();
    WATCHER.call_once(|| drop(thread::Builder::new().name("watcher".to_owned()).spawn(look)));
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let (seed, plan) = (plan.seed, plan.write());
    let watched = Watched { seed, plan, progress, last: u64::MAX, still_for: Duration::ZERO };
    under_way().insert(number, watched);
    Watch(number)
}

impl Drop for Watch {
    fn drop(&mut self) {
        under_way().remove(&self.0);
    }
}

fn under_way() -> MutexGuard<'static, BTreeMap<u64, Watched>> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look() {
    loop {
        thread::sleep(LOOK_WAIT);
        let patience = Duration::from_millis(PATIENCE.load(Ordering::Relaxed));
        let found = under_way().values_mut().find_map(|one| one.hangs(patience));
        let Some(found) = found else { continue };
        // Not by a macro, whose output a test keeps to itself. Whether anybody reads it or not, this is the end.
        drop(std::io::stderr().write_all(found.as_bytes()));
        process::exit(EXIT_CODE);
    }
}

impl Watched {
    fn hangs(&mut self, patience: Duration) -> Option<String> {
        let now = self.progress.get();
        let is_still = self.last == now;
        self.still_for = if is_still { self.still_for + LOOK_WAIT } else { Duration::ZERO };
        self.last = now;
        (self.still_for >= patience).then(|| {
            format!(
                "seed {VERSION}:{} hangs: its time has stood still at {now} ms for {patience:?}\n  \
                 its plan (save it and run it with --plan):\n  {}\n",
                self.seed, self.plan
            )
        })
    }
}
