//! The frame every message comes in: `tid`, `bid`, `timestamp`, `method`, `gateway`, `need_reply`, `seq` around `data`.
//!
//! Reads what devices send, not what the pages promise: any field may be missing, be a number where text is meant or
//! the reverse, or be unknown. `data` stays raw text. DJI, "Topic definition"; the oddities are in `device-behaviour.md`.

use std::borrow::Cow;

use utmos_core::{id::GatewaySn, time::Timestamp};

use crate::json::{Scalar, each_field};

/// Largest payload that is read, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Deepest nesting that is read. DJI's own messages stay below 10; the usual JSON readers stop at 128.
pub const DEPTH_MAX: usize = 64;

/// Longest `tid` or `bid` that is taken, in bytes. DJI's are UUIDs, or a task's id of the caller's making.
pub const ID_BYTES_MAX: usize = 128;

/// Longest method name that is taken, in bytes.
pub const METHOD_BYTES_MAX: usize = 128;

/// How much of a message that could not be read is kept, in bytes.
pub const EVIDENCE_BYTES_MAX: usize = 4096;

/// Why a payload is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Nothing in it.
    #[error("the payload is empty")]
    Empty,
    /// Longer than [`PAYLOAD_BYTES_MAX`].
    #[error("the payload has {0} bytes, more than {PAYLOAD_BYTES_MAX}")]
    TooLarge(usize),
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("the payload is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// Not JSON at all.
    #[error("the payload is not JSON: {0}")]
    NotJson(String),
    /// JSON, but no object.
    #[error("the payload is JSON but not an object")]
    NotAnObject,
    /// A `method` that is no name: too long, with control characters, or no text.
    #[error("the method is not a name of at most {METHOD_BYTES_MAX} characters")]
    UnusableMethod,
}

/// The payload as text: without a byte order mark, trailing NULs and white space; bytes that are no UTF-8 become
/// replacement characters (a device cuts texts at a number of bytes, which may be inside a character).
///
/// # Errors
/// When there is nothing in it, or more than [`PAYLOAD_BYTES_MAX`].
pub fn text_of(payload: &[u8]) -> Result<Cow<'_, str>, Malformed> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(Malformed::TooLarge(payload.len()));
    }
    let payload = payload.strip_prefix(b"\xef\xbb\xbf").unwrap_or(payload);
    let end = payload.iter().rposition(|byte| !matches!(byte, 0 | b' ' | b'\t' | b'\r' | b'\n'));
    let payload = end.and_then(|end| payload.get(..=end)).ok_or(Malformed::Empty)?;
    Ok(String::from_utf8_lossy(payload))
}

/// A payload as evidence: text, cut to [`EVIDENCE_BYTES_MAX`], safe to store and to show.
#[must_use]
pub fn evidence(payload: &[u8]) -> String {
    let cut = payload.get(..EVIDENCE_BYTES_MAX).unwrap_or(payload);
    let mut text = String::from_utf8_lossy(cut).replace('\0', "\u{fffd}");
    if cut.len() < payload.len() {
        text.push('…');
    }
    text
}

/// A message with its fields read and its `data` untouched.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Envelope<'a> {
    /// Id of the exchange.
    pub tid: Option<Cow<'a, str>>,
    /// Id of the business.
    pub bid: Option<Cow<'a, str>>,
    /// The sender's clock. It may be wrong by any amount: never order or expire by it.
    pub timestamp: Option<Timestamp>,
    /// The method, where it stands beside `data`.
    pub method: Option<Cow<'a, str>>,
    /// The gateway the sender names. A claim, not a proof.
    pub gateway: Option<GatewaySn>,
    /// Whether an answer is asked for.
    pub need_reply: bool,
    /// Running number of `drc` messages, where it stands beside `data`.
    pub seq: Option<u64>,
    /// `data` as written: one valid JSON value of any type.
    pub data: Option<&'a str>,
}

impl<'a> Envelope<'a> {
    /// Reads the frame of a message. Of a repeated key the last one counts.
    ///
    /// # Errors
    /// When the text is no JSON object, nested too deep, or names its method in a way that is no name.
    pub fn read(text: &'a str) -> Result<Self, Malformed> {
        if is_too_deep(text) {
            return Err(Malformed::TooDeep);
        }
        let mut envelope = Self::default();
        let mut bad_method = false;
        let read = each_field(text, &mut |key, value| match key {
            "tid" => envelope.tid = id(Scalar::of(value.get())),
            "bid" => envelope.bid = id(Scalar::of(value.get())),
            // DJI's wayline page prints three examples with the colon inside the quotes.
            "timestamp" | "timestamp:" => {
                envelope.timestamp = Scalar::of(value.get()).integer().map(Timestamp::from_millis);
            }
            "method" => {
                let scalar = Scalar::of(value.get());
                bad_method = scalar != Scalar::Null && scalar != Scalar::Text("".into());
                envelope.method = scalar.into_text().filter(|text| is_method(text));
                bad_method &= envelope.method.is_none();
            }
            "gateway" => {
                envelope.gateway =
                    Scalar::of(value.get()).into_text().and_then(|sn| GatewaySn::parse(&sn).ok());
            }
            "need_reply" => envelope.need_reply = Scalar::of(value.get()).flag().unwrap_or(false),
            "seq" => envelope.seq = seq(&Scalar::of(value.get())),
            "data" => envelope.data = Some(value.get()),
            _ => {}
        });
        match read {
            Err(err) if err.is_data() => Err(Malformed::NotAnObject),
            Err(err) => Err(Malformed::NotJson(err.to_string())),
            Ok(()) if bad_method => Err(Malformed::UnusableMethod),
            Ok(()) => Ok(envelope),
        }
    }

    /// `data` as written, `null` where there is none.
    #[must_use]
    pub fn data_or_null(&self) -> &'a str {
        self.data.unwrap_or("null")
    }
}

/// A running number, also one written as a string or a float.
pub(crate) fn seq(scalar: &Scalar<'_>) -> Option<u64> {
    scalar.integer().and_then(|number| u64::try_from(number).ok())
}

/// Whether a text can be a method's name. Unknown names pass; what could not be stored or shown does not.
pub(crate) fn is_method(text: &str) -> bool {
    (1..=METHOD_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// An id that can be stored and compared; any other counts as none.
pub(crate) fn id<'a>(scalar: Scalar<'a>) -> Option<Cow<'a, str>> {
    scalar
        .into_text()
        .filter(|text| text.len() <= ID_BYTES_MAX && !text.chars().any(char::is_control))
}

fn is_too_deep(text: &str) -> bool {
    // Counting is much cheaper than following strings, and settles nearly every message.
    let openings = text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count();
    openings > DEPTH_MAX && depth_of(text) > DEPTH_MAX
}

fn depth_of(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_a_field_was_seen_with_is_read() {
        let text = r#"{"tid":12,"bid":"b","timestamp":"1654070968655","method":"m","gateway":"SN1","need_reply":"1","seq":"7","data":[1.50],"x":{}}"#;
        let read = Envelope::read(text);
        let want = Envelope {
            tid: Some("12".into()),
            bid: Some("b".into()),
            timestamp: Some(Timestamp::from_millis(1_654_070_968_655)),
            method: Some("m".into()),
            gateway: GatewaySn::parse("SN1").ok(),
            need_reply: true,
            seq: Some(7),
            data: Some("[1.50]"),
        };
        assert_eq!(read, Ok(want));
    }

    #[test]
    fn an_empty_object_is_a_message_with_nothing_said() {
        let empty = Envelope::read("{}");
        assert_eq!(empty, Ok(Envelope::default()));
        assert_eq!(empty.map(|envelope| envelope.data_or_null()), Ok("null"));
        let nulls = r#"{"tid":null,"bid":null,"timestamp":null,"method":null,"gateway":null,"need_reply":null,"seq":null}"#;
        assert_eq!(Envelope::read(nulls), Ok(Envelope::default()));
    }

    #[test]
    fn odd_timestamps_do_no_harm() {
        for (raw, want) in [
            ("1654070968655", Some(1_654_070_968_655)),
            ("16540709686556", Some(16_540_709_686_556)),
            ("\"1234567890123\"", Some(1_234_567_890_123)),
            ("1.654070968655e12", Some(1_654_070_968_655)),
            ("\"soon\"", None),
            ("[]", None),
        ] {
            let text = format!(r#"{{"timestamp:":{raw}}}"#);
            let read =
                Envelope::read(&text).map(|envelope| envelope.timestamp.map(Timestamp::as_millis));
            assert_eq!(read, Ok(want), "{raw}");
        }
    }

    #[test]
    fn what_is_no_message_says_why() {
        for (payload, want) in [
            (&b""[..], Malformed::Empty),
            (b" \n\0", Malformed::Empty),
            (b"[]", Malformed::NotAnObject),
            (b"\"x\"", Malformed::NotAnObject),
            (b"null", Malformed::NotAnObject),
            (br#"{"method":{}}"#, Malformed::UnusableMethod),
            (br#"{"method":"a\u0000b"}"#, Malformed::UnusableMethod),
        ] {
            let read = text_of(payload).and_then(|text| Envelope::read(&text).map(drop));
            assert_eq!(read, Err(want), "{}", evidence(payload));
        }
        for payload in [&b"{"[..], b"{}x", b"{\"a\":}", b"hello", b"{\"a\":1,}"] {
            let read = text_of(payload).and_then(|text| Envelope::read(&text).map(drop));
            assert!(matches!(read, Err(Malformed::NotJson(_))), "{}", evidence(payload));
        }
    }

    #[test]
    fn a_byte_order_mark_and_what_c_strings_end_with_are_skipped() {
        let text = text_of(b"\xef\xbb\xbf {\"tid\":\"t\"}\r\n\0\0");
        assert_eq!(text.as_deref().map(str::trim_start), Ok("{\"tid\":\"t\"}"));
        assert_eq!(
            text.and_then(|text| Envelope::read(&text).map(|read| read.tid.is_some())),
            Ok(true)
        );
    }

    #[test]
    fn a_text_cut_inside_a_character_does_not_lose_the_message() {
        let text = text_of(b"{\"method\":\"m\",\"data\":\"\xe7\x84\"}");
        assert_eq!(text.as_deref(), Ok("{\"method\":\"m\",\"data\":\"\u{fffd}\"}"));
    }

    #[test]
    fn the_limits_hold() {
        assert_eq!(
            text_of(&vec![b' '; PAYLOAD_BYTES_MAX + 1]),
            Err(Malformed::TooLarge(PAYLOAD_BYTES_MAX + 1))
        );
        let nested =
            |depth: usize| format!("{{\"data\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(Envelope::read(&nested(DEPTH_MAX - 1)).is_ok());
        assert_eq!(Envelope::read(&nested(DEPTH_MAX)), Err(Malformed::TooDeep));
        assert_eq!(Envelope::read(&nested(400_000)), Err(Malformed::TooDeep));
        let brackets_in_text = format!("{{\"data\":\"\\\"{}\"}}", "[{".repeat(DEPTH_MAX));
        assert!(Envelope::read(&brackets_in_text).is_ok());
        let long_id = format!(r#"{{"tid":"{}","method":"m"}}"#, "x".repeat(ID_BYTES_MAX + 1));
        assert_eq!(Envelope::read(&long_id).map(|envelope| envelope.tid), Ok(None));
        let long_method = format!(r#"{{"method":"{}"}}"#, "x".repeat(METHOD_BYTES_MAX + 1));
        assert_eq!(Envelope::read(&long_method), Err(Malformed::UnusableMethod));
    }

    #[test]
    fn evidence_is_cut_storable_text() {
        assert_eq!(evidence(b"a\0\xff"), "a\u{fffd}\u{fffd}");
        let long = evidence(&vec![b'x'; EVIDENCE_BYTES_MAX + 1]);
        assert_eq!((long.len(), long.ends_with('…')), (EVIDENCE_BYTES_MAX + '…'.len_utf8(), true));
        assert!(!evidence(&vec![b'x'; EVIDENCE_BYTES_MAX]).ends_with('…'));
    }
}
