//! Who must leave before whom: commands of one gateway in the order of acceptance, and no movement from before an emergency after it.
//! Either is decided when the later one is written: whatever it depends on has happened by then.

use utmos_core::{command::Spec, evidence::Proof, id::CommandId, method::Risk, replica::LEASE};

use crate::{
    facts::Facts,
    oracle::deadline,
    world::{State, Trouble, World, number_of},
};

/// An emergency has left so many milliseconds after its caller was told, where nothing is in trouble.
pub(crate) const EMERGENCY_WAIT_MAX: u64 = 60;
/// A server looks for what others accepted so often, and reads it, in milliseconds.
const NEWS_WAIT_MAX: u64 = 600;
/// A server sends no longer after its last sign of life, in milliseconds.
#[expect(clippy::cast_possible_truncation, reason = "some seconds")]
const LEASE_MS: u64 = LEASE.as_millis() as u64;

impl World {
    /// What a command has overtaken, or come too late after, that is written now for the first time.
    pub(crate) fn out_of_order(&self, state: &State, spec: &Spec, now: u64) -> Vec<String> {
        let gone = state.facts.iter().filter(|(id, facts)| **id != spec.id && facts.was_written());
        let gone = gone.filter_map(|(id, _)| state.known.get(id)).map(|known| &known.spec);
        let overtaken = gone.filter(|later| self.must_follow(state, spec, later));
        let mut wrong: Vec<String> = overtaken
            .map(|later| format!("{} was sent before {}, which was first", later.id, spec.id))
            .collect();
        if spec.risk == Risk::Motion {
            wrong.extend(self.come_after_emergencies(state, spec, now));
        }
        wrong
    }

    /// Whether the second must leave after the first, as far as a caller can know it: it was asked for when the first had been
    /// accepted. Of several servers, the one that sends may be in doubt of what another says is there.
    fn must_follow(&self, state: &State, first: &Spec, second: &Spec) -> bool {
        let is_way = |spec: &Spec| spec.risk != Risk::Emergency;
        // While nobody has heard of a gateway, others are tried and movements wait.
        let is_untried = self.plan.broker.is_outside() && first.risk == Risk::Motion;
        let is_in_doubt = self.plan.servers > 1 && state.unsaid.contains(&first.id);
        let is_same_way = first.gateway == second.gateway && first.channel == second.channel;
        is_way(first)
            && is_way(second)
            && is_same_way
            && !is_untried
            && !is_in_doubt
            && !state.was_taken_back(first.id)
            && state.told_before_asked(&first.idempotency_key, &second.idempotency_key)
    }

    /// How many pairs that were written had to keep their order.
    pub(crate) fn in_order(&self, state: &State) -> usize {
        let sent = || {
            let records = state.disk.records.values().map(|record| &record.command.spec);
            records.filter(|spec| state.was_written(spec.id))
        };
        let of =
            |first: &Spec| sent().filter(|second| self.must_follow(state, first, second)).count();
        sent().map(|first| of(first)).sum()
    }

    /// The emergencies that a movement leaves after which was there before them.
    fn come_after_emergencies(&self, state: &State, motion: &Spec, now: u64) -> Vec<String> {
        let Some(other) = state.disk.records.get(&motion.id) else { return Vec::new() };
        let mut wrong = Vec::new();
        for known in state.known.values() {
            let spec = &known.spec;
            let is_concerned = spec.risk == Risk::Emergency && motion.shares_aircraft_with(spec);
            if !is_concerned || state.is_lost(spec.id) {
                continue;
            }
            let was_before = match state.disk.records.get(&spec.id) {
                Some(emergency) if !emergency.by_journal => other.row < emergency.row,
                // Put on record later than it was accepted.
                Some(_) | None => other.accepted < known.asked,
            };
            // One that was told of past its deadline has nothing to do any more.
            let Some(told) = state.told_of(spec).filter(|told| self.is_in_time(state, spec, *told))
            else {
                continue;
            };
            // What another server has claimed is withdrawn once that hears of the emergency.
            let stands = !state.was_well(Trouble::Still, told, told + NEWS_WAIT_MAX);
            let heard = match self.plan.servers {
                0 | 1 => told,
                // What stood still goes on where it was, as long as others leave it its gateways.
                _ if stands => told + NEWS_WAIT_MAX + LEASE_MS,
                _ => told + NEWS_WAIT_MAX,
            };
            let was_well = |what| state.was_well(what, told, heard);
            let could_hear = heard == told || was_well(Trouble::Store) && was_well(Trouble::Reads);
            if was_before && could_hear && now > heard {
                wrong.push(format!(
                    "{} left after emergency {} of {told}: at {now}",
                    motion.id, spec.id
                ));
            }
        }
        wrong
    }

    /// Whether an emergency that was told of then had the time to leave.
    pub(crate) fn is_in_time(&self, state: &State, emergency: &Spec, told: u64) -> bool {
        let deadline = deadline(self, state, emergency).unwrap_or(0);
        told + EMERGENCY_WAIT_MAX + self.may_be_early_by() <= deadline
    }
}

impl State {
    /// Whether a command was claimed by a server that then stood still, found by another, of which nobody knows whether it has left,
    /// and taken back by the first when it went on: what was accepted later may have been sent by then.
    fn was_taken_back(&self, id: CommandId) -> bool {
        let lines = self.disk.records.get(&id).map(|record| record.entries.iter());
        let mut lines = lines.into_iter().flatten().map(|entry| &entry.proof);
        lines.any(|proof| matches!(proof, Proof::FoundAfterRestart { .. }))
            && lines.any(|proof| matches!(proof, Proof::NotSent { .. }))
            && !self.was_well(Trouble::Still, 0, u64::MAX)
    }

    pub(crate) fn was_written(&self, id: CommandId) -> bool {
        self.facts.get(&id).is_some_and(Facts::was_written)
    }

    /// When a caller was first told of a command.
    pub(crate) fn told_of(&self, spec: &Spec) -> Option<u64> {
        let asked = self.asked.get(&number_of(&spec.idempotency_key)?)?;
        let of_it = |(id, at): &(CommandId, u64)| (*id == spec.id).then_some(*at);
        asked.told.iter().filter_map(of_it).min()
    }

    fn told_before_asked(&self, first: &str, second: &str) -> bool {
        let of = |key: &str| self.asked.get(&number_of(key)?);
        let told = of(first).and_then(|asked| asked.told.iter().map(|(_, at)| *at).min());
        let asked = of(second).and_then(|asked| asked.tries.iter().copied().min());
        told.zip(asked).is_some_and(|(told, asked)| told < asked)
    }
}
