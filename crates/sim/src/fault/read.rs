//! One entry of a plan, from whichever source: names and values in, a rule or an incident out.

use std::{fmt, ops::RangeInclusive};

use utmos_core::nearest;

use super::{
    AnswerField, Fault, FaultPlan, Glob, Incident, Meets, Rule, Trouble,
    codes::CODES,
    names::{KINDS, KindName},
    plan::HUGE_BYTES,
};

/// An hour: longer than any deadline of a command.
const MS_MAX: u64 = 3_600_000;
/// A day.
const AT_MS_MAX: u64 = 86_400_000;
/// A year, either way.
const SKEW_SECONDS: RangeInclusive<i64> = -31_536_000..=31_536_000;
/// Beyond it a broker's own limits speak.
const BYTES: RangeInclusive<u64> = 1..=16 * 1024 * 1024;
const TIMES: RangeInclusive<u64> = 1..=10_000;

/// What is wrong with a plan: where, which field, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PlanError {
    line: Option<usize>,
    field: Option<String>,
    problem: String,
}

impl PlanError {
    pub(super) fn new(line: Option<usize>, field: Option<&str>, problem: String) -> Self {
        Self { line, field: field.map(str::to_owned), problem }
    }

    /// The line of the file, from 1; nothing for a flag.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// The field.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        write!(f, "{}", self.problem)
    }
}

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// A text in quotes.
    Text(String),
    /// A number.
    Number(String),
    /// What stands in a flag, where a number looks like a text.
    Word(String),
    /// Something no field takes; its name, for the message.
    Other(&'static str),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Number(text) | Self::Word(text) => write!(f, "{text}"),
            Self::Other(what) => write!(f, "this {what}"),
        }
    }
}

/// A field of an entry.
#[derive(Debug)]
pub struct Given {
    pub name: String,
    pub value: Scalar,
    pub line: Option<usize>,
}

impl Given {
    fn wrong(&self, must: impl fmt::Display) -> PlanError {
        let problem = format!("must be {must}, not {}", self.value);
        PlanError::new(self.line, Some(&self.name), problem)
    }

    fn text(&self) -> Result<&str, PlanError> {
        match &self.value {
            Scalar::Text(text) | Scalar::Word(text) if !text.is_empty() => Ok(text),
            Scalar::Text(_) | Scalar::Word(_) | Scalar::Number(_) | Scalar::Other(_) => {
                Err(self.wrong("a text"))
            }
        }
    }

    fn digits(&self) -> Option<&str> {
        match &self.value {
            Scalar::Number(text) | Scalar::Word(text) => Some(text),
            Scalar::Text(_) | Scalar::Other(_) => None,
        }
    }

    pub fn whole(&self, range: RangeInclusive<u64>) -> Result<u64, PlanError> {
        let number = self.digits().and_then(|text| text.parse().ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            self.wrong(format_args!("a whole number from {} to {}", range.start(), range.end()))
        })
    }

    fn signed(&self, range: RangeInclusive<i64>) -> Result<i64, PlanError> {
        let number = self.digits().and_then(|text| text.parse().ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            self.wrong(format_args!("a whole number from {} to {}", range.start(), range.end()))
        })
    }

    fn share(&self) -> Result<f64, PlanError> {
        let number = self.digits().and_then(|text| text.parse().ok());
        number
            .filter(|share| (0.0..=1.0).contains(share))
            .ok_or_else(|| self.wrong("a number from 0 to 1"))
    }

    /// One of these names, or what it was perhaps meant to be.
    fn one_of<T: Copy>(&self, what: &str, known: &[(&str, T)]) -> Result<T, PlanError> {
        let text = self.text()?;
        if let Some((_, value)) = known.iter().find(|(name, _)| *name == text) {
            return Ok(*value);
        }
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let problem = unknown(what, text, &names);
        Err(PlanError::new(self.line, Some(&self.name), problem))
    }

    /// A refusal, by number or by name.
    fn code(&self) -> Result<i64, PlanError> {
        match self.digits().and_then(|text| text.parse().ok()) {
            Some(0) => Err(self.wrong("a refusal, which 0 is none of")),
            Some(code) => Ok(code),
            None => self.one_of("refusal", &CODES),
        }
    }
}

/// Says that a name is not known, what it may have been meant to be, and what there is.
pub(super) fn unknown(what: &str, given: &str, known: &[&str]) -> String {
    let meant = nearest(given, known.iter().copied())
        .map_or_else(String::new, |name| format!("; did you mean {name}?"));
    let end = if meant.is_empty() { "; " } else { " " };
    format!("there is no {what} {given:?}{meant}{end}known are {}", known.join(", "))
}

/// An entry as it was written.
#[derive(Debug)]
pub struct Fields {
    /// Where it begins.
    pub line: Option<usize>,
    pub given: Vec<Given>,
}

impl Fields {
    fn get(&self, name: &str) -> Option<&Given> {
        self.given.iter().find(|given| given.name == name)
    }

    fn need(&self, kind: &str, name: &str) -> Result<&Given, PlanError> {
        self.get(name).ok_or_else(|| {
            PlanError::new(self.line, Some(name), format!("must be given with kind {kind}"))
        })
    }

    fn kind(&self) -> Result<&'static KindName, PlanError> {
        let known: Vec<_> = KINDS.iter().map(|kind| (kind.name, kind)).collect();
        match self.get("kind") {
            Some(given) => given.one_of("kind", &known),
            None => {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                let problem = format!("must be given: one of {}", names.join(", "));
                Err(PlanError::new(self.line, Some("kind"), problem))
            }
        }
    }
}

/// What an entry of a plan says.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    Rule(Rule),
    Incident(Incident),
}

impl FaultPlan {
    pub(super) fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Rule(rule) => self.rules.push(rule),
            Entry::Incident(incident) => self.incidents.push(incident),
        }
    }
}

/// Reads an entry.
pub fn entry(fields: &Fields) -> Result<Entry, PlanError> {
    let kind = fields.kind()?;
    for given in &fields.given {
        let known: Vec<&str> = ["kind"].into_iter().chain(kind.fields()).collect();
        if !known.contains(&given.name.as_str()) {
            let problem = unknown(&format!("field of {}", kind.name), &given.name, &known);
            return Err(PlanError::new(given.line, Some(&given.name), problem));
        }
    }
    for name in kind.required {
        fields.need(kind.name, name)?;
    }
    let ms = || fields.need(kind.name, "ms")?.whole(0..=MS_MAX);
    if kind.is_incident {
        let at_ms = fields.need(kind.name, "at_ms")?.whole(0..=AT_MS_MAX)?;
        let trouble = match kind.name {
            "reconnect_storm" => Trouble::ReconnectStorm { ms: ms()? },
            "topology_flap" => {
                let times = fields.get("times").map(|given| given.whole(TIMES)).transpose()?;
                Trouble::TopologyFlap { ms: ms()?, times: times.unwrap_or(1) }
            }
            _ => Trouble::ClockSkew {
                seconds: fields.need(kind.name, "seconds")?.signed(SKEW_SECONDS)?,
            },
        };
        return Ok(Entry::Incident(Incident { at_ms, trouble }));
    }
    Ok(Entry::Rule(Rule { meets: meets(fields)?, fault: fault(kind, fields, ms)? }))
}

fn meets(fields: &Fields) -> Result<Meets, PlanError> {
    let text = |name| fields.get(name).map(Given::text).transpose();
    Ok(Meets {
        gateway: text("gateway")?.map(str::to_owned),
        method: text("method")?.map(Glob::new),
        nth: fields.get("nth").map(|given| given.whole(1..=u64::MAX)).transpose()?,
        probability: fields.get("probability").map(Given::share).transpose()?,
    })
}

fn fault(
    kind: &KindName,
    fields: &Fields,
    ms: impl Fn() -> Result<u64, PlanError>,
) -> Result<Fault, PlanError> {
    Ok(match kind.name {
        "late" => Fault::Late { ms: ms()? },
        "never" => Fault::Never,
        "silent" => Fault::Silent,
        "duplicate" => Fault::Duplicate,
        "wrong_tid" => Fault::WrongTid,
        "wrong_bid" => Fault::WrongBid,
        "wrong_method" => Fault::WrongMethod,
        "wrong_gateway" => Fault::WrongGateway { sn: fields.get("sn").map(serial).transpose()? },
        "result" => Fault::Result { code: fields.need(kind.name, "code")?.code()? },
        "string_numbers" => Fault::StringNumbers,
        "missing_field" => {
            let known = AnswerField::ALL.map(|field| (field.name(), field));
            Fault::MissingField(fields.need(kind.name, "field")?.one_of("field", &known)?)
        }
        "truncated" => Fault::Truncated,
        "binary" => Fault::Binary,
        "huge" => {
            let bytes = fields.get("bytes").map(|given| given.whole(BYTES)).transpose()?;
            let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
            Fault::Huge { bytes: bytes.unwrap_or(HUGE_BYTES) }
        }
        "progress_out_of_order" => Fault::ProgressOutOfOrder,
        "progress_stops" => Fault::ProgressStops,
        "disconnect" => Fault::Disconnect { ms: ms()? },
        "resend_events" => Fault::ResendEvents,
        name => {
            let problem = format!("{name} is not a fault of a command");
            return Err(PlanError::new(fields.line, Some("kind"), problem));
        }
    })
}

/// A serial number, which goes into a topic.
fn serial(given: &Given) -> Result<String, PlanError> {
    let text = given.text()?;
    match utmos_core::id::GatewaySn::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(err) => {
            let problem = format!("must be a serial number: {err}");
            Err(PlanError::new(given.line, Some(&given.name), problem))
        }
    }
}
