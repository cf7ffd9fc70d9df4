//! Whoever is withdrawn was withdrawn by somebody: a caller who cancelled it, or an emergency of its aircraft that was not there before
//! it (LIFECYCLE.md, "Emergencies first"). An end of that kind excuses a command from being sent, so nobody would miss it.

use utmos_core::{
    command::{FailureCode, Life, Spec},
    evidence::{Entry, Proof},
    id::CommandId,
    method::Risk,
};

use crate::world::{State, World, number_of};

impl World {
    /// Whether what ends a command as withdrawn has happened.
    pub(crate) fn has_cause<'a>(
        &self,
        state: &State,
        spec: &Spec,
        life: &Life,
        entries: impl Iterator<Item = &'a Entry>,
    ) -> Result<(), String> {
        match life.phase.failure() {
            Some(FailureCode::Cancelled) if !state.cancelled.contains(&spec.id) => {
                Err("was cancelled by nobody".to_owned())
            }
            Some(FailureCode::PreemptedByEmergency) => self.was_preempted(state, spec, entries),
            Some(_) | None => Ok(()),
        }
    }

    fn was_preempted<'a>(
        &self,
        state: &State,
        spec: &Spec,
        entries: impl Iterator<Item = &'a Entry>,
    ) -> Result<(), String> {
        let named = entries.filter_map(|entry| {
            let Proof::Preempted { emergency_command_id } = &entry.proof else { return None };
            Some(emergency_command_id.as_str())
        });
        let mut named: Vec<&str> = named.collect();
        named.dedup();
        let is_one = |name: &&str| {
            let id: Option<CommandId> = name.parse().ok();
            let known = id.and_then(|id| state.known.get(&id));
            known.is_some_and(|known| {
                known.spec.risk == Risk::Emergency
                    && known.spec.shares_aircraft_with(spec)
                    && !self.was_there_before(state, &known.spec, spec)
            })
        };
        match spec.risk == Risk::Motion && named.iter().any(is_one) {
            true => Ok(()),
            false => Err(format!("was withdrawn for no emergency of its own: {named:?}")),
        }
    }

    /// Whether an emergency had been told of when a movement was asked for, and is on record before it. What only a journal had
    /// comes on record later, and withdraws what was accepted meanwhile; and servers compare by the store's clock, of which they are
    /// unsure, what they have not accepted themselves.
    fn was_there_before(&self, state: &State, emergency: &Spec, motion: &Spec) -> bool {
        let asked = number_of(&motion.idempotency_key).and_then(|number| state.asked.get(&number));
        let asked = asked.and_then(|it| it.tries.iter().min().copied());
        let row = |id| state.disk.records.get(&id).map(|record| record.row);
        state.told_of(emergency).zip(asked).is_some_and(|(told, asked)| {
            told + self.may_be_early_by() < asked && !self.clock.is_set_between(told, asked)
        }) && row(emergency.id).zip(row(motion.id)).is_some_and(|(one, other)| one < other)
    }
}
