//! Round trips through the embedded broker: server outlet → client → back into the server's channel.
//!
//! `cargo run --release -p utmos-mqtt --example roundtrip`
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measuring tool prints and may stop"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::time::Instant;
use utmos_mqtt::{
    Broker, BrokerConfig, Client, ClientConfig, Doorkeeper, Entry, Inbound, Password, Publish, Qos,
    Sent,
};

struct Open;

impl Doorkeeper for Open {
    fn authenticate(
        &self,
        _: &str,
        _: Option<&str>,
        _: Option<&[u8]>,
        _: Option<SocketAddr>,
    ) -> Entry {
        Entry::Granted
    }
    fn may_publish(&self, _: &str, _: &str) -> bool {
        true
    }
    fn may_subscribe(&self, _: &str, _: &str) -> bool {
        true
    }
}

const DOWN: &str = "thing/product/D1/services";
const UP: &str = "thing/product/D1/services_reply";
const FOR: Duration = Duration::from_secs(4);

fn dock(port: u16, number: usize, filter: Option<&str>) -> ClientConfig {
    let mut config = ClientConfig::new("127.0.0.1", port, format!("dock-{number}"));
    config.username = Some("D1".into());
    config.password = Some(Password::new("x"));
    config.subscriptions =
        filter.map(|filter| (filter.to_owned(), Qos::AtLeastOnce)).into_iter().collect();
    config
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kb| kb.parse().ok()).unwrap_or(0)
}

#[tokio::main]
async fn main() {
    let (inbound, mut told) = mpsc::channel(1024);
    let broker = Broker::start(
        BrokerConfig::new(SocketAddr::from(([127, 0, 0, 1], 0))),
        Arc::new(Open),
        inbound,
    )
    .await
    .unwrap();
    let port = broker.local_addr().port();

    let (to_dock, mut at_dock) = mpsc::channel(1024);
    let client = Client::start(dock(port, 1, Some(DOWN)), to_dock);
    let reply = client.outlet();
    tokio::spawn(async move {
        while let Some(inbound) = at_dock.recv().await {
            if let Inbound::Message { payload, .. } = inbound {
                let reply = Arc::clone(&reply);
                tokio::spawn(async move { reply.publish(Publish::new(UP, payload)).await });
            }
        }
    });
    let out = broker.outlet();
    while out.publish(Publish::new(DOWN, "warm-up")).await == Sent::NoSubscriber {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    loop {
        if let Some(Inbound::Message { .. }) = told.recv().await {
            break;
        }
    }

    for in_flight in [1_usize, 64] {
        let mut times = Histogram::<u64>::new(3).unwrap();
        let mut sent_at = BTreeMap::new();
        let mut next = 0_u64;
        let began = Instant::now();
        let mut done = 0_u64;
        let send = |number: u64| {
            let out = Arc::clone(&out);
            async move { out.publish(Publish::new(DOWN, number.to_string())).await }
        };
        while next < in_flight as u64 {
            sent_at.insert(next, Instant::now());
            tokio::spawn(send(next));
            next += 1;
        }
        while !sent_at.is_empty() {
            let Some(Inbound::Message { payload, .. }) = told.recv().await else { continue };
            let number: u64 = std::str::from_utf8(&payload).unwrap().parse().unwrap();
            let at = sent_at.remove(&number).unwrap();
            times.record(u64::try_from(at.elapsed().as_micros()).unwrap()).unwrap();
            done += 1;
            if began.elapsed() < FOR {
                sent_at.insert(next, Instant::now());
                tokio::spawn(send(next));
                next += 1;
            }
        }
        println!(
            "{in_flight:>3} in flight: {:>7.0} round trips/s, p50 {} µs, p99 {} µs, max {} µs",
            done as f64 / began.elapsed().as_secs_f64(),
            times.value_at_quantile(0.5),
            times.value_at_quantile(0.99),
            times.max()
        );
    }

    let sink = mpsc::channel(1024);
    let mut events = sink.1;
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    let before = resident_kb();
    let began = Instant::now();
    let count = 1000;
    let clients: Vec<_> = (0..count)
        .map(|number| {
            Client::start(
                dock(port, 10 + number, Some("thing/product/D1/property/set")),
                sink.0.clone(),
            )
        })
        .collect();
    let mut joined = 0;
    while joined < count {
        if let Some(Inbound::Subscribed { .. }) = told.recv().await {
            joined += 1;
        }
    }
    let took = began.elapsed();
    println!(
        "{count} clients connected and subscribed in {took:?}; {:.1} KB for both ends of one",
        (resident_kb() - before) as f64 / f64::from(u16::try_from(count).unwrap())
    );
    drop(clients);
    drop(client);
    broker.shutdown().await;
}
