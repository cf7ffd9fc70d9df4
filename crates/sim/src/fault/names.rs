//! What faults are called in scenarios, and which fields go with each.

use serde_json::{Map, Value, json};

use super::{Fault, Incident, Meets, Rule, Trouble};
use crate::Condition;

/// What every rule may say of the commands it meets.
const RULE_FIELDS: [&str; 4] = ["gateway", "method", "nth", "probability"];
/// What every incident may say of whom it befalls, and when.
const INCIDENT_FIELDS: [&str; 2] = ["gateway", "at_ms"];
/// What every condition may say.
const CONDITION_FIELDS: [&str; 3] = ["gateway", "at_ms", "ms"];

/// What sort of thing a kind is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Something that goes wrong with some commands.
    Rule,
    /// Something that befalls docks at a time.
    Incident,
    /// Something that is true for docks for a while.
    Condition,
}

impl Sort {
    /// Fields of every kind of this sort, beside its own.
    #[must_use]
    pub fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Rule => &RULE_FIELDS,
            Self::Incident => &INCIDENT_FIELDS,
            Self::Condition => &CONDITION_FIELDS,
        }
    }
}

/// A kind of fault, incident or condition, as scenarios name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindName {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub sort: Sort,
    /// Fields that must be given with it.
    pub required: &'static [&'static str],
    /// Fields that may be given with it, beside those of its sort.
    pub optional: &'static [&'static str],
}

type Names = &'static [&'static str];

impl KindName {
    const fn rule(name: &'static str, required: Names, optional: Names) -> Self {
        Self { name, sort: Sort::Rule, required, optional }
    }

    const fn incident(name: &'static str, required: Names, optional: Names) -> Self {
        Self { name, sort: Sort::Incident, required, optional }
    }

    const fn condition(name: &'static str, required: Names, optional: Names) -> Self {
        Self { name, sort: Sort::Condition, required, optional }
    }

    /// Every field that may stand beside `kind`.
    pub(super) fn fields(&self) -> impl Iterator<Item = &'static str> {
        self.required.iter().chain(self.optional).chain(self.sort.fields()).copied()
    }
}

/// Every kind there is.
pub const KINDS: [KindName; 31] = [
    KindName::rule("late", &["ms"], &[]),
    KindName::rule("never", &[], &[]),
    KindName::rule("silent", &[], &[]),
    KindName::rule("duplicate", &[], &[]),
    KindName::rule("wrong_tid", &[], &[]),
    KindName::rule("wrong_bid", &[], &[]),
    KindName::rule("wrong_method", &[], &[]),
    KindName::rule("wrong_gateway", &[], &["sn"]),
    KindName::rule("result", &["code"], &[]),
    KindName::rule("string_numbers", &[], &[]),
    KindName::rule("missing_field", &["field"], &[]),
    KindName::rule("truncated", &[], &[]),
    KindName::rule("binary", &[], &[]),
    KindName::rule("huge", &[], &["bytes"]),
    KindName::rule("progress_out_of_order", &[], &[]),
    KindName::rule("progress_stops", &[], &[]),
    KindName::rule("disconnect", &["ms"], &[]),
    KindName::rule("resend_events", &[], &[]),
    KindName::rule("early", &[], &[]),
    KindName::rule("late_ack", &["ms"], &[]),
    KindName::rule("no_ack", &[], &[]),
    KindName::incident("reconnect_storm", &["ms"], &["times"]),
    KindName::incident("topology_flap", &["ms"], &["times"]),
    KindName::condition("low_battery", &["percent"], &[]),
    KindName::condition("wind", &["speed"], &[]),
    KindName::condition("rain", &[], &["level"]),
    KindName::condition("no_authority", &[], &[]),
    KindName::condition("debug_mode", &[], &[]),
    KindName::condition("aircraft_off", &[], &[]),
    KindName::condition("clock_skew", &["seconds"], &[]),
    KindName::condition("offline", &[], &[]),
];

impl Fault {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Late { .. } => "late",
            Self::Never => "never",
            Self::Silent => "silent",
            Self::Duplicate => "duplicate",
            Self::WrongTid => "wrong_tid",
            Self::WrongBid => "wrong_bid",
            Self::WrongMethod => "wrong_method",
            Self::WrongGateway { .. } => "wrong_gateway",
            Self::Result { .. } => "result",
            Self::StringNumbers => "string_numbers",
            Self::MissingField(_) => "missing_field",
            Self::Truncated => "truncated",
            Self::Binary => "binary",
            Self::Huge { .. } => "huge",
            Self::ProgressOutOfOrder => "progress_out_of_order",
            Self::ProgressStops => "progress_stops",
            Self::Disconnect { .. } => "disconnect",
            Self::ResendEvents => "resend_events",
            Self::Early => "early",
            Self::LateAck { .. } => "late_ack",
            Self::NoAck => "no_ack",
        }
    }

    fn own_fields(&self) -> Vec<(&'static str, Value)> {
        match self {
            Self::Late { ms } | Self::Disconnect { ms } | Self::LateAck { ms } => {
                vec![("ms", json!(ms))]
            }
            Self::WrongGateway { sn } => sn.iter().map(|sn| ("sn", json!(sn))).collect(),
            Self::Result { code } => vec![("code", json!(code))],
            Self::MissingField(field) => vec![("field", json!(field.name()))],
            Self::Huge { bytes } => vec![("bytes", json!(bytes))],
            Self::Never
            | Self::Silent
            | Self::Duplicate
            | Self::WrongTid
            | Self::WrongBid
            | Self::WrongMethod
            | Self::StringNumbers
            | Self::Truncated
            | Self::Binary
            | Self::ProgressOutOfOrder
            | Self::ProgressStops
            | Self::ResendEvents
            | Self::Early
            | Self::NoAck => Vec::new(),
        }
    }
}

impl Rule {
    /// As a scenario says it, without what is not given.
    #[must_use]
    pub fn fields(&self) -> Map<String, Value> {
        let Meets { gateway, method, nth, probability } = &self.meets;
        let meets = [
            ("gateway", gateway.as_ref().map(|sn| json!(sn))),
            ("method", method.as_ref().map(|method| json!(method.as_str()))),
            ("nth", nth.map(|nth| json!(nth))),
            ("probability", probability.map(|share| json!(share))),
        ];
        let meets = meets.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let kind = [("kind", json!(self.fault.name()))];
        named(meets.chain(kind).chain(self.fault.own_fields()))
    }
}

impl Incident {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match &self.trouble {
            Trouble::ReconnectStorm { .. } => "reconnect_storm",
            Trouble::TopologyFlap { .. } => "topology_flap",
            Trouble::Condition { condition, .. } => condition.name(),
        }
    }

    /// As a scenario says it, without what is not given.
    #[must_use]
    pub fn fields(&self) -> Map<String, Value> {
        let own = match self.trouble {
            Trouble::ReconnectStorm { ms, times } | Trouble::TopologyFlap { ms, times } => {
                vec![("ms", json!(ms)), ("times", json!(times))]
            }
            Trouble::Condition { condition, ms } => {
                let mut own: Vec<_> = ms.iter().map(|ms| ("ms", json!(ms))).collect();
                own.extend(match condition {
                    Condition::LowBattery { percent } => Some(("percent", json!(percent))),
                    Condition::Wind { speed } => Some(("speed", json!(speed))),
                    Condition::Rain { level } => Some(("level", json!(level))),
                    Condition::ClockSkew { seconds } => Some(("seconds", json!(seconds))),
                    Condition::NoAuthority
                    | Condition::DebugMode
                    | Condition::AircraftOff
                    | Condition::Offline => None,
                });
                own
            }
        };
        let gateway = self.gateway.as_ref().map(|sn| ("gateway", json!(sn)));
        let at = [("kind", json!(self.name())), ("at_ms", json!(self.at_ms))];
        named(gateway.into_iter().chain(at).chain(own))
    }
}

fn named(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
