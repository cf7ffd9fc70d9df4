//! Coming up: what a dock asks the cloud, in which order, before it is online.
//!
//! `config`, then whether it is bound, then the binding if there is one to ask for, then `update_topo`. The cloud must answer
//! every request; a dock that is not answered goes on after a while all the same, and says so.

use serde_json::{Value, json};
use utmos_core::time::Now;
use utmos_dji::{device_side, downlink::Heading, topic::UplinkTopic};
use utmos_mqtt::Qos;

use super::{AskedRequest, Dock, Due};
use crate::{Kind, Output};

/// How long a request is waited for.
const ANSWER_WAIT_MS: u64 = 3_000;
/// When a dock whose binding was refused tries again.
const UNBOUND_WAIT_MS: u64 = 30_000;

/// Requests it was told to send that are remembered, and answers to each.
const ASKED_MAX: usize = 16;
const ANSWERS_MAX: usize = 16;

/// A request that a dock is told to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Asking {
    /// What is asked for.
    pub method: String,
    /// The `data` of the request.
    pub data: Value,
    /// The `tid` of a request that is to be repeated.
    pub tid: Option<String>,
}

/// Where the dock stands with the cloud.
#[derive(Debug, Default)]
pub enum Link {
    /// No connection.
    #[default]
    Down,
    /// Asking; nothing else is said before the end of it.
    Asking {
        /// The open question.
        tid: String,
        question: Question,
    },
    /// Its binding was refused.
    Refused,
    /// Online.
    Announced,
}

/// What is asked on the way up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    Config,
    BindStatus,
    Organization,
    Bind,
}

impl Link {
    pub fn is_down(&self) -> bool {
        matches!(self, Self::Down)
    }

    pub fn is_announced(&self) -> bool {
        matches!(self, Self::Announced)
    }
}

impl Dock {
    /// A remote controller asks nothing: its pilot has logged in and has bound it.
    pub(super) fn come_up(&mut self) {
        if self.config.model.is_dock() {
            self.ask(Question::Config);
        } else {
            self.announce();
        }
    }

    pub(super) fn go_down(&mut self) {
        self.link = Link::Down;
        self.stop_telemetry();
        self.drop_drc();
        self.timers.cancel(|due| matches!(due, Due::NoAnswer(_) | Due::AskAgain));
    }

    fn ask(&mut self, question: Question) {
        let aircraft = self.aircraft_sn.as_str();
        let dock = self.sn.as_str();
        let binding = self.config.binding.as_ref();
        let (organization, code) =
            binding.map_or(("", ""), |binding| (&binding.organization_id, &binding.code));
        let (method, data) = match question {
            Question::Config => {
                // Says what it is, since it takes any app credentials, empty ones as well.
                let data =
                    json!({"config_type": "json", "config_scope": "product", "simulated": true});
                ("config", data)
            }
            Question::BindStatus => {
                ("airport_bind_status", json!({"devices": [{"sn": aircraft}, {"sn": dock}]}))
            }
            Question::Organization => (
                "airport_organization_get",
                json!({"device_binding_code": code, "organization_id": organization}),
            ),
            Question::Bind => {
                let device = |sn: &str, model: &str, name: &str| {
                    json!({
                        "device_binding_code": code,
                        "organization_id": organization,
                        "device_callsign": name,
                        "device_model_key": model,
                        // Whoever lists devices is to see which are real.
                        "simulated": true,
                        "sn": sn,
                    })
                };
                let (gateway_key, aircraft_key) =
                    (self.config.model.gateway_key(), self.config.model.aircraft_key());
                let devices =
                    [device(dock, &gateway_key, dock), device(aircraft, &aircraft_key, aircraft)];
                ("airport_organization_bind", json!({"bind_devices": devices}))
            }
        };
        let tid = self.request_as(method, &data, |tid| Link::Asking { tid, question });
        self.after(ANSWER_WAIT_MS, Due::NoAnswer(tid));
    }

    /// Sends a request and puts the link into the state `next` makes of its `tid`, before it leaves.
    fn request_as(
        &mut self,
        method: &str,
        data: &Value,
        next: impl FnOnce(String) -> Link,
    ) -> String {
        let tid = self.new_id();
        self.link = next(tid.clone());
        self.send_request(&tid, method, data);
        tid
    }

    /// Asks for something whose answer changes nothing. Only docks ask.
    pub(super) fn request(&mut self, method: &str, data: &Value) {
        if !self.config.model.is_dock() {
            return;
        }
        let tid = self.new_id();
        self.send_request(&tid, method, data);
    }

    fn send_request(&mut self, tid: &str, method: &str, data: &Value) {
        let bid = self.new_id();
        let heading = Heading { tid, bid: &bid, at: self.wall() };
        let payload = device_side::request(heading, &self.sn, method, &data.to_string());
        self.publish(
            &UplinkTopic::Requests { gateway: self.sn.clone() },
            payload,
            Qos::AtLeastOnce,
        );
    }

    /// Asks for something because somebody wants it to, once more with the `tid` of a request that was asked before.
    /// Answers the `tid`; nothing where there is no connection.
    pub fn ask_for(&mut self, asking: &Asking, now: Now) -> (Option<String>, Vec<Output>) {
        self.now = now;
        if self.link.is_down() {
            return (None, Vec::new());
        }
        let tid = asking.tid.clone().unwrap_or_else(|| self.new_id());
        let method = asking.method.clone();
        if !self.asked.iter().any(|asked| asked.tid == tid) {
            if self.asked.len() == ASKED_MAX {
                self.asked.pop_front();
            }
            self.asked.push_back(AskedRequest {
                tid: tid.clone(),
                method: method.clone(),
                answers: Vec::new(),
            });
        }
        self.send_request(&tid, &method, &asking.data);
        self.note(format!("asked {method}"));
        (Some(tid), std::mem::take(&mut self.out))
    }

    pub(super) fn take_request_answer(&mut self, tid: &str, data: &str) {
        if let Some(asked) = self.asked.iter_mut().find(|asked| asked.tid == tid) {
            if asked.answers.len() < ANSWERS_MAX {
                asked.answers.push(serde_json::from_str(data).unwrap_or_default());
            }
            let told = format!("{} was answered", asked.method);
            self.note(told);
            return;
        }
        let question = match &self.link {
            Link::Asking { tid: open, question } if open == tid => *question,
            Link::Asking { .. } | Link::Down | Link::Refused | Link::Announced => return,
        };
        let data: Value = serde_json::from_str(data).unwrap_or_default();
        self.go_on(question, &data);
    }

    /// Nobody answered in time.
    pub(super) fn no_answer(&mut self, tid: &str) {
        let open = match &self.link {
            Link::Asking { tid: open, question } if open == tid => Some(*question),
            Link::Asking { .. } | Link::Down | Link::Refused | Link::Announced => None,
        };
        if let Some(question) = open {
            self.note(format!("{question:?} was not answered; going on without"));
            self.announce();
        }
    }

    fn go_on(&mut self, question: Question, data: &Value) {
        match question {
            Question::Config => self.ask(Question::BindStatus),
            Question::BindStatus => {
                let bound = data.pointer("/output/bind_status").and_then(Value::as_array);
                let all_bound = bound.is_some_and(|devices| {
                    !devices.is_empty()
                        && devices.iter().all(|device| {
                            device.get("is_device_bind_organization").is_some_and(is_yes)
                        })
                });
                if all_bound || self.config.binding.is_none() {
                    self.announce();
                } else {
                    self.ask(Question::Organization);
                }
            }
            Question::Organization => match result(data) {
                0 => self.ask(Question::Bind),
                code => self.refused(code),
            },
            Question::Bind => {
                let infos = data.pointer("/output/err_infos").and_then(Value::as_array);
                let code = infos
                    .into_iter()
                    .flatten()
                    .filter_map(|info| info.get("err_code").and_then(Value::as_i64))
                    .find(|code| *code != 0);
                match (result(data), code) {
                    (0, None) => self.announce(),
                    (0, Some(code)) | (code, _) => self.refused(code),
                }
            }
        }
    }

    fn refused(&mut self, code: i64) {
        self.link = Link::Refused;
        self.note(format!("the binding was refused: {code}"));
        self.after(UNBOUND_WAIT_MS, Due::AskAgain);
    }

    fn announce(&mut self) {
        self.link = Link::Announced;
        self.update_topo();
        self.start_telemetry();
        self.push_whole_state();
    }

    /// Tells which devices are there; also when the aircraft is switched on or off.
    pub(super) fn update_topo(&mut self) {
        if !self.link.is_announced() {
            return;
        }
        let (tid, bid) = (self.new_id(), self.new_id());
        let heading = Heading { tid: &tid, bid: &bid, at: self.wall() };
        let is_shown = self.hardware.aircraft_on && !self.meddling.hides_aircraft;
        let (gateway, airframe) = (self.config.model.gateway(), self.config.model.airframe());
        let aircraft = is_shown.then_some((&self.aircraft_sn, airframe.kind));
        let payload = device_side::update_topo(heading, gateway.described, gateway.kind, aircraft);
        let topic = UplinkTopic::Status { gateway: self.sn.clone(), root: gateway.status_root };
        self.publish(&topic, payload, Qos::AtLeastOnce);
        self.happened(Kind::Announced { aircraft: is_shown });
    }
}

fn is_yes(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| value.as_i64() == Some(1))
}

fn result(data: &Value) -> i64 {
    data.get("result").and_then(Value::as_i64).unwrap_or(0)
}
