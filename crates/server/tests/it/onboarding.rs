//! A factory-new dock joins a tenant with a binding code, and what one that only has a code can reach.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use utmos_core::{
    binding::{BindingCode, code_hash},
    id::{BindingCodeId, DeviceSn},
    ports::{FleetStore, Recorded, RegistryStore},
    time::Timestamp,
};
use uuid::Uuid;

use crate::{
    app::{Api, PATIENCE, TestApp, put_dock, put_gateway, unix_seconds},
    devices_api::{DEVICES, shown},
    dock::{PretendDock, lets_in},
    requests::until_listed,
    routes::assert_refused,
};

const CODES: &str = "/api/v1/open/device-binding-codes";
const FILTERS: [&str; 2] = ["thing/product/{sn}/#", "sys/product/{sn}/#"];

/// A code of the caller's tenant, as shown, and its id.
pub async fn code(api: &Api, asked: Value) -> (String, String) {
    let made = api.post(CODES, &asked).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&made.body["code"]), text(&made.body["binding_code"]["binding_code_id"]))
}

pub async fn newcomer(app: &TestApp, sn: &str, code: &str) -> PretendDock {
    PretendDock::connect_with(app.mqtt, sn, code, &FILTERS).await
}

pub fn bind(code: &str, devices: &[(&str, &str, &str)]) -> Value {
    let devices: Vec<Value> = devices
        .iter()
        .map(|(sn, key, name)| {
            json!({
                "device_binding_code": code, "organization_id": "utmos", "device_callsign": name,
                "device_model_key": key, "sn": sn,
            })
        })
        .collect();
    json!({ "bind_devices": devices })
}

/// The `err_code` of each device.
pub fn outcomes(data: &Value) -> Vec<(String, i64)> {
    assert_eq!(data["result"], 0, "{data}");
    let infos = data["output"]["err_infos"].as_array().unwrap();
    infos
        .iter()
        .map(|info| (info["sn"].as_str().unwrap().to_owned(), info["err_code"].as_i64().unwrap()))
        .collect()
}

fn all(outcome: i64, devices: &[&str]) -> Vec<(String, i64)> {
    devices.iter().map(|sn| ((*sn).to_owned(), outcome)).collect()
}

#[tokio::test]
async fn a_factory_new_dock_joins_with_a_code_and_is_commanded_on_the_connection_it_has() {
    let app = TestApp::start().await;
    let (code, id) = code(&app.api, json!({"label": "North"})).await;
    let mut dock = newcomer(&app, "NEW-DOCK", &code).await;
    let config = dock.ask("config", json!({"config_type": "json", "simulated": true})).await;
    assert!(config["ntp_server_host"].is_string(), "{config}");
    let asked = json!({"devices": [{"sn": "NEW-AIR"}, {"sn": "NEW-DOCK"}]});
    let status = dock.ask("airport_bind_status", asked.clone()).await;
    assert_eq!(
        status["output"]["bind_status"][1]["is_device_bind_organization"], false,
        "{status}"
    );
    let get = json!({"device_binding_code": code, "organization_id": "utmos"});
    let organization = dock.ask("airport_organization_get", get).await;
    assert_eq!(organization, json!({"result": 0, "output": {"organization_name": "UTMOS"}}));
    // Nobody's yet: no device of the tenant, and nothing can be sent to it.
    assert_refused(&app.api.get(&format!("{DEVICES}/NEW-DOCK")).await, 404, "DEVICE_NOT_FOUND");

    let devices = [("NEW-DOCK", "3-3-0", "North roof"), ("NEW-AIR", "0-100-1", "Hawk")];
    let bound = dock.ask("airport_organization_bind", bind(&code, &devices)).await;
    assert_eq!(outcomes(&bound), all(0, &["NEW-DOCK", "NEW-AIR"]));
    let status = dock.ask("airport_bind_status", asked).await;
    let first = &status["output"]["bind_status"][0];
    assert_eq!(
        (&first["is_device_bind_organization"], &first["device_callsign"]),
        (&json!(true), &json!("Hawk"))
    );

    dock.report_aircraft("NEW-AIR").await;
    dock.osd("NEW-AIR", json!({"mode_code": 0, "firmware_version": "15.0"})).await;
    assert!(!dock.was_cut, "it goes on where it is");
    let device = shown(&app.api, "NEW-DOCK", |one| one["online"] == true).await;
    assert_eq!(
        (&device["product_name"], &device["label"]),
        (&json!("DJI Dock 2"), &json!("North roof")),
        "what it tells itself counts more than what was typed"
    );
    let aircraft = shown(&app.api, "NEW-AIR", |one| one["firmware_version"] == "15.0").await;
    assert_eq!((&aircraft["online"], &aircraft["kind"]), (&json!(true), &json!("aircraft")));
    let command = app.api.create("NEW-AIR", "return_home", json!({}), json!({})).await.id();
    let down = dock.command().await;
    assert_eq!(down.tid(), command);
    dock.reply(&down, json!({"result": 0})).await;

    // The code is spent, and is this dock's password from now on.
    let codes = app.api.get(CODES).await.body;
    assert_eq!(
        (&codes["items"][0]["state"], &codes["items"][0]["uses"]),
        (&json!("used_up"), &json!(1))
    );
    assert!(!codes.to_string().contains(&code), "it is shown once");
    dock.leave().await;
    assert!(!lets_in(app.mqtt, "ANOTHER", "ANOTHER", &code).await);
    let mut dock = newcomer(&app, "NEW-DOCK", &code).await;
    let again = dock.ask("airport_organization_bind", bind(&code, &devices)).await;
    assert_eq!(
        outcomes(&again),
        all(0, &["NEW-DOCK", "NEW-AIR"]),
        "an answer that was lost is given again"
    );
    dock.leave().await;
    let app = app.restart().await;
    newcomer(&app, "NEW-DOCK", &code).await.leave().await;
    for sn in ["NEW-DOCK", "NEW-AIR"] {
        let record = app.store.device_record(&DeviceSn::parse(sn).unwrap()).await.unwrap();
        assert_eq!(record.len(), 1, "{record:?}");
        assert_eq!(
            (record[0].what, record[0].by.who.clone()),
            (Recorded::Bound, format!("gateway NEW-DOCK, binding code {id}"))
        );
    }
}

/// As a real one does, that is no simulation: it gets the operator's own app credentials.
#[tokio::test]
async fn a_real_dock_joins_with_the_app_credentials_that_are_set_and_tells_of_itself() {
    let app = TestApp::start_with(&["dji.app_id=1", "dji.app_key=k", "dji.app_license=l"]).await;
    let (code, _) = code(&app.api, json!({})).await;
    let mut dock = newcomer(&app, "NEW-DOCK", &code).await;
    let asked = json!({"config_type": "json", "config_scope": "product"});
    let config = dock.ask("config", asked).await;
    assert_eq!(
        (&config["app_id"], &config["app_key"], &config["app_license"]),
        (&json!("1"), &json!("k"), &json!("l"))
    );
    let asked = json!({"devices": [{"sn": "NEW-DOCK"}, {"sn": "NEW-AIR"}]});
    dock.ask("airport_bind_status", asked).await;
    let get = json!({"device_binding_code": code, "organization_id": "utmos"});
    assert_eq!(dock.ask("airport_organization_get", get).await["result"], 0);
    let devices = [("NEW-DOCK", "3-3-0", "roof"), ("NEW-AIR", "0-100-1", "Hawk")];
    let bound = dock.ask("airport_organization_bind", bind(&code, &devices)).await;
    assert_eq!(outcomes(&bound), all(0, &["NEW-DOCK", "NEW-AIR"]));
    dock.report_aircraft("NEW-AIR").await;
    for sn in ["NEW-DOCK", "NEW-AIR"] {
        dock.osd(sn, json!({"mode_code": 0})).await;
        let target = format!("{DEVICES}/{sn}/telemetry");
        let told = async {
            while app.api.get(&target).await.body["blocks"]["mode_code"]["value"] != 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("its first word is not shown");
        let shown = shown(&app.api, sn, |one| one["online"] == true).await;
        assert_eq!(shown["simulated"], false, "{shown:#}");
    }
    // Who asks for secrets does not read them in the list of what was asked.
    let listed = app.api.get("/api/v1/open/device-requests?request_type=config").await.body;
    assert_eq!(listed["items"][0]["standardized_reply"]["app_license"], "***", "{listed:#}");
}

#[tokio::test]
async fn one_that_only_has_a_code_reaches_what_it_needs_and_nothing_else() {
    let app = TestApp::start().await;
    let (code, _) = code(&app.api, json!({})).await;
    let neighbour = app.dock("DOCK-1").await;
    let dock = newcomer(&app, "NEW-DOCK", &code).await;
    for good in [
        "thing/product/NEW-DOCK/requests",
        "sys/product/NEW-DOCK/status",
        "thing/product/NEW-DOCK/status",
    ] {
        assert!(dock.may_publish(good).await, "{good}");
    }
    for bad in [
        "thing/product/NEW-DOCK/osd",
        "thing/product/NEW-DOCK/state",
        "thing/product/NEW-DOCK/events",
        "thing/product/NEW-DOCK/services_reply",
        "thing/product/NEW-DOCK/property/set_reply",
        "thing/product/NEW-DOCK/drc/up",
        "thing/product/NEW-DOCK/requests_reply",
        "thing/product/NEW-DOCK/services",
        "thing/product/DOCK-1/requests",
        "thing/product/DOCK-1/osd",
        "thing/product/DOCK-1/services",
        "sys/product/DOCK-1/status",
        "thing/product/ANOTHER/requests",
        "anything",
        "$SYS/broker",
    ] {
        assert!(!dock.may_publish(bad).await, "{bad}");
    }
    for good in [
        "thing/product/NEW-DOCK/requests_reply",
        "sys/product/NEW-DOCK/status_reply",
        "thing/product/NEW-DOCK/#",
    ] {
        assert!(dock.may_subscribe(good).await, "{good}");
    }
    for bad in [
        "#",
        "+/product/NEW-DOCK/#",
        "thing/product/+/requests_reply",
        "thing/product/DOCK-1/#",
        "thing/product/DOCK-1/requests_reply",
        "sys/product/DOCK-1/#",
        "$share/g/thing/product/NEW-DOCK/#",
        "$SYS/#",
    ] {
        assert!(!dock.may_subscribe(bad).await, "{bad}");
    }
    // Neither under the client id of a registered gateway, nor as a registered device.
    assert!(!lets_in(app.mqtt, "NEW-2", "DOCK-2", &code).await);
    assert!(!lets_in(app.mqtt, "DOCK-2", "DOCK-2", &code).await);
    assert!(!neighbour.was_cut);
    // Its topology is answered and means nothing: no device comes of it.
    let mut dock = dock;
    dock.report_aircraft("SMUGGLED").await;
    for sn in ["SMUGGLED", "NEW-DOCK"] {
        assert_refused(&app.api.get(&format!("{DEVICES}/{sn}")).await, 404, "DEVICE_NOT_FOUND");
    }
}

#[tokio::test]
async fn a_wrong_code_and_a_device_of_another_tenant_give_djis_codes() {
    let app = TestApp::start().await;
    let other = app.other_tenant("second", "DOCK-9").await;
    put_gateway(&*app.store, other.given.tenant, "THEIR-DOCK").await;
    let (own, _) = code(&app.api, json!({"uses_max": 5})).await;
    let (second, _) = code(&app.api, json!({})).await;
    let (theirs, _) = code(&other, json!({})).await;
    let mut dock = newcomer(&app, "NEW-DOCK", &own).await;
    let device = [("NEW-DOCK", "3-2-0", "x")];
    // Nothing tells a code that is another tenant's, or another of one's own, from one that nobody has.
    for wrong in
        ["AAAAA-AAAAA-AAAAA-AAAAA", "", theirs.as_str(), second.as_str(), "a-password-for-tests"]
    {
        let bound = dock.ask("airport_organization_bind", bind(wrong, &device)).await;
        assert_eq!(outcomes(&bound), all(210_229, &["NEW-DOCK"]), "{wrong}");
        let get = json!({"device_binding_code": wrong, "organization_id": "utmos"});
        let organization = dock.ask("airport_organization_get", get).await;
        assert_eq!(organization["result"], 210_229, "{wrong}");
    }
    assert_refused(&app.api.get(&format!("{DEVICES}/NEW-DOCK")).await, 404, "DEVICE_NOT_FOUND");
    // With a wrong code nobody learns that a device is another's; with a right one, that it is.
    let with_theirs = [("NEW-DOCK", "3-2-0", "x"), ("THEIR-DOCK", "0-91-0", "y")];
    let bound =
        dock.ask("airport_organization_bind", bind("AAAAA-AAAAA-AAAAA-AAAAA", &with_theirs)).await;
    assert_eq!(outcomes(&bound), all(210_229, &["NEW-DOCK", "THEIR-DOCK"]));
    let bound = dock.ask("airport_organization_bind", bind(&own, &with_theirs)).await;
    assert_eq!(outcomes(&bound), [("NEW-DOCK".to_owned(), 0), ("THEIR-DOCK".to_owned(), 210_231)]);
    let devices = app.store.devices().await.unwrap();
    let owner = |sn: &str| devices.iter().find(|one| one.sn.as_str() == sn).map(|one| one.tenant);
    assert_eq!(owner("NEW-DOCK"), Some(app.api.given.tenant));
    assert_eq!(owner("THEIR-DOCK"), Some(other.given.tenant));
    // A dock speaks for what stands behind it, not for another dock, also where nobody has that yet.
    let another_dock = [("NOBODYS-DOCK", "3-2-0", "x")];
    let bound = dock.ask("airport_organization_bind", bind(&own, &another_dock)).await;
    assert_eq!(outcomes(&bound), all(210_231, &["NOBODYS-DOCK"]));
    // Nor for any number of aircraft.
    let names: Vec<String> = (0..12).map(|n| format!("AIR-{n:02}")).collect();
    let many: Vec<(&str, &str, &str)> =
        names.iter().map(|sn| (sn.as_str(), "0-91-0", "")).collect();
    for one in &many {
        dock.ask("airport_organization_bind", bind(&own, &[*one])).await;
    }
    let count = app
        .store
        .devices()
        .await
        .unwrap()
        .iter()
        .filter(|one| one.sn.as_str().starts_with("AIR-"))
        .count();
    assert!((1..=8).contains(&count), "{count}");
    let metrics = app.api.bare(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("utmos_devices_bound_total 1\n"), "{metrics}");
}

#[tokio::test]
async fn a_registered_dock_shows_its_password_or_a_good_code_of_its_tenant() {
    let app = TestApp::start().await;
    let other = app.other_tenant("second", "DOCK-9").await;
    let (own, _) = code(&app.api, json!({})).await;
    let (theirs, _) = code(&other, json!({})).await;
    let mut dock = app.dock("DOCK-1").await;
    for (typed, expected) in
        [(crate::app::PASSWORD, 0), (own.as_str(), 0), (theirs.as_str(), 210_229), ("", 210_229)]
    {
        let devices = [("DOCK-1", "3-2-0", "x"), ("AIR-1", "0-91-0", "y")];
        let bound = dock.ask("airport_organization_bind", bind(typed, &devices)).await;
        assert_eq!(outcomes(&bound), all(expected, &["DOCK-1", "AIR-1"]), "{typed}");
    }
    let codes = app.api.get(CODES).await.body;
    assert_eq!(codes["items"][0]["uses"], 0, "it was one of the tenant's already");
}

#[tokio::test]
async fn a_code_that_is_taken_back_or_over_lets_nobody_in_and_who_came_with_it_goes() {
    let app = TestApp::start().await;
    let (taken_back, id) = code(&app.api, json!({"uses_max": 2})).await;
    let mut dock = newcomer(&app, "NEW-DOCK", &taken_back).await;
    let revoked = app.api.request(Method::DELETE, &format!("{CODES}/{id}"), None).await;
    assert_eq!(
        (revoked.status, &revoked.body["state"]),
        (StatusCode::OK, &json!("revoked")),
        "{revoked:?}"
    );
    dock.cut().await;
    dock.leave().await;
    assert!(!lets_in(app.mqtt, "NEW-DOCK", "NEW-DOCK", &taken_back).await);
    // Whatever the command line does is known within a second.
    let text = "11111-22222-33333-44444";
    let now = Timestamp::from_millis(unix_seconds() * 1_000);
    let kept = BindingCode {
        id: BindingCodeId::new(Uuid::new_v4()),
        tenant: app.api.given.tenant,
        label: String::new(),
        hash: code_hash(text).unwrap(),
        uses_max: 1,
        uses: 0,
        created_at: now,
        created_by: "command line".to_owned(),
        expires_at: now.plus(Duration::from_secs(3_600)),
        revoked_at: None,
    };
    let over = BindingCode {
        id: BindingCodeId::new(Uuid::new_v4()),
        hash: code_hash("AAAAA-AAAAA-AAAAA-AAAAA").unwrap(),
        expires_at: now,
        ..kept.clone()
    };
    for code in [over, kept] {
        assert!(app.store.add_binding_code(code, 100).await.unwrap());
    }
    tokio::time::timeout(PATIENCE, async {
        while !lets_in(app.mqtt, "NEW-1", "NEW-1", text).await {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await
    .unwrap();
    assert!(!lets_in(app.mqtt, "NEW-2", "NEW-2", "AAAAA-AAAAA-AAAAA-AAAAA").await);
}

#[tokio::test]
async fn who_came_under_a_number_that_another_tenant_registers_goes() {
    let app = TestApp::start().await;
    let other = app.other_tenant("second", "DOCK-9").await;
    let (code, _) = code(&app.api, json!({})).await;
    let mut dock = newcomer(&app, "NEW-DOCK", &code).await;
    let made = other.post(DEVICES, &json!({"device_id": "NEW-DOCK", "kind": "dock"})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    dock.cut().await;
    dock.leave().await;
    assert!(!lets_in(app.mqtt, "NEW-DOCK", "NEW-DOCK", &code).await);
}

#[tokio::test]
async fn one_that_has_not_joined_asks_for_what_it_needs_and_learns_of_itself_only() {
    let app = TestApp::start().await;
    let (code, _) = code(&app.api, json!({})).await;
    let mut dock = newcomer(&app, "NEW-DOCK", &code).await;
    for method in ["something_get", "storage_config_get", "flighttask_progress_get"] {
        let body = json!({"tid": method, "bid": "b", "method": method, "data": {"x": 1}});
        dock.publish("thing/product/NEW-DOCK/requests", &body).await;
    }
    let asked = json!({"devices": [{"sn": "DOCK-1"}, {"sn": "NEW-DOCK"}]});
    let status = dock.ask("airport_bind_status", asked.clone()).await;
    let is_bound = |status: &Value, at: usize| {
        status["output"]["bind_status"][at]["is_device_bind_organization"].clone()
    };
    assert_eq!((is_bound(&status, 0), is_bound(&status, 1)), (json!(false), json!(false)));
    // On the record, which is in the order of asking, is what was answered and nothing else.
    let items = until_listed(&app.api, "", 1).await;
    assert_eq!(items[0]["request_type"], "airport_bind_status");
    let bound =
        dock.ask("airport_organization_bind", bind(&code, &[("NEW-DOCK", "3-2-0", "x")])).await;
    assert_eq!(outcomes(&bound), all(0, &["NEW-DOCK"]));
    let status = dock.ask("airport_bind_status", asked).await;
    assert_eq!((is_bound(&status, 0), is_bound(&status, 1)), (json!(true), json!(true)));
}

#[tokio::test]
async fn another_organization_is_as_wrong_as_another_code() {
    let app = TestApp::start().await;
    let (code, _) = code(&app.api, json!({})).await;
    let mut dock = newcomer(&app, "NEW-DOCK", &code).await;
    let mut registered = app.dock("DOCK-1").await;
    for organization in ["another", "", "UTMOS"] {
        for (dock, typed) in [(&mut dock, code.as_str()), (&mut registered, crate::app::PASSWORD)] {
            let get = json!({"device_binding_code": typed, "organization_id": organization});
            let answer = dock.ask("airport_organization_get", get).await;
            assert_eq!(answer["result"], 210_229, "{organization}");
            let sn = dock.sn.clone();
            let mut wrong = bind(typed, &[(&sn, "3-2-0", "x")]);
            wrong["bind_devices"][0]["organization_id"] = json!(organization);
            let bound = dock.ask("airport_organization_bind", wrong).await;
            assert_eq!(outcomes(&bound), all(210_229, &[&sn]), "{organization}");
        }
    }
    assert_refused(&app.api.get(&format!("{DEVICES}/NEW-DOCK")).await, 404, "DEVICE_NOT_FOUND");
}

/// Somebody with a code of another tenant waits under a dock's serial number, and is not taken for it once it has joined.
#[tokio::test]
async fn squatter_on_a_serial_number() {
    let app = TestApp::start().await;
    let other = app.other_tenant("second", "DOCK-9").await;
    let ((mine, _), (theirs, _)) = (code(&app.api, json!({})).await, code(&other, json!({})).await);
    let mut squatter =
        PretendDock::connect_as(app.mqtt, "NEW-DOCK", "squatter", &theirs, &FILTERS).await;
    let mut dock = newcomer(&app, "NEW-DOCK", &mine).await;
    squatter.cut().await;
    // It has a turn to join, in which the other does not come back.
    assert!(!lets_in(app.mqtt, "NEW-DOCK", "squatter-2", &theirs).await);
    let bound =
        dock.ask("airport_organization_bind", bind(&mine, &[("NEW-DOCK", "3-2-0", "x")])).await;
    assert_eq!(outcomes(&bound), all(0, &["NEW-DOCK"]));
    shown(&app.api, "NEW-DOCK", |one| one["online"] == true).await;
    assert!(!squatter.may_publish("thing/product/NEW-DOCK/services_reply").await);
    assert!(!lets_in(app.mqtt, "NEW-DOCK", "squatter-2", &theirs).await);
    let created = app.api.create("NEW-DOCK", "debug_mode_open", json!({}), json!({})).await;
    let down = dock.command().await;
    assert_eq!(down.tid(), created.id());
    dock.reply(&down, json!({"result": 0})).await;
    assert_eq!(app.api.ended(&created.id()).await["status"], "SUCCEEDED");
    assert_eq!(squatter.leave_and_tell().await, [""; 0]);
    dock.leave().await;
}

/// What a device says is for the server, also where another connection of its own listens to everything below it.
#[tokio::test]
async fn nobody_overhears_what_a_device_says() {
    let app = TestApp::start().await;
    let (code, _) = code(&app.api, json!({})).await;
    let mut ear = PretendDock::connect_as(app.mqtt, "NEW-DOCK", "ear", &code, &FILTERS).await;
    let mut dock = newcomer(&app, "NEW-DOCK", &code).await;
    let bound =
        dock.ask("airport_organization_bind", bind(&code, &[("NEW-DOCK", "3-2-0", "x")])).await;
    assert_eq!(outcomes(&bound), all(0, &["NEW-DOCK"]));
    dock.osd("NEW-DOCK", json!({"mode_code": 0})).await;
    dock.drain().await;
    dock.leave().await;
    // What the server says comes to the one that is left, and nothing came before it.
    app.api.create("NEW-DOCK", "debug_mode_open", json!({}), json!({})).await;
    let down = tokio::time::timeout(PATIENCE, ear.next()).await.unwrap();
    assert_eq!(down.topic, "thing/product/NEW-DOCK/services");
}

#[tokio::test]
async fn codes_have_bounds() {
    let app = TestApp::start().await;
    for bad in [
        json!({"uses_max": 0}),
        json!({"uses_max": 10_001}),
        json!({"expires_in_seconds": 59}),
        json!({"expires_in_seconds": 2_592_001}),
        json!({"label": "x".repeat(129)}),
        json!({"code": "mine"}),
    ] {
        assert_refused(&app.api.post(CODES, &bad).await, 400, "VALIDATION_FAILED");
    }
    for _ in 0..100 {
        assert_eq!(app.api.post(CODES, &json!({})).await.status, StatusCode::CREATED);
    }
    assert_refused(&app.api.post(CODES, &json!({})).await, 409, "TOO_MANY_BINDING_CODES");
    let mut seen = Vec::new();
    let mut target = format!("{CODES}?limit=40");
    loop {
        let page = app.api.get(&target).await.body;
        let items = page["items"].as_array().unwrap();
        seen.extend(items.iter().map(|one| one["binding_code_id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        target = format!("{CODES}?limit=40&cursor={cursor}");
    }
    assert_eq!(seen.len(), 100);
    assert!(seen.is_sorted_by(|a, b| a > b), "newest first");
}

#[tokio::test]
async fn a_binding_that_is_approved_by_hand_binds() {
    let app = TestApp::start().await;
    let rule = json!({"mode": "manual", "reply_seconds": 60});
    let rules = "/api/v1/open/device-request-rules/airport_organization_bind";
    let set = app.api.request(reqwest::Method::PUT, rules, Some(rule.to_string().as_bytes())).await;
    assert_eq!(set.status, 200, "{set:?}");
    let (code, _) = code(&app.api, json!({"label": "North"})).await;
    let mut dock = newcomer(&app, "NEW-DOCK", &code).await;
    let devices = [("NEW-DOCK", "3-3-0", "North roof"), ("NEW-AIR", "0-100-1", "Hawk")];
    let wrong = bind("AAAAA-AAAAA-AAAAA-AAAAA", &[("OTHER", "0-100-1", "x")]);
    let mut asked = bind(&code, &devices);
    let others = wrong["bind_devices"].as_array().unwrap().clone();
    asked["bind_devices"].as_array_mut().unwrap().extend(others);
    let body = json!({
        "tid": "b-1", "bid": "b-1", "timestamp": 1, "gateway": "NEW-DOCK",
        "method": "airport_organization_bind", "data": asked,
    });
    dock.publish("thing/product/NEW-DOCK/requests", &body).await;
    let requests = "/api/v1/open/device-requests";
    let listed = async {
        loop {
            let items = app.api.get(requests).await.body["items"].clone();
            if let Some(first) = items.as_array().and_then(|items| items.first()) {
                return first["request_id"].as_str().unwrap().to_owned();
            }
            tokio::task::yield_now().await;
        }
    };
    let id = tokio::time::timeout(PATIENCE, listed).await.unwrap();
    assert_refused(&app.api.get(&format!("{DEVICES}/NEW-DOCK")).await, 404, "DEVICE_NOT_FOUND");
    let reply = format!("{requests}/{id}/reply");
    let words =
        json!({"reply_code": "0", "payload": {"err_infos": [{"sn": "NEW-DOCK", "err_code": 0}]}});
    let refused = app.api.post(&reply, &words).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(refused.body.to_string().contains("must be left out"), "{refused:?}");
    let approved = app.api.post(&reply, &json!({"reply_code": "APPROVED"})).await;
    assert_eq!(approved.status, 202, "{approved:?}");
    let told = dock.message("/requests_reply").await;
    let outcomes: std::collections::BTreeMap<_, _> =
        outcomes(&told.body["data"]).into_iter().collect();
    assert_eq!(outcomes["NEW-DOCK"], 0);
    assert_eq!(outcomes["NEW-AIR"], 0);
    assert_eq!(outcomes["OTHER"], 210_229, "its code is wrong, whoever approves");
    for (sn, status) in [("NEW-DOCK", 200), ("NEW-AIR", 200), ("OTHER", 404)] {
        let shown = app.api.get(&format!("{DEVICES}/{sn}")).await;
        assert_eq!(shown.status, status, "{sn}");
    }
    let seen = app.api.get(&format!("{requests}/{id}")).await.body;
    assert_eq!(seen["reply_source"], "manual", "{seen:#}");
    assert_eq!(seen["replied_by"], json!(app.api.given.api_id.as_str()));
}

/// A dock that is not registered as simulated.
async fn real_dock(app: &TestApp) -> PretendDock {
    put_dock(&*app.store, app.api.given.tenant, "REAL", false).await;
    // Whatever comes after it in the store is known no earlier than it is.
    app.credential(|_| {}).await;
    app.dock("REAL").await
}

#[tokio::test]
async fn without_app_credentials_config_is_answered_for_simulated_docks_alone() {
    let app = TestApp::start().await;
    let mut dock = real_dock(&app).await;
    let body = |tid: &str, method: &str| json!({"tid": tid, "bid": tid, "timestamp": 1, "gateway": "REAL", "method": method, "data": {}});
    dock.publish("thing/product/REAL/requests", &body("c-1", "config")).await;
    dock.publish("thing/product/REAL/requests", &body("f-1", "flight_areas_get")).await;
    assert_eq!(dock.message("/requests_reply").await.tid(), "f-1", "the first is not answered");
    let waits = "/api/v1/open/device-requests?state=AWAITING_REPLY";
    let listed = async {
        while app.api.get(waits).await.body["items"][0]["request_type"] != "config" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, listed).await.expect("it is not left to anybody");
    let told = dock.ask("config", json!({"simulated": true})).await;
    assert_eq!(told["app_license"], "", "{told}");
    dock.leave().await;

    let app = TestApp::start_with(&["dji.app_id=1", "dji.app_key=k", "dji.app_license=l"]).await;
    let mut dock = real_dock(&app).await;
    let told = dock.ask("config", json!({})).await;
    assert_eq!((&told["app_id"], &told["app_license"]), (&json!("1"), &json!("l")));
}
