//! The way from the server to its docks: a broker and the air, both unreliable.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rand::RngExt;
use serde_json::Value;
use tokio::sync::oneshot;
use utmos_core::id::CommandId;
use utmos_mqtt::{Outlet, Publish, Sent};

use crate::{
    dock,
    life::LifeLine,
    mutation::Mutation,
    plan::{Answer, Broker},
    world::{World, gateway},
};

/// What an embedded broker gives a dock at least to acknowledge a message.
const ACKNOWLEDGE_WAIT_MIN: Duration = Duration::from_secs(1);

/// Where one run of the server publishes.
pub(crate) struct Air {
    world: Arc<World>,
    line: LifeLine,
}

impl Air {
    pub(crate) fn new(world: Arc<World>, line: LifeLine) -> Self {
        Self { world, line }
    }

    /// Messages of one connection leave in their order.
    async fn stand_in_line(&self, dock: u8) {
        let now = self.world.clock.elapsed();
        let pause = self.world.dice(|dice| dice.random_range(0..=3));
        let at = {
            let mut state = self.world.state();
            let Some(dock) = state.docks.get_mut(usize::from(dock)) else { return };
            dock.last_write = dock.last_write.max(now + pause);
            dock.last_write
        };
        tokio::time::sleep(Duration::from_millis(at.saturating_sub(now))).await;
        self.line.or_never().await;
    }

    async fn command(&self, dock: u8, id: CommandId, mut message: Publish) -> Sent {
        let world = &self.world;
        self.stand_in_line(dock).await;
        let (now, is_mutated) = (world.clock.elapsed(), |one| world.mutation == Some(one));
        let (stands, session) = {
            let state = world.state();
            let known = state.docks.get(usize::from(dock));
            let session = known.filter(|dock| dock.is_connected).map(|dock| dock.session);
            (state.is_linked(self.line.server, now), session)
        };
        if world.plan.broker.is_outside() && !stands {
            return Sent::NotConnected;
        }
        world.note_handed(id, &self.line, session.is_some());
        let tells_of_absent = world.plan.broker != Broker::Outside311;
        if session.is_none() && is_mutated(Mutation::QueueForAbsentDock) {
            world.store_at_broker(dock, id);
            return Sent::Confirmed { packet_id: None };
        }
        if session.is_none() && tells_of_absent {
            return Sent::NoSubscriber;
        }
        let may_leave = message.gate.take().is_none_or(|gate| gate());
        if !may_leave && !is_mutated(Mutation::GateIgnored) {
            return Sent::Withheld;
        }
        world.note_written(id, Some(&self.line), session.is_none());
        world.trace(|| format!("{id} is written to {}", gateway(dock)));
        let Some(session) = session else {
            let back = world.dice(|dice| dice.random_range(0..=5));
            tokio::time::sleep(Duration::from_millis(back)).await;
            self.line.or_never().await;
            return Sent::Confirmed { packet_id: Some(1) };
        };
        if is_mutated(Mutation::ResendOnReconnect) {
            world.store_at_broker(dock, id);
        }
        let expiry = message.expiry.unwrap_or(Duration::MAX).max(ACKNOWLEDGE_WAIT_MIN);
        let (tell, told) = oneshot::channel();
        let flight = Flight { world: world.clone(), dock, session, id, sent: now, expiry };
        if let Some(way) = world.second_way() {
            tokio::spawn(flight.clone().come_again(way));
        }
        tokio::spawn(flight.fly(tell));
        if is_mutated(Mutation::ConfirmedAtTheWrite) {
            return Sent::Confirmed { packet_id: Some(1) };
        }
        let arrived = told.await.unwrap_or(false);
        self.line.or_never().await;
        if world.state().was_cut_from_broker(self.line.server, now) {
            return Sent::Unknown;
        }
        match arrived {
            true => Sent::Confirmed { packet_id: Some(1) },
            false if is_mutated(Mutation::ConfirmedThoughLost) => {
                Sent::Confirmed { packet_id: None }
            }
            false if is_mutated(Mutation::UnknownReadAsNotSent) => Sent::NotConnected,
            false => Sent::Unknown,
        }
    }
}

/// Of a hundred commands that may stray, how many come twice, and how many do not keep to their place in line.
const TWICE_PERCENT: u32 = 30;
const OUT_OF_LINE_PERCENT: u32 = 50;
/// How much later the second copy of a command comes than the first might, at most, and one that does not keep to its place,
/// in milliseconds.
const STRAY_WAIT_MAX: u64 = 400;

/// A message between the socket of the broker and the dock. It needs no server any more.
#[derive(Clone)]
struct Flight {
    world: Arc<World>,
    dock: u8,
    session: u64,
    id: CommandId,
    sent: u64,
    expiry: Duration,
}

impl Flight {
    /// Tells whether it was acknowledged.
    async fn fly(self, tell: oneshot::Sender<bool>) {
        let world = &self.world;
        let (pause, back, chance) = world.dice(|dice| {
            (dice.random_range(1..=80), dice.random_range(0..=40), dice.random_range(0..100))
        });
        let astray = world.out_of_line();
        let arrival = {
            let mut state = world.state();
            let Some(dock) = state.docks.get_mut(usize::from(self.dock)) else { return };
            match astray {
                Some(way) => self.sent + way,
                None => {
                    dock.last_arrival = dock.last_arrival.max(self.sent + pause);
                    dock.last_arrival
                }
            }
        };
        // Now and then the connection breaks just now.
        if chance < 4 {
            world.trouble(pause);
            world.cut(self.dock);
        }
        let way = Duration::from_millis(arrival.saturating_sub(self.sent));
        if way > self.expiry {
            tokio::time::sleep(self.expiry).await;
            world.cut(self.dock);
            let _gone = tell.send(false);
            return;
        }
        tokio::time::sleep(way).await;
        world.give_way().await;
        // What was in the socket when the connection broke may still arrive, for as long as its session is the last one.
        let (is_whole, may_arrive) = {
            let state = world.state();
            let Some(dock) = state.docks.get(usize::from(self.dock)) else { return };
            let is_last = dock.session == self.session;
            (is_last && dock.is_connected, is_last && chance % 2 == 0)
        };
        if !is_whole && !may_arrive {
            let _gone = tell.send(false);
            return;
        }
        self.note_order();
        let answer = dock::receive(world, self.dock, self.id);
        if answer == Some(Answer::SaysAtOnce) {
            dock::act(world.clone(), self.dock, self.id);
        }
        tokio::time::sleep(Duration::from_millis(back)).await;
        world.give_way().await;
        let is_acknowledged = world.session_of(self.dock) == Some(self.session);
        if is_acknowledged {
            world.state().facts(self.id).acknowledged = true;
            world.forget_at_broker(self.dock, self.id);
        }
        let _gone = tell.send(is_acknowledged);
        if answer.is_some_and(|answer| answer != Answer::SaysAtOnce) {
            dock::act(world.clone(), self.dock, self.id);
        }
    }
}

impl Flight {
    /// A broker that is not sure whether it was acknowledged sends it once more. The dock does it again, and says so again.
    async fn come_again(self, way: u64) {
        tokio::time::sleep(Duration::from_millis(way)).await;
        let world = &self.world;
        let has_come = !world.state().facts(self.id).received.is_empty();
        if !has_come || world.session_of(self.dock) != Some(self.session) {
            return;
        }
        world.state().facts(self.id).copied += 1;
        if dock::receive(world, self.dock, self.id).is_some() {
            dock::act(world.clone(), self.dock, self.id);
        }
    }

    /// Counts it where it comes after what was written to its dock later.
    fn note_order(&self) {
        let mut state = self.world.state();
        let dock = state.docks.get_mut(usize::from(self.dock));
        let Some(dock) = dock else { return };
        dock.newest_arrived = dock.newest_arrived.max(self.sent);
        let is_late = self.sent < dock.newest_arrived;
        state.rare.overtaken += usize::from(is_late);
    }
}

#[async_trait]
impl Outlet for Air {
    async fn publish(&self, message: Publish) -> Sent {
        self.world.give_way().await;
        self.line.or_never().await;
        let sent = match self.world.command_in(&message.topic, &message.payload) {
            Some((dock, id)) => self.command(dock, id, message).await,
            // An answer to a dock.
            None => Sent::Confirmed { packet_id: None },
        };
        self.world.give_way().await;
        self.line.or_never().await;
        sent
    }
}

impl World {
    /// The command that a message carries, and to which dock. Direct control names none; what it carries does.
    fn command_in(&self, topic: &str, payload: &[u8]) -> Option<(u8, CommandId)> {
        let dock = (0..self.plan.docks)
            .find(|dock| topic.split('/').any(|part| part == gateway(*dock).as_str()))?;
        let body: Value = serde_json::from_slice(payload).ok()?;
        if topic.ends_with("/services") {
            return Some((dock, body["tid"].as_str()?.parse().ok()?));
        }
        let roll = topic.ends_with("/drc/down").then(|| body["data"]["roll"].as_u64()).flatten()?;
        let state = self.state();
        let is_it = |text: &str| {
            let payload: Value = serde_json::from_str(text).unwrap_or_default();
            payload["roll"].as_u64() == Some(roll)
        };
        let records = state.disk.records.values();
        let found = records.map(|record| &record.command.spec).find(|spec| is_it(&spec.payload));
        Some((dock, found?.id))
    }

    /// How long the second copy of a command is under way, if there is one.
    fn second_way(&self) -> Option<u64> {
        self.stray(TWICE_PERCENT)
    }

    /// How long a command is under way that does not keep to its place in line.
    fn out_of_line(&self) -> Option<u64> {
        self.stray(OUT_OF_LINE_PERCENT)
    }

    fn stray(&self, percent: u32) -> Option<u64> {
        if !self.plan.commands_stray {
            return None;
        }
        let dice = &mut self.state().more_dice;
        (dice.random_range(0..100) < percent).then(|| dice.random_range(1..=STRAY_WAIT_MAX))
    }

    pub(crate) fn session_of(&self, dock: u8) -> Option<u64> {
        let state = self.state();
        let dock = state.docks.get(usize::from(dock))?;
        dock.is_connected.then_some(dock.session)
    }

    fn store_at_broker(&self, dock: u8, id: CommandId) {
        if let Some(dock) = self.state().docks.get_mut(usize::from(dock)) {
            dock.stored.push(id);
        }
    }

    fn forget_at_broker(&self, dock: u8, id: CommandId) {
        if let Some(dock) = self.state().docks.get_mut(usize::from(dock)) {
            dock.stored.retain(|stored| *stored != id);
        }
    }
}
