//! Jobs: which events report them, where the state stands in them and which words end them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use utmos_core::reply::JobState;

use super::gateway::GatewayModel;

/// How the progress of a method is reported. Pointers are JSON pointers into the `data` of the event.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Methods of the events that report it.
    pub events: Vec<String>,
    /// Where the state word stands.
    pub status: String,
    /// Where the percentage stands, if anywhere.
    #[serde(default)]
    pub percent: Option<String>,
    /// Where the step stands, if anywhere: a key or a number.
    #[serde(default)]
    pub step: Option<String>,
    /// Where the job's own id stands, if it has one.
    #[serde(default)]
    pub reference: Option<Reference>,
    /// Words that say it ended well.
    pub good: Vec<String>,
    /// Words that say it ended badly.
    pub bad: Vec<String>,
    /// Words that say it is paused, which is no end.
    #[serde(default)]
    pub paused: Vec<String>,
    /// Meanings of the steps that are the same for every gateway.
    #[serde(default)]
    pub steps: BTreeMap<String, String>,
    /// Meanings of the steps that every gateway numbers differently.
    #[serde(default)]
    pub steps_by_gateway: BTreeMap<GatewayModel, BTreeMap<String, String>>,
}

/// Where a job's own id stands.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// In the payload of the command.
    pub payload: String,
    /// In the `data` of the event.
    pub event: String,
}

/// A command method that an event can belong to.
#[derive(Debug, Clone)]
pub struct JobEvent {
    /// The method of the command.
    pub command_method: String,
    /// How its events read.
    pub job: Job,
}

impl Job {
    /// Where a job stands whose event says `word`. Unknown words are no end.
    #[must_use]
    pub fn state(&self, word: &str) -> JobState {
        let among = |words: &[String]| words.iter().any(|known| known == word);
        if among(&self.good) {
            return JobState::Succeeded;
        }
        if among(&self.bad) {
            return JobState::Failed;
        }
        if among(&self.paused) { JobState::Paused } else { JobState::Open }
    }

    /// The meaning of a step. Where gateways number differently, nothing is claimed of an unknown one.
    #[must_use]
    pub fn step_meaning(&self, step: &str, gateway: Option<GatewayModel>) -> Option<&str> {
        let own = gateway.and_then(|model| self.steps_by_gateway.get(&model));
        own.and_then(|table| table.get(step)).or_else(|| self.steps.get(step)).map(String::as_str)
    }
}

/// A text or a whole number as text.
pub(super) fn text_at(value: &Value, pointer: &str) -> Option<String> {
    match value.pointer(pointer)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
