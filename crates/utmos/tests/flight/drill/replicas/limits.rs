//! One caller asks two servers in turn, as often as it can: together they give what one would.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;
use tokio::time::Instant;

use super::Several;
use crate::api::{Api, COMMANDS};

const PER_SECOND: u64 = 20;
const BURST: u64 = 40;
const TIME: Duration = Duration::from_secs(8);
/// Callers at each server.
const CALLERS: usize = 3;

/// Asks until then. Answers how often it was let in, and how often refused.
async fn ask_until(api: Api, by: Instant) -> (u64, u64) {
    let (mut given, mut refused) = (0, 0);
    while Instant::now() < by {
        let answer = api.get(&format!("{COMMANDS}?limit=1")).await;
        match answer.status {
            StatusCode::OK => given += 1,
            StatusCode::TOO_MANY_REQUESTS => {
                assert_eq!(answer.code(), "RATE_LIMITED");
                refused += 1;
            }
            _ => panic!("{answer:?}"),
        }
    }
    (given, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_give_a_caller_what_one_would() {
    let mut several = Several::prepare(1).await;
    let limits = [
        format!("limits.credential_per_second={PER_SECOND}"),
        format!("limits.credential_burst={BURST}"),
        "limits.tenant_per_second=0".to_owned(),
    ];
    several.place.settings.extend(limits);
    for number in 0..2 {
        several.bring_up(number).await;
    }
    several.shared_by(2).await;
    // Each has seen the other by then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    let callers = (0..2 * CALLERS).map(|number| ask_until(several.api(number % 2), began + TIME));
    let asked = join_all(callers).await;
    let elapsed = began.elapsed();
    let given: u64 = asked.iter().map(|it| it.0).sum();
    let refused: u64 = asked.iter().map(|it| it.1).sum();
    let at = |server: usize| asked.iter().skip(server).step_by(2).map(|it| it.0).sum::<u64>();
    eprintln!(
        "drill limits: {given} let in ({} and {}), {refused} refused in {elapsed:?}",
        at(0),
        at(1)
    );
    let one = BURST + PER_SECOND * elapsed.as_millis() as u64 / 1_000;
    // And what the two may not have told each other: a quarter of a second's worth, and what the database was slow by.
    let untold = 2 * PER_SECOND / 4 + 2 + PER_SECOND * 2;
    assert!(given <= one + untold, "{given} were let in; one server would have given {one}");
    assert!(refused > 0 && at(0) > 0 && at(1) > 0, "or nothing was proved: {asked:?}");
    assert_eq!(
        several.database.sql("SELECT count(*) FROM allowances"),
        "1",
        "they told each other"
    );
    for number in 0..2 {
        let sn = &several.config.docks[0].sn;
        let stop = several.api(number).create(sn, "return_home", json!({}), json!({})).await;
        assert_eq!(stop.status, StatusCode::ACCEPTED, "an emergency is never refused so: {stop:?}");
    }
    for site in &mut several.sites {
        if let Some(process) = site.process.take() {
            process.stop().await;
        }
    }
}
