//! Emergencies withdraw every movement of their aircraft that has not left, through whichever gateway it would go
//! (LIFECYCLE.md, "Emergencies first").

use std::{collections::BTreeMap, sync::Arc};

use utmos_core::{
    command::Spec,
    id::{CommandId, DeviceSn, GatewaySn, TenantId},
    life::Input,
    method::Risk,
    planted::{self, Fault},
    time::BootId,
};

use super::{
    Inner, LaneKey, State, Told,
    intake::{Acceptance, acceptance},
    lane::Lane,
};

/// The last emergency of each gateway and of each aircraft, by the order of acceptance.
#[derive(Debug, Default)]
pub(super) struct LastEmergencies {
    of_gateways: BTreeMap<(TenantId, GatewaySn), Acceptance>,
    of_aircraft: BTreeMap<(TenantId, DeviceSn), Acceptance>,
}

impl LastEmergencies {
    fn note(&mut self, emergency: &Spec, boot: BootId) {
        let (tenant, at) = (emergency.tenant, acceptance(emergency, boot));
        let last = self.of_gateways.entry((tenant, emergency.gateway.clone())).or_insert(at);
        *last = at.max(*last);
        if let Some(aircraft) = &emergency.aircraft {
            let last = self.of_aircraft.entry((tenant, aircraft.clone())).or_insert(at);
            *last = at.max(*last);
        }
    }

    /// The last emergency of a command's aircraft that came after it.
    fn after(&self, spec: &Spec, boot: BootId) -> Option<CommandId> {
        let of_gateway = self.of_gateways.get(&(spec.tenant, spec.gateway.clone()));
        let aircraft = spec.aircraft.clone().map(|aircraft| (spec.tenant, aircraft));
        let of_aircraft = aircraft.and_then(|aircraft| self.of_aircraft.get(&aircraft));
        let last = of_gateway.max(of_aircraft).copied()?;
        (last > acceptance(spec, boot)).then_some(last.2)
    }
}

impl Inner {
    /// Withdraws every movement of the aircraft that has not left, before the emergency gets its own turn. What is being
    /// claimed or stands in line at the broker is stopped at its gate.
    pub(super) fn preempt(self: &Arc<Self>, emergency: &Spec) {
        let boot = self.clock.boot();
        // One that another server accepted may be heard of late: a movement that came after it goes on.
        let is_before = |spec: &Spec| match (spec.deadline.boot, emergency.deadline.boot) {
            (one, other) if one == boot && other == boot => {
                acceptance(spec, boot) <= acceptance(emergency, boot)
            }
            _ => spec.deadline.set_at(spec.timeout) <= emergency.deadline.set_at(emergency.timeout),
        };
        let is_of_it = |spec: &Spec| {
            spec.shares_aircraft_with(emergency)
                || planted::is_planted(Fault::PreemptsEveryAircraft)
        };
        let concerns = |spec: &Spec| is_of_it(spec) && is_before(spec);
        self.withdraw(emergency.id, concerns, |state| state.last_emergencies.note(emergency, boot));
    }

    /// A movement that was stored before an emergency and comes under care after it is withdrawn as well.
    pub(super) fn heed_emergency(self: &Arc<Self>, spec: &Spec) {
        if spec.risk != Risk::Motion {
            return;
        }
        let boot = self.clock.boot();
        let last = self.lock().last_emergencies.after(spec, boot);
        if let Some(emergency) = last {
            self.withdraw(emergency, |other| other.id == spec.id, |_| {});
        }
    }

    /// Stops movements at their gate and tells them why, in one step: whatever the gate makes of it is told after that.
    fn withdraw(
        self: &Arc<Self>,
        emergency: CommandId,
        concerns: impl Fn(&Spec) -> bool,
        also: impl FnOnce(&mut State),
    ) {
        let must_run: Vec<LaneKey> = {
            let mut state = self.lock();
            also(&mut state);
            let told = |(key, lane): (&LaneKey, &mut Lane)| {
                let mut must_run = false;
                for id in lane.withdraw(&concerns) {
                    let input = Input::Preempt { emergency_command_id: emergency.to_string() };
                    must_run |=
                        lane.take_in(Told::Input { id, input: Box::new(input), done: None });
                }
                must_run.then(|| key.clone())
            };
            state.lanes.iter_mut().filter_map(told).collect()
        };
        for key in must_run {
            self.spawn_lane(key);
        }
    }
}
