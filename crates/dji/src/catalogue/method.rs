//! A method: everything the platform knows of one command.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utmos_core::method::{Channel, CompletesBy, Risk};

use super::{field::Field, gateway::GatewayModel, job::Job, job::text_at};

/// The nine domains of the public platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Domain {
    Device,
    Camera,
    Drc,
    Wayline,
    Psdk,
    Safety,
    Live,
    File,
    Firmware,
}

impl Domain {
    /// The name as it stands in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Camera => "camera",
            Self::Drc => "drc",
            Self::Wayline => "wayline",
            Self::Psdk => "psdk",
            Self::Safety => "safety",
            Self::Live => "live",
            Self::File => "file",
            Self::Firmware => "firmware",
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A method of DJI's, as the catalogue describes it.
#[derive(Debug, Clone)]
pub struct Method {
    /// DJI's name.
    pub name: String,
    /// Domain of the public platform; `None` for DJI's other methods.
    pub domain: Option<Domain>,
    /// What it does, in a few words.
    pub title: String,
    /// More about it, for people.
    pub description: Option<String>,
    /// Why its numbers and classes are what they are.
    pub note: Option<String>,
    /// The way it leaves.
    pub channel: Channel,
    /// What ends it.
    pub completes_by: CompletesBy,
    /// How much harm it can do.
    pub risk: Risk,
    /// Whether it starts a movement of an aircraft, of which only one may run at a time.
    pub starts_motion: bool,
    /// How long an answer is waited for when the caller does not say.
    pub timeout: Duration,
    /// How long a started job may be silent.
    pub silence: Duration,
    /// The command that stops it once it was delivered.
    pub abort: Option<Abort>,
    /// How its progress is reported.
    pub job: Option<Job>,
    /// Where the id of the task stands that the payload names, of a method that is no job itself.
    pub task: Option<String>,
    /// Whether the reply documents an `output.status` that tells of the job.
    pub status_in_reply: bool,
    /// Whether a reply with result 0 and no status is final though the method is a job.
    pub result_zero_without_status_is_final: bool,
    /// Whether a good `output.status` of the reply says something else than that the job is done.
    pub reply_status_is_no_end: bool,
    /// Whether a payload holds exactly one field, and of an object exactly one of its own: what `property/set` takes.
    pub one_field: bool,
    /// Where `seq` stands; only for [`Channel::DrcDown`].
    pub seq: Option<Seq>,
    /// Other spellings that are accepted.
    pub accepts: Vec<Alias>,
    /// Gateways whose pages list it; empty when no page does.
    pub gateways: Vec<GatewayModel>,
    /// Fields of the payload.
    pub payload: Vec<Field>,
    /// Fields of the reply's `data` beside `result` and `output.status`.
    pub reply: Vec<Field>,
    /// A plausible payload, which passes [`Method::check`].
    pub example: Value,
}

/// The command that stops another, and how its payload comes from the other's.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abort {
    /// The method to send.
    pub method: String,
    /// Fields copied: name, and pointer into the other's payload.
    #[serde(default)]
    pub copy: BTreeMap<String, String>,
    /// Fields collected into a list: name, and pointer into the other's payload, where `*` stands for every item.
    #[serde(default)]
    pub collect: BTreeMap<String, String>,
    /// Fields that are always the same.
    #[serde(default)]
    pub constant: Map<String, Value>,
}

/// Where the `seq` of a message on `drc/down` stands.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seq {
    /// Where, unless the gateway is in the table.
    pub placement: Placement,
    /// Where, for gateways that differ.
    #[serde(default)]
    pub by_gateway: BTreeMap<GatewayModel, Placement>,
    /// Pointers into the message on `drc/up` at which the gateway may repeat it; empty when it never does.
    #[serde(default)]
    pub reply: Vec<String>,
}

impl Seq {
    /// Where it stands for a gateway, whose model may be unknown.
    #[must_use]
    pub fn placement(&self, gateway: Option<GatewayModel>) -> Placement {
        gateway.and_then(|model| self.by_gateway.get(&model).copied()).unwrap_or(self.placement)
    }
}

/// Where a `seq` stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// A field of `data`.
    Inside,
    /// Beside `data`.
    Beside,
    /// Nowhere.
    None,
}

/// Another spelling of a top-level field.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    /// What is accepted.
    pub name: String,
    /// Pointer to where it is sent; `None` when it is not sent at all.
    #[serde(default)]
    pub to: Option<String>,
    /// Whether anything but text becomes its compact JSON text.
    #[serde(default)]
    pub as_text: bool,
    /// Where the spelling comes from.
    pub note: String,
}

impl Method {
    /// The job's own id in a payload (`flight_id`, `fly_to_id`, …), where the method has one.
    #[must_use]
    pub fn job_ref(&self, payload: &Value) -> Option<String> {
        let reference = self.job.as_ref().and_then(|job| job.reference.as_ref());
        let place = reference.map(|reference| &reference.payload).or(self.task.as_ref())?;
        text_at(payload, place).filter(|id| !id.is_empty())
    }

    /// A documented, plausible payload.
    #[must_use]
    pub fn example(&self) -> &Value {
        &self.example
    }

    /// The method and the payload that stop a command which was sent with `payload`.
    #[must_use]
    pub fn abort_command(&self, payload: &Value) -> Option<(&str, Value)> {
        let abort = self.abort.as_ref()?;
        let mut body = abort.constant.clone();
        for (name, pointer) in &abort.copy {
            if let Some(value) = payload.pointer(pointer) {
                body.insert(name.clone(), value.clone());
            }
        }
        for (name, pointer) in &abort.collect {
            let mut found = Vec::new();
            collect(payload, pointer, &mut found);
            body.insert(name.clone(), Value::Array(found));
        }
        Some((abort.method.as_str(), Value::Object(body)))
    }
}

/// Gathers what stands at a pointer, each value once.
fn collect(value: &Value, pointer: &str, found: &mut Vec<Value>) {
    let Some((before, after)) = pointer.split_once("/*") else {
        if let Some(value) = value.pointer(pointer)
            && !found.contains(value)
        {
            found.push(value.clone());
        }
        return;
    };
    let items = value.pointer(before).and_then(Value::as_array);
    for item in items.into_iter().flatten() {
        collect(item, after, found);
    }
}
