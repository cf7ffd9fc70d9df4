//! Several servers on one disk: who is a member, who holds what, and what they hand to each other.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use utmos_core::{
    evidence::{Entry, Proof},
    id::{CommandId, GatewaySn},
    method::Risk,
    ports::{Joined, ReplicaStore, StoreError},
    replica::{Handed, Member, News, ReplicaId, Roll, Shard},
    time::Timestamp,
};

use crate::{disk::At, mutation::Mutation, store::TrialStore, world::World};

#[cfg(test)]
mod tests;

/// What is durable of it.
#[derive(Default)]
pub(crate) struct Replicas {
    roll: Roll,
    /// As which member each run of a server joined.
    runs: BTreeMap<u64, ReplicaId>,
    /// Since when each is a member, in milliseconds of the trial.
    joined_at: BTreeMap<ReplicaId, u64>,
    accepted_by: BTreeMap<CommandId, ReplicaId>,
    handed: Vec<(Shard, Handed)>,
    mutation: Option<Mutation>,
}

impl Replicas {
    pub(crate) fn new(mutation: Option<Mutation>) -> Self {
        Self { mutation, ..Self::default() }
    }

    /// Whether a run of a server that has joined does not hold a gateway.
    pub(crate) fn is_elsewhere(&self, life: u64, gateway: &GatewaySn) -> bool {
        self.mutation != Some(Mutation::ClaimsNotFenced) && self.holds_not(life, gateway)
    }

    /// Whether a run of a server that has joined is not whom the others know to hold a gateway, whatever is asked of it.
    pub(crate) fn holds_not(&self, life: u64, gateway: &GatewaySn) -> bool {
        let run = self.runs.get(&life);
        run.is_some_and(|id| self.roll.holders.get(&Shard::of(gateway)) != Some(id))
    }

    /// Whether a command that is no emergency goes to the holder of its gateway: another server, or this one, where others
    /// before it have not been taken in.
    pub(crate) fn is_to_hand(&self, life: u64, gateway: &GatewaySn) -> bool {
        let shard = Shard::of(gateway);
        let is_before = |(of, one): &(Shard, Handed)| *of == shard && !one.urgent;
        self.has_joined(life)
            && (self.is_elsewhere(life, gateway) || self.handed.iter().any(is_before))
    }

    /// Whether a run of a server is one of several.
    pub(crate) fn has_joined(&self, life: u64) -> bool {
        self.runs.contains_key(&life)
    }

    pub(crate) fn accepted(&mut self, life: u64, id: CommandId, gateway: &GatewaySn, urgent: bool) {
        let Some(run) = self.runs.get(&life).copied() else { return };
        self.accepted_by.insert(id, run);
        let is_handed = match urgent {
            true => self.is_elsewhere(life, gateway),
            false => self.is_to_hand(life, gateway),
        };
        if is_handed && self.mutation != Some(Mutation::HandedForgotten) {
            self.handed.push((Shard::of(gateway), Handed { id, urgent }));
        }
    }

    fn is_member(&self, id: ReplicaId) -> bool {
        self.roll.members.iter().any(|member| member.id == id)
    }

    fn remove(&mut self, id: ReplicaId) {
        self.roll.members.retain(|member| member.id != id);
        self.roll.holders.retain(|_, holder| *holder != id);
    }

    /// Since when a run of a server stands beside another; `None` where it is alone, or no member.
    pub(crate) fn beside_since(&self, life: u64) -> Option<u64> {
        let own = self.runs.get(&life).filter(|id| self.is_member(**id))?;
        let others = self.roll.members.iter().map(|member| member.id).filter(|id| id != own);
        let first = others.filter_map(|id| self.joined_at.get(&id)).min()?;
        Some(*first.max(self.joined_at.get(own)?))
    }

    /// As a server reads it, with what the store's own clock shows where servers have clocks that may be apart from it.
    fn roll(&self, world: &World, server: u8) -> Roll {
        let is_told_by_the_wall =
            self.mutation == Some(Mutation::ToldByTheWall) && !world.is_clock_off(server);
        let at = || match is_told_by_the_wall {
            true => Timestamp::from_millis(
                world.clock.wall() + world.clock.still_ahead(world.ahead(server)),
            ),
            false => Timestamp::from_millis(world.clock.wall()),
        };
        let mut roll = self.roll.clone();
        roll.members.sort_unstable_by_key(|member| member.id);
        Roll { at: (!world.plan.clocks_apart.is_empty()).then(at), ..roll }
    }

    /// Answers why it is no member.
    fn join(&mut self, at: At, mut member: Member) -> Option<Joined> {
        let life = at.life;
        let others = || self.roll.members.iter().filter(|it| it.instance != member.instance);
        let alone = others().filter(|it| it.alone || member.alone);
        if let Some(other) = alone.min_by_key(|it| it.id) {
            return Some(Joined::NotBeside(other.clone()));
        }
        let is_same = |it: &&Member| it.client_id.is_some() && it.client_id == member.client_id;
        if let Some(other) = others().filter(is_same).min_by_key(|it| it.id) {
            return Some(Joined::SameClient(other.clone()));
        }
        let same = self.roll.members.iter().find(|it| it.id == member.id);
        // Asked again, it has given one more sign of life.
        member.beats = same.map_or(member.beats, |it| member.beats.max(it.beats + 1));
        let before = self.roll.members.iter().find(|it| it.instance == member.instance);
        if let Some(before) = before.map(|before| before.id) {
            self.roll.members.retain(|it| it.id != before);
            for holder in self.roll.holders.values_mut().filter(|holder| **holder == before) {
                *holder = member.id;
            }
        }
        self.runs.insert(life, member.id);
        self.joined_at.insert(member.id, at.elapsed);
        self.roll.members.push(member);
        None
    }

    fn take(&mut self, id: ReplicaId, shards: &[Shard]) -> Vec<Shard> {
        // What it holds is its own as before.
        let is_free = |shard: &Shard| {
            let holder = self.roll.holders.get(shard);
            !holder.is_some_and(|holder| *holder != id && self.is_member(*holder))
        };
        let mut taken: Vec<Shard> = match self.is_member(id) {
            true => shards.iter().copied().filter(is_free).collect(),
            false => Vec::new(),
        };
        taken.sort_unstable();
        taken.dedup();
        self.roll.holders.extend(taken.iter().map(|shard| (*shard, id)));
        taken
    }
}

/// Whether these lines begin a sending.
pub(crate) fn is_claim(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| matches!(entry.proof, Proof::SendingClaimed { .. }))
}

#[async_trait]
impl ReplicaStore for TrialStore {
    async fn join(&self, member: Member) -> Result<Joined, StoreError> {
        let (world, server) = (self.world.clone(), self.line.server);
        self.write(move |disk, at| {
            let refused = disk.replicas.join(at, member);
            Ok(refused.unwrap_or_else(|| Joined::Yes(disk.replicas.roll(&world, server))))
        })
        .await
    }

    async fn beat(&self, id: ReplicaId, fit: bool) -> Result<Option<Roll>, StoreError> {
        let (world, server) = (self.world.clone(), self.line.server);
        self.write(move |disk, _| {
            let replicas = &mut disk.replicas;
            let mine = replicas.roll.members.iter_mut().find(|member| member.id == id);
            let given = mine.map(|mine| (mine.beats, mine.fit) = (mine.beats + 1, fit));
            Ok(given.map(|()| replicas.roll(&world, server)))
        })
        .await
    }

    async fn roll(&self) -> Result<Roll, StoreError> {
        self.read(|disk| Ok(disk.replicas.roll(&self.world, self.line.server))).await
    }

    async fn expel(&self, id: ReplicaId, beats: u64) -> Result<bool, StoreError> {
        self.write(move |disk, _| {
            let is_it = |member: &Member| member.id == id && member.beats == beats;
            let is_silent = disk.replicas.roll.members.iter().any(is_it);
            if is_silent {
                disk.replicas.remove(id);
            }
            Ok(is_silent)
        })
        .await
    }

    async fn take(&self, id: ReplicaId, shards: Vec<Shard>) -> Result<Vec<Shard>, StoreError> {
        self.write(move |disk, _| Ok(disk.replicas.take(id, &shards))).await
    }

    async fn release(&self, id: ReplicaId, shards: Vec<Shard>) -> Result<(), StoreError> {
        self.write(move |disk, _| {
            let holders = &mut disk.replicas.roll.holders;
            holders.retain(|shard, holder| *holder != id || !shards.contains(shard));
            Ok(())
        })
        .await
    }

    async fn leave(&self, id: ReplicaId) -> Result<(), StoreError> {
        self.write(move |disk, _| {
            disk.replicas.remove(id);
            Ok(())
        })
        .await
    }

    async fn emergencies_elsewhere(
        &self,
        id: ReplicaId,
    ) -> Result<BTreeSet<CommandId>, StoreError> {
        self.read(|disk| {
            let replicas = &disk.replicas;
            let is_anothers = |by: &ReplicaId| *by != id && replicas.is_member(*by);
            let is_open = |id: &CommandId| {
                let command = disk.records.get(id).map(|record| &record.command);
                command.is_some_and(|it| it.spec.risk == Risk::Emergency && it.life.needs_care())
            };
            let accepted = replicas.accepted_by.iter();
            let found = accepted.filter(|(id, by)| is_anothers(by) && is_open(id));
            Ok(found.map(|(id, _)| *id).collect())
        })
        .await
    }

    async fn in_order(&self, ids: Vec<CommandId>) -> Result<Vec<CommandId>, StoreError> {
        self.read(move |disk| {
            let row = |id: &CommandId| Some((disk.records.get(id)?.row, *id));
            let mut known: Vec<_> = ids.iter().filter_map(row).collect();
            match disk.is_mutated(Mutation::TakenOverInOrderOfIds) {
                true => known.sort_unstable_by_key(|(_, id)| *id),
                false => known.sort_unstable(),
            }
            known.dedup();
            Ok(known.into_iter().map(|(_, id)| id).collect())
        })
        .await
    }

    async fn handed(&self, id: ReplicaId) -> Result<Vec<Handed>, StoreError> {
        self.read(|disk| {
            let replicas = &disk.replicas;
            let is_ours = |of: &(Shard, Handed)| replicas.roll.holders.get(&of.0) == Some(&id);
            let ours = replicas.handed.iter().filter(|one| is_ours(one));
            let mut ours: Vec<Handed> = ours.map(|(_, handed)| *handed).collect();
            ours.sort_by_key(|one| disk.records.get(&one.id).map(|record| record.row));
            Ok(ours)
        })
        .await
    }

    async fn taken_in(&self, id: ReplicaId, taken: Vec<Handed>) -> Result<(), StoreError> {
        self.write(move |disk, _| {
            let Replicas { handed, roll, .. } = &mut disk.replicas;
            let is_taken = |shard: &Shard, one: &Handed| {
                roll.holders.get(shard) == Some(&id) && taken.contains(one)
            };
            handed.retain(|(shard, one)| !is_taken(shard, one));
            Ok(())
        })
        .await
    }

    async fn hand_over(
        &self,
        emergencies: Vec<(CommandId, Shard)>,
    ) -> Result<Vec<CommandId>, StoreError> {
        self.write(move |disk, _| {
            let is_known = |one: &&(CommandId, Shard)| disk.records.contains_key(&one.0);
            let known: Vec<_> = emergencies.iter().filter(is_known).copied().collect();
            let Replicas { handed, accepted_by, .. } = &mut disk.replicas;
            for (id, shard) in &known {
                accepted_by.remove(id);
                if !handed.iter().any(|(_, one)| one.id == *id) {
                    handed.push((*shard, Handed { id: *id, urgent: true }));
                }
            }
            Ok(known.into_iter().map(|(id, _)| id).collect())
        })
        .await
    }

    async fn hand(&self, id: CommandId, shard: Shard) -> Result<(), StoreError> {
        self.world.state().rare.handed_as_known += 1;
        self.write(move |disk, _| {
            let is_open = disk.records.get(&id).is_some_and(|it| it.command.life.needs_care());
            let handed = &mut disk.replicas.handed;
            if is_open && !handed.iter().any(|(_, one)| one.id == id) {
                handed.push((shard, Handed { id, urgent: false }));
            }
            Ok(())
        })
        .await
    }

    fn tell(&self, news: News) {
        if !self.line.is_dead() {
            self.world.spread(&self.line, &news);
        }
    }

    fn listen(&self, heard: Box<dyn Fn(News) + Send + Sync>) {
        self.world.listens(&self.line, heard);
    }
}
