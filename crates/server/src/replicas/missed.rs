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

/// So long it may take until somebody else holds a shard, and more.
const KEPT: Duration = Duration::from_secs(15);
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
    at: Mono,
}

/// What was said to others.
pub struct Missed {
    clock: Arc<dyn Clock>,
    shards: Mutex<BTreeMap<Shard, Heard>>,
}

#[derive(Default)]
struct Heard {
    words: VecDeque<MissedWord>,
    bytes: usize,
}

impl Missed {
    /// Nothing yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, shards: Mutex::default() })
    }

    /// Keeps what a gateway said that is another server's.
    pub fn keep(&self, tenant: TenantId, gateway: &GatewaySn, word: Word, bytes: usize) {
        let at = self.clock.now().mono;
        let mut shards = self.lock();
        let heard = shards.entry(Shard::of(gateway)).or_default();
        heard.words.push_back(MissedWord { tenant, word, bytes, at });
        heard.bytes += bytes;
        while heard.bytes > BYTES_PER_SHARD_MAX
            || heard.words.front().is_some_and(|first| at.since(first.at) > KEPT)
        {
            let Some(oldest) = heard.words.pop_front() else { break };
            heard.bytes -= oldest.bytes;
        }
    }

    /// What was said of a shard lately, oldest first.
    #[must_use]
    pub fn of(&self, shard: Shard) -> Vec<MissedWord> {
        let now = self.clock.now().mono;
        let shards = self.lock();
        let words = shards.get(&shard).map(|heard| heard.words.iter());
        words.into_iter().flatten().filter(|word| now.since(word.at) <= KEPT).cloned().collect()
    }

    /// What was said of a shard has been heard. Answers are kept: one may be to an emergency that another server looks after
    /// as yet.
    pub fn forget(&self, shard: Shard) {
        let mut shards = self.lock();
        let Some(heard) = shards.get_mut(&shard) else { return };
        heard.words.retain(|missed| matches!(missed.word, Word::Reply(..)));
        heard.bytes = heard.words.iter().map(|missed| missed.bytes).sum();
        if heard.words.is_empty() {
            shards.remove(&shard);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Shard, Heard>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
