//! The first bytes of a client, to find out whether a broker answers at an address.

/// First byte of the packet that answers a CONNECT.
pub const CONNACK: u8 = 0x20;

/// A CONNECT of MQTT 3.1.1, without a login.
pub fn connect_packet(client_id: &str) -> Vec<u8> {
    const KEEP_ALIVE_SECONDS: u8 = 60;
    const CLEAN_SESSION: u8 = 2;
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, CLEAN_SESSION, 0, KEEP_ALIVE_SECONDS];
    // Ours are short: one byte of length each.
    let text = |text: &str| {
        let length = u8::try_from(text.len()).unwrap_or(0);
        [&[0, length][..], &text.as_bytes()[..usize::from(length)]].concat()
    };
    body.extend(text(client_id));
    let length = u8::try_from(body.len()).unwrap_or(0x7F);
    [&[0x10, length][..], &body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_is_that_of_the_standard() {
        let expected = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'a'];
        assert_eq!(connect_packet("a"), expected);
    }
}
