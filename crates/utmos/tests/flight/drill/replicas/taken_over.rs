//! How long it takes until others send what a server that died has not sent.

use serde_json::json;

use super::{LONG_DOCKS, SERVERS, Several, TIMEOUT_SECONDS};
use crate::{
    api::{COMMANDS, command},
    drill::load::Made,
    truth,
};
use rustix::process::Signal;
use utmos_core::time::Clock;
use utmos_server::clock::SystemClock;

/// Commands for each dock.
const EACH: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_that_died_has_not_sent_others_send_in_its_order() {
    unsent(Several::start_with(48).await, "the unsent commands of a server that died").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long form: with 200 docks"]
async fn with_200_docks_what_a_server_that_died_has_not_sent_others_send() {
    let several = Several::start_with(LONG_DOCKS).await;
    unsent(several, "the unsent commands of a server that died, 200 docks").await;
}

async fn unsent(mut several: Several, name: &str) {
    let fleet = several.fleet().await;
    several.shared_by(SERVERS).await;
    let docks: Vec<String> = several.docks_of(1).into_iter().take(12).collect();
    assert!(!docks.is_empty());
    // It holds these docks, and sends nothing more: what is accepted elsewhere is handed to it and stays unsent.
    several.signal(1, Signal::STOP);
    let stopped_ms = now_ms();
    let mut made: Vec<Made> = Vec::new();
    for round in 0..EACH {
        for (at, sn) in docks.iter().enumerate() {
            let more = json!({"timeout_seconds": 4 * TIMEOUT_SECONDS, "if_offline": "wait"});
            let body = command(sn, "debug_mode_open", json!({}), more);
            // Those that are still to take it over accept them both.
            let answer = several.api(2 * ((round + at) % 2)).post(COMMANDS, &body).await;
            made.push(Made { id: answer.id(), body, answered_ms: now_ms() });
        }
    }
    let of_dock = |sn: &str| -> Vec<&str> {
        let own = made.iter().filter(|it| it.body["device_id"] == *sn);
        own.map(|it| it.id.as_str()).collect()
    };
    several.kill(1).await;
    for one in &made {
        truth::until(&fleet, |fleet| fleet.count(&one.id) == 1).await;
    }
    let received = fleet.received();
    let mut waits = Vec::new();
    for sn in &docks {
        let asked = of_dock(sn);
        assert_eq!(asked.len(), EACH, "{:?}", made[0].body);
        let own = received.iter().filter(|one| {
            &*one.sn == sn.as_str() && one.tid.as_deref().is_some_and(|tid| asked.contains(&tid))
        });
        let own: Vec<_> = own.collect();
        let order: Vec<&str> = own.iter().filter_map(|one| one.tid.as_deref()).collect();
        assert_eq!(order, asked, "in the order of acceptance");
        let waited = own.iter().map(|one| one.at.as_millis() - stopped_ms);
        waits.extend(waited);
    }
    for one in &made {
        assert_eq!(several.api(0).ended(&one.id).await["status"], "SUCCEEDED");
    }
    waits.sort_unstable();
    // By others it is known for dead by its silence alone.
    eprintln!(
        "drill {name}: {} commands to {} docks, all sent by others, the first {} ms and the last {} ms after it could send no more",
        waits.len(),
        docks.len(),
        waits.first().unwrap(),
        waits.last().unwrap()
    );
    several.shared_by(SERVERS - 1).await;
    several.bring_up(1).await;
    several.judge(name, fleet, Vec::new(), made).await;
}

fn now_ms() -> i64 {
    SystemClock::new().now().wall.as_millis()
}
