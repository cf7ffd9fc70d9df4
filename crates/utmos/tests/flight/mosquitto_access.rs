//! Mosquitto with exactly the files that `utmos broker config mosquitto` writes: two tenants, and nobody reaches the other's.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::json;
use utmos_core::device::DeviceKind;
use utmos_mqtt::{Qos, Sent};

use crate::{
    api::{Api, PATIENCE},
    dock::{PretendDock, filters, login},
    mosquitto::Mosquitto,
    place::{PASSWORD, Place, own_address},
};

/// Runs the program at this place, and gives back its standard output.
pub fn run(place: &Place, arguments: &[&str]) -> String {
    let mut command = place.utmos(arguments);
    for assignment in place.assignments() {
        command.args(["--set", &assignment]);
    }
    let done = command.output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// As the manual says: the folder is Mosquitto's. A test that is not run by root runs Mosquitto as itself.
pub fn hand_over(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    if fs::metadata(folder).unwrap().uid() != 0 {
        return;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let entry = passwd.lines().find(|line| line.starts_with("mosquitto:")).unwrap();
    let ids: Vec<u32> = entry.split(':').skip(2).take(2).map(|id| id.parse().unwrap()).collect();
    for file in fs::read_dir(folder).unwrap() {
        chown(file.unwrap().path(), Some(ids[0]), Some(ids[1])).unwrap();
    }
}

fn new_passwords(folder: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(folder.join("new-passwords.txt")).unwrap();
    let pairs = text.lines().map(|line| line.split_once(' ').unwrap());
    pairs.map(|(sn, password)| (sn.to_owned(), password.to_owned())).collect()
}

async fn dock(
    mosquitto: &Mosquitto,
    sn: &str,
    password: &str,
    more: &[String],
) -> Result<PretendDock, String> {
    let mut config = login(mosquitto.address(), sn, password);
    config.subscriptions = filters(sn, &[&format!("{sn}AIR")]);
    config.subscriptions.extend(more.iter().map(|filter| (filter.clone(), Qos::AtLeastOnce)));
    PretendDock::start(config).await
}

#[tokio::test]
async fn what_is_generated_lets_each_reach_its_own_and_nobody_elses() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let address = own_address();
    let mut place = Place::new().await;
    let other = place.other_tenant().await;
    for (tenant, sn, aircraft) in
        [(place.given.tenant, "ONE", "ONEAIR"), (other.tenant, "TWO", "TWOAIR")]
    {
        place.put_gateway(tenant, sn, DeviceKind::Dock, PASSWORD, &[aircraft]).await;
    }
    place.settings = vec![
        "mqtt.mode=external".to_owned(),
        format!("mqtt.external.host={address}"),
        "mqtt.external.username=utmos".to_owned(),
        format!("mqtt.external.password_file={}", folder.join("server.password").display()),
    ];
    let listen = format!("{address}:1883");
    let write: Vec<&str> =
        ["broker", "config", "mosquitto", "--listen", &listen, "--new-passwords", "--out"]
            .into_iter()
            .chain([folder.to_str().unwrap()])
            .collect();
    assert_eq!(run(&place, &write), "", "no secret is printed");
    let passwords = new_passwords(folder);
    for secret in ["new-passwords.txt", "server.password", "utmos.passwords"] {
        let mode = fs::metadata(folder.join(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    assert!(!passwords.values().any(|password| {
        fs::read_to_string(folder.join("utmos.passwords")).unwrap().contains(password)
    }));
    // What is run again changes nothing by itself.
    let before = fs::read_to_string(folder.join("utmos.passwords")).unwrap();
    hand_over(folder);
    let _nothing = run(&place, &write);
    assert_eq!(new_passwords(folder), passwords);
    let rest = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with("utmos:")).map(str::to_owned).collect()
    };
    assert_eq!(rest(&before), rest(&fs::read_to_string(folder.join("utmos.passwords")).unwrap()));

    let mosquitto = Mosquitto::start_with_file(address, &folder.join("utmos.conf")).await;
    let server = place.start().await;
    let spy: Vec<_> = ["services", "property/set", "drc/down", "osd", "#"]
        .iter()
        .map(|end| format!("thing/product/ONE/{end}"))
        .chain(["thing/product/+/services".to_owned(), "#".to_owned()])
        .collect();
    let mut one = dock(&mosquitto, "ONE", &passwords["ONE"], &[]).await.unwrap();
    let mut two = dock(&mosquitto, "TWO", &passwords["TWO"], &spy).await.unwrap();
    assert!(dock(&mosquitto, "ONE2", &passwords["ONE"], &[]).await.is_err(), "a name nobody gave");
    assert!(dock(&mosquitto, "TWO", &passwords["ONE"], &[]).await.is_err(), "another's password");

    // Each hears the answers on its own topics and its aircraft's: that is proof of all it needs.
    assert!(one.drain_commands().await.is_empty() && two.drain_commands().await.is_empty());
    let event = |tid: &str| json!({"tid": tid, "bid": tid, "timestamp": 1, "gateway": "ONE", "need_reply": 1, "method": "hms", "data": {"list": []}});
    one.publish("thing/product/ONEAIR/events", &event("of-aircraft")).await;
    let answers = one.drain().await;
    assert!(
        answers.iter().any(|down| down.topic == "thing/product/ONEAIR/events_reply"),
        "{answers:?}"
    );

    let (first, second) = (&server.api, Api::new((place.address, 8080).into(), other));
    let id = first.create("ONE", "debug_mode_open", json!({}), json!({})).await.id();
    let command = one.command().await;
    assert_eq!(command.tid(), id);
    // Neither an answer in another's name nor a command to another has an effect.
    let forged = json!({"tid": id, "bid": command.body["bid"], "timestamp": 1, "method": "debug_mode_open", "data": {"result": 314_000}});
    for (topic, body) in [
        ("thing/product/ONE/services_reply", &forged),
        ("thing/product/ONE/services", &command.body),
        (
            "thing/product/ONE/osd",
            &json!({"tid": "t", "bid": "b", "timestamp": 1, "gateway": "ONE", "data": {"mode_code": 4}}),
        ),
        (
            "thing/product/ONEAIR/osd",
            &json!({"tid": "t", "bid": "b", "timestamp": 1, "gateway": "TWO", "data": {"mode_code": 4}}),
        ),
    ] {
        let _refused = two.try_publish(topic, &body.to_string()).await;
    }
    let heard = two.drain().await;
    assert!(heard.iter().all(|down| !down.topic.contains("/ONE")), "{heard:?}");
    assert!(one.drain_commands().await.is_empty(), "a forged command came");
    let told = first.until(&id, |command| command["status"] != "ACCEPTED").await;
    assert_eq!(told["status"], "DELIVERED", "nobody else can end it");
    one.reply(&command, json!({"result": 0})).await;
    assert_eq!(first.ended(&id).await["status"], "SUCCEEDED");
    let theirs = second.create("TWO", "debug_mode_open", json!({}), json!({})).await.id();
    let command = two.command().await;
    assert_eq!(command.tid(), theirs);
    two.reply(&command, json!({"result": 0})).await;
    assert_eq!(second.ended(&theirs).await["status"], "SUCCEEDED");

    // The registry changes: one goes, one comes. Written anew, and taken without a restart.
    let _said = run(&place, &["device", "remove", "--sn", "TWO", "--force"]);
    let tenant = place.given.tenant.to_string();
    let _said =
        run(&place, &["device", "add", "--sn", "THREE", "--kind", "dock", "--tenant", &tenant]);
    let _nothing = run(&place, &write);
    let passwords = new_passwords(folder);
    mosquitto.signal(Signal::HUP);
    let joins =
        async { while dock(&mosquitto, "THREE", &passwords["THREE"], &[]).await.is_err() {} };
    tokio::time::timeout(PATIENCE, joins).await.expect("the new dock is not let in");
    let is_cut = async {
        while two.try_publish("thing/product/TWO/osd", "{}").await != Sent::NotConnected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_cut).await.expect("one that was removed stays connected");
    assert!(dock(&mosquitto, "TWO", &passwords["TWO"], &[]).await.is_err(), "it was removed");
    let id = first.create("ONE", "debug_mode_open", json!({}), json!({})).await.id();
    let command = one.command().await;
    one.reply(&command, json!({"result": 0})).await;
    assert_eq!(first.ended(&id).await["status"], "SUCCEEDED");
    server.stop().await;
}
