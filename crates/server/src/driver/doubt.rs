//! Commands that the store may hold although it could not say so. Their callers were told to ask again: who does gets the
//! command going, from the store's own answer that it is there. Whoever does not has given it up, and it ends unsent.

use std::{sync::Arc, time::Duration};

use utmos_core::{
    command::{Command, Status},
    id::CommandId,
    life::Input,
};

use super::{Inner, LaneKey};

/// Commands in doubt that are remembered.
const DOUBTFUL_MAX: usize = 10_000;

/// A command as the store holds it, if it does.
pub(super) struct Doubtful {
    key: LaneKey,
    command: Command,
}

impl Inner {
    /// Remembers a command until its caller asks again, or its deadline passes.
    pub(super) fn doubt(self: &Arc<Self>, key: LaneKey, command: Command) {
        let (id, timeout) = (command.spec.id, command.spec.timeout);
        {
            let mut state = self.lock();
            if state.doubtful.len() >= DOUBTFUL_MAX {
                // Nearly always the store holds none of them; what it holds is looked after again at the next start.
                tracing::error!(command.id = %id, "too many commands are in doubt to remember this one");
                return;
            }
            state.doubtful.insert(id, Doubtful { key, command });
        }
        let inner = self.clone();
        self.tasks.spawn(async move { inner.find_out(id, timeout).await });
    }

    /// The store has said that it holds a command, and how it stands. If that was in doubt, it goes on from here; if its
    /// own caller has not heard yet, that one takes it on.
    pub(super) fn take_on_doubtful(self: &Arc<Self>, id: CommandId, status: Status) {
        let doubtful = {
            let mut state = self.lock();
            if let Some(was_asked_again) = state.in_flight.get_mut(&id) {
                *was_asked_again = true;
            }
            let is_as_it_was = status == Status::Accepted && !state.homes.contains_key(&id);
            state.doubtful.remove(&id).filter(|_| is_as_it_was)
        };
        if let Some(Doubtful { key, command }) = doubtful {
            self.take_on(&key, command);
        }
    }

    /// Ends a command whose caller did not ask again, if the store holds it.
    async fn find_out(self: Arc<Self>, id: CommandId, timeout: Duration) {
        let mut pause = timeout;
        loop {
            if self.is_stopping_within(pause).await || !self.lock().doubtful.contains_key(&id) {
                return;
            }
            match self.store.command(id).await {
                Ok(found) => {
                    let given_up =
                        self.lock().doubtful.remove(&id).map(|doubtful| doubtful.command.life);
                    // Should it stand otherwise by now, another server has found it and looks after it.
                    let is_as_it_was = |found: &Command| {
                        given_up.is_some_and(|life| life.version == found.life.version)
                    };
                    if let Some(command) = found.filter(is_as_it_was) {
                        self.keep_and_tell(command, Some(Input::Disowned));
                    }
                    return;
                }
                Err(error) => tracing::debug!(command.id = %id, %error, "not known yet"),
            }
            pause = self.limits.store_retry_wait_max;
        }
    }

    /// Waits; answers whether the server stops meanwhile.
    async fn is_stopping_within(&self, wait: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => true,
            () = tokio::time::sleep(wait) => false,
        }
    }
}
