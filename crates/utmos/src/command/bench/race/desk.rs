//! Callers who want an answer: one whose request fails or is cut off asks again, with the same key and another nonce,
//! until somebody tells or its patience is over.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use utmos_core::{
    command::{FailureCode, Status},
    signing::SignedParts,
};

use super::judge::Story;
use crate::command::bench::{
    child::Prepared,
    http::{Connection, Signer},
};

const COMMANDS: &str = "/api/v1/open/downlink/commands";
/// Longest that one request may take before it is cut off.
const REQUEST_WAIT: Duration = Duration::from_secs(5);
/// From a failed request to the next.
const AGAIN_WAIT: Duration = Duration::from_millis(20);
/// How long a caller asks.
const PATIENCE: Duration = Duration::from_secs(30);
/// Commands on one page. Some carry large answers.
const PAGE: usize = 100;

/// Where requests are sent from.
pub struct Desk {
    signer: Signer,
    counters: Vec<Counter>,
    /// Whom the next caller asks first.
    turn: AtomicUsize,
    nonces: AtomicU64,
    repeats: AtomicU64,
    replays: AtomicU64,
}

/// Where one server is asked.
struct Counter {
    address: SocketAddr,
    /// Connections that nobody uses.
    idle: Mutex<Vec<Connection>>,
}

/// What a caller was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It is on record under this id.
    Accepted(String),
    /// Another movement is in the way.
    Busy,
    /// Refused for another reason.
    Refused(String),
    /// Nobody told anything.
    Nothing,
}

/// A command as the list shows it.
#[derive(Debug, Clone)]
pub struct Listed {
    pub id: String,
    pub method: String,
    pub gateway: String,
    pub payload: Value,
    pub story: Story,
}

#[derive(Deserialize)]
struct Created {
    command_id: String,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Item>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    command_id: String,
    command_type: String,
    gateway_id: String,
    payload: Value,
    status: String,
    failure_code: Option<String>,
    response_code: Option<String>,
    accepted_at: String,
    completed_at: Option<String>,
    timeout_seconds: i64,
}

impl Desk {
    /// At servers of these addresses, each of which will do.
    pub fn new(addresses: Vec<SocketAddr>, prepared: &Prepared) -> Self {
        let counter = |address| Counter { address, idle: Mutex::new(Vec::new()) };
        Self {
            signer: Signer::new(&prepared.access),
            counters: addresses.into_iter().map(counter).collect(),
            turn: AtomicUsize::new(0),
            nonces: AtomicU64::new(0),
            repeats: AtomicU64::new(0),
            replays: AtomicU64::new(0),
        }
    }

    /// Requests that had to be asked again.
    pub fn repeats(&self) -> u64 {
        self.repeats.load(Ordering::Relaxed)
    }

    /// Repeated requests whose command was on record already.
    pub fn replays(&self) -> u64 {
        self.replays.load(Ordering::Relaxed)
    }

    /// The server with this number is gone, and all connections with it.
    pub fn forget_connections(&self, server: usize) {
        if let Some(counter) = self.counters.get(server) {
            counter.idle().clear();
        }
    }

    /// Asks for a command until there is an answer: one server, and each time that it was in vain the next.
    pub async fn insist(&self, body: &str) -> Told {
        let by = Instant::now() + PATIENCE;
        let mut server = self.turn.fetch_add(1, Ordering::Relaxed);
        loop {
            if let Ok(Ok(Some(told))) = timeout(REQUEST_WAIT, self.ask(server, body)).await {
                return told;
            }
            if by < Instant::now() {
                return Told::Nothing;
            }
            self.repeats.fetch_add(1, Ordering::Relaxed);
            server += 1;
            sleep(AGAIN_WAIT).await;
        }
    }

    /// One request; nothing when it is to be sent again.
    async fn ask(&self, server: usize, body: &str) -> anyhow::Result<Option<Told>> {
        let (status, answer) = self.call(server, "POST", None, body.as_bytes()).await?;
        if status == 503 {
            return Ok(None);
        }
        if matches!(status, 200 | 202) {
            self.replays.fetch_add(u64::from(status == 200), Ordering::Relaxed);
            let created: Created =
                serde_json::from_slice(&answer).context("an acceptance without an id")?;
            return Ok(Some(Told::Accepted(created.command_id)));
        }
        let problem: Problem =
            serde_json::from_slice(&answer).context("a refusal without a code")?;
        Ok(Some(match (status, problem.code.as_str()) {
            (409, "DEVICE_BUSY") => Told::Busy,
            (status, code) => Told::Refused(format!("{status} {code}")),
        }))
    }

    /// Whether a command has not ended.
    pub async fn has_open(&self) -> anyhow::Result<bool> {
        for status in [Status::Accepted, Status::Delivered] {
            let items = self.items(&format!("&status={}", status.as_str())).await?;
            if items.iter().any(|item| item.completed_at.is_none()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Every command on record.
    pub async fn all(&self) -> anyhow::Result<Vec<Listed>> {
        self.items("").await?.into_iter().map(Item::listed).collect()
    }

    async fn items(&self, filter: &str) -> anyhow::Result<Vec<Item>> {
        let mut all = Vec::new();
        let mut from = String::new();
        loop {
            let page = self.page(&format!("limit={PAGE}{filter}{from}")).await?;
            all.extend(page.items);
            let Some(cursor) = page.next_cursor else { return Ok(all) };
            from = format!("&cursor={cursor}");
        }
    }

    async fn page(&self, query: &str) -> anyhow::Result<Page> {
        let (status, answer) = self.call(0, "GET", Some(query), b"").await?;
        if status != 200 {
            bail!("the list of commands was answered {status}");
        }
        serde_json::from_slice(&answer).context("a list of commands that cannot be read")
    }

    async fn call(
        &self,
        server: usize,
        method: &str,
        query: Option<&str>,
        body: &[u8],
    ) -> anyhow::Result<(u16, Vec<u8>)> {
        let counter = self.counters.get(server % self.counters.len().max(1));
        let counter = counter.context("there is no server to ask")?;
        let idle = counter.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::open(counter.address).await?,
        };
        let nonce = format!("race-{}", self.nonces.fetch_add(1, Ordering::Relaxed));
        let parts = SignedParts { method, path: COMMANDS, query, body };
        let answer = connection.signed(&self.signer, &nonce, parts).await?;
        let (status, body) = (answer.status, answer.body.to_vec());
        counter.idle().push(connection);
        Ok((status, body))
    }
}

impl Counter {
    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Item {
    fn listed(self) -> anyhow::Result<Listed> {
        let status = Status::parse(&self.status)
            .with_context(|| format!("the server tells of a state {:?}", self.status))?;
        let failure = self
            .failure_code
            .map(|code| {
                FailureCode::parse(&code)
                    .with_context(|| format!("the server tells of a failure {code:?}"))
            })
            .transpose()?;
        let story = Story {
            status,
            failure,
            response_code: self.response_code,
            accepted_at: millis(&self.accepted_at)?,
            ended_at: self.completed_at.as_deref().map(millis).transpose()?,
            timeout_ms: self.timeout_seconds * 1_000,
        };
        Ok(Listed {
            id: self.command_id,
            method: self.command_type,
            gateway: self.gateway_id,
            payload: self.payload,
            story,
        })
    }
}

fn millis(text: &str) -> anyhow::Result<i64> {
    let at: jiff::Timestamp =
        text.parse().with_context(|| format!("the server tells of a time {text:?}"))?;
    Ok(at.as_millisecond())
}
