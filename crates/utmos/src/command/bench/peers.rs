//! `utmos bench peers`: this server and what people use in its place, in the same run, with the same docks and the same load.
//!
//! Peers are not part of the project, and nothing of them is shipped: npm installs them into a folder that `--peers` names, and
//! what is missing is told with the command that installs it. What they are given here is the least that sends a command and
//! matches its reply, and their programs' own defaults.

mod calls;
mod fiware;
mod installed;
mod node_red;
mod report;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep, timeout};

use self::{
    calls::{Target, Way},
    installed::{Installed, Process},
    report::{Figures, Report},
};
use super::{
    Folder,
    child::{Place, Prepared},
    docks::Docks,
    engine::{Around, Engine},
    load::{Load, Loaded, Site, Until},
    machine::{self, Busy},
    parse_seconds,
    reply::Reply,
    until_stopped,
};
use crate::{exit::Exit, open_files, opened, output};

/// Docks the load is spread over.
const DOCKS: u32 = 100;
/// Longest that a peer may take until a command comes back.
const START_WAIT: Duration = Duration::from_secs(60);
/// Longest that a command may take while a peer starts, beside what its dock takes, and how long it rests before the next.
const TRIAL_WAIT: Duration = Duration::from_secs(1);
const TRIAL_PAUSE: Duration = Duration::from_millis(50);
/// Everybody is loaded for so long before anything is measured, as programs are slower at first that are compiled as they run.
const WARM_UP: Duration = Duration::from_secs(2);

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long each measurement takes, in seconds
    #[arg(long, value_name = "N", default_value_t = 5.0, value_parser = parse_seconds)]
    seconds: f64,
    /// How often everything is measured, each time with fresh processes and a fresh database
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Clients that send their next command when the last has ended; can be repeated
    #[arg(long, value_name = "N", default_values_t = [64], value_parser = clap::value_parser!(u32).range(1..=1000))]
    clients: Vec<u32>,
    /// Measure only this peer beside the server; can be repeated
    #[arg(long, value_name = "NAME")]
    peer: Vec<Peer>,
    /// Folder into which npm installed the peers
    #[arg(long, value_name = "DIR", default_value = "peers")]
    peers: PathBuf,
    /// Leave Nagle's algorithm on in the peers, as their MQTT client does: it costs them 40 ms a loop where few are on their way
    #[arg(long)]
    nagle: bool,
    /// When the docks answer: so many milliseconds after a command came
    #[arg(long, value_name = "MS", default_value = "0", value_parser = Reply::parse)]
    reply: Reply,
    /// Write all figures to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Folder for databases and the peers' files, on the disk that is to be measured; what is made in it is removed
    #[arg(long, value_name = "DIR", default_value = ".")]
    data_dir: PathBuf,
}

/// What people command docks with in place of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Peer {
    /// Node-RED with a flow that sends a command and matches its reply
    NodeRed,
    /// FIWARE's IoT agent library, with a context broker that only listens
    Fiware,
}

impl Peer {
    const ALL: [Self; 2] = [Self::NodeRed, Self::Fiware];

    /// Its name in arguments and in the JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::NodeRed => "node-red",
            Self::Fiware => "fiware",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::NodeRed => "Node-RED",
            Self::Fiware => "FIWARE IoT agent",
        }
    }

    /// What npm calls its packages. Node.js itself comes with them, since what a distribution has is often too old.
    pub fn packages(self) -> &'static [&'static str] {
        match self {
            Self::NodeRed => &["node-red@5", "node@22"],
            Self::Fiware => &["iotagent-node-lib@4", "mqtt@5", "node@22"],
        }
    }

    /// What of a command's life it does not look after, which this server does in the same loop.
    pub fn does_not(self) -> &'static str {
        match self {
            Self::NodeRed => {
                "its flow keeps commands in memory alone: a restart forgets them, and silence leaves the caller without an answer. \
                 No signature, nonce, permission, tenant or idempotency key is looked at, no payload is checked, nothing is \
                 kept to be read later, no dock has a queue or an emergency lane, and the broker takes anybody"
            }
            Self::Fiware => {
                "its registry is in memory and its agent keeps no command that is on its way: a restart forgets them, and silence \
                 leaves a command pending. No signature, nonce, permission or idempotency key is looked at, no payload is checked, \
                 no dock has a queue or an emergency lane, and the broker takes anybody. The context broker keeps nothing either: it \
                 stands in for one that callers would go through, and that would cost more"
            }
        }
    }

    /// How many times its loops a second this server should do: at first, and in the end.
    pub fn goals(self) -> (f64, f64) {
        match self {
            Self::NodeRed => (3.0, 8.0),
            Self::Fiware => (10.0, 30.0),
        }
    }
}

/// Whose processor time counts for what.
struct Processes<'a> {
    server: u32,
    around: Option<&'a Around>,
}

/// Runs it.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    if args.reply == Reply::Never {
        bail!("--reply never: no peer tells its caller that a dock is silent; give milliseconds");
    }
    let peers = if args.peer.is_empty() { Peer::ALL.to_vec() } else { args.peer.clone() };
    let installed = Installed::find(&args.peers, &peers, args.nagle)?;
    let folder = Folder::make(&args.data_dir)?;
    // Told before the first minute is over, and not after it.
    drop(Around::start(Engine::Mosquitto, folder.path()).await?);
    if cfg!(debug_assertions) {
        output::note("this is a debug build; only a release build is worth measuring");
    }
    open_files::raise();
    let mut report = Report::new(&args, &installed);
    let work = async {
        for run in 1..=args.runs {
            output::note(format_args!("run {run} of {}", args.runs));
            let dir = folder.path().join(format!("run-{run}"));
            opened::make_folder(&dir)?;
            let mut round = Round { args: &args, dir, report: &mut report };
            let prepared = round.server().await.with_context(|| format!("run {run}"))?;
            for peer in &peers {
                let done = round.peer(*peer, &installed, &prepared).await;
                done.with_context(|| format!("run {run}, {}", peer.title()))?;
            }
            drop(std::fs::remove_dir_all(&round.dir));
        }
        Ok(())
    };
    until_stopped(work).await?;
    report.print();
    if let Some(file) = &args.json {
        std::fs::write(file, format!("{:#}\n", report.to_json()))
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    if report.is_true() {
        return Ok(Exit::Done);
    }
    output::note("failed: a command's end was not what the dock did");
    Ok(Exit::Failure)
}

/// One run.
struct Round<'a> {
    args: &'a Args,
    dir: PathBuf,
    report: &'a mut Report,
}

impl Round<'_> {
    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.args.seconds)
    }

    fn warm_up(&self) -> Load {
        Load { clients: 16, time: WARM_UP.min(self.time()), until: Until::Ended }
    }

    fn loads(&self) -> Vec<Load> {
        let of = |clients: &u32| Load {
            clients: usize::try_from(*clients).unwrap_or(1),
            time: self.time(),
            until: Until::Ended,
        };
        self.args.clients.iter().map(of).collect()
    }

    /// This server, with its own broker and database.
    async fn server(&mut self) -> anyhow::Result<Prepared> {
        let dir = self.dir.join("server");
        opened::make_folder(&dir)?;
        let place = Place::new(&dir)?;
        let prepared = Prepared::new(&place, DOCKS).await?.answering(self.args.reply);
        let server = place.start().await?.server;
        let docks = Docks::start(place.mqtt, &prepared).await?;
        let site = Arc::new(Site::new(place.http, &prepared));
        self.warm_up().run(&site).await?;
        let processes = Processes { server: server.id(), around: None };
        for load in self.loads() {
            let (figures, loaded) = processes.measured(load.run(&site)).await?;
            self.report.add(None, load.clients, figures, docks.compare(&loaded.commands));
        }
        docks.stop().await;
        server.stop().await?;
        Ok(prepared)
    }

    /// A peer, with a Mosquitto and the same docks.
    async fn peer(
        &mut self,
        peer: Peer,
        installed: &Installed,
        prepared: &Prepared,
    ) -> anyhow::Result<()> {
        let dir = self.dir.join(peer.key());
        opened::make_folder(&dir)?;
        let around = Around::start(Engine::Mosquitto, &dir).await?;
        let broker = around.broker().context("no broker was started")?;
        let docks = Docks::start(broker, prepared).await?;
        let mut sns: Vec<String> = prepared.docks.iter().map(|dock| dock.sn.clone()).collect();
        // The last one is not the load's.
        sns.pop();
        let (mut process, http, way) = match peer {
            Peer::NodeRed => {
                let (process, http) = node_red::start(installed, broker, &dir)?;
                (process, http, Way::Answer)
            }
            Peer::Fiware => fiware::start(installed, broker, &sns, &dir).await?,
        };
        let target = Arc::new(Target::new(http, way, sns));
        come_up(&mut process, &target, self.args.reply).await?;
        target.load(self.warm_up()).await?;
        let processes = Processes { server: process.id(), around: Some(&around) };
        for load in self.loads() {
            let (figures, loaded) = processes.measured(target.load(load)).await?;
            self.report.add(Some(peer), load.clients, figures, docks.compare(&loaded.commands));
        }
        docks.stop().await;
        Ok(())
    }
}

/// Waits until a command comes back.
async fn come_up(process: &mut Process, target: &Target, reply: Reply) -> anyhow::Result<()> {
    let by = Instant::now() + START_WAIT;
    loop {
        process.must_run()?;
        let why = match timeout(TRIAL_WAIT + reply.wait(), target.trial()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer within {} s", (TRIAL_WAIT + reply.wait()).as_secs()),
        };
        if by < Instant::now() {
            bail!("it does not come up within {} s: {why}", START_WAIT.as_secs());
        }
        sleep(TRIAL_PAUSE).await;
    }
}

impl Processes<'_> {
    fn beside(&self) -> anyhow::Result<Duration> {
        self.around.map_or(Ok(Duration::ZERO), Around::cpu)
    }

    async fn measured(
        &self,
        load: impl Future<Output = anyhow::Result<Loaded>>,
    ) -> anyhow::Result<(Figures, Loaded)> {
        let (cpu, beside, busy) = (machine::cpu_of(self.server)?, self.beside()?, Busy::read()?);
        let loaded = load.await?;
        let cpu = machine::cpu_of(self.server)?.saturating_sub(cpu);
        let beside = self.beside()?.saturating_sub(beside);
        let (_, others) = Busy::read()?.since(&busy, cpu + beside);
        if loaded.done == 0 {
            bail!("not one command ended");
        }
        let memory_mb = machine::resident_mb(self.server)?;
        let beside = self.around.map(|_| beside);
        Ok((Figures::of(&loaded, cpu, beside, memory_mb, others), loaded))
    }
}
