//! What the disk and the broker do with nothing of ours around them. No figure of the server can be better.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use utmos_mqtt::{
    Broker, BrokerConfig, Client, ClientConfig, Doorkeeper, Entry, Inbound, Outlet, Password,
    Publish, Qos, Sent,
};

use super::load::{Loaded, record, times};

const BLOCK: [u8; 4096] = [7; 4096];
/// Blocks of the file that is written round and round, as a write-ahead log is.
const BLOCKS: u32 = 1_024;
const INBOUND_MAX: usize = 1_024;

/// Writes 4 KiB and syncs, one after another.
pub async fn sync(dir: &Path, time: Duration) -> anyhow::Result<Loaded> {
    let path = dir.join("floor");
    tokio::task::spawn_blocking(move || {
        let mut file =
            File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        for _ in 0..BLOCKS {
            file.write_all(&BLOCK)?;
        }
        file.sync_all()?;
        let mut times = times();
        let (began, mut n) = (Instant::now(), 0);
        while began.elapsed() < time {
            let start = Instant::now();
            file.seek(SeekFrom::Start(u64::from(n % BLOCKS) * BLOCK.len() as u64))?;
            file.write_all(&BLOCK)?;
            file.sync_data()?;
            record(&mut times, start.elapsed());
            n += 1;
        }
        let took = began.elapsed();
        std::fs::remove_file(&path)?;
        Ok(Loaded { done: times.len(), times, took, commands: Vec::new() })
    })
    .await?
}

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

/// Round trips at QoS 1 both ways: from the embedded broker's own outlet to a client on a socket and back. Each of
/// `in_flight` clients has one message under way.
pub async fn mqtt(in_flight: usize, time: Duration) -> anyhow::Result<Loaded> {
    let (inbound, mut came) = mpsc::channel(INBOUND_MAX);
    let config = BrokerConfig::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let broker = Broker::start(config, Arc::new(Open), inbound).await?;
    let address = broker.local_addr();
    let mut echoes = Vec::new();
    let mut backs = Vec::new();
    for number in 0..in_flight {
        echoes.push(Echo::start(address, number).await?);
        backs.push(mpsc::channel(1));
    }
    let (to_clients, backs): (Vec<_>, Vec<_>) = backs.into_iter().unzip();
    let handing_out = tokio::spawn(async move {
        while let Some(message) = came.recv().await {
            let Inbound::Message { payload, .. } = message else { continue };
            let number =
                std::str::from_utf8(&payload).ok().and_then(|text| text.parse::<usize>().ok());
            if let Some(back) = number.and_then(|number| to_clients.get(number)) {
                let _gone = back.send(()).await;
            }
        }
    });
    let began = Instant::now();
    let mut running = JoinSet::new();
    for (number, back) in backs.into_iter().enumerate() {
        running.spawn(round_trips(broker.outlet(), number, back, began, time));
    }
    let mut all = times();
    while let Some(one) = running.join_next().await {
        all.add(&one??)?;
    }
    let took = began.elapsed();
    for echo in echoes {
        echo.stop().await;
    }
    broker.shutdown().await;
    handing_out.abort();
    Ok(Loaded { done: all.len(), times: all, took, commands: Vec::new() })
}

async fn round_trips(
    outlet: Arc<dyn Outlet>,
    number: usize,
    mut back: mpsc::Receiver<()>,
    began: Instant,
    time: Duration,
) -> anyhow::Result<hdrhistogram::Histogram<u64>> {
    let mut times = times();
    while began.elapsed() < time {
        let start = Instant::now();
        let sent = outlet.publish(Publish::new(down(number), number.to_string())).await;
        anyhow::ensure!(matches!(sent, Sent::Confirmed { .. }), "the broker says {sent:?}");
        back.recv().await.context("the broker ended")?;
        record(&mut times, start.elapsed());
    }
    Ok(times)
}

fn down(number: usize) -> String {
    format!("bench/{number}/down")
}

/// A client that sends everything back.
struct Echo {
    client: Client,
    task: tokio::task::JoinHandle<()>,
}

impl Echo {
    async fn start(broker: SocketAddr, number: usize) -> anyhow::Result<Self> {
        let mut config =
            ClientConfig::new(broker.ip().to_string(), broker.port(), format!("bench-{number}"));
        config.username = Some(format!("bench-{number}"));
        config.password = Some(Password::new("bench"));
        config.subscriptions = vec![(down(number), Qos::AtLeastOnce)];
        let (sender, mut inbound) = mpsc::channel(INBOUND_MAX);
        let client = Client::start(config, sender);
        while !matches!(
            inbound.recv().await.context("an MQTT client ended")?,
            Inbound::LinkUp { .. }
        ) {}
        let (outlet, up) = (client.outlet(), format!("bench/{number}/up"));
        let task = tokio::spawn(async move {
            while let Some(message) = inbound.recv().await {
                let Inbound::Message { payload, .. } = message else { continue };
                let (outlet, up) = (Arc::clone(&outlet), up.clone());
                tokio::spawn(async move { outlet.publish(Publish::new(up, payload)).await });
            }
        });
        Ok(Self { client, task })
    }

    async fn stop(self) {
        self.client.shutdown().await;
        self.task.abort();
    }
}
