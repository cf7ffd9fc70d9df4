//! What is known of one device, and what of it is still to be kept.

use std::collections::VecDeque;

use utmos_core::{
    device::DeviceKind,
    id::{DeviceSn, TenantId},
    ports::DeviceTelemetry,
    telemetry::{Latest, Samples, Source},
    time::{Mono, Now},
};

use super::budget::Budget;

/// Exchanges of a device that are remembered, to tell a state that is sent again. A recorded dock sends some 20 states in a
/// row, each up to once in eight seconds until it tires of it.
const EXCHANGES_MAX: usize = 64;

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

/// One device.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) tenant: TenantId,
    pub(super) kind: DeviceKind,
    pub(super) latest: Latest,
    /// How much of what may be held of the latest is taken for it.
    pub(super) charged: usize,
    /// Whether `latest` holds what an earlier process heard, too.
    pub(super) is_recalled: bool,
    /// Whether `latest` has changed since it was kept.
    pub(super) is_changed: bool,
    pub(super) touched: Mono,
    pending: Vec<Samples>,
    exchanges: VecDeque<u64>,
    budget: Budget,
}

impl Entry {
    pub(super) fn new(tenant: TenantId, kind: DeviceKind, now: Now) -> Self {
        Self {
            tenant,
            kind,
            latest: Latest::default(),
            charged: 0,
            is_recalled: false,
            is_changed: false,
            touched: now.mono,
            pending: Vec::new(),
            exchanges: VecDeque::new(),
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
        if heard.source == Source::State && self.is_sent_again(heard.tid) {
            return Taken::default();
        }
        let merged = self.latest.merge_within(heard.data, heard.source, now, latest_room);
        let Ok(merged) = merged else {
            return Taken { dropped: 1, ..Taken::default() };
        };
        self.is_changed = true;
        let mut taken = Taken {
            dropped: merged.left_out as u64,
            crowded_out: merged.crowded_out as u64,
            ..Taken::default()
        };
        // What was kept earlier of something that is left out now is not the latest of it.
        self.is_recalled |= merged.crowded_out > 0;
        // A state that says nothing new is one sent again whose exchange was forgotten.
        let is_news = heard.source != Source::State || merged.changed > 0 || merged.crowded_out > 0;
        let (Some(room), true) = (room, is_news) else { return taken };
        let bytes = heard.data.len();
        if room < bytes || !self.budget.spend(bytes, now) {
            taken.dropped += 1;
            return taken;
        }
        let at = now.wall;
        let before = self.last_piece_bytes();
        let added =
            self.pending.last_mut().is_some_and(|piece| piece.add(at, heard.source, heard.data));
        if !added {
            self.pending.push(Samples::of(at, heard.source, heard.data));
        }
        taken.pending_bytes = self.last_piece_bytes() - if added { before } else { 0 };
        taken
    }

    fn last_piece_bytes(&self) -> usize {
        self.pending.last().map_or(0, |piece| piece.bytes().len())
    }

    /// A dock repeats a state that wants an answer with the same `tid`, also after another that contradicts it. Remote
    /// controllers send zeros in all of theirs.
    fn is_sent_again(&mut self, tid: Option<&str>) -> bool {
        let tells_apart = |tid: &&str| tid.bytes().any(|byte| !matches!(byte, b'0' | b'-'));
        let Some(tid) = tid.filter(tells_apart) else { return false };
        let hash = tid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        if self.exchanges.contains(&hash) {
            return true;
        }
        if self.exchanges.len() == EXCHANGES_MAX {
            self.exchanges.pop_front();
        }
        self.exchanges.push_back(hash);
        false
    }

    /// Adds what was kept earlier, as far as there is room. Answers how much of it found none.
    pub(super) fn recall(&mut self, earlier: Option<Latest>, room: usize) -> u64 {
        if self.is_recalled {
            return 0;
        }
        self.is_recalled = true;
        let merged = self.latest.recall_within(earlier.unwrap_or_default(), room);
        merged.crowded_out as u64
    }

    /// Whether there is anything to be kept.
    pub(super) fn has_news(&self) -> bool {
        self.is_changed || !self.pending.is_empty()
    }

    /// Takes out what is to be kept. The latest stays here until what was kept of it earlier is known: otherwise it would
    /// take the place of more than it holds.
    pub(super) fn hand_over(&mut self, device: &DeviceSn) -> Option<DeviceTelemetry> {
        let keeps_latest = self.is_changed && self.is_recalled;
        if self.pending.is_empty() && !keeps_latest {
            return None;
        }
        self.is_changed &= !keeps_latest;
        Some(DeviceTelemetry {
            tenant: self.tenant,
            device: device.clone(),
            kind: self.kind,
            samples: std::mem::take(&mut self.pending),
            latest: keeps_latest.then(|| self.latest.clone()),
        })
    }
}
