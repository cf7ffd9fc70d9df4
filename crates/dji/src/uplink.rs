//! From a device's bytes to what they mean: [`read`] turns a topic and a payload into one [`Uplink`].
//!
//! Pure and total: any bytes give an answer or a reason. Nothing here decides what to do about a message, and nothing
//! proves who sent it: a serial number in the topic is as good as the broker's access rules, one in the payload is a claim.

use utmos_core::{
    id::{DeviceSn, GatewaySn},
    reply::{JobState, Progress, RawJson, Reply},
    time::Timestamp,
};

use crate::{
    envelope::{self, Envelope},
    topic::{StatusRoot, UplinkTopic},
};

mod drc;
mod event;
mod meanings;
mod outcome;
mod property;
mod topology;

pub use crate::envelope::Malformed;
pub use meanings::{ForGateway, JobEvent, Meanings, NoMeanings};
pub use outcome::job_word;
pub(crate) use outcome::verdict_of as verdict_of_result;
pub use topology::{Model, SUB_DEVICES_MAX, SubDevice, Topology};

/// The ids of an exchange, as they were sent and must be repeated in an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange {
    /// One exchange. Re-sends of an event or a request carry the same.
    pub tid: Option<String>,
    /// One job, over many exchanges.
    pub bid: Option<String>,
}

impl Exchange {
    /// The `bid`, if it tells this job from others: remote controllers send nothing but zeros in all of theirs.
    #[must_use]
    pub fn job(&self) -> Option<&str> {
        self.bid.as_deref().filter(|bid| tells_apart(bid))
    }

    /// The `tid`, if it tells this exchange from others of the device. As [`Exchange::job`].
    #[must_use]
    pub fn own_tid(&self) -> Option<&str> {
        self.tid.as_deref().filter(|tid| tells_apart(tid))
    }

    pub(crate) fn of(envelope: &Envelope<'_>) -> Self {
        let owned = |id: &Option<std::borrow::Cow<'_, str>>| id.as_deref().map(str::to_owned);
        Self { tid: owned(&envelope.tid), bid: owned(&envelope.bid) }
    }
}

fn tells_apart(id: &str) -> bool {
    id.bytes().any(|byte| !matches!(byte, b'0' | b'-'))
}

/// What a device said.
#[derive(Debug, Clone, PartialEq)]
pub enum Uplink {
    /// The answer to a command on `services`.
    Reply(ReplyTo),
    /// The answer to a `property/set`: [`Reply::verdict`] is good only if every property says so.
    PropertyReply(ReplyTo),
    /// The answer to a command on `drc/down`.
    DrcAck(DrcAck),
    /// What a device under direct control reports by itself on `drc/up`.
    DrcPush(DrcPush),
    /// Something happened.
    Event(Event),
    /// The device asks the cloud for something.
    Request(Request),
    /// `update_topo`: the gateway is there, and this is what it leads.
    Topology(Topology),
    /// Properties, regularly.
    Osd(Osd),
    /// Properties that changed.
    State(State),
}

/// An answer and what it answers.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplyTo {
    /// The ids it repeats.
    pub exchange: Exchange,
    /// The answer.
    pub reply: Reply,
    /// The device's clock. Never order or expire by it.
    pub device_time: Option<Timestamp>,
}

/// An answer on `drc/up`.
#[derive(Debug, Clone, PartialEq)]
pub struct DrcAck {
    /// The running number it repeats: beside `data`, in `data` or in `data.output`, as the device likes.
    pub seq: Option<u64>,
    /// The answer; [`Reply::method`] is always there.
    pub reply: Reply,
}

/// A report on `drc/up`.
#[derive(Debug, Clone, PartialEq)]
pub struct DrcPush {
    /// The gateway it came from.
    pub gateway: GatewaySn,
    /// Such as `osd_info_push`. Two of DJI's own examples have none.
    pub method: Option<String>,
    /// Running number, where there is one.
    pub seq: Option<u64>,
    /// The device's clock. Never order or expire by it.
    pub device_time: Option<Timestamp>,
    /// `data` as written.
    pub data: RawJson,
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Whose serial number is in the topic: the gateway's or the aircraft's.
    pub device: DeviceSn,
    /// The gateway the message names. A claim; see [`Uplink::claimed_gateway`].
    pub gateway: Option<GatewaySn>,
    /// The ids, to be repeated in the answer. Re-sends have the same; drop doubles by [`Exchange::key`].
    pub exchange: Exchange,
    /// The method; of remote controllers that name it in `data` only, that one.
    pub method: Option<String>,
    /// Whether this copy asks for an answer. Every copy that does gets one.
    pub need_reply: bool,
    /// What it says of a job, if its method reports on jobs.
    pub progress: Option<Box<Progress>>,
    /// The device's clock. Never order or expire by it.
    pub device_time: Option<Timestamp>,
    /// `data` as written; an array in some methods.
    pub data: RawJson,
}

/// A request of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The gateway that asks.
    pub gateway: GatewaySn,
    /// Where it asks, which is where the answer goes.
    pub asked_on: AskedOn,
    /// The ids, to be repeated in the answer.
    pub exchange: Exchange,
    /// What it asks for.
    pub method: Option<String>,
    /// The device's clock. Never order or expire by it.
    pub device_time: Option<Timestamp>,
    /// `data` as written; `null` when there is none.
    pub data: RawJson,
}

/// The topic of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedOn {
    /// `requests`.
    Requests,
    /// A status topic, with another method than `update_topo`. None is documented.
    Status(StatusRoot),
}

/// Properties, regularly. A dock spreads its own over several messages: merge by key, a missing key is unchanged.
#[derive(Debug, Clone, PartialEq)]
pub struct Osd {
    /// Whose properties these are.
    pub device: DeviceSn,
    /// The gateway the message names. A claim; see [`Uplink::claimed_gateway`].
    pub gateway: Option<GatewaySn>,
    /// The device's clock. Never order or expire by it.
    pub device_time: Option<Timestamp>,
    /// `mode_code`, where this message has it.
    pub mode_code: Option<i64>,
    /// `data` as written.
    pub data: RawJson,
}

/// Properties that changed.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Whose properties these are.
    pub device: DeviceSn,
    /// The gateway the message names. A claim; see [`Uplink::claimed_gateway`].
    pub gateway: Option<GatewaySn>,
    /// The ids, to be repeated in the answer. Docks re-send states that were answered: keep nothing per copy.
    pub exchange: Exchange,
    /// Whether this copy asks for an answer.
    pub need_reply: bool,
    /// The device's clock. Never order or expire by it.
    pub device_time: Option<Timestamp>,
    /// `data` as written.
    pub data: RawJson,
}

impl Uplink {
    /// The device of the topic and the gateway the payload names for it, where these differ.
    ///
    /// Before anything is changed in the gateway's name, the caller checks that the device is its sub-device: only the
    /// topic is under the broker's access rules.
    #[must_use]
    pub fn claimed_gateway(&self) -> Option<(&DeviceSn, &GatewaySn)> {
        let (device, gateway) = match self {
            Self::Event(event) => (&event.device, event.gateway.as_ref()?),
            Self::Osd(osd) => (&osd.device, osd.gateway.as_ref()?),
            Self::State(state) => (&state.device, state.gateway.as_ref()?),
            Self::Reply(_)
            | Self::PropertyReply(_)
            | Self::DrcAck(_)
            | Self::DrcPush(_)
            | Self::Request(_)
            | Self::Topology(_) => return None,
        };
        (device.as_str() != gateway.as_str()).then_some((device, gateway))
    }

    /// The firmware the message tells of, and whose it is.
    #[must_use]
    pub fn firmware_version(&self) -> Option<(&DeviceSn, String)> {
        let (device, data) = match self {
            Self::Osd(osd) => (&osd.device, &osd.data),
            Self::State(state) => (&state.device, &state.data),
            Self::Event(_)
            | Self::Reply(_)
            | Self::PropertyReply(_)
            | Self::DrcAck(_)
            | Self::DrcPush(_)
            | Self::Request(_)
            | Self::Topology(_) => return None,
        };
        // Most messages have none, and a search for the word is cheaper than a look at every key.
        if !data.contains("\"firmware_version\"") {
            return None;
        }
        let [firmware] = crate::json::pick(data, ["firmware_version"]);
        Some((device, firmware.scalar().into_text()?.into_owned()))
    }
}

/// Reads one message.
///
/// # Errors
/// When the payload is no JSON object within the limits of [`envelope`]. Keep [`envelope::evidence`] of it.
pub fn read(
    topic: &UplinkTopic,
    payload: &[u8],
    meanings: &dyn Meanings,
) -> Result<Uplink, Malformed> {
    read_with_claim(topic, payload, meanings).map(|(uplink, _)| uplink)
}

/// [`read`], and the gateway the message names where that is not the device of the topic. It is a claim, whatever the topic:
/// where nothing else proves who sends, one that the device does not stand behind is a sign of forgery.
///
/// # Errors
/// As [`read`].
pub fn read_with_claim(
    topic: &UplinkTopic,
    payload: &[u8],
    meanings: &dyn Meanings,
) -> Result<(Uplink, Option<GatewaySn>), Malformed> {
    let text = envelope::text_of(payload)?;
    let envelope = Envelope::read(&text)?;
    let claim = envelope.gateway.clone();
    let claim = claim.filter(|named| named.as_str() != topic.device().as_str());
    let uplink = match topic {
        UplinkTopic::Osd { device } => Uplink::Osd(read_osd(device, &envelope)),
        UplinkTopic::State { device } => Uplink::State(read_state(device, &envelope)),
        UplinkTopic::ServicesReply { gateway } => {
            Uplink::Reply(read_reply(gateway, &envelope, meanings))
        }
        UplinkTopic::Events { device } => Uplink::Event(event::read(device, &envelope, meanings)),
        UplinkTopic::Requests { gateway } => {
            Uplink::Request(read_request(gateway, AskedOn::Requests, &envelope))
        }
        UplinkTopic::Status { gateway, root } => match envelope.method.as_deref() {
            None | Some(topology::METHOD) => {
                Uplink::Topology(topology::read(gateway, *root, &envelope))
            }
            Some(_) => Uplink::Request(read_request(gateway, AskedOn::Status(*root), &envelope)),
        },
        UplinkTopic::PropertySetReply { gateway } => {
            Uplink::PropertyReply(property::read(gateway, &envelope, meanings))
        }
        UplinkTopic::DrcUp { gateway } => drc::read(gateway, &envelope, meanings),
    };
    Ok((uplink, claim))
}

fn read_osd(device: &DeviceSn, envelope: &Envelope<'_>) -> Osd {
    let data = envelope.data_or_null();
    Osd {
        device: device.clone(),
        gateway: envelope.gateway.clone(),
        device_time: envelope.timestamp,
        mode_code: mode_code(data),
        data: data.into(),
    }
}

fn mode_code(data: &str) -> Option<i64> {
    // Most messages have none, and a search for the word is cheaper than a look at every key.
    if !data.contains("\"mode_code\"") {
        return None;
    }
    let [mode_code] = crate::json::pick(data, ["mode_code"]);
    mode_code.scalar().integer()
}

fn read_state(device: &DeviceSn, envelope: &Envelope<'_>) -> State {
    State {
        device: device.clone(),
        gateway: envelope.gateway.clone(),
        exchange: Exchange::of(envelope),
        need_reply: envelope.need_reply,
        device_time: envelope.timestamp,
        data: envelope.data_or_null().into(),
    }
}

fn read_reply(gateway: &GatewaySn, envelope: &Envelope<'_>, meanings: &dyn Meanings) -> ReplyTo {
    let data = envelope.data_or_null();
    let outcome = outcome::read(data, meanings);
    let method = method(envelope);
    let may_end = method.as_deref().is_none_or(|method| meanings.reply_may_end(method));
    ReplyTo {
        exchange: Exchange::of(envelope),
        device_time: envelope.timestamp,
        reply: Reply {
            gateway: gateway.clone(),
            method,
            verdict: outcome.verdict,
            code: outcome.code,
            message: outcome.message,
            job: outcome.job.filter(|state| may_end || *state != JobState::Succeeded),
            data: data.into(),
        },
    }
}

fn read_request(gateway: &GatewaySn, asked_on: AskedOn, envelope: &Envelope<'_>) -> Request {
    Request {
        gateway: gateway.clone(),
        asked_on,
        exchange: Exchange::of(envelope),
        method: method(envelope),
        device_time: envelope.timestamp,
        data: envelope.data_or_null().into(),
    }
}

fn method(envelope: &Envelope<'_>) -> Option<String> {
    envelope.method.as_deref().map(str::to_owned)
}
