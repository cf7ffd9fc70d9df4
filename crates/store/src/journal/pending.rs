//! What is in the journal and not in the store. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use utmos_core::{
    command::{Command, Life, Spec, Status, StatusVersion},
    evidence::{Entry, Proof},
    id::CommandId,
    method::Risk,
    ports::{Accepted, Advance, NewCommand, StoreError},
    signing::NonceUse,
};

use super::{
    STORE_PATIENCE,
    disk::WRITE_PATIENCE,
    remembered::{Latest, Nonces},
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
    /// A request was answered with what came of another.
    Nonce {
        /// Its nonce.
        nonce: NonceUse,
    },
}

impl Record {
    /// The command it is of.
    pub(super) fn id(&self) -> Option<CommandId> {
        match self {
            Self::Accept { new, .. } => Some(new.spec.id),
            Self::Advance { advance } => Some(advance.id),
            Self::Nonce { .. } => None,
        }
    }

    /// The record as it is kept: every line of a timeline can be read back, and none is too long.
    pub(super) fn kept(self) -> Result<Self, StoreError> {
        Ok(match self {
            Self::Accept { nonce, new } => {
                let entries = kept(new.entries)?;
                Self::Accept { nonce, new: NewCommand { entries, ..new } }
            }
            Self::Advance { advance } => {
                let entries = kept(advance.entries.iter().cloned())?;
                Self::Advance { advance: Advance { entries, ..advance } }
            }
            Self::Nonce { nonce } => Self::Nonce { nonce },
        })
    }

    /// Whether nobody looks after its command any more.
    fn ends(&self) -> bool {
        match self {
            Self::Accept { .. } | Self::Nonce { .. } => false,
            Self::Advance { advance } => !advance.life.needs_care(),
        }
    }

    /// Whether it changes nothing but the timeline.
    pub(super) fn is_evidence(&self) -> bool {
        match self {
            Self::Accept { .. } | Self::Nonce { .. } => false,
            Self::Advance { advance } => advance.life.version == advance.seen,
        }
    }

    /// Whether somebody can bring about as many of them as they like: a device by what it says, as far as no state changes
    /// by it, and a caller by asking again.
    pub(super) fn is_talk(&self) -> bool {
        let advance = match self {
            Self::Accept { .. } => return false,
            Self::Advance { advance } => advance,
            Self::Nonce { .. } => return true,
        };
        !advance.entries.is_empty() && advance.entries.iter().all(is_talk)
    }

    /// The same without what a device said beside; `None` where there is nothing of that in it.
    pub(super) fn without_talk(&self) -> Option<Self> {
        let Self::Advance { advance } = self else { return None };
        let entries: Vec<Entry> =
            advance.entries.iter().filter(|entry| !is_talk(entry)).cloned().collect();
        (entries.len() < advance.entries.len()).then(|| Self::Advance {
            advance: Advance { entries: entries.into(), ..advance.clone() },
        })
    }

    fn version(&self) -> Option<StatusVersion> {
        match self {
            Self::Accept { new, .. } => Some(new.life.version),
            Self::Advance { advance } => Some(advance.life.version),
            Self::Nonce { .. } => None,
        }
    }
}

/// Whether an entry tells only what a device said, and no state changed by it.
fn is_talk(entry: &Entry) -> bool {
    let is_said = matches!(entry.proof, Proof::Reply { .. } | Proof::Progress { .. });
    is_said && entry.from == entry.to
}

fn kept<T: FromIterator<Entry>>(entries: impl IntoIterator<Item = Entry>) -> Result<T, StoreError> {
    entries.into_iter().map(kept_entry).collect()
}

/// A command that is to be put on record.
pub(super) struct Unsettled {
    pub(super) id: CommandId,
    /// What is known of it, in the order it came.
    pub(super) records: Vec<Record>,
    /// The number of the last of them.
    pub(super) last: u64,
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
    /// How often something came or went.
    changes: u64,
    /// How often it had, when nothing stood in the file any more that need not be there.
    tidied_at: u64,
    /// Emergencies in the store that may still change.
    watched: BTreeSet<CommandId>,
    /// Emergencies in the store that have ended: devices may go on talking of them.
    ended: Latest,
    /// How those stand that the store accepted since the start: the store may be too slow to tell of their keys.
    stored: BTreeMap<CommandId, (Arc<Spec>, Status)>,
    /// The same of those that have ended lately: a copy that waits for a slow journal asks for its key when its turn comes.
    ended_keys: VecDeque<(Arc<Spec>, Status)>,
    /// Emergencies that the store was asked to accept and has not answered: it may still write them. With those of them
    /// that were refused, since the journal could not take them either.
    asked: BTreeMap<CommandId, Option<(Option<NonceUse>, NewCommand)>>,
    /// Emergencies whose callers were told that neither took them, and the copy that went by the journal since.
    refused: VecDeque<(Arc<Spec>, Option<CommandId>)>,
    /// Emergencies that the store failed to accept, which it may have done all the same.
    unclear: BTreeSet<CommandId>,
    /// Changes of emergencies that are under care which the store did not take, as far as it said, and the journal neither.
    unsaid: BTreeMap<CommandId, Advance>,
    /// Nonces of requests that were answered with a command of before, and that the store may not have: those that stand in
    /// the file, by their keys,
    noted: BTreeMap<[u8; 16], NonceUse>,
    /// those in memory only, where the file did not take them either: where the process dies before the store is well, such
    /// a request is good once more, for the same answer;
    nonces: Nonces,
    /// and those that are under way to one of the three.
    claimed: BTreeSet<[u8; 16]>,
    /// Commands that could not be settled for what the store holds already.
    passed_over: BTreeSet<CommandId>,
}

/// Emergencies that have ended and whose keys are known without the store.
const ENDED_KEYS_MAX: usize = 1_024;

/// Emergencies that were refused and are remembered.
const REFUSED_MAX: usize = 1_024;

/// Nonces in the file.
pub(super) const NOTED_MAX: usize = 1_024;

/// Records of a command in the journal that change nothing but its timeline; later ones are dropped.
pub(super) const EVIDENCE_PER_COMMAND_MAX: usize = 32;

impl Pending {
    /// What is in a file. Where that is not empty there may be something to tidy.
    pub(super) fn of(records: Vec<Record>, is_empty: bool) -> Self {
        let mut pending = Self { changes: u64::from(!is_empty), ..Self::default() };
        records.into_iter().for_each(|record| pending.add(record));
        pending
    }

    pub(super) fn add(&mut self, record: Record) {
        self.count += 1;
        self.changes += 1;
        match (record.id(), record) {
            (_, Record::Nonce { nonce }) => drop(self.noted.insert(nonce.key, nonce)),
            (Some(id), record) => {
                if let Record::Accept { new, .. } = &record {
                    self.goes_instead(&new.spec);
                }
                self.records.entry(id).or_default().push((self.count, record));
            }
            (None, Record::Accept { .. } | Record::Advance { .. }) => {}
        }
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

    pub(super) fn ask(&mut self, id: CommandId) {
        self.asked.insert(id, None);
    }

    /// The store has answered, whether or not anybody still waits for it.
    pub(super) fn answered(&mut self, spec: Arc<Spec>, answer: &Result<Accepted, StoreError>) {
        let id = spec.id;
        self.asked.remove(&id);
        match answer {
            Ok(Accepted::New) => self.stored(spec),
            Ok(
                Accepted::Elsewhere
                | Accepted::Replayed { .. }
                | Accepted::Conflict { .. }
                | Accepted::Busy { .. }
                | Accepted::NonceReplayed,
            ) => {}
            Err(_) => drop(self.unclear.insert(id)),
        }
    }

    /// The store may have written this change, and the journal has not.
    pub(super) fn is_unsaid(&mut self, advance: Advance) {
        self.unsaid.insert(advance.id, advance);
    }

    /// A change is in one of them.
    pub(super) fn is_said(&mut self, id: CommandId) {
        self.unsaid.remove(&id);
    }

    /// What the store may have written on the version that this was decided on.
    pub(super) fn unsaid(&self, advance: &Advance) -> Option<Advance> {
        let before = self.unsaid.get(&advance.id).filter(|before| before.seen == advance.seen)?;
        (before.life != advance.life).then(|| before.clone())
    }

    /// A command as it is in the store, brought to where the journal has it. Where the store `is_shared` also from where
    /// another server has it: the two are brought together when the journal is put on record, and not before.
    pub(super) fn catch_up(&self, command: &mut Command, is_shared: bool) {
        let records = self.records.get(&command.spec.id).into_iter().flatten().rev();
        let last = records.into_iter().find_map(|(_, record)| match record {
            Record::Advance { advance } => Some(&advance.life),
            Record::Accept { .. } | Record::Nonce { .. } => None,
        });
        let is_ahead = |life: &&Arc<Life>| is_shared || life.version > command.life.version;
        if let Some(life) = last.filter(is_ahead) {
            command.life = life.clone();
        }
    }

    /// The store was read, and has answered before: whatever came of it is clear now.
    pub(super) fn is_clear(&mut self, id: CommandId) {
        self.unclear.remove(&id);
    }

    /// Whether it is here, or may be in the store, as far as is known from here.
    pub(super) fn may_hold(&self, id: CommandId) -> bool {
        self.records.contains_key(&id)
            || self.asked.contains_key(&id)
            || self.unclear.contains(&id)
            || self.stored.contains_key(&id)
            || self.watched.contains(&id)
    }

    /// It was refused. Whoever asks again gets it going, not a second one beside it.
    pub(super) fn refuse(&mut self, nonce: Option<NonceUse>, new: NewCommand) {
        self.refused.push_back((new.spec.clone(), None));
        if self.refused.len() > REFUSED_MAX {
            self.refused.pop_front();
        }
        if let Some(asked) = self.asked.get_mut(&new.spec.id) {
            *asked = Some((nonce, new));
        }
    }

    /// Whatever was refused before under its key must not go as well, should the store have written it.
    fn goes_instead(&mut self, spec: &Spec) {
        let others = self.refused.iter_mut().filter(|(known, instead)| {
            known.id != spec.id && instead.is_none() && has_same_key(known, spec)
        });
        others.for_each(|(_, instead)| *instead = Some(spec.id));
    }

    /// The copy that went instead of a command that was refused.
    fn instead_of(&self, id: CommandId) -> Option<CommandId> {
        self.refused.iter().rev().find(|(known, _)| known.id == id)?.1
    }

    /// What a request is told whose key leads to a command that must not go any more: of the copy that went instead.
    pub(super) fn answer_instead(&self, known: &Accepted, spec: &Spec) -> Option<Accepted> {
        let Accepted::Replayed { id, .. } = known else { return None };
        let instead = self.instead_of(*id)?;
        let journalled = self.command(instead).map(|known| (known.spec, known.life.status()));
        let stored = self.stored.get(&instead).cloned();
        let ended = || self.ended_keys.iter().find(|(known, _)| known.id == instead).cloned();
        let (known, status) = journalled.or(stored).or_else(ended)?;
        Some(answer(&known, status, spec))
    }

    /// What was refused, may still be written, is the same request, and can still leave before its deadline.
    pub(super) fn refused(&self, spec: &Spec) -> Option<(Option<NonceUse>, NewCommand)> {
        let is_same = |(_, new): &&(Option<NonceUse>, NewCommand)| {
            has_same_key(&new.spec, spec)
                && self.instead_of(new.spec.id).is_none()
                && new.spec.fingerprint == spec.fingerprint
                && has_time(&new.spec, spec)
        };
        self.asked.values().flatten().find(is_same).cloned()
    }

    /// Whether the store may still write it.
    pub(super) fn is_asked(&self, id: CommandId) -> bool {
        self.asked.contains_key(&id)
    }

    /// A request is about to be answered with what came of another. Whether nobody else was with this nonce.
    pub(super) fn claim(&mut self, nonce: NonceUse) -> bool {
        !self.knows_nonce(&nonce) && self.claimed.insert(nonce.key)
    }

    /// The nonce is wherever it is to be.
    pub(super) fn unclaim(&mut self, nonce: &NonceUse) {
        self.claimed.remove(&nonce.key);
    }

    /// Remembers the nonce of a request that was answered without the store.
    pub(super) fn remember(&mut self, nonce: NonceUse) {
        self.nonces.insert(nonce);
    }

    /// Nonces that are remembered, so many at most.
    pub(super) fn remembered(&self, most: usize) -> Vec<NonceUse> {
        self.nonces.some(most)
    }

    /// The nonces in the file that the store may not have.
    pub(super) fn noted(&self) -> Vec<NonceUse> {
        self.noted.values().copied().collect()
    }

    pub(super) fn has_room_for_nonces(&self) -> bool {
        self.noted.len() < NOTED_MAX
    }

    pub(super) fn unsettled_nonces(&self) -> usize {
        self.noted.len() + self.nonces.len()
    }

    /// The store has this nonce.
    pub(super) fn has_nonce(&mut self, nonce: &NonceUse) {
        self.nonces.remove(&nonce.key);
        self.changes += u64::from(self.noted.remove(&nonce.key).is_some());
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// A command that is in the store.
    pub(super) fn watch(&mut self, command: &Command) {
        let id = command.spec.id;
        if command.spec.risk != Risk::Emergency {
            return;
        }
        if command.life.needs_care() {
            self.watched.insert(id);
        } else {
            self.has_ended(id);
        }
    }

    /// Nobody looks after an emergency any more. What its device still says of it must not wait for the store either: a new
    /// emergency may wait behind it.
    fn has_ended(&mut self, id: CommandId) {
        self.watched.remove(&id);
        self.unsaid.remove(&id);
        self.ended.insert(id);
        if let Some(known) = self.stored.remove(&id) {
            self.ended_keys.push_back(known);
            if self.ended_keys.len() > ENDED_KEYS_MAX {
                self.ended_keys.pop_front();
            }
        }
    }

    /// The store has accepted an emergency.
    pub(super) fn stored(&mut self, spec: Arc<Spec>) {
        self.watched.insert(spec.id);
        self.stored.insert(spec.id, (spec, Status::Accepted));
    }

    /// The store has saved a change of an emergency.
    pub(super) fn saved(&mut self, id: CommandId, life: &Life) {
        if let Some((_, status)) = self.stored.get_mut(&id) {
            *status = life.status();
        }
        if !life.needs_care() {
            self.has_ended(id);
        }
    }

    /// The oldest commands but for these, so many at most.
    pub(super) fn oldest(&self, most: usize, but: &BTreeSet<CommandId>) -> Vec<Unsettled> {
        let others = self.records.iter().filter(|(id, _)| !but.contains(id));
        let unsettled = others.filter_map(|(id, records)| {
            let last = records.last()?.0;
            let records = records.iter().map(|(_, record)| record.clone()).collect();
            Some(Unsettled { id: *id, records, last })
        });
        unsettled.take(most).collect()
    }

    /// The store cannot take a command for what it holds already. Answers whether that is news.
    pub(super) fn pass_over(&mut self, id: CommandId) -> bool {
        self.passed_over.insert(id)
    }

    /// What must stay in the file, as far as nothing else is left to be settled and the file holds more than that. With a
    /// number for [`Pending::tidied`].
    pub(super) fn to_tidy(&self) -> Option<(Vec<Record>, u64)> {
        let is_left = self.records.keys().all(|id| self.passed_over.contains(id));
        let nonces = self.noted.values().map(|nonce| Record::Nonce { nonce: *nonce });
        let records = self.records.values().flatten().map(|(_, record)| record.clone());
        (is_left && self.changes != self.tidied_at)
            .then(|| (records.chain(nonces).collect(), self.changes))
    }

    /// The file holds nothing more than it had to at this number.
    pub(super) fn tidied(&mut self, changes: u64) {
        self.tidied_at = changes;
    }

    /// The records of a command up to this number are in the store. Answers whether these were all.
    pub(super) fn settled(&mut self, id: CommandId, last: u64) -> bool {
        let known = self.command(id).map(|command| (command.spec.clone(), command.life.status()));
        let Some(records) = self.records.get_mut(&id) else { return false };
        let has_ended = records.last().is_some_and(|(_, record)| record.ends());
        records.retain(|(number, _)| *number > last);
        if !records.is_empty() {
            return false;
        }
        self.records.remove(&id);
        self.passed_over.remove(&id);
        self.unclear.remove(&id);
        self.changes += 1;
        self.stored.extend(known.map(|known| (id, known)));
        if has_ended {
            self.has_ended(id);
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
            Some((_, last)) if last.version() == Some(seen) => Way::Journal,
            Some(_) => Way::Lost,
            None if self.watched.contains(&id) || self.ended.contains(id) => Way::Either,
            None => Way::Store,
        }
    }

    /// Whether a command has no room in the journal for more that changes nothing but its timeline.
    pub(super) fn is_full_of_evidence(&self, id: CommandId) -> bool {
        let records = self.records.get(&id).map_or(&[][..], Vec::as_slice);
        let evidence = records.iter().filter(|(_, record)| record.is_evidence());
        evidence.count() >= EVIDENCE_PER_COMMAND_MAX
    }

    /// A command that is in the journal whole, as it stands.
    pub(super) fn command(&self, id: CommandId) -> Option<Command> {
        let records = self.records.get(&id)?;
        let Some((_, Record::Accept { new, .. })) = records.first() else { return None };
        let life = records.iter().rev().find_map(|(_, record)| match record {
            Record::Advance { advance } => Some(advance.life.clone()),
            Record::Accept { .. } | Record::Nonce { .. } => None,
        });
        Some(Command { spec: new.spec.clone(), life: life.unwrap_or_else(|| new.life.clone()) })
    }

    /// What the journal holds of a timeline, and whether that is all of it.
    pub(super) fn timeline(&self, id: CommandId) -> (bool, Vec<Entry>) {
        let records = self.records.get(&id).map_or(&[][..], Vec::as_slice);
        let entries = records.iter().flat_map(|(_, record)| match record {
            Record::Accept { new, .. } => new.entries.as_slice(),
            Record::Advance { advance } => &advance.entries,
            Record::Nonce { .. } => &[],
        });
        (matches!(records.first(), Some((_, Record::Accept { .. }))), entries.cloned().collect())
    }

    /// Whether the request of an emergency in the journal had this nonce, or one that was answered meanwhile.
    pub(super) fn knows_nonce(&self, nonce: &NonceUse) -> bool {
        self.nonces.contains(&nonce.key)
            || self.noted.contains_key(&nonce.key)
            || self.claimed.contains(&nonce.key)
            || self.records.values().flatten().any(|(_, record)| match record {
                Record::Accept { nonce: spent, .. } => {
                    spent.is_some_and(|spent| spent.key == nonce.key)
                }
                Record::Advance { .. } | Record::Nonce { .. } => false,
            })
    }

    /// What the journal knows of a request's key.
    pub(super) fn journalled_key(&self, spec: &Spec) -> Option<Accepted> {
        let known = self.records.keys().find_map(|id| {
            let command = self.command(*id)?;
            has_same_key(&command.spec, spec).then_some(command)
        })?;
        Some(answer(&known.spec, known.life.status(), spec))
    }

    /// What in the journal speaks against a new command.
    pub(super) fn refusal(&self, new: &NewCommand) -> Option<Accepted> {
        self.journalled_key(&new.spec).or_else(|| self.motion_in_the_way(new))
    }

    /// A movement in the journal that is not over. As in the store: where either does not know its aircraft, the same
    /// gateway counts as the same aircraft, and nothing stands in the way of an emergency.
    fn motion_in_the_way(&self, new: &NewCommand) -> Option<Accepted> {
        let spec = &new.spec;
        if !(spec.starts_motion || new.life.holds_motion) || spec.risk == Risk::Emergency {
            return None;
        }
        let is_same_aircraft = |other: &Spec| match (&spec.aircraft, &other.aircraft) {
            (Some(aircraft), Some(other)) => aircraft == other,
            (None, _) | (_, None) => spec.gateway == other.gateway,
        };
        let in_the_way = self.records.keys().find_map(|id| {
            let known = self.command(*id)?;
            let is_in_the_way = known.life.holds_motion
                && known.spec.tenant == spec.tenant
                && is_same_aircraft(&known.spec);
            is_in_the_way.then_some(known.spec)
        })?;
        Some(Accepted::Busy { id: in_the_way.id, method: in_the_way.method.clone() })
    }

    /// The same of a key, and what the store has been heard of.
    pub(super) fn same_key(&self, spec: &Spec) -> Option<Accepted> {
        self.journalled_key(spec).or_else(|| {
            let is_same = |(known, _): &&(Arc<Spec>, Status)| {
                has_same_key(known, spec) && self.instead_of(known.id).is_none()
            };
            let (known, status) = self.stored.values().chain(&self.ended_keys).find(is_same)?;
            Some(answer(known, *status, spec))
        })
    }
}

fn has_same_key(known: &Spec, spec: &Spec) -> bool {
    known.tenant == spec.tenant && known.idempotency_key == spec.idempotency_key
}

/// Whether what was asked for before can still be in the journal ahead of its deadline, with the store and the disk as slow as
/// they may be, at the time that a new request came. Beyond that the new one goes for itself.
fn has_time(known: &Spec, spec: &Spec) -> bool {
    let came = Duration::from_millis(spec.deadline.mono.as_millis()).saturating_sub(spec.timeout);
    let ends = Duration::from_millis(known.deadline.mono.as_millis());
    known.deadline.boot == spec.deadline.boot && came + STORE_PATIENCE + WRITE_PATIENCE < ends
}

/// What a request is told whose key was used before.
fn answer(known: &Spec, status: Status, spec: &Spec) -> Accepted {
    let id = known.id;
    match known.fingerprint == spec.fingerprint {
        true => Accepted::Replayed { id, accepted_at: known.accepted_at, status },
        false => Accepted::Conflict { id },
    }
}
