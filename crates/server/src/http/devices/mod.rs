//! Devices of the tenant: what they are, whether they are there, and how new ones join.

pub mod codes;
pub mod edit;
mod fields;
pub mod get;
pub mod list;
pub mod password;
pub mod register;

use std::collections::BTreeSet;

use serde::Serialize;
use utmos_core::{
    credential::Secret,
    device::{Device, DeviceKind},
    id::{DeviceSn, GatewaySn},
    signing::Caller,
};
use utmos_dji::product;
use utoipa::ToSchema;

use super::{
    App,
    problem::{Code, Problem},
    words::{DeviceKindWord, EvidenceWord},
};

/// Longest label.
const LABEL_CHARS_MAX: usize = 128;
/// Most tags, and the longest.
const TAGS_MAX: usize = 32;
const TAG_CHARS_MAX: usize = 64;

/// A device and what is known of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "device_id": "SIM-DOCK-0001", "vendor": "dji", "kind": "dock", "product_name": "DJI Dock 2", "model_key": "3-2-0",
    "label": "North roof", "tags": ["north"], "simulated": true, "gateway_ids": [],
    "sub_devices": [{
        "device_id": "SIM-M3D-0001", "product_name": "DJI Matrice 3TD", "model_key": "0-91-1", "index": "A", "present": true
    }],
    "firmware_version": "10.01.1609", "first_seen_at": "2026-05-21T08:27:50.000Z",
    "last_seen_at": "2026-05-21T08:28:09.120Z", "online": true,
    "online_evidence": {"kind": "connected", "at": "2026-05-21T08:27:50.000Z"}, "has_mqtt_password": true,
    "created_at": "2026-05-20T10:00:00.000Z"
}))]
pub struct DeviceView {
    /// Its serial number.
    #[schema(example = "SIM-DOCK-0001")]
    pub device_id: String,
    /// Always `dji`.
    #[schema(example = "dji")]
    pub vendor: &'static str,
    /// What it is.
    #[schema(value_type = DeviceKindWord)]
    pub kind: DeviceKind,
    /// What the product is called, where its numbers are known.
    pub product_name: Option<&'static str>,
    /// The product in DJI's numbers, `domain-type-sub_type`, where the device or its gateway told them.
    pub model_key: Option<String>,
    /// For people.
    pub label: String,
    /// To find devices by.
    pub tags: BTreeSet<String>,
    /// Whether it is marked as simulated: when it was registered, by its own word when it was bound with a binding code, or with the
    /// gateway that first reported it.
    pub simulated: bool,
    /// The gateways an aircraft stands behind now, else those behind which it stood last. With several, a command for it
    /// is refused: address the gateway.
    pub gateway_ids: Vec<String>,
    /// What stands behind a gateway, or stood there last.
    pub sub_devices: Vec<SubDeviceView>,
    /// The firmware it told of.
    pub firmware_version: Option<String>,
    /// When it was seen for the first time.
    #[schema(format = "date-time")]
    pub first_seen_at: Option<String>,
    /// When it was seen last.
    #[schema(format = "date-time")]
    pub last_seen_at: Option<String>,
    /// Whether it is there now.
    pub online: bool,
    /// By what that is known.
    pub online_evidence: EvidenceView,
    /// Whether it may connect to the embedded broker.
    pub has_mqtt_password: bool,
    /// When it was added.
    #[schema(format = "date-time")]
    pub created_at: String,
}

/// What stands behind a gateway.
#[derive(Debug, Serialize, ToSchema)]
pub struct SubDeviceView {
    /// Its serial number.
    pub device_id: String,
    /// What the product is called, where its numbers are known.
    pub product_name: Option<&'static str>,
    /// The product in DJI's numbers.
    pub model_key: Option<String>,
    /// The control channel, `A` or `B`, where told.
    pub index: Option<String>,
    /// Whether the gateway says that it is on; otherwise it was there last.
    pub present: bool,
}

/// By what it is known that a device is there, or is not.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvidenceView {
    /// What was observed.
    #[schema(value_type = EvidenceWord)]
    pub kind: &'static str,
    /// Since when, for a connection, a topology and their end; when it was last heard, for `heard` and `silent`.
    #[schema(format = "date-time")]
    pub at: Option<String>,
}

/// What is typed into a gateway so that it connects. Shown once.
#[derive(Debug, Serialize, ToSchema)]
pub struct MqttLogin {
    /// Its serial number.
    pub username: String,
    /// Its password, which nobody can show again.
    pub password: String,
}

impl MqttLogin {
    fn new(sn: &DeviceSn, password: &Secret) -> Self {
        Self { username: sn.to_string(), password: password.expose().to_owned() }
    }
}

impl DeviceView {
    /// Shows a device to a caller, who may not see every other device.
    pub fn of(app: &App, caller: &Caller, device: &Device) -> Self {
        let shown = app.fleet.shown(device);
        let sight = shown.sight.as_ref();
        let told = sight.and_then(|sight| sight.model_key.clone());
        let model_key = told.or_else(|| device.model_key.clone());
        let may_see = |sn: &DeviceSn| caller.may_touch(sn);
        let gateway = device.sn.to_gateway();
        let (gateways, sub_devices) = app.directory.with_registry(|registry| {
            if !device.kind.is_gateway() {
                let (now, before) = registry.gateways_of(&device.sn);
                return (if now.is_empty() { before } else { now }, Vec::new());
            }
            let present = registry.sub_devices(&gateway);
            let theirs = registry.known_sub_devices(&gateway).iter().filter(|sub| {
                may_see(&sub.sn)
                    && registry.device(&sub.sn).is_some_and(|sub| sub.tenant == device.tenant)
            });
            let view = theirs.map(|sub| SubDeviceView {
                device_id: sub.sn.to_string(),
                product_name: sub.model_key.as_deref().and_then(name_of),
                model_key: sub.model_key.clone(),
                index: sub.index.clone(),
                present: present.contains(sub),
            });
            (Vec::new(), view.collect())
        });
        let seen_gateways = gateways.iter().filter(|gateway| may_see(&gateway.to_device()));
        Self {
            device_id: device.sn.to_string(),
            vendor: "dji",
            kind: device.kind,
            product_name: model_key.as_deref().and_then(name_of),
            model_key,
            label: device.label.clone(),
            tags: device.tags.clone(),
            simulated: device.simulated,
            gateway_ids: seen_gateways.map(GatewaySn::to_string).collect(),
            sub_devices,
            firmware_version: sight.and_then(|sight| sight.firmware.clone()),
            first_seen_at: sight.map(|sight| sight.first_seen_at.to_string()),
            last_seen_at: sight.map(|sight| sight.last_seen_at.to_string()),
            online: shown.online,
            online_evidence: EvidenceView {
                kind: shown.evidence.as_str(),
                at: shown.at.map(|at| at.to_string()),
            },
            has_mqtt_password: device.mqtt_secret_hash.is_some(),
            created_at: device.created_at.to_string(),
        }
    }
}

fn name_of(key: &str) -> Option<&'static str> {
    product::of(key).map(|product| product.name.as_str())
}

/// A device of the caller's. Another tenant's, and one the credential may not touch, reads like one that is not there.
pub fn find(app: &App, caller: &Caller, text: &str) -> Result<Device, Problem> {
    let sn = DeviceSn::parse(text).map_err(|_| unknown(text))?;
    let device = app
        .directory
        .device(&sn)
        .filter(|device| device.tenant == caller.tenant() && caller.may_touch(&device.sn));
    device.ok_or_else(|| unknown(text))
}

fn unknown(text: &str) -> Problem {
    let shown: String = text.chars().take(64).collect();
    Problem::new(Code::DeviceNotFound, format!("no device {shown} in this tenant"))
}

/// What lets any device join is not for a credential that may touch only some.
fn must_touch_all(caller: &Caller) -> Result<(), Problem> {
    match caller.devices() {
        None => Ok(()),
        Some(_) => Err(Problem::new(
            Code::PermissionDenied,
            "this credential is limited to some devices; binding codes let any device join",
        )),
    }
}
