//! A server with its docks under load: every measurement of one run.

use std::{sync::Arc, time::Duration};

use anyhow::bail;
use tokio::time::{Instant, sleep};

use super::{
    Plan,
    child::Server,
    docks::{self, Docks},
    engine::Around,
    load::{self, Load, Loaded, Told, Until},
    machine::Busy,
    measure::Measure,
    paced,
    report::{Report, Sample},
};
use crate::output;

/// Loops before anything is measured.
const WARM_UP: Duration = Duration::from_millis(300);
/// Longest to wait for the commands of one measurement to end.
const DRAIN_WAIT: Duration = Duration::from_secs(60);

/// In the order of time.
const PHASES: [Measure; 3] = [Measure::PhaseAccept, Measure::PhaseHandOver, Measure::PhaseSeen];

/// A server with its docks, to be loaded.
pub struct UnderLoad<'a> {
    pub plan: &'a Plan,
    pub server: Measured,
    pub docks: Docks,
    pub site: Arc<load::Site>,
    pub report: &'a mut Report,
}

/// Whose server it is.
pub enum Measured {
    /// One of the bench's own, of which everything is known, and what stands around it.
    Own {
        server: Server,
        /// Others that share its database.
        beside: Vec<Server>,
        around: Box<Around>,
    },
    /// One that runs already, for others as well.
    Elsewhere,
}

impl Measured {
    fn own(&self) -> Option<Own<'_>> {
        match self {
            Self::Own { server, beside, around } => Some(Own { server, beside, around }),
            Self::Elsewhere => None,
        }
    }
}

/// The bench's own servers.
#[derive(Clone, Copy)]
struct Own<'a> {
    server: &'a Server,
    beside: &'a [Server],
    around: &'a Around,
}

impl Own<'_> {
    /// Processor time that all servers have used.
    fn cpu(self) -> anyhow::Result<Duration> {
        let all = std::iter::once(self.server).chain(self.beside);
        all.map(Server::cpu).sum()
    }

    /// Bytes that all servers, the broker and the database have caused to be written.
    fn written(self) -> anyhow::Result<u64> {
        let all = std::iter::once(self.server).chain(self.beside);
        Ok(all.map(Server::written).sum::<anyhow::Result<u64>>()? + self.around.written()?)
    }
}

impl UnderLoad<'_> {
    pub async fn measure(&mut self) -> anyhow::Result<()> {
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
            (128, Measure::Loop128),
            (256, Measure::Loop256),
            (512, Measure::Loop512),
        ] {
            if self.plan.wants(measure) {
                self.loops(clients, measure).await?;
            }
        }
        for (a_second, measure) in [(500, Measure::Paced500), (2_000, Measure::Paced2000)] {
            let senders = paced::senders(self.plan.reply, a_second);
            if !self.plan.wants(measure) {
                continue;
            }
            if senders > paced::SENDERS_MAX {
                output::note(format_args!(
                    "{} is not measured: where docks answer {} it takes {senders} callers at once, and {} are as many as a server \
                     takes with the files that there usually are",
                    measure.key(),
                    self.plan.reply.title(),
                    paced::SENDERS_MAX
                ));
                continue;
            }
            self.paced(a_second, measure).await?;
        }
        let is_wanted = |phase| self.plan.wants(phase);
        if PHASES.into_iter().any(is_wanted) || is_wanted(Measure::PhaseStored) {
            let (phases, judged) = self.docks.phases(&self.site, self.plan.time).await?;
            let docks::Phases { accept, hand_over, seen, stored } = phases;
            self.report.add(Measure::PhaseStored, Sample::value(stored));
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
        if let Some(Own { server, .. }) = self.server.own() {
            drain(&self.site).await?;
            self.report.add(Measure::MemoryLoad, Sample::value(server.resident_mb()?));
            self.report.stored(load::accepted_so_far(&self.site).await?);
        }
        Ok(())
    }

    async fn accepts(&mut self, clients: usize, measure: Measure) -> anyhow::Result<()> {
        let load = Load { clients, time: self.plan.time, until: Until::Accepted };
        let loaded = load.run(&self.site).await?;
        self.report.add(measure, Sample::of(&loaded));
        match &self.server {
            Measured::Own { .. } => drain(&self.site).await?,
            Measured::Elsewhere => self.arrived(&loaded.commands).await?,
        }
        self.report.judge(self.docks.arrived_once(&loaded.commands));
        Ok(())
    }

    /// Waits until all of these have arrived: a server with other callers is never without open commands.
    async fn arrived(&self, commands: &[Told]) -> anyhow::Result<()> {
        let by = Instant::now() + DRAIN_WAIT;
        loop {
            let docks::Judged { right, all } = self.docks.arrived_once(commands);
            if right == all {
                return Ok(());
            }
            if by < Instant::now() {
                bail!("{} commands had not arrived after {} s", all - right, DRAIN_WAIT.as_secs());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn paced(&mut self, a_second: u32, measure: Measure) -> anyhow::Result<()> {
        let paced = paced::run(&self.site, a_second, self.plan.time).await?;
        self.report.add(measure, Sample::of(&paced));
        self.report.judge(self.docks.compare(&paced.commands));
        Ok(())
    }

    async fn loops(&mut self, clients: usize, measure: Measure) -> anyhow::Result<()> {
        let load = Load { clients, time: self.plan.time, until: Until::Ended };
        let Some(own) = self.server.own() else {
            let loaded = load.run(&self.site).await?;
            self.report.add(measure, Sample::of(&loaded));
            self.report.judge(self.docks.compare(&loaded.commands));
            return Ok(());
        };
        let (around, cpu, busy) = (own.around, own.cpu()?, Busy::read()?);
        let (written, cpu_beside) = (own.written()?, around.cpu()?);
        let commits = load::metric(&self.site, "utmos_store_commits_total").await?;
        let loaded = load.run(&self.site).await?;
        let used = own.cpu()?.saturating_sub(cpu);
        let beside = around.cpu()?.saturating_sub(cpu_beside);
        let (bench, others) = Busy::read()?.since(&busy, used + beside);
        self.report.disturbed(others);
        self.report.add(measure, Sample::of(&loaded));
        if measure == Measure::Loop64 {
            self.report.add(Measure::Cpu, Sample::value(per_loop(used, &loaded)));
            self.report.add(Measure::OwnCpu, Sample::value(per_loop(bench, &loaded)));
            if around.is_some() {
                self.report.add(Measure::CpuBeside, Sample::value(per_loop(beside, &loaded)));
            }
            let written = own.written()?.saturating_sub(written) as f64 / 1_024.0;
            let each = written / loaded.commands.len().max(1) as f64;
            self.report.add(Measure::Written, Sample::value(each));
            let since = load::metric(&self.site, "utmos_store_commits_total").await? - commits;
            let each = since as f64 / loaded.commands.len().max(1) as f64;
            self.report.add(Measure::Commits, Sample::value(each));
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
