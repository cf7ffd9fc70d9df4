//! Looks after what waits: for an answer by hand, for its gateway, for its time. Load, decide, save, then act.

use std::{sync::Arc, time::Duration};

use utmos_core::{
    device_request::{
        CannotReply, Decision, DeviceRequest, Input, Reply, ReplySource, RoutingDecision, decide,
        result_of,
    },
    id::{DeviceRequestId, GatewaySn},
    life::Presence,
    ports::{RequestChanged, StoreError},
    time::Now,
};
use utmos_dji::answer::{self, Question};
use utmos_mqtt::Sent;

use super::{
    ANSWER_EXPIRY, Desk, Inner,
    book::{Next, RepeatKey},
    count, exchange_of,
    intake::key_of,
    moved, wire,
};
use crate::crash_point;

/// Sleeps no longer than this, so that a running time that jumps is noticed.
const LOOK_WAIT_MAX: Duration = Duration::from_secs(1);
/// Requests taken in hand at once.
const DUE_PER_LOOK_MAX: usize = 256;
/// When what could not be read or sent is tried again.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// How often an answer by hand is tried while others change the request.
const TRIES_MAX: usize = 8;

/// The request for which a good answer is more than words.
pub const BIND: &str = "airport_organization_bind";

/// An answer by hand.
#[derive(Debug, Clone)]
pub struct ByHand {
    /// `reply_code`.
    pub code: String,
    /// `reply_message`.
    pub message: Option<String>,
    /// `payload`, as JSON.
    pub payload: Option<String>,
}

/// Why an answer by hand is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// There is no such request.
    #[error("there is no such device request")]
    Unknown,
    /// It can have none.
    #[error("the device request cannot be answered: {0}")]
    Cannot(CannotReply),
    /// It could not be stored.
    #[error("the answer could not be stored")]
    Store(#[source] StoreError),
}

/// What comes after a request was looked after.
enum After {
    /// It needs nobody any more.
    Done,
    /// It is due again then.
    At(Next),
    /// At once.
    Again,
}

impl Desk {
    /// Answers a request by hand. The answer is durable when this returns, and leaves once the gateway is there.
    ///
    /// # Errors
    /// See [`ReplyError`].
    pub async fn reply(
        &self,
        id: DeviceRequestId,
        by_hand: ByHand,
    ) -> Result<Arc<DeviceRequest>, ReplyError> {
        self.inner.reply(id, by_hand).await
    }
}

impl Inner {
    async fn reply(
        self: &Arc<Self>,
        id: DeviceRequestId,
        by_hand: ByHand,
    ) -> Result<Arc<DeviceRequest>, ReplyError> {
        let store = &self.parts.store;
        for _ in 0..TRIES_MAX {
            let found = store.request(id).await.map_err(ReplyError::Store)?;
            let request = found.ok_or(ReplyError::Unknown)?;
            let now = self.parts.clock.now();
            let boot = self.parts.clock.boot();
            let is_ours = self.is_of_tenant(&request.asked);
            let input = match is_ours {
                true => Input::Reply(to_reply(&request, &by_hand, now)),
                false => Input::Gone,
            };
            let mut decision = decide(&request, input, now, boot);
            if is_ours && binds(&request, &by_hand) && matches!(decision, Decision::Move { .. }) {
                let reply = self.bind_by_hand(&request, &by_hand).await?;
                // That may have taken a moment.
                let now = self.parts.clock.now();
                decision = decide(&request, Input::Reply(reply), now, boot);
            }
            let to = match decision {
                Decision::Move { to, .. } => Arc::from(to),
                Decision::Refuse(why) => return Err(ReplyError::Cannot(why)),
                Decision::Ignore if is_ours => return Err(ReplyError::Unknown),
                Decision::Ignore => return Err(ReplyError::Cannot(CannotReply::Expired)),
            };
            match store.change_request(request.version, Arc::clone(&to)).await {
                Ok(RequestChanged::Yes) if !is_ours => {
                    self.note(&request, &to);
                    self.look_again(id);
                    return Err(ReplyError::Cannot(CannotReply::Expired));
                }
                Ok(RequestChanged::Yes) => {
                    crash_point::reached("device_request_replied");
                    count(&self.figures.by_hand);
                    self.look_after(&to);
                    self.look_again(id);
                    return Ok(to);
                }
                Ok(RequestChanged::Lost) => {}
                Err(error) => return Err(ReplyError::Store(error)),
            }
        }
        let why = "the device request changes all the time".to_owned();
        Err(ReplyError::Store(StoreError::Unavailable(why)))
    }

    /// What an approval of a binding is answered with: that it was carried out, as the answer of a rule would, and with what
    /// outcome for each device. A dock is told nothing that is not on record.
    async fn bind_by_hand(
        &self,
        request: &DeviceRequest,
        by_hand: &ByHand,
    ) -> Result<Reply, ReplyError> {
        let asked = &request.asked;
        let question = match asked.payload_is_cut {
            true => Question::Unreadable,
            false => Question::of(&wire(asked)),
        };
        let answer = self.automatic(asked.tenant, &asked.gateway, &question).await;
        let answer = answer.map_err(|why| {
            let why = format!("the devices could not be bound: {why}");
            ReplyError::Store(StoreError::Unavailable(why))
        })?;
        let (code, message) = (by_hand.code.clone(), by_hand.message.clone());
        Ok(Reply { code, message, source: ReplySource::Manual, ..answer })
    }

    /// Writes a request into the book, as it stands.
    pub(super) fn look_after(&self, request: &DeviceRequest) {
        let asked = &request.asked;
        let key = (!asked.payload_is_cut)
            .then(|| key_of(asked.tenant, &wire(asked)))
            .or(asked.repeat_key);
        self.look_after_keyed(request, key);
    }

    pub(super) fn look_after_keyed(&self, request: &DeviceRequest, key: Option<RepeatKey>) {
        let now = self.parts.clock.now();
        let asked = &request.asked;
        let due = request.due(now, self.parts.clock.boot());
        let waits_for_reply = request.state == RoutingDecision::AwaitingReply;
        let next = Next { due, unsent_from: (!waits_for_reply).then_some(now.mono) };
        self.book().put(asked.id, &asked.gateway, key, next);
        self.timers_moved.notify_one();
    }

    /// Looks after a request now, or once whoever does lays it down.
    pub(super) fn look_again(self: &Arc<Self>, id: DeviceRequestId) {
        if self.book().take(id) {
            self.spawn_tend(id);
        }
    }

    /// A gateway is there, or at least it was a moment ago: what waits for it may leave.
    pub(super) fn gateway_was_heard(self: &Arc<Self>, gateway: &GatewaySn) {
        if !self.book().has_unsent_of(gateway)
            || self.parts.driver.is_present(gateway) != Presence::Online
        {
            return;
        }
        let now = self.parts.clock.now().mono;
        let waiting = self.book().take_unsent(gateway, now);
        waiting.into_iter().for_each(|id| self.spawn_tend(id));
    }

    pub(super) async fn run_timers(self: Arc<Self>) {
        loop {
            let now = self.parts.clock.now().mono;
            let (due, next) = self.book().take_due(now, DUE_PER_LOOK_MAX);
            due.into_iter().for_each(|id| self.spawn_tend(id));
            let wait = next.map_or(LOOK_WAIT_MAX, |at| at.since(now).min(LOOK_WAIT_MAX));
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return,
                () = self.timers_moved.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn spawn_tend(self: &Arc<Self>, id: DeviceRequestId) {
        let desk = self.clone();
        self.tasks.spawn(async move { desk.tend(id).await });
    }

    /// Looks after a request that is in hand, and lays it down.
    async fn tend(self: Arc<Self>, id: DeviceRequestId) {
        loop {
            let after = self.tend_once(id).await;
            let is_wanted = {
                let mut book = self.book();
                match after {
                    After::Done => book.remove(id),
                    After::At(next) => book.put_off(id, next),
                    After::Again => continue,
                }
                book.lay_down(id)
            };
            self.timers_moved.notify_one();
            if !is_wanted {
                return;
            }
        }
    }

    async fn tend_once(&self, id: DeviceRequestId) -> After {
        let request = match self.parts.store.request(id).await {
            Ok(Some(request)) if request.needs_care() => request,
            Ok(_) => return After::Done,
            Err(error) => return self.later(&error),
        };
        let (now, boot) = (self.parts.clock.now(), self.parts.clock.boot());
        let input = match self.what_now(&request, now).await {
            Ok(input) => input,
            Err(next) => return After::At(next),
        };
        // Finding out may have taken a moment.
        let now = self.parts.clock.now();
        let Decision::Move { to, publish } = decide(&request, input, now, boot) else {
            let due = request.due(now, boot).max(now.mono.plus(RETRY_WAIT));
            return After::At(Next { due, unsent_from: None });
        };
        let to = Arc::from(to);
        match self.parts.store.change_request(request.version, Arc::clone(&to)).await {
            Ok(RequestChanged::Yes) => {}
            Ok(RequestChanged::Lost) => return After::Again,
            Err(error) => return self.later(&error),
        }
        self.note(&request, &to);
        match publish {
            true => self.publish(&to).await,
            false if to.needs_care() => After::Again,
            false => After::Done,
        }
    }

    /// What happens to a request now, or when it is due next.
    async fn what_now(&self, request: &DeviceRequest, now: Now) -> Result<Input, Next> {
        let (asked, boot) = (&request.asked, self.parts.clock.boot());
        let end = request.end(now, boot);
        if !self.is_of_tenant(asked) {
            return Ok(Input::Gone);
        }
        if end <= now.mono {
            return Ok(Input::Tick);
        }
        if request.state != RoutingDecision::AwaitingReply {
            return match self.parts.driver.is_present(&asked.gateway) {
                Presence::Online => Ok(Input::Turn),
                Presence::Absent { .. } | Presence::NeverHeard => {
                    Err(Next { due: end, unsent_from: Some(now.mono) })
                }
            };
        }
        let due = request.due(now, boot);
        if due > now.mono {
            return Err(Next { due, unsent_from: None });
        }
        let question = match asked.payload_is_cut {
            true => Question::Unreadable,
            false => Question::of(&wire(asked)),
        };
        match self.automatic(asked.tenant, &asked.gateway, &question).await {
            Ok(reply) => Ok(Input::Automatic(reply)),
            Err(why) if why.may_pass() => {
                tracing::warn!(device_request.id = %asked.id, %why, "could not answer yet");
                let due = self.parts.clock.now().mono.plus(RETRY_WAIT).min(end);
                Err(Next { due, unsent_from: None })
            }
            Err(why) => {
                tracing::info!(device_request.id = %asked.id, %why, "no automatic answer either");
                Err(Next { due: end, unsent_from: None })
            }
        }
    }

    /// Publishes an answer whose claim is on disk.
    async fn publish(&self, request: &DeviceRequest) -> After {
        crash_point::reached("device_request_claimed");
        let (asked, boot) = (&request.asked, self.parts.clock.boot());
        let Some(reply) = &request.reply else { return After::Done };
        let left = request.end(self.parts.clock.now(), boot).since(self.parts.clock.now().mono);
        let sent = self.send(asked, exchange_of(asked), reply, left.min(ANSWER_EXPIRY)).await;
        crash_point::reached("device_request_published");
        let (input, stayed) = match sent {
            Sent::Confirmed { .. } => (Input::Left, false),
            // It may have left, so it is never sent again by itself.
            Sent::Unknown => return After::Done,
            Sent::NoSubscriber | Sent::Refused(_) | Sent::Withheld | Sent::NotConnected => {
                (Input::Stayed, true)
            }
        };
        let now = self.parts.clock.now();
        let Some(to) = moved(decide(request, input, now, boot)) else { return After::Done };
        if let Err(error) = self.parts.store.change_request(request.version, to).await {
            // On disk it may have left: the device gets it when it asks again.
            tracing::warn!(%error, "could not note what became of an answer");
            return After::Done;
        }
        match stayed {
            false => After::Done,
            true => {
                let retry = now.mono.plus(RETRY_WAIT);
                let due = request.end(now, boot).min(retry);
                After::At(Next { due, unsent_from: Some(retry) })
            }
        }
    }

    fn note(&self, from: &DeviceRequest, to: &DeviceRequest) {
        let asked = &to.asked;
        let name = asked.request_type.as_deref().unwrap_or("a request");
        match (from.state, to.state) {
            (RoutingDecision::AwaitingReply, RoutingDecision::Expired) => {
                count(&self.figures.expired);
                tracing::warn!(
                    gateway.sn = %asked.gateway, device_request.id = %asked.id,
                    "nobody answered {name} in time, or its device has left the tenant"
                );
            }
            (RoutingDecision::AwaitingReply, RoutingDecision::AutoReplied) => {
                count(&self.figures.automatic);
                tracing::info!(
                    gateway.sn = %asked.gateway, device_request.id = %asked.id,
                    "answered {name}, which nobody else did"
                );
            }
            (
                RoutingDecision::AwaitingReply
                | RoutingDecision::AutoReplied
                | RoutingDecision::Replied
                | RoutingDecision::Expired
                | RoutingDecision::Unsupported,
                RoutingDecision::AwaitingReply
                | RoutingDecision::AutoReplied
                | RoutingDecision::Replied
                | RoutingDecision::Expired
                | RoutingDecision::Unsupported,
            ) => {}
        }
    }

    fn later(&self, error: &StoreError) -> After {
        tracing::warn!(%error, "could not look after a device request; trying again");
        let due = self.parts.clock.now().mono.plus(RETRY_WAIT);
        After::At(Next { due, unsent_from: None })
    }
}

/// Whether an answer by hand approves a binding.
fn binds(request: &DeviceRequest, by_hand: &ByHand) -> bool {
    request.asked.request_type.as_deref() == Some(BIND) && result_of(&by_hand.code) == 0
}

/// The answer by hand in DJI's shape. A refusal without a payload carries its reason, as DJI's own cloud code does.
fn to_reply(request: &DeviceRequest, by_hand: &ByHand, now: Now) -> Reply {
    let result = result_of(&by_hand.code);
    let reason = by_hand.message.as_deref().filter(|_| result != 0);
    let reason = reason.map(utmos_dji::downlink::json_text);
    let output = by_hand.payload.as_deref().or(reason.as_deref());
    let method = request.asked.request_type.as_deref().unwrap_or("");
    Reply {
        code: by_hand.code.clone(),
        message: by_hand.message.clone(),
        source: ReplySource::Manual,
        data: answer::compose(method, result, output).into(),
        at: now.wall,
    }
}
