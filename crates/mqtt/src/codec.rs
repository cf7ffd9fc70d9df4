//! Frames on the wire, and the codec library's words for ours.

use bytes::{Buf, Bytes, BytesMut};
use mqtt5::{FixedHeader, MqttError, Packet, QoS};

use crate::message::{Publish, Qos};

pub(crate) use mqtt5::transport::packet_io::encode_packet_to_buffer as encode;

/// Level in the CONNECT packet.
pub(crate) const V5: u8 = 5;
/// Level in the CONNECT packet.
pub(crate) const V311: u8 = 4;

/// Longest head of a packet: type and four bytes of length.
pub(crate) const HEAD_BYTES_MAX: usize = 5;
/// An upper bound on what a PUBLISH of ours adds to topic and payload: head, topic length, packet id, properties.
const PUBLISH_OVERHEAD_BYTES: usize = 24;

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

/// Says why a topic cannot be published to.
pub(crate) fn topic_fault(topic: &str) -> Option<String> {
    mqtt5::validate_topic_name(topic)
        .err()
        .map(|_| format!("`{topic}` is not a topic to publish to"))
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
}
