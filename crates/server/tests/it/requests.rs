//! What devices ask, on the wire and over the API.

use std::{collections::BTreeSet, sync::Arc};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use utmos_core::{
    device_request::{
        DeviceRequest, Reply, ReplySource, RoutingDecision, Rule, Scope, Sending, SetRule,
    },
    id::{DeviceRequestId, DeviceSn},
    ports::{By, DeviceOrder, FleetStore, Ordered, RequestChanged, RequestStore},
    time::Timestamp,
};

use crate::{
    app::{Answer, Api, PATIENCE, TestApp, unix_seconds},
    devices_api::shown,
    dock::PretendDock,
    routes::assert_refused,
};

pub const REQUESTS: &str = "/api/v1/open/device-requests";
pub const RULES: &str = "/api/v1/open/device-request-rules";

pub async fn ask(dock: &PretendDock, tid: &str, method: &str, data: Value) {
    let body = json!({
        "tid": tid, "bid": "b", "timestamp": 1, "method": method, "gateway": dock.sn, "data": data,
    });
    dock.publish(&format!("thing/product/{}/requests", dock.sn), &body).await;
}

/// The list once it has so many items.
pub async fn until_listed(api: &Api, query: &str, count: usize) -> Vec<Value> {
    until(api, query, |items| items.len() == count).await
}

async fn until(api: &Api, query: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let looking = async {
        loop {
            let answer = api.get(&format!("{REQUESTS}{query}")).await;
            let items = answer.body["items"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
            if holds(items) {
                return items.clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.expect("it never came to that")
}

pub async fn until_state(api: &Api, id: &str, state: &str) -> Value {
    let looking = async {
        loop {
            let answer = api.get(&format!("{REQUESTS}/{id}")).await;
            if answer.body["routing_decision"] == state {
                return answer.body;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.expect("it never came to that")
}

fn id_of(item: &Value) -> &str {
    item["request_id"].as_str().unwrap()
}

async fn reply(api: &Api, item: &Value, body: Value) -> Answer {
    api.post(&format!("{REQUESTS}/{}/reply", id_of(item)), &body).await
}

pub async fn put_rule(api: &Api, target: &str, body: Value) -> Answer {
    let body = body.to_string();
    api.request(Method::PUT, &format!("{RULES}/{target}"), Some(body.as_bytes())).await
}

#[tokio::test]
async fn an_automatic_answer_is_on_record_and_a_repeated_request_gets_the_same() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    ask(
        &dock,
        "t-1",
        "airport_organization_get",
        json!({"device_binding_code": crate::app::PASSWORD, "organization_id": "utmos"}),
    )
    .await;
    let first = dock.message("/requests_reply").await;
    let items =
        until(&app.api, "", |items| items.first().is_some_and(|item| item["sent_at"].is_string()))
            .await;
    let item = &items[0];
    assert_eq!(item["routing_decision"], "AUTO_REPLIED");
    assert_eq!(item["reply_source"], "auto");
    assert_eq!(item["reply_code"], "0");
    assert_eq!(item["standardized_reply"], first.body["data"]);
    assert_eq!(
        item["inbound_payload"],
        json!({"device_binding_code": "***", "organization_id": "utmos"})
    );
    assert_eq!((&item["device_id"], &item["vendor"]), (&json!("DOCK-1"), &json!("dji")));
    for _ in 0..3 {
        ask(
            &dock,
            "t-1",
            "airport_organization_get",
            json!({"device_binding_code": crate::app::PASSWORD, "organization_id": "utmos"}),
        )
        .await;
        let again = dock.message("/requests_reply").await;
        assert_eq!(again.body["data"], first.body["data"]);
    }
    assert_eq!(until_listed(&app.api, "", 1).await[0]["request_id"], item["request_id"]);
    let one = app.api.get(&format!("{REQUESTS}/{}", id_of(item))).await;
    assert_eq!(&one.body, item);
}

/// What a device asked of one tenant is not answered by it once the device is another's.
#[tokio::test]
async fn former_tenant_answers_a_moved_dock() {
    let app = TestApp::start().await;
    let other = app.other_tenant("second", "DOCK-9").await;
    let dock = app.dock("DOCK-1").await;
    for tid in ["t-1", "t-2"] {
        ask(&dock, tid, "something_get", json!({})).await;
    }
    let items = until_listed(&app.api, "?state=AWAITING_REPLY", 2).await;
    // One was answered while the dock was away, and the answer has not left.
    dock.leave().await;
    let body = json!({"reply_code": "0", "payload": {"from": "the former tenant"}});
    let reply = async |item: &Value| {
        let answer = app.api.post(&format!("{REQUESTS}/{}/reply", id_of(item)), &body).await;
        answer.status
    };
    assert_eq!(reply(&items[0]).await, StatusCode::ACCEPTED);
    let order = DeviceOrder::Move {
        sn: DeviceSn::parse("DOCK-1").unwrap(),
        from: app.api.given.tenant,
        to: other.given.tenant,
    };
    let at = Timestamp::from_millis(unix_seconds() * 1_000);
    let by = By { who: "test".to_owned(), at };
    assert!(matches!(app.store.order(order, by).await.unwrap(), Ordered::Done(_)));
    shown(&other, "DOCK-1", |_| true).await;
    assert_eq!(reply(&items[1]).await, StatusCode::CONFLICT);
    let expired = until_listed(&app.api, "?state=EXPIRED", 1).await;
    assert_eq!(id_of(&expired[0]), id_of(&items[1]));
    // It comes back as the other tenant's, is heard, and is told what that one answers and nothing else.
    let mut dock = app.dock("DOCK-1").await;
    ask(&dock, "t-3", "something_get", json!({})).await;
    let items = until_listed(&other, "?state=AWAITING_REPLY", 1).await;
    let answer = other
        .post(&format!("{REQUESTS}/{}/reply", id_of(&items[0])), &json!({"reply_code": "0"}))
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let down = dock.message("/requests_reply").await;
    assert_eq!(down.tid(), "t-3", "{}", down.raw);
}

#[tokio::test]
async fn a_request_nobody_knows_is_answered_by_hand_once_and_again_when_it_comes_again() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    ask(&dock, "t-1", "something_get", json!({"name": "x", "token": "hush"})).await;
    ask(&dock, "t-1", "something_get", json!({"name": "x", "token": "hush"})).await;
    let items = until_listed(&app.api, "?state=AWAITING_REPLY", 1).await;
    let item = &items[0];
    assert_eq!(item["inbound_payload"], json!({"name": "x", "token": "***"}));
    assert_eq!((&item["reply_code"], &item["replied_at"]), (&Value::Null, &Value::Null));
    let body = json!({
        "reply_code": "APPROVED", "reply_message": "go on",
        "payload": {"url": "https://files.example/a?sig=hush", "secret_key": "hush"},
    });
    let taken = reply(&app.api, item, body.clone()).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{taken:?}");
    assert_eq!(
        (&taken.body["request_id"], &taken.body["reply_code"], &taken.body["reply_source"]),
        (&item["request_id"], &json!("APPROVED"), &json!("manual"))
    );
    let answer = dock.message("/requests_reply").await;
    assert_eq!(answer.body["data"], json!({"result": 0, "output": body["payload"]}));
    assert_eq!((answer.tid(), answer.method()), ("t-1", "something_get"));

    let second = reply(&app.api, item, body.clone()).await;
    assert_refused(&second, 409, "DEVICE_REQUEST_ALREADY_REPLIED");
    let items = until(&app.api, "?state=REPLIED", |items| {
        items.first().is_some_and(|item| item["sent_at"].is_string())
    })
    .await;
    assert_eq!(items[0]["reply_message"], "go on");
    assert_eq!(
        items[0]["standardized_reply"],
        json!({"result": 0, "output": {"url": "https://files.example/***", "secret_key": "***"}})
    );
    ask(&dock, "t-1", "something_get", json!({"name": "x"})).await;
    let again = dock.message("/requests_reply").await;
    assert_eq!(again.body["data"], answer.body["data"]);
    assert_eq!(until_listed(&app.api, "", 1).await.len(), 1);
}

#[tokio::test]
async fn one_answer_of_many_at_once_is_taken_and_leaves_once() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    ask(&dock, "t-1", "something_get", json!({})).await;
    let items = until_listed(&app.api, "?state=AWAITING_REPLY", 1).await;
    let mut tries = tokio::task::JoinSet::new();
    for number in 0..20 {
        let (api, item) = (app.api.clone(), items[0].clone());
        tries.spawn(async move {
            let body = json!({"reply_code": "0", "payload": {"number": number}});
            reply(&api, &item, body).await.status.as_u16()
        });
    }
    let statuses = tries.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [202, 409].contains(status)), "{statuses:?}");
    dock.message("/requests_reply").await;
    ask(&dock, "t-2", "flight_areas_get", json!({})).await;
    assert_eq!(dock.message("/requests_reply").await.tid(), "t-2", "no second one came between");
}

#[tokio::test]
async fn what_another_server_answered_is_the_answer_to_the_next_copy() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    ask(&dock, "t-1", "something_get", json!({})).await;
    let items = until_listed(&app.api, "?state=AWAITING_REPLY", 1).await;
    // Another server takes the answer and sends it, and the dock misses it: of that this server sees the record alone.
    let id = DeviceRequestId::new(id_of(&items[0]).parse().unwrap());
    let waiting = app.store.request(id).await.unwrap().unwrap();
    let version = waiting.version;
    let reply = Reply {
        code: "0".to_owned(),
        message: None,
        source: ReplySource::Manual,
        by: Some(utmos_core::id::ApiId::new("utk_somebody")),
        data: r#"{"result":0,"output":{"n":7}}"#.into(),
        at: waiting.asked.received_at,
    };
    let answered = DeviceRequest {
        state: RoutingDecision::Replied,
        reply: Some(reply),
        sending: Sending::Sent,
        sent_at: Some(waiting.asked.received_at),
        version: version.next(),
        asked: waiting.asked,
    };
    let changed = app.store.change_request(version, Arc::new(answered)).await.unwrap();
    assert_eq!(changed, RequestChanged::Yes);
    ask(&dock, "t-1", "something_get", json!({})).await;
    let answer = dock.message("/requests_reply").await;
    assert_eq!((answer.tid(), &answer.body["data"]["output"]), ("t-1", &json!({"n": 7})));
    ask(&dock, "t-1", "something_get", json!({})).await;
    assert_eq!(dock.message("/requests_reply").await.body["data"], answer.body["data"]);
    assert_eq!(app.metric("utmos_device_requests_repeated_total").await, "2");
}

#[tokio::test]
async fn nobody_answers_in_time() {
    let app = TestApp::start().await;
    let dock = app.dock("DOCK-1").await;
    let rule = put_rule(&app.api, "config", json!({"mode": "manual", "reply_seconds": 1})).await;
    assert_eq!(rule.status, StatusCode::OK, "{rule:?}");
    ask(&dock, "t-1", "config", json!({"config_type": "json"})).await;
    let items = until_listed(&app.api, "?request_type=config", 1).await;
    let expired = until_state(&app.api, id_of(&items[0]), "EXPIRED").await;
    assert_eq!(expired["reply_code"], Value::Null);
    let late = reply(&app.api, &items[0], json!({"reply_code": "0"})).await;
    assert_refused(&late, 409, "DEVICE_REQUEST_EXPIRED");
    assert_eq!(app.metric("utmos_device_requests_expired_total").await, "1");
}

#[tokio::test]
async fn the_server_answers_after_a_while_when_nobody_does() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let body = json!({"mode": "auto_after", "after_seconds": 1, "reply_seconds": 60});
    put_rule(&app.api, "offline_map_get", body).await;
    ask(&dock, "t-1", "offline_map_get", json!({})).await;
    let items = until_listed(&app.api, "?state=AWAITING_REPLY", 1).await;
    let answer = dock.message("/requests_reply").await;
    assert_eq!(answer.body["data"]["output"]["offline_map_enable"], false);
    let after = until_state(&app.api, id_of(&items[0]), "AUTO_REPLIED").await;
    assert_eq!(after["reply_source"], "auto");
    // Whoever is quicker is heard.
    ask(&dock, "t-2", "offline_map_get", json!({})).await;
    let items = until_listed(&app.api, "?state=AWAITING_REPLY", 1).await;
    let taken = reply(&app.api, &items[0], json!({"reply_code": "12"})).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED);
    assert_eq!(dock.message("/requests_reply").await.body["data"], json!({"result": 12}));
}

#[tokio::test]
async fn an_answer_waits_for_its_gateway_through_a_restart_and_leaves_once() {
    let app = TestApp::start().await;
    let dock = app.dock("DOCK-1").await;
    put_rule(&app.api, "config", json!({"mode": "manual", "reply_seconds": 3600})).await;
    ask(&dock, "t-1", "config", json!({})).await;
    let items = until_listed(&app.api, "?state=AWAITING_REPLY", 1).await;
    dock.leave().await;
    let body = json!({"reply_code": "0", "payload": {"app_id": "1", "app_key": "hush", "app_license": "x", "ntp_server_host": "h"}});
    // The dock may not be known to be gone yet; then the answer is tried, and proves not to have left.
    let taken = reply(&app.api, &items[0], body).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{taken:?}");
    let app = app.restart().await;
    let seen = app.api.get(&format!("{REQUESTS}/{}", id_of(&items[0]))).await.body;
    assert_eq!((&seen["routing_decision"], &seen["sent_at"]), (&json!("REPLIED"), &Value::Null));
    let mut dock = app.dock("DOCK-1").await;
    let answer = dock.message("/requests_reply").await;
    let flat =
        json!({"app_id": "1", "app_key": "hush", "app_license": "x", "ntp_server_host": "h"});
    assert_eq!(answer.body["data"], flat, "config is flat");
    until(&app.api, "", |items| items[0]["sent_at"].is_string()).await;
    dock.leave().await;
    let app = app.restart().await;
    let mut dock = app.dock("DOCK-1").await;
    ask(&dock, "t-2", "flight_areas_get", json!({})).await;
    assert_eq!(dock.message("/requests_reply").await.tid(), "t-2", "it was not sent again");
}

#[tokio::test]
async fn what_expired_while_the_server_was_away_is_expired() {
    let app = TestApp::start().await;
    let dock = app.dock("DOCK-1").await;
    put_rule(&app.api, "config", json!({"mode": "manual", "reply_seconds": 1})).await;
    ask(&dock, "t-1", "config", json!({})).await;
    let items = until_listed(&app.api, "?request_type=config", 1).await;
    let app = app.restart().await;
    until_state(&app.api, id_of(&items[0]), "EXPIRED").await;
}

#[tokio::test]
async fn a_topology_update_is_listed_with_its_answer() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let body = json!({
        "tid": "t-1", "bid": "b", "timestamp": 1, "method": "update_topo",
        "data": {"domain": "3", "type": 2, "sub_type": 0, "device_secret": "hush", "nonce": "hush", "sub_devices": []},
    });
    for _ in 0..2 {
        dock.publish("sys/product/DOCK-1/status", &body).await;
        dock.message("/status_reply").await;
    }
    let items = until_listed(&app.api, "?request_type=update_topo", 1).await;
    assert_eq!(items[0]["routing_decision"], "AUTO_REPLIED");
    assert_eq!(items[0]["standardized_reply"], json!({"result": 0}));
    assert_eq!(items[0]["inbound_payload"]["device_secret"], "***");
    assert_eq!(items[0]["inbound_payload"]["nonce"], "***");
    ask(&dock, "t-2", "flight_areas_get", json!({})).await;
    assert_eq!(dock.message("_reply").await.tid(), "t-2", "one answer to each copy");
    // A remote controller has no ids of its own, and tells the same over and over.
    let zeros = "00000000-0000-0000-0000-000000000000";
    for aircraft in [json!([]), json!([{"sn": "AIR-1", "domain": "0", "type": 91, "sub_type": 0}])]
    {
        let data = json!({"domain": "2", "type": 119, "sub_type": 0, "sub_devices": aircraft});
        let body = json!({"tid": zeros, "bid": zeros, "timestamp": 1, "method": "update_topo", "data": data});
        for _ in 0..3 {
            dock.publish("thing/product/DOCK-1/status", &body).await;
            dock.message("/status_reply").await;
        }
    }
    until_listed(&app.api, "?request_type=update_topo", 3).await;
    let repeated = app.metric("utmos_device_requests_repeated_total").await;
    assert_eq!(repeated, "5", "a copy with an id, and two of each without");
}

#[tokio::test]
async fn what_does_not_say_what_it_asks_is_listed_and_left() {
    let app = TestApp::start().await;
    let dock = app.dock("DOCK-1").await;
    let topic = "thing/product/DOCK-1/requests";
    dock.publish(topic, &json!({"tid": "t-1", "data": {"a": 1}})).await;
    let items = until_listed(&app.api, "?state=UNSUPPORTED", 1).await;
    assert_eq!(items[0]["request_type"], Value::Null);
    let refused = reply(&app.api, &items[0], json!({"reply_code": "0"})).await;
    assert_refused(&refused, 409, "DEVICE_REQUEST_EXPIRED");
}

/// Of a known type whose data the server cannot read, people may make more, whatever the rule.
#[tokio::test]
async fn a_known_request_that_cannot_be_read_is_left_to_people_and_answered_by_them() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let manual = json!({"mode": "manual", "reply_seconds": 600});
    put_rule(&app.api, "airport_organization_bind", manual).await;
    ask(&dock, "t-1", "flighttask_resource_get", json!({"flight": "task-1"})).await;
    ask(&dock, "t-2", "airport_organization_bind", json!({"bind_devices": "all of them"})).await;
    let items = until_listed(&app.api, "?state=AWAITING_REPLY", 2).await;
    let of = |kind: &str| items.iter().find(|item| item["request_type"] == kind).unwrap();
    let file = json!({"file": {"url": "https://files.example/a.kmz", "fingerprint": "d41d"}});
    let body = json!({"reply_code": "0", "payload": file});
    let taken = reply(&app.api, of("flighttask_resource_get"), body).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{taken:?}");
    let told = dock.message("/requests_reply").await;
    assert_eq!((told.tid(), &told.body["data"]["output"]), ("t-1", &file));
    // There is nothing that an approval could bind.
    let binding = of("airport_organization_bind");
    let approved = reply(&app.api, binding, json!({"reply_code": "OK"})).await;
    assert_refused(&approved, 400, "VALIDATION_FAILED");
    assert_eq!(approved.body["details"][0]["field"], "/reply_code", "{approved:?}");
    let refused = reply(&app.api, binding, json!({"reply_code": "3"})).await;
    assert_eq!(refused.status, StatusCode::ACCEPTED, "{refused:?}");
    assert_eq!(dock.message("/requests_reply").await.body["data"], json!({"result": 3}));
}

#[tokio::test]
async fn what_is_asked_on_the_status_topic_is_answered_there() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let body =
        json!({"tid": "t-1", "bid": "b", "timestamp": 1, "method": "something_get", "data": {}});
    for topic in ["sys/product/DOCK-1/status", "thing/product/DOCK-1/status"] {
        let mut body = body.clone();
        body["tid"] = topic.into();
        dock.publish(topic, &body).await;
        let items = until_listed(&app.api, "?state=AWAITING_REPLY", 1).await;
        assert_eq!(
            reply(&app.api, &items[0], json!({"reply_code": "0"})).await.status,
            StatusCode::ACCEPTED
        );
        let answer = dock.message("/status_reply").await;
        assert_eq!(
            (answer.topic, answer.body["tid"].clone()),
            (format!("{topic}_reply"), topic.into())
        );
    }
}

#[tokio::test]
async fn requests_without_a_tid_of_their_own_are_told_apart_by_what_they_ask() {
    let app = TestApp::start().await;
    let dock = app.dock("DOCK-1").await;
    let zeros = "00000000-0000-0000-0000-000000000000";
    for name in ["a", "a", "b", "a", "b"] {
        ask(&dock, zeros, "something_get", json!({"name": name})).await;
    }
    let items = until_listed(&app.api, "?state=AWAITING_REPLY", 2).await;
    for item in &items {
        assert_eq!(
            reply(&app.api, item, json!({"reply_code": "0"})).await.status,
            StatusCode::ACCEPTED
        );
    }
    // Answered, the same question is a new one.
    until(&app.api, "?state=REPLIED", |items| {
        items.len() == 2 && items.iter().all(|item| item["sent_at"].is_string())
    })
    .await;
    ask(&dock, zeros, "something_get", json!({"name": "a"})).await;
    until_listed(&app.api, "", 3).await;
}

#[tokio::test]
async fn the_list_is_paged_filtered_and_kept_apart_by_tenant_and_device() {
    let app = TestApp::start().await;
    let (one, two) = (app.dock("DOCK-1").await, app.dock("DOCK-2").await);
    for number in 0..5 {
        ask(&one, &format!("t-{number}"), "something_get", json!({"n": number})).await;
    }
    ask(&two, "t-1", "flight_areas_get", json!({})).await;
    until_listed(&app.api, "", 6).await;
    until_listed(&app.api, "?device_id=DOCK-1", 5).await;
    until_listed(
        &app.api,
        "?device_id=DOCK-2&vendor=dji&state=AUTO_REPLIED&request_type=flight_areas_get",
        1,
    )
    .await;
    until_listed(&app.api, "?device_id=DOCK-2&state=AWAITING_REPLY", 0).await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app.api.get(&format!("{REQUESTS}?limit=2{cursor}")).await.body;
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| id_of(item).to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let mut sorted = seen.clone();
    sorted.sort_by(|a, b| b.cmp(a));
    sorted.dedup();
    assert_eq!((seen.len(), &seen), (6, &sorted), "newest first, each once");

    let foreign = app.other_tenant("second", "DOCK-9").await;
    until_listed(&foreign, "", 0).await;
    assert_refused(
        &foreign.get(&format!("{REQUESTS}/{}", seen[0])).await,
        404,
        "DEVICE_REQUEST_NOT_FOUND",
    );
    let limited = app
        .credential(|one| one.devices = Some(BTreeSet::from([DeviceSn::parse("DOCK-2").unwrap()])))
        .await;
    let items = until_listed(&limited, "", 1).await;
    assert_eq!(items[0]["device_id"], "DOCK-2");
    let of_other = until_listed(&app.api, "?device_id=DOCK-1&limit=5", 5).await;
    let refused = reply(&limited, &of_other[0], json!({"reply_code": "0"})).await;
    assert_refused(&refused, 404, "DEVICE_REQUEST_NOT_FOUND");

    assert_refused(
        &app.api.get(&format!("{REQUESTS}?vendor=other")).await,
        400,
        "UNSUPPORTED_VENDOR",
    );
    let bad = app.api.get(&format!("{REQUESTS}?state=DONE&limit=0&color=red")).await;
    assert_refused(&bad, 400, "VALIDATION_FAILED");
    assert_eq!(bad.body["details"].as_array().unwrap().len(), 3);
    assert_refused(
        &app.api.get(&format!("{REQUESTS}/nonsense")).await,
        404,
        "DEVICE_REQUEST_NOT_FOUND",
    );
}

#[tokio::test]
async fn a_bad_answer_names_everything_that_does_not_fit() {
    let app = TestApp::start().await;
    let dock = app.dock("DOCK-1").await;
    ask(&dock, "t-1", "something_get", json!({})).await;
    let items = until_listed(&app.api, "?state=AWAITING_REPLY", 1).await;
    let fields = |answer: &Answer| {
        let details = answer.body["details"].as_array().unwrap().iter();
        details.map(|detail| detail["field"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let bad =
        reply(&app.api, &items[0], json!({"reply_message": 5, "payload": [], "other": 1})).await;
    assert_refused(&bad, 400, "VALIDATION_FAILED");
    assert_eq!(fields(&bad), ["/other", "/reply_message", "/reply_code", "/payload"]);
    let empty = reply(&app.api, &items[0], json!({"reply_code": ""})).await;
    assert_eq!(fields(&empty), ["/reply_code"]);
    let long = json!({"reply_code": "0", "payload": {"x": "y".repeat(300_000)}});
    assert_eq!(fields(&reply(&app.api, &items[0], long).await), ["/payload"]);
    assert_refused(&reply(&app.api, &items[0], json!([])).await, 400, "INVALID_REQUEST_BODY");
    // Of what DJI documents the shape is known.
    put_rule(&app.api, "storage_config_get", json!({"mode": "manual"})).await;
    ask(&dock, "t-2", "storage_config_get", json!({"module": 0})).await;
    let items = until_listed(&app.api, "?request_type=storage_config_get", 1).await;
    let payload = json!({"bucket": 5, "endpoint": "e", "provider": "other", "credentials": {}});
    let bad = reply(&app.api, &items[0], json!({"reply_code": "OK", "payload": payload})).await;
    assert_refused(&bad, 400, "VALIDATION_FAILED");
    let fields = fields(&bad);
    for field in ["/payload/provider", "/payload/credentials/access_key_secret"] {
        assert!(fields.iter().any(|one| one == field), "{fields:?}");
    }
    let refusal =
        reply(&app.api, &items[0], json!({"reply_code": "1", "reply_message": "none"})).await;
    assert_eq!(refusal.status, StatusCode::ACCEPTED, "a refusal needs no shape");
    // What does not fit is not told back where it is a secret.
    put_rule(&app.api, "config", json!({"mode": "manual"})).await;
    ask(&dock, "t-3", "config", json!({"config_type": "json", "config_scope": "product"})).await;
    let items = until_listed(&app.api, "?request_type=config", 1).await;
    let payload = json!({"ntp_server_host": 51, "app_id": 52, "app_key": 53, "app_license": 54});
    let bad = reply(&app.api, &items[0], json!({"reply_code": "OK", "payload": payload})).await;
    assert_refused(&bad, 400, "VALIDATION_FAILED");
    let given = |name: &str| {
        let details = bad.body["details"].as_array().unwrap().iter();
        let field = format!("/payload/{name}");
        details.clone().find(|detail| detail["field"] == field).unwrap()["given"].clone()
    };
    assert_eq!((given("ntp_server_host"), given("app_id")), (json!(51), json!(52)));
    for secret in ["app_key", "app_license"] {
        assert!(!given(secret).to_string().contains('5'), "{bad:?}");
    }
}

#[tokio::test]
async fn rules_are_set_for_a_tenant_or_a_device_and_taken_back() {
    let app = TestApp::start().await;
    let get = async |api: &Api, target: &str| api.get(&format!("{RULES}/{target}")).await.body;
    let rule = get(&app.api, "config").await;
    assert_eq!((&rule["mode"], &rule["origin"]), (&json!("auto"), &json!("default")));
    let unknown = get(&app.api, "something_get").await;
    assert_eq!((&unknown["mode"], &unknown["reply_seconds"]), (&json!("manual"), &json!(30)));
    put_rule(&app.api, "config", json!({"mode": "manual", "reply_seconds": 60})).await;
    let body = json!({"mode": "auto_after", "after_seconds": 5});
    let set = put_rule(&app.api, "config?device_id=DOCK-1", body).await;
    assert_eq!((&set.body["origin"], &set.body["after_seconds"]), (&json!("device"), &json!(5)));
    let of_two = get(&app.api, "config?device_id=DOCK-2").await;
    assert_eq!((&of_two["mode"], &of_two["origin"]), (&json!("manual"), &json!("tenant")));
    let list = app.api.get(RULES).await.body;
    let config: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["request_type"] == "config")
        .collect();
    assert_eq!((config.len(), list["items"].as_array().unwrap().len()), (2, 10));
    let delete = async |target: &str| {
        app.api.request(Method::DELETE, &format!("{RULES}/{target}"), None).await
    };
    assert_eq!(delete("config?device_id=DOCK-1").await.body["origin"], "tenant");
    assert_eq!(delete("config").await.body["origin"], "default");
    assert_eq!(delete("config").await.body["origin"], "default", "twice is as good as once");

    assert_refused(
        &put_rule(&app.api, "something_get", json!({"mode": "auto"})).await,
        400,
        "VALIDATION_FAILED",
    );
    assert_refused(
        &put_rule(&app.api, "update_topo", json!({"mode": "manual"})).await,
        400,
        "VALIDATION_FAILED",
    );
    assert_refused(
        &put_rule(&app.api, "config?device_id=DOCK-X", json!({"mode": "manual"})).await,
        404,
        "DEVICE_NOT_FOUND",
    );
    let bad =
        put_rule(&app.api, "config", json!({"mode": "auto", "after_seconds": "x", "more": 1}))
            .await;
    assert_refused(&bad, 400, "VALIDATION_FAILED");
    let limited = app
        .credential(|one| one.devices = Some(BTreeSet::from([DeviceSn::parse("DOCK-2").unwrap()])))
        .await;
    assert_refused(
        &put_rule(&limited, "config", json!({"mode": "manual"})).await,
        403,
        "PERMISSION_DENIED",
    );
    assert_eq!(
        put_rule(&limited, "config?device_id=DOCK-2", json!({"mode": "manual"})).await.status,
        StatusCode::OK
    );
    assert_refused(
        &put_rule(&limited, "config?device_id=DOCK-1", json!({"mode": "manual"})).await,
        404,
        "DEVICE_NOT_FOUND",
    );
}

#[tokio::test]
async fn a_rule_that_another_process_sets_counts_soon() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let scope =
        Scope { tenant: app.api.given.tenant, request_type: "config".to_owned(), device: None };
    let rule = Rule::new("manual", None, Some(60)).unwrap();
    let set = SetRule { scope, rule, updated_at: Timestamp::from_millis(0) };
    app.store.put_rule(set).await.unwrap();
    tokio::time::timeout(PATIENCE, async {
        while app.api.get(&format!("{RULES}/config")).await.body["mode"] != "manual" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("it is followed");
    ask(&dock, "t-1", "config", json!({})).await;
    until_listed(&app.api, "?state=AWAITING_REPLY", 1).await;
    ask(&dock, "t-2", "flight_areas_get", json!({})).await;
    assert_eq!(dock.message("/requests_reply").await.tid(), "t-2");
}

#[tokio::test]
async fn a_gateway_that_floods_keeps_nobody_waiting_and_fills_nothing() {
    let app = TestApp::start().await;
    let loud = app.dock("DOCK-1").await;
    let mut quiet = app.dock("DOCK-2").await;
    let flooding = async {
        for number in 0..600 {
            ask(&loud, &format!("t-{number}"), "something_get", json!({"n": number})).await;
        }
    };
    let asking = async {
        for number in 0..10 {
            ask(&quiet, &format!("q-{number}"), "flight_areas_get", json!({})).await;
            assert_eq!(quiet.message("/requests_reply").await.tid(), format!("q-{number}"));
        }
    };
    tokio::join!(flooding, asking);
    until_listed(&app.api, "?device_id=DOCK-2", 10).await;
    let kept = app
        .api
        .get(&format!("{REQUESTS}?device_id=DOCK-1&state=AWAITING_REPLY&limit=500"))
        .await
        .body;
    assert!(kept["items"].as_array().unwrap().len() <= 64, "of those that wait so many are kept");
    assert!(app.metric("utmos_device_requests_dropped_total").await.parse::<u64>().unwrap() > 0);
}

#[tokio::test]
async fn a_request_of_a_mebibyte_is_kept_as_evidence_within_a_bound() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let data = json!({"name": "x".repeat(1_000_000), "token": "hush"});
    ask(&dock, "t-1", "something_get", data).await;
    let items = until_listed(&app.api, "?state=AWAITING_REPLY", 1).await;
    assert_eq!(items[0]["inbound_payload_is_cut"], true);
    assert!(items[0]["inbound_payload"].as_str().unwrap().len() <= 4_200);
    assert_eq!(
        reply(&app.api, &items[0], json!({"reply_code": "0"})).await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(dock.message("/requests_reply").await.tid(), "t-1");
}
