//! The body of a command, checked whole: every problem at once.

use std::time::Duration;

use serde_json::{Map, Value};
use utmos_core::{
    device::{NoRoute, Route},
    id::{DeviceSn, TenantId},
    idempotency::fingerprint,
    method::{CompleteOn, IfOffline},
    signing::Caller,
};
use utmos_dji::catalogue::{Catalogue, Method};

use super::{
    json,
    problem::{Code, Detail, Problem, cut},
};
use crate::driver::Draft;

/// Longest idempotency key, in characters.
const KEY_CHARS_MAX: usize = 255;
/// Longest timeout a caller may ask for.
const TIMEOUT_SECONDS_MAX: u64 = 300;
/// Members of the body.
const MEMBERS: [&str; 9] = [
    "vendor",
    "device_id",
    "command_type",
    "payload",
    "idempotency_key",
    "timeout_seconds",
    "if_offline",
    "complete_on",
    "dry_run",
];

/// A body that fits, and where it goes.
pub struct Wanted {
    /// What is to be submitted.
    pub draft: Draft,
    /// Only to be checked.
    pub dry_run: bool,
    /// Of a dry run: the fingerprints of the real request, should it say that it is none.
    pub twins: Vec<[u8; 32]>,
    /// Remarks on the payload, for a dry run.
    pub hints: Vec<String>,
}

/// What a checked body came to.
pub enum Checked {
    /// It fits.
    Fits(Box<Wanted>),
    /// It does not fit as things stand. What it asks for may be on record all the same: whether a device is there, and
    /// which gateway leads to it, changes, and a caller that lost its answer must find its command.
    Refused {
        /// Why.
        problem: Problem,
        /// What to look for first.
        sought: Option<Sought>,
    },
}

/// What a body that does not fit would be on record as, had it been accepted before.
pub struct Sought {
    /// The device it names, which the caller may touch.
    pub device: DeviceSn,
    /// The caller's key.
    pub idempotency_key: String,
    /// Its fingerprint, and for a dry run those of the real request.
    pub fingerprints: Vec<[u8; 32]>,
    /// Only to be checked.
    pub dry_run: bool,
}

/// The way to a device, as the directory knows it.
pub type Routes<'a> = dyn Fn(TenantId, &DeviceSn) -> Result<Route, NoRoute> + 'a;

/// Checks a body for a caller.
pub fn check(
    catalogue: &Catalogue,
    routes: &Routes<'_>,
    caller: &Caller,
    body: &[u8],
) -> Result<Checked, Problem> {
    let value = parse(body)?;
    let Value::Object(members) = &value else {
        return Err(Problem::new(Code::InvalidRequestBody, "the body must be a JSON object"));
    };
    let mut reader = Reader { catalogue, routes, caller, members, details: Vec::new(), code: None };
    let read = reader.read();
    let Some(read) = read.filter(|_| reader.details.is_empty()) else {
        let code = reader.code.unwrap_or(Code::ValidationFailed);
        let problem = Problem { code, ..Problem::invalid(reader.details) };
        return Ok(Checked::Refused { problem, sought: sought(caller, &value) });
    };
    let route = read.route;
    let method = read.method;
    let (own, twins) = fingerprints(&value, read.dry_run);
    let draft = Draft {
        device: read.device,
        gateway: route.gateway,
        aircraft: route.aircraft,
        method: method.name.clone(),
        channel: method.channel,
        completes_by: method.completes_by,
        risk: method.risk,
        starts_motion: method.starts_motion,
        reply_without_status_is_final: method.result_zero_without_status_is_final,
        if_offline: read.if_offline.unwrap_or(method.risk.default_if_offline()),
        complete_on: read.complete_on.unwrap_or(caller.complete_on()),
        job_ref: method.job_ref(&read.payload),
        timeout: read.timeout.unwrap_or(method.timeout),
        silence_wait: method.silence,
        payload: read.payload.to_string().into(),
        idempotency_key: read.idempotency_key,
        fingerprint: own,
    };
    let wanted = Wanted { draft, dry_run: read.dry_run, twins, hints: read.hints };
    Ok(Checked::Fits(Box::new(wanted)))
}

/// The fingerprint of a body, and those that the real request may have which a dry run asks about: it may leave `dry_run`
/// out, or say that it is none. They tell what was asked for, never what would become of it.
fn fingerprints(body: &Value, dry_run: bool) -> ([u8; 32], Vec<[u8; 32]>) {
    if !dry_run {
        return (fingerprint(body, &["idempotency_key"]), Vec::new());
    }
    let spelt_out = |word: Value| {
        let mut body = body.clone();
        if let Value::Object(members) = &mut body {
            members.insert("dry_run".to_owned(), word);
        }
        fingerprint(&body, &["idempotency_key"])
    };
    let twins = vec![spelt_out(Value::Bool(false)), spelt_out(Value::Null)];
    (fingerprint(body, &["idempotency_key", "dry_run"]), twins)
}

/// A device that the caller may not touch reads like one that is not there, and so do its commands.
fn sought(caller: &Caller, body: &Value) -> Option<Sought> {
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let device = text("device_id").and_then(|text| DeviceSn::parse(text).ok());
    let device = device.filter(|device| caller.may_touch(device))?;
    let idempotency_key = text("idempotency_key").filter(|key| is_key(key))?.to_owned();
    let dry_run = body.get("dry_run") == Some(&Value::Bool(true));
    let (own, twins) = fingerprints(body, dry_run);
    let fingerprints = std::iter::once(own).chain(twins).collect();
    Some(Sought { device, idempotency_key, fingerprints, dry_run })
}

fn is_key(text: &str) -> bool {
    (1..=KEY_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

fn parse(body: &[u8]) -> Result<Value, Problem> {
    let refuse = |message: String| Problem::new(Code::InvalidRequestBody, message);
    if body.is_empty() {
        return Err(refuse("the body is empty; send a JSON object".to_owned()));
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        refuse(format!("the body is not UTF-8 from byte {} on", error.valid_up_to()))
    })?;
    json::read(text).map_err(|error| refuse(format!("the body is not JSON: {error}")))
}

struct Read<'a> {
    device: DeviceSn,
    route: Route,
    method: &'a Method,
    payload: Value,
    idempotency_key: String,
    timeout: Option<Duration>,
    if_offline: Option<IfOffline>,
    complete_on: Option<CompleteOn>,
    dry_run: bool,
    hints: Vec<String>,
}

struct Reader<'a> {
    catalogue: &'a Catalogue,
    routes: &'a Routes<'a>,
    caller: &'a Caller,
    members: &'a Map<String, Value>,
    details: Vec<Detail>,
    /// A code more telling than "validation failed".
    code: Option<Code>,
}

impl<'a> Reader<'a> {
    fn read(&mut self) -> Option<Read<'a>> {
        for name in self.members.keys().filter(|name| !MEMBERS.contains(&name.as_str())) {
            let problem =
                format!("is not a member of this request; known are {}", MEMBERS.join(", "));
            self.details.push(Detail::new(
                format!("/{}", cut(name).replace('~', "~0").replace('/', "~1")),
                problem,
            ));
        }
        self.vendor();
        let device =
            self.text("device_id", "the serial number of a dock, remote controller or aircraft");
        let method = self.method();
        let payload = self.payload(method);
        let idempotency_key = self.idempotency_key();
        let timeout = self.timeout();
        let if_offline =
            self.choice("if_offline", &[("wait", IfOffline::Wait), ("fail", IfOffline::Fail)]);
        let complete_on = self.choice(
            "complete_on",
            &[("outcome", CompleteOn::Outcome), ("reply", CompleteOn::Reply)],
        );
        let dry_run = self.choice_of_bool("dry_run");
        let found = device.and_then(|text| self.device(text));
        let (payload, hints) = payload?;
        let (device, route) = found?;
        Some(Read {
            device,
            route,
            method: method?,
            payload,
            idempotency_key: idempotency_key?,
            timeout,
            if_offline,
            complete_on,
            dry_run,
            hints,
        })
    }

    fn vendor(&mut self) {
        match self.text("vendor", "dji") {
            Some("dji") | None => {}
            Some(other) => {
                self.code = Some(Code::UnsupportedVendor);
                self.details.push(Detail::new("/vendor", "must be dji").given(cut(other).into()));
            }
        }
    }

    /// A device that is another tenant's, or that this credential may not touch, reads like one that is not there.
    fn device(&mut self, text: &str) -> Option<(DeviceSn, Route)> {
        let refuse =
            |problem: String| Some(Detail::new("/device_id", problem).given(cut(text).into()));
        let sn = match DeviceSn::parse(text) {
            Ok(sn) => sn,
            Err(error) => {
                self.details.extend(refuse(error.to_string()));
                return None;
            }
        };
        let route = match self.caller.may_touch(&sn) {
            true => (self.routes)(self.caller.tenant(), &sn),
            false => Err(NoRoute::UnknownDevice(sn.clone())),
        };
        match route {
            Ok(route) => return Some((sn, route)),
            Err(NoRoute::UnknownDevice(_)) => {
                if self.details.is_empty() {
                    self.code = Some(Code::DeviceNotFound);
                }
                self.details.extend(refuse("is not a device of this tenant".to_owned()));
            }
            Err(error @ (NoRoute::NoGateway(_) | NoRoute::Ambiguous { .. })) => {
                self.details.extend(refuse(error.to_string()));
            }
        }
        None
    }

    fn method(&mut self) -> Option<&'a Method> {
        let name = self.text("command_type", "a method of the catalogue")?;
        let catalogue = self.catalogue;
        if let Some(method) = catalogue.method(name) {
            return Some(method);
        }
        self.code = self.code.or(Some(Code::UnsupportedCommand));
        let hint = match catalogue.nearest(name) {
            Some(near) => format!("is not a method of the catalogue; did you mean {near}?"),
            None => "is not a method of the catalogue".to_owned(),
        };
        self.details.push(Detail::new("/command_type", hint).given(cut(name).into()));
        None
    }

    fn payload(&mut self, method: Option<&Method>) -> Option<(Value, Vec<String>)> {
        let Some(payload) = self.members.get("payload") else {
            self.details
                .push(Detail::new("/payload", "is required; {} when the method takes nothing"));
            return None;
        };
        let Some(method) = method else {
            // What is in it cannot be told without the method; that it must be an object can.
            if !payload.is_object() {
                self.details
                    .push(Detail::new("/payload", "must be an object").given_by_caller(payload));
            }
            return None;
        };
        match method.check(payload) {
            Ok(checked) => {
                let hints = checked
                    .hints
                    .into_iter()
                    .map(|hint| format!("/payload{} {}", hint.pointer, hint.hint));
                Some((checked.payload, hints.collect()))
            }
            Err(flaws) => {
                self.details.extend(flaws.into_iter().map(|flaw| Detail {
                    field: format!("/payload{}", flaw.pointer),
                    problem: flaw.problem,
                    given: Some(flaw.given).filter(|given| !given.is_null()),
                }));
                None
            }
        }
    }

    fn idempotency_key(&mut self) -> Option<String> {
        let key = self.text("idempotency_key", "1 to 255 characters, one per command")?;
        if is_key(key) {
            return Some(key.to_owned());
        }
        let problem = "must be 1 to 255 characters without control characters";
        self.details.push(Detail::new("/idempotency_key", problem));
        None
    }

    fn timeout(&mut self) -> Option<Duration> {
        let given = self.members.get("timeout_seconds").filter(|given| !given.is_null())?;
        match given.as_u64().or_else(|| whole(given)) {
            Some(0) => None,
            Some(seconds @ 1..=TIMEOUT_SECONDS_MAX) => Some(Duration::from_secs(seconds)),
            Some(_) | None => {
                let problem = "must be a whole number from 0 (the method's default) to 300";
                self.details.push(Detail::new("/timeout_seconds", problem).given_by_caller(given));
                None
            }
        }
    }

    fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let given = self.members.get(name).filter(|given| !given.is_null())?;
        let found = given.as_str().and_then(|text| choices.iter().find(|(word, _)| *word == text));
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let problem = format!("must be {}", words.join(" or "));
            self.details.push(Detail::new(format!("/{name}"), problem).given_by_caller(given));
        }
        found.map(|(_, value)| *value)
    }

    fn choice_of_bool(&mut self, name: &str) -> bool {
        match self.members.get(name) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(value)) => *value,
            Some(other) => {
                self.details.push(
                    Detail::new(format!("/{name}"), "must be true or false").given_by_caller(other),
                );
                false
            }
        }
    }

    fn text(&mut self, name: &str, wanted: &str) -> Option<&'a str> {
        match self.members.get(name) {
            Some(Value::String(text)) => Some(text),
            Some(other) => {
                let kind = kind_of(other);
                let problem = format!("must be a string ({wanted}), not {kind}");
                self.details.push(Detail::new(format!("/{name}"), problem).given_by_caller(other));
                None
            }
            None => {
                self.details
                    .push(Detail::new(format!("/{name}"), format!("is required: {wanted}")));
                None
            }
        }
    }
}

/// A float that is a whole number, such as `30.0`.
fn whole(value: &Value) -> Option<u64> {
    let float =
        value.as_f64().filter(|float| float.fract() == 0.0 && (0.0..=1e9).contains(float))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked just above"
    )]
    Some(float as u64)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
