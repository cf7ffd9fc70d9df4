//! From a command to the bytes on the wire. The payload is copied as it was accepted, never read and written anew.
//!
//! DJI, "Topic definition", and "Live flight controls" (DRC) for `seq`.

use utmos_core::{id::GatewaySn, time::Timestamp};

use crate::{
    catalogue::Placement,
    envelope::seq,
    json::{each_field, pick},
    writer::{ObjectWriter, push_text},
};

/// Room for the frame around a payload, in bytes.
const FRAME_BYTES: usize = 256;

/// The ids and the time of a message to a device.
#[derive(Debug, Clone, Copy)]
pub struct Heading<'a> {
    /// One exchange: the command's id.
    pub tid: &'a str,
    /// One job: made at acceptance, never changed.
    pub bid: &'a str,
    /// The wall clock at the moment the bytes are written.
    pub at: Timestamp,
}

/// A message on `services`. `data` is one valid JSON value; `gateway` is in DJI's generic example only, and no device
/// was seen to need it.
#[must_use]
pub fn services(
    heading: Heading<'_>,
    method: &str,
    data: &str,
    gateway: Option<&GatewaySn>,
) -> Vec<u8> {
    framed(heading, Some(method), data, gateway)
}

/// A message on `property/set`, which has no method. `data` is one valid JSON value.
#[must_use]
pub fn property_set(heading: Heading<'_>, data: &str) -> Vec<u8> {
    framed(heading, None, data, None)
}

/// Where a `drc/down` message carries its running number: that depends on the model and on the method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeqPlace {
    /// In `data`: `drone_control` everywhere, `heart_beat` on dock 1.
    InsideData(u64),
    /// Beside `data`: `heart_beat`, `stick_control` and all `drc_` methods of dock 2, dock 3 and remote controllers.
    BesideData(u64),
    /// Nowhere: `data` goes out as it is. `drone_emergency_stop` on dock 1.
    AsGiven,
}

impl SeqPlace {
    /// The place the catalogue names, with the number to put there.
    #[must_use]
    pub fn of(placement: Placement, number: u64) -> Self {
        match placement {
            Placement::Inside => Self::InsideData(number),
            Placement::Beside => Self::BesideData(number),
            Placement::None => Self::AsGiven,
        }
    }
}

/// A message on `drc/down`, which has neither `tid` nor `bid`. `data` is one valid JSON value.
///
/// The number is there once: a `seq` that `data` brings along gives way to the one of `place`.
#[must_use]
pub fn drc_down(method: &str, data: &str, place: SeqPlace) -> Vec<u8> {
    let object = ObjectWriter::with_capacity(data.len() + FRAME_BYTES).text("method", method);
    match place {
        SeqPlace::InsideData(number) => object.raw("data", &with_seq(data, Some(number))),
        SeqPlace::BesideData(number) if given_seq(data).is_some() => {
            object.raw("data", &with_seq(data, None)).number("seq", number)
        }
        SeqPlace::BesideData(number) => object.raw("data", data).number("seq", number),
        SeqPlace::AsGiven => object.raw("data", data),
    }
    .finish()
    .into_bytes()
}

/// The `seq` that a payload brings along.
#[must_use]
pub fn given_seq(data: &str) -> Option<u64> {
    let [field] = pick(data, ["seq"]);
    seq(&field.scalar())
}

/// `data` with this `seq` in it, or with none. What is no object becomes one.
fn with_seq(data: &str, number: Option<u64>) -> String {
    let mut object = ObjectWriter::with_capacity(data.len() + FRAME_BYTES);
    if let Some(number) = number {
        object = object.number("seq", number);
    }
    let mut fields = Vec::new();
    // What is no object (`""` and `null` stand for "nothing" on real docks) has no fields to keep.
    let _ = each_field(data, &mut |key, value| {
        if key != "seq" {
            fields.push((key.to_owned(), value.get()));
        }
    });
    fields.into_iter().fold(object, |object, (key, value)| object.raw(&key, value)).finish()
}

fn framed(
    heading: Heading<'_>,
    method: Option<&str>,
    data: &str,
    gateway: Option<&GatewaySn>,
) -> Vec<u8> {
    ObjectWriter::with_capacity(data.len() + FRAME_BYTES)
        .text("tid", heading.tid)
        .text("bid", heading.bid)
        .number("timestamp", heading.at.as_millis())
        .maybe_text("gateway", gateway.map(GatewaySn::as_str))
        .maybe_text("method", method)
        .raw("data", data)
        .finish()
        .into_bytes()
}

/// `text` as a JSON string, for payloads that are put together by hand.
#[must_use]
pub fn json_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_text(&mut out, text);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: Heading<'_> =
        Heading { tid: "t", bid: "b", at: Timestamp::from_millis(1_654_070_968_655) };

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap_or_default()
    }

    #[test]
    fn a_payload_leaves_byte_for_byte_as_it_was_accepted() {
        let data = r#"{ "z":1.50, "a":[ 1e2 ],"z":2 }"#;
        assert_eq!(
            text(services(HEADING, "fly_to_point", data, None)),
            r#"{"tid":"t","bid":"b","timestamp":1654070968655,"method":"fly_to_point","data":{ "z":1.50, "a":[ 1e2 ],"z":2 }}"#
        );
        assert_eq!(
            text(property_set(HEADING, r#"{"silent_mode":1}"#)),
            r#"{"tid":"t","bid":"b","timestamp":1654070968655,"data":{"silent_mode":1}}"#
        );
    }

    #[test]
    fn the_gateway_is_named_only_where_asked_for() {
        let named = GatewaySn::parse("SN1").map(|sn| text(services(HEADING, "m", "{}", Some(&sn))));
        assert_eq!(
            named.as_deref(),
            Ok(
                r#"{"tid":"t","bid":"b","timestamp":1654070968655,"gateway":"SN1","method":"m","data":{}}"#
            )
        );
    }

    #[test]
    fn a_running_number_is_there_once_and_where_it_belongs() {
        use SeqPlace::{AsGiven, BesideData, InsideData};
        for (data, place, want) in [
            (r#"{"x":2.340}"#, InsideData(7), r#"{"method":"m","data":{"seq":7,"x":2.340}}"#),
            (r#"{"seq":1,"x":2}"#, InsideData(7), r#"{"method":"m","data":{"seq":7,"x":2}}"#),
            ("{}", InsideData(7), r#"{"method":"m","data":{"seq":7}}"#),
            ("\"\"", InsideData(7), r#"{"method":"m","data":{"seq":7}}"#),
            (r#"{"x":2.340}"#, BesideData(7), r#"{"method":"m","data":{"x":2.340},"seq":7}"#),
            (r#"{"seq":1,"x":2}"#, BesideData(7), r#"{"method":"m","data":{"x":2},"seq":7}"#),
            ("{}", BesideData(u64::MAX), r#"{"method":"m","data":{},"seq":18446744073709551615}"#),
            ("{}", AsGiven, r#"{"method":"m","data":{}}"#),
            (r#"{"seq":1}"#, AsGiven, r#"{"method":"m","data":{"seq":1}}"#),
        ] {
            assert_eq!(text(drc_down("m", data, place)), want, "{data}");
        }
        assert_eq!(given_seq(r#"{"seq":"12"}"#), Some(12));
        assert_eq!(given_seq(r#"{"seq":-1}"#), None);
    }
}
