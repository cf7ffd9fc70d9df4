//! Commands, requests of devices and reads while a thousand docks tell of themselves: measured silent first, then under
//! their messages, so that what telemetry costs can be seen.

pub mod live;
mod osd;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep};

use self::live::{CONNECTING_MAX, Live};
use super::{
    Plan,
    child::{Place, Prepared},
    docks::Judged,
    engine::Around,
    load::{self, Site},
    machine::Busy,
    measure::Measure,
    moment,
    report::{Report, Sample},
};
use crate::{open_files, output};

/// Docks that are registered.
const REGISTERED: u32 = 10_000;
/// Docks among them that are connected.
const LIVE: usize = 1_000;
/// Messages of each of them in a second: what a dock with its aircraft in the air sends of its `osd`.
pub(super) const MESSAGES_A_SECOND: u32 = 2;
/// Commands beside requests and reads.
const SOME: Pace = Pace { a_second: 100, senders: 32 };
/// As many as are sent to a server that is loaded.
const MANY: Pace = Pace { a_second: 2_000, senders: 256 };
const REQUESTS_A_SECOND: u32 = 20;
const READS_A_SECOND: u32 = 50;
/// Messages before anything is measured under them.
const SETTLE: Duration = Duration::from_secs(3);
/// A device at this rate, for a day.
const MESSAGES_A_DAY: f64 = MESSAGES_A_SECOND as f64 * 86_400.0;

/// Commands in a second, and the clients that send them in turn, so that one that waits holds up no other.
#[derive(Clone, Copy)]
struct Pace {
    a_second: u32,
    senders: u32,
}

impl Pace {
    /// Sends them to docks that answer at once, each timed from when it was meant to be sent.
    async fn send(
        self,
        site: &Arc<Site>,
        live: &Arc<Live>,
        began: Instant,
        until: Instant,
    ) -> anyhow::Result<(Histogram<u64>, Judged)> {
        let each = Duration::from_secs(1) / self.a_second;
        let senders = (0..self.senders).map(|number| {
            let (site, live) = (Arc::clone(site), Arc::clone(live));
            let first = began + each * number;
            tokio::spawn(async move { self.sender(&site, &live, number, first, until).await })
        });
        let (mut times, mut judged) = (load::times(), Judged::default());
        for sender in senders.collect::<Vec<_>>() {
            let (some, one) = sender.await??;
            times.add(&some)?;
            judged.right += one.right;
            judged.all += one.all;
        }
        Ok((times, judged))
    }

    /// One command after another, and waits for its end.
    async fn sender(
        self,
        site: &Site,
        live: &Live,
        number: u32,
        first: Instant,
        until: Instant,
    ) -> anyhow::Result<(Histogram<u64>, Judged)> {
        let pace = Duration::from_secs(1) / self.a_second * self.senders;
        let mut client = site.connect().await?;
        let (mut times, mut judged, mut intended) = (load::times(), Judged::default(), first);
        let mut n = usize::try_from(number)?;
        while intended < until {
            moment::reach(intended).await;
            let id = client.send(live.sn(n), "debug_mode_open", "{}").await?;
            let (status, code) = client.end_of(&id).await?;
            load::record(&mut times, intended.elapsed());
            let is_right =
                status == "SUCCEEDED" && code.as_deref() == Some("0") && live.count(&id) == 1;
            judged.all += 1;
            judged.right += u64::from(is_right);
            intended += pace;
            // Every sender goes its own way round the docks.
            n += usize::try_from(self.senders)? + 1;
        }
        Ok((times, judged))
    }
}

/// What was measured at once.
struct Beside {
    commands: Histogram<u64>,
    judged: Judged,
    replies: Histogram<u64>,
    reads: Histogram<u64>,
}

/// One run, with a server of its own.
pub async fn measure(
    plan: &Plan,
    place: &Place,
    around: &Around,
    report: &mut Report,
) -> anyhow::Result<()> {
    open_files::raise();
    output::note(format_args!("registering {REGISTERED} docks"));
    let prepared = Prepared::new(place, REGISTERED).await?;
    let server = place.start().await?.server;
    output::note(format_args!("connecting {LIVE} docks"));
    let docks = prepared.docks.iter().take(LIVE).cloned().collect();
    let live = Arc::new(Live::connect(place.mqtt, docks, CONNECTING_MAX).await?);
    let site = Arc::new(Site::new(place.http, &prepared));

    let silent = beside(plan.time, &site, &live).await?;
    report.add(Measure::TelemetryCommandsSilent, Sample::of_times(&silent.commands));
    report.add(Measure::TelemetryRepliesSilent, Sample::of_times(&silent.replies));
    report.judge(silent.judged);

    let empty = history(place, around).await?;
    let telling = live.tell();
    sleep(SETTLE).await;
    let (began, before, cpu) = (Instant::now(), told(&site).await?, server.cpu()?);
    let (broker, database) = (around.cpu_of_broker()?, around.cpu_of_database()?);
    let under = beside(plan.time, &site, &live).await?;
    let (took, taken) = (began.elapsed(), told(&site).await? - before);
    let used = server.cpu()?.saturating_sub(cpu);
    report.add(Measure::Telemetry, Sample::rate(taken as f64 / took.as_secs_f64()));
    report.add(Measure::TelemetryCommands, Sample::of_times(&under.commands));
    report.add(Measure::TelemetryReplies, Sample::of_times(&under.replies));
    report.add(Measure::TelemetryLatest, Sample::of_times(&under.reads));
    let share = |used: Duration| used.as_secs_f64() / took.as_secs_f64() * 100.0;
    report.add(Measure::TelemetryCpu, Sample::value(share(used)));
    for (measure, before, now) in [
        (Measure::TelemetryBroker, broker, around.cpu_of_broker()?),
        (Measure::TelemetryDatabase, database, around.cpu_of_database()?),
    ] {
        if let Some((before, now)) = before.zip(now) {
            report.add(measure, Sample::value(share(now.saturating_sub(before))));
        }
    }
    report.add(Measure::TelemetryMemory, Sample::value(server.resident_mb()?));
    report.judge(under.judged);

    telling.stop().await;
    let (all, dropped) =
        (told(&site).await?, load::metric(&site, "utmos_telemetry_dropped_total").await?);
    output::note(format_args!("messages taken in: {all}, dropped: {dropped}"));
    live.leave().await;
    server.stop().await?;
    let a_day = (history(place, around).await? - empty) / all.max(1) as f64 * MESSAGES_A_DAY / 1e6;
    report.add(Measure::TelemetryDisk, Sample::value(a_day));
    Ok(())
}

/// One run at 2,000 commands a second, with a server of its own.
pub async fn measure_paced(plan: &Plan, place: &Place, report: &mut Report) -> anyhow::Result<()> {
    open_files::raise();
    let prepared = Prepared::new(place, u32::try_from(LIVE)?).await?;
    let server = place.start().await?.server;
    let docks = prepared.docks.iter().take(LIVE).cloned().collect();
    let live = Arc::new(Live::connect(place.mqtt, docks, CONNECTING_MAX).await?);
    let site = Arc::new(Site::new(place.http, &prepared));
    let telling = live.tell();
    sleep(SETTLE).await;
    let (began, before, busy) = (Instant::now(), told(&site).await?, Busy::read()?);
    let cpu = server.cpu()?;
    let (times, judged) = MANY.send(&site, &live, began, began + plan.time).await?;
    let (took, taken) = (began.elapsed().as_secs_f64(), told(&site).await? - before);
    let (_, others) = Busy::read()?.since(&busy, server.cpu()?.saturating_sub(cpu));
    report.disturbed(others);
    output::note(format_args!(
        "{:.0} commands and {:.0} messages of osd a second; messages dropped since the start: {}",
        times.len() as f64 / took,
        taken as f64 / took,
        load::metric(&site, "utmos_telemetry_dropped_total").await?
    ));
    let rate = times.len() as f64 / took;
    report.add(Measure::TelemetryPaced2000, Sample::of_times(&times).at_rate(rate));
    report.judge(judged);
    telling.stop().await;
    live.leave().await;
    server.stop().await
}

/// Bytes that the history takes on the disk.
async fn history(place: &Place, around: &Around) -> anyhow::Result<f64> {
    if let Some(url) = around.database() {
        return history_in(&url).await.context("the history in PostgreSQL");
    }
    let file = place.file("history.sqlite");
    let length = std::fs::metadata(&file).with_context(|| format!("{}", file.display()))?.len();
    Ok(length as f64)
}

/// Bytes of the history's tables in PostgreSQL, with their indexes.
async fn history_in(url: &str) -> anyhow::Result<f64> {
    const BYTES: &str = r"SELECT COALESCE(sum(pg_total_relation_size(oid)), 0)::float8 FROM pg_class
        WHERE relkind = 'r' AND relname LIKE 'history\_%'";
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let working = tokio::spawn(connection);
    let bytes = client.query_one(BYTES, &[]).await.and_then(|row| row.try_get(0));
    drop(client);
    working.await??;
    Ok(bytes?)
}

async fn told(site: &Site) -> anyhow::Result<u64> {
    load::metric(site, "utmos_telemetry_messages_total").await
}

/// Commands, requests and reads at a fixed pace, each timed from when it was meant to begin.
async fn beside(time: Duration, site: &Arc<Site>, live: &Arc<Live>) -> anyhow::Result<Beside> {
    let began = Instant::now();
    let until = began + time;
    let sending = tokio::spawn({
        let (site, live) = (Arc::clone(site), Arc::clone(live));
        async move { SOME.send(&site, &live, began, until).await }
    });
    let asking = tokio::spawn({
        let live = Arc::clone(live);
        async move { live.ask(Duration::from_secs(1) / REQUESTS_A_SECOND, until).await }
    });
    let reads = read(site, live, Duration::from_secs(1) / READS_A_SECOND, until).await?;
    let (commands, judged) = sending.await??;
    Ok(Beside { commands, judged, replies: asking.await??, reads })
}

/// Reads the latest of one dock after another.
async fn read(
    site: &Site,
    live: &Live,
    pace: Duration,
    until: Instant,
) -> anyhow::Result<Histogram<u64>> {
    let mut client = site.connect().await?;
    let (mut times, mut intended, mut n) = (load::times(), Instant::now(), 0);
    while intended < until {
        moment::reach(intended).await;
        let path = format!("/api/v1/open/devices/{}/telemetry", live.sn(n));
        client.read(&path, None).await?;
        load::record(&mut times, intended.elapsed());
        intended += pace;
        n += 1;
    }
    Ok(times)
}
