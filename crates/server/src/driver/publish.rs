//! The one publish of a command.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use utmos_core::{
    command::Spec,
    evidence::Proof,
    id::CommandId,
    life::{Input, NotSent},
    method::{Channel, CompletesBy, IfOffline, Risk},
    planted::{self, Fault},
    time::Timestamp,
};
use utmos_dji::{
    catalogue::Placement,
    downlink::{self, Heading, SeqPlace},
    topic::DownlinkTopic,
};
use utmos_mqtt::{Publish, Qos, Sent};

use super::{
    Inner, LaneKey, Told,
    lane::{Outgoing, Work},
};
use crate::crash_point;

/// A message that is not confirmed holds up the rest of the lane no longer than this.
const CONFIRMATION_WAIT_MAX: Duration = Duration::from_secs(1);
/// The same for direct control, which comes ten times a second and carries its order in `seq`.
const CONTROL_WAIT_MAX: Duration = Duration::from_millis(20);
/// Emergencies wait for nobody, each other included.
const EMERGENCY_WAIT_MAX: Duration = Duration::ZERO;

impl Inner {
    pub(super) fn spawn_sender(self: &Arc<Self>, key: LaneKey) {
        let inner = self.clone();
        self.tasks.spawn(async move { inner.send_lane(key).await });
    }

    /// Where this fault is planted, what is to be claimed leaves before it is.
    pub(super) fn depart_unclaimed(self: &Arc<Self>, key: &LaneKey, batch: &mut [Work]) {
        if planted::is_planted(Fault::ClaimNotAwaited) {
            for work in batch {
                if work.effect.take().is_some() {
                    self.depart(key, work.id);
                }
            }
        }
    }

    /// Sends what a lane has claimed, one after another: the next leaves when the broker has the one before, or has been
    /// silent about it for too long.
    async fn send_lane(self: Arc<Self>, key: LaneKey) {
        while let Some(next) = self.next_out(&key) {
            let wait = match next.spec.channel {
                _ if key.urgent => EMERGENCY_WAIT_MAX,
                Channel::Services | Channel::PropertySet => CONFIRMATION_WAIT_MAX,
                Channel::DrcDown => CONTROL_WAIT_MAX,
            };
            if !key.urgent && self.goes_back(&key, next.spec.id) {
                continue;
            }
            let inner = self.clone();
            let lane = key.clone();
            let mut sending = Box::pin(async move { inner.send(&lane, next).await });
            let is_settled = tokio::select! {
                biased;
                () = &mut sending => true,
                () = tokio::time::sleep(wait) => false,
            };
            if !is_settled {
                self.tasks.spawn(sending);
            }
        }
    }

    /// Whether one before it came back. It goes back too, and both have their turn again in their order.
    fn goes_back(self: &Arc<Self>, key: &LaneKey, id: CommandId) -> bool {
        let must_run = {
            let mut state = self.lock();
            let Some(lane) = state.lanes.get_mut(key) else { return false };
            if !lane.is_out_of_turn(id) {
                return false;
            }
            lane.publish_settled(id);
            lane.comes_back(id);
            let input = Box::new(Input::NotSent(NotSent::OutOfTurn));
            lane.take_in(Told::Input { id, input, done: None })
        };
        if must_run {
            self.spawn_lane(key.clone());
        }
        true
    }

    fn next_out(&self, key: &LaneKey) -> Option<Outgoing> {
        self.lock().lanes.get_mut(key)?.next_out()
    }

    /// The one publish of a claim. The message is made when it is its turn, so its time stamp and expiry are of now.
    async fn send(self: Arc<Self>, key: &LaneKey, leaving: Outgoing) {
        let Outgoing { spec, withdrawn } = leaving;
        // An administrator may have moved the gateway to another tenant, or removed it.
        let owner = self.directory.with_registry(|registry| registry.tenant_of(&spec.gateway));
        if owner != Some(spec.tenant) {
            return self.settle_as(&spec, Input::NotSent(NotSent::GatewayGone));
        }
        let seq = (spec.channel == Channel::DrcDown).then(|| self.next_seq(key, &spec));
        let now = self.clock.now();
        let payload = Bytes::from(self.to_bytes(&spec, seq, now.wall));
        let topic = to_topic(&spec).to_string();
        let (clock, deadline) = (self.clock.clone(), spec.deadline);
        let (holdings, gateway, urgent) = (self.holdings.clone(), spec.gateway.clone(), key.urgent);
        let is_kept_from_us = Arc::new(AtomicBool::new(false));
        let kept_from_us = is_kept_from_us.clone();
        let mut message = Publish::new(topic.clone(), payload.clone())
            .with_qos(self.limits.command_qos)
            .with_expiry(deadline.left(now))
            .with_gate(move || {
                crash_point::reached("writing");
                let may_send = match planted::is_planted(Fault::LeaseNotAsked) {
                    true => urgent || holdings.keeps(&gateway),
                    false => urgent || holdings.may_send(&gateway),
                };
                kept_from_us.store(!may_send, Ordering::SeqCst);
                let is_late =
                    deadline.passed(clock.now()) && !planted::is_planted(Fault::DeadlineNotAsked);
                may_send && !withdrawn.load(Ordering::SeqCst) && !is_late
            });
        if key.urgent {
            message = message.with_urgent();
        }
        Self::count(&self.figures.published);
        tracing::debug!(gateway.sn = %spec.gateway, command.id = %spec.id, "publishing {} to {}", spec.method, spec.gateway);
        let sent = self.figures.publish.of(self.outlet.publish(message)).await;
        if matches!(sent, Sent::Withheld) && is_kept_from_us.load(Ordering::SeqCst) {
            crash_point::reached("written");
            return self.settle_as(&spec, Input::NotSent(NotSent::NotOurs));
        }
        self.settle(&spec, sent, topic, payload.len());
    }

    /// What the broker said goes to the command like anything else.
    fn settle(self: &Arc<Self>, spec: &Spec, sent: Sent, topic: String, bytes: usize) {
        crash_point::reached("written");
        let input = match sent {
            Sent::Confirmed { .. } if self.limits.command_qos == Qos::AtMostOnce => {
                Input::SendUnclear { reason: "written, with QoS 0, which nobody confirms".to_owned() }
            }
            Sent::Confirmed { packet_id } => {
                Input::Confirmed(Proof::BrokerConfirmed { topic, qos: 1, packet_id, bytes })
            }
            Sent::NoSubscriber => Input::NotSent(NotSent::NoSubscriber),
            Sent::Refused(reason) => Input::NotSent(NotSent::Refused(reason)),
            Sent::Withheld => Input::NotSent(NotSent::Withheld),
            // Whoever is linked sends it.
            Sent::NotConnected
                if spec.risk == Risk::Emergency && self.holdings.is_cut_off() =>
            {
                Input::NotSent(NotSent::NotOurs)
            }
            Sent::NotConnected => Input::NotSent(NotSent::NotConnected),
            Sent::Unknown if planted::is_planted(Fault::ResentOnReconnect) => {
                Input::NotSent(NotSent::NotConnected)
            }
            Sent::Unknown => Input::SendUnclear {
                reason: "the connection was lost, or the time was over, before the message was confirmed".to_owned(),
            },
        };
        self.settle_as(spec, input);
    }

    fn settle_as(self: &Arc<Self>, spec: &Spec, input: Input) {
        let id = spec.id;
        let answer_follows = spec.completes_by != CompletesBy::NoReply;
        let may_keep_back = answer_follows && matches!(input, Input::Confirmed(_));
        let comes_back = spec.if_offline == IfOffline::Wait
            && matches!(input, Input::NotSent(NotSent::NotConnected | NotSent::NoSubscriber));
        let now = self.clock.now().mono;
        let must_run = {
            let mut guard = self.lock();
            let state = &mut *guard;
            let Some(key) = state.homes.get(&id) else { return };
            let Some(lane) = state.lanes.get_mut(key) else { return };
            lane.publish_settled(id);
            if comes_back {
                lane.comes_back(id);
            }
            let kept_back = may_keep_back.then(|| state.timers.keep_back(now, id)).flatten();
            match kept_back {
                Some(is_next) => {
                    lane.keep_back(id, input);
                    if is_next {
                        self.timer_moved.notify_one();
                    }
                    None
                }
                None => lane
                    .take_in(Told::Input { id, input: Box::new(input), done: None })
                    .then(|| key.clone()),
            }
        };
        if let Some(key) = must_run {
            self.spawn_lane(key);
        }
    }

    /// The `seq` of the next message to this gateway; kept on the command, so that its acknowledgement is found.
    fn next_seq(&self, key: &LaneKey, spec: &Spec) -> u64 {
        let mut guard = self.lock();
        let state = &mut *guard;
        let seq = match downlink::given_seq(&spec.payload) {
            Some(seq) => seq,
            None => state.between.next_number(&key.gateway),
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
