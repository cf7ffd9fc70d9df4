//! Clients that send commands as fast as they are answered.

use std::{
    net::SocketAddr,
    ops::AddAssign,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use serde::Deserialize;
use tokio::{task::JoinSet, time::Instant};
use utmos_core::{ports::Ids, signing::SignedParts, time::Clock};
use utmos_server::ids::SystemIds;

use super::{
    child::Prepared,
    http::{Answer, Connection, Signer},
    reply::Reply,
    stored::Keys,
};

/// Where commands are.
pub const COMMANDS: &str = "/api/v1/open/downlink/commands";
/// A request of about 450 bytes.
const VALUE_CHARS: usize = 220;
/// Clients that connect at a time.
const CONNECTING_MAX: usize = 64;
/// The longest that the API allows for an answer.
const TIMEOUT_SECONDS: u32 = 300;
/// One of so many commands is one that the docks refuse.
const REFUSED_EVERY: u64 = 4;
/// The docks have no camera there.
const NO_CAMERA: &str = "52-0-0";

/// Where the load goes, and in whose name.
pub struct Site {
    signer: Signer,
    /// Of further tenants, which have the docks in turn.
    others: Vec<Signer>,
    /// Of the servers that share the load: each client goes to the next.
    addresses: Vec<SocketAddr>,
    clients: AtomicUsize,
    docks: Vec<String>,
    /// The dock beside the load's, for emergencies.
    pub last_dock: String,
    ids: SystemIds,
    /// Of which kind the idempotency keys of the commands are.
    pub keys: Keys,
    /// Of this bench alone: the server may know the nonces of an earlier one.
    nonce_start: String,
    nonces: AtomicU64,
    reply: Reply,
}

/// What a client waits for before it sends the next command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The 202.
    Accepted,
    /// The command's end, as `GET …?wait=60` tells it.
    Ended,
}

/// So many clients for so long.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub clients: usize,
    pub time: Duration,
    pub until: Until,
}

/// What came of it.
pub struct Loaded {
    pub times: Histogram<u64>,
    pub done: u64,
    pub took: Duration,
    pub commands: Vec<Told>,
}

/// A command as the platform tells it.
pub struct Told {
    pub id: String,
    /// State and response code; `None` where nobody asked.
    pub end: Option<(String, Option<String>)>,
}

#[derive(Deserialize)]
struct Created<'a> {
    command_id: &'a str,
}

#[derive(Deserialize)]
struct Seen<'a> {
    status: &'a str,
    response_code: Option<&'a str>,
}

/// What one client did: its times and its commands.
pub type OneClients = (Histogram<u64>, Vec<Told>);

impl Loaded {
    /// What all clients did together, who began at the same moment.
    pub async fn of(
        mut running: JoinSet<anyhow::Result<OneClients>>,
        began: Instant,
    ) -> anyhow::Result<Self> {
        let mut all = Self { times: times(), done: 0, took: Duration::ZERO, commands: Vec::new() };
        while let Some(one) = running.join_next().await {
            let (times, commands) = one??;
            all.times.add(&times)?;
            all.done += times.len();
            all.commands.extend(commands);
        }
        all.took = began.elapsed();
        Ok(all)
    }
}

impl Site {
    /// A server's API, and who is at it.
    pub fn new(http: SocketAddr, prepared: &Prepared) -> Self {
        let mut docks: Vec<String> = prepared.docks.iter().map(|dock| dock.sn.clone()).collect();
        let ids = SystemIds::new();
        Self {
            signer: Signer::new(&prepared.access),
            others: prepared.others.iter().map(Signer::new).collect(),
            addresses: vec![http],
            clients: AtomicUsize::new(0),
            last_dock: docks.pop().unwrap_or_default(),
            docks,
            nonce_start: ids.random().simple().to_string(),
            ids,
            keys: Keys::V7,
            nonces: AtomicU64::new(0),
            reply: prepared.reply,
        }
    }

    /// The same with further servers that share the load.
    pub fn beside(mut self, others: impl Iterator<Item = SocketAddr>) -> Self {
        self.addresses.extend(others);
        self
    }

    pub async fn connect(&self) -> anyhow::Result<Client<'_>> {
        let number = self.clients.fetch_add(1, Ordering::Relaxed);
        let next = self.addresses.get(number % self.addresses.len().max(1));
        self.connect_to(*next.context("a bench without a server")?).await
    }

    async fn connect_to(&self, address: SocketAddr) -> anyhow::Result<Client<'_>> {
        let connection =
            Connection::open(address).await.context("the server takes no connection")?;
        Ok(self.client_at(connection))
    }

    fn client_at(&self, connection: Connection) -> Client<'_> {
        Client { site: self, signer: &self.signer, connection }
    }

    /// So many connections on which somebody has said who he is. A server bounds those on which nobody has, and closes the oldest
    /// of more, so that there are never many of them at a time.
    pub async fn connected(self: &Arc<Self>, clients: usize) -> anyhow::Result<Vec<Proved>> {
        let (mut connecting, mut connected) = (JoinSet::new(), Vec::with_capacity(clients));
        for _ in 0..clients {
            if connecting.len() == CONNECTING_MAX
                && let Some(one) = connecting.join_next().await
            {
                connected.push(one??);
            }
            let site = Arc::clone(self);
            connecting.spawn(async move {
                let mut client = site.connect().await?;
                client.read(COMMANDS, Some("limit=1")).await?;
                anyhow::Ok(Proved(client.connection))
            });
        }
        while let Some(one) = connecting.join_next().await {
            connected.push(one??);
        }
        Ok(connected)
    }

    /// A client on one of them.
    pub fn client(&self, Proved(connection): Proved) -> Client<'_> {
        self.client_at(connection)
    }

    /// When its docks answer.
    pub fn reply(&self) -> Reply {
        self.reply
    }

    /// The n-th dock of the load, round and round.
    pub fn dock(&self, n: u64) -> &str {
        self.docks.get(self.at(n)).map_or("", String::as_str)
    }

    fn at(&self, n: u64) -> usize {
        usize::try_from(n).unwrap_or(0).checked_rem(self.docks.len()).unwrap_or(0)
    }

    /// Who commands the n-th dock.
    fn signer_of(&self, n: u64) -> &Signer {
        match self.at(n) % (self.others.len() + 1) {
            0 => &self.signer,
            other => self.others.get(other - 1).unwrap_or(&self.signer),
        }
    }
}

/// A connection on which somebody has said who he is.
pub struct Proved(Connection);

/// One client with its connection.
pub struct Client<'a> {
    site: &'a Site,
    signer: &'a Signer,
    connection: Connection,
}

impl Client<'_> {
    async fn call(
        &mut self,
        method: &str,
        path: &str,
        query: Option<&str>,
        body: &[u8],
    ) -> anyhow::Result<Answer<'_>> {
        let number = self.site.nonces.fetch_add(1, Ordering::Relaxed);
        let nonce = format!("{}-{number}", self.site.nonce_start);
        self.connection.signed(self.signer, &nonce, SignedParts { method, path, query, body }).await
    }

    /// Goes on in the name of the tenant that has the n-th dock.
    pub fn act_for(&mut self, n: u64) {
        self.signer = self.site.signer_of(n);
    }

    /// Reads something.
    pub async fn read(&mut self, path: &str, query: Option<&str>) -> anyhow::Result<()> {
        let answer = self.call("GET", path, query, b"").await?;
        if answer.status != 200 {
            let told = String::from_utf8_lossy(answer.body);
            bail!("GET {path} was answered {}: {told}", answer.status);
        }
        Ok(())
    }

    /// Sends a command; answers its id.
    pub async fn send(
        &mut self,
        dock: &str,
        method: &str,
        payload: &str,
    ) -> anyhow::Result<String> {
        let key = self.site.keys.make(&self.site.ids, self.site.signer.clock.now().wall);
        let body = body(dock, method, payload, key);
        let answer = self.call("POST", COMMANDS, None, body.as_bytes()).await?;
        if answer.status != 202 {
            bail!(
                "{method} was answered {}: {}",
                answer.status,
                String::from_utf8_lossy(answer.body)
            );
        }
        let created: Created<'_> =
            serde_json::from_slice(answer.body).context("a 202 without an id")?;
        Ok(created.command_id.to_owned())
    }

    /// The n-th command of the load.
    pub async fn send_load(&mut self, dock: &str, n: u64) -> anyhow::Result<String> {
        let (method, mut payload) = command(n);
        if let Some(seconds) = self.site.reply.timeout_seconds() {
            payload.push_str(&format!(r#","timeout_seconds":{seconds}"#));
        }
        self.send(dock, method, &payload).await
    }

    /// A command that is given the longest time there is to be answered.
    pub async fn send_unanswered(&mut self, dock: &str) -> anyhow::Result<String> {
        let payload =
            format!(r#"{{"value":"{:-<VALUE_CHARS$}"}},"timeout_seconds":{TIMEOUT_SECONDS}"#, "");
        self.send(dock, "custom_data_transmission_to_psdk", &payload).await
    }

    /// Waits for a command's end.
    pub async fn end_of(&mut self, id: &str) -> anyhow::Result<(String, Option<String>)> {
        let path = format!("{COMMANDS}/{id}");
        loop {
            let answer = self.call("GET", &path, Some("wait=60"), b"").await?;
            if answer.status != 200 {
                bail!(
                    "GET {path} was answered {}: {}",
                    answer.status,
                    String::from_utf8_lossy(answer.body)
                );
            }
            let seen: Seen<'_> =
                serde_json::from_slice(answer.body).context("a command that cannot be read")?;
            if !matches!(seen.status, "ACCEPTED" | "DELIVERED") {
                return Ok((seen.status.to_owned(), seen.response_code.map(str::to_owned)));
            }
        }
    }
}

impl Load {
    /// Loads the docks of a site.
    pub async fn run(self, site: &Arc<Site>) -> anyhow::Result<Loaded> {
        self.run_at(site, false).await
    }

    /// The same, with every other client at the last dock.
    pub async fn run_beside(self, site: &Arc<Site>) -> anyhow::Result<Loaded> {
        self.run_at(site, true).await
    }

    async fn run_at(self, site: &Arc<Site>, at_last: bool) -> anyhow::Result<Loaded> {
        let began = Instant::now();
        let mut running = JoinSet::new();
        for number in 0..self.clients {
            let (site, fixed) = (Arc::clone(site), at_last && number.is_multiple_of(2));
            running.spawn(async move { self.client(&site, number, began, fixed).await });
        }
        Loaded::of(running, began).await
    }

    async fn client(
        self,
        site: &Site,
        number: usize,
        began: Instant,
        fixed: bool,
    ) -> anyhow::Result<(Histogram<u64>, Vec<Told>)> {
        let (mut times, mut commands) = (times(), Vec::new());
        let mut client = site.connect().await?;
        let mut n = number as u64;
        while began.elapsed() < self.time {
            let dock = if fixed { &site.last_dock } else { site.dock(n) };
            if !fixed {
                client.act_for(n);
            }
            let start = Instant::now();
            let id = client.send_load(dock, n).await?;
            let end = match self.until {
                Until::Accepted => None,
                Until::Ended => Some(client.end_of(&id).await?),
            };
            record(&mut times, start.elapsed());
            commands.push(Told { id, end });
            // Every client goes its own way round the docks, and each dock gets commands of both kinds.
            n += self.clients as u64 + 1;
        }
        Ok((times, commands))
    }
}

/// The n-th command of the load: its method and its payload.
pub fn command(n: u64) -> (&'static str, String) {
    if n.is_multiple_of(REFUSED_EVERY) {
        let payload =
            format!(r#"{{"payload_index":"{NO_CAMERA}","note":"{:-<VALUE_CHARS$}"}}"#, "");
        return ("camera_recording_stop", payload);
    }
    ("custom_data_transmission_to_psdk", format!(r#"{{"value":"{:-<VALUE_CHARS$}"}}"#, ""))
}

/// What is posted for a command.
pub fn body(dock: &str, method: &str, payload: &str, key: impl std::fmt::Display) -> String {
    format!(
        r#"{{"vendor":"dji","device_id":"{dock}","command_type":"{method}","payload":{payload},"idempotency_key":"{key}"}}"#
    )
}

/// So many commands, one after another, each until its end.
pub async fn some(site: &Site, commands: u64) -> anyhow::Result<Vec<Told>> {
    let mut client = site.connect().await?;
    let mut told = Vec::new();
    for n in 0..commands {
        let id = client.send_load(site.dock(n), n).await?;
        let end = Some(client.end_of(&id).await?);
        told.push(Told { id, end });
    }
    Ok(told)
}

/// Requests that are not signed and touch nothing: what a socket and HTTP alone cost.
pub async fn healthz(site: &Arc<Site>, clients: usize, time: Duration) -> anyhow::Result<Loaded> {
    let began = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let site = Arc::clone(site);
        running.spawn(async move {
            let mut times = times();
            let mut client = site.connect().await?;
            while began.elapsed() < time {
                let start = Instant::now();
                let status = client.connection.get("/healthz").await?.status;
                if status != 200 {
                    bail!("/healthz was answered {status}");
                }
                record(&mut times, start.elapsed());
            }
            Ok(times)
        });
    }
    let mut all = Loaded { times: times(), done: 0, took: Duration::ZERO, commands: Vec::new() };
    while let Some(one) = running.join_next().await {
        all.times.add(&one??)?;
    }
    all.done = all.times.len();
    all.took = began.elapsed();
    Ok(all)
}

/// Commands the server looks after now.
pub async fn open_now(site: &Site) -> anyhow::Result<u64> {
    metric(site, "utmos_commands_open").await
}

/// Commands the server has accepted since its start.
pub async fn accepted_so_far(site: &Site) -> anyhow::Result<u64> {
    metric(site, "utmos_commands_accepted_total").await
}

/// How many changes of commands were stored, and how long that took in all.
#[derive(Debug, Clone, Copy)]
pub struct Changes {
    count: u64,
    seconds: f64,
}

impl Changes {
    /// What one of those since took, in milliseconds.
    pub fn mean_ms_since(self, before: Self) -> f64 {
        (self.seconds - before.seconds) * 1_000.0
            / self.count.saturating_sub(before.count).max(1) as f64
    }
}

/// What the servers' histogram says of them.
pub async fn changes(site: &Site) -> anyhow::Result<Changes> {
    let count = metric(site, "utmos_store_advance_seconds_count").await?;
    Ok(Changes { count, seconds: summed(site, "utmos_store_advance_seconds_sum").await? })
}

/// A figure of `/metrics`, of all servers together.
pub async fn metric(site: &Site, name: &str) -> anyhow::Result<u64> {
    summed(site, name).await
}

async fn summed<T: FromStr + AddAssign + Default>(site: &Site, name: &str) -> anyhow::Result<T> {
    let mut sum = T::default();
    for address in &site.addresses {
        let mut client = site.connect_to(*address).await?;
        let answer = client.connection.get("/metrics").await?;
        let text = std::str::from_utf8(answer.body).context("/metrics is no text")?;
        let mut values = text
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<T>().ok());
        sum += values.next().with_context(|| format!("/metrics has no {name}"))?;
    }
    Ok(sum)
}

/// Microseconds, up to two minutes.
pub fn times() -> Histogram<u64> {
    const LONGEST_MICROS: u64 = 120_000_000;
    let made = Histogram::new_with_bounds(1, LONGEST_MICROS, 3);
    // Those bounds fit; the other constructor has none and would grow.
    made.unwrap_or_else(|_| {
        Histogram::new(3).unwrap_or_else(|_| unreachable!("three digits are fine"))
    })
}

pub fn record(times: &mut Histogram<u64>, time: Duration) {
    times.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
}
