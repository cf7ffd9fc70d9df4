//! What the library tells about one connection, turned into `Inbound`.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mqtt5::broker::{
    BrokerEventHandler, ClientConnectEvent, ClientDisconnectEvent, ClientPublishEvent,
    ClientSubscribeEvent, ClientUnsubscribeEvent, MessageDeliveredEvent, PublishAction,
    SubAckReasonCode,
};
use mqtt5::packet::publish::PublishPacket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use super::session::Session;
use super::{Shared, Stop};
use crate::codec;
use crate::message::{Inbound, Qos};

type Done<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What one connection may have waiting for the channel before it is held up itself: so many messages, or so many bytes.
const BACKLOG_MAX: u32 = 64;
/// Bytes for which a message counts once more.
const BACKLOG_BYTES: usize = 16 * 1024;
/// Longest a message of a client waits for another client that is behind; then it stands in line there.
const HAND_ON_WAIT: Duration = Duration::from_secs(2);

/// What a connection has said and the channel has not taken; `None` is the end.
type Backlog = mpsc::UnboundedReceiver<Option<(Inbound, OwnedSemaphorePermit)>>;

/// Takes what one connection said into the channel, which gives every connection its turn.
pub(super) struct Drain {
    connection: u64,
    shared: Arc<Shared>,
    backlog: Backlog,
}

impl Drain {
    /// Runs until [`Events::fall_silent`].
    pub(super) async fn run(mut self) {
        while let Some(Some((inbound, room))) = self.backlog.recv().await {
            if self.shared.inbound.send(inbound).await.is_err() {
                tracing::debug!("nobody listens to the mqtt broker any more");
                self.shared.stop(self.connection, Stop::Dismissed);
                break;
            }
            drop(room);
        }
    }
}

/// One connection's listener.
pub(super) struct Events {
    pub(super) connection: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) session: Arc<OnceLock<Arc<Session>>>,
    backlog: mpsc::UnboundedSender<Option<(Inbound, OwnedSemaphorePermit)>>,
    room: Arc<Semaphore>,
    joined: AtomicBool,
    said_goodbye: AtomicBool,
    will: Mutex<Option<(Arc<str>, Bytes)>>,
}

impl Events {
    pub(super) fn new(
        connection: u64,
        shared: Arc<Shared>,
        session: Arc<OnceLock<Arc<Session>>>,
    ) -> (Self, Drain) {
        let (sender, backlog) = mpsc::unbounded_channel();
        let drain = Drain { connection, shared: Arc::clone(&shared), backlog };
        let events = Self {
            connection,
            shared,
            session,
            backlog: sender,
            room: Arc::new(Semaphore::new(BACKLOG_MAX as usize)),
            joined: AtomicBool::new(false),
            said_goodbye: AtomicBool::new(false),
            will: Mutex::default(),
        };
        (events, drain)
    }

    /// Puts something into the backlog, as soon as there is room. `false` when nobody listens any more.
    async fn say(&self, inbound: Inbound) -> bool {
        let bytes = if let Inbound::Message { payload, .. } = &inbound { payload.len() } else { 0 };
        let share = u32::try_from(bytes / BACKLOG_BYTES).unwrap_or(u32::MAX);
        let share = share.saturating_add(1).min(BACKLOG_MAX);
        let Ok(room) = Arc::clone(&self.room).acquire_many_owned(share).await else { return false };
        self.backlog.send(Some((inbound, room))).is_ok()
    }

    /// The connection has ended and says nothing more: what was sent to it and not confirmed is unknown from here on.
    pub(super) fn fall_silent(&self) {
        if let Some(session) = self.session.get() {
            session.end();
        }
        self.backlog.send(None).ok();
    }

    async fn join(&self, event: ClientConnectEvent) {
        let Some(session) = self.session.get() else { return };
        if let (Some(topic), Some(payload)) = (event.will_topic, event.will_payload) {
            *self.will.lock().unwrap_or_else(PoisonError::into_inner) = Some((topic, payload));
        }
        let presence = self.shared.presence.lock().await;
        self.joined.store(true, Ordering::Release);
        if let Some(old) = self.shared.table.join(session) {
            old.end();
            self.shared.stop(old.connection, Stop::Displaced);
        }
        if self.shared.places().is_leaving(self.connection) {
            session.dismiss();
        }
        let joined = Inbound::Joined {
            user: Arc::clone(&session.user),
            client_id: Arc::clone(&session.client_id),
        };
        self.tell(joined).await;
        drop(presence);
    }

    /// The last act of a connection, however it ended, once its backlog is gone.
    pub(super) async fn leave(&self) {
        let Some(session) = self.session.get() else { return };
        session.end();
        let will = self.will.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((topic, payload)) = will.filter(|_| !self.said_goodbye.load(Ordering::Acquire))
        {
            if *self.shared.closing.borrow() {
                tracing::debug!("wills are not announced at shutdown");
            } else if !session.is_dismissed()
                && self.shared.doorkeeper.may_publish(&session.user, &topic)
            {
                self.tell(Inbound::Message {
                    topic: Arc::clone(&topic),
                    payload: payload.clone(),
                    user: Some(Arc::clone(&session.user)),
                    acknowledgement: None,
                })
                .await;
                self.hand_on(&topic, &payload, Qos::AtLeastOnce, None).await;
            }
        }
        let presence = self.shared.presence.lock().await;
        if self.shared.table.leave(session) && self.joined.load(Ordering::Acquire) {
            let left = Inbound::Left {
                user: Arc::clone(&session.user),
                client_id: Arc::clone(&session.client_id),
            };
            self.tell(left).await;
        }
        drop(presence);
    }

    async fn tell(&self, inbound: Inbound) {
        if self.shared.inbound.send(inbound).await.is_err() {
            tracing::debug!("nobody listens to the mqtt broker any more");
        }
    }

    async fn receive(&self, event: ClientPublishEvent) -> PublishAction {
        if let Some(session) =
            self.session.get().filter(|_| codec::from_qos(event.qos) == Qos::ExactlyOnce)
        {
            session.lose_count();
        }
        let user = self.session.get().map(|session| Arc::clone(&session.user));
        let message = Inbound::Message {
            topic: Arc::clone(&event.topic),
            payload: event.payload.clone(),
            user,
            acknowledgement: None,
        };
        if !self.say(message).await {
            // Returning would confirm a message that nobody took.
            self.shared.stop(self.connection, Stop::Dismissed);
            std::future::pending::<()>().await;
        }
        self.hand_on(
            &event.topic,
            &event.payload,
            codec::from_qos(event.qos),
            Some(&event.client_id),
        )
        .await;
        PublishAction::Handled
    }

    /// Hands what a client published on to every other connection that listens, once to each.
    async fn hand_on(&self, topic: &str, payload: &Bytes, qos: Qos, from: Option<&str>) {
        for recipient in self.shared.table.recipients(topic) {
            let Some(granted) = recipient.qos() else { continue };
            let session = &recipient.session;
            if !self.shared.doorkeeper.may_overhear(&session.user, topic) {
                continue;
            }
            // It confirms more than we sent it.
            session.lose_count();
            if session.connection != self.connection {
                session.until_keeping_up(Instant::now() + HAND_ON_WAIT).await;
            }
            let order = session.order.lock().await;
            let packet =
                PublishPacket::new(topic, payload.clone(), codec::to_qos(qos.min(granted)));
            session.deliver(&packet, from).await;
            drop(order);
        }
    }

    async fn subscribed(&self, event: ClientSubscribeEvent) {
        let Some(session) = self.session.get() else { return };
        let mut filters = Vec::new();
        for subscription in event.subscriptions {
            let granted = granted(subscription.result);
            self.shared.table.settle(session, &subscription.topic_filter, granted);
            if granted.is_some() {
                filters.push(subscription.topic_filter);
            }
        }
        for filter in filters {
            let (user, client_id) = (Arc::clone(&session.user), Arc::clone(&session.client_id));
            self.say(Inbound::Subscribed { user, client_id, filter }).await;
        }
    }
}

fn granted(code: SubAckReasonCode) -> Option<Qos> {
    match code {
        SubAckReasonCode::GrantedQoS0 => Some(Qos::AtMostOnce),
        SubAckReasonCode::GrantedQoS1 => Some(Qos::AtLeastOnce),
        SubAckReasonCode::GrantedQoS2 => Some(Qos::ExactlyOnce),
        SubAckReasonCode::UnspecifiedError
        | SubAckReasonCode::ImplementationSpecificError
        | SubAckReasonCode::NotAuthorized
        | SubAckReasonCode::TopicFilterInvalid
        | SubAckReasonCode::PacketIdentifierInUse
        | SubAckReasonCode::QuotaExceeded
        | SubAckReasonCode::SharedSubscriptionsNotSupported
        | SubAckReasonCode::SubscriptionIdentifiersNotSupported
        | SubAckReasonCode::WildcardSubscriptionsNotSupported => None,
    }
}

/// Hands the listener to the library, which wants to own it.
pub(super) struct Listener(pub(super) Arc<Events>);

impl BrokerEventHandler for Listener {
    fn on_client_connect<'a>(&'a self, event: ClientConnectEvent) -> Done<'a, ()> {
        Box::pin(self.0.join(event))
    }

    fn on_client_subscribe<'a>(&'a self, event: ClientSubscribeEvent) -> Done<'a, ()> {
        Box::pin(self.0.subscribed(event))
    }

    fn on_client_unsubscribe<'a>(&'a self, event: ClientUnsubscribeEvent) -> Done<'a, ()> {
        if let Some(session) = self.0.session.get() {
            for filter in &event.topic_filters {
                self.0.shared.table.settle(session, filter, None);
            }
        }
        Box::pin(std::future::ready(()))
    }

    fn on_client_publish<'a>(&'a self, event: ClientPublishEvent) -> Done<'a, PublishAction> {
        Box::pin(self.0.receive(event))
    }

    fn on_client_disconnect<'a>(&'a self, event: ClientDisconnectEvent) -> Done<'a, ()> {
        if !event.unexpected {
            self.0.said_goodbye.store(true, Ordering::Release);
        }
        Box::pin(std::future::ready(()))
    }

    fn on_message_delivered<'a>(&'a self, event: MessageDeliveredEvent) -> Done<'a, ()> {
        if let (Some(session), Qos::AtLeastOnce | Qos::ExactlyOnce) =
            (self.0.session.get(), codec::from_qos(event.qos))
        {
            session.unbook();
            session.acknowledged(event.packet_id);
        }
        Box::pin(std::future::ready(()))
    }
}
