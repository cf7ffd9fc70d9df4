//! How commands come under the driver's care: accepted from callers, cancelled by them, and found again at start.

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;
use utmos_core::{
    command::{Command, Life, Phase, Spec, Status},
    evidence::{Entry, Proof},
    id::{Bid, CommandId, DeviceSn, GatewaySn},
    life::{Effect, Input, NotSent, Presence, decide_all, longest_wait},
    method::{Channel, CompleteOn, CompletesBy, IfOffline, Risk},
    planted::{self, Fault},
    ports::{Accepted, NewCommand, Nonce, StoreError},
    reply::RawJson,
    signing::{Caller, NonceUse},
    time::{BootId, Deadline, Timestamp},
};

use super::{
    Driver, Inner, LaneKey, Told,
    counted::{Accepting, Claiming, Expected, count_in},
    direct::Direct,
    lane::Lane,
};
use crate::crash_point;

/// Open commands read from the store in one go at start.
pub(super) const RESUME_PAGE: usize = 1_000;

/// A checked request for a command: everything but the facts that acceptance adds.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The device it is meant for.
    pub device: DeviceSn,
    /// The gateway that leads to it.
    pub gateway: GatewaySn,
    /// The aircraft it concerns.
    pub aircraft: Option<DeviceSn>,
    /// DJI's method name.
    pub method: String,
    /// How it travels.
    pub channel: Channel,
    /// What ends it.
    pub completes_by: CompletesBy,
    /// How dangerous it is.
    pub risk: Risk,
    /// Whether it starts a movement.
    pub starts_motion: bool,
    /// Whether result 0 without a status ends its job.
    pub reply_without_status_is_final: bool,
    /// What to do while the gateway is absent.
    pub if_offline: IfOffline,
    /// What `SUCCEEDED` waits for.
    pub complete_on: CompleteOn,
    /// The job's own id in the payload.
    pub job_ref: Option<String>,
    /// Bounds the wait for the answer.
    pub timeout: Duration,
    /// Bounds the silence of a started job.
    pub silence_wait: Duration,
    /// The payload as it goes out.
    pub payload: RawJson,
    /// The caller's key.
    pub idempotency_key: String,
    /// The fingerprint of the body.
    pub fingerprint: [u8; 32],
}

/// A command that is on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// Its id.
    pub id: CommandId,
    /// How it stands.
    pub status: Status,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// The key had been used before with an equal body.
    pub replayed: bool,
}

impl Submitted {
    /// A command that has just been accepted.
    pub(super) fn fresh(spec: &Spec) -> Self {
        let (id, accepted_at) = (spec.id, spec.accepted_at);
        Self { id, status: Status::Accepted, accepted_at, replayed: false }
    }
}

/// Why a command was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The nonce was used before.
    #[error("this nonce was used before with this API id; use a new one for every request")]
    NonceReplayed,
    /// The key was used before with another body.
    #[error(
        "this idempotency key was used before with another body, for command {0}; use a new key for a new command"
    )]
    KeyReused(CommandId),
    /// Another movement is running.
    #[error("the aircraft is busy with {method} (command {id}); stop it or wait for its end first")]
    Busy {
        /// The command in the way.
        id: CommandId,
        /// Its method.
        method: String,
    },
    /// The gateway's lane is full.
    #[error("{0} commands already wait for this gateway; try again when it is back")]
    LaneFull(usize),
    /// The clock is wrong; other servers would go by the times it puts on record.
    #[error("the command cannot be accepted here: {0}")]
    ClockOff(String),
    /// It could not be stored.
    #[error("the command could not be stored")]
    Store(#[source] StoreError),
    /// The server is stopping.
    #[error("the server is stopping; send the command again with the same idempotency key")]
    Stopping,
}

/// What became of a request to cancel.
#[derive(Debug, Clone, PartialEq)]
pub enum Cancelled {
    /// It had not been sent and has ended.
    Yes(Arc<Command>),
    /// It may have been sent, or has ended: nothing was done.
    TooLate(Arc<Command>),
    /// There is no such command.
    Unknown,
}

/// What was found at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// Commands looked after again.
    pub open: usize,
    /// Of these, those whose sending had begun and was not confirmed.
    pub unclear: usize,
}

impl Driver {
    /// Accepts a command: when this returns, it is durable and under care. With `nonce`, the request's nonce is spent
    /// in the same transaction, also when the answer is no.
    ///
    /// # Errors
    /// See [`SubmitError`]; nothing is stored but the nonce.
    pub async fn submit(
        &self,
        caller: &Caller,
        draft: Draft,
        nonce: Option<NonceUse>,
    ) -> Result<Submitted, SubmitError> {
        let inner = self.inner.clone();
        if inner.stopping.is_cancelled() {
            return Err(SubmitError::Stopping);
        }
        let caller = caller.clone();
        // A task of its own: a caller that hangs up must not leave a stored command without care.
        let task = self.inner.tasks.spawn(async move { inner.accept(&caller, draft, nonce).await });
        task.await.unwrap_or(Err(SubmitError::Stopping))
    }

    /// What would become of a command that were submitted now: the one it would find under its key, or `None` for a new
    /// one. Nothing is stored.
    ///
    /// # Errors
    /// Those of [`Driver::submit`] that the store can foresee: a key used with another body, another movement running.
    pub async fn foresee(
        &self,
        caller: &Caller,
        draft: Draft,
    ) -> Result<Option<Submitted>, SubmitError> {
        self.inner.foresee(Arc::new(self.inner.to_spec(caller, draft))).await
    }

    /// The command that came under a caller's key with this fingerprint, whatever would become of it today. Where the
    /// request is a real one, [`Driver::asked_again`] must follow.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn find(
        &self,
        caller: &Caller,
        device: DeviceSn,
        idempotency_key: String,
        fingerprint: [u8; 32],
    ) -> Result<Option<Submitted>, StoreError> {
        // Nothing but its key and its fingerprint matters: it stands in nobody's way, and nobody in its.
        let draft = Draft {
            gateway: device.to_gateway(),
            device,
            aircraft: None,
            method: String::new(),
            channel: Channel::Services,
            completes_by: CompletesBy::Reply,
            risk: Risk::Read,
            starts_motion: false,
            reply_without_status_is_final: false,
            if_offline: IfOffline::Fail,
            complete_on: CompleteOn::Outcome,
            job_ref: None,
            timeout: Duration::ZERO,
            silence_wait: Duration::ZERO,
            payload: "{}".into(),
            idempotency_key,
            fingerprint,
        };
        match self.foresee(caller, draft).await {
            Ok(found) => Ok(found),
            Err(SubmitError::Store(error)) => Err(error),
            Err(
                SubmitError::KeyReused(_)
                | SubmitError::Busy { .. }
                | SubmitError::NonceReplayed
                | SubmitError::LaneFull(_)
                | SubmitError::ClockOff(_)
                | SubmitError::Stopping,
            ) => Ok(None),
        }
    }

    /// A repeated request has found its command, which goes on now if that was in doubt, here or at the server that holds its gateway.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn asked_again(&self, found: &Submitted) -> Result<(), StoreError> {
        self.inner.take_on_doubtful(found.id, found.status);
        self.inner.hand_found(found.id, found.status).await
    }

    /// Ends a command that has not been sent.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn cancel(&self, caller: &Caller, id: CommandId) -> Result<Cancelled, StoreError> {
        let id = match planted::is_planted(Fault::CancelsAnother) {
            true => self.inner.another_that_waits(id).unwrap_or(id),
            false => id,
        };
        let input = Input::Cancel {
            api_id: caller.api_id().to_string(),
            request_id: caller.request_id().to_owned(),
        };
        let (done, settled) = oneshot::channel();
        let told = Told::Input { id, input: Box::new(input.clone()), done: Some(done) };
        let is_here = self.inner.tell_here(id, told);
        let command = if is_here { settled.await.ok() } else { None };
        let (command, had_effect) = match command {
            Some(command) => (command, true),
            // Not under care here: it has ended, or another server looks after it.
            None => match self.inner.decide_elsewhere(id, &input).await? {
                Some(found) => found,
                None => return Ok(Cancelled::Unknown),
            },
        };
        let is_cancelled =
            command.life.phase.failure() == Some(utmos_core::command::FailureCode::Cancelled);
        Ok(match is_cancelled && had_effect {
            true => Cancelled::Yes(command),
            false => Cancelled::TooLate(command),
        })
    }

    /// Takes every command into care that the store holds open and that is this server's. Must be done before anything is
    /// submitted.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn resume(&self) -> Result<Resumed, StoreError> {
        if let Some(newest) = self.inner.store.newest_record().await? {
            self.inner.holdings.is_on_record(newest);
        }
        // What its journal had was put on record by this server, which nobody else looks after.
        let own = self.inner.holdings.own_emergencies().await?;
        let resumed = self.inner.resume_held(&[], &own).await?;
        self.link_is_up();
        Ok(resumed)
    }
}

impl Inner {
    async fn accept(
        self: Arc<Self>,
        caller: &Caller,
        draft: Draft,
        nonce: Option<NonceUse>,
    ) -> Result<Submitted, SubmitError> {
        let key = LaneKey::of(&draft.gateway, draft.risk);
        let urgent = key.urgent;
        let waiting = self.lock().lanes.get(&key).map_or(0, Lane::waiting);
        let spec = Arc::new(self.to_spec(caller, draft));
        if !urgent && waiting >= self.limits.waiting_per_gateway_max {
            return self.refuse_new(nonce, spec, SubmitError::LaneFull(waiting)).await;
        }
        if !urgent && let Some(why) = self.holdings.trouble() {
            return self.refuse_new(nonce, spec, SubmitError::ClockOff(why)).await;
        }
        let mut is_perhaps_there = false;
        if !urgent {
            match self.ask_holder(nonce.as_ref(), &spec).await {
                Direct::Came(accepted) => {
                    if let Accepted::Replayed { id, status, .. } = accepted {
                        self.take_on_doubtful(id, status);
                    }
                    return told(&spec, accepted);
                }
                Direct::Full(waiting) => {
                    return self.refuse_new(nonce, spec, SubmitError::LaneFull(waiting)).await;
                }
                Direct::NotAsked => {}
                Direct::PerhapsThere => is_perhaps_there = true,
            }
        }
        let (spec, nonce) = match is_perhaps_there && planted::is_planted(Fault::UnheardAskedAnew) {
            true => (self.as_another(&spec), None),
            false => (spec, nonce),
        };
        let accepted = self.put(key, &spec, nonce, |_| true).await;
        if is_perhaps_there && let Some(found) = self.found_there(&spec, &accepted).await {
            return found;
        }
        self.answer(&spec, accepted.map_err(SubmitError::Store)?).await
    }

    /// The same, with what has to be done for a repeated request.
    async fn answer(
        self: &Arc<Self>,
        spec: &Spec,
        accepted: Accepted,
    ) -> Result<Submitted, SubmitError> {
        if let Accepted::Replayed { id, status, .. } = accepted {
            self.take_on_doubtful(id, status);
            // An emergency waits for nobody, and never leaves by a line.
            if spec.risk != Risk::Emergency {
                self.hand_found(id, status).await.map_err(SubmitError::Store)?;
            }
        }
        told(spec, accepted)
    }

    /// Stores a command and looks after it. `answered` is told what the store said before the command can move, and answers
    /// whether its caller will hear that: else it is in doubt.
    pub(super) async fn put(
        self: &Arc<Self>,
        key: LaneKey,
        spec: &Arc<Spec>,
        nonce: Option<NonceUse>,
        answered: impl FnOnce(&Result<Accepted, StoreError>) -> bool,
    ) -> Result<Accepted, StoreError> {
        let urgent = key.urgent;
        // Before it may be claimed, and until it is under care or is not stored. What begins once the gateway is on its way to
        // another is not claimed, and the store knows whose it is: nobody need wait for it.
        let accepting = (!urgent).then(|| Accepting::of(self, &spec.gateway));
        let _accepting = accepting.filter(|_| self.holdings.keeps(&spec.gateway));
        let (new, is_awaited) = self.begin(&key, spec);
        let is_claimed = !urgent && new.life.phase != Phase::Waiting;
        let _claiming = is_claimed.then(|| Claiming::of(self, &spec.gateway));
        let life = new.life.clone();
        let expected = is_awaited.then(|| Expected::of(self, &key));
        self.lock().doubts.ask(spec.id);
        let accepted = self.figures.accept.of(self.store.accept(nonce, new)).await;
        let command = Command { spec: spec.clone(), life };
        let is_heard = answered(&accepted);
        let is_new = matches!(accepted, Ok(Accepted::New));
        match self.is_in_doubt(spec, &accepted) || is_new && !is_heard {
            true => self.doubt(key, command),
            false => {
                match accepted {
                    Ok(Accepted::New) => {
                        crash_point::reached("accepted");
                        self.take_on(&key, command);
                        if urgent && self.holdings.is_cut_off() {
                            self.holdings.pass_on();
                        } else if !urgent && !is_claimed && !self.holdings.holds(&spec.gateway) {
                            // Its gateway went to another while the store answered.
                            let id = spec.id;
                            self.forget(|of, _| if *of == key { vec![id] } else { Vec::new() });
                        }
                    }
                    Ok(Accepted::Elsewhere) => {
                        Self::count(&self.figures.accepted);
                        // As it is on record: whatever it was to begin with here, it waits.
                        let life = Arc::new(Life::accepted(spec));
                        self.lock().watchers.note(Command { spec: spec.clone(), life });
                    }
                    Ok(
                        Accepted::Replayed { .. }
                        | Accepted::Conflict { .. }
                        | Accepted::Busy { .. }
                        | Accepted::NonceReplayed,
                    )
                    | Err(_) => {}
                }
                // After it is under care: in between, nobody else must take it for one that nobody has.
                self.lock().doubts.answered(spec.id);
                let is_new = matches!(accepted, Ok(Accepted::New | Accepted::Elsewhere));
                if matches!(accepted, Ok(Accepted::Elsewhere))
                    || is_new && !self.holdings.holds(&spec.gateway)
                {
                    self.holdings.hand(&spec.gateway);
                }
            }
        }
        // Only now, when the command itself stands in the way of those after it.
        drop(expected);
        accepted
    }

    /// Whether the store may hold a command all the same: it could not say, or it was slow and something else that was known
    /// before it spoke against the command. Where that is another copy of its request, the store has taken that one: copies
    /// take turns, so none goes by a journal while the store is asked for another.
    fn is_in_doubt(&self, spec: &Spec, accepted: &Result<Accepted, StoreError>) -> bool {
        match accepted {
            Err(StoreError::Unavailable(_)) => true,
            Ok(Accepted::Conflict { .. } | Accepted::NonceReplayed) => self.store.may_hold(spec.id),
            Ok(
                Accepted::New
                | Accepted::Elsewhere
                | Accepted::Replayed { .. }
                | Accepted::Busy { .. },
            )
            | Err(StoreError::Damaged(_)) => false,
        }
    }

    /// Looks after a command that is on disk as it stands here, and lets it go on.
    pub(super) fn take_on(self: &Arc<Self>, key: &LaneKey, command: Command) {
        Self::count(&self.figures.accepted);
        let spec = command.spec.clone();
        if key.urgent {
            self.preempt(&spec);
        }
        if command.life.phase != Phase::Sending {
            self.keep(command);
            self.heed_emergency(&spec);
            self.give_turn(&spec.gateway);
        } else if spec.deadline.passed(self.clock.now()) {
            // Told before its own timer can say that nobody knows.
            self.keep_and_tell(command, vec![Input::NotSent(NotSent::Withheld)], None);
        } else if self.keep(command) {
            self.heed_emergency(&spec);
            self.depart(key, spec.id);
        }
    }

    /// How a command's life begins. Where nothing is before it and its gateway is there, it is claimed in the transaction
    /// that accepts it: one write less before it leaves, and no longer between the claim and the publish than otherwise.
    /// One that has to wait here is counted in, so that nothing accepted after it overtakes it; answers whether it was.
    fn begin(&self, key: &LaneKey, spec: &Arc<Spec>) -> (NewCommand, bool) {
        let accepted = Entry {
            at: spec.accepted_at,
            from: Status::Accepted,
            to: Status::Accepted,
            proof: Proof::Accepted {
                api_id: spec.accepted_for.to_string(),
                request_id: spec.request_id.clone(),
            },
        };
        let command = Command { spec: spec.clone(), life: Arc::new(Life::accepted(spec)) };
        let moment = self.moment();
        let may_begin = self.may_begin(key);
        let mut guard = self.lock();
        let state = &mut *guard;
        let presence = state.presence.of(&spec.gateway, moment.now);
        let lane = state.lanes.get(key);
        // Emergencies wait for nobody, each other included.
        let is_free =
            may_begin && (key.urgent || lane.is_none_or(|lane| lane.is_free(spec.channel)));
        let turn = Input::Turn(presence);
        // One that others might send is tried at once: its claim has to be known wherever the command is.
        let is_tried = presence.is_unknown() && key.urgent && !self.holdings.is_alone();
        let claim = (is_free && (presence == Presence::Online || is_tried))
            .then(|| decide_all(&command, [&turn], moment))
            .flatten()
            .filter(|folded| folded.effect == Some(Effect::Publish));
        let is_awaited = claim.is_none() && (key.urgent || self.holdings.holds(&spec.gateway));
        let (life, entries) = match claim {
            Some(claim) => (claim.life, std::iter::once(accepted).chain(claim.entries).collect()),
            None => (command.life, vec![accepted]),
        };
        if is_awaited {
            state.lanes.entry(key.clone()).or_default().expect_one();
        }
        if !key.urgent && life.phase != Phase::Waiting {
            count_in(&mut state.claiming, &spec.gateway);
        }
        (NewCommand { spec: spec.clone(), life, entries }, is_awaited)
    }

    /// What a planted fault makes of a command.
    fn as_another(&self, spec: &Spec) -> Arc<Spec> {
        let id = CommandId::new(self.ids.ordered(spec.accepted_at));
        let mut idempotency_key = spec.idempotency_key.clone();
        idempotency_key.push('+');
        Arc::new(Spec { id, idempotency_key, ..spec.clone() })
    }

    /// What a planted fault takes for another command.
    fn another_that_waits(&self, id: CommandId) -> Option<CommandId> {
        let state = self.lock();
        state.lanes.values().flat_map(Lane::in_order).find(|other| *other != id)
    }

    /// What was counted in is there, or will not come.
    pub(super) fn expected_one(&self, key: &LaneKey) {
        let mut state = self.lock();
        let Some(lane) = state.lanes.get_mut(key) else { return };
        lane.expected_one();
        if lane.is_idle() {
            state.lanes.remove(key);
        }
    }

    /// Sends a command that was claimed when it was accepted.
    pub(super) fn depart(self: &Arc<Self>, key: &LaneKey, id: CommandId) {
        let must_send = self.lock().lanes.get_mut(key).is_some_and(|lane| lane.depart(id));
        if must_send {
            self.spawn_sender(key.clone());
        }
    }

    /// What is new is refused, but the request's nonce is spent all the same, and a repeated request finds its
    /// command.
    async fn refuse_new(
        self: &Arc<Self>,
        nonce: Option<NonceUse>,
        spec: Arc<Spec>,
        why: SubmitError,
    ) -> Result<Submitted, SubmitError> {
        if let Some(nonce) = nonce
            && self.store.spend_nonce(nonce).await.map_err(SubmitError::Store)? == Nonce::Replayed
        {
            return Err(SubmitError::NonceReplayed);
        }
        let found = self.foresee(spec).await?.ok_or(why)?;
        self.take_on_doubtful(found.id, found.status);
        self.hand_found(found.id, found.status).await.map_err(SubmitError::Store)?;
        Ok(found)
    }

    /// The command that a request would find under its key; `None` when it would make a new one.
    async fn foresee(&self, spec: Arc<Spec>) -> Result<Option<Submitted>, SubmitError> {
        let life = Life::accepted(&spec);
        let new = NewCommand { spec, life: Arc::new(life), entries: Vec::new() };
        before(self.store.foresee(new).await.map_err(SubmitError::Store)?)
    }

    fn to_spec(&self, caller: &Caller, draft: Draft) -> Spec {
        let now = self.clock.now();
        Spec {
            id: CommandId::new(self.ids.ordered(now.wall)),
            tenant: caller.tenant(),
            accepted_for: caller.api_id().clone(),
            request_id: caller.request_id().to_owned(),
            idempotency_key: draft.idempotency_key,
            fingerprint: draft.fingerprint,
            device: draft.device,
            gateway: draft.gateway,
            aircraft: draft.aircraft,
            method: draft.method,
            channel: draft.channel,
            completes_by: draft.completes_by,
            risk: draft.risk,
            starts_motion: draft.starts_motion,
            reply_without_status_is_final: draft.reply_without_status_is_final,
            if_offline: draft.if_offline,
            complete_on: draft.complete_on,
            bid: Bid::new(self.ids.ordered(now.wall)),
            job_ref: draft.job_ref,
            timeout: draft.timeout,
            silence_wait: draft.silence_wait,
            deadline: Deadline::after(self.holdings.to_tell(now), self.clock.boot(), draft.timeout),
            accepted_at: now.wall,
            payload: draft.payload,
        }
    }

    /// Puts a command of an earlier process, or of another server, under care; with what its device has said meanwhile.
    pub(super) async fn take_over(
        self: &Arc<Self>,
        command: Command,
        said: Vec<Input>,
    ) -> Result<(), StoreError> {
        let found = self.found_as(&command).await?;
        // Before a timer can tell that nothing was said.
        self.keep_and_tell(command, found.into_iter().chain(said).collect(), None);
        Ok(())
    }

    /// What a command of an earlier process, or of another server, is told first.
    pub(super) async fn found_as(&self, command: &Command) -> Result<Option<Input>, StoreError> {
        let emergency = match may_be_preempted(command) {
            true => self.store.emergency_after(&command.spec).await?,
            false => None,
        };
        Ok(found_with(command, emergency))
    }

    /// A command as it was stored, with its deadlines found again in this run of the machine.
    pub(super) fn in_this_boot(&self, mut command: Command) -> Command {
        let longest = longest_wait(&command.spec);
        let due = command.life.due.map(|due| self.holdings.found_again(due, longest));
        if due != command.life.due {
            Arc::make_mut(&mut command.life).due = due;
        }
        if command.spec.deadline.boot != self.clock.boot() {
            let mut spec = (*command.spec).clone();
            spec.deadline = self.holdings.found_again(spec.deadline, spec.timeout);
            command.spec = Arc::new(spec);
        }
        command
    }
}

/// When a command was accepted, as against others.
pub(super) type Acceptance = (bool, Duration, CommandId);

/// What puts commands in the order of their acceptance. Ids alone would not: they show the wall, which may have been set
/// back in between. Those of an earlier run of the machine come first, in the order of their ids.
pub(super) fn acceptance(spec: &Spec, boot: BootId) -> Acceptance {
    let is_of_this_boot = spec.deadline.boot == boot;
    let deadline = Duration::from_millis(spec.deadline.mono.as_millis());
    let accepted = deadline.saturating_sub(spec.timeout);
    (is_of_this_boot, if is_of_this_boot { accepted } else { Duration::ZERO }, spec.id)
}

/// What a caller is told of what the store answered.
fn told(spec: &Spec, accepted: Accepted) -> Result<Submitted, SubmitError> {
    Ok(before(accepted)?.unwrap_or_else(|| Submitted::fresh(spec)))
}

/// The command that came before under the same key, or why nothing came of it; `None` when it is new.
fn before(accepted: Accepted) -> Result<Option<Submitted>, SubmitError> {
    match accepted {
        Accepted::New | Accepted::Elsewhere => Ok(None),
        Accepted::Replayed { id, accepted_at, status } => {
            Ok(Some(Submitted { id, status, accepted_at, replayed: true }))
        }
        Accepted::Conflict { id } => Err(SubmitError::KeyReused(id)),
        Accepted::Busy { id, method } => Err(SubmitError::Busy { id, method }),
        Accepted::NonceReplayed => Err(SubmitError::NonceReplayed),
    }
}

/// Whether a command that is found may have an emergency behind it: the process before may have died with that on disk and
/// this movement not yet withdrawn.
pub(super) fn may_be_preempted(command: &Command) -> bool {
    command.life.phase == Phase::Waiting && command.spec.risk == Risk::Motion
}

/// What a command that is found is told first, where this emergency is behind it.
pub(super) fn found_with(command: &Command, emergency: Option<CommandId>) -> Option<Input> {
    match command.life.phase {
        Phase::Sending => Some(Input::FoundAfterRestart),
        Phase::Waiting => {
            emergency.map(|id| Input::Preempt { emergency_command_id: id.to_string() })
        }
        Phase::Delivered | Phase::Ended(_) => None,
    }
}
