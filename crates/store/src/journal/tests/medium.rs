//! A medium that dies in the middle of what it does, and loses what was not synced.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

/// What a disk writes as one.
const SECTOR: usize = 512;

/// Shared, so that the next process finds what the one before has left.
#[derive(Clone)]
pub(super) struct Platter(Arc<Mutex<State>>);

struct State {
    space: usize,
    /// What a process reads.
    bytes: Vec<u8>,
    /// What is there after a power cut, whatever becomes of the rest.
    synced: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    fails: bool,
    /// Writes and syncs that are still done.
    left: Option<usize>,
    /// Bytes that were written.
    written: usize,
    copies: usize,
    aside: Vec<u8>,
}

impl Platter {
    pub(super) fn new(space: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            space,
            bytes: vec![0; space],
            synced: vec![0; space],
            unsynced: Vec::new(),
            fails: false,
            left: None,
            written: 0,
            copies: 0,
            aside: Vec::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Whether nothing can be written from now on.
    pub(super) fn fails(&self, fails: bool) {
        self.state().fails = fails;
    }

    /// What is written from now on.
    fn count(&self) {
        self.state().written = 0;
    }

    /// After so many more writes and syncs the process dies in the middle of one.
    fn dies_after(&self, left: usize) {
        self.state().left = Some(left);
    }

    /// The next process can write again. With a power cut each sector that was not synced is there, or not.
    fn begins_anew(&self, with_power_cut: bool, dice: &mut StdRng) {
        let mut guard = self.state();
        let state = &mut *guard;
        state.left = None;
        if with_power_cut {
            for (at, bytes) in std::mem::take(&mut state.unsynced) {
                let mut from = at;
                while from < at + bytes.len() {
                    let to = ((from / SECTOR + 1) * SECTOR).min(at + bytes.len());
                    if dice.random_bool(0.5) {
                        state.synced[from..to].copy_from_slice(&bytes[from - at..to - at]);
                    }
                    from = to;
                }
            }
            state.bytes = state.synced.clone();
        }
    }

    fn is_zeros(&self) -> bool {
        self.state().bytes.iter().all(|byte| *byte == 0)
    }
}

impl State {
    /// Whether what is to be done is done, as a whole.
    fn goes(&mut self) -> io::Result<bool> {
        if self.fails || self.left == Some(0) {
            return Err(io::Error::other("made so by a test"));
        }
        self.left = self.left.map(|left| left - 1);
        Ok(self.left != Some(0))
    }
}

impl Medium for Platter {
    fn path(&self) -> &Path {
        Path::new("platter")
    }

    fn space(&self) -> usize {
        self.state().space
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.state().bytes.clone())
    }

    fn write(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let is_whole = state.goes()?;
        let kept = if is_whole { bytes.len() } else { bytes.len() / 2 };
        state.bytes[at..at + kept].copy_from_slice(&bytes[..kept]);
        state.unsynced.push((at, bytes[..kept].to_vec()));
        state.written += kept;
        is_whole.then_some(()).ok_or_else(|| io::Error::other("made so by a test"))
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut guard = self.state();
        let state = &mut *guard;
        if !state.goes()? {
            return Err(io::Error::other("made so by a test"));
        }
        for (at, bytes) in std::mem::take(&mut state.unsynced) {
            state.synced[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn keep_copy(&mut self, _: &[u8]) -> io::Result<PathBuf> {
        self.state().copies += 1;
        Ok(PathBuf::from("copy"))
    }

    fn set_aside(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        if state.goes()? {
            state.aside = bytes.to_vec();
        }
        Ok(())
    }

    fn aside(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.state().aside.clone())
    }
}

fn open(platter: &Platter) -> (JournalFile, Vec<Record>) {
    JournalFile::open(Box::new(platter.clone()), &Sealer::new(&key())).unwrap()
}

fn accept(key: &str) -> Record {
    Record::Accept { nonce: None, new: new(emergency(0, key)) }
}

#[test]
fn emptying_writes_over_what_was_written_and_no_more() {
    let platter = Platter::new(1 << 20);
    let (mut file, _) = open(&platter);
    for _ in ["at first", "and again"] {
        platter.count();
        (0..3).for_each(|_| file.append(&accept("k")).unwrap());
        let lines = platter.state().written;
        platter.count();
        file.tidy(&[]).unwrap();
        let written = platter.state().written;
        assert!(written <= lines + 2, "{written} for {lines}");
        assert!(platter.is_zeros());
    }
    // Also by a process that did not write them.
    file.append(&accept("k")).unwrap();
    let lines = platter.state().bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let (mut file, _) = open(&platter);
    platter.count();
    file.tidy(&[]).unwrap();
    assert!(platter.state().written <= lines + 3 && platter.is_zeros());
}

#[test]
fn whoever_dies_while_it_is_emptied_leaves_all_of_it_or_nothing() {
    let mut emptied = 0;
    for seed in 0..400 {
        let mut dice = StdRng::seed_from_u64(seed);
        let platter = Platter::new(64 << 10);
        let (mut file, _) = open(&platter);
        let count = dice.random_range(1..6);
        for number in 0..count {
            file.append(&accept(&format!(
                "{seed}-{number}-{}",
                "x".repeat(dice.random_range(0..400))
            )))
            .unwrap();
        }
        platter.dies_after(dice.random_range(1..7));
        drop(file.tidy(&[]));
        platter.begins_anew(dice.random(), &mut dice);
        let (mut file, records) = open(&platter);
        assert!(records.is_empty() || records.len() == count, "seed {seed}: {}", records.len());
        assert_eq!(platter.state().copies, 0, "seed {seed}: it looks damaged");
        emptied += usize::from(records.is_empty());

        // And it is used as before.
        let known = records.len();
        file.append(&accept("after")).unwrap();
        platter.begins_anew(true, &mut dice);
        let (_, records) = open(&platter);
        assert_eq!(records.len(), known + 1, "seed {seed}");
        assert_eq!(platter.state().copies, 0, "seed {seed}");
    }
    assert!((50..350).contains(&emptied), "both happen: {emptied}");
}

#[test]
fn a_mark_before_something_else_than_lines_is_damage() {
    let platter = Platter::new(64 << 10);
    let (mut file, _) = open(&platter);
    file.append(&accept("k")).unwrap();
    drop(file);
    let mut state = platter.state();
    (state.bytes[0], state.bytes[7]) = (0xcf, b'!');
    drop(state);
    let (_, records) = open(&platter);
    assert_eq!((records.len(), platter.state().copies), (0, 1));
}

#[test]
fn a_byte_damaged_into_the_mark_costs_its_line_and_no_other_at_any_start() {
    let platter = Platter::new(64 << 10);
    let (mut file, _) = open(&platter);
    file.append(&accept("damaged")).unwrap();
    file.append(&accept("good")).unwrap();
    drop(file);
    let mut state = platter.state();
    let end = state.bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    state.bytes[0] = 0xcf;
    state.bytes[end..end + 4].copy_from_slice(b"torn");
    drop(state);
    // The first start takes the torn line away, which told the byte from the mark.
    for start in 0..3 {
        let (_, records) = open(&platter);
        assert_eq!(records.len(), 1, "start {start}");
    }
}

#[test]
fn what_is_set_aside_is_there_once_whoever_dies_in_between() {
    for left in 1..9 {
        let platter = Platter::new(64 << 10);
        let (mut file, _) = open(&platter);
        let stays = [accept("stays"), accept("stays-too")];
        for record in [&stays[0], &accept("settled"), &stays[1]] {
            file.append(record).unwrap();
        }
        platter.dies_after(left);
        drop(file.tidy(&stays));
        platter.begins_anew(true, &mut StdRng::seed_from_u64(left as u64));
        let (mut file, records) = open(&platter);
        let mut ids: Vec<_> = records.iter().map(Record::id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), records.len(), "dies after {left}: one is there twice");
        assert!(stays.iter().all(|record| ids.contains(&record.id())), "dies after {left}");
        file.tidy(&stays[..1]).unwrap();
        let (mut file, records) = open(&platter);
        assert_eq!(records.len(), 1);
        assert!(!file.is_empty() && platter.is_zeros());
        file.tidy(&[]).unwrap();
        assert!(file.is_empty() && platter.state().aside.is_empty());
    }
}

#[test]
fn what_is_set_aside_has_the_bound_of_the_file_itself() {
    let platter = Platter::new(64 << 10);
    let (mut file, _) = open(&platter);
    let mut stays = Vec::new();
    // Again and again the file takes one more and gives its space back, as long as that goes.
    let refused = loop {
        stays.push(accept(&format!("stays-{}", stays.len())));
        file.append(stays.last().unwrap()).unwrap();
        if let Err(refused) = file.tidy(&stays) {
            break refused;
        }
        assert!(platter.state().aside.len() <= 64 << 10);
    };
    assert!(matches!(refused, JournalError::Full), "{refused}");
    // Nothing of it is lost: the last one stands in the file.
    let (_, records) = open(&platter);
    assert_eq!(records.len(), stays.len());
}

#[tokio::test]
async fn a_journal_that_could_not_be_emptied_is_emptied_the_next_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("utmos.db");
    let store = SqliteStore::open(SqliteConfig { path, master_key: key() }).unwrap();
    let platter = Platter::new(64 << 10);
    let (store, mut writer) =
        JournalledStore::on(Arc::new(store), &key(), Box::new(platter.clone())).unwrap();
    tokio::spawn(async move {
        while let Some(job) = writer.next().await {
            writer.perform(job);
        }
    });
    journalled(&store, None, emergency(0, "k")).await;
    platter.fails(true);
    assert_eq!(store.settle().await.unwrap(), 1);
    assert!(!platter.is_zeros());
    platter.fails(false);
    assert_eq!(store.settle().await.unwrap(), 0);
    assert!(platter.is_zeros());
    platter.count();
    assert_eq!(store.settle().await.unwrap(), 0);
    assert_eq!(platter.state().written, 0, "once");
}
