//! Packets of MQTT, as a broker outside sends them.

use utmos_mqtt::frames::{Read, hello, read};

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

/// Longest head of a packet: its type and the length of the rest.
const HEAD_BYTES_MAX: usize = 5;
/// Whoever has not logged in may say so much here.
const CONNECT_BYTES_MAX: usize = 256;
/// First byte of a CONNECT.
const CONNECT: u8 = 0x10;

/// Looks at a client's first bytes. However they come, they are judged alike, as soon as the length is there; and nobody is
/// listened to who says something else than one CONNECT within the bound.
pub fn mqtt_hello(input: &[u8]) {
    let verdicts: Vec<_> =
        (1..=input.len()).map(|length| hello(&input[..length], CONNECT_BYTES_MAX)).collect();
    let Some(last) = verdicts.last() else {
        return assert!(hello(input, CONNECT_BYTES_MAX).is_err(), "somebody who says nothing");
    };
    let decided = verdicts.iter().position(|verdict| *verdict != Ok(false));
    let decided = decided.unwrap_or(verdicts.len());
    assert!(decided < HEAD_BYTES_MAX || input.len() < HEAD_BYTES_MAX, "no verdict on a whole head");
    assert!(verdicts[decided..].iter().all(|verdict| verdict == last), "{verdicts:?}");
    for version in [4, 5] {
        let packets = read(input, input.len(), CONNECT_BYTES_MAX, version);
        let is_connect = |packet: &Vec<u8>| packet.first() == Some(&CONNECT);
        match last {
            Ok(true) => {
                assert_eq!(input.first(), Some(&CONNECT));
                let error = packets.error.filter(|_| packets.packets.is_empty());
                let is_too_large = error.is_some_and(|error| error.contains("too large"));
                assert!(!is_too_large, "larger than the bound");
                assert!(packets.packets.first().is_none_or(is_connect), "something else");
            }
            Ok(false) => assert!(packets.packets.is_empty()),
            Err(why) => {
                assert!(!why.is_empty());
                assert!(!packets.packets.first().is_some_and(is_connect), "refused: {why}");
            }
        }
    }
}

/// The library writes the properties of a packet in any order, so that only what bytes there are can be compared.
fn in_no_order(read: &Read) -> Read {
    let mut read = read.clone();
    read.packets.iter_mut().for_each(|packet| packet.sort_unstable());
    read
}
