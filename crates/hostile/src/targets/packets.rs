//! Packets of MQTT, as a broker outside sends them.

use utmos_mqtt::frames::{Read, read};

/// Largest packet that is taken here.
const PACKET_BYTES_MAX: usize = 4_096;

/// Reads packets. In whatever pieces they come, they are the same; what is written again reads again as the same.
pub fn mqtt_packets(input: &[u8]) {
    let Some((piece, bytes)) = input.split_first() else { return };
    for version in [4, 5] {
        let whole = read(bytes, bytes.len(), PACKET_BYTES_MAX, version);
        let pieces = read(bytes, usize::from(*piece).max(1), PACKET_BYTES_MAX, version);
        assert_eq!(in_no_order(&whole), in_no_order(&pieces), "in pieces of {piece} bytes");
        assert!(whole.left < PACKET_BYTES_MAX, "{} bytes are held", whole.left);
        assert!(whole.error.as_ref().is_none_or(|error| !error.is_empty()));
        for packet in &whole.packets {
            let again = read(packet, packet.len(), 2 * PACKET_BYTES_MAX, version);
            let same = Read { packets: vec![packet.clone()], left: 0, error: None };
            assert_eq!(in_no_order(&again), in_no_order(&same), "version {version}");
        }
    }
}

/// The library writes the properties of a packet in any order, so that only what bytes there are can be compared.
fn in_no_order(read: &Read) -> Read {
    let mut read = read.clone();
    read.packets.iter_mut().for_each(|packet| packet.sort_unstable());
    read
}
