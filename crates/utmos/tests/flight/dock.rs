//! A gateway that does exactly what a test tells it: it takes messages and sends what it is given.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use utmos_mqtt::{Client, ClientConfig, Inbound, Outlet, Password, Publish, Qos, Sent};

use crate::{api::PATIENCE, place::PASSWORD};

pub struct PretendDock {
    pub sn: String,
    client: Client,
    outlet: Arc<dyn Outlet>,
    inbound: mpsc::Receiver<Inbound>,
}

/// A message to the dock.
#[derive(Debug, Clone)]
pub struct Down {
    pub topic: String,
    pub body: Value,
}

impl Down {
    pub fn is_command(&self) -> bool {
        ["/services", "/drc/down", "/property/set"].iter().any(|end| self.topic.ends_with(end))
    }

    pub fn tid(&self) -> &str {
        self.body["tid"].as_str().unwrap_or("")
    }

    pub fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or("")
    }
}

/// How a gateway logs in.
pub fn login(broker: SocketAddr, user: &str, password: &str) -> ClientConfig {
    let mut config = ClientConfig::new(broker.ip().to_string(), broker.port(), user);
    config.username = Some(user.to_owned());
    config.password = Some(Password::new(password.as_bytes()));
    config.reconnect_wait_min = Duration::from_millis(10);
    config.reconnect_wait_max = Duration::from_millis(50);
    config
}

/// What a gateway listens to: what is for it, and the answers on its aircraft's topics.
pub fn filters(sn: &str, aircraft: &[&str]) -> Vec<(String, Qos)> {
    let own = [
        "services",
        "drc/down",
        "property/set",
        "events_reply",
        "state_reply",
        "requests_reply",
        "status_reply",
    ];
    let own = own.map(|end| format!("thing/product/{sn}/{end}"));
    let theirs = aircraft.iter().flat_map(|sn| {
        ["events_reply", "state_reply"].map(|end| format!("thing/product/{sn}/{end}"))
    });
    let sys = [format!("sys/product/{sn}/status_reply")];
    own.into_iter().chain(theirs).chain(sys).map(|filter| (filter, Qos::AtLeastOnce)).collect()
}

impl PretendDock {
    pub async fn connect(broker: SocketAddr, sn: &str) -> Self {
        Self::with_aircraft(broker, sn, &[]).await
    }

    pub async fn with_aircraft(broker: SocketAddr, sn: &str, aircraft: &[&str]) -> Self {
        let mut config = login(broker, sn, PASSWORD);
        config.subscriptions = filters(sn, aircraft);
        Self::start(config).await.unwrap_or_else(|reason| panic!("{sn} is not let in: {reason}"))
    }

    /// Connects, or says why not.
    pub async fn start(config: ClientConfig) -> Result<Self, String> {
        let (sender, mut inbound) = mpsc::channel(4_096);
        let sn = config.username.clone().unwrap_or_default();
        let client = Client::start(config, sender);
        let outlet = client.outlet();
        let first = tokio::time::timeout(PATIENCE, inbound.recv()).await;
        let first = first.expect("the broker says nothing").expect("the client ended");
        if let Inbound::LinkDown { reason } = first {
            return Err(reason);
        }
        assert!(matches!(first, Inbound::LinkUp { .. }), "{first:?} before the link is up");
        Ok(Self { sn, client, outlet, inbound })
    }

    pub async fn leave(self) {
        self.client.shutdown().await;
    }

    /// The next command. Answers of the cloud to the dock are passed over.
    pub async fn command(&mut self) -> Down {
        loop {
            let down = self.next().await;
            if down.is_command() {
                return down;
            }
        }
    }

    /// Everything that has come by now. A message of the dock's own that was answered proves that nothing older is
    /// still on its way.
    pub async fn drain(&mut self) -> Vec<Down> {
        let topic = format!("thing/product/{}/events", self.sn);
        let tid = uuid::Uuid::new_v4().to_string();
        let event = json!({
            "tid": tid, "bid": tid, "timestamp": 1, "gateway": self.sn,
            "need_reply": 1, "method": "hms", "data": {"list": []},
        });
        self.publish(&topic, &event).await;
        let mut all = Vec::new();
        loop {
            let down = self.next().await;
            if down.topic.ends_with("/events_reply") && down.tid() == tid {
                return all;
            }
            all.push(down);
        }
    }

    /// The commands that have come by now.
    pub async fn drain_commands(&mut self) -> Vec<Down> {
        self.drain().await.into_iter().filter(Down::is_command).collect()
    }

    /// The next message, whatever it is.
    async fn next(&mut self) -> Down {
        let came = tokio::time::timeout(PATIENCE, self.inbound.recv()).await;
        let came = came.expect("nothing comes").expect("the client ended");
        let Inbound::Message { topic, payload, .. } = came else { panic!("{}: {came:?}", self.sn) };
        Down { topic: topic.to_string(), body: serde_json::from_slice(&payload).unwrap() }
    }

    pub async fn publish(&self, topic: &str, body: &Value) {
        self.publish_text(topic, &body.to_string()).await;
    }

    pub async fn publish_text(&self, topic: &str, text: &str) {
        let sent = self.try_publish(topic, text).await;
        assert!(matches!(sent, Sent::Confirmed { .. }), "{topic}: {sent:?}");
    }

    pub async fn try_publish(&self, topic: &str, text: &str) -> Sent {
        self.outlet.publish(Publish::new(topic, text.as_bytes().to_vec())).await
    }

    /// Answers a command with this `data`.
    pub async fn reply(&self, command: &Down, data: Value) {
        let body = json!({
            "tid": command.body["tid"], "bid": command.body["bid"], "timestamp": 1_700_000_000_000_u64,
            "method": command.body["method"], "data": data,
        });
        self.publish(&format!("thing/product/{}/services_reply", self.sn), &body).await;
    }
}
