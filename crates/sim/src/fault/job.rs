//! What a fault makes of the events of a job.

use serde_json::Value;
use utmos_dji::catalogue::Job;

use super::{Fault, answer::Letter};

/// How much later the copy of an event comes, in milliseconds.
pub const RESEND_MS: u64 = 1_000;
/// Where a job's middle is.
const HALF_PERCENT: f64 = 50.0;

/// The job of one command, watched for its events.
#[derive(Debug)]
pub struct WatchedJob {
    form: Job,
    bid: Option<String>,
    /// The job's own id, where its method has one.
    reference: Option<Value>,
    told: u64,
    has_stopped: bool,
    held: Option<Letter>,
}

/// What leaves instead of an event.
#[derive(Debug, Default, PartialEq)]
pub struct Told {
    /// Now.
    pub now: Vec<Letter>,
    /// After [`RESEND_MS`].
    pub later: Option<Letter>,
}

impl WatchedJob {
    /// Of a command with this `bid` and payload.
    pub fn of(form: &Job, bid: Option<&str>, payload: &Value) -> Self {
        let reference = form.reference.as_ref();
        Self {
            form: form.clone(),
            bid: bid.map(str::to_owned),
            reference: reference.and_then(|at| payload.pointer(&at.payload)).cloned(),
            told: 0,
            has_stopped: false,
            held: None,
        }
    }

    /// Whether an event is one of this job's: by `bid`, or by the job's own id.
    pub fn owns(&self, event: &Value) -> bool {
        let method = event.get("method").and_then(Value::as_str);
        if !self.form.events.iter().any(|own| Some(own.as_str()) == method) {
            return false;
        }
        let bid = event.get("bid").and_then(Value::as_str);
        let named = self.form.reference.as_ref().and_then(|at| self.of_data(event, &at.event));
        (bid.is_some() && bid == self.bid.as_deref())
            || (named.is_some() && named == self.reference.as_ref())
    }

    /// What becomes of one of its events.
    pub fn tell(&mut self, fault: &Fault, letter: Letter, event: &Value) -> Told {
        self.told += 1;
        match fault {
            Fault::ProgressStops => {
                self.has_stopped = self.has_stopped || self.is_past_half(event);
                let now = if self.has_stopped { Vec::new() } else { vec![letter] };
                Told { now, later: None }
            }
            Fault::ProgressOutOfOrder => match self.held.take() {
                Some(earlier) => Told { now: vec![letter, earlier], later: None },
                None => {
                    self.held = Some(letter);
                    Told::default()
                }
            },
            Fault::ResendEvents => Told { later: Some(again(&letter, event)), now: vec![letter] },
            Fault::Late { .. }
            | Fault::Never
            | Fault::Silent
            | Fault::Duplicate
            | Fault::WrongTid
            | Fault::WrongBid
            | Fault::WrongMethod
            | Fault::WrongGateway { .. }
            | Fault::Result { .. }
            | Fault::StringNumbers
            | Fault::MissingField(_)
            | Fault::Truncated
            | Fault::Binary
            | Fault::Huge { .. }
            | Fault::Disconnect { .. }
            | Fault::Early
            | Fault::LateAck { .. }
            | Fault::NoAck => Told { now: vec![letter], later: None },
        }
    }

    /// What is still held back when the job has ended.
    pub fn rest(&mut self) -> Option<Letter> {
        self.held.take()
    }

    fn of_data<'a>(&self, event: &'a Value, pointer: &str) -> Option<&'a Value> {
        event.get("data")?.pointer(pointer)
    }

    /// At 50 % or at its end; where there are no percents, at its second word.
    fn is_past_half(&self, event: &Value) -> bool {
        let word = self.of_data(event, &self.form.status).and_then(Value::as_str);
        let has_ended = word.is_some_and(|word| !self.form.state(word).is_open());
        let percent = self.form.percent.as_ref().and_then(|at| self.of_data(event, at)?.as_f64());
        has_ended || percent.map_or(1 < self.told, |percent| HALF_PERCENT <= percent)
    }
}

/// The same ids and data at a later time, as docks send it again.
fn again(letter: &Letter, event: &Value) -> Letter {
    let mut event = event.clone();
    if let Some(timestamp) = event.get("timestamp").and_then(Value::as_u64) {
        event["timestamp"] = Value::from(timestamp + RESEND_MS);
    }
    letter.saying(&event)
}
