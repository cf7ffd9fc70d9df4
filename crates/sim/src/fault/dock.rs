//! A dock that follows a plan. It stands between a [`Dock`] and its broker: it hears what the dock would hear, and may
//! change, delay or keep back what the dock says.

use std::{collections::VecDeque, mem};

use rand::{SeedableRng, rngs::StdRng};
use serde_json::Value;
use utmos_core::{
    reply::RawJson,
    time::{Mono, Now},
};
use utmos_dji::{
    device_side::{self, Downlink},
    topic::{DownlinkTopic, UplinkTopic},
};

use super::{
    Entry, Fault, FaultPlan, Trouble,
    answer::{Letter, spoil},
    job::{RESEND_MS, Told, WatchedJob},
    rules::Rules,
};
use crate::{
    Asking, Condition, Conditions, Dock, DockState, Output, dock::Overruled, timers::Timers,
};

/// Commands whose answer or events are still to be spoiled; beyond, the oldest are let go.
const WATCHED_MAX: usize = 256;
/// Longer than the slowest dock takes for its answer.
const UNANSWERED_MS_MAX: u64 = 600_000;

/// What a dock does, and what becomes of its connection then.
#[derive(Debug, Default, PartialEq)]
pub struct Deeds {
    /// What it does, in this order.
    pub outputs: Vec<Output>,
    /// What the command it was just given meets.
    pub met: Option<Met>,
    /// The number under which the acknowledgement of the message it was just given is kept back. Without one, it is sent
    /// before anything else is done.
    pub keeps_back: Option<u64>,
    /// Acknowledgements that were kept back and are sent now.
    pub acknowledges: Vec<Acknowledged>,
    /// What becomes of the connection after all that.
    pub connection: Option<Connection>,
}

/// Which fault a command meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Met {
    /// The number of the rule.
    pub rule: u64,
    /// The command, where it has a `tid`.
    pub tid: Option<String>,
    /// The fault.
    pub fault: Fault,
}

/// An acknowledgement that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// The number it was kept back under.
    pub number: u64,
    /// Which output has to be with the broker before; none: at once.
    pub after: Option<usize>,
}

/// What a fault makes of a connection. The dock knows, and waits for [`FaultyDock::connected`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Lost for so many milliseconds.
    LostFor(u64),
    /// Lost until it is said to be back.
    Lost,
    /// Back.
    Back,
}

/// A dock under a plan.
#[derive(Debug)]
pub struct FaultyDock {
    dock: Dock,
    rules: Rules,
    /// For wrong ids and the like.
    dice: StdRng,
    watched: VecDeque<Watched>,
    later: Timers<Later>,
    /// Conditions by the number of their incident, in the order they began.
    conditions: Vec<(u64, Condition)>,
    /// Acknowledgements kept back so far.
    kept_back: u64,
    /// Those whose answer is on its way out.
    answered: Vec<u64>,
}

/// A command whose fault is not over.
#[derive(Debug)]
struct Watched {
    heard: Name,
    fault: Fault,
    /// When it came, by the running clock.
    came_ms: u64,
    is_answered: bool,
    /// The dock's number for it, once it has one.
    receipt: Option<u64>,
    job: Option<WatchedJob>,
    /// The acknowledgement that waits for its answer.
    keeps_back: Option<u64>,
}

/// By what a command and its answer are known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    tid: Option<String>,
    /// On `drc/down`, where there is no `tid`: the method and the number, if it has one.
    drc: Option<(String, Option<u64>)>,
}

#[derive(Debug)]
enum Later {
    Say(Letter),
    Befall(u64, Trouble),
    Over(u64),
    ShowAircraft(bool),
    Acknowledge(u64),
}

/// A command, as far as rules look at it.
struct Heard {
    name: Name,
    bid: Option<String>,
    method: String,
    data: RawJson,
}

impl FaultyDock {
    /// Puts a dock under a plan at `now`, which incidents are counted from. `seed` is that of the plan or the fleet.
    ///
    /// The rules of the plan have the numbers from 1, its incidents those behind.
    #[must_use]
    pub fn new(dock: Dock, plan: &FaultPlan, seed: u64, now: Now) -> Self {
        let seed = dock.own_seed(seed);
        let mut faulty = Self {
            rules: Rules::new(seed),
            dice: StdRng::seed_from_u64(!seed),
            watched: VecDeque::new(),
            later: Timers::default(),
            conditions: Vec::new(),
            kept_back: 0,
            answered: Vec::new(),
            dock,
        };
        for (number, entry) in (1..).zip(plan.entries()) {
            faulty.take(number, &entry, false, now);
        }
        faulty
    }

    /// The dock itself.
    #[must_use]
    pub fn dock(&self) -> &Dock {
        &self.dock
    }

    /// See [`Dock::shown`].
    #[must_use]
    pub fn shown(&self, now: Now) -> DockState {
        self.dock.shown(now)
    }

    /// Adds a fault, before those that are there, or something that befalls the dock, counted from `now`. The number is
    /// no other one's; with the seed it fixes the dice.
    pub fn add(&mut self, number: u64, entry: &Entry, now: Now) {
        self.take(number, entry, true, now);
    }

    /// Takes a fault away, or what has not yet come to pass, or ends a condition.
    pub fn remove(&mut self, number: u64, now: Now) -> Deeds {
        self.rules.remove(number);
        self.later.cancel(|later| match later {
            Later::Befall(of, _) | Later::Over(of) => *of == number,
            Later::Say(_) | Later::ShowAircraft(_) | Later::Acknowledge(_) => false,
        });
        let mut deeds = Deeds::default();
        self.end(number, &mut deeds, now);
        deeds
    }

    fn take(&mut self, number: u64, entry: &Entry, is_first: bool, now: Now) {
        match entry {
            Entry::Rule(rule) => {
                let gateway = rule.meets.gateway.as_deref();
                if gateway.is_none_or(|sn| sn == self.dock.sn()) {
                    self.rules.add(number, rule.clone(), is_first);
                }
            }
            Entry::Incident(incident) => {
                if incident.concerns(self.dock.sn()) {
                    let at = now.mono.as_millis() + incident.at_ms;
                    self.later.set(at, Later::Befall(number, incident.trouble));
                }
            }
        }
    }

    /// See [`Dock::connected`].
    pub fn connected(&mut self, now: Now) -> Deeds {
        let outputs = self.dock.connected(now);
        self.pass(outputs)
    }

    /// See [`Dock::disconnected`].
    pub fn disconnected(&mut self, reason: &str, now: Now) -> Deeds {
        let outputs = self.dock.disconnected(reason, now);
        self.pass(outputs)
    }

    /// See [`Dock::ask_for`].
    pub fn ask_for(&mut self, asking: &Asking, now: Now) -> (Option<String>, Deeds) {
        let (tid, outputs) = self.dock.ask_for(asking, now);
        (tid, self.pass(outputs))
    }

    /// See [`Dock::handle`].
    pub fn handle(&mut self, topic: &str, payload: &[u8], now: Now) -> Deeds {
        let heard = if self.rules.is_empty() { None } else { self.heard(topic, payload) };
        let met = heard.and_then(|heard| Some((self.rules.meet(&heard.method)?, heard)));
        let Some(((rule, fault), heard)) = met else {
            let outputs = self.dock.handle(topic, payload, now);
            return self.pass(outputs);
        };
        let told = format!("fault {} on {}", fault.name(), heard.method);
        let mut said = self.dock.remark(told, now);
        if fault == Fault::Never {
            self.dock.overrule(Overruled::Ignore);
        }
        if let Fault::Result { code } = fault {
            self.dock.overrule(Overruled::Refuse(code));
        }
        let cut_ms = if let Fault::Disconnect { ms } = fault { Some(ms) } else { None };
        let met = Some(Met { rule, tid: heard.name.tid.clone(), fault: fault.clone() });
        let keeps_back = self.keep_back(&fault, now);
        self.watch(fault, heard, keeps_back, now);
        said.extend(self.dock.handle(topic, payload, now));
        let deeds = match cut_ms {
            Some(ms) => self.cut(said, "fault disconnect", ms, now),
            None => self.pass(said),
        };
        Deeds { met, keeps_back, ..deeds }
    }

    /// See [`Dock::tick`].
    pub fn tick(&mut self, now: Now) -> Deeds {
        let outputs = self.dock.tick(now);
        let mut deeds = self.pass(outputs);
        while let Some((_, later)) = self.later.pop(now.mono.as_millis()) {
            match later {
                // What would have been said while there is no connection is lost, as it is to the dock itself.
                Later::Say(letter) if self.dock.is_connected() => {
                    deeds.outputs.push(publish(letter))
                }
                Later::Say(_) => {}
                Later::ShowAircraft(is_shown) => {
                    deeds.outputs.extend(self.dock.show_aircraft(is_shown, now));
                }
                Later::Befall(number, trouble) => self.befall(number, trouble, &mut deeds, now),
                Later::Over(number) => self.end(number, &mut deeds, now),
                Later::Acknowledge(number) => {
                    deeds.acknowledges.push(Acknowledged { number, after: None });
                }
            }
        }
        deeds
    }

    /// See [`Dock::next_wake`].
    #[must_use]
    pub fn next_wake(&self) -> Option<Mono> {
        let later = self.later.next().map(Mono::from_millis);
        [self.dock.next_wake(), later].into_iter().flatten().min()
    }

    fn heard(&self, topic: &str, payload: &[u8]) -> Option<Heard> {
        let topic = DownlinkTopic::parse(topic).ok()?;
        if topic.device().as_str() != self.dock.sn() {
            return None;
        }
        match device_side::read(&topic, payload).ok()? {
            Downlink::Services { exchange, method, data } => Some(Heard {
                name: Name { tid: exchange.tid, drc: None },
                bid: exchange.bid,
                method: method.unwrap_or_default(),
                data,
            }),
            Downlink::PropertySet { exchange, data } => Some(Heard {
                name: Name { tid: exchange.tid, drc: None },
                bid: exchange.bid,
                method: "property/set".to_owned(),
                data,
            }),
            Downlink::Drc { method, seq, data } => {
                let method = method.unwrap_or_default();
                let name = Name { tid: None, drc: Some((method.clone(), seq)) };
                Some(Heard { name, bid: None, method, data })
            }
            Downlink::Answer { .. } => None,
        }
    }

    /// Keeps the acknowledgement back, if the fault is about it; its number.
    fn keep_back(&mut self, fault: &Fault, now: Now) -> Option<u64> {
        if !matches!(fault, Fault::Early | Fault::LateAck { .. } | Fault::NoAck) {
            return None;
        }
        self.kept_back += 1;
        if let Fault::LateAck { ms } = fault {
            self.later.set(now.mono.as_millis() + ms, Later::Acknowledge(self.kept_back));
        }
        Some(self.kept_back)
    }

    fn watch(&mut self, fault: Fault, heard: Heard, keeps_back: Option<u64>, now: Now) {
        // There the dock itself does it all.
        if matches!(
            fault,
            Fault::Never | Fault::Result { .. } | Fault::LateAck { .. } | Fault::NoAck
        ) {
            return;
        }
        let is_about_job =
            matches!(fault, Fault::ProgressOutOfOrder | Fault::ProgressStops | Fault::ResendEvents);
        let form = self.dock.job_of(&heard.method).filter(|_| is_about_job);
        let job = form.map(|form| {
            let payload: Value = serde_json::from_str(&heard.data).unwrap_or_default();
            WatchedJob::of(form, heard.bid.as_deref(), &payload)
        });
        if WATCHED_MAX <= self.watched.len() {
            self.watched.pop_front();
        }
        self.watched.push_back(Watched {
            heard: heard.name,
            fault,
            came_ms: now.mono.as_millis(),
            is_answered: is_about_job,
            receipt: None,
            job,
            keeps_back,
        });
    }

    /// What is said and done, through the faults that are not over.
    fn pass(&mut self, outputs: Vec<Output>) -> Deeds {
        if self.watched.is_empty() {
            return Deeds { outputs, ..Deeds::default() };
        }
        let mut acknowledges = Vec::new();
        let mut passed = Vec::with_capacity(outputs.len());
        for output in outputs {
            match output {
                Output::Publish { topic, payload, qos, announces: false } => {
                    let said = self.say(Letter { topic, payload, qos });
                    passed.extend(said.into_iter().map(publish));
                    let after = passed.len().checked_sub(1);
                    let answered = self.answered.drain(..);
                    acknowledges.extend(answered.map(|number| Acknowledged { number, after }));
                }
                Output::Received { ref received, receipt, .. } => {
                    let newest = self.watched.back_mut();
                    if let Some(watched) = newest.filter(|watched| watched.receipt.is_none())
                        && watched.heard.tid.as_deref() == received.tid.as_deref()
                    {
                        watched.receipt = Some(receipt);
                    }
                    passed.push(output);
                }
                Output::Ended { receipt, .. } => {
                    let ended = self.watched.iter_mut().find(|one| one.receipt == Some(receipt));
                    let rest = ended.and_then(|watched| watched.job.as_mut()?.rest());
                    passed.extend(rest.map(publish));
                    passed.push(output);
                }
                Output::Publish { announces: true, .. } | Output::Happened(_) => {
                    passed.push(output)
                }
            }
        }
        // What is answered and has no events to watch is over, and so is what can no longer be answered.
        let now = self.dock.now_ms();
        self.watched.retain(|watched| {
            watched.job.is_some()
                || (!watched.is_answered && now < watched.came_ms + UNANSWERED_MS_MAX)
        });
        Deeds { outputs: passed, acknowledges, ..Deeds::default() }
    }

    fn say(&mut self, letter: Letter) -> Vec<Letter> {
        let topic = UplinkTopic::parse(&letter.topic);
        let is_drc = matches!(topic, Ok(UplinkTopic::DrcUp { .. }));
        match topic {
            Ok(
                UplinkTopic::ServicesReply { .. }
                | UplinkTopic::PropertySetReply { .. }
                | UplinkTopic::DrcUp { .. },
            ) => self.answer(letter, is_drc),
            Ok(UplinkTopic::Events { .. }) => self.event(letter),
            Ok(_) | Err(_) => vec![letter],
        }
    }

    fn answer(&mut self, letter: Letter, is_drc: bool) -> Vec<Letter> {
        let json = letter.json().unwrap_or_default();
        let open = |watched: &&mut Watched| {
            let heard = &watched.heard;
            !watched.is_answered && heard.drc.is_some() == is_drc && heard.is_of(&json)
        };
        let Some(watched) = self.watched.iter_mut().find(open) else { return vec![letter] };
        watched.is_answered = true;
        self.answered.extend(watched.keeps_back);
        if let Fault::Late { ms } = watched.fault {
            self.later.set(watched.came_ms + ms, Later::Say(letter));
            return Vec::new();
        }
        spoil(&watched.fault, letter, &mut self.dice)
    }

    fn event(&mut self, letter: Letter) -> Vec<Letter> {
        let event = letter.json().unwrap_or_default();
        let owner = self.watched.iter_mut().find_map(|watched| {
            let job = watched.job.as_mut().filter(|job| job.owns(&event))?;
            Some((&watched.fault, job))
        });
        let Some((fault, job)) = owner else { return vec![letter] };
        let Told { now, later } = job.tell(fault, letter, &event);
        if let Some(copy) = later {
            self.later.set(self.dock.now_ms() + RESEND_MS, Later::Say(copy));
        }
        now
    }

    /// The connection goes, and with it what was about to be said.
    fn cut(&mut self, said: Vec<Output>, reason: &str, ms: u64, now: Now) -> Deeds {
        let mut deeds = self.pass(said);
        deeds.outputs.retain(|output| !matches!(output, Output::Publish { .. }));
        // Nobody waits for them any more.
        deeds.acknowledges.clear();
        deeds.outputs.extend(self.dock.disconnected(reason, now));
        deeds.connection = Some(Connection::LostFor(ms));
        deeds
    }

    fn befall(&mut self, number: u64, trouble: Trouble, deeds: &mut Deeds, now: Now) {
        let at = now.mono.as_millis();
        match trouble {
            Trouble::ReconnectStorm { ms, times } => {
                // Who is offline has nothing to lose.
                if !self.dock.conditions().offline {
                    let said = mem::take(&mut deeds.outputs);
                    *deeds = self.cut(Vec::new(), "fault reconnect_storm", ms, now);
                    deeds.outputs.splice(0..0, said);
                }
                if 1 < times {
                    let next = Trouble::ReconnectStorm { ms, times: times - 1 };
                    self.later.set(at + 2 * ms, Later::Befall(number, next));
                }
            }
            Trouble::TopologyFlap { ms, times } => {
                deeds.outputs.extend(self.dock.show_aircraft(false, now));
                self.later.set(at + ms, Later::ShowAircraft(true));
                if 1 < times {
                    let next = Trouble::TopologyFlap { ms, times: times - 1 };
                    self.later.set(at + 2 * ms, Later::Befall(number, next));
                }
            }
            Trouble::Condition { condition, ms } => {
                self.conditions.push((number, condition));
                if let Some(ms) = ms {
                    self.later.set(at + ms, Later::Over(number));
                }
                let told = format!("condition {}", condition.name());
                deeds.outputs.extend(self.dock.remark(told, now));
                self.suffer(deeds, now);
            }
        }
    }

    /// Ends a condition, if it is one that has begun.
    fn end(&mut self, number: u64, deeds: &mut Deeds, now: Now) {
        let Some(at) = self.conditions.iter().position(|(of, _)| *of == number) else { return };
        let (_, condition) = self.conditions.remove(at);
        let told = format!("condition {} is over", condition.name());
        deeds.outputs.extend(self.dock.remark(told, now));
        self.suffer(deeds, now);
    }

    /// Makes the conditions true for the dock and its connection.
    fn suffer(&mut self, deeds: &mut Deeds, now: Now) {
        let was_offline = self.dock.conditions().offline;
        let conditions = Conditions::of(self.conditions.iter().map(|(_, condition)| *condition));
        deeds.outputs.extend(self.dock.put_under(conditions, now));
        if !was_offline && conditions.offline {
            deeds.outputs.retain(|output| !matches!(output, Output::Publish { .. }));
            deeds.acknowledges.clear();
            deeds.outputs.extend(self.dock.disconnected("condition offline", now));
            deeds.connection = Some(Connection::Lost);
        }
        if was_offline && !conditions.offline {
            deeds.connection = Some(Connection::Back);
        }
    }
}

impl Name {
    /// Whether a message is the answer to the command of this name.
    fn is_of(&self, answer: &Value) -> bool {
        let Some((method, seq)) = &self.drc else {
            return answer.get("tid").and_then(Value::as_str) == self.tid.as_deref();
        };
        let places = ["/seq", "/data/output/seq", "/data/seq"];
        let answered = places.iter().find_map(|at| answer.pointer(at)?.as_u64());
        answer.get("method").and_then(Value::as_str) == Some(method)
            && (seq.is_none() || answered.is_none() || *seq == answered)
    }
}

fn publish(letter: Letter) -> Output {
    let Letter { topic, payload, qos } = letter;
    Output::Publish { topic, payload, qos, announces: false }
}
