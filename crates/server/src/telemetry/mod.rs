//! What devices tell of themselves: the latest of it in memory, all of it for a while in the history.
//!
//! The link hands every message over as it comes. It is merged into what is known of its device and put beside what will be
//! kept; a task of its own keeps that every few seconds. Where the history cannot be written, telemetry is dropped and
//! counted: nothing here can hold up a command.

mod budget;
mod entry;
mod fullness;
mod keep;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use utmos_core::{
    device::DeviceKind,
    id::{DeviceSn, GatewaySn, TenantId},
    ports::{DeviceTelemetry, History, StoreError, TelemetryRules},
    telemetry::{Latest, Source},
    time::{Clock, Mono, Now},
};
use utmos_dji::{catalogue::mask_members, uplink::Uplink};

use self::{
    entry::{Earlier, Entry, Heard},
    fullness::Fullness,
};
use crate::{
    directory::{Changed, DeviceChange, Directory},
    link::{Listener, Said},
    shares::Room,
};

/// Parts of the devices: each is locked, and kept, by itself.
const SHARDS: usize = 16;
/// The push under direct control that tells of the aircraft what its `osd` tells, many times a second.
const DRC_OSD: &str = "osd_info_push";

/// How telemetry is kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How often everything is kept.
    pub flush: Duration,
    /// Most bytes that may wait to be kept; half of it is parted between the tenants.
    pub pending_bytes_max: usize,
    /// Most bytes that are held of the latest of all devices; half of it is parted between the tenants.
    pub latest_bytes_max: usize,
    /// What is kept for how long.
    pub rules: TelemetryRules,
}

/// What telemetry works with.
pub struct TelemetryParts {
    /// Who is who.
    pub directory: Arc<Directory>,
    /// Where it is kept.
    pub store: Arc<dyn History>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How it is kept.
    pub settings: Settings,
}

/// Figures since the start.
#[derive(Debug, Default)]
pub struct Figures {
    /// Messages merged.
    pub taken: AtomicU64,
    /// Samples that were kept.
    pub kept: AtomicU64,
    /// Messages and blocks that found no room, and samples that could not be kept.
    pub dropped: AtomicU64,
    /// Blocks that found no room in the latest, since their tenant's share of it was full.
    pub crowded_out: AtomicU64,
    /// Bytes of the history at the last look.
    pub history_bytes: AtomicU64,
}

/// Telemetry of all devices.
pub struct Telemetry {
    parts: TelemetryParts,
    figures: Figures,
    shards: Vec<Mutex<BTreeMap<DeviceSn, Entry>>>,
    /// Bytes of samples that wait to be kept.
    pending: Mutex<Room>,
    /// Bytes that are held of the latest of all devices.
    latest_held: Mutex<Room>,
    /// Whose share of that is full.
    full: Mutex<Fullness>,
    /// What waits of devices that have moved to another tenant meanwhile.
    left_over: Mutex<Vec<DeviceTelemetry>>,
    /// Whether the last flush failed: said once, not every few seconds.
    unwell: AtomicBool,
}

impl Listener for Telemetry {
    fn said(&self, said: &Said<'_>) {
        match said.uplink {
            Uplink::Osd(osd) => {
                self.take(said, &osd.device, Heard::new(Source::Osd, None, &osd.data));
            }
            Uplink::State(state) => {
                let tid = state.exchange.tid.as_deref();
                self.take(said, &state.device, Heard::new(Source::State, tid, &state.data));
            }
            Uplink::DrcPush(push) if push.method.as_deref() == Some(DRC_OSD) => {
                if let Some(aircraft) = self.only_aircraft_of(&push.gateway) {
                    self.take(said, &aircraft, Heard::new(Source::Drc, None, &push.data));
                }
            }
            Uplink::DrcPush(_)
            | Uplink::DrcAck(_)
            | Uplink::Reply(_)
            | Uplink::PropertyReply(_)
            | Uplink::Event(_)
            | Uplink::Request(_)
            | Uplink::Topology(_) => {}
        }
    }
}

impl Telemetry {
    /// Telemetry of no device yet.
    #[must_use]
    pub fn new(parts: TelemetryParts) -> Arc<Self> {
        Arc::new(Self {
            pending: Mutex::new(Room::new(parts.settings.pending_bytes_max)),
            latest_held: Mutex::new(Room::new(parts.settings.latest_bytes_max)),
            parts,
            figures: Figures::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            full: Mutex::default(),
            left_over: Mutex::default(),
            unwell: AtomicBool::new(false),
        })
    }

    /// Figures since the start.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Bytes of samples that wait to be kept.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending().taken()
    }

    /// Bytes that are held of the latest of all devices.
    #[must_use]
    pub fn latest_bytes(&self) -> usize {
        self.latest_held().taken()
    }

    /// The registry has changed, and that counts: of a device that is another's, or nobody's, nothing stays in memory but what
    /// waits to be kept for the tenant it was.
    pub fn changed(&self, changes: &[DeviceChange]) {
        for change in changes {
            match change.what {
                Changed::Moved { .. } | Changed::Removed => {
                    let former = self.shard(shard_of(&change.sn)).remove(&change.sn);
                    if let Some(mut former) = former {
                        self.leave_over(&change.sn, &mut former);
                        self.let_go(&former);
                    }
                }
                Changed::Added | Changed::AddedOverNewcomer | Changed::Login => {}
            }
        }
    }

    /// Devices in memory.
    #[must_use]
    pub fn devices(&self) -> usize {
        (0..SHARDS).map(|shard| self.shard(shard).len()).sum()
    }

    /// Everything a device has told last; empty where it has told nothing yet.
    ///
    /// # Errors
    /// When what an earlier process heard cannot be read.
    pub async fn latest(&self, tenant: TenantId, device: &DeviceSn) -> Result<Latest, StoreError> {
        let shard = shard_of(device);
        let (known, is_whole) = {
            let shard = self.shard(shard);
            let entry = shard.get(device).filter(|entry| entry.tenant == tenant);
            let is_whole =
                |entry: &Entry| entry.earlier == Earlier::Held && !self.may_be_behind(entry);
            (entry.map(|entry| entry.latest.clone()), entry.is_some_and(is_whole))
        };
        if is_whole {
            return Ok(known.unwrap_or_default());
        }
        let asked = vec![(tenant, device.clone())];
        let earlier = match (self.parts.store.latest_telemetry(asked).await, known) {
            (Ok(mut found), _) => found.remove(device),
            // What this process has heard is true, whatever cannot be read.
            (Err(_), Some(known)) => return Ok(known),
            (Err(error), None) => return Err(error),
        };
        match self.shard(shard).get_mut(device) {
            Some(entry) if entry.tenant == tenant => {
                if self.may_be_behind(entry) {
                    entry.earlier = Earlier::Unread;
                }
                // What finds no room in memory is told all the same.
                let whole = entry.whole(earlier.clone(), self.parts.store.is_shared());
                self.recall_into(entry, earlier);
                Ok(whole)
            }
            Some(_) | None => Ok(earlier.unwrap_or_default()),
        }
    }

    /// Whether another server may know more of a device: one that shares the history keeps what it hears within this time.
    fn may_be_behind(&self, entry: &Entry) -> bool {
        self.parts.store.is_shared()
            && self.now().mono.since(entry.touched) > self.parts.settings.flush
    }

    fn only_aircraft_of(&self, gateway: &GatewaySn) -> Option<DeviceSn> {
        self.parts.directory.with_registry(|registry| match registry.sub_devices(gateway) {
            [only] => Some(only.sn.clone()),
            _ => None,
        })
    }

    fn take(&self, said: &Said<'_>, device: &DeviceSn, heard: Heard<'_>) {
        // Docks tell the key of their radio link: neither the latest nor the history, which is not sealed, may have it.
        let masked = mask_members(heard.data());
        let heard = match masked.as_deref() {
            Some(shown) => heard.of(shown),
            None => heard,
        };
        let mut shard = self.shard(shard_of(device));
        let known = shard.get(device).is_some_and(|entry| entry.tenant == said.tenant);
        if !known {
            let kind = self.kind_of(device, said.gateway);
            if let Some(mut former) =
                shard.insert(device.clone(), Entry::new(said.tenant, kind, said.at))
            {
                self.leave_over(device, &mut former);
                self.let_go(&former);
            }
        }
        let Some(entry) = shard.get_mut(device) else { return };
        // Every server hears it. The one that holds the gateway keeps it, where all keep theirs in one place.
        let is_ours = said.is_ours || !self.parts.store.is_shared();
        entry.keeps(is_ours);
        let keeps = is_ours && !self.parts.settings.rules.kept(entry.kind).is_zero();
        let tenants = self.parts.directory.tenants();
        let room = keeps.then(|| self.pending().left(said.tenant, tenants));
        let latest_room = self.latest_held().left(said.tenant, tenants);
        let taken = entry.take(&heard, said.at, room, latest_room);
        entry.is_changed &= is_ours;
        self.charge(entry);
        self.pending().put(said.tenant, taken.pending_bytes);
        self.figures.taken.fetch_add(1, Ordering::Relaxed);
        self.figures.dropped.fetch_add(taken.dropped, Ordering::Relaxed);
        self.crowded_out(said.tenant, taken.crowded_out, said.at.mono);
    }

    /// Adds what was kept earlier of a device, as far as its tenant's share goes.
    fn recall_into(&self, entry: &mut Entry, earlier: Option<Latest>) {
        let tenants = self.parts.directory.tenants();
        let room = self.latest_held().left(entry.tenant, tenants);
        let is_first = entry.earlier == Earlier::Unread;
        let crowded_out = entry.recall(earlier, room, self.parts.store.is_shared());
        self.charge(entry);
        // It is tried again and again, and counts once.
        if is_first {
            self.crowded_out(entry.tenant, crowded_out, self.now().mono);
        }
    }

    /// So many blocks of a tenant found no room in the latest.
    fn crowded_out(&self, tenant: TenantId, blocks: u64, now: Mono) {
        if blocks == 0 {
            return;
        }
        self.figures.crowded_out.fetch_add(blocks, Ordering::Relaxed);
        if self.full().was_full(tenant, now) {
            tracing::warn!(
                %tenant,
                "the latest of what this tenant's devices tell fills its share of telemetry.latest_bytes_max ({} bytes): \
                 what finds no room is left out of it, and is in the history alone; raise it, by some 20 KB for each dock \
                 with its aircraft",
                self.parts.settings.latest_bytes_max
            );
        }
    }

    /// Tenants whose share of the latest is full, or was within the last minutes.
    #[must_use]
    pub fn full_tenants(&self) -> usize {
        self.full().count()
    }

    /// Forgets which shares were full a while ago.
    fn tell_of_room(&self) {
        for tenant in self.full().take_over(self.now().mono) {
            tracing::info!(%tenant, "the latest of what this tenant's devices tell has room again");
        }
    }

    /// Takes as much of the room as is held of a device now.
    fn charge(&self, entry: &mut Entry) {
        let held = entry.held_bytes();
        if held != entry.charged {
            let mut room = self.latest_held();
            room.give_back(entry.tenant, entry.charged);
            room.put(entry.tenant, held);
            entry.charged = held;
        }
    }

    /// A device is held no more.
    fn let_go(&self, entry: &Entry) {
        self.latest_held().give_back(entry.tenant, entry.charged);
    }

    /// A device of another tenant begins anew; what it told before is the former one's.
    fn leave_over(&self, device: &DeviceSn, former: &mut Entry) {
        if let Some(told) = former.hand_over(device) {
            self.left_over.lock().unwrap_or_else(PoisonError::into_inner).push(told);
        }
    }

    fn kind_of(&self, device: &DeviceSn, gateway: &GatewaySn) -> DeviceKind {
        let known = self
            .parts
            .directory
            .with_registry(|registry| registry.device(device).map(|device| device.kind));
        let is_gateway = device.as_str() == gateway.as_str();
        known.unwrap_or(if is_gateway { DeviceKind::Dock } else { DeviceKind::Aircraft })
    }

    fn shard(&self, number: usize) -> MutexGuard<'_, BTreeMap<DeviceSn, Entry>> {
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, Room> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latest_held(&self) -> MutexGuard<'_, Room> {
        self.latest_held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn full(&self) -> MutexGuard<'_, Fullness> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        self.parts.clock.now()
    }
}

fn shard_of(device: &DeviceSn) -> usize {
    let sum = device
        .as_str()
        .bytes()
        .fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    sum % SHARDS
}

#[cfg(test)]
mod tests;
