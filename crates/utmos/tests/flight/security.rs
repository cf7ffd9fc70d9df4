//! The embedded broker as an attacker meets it, and where secrets must never be found.

use std::fs::DirEntry;

use serde_json::{Value, json};
use utmos_core::device::DeviceKind;
use utmos_mqtt::{ProtocolChoice, Qos, Sent, Will};

use crate::{
    api::{Api, COMMANDS, PATIENCE},
    dock::{PretendDock, filters, login},
    place::{CATALOGUE, PASSWORD, Place, Running},
    process::Process,
};

const PROTOCOLS: [ProtocolChoice; 2] = [ProtocolChoice::V5, ProtocolChoice::V311];
/// Neighbours of `DOCK-1`: one of its own tenant, one of another.
const NEIGHBOURS: [&str; 2] = ["DOCK-2", "DOCK-9"];

async fn neighbourhood() -> (Place, Running, Api) {
    let place = Place::with_gateways(&["DOCK-2"]).await;
    place.put_gateway(place.given.tenant, "DOCK-1", DeviceKind::Dock, PASSWORD, &["AIR-1"]).await;
    let other = place.other_tenant().await;
    place.put_gateway(other.tenant, "DOCK-9", DeviceKind::Dock, PASSWORD, &["AIR-9"]).await;
    let server = place.start().await;
    let theirs = Api::new((place.address, 8080).into(), other);
    (place, server, theirs)
}

#[tokio::test]
async fn a_gateway_cannot_listen_to_another() {
    let (_place, server, _) = neighbourhood().await;
    let shapes = [
        "thing/product/DOCK-1/services",
        "thing/product/DOCK-1/#",
        "sys/product/DOCK-1/status_reply",
        "thing/product/+/services",
        "thing/product/+/+",
        "thing/product/#",
        "sys/product/#",
        "thing/#",
        "#",
        "+/product/DOCK-1/services",
        "$share/group/thing/product/DOCK-1/services",
        "thing/product/AIR-1/events_reply",
        "$SYS/#",
    ];
    for protocol in PROTOCOLS {
        for neighbour in NEIGHBOURS {
            for shape in shapes {
                let mut config = login(server.mqtt(), neighbour, PASSWORD);
                config.protocol = protocol;
                config.subscriptions = vec![(shape.to_owned(), Qos::AtLeastOnce)];
                let refused = PretendDock::start(config).await;
                assert!(refused.is_err(), "{neighbour} listens to {shape} in {protocol:?}");
            }
        }
    }
    // What the owner is told, nobody else hears.
    let mut owner = PretendDock::connect(server.mqtt(), "DOCK-1").await;
    let mut others = Vec::new();
    for neighbour in NEIGHBOURS {
        others.push(PretendDock::connect(server.mqtt(), neighbour).await);
    }
    let id = server.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    assert_eq!(owner.command().await.tid(), id);
    for other in &mut others {
        assert!(other.drain().await.is_empty(), "{}", other.sn);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_gateway_cannot_speak_for_another() {
    let (_place, server, theirs) = neighbourhood().await;
    let mut owner = PretendDock::connect(server.mqtt(), "DOCK-1").await;
    let id = server.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    let command = owner.command().await;
    let forged = json!({
        "tid": id, "bid": command.body["bid"], "timestamp": 1, "method": "debug_mode_open",
        "need_reply": 1, "gateway": "DOCK-1", "data": {"result": 1},
    })
    .to_string();
    let topics = [
        "thing/product/DOCK-1/services_reply",
        "thing/product/DOCK-1/events",
        "thing/product/DOCK-1/requests",
        "thing/product/DOCK-1/osd",
        "thing/product/DOCK-1/state",
        "thing/product/DOCK-1/drc/up",
        "thing/product/AIR-1/osd",
        "thing/product/AIR-1/events",
        "sys/product/DOCK-1/status",
        // To the dock, in the server's place; also to itself.
        "thing/product/DOCK-1/services",
        "thing/product/DOCK-1/events_reply",
        "thing/product/DOCK-1/drc/down",
    ];
    let before = server.api.figure("uplink_received_total").await;
    // What the neighbours said in their own names.
    let mut own = 0;
    for protocol in PROTOCOLS {
        for neighbour in NEIGHBOURS {
            for topic in topics {
                let mut config = login(server.mqtt(), neighbour, PASSWORD);
                config.protocol = protocol;
                let thief = PretendDock::start(config).await.unwrap();
                let sent = thief.try_publish(topic, &forged).await;
                // MQTT 3.1.1 knows no "no": the message is swallowed, or the connection is closed.
                if protocol == ProtocolChoice::V5 {
                    assert!(matches!(sent, Sent::Refused(_)), "{neighbour} on {topic}: {sent:?}");
                }
                thief.leave().await;
            }
            // The same as a last will. It is cut off without a goodbye, and the will with it, if it was taken.
            let mut config = login(server.mqtt(), neighbour, PASSWORD);
            config.protocol = protocol;
            config.subscriptions = filters(neighbour, &[]);
            config.will = Some(Will {
                topic: "thing/product/DOCK-1/services_reply".to_owned(),
                payload: forged.clone().into_bytes(),
                qos: Qos::AtLeastOnce,
            });
            let mut thief = PretendDock::start(config).await.unwrap();
            thief.drain().await;
            own += 1;
            drop(thief);
            let api = if neighbour == "DOCK-2" { &server.api } else { &theirs };
            until_gone(api, neighbour).await;
        }
    }
    let mut config = login(server.mqtt(), "DOCK-2", PASSWORD);
    config.protocol = ProtocolChoice::V5;
    let itself = PretendDock::start(config).await.unwrap();
    let sent = itself.try_publish("thing/product/DOCK-2/services", &forged).await;
    assert!(matches!(sent, Sent::Refused(_)), "a gateway commands itself: {sent:?}");

    assert!(owner.drain().await.is_empty(), "nothing forged reached the dock");
    let received = server.api.figure("uplink_received_total").await;
    assert_eq!(received, before + own + 1, "the server heard the owner, and nobody in its name");
    owner.reply(&command, json!({"result": 0})).await;
    let ended = server.api.ended(&id).await;
    assert_eq!((&ended["status"], &ended["response_code"]), (&json!("SUCCEEDED"), &json!("0")));
    let causes = server.api.causes(&id).await;
    assert_eq!(causes.iter().filter(|cause| *cause == "reply").count(), 1, "{causes:?}");
    server.stop().await;
}

/// Waits until the server has seen the end of a gateway's connection, and whatever came with it.
async fn until_gone(api: &Api, sn: &str) {
    let gone = async || {
        let more = json!({"timeout_seconds": 1, "if_offline": "fail"});
        let id = api.create(sn, "debug_mode_open", json!({}), more).await.id();
        api.ended(&id).await["failure_code"] == "DEVICE_OFFLINE"
    };
    let wait = async { while !gone().await {} };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{sn} does not go");
}

#[tokio::test]
async fn nobody_gets_in_without_the_right_name_and_password() {
    let (_place, server, _) = neighbourhood().await;
    let mut owner = PretendDock::connect(server.mqtt(), "DOCK-1").await;
    let try_login = async |user: Option<&str>, password: Option<&str>, client_id: &str| {
        let mut config = login(server.mqtt(), user.unwrap_or("x"), password.unwrap_or(""));
        config.client_id = client_id.to_owned();
        config.username = config.username.filter(|_| user.is_some());
        config.password = config.password.filter(|_| password.is_some());
        PretendDock::start(config).await.is_ok()
    };
    for (user, password, client_id) in [
        (Some("DOCK-2"), Some("wrong"), "DOCK-2"),
        (Some("DOCK-2"), Some(""), "DOCK-2"),
        (Some("DOCK-2"), None, "DOCK-2"),
        (Some("DOCK-7"), Some(PASSWORD), "DOCK-7"),
        (Some("dock-2"), Some(PASSWORD), "DOCK-2"),
        (Some("AIR-1"), Some(PASSWORD), "AIR-1"),
        (Some("#"), Some(PASSWORD), "x"),
        (None, None, "x"),
        (None, None, "DOCK-2"),
        // The name of another's session, which would throw it out.
        (Some("DOCK-9"), Some(PASSWORD), "DOCK-1"),
        // And of one that is not there yet.
        (Some("DOCK-9"), Some(PASSWORD), "DOCK-2"),
    ] {
        assert!(!try_login(user, password, client_id).await, "{user:?} as {client_id} got in");
    }
    assert!(try_login(Some("DOCK-9"), Some(PASSWORD), "DOCK-9").await, "the right one does");
    // Thefts in the name of the session that is there have not touched it.
    assert!(owner.drain().await.is_empty());
    let id = server.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    assert_eq!(owner.command().await.tid(), id);
    server.stop().await;
}

const WRONG_PASSWORD: &str = "mqtt-password-that-is-wrong";
const DRC_PASSWORD: &str = "drc-password-nobody-may-read";
const STORAGE_SECRET: &str = "storage-secret-nobody-may-read";

/// A server that has been given every kind of secret, and all it has said since.
struct Confided {
    place: Place,
    process: Process,
    api: Api,
    answers: Vec<Value>,
}

impl Confided {
    async fn start() -> Self {
        let mut place = Place::with_gateways(&["DOCK-1"]).await;
        place.settings = vec!["log.level=trace".to_owned()];
        let process = place.spawn(None).await;
        let api = place.api();
        let broker = (place.address, 1883).into();
        let mut dock = PretendDock::connect(broker, "DOCK-1").await;
        let mut answers = Vec::new();
        for (method, pointer, secret) in [
            ("drc_mode_enter", "/mqtt_broker/password", DRC_PASSWORD),
            ("fileupload_start", "/credentials/access_key_secret", STORAGE_SECRET),
        ] {
            let mut payload = CATALOGUE.method(method).unwrap().example.clone();
            *payload.pointer_mut(pointer).unwrap() = json!(secret);
            let created = api.create("DOCK-1", method, payload.clone(), json!({})).await;
            let id = created.id();
            answers.push(created.body);
            let command = dock.command().await;
            assert_eq!(command.body["data"], payload, "the dock itself gets it whole");
            // A device that repeats what it was sent.
            let reply = json!({"result": 0, "output": {"status": "ok"}, "echo": payload});
            dock.reply(&command, reply).await;
            answers.push(api.ended(&id).await);
            answers.push(api.timeline(&id).await);
            for odd in [json!({"dry_run": true}), json!({"timeout_seconds": 1_000})] {
                answers.push(api.create("DOCK-1", method, payload.clone(), odd).await.body);
            }
        }
        answers.extend(Self::repeated_in_words(&api, &mut dock).await);
        let refused = PretendDock::start(login(broker, "DOCK-1", WRONG_PASSWORD)).await;
        assert!(refused.is_err());
        answers.extend(api.commands().await);
        for target in ["/api/v1/open/unmatched-responses", "/metrics", "/openapi.json"] {
            answers.push(api.get(target).await.body);
        }
        dock.drain().await;
        dock.leave().await;
        Self { place, process, api, answers }
    }

    /// A dock that repeats a secret wherever it has words: in a refusal, in a code, and in the events of a job that fails.
    async fn repeated_in_words(api: &Api, dock: &mut PretendDock) -> Vec<Value> {
        let words = format!("cannot reach {STORAGE_SECRET}");
        let mut payload = CATALOGUE.method("fileupload_start").unwrap().example.clone();
        *payload.pointer_mut("/credentials/access_key_secret").unwrap() = json!(STORAGE_SECRET);
        let mut ids = Vec::new();
        for reply in [
            json!({"result": 514_100, "message": words, "output": {"msg": words}}),
            json!({"result": 1, "code": words, "message": words}),
            json!({"result": 0, "output": {"status": "in_progress"}}),
        ] {
            let created =
                api.create("DOCK-1", "fileupload_start", payload.clone(), json!({})).await;
            ids.push(created.id());
            let command = dock.command().await;
            let is_job = reply["result"] == 0;
            dock.reply(&command, reply).await;
            for status in ["in_progress", "failed"].into_iter().filter(|_| is_job) {
                let progress =
                    json!({"percent": 10, "step_key": words, "current_step": words, "step": words});
                let output = json!({"status": status, "progress": progress, "ext": {"said": words}, "message": words});
                let event = json!({
                    "tid": "t", "bid": command.body["bid"], "timestamp": 1, "gateway": "DOCK-1",
                    "method": "fileupload_progress", "need_reply": 0,
                    "data": {"result": 0, "message": words, "output": output},
                });
                dock.publish("thing/product/DOCK-1/events", &event).await;
            }
        }
        let mut answers = Vec::new();
        for id in ids {
            let ended = api.ended(&id).await;
            assert_ne!(ended["status"], "SUCCEEDED", "{ended:#}");
            answers.push(ended);
            answers.push(api.timeline(&id).await);
        }
        answers
    }

    /// Kills it, so that its files are as they were, and starts another that reads everything back.
    async fn start_again(mut self) -> Self {
        self.process.kill().await;
        self.process = self.place.spawn(None).await;
        for command in self.api.commands().await {
            let id = command["command_id"].as_str().unwrap();
            for target in [format!("{COMMANDS}/{id}"), format!("{COMMANDS}/{id}/timeline")] {
                self.answers.push(self.api.get(&target).await.body);
            }
        }
        self
    }

    fn files_hold(&self, secret: &str) -> bool {
        let files: Vec<_> = std::fs::read_dir(self.place.data_dir()).unwrap().collect();
        assert!(files.len() > 1, "there is a database to look into");
        let read = |entry: std::io::Result<DirEntry>| std::fs::read(entry.unwrap().path()).unwrap();
        files.into_iter().map(read).any(|bytes| contains(&bytes, secret))
    }
}

#[tokio::test]
async fn secrets_stand_in_no_log_and_no_answer() {
    let mut confided = Confided::start().await;
    assert!(confided.process.log().contains("DEBUG"), "the log tells everything");
    for _ in 0..2 {
        let log = confided.process.log();
        let key = confided.place.given.shown.clone();
        for secret in [key.as_str(), PASSWORD, WRONG_PASSWORD, DRC_PASSWORD, STORAGE_SECRET] {
            for answer in &confided.answers {
                assert!(!answer.to_string().contains(secret), "{secret} is shown: {answer:#}");
            }
            let line = log.lines().find(|line| contains(line.as_bytes(), secret));
            assert!(line.is_none(), "{secret} is logged: {line:?}");
        }
        confided = confided.start_again().await;
    }
}

#[tokio::test]
async fn keys_and_passwords_stand_in_no_file() {
    let mut confided = Confided::start().await;
    for _ in 0..2 {
        let key = confided.place.given.shown.clone();
        for secret in [key.as_str(), PASSWORD, WRONG_PASSWORD] {
            assert!(!confided.files_hold(secret), "{secret}");
        }
        assert!(confided.files_hold("DOCK-1"), "the search finds what is there");
        confided = confided.start_again().await;
    }
}

#[tokio::test]
async fn secrets_of_payloads_stand_in_no_file() {
    let mut confided = Confided::start().await;
    for _ in 0..2 {
        for secret in [DRC_PASSWORD, STORAGE_SECRET] {
            assert!(!confided.files_hold(secret), "{secret}");
        }
        confided = confided.start_again().await;
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    // Also as a list of numbers, as bytes are printed by `Debug`.
    let numbers = text.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    [text.as_bytes(), numbers.as_bytes(), hex.as_bytes()]
        .iter()
        .any(|wanted| bytes.windows(wanted.len()).any(|window| window == *wanted))
}
