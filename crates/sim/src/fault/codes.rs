//! Refusals by name, for plans. The numbers are DJI's.

use crate::refusal;

/// Emergency stop pressed.
const EMERGENCY_STOP: i64 = 514_121;
/// Aircraft RTK did not converge.
const RTK_NOT_CONVERGED: i64 = 316_005;
/// GPS weak.
const GPS_WEAK: i64 = 336_002;
/// Storage short on dock or aircraft.
const STORAGE_FULL: i64 = 319_027;
/// Would cross a geo zone.
const GEO_ZONE: i64 = 321_515;

/// Names and their codes.
pub const CODES: [(&str, i64); 19] = [
    ("aircraft_off", refusal::AIRCRAFT_OFF),
    ("already_streaming", refusal::ALREADY_STREAMING),
    ("bad_parameter", refusal::BAD_PARAMETER),
    ("dock_busy", refusal::DOCK_BUSY),
    ("emergency_stop", EMERGENCY_STOP),
    ("geo_zone", GEO_ZONE),
    ("gps_weak", GPS_WEAK),
    ("heavy_rain", refusal::HEAVY_RAIN),
    ("in_debug_mode", refusal::IN_DEBUGGING),
    ("low_battery", refusal::BATTERY_LOW),
    ("no_authority", refusal::NO_AUTHORITY),
    ("not_in_debug_mode", refusal::NOT_DEBUGGING),
    ("not_supported", refusal::NOT_SUPPORTED),
    ("other_task", refusal::OTHER_TASK),
    ("rtk_not_converged", RTK_NOT_CONVERGED),
    ("storage_full", STORAGE_FULL),
    ("strong_wind", refusal::STRONG_WIND),
    ("too_far", refusal::TOO_FAR),
    ("too_high", refusal::TOO_HIGH),
];

#[cfg(test)]
mod tests {
    use super::*;
    use utmos_dji::catalogue::Catalogue;

    #[test]
    #[expect(clippy::expect_used, reason = "a test fails by panicking")]
    fn every_code_is_one_of_djis_and_the_names_are_in_order() {
        let catalogue = Catalogue::embedded().expect("the embedded catalogue");
        for (name, code) in CODES {
            assert!(catalogue.meaning(code).is_some(), "{name}");
        }
        assert!(CODES.is_sorted());
    }
}
