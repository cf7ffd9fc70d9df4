//! What happened at a device: what it told by itself on its events topic, which alarms it raised, when it came and went.

use uuid::Uuid;

use crate::{
    id::{CommandId, DeviceSn, GatewaySn, TenantId},
    reply::RawJson,
    time::Timestamp,
};

/// Kinds of device events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// The device said something.
    Event,
    /// It raised alarms that were not raised before.
    AlarmRaised,
    /// Alarms that were raised are over.
    AlarmCleared,
    /// It came.
    Online,
    /// It went.
    Offline,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Event, Self::AlarmRaised, Self::AlarmCleared, Self::Online, Self::Offline];

    /// The kind as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Event => "device.event",
            Self::AlarmRaised => "device.alarm_raised",
            Self::AlarmCleared => "device.alarm_cleared",
            Self::Online => "device.online",
            Self::Offline => "device.offline",
        }
    }

    /// Reads a kind.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether it is rare and worth more than what devices tell all the time: such events have room of their own.
    #[must_use]
    pub fn is_lasting(self) -> bool {
        match self {
            Self::Event => false,
            Self::AlarmRaised | Self::AlarmCleared | Self::Online | Self::Offline => true,
        }
    }
}

/// Something that happened at a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceEvent {
    /// Its id, a UUID of version 7: later ones are greater.
    pub id: Uuid,
    /// Whose device it is.
    pub tenant: TenantId,
    /// The device.
    pub device: DeviceSn,
    /// The gateway it came through.
    pub gateway: GatewaySn,
    /// What kind it is.
    pub kind: EventKind,
    /// DJI's method, where there is one.
    pub method: Option<String>,
    /// The device's id of the exchange, where it tells exchanges apart. With device, kind and method it is there once.
    pub tid: Option<String>,
    /// What the device said, as written; the beginning of it, if that is too long.
    pub data: RawJson,
    /// Whether `data` is only the beginning.
    pub is_cut: bool,
    /// When it came.
    pub received_at: Timestamp,
    /// The device's clock. Never order or expire by it.
    pub device_time: Option<Timestamp>,
    /// Whether the device asked for an answer.
    pub need_reply: bool,
    /// The command it belongs to, where that is known.
    pub command: Option<CommandId>,
}

/// An alarm that is raised now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// Whose device it is.
    pub tenant: TenantId,
    /// The device that lists it.
    pub device: DeviceSn,
    /// The gateway it came through.
    pub gateway: GatewaySn,
    /// What tells it from other alarms of the device.
    pub key: String,
    /// The device's entry of it, as written last.
    pub entry: RawJson,
    /// When it was first listed.
    pub since: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_as_it_is_written() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(EventKind::parse("device"), None);
    }
}
