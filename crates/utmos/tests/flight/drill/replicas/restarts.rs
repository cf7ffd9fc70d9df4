//! What restarts under callers: the broker with its memory, and the servers one after another behind a load balancer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::Method;
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};
use utmos_core::time::Clock;
use utmos_mqtt::{ClientConfig, Probe, Qos, Session};
use utmos_server::clock::SystemClock;

use super::{LONG_DOCKS, SERVERS, Several, TIMEOUT_SECONDS, more};
use crate::{
    api::{Api, COMMANDS, PATIENCE, command},
    drill::{broker::REMEMBERS, ear::Since, load::Made, until},
    mosquitto_doctor::retain,
};

const BROKER_DEATHS: usize = 3;
/// How often the balancer looks, and how long a server that is stopped goes on answering, so that it is seen.
const LOOK_WAIT: Duration = Duration::from_millis(100);
const NOTICE: &str = "http.notice_seconds=3";
/// Callers behind the balancer, and their pause.
const CALLERS: usize = 6;
const PACE: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_remembers_restarts_under_three_servers() {
    let several = Several::start_behind(super::DOCKS, REMEMBERS).await;
    the_broker_restarts(several, "a broker that remembers restarts under three servers").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long form: with 200 docks"]
async fn with_200_docks_a_broker_that_remembers_restarts_under_three_servers() {
    let several = Several::start_behind(LONG_DOCKS, REMEMBERS).await;
    let name = "a broker that remembers restarts under three servers, 200 docks";
    the_broker_restarts(several, name).await;
}

async fn the_broker_restarts(mut several: Several, name: &str) {
    let fleet = several.fleet().await;
    let loads = several.load();
    several.shared_by(SERVERS).await;
    // Of no device: it only shows that the broker has its state again.
    let kept = "drill/kept";
    retain(several.broker.address(), kept).await;
    more(&loads, None, 30).await;
    for _ in 0..BROKER_DEATHS {
        let died = Since::now();
        several.broker.die_and_come_back().await;
        let host = several.broker.address().ip().to_string();
        let config = ClientConfig::new(host, 1883, "drill-looks");
        let mut probe = Probe::connect(&config, Session::Clean).await.unwrap();
        assert!(probe.subscribe(kept, Qos::AtLeastOnce).await.unwrap());
        let heard = probe.heard(Duration::from_secs(1)).await.unwrap();
        assert!(heard.iter().any(|it| it.retained), "the broker has forgotten: nothing is shown");
        probe.leave().await;
        more(&loads, None, 15).await;
        several.ear.nobody_since(died);
    }
    several.judge(name, fleet, loads, Vec::new()).await;
}

/// Sends requests to servers that say that they are ready, as a load balancer does.
struct Balancer {
    apis: Vec<Api>,
    ready: Vec<AtomicBool>,
    next: AtomicUsize,
}

impl Balancer {
    fn start(apis: Vec<Api>) -> (Arc<Self>, Vec<JoinHandle<()>>) {
        let ready = apis.iter().map(|_| AtomicBool::new(true)).collect();
        let this = Arc::new(Self { apis, ready, next: AtomicUsize::new(0) });
        let looks = (0..this.apis.len()).map(|number| {
            let this = this.clone();
            tokio::spawn(async move {
                loop {
                    let answer = this.apis[number].try_request(Method::GET, "/readyz", None).await;
                    let is_ready = answer.is_ok_and(|answer| answer.status.is_success());
                    this.ready[number].store(is_ready, Ordering::SeqCst);
                    tokio::time::sleep(LOOK_WAIT).await;
                }
            })
        });
        let looks = looks.collect();
        (this, looks)
    }

    /// The next server in turn that was ready when it was asked last.
    fn pick(&self) -> &Api {
        loop {
            let number = self.next.fetch_add(1, Ordering::SeqCst) % self.apis.len();
            if self.ready[number].load(Ordering::SeqCst) {
                return &self.apis[number];
            }
            assert!(
                self.ready.iter().any(|ready| ready.load(Ordering::SeqCst)),
                "no server is ready"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_restart_one_after_another_and_no_request_is_refused() {
    let mut several = Several::prepare(super::DOCKS).await;
    for site in &mut several.sites {
        site.settings.push(NOTICE.to_owned());
    }
    for number in 0..SERVERS {
        several.bring_up(number).await;
    }
    let fleet = several.fleet().await;
    several.shared_by(SERVERS).await;
    let apis = (0..SERVERS).map(|number| several.api(number)).collect();
    let (balancer, looks) = Balancer::start(apis);
    let (accepted, ends) =
        (Arc::new(watch::Sender::new(0_usize)), Arc::new(AtomicBool::new(false)));
    let callers = (0..CALLERS).map(|caller| {
        let sns: Vec<String> = several.config.docks.iter().map(|dock| dock.sn.clone()).collect();
        let (balancer, accepted, ends) = (balancer.clone(), accepted.clone(), ends.clone());
        tokio::spawn(async move {
            let mut made = Vec::new();
            while !ends.load(Ordering::SeqCst) {
                let sn = &sns[(caller + made.len()) % sns.len()];
                let more = json!({"timeout_seconds": TIMEOUT_SECONDS, "if_offline": "wait"});
                let body = command(sn, "debug_mode_open", json!({}), more);
                // No request is sent again: each has one answer, and it is no refusal.
                let answer = balancer.pick().try_request(Method::POST, COMMANDS, Some(&body)).await;
                let answer = answer.expect("a server that was ready did not answer");
                assert!(answer.status.is_success(), "{answer:?}");
                let id = answer.id();
                accepted.send_modify(|count| *count += 1);
                made.push(Made { id: id.clone(), body, answered_ms: now_ms() });
                let target = format!("{COMMANDS}/{id}?wait=2");
                let told = balancer.pick().try_request(Method::GET, &target, None).await;
                let told = told.expect("a server that was ready did not answer");
                assert!(told.status.is_success(), "{told:?}");
                tokio::time::sleep(PACE).await;
            }
            made
        })
    });
    let callers: Vec<JoinHandle<Vec<Made>>> = callers.collect();
    let more_are_accepted = async |count: usize| {
        let mut accepted = accepted.subscribe();
        let goal = *accepted.borrow() + count;
        let more = accepted.wait_for(|accepted| *accepted >= goal);
        tokio::time::timeout(PATIENCE, more).await.expect("no commands are accepted").unwrap();
    };
    more_are_accepted(30).await;
    for number in 0..SERVERS {
        several.sites[number].process.take().unwrap().stop().await;
        more_are_accepted(10).await;
        several.bring_up(number).await;
        until("nobody is sent there", async || balancer.ready[number].load(Ordering::SeqCst)).await;
        several.shared_by(SERVERS).await;
        more_are_accepted(20).await;
    }
    ends.store(true, Ordering::SeqCst);
    let mut made = Vec::new();
    for caller in callers {
        made.extend(caller.await.expect("a request was refused or lost"));
    }
    looks.iter().for_each(JoinHandle::abort);
    let name = "servers restart one after another behind a load balancer";
    eprintln!("drill {name}: {} commands, no request refused", made.len());
    several.judge(name, fleet, Vec::new(), made).await;
}

fn now_ms() -> i64 {
    SystemClock::new().now().wall.as_millis()
}
