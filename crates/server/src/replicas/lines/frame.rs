//! What goes over a line, as bytes: a length of four bytes, a kind of one, and the rest. Pure.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utmos_core::{
    command::Command,
    ports::{Asked, Taken},
    replica::{News, ReplicaId},
};

/// What is said on lines, as a number. Servers of one database have one schema, and with it one of these; a change of it without
/// a change of the schema counts up here.
const SPOKEN: u16 = 1;
/// Before what stands in a frame: its length and its kind.
const HEAD_BYTES: usize = 5;
/// Longest that is said or taken at once. A command and an answer of a device are shorter by far.
pub(super) const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;

const HELLO: u8 = 1;
const ASK: u8 = 2;
const ANSWER: u8 = 3;
const ENDED: u8 = 4;
const NEWS: u8 = 5;
const PING: u8 = 6;

/// The first word on a line, from either end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    spoken: u16,
    /// Who says it.
    pub(super) from: ReplicaId,
    /// Whom it is for: an address may have become another server's.
    pub(super) to: ReplicaId,
}

/// What is said on a line.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Frame {
    Hello(Hello),
    /// With the number that its answer repeats.
    Ask(u64, Asked),
    Answer(u64, Taken),
    Ended(Command),
    News(News),
    Ping,
}

/// Why what came is no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("a word of {0} bytes, more than is ever said")]
    TooLong(usize),
    #[error("a word that cannot be read: {0}")]
    Garbled(String),
    #[error("the other server speaks version {0} of this, and this one version {SPOKEN}")]
    Foreign(u16),
}

impl Hello {
    pub(super) fn new(from: ReplicaId, to: ReplicaId) -> Self {
        Self { spoken: SPOKEN, from, to }
    }
}

/// Appends a frame. Answers whether it can be said; where not, nothing is appended.
pub(super) fn write(frame: &Frame, to: &mut Vec<u8>) -> bool {
    let start = to.len();
    to.extend([0; 4]);
    let written = match frame {
        Frame::Hello(hello) => put(to, HELLO, None, hello),
        Frame::Ask(number, asked) => put(to, ASK, Some(*number), asked),
        Frame::Answer(number, taken) => put(to, ANSWER, Some(*number), taken),
        Frame::News(news) => put(to, NEWS, None, news),
        Frame::Ended(command) => put(to, ENDED, None, command),
        Frame::Ping => {
            to.push(PING);
            true
        }
    };
    close(to, start, written)
}

/// The same of a command that has ended, which need not be copied for it.
pub(super) fn write_ended(command: &Command, to: &mut Vec<u8>) -> bool {
    let start = to.len();
    to.extend([0; 4]);
    let written = put(to, ENDED, None, command);
    close(to, start, written)
}

fn put(to: &mut Vec<u8>, kind: u8, number: Option<u64>, what: &impl Serialize) -> bool {
    to.push(kind);
    if let Some(number) = number {
        to.extend(number.to_be_bytes());
    }
    serde_json::to_writer(to, what).is_ok()
}

/// Fills the length in.
fn close(to: &mut Vec<u8>, start: usize, written: bool) -> bool {
    let length = to.len() - start - HEAD_BYTES;
    let head = u32::try_from(length).ok().filter(|_| written && length <= FRAME_BYTES_MAX);
    match (head, to.get_mut(start..start + 4)) {
        (Some(head), Some(place)) => {
            place.copy_from_slice(&head.to_be_bytes());
            true
        }
        (None, _) | (_, None) => {
            to.truncate(start);
            false
        }
    }
}

/// Reads the first frame, with how many bytes it took; `None` while it is not all there.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Frame, usize)>, Unreadable> {
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX {
        return Err(Unreadable::TooLong(length));
    }
    let Some((kind, rest)) = rest.split_first() else { return Ok(None) };
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let frame = match *kind {
        HELLO => {
            let hello: Hello = parse(body)?;
            if hello.spoken != SPOKEN {
                return Err(Unreadable::Foreign(hello.spoken));
            }
            Frame::Hello(hello)
        }
        ASK => {
            let (number, body) = numbered(body)?;
            Frame::Ask(number, parse(body)?)
        }
        ANSWER => {
            let (number, body) = numbered(body)?;
            Frame::Answer(number, parse(body)?)
        }
        ENDED => Frame::Ended(parse(body)?),
        NEWS => Frame::News(parse(body)?),
        PING => Frame::Ping,
        other => return Err(Unreadable::Garbled(format!("of kind {other}"))),
    };
    Ok(Some((frame, HEAD_BYTES + length)))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Unreadable> {
    // What is wrong is told by its place alone: a payload may hold secrets.
    serde_json::from_slice(body)
        .map_err(|err| Unreadable::Garbled(format!("line {} column {}", err.line(), err.column())))
}

fn numbered(body: &[u8]) -> Result<(u64, &[u8]), Unreadable> {
    let (number, body) = body
        .split_first_chunk()
        .ok_or_else(|| Unreadable::Garbled("without its number".to_owned()))?;
    Ok((u64::from_be_bytes(*number), body))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::sync::Arc;

    use proptest::prelude::*;
    use utmos_core::{
        id::CommandId, method::Risk, ports::Accepted, replica::News, signing::NonceUse,
        time::Timestamp,
    };
    use uuid::Uuid;

    use super::*;
    use crate::driver::command_for_tests;

    fn id(number: u128) -> ReplicaId {
        ReplicaId(Uuid::from_u128(number))
    }

    fn every_frame() -> Vec<Frame> {
        let command = command_for_tests(7, Risk::Motion);
        let nonce = NonceUse { key: [9; 16], expires_at: Timestamp::from_millis(8) };
        let spec = Arc::clone(&command.spec);
        let other = CommandId::new(Uuid::from_u128(5));
        vec![
            Frame::Hello(Hello::new(id(1), id(2))),
            Frame::Ask(0, Asked { nonce: Some(nonce), spec: spec.clone() }),
            Frame::Ask(u64::MAX, Asked { nonce: None, spec }),
            Frame::Answer(1, Taken::Stored(Accepted::New)),
            Frame::Answer(2, Taken::Stored(Accepted::Busy { id: other, method: "fly".to_owned() })),
            Frame::Answer(3, Taken::Unclear),
            Frame::Answer(4, Taken::Full(1_000)),
            Frame::Answer(5, Taken::NotHere),
            Frame::Ended(command),
            Frame::News(News::Ended(vec![other])),
            Frame::Ping,
        ]
    }

    #[test]
    fn what_is_said_is_what_is_heard_however_it_comes() {
        let mut bytes = Vec::new();
        for frame in every_frame() {
            assert!(write(&frame, &mut bytes), "{frame:?}");
        }
        for piece in [1, 7, bytes.len()] {
            let (mut buffer, mut heard) = (Vec::new(), Vec::new());
            for some in bytes.chunks(piece) {
                buffer.extend_from_slice(some);
                while let Some((frame, length)) = read(&buffer).unwrap() {
                    buffer.drain(..length);
                    heard.push(frame);
                }
            }
            assert_eq!(heard, every_frame(), "in pieces of {piece}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn what_is_too_long_is_not_said_and_not_taken() {
        let mut command = command_for_tests(7, Risk::Motion);
        let mut spec = (*command.spec).clone();
        spec.payload = "x".repeat(FRAME_BYTES_MAX).into();
        command.spec = Arc::new(spec);
        let mut bytes = vec![1, 2, 3];
        assert!(!write_ended(&command, &mut bytes));
        assert_eq!(bytes, [1, 2, 3], "nothing of it is left");
        let length = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes();
        assert_eq!(read(&length), Err(Unreadable::TooLong(FRAME_BYTES_MAX + 1)));
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = Vec::new();
        write(&Frame::Hello(Hello { spoken: 9, ..Hello::new(id(1), id(2)) }), &mut bytes);
        assert_eq!(read(&bytes), Err(Unreadable::Foreign(9)));
    }

    proptest! {
        #[test]
        fn whatever_comes_nothing_breaks_and_no_secret_is_told(
            which in 0..11_usize,
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = Vec::new();
            write(&every_frame()[which], &mut bytes);
            let place = at.index(bytes.len());
            bytes[place] = byte;
            if let Err(Unreadable::Garbled(why)) = read(&bytes) {
                prop_assert!(why.len() < 60, "{why}");
            }
        }
    }
}
