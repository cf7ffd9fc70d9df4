//! A dock that does exactly what a test tells it: it takes commands and sends what it is given.

use std::{net::SocketAddr, sync::Arc};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use utmos_mqtt::{Client, ClientConfig, Inbound, Outlet, Password, Publish, Qos, Sent};

use crate::app::{PASSWORD, PATIENCE};

pub struct PretendDock {
    pub sn: String,
    password: String,
    broker: SocketAddr,
    client: Client,
    outlet: Arc<dyn Outlet>,
    inbound: mpsc::Receiver<Inbound>,
    /// Whether a connection has ended, as far as what came was looked at.
    pub was_cut: bool,
}

/// Whether the broker lets somebody in.
pub async fn lets_in(broker: SocketAddr, sn: &str, client_id: &str, password: &str) -> bool {
    let (sender, mut inbound) = mpsc::channel(64);
    let mut config = ClientConfig::new(broker.ip().to_string(), broker.port(), client_id);
    config.username = Some(sn.to_owned());
    config.password = Some(Password::new(password.as_bytes()));
    let client = Client::start(config, sender);
    let came = tokio::time::timeout(PATIENCE, inbound.recv()).await.expect("no word");
    client.shutdown().await;
    matches!(came, Some(Inbound::LinkUp { .. }))
}

/// A message to the dock.
#[derive(Debug, Clone)]
pub struct Down {
    pub topic: String,
    pub body: Value,
    /// As it came.
    pub raw: String,
}

impl Down {
    fn is_command(&self) -> bool {
        ["/services", "/drc/down", "/property/set"].iter().any(|end| self.topic.ends_with(end))
    }

    pub fn tid(&self) -> &str {
        self.body["tid"].as_str().unwrap_or("")
    }

    pub fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or("")
    }
}

impl PretendDock {
    pub async fn connect(broker: SocketAddr, sn: &str) -> Self {
        Self::connect_to(broker, sn, &["thing/product/{sn}/#", "sys/product/{sn}/#"]).await
    }

    /// One that listens to these topics only.
    pub async fn connect_to(broker: SocketAddr, sn: &str, filters: &[&str]) -> Self {
        Self::connect_with(broker, sn, PASSWORD, filters).await
    }

    /// One that comes with a password of its own.
    pub async fn connect_with(
        broker: SocketAddr,
        sn: &str,
        password: &str,
        filters: &[&str],
    ) -> Self {
        Self::connect_as(broker, sn, sn, password, filters).await
    }

    pub async fn connect_as(
        broker: SocketAddr,
        sn: &str,
        client_id: &str,
        password: &str,
        filters: &[&str],
    ) -> Self {
        let (sender, mut inbound) = mpsc::channel(4_096);
        let mut config = ClientConfig::new(broker.ip().to_string(), broker.port(), client_id);
        config.username = Some(sn.to_owned());
        config.password = Some(Password::new(password.as_bytes()));
        config.subscriptions =
            filters.iter().map(|f| (f.replace("{sn}", sn), Qos::AtLeastOnce)).collect();
        let client = Client::start(config, sender);
        let outlet = client.outlet();
        tokio::time::timeout(PATIENCE, async {
            while !matches!(inbound.recv().await.expect("the client ended"), Inbound::LinkUp { .. })
            {
            }
        })
        .await
        .expect("the dock could not connect");
        let password = password.to_owned();
        Self { sn: sn.to_owned(), password, broker, client, outlet, inbound, was_cut: false }
    }

    /// Waits until the broker has ended the connection. The client goes on trying.
    pub async fn cut(&mut self) {
        tokio::time::timeout(PATIENCE, async {
            while !matches!(
                self.inbound.recv().await.expect("the client ended"),
                Inbound::LinkDown { .. }
            ) {}
        })
        .await
        .expect("the connection goes on");
    }

    /// Leaves, and says what it was sent that nobody has looked at.
    pub async fn leave_and_tell(mut self) -> Vec<String> {
        self.client.shutdown().await;
        let mut topics = Vec::new();
        while let Ok(inbound) = self.inbound.try_recv() {
            if let Inbound::Message { topic, .. } = inbound {
                topics.push(topic.to_string());
            }
        }
        topics
    }

    pub async fn leave(self) {
        self.client.shutdown().await;
    }

    /// The next command. Answers of the cloud to the dock are passed over.
    pub async fn command(&mut self) -> Down {
        tokio::time::timeout(PATIENCE, async {
            loop {
                let down = self.next().await;
                if down.is_command() {
                    return down;
                }
            }
        })
        .await
        .expect("no command came")
    }

    /// The next message on a topic that ends so.
    pub async fn message(&mut self, end: &str) -> Down {
        tokio::time::timeout(PATIENCE, async {
            loop {
                let down = self.next().await;
                if down.topic.ends_with(end) {
                    return down;
                }
            }
        })
        .await
        .expect("no such message came")
    }

    /// Every command that has come by now. A message of the dock's own that was answered proves that nothing older is
    /// still on its way.
    pub async fn drain(&mut self) -> Vec<Down> {
        self.publish(
            &format!("sys/product/{}/status", self.sn),
            &json!({
                "tid": "drain", "bid": "drain", "timestamp": 1, "method": "update_topo",
                "data": {"domain": "3", "type": 2, "sub_type": 0, "sub_devices": []},
            }),
        )
        .await;
        let mut all = Vec::new();
        loop {
            let down = tokio::time::timeout(PATIENCE, self.next())
                .await
                .expect("the server does not answer");
            if down.topic.ends_with("/status_reply") && down.tid() == "drain" {
                return all;
            }
            if down.is_command() {
                all.push(down);
            }
        }
    }

    pub async fn next(&mut self) -> Down {
        loop {
            match self.inbound.recv().await.expect("the client ended") {
                Inbound::Message { topic, payload, .. } => {
                    return Down {
                        topic: topic.to_string(),
                        body: serde_json::from_slice(&payload).unwrap(),
                        raw: String::from_utf8(payload.to_vec()).unwrap(),
                    };
                }
                Inbound::Joined { .. }
                | Inbound::Subscribed { .. }
                | Inbound::Left { .. }
                | Inbound::LinkUp { .. } => {}
                Inbound::LinkDown { .. } => self.was_cut = true,
            }
        }
    }

    pub async fn publish(&self, topic: &str, body: &Value) {
        self.publish_raw(topic, body.to_string().as_bytes()).await;
    }

    pub async fn publish_raw(&self, topic: &str, payload: &[u8]) {
        let sent = self.outlet.publish(Publish::new(topic, payload.to_vec())).await;
        assert!(matches!(sent, Sent::Confirmed { .. }), "{topic}: {sent:?}");
    }

    /// Whether the broker lets it publish there.
    pub async fn may_publish(&self, topic: &str) -> bool {
        let sent = self.outlet.publish(Publish::new(topic, b"{}".to_vec())).await;
        matches!(sent, Sent::Confirmed { .. } | Sent::NoSubscriber)
    }

    /// Whether the broker grants a subscription: asked on a connection of its own, which does not come up otherwise.
    pub async fn may_subscribe(&self, filter: &str) -> bool {
        let (sender, mut inbound) = mpsc::channel(64);
        let mut config = ClientConfig::new(
            self.broker.ip().to_string(),
            self.broker.port(),
            format!("{}-asks", self.sn),
        );
        config.username = Some(self.sn.clone());
        config.password = Some(Password::new(self.password.as_bytes()));
        config.subscriptions = vec![(filter.to_owned(), Qos::AtLeastOnce)];
        let client = Client::start(config, sender);
        let came = tokio::time::timeout(PATIENCE, inbound.recv())
            .await
            .expect("no word")
            .expect("the client ended");
        client.shutdown().await;
        matches!(came, Inbound::LinkUp { .. })
    }

    /// Asks the cloud for something, and waits for the answer's `data`.
    pub async fn ask(&mut self, method: &str, data: Value) -> Value {
        let tid = uuid::Uuid::new_v4().to_string();
        let body = json!({
            "tid": tid, "bid": tid, "timestamp": 1_700_000_000_000_u64, "gateway": self.sn, "method": method, "data": data,
        });
        self.publish(&format!("thing/product/{}/requests", self.sn), &body).await;
        loop {
            let down = self.message("/requests_reply").await;
            if down.tid() == tid {
                return down.body["data"].clone();
            }
        }
    }

    /// Sends properties of a device on its `osd` topic.
    pub async fn osd(&self, device: &str, data: Value) {
        let body = json!({
            "tid": "t", "bid": "b", "timestamp": 1_700_000_000_000_u64, "gateway": self.sn, "data": data,
        });
        self.publish(&format!("thing/product/{device}/osd"), &body).await;
    }

    /// Answers a command on `services_reply` with this `data`.
    pub async fn reply(&self, command: &Down, data: Value) {
        let body = json!({
            "tid": command.body["tid"], "bid": command.body["bid"], "timestamp": 1_700_000_000_000_u64,
            "method": command.body["method"], "data": data,
        });
        self.publish(&format!("thing/product/{}/services_reply", self.sn), &body).await;
    }

    /// Reports on a job.
    pub async fn event(&self, method: &str, bid: &Value, data: Value, need_reply: u8) {
        let body = json!({
            "tid": uuid::Uuid::new_v4().to_string(), "bid": bid, "timestamp": 1_700_000_000_000_u64,
            "gateway": self.sn, "method": method, "need_reply": need_reply, "data": data,
        });
        self.publish(&format!("thing/product/{}/events", self.sn), &body).await;
    }

    /// Says which aircraft is behind it.
    pub async fn report_aircraft(&mut self, aircraft: &str) {
        self.report_subs(json!([
            {"sn": aircraft, "domain": "0", "type": 91, "sub_type": 0, "index": "A", "thing_version": "1.1.2"},
        ]))
        .await;
    }

    /// Says that its aircraft is off.
    pub async fn report_nobody(&mut self) {
        self.report_subs(json!([])).await;
    }

    async fn report_subs(&mut self, subs: Value) {
        let body = json!({
            "tid": "topo", "bid": "topo", "timestamp": 1, "method": "update_topo",
            "data": {"domain": "3", "type": 2, "sub_type": 0, "thing_version": "1.1.2", "sub_devices": subs},
        });
        self.publish(&format!("sys/product/{}/status", self.sn), &body).await;
        self.message("/status_reply").await;
    }
}
