//! The server's way out, without a socket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::Shared;
use super::leave::Stop;
use super::session::{Booked, Handed, NotReady, Session, Time};
use super::table::Recipient;
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
        let give_up_at = message.expiry.map(|expiry| began + expiry.max(GIVE_UP_WAIT_MIN));

        let chosen = match self.choose(&message.topic, message.qos, bytes, began + wait).await {
            Ok(chosen) => chosen,
            Err(nobody) => return nobody,
        };
        if !message.may_leave() {
            return Sent::Withheld;
        }
        let time = Time { expiry_seconds: message.expiry_seconds(), give_up_at };
        let mut given = Vec::new();
        for (session, booked) in chosen {
            if let Some(handed) = session.hand(booked, &message.topic, &message.payload, time) {
                given.push((session, handed));
            }
        }
        if given.len() > 1 {
            // Several users: handed over to each that is still there. Whoever has gone in between may have it or not.
            let is_there = given.iter().any(|(session, _)| !session.is_ended());
            return if is_there { Sent::Confirmed { packet_id: None } } else { Sent::Unknown };
        }
        match given.pop() {
            None => Sent::NoSubscriber,
            Some((session, Handed::Unconfirmed)) if session.is_ended() => Sent::Unknown,
            Some((_, Handed::Unconfirmed)) => Sent::Confirmed { packet_id: None },
            Some((session, Handed::Awaiting(confirmed))) => {
                drop(session);
                match confirmed.await {
                    Ok(packet_id) => Sent::Confirmed { packet_id: Some(packet_id) },
                    Err(_) => Sent::Unknown,
                }
            }
        }
    }
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
    ) -> Result<Vec<(Arc<Session>, Booked)>, Sent> {
        loop {
            let mut recipients = self.0.table.recipients(topic);
            if recipients.len() > 1 {
                // In the order of their connections, so that the newest of each user stays.
                let newest: BTreeMap<Arc<str>, Recipient> = recipients
                    .into_iter()
                    .map(|recipient| (Arc::clone(&recipient.session.user), recipient))
                    .collect();
                recipients = newest.into_values().collect();
            }
            if recipients.is_empty() {
                return Err(Sent::NoSubscriber);
            }
            let mut chosen = Vec::with_capacity(recipients.len());
            let mut refusal = None;
            let mut has_gone = false;
            for Recipient { session, qos, .. } in recipients {
                match self.make_ready(&session, qos.min(asked), bytes, by).await {
                    Ok(booked) => chosen.push((session, booked)),
                    Err(Some(reason)) => refusal = Some(reason),
                    Err(None) => has_gone |= session.is_ended(),
                }
            }
            if !chosen.is_empty() {
                return Ok(chosen);
            }
            if let Some(reason) = refusal {
                return Err(Sent::Refused(reason));
            }
            // Whoever is still there takes nothing in time; whoever has gone may have left its place to another.
            if !has_gone || Instant::now() >= by {
                return Err(Sent::NoSubscriber);
            }
        }
    }

    /// Waits until what is handed to this session leaves at once. An error is the reason it was refused, or none where the
    /// session has gone or takes nothing.
    async fn make_ready(
        &self,
        session: &Arc<Session>,
        qos: Qos,
        bytes: usize,
        by: Instant,
    ) -> Result<Booked, Option<String>> {
        if let Some(max) = session.packet_bytes_max.filter(|max| bytes > *max) {
            return Err(Some(format!(
                "{bytes} bytes are more than {} takes ({max})",
                session.client_id
            )));
        }
        match session.book(qos, by).await {
            Ok(booked) => Ok(booked),
            Err(NotReady::Ended | NotReady::Behind) => Err(None),
            Err(NotReady::WindowFull) => {
                tracing::warn!(user = %session.user, "an mqtt client confirms nothing and is disconnected");
                self.0.stop(session.connection, Stop::Dismissed);
                Err(Some(format!("{} confirms none of its messages", session.client_id)))
            }
        }
    }
}
