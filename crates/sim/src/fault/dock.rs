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
    Fault, FaultPlan, Trouble,
    answer::{Letter, spoil},
    job::{RESEND_MS, Told, WatchedJob},
    names,
    rules::Rules,
};
use crate::{Dock, Output, dock::Overruled, timers::Timers};

/// Commands whose answer or events are still to be spoiled; beyond, the oldest are let go.
const WATCHED_MAX: usize = 256;
/// Longer than the slowest dock takes for its answer.
const UNANSWERED_MS_MAX: u64 = 600_000;

/// What a dock does, and what becomes of its connection then.
#[derive(Debug, Default, PartialEq)]
pub struct Deeds {
    /// What it does, in this order.
    pub outputs: Vec<Output>,
    /// The fault that the command it was just given meets, and that command's `tid`.
    pub met: Option<(String, Fault)>,
    /// The connection is cut after that, for so many milliseconds. The dock knows, and waits for
    /// [`FaultyDock::connected`].
    pub away_ms: Option<u64>,
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
}

/// A command whose fault is not over.
#[derive(Debug)]
struct Watched {
    tid: Option<String>,
    fault: Fault,
    /// When it came, by the running clock.
    came_ms: u64,
    is_answered: bool,
    /// The dock's number for it, once it has one.
    receipt: Option<u64>,
    job: Option<WatchedJob>,
}

#[derive(Debug)]
enum Later {
    Say(Letter),
    Befall(Trouble),
    ShowAircraft(bool),
}

/// A command, as far as rules look at it.
struct Heard {
    tid: Option<String>,
    bid: Option<String>,
    method: String,
    data: RawJson,
}

impl FaultyDock {
    /// Puts a dock under a plan at `now`, which incidents are counted from. `seed` is that of the plan or the fleet.
    #[must_use]
    pub fn new(dock: Dock, plan: &FaultPlan, seed: u64, now: Now) -> Self {
        let seed = dock.own_seed(seed);
        let mut later = Timers::default();
        for incident in &plan.incidents {
            later.set(now.mono.as_millis() + incident.at_ms, Later::Befall(incident.trouble));
        }
        Self {
            rules: Rules::of(plan, dock.sn(), seed),
            dice: StdRng::seed_from_u64(!seed),
            watched: VecDeque::new(),
            later,
            dock,
        }
    }

    /// The dock itself.
    #[must_use]
    pub fn dock(&self) -> &Dock {
        &self.dock
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

    /// See [`Dock::handle`].
    pub fn handle(&mut self, topic: &str, payload: &[u8], now: Now) -> Deeds {
        let heard = if self.rules.is_empty() { None } else { self.heard(topic, payload) };
        let met = heard.and_then(|heard| Some((self.rules.meet(&heard.method)?, heard)));
        let Some((fault, heard)) = met else {
            let outputs = self.dock.handle(topic, payload, now);
            return self.pass(outputs);
        };
        let told = format!("fault {} on {}", names::of(&fault), heard.method);
        let mut said = self.dock.remark(told, now);
        if fault == Fault::Never {
            self.dock.overrule(Overruled::Ignore);
        }
        if let Fault::Result { code } = fault {
            self.dock.overrule(Overruled::Refuse(code));
        }
        let cut_ms = if let Fault::Disconnect { ms } = fault { Some(ms) } else { None };
        let met = heard.tid.clone().map(|tid| (tid, fault.clone()));
        self.watch(fault, heard, now);
        said.extend(self.dock.handle(topic, payload, now));
        let deeds = match cut_ms {
            Some(ms) => self.cut(said, "fault disconnect", ms, now),
            None => self.pass(said),
        };
        Deeds { met, ..deeds }
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
                Later::Befall(trouble) => self.befall(trouble, &mut deeds, now),
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
                tid: exchange.tid,
                bid: exchange.bid,
                method: method.unwrap_or_default(),
                data,
            }),
            Downlink::PropertySet { exchange, data } => Some(Heard {
                tid: exchange.tid,
                bid: exchange.bid,
                method: "property/set".to_owned(),
                data,
            }),
            // Direct control has no exchange by which an answer could be told from what is pushed.
            Downlink::Drc { .. } | Downlink::Answer { .. } => None,
        }
    }

    fn watch(&mut self, fault: Fault, heard: Heard, now: Now) {
        // There the dock itself does it all.
        if matches!(fault, Fault::Never | Fault::Result { .. }) {
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
            tid: heard.tid,
            fault,
            came_ms: now.mono.as_millis(),
            is_answered: is_about_job,
            receipt: None,
            job,
        });
    }

    /// What is said and done, through the faults that are not over.
    fn pass(&mut self, outputs: Vec<Output>) -> Deeds {
        if self.watched.is_empty() {
            return Deeds { outputs, ..Deeds::default() };
        }
        let mut passed = Vec::with_capacity(outputs.len());
        for output in outputs {
            match output {
                Output::Publish { topic, payload, qos, announces: false } => {
                    let said = self.say(Letter { topic, payload, qos });
                    passed.extend(said.into_iter().map(publish));
                }
                Output::Received { ref received, receipt, .. } => {
                    let newest = self.watched.back_mut();
                    if let Some(watched) = newest.filter(|watched| watched.receipt.is_none())
                        && watched.tid.as_deref() == received.tid.as_deref()
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
        Deeds { outputs: passed, ..Deeds::default() }
    }

    fn say(&mut self, letter: Letter) -> Vec<Letter> {
        match UplinkTopic::parse(&letter.topic) {
            Ok(UplinkTopic::ServicesReply { .. } | UplinkTopic::PropertySetReply { .. }) => {
                self.answer(letter)
            }
            Ok(UplinkTopic::Events { .. }) => self.event(letter),
            Ok(_) | Err(_) => vec![letter],
        }
    }

    fn answer(&mut self, letter: Letter) -> Vec<Letter> {
        let json = letter.json().unwrap_or_default();
        let tid = json.get("tid").and_then(Value::as_str);
        let open = |watched: &&mut Watched| !watched.is_answered && watched.tid.as_deref() == tid;
        let Some(watched) = self.watched.iter_mut().find(open) else { return vec![letter] };
        watched.is_answered = true;
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
        deeds.outputs.extend(self.dock.disconnected(reason, now));
        deeds.away_ms = Some(ms);
        deeds
    }

    fn befall(&mut self, trouble: Trouble, deeds: &mut Deeds, now: Now) {
        match trouble {
            Trouble::ReconnectStorm { ms } => {
                let said = mem::take(&mut deeds.outputs);
                *deeds = self.cut(Vec::new(), "fault reconnect_storm", ms, now);
                deeds.outputs.splice(0..0, said);
            }
            Trouble::TopologyFlap { ms, times } => {
                deeds.outputs.extend(self.dock.show_aircraft(false, now));
                let at = now.mono.as_millis();
                self.later.set(at + ms, Later::ShowAircraft(true));
                if 1 < times {
                    let next = Trouble::TopologyFlap { ms, times: times - 1 };
                    self.later.set(at + 2 * ms, Later::Befall(next));
                }
            }
            Trouble::ClockSkew { seconds } => {
                self.dock.put_clock_ahead(seconds);
                let told = format!("fault clock_skew: the clock is {seconds} s ahead");
                deeds.outputs.extend(self.dock.remark(told, now));
            }
        }
    }
}

fn publish(letter: Letter) -> Output {
    let Letter { topic, payload, qos } = letter;
    Output::Publish { topic, payload, qos, announces: false }
}
