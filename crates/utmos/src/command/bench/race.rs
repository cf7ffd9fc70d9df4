//! `utmos bench race`: how many of all commands end with a state that is what the dock did, while docks misbehave in every
//! way the simulator knows and the server is killed again and again.
//!
//! Callers do not wait for one another: commands begin at their intended times, however the server does. What is found is
//! judged by [`judge`], against the docks' own ledger and what went over the wire. A race with one untrue command fails.

mod desk;
mod errand;
mod judge;
mod plan;
mod report;
mod site;
mod witness;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::json;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, sleep_until, timeout},
};
use utmos_core::{command::Status, method::Risk, time::Clock};
use utmos_dji::catalogue::Catalogue;
use utmos_server::clock::SystemClock;
use utmos_sim::{BrokerAddress, DockConfig, Fleet, FleetConfig, Model, Outcome, fault::Fault};

use self::{
    desk::{Desk, Listed, Told},
    errand::Errands,
    judge::{Case, Verdict},
    plan::Plan,
    report::{Report, WrongOne},
    site::{Servers, Site},
    witness::Witness,
};
use super::{
    Folder,
    child::Prepared,
    engine::Engine,
    machine::Busy,
    parse_seconds,
    running::{Elsewhere, is_loopback},
};
use crate::{exit::Exit, opened, output};

/// The gateways are of these models in turn. So many that, of each, some fly.
const MODELS: [Model; 7] = [
    Model::Dock2,
    Model::Dock3,
    Model::Dock1,
    Model::Dock2,
    Model::RcPlus2,
    Model::Dock3M4td,
    Model::RcPro,
];
/// How many times faster than real ones the docks work and fly, so that jobs end within the race.
const SPEED: f64 = 20.0;
/// Docks look for their broker this often, so that a killed server is soon found again.
const RECONNECT_WAIT_MIN: Duration = Duration::from_millis(20);
const RECONNECT_WAIT_MAX: Duration = Duration::from_millis(100);
/// Longest to wait for the docks, and for their first commands.
const READY_WAIT: Duration = Duration::from_secs(60);
/// From the start of the docks to the first command: a while, and for each dock a little more.
const LEAD: Duration = Duration::from_secs(2);
const LEAD_EACH: Duration = Duration::from_millis(20);
/// How often it is looked whether all commands have ended.
const LOOK_WAIT: Duration = Duration::from_millis(250);
/// What the docks' ledger can hold, with room to spare.
const COMMANDS_MAX: f64 = 150_000.0;
/// An answer is taken for lost with a server that was not there within a second; of a longer absence each half second counts.
const ABSENT_STEP_MS: usize = 500;
/// Longest until other servers have taken over what a dead one held, and what they have taken has been handed back to the next.
const TAKEN_OVER_MS: i64 = 6_000;
/// How long before a command that is wrong its gateway's connection is told of.
const LINKS_BEFORE_MS: i64 = 5_000;
const OVERRIDE_FILE: &str = "race-catalogue.json";

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Commands a second that are asked for; some are refused as another movement is in the way, which leaves more than 200 of 240
    #[arg(long, value_name = "N", default_value_t = 240.0, value_parser = parse_rate)]
    rate: f64,
    /// How long commands are sent, in seconds
    #[arg(long, value_name = "N", default_value_t = 60.0, value_parser = parse_seconds)]
    seconds: f64,
    /// From one kill -9 of the server to the next, in seconds; 0 for none
    #[arg(long, value_name = "N", default_value_t = 5.0, value_parser = parse_kill_every)]
    kill_every: f64,
    /// Simulated docks
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(5..=1000))]
    docks: u32,
    /// Fixes commands and faults
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// An MQTT 5 broker at which server and docks meet, in place of the server's own; it must take anybody
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "engine")]
    broker: Option<SocketAddr>,
    #[command(flatten)]
    elsewhere: Elsewhere,
    /// What the server works with; other than its own, the race starts it
    #[arg(long, value_enum, default_value = "embedded")]
    engine: Engine,
    /// How many servers share the database and the broker, with --engine postgres; they are killed in turn
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    servers: u8,
    /// How long a job may be silent before it ends as unknown, in seconds; the catalogue's own time when absent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=600))]
    silence: Option<u64>,
    /// Longest to wait for all commands to end, in seconds; the flights' own silence is 600
    #[arg(long, value_name = "N", default_value_t = 720, value_parser = clap::value_parser!(u64).range(1..=3600))]
    settle: u64,
    /// Write all figures to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Folder for the database; what is made in it is removed, unless a command was wrong
    #[arg(long, value_name = "DIR", default_value = ".")]
    data_dir: PathBuf,
}

/// Runs it.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    if COMMANDS_MAX < args.rate * args.seconds {
        bail!("--rate times --seconds must be at most {COMMANDS_MAX}: the docks remember no more");
    }
    if args.servers > 1 && args.engine != Engine::Postgres {
        bail!("--servers: several servers share a PostgreSQL; add --engine postgres");
    }
    if let Some(broker) = args.broker {
        // Docks with faults, and a server that commands them, join whatever else is there.
        let host = broker.ip().to_canonical();
        args.elsewhere.must_be_meant("--broker", &host.to_string(), is_loopback(host))?;
    }
    let folder = Folder::make(&args.data_dir)?;
    if cfg!(debug_assertions) {
        output::note("this is a debug build: take a low --rate");
    }
    let report = tokio::select! {
        report = Race::hold(&args, folder.path()) => report?,
        stopped = tokio::signal::ctrl_c() => {
            stopped?;
            bail!("stopped");
        }
    };
    report.print();
    if let Some(file) = &args.json {
        let text = format!("{:#}\n", report.to_json());
        std::fs::write(file, text)
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    if report.is_true() {
        return Ok(Exit::Done);
    }
    let kept = folder.keep();
    output::note(format_args!("failed; the server's database and log are in {}", kept.display()));
    Ok(Exit::Failure)
}

/// A race that is held.
struct Race<'a> {
    args: &'a Args,
    time: Duration,
    site: Site,
    desk: Arc<Desk>,
    catalogue: Arc<Catalogue>,
    clock: SystemClock,
}

/// What became of the servers while they were killed.
struct Deaths {
    /// Those that stand in the end.
    servers: Servers,
    times: DeathTimes,
    /// How long the next one took to be ready, in milliseconds.
    restarts: Vec<f64>,
    /// Processor time of all of them.
    cpu: Duration,
}

/// In Unix milliseconds.
#[derive(Default)]
struct DeathTimes {
    /// When servers were killed.
    killed: Vec<i64>,
    /// The same, and moments at which there was none, where a broker of others goes on without it.
    absent: Vec<i64>,
    /// Moments at which nobody may have sent what waited for some gateway.
    unsent: Vec<i64>,
}

/// What the docks say of themselves.
struct Truth {
    models: BTreeMap<String, Model>,
    outcomes: BTreeMap<String, Vec<Outcome>>,
    received_at: BTreeMap<String, Vec<i64>>,
    faults: BTreeMap<String, Fault>,
    witness: Witness,
}

impl<'a> Race<'a> {
    async fn hold(args: &'a Args, dir: &Path) -> anyhow::Result<Report> {
        let mut catalogue = Catalogue::embedded()?;
        opened::make_folder(dir)?;
        let mut site = Site::new(args.engine, usize::from(args.servers), dir).await?;
        if let Some(seconds) = args.silence {
            let text = silence(seconds);
            catalogue = catalogue.with_override(&text)?;
            site.give("catalogue.override_file", OVERRIDE_FILE, &text)?;
        }
        if let Some(broker) = args.broker {
            site.meet_at(broker);
        }
        let prepared = Prepared::of_models(site.first()?, &MODELS, args.docks).await?;
        let race = Self {
            args,
            time: Duration::from_secs_f64(args.seconds),
            desk: Arc::new(Desk::new(site.addresses(), &prepared)),
            site,
            catalogue: Arc::new(catalogue),
            clock: SystemClock::new(),
        };
        race.run(&prepared).await
    }

    async fn run(&self, prepared: &Prepared) -> anyhow::Result<Report> {
        let args = self.args;
        let (_, docks) = prepared.docks.split_last().context("there are no docks")?;
        let busy = Busy::read()?;
        let servers = self.site.start().await?;
        let lead = LEAD + LEAD_EACH * args.docks;
        let each = (args.rate * args.seconds / f64::from(args.docks)).ceil() as usize + 1;
        let plan = Plan::draw(args.seed, docks, each, lead, self.time);
        let (docks_began, start) = (self.now(), Instant::now() + lead);
        let (fleet, witness) = self.fleet(docks, &plan)?;
        timeout(READY_WAIT, fleet.ready()).await.context("the docks do not come online")?;
        let mut errands = Errands::new(args.seed, docks);
        let mut told = self.prepare(&mut errands, docks.len()).await?;
        sleep_until(start).await;

        output::note(format_args!("{:.0} commands in {:?}", args.rate * args.seconds, self.time));
        let began = Instant::now();
        let (asked, deaths) =
            tokio::join!(self.ask(&mut errands, began), self.kill(servers, began));
        let (asked, mut deaths) = (asked?, deaths?);
        let took = began.elapsed();
        let mut report = Report {
            seed: args.seed,
            rate: args.rate,
            time: self.time,
            kill_every: Duration::from_secs_f64(args.kill_every),
            docks: args.docks,
            broker: args.broker,
            engine: args.engine.key(),
            servers: args.servers,
            asked: asked.len() as u64,
            repeats: self.desk.repeats(),
            replays: self.desk.replays(),
            took,
            restarts: std::mem::take(&mut deaths.restarts),
            ..Report::default()
        };
        told.extend(asked);
        output::note("waiting for all commands to end");
        self.settle().await?;
        let listed = self.desk.all().await?;
        let cpu = deaths.cpu + deaths.servers.cpu()? + self.site.cpu()?;
        (_, report.others) = Busy::read()?.since(&busy, cpu);
        let truth = self.truth(fleet, witness, &listed).await?;
        deaths.servers.stop().await?;

        let accepted = count(&mut report, told);
        compare_ids(&mut report, &accepted, &listed, &truth);
        self.judge(&mut report, &listed, &truth, &plan, docks_began, &deaths.times);
        Ok(report)
    }

    fn now(&self) -> i64 {
        self.clock.now().wall.as_millis()
    }

    fn fleet(
        &self,
        docks: &[DockConfig],
        plan: &Plan,
    ) -> anyhow::Result<(Fleet, JoinHandle<Witness>)> {
        let mqtt = self.site.first()?.mqtt;
        let mut broker = BrokerAddress::new(mqtt.ip().to_string(), mqtt.port());
        broker.reconnect_wait_min = RECONNECT_WAIT_MIN;
        broker.reconnect_wait_max = RECONNECT_WAIT_MAX;
        let mut config = FleetConfig::new(broker, 0, self.args.seed);
        config.docks = docks.to_vec();
        config.speed = SPEED;
        config.faults = plan.faults.clone();
        let (observer, mut wire) = mpsc::unbounded_channel();
        config.on_wire = Some(observer);
        let catalogue = Arc::clone(&self.catalogue);
        let witness = tokio::spawn(async move {
            let mut witness = Witness::default();
            while let Some(passed) = wire.recv().await {
                witness.see(&passed, &catalogue);
            }
            witness
        });
        Ok((Fleet::start(config).context("the docks do not start")?, witness))
    }

    /// Gives every dock its first command and waits for their ends.
    async fn prepare(&self, errands: &mut Errands, docks: usize) -> anyhow::Result<Vec<Told>> {
        let mut asking = JoinSet::new();
        for dock in 0..docks {
            let (desk, errand) = (Arc::clone(&self.desk), errands.first(dock));
            asking.spawn(async move { desk.insist(&errand.body).await });
        }
        let told = asking.join_all().await;
        let by = Instant::now() + READY_WAIT;
        while self.desk.has_open().await? {
            if by < Instant::now() {
                bail!("the docks are not ready after {} s", READY_WAIT.as_secs());
            }
            sleep(LOOK_WAIT).await;
        }
        Ok(told)
    }

    /// Begins every command at its intended time, whatever became of those before.
    async fn ask(&self, errands: &mut Errands, began: Instant) -> anyhow::Result<Vec<Told>> {
        let mut asking = JoinSet::new();
        let mut number = 0_u32;
        loop {
            let at = Duration::from_secs_f64(f64::from(number) / self.args.rate);
            if self.time <= at {
                break;
            }
            sleep_until(began + at).await;
            let (desk, errand) = (Arc::clone(&self.desk), errands.next());
            asking.spawn(async move { desk.insist(&errand.body).await });
            number += 1;
        }
        let mut told = Vec::new();
        while let Some(one) = asking.join_next().await {
            told.push(one?);
        }
        Ok(told)
    }

    /// Kills a server every so often, each in turn, and starts another in its place at once.
    async fn kill(&self, servers: Servers, began: Instant) -> anyhow::Result<Deaths> {
        let every = Duration::from_secs_f64(self.args.kill_every);
        let mut deaths = Deaths {
            servers,
            times: DeathTimes::default(),
            restarts: Vec::new(),
            cpu: Duration::ZERO,
        };
        let mut at = began + every;
        let mut turns = (0..self.site.servers()).cycle();
        while !every.is_zero() && at < began + self.time {
            let number = turns.next().unwrap_or_default();
            sleep_until(at).await;
            let died = self.now();
            deaths.cpu += deaths.servers.kill(number)?;
            self.desk.forget_connections(number);
            let took = self.site.start_again(number, &mut deaths.servers).await?;
            deaths.restarts.push(took.as_secs_f64() * 1_000.0);
            self.note(died, &mut deaths.times);
            // A server that starts slowly is given some of its life.
            at = (at + every).max(Instant::now() + every / 2);
        }
        Ok(deaths)
    }

    /// Writes down a death whose server is back.
    fn note(&self, died: i64, times: &mut DeathTimes) {
        let until = |back: i64| (died..back).step_by(ABSENT_STEP_MS).chain([back]);
        times.killed.push(died);
        times.absent.push(died);
        if self.site.servers() > 1 {
            // The others hear what is said meanwhile, and send what the dead one held once they have taken it over.
            times.unsent.extend(until(died + TAKEN_OVER_MS));
            return;
        }
        if self.args.broker.or(self.site.broker()).is_some() {
            times.absent.extend(until(self.now()));
        }
        times.unsent.clone_from(&times.absent);
    }

    /// Waits until every command has ended, as long as it is willing to.
    async fn settle(&self) -> anyhow::Result<()> {
        let by = Instant::now() + Duration::from_secs(self.args.settle);
        while self.desk.has_open().await? {
            if by < Instant::now() {
                output::note(format_args!("some are still open after {} s", self.args.settle));
                break;
            }
            sleep(LOOK_WAIT).await;
        }
        Ok(())
    }

    async fn truth(
        &self,
        fleet: Fleet,
        witness: JoinHandle<Witness>,
        listed: &[Listed],
    ) -> anyhow::Result<Truth> {
        let mut received_at: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for received in fleet.received() {
            if let Some(tid) = received.tid {
                received_at.entry(tid.to_string()).or_default().push(received.at.as_millis());
            }
        }
        let of = |one: &Listed| (one.id.clone(), fleet.outcomes(&one.id));
        let outcomes = listed.iter().map(of).collect();
        let faults =
            listed.iter().filter_map(|one| Some((one.id.clone(), fleet.fault(&one.id)?))).collect();
        let models = fleet.docks().iter().map(|dock| (dock.sn.clone(), dock.model)).collect();
        fleet.shutdown().await;
        Ok(Truth { models, outcomes, received_at, faults, witness: witness.await? })
    }

    fn judge(
        &self,
        report: &mut Report,
        listed: &[Listed],
        truth: &Truth,
        plan: &Plan,
        docks_began: i64,
        deaths: &DeathTimes,
    ) {
        let answers = truth.witness.answers(&self.catalogue);
        let since: Vec<i64> = deaths.killed.iter().map(|death| death - docks_began).collect();
        let is_emergency = |method: &str| {
            self.catalogue.method(method).is_some_and(|method| method.risk == Risk::Emergency)
        };
        let emergencies = listed.iter().filter(|one| is_emergency(&one.method));
        let emergencies: Vec<(&str, i64)> =
            emergencies.map(|one| (one.gateway.as_str(), one.story.accepted_at)).collect();
        for one in listed {
            let id = one.id.as_str();
            let method = self.catalogue.method(&one.method);
            let silence = method.map_or(Duration::ZERO, |method| method.silence);
            let is_unanswered = one.method == errand::STICK;
            let received_at = match is_unanswered {
                true => truth.witness.controls(&one.gateway, &one.payload),
                false => truth.received_at.get(id).map_or(&[][..], Vec::as_slice),
            };
            let outcomes = match is_unanswered {
                true => &vec![Outcome::Silent; received_at.len()],
                false => truth.outcomes.get(id).map_or(&[][..], Vec::as_slice),
            };
            let ended_at = one.story.ended_at.unwrap_or(one.story.accepted_at);
            let fault = truth.faults.get(id);
            let job = method.and_then(|method| method.job.as_ref());
            let case = Case {
                story: &one.story,
                outcomes,
                is_unanswered,
                is_owed: plan::leaves_an_answer(fault) && !job.is_some_and(witness::is_nameless),
                was_cut: truth.witness.was_away(
                    &one.gateway,
                    one.story.accepted_at - judge::CHANCE_MS,
                    ended_at + judge::CHANCE_MS,
                ),
                was_there_ms: truth.witness.was_there_for(
                    &one.gateway,
                    one.story.accepted_at,
                    one.story.accepted_at + one.story.timeout_ms,
                    &deaths.unsent,
                ),
                // The race cancels nothing.
                was_cancelled: false,
                was_preempted: method.is_some_and(|method| method.risk == Risk::Motion)
                    && emergencies.iter().any(|(gateway, at)| {
                        let (from, until) = (one.story.accepted_at, ended_at);
                        *gateway == one.gateway
                            && (from - judge::CHANCE_MS..=until + judge::CHANCE_MS).contains(at)
                    }),
                answers: answers.get(id).map_or(&[][..], Vec::as_slice),
                deaths: &deaths.absent,
                is_job: errand::JOBS.contains(&one.method.as_str()),
                silence_ms: i64::try_from(silence.as_millis()).unwrap_or(i64::MAX),
            };
            let beside =
                plan.beside(one.story.accepted_at - docks_began, ended_at - docks_began, &since);
            let class = plan::class_of(fault, !received_at.is_empty(), beside);
            let verdict = judge::judge(&case);
            report.count(class, verdict);
            if let Some(model) = truth.models.get(&one.gateway) {
                report.count_at(model.as_str(), verdict);
            }
            *report.ends.entry(end_of(one)).or_default() += 1;
            report.stale += u64::from(judge::is_stale(&one.story, received_at));
            if verdict == Verdict::Exact
                && one.story.status == Status::Failed
                && let [Outcome::Refused(code) | Outcome::Failed(code)] = outcomes
            {
                *report.codes.entry(*code).or_default() += 1;
            }
            match verdict {
                Verdict::Unknown(judge::Why::DiedWithServer) => {
                    report.lost_for_ms = report.lost_for_ms.max(judge::lost_for(&case));
                }
                Verdict::Wrong(lie) => {
                    let details = json!({
                        "method": one.method,
                        "platform": format!("{:?}", one.story),
                        "docks": format!("{outcomes:?}"),
                        "received_at": received_at,
                        "answers": case.answers.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>(),
                        "gateway": one.gateway,
                        "links": truth.witness.links(&one.gateway, one.story.accepted_at - LINKS_BEFORE_MS),
                        "emergencies": case.was_preempted,
                        "deaths": deaths.killed,
                    });
                    report.wrong.push(WrongOne { id: id.to_owned(), class, lie, details });
                }
                Verdict::Exact | Verdict::Unknown(_) => {}
            }
        }
    }
}

/// Counts what callers were told; answers the ids of what was accepted.
fn count(report: &mut Report, told: Vec<Told>) -> BTreeSet<String> {
    let mut accepted = BTreeSet::new();
    for one in told {
        match one {
            Told::Accepted(id) => {
                report.accepted += 1;
                accepted.insert(id);
            }
            Told::Busy => report.busy += 1,
            Told::Refused(reason) => *report.refused.entry(reason).or_default() += 1,
            Told::Nothing => report.unanswered += 1,
        }
    }
    accepted
}

/// What was accepted, what is on record and what arrived must be the same commands.
fn compare_ids(report: &mut Report, accepted: &BTreeSet<String>, listed: &[Listed], truth: &Truth) {
    let ids: BTreeSet<String> = listed.iter().map(|one| one.id.clone()).collect();
    report.lost = accepted.difference(&ids).count() as u64;
    report.untold = ids.difference(accepted).count() as u64;
    let strangers = truth.received_at.keys().filter(|id| !ids.contains(*id)).count();
    let sticks = listed.iter().filter(|one| one.method == errand::STICK);
    let known = sticks.filter(|one| !truth.witness.controls(&one.gateway, &one.payload).is_empty());
    report.unasked = (strangers + truth.witness.controls_seen() - known.count()) as u64;
}

fn end_of(one: &Listed) -> String {
    let status = one.story.status.as_str();
    match one.story.failure {
        Some(failure) => format!("{status}/{}", failure.as_str()),
        None => status.to_owned(),
    }
}

/// An override of the catalogue that gives all jobs of the race this silence.
fn silence(seconds: u64) -> String {
    let methods = errand::JOBS.map(|job| (job.to_owned(), json!({"silence_seconds": seconds})));
    json!({"methods": serde_json::Map::from_iter(methods)}).to_string()
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.1..=5_000.0).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err("must be a number of commands from 0.1 to 5000".to_owned()),
    }
}

fn parse_kill_every(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds == 0.0 || (0.5..=3_600.0).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err("must be 0 or a number of seconds from 0.5 to 3600".to_owned()),
    }
}
