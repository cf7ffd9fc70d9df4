//! Commands on `services`: received, judged, carried out, answered.

use serde_json::{Map, Value, json};
use utmos_core::method::Channel;
use utmos_dji::{device_side, topic::UplinkTopic, uplink::Exchange};
use utmos_mqtt::Qos;

use rand::RngExt;

use super::{Dock, Due, Output, Overruled, clock};
use crate::{Kind, Outcome, ReplyTiming, plausible, refusal};

/// What a dock makes of a command.
#[derive(Debug)]
pub enum Verdict {
    /// Refused with this code.
    Refused(i64),
    /// Done. The fields stand beside `result` in the reply.
    Done(Map<String, Value>),
    /// Started. A job goes on that carries the receipt it was given.
    Started(Map<String, Value>),
}

impl Verdict {
    /// Done, and nothing more to say.
    pub fn done() -> Self {
        Self::Done(Map::new())
    }

    /// Done, with `output.status` `ok`, as the pages of the remote debugging methods show it.
    pub fn done_ok() -> Self {
        Self::Done(status("ok"))
    }

    /// Started, and nothing more to say.
    pub fn started() -> Self {
        Self::Started(Map::new())
    }

    /// Started, with `output.status` `in_progress`.
    pub fn in_progress() -> Self {
        Self::Started(status("in_progress"))
    }

    /// Refused with the code, if there is one.
    pub fn unless(refused: Option<i64>, otherwise: impl FnOnce() -> Self) -> Self {
        refused.map_or_else(otherwise, Self::Refused)
    }
}

fn status(word: &str) -> Map<String, Value> {
    Map::from_iter([("output".to_owned(), json!({"status": word}))])
}

/// A command as it came.
#[derive(Debug)]
pub struct Command<'a> {
    pub method: &'a str,
    pub data: &'a Value,
    /// The job's id; the command's own, or a new one if it had none.
    pub bid: &'a str,
    /// The dock's number for it.
    pub receipt: u64,
}

impl Command<'_> {
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.data.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    pub fn number(&self, pointer: &str) -> Option<f64> {
        let value = self.data.pointer(pointer)?;
        value.as_f64().or_else(|| value.as_str()?.parse().ok())
    }

    pub fn integer(&self, pointer: &str) -> Option<i64> {
        let value = self.data.pointer(pointer)?;
        let whole = || value.as_f64().filter(|number| number.fract() == 0.0).map(|n| n as i64);
        value.as_i64().or_else(whole).or_else(|| value.as_str()?.parse().ok())
    }
}

/// An answer that may have to wait for its time.
#[derive(Debug)]
pub enum Answer {
    Services { exchange: Exchange, method: String, data: String, result: i64 },
    Property { exchange: Exchange, data: String },
    Drc { method: String, data: String, seq: Option<u64> },
}

impl Dock {
    pub(super) fn take_services(&mut self, exchange: Exchange, method: String, data: &str) {
        let received = self.received(Some(&exchange), None, &method);
        self.receipts += 1;
        let receipt = self.receipts;
        let overruled = self.meddling.overruled.take();
        if overruled == Some(Overruled::Ignore) {
            self.out.push(Output::Received { received, receipt, outcome: Outcome::Ignored });
            return;
        }
        let refused = overruled.and_then(Overruled::code).or_else(|| self.forbidden(&method));
        // Real docks take an empty text, null and nothing for "no parameters".
        let data: Value = serde_json::from_str(data).unwrap_or_default();
        let bid = exchange.bid.clone().unwrap_or_else(|| self.new_id());
        let said = std::mem::take(&mut self.out);
        let verdict = Verdict::unless(refused, || {
            self.carry_out(&Command { method: &method, data: &data, bid: &bid, receipt })
        });
        let effects = std::mem::replace(&mut self.out, said);
        let outcome = match &verdict {
            Verdict::Refused(code) => Outcome::Refused(*code),
            Verdict::Done(_) => Outcome::Done,
            Verdict::Started(_) => Outcome::Running,
        };
        self.out.push(Output::Received { received, receipt, outcome });
        let (result, mut fields) = match verdict {
            Verdict::Refused(code) => (code, Map::new()),
            Verdict::Done(fields) | Verdict::Started(fields) => (0, fields),
        };
        fields.insert("result".to_owned(), json!(result));
        let wait = self.reply_wait(&method, result);
        let data = Value::Object(fields).to_string();
        self.answer_in(wait, Answer::Services { exchange, method, data, result });
        // What the command sets off at once is told after its answer.
        if wait == 0 {
            self.out.extend(effects);
        } else if !effects.is_empty() {
            self.after(wait, Due::Emit(effects));
        }
    }

    /// Decides and does. Jobs are made with their first step some time ahead, so that the answer comes before it.
    fn carry_out(&mut self, command: &Command<'_>) -> Verdict {
        let model = self.config.model;
        let known = self.catalogue.method(command.method).filter(|method| model.knows(method));
        let Some(method) = known else { return Verdict::Refused(refusal::NOT_SUPPORTED) };
        if self.needs_consent(method) {
            return Verdict::Refused(refusal::NO_AUTHORITY);
        }
        let groups: [fn(&mut Self, &Command<'_>) -> Option<Verdict>; 7] = [
            Self::debugging,
            Self::flying_command,
            Self::wayline_command,
            Self::drc_session,
            Self::payload_command,
            Self::upkeep,
            Self::consent_command,
        ];
        for group in groups {
            if let Some(verdict) = group(self, command) {
                return verdict;
            }
        }
        self.by_catalogue(command)
    }

    /// A method nobody taught the simulator: known to the catalogue it is answered as the catalogue describes it.
    fn by_catalogue(&mut self, command: &Command<'_>) -> Verdict {
        let catalogue = std::sync::Arc::clone(&self.catalogue);
        let Some(method) =
            catalogue.method(command.method).filter(|method| method.channel == Channel::Services)
        else {
            return Verdict::Refused(refusal::NOT_SUPPORTED);
        };
        let mut fields = plausible::object(&method.reply, &mut self.rng);
        for (name, value) in &mut fields {
            // What a reply repeats from the command, it repeats rightly.
            if let Some(asked) = command.data.get(name) {
                *value = asked.clone();
            }
        }
        match &method.job {
            Some(job) => {
                self.start_catalogue_job(command, job);
                if method.status_in_reply {
                    fields.extend(status("in_progress"));
                }
                Verdict::Started(fields)
            }
            None => {
                if method.status_in_reply {
                    fields.extend(status("ok"));
                }
                Verdict::Done(fields)
            }
        }
    }

    /// How long an answer takes. Jobs reckon with it.
    pub(super) fn reply_wait(&mut self, method: &str, result: i64) -> u64 {
        let real = match (self.settings.reply, method) {
            (ReplyTiming::AtOnce, _) => return 0,
            (ReplyTiming::Realistic, _) if result != 0 => 5.0,
            (ReplyTiming::Realistic, "drc_mode_enter") => 1_200.0,
            (ReplyTiming::Realistic, _) => self.rng.random_range(30.0..=50.0),
        };
        clock::millis(clock::seconds(real / 1_000.0 / self.settings.speed.max(clock::SPEED_MIN)))
    }

    pub(super) fn answer_in(&mut self, wait: u64, answer: Answer) {
        if wait == 0 {
            self.send_answer(answer);
        } else {
            self.after(wait, Due::Answer(Box::new(answer)));
        }
    }

    pub(super) fn send_answer(&mut self, answer: Answer) {
        let gateway = self.sn.clone();
        match answer {
            Answer::Services { exchange, method, data, result } => {
                let payload = device_side::services_reply(&exchange, &method, &data, self.wall());
                self.publish(&UplinkTopic::ServicesReply { gateway }, payload, Qos::AtLeastOnce);
                self.happened(Kind::Reply { method, result });
            }
            Answer::Property { exchange, data } => {
                let payload = device_side::property_set_reply(&exchange, &data, self.wall());
                self.publish(&UplinkTopic::PropertySetReply { gateway }, payload, Qos::AtLeastOnce);
            }
            Answer::Drc { method, data, seq } => {
                let payload = device_side::drc_up(&method, &data, seq);
                self.publish(&UplinkTopic::DrcUp { gateway }, payload, Qos::AtMostOnce);
            }
        }
    }
}
