//! What devices said while nobody held their gateways, or while whoever did was dying: kept for a while by every server, so
//! that the next holder hears it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use utmos_core::{
    id::{CommandId, GatewaySn, TenantId},
    replica::Shard,
    reply::{Progress, Reply},
    time::{Clock, Mono},
};

/// So long it may take until somebody else holds a shard, and more. On a database that answers late that takes several tries.
/// An answer names its command, so that an old one can be taken for no other's.
const ANSWERS_KEPT: Duration = Duration::from_secs(60);
/// The same of how a job goes: that may name nothing but its method.
const PROGRESS_KEPT: Duration = Duration::from_secs(15);
/// Bytes of messages that are kept of one shard; the oldest go.
const BYTES_PER_SHARD_MAX: usize = 512 * 1024;

/// What a device said of a command.
#[derive(Debug, Clone)]
pub enum Word {
    /// Its answer.
    Reply(CommandId, Reply),
    /// How its job goes.
    Progress(Box<Progress>),
}

/// A word, with whose it is.
#[derive(Debug, Clone)]
pub struct MissedWord {
    /// The tenant of the gateway.
    pub tenant: TenantId,
    /// What was said.
    pub word: Word,
    /// Bytes of the message.
    pub bytes: usize,
    /// When it was heard.
    pub at: Mono,
    number: u64,
}

impl MissedWord {
    fn is_kept(&self, now: Mono) -> bool {
        let kept = match &self.word {
            Word::Reply(..) => ANSWERS_KEPT,
            Word::Progress(_) => PROGRESS_KEPT,
        };
        now.since(self.at) <= kept
    }
}

/// A moment, as against what was heard before and after it.
#[derive(Debug, Clone, Copy)]
pub struct Mark(u64);

/// What was said to others.
pub struct Missed {
    clock: Arc<dyn Clock>,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    shards: BTreeMap<Shard, HeardOf>,
    /// How many words there have been.
    count: u64,
}

#[derive(Default)]
struct HeardOf {
    words: VecDeque<MissedWord>,
    bytes: usize,
}

impl Missed {
    /// Nothing yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, heard: Mutex::default() })
    }

    /// Keeps what a gateway said that is another server's.
    pub fn keep(&self, tenant: TenantId, gateway: &GatewaySn, word: Word, bytes: usize) {
        let at = self.clock.now().mono;
        let mut all = self.lock();
        all.count += 1;
        let number = all.count;
        let heard = all.shards.entry(Shard::of(gateway)).or_default();
        heard.words.push_back(MissedWord { tenant, word, bytes, at, number });
        heard.bytes += bytes;
        while heard.bytes > BYTES_PER_SHARD_MAX
            || heard.words.front().is_some_and(|first| !first.is_kept(at))
        {
            let Some(oldest) = heard.words.pop_front() else { break };
            heard.bytes -= oldest.bytes;
        }
    }

    /// What was said of a shard lately, oldest first.
    #[must_use]
    pub fn of(&self, shard: Shard) -> Vec<MissedWord> {
        self.after(shard, Mark(0))
    }

    /// What was said of a shard since then, oldest first.
    #[must_use]
    pub fn after(&self, shard: Shard, mark: Mark) -> Vec<MissedWord> {
        let now = self.clock.now().mono;
        let all = self.lock();
        let words = all.shards.get(&shard).map(|heard| heard.words.iter());
        let words = words.into_iter().flatten();
        words.filter(|word| word.number > mark.0 && word.is_kept(now)).cloned().collect()
    }

    /// Now.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(self.lock().count)
    }

    /// What was said of a shard has been heard. Answers are kept: one may be to an emergency that another server looks after
    /// as yet.
    pub fn forget(&self, shard: Shard) {
        let mut all = self.lock();
        let Some(heard) = all.shards.get_mut(&shard) else { return };
        heard.words.retain(|missed| matches!(missed.word, Word::Reply(..)));
        heard.bytes = heard.words.iter().map(|missed| missed.bytes).sum();
        if heard.words.is_empty() {
            all.shards.remove(&shard);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
