//! `utmos bench growth`: what a command costs when a million are stored, ten thousand docks are connected or five hundred
//! tenants share the server, held against what it costs when there is little of that.
//!
//! The large case and the small one are two servers that run side by side and are loaded in turn, so that what else the
//! machine does befalls both: what counts is their ratio.

mod case;
mod report;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use tokio::{task::JoinSet, time::sleep};

use self::{
    case::{Case, Pairs},
    report::{Fact, Grown, Report},
};
use super::{
    Folder,
    child::{Place, Prepared},
    docks::Judged,
    load, parse_per_cent, parse_seconds,
    stored::{self, Fill, Keys},
    until_stopped,
};
use crate::{exit::Exit, open_files, opened, output};

/// Of the small cases.
const STORED: u64 = 1_000;
const DOCKS: u32 = 100;
/// HTTP connections a server is left when docks need nearly all files.
const HTTP_CONNECTIONS: u32 = 200;
/// Clients that send the commands that stay open.
const SENDERS: u64 = 16;
/// Time to rest before memory is read.
const SETTLE: Duration = Duration::from_secs(2);
/// Longest to wait until all open commands have arrived.
const ARRIVAL_WAIT: Duration = Duration::from_secs(60);
/// One of so many commands in a database is open at its restart.
const OPEN_OF: u64 = 100;
/// Restarts after `kill -9`.
const RESTARTS: usize = 3;

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Growing {
    /// Commands in the database
    Stored,
    /// Docks that are connected
    Docks,
    /// Tenants with commands
    Tenants,
}

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Commands stored in the large case; in the small one 1,000
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    commands: u64,
    /// Docks connected in the large case, as far as this process may open files; in the small one 100
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    docks: u32,
    /// Tenants in the large case, each with a dock; in the small one a tenant has all these docks
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    tenants: u32,
    /// Commands that docks have and do not answer, for what one takes in memory
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=100_000))]
    in_flight: u64,
    /// Let only this grow; can be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<Growing>,
    /// How often both cases are loaded, in turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// For how long each time, in seconds
    #[arg(long, value_name = "N", default_value_t = 3.0, value_parser = parse_seconds)]
    seconds: f64,
    /// Clients that load it
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=128))]
    clients: u16,
    /// Most growth of the processor time for a command that counts as flat, in per cent
    #[arg(long, value_name = "PER CENT", default_value_t = 20.0, value_parser = parse_per_cent)]
    growth_max: f64,
    /// Idempotency keys of stored and of new commands
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Keys::V7)]
    keys: Keys,
    /// Fail as well when the 99th percentile of a read is above 5 ms where much is stored
    #[arg(long)]
    judge_reads: bool,
    /// Write all figures to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Folder for the databases, which take some 4 GB for a million commands; what is made in it is removed
    #[arg(long, value_name = "DIR", default_value = ".")]
    data_dir: PathBuf,
}

/// Runs it.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    let folder = Folder::make(&args.data_dir)?;
    if cfg!(debug_assertions) {
        output::note("this is a debug build; only a release build is worth measuring");
    }
    let bench = Bench { args: &args, files: open_files::raise(), folder: &folder };
    let report = until_stopped(bench.measure()).await?;
    report.print();
    if let Some(file) = &args.json {
        std::fs::write(file, format!("{:#}\n", report.to_json()))
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    if !report.is_true() {
        output::note("failed: a command's final state was not what the dock did");
        return Ok(Exit::Failure);
    }
    if !report.is_flat() {
        output::note(format_args!("failed: more than {} % growth", args.growth_max));
        return Ok(Exit::Failure);
    }
    if args.judge_reads && !report.reads_are_quick() {
        output::note(format_args!("failed: a read took more than {} ms", report::READ_GOAL_MS));
        return Ok(Exit::Failure);
    }
    Ok(Exit::Done)
}

struct Bench<'a> {
    args: &'a Args,
    /// Files that a process may open.
    files: Option<u64>,
    folder: &'a Folder,
}

/// So many docks, or as many as may be connected where a process may open so many files.
pub fn docks_max(docks: u32, files: Option<u64>) -> u32 {
    let Some(files) = files else { return docks };
    let other = open_files::OTHER_FILES + u64::from(HTTP_CONNECTIONS);
    let each = open_files::FILES_OF_MQTT_CLIENT as u64;
    let room = u32::try_from(files.saturating_sub(other) / each).unwrap_or(u32::MAX);
    // One more than asked for is registered, and some have to be let in before they have logged in.
    docks.min(room.saturating_sub(100))
}

/// Has a server leave the files to so many docks.
pub fn leave_to_docks(place: &mut Place, docks: u32) {
    place.set(format!("http.connections_max={HTTP_CONNECTIONS}"));
    place.set(format!("mqtt.embedded.clients_max={}", docks + 100));
}

impl Bench<'_> {
    async fn measure(&self) -> anyhow::Result<Report> {
        let mut report = Report::new(self.args.growth_max, self.args.rounds, self.args.seconds);
        let wants = |one| self.args.only.is_empty() || self.args.only.contains(&one);
        if wants(Growing::Tenants) {
            self.tenants(&mut report).await.context("tenants")?;
        }
        if wants(Growing::Docks) {
            self.docks(&mut report).await.context("docks")?;
        }
        if wants(Growing::Stored) {
            self.stored(&mut report).await.context("stored commands")?;
        }
        Ok(report)
    }

    fn place(&self, name: &str) -> anyhow::Result<Place> {
        let dir = self.folder.path().join(name);
        opened::make_folder(&dir)?;
        Place::new(&dir)
    }

    /// Loads both in turn.
    async fn pairs(
        &self,
        small: &Case,
        large: &Case,
        report: &mut Report,
    ) -> anyhow::Result<Pairs> {
        let time = Duration::from_secs_f64(self.args.seconds);
        let clients = usize::from(self.args.clients);
        let pairs = case::in_turn(small, large, self.args.rounds, clients, time).await?;
        report.judge(pairs.judged);
        Ok(pairs)
    }

    /// As many docks each time, of one tenant and of many.
    async fn tenants(&self, report: &mut Report) -> anyhow::Result<()> {
        let tenants = self.args.tenants;
        output::note(format_args!("{tenants} docks of one tenant, and of as many tenants"));
        let (one, many) = (self.place("one-tenant")?, self.place("many-tenants")?);
        let of_one = Prepared::of_tenants(&one, 1, tenants).await?;
        let of_many = Prepared::of_tenants(&many, tenants, tenants).await?;
        let small = Case::start(&one, &of_one, self.args.keys).await?;
        let large = Case::start(&many, &of_many, self.args.keys).await?;
        let pairs = self.pairs(&small, &large, report).await?;
        report.add(Grown::new("tenants", "tenants", 1, u64::from(tenants), pairs));
        large.stop().await?;
        small.stop().await
    }

    /// Docks that the files are enough for, in the server and here.
    fn docks_max(&self) -> u32 {
        docks_max(self.args.docks, self.files).max(DOCKS)
    }

    async fn docks(&self, report: &mut Report) -> anyhow::Result<()> {
        let docks = self.docks_max();
        if docks < self.args.docks {
            output::note(format_args!(
                "{docks} docks instead of {}: this process may open {} files, and a dock takes two",
                self.args.docks,
                self.files.unwrap_or_default()
            ));
        }
        output::note(format_args!("connecting {DOCKS} docks, and {docks}"));
        let (few, mut many) = (self.place("few-docks")?, self.place("many-docks")?);
        leave_to_docks(&mut many, docks);
        let of_few = Prepared::new(&few, DOCKS).await?;
        let of_many = Prepared::new(&many, docks).await?;
        let small = Case::start(&few, &of_few, self.args.keys).await?;

        let server = many.start().await?.server;
        sleep(SETTLE).await;
        let before = server.resident_mb()?;
        let large = Case::connect(&many, &of_many, server, self.args.keys).await?;
        sleep(SETTLE).await;
        let after = large.server.resident_mb()?;
        let each = (after - before) * 1_024.0 / f64::from(docks + 1);
        report.tell(Fact::new(
            "memory_per_dock",
            "server memory for a connected dock",
            each,
            "KiB",
        ));
        let title = format!("server memory, {docks} docks connected");
        report.tell(Fact::new("memory_docks", &title, after, "MB"));

        let pairs = self.pairs(&small, &large, report).await?;
        report.add(Grown::new(
            "docks",
            "connected docks",
            u64::from(DOCKS),
            u64::from(docks),
            pairs,
        ));
        // Tens of thousands of connections end quickest with their server.
        drop(large);
        self.in_flight(small, report).await
    }

    /// What commands take that docks have and do not answer.
    async fn in_flight(&self, case: Case, report: &mut Report) -> anyhow::Result<()> {
        let commands = self.args.in_flight;
        output::note(format_args!("{commands} commands that nobody answers"));
        case.live.fall_silent();
        let (before, had) = (case.server.resident_mb()?, case.live.commands() as u64);
        let mut sending = JoinSet::new();
        for number in 0..SENDERS {
            let site = Arc::clone(&case.site);
            sending.spawn(async move {
                let mut client = site.connect().await?;
                for n in (number..commands).step_by(SENDERS as usize) {
                    client.act_for(n);
                    client.send_unanswered(site.dock(n)).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(sent) = sending.join_next().await {
            sent??;
        }
        let all_there = async {
            while (case.live.commands() as u64) < had + commands {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(ARRIVAL_WAIT, all_there).await.is_err() {
            bail!("not all of {commands} commands arrived within {} s", ARRIVAL_WAIT.as_secs());
        }
        let open = load::open_now(&case.site).await?;
        if open < commands {
            bail!("only {open} of {commands} commands that nobody answered are open");
        }
        let each = (case.server.resident_mb()? - before) * 1_024.0 / commands as f64;
        report.tell(Fact::new(
            "memory_per_command_in_flight",
            "server memory for a command in flight",
            each,
            "KiB",
        ));
        Ok(())
    }

    async fn stored(&self, report: &mut Report) -> anyhow::Result<()> {
        let commands = self.args.commands;
        let (little, much) = (self.place("little-stored")?, self.place("much-stored")?);
        let (of_little, of_much) =
            (Prepared::new(&little, DOCKS).await?, Prepared::new(&much, DOCKS).await?);
        output::note(format_args!("writing {STORED} commands, and {commands}"));
        let fill = |ended| Fill { ended, open: 0, with_nonces: false, keys: self.args.keys };
        let old = stored::fill(&little, &of_little, fill(STORED)).await?;
        let old_of_many = stored::fill(&much, &of_much, fill(commands)).await?;
        let bytes = std::fs::metadata(much.file("utmos.sqlite"))?.len();
        report.tell(Fact::new(
            "disk_per_command",
            "database for a command that has ended",
            bytes as f64 / 1_024.0 / commands as f64,
            "KiB",
        ));
        let small = Case::start(&little, &of_little, self.args.keys).await?;
        let large = Case::start(&much, &of_much, self.args.keys).await?;
        let pairs = self.pairs(&small, &large, report).await?;
        report.add(Grown::new("stored", "stored commands", STORED, commands, pairs));
        let time = Duration::from_secs_f64(self.args.seconds);
        let few = small.reads(&old, time).await?;
        let many = large.reads(&old_of_many, time).await?;
        for (few, many) in few.into_iter().zip(many) {
            report.read(few, many);
        }
        large.stop().await?;
        small.stop().await?;
        self.restarts(&much, &of_much, report).await
    }

    /// Starts with much stored: none of it open, and some of it.
    async fn restarts(
        &self,
        place: &Place,
        prepared: &Prepared,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let (commands, open) = (self.args.commands, self.args.commands / OPEN_OF);
        let started = place.start().await?;
        let title = format!("start until ready, {commands} commands stored");
        report.tell(Fact::millis("restart", &title, started.took));
        started.server.stop().await?;
        output::note(format_args!("writing {open} open commands"));
        let fill = Fill { ended: 0, open, with_nonces: true, keys: self.args.keys };
        stored::fill(place, prepared, fill).await?;
        let mut longest = Duration::ZERO;
        for _ in 0..RESTARTS {
            let started = place.start().await?;
            longest = longest.max(started.took);
            // Dropped, it is killed.
            drop(started.server);
        }
        let title =
            format!("the same with {open} of them open, longest of {RESTARTS} after kill -9");
        report.tell(Fact::millis("restart_open", &title, longest));
        Ok(())
    }
}

/// Adds up what was right.
fn add(to: &mut Judged, more: Judged) {
    to.right += more.right;
    to.all += more.all;
}
