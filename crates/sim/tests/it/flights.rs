//! Flights: out, on, home.

use serde_json::{Value, json};
use utmos_sim::{Model, Outcome, Position, Settings, guide};

use crate::world::{CATALOGUE, World, settings};

fn target(world: &World) -> Value {
    let to = world.config.home.moved(200.0, 100.0);
    json!({"fly_to_id": "fly-1", "max_speed": 10, "points": [
        {"latitude": to.latitude, "longitude": to.longitude, "height": to.height + 60.0}]})
}

fn osd_places(world: &World, from: usize) -> Vec<(i64, Position)> {
    world.sent[from..]
        .iter()
        .filter(|message| message.is_on("SIM-M3D-0001/osd"))
        .map(|message| {
            let number = |name: &str| message.data(name).as_f64().unwrap();
            let position = Position {
                latitude: number("/latitude"),
                longitude: number("/longitude"),
                height: number("/height"),
            };
            (message.data("/mode_code").as_i64().unwrap(), position)
        })
        .collect()
}

#[test]
fn a_one_key_takeoff_shows_in_osd_arrives_and_comes_home_into_the_dock() {
    let mut world = World::with(Settings { quiet: false, ..settings() }, 7);
    world.run(3_000);
    let takeoff = CATALOGUE.method("takeoff_to_point").unwrap();
    let payload = guide::payload(takeoff, &world.config, world.now().wall);
    let tid = world.must("takeoff_to_point", &payload);
    assert_eq!(world.until_end(&tid), Outcome::Succeeded);
    let there = world.dock.aircraft_position();
    assert!((there.latitude - 22.5796).abs() < 1e-5 && (there.height - 120.5).abs() < 0.1);
    let words: Vec<&Value> = world
        .events("takeoff_to_point_progress")
        .iter()
        .map(|event| event.data("/status"))
        .collect();
    assert_eq!(words.first(), Some(&&json!("task_ready")));
    assert_eq!(words.last(), Some(&&json!("wayline_ok")));
    assert!(10 < words.len());
    let modes: Vec<i64> = osd_places(&world, 0).iter().map(|(mode, _)| *mode).collect();
    for mode in [0, 1, 2, 4, 17] {
        assert!(modes.contains(&mode), "{mode} is not among {modes:?}");
    }
    let flying = world.sent.iter().rfind(|message| message.data("/drone_in_dock").is_number());
    assert_eq!(flying.unwrap().data("/drone_in_dock"), &json!(0));

    let from = world.sent.len();
    let (result, data) = world.ask("return_home", &json!(""));
    assert_eq!((result, data), (0, json!({"result": 0})));
    world.until_docked();
    let home = world.config.home;
    assert!(world.dock.aircraft_position().distance(home) < 0.1);
    let way = osd_places(&world, from);
    let returning: Vec<f64> = way
        .iter()
        .filter(|(mode, _)| *mode == 9)
        .map(|(_, place)| place.ground_distance(home))
        .collect();
    assert!(3 < returning.len() && returning.is_sorted_by(|one, next| one >= next));
    assert!(way.iter().any(|(mode, _)| *mode == 10));
    assert_eq!(way.last().unwrap().0, 0);
    assert_eq!(world.events("return_home_info").len(), 1);
    let last = world.events("takeoff_to_point_progress");
    assert_eq!(last.last().unwrap().data("/status"), &json!("task_finish"));
    let parked = world.sent.iter().rfind(|message| message.data("/drone_in_dock").is_number());
    let parked = parked.unwrap();
    for (name, value) in [("/drone_in_dock", 1), ("/mode_code", 0), ("/cover_state", 0)] {
        assert_eq!(parked.data(name), &json!(value), "{name}");
    }
    assert_eq!(parked.data("/drone_charge_state/state"), &json!(1));
}

#[test]
fn fly_to_comes_nearer_and_arrives_and_only_its_id_ties_it_to_the_command() {
    let mut world = World::up();
    world.take_off();
    let payload = target(&world);
    let tid = world.must("fly_to_point", &payload);
    assert_eq!(world.until_end(&tid), Outcome::Succeeded);
    let events = world.events("fly_to_point_progress");
    let left: Vec<f64> =
        events.iter().map(|event| event.data("/remaining_distance").as_f64().unwrap()).collect();
    assert!(5 < left.len() && left.is_sorted_by(|one, next| one > next), "{left:?}");
    assert!(left.last().unwrap().abs() < 1e-9);
    assert!(events.iter().all(|event| event.data("/fly_to_id") == &json!("fly-1")));
    let mut bids: Vec<&str> =
        events.iter().filter_map(|event| event.json["bid"].as_str()).collect();
    bids.sort_unstable();
    bids.dedup();
    assert_eq!(bids.len(), events.len());
    let (last, running) = events.split_last().unwrap();
    assert_eq!((&last.json["need_reply"], last.data("/status")), (&json!(1), &json!("wayline_ok")));
    assert!(running.iter().all(|event| event.json["need_reply"] == json!(0)));
}

#[test]
fn a_fly_to_can_be_sent_elsewhere_and_stopped() {
    let mut world = World::up();
    world.take_off();
    let payload = target(&world);
    let tid = world.must("fly_to_point", &payload);
    world.run(3_000);
    let to = world.config.home.moved(-300.0, 0.0);
    let points = json!([{"latitude": to.latitude, "longitude": to.longitude, "height": 90}]);
    world.must("fly_to_point_update", &json!({"max_speed": 12, "points": points}));
    world.run(10_000);
    world.must("fly_to_point_stop", &json!({}));
    assert_eq!(world.outcome(&tid), Some(Outcome::Failed(338_050)));
    let last = world.wait_for("the end of it", 1_000, |message| {
        message.data("/status") == &json!("wayline_cancel")
    });
    assert_eq!(last.data("/fly_to_id"), &json!("fly-1"));
    world.run(5_000);
    let here = world.dock.aircraft_position();
    world.run(20_000);
    assert!(here.distance(world.dock.aircraft_position()) < 1e-6, "it hovers");
}

#[test]
fn a_wayline_pauses_resumes_and_ends_well_after_the_landing() {
    let mut world = World::up();
    let prepare = CATALOGUE.method("flighttask_prepare").unwrap();
    let payload = guide::payload(prepare, &world.config, world.now().wall);
    let flight_id = payload["flight_id"].clone();
    world.must("flighttask_prepare", &payload);
    let tid = world.must("flighttask_execute", &json!({"flight_id": flight_id}));
    world.wait_for("wayline", 120_000, |message| {
        message.data("/output/ext/wayline_mission_state") == &json!(6)
    });
    world.must("flighttask_pause", &json!({"flight_ids": [""]}));
    world.run(100);
    let here = world.dock.aircraft_position();
    world.run(30_000);
    assert!(here.distance(world.dock.aircraft_position()) < 1.0);
    world.must("flighttask_recovery", &json!({}));
    assert_eq!(world.until_end(&tid), Outcome::Succeeded);
    assert!(world.dock.aircraft_is_in_dock());
    let events = world.events("flighttask_progress");
    assert!(events.iter().all(|event| event.json["bid"] == flight_id));
    let paused: Vec<_> =
        events.iter().filter(|event| event.data("/output/status") == &json!("paused")).collect();
    assert_eq!(paused.len(), 1);
    assert_eq!(paused[0].json["need_reply"], json!(1));
    assert_eq!(paused[0].data("/output/ext/break_point/break_reason"), &json!(1281));
    let last = events.last().unwrap();
    assert_eq!(last.data("/output/status"), &json!("ok"));
    assert_eq!(last.data("/output/ext/media_count"), &json!(0));
    assert_eq!(last.data("/output/ext/track_id"), &json!(""));
}

#[test]
fn return_home_during_a_wayline_ends_it_as_a_recorded_dock_did() {
    let mut world = World::up();
    world.prepare(CATALOGUE.method("flighttask_pause").unwrap());
    world.must("return_home", &json!({}));
    world.until_docked();
    let last = world.events("flighttask_progress").last().copied().cloned().unwrap();
    assert_eq!(last.data("/output/status"), &json!("failed"));
    assert_eq!(last.data("/result"), &json!(322_283));
    assert_eq!(last.data("/output/ext/break_point/break_reason"), &json!(1283));
    let height = last.data("/output/ext/break_point/height").as_f64().unwrap();
    assert!(50.0 < height, "where it was broken off, not where it landed");
    assert!(world.outcomes.iter().any(|(_, outcome)| *outcome == Outcome::Failed(322_283)));
}

#[test]
fn a_task_aborted_before_the_takeoff_is_canceled_and_frozen_at_15_percent() {
    let mut world = World::of(Model::Dock1);
    world.prepare(CATALOGUE.method("flight_setup_abort").unwrap());
    world.run(5_000);
    world.must("flight_setup_abort", &json!({}));
    world.run(30_000);
    let last = world.events("flighttask_progress").last().copied().cloned().unwrap();
    assert_eq!(last.data("/output/status"), &json!("canceled"));
    assert_eq!(last.data("/output/progress/percent"), &json!(15));
    assert_eq!(last.data("/output/ext/wayline_id"), &json!(65_535));
    assert!(last.data("/output/ext/break_point").is_null());
    assert!(world.dock.aircraft_is_in_dock());
    assert_eq!(world.ask("debug_mode_open", &json!({})).0, 0);
}

#[test]
fn a_return_can_be_called_off() {
    let mut world = World::up();
    world.take_off();
    world.must("return_home", &json!({}));
    world.run(5_000);
    world.must("return_home_cancel", &json!({}));
    world.run(5_000);
    let here = world.dock.aircraft_position();
    world.run(30_000);
    assert!(here.distance(world.dock.aircraft_position()) < 0.01);
    assert!(!world.dock.aircraft_is_in_dock());
}

#[test]
fn an_empty_battery_brings_it_home() {
    let mut world = World::up();
    world.take_off();
    let charge = |world: &World| world.dock.battery_percent();
    world.run(20 * 60_000);
    assert!(!world.dock.aircraft_is_in_dock() && 20.0 < charge(&world));
    world.until_docked();
    assert!((10.0..20.0).contains(&charge(&world)), "{}", charge(&world));
}
