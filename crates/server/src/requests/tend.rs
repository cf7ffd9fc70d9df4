//! Looks after what waits: for an answer by hand, for its gateway, for its time. Load, decide, save, then act.

use std::{sync::Arc, time::Duration};

use utmos_core::{
    device_request::{Decision, DeviceRequest, Input, RoutingDecision, decide},
    id::{DeviceRequestId, GatewaySn},
    life::Presence,
    ports::StoreError,
    time::Now,
};
use utmos_dji::answer::{BindDevice, Question};
use utmos_mqtt::Sent;

use super::{
    Inner, Whose,
    binding::{Approval, Settled},
    book::{Next, RepeatKey},
    count, exchange_of,
    intake::key_of,
    kept_question, moved, wire,
};
use crate::{crash_point, link::ANSWER_EXPIRY};

/// Sleeps no longer than this, so that a running time that jumps is noticed.
const LOOK_WAIT_MAX: Duration = Duration::from_secs(1);
/// Requests taken in hand at once.
const DUE_PER_LOOK_MAX: usize = 256;
/// When what could not be read or sent is tried again.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// What comes after a request was looked after.
enum After {
    /// It needs nobody any more.
    Done,
    /// It is due again then.
    At(Next),
    /// At once.
    Again,
}

/// What is to be done about a request.
enum ToDo {
    /// This happens to it.
    Decide(Input),
    /// These devices are bound, and it is answered with that.
    Bind(Vec<BindDevice>),
}

impl Inner {
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
        self.book().put(asked.id, asked.tenant, &asked.gateway, key, next);
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
        let settled = match self.what_now(&request, now).await {
            Ok(ToDo::Decide(input)) => self.settle(&request, input).await,
            Ok(ToDo::Bind(devices)) => {
                self.answer_binding(&request, &devices, Approval::Rule).await
            }
            Err(next) => return After::At(next),
        };
        let (to, publish) = match settled {
            Ok(Settled::Moved { to, publish }) => (to, publish),
            Ok(Settled::Lost) => return After::Again,
            Ok(Settled::Not(_)) => {
                let now = self.parts.clock.now();
                let due = request.due(now, boot).max(now.mono.plus(RETRY_WAIT));
                return After::At(Next { due, unsent_from: None });
            }
            Err(error) => return self.later(&error),
        };
        self.note(&request, &to);
        match publish {
            true => self.publish(&to).await,
            false if to.needs_care() => After::Again,
            false => After::Done,
        }
    }

    /// Saves what an input means for a request.
    pub(super) async fn settle(
        &self,
        request: &DeviceRequest,
        input: Input,
    ) -> Result<Settled, StoreError> {
        let (now, boot) = (self.parts.clock.now(), self.parts.clock.boot());
        match decide(request, input, now, boot) {
            Decision::Move { to, publish } => {
                let to: Arc<DeviceRequest> = Arc::from(to);
                let changed = self.parts.store.change_request(request.version, to.clone()).await?;
                Ok(Settled::of(changed, to, publish))
            }
            other @ (Decision::Refuse(_) | Decision::Ignore) => Ok(Settled::Not(other)),
        }
    }

    /// What is to be done about a request now, or when it is due next.
    async fn what_now(&self, request: &DeviceRequest, now: Now) -> Result<ToDo, Next> {
        let (asked, boot) = (&request.asked, self.parts.clock.boot());
        let end = request.end(now, boot);
        let whose = self.whose(asked);
        if whose == Whose::Anothers {
            return Ok(ToDo::Decide(Input::Gone));
        }
        if end <= now.mono {
            return Ok(ToDo::Decide(Input::Tick));
        }
        let is_due =
            request.state != RoutingDecision::AwaitingReply || request.due(now, boot) <= now.mono;
        if whose == Whose::Nobodys && is_due {
            // Nothing can be bound or sent until it comes again with its code.
            return Err(Next { due: end, unsent_from: Some(now.mono) });
        }
        if request.state != RoutingDecision::AwaitingReply {
            return match self.parts.driver.is_present(&asked.gateway) {
                Presence::Online => Ok(ToDo::Decide(Input::Turn)),
                Presence::Absent { .. } | Presence::NeverHeard | Presence::NotHeardYet => {
                    Err(Next { due: end, unsent_from: Some(now.mono) })
                }
            };
        }
        let due = request.due(now, boot);
        if due > now.mono {
            return Err(Next { due, unsent_from: None });
        }
        let question = kept_question(asked);
        if let Question::Bind { devices } = question {
            return Ok(ToDo::Bind(devices));
        }
        match self.automatic(asked.tenant, &asked.gateway, &question).await {
            Ok(reply) => Ok(ToDo::Decide(Input::Automatic(reply))),
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
        self.remember(request, reply);
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

    pub(super) fn note(&self, from: &DeviceRequest, to: &DeviceRequest) {
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
