//! The protocol from the other end: what a simulated gateway reads and writes.
//!
//! Knows the protocol, not the platform, and keeps no state.

use utmos_core::{
    id::{DeviceSn, GatewaySn},
    reply::{RawJson, Verdict},
    time::Timestamp,
};

use crate::{
    downlink::Heading,
    envelope::{self, Envelope, Malformed},
    json::pick,
    topic::DownlinkTopic,
    uplink::{Exchange, verdict_of_result},
    writer::{ObjectWriter, array},
};

/// A message to a device.
#[derive(Debug, Clone, PartialEq)]
pub enum Downlink {
    /// A command on `services`.
    Services {
        /// The ids, to be repeated in the reply.
        exchange: Exchange,
        /// The method.
        method: Option<String>,
        /// `data` as written.
        data: RawJson,
    },
    /// A command on `drc/down`.
    Drc {
        /// The method.
        method: Option<String>,
        /// The running number, beside or inside `data`.
        seq: Option<u64>,
        /// `data` as written.
        data: RawJson,
    },
    /// A `property/set`.
    PropertySet {
        /// The ids, to be repeated in the reply.
        exchange: Exchange,
        /// `data` as written.
        data: RawJson,
    },
    /// The answer to an event, a state, a topology update or a request.
    Answer {
        /// What it answers.
        exchange: Exchange,
        /// The method, where the answer has one.
        method: Option<String>,
        /// What `data.result` says; the answer to `config` has none.
        verdict: Verdict,
        /// `data` as written.
        data: RawJson,
    },
}

/// Reads a message as its device would.
///
/// # Errors
/// When the payload is no JSON object.
pub fn read(topic: &DownlinkTopic, payload: &[u8]) -> Result<Downlink, Malformed> {
    let text = envelope::text_of(payload)?;
    let envelope = Envelope::read(&text)?;
    let data: RawJson = envelope.data_or_null().into();
    let exchange = Exchange::of(&envelope);
    let method = envelope.method.as_deref().map(str::to_owned);
    Ok(match topic {
        DownlinkTopic::Services { .. } => Downlink::Services { exchange, method, data },
        DownlinkTopic::DrcDown { .. } => {
            let seq = envelope.seq.or_else(|| crate::downlink::given_seq(&data));
            Downlink::Drc { method, seq, data }
        }
        DownlinkTopic::PropertySet { .. } => Downlink::PropertySet { exchange, data },
        DownlinkTopic::EventsReply { .. }
        | DownlinkTopic::RequestsReply { .. }
        | DownlinkTopic::StatusReply { .. }
        | DownlinkTopic::StateReply { .. } => {
            let [result] = pick(&data, ["result"]);
            let verdict = verdict_of_result(result);
            Downlink::Answer { exchange, method, verdict, data }
        }
    })
}

/// A message on `services_reply`. `data` is one valid JSON value, such as `{"result":0}`.
#[must_use]
pub fn services_reply(exchange: &Exchange, method: &str, data: &str, at: Timestamp) -> Vec<u8> {
    reply(exchange, Some(method), data, at)
}

/// A message on `property/set_reply`.
#[must_use]
pub fn property_set_reply(exchange: &Exchange, data: &str, at: Timestamp) -> Vec<u8> {
    reply(exchange, None, data, at)
}

/// A message on `drc/up`: an answer or a push, `seq` beside `data` where there is one.
#[must_use]
pub fn drc_up(method: &str, data: &str, seq: Option<u64>) -> Vec<u8> {
    let object =
        ObjectWriter::with_capacity(data.len() + 96).text("method", method).raw("data", data);
    let object = match seq {
        Some(seq) => object.number("seq", seq),
        None => object,
    };
    object.finish().into_bytes()
}

/// A message on `events`. Docks leave `need_reply` out of some methods and write 0 or 1 in others.
#[must_use]
pub fn event(
    heading: Heading<'_>,
    gateway: &GatewaySn,
    method: &str,
    need_reply: Option<bool>,
    data: &str,
) -> Vec<u8> {
    let object = framed(heading, Some(method), data);
    let object = match need_reply {
        Some(need_reply) => object.number("need_reply", u8::from(need_reply)),
        None => object,
    };
    object.text("gateway", gateway.as_str()).finish().into_bytes()
}

/// A message on `events` as remote controllers write alarms: the method stands inside `data`, twice, and not above it
/// (DJI-Cloud-API-Demo#11). `output` is one valid JSON value.
#[must_use]
pub fn event_within(
    heading: Heading<'_>,
    gateway: &GatewaySn,
    method: &str,
    output: &str,
) -> Vec<u8> {
    let data = ObjectWriter::with_capacity(output.len() + 2 * method.len() + 48)
        .text("event", method)
        .text("method", method)
        .raw("output", output)
        .finish();
    framed(heading, None, &data).text("gateway", gateway.as_str()).finish().into_bytes()
}

/// A message on `requests`.
#[must_use]
pub fn request(heading: Heading<'_>, gateway: &GatewaySn, method: &str, data: &str) -> Vec<u8> {
    framed(heading, Some(method), data).text("gateway", gateway.as_str()).finish().into_bytes()
}

/// A message on `osd`, of the gateway or its aircraft.
#[must_use]
pub fn osd(heading: Heading<'_>, gateway: &GatewaySn, data: &str) -> Vec<u8> {
    framed(heading, None, data).text("gateway", gateway.as_str()).finish().into_bytes()
}

/// A message on `state`, of the gateway or its aircraft.
#[must_use]
pub fn state(heading: Heading<'_>, gateway: &GatewaySn, need_reply: bool, data: &str) -> Vec<u8> {
    let object = framed(heading, None, data);
    let object = if need_reply { object.number("need_reply", 1) } else { object };
    object.text("gateway", gateway.as_str()).finish().into_bytes()
}

/// A device as `update_topo` describes it, in DJI's three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// 0 aircraft, 2 remote controller, 3 dock.
    pub domain: u32,
    /// `type`.
    pub device_type: u32,
    /// `sub_type`.
    pub sub_type: u32,
}

impl Kind {
    /// The numbers as DJI writes them in one word, such as `3-2-0`.
    #[must_use]
    pub fn key(self) -> String {
        format!("{}-{}-{}", self.domain, self.device_type, self.sub_type)
    }
}

/// How a gateway describes devices in `update_topo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Described {
    /// As docks do: `domain` as a text, and this `thing_version`.
    Dock {
        /// `thing_version`.
        thing_version: &'static str,
    },
    /// As remote controllers do: all as numbers, and this `version`.
    RemoteController {
        /// `version`.
        version: u32,
    },
}

/// An `update_topo`. Without an aircraft it says that the aircraft is off.
#[must_use]
pub fn update_topo(
    heading: Heading<'_>,
    form: Described,
    gateway: Kind,
    aircraft: Option<(&DeviceSn, Kind)>,
) -> Vec<u8> {
    let subs = aircraft.map(|(sn, kind)| {
        let object = ObjectWriter::with_capacity(160).text("sn", sn.as_str());
        described(object, form, kind).text("index", "A").finish()
    });
    let data = described(ObjectWriter::with_capacity(320), form, gateway)
        .raw("sub_devices", &array(subs))
        .finish();
    framed(heading, Some("update_topo"), &data).finish().into_bytes()
}

fn described(object: ObjectWriter, form: Described, kind: Kind) -> ObjectWriter {
    let object = match form {
        Described::Dock { .. } => object.text("domain", &kind.domain.to_string()),
        Described::RemoteController { .. } => object.number("domain", kind.domain),
    };
    let object = object
        .number("type", kind.device_type)
        .number("sub_type", kind.sub_type)
        .text("device_secret", "")
        .text("nonce", "");
    match form {
        Described::Dock { thing_version } => object.text("thing_version", thing_version),
        Described::RemoteController { version } => object.number("version", version),
    }
}

fn framed(heading: Heading<'_>, method: Option<&str>, data: &str) -> ObjectWriter {
    ObjectWriter::with_capacity(data.len() + 256)
        .text("bid", heading.bid)
        .raw("data", data)
        .maybe_text("method", method)
        .text("tid", heading.tid)
        .number("timestamp", heading.at.as_millis())
}

fn reply(exchange: &Exchange, method: Option<&str>, data: &str, at: Timestamp) -> Vec<u8> {
    ObjectWriter::with_capacity(data.len() + 192)
        .maybe_text("bid", exchange.bid.as_deref())
        .raw("data", data)
        .maybe_text("method", method)
        .maybe_text("tid", exchange.tid.as_deref())
        .number("timestamp", at.as_millis())
        .finish()
        .into_bytes()
}
