//! What comes in: repetitions are told apart, what is answered automatically leaves at once, the rest is left to others.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use tokio::time::Instant;
use utmos_core::{
    device_request::{
        Asked, AskedOn, DeviceRequest, Input, Mode, Reply, ReplySource, RoutingDecision, Rule,
        decide,
    },
    id::{DeviceRequestId, GatewaySn, TenantId},
    ports::{RequestKept, StoreError},
    time::{Deadline, Now},
};
use utmos_dji::{
    answer::Question,
    uplink::{self, Exchange, Request, Topology},
};
use utmos_mqtt::Sent;

use super::{
    Inner,
    book::{Copied, RepeatKey},
    count,
    doors::{COPIES_MAX, Doors, PAYLOAD_BYTES_MAX, PAYLOAD_HEAD_BYTES},
    exchange_of, moved,
    remembered::Remembered,
    rules::UPDATE_TOPO,
    status_of,
    topologies::Topologies,
};
use crate::link::{ANSWER_EXPIRY, Said};

/// How long the record is looked at for a copy of a request that is answered alike whatever it says.
const ALIKE_LOOK_WAIT: Duration = Duration::from_millis(5);

/// What is in hand.
#[derive(Default)]
pub(super) struct Intake {
    pub(super) doors: Doors,
    under_way: BTreeMap<RepeatKey, UnderWay>,
    remembered: Remembered,
    pub(super) topologies: Topologies,
}

/// Why nobody knows whether a request came before.
#[derive(Debug, thiserror::Error)]
enum NotSeen {
    /// The record could not be read.
    #[error("the record could not be read: {0}")]
    Store(StoreError),
    /// It was not read in time.
    #[error("the record was not read within {} ms", .0.as_millis())]
    Late(Duration),
}

/// A request between its receipt and its record.
#[derive(Default)]
struct UnderWay {
    answered: Option<(Arc<Asked>, Reply)>,
    /// Copies that wait for its answer.
    copies: Vec<Exchange>,
    /// How many copies there were.
    seen: usize,
}

/// A request that came.
struct Coming {
    tenant: TenantId,
    request: Request,
    key: RepeatKey,
    at: Now,
    received: Instant,
}

impl Inner {
    /// A device asks for something.
    pub(super) fn asked(self: &Arc<Self>, said: &Said<'_>, request: &Request) {
        count(&self.figures.received);
        let key = key_of(said.tenant, request);
        match self.book().copied(&key, said.at.mono) {
            Copied::Unknown => {}
            Copied::Waits => {
                count(&self.figures.repeated);
                return;
            }
            Copied::LookUp(id) => {
                count(&self.figures.repeated);
                let (desk, exchange) = (self.clone(), request.exchange.clone());
                self.tasks.spawn(async move { desk.look_up(id, exchange).await });
                return;
            }
        }
        let (bytes, tenants) = (request.data.len(), self.parts.directory.tenants());
        let copy = {
            let mut intake = self.intake();
            let Intake { doors, under_way, remembered, .. } = &mut *intake;
            match under_way.get_mut(&key) {
                Some(first) => Some(first.copy(&request.exchange)),
                None if !doors.enter(
                    said.tenant,
                    &request.gateway,
                    bytes,
                    said.at.mono,
                    tenants,
                ) =>
                {
                    count(&self.figures.dropped);
                    return;
                }
                None => {
                    let answered = remembered.get(&key);
                    under_way.insert(key, UnderWay { answered, ..UnderWay::default() });
                    None
                }
            }
        };
        match copy {
            Some(answered) => {
                count(&self.figures.repeated);
                if let Some((asked, reply)) = answered {
                    self.send_beside(asked, request.exchange.clone(), reply);
                }
            }
            None => {
                let seat = Seat {
                    desk: self.clone(),
                    tenant: said.tenant,
                    gateway: request.gateway.clone(),
                    bytes,
                    key,
                    has_left: false,
                };
                let coming = Coming {
                    tenant: said.tenant,
                    request: request.clone(),
                    key,
                    at: said.at,
                    received: Instant::now(),
                };
                let desk = self.clone();
                self.tasks.spawn(async move { desk.take_up(coming, seat).await });
            }
        }
    }

    /// A gateway told what stands behind it. The link has acknowledged that; here it is put on record.
    pub(super) fn topology_told(self: &Arc<Self>, said: &Said<'_>, topology: &Topology) {
        count(&self.figures.received);
        let request = Request {
            gateway: topology.gateway.clone(),
            asked_on: uplink::AskedOn::Status(topology.root),
            exchange: topology.exchange.clone(),
            method: Some(UPDATE_TOPO.to_owned()),
            device_time: topology.device_time,
            data: topology.data.clone(),
        };
        let key = request.exchange.own_tid().is_none().then(|| key_of(said.tenant, &request));
        let mut intake = self.intake();
        if !intake.topologies.is_news(&topology.gateway, key) {
            return count(&self.figures.repeated);
        }
        drop(intake);
        let Some(recording) = self.may_record(said.tenant, &topology.gateway) else {
            self.intake().topologies.forget(&topology.gateway);
            return count(&self.figures.unrecorded);
        };
        let rule = Rule::default_for(true);
        let asked = self.to_asked(said.tenant, &request, said.at, rule);
        let reply = Reply {
            code: "0".to_owned(),
            message: None,
            source: ReplySource::Auto,
            by: None,
            data: r#"{"result":0}"#.into(),
            at: said.at.wall,
        };
        let record = Arc::new(DeviceRequest::answered(asked, reply));
        let (desk, gateway) = (self.clone(), topology.gateway.clone());
        self.tasks.spawn(async move {
            let kept = desk.parts.store.keep_request(record).await;
            drop(recording);
            match kept {
                Ok(RequestKept::New) => count(&desk.figures.automatic),
                Ok(RequestKept::Repeats(_)) => count(&desk.figures.repeated),
                Err(error) => {
                    // The next copy is tried.
                    desk.intake().topologies.forget(&gateway);
                    count(&desk.figures.unrecorded);
                    tracing::warn!(%error, "could not keep a topology update on record");
                }
            }
        });
    }

    async fn take_up(self: Arc<Self>, coming: Coming, mut seat: Seat) {
        let Coming { tenant, request, key, at, received } = coming;
        let known = self.intake().under_way.get(&key).and_then(|one| one.answered.clone());
        if let Some((asked, reply)) = known {
            count(&self.figures.repeated);
            let sent = self.send(&asked, request.exchange, &reply, ANSWER_EXPIRY).await;
            seat.leave();
            return self.note_again(&asked, &reply, &sent).await;
        }
        let question = Question::of(&request);
        let request_type = request.method.as_deref().unwrap_or("");
        let device = request.gateway.to_device();
        let rule = self.rules.effective(tenant, Some(&device), request_type).rule;
        match self.on_record(&request, key, rule).await {
            Ok(Some(before)) => return self.repeat(&before, request.exchange, seat).await,
            Ok(None) => {}
            Err(why) if rule.mode == Mode::Auto && self.is_answered_alike(&question) => {
                tracing::debug!(gateway.sn = %request.gateway, %why, "answered without a look at the record");
            }
            // Another answer than an earlier copy got is worse than none: the next copy is answered.
            Err(why) => {
                count(&self.figures.dropped);
                tracing::warn!(
                    gateway.sn = %request.gateway, %why,
                    "could not see whether {request_type} was answered before; the device asks again"
                );
                return;
            }
        }
        let asked = self.to_asked(tenant, &request, at, rule);
        let state = match &question {
            // Nobody could say what is answered.
            Question::NoMethod => RoutingDecision::Unsupported,
            // What the server cannot read, people may.
            Question::Unreadable
            | Question::Config { .. }
            | Question::BindStatus { .. }
            | Question::Organization { .. }
            | Question::Bind { .. }
            | Question::FlightAreas
            | Question::OfflineMap
            | Question::Storage { .. }
            | Question::Resource { .. }
            | Question::Progress { .. }
            | Question::Other => RoutingDecision::AwaitingReply,
        };
        if state == RoutingDecision::AwaitingReply && rule.mode == Mode::Auto {
            match self.automatic(tenant, &request.gateway, &question).await {
                Ok(reply) => {
                    // Of its message no more is kept in memory than goes on record, however long that takes.
                    drop((request, question));
                    return self.answer(asked, reply, seat, received).await;
                }
                // A record would take every copy for a repetition: without one the next copy is answered.
                Err(why) if why.may_pass() => {
                    count(&self.figures.dropped);
                    tracing::warn!(
                        gateway.sn = %asked.gateway, %why,
                        "could not answer {request_type}; the device asks again"
                    );
                    return;
                }
                Err(why) => {
                    tracing::info!(gateway.sn = %asked.gateway, %why, "no automatic answer to {request_type}");
                }
            }
        }
        drop((request, question));
        self.leave_to_others(DeviceRequest::new(asked, state), key, seat).await;
    }

    /// An earlier copy of a request, from before this run of the server or from too long ago to be remembered. Looked for
    /// as long as the request may be answered, but where the answer cannot depend on it.
    async fn on_record(
        &self,
        request: &Request,
        key: RepeatKey,
        rule: Rule,
    ) -> Result<Option<DeviceRequest>, NotSeen> {
        if request.exchange.own_tid().is_none() {
            return Ok(None);
        }
        let wait = match self.is_answered_alike(&Question::of(request)) {
            true => ALIKE_LOOK_WAIT,
            false => rule.reply_wait,
        };
        let looking = self.parts.store.request_repeated(key);
        match tokio::time::timeout(wait, looking).await {
            Ok(found) => found.map_err(NotSeen::Store),
            Err(_) => Err(NotSeen::Late(wait)),
        }
    }

    /// Whether every request of this kind gets the same answer, always: the server's, which depends on nothing, since
    /// nobody has ever set a rule by which it could be left to people.
    fn is_answered_alike(&self, question: &Question) -> bool {
        match question {
            Question::FlightAreas | Question::OfflineMap | Question::Storage { .. } => {
                !self.rules.were_ever_set()
            }
            Question::Config { .. }
            | Question::BindStatus { .. }
            | Question::Organization { .. }
            | Question::Bind { .. }
            | Question::Resource { .. }
            | Question::Progress { .. }
            | Question::Unreadable
            | Question::NoMethod
            | Question::Other => false,
        }
    }

    /// Remembers an answer that is about to leave, for copies of its request.
    pub(super) fn remember(&self, request: &DeviceRequest, reply: &Reply) {
        if let Some(key) = request.asked.repeat_key {
            self.remember_by(key, request.asked.clone(), reply.clone());
        }
    }

    fn remember_by(&self, key: RepeatKey, asked: Arc<Asked>, reply: Reply) {
        let tenants = self.parts.directory.tenants();
        self.intake().remembered.put(key, asked, reply, tenants);
    }

    /// An answer that waited, and of which nobody knew whether it had left, left with a copy.
    async fn note_again(&self, asked: &Asked, reply: &Reply, sent: &Sent) {
        let has_waited = reply.source == ReplySource::Manual || asked.automatic_after.is_some();
        if has_waited && let Ok(Some(request)) = self.parts.store.request(asked.id).await {
            self.note_sent(&request, sent).await;
        }
    }

    /// Answers at once, and puts that on record meanwhile: a dock does not wait for the disk. What a crash can lose is a
    /// record, of an answer that would be given again.
    async fn answer(
        self: &Arc<Self>,
        asked: Arc<Asked>,
        reply: Reply,
        mut seat: Seat,
        received: Instant,
    ) {
        let request = Arc::new(DeviceRequest::answered(asked.clone(), reply.clone()));
        let Some(recording) = self.may_record(asked.tenant, &asked.gateway) else {
            count(&self.figures.unrecorded);
            self.hand_over(&asked, &reply, &mut seat, received).await;
            return;
        };
        let handing = self.hand_over(&asked, &reply, &mut seat, received);
        let (sent, kept) = tokio::join!(handing, self.parts.store.keep_request(request.clone()));
        drop(recording);
        match kept {
            Ok(RequestKept::New) => self.note_sent(&request, &sent).await,
            Ok(RequestKept::Repeats(before)) => {
                count(&self.figures.repeated);
                // From now on copies get the answer that is on record.
                if let Some(first) = before.reply {
                    self.remember_by(seat.key, before.asked, first);
                }
            }
            Err(error) => self.could_not_record(&asked, &error),
        }
    }

    fn could_not_record(&self, asked: &Asked, error: &StoreError) {
        count(&self.figures.unrecorded);
        tracing::warn!(
            gateway.sn = %asked.gateway, %error,
            "answered a request that could not be put on record"
        );
    }

    /// Gives an answer to the device and to every copy that waits for it.
    async fn hand_over(
        self: &Arc<Self>,
        asked: &Arc<Asked>,
        reply: &Reply,
        seat: &mut Seat,
        received: Instant,
    ) -> Sent {
        count(&self.figures.automatic);
        let tenants = self.parts.directory.tenants();
        let copies = {
            let mut intake = self.intake();
            if asked.repeat_key.is_some() {
                intake.remembered.put(seat.key, asked.clone(), reply.clone(), tenants);
            }
            intake.under_way.get_mut(&seat.key).map(|under_way| {
                under_way.answered = Some((asked.clone(), reply.clone()));
                std::mem::take(&mut under_way.copies)
            })
        };
        self.figures.answer.take(received.elapsed());
        for copy in copies.unwrap_or_default() {
            self.send_beside(asked.clone(), copy, reply.clone());
        }
        tracing::info!(
            gateway.sn = %asked.gateway, device_request.id = %asked.id, result = reply.code,
            "answered {}", asked.request_type.as_deref().unwrap_or("a request")
        );
        let sent = self.send(asked, exchange_of(asked), reply, ANSWER_EXPIRY).await;
        seat.leave();
        sent
    }

    fn send_beside(self: &Arc<Self>, asked: Arc<Asked>, exchange: Exchange, reply: Reply) {
        let desk = self.clone();
        self.tasks.spawn(async move { desk.send(&asked, exchange, &reply, ANSWER_EXPIRY).await });
    }

    /// Puts on record that the broker took an automatic answer.
    async fn note_sent(&self, request: &DeviceRequest, sent: &Sent) {
        if !matches!(sent, Sent::Confirmed { .. }) {
            return;
        }
        let now = self.parts.clock.now();
        let decision = decide(request, Input::Left, now, self.parts.clock.boot());
        if let Some(to) = moved(decision)
            && let Err(error) = self.parts.store.change_request(request.version, to).await
        {
            tracing::warn!(%error, "could not note that an answer left");
        }
    }

    /// A request that is on record came again: it gets the answer it has. One whose answer has not left yet gets it when
    /// that leaves; one that waits goes on waiting.
    async fn repeat(self: &Arc<Self>, before: &DeviceRequest, exchange: Exchange, seat: Seat) {
        count(&self.figures.repeated);
        if before.needs_care() {
            self.look_after(before);
            self.look_again(before.asked.id);
            return;
        }
        let Some(reply) = &before.reply else { return };
        let copies = self.intake().under_way.get_mut(&seat.key).map(|under_way| {
            under_way.answered = Some((before.asked.clone(), reply.clone()));
            std::mem::take(&mut under_way.copies)
        });
        for copy in copies.unwrap_or_default() {
            self.send_beside(before.asked.clone(), copy, reply.clone());
        }
        self.answer_as_before(before, reply, exchange, Some(seat)).await;
    }

    /// A copy gets the answer that is on record, and whoever comes next gets it at once. While it is noted that it left, the
    /// copy takes no seat.
    async fn answer_as_before(
        &self,
        before: &DeviceRequest,
        reply: &Reply,
        exchange: Exchange,
        seat: Option<Seat>,
    ) {
        self.remember(before, reply);
        let sent = self.send(&before.asked, exchange, reply, ANSWER_EXPIRY).await;
        drop(seat);
        self.note_sent(before, &sent).await;
    }

    /// A request that waits came again. Another server may have answered it, which says so to nobody but the record; then
    /// the copy gets that answer, for whoever asks again may not have got it.
    async fn look_up(self: Arc<Self>, id: DeviceRequestId, exchange: Exchange) {
        let before = match self.parts.store.request(id).await {
            Ok(Some(before)) => before,
            Ok(None) => return self.book().remove(id),
            // The next copy has it looked up again.
            Err(error) => return tracing::debug!(%error, "could not look a request up"),
        };
        if before.needs_care() {
            return self.look_again(id);
        }
        self.book().remove(id);
        let Some(reply) = &before.reply else { return };
        self.answer_as_before(&before, reply, exchange, None).await;
    }

    /// Puts on record what is not answered here.
    async fn leave_to_others(
        self: &Arc<Self>,
        request: DeviceRequest,
        key: RepeatKey,
        mut seat: Seat,
    ) {
        // While its record is written it takes no place of those that can be answered at once.
        seat.leave();
        let asked = request.asked.clone();
        let waits = request.needs_care();
        let tenants = self.parts.directory.tenants();
        let place = waits.then(|| self.expect(asked.tenant, &asked.gateway, tenants));
        let is_full = matches!(place, Some(None));
        let Some(recording) =
            (!is_full).then(|| self.may_record(asked.tenant, &asked.gateway)).flatten()
        else {
            count(&self.figures.dropped);
            return;
        };
        let request = Arc::new(request);
        let kept = self.parts.store.keep_request(request.clone()).await;
        drop(recording);
        match kept {
            Ok(RequestKept::New) => {
                let name = asked.request_type.as_deref().unwrap_or("a request without a method");
                tracing::info!(
                    gateway.sn = %asked.gateway, device_request.id = %asked.id,
                    state = request.state.as_str(), "left {name} to whoever integrates"
                );
                count(&self.figures.unanswered);
                if waits {
                    self.look_after_keyed(&request, Some(key));
                }
                drop(place);
            }
            Ok(RequestKept::Repeats(before)) => {
                drop(place);
                self.repeat(&before, exchange_of(&asked), seat).await;
            }
            Err(error) => {
                count(&self.figures.dropped);
                tracing::warn!(
                    gateway.sn = %asked.gateway, %error,
                    "could not put a request on record; the device asks again"
                );
            }
        }
    }

    fn expect(
        self: &Arc<Self>,
        tenant: TenantId,
        gateway: &GatewaySn,
        tenants: usize,
    ) -> Option<Expected> {
        let may = self.book().expect(tenant, gateway, tenants);
        may.then(|| Expected { desk: self.clone(), tenant, gateway: gateway.clone() })
    }

    fn may_record(self: &Arc<Self>, tenant: TenantId, gateway: &GatewaySn) -> Option<Recording> {
        let now = self.parts.clock.now().mono;
        let tenants = self.parts.directory.tenants();
        let may = self.intake().doors.record(tenant, gateway, now, tenants);
        may.then(|| Recording { desk: self.clone(), tenant, gateway: gateway.clone() })
    }

    fn to_asked(&self, tenant: TenantId, request: &Request, at: Now, rule: Rule) -> Arc<Asked> {
        let (payload, payload_is_cut) = match cut(&request.data) {
            Some(head) => (head.into(), true),
            None => (request.data.clone(), false),
        };
        Arc::new(Asked {
            id: DeviceRequestId::new(self.parts.ids.ordered(at.wall)),
            tenant,
            gateway: request.gateway.clone(),
            device: request.gateway.to_device(),
            request_type: request.method.clone(),
            tid: request.exchange.tid.clone(),
            bid: request.exchange.bid.clone(),
            asked_on: match request.asked_on {
                uplink::AskedOn::Requests => AskedOn::Requests,
                uplink::AskedOn::Status(root) => status_of(root),
            },
            repeat_key: request.exchange.own_tid().map(|_| key_of(tenant, request)),
            payload,
            payload_is_cut,
            received_at: at.wall,
            deadline: Deadline::after(at, self.parts.clock.boot(), rule.reply_wait),
            reply_wait: rule.reply_wait,
            automatic_after: match rule.mode {
                Mode::AutoAfter(after) => Some(after),
                Mode::Auto | Mode::Manual => None,
            },
        })
    }
}

impl UnderWay {
    /// Notes a copy, or answers what to give it.
    fn copy(&mut self, exchange: &Exchange) -> Option<(Arc<Asked>, Reply)> {
        self.seen += 1;
        if self.seen > COPIES_MAX {
            return None;
        }
        if self.answered.is_none() {
            self.copies.push(exchange.clone());
        }
        self.answered.clone()
    }
}

/// A request's place, given back when it is answered and on record, whatever happens.
struct Seat {
    desk: Arc<Inner>,
    tenant: TenantId,
    gateway: GatewaySn,
    bytes: usize,
    key: RepeatKey,
    has_left: bool,
}

impl Seat {
    /// Gives back its part of the gateway's share; its copies still find it.
    fn leave(&mut self) {
        if !self.has_left {
            self.has_left = true;
            self.desk.intake().doors.leave(self.tenant, &self.gateway, self.bytes);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
        self.desk.intake().under_way.remove(&self.key);
    }
}

/// A record that is being written.
struct Recording {
    desk: Arc<Inner>,
    tenant: TenantId,
    gateway: GatewaySn,
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.desk.intake().doors.recorded(self.tenant, &self.gateway);
    }
}

/// A place among those that wait, for one whose record is being written.
struct Expected {
    desk: Arc<Inner>,
    tenant: TenantId,
    gateway: GatewaySn,
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.desk.book().no_longer_expect(self.tenant, &self.gateway);
    }
}

/// What tells a request's repetitions: tenant, gateway, method and `tid`; where that does not tell it from others, what it asks.
pub(super) fn key_of(tenant: TenantId, request: &Request) -> RepeatKey {
    let (kind, text) = match request.exchange.own_tid() {
        Some(tid) => (1, tid),
        None => (2, &*request.data),
    };
    let digest = Sha256::new()
        .chain_update(tenant.uuid().as_bytes())
        .chain_update(request.gateway.as_str())
        .chain_update([0])
        .chain_update(request.method.as_deref().unwrap_or(""))
        .chain_update([0, kind])
        .chain_update(text)
        .finalize();
    let mut key = RepeatKey::default();
    let length = key.len();
    key.copy_from_slice(&digest[..length]);
    key
}

/// The beginning of a text that is too long to be kept.
fn cut(text: &str) -> Option<String> {
    if text.len() <= PAYLOAD_BYTES_MAX {
        return None;
    }
    let mut end = PAYLOAD_HEAD_BYTES;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).map(str::to_owned)
}
