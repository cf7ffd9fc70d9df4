//! What is durable, and what must hold of it after every write.

use std::collections::BTreeMap;

use utmos_core::{
    command::{Command, Phase, Spec},
    evidence::Entry,
    id::{CommandId, TenantId},
    method::Risk,
    ports::{Accepted, Advance, Advanced, NewCommand, Nonce},
    signing::NonceUse,
    time::Timestamp,
};

use crate::mutation::Mutation;

/// A command on record.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) command: Command,
    pub(crate) entries: Vec<Entry>,
    /// The how-many-eth it is.
    pub(crate) row: usize,
    /// When it was written, in milliseconds of the trial.
    pub(crate) accepted: u64,
    /// It was put on record from a journal, having left perhaps.
    pub(crate) by_journal: bool,
    pub(crate) ended: Option<u64>,
    /// Which run of the server wrote its end.
    pub(crate) ended_by: Option<u64>,
}

/// The disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) records: BTreeMap<CommandId, Record>,
    keys: BTreeMap<(TenantId, String), CommandId>,
    nonces: BTreeMap<[u8; 16], Timestamp>,
    newest: Option<Timestamp>,
    mutation: Option<Mutation>,
    /// What should not have been written.
    pub(crate) violations: Vec<String>,
}

/// When a write happens, and by whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) elapsed: u64,
    pub(crate) life: u64,
}

impl Disk {
    pub(crate) fn new(mutation: Option<Mutation>) -> Self {
        Self { mutation, ..Self::default() }
    }

    pub(crate) fn accept(
        &mut self,
        nonce: Option<NonceUse>,
        new: NewCommand,
        by_journal: bool,
        at: At,
    ) -> Accepted {
        if let Some(nonce) = nonce
            && self.spend(nonce) == Nonce::Replayed
        {
            return Accepted::NonceReplayed;
        }
        if let Some(refusal) = self.refusal(&new) {
            return refusal;
        }
        let spec = &new.spec;
        let in_the_way = self.motion_in_the_way(&new);
        if let Some(other) = in_the_way {
            self.violations.push(format!("{} was accepted while {other} was running", spec.id));
        }
        let key = (spec.tenant, spec.idempotency_key.clone());
        let same = self.records.values().find(|record| {
            let known = &record.command.spec;
            (known.tenant, &known.idempotency_key) == (key.0, &key.1)
        });
        if let Some(same) = same {
            self.violations.push(format!("{} and {} have one key", same.command.spec.id, spec.id));
        }
        self.note(spec.accepted_at.max(new.life.updated_at));
        self.keys.insert(key, spec.id);
        let record = Record {
            command: Command { spec: spec.clone(), life: new.life },
            entries: new.entries,
            row: self.records.len(),
            accepted: at.elapsed,
            by_journal,
            ended: None,
            ended_by: None,
        };
        self.records.insert(record.command.spec.id, record);
        Accepted::New
    }

    /// What speaks against a command.
    pub(crate) fn refusal(&self, new: &NewCommand) -> Option<Accepted> {
        let spec = &new.spec;
        let before = self.keys.get(&(spec.tenant, spec.idempotency_key.clone()));
        if let Some(known) = before.and_then(|id| self.records.get(id)) {
            let known = &known.command;
            let id = known.spec.id;
            return Some(match known.spec.fingerprint == spec.fingerprint {
                true => Accepted::Replayed {
                    id,
                    accepted_at: known.spec.accepted_at,
                    status: known.life.status(),
                },
                false => Accepted::Conflict { id },
            });
        }
        if self.mutation == Some(Mutation::MotionsUnchecked) {
            return None;
        }
        let id = self.motion_in_the_way(new)?;
        let method = self.records.get(&id)?.command.spec.method.clone();
        Some(Accepted::Busy { id, method })
    }

    fn motion_in_the_way(&self, new: &NewCommand) -> Option<CommandId> {
        let spec = &new.spec;
        if !spec.starts_motion || spec.risk == Risk::Emergency {
            return None;
        }
        let holds = |record: &&Record| {
            record.command.life.holds_motion && record.command.spec.shares_aircraft_with(spec)
        };
        self.records.values().find(holds).map(|record| record.command.spec.id)
    }

    pub(crate) fn advance(&mut self, advance: Advance, at: At) -> Advanced {
        let Some(record) = self.records.get_mut(&advance.id) else { return Advanced::Lost };
        let before = &record.command.life;
        let moves = advance.life.version != advance.seen;
        let is_compared = match self.mutation {
            Some(Mutation::NoCompareAndSet) => false,
            Some(Mutation::EvidenceNotCompared) => moves,
            Some(_) | None => true,
        };
        if is_compared && before.version != advance.seen {
            return Advanced::Lost;
        }
        if before.phase.has_ended() && moves && before.phase != advance.life.phase {
            self.violations.push(format!(
                "{} had ended as {:?} and became {:?}",
                advance.id, before.phase, advance.life.phase
            ));
        }
        if moves && advance.life.version <= before.version {
            self.violations.push(format!("{} went back to an older version", advance.id));
        }
        let mut status = before.status();
        for entry in &advance.entries {
            if entry.from != status {
                self.violations.push(format!("{} has a gap in its timeline", advance.id));
            }
            status = entry.to;
        }
        let after = if moves { advance.life.status() } else { before.status() };
        if status != after {
            self.violations.push(format!("{} changed its state without a line", advance.id));
        }
        record.entries.extend(advance.entries);
        if moves {
            let has_just_ended = !before.phase.has_ended() && advance.life.phase.has_ended();
            if has_just_ended {
                record.ended = Some(at.elapsed);
                record.ended_by = Some(at.life);
            }
            let updated_at = advance.life.updated_at;
            record.command.life = advance.life;
            self.note(updated_at);
        }
        Advanced::Yes
    }

    pub(crate) fn spend(&mut self, nonce: NonceUse) -> Nonce {
        match self.nonces.insert(nonce.key, nonce.expires_at) {
            None => Nonce::Spent,
            Some(before) => {
                self.nonces.insert(nonce.key, before);
                Nonce::Replayed
            }
        }
    }

    /// What the next process finds that was never on the disk.
    pub(crate) fn server_died(&mut self) {
        match self.mutation {
            Some(Mutation::NonceInMemoryOnly) => self.nonces.clear(),
            Some(Mutation::KeyInMemoryOnly) => self.keys.clear(),
            Some(_) | None => {}
        }
    }

    /// Those somebody must look after, as the next process reads them.
    pub(crate) fn open(&self, after: Option<CommandId>, limit: usize) -> Vec<Command> {
        if self.mutation == Some(Mutation::OpenForgottenOnRestart) {
            return Vec::new();
        }
        let open = self.records.values().map(|record| &record.command);
        let open = open
            .filter(|command| command.life.needs_care() && Some(command.spec.id) > after)
            .take(limit)
            .cloned();
        open.map(|mut command| {
            match self.mutation {
                Some(Mutation::TimerLostOnRestart) => command.life.due = None,
                Some(Mutation::UnclearFoundAsWaiting) if command.life.phase == Phase::Sending => {
                    command.life.phase = Phase::Waiting;
                }
                Some(_) | None => {}
            }
            command
        })
        .collect()
    }

    pub(crate) fn knows(&self, nonce: &NonceUse) -> bool {
        self.nonces.contains_key(&nonce.key)
    }

    pub(crate) fn emergency_after(&self, before: &Spec) -> Option<CommandId> {
        let row = self.records.get(&before.id)?.row;
        if self.mutation == Some(Mutation::EmergencyForgottenOnRestart) {
            return None;
        }
        let is_it = |record: &&Record| {
            let spec = &record.command.spec;
            spec.risk == Risk::Emergency && spec.shares_aircraft_with(before) && record.row > row
        };
        self.records.values().find(is_it).map(|record| record.command.spec.id)
    }

    pub(crate) fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    fn note(&mut self, at: Timestamp) {
        self.newest = self.newest.max(Some(at));
    }
}
