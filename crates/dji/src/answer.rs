//! What the cloud answers a device: acknowledgements, and the requests a dock cannot do without.
//!
//! Pure functions of the message and of facts the caller looked up. The answer repeats the ids and the method of the
//! message and goes out beside the topic it came on. Everything here leaves at once; what must wait for a person or
//! another system is [`Unanswered`], and later answered with [`request_reply`].

use std::fmt;

use utmos_core::time::Timestamp;

use crate::{
    topic::DownlinkTopic,
    uplink::{AskedOn, Exchange, Request, Uplink},
    writer::ObjectWriter,
};

mod facts;
mod question;
mod shape;

pub use facts::{
    AreaFile, Binding, BindingOutcome, CloudConfig, Facts, Organization, ResourceFile, Storage,
    TaskProgress,
};
pub use question::{BindDevice, BindingCode, DEVICES_MAX, Question, TEXT_BYTES_MAX};
pub use shape::check_reply;

/// `data` of every acknowledgement.
const DONE: &str = r#"{"result":0}"#;

/// A request with no answer of its own kind ended badly.
const FAILED: i64 = 1;

/// A message on its way to a device.
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where it goes.
    pub topic: DownlinkTopic,
    /// The bytes.
    pub payload: Vec<u8>,
}

impl fmt::Debug for Outgoing {
    /// Without the payload, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, payload } = self;
        f.debug_struct("Outgoing")
            .field("topic", topic)
            .field("payload_bytes", &payload.len())
            .finish()
    }
}

/// The acknowledgement a message asks for: of every topology update, and of every copy of an event or a state that has
/// `need_reply` 1. Nothing for anything else, requests included.
///
/// `at` is the wall clock at the moment of answering.
#[must_use]
pub fn acknowledge(uplink: &Uplink, at: Timestamp) -> Option<Outgoing> {
    match uplink {
        Uplink::Topology(topology) => {
            let topic = DownlinkTopic::StatusReply {
                gateway: topology.gateway.clone(),
                root: topology.root,
            };
            Some(outgoing(topic, &topology.exchange, at, Some("update_topo"), DONE))
        }
        Uplink::Event(event) if event.need_reply => {
            let topic = DownlinkTopic::EventsReply { device: event.device.clone() };
            Some(outgoing(topic, &event.exchange, at, event.method.as_deref(), DONE))
        }
        // Not in the documents; recorded between a dock and DJI's own cloud code, without a method.
        Uplink::State(state) if state.need_reply => {
            let topic = DownlinkTopic::StateReply { device: state.device.clone() };
            Some(outgoing(topic, &state.exchange, at, None, DONE))
        }
        Uplink::Event(_)
        | Uplink::State(_)
        | Uplink::Reply(_)
        | Uplink::PropertyReply(_)
        | Uplink::DrcAck(_)
        | Uplink::DrcPush(_)
        | Uplink::Request(_)
        | Uplink::Osd(_) => None,
    }
}

/// Why a request got no automatic answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// It names no method.
    #[error("the request names no method")]
    NoMethod,
    /// Nothing answers this method by itself.
    #[error("no automatic answer is known for this method")]
    NotAutomatic,
    /// `data` does not say what is asked about.
    #[error("the request's data does not say what is asked about")]
    Unreadable,
    /// The answer needs settings that are not there.
    #[error("the settings this answer needs are missing")]
    NotConfigured,
    /// Nothing is known of what is asked about.
    #[error("nothing is known of what is asked about")]
    NotKnown,
}

/// The types of requests that a server may answer by itself.
pub const AUTOMATIC_TYPES: [&str; 9] = [
    "airport_bind_status",
    "airport_organization_bind",
    "airport_organization_get",
    "config",
    "flight_areas_get",
    "flighttask_progress_get",
    "flighttask_resource_get",
    "offline_map_get",
    "storage_config_get",
];

/// An automatic answer, not yet addressed.
#[derive(Clone, PartialEq, Eq)]
pub struct Automatic {
    /// What `data.result` says; 0 also where DJI's shape has none.
    pub result: i64,
    /// Why the result is not 0.
    pub message: Option<&'static str>,
    /// The answer's `data`. May hold secrets (licence, storage credentials): mask it before showing.
    pub data: String,
}

impl fmt::Debug for Automatic {
    /// Without the data, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { result, message, data: _ } = self;
        f.debug_struct("Automatic")
            .field("result", result)
            .field("message", message)
            .finish_non_exhaustive()
    }
}

impl Automatic {
    fn output(output: &str) -> Self {
        Self { result: 0, message: None, data: reply_data(0, Some(output)) }
    }

    /// DJI's own cloud code puts the reason where the output would be (MqttReply.error).
    fn refusal(result: i64, message: &'static str) -> Self {
        let output = crate::downlink::json_text(message);
        Self { result, message: Some(message), data: reply_data(result, Some(&output)) }
    }
}

/// Answers what a device asks, from what the caller knows.
///
/// # Errors
/// When there is no automatic answer, with the reason.
pub fn automatic(question: &Question, facts: &Facts) -> Result<Automatic, Unanswered> {
    match question {
        Question::Config { .. } => {
            facts.config.as_ref().map(facts::config).ok_or(Unanswered::NotConfigured)
        }
        Question::BindStatus { devices } => {
            Ok(Automatic::output(&facts::bind_status(devices, facts)))
        }
        Question::Organization { .. } => Ok(match &facts.organization {
            Some(organization) => Automatic::output(&facts::organization(organization)),
            None => Automatic::refusal(
                WRONG_BINDING_CODE,
                "no organisation has this id and binding code",
            ),
        }),
        Question::Bind { devices } => Ok(Automatic::output(&facts::bind(devices, facts))),
        Question::FlightAreas => Ok(Automatic::output(&facts::flight_areas(&facts.flight_areas))),
        Question::OfflineMap => Ok(Automatic::output(r#"{"offline_map_enable":false,"files":[]}"#)),
        Question::Storage { .. } => Ok(match &facts.storage {
            Some(storage) => Automatic::output(&facts::storage(storage)),
            None => Automatic::refusal(FAILED, "no object storage is configured"),
        }),
        Question::Resource { .. } => Ok(match &facts.resource {
            Some(file) => Automatic::output(&facts::resource(file)),
            None => Automatic::refusal(FAILED, "no file is known for this flight_id"),
        }),
        Question::Progress { .. } => match &facts.progress {
            Some(progress) => Ok(Automatic::output(&facts::progress(progress))),
            None => Err(Unanswered::NotKnown),
        },
        Question::Unreadable => Err(Unanswered::Unreadable),
        Question::NoMethod => Err(Unanswered::NoMethod),
        Question::Other => Err(Unanswered::NotAutomatic),
    }
}

/// DJI's code for a wrong binding code.
pub const WRONG_BINDING_CODE: i64 = 210_229;

/// DJI's code for a device that is bound already.
pub const ALREADY_BOUND: i64 = 210_231;

/// `data` of an answer to `method`. `output` is one valid JSON value.
///
/// The usual form is `{"result": …, "output": …}`; `config` alone wants its output flat, as long as it is answered well.
#[must_use]
pub fn compose(method: &str, result: i64, output: Option<&str>) -> String {
    if method == "config" && result == 0 {
        return output.unwrap_or("{}").to_owned();
    }
    reply_data(result, output)
}

fn reply_data(result: i64, output: Option<&str>) -> String {
    let data =
        ObjectWriter::with_capacity(output.map_or(0, str::len) + 32).number("result", result);
    match output {
        Some(output) => data.raw("output", output).finish(),
        None => data.finish(),
    }
}

/// Addresses an answer to a request. `data` is one valid JSON value; `at` is the wall clock at the moment of answering.
#[must_use]
pub fn request_reply(request: &Request, data: &str, at: Timestamp) -> Outgoing {
    let gateway = request.gateway.clone();
    let topic = match request.asked_on {
        AskedOn::Requests => DownlinkTopic::RequestsReply { gateway },
        AskedOn::Status(root) => DownlinkTopic::StatusReply { gateway, root },
    };
    outgoing(topic, &request.exchange, at, request.method.as_deref(), data)
}

fn outgoing(
    topic: DownlinkTopic,
    exchange: &Exchange,
    at: Timestamp,
    method: Option<&str>,
    data: &str,
) -> Outgoing {
    let payload = ObjectWriter::with_capacity(data.len() + 256)
        .maybe_text("tid", exchange.tid.as_deref())
        .maybe_text("bid", exchange.bid.as_deref())
        .number("timestamp", at.as_millis())
        .maybe_text("method", method)
        .raw("data", data)
        .finish();
    Outgoing { topic, payload: payload.into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_good_answer_to_config_is_flat() {
        for (method, result, output, want) in [
            ("config", 0, Some(r#"{"app_id":"1"}"#), r#"{"app_id":"1"}"#),
            ("config", 0, None, "{}"),
            ("config", 1, None, r#"{"result":1}"#),
            ("storage_config_get", 0, Some("{}"), r#"{"result":0,"output":{}}"#),
            ("storage_config_get", -7, None, r#"{"result":-7}"#),
        ] {
            assert_eq!(compose(method, result, output), want, "{method} {result}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let data = r#"{"app_key":"hush"}"#.to_owned();
        let automatic = Automatic { result: 0, message: None, data: data.clone() };
        assert!(!format!("{automatic:?}").contains("hush"));
        let topic = DownlinkTopic::parse("thing/product/SN1/requests_reply");
        let outgoing =
            topic.map(|topic| format!("{:?}", Outgoing { topic, payload: data.into_bytes() }));
        assert_eq!(outgoing.map(|text| text.contains("payload_bytes: 18")), Ok(true));
    }
}
