//! `utmos bench`: measures this build on this machine, and prints the floors of the same minute beside every figure.
//!
//! The server runs as `utmos serve` in a process of its own, with the defaults and a fresh database. The load and the
//! simulated docks run in this process, and talk to it over real sockets. Every loop's end is compared with what the
//! dock really did; a run with a wrong one fails.

mod child;
mod docks;
mod floors;
mod http;
mod load;
mod machine;
mod report;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use self::{
    child::{Place, Prepared},
    docks::Docks,
    load::{Load, Loaded, Until},
    machine::Busy,
    report::{Measure, Report, Sample},
};
use crate::{exit::Exit, opened, output};

/// Docks the load is spread over.
const DOCKS: u32 = 100;
/// Loops before anything is measured.
const WARM_UP: Duration = Duration::from_millis(300);
/// Time to rest before the memory of an idle server is read.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// Longest to wait for the commands of one measurement to end.
const DRAIN_WAIT: Duration = Duration::from_secs(60);

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long each measurement takes, in seconds
    #[arg(long, value_name = "N", default_value_t = 3.0, value_parser = parse_seconds)]
    seconds: f64,
    /// How often everything is measured, each time with a fresh server and database
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// A first impression in a few seconds: one short run
    #[arg(long, conflicts_with_all = ["seconds", "runs"])]
    quick: bool,
    /// Write all figures to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Folder for the databases, on the disk that is to be measured; what is made in it is removed
    #[arg(long, value_name = "DIR", default_value = ".")]
    data_dir: PathBuf,
}

/// How long everything takes.
#[derive(Debug, Clone, Copy)]
struct Plan {
    runs: u32,
    /// Of each measurement of the server.
    time: Duration,
    /// Of each floor.
    floor_time: Duration,
}

impl Plan {
    fn of(args: &Args) -> Self {
        let (runs, time) = if args.quick {
            (1, Duration::from_millis(400))
        } else {
            (args.runs, Duration::from_secs_f64(args.seconds))
        };
        Self { runs, time, floor_time: (time / 2).max(Duration::from_millis(200)) }
    }
}

/// Runs it.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    let plan = Plan::of(&args);
    let folder = Folder::make(&args.data_dir)?;
    if cfg!(debug_assertions) {
        output::note("this is a debug build; only a release build is worth measuring");
    }
    let mut report = Report::new(plan.runs, plan.time);
    for run in 1..=plan.runs {
        output::note(format_args!("run {run} of {}", plan.runs));
        let dir = folder.0.join(format!("run-{run}"));
        tokio::select! {
            measured = measure(plan, &dir, &mut report) => measured.with_context(|| format!("run {run}"))?,
            stopped = tokio::signal::ctrl_c() => {
                stopped?;
                bail!("stopped");
            }
        }
        drop(std::fs::remove_dir_all(&dir));
    }
    report.print();
    if let Some(file) = &args.json {
        let text = format!("{:#}\n", report.to_json());
        std::fs::write(file, text)
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    if report.is_true() {
        return Ok(Exit::Done);
    }
    output::note("failed: a command's final state was not what the dock did");
    Ok(Exit::Failure)
}

/// One run: a fresh server, every measurement once.
async fn measure(plan: Plan, dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    floors(plan, dir, report).await?;
    let place = Place::new(dir)?;
    let prepared = Prepared::new(&place, DOCKS).await?;
    let mut server = place.start().await?.server;
    sleep(IDLE_WAIT.min(plan.time)).await;
    report.add(Measure::MemoryIdle, Sample::value(server.resident_mb()?));
    let mut docks = Docks::start(&place, &prepared).await?;
    sleep(IDLE_WAIT.min(plan.time)).await;
    report.add(Measure::MemoryDocks, Sample::value(server.resident_mb()?));

    let site = Arc::new(load::Site::new(&place, &prepared));
    let healthz = load::healthz(&site, 64, plan.floor_time).await?;
    report.add(Measure::Healthz, Sample::of(&healthz));
    let until = |clients, until| Load { clients, time: plan.time, until };
    Load { clients: 64, time: WARM_UP, until: Until::Ended }.run(&site).await?;
    for (clients, measure) in [(1, Measure::Accept1), (64, Measure::Accept64)] {
        let loaded = until(clients, Until::Accepted).run(&site).await?;
        report.add(measure, Sample::of(&loaded));
        drain(&site).await?;
        report.judge(docks.arrived_once(&loaded.commands));
    }
    for (clients, measure) in
        [(1, Measure::Loop1), (16, Measure::Loop16), (64, Measure::Loop64), (256, Measure::Loop256)]
    {
        let (cpu, busy) = (server.cpu()?, Busy::read()?);
        let loaded = until(clients, Until::Ended).run(&site).await?;
        let used = server.cpu()?.saturating_sub(cpu);
        report.disturbed(Busy::read()?.others_since(&busy, used));
        report.add(measure, Sample::of(&loaded));
        if clients == 64 {
            report.add(Measure::Cpu, Sample::value(per_loop(used, &loaded)));
        }
        report.judge(docks.compare(&loaded.commands));
    }
    let (times, loaded) = docks.emergencies(&site, plan.time).await?;
    report.add(Measure::Emergency, Sample::of_times(&times));
    report.judge(docks.compare(&loaded.commands));
    drain(&site).await?;
    report.add(Measure::MemoryLoad, Sample::value(server.resident_mb()?));
    report.stored(load::accepted_so_far(&site).await?);

    docks.stop().await;
    server.stop().await?;
    let started = place.start().await?;
    report.add(Measure::Restart, Sample::value(started.took.as_secs_f64() * 1_000.0));
    server = started.server;
    server.stop().await
}

async fn floors(plan: Plan, dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    opened::make_folder(dir)?;
    report.add(Measure::Sync, Sample::of(&floors::sync(dir, plan.floor_time).await?));
    for (in_flight, measure) in [(1, Measure::Mqtt1), (64, Measure::Mqtt64)] {
        report.add(measure, Sample::of(&floors::mqtt(in_flight, plan.floor_time).await?));
    }
    Ok(())
}

/// Waits until no command is open.
async fn drain(site: &load::Site) -> anyhow::Result<()> {
    let by = Instant::now() + DRAIN_WAIT;
    while load::open_now(site).await? > 0 {
        if by < Instant::now() {
            bail!("commands were still open after {} s", DRAIN_WAIT.as_secs());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Microseconds of the server's CPU for each loop.
#[expect(clippy::cast_precision_loss, reason = "no run has 2^52 loops")]
fn per_loop(used: Duration, loaded: &Loaded) -> f64 {
    used.as_secs_f64() * 1e6 / loaded.commands.len().max(1) as f64
}

/// A folder of our own, gone when we are.
struct Folder(PathBuf);

impl Folder {
    fn make(under: &Path) -> anyhow::Result<Self> {
        let under = under
            .canonicalize()
            .with_context(|| format!("there is no folder {}", under.display()))?;
        let folder = under.join(format!("utmos-bench-{}", std::process::id()));
        opened::make_folder(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3_600.0).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err("must be a number of seconds from 0.1 to 3600".to_owned()),
    }
}
