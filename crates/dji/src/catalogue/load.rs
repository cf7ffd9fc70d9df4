//! Reads the data of a catalogue, key by key, so that every error can name the key.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use utmos_core::{
    method::{Channel, CompletesBy},
    nearest,
};

use super::{error::CatalogueError, field::Field, job::JobEvent, method::Method};

const TIMEOUT_SECONDS: u64 = 30;
const TIMEOUT_SECONDS_MAX: u64 = 300;
const SILENCE_SECONDS: u64 = 60;
const SILENCE_SECONDS_MAX: u64 = 86_400;

const KEYS: [&str; 23] = [
    "abort",
    "accepts",
    "channel",
    "completes_by",
    "description",
    "domain",
    "example",
    "gateways",
    "job",
    "note",
    "one_field",
    "payload",
    "reply",
    "reply_status_is_no_end",
    "result_zero_without_status_is_final",
    "risk",
    "seq",
    "silence_seconds",
    "starts_motion",
    "status_in_reply",
    "task",
    "timeout_seconds",
    "title",
];

/// Meaning and remedy of a result code.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Code {
    pub meaning: String,
    #[serde(default)]
    pub remedy: Option<String>,
}

type Codes = BTreeMap<i64, Code>;
type RawMethods = BTreeMap<String, Map<String, Value>>;

/// Reads the file of error codes: all codes, and the tails that livestream codes share.
pub(super) fn codes(json: &str) -> Result<(Codes, Codes), CatalogueError> {
    let mut top = top_of("file of error codes", json)?;
    let mut all = Codes::new();
    add_codes(&mut all, take_object(&mut top, "codes")?)?;
    let mut live = Codes::new();
    add_codes(&mut live, take_object(&mut top, "live_codes_mod_100000")?)?;
    Ok((all, live))
}

/// Lays the text over the raw data.
pub(super) fn merge(
    jobs: &mut Map<String, Value>,
    methods: &mut RawMethods,
    all: &mut Codes,
    json: &str,
) -> Result<(), CatalogueError> {
    let mut top = top_of("catalogue", json)?;
    jobs.extend(take_object(&mut top, "jobs")?);
    for (name, changes) in take_object(&mut top, "methods")? {
        let Value::Object(changes) = changes else {
            return Err(CatalogueError::NotAnObject(format!("method {name:?}")));
        };
        let method = methods.entry(name).or_default();
        for (key, value) in changes {
            match value {
                Value::Null => method.remove(&key),
                value @ (Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_)
                | Value::Object(_)) => method.insert(key, value),
            };
        }
    }
    add_codes(all, take_object(&mut top, "codes")?)?;
    match top.into_iter().next() {
        Some((key, _)) => Err(CatalogueError::UnknownTop(key)),
        None => Ok(()),
    }
}

/// Makes the methods of the raw data.
pub(super) fn methods(
    jobs: &Map<String, Value>,
    raw: &RawMethods,
) -> Result<BTreeMap<String, Method>, CatalogueError> {
    let mut methods = BTreeMap::new();
    for (name, keys) in raw {
        methods.insert(name.clone(), Reader { method: name, keys: keys.clone() }.method(jobs)?);
    }
    for method in methods.values() {
        let aborted_by = method.abort.as_ref().map(|abort| abort.method.as_str());
        if let Some(stranger) = aborted_by.filter(|name| !methods.contains_key(*name)) {
            return Err(bad(&method.name, "abort", format!("there is no method {stranger:?}")));
        }
    }
    Ok(methods)
}

/// Which commands each event can belong to.
pub(super) fn events(methods: &BTreeMap<String, Method>) -> BTreeMap<String, Vec<JobEvent>> {
    let mut events: BTreeMap<String, Vec<JobEvent>> = BTreeMap::new();
    for method in methods.values() {
        let Some(job) = &method.job else { continue };
        for event in &job.events {
            let entry = JobEvent { command_method: method.name.clone(), job: job.clone() };
            events.entry(event.clone()).or_default().push(entry);
        }
    }
    events
}

fn top_of(file: &'static str, json: &str) -> Result<Map<String, Value>, CatalogueError> {
    let value: Value =
        serde_json::from_str(json).map_err(|source| CatalogueError::Json { file, source })?;
    object(value, || format!("the {file}"))
}

fn take_object(
    top: &mut Map<String, Value>,
    key: &str,
) -> Result<Map<String, Value>, CatalogueError> {
    top.remove(key).map_or_else(|| Ok(Map::new()), |value| object(value, || format!("{key:?}")))
}

fn object(value: Value, what: impl Fn() -> String) -> Result<Map<String, Value>, CatalogueError> {
    match value {
        Value::Object(map) => Ok(map),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(CatalogueError::NotAnObject(what()))
        }
    }
}

fn add_codes(codes: &mut Codes, raw: Map<String, Value>) -> Result<(), CatalogueError> {
    for (code, entry) in raw {
        let fault = |problem: String| CatalogueError::BadCode { code: code.clone(), problem };
        let number = code.parse().map_err(|_| fault("must be a whole number".to_owned()))?;
        let entry = serde_json::from_value(entry).map_err(|err| fault(err.to_string()))?;
        codes.insert(number, entry);
    }
    Ok(())
}

fn bad(method: &str, key: &str, problem: impl Into<String>) -> CatalogueError {
    CatalogueError::BadKey {
        method: method.to_owned(),
        key: key.to_owned(),
        problem: problem.into(),
    }
}

/// Takes the keys of one method, one after the other.
struct Reader<'a> {
    method: &'a str,
    keys: Map<String, Value>,
}

impl Reader<'_> {
    fn method(mut self, jobs: &Map<String, Value>) -> Result<Method, CatalogueError> {
        self.lay_job_on_its_base(jobs)?;
        let method = Method {
            name: self.method.to_owned(),
            domain: self.take("domain")?,
            title: self.must("title")?,
            description: self.take("description")?,
            note: self.take("note")?,
            channel: self.must("channel")?,
            completes_by: self.must("completes_by")?,
            risk: self.must("risk")?,
            starts_motion: self.or_default("starts_motion")?,
            timeout: self.seconds("timeout_seconds", TIMEOUT_SECONDS, TIMEOUT_SECONDS_MAX)?,
            silence: self.seconds("silence_seconds", SILENCE_SECONDS, SILENCE_SECONDS_MAX)?,
            abort: self.take("abort")?,
            job: self.take("job")?,
            task: self.take("task")?,
            status_in_reply: self.or_default("status_in_reply")?,
            result_zero_without_status_is_final: self
                .or_default("result_zero_without_status_is_final")?,
            reply_status_is_no_end: self.or_default("reply_status_is_no_end")?,
            one_field: self.or_default("one_field")?,
            seq: self.take("seq")?,
            accepts: self.or_default("accepts")?,
            gateways: self.or_default("gateways")?,
            payload: self.fields("payload")?,
            reply: self.fields("reply")?,
            example: self.must("example")?,
        };
        if let Some((key, _)) = self.keys.iter().next() {
            let hint =
                nearest(key, KEYS.into_iter()).map(|known| format!(", perhaps {known:?} is meant"));
            return Err(CatalogueError::UnknownKey {
                method: self.method.to_owned(),
                key: key.clone(),
                hint: hint.unwrap_or_default(),
            });
        }
        self.examine(&method)?;
        Ok(method)
    }

    fn lay_job_on_its_base(&mut self, jobs: &Map<String, Value>) -> Result<(), CatalogueError> {
        let Some(Value::Object(job)) = self.keys.get_mut("job") else { return Ok(()) };
        let Some(base) = job.remove("base") else { return Ok(()) };
        let known = base.as_str().and_then(|name| jobs.get(name)).and_then(Value::as_object);
        let Some(known) = known else {
            return Err(bad(self.method, "job", format!("there is no job {base} to build on")));
        };
        for (key, value) in known {
            job.entry(key.clone()).or_insert_with(|| value.clone());
        }
        Ok(())
    }

    /// What the keys must be to each other.
    fn examine(&self, method: &Method) -> Result<(), CatalogueError> {
        let is_job = matches!(method.completes_by, CompletesBy::Job | CompletesBy::ReplyOrJob);
        if is_job != method.job.is_some() {
            return Err(bad(
                self.method,
                "job",
                "a method has a job exactly when it completes by one",
            ));
        }
        if (method.channel == Channel::DrcDown) != method.seq.is_some() {
            return Err(bad(
                self.method,
                "seq",
                "a method has a seq exactly when it leaves on drc_down",
            ));
        }
        let answers_on_drc = matches!(method.completes_by, CompletesBy::DrcAck);
        if answers_on_drc && method.channel != Channel::DrcDown {
            return Err(bad(self.method, "completes_by", "drc_ack needs the channel drc_down"));
        }
        if let Some(alias) = method.accepts.iter().find(|alias| has_field(method, &alias.name)) {
            return Err(bad(
                self.method,
                "accepts",
                format!("{:?} is a field already", alias.name),
            ));
        }
        if let Err(flaws) = method.check(&method.example) {
            let flaws: Vec<String> = flaws.iter().map(ToString::to_string).collect();
            return Err(bad(self.method, "example", flaws.join("; ")));
        }
        Ok(())
    }

    fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, CatalogueError> {
        let read = |value| {
            serde_json::from_value(value).map_err(|err| bad(self.method, key, err.to_string()))
        };
        self.keys.remove(key).map(read).transpose()
    }

    fn must<T: DeserializeOwned>(&mut self, key: &'static str) -> Result<T, CatalogueError> {
        self.take(key)?
            .ok_or_else(|| CatalogueError::Missing { method: self.method.to_owned(), key })
    }

    fn or_default<T: DeserializeOwned + Default>(
        &mut self,
        key: &str,
    ) -> Result<T, CatalogueError> {
        Ok(self.take(key)?.unwrap_or_default())
    }

    fn seconds(&mut self, key: &str, default: u64, max: u64) -> Result<Duration, CatalogueError> {
        let seconds = self.take(key)?.unwrap_or(default);
        if !(1..=max).contains(&seconds) {
            return Err(bad(
                self.method,
                key,
                format!("must be between 1 and {max}, got {seconds}"),
            ));
        }
        Ok(Duration::from_secs(seconds))
    }

    fn fields(&mut self, key: &str) -> Result<Vec<Field>, CatalogueError> {
        let fields: Vec<Field> = self.or_default(key)?;
        if fields.iter().any(|field| field.name.is_empty()) {
            return Err(bad(self.method, key, "has a field without a name"));
        }
        match fields.iter().find_map(Field::fault) {
            Some(fault) => Err(bad(self.method, key, fault)),
            None => Ok(fields),
        }
    }
}

fn has_field(method: &Method, name: &str) -> bool {
    method.payload.iter().any(|field| field.name == name)
}
