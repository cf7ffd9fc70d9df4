//! One server with its docks, to be held against another.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use hdrhistogram::Histogram;
use tokio::time::Instant;
use utmos_core::time::Timestamp;
use uuid::Uuid;

use super::add;
use crate::command::bench::{
    child::{Place, Prepared, Server},
    docks::Judged,
    load::{self, COMMANDS, Load, Loaded, Site, Until},
    stored::{ABSENT_METHOD, Keys, RARE_METHOD},
    telemetry::live::{CONNECTING_MAX, Live},
};

/// Loops of each before anything is measured.
const WARM_UP: Duration = Duration::from_millis(500);
/// Reads of each kind, however long they take.
const READS_MIN: u64 = 20;

pub struct Case {
    pub server: Server,
    pub live: Live,
    pub site: Arc<Site>,
}

/// What one load found.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// Microseconds of the server's processor time for each command.
    pub cpu: f64,
    pub per_second: f64,
    /// Milliseconds.
    pub p50: f64,
    pub p99: f64,
}

/// Loads of both, in turn.
pub struct Pairs {
    pub small: Vec<Round>,
    pub large: Vec<Round>,
    pub judged: Judged,
}

/// How long reads of one kind took.
pub struct Reads {
    pub name: &'static str,
    pub title: &'static str,
    pub times: Histogram<u64>,
}

impl Case {
    /// Starts a server and connects all its docks.
    pub async fn start(place: &Place, prepared: &Prepared, keys: Keys) -> anyhow::Result<Self> {
        let server = place.start().await?.server;
        Self::connect(place, prepared, server, keys).await
    }

    /// Connects all docks of a server.
    pub async fn connect(
        place: &Place,
        prepared: &Prepared,
        server: Server,
        keys: Keys,
    ) -> anyhow::Result<Self> {
        let live = Live::connect(place.mqtt, prepared.docks.clone(), CONNECTING_MAX).await?;
        let mut site = Site::new(place.http, prepared);
        site.keys = keys;
        Ok(Self { server, live, site: Arc::new(site) })
    }

    pub async fn stop(self) -> anyhow::Result<()> {
        self.live.leave().await;
        self.server.stop().await
    }

    async fn load(&self, clients: usize, time: Duration) -> anyhow::Result<(Round, Judged)> {
        let cpu = self.server.cpu()?;
        let loaded = Load { clients, time, until: Until::Ended }.run(&self.site).await?;
        let used = self.server.cpu()?.saturating_sub(cpu);
        Ok((Round::of(&loaded, used), self.judge(&loaded)))
    }

    /// Every dock answers well.
    fn judge(&self, loaded: &Loaded) -> Judged {
        let is_right = |command: &&load::Told| {
            let is_well = command.end.as_ref().is_some_and(|(status, code)| {
                status == "SUCCEEDED" && code.as_deref() == Some("0")
            });
            is_well && self.live.count(&command.id) == 1
        };
        let right = loaded.commands.iter().filter(is_right).count();
        Judged { right: right as u64, all: loaded.commands.len() as u64 }
    }

    /// Reads what is stored: lists, and single commands that are old. Each kind for so long by one client, one after another.
    pub async fn reads(&self, old: &[String], time: Duration) -> anyhow::Result<Vec<Reads>> {
        let kinds = [
            ("list", "list of the newest 100 commands"),
            ("list_of_a_dock", "list of the newest 100 of a dock"),
            ("list_of_a_state", "list of the newest 100 that failed"),
            ("list_of_a_docks_state", "list of the newest 100 of a dock that succeeded"),
            ("list_of_a_rare_method", "list of a method of one in a thousand, a page"),
            ("list_of_an_absent_method", "list of a method that none is of, a page"),
            ("list_of_a_time", "list of a second in the middle, a page"),
            ("list_deep", "list of 100 deep in the pages"),
            ("command", "a stored command"),
            ("timeline", "its timeline"),
        ];
        let middle = second_of(old.get(old.len() / 2).context("nothing is stored")?)?;
        let mut client = self.site.connect().await?;
        let mut all = Vec::new();
        for (name, title) in kinds {
            let (mut times, start) = (load::times(), Instant::now());
            for (n, id) in old.iter().cycle().enumerate() {
                if times.len() >= READS_MIN && start.elapsed() >= time {
                    break;
                }
                let (path, query) = match name {
                    "list" => (COMMANDS.to_owned(), None),
                    "list_of_a_dock" => {
                        let of = format!("device_id={}", self.site.dock(n as u64));
                        (COMMANDS.to_owned(), Some(of))
                    }
                    "list_of_a_state" => (COMMANDS.to_owned(), Some("status=FAILED".to_owned())),
                    "list_of_a_docks_state" => {
                        let of = format!("status=SUCCEEDED&device_id={}", self.site.dock(n as u64));
                        (COMMANDS.to_owned(), Some(of))
                    }
                    "list_of_a_rare_method" => {
                        (COMMANDS.to_owned(), Some(format!("command_type={RARE_METHOD}")))
                    }
                    "list_of_an_absent_method" => {
                        (COMMANDS.to_owned(), Some(format!("command_type={ABSENT_METHOD}")))
                    }
                    "list_of_a_time" => (COMMANDS.to_owned(), Some(middle.clone())),
                    "list_deep" => (COMMANDS.to_owned(), Some(format!("cursor={id}"))),
                    "command" => (format!("{COMMANDS}/{id}"), None),
                    _ => (format!("{COMMANDS}/{id}/timeline"), None),
                };
                let began = Instant::now();
                client.read(&path, query.as_deref()).await?;
                load::record(&mut times, began.elapsed());
            }
            all.push(Reads { name, title, times });
        }
        Ok(all)
    }
}

/// Asks for the second that begins with a command's.
fn second_of(id: &str) -> anyhow::Result<String> {
    let (id, second) = (Uuid::parse_str(id)?, Duration::from_secs(1));
    let from = Timestamp::from_millis(i64::try_from(id.as_u128() >> 80)?);
    Ok(format!("accepted_after={from}&accepted_before={}", from.plus(second)))
}

impl Round {
    fn of(loaded: &Loaded, used: Duration) -> Self {
        let at = |quantile| loaded.times.value_at_quantile(quantile) as f64 / 1_000.0;
        Self {
            cpu: used.as_secs_f64() * 1e6 / loaded.done.max(1) as f64,
            per_second: loaded.done as f64 / loaded.took.as_secs_f64(),
            p50: at(0.5),
            p99: at(0.99),
        }
    }
}

/// Loads both in turn; who is first changes from round to round.
pub async fn in_turn(
    small: &Case,
    large: &Case,
    rounds: u32,
    clients: usize,
    time: Duration,
) -> anyhow::Result<Pairs> {
    let mut pairs = Pairs { small: Vec::new(), large: Vec::new(), judged: Judged::default() };
    for case in [small, large] {
        let (_, judged) = case.load(clients, WARM_UP).await?;
        add(&mut pairs.judged, judged);
    }
    for round in 0..rounds {
        let in_order = if round % 2 == 0 { [false, true] } else { [true, false] };
        for is_large in in_order {
            let case = if is_large { large } else { small };
            let (found, judged) = case.load(clients, time).await?;
            add(&mut pairs.judged, judged);
            if is_large { &mut pairs.large } else { &mut pairs.small }.push(found);
        }
    }
    Ok(pairs)
}
