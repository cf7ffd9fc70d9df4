//! Acknowledgements that are left to whoever takes the messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::message::Sent;

/// Who says to the broker that a message of QoS 1 or 2 was taken, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acknowledge {
    /// The client, once the message is in the channel.
    #[default]
    OnDelivery,
    /// The receiver, with the [`Acknowledgement`] that comes with the message.
    ByReceiver,
}

/// What the broker is owed once a message was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owed {
    Nothing,
    PubAck(u16),
    PubRec(u16),
}

/// An acknowledgement on its way to the link, and who waits until it is written.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) owed: Owed,
    pub(crate) written: Option<oneshot::Sender<Sent>>,
}

/// The acknowledgement of one message, not sent yet. Dropped, it never is, and the broker goes on waiting for it.
#[derive(Debug, Clone)]
pub struct Acknowledgement {
    owed: Owed,
    link: mpsc::UnboundedSender<Leaving>,
    is_sent: Arc<AtomicBool>,
}

impl Acknowledgement {
    pub(crate) fn new(owed: Owed, link: mpsc::UnboundedSender<Leaving>) -> Self {
        Self { owed, link, is_sent: Arc::default() }
    }

    /// Sends it: PUBACK, or PUBREC for QoS 2. It leaves before whatever is published after this call. Does nothing when it was
    /// sent before, or when the connection that the message came by is gone.
    pub fn send(&self) {
        self.leave(None);
    }

    /// Sends it and waits until it is written to the socket; whether it was. Not if it was sent before.
    pub async fn write(&self) -> bool {
        let (written, done) = oneshot::channel();
        self.leave(Some(written));
        matches!(done.await, Ok(Sent::Confirmed { .. }))
    }

    fn leave(&self, written: Option<oneshot::Sender<Sent>>) {
        if !self.is_sent.swap(true, Ordering::Relaxed) {
            // Without the link nobody is owed anything.
            let _ = self.link.send(Leaving { owed: self.owed, written });
        }
    }
}

/// A link's end of the acknowledgements it left to its receiver. Holds one for each message at most.
#[derive(Debug)]
pub(crate) struct LeftToReceiver {
    sender: mpsc::UnboundedSender<Leaving>,
    sent: mpsc::UnboundedReceiver<Leaving>,
}

impl LeftToReceiver {
    pub(crate) fn new() -> Self {
        let (sender, sent) = mpsc::unbounded_channel();
        Self { sender, sent }
    }

    /// Hands one out.
    pub(crate) fn leave(&self, owed: Owed) -> Acknowledgement {
        Acknowledgement::new(owed, self.sender.clone())
    }

    /// The next that was sent. Never ends; safe to drop at any point.
    pub(crate) async fn next(&mut self) -> Leaving {
        match self.sent.recv().await {
            Some(leaving) => leaving,
            None => std::future::pending().await,
        }
    }

    /// The same, without waiting.
    pub(crate) fn try_next(&mut self) -> Option<Leaving> {
        self.sent.try_recv().ok()
    }
}
