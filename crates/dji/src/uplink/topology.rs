//! `update_topo`: the gateway is there, and these are its sub-devices. DJI, "Device management", topology update.
//!
//! Docks send `domain` as a string and `thing_version`; remote controllers send numbers and `version`.

use utmos_core::{
    id::{DeviceSn, GatewaySn},
    reply::RawJson,
    time::Timestamp,
};

use super::Exchange;
use crate::{
    envelope::{self, Envelope},
    json::{Field, each_item, pick},
    topic::StatusRoot,
};

/// The one method of the status topic.
pub(super) const METHOD: &str = "update_topo";

/// How many sub-devices of one message are read. DJI's gateways have one aircraft, with relays a few.
pub const SUB_DEVICES_MAX: usize = 16;

/// A gateway's account of itself and its sub-devices.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// The gateway.
    pub gateway: GatewaySn,
    /// Where it reported, which is where the answer goes.
    pub root: StatusRoot,
    /// The ids, to be repeated in the answer.
    pub exchange: Exchange,
    /// What kind of device the gateway is.
    pub model: Model,
    /// Its sub-devices. An empty list says that the aircraft is gone, not the gateway; none that the message does not
    /// say.
    pub sub_devices: Option<Vec<SubDevice>>,
    /// How many entries of the list could not be used: without a serial number, or past [`SUB_DEVICES_MAX`].
    pub unusable: usize,
    /// The device's clock. Never order or expire by it.
    pub device_time: Option<Timestamp>,
    /// `data` as written. Holds `device_secret` and `nonce`: mask them before showing.
    pub data: RawJson,
}

/// What kind of device something is: DJI's three numbers and the version of its thing model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    /// 0 aircraft, 1 payload, 2 remote controller, 3 dock.
    pub domain: Option<i64>,
    /// `type`.
    pub device_type: Option<i64>,
    /// `sub_type`.
    pub sub_type: Option<i64>,
    /// `thing_version`, else `version`.
    pub thing_version: Option<String>,
}

impl Model {
    /// The numbers as DJI writes them in one word, such as `3-1-0`; nothing unless all three are known.
    #[must_use]
    pub fn key(&self) -> Option<String> {
        Some(format!("{}-{}-{}", self.domain?, self.device_type?, self.sub_type?))
    }
}

/// A device behind a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubDevice {
    /// Its serial number.
    pub sn: DeviceSn,
    /// What kind of device it is.
    pub model: Model,
    /// The control channel, `A` or `B`.
    pub index: Option<String>,
}

/// Reads a message on a status topic.
pub(super) fn read(gateway: &GatewaySn, root: StatusRoot, envelope: &Envelope<'_>) -> Topology {
    let data = envelope.data_or_null();
    let [domain, device_type, sub_type, thing_version, version, list] =
        pick(data, ["domain", "type", "sub_type", "thing_version", "version", "sub_devices"]);
    let mut subs: Vec<SubDevice> = Vec::new();
    let mut seen = 0_usize;
    let listed = list.raw().is_some_and(|list| {
        let count = each_item(list, &mut |item| {
            seen += 1;
            if subs.len() < SUB_DEVICES_MAX
                && let Some(sub) = read_sub(item.get())
                && !subs.iter().any(|known| known.sn == sub.sn)
            {
                subs.push(sub);
            }
        });
        count.is_ok()
    });
    let unusable = seen.saturating_sub(subs.len());
    Topology {
        gateway: gateway.clone(),
        root,
        exchange: Exchange::of(envelope),
        model: model([domain, device_type, sub_type, thing_version, version]),
        sub_devices: listed.then_some(subs),
        unusable,
        device_time: envelope.timestamp,
        data: data.into(),
    }
}

fn read_sub(item: &str) -> Option<SubDevice> {
    let [sn, index, domain, device_type, sub_type, thing_version, version] =
        pick(item, ["sn", "index", "domain", "type", "sub_type", "thing_version", "version"]);
    Some(SubDevice {
        sn: DeviceSn::parse(&sn.scalar().into_text()?).ok()?,
        model: model([domain, device_type, sub_type, thing_version, version]),
        index: short_text(index),
    })
}

fn model([domain, device_type, sub_type, thing_version, version]: [Field<'_>; 5]) -> Model {
    Model {
        domain: domain.scalar().integer(),
        device_type: device_type.scalar().integer(),
        sub_type: sub_type.scalar().integer(),
        thing_version: short_text(thing_version).or_else(|| short_text(version)),
    }
}

fn short_text(field: Field<'_>) -> Option<String> {
    envelope::id(field.scalar()).map(std::borrow::Cow::into_owned)
}
