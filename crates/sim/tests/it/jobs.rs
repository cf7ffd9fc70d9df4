//! Jobs on the ground: their steps, their order, their end.

use serde_json::{Value, json};
use utmos_core::{method::CompletesBy, reply::JobState};
use utmos_dji::catalogue::Job;
use utmos_sim::{Outcome, ReplyTiming, guide};

use crate::world::{CATALOGUE, Message, World, model_for, settings};

#[derive(Debug)]
struct Report {
    state: JobState,
    percent: Option<i64>,
    step: Option<String>,
    reference: Option<String>,
}

impl Report {
    fn read(job: &Job, message: &Message) -> Self {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let at = |pointer: &Option<String>| {
            let value = message.data(pointer.as_deref()?);
            (!value.is_null()).then(|| text(value))
        };
        Self {
            state: job.state(message.data(&job.status).as_str().unwrap()),
            percent: job.percent.as_deref().and_then(|at| message.data(at).as_i64()),
            step: at(&job.step),
            reference: at(&job.reference.as_ref().map(|reference| reference.event.clone())),
        }
    }
}

#[test]
fn a_job_tells_of_documented_steps_in_order_and_ends_once() {
    for method in CATALOGUE.methods().filter(|method| method.completes_by == CompletesBy::Job) {
        let job = method.job.as_ref().unwrap();
        let model = model_for(method);
        let mut world = World::of(model);
        world.prepare(method);
        let before = world.sent.len();
        let payload = guide::payload(method, &world.config, world.now().wall);
        let tid = world.must(&method.name, &payload);
        world.until_end(&tid);
        let reports: Vec<_> = world.sent[before..]
            .iter()
            .filter(|message| {
                message.is_on("/events") && job.events.iter().any(|event| event == message.method())
            })
            .map(|message| Report::read(job, message))
            .collect();
        let (last, running) = reports.split_last().unwrap();
        assert_eq!(last.state, JobState::Succeeded, "{} {last:?}", method.name);
        // A pilot agrees or does not.
        let is_asked = method.name == "cloud_control_auth_request";
        assert_eq!(running.is_empty(), is_asked, "{}", method.name);
        let mut percent = 0;
        for report in running {
            assert_eq!(report.state, JobState::Open, "{} {report:?}", method.name);
            let now = report.percent.unwrap_or(percent);
            assert!(percent <= now, "{} goes back from {percent} to {now}", method.name);
            percent = now;
        }
        if !job.steps.is_empty() {
            for step in reports.iter().filter_map(|report| report.step.as_deref()) {
                let key = step;
                let known = job.step_meaning(key, Some(model.gateway_model())).is_some();
                // 25 has no meaning on the Dock 2 page that is not a slip of another's.
                assert!(known || key == "25", "{}: {key} is no step", method.name);
            }
        }
        if job.reference.is_some() {
            let own = method.job_ref(&payload);
            assert!(reports.iter().all(|report| report.reference == own), "{}", method.name);
        }
    }
}

#[test]
fn the_events_of_a_dock_job_share_the_bid_of_the_command_and_follow_its_reply() {
    let mut world = World::up();
    world.must("debug_mode_open", &json!({}));
    let tid = world.must("cover_open", &json!({}));
    let reply = world.sent.iter().find(|message| message.json["tid"] == tid.as_str()).unwrap();
    assert_eq!(reply.data("/output/status"), &json!("in_progress"));
    let bid = reply.json["bid"].clone();
    let start = world.millis;
    assert_eq!(world.until_end(&tid), Outcome::Succeeded);
    let took = world.millis - start;
    assert!((15_000..25_000).contains(&took), "{took}");
    let events = world.events("cover_open");
    assert!(events.iter().all(|event| event.json["bid"] == bid));
    let mut tids: Vec<&Value> = events.iter().map(|event| &event.json["tid"]).collect();
    tids.dedup();
    assert_eq!(tids.len(), events.len(), "each event is an exchange of its own");
    let (last, running) = events.split_last().unwrap();
    assert_eq!(last.json["need_reply"], json!(1));
    assert!(running.iter().all(|event| event.json.get("need_reply").is_none()));
}

#[test]
fn a_job_is_as_much_faster_as_the_dock_lives() {
    let mut world = World::with(
        utmos_sim::Settings { speed: 10.0, reply: ReplyTiming::AtOnce, ..settings() },
        7,
    );
    world.must("debug_mode_open", &json!({}));
    let start = world.millis;
    let tid = world.must("cover_open", &json!({}));
    world.until_end(&tid);
    assert!((1_500..2_500).contains(&(world.millis - start)));
}

#[test]
fn the_cover_that_was_opened_is_open_in_osd_and_the_aircraft_switched_off_is_gone() {
    let mut world = World::with(utmos_sim::Settings { quiet: false, ..settings() }, 7);
    let cover = |world: &World| {
        let osd = world.sent.iter().rfind(|message| {
            message.is_on("SIM-DOCK-0001/osd") && message.data("/cover_state").is_number()
        });
        osd.unwrap().data("/cover_state").clone()
    };
    world.must("debug_mode_open", &json!({}));
    world.run(4_000);
    assert_eq!(cover(&world), json!(0));
    let tid = world.must("cover_open", &json!({}));
    world.run(10_000);
    assert_eq!(cover(&world), json!(2));
    world.until_end(&tid);
    world.run(4_000);
    assert_eq!(cover(&world), json!(1));
    let sub_device = |world: &World| {
        let osd = world.sent.iter().rfind(|message| {
            message.is_on("SIM-DOCK-0001/osd") && message.data("/sub_device").is_object()
        });
        osd.unwrap().data("/sub_device").clone()
    };
    assert!(sub_device(&world)["device_model_key"].is_string());

    let tid = world.must("drone_close", &json!({}));
    world.until_end(&tid);
    let topo = world.wait_for("topology", 1_000, |message| message.is_on("/status"));
    assert_eq!(topo.data("/sub_devices"), &json!([]));
    let from = world.sent.len();
    world.run(10_000);
    assert!(world.sent[from..].iter().all(|message| !message.topic.contains("SIM-M3D")));
    let off = sub_device(&world);
    assert!(off.get("device_model_key").is_none(), "that is told of an aircraft that is on: {off}");
}

#[test]
fn a_panorama_is_a_job_and_a_photo_is_not() {
    let mut world = World::up();
    world.take_off();
    let index = json!({"payload_index": "80-0-0"});
    let (_, data) = world.ask("camera_photo_take", &index);
    assert_eq!(data["output"]["status"], json!("ok"));
    world.must("camera_mode_switch", &json!({"payload_index": "80-0-0", "camera_mode": 3}));
    let tid = world.must("camera_photo_take", &index);
    assert_eq!(world.until_end(&tid), Outcome::Succeeded);
    let steps: Vec<i64> = world
        .events("camera_photo_take_progress")
        .iter()
        .filter_map(|event| event.data("/output/progress/current_step").as_i64())
        .collect();
    assert_eq!(steps, [3002, 3002, 3002, 3005, 3000]);
}

#[test]
fn a_command_received_twice_is_carried_out_twice() {
    let mut world = World::up();
    let command = json!({"tid": "t", "bid": "b", "method": "debug_mode_open", "data": {}});
    world.deliver("services", &command);
    world.deliver("services", &command);
    world.run(100);
    let copies = world.outcomes.iter().filter(|(tid, _)| tid.as_deref() == Some("t")).count();
    let replies = world.sent.iter().filter(|message| message.json["tid"] == json!("t")).count();
    assert_eq!((copies, replies), (2, 2));
}
