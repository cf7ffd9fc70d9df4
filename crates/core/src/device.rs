//! Devices of a tenant and who stands behind whom: a command for an aircraft goes to its gateway.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    id::{DeviceSn, GatewaySn, TenantId},
    time::Timestamp,
};

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A dock: a gateway that houses an aircraft.
    Dock,
    /// A remote controller: a gateway in somebody's hands.
    RemoteController,
    /// An aircraft: a sub-device behind a gateway.
    Aircraft,
}

impl DeviceKind {
    /// Whether it holds a connection of its own.
    #[must_use]
    pub fn is_gateway(self) -> bool {
        match self {
            Self::Dock | Self::RemoteController => true,
            Self::Aircraft => false,
        }
    }

    /// The kind as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dock => "dock",
            Self::RemoteController => "remote_controller",
            Self::Aircraft => "aircraft",
        }
    }

    /// Reads a kind.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Dock, Self::RemoteController, Self::Aircraft]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// A device as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its serial number; belongs to one tenant at a time.
    pub sn: DeviceSn,
    /// Whose it is.
    pub tenant: TenantId,
    /// What it is.
    pub kind: DeviceKind,
    /// `domain-type-sub_type` as DJI numbers products, where known.
    pub model_key: Option<String>,
    /// For people.
    pub label: String,
    /// For people and their programs, to find devices by.
    pub tags: BTreeSet<String>,
    /// Whether it is marked as simulated: when it was registered, by its own word when it was bound, or with the gateway that
    /// first reported it.
    pub simulated: bool,
    /// SHA-256 over serial number and MQTT password, for gateways that may connect to the embedded broker.
    pub mqtt_secret_hash: Option<[u8; 32]>,
    /// When it was added.
    pub created_at: Timestamp,
}

/// A sub-device as a gateway reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubDevice {
    /// Its serial number.
    pub sn: DeviceSn,
    /// `domain-type-sub_type`, where told.
    pub model_key: Option<String>,
    /// The control channel, `A` or `B`, where told.
    pub index: Option<String>,
}

/// Where a command for a device goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The gateway that carries it.
    pub gateway: GatewaySn,
    /// The aircraft it concerns: the device itself, or the one behind the gateway.
    pub aircraft: Option<DeviceSn>,
}

/// Why a command has nowhere to go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// Not a device of this tenant.
    #[error("no device {0} in this tenant")]
    UnknownDevice(DeviceSn),
    /// An aircraft no gateway has reported.
    #[error(
        "no gateway has reported aircraft {0} yet; address its dock or remote controller, or wait until it is on"
    )]
    NoGateway(DeviceSn),
    /// An aircraft that several gateways report.
    #[error("aircraft {device} stands behind several gateways ({}); address the gateway you mean", .gateways.join(", "))]
    Ambiguous {
        /// The aircraft.
        device: DeviceSn,
        /// The gateways.
        gateways: Vec<String>,
    },
}

/// How many sub-devices nobody had registered may join through one gateway, ever. Whoever has more behind it registers
/// them by hand; a gateway that makes serial numbers up fills no store.
pub const AIRCRAFT_PER_GATEWAY_MAX: usize = 8;

/// The gateways of each sub-device.
type Ways = BTreeMap<DeviceSn, BTreeSet<GatewaySn>>;

/// All devices and their topology. Pure: somebody else loads, saves and locks it.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    /// Shared with whoever has the same list, so that it is held once.
    devices: BTreeMap<DeviceSn, Arc<Device>>,
    /// What each gateway reported last, and what is remembered of it while its aircraft is off.
    behind: BTreeMap<GatewaySn, Behind>,
    /// The reverse of what `behind` knows …
    gateways_of: Ways,
    /// … and of what it left out.
    left_out_by: Ways,
    /// Counts how often a gateway lost its sub-devices.
    departures: u64,
}

#[derive(Debug, Clone, Default)]
struct Behind {
    /// Sub-devices that were there last.
    known: Vec<SubDevice>,
    /// Whether they are there now.
    present: bool,
    /// Its place in the order in which gateways lost theirs; 0 when that was before this process.
    left: u64,
    /// Sub-devices that joined through it, or are on record as having been behind it.
    joined: BTreeSet<DeviceSn>,
    /// What its last report named and could not have.
    left_out: Vec<SubDevice>,
}

/// What a topology report changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopologyChange {
    /// As before.
    Same,
    /// These stand behind the gateway now; an empty list means that the aircraft is off.
    Changed(Vec<SubDevice>),
    /// The gateway is not registered.
    UnknownGateway,
}

/// What became of a topology report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyReport {
    /// What it changed.
    pub change: TopologyChange,
    /// Sub-devices it named that may not be taken over: they belong to another tenant, are gateways, or are more than
    /// [`AIRCRAFT_PER_GATEWAY_MAX`]. The rest of the report counts without them.
    pub left_out: Vec<DeviceSn>,
}

impl Registry {
    /// Adds or replaces a device.
    pub fn put(&mut self, device: Device) {
        self.devices.insert(device.sn.clone(), Arc::new(device));
    }

    /// Takes the whole list of devices anew, as [`Registry::change_devices`] takes some.
    pub fn replace_devices(&mut self, devices: Vec<Device>) {
        let gone = self.devices.keys().map(|sn| (sn.clone(), None));
        let mut changed: BTreeMap<DeviceSn, Option<Device>> = gone.collect();
        changed.extend(devices.into_iter().map(|device| (device.sn.clone(), Some(device))));
        self.change_devices(changed);
    }

    /// Takes over what became of some devices; of one that is gone nothing is left. Topology stays as reported, except
    /// where a gateway is gone, or a sub-device is now another tenant's or a gateway. What a gateway reports and could not
    /// have stands behind it from now on if it has become its tenant's. Nothing goes through all devices.
    pub fn change_devices<D: Into<Arc<Device>>>(
        &mut self,
        changed: impl IntoIterator<Item = (DeviceSn, Option<D>)>,
    ) {
        let mut concerned = BTreeSet::new();
        for (sn, device) in changed {
            for ways in [&self.gateways_of, &self.left_out_by] {
                concerned.extend(ways.get(&sn).into_iter().flatten().cloned());
            }
            concerned.insert(sn.to_gateway());
            match device {
                Some(device) => self.devices.insert(sn, device.into()),
                None => self.devices.remove(&sn),
            };
        }
        concerned.iter().for_each(|gateway| self.look_again(gateway));
    }

    /// Finds out anew what may stand behind a gateway, after it or something that it named became another.
    fn look_again(&mut self, gateway: &GatewaySn) {
        let Some(mut behind) = self.behind.remove(gateway) else { return };
        forget_way(&mut self.gateways_of, gateway, &behind.known);
        forget_way(&mut self.left_out_by, gateway, &behind.left_out);
        let Some(tenant) = self.tenant_of(gateway) else { return };
        let may_stay = |sub: &SubDevice| self.may_stand_behind(gateway, &sub.sn);
        let (known, gone): (Vec<SubDevice>, Vec<SubDevice>) =
            std::mem::take(&mut behind.known).into_iter().partition(may_stay);
        behind.known = known;
        let is_theirs = |sub: &SubDevice| self.is_aircraft_of(tenant, &sub.sn);
        let (theirs, mut left_out): (Vec<SubDevice>, Vec<SubDevice>) =
            std::mem::take(&mut behind.left_out).into_iter().partition(is_theirs);
        // It stands there all the same, and counts again once it may: its gateway will not report it anew.
        left_out.extend(gone.into_iter().filter(|_| behind.present));
        behind.left_out = left_out;
        behind.present |= !theirs.is_empty();
        behind.known.extend(theirs);
        behind.present &= !behind.known.is_empty();
        know_way(&mut self.gateways_of, gateway, &behind.known);
        know_way(&mut self.left_out_by, gateway, &behind.left_out);
        self.behind.insert(gateway.clone(), behind);
    }

    /// Looks a device up, of whichever tenant.
    #[must_use]
    pub fn device(&self, sn: &DeviceSn) -> Option<&Device> {
        self.devices.get(sn).map(Arc::as_ref)
    }

    /// Every device, by serial number.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values().map(Arc::as_ref)
    }

    /// A tenant's devices in the order of their serial numbers, those after `after`.
    pub fn devices_of(
        &self,
        tenant: TenantId,
        after: Option<&DeviceSn>,
    ) -> impl Iterator<Item = &Device> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.devices.range::<DeviceSn, _>((from, Bound::Unbounded));
        rest.map(|(_, device)| device.as_ref()).filter(move |device| device.tenant == tenant)
    }

    /// The gateways of the aircraft's tenant behind which it stands now, and those behind which it stood last.
    #[must_use]
    pub fn gateways_of(&self, aircraft: &DeviceSn) -> (Vec<GatewaySn>, Vec<GatewaySn>) {
        let Some(tenant) = self.devices.get(aircraft).map(|device| device.tenant) else {
            return (Vec::new(), Vec::new());
        };
        let all = self.gateways_of.get(aircraft).into_iter().flatten();
        let theirs = all.filter(|gateway| self.tenant_of(gateway) == Some(tenant)).cloned();
        theirs.partition(|gateway| self.behind.get(gateway).is_some_and(|behind| behind.present))
    }

    /// Whether a device may become a gateway's sub-device by being bound with it: an aircraft of its tenant, or one that
    /// nobody has, while there is room for one more.
    #[must_use]
    pub fn may_be_bound(&self, gateway: &GatewaySn, tenant: TenantId, sn: &DeviceSn) -> bool {
        *sn != gateway.to_device()
            && (self.is_aircraft_of(tenant, sn)
                || (self.is_unclaimed(sn) && self.may_still_join(gateway) > 0))
    }

    /// How many aircraft may still join by a gateway.
    #[must_use]
    pub fn may_still_join(&self, gateway: &GatewaySn) -> usize {
        let joined = self.behind.get(gateway).map_or(0, |behind| behind.joined.len());
        AIRCRAFT_PER_GATEWAY_MAX.saturating_sub(joined)
    }

    /// These were bound with a gateway: they count among those that joined through it.
    pub fn were_bound(&mut self, gateway: &GatewaySn, aircraft: &[DeviceSn]) {
        self.behind.entry(gateway.clone()).or_default().joined.extend(aircraft.iter().cloned());
    }

    /// The tenant a gateway belongs to.
    #[must_use]
    pub fn tenant_of(&self, gateway: &GatewaySn) -> Option<TenantId> {
        self.devices.get(&gateway.to_device()).map(|device| device.tenant)
    }

    /// What stands behind a gateway now.
    #[must_use]
    pub fn sub_devices(&self, gateway: &GatewaySn) -> &[SubDevice] {
        self.behind.get(gateway).filter(|behind| behind.present).map_or(&[], |behind| &behind.known)
    }

    /// What stood behind a gateway last, whether or not it is there now.
    #[must_use]
    pub fn known_sub_devices(&self, gateway: &GatewaySn) -> &[SubDevice] {
        self.behind.get(gateway).map_or(&[], |behind| &behind.known)
    }

    /// The aircraft a gateway may speak for: those last behind it, whether or not they are there now, that are its own
    /// tenant's.
    #[must_use]
    pub fn speaks_for(&self, gateway: &GatewaySn) -> Vec<DeviceSn> {
        let Some(tenant) = self.tenant_of(gateway) else { return Vec::new() };
        let subs = self.known_sub_devices(gateway).iter().map(|sub| &sub.sn);
        subs.filter(|sn| self.is_aircraft_of(tenant, sn)).cloned().collect()
    }

    /// Whether no registered device has this serial number.
    #[must_use]
    pub fn is_unclaimed(&self, sn: &DeviceSn) -> bool {
        !self.devices.contains_key(sn)
    }

    fn is_aircraft_of(&self, tenant: TenantId, sn: &DeviceSn) -> bool {
        self.devices.get(sn).is_some_and(|it| it.tenant == tenant && !it.kind.is_gateway())
    }

    /// Whether this can be a sub-device of the gateway: its tenant's aircraft, or unknown.
    fn may_stand_behind(&self, gateway: &GatewaySn, sn: &DeviceSn) -> bool {
        let tenant = self.tenant_of(gateway);
        *sn != gateway.to_device()
            && (self.is_unclaimed(sn)
                || tenant.is_some_and(|tenant| self.is_aircraft_of(tenant, sn)))
    }

    /// Finds the way to a device of `tenant`.
    ///
    /// # Errors
    /// When the device is not the tenant's, or no one gateway leads to it.
    pub fn route(&self, tenant: TenantId, device: &DeviceSn) -> Result<Route, NoRoute> {
        let known = self
            .devices
            .get(device)
            .filter(|known| known.tenant == tenant)
            .ok_or_else(|| NoRoute::UnknownDevice(device.clone()))?;
        if known.kind.is_gateway() {
            let gateway = device.to_gateway();
            // What was remembered may belong to somebody else since.
            let is_theirs = |sub: &&SubDevice| self.is_aircraft_of(tenant, &sub.sn);
            let aircraft =
                self.known_sub_devices(&gateway).iter().find(is_theirs).map(|sub| sub.sn.clone());
            return Ok(Route { gateway, aircraft });
        }
        let of_tenant = |gateway: &&GatewaySn| self.tenant_of(gateway) == Some(tenant);
        let all: Vec<&GatewaySn> =
            self.gateways_of.get(device).into_iter().flatten().filter(of_tenant).collect();
        let present: Vec<&GatewaySn> = all
            .iter()
            .copied()
            .filter(|gateway| self.behind.get(*gateway).is_some_and(|b| b.present))
            .collect();
        // Those that report it now outweigh those that did once; of these, the one that had it last.
        let candidates = if present.is_empty() { self.last_to_lose(all) } else { present };
        match candidates.as_slice() {
            [] => Err(NoRoute::NoGateway(device.clone())),
            [gateway] => Ok(Route { gateway: (*gateway).clone(), aircraft: Some(device.clone()) }),
            [_, _, ..] => Err(NoRoute::Ambiguous {
                device: device.clone(),
                gateways: candidates.iter().map(ToString::to_string).collect(),
            }),
        }
    }

    fn last_to_lose<'a>(&self, gateways: Vec<&'a GatewaySn>) -> Vec<&'a GatewaySn> {
        let left = |gateway: &GatewaySn| self.behind.get(gateway).map_or(0, |behind| behind.left);
        let last = gateways.iter().map(|gateway| left(gateway)).max();
        gateways.into_iter().filter(|gateway| Some(left(gateway)) == last).collect()
    }

    /// Takes a gateway's report of what stands behind it. Unknown sub-devices join the gateway's tenant, up to
    /// [`AIRCRAFT_PER_GATEWAY_MAX`].
    pub fn report_topology(
        &mut self,
        gateway: &GatewaySn,
        subs: &[SubDevice],
        now: Timestamp,
    ) -> TopologyReport {
        let Some(tenant) = self.tenant_of(gateway) else {
            return TopologyReport { change: TopologyChange::UnknownGateway, left_out: Vec::new() };
        };
        let mut joined =
            self.behind.get(gateway).map(|behind| behind.joined.clone()).unwrap_or_default();
        let may_be = |sub: &SubDevice| {
            self.may_stand_behind(gateway, &sub.sn)
                && (!self.is_unclaimed(&sub.sn) || may_join(&mut joined, &sub.sn))
        };
        let (subs, left_out): (Vec<SubDevice>, Vec<SubDevice>) =
            subs.iter().cloned().partition(may_be);
        let names = left_out.iter().map(|sub| sub.sn.clone()).collect();
        let change = self.take_over(gateway, tenant, &subs, now, joined);
        if let Some(behind) = self.behind.get_mut(gateway) {
            forget_way(&mut self.left_out_by, gateway, &behind.left_out);
            know_way(&mut self.left_out_by, gateway, &left_out);
            behind.left_out = left_out;
        }
        TopologyReport { change, left_out: names }
    }

    fn take_over(
        &mut self,
        gateway: &GatewaySn,
        tenant: TenantId,
        subs: &[SubDevice],
        now: Timestamp,
        joined: BTreeSet<DeviceSn>,
    ) -> TopologyChange {
        // One that was removed since joins anew.
        let is_new = subs.iter().any(|sub| self.is_unclaimed(&sub.sn));
        let behind = self.behind.entry(gateway.clone()).or_default();
        if behind.present != subs.is_empty()
            && (subs.is_empty() || (behind.known == subs && !is_new))
        {
            return TopologyChange::Same;
        }
        behind.joined = joined;
        behind.present = !subs.is_empty();
        if subs.is_empty() {
            self.departures += 1;
            behind.left = self.departures;
            return TopologyChange::Changed(Vec::new());
        }
        let before = std::mem::replace(&mut behind.known, subs.to_vec());
        forget_way(&mut self.gateways_of, gateway, &before);
        know_way(&mut self.gateways_of, gateway, subs);
        let simulated = self.device(&gateway.to_device()).is_some_and(|device| device.simulated);
        for sub in subs {
            let joins = || Device {
                sn: sub.sn.clone(),
                tenant,
                kind: DeviceKind::Aircraft,
                model_key: sub.model_key.clone(),
                label: String::new(),
                tags: BTreeSet::new(),
                simulated,
                mqtt_secret_hash: None,
                created_at: now,
            };
            self.devices.entry(sub.sn.clone()).or_insert_with(|| Arc::new(joins()));
        }
        TopologyChange::Changed(subs.to_vec())
    }

    /// Puts back what is on record of a gateway's sub-devices; they count as absent until reported again.
    /// What may not stand behind it is left out.
    pub fn recall_topology(&mut self, gateway: &GatewaySn, mut subs: Vec<SubDevice>) {
        subs.retain(|sub| self.may_stand_behind(gateway, &sub.sn));
        let before = std::mem::take(self.behind.entry(gateway.clone()).or_default());
        forget_way(&mut self.gateways_of, gateway, &before.known);
        forget_way(&mut self.left_out_by, gateway, &before.left_out);
        know_way(&mut self.gateways_of, gateway, &subs);
        let mut joined = before.joined;
        joined.extend(subs.iter().map(|sub| sub.sn.clone()));
        self.behind.insert(gateway.clone(), Behind { known: subs, joined, ..Behind::default() });
    }
}

fn know_way(ways: &mut Ways, gateway: &GatewaySn, subs: &[SubDevice]) {
    for sub in subs {
        ways.entry(sub.sn.clone()).or_default().insert(gateway.clone());
    }
}

fn forget_way(ways: &mut Ways, gateway: &GatewaySn, subs: &[SubDevice]) {
    for sub in subs {
        if let Some(gateways) = ways.get_mut(&sub.sn) {
            gateways.remove(gateway);
            if gateways.is_empty() {
                ways.remove(&sub.sn);
            }
        }
    }
}

/// Whether one more may join through a gateway through which these have.
fn may_join(joined: &mut BTreeSet<DeviceSn>, sn: &DeviceSn) -> bool {
    joined.contains(sn) || (joined.len() < AIRCRAFT_PER_GATEWAY_MAX && joined.insert(sn.clone()))
}

#[cfg(test)]
mod tests;
