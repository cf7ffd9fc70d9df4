//! What devices tell, read at any server: also at one that never heard a word of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};
use utmos_core::time::Clock;
use utmos_server::clock::SystemClock;

use super::Several;
use crate::{api::Api, drill::until};

/// What an answer says, once it says something.
async fn read(api: &Api, sn: &str, what: &str) -> Value {
    let answer = api.get(&format!("/api/v1/open/devices/{sn}/{what}")).await;
    assert!(answer.status.is_success(), "{what}: {answer:?}");
    answer.body
}

/// The latest of everything, without when it came: each server heard it itself.
async fn latest(api: &Api, sn: &str) -> BTreeMap<String, Value> {
    let told = read(api, sn, "telemetry").await;
    let blocks = told["blocks"].as_object().unwrap().iter();
    blocks.map(|(name, block)| (name.clone(), block["value"].clone())).collect()
}

async fn updated_at(api: &Api, sn: &str) -> Value {
    read(api, sn, "telemetry").await["updated_at"].clone()
}

/// Everything of the last half hour: all pages.
async fn history(api: &Api, sn: &str) -> Vec<Value> {
    let to = SystemClock::new().now().wall.plus(Duration::from_secs(1_800));
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let target = format!("telemetry/history?to={to}&limit=200{cursor}");
        let page = read(api, sn, &target).await;
        all.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

async fn events(api: &Api, sn: &str) -> Vec<Value> {
    read(api, sn, "events?limit=200").await["items"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_server_heard_is_read_at_any_also_at_one_that_heard_nothing() {
    let mut several = Several::prepare(3).await;
    several.place.settings.push("telemetry.flush_seconds=1".to_owned());
    several.bring_up(0).await;
    several.bring_up(1).await;
    several.shared_by(2).await;
    let fleet = several.fleet().await;
    let sns: Vec<String> = several.config.docks.iter().map(|dock| dock.sn.clone()).collect();
    let (first, second) = (several.api(0), several.api(1));
    for sn in &sns {
        let told = async || history(&second, sn).await.len() >= 5;
        until("nothing is kept of a dock", told).await;
        // A job tells how it goes by itself.
        for method in ["debug_mode_open", "cover_open"] {
            let more = json!({"timeout_seconds": 60});
            let id = first.create(sn, method, json!({}), more).await.id();
            assert_eq!(first.ended(&id).await["status"], "SUCCEEDED", "{method}");
        }
        let told = async || events(&second, sn).await.len() >= 2;
        until("no event of a dock is kept", told).await;
    }
    // Once the docks are silent, everything is kept within a second.
    fleet.shutdown().await;
    for sn in &sns {
        let still = async || {
            let before = history(&first, sn).await.len();
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            history(&second, sn).await.len() == before
        };
        until("the history goes on for ever", still).await;
    }

    several.bring_up(2).await;
    several.shared_by(3).await;
    let third = several.api(2);
    for sn in &sns {
        let known = latest(&first, sn).await;
        assert!(!known.is_empty());
        assert_eq!(latest(&second, sn).await, known);
        assert_eq!(latest(&third, sn).await, known);
        let kept = history(&first, sn).await;
        let at: BTreeSet<String> = kept.iter().map(Value::to_string).collect();
        assert_eq!(at.len(), kept.len(), "two servers heard it, and one kept it");
        assert_eq!((&history(&second, sn).await, &history(&third, sn).await), (&kept, &kept));
        let told = events(&first, sn).await;
        assert_eq!((&events(&second, sn).await, &events(&third, sn).await), (&told, &told));
        let came = told.iter().filter(|event| event["type"] == "device.online").count();
        assert!(came <= 1, "{told:?}");
    }
    // The history file is nobody's.
    for site in &several.sites {
        assert!(!several.place.path(&site.name).join("history.sqlite").exists());
    }

    // Whoever takes over goes on with what the other kept.
    several.kill(0).await;
    several.shared_by(2).await;
    let (before, at) = (latest(&third, &sns[0]).await, updated_at(&third, &sns[0]).await);
    let fleet = several.fleet().await;
    let newer = async || updated_at(&third, &sns[0]).await != at;
    until("nothing new is told", newer).await;
    let more = history(&second, &sns[0]).await.len();
    until("nothing new is kept", async || history(&third, &sns[0]).await.len() > more).await;
    let after = latest(&second, &sns[0]).await;
    assert!(before.keys().all(|name| after.contains_key(name)));
    several.stop(fleet).await;
}
