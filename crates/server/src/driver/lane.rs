//! One gateway's lane: its commands in the order of acceptance, and what was told about them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::sync::oneshot;
use utmos_core::{
    command::{Command, Phase, Spec},
    id::{CommandId, GatewaySn},
    life::{Effect, Folded, Input, decide_all},
    method::{Channel, Risk},
    planted::{self, Fault},
    ports::{Advance, Advanced, StoreError},
    time::Deadline,
};

use super::{
    Inner, LaneKey, Told,
    gather::{Gathered, gather},
};
use crate::crash_point;

/// Shortest and longest pause before what was proven not to have left has its turn again.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(250);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(2);
/// Pause of an emergency lane before what could not be saved is tried again: a new emergency may wait behind it.
const URGENT_SAVE_WAIT: Duration = Duration::from_millis(25);
/// Bytes of messages of a gateway about its open commands that may wait to be saved; what it says beyond is dropped. One
/// message alone always finds room. A message weighs at least so much.
const UNSAVED_BYTES_MAX: usize = 4 * 1024 * 1024;
pub(super) const MESSAGE_BYTES_MIN: usize = 1024;
/// Tries to save at a stop, before what could not be saved is left to the next process.
const SAVES_AT_STOP_MAX: u32 = 3;

/// The commands of a lane.
#[derive(Default)]
pub(super) struct Lane {
    commands: BTreeMap<CommandId, Kept>,
    /// Those in [`Phase::Waiting`], in the order of acceptance.
    queue: BTreeSet<(u64, CommandId)>,
    inbox: Vec<Told>,
    /// Bytes of messages of devices that are in the inbox or being saved.
    unsaved_bytes: usize,
    running: bool,
    /// Something of it is being saved.
    saving: bool,
    /// Commands being accepted that will wait for their turn.
    arriving: usize,
    /// Claimed commands on their way out, in the order of their claims.
    outbox: VecDeque<Outgoing>,
    sending: bool,
    /// Pause before those that were proven not to have left have their turn again; doubles each time.
    retry_wait: Option<Duration>,
}

/// A claimed command on its way out.
pub(super) struct Outgoing {
    pub(super) spec: Arc<Spec>,
    /// Set when it must not leave any more.
    pub(super) withdrawn: Arc<AtomicBool>,
}

/// A command on drc/down that waits for its acknowledgement.
pub(super) struct OpenDrc {
    pub(super) id: CommandId,
    pub(super) seq: Option<u64>,
    pub(super) is_answered: bool,
}

struct Kept {
    command: Command,
    order: u64,
    /// A publish of it has not been settled yet, so something will still be told about it.
    publishing: bool,
    /// The broker's confirmation, kept back so that it is saved together with the answer.
    confirmed: Option<Input>,
    /// Its publish proved not to have left; being saved as waiting again.
    comes_back: bool,
    /// Its `seq` on drc/down.
    seq: Option<u64>,
    /// An acknowledgement on drc/up was taken for its own, and may not be saved yet.
    is_answered: bool,
    /// Another run of a server has claimed it, and may still say that it did not leave.
    is_anothers_claim: bool,
    /// Asked at the gate: once set, it does not leave.
    withdrawn: Arc<AtomicBool>,
}

/// What one pass of a lane is to save for one command.
pub(super) struct Work {
    pub(super) id: CommandId,
    pub(super) inputs: Vec<Input>,
    done: Vec<oneshot::Sender<Arc<Command>>>,
    /// Of messages of devices among the inputs.
    pub(super) bytes: usize,
    /// How it stands afterwards, and what is to be saved of that.
    pub(super) advance: Advance,
    pub(super) effect: Option<Effect>,
}

impl Lane {
    /// Those who wait, in the order of acceptance.
    pub(super) fn in_order(&self) -> impl Iterator<Item = CommandId> {
        self.queue.iter().map(|(_, id)| *id)
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn leaving(&self) -> usize {
        self.outbox.len()
    }

    pub(super) fn told(&self) -> usize {
        self.inbox.len()
    }

    pub(super) fn command(&self, id: CommandId) -> Option<&Command> {
        self.commands.get(&id).map(|kept| &kept.command)
    }

    pub(super) fn keep(&mut self, command: Command, order: u64) {
        let id = command.spec.id;
        if command.life.phase == Phase::Waiting {
            self.queue.insert((order, id));
        }
        let kept = Kept {
            command,
            order,
            publishing: false,
            confirmed: None,
            comes_back: false,
            seq: None,
            is_answered: false,
            is_anothers_claim: false,
            withdrawn: Arc::default(),
        };
        self.commands.insert(id, kept);
    }

    /// Whether a publish of it has begun, or is about to, and has not been settled.
    pub(super) fn is_leaving(&self, id: CommandId) -> bool {
        self.commands.get(&id).is_some_and(|kept| kept.publishing)
    }

    pub(super) fn is_waiting(&self, id: CommandId) -> bool {
        self.commands.get(&id).is_some_and(|kept| kept.command.life.phase == Phase::Waiting)
    }

    /// Whether a command that is accepted now may be claimed in the same breath: nothing of its channel is before it.
    pub(super) fn is_free(&self, channel: Channel) -> bool {
        let is_before = |kept: &Kept| kept.command.spec.channel == channel;
        let mut waiting = self.queue.iter().filter_map(|(_, id)| self.commands.get(id));
        self.arriving == 0
            && !waiting.any(is_before)
            && !self.commands.values().any(|kept| kept.comes_back && is_before(kept))
    }

    /// Whether a command may have left whose answer has not come.
    pub(super) fn awaits_answers(&self) -> bool {
        self.commands.values().map(|kept| &kept.command).any(|command| {
            matches!(command.life.phase, Phase::Sending | Phase::Delivered)
                && command.life.response.is_none()
        })
    }

    /// Counts a command in that is being accepted and will wait for its turn.
    pub(super) fn expect_one(&mut self) {
        self.arriving += 1;
    }

    /// The command that was counted in has come, or will not.
    pub(super) fn expected_one(&mut self) {
        self.arriving = self.arriving.saturating_sub(1);
    }

    /// Whether a command that was accepted before this one for the same channel, and may leave again, has not left yet.
    /// Who listens on one channel says nothing of another.
    pub(super) fn is_out_of_turn(&self, id: CommandId) -> bool {
        let Some(own) = self.commands.get(&id) else { return false };
        let is_before = |kept: &Kept| {
            kept.order < own.order && kept.command.spec.channel == own.command.spec.channel
        };
        let mut earlier = self.queue.iter().take_while(|(order, _)| *order < own.order);
        earlier.any(|(_, id)| self.commands.get(id).is_some_and(is_before))
            || self.commands.values().any(|kept| kept.comes_back && is_before(kept))
    }

    /// Looks after a command no more than to keep it: it stands in nobody's way.
    fn give_up(&mut self, id: CommandId) {
        if let Some(kept) = self.commands.get_mut(&id) {
            kept.comes_back = false;
            self.queue.remove(&(kept.order, id));
        }
    }

    /// The publish that proved not to have left was none of the claim that stands now.
    pub(super) fn stays_away(&mut self, id: CommandId) {
        if let Some(kept) = self.commands.get_mut(&id) {
            kept.comes_back = false;
        }
    }

    /// A publish proved not to have left, and its command will wait again.
    pub(super) fn comes_back(&mut self, id: CommandId) {
        if let Some(kept) = self.commands.get_mut(&id) {
            kept.comes_back = true;
        }
    }

    /// It was found claimed.
    pub(super) fn is_anothers_claim(&mut self, id: CommandId) {
        if let Some(kept) = self.commands.get_mut(&id) {
            kept.is_anothers_claim = true;
        }
    }

    /// Commands that somebody else has claimed, as far as is known here.
    pub(super) fn claimed_elsewhere(&self) -> impl Iterator<Item = CommandId> {
        let is_claimed =
            |kept: &&Kept| kept.is_anothers_claim && kept.command.life.phase == Phase::Sending;
        self.commands.values().filter(is_claimed).map(|kept| kept.command.spec.id)
    }

    /// Whether somebody decides about what was told.
    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    /// Takes over how a command stands; what is under way of it goes on. Answers how it stood, if it is looked after.
    pub(super) fn replace(&mut self, fresh: Command) -> Option<Command> {
        let id = fresh.spec.id;
        let kept = self.commands.get_mut(&id)?;
        match fresh.life.phase {
            Phase::Waiting => {
                self.queue.insert((kept.order, id));
                self.inbox.push(Told::Turn);
            }
            Phase::Sending | Phase::Delivered | Phase::Ended(_) => {
                self.queue.remove(&(kept.order, id));
            }
        }
        Some(std::mem::replace(&mut kept.command, fresh))
    }

    /// Puts a claimed command on its way out. Answers whether somebody must start sending.
    pub(super) fn depart(&mut self, id: CommandId) -> bool {
        let Some(kept) = self.commands.get_mut(&id) else { return false };
        kept.publishing = true;
        kept.is_anothers_claim = false;
        let (spec, withdrawn) = (kept.command.spec.clone(), kept.withdrawn.clone());
        self.outbox.push_back(Outgoing { spec, withdrawn });
        !std::mem::replace(&mut self.sending, true)
    }

    /// What is looked after.
    pub(super) fn ids(&self) -> Vec<CommandId> {
        self.commands.keys().copied().collect()
    }

    /// Looks after a command no more, and keeps it from leaving. Answers when it would have been due.
    pub(super) fn forget(&mut self, id: CommandId) -> Option<Deadline> {
        let kept = self.commands.remove(&id)?;
        kept.withdrawn.store(true, Ordering::SeqCst);
        self.queue.remove(&(kept.order, id));
        kept.command.life.due
    }

    /// Whether a save or a publish is under way, or something was told that may lead to one. A mere turn is none.
    pub(super) fn is_at_work(&self) -> bool {
        let is_under_way = |kept: &Kept| kept.publishing || kept.confirmed.is_some();
        self.saving
            || self.sending
            || self.inbox.iter().any(|told| !matches!(told, Told::Turn))
            || self.commands.values().any(is_under_way)
    }

    /// Whether something a device said still finds room.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.unsaved_bytes == 0 || self.unsaved_bytes + bytes <= UNSAVED_BYTES_MAX
    }

    /// So many bytes of what a device said wait no longer.
    pub(super) fn settled(&mut self, bytes: usize) {
        self.unsaved_bytes = self.unsaved_bytes.saturating_sub(bytes);
    }

    /// Takes something in. Answers whether somebody must start running the lane.
    pub(super) fn take_in(&mut self, told: Told) -> bool {
        if let Told::Said { bytes, .. } = &told {
            self.unsaved_bytes += bytes;
        }
        self.inbox.push(told);
        !std::mem::replace(&mut self.running, true)
    }

    /// Withdraws every movement `concerns` picks that waits or may not have left yet. Answers which.
    pub(super) fn withdraw(&self, concerns: impl Fn(&Spec) -> bool) -> Vec<CommandId> {
        let may_leave = |kept: &&Kept| {
            let (spec, phase) = (&kept.command.spec, kept.command.life.phase);
            let waits = phase == Phase::Waiting && !planted::is_planted(Fault::WaitingNotPreempted);
            (waits || phase == Phase::Sending) && spec.risk == Risk::Motion && concerns(spec)
        };
        self.commands
            .values()
            .filter(may_leave)
            .map(|kept| {
                kept.withdrawn.store(true, Ordering::SeqCst);
                kept.command.spec.id
            })
            .collect()
    }

    /// The next command to leave; `None` ends the sending.
    pub(super) fn next_out(&mut self) -> Option<Outgoing> {
        let next = self.outbox.pop_front();
        self.sending = next.is_some();
        next
    }

    /// All that is in it.
    pub(super) fn commands(&self) -> impl Iterator<Item = &Command> {
        self.commands.values().map(|kept| &kept.command)
    }

    /// Commands on drc/down that wait for an acknowledgement of this method, with the `seq` they went out with.
    pub(super) fn drc_of<'a>(&'a self, method: &'a str) -> impl Iterator<Item = OpenDrc> + 'a {
        self.commands.values().filter_map(move |kept| {
            let spec = &kept.command.spec;
            let is_open = matches!(kept.command.life.phase, Phase::Sending | Phase::Delivered);
            (spec.channel == Channel::DrcDown && spec.method == method && is_open)
                .then_some(OpenDrc { id: spec.id, seq: kept.seq, is_answered: kept.is_answered })
        })
    }

    /// An acknowledgement was taken for this command's.
    pub(super) fn drc_is_answered(&mut self, id: CommandId) {
        if let Some(kept) = self.commands.get_mut(&id) {
            kept.is_answered = true;
        }
    }

    /// Commands that have ended and still hold the aircraft. With `landed`, all of them; else only those that have no job
    /// whose events would tell when it is over.
    pub(super) fn ended_holders(&self, landed: bool) -> impl Iterator<Item = CommandId> {
        let is_holder = move |kept: &&Kept| {
            let life = &kept.command.life;
            life.holds_motion && life.phase.has_ended() && (landed || life.execution.is_none())
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

    /// Keeps a confirmation back until something else is told of the command, or [`Self::kept_back`] is called.
    pub(super) fn keep_back(&mut self, id: CommandId, confirmed: Input) {
        if let Some(kept) = self.commands.get_mut(&id) {
            kept.confirmed = Some(confirmed);
        }
    }

    /// The confirmation that was kept back and that nobody has asked for meanwhile.
    pub(super) fn kept_back(&mut self, id: CommandId) -> Option<Input> {
        self.commands.get_mut(&id)?.confirmed.take()
    }

    /// How long those wait that were proven not to have left.
    fn back_off(&mut self) -> Duration {
        let wait = self.retry_wait.map_or(RETRY_WAIT_MIN, |wait| (wait * 2).min(RETRY_WAIT_MAX));
        self.retry_wait = Some(wait);
        wait
    }

    pub(super) fn is_idle(&self) -> bool {
        self.commands.is_empty()
            && self.inbox.is_empty()
            && self.arriving == 0
            && !self.running
            && !self.sending
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
        let mut failures = 0;
        while let Some(mut batch) = self.decide_batch(&key) {
            self.depart_unclaimed(&key, &mut batch);
            batch.iter().for_each(|work| crash_point::entries("saving", &work.advance.entries));
            let save =
                |work: &Work| self.figures.advance.of(self.store.advance(work.advance.clone()));
            let saves = batch.iter().map(save);
            let saved = join_all(saves).await;
            let mut unsaved = Vec::new();
            for (mut work, saved) in batch.into_iter().zip(saved) {
                match saved {
                    Ok(Advanced::Yes) => self.adopt(&key, work),
                    Ok(Advanced::Lost) => self.reload(&key, work, &mut unsaved).await,
                    Ok(Advanced::Elsewhere) => self.leave_to_others(&key, &work),
                    Ok(Advanced::Preempted(emergency)) => {
                        let emergency_command_id = emergency.to_string();
                        work.inputs.push(Input::Preempt { emergency_command_id });
                        self.reload(&key, work, &mut unsaved).await;
                    }
                    Err(error @ StoreError::Unavailable(_)) => {
                        if unsaved.is_empty() {
                            tracing::error!(gateway.sn = %key.gateway, %error, "could not save; trying again");
                        }
                        Self::count(&self.figures.store_failures);
                        unsaved.push(work);
                    }
                    Err(error @ StoreError::Damaged(_)) => {
                        tracing::error!(command.id = %work.id, %error, "a command cannot be saved; given up");
                        self.give_up(&key, &work);
                    }
                }
            }
            if unsaved.is_empty() {
                (pause, failures) = (self.limits.store_retry_wait_min, 0);
                continue;
            }
            failures += 1;
            self.redo(&key, unsaved);
            if self.stopping.is_cancelled() && failures >= SAVES_AT_STOP_MAX {
                // What is on disk is true; the next process goes on from there.
                tracing::error!(gateway.sn = %key.gateway, "stopped with changes that could not be saved");
                return;
            }
            tokio::time::sleep(if key.urgent { URGENT_SAVE_WAIT } else { pause }).await;
            pause = (pause * 2).min(self.limits.store_retry_wait_max);
        }
    }

    /// Takes what was told and decides it. `None` when there was nothing; the lane then stands still.
    fn decide_batch(self: &Arc<Self>, key: &LaneKey) -> Option<Vec<Work>> {
        loop {
            let may_send = self.may_begin(key);
            let mut guard = self.lock();
            let state = &mut *guard;
            let lane = state.lanes.get_mut(key)?;
            lane.saving = false;
            if lane.inbox.is_empty() {
                lane.running = false;
                if lane.is_idle() {
                    state.lanes.remove(key);
                }
                return None;
            }
            let told = std::mem::take(&mut lane.inbox);
            let told = self.take_standings(state, key, told);
            let lane = state.lanes.get_mut(key)?;
            let moment = self.moment();
            let presence = state.presence.of(&key.gateway, moment.now);
            let mut batch: Vec<Work> = Vec::new();
            // Those who wait come in their order, and none is claimed while one before it for the same channel goes on
            // waiting. A movement for a gateway nobody has heard of does not count: others may be tried meanwhile.
            let mut held_up = Vec::new();
            for Gathered { id, mut inputs, done, bytes } in gather(told, lane, presence, may_send) {
                let Some(kept) = lane.commands.get_mut(&id) else {
                    lane.settled(bytes);
                    // Let go between the telling and now: it is fetched again, or a device's answer would be lost.
                    self.fetch(id, inputs);
                    continue;
                };
                let mut decided = decide_all(&kept.command, &inputs, moment);
                let would_leave = |it: &Folded| it.effect == Some(Effect::Publish);
                let channel = kept.command.spec.channel;
                if held_up.contains(&channel) && decided.as_ref().is_some_and(would_leave) {
                    inputs.retain(|input| !matches!(input, Input::Turn(_)));
                    decided = decide_all(&kept.command, &inputs, moment);
                }
                let phase = decided.as_ref().map_or(kept.command.life.phase, |it| it.life.phase);
                let is_untried = presence.is_unknown() && kept.command.spec.risk == Risk::Motion;
                if phase == Phase::Waiting && !key.urgent && !is_untried {
                    held_up.push(channel);
                }
                match decided {
                    Some(Folded { life, entries, effect }) => {
                        let (seen, entries) = (kept.command.life.version, entries.into());
                        let advance = Advance { id, seen, life, entries };
                        batch.push(Work { id, inputs, done, bytes, advance, effect });
                    }
                    None => {
                        kept.comes_back = false;
                        let command = Arc::new(kept.command.clone());
                        for waiting in done {
                            let _ = waiting.send(command.clone());
                        }
                        lane.settled(bytes);
                        let_go_if_done(lane, &mut state.homes, id);
                    }
                }
            }
            if !batch.is_empty() {
                lane.saving = true;
                return Some(batch);
            }
        }
    }

    /// A decision is on disk: it becomes what everybody sees, and its effect is carried out.
    pub(super) fn adopt(self: &Arc<Self>, key: &LaneKey, work: Work) {
        let Work { id, done, advance, effect, bytes, .. } = work;
        crash_point::entries("saved", &advance.entries);
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(lane) = state.lanes.get_mut(key) else { return };
        lane.settled(bytes);
        let Some(kept) = lane.commands.get_mut(&id) else {
            // It was let go while it was being saved: whoever looks after it must hear how it stands.
            drop(guard);
            return self.tell_others_of(id, &advance.life);
        };
        let before = std::mem::replace(&mut kept.command.life, advance.life);
        let life = &kept.command.life;
        if before.due != life.due {
            if let Some(due) = before.due {
                state.timers.unset(due.mono, id);
            }
            if life.due.is_some_and(|due| state.timers.set(due.mono, id)) {
                self.timer_moved.notify_one();
            }
        }
        if before.phase == Phase::Waiting && life.phase != Phase::Waiting {
            lane.queue.remove(&(kept.order, id));
        } else if before.phase != Phase::Waiting && life.phase == Phase::Waiting {
            lane.queue.insert((kept.order, id));
        }
        let has_just_ended = !before.phase.has_ended() && life.phase.has_ended();
        if has_just_ended {
            Self::count(&self.figures.ended);
        }
        if life.delivered_at.is_some() {
            lane.retry_wait = None;
        }
        kept.comes_back = false;
        // Whatever it held up has its turn.
        if has_just_ended && before.phase == Phase::Waiting && !lane.queue.is_empty() {
            lane.inbox.push(Told::Turn);
        }
        let is_taken_back = before.phase == Phase::Sending && life.phase == Phase::Waiting;
        let again_in = is_taken_back.then(|| lane.back_off());
        let Some(kept) = lane.commands.get(&id) else { return };
        let command = Arc::new(kept.command.clone());
        let must_send = effect == Some(Effect::Publish) && lane.depart(id);
        state.watchers.tell(&command);
        let_go_if_done(lane, &mut state.homes, id);
        let asker = if has_just_ended { state.askers.remove(&id) } else { None };
        drop(guard);
        self.tell_others(&command, asker);
        // Not under the lock: whoever reads the log may be slow.
        if has_just_ended {
            tracing::debug!(
                command.id = %id,
                gateway.sn = %key.gateway,
                "{} ended {}",
                command.spec.method,
                command.life.status().as_str()
            );
            self.failures.ended(&command, self.clock.now().mono);
        }
        for waiting in done {
            let _ = waiting.send(command.clone());
        }
        crash_point::entries("told", &advance.entries);
        if must_send {
            self.spawn_sender(key.clone());
        }
        if let Some(wait) = again_in {
            self.give_turn_later(key.gateway.clone(), wait);
        }
    }

    pub(super) fn give_up(&self, key: &LaneKey, work: &Work) {
        if let Some(lane) = self.lock().lanes.get_mut(key) {
            lane.settled(work.bytes);
            lane.give_up(work.id);
        }
    }

    /// What could not be saved is told again, in its order and before everything newer. A turn is given anew, with the
    /// presence of its moment: the gateway may have left meanwhile.
    pub(super) fn redo(&self, key: &LaneKey, undone: Vec<Work>) {
        let mut state = self.lock();
        let Some(lane) = state.lanes.get_mut(key) else { return };
        let mut told = Vec::new();
        let mut is_turn = false;
        for work in undone {
            let (id, mut done, mut bytes) = (work.id, work.done.into_iter(), work.bytes);
            for input in work.inputs {
                let (is_said, input) = (input.is_of_device(), Box::new(input));
                if matches!(*input, Input::Turn(_)) {
                    is_turn = true;
                } else if is_said {
                    // The first of them stands for all, as far as their weight goes.
                    told.push(Told::Said { id, input, bytes: std::mem::take(&mut bytes) });
                } else {
                    told.push(Told::Input { id, input, done: done.next() });
                }
            }
            // Those that were dropped meanwhile weigh nothing.
            lane.settled(bytes);
        }
        told.append(&mut lane.inbox);
        told.extend(is_turn.then_some(Told::Turn));
        lane.inbox = told;
    }

    /// Takes a command that was let go back into care, for what was told of it meanwhile.
    fn fetch(self: &Arc<Self>, id: CommandId, inputs: Vec<Input>) {
        let inner = self.clone();
        self.tasks.spawn(async move {
            match inner.store.command(id).await {
                Ok(Some(command)) if !inner.is_anothers(&command) => {
                    inner.keep(command);
                    for input in inputs {
                        inner.tell_here(id, Told::Input { id, input: Box::new(input), done: None });
                    }
                }
                Ok(Some(command)) => inner.heard_for_another(&command, &inputs).await,
                Ok(None) => tracing::error!(command.id = %id, "a command vanished from the store"),
                Err(error) => {
                    tracing::error!(command.id = %id, %error, "could not keep what came late")
                }
            }
        });
    }

    /// Gives a gateway its turn after a while. Not worth waiting for at a stop.
    fn give_turn_later(self: &Arc<Self>, gateway: GatewaySn, wait: Duration) {
        let inner = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = inner.stopping.cancelled() => {}
                () = tokio::time::sleep(wait) => inner.give_turn(&gateway),
            }
        });
    }
}

pub(super) fn let_go_if_done(
    lane: &mut Lane,
    homes: &mut BTreeMap<CommandId, LaneKey>,
    id: CommandId,
) {
    let is_done = lane.commands.get(&id).is_some_and(|kept| {
        !kept.command.life.needs_care() && !kept.publishing && kept.confirmed.is_none()
    });
    // The broker's confirmation often comes while the answer is being saved, and would need it fetched again.
    let is_told = |told: &Told| match told {
        Told::Input { id: other, .. } | Told::Said { id: other, .. } => *other == id,
        Told::Turn | Told::Stands(_) => false,
    };
    if is_done
        && !lane.inbox.iter().any(is_told)
        && let Some(kept) = lane.commands.remove(&id)
    {
        lane.queue.remove(&(kept.order, id));
        homes.remove(&id);
    }
}
