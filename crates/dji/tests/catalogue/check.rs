//! What a check accepts, refuses and sends, and what a mask hides.

use serde_json::{Value, json};
use utmos_dji::catalogue::{DEPTH_MAX, VALUES_MAX};

use crate::{catalogue, method, problems, sent};

#[test]
fn other_spellings_become_what_a_dock_understands() {
    let cases = [
        (
            "custom_data_transmission_to_psdk",
            json!({"payload_index": "1", "data": "hi"}),
            json!({"value": "hi"}),
        ),
        (
            "custom_data_transmission_to_esdk",
            json!({"data": {"b": 1}}),
            json!({"value": "{\"b\":1}"}),
        ),
        (
            "speaker_play_volume_set",
            json!({"psdk_index": 2, "index": 1, "play_volume": 30}),
            json!({"psdk_index": 2, "play_volume": 30}),
        ),
        (
            "flighttask_create",
            json!({"flighttask_id": "f", "wayline_file": "https://x/y.kmz", "rth_altitude": 60}),
            json!({"flight_id": "f", "type": "wayline", "file": {"url": "https://x/y.kmz"}, "rth_altitude": 60}),
        ),
        ("live_lens_change", json!({"video_type": "zoom"}), json!({"video_type": "zoom"})),
        // Both were seen to be accepted by a Dock 3.
        ("flighttask_pause", json!({"flight_ids": [""]}), json!({"flight_ids": [""]})),
        (
            "camera_look_at",
            json!({"payload_index": "", "locked": true, "latitude": 15.7, "longitude": 140.4, "height": 0.0588}),
            json!({"payload_index": "", "locked": true, "latitude": 15.7, "longitude": 140.4, "height": 0.0588}),
        ),
        ("battery_maintenance_switch", json!({"action": true}), json!({"action": 1})),
        (
            "camera_screen_split",
            json!({"payload_index": "a", "enable": 0}),
            json!({"payload_index": "a", "enable": false}),
        ),
        ("fileupload_list", json!({"module_list": [0, "3"]}), json!({"module_list": ["0", "3"]})),
        (
            "flighttask_undo",
            json!({"flight_ids": ["a"], "new": {"deep": [1]}}),
            json!({"flight_ids": ["a"], "new": {"deep": [1]}}),
        ),
    ];
    for (name, given, expected) in cases {
        assert_eq!(sent(name, &given), expected, "{name}");
    }
    let exposure = json!({"payload_index": "80-0-0", "camera_type": "zoom", "exposure_value": 5});
    assert_eq!(sent("camera_exposure_set", &exposure)["exposure_value"], json!("5"));
    let interval = json!({"payload_index": "80-0-0", "interval": 0.7});
    assert_eq!(sent("drc_interval_photo_set", &interval)["interval"], json!("0.7"));
    let quality = json!({"video_id": "v", "video_quality": "3"});
    assert_eq!(sent("live_set_quality", &quality)["video_quality"], json!(3));
}

#[test]
fn two_spellings_that_differ_are_refused() {
    let both = json!({"data": "a", "value": "b"});
    let expected = ["/data is another name of /value, which says something else"];
    assert_eq!(problems("custom_data_transmission_to_esdk", &both), expected);
    let long = json!({"data": "x".repeat(256)});
    assert_eq!(
        problems("custom_data_transmission_to_esdk", &long),
        ["/data must be at most 255 characters long"]
    );
}

#[test]
fn all_problems_are_named_at_once_in_words_that_help() {
    let payload = json!({"max_speed": "fast", "points": [{"latitude": 91, "longitude": 7.5, "height": 20000}]});
    let expected = [
        "/max_speed must be an integer, not text",
        "/points/0/latitude must be between -90 and 90",
        "/points/0/height must be between 2 and 10000",
        "/fly_to_id is required",
    ];
    assert_eq!(problems("fly_to_point", &payload), expected);
    let cases = [
        ("live_stop_push", json!([]), " must be an object"),
        ("live_stop_push", json!({"video_id": 3}), "/video_id must be text"),
        ("live_stop_push", json!({"video_id": null}), "/video_id is required"),
        ("drc_mode_exit", json!(""), " must be an object"),
        (
            "gimbal_reset",
            json!({"payload_index": "a", "reset_mode": 9}),
            "/reset_mode must be one of 0 (reset), 1 (downward), 2 (gimbal pan recenter), 3 (gimbal pitch downward)",
        ),
        ("flighttask_undo", json!({"flight_ids": []}), "/flight_ids must have at least 1 item"),
        (
            "poi_circle_speed_set",
            json!({"circle_speed": "5"}),
            "/circle_speed must be a number, not text",
        ),
        (
            "camera_screen_split",
            json!({"payload_index": "", "enable": "yes"}),
            "/enable must be true or false",
        ),
        (
            "psdk_input_box_text_set",
            json!({"psdk_index": 0, "value": "ä".repeat(65)}),
            "/value must be at most 128 bytes long in UTF-8",
        ),
        (
            "psdk_widget_value_set",
            json!({"psdk_index": -1, "index": 0, "value": 0}),
            "/psdk_index must be at least 0",
        ),
        (
            "psdk_widget_value_set",
            json!({"psdk_index": 0, "index": 0, "value": u64::MAX}),
            "/value must be at most 9223372036854775807",
        ),
        (
            "psdk_widget_value_set",
            json!({"psdk_index": 0, "index": 0, "value": 1e300}),
            "/value must be an integer",
        ),
        (
            "psdk_widget_value_set",
            json!({"psdk_index": 0, "index": 1.5, "value": 0}),
            "/index must be an integer",
        ),
    ];
    for (name, payload, expected) in cases {
        assert_eq!(problems(name, &payload), [expected], "{name} {payload}");
    }
    assert_eq!(
        sent("psdk_widget_value_set", &json!({"psdk_index": 0.0, "index": 2, "value": 3}))["psdk_index"],
        json!(0)
    );
}

#[test]
fn a_start_time_is_required_of_the_tasks_that_have_one() {
    let mut payload = method(&catalogue(), "flighttask_prepare").example().clone();
    payload.as_object_mut().unwrap().remove("execute_time");
    let expected = ["/execute_time is required while task_type is 0 or 1"];
    assert_eq!(problems("flighttask_prepare", &payload), expected);
    payload["task_type"] = json!(2);
    assert!(problems("flighttask_prepare", &payload).is_empty());
}

#[test]
fn depth_and_size_are_limited_without_recursion() {
    let catalogue = catalogue();
    let known = method(&catalogue, "return_home");
    let nested = |levels: usize| (0..levels).fold(json!({}), |inner, _| json!({"a": inner}));
    assert!(known.check(&nested(DEPTH_MAX - 1)).is_ok());
    let flaws = known.check(&nested(DEPTH_MAX)).unwrap_err();
    assert_eq!(flaws[0].problem, "must not be nested deeper than 32 levels");
    let mut deep = json!([]);
    for _ in 0..10_000 {
        deep = Value::Array(vec![deep]);
    }
    let deep = Value::Object([("a".to_owned(), deep)].into_iter().collect());
    assert!(known.check(&deep).is_err());
    assert!(known.mask(&deep).is_object());
    let many = json!({"a": vec![0; VALUES_MAX]});
    assert_eq!(known.check(&many).unwrap_err()[0].problem, "must not hold more than 20000 values");
}

#[test]
fn secrets_are_hidden_wherever_they_stand() {
    let catalogue = catalogue();
    let masked = |name: &str, payload: Value| method(&catalogue, name).mask(&payload).to_string();
    let drc = masked("drc_mode_enter", method(&catalogue, "drc_mode_enter").example().clone());
    assert!(!drc.contains("a-short-lived-token") && drc.contains("\"password\":\"***\""), "{drc}");
    let upload =
        masked("fileupload_start", method(&catalogue, "fileupload_start").example().clone());
    for secret in ["an-access-key", "a-secret", "a-session-token"] {
        assert!(!upload.contains(secret), "{upload}");
    }
    assert!(upload.contains("\"bucket\":\"logs\""), "{upload}");
    let unknown = masked(
        "return_home",
        json!({"extra": [{"device_secret": "s3", "note": "n"}], "Token": ["t4"]}),
    );
    assert!(
        !unknown.contains("s3") && !unknown.contains("t4") && unknown.contains("\"note\":\"n\""),
        "{unknown}"
    );
    let urls = [
        ("rtmp://user:pw@media.example.com:1935/live/key", "rtmp://media.example.com:1935/***"),
        (
            "serverIP=10.0.0.1&agentPassword=pw&channel=1",
            "serverIP=10.0.0.1&agentPassword=***&channel=1",
        ),
        ("just-a-key", "***"),
    ];
    for (url, expected) in urls {
        let shown = method(&catalogue, "live_start_push").mask(&json!({"url": url}));
        assert_eq!(shown["url"], json!(expected));
    }
    let wrong = json!({"mqtt_broker": {"password": 12345}});
    let flaws = method(&catalogue, "drc_mode_enter").check(&wrong).unwrap_err();
    let flaw = flaws.iter().find(|flaw| flaw.pointer == "/mqtt_broker/password").unwrap();
    assert_eq!(flaw.given, json!("***"));
}

#[test]
fn a_property_is_set_alone_and_within_its_range() {
    for (payload, want) in [
        (json!({"silent_mode": 1}), None),
        (json!({"air_transfer_enable": 0}), None),
        (json!({"obstacle_avoidance": {"upside": 0}}), None),
        (json!({"obstacle_avoidance": {"upside": 0, "horizon": null}}), None),
        (json!({"camera_watermark_settings": {"user_custom_string": "north gate"}}), None),
        (json!({"81-0-0": {"thermal_gain_mode": 1}}), None),
        (json!({}), Some(" must hold one property with a value")),
        (json!({"silent_mode": null}), Some(" must hold one property with a value")),
        (json!({"new_thing": null}), Some("/new_thing must have a value")),
        (
            json!({"silent_mode": 1, "height_limit": 60}),
            Some(" must hold one field, not 2: send one command for each"),
        ),
        (
            json!({"obstacle_avoidance": {"upside": 0, "downside": 0}}),
            Some("/obstacle_avoidance must hold one field, not 2: send one command for each"),
        ),
        (
            json!({"obstacle_avoidance": {}}),
            Some("/obstacle_avoidance must hold one property with a value"),
        ),
        (json!({"obstacle_avoidance": 1}), Some("/obstacle_avoidance must be an object")),
        (json!({"height_limit": 19}), Some("/height_limit must be between 20 and 1500")),
        (json!({"height_limit": 60.5}), Some("/height_limit must be an integer")),
        (json!({"silent_mode": 2}), Some("/silent_mode must be one of 0 (normal), 1 (silent)")),
        (
            json!({"81-0-0": {"thermal_gain_mode": 1, "thermal_isotherm_state": 1}}),
            Some("/81-0-0 must hold one field, not 2: send one command for each"),
        ),
    ] {
        assert_eq!(problems("property_set", &payload), Vec::from_iter(want), "{payload}");
    }
}

#[test]
fn a_property_nobody_has_listed_is_sent_and_remarked_on() {
    let catalogue = catalogue();
    let set = method(&catalogue, "property_set");
    for (payload, hint) in [
        (
            json!({"hight_limit": 60}),
            "is not in the catalogue and is sent as it is; did you mean height_limit?",
        ),
        (
            json!({"obstacle_avoidance": {"horizn": 0}}),
            "is not in the catalogue and is sent as it is; did you mean horizon?",
        ),
        (json!({"quite_new": [1]}), "is not in the catalogue and is sent as it is"),
    ] {
        let checked = set.check(&payload).unwrap();
        assert_eq!(checked.payload, payload);
        assert_eq!(checked.hints.len(), 1, "{:?}", checked.hints);
        assert_eq!(checked.hints[0].hint, hint);
    }
}
