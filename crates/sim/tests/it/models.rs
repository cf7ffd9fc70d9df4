//! What each kind of gateway does its own way.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use utmos_core::method::Channel;
use utmos_dji::catalogue::Method;
use utmos_sim::{Model, Outcome, Settings, guide};

use crate::world::{CATALOGUE, Message, World, settings};

const ZERO: &str = "00000000-0000-0000-0000-000000000000";
const DOCKS: [Model; 3] = [Model::Dock1, Model::Dock2, Model::Dock3];
const REMOTE_CONTROLLERS: [Model; 2] = [Model::RcPro, Model::RcPlus2];

fn loud(model: Model) -> World {
    World::of_with(model, Settings { quiet: false, ..settings() })
}

fn on<'a>(world: &'a World, end: &str) -> Vec<&'a Message> {
    world.sent.iter().filter(|message| message.is_on(end)).collect()
}

/// The keys of `osd` or `state` of a device, of all messages together, and those among them that say nothing.
fn keys(world: &World, sn: &str, end: &str) -> (BTreeSet<String>, Vec<String>) {
    let topic = format!("thing/product/{sn}/{end}");
    let messages = world.sent.iter().filter(|message| message.topic == topic);
    let fields = messages.flat_map(|message| message.json["data"].as_object().unwrap());
    let empty = fields.clone().filter(|(_, value)| value.is_null());
    let empty = empty.map(|(key, _)| key.clone()).collect();
    (fields.map(|(key, _)| key.clone()).collect(), empty)
}

#[test]
fn each_tells_who_it_is_in_its_own_way() {
    let expected = [
        (Model::Dock1, "sys", json!(["3", 1, 0, "0", 67, 0])),
        (Model::Dock1M30t, "sys", json!(["3", 1, 0, "0", 67, 1])),
        (Model::Dock2, "sys", json!(["3", 2, 0, "0", 91, 0])),
        (Model::Dock2M3td, "sys", json!(["3", 2, 0, "0", 91, 1])),
        (Model::Dock3, "sys", json!(["3", 3, 0, "0", 100, 0])),
        (Model::Dock3M4td, "sys", json!(["3", 3, 0, "0", 100, 1])),
        (Model::RcPro, "thing", json!([2, 144, 0, 0, 77, 0])),
        (Model::RcProM3t, "thing", json!([2, 144, 0, 0, 77, 1])),
        (Model::RcPlus2, "sys", json!([2, 174, 0, 0, 99, 0])),
        (Model::RcPlus2M4t, "sys", json!([2, 174, 0, 0, 99, 1])),
    ];
    assert_eq!(expected.len(), Model::ALL.len());
    for (model, root, numbers) in expected {
        let world = World::of(model);
        let topo = on(&world, "/status")[0];
        assert_eq!(topo.topic, format!("{root}/product/{}/status", world.config.sn));
        let told = [
            "/domain",
            "/type",
            "/sub_type",
            "/sub_devices/0/domain",
            "/sub_devices/0/type",
            "/sub_devices/0/sub_type",
        ];
        let told: Vec<Value> = told.iter().map(|at| topo.data(at).clone()).collect();
        assert_eq!(json!(told), numbers, "{model}");
        for at in ["", "/sub_devices/0"] {
            let version = topo.data(&format!("{at}/thing_version")).is_string();
            assert_eq!(version, model.is_dock(), "{model}");
            assert_eq!(topo.data(&format!("{at}/version")).is_number(), !model.is_dock());
        }
        let answer = format!("{root}/product/{}/status_reply", world.config.sn);
        assert!(world.dock.subscriptions().contains(&answer), "{model}");
        assert_eq!(on(&world, "/requests").is_empty(), !model.is_dock(), "{model}");
    }
}

#[test]
fn each_has_the_keys_of_its_pages_and_something_to_say_under_all_of_them() {
    for model in Model::ALL {
        let mut world = loud(model);
        world.run(4_000);
        let (sn, aircraft) = (world.config.sn.clone(), world.config.aircraft_sn.clone());
        let (osd, empty) = keys(&world, &sn, "osd");
        assert_eq!(osd, model.gateway_osd().map(str::to_owned).collect(), "{model}");
        assert!(empty.is_empty(), "{model} {empty:?}");
        let (osd, empty) = keys(&world, &aircraft, "osd");
        let camera = [model.camera()].into_iter();
        let expected = model.aircraft_osd().chain(camera).map(str::to_owned).collect();
        assert_eq!(osd, expected, "{model}");
        assert!(empty.is_empty(), "{model} {empty:?}");
        for (sn, key) in [(&sn, "live_capacity"), (&aircraft, "payloads")] {
            let (state, empty) = keys(&world, sn, "state");
            assert!(state.contains(key) && empty.is_empty(), "{model} {empty:?}");
        }
    }
    let has = |model: Model, key: &str| model.gateway_osd().any(|own| own == key);
    assert!(has(Model::Dock3, "self_converge_coordinate") && !has(Model::Dock1, "heading"));
    for model in REMOTE_CONTROLLERS {
        assert!(!has(model, "cover_state") && has(model, "capacity_percent"));
    }
}

#[test]
fn what_a_model_does_not_know_it_refuses_and_what_it_knows_it_does_not() {
    for model in Model::ALL {
        let mut world = World::of(model);
        for method in CATALOGUE.methods().filter(|method| method.channel == Channel::Services) {
            if !model.knows(method) {
                let (result, _) = world.ask(&method.name, &method.example);
                assert_eq!(result, 314_000, "{} at {model}", method.name);
            }
        }
        assert!(world.outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Refused(314_000)));
    }
    // Each once at every model that knows it.
    for model in [Model::Dock1, Model::Dock3, Model::RcPro, Model::RcPlus2] {
        // Properties have tests of their own.
        let has_a_name = |method: &&Method| method.channel != Channel::PropertySet;
        for method in CATALOGUE.methods().filter(has_a_name).filter(|method| model.knows(method)) {
            let mut world = World::of(model);
            if method.name == "charge_open" && 95.0 <= world.dock.battery_percent() {
                continue;
            }
            world.prepare(method);
            let payload = guide::payload(method, &world.config, world.now().wall);
            if method.channel == Channel::Services {
                world.must(&method.name, &payload);
            } else {
                world.drc(&json!({"method": method.name, "seq": 3, "data": payload}));
                world.run(200);
                let outcome = world.outcomes.last().unwrap().1;
                assert!(
                    matches!(outcome, Outcome::Done | Outcome::Silent),
                    "{} at {model}: {outcome:?}",
                    method.name
                );
            }
        }
    }
}

#[test]
fn a_remote_controller_has_zeros_for_ids_in_all_it_tells_by_itself() {
    for model in REMOTE_CONTROLLERS {
        let mut world = loud(model);
        world.prepare(CATALOGUE.method("drc_mode_enter").unwrap());
        world.must(
            "drc_mode_enter",
            &guide::payload(
                CATALOGUE.method("drc_mode_enter").unwrap(),
                &world.config,
                world.now().wall,
            ),
        );
        world.run(30_000);
        for end in ["/osd", "/state", "/events"] {
            let told = on(&world, end);
            assert!(!told.is_empty(), "{model} {end}");
            for message in told {
                assert_eq!(
                    (&message.json["tid"], &message.json["bid"]),
                    (&json!(ZERO), &json!(ZERO))
                );
                assert!(end != "/state" || message.json.get("need_reply").is_none());
            }
        }
        // Nothing that cannot be told apart is sent again, though nobody answered.
        assert_eq!(world.events("drc_status_notify").len(), 2);
        let alarm = on(&world, "/events")
            .into_iter()
            .find(|message| message.topic.contains(&world.config.aircraft_sn))
            .unwrap();
        assert!(alarm.json.get("method").is_none());
        let told = ["/event", "/method", "/output/codes"].map(|at| alarm.data(at));
        assert_eq!(told, [&json!("hms"), &json!("hms"), &json!([])]);
        let push = world.sent.iter().find(|message| message.method() == "osd_info_push").unwrap();
        assert!(push.data("/ultrasonic_height").is_number(), "{model}");
    }
}

#[test]
fn a_remote_controllers_pilot_is_asked_before_the_cloud_flies() {
    let mut world = World::of(Model::RcPlus2);
    let takeoff = CATALOGUE.method("takeoff_to_point").unwrap();
    let payload = guide::payload(takeoff, &world.config, world.now().wall);
    assert_eq!(world.ask("takeoff_to_point", &payload).0, 319_030);
    world.take_off();
    let notify = &world.events("cloud_control_auth_notify")[0];
    assert_eq!(notify.json["data"], json!({"result": 0, "output": {"status": "ok"}}));
    assert!(world.events("flight_areas_get").is_empty() && on(&world, "/requests").is_empty());
    world.must("cloud_control_release", &json!({"control_keys": ["flight"]}));
    assert_eq!(world.ask("fly_to_point", &json!({})).0, 319_030);
    // What brings it home needs no one's leave.
    world.must("return_home", &json!({}));
    world.until_docked();
    assert!(world.dock.aircraft_position().distance(world.config.home) < 0.1);
    let last = world.events("takeoff_to_point_progress");
    assert_eq!(last.last().unwrap().data("/status"), &json!("task_finish"));
}

#[test]
fn a_first_dock_has_seq_inside_its_heartbeat_and_five_minutes_of_patience() {
    for (model, inside, patience_ms) in [
        (Model::Dock1, true, 300_000),
        (Model::Dock2, false, 60_000),
        (Model::Dock3, false, 60_000),
    ] {
        let mut world = World::of(model);
        let enter = CATALOGUE.method("drc_mode_enter").unwrap();
        world.must("drc_mode_enter", &guide::payload(enter, &world.config, world.now().wall));
        world.drc(&json!({"method": "heart_beat", "seq": 4, "data": {"seq": 4, "timestamp": 17}}));
        world.run(1_000);
        let beat =
            on(&world, "drc/up").into_iter().find(|one| one.method() == "heart_beat").unwrap();
        assert_eq!(beat.json.get("seq").is_none(), inside, "{model}");
        assert_eq!(beat.data("/seq"), &json!(4));
        world.run(patience_ms - 2_000);
        let ended = |world: &World| {
            world
                .events("drc_status_notify")
                .iter()
                .any(|one| one.data("/result") == &json!(514_301))
        };
        assert!(!ended(&world), "{model}");
        world.run(3_000);
        assert!(ended(&world), "{model}");
    }
}

#[test]
fn a_task_goes_through_the_numbers_of_its_dock() {
    for (model, running, done) in
        [(Model::Dock1, 23, 33), (Model::Dock2, 25, 35), (Model::Dock3, 27, 37)]
    {
        let mut world = World::of(model);
        let execute = CATALOGUE.method("flighttask_execute").unwrap();
        world.prepare(execute);
        let payload = guide::payload(execute, &world.config, world.now().wall);
        let tid = world.must("flighttask_execute", &payload);
        assert_eq!(world.until_end(&tid), Outcome::Succeeded, "{model}");
        let events = world.events("flighttask_progress");
        let step =
            |message: &&Message| message.data("/output/progress/current_step").as_i64().unwrap();
        let on_the_way: Vec<_> = events
            .iter()
            .filter(|one| one.data("/output/ext/wayline_mission_state") == &json!(6))
            .collect();
        assert!(
            !on_the_way.is_empty() && on_the_way.iter().all(|one| step(one) == running),
            "{model}"
        );
        let still = on_the_way.iter().all(|one| one.data("/output/progress/percent") == &json!(90));
        assert_eq!(still, model == Model::Dock3, "{model}");
        assert_eq!(step(events.last().unwrap()), done, "{model}");
        let steps: Vec<i64> = events.iter().map(step).collect();
        assert!(steps.is_sorted(), "{model} {steps:?}");
    }
}

#[test]
fn a_property_is_set_where_the_model_has_it() {
    let set = |world: &mut World, data: Value| {
        world.deliver(
            "property/set",
            &json!({"tid": "p", "bid": "b", "timestamp": 1, "data": data}),
        );
        let reply = world.wait_for("a reply", 1_000, |one| one.is_on("property/set_reply"));
        reply.json["data"].clone()
    };
    for (model, rth, watermark, silent) in [
        (Model::Dock1, 0, 1, 0),
        (Model::Dock2, 1, 0, 0),
        (Model::Dock3, 0, 0, 0),
        (Model::RcPro, 1, 0, 1),
        (Model::RcPlus2, 1, 0, 1),
    ] {
        let mut world = World::of(model);
        let got = set(&mut world, json!({"rth_altitude": 80}));
        assert_eq!(got, json!({"rth_altitude": {"result": rth}}), "{model}");
        let got = set(&mut world, json!({"camera_watermark_settings": {"layout": 1}}));
        assert_eq!(got, json!({"camera_watermark_settings": {"layout": {"result": watermark}}}));
        let got = set(&mut world, json!({"silent_mode": 1}));
        assert_eq!(got, json!({"silent_mode": {"result": silent}}), "{model}");
    }
}

/// Seconds from the command until the takeoff, and from there through a task and back into the closed dock.
fn times(model: Model) -> (u64, u64) {
    let mut world = World::of(model);
    let execute = CATALOGUE.method("flighttask_execute").unwrap();
    world.prepare(execute);
    let payload = guide::payload(execute, &world.config, world.now().wall);
    let tid = world.must("flighttask_execute", &payload);
    let start = world.millis;
    while world.dock.aircraft_is_in_dock() {
        world.run(100);
    }
    let up = world.millis;
    assert_eq!(world.until_end(&tid), Outcome::Succeeded);
    ((up - start) / 1_000, (world.millis - up) / 1_000)
}

#[test]
fn takeoffs_and_tasks_take_the_time_the_manual_says() {
    let expected = [(Model::Dock1, 50, 128), (Model::Dock2, 45, 117), (Model::Dock3, 13, 109)];
    let took = expected.map(|(model, ..)| times(model));
    for ((model, takeoff, task), (up, through)) in expected.into_iter().zip(took) {
        assert!(up.abs_diff(takeoff) <= 2, "{model} takes off after {up} s: {took:?}");
        assert!(through.abs_diff(task) <= 5, "{model} is back after {through} s: {took:?}");
    }
}

#[test]
fn a_thermal_camera_is_called_as_its_gateway_calls_it() {
    for (model, known, unknown) in
        [(Model::Dock2M3td, "ir", "thermal"), (Model::RcProM3t, "thermal", "ir")]
    {
        let mut world = World::of(model);
        let start = CATALOGUE.method("live_start_push").unwrap();
        let payload = guide::payload(start, &world.config, world.now().wall);
        world.must("live_start_push", &payload);
        let change = |lens: &str| json!({"video_id": payload["video_id"], "video_type": lens});
        assert_eq!(world.ask("live_lens_change", &change(unknown)).0, 513_014, "{model}");
        assert_eq!(world.ask("live_lens_change", &change(known)).0, 0, "{model}");
    }
    for model in DOCKS {
        assert_ne!(model.camera(), "", "{model}");
    }
}
