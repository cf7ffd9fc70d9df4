//! What becomes of a device's open commands when an administrator takes it away.

use std::process::Output;

use serde_json::json;

use crate::{api::PATIENCE, dock::PretendDock, place::Place};

impl Place {
    /// `utmos` with these arguments, on the data of this place.
    fn administer(&self, arguments: &[&str]) -> Output {
        let mut command = self.utmos(arguments);
        for assignment in self.assignments() {
            command.args(["--set", &assignment]);
        }
        command.output().unwrap()
    }
}

#[tokio::test]
async fn a_device_with_open_commands_is_not_taken_away_unless_that_is_meant() {
    let place = Place::with_gateways(&["DOCK-1", "DOCK-2"]).await;
    let other = place.other_tenant().await.tenant.to_string();
    let server = place.start().await;
    let more = json!({"if_offline": "wait", "timeout_seconds": 300});
    let id = server.api.create("DOCK-1", "debug_mode_open", json!({}), more).await.id();

    let move_it = ["device", "move", "--sn", "DOCK-1", "--tenant", &other];
    for arguments in [&move_it[..], &["device", "remove", "--sn", "DOCK-1"]] {
        let refused = place.administer(arguments);
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{words}");
        for part in ["open commands (1;", "debug_mode_open", &id, "--force"] {
            assert!(words.contains(part), "{part}: {words}");
        }
    }
    let free = place.administer(&["device", "remove", "--sn", "DOCK-2"]);
    assert!(free.status.success(), "those of another device are in nobody's way: {free:?}");
    let forced = place.administer(&[&move_it[..], &["--force"]].concat());
    assert!(forced.status.success(), "{forced:?}");
    // It stays the old tenant's, and does not go to the dock, which is another's now.
    let kept = server.api.get(&format!("{}/{id}", crate::api::COMMANDS)).await;
    assert_eq!(kept.body["status"], "ACCEPTED", "{kept:?}");
    let is_known = async || {
        let dry = json!({"dry_run": true});
        server.api.create("DOCK-1", "debug_mode_open", json!({}), dry).await.code()
            != "DEVICE_NOT_FOUND"
    };
    tokio::time::timeout(PATIENCE, async { while is_known().await {} }).await.unwrap();
    let mut dock = PretendDock::connect(server.mqtt(), "DOCK-1").await;
    let ended = server.api.ended(&id).await;
    assert_eq!(
        (&ended["status"], &ended["failure_code"]),
        (&json!("FAILED"), &json!("TRANSPORT_FAILED")),
        "{ended}"
    );
    assert!(dock.drain().await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn an_aircraft_is_not_moved_from_under_a_flight_that_was_asked_of_its_dock() {
    let place = Place::with_gateways(&["DOCK-1"]).await;
    let other = place.other_tenant().await.tenant.to_string();
    let server = place.start().await;
    let mut dock = PretendDock::connect(server.mqtt(), "DOCK-1").await;
    let report = json!({
        "tid": "topo", "bid": "topo", "timestamp": 1, "method": "update_topo",
        "data": {
            "domain": "3", "type": 2, "sub_type": 0, "thing_version": "1.1.2",
            "sub_devices": [{
                "sn": "DRONE-1", "domain": "0", "type": 91, "sub_type": 0, "index": "A", "thing_version": "1.1.2",
            }],
        },
    });
    dock.publish("sys/product/DOCK-1/status", &report).await;
    // Once it is known.
    let is_known = async || {
        let dry = json!({"dry_run": true});
        server.api.create("DRONE-1", "return_home", json!({}), dry).await.code()
            != "DEVICE_NOT_FOUND"
    };
    tokio::time::timeout(PATIENCE, async { while !is_known().await {} }).await.unwrap();
    let move_it = ["device", "move", "--sn", "DRONE-1", "--tenant", &other];
    let target = json!({
        "fly_to_id": "f", "max_speed": 5,
        "points": [{"latitude": 1.0, "longitude": 2.0, "height": 60.0}],
    });
    let long = json!({"timeout_seconds": 300});
    let flying = server.api.create("DOCK-1", "fly_to_point", target, long).await.id();
    let command = loop {
        let command = dock.command().await;
        if command.is_command() {
            break command;
        }
    };
    assert_eq!(command.tid(), flying);
    let refused = place.administer(&move_it);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{words}");
    for part in ["DRONE-1 has open commands (1;", "fly_to_point", &flying, "was not moved"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    dock.reply(&command, json!({"result": 319_016})).await;
    server.api.ended(&flying).await;
    let moved = place.administer(&move_it);
    assert!(moved.status.success(), "nothing stands in its way any more: {moved:?}");
    server.stop().await;
}
