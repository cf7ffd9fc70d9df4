//! Which topics a gateway may use on the broker: its own, and of its sub-devices' what it has to.
//!
//! The rule is a list of what is allowed; everything else is refused, also what may one day be new.
//! Whether a serial number really is a sub-device of a gateway, the caller must know from its own records:
//! what a gateway says of its topology is a claim.

use utmos_core::id::{DeviceSn, GatewaySn};

use super::{DownlinkTopic, SYS, THING, UplinkTopic};

/// Longest topic or filter that is looked at, in bytes.
pub const TOPIC_BYTES_MAX: usize = 256;

/// Whether gateway `own` with the sub-devices `subs` may publish on `topic`.
///
/// All uplink topics of its own; of a sub-device `osd`, `state` and `events`, which come on the aircraft's topic.
#[must_use]
pub fn may_publish(own: &GatewaySn, subs: &[DeviceSn], topic: &str) -> bool {
    if topic.len() > TOPIC_BYTES_MAX {
        return false;
    }
    let Ok(topic) = UplinkTopic::parse(topic) else { return false };
    match topic {
        UplinkTopic::Osd { device }
        | UplinkTopic::State { device }
        | UplinkTopic::Events { device } => {
            device.as_str() == own.as_str() || subs.contains(&device)
        }
        UplinkTopic::ServicesReply { gateway }
        | UplinkTopic::Requests { gateway }
        | UplinkTopic::Status { gateway, .. }
        | UplinkTopic::PropertySetReply { gateway }
        | UplinkTopic::DrcUp { gateway } => gateway == *own,
    }
}

/// Whether a gateway that has not joined a tenant yet may publish on `topic`: what it needs to ask to be bound, and its
/// topology. It may subscribe like any other: nothing is sent below its serial number but answers, and a dock that is
/// bound goes on with the subscriptions it made when it connected.
#[must_use]
pub fn newcomer_may_publish(own: &GatewaySn, topic: &str) -> bool {
    if topic.len() > TOPIC_BYTES_MAX {
        return false;
    }
    match UplinkTopic::parse(topic) {
        Ok(UplinkTopic::Requests { gateway } | UplinkTopic::Status { gateway, .. }) => {
            gateway == *own
        }
        Ok(
            UplinkTopic::Osd { .. }
            | UplinkTopic::State { .. }
            | UplinkTopic::Events { .. }
            | UplinkTopic::ServicesReply { .. }
            | UplinkTopic::PropertySetReply { .. }
            | UplinkTopic::DrcUp { .. },
        )
        | Err(_) => false,
    }
}

/// Whether gateway `own` with the sub-devices `subs` may subscribe to `filter`.
///
/// Anything below its own serial number, wildcards included; of a sub-device the downlink topics by name, without
/// wildcards. Never a shared subscription: it would take messages away from others.
#[must_use]
pub fn may_subscribe(own: &GatewaySn, subs: &[DeviceSn], filter: &str) -> bool {
    if filter.len() > TOPIC_BYTES_MAX {
        return false;
    }
    let below_own = [THING, SYS].iter().any(|root| {
        let rest = filter.strip_prefix(root).and_then(|rest| rest.strip_prefix(own.as_str()));
        rest.and_then(|rest| rest.strip_prefix('/')).is_some_and(is_filter)
    });
    below_own || DownlinkTopic::parse(filter).is_ok_and(|topic| subs.contains(&topic.device()))
}

/// Whether `levels` is a well-formed topic filter: `+` fills a level, `#` only the last.
fn is_filter(levels: &str) -> bool {
    let mut left = levels.split('/').count();
    levels.split('/').all(|level| {
        left -= 1;
        match level {
            "#" => left == 0,
            "+" => true,
            name => !name.is_empty() && !name.contains(['+', '#', '\0']),
        }
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test with a wrong serial number should stop")]

    use super::*;

    fn allowed(ask: fn(&GatewaySn, &[DeviceSn], &str) -> bool, topic: &str) -> bool {
        let own = GatewaySn::parse("SN1").unwrap();
        let subs = [DeviceSn::parse("AIR1").unwrap()];
        ask(&own, &subs, topic)
    }

    #[test]
    fn a_newcomer_asks_and_tells_its_topology_and_nothing_else() {
        let may = |topic: &str| allowed(|own, _, topic| newcomer_may_publish(own, topic), topic);
        for good in
            ["thing/product/SN1/requests", "sys/product/SN1/status", "thing/product/SN1/status"]
        {
            assert!(may(good), "{good}");
        }
        let long = format!("thing/product/SN1/{}", "x".repeat(TOPIC_BYTES_MAX));
        for bad in [
            "thing/product/SN1/osd",
            "thing/product/SN1/events",
            "thing/product/SN1/state",
            "thing/product/SN1/services_reply",
            "thing/product/SN1/property/set_reply",
            "thing/product/SN1/drc/up",
            "thing/product/SN2/requests",
            "sys/product/SN2/status",
            "thing/product/AIR1/requests",
            "thing/product/AIR1/osd",
            "thing/product/SN1/requests_reply",
            &long,
        ] {
            assert!(!may(bad), "{bad}");
        }
    }

    #[test]
    fn a_gateway_publishes_its_own_uplinks_and_its_aircrafts_telemetry_only() {
        for good in [
            "thing/product/SN1/osd",
            "thing/product/SN1/state",
            "thing/product/SN1/services_reply",
            "thing/product/SN1/events",
            "thing/product/SN1/requests",
            "thing/product/SN1/status",
            "sys/product/SN1/status",
            "thing/product/SN1/property/set_reply",
            "thing/product/SN1/drc/up",
            "thing/product/AIR1/osd",
            "thing/product/AIR1/state",
            "thing/product/AIR1/events",
        ] {
            assert!(allowed(may_publish, good), "{good}");
        }
        let long = format!("thing/product/SN1/{}", "x".repeat(TOPIC_BYTES_MAX));
        for bad in [
            // what the cloud sends
            "thing/product/SN1/services",
            "thing/product/SN1/drc/down",
            "thing/product/SN1/property/set",
            "thing/product/SN1/events_reply",
            "thing/product/SN1/requests_reply",
            "thing/product/AIR1/state_reply",
            "sys/product/SN1/status_reply",
            // an aircraft answers through its gateway
            "thing/product/AIR1/services_reply",
            "thing/product/AIR1/requests",
            "thing/product/AIR1/drc/up",
            "sys/product/AIR1/status",
            // somebody else
            "thing/product/SN2/osd",
            "thing/product/SN2/services_reply",
            "thing/product/SN1x/osd",
            "thing/product/SN/osd",
            "thing/product/sn1/osd",
            "thing/product/AIR10/osd",
            "sys/product/SN2/status",
            // tricks
            "thing/product/SN1/../SN2/osd",
            "thing/product/SN2/osd/SN1",
            "thing/product/SN1/osd/x",
            "thing/product/SN1/",
            "thing/product/SN1",
            "thing/product/+/osd",
            "thing/product/#",
            "$share/g/thing/product/SN1/osd",
            "$SYS/broker",
            "#",
            "",
            long.as_str(),
        ] {
            assert!(!allowed(may_publish, bad), "{bad}");
        }
    }

    #[test]
    fn a_gateway_subscribes_below_its_own_serial_number_only() {
        for good in [
            "thing/product/SN1/services",
            "thing/product/SN1/drc/down",
            "thing/product/SN1/property/set",
            "thing/product/SN1/events_reply",
            "thing/product/SN1/requests_reply",
            "thing/product/SN1/state_reply",
            "sys/product/SN1/status_reply",
            "thing/product/SN1/status_reply",
            "thing/product/SN1/#",
            "thing/product/SN1/+",
            "thing/product/SN1/property/+",
            "thing/product/SN1/+/set",
            "thing/product/SN1/drc/#",
            "sys/product/SN1/#",
            "thing/product/SN1/something_new",
            "thing/product/AIR1/events_reply",
            "thing/product/AIR1/state_reply",
            "thing/product/AIR1/services",
        ] {
            assert!(allowed(may_subscribe, good), "{good}");
        }
        let long = format!("thing/product/SN1/{}", "x".repeat(TOPIC_BYTES_MAX));
        for bad in [
            "#",
            "+",
            "",
            "/",
            "+/+/+/services",
            "thing/#",
            "thing/product/#",
            "thing/product/+",
            "thing/product/+/services",
            "thing/product/SN+/services",
            "thing/product/SN1#",
            "thing/product/SN1/#/x",
            "thing/product/SN1/x#",
            "thing/product/SN1/x+/y",
            "thing/product/SN1//services",
            "thing/product/SN1/",
            "thing/product/SN1",
            "thing/+/SN1/services",
            "+/product/SN1/services",
            "thing/product/SN1x/services",
            "thing/product/SN2/services",
            "thing/product/sn1/services",
            "thing/product/AIR1/#",
            "thing/product/AIR1/+",
            "thing/product/AIR1/osd",
            "thing/product/AIR10/services",
            "thing/product/AIR2/state_reply",
            "$share/g/thing/product/SN1/services",
            "$share/g/#",
            "$SYS/#",
            "$queue/thing/product/SN1/services",
            "thing/product/SN1/\0",
            " thing/product/SN1/services",
            long.as_str(),
        ] {
            assert!(!allowed(may_subscribe, bad), "{bad}");
        }
    }
}
