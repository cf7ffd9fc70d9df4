//! Changes that somebody else's overtook: another server on the same store, or our own write of which the store said that
//! it had failed.

use std::sync::Arc;

use utmos_core::{
    command::Command,
    evidence::Proof,
    life::{Effect, Input},
    ports::StoreError,
};

use super::{Inner, LaneKey, lane::Work};

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
                Ok(true) => self.adopt(key, work),
                Ok(false) => match self.without_foreign_claim(key, work).await {
                    Ok(work) => {
                        self.replace(key, fresh);
                        self.redo(key, vec![work]);
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

    /// Whether what overtook a change is that change. Another server may have decided the very same at the same moment, so
    /// that only its name on the timeline tells whose claim it is; and only who has claimed may send.
    async fn is_own(&self, work: &Work, fresh: &Command) -> Result<bool, StoreError> {
        if fresh.life != work.advance.life {
            return Ok(false);
        }
        match work.folded.effect {
            Some(Effect::Publish) => {
                let timeline = self.store.timeline(work.id).await?;
                Ok(work.advance.entries.iter().all(|entry| timeline.contains(entry)))
            }
            None => Ok(true),
        }
    }

    /// What became of our own publish says nothing of a claim that another server has made since: that the message of the
    /// one did not leave does not mean that the other's did not.
    async fn without_foreign_claim(
        &self,
        key: &LaneKey,
        mut work: Work,
    ) -> Result<Work, (Work, StoreError)> {
        let is_of_claim = |input: &Input| {
            matches!(input, Input::NotSent(_) | Input::SendUnclear { .. } | Input::Confirmed(_))
        };
        if !work.inputs.iter().any(is_of_claim) {
            return Ok(work);
        }
        let timeline = match self.store.timeline(work.id).await {
            Ok(timeline) => timeline,
            Err(error) => return Err((work, error)),
        };
        let claims = timeline.iter().rev().filter_map(|entry| {
            if let Proof::SendingClaimed { replica } = &entry.proof { Some(replica) } else { None }
        });
        if claims.take(1).any(|replica| *replica != self.replica) {
            work.inputs.retain(|input| !is_of_claim(input));
            if let Some(lane) = self.lock().lanes.get_mut(key) {
                lane.stays_away(work.id);
            }
        }
        Ok(work)
    }
}
