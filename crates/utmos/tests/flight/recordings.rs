//! What real docks and remote controllers said, said again to a running server: what asks for an answer is answered
//! rightly, nothing else is, nothing is lost, and the link works on.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use utmos_core::device::DeviceKind;

use crate::{
    api::PATIENCE,
    dock::{Down, PretendDock},
    place::{PASSWORD, Place, data},
};

/// A recorded message.
#[derive(Debug, Deserialize)]
struct Recorded {
    direction: String,
    topic: String,
    payload_text: String,
}

/// The gateways of the recordings, and what flies behind them.
const GATEWAYS: [(&str, DeviceKind, &[&str]); 8] = [
    ("SN_DOCK_FIXTURE", DeviceKind::Dock, &["SN_DRONE_FIXTURE"]),
    ("SN_DOCK_B", DeviceKind::Dock, &[]),
    ("SN_DOCK_C", DeviceKind::Dock, &[]),
    ("SN_DOCK_IDLE", DeviceKind::Dock, &[]),
    ("SN_RC_A", DeviceKind::RemoteController, &["SN_AIR_A"]),
    ("SN_RC_D", DeviceKind::RemoteController, &["SN_AIR_D"]),
    ("SN_RC_E", DeviceKind::RemoteController, &[]),
    ("4XLBK4S5526267", DeviceKind::RemoteController, &["1681F58KDDD5H40B4XZ6"]),
];
/// Recorded replies, whose commands the server knows nothing of.
const REPLIES: u64 = 12;

fn recordings() -> Vec<Recorded> {
    let provenance: Value = serde_json::from_str(&data("recordings/PROVENANCE.json")).unwrap();
    let groups = provenance["groups"].as_array().unwrap();
    let mut all = Vec::new();
    for group in groups {
        let text = data(&format!("recordings/{}", group["file"].as_str().unwrap()));
        all.extend(text.lines().map(|line| serde_json::from_str::<Recorded>(line).unwrap()));
    }
    assert_eq!(all.len(), 216);
    all
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

async fn place() -> Place {
    let place = Place::new().await;
    for (sn, kind, aircraft) in GATEWAYS {
        place.put_gateway(place.given.tenant, sn, kind, PASSWORD, aircraft).await;
    }
    place
}

/// The gateway whose connection carries this topic.
fn carrier(topic: &str) -> &'static str {
    let sn = topic.split('/').nth(2).unwrap();
    let is_its = |(gateway, _, aircraft): &&(&str, DeviceKind, &[&str])| {
        *gateway == sn || aircraft.contains(&sn)
    };
    GATEWAYS.iter().find(is_its).unwrap_or_else(|| panic!("nobody carries {topic}")).0
}

/// What DJI's pages say must come back, if anything: topic and message, without its time.
fn answer_to(message: &Recorded) -> Option<(String, Value)> {
    let asked = json(&message.payload_text);
    let is_status = message.topic.ends_with("/status");
    (asked["need_reply"] == 1 || is_status).then(|| {
        let mut answer = json!({"tid": asked["tid"], "bid": asked["bid"], "data": {"result": 0}});
        // The answer to a state is the only one without a method.
        if !message.topic.ends_with("/state") {
            answer["method"] = asked["method"].clone();
        }
        (format!("{}_reply", message.topic), answer)
    })
}

fn told(down: Down) -> (String, Value) {
    let Down { topic, mut body } = down;
    let time = body.as_object_mut().unwrap().remove("timestamp");
    assert!(time.is_some_and(|time| time.is_i64()), "{topic}: {body:#}");
    (topic, body)
}

#[tokio::test]
async fn what_real_devices_said_is_answered_where_it_asks_and_nothing_is_lost() {
    let place = place().await;
    let server = place.start().await;
    let mut docks = BTreeMap::new();
    for (sn, _, aircraft) in GATEWAYS {
        docks.insert(sn, PretendDock::with_aircraft(server.mqtt(), sn, aircraft).await);
    }
    let (mut sent, mut expected) = (0, BTreeMap::<&str, Vec<(String, Value)>>::new());
    for message in recordings().iter().filter(|message| message.direction == "up") {
        let carrier = carrier(&message.topic);
        docks[carrier].publish_text(&message.topic, &message.payload_text).await;
        expected.entry(carrier).or_default().extend(answer_to(message));
        sent += 1;
    }
    assert_eq!(sent, 192);
    let mut answers = 0;
    for (sn, dock) in &mut docks {
        let mut came: Vec<_> = dock.drain().await.into_iter().map(told).collect();
        let mut expected = expected.remove(sn).unwrap_or_default();
        answers += expected.len() as u64;
        for list in [&mut came, &mut expected] {
            list.sort_by_key(|(topic, body)| (topic.clone(), body.to_string()));
        }
        assert_eq!(came, expected, "{sn}");
    }
    assert_eq!(answers, 37);

    let drains = GATEWAYS.len() as u64;
    for (figure, expected) in [
        ("uplink_received_total", sent + drains),
        ("uplink_answered_total", answers + drains),
        ("uplink_malformed_total", 0),
        ("uplink_strangers_total", 0),
        ("uplink_unanswered_total", 0),
        ("uplink_unmatched_total", REPLIES),
    ] {
        assert_eq!(server.api.figure(figure).await, expected, "{figure}");
    }
    // Evidence is stored beside the way in.
    let unmatched = tokio::time::timeout(PATIENCE, async {
        loop {
            let page = server.api.get("/api/v1/open/unmatched-responses").await;
            let items = page.body["items"].as_array().unwrap().clone();
            if items.len() as u64 == REPLIES {
                return items;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    for message in recordings().iter().filter(|message| message.topic.ends_with("/services_reply"))
    {
        let tid = &json(&message.payload_text)["tid"];
        let kept = unmatched.iter().find(|kept| kept["tid"] == *tid).unwrap();
        assert_eq!(kept["raw"], message.payload_text, "kept as it came");
    }

    for (sn, dock) in &mut docks {
        let id = server.api.create(sn, "debug_mode_open", json!({}), json!({})).await.id();
        let command = dock.command().await;
        assert_eq!(command.tid(), id);
        dock.reply(&command, json!({"result": 0})).await;
        assert_eq!(server.api.ended(&id).await["status"], "SUCCEEDED", "{sn}");
    }
    server.stop().await;
}

#[tokio::test]
async fn recorded_commands_leave_as_recorded_and_end_as_the_recorded_replies_say() {
    let place = place().await;
    let server = place.start().await;
    let mut dock = PretendDock::connect(server.mqtt(), "SN_DOCK_FIXTURE").await;
    let all = recordings();
    let on = |end: &'static str| all.iter().filter(move |message| message.topic.ends_with(end));
    let replies: BTreeMap<String, Value> = on("/services_reply")
        .map(|message| json(&message.payload_text))
        .map(|reply| (reply["tid"].as_str().unwrap().to_owned(), reply))
        .collect();
    let end_of_flight = on("/events")
        .map(|message| json(&message.payload_text))
        .find(|event| event["data"]["status"] == "wayline_ok")
        .unwrap();
    let mut ended = 0;
    for recorded in on("/services").map(|message| json(&message.payload_text)) {
        let method = recorded["method"].as_str().unwrap();
        // One recorded command says "no parameters" with an empty text.
        let payload =
            if recorded["data"].is_object() { recorded["data"].clone() } else { json!({}) };
        let created =
            server.api.create("SN_DOCK_FIXTURE", method, payload.clone(), json!({})).await;
        let id = created.id();
        let command = dock.command().await;
        assert_eq!(command.topic, "thing/product/SN_DOCK_FIXTURE/services");
        let mut names: Vec<&String> = command.body.as_object().unwrap().keys().collect();
        let mut recorded_names: Vec<&String> = recorded.as_object().unwrap().keys().collect();
        names.sort();
        recorded_names.sort();
        assert_eq!(names, recorded_names, "{method}");
        assert_eq!((command.method(), &command.body["data"]), (method, &payload));

        let mut reply = replies[recorded["tid"].as_str().unwrap()].clone();
        reply["tid"] = json!(id);
        reply["bid"] = command.body["bid"].clone();
        dock.publish("thing/product/SN_DOCK_FIXTURE/services_reply", &reply).await;
        if method == "fly_to_point" {
            let mut event = end_of_flight.clone();
            event["data"]["fly_to_id"] = payload["fly_to_id"].clone();
            dock.publish("thing/product/SN_DOCK_FIXTURE/events", &event).await;
        }
        let command = server.api.ended(&id).await;
        let expected = match reply["data"]["result"].as_i64().unwrap() {
            0 => (json!("SUCCEEDED"), Value::Null, json!("0")),
            code => (json!("FAILED"), json!("DEVICE_EXECUTION_FAILED"), json!(code.to_string())),
        };
        let is = (&command["status"], &command["failure_code"], &command["response_code"]);
        assert_eq!(is, (&expected.0, &expected.1, &expected.2), "{method}: {command:#}");
        assert_eq!(command["vendor_response"], reply["data"]);
        ended += 1;
    }
    assert_eq!(ended, REPLIES);
    assert_eq!(server.api.figure("uplink_unmatched_total").await, 0);
    server.stop().await;
}
