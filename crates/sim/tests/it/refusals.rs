//! What a dock refuses, and with which of DJI's codes.

use serde_json::{Value, json};
use utmos_sim::{Model, Outcome};

use crate::world::{CATALOGUE, World};

fn check(world: &mut World, method: &str, data: Value, code: i64) {
    let tid = world.services(method, &data);
    let wanted = tid.clone();
    let reply =
        world.wait_for("an answer", 5_000, move |message| message.json["tid"] == wanted.as_str());
    assert_eq!(reply.data("/result"), &json!(code), "{method} {data}");
    assert_eq!(world.outcome(&tid), Some(Outcome::Refused(code)));
    assert!(CATALOGUE.meaning(code).is_some(), "{code} is DJI's");
}

#[test]
fn an_idle_dock_refuses_what_needs_another_state() {
    let mut world = World::up();
    for (method, data, code) in [
        ("cover_open", json!({}), 514_153),
        ("device_reboot", json!(null), 514_153),
        ("supplement_light_open", json!(""), 514_153),
        ("alarm_state_switch", json!({"action": 1}), 514_153),
        (
            "fly_to_point",
            json!({"fly_to_id": "f", "max_speed": 5, "points": [
            {"latitude": 22.579, "longitude": 113.94, "height": 90}]}),
            319_022,
        ),
        ("fly_to_point_stop", json!({}), 319_023),
        ("fly_to_point_update", json!({"max_speed": 5, "points": []}), 319_022),
        ("return_home", json!({}), 316_024),
        ("return_home_cancel", json!({}), 319_043),
        ("flighttask_execute", json!({"flight_id": "unknown"}), 319_003),
        ("flighttask_pause", json!({}), 321_260),
        ("flighttask_recovery", json!({}), 319_042),
        ("flighttask_stop", json!({}), 315_010),
        ("drc_mode_exit", json!({}), 319_021),
        ("live_stop_push", json!({"video_id": "x"}), 513_011),
        ("camera_recording_stop", json!({"payload_index": "80-0-0"}), 327_008),
        // Methods of the first dock.
        ("flight_setup_abort", json!({}), 314_000),
        ("poi_mode_exit", json!({}), 314_000),
    ] {
        check(&mut world, method, data, code);
    }
    let mut world = World::of(Model::Dock1);
    check(&mut world, "flight_setup_abort", json!({}), 315_010);
    check(&mut world, "poi_mode_exit", json!({}), 315_010);
}

#[test]
fn unknown_methods_and_bad_parameters_are_refused_and_never_met_with_silence() {
    let mut world = World::up();
    for (method, data, code) in [
        ("self_destruct", json!({}), 314_000),
        ("camera_self_destruct", json!({"payload_index": "80-0-0"}), 314_000),
        ("", json!({}), 314_000),
        // A method of drc/down does not work on services.
        ("drone_control", json!({"x": 1}), 314_000),
        ("camera_photo_take", json!({"payload_index": "53-0-0"}), 325_001),
        ("camera_aim", json!({}), 325_001),
        ("takeoff_to_point", json!({"flight_id": "f"}), 325_001),
        (
            "drc_mode_enter",
            json!({"mqtt_broker": {"address": "a:1"}, "osd_frequency": 31, "hsi_frequency": 1}),
            325_001,
        ),
        ("sdr_workmode_switch", json!({"link_workmode": 7}), 325_001),
        (
            "live_start_push",
            json!({"url_type": 1, "url": "rtmp://m/x", "video_id": "OTHER/80-0-0/normal-0", "video_quality": 0}),
            513_002,
        ),
        (
            "live_start_push",
            json!({"url_type": 9, "url": "rtmp://m/x", "video_id": "SIM-M3D-0001/80-0-0/normal-0", "video_quality": 0}),
            513_013,
        ),
        ("custom_data_transmission_to_psdk", json!({"value": "x".repeat(256)}), 325_001),
        ("ota_create", json!({"devices": [{"sn": "OTHER"}]}), 312_012),
    ] {
        check(&mut world, method, data, code);
    }
}

#[test]
fn a_dock_in_debugging_does_one_job_at_a_time_and_no_flights() {
    let mut world = World::up();
    world.must("debug_mode_open", &json!({}));
    let tid = world.must("cover_open", &json!({}));
    check(&mut world, "cover_close", json!({}), 514_116);
    check(&mut world, "debug_mode_close", json!({}), 514_116);
    let takeoff = CATALOGUE.method("takeoff_to_point").unwrap();
    check(&mut world, "takeoff_to_point", takeoff.example.clone(), 319_036);
    world.until_end(&tid);
    world.must("debug_mode_close", &json!({}));
    check(&mut world, "cover_open", json!({}), 514_153);
}

#[test]
fn a_dock_with_its_aircraft_out_starts_no_second_flight_and_no_debugging() {
    let mut world = World::up();
    world.take_off();
    let takeoff = CATALOGUE.method("takeoff_to_point").unwrap();
    check(&mut world, "takeoff_to_point", takeoff.example.clone(), 319_016);
    check(&mut world, "debug_mode_open", json!({}), 514_148);
    let point = |north: f64, height: f64| {
        let to = world.config.home.moved(north, 0.0);
        json!([{"latitude": to.latitude, "longitude": to.longitude, "height": height}])
    };
    let (far, high, fine) = (point(20_000.0, 90.0), point(50.0, 900.0), point(300.0, 90.0));
    let fly = |points: &Value, speed: i64| json!({"fly_to_id": "f", "max_speed": speed, "points": points});
    check(&mut world, "fly_to_point", fly(&far, 5), 336_514);
    check(&mut world, "fly_to_point", fly(&high, 5), 336_516);
    check(&mut world, "fly_to_point", fly(&fine, 16), 337_027);
    check(&mut world, "fly_to_point", fly(&json!([]), 5), 319_032);
    world.must("fly_to_point", &fly(&fine, 5));
    check(&mut world, "fly_to_point", fly(&fine, 5), 319_022);
}

#[test]
fn a_stream_is_started_once() {
    let mut world = World::up();
    let start = json!({"url_type": 1, "url": "rtmp://m/x", "video_id": "SIM-M3D-0001/80-0-0/normal-0", "video_quality": 0});
    world.must("live_start_push", &start);
    check(&mut world, "live_start_push", start, 513_003);
}

#[test]
fn an_immediate_task_must_be_in_time_with_the_docks_clock() {
    let mut world = World::up();
    let prepare = CATALOGUE.method("flighttask_prepare").unwrap();
    let mut payload = utmos_sim::guide::payload(prepare, &world.config, world.now().wall);
    payload["execute_time"] = json!(world.now().wall.as_millis() + 40_000);
    check(&mut world, "flighttask_prepare", payload, 319_008);
}

#[test]
fn a_refusal_is_answered_faster_than_anything_else() {
    let mut world = World::up();
    let start = world.millis;
    world.ask("cover_open", &json!({}));
    assert_eq!(world.millis - start, 5);
    let start = world.millis;
    world.ask("debug_mode_open", &json!({}));
    assert!((30..=50).contains(&(world.millis - start)));
}

#[test]
fn what_is_no_message_is_ignored() {
    let mut world = World::up();
    let before = world.sent.len();
    for payload in [&b""[..], b"\0\xff", b"[]", b"{", b"7"] {
        world.deliver_text("thing/product/SIM-DOCK-0001/services", payload);
    }
    world.deliver_text("thing/product/OTHER/services", br#"{"tid":"t","method":"cover_open"}"#);
    world.deliver_text("nonsense", b"{}");
    world.run(1_000);
    assert_eq!(world.sent.len(), before);
    assert!(world.outcomes.is_empty());
}
