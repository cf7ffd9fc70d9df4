//! Who may use which topics: the server those of all devices, a gateway its own and its aircraft's. Pure.
//!
//! The same rule as the embedded broker's door, written out as lists, since a broker outside cannot ask.

use utmos_core::{
    device::Registry,
    id::{DeviceSn, GatewaySn},
};
use utmos_dji::topic::{DownlinkTopic, StatusRoot, UplinkTopic};

/// What one user may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The user's name; of a gateway its serial number.
    pub user: String,
    /// Topics or filters it may publish to.
    pub publish: Vec<String>,
    /// Topics or filters it may subscribe to.
    pub subscribe: Vec<String>,
}

/// What everybody may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The server's user.
    pub server: Grant,
    /// One for each gateway, by serial number.
    pub gateways: Vec<Grant>,
}

impl Access {
    /// Reads it out of the registry. `heard` is what the server subscribes to.
    pub fn new(server: String, heard: Vec<String>, registry: &Registry) -> Self {
        let gateways = registry.devices().filter(|device| device.kind.is_gateway());
        Self {
            server: of_server(server, heard),
            gateways: gateways
                .map(|device| {
                    let gateway = device.sn.to_gateway();
                    of_gateway(&gateway, &registry.speaks_for(&gateway))
                })
                .collect(),
        }
    }

    /// All users, the server first.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        std::iter::once(&self.server).chain(&self.gateways)
    }
}

/// The three on which commands leave. The server's user may read them for `utmos doctor`, which looks for what is kept there.
const COMMAND_FILTERS: [&str; 3] =
    ["thing/product/+/services", "thing/product/+/property/set", "thing/product/+/drc/down"];

fn of_server(user: String, heard: Vec<String>) -> Grant {
    let more = [
        "thing/product/+/requests_reply",
        "thing/product/+/events_reply",
        "thing/product/+/state_reply",
        "thing/product/+/status_reply",
        "sys/product/+/status_reply",
    ];
    Grant {
        user,
        publish: COMMAND_FILTERS.iter().chain(&more).map(|&filter| filter.to_owned()).collect(),
        subscribe: heard
            .into_iter()
            .chain(COMMAND_FILTERS.iter().map(|&filter| filter.to_owned()))
            .collect(),
    }
}

fn of_gateway(gateway: &GatewaySn, aircraft: &[DeviceSn]) -> Grant {
    let device = gateway.to_device();
    let sn = || gateway.clone();
    let speakers = std::iter::once(&device).chain(aircraft);
    let publish = [
        UplinkTopic::Status { gateway: sn(), root: StatusRoot::Sys },
        UplinkTopic::Status { gateway: sn(), root: StatusRoot::Thing },
        UplinkTopic::ServicesReply { gateway: sn() },
        UplinkTopic::PropertySetReply { gateway: sn() },
        UplinkTopic::Requests { gateway: sn() },
        UplinkTopic::DrcUp { gateway: sn() },
    ];
    let spoken = speakers.clone().cloned().flat_map(|device| {
        [
            UplinkTopic::Osd { device: device.clone() },
            UplinkTopic::State { device: device.clone() },
            UplinkTopic::Events { device },
        ]
    });
    let subscribe = [
        DownlinkTopic::StatusReply { gateway: sn(), root: StatusRoot::Sys },
        DownlinkTopic::StatusReply { gateway: sn(), root: StatusRoot::Thing },
        DownlinkTopic::Services { gateway: sn() },
        DownlinkTopic::PropertySet { gateway: sn() },
        DownlinkTopic::DrcDown { gateway: sn() },
        DownlinkTopic::RequestsReply { gateway: sn() },
    ];
    let answered = speakers.cloned().flat_map(|device| {
        [
            DownlinkTopic::EventsReply { device: device.clone() },
            DownlinkTopic::StateReply { device },
        ]
    });
    Grant {
        user: gateway.to_string(),
        publish: publish.into_iter().chain(spoken).map(|topic| topic.to_string()).collect(),
        subscribe: subscribe.into_iter().chain(answered).map(|topic| topic.to_string()).collect(),
    }
}

#[cfg(test)]
pub mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::collections::BTreeSet;

    use utmos_core::{
        device::{Device, DeviceKind, SubDevice},
        id::TenantId,
        time::Timestamp,
    };
    use utmos_dji::topic::{SERVER_FILTERS, access};
    use uuid::Uuid;

    use super::*;

    pub fn device(sn: &str, tenant: u128, kind: DeviceKind) -> Device {
        Device {
            sn: DeviceSn::parse(sn).unwrap(),
            tenant: TenantId::new(Uuid::from_u128(tenant)),
            kind,
            model_key: None,
            label: String::new(),
            tags: BTreeSet::new(),
            simulated: false,
            mqtt_secret_hash: Some([1; 32]),
            created_at: Timestamp::from_millis(0),
        }
    }

    /// D1 of one tenant with aircraft A1, D2 of another, which once had A1 behind it.
    pub fn two_tenants() -> Registry {
        let mut registry = Registry::default();
        registry.replace_devices(vec![
            device("D1", 1, DeviceKind::Dock),
            device("A1", 1, DeviceKind::Aircraft),
            device("D2", 2, DeviceKind::RemoteController),
        ]);
        for gateway in ["D1", "D2"] {
            let sub =
                SubDevice { sn: DeviceSn::parse("A1").unwrap(), model_key: None, index: None };
            registry.recall_topology(&GatewaySn::parse(gateway).unwrap(), vec![sub]);
        }
        registry
    }

    /// What everybody may do there.
    pub fn access() -> Access {
        let heard = SERVER_FILTERS.iter().map(|&filter| filter.to_owned()).collect();
        Access::new("utmos".to_owned(), heard, &two_tenants())
    }

    #[test]
    fn lists_and_door_agree_on_every_topic() {
        let access = access();
        let names: Vec<_> = access.gateways.iter().map(|grant| grant.user.as_str()).collect();
        assert_eq!(names, ["D1", "D2"]);
        let filters: Vec<String> =
            access.server.subscribe.iter().chain(&access.server.publish).cloned().collect();
        for (grant, aircraft) in access.gateways.iter().zip([vec!["A1"], vec![]]) {
            let own = GatewaySn::parse(&grant.user).unwrap();
            let subs: Vec<_> = aircraft.iter().map(|sn| DeviceSn::parse(sn).unwrap()).collect();
            for filter in &filters {
                for sn in ["D1", "D2", "A1", "A2"] {
                    let topic = filter.replace('+', sn);
                    let listed = grant.publish.contains(&topic);
                    assert_eq!(listed, access::may_publish(&own, &subs, &topic), "{own} {topic}");
                    // The door is wider: an aircraft's own command topics, on which nothing is ever sent.
                    if grant.subscribe.contains(&topic) {
                        assert!(access::may_subscribe(&own, &subs, &topic), "{own} {topic}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_the_server_says_every_gateway_may_hear_and_the_other_way_round() {
        let access = access();
        let below = |filters: &[String]| -> BTreeSet<String> {
            filters.iter().map(|filter| filter.replace('+', "D1")).collect()
        };
        let grant = &access.gateways[0];
        let own = |topics: &[String]| -> BTreeSet<String> {
            topics.iter().filter(|topic| !topic.contains("/A1/")).cloned().collect()
        };
        assert_eq!(below(&access.server.publish), own(&grant.subscribe));
        assert!(below(&access.server.subscribe).is_superset(&own(&grant.publish)));
    }
}
