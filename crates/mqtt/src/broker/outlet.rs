//! The server's way out through the router, without a socket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mqtt5::packet::publish::PublishPacket;
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::time::{Instant, timeout_at};

use super::session::{Confirmed, LOOK_WAIT, Session};
use super::table::Recipient;
use super::{Shared, Stop};
use crate::codec;
use crate::message::{Outlet, Publish, Qos, Sent};

/// Longest a publish waits for a client that has its window full of unconfirmed messages. Then that client is dismissed: it
/// takes nothing, and what waits for it would reach it late.
const WINDOW_WAIT: Duration = Duration::from_secs(2);
/// Least time a client has for its confirmation before it is cut, however short the message's own; as on the wire.
const GIVE_UP_WAIT_MIN: Duration = Duration::from_secs(1);

pub(super) struct BrokerOutlet(pub(super) Arc<Shared>);

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

        let chosen = match self.choose(&message.topic, message.qos, bytes, by).await {
            Ok(chosen) => chosen,
            Err(nobody) => return nobody,
        };
        if !message.may_leave() {
            return Sent::Withheld;
        }
        let expiry = message.expiry_seconds();
        let alone = chosen.len() == 1;
        let mut given = Vec::new();
        let mut waiting = None;
        for Chosen { recipient, qos, booked, order } in chosen {
            let session = &recipient.session;
            let mut packet = PublishPacket::new(
                message.topic.as_str(),
                message.payload.clone(),
                codec::to_qos(qos),
            );
            if let Some(seconds) = expiry {
                packet.properties.set_message_expiry_interval(seconds);
            }
            let mut handing = Handing { session, done: qos == Qos::AtMostOnce };
            if qos > Qos::AtMostOnce {
                let (done, acknowledged) = oneshot::channel();
                if !session.hand(alone.then_some(done)) {
                    handing.done = true;
                    continue;
                }
                waiting = alone.then(|| (Arc::clone(session), acknowledged));
            }
            booked.keep();
            session.deliver(&packet, None).await;
            if self.is_changed(&message.topic, &recipient).await {
                session.lose_count();
            }
            handing.done = true;
            drop(handing);
            drop(order);
            given.push(recipient);
        }
        if given.is_empty() {
            return Sent::NoSubscriber;
        }

        if let Some((session, acknowledged)) = waiting {
            match self.confirmation(session, acknowledged, give_up_at).await {
                Some(Confirmed::Acknowledged { packet_id }) => {
                    return Sent::Confirmed { packet_id: Some(packet_id) };
                }
                Some(Confirmed::Uncountable) => {}
                None => return Sent::Unknown,
            }
        }
        // Whoever is still there had it handed over; whoever has gone in between may have.
        for recipient in given {
            if recipient.session.takes(&recipient.subscriptions).await {
                return Sent::Confirmed { packet_id: None };
            }
        }
        Sent::Unknown
    }
}

/// Room booked in a session's window; given back unless the message was handed over.
struct Booked(Option<Arc<Session>>);

impl Booked {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Booked {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            session.unbook();
        }
    }
}

/// A connection that is about to get a message.
struct Chosen {
    recipient: Recipient,
    qos: Qos,
    booked: Booked,
    /// From here until the library has the message, nothing else is put in.
    order: OwnedMutexGuard<()>,
}

/// A message on its way into the library. Whoever drops it there leaves its session with a message that may not exist.
struct Handing<'a> {
    session: &'a Session,
    done: bool,
}

impl Drop for Handing<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.session.lose_count();
        }
    }
}

enum Ready {
    Yes(Booked),
    Gone,
    No(String),
}

impl BrokerOutlet {
    /// Of every user that listens the connection that gets the message, ready to take it: the newest, or where that goes
    /// meanwhile the one before it. A message is for a device, not for each of its connections.
    async fn choose(
        &self,
        topic: &str,
        asked: Qos,
        bytes: usize,
        by: Instant,
    ) -> Result<Vec<Chosen>, Sent> {
        loop {
            let mut newest: BTreeMap<Arc<str>, Recipient> = BTreeMap::new();
            for recipient in self.recipients(topic, by).await {
                newest.insert(Arc::clone(&recipient.session.user), recipient);
            }
            if newest.is_empty() {
                return Err(Sent::NoSubscriber);
            }
            let mut ready = Vec::new();
            let mut refusal = None;
            for recipient in newest.into_values() {
                let Some(granted) = recipient.qos() else { continue };
                let qos = granted.min(asked);
                match self.make_ready(&recipient.session, qos, bytes, by).await {
                    Ready::Yes(booked) => ready.push((recipient, qos, booked)),
                    Ready::Gone => {}
                    Ready::No(reason) => refusal = Some(reason),
                }
            }
            // Everybody locks in this order.
            ready.sort_by_key(|(recipient, ..)| recipient.session.connection);
            let mut chosen = Vec::new();
            for (recipient, qos, booked) in ready {
                let order = Arc::clone(&recipient.session.order).lock_owned().await;
                if recipient.session.takes(&recipient.subscriptions).await {
                    chosen.push(Chosen { recipient, qos, booked, order });
                }
            }
            if !chosen.is_empty() {
                return Ok(chosen);
            }
            if let Some(reason) = refusal {
                return Err(Sent::Refused(reason));
            }
            if Instant::now() >= by {
                return Err(Sent::NoSubscriber);
            }
            tokio::time::sleep(LOOK_WAIT).await;
        }
    }

    /// Who is subscribed, the newest last. One whose subscription is being made is waited for: only then is it known what
    /// it confirms.
    async fn recipients(&self, topic: &str, by: Instant) -> Vec<Recipient> {
        loop {
            let mut recipients = self.0.table.recipients(topic);
            if recipients.iter().all(Recipient::is_settled) {
                return recipients;
            }
            if Instant::now() >= by {
                recipients.retain_mut(|recipient| {
                    if !recipient.is_settled() {
                        recipient.session.lose_count();
                    }
                    recipient.subscriptions.retain(|(_, granted)| granted.is_some());
                    !recipient.subscriptions.is_empty()
                });
                return recipients;
            }
            tokio::time::sleep(LOOK_WAIT).await;
        }
    }

    /// Whether the subscriptions changed while a message was handed over, so that nobody knows what the client got.
    async fn is_changed(&self, topic: &str, recipient: &Recipient) -> bool {
        let session = &recipient.session;
        let now = self.0.table.recipients(topic);
        !session.takes(&recipient.subscriptions).await
            || session.is_behind()
            || !now.iter().any(|now| now.is(recipient))
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

    /// Waits until what is handed to this session leaves at once.
    async fn make_ready(
        &self,
        session: &Arc<Session>,
        qos: Qos,
        bytes: usize,
        by: Instant,
    ) -> Ready {
        if let Some(max) = session.packet_bytes_max.filter(|max| bytes > *max) {
            return Ready::No(format!(
                "{bytes} bytes are more than {} takes ({max})",
                session.client_id
            ));
        }
        let mut booked = Booked(None);
        if qos > Qos::AtMostOnce {
            if !session.book(by).await {
                if session.is_ended() {
                    return Ready::Gone;
                }
                tracing::warn!(user = %session.user, "an mqtt client confirms nothing and is disconnected");
                self.0.stop(session.connection, Stop::Dismissed);
                return Ready::No(format!("{} confirms none of its messages", session.client_id));
            }
            booked.0 = Some(Arc::clone(session));
        }
        if session.until_keeping_up(by).await { Ready::Yes(booked) } else { Ready::Gone }
    }
}
