//! Every method, end to end: signed request, real broker, a simulated dock in the state in which it accepts the command,
//! and the same end told by the platform and by the dock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use utmos_core::{
    method::{Channel, CompletesBy},
    time::Clock,
};
use utmos_dji::catalogue::Method;
use utmos_mqtt::ProtocolChoice;
use utmos_server::clock::SystemClock;
use utmos_sim::{
    Dock, DockConfig, Fleet, FleetConfig, Model, Outcome, Settings,
    guide::{self, Until},
    oracle,
};

use crate::{
    api::Api,
    place::{CATALOGUE, Place, Running, data, fly},
    truth,
};

/// How a command ends at a dock that is willing and in the right state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The device answered with result 0.
    Replied,
    /// Its job reported a good end.
    Flown,
    /// Acknowledged on `drc/up`.
    Acknowledged,
    /// Delivered, and nothing ever answers.
    Delivered,
}
use End::{Acknowledged, Delivered, Flown, Replied};

/// The 83 methods of the public platform.
const DOCUMENTED: [(&str, End); 83] = [
    ("cover_open", Flown),
    ("cover_close", Flown),
    ("cover_force_close", Flown),
    ("drone_open", Flown),
    ("drone_close", Flown),
    ("charge_open", Flown),
    ("charge_close", Flown),
    ("device_reboot", Flown),
    ("device_format", Flown),
    ("drone_format", Flown),
    ("putter_open", Flown),
    ("putter_close", Flown),
    ("debug_mode_open", Replied),
    ("debug_mode_close", Replied),
    ("supplement_light_open", Replied),
    ("supplement_light_close", Replied),
    ("battery_maintenance_switch", Replied),
    ("air_conditioner_mode_switch", Replied),
    ("alarm_state_switch", Replied),
    ("battery_store_mode_switch", Replied),
    ("sdr_workmode_switch", Replied),
    ("camera_mode_switch", Replied),
    ("camera_photo_take", Replied),
    ("camera_photo_stop", Replied),
    ("camera_recording_start", Replied),
    ("camera_recording_stop", Replied),
    ("camera_screen_drag", Replied),
    ("camera_aim", Replied),
    ("camera_focal_length_set", Replied),
    ("camera_frame_zoom", Replied),
    ("camera_look_at", Replied),
    ("camera_screen_split", Replied),
    ("camera_exposure_mode_set", Replied),
    ("camera_exposure_set", Replied),
    ("camera_focus_mode_set", Replied),
    ("camera_focus_value_set", Replied),
    ("camera_point_focus_action", Replied),
    ("gimbal_reset", Replied),
    ("flight_authority_grab", Replied),
    ("payload_authority_grab", Replied),
    ("drc_mode_enter", Replied),
    ("drc_mode_exit", Replied),
    ("takeoff_to_point", Flown),
    ("fly_to_point", Flown),
    ("fly_to_point_stop", Replied),
    ("fly_to_point_update", Replied),
    ("drone_control", Acknowledged),
    ("stick_control", Delivered),
    ("drone_emergency_stop", Acknowledged),
    ("heart_beat", Acknowledged),
    ("flighttask_create", Replied),
    ("flighttask_prepare", Replied),
    ("flighttask_execute", Flown),
    ("flighttask_pause", Replied),
    ("flighttask_recovery", Replied),
    ("flighttask_undo", Replied),
    ("return_home", Replied),
    ("return_home_cancel", Replied),
    ("flight_setup_abort", Replied),
    ("psdk_widget_value_set", Replied),
    ("psdk_input_box_text_set", Replied),
    ("speaker_audio_play_start", Flown),
    ("speaker_tts_play_start", Flown),
    ("speaker_replay", Replied),
    ("speaker_play_stop", Replied),
    ("speaker_play_mode_set", Replied),
    ("speaker_play_volume_set", Replied),
    ("custom_data_transmission_to_psdk", Replied),
    ("custom_data_transmission_to_esdk", Replied),
    ("flight_areas_update", Flown),
    ("flight_areas_get", Replied),
    ("unlock_license_switch", Replied),
    ("unlock_license_update", Replied),
    ("unlock_license_list", Replied),
    ("live_start_push", Replied),
    ("live_stop_push", Replied),
    ("live_set_quality", Replied),
    ("live_lens_change", Replied),
    ("upload_flighttask_media_prioritize", Replied),
    ("fileupload_list", Replied),
    ("fileupload_start", Flown),
    ("fileupload_update", Replied),
    ("ota_create", Flown),
];

/// What the public documentation's own payload is refused for, by the code of DJI's that says so.
const PUBLIC_PAYLOAD_REFUSED: [(&str, i64); 1] =
    // Its immediate task is of a year long past: "dock clock not in step with the cloud".
    [("flighttask_prepare", 319_008)];

/// Serial numbers in documented payloads; each dock is given its own.
const DOCUMENTED_DOCK: &str = "7CTDM3800B0012";
const DOCUMENTED_AIRCRAFT: &str = "1581F5BMD228Q00A82XX";

/// How many times faster than real the docks live.
const SPEED: f64 = 20.0;
/// The same where a command must come in the midst of a flight.
const SPEED_IN_FLIGHT: f64 = 10.0;
/// Flights that must last until the next command comes go this far, in metres.
const FAR: f64 = 1_000.0;
/// A battery that is fuller than this does not charge, in percent.
const CHARGEABLE: f64 = 94.0;

impl End {
    /// What the catalogue says must come of it.
    fn fits(self, method: &Method) -> bool {
        match self {
            Replied => matches!(method.completes_by, CompletesBy::Reply | CompletesBy::ReplyOrJob),
            Flown => method.completes_by == CompletesBy::Job,
            Acknowledged => method.completes_by == CompletesBy::DrcAck,
            Delivered => method.completes_by == CompletesBy::NoReply,
        }
    }

    fn status(self) -> &'static str {
        match self {
            Replied | Flown | Acknowledged => "SUCCEEDED",
            Delivered => "DELIVERED",
        }
    }

    fn outcome(self) -> Outcome {
        match self {
            Replied | Acknowledged => Outcome::Done,
            Flown => Outcome::Succeeded,
            Delivered => Outcome::Silent,
        }
    }
}

/// A method at a dock of its own, and how it ended.
struct Ended {
    method: &'static Method,
    dock: DockConfig,
    command: Value,
    outcome: Outcome,
}

#[test]
fn the_table_names_every_documented_method_and_no_other() {
    let listed: BTreeSet<&str> = DOCUMENTED.iter().map(|(name, _)| *name).collect();
    let documented: BTreeSet<&str> = documented().map(|method| method.name.as_str()).collect();
    assert_eq!(listed, documented);
    assert_eq!(listed.len(), DOCUMENTED.len(), "each once");
    for (name, end) in DOCUMENTED {
        assert!(end.fits(CATALOGUE.method(name).unwrap()), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_documented_method_ends_well_at_a_willing_dock() {
    let now = SystemClock::new().now().wall;
    let ended = run(documented().collect(), |method, dock| guide::payload(method, dock, now)).await;
    for one in ended {
        ends_as_documented(&one);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_payload_of_the_public_documentation_goes_out_and_comes_back() {
    let text = data("public_payloads.json");
    let payloads: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    let names: BTreeSet<&str> = payloads.keys().map(String::as_str).collect();
    assert_eq!(names, DOCUMENTED.iter().map(|(name, _)| *name).collect());
    let ended = run(documented().collect(), |method, dock| {
        let text = payloads[&method.name].to_string();
        let text = text.replace(DOCUMENTED_DOCK, &dock.sn);
        serde_json::from_str(&text.replace(DOCUMENTED_AIRCRAFT, &dock.aircraft_sn)).unwrap()
    })
    .await;
    for one in ended {
        let name = one.method.name.as_str();
        match PUBLIC_PAYLOAD_REFUSED.iter().find(|(refused, _)| *refused == name) {
            Some((_, code)) => {
                assert_eq!(one.outcome, Outcome::Refused(*code), "{name}");
                ends_as_the_dock_says(&one);
            }
            None => ends_as_documented(&one),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_other_method_of_the_catalogue_ends_as_the_dock_says() {
    let now = SystemClock::new().now().wall;
    let others: Vec<_> = CATALOGUE.methods().filter(|method| method.domain.is_none()).collect();
    assert!(others.len() > 50, "{}", others.len());
    for one in run(others, |method, dock| guide::payload(method, dock, now)).await {
        ends_as_the_dock_says(&one);
    }
}

fn documented() -> impl Iterator<Item = &'static Method> {
    CATALOGUE.methods().filter(|method| method.domain.is_some())
}

fn ends_as_documented(one: &Ended) {
    let name = one.method.name.as_str();
    let (_, end) = DOCUMENTED.iter().find(|(listed, _)| *listed == name).unwrap();
    assert_eq!(one.command["status"], end.status(), "{name}: {:#}", one.command);
    assert_eq!(one.outcome, end.outcome(), "{name}");
    ends_as_the_dock_says(one);
}

/// The platform and the dock tell one story.
fn ends_as_the_dock_says(one: &Ended) {
    let Ended { method, dock, command, outcome } = one;
    let status = command["status"].as_str().unwrap();
    let told = (status, command["failure_code"].as_str());
    let code = command["response_code"].as_str();
    let is_one_story = match outcome {
        Outcome::Done => told == ("SUCCEEDED", None),
        // A heartbeat's answer carries no code.
        Outcome::Succeeded => told == ("SUCCEEDED", None) && code == Some("0"),
        Outcome::Refused(refusal) => {
            told == ("FAILED", Some("DEVICE_EXECUTION_FAILED"))
                && code == Some(refusal.to_string().as_str())
                && !command["response_message"].is_null()
        }
        Outcome::Failed(_) => told == ("FAILED", Some("DEVICE_EXECUTION_FAILED")),
        Outcome::Silent => told == ("DELIVERED", None),
        Outcome::Running | Outcome::Ignored => false,
    };
    assert!(is_one_story, "{}: the dock says {outcome:?}, the platform {command:#}", method.name);
    assert_eq!(command["gateway_id"], dock.sn.as_str(), "{}", method.name);
    assert_eq!(command["command_type"], method.name.as_str());
    assert!(!command["delivered_at"].is_null(), "{}", method.name);
}

/// A model that knows a method: a Dock 2 where it does.
fn model_for(method: &Method) -> Model {
    let models = [Model::Dock2, Model::Dock3, Model::Dock1, Model::RcPlus2, Model::RcPro];
    models.into_iter().find(|model| model.knows(method)).unwrap()
}

/// Runs each method at a dock of its own.
async fn run(
    methods: Vec<&'static Method>,
    payload: impl Fn(&Method, &DockConfig) -> Value,
) -> Vec<Ended> {
    let in_flight = |method: &Method| {
        guide::before(method, model_for(method)).iter().any(|first| match first.until {
            Until::End | Until::Wayline => true,
            Until::Reply => false,
        })
    };
    let models: Vec<Model> = methods.iter().map(|method| model_for(method)).collect();
    let (place, mut config) = Place::with_models(&models).await;
    if let Some(at) = methods.iter().position(|method| method.name == "charge_open") {
        let model = config.docks[at].model;
        let fits = |dock: &DockConfig| dock.model == model && battery(&config, dock) < CHARGEABLE;
        let dock = config.docks.iter().position(fits);
        config.docks.swap(at, dock.unwrap());
    }
    let server = place.start().await;
    let (slow, fast): (Vec<_>, Vec<_>) =
        methods.into_iter().zip(config.docks.clone()).partition(|(method, _)| in_flight(method));
    let mut ended = Vec::new();
    let groups = [(slow, SPEED_IN_FLIGHT, "slow.jsonl"), (fast, SPEED, "fast.jsonl")];
    let runs = groups.map(|(group, speed, log)| {
        let mut config = config.clone();
        config.docks = group.iter().map(|(_, dock)| dock.clone()).collect();
        config.speed = speed;
        config.oracle_log = Some(place.path(log));
        run_group(&server, config, group, &payload)
    });
    for group in join_all(runs).await {
        ended.extend(group);
    }
    server.stop().await;
    ended
}

async fn run_group(
    server: &Running,
    config: FleetConfig,
    group: Vec<(&'static Method, DockConfig)>,
    payload: impl Fn(&Method, &DockConfig) -> Value,
) -> Vec<Ended> {
    let log = config.oracle_log.clone().unwrap();
    let fleet = fly(&config, server.mqtt(), ProtocolChoice::Auto).await;
    let commands = join_all(group.iter().map(async |(method, dock)| {
        prepare(&server.api, method, dock).await;
        send(&server.api, method, dock, payload(method, dock)).await
    }))
    .await;
    // What nothing answers may end at the platform before it has arrived.
    truth::until(&fleet, |fleet| {
        let needed =
            |(method, dock): &(&Method, DockConfig)| guide::before(method, dock.model).len() + 1;
        let expected: usize = group.iter().map(needed).sum();
        fleet.received().len() >= expected
    })
    .await;
    let controls = truth::controls(&oracle::read(&log).unwrap());
    let ended = group.into_iter().zip(commands).map(|((method, dock), command)| {
        let outcome = match method.channel {
            Channel::DrcDown => {
                let received = controls.get(dock.sn.as_str()).map_or(&[][..], Vec::as_slice);
                let [(received, outcome)] = received else {
                    panic!("{}: not received once: {received:?}", method.name)
                };
                assert_eq!(**received, *method.name);
                *outcome
            }
            Channel::Services | Channel::PropertySet => {
                let outcomes = fleet.outcomes(command["command_id"].as_str().unwrap());
                let [outcome] = outcomes.as_slice() else {
                    panic!("{}: not received once: {outcomes:?}", method.name)
                };
                *outcome
            }
        };
        let expected = guide::before(method, dock.model).len() + 1;
        assert_eq!(received_by(&fleet, &dock), expected, "{}", method.name);
        Ended { method, dock, command, outcome }
    });
    let ended = ended.collect();
    fleet.shutdown().await;
    ended
}

fn received_by(fleet: &Fleet, dock: &DockConfig) -> usize {
    fleet.received().iter().filter(|received| received.sn == Arc::from(dock.sn.as_str())).count()
}

/// How full the aircraft's battery is at the start.
fn battery(config: &FleetConfig, dock: &DockConfig) -> f64 {
    let settings =
        Settings { speed: 1.0, reply: config.reply, quiet: config.quiet, observed: false };
    let now = SystemClock::new().now();
    Dock::new(dock, settings, CATALOGUE.clone(), config.seed, now).unwrap().battery_percent()
}

/// Brings a dock to where it carries the method out.
async fn prepare(api: &Api, wanted: &Method, dock: &DockConfig) {
    for first in guide::before(wanted, dock.model) {
        let method = CATALOGUE.method(first.method).unwrap();
        let mut payload = guide::payload(method, dock, SystemClock::new().now().wall);
        let far = dock.home.moved(FAR, 0.0);
        match (wanted.name.as_str(), first.method) {
            ("return_home_cancel", "takeoff_to_point") => {
                payload["target_latitude"] = json!(far.latitude);
            }
            (_, "fly_to_point") => payload["points"][0]["latitude"] = json!(far.latitude),
            (_, _) => {}
        }
        let id =
            api.create(&dock.sn, &method.name, payload, json!({"if_offline": "wait"})).await.id();
        let reached = |command: &Value| match first.until {
            Until::Reply => !command["response_code"].is_null(),
            Until::End => !command["completed_at"].is_null(),
            Until::Wayline => {
                let state = command.pointer("/execution/ext/output/ext/wayline_mission_state");
                state == Some(&json!(6))
            }
        };
        let command = api.until(&id, reached).await;
        assert_eq!(command["response_code"], "0", "{command:#}");
        assert_ne!(command["status"], "FAILED", "{command:#}");
    }
}

async fn send(api: &Api, method: &Method, dock: &DockConfig, payload: Value) -> Value {
    let more = json!({"if_offline": "wait"});
    let created = api.create(&dock.sn, &method.name, payload, more).await;
    assert_eq!(created.status, reqwest::StatusCode::ACCEPTED, "{}: {created:?}", method.name);
    api.ended(&created.id()).await
}
