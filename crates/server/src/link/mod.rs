//! What devices say, on its way in: every message is read, its gateway counts as heard, what it asks for is answered,
//! and what it says of a command goes to that command.
//!
//! Nothing a device sends may stop the link. What cannot be read, and what belongs to nothing, is counted and kept as
//! evidence, at a bounded rate.

mod answers;
mod evidence;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utmos_core::{
    device::TopologyChange,
    id::{CommandId, DeviceSn, GatewaySn, TenantId},
    life::Input,
    ports::{Ids, Store},
    time::Clock,
};
use utmos_dji::{
    answer,
    catalogue::Catalogue,
    topic::{DownlinkTopic, UplinkTopic},
    uplink::{self, DrcAck, Event, ForGateway, Osd, ReplyTo, Topology, Uplink},
};
use utmos_mqtt::{Inbound, Outlet, Publish};

use self::{
    answers::Settings,
    evidence::{About, Evidence, Stray},
};
use crate::{
    directory::Directory,
    driver::{Driver, FlightMode, Matched},
};

pub use self::answers::Settings as AnswerSettings;

/// Answers to devices are worth nothing later than this.
const ANSWER_EXPIRY: Duration = Duration::from_secs(30);

/// DJI's `mode_code` of an aircraft on its way down or home: return home, landing, forced landing, landing on three
/// propellers.
const HOMING_MODES: [i64; 4] = [9, 10, 11, 12];
/// DJI's `mode_code` of an aircraft that stands ready.
const STANDBY: i64 = 0;
/// DJI's `mode_code` of an aircraft that cannot be seen: it says nothing.
const NOT_CONNECTED: i64 = 14;

/// What the link works with.
pub struct LinkParts {
    /// Where what is said of commands goes.
    pub driver: Driver,
    /// Who is who.
    pub directory: Arc<Directory>,
    /// What codes and events mean.
    pub catalogue: Arc<Catalogue>,
    /// Where answers leave.
    pub outlet: Arc<dyn Outlet>,
    /// Where evidence is kept.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn Ids>,
    /// What docks are told.
    pub settings: Settings,
}

/// Figures of the link since it started.
#[derive(Debug, Default)]
pub struct Figures {
    /// Messages that came.
    pub received: AtomicU64,
    /// Messages that could not be read.
    pub malformed: AtomicU64,
    /// Replies that belong to no command.
    pub unmatched: AtomicU64,
    /// Messages of gateways nobody has registered.
    pub strangers: AtomicU64,
    /// Answers sent to devices.
    pub answered: AtomicU64,
    /// Requests of devices that nothing answers by itself.
    pub unanswered: AtomicU64,
    /// Evidence, late answers and topologies that were dropped because the store was unwell for too long.
    pub dropped: AtomicU64,
}

/// The way in.
pub struct Link {
    parts: LinkParts,
    evidence: Evidence,
    figures: Figures,
    tasks: TaskTracker,
    /// What needs the store, done one after another beside the way in.
    chores: mpsc::Sender<Chore>,
}

/// Something to do that may wait for the store.
type Chore = BoxFuture<'static, ()>;

/// Chores that may wait; more are dropped and counted, since the way in must never wait for the store.
const CHORES_WAITING_MAX: usize = 4_096;

impl Link {
    /// A link that is not running yet.
    #[must_use]
    pub fn new(parts: LinkParts) -> Arc<Self> {
        let evidence = Evidence::new(parts.clock.clone(), parts.ids.clone());
        let (chores, mut todo) = mpsc::channel::<Chore>(CHORES_WAITING_MAX);
        let tasks = TaskTracker::new();
        // Ends when the link is dropped.
        tokio::spawn(async move {
            while let Some(chore) = todo.recv().await {
                chore.await;
            }
        });
        Arc::new(Self { parts, evidence, figures: Figures::default(), tasks, chores })
    }

    /// Leaves something that needs the store to be done in its turn.
    fn later(&self, chore: impl Future<Output = ()> + Send + 'static) {
        if self.chores.try_send(Box::pin(chore)).is_err() {
            Self::count(&self.figures.dropped);
        }
    }

    /// Figures since the start.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Chores that wait.
    #[must_use]
    pub fn chores(&self) -> usize {
        CHORES_WAITING_MAX - self.chores.capacity()
    }

    /// Takes in what comes until `stopping`.
    pub async fn run(
        self: Arc<Self>,
        mut inbound: mpsc::Receiver<Inbound>,
        stopping: CancellationToken,
    ) {
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                came = inbound.recv() => match came {
                    Some(came) => self.take_in(came),
                    None => break,
                },
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Takes in one thing that came.
    pub fn take_in(self: &Arc<Self>, came: Inbound) {
        match came {
            Inbound::Message { topic, payload, .. } => self.message(&topic, &payload),
            Inbound::Joined { user, client_id } => {
                self.edge(&user, |book, gateway, now| book.joined(gateway, &client_id, now));
            }
            Inbound::Subscribed { user, filter } => self.subscribed(&user, &filter),
            Inbound::Left { user, client_id } => self.edge(&user, |book, gateway, now| {
                book.left(gateway, &client_id, now);
                false
            }),
            Inbound::LinkUp { protocol } => {
                tracing::info!(?protocol, "the broker is connected");
                self.parts.driver.link_is_up();
            }
            Inbound::LinkDown { reason } => tracing::warn!(reason, "the broker is not connected"),
        }
    }

    /// A gateway that listens (anew) has whatever waits for it sent, also when it counted as present before: a session
    /// that was taken over began without subscriptions.
    fn subscribed(&self, user: &str, filter: &str) {
        let Ok(gateway) = GatewaySn::parse(user) else { return };
        let services = DownlinkTopic::Services { gateway: gateway.clone() }.to_string();
        if covers(filter, &services) {
            self.edge(user, |book, gateway, now| book.listens(gateway, now));
        }
        self.parts.driver.turn(&gateway);
    }

    fn edge(
        &self,
        user: &str,
        change: impl FnOnce(
            &mut crate::driver::presence::PresenceBook,
            &GatewaySn,
            utmos_core::time::Now,
        ) -> bool,
    ) {
        let Ok(gateway) = GatewaySn::parse(user) else { return };
        self.parts.driver.presence(|book, now| {
            let came = change(book, &gateway, now);
            ((), came.then(|| gateway.clone()).into_iter().collect())
        });
    }

    fn message(self: &Arc<Self>, topic: &str, payload: &Bytes) {
        Self::count(&self.figures.received);
        let stray = |tenant, gateway, reason: &str| {
            Self::count(&self.figures.malformed);
            self.keep(Stray { tenant, gateway, topic, payload, reason, about: About::default() });
        };
        let parsed = match UplinkTopic::parse(topic) {
            Ok(parsed) => parsed,
            Err(error) => return stray(None, None, &error.to_string()),
        };
        let device = parsed.device();
        let Some((tenant, gateway)) = self.whose(&device) else {
            Self::count(&self.figures.strangers);
            tracing::debug!(device.sn = %device, "a message of a device nobody has registered");
            return;
        };
        self.edge(gateway.as_str(), |book, gateway, now| book.heard(gateway, now));
        let meanings = ForGateway {
            catalogue: &self.parts.catalogue,
            model: self.parts.directory.model_of(&gateway),
        };
        let uplink = match uplink::read(&parsed, payload, &meanings) {
            Ok(uplink) => uplink,
            Err(error) => return stray(Some(tenant), Some(&gateway), &error.to_string()),
        };
        self.acknowledge(&uplink);
        match uplink {
            Uplink::Reply(reply) | Uplink::PropertyReply(reply) => {
                self.reply(tenant, reply, topic, payload)
            }
            Uplink::DrcAck(ack) => self.drc_ack(tenant, ack),
            Uplink::Event(event) => self.event(tenant, gateway, event),
            Uplink::Request(request) => self.answer_request(tenant, &request),
            Uplink::Topology(topology) => self.topology(&topology),
            Uplink::Osd(osd) => self.osd(&gateway, &osd),
            Uplink::State(_) | Uplink::DrcPush(_) => {}
        }
    }

    /// Keeps a message that belongs to nothing as evidence.
    fn keep(&self, stray: Stray<'_>) {
        let Some(unmatched) = self.evidence.of(stray) else { return };
        let store = self.parts.store.clone();
        self.later(async move {
            if let Err(error) = store.keep_unmatched(unmatched).await {
                tracing::error!(%error, "could not keep evidence");
            }
        });
    }

    /// The tenant and the gateway behind a topic's serial number: the gateway itself, or the one that leads the aircraft.
    fn whose(&self, device: &DeviceSn) -> Option<(TenantId, GatewaySn)> {
        self.parts.directory.with_registry(|registry| {
            let known = registry.device(device)?;
            if known.kind.is_gateway() {
                return Some((known.tenant, device.to_gateway()));
            }
            let route = registry.route(known.tenant, device).ok()?;
            Some((known.tenant, route.gateway))
        })
    }

    /// An answer goes to its command at once if that is under care; one that ended long ago is looked up in its turn.
    fn reply(self: &Arc<Self>, tenant: TenantId, answer: ReplyTo, topic: &str, payload: &Bytes) {
        let id = answer.exchange.tid.as_deref().and_then(|tid| tid.parse::<CommandId>().ok());
        let matched =
            id.map(|id| self.parts.driver.tell_now(tenant, id, Input::Reply(answer.reply.clone())));
        match (id, matched) {
            (Some(_), Some(Matched::Yes)) => {}
            (Some(id), Some(Matched::NotHere)) => {
                let (link, topic, payload) = (self.clone(), topic.to_owned(), payload.clone());
                self.later(async move {
                    match link.parts.driver.tell(tenant, id, Input::Reply(answer.reply.clone())).await {
                        Ok(Matched::Yes) => {}
                        Ok(Matched::Unknown | Matched::NotHere) => link.unmatched(tenant, answer, &topic, &payload),
                        Err(error) => {
                            tracing::error!(command.id = %id, %error, "could not look up the command of a reply");
                        }
                    }
                });
            }
            (_, Some(Matched::Unknown) | None) | (None, Some(_)) => {
                self.unmatched(tenant, answer, topic, payload)
            }
        }
    }

    fn unmatched(&self, tenant: TenantId, answer: ReplyTo, topic: &str, payload: &[u8]) {
        Self::count(&self.figures.unmatched);
        let gateway = answer.reply.gateway;
        tracing::warn!(gateway.sn = %gateway, "a reply belongs to no command");
        self.keep(Stray {
            tenant: Some(tenant),
            gateway: Some(&gateway),
            topic,
            payload,
            reason: "no command of this gateway's tenant has this tid",
            about: About { tid: answer.exchange.tid, method: answer.reply.method },
        });
    }

    fn drc_ack(&self, tenant: TenantId, ack: DrcAck) {
        let Some(method) = ack.reply.method.clone() else { return };
        let found = self.parts.driver.find_drc(&ack.reply.gateway, &method, ack.seq);
        // A pilot's own heartbeats are acknowledged on the same topic: an answer to nobody is no news here.
        if let Some(id) = found {
            self.parts.driver.tell_now(tenant, id, Input::Reply(ack.reply));
        }
    }

    fn event(&self, tenant: TenantId, gateway: GatewaySn, event: Event) {
        let Some(mut progress) = event.progress else { return };
        progress.gateway = gateway;
        if let Some(id) = self.parts.driver.find_job(&progress) {
            self.parts.driver.tell_now(tenant, id, Input::Progress(*progress));
        }
    }

    fn topology(self: &Arc<Self>, topology: &Topology) {
        let now = self.parts.clock.now().wall;
        if let Some(model) = topology.model.key() {
            self.parts.directory.learn_model(&topology.gateway, model);
        }
        let Some(subs) = answers::to_core_subs(topology) else { return };
        let report = self.parts.directory.report_topology(&topology.gateway, &subs, now);
        match report.change {
            TopologyChange::ForeignSubDevice(sn) => tracing::warn!(
                gateway.sn = %topology.gateway, device.sn = %sn,
                "a gateway reports a sub-device it may not have; the report was not taken over"
            ),
            TopologyChange::Changed(subs) => {
                tracing::info!(gateway.sn = %topology.gateway, aircraft = subs.len(), "topology changed");
                let (link, gateway) = (self.clone(), topology.gateway.clone());
                self.later(async move {
                    if let Err(error) =
                        link.parts.directory.keep_topology(&gateway, report.new, subs).await
                    {
                        tracing::error!(gateway.sn = %gateway, %error, "could not keep a topology");
                    }
                });
            }
            TopologyChange::Same | TopologyChange::UnknownGateway => {}
        }
    }

    fn osd(&self, gateway: &GatewaySn, osd: &Osd) {
        let Some(mode) = osd.mode_code else { return };
        let mode = match mode {
            _ if osd.device.as_str() == gateway.as_str() => return,
            NOT_CONNECTED => return,
            STANDBY => FlightMode::Down,
            mode if HOMING_MODES.contains(&mode) => FlightMode::Homing,
            _ => FlightMode::Flying,
        };
        self.parts.driver.flight_mode(gateway, &osd.device, mode);
    }

    fn acknowledge(self: &Arc<Self>, uplink: &Uplink) {
        if let Some(outgoing) = answer::acknowledge(uplink, self.parts.clock.now().wall) {
            self.send(outgoing);
        }
    }

    /// Sends an answer. Nobody waits for the broker's word on it: a device that missed it asks again.
    fn send(self: &Arc<Self>, outgoing: answer::Outgoing) {
        Self::count(&self.figures.answered);
        let link = self.clone();
        self.tasks.spawn(async move {
            let topic = outgoing.topic.to_string();
            let message = Publish::new(topic.clone(), outgoing.payload).with_expiry(ANSWER_EXPIRY);
            let sent = link.parts.outlet.publish(message).await;
            tracing::trace!(topic, ?sent, "answered a device");
        });
    }

    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether an MQTT topic filter covers a topic.
fn covers(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            (_, _) => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn filters_cover_topics_as_mqtt_says() {
        let topic = "thing/product/DOCK/services";
        for filter in [
            topic,
            "#",
            "thing/#",
            "thing/product/DOCK/#",
            "thing/+/+/services",
            "thing/product/DOCK/services/#",
        ] {
            assert!(covers(filter, topic), "{filter}");
        }
        for filter in [
            "thing/product/DOCK",
            "thing/product/DOCK/services/x",
            "thing/product/DOC/services",
            "+",
            "sys/#",
        ] {
            assert!(!covers(filter, topic), "{filter}");
        }
    }
}
