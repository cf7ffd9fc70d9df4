//! A server whose clock is wrong among others: all go by the times that each puts on record.

use serde_json::json;

use super::{SERVERS, Several};
use crate::{
    api::{Api, COMMANDS, command},
    drill::{clock::wall_of, until},
    process::Process,
    truth,
};

/// By so many seconds its clock is wrong.
const OFF: i64 = 60;

async fn says_its_clock_is_wrong(api: &Api) {
    let told = "this machine's clock is";
    until("it does not say that its clock is wrong", async || {
        api.get("/readyz").await.body.to_string().contains(told)
    })
    .await;
}

/// Also where it is the only one that reaches the broker: the others accept, and what they accept waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_wrong_clock_sends_nothing_and_others_do_its_work() {
    let mut several = Several::prepare(48).await;
    let Some(wall) = wall_of(&several.place) else { return };
    several.bring_up(0).await;
    several.bring_up(2).await;
    let process = Process::start(wall.rule(several.serve(1))).await;
    several.sites[1].process = Some(process);
    let fleet = several.fleet().await;
    several.shared_by(SERVERS).await;
    let dock = several.docks_of(1).into_iter().next().unwrap();
    let run = several.sites[1].run();

    for number in [0, 2] {
        several.sites[number].to_broker.cut();
        let api = several.api(number);
        until("it is ready", async || !api.get("/readyz").await.status.is_success()).await;
    }
    wall.set(OFF);
    says_its_clock_is_wrong(&several.api(1)).await;
    let away = several.api(1).ahead(OFF);
    let more = json!({"timeout_seconds": 60, "if_offline": "wait"});
    let refused =
        away.post(COMMANDS, &command(&dock, "debug_mode_open", json!({}), more.clone())).await;
    assert_eq!(refused.code(), "OVERLOADED", "{refused:?}");
    assert!(refused.body.to_string().contains("ahead of the database's"), "{refused:?}");
    // What others accept for its docks waits.
    let waits = several.api(0).create(&dock, "debug_mode_open", json!({}), more.clone()).await.id();
    several.lives_on(1, 6).await;
    assert_eq!(fleet.count(&waits), 0, "it sends nothing");
    // Emergencies it sends: nobody else counts by its clock for them.
    let stop = away.create(&dock, "fly_to_point_stop", json!({}), more.clone()).await.id();
    truth::until(&fleet, |fleet| fleet.count(&stop) == 1).await;

    for number in [0, 2] {
        several.sites[number].to_broker.mend();
    }
    several.shared_by(SERVERS - 1).await;
    assert_eq!(several.shards_of(1), [], "it holds nothing");
    assert_eq!(several.api(0).ended(&waits).await["status"], "SUCCEEDED");
    let timeline = several.api(0).timeline(&waits).await.to_string();
    assert!(!timeline.contains(&run), "{timeline}");

    wall.set(0);
    several.shared_by(SERVERS).await;
    let again = several.api(1).create(&dock, "debug_mode_open", json!({}), more).await.id();
    assert_eq!(several.api(1).ended(&again).await["status"], "SUCCEEDED");
    assert_eq!((fleet.count(&waits), fleet.count(&again)), (1, 1));
    several.stop(fleet).await;
}
