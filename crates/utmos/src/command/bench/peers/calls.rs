//! The load's clients at a peer: the same commands to the same docks in the same order, in a closed loop.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use utmos_core::{ports::Ids, time::Clock};
use utmos_server::{clock::SystemClock, ids::SystemIds};

use super::fiware::{self, ContextBroker};
use crate::command::bench::{
    http::{Answer, Connection},
    load::{self, COMMANDS, Load, Loaded, Told},
};

/// Longest that a command may take: no peer tells its caller that a dock is silent.
const LOOP_WAIT: Duration = Duration::from_secs(30);

/// How a peer takes a command, and tells its end.
pub enum Way {
    /// As this server does, with the end in the answer.
    Answer,
    /// As a context broker passes it on; the end is what it is told.
    ContextBroker(ContextBroker),
}

/// A peer that takes commands.
pub struct Target {
    http: SocketAddr,
    way: Way,
    docks: Vec<String>,
    ids: SystemIds,
    clock: SystemClock,
}

/// What Node-RED's flow answers once the dock has.
#[derive(Deserialize)]
struct Answered {
    command_id: String,
    result: i64,
}

impl Target {
    pub fn new(http: SocketAddr, way: Way, docks: Vec<String>) -> Self {
        Self { http, way, docks, ids: SystemIds::new(), clock: SystemClock::new() }
    }

    /// One command that nobody counts.
    pub async fn trial(&self) -> anyhow::Result<()> {
        self.command(&mut self.connect().await?, 1).await.map(drop)
    }

    /// What [`Load::run`] does at the server.
    pub async fn load(self: &Arc<Self>, load: Load) -> anyhow::Result<Loaded> {
        let began = Instant::now();
        let mut running = JoinSet::new();
        for number in 0..load.clients {
            let target = Arc::clone(self);
            running.spawn(async move { target.client(load, number as u64, began).await });
        }
        Loaded::of(running, began).await
    }

    async fn client(
        &self,
        load: Load,
        mut n: u64,
        began: Instant,
    ) -> anyhow::Result<(hdrhistogram::Histogram<u64>, Vec<Told>)> {
        let (mut times, mut commands) = (load::times(), Vec::new());
        let mut connection = self.connect().await?;
        while began.elapsed() < load.time {
            let start = Instant::now();
            let told = timeout(LOOP_WAIT, self.command(&mut connection, n)).await;
            let told = told
                .with_context(|| format!("a command had no end after {} s", LOOP_WAIT.as_secs()))?;
            commands.push(told?);
            load::record(&mut times, start.elapsed());
            n += load.clients as u64 + 1;
        }
        Ok((times, commands))
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(self.http).await.context("it takes no connection")
    }

    async fn command(&self, connection: &mut Connection, n: u64) -> anyhow::Result<Told> {
        let at = usize::try_from(n)?.checked_rem(self.docks.len()).unwrap_or(0);
        let dock = self.docks.get(at).context("there are no docks")?;
        let (method, payload) = load::command(n);
        let key = self.ids.ordered(self.clock.now().wall).to_string();
        match &self.way {
            Way::Answer => {
                let body = load::body(dock, method, &payload, &key);
                let answer = connection.post(COMMANDS, "", body.as_bytes()).await?;
                must_be(200, &answer)?;
                let answered: Answered =
                    serde_json::from_slice(answer.body).context("an answer that cannot be read")?;
                Ok(told(answered.command_id, answered.result))
            }
            Way::ContextBroker(context_broker) => {
                let result = context_broker.result_of(&key);
                let body = fiware::update(dock, &key, method, &payload);
                let answer = connection.post(fiware::UPDATES, fiware::HEADERS, body.as_bytes());
                must_be(204, &answer.await?)?;
                let result = result.await.context("a command without a result")?;
                Ok(told(key, result))
            }
        }
    }
}

fn must_be(status: u16, answer: &Answer<'_>) -> anyhow::Result<()> {
    if answer.status != status {
        let told = String::from_utf8_lossy(answer.body);
        bail!("a command was answered {}: {told}", answer.status);
    }
    Ok(())
}

/// A dock's result in the words of the platform, in which the docks' ledger is compared.
fn told(id: String, result: i64) -> Told {
    let status = if result == 0 { "SUCCEEDED" } else { "FAILED" };
    Told { id, end: Some((status.to_owned(), Some(result.to_string()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_other_than_0_is_a_failure_with_that_code() {
        let end = |result| told("t".to_owned(), result).end;
        assert_eq!(end(0), Some(("SUCCEEDED".to_owned(), Some("0".to_owned()))));
        assert_eq!(end(325_001), Some(("FAILED".to_owned(), Some("325001".to_owned()))));
    }
}
