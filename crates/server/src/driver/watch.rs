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
    /// Commands that were accepted here for other servers to send, of which no end has been heard: whoever begins to wait for
    /// that need not read them.
    lately: BTreeMap<CommandId, Command>,
}

struct Watched {
    count: usize,
    /// How many of them wait for any change.
    for_any: usize,
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

    /// These have ended, or any may have.
    pub(super) fn outdate(&mut self, ended: Option<&[CommandId]>) {
        match ended {
            None => self.lately.clear(),
            Some(ids) if self.lately.is_empty() || ids.is_empty() => {}
            Some(ids) => ids.iter().for_each(|id| drop(self.lately.remove(id))),
        }
    }

    /// Whether somebody waits for the end of a command, or for any change of it.
    pub(super) fn has(&self, id: CommandId, what: WaitsFor) -> bool {
        self.watched.get(&id).is_some_and(|it| it.wants(what))
    }

    pub(super) fn tell(&mut self, command: &Arc<Command>) {
        self.lately.remove(&command.spec.id);
        let what = match command.life.phase.has_ended() {
            true => WaitsFor::TheEnd,
            false => WaitsFor::AnyChange,
        };
        if let Some(watched) = self.watched.get(&command.spec.id).filter(|it| it.wants(what)) {
            watched.sender.send_replace(Some(command.clone()));
        }
    }
}

impl Watched {
    /// Whether somebody waits for this.
    fn wants(&self, what: WaitsFor) -> bool {
        what == WaitsFor::TheEnd || self.for_any > 0
    }
}

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    /// That the command ends. How it stands until then is not told.
    TheEnd,
    /// That it stands otherwise in any way.
    AnyChange,
}

/// A place in the queue of those who wait for one command. Register first, read the command after: no change between
/// the two is missed.
pub struct Watch {
    inner: Arc<Inner>,
    id: CommandId,
    what: WaitsFor,
    receiver: watch::Receiver<Option<Arc<Command>>>,
}

impl Driver {
    /// Starts waiting for a command's end, or for its changes.
    #[must_use]
    pub fn watch(&self, id: CommandId, what: WaitsFor) -> Watch {
        let mut state = self.inner.lock();
        let new = || Watched { count: 0, for_any: 0, sender: watch::Sender::new(None) };
        let watched = state.watchers.watched.entry(id).or_insert_with(new);
        watched.count += 1;
        watched.for_any += usize::from(what == WaitsFor::AnyChange);
        let receiver = watched.sender.subscribe();
        drop(state);
        Watch { inner: self.inner.clone(), id, what, receiver }
    }

    /// A command that this server accepted a moment ago for another to send, as it was put on record. It may stand otherwise
    /// now; its end has not been heard, and when it is, whoever [watches](Self::watch) already is told.
    #[must_use]
    pub fn accepted_lately(&self, id: CommandId) -> Option<Command> {
        self.inner.lock().watchers.lately.get(&id).cloned()
    }
}

impl Watch {
    /// The next state of the command that was saved after this began, of those it waits for. `None` when the server stops.
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
            watched.for_any -= usize::from(self.what == WaitsFor::AnyChange);
            if watched.count == 0 {
                state.watchers.watched.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use utmos_core::{
        command::{Outcome, Phase},
        method::Risk,
    };

    use super::*;
    use crate::driver::doubt::tests::command;

    #[test]
    fn what_was_accepted_lately_is_forgotten_with_its_end() {
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
    fn whoever_waits_for_the_end_is_told_of_that_alone() {
        let mut watchers = Watchers::default();
        let mut command = command(0, Risk::Configuration).1;
        let id = command.spec.id;
        let mut wait = |for_any| {
            let watched = Watched { count: 1, for_any, sender: watch::Sender::new(None) };
            let told = watched.sender.subscribe();
            watchers.watched.insert(id, watched);
            watchers.tell(&Arc::new(command.clone()));
            let after_change = told.has_changed().is_ok_and(|it| it);
            let has = [WaitsFor::TheEnd, WaitsFor::AnyChange].map(|what| watchers.has(id, what));
            let life = Arc::make_mut(&mut command.life);
            let open = std::mem::replace(&mut life.phase, Phase::Ended(Outcome::Succeeded));
            watchers.tell(&Arc::new(command.clone()));
            Arc::make_mut(&mut command.life).phase = open;
            (after_change, told.has_changed().is_ok_and(|it| it), has)
        };
        assert_eq!(wait(0), (false, true, [true, false]));
        assert_eq!(wait(1), (true, true, [true, true]));
        watchers.watched.clear();
        assert!(!watchers.has(id, WaitsFor::TheEnd));
    }

    #[test]
    fn what_was_accepted_lately_has_a_bound() {
        let mut watchers = Watchers::default();
        (0..LATELY_MAX + 9).for_each(|n| watchers.note(command(n, Risk::Configuration).1));
        assert_eq!(watchers.lately.len(), LATELY_MAX);
        assert!(!watchers.lately.contains_key(&command(0, Risk::Configuration).1.spec.id));
    }
}
