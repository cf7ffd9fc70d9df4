//! Coming up, telemetry, and what is sent again.

use serde_json::{Value, json};
use utmos_sim::Settings;

use crate::world::{Message, World, settings};

fn loud() -> Settings {
    Settings { quiet: false, ..settings() }
}

fn names(messages: &[Message]) -> Vec<(&str, &str)> {
    messages
        .iter()
        .map(|message| (message.topic.rsplit('/').next().unwrap(), message.method()))
        .collect()
}

#[test]
fn a_dock_comes_up_as_a_dock_does() {
    let world = World::up();
    assert_eq!(
        names(&world.sent),
        [("requests", "config"), ("requests", "airport_bind_status"), ("status", "update_topo")]
    );
    let topo = world.sent.last().unwrap();
    assert_eq!(topo.topic, "sys/product/SIM-DOCK-0001/status");
    assert_eq!((topo.data("/type"), topo.data("/domain")), (&json!(2), &json!("3")));
    assert_eq!(topo.data("/sub_devices/0/sn"), &json!("SIM-M3D-0001"));
    assert_eq!(topo.data("/sub_devices/0/type"), &json!(91));
}

#[test]
fn a_lost_connection_is_made_anew_from_the_start() {
    let mut world = World::with(loud(), 7);
    let now = world.now();
    world.dock.disconnected("broker gone", now);
    let before = world.sent.len();
    world.run(20_000);
    assert_eq!(world.sent.len(), before, "nothing is said into the void");
    world.connect();
    world.run(500);
    let again = names(&world.sent[before..]);
    assert_eq!(
        again[..3],
        [("requests", "config"), ("requests", "airport_bind_status"), ("status", "update_topo")]
    );
}

#[test]
fn telemetry_comes_in_parts_at_half_a_hertz_and_together_makes_the_whole() {
    let mut world = World::with(loud(), 7);
    world.sent.clear();
    world.run(20_000);
    let osd: Vec<&Message> = world.sent.iter().filter(|message| message.is_on("/osd")).collect();
    let (dock, aircraft): (Vec<&&Message>, Vec<&&Message>) =
        osd.iter().partition(|message| message.topic.contains("DOCK"));
    assert_eq!((dock.len(), aircraft.len()), (30, 10));
    let mut whole = serde_json::Map::new();
    for message in &dock {
        assert_eq!(message.json["gateway"], json!("SIM-DOCK-0001"));
        let part = message.json["data"].as_object().unwrap().clone();
        assert!(part.len() < 30);
        whole.extend(part);
    }
    for key in
        ["mode_code", "cover_state", "drone_in_dock", "job_number", "wireless_link", "sub_device"]
    {
        assert!(whole.contains_key(key), "{key}");
    }
    for key in ["latitude", "attitude_head", "battery", "mode_code", "elevation", "80-0-0"] {
        assert!(aircraft[0].json["data"].get(key).is_some(), "{key}");
    }
    let tids: Vec<&Value> = osd.iter().map(|message| &message.json["tid"]).collect();
    assert!(tids.is_sorted_by(|one, next| one != next));
}

#[test]
fn an_unanswered_state_comes_again_with_the_same_ids_and_another_time_and_then_no_more() {
    let mut world = World::with(loud(), 7);
    let first = world
        .sent
        .iter()
        .find(|message| message.is_on("SIM-DOCK-0001/state"))
        .cloned()
        .expect("the state after coming up");
    assert_eq!(first.json["need_reply"], json!(1));
    world.run(60_000);
    let copies: Vec<&Message> =
        world.sent.iter().filter(|message| message.json["tid"] == first.json["tid"]).collect();
    let waits: Vec<u64> = copies.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert_eq!(waits, [2_050, 4_200, 8_200, 8_200, 8_200]);
    for copy in &copies[1..] {
        assert_eq!(copy.json["bid"], first.json["bid"]);
        assert_ne!(copy.json["timestamp"], first.json["timestamp"]);
    }
}

#[test]
fn an_answered_event_does_not_come_again_and_an_end_survives_an_outage() {
    let mut world = World::up();
    world.must("debug_mode_open", &json!({}));
    let tid = world.must("cover_open", &json!({}));
    world.run(3_000);
    let now = world.now();
    world.dock.disconnected("cut", now);
    world.until_end(&tid);
    assert!(
        world.events("cover_open").iter().all(|event| event.data("/output/status") != &json!("ok"))
    );
    world.connect();
    world.run(60_000);
    let ends = world.events("cover_open");
    let ends: Vec<_> =
        ends.iter().filter(|event| event.data("/output/status") == &json!("ok")).collect();
    assert_eq!(ends.len(), 1, "told when the link was back, and once, for it was answered");
}

#[test]
fn a_docks_clock_is_behind() {
    let world = World::up();
    let topo = world.sent.last().unwrap();
    let wall = world.now().wall.as_millis() - i64::try_from(world.millis - topo.at).unwrap();
    let behind = wall - topo.json["timestamp"].as_i64().unwrap();
    assert!((380..=610).contains(&behind), "{behind}");
}
