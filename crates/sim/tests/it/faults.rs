//! Every fault as it comes out of a dock, under virtual time.

use std::sync::Arc;

use serde_json::{Value, json};
use utmos_core::time::{Mono, Now, Timestamp};
use utmos_sim::{
    Dock, DockConfig, Outcome, Output,
    fault::{Acknowledged, Connection, Deeds, Entry, FaultFlag, FaultPlan, FaultyDock},
    guide,
};

use crate::world::{CATALOGUE, settings};

const WALL: i64 = 1_780_000_000_000;
/// When a dock is online that nobody answers.
const UP_MS: u64 = 5_000;

/// A message a dock sent, which may be no JSON.
#[derive(Debug, Clone, PartialEq)]
struct Sent {
    at: u64,
    topic: String,
    payload: Vec<u8>,
}

impl Sent {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap_or_default()
    }
}

/// A dock under a plan, with a cloud that acknowledges its events.
struct Trial {
    dock: FaultyDock,
    config: DockConfig,
    sent: Vec<Sent>,
    outcomes: Vec<(Option<String>, u64, Outcome)>,
    changes: Vec<(u64, Connection)>,
    kept_back: Vec<u64>,
    acknowledged: Vec<(u64, Acknowledged)>,
    millis: u64,
    ids: u32,
}

impl Trial {
    fn of(flags: &[&str]) -> Self {
        Self::seeded(flags, 7)
    }

    fn seeded(flags: &[&str], seed: u64) -> Self {
        let mut plan = FaultPlan::default();
        plan.put_first(flags.iter().map(|flag| flag.parse::<FaultFlag>().unwrap()));
        let config = DockConfig::numbered(7, 1);
        let dock = Dock::new(&config, settings(), Arc::clone(&CATALOGUE), 7, at(0)).unwrap();
        let dock = FaultyDock::new(dock, &plan, seed, at(0));
        let mut trial = Self {
            dock,
            config,
            sent: Vec::new(),
            outcomes: Vec::new(),
            changes: Vec::new(),
            kept_back: Vec::new(),
            acknowledged: Vec::new(),
            millis: 0,
            ids: 0,
        };
        trial.connect();
        trial.run(UP_MS);
        trial
    }

    fn connect(&mut self) {
        let deeds = self.dock.connected(at(self.millis));
        self.note(deeds);
    }

    fn run(&mut self, millis: u64) {
        let end = self.millis + millis;
        while let Some(wake) = self.dock.next_wake().map(Mono::as_millis).filter(|at| *at <= end) {
            self.millis = self.millis.max(wake);
            let deeds = self.dock.tick(at(self.millis));
            self.note(deeds);
        }
        self.millis = end;
    }

    /// Sends a command; gives back its tid.
    fn send(&mut self, method: &str, data: &Value) -> String {
        self.ids += 1;
        let (tid, bid) = (format!("tid-{}", self.ids), format!("bid-{}", self.ids));
        let mut message = json!({"tid": tid, "bid": bid, "timestamp": 1, "data": data});
        let end = if method == "property/set" { method } else { "services" };
        if end == "services" {
            message["method"] = json!(method);
        }
        self.deliver(end, &message);
        tid
    }

    /// The same, and gives the dock time for its answer.
    fn sent_and_run(&mut self, method: &str, data: &Value) -> String {
        let tid = self.send(method, data);
        self.run(100);
        tid
    }

    fn deliver(&mut self, end: &str, message: &Value) {
        let topic = format!("thing/product/{}/{end}", self.config.sn);
        let deeds = self.dock.handle(&topic, message.to_string().as_bytes(), at(self.millis));
        self.note(deeds);
    }

    fn note(&mut self, deeds: Deeds) {
        let Deeds { outputs, keeps_back, acknowledges, connection, met: _ } = deeds;
        self.kept_back.extend(keeps_back);
        let acknowledged = acknowledges.iter().map(|one| (self.millis, *one));
        self.acknowledged.extend(acknowledged);
        for output in outputs {
            match output {
                Output::Publish { topic, payload, .. } => {
                    let sent = Sent { at: self.millis, topic, payload };
                    self.sent.push(sent.clone());
                    let json = sent.json();
                    if sent.topic.ends_with("/events") && json["need_reply"] == json!(1) {
                        let answer = json!({"tid": json["tid"], "data": {"result": 0}});
                        self.deliver("events_reply", &answer);
                    }
                }
                Output::Received { received, receipt, outcome } => {
                    let tid = received.tid.as_deref().map(str::to_owned);
                    self.outcomes.push((tid, receipt, outcome));
                }
                Output::Ended { receipt, outcome } => {
                    let slot = self.outcomes.iter_mut().find(|(_, number, _)| *number == receipt);
                    slot.unwrap().2 = outcome;
                }
                Output::Happened(_) => {}
            }
        }
        self.changes.extend(connection.map(|change| (self.millis, change)));
    }

    fn outcome(&self, tid: &str) -> Outcome {
        let of_tid = |(id, _, _): &&(Option<String>, u64, Outcome)| id.as_deref() == Some(tid);
        self.outcomes.iter().rfind(of_tid).unwrap().2
    }

    fn on(&self, end: &str) -> Vec<&Sent> {
        self.sent.iter().filter(|sent| sent.topic.ends_with(end)).collect()
    }

    fn replies(&self) -> Vec<Value> {
        self.on("/services_reply").into_iter().map(Sent::json).collect()
    }

    /// Percent and tid of every event of a job, in the order they left.
    fn events(&self, method: &str) -> Vec<(i64, String)> {
        let events = self.on("/events").into_iter().map(Sent::json);
        let wanted = events.filter(|event| event["method"] == method);
        wanted
            .map(|event| {
                let percent = event["data"]["output"]["progress"]["percent"].as_i64();
                (percent.unwrap_or(-1), event["tid"].as_str().unwrap().to_owned())
            })
            .collect()
    }

    fn percents(&self, method: &str) -> Vec<i64> {
        self.events(method).into_iter().map(|(percent, _)| percent).collect()
    }

    /// Opens the cover, to its end.
    fn open_cover(&mut self) -> String {
        self.sent_and_run("debug_mode_open", &json!({}));
        let tid = self.send("cover_open", &json!({}));
        self.run(60_000);
        tid
    }
}

fn at(millis: u64) -> Now {
    let wall = Timestamp::from_millis(WALL + i64::try_from(millis).unwrap());
    Now { wall, mono: Mono::from_millis(millis) }
}

/// How the cover's progress is told by a dock without faults.
const STEPS: [i64; 9] = [0, 5, 10, 20, 30, 40, 70, 90, 100];

#[test]
fn an_empty_plan_changes_nothing() {
    let mut trial = Trial::of(&[]);
    let tid = trial.open_cover();
    assert_eq!(trial.outcome(&tid), Outcome::Succeeded);
    assert_eq!(trial.percents("cover_open"), STEPS);
    assert_eq!((trial.replies().len(), trial.changes.len()), (2, 0));
}

#[test]
fn a_late_answer_comes_at_its_time_and_the_job_does_not_wait_for_it() {
    let mut trial = Trial::of(&["method=cover_open,kind=late,ms=4000"]);
    let tid = trial.open_cover();
    let came = UP_MS + 100;
    let answer =
        trial.on("/services_reply").into_iter().find(|sent| sent.json()["tid"] == tid.as_str());
    assert_eq!(answer.unwrap().at, came + 4_000);
    let first = trial.on("/events").first().unwrap().at;
    assert!(first < came + 4_000, "{first}");
    assert_eq!(trial.outcome(&tid), Outcome::Succeeded);
}

#[test]
fn what_is_never_answered_is_never_done() {
    let mut trial = Trial::of(&["method=cover_open,nth=1,kind=never"]);
    let ignored = trial.open_cover();
    assert_eq!(trial.outcome(&ignored), Outcome::Ignored);
    assert_eq!((trial.replies().len(), trial.events("cover_open").len()), (1, 0));
    let second = trial.open_cover();
    assert_eq!(trial.outcome(&second), Outcome::Succeeded);
}

#[test]
fn a_silent_dock_does_what_it_is_told() {
    let mut trial = Trial::of(&["kind=silent"]);
    let tid = trial.open_cover();
    assert_eq!(trial.replies(), Vec::<Value>::new());
    assert_eq!(trial.outcome(&tid), Outcome::Succeeded);
    assert_eq!(trial.percents("cover_open"), STEPS, "its events still come");
}

#[test]
fn a_spoiled_answer_changes_nothing_of_what_was_done() {
    let whole = {
        let mut trial = Trial::of(&[]);
        trial.sent_and_run("debug_mode_open", &json!({}));
        trial.replies()
    };
    for flag in [
        "kind=duplicate",
        "kind=wrong_tid",
        "kind=wrong_bid",
        "kind=wrong_method",
        "kind=wrong_gateway",
        "kind=string_numbers",
        "kind=missing_field,field=result",
        "kind=truncated",
        "kind=binary",
        "kind=huge",
    ] {
        let mut trial = Trial::of(&[flag]);
        let tid = trial.sent_and_run("debug_mode_open", &json!({}));
        assert_eq!(trial.outcome(&tid), Outcome::Done, "{flag}");
        let sent = trial.on("/services_reply");
        if flag == "kind=duplicate" {
            assert_eq!(trial.replies(), [whole[0].clone(), whole[0].clone()]);
            continue;
        }
        assert_eq!(sent.len(), 1, "{flag}");
        if flag == "kind=wrong_gateway" {
            assert_eq!(sent[0].topic, "thing/product/SIM-DOCK-0001-OTHER/services_reply");
        } else {
            assert_ne!(trial.replies(), whole, "{flag}");
        }
        if flag == "kind=huge" {
            assert_eq!(sent[0].payload.len(), 1024 * 1024);
        }
    }
}

#[test]
fn a_refusal_is_one_for_the_dock_too() {
    let mut trial = Trial::of(&["method=debug_mode_open,kind=result,code=low_battery"]);
    let refused = trial.sent_and_run("debug_mode_open", &json!({}));
    let after = trial.sent_and_run("cover_open", &json!({}));
    assert_eq!(trial.outcome(&refused), Outcome::Refused(316_009));
    assert_eq!(trial.outcome(&after), Outcome::Refused(514_153), "it is not in debugging");
    assert_eq!(trial.replies()[0]["data"], json!({"result": 316_009}));
}

#[test]
fn properties_are_commands_as_others_are() {
    let night = json!({"night_lights_state": 1});
    let mut trial = Trial::of(&[
        "method=property/set,nth=1,kind=result,code=strong_wind",
        "method=property/set,nth=2,kind=never",
        "method=property/*,nth=3,kind=missing_field,field=result",
    ]);
    let tids = [(); 4].map(|()| trial.sent_and_run("property/set", &night));
    let outcomes = tids.map(|tid| trial.outcome(&tid));
    let expected = [Outcome::Refused(514_135), Outcome::Ignored, Outcome::Done, Outcome::Done];
    assert_eq!(outcomes, expected);
    let data: Vec<Value> =
        trial.on("/property/set_reply").iter().map(|sent| sent.json()["data"].clone()).collect();
    let result = |code: i64| json!({"night_lights_state": {"result": code}});
    assert_eq!(data, [result(514_135), json!({"night_lights_state": {}}), result(0)]);
}

#[test]
fn progress_out_of_order_is_all_there_in_another_order() {
    let mut trial = Trial::of(&["method=cover_open,kind=progress_out_of_order"]);
    let tid = trial.open_cover();
    assert_eq!(trial.percents("cover_open"), [5, 0, 20, 10, 40, 30, 90, 70, 100]);
    assert_eq!(trial.outcome(&tid), Outcome::Succeeded);
}

#[test]
fn progress_that_stops_tells_the_first_half_and_no_end() {
    let mut trial = Trial::of(&["method=cover_open,kind=progress_stops"]);
    let tid = trial.open_cover();
    assert_eq!(trial.percents("cover_open"), [0, 5, 10, 20, 30, 40]);
    assert_eq!(trial.outcome(&tid), Outcome::Succeeded, "the dock did it all the same");
}

#[test]
fn a_flight_is_known_by_its_own_id() {
    let method = CATALOGUE.method("takeoff_to_point").unwrap();
    let fly = |flags: &[&str]| {
        let mut trial = Trial::of(flags);
        let payload = guide::payload(method, &trial.config, at(trial.millis).wall);
        let tid = trial.send("takeoff_to_point", &payload);
        trial.run(300_000);
        assert_eq!(trial.outcome(&tid), Outcome::Succeeded);
        trial.events("takeoff_to_point_progress").len()
    };
    let whole = fly(&[]);
    assert!(2 < whole, "{whole}");
    assert_eq!(fly(&["kind=progress_stops"]), 1, "it has no percents, so its first word only");
    assert_eq!(fly(&["kind=resend_events"]), 2 * whole);
}

#[test]
fn resent_events_have_the_same_ids_and_a_later_time() {
    let mut trial = Trial::of(&["method=cover_open,kind=resend_events"]);
    trial.open_cover();
    let events = trial.events("cover_open");
    assert_eq!(events.len(), 2 * STEPS.len());
    let all: Vec<Value> = trial.on("/events").into_iter().map(Sent::json).collect();
    for (_, tid) in &events {
        let copies: Vec<&Value> = all.iter().filter(|event| event["tid"] == tid.as_str()).collect();
        let [first, second] = copies.as_slice() else { panic!("{} copies", copies.len()) };
        let time = |event: &Value| event["timestamp"].as_i64().unwrap();
        assert_eq!(time(second) - time(first), 1_000);
        assert_eq!((&first["bid"], &first["data"]), (&second["bid"], &second["data"]));
    }
}

#[test]
fn a_cut_connection_loses_the_answer_and_not_the_work() {
    let mut trial = Trial::of(&["method=cover_open,kind=disconnect,ms=2000"]);
    trial.sent_and_run("debug_mode_open", &json!({}));
    let before = trial.sent.len();
    let tid = trial.send("cover_open", &json!({}));
    assert_eq!(trial.changes, [(trial.millis, Connection::LostFor(2_000))]);
    trial.run(2_000);
    assert_eq!(trial.sent.len(), before, "nothing is said into the void");
    trial.connect();
    trial.run(60_000);
    assert_eq!(trial.outcome(&tid), Outcome::Succeeded);
    assert_eq!(trial.replies().len(), 1, "of debug_mode_open only");
    assert_eq!(trial.percents("cover_open").last(), Some(&100));
}

#[test]
fn a_storm_takes_the_dock_away_at_its_time() {
    let mut trial = Trial::of(&["kind=reconnect_storm,at_ms=8000,ms=1500"]);
    trial.run(10_000);
    assert_eq!(trial.changes, [(8_000, Connection::LostFor(1_500))]);
    let before = trial.sent.len();
    trial.connect();
    trial.run(UP_MS);
    assert!(before < trial.sent.len());
    let tid = trial.sent_and_run("debug_mode_open", &json!({}));
    assert_eq!(trial.outcome(&tid), Outcome::Done);
}

#[test]
fn a_flapping_aircraft_goes_and_comes_in_the_topology_only() {
    let mut trial = Trial::of(&["kind=topology_flap,at_ms=8000,ms=500,times=2"]);
    trial.run(10_000);
    let told: Vec<(u64, usize)> = trial
        .on("/status")
        .iter()
        .skip(1)
        .map(|sent| (sent.at, sent.json()["data"]["sub_devices"].as_array().unwrap().len()))
        .collect();
    assert_eq!(told, [(8_000, 0), (8_500, 1), (9_000, 0), (9_500, 1)]);
    assert!(trial.dock.dock().aircraft_is_in_dock());
}

#[test]
fn a_skewed_clock_shows_in_time_stamps_until_it_is_put_right() {
    let mut trial = Trial::of(&["kind=clock_skew,at_ms=6000,seconds=-3600,ms=1000"]);
    let mut off_by = |millis: u64| {
        trial.run(millis);
        trial.sent_and_run("debug_mode_open", &json!({}));
        let stamp = trial.replies().last().unwrap()["timestamp"].as_i64().unwrap();
        (stamp - WALL - i64::try_from(trial.millis).unwrap()) / 10_000
    };
    assert_eq!([off_by(0), off_by(1_000), off_by(1_000)], [0, -360, 0]);
}

#[test]
fn one_seed_and_one_order_of_commands_give_the_same_faults() {
    let flags = [
        "probability=0.3,kind=wrong_tid",
        "probability=0.3,kind=silent",
        "probability=0.3,kind=binary",
        "probability=0.3,kind=result,code=dock_busy",
    ];
    let life = |seed: u64| {
        let mut trial = Trial::seeded(&flags, seed);
        for _ in 0..30 {
            trial.sent_and_run("debug_mode_open", &json!({}));
        }
        (trial.sent, trial.outcomes)
    };
    assert_eq!(life(1), life(1));
    assert_ne!(life(1), life(2));
}

#[test]
fn a_storm_comes_as_often_as_it_is_told_to() {
    let mut trial = Trial::of(&["kind=reconnect_storm,at_ms=8000,ms=100,times=3"]);
    trial.run(10_000);
    let lost = Connection::LostFor(100);
    assert_eq!(trial.changes, [(8_000, lost), (8_200, lost), (8_400, lost)]);
}

#[test]
fn acknowledgements_are_kept_back_as_long_as_the_fault_says() {
    let mut trial = Trial::of(&[
        "nth=1,kind=early",
        "nth=2,kind=late_ack,ms=700",
        "nth=3,kind=no_ack",
        "nth=4,kind=late,ms=1",
    ]);
    for _ in 0..4 {
        let tid = trial.send("debug_mode_open", &json!({}));
        trial.run(2_000);
        assert_eq!(trial.outcome(&tid), Outcome::Done);
    }
    assert_eq!(trial.replies().len(), 4, "all are answered");
    assert_eq!(trial.kept_back, [1, 2, 3]);
    let [(first_at, first), second] = trial.acknowledged[..] else { panic!("two are sent") };
    let answered_at = trial.on("/services_reply")[0].at;
    assert_eq!(first, Acknowledged { number: 1, after: Some(0) }, "behind its answer");
    assert!((UP_MS + 30..=UP_MS + 60).contains(&first_at) && answered_at == first_at);
    assert_eq!(second, (UP_MS + 2_700, Acknowledged { number: 2, after: None }));
}

#[test]
fn commands_of_direct_control_meet_faults_by_their_number() {
    let mut trial = Trial::of(&[
        "method=drone_control,nth=1,kind=late,ms=500",
        "method=drone_control,nth=2,kind=never",
        "method=drone_control,nth=3,kind=duplicate",
        "method=drone_control,nth=4,kind=result,code=low_battery",
        "method=drone_control,nth=5,kind=silent",
    ]);
    let enter = CATALOGUE.method("drc_mode_enter").unwrap();
    let payload = guide::payload(enter, &trial.config, at(trial.millis).wall);
    trial.sent_and_run("flight_authority_grab", &json!({}));
    trial.sent_and_run("drc_mode_enter", &payload);
    trial.run(3_000);
    let mut answers = |seq: u64, millis: u64| {
        let before = trial.sent.len();
        let stick = json!({"x": 0, "y": 0, "h": 0, "w": 0});
        trial.deliver("drc/down", &json!({"method": "drone_control", "data": stick, "seq": seq}));
        trial.run(millis);
        let sent = trial.sent.iter().skip(before).map(Sent::json);
        let own = sent.filter(|json| json["method"] == "drone_control");
        own.map(|json| {
            (
                json["data"]["output"]["seq"].as_u64().unwrap(),
                json["data"]["result"].as_i64().unwrap(),
            )
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(answers(1, 400), []);
    assert_eq!(answers(2, 400), [(1, 0)], "the late one; this one is ignored");
    assert_eq!(answers(3, 400), [(3, 0), (3, 0)]);
    assert_eq!(answers(4, 400), [(4, 316_009)]);
    assert_eq!(answers(5, 400), []);
    assert_eq!(answers(6, 400), [(6, 0)]);
    let outcomes: Vec<Outcome> = trial.outcomes.iter().map(|(_, _, outcome)| *outcome).collect();
    let (done, refused) = (Outcome::Done, Outcome::Refused(316_009));
    assert_eq!(outcomes[2..], [done, Outcome::Ignored, done, refused, done, done]);
}

#[test]
fn faults_are_added_and_taken_away_while_a_dock_runs() {
    let entry = |flag: &str| -> Entry {
        let mut plan = FaultPlan::default();
        plan.put_first([flag.parse::<FaultFlag>().unwrap()]);
        plan.entries().next().unwrap()
    };
    let mut trial = Trial::of(&["kind=result,code=dock_busy"]);
    let now = at(trial.millis);
    trial.dock.add(7, &entry("kind=result,code=strong_wind"), now);
    trial.dock.add(8, &entry("kind=never,gateway=SOMEBODY-ELSE"), now);
    trial.dock.add(9, &entry("kind=reconnect_storm,at_ms=60000,ms=10"), now);
    let refusal = |trial: &mut Trial| {
        let tid = trial.sent_and_run("debug_mode_open", &json!({}));
        trial.outcome(&tid)
    };
    assert_eq!(refusal(&mut trial), Outcome::Refused(514_135), "what was added goes before");
    for number in [7, 9] {
        let deeds = trial.dock.remove(number, now);
        trial.note(deeds);
    }
    assert_eq!(refusal(&mut trial), Outcome::Refused(514_116));
    trial.run(100_000);
    assert_eq!(trial.changes, [], "the storm that was taken away does not come");
}

#[test]
fn conditions_begin_and_end_at_their_time_or_when_they_are_taken_away() {
    let mut trial = Trial::of(&[
        "kind=wind,speed=14,at_ms=8000,ms=1000",
        "kind=wind,speed=5",
        "kind=offline,at_ms=20000",
    ]);
    let wind = |trial: &Trial| trial.dock.dock().conditions().wind;
    assert_eq!(wind(&trial), Some(5.0));
    trial.run(3_000);
    assert_eq!((trial.millis, wind(&trial)), (8_000, Some(14.0)));
    trial.run(1_000);
    assert_eq!(wind(&trial), Some(5.0));
    let deeds = trial.dock.remove(2, at(trial.millis));
    trial.note(deeds);
    assert_eq!(wind(&trial), None);
    trial.run(11_000);
    assert_eq!(trial.changes, [(20_000, Connection::Lost)]);
    let before = trial.sent.len();
    trial.run(10_000);
    assert_eq!(trial.sent.len(), before, "nothing is said without a connection");
    let deeds = trial.dock.remove(3, at(trial.millis));
    trial.note(deeds);
    assert_eq!(trial.changes[1..], [(30_000, Connection::Back)]);
}
