//! The server behind RabbitMQ with its MQTT plugin (3.1.1 only), set up as docs/outside-broker.md says: sessions end with their
//! connection, and each user has topics of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use utmos_sim::FleetConfig;

use crate::{
    outside::{Behind, a_fleet_flies, an_absent_dock_gets_nothing_late, doctor, it_goes_on},
    place::own_address,
};

const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// A node of its own with a port mapper of its own; both are gone when it is dropped.
pub struct RabbitMq {
    address: Ipv4Addr,
    folder: tempfile::TempDir,
    ports: [u16; 2],
    mapper: Child,
    script: Child,
}

/// A user, its password, and which topics it may write and read: patterns over topics with dots.
pub type User<'a> = (&'a str, &'a str, String, String);

/// A free port that stays so until a slow program takes it: none of those that outgoing connections are given, nor of those that
/// another test of this process was given just before.
fn lasting_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 1_000).unwrap() * 12;
    (0..12)
        .map(|_| first + NEXT.fetch_add(1, Ordering::Relaxed) % 12)
        .find(|port| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port")
}

impl RabbitMq {
    pub async fn start(users: &[User<'_>]) -> Self {
        let (address, folder) = (own_address(), tempfile::tempdir().unwrap());
        let ports = [lasting_port(), lasting_port()];
        let path = |name: &str| folder.path().join(name);
        let config = format!(
            "listeners.tcp = none\nmqtt.listeners.tcp.1 = {address}:1883\nmqtt.allow_anonymous = false\nmqtt.subscription_ttl = 1\n\
             load_definitions = {}\n",
            path("definitions.json").display()
        );
        std::fs::write(path("rabbitmq.conf"), config).unwrap();
        std::fs::write(path("enabled_plugins"), "[rabbitmq_mqtt].").unwrap();
        std::fs::write(path("definitions.json"), definitions(users).to_string()).unwrap();
        let mapper = Command::new("epmd")
            .args(["-port", &ports[0].to_string(), "-address", "127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("RabbitMQ is not installed; run: apt-get install -y rabbitmq-server");
        let script = Self::run(&folder, ports);
        let mut broker = Self { address, folder, ports, mapper, script };
        broker.answers().await;
        broker
    }

    fn run(folder: &tempfile::TempDir, ports: [u16; 2]) -> Child {
        let path = |name: &str| folder.path().join(name);
        let log = std::fs::File::create(path("out")).unwrap();
        Command::new(PROGRAM)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", folder.path())
            .env("RABBITMQ_NODENAME", format!("utmos-{}@localhost", ports[1]))
            .env("RABBITMQ_MNESIA_BASE", path("mnesia"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_PID_FILE", path("pid"))
            .env("RABBITMQ_DIST_PORT", ports[1].to_string())
            .env("ERL_CRASH_DUMP", path("crash"))
            .env("ERL_EPMD_PORT", ports[0].to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2 +sbwt none")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("RabbitMQ is not installed; run: apt-get install -y rabbitmq-server")
    }

    async fn answers(&mut self) {
        let listens = async {
            while tokio::net::TcpStream::connect(self.address()).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        };
        // A machine that is busy takes its time for it.
        let by = std::time::Duration::from_secs(120);
        if tokio::time::timeout(by, listens).await.is_err() {
            panic!(
                "RabbitMQ does not start: {}",
                std::fs::read_to_string(self.folder.path().join("out")).unwrap()
            );
        }
    }

    /// `kill -9`, and a new one in its place with the same data.
    pub async fn die_and_come_back(&mut self) {
        self.kill();
        self.script = Self::run(&self.folder, self.ports);
        self.answers().await;
    }

    /// The node itself, by the number it wrote down, and the script that started it.
    fn kill(&mut self) {
        let file = self.folder.path().join("pid");
        let node = std::fs::read_to_string(&file)
            .unwrap_or_default()
            .trim()
            .parse()
            .ok()
            .and_then(Pid::from_raw);
        if let Some(node) = node {
            let _gone = kill_process(node, Signal::KILL);
        }
        let _gone = self.script.kill();
        let _gone = self.script.wait();
        let _gone = std::fs::remove_file(file);
    }
}

impl Behind for RabbitMq {
    fn address(&self) -> SocketAddr {
        (self.address, 1883).into()
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.kill();
        let _gone = self.mapper.kill();
        let _gone = self.mapper.wait();
    }
}

fn definitions(users: &[User<'_>]) -> Value {
    let queues = "^mqtt-subscription-.*$";
    let all = "^(mqtt-subscription-.*|amq\\.topic)$";
    json!({
        "vhosts": [{"name": "/"}],
        "users": users.iter().map(|(user, password, _, _)| json!({"name": user, "password": password, "tags": []})).collect::<Vec<_>>(),
        "permissions": users.iter().map(|(user, ..)| json!({
            "user": user, "vhost": "/", "configure": queues, "write": all, "read": all,
        })).collect::<Vec<_>>(),
        "topic_permissions": users.iter().map(|(user, _, write, read)| json!({
            "user": user, "vhost": "/", "exchange": "amq.topic", "write": write, "read": read,
        })).collect::<Vec<_>>(),
    })
}

/// What a gateway with its aircraft may write, and what it may read.
fn own(sn: &str, aircraft: &str) -> (String, String) {
    let (write, read) = (
        "status|services_reply|property\\.set_reply|requests|events|state|osd|drc\\.up",
        "status_reply|services|property\\.set|requests_reply|events_reply|state_reply|drc\\.down",
    );
    (
        format!(
            "^((thing|sys)\\.product\\.{sn}\\.({write})|thing\\.product\\.{aircraft}\\.(osd|state|events))$"
        ),
        format!(
            "^((thing|sys)\\.product\\.{sn}\\.({read})|thing\\.product\\.{aircraft}\\.(events_reply|state_reply))$"
        ),
    )
}

/// The server as `utmos`, with the password `of-server`, and each dock.
pub fn users_of(config: &FleetConfig) -> Vec<User<'_>> {
    let all = "^(thing|sys)\\.product\\..*$";
    let mut users = vec![("utmos", "of-server", all.to_owned(), all.to_owned())];
    for dock in &config.docks {
        let (write, read) = own(&dock.sn, &dock.aircraft_sn);
        users.push((&dock.sn, &dock.password, write, read));
    }
    users
}

/// A dock that tests play themselves.
pub fn ghost() -> User<'static> {
    let (write, read) = own("GHOST", "GHOSTAIR");
    ("GHOST", crate::place::PASSWORD, write, read)
}

/// One broker for all of it: it takes long to start.
#[tokio::test]
async fn behind_rabbitmq_commands_live_their_lives_and_none_comes_late() {
    let (mut place, config) = crate::place::Place::with_fleet(2).await;
    crate::outside::with_ghost(&place).await;
    let mut users = users_of(&config);
    users.push(ghost());
    let nothing = "^nothing$".to_owned();
    users.push(("blind", "of-blind", nothing.clone(), nothing));
    let mut rabbit = RabbitMq::start(&users).await;
    // It cuts off who may not subscribe.
    crate::outside::behind(&mut place, &rabbit, &[("username", "blind")], "of-blind");
    let server = place.start().await;
    crate::process::until("readyz does not say it", async || {
        let answer = server.api.get("/readyz").await;
        let said = answer.body["message"].to_string();
        answer.status == 503
            && said.contains("at SUBSCRIBE")
            && said.contains("must let user `blind` subscribe")
    })
    .await;
    server.stop().await;
    crate::outside::behind(&mut place, &rabbit, &[("username", "utmos")], "of-server");

    let (code, said) = doctor(&place, Some(("GHOST", crate::place::PASSWORD))).await;
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
    let fleet = a_fleet_flies(&server, &config, &rabbit).await;
    an_absent_dock_gets_nothing_late(&server, &rabbit, "NO_RESPONSE").await;
    rabbit.die_and_come_back().await;
    it_goes_on(&server, &config, &fleet).await;
    fleet.shutdown().await;
    server.stop().await;
}
