//! The server behind NATS with MQTT (3.1.1 only), set up as docs/outside-broker.md says: commands leave with QoS 0, since NATS keeps
//! and repeats what has QoS 1.

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use utmos_mqtt::{Acknowledge, Client, Inbound, Publish, Qos};
use utmos_sim::FleetConfig;

use crate::{
    api::PATIENCE,
    dock::login,
    outside::{
        Behind, a_fleet_flies, an_absent_dock_gets_nothing_late, behind, doctor, is_ready,
        it_goes_on, with_ghost,
    },
    place::{PASSWORD, Place, own_address},
};

/// A broker of its own; killed when dropped.
pub struct Nats {
    child: Child,
    address: Ipv4Addr,
    folder: tempfile::TempDir,
}

impl Nats {
    /// `users` in NATS's own words, and more for the section `mqtt`.
    pub async fn start(users: &str, mqtt: &str) -> Self {
        let (address, folder) = (own_address(), tempfile::tempdir().unwrap());
        let config = format!(
            "listen: \"{address}:4222\"\nserver_name: utmos\njetstream {{ store_dir: {:?} }}\n\
             mqtt {{ listen: \"{address}:1883\"\n{mqtt} }}\nauthorization {{ users: [\n{users}\n] }}\n",
            folder.path().join("data").display().to_string()
        );
        std::fs::write(folder.path().join("nats.conf"), config).unwrap();
        let child = Self::run(folder.path()).await;
        Self { child, address, folder }
    }

    async fn run(folder: &Path) -> Child {
        let debian = "/usr/sbin/nats-server";
        let program = if Path::new(debian).exists() { debian } else { "nats-server" };
        let mut child = Command::new(program)
            .arg("-c")
            .arg(folder.join("nats.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("NATS is not installed; run: apt-get install -y nats-server");
        let stderr = child.stderr.take().unwrap();
        let (tell, started) = oneshot::channel();
        std::thread::spawn(move || {
            let mut tell = Some(tell);
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.ends_with("Server is ready")
                    && let Some(tell) = tell.take()
                {
                    let _gone = tell.send(());
                }
            }
        });
        tokio::time::timeout(PATIENCE, started).await.unwrap().expect("nats-server does not start");
        child
    }

    pub async fn die_and_come_back(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::run(self.folder.path()).await;
    }
}

impl Behind for Nats {
    fn address(&self) -> SocketAddr {
        (self.address, 1883).into()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A user with the topics of a gateway and its aircraft, as subjects.
fn own(sn: &str, password: &str, aircraft: &str) -> String {
    let subjects = |sn: &str, ends: &[&str]| -> Vec<String> {
        ends.iter().map(|end| format!("\"thing.product.{sn}.{end}\"")).collect()
    };
    let mut write = subjects(
        sn,
        &[
            "status",
            "services_reply",
            "property.set_reply",
            "requests",
            "events",
            "state",
            "osd",
            "drc.up",
        ],
    );
    write.extend(subjects(aircraft, &["osd", "state", "events"]));
    write.push(format!("\"sys.product.{sn}.status\""));
    let mut read = subjects(
        sn,
        &[
            "status_reply",
            "services",
            "property.set",
            "requests_reply",
            "events_reply",
            "state_reply",
            "drc.down",
        ],
    );
    read.extend(subjects(aircraft, &["events_reply", "state_reply"]));
    read.push(format!("\"sys.product.{sn}.status_reply\""));
    // Where NATS sends what a subscription with QoS 1 gets.
    read.push("\"$MQTT.sub.>\"".to_owned());
    format!(
        "{{user: {sn:?}, password: {password:?}, permissions: {{publish: [{}], subscribe: [{}]}}}}",
        write.join(", "),
        read.join(", ")
    )
}

const SERVER: &str = "{user: utmos, password: of-server, permissions: {publish: [\"thing.product.>\", \"sys.product.>\"], subscribe: [\"thing.product.>\", \"sys.product.>\", \"$MQTT.sub.>\"]}}";

/// The server as `utmos`, with the password `of-server`, and each dock.
pub fn users_of(config: &FleetConfig) -> Vec<String> {
    let docks = config.docks.iter().map(|dock| own(&dock.sn, &dock.password, &dock.aircraft_sn));
    std::iter::once(SERVER.to_owned()).chain(docks).collect()
}

/// A dock that tests play themselves.
pub fn ghost() -> String {
    own("GHOST", PASSWORD, "GHOSTAIR")
}

#[tokio::test]
async fn behind_nats_commands_live_their_lives_and_none_comes_late() {
    let (mut place, config) = Place::with_fleet(2).await;
    with_ghost(&place).await;
    let mut users = users_of(&config);
    users.push(ghost());
    let mut nats = Nats::start(&users.join("\n"), "").await;

    // With QoS 1 it would keep them.
    behind(&mut place, &nats, &[("username", "utmos")], "of-server");
    let (code, said) = doctor(&place, None).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("mqtt.external.command_qos = 0"), "{said}");

    behind(&mut place, &nats, &[("username", "utmos"), ("command_qos", "0")], "of-server");
    let (code, said) = doctor(&place, Some(("GHOST", PASSWORD))).await;
    assert_eq!(code, 0, "{said}");
    for expected in [
        "speaks MQTT 3.1.1",
        "ok   broker         keeps no commands for devices that are absent",
        "ok   broker         user GHOST reaches no topic of another device",
        "ok   broker         lets in nobody without a login",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    let server = place.start().await;
    crate::outside::lacks_mqtt_5(&server).await;
    let fleet = a_fleet_flies(&server, &config, &nats).await;
    // Nobody confirms QoS 0, so that it may have been sent is all that is known.
    an_absent_dock_gets_nothing_late(&server, &nats, "DISPATCH_UNCERTAIN").await;
    nats.die_and_come_back().await;
    it_goes_on(&server, &config, &fleet).await;
    fleet.shutdown().await;
    server.stop().await;
}

/// NATS sends QoS 1 again to a client that is connected and has not acknowledged it; QoS 0 never.
#[tokio::test]
async fn a_dock_that_acknowledges_nothing_gets_a_command_once() {
    let mut place = Place::with_gateways(&["SLOW"]).await;
    let users = [SERVER.to_owned(), own("SLOW", PASSWORD, "SLOWAIR")].join("\n");
    let nats = Nats::start(&users, "ack_wait: \"1s\"").await;
    behind(&mut place, &nats, &[("username", "utmos"), ("command_qos", "0")], "of-server");
    let server = place.start().await;
    is_ready(&server).await;
    let mut config = login(nats.address(), "SLOW", PASSWORD);
    config.acknowledge = Acknowledge::ByReceiver;
    config.subscriptions = ["services", "events_reply"]
        .map(|end| (format!("thing/product/SLOW/{end}"), Qos::AtLeastOnce))
        .to_vec();
    let (sender, mut inbound) = mpsc::channel(64);
    let client = Client::start(config, sender);
    let first = tokio::time::timeout(PATIENCE, inbound.recv()).await.unwrap();
    assert!(matches!(first, Some(Inbound::LinkUp { .. })), "{first:?}");
    let id = server.api.create("SLOW", "debug_mode_open", json!({}), json!({})).await.id();
    let event = json!({"tid": "e", "bid": "e", "timestamp": 1, "gateway": "SLOW", "need_reply": 1, "method": "hms", "data": {"list": []}});
    let event = Publish::new("thing/product/SLOW/events", event.to_string());
    let _told = client.outlet().publish(event).await;
    let (mut commands, mut answers) = (0, 0);
    let told = async {
        // The answer leaves with QoS 1: once it comes a third time, the command would have come again as well.
        while answers < 3 || commands == 0 {
            let Some(Inbound::Message { topic, payload, .. }) = inbound.recv().await else {
                panic!("cut off")
            };
            if topic.ends_with("/services") {
                assert!(String::from_utf8_lossy(&payload).contains(&id));
                commands += 1;
            } else {
                answers += 1;
            }
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("NATS repeats what is not acknowledged");
    assert_eq!(commands, 1);
    server.stop().await;
}

/// A server whose user may not subscribe starts, says what is wrong, and takes what can wait.
#[tokio::test]
async fn a_refused_subscription_is_told_by_readyz_and_doctor() {
    let users = "{user: utmos, password: of-server, permissions: {publish: [\"thing.product.>\"], subscribe: [\"sys.product.>\", \"$MQTT.sub.>\"]}}";
    let nats = Nats::start(users, "").await;
    let mut place = Place::with_gateways(&["GHOST"]).await;
    behind(&mut place, &nats, &[("username", "utmos")], "of-server");
    let server = place.start().await;
    let not_ready = async {
        loop {
            let answer = server.api.get("/readyz").await;
            if answer.status == 503 && answer.body.to_string().contains("thing/product/+/status") {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let answer = tokio::time::timeout(PATIENCE, not_ready).await.expect("readyz does not say it");
    assert_eq!(answer.code(), "OVERLOADED");
    let said = answer.body["message"].to_string();
    assert!(said.contains("must let user `utmos` subscribe"), "{said}");
    let short = json!({"timeout_seconds": 1});
    let id = server.api.create("GHOST", "debug_mode_open", json!({}), short).await.id();
    assert_eq!(server.api.ended(&id).await["failure_code"], "DEVICE_OFFLINE");
    let (code, said) = doctor(&place, None).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("refused the subscription to thing/product/+/status"), "{said}");
    assert!(said.contains("give the server's user the topics"), "{said}");
    server.stop().await;
}
