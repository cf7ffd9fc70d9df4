//! What is known of one device, and what of it is still to be kept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use utmos_core::{
    device::DeviceKind,
    id::{DeviceSn, TenantId},
    ports::DeviceTelemetry,
    telemetry::{BLOCKS_MAX, Latest, Samples, Source},
    time::{Mono, Now},
};

use super::budget::Budget;

/// Exchanges of a device that are remembered, to tell a state that is sent again. A recorded dock sends some 20 states in a
/// row, each up to once in eight seconds until it tires of it.
const EXCHANGES_MAX: usize = 64;
/// What remembering one block that was lost takes, about.
const LOST_BYTES: usize = 16;

/// Something a device said of itself.
pub(super) struct Heard<'a> {
    source: Source,
    tid: Option<&'a str>,
    data: &'a str,
}

impl<'a> Heard<'a> {
    pub(super) fn new(source: Source, tid: Option<&'a str>, data: &'a str) -> Self {
        Self { source, tid, data }
    }

    pub(super) fn data(&self) -> &'a str {
        self.data
    }

    /// The same with other data.
    pub(super) fn of(&self, data: &'a str) -> Self {
        Self { data, ..*self }
    }
}

/// What became of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes that wait to be kept now and did not before.
    pub(super) pending_bytes: usize,
    /// What found no room.
    pub(super) dropped: u64,
    /// Blocks that found no room in the latest, since the tenant's share of it is full.
    pub(super) crowded_out: u64,
}

/// Where what was kept of a device earlier is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Earlier {
    /// It has not been read.
    Unread,
    /// It was read, and not all of it found room: the rest is in the store alone.
    Beyond,
    /// All of it is in memory, or is not true any more.
    Held,
}

/// One device.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) tenant: TenantId,
    pub(super) kind: DeviceKind,
    pub(super) latest: Latest,
    /// How much of what may be held of the latest is taken for it.
    pub(super) charged: usize,
    /// Where the rest of it is.
    pub(super) earlier: Earlier,
    /// Whether this server is the one that keeps what it tells; of several that share a history one does.
    pub(super) is_ours: bool,
    /// Whether `latest` has changed since it was kept.
    pub(super) is_changed: bool,
    pub(super) touched: Mono,
    pending: Vec<Samples>,
    exchanges: VecDeque<u64>,
    /// Those of them that found no room in the history: a copy may.
    owed: BTreeSet<u64>,
    /// Blocks that were told and found no room, while the store may hold what they said before: that is not true any more.
    lost: BTreeSet<u64>,
    /// Of states that lost blocks, which and what these said last.
    lost_of_states: BTreeMap<u64, u64>,
    budget: Budget,
}

impl Entry {
    pub(super) fn new(tenant: TenantId, kind: DeviceKind, now: Now) -> Self {
        Self {
            tenant,
            kind,
            latest: Latest::default(),
            charged: 0,
            earlier: Earlier::Unread,
            is_ours: true,
            is_changed: false,
            touched: now.mono,
            pending: Vec::new(),
            exchanges: VecDeque::new(),
            owed: BTreeSet::new(),
            lost: BTreeSet::new(),
            lost_of_states: BTreeMap::new(),
            budget: Budget::new(now),
        }
    }

    /// Takes in a message. `room` is what may wait of all devices; without it nothing is kept but the latest, which may
    /// grow by `latest_room`.
    pub(super) fn take(
        &mut self,
        heard: &Heard<'_>,
        now: Now,
        room: Option<usize>,
        latest_room: usize,
    ) -> Taken {
        self.touched = now.mono;
        let exchange = exchange(heard);
        if let Some(exchange) = exchange
            && self.is_sent_again(exchange)
        {
            return self.keep_owed(exchange, heard, now, room);
        }
        let (mut lost, mut said) = (BTreeSet::new(), FNV_BASIS);
        let merged = self.latest.merge_within(
            heard.data,
            heard.source,
            now,
            latest_room,
            &mut |key, value| {
                lost.insert(hash(FNV_BASIS, key));
                said = hash(hash(said, key), value);
            },
        );
        let Ok(merged) = merged else {
            return Taken { dropped: 1, ..Taken::default() };
        };
        self.is_changed = true;
        let mut taken = Taken {
            dropped: merged.left_out as u64,
            crowded_out: merged.crowded_out as u64,
            ..Taken::default()
        };
        // A state that says nothing new is one sent again whose exchange was forgotten.
        let is_news = heard.source != Source::State
            || merged.changed > 0
            || (merged.crowded_out > 0 && self.is_news_of_lost(&lost, said));
        self.lose(lost);
        let (Some(room), true) = (room, is_news) else { return taken };
        match self.keep(heard, now, room) {
            Some(bytes) => taken.pending_bytes = bytes,
            None => {
                taken.dropped += 1;
                self.owed.extend(exchange);
            }
        }
        taken
    }

    /// A copy of a state that found no room in the history, which is not lost as long as it is true.
    fn keep_owed(
        &mut self,
        exchange: u64,
        heard: &Heard<'_>,
        now: Now,
        room: Option<usize>,
    ) -> Taken {
        let mut taken = Taken::default();
        if let Some(room) = room
            && self.owed.contains(&exchange)
            && self.is_true(heard, now)
            && let Some(bytes) = self.keep(heard, now, room)
        {
            self.owed.remove(&exchange);
            taken.pending_bytes = bytes;
        }
        taken
    }

    /// Whether it says nothing but what is known.
    fn is_true(&self, heard: &Heard<'_>, now: Now) -> bool {
        let mut latest = self.latest.clone();
        let merged = latest.merge_within(heard.data, heard.source, now, usize::MAX, &mut |_, _| {});
        merged.is_ok_and(|merged| merged.changed == 0)
    }

    /// Puts it beside what waits to be kept, if there is room. Answers how many bytes more wait.
    fn keep(&mut self, heard: &Heard<'_>, now: Now, room: usize) -> Option<usize> {
        let bytes = heard.data.len();
        if room < bytes || !self.budget.spend(bytes, now) {
            return None;
        }
        let at = now.wall;
        let before = self.last_piece_bytes();
        let added =
            self.pending.last_mut().is_some_and(|piece| piece.add(at, heard.source, heard.data));
        if !added {
            self.pending.push(Samples::of(at, heard.source, heard.data));
        }
        Some(self.last_piece_bytes() - if added { before } else { 0 })
    }

    fn last_piece_bytes(&self) -> usize {
        self.pending.last().map_or(0, |piece| piece.bytes().len())
    }

    /// Whether an exchange came before; from now on it did.
    fn is_sent_again(&mut self, exchange: u64) -> bool {
        if self.exchanges.contains(&exchange) {
            return true;
        }
        if self.exchanges.len() == EXCHANGES_MAX
            && let Some(oldest) = self.exchanges.pop_front()
        {
            self.owed.remove(&oldest);
        }
        self.exchanges.push_back(exchange);
        false
    }

    /// Remembers that these were told and are not in the latest.
    fn lose(&mut self, lost: BTreeSet<u64>) {
        if self.earlier == Earlier::Held {
            // What is kept next takes the place of all that was.
            return;
        }
        self.lost.extend(lost);
        if self.lost.len() > BLOCKS_MAX {
            // A device that makes names up: of what was kept of it nothing more than this can be told apart.
            self.earlier_is_held();
        }
    }

    fn earlier_is_held(&mut self) {
        self.earlier = Earlier::Held;
        self.lost.clear();
    }

    /// Whether a state that lost these blocks says something else of them than the last that did.
    fn is_news_of_lost(&mut self, lost: &BTreeSet<u64>, said: u64) -> bool {
        let which = lost.iter().fold(FNV_BASIS, |which, one| fold(which, &one.to_le_bytes()));
        let is_known = self.lost_of_states.contains_key(&which);
        if !is_known && self.lost_of_states.len() == EXCHANGES_MAX {
            self.lost_of_states.pop_first();
        }
        self.lost_of_states.insert(which, said) != Some(said)
    }

    /// Adds what was kept earlier, as far as there is room. Answers how much of it found none. Where other servers keep
    /// theirs in the same place, it may be newer than what is here.
    pub(super) fn recall(&mut self, earlier: Option<Latest>, room: usize, is_shared: bool) -> u64 {
        if self.earlier == Earlier::Held {
            return 0;
        }
        let earlier = self.still_true(earlier);
        let merged = if is_shared {
            self.latest.join_within(earlier, room)
        } else {
            self.latest.recall_within(earlier, room)
        };
        if merged.crowded_out > 0 {
            self.earlier = Earlier::Beyond;
        } else {
            self.earlier_is_held();
        }
        merged.crowded_out as u64
    }

    /// All that the device told last, given what was kept of it earlier.
    pub(super) fn whole(&self, earlier: Option<Latest>, is_shared: bool) -> Latest {
        let mut whole = self.latest.clone();
        if self.earlier != Earlier::Held && is_shared {
            whole.join_within(self.still_true(earlier), usize::MAX);
        } else if self.earlier != Earlier::Held {
            whole.recall(self.still_true(earlier));
        }
        whole
    }

    /// Notes whether this server keeps what comes next. What another kept meanwhile is recalled before anything takes its
    /// place.
    pub(super) fn keeps(&mut self, is_ours: bool) {
        if is_ours && !self.is_ours {
            self.earlier = Earlier::Unread;
        }
        self.is_ours = is_ours;
    }

    /// What was kept earlier and was not lost since.
    fn still_true(&self, earlier: Option<Latest>) -> Latest {
        let mut earlier = earlier.unwrap_or_default();
        earlier.retain(&|key| !self.lost.contains(&hash(FNV_BASIS, key)));
        earlier
    }

    /// What holding the latest takes, about.
    pub(super) fn held_bytes(&self) -> usize {
        self.latest.held_bytes() + self.lost.len() * LOST_BYTES
    }

    /// Whether there is anything to be kept.
    pub(super) fn has_news(&self) -> bool {
        self.is_changed || !self.pending.is_empty()
    }

    /// Whether what is to be kept of the latest is in part in the store alone.
    pub(super) fn keeps_beyond(&self) -> bool {
        self.is_changed && self.earlier == Earlier::Beyond
    }

    /// Takes out what is to be kept. The latest stays here unless all that was kept of it earlier is in memory: otherwise it
    /// would take the place of more than it holds.
    pub(super) fn hand_over(&mut self, device: &DeviceSn) -> Option<DeviceTelemetry> {
        let keeps_latest = self.is_changed && self.earlier == Earlier::Held;
        if self.pending.is_empty() && !keeps_latest {
            return None;
        }
        self.is_changed &= !keeps_latest;
        let samples = std::mem::take(&mut self.pending);
        let latest = keeps_latest.then(|| self.latest.clone());
        Some(self.told(device, samples, latest))
    }

    /// Samples that wait to be kept.
    pub(super) fn waiting(&self) -> usize {
        self.pending.iter().map(Samples::count).sum()
    }

    /// Takes out the latest where more of it was kept `earlier` than there is room for in memory.
    pub(super) fn hand_over_whole(
        &mut self,
        device: &DeviceSn,
        earlier: Option<Latest>,
        is_shared: bool,
    ) -> DeviceTelemetry {
        self.is_changed = false;
        self.told(device, Vec::new(), Some(self.whole(earlier, is_shared)))
    }

    fn told(
        &self,
        device: &DeviceSn,
        samples: Vec<Samples>,
        latest: Option<Latest>,
    ) -> DeviceTelemetry {
        let (tenant, device, kind) = (self.tenant, device.clone(), self.kind);
        DeviceTelemetry { tenant, device, kind, samples, latest }
    }
}

/// What tells copies of a state: a dock repeats one that wants an answer with the same `tid`, also after another that
/// contradicts it. Remote controllers send zeros in all of theirs.
fn exchange(heard: &Heard<'_>) -> Option<u64> {
    let tells_apart = |tid: &&str| tid.bytes().any(|byte| !matches!(byte, b'0' | b'-'));
    let tid = heard.tid.filter(|_| heard.source == Source::State).filter(tells_apart)?;
    Some(hash(FNV_BASIS, tid))
}

/// FNV-1a.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

fn fold(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The text with an end: two texts after each other are no other two.
fn hash(hash: u64, text: &str) -> u64 {
    fold(fold(hash, text.as_bytes()), &[0xff])
}
