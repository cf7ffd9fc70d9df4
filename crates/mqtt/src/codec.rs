//! Frames on the wire, and the codec library's words for ours.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use mqtt5_protocol::packet::MqttPacket as _;
use mqtt5_protocol::packet::connack::ConnAckPacket;
use mqtt5_protocol::protocol::v5::reason_codes::ReasonCode;
use mqtt5_protocol::{FixedHeader, MqttError, Packet, PacketType, QoS};

use crate::message::{Publish, Qos};

/// Puts a packet behind what `out` holds.
pub(crate) fn encode(packet: &Packet, out: &mut BytesMut) -> Result<(), MqttError> {
    match packet {
        Packet::Connect(packet) => packet.encode(out),
        Packet::ConnAck(packet) => packet.encode(out),
        Packet::Publish(packet) => {
            // Without the copy of the payload that the others can afford.
            let mut head = Vec::new();
            let length = u32::try_from(packet.body_encoded_size()).unwrap_or(u32::MAX);
            FixedHeader::new(packet.packet_type(), packet.flags(), length).encode(&mut head)?;
            out.put_slice(&head);
            packet.encode_body_direct(out)
        }
        Packet::PubAck(packet) => packet.encode(out),
        Packet::PubRec(packet) => packet.encode(out),
        Packet::PubRel(packet) => packet.encode(out),
        Packet::PubComp(packet) => packet.encode(out),
        Packet::Subscribe(packet) => packet.encode(out),
        Packet::SubAck(packet) => packet.encode(out),
        Packet::Unsubscribe(packet) => packet.encode(out),
        Packet::UnsubAck(packet) => packet.encode(out),
        Packet::PingReq => FixedHeader::new(PacketType::PingReq, 0, 0).encode(out),
        Packet::PingResp => FixedHeader::new(PacketType::PingResp, 0, 0).encode(out),
        Packet::Disconnect(packet) => packet.encode(out),
        Packet::Auth(packet) => packet.encode(out),
    }
}

/// Level in the CONNECT packet.
pub(crate) const V5: u8 = 5;
/// Level in the CONNECT packet.
pub(crate) const V311: u8 = 4;

/// QoS 1 and 2 messages a client of ours may have under way.
pub(crate) const RECEIVE_MAX: u16 = 1024;

/// Longest head of a packet: type and four bytes of length.
pub(crate) const HEAD_BYTES_MAX: usize = 5;
/// An upper bound on what a PUBLISH of ours adds to topic and payload: head, topic length, packet id, properties.
pub(crate) const PUBLISH_OVERHEAD_BYTES: usize = 24;

/// One whole packet, not yet decoded.
pub(crate) struct Frame {
    pub(crate) header: FixedHeader,
    pub(crate) body: Bytes,
}

impl Frame {
    /// Takes the first packet out of `buf`, or `None` while it is not all there.
    ///
    /// Errors: a length no packet may have, an unknown packet type, or more than `bytes_max`.
    pub(crate) fn take(buf: &mut BytesMut, bytes_max: usize) -> Result<Option<Self>, MqttError> {
        let Some((head, body)) = lengths(buf)? else { return Ok(None) };
        let total = head + body;
        if total > bytes_max {
            return Err(MqttError::PacketTooLarge { size: total, max: bytes_max });
        }
        if buf.len() < total {
            buf.reserve(total - buf.len());
            return Ok(None);
        }
        let mut body = buf.split_to(total).freeze();
        let header = FixedHeader::decode(&mut &body[..head])?;
        body.advance(head);
        Ok(Some(Self { header, body }))
    }

    pub(crate) fn decode(mut self, version: u8) -> Result<Packet, MqttError> {
        Packet::decode_from_body_with_version(
            self.header.packet_type,
            &self.header,
            &mut self.body,
            version,
        )
    }
}

/// Bytes of the head and of the body, once the head is complete.
pub(crate) fn lengths(buf: &[u8]) -> Result<Option<(usize, usize)>, MqttError> {
    let mut body = 0_usize;
    for (index, byte) in buf.iter().enumerate().take(HEAD_BYTES_MAX).skip(1) {
        body |= usize::from(byte & 0x7f) << (7 * (index - 1));
        if byte & 0x80 == 0 {
            return Ok(Some((index + 1, body)));
        }
    }
    if buf.len() < HEAD_BYTES_MAX {
        Ok(None)
    } else {
        Err(MqttError::MalformedPacket("packet length".into()))
    }
}

/// Bytes a message may need on the wire, at most.
pub(crate) fn publish_bytes(message: &Publish) -> usize {
    message.topic.len() + message.payload.len() + PUBLISH_OVERHEAD_BYTES
}

/// What a reader says of bytes, fit for a log: it may quote them.
pub(crate) fn plain(err: &MqttError) -> String {
    const CHARS_MAX: usize = 128;
    err.to_string().chars().take(CHARS_MAX).flat_map(char::escape_debug).collect()
}

/// Says why a topic cannot be published to.
pub(crate) fn topic_fault(topic: &str) -> Option<String> {
    mqtt5_protocol::validate_topic_name(topic)
        .err()
        .map(|_| format!("`{topic}` is not a topic to publish to"))
}

/// A PUBLISH on its way to a client, never retained and never a repetition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publication<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: Qos,
    /// Not written for QoS 0.
    pub(crate) packet_id: u16,
    /// MQTT 5 only.
    pub(crate) expiry_seconds: Option<u32>,
}

impl Publication<'_> {
    /// Puts it behind what `out` holds, without a copy of its parts on the way. Whoever calls has checked that topic and
    /// packet are no longer than MQTT allows.
    pub(crate) fn encode(&self, version: u8, out: &mut Vec<u8>) {
        const PUBLISH: u8 = 0x30;
        const MESSAGE_EXPIRY: u8 = 0x02;
        let (qos, id_bytes) = match self.qos {
            Qos::AtMostOnce => (0, 0),
            Qos::AtLeastOnce => (1, 2),
            Qos::ExactlyOnce => (2, 2),
        };
        let property_bytes = if self.expiry_seconds.is_some() { 5 } else { 0 };
        let properties = if version == V5 { 1 + property_bytes } else { 0 };
        let body = 2 + self.topic.len() + id_bytes + properties + self.payload.len();
        out.reserve(HEAD_BYTES_MAX + body);
        out.put_u8(PUBLISH | (qos << 1));
        put_length(body, out);
        out.put_u16(u16::try_from(self.topic.len()).unwrap_or(u16::MAX));
        out.put_slice(self.topic.as_bytes());
        if id_bytes > 0 {
            out.put_u16(self.packet_id);
        }
        if version == V5 {
            out.put_u8(if self.expiry_seconds.is_some() { 5 } else { 0 });
            if let Some(seconds) = self.expiry_seconds {
                out.put_u8(MESSAGE_EXPIRY);
                out.put_u32(seconds);
            }
        }
        out.put_slice(self.payload);
    }
}

/// A step in confirming a message, as the receiver of it or of its confirmation says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ack {
    /// PUBACK.
    Taken,
    /// PUBREC.
    Received,
    /// PUBREL.
    Released,
    /// PUBCOMP.
    Completed,
}

impl Ack {
    /// Puts it behind what `out` holds. A reason has no place in MQTT 3.1.1.
    pub(crate) fn put(self, version: u8, packet_id: u16, reason: ReasonCode, out: &mut Vec<u8>) {
        let head = match self {
            Self::Taken => 0x40,
            Self::Received => 0x50,
            Self::Released => 0x62,
            Self::Completed => 0x70,
        };
        let with_reason = version == V5 && reason != ReasonCode::Success;
        out.put_slice(&[head, if with_reason { 3 } else { 2 }]);
        out.put_u16(packet_id);
        if with_reason {
            out.put_u8(u8::from(reason));
        }
    }
}

/// What a client is granted beside its entry; MQTT 5 only.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Granted<'a> {
    pub(crate) packet_bytes_max: u32,
    /// The client id it was given, where it had none.
    pub(crate) client_id: Option<&'a str>,
}

/// The answer to a CONNECT.
pub(crate) fn connack(version: u8, reason: ReasonCode, granted: &Granted<'_>) -> Vec<u8> {
    let mut connack = if version < V5 {
        ConnAckPacket::new_v311(false, reason)
    } else {
        ConnAckPacket::new(false, reason)
    };
    if version >= V5 && reason == ReasonCode::Success {
        connack = connack
            .with_session_expiry_interval(0)
            .with_receive_maximum(RECEIVE_MAX)
            .with_retain_available(false)
            .with_maximum_packet_size(granted.packet_bytes_max)
            .with_topic_alias_maximum(0)
            .with_subscription_identifier_available(false)
            .with_shared_subscription_available(false);
        if let Some(client_id) = granted.client_id {
            connack = connack.with_assigned_client_id(client_id.to_owned());
        }
    }
    let mut out = BytesMut::new();
    if let Err(err) = encode(&Packet::ConnAck(connack), &mut out) {
        tracing::error!("a CONNACK cannot be written: {err}");
    }
    out.into()
}

/// Why we end a connection; MQTT 3.1.1 has no word for it.
pub(crate) fn put_disconnect(version: u8, reason: ReasonCode, out: &mut Vec<u8>) {
    if version == V5 {
        out.put_slice(&[0xe0, 1, u8::from(reason)]);
    }
}

pub(crate) fn put_pingresp(out: &mut Vec<u8>) {
    out.put_slice(&[0xd0, 0]);
}

/// The code of a granted subscription.
pub(crate) fn granted_code(qos: Qos) -> u8 {
    match qos {
        Qos::AtMostOnce => 0,
        Qos::AtLeastOnce => 1,
        Qos::ExactlyOnce => 2,
    }
}

/// The answer to a SUBSCRIBE, one code for each filter. MQTT 3.1.1 knows one refusal.
pub(crate) fn put_suback(version: u8, packet_id: u16, codes: &[u8], out: &mut Vec<u8>) {
    const REFUSED: u8 = 0x80;
    let properties = usize::from(version == V5);
    out.put_u8(0x90);
    put_length(2 + properties + codes.len(), out);
    out.put_u16(packet_id);
    out.put_bytes(0, properties);
    out.extend(codes.iter().map(|code| if version == V5 { *code } else { (*code).min(REFUSED) }));
}

/// The answer to an UNSUBSCRIBE, one code for each filter; MQTT 3.1.1 has none.
pub(crate) fn put_unsuback(version: u8, packet_id: u16, codes: &[u8], out: &mut Vec<u8>) {
    out.put_u8(0xb0);
    if version == V5 {
        put_length(3 + codes.len(), out);
        out.put_u16(packet_id);
        out.put_u8(0);
        out.put_slice(codes);
    } else {
        put_length(2, out);
        out.put_u16(packet_id);
    }
}

/// Seven bits a byte, the lowest first.
fn put_length(mut length: usize, out: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or_default();
        length >>= 7;
        out.put_u8(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            return;
        }
    }
}

pub(crate) fn to_qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

pub(crate) fn from_qos(qos: QoS) -> Qos {
    match qos {
        QoS::AtMostOnce => Qos::AtMostOnce,
        QoS::AtLeastOnce => Qos::AtLeastOnce,
        QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops where its assumption fails")]
mod tests {
    use super::*;

    #[test]
    fn a_packet_in_pieces_is_taken_once_it_is_whole() {
        let wire = [0x30, 0x05, 0x00, 0x01, b'a', b'h', b'i', 0xd0, 0x00];
        let mut buf = BytesMut::new();
        for (index, byte) in wire.iter().enumerate().take(6) {
            buf.extend_from_slice(&[*byte]);
            assert!(
                Frame::take(&mut buf, 100).unwrap().is_none(),
                "taken after {} bytes",
                index + 1
            );
        }
        buf.extend_from_slice(&wire[6..]);
        let first = Frame::take(&mut buf, 100).unwrap().unwrap().decode(V311).unwrap();
        assert!(
            matches!(first, Packet::Publish(ref publish) if publish.topic_name == "a" && publish.payload == "hi")
        );
        let second = Frame::take(&mut buf, 100).unwrap().unwrap().decode(V311).unwrap();
        assert!(matches!(second, Packet::PingResp));
        assert!(Frame::take(&mut buf, 100).unwrap().is_none());
    }

    #[test]
    fn a_packet_over_the_limit_is_refused_before_it_is_read() {
        let mut buf = BytesMut::from(&[0x30, 0xff, 0xff, 0xff, 0x7f][..]);
        assert!(matches!(Frame::take(&mut buf, 1024), Err(MqttError::PacketTooLarge { .. })));
    }

    #[test]
    fn a_length_of_five_bytes_is_malformed() {
        let mut buf = BytesMut::from(&[0x30, 0xff, 0xff, 0xff, 0xff][..]);
        assert!(Frame::take(&mut buf, 1024).is_err());
    }

    #[test]
    fn a_publication_is_read_as_it_was_meant() {
        for version in [V311, V5] {
            for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
                for (payload, expiry_seconds) in [(3, None), (200, Some(7)), (70_000, None)] {
                    let payload = vec![b'x'; payload];
                    let publication = Publication {
                        topic: "a/b",
                        payload: &payload,
                        qos,
                        packet_id: 513,
                        expiry_seconds,
                    };
                    let mut wire = Vec::new();
                    publication.encode(version, &mut wire);
                    let mut buf = BytesMut::from(&wire[..]);
                    let frame = Frame::take(&mut buf, 1 << 20).unwrap().unwrap();
                    assert!(buf.is_empty());
                    let Packet::Publish(read) = frame.decode(version).unwrap() else {
                        panic!("no PUBLISH")
                    };
                    assert_eq!(
                        (read.topic_name.as_str(), &read.payload[..]),
                        ("a/b", &payload[..])
                    );
                    assert_eq!(from_qos(read.qos), qos);
                    assert_eq!(read.packet_id, (qos > Qos::AtMostOnce).then_some(513));
                    assert!(!read.retain && !read.dup);
                    let expiry = if version == V5 { expiry_seconds } else { None };
                    assert_eq!(read.message_expiry_interval(), expiry);
                }
            }
        }
    }

    #[test]
    fn what_a_stranger_says_is_one_short_line_in_a_log() {
        let err =
            MqttError::ProtocolError(format!("x\n2026 INFO all is well {}", "y".repeat(9_000)));
        let shown = plain(&err);
        assert!(!shown.contains('\n') && shown.len() < 300, "{shown}");
    }
}
