//! What a dock tells of itself: the parts of its `osd`, with the keys of a Dock 3, and values that move as real ones do.

/// The n-th message of a dock. Parts take turns.
pub fn part(dock: usize, n: u64) -> String {
    // Moves a little from message to message, and differs from dock to dock.
    let moving = |scale: f64| {
        let mixed = (n.wrapping_mul(2_654_435_761) ^ (dock as u64).wrapping_mul(40_503)) % 1_000;
        mixed as f64 / 1_000.0 * scale
    };
    if n.is_multiple_of(2) { weather(dock, n, &moving) } else { power(dock, n, &moving) }
}

fn weather(dock: usize, n: u64, moving: &dyn Fn(f64) -> f64) -> String {
    let (latitude, longitude) = (15.0 + dock as f64 / 1_000.0, 140.0 + dock as f64 / 1_000.0);
    format!(
        r#"{{"network_state":{{"type":2,"quality":0,"rate":{:.0}}},"drone_charge_state":{{"state":0,"capacity_percent":{}}},"drone_in_dock":0,"rainfall":0,"wind_speed":{:.1},"environment_temperature":{:.1},"temperature":{:.1},"humidity":{:.0},"heading":36.131591796875,"home_position_is_valid":1,"latitude":{:.13},"longitude":{:.13},"height":{:.14},"alternate_land_point":{{"latitude":{latitude:.13},"longitude":{longitude:.13},"height":0,"safe_land_height":30,"is_configured":1}},"first_power_on":1631945855969,"position_state":{{"is_calibration":1,"is_fixed":2,"quality":5,"gps_number":{},"rtk_number":{}}},"storage":{{"total":53082240,"used":{}}},"mode_code":4,"cover_state":2,"silent_mode":0,"supplement_light_state":0,"emergency_stop_state":0,"air_conditioner":{{"air_conditioner_state":1,"switch_time":0}},"battery_store_mode":1,"alarm_state":0,"putter_state":0,"sub_device":{{"device_sn":"1581F6Q8D{dock:011}","device_model_key":"0-100-1","device_online_status":1,"device_paired":1}}}}"#,
        300.0 + moving(400.0),
        100 - n / 100 % 80,
        moving(8.0),
        24.0 + moving(1.0),
        25.0 + moving(1.0),
        80.0 + moving(4.0),
        latitude + moving(1e-7),
        longitude + moving(1e-7),
        41.0 + moving(0.1),
        9 + n % 4,
        30 + n % 9,
        20_184 + n,
    )
}

fn power(dock: usize, n: u64, moving: &dyn Fn(f64) -> f64) -> String {
    format!(
        r#"{{"job_number":298,"acc_time":{},"activation_time":1775675085,"deployment_mode":1,"relative_alternate_land_point":{{"longitude":0,"latitude":0,"safe_land_height":30,"status":1}},"self_converge_coordinate":{{"longitude":{:.13},"latitude":{:.13},"height":{:.14}}},"maintain_status":{{"maintain_status_array":[{{"state":0,"last_maintain_type":17,"last_maintain_time":0,"last_maintain_work_sorties":0}},{{"state":0,"last_maintain_type":18,"last_maintain_time":0,"last_maintain_work_sorties":0}}]}},"electric_supply_voltage":{:.0},"working_voltage":{:.0},"working_current":{:.0},"acdc_power_input":{:.13},"poe_link_status":0,"poe_power_output":0,"backup_battery":{{"voltage":{:.0},"temperature":{:.1},"switch":1}},"gimbal_holder_state":0,"drone_battery_maintenance_info":{{"maintenance_state":0,"maintenance_time_left":0,"heat_state":0,"batteries":[{{"index":0,"capacity_percent":{},"voltage":{:.0},"temperature":{:.1}}}]}},"temp_mode_state":false}}"#,
        3_648_792 + n,
        140.0 + dock as f64 / 1_000.0 + moving(1e-7),
        15.0 + dock as f64 / 1_000.0 + moving(1e-7),
        40.0 + moving(0.1),
        209.0 + moving(4.0),
        47_400.0 + moving(100.0),
        3_100.0 + moving(100.0),
        164.0 + moving(3.0),
        13_500.0 + moving(100.0),
        28.0 + moving(1.0),
        100 - n / 100 % 80,
        22_900.0 + moving(100.0),
        35.0 + moving(1.0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_an_object_of_the_size_that_docks_send() {
        for n in 0..10 {
            let text = part(7, n);
            let value: Result<serde_json::Value, _> = serde_json::from_str(&text);
            assert!(value.is_ok_and(|value| value.is_object()), "{text}");
            assert!((900..1_300).contains(&text.len()), "{}", text.len());
        }
        assert_ne!(part(7, 0), part(7, 2));
    }
}
