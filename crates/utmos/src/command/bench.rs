//! `utmos bench`: measures this build on this machine, and prints the floors of the same minute beside every figure.
//!
//! The server runs as `utmos serve` in a process of its own, with the defaults and a fresh database. The load and the
//! simulated docks run in this process, and talk to it over real sockets. With `--server` it is one that runs already and
//! is marked as one that may be loaded. Every loop's end is compared with what the dock really did; a run with a wrong one
//! fails.

mod capacity;
mod child;
mod compare;
mod docks;
mod engine;
mod floors;
mod growth;
mod http;
mod instructions;
mod load;
mod machine;
mod measure;
mod moment;
mod paced;
mod peers;
mod race;
mod reconnect;
mod reply;
mod report;
mod running;
mod stored;
mod telemetry;
mod under_load;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use self::{
    child::{Place, Prepared},
    docks::Docks,
    engine::{Around, Choice, Kind},
    measure::Measure,
    reply::Reply,
    report::{Report, Sample},
    running::Running,
    stored::{Fill, Keys},
    under_load::{Measured, UnderLoad},
};
use crate::{exit::Exit, open_files, opened, output};

/// Docks the load is spread over.
const DOCKS: u32 = 100;
/// What is stored before a start with much stored.
const STORED: Fill = Fill { ended: 100_000, open: 1_000, with_nonces: true, keys: Keys::V7 };
/// How long each measurement of a first impression takes.
const QUICK_TIME: Duration = Duration::from_millis(400);
/// Time to rest before the memory of an idle server is read.
const IDLE_WAIT: Duration = Duration::from_secs(1);

/// What is measured beside speed.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Count the commands whose final state is what the dock did, under faults of every kind and kill -9
    Race(race::Args),
    /// Hold what a command costs when much is stored, connected and shared against what it costs when little is
    Growth(growth::Args),
    /// Hold this server against what people use in its place, in the same run with the same docks and the same load
    Peers(peers::Args),
    /// Work out what a fleet needs from what one command, one message and one dock cost, and what there is too little of first
    Capacity(capacity::Args),
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
    /// Measure only this, by its name in the JSON; can be repeated. loop_512, restart_stored_100k, reconnect_10k and telemetry (with
    /// all that begins so) are measured only when named
    #[arg(long, value_name = "NAME", value_parser = Measure::parse)]
    only: Vec<Measure>,
    /// Write all figures to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Folder for the databases, on the disk that is to be measured; what is made in it is removed
    #[arg(long, value_name = "DIR", default_value = ".")]
    data_dir: PathBuf,
    /// What the server works with. Mosquitto and PostgreSQL are started for it, and ended
    #[arg(long, value_name = "NAME", default_value = "embedded", conflicts_with = "server")]
    engine: Choice,
    /// How many servers share the database and the broker, with --engine postgres; can be repeated, to hold one against several
    #[arg(long, value_name = "N", default_values_t = [1], value_parser = clap::value_parser!(u32).range(1..=8), conflicts_with = "server")]
    servers: Vec<u32>,
    /// When the docks of the load answer: so many milliseconds after a command came, or never, which ends commands by their time
    #[arg(long, value_name = "MS|never", default_value = "0", value_parser = Reply::parse)]
    reply: Reply,
    #[command(flatten)]
    running: running::RunningArgs,
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
    reply: Reply,
}

impl Plan {
    fn of(args: &Args) -> Self {
        let (runs, time) = if args.quick {
            (1, QUICK_TIME)
        } else {
            (args.runs, Duration::from_secs_f64(args.seconds))
        };
        let mut only = args.only.clone();
        only.extend(args.only.iter().map(|measure| measure.part_of()));
        Self { runs, time, floor_time: time / 2, only, reply: args.reply }
    }

    /// The server that runs already and is to be loaded.
    async fn at(&self, args: &running::RunningArgs) -> anyhow::Result<Running> {
        if let Some(measure) = self.only.iter().find(|measure| measure.is_of_own_server()) {
            bail!("--only {} needs a server of the bench's own: leave --server out", measure.key());
        }
        args.find().await
    }

    fn wants(&self, measure: Measure) -> bool {
        (self.only.is_empty() && !measure.is_extra()) || self.only.contains(&measure)
    }
}

/// Runs it.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    match args.what {
        Some(What::Race(race)) => return race::run(race).await,
        Some(What::Growth(growth)) => return growth::run(growth).await,
        Some(What::Peers(peers)) => return peers::run(peers).await,
        Some(What::Capacity(capacity)) => return capacity::run(&capacity),
        Some(What::Compare(compare)) => return compare::run(&compare),
        Some(What::Instructions(instructions)) => return instructions::run(instructions).await,
        None => {}
    }
    let plan = Plan::of(&args);
    open_files::raise();
    let has_own_docks = |measure: &&Measure| measure.is_apart();
    if plan.reply != Reply::AtOnce
        && let Some(measure) = plan.only.iter().find(has_own_docks)
    {
        bail!("--reply: the docks of {} answer at once; leave one of the two out", measure.key());
    }
    let folder = Folder::make(&args.data_dir)?;
    if let Some(file) = &args.json {
        // Better known now than after all runs.
        drop(
            std::fs::File::options()
                .create(true)
                .append(true)
                .open(file)
                .with_context(|| format!("{} cannot be written", file.display()))?,
        );
    }
    if cfg!(debug_assertions) {
        output::note("this is a debug build; only a release build is worth measuring");
    }
    let work = async {
        match args.running.is_given() {
            true => plan.load_running(&args.running, folder.path()).await.map(|it| vec![it]),
            false => plan.measure_engines(args.engine, &args.servers, folder.path()).await,
        }
    };
    let reports = until_stopped(work).await?;
    for report in &reports {
        report.print();
        output::line("");
    }
    report::print_beside(&reports);
    if let Some(file) = &args.json {
        let figures = match reports.as_slice() {
            [only] => only.to_json(),
            several => serde_json::json!({
                "version": env!("CARGO_PKG_VERSION"),
                "engines": several.iter().map(Report::to_json).collect::<Vec<_>>(),
            }),
        };
        std::fs::write(file, format!("{figures:#}\n"))
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    for missed in reports.iter().filter_map(Report::missed) {
        output::note(missed);
    }
    let is_true = reports.iter().all(Report::is_true);
    if !is_true {
        output::note("failed: a command's final state was not what the dock did");
    }
    let is_good = is_true && reports.iter().all(|report| report.missed().is_none());
    Ok(if is_good { Exit::Done } else { Exit::Failure })
}

/// Does it until somebody ends it; what was begun for it ends with it.
async fn until_stopped<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = work => done,
        stopped = tokio::signal::ctrl_c() => {
            stopped?;
            bail!("stopped");
        }
        _ = terminate.recv() => bail!("stopped"),
    }
}

impl Plan {
    /// Every run of every engine. The engines take turns, so that what else the machine does befalls all of them.
    async fn measure_engines(
        &self,
        choice: Choice,
        servers: &[u32],
        folder: &Path,
    ) -> anyhow::Result<Vec<Report>> {
        if choice != Choice::Postgres && servers.iter().any(|servers| *servers > 1) {
            bail!("--servers: several servers share a PostgreSQL; add --engine postgres");
        }
        let engines = choice.engines().iter();
        let kinds =
            engines.flat_map(|engine| servers.iter().map(|servers| Kind::of(*engine, *servers)));
        let kinds: Vec<Kind> = kinds.collect();
        let mut reports: Vec<Report> =
            kinds.iter().map(|kind| Report::new(Some(*kind), self)).collect();
        for run in 1..=self.runs {
            for (kind, report) in kinds.iter().zip(&mut reports) {
                let with = if kinds.len() > 1 { kind.title() } else { String::new() };
                output::note(format_args!("run {run} of {} {with}", self.runs));
                let dir = folder.join(format!("run-{run}-{}-{}", kind.engine.key(), kind.servers));
                let measured = measure(self, *kind, &dir, report).await;
                measured.with_context(|| format!("run {run} with {}", kind.title()))?;
                drop(std::fs::remove_dir_all(&dir));
            }
        }
        Ok(reports)
    }

    /// Every run at a server that runs already.
    async fn load_running(
        &self,
        args: &running::RunningArgs,
        folder: &Path,
    ) -> anyhow::Result<Report> {
        let running = self.at(args).await?;
        let prepared = running.prepare(DOCKS).await?.answering(self.reply);
        let mut report = Report::new(None, self);
        for run in 1..=self.runs {
            output::note(format_args!("run {run} of {}", self.runs));
            running.must_still_be_allowed().await?;
            if running.is_here {
                floors(self, None, &folder.join("floors"), &mut report).await?;
            }
            let docks = Docks::start(running.mqtt, &prepared).await?;
            let site = Arc::new(load::Site::new(running.http, &prepared));
            let mut under_load = UnderLoad {
                plan: self,
                server: Measured::Elsewhere,
                docks,
                site,
                report: &mut report,
            };
            under_load.measure().await.with_context(|| format!("run {run}"))?;
            under_load.docks.stop().await;
        }
        if let Some((first, last)) = prepared.docks.first().zip(prepared.docks.last()) {
            output::note(format_args!(
                "the docks {} to {} stay registered for the next bench, and their commands stay stored",
                first.sn, last.sn
            ));
        }
        Ok(report)
    }
}

/// One run: a fresh server, every measurement once.
async fn measure(plan: &Plan, kind: Kind, dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    opened::make_folder(dir)?;
    let around = Around::start(kind.engine, dir).await?;
    floors(plan, Some(&around), dir, report).await?;
    let place = |name: &str| {
        let dir = dir.join(name);
        opened::make_folder(&dir)?;
        let mut place = Place::new(&dir)?;
        around.serve(&mut place);
        anyhow::Ok(place)
    };
    if plan.only.contains(&Measure::RestartStored) {
        restarts(&place("stored")?, report).await?;
    }
    if plan.only.contains(&Measure::Telemetry) {
        telemetry::measure(plan, &place("telemetry")?, &around, report).await?;
    }
    if plan.only.contains(&Measure::TelemetryPaced2000) {
        telemetry::measure_paced(plan, &place("telemetry-paced")?, report).await?;
    }
    if plan.only.contains(&Measure::Reconnect) {
        reconnect::measure(place("reconnect")?, report).await?;
    }
    if plan.wants(Measure::Start) {
        // A folder that nothing is in: database, key and journal are made.
        let started = place("start")?.start().await?;
        report.add(Measure::Start, Sample::value(started.took.as_secs_f64() * 1_000.0));
        started.server.stop().await?;
    }
    let is_done = |one: &Measure| one.is_apart() || one.is_floor() || *one == Measure::Start;
    if !plan.only.is_empty() && plan.only.iter().all(is_done) {
        return Ok(());
    }
    let (first, mut further) = (place("server")?, Vec::new());
    for number in 2..=kind.servers {
        let mut beside = place(&format!("server-{number}"))?;
        beside.share_with(&first)?;
        further.push(beside);
    }
    let place = first;
    let prepared = Prepared::new(&place, DOCKS).await?.answering(plan.reply);
    let server = place.start().await?.server;
    let mut beside = Vec::new();
    for place in &further {
        beside.push(place.start().await?.server);
    }
    if kind.servers > 1 {
        place.shared_by(kind.servers).await?;
    }
    sleep(IDLE_WAIT.min(plan.time)).await;
    report.add(Measure::MemoryIdle, Sample::value(server.resident_mb()?));
    let docks = Docks::start(place.mqtt, &prepared).await?;
    sleep(IDLE_WAIT.min(plan.time)).await;
    report.add(Measure::MemoryDocks, Sample::value(server.resident_mb()?));

    let others = further.iter().map(|place| place.http);
    let site = Arc::new(load::Site::new(place.http, &prepared).beside(others));
    let server = Measured::Own { server, beside, around: Box::new(around) };
    let mut under_load = UnderLoad { plan, server, docks, site, report };
    under_load.measure().await?;
    let UnderLoad { server, docks, .. } = under_load;

    docks.stop().await;
    let Measured::Own { server, beside, around: _around } = server else { return Ok(()) };
    for one in beside {
        one.stop().await?;
    }
    server.stop().await?;
    let started = place.start().await?;
    report.add(Measure::Restart, Sample::value(started.took.as_secs_f64() * 1_000.0));
    started.server.stop().await
}

/// A start with an old database, after an orderly stop and twice after `kill -9`. Only when it is asked for by name: to
/// write it takes longer than everything else together.
async fn restarts(place: &Place, report: &mut Report) -> anyhow::Result<()> {
    let prepared = Prepared::new(place, DOCKS).await?;
    output::note(format_args!("writing {} commands", STORED.ended + STORED.open));
    stored::fill(place, &prepared, STORED).await?;
    for how in ["a stop", "kill -9", "kill -9"] {
        let started = place.start().await?;
        let millis = started.took.as_secs_f64() * 1_000.0;
        output::note(format_args!(
            "ready {millis:.0} ms after {how}, with {} commands stored, {} open",
            STORED.ended + STORED.open,
            STORED.open
        ));
        report.add(Measure::RestartStored, Sample::value(millis));
        // Dropped, it is killed.
        drop(started.server);
    }
    Ok(())
}

async fn floors(
    plan: &Plan,
    around: Option<&Around>,
    dir: &Path,
    report: &mut Report,
) -> anyhow::Result<()> {
    opened::make_folder(dir)?;
    if plan.wants(Measure::Sync) {
        report.add(Measure::Sync, Sample::of(&floors::sync(dir, plan.floor_time).await?));
    }
    let database = around.and_then(Around::database);
    for (rows, measure) in [(1, Measure::Commit1), (floors::AT_ONCE, Measure::Commit64)] {
        if plan.wants(measure) {
            let commits = floors::commits(dir, database.as_deref(), rows, plan.floor_time).await?;
            report.add(measure, Sample::of(&commits));
        }
    }
    let broker = around.and_then(Around::broker);
    for (in_flight, measure) in [(1, Measure::Mqtt1), (64, Measure::Mqtt64)] {
        if plan.wants(measure) {
            let trips = floors::mqtt(broker, in_flight, plan.floor_time).await?;
            report.add(measure, Sample::of(&trips));
        }
    }
    for (clients, measure) in [(1, Measure::Echo1), (64, Measure::Echo64)] {
        if plan.wants(measure) {
            report.add(measure, Sample::of(&floors::echo(clients, plan.floor_time).await?));
        }
    }
    Ok(())
}

/// How a bench's own folders begin.
const FOLDER_START: &str = "utmos-bench-";

/// A folder of our own, gone when we are.
struct Folder(PathBuf);

impl Folder {
    fn make(under: &Path) -> anyhow::Result<Self> {
        let under = under
            .canonicalize()
            .with_context(|| format!("there is no folder {}", under.display()))?;
        if machine::is_in_memory(&under) {
            output::note(format_args!(
                "{} is in memory: what is said of writes and syncs is of no disk",
                under.display()
            ));
        }
        let folder = under.join(format!("{FOLDER_START}{}", std::process::id()));
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

fn parse_per_cent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1e6).contains(&share) => Ok(share),
        Ok(_) | Err(_) => Err("must be a number of per cent from 0 to 1000000".to_owned()),
    }
}
