//! `property/set`.

use serde_json::{Value, json};
use utmos_sim::{Outcome, Settings};

use crate::world::{World, settings};

fn set(world: &mut World, data: Value) -> Value {
    world.deliver("property/set", &json!({"tid": "p", "bid": "b", "timestamp": 1, "data": data}));
    let reply = world.wait_for("a reply", 1_000, |message| message.is_on("property/set_reply"));
    assert!(reply.json.get("method").is_none());
    assert_eq!(reply.json["tid"], json!("p"));
    reply.json["data"].clone()
}

#[test]
fn each_property_has_its_result_where_it_stood() {
    let mut world = World::up();
    for (data, want) in [
        (json!({"silent_mode": 1}), json!({"silent_mode": {"result": 0}})),
        (
            json!({"obstacle_avoidance": {"horizon": 0}}),
            json!({"obstacle_avoidance": {"horizon": {"result": 0}}}),
        ),
        (json!({"height_limit": 19}), json!({"height_limit": {"result": 325_001}})),
        (json!({"mode_code": 4}), json!({"mode_code": {"result": 1}})),
        (
            json!({"camera_watermark_settings": {"user_custom_string": 7}}),
            json!({"camera_watermark_settings": {"user_custom_string": {"result": 325_001}}}),
        ),
    ] {
        assert_eq!(set(&mut world, data.clone()), want, "{data}");
    }
    assert_eq!(world.outcomes.first().unwrap().1, Outcome::Done);
    assert_eq!(world.outcomes.last().unwrap().1, Outcome::Refused(325_001));
}

#[test]
fn what_was_set_is_told_and_holds() {
    let mut world = World::with(Settings { quiet: false, ..settings() }, 7);
    set(&mut world, json!({"height_limit": 60}));
    world.deliver("property/set", &json!({"tid": "q", "bid": "b", "data": {"silent_mode": 1}}));
    let state = world.wait_for("state", 1_000, |message| {
        message.is_on("SIM-DOCK-0001/state") && message.data("/silent_mode") == &json!(1)
    });
    assert_eq!(state.json["need_reply"], json!(1));
    world.wait_for("osd", 5_000, |message| message.data("/height_limit") == &json!(60));
    let (result, _) = world.ask(
        "takeoff_to_point",
        &json!({"flight_id": "f", "target_latitude": 22.5796, "target_longitude": 113.9404, "target_height": 120.5}),
    );
    assert_eq!(result, 336_516);
}
