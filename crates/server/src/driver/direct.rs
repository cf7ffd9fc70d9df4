//! Commands that one server accepts for another, which asked over the line between them: the one that was asked for holds the
//! gateway, and has the callers of the other as its own.
//!
//! A line may break while a command is being accepted. Then the one that asked stores the command itself: the nonce of its
//! request is good once, and where that is spent, the id says whether the other has stored this very command. The other
//! notices that nobody heard its answer, and keeps the command back until it is handed to it as one that its caller knows of.

use std::{sync::Arc, time::Duration};

use utmos_core::{
    command::{Command, Life, Spec, Status},
    id::CommandId,
    method::Risk,
    planted::{self, Fault},
    ports::{ANSWERED_AGE_MAX, Accepted, Answer, Asked, StoreError, Taken, Unheard},
    replica::ReplicaId,
    signing::NonceUse,
};

use super::{Driver, Inner, LaneKey, SubmitError, Submitted, lane::Lane};

/// Commands that are remembered with who asked for them; the oldest are told of as all others are.
const ASKERS_MAX: usize = 16_384;

/// What came of asking the server that holds a gateway.
pub(super) enum Direct {
    /// What its store answered.
    Came(Accepted),
    /// Too many commands wait there.
    Full(usize),
    /// There is no such server, or no line to it, or it is not the holder any more: nothing was done.
    NotAsked,
    /// It may have accepted the command, or may still.
    PerhapsThere,
}

impl Driver {
    /// Accepts a command of a caller of another server, who was let in there. Returns at once; `answer` is told.
    pub fn accept_for(&self, from: ReplicaId, asked: Asked, answer: Answer) {
        let inner = self.inner.clone();
        if inner.stopping.is_cancelled() {
            answer(Taken::NotHere);
            return;
        }
        self.inner.tasks.spawn(async move { inner.accept_for(from, asked, answer).await });
    }

    /// Another server has accepted a command for this one.
    pub fn accepted_elsewhere(&self, spec: Arc<Spec>) {
        let life = Arc::new(Life::accepted(&spec));
        self.inner.lock().watchers.note(Command { spec, life });
    }

    /// A command that another server looks after has ended.
    pub fn ended_elsewhere(&self, command: Command) {
        let mut state = self.inner.lock();
        // What is looked after here is known better.
        if !state.homes.contains_key(&command.spec.id) {
            state.watchers.tell(&Arc::new(command));
        }
    }
}

impl Inner {
    /// Has the server that holds a gateway accept its command.
    pub(super) async fn ask_holder(&self, nonce: Option<&NonceUse>, spec: &Arc<Spec>) -> Direct {
        let asked = Asked { nonce: nonce.copied(), spec: spec.clone() };
        match self.holdings.ask_holder(asked).await {
            Ok(Taken::Stored(accepted)) => {
                if matches!(accepted, Accepted::New | Accepted::Elsewhere) {
                    Self::count(&self.figures.accepted_directly);
                }
                Direct::Came(accepted)
            }
            Ok(Taken::Full(waiting)) => Direct::Full(waiting),
            Ok(Taken::NotHere) | Err(Unheard::NotAsked) => Direct::NotAsked,
            Ok(Taken::Unclear) | Err(Unheard::Broken) => {
                Self::count(&self.figures.unheard_directly);
                Direct::PerhapsThere
            }
        }
    }

    /// The command that another server was asked to accept and gave no answer to, where the store says that it was quicker than
    /// this one. `None` where the store took it from here, or cannot say.
    pub(super) async fn found_there(
        &self,
        spec: &Arc<Spec>,
        accepted: &Result<Accepted, StoreError>,
    ) -> Option<Result<Submitted, SubmitError>> {
        match accepted {
            Ok(Accepted::NonceReplayed) => {}
            Ok(Accepted::Replayed { id, .. }) if *id == spec.id => {}
            Ok(
                Accepted::New
                | Accepted::Elsewhere
                | Accepted::Replayed { .. }
                | Accepted::Conflict { .. }
                | Accepted::Busy { .. },
            )
            | Err(_) => return None,
        }
        Some(match self.store.command(spec.id).await {
            // It was kept back there, if its answer was not heard.
            Ok(Some(stored)) => {
                let found = Submitted { status: stored.life.status(), ..Submitted::fresh(spec) };
                self.hand_stored(&stored).await.map(|()| found).map_err(SubmitError::Store)
            }
            // The other has spent the nonce and stored nothing, for a reason that it could not tell; or another request had it
            // before, and none must be answered with what came of that one.
            Ok(None) => Err(SubmitError::Store(StoreError::Unavailable(
                "the server that sends to this gateway fell silent".to_owned(),
            ))),
            Err(error) => Err(SubmitError::Store(error)),
        })
    }

    /// A caller was told that the store holds a command that another server looks after. It may be in doubt there: it is handed to
    /// whoever holds its gateway, as one of which its caller knows.
    async fn hand_stored(&self, command: &Command) -> Result<(), StoreError> {
        let spec = &command.spec;
        if command.life.status() != Status::Accepted
            || spec.risk == Risk::Emergency
            || self.holdings.keeps(&spec.gateway)
            || self.is_here(spec.id)
            || planted::is_planted(Fault::UnheardNotHanded)
        {
            return Ok(());
        }
        self.holdings.hand_stored(spec.id, &spec.gateway).await
    }

    /// The same of one that was found under its key.
    pub(super) async fn hand_found(&self, id: CommandId, status: Status) -> Result<(), StoreError> {
        if status != Status::Accepted || self.holdings.is_alone() || self.is_here(id) {
            return Ok(());
        }
        match self.store.command(id).await? {
            Some(command) => self.hand_stored(&command).await,
            None => Ok(()),
        }
    }

    /// How long ago its caller asked for a command.
    fn age(&self, spec: &Spec) -> Duration {
        spec.timeout.saturating_sub(spec.deadline.mono.since(self.clock.now().mono))
    }

    async fn accept_for(self: Arc<Self>, from: ReplicaId, asked: Asked, answer: Answer) {
        let Asked { nonce, spec } = asked;
        let life = Arc::new(Life::accepted(&spec));
        let Command { spec, .. } = self.in_this_boot(Command { spec, life });
        let key = LaneKey::of(&spec.gateway, spec.risk);
        let is_ours = self.holdings.keeps(&spec.gateway)
            && self.holdings.is_lease_on()
            && self.holdings.trouble().is_none();
        if spec.risk == Risk::Emergency || self.age(&spec) > ANSWERED_AGE_MAX || !is_ours {
            answer(Taken::NotHere);
            return;
        }
        let waiting = self.lock().lanes.get(&key).map_or(0, Lane::waiting);
        if waiting >= self.limits.waiting_per_gateway_max {
            answer(Taken::Full(waiting));
            return;
        }
        self.lock().note_asker(spec.id, from);
        let answered = |accepted: &Result<Accepted, StoreError>| match accepted {
            Ok(accepted) if self.age(&spec) <= ANSWERED_AGE_MAX => {
                answer(Taken::Stored(accepted.clone()))
            }
            Ok(_) | Err(_) => {
                answer(Taken::Unclear);
                false
            }
        };
        match self.put(key, &spec, nonce, answered).await {
            Ok(Accepted::New | Accepted::Elsewhere) => return,
            Ok(Accepted::Replayed { id, status, .. }) => self.take_on_doubtful(id, status),
            Ok(Accepted::Conflict { .. } | Accepted::Busy { .. } | Accepted::NonceReplayed)
            | Err(_) => {}
        }
        self.lock().askers.remove(&spec.id);
    }
}

impl super::State {
    fn note_asker(&mut self, id: CommandId, asker: ReplicaId) {
        if self.askers.len() >= ASKERS_MAX {
            self.askers.pop_first();
        }
        self.askers.insert(id, asker);
    }
}
