//! A dock under virtual time, and a cloud that says what is needed to bring it up.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use utmos_core::time::{Mono, Now, Timestamp};
use utmos_dji::catalogue::{Catalogue, Method};
use utmos_sim::{
    Dock, DockConfig, Model, Outcome, Output, ReplyTiming, Settings,
    guide::{self, Until},
};

pub static CATALOGUE: LazyLock<Arc<Catalogue>> =
    LazyLock::new(|| Arc::new(Catalogue::embedded().expect("the embedded catalogue")));

const WALL: i64 = 1_780_000_000_000;

/// A message a dock sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub at: u64,
    pub topic: String,
    pub json: Value,
}

impl Message {
    pub fn is_on(&self, end: &str) -> bool {
        self.topic.ends_with(end)
    }

    pub fn method(&self) -> &str {
        self.json["method"].as_str().unwrap_or_default()
    }

    pub fn data(&self, pointer: &str) -> &Value {
        self.json["data"].pointer(pointer).unwrap_or(&Value::Null)
    }
}

pub struct World {
    pub dock: Dock,
    pub config: DockConfig,
    pub sent: Vec<Message>,
    pub outcomes: Vec<(Option<String>, Outcome)>,
    receipts: Vec<(u64, usize)>,
    pub millis: u64,
    ids: u32,
    /// How much had been sent when something was delivered last.
    mark: usize,
}

pub fn settings() -> Settings {
    Settings { speed: 1.0, reply: ReplyTiming::Realistic, quiet: true, observed: false }
}

impl World {
    /// A quiet dock that is online.
    pub fn up() -> Self {
        Self::with(settings(), 7)
    }

    pub fn with(settings: Settings, seed: u64) -> Self {
        let mut world = Self::off(settings, seed);
        world.connect();
        world.run(1_000);
        world
    }

    /// A quiet gateway of this model that is online.
    pub fn of(model: Model) -> Self {
        Self::of_with(model, settings())
    }

    pub fn of_with(model: Model, settings: Settings) -> Self {
        let mut world = Self::made(DockConfig::numbered_as(model, 7, 1), settings, 7);
        world.connect();
        world.run(1_000);
        world
    }

    /// A dock that is not connected.
    pub fn off(settings: Settings, seed: u64) -> Self {
        Self::made(DockConfig::numbered(seed, 1), settings, seed)
    }

    fn made(config: DockConfig, settings: Settings, seed: u64) -> Self {
        let now = at(0);
        let dock = Dock::new(&config, settings, Arc::clone(&CATALOGUE), seed, now).unwrap();
        Self {
            dock,
            config,
            sent: Vec::new(),
            outcomes: Vec::new(),
            receipts: Vec::new(),
            millis: 0,
            ids: 0,
            mark: 0,
        }
    }

    pub fn connect(&mut self) {
        let outputs = self.dock.connected(self.now());
        self.note(outputs);
    }

    pub fn now(&self) -> Now {
        at(self.millis)
    }

    pub fn deliver(&mut self, end: &str, message: &Value) {
        self.mark = self.sent.len();
        self.deliver_quietly(end, message);
    }

    fn deliver_quietly(&mut self, end: &str, message: &Value) {
        let topic = format!("thing/product/{}/{end}", self.config.sn);
        self.deliver_text(&topic, message.to_string().as_bytes());
    }

    pub fn deliver_text(&mut self, topic: &str, payload: &[u8]) {
        let now = self.now();
        let outputs = self.dock.handle(topic, payload, now);
        self.note(outputs);
    }

    /// Sends a command; gives back its tid.
    pub fn services(&mut self, method: &str, data: &Value) -> String {
        self.ids += 1;
        let (tid, bid) = (format!("tid-{}", self.ids), format!("bid-{}", self.ids));
        self.deliver(
            "services",
            &json!({"tid": tid, "bid": bid, "timestamp": 1, "method": method, "data": data}),
        );
        tid
    }

    /// Sends a command and waits for its answer: result, and its data.
    pub fn ask(&mut self, method: &str, data: &Value) -> (i64, Value) {
        let tid = self.services(method, data);
        let reply = self.wait_for("an answer", 5_000, move |message| {
            message.is_on("services_reply") && message.json["tid"] == tid.as_str()
        });
        (reply.data("/result").as_i64().expect("a result"), reply.json["data"].clone())
    }

    /// Sends a command that must be accepted.
    pub fn must(&mut self, method: &str, data: &Value) -> String {
        let tid = self.services(method, data);
        let wanted = tid.clone();
        let reply = self.wait_for("an answer", 5_000, move |message| {
            message.is_on("services_reply") && message.json["tid"] == wanted.as_str()
        });
        assert_eq!(reply.data("/result"), &json!(0), "{method}");
        tid
    }

    /// Sends on `drc/down`.
    pub fn drc(&mut self, message: &Value) {
        self.deliver("drc/down", message);
    }

    pub fn outcome(&self, tid: &str) -> Option<Outcome> {
        let of_tid = |(id, _): &&(Option<String>, Outcome)| id.as_deref() == Some(tid);
        self.outcomes.iter().filter(of_tid).map(|(_, outcome)| *outcome).next_back()
    }

    /// Runs for so long.
    pub fn run(&mut self, millis: u64) {
        let end = self.millis + millis;
        while let Some(wake) = self.next_wake().filter(|wake| *wake <= end) {
            self.tick(wake);
        }
        self.millis = end;
    }

    fn next_wake(&self) -> Option<u64> {
        self.dock.next_wake().map(Mono::as_millis)
    }

    fn tick(&mut self, wake: u64) {
        self.millis = self.millis.max(wake);
        let outputs = self.dock.tick(self.now());
        self.note(outputs);
    }

    /// Runs until a message since the last delivery is the one wanted.
    pub fn wait_for(
        &mut self,
        what: &str,
        millis: u64,
        is_it: impl Fn(&Message) -> bool,
    ) -> Message {
        let end = self.millis + millis;
        let mut seen = self.mark;
        loop {
            if let Some(found) = self.sent.iter().skip(seen).find(|message| is_it(message)) {
                return found.clone();
            }
            seen = self.sent.len();
            let wake = self.next_wake().filter(|wake| *wake <= end);
            let Some(wake) = wake else { panic!("no {what} within {millis} ms") };
            self.tick(wake);
        }
    }

    /// Runs until the job of this command has ended.
    pub fn until_end(&mut self, tid: &str) -> Outcome {
        let end = self.millis + 30 * 60_000;
        loop {
            match self.outcome(tid) {
                Some(Outcome::Running) => {}
                Some(outcome) => return outcome,
                None => panic!("{tid} was never received"),
            }
            let wake = self.next_wake().filter(|wake| *wake <= end);
            let Some(wake) = wake else { panic!("{tid} never ends") };
            self.tick(wake);
        }
    }

    pub fn until_docked(&mut self) {
        let end = self.millis + 30 * 60_000;
        while !self.dock.aircraft_is_in_dock() {
            let wake = self.next_wake().filter(|wake| *wake <= end);
            self.tick(wake.expect("it comes back"));
        }
        self.run(60_000);
    }

    /// Brings the dock to where this method is carried out.
    pub fn prepare(&mut self, method: &Method) {
        for first in guide::before(method, self.config.model) {
            let first_method = CATALOGUE.method(first.method).unwrap();
            let payload = guide::payload(first_method, &self.config, self.now().wall);
            let tid = self.must(first.method, &payload);
            match first.until {
                Until::Reply => {}
                Until::End => {
                    assert_eq!(self.until_end(&tid), Outcome::Succeeded, "{}", first.method)
                }
                Until::Wayline => {
                    self.wait_for("wayline", 300_000, |message| {
                        message.data("/output/ext/wayline_mission_state") == &json!(6)
                    });
                }
            }
        }
    }

    pub fn take_off(&mut self) {
        let method = CATALOGUE.method("takeoff_to_point").unwrap();
        self.prepare(method);
        let payload = guide::payload(method, &self.config, self.now().wall);
        let tid = self.must("takeoff_to_point", &payload);
        assert_eq!(self.until_end(&tid), Outcome::Succeeded);
    }

    pub fn events(&self, method: &str) -> Vec<&Message> {
        let wanted = |message: &&Message| message.is_on("/events") && message.method() == method;
        self.sent.iter().filter(wanted).collect()
    }

    pub fn note(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Publish { topic, payload, .. } => {
                    let json = serde_json::from_slice(&payload).expect("docks send JSON");
                    let message = Message { at: self.millis, topic, json };
                    self.sent.push(message.clone());
                    self.cloud(&message);
                }
                Output::Received { received, receipt, outcome } => {
                    self.receipts.push((receipt, self.outcomes.len()));
                    let tid = received.tid.as_deref().map(str::to_owned);
                    self.outcomes.push((tid, outcome));
                }
                Output::Ended { receipt, outcome } => {
                    let slot = self.receipts.iter().find(|(number, _)| *number == receipt);
                    let (_, at) = slot.expect("what ends was received before");
                    assert_eq!(self.outcomes[*at].1, Outcome::Running, "a job ends once");
                    self.outcomes[*at].1 = outcome;
                }
                Output::Happened(_) => {}
            }
        }
    }

    /// Answers what a dock asks, and acknowledges what it wants acknowledged.
    fn cloud(&mut self, message: &Message) {
        let tid = &message.json["tid"];
        if message.is_on("/requests") {
            let data = match message.method() {
                "config" => {
                    json!({"ntp_server_host": "n", "app_id": "1", "app_key": "", "app_license": ""})
                }
                "airport_bind_status" => json!({"result": 0, "output": {"bind_status": [
                    {"sn": "a", "is_device_bind_organization": true},
                    {"sn": "b", "is_device_bind_organization": true}]}}),
                _ => json!({"result": 0, "output": {"files": []}}),
            };
            let answer = json!({"tid": tid, "bid": "b", "method": message.method(), "data": data});
            self.deliver_quietly("requests_reply", &answer);
        } else if message.is_on("/events") && message.json["need_reply"] == json!(1) {
            let answer = json!({"tid": tid, "bid": "b", "data": {"result": 0}});
            self.deliver_quietly("events_reply", &answer);
        }
    }
}

/// A model that knows a method: a Dock 2 where it does.
pub fn model_for(method: &Method) -> Model {
    let models = [Model::Dock2, Model::Dock3, Model::Dock1, Model::RcPlus2, Model::RcPro];
    let knows = models.into_iter().find(|model| model.knows(method));
    knows.unwrap_or_else(|| panic!("no model knows {}", method.name))
}

fn at(millis: u64) -> Now {
    Now {
        wall: Timestamp::from_millis(WALL + i64::try_from(millis).unwrap()),
        mono: Mono::from_millis(millis),
    }
}
