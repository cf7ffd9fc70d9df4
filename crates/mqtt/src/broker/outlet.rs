//! The server's way out through the router, without a socket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mqtt5::packet::publish::PublishPacket;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::table::{Confirmed, Session, Target};
use super::{Shared, Stop};
use crate::codec;
use crate::message::{Outlet, Publish, Qos, Sent};

/// Longest a publish waits for a client that has its window full of unconfirmed messages. Then that client is dismissed: it
/// takes nothing, and what waits for it would reach it late.
const WINDOW_WAIT: Duration = Duration::from_secs(2);
/// Least time a client has for its confirmation before it is cut, however short the message's own; as on the wire.
const GIVE_UP_WAIT_MIN: Duration = Duration::from_secs(1);
/// How often we look whether a take-over is done. It takes the old connection's goodbye.
const HANDOVER_LOOK_WAIT: Duration = Duration::from_millis(5);

pub(super) struct BrokerOutlet(pub(super) Arc<Shared>);

/// Room booked in the windows of sessions; given back unless the message was handed over.
#[derive(Default)]
struct Booked(Vec<Arc<Session>>);

impl Drop for Booked {
    fn drop(&mut self) {
        for session in self.0.drain(..) {
            session.unbook();
        }
    }
}

#[async_trait]
impl Outlet for BrokerOutlet {
    async fn publish(&self, mut message: Publish) -> Sent {
        let shared = &self.0;
        if *shared.closing.borrow() {
            return Sent::NotConnected;
        }
        if let Some(fault) = codec::topic_fault(&message.topic) {
            return Sent::Refused(fault);
        }
        let bytes = codec::publish_bytes(&message);
        if bytes > shared.packet_bytes_max {
            return Sent::Refused(format!(
                "{} bytes are more than the broker takes ({})",
                message.payload.len(),
                shared.packet_bytes_max
            ));
        }
        let began = Instant::now();
        let wait = message.expiry.map_or(WINDOW_WAIT, |expiry| expiry.min(WINDOW_WAIT));
        let by = began + wait;
        let give_up_at = message.expiry.map(|expiry| began + expiry.max(GIVE_UP_WAIT_MIN));

        let mut booked = Booked::default();
        let mut ready = Vec::new();
        let mut refusal = None;
        for target in self.targets(&message.topic, by).await {
            match self.make_ready(&target, message.qos, bytes, by, &mut booked).await {
                Ready::Yes => ready.push(target),
                Ready::Gone => {}
                Ready::No(reason) => refusal = Some(reason),
            }
        }
        let confirming = confirming(&ready, message.qos);
        let mut order = Vec::new();
        for session in &confirming {
            order.push(Arc::clone(&session.order).lock_owned().await);
        }
        if !self.is_any_there(&ready).await {
            return refusal.map_or(Sent::NoSubscriber, Sent::Refused);
        }

        if !message.may_leave() {
            return Sent::Withheld;
        }
        let expiry = message.expiry_seconds();
        let mut packet =
            PublishPacket::new(message.topic, message.payload, codec::to_qos(message.qos));
        if let Some(seconds) = expiry {
            packet.properties.set_message_expiry_interval(seconds);
        }
        let mut handing = Handing { sessions: &confirming, done: false };
        let acknowledged = match (ready.as_slice(), confirming.as_slice()) {
            ([_], [session]) => {
                let (done, acknowledged) = oneshot::channel();
                if !session.hand(Some(done)) {
                    handing.done = true;
                    return Sent::NoSubscriber;
                }
                Some((Arc::clone(session), acknowledged))
            }
            _ => {
                for session in &confirming {
                    session.hand(None);
                }
                None
            }
        };
        booked.0.clear();
        shared.router.route_message_local_only(&packet, None).await;
        for session in self.changed(&packet.topic_name, &ready).await {
            session.lose_count();
        }
        handing.done = true;
        drop(order);

        if let Some((session, acknowledged)) = acknowledged {
            match self.confirmation(session, acknowledged, give_up_at).await {
                Some(Confirmed::Acknowledged { packet_id }) => {
                    return Sent::Confirmed { packet_id: Some(packet_id) };
                }
                Some(Confirmed::Uncountable) => {}
                None => return Sent::Unknown,
            }
        }
        // Whoever is still there had it handed over; whoever has gone in between may have.
        if self.is_any_there(&ready).await {
            Sent::Confirmed { packet_id: None }
        } else {
            Sent::Unknown
        }
    }
}

/// The sessions that confirm this message, each once, in the order in which they are locked.
fn confirming(ready: &[Target], qos: Qos) -> Vec<Arc<Session>> {
    let mut sessions = BTreeMap::new();
    for target in ready {
        if target.qos.is_some_and(|granted| granted.min(qos) > Qos::AtMostOnce)
            && sessions.insert(target.session.connection, Arc::clone(&target.session)).is_some()
        {
            // It gets the message through each of its filters.
            target.session.lose_count();
        }
    }
    sessions.into_values().collect()
}

/// A message on its way into the library. Whoever drops it there leaves its sessions with a message that may not exist.
struct Handing<'a> {
    sessions: &'a [Arc<Session>],
    done: bool,
}

impl Drop for Handing<'_> {
    fn drop(&mut self) {
        if !self.done {
            for session in self.sessions {
                session.lose_count();
            }
        }
    }
}

enum Ready {
    Yes,
    Gone,
    No(String),
}

impl BrokerOutlet {
    /// Who is subscribed. One whose subscription is being made is waited for: only then is it known what it confirms.
    async fn targets(&self, topic: &str, by: Instant) -> Vec<Target> {
        loop {
            let mut targets = self.0.table.matching(topic);
            if targets.iter().all(|target| target.qos.is_some()) {
                return targets;
            }
            if Instant::now() >= by {
                targets.retain(|target| {
                    if target.qos.is_none() {
                        target.session.lose_count();
                    }
                    target.qos.is_some()
                });
                return targets;
            }
            tokio::time::sleep(HANDOVER_LOOK_WAIT).await;
        }
    }

    /// Whose subscriptions changed while a message was handed over, so that nobody knows what they got.
    async fn changed(&self, topic: &str, ready: &[Target]) -> Vec<Arc<Session>> {
        let mut changed = Vec::new();
        for target in ready {
            let client_id = &target.session.client_id;
            if !self.0.router.has_subscription(client_id, &target.filter).await
                || self.0.router.queue_handle(client_id).behind()
            {
                changed.push(Arc::clone(&target.session));
            }
        }
        let now = self.0.table.matching(topic);
        let differing = |from: &[Target], other: &[Target]| {
            let missing = |target: &&Target| !other.iter().any(|one| one.is(target));
            from.iter()
                .filter(missing)
                .map(|target| Arc::clone(&target.session))
                .collect::<Vec<_>>()
        };
        changed.extend(differing(&now, ready));
        changed.extend(differing(ready, &now));
        changed
    }

    /// Waits for the PUBACK; past the give-up time the connection is cut, with whatever its buffers hold. Goes on when
    /// whoever asked has gone. `None` when the connection ended first.
    async fn confirmation(
        &self,
        session: Arc<Session>,
        acknowledged: oneshot::Receiver<Confirmed>,
        give_up_at: Option<Instant>,
    ) -> Option<Confirmed> {
        let Some(give_up_at) = give_up_at else { return acknowledged.await.ok() };
        let shared = Arc::clone(&self.0);
        let waiting = tokio::spawn(async move {
            if let Ok(told) = timeout_at(give_up_at, acknowledged).await {
                return told.ok();
            }
            tracing::warn!(user = %session.user, "an mqtt client did not confirm a message in its time and is cut");
            shared.stop(session.connection, Stop::Cut);
            session.end();
            None
        });
        waiting.await.ok().flatten()
    }

    /// Waits until what is handed to this target leaves at once.
    async fn make_ready(
        &self,
        target: &Target,
        qos: Qos,
        bytes: usize,
        by: Instant,
        booked: &mut Booked,
    ) -> Ready {
        let session = &target.session;
        if let Some(max) = session.packet_bytes_max.filter(|max| bytes > *max) {
            return Ready::No(format!(
                "{bytes} bytes are more than {} takes ({max})",
                session.client_id
            ));
        }
        if target.qos.is_some_and(|granted| granted.min(qos) > Qos::AtMostOnce) {
            if !session.book(by).await {
                if session.is_ended() {
                    return Ready::Gone;
                }
                tracing::warn!(user = %session.user, "an mqtt client confirms nothing and is disconnected");
                self.0.stop(session.connection, Stop::Dismissed);
                return Ready::No(format!("{} confirms none of its messages", session.client_id));
            }
            booked.0.push(Arc::clone(session));
        }
        let queue = self.0.router.queue_handle(&session.client_id);
        while queue.behind() {
            if session.is_ended() || Instant::now() >= by {
                return Ready::Gone;
            }
            tokio::time::sleep(HANDOVER_LOOK_WAIT).await;
        }
        Ready::Yes
    }

    /// Whether the router would hand a message to one of them now.
    async fn is_any_there(&self, targets: &[Target]) -> bool {
        for Target { session, filter, .. } in targets {
            if !session.is_ended()
                && self.0.router.has_subscription(&session.client_id, filter).await
            {
                return true;
            }
        }
        false
    }
}
