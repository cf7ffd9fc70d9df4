//! One seed, one life.

use serde_json::json;
use utmos_sim::{DockConfig, Settings};

use crate::world::{Message, World, settings};

fn a_life(seed: u64) -> Vec<Message> {
    let mut world = World::with(Settings { quiet: false, ..settings() }, seed);
    world.must("debug_mode_open", &json!({}));
    let tid = world.must("cover_open", &json!({}));
    world.until_end(&tid);
    world.must("debug_mode_close", &json!({}));
    world.ask("unlock_license_list", &json!({"device_model_domain": 0}));
    world.take_off();
    world.must("return_home", &json!({}));
    world.until_docked();
    world.sent
}

#[test]
fn the_same_seed_says_the_same_and_another_does_not() {
    let (one, same, other) = (a_life(11), a_life(11), a_life(12));
    assert!(100 < one.len());
    assert_eq!(one, same);
    assert_ne!(one, other);
}

#[test]
fn numbered_docks_differ_and_stay_near_each_other() {
    let docks: Vec<DockConfig> = (1..=1_000).map(|n| DockConfig::numbered(1, n)).collect();
    assert_eq!(docks[0].sn, "SIM-DOCK-0001");
    assert_eq!(docks[999].aircraft_sn, "SIM-M3D-1000");
    for pair in docks.windows(2) {
        assert_ne!(pair[0].password, pair[1].password);
        assert!(50.0 < pair[0].home.ground_distance(pair[1].home));
    }
    assert!(docks.iter().all(|dock| dock.home.ground_distance(docks[0].home) < 4_000.0));
    assert_eq!(docks[5], DockConfig::numbered(1, 6));
    assert!(!format!("{:?}", docks[0]).contains(&docks[0].password));
}
