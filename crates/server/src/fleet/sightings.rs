//! When devices were seen and what they told of themselves, in memory; what changed is written now and then.

use std::collections::{BTreeMap, BTreeSet};

use utmos_core::{
    id::{DeviceSn, TenantId},
    ports::Sighting,
    time::{Mono, Now, Timestamp},
};

/// Longest name of a firmware that is kept.
const FIRMWARE_CHARS_MAX: usize = 64;

/// What was seen of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Whose it was then.
    pub tenant: TenantId,
    /// When it was seen for the first time.
    pub first_seen_at: Timestamp,
    /// When it was seen last.
    pub last_seen_at: Timestamp,
    /// The firmware it told of.
    pub firmware: Option<String>,
    /// What it told it is.
    pub model_key: Option<String>,
    /// When this process heard it last; `None` once its gateway said that it is off.
    pub heard: Option<Mono>,
    /// Whether its gateway said that it is off, and it has not been seen since; and of one that only an earlier process saw.
    pub is_off: bool,
}

/// What is seen of all devices. Only registered ones are put in, so it is as large as the registry.
#[derive(Debug, Default)]
pub struct Sightings {
    seen: BTreeMap<DeviceSn, Sight>,
    /// Seen since it was written.
    unwritten: BTreeSet<DeviceSn>,
}

impl Sightings {
    /// Takes what is on record.
    #[must_use]
    pub fn of(kept: &[Sighting]) -> Self {
        let seen = kept.iter().map(|one| {
            let sight = Sight {
                tenant: one.tenant,
                first_seen_at: one.first_seen_at,
                last_seen_at: one.last_seen_at,
                firmware: one.firmware.clone(),
                model_key: one.model_key.clone(),
                heard: None,
                // It may have gone off meanwhile.
                is_off: true,
            };
            (one.sn.clone(), sight)
        });
        Self { seen: seen.collect(), unwritten: BTreeSet::new() }
    }

    /// A device of a tenant was seen.
    pub fn seen(&mut self, sn: &DeviceSn, tenant: TenantId, now: Now) -> &mut Sight {
        // What another tenant saw is no business of this one.
        if self.seen.get(sn).is_some_and(|sight| sight.tenant != tenant) {
            self.forget(sn);
        }
        if !self.unwritten.contains(sn) {
            self.unwritten.insert(sn.clone());
        }
        let sight = self.seen.entry(sn.clone()).or_insert_with(|| Sight {
            tenant,
            first_seen_at: now.wall,
            last_seen_at: now.wall,
            firmware: None,
            model_key: None,
            heard: None,
            is_off: false,
        });
        // A clock that was set back makes nothing older.
        sight.last_seen_at = sight.last_seen_at.max(now.wall);
        sight.heard = Some(now.mono);
        sight.is_off = false;
        sight
    }

    /// What was seen of a device.
    #[must_use]
    pub fn sight(&self, sn: &DeviceSn) -> Option<&Sight> {
        self.seen.get(sn)
    }

    /// Its gateway says that it is off: that it was heard just now means nothing any more.
    pub fn went_off(&mut self, sn: &DeviceSn) {
        if let Some(sight) = self.seen.get_mut(sn) {
            (sight.heard, sight.is_off) = (None, true);
        }
    }

    /// Whether its gateway said last that it is off, or nothing said yet that it is on: since the start of this process.
    #[must_use]
    pub fn is_off(&self, sn: &DeviceSn) -> bool {
        self.seen.get(sn).is_none_or(|sight| sight.is_off)
    }

    /// It came or went, which is written as well.
    pub fn changed(&mut self, sn: &DeviceSn) {
        if self.seen.contains_key(sn) {
            self.unwritten.insert(sn.clone());
        }
    }

    /// It is none of ours any more, or another tenant's.
    pub fn forget(&mut self, sn: &DeviceSn) {
        self.seen.remove(sn);
        self.unwritten.remove(sn);
    }

    /// Up to so many that are to be written; they count as written from then on.
    pub fn take_unwritten(
        &mut self,
        most: usize,
        is_online: impl Fn(&DeviceSn) -> bool,
    ) -> Vec<Sighting> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(sn) = self.unwritten.pop_first()
        {
            let Some(sight) = self.seen.get(&sn) else { continue };
            taken.push(Sighting {
                online: is_online(&sn),
                sn,
                tenant: sight.tenant,
                first_seen_at: sight.first_seen_at,
                last_seen_at: sight.last_seen_at,
                firmware: sight.firmware.clone(),
                model_key: sight.model_key.clone(),
            });
        }
        taken
    }

    /// They could not be written.
    pub fn give_back(&mut self, sightings: Vec<Sighting>) {
        let known = sightings.into_iter().filter(|one| self.seen.contains_key(&one.sn));
        let known: Vec<DeviceSn> = known.map(|one| one.sn).collect();
        self.unwritten.extend(known);
    }
}

impl Sight {
    /// It told of its firmware.
    pub fn has_firmware(&mut self, firmware: &str) {
        if self.firmware.as_deref() != Some(firmware) && !firmware.is_empty() {
            self.firmware = Some(firmware.chars().take(FIRMWARE_CHARS_MAX).collect());
        }
    }
}
