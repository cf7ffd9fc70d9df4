//! `utmos bench`: measures this build on this machine, and prints the floors of the same minute beside every figure.
//!
//! The server runs as `utmos serve` in a process of its own, with the defaults and a fresh database. The load and the
//! simulated docks run in this process, and talk to it over real sockets. Every loop's end is compared with what the
//! dock really did; a run with a wrong one fails.

mod child;
mod compare;
mod docks;
mod floors;
mod http;
mod instructions;
mod load;
mod machine;
mod paced;
mod race;
mod report;
mod stored;
mod telemetry;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use self::{
    child::{Place, Prepared, Server},
    docks::Docks,
    load::{Load, Loaded, Until},
    machine::Busy,
    report::{Measure, Report, Sample},
};
use crate::{exit::Exit, opened, output};

/// Docks the load is spread over.
const DOCKS: u32 = 100;
/// How long each measurement of a first impression takes.
const QUICK_TIME: Duration = Duration::from_millis(400);
/// Loops before anything is measured.
const WARM_UP: Duration = Duration::from_millis(300);
/// Time to rest before the memory of an idle server is read.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// Longest to wait for the commands of one measurement to end.
const DRAIN_WAIT: Duration = Duration::from_secs(60);

/// In the order of time.
const PHASES: [Measure; 3] = [Measure::PhaseAccept, Measure::PhaseHandOver, Measure::PhaseSeen];

/// What is measured beside speed.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Count the commands whose final state is what the dock did, under faults of every kind and kill -9
    Race(race::Args),
    /// Compare the figures of two files that --json wrote
    Compare(compare::Args),
    /// Count the instructions the server executes for a command, which hardly depend on what else runs; needs valgrind
    Instructions(instructions::Args),
}

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// How long each measurement takes, in seconds
    #[arg(long, value_name = "N", default_value_t = 3.0, value_parser = parse_seconds)]
    seconds: f64,
    /// How often everything is measured, each time with a fresh server and database
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// A first impression in a few seconds: one short run
    #[arg(long, conflicts_with_all = ["seconds", "runs"])]
    quick: bool,
    /// Measure only this, by its name in the JSON; can be repeated. restart_stored_100k and telemetry (with all that
    /// begins so) are measured only when named
    #[arg(long, value_name = "NAME", value_parser = Measure::parse)]
    only: Vec<Measure>,
    /// Write all figures to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Folder for the databases, on the disk that is to be measured; what is made in it is removed
    #[arg(long, value_name = "DIR", default_value = ".")]
    data_dir: PathBuf,
}

/// What is measured, and for how long.
#[derive(Debug, Clone)]
struct Plan {
    runs: u32,
    /// Of each measurement of the server.
    time: Duration,
    /// Of each floor.
    floor_time: Duration,
    /// Everything when it is empty.
    only: Vec<Measure>,
}

impl Plan {
    fn of(args: &Args) -> Self {
        let (runs, time) = if args.quick {
            (1, QUICK_TIME)
        } else {
            (args.runs, Duration::from_secs_f64(args.seconds))
        };
        Self { runs, time, floor_time: time / 2, only: args.only.clone() }
    }

    fn wants(&self, measure: Measure) -> bool {
        self.only.is_empty() || self.only.contains(&measure)
    }
}

/// Runs it.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    match args.what {
        Some(What::Race(race)) => return race::run(race).await,
        Some(What::Compare(compare)) => return compare::run(&compare),
        Some(What::Instructions(instructions)) => return instructions::run(instructions).await,
        None => {}
    }
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
            measured = measure(&plan, &dir, &mut report) => measured.with_context(|| format!("run {run}"))?,
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
async fn measure(plan: &Plan, dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    floors(plan, dir, report).await?;
    if plan.only.contains(&Measure::RestartStored) {
        restarts(&dir.join("stored"), report).await?;
    }
    if plan.only.contains(&Measure::Telemetry) {
        telemetry::measure(plan, &dir.join("telemetry"), report).await?;
    }
    let apart = [Measure::RestartStored, Measure::Telemetry];
    if !plan.only.is_empty() && plan.only.iter().all(|one| apart.contains(one)) {
        return Ok(());
    }
    let place = Place::new(dir)?;
    let prepared = Prepared::new(&place, DOCKS).await?;
    let server = place.start().await?.server;
    sleep(IDLE_WAIT.min(plan.time)).await;
    report.add(Measure::MemoryIdle, Sample::value(server.resident_mb()?));
    let docks = Docks::start(&place, &prepared).await?;
    sleep(IDLE_WAIT.min(plan.time)).await;
    report.add(Measure::MemoryDocks, Sample::value(server.resident_mb()?));

    let site = Arc::new(load::Site::new(&place, &prepared));
    let mut under_load = UnderLoad { plan, server, docks, site, report };
    under_load.measure().await?;
    let UnderLoad { server, docks, .. } = under_load;

    docks.stop().await;
    server.stop().await?;
    let started = place.start().await?;
    report.add(Measure::Restart, Sample::value(started.took.as_secs_f64() * 1_000.0));
    started.server.stop().await
}

/// A start with an old database, after an orderly stop and twice after `kill -9`. Only when it is asked for by name: to
/// write it takes longer than everything else together.
async fn restarts(dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    opened::make_folder(dir)?;
    let place = Place::new(dir)?;
    let prepared = Prepared::new(&place, DOCKS).await?;
    output::note(format_args!("writing {} commands", stored::ENDED + stored::OPEN));
    stored::fill(dir, &prepared).await?;
    for how in ["a stop", "kill -9", "kill -9"] {
        let started = place.start().await?;
        let millis = started.took.as_secs_f64() * 1_000.0;
        output::note(format_args!(
            "ready {millis:.0} ms after {how}, with {} commands stored, {} open",
            stored::ENDED + stored::OPEN,
            stored::OPEN
        ));
        report.add(Measure::RestartStored, Sample::value(millis));
        // Dropped, it is killed.
        drop(started.server);
    }
    Ok(())
}

async fn floors(plan: &Plan, dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    opened::make_folder(dir)?;
    if plan.wants(Measure::Sync) {
        report.add(Measure::Sync, Sample::of(&floors::sync(dir, plan.floor_time).await?));
    }
    for (in_flight, measure) in [(1, Measure::Mqtt1), (64, Measure::Mqtt64)] {
        if plan.wants(measure) {
            report.add(measure, Sample::of(&floors::mqtt(in_flight, plan.floor_time).await?));
        }
    }
    Ok(())
}

/// A server with its docks, to be loaded.
struct UnderLoad<'a> {
    plan: &'a Plan,
    server: Server,
    docks: Docks,
    site: Arc<load::Site>,
    report: &'a mut Report,
}

impl UnderLoad<'_> {
    async fn measure(&mut self) -> anyhow::Result<()> {
        if self.plan.wants(Measure::Healthz) {
            let healthz = load::healthz(&self.site, 64, self.plan.floor_time).await?;
            self.report.add(Measure::Healthz, Sample::of(&healthz));
        }
        Load { clients: 64, time: WARM_UP, until: Until::Ended }.run(&self.site).await?;
        for (clients, measure) in [(1, Measure::Accept1), (64, Measure::Accept64)] {
            if self.plan.wants(measure) {
                self.accepts(clients, measure).await?;
            }
        }
        for (clients, measure) in [
            (1, Measure::Loop1),
            (16, Measure::Loop16),
            (64, Measure::Loop64),
            (256, Measure::Loop256),
        ] {
            if self.plan.wants(measure) {
                self.loops(clients, measure).await?;
            }
        }
        for (a_second, measure) in [(500, Measure::Paced500), (2_000, Measure::Paced2000)] {
            if self.plan.wants(measure) {
                self.paced(a_second, measure).await?;
            }
        }
        if PHASES.into_iter().any(|phase| self.plan.wants(phase)) {
            let (phases, judged) = self.docks.phases(&self.site, self.plan.time).await?;
            let docks::Phases { accept, hand_over, seen } = phases;
            for (measure, times) in PHASES.into_iter().zip([accept, hand_over, seen]) {
                self.report.add(measure, Sample::of_times(&times));
            }
            self.report.judge(judged);
        }
        if self.plan.wants(Measure::Emergency) {
            let (times, judged) = self.docks.emergencies(&self.site, self.plan.time).await?;
            self.report.add(Measure::Emergency, Sample::of_times(&times));
            self.report.judge(judged);
        }
        drain(&self.site).await?;
        self.report.add(Measure::MemoryLoad, Sample::value(self.server.resident_mb()?));
        self.report.stored(load::accepted_so_far(&self.site).await?);
        Ok(())
    }

    async fn accepts(&mut self, clients: usize, measure: Measure) -> anyhow::Result<()> {
        let load = Load { clients, time: self.plan.time, until: Until::Accepted };
        let loaded = load.run(&self.site).await?;
        self.report.add(measure, Sample::of(&loaded));
        drain(&self.site).await?;
        self.report.judge(self.docks.arrived_once(&loaded.commands));
        Ok(())
    }

    async fn paced(&mut self, a_second: u32, measure: Measure) -> anyhow::Result<()> {
        let paced = paced::run(&self.site, a_second, self.plan.time).await?;
        self.report.add(measure, Sample::of(&paced));
        self.report.judge(self.docks.compare(&paced.commands));
        Ok(())
    }

    async fn loops(&mut self, clients: usize, measure: Measure) -> anyhow::Result<()> {
        let load = Load { clients, time: self.plan.time, until: Until::Ended };
        let (cpu, busy) = (self.server.cpu()?, Busy::read()?);
        let written = self.server.written()?;
        let loaded = load.run(&self.site).await?;
        let used = self.server.cpu()?.saturating_sub(cpu);
        let (own, others) = Busy::read()?.since(&busy, used);
        self.report.disturbed(others);
        self.report.add(measure, Sample::of(&loaded));
        if measure == Measure::Loop64 {
            self.report.add(Measure::Cpu, Sample::value(per_loop(used, &loaded)));
            self.report.add(Measure::OwnCpu, Sample::value(per_loop(own, &loaded)));
            let written = self.server.written()?.saturating_sub(written) as f64 / 1_024.0;
            let each = written / loaded.commands.len().max(1) as f64;
            self.report.add(Measure::Written, Sample::value(each));
        }
        self.report.judge(self.docks.compare(&loaded.commands));
        Ok(())
    }
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

/// Microseconds of processor time for each loop.
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

    fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves it where it is.
    fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.0.as_os_str().is_empty() {
            return;
        }
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3_600.0).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err("must be a number of seconds from 0.1 to 3600".to_owned()),
    }
}
