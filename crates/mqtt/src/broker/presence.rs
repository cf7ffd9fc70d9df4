//! What one connection says to the server: that it came, its messages in their order, its last will, and that it has gone.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::Permit;
use tokio::sync::mpsc::error::TrySendError;

use super::Shared;
use super::leave::Stop;
use super::session::{Line, Overheard, Session};
use crate::message::{Inbound, Qos};

/// What one connection may have waiting for the channel before it is held up itself: so many messages, or so many bytes.
const BACKLOG_MAX: usize = 64;
/// Bytes for which a message counts once more.
const BACKLOG_BYTES: usize = 16 * 1024;

/// One connection's words, and what is to be said when it ends.
pub(super) struct Presence {
    connection: u64,
    shared: Arc<Shared>,
    session: Option<Arc<Session>>,
    has_joined: bool,
    /// Boxed: most have none.
    will: Option<Box<Overheard>>,
    /// What it said and the channel has not taken, with what each counts for; empty, it holds no memory.
    backlog: VecDeque<(Inbound, usize)>,
    waiting: usize,
}

impl Presence {
    pub(super) fn new(connection: u64, shared: Arc<Shared>) -> Self {
        Self {
            connection,
            shared,
            session: None,
            has_joined: false,
            will: None,
            backlog: VecDeque::new(),
            waiting: 0,
        }
    }

    pub(super) fn connection(&self) -> u64 {
        self.connection
    }

    /// It has logged in.
    pub(super) fn name(&mut self, session: &Arc<Session>, will: Option<Overheard>) {
        self.session = Some(Arc::clone(session));
        self.will = will.map(Box::new);
    }

    /// Its client id is this connection's from now on. Not to be dropped half-way.
    pub(super) async fn join(&mut self) {
        let Some(session) = &self.session else { return };
        let presence = self.shared.presence.lock().await;
        self.has_joined = true;
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

    /// Whether it may say more; otherwise it has to be held up.
    pub(super) fn has_room(&self) -> bool {
        self.waiting < BACKLOG_MAX
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    pub(super) fn say(&mut self, inbound: Inbound) {
        let bytes = if let Inbound::Message { payload, .. } = &inbound { payload.len() } else { 0 };
        let counts = 1 + bytes / BACKLOG_BYTES;
        self.waiting += counts;
        self.backlog.push_back((inbound, counts));
    }

    fn first(&mut self) -> Option<Inbound> {
        let (inbound, counts) = self.backlog.pop_front()?;
        self.waiting = self.waiting.saturating_sub(counts);
        Some(inbound)
    }

    /// Gives the channel what it takes at once. `false` when nobody listens any more.
    pub(super) fn pass_on(&mut self) -> bool {
        while self.has_backlog() {
            let shared = Arc::clone(&self.shared);
            match shared.inbound.try_reserve() {
                Ok(room) => self.pass(room),
                Err(TrySendError::Full(())) => return true,
                Err(TrySendError::Closed(())) => return false,
            }
        }
        if self.backlog.capacity() > 0 {
            self.backlog = VecDeque::new();
        }
        true
    }

    /// Gives the channel the next.
    pub(super) fn pass(&mut self, room: Permit<'_, Inbound>) {
        if let Some(inbound) = self.first() {
            room.send(inbound);
        }
    }

    /// It said goodbye: its will is void.
    pub(super) fn said_goodbye(&mut self) {
        self.will = None;
    }

    /// The last act of a connection, however it ended: first what it said before.
    pub(super) async fn leave(&mut self) {
        let Some(session) = self.session.clone() else { return };
        session.end();
        while let Some(inbound) = self.first() {
            self.tell(inbound).await;
        }
        if let Some(will) = self.will.take() {
            if *self.shared.closing.borrow() {
                tracing::debug!("wills are not announced at shutdown");
            } else if !session.is_dismissed()
                && self.shared.doorkeeper.may_publish(&session.user, &will.topic)
            {
                self.tell(Inbound::Message {
                    topic: Arc::clone(&will.topic),
                    payload: will.payload.clone(),
                    user: Some(Arc::clone(&session.user)),
                    acknowledgement: None,
                })
                .await;
                self.shared.hand_on(&will, None);
            }
        }
        let presence = self.shared.presence.lock().await;
        if self.shared.table.leave(&session) && self.has_joined {
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
}

impl Drop for Presence {
    /// Also where its task is thrown away: nobody waits for a word that cannot come.
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            session.end();
        }
    }
}

impl Shared {
    /// Hands what a client published on to every connection that listens, once to each. Returns one of those that are
    /// behind, for which whoever publishes should wait.
    pub(super) fn hand_on(
        &self,
        message: &Overheard,
        from: Option<&Session>,
    ) -> Option<Arc<Session>> {
        if !self.doorkeeper.may_overhear(&message.topic) {
            return None;
        }
        let mut crowded = None;
        for recipient in self.table.recipients(&message.topic) {
            let session = recipient.session;
            let is_own = from.is_some_and(|from| from.connection == session.connection);
            if is_own && !recipient.takes_own {
                continue;
            }
            if session.packet_bytes_max.is_some_and(|max| max < message.bytes()) {
                tracing::debug!(user = %session.user, "an mqtt client takes no message as large as one it listens to");
                continue;
            }
            let qos = message.qos.min(recipient.qos);
            match session.overhear(Overheard { qos, ..message.clone() }) {
                Line::Taken => {}
                // It can only take what it is sent when it is not held up itself.
                Line::Crowded if is_own => {}
                Line::Crowded => crowded = Some(session),
                Line::Refused if session.is_ended() => {}
                Line::Refused => self.dismiss_deaf(&session),
            }
        }
        crowded
    }

    /// Messages of others wait for it, and it takes none.
    pub(super) fn dismiss_deaf(&self, session: &Session) {
        tracing::warn!(user = %session.user, "an mqtt client does not take what it listens to and is disconnected");
        self.stop(session.connection, Stop::Dismissed);
    }
}

impl Overheard {
    /// A message a client said, kept for as long as somebody has it to take.
    pub(super) fn new(topic: Arc<str>, payload: Bytes, qos: Qos) -> Self {
        Self { topic, payload, qos }
    }

    /// Bytes it may need on the wire, at most.
    fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + crate::codec::PUBLISH_OVERHEAD_BYTES
    }
}
