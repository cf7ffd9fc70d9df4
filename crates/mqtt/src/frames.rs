//! The reader of packets as the client of outside brokers has it, and the embedded broker's look at a client's first bytes,
//! for those who try bytes on them.

use bytes::BytesMut;

use crate::{
    broker::hello::try_hello,
    codec::{self, Frame},
};

/// What was read: each packet as it is written again, and why reading ended before the end of the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The packets, written again.
    pub packets: Vec<Vec<u8>>,
    /// Bytes at the end that are no whole packet; none after an error.
    pub left: usize,
    /// Why nothing more is read.
    pub error: Option<String>,
}

/// Reads packets from bytes that come in pieces of this length. `version` is the level in the CONNECT packet.
#[must_use]
pub fn read(bytes: &[u8], piece_bytes: usize, packet_bytes_max: usize, version: u8) -> Read {
    let mut read = Read { packets: Vec::new(), left: 0, error: None };
    let mut buf = BytesMut::new();
    for piece in bytes.chunks(piece_bytes.max(1)) {
        buf.extend_from_slice(piece);
        loop {
            let taken = match Frame::take(&mut buf, packet_bytes_max) {
                Ok(None) => break,
                Ok(Some(frame)) => frame.decode(version),
                Err(err) => Err(err),
            };
            let mut written = BytesMut::new();
            match taken.and_then(|packet| codec::encode(&packet, &mut written)) {
                Ok(()) => read.packets.push(written.to_vec()),
                Err(err) => {
                    read.error = Some(err.to_string());
                    return read;
                }
            }
        }
    }
    read.left = buf.len();
    read
}

/// Whether a client's first bytes begin a CONNECT of at most `bytes_max`; `false` while that is not known.
///
/// # Errors
/// Why it is not listened to.
pub fn hello(head: &[u8], bytes_max: usize) -> Result<bool, String> {
    try_hello(head, bytes_max)
}
