//! What devices say, on its way in: every message is read, its gateway counts as heard, what it asks for is answered,
//! and what it says of a command goes to that command.
//!
//! Nothing a device sends may stop the link. What cannot be read, and what belongs to nothing, is counted and kept as
//! evidence, at a bounded rate.

mod allotments;
mod chores;
mod evidence;
mod listener;
mod speaker;
mod strangers;
mod topology;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utmos_core::{
    id::{CommandId, DeviceSn, GatewaySn, TenantId},
    life::Input,
    planted::{self, Fault},
    ports::{Ids, Store},
    reply::Progress,
    time::Clock,
};
use utmos_dji::{
    answer,
    catalogue::Catalogue,
    topic::{DownlinkTopic, UplinkTopic},
    uplink::{self, DrcAck, Event, ForGateway, Osd, ReplyTo, Uplink},
};
use utmos_mqtt::{Inbound, Outlet, Publish};

use self::{
    allotments::{Allotments, Whose},
    chores::Chores,
    evidence::{About, Evidence, Stray},
    speaker::Speaker,
    strangers::Strangers,
    topology::LeftOut,
};
use crate::{
    directory::Directory,
    driver::{Driver, FlightMode, Matched},
    outside::Outside,
    presence_topics::{PresenceTopics, Word},
    replicas::{self, Holdings, Missed},
};

pub use self::listener::{Listener, Said};

/// Answers to devices are worth nothing later than this.
pub(crate) const ANSWER_EXPIRY: Duration = Duration::from_secs(30);

/// Answers of one gateway that may be on their way. After an absence it says much at once, and answers go out one by one.
const ANSWERING_PER_GATEWAY_MAX: usize = 512;

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
    /// Which gateways are this server's: what the others say has no effect here but that they were heard.
    pub holdings: Arc<Holdings>,
    /// What gateways of other servers said of commands.
    pub missed: Arc<Missed>,
    /// The outside broker, where there is one.
    pub outside: Option<Arc<Outside>>,
    /// Where an outside broker tells of connections.
    pub presence_topics: PresenceTopics,
    /// Who else wants to know what devices say.
    pub listeners: Vec<Arc<dyn Listener>>,
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
    /// Messages on the topics of an aircraft that several gateways have, and that name none of them.
    pub unclear: AtomicU64,
    /// Messages that name a gateway which their device does not stand behind, replies to another gateway's command, and
    /// topologies with a device of another tenant.
    pub forged: AtomicU64,
    /// Answers sent to devices.
    pub answered: AtomicU64,
    /// Messages that were not answered, since their gateway or all of them together had more answers on their way than there
    /// is room for: it asks again.
    pub left_unanswered: AtomicU64,
    /// Evidence, late answers, topologies and what was said of open commands that found no room: its gateway said more
    /// than the store could take.
    pub dropped: AtomicU64,
}

/// The way in.
pub struct Link {
    parts: LinkParts,
    evidence: Evidence,
    figures: Figures,
    tasks: TaskTracker,
    chores: Chores,
    /// Answers that are on their way.
    answering: Allotments,
    strangers: Mutex<Strangers>,
}

impl Link {
    /// A link that is not running yet.
    #[must_use]
    pub fn new(parts: LinkParts) -> Arc<Self> {
        let evidence = Evidence::new(parts.clock.clone(), parts.ids.clone());
        let (tasks, chores) = (TaskTracker::new(), Chores::start());
        let (figures, answering) = (Figures::default(), Allotments::new(ANSWERING_PER_GATEWAY_MAX));
        let strangers = Mutex::default();
        Arc::new(Self { parts, evidence, figures, tasks, chores, answering, strangers })
    }

    /// Leaves something that needs the store to be done in its turn. Answers whether there was room for it.
    fn later(
        &self,
        tenant: Option<TenantId>,
        gateway: Option<&GatewaySn>,
        bytes: usize,
        chore: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        let is_taken = self.chores.add(self.whose(tenant, gateway), bytes, chore);
        if !is_taken {
            Self::count(&self.figures.dropped);
        }
        is_taken
    }

    /// How many answers to devices are on their way.
    #[must_use]
    pub fn answering(&self) -> usize {
        self.answering.taken()
    }

    fn whose<'a>(&self, tenant: Option<TenantId>, gateway: Option<&'a GatewaySn>) -> Whose<'a> {
        Whose { tenant, gateway, tenants: self.parts.directory.tenants() }
    }

    /// How many chores wait for the store.
    #[must_use]
    pub fn chores_waiting(&self) -> usize {
        self.chores.depth()
    }

    /// Figures since the start.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
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
            Inbound::Message { topic, payload, user, .. } => {
                self.message(&topic, &payload, user.as_deref())
            }
            Inbound::Joined { user, client_id } => {
                self.edge(&user, |book, gateway, now| book.joined(gateway, client_id, now));
            }
            Inbound::Subscribed { user, client_id, filter } => {
                self.subscribed(&user, &client_id, &filter);
            }
            Inbound::Left { user, client_id } => self.edge(&user, |book, gateway, _| {
                book.left(gateway, &client_id);
                false
            }),
            Inbound::LinkUp { protocol } => {
                tracing::info!(?protocol, "the broker is connected");
                let lacks = self.parts.outside.as_ref().map_or(Vec::new(), |it| it.lacks());
                lacks.iter().for_each(|lack| tracing::warn!("of the broker: {lack}"));
                self.parts.driver.listens();
                self.parts.driver.link_is_up();
            }
            Inbound::LinkDown { reason } => {
                tracing::warn!(
                    reason,
                    "the broker is not connected; `utmos doctor` looks for the cause"
                );
                self.parts.driver.presence(|book, _| (book.link_was_cut(), Vec::new()));
            }
        }
    }

    /// A gateway that listens (anew) has whatever waits for it sent, also when it counted as present before: a session
    /// that was taken over began without subscriptions.
    fn subscribed(&self, user: &str, client_id: &str, filter: &str) {
        let Ok(gateway) = GatewaySn::parse(user) else { return };
        let services = DownlinkTopic::Services { gateway: gateway.clone() }.to_string();
        if covers(filter, &services) {
            self.edge(user, |book, gateway, now| book.listens(gateway, client_id, now));
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
        self.parts.listeners.iter().for_each(|listener| listener.presence(&gateway));
    }

    /// An outside broker tells of a session of a gateway.
    fn session(&self, word: &Word) {
        if self.parts.directory.tenant_of(&word.gateway).is_some() {
            self.edge(word.gateway.as_str(), |book, _, now| {
                book.told(word, now);
                false
            });
        }
    }

    fn message(self: &Arc<Self>, topic: &str, payload: &Bytes, user: Option<&str>) {
        Self::count(&self.figures.received);
        let stray = |tenant, gateway, reason: &str| {
            Self::count(&self.figures.malformed);
            self.keep(Stray { tenant, gateway, topic, payload, reason, about: About::default() });
        };
        if user.is_none()
            && let Some(word) = self.parts.presence_topics.read(topic, payload)
        {
            return match word {
                Ok(word) => self.session(&word),
                Err(unclear) => stray(None, None, &unclear.to_string()),
            };
        }
        let parsed = match UplinkTopic::parse(topic) {
            Ok(parsed) => parsed,
            Err(error) => return stray(None, None, &error.to_string()),
        };
        let device = parsed.device();
        let (tenant, gateway) = match self.speaker(&device, user, payload) {
            Speaker::Gateway(tenant, gateway) => (tenant, gateway),
            Speaker::Unclear(tenant, candidate) => {
                return self.unclear(tenant, &candidate, &parsed, topic, payload);
            }
            Speaker::Newcomer(tenant, gateway) => {
                return self.newcomer(tenant, &gateway, &parsed, topic, payload);
            }
            Speaker::Stranger => {
                Self::count(&self.figures.strangers);
                return self.stranger(&device, topic, payload);
            }
        };
        let meanings = self.meanings_for(&gateway);
        let read = uplink::read_with_claim(&parsed, payload, &meanings);
        if user.is_none()
            && let Ok((_, Some(named))) = &read
            && self.is_forged(&device, named)
        {
            let reason = "it names a gateway that this device does not stand behind";
            return self.forged(tenant, &gateway, topic, payload, reason);
        }
        self.edge(gateway.as_str(), |book, gateway, now| book.heard(gateway, now));
        let uplink = match read {
            Ok((uplink, _)) => uplink,
            Err(error) => return stray(Some(tenant), Some(&gateway), &error.to_string()),
        };
        if !self.parts.holdings.is_alone() {
            self.remember(tenant, &gateway, payload.len(), &uplink);
        }
        let is_ours = self.parts.holdings.holds(&gateway);
        if is_ours {
            self.acknowledge(tenant, &gateway, &uplink);
        }
        let at = self.parts.clock.now();
        let bytes = payload.len();
        let said = Said { tenant, gateway: &gateway, uplink: &uplink, bytes, at, is_ours };
        self.parts.listeners.iter().for_each(|listener| listener.said(&said));
        match uplink {
            Uplink::Reply(reply) | Uplink::PropertyReply(reply) if !is_ours => {
                self.reply_to_another(tenant, reply, payload.len());
            }
            Uplink::Reply(reply) | Uplink::PropertyReply(reply) => {
                // At our own broker it is that gateway which answers, and the command is told so.
                if user.is_none() && self.went_to_another(tenant, &reply) {
                    let reason = "a reply to a command that went to another gateway";
                    return self.forged(tenant, &gateway, topic, payload, reason);
                }
                self.reply(tenant, reply, topic, payload)
            }
            Uplink::DrcAck(ack) => self.drc_ack(tenant, ack, payload.len()),
            Uplink::Event(event) => self.event(tenant, gateway, event, payload.len()),
            Uplink::Topology(topology) => {
                let left_out = self.topology(tenant, &topology);
                if left_out == LeftOut::Foreign {
                    let reason =
                        "it names a sub-device that is another tenant's, or a gateway itself";
                    self.forged(tenant, &gateway, topic, payload, reason);
                }
            }
            Uplink::Osd(osd) => self.osd(&gateway, &osd),
            Uplink::Request(_) | Uplink::State(_) | Uplink::DrcPush(_) => {}
        }
    }

    /// A device that nobody has registered spoke, which is told of once: when there is room for it.
    fn stranger(self: &Arc<Self>, device: &DeviceSn, topic: &str, payload: &[u8]) {
        tracing::debug!(device.sn = %device, "a message of a device nobody has registered");
        // Held meanwhile, so that nothing is lost before it counts as told.
        let mut strangers = self.strangers();
        if !strangers.is_news(device, self.parts.clock.now().mono) {
            return;
        }
        let reason = format!("nobody has registered the device {device}");
        let about = About::default();
        let stray = Stray { tenant: None, gateway: None, topic, payload, reason: &reason, about };
        let (link, lost) = (self.clone(), device.clone());
        if self.keep_or(stray, move || link.strangers().was_lost(&lost)) {
            strangers.was_told(device);
        }
    }

    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what says more than its sender may; that has no effect.
    fn forged(
        &self,
        tenant: TenantId,
        gateway: &GatewaySn,
        topic: &str,
        payload: &[u8],
        reason: &str,
    ) {
        Self::count(&self.figures.forged);
        self.keep(Stray {
            tenant: Some(tenant),
            gateway: Some(gateway),
            topic,
            payload,
            reason,
            about: About::default(),
        });
    }

    /// How what this gateway says is to be read.
    fn meanings_for(&self, gateway: &GatewaySn) -> ForGateway<'_> {
        ForGateway {
            catalogue: &self.parts.catalogue,
            model: self.parts.directory.model_of(gateway),
        }
    }

    /// Keeps a message that belongs to nothing as evidence.
    fn keep(&self, stray: Stray<'_>) {
        self.keep_or(stray, || ());
    }

    /// The same; `lost` is called where the store fails to. Answers whether there was room for it.
    fn keep_or(&self, stray: Stray<'_>, lost: impl FnOnce() + Send + 'static) -> bool {
        // Whoever holds its gateway keeps it.
        if stray.gateway.is_some_and(|gateway| !self.parts.holdings.holds(gateway)) {
            return false;
        }
        let (tenant, gateway, reason) = (stray.tenant, stray.gateway.cloned(), stray.reason);
        let Some(unmatched) = self.evidence.of(stray) else { return false };
        let store = self.parts.store.clone();
        let bytes = unmatched.raw.len();
        let is_taken = self.later(tenant, gateway.as_ref(), bytes, async move {
            if let Err(error) = store.keep_unmatched(unmatched).await {
                tracing::error!(%error, "could not keep evidence");
                lost();
            }
        });
        // As often as evidence is kept, and no oftener.
        if is_taken {
            tracing::warn!(
                gateway.sn = gateway.as_ref().map_or("unknown", GatewaySn::as_str),
                "a message belongs to nothing: {reason}"
            );
        }
        is_taken
    }

    /// Whether an answer is to a command under care that another gateway got.
    fn went_to_another(&self, tenant: TenantId, answer: &ReplyTo) -> bool {
        let went_to = command_of(answer).and_then(|id| self.parts.driver.gateway_of(tenant, id));
        went_to.is_some_and(|gateway| gateway != answer.reply.gateway)
    }

    /// An answer goes to its command at once if that is under care; one that ended long ago is looked up in its turn.
    fn reply(self: &Arc<Self>, tenant: TenantId, answer: ReplyTo, topic: &str, payload: &Bytes) {
        let id = command_of(&answer);
        let leaves = |id| self.parts.driver.is_leaving(id) == Some(true);
        if planted::is_planted(Fault::WaiterAfterPublish) && id.is_some_and(leaves) {
            return;
        }
        let matched =
            id.map(|id| self.say(tenant, id, Input::Reply(answer.reply.clone()), payload.len()));
        match (id, matched) {
            (Some(_), Some(Matched::Yes | Matched::Full)) => {}
            (Some(id), Some(Matched::NotHere)) => {
                let (link, topic, payload) = (self.clone(), topic.to_owned(), payload.clone());
                let gateway = answer.reply.gateway.clone();
                self.later(Some(tenant), Some(&gateway), payload.len(), async move {
                    match link.parts.driver.tell(tenant, id, Input::Reply(answer.reply.clone())).await {
                        Ok(Matched::Yes | Matched::Full) => {}
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

    /// An answer of a gateway that another server holds: it may be to an emergency that was accepted here.
    fn reply_to_another(&self, tenant: TenantId, answer: ReplyTo, bytes: usize) {
        if let Some(id) = command_of(&answer) {
            self.say(tenant, id, Input::Reply(answer.reply), bytes);
        }
    }

    /// Keeps what a device says of a command for a while where several servers share the store: whoever holds its gateway may
    /// be dying, or be cut off, without having it on record.
    fn remember(&self, tenant: TenantId, gateway: &GatewaySn, bytes: usize, uplink: &Uplink) {
        let word = match uplink {
            Uplink::Reply(answer) | Uplink::PropertyReply(answer) => {
                command_of(answer).map(|id| replicas::Word::Reply(id, answer.reply.clone()))
            }
            Uplink::Event(event) => event.progress.as_ref().map(|progress| {
                let gateway = gateway.clone();
                replicas::Word::Progress(Box::new(Progress { gateway, ..(**progress).clone() }))
            }),
            Uplink::DrcAck(_)
            | Uplink::DrcPush(_)
            | Uplink::Osd(_)
            | Uplink::Request(_)
            | Uplink::State(_)
            | Uplink::Topology(_) => None,
        };
        if let Some(word) = word {
            self.parts.missed.keep(tenant, gateway, word, bytes);
        }
    }

    fn unmatched(&self, tenant: TenantId, answer: ReplyTo, topic: &str, payload: &[u8]) {
        Self::count(&self.figures.unmatched);
        let gateway = answer.reply.gateway;
        self.keep(Stray {
            tenant: Some(tenant),
            gateway: Some(&gateway),
            topic,
            payload,
            reason: "a reply, and no command of this gateway's tenant has its tid",
            about: About { tid: answer.exchange.tid, method: answer.reply.method },
        });
    }

    /// Gives what a device said to its command, if that is under care.
    fn say(&self, tenant: TenantId, id: CommandId, input: Input, bytes: usize) -> Matched {
        let matched = self.parts.driver.tell_now(tenant, id, input, bytes);
        if matched == Matched::Full {
            Self::count(&self.figures.dropped);
        }
        matched
    }

    fn drc_ack(&self, tenant: TenantId, ack: DrcAck, bytes: usize) {
        let Some(method) = ack.reply.method.clone() else { return };
        let found = self.parts.driver.find_drc(&ack.reply.gateway, &method, ack.seq);
        // A pilot's own heartbeats are acknowledged on the same topic: an answer to nobody is no news here.
        if let Some(id) = found {
            self.say(tenant, id, Input::Reply(ack.reply), bytes);
        }
    }

    fn event(&self, tenant: TenantId, gateway: GatewaySn, event: Event, bytes: usize) {
        let Some(mut progress) = event.progress else { return };
        progress.gateway = gateway;
        if let Some(id) = self.parts.driver.find_job(&progress) {
            self.say(tenant, id, Input::Progress(*progress), bytes);
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

    fn acknowledge(self: &Arc<Self>, tenant: TenantId, gateway: &GatewaySn, uplink: &Uplink) {
        if let Some(outgoing) = answer::acknowledge(uplink, self.parts.clock.now().wall) {
            self.send(tenant, gateway, outgoing);
        }
    }

    /// Sends an answer to something that a gateway said. Nobody waits for the broker's word on it: a device that missed it
    /// asks again, and so does one that asks for more than it takes in.
    fn send(self: &Arc<Self>, tenant: TenantId, gateway: &GatewaySn, outgoing: answer::Outgoing) {
        let whose = self.whose(Some(tenant), Some(gateway));
        let Some(allotment) = self.answering.take(whose, outgoing.payload.len()) else {
            return Self::count(&self.figures.left_unanswered);
        };
        Self::count(&self.figures.answered);
        let link = self.clone();
        self.tasks.spawn(async move {
            let _allotment = allotment;
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

/// The command whose answer this says it is.
fn command_of(answer: &ReplyTo) -> Option<CommandId> {
    answer.exchange.tid.as_deref().and_then(|tid| tid.parse().ok())
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
