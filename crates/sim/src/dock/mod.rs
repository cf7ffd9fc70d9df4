//! A dock and its aircraft, without any IO: [`Dock::handle`] takes a message, [`Dock::tick`] lets time pass, both give
//! back what the dock does, and [`Dock::next_wake`] says when it wants to be ticked next.
//!
//! Everything that leaves goes through the functions of this file. What the dock knows of the world it was told: it asks
//! for no clock, no dice but its own seeded ones, and nothing of the platform.

mod airborne;
mod clock;
mod commands;
mod conditions;
mod consent;
mod debugging;
mod drc;
mod flying;
mod link;
mod meddling;
mod payload;
mod properties;
mod readings;
mod shown;
mod telemetry;
mod upkeep;
mod wayline;
mod work;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use utmos_core::{
    id::{DeviceSn, GatewaySn, InvalidSn},
    time::{Mono, Now, Timestamp},
};
use utmos_dji::{
    catalogue::Catalogue,
    device_side::{self, Downlink},
    downlink::Heading,
    topic::{DownlinkTopic, UplinkTopic},
    uplink::Exchange,
};
use utmos_mqtt::Qos;

use crate::{
    Conditions, DockConfig, Happening, Kind, Outcome, Received, ReplyTiming, flight::Aircraft,
    model::gateway::Ids, timers::Timers,
};

use commands::Answer;
use debugging::Hardware;
use drc::Drc;
use flying::Sky;
pub use link::Asking;
use link::Link;
use meddling::Meddling;
pub(crate) use meddling::Overruled;
use payload::Payloads;
use properties::Properties;
pub use shown::{AircraftState, AskedRequest, DockState};
use work::Work;

/// How a dock is to behave; the same for a whole fleet.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How many times faster than a real one it flies, works and answers. Telemetry and time-outs keep their pace.
    pub speed: f64,
    /// When it answers.
    pub reply: ReplyTiming,
    /// No telemetry and no alarms.
    pub quiet: bool,
    /// Whether to tell of happenings.
    pub observed: bool,
}

/// What a dock does.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Publishes a message.
    Publish {
        /// The topic.
        topic: String,
        /// The payload.
        payload: Vec<u8>,
        /// The quality of service.
        qos: Qos,
        /// Whether it is the `update_topo` with which the dock goes online.
        announces: bool,
    },
    /// Received a command and decided what to make of it.
    Received {
        /// The command.
        received: Received,
        /// The dock's own number for it.
        receipt: u64,
        /// What it made of it.
        outcome: Outcome,
    },
    /// A job ended.
    Ended {
        /// The dock's number of the command that started it.
        receipt: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// Something to show to people. Only where they watch.
    Happened(Happening),
}

/// Something that is due at a time.
#[derive(Debug)]
enum Due {
    Answer(Box<Answer>),
    Emit(Vec<Output>),
    Step(u64),
    Prepare,
    Flight,
    Stow,
    CarryBack,
    GatewayOsd(usize),
    AircraftOsd,
    Alarms,
    DrcLink(u8),
    DrcPush(drc::Push),
    DrcSilence,
    Resend(String),
    NoAnswer(String),
    AskAgain,
}

/// A simulated dock or remote controller with its aircraft.
#[derive(Debug)]
pub struct Dock {
    name: Arc<str>,
    sn: GatewaySn,
    aircraft_sn: DeviceSn,
    config: DockConfig,
    settings: Settings,
    catalogue: Arc<Catalogue>,
    rng: StdRng,
    /// How far the dock's clock is behind. A recorded one was, by 0.38 to 0.61 s.
    behind: i64,
    started: u64,
    now: Now,
    timers: Timers<Due>,
    out: Vec<Output>,
    receipts: u64,
    link: Link,
    hardware: Hardware,
    aircraft: Aircraft,
    sky: Sky,
    work: Work,
    payloads: Payloads,
    properties: Properties,
    drc: Option<Drc>,
    authority: bool,
    conditions: Conditions,
    /// What the battery had before a condition limited it.
    battery_before: Option<f64>,
    unanswered: BTreeMap<String, Unanswered>,
    meddling: Meddling,
    /// What it was told to ask, the newest last.
    asked: VecDeque<AskedRequest>,
}

/// A message that asks for an answer and has not got one.
#[derive(Debug)]
struct Unanswered {
    topic: UplinkTopic,
    what: Message,
    tries: usize,
}

/// What is needed to send a message once more: everything but the time.
#[derive(Debug)]
struct Message {
    tid: String,
    bid: String,
    /// `None` for a state.
    method: Option<String>,
    data: String,
}

/// When an unanswered message is sent again, after each try; then it is given up.
const RESEND_MS: [u64; 5] = [2_050, 4_200, 8_200, 8_200, 8_200];
/// How many messages may wait for an answer; beyond, the newest are sent once only.
const UNANSWERED_MAX: usize = 32;
/// How far a recorded dock's clock was behind, in milliseconds.
const BEHIND_MS: std::ops::RangeInclusive<i64> = 380..=610;

impl Dock {
    /// Makes a dock that is switched on, not connected, idle, with its aircraft on and in it.
    ///
    /// # Errors
    /// When a serial number is not a safe topic level.
    pub fn new(
        config: &DockConfig,
        settings: Settings,
        catalogue: Arc<Catalogue>,
        seed: u64,
        now: Now,
    ) -> Result<Self, InvalidSn> {
        let mut rng = StdRng::seed_from_u64(seed ^ fingerprint(&config.sn));
        let behind = rng.random_range(BEHIND_MS);
        let battery = rng.random_range(88.0..97.0);
        let heading = rng.random_range(-180.0..180.0);
        let airframe = config.model.airframe();
        Ok(Self {
            name: config.sn.as_str().into(),
            sn: GatewaySn::parse(&config.sn)?,
            aircraft_sn: DeviceSn::parse(&config.aircraft_sn)?,
            config: config.clone(),
            settings,
            catalogue,
            behind,
            started: now.mono.as_millis(),
            now,
            timers: Timers::default(),
            out: Vec::new(),
            receipts: 0,
            link: Link::default(),
            hardware: Hardware::new(heading),
            aircraft: Aircraft::parked(airframe.performance, config.home, heading, battery, 0),
            sky: Sky::default(),
            work: Work::default(),
            payloads: Payloads::of(airframe),
            properties: Properties::of(config.model),
            drc: None,
            authority: false,
            conditions: Conditions::default(),
            battery_before: None,
            unanswered: BTreeMap::new(),
            meddling: Meddling::default(),
            asked: VecDeque::new(),
            rng,
        })
    }

    /// The topics it listens to: its own, and none of the aircraft's, which not every broker would grant.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<String> {
        let gateway = || self.sn.clone();
        [
            DownlinkTopic::Services { gateway: gateway() },
            DownlinkTopic::PropertySet { gateway: gateway() },
            DownlinkTopic::DrcDown { gateway: gateway() },
            DownlinkTopic::EventsReply { device: self.sn.to_device() },
            DownlinkTopic::StateReply { device: self.sn.to_device() },
            DownlinkTopic::RequestsReply { gateway: gateway() },
            DownlinkTopic::StatusReply {
                gateway: gateway(),
                root: self.config.model.gateway().status_root,
            },
        ]
        .iter()
        .map(ToString::to_string)
        .collect()
    }

    /// The connection to the broker is there, and all subscriptions with it.
    pub fn connected(&mut self, now: Now) -> Vec<Output> {
        self.now = now;
        self.happened(Kind::Connected);
        self.come_up();
        std::mem::take(&mut self.out)
    }

    /// The connection to the broker is lost or could not be made. Flights and jobs go on; what they tell is lost, except
    /// what asks for an answer: that is sent again.
    pub fn disconnected(&mut self, reason: &str, now: Now) -> Vec<Output> {
        self.now = now;
        self.go_down();
        self.happened(Kind::Disconnected { reason: reason.to_owned() });
        std::mem::take(&mut self.out)
    }

    /// A message came.
    pub fn handle(&mut self, topic: &str, payload: &[u8], now: Now) -> Vec<Output> {
        self.now = now;
        match DownlinkTopic::parse(topic) {
            Ok(topic) if topic.device().as_str() == self.sn.as_str() => {
                match device_side::read(&topic, payload) {
                    Ok(message) => self.take(&topic, message),
                    Err(err) => self.note(format!("a message on {topic} is unreadable: {err}")),
                }
            }
            Ok(topic) => self.note(format!("a message on {topic} is not for this dock")),
            Err(err) => self.note(format!("a message on a topic that is none: {err}")),
        }
        // It was for this message, whatever the message was.
        self.meddling.overruled = None;
        std::mem::take(&mut self.out)
    }

    /// Does whatever is due.
    pub fn tick(&mut self, now: Now) -> Vec<Output> {
        while let Some((at, due)) = self.timers.pop(now.mono.as_millis()) {
            // As of the time it was due, so that a late tick changes nothing but the sending.
            self.now = clock::earlier(now, at);
            self.act(due);
        }
        self.now = now;
        std::mem::take(&mut self.out)
    }

    /// When it wants to be ticked next.
    #[must_use]
    pub fn next_wake(&self) -> Option<Mono> {
        self.timers.next().map(Mono::from_millis)
    }

    /// Where the aircraft is.
    #[must_use]
    pub fn aircraft_position(&self) -> crate::Position {
        self.aircraft.position
    }

    /// How full the aircraft's battery is.
    #[must_use]
    pub fn battery_percent(&self) -> f64 {
        self.aircraft.battery
    }

    /// Whether the aircraft is in the dock.
    #[must_use]
    pub fn aircraft_is_in_dock(&self) -> bool {
        self.sky.is_docked()
    }

    fn take(&mut self, topic: &DownlinkTopic, message: Downlink) {
        match message {
            Downlink::Services { exchange, method, data } => {
                self.take_services(exchange, method.unwrap_or_default(), &data);
            }
            Downlink::Drc { method, seq, data } => {
                self.take_drc(method.unwrap_or_default(), seq, &data);
            }
            Downlink::PropertySet { exchange, data } => self.take_property_set(exchange, &data),
            Downlink::Answer { exchange, method: _, verdict: _, data } => {
                self.take_answer(topic, &exchange, &data);
            }
        }
    }

    fn act(&mut self, due: Due) {
        match due {
            Due::Answer(answer) => self.send_answer(*answer),
            Due::Emit(outputs) => self.out.extend(outputs),
            Due::Step(job) => self.step_job(job),
            Due::Prepare => self.prepare_further(),
            Due::Flight => self.look_at_aircraft(),
            Due::Stow => self.stowed(),
            Due::CarryBack => self.carry_back(),
            Due::GatewayOsd(part) => self.push_gateway_osd(part),
            Due::AircraftOsd => self.push_aircraft_osd(),
            Due::Alarms => self.push_alarms(),
            Due::DrcLink(state) => self.drc_link(state),
            Due::DrcPush(push) => self.drc_push(push),
            Due::DrcSilence => self.drc_silence(),
            Due::Resend(tid) => self.resend(&tid),
            Due::NoAnswer(tid) => self.no_answer(&tid),
            Due::AskAgain => self.come_up(),
        }
    }

    /// Sets something for a while from now.
    fn after(&mut self, wait_ms: u64, due: Due) {
        self.timers.set(self.now.mono.as_millis() + wait_ms, due);
    }

    /// Sets something for a while from now in the life of a real dock.
    fn after_scaled(&mut self, real: Duration, due: Due) {
        let wait = clock::millis(real.div_f64(self.settings.speed.max(clock::SPEED_MIN)));
        self.after(wait, due);
    }

    fn new_id(&mut self) -> String {
        uuid::Builder::from_random_bytes(self.rng.random()).into_uuid().to_string()
    }

    fn ids(&self) -> Ids {
        self.config.model.gateway().ids
    }

    /// `tid` and `bid` of what is told by itself.
    fn told_ids(&mut self) -> (String, String) {
        match self.ids() {
            Ids::Fresh => (self.new_id(), self.new_id()),
            Ids::Zero => (uuid::Uuid::nil().to_string(), uuid::Uuid::nil().to_string()),
        }
    }

    /// The dock's own clock.
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(
            self.now.wall.as_millis() - self.behind
                + self.conditions.clock_ahead.saturating_mul(1_000),
        )
    }

    fn publish(&mut self, topic: &UplinkTopic, payload: Vec<u8>, qos: Qos) {
        if self.link.is_down() {
            return;
        }
        self.out.push(Output::Publish {
            topic: topic.to_string(),
            payload,
            qos,
            announces: matches!(topic, UplinkTopic::Status { .. }),
        });
    }

    /// Sends an event. With `need_reply` 1 it is sent again until it is answered.
    fn event(&mut self, method: &str, bid: Option<&str>, need_reply: Option<bool>, data: &Value) {
        self.event_of(self.sn.to_device(), method, bid, need_reply, data);
    }

    /// Sends an event on the topic of the gateway or of its aircraft.
    fn event_of(
        &mut self,
        device: DeviceSn,
        method: &str,
        bid: Option<&str>,
        need_reply: Option<bool>,
        data: &Value,
    ) {
        let topic = UplinkTopic::Events { device };
        let (tid, own) = self.told_ids();
        let bid = bid.filter(|_| self.ids() == Ids::Fresh).map_or(own, str::to_owned);
        let message = Message { tid, bid, method: Some(method.to_owned()), data: data.to_string() };
        self.send_message(topic, message, need_reply);
    }

    /// Tells of properties that changed.
    fn state(&mut self, device: DeviceSn, data: &Value) {
        if self.settings.quiet || !self.link.is_announced() {
            return;
        }
        let topic = UplinkTopic::State { device };
        let (tid, bid) = self.told_ids();
        let message = Message { tid, bid, method: None, data: data.to_string() };
        // A recorded remote controller wants no answer.
        let need_reply = (self.ids() == Ids::Fresh).then_some(true);
        self.send_message(topic, message, need_reply);
    }

    fn send_message(&mut self, topic: UplinkTopic, what: Message, need_reply: Option<bool>) {
        let payload = self.written(&what, need_reply);
        self.publish(&topic, payload, Qos::AtLeastOnce);
        let can_be_told_apart = self.ids() == Ids::Fresh;
        if need_reply == Some(true) && can_be_told_apart && self.unanswered.len() < UNANSWERED_MAX {
            let tid = what.tid.clone();
            self.unanswered.insert(tid.clone(), Unanswered { topic, what, tries: 0 });
            self.wait_for_answer(tid, 0);
        }
    }

    fn wait_for_answer(&mut self, tid: String, tries: usize) {
        match RESEND_MS.get(tries) {
            Some(wait) => self.after(*wait, Due::Resend(tid)),
            None => {
                self.unanswered.remove(&tid);
            }
        }
    }

    /// The same `tid`, `bid` and data with a new timestamp, as recorded.
    fn resend(&mut self, tid: &str) {
        let Some(mut waiting) = self.unanswered.remove(tid) else { return };
        let payload = self.written(&waiting.what, Some(true));
        self.publish(&waiting.topic, payload, Qos::AtLeastOnce);
        // What could not even be sent has not used up a try.
        waiting.tries += usize::from(!self.link.is_down());
        let tries = waiting.tries;
        self.unanswered.insert(tid.to_owned(), waiting);
        self.wait_for_answer(tid.to_owned(), tries);
    }

    fn written(&self, message: &Message, need_reply: Option<bool>) -> Vec<u8> {
        let heading = Heading { tid: &message.tid, bid: &message.bid, at: self.wall() };
        match &message.method {
            Some(method) => {
                device_side::event(heading, &self.sn, method, need_reply, &message.data)
            }
            None => device_side::state(heading, &self.sn, need_reply == Some(true), &message.data),
        }
    }

    fn take_answer(&mut self, topic: &DownlinkTopic, exchange: &Exchange, data: &str) {
        let Some(tid) = exchange.tid.as_deref() else { return };
        match topic {
            DownlinkTopic::EventsReply { .. } | DownlinkTopic::StateReply { .. } => {
                self.unanswered.remove(tid);
            }
            DownlinkTopic::RequestsReply { .. } => self.take_request_answer(tid, data),
            DownlinkTopic::StatusReply { .. }
            | DownlinkTopic::Services { .. }
            | DownlinkTopic::DrcDown { .. }
            | DownlinkTopic::PropertySet { .. } => {}
        }
    }

    fn received(
        &mut self,
        exchange: Option<&Exchange>,
        seq: Option<u64>,
        method: &str,
    ) -> Received {
        self.happened(Kind::Command { method: method.to_owned() });
        Received {
            sn: Arc::clone(&self.name),
            tid: exchange.and_then(|exchange| exchange.tid.as_deref()).map(Arc::from),
            seq,
            method: method.into(),
            at: self.now.wall,
        }
    }

    fn ended(&mut self, receipt: u64, outcome: Outcome) {
        self.out.push(Output::Ended { receipt, outcome });
    }

    fn happened(&mut self, kind: Kind) {
        if self.settings.observed {
            let happening = Happening { sn: Arc::clone(&self.name), at: self.now.wall, kind };
            self.out.push(Output::Happened(happening));
        }
    }

    fn note(&mut self, text: String) {
        tracing::debug!(gateway.sn = %self.sn, "{text}");
        self.happened(Kind::Note(text));
    }
}

/// FNV-1a, so that the docks of a fleet differ however alike their names are.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
