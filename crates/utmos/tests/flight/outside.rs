//! What must hold behind any broker of MQTT 3.1.1, and how to get behind it.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use utmos_core::device::DeviceKind;
use utmos_mqtt::{ClientConfig, Probe, ProbeMessage, ProtocolChoice, Publish, Qos, Session};
use utmos_sim::{Fleet, FleetConfig};

use crate::{
    api::{Api, PATIENCE},
    dock::login,
    place::{PASSWORD, Place, Running, fly},
    truth,
};

/// A broker with an address.
pub trait Behind {
    fn address(&self) -> SocketAddr;
}

/// Tells a place's servers to work behind this broker.
pub fn behind(place: &mut Place, broker: &dyn Behind, more: &[(&str, &str)], password: &str) {
    let file = place.path("broker.password");
    std::fs::write(&file, password).unwrap();
    place.settings = vec![
        "mqtt.mode=external".to_owned(),
        format!("mqtt.external.host={}", broker.address().ip()),
        format!("mqtt.external.port={}", broker.address().port()),
        format!("mqtt.external.password_file={}", file.display()),
    ];
    place.settings.extend(more.iter().map(|(key, value)| format!("mqtt.external.{key}={value}")));
}

/// A dock that tests play themselves, and that is mostly away.
pub async fn with_ghost(place: &Place) {
    place.put_gateway(place.given.tenant, "GHOST", DeviceKind::Dock, PASSWORD, &[]).await;
}

/// A server that is ready says what such a broker lacks.
pub async fn lacks_mqtt_5(server: &Running) {
    is_ready(server).await;
    let warnings = server.api.get("/readyz").await.body["warnings"].to_string();
    assert!(warnings.contains("it speaks MQTT 3.1.1"), "{warnings}");
}

/// Waits until a server's link to its broker is up.
pub async fn is_ready(server: &Running) {
    let ready = async {
        while !server.api.get("/readyz").await.status.is_success() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.expect("the server does not get ready");
}

/// Exit code of `utmos doctor`, and what it said; with a second login, if one is given.
pub async fn doctor(place: &Place, other: Option<(&str, &str)>) -> (i32, String) {
    let mut command = place.utmos(&["doctor"]);
    for assignment in place.assignments() {
        command.args(["--set", &assignment]);
    }
    if let Some((user, password)) = other {
        let file = place.path("other.password");
        std::fs::write(&file, password).unwrap();
        command.args(["--as-user", user, "--as-password-file"]).arg(file);
    }
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(!other.is_some_and(|(_, password)| said.contains(password)), "{said}");
    (done.status.code().unwrap(), said)
}

/// Simulated docks carry out what they are told, once.
pub async fn a_fleet_flies(server: &Running, config: &FleetConfig, broker: &dyn Behind) -> Fleet {
    is_ready(server).await;
    let mut config = config.clone();
    config.speed = 20.0;
    let fleet = fly(&config, broker.address(), ProtocolChoice::V311).await;
    let [dock, other] = config.docks.as_slice() else { panic!() };
    for (sn, method, expected) in [
        (&dock.sn, "cover_open", "FAILED"),
        (&dock.sn, "debug_mode_open", "SUCCEEDED"),
        (&dock.sn, "cover_open", "SUCCEEDED"),
        (&other.aircraft_sn, "flight_authority_grab", "SUCCEEDED"),
    ] {
        let id = server.api.create(sn, method, json!({}), json!({})).await.id();
        let command = server.api.ended(&id).await;
        assert_eq!(command["status"], expected, "{method}: {command:#}");
        truth::must_be_true(&command, &fleet);
        assert_eq!(fleet.count(&id), 1);
    }
    assert_eq!(server.api.figure("uplink_malformed_total").await, 0);
    fleet
}

/// A dock that asks for a session which outlives its connection, goes away, and comes back after a command for it has ended.
pub async fn an_absent_dock_gets_nothing_late(
    server: &Running,
    broker: &dyn Behind,
    expected: &str,
) {
    let ended = nothing_comes_late(&server.api, broker.address(), async |_| {}).await;
    assert_eq!(ended["failure_code"], expected, "{ended:#}");
}

/// The same, where something happens once that command was asked for. Answers how it ended.
pub async fn nothing_comes_late(
    api: &Api,
    broker: SocketAddr,
    happens: impl AsyncFnOnce(&str),
) -> Value {
    let config =
        ClientConfig { protocol: ProtocolChoice::V311, ..login(broker, "GHOST", PASSWORD) };
    let kept = Session::Kept(Duration::from_secs(60));
    let topic = "thing/product/GHOST/services";
    let comes = async {
        loop {
            let mut dock = Probe::connect(&config, kept).await.unwrap();
            // A busy broker may cut off who comes while its last session is being ended; a dock comes again then.
            if let Ok(granted) = dock.subscribe(topic, Qos::AtLeastOnce).await {
                assert!(granted);
                break dock;
            }
        }
    };
    let mut dock = tokio::time::timeout(PATIENCE, comes).await.expect("it is let in");
    let osd = json!({"tid": "t", "bid": "b", "timestamp": 1, "gateway": "GHOST", "data": {"mode_code": 0}});
    let _told =
        dock.publish(Publish::new("thing/product/GHOST/osd", osd.to_string())).await.unwrap();
    let first =
        api.create("GHOST", "debug_mode_open", json!({}), json!({"timeout_seconds": 2})).await.id();
    let mut came = 0;
    let hears = async {
        while came == 0 {
            came += dock.heard(Duration::from_millis(100)).await.unwrap().len();
        }
    };
    tokio::time::timeout(PATIENCE, hears).await.expect("it hears what comes while it is there");
    assert_eq!(api.ended(&first).await["status"], "TIMED_OUT");
    assert_eq!(came + dock.heard(Duration::ZERO).await.unwrap().len(), 1, "once");
    dock.leave().await;

    let id =
        api.create("GHOST", "debug_mode_open", json!({}), json!({"timeout_seconds": 2})).await.id();
    happens(&id).await;
    let ended = api.ended(&id).await;
    assert_eq!(ended["status"], "TIMED_OUT", "{ended:#}");
    let back = async {
        loop {
            // NATS turns away a client id that was there a moment ago, or cuts it off again.
            if let Ok(heard) = comes_back(&config, kept, topic).await {
                return heard;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let heard = tokio::time::timeout(PATIENCE, back).await.expect("it is let in again");
    assert_eq!(heard, [], "nothing late");
    ended
}

async fn comes_back(
    config: &ClientConfig,
    session: Session,
    topic: &str,
) -> Result<Vec<ProbeMessage>, String> {
    let mut dock = Probe::connect(config, session).await?;
    assert!(dock.subscribe(topic, Qos::AtLeastOnce).await?, "it may listen to its own topic");
    let heard = dock.heard(Duration::from_secs(1)).await?;
    dock.leave().await;
    Ok(heard)
}

/// After the broker was away: every dock is heard again, and what is sent now arrives; nothing was carried out twice.
pub async fn it_goes_on(server: &Running, config: &FleetConfig, fleet: &Fleet) {
    for dock in &config.docks {
        // The first may go into the void, which MQTT 3.1.1 does not tell.
        let ask = async || {
            let more = json!({"timeout_seconds": 2});
            let id = server.api.create(&dock.sn, "debug_mode_open", json!({}), more).await.id();
            server.api.ended(&id).await["status"] == "SUCCEEDED"
        };
        let goes_on = async { while !ask().await {} };
        assert!(tokio::time::timeout(PATIENCE * 2, goes_on).await.is_ok(), "{} is lost", dock.sn);
    }
    for received in fleet.received() {
        assert_eq!(fleet.count(received.tid.as_deref().unwrap()), 1, "{received:?}");
    }
}
