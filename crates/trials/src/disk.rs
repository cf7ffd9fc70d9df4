//! What is durable, and what must hold of it after every write.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use utmos_core::{
    command::{Command, Life, Phase, Spec},
    evidence::Entry,
    id::{CommandId, TenantId},
    method::Risk,
    ports::{Accepted, Advance, Advanced, NewCommand, Nonce, Store, StoreError},
    signing::NonceUse,
    time::Timestamp,
};

use crate::{
    beside::Twin,
    mutation::Mutation,
    replicas::{Replicas, is_claim},
};

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
    /// It can be neither read nor changed any more, on purpose.
    pub(crate) is_damaged: bool,
}

/// The disk.
#[derive(Default)]
pub(crate) struct Disk {
    /// A real store that is asked the same.
    twin: Option<Twin>,
    /// The store beside refuses something just now.
    is_upset: bool,
    pub(crate) records: BTreeMap<CommandId, Record>,
    keys: BTreeMap<(TenantId, String), CommandId>,
    nonces: BTreeMap<[u8; 16], Timestamp>,
    newest: Option<Timestamp>,
    pub(crate) replicas: Replicas,
    mutation: Option<Mutation>,
    /// Commands whose nonce was spent when a journal put them on record.
    spent_before: BTreeSet<CommandId>,
    /// What should not have been written.
    pub(crate) violations: Vec<String>,
}

/// Whether two movements may not be at one time: those of one aircraft, and where either does not know its aircraft, those
/// of one gateway.
pub(crate) fn is_one_motion(one: &Spec, other: &Spec) -> bool {
    one.tenant == other.tenant
        && match (&one.aircraft, &other.aircraft) {
            (Some(aircraft), Some(other)) => aircraft == other,
            (None, _) | (_, None) => one.gateway == other.gateway,
        }
}

/// When a write happens, and by whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) elapsed: u64,
    pub(crate) life: u64,
}

impl Disk {
    pub(crate) fn new(mutation: Option<Mutation>, twin: Option<Twin>) -> Self {
        let replicas = Replicas::new(mutation);
        Self { mutation, twin, replicas, ..Self::default() }
    }

    pub(crate) fn accept(
        &mut self,
        nonce: Option<NonceUse>,
        new: NewCommand,
        by_journal: bool,
        at: At,
    ) -> Accepted {
        let asked = self.twin.is_some().then(|| new.clone());
        let (id, is_urgent) = (new.spec.id, new.spec.risk == Risk::Emergency);
        let ask = |new: Option<NewCommand>| {
            move |store: Arc<dyn Store>| async move {
                match new {
                    Some(new) => store.accept(nonce, new).await,
                    None => Err(StoreError::Unavailable(String::new())),
                }
            }
        };
        if let Some(twin) = self.twin.as_ref().filter(|_| self.is_upset) {
            // Nobody is told of it.
            let Some(written) = twin.write_upset(ask(asked)) else {
                return Accepted::NonceReplayed;
            };
            let answer = self.take(nonce, new, by_journal, at);
            self.must_agree(|| format!("accepting {id} while it is upset"), &answer, &written);
            return answer;
        }
        let answer = self.take(nonce, new, by_journal, at);
        if let (Some(twin), Some(new)) = (&self.twin, asked) {
            let what = format!("accepting {id} with {nonce:?}");
            twin.write(what, is_urgent, answer.clone(), ask(Some(new)));
        }
        answer
    }

    fn take(
        &mut self,
        nonce: Option<NonceUse>,
        mut new: NewCommand,
        by_journal: bool,
        at: At,
    ) -> Accepted {
        if let Some(nonce) = nonce
            && self.remember(nonce) == Nonce::Replayed
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
        let (id, gateway, urgent) = (spec.id, spec.gateway.clone(), spec.risk == Risk::Emergency);
        let is_handed = !urgent && self.replicas.is_to_hand(at.life, &gateway);
        if is_handed {
            new.life = Arc::new(Life::accepted(&new.spec));
            new.entries.truncate(1);
        }
        self.replicas.accepted(at.life, id, &gateway, urgent);
        let spec = &new.spec;
        self.note(spec.accepted_at.max(new.life.updated_at));
        new.entries.iter().for_each(|entry| self.note(entry.at));
        self.keys.insert(key, spec.id);
        let record = Record {
            command: Command { spec: spec.clone(), life: new.life },
            entries: new.entries,
            row: self.records.len(),
            accepted: at.elapsed,
            by_journal,
            ended: None,
            ended_by: None,
            is_damaged: false,
        };
        self.records.insert(record.command.spec.id, record);
        if is_handed { Accepted::Elsewhere } else { Accepted::New }
    }

    /// What would become of a command.
    pub(crate) fn foresee(&self, new: &NewCommand) -> Accepted {
        let answer = self.refusal(new).unwrap_or(Accepted::New);
        if let Some(twin) = &self.twin {
            let what = || format!("foreseeing {}", new.spec.id);
            twin.compare(what, &answer, |store| {
                let new = new.clone();
                async move { store.foresee(new).await }
            });
        }
        answer
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
            record.command.life.holds_motion && is_one_motion(&record.command.spec, spec)
        };
        self.records.values().find(holds).map(|record| record.command.spec.id)
    }

    pub(crate) fn advance(&mut self, advance: Advance, at: At) -> Advanced {
        let asked = self.twin.is_some().then(|| advance.clone());
        let (id, seen) = (advance.id, advance.seen);
        let record = self.records.get(&id);
        let is_urgent = record.is_some_and(|record| record.command.spec.risk == Risk::Emergency);
        let ask = |advance: Option<Advance>| {
            move |store: Arc<dyn Store>| async move {
                match advance {
                    Some(advance) => store.advance(advance).await,
                    None => Err(StoreError::Unavailable(String::new())),
                }
            }
        };
        if let Some(twin) = self.twin.as_ref().filter(|_| self.is_upset) {
            let Some(written) = twin.write_upset(ask(asked)) else { return Advanced::Lost };
            let answer = self.change(advance, at);
            self.must_agree(|| format!("moving {id} while it is upset"), &answer, &written);
            return answer;
        }
        let answer = self.change(advance, at);
        if let (Some(twin), Some(advance)) = (&self.twin, asked) {
            let what = format!("moving {id} from {seen:?}");
            twin.write(what, is_urgent, answer, ask(Some(advance)));
        }
        answer
    }

    fn change(&mut self, advance: Advance, at: At) -> Advanced {
        if let Some(refused) = self.claim_refused(&advance, at) {
            return refused;
        }
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
        for entry in advance.entries.iter() {
            if entry.from != status {
                self.violations.push(format!("{} has a gap in its timeline", advance.id));
            }
            status = entry.to;
        }
        let after = if moves { advance.life.status() } else { before.status() };
        if status != after {
            self.violations.push(format!("{} changed its state without a line", advance.id));
        }
        let noted: Vec<Timestamp> = advance.entries.iter().map(|entry| entry.at).collect();
        record.entries.extend(advance.entries.iter().cloned());
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
        noted.into_iter().for_each(|at| self.note(at));
        Advanced::Yes
    }

    /// Why a claim of one of several servers does not count.
    fn claim_refused(&self, advance: &Advance, at: At) -> Option<Advanced> {
        let known = self.records.get(&advance.id)?;
        let spec = &known.command.spec;
        let is_claim = is_claim(&advance.entries)
            && known.command.life.version == advance.seen
            && spec.risk != Risk::Emergency;
        if !is_claim || !self.replicas.has_joined(at.life) {
            return None;
        }
        if self.replicas.is_elsewhere(at.life, &spec.gateway) {
            return Some(Advanced::Elsewhere);
        }
        let emergency = self.emergency_since(spec).filter(|_| spec.risk == Risk::Motion);
        emergency.map(Advanced::Preempted)
    }

    pub(crate) fn spend(&mut self, nonce: NonceUse) -> Nonce {
        let ask = move |store: Arc<dyn Store>| async move { store.spend_nonce(nonce).await };
        if let Some(twin) = self.twin.as_ref().filter(|_| self.is_upset) {
            let Some(written) = twin.write_upset(ask) else { return Nonce::Replayed };
            let answer = self.remember(nonce);
            self.must_agree(|| format!("spending {nonce:?} while it is upset"), &answer, &written);
            return answer;
        }
        let answer = self.remember(nonce);
        if let Some(twin) = &self.twin {
            twin.write(format!("spending {nonce:?}"), false, answer, ask);
        }
        answer
    }

    /// Whether a real store is beside it.
    pub(crate) fn has_twin(&self) -> bool {
        self.twin.is_some()
    }

    /// Writes of one group: the store beside is asked for all of them at once.
    pub(crate) fn as_one<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        if let Some(twin) = &self.twin {
            twin.depart();
        }
        let done = work(self);
        if let Some(twin) = &self.twin {
            twin.arrive();
        }
        done
    }

    /// Writes while the store beside is upset: what that refuses is not written.
    pub(crate) fn while_upset<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let upset = |disk: &mut Self, is_upset| {
            disk.is_upset = is_upset;
            disk.twin.iter().for_each(|twin| twin.upset(is_upset));
        };
        upset(self, true);
        let done = work(self);
        upset(self, false);
        done
    }

    fn must_agree<T: PartialEq + std::fmt::Debug>(
        &mut self,
        what: impl FnOnce() -> String,
        answer: &T,
        other: &T,
    ) {
        if answer != other {
            let what = what();
            self.violations.push(format!(
                "of {what}, the trial's store says {answer:?}, the one beside {other:?}"
            ));
        }
    }

    /// What the store beside refused while it is upset and what it wrote there, and how much it did at once.
    pub(crate) fn figures_beside(&self) -> (usize, usize, usize) {
        self.twin.as_ref().map(Twin::figures).unwrap_or_default()
    }

    /// How many pages of the store beside power cuts have left half written.
    pub(crate) fn pages_torn_beside(&self) -> usize {
        self.twin.as_ref().map_or(0, Twin::pages_torn)
    }

    fn remember(&mut self, nonce: NonceUse) -> Nonce {
        match self.nonces.insert(nonce.key, nonce.expires_at) {
            None => Nonce::Spent,
            Some(before) => {
                self.nonces.insert(nonce.key, before);
                Nonce::Replayed
            }
        }
    }

    /// What the next process finds that was never on the disk.
    pub(crate) fn server_died(&mut self, power_too: bool) {
        if let Some(twin) = &mut self.twin {
            twin.die(power_too);
        }
        match self.mutation {
            Some(Mutation::NonceInMemoryOnly) => self.nonces.clear(),
            Some(Mutation::KeyInMemoryOnly) => self.keys.clear(),
            Some(_) | None => {}
        }
    }

    /// A command as it stands.
    pub(crate) fn command(&self, id: CommandId) -> Option<Command> {
        let answer = self.records.get(&id).map(|record| record.command.clone());
        if let Some(twin) = &self.twin {
            let what = || format!("{id}");
            twin.compare(what, &answer, |store| async move { store.command(id).await });
        }
        answer
    }

    /// Its lines.
    pub(crate) fn timeline(&self, id: CommandId) -> Vec<Entry> {
        let entries = self.records.get(&id).map(|record| record.entries.clone());
        let answer = entries.unwrap_or_default();
        if let Some(twin) = &self.twin {
            let what = || format!("the timeline of {id}");
            twin.compare(what, &answer, |store| async move { store.timeline(id).await });
        }
        answer
    }

    /// Those somebody must look after, as the next process reads them.
    pub(crate) fn open(&self, after: Option<CommandId>, limit: usize) -> Vec<Command> {
        let answer = self.in_need(after, limit);
        if let Some(twin) = self.twin.as_ref().filter(|_| self.damaged() == 0) {
            let what = || format!("open commands after {after:?}");
            twin.compare(
                what,
                &answer,
                |store| async move { store.open_commands(after, limit).await },
            );
        }
        answer
    }

    fn in_need(&self, after: Option<CommandId>, limit: usize) -> Vec<Command> {
        if self.mutation == Some(Mutation::OpenForgottenOnRestart) {
            return Vec::new();
        }
        let open = self.records.values().filter(|record| !record.is_damaged);
        let open = open.map(|record| &record.command);
        let open = open
            .filter(|command| command.life.needs_care() && Some(command.spec.id) > after)
            .take(limit)
            .cloned();
        open.map(|mut command| {
            match self.mutation {
                Some(Mutation::TimerLostOnRestart) => Arc::make_mut(&mut command.life).due = None,
                Some(Mutation::UnclearFoundAsWaiting) if command.life.phase == Phase::Sending => {
                    Arc::make_mut(&mut command.life).phase = Phase::Waiting;
                }
                Some(_) | None => {}
            }
            command
        })
        .collect()
    }

    pub(crate) fn knows(&self, nonce: &NonceUse) -> bool {
        let answer = self.nonces.contains_key(&nonce.key);
        if let Some(twin) = &self.twin {
            let what = || format!("whether {nonce:?} is known");
            twin.compare(what, &answer, |store| async move { Ok(store.knows_nonce(nonce)) });
        }
        answer
    }

    pub(crate) fn emergency_after(&self, before: &Spec) -> Option<CommandId> {
        let answer = self.emergency_since(before);
        if let Some(twin) = &self.twin {
            let what = || format!("whether there is an emergency after {}", before.id);
            twin.compare(what, &answer, |store| async move { store.emergency_after(before).await });
        }
        answer
    }

    pub(crate) fn emergencies_after(&self, specs: &[Arc<Spec>]) -> BTreeMap<CommandId, CommandId> {
        let since = |spec: &Arc<Spec>| Some((spec.id, self.emergency_since(spec)?));
        let answer = specs.iter().filter_map(since).collect();
        if let Some(twin) = &self.twin {
            let what = || format!("which of {} commands have an emergency after them", specs.len());
            twin.compare(
                what,
                &answer,
                |store| async move { store.emergencies_after(specs).await },
            );
        }
        answer
    }

    fn emergency_since(&self, before: &Spec) -> Option<CommandId> {
        let row = self.records.get(&before.id)?.row;
        if self.mutation == Some(Mutation::EmergencyForgottenOnRestart) {
            return None;
        }
        let is_it = |record: &&Record| {
            let spec = &record.command.spec;
            spec.risk == Risk::Emergency && spec.shares_aircraft_with(before) && record.row > row
        };
        // The first of the gateway, and where there is none, of the aircraft.
        let place = |record: &&Record| (record.command.spec.gateway != before.gateway, record.row);
        let first = self.records.values().filter(is_it).min_by_key(place);
        first.map(|record| record.command.spec.id)
    }

    pub(crate) fn met_spent_nonce(&mut self, id: CommandId) {
        self.spent_before.insert(id);
    }

    pub(crate) fn has_met_spent_nonce(&self, id: CommandId) -> bool {
        self.spent_before.contains(&id)
    }

    /// Whether this mutation is on.
    pub(crate) fn is_mutated(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Damages the row of the newest emergency that has not ended.
    pub(crate) fn damage_newest_emergency(&mut self) -> Option<CommandId> {
        let is_it = |record: &&mut Record| {
            let command = &record.command;
            command.spec.risk == Risk::Emergency && !command.life.phase.has_ended()
        };
        let found = self.records.values_mut().filter(is_it).max_by_key(|record| record.row)?;
        found.is_damaged = true;
        Some(found.command.spec.id)
    }

    pub(crate) fn damaged(&self) -> usize {
        self.records.values().filter(|record| record.is_damaged).count()
    }

    /// Whether the row of this command, or the one its key belongs to, cannot be read.
    pub(crate) fn meets_damage(&self, id: CommandId, key: Option<(TenantId, &str)>) -> bool {
        let by_key =
            key.and_then(|(tenant, key)| self.keys.get(&(tenant, key.to_owned())).copied());
        let is_damaged =
            |id: CommandId| self.records.get(&id).is_some_and(|record| record.is_damaged);
        is_damaged(id) || by_key.is_some_and(is_damaged)
    }

    pub(crate) fn newest(&self) -> Option<Timestamp> {
        if let Some(twin) = &self.twin {
            let what = || "the newest record".to_owned();
            twin.compare(what, &self.newest, |store| async move { store.newest_record().await });
        }
        self.newest
    }

    /// Whether something was written that should not have been, or the store beside was of another opinion.
    pub(crate) fn went_wrong(&self) -> bool {
        !self.violations.is_empty()
            || self.twin.as_ref().is_some_and(|twin| !twin.found().is_empty())
    }

    /// What it noted of that so far.
    pub(crate) fn found(&self) -> Vec<String> {
        let beside = self.twin.as_ref().map(Twin::found).unwrap_or_default();
        [self.violations.clone(), beside].concat()
    }

    /// At the end, everything that is on record is compared once more, as a process finds it that starts then.
    pub(crate) fn compare_all(&mut self) {
        let Some(twin) = &mut self.twin else { return };
        twin.die(false);
        self.newest();
        self.open(None, usize::MAX >> 32);
        for id in self.records.keys() {
            self.command(*id);
            self.timeline(*id);
        }
    }

    fn note(&mut self, at: Timestamp) {
        self.newest = self.newest.max(Some(at));
    }
}
