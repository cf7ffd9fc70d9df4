//! Changes that somebody else's overtook: another server on the same store, or our own write of which the store said that
//! it had failed.

use std::sync::Arc;

use utmos_core::{
    command::{Command, Phase},
    evidence::Proof,
    id::CommandId,
    life::{Effect, Input, NotSent},
    method::Risk,
    ports::StoreError,
};

use super::{
    Inner, LaneKey, Standing, State, Told,
    lane::{Lane, Work, let_go_if_done},
};

impl Inner {
    /// Somebody else moved the command first: what was told is decided again for what it is now.
    pub(super) async fn reload(
        self: &Arc<Self>,
        key: &LaneKey,
        work: Work,
        undone: &mut Vec<Work>,
    ) {
        Self::count(&self.figures.overtaken);
        match self.store.command(work.id).await {
            Ok(Some(fresh)) => match self.is_own(&work, &fresh).await {
                // The store had written it and said that it had not.
                Ok(true) => {
                    let mut work = work;
                    work.advance.life = self.in_this_boot(fresh).life;
                    self.adopt(key, work);
                }
                Ok(false) => match self.without_foreign_claim(key, work, &fresh).await {
                    Ok(work) => {
                        let waits = fresh.life.phase == Phase::Waiting;
                        self.replace(key, fresh);
                        self.redo(key, vec![work]);
                        // Whoever gave it back may not have told so, or while this was being saved.
                        if waits && let Some(lane) = self.lock().lanes.get_mut(key) {
                            lane.take_in(Told::Turn);
                        }
                    }
                    Err((work, error)) => Self::keep_undone(work, &error, undone),
                },
                Err(error) => Self::keep_undone(work, &error, undone),
            },
            Ok(None) => {
                tracing::error!(command.id = %work.id, "a command vanished from the store");
                self.give_up(key, &work);
            }
            Err(error) => Self::keep_undone(work, &error, undone),
        }
    }

    fn keep_undone(work: Work, error: &StoreError, undone: &mut Vec<Work>) {
        tracing::error!(command.id = %work.id, %error, "could not read what overtook a change");
        undone.push(work);
    }

    /// Whether what overtook a change is that change. It may have been decided again since, at a later time, and another server
    /// may have decided the like: a claim is told by whose it is, which the timeline says, and only who has claimed may send.
    /// No claim of this server's that it knows of is tried again, so what it finds here has not been published. A movement is
    /// not gone on with where an emergency was accepted since: the claim did not meet it, and this would go past it.
    async fn is_own(&self, work: &Work, fresh: &Command) -> Result<bool, StoreError> {
        let (found, tried) = (&fresh.life, &work.advance.life);
        match work.effect {
            Some(Effect::Publish)
                if (found.version, found.phase) == (tried.version, tried.phase) =>
            {
                if self.claimed_by(work.id).await?.as_ref() != Some(&self.replica) {
                    return Ok(false);
                }
                let spec = &fresh.spec;
                Ok(spec.risk != Risk::Motion || self.store.emergency_after(spec).await?.is_none())
            }
            Some(Effect::Publish) => Ok(false),
            None => Ok(found == tried),
        }
    }

    /// Who has claimed a command last.
    async fn claimed_by(&self, id: CommandId) -> Result<Option<String>, StoreError> {
        let timeline = self.store.timeline(id).await?;
        Ok(timeline.into_iter().rev().find_map(|entry| {
            if let Proof::SendingClaimed { replica } = entry.proof { Some(replica) } else { None }
        }))
    }

    /// Whether a command is known here as one that waits.
    fn is_known_to_wait(&self, key: &LaneKey, id: CommandId) -> bool {
        self.lock().lanes.get(key).is_some_and(|lane| lane.is_waiting(id))
    }

    /// What became of our own publish says nothing of a claim that another server has made since: that the message of the
    /// one did not leave does not mean that the other's did not. Of a claim that is our own and was not heard, it is known that
    /// nothing has left.
    async fn without_foreign_claim(
        &self,
        key: &LaneKey,
        mut work: Work,
        fresh: &Command,
    ) -> Result<Work, (Work, StoreError)> {
        if fresh.life.phase == Phase::Sending && self.is_known_to_wait(key, work.id) {
            match self.claimed_by(work.id).await {
                Ok(claimer) if claimer.as_ref() == Some(&self.replica) => {
                    work.inputs.insert(0, Input::NotSent(NotSent::NotBegun));
                    return Ok(work);
                }
                Ok(_) => {}
                Err(error) => return Err((work, error)),
            }
        }
        let is_of_claim = |input: &Input| {
            matches!(input, Input::NotSent(_) | Input::SendUnclear { .. } | Input::Confirmed(_))
        };
        if !work.inputs.iter().any(is_of_claim) {
            return Ok(work);
        }
        let claimer = match self.claimed_by(work.id).await {
            Ok(claimer) => claimer,
            Err(error) => return Err((work, error)),
        };
        if claimer.is_some_and(|replica| replica != self.replica) {
            work.inputs.retain(|input| !is_of_claim(input));
            if let Some(lane) = self.lock().lanes.get_mut(key) {
                lane.stays_away(work.id);
            }
        }
        Ok(work)
    }

    /// Takes over how a command stands on disk; what is under way of it here goes on.
    fn replace(&self, key: &LaneKey, fresh: Command) {
        let fresh = self.in_this_boot(fresh);
        self.replace_in(&mut self.lock(), key, fresh);
    }

    /// A command that is looked after here stands otherwise in the store than it is known here, where that is so. While its
    /// lane runs, this has its turn there: what is being saved may be what was read.
    ///
    /// # Errors
    /// When it cannot be read who has claimed it.
    pub(super) async fn overtake(self: &Arc<Self>, fresh: Command) -> Result<(), StoreError> {
        let id = fresh.spec.id;
        if !self.is_news(&fresh) {
            return Ok(());
        }
        let may_be_own = fresh.life.phase == Phase::Sending;
        let is_own_claim = may_be_own && self.claimed_by(id).await?.as_ref() == Some(&self.replica);
        let command = self.in_this_boot(fresh);
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(key) = state.homes.get(&id).cloned() else { return Ok(()) };
        let Some(lane) = state.lanes.get_mut(&key).filter(|lane| is_older(lane, &command)) else {
            return Ok(());
        };
        let standing = Standing { command, is_own_claim };
        if lane.is_running() {
            lane.take_in(Told::Stands(Box::new(standing)));
            return Ok(());
        }
        let not_begun = self.stand(state, &key, standing);
        let Some(lane) = state.lanes.get_mut(&key) else { return Ok(()) };
        if lane.is_idle() && not_begun.is_none() {
            state.lanes.remove(&key);
            return Ok(());
        }
        let turn = (lane.waiting() > 0).then_some(Told::Turn);
        let must_run = not_begun.or(turn).is_some_and(|told| lane.take_in(told));
        drop(guard);
        if must_run {
            self.spawn_lane(key);
        }
        Ok(())
    }

    /// Whether a command is looked after here and known as it was before this.
    fn is_news(&self, fresh: &Command) -> bool {
        let state = self.lock();
        let lane = state.homes.get(&fresh.spec.id).and_then(|key| state.lanes.get(key));
        lane.is_some_and(|lane| is_older(lane, fresh))
    }

    /// Takes over how a command stands. Where this server claimed it and did not hear of that, answers what is to be told: that
    /// nothing has left, so that it has its turn again.
    fn stand(&self, state: &mut State, key: &LaneKey, standing: Standing) -> Option<Told> {
        let Standing { command, is_own_claim } = standing;
        let id = command.spec.id;
        let waits = state.lanes.get(key).is_some_and(|lane| lane.is_waiting(id));
        self.replace_in(state, key, command);
        let input = Box::new(Input::NotSent(NotSent::NotBegun));
        (is_own_claim && waits).then_some(Told::Input { id, input, done: None })
    }

    /// Takes over what was told of how commands stand, while nothing of their lane is being saved. Answers the rest. A command
    /// about which something is to be decided comes after that: it may be a change that the store has written and said that it
    /// had not, and that is one's own (`reload`).
    pub(super) fn take_standings(
        &self,
        state: &mut State,
        key: &LaneKey,
        told: Vec<Told>,
    ) -> Vec<Told> {
        let (mut standings, mut rest) = (Vec::new(), Vec::with_capacity(told.len()));
        for one in told {
            match one {
                Told::Stands(fresh) => standings.push(fresh),
                other @ (Told::Input { .. } | Told::Said { .. } | Told::Turn) => rest.push(other),
            }
        }
        for fresh in standings {
            let id = fresh.command.spec.id;
            let lane = state.lanes.get_mut(key);
            let Some(lane) = lane.filter(|lane| is_older(lane, &fresh.command)) else {
                continue;
            };
            let is_waiting = lane.is_waiting(id);
            let concerns = |one: &Told| match one {
                Told::Input { id: other, .. } | Told::Said { id: other, .. } => *other == id,
                Told::Turn => is_waiting,
                Told::Stands(_) => false,
            };
            match rest.iter().any(concerns) {
                true => drop(lane.take_in(Told::Stands(fresh))),
                false => rest.extend(self.stand(state, key, *fresh)),
            }
        }
        rest
    }

    fn replace_in(&self, state: &mut State, key: &LaneKey, fresh: Command) {
        let (id, due) = (fresh.spec.id, fresh.life.due);
        let Some(lane) = state.lanes.get_mut(key) else { return };
        let told = Arc::new(fresh.clone());
        let Some(before) = lane.replace(fresh) else { return };
        if let Some(due) = before.life.due {
            state.timers.unset(due.mono, id);
        }
        if due.is_some_and(|due| state.timers.set(due.mono, id)) {
            self.timer_moved.notify_one();
        }
        state.watchers.tell(&told);
        let_go_if_done(lane, &mut state.homes, id);
    }
}

/// Whether a command that is looked after is known as it was before this.
fn is_older(lane: &Lane, fresh: &Command) -> bool {
    lane.command(fresh.spec.id).is_some_and(|known| known.life.version < fresh.life.version)
}
