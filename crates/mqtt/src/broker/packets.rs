//! What a client's packets mean.

use std::sync::Arc;

use mqtt5_protocol::packet::disconnect::DisconnectPacket;
use mqtt5_protocol::packet::publish::PublishPacket;
use mqtt5_protocol::packet::subscribe::{SubscribePacket, TopicFilter};
use mqtt5_protocol::packet::unsubscribe::UnsubscribePacket;
use mqtt5_protocol::protocol::v5::reason_codes::ReasonCode;
use mqtt5_protocol::{Packet, QoS};

use super::connection::{Connection, End, crowd_of};
use super::presence::Presence;
use super::session::Overheard;
use super::table::{SUBSCRIPTIONS_MAX, Terms};
use crate::codec::{self, Ack, Frame, V5};
use crate::message::{Inbound, Qos};

/// A shared subscription would let a client take messages away from another.
const SHARED: &str = "$share/";

impl Connection {
    /// Takes the packets that have come whole, as long as there is room for what they say.
    pub(super) fn digest(&mut self, presence: &mut Presence) -> Result<(), End> {
        let taken = self.take_packets(presence);
        if !self.answers.is_empty() {
            self.session.answer(&self.answers);
            self.answers.clear();
        }
        if self.read.is_empty() {
            self.read = bytes::BytesMut::new();
        }
        taken
    }

    fn take_packets(&mut self, presence: &mut Presence) -> Result<(), End> {
        let bytes_max = self.shared.packet_bytes_max;
        while self.crowd.is_none() && presence.has_room() {
            let Some(frame) = Frame::take(&mut self.read, bytes_max)? else { break };
            let packet = frame.decode(self.session.version)?;
            self.take(packet, presence)?;
        }
        Ok(())
    }

    fn take(&mut self, packet: Packet, presence: &mut Presence) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => return self.published(publish, presence),
            Packet::PubAck(ack) => self.session.confirmed(ack.packet_id, Qos::AtLeastOnce),
            Packet::PubRec(ack) if u8::from(ack.reason_code) >= 0x80 => {
                self.session.confirmed(ack.packet_id, Qos::ExactlyOnce);
            }
            Packet::PubRec(ack) => {
                let known = self.session.is_in_flight(ack.packet_id);
                self.acknowledge(Ack::Released, ack.packet_id, found(known));
            }
            Packet::PubRel(ack) => {
                let known = self.received.remove(&ack.packet_id);
                self.acknowledge(Ack::Completed, ack.packet_id, found(known));
            }
            Packet::PubComp(ack) => self.session.confirmed(ack.packet_id, Qos::ExactlyOnce),
            Packet::Subscribe(subscribe) => self.subscribed(subscribe, presence),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribed(&unsubscribe),
            Packet::PingReq => codec::put_pingresp(&mut self.answers),
            Packet::Disconnect(DisconnectPacket { reason_code, .. }) => {
                // MQTT 5, 3.14.4: any reason but the normal one.
                let with_will = reason_code != ReasonCode::Success;
                return Err(End::Farewell { with_will });
            }
            Packet::Connect(_) => return Err(fault("it said CONNECT twice")),
            Packet::Auth(_) => return Err(fault("it wants to log in anew")),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                return Err(fault("it said what only a broker says"));
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, ack: Ack, packet_id: u16, reason: ReasonCode) {
        ack.put(self.session.version, packet_id, reason, &mut self.answers);
    }

    fn published(&mut self, publish: PublishPacket, presence: &mut Presence) -> Result<(), End> {
        if publish.topic_alias().is_some() {
            let what = "it names a topic by an alias, of which we take none".to_owned();
            return Err(End::Fault(ReasonCode::TopicAliasInvalid, what));
        }
        if mqtt5_protocol::validate_topic_name(&publish.topic_name).is_err() {
            let what = "it published to what is no topic".to_owned();
            return Err(End::Fault(ReasonCode::TopicNameInvalid, what));
        }
        let packet_id = match (publish.qos, publish.packet_id) {
            (QoS::AtMostOnce, _) => 0,
            (QoS::AtLeastOnce | QoS::ExactlyOnce, Some(id @ 1..)) => id,
            (QoS::AtLeastOnce | QoS::ExactlyOnce, _) => {
                return Err(fault("it published without a packet id"));
            }
        };
        let qos = codec::from_qos(publish.qos);
        if qos == Qos::ExactlyOnce && self.received.contains(&packet_id) {
            self.acknowledge(Ack::Received, packet_id, ReasonCode::Success);
            return Ok(());
        }
        if qos == Qos::ExactlyOnce && self.received.len() >= usize::from(codec::RECEIVE_MAX) {
            let what = "it releases none of its QoS 2 messages".to_owned();
            return Err(End::Fault(ReasonCode::ReceiveMaximumExceeded, what));
        }
        // What a dismissed client still had on the way says nothing any more.
        let may = !self.session.is_dismissed()
            && self.shared.doorkeeper.may_publish(&self.session.user, &publish.topic_name);
        if may {
            if qos == Qos::ExactlyOnce {
                self.received.insert(packet_id);
            }
            let message = Overheard::new(Arc::from(publish.topic_name), publish.payload, qos);
            presence.say(Inbound::Message {
                topic: Arc::clone(&message.topic),
                payload: message.payload.clone(),
                user: Some(Arc::clone(&self.session.user)),
                acknowledgement: None,
            });
            let crowded = self.shared.hand_on(&message, Some(&self.session));
            // Two that listen to each other must not wait for each other.
            let crowded = crowded.filter(|_| !self.session.is_crowded());
            self.crowd = crowded.map(crowd_of);
        }
        let reason = if may { ReasonCode::Success } else { ReasonCode::NotAuthorized };
        match qos {
            Qos::AtMostOnce => {}
            Qos::AtLeastOnce => self.acknowledge(Ack::Taken, packet_id, reason),
            Qos::ExactlyOnce => self.acknowledge(Ack::Received, packet_id, reason),
        }
        Ok(())
    }

    fn subscribed(&mut self, subscribe: SubscribePacket, presence: &mut Presence) {
        let has_identifier = subscribe.properties.get_subscription_identifier().is_some();
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        for (index, wanted) in subscribe.filters.into_iter().enumerate() {
            let granted = if has_identifier {
                Err(ReasonCode::SubscriptionIdentifiersNotSupported)
            } else if index >= SUBSCRIPTIONS_MAX {
                Err(ReasonCode::QuotaExceeded)
            } else {
                self.grant(&wanted)
            };
            match granted {
                Ok(qos) => {
                    codes.push(codec::granted_code(qos));
                    presence.say(Inbound::Subscribed {
                        user: Arc::clone(&self.session.user),
                        client_id: Arc::clone(&self.session.client_id),
                        filter: Arc::from(wanted.filter),
                    });
                }
                Err(reason) => codes.push(u8::from(reason)),
            }
        }
        let version = self.session.version;
        codec::put_suback(version, subscribe.packet_id, &codes, &mut self.answers);
    }

    fn grant(&self, wanted: &TopicFilter) -> Result<Qos, ReasonCode> {
        let filter = wanted.filter.as_str();
        if filter.starts_with(SHARED) {
            return Err(ReasonCode::SharedSubscriptionsNotSupported);
        }
        if mqtt5_protocol::validate_topic_filter(filter).is_err() {
            return Err(ReasonCode::TopicFilterInvalid);
        }
        if !self.shared.doorkeeper.may_subscribe(&self.session.user, filter) {
            return Err(ReasonCode::NotAuthorized);
        }
        let terms = Terms {
            qos: codec::from_qos(wanted.options.qos),
            no_local: self.session.version == V5 && wanted.options.no_local,
        };
        if !self.shared.table.subscribe(&self.session, &Arc::from(filter), terms) {
            tracing::warn!(user = %self.session.user, "an mqtt client wants more subscriptions than it may have");
            return Err(ReasonCode::QuotaExceeded);
        }
        Ok(terms.qos)
    }

    fn unsubscribed(&mut self, unsubscribe: &UnsubscribePacket) {
        let reason = |filter: &String| {
            if self.shared.table.unsubscribe(&self.session, filter) {
                ReasonCode::Success
            } else {
                ReasonCode::NoSubscriptionExisted
            }
        };
        let codes: Vec<u8> =
            unsubscribe.filters.iter().map(|filter| u8::from(reason(filter))).collect();
        let version = self.session.version;
        codec::put_unsuback(version, unsubscribe.packet_id, &codes, &mut self.answers);
    }
}

fn found(known: bool) -> ReasonCode {
    if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound }
}

fn fault(what: &str) -> End {
    End::Fault(ReasonCode::ProtocolError, what.to_owned())
}
