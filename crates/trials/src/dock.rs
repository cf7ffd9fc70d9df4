//! What docks do: they connect, take a command, do it or not, and say so or not.

use std::{sync::Arc, time::Duration};

use rand::{RngExt, rngs::StdRng};
use serde_json::{Value, json};
use utmos_core::id::CommandId;
use utmos_mqtt::Inbound;

use crate::{
    facts::Truth,
    life::Platform,
    plan::{Answer, Broker, Kind, Weather, Wish},
    world::{World, gateway},
};

/// How often a dock without a connection tries again.
const RETRY_WAIT: Duration = Duration::from_millis(60);
/// How often telemetry comes.
const TELEMETRY_WAIT: u64 = 2_000;

/// How often a dock says the same that talks without end, and how fast.
const TALK_MAX: u32 = 60;
const TALK_WAIT: Duration = Duration::from_millis(15);

/// Lives the life of a dock: connects whenever it can, and reports.
pub(crate) async fn live(world: Arc<World>, dock: u8) {
    let mut reported = 0;
    loop {
        let now = world.clock.elapsed();
        let may_connect = {
            let state = world.state();
            let is_there = world.plan.broker.is_outside() || state.is_served();
            let known = state.docks.get(usize::from(dock));
            is_there
                && state.broker_stands(now)
                && known.is_some_and(|dock| !dock.is_connected && now >= dock.away_until)
        };
        if may_connect {
            let pause = world.dice(|dice| dice.random_range(0..400));
            tokio::time::sleep(Duration::from_millis(pause)).await;
            world.give_way().await;
            connect(&world, dock).await;
        } else if world.plan.broker.is_outside()
            && now >= reported + TELEMETRY_WAIT
            && world.session_of(dock).is_some()
        {
            reported = now;
            report(&world, dock);
        }
        tokio::time::sleep(RETRY_WAIT).await;
    }
}

async fn connect(world: &Arc<World>, dock: u8) {
    let now = world.clock.elapsed();
    let stored = {
        let mut state = world.state();
        let is_there =
            (world.plan.broker.is_outside() || state.is_served()) && state.broker_stands(now);
        let Some(known) = state.docks.get_mut(usize::from(dock)) else { return };
        if !is_there || now < known.away_until {
            return;
        }
        known.session += 1;
        known.is_connected = true;
        known.changes.push((now, true));
        std::mem::take(&mut known.stored)
    };
    world.trace(|| format!("{} is connected", gateway(dock)));
    match world.plan.broker {
        Broker::Embedded => {
            let session = world.session_of(dock);
            let user: Arc<str> = gateway(dock).as_str().into();
            world.tell_servers(&Inbound::Joined { user: user.clone(), client_id: user.clone() });
            let pause = world.dice(|dice| dice.random_range(0..10));
            tokio::time::sleep(Duration::from_millis(pause)).await;
            world.give_way().await;
            if world.session_of(dock) == session {
                let filter = format!("thing/product/{}/services", gateway(dock)).into();
                let client_id = user.clone();
                world.tell_servers(&Inbound::Subscribed { user, client_id, filter });
            }
        }
        Broker::Outside | Broker::Outside311 => report(world, dock),
    }
    // Only a broker of a mutation has any.
    for id in stored {
        world.note_written(id, None, false);
        if receive(world, dock, id).is_some() {
            act(world.clone(), dock, id);
        }
    }
}

fn report(world: &Arc<World>, dock: u8) {
    let body = json!({"tid": "t", "bid": "b", "timestamp": 1, "gateway": gateway(dock), "data": {"mode_code": 0}});
    send(world, dock, "osd", body.to_string(), None);
}

/// A command arrives at a dock. Answers what the dock will make of it.
pub(crate) fn receive(world: &Arc<World>, dock: u8, id: CommandId) -> Option<Answer> {
    let now = world.clock.elapsed();
    world.trace(|| format!("{id} reaches {}", gateway(dock)));
    world.note_received(id);
    let (wish, _) = wish_of(world, id)?;
    if wish.kind == Kind::Stick {
        world.state().facts(id).truths.push((now, Truth::Done));
        return None;
    }
    Some(wish.answer)
}

/// The wish behind a command, and its `bid`.
fn wish_of(world: &World, id: CommandId) -> Option<(Wish, String)> {
    let (key, bid) = {
        let state = world.state();
        let spec = &state.known.get(&id)?.spec;
        (spec.idempotency_key.clone(), spec.bid.to_string())
    };
    let (_, wish) = world.wish_of(&key)?;
    Some((wish.clone(), bid))
}

/// Does what the plan says, in its own time.
pub(crate) fn act(world: Arc<World>, dock: u8, id: CommandId) {
    tokio::spawn(async move {
        if let Some((wish, bid)) = wish_of(&world, id) {
            Acting { world, dock, id, bid, wish }.act().await;
        }
    });
}

struct Acting {
    world: Arc<World>,
    dock: u8,
    id: CommandId,
    bid: String,
    wish: Wish,
}

impl Acting {
    async fn act(&self) {
        let is_job = matches!(self.wish.kind, Kind::Job | Kind::Flight);
        match self.wish.answer {
            Answer::SaysAtOnce if !is_job => self.succeed(1).await,
            Answer::SaysAtOnce | Answer::Does if is_job => self.run_job(Truth::Done, true).await,
            Answer::SaysTwice if is_job => self.run_job(Truth::Done, true).await,
            Answer::SaysTwice => {
                self.pause(1).await;
                self.succeed(2).await;
            }
            Answer::Chatters => {
                // Whoever takes the first word of it for the last is right, unless it is a job.
                self.become_true(if is_job { Truth::Begun } else { Truth::Done });
                for _ in 0..TALK_MAX {
                    let data = json!({"result": 0, "output": {"status": "in_progress"}});
                    self.reply(self.dock, self.method(), data, Says::Something).await;
                    tokio::time::sleep(TALK_WAIT).await;
                }
                match is_job {
                    true => self.run_job(Truth::Done, true).await,
                    false => self.succeed(1).await,
                }
            }
            Answer::Does | Answer::SaysAtOnce => {
                self.pause(1).await;
                self.succeed(1).await;
            }
            Answer::FailsLater if is_job => self.run_job(Truth::Failed, true).await,
            Answer::FallsSilent if is_job => self.run_job(Truth::Begun, false).await,
            Answer::Refuses | Answer::FailsLater => {
                self.pause(1).await;
                self.become_true(Truth::Refused);
                self.reply(self.dock, self.method(), json!({"result": 319_016}), Says::Last).await;
            }
            Answer::IsSilent | Answer::FallsSilent => self.become_true(Truth::Done),
            Answer::Ignores => {}
            Answer::AnotherAnswers => {
                self.pause(1).await;
                let other = (self.dock + 1) % self.world.plan.docks;
                if other != self.dock {
                    self.reply(other, self.method(), json!({"result": 0}), Says::Odd).await;
                }
            }
            Answer::NamesAnother => {
                self.pause(1).await;
                self.reply(self.dock, "cover_close", json!({"result": 0}), Says::Odd).await;
            }
            Answer::SaysNothingReadable => {
                self.become_true(Truth::Done);
                self.pause(1).await;
                self.reply(self.dock, self.method(), json!({"result": "?"}), Says::Odd).await;
            }
            Answer::Babbles => {
                self.become_true(Truth::Done);
                self.pause(1).await;
                let text = format!("{{\"tid\":\"{}\",\"method\":", self.id);
                send(&self.world, self.dock, "services_reply", text, None);
            }
        }
    }

    async fn succeed(&self, times: u8) {
        self.become_true(Truth::Done);
        for _ in 0..times {
            self.reply(self.dock, self.method(), json!({"result": 0}), Says::Last).await;
            tokio::time::sleep(Duration::from_millis(u64::from(times - 1) * 7)).await;
        }
    }

    /// A job: it starts, reports half-way, and ends.
    async fn run_job(&self, end: Truth, says_so: bool) {
        self.become_true(Truth::Begun);
        self.pause(3).await;
        let data = match self.wish.kind {
            Kind::Job => json!({"result": 0, "output": {"status": "in_progress"}}),
            Kind::Reply | Kind::Flight | Kind::Home | Kind::Stop | Kind::Stick => {
                json!({"result": 0})
            }
        };
        self.reply(self.dock, self.method(), data, Says::Something).await;
        if self.wish.answer == Answer::SaysTwice {
            let data = json!({"result": 0, "output": {"status": "in_progress"}});
            self.reply(self.dock, self.method(), data, Says::Something).await;
        }
        self.pause(3).await;
        self.event(false, true).await;
        self.pause(3).await;
        self.become_true(end);
        if says_so {
            self.event(true, end == Truth::Done).await;
        }
    }

    fn become_true(&self, truth: Truth) {
        let now = self.world.clock.elapsed();
        self.world.state().facts(self.id).truths.push((now, truth));
    }

    /// A part of the time it takes.
    async fn pause(&self, parts: u64) {
        tokio::time::sleep(Duration::from_millis(self.wish.after / parts)).await;
    }

    fn method(&self) -> &'static str {
        self.wish.kind.method()
    }

    async fn reply(&self, from: u8, method: &str, data: Value, says: Says) {
        let body = json!({
            "tid": self.id.to_string(), "bid": self.bid, "timestamp": 1, "method": method,
            "gateway": gateway(from), "data": data,
        });
        self.world.give_way().await;
        if says == Says::Odd {
            let now = self.world.clock.elapsed();
            self.world.state().facts(self.id).odd_answer.get_or_insert(now);
        }
        send(&self.world, from, "services_reply", body.to_string(), Some((self.id, says)));
    }

    async fn event(&self, is_last: bool, is_good: bool) {
        let (method, data) = match self.wish.kind {
            Kind::Flight => {
                let status = match (is_last, is_good) {
                    (false, _) => "wayline_progress",
                    (true, true) => "wayline_ok",
                    (true, false) => "wayline_failed",
                };
                let data = json!({"fly_to_id": self.id_of_flight(), "status": status, "result": 0});
                ("fly_to_point_progress", data)
            }
            Kind::Reply | Kind::Job | Kind::Home | Kind::Stop | Kind::Stick => {
                let status = match (is_last, is_good) {
                    (false, _) => "in_progress",
                    (true, true) => "ok",
                    (true, false) => "failed",
                };
                let progress =
                    json!({"percent": if is_last { 100 } else { 50 }, "step_key": "open_cover"});
                (
                    "cover_open",
                    json!({"result": 0, "output": {"status": status, "progress": progress}}),
                )
            }
        };
        let body = json!({
            "tid": self.id.to_string(), "bid": self.bid, "timestamp": 1, "method": method,
            "gateway": gateway(self.dock), "need_reply": 0, "data": data,
        });
        let says = is_last.then_some((self.id, Says::LastOfJob));
        self.world.give_way().await;
        send(&self.world, self.dock, "events", body.to_string(), says);
    }

    fn id_of_flight(&self) -> String {
        let state = self.world.state();
        let known = state.known.get(&self.id);
        known.and_then(|known| known.spec.job_ref.clone()).unwrap_or_default()
    }
}

impl Kind {
    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Reply => "debug_mode_open",
            Self::Job => "cover_open",
            Self::Flight => "fly_to_point",
            Self::Home => "return_home",
            Self::Stop => "fly_to_point_stop",
            Self::Stick => "stick_control",
        }
    }
}

/// How long a message is under way in rough weather, at the most.
const WAY_WAIT_MAX: u64 = 150;

/// What a message says of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// It cannot be its answer, or not be read.
    Odd,
    /// Its dock's own readable answer, after which it goes on.
    Something,
    /// Its dock's own readable answer, by which it ends.
    Last,
    /// The event by which its job ends.
    LastOfJob,
}

/// A message of a dock, which says something of a command, or of none. What it says while it is cut is lost. In
/// rough weather messages are late, overtake each other, come twice, or do not come.
fn send(
    world: &Arc<World>,
    dock: u8,
    topic: &'static str,
    text: String,
    says: Option<(CommandId, Says)>,
) {
    let Some(session) = world.session_of(dock) else { return };
    let message = Saying { dock, session, topic, text, says };
    if world.plan.weather == Weather::Clear {
        message.arrive(world);
        return;
    }
    let (chance, ways) = world.dice(|dice| {
        let way = |dice: &mut StdRng| dice.random_range(0..=WAY_WAIT_MAX);
        (dice.random_range(0..100), [way(dice), way(dice)])
    });
    let copies = match chance {
        0..5 => 0,
        5..12 => 2,
        _ => 1,
    };
    for way in ways.into_iter().take(copies) {
        let (world, message) = (world.clone(), message.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(way)).await;
            world.give_way().await;
            message.arrive(&world);
        });
    }
}

/// What a dock says, under way.
#[derive(Clone)]
struct Saying {
    dock: u8,
    session: u64,
    topic: &'static str,
    text: String,
    says: Option<(CommandId, Says)>,
}

impl Saying {
    fn arrive(self, world: &Arc<World>) {
        // What was under way when the connection was lost is lost with it.
        if world.session_of(self.dock) != Some(self.session) {
            return;
        }
        // What a mutated platform does not understand has reached it all the same.
        let hears = |platform: &Platform| platform.line.still().since().is_none();
        let reached = world.listening().into_iter().filter(hears);
        let reached: Vec<u64> = reached.map(|platform| platform.line.number).collect();
        if let Some((dock, payload)) =
            world.understood(self.topic, self.dock, self.text.into_bytes())
        {
            let topic = format!("thing/product/{}/{}", gateway(dock), self.topic).into();
            let payload = payload.into();
            let came = Inbound::Message { topic, payload, user: None, acknowledgement: None };
            world.listening().iter().for_each(|platform| world.tell(platform, came.clone()));
        }
        let Some((id, says)) = self.says.filter(|_| !reached.is_empty()) else { return };
        let now = world.clock.elapsed();
        let mut state = world.state();
        let facts = state.facts(id);
        let heard = (now, reached);
        match says {
            Says::Odd => {}
            Says::Something => _ = facts.answered.get_or_insert(heard),
            Says::Last => {
                facts.answered.get_or_insert_with(|| heard.clone());
                facts.told_end.get_or_insert(heard);
            }
            Says::LastOfJob => _ = facts.told_end.get_or_insert(heard),
        }
    }
}
