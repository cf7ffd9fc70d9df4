//! DJI's topics, typed both ways. A serial number in a topic is one safe level, so no topic reaches into another's subtree.
//!
//! DJI, "Topic definition". Two habits beyond the page: an aircraft's `osd`, `state` and some `events` come on topics
//! with the aircraft's own serial number, and remote controllers print `status` under `thing/` instead of `sys/`.

use std::fmt;

use utmos_core::id::{DeviceSn, GatewaySn, InvalidSn};

pub mod access;

const THING: &str = "thing/product/";
const SYS: &str = "sys/product/";

/// Topic filters a server subscribes to on an outside broker: everything any device sends.
pub const SERVER_FILTERS: [&str; 9] = [
    "sys/product/+/status",
    "thing/product/+/status",
    "thing/product/+/services_reply",
    "thing/product/+/property/set_reply",
    "thing/product/+/requests",
    "thing/product/+/events",
    "thing/product/+/state",
    "thing/product/+/osd",
    "thing/product/+/drc/up",
];

/// The first level of a status topic: `sys` on docks, `thing` on the pages of remote controllers. The answer goes back
/// under the one the message came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusRoot {
    /// `sys/product/{gateway_sn}/status`.
    Sys,
    /// `thing/product/{gateway_sn}/status`.
    Thing,
}

/// Where a message from a device came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UplinkTopic {
    /// `thing/product/{device_sn}/osd`: properties, regularly.
    Osd {
        /// Dock, remote controller or aircraft.
        device: DeviceSn,
    },
    /// `thing/product/{device_sn}/state`: properties, when they change.
    State {
        /// Dock, remote controller or aircraft.
        device: DeviceSn,
    },
    /// `thing/product/{gateway_sn}/services_reply`.
    ServicesReply {
        /// The gateway that answers.
        gateway: GatewaySn,
    },
    /// `thing/product/{gateway_sn}/events`; some with the aircraft's serial number.
    Events {
        /// Gateway or aircraft.
        device: DeviceSn,
    },
    /// `thing/product/{gateway_sn}/requests`.
    Requests {
        /// The gateway that asks.
        gateway: GatewaySn,
    },
    /// `sys/product/{gateway_sn}/status` or `thing/product/{gateway_sn}/status`.
    Status {
        /// The gateway that reports.
        gateway: GatewaySn,
        /// Which of the two it was.
        root: StatusRoot,
    },
    /// `thing/product/{gateway_sn}/property/set_reply`.
    PropertySetReply {
        /// The gateway that answers.
        gateway: GatewaySn,
    },
    /// `thing/product/{gateway_sn}/drc/up`.
    DrcUp {
        /// The gateway that sends.
        gateway: GatewaySn,
    },
}

/// Where a message to a device goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DownlinkTopic {
    /// `thing/product/{gateway_sn}/services`.
    Services {
        /// The gateway that carries the command out or passes it on.
        gateway: GatewaySn,
    },
    /// `thing/product/{gateway_sn}/drc/down`.
    DrcDown {
        /// The gateway under direct control.
        gateway: GatewaySn,
    },
    /// `thing/product/{gateway_sn}/property/set`.
    PropertySet {
        /// The gateway whose or whose aircraft's property is set.
        gateway: GatewaySn,
    },
    /// `thing/product/{device_sn}/events_reply`, beside the events topic the event came on.
    EventsReply {
        /// Gateway or aircraft.
        device: DeviceSn,
    },
    /// `thing/product/{gateway_sn}/requests_reply`.
    RequestsReply {
        /// The gateway that asked.
        gateway: GatewaySn,
    },
    /// `sys/product/{gateway_sn}/status_reply` or `thing/product/{gateway_sn}/status_reply`.
    StatusReply {
        /// The gateway that reported.
        gateway: GatewaySn,
        /// Where it reported.
        root: StatusRoot,
    },
    /// `thing/product/{device_sn}/state_reply`. On no page of DJI's; real docks expect it on the aircraft's topic.
    StateReply {
        /// Gateway or aircraft.
        device: DeviceSn,
    },
}

/// Why a topic is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// Neither `thing/product/…` nor `sys/product/…`.
    #[error("the topic is under neither {THING:?} nor {SYS:?}")]
    Root,
    /// The level of the serial number holds none.
    #[error(transparent)]
    Serial(#[from] InvalidSn),
    /// What follows the serial number is not known in this direction.
    #[error("nothing is known of {0:?} after the serial number")]
    Name(String),
}

/// Longest unknown topic name that an error repeats, in characters.
const NAME_CHARS_MAX: usize = 64;

fn split(topic: &str) -> Result<(StatusRoot, DeviceSn, &str), NotOurs> {
    let (root, rest) = match (topic.strip_prefix(THING), topic.strip_prefix(SYS)) {
        (Some(rest), _) => (StatusRoot::Thing, rest),
        (None, Some(rest)) => (StatusRoot::Sys, rest),
        (None, None) => return Err(NotOurs::Root),
    };
    let (sn, name) = rest.split_once('/').unwrap_or((rest, ""));
    Ok((root, DeviceSn::parse(sn)?, name))
}

fn unknown<T>(name: &str) -> Result<T, NotOurs> {
    Err(NotOurs::Name(name.chars().take(NAME_CHARS_MAX).collect()))
}

impl UplinkTopic {
    /// Reads a topic that a device published on.
    ///
    /// # Errors
    /// When it is no topic of a device, with what is wrong with it.
    pub fn parse(topic: &str) -> Result<Self, NotOurs> {
        let (root, device, name) = split(topic)?;
        let gateway = || device.to_gateway();
        match (root, name) {
            (_, "status") => Ok(Self::Status { gateway: gateway(), root }),
            (StatusRoot::Thing, "osd") => Ok(Self::Osd { device }),
            (StatusRoot::Thing, "state") => Ok(Self::State { device }),
            (StatusRoot::Thing, "services_reply") => Ok(Self::ServicesReply { gateway: gateway() }),
            (StatusRoot::Thing, "events") => Ok(Self::Events { device }),
            (StatusRoot::Thing, "requests") => Ok(Self::Requests { gateway: gateway() }),
            (StatusRoot::Thing, "property/set_reply") => {
                Ok(Self::PropertySetReply { gateway: gateway() })
            }
            (StatusRoot::Thing, "drc/up") => Ok(Self::DrcUp { gateway: gateway() }),
            (StatusRoot::Thing | StatusRoot::Sys, other) => unknown(other),
        }
    }

    /// Whose serial number stands in the topic.
    #[must_use]
    pub fn device(&self) -> DeviceSn {
        match self {
            Self::Osd { device } | Self::State { device } | Self::Events { device } => {
                device.clone()
            }
            Self::ServicesReply { gateway }
            | Self::Requests { gateway }
            | Self::Status { gateway, .. }
            | Self::PropertySetReply { gateway }
            | Self::DrcUp { gateway } => gateway.to_device(),
        }
    }
}

impl fmt::Display for UplinkTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Osd { device } => write!(f, "{THING}{device}/osd"),
            Self::State { device } => write!(f, "{THING}{device}/state"),
            Self::ServicesReply { gateway } => write!(f, "{THING}{gateway}/services_reply"),
            Self::Events { device } => write!(f, "{THING}{device}/events"),
            Self::Requests { gateway } => write!(f, "{THING}{gateway}/requests"),
            Self::Status { gateway, root } => write!(f, "{root}{gateway}/status"),
            Self::PropertySetReply { gateway } => write!(f, "{THING}{gateway}/property/set_reply"),
            Self::DrcUp { gateway } => write!(f, "{THING}{gateway}/drc/up"),
        }
    }
}

impl DownlinkTopic {
    /// Reads a topic that a device subscribes to.
    ///
    /// # Errors
    /// When it is no topic to a device, with what is wrong with it.
    pub fn parse(topic: &str) -> Result<Self, NotOurs> {
        let (root, device, name) = split(topic)?;
        let gateway = || device.to_gateway();
        match (root, name) {
            (_, "status_reply") => Ok(Self::StatusReply { gateway: gateway(), root }),
            (StatusRoot::Thing, "services") => Ok(Self::Services { gateway: gateway() }),
            (StatusRoot::Thing, "drc/down") => Ok(Self::DrcDown { gateway: gateway() }),
            (StatusRoot::Thing, "property/set") => Ok(Self::PropertySet { gateway: gateway() }),
            (StatusRoot::Thing, "events_reply") => Ok(Self::EventsReply { device }),
            (StatusRoot::Thing, "requests_reply") => Ok(Self::RequestsReply { gateway: gateway() }),
            (StatusRoot::Thing, "state_reply") => Ok(Self::StateReply { device }),
            (StatusRoot::Thing | StatusRoot::Sys, other) => unknown(other),
        }
    }

    /// Whose serial number stands in the topic.
    #[must_use]
    pub fn device(&self) -> DeviceSn {
        match self {
            Self::EventsReply { device } | Self::StateReply { device } => device.clone(),
            Self::Services { gateway }
            | Self::DrcDown { gateway }
            | Self::PropertySet { gateway }
            | Self::RequestsReply { gateway }
            | Self::StatusReply { gateway, .. } => gateway.to_device(),
        }
    }
}

impl fmt::Display for DownlinkTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Services { gateway } => write!(f, "{THING}{gateway}/services"),
            Self::DrcDown { gateway } => write!(f, "{THING}{gateway}/drc/down"),
            Self::PropertySet { gateway } => write!(f, "{THING}{gateway}/property/set"),
            Self::EventsReply { device } => write!(f, "{THING}{device}/events_reply"),
            Self::RequestsReply { gateway } => write!(f, "{THING}{gateway}/requests_reply"),
            Self::StatusReply { gateway, root } => write!(f, "{root}{gateway}/status_reply"),
            Self::StateReply { device } => write!(f, "{THING}{device}/state_reply"),
        }
    }
}

impl fmt::Display for StatusRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sys => SYS,
            Self::Thing => THING,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPLINKS: [&str; 9] = [
        "thing/product/SN-1/osd",
        "thing/product/SN-1/state",
        "thing/product/SN-1/services_reply",
        "thing/product/SN-1/events",
        "thing/product/SN-1/requests",
        "thing/product/SN-1/status",
        "sys/product/SN-1/status",
        "thing/product/SN-1/property/set_reply",
        "thing/product/SN-1/drc/up",
    ];

    const DOWNLINKS: [&str; 8] = [
        "thing/product/SN-1/services",
        "thing/product/SN-1/drc/down",
        "thing/product/SN-1/property/set",
        "thing/product/SN-1/events_reply",
        "thing/product/SN-1/requests_reply",
        "thing/product/SN-1/status_reply",
        "sys/product/SN-1/status_reply",
        "thing/product/SN-1/state_reply",
    ];

    #[test]
    fn every_topic_goes_round_and_belongs_to_one_direction() {
        for topic in UPLINKS {
            let read = UplinkTopic::parse(topic);
            assert_eq!(read.as_ref().map(ToString::to_string), Ok(topic.to_owned()));
            assert_eq!(read.map(|topic| topic.device().to_string()), Ok("SN-1".to_owned()));
            assert!(DownlinkTopic::parse(topic).is_err(), "{topic}");
        }
        for topic in DOWNLINKS {
            let read = DownlinkTopic::parse(topic);
            assert_eq!(read.as_ref().map(ToString::to_string), Ok(topic.to_owned()));
            assert_eq!(read.map(|topic| topic.device().to_string()), Ok("SN-1".to_owned()));
            assert!(UplinkTopic::parse(topic).is_err(), "{topic}");
        }
    }

    #[test]
    fn what_is_not_exactly_a_topic_is_none() {
        for bad in [
            "",
            "osd",
            "/thing/product/SN/osd",
            "thing/product/SN",
            "thing/product/SN/",
            "thing/product//osd",
            "thing/product/SN/osd/",
            "thing/product/SN//osd",
            "thing/product/SN/OSD",
            "thing/product/+/osd",
            "thing/product/#",
            "thing/product/S N/osd",
            "thing/product/SN\0/osd",
            "thing/products/SN/osd",
            "sys/product/SN/osd",
            "sys/product/SN/events",
            "$share/g/thing/product/SN/osd",
            "thing/product/SN/property",
            "thing/product/SN/property/set_reply/x",
        ] {
            assert!(UplinkTopic::parse(bad).is_err(), "{bad}");
        }
        let long = format!("thing/product/SN/{}", "x".repeat(100_000));
        assert_eq!(UplinkTopic::parse(&long), Err(NotOurs::Name("x".repeat(NAME_CHARS_MAX))));
    }

    #[test]
    fn the_server_hears_every_uplink_topic_once() {
        for topic in UPLINKS {
            let heard =
                SERVER_FILTERS.iter().filter(|filter| filter.replace('+', "SN-1") == topic).count();
            assert_eq!(heard, 1, "{topic}");
        }
        assert_eq!(SERVER_FILTERS.len(), UPLINKS.len());
    }
}
