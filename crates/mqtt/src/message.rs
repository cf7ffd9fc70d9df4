//! What goes out, what is known of it afterwards, and what comes in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::client::Acknowledgement;

/// Quality of service, as MQTT numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// QoS 0: written to the socket, never confirmed.
    AtMostOnce,
    /// QoS 1: confirmed by the receiver.
    AtLeastOnce,
    /// QoS 2: confirmed in two steps.
    ExactlyOnce,
}

/// Asked once, at the last moment before the bytes are handed to the socket; `false` withholds them.
pub type Gate = Box<dyn FnOnce() -> bool + Send>;

/// One message on its way out. Consumed by sending it, so it cannot be sent twice.
pub struct Publish {
    /// The topic; no wildcards.
    pub topic: String,
    /// The payload.
    pub payload: Bytes,
    /// The quality of service asked for.
    pub qos: Qos,
    /// MQTT 5 message expiry, in whole seconds on the wire (rounded down, at least 1). A 3.1.1 broker never sees it.
    ///
    /// On the embedded broker also the time (at least 1 s) its subscriber has to confirm a message of QoS 1 or 2. Past it the
    /// result is `Unknown` and the connection is cut, so that what its buffers hold is not delivered late. A client does the same
    /// where the broker has not read the message by then (also QoS 0).
    pub expiry: Option<Duration>,
    /// The last question before the bytes leave.
    pub gate: Option<Gate>,
    /// Leaves before everything that is queued at the client, which keeps one place of its window for such messages. The
    /// embedded broker has no queue to pass.
    pub urgent: bool,
}

impl Publish {
    /// Makes a QoS 1 message without expiry and without gate, not urgent.
    pub fn new(topic: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            qos: Qos::AtLeastOnce,
            expiry: None,
            gate: None,
            urgent: false,
        }
    }

    /// Sets the quality of service.
    #[must_use]
    pub fn with_qos(mut self, qos: Qos) -> Self {
        self.qos = qos;
        self
    }

    /// Sets the MQTT 5 message expiry.
    #[must_use]
    pub fn with_expiry(mut self, expiry: Duration) -> Self {
        self.expiry = Some(expiry);
        self
    }

    /// Sets the gate.
    #[must_use]
    pub fn with_gate(mut self, gate: impl FnOnce() -> bool + Send + 'static) -> Self {
        self.gate = Some(Box::new(gate));
        self
    }

    /// Lets it pass what is queued.
    #[must_use]
    pub fn with_urgent(mut self) -> Self {
        self.urgent = true;
        self
    }

    /// The expiry as it stands on the wire.
    pub(crate) fn expiry_seconds(&self) -> Option<u32> {
        self.expiry.map(|expiry| u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX).max(1))
    }

    /// Asks the gate, which is gone afterwards; a message without one may go.
    pub(crate) fn may_leave(&mut self) -> bool {
        self.gate.take().is_none_or(|gate| gate())
    }
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("topic", &self.topic)
            .field("payload_bytes", &self.payload.len())
            .field("qos", &self.qos)
            .field("expiry", &self.expiry)
            .field("gated", &self.gate.is_some())
            .field("urgent", &self.urgent)
            .finish()
    }
}

/// What is known of a publish afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// Client: the broker confirmed it; for QoS 0, written to the socket.
    ///
    /// Embedded broker: the one subscriber confirmed it itself, whatever reason it gave: QoS 1 with its PUBACK, QoS 2 with its
    /// PUBCOMP, or with a PUBREC that ends it. It means no more than handed to a connected, subscribed session, with bytes that
    /// may still be here, for QoS 0, asked for or granted, and where several users are subscribed.
    Confirmed {
        /// The packet id it travelled under; `None` for QoS 0, and for what the embedded broker handed over only.
        packet_id: Option<u16>,
    },
    /// The broker proved that nobody got it (MQTT 5 reason 0x10; embedded: no connected subscriber).
    NoSubscriber,
    /// Refused by the broker with this reason (0x80 and above), or never sent because it cannot be (too large, bad topic,
    /// a receiver that acknowledges nothing). Nobody got it.
    Refused(String),
    /// The gate said no; nothing was sent.
    Withheld,
    /// There was no connection; certainly nothing was sent.
    NotConnected,
    /// The link was cut after the bytes may have left and before a confirmation. Never re-sent. Embedded broker: also when the
    /// message's expiry passed without a confirmation, which cuts the connection. Client: also when a confirmation was asked for
    /// and the broker takes QoS 0 only.
    Unknown,
}

/// Where messages leave.
#[async_trait]
pub trait Outlet: Send + Sync {
    /// Publishes at most once in the message's life: no automatic re-send, no queueing over a reconnect, retain never set.
    ///
    /// Waits for the confirmation without a limit of its own as long as the link lives (the embedded broker: until the expiry,
    /// where there is one); dropping the future before the bytes left means they will not leave. Must not be awaited by the task that drains the [`Inbound`] channel: the confirmation
    /// comes in behind the messages that task is meant to take away.
    async fn publish(&self, message: Publish) -> Sent;
}

/// The protocol a link speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// MQTT 5.
    V5,
    /// MQTT 3.1.1.
    V311,
}

/// What arrives.
#[derive(Debug, Clone)]
pub enum Inbound {
    /// A message; wills of clients that vanished included.
    Message {
        /// The topic.
        topic: Arc<str>,
        /// The payload.
        payload: Bytes,
        /// The authenticated user on the embedded broker; `None` from an outside broker.
        user: Option<Arc<str>>,
        /// Client: what the receiver is to acknowledge it with; `None` where the client does that, and for QoS 0.
        acknowledgement: Option<Acknowledgement>,
    },
    /// Embedded broker: a client has connected. After a take-over of a client id the newcomer is reported and the old
    /// connection's end is not, so that the last word is the truth.
    Joined {
        /// The authenticated user.
        user: Arc<str>,
        /// The client id.
        client_id: Arc<str>,
    },
    /// Embedded broker: a subscription was granted.
    Subscribed {
        /// The authenticated user.
        user: Arc<str>,
        /// The client id.
        client_id: Arc<str>,
        /// The topic filter.
        filter: Arc<str>,
    },
    /// Embedded broker: a client is gone, and none has its client id any more.
    Left {
        /// The authenticated user.
        user: Arc<str>,
        /// The client id.
        client_id: Arc<str>,
    },
    /// Client: connected, and every subscription granted.
    LinkUp {
        /// The protocol that was agreed on.
        protocol: Protocol,
    },
    /// Client: the link was lost, or could not be made (once per reason, not per attempt).
    LinkDown {
        /// What happened, for people.
        reason: String,
    },
}
