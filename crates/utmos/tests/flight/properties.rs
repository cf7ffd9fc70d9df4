//! Setting properties, end to end: one field per command, through the dock, with the device's result for that field.

use reqwest::StatusCode;
use serde_json::{Value, json};
use utmos_mqtt::ProtocolChoice;
use utmos_sim::Model;

use crate::{
    place::{Place, fly},
    truth,
};

/// What is set, whether it is the aircraft's, and at which model.
const GOOD: [(Model, bool, &str, &str); 9] = [
    (Model::Dock1, false, r#"{"silent_mode":1}"#, r#"{"silent_mode":{"result":0}}"#),
    (
        Model::Dock2,
        false,
        r#"{"air_transfer_enable":false}"#,
        r#"{"air_transfer_enable":{"result":0}}"#,
    ),
    (
        Model::Dock3,
        false,
        r#"{"user_experience_improvement":2}"#,
        r#"{"user_experience_improvement":{"result":0}}"#,
    ),
    (Model::Dock1, true, r#"{"rth_altitude":120}"#, r#"{"rth_altitude":{"result":0}}"#),
    (Model::Dock1, true, r#"{"rc_lost_action":2}"#, r#"{"rc_lost_action":{"result":0}}"#),
    (
        Model::Dock1,
        true,
        r#"{"distance_limit_status":{"distance_limit":900}}"#,
        r#"{"distance_limit_status":{"distance_limit":{"result":0}}}"#,
    ),
    (
        Model::Dock2,
        true,
        r#"{"obstacle_avoidance":{"upside":0}}"#,
        r#"{"obstacle_avoidance":{"upside":{"result":0}}}"#,
    ),
    (
        Model::Dock2,
        true,
        r#"{"commander_flight_height":80.5}"#,
        r#"{"commander_flight_height":{"result":0}}"#,
    ),
    (
        Model::Dock3,
        true,
        r#"{"camera_watermark_settings":{"user_custom_string":"north gate"}}"#,
        r#"{"camera_watermark_settings":{"user_custom_string":{"result":0}}}"#,
    ),
];

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn a_property_of_a_dock_or_its_aircraft_is_set_and_its_own_result_comes_back() {
    let models = [Model::Dock1, Model::Dock2, Model::Dock3];
    let (place, config) = Place::with_models(&models).await;
    let server = place.start().await;
    let fleet = fly(&config, server.mqtt(), ProtocolChoice::Auto).await;
    let api = &server.api;
    let of = |model: Model| config.docks.iter().find(|dock| dock.model == model).unwrap();
    let wait = json!({"if_offline": "wait"});

    for (model, aircraft, payload, response) in GOOD {
        let dock = of(model);
        let device = if aircraft { &dock.aircraft_sn } else { &dock.sn };
        let id = api.create(device, "property_set", json(payload), wait.clone()).await.id();
        let command = api.ended(&id).await;
        truth::must_be_true(&command, &fleet);
        assert_eq!(command["status"], "SUCCEEDED", "{payload}: {command:#}");
        assert_eq!(command["gateway_id"], dock.sn.as_str());
        assert_eq!(command["device_id"], device.as_str());
        assert_eq!((&command["payload"], &command["response_code"]), (&json(payload), &json!("0")));
        assert_eq!(command["vendor_response"], json(response), "{payload}");
    }

    // What this model does not have, and what nobody has: sent, and refused by the device.
    let dock = of(Model::Dock2);
    for payload in [r#"{"rth_altitude":120}"#, r#"{"quite_new":1}"#] {
        let id = api.create(&dock.sn, "property_set", json(payload), wait.clone()).await.id();
        let command = api.ended(&id).await;
        truth::must_be_true(&command, &fleet);
        let told = (&command["status"], &command["failure_code"], &command["response_code"]);
        let expected = (&json!("FAILED"), &json!("DEVICE_EXECUTION_FAILED"), &json!("1"));
        assert_eq!(told, expected, "{payload}: {command:#}");
        assert_eq!(command["response_message"], "the property could not be set");
    }

    // What cannot be right is never sent; every problem is named with its place.
    let before = fleet.received().len();
    for (payload, field, problem) in [
        (r#"{"height_limit":19}"#, "/payload/height_limit", "must be between 20 and 1500"),
        (
            r#"{"silent_mode":1,"height_limit":60}"#,
            "/payload",
            "must hold one field, not 2: send one command for each",
        ),
        (
            r#"{"obstacle_avoidance":{"upside":0,"downside":0}}"#,
            "/payload/obstacle_avoidance",
            "must hold one field, not 2: send one command for each",
        ),
    ] {
        let answer = api.create(&dock.sn, "property_set", json(payload), json!({})).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "VALIDATION_FAILED"));
        let detail = &answer.body["details"][0];
        assert_eq!((&detail["field"], &detail["problem"]), (&json!(field), &json!(problem)));
    }
    assert_eq!(fleet.received().len(), before);

    // A dry run tells of a slip that the device would only answer with a bare 1.
    let dry = json!({"dry_run": true});
    let answer = api.create(&dock.sn, "property_set", json!({"hight_limit": 60}), dry).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert!(answer.body.to_string().contains("did you mean height_limit?"), "{answer:?}");

    let method = api.get("/api/v1/open/catalog/dji/methods/property_set").await.body;
    assert_eq!(method["channel"], "property_set");
    assert_eq!(method["risk_class"], "configuration");
    assert_eq!(method["payload_schema"]["maxProperties"], 1);
    assert_eq!(method["payload_schema"]["properties"]["rth_altitude"]["maximum"], 500);
    fleet.shutdown().await;
    server.stop().await;
}
