//! The server's way out through the router, without a socket.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mqtt5::packet::publish::PublishPacket;
use tokio::time::Instant;

use super::table::{Session, Target};
use super::{Shared, Stop};
use crate::codec;
use crate::message::{Outlet, Publish, Qos, Sent};

/// Longest a publish waits for a client that has its window full of unconfirmed messages. Then that client is dismissed: it
/// takes nothing, and what waits for it would reach it late.
const WINDOW_WAIT: Duration = Duration::from_secs(2);
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
        let wait = message.expiry.map_or(WINDOW_WAIT, |expiry| expiry.min(WINDOW_WAIT));
        let by = Instant::now() + wait;

        let mut booked = Booked::default();
        let mut ready = Vec::new();
        let mut refusal = None;
        for target in shared.table.matching(&message.topic) {
            match self.make_ready(&target, message.qos, bytes, by, &mut booked).await {
                Ready::Yes => ready.push(target),
                Ready::Gone => {}
                Ready::No(reason) => refusal = Some(reason),
            }
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
        booked.0.clear();
        shared.router.route_message_local_only(&packet, None).await;
        // Whoever is still there had it handed over; whoever has gone in between may have.
        if self.is_any_there(&ready).await {
            Sent::Confirmed { packet_id: None }
        } else {
            Sent::Unknown
        }
    }
}

enum Ready {
    Yes,
    Gone,
    No(String),
}

impl BrokerOutlet {
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
