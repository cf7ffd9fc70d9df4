//! TLS on both sides.
#![expect(clippy::unwrap_used, reason = "a test stops where its assumption fails")]

use std::path::PathBuf;

use utmos_mqtt::{Broker, BrokerConfig, BrokerError, BrokerTls, ClientTls, Publish, Qos};

use super::support::{TestDoor, config, here, is_confirmed, own_with, send, start, until, up};

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn secure() -> BrokerConfig {
    let tls = BrokerTls { listen: here(0), cert: data("server.pem"), key: data("server.key") };
    BrokerConfig { tls: Some(tls), ..BrokerConfig::new(here(0)) }
}

#[tokio::test]
async fn a_message_crosses_tls() {
    let own = own_with(secure()).await;
    let mut settings =
        config(own.broker.local_tls_addr().unwrap().port(), "D1", &["thing/product/D1/services"]);
    settings.tls = Some(ClientTls {
        ca_file: Some(data("ca.pem")),
        server_name: Some("localhost".into()),
        client_certificate: None,
    });
    let dock = up(settings).await;
    assert!(is_confirmed(&send(&dock.out, "thing/product/D1/events", "up").await));
    until("the uplink", || own.told.count("thing/product/D1/events up") == 1).await;
    let large = "x".repeat(200_000);
    assert!(is_confirmed(&send(&own.broker.outlet(), "thing/product/D1/services", &large).await));
    until("the downlink", || dock.told.messages().len() == 1).await;
    assert!(is_confirmed(&send(&dock.out, "thing/product/D1/events", &large).await));
}

/// More than the buffers of both sides hold: TLS takes bytes that it cannot write yet, and they leave all the same.
#[tokio::test]
async fn much_crosses_tls_though_the_socket_fills() {
    const COUNT: usize = 12;
    let own = own_with(secure()).await;
    let services = "thing/product/D1/services";
    let mut settings = config(own.broker.local_tls_addr().unwrap().port(), "D1", &[services]);
    settings.tls = Some(ClientTls {
        ca_file: Some(data("ca.pem")),
        server_name: Some("localhost".into()),
        client_certificate: None,
    });
    let dock = up(settings).await;
    let out = own.broker.outlet();
    for number in 0..COUNT {
        let payload = format!("{number} {}", "x".repeat(900_000));
        assert!(is_confirmed(&send(&out, services, &payload).await), "{number}");
    }
    // All at once at QoS 0: nothing that comes later pushes the last bytes out.
    let waiting = (0..COUNT).map(|number| {
        let payload = format!("{number} {}", "y".repeat(900_000));
        out.publish(Publish::new(services, payload).with_qos(Qos::AtMostOnce))
    });
    let sent = futures_util::future::join_all(waiting).await;
    let handed = sent.iter().filter(|sent| is_confirmed(sent)).count();
    assert!(handed > 0, "{sent:?}");
    until("all that was handed over", || dock.told.messages().len() == COUNT + handed).await;
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_is_refused() {
    let own = own_with(secure()).await;
    let mut settings = config(own.broker.local_tls_addr().unwrap().port(), "D1", &[]);
    settings.tls = Some(ClientTls {
        ca_file: None,
        server_name: Some("localhost".into()),
        client_certificate: None,
    });
    let dock = start(settings);
    until("the refusal", || !dock.told.downs().is_empty()).await;
    assert!(dock.told.downs()[0].contains("TLS"), "{:?}", dock.told.downs());
}

#[tokio::test]
async fn a_slow_handshake_holds_up_nobody() {
    let own = own_with(secure()).await;
    let port = own.broker.local_tls_addr().unwrap().port();
    let _slow = tokio::net::TcpStream::connect(here(port)).await.unwrap();
    let mut settings = config(port, "D1", &[]);
    settings.tls = Some(ClientTls {
        ca_file: Some(data("ca.pem")),
        server_name: Some("localhost".into()),
        client_certificate: None,
    });
    up(settings).await;
}

#[tokio::test]
async fn a_missing_key_is_named() {
    let (inbound, _told) = tokio::sync::mpsc::channel(1);
    let mut settings = secure();
    settings.tls.as_mut().unwrap().key = data("nothing.key");
    let err = Broker::start(settings, std::sync::Arc::new(TestDoor), inbound).await.unwrap_err();
    assert!(
        matches!(err, BrokerError::Tls { .. }) && err.to_string().contains("nothing.key"),
        "{err}"
    );
}
