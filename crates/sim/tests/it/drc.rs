//! Direct control.

use serde_json::{Value, json};
use utmos_sim::{Outcome, Settings};

use crate::world::{Message, World, settings};

fn enter(world: &mut World) {
    world.must(
        "drc_mode_enter",
        &json!({"mqtt_broker": {"address": "broker:1883", "client_id": "c", "username": "u",
            "password": "p", "expire_time": 1_893_456_000, "enable_tls": false},
            "osd_frequency": 10, "hsi_frequency": 1}),
    );
}

fn up<'a>(world: &'a World, method: &str) -> Vec<&'a Message> {
    world
        .sent
        .iter()
        .filter(|message| message.is_on("drc/up") && message.method() == method)
        .collect()
}

fn control(seq: u64, x: f64) -> Value {
    json!({"method": "drone_control", "data": {"seq": seq, "x": x, "y": 0, "h": 0, "w": 0}})
}

#[test]
fn outside_of_drc_mode_nobody_listens() {
    let mut world = World::up();
    world.drc(&json!({"method": "heart_beat", "seq": 1, "data": {"timestamp": 1}}));
    world.run(1_000);
    assert!(up(&world, "heart_beat").is_empty());
    assert_eq!(world.outcomes.last().unwrap().1, Outcome::Ignored);
}

#[test]
fn the_link_is_announced_and_pushes_at_the_pace_asked_for_until_it_is_left() {
    let mut world = World::with(Settings { quiet: false, ..settings() }, 7);
    enter(&mut world);
    world.run(10_200);
    let states: Vec<Value> = world
        .events("drc_status_notify")
        .iter()
        .map(|event| event.data("/drc_state").clone())
        .collect();
    assert_eq!(states, [json!(1), json!(2)]);
    let bid = &world.events("drc_status_notify")[0].json["bid"];
    assert!(bid.as_str().unwrap().starts_with("bid-"), "the bid of drc_mode_enter");
    for (method, least, most) in
        [("osd_info_push", 99, 102), ("hsi_info_push", 10, 11), ("delay_info_push", 10, 11)]
    {
        let count = up(&world, method).len();
        assert!((least..=most).contains(&count), "{method} {count}");
    }
    world.must("drc_mode_exit", &json!({}));
    let before = up(&world, "osd_info_push").len();
    world.run(5_000);
    assert_eq!(up(&world, "osd_info_push").len(), before);
}

#[test]
fn a_minute_without_a_heartbeat_ends_it() {
    let mut world = World::up();
    enter(&mut world);
    for _ in 0..10 {
        world.run(10_000);
        world.drc(&json!({"method": "heart_beat", "seq": 3, "data": {"timestamp": 17}}));
    }
    world.run(59_000);
    assert_eq!(up(&world, "heart_beat").len(), 10);
    assert_eq!(up(&world, "heart_beat")[0].json["seq"], json!(3));
    assert_eq!(up(&world, "heart_beat")[0].data("/timestamp"), &json!(17));
    assert_eq!(world.events("drc_status_notify").len(), 2);
    world.run(2_000);
    let last = world.events("drc_status_notify").last().copied().cloned().unwrap();
    assert_eq!((last.data("/result"), last.data("/drc_state")), (&json!(514_301), &json!(0)));
}

#[test]
fn drone_control_needs_authority_and_a_seq_that_does_not_go_back() {
    let mut world = World::up();
    world.take_off();
    enter(&mut world);
    let codes = |world: &World| -> Vec<(i64, i64)> {
        up(world, "drone_control")
            .iter()
            .map(|message| {
                let number = |pointer| message.data(pointer).as_i64().unwrap();
                (number("/output/seq"), number("/result"))
            })
            .collect()
    };
    world.drc(&control(1, 3.0));
    world.run(200);
    assert_eq!(codes(&world), [(1, 319_030)]);
    world.must("flight_authority_grab", &json!({}));
    let before = world.dock.aircraft_position();
    for seq in [5, 6, 4] {
        world.drc(&control(seq, 3.0));
        world.run(200);
    }
    // Another wish, and the number starts again.
    world.drc(&control(0, 2.0));
    world.run(2_000);
    let mut got = codes(&world);
    got.sort_unstable();
    assert_eq!(got, [(0, 0), (1, 319_030), (4, 319_033), (5, 0), (6, 0)]);
    assert!(1.0 < before.distance(world.dock.aircraft_position()), "it moved");
}

#[test]
fn a_stick_takes_a_fly_to_over_and_an_emergency_stop_ends_everything() {
    let mut world = World::up();
    world.take_off();
    enter(&mut world);
    world.must("flight_authority_grab", &json!({}));
    let to = world.config.home.moved(400.0, 0.0);
    let fly = json!({"fly_to_id": "f", "max_speed": 8, "points": [
        {"latitude": to.latitude, "longitude": to.longitude, "height": 90}]});
    let tid = world.must("fly_to_point", &fly);
    world.run(2_000);
    world.drc(&json!({"method": "stick_control", "seq": 1,
        "data": {"roll": 1024, "pitch": 1684, "throttle": 1024, "yaw": 1024}}));
    world.run(500);
    assert_eq!(world.outcome(&tid), Some(Outcome::Failed(338_049)));
    assert!(up(&world, "stick_control").is_empty());
    world.drc(&json!({"method": "drone_emergency_stop", "seq": 2, "data": {}}));
    world.run(8_000);
    assert_eq!(up(&world, "drone_emergency_stop")[0].data("/result"), &json!(0));
    let here = world.dock.aircraft_position();
    world.run(10_000);
    assert!(here.distance(world.dock.aircraft_position()) < 1e-6);
}
