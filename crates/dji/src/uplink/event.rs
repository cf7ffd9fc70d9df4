//! Events, and what they say of jobs.

use utmos_core::{
    id::{DeviceSn, GatewaySn},
    reply::{JobState, Progress, Verdict},
};

use super::{Event, Exchange, JobEvent, Meanings, method, outcome};
use crate::{
    envelope::{Envelope, is_method},
    json::{Field, Number, Scalar, at, pick},
};

/// Longest word for a state, step or job id that is kept, in bytes.
const WORD_BYTES_MAX: usize = 128;

/// Reads a message on an events topic.
pub(super) fn read(device: &DeviceSn, envelope: &Envelope<'_>, meanings: &dyn Meanings) -> Event {
    let data = envelope.data_or_null();
    let method = method(envelope).or_else(|| method_inside(data));
    let exchange = Exchange::of(envelope);
    let progress = method.as_deref().and_then(|method| {
        let job = meanings.job_event(method)?;
        let gateway = envelope.gateway.clone().unwrap_or_else(|| device.to_gateway());
        Some(read_progress(gateway, method, &exchange, data, &*job, meanings))
    });
    Event {
        device: device.clone(),
        gateway: envelope.gateway.clone(),
        exchange,
        method,
        need_reply: envelope.need_reply,
        progress: progress.map(Box::new),
        device_time: envelope.timestamp,
        data: data.into(),
    }
}

/// Remote controllers name the method inside `data`, twice (DJI-Cloud-API-Demo#11).
fn method_inside(data: &str) -> Option<String> {
    let [method, event] = pick(data, ["method", "event"]);
    [method, event].into_iter().find_map(|name| match name.scalar() {
        Scalar::Text(text) if is_method(&text) => Some(text.into_owned()),
        Scalar::Text(_) | Scalar::Null | Scalar::Bool(_) | Scalar::Number(_) | Scalar::Other => {
            None
        }
    })
}

fn read_progress(
    gateway: GatewaySn,
    event_method: &str,
    exchange: &Exchange,
    data: &str,
    job: &dyn JobEvent,
    meanings: &dyn Meanings,
) -> Progress {
    let value_at = |pointer: Option<&str>| pointer.and_then(|pointer| at(data, pointer));
    let [result, message, msg, description] =
        pick(data, ["result", "message", "msg", "description"]);
    let own_words = [message, msg, description].into_iter().find_map(outcome::words);
    let code = match result.scalar().number().map(Number::is_zero) {
        Some(true) => None,
        Some(false) | None => outcome::to_code(&result.scalar()),
    };
    // An event without a word still says that the job is alive.
    let state_word = at(data, job.state_at()).and_then(word).unwrap_or_default();
    Progress {
        gateway,
        event_method: event_method.to_owned(),
        command_methods: job.command_methods(),
        bid: exchange.job().map(str::to_owned),
        job_ref: value_at(job.job_ref_at()).and_then(word),
        state: state(job.state_of(&state_word), result),
        state_word,
        step: value_at(job.step_at()).and_then(|raw| step(raw, job)),
        percent: value_at(job.percent_at()).and_then(|raw| percent(&Scalar::of(raw))),
        message: own_words
            .or_else(|| code.as_deref().and_then(|code| outcome::meaning_of(code, meanings))),
        code,
        data: data.into(),
    }
}

/// A good end beside a result that is not 0 is no good end.
fn state(by_word: JobState, result: Field<'_>) -> JobState {
    let denied = match result.scalar() {
        Scalar::Null => false,
        Scalar::Bool(_) | Scalar::Number(_) | Scalar::Text(_) | Scalar::Other => {
            outcome::verdict_of(result) != Verdict::Ok
        }
    };
    if denied && by_word == JobState::Succeeded { JobState::Failed } else { by_word }
}

fn word(raw: &str) -> Option<String> {
    let text = Scalar::of(raw).into_text()?;
    let fits = text.len() <= WORD_BYTES_MAX && !text.chars().any(char::is_control);
    fits.then(|| text.into_owned())
}

/// A key as it is; a number with its meaning, where that is known.
fn step(raw: &str, job: &dyn JobEvent) -> Option<String> {
    let Some(number) = Scalar::of(raw).integer() else { return word(raw) };
    let number = number.to_string();
    Some(match job.step_name(&number) {
        Some(name) => format!("{number} ({name})"),
        None => number,
    })
}

fn percent(scalar: &Scalar<'_>) -> Option<u8> {
    let spelt = scalar.number()?.to_code();
    let percent: f64 = spelt.parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0 to 100"
    )]
    percent.is_finite().then(|| percent.clamp(0.0, 100.0) as u8)
}
