//! The server behind a broker that is not its own: Mosquitto from Debian, in MQTT 5 and in MQTT 3.1.1.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use utmos_mqtt::ProtocolChoice;

use crate::{
    api::PATIENCE,
    dock::PretendDock,
    place::{Place, Running, fly, own_address},
    truth,
};

/// A broker of its own; killed when dropped.
pub struct Mosquitto {
    child: Child,
    pub address: Ipv4Addr,
    config: PathBuf,
    /// Of a configuration of its own.
    folder: Option<tempfile::TempDir>,
}

impl Mosquitto {
    pub async fn start() -> Self {
        Self::start_with("persistence false").await
    }

    /// One that is told more.
    pub async fn start_with(more: &str) -> Self {
        let (address, folder) = (own_address(), in_memory());
        let keeps = folder.path().display();
        // Started by root it would become another user, who may not write there, and keep nothing.
        let config = format!(
            "user root\nlistener 1883 {address}\nallow_anonymous true\npersistence_location {keeps}/\n{more}\n"
        );
        let file = folder.path().join("mosquitto.conf");
        std::fs::write(&file, config).unwrap();
        let mut started = Self::start_with_file(address, &file).await;
        started.folder = Some(folder);
        started
    }

    /// One with a configuration of somebody else's making, which listens here.
    pub async fn start_with_file(address: Ipv4Addr, file: &Path) -> Self {
        Self { child: Self::run(file).await, address, config: file.to_owned(), folder: None }
    }

    async fn run(config: &Path) -> Child {
        let debian = "/usr/sbin/mosquitto";
        let program = if Path::new(debian).exists() { debian } else { "mosquitto" };
        let mut child = Command::new(program)
            .arg("-c")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("mosquitto is not installed; run: apt-get install -y mosquitto");
        let stderr = child.stderr.take().unwrap();
        let (tell, started) = oneshot::channel();
        std::thread::spawn(move || {
            let mut tell = Some(tell);
            let mut copy = std::env::var_os("DRILL_LOGS").map(|folder| {
                let file = Path::new(&folder).join("mosquitto.log");
                std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap()
            });
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(copy) = &mut copy {
                    writeln!(copy, "{line}").unwrap();
                }
                if line.ends_with("running")
                    && let Some(tell) = tell.take()
                {
                    let _gone = tell.send(());
                }
            }
        });
        tokio::time::timeout(PATIENCE, started).await.unwrap().expect("mosquitto does not start");
        child
    }

    pub fn address(&self) -> SocketAddr {
        (self.address, 1883).into()
    }

    /// `kill -9`, and a new one in its place.
    pub async fn die_and_come_back(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::run(&self.config).await;
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A folder that outlives a process that is killed, and needs no disk: Mosquitto syncs all that it remembers at every change, and
/// does nothing else meanwhile. Behind a disk that others keep busy that was seen to take longer than a command may wait.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Tells a place's servers to work behind this broker.
pub fn behind(place: &mut Place, mosquitto: &Mosquitto, protocol: &str) {
    place.settings = vec![
        "mqtt.mode=external".to_owned(),
        format!("mqtt.external.host={}", mosquitto.address),
        "mqtt.external.port=1883".to_owned(),
        format!("mqtt.external.protocol={protocol}"),
    ];
}

pub fn choice(protocol: &str) -> ProtocolChoice {
    match protocol {
        "5" => ProtocolChoice::V5,
        _ => ProtocolChoice::V311,
    }
}

async fn a_command_lives_its_life(protocol: &str) {
    let mosquitto = Mosquitto::start().await;
    let (mut place, mut config) = Place::with_fleet(2).await;
    behind(&mut place, &mosquitto, protocol);
    config.speed = 20.0;
    let server = place.start().await;
    let fleet = fly(&config, mosquitto.address(), choice(protocol)).await;
    let [dock, other] = config.docks.as_slice() else { panic!() };
    let api = &server.api;
    let mut ended = Vec::new();
    for (sn, method, expected) in [
        (&dock.sn, "cover_open", "FAILED"),
        (&dock.sn, "debug_mode_open", "SUCCEEDED"),
        (&dock.sn, "cover_open", "SUCCEEDED"),
        (&other.aircraft_sn, "flight_authority_grab", "SUCCEEDED"),
    ] {
        let id = api.create(sn, method, json!({}), json!({})).await.id();
        let command = api.ended(&id).await;
        assert_eq!(command["status"], expected, "{method}: {command:#}");
        truth::must_be_true(&command, &fleet);
        let causes = api.causes(&id).await;
        assert!(causes.contains(&"broker_confirmed".to_owned()), "{causes:?}");
        ended.push(id);
    }
    assert!(ended.iter().all(|id| fleet.count(id) == 1));
    let timeline = api.timeline(&ended[1]).await;
    let confirmed = timeline
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["cause"] == "broker_confirmed")
        .unwrap();
    assert!(confirmed.to_string().contains("\"packet_id\":"), "{confirmed:#}");
    assert_eq!(api.figure("uplink_malformed_total").await, 0);
    fleet.shutdown().await;
    server.stop().await;
}

#[tokio::test]
async fn a_command_lives_its_life_in_mqtt_5() {
    a_command_lives_its_life("5").await;
}

#[tokio::test]
async fn a_command_lives_its_life_in_mqtt_3_1_1() {
    a_command_lives_its_life("3.1.1").await;
}

async fn with_ghost(mosquitto: &Mosquitto, protocol: &str) -> (Place, Running) {
    let mut place = Place::with_gateways(&["GHOST"]).await;
    behind(&mut place, mosquitto, protocol);
    let server = place.start().await;
    // A command that is tried before the server's own link is up has another story.
    let api = &server.api;
    loop {
        let id = api.create("GHOST", "debug_mode_open", json!({}), json!({"timeout_seconds": 1}));
        let id = id.await.id();
        let ended = api.ended(&id).await;
        let told = api.timeline(&id).await.to_string();
        if !told.contains("no connection to the broker") {
            return (place, server);
        }
        assert_eq!(ended["failure_code"], "DEVICE_OFFLINE", "{told}");
    }
}

#[tokio::test]
async fn what_nobody_subscribed_to_counts_as_not_sent_in_mqtt_5() {
    let mosquitto = Mosquitto::start().await;
    let (_place, server) = with_ghost(&mosquitto, "5").await;
    let api = &server.api;
    let short = json!({"timeout_seconds": 1});
    let id = api.create("GHOST", "debug_mode_open", json!({}), short).await.id();
    let ended = api.ended(&id).await;
    assert_eq!(
        (&ended["status"], &ended["failure_code"]),
        (&json!("TIMED_OUT"), &json!("DEVICE_OFFLINE")),
        "{ended:#}"
    );
    let told = api.timeline(&id).await.to_string();
    assert!(told.contains("nobody listening"), "{told}");

    let motion = json!({"fly_to_id": "f", "max_speed": 5, "points": [{"latitude": 1.0, "longitude": 2.0, "height": 60.0}]});
    let motion = api.create("GHOST", "fly_to_point", motion, json!({})).await.id();
    assert_eq!(api.ended(&motion).await["failure_code"], "DEVICE_OFFLINE");
    let causes = api.causes(&motion).await;
    assert!(!causes.contains(&"sending_claimed".to_owned()), "{causes:?}");

    // Provably nobody had it, so it may still go out when the gateway shows itself in time.
    let waiting = api.create("GHOST", "debug_mode_open", json!({}), json!({})).await.id();
    api.until(&waiting, |command| command["status_version"].as_u64().unwrap() >= 3).await;
    let mut ghost = PretendDock::connect(mosquitto.address(), "GHOST").await;
    ghost.publish("thing/product/GHOST/osd", &osd()).await;
    let command = ghost.command().await;
    assert_eq!(command.tid(), waiting);
    ghost.reply(&command, json!({"result": 0})).await;
    assert_eq!(api.ended(&waiting).await["status"], "SUCCEEDED");
    assert!(ghost.drain_commands().await.is_empty(), "nothing old came");
    server.stop().await;
}

#[tokio::test]
async fn what_mqtt_3_1_1_cannot_tell_reads_as_unknown() {
    let mosquitto = Mosquitto::start().await;
    let (_place, server) = with_ghost(&mosquitto, "3.1.1").await;
    let api = &server.api;
    let short = json!({"timeout_seconds": 1});
    let id = api.create("GHOST", "debug_mode_open", json!({}), short).await.id();
    let ended = api.ended(&id).await;
    assert_eq!(
        (&ended["status"], &ended["failure_code"]),
        (&json!("TIMED_OUT"), &json!("NO_RESPONSE")),
        "{ended:#}"
    );
    let mut ghost = PretendDock::connect(mosquitto.address(), "GHOST").await;
    assert!(ghost.drain_commands().await.is_empty(), "nothing waits at the broker");
    server.stop().await;
}

fn osd() -> Value {
    json!({"tid": "t", "bid": "b", "timestamp": 1, "gateway": "GHOST", "data": {"mode_code": 0}})
}

const COMMANDS: usize = 60;

async fn the_broker_dies_under_commands(protocol: &str) {
    let mut mosquitto = Mosquitto::start().await;
    let (mut place, config) = Place::with_fleet(2).await;
    behind(&mut place, &mosquitto, protocol);
    let server = place.start().await;
    let fleet = fly(&config, mosquitto.address(), choice(protocol)).await;
    let api = &server.api;
    let mut made = Vec::new();
    for number in 0..COMMANDS {
        let sn = &config.docks[number % 2].sn;
        let more = json!({"timeout_seconds": 5, "if_offline": "wait"});
        made.push(api.create(sn, "debug_mode_open", json!({}), more).await.id());
        if number % 20 == 10 {
            mosquitto.die_and_come_back().await;
        }
    }
    let mut succeeded = 0;
    for id in &made {
        let ended = api.ended(id).await;
        truth::must_be_true(&ended, &fleet);
        succeeded += usize::from(ended["status"] == "SUCCEEDED");
    }
    assert!(succeeded > 0, "some went well, or nothing was proved");
    // And it goes on: the docks are heard again, and what is sent now arrives.
    // MQTT 3.1.1 does not tell that a dock is not back yet, so the first may go into the void.
    for dock in &config.docks {
        let ask = async || {
            let more = json!({"timeout_seconds": 1});
            let id = api.create(&dock.sn, "debug_mode_open", json!({}), more).await.id();
            api.ended(&id).await["status"] == "SUCCEEDED"
        };
        let goes_on = async { while !ask().await {} };
        assert!(tokio::time::timeout(PATIENCE, goes_on).await.is_ok(), "{} is lost", dock.sn);
    }
    for received in fleet.received() {
        assert_eq!(fleet.count(received.tid.as_deref().unwrap()), 1, "{received:?}");
    }
    fleet.shutdown().await;
    server.stop().await;
}

#[tokio::test]
async fn the_broker_dies_under_commands_in_mqtt_5() {
    the_broker_dies_under_commands("5").await;
}

#[tokio::test]
async fn the_broker_dies_under_commands_in_mqtt_3_1_1() {
    the_broker_dies_under_commands("3.1.1").await;
}
