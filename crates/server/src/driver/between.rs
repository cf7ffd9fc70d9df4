//! What is remembered of devices from one command to the next: the numbers of direct control, and how aircraft fly. Pure; of
//! what is registered no more nothing stays.

use std::collections::BTreeMap;

use utmos_core::id::{DeviceSn, GatewaySn};

use super::FlightMode;

/// Aircraft in the air of which one gateway may tell. It has one or two; more is made up.
const AIRCRAFT_PER_GATEWAY_MAX: usize = 16;

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Between {
    /// The last `seq` of each gateway's drc/down.
    numbers: BTreeMap<GatewaySn, u64>,
    /// How each aircraft that flies was last seen, and by which gateway.
    flights: BTreeMap<DeviceSn, (GatewaySn, FlightMode)>,
    /// How many of these each gateway told of.
    told: BTreeMap<GatewaySn, usize>,
}

impl Between {
    /// The `seq` of the next message under direct control.
    pub(super) fn next_number(&mut self, gateway: &GatewaySn) -> u64 {
        let last = self.numbers.entry(gateway.clone()).or_insert(0);
        *last += 1;
        *last
    }

    /// Takes how an aircraft is seen now; answers how it flew before, if it did.
    pub(super) fn sees(
        &mut self,
        gateway: &GatewaySn,
        aircraft: &DeviceSn,
        mode: FlightMode,
    ) -> Option<FlightMode> {
        let before = self.lands(aircraft);
        let told = self.told.get(gateway).copied().unwrap_or(0);
        if mode != FlightMode::Down && told < AIRCRAFT_PER_GATEWAY_MAX {
            self.flights.insert(aircraft.clone(), (gateway.clone(), mode));
            self.told.insert(gateway.clone(), told + 1);
        }
        before
    }

    /// A device is none of ours any more.
    pub(super) fn forget(&mut self, device: &DeviceSn) {
        self.lands(device);
        let gateway = device.to_gateway();
        self.numbers.remove(&gateway);
        if self.told.remove(&gateway).is_some() {
            self.flights.retain(|_, (by, _)| *by != gateway);
        }
    }

    fn lands(&mut self, aircraft: &DeviceSn) -> Option<FlightMode> {
        let (gateway, mode) = self.flights.remove(aircraft)?;
        match self.told.get_mut(&gateway) {
            Some(told) if *told > 1 => *told -= 1,
            Some(_) | None => {
                self.told.remove(&gateway);
            }
        }
        Some(mode)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn sn(text: &str) -> DeviceSn {
        DeviceSn::parse(text).unwrap()
    }

    #[test]
    fn an_aircraft_is_remembered_while_it_flies_whichever_gateway_tells_of_it() {
        let mut between = Between::default();
        let [one, other] = ["DOCK-1", "DOCK-2"].map(|text| sn(text).to_gateway());
        let air = sn("AIR-1");
        for (gateway, mode, before) in [
            (&one, FlightMode::Down, None),
            (&one, FlightMode::Flying, None),
            (&one, FlightMode::Homing, Some(FlightMode::Flying)),
            (&other, FlightMode::Homing, Some(FlightMode::Homing)),
            (&other, FlightMode::Down, Some(FlightMode::Homing)),
            (&one, FlightMode::Down, None),
        ] {
            assert_eq!(between.sees(gateway, &air, mode), before, "{gateway} {mode:?}");
        }
        assert!(between.flights.is_empty() && between.told.is_empty());
    }

    #[test]
    fn nothing_stays_of_what_is_removed_and_no_gateway_fills_the_memory() {
        let mut between = Between::default();
        let docks: Vec<DeviceSn> = (0..50).map(|number| sn(&format!("DOCK-{number}"))).collect();
        for dock in &docks {
            let gateway = dock.to_gateway();
            assert_eq!([(); 2].map(|()| between.next_number(&gateway)), [1, 2]);
            for number in 0..100 {
                let air = sn(&format!("AIR-{dock}-{number}"));
                between.sees(&gateway, &air, FlightMode::Flying);
            }
        }
        assert_eq!(between.flights.len(), 50 * AIRCRAFT_PER_GATEWAY_MAX);
        between.forget(&sn("AIR-DOCK-3-1"));
        assert_eq!(between.told[&docks[3].to_gateway()], AIRCRAFT_PER_GATEWAY_MAX - 1);
        docks.iter().for_each(|dock| between.forget(dock));
        let Between { numbers, flights, told } = &between;
        assert_eq!((numbers.len(), flights.len(), told.len()), (0, 0, 0));
        assert_eq!(between.next_number(&docks[0].to_gateway()), 1);
    }
}
