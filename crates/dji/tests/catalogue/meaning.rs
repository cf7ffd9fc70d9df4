//! What the catalogue says of risk, ends, stops and places.

use serde_json::{Value, json};
use utmos_core::{
    method::{CompletesBy, Risk},
    reply::JobState,
};
use utmos_dji::catalogue::{Domain, GatewayModel, Placement};

use crate::{catalogue, method};

#[test]
fn risk_and_motion_are_as_the_safety_rules_need_them() {
    let catalogue = catalogue();
    for name in ["takeoff_to_point", "fly_to_point", "flighttask_execute"] {
        let known = method(&catalogue, name);
        assert!(known.starts_motion && known.risk == Risk::Motion, "{name}");
        assert_eq!(known.silence.as_secs(), 600, "{name}");
    }
    for name in [
        "return_home",
        "drone_emergency_stop",
        "fly_to_point_stop",
        "flighttask_pause",
        "drc_force_landing",
    ] {
        assert_eq!(method(&catalogue, name).risk, Risk::Emergency, "{name}");
    }
    for name in [
        "fly_to_point_update",
        "flighttask_recovery",
        "return_home_cancel",
        "drone_control",
        "stick_control",
    ] {
        assert!(!method(&catalogue, name).starts_motion, "{name}");
    }
    for known in catalogue.methods() {
        if known.domain == Some(Domain::Device) && known.completes_by == CompletesBy::Job {
            assert!(
                known.result_zero_without_status_is_final && known.status_in_reply,
                "{}",
                known.name
            );
        }
        assert!(known.timeout.as_secs() <= 300, "{}", known.name);
    }
}

#[test]
fn a_command_that_can_be_stopped_says_how() {
    let catalogue = catalogue();
    for known in catalogue.methods().filter(|known| known.abort.is_some()) {
        let (name, payload) = known.abort_command(known.example()).unwrap();
        let checked = method(&catalogue, name).check(&payload);
        assert!(checked.is_ok(), "{} → {name} {payload}: {checked:?}", known.name);
    }
    let upload = method(&catalogue, "fileupload_start");
    let files = json!({"params": {"files": [{"module": "0"}, {"module": "3"}, {"module": "3"}]}});
    let expected = json!({"status": "cancel", "module_list": ["0", "3"]});
    assert_eq!(upload.abort_command(&files), Some(("fileupload_update", expected)));
    assert_eq!(method(&catalogue, "cover_open").abort_command(&json!({})), None);
}

#[test]
fn progress_events_read_as_their_method_documents_them() {
    let catalogue = catalogue();
    let places = |event: &str| {
        let [found] = catalogue.job_event(event) else { panic!("{event} belongs to one method") };
        let reference = found.job.reference.as_ref().map(|reference| reference.event.clone());
        (found.command_method.clone(), found.job.status.clone(), reference)
    };
    let cases = [
        (
            "flighttask_progress",
            "flighttask_execute",
            "/output/status",
            Some("/output/ext/flight_id"),
        ),
        ("fly_to_point_progress", "fly_to_point", "/status", Some("/fly_to_id")),
        ("takeoff_to_point_progress", "takeoff_to_point", "/status", Some("/flight_id")),
        ("ota_progress", "ota_create", "/output/status", None),
        ("cover_open", "cover_open", "/output/status", None),
    ];
    for (event, command, status, reference) in cases {
        let expected = (command.to_owned(), status.to_owned(), reference.map(str::to_owned));
        assert_eq!(places(event), expected);
    }
    let words = [
        ("flighttask_progress", "partially_done", JobState::Failed),
        ("flighttask_progress", "paused", JobState::Paused),
        ("cover_open", "rejected", JobState::Failed),
        ("cover_open", "sent", JobState::Open),
        ("takeoff_to_point_progress", "wayline_ok", JobState::Succeeded),
        ("takeoff_to_point_progress", "task_finish", JobState::Open),
        ("takeoff_to_point_progress", "task_ready", JobState::Open),
        ("speaker_tts_play_start_progress", "success", JobState::Succeeded),
        ("flight_areas_sync_progress", "synchronized", JobState::Succeeded),
        ("flight_areas_sync_progress", "switch_fail", JobState::Failed),
        ("camera_photo_take_progress", "fail", JobState::Failed),
    ];
    for (event, word, expected) in words {
        assert_eq!(catalogue.job_event(event)[0].job.state(word), expected, "{event} {word}");
    }
    assert!(catalogue.job_event("hms").is_empty());
}

#[test]
fn steps_that_docks_number_differently_are_read_by_the_dock() {
    let catalogue = catalogue();
    let job = &catalogue.job_event("flighttask_progress")[0].job;
    assert_eq!(job.step_meaning("49", Some(GatewayModel::Dock2)), Some("updating offline map"));
    // A recorded Dock 3 flies waypoints at step 27, which a Dock 2 calls landing: nothing is claimed of it.
    assert_eq!(job.step_meaning("27", Some(GatewayModel::Dock3)), None);
    assert_eq!(job.step_meaning("48", Some(GatewayModel::Dock)), Some("updating offline map"));
    assert_eq!(job.step_meaning("48", None), None);
    assert_eq!(job.step_meaning("65535", None), Some("unknown"));
}

#[test]
fn the_own_id_of_a_job_is_found_in_its_payload() {
    let catalogue = catalogue();
    let id = |name: &str, payload: Value| method(&catalogue, name).job_ref(&payload);
    assert_eq!(id("fly_to_point", json!({"fly_to_id": "a"})).as_deref(), Some("a"));
    assert_eq!(id("flighttask_execute", json!({"flight_id": "b"})).as_deref(), Some("b"));
    assert_eq!(id("fly_to_point", json!({"fly_to_id": ""})), None);
    assert_eq!(id("cover_open", json!({})), None);
}

#[test]
fn seq_stands_where_the_gateway_looks_for_it() {
    let catalogue = catalogue();
    let place =
        |name: &str, gateway| method(&catalogue, name).seq.as_ref().unwrap().placement(gateway);
    assert_eq!(place("drone_control", None), Placement::Inside);
    assert_eq!(place("heart_beat", Some(GatewayModel::Dock)), Placement::Inside);
    assert_eq!(place("heart_beat", Some(GatewayModel::Dock2)), Placement::Beside);
    assert_eq!(place("drone_emergency_stop", Some(GatewayModel::Dock)), Placement::None);
    assert_eq!(place("drone_emergency_stop", Some(GatewayModel::Dock3)), Placement::Beside);
    assert_eq!(place("drc_gimbal_reset", None), Placement::Beside);
}
