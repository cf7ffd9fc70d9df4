//! Docks over real MQTT, with the broker the platform has and a cloud of a few lines.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use utmos_core::time::Timestamp;
use utmos_dji::{
    answer::{self, Binding, BindingOutcome, CloudConfig, Facts, Organization, Question},
    topic::{SERVER_FILTERS, UplinkTopic},
    uplink::{self, NoMeanings, Uplink},
};
use utmos_mqtt::{
    Broker, BrokerConfig, Client, ClientConfig, Doorkeeper, Inbound, Outlet, ProtocolChoice,
    Publish, Qos, Sent,
};
use utmos_sim::{
    Binding as Code, BrokerAddress, Fleet, FleetConfig, Kind, Outcome, Passed, ReplyTiming, Way,
    Wire,
    fault::{Fault, FaultFlag},
    oracle::{self, Entry},
};

pub const LONG: Duration = Duration::from_secs(20);

struct OwnTopics(Vec<(String, String)>);

impl Doorkeeper for OwnTopics {
    fn authenticate(
        &self,
        client_id: &str,
        user: Option<&str>,
        password: Option<&[u8]>,
        _: Option<SocketAddr>,
    ) -> utmos_mqtt::Entry {
        let is_known = self.0.iter().any(|(name, secret)| {
            user == Some(name) && client_id == name && password == Some(secret.as_bytes())
        });
        is_known.into()
    }

    fn may_publish(&self, user: &str, topic: &str) -> bool {
        let aircraft = user.replace("DOCK", "M3D");
        topic.contains(user) || topic.contains(&aircraft)
    }

    fn may_subscribe(&self, user: &str, filter: &str) -> bool {
        filter.contains(user)
    }
}

/// A cloud: acknowledges, answers requests, and keeps what it heard.
pub struct Cloud {
    outlet: Arc<dyn Outlet>,
    heard: Arc<Mutex<Vec<(String, Value)>>>,
    count: watch::Receiver<usize>,
}

impl Cloud {
    fn new(outlet: Arc<dyn Outlet>, inbound: mpsc::Receiver<Inbound>) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (counter, count) = watch::channel(0);
        tokio::spawn(listen_and_answer(inbound, Arc::clone(&outlet), Arc::clone(&heard), counter));
        Self { outlet, heard, count }
    }

    /// With the platform's own broker.
    pub async fn start(config: &FleetConfig, listen: SocketAddr) -> (Broker, Self) {
        let users = config
            .docks
            .iter()
            .map(|dock| (dock.username.clone(), dock.password.clone()))
            .collect();
        let (sender, inbound) = mpsc::channel(64);
        let broker = Broker::start(BrokerConfig::new(listen), Arc::new(OwnTopics(users)), sender)
            .await
            .unwrap();
        let cloud = Self::new(broker.outlet(), inbound);
        (broker, cloud)
    }

    pub fn here() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
    }

    pub async fn wait_for(&self, what: &str, is_it: impl Fn(&str, &Value) -> bool) -> Value {
        let mut count = self.count.clone();
        let find = || {
            let heard = self.heard.lock().unwrap();
            heard.iter().find(|(topic, json)| is_it(topic, json)).map(|(_, json)| json.clone())
        };
        let found = timeout(LONG, async {
            loop {
                if let Some(found) = find() {
                    return found;
                }
                count.changed().await.unwrap();
            }
        });
        found.await.unwrap_or_else(|_| panic!("no {what}"))
    }

    /// How much it has heard so far.
    pub fn count(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    /// Waits for so many such messages after those.
    pub async fn wait_for_after(
        &self,
        mark: usize,
        what: &str,
        wanted: usize,
        is_it: impl Fn(&str, &Value) -> bool,
    ) {
        let mut count = self.count.clone();
        let heard = || {
            let heard = self.heard.lock().unwrap();
            heard.iter().skip(mark).filter(|(topic, json)| is_it(topic, json)).count()
        };
        let enough = timeout(LONG, async {
            while heard() < wanted {
                count.changed().await.unwrap();
            }
        });
        enough.await.unwrap_or_else(|_| panic!("no {what}: {} of {wanted}", heard()));
    }

    pub async fn services(&self, sn: &str, tid: &str, method: &str, data: Value) -> Value {
        let message =
            json!({"tid": tid, "bid": "b", "timestamp": 1, "method": method, "data": data});
        let topic = format!("thing/product/{sn}/services");
        let sent = self.outlet.publish(Publish::new(topic, message.to_string())).await;
        assert!(matches!(sent, Sent::Confirmed { .. }), "{sent:?}");
        self.wait_for("reply", |topic, json| {
            topic == format!("thing/product/{sn}/services_reply") && json["tid"] == json!(tid)
        })
        .await
    }
}

fn facts() -> Facts {
    let organization = Organization { id: "org-1".into(), name: "Org".into() };
    Facts {
        config: Some(CloudConfig {
            ntp_server_host: "ntp.example.com".into(),
            ntp_server_port: 123,
            app_id: "1".into(),
            app_key: "k".into(),
            app_license: "l".into(),
        }),
        organization: Some(organization),
        ..Facts::default()
    }
}

async fn listen_and_answer(
    mut inbound: mpsc::Receiver<Inbound>,
    outlet: Arc<dyn Outlet>,
    heard: Arc<Mutex<Vec<(String, Value)>>>,
    counter: watch::Sender<usize>,
) {
    let mut bound = BTreeMap::new();
    while let Some(message) = inbound.recv().await {
        let Inbound::Message { topic, payload, .. } = message else {
            counter.send_modify(|_| {});
            continue;
        };
        let parsed = UplinkTopic::parse(&topic).unwrap();
        let uplink = uplink::read(&parsed, &payload, &NoMeanings).unwrap();
        let at = Timestamp::from_millis(1_780_000_000_000);
        let outgoing = if let Uplink::Request(request) = &uplink {
            let mut facts = facts();
            facts.bindings.clone_from(&bound);
            let question = Question::of(request);
            if let Question::Bind { devices } = &question {
                for device in devices {
                    facts.outcomes.insert(device.sn.clone(), BindingOutcome::Bound);
                    let organization = facts.organization.clone().unwrap();
                    let binding = Binding { organization, callsign: device.callsign.clone() };
                    bound.insert(device.sn.clone(), binding);
                }
            }
            let automatic = answer::automatic(&question, &facts).unwrap();
            Some(answer::request_reply(request, &automatic.data, at))
        } else {
            answer::acknowledge(&uplink, at)
        };
        let json = serde_json::from_slice(&payload).unwrap();
        heard.lock().unwrap().push((topic.to_string(), json));
        counter.send_modify(|count| *count += 1);
        if let Some(outgoing) = outgoing {
            let outlet = Arc::clone(&outlet);
            let publish = Publish::new(outgoing.topic.to_string(), outgoing.payload);
            tokio::spawn(async move { outlet.publish(publish).await });
        }
    }
}

pub fn fleet_config(docks: u32) -> FleetConfig {
    FleetConfig {
        speed: 50.0,
        reply: ReplyTiming::AtOnce,
        ..FleetConfig::new(BrokerAddress::new("127.0.0.1", 0), docks, 3)
    }
}

async fn outcome(fleet: &Fleet, tid: &str) -> Outcome {
    let mut changes = fleet.changes();
    let ended = async {
        loop {
            match fleet.outcome(tid) {
                Some(Outcome::Running) | None => changes.changed().await.unwrap(),
                Some(outcome) => return outcome,
            }
        }
    };
    timeout(LONG, ended).await.expect("an end")
}

#[tokio::test]
async fn docks_come_up_are_bound_do_a_job_and_everything_is_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("oracle.jsonl");
    let (events, mut happenings) = mpsc::channel(1_000);
    let mut config = fleet_config(3);
    for dock in &mut config.docks {
        dock.binding = Some(Code { organization_id: "org-1".into(), code: "code".into() });
    }
    config.oracle_log = Some(log.clone());
    config.on_event = Some(events);
    let (broker, cloud) = Cloud::start(&config, Cloud::here()).await;
    config.broker.port = broker.local_addr().port();
    let fleet = Fleet::start(config).unwrap();
    timeout(LONG, fleet.ready()).await.expect("all docks are up");

    let sn = "SIM-DOCK-0002";
    cloud
        .wait_for("binding", |topic, json| {
            topic.contains(sn) && json["method"] == json!("airport_organization_bind")
        })
        .await;
    for end in ["SIM-DOCK-0002/osd", "SIM-M3D-0002/osd", "SIM-DOCK-0002/state"] {
        cloud.wait_for(end, |topic, _| topic.ends_with(end)).await;
    }

    let refused = cloud.services(sn, "t-1", "cover_open", json!({})).await;
    assert_eq!(refused["data"]["result"], json!(514_153));
    cloud.services(sn, "t-2", "debug_mode_open", json!({})).await;
    let started = cloud.services(sn, "t-3", "cover_open", json!({})).await;
    assert_eq!(started["data"]["output"]["status"], json!("in_progress"));
    cloud.services("SIM-DOCK-0001", "t-3", "cover_open", json!({})).await;
    assert_eq!(fleet.count("t-3"), 2);
    assert_eq!(fleet.count("never"), 0);
    cloud
        .wait_for("end of the job", |topic, json| {
            topic.ends_with("/events") && json["data"]["output"]["status"] == json!("ok")
        })
        .await;
    let mut changes = fleet.changes();
    let ended = timeout(LONG, async {
        while fleet.outcomes("t-3").contains(&Outcome::Running) {
            changes.changed().await.unwrap();
        }
    });
    ended.await.expect("the job ends");
    assert_eq!(fleet.outcomes("t-3"), [Outcome::Succeeded, Outcome::Refused(514_153)]);
    assert_eq!(outcome(&fleet, "t-1").await, Outcome::Refused(514_153));

    let methods: Vec<String> =
        fleet.received().iter().map(|received| received.method.to_string()).collect();
    assert_eq!(methods, ["cover_open", "debug_mode_open", "cover_open", "cover_open"]);
    let lines = oracle::read(&log).unwrap();
    let received = lines.iter().filter(|line| matches!(line.entry, Entry::Received { .. })).count();
    assert_eq!((received, lines.len()), (4, 5));

    fleet.shutdown().await;
    let mut told = Vec::new();
    while let Some(happening) = happenings.recv().await {
        told.push(happening);
    }
    assert!(told.iter().any(|happening| happening.to_string() == "SIM-DOCK-0002 ← cover_open"));
    assert!(told.iter().any(|happening| matches!(happening.kind, Kind::Announced { .. })));
    broker.shutdown().await;
}

#[tokio::test]
async fn a_dock_comes_back_when_its_broker_does() {
    let mut config = FleetConfig { quiet: true, ..fleet_config(1) };
    config.broker.reconnect_wait_min = Duration::from_millis(10);
    config.broker.reconnect_wait_max = Duration::from_millis(50);
    let (broker, cloud) = Cloud::start(&config, Cloud::here()).await;
    let address = broker.local_addr();
    config.broker.port = address.port();
    let (observer, mut wire) = mpsc::unbounded_channel();
    let fleet = Fleet::start(FleetConfig { on_wire: Some(observer), ..config.clone() }).unwrap();
    timeout(LONG, fleet.ready()).await.expect("up");
    cloud.services("SIM-DOCK-0001", "before", "debug_mode_open", json!({})).await;
    broker.shutdown().await;

    let (broker, cloud) = Cloud::start(&config, address).await;
    cloud.wait_for("update_topo", |topic, _| topic.ends_with("/status")).await;
    cloud.services("SIM-DOCK-0001", "after", "debug_mode_close", json!({})).await;
    assert_eq!(fleet.outcome("before"), Some(Outcome::Done));
    assert_eq!(fleet.outcome("after"), Some(Outcome::Done));
    fleet.shutdown().await;
    broker.shutdown().await;
    let mut links = Vec::new();
    while let Ok(seen) = wire.try_recv() {
        links.extend(match seen {
            Wire::Linked { sn, at } => Some((at, sn, true)),
            Wire::Cut { sn, at } => Some((at, sn, false)),
            Wire::Passed(_) => None,
        });
    }
    assert!(links.is_sorted_by_key(|(at, ..)| at), "{links:?}");
    links.retain(|(_, sn, _)| &**sn == "SIM-DOCK-0001");
    // Each reason for which it cannot connect is told of.
    links.dedup_by_key(|(_, _, is_up)| *is_up);
    let ups: Vec<bool> = links.into_iter().map(|(_, _, is_up)| is_up).collect();
    assert_eq!(ups, [true, false, true]);
}

#[tokio::test]
async fn a_fleet_tells_which_fault_a_command_met_and_what_went_over_the_wire() {
    let mut config = FleetConfig { quiet: true, ..fleet_config(1) };
    config.faults.put_first(["nth=2,kind=wrong_method".parse::<FaultFlag>().unwrap()]);
    let (observer, mut wire) = mpsc::unbounded_channel();
    config.on_wire = Some(observer);
    let (broker, cloud) = Cloud::start(&config, Cloud::here()).await;
    config.broker.port = broker.local_addr().port();
    let fleet = Fleet::start(config).unwrap();
    timeout(LONG, fleet.ready()).await.expect("up");
    for tid in ["t-1", "t-2"] {
        cloud.services("SIM-DOCK-0001", tid, "debug_mode_open", json!({})).await;
    }
    assert_eq!(fleet.fault("t-1"), None);
    assert_eq!(fleet.fault("t-2"), Some(Fault::WrongMethod));
    let (mut down, mut up) = (Vec::new(), Vec::new());
    while up.len() < 2 {
        let seen = timeout(LONG, wire.recv()).await.expect("the answers went over the wire");
        let Wire::Passed(Passed { sn, topic, payload, way, at }) = seen.unwrap() else { continue };
        assert_eq!(&*sn, "SIM-DOCK-0001");
        let json: Value = serde_json::from_slice(&payload).unwrap();
        let exchange = [&json["tid"], &json["method"]].map(|name| name.as_str().map(str::to_owned));
        match way {
            Way::Down if topic.ends_with("/services") => down.push(exchange),
            Way::Up { sent, settled_at } if topic.ends_with("/services_reply") => {
                assert!(at <= settled_at);
                assert!(matches!(sent, Sent::Confirmed { .. }), "{sent:?}");
                up.push(exchange);
            }
            Way::Down | Way::Up { .. } => {}
        }
    }
    let named = |method: &str, tid: &str| [Some(tid.to_owned()), Some(method.to_owned())];
    assert_eq!(down, [named("debug_mode_open", "t-1"), named("debug_mode_open", "t-2")]);
    assert_eq!(up, [named("debug_mode_open", "t-1"), named("cover_open", "t-2")]);
    fleet.shutdown().await;
    broker.shutdown().await;
}

#[tokio::test]
async fn a_fleet_that_cannot_start_says_why() {
    let mut bad = fleet_config(1);
    bad.docks[0].sn = "a/b".into();
    assert!(Fleet::start(bad).unwrap_err().to_string().contains("a/b"));
    let log = Some("/nonexistent/folder/log".into());
    let bad = FleetConfig { oracle_log: log, ..fleet_config(1) };
    assert!(Fleet::start(bad).unwrap_err().to_string().contains("/nonexistent/folder/log"));
    let bad = FleetConfig { speed: 0.0, ..fleet_config(1) };
    assert!(Fleet::start(bad).is_err());
}

/// Mosquitto from Debian; killed when dropped.
struct Mosquitto {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Mosquitto {
    fn start() -> Self {
        let free = std::net::TcpListener::bind(Cloud::here()).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mosquitto.conf");
        let config =
            format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n");
        std::fs::write(&file, config).unwrap();
        let child = Command::new("/usr/sbin/mosquitto")
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is not installed; run: apt-get install -y mosquitto");
        Self { child, port, _folder: folder }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn a_dock_works_at_mosquitto(protocol: ProtocolChoice) {
    let mosquitto = Mosquitto::start();
    let mut config = ClientConfig::new("127.0.0.1", mosquitto.port, "cloud");
    config.protocol = protocol;
    config.reconnect_wait_min = Duration::from_millis(10);
    config.subscriptions =
        SERVER_FILTERS.iter().map(|filter| ((*filter).to_owned(), Qos::AtLeastOnce)).collect();
    let (sender, inbound) = mpsc::channel(64);
    let client = Client::start(config, sender);
    let cloud = Cloud::new(client.outlet(), inbound);
    let mut heard = cloud.count.clone();
    let up = async {
        while !client.is_up() {
            heard.changed().await.unwrap();
        }
    };
    timeout(LONG, up).await.expect("the cloud is connected");

    let mut config = FleetConfig { quiet: true, ..fleet_config(2) };
    config.broker.port = mosquitto.port;
    config.broker.protocol = protocol;
    let fleet = Fleet::start(config).unwrap();
    timeout(LONG, fleet.ready()).await.expect("up");
    let reply = cloud.services("SIM-DOCK-0002", "t-1", "debug_mode_open", json!({})).await;
    assert_eq!(reply["data"]["result"], json!(0));
    cloud.services("SIM-DOCK-0002", "t-2", "cover_open", json!({})).await;
    assert_eq!(outcome(&fleet, "t-2").await, Outcome::Succeeded);
    fleet.shutdown().await;
    client.shutdown().await;
}

#[tokio::test]
async fn docks_work_at_mosquitto_in_mqtt_5() {
    a_dock_works_at_mosquitto(ProtocolChoice::V5).await;
}

#[tokio::test]
async fn docks_work_at_mosquitto_in_mqtt_3_1_1() {
    a_dock_works_at_mosquitto(ProtocolChoice::V311).await;
}

#[tokio::test]
async fn an_early_answer_is_with_the_broker_before_the_acknowledgement() {
    let mut config = FleetConfig { quiet: true, ..fleet_config(1) };
    config.reply = ReplyTiming::Realistic;
    config.faults.put_first(["kind=early".parse::<FaultFlag>().unwrap()]);
    let users = config.docks.iter().map(|dock| (dock.username.clone(), dock.password.clone()));
    let (sender, mut inbound) = mpsc::channel(1_000);
    let doorkeeper = Arc::new(OwnTopics(users.collect()));
    let broker = Broker::start(BrokerConfig::new(Cloud::here()), doorkeeper, sender).await.unwrap();
    config.broker.port = broker.local_addr().port();
    let fleet = Fleet::start(config).unwrap();
    timeout(LONG, fleet.ready()).await.expect("up, though nobody answers it");
    let outlet = broker.outlet();
    for round in 0..20 {
        let tid = format!("t-{round}");
        let message = json!({"tid": tid, "bid": "b", "method": "debug_mode_open", "data": {}});
        let topic = "thing/product/SIM-DOCK-0001/services";
        let publish = outlet.publish(Publish::new(topic, message.to_string()));
        let sent = timeout(LONG, publish).await.expect("it is acknowledged in the end");
        assert!(matches!(sent, Sent::Confirmed { packet_id: Some(_) }), "{sent:?}");
        // Whatever the dock said before it acknowledged is here by now.
        let mut answers = 0;
        while let Ok(message) = inbound.try_recv() {
            if let Inbound::Message { topic, payload, .. } = message
                && topic.ends_with("/services_reply")
            {
                let json: Value = serde_json::from_slice(&payload).unwrap();
                answers += usize::from(json["tid"] == json!(tid));
            }
        }
        assert_eq!(answers, 1, "round {round}");
    }
    fleet.shutdown().await;
    broker.shutdown().await;
}
