//! The one publish of a command.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use utmos_core::{
    command::Spec,
    evidence::Proof,
    id::CommandId,
    life::{Input, NotSent},
    method::Channel,
    time::Timestamp,
};
use utmos_dji::{
    catalogue::Placement,
    downlink::{self, Heading, SeqPlace},
    topic::DownlinkTopic,
};
use utmos_mqtt::{Publish, Qos, Sent};

use super::{Inner, LaneKey, Told};
use crate::crash_point;

/// A broker that does not confirm holds up the rest of the lane no longer than this.
const BROKER_SILENCE_MAX: Duration = Duration::from_secs(1);

impl Inner {
    /// Hands a claimed command to the outlet. Called once per claim, in the order of the claims: the message takes its
    /// place at the outlet before this returns, the broker's word on it is awaited elsewhere.
    pub(super) fn publish(self: &Arc<Self>, key: &LaneKey, spec: &Arc<Spec>) {
        let seq = (spec.channel == Channel::DrcDown).then(|| self.next_seq(key, spec));
        let now = self.clock.now();
        let payload = Bytes::from(self.to_bytes(spec, seq, now.wall));
        let topic = to_topic(spec).to_string();
        let (clock, deadline) = (self.clock.clone(), spec.deadline);
        let message = Publish::new(topic.clone(), payload.clone())
            .with_qos(Qos::AtLeastOnce)
            .with_expiry(deadline.left(now))
            .with_gate(move || {
                crash_point::reached("writing");
                !deadline.passed(clock.now())
            });
        Self::count(&self.figures.published);
        let (inner, id, bytes) = (self.clone(), spec.id, payload.len());
        tracing::info!(gateway.sn = %spec.gateway, command.id = %id, "publishing {} to {}", spec.method, spec.gateway);
        let turnstile = self.lock().lanes.get(key).map(super::lane::Lane::turnstile);
        let mut handing = Box::pin(async move {
            // One after another: the next leaves when the broker has the one before, or has been silent for too long.
            let _place = match &turnstile {
                Some(turnstile) => {
                    tokio::time::timeout(BROKER_SILENCE_MAX, turnstile.lock()).await.ok()
                }
                None => None,
            };
            let sent = inner.outlet.publish(message).await;
            inner.settle(id, sent, topic, bytes);
        });
        // The first poll puts it in its place (the lock is fair); what is left is waiting for the broker.
        if Pin::new(&mut handing).poll(&mut Context::from_waker(Waker::noop())) == Poll::Pending {
            self.tasks.spawn(handing);
        }
    }

    /// What the broker said goes to the command like anything else.
    fn settle(self: &Arc<Self>, id: CommandId, sent: Sent, topic: String, bytes: usize) {
        crash_point::reached("written");
        let input = match sent {
            Sent::Confirmed { packet_id } => {
                Input::Confirmed(Proof::BrokerConfirmed { topic, qos: 1, packet_id, bytes })
            }
            Sent::NoSubscriber => Input::NotSent(NotSent::NoSubscriber),
            Sent::Refused(reason) => Input::NotSent(NotSent::Refused(reason)),
            Sent::Withheld => Input::NotSent(NotSent::Withheld),
            Sent::NotConnected => Input::NotSent(NotSent::NotConnected),
            Sent::Unknown => Input::SendUnclear {
                reason: "the connection was lost before the broker confirmed".to_owned(),
            },
        };
        {
            let mut guard = self.lock();
            let state = &mut *guard;
            if let Some(lane) = state.homes.get(&id).and_then(|key| state.lanes.get_mut(key)) {
                lane.publish_settled(id);
            }
        }
        self.tell_here(id, Told::Input { id, input: Box::new(input), done: None });
    }

    /// The `seq` of the next message to this gateway; kept on the command, so that its acknowledgement is found.
    fn next_seq(&self, key: &LaneKey, spec: &Spec) -> u64 {
        let mut guard = self.lock();
        let state = &mut *guard;
        let seq = match downlink::given_seq(&spec.payload) {
            Some(seq) => seq,
            None => {
                let last = state.drc_seq.entry(key.gateway.clone()).or_insert(0);
                *last += 1;
                *last
            }
        };
        if let Some(lane) = state.lanes.get_mut(key) {
            lane.set_seq(spec.id, Some(seq));
        }
        seq
    }
}

fn to_topic(spec: &Spec) -> DownlinkTopic {
    let gateway = spec.gateway.clone();
    match spec.channel {
        Channel::Services => DownlinkTopic::Services { gateway },
        Channel::DrcDown => DownlinkTopic::DrcDown { gateway },
        Channel::PropertySet => DownlinkTopic::PropertySet { gateway },
    }
}

impl Inner {
    fn to_bytes(&self, spec: &Spec, seq: Option<u64>, at: Timestamp) -> Vec<u8> {
        let (tid, bid) = (spec.id.to_string(), spec.bid.to_string());
        let heading = Heading { tid: &tid, bid: &bid, at };
        match spec.channel {
            Channel::Services => downlink::services(heading, &spec.method, &spec.payload, None),
            Channel::PropertySet => downlink::property_set(heading, &spec.payload),
            Channel::DrcDown => {
                let model = self.directory.model_of(&spec.gateway);
                let known =
                    self.catalogue.method(&spec.method).and_then(|method| method.seq.as_ref());
                let placement = known.map_or(Placement::Beside, |seq| seq.placement(model));
                downlink::drc_down(
                    &spec.method,
                    &spec.payload,
                    SeqPlace::of(placement, seq.unwrap_or(0)),
                )
            }
        }
    }
}
