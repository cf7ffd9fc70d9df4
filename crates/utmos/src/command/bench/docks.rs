//! The docks of the load, quiet and answering at once or as the load asks for, and one more that tells when the bytes of an emergency arrived.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context;
use hdrhistogram::Histogram;
use tokio::{
    runtime::{self, Handle, Runtime},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use utmos_core::{id::GatewaySn, time::Clock};
use utmos_dji::{
    device_side::{self, Downlink},
    downlink::Heading,
    topic::{DownlinkTopic, UplinkTopic},
};
use utmos_mqtt::{Client, ClientConfig, Inbound, Password, Publish, Qos};
use utmos_server::clock::SystemClock;
use utmos_sim::{BrokerAddress, DockConfig, Fleet, FleetConfig, Outcome, ReplyTiming};

use super::{
    child::{Prepared, SEED},
    load::{self, Load, Site, Told, Until},
    moment,
    reply::Reply,
};

/// Longest to wait for the docks.
const ONLINE_WAIT: Duration = Duration::from_secs(30);
/// Longest to wait for an emergency's bytes.
const ARRIVAL_WAIT: Duration = Duration::from_secs(10);
/// From one emergency to the next.
const PACE: Duration = Duration::from_millis(20);
/// Clients that send them in turn.
const SENDERS: u32 = 8;
/// How often it is looked whether the last emergencies have arrived.
const LOOK_WAIT: Duration = Duration::from_millis(5);
/// The clients that keep the normal lanes full meanwhile.
const CLIENTS: usize = 64;
const EMERGENCY: &str = "flighttask_pause";
const INBOUND_MAX: usize = 256;

/// Commands whose end was right, of so many.
#[derive(Debug, Clone, Copy, Default)]
pub struct Judged {
    pub right: u64,
    pub all: u64,
}

/// Where the time of a command goes.
pub struct Phases {
    pub accept: Histogram<u64>,
    pub hand_over: Histogram<u64>,
    pub seen: Histogram<u64>,
    /// A change of a command, such as its outcome, until it is stored: the mean in milliseconds, of the platform's own histogram.
    pub stored: f64,
}

/// All docks, online.
pub struct Docks {
    fleet: Fleet,
    reply: Reply,
    last: LastDock,
    apart: Apart,
}

/// A thread of its own for whoever sends emergencies and for their dock, as they would be elsewhere: they must not
/// queue behind the load's own tasks.
struct Apart {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Apart {
    fn new() -> anyhow::Result<Self> {
        let runtime =
            runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Docks {
    /// Connects them to a broker.
    pub async fn start(mqtt: SocketAddr, prepared: &Prepared) -> anyhow::Result<Self> {
        let (last, docks) = prepared.docks.split_last().context("there are no docks")?;
        let broker = BrokerAddress::new(mqtt.ip().to_string(), mqtt.port());
        let mut config = FleetConfig::new(broker, 0, SEED);
        config.docks = docks.to_vec();
        config.quiet = true;
        config.reply = ReplyTiming::AtOnce;
        config.faults = prepared.reply.faults();
        let fleet = Fleet::start(config).context("the docks do not start")?;
        timeout(ONLINE_WAIT, fleet.ready()).await.context("the docks do not come online")?;
        let apart = Apart::new()?;
        let last = apart.handle.spawn(LastDock::start(mqtt, last.clone()));
        let last =
            timeout(ONLINE_WAIT, last).await.context("the last dock does not come online")???;
        Ok(Self { fleet, reply: prepared.reply, last, apart })
    }

    pub async fn stop(self) {
        self.last.client.shutdown().await;
        self.last.answering.abort();
        self.fleet.shutdown().await;
    }

    /// How many commands arrived once and ended as the docks' own ledger says.
    pub fn compare(&self, commands: &[Told]) -> Judged {
        judge(commands, |command| {
            let mut outcomes = self.fleet.outcomes(&command.id);
            if self.reply == Reply::Never {
                // They did what they were told, and nobody heard of it.
                outcomes.fill(Outcome::Silent);
            }
            outcomes.extend(std::iter::repeat_n(Outcome::Done, self.last.count(&command.id)));
            match (&command.end, outcomes.as_slice()) {
                (Some((status, code)), [outcome]) => is_right(*outcome, status, code.as_deref()),
                // A second may be over before a server that is busy has sent it, and it does not send it then.
                (Some((status, None)), []) => self.reply == Reply::Never && status == "FAILED",
                (_, _) => false,
            }
        })
    }

    /// How many commands arrived once, where nobody asked for their end; those that have no more than a second, once at most.
    pub fn arrived_once(&self, commands: &[Told]) -> Judged {
        let least = usize::from(self.reply != Reply::Never);
        judge(commands, |command| (least..=1).contains(&self.fleet.count(&command.id)))
    }

    /// One command after another to the last dock: how long until its 202, until its bytes are there, and from then until
    /// its end is seen.
    pub async fn phases(&self, site: &Site, time: Duration) -> anyhow::Result<(Phases, Judged)> {
        let mut phases = Phases {
            accept: load::times(),
            hand_over: load::times(),
            seen: load::times(),
            stored: 0.0,
        };
        let changes = load::changes(site).await?;
        let (mut client, mut commands) = (site.connect().await?, Vec::new());
        let began = Instant::now();
        while began.elapsed() < time {
            let start = Instant::now();
            // One that this dock answers well.
            let id = client.send_load(&site.last_dock, 1).await?;
            load::record(&mut phases.accept, start.elapsed());
            let end = Some(client.end_of(&id).await?);
            let seen = Instant::now();
            let there = lock(&self.last.received).get(&id).map(|(_, at)| *at);
            let there = there.context("a command ended that never arrived")?;
            load::record(&mut phases.hand_over, there.saturating_duration_since(start));
            load::record(&mut phases.seen, seen.saturating_duration_since(there));
            commands.push(Told { id, end });
        }
        phases.stored = load::changes(site).await?.mean_ms_since(changes);
        Ok((phases, self.compare(&commands)))
    }

    /// Sends emergencies at a fixed pace while the normal lanes, also the dock's own, are full. Answers how long their
    /// bytes took to arrive, each from its intended time on, and how many of all commands were right.
    pub async fn emergencies(
        &self,
        site: &Arc<Site>,
        time: Duration,
    ) -> anyhow::Result<(Histogram<u64>, Judged)> {
        let load = Load { clients: CLIENTS, time, until: Until::Ended };
        let beside = Arc::clone(site);
        let loading = tokio::spawn(async move { load.run_beside(&beside).await });
        let began = Instant::now();
        let senders = (1..=SENDERS).map(|number| {
            let first = began + PACE * number;
            self.apart.handle.spawn(send_emergencies(Arc::clone(site), first, began + time))
        });
        let mut sent = Vec::new();
        for sender in senders.collect::<Vec<_>>() {
            sent.extend(sender.await??);
        }
        let mut judged = self.compare(&loading.await??.commands);
        let times = timeout(ARRIVAL_WAIT, self.last.arrivals_of(&sent))
            .await
            .context("an emergency did not arrive")?;
        judged.all += sent.len() as u64;
        judged.right += sent.iter().filter(|(id, _)| self.last.count(id) == 1).count() as u64;
        Ok((times, judged))
    }
}

/// Sends one emergency after another; answers their ids and intended times. The senders take turns, so that one that is
/// held up holds up no other.
async fn send_emergencies(
    site: Arc<Site>,
    first: Instant,
    until: Instant,
) -> anyhow::Result<Vec<(String, Instant)>> {
    let mut client = site.connect().await?;
    let (mut sent, mut intended) = (Vec::new(), first);
    while intended < until {
        moment::reach(intended).await;
        sent.push((client.send(&site.last_dock, EMERGENCY, "{}").await?, intended));
        intended += PACE * SENDERS;
    }
    Ok(sent)
}

/// A dock that takes everything, answers at once, and notes to the microsecond when emergencies come.
struct LastDock {
    client: Client,
    answering: JoinHandle<()>,
    /// How often each command came, and when first.
    received: Arc<Mutex<BTreeMap<String, (usize, Instant)>>>,
}

impl LastDock {
    async fn start(broker: SocketAddr, dock: DockConfig) -> anyhow::Result<Self> {
        let gateway = GatewaySn::parse(&dock.sn)?;
        let services = DownlinkTopic::Services { gateway: gateway.clone() };
        let mut config = ClientConfig::new(broker.ip().to_string(), broker.port(), &dock.sn);
        config.username = Some(dock.username.clone());
        config.password = Some(Password::new(dock.password.as_bytes()));
        config.subscriptions = vec![(services.to_string(), Qos::AtLeastOnce)];
        let (sender, mut inbound) = mpsc::channel(INBOUND_MAX);
        let client = Client::start(config, sender);
        while !matches!(
            inbound.recv().await.context("the last dock's client ended")?,
            Inbound::LinkUp { .. }
        ) {}
        // Behind a broker outside, who was never heard is not there.
        let heard = UplinkTopic::Osd { device: gateway.to_device() }.to_string();
        let (tid, at) = ("bench-last-dock", SystemClock::new().now().wall);
        let osd = device_side::osd(Heading { tid, bid: tid, at }, &gateway, r#"{"mode_code":0}"#);
        client.outlet().publish(Publish::new(heard, osd)).await;
        let received = Arc::new(Mutex::new(BTreeMap::new()));
        let reply_topic = UplinkTopic::ServicesReply { gateway }.to_string();
        let (outlet, ledger, clock) = (client.outlet(), Arc::clone(&received), SystemClock::new());
        let answering = tokio::spawn(async move {
            while let Some(message) = inbound.recv().await {
                let at = Instant::now();
                let Inbound::Message { payload, .. } = message else { continue };
                let Ok(Downlink::Services { exchange, method, .. }) =
                    device_side::read(&services, &payload)
                else {
                    continue;
                };
                let (tid, method) =
                    (exchange.tid.clone().unwrap_or_default(), method.unwrap_or_default());
                lock(&ledger).entry(tid).or_insert((0, at)).0 += 1;
                let reply = device_side::services_reply(
                    &exchange,
                    &method,
                    r#"{"result":0}"#,
                    clock.now().wall,
                );
                let (outlet, topic) = (Arc::clone(&outlet), reply_topic.clone());
                // Awaiting the confirmation here would hold up the messages it comes behind.
                tokio::spawn(async move { outlet.publish(Publish::new(topic, reply)).await });
            }
        });
        Ok(Self { client, answering, received })
    }

    fn count(&self, tid: &str) -> usize {
        lock(&self.received).get(tid).map_or(0, |(count, _)| *count)
    }

    /// How long each of these took to arrive. Waits for those that have not.
    async fn arrivals_of(&self, sent: &[(String, Instant)]) -> Histogram<u64> {
        let mut times = load::times();
        for (id, intended) in sent {
            let arrived = loop {
                let arrived = lock(&self.received).get(id).map(|(_, at)| *at);
                match arrived {
                    Some(at) => break at,
                    None => sleep(LOOK_WAIT).await,
                }
            };
            load::record(&mut times, arrived.saturating_duration_since(*intended));
        }
        times
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn judge(commands: &[Told], is_right: impl Fn(&Told) -> bool) -> Judged {
    let right = commands.iter().filter(|command| is_right(command)).count();
    Judged { right: right as u64, all: commands.len() as u64 }
}

/// Whether the platform's word is what the dock did.
fn is_right(outcome: Outcome, status: &str, code: Option<&str>) -> bool {
    match outcome {
        Outcome::Done => status == "SUCCEEDED" && code == Some("0"),
        Outcome::Refused(refused) => {
            status == "FAILED" && code == Some(refused.to_string().as_str())
        }
        Outcome::Silent => status == "TIMED_OUT" && code.is_none(),
        // The load has no jobs.
        Outcome::Running | Outcome::Succeeded | Outcome::Failed(_) | Outcome::Ignored => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_docks_own_outcome_is_right() {
        for (outcome, status, code, right) in [
            (Outcome::Done, "SUCCEEDED", Some("0"), true),
            (Outcome::Done, "FAILED", Some("0"), false),
            (Outcome::Done, "SUCCEEDED", None, false),
            (Outcome::Refused(325_001), "FAILED", Some("325001"), true),
            (Outcome::Refused(325_001), "FAILED", Some("325002"), false),
            (Outcome::Refused(325_001), "SUCCEEDED", Some("0"), false),
            (Outcome::Running, "SUCCEEDED", Some("0"), false),
            (Outcome::Silent, "TIMED_OUT", None, true),
            (Outcome::Silent, "SUCCEEDED", Some("0"), false),
        ] {
            assert_eq!(is_right(outcome, status, code), right, "{outcome:?} {status}");
        }
    }
}
