//! Callers that send one command after another, with everything a caller does who loses an answer, and the judgement at
//! the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};
use utmos_core::time::Clock;
use utmos_server::clock::SystemClock;
use utmos_sim::Fleet;

use super::{ear::Ear, until};
use crate::{
    api::{Api, COMMANDS, command},
    truth,
};

const CLIENTS: usize = 6;
/// Between two commands of one caller.
const PACE: Duration = Duration::from_millis(5);
/// The same where a drill takes long and need not have many.
const LIGHT_PACE: Duration = Duration::from_millis(200);
/// How long a server lives that is to be judged by what it made of its answers, and the pace meanwhile: docks answer some
/// hundred commands, and a second before it dies is left out.
const LONG_LIFE: Duration = Duration::from_secs(4);
const LONG_LIFE_PACE: Duration = Duration::from_millis(60);
/// Every so-many-eth life is such a one.
const LONG_LIFE_EVERY: u64 = 5;
/// Before a request is sent again.
const AGAIN: Duration = Duration::from_millis(20);

/// Requests of the judge that are under way at once: each waits for a commit.
const AT_ONCE: usize = 16;

/// Plain commands, jobs and emergencies; most are carried out, some refused by the dock.
const METHODS: [&str; 8] = [
    "debug_mode_open",
    "flight_authority_grab",
    "cover_open",
    "flight_areas_get",
    "fly_to_point_stop",
    "cover_close",
    "flighttask_pause",
    "debug_mode_close",
];

const REPLIES: [&str; 3] = ["debug_mode_open", "flight_authority_grab", "debug_mode_close"];
const EMERGENCIES: [&str; 2] = ["fly_to_point_stop", "flighttask_pause"];

/// A command that was accepted.
pub struct Made {
    pub id: String,
    pub body: Value,
    /// When its caller knew, by the true clock.
    pub answered_ms: i64,
}

/// Callers at work.
pub struct Load {
    clients: Vec<JoinHandle<Vec<Made>>>,
    accepted: Arc<watch::Sender<u64>>,
    ends: Arc<AtomicBool>,
    /// Between two commands of one caller, in milliseconds.
    pace: Arc<AtomicU64>,
    /// Seconds by which the clocks of server and callers are ahead.
    pub ahead: Arc<AtomicI64>,
}

impl Load {
    pub fn start(api: &Api, sns: &[&str], timeout_seconds: u64) -> Self {
        Self::of(&METHODS, PACE, api, sns, timeout_seconds)
    }

    /// Few commands, for a drill that takes long.
    pub fn light(api: &Api, sns: &[&str], timeout_seconds: u64) -> Self {
        Self::of(&METHODS, LIGHT_PACE, api, sns, timeout_seconds)
    }

    /// Without jobs, of which it takes a minute to say that they went silent.
    pub fn without_jobs(api: &Api, sns: &[&str], timeout_seconds: u64) -> Self {
        Self::of(&REPLIES, PACE, api, sns, timeout_seconds)
    }

    /// Nothing but emergencies.
    pub fn of_emergencies(api: &Api, sns: &[&str], timeout_seconds: u64) -> Self {
        Self::of(&EMERGENCIES, PACE, api, sns, timeout_seconds)
    }

    fn of(
        methods: &'static [&str],
        pace: Duration,
        api: &Api,
        sns: &[&str],
        timeout_seconds: u64,
    ) -> Self {
        let accepted = Arc::new(watch::Sender::new(0));
        let (ends, ahead) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let pace = Arc::new(AtomicU64::new(millis(pace)));
        let sns: Vec<String> = sns.iter().map(|sn| (*sn).to_owned()).collect();
        let clients = (0..CLIENTS).map(|client| {
            let (api, sns, accepted) = (api.clone(), sns.clone(), accepted.clone());
            let (ends, ahead, pace) = (ends.clone(), ahead.clone(), pace.clone());
            tokio::spawn(async move {
                let mut made = Vec::new();
                while !ends.load(Ordering::SeqCst) {
                    let number = made.len();
                    let more = json!({"timeout_seconds": timeout_seconds, "if_offline": "wait"});
                    let method = methods[(client + number) % methods.len()];
                    let body =
                        command(&sns[(client + number) % sns.len()], method, json!({}), more);
                    let id = insist(&api, &ahead, &body).await;
                    made.push(Made { id, body, answered_ms: now_ms() });
                    accepted.send_modify(|count| *count += 1);
                    let pace = pace.load(Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(pace)).await;
                }
                made
            })
        });
        Self { clients: clients.collect(), accepted, ends, pace, ahead }
    }

    /// In some lives, callers go on for a while, not so fast: else every answer comes shortly before a death, and nobody can
    /// say whether it was heeded.
    pub async fn live_on_in_some(&self, life: u64) {
        if !life.is_multiple_of(LONG_LIFE_EVERY) {
            return;
        }
        let before = self.pace.swap(millis(LONG_LIFE_PACE), Ordering::SeqCst);
        tokio::time::sleep(LONG_LIFE).await;
        self.pace.store(before, Ordering::SeqCst);
    }

    /// Returns when so many more are accepted.
    pub async fn more(&self, count: u64) {
        let mut accepted = self.accepted.subscribe();
        let goal = *accepted.borrow() + count;
        let wait = accepted.wait_for(|accepted| *accepted >= goal);
        assert!(
            tokio::time::timeout(crate::api::PATIENCE, wait).await.is_ok(),
            "no commands are accepted any more"
        );
    }

    /// Ends it; every caller first insists on an answer to its last command.
    pub async fn end(self) -> Vec<Made> {
        self.ends.store(true, Ordering::SeqCst);
        let mut made = Vec::new();
        for client in self.clients {
            made.extend(client.await.unwrap());
        }
        made
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

fn now_ms() -> i64 {
    SystemClock::new().now().wall.as_millis()
}

/// Posts until there is an answer, as a caller does who lost one or was asked to come again: with the same key.
async fn insist(api: &Api, ahead: &AtomicI64, body: &Value) -> String {
    loop {
        let api = api.ahead(ahead.load(Ordering::SeqCst));
        if let Ok(answer) = api.try_request(Method::POST, COMMANDS, Some(body)).await {
            if answer.status.is_success() {
                return answer.id();
            }
            assert!(["OVERLOADED", "TIMESTAMP_EXPIRED"].contains(&answer.code()), "{answer:?}");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Whether the times the server tells are true.
pub enum Times<'a> {
    /// With who heard what was said, so that each "nobody knows" can be judged.
    True(&'a mut Ear),
    Moved,
}

/// Waits until emergencies that a server had in its journal alone are on record: until then a list does not have them.
pub async fn until_on_record(api: &Api) {
    until("emergencies stay in the journal", async || api.figure("journal_unsettled").await == 0)
        .await;
}

/// Holds every command against the ledger of the docks and what they said: none lost, none twice, none late, none said to be
/// what it was not, nor that nobody knows what a server had been told. Of so many in a hundred it must be known what the dock
/// did: what nobody can know proves nothing.
/// Prints how they ended and answers how many ended in which way.
pub async fn judge(
    name: &str,
    api: &Api,
    fleet: &Fleet,
    made: &[Made],
    times: Times<'_>,
    known_percent_min: usize,
) -> BTreeMap<String, usize> {
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    let mut all_ended = Vec::new();
    for some in made.chunks(AT_ONCE) {
        all_ended.extend(join_all(some.iter().map(|made| api.ended(&made.id))).await);
    }
    // Whatever was said of them has been said.
    let (mut ear, answers) = match times {
        Times::True(ear) => {
            let answers = ear.answers();
            (Some(ear), answers)
        }
        Times::Moved => (None, BTreeMap::new()),
    };
    let mut lies = Vec::new();
    for (Made { id, answered_ms, .. }, ended) in made.iter().zip(all_ended) {
        match &mut ear {
            Some(ear) => {
                truth::must_be_true(&ended, fleet);
                let answers = answers.get(id).map_or(&[][..], Vec::as_slice);
                if let Some(lie) = ear.lie(&ended, fleet, answers) {
                    lies.push(format!("{lie}\n{:#}", api.timeline(id).await));
                }
            }
            None => {
                truth::must_be_what_happened(&ended, fleet);
                truth::must_be_in_time(&ended, fleet, *answered_ms);
            }
        }
        let words = [ended["status"].as_str(), ended["failure_code"].as_str()];
        *ends.entry(words.into_iter().flatten().collect::<Vec<_>>().join("/")).or_default() += 1;
    }
    for some in made.chunks(AT_ONCE) {
        let again = some.iter().map(|made| api.post(COMMANDS, &made.body));
        for (made, again) in some.iter().zip(join_all(again).await) {
            let found = (again.status, again.id());
            assert_eq!(found, (StatusCode::OK, made.id.clone()), "the key is known");
        }
    }
    assert!(lies.is_empty(), "drill {name}: {} lies:\n{}", lies.len(), lies.join("\n\n"));
    let mut known: Vec<&str> = made.iter().map(|made| made.id.as_str()).collect();
    known.sort_unstable();
    // What a drill has waiting for docks that are away is of devices that nothing else is asked of.
    let devices: BTreeSet<&str> =
        made.iter().map(|made| made.body["device_id"].as_str().unwrap()).collect();
    until_on_record(api).await;
    let stored = api.commands().await;
    let of_them = stored.iter().filter(|it| devices.contains(it["device_id"].as_str().unwrap()));
    let mut stored: Vec<&str> =
        of_them.map(|command| command["command_id"].as_str().unwrap()).collect();
    stored.sort_unstable();
    assert_eq!(known, stored, "none lost, none made twice");
    let received = fleet.received();
    for one in &received {
        let tid = one.tid.as_deref().unwrap();
        assert!(known.binary_search(&tid).is_ok(), "{tid} was never accepted");
        assert_eq!(fleet.count(tid), 1, "{one:?}");
    }
    eprintln!(
        "drill {name}: {} accepted, {} received, 0 lost, 0 doubled, 0 stale; ended {ends:?}",
        made.len(),
        received.len()
    );
    if let Some(ear) = &ear {
        eprintln!(
            "drill {name}: of {} it would be seen that their answers were ignored",
            ear.judgeable()
        );
    }
    let known = ["SUCCEEDED", "FAILED/DEVICE_EXECUTION_FAILED"]
        .map(|end| ends.get(end).copied().unwrap_or(0));
    let [succeeded, refused] = known;
    assert!(
        (succeeded + refused) * 100 >= made.len() * known_percent_min,
        "of {} commands {succeeded} succeeded and {refused} were refused, less than {known_percent_min} %: {ends:?}",
        made.len()
    );
    ends
}
