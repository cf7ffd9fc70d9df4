//! Whoever waits for a command to change is told when the change is on disk, never before.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;
use utmos_core::{command::Command, id::CommandId};

use super::{Driver, Inner};

/// Commands that are remembered as they were accepted for other servers; the oldest go first. None is for longer than it
/// takes until all are looked at again.
const LATELY_MAX: usize = 4_096;

/// Those who wait, by command.
#[derive(Default)]
pub(super) struct Watchers {
    watched: BTreeMap<CommandId, Watched>,
    /// Commands that were accepted here for other servers to send, of which no change has been heard: whoever begins to wait
    /// for one need not read it.
    lately: BTreeMap<CommandId, Command>,
}

struct Watched {
    count: usize,
    sender: watch::Sender<Option<Arc<Command>>>,
}

impl Watchers {
    /// The commands that somebody waits for.
    pub(super) fn ids(&self) -> impl Iterator<Item = CommandId> {
        self.watched.keys().copied()
    }

    /// Remembers a command that another server is to send, as it is on record.
    pub(super) fn note(&mut self, command: Command) {
        if self.lately.len() >= LATELY_MAX {
            self.lately.pop_first();
        }
        self.lately.insert(command.spec.id, command);
    }

    /// These have changed, or any may have.
    pub(super) fn outdate(&mut self, changed: Option<&[CommandId]>) {
        match changed {
            None => self.lately.clear(),
            Some(ids) if self.lately.is_empty() || ids.is_empty() => {}
            Some(ids) => ids.iter().for_each(|id| drop(self.lately.remove(id))),
        }
    }

    pub(super) fn has(&self, id: CommandId) -> bool {
        self.watched.contains_key(&id)
    }

    pub(super) fn tell(&mut self, command: &Arc<Command>) {
        self.lately.remove(&command.spec.id);
        if let Some(watched) = self.watched.get(&command.spec.id) {
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
        let watched = state.watchers.watched.entry(id).or_insert_with(new);
        watched.count += 1;
        let receiver = watched.sender.subscribe();
        drop(state);
        Watch { inner: self.inner.clone(), id, receiver }
    }

    /// A command that this server accepted a moment ago for another to send, as it was put on record. No change of it has
    /// been heard; one that is heard later is told to whoever [watches](Self::watch) already.
    #[must_use]
    pub fn accepted_lately(&self, id: CommandId) -> Option<Command> {
        self.inner.lock().watchers.lately.get(&id).cloned()
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
        if let Some(watched) = state.watchers.watched.get_mut(&self.id) {
            watched.count -= 1;
            if watched.count == 0 {
                state.watchers.watched.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use utmos_core::method::Risk;

    use super::*;
    use crate::driver::doubt::tests::command;

    #[test]
    fn what_was_accepted_lately_is_forgotten_with_the_first_word_of_a_change() {
        let mut watchers = Watchers::default();
        let commands: Vec<Command> = (0..3).map(|n| command(n, Risk::Configuration).1).collect();
        let ids: Vec<CommandId> = commands.iter().map(|command| command.spec.id).collect();
        let known = |watchers: &Watchers| watchers.lately.keys().copied().collect::<Vec<_>>();
        commands.iter().for_each(|command| watchers.note(command.clone()));
        watchers.outdate(Some(&[]));
        assert_eq!(known(&watchers), ids);
        watchers.outdate(Some(&ids[1..2]));
        assert_eq!(known(&watchers), [ids[0], ids[2]]);
        watchers.tell(&Arc::new(commands[0].clone()));
        assert_eq!(known(&watchers), [ids[2]]);
        watchers.outdate(None);
        assert_eq!(known(&watchers), []);
    }

    #[test]
    fn what_was_accepted_lately_has_a_bound() {
        let mut watchers = Watchers::default();
        (0..LATELY_MAX + 9).for_each(|n| watchers.note(command(n, Risk::Configuration).1));
        assert_eq!(watchers.lately.len(), LATELY_MAX);
        assert!(!watchers.lately.contains_key(&command(0, Risk::Configuration).1.spec.id));
    }
}
