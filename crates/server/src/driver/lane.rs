//! One gateway's lane: its commands in the order of acceptance, and what was told about them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::sync::oneshot;
use utmos_core::{
    command::{Command, Phase},
    id::CommandId,
    life::{Effect, Folded, Input, Presence, decide_all},
    method::{Channel, CompletesBy},
    ports::{Advance, Advanced, StoreError},
    reply::Progress,
};

use super::{Inner, LaneKey, Told};
use crate::crash_point;

/// The commands of a lane.
#[derive(Default)]
pub(super) struct Lane {
    commands: BTreeMap<CommandId, Kept>,
    /// Those in [`Phase::Waiting`], in the order of acceptance.
    queue: BTreeSet<(u64, CommandId)>,
    inbox: Vec<Told>,
    running: bool,
    /// Publishes go through one by one.
    turnstile: Arc<tokio::sync::Mutex<()>>,
}

struct Kept {
    command: Command,
    order: u64,
    /// A publish of it has not been settled yet, so something will still be told about it.
    publishing: bool,
    /// Its `seq` on drc/down.
    seq: Option<u64>,
}

/// What one pass of a lane is to save for one command.
struct Work {
    id: CommandId,
    inputs: Vec<Input>,
    done: Vec<oneshot::Sender<Arc<Command>>>,
    folded: Folded,
    advance: Advance,
}

impl Lane {
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn turnstile(&self) -> Arc<tokio::sync::Mutex<()>> {
        self.turnstile.clone()
    }

    pub(super) fn command(&self, id: CommandId) -> Option<&Command> {
        self.commands.get(&id).map(|kept| &kept.command)
    }

    pub(super) fn keep(&mut self, command: Command, order: u64) {
        let id = command.spec.id;
        if command.life.phase == Phase::Waiting {
            self.queue.insert((order, id));
        }
        self.commands.insert(id, Kept { command, order, publishing: false, seq: None });
    }

    /// Takes something in. Answers whether somebody must start running the lane.
    pub(super) fn take_in(&mut self, told: Told) -> bool {
        self.inbox.push(told);
        !std::mem::replace(&mut self.running, true)
    }

    /// Waiting commands of the lane.
    pub(super) fn queued(&self) -> impl Iterator<Item = &Command> {
        self.queue.iter().filter_map(|(_, id)| self.command(*id))
    }

    /// Jobs a progress event may belong to: possibly sent, of a fitting method, and not known to be over.
    pub(super) fn jobs_of<'a>(
        &'a self,
        progress: &'a Progress,
    ) -> impl Iterator<Item = &'a Command> {
        self.commands.values().map(|kept| &kept.command).filter(|command| {
            let is_job = match command.spec.completes_by {
                CompletesBy::Job | CompletesBy::ReplyOrJob => true,
                CompletesBy::Reply | CompletesBy::DrcAck | CompletesBy::NoReply => false,
            };
            let is_over = command.life.execution.as_ref().is_some_and(|execution| !execution.open);
            is_job
                && !is_over
                && command.life.phase != Phase::Waiting
                && progress.command_methods.contains(&command.spec.method)
        })
    }

    /// Commands on drc/down that wait for an acknowledgement of this method, with the `seq` they went out with.
    pub(super) fn drc_of<'a>(
        &'a self,
        method: &'a str,
    ) -> impl Iterator<Item = (CommandId, Option<u64>)> + 'a {
        self.commands.values().filter_map(move |kept| {
            let spec = &kept.command.spec;
            let is_open = matches!(kept.command.life.phase, Phase::Sending | Phase::Delivered);
            (spec.channel == Channel::DrcDown && spec.method == method && is_open)
                .then_some((spec.id, kept.seq))
        })
    }

    /// Commands that have ended, still hold the aircraft, and have no job whose events would tell when it is over.
    pub(super) fn ended_holders(&self) -> impl Iterator<Item = CommandId> {
        let is_holder = |kept: &&Kept| {
            let life = &kept.command.life;
            life.holds_motion && life.phase.has_ended() && life.execution.is_none()
        };
        self.commands.values().filter(is_holder).map(|kept| kept.command.spec.id)
    }

    pub(super) fn set_seq(&mut self, id: CommandId, seq: Option<u64>) {
        if let Some(kept) = self.commands.get_mut(&id) {
            kept.seq = seq;
        }
    }

    pub(super) fn publish_settled(&mut self, id: CommandId) {
        if let Some(kept) = self.commands.get_mut(&id) {
            kept.publishing = false;
        }
    }

    fn is_idle(&self) -> bool {
        self.commands.is_empty() && self.inbox.is_empty() && !self.running
    }
}

impl Inner {
    pub(super) fn spawn_lane(self: &Arc<Self>, key: LaneKey) {
        let inner = self.clone();
        self.tasks.spawn(async move { inner.run_lane(key).await });
    }

    /// Runs until nothing is left to decide.
    async fn run_lane(self: Arc<Self>, key: LaneKey) {
        let mut pause = self.limits.store_retry_wait_min;
        while let Some(batch) = self.decide_batch(&key) {
            batch.iter().for_each(|work| crash_point::entries("saving", &work.folded.entries));
            let saves = batch.iter().map(|work| self.store.advance(work.advance.clone()));
            let saved = join_all(saves).await;
            let mut failed = false;
            for (work, saved) in batch.into_iter().zip(saved) {
                match saved {
                    Ok(Advanced::Yes) => self.adopt(&key, work),
                    Ok(Advanced::Lost) => self.reload(&key, work).await,
                    Err(error) => {
                        failed = true;
                        self.retry_later(&key, work, &error);
                    }
                }
            }
            if failed {
                self.rest(&mut pause).await;
            } else {
                pause = self.limits.store_retry_wait_min;
            }
        }
    }

    /// Takes what was told and decides it. `None` when there was nothing; the lane then stands still.
    fn decide_batch(self: &Arc<Self>, key: &LaneKey) -> Option<Vec<Work>> {
        loop {
            let mut guard = self.lock();
            let state = &mut *guard;
            let lane = state.lanes.get_mut(key)?;
            if lane.inbox.is_empty() {
                lane.running = false;
                if lane.is_idle() {
                    state.lanes.remove(key);
                }
                return None;
            }
            let told = std::mem::take(&mut lane.inbox);
            let moment = self.moment();
            let presence = state.presence.of(&key.gateway, moment.now);
            let mut batch: Vec<Work> = Vec::new();
            for Gathered { id, inputs, done } in gather(told, lane, presence) {
                let Some(kept) = lane.commands.get(&id) else { continue };
                match decide_all(&kept.command, &inputs, moment) {
                    Some(folded) => {
                        let advance = Advance {
                            id,
                            seen: kept.command.life.version,
                            life: folded.life.clone(),
                            entries: folded.entries.clone(),
                        };
                        batch.push(Work { id, inputs, done, folded, advance });
                    }
                    None => {
                        let command = Arc::new(kept.command.clone());
                        for waiting in done {
                            let _ = waiting.send(command.clone());
                        }
                        let_go_if_done(lane, &mut state.homes, id);
                    }
                }
            }
            if !batch.is_empty() {
                return Some(batch);
            }
        }
    }

    /// A decision is on disk: it becomes what everybody sees, and its effect is carried out.
    fn adopt(self: &Arc<Self>, key: &LaneKey, work: Work) {
        let Work { id, done, folded, .. } = work;
        crash_point::entries("saved", &folded.entries);
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(lane) = state.lanes.get_mut(key) else { return };
        let Some(kept) = lane.commands.get_mut(&id) else { return };
        let before = std::mem::replace(&mut kept.command.life, folded.life);
        let life = &kept.command.life;
        if before.due != life.due {
            if let Some(due) = before.due {
                state.timers.remove(&(due.mono, id));
            }
            if let Some(due) = life.due {
                state.timers.insert((due.mono, id));
                self.timer_moved.notify_one();
            }
        }
        if before.phase == Phase::Waiting && life.phase != Phase::Waiting {
            lane.queue.remove(&(kept.order, id));
        } else if before.phase != Phase::Waiting && life.phase == Phase::Waiting {
            lane.queue.insert((kept.order, id));
        }
        if !before.phase.has_ended() && life.phase.has_ended() {
            Self::count(&self.figures.ended);
            tracing::info!(
                command.id = %id,
                gateway.sn = %key.gateway,
                "{} ended {}",
                kept.command.spec.method,
                life.status().as_str()
            );
        }
        kept.publishing |= folded.effect == Some(Effect::Publish);
        let command = Arc::new(kept.command.clone());
        state.watchers.tell(&command);
        let_go_if_done(lane, &mut state.homes, id);
        drop(guard);
        for waiting in done {
            let _ = waiting.send(command.clone());
        }
        crash_point::entries("told", &folded.entries);
        if folded.effect == Some(Effect::Publish) {
            self.publish(key, &command.spec);
        }
    }

    /// Somebody else moved the command first: what was told is decided again for what it is now.
    async fn reload(self: &Arc<Self>, key: &LaneKey, work: Work) {
        Self::count(&self.figures.overtaken);
        match self.store.command(work.id).await {
            Ok(Some(fresh)) => {
                let mut guard = self.lock();
                let state = &mut *guard;
                if let Some(kept) =
                    state.lanes.get_mut(key).and_then(|lane| lane.commands.get_mut(&work.id))
                {
                    kept.command = self.in_this_boot(fresh);
                }
                drop(guard);
                self.put_back(key, work);
            }
            Ok(None) => tracing::error!(command.id = %work.id, "a command vanished from the store"),
            Err(error) => self.retry_later(key, work, &error),
        }
    }

    fn retry_later(self: &Arc<Self>, key: &LaneKey, work: Work, error: &StoreError) {
        Self::count(&self.figures.store_failures);
        tracing::error!(command.id = %work.id, gateway.sn = %key.gateway, %error, "could not save; trying again");
        self.put_back(key, work);
    }

    fn put_back(&self, key: &LaneKey, work: Work) {
        let mut state = self.lock();
        let Some(lane) = state.lanes.get_mut(key) else { return };
        let mut done = work.done;
        let mut told: Vec<Told> = work
            .inputs
            .into_iter()
            .map(|input| Told::Input { id: work.id, input: Box::new(input), done: done.pop() })
            .collect();
        // What was told first is decided first.
        told.append(&mut lane.inbox);
        lane.inbox = told;
    }

    async fn rest(&self, pause: &mut Duration) {
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => {}
            () = tokio::time::sleep(*pause) => {}
        }
        *pause = (*pause * 2).min(self.limits.store_retry_wait_max);
    }
}

/// What was told of one command.
struct Gathered {
    id: CommandId,
    inputs: Vec<Input>,
    done: Vec<oneshot::Sender<Arc<Command>>>,
}

/// Everything told, by command, each in the order it was told. A turn comes last of what is told of a command, and
/// those who wait come in the order of acceptance, before all others.
fn gather(told: Vec<Told>, lane: &Lane, presence: Presence) -> Vec<Gathered> {
    let is_turn = told.iter().any(|one| matches!(one, Told::Turn));
    let queue = lane.queue.iter().map(|(_, id)| *id).filter(|_| is_turn);
    let mut gathered: Vec<Gathered> =
        queue.map(|id| Gathered { id, inputs: Vec::new(), done: Vec::new() }).collect();
    let waiting = gathered.len();
    let mut places: BTreeMap<CommandId, usize> =
        gathered.iter().enumerate().map(|(place, one)| (one.id, place)).collect();
    for one in told {
        let Told::Input { id, input, done } = one else { continue };
        let place = *places.entry(id).or_insert_with(|| {
            gathered.push(Gathered { id, inputs: Vec::new(), done: Vec::new() });
            gathered.len() - 1
        });
        let Some(own) = gathered.get_mut(place) else { continue };
        // A tick carries the presence of its moment.
        own.inputs.push(if matches!(*input, Input::Tick(_)) {
            Input::Tick(presence)
        } else {
            *input
        });
        own.done.extend(done);
    }
    for one in gathered.iter_mut().take(waiting) {
        one.inputs.push(Input::Turn(presence));
    }
    gathered
}

fn let_go_if_done(lane: &mut Lane, homes: &mut BTreeMap<CommandId, LaneKey>, id: CommandId) {
    let is_done = lane
        .commands
        .get(&id)
        .is_some_and(|kept| !kept.command.life.needs_care() && !kept.publishing);
    if is_done && let Some(kept) = lane.commands.remove(&id) {
        lane.queue.remove(&(kept.order, id));
        homes.remove(&id);
    }
}
