//! A binding that waits for an answer, by hand or by a rule: what is bound, what is on record and what the dock is told are
//! one thing, whatever comes in between.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use utmos_core::{
    id::DeviceSn,
    ports::{FleetStore, Recorded, RegistryStore},
};

use crate::{
    app::{Answer, Api, TestApp},
    devices_api::{DEVICES, shown},
    dock::PretendDock,
    onboarding::{bind, code, newcomer, outcomes},
    requests::{REQUESTS, ask, put_rule, until_listed, until_state},
    routes::assert_refused,
};

const RULE: &str = "/api/v1/open/device-request-rules/airport_organization_bind";
const DEVICES_ASKED: [(&str, &str, &str); 2] =
    [("NEW-DOCK", "3-3-0", "North roof"), ("NEW-AIR", "0-100-1", "Hawk")];

/// A factory-new dock that has asked to be bound, and its request, which waits by this rule.
struct Waiting {
    app: TestApp,
    dock: PretendDock,
    id: String,
    code: String,
    code_id: String,
}

impl Waiting {
    async fn start(rule: Value) -> Self {
        let app = TestApp::start().await;
        let body = rule.to_string();
        let set = app.api.request(Method::PUT, RULE, Some(body.as_bytes())).await;
        assert_eq!(set.status, StatusCode::OK, "{set:?}");
        let (code, code_id) = code(&app.api, json!({})).await;
        let dock = newcomer(&app, "NEW-DOCK", &code).await;
        // Whatever holds bindings up is to hold this one up as well, before its rule can ask for it.
        app.unwell_fleet.hold(true);
        ask(&dock, "b-1", "airport_organization_bind", bind(&code, &DEVICES_ASKED)).await;
        let items = until_listed(&app.api, "?state=AWAITING_REPLY", 1).await;
        let id = items[0]["request_id"].as_str().unwrap().to_owned();
        Self { app, dock, id, code, code_id }
    }

    async fn by_hand() -> Self {
        Self::start(json!({"mode": "manual", "reply_seconds": 600})).await
    }

    async fn reply(&self, body: Value) -> Answer {
        reply(&self.app.api, &self.id, body).await
    }

    /// Approves, and returns while that is before the store.
    async fn approve(&self) -> tokio::task::JoinHandle<Answer> {
        let (api, id) = (self.app.api.clone(), self.id.clone());
        let approving =
            tokio::spawn(async move { reply(&api, &id, json!({"reply_code": "APPROVED"})).await });
        self.app.unwell_fleet.until_waiting(1).await;
        approving
    }
}

async fn reply(api: &Api, id: &str, body: Value) -> Answer {
    api.post(&format!("{REQUESTS}/{id}/reply"), &body).await
}

/// Nothing of the binding is on record.
async fn assert_nothing_is_bound(app: &TestApp) {
    for sn in ["NEW-DOCK", "NEW-AIR"] {
        let record = app.store.device_record(&DeviceSn::parse(sn).unwrap()).await.unwrap();
        assert_eq!(record, []);
        assert!(app.store.devices().await.unwrap().iter().all(|one| one.sn.as_str() != sn));
    }
    assert!(app.store.binding_codes().await.unwrap().iter().all(|code| code.uses == 0));
}

#[tokio::test]
async fn an_approval_that_is_refused_by_another_meanwhile_binds_nothing() {
    let mut it = Waiting::by_hand().await;
    let approving = it.approve().await;
    let refused = it.reply(json!({"reply_code": "1", "reply_message": "not here"})).await;
    assert_eq!(refused.status, StatusCode::ACCEPTED, "{refused:?}");
    it.app.unwell_fleet.hold(false);
    assert_refused(&approving.await.unwrap(), 409, "DEVICE_REQUEST_ALREADY_REPLIED");
    assert_nothing_is_bound(&it.app).await;
    let told = it.dock.message("/requests_reply").await;
    assert_eq!(told.body["data"], json!({"result": 1, "output": "not here"}));
}

#[tokio::test]
async fn an_approval_that_comes_too_late_to_the_store_binds_nothing() {
    let it = Waiting::start(json!({"mode": "manual", "reply_seconds": 8})).await;
    let approving = it.approve().await;
    until_state(&it.app.api, &it.id, "EXPIRED").await;
    it.app.unwell_fleet.hold(false);
    assert_refused(&approving.await.unwrap(), 409, "DEVICE_REQUEST_EXPIRED");
    assert_nothing_is_bound(&it.app).await;
}

#[tokio::test]
async fn a_rule_binds_nothing_that_is_refused_by_hand_meanwhile() {
    let rule = json!({"mode": "auto_after", "after_seconds": 1, "reply_seconds": 600});
    let mut it = Waiting::start(rule).await;
    it.app.unwell_fleet.until_waiting(1).await;
    let refused = it.reply(json!({"reply_code": "1"})).await;
    assert_eq!(refused.status, StatusCode::ACCEPTED, "{refused:?}");
    it.app.unwell_fleet.hold(false);
    let told = it.dock.message("/requests_reply").await;
    assert_eq!(told.body["data"], json!({"result": 1}));
    assert_nothing_is_bound(&it.app).await;
    let seen = until_state(&it.app.api, &it.id, "REPLIED").await;
    assert_eq!(seen["reply_source"], "manual");
    assert_eq!(seen["replied_by"], json!(it.app.api.given.api_id.as_str()));
}

#[tokio::test]
async fn a_rule_binds_what_nobody_answers() {
    let rule = json!({"mode": "auto_after", "after_seconds": 1, "reply_seconds": 600});
    let mut it = Waiting::start(rule).await;
    it.app.unwell_fleet.hold(false);
    let told = it.dock.message("/requests_reply").await;
    assert!(outcomes(&told.body["data"]).iter().all(|(_, code)| *code == 0), "{}", told.raw);
    let seen = until_state(&it.app.api, &it.id, "AUTO_REPLIED").await;
    assert_eq!(seen["standardized_reply"], told.body["data"]);
    shown(&it.app.api, "NEW-DOCK", |_| true).await;
}

#[tokio::test]
async fn an_approval_that_the_store_refuses_leaves_nothing_behind() {
    let mut it = Waiting::by_hand().await;
    it.app.unwell_fleet.hold(false);
    it.app.unwell_fleet.refuse(true);
    let refused = it.reply(json!({"reply_code": "0"})).await;
    assert_refused(&refused, 503, "OVERLOADED");
    assert_nothing_is_bound(&it.app).await;
    until_state(&it.app.api, &it.id, "AWAITING_REPLY").await;
    it.app.unwell_fleet.refuse(false);
    assert_eq!(it.reply(json!({"reply_code": "0"})).await.status, StatusCode::ACCEPTED);
    let told = it.dock.message("/requests_reply").await;
    assert!(outcomes(&told.body["data"]).iter().all(|(_, code)| *code == 0), "{}", told.raw);
}

/// The store wrote it and could not say so: whoever asks again finds what is on record, and the dock is told that.
#[tokio::test]
async fn an_approval_whose_word_was_lost_is_on_record_whole_and_the_dock_is_told() {
    let mut it = Waiting::by_hand().await;
    it.app.unwell_fleet.lie(true);
    let approving = it.approve().await;
    // A crash before it leaves nothing of it, a crash after it all of it.
    let killed = it.app.as_if_killed().await;
    assert_nothing_is_bound(&killed).await;
    it.app.unwell_fleet.hold(false);
    assert_refused(&approving.await.unwrap(), 503, "OVERLOADED");
    let killed = it.app.as_if_killed().await;
    let seen = killed.api.get(&format!("{REQUESTS}/{}", it.id)).await.body;
    assert_eq!(
        (&seen["routing_decision"], &seen["reply_code"]),
        (&json!("REPLIED"), &json!("APPROVED"))
    );
    shown(&killed.api, "NEW-DOCK", |_| true).await;

    let again = it.reply(json!({"reply_code": "1"})).await;
    assert_refused(&again, 409, "DEVICE_REQUEST_ALREADY_REPLIED");
    let told = it.dock.message("/requests_reply").await;
    assert!(outcomes(&told.body["data"]).iter().all(|(_, code)| *code == 0), "{}", told.raw);
    for (sn, _, _) in DEVICES_ASKED {
        shown(&it.app.api, sn, |_| true).await;
    }
}

#[tokio::test]
async fn who_approved_is_on_the_devices_record_and_who_was_bound_in_the_answer() {
    let it = Waiting::by_hand().await;
    it.app.unwell_fleet.hold(false);
    let approved = it.reply(json!({"reply_code": "APPROVED"})).await;
    assert_eq!(approved.status, StatusCode::ACCEPTED, "{approved:?}");
    let mut bound = approved.body["binding"].clone();
    bound["bound"].as_array_mut().unwrap().sort_by_key(|sn| sn.to_string());
    assert_eq!(bound, json!({"bound": ["NEW-AIR", "NEW-DOCK"], "refused": []}));
    assert_eq!(approved.body["reply_message"], Value::Null);
    let (code, by) = (&it.code_id, &it.app.api.given.api_id);
    let who = format!("gateway NEW-DOCK, binding code {code}, approved by {by}");
    for (sn, _, _) in DEVICES_ASKED {
        let record = it.app.store.device_record(&DeviceSn::parse(sn).unwrap()).await.unwrap();
        let lines: Vec<_> = record.iter().map(|line| (line.what, line.by.who.clone())).collect();
        assert_eq!(lines, [(Recorded::Bound, who.clone())]);
    }
}

#[tokio::test]
async fn an_approval_that_binds_nobody_says_so() {
    let app = TestApp::start().await;
    let rule = json!({"mode": "manual", "reply_seconds": 600}).to_string();
    app.api.request(Method::PUT, RULE, Some(rule.as_bytes())).await;
    let mut dock = app.dock("DOCK-1").await;
    let wrong =
        bind("AAAAA-AAAAA-AAAAA-AAAAA", &[("DOCK-1", "3-2-0", "x"), ("AIR", "0-91-0", "y")]);
    ask(&dock, "b-1", "airport_organization_bind", wrong).await;
    let items = until_listed(&app.api, "?state=AWAITING_REPLY", 1).await;
    let id = items[0]["request_id"].as_str().unwrap();
    let approved = reply(&app.api, id, json!({"reply_code": "APPROVED"})).await;
    assert_eq!(approved.status, StatusCode::ACCEPTED, "{approved:?}");
    let refused = |sn: &str| json!({"device_id": sn, "error_code": 210_229});
    assert_eq!(
        approved.body["binding"],
        json!({"bound": [], "refused": [refused("DOCK-1"), refused("AIR")]})
    );
    assert_eq!(approved.body["reply_message"], "none of its 2 devices was bound");
    let told = dock.message("/requests_reply").await;
    assert_eq!(told.body["data"], approved.body["standardized_reply"]);
    assert_refused(&app.api.get(&format!("{DEVICES}/AIR")).await, 404, "DEVICE_NOT_FOUND");
}

/// Of a request that is too long only the beginning is kept: it can be refused, and not approved.
#[tokio::test]
async fn a_binding_that_is_too_long_can_be_refused_only_and_that_is_said() {
    let app = TestApp::start().await;
    let rule = json!({"mode": "manual", "reply_seconds": 600}).to_string();
    app.api.request(Method::PUT, RULE, Some(rule.as_bytes())).await;
    let mut dock = app.dock("DOCK-1").await;
    let mut long = bind(crate::app::PASSWORD, &[("DOCK-1", "3-2-0", "x")]);
    long["more"] = json!("x".repeat(17 * 1024));
    ask(&dock, "b-1", "airport_organization_bind", long).await;
    let items = until_listed(&app.api, "?state=AWAITING_REPLY", 1).await;
    let id = items[0]["request_id"].as_str().unwrap();
    let refused = reply(&app.api, id, json!({"reply_code": "APPROVED"})).await;
    assert_refused(&refused, 400, "VALIDATION_FAILED");
    assert_eq!(refused.body["details"][0]["field"], "/reply_code", "{refused:?}");
    let taken = reply(&app.api, id, json!({"reply_code": "3"})).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{taken:?}");
    assert_eq!(dock.message("/requests_reply").await.body["data"], json!({"result": 3}));
}

/// After a restart nobody knows of a dock that has not joined whose it will be, until it comes again. What it asked waits.
#[tokio::test]
async fn what_a_factory_new_dock_asked_waits_over_a_restart_and_is_answered_when_it_is_back() {
    let it = Waiting::by_hand().await;
    it.app.unwell_fleet.hold(false);
    let code = it.code.clone();
    // A second question of it, answered by hand while it is away.
    let rule = json!({"mode": "manual", "reply_seconds": 600});
    put_rule(&it.app.api, "airport_organization_get", rule).await;
    let get = json!({"device_binding_code": "x", "organization_id": "utmos"});
    ask(&it.dock, "g-1", "airport_organization_get", get).await;
    until_listed(&it.app.api, "?state=AWAITING_REPLY", 2).await;
    it.dock.leave().await;
    let app = it.app.restart().await;
    let waiting = until_listed(&app.api, "?state=AWAITING_REPLY", 2).await;
    let get = waiting.iter().find(|one| one["request_type"] == "airport_organization_get");
    let get = get.unwrap()["request_id"].as_str().unwrap();
    // What only the dock can show cannot be approved without it, and stays to be approved.
    let approved = reply(&app.api, &it.id, json!({"reply_code": "APPROVED"})).await;
    assert_refused(&approved, 400, "VALIDATION_FAILED");
    assert_eq!(approved.body["details"][0]["field"], "/reply_code", "{approved:?}");
    let told = reply(&app.api, get, json!({"reply_code": "7"})).await;
    assert_eq!(told.status, StatusCode::ACCEPTED, "{told:?}");
    until_state(&app.api, &it.id, "AWAITING_REPLY").await;
    assert_nothing_is_bound(&app).await;

    let mut dock = newcomer(&app, "NEW-DOCK", &code).await;
    let down = dock.message("/requests_reply").await;
    assert_eq!((down.tid(), &down.body["data"]), ("g-1", &json!({"result": 7})));
    let approved = reply(&app.api, &it.id, json!({"reply_code": "APPROVED"})).await;
    assert_eq!(approved.status, StatusCode::ACCEPTED, "{approved:?}");
    let told = dock.message("/requests_reply").await;
    assert!(outcomes(&told.body["data"]).iter().all(|(_, code)| *code == 0), "{}", told.raw);
    shown(&app.api, "NEW-DOCK", |_| true).await;
}

#[tokio::test]
async fn a_rule_answers_what_a_factory_new_dock_asked_before_a_restart_once_it_is_back() {
    let rule = json!({"mode": "auto_after", "after_seconds": 1, "reply_seconds": 600});
    let it = Waiting::start(rule).await;
    // The store holds the rule's answer up until the server is gone.
    it.app.unwell_fleet.until_waiting(1).await;
    it.app.unwell_fleet.refuse(true);
    it.app.unwell_fleet.hold(false);
    it.dock.leave().await;
    let app = it.app.restart().await;
    // Its time is over, and nothing happens but that it waits for the dock.
    assert_eq!(app.metric("utmos_device_requests_waiting").await, "1");
    until_state(&app.api, &it.id, "AWAITING_REPLY").await;
    assert_nothing_is_bound(&app).await;
    let mut dock = newcomer(&app, "NEW-DOCK", &it.code).await;
    let told = dock.message("/requests_reply").await;
    assert!(outcomes(&told.body["data"]).iter().all(|(_, code)| *code == 0), "{}", told.raw);
    until_state(&app.api, &it.id, "AUTO_REPLIED").await;
}

/// Who comes under the serial number after a restart with another tenant's code is told nothing of the first's answers.
#[tokio::test]
async fn what_a_factory_new_dock_asked_expires_when_it_comes_with_another_tenants_code() {
    let it = Waiting::by_hand().await;
    it.app.unwell_fleet.hold(false);
    let other = it.app.other_tenant("second", "DOCK-9").await;
    let (theirs, _) = code(&other, json!({})).await;
    it.dock.leave().await;
    let app = it.app.restart().await;
    let dock = newcomer(&app, "NEW-DOCK", &theirs).await;
    let refused = reply(&app.api, &it.id, json!({"reply_code": "7"})).await;
    assert_refused(&refused, 409, "DEVICE_REQUEST_EXPIRED");
    until_state(&app.api, &it.id, "EXPIRED").await;
    dock.leave().await;
}
