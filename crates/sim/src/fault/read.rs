//! One entry of a scenario, from whichever source: names and values in, a rule or an incident out, or all that is wrong.

use std::{fmt, ops::RangeInclusive};

use utmos_core::nearest;

use super::{
    AnswerField, Fault, FaultPlan, Glob, Incident, Meets, Rule, Trouble,
    codes::CODES,
    names::{KINDS, KindName, Sort},
    plan::HUGE_BYTES,
};
use crate::Condition;

/// An hour: longer than any deadline of a command.
const MS_MAX: u64 = 3_600_000;
/// A day.
const AT_MS_MAX: u64 = 86_400_000;
/// A year, either way.
const SKEW_SECONDS: RangeInclusive<i64> = -31_536_000..=31_536_000;
/// Beyond it a broker's own limits speak.
const BYTES: RangeInclusive<u64> = 1..=16 * 1024 * 1024;
const TIMES: RangeInclusive<u64> = 1..=10_000;
/// m/s; no weather station tells of more.
const WIND: RangeInclusive<f64> = 0.0..=60.0;
/// DJI's `rainfall`, without "no rain".
const RAIN: RangeInclusive<u64> = 1..=3;
const HEAVY_RAIN: u8 = 3;

/// One thing that is wrong: where, which field, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    line: Option<usize>,
    field: Option<String>,
    problem: String,
}

impl Problem {
    pub(crate) fn new(line: Option<usize>, field: Option<&str>, problem: String) -> Self {
        Self { line, field: field.map(str::to_owned), problem }
    }

    /// The line of the file, from 1; nothing where there is no file.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// The field.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// What is wrong with it.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for Problem {
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

impl std::error::Error for Problem {}

/// Everything that is wrong with a scenario or an entry, in its order. Shown, it is a line for each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Each of them.
    #[must_use]
    pub fn all(&self) -> &[Problem] {
        &self.0
    }

    pub(crate) fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Keeps what is wrong, and gives back what is right.
    pub(crate) fn take<T>(&mut self, read: Result<T, Problem>) -> Option<T> {
        read.map_err(|problem| self.push(problem)).ok()
    }

    /// Refuses if anything is wrong.
    pub(crate) fn or<T>(mut self, whole: T) -> Result<T, Self> {
        if self.0.is_empty() {
            return Ok(whole);
        }
        self.0.sort_by_key(|problem| problem.line);
        Err(self)
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().enumerate() {
            if 0 < number {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

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
    pub fn wrong(&self, must: impl fmt::Display) -> Problem {
        let problem = format!("must be {must}, not {}", self.value);
        Problem::new(self.line, Some(&self.name), problem)
    }

    pub fn text(&self) -> Result<&str, Problem> {
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

    pub fn whole(&self, range: RangeInclusive<u64>) -> Result<u64, Problem> {
        let number = self.digits().and_then(|text| text.parse().ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            self.wrong(format_args!("a whole number from {} to {}", range.start(), range.end()))
        })
    }

    fn signed(&self, range: RangeInclusive<i64>) -> Result<i64, Problem> {
        let number = self.digits().and_then(|text| text.parse().ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            self.wrong(format_args!("a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// A number within a range.
    pub fn number(&self, range: RangeInclusive<f64>) -> Result<f64, Problem> {
        let number = self.digits().and_then(|text| text.parse().ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            self.wrong(format_args!("a number from {} to {}", range.start(), range.end()))
        })
    }

    /// One of these names, or what it was perhaps meant to be.
    fn one_of<T: Copy>(&self, what: &str, known: &[(&str, T)]) -> Result<T, Problem> {
        let text = self.text()?;
        if let Some((_, value)) = known.iter().find(|(name, _)| *name == text) {
            return Ok(*value);
        }
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let problem = unknown(what, text, &names);
        Err(Problem::new(self.line, Some(&self.name), problem))
    }

    /// A refusal, by number or by name.
    fn code(&self) -> Result<i64, Problem> {
        match self.digits().and_then(|text| text.parse().ok()) {
            Some(0) => Err(self.wrong("a refusal, which 0 is none of")),
            Some(code) => Ok(code),
            None => self.one_of("refusal", &CODES),
        }
    }
}

/// Says that a name is not known, what it may have been meant to be, and what there is.
pub(crate) fn unknown(what: &str, given: &str, known: &[&str]) -> String {
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
    pub fn get(&self, name: &str) -> Option<&Given> {
        self.given.iter().find(|given| given.name == name)
    }

    fn kind(&self, known: &[(&str, &'static KindName)]) -> Result<&'static KindName, Problem> {
        let Some(given) = self.get("kind") else {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            let problem = format!("must be given: one of {}", names.join(", "));
            return Err(Problem::new(self.line, Some("kind"), problem));
        };
        // A kind that stands under the wrong heading is no slip of the finger.
        let elsewhere = KINDS.iter().find(|kind| given.text().is_ok_and(|text| text == kind.name));
        if let Some(kind) = elsewhere
            && !known.iter().any(|(name, _)| *name == kind.name)
        {
            let (what, other) = match kind.sort {
                Sort::Condition => ("condition", "fault"),
                Sort::Rule | Sort::Incident => ("fault", "condition"),
            };
            let problem = format!("{} is a {what}, not a {other}", kind.name);
            return Err(Problem::new(given.line, Some("kind"), problem));
        }
        given.one_of("kind", known)
    }

    /// Refuses fields that stand there more than once. A file of TOML has none.
    fn each_once(&self) -> Result<(), Problems> {
        let mut problems = Problems::default();
        for (number, given) in self.given.iter().enumerate() {
            let mut before = self.given.iter().take(number);
            if before.any(|known| known.name == given.name) {
                let problem = "stands there twice; keep one of them".to_owned();
                problems.push(Problem::new(given.line, Some(&given.name), problem));
            }
        }
        problems.or(())
    }

    /// Names every field that is not one of these.
    pub fn only(&self, what: &str, known: &[&str], problems: &mut Problems) {
        for given in self.given.iter().filter(|given| !known.contains(&given.name.as_str())) {
            let problem = unknown(what, &given.name, known);
            problems.push(Problem::new(given.line, Some(&given.name), problem));
        }
    }
}

/// What an entry of a plan says.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// Something goes wrong with some commands.
    Rule(Rule),
    /// Something befalls docks.
    Incident(Incident),
}

impl FaultPlan {
    /// Adds it to what is there.
    pub fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Rule(rule) => self.rules.push(rule),
            Entry::Incident(incident) => self.incidents.push(incident),
        }
    }
}

/// Under which heading an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heading {
    /// Faults of commands, and incidents.
    Fault,
    /// Conditions.
    Condition,
    /// Either.
    Any,
}

impl Heading {
    fn holds(self, sort: Sort) -> bool {
        match (self, sort) {
            (Self::Any, _) | (Self::Condition, Sort::Condition) => true,
            (Self::Fault, Sort::Rule | Sort::Incident) => true,
            (Self::Fault, Sort::Condition) | (Self::Condition, Sort::Rule | Sort::Incident) => {
                false
            }
        }
    }
}

/// Reads an entry.
pub fn entry(fields: &Fields, heading: Heading) -> Result<Entry, Problems> {
    // Which of two is meant nobody knows, and what is wrong with one of them may be right with the other.
    fields.each_once()?;
    let known: Vec<(&str, &'static KindName)> = KINDS
        .iter()
        .filter(|kind| heading.holds(kind.sort))
        .map(|kind| (kind.name, kind))
        .collect();
    let kind = fields.kind(&known)?;
    let mut reader = Reader { fields, problems: Problems::default() };
    let names: Vec<&str> = ["kind"].into_iter().chain(kind.fields()).collect();
    fields.only(&format!("field of {}", kind.name), &names, &mut reader.problems);
    for name in kind.required.iter().filter(|name| fields.get(name).is_none()) {
        let problem = format!("must be given with kind {}", kind.name);
        reader.problems.push(Problem::new(fields.line, Some(name), problem));
    }
    let entry = match kind.sort {
        Sort::Rule => reader.rule(kind).map(Entry::Rule),
        Sort::Incident | Sort::Condition => reader.incident(kind).map(Entry::Incident),
    };
    match entry {
        Some(entry) => reader.problems.or(entry),
        None => {
            let problem = format!("{} cannot be read here", kind.name);
            reader.problems.push(Problem::new(fields.line, Some("kind"), problem));
            Err(reader.problems)
        }
    }
}

/// Takes fields one after another and keeps what is wrong with them. What is missing was told before.
struct Reader<'a> {
    fields: &'a Fields,
    problems: Problems,
}

impl Reader<'_> {
    fn value<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Given) -> Result<T, Problem>,
    ) -> Option<T> {
        let given = self.fields.get(name)?;
        self.problems.take(read(given))
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.value(name, |given| given.text().map(str::to_owned))
    }

    fn whole(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.value(name, |given| given.whole(range))
    }

    fn ms(&mut self) -> u64 {
        self.whole("ms", 0..=MS_MAX).unwrap_or_default()
    }

    fn incident(&mut self, kind: &KindName) -> Option<Incident> {
        let trouble = match kind.name {
            "reconnect_storm" => Trouble::ReconnectStorm { ms: self.ms(), times: self.times() },
            "topology_flap" => Trouble::TopologyFlap { ms: self.ms(), times: self.times() },
            name => {
                let condition = self.condition(name)?;
                Trouble::Condition { condition, ms: self.whole("ms", 1..=AT_MS_MAX) }
            }
        };
        Some(Incident {
            at_ms: self.whole("at_ms", 0..=AT_MS_MAX).unwrap_or_default(),
            gateway: self.text("gateway"),
            trouble,
        })
    }

    fn times(&mut self) -> u64 {
        self.whole("times", TIMES).unwrap_or(1)
    }

    fn condition(&mut self, name: &str) -> Option<Condition> {
        let small = |number: Option<u64>| number.and_then(|number| u8::try_from(number).ok());
        Some(match name {
            "low_battery" => Condition::LowBattery {
                percent: small(self.whole("percent", 0..=100)).unwrap_or(0),
            },
            "wind" => {
                let speed = self.value("speed", |given| given.number(WIND));
                Condition::Wind { speed: speed.unwrap_or_default() }
            }
            "rain" => {
                Condition::Rain { level: small(self.whole("level", RAIN)).unwrap_or(HEAVY_RAIN) }
            }
            "no_authority" => Condition::NoAuthority,
            "debug_mode" => Condition::DebugMode,
            "aircraft_off" => Condition::AircraftOff,
            "clock_skew" => {
                let seconds = self.value("seconds", |given| given.signed(SKEW_SECONDS));
                Condition::ClockSkew { seconds: seconds.unwrap_or_default() }
            }
            "offline" => Condition::Offline,
            _ => return None,
        })
    }

    fn rule(&mut self, kind: &KindName) -> Option<Rule> {
        let meets = Meets {
            gateway: self.text("gateway"),
            method: self.text("method").map(Glob::new),
            nth: self.whole("nth", 1..=u64::MAX),
            probability: self.value("probability", |given| given.number(0.0..=1.0)),
        };
        Some(Rule { meets, fault: self.fault(kind)? })
    }

    fn fault(&mut self, kind: &KindName) -> Option<Fault> {
        Some(match kind.name {
            "late" => Fault::Late { ms: self.ms() },
            "never" => Fault::Never,
            "silent" => Fault::Silent,
            "duplicate" => Fault::Duplicate,
            "wrong_tid" => Fault::WrongTid,
            "wrong_bid" => Fault::WrongBid,
            "wrong_method" => Fault::WrongMethod,
            "wrong_gateway" => Fault::WrongGateway { sn: self.value("sn", serial) },
            "result" => Fault::Result { code: self.value("code", Given::code).unwrap_or_default() },
            "string_numbers" => Fault::StringNumbers,
            "missing_field" => {
                let known = AnswerField::ALL.map(|field| (field.name(), field));
                let field = self.value("field", |given| given.one_of("field", &known));
                Fault::MissingField(field.unwrap_or(AnswerField::Result))
            }
            "truncated" => Fault::Truncated,
            "binary" => Fault::Binary,
            "huge" => {
                let bytes = self.whole("bytes", BYTES).and_then(|bytes| bytes.try_into().ok());
                Fault::Huge { bytes: bytes.unwrap_or(HUGE_BYTES) }
            }
            "progress_out_of_order" => Fault::ProgressOutOfOrder,
            "progress_stops" => Fault::ProgressStops,
            "disconnect" => Fault::Disconnect { ms: self.ms() },
            "resend_events" => Fault::ResendEvents,
            "early" => Fault::Early,
            "late_ack" => Fault::LateAck { ms: self.ms() },
            "no_ack" => Fault::NoAck,
            _ => return None,
        })
    }
}

/// A serial number, which goes into a topic.
pub fn serial(given: &Given) -> Result<String, Problem> {
    let text = given.text()?;
    match utmos_core::id::GatewaySn::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(err) => {
            let problem = format!("must be a serial number: {err}");
            Err(Problem::new(given.line, Some(&given.name), problem))
        }
    }
}
