//! An outside broker as it is now: whether it is reached, and what it lacks that commands need. What only a trial shows is for
//! `utmos doctor`.

use utmos_mqtt::{LinkHealth, Protocol, Qos, Terms};

use crate::{
    config::{self, Config},
    presence_topics::PresenceTopics,
};

/// What a command carries beside its payload: topic, envelope, properties.
const ENVELOPE_BYTES: usize = 512;

/// The broker, with what is needed of it.
#[derive(Debug)]
pub struct Outside {
    /// How the link to it is.
    pub health: LinkHealth,
    /// What is needed.
    pub needs: Needs,
}

/// What the server needs of its broker.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// With which quality of service commands leave.
    pub command_qos: Qos,
    /// The largest payload of a command.
    pub command_bytes_max: usize,
    /// Whether other servers may work behind it as well.
    pub is_shared: bool,
}

impl Outside {
    /// The broker that the configuration names.
    #[must_use]
    pub fn of(health: LinkHealth, config: &Config) -> Self {
        let command_bytes_max = config.http.body_bytes_max;
        let is_shared = config.store.postgres.is_some();
        let needs = Needs { command_qos: command_qos(config), command_bytes_max, is_shared };
        Self { health, needs }
    }

    /// Why commands cannot be sent now.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.health.trouble()
    }

    /// What the broker lacks, with the remedies; nothing while it is not reached.
    #[must_use]
    pub fn lacks(&self) -> Vec<String> {
        self.health.terms().map_or(Vec::new(), |terms| self.needs.lacks(&terms))
    }
}

impl Needs {
    fn lacks(self, terms: &Terms) -> Vec<String> {
        let mut lacks = Vec::new();
        match terms.protocol {
            Protocol::V5 => {}
            Protocol::V311 => lacks.push(
                "it speaks MQTT 3.1.1 with this server: a command has no expiry there, so one that the broker keeps arrives late, and an absent \
                 dock is not told from a silent one; use a broker with MQTT 5 and mqtt.external.protocol = \"auto\", or see docs/outside-broker.md for \
                 what makes this one safe and let utmos doctor try it"
                    .to_owned(),
            ),
        }
        if terms.protocol == Protocol::V311 && self.is_shared {
            lacks.push(
                "several servers may work behind it: what one of them sent before it died no other can take back, so where it is kept for its \
                 dock it is carried out late; let no session outlive its connection (RabbitMQ: mqtt.subscription_ttl = 1), or set \
                 mqtt.external.command_qos = 0 where QoS 0 is not kept (NATS), and run utmos doctor after every change of the broker"
                    .to_owned(),
            );
        }
        if let Some(first) = terms.lowered.first() {
            let count = terms.lowered.len();
            lacks.push(format!(
                "it granted {count} subscription(s), such as {first}, with a lower QoS than 1: what devices say and answer may be lost on the \
                 way; raise its largest QoS (Mosquitto: max_qos)"
            ));
        }
        if terms.qos_max < self.command_qos {
            lacks.push(
                "it takes messages with QoS 0 only, so nobody learns whether a command left; raise its largest QoS (Mosquitto: max_qos), or set \
                 mqtt.external.command_qos = 0"
                    .to_owned(),
            );
        }
        let needed = self.command_bytes_max + ENVELOPE_BYTES;
        if let Some(most) = terms.packet_bytes_max.filter(|most| *most < needed) {
            lacks.push(format!(
                "it takes packets of {most} bytes, and a command may have {needed}: larger ones end with TRANSPORT_FAILED; raise its limit \
                 (Mosquitto: max_packet_size, EMQX: mqtt.max_packet_size), or lower http.body_bytes_max"
            ));
        }
        lacks
    }
}

/// With which quality of service commands leave.
pub(crate) fn command_qos(config: &Config) -> Qos {
    match &config.mqtt {
        config::Mqtt::Embedded(_) => Qos::AtLeastOnce,
        config::Mqtt::External(other) => other.command_qos,
    }
}

/// Where an outside broker tells of connections; our own does so otherwise.
pub(crate) fn presence_topics(config: &Config) -> PresenceTopics {
    match &config.mqtt {
        config::Mqtt::External(other) => other.presence.clone(),
        config::Mqtt::Embedded(_) => PresenceTopics::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_broker_lacks_is_named_with_the_setting_that_mends_it() {
        let needs =
            Needs { command_qos: Qos::AtLeastOnce, command_bytes_max: 1_000, is_shared: false };
        let good = Terms {
            protocol: Protocol::V5,
            packet_bytes_max: Some(1_512),
            qos_max: Qos::AtLeastOnce,
            lowered: Vec::new(),
        };
        assert_eq!(needs.lacks(&good), Vec::<String>::new());
        assert_eq!(needs.lacks(&Terms { packet_bytes_max: None, ..good.clone() }).len(), 0);
        let filter = "thing/product/+/osd".to_owned();
        for (terms, word) in [
            (Terms { protocol: Protocol::V311, ..good.clone() }, "mqtt.external.protocol"),
            (Terms { packet_bytes_max: Some(1_511), ..good.clone() }, "http.body_bytes_max"),
            (Terms { qos_max: Qos::AtMostOnce, ..good.clone() }, "mqtt.external.command_qos"),
            (Terms { lowered: vec![filter], ..good.clone() }, "thing/product/+/osd"),
        ] {
            let lacks = needs.lacks(&terms);
            assert!(lacks.len() == 1 && lacks.concat().contains(word), "{word}: {lacks:?}");
        }
        let shared = Needs { is_shared: true, ..needs };
        assert_eq!(shared.lacks(&good), Vec::<String>::new());
        let old = shared.lacks(&Terms { protocol: Protocol::V311, ..good.clone() });
        assert!(old.len() == 2 && old[1].contains("subscription_ttl"), "{old:?}");
        let unconfirmed = Needs { command_qos: Qos::AtMostOnce, ..needs };
        assert!(unconfirmed.lacks(&Terms { qos_max: Qos::AtMostOnce, ..good }).is_empty());
    }
}
