//! What is in the journal and not in the store. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utmos_core::{
    command::{Command, Spec, StatusVersion},
    evidence::Entry,
    id::CommandId,
    ports::{Accepted, Advance, NewCommand, StoreError},
    signing::NonceUse,
};

use crate::entry::kept_entry;

/// A line of the journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(super) enum Record {
    /// A command was accepted.
    Accept {
        /// The nonce of its request.
        nonce: Option<NonceUse>,
        /// The command.
        new: NewCommand,
    },
    /// A command changed.
    Advance {
        /// The change.
        advance: Advance,
    },
}

impl Record {
    pub(super) fn id(&self) -> CommandId {
        match self {
            Self::Accept { new, .. } => new.spec.id,
            Self::Advance { advance } => advance.id,
        }
    }

    /// The record as it is kept: every line of a timeline can be read back, and none is too long.
    pub(super) fn kept(self) -> Result<Self, StoreError> {
        Ok(match self {
            Self::Accept { nonce, new } => {
                Self::Accept { nonce, new: NewCommand { entries: kept(new.entries)?, ..new } }
            }
            Self::Advance { advance } => {
                Self::Advance { advance: Advance { entries: kept(advance.entries)?, ..advance } }
            }
        })
    }

    fn ends(&self) -> bool {
        match self {
            Self::Accept { .. } => false,
            Self::Advance { advance } => advance.life.phase.has_ended(),
        }
    }

    fn version(&self) -> StatusVersion {
        match self {
            Self::Accept { new, .. } => new.life.version,
            Self::Advance { advance } => advance.life.version,
        }
    }
}

fn kept(entries: Vec<Entry>) -> Result<Vec<Entry>, StoreError> {
    entries.into_iter().map(kept_entry).collect()
}

/// Where a change goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// No emergency of ours: to the store.
    Store,
    /// An emergency that is in the store: there, or into the journal if that takes too long.
    Either,
    /// Its record is in the journal already.
    Journal,
    /// Somebody else moved it first.
    Lost,
}

#[derive(Default)]
pub(super) struct Pending {
    /// Records by command, each with its number. Ids rise with time, so the first is the oldest.
    records: BTreeMap<CommandId, Vec<(u64, Record)>>,
    /// How many there were.
    count: u64,
    /// Emergencies in the store that may still change.
    watched: BTreeSet<CommandId>,
}

impl Pending {
    pub(super) fn add(&mut self, record: Record) {
        self.count += 1;
        self.records.entry(record.id()).or_default().push((self.count, record));
    }

    /// Takes the last record of a command back.
    pub(super) fn take_back(&mut self, id: CommandId) {
        if let Some(records) = self.records.get_mut(&id) {
            records.pop();
            if records.is_empty() {
                self.records.remove(&id);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn watch(&mut self, id: CommandId) {
        self.watched.insert(id);
    }

    pub(super) fn unwatch(&mut self, id: CommandId) {
        self.watched.remove(&id);
    }

    /// The records of the oldest command, and the number of the last one.
    pub(super) fn first(&self) -> Option<(CommandId, Vec<Record>, u64)> {
        let (id, records) = self.records.first_key_value()?;
        let last = records.last()?.0;
        Some((*id, records.iter().map(|(_, record)| record.clone()).collect(), last))
    }

    /// The records of a command up to this number are in the store. Answers whether these were all.
    pub(super) fn settled(&mut self, id: CommandId, last: u64) -> bool {
        let Some(records) = self.records.get_mut(&id) else { return false };
        let has_ended = records.last().is_some_and(|(_, record)| record.ends());
        records.retain(|(number, _)| *number > last);
        if !records.is_empty() {
            return false;
        }
        self.records.remove(&id);
        if has_ended {
            self.watched.remove(&id);
        } else {
            self.watched.insert(id);
        }
        true
    }

    pub(super) fn way_of(&self, advance: &Advance) -> Way {
        self.way(advance.id, advance.seen)
    }

    /// The way of a change of a command that was decided on a version of it.
    pub(super) fn way(&self, id: CommandId, seen: StatusVersion) -> Way {
        match self.records.get(&id).and_then(|records| records.last()) {
            Some((_, last)) if last.version() == seen => Way::Journal,
            Some(_) => Way::Lost,
            None if self.watched.contains(&id) => Way::Either,
            None => Way::Store,
        }
    }

    /// A command that is in the journal whole, as it stands.
    pub(super) fn command(&self, id: CommandId) -> Option<Command> {
        let records = self.records.get(&id)?;
        let Some((_, Record::Accept { new, .. })) = records.first() else { return None };
        let life = records.iter().rev().find_map(|(_, record)| match record {
            Record::Advance { advance } => Some(advance.life.clone()),
            Record::Accept { .. } => None,
        });
        Some(Command { spec: new.spec.clone(), life: life.unwrap_or_else(|| new.life.clone()) })
    }

    /// What the journal holds of a timeline, and whether that is all of it.
    pub(super) fn timeline(&self, id: CommandId) -> (bool, Vec<Entry>) {
        let records = self.records.get(&id).map_or(&[][..], Vec::as_slice);
        let entries = records.iter().flat_map(|(_, record)| match record {
            Record::Accept { new, .. } => &new.entries,
            Record::Advance { advance } => &advance.entries,
        });
        (matches!(records.first(), Some((_, Record::Accept { .. }))), entries.cloned().collect())
    }

    /// Whether the request of an emergency in the journal had this nonce.
    pub(super) fn knows_nonce(&self, nonce: &NonceUse) -> bool {
        self.records.values().flatten().any(|(_, record)| match record {
            Record::Accept { nonce: spent, .. } => {
                spent.is_some_and(|spent| spent.key == nonce.key)
            }
            Record::Advance { .. } => false,
        })
    }

    /// What the journal knows of a request's key.
    pub(super) fn same_key(&self, spec: &Spec) -> Option<Accepted> {
        let known = self.records.keys().find_map(|id| {
            let command = self.command(*id)?;
            let is_same = command.spec.tenant == spec.tenant
                && command.spec.idempotency_key == spec.idempotency_key;
            is_same.then_some(command)
        })?;
        let id = known.spec.id;
        if known.spec.fingerprint != spec.fingerprint {
            return Some(Accepted::Conflict { id });
        }
        Some(Accepted::Replayed {
            id,
            accepted_at: known.spec.accepted_at,
            status: known.life.status(),
        })
    }
}
