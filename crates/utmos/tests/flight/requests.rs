//! `kill -9` at every step of an answer by hand: once it is on record it leaves once, and never twice by itself.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    api::{Api, PATIENCE},
    dock::PretendDock,
    place::Place,
};

const REQUESTS: &str = "/api/v1/open/device-requests";
const SN: &str = "DOCK-1";

async fn ask(dock: &PretendDock) {
    let body =
        json!({"tid": "t-1", "bid": "b", "timestamp": 1, "method": "something_get", "data": {}});
    dock.publish(&format!("thing/product/{SN}/requests"), &body).await;
}

async fn until_listed(api: &Api, state: &str) -> Value {
    let looking = async {
        loop {
            let page = api.get(&format!("{REQUESTS}?state={state}")).await.body;
            if let Some(item) = page["items"].get(0) {
                return item.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.expect("it never came to that")
}

/// Answers to the request that have come by now.
async fn answers(dock: &mut PretendDock) -> usize {
    let came = dock.drain().await;
    came.iter()
        .filter(|down| down.topic.ends_with("/requests_reply") && down.tid() == "t-1")
        .count()
}

/// Dies at `point`; how often the next process sends the answer by itself, before the dock asks again and after.
async fn check(point: &str, by_itself: usize) {
    let place = Place::with_gateways(&[SN]).await;
    let process = place.spawn(Some(point)).await;
    let api = place.api();
    let broker = (place.address, 1883).into();
    let dock = PretendDock::connect(broker, SN).await;
    ask(&dock).await;
    let item = until_listed(&api, "AWAITING_REPLY").await;
    let reply = format!("{REQUESTS}/{}/reply", item["request_id"].as_str().unwrap());
    let body = json!({"reply_code": "0", "payload": {"n": 1}});
    let first = api.try_request(Method::POST, &reply, Some(&body)).await;
    if point.ends_with("replied") {
        assert!(first.is_err(), "it died before it could say so");
    }
    process.died().await;
    drop(dock);

    let _process = place.spawn(None).await;
    let mut dock = PretendDock::connect(broker, SN).await;
    let again = api.post(&reply, &body).await;
    assert_eq!(
        (again.status, again.code()),
        (StatusCode::CONFLICT, "DEVICE_REQUEST_ALREADY_REPLIED")
    );
    if by_itself > 0 {
        let sent = async {
            while until_listed(&api, "REPLIED").await["sent_at"].is_null() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, sent).await.expect("it leaves");
    }
    assert_eq!(answers(&mut dock).await, by_itself, "{point}");
    ask(&dock).await;
    let asked_again = async {
        while answers(&mut dock).await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked_again).await.expect("it gets it when it asks again");
}

#[tokio::test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build has crash points")]
async fn killed_when_the_answer_was_on_record_and_nobody_knew() {
    check("device_request_replied", 1).await;
}

#[tokio::test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build has crash points")]
async fn killed_between_the_claim_of_an_answer_and_its_publish() {
    check("device_request_claimed", 0).await;
}

#[tokio::test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build has crash points")]
async fn killed_when_the_answer_had_left() {
    check("device_request_published", 0).await;
}
