//! What `utmos doctor` says of real Mosquittos: a good one, and ones that are each bad in a way of their own.

use std::{path::PathBuf, time::Duration};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use utmos_mqtt::{ClientConfig, Probe, Qos, Session};

use crate::{
    api::PATIENCE,
    dock::{PretendDock, login},
    mosquitto::Mosquitto,
    place::Place,
};

/// A folder with users of Mosquitto, their rules, and a password file for each.
struct Users(tempfile::TempDir);

impl Users {
    /// `utmos` is the server; `DOCK` is a dock.
    fn new(rules_of_dock: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for user in ["utmos", "DOCK"] {
            std::fs::write(folder.path().join(user), format!("password-of-{user}\n")).unwrap();
            let done = std::process::Command::new("mosquitto_passwd")
                .args(if user == "utmos" { &["-b", "-c"][..] } else { &["-b"] })
                .arg(folder.path().join("passwords"))
                .args([user, &format!("password-of-{user}")])
                .output();
            assert!(done.unwrap().status.success(), "mosquitto_passwd");
        }
        let rules = format!(
            "user utmos\ntopic readwrite thing/#\ntopic readwrite sys/#\nuser DOCK\n{rules_of_dock}\n"
        );
        std::fs::write(folder.path().join("acl"), rules).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn settings(&self) -> String {
        let (passwords, acl) = (self.file("passwords"), self.file("acl"));
        format!(
            "allow_anonymous false\npassword_file {}\nacl_file {}",
            passwords.display(),
            acl.display()
        )
    }
}

/// Exit code, and what it said about the broker.
async fn doctor(mosquitto: &Mosquitto, users: Option<&Users>, more: &[&str]) -> (i32, String) {
    let mut place = Place::new().await;
    place.settings =
        vec!["mqtt.mode=external".to_owned(), format!("mqtt.external.host={}", mosquitto.address)];
    let mut command = place.utmos(&["doctor"]);
    if let Some(users) = users {
        place.settings.push("mqtt.external.username=utmos".to_owned());
        place
            .settings
            .push(format!("mqtt.external.password_file={}", users.file("utmos").display()));
        command.args(["--as-user", "DOCK", "--as-password-file"]).arg(users.file("DOCK"));
    }
    place.settings.extend(more.iter().map(|&setting| setting.to_owned()));
    for assignment in place.assignments() {
        command.args(["--set", &assignment]);
    }
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(!text.contains("password-of-"), "{text}");
    (done.status.code().unwrap(), text)
}

/// Has the broker retain a message. Our own client never would, so in bytes of MQTT 3.1.1.
pub async fn retain(broker: std::net::SocketAddr, topic: &str) {
    let mut stream = tokio::net::TcpStream::connect(broker).await.unwrap();
    stream.write_all(b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01r").await.unwrap();
    let body =
        [&[0, u8::try_from(topic.len()).unwrap()], topic.as_bytes(), &[0, 1], b"{}"].concat();
    stream.write_all(&[0x33, u8::try_from(body.len()).unwrap()]).await.unwrap();
    stream.write_all(&body).await.unwrap();
    // CONNACK and PUBACK.
    stream.read_exact(&mut [0; 8]).await.unwrap();
}

const OWN_TOPICS: &str =
    "topic write thing/product/DOCK/osd\ntopic read thing/product/DOCK/services";

#[tokio::test]
async fn a_broker_with_good_rules_passes() {
    let users = Users::new(OWN_TOPICS);
    let mosquitto = Mosquitto::start_with(&users.settings()).await;
    let (code, text) = doctor(&mosquitto, Some(&users), &[]).await;
    assert_eq!(code, 0, "{text}");
    for expected in [
        "ok   broker         lets in nobody without a login",
        "ok   broker         user DOCK reaches no topic of another device",
        "ok   broker         no commands are retained",
        "ok   broker         takes messages of 1049088 bytes",
        "ok   broker         has shared subscriptions",
        // Mosquitto keeps what it is given for a session that is away, until it expires.
        "their expiry bounds it",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[tokio::test]
async fn who_reaches_another_devices_topics_is_named_with_what_they_can_do() {
    let users = Users::new(
        "topic read thing/product/+/services\ntopic write thing/product/+/services_reply",
    );
    let mosquitto = Mosquitto::start_with(&users.settings()).await;
    let (code, text) = doctor(&mosquitto, Some(&users), &[]).await;
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("FAIL broker         user DOCK can speak for other devices, can read what other devices are told"),
        "{text}"
    );
    assert!(text.contains("utmos broker config mosquitto"), "{text}");
}

#[tokio::test]
async fn an_open_broker_with_retained_commands_and_small_messages_fails() {
    let mosquitto = Mosquitto::start_with("message_size_limit 100000").await;
    retain(mosquitto.address(), "thing/product/D1/services").await;
    let (code, text) = doctor(&mosquitto, None, &[]).await;
    assert_eq!(code, 1, "{text}");
    for expected in [
        "FAIL broker         retained commands wait for whoever subscribes: 1 topics, such as thing/product/D1/services",
        "FAIL broker         anybody, without a login, can command other devices, can speak",
        "warn broker         takes no message of 1049088 bytes",
        "message_size_limit",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    // It looked, and changed nothing: the message is still there, and nobody else's session.
    let config = ClientConfig::new(mosquitto.address.to_string(), 1883, "afterwards");
    let mut probe = Probe::connect(&config, Session::Clean).await.unwrap();
    assert!(probe.subscribe("thing/product/+/services", Qos::AtLeastOnce).await.unwrap());
    assert!(probe.heard(Duration::ZERO).await.unwrap().iter().all(|message| message.retained));
}

#[tokio::test]
async fn what_mqtt_3_1_1_makes_of_kept_commands_is_a_failure_that_qos_0_heals() {
    let mosquitto = Mosquitto::start().await;
    let (code, text) = doctor(&mosquitto, None, &["mqtt.external.protocol=3.1.1"]).await;
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("MQTT 3.1.1 has no expiry") && text.contains("mqtt.external.command_qos = 0"),
        "{text}"
    );
    let qos_0 = ["mqtt.external.protocol=3.1.1", "mqtt.external.command_qos=0"];
    let (_, text) = doctor(&mosquitto, None, &qos_0).await;
    assert!(
        text.contains("ok   broker         keeps no commands for devices that are absent"),
        "{text}"
    );
}

/// It lets the server in, and commands go out; that some will not do as they should is said before they are sent.
#[tokio::test]
async fn what_a_broker_lacks_is_named_at_the_start_and_by_readyz() {
    for (broker, protocol, words) in [
        ("max_packet_size 20000", "auto", &["packets of 20000 bytes", "http.body_bytes_max"][..]),
        ("max_qos 0", "auto", &["with a lower QoS than 1", "mqtt.external.command_qos = 0"]),
        ("persistence false", "3.1.1", &["MQTT 3.1.1", "mqtt.external.protocol"]),
        ("persistence false", "auto", &[]),
    ] {
        let mosquitto = Mosquitto::start_with(broker).await;
        let mut place = Place::with_gateways(&["DOCK"]).await;
        crate::mosquitto::behind(&mut place, &mosquitto, protocol);
        let process = place.spawn(None).await;
        let api = place.api();
        let ready = async {
            loop {
                let answer = api.get("/readyz").await;
                if answer.status.is_success() {
                    return answer.body["warnings"].to_string();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let warnings = tokio::time::timeout(PATIENCE, ready).await.expect("it is not ready");
        let log = process.stop().await;
        for word in words {
            assert!(warnings.contains(word), "{broker}: {word}: {warnings}");
            assert!(log.contains(word), "{broker}: {word}: {log}");
        }
        assert_eq!(warnings == "null", words.is_empty(), "{warnings}");
    }
}

#[tokio::test]
async fn a_login_that_is_refused_is_told_by_readyz_and_what_can_wait_is_taken() {
    let users = Users::new(OWN_TOPICS);
    let mosquitto = Mosquitto::start_with(&users.settings()).await;
    let mut place = Place::with_gateways(&["DOCK"]).await;
    place.settings = vec![
        "mqtt.mode=external".to_owned(),
        format!("mqtt.external.host={}", mosquitto.address),
        "mqtt.external.username=utmos".to_owned(),
        format!("mqtt.external.password_file={}", users.file("DOCK").display()),
    ];
    let server = place.start().await;
    let api = &server.api;
    let ready = async |is_ready: bool| {
        let turned = async {
            loop {
                let answer = api.get("/readyz").await;
                let said = answer.body["message"].to_string();
                if answer.status.is_success() == is_ready
                    && (is_ready || said.contains("NotAuthorized"))
                {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE * 2, turned).await.expect("readyz does not say it")
    };
    let answer = ready(false).await;
    assert_eq!(answer.code(), "OVERLOADED");
    let said = answer.body["message"].to_string();
    assert!(said.contains("user `utmos`: check username and its password"), "{said}");
    // What can wait is taken.
    let waiting = api
        .create("DOCK", "debug_mode_open", json!({}), json!({"timeout_seconds": 120}))
        .await
        .id();
    // The password is put right at the broker; the server comes in by itself, and sends what has waited.
    let set = std::process::Command::new("mosquitto_passwd")
        .arg("-b")
        .arg(users.file("passwords"))
        .args(["utmos", "password-of-DOCK"])
        .status();
    assert!(set.unwrap().success());
    mosquitto.signal(rustix::process::Signal::HUP);
    let _ready = ready(true).await;
    let mut config = login(mosquitto.address(), "DOCK", "password-of-DOCK");
    config.subscriptions = vec![("thing/product/DOCK/services".to_owned(), Qos::AtLeastOnce)];
    let mut dock = PretendDock::start(config).await.unwrap();
    let osd = json!({"tid": "t", "bid": "b", "timestamp": 1, "gateway": "DOCK", "data": {"mode_code": 0}});
    dock.publish("thing/product/DOCK/osd", &osd).await;
    assert_eq!(dock.command().await.tid(), waiting, "nothing was lost");
    server.stop().await;
}
