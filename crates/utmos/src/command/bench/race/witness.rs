//! What the docks told of each command, read off the wire: by whom, when, whether it was taken, and what it says.
//!
//! It reads JSON by hand and not with the server's own reader, so that both are not wrong together.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use utmos_dji::catalogue::{Catalogue, Job, Method};
use utmos_mqtt::Sent;
use utmos_sim::{Passed, Way, Wire};

use super::judge::{Answer, Fate, Says, TAKEN_WAIT_MS};

/// A connection that a message was lost with is noticed to be gone within this, in milliseconds.
pub const CUT_WAIT_MS: i64 = 1_000;
/// So many changes of a connection are told of a gateway.
const LINKS_SHOWN: usize = 10;
/// What the server's own broker does not take, and the platform does not read. No answer is that large but one that is made so.
pub const TOO_LARGE_BYTES: usize = 2 << 20;

/// Everything that passed, in the order it was told of.
#[derive(Debug, Default)]
pub struct Witness {
    /// What each command was, by `tid`.
    commands: BTreeMap<String, Asked>,
    /// Which command a job belongs to, by `bid`.
    by_bid: BTreeMap<String, String>,
    /// The same by the job's own id.
    by_reference: BTreeMap<String, String>,
    replies: Vec<Reply>,
    events: Vec<Event>,
    /// When direct control came, by gateway and data: it has no `tid`.
    controls: BTreeMap<(String, String), Vec<i64>>,
    /// From when on each gateway was connected, and from when on it was not, in turn.
    links: BTreeMap<String, Vec<(i64, bool)>>,
}

#[derive(Debug)]
struct Asked {
    gateway: String,
    method: String,
}

#[derive(Debug, Clone)]
struct Sending {
    /// Who sent it, whatever its topic says.
    by: Arc<str>,
    at: i64,
    settled_at: i64,
    /// As far as it can be told when it passes.
    fate: Fate,
}

#[derive(Debug)]
struct Reply {
    sending: Sending,
    /// By its topic.
    gateway: String,
    tid: String,
    method: Option<String>,
    result: Option<i64>,
    word: Option<String>,
}

#[derive(Debug)]
struct Event {
    sending: Sending,
    /// By its topic.
    gateway: String,
    method: String,
    bid: Option<String>,
    data: Value,
}

impl Witness {
    /// Takes down what came about.
    pub fn see(&mut self, seen: &Wire, catalogue: &Catalogue) {
        match seen {
            Wire::Passed(passed) => self.passed(passed, catalogue),
            Wire::Linked { sn, at } => self.link(sn, at.as_millis(), true),
            Wire::Cut { sn, at } => self.link(sn, at.as_millis(), false),
        }
    }

    fn link(&mut self, sn: &str, at: i64, is_up: bool) {
        let links = self.links.entry(sn.to_owned()).or_default();
        if links.last().is_none_or(|(_, was_up)| *was_up != is_up) {
            links.push((at, is_up));
        }
    }

    /// What is of no command is let go.
    fn passed(&mut self, passed: &Passed, catalogue: &Catalogue) {
        let Some((gateway, end)) = place(&passed.topic) else { return };
        let json = || serde_json::from_slice::<Value>(&passed.payload).ok();
        match (&passed.way, end) {
            (Way::Down, "services") => {
                if let Some(json) = json() {
                    self.asked(gateway, &json, catalogue);
                }
            }
            (Way::Down, "drc/down") => {
                if let Some(data) = json().and_then(|json| Some(json.get("data")?.to_string())) {
                    let times = self.controls.entry((gateway.to_owned(), data)).or_default();
                    times.push(passed.at.as_millis());
                }
            }
            (Way::Up { sent, settled_at }, "services_reply" | "events") => {
                let bytes = passed.payload.len();
                let (Some(json), Some(fate)) = (json(), fate(sent, bytes)) else { return };
                let sending = Sending {
                    by: Arc::clone(&passed.sn),
                    at: passed.at.as_millis(),
                    settled_at: settled_at.as_millis(),
                    fate,
                };
                if end == "events" {
                    self.events.extend(event(sending, gateway, &json));
                } else {
                    self.replies.extend(reply(sending, gateway, &json));
                }
            }
            (Way::Down | Way::Up { .. }, _) => {}
        }
    }

    fn asked(&mut self, gateway: &str, json: &Value, catalogue: &Catalogue) {
        let (Some(tid), Some(method)) = (text(json, "tid"), text(json, "method")) else { return };
        if let Some(bid) = text(json, "bid") {
            self.by_bid.insert(bid, tid.clone());
        }
        let job = catalogue.method(&method).and_then(|method| method.job.as_ref());
        let reference = job.and_then(|job| job.reference.as_ref());
        let id = reference.and_then(|at| json.get("data")?.pointer(&at.payload)?.as_str());
        if let Some(id) = id {
            self.by_reference.insert(id.to_owned(), tid.clone());
        }
        self.commands.insert(tid, Asked { gateway: gateway.to_owned(), method });
    }

    /// When a command of direct control came to a gateway.
    pub fn controls(&self, gateway: &str, payload: &Value) -> &[i64] {
        let key = (gateway.to_owned(), payload.to_string());
        self.controls.get(&key).map_or(&[], Vec::as_slice)
    }

    /// How many commands of direct control came, each counted once.
    pub fn controls_seen(&self) -> usize {
        self.controls.len()
    }

    /// From when until when a gateway was connected, each time that it was.
    fn stretches(&self, gateway: &str) -> impl Iterator<Item = (i64, i64)> {
        let links = self.links.get(gateway).map_or(&[][..], Vec::as_slice);
        links.iter().enumerate().filter(|(_, (_, is_up))| *is_up).map(|(number, (from, _))| {
            let until = links.get(number + 1).map_or(i64::MAX, |(until, _)| *until);
            (*from, until)
        })
    }

    /// Whether a gateway was not connected at some moment between these, both included.
    pub fn was_away(&self, gateway: &str, from: i64, until: i64) -> bool {
        !self.stretches(gateway).any(|(begin, end)| begin <= from && until < end)
    }

    /// For how long a gateway was connected without a break between these, and no server died, in milliseconds.
    pub fn was_there_for(&self, gateway: &str, from: i64, until: i64, deaths: &[i64]) -> i64 {
        let longest = |(begin, end): (i64, i64)| {
            let (begin, end) = (begin.max(from), end.min(until));
            let within = deaths.iter().copied().filter(|death| begin < *death && *death < end);
            let mut breaks: Vec<i64> = within.chain([begin, end]).collect();
            breaks.sort_unstable();
            breaks.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
        };
        let stretches =
            self.stretches(gateway).filter(|(begin, end)| *begin < until && from < *end);
        stretches.map(longest).max().unwrap_or(0)
    }

    /// How a gateway's connection changed from then on: when, and whether it was there from then on.
    pub fn links(&self, gateway: &str, from: i64) -> Vec<(i64, bool)> {
        let links = self.links.get(gateway).into_iter().flatten().copied();
        links.filter(|(at, _)| from <= *at).take(LINKS_SHOWN).collect()
    }

    /// What is lost with a connection is known to be so as soon as that is lost.
    fn answer(&self, sending: &Sending, says: Says) -> Answer {
        let Sending { ref by, at, settled_at, fate } = *sending;
        let is_lost =
            settled_at <= at + TAKEN_WAIT_MS && self.was_away(by, at, settled_at + CUT_WAIT_MS);
        let fate = if fate == Fate::Lost && !is_lost { Fate::Dropped } else { fate };
        Answer { at, settled_at, fate, says }
    }

    /// What was told of each command, by `tid`.
    pub fn answers(&self, catalogue: &Catalogue) -> BTreeMap<&str, Vec<Answer>> {
        let mut all: BTreeMap<&str, Vec<Answer>> = BTreeMap::new();
        for reply in &self.replies {
            let Some(asked) = self.commands.get(&reply.tid) else { continue };
            let says = says_reply(reply, asked, catalogue.method(&asked.method));
            all.entry(&reply.tid).or_default().push(self.answer(&reply.sending, says));
        }
        for event in &self.events {
            let Some((tid, says)) = self.says_event(event, catalogue) else { continue };
            all.entry(tid).or_default().push(self.answer(&event.sending, says));
        }
        all
    }

    fn says_event(&self, event: &Event, catalogue: &Catalogue) -> Option<(&str, Says)> {
        let by_bid = event.bid.as_ref().and_then(|bid| self.by_bid.get(bid));
        let owner = |tid: &String| {
            let job = catalogue.method(&self.commands.get(tid)?.method)?.job.as_ref()?;
            job.events.contains(&event.method).then_some(job)
        };
        let by_reference = || {
            self.by_reference.iter().find_map(|(id, tid)| {
                let at = owner(tid)?.reference.as_ref()?;
                (event.data.pointer(&at.event)?.as_str()? == id).then_some(tid)
            })
        };
        // A pilot's consent names nothing: it is to the only one that asked for it there.
        let by_asking = || {
            let of_gateway = |(_, asked): &(&String, &Asked)| asked.gateway == event.gateway;
            let mut asked = self.commands.iter().filter(of_gateway).map(|(tid, _)| tid);
            let mut asked = asked.by_ref().filter(|tid| owner(tid).is_some_and(is_nameless));
            let only = asked.next()?;
            asked.next().is_none().then_some(only)
        };
        let tid = by_bid.filter(|tid| owner(tid).is_some()).or_else(by_reference);
        let tid = tid.or_else(by_asking)?;
        let job = owner(tid)?;
        let word = event.data.pointer(&job.status)?.as_str()?;
        Some((tid, if job.state(word).is_open() { Says::Runs } else { Says::Ended }))
    }
}

/// Whether the events of such jobs name none of them.
pub fn is_nameless(job: &Job) -> bool {
    job.events.iter().any(|event| event == "cloud_control_auth_notify")
}

/// Serial number and end of a topic.
fn place(topic: &str) -> Option<(&str, &str)> {
    topic.strip_prefix("thing/product/")?.split_once('/')
}

/// What became of a message of so many bytes; nothing if it certainly never left.
fn fate(sent: &Sent, bytes: usize) -> Option<Fate> {
    match sent {
        // A broker that takes it passes it on, and the platform makes nothing of it.
        Sent::Confirmed { .. } | Sent::Refused(_) if TOO_LARGE_BYTES <= bytes => {
            Some(Fate::TooLarge)
        }
        Sent::Confirmed { .. } => Some(Fate::Taken),
        Sent::Unknown => Some(Fate::Lost),
        Sent::NoSubscriber | Sent::Refused(_) => Some(Fate::Refused),
        Sent::Withheld | Sent::NotConnected => None,
    }
}

fn text(json: &Value, name: &str) -> Option<String> {
    json.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn reply(sending: Sending, gateway: &str, json: &Value) -> Option<Reply> {
    let data = json.get("data");
    let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
    Some(Reply {
        sending,
        gateway: gateway.to_owned(),
        tid: text(json, "tid")?,
        method: text(json, "method"),
        result: data.and_then(|data| data.get("result")).and_then(number),
        word: data
            .and_then(|data| data.pointer("/output/status"))
            .and_then(Value::as_str)
            .map(str::to_owned),
    })
}

fn event(sending: Sending, gateway: &str, json: &Value) -> Option<Event> {
    let data = json.get("data").cloned().unwrap_or_default();
    let gateway = gateway.to_owned();
    Some(Event { sending, gateway, method: text(json, "method")?, bid: text(json, "bid"), data })
}

fn says_reply(reply: &Reply, asked: &Asked, method: Option<&Method>) -> Says {
    let names_another = reply.method.as_ref().is_some_and(|method| *method != asked.method);
    if names_another || reply.gateway != asked.gateway {
        return Says::Nonsense;
    }
    let job = method.and_then(|method| method.job.as_ref());
    match (reply.result, job, &reply.word) {
        (None, _, _) => Says::Nonsense,
        (Some(0), Some(_), None) => Says::Runs,
        (Some(0), Some(job), Some(word)) if job.state(word).is_open() => Says::Runs,
        (Some(_), _, _) => Says::Ended,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use serde_json::json;
    use utmos_core::time::Timestamp;

    fn link(sn: &str, at: i64, is_up: bool) -> Wire {
        let (sn, at) = (sn.into(), Timestamp::from_millis(at));
        if is_up { Wire::Linked { sn, at } } else { Wire::Cut { sn, at } }
    }

    fn passed(end: &str, json: &Value, sent: Option<Sent>) -> Wire {
        Wire::Passed(message(end, json, sent))
    }

    fn message(end: &str, json: &Value, sent: Option<Sent>) -> Passed {
        let settled_at = Timestamp::from_millis(20);
        Passed {
            sn: "D1".into(),
            topic: format!("thing/product/{end}"),
            payload: json.to_string().into_bytes(),
            at: Timestamp::from_millis(10),
            way: sent.map_or(Way::Down, |sent| Way::Up { sent, settled_at }),
        }
    }

    fn told(method: &str, data: &Value, ups: &[(&str, Value, Sent)]) -> Vec<(bool, Says)> {
        let told = fates(method, data, ups);
        told.into_iter().map(|(fate, says)| (fate == Fate::Taken, says)).collect()
    }

    fn fates(method: &str, data: &Value, ups: &[(&str, Value, Sent)]) -> Vec<(Fate, Says)> {
        let catalogue = Catalogue::embedded().unwrap();
        let mut witness = Witness::default();
        witness.see(&link("D1", 0, true), &catalogue);
        let command = json!({"tid": "t", "bid": "b", "method": method, "data": data});
        witness.see(&passed("D1/services", &command, None), &catalogue);
        for (end, json, sent) in ups {
            witness.see(&passed(end, json, Some(sent.clone())), &catalogue);
        }
        let answers = witness.answers(&catalogue);
        answers.get("t").into_iter().flatten().map(|one| (one.fate, one.says)).collect()
    }

    fn taken() -> Sent {
        Sent::Confirmed { packet_id: None }
    }

    #[test]
    fn an_answer_is_read_by_what_it_says() {
        let reply = |data: Value| json!({"tid": "t", "method": "cover_open", "data": data});
        let job = |word: &str| reply(json!({"result": 0, "output": {"status": word}}));
        let ups = [
            ("D1/services_reply", job("in_progress"), Says::Runs),
            ("D1/services_reply", job("ok"), Says::Ended),
            ("D1/services_reply", reply(json!({"result": "514116"})), Says::Ended),
            ("D1/services_reply", reply(json!({})), Says::Nonsense),
            ("D1/services_reply", json!({"tid": "t"}), Says::Nonsense),
            (
                "D1/services_reply",
                json!({"tid": "t", "method": "x", "data": {"result": 0}}),
                Says::Nonsense,
            ),
            ("D2/services_reply", reply(json!({"result": 0})), Says::Nonsense),
        ];
        for (end, json, says) in ups {
            let told = told("cover_open", &json!({}), &[(end, json.clone(), taken())]);
            assert_eq!(told, [(true, says)], "{end} {json}");
        }
        let done = json!({"tid": "t", "data": {"result": 0}});
        let told = told("debug_mode_open", &json!({}), &[("D1/services_reply", done, taken())]);
        assert_eq!(told, [(true, Says::Ended)]);
    }

    #[test]
    fn what_has_another_id_or_never_left_tells_nothing() {
        let other = json!({"tid": "u", "method": "cover_open", "data": {"result": 0}});
        let own = json!({"tid": "t", "method": "cover_open", "data": {"result": 1}});
        let ups = [
            ("D1/services_reply", other, taken()),
            ("D1/services_reply", own.clone(), Sent::NotConnected),
            ("D1/services_reply", own, Sent::Unknown),
        ];
        assert_eq!(told("cover_open", &json!({}), &ups), [(false, Says::Ended)]);
    }

    /// It counts as lost with a connection only where one was lost at that time, by the dock that sent it.
    #[test]
    fn an_answer_is_lost_where_its_docks_connection_is_and_dropped_where_it_lives() {
        let catalogue = Catalogue::embedded().unwrap();
        let own = json!({"tid": "t", "method": "debug_mode_open", "data": {"result": 0}});
        let command = json!({"tid": "t", "bid": "b", "method": "debug_mode_open", "data": {}});
        let fate = |settled_at: i64, cut: Option<(&str, i64)>| {
            let mut witness = Witness::default();
            for sn in ["D1", "D2"] {
                witness.see(&link(sn, 0, true), &catalogue);
            }
            witness.see(&passed("D1/services", &command, None), &catalogue);
            let settled_at = Timestamp::from_millis(settled_at);
            let way = Way::Up { sent: Sent::Unknown, settled_at };
            let answer = Passed { way, ..message("D1/services_reply", &own, None) };
            witness.see(&Wire::Passed(answer), &catalogue);
            if let Some((sn, at)) = cut {
                witness.see(&link(sn, at, false), &catalogue);
            }
            witness.answers(&catalogue)["t"][0].fate
        };
        assert_eq!(fate(20, Some(("D1", 15))), Fate::Lost);
        assert_eq!(fate(20, Some(("D1", 500))), Fate::Lost);
        assert_eq!(fate(20, None), Fate::Dropped);
        assert_eq!(fate(20, Some(("D2", 15))), Fate::Dropped);
        assert_eq!(fate(20, Some(("D1", 20 + CUT_WAIT_MS + 1))), Fate::Dropped, "another time");
        let late = 10 + TAKEN_WAIT_MS + 1;
        assert_eq!(fate(late, Some(("D1", late + 10))), Fate::Dropped, "never taken");
        let own = json!({"tid": "t", "data": {"result": 0}});
        let refused = Sent::Refused("no".to_owned());
        let ups = [("D1/services_reply", own.clone(), refused.clone())];
        let told = fates("debug_mode_open", &json!({}), &ups);
        assert_eq!(told, [(Fate::Refused, Says::Ended)]);
        let large = json!({"tid": "t", "data": {"result": 0}, "pad": "x".repeat(TOO_LARGE_BYTES)});
        let ups = [("D1/services_reply", large, refused)];
        let told = fates("debug_mode_open", &json!({}), &ups);
        assert_eq!(told, [(Fate::TooLarge, Says::Ended)]);
        let ups = [("D1/services_reply", own, Sent::NoSubscriber)];
        let told = fates("debug_mode_open", &json!({}), &ups);
        assert_eq!(told, [(Fate::Refused, Says::Ended)]);
    }

    #[test]
    fn direct_control_is_known_by_its_data() {
        let catalogue = Catalogue::embedded().unwrap();
        let mut witness = Witness::default();
        let (one, other) = (json!({"yaw": 1, "roll": 2}), json!({"yaw": 1, "roll": 3}));
        let message = json!({"method": "stick_control", "seq": 1, "data": one});
        witness.see(&passed("D1/drc/down", &message, None), &catalogue);
        assert_eq!(witness.controls("D1", &one), [10]);
        assert_eq!(witness.controls("D1", &other), [0; 0]);
        assert_eq!(witness.controls("D2", &one), [0; 0]);
    }

    #[test]
    fn a_gateway_is_away_wherever_it_has_no_connection() {
        let catalogue = Catalogue::embedded().unwrap();
        let mut witness = Witness::default();
        for (at, is_up) in [(100, true), (200, false), (210, false), (250, true), (900, false)] {
            witness.see(&link("D1", at, is_up), &catalogue);
        }
        let away = |from, until| witness.was_away("D1", from, until);
        assert!(!away(100, 199) && !away(250, 899) && !away(300, 300));
        assert!(away(99, 150) && away(150, 200) && away(205, 220) && away(150, 300));
        assert!(away(800, 900) && away(1_000, 2_000) && witness.was_away("D2", 150, 160));
        let there = |from, until| witness.was_there_for("D1", from, until, &[]);
        assert_eq!((there(0, 150), there(120, 300), there(120, 2_000)), (50, 80, 650));
        assert_eq!((there(0, 90), there(200, 250), there(950, 990)), (0, 0, 0));
        assert_eq!(witness.was_there_for("D2", 0, 1_000, &[]), 0);
        let deaths = [100, 400, 700, 899, 5_000];
        assert_eq!(witness.was_there_for("D1", 0, 2_000, &deaths), 300);
        assert_eq!(witness.links("D1", 150), [(200, false), (250, true), (900, false)]);
        witness.see(&link("D1", 1_000, true), &catalogue);
        assert!(!witness.was_away("D1", 1_000, 9_000), "it still is");
    }

    #[test]
    fn an_event_is_of_the_job_that_it_names() {
        let event = |bid: &str, word: &str| {
            let data = json!({"result": 0, "output": {"status": word}});
            ("D1/events", json!({"bid": bid, "method": "cover_open", "data": data}), taken())
        };
        let ups = [event("b", "in_progress"), event("b", "ok"), event("c", "ok")];
        let answers = told("cover_open", &json!({}), &ups);
        assert_eq!(answers, [(true, Says::Runs), (true, Says::Ended)]);
        let flight = |id: &str| {
            let data = json!({"flight_id": id, "status": "wayline_ok"});
            let json = json!({"bid": "own", "method": "takeoff_to_point_progress", "data": data});
            ("D1/events", json, taken())
        };
        let consent = json!({"bid": "0", "data": {"output": {"status": "ok"}}, "method": "cloud_control_auth_notify"});
        let ups = [("D1/events", consent.clone(), taken())];
        let answers = told("cloud_control_auth_request", &json!({}), &ups);
        assert_eq!(answers, [(true, Says::Ended)], "of the only one that asked");
        assert_eq!(told("cover_open", &json!({}), &ups), []);
        let ups = [("D2/events", consent, taken())];
        assert_eq!(told("cloud_control_auth_request", &json!({}), &ups), []);
        let ups = [flight("f2"), flight("f1")];
        let answers = told("takeoff_to_point", &json!({"flight_id": "f1"}), &ups);
        assert_eq!(answers, [(true, Says::Ended)]);
    }
}
