//! What a device asks, typed, so that the caller knows what to look up before it answers.

use std::{borrow::Cow, fmt};

use utmos_core::id::DeviceSn;

use crate::{
    json::{Field, each_item, pick},
    uplink::{AskedOn, Request},
};

/// Longest text of a request that is taken, in bytes; a longer one counts as empty.
pub const TEXT_BYTES_MAX: usize = 512;

/// How many devices of one request are read. DJI's have two, dock and aircraft.
pub const DEVICES_MAX: usize = 16;

/// A request that can be answered without a person, or the fact that it cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// `config`: NTP server and app credentials. A dock's first request.
    Config {
        /// Whether it says that it is a simulated dock: any app credentials are good enough for one. A claim.
        simulated: bool,
    },
    /// `airport_bind_status`: are these devices bound?
    BindStatus {
        /// The serial numbers, as the device wrote them.
        devices: Vec<String>,
    },
    /// `airport_organization_get`: whose is this code?
    Organization {
        /// `organization_id`.
        organization_id: String,
        /// `device_binding_code`.
        binding_code: BindingCode,
    },
    /// `airport_organization_bind`: bind these devices.
    Bind {
        /// The devices.
        devices: Vec<BindDevice>,
    },
    /// `flight_areas_get`. Without an answer a takeoff waits 40 s (DJI's FAQ, older firmware).
    FlightAreas,
    /// `offline_map_get`. As [`Question::FlightAreas`].
    OfflineMap,
    /// `storage_config_get`: where may I upload to? Before every upload.
    Storage {
        /// 0 media, 1 PSDK interface resources.
        module: Option<i64>,
    },
    /// `flighttask_resource_get`: where is the file of this task?
    Resource {
        /// The task.
        flight_id: String,
    },
    /// `flighttask_progress_get`: how does this task stand at the other dock?
    Progress {
        /// The other dock, as the device wrote it.
        target_sn: String,
        /// The task.
        flight_id: String,
    },
    /// A method of the above whose `data` does not say what is asked about.
    Unreadable,
    /// No method at all.
    NoMethod,
    /// Any other method.
    Other,
}

/// What proves that a device may be bound. A secret: it is not printed, and the caller compares it in constant time.
#[derive(Clone, PartialEq, Eq)]
pub struct BindingCode(String);

impl BindingCode {
    /// The code as it was typed in.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BindingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BindingCode(…)")
    }
}

/// A device to be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindDevice {
    /// Its serial number.
    pub sn: DeviceSn,
    /// `organization_id`.
    pub organization_id: String,
    /// `device_binding_code`.
    pub binding_code: BindingCode,
    /// The name people gave it.
    pub callsign: String,
    /// Domain, type and subtype, such as `3-1-0`.
    pub model_key: String,
    /// Whether it says that it is a simulated one, as no real device does. A claim.
    pub simulated: bool,
}

impl Question {
    /// Reads what a request asks.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let Some(method) = request.method.as_deref() else { return Self::NoMethod };
        if request.asked_on != AskedOn::Requests {
            return Self::Other;
        }
        let data = &*request.data;
        let read = match method {
            "config" => {
                let [simulated] = pick(data, ["simulated"]);
                Some(Self::Config { simulated: simulated.scalar().flag().unwrap_or(false) })
            }
            "airport_bind_status" => bind_status(data),
            "airport_organization_get" => Some(organization(data)),
            "airport_organization_bind" => bind(data),
            "flight_areas_get" => Some(Self::FlightAreas),
            "offline_map_get" => Some(Self::OfflineMap),
            "storage_config_get" => {
                let [module] = pick(data, ["module"]);
                Some(Self::Storage { module: module.scalar().integer() })
            }
            "flighttask_resource_get" => {
                let [flight_id] = pick(data, ["flight_id"]);
                flight_id
                    .scalar()
                    .into_text()
                    .map(|id| Self::Resource { flight_id: id.into_owned() })
            }
            "flighttask_progress_get" => {
                let [target_sn, flight_id] = pick(data, ["target_sn", "flight_id"]);
                let (target_sn, flight_id) = (text(target_sn), text(flight_id));
                let is_whole = !target_sn.is_empty() && !flight_id.is_empty();
                is_whole.then_some(Self::Progress { target_sn, flight_id })
            }
            _ => Some(Self::Other),
        };
        read.unwrap_or(Self::Unreadable)
    }
}

fn bind_status(data: &str) -> Option<Question> {
    let [list] = pick(data, ["devices"]);
    let mut devices = Vec::new();
    let read = each_item(list.raw()?, &mut |item| {
        let [sn] = pick(item.get(), ["sn"]);
        let sn = text(sn);
        if !sn.is_empty() && devices.len() < DEVICES_MAX {
            devices.push(sn);
        }
    });
    (read.is_ok() && !devices.is_empty()).then_some(Question::BindStatus { devices })
}

fn organization(data: &str) -> Question {
    let [organization_id, binding_code] = pick(data, ["organization_id", "device_binding_code"]);
    Question::Organization {
        organization_id: text(organization_id),
        binding_code: BindingCode(text(binding_code)),
    }
}

fn bind(data: &str) -> Option<Question> {
    let [list] = pick(data, ["bind_devices"]);
    let mut devices = Vec::new();
    let read = each_item(list.raw()?, &mut |item| {
        if let Some(device) = bind_device(item.get()).filter(|_| devices.len() < DEVICES_MAX) {
            devices.push(device);
        }
    });
    (read.is_ok() && !devices.is_empty()).then_some(Question::Bind { devices })
}

fn bind_device(item: &str) -> Option<BindDevice> {
    let [sn, organization_id, binding_code, callsign, model_key, simulated] = pick(
        item,
        [
            "sn",
            "organization_id",
            "device_binding_code",
            "device_callsign",
            "device_model_key",
            "simulated",
        ],
    );
    Some(BindDevice {
        sn: DeviceSn::parse(&sn.scalar().into_text()?).ok()?,
        organization_id: text(organization_id),
        binding_code: BindingCode(text(binding_code)),
        callsign: text(callsign),
        model_key: text(model_key),
        simulated: simulated.scalar().flag().unwrap_or(false),
    })
}

fn text(field: Field<'_>) -> String {
    let text = field
        .scalar()
        .into_text()
        .filter(|text| text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control));
    text.map(Cow::into_owned).unwrap_or_default()
}
