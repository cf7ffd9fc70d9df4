//! Conditions of the world: what a dock shows of them, and what it refuses by its own rules.

use serde_json::{Value, json};
use utmos_sim::{Conditions, Outcome, Settings, guide};

use crate::world::{CATALOGUE, World, settings};

fn under(world: &mut World, conditions: Conditions) {
    let outputs = world.dock.put_under(conditions, world.now());
    world.note(outputs);
}

fn loud() -> World {
    World::with(Settings { quiet: false, ..settings() }, 7)
}

const DOCK: &str = "SIM-DOCK-0001/osd";
const AIRCRAFT: &str = "SIM-M3D-0001/osd";

/// The newest value of a field of an `osd`, after some seconds.
fn osd(world: &mut World, topic: &str, pointer: &str) -> Value {
    world.run(3_000);
    let osd = world.sent.iter().rev().filter(|message| message.is_on(topic));
    let found = osd.map(|message| message.data(pointer)).find(|value| !value.is_null());
    found.cloned().unwrap_or_default()
}

fn take_off(world: &mut World) -> i64 {
    let method = CATALOGUE.method("takeoff_to_point").unwrap();
    let payload = guide::payload(method, &world.config, world.now().wall);
    world.ask("takeoff_to_point", &payload).0
}

#[test]
fn a_low_battery_is_shown_and_nothing_takes_off_until_it_is_over() {
    let mut world = loud();
    let before = world.dock.battery_percent();
    under(&mut world, Conditions { battery_max: Some(12.0), ..Conditions::default() });
    assert_eq!(osd(&mut world, DOCK, "/drone_charge_state/capacity_percent"), json!(12));
    assert_eq!(osd(&mut world, AIRCRAFT, "/battery/capacity_percent"), json!(12));
    assert_eq!(take_off(&mut world), 316_009);
    // Charging does not help.
    assert_eq!(world.ask("debug_mode_open", &json!({})).0, 0);
    let charging = world.must("charge_open", &json!({}));
    assert_eq!(world.until_end(&charging), Outcome::Succeeded);
    world.run(600_000);
    assert_eq!(osd(&mut world, DOCK, "/drone_charge_state/capacity_percent"), json!(12));
    world.must("debug_mode_close", &json!({}));
    under(&mut world, Conditions::default());
    assert!(before <= world.dock.battery_percent());
    assert_eq!(take_off(&mut world), 0);
}

#[test]
fn a_battery_that_gets_low_in_the_air_brings_the_aircraft_home() {
    let mut world = World::up();
    world.take_off();
    let method = CATALOGUE.method("fly_to_point").unwrap();
    let payload = guide::payload(method, &world.config, world.now().wall);
    let flight = world.must("fly_to_point", &payload);
    under(&mut world, Conditions { battery_max: Some(15.0), ..Conditions::default() });
    assert_eq!(world.until_end(&flight), Outcome::Failed(338_051));
    world.until_docked();
}

#[test]
fn strong_wind_and_heavy_rain_are_shown_and_keep_the_aircraft_in_its_dock() {
    let wind = |speed| Conditions { wind: Some(speed), ..Conditions::default() };
    let rain = |rain| Conditions { rain, ..Conditions::default() };
    for (conditions, pointer, shown, code) in [
        (wind(11.5), "/wind_speed", json!(11.5), 0),
        (wind(12.5), "/wind_speed", json!(12.5), 514_135),
        (rain(2), "/rainfall", json!(2), 0),
        (rain(3), "/rainfall", json!(3), 514_134),
    ] {
        let mut world = loud();
        under(&mut world, conditions);
        assert_eq!(osd(&mut world, DOCK, pointer), shown);
        assert_eq!(take_off(&mut world), code, "{conditions:?}");
    }
}

#[test]
fn wind_that_rises_in_the_air_brings_the_aircraft_home() {
    let mut world = World::up();
    let prepare = CATALOGUE.method("flighttask_execute").unwrap();
    world.prepare(prepare);
    let payload = guide::payload(prepare, &world.config, world.now().wall);
    let flight = world.must("flighttask_execute", &payload);
    world.run(60_000);
    assert!(!world.dock.aircraft_is_in_dock());
    under(&mut world, Conditions { wind: Some(15.0), ..Conditions::default() });
    assert_eq!(world.until_end(&flight), Outcome::Failed(321_784));
    world.until_docked();
}

#[test]
fn who_has_no_authority_flies_nothing_and_can_still_come_home() {
    let mut world = loud();
    world.take_off();
    let method = CATALOGUE.method("fly_to_point").unwrap();
    let fly_to = guide::payload(method, &world.config, world.now().wall);
    let flight = world.must("fly_to_point", &fly_to);
    under(&mut world, Conditions { no_authority: true, ..Conditions::default() });
    assert_eq!(world.until_end(&flight), Outcome::Failed(338_049), "somebody took over");
    let state = world.sent.iter().rev().find(|message| {
        message.is_on("SIM-M3D-0001/state") && !message.data("/control_source").is_null()
    });
    assert_eq!(state.unwrap().data("/control_source"), &json!("B"));
    for method in ["fly_to_point", "flight_authority_grab", "return_home_cancel"] {
        assert_eq!(world.ask(method, &fly_to).0, 319_030, "{method}");
    }
    under(&mut world, Conditions::default());
    assert_eq!(world.ask("flight_authority_grab", &json!({})).0, 0);
    under(&mut world, Conditions { no_authority: true, ..Conditions::default() });
    assert_eq!(world.ask("return_home", &json!({})).0, 0);
    world.until_docked();
    assert_eq!(take_off(&mut world), 319_030);
}

#[test]
fn a_dock_in_debug_mode_shows_it_and_flies_nothing() {
    let mut world = loud();
    under(&mut world, Conditions { debug_mode: true, ..Conditions::default() });
    assert_eq!(osd(&mut world, DOCK, "/mode_code"), json!(2));
    assert_eq!(take_off(&mut world), 319_036);
    let light = world.must("supplement_light_open", &json!({}));
    assert_eq!(world.outcome(&light), Some(Outcome::Done), "and it can be debugged");
    under(&mut world, Conditions::default());
    assert_eq!(take_off(&mut world), 0);
    // In the air it waits until the dock is idle again.
    under(&mut world, Conditions { debug_mode: true, ..Conditions::default() });
    world.run(60_000);
    assert_eq!(world.ask("return_home", &json!({})).0, 0);
    world.until_docked();
    assert_eq!(take_off(&mut world), 319_036);
}

#[test]
fn an_aircraft_that_is_off_is_no_sub_device_and_does_not_come_on() {
    let mut world = loud();
    under(&mut world, Conditions { aircraft_off: true, ..Conditions::default() });
    let subs = |world: &World| {
        let newest = world.sent.iter().rev().find(|message| message.is_on("/status")).unwrap();
        newest.data("/sub_devices").as_array().unwrap().len()
    };
    assert_eq!(subs(&world), 0);
    assert_eq!(take_off(&mut world), 325_012);
    world.must("debug_mode_open", &json!({}));
    let opening = world.must("drone_open", &json!({}));
    assert_eq!(world.until_end(&opening), Outcome::Failed(514_109));
    world.must("debug_mode_close", &json!({}));
    under(&mut world, Conditions::default());
    assert_eq!(subs(&world), 1);
    assert_eq!(take_off(&mut world), 0);
}
