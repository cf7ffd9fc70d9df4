//! Whoever waits for a command to change is told when the change is on disk, never before.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;
use utmos_core::{command::Command, id::CommandId};

use super::{Driver, Inner};

/// Those who wait, by command.
#[derive(Default)]
pub(super) struct Watchers(BTreeMap<CommandId, Watched>);

struct Watched {
    count: usize,
    sender: watch::Sender<Option<Arc<Command>>>,
}

impl Watchers {
    /// The commands that somebody waits for.
    pub(super) fn ids(&self) -> impl Iterator<Item = CommandId> {
        self.0.keys().copied()
    }

    pub(super) fn has(&self, id: CommandId) -> bool {
        self.0.contains_key(&id)
    }

    pub(super) fn tell(&self, command: &Arc<Command>) {
        if let Some(watched) = self.0.get(&command.spec.id) {
            watched.sender.send_replace(Some(command.clone()));
        }
    }
}

/// A place in the queue of those who wait for one command. Register first, read the command after: no change between
/// the two is missed.
pub struct Watch {
    inner: Arc<Inner>,
    id: CommandId,
    receiver: watch::Receiver<Option<Arc<Command>>>,
}

impl Driver {
    /// Starts waiting for a command's changes.
    #[must_use]
    pub fn watch(&self, id: CommandId) -> Watch {
        let mut state = self.inner.lock();
        let new = || Watched { count: 0, sender: watch::Sender::new(None) };
        let watched = state.watchers.0.entry(id).or_insert_with(new);
        watched.count += 1;
        let receiver = watched.sender.subscribe();
        drop(state);
        Watch { inner: self.inner.clone(), id, receiver }
    }
}

impl Watch {
    /// The next state of the command that was saved after this began. `None` when the server stops.
    pub async fn next(&mut self) -> Option<Arc<Command>> {
        tokio::select! {
            biased;
            changed = self.receiver.changed() => changed.ok().and_then(|()| self.receiver.borrow_and_update().clone()),
            () = self.inner.watching.cancelled() => None,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        if let Some(watched) = state.watchers.0.get_mut(&self.id) {
            watched.count -= 1;
            if watched.count == 0 {
                state.watchers.0.remove(&self.id);
            }
        }
    }
}
