//! Every event that DJI documents, as a dock would say it: each is stored with what it says, and each copy that asks for an
//! answer gets one.

use serde_json::{Value, json};

use crate::{
    app::TestApp,
    events::{events_of, message, say, until},
};

/// Their methods, after DJI's pages of events; `hms` is told by what it changes, and has tests of its own.
const EVENTS: [&str; 40] = [
    "airsense_warning",
    "camera_photo_take_progress",
    "charge_close",
    "charge_open",
    "cloud_control_auth_notify",
    "cover_close",
    "cover_force_close",
    "cover_open",
    "custom_data_transmission_from_esdk",
    "custom_data_transmission_from_psdk",
    "device_exit_homing_notify",
    "device_format",
    "device_reboot",
    "drc_status_notify",
    "drone_close",
    "drone_format",
    "drone_open",
    "esim_activate",
    "esim_operator_switch",
    "file_upload_callback",
    "fileupload_progress",
    "flight_areas_drone_location",
    "flight_areas_sync_progress",
    "flight_setup_exception_notify",
    "flighttask_progress",
    "flighttask_ready",
    "fly_to_point_progress",
    "highest_priority_upload_flighttask_media",
    "joystick_invalid_notify",
    "offline_map_sync_progress",
    "ota_progress",
    "poi_status_notify",
    "psdk_floating_window_text",
    "psdk_ui_resource_upload_result",
    "putter_close",
    "putter_open",
    "return_home_info",
    "speaker_audio_play_start_progress",
    "speaker_tts_play_start_progress",
    "takeoff_to_point_progress",
];

/// What they say, in the three shapes there are: a job's progress, what happened, and a list.
fn shapes(method: &str) -> [Value; 3] {
    let progress = json!({"current_step": 1, "percent": 40, "step_key": "check", "step_result": 0});
    [
        json!({"result": 0, "output": {"status": "in_progress", "progress": progress, "ext": {"of": method}}}),
        json!({"status": "ok", "reason": 0, "flight_id": "f-1", "sn": "AIR-1", "unknown_to_us": {"of": method}}),
        json!([{"of": method, "index": 0}, {"of": method, "index": 1}]),
    ]
}

#[tokio::test]
async fn every_event_that_dji_documents_is_stored_whole_and_answered_when_it_asks() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    for method in EVENTS {
        let mut answered = 0;
        for (number, data) in shapes(method).iter().enumerate() {
            let tid = format!("{method}-{number}");
            let need_reply = u8::from(number != 1);
            let copies = 1 + usize::from(number == 0);
            for _ in 0..copies {
                say(&dock, &message(&tid, method, need_reply, data)).await;
                if need_reply == 1 {
                    let answer = dock.message("/events_reply").await;
                    assert_eq!((answer.tid(), answer.method()), (tid.as_str(), method));
                    assert_eq!(answer.body["data"], json!({"result": 0}), "{method}");
                    answered += 1;
                }
            }
        }
        assert_eq!(answered, 3);
        let target = events_of("DOCK-1", &format!("?method={method}"));
        let items = until(&app.api, &target, |items| items.len() >= 3).await;
        assert_eq!(items.len(), 3, "a copy is kept once: {items:#?}");
        for (item, (number, data)) in items.iter().rev().zip(shapes(method).iter().enumerate()) {
            assert_eq!((&item["type"], &item["method"]), (&json!("device.event"), &json!(method)));
            assert_eq!((&item["data"], &item["data_cut"]), (data, &json!(false)), "{method}");
            assert_eq!(item["need_reply"], json!(number != 1), "{method}");
        }
    }
    // None was answered that did not ask.
    assert_eq!(app.metric("utmos_uplink_answered_total").await, (EVENTS.len() * 3).to_string());
}
