//! What the emergency journal of a server is kept on: it outlives the process, fails, and loses at a power cut what was
//! not synced. The journal itself is the platform's own.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rand::{RngExt, rngs::StdRng};
use serde_json::Value;
use utmos_core::id::CommandId;
use utmos_store::{JournalWriter, MasterKey, Medium};

use crate::{
    life::LifeLine,
    mutation::Mutation,
    world::{State, Trouble, World},
};

/// Longest that a record takes, in milliseconds.
pub(crate) const WRITE_WAIT_MAX: u64 = 4;

/// The line of a nonce is not longer than this.
const TALK_BYTES_MAX: usize = 1 << 10;

/// The platter under a journal.
#[derive(Debug, Default)]
pub(crate) struct Platter {
    /// How much it has room for.
    space: usize,
    /// What a process reads, without the zeros at the end.
    bytes: Vec<u8>,
    /// What is there after a power cut.
    synced: Vec<u8>,
    /// What was set aside beside it, durable at once.
    aside: Vec<u8>,
    /// Written since, in that order.
    unsynced: Vec<(usize, Vec<u8>)>,
    /// Who has it.
    owner: u64,
    /// Of a hundred parts of a write, how many its process still lives to make; above that it lives through the sync.
    parts_left: Option<usize>,
}

impl Platter {
    pub(crate) fn new(kib: u16) -> Self {
        Self { space: usize::from(kib) << 10, ..Self::default() }
    }

    /// The records that can be read, as JSON, each with the bytes of its line.
    pub(crate) fn records(&self) -> Vec<(usize, Value)> {
        let lines = self.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let read = lines.filter_map(|line| {
            let found = utmos_store::try_journal::read(&key(), line).ok()?;
            let record = serde_json::from_str(found.records.first()?).ok()?;
            Some((line.len() + 1, record))
        });
        read.collect()
    }

    /// Puts another byte in the place of the one that stands so many hundredths after the beginning of what is written.
    /// Answers the records that are lost.
    pub(crate) fn damage(&mut self, at: usize) -> Vec<Value> {
        let before = self.records();
        let place = self.bytes.len().saturating_sub(1) * at / 100;
        // Without its end a line would take the next one with it, which nobody has written yet.
        let is_end = self.bytes.get(place) == Some(&b'\n');
        let place = if is_end { place.saturating_sub(1) } else { place };
        for bytes in [&mut self.bytes, &mut self.synced] {
            if let Some(byte) = bytes.get_mut(place).filter(|byte| **byte != 0) {
                *byte ^= 1;
            }
        }
        for (begin, bytes) in &mut self.unsynced {
            let byte = place.checked_sub(*begin).and_then(|place| bytes.get_mut(place));
            if let Some(byte) = byte.filter(|byte| **byte != 0) {
                *byte ^= 1;
            }
        }
        let left = self.records();
        let lost = before.into_iter().filter(|record| !left.contains(record));
        lost.map(|(_, record)| record).collect()
    }

    /// What is taken by records that change how a command stands, in bytes, and the room there is.
    pub(crate) fn used(&self) -> (usize, usize) {
        let changes = |record: &Value| {
            let advance = &record["advance"];
            match advance.is_null() {
                true => !record["new"].is_null(),
                false => advance["seen"] != advance["life"]["version"],
            }
        };
        let records = self.records();
        let changes = records.iter().filter(|(_, record)| changes(record));
        (changes.map(|(bytes, _)| bytes).sum(), self.space)
    }

    /// Whether what somebody can bring about as often as they like finds room, in the half that is there for it.
    pub(crate) fn has_room_for_talk(&self) -> bool {
        self.bytes.len() + TALK_BYTES_MAX < self.space / 2
    }

    pub(crate) fn is_empty(&self) -> bool {
        is_zero(&self.bytes)
    }

    /// Each write that was not synced is there, or not, or in part. Answers how many in part.
    pub(crate) fn power_is_cut(&mut self, dice: &mut StdRng) -> usize {
        let mut torn = 0;
        for (at, bytes) in std::mem::take(&mut self.unsynced) {
            let parts = dice.random_range(0..=150).min(100);
            torn += usize::from((1..100).contains(&parts) && !is_zero(&bytes));
            put(&mut self.synced, at, &bytes[..bytes.len() * parts / 100], self.space);
        }
        self.bytes = self.synced.clone();
        torn
    }

    /// How many nonces stand in it.
    pub(crate) fn nonces(&self) -> usize {
        self.records().iter().filter(|(_, record)| record["record"] == "nonce").count()
    }

    fn wipe(&mut self) {
        *self = Self { owner: self.owner, space: self.space, ..Self::default() };
    }
}

/// The command that a record is of.
pub(crate) fn id_of(record: &Value) -> Option<CommandId> {
    let (new, advance) = (&record["new"]["spec"]["id"], &record["advance"]["id"]);
    [new, advance].into_iter().find_map(|id| id.as_str()?.parse().ok())
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes == vec![0; bytes.len()]
}

fn put(to: &mut Vec<u8>, at: usize, bytes: &[u8], space: usize) {
    // The journal fills its space with zeros, which is what stands there anyway.
    if at + bytes.len() == space && is_zero(bytes) {
        to.truncate(at);
        return;
    }
    to.resize(to.len().max(at + bytes.len()), 0);
    to[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The platter as one run of a server sees it.
pub(crate) struct TrialMedium {
    world: Arc<World>,
    server: u8,
    life: u64,
    space: usize,
}

impl TrialMedium {
    /// The process before has lost it.
    pub(crate) fn open(world: Arc<World>, server: u8, line: &LifeLine) -> Self {
        let space = usize::from(world.plan.journal_kib) << 10;
        let medium = Self { world, server, life: line.number, space };
        let forgets = medium.world.mutation == Some(Mutation::JournalForgottenOnRestart);
        medium.change(|platter, _| {
            platter.owner = line.number;
            platter.parts_left = None;
            if forgets {
                platter.wipe();
            }
        });
        medium
    }

    fn change<T>(&self, work: impl FnOnce(&mut Platter, &mut StdRng) -> T) -> Option<T> {
        let mut guard = self.world.state();
        let State { posts, dice, .. } = &mut *guard;
        posts.get_mut(usize::from(self.server)).map(|post| work(&mut post.platter, dice))
    }

    fn gone() -> io::Error {
        io::Error::other("the process is gone")
    }
}

impl Medium for TrialMedium {
    fn path(&self) -> &Path {
        Path::new("emergency.journal")
    }

    fn space(&self) -> usize {
        self.space
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        if self.world.journal_fails() {
            return Err(failed());
        }
        self.change(|platter, _| platter.bytes.clone()).ok_or_else(Self::gone)
    }

    fn write(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let (life, fails) = (self.life, self.world.journal_fails());
        self.world.state().rare.torn += usize::from(fails);
        let write = |platter: &mut Platter, dice: &mut StdRng| {
            if platter.owner != life {
                return Err(Self::gone());
            }
            let parts = match platter.parts_left {
                Some(parts) => parts,
                // A write that fails may have come some way.
                None if fails => dice.random_range(0..=100),
                None => 100,
            };
            let bytes = &bytes[..bytes.len() * parts.min(100) / 100];
            put(&mut platter.bytes, at, bytes, platter.space);
            platter.unsynced.push((at, bytes.to_vec()));
            match parts < 100 || (fails && platter.parts_left.is_none()) {
                true => Err(failed()),
                false => Ok(()),
            }
        };
        self.change(write).unwrap_or_else(|| Err(Self::gone()))
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.world.mutation == Some(Mutation::JournalNotSynced) {
            return Ok(());
        }
        let (life, fails) = (self.life, self.world.journal_fails());
        let sync = |platter: &mut Platter, _: &mut StdRng| {
            if fails || platter.owner != life || platter.parts_left.is_some_and(|left| left <= 100)
            {
                return Err(failed());
            }
            for (at, bytes) in std::mem::take(&mut platter.unsynced) {
                put(&mut platter.synced, at, &bytes, platter.space);
            }
            Ok(())
        };
        self.change(sync).unwrap_or_else(|| Err(Self::gone()))
    }

    fn set_aside(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (life, fails) = (self.life, self.world.journal_fails());
        let set = |platter: &mut Platter, _: &mut StdRng| {
            if fails || platter.owner != life || platter.parts_left.is_some() {
                return Err(failed());
            }
            platter.aside = bytes.to_vec();
            Ok(())
        };
        self.change(set).unwrap_or_else(|| Err(Self::gone()))
    }

    fn aside(&mut self) -> io::Result<Vec<u8>> {
        if self.world.journal_fails() {
            return Err(failed());
        }
        self.change(|platter, _| platter.aside.clone()).ok_or_else(Self::gone)
    }

    fn keep_copy(&mut self, _: &[u8]) -> io::Result<PathBuf> {
        // Whoever dies in the middle of a line leaves no end of it; what was refused may be wiped in part.
        let now = self.world.clock.elapsed();
        let mut state = self.world.state();
        if state.was_well(Trouble::Journal, 0, now) {
            let found = "a whole line of the emergency journal cannot be read".to_owned();
            state.violate(found);
        }
        Ok(PathBuf::from("emergency.journal.damaged-1"))
    }
}

fn failed() -> io::Error {
    io::Error::other("made so by the trial")
}

/// The key of every trial's journals.
pub(crate) fn key() -> MasterKey {
    MasterKey::from_hex(&"5a".repeat(32)).unwrap_or_else(|_| unreachable!("64 digits are a key"))
}

/// Does what a journal has to write, in its own time, until its process dies: with a record in its hand perhaps, of which
/// nothing, a part or all is there then.
pub(crate) async fn keep_writing(
    world: Arc<World>,
    server: u8,
    line: LifeLine,
    mut writer: JournalWriter,
) {
    while let Some(job) = writer.next().await {
        line.or_never().await;
        let pause = world.dice(|dice| dice.random_range(1..=WRITE_WAIT_MAX));
        let pause = pause + world.journal_slowness();
        tokio::select! {
            biased;
            () = line.died() => {
                let parts = world.dice(|dice| dice.random_range(0..=150));
                let mut guard = world.state();
                let State { posts, rare, .. } = &mut *guard;
                if let Some(post) = posts.get_mut(usize::from(server)) {
                    post.platter.parts_left = Some(parts);
                    rare.torn += usize::from((1..100).contains(&parts));
                }
                drop(guard);
                writer.perform(job);
                world.trace(|| format!("server {} died with a record in its hand", line.number));
                return;
            }
            () = tokio::time::sleep(Duration::from_millis(pause)) => writer.perform(job),
        }
        world.give_way().await;
    }
}
