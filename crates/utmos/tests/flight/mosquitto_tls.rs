//! Mosquitto with TLS and certificates in the place of passwords, as `utmos broker config mosquitto` writes it.

use std::{net::Ipv4Addr, path::Path, process::Command, time::Duration};

use serde_json::json;
use utmos_mqtt::{ClientCertificate, ClientTls};

use crate::{
    api::PATIENCE,
    dock::{PretendDock, filters, login},
    mosquitto::Mosquitto,
    mosquitto_access::{hand_over, run},
    outside::{doctor, is_ready},
    place::{Place, own_address},
};

/// An authority in this folder, and certificates for these names: of the broker with its address, and one that has expired.
fn certificates(folder: &Path, broker: Ipv4Addr) {
    let openssl = |arguments: &str, long_ago: bool| {
        let mut command = Command::new(if long_ago { "faketime" } else { "openssl" });
        if long_ago {
            command.args(["2020-01-01 00:00:00", "openssl"]);
        }
        let done = command.args(arguments.split(' ')).current_dir(folder).output();
        let done = done.expect(
            "openssl or faketime is not installed; run: apt-get install -y openssl faketime",
        );
        assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(
        &format!("req -x509 {key} -days 30 -subj /CN=authority -keyout ca.key -out ca.pem"),
        false,
    );
    for (file, name) in [("broker", "broker"), ("utmos", "utmos"), ("old", "utmos"), ("ONE", "ONE")]
    {
        let extensions =
            format!("subjectAltName=IP:{broker}\nextendedKeyUsage=serverAuth,clientAuth\n");
        std::fs::write(folder.join("extensions"), extensions).unwrap();
        openssl(&format!("req {key} -subj /CN={name} -keyout {file}.key -out {file}.csr"), false);
        openssl(
            &format!(
                "x509 -req -in {file}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile extensions -out {file}.pem"
            ),
            file == "old",
        );
    }
}

#[tokio::test]
async fn certificates_stand_in_for_passwords() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let address = own_address();
    certificates(folder, address);
    let file = |name: &str| folder.join(name).display().to_string();
    let mut place = Place::with_gateways(&["ONE"]).await;
    let settings = |own: &str, authority: &str| -> Vec<String> {
        vec![
            "mqtt.mode=external".to_owned(),
            format!("mqtt.external.host={address}"),
            "mqtt.external.tls=true".to_owned(),
            format!("mqtt.external.ca_file={}", file(authority)),
            format!("mqtt.external.client_cert_file={}", file(&format!("{own}.pem"))),
            format!("mqtt.external.client_key_file={}", file(&format!("{own}.key"))),
        ]
    };
    place.settings = settings("utmos", "ca.pem");
    let listen = format!("{address}:1883");
    let (cert, key, ca) = (file("broker.pem"), file("broker.key"), file("ca.pem"));
    let _nothing = run(
        &place,
        &[
            "broker",
            "config",
            "mosquitto",
            "--listen",
            &listen,
            "--cert-file",
            &cert,
            "--key-file",
            &key,
            "--client-ca-file",
            &ca,
            "--out",
            folder.to_str().unwrap(),
        ],
    );
    hand_over(folder);
    let mosquitto = Mosquitto::start_with_file(address, &folder.join("utmos.conf")).await;

    let (code, said) = doctor(&place, None).await;
    assert_eq!(code, 0, "{said}");
    for expected in [
        "speaks MQTT 5 and grants every subscription",
        "their expiry bounds it",
        "ok   broker         no commands are retained",
        "ok   broker         lets in nobody without a login",
        "ok   broker         takes messages of",
        "ok   broker         has shared subscriptions",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }

    let server = place.start().await;
    is_ready(&server).await;
    let mut config = login(mosquitto.address(), "ONE", "");
    (config.username, config.password) = (None, None);
    config.subscriptions = filters("ONE", &[]);
    config.tls = Some(ClientTls {
        ca_file: Some(folder.join("ca.pem")),
        server_name: None,
        client_certificate: Some(ClientCertificate {
            cert_file: folder.join("ONE.pem"),
            key_file: folder.join("ONE.key"),
        }),
    });
    let mut dock = PretendDock::start(config).await.unwrap();
    "ONE".clone_into(&mut dock.sn);
    assert!(dock.drain_commands().await.is_empty());
    let id = server.api.create("ONE", "debug_mode_open", json!({}), json!({})).await.id();
    let command = dock.command().await;
    dock.reply(&command, json!({"result": 0})).await;
    assert_eq!(server.api.ended(&id).await["status"], "SUCCEEDED");
    server.stop().await;

    // What the broker does not take is said while the server runs; a file that is not there keeps it from starting.
    place.settings = settings("old", "ca.pem");
    let server = place.start().await;
    let told = async {
        loop {
            let answer = server.api.get("/readyz").await;
            let said = answer.body["message"].to_string();
            if said.contains("client_cert_file") && said.contains("has expired") {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let answer = tokio::time::timeout(PATIENCE, told).await.expect("readyz does not say it");
    assert_eq!(answer.code(), "OVERLOADED");
    server.stop().await;
    let (code, said) = doctor(&place, None).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("check mqtt.external.client_cert_file"), "{said}");
    place.settings = settings("utmos", "nothing.pem");
    let said = place.refuses_to_start().await;
    assert!(
        said.contains("mqtt.external: ca_file") && said.contains("nothing.pem cannot be read"),
        "{said}"
    );
}
