//! What the disk, the broker and the database do with nothing of ours around them. No figure of the server can be better.

mod commits;
mod echo;

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

pub use self::{
    commits::{AT_ONCE, commits},
    echo::echo,
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

/// Round trips at QoS 1 both ways: from where the server stands to a client on a socket and back. Each of `in_flight`
/// clients has one message under way. The broker is the embedded one, in this process as it is in the server's, unless
/// another is named, which the server's side reaches over a socket too.
pub async fn mqtt(
    outside: Option<SocketAddr>,
    in_flight: usize,
    time: Duration,
) -> anyhow::Result<Loaded> {
    let (inbound, mut came) = mpsc::channel(INBOUND_MAX);
    let side = match outside {
        Some(address) => ServerSide::at(address, inbound, &mut came).await?,
        None => ServerSide::embedded(inbound).await?,
    };
    let address = side.address;
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
        running.spawn(round_trips(side.outlet(), number, back, began, time));
    }
    let mut all = times();
    while let Some(one) = running.join_next().await {
        all.add(&one??)?;
    }
    let took = began.elapsed();
    for echo in echoes {
        echo.stop().await;
    }
    side.stop().await;
    handing_out.abort();
    Ok(Loaded { done: all.len(), times: all, took, commands: Vec::new() })
}

/// Where the server stands.
struct ServerSide {
    address: SocketAddr,
    how: How,
}

enum How {
    Embedded(Broker),
    Outside(Client),
}

impl ServerSide {
    async fn embedded(inbound: mpsc::Sender<Inbound>) -> anyhow::Result<Self> {
        let config = BrokerConfig::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let broker = Broker::start(config, Arc::new(Open), inbound).await?;
        Ok(Self { address: broker.local_addr(), how: How::Embedded(broker) })
    }

    async fn at(
        address: SocketAddr,
        inbound: mpsc::Sender<Inbound>,
        came: &mut mpsc::Receiver<Inbound>,
    ) -> anyhow::Result<Self> {
        let mut config =
            ClientConfig::new(address.ip().to_string(), address.port(), "bench-server");
        config.subscriptions = vec![("bench/+/up".to_owned(), Qos::AtLeastOnce)];
        let client = Client::start(config, inbound);
        linked(came).await?;
        Ok(Self { address, how: How::Outside(client) })
    }

    fn outlet(&self) -> Arc<dyn Outlet> {
        match &self.how {
            How::Embedded(broker) => broker.outlet(),
            How::Outside(client) => client.outlet(),
        }
    }

    async fn stop(self) {
        match self.how {
            How::Embedded(broker) => broker.shutdown().await,
            How::Outside(client) => client.shutdown().await,
        }
    }
}

/// Waits for a client's connection.
async fn linked(inbound: &mut mpsc::Receiver<Inbound>) -> anyhow::Result<()> {
    while !matches!(inbound.recv().await.context("an MQTT client ended")?, Inbound::LinkUp { .. }) {
    }
    Ok(())
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
        linked(&mut inbound).await?;
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
