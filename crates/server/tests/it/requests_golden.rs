//! Every type of request with the answer as it goes out, byte for byte but for its time stamp.

use serde_json::{Value, json};

use crate::{app::TestApp, dock::PretendDock, requests::ask};

const SETTINGS: crate::app::Settings = &[
    "dji.ntp_server_host=ntp.example",
    "dji.app_id=42",
    "dji.app_key=key",
    "dji.app_license=licence",
    "dji.organization_id=org-1",
    "dji.organization_name=Roofs",
];

async fn answered(dock: &mut PretendDock, method: &str, data: Value) -> String {
    ask(dock, "t-1", method, data).await;
    let down = dock.message("/requests_reply").await;
    let timestamp = down.body["timestamp"].as_u64().unwrap().to_string();
    assert_eq!(timestamp.len(), 13);
    down.raw.replace(&timestamp, "0")
}

fn framed(method: &str, data: &str) -> String {
    format!(r#"{{"tid":"t-1","bid":"b","timestamp":0,"method":"{method}","data":{data}}}"#)
}

#[tokio::test]
async fn every_type_is_answered_in_djis_shape() {
    let app = TestApp::start_with(SETTINGS).await;
    let mut dock = app.dock("DOCK-1").await;
    for (method, data, want) in [
        (
            "config",
            json!({"config_type": "json", "config_scope": "product"}),
            r#"{"ntp_server_host":"ntp.example","ntp_server_port":123,"app_id":"42","app_key":"key","app_license":"licence"}"#,
        ),
        (
            "airport_bind_status",
            json!({"devices": [{"sn": "DOCK-1"}, {"sn": "AIR-1"}]}),
            r#"{"result":0,"output":{"bind_status":[{"sn":"DOCK-1","is_device_bind_organization":true,"organization_id":"org-1","organization_name":"Roofs","device_callsign":"DOCK-1"},{"sn":"AIR-1","is_device_bind_organization":false,"organization_id":"","organization_name":"","device_callsign":""}]}}"#,
        ),
        (
            "airport_organization_get",
            json!({"device_binding_code": crate::app::PASSWORD, "organization_id": "org-1"}),
            r#"{"result":0,"output":{"organization_name":"Roofs"}}"#,
        ),
        (
            "airport_organization_bind",
            json!({"bind_devices": [{"sn": "DOCK-1", "device_binding_code": crate::app::PASSWORD, "organization_id": "org-1",
                "device_callsign": "Roof", "device_model_key": "3-2-0"}]}),
            r#"{"result":0,"output":{"err_infos":[{"sn":"DOCK-1","err_code":0}]}}"#,
        ),
        ("flight_areas_get", json!({}), r#"{"result":0,"output":{"files":[]}}"#),
        (
            "offline_map_get",
            Value::Null,
            r#"{"result":0,"output":{"offline_map_enable":false,"files":[]}}"#,
        ),
        (
            "storage_config_get",
            json!({"module": 0}),
            r#"{"result":1,"output":"no object storage is configured"}"#,
        ),
        (
            "flighttask_resource_get",
            json!({"flight_id": "task-1"}),
            r#"{"result":1,"output":"no file is known for this flight_id"}"#,
        ),
    ] {
        assert_eq!(answered(&mut dock, method, data).await, framed(method, want));
    }
    // A refusal is on record as what it is.
    let items =
        crate::requests::until_listed(&app.api, "?request_type=storage_config_get", 1).await;
    let told = json!({"result": 1, "output": "no object storage is configured"});
    let shown = ["routing_decision", "reply_code", "standardized_reply"].map(|key| &items[0][key]);
    assert_eq!(shown, [&json!("AUTO_REPLIED"), &json!("1"), &told]);
}

fn prepare(flight_id: &str, url: &str) -> Value {
    json!({
        "flight_id": flight_id, "task_type": 0, "execute_time": 1_700_000_000_000_u64,
        "file": {"url": url, "fingerprint": "f"},
        "rth_altitude": 100, "rth_mode": 1, "out_of_control_action": 0, "exit_wayline_when_rc_lost": 0,
        "wayline_type": 0,
    })
}

#[tokio::test]
async fn the_file_of_a_task_is_the_one_its_newest_prepare_named() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    for url in ["https://files.example/old.kmz?s=1", "https://files.example/new.kmz?s=2"] {
        app.api
            .create("DOCK-1", "flighttask_prepare", prepare("task-1", url), json!({}))
            .await
            .id();
        let command = dock.command().await;
        dock.reply(&command, json!({"result": 0})).await;
    }
    // One that is refused before it leaves names nothing.
    let other = prepare("task-1", "https://files.example/never.kmz");
    app.api.create("DOCK-2", "flighttask_prepare", other, json!({})).await.id();
    let answer =
        answered(&mut dock, "flighttask_resource_get", json!({"flight_id": "task-1"})).await;
    let want = r#"{"result":0,"output":{"file":{"url":"https://files.example/new.kmz?s=2","fingerprint":"f"}}}"#;
    assert_eq!(answer, framed("flighttask_resource_get", want));
    let items =
        crate::requests::until_listed(&app.api, "?request_type=flighttask_resource_get", 1).await;
    assert_eq!(
        items[0]["standardized_reply"]["output"]["file"]["url"],
        "https://files.example/***"
    );
}

#[tokio::test]
async fn a_dock_learns_how_the_task_stands_at_the_other() {
    let app = TestApp::start().await;
    let (mut dock, mut other) = (app.dock("DOCK-1").await, app.dock("DOCK-2").await);
    let execute = json!({"flight_id": "task-1"});
    let id = app.api.create("DOCK-2", "flighttask_execute", execute, json!({})).await.id();
    let command = other.command().await;
    other.reply(&command, json!({"result": 0})).await;
    let progress = json!({
        "result": 0,
        "output": {"status": "in_progress", "progress": {"current_step": 24, "percent": 40}, "ext": {"flight_id": "task-1"}},
    });
    other.event("flighttask_progress", &json!("task-1"), progress, 0).await;
    app.api.until(&id, |command| command["execution"]["percent"] == 40).await;
    let asked = json!({"target_sn": "DOCK-2", "flight_id": "task-1"});
    let answer = answered(&mut dock, "flighttask_progress_get", asked).await;
    let want = r#"{"result":0,"output":{"flight_id":"task-1","progress":{"current_step":24,"percent":40},"status":"in_progress"}}"#;
    assert_eq!(answer, framed("flighttask_progress_get", want));
    // Nothing is known of another task: somebody is to answer.
    ask(
        &dock,
        "t-2",
        "flighttask_progress_get",
        json!({"target_sn": "DOCK-2", "flight_id": "task-2"}),
    )
    .await;
    crate::requests::until_listed(&app.api, "?state=AWAITING_REPLY", 1).await;
}
