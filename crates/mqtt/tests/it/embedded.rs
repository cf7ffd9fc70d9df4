//! What only the embedded broker promises: nobody gets what is not theirs, and nobody gets anything late.
#![expect(clippy::unwrap_used, reason = "a test stops where its assumption fails")]

use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::AsyncReadExt;
use tokio::time::sleep;
use utmos_mqtt::{BrokerConfig, Inbound, Publish, Qos, Sent};

use super::raw::{Hello, Raw, packet};
use super::support::{
    config, here, is_confirmed, own, own_with, send, sending, soon, start, until, up_as,
};

const SERVICES: &str = "thing/product/D1/services";

#[tokio::test]
async fn nobody_subscribed_reads_as_no_subscriber() {
    let own = own().await;
    let out = own.broker.outlet();
    assert_eq!(send(&out, SERVICES, "nobody is there").await, Sent::NoSubscriber);
    let mut dock = Raw::dock(own.broker.local_addr().port(), 5, "D1").await;
    assert_eq!(send(&out, SERVICES, "connected, not subscribed").await, Sent::NoSubscriber);
    assert_eq!(dock.subscribe(SERVICES).await, 1);
    until("the subscription to be known", || own.broker.is_subscribed("D1", SERVICES)).await;
    dock.disconnect().await;
    until("the dock to be gone", || own.told.presence().len() == 2).await;
    assert_eq!(send(&out, SERVICES, "gone").await, Sent::NoSubscriber);
}

/// Subscribed, left, came back with the wish to go on: what was published meanwhile is nobody's.
async fn nothing_waits_for_an_absent_client(version: u8, polite: bool) {
    let own = own().await;
    let port = own.broker.local_addr().port();
    let out = own.broker.outlet();
    let hello = || Hello { clean: false, ..Hello::new(version, "D1", "secret-D1") };
    let mut dock = Raw::connect(port, &hello()).await;
    assert_eq!(dock.subscribe(SERVICES).await, 1);
    let result = sending(&out, Publish::new(SERVICES, "unconfirmed"));
    assert_eq!(dock.next_publish().await.1, format!("{SERVICES} unconfirmed"));
    if polite {
        dock.disconnect().await;
    } else {
        drop(dock);
    }
    assert_eq!(soon("the result", result).await.unwrap(), Sent::Unknown);
    until("the dock to be gone", || own.told.presence().len() == 2).await;
    assert_eq!(send(&out, SERVICES, "meanwhile").await, Sent::NoSubscriber);

    let mut dock = Raw::connect(port, &hello()).await;
    assert_eq!(send(&out, SERVICES, "before it subscribes").await, Sent::NoSubscriber);
    assert_eq!(dock.subscribe(SERVICES).await, 1);
    let result = sending(&out, Publish::new(SERVICES, "now"));
    let (_, text, id) = dock.next_publish().await;
    assert_eq!(text, format!("{SERVICES} now"), "neither the old nor the unconfirmed one");
    dock.puback(id).await;
    assert!(is_confirmed(&soon("the result", result).await.unwrap()));
}

#[tokio::test]
async fn nothing_waits_for_an_absent_client_v5() {
    nothing_waits_for_an_absent_client(5, true).await;
    nothing_waits_for_an_absent_client(5, false).await;
}

#[tokio::test]
async fn nothing_waits_for_an_absent_client_v311() {
    nothing_waits_for_an_absent_client(4, true).await;
    nothing_waits_for_an_absent_client(4, false).await;
}

#[tokio::test]
async fn a_dock_reaches_its_own_topics_only() {
    for version in [4, 5] {
        let own = own().await;
        let mut dock = Raw::dock(own.broker.local_addr().port(), version, "D1").await;
        for filter in [
            "thing/product/D2/services",
            "#",
            "+/+/+/services",
            "thing/product/+/services",
            "thing/product/#",
            "$share/g/thing/product/D1/services",
        ] {
            assert!(dock.subscribe(filter).await >= 0x80, "{filter}");
        }
        assert_eq!(dock.subscribe(SERVICES).await, 1);
        let refused = dock.publish(0x32, "thing/product/D2/events", b"forged").await;
        // MQTT 3.1.1 has no word for it.
        assert_eq!(refused, Some(if version == 5 { 0x87 } else { 0 }));
        assert_eq!(dock.publish(0x32, "thing/product/D1/events", b"mine").await, Some(0));
        until("the message", || !own.told.messages().is_empty()).await;
        assert_eq!(own.told.messages(), ["thing/product/D1/events mine"]);
        assert_eq!(
            send(&own.broker.outlet(), "thing/product/D2/services", "for D2").await,
            Sent::NoSubscriber
        );
    }
}

#[tokio::test]
async fn a_message_carries_its_authenticated_user() {
    let own = own().await;
    let mut dock = Raw::dock(own.broker.local_addr().port(), 5, "D1").await;
    dock.publish(0x32, "thing/product/D1/events", b"mine").await;
    until("the message", || !own.told.messages().is_empty()).await;
    let told = own.told.all();
    assert!(
        told.iter()
            .any(|one| matches!(one, Inbound::Message { user: Some(user), .. } if &**user == "D1"))
    );
}

#[tokio::test]
async fn bad_logins_are_refused_and_slowed_down_but_not_locked_out() {
    let own = own().await;
    let port = own.broker.local_addr().port();
    let (_, code) = Raw::try_connect(port, &Hello { user: None, ..Hello::new(5, "D1", "") }).await;
    assert_eq!(code, Some(0x86), "anonymous");
    for _ in 0..5 {
        let (_, code) = Raw::try_connect(port, &Hello::new(5, "D1", "wrong")).await;
        assert_eq!(code, Some(0x86));
    }
    let (_, code) = Raw::try_connect(port, &Hello::new(5, "D1", "secret-D1")).await;
    assert_eq!(code, Some(0x9f), "the right password, too soon");
    let (_dock, code) = Raw::try_connect(port, &Hello::new(4, "D2", "secret-D2")).await;
    assert_eq!(code, Some(0), "another dock behind the same address");
    assert_eq!(own.told.presence(), ["+D2"]);

    let client = start(config(port, "D1", &[]));
    until("the client to be told", || !client.told.downs().is_empty()).await;
    until("the door to open again", || client.client.is_up()).await;
}

#[tokio::test]
async fn retained_messages_are_not_kept() {
    let own = own().await;
    let port = own.broker.local_addr().port();
    let watcher = up_as(port, "observer", &["thing/product/+/events"]).await;
    let mut dock = Raw::dock(port, 4, "D1").await;
    assert_eq!(dock.publish(0x33, "thing/product/D1/events", b"for ever").await, Some(0));
    until("the live message", || watcher.told.messages().len() == 1).await;
    let mut settings = config(port, "observer", &["thing/product/#"]);
    "id-late".clone_into(&mut settings.client_id);
    let late = super::support::up(settings).await;
    assert_eq!(dock.publish(0x32, "thing/product/D1/events", b"now").await, Some(0));
    until("the second message", || !late.told.messages().is_empty()).await;
    assert_eq!(late.told.messages(), ["thing/product/D1/events now"]);
}

#[tokio::test]
async fn too_large_is_refused_on_every_way() {
    let own =
        own_with(BrokerConfig { packet_bytes_max: 10_000, ..BrokerConfig::new(here(0)) }).await;
    let port = own.broker.local_addr().port();
    let large = "x".repeat(10_001);
    assert!(matches!(send(&own.broker.outlet(), SERVICES, &large).await, Sent::Refused(_)));
    let client = up_as(port, "observer", &[]).await;
    assert!(matches!(send(&client.out, SERVICES, &large).await, Sent::Refused(_)));
    assert!(client.client.is_up());

    let mut dock = Raw::dock(port, 5, "D1").await;
    assert_eq!(
        dock.publish(0x32, "thing/product/D1/events", large.as_bytes()).await,
        None,
        "the connection ends"
    );
    let mut dock = Raw::dock(port, 5, "D1").await;
    assert_eq!(dock.publish(0x32, "thing/product/D1/events", b"small").await, Some(0));
    until("the small one", || !own.told.messages().is_empty()).await;
    assert_eq!(own.told.messages(), ["thing/product/D1/events small"]);
}

#[tokio::test]
async fn malformed_bytes_end_one_connection_and_nothing_else() {
    let own = own().await;
    let port = own.broker.local_addr().port();
    let mut steady = Raw::dock(port, 5, "D9").await;
    let garbage: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: dock\r\n\r\n".to_vec(),
        vec![0xff; 64],
        vec![0x00, 0x00],
        vec![0x10, 0xff, 0xff, 0xff, 0xff, 0x01],
        vec![0x10, 0x02, 0x00, 0x04],
        packet(0x10, b"\x00\x04MQTT\x05\xff\xff\xff"),
        packet(0x30, b"\x00\x01a"),
        packet(0x10, b"\x00\x04MQTT\x09\x02\x00\x3c\x00\x00\x01a"),
    ];
    for bytes in &garbage {
        let mut tcp =
            tokio::net::TcpStream::connect(here(port)).await.unwrap_or_else(|err| panic!("{err}"));
        drop(tokio::io::AsyncWriteExt::write_all(&mut tcp, bytes).await);
        drop(tokio::io::AsyncWriteExt::shutdown(&mut tcp).await);
        let mut rest = Vec::new();
        soon("the end of a malformed connection", async {
            drop(tokio::io::AsyncReadExt::read_to_end(&mut tcp, &mut rest).await)
        })
        .await;
    }
    let after_login: Vec<Vec<u8>> = vec![
        packet(0x32, b"\x00\xffabc"),
        packet(0x32, b"\x00\x01a\x00\x00\x00"),
        packet(0x36, b"\x00\x01a\x00\x01\x00"),
        packet(0x82, b"\x00\x01\x00"),
        packet(0x80, b"\x00\x01\x00\x00\x01a\x00"),
        packet(0x30, b"\x00\x01\xff\x00"),
        packet(0x30, b"\x00\x01#\x00"),
        vec![0xf0, 0x00],
        vec![0x20, 0x00],
        vec![0x40, 0x01, 0x00],
    ];
    for bytes in &after_login {
        let mut dock = Raw::dock(port, 5, "D1").await;
        dock.write(bytes).await;
        drop(tokio::io::AsyncWriteExt::shutdown(&mut dock.tcp).await);
        while dock.next().await.is_some() {}
    }
    steady.ping().await;
    until("everyone else to be gone", || own.broker.clients() == 1).await;
    assert_eq!(own.told.messages(), [""; 0]);
}

#[tokio::test]
async fn a_withheld_message_reaches_nobody() {
    let own = own().await;
    let out = own.broker.outlet();
    let mut dock = Raw::dock(own.broker.local_addr().port(), 5, "D1").await;
    dock.subscribe(SERVICES).await;
    let late = Publish::new(SERVICES, "late").with_gate(|| false);
    assert_eq!(soon("the result", out.publish(late)).await, Sent::Withheld);
    let unasked = Publish::new("thing/product/D2/services", "nobody")
        .with_gate(|| panic!("asked for a message nobody gets"));
    assert_eq!(soon("the result", out.publish(unasked)).await, Sent::NoSubscriber);
    let result = sending(&out, Publish::new(SERVICES, "now").with_gate(|| true));
    let (_, text, id) = dock.next_publish().await;
    assert_eq!(text, format!("{SERVICES} now"));
    dock.puback(id).await;
    assert!(is_confirmed(&soon("the result", result).await.unwrap()));
}

#[tokio::test]
async fn a_client_that_confirms_nothing_is_dismissed_and_gets_nothing_late() {
    let own = own().await;
    let port = own.broker.local_addr().port();
    let out = own.broker.outlet();
    let mut dock =
        Raw::connect(port, &Hello { receive_max: Some(3), ..Hello::new(5, "D1", "secret-D1") })
            .await;
    dock.subscribe(SERVICES).await;
    let sent: Vec<_> =
        (0..3).map(|number| sending(&out, Publish::new(SERVICES, number.to_string()))).collect();
    for _ in &sent {
        dock.next_publish().await;
    }
    let asked = Publish::new(SERVICES, "too much")
        .with_expiry(Duration::from_secs(1))
        .with_gate(|| panic!("asked in vain"));
    assert!(matches!(soon("the refusal", out.publish(asked)).await, Sent::Refused(_)));
    until("the dismissal", || own.told.presence() == ["+D1", "-D1"]).await;
    for result in sent {
        assert_eq!(soon("the result", result).await.unwrap(), Sent::Unknown);
    }
}

#[tokio::test]
async fn a_window_that_opens_lets_the_next_message_out() {
    let own = own().await;
    let port = own.broker.local_addr().port();
    let out = own.broker.outlet();
    let mut dock =
        Raw::connect(port, &Hello { receive_max: Some(2), ..Hello::new(5, "D1", "secret-D1") })
            .await;
    dock.subscribe(SERVICES).await;
    let sending = tokio::spawn(async move {
        join_all((0..20).map(|number| out.publish(Publish::new(SERVICES, number.to_string()))))
            .await
    });
    for number in 0..20 {
        let (_, text, id) = dock.next_publish().await;
        assert_eq!(text, format!("{SERVICES} {number}"));
        dock.puback(id).await;
    }
    let results = soon("all results", sending).await.unwrap_or_default();
    assert!(results.len() == 20 && results.iter().all(is_confirmed), "{results:?}");
}

/// Long enough for what must not happen to happen.
const A_WHILE: Duration = Duration::from_millis(150);

#[tokio::test]
async fn confirmed_means_that_the_docks_own_word_came() {
    for version in [4, 5] {
        let own = own().await;
        let out = own.broker.outlet();
        let mut dock = Raw::dock(own.broker.local_addr().port(), version, "D1").await;
        dock.subscribe(SERVICES).await;
        let first = sending(&out, Publish::new(SERVICES, "first"));
        let (_, _, first_id) = dock.next_publish().await;
        let second = sending(&out, Publish::new(SERVICES, "second"));
        let (_, _, second_id) = dock.next_publish().await;
        sleep(A_WHILE).await;
        assert!(!first.is_finished() && !second.is_finished(), "it has said nothing yet");
        dock.puback(first_id).await;
        let packet_id = Some(first_id);
        assert_eq!(
            soon("the first result", first).await.unwrap(),
            Sent::Confirmed { packet_id },
            "with the id it had on the wire"
        );
        sleep(A_WHILE).await;
        assert!(!second.is_finished(), "it has said nothing of the second");
        // A PUBACK for nothing confirms nothing.
        dock.puback(second_id + 7).await;
        dock.puback(first_id).await;
        sleep(A_WHILE).await;
        assert!(!second.is_finished());
        dock.puback(second_id).await;
        assert!(is_confirmed(&soon("the second result", second).await.unwrap()));

        // Out of turn, as no client should.
        let passed = sending(&out, Publish::new(SERVICES, "passed"));
        dock.next_publish().await;
        let early = sending(&out, Publish::new(SERVICES, "early"));
        let (_, _, early_id) = dock.next_publish().await;
        dock.puback(early_id).await;
        assert!(is_confirmed(&soon("the early result", early).await.unwrap()));
        sleep(A_WHILE).await;
        assert!(!passed.is_finished());

        let third = sending(&out, Publish::new(SERVICES, "third"));
        dock.next_publish().await;
        drop(dock);
        assert_eq!(soon("the third result", third).await.unwrap(), Sent::Unknown);
        assert_eq!(soon("the result", passed).await.unwrap(), Sent::Unknown);
    }
}

#[tokio::test]
async fn messages_that_nobody_waits_for_do_not_confuse_the_count() {
    let own = own().await;
    let out = own.broker.outlet();
    let mut dock = Raw::dock(own.broker.local_addr().port(), 5, "D1").await;
    dock.subscribe(SERVICES).await;
    let forsaken = sending(&out, Publish::new(SERVICES, "forsaken"));
    let (_, _, forsaken_id) = dock.next_publish().await;
    forsaken.abort();
    // Neither QoS 0 nor QoS 2 (granted as 1) disturbs.
    let zero = out.publish(Publish::new(SERVICES, "zero").with_qos(Qos::AtMostOnce));
    assert!(is_confirmed(&soon("the result", zero).await));
    dock.next_publish().await;
    let two = sending(&out, Publish::new(SERVICES, "two").with_qos(Qos::ExactlyOnce));
    let (head, _, two_id) = dock.next_publish().await;
    assert_eq!(head & 0x06, 0x02, "granted as QoS 1");
    dock.puback(forsaken_id).await;
    sleep(A_WHILE).await;
    assert!(!two.is_finished());
    dock.puback(two_id).await;
    assert!(is_confirmed(&soon("the result", two).await.unwrap()));
}

#[tokio::test]
async fn past_its_time_an_unconfirmed_message_is_unknown_and_its_connection_cut() {
    const COUNT: usize = 12;
    const BYTES: usize = 1_000_000;
    let own = own().await;
    let port = own.broker.local_addr().port();
    let out = own.broker.outlet();
    let mut dock = Raw::dock(port, 5, "D1").await;
    dock.subscribe(SERVICES).await;
    // More than the buffers of both sides hold; the dock reads nothing.
    let sent: Vec<_> = (0..COUNT)
        .map(|_| {
            sending(
                &out,
                Publish::new(SERVICES, "x".repeat(BYTES)).with_expiry(Duration::from_secs(1)),
            )
        })
        .collect();
    for result in sent {
        let result = soon("the result", result).await.unwrap();
        assert!(matches!(result, Sent::Unknown | Sent::NoSubscriber), "{result:?}");
    }
    until("the dock to be gone", || own.told.presence() == ["+D1", "-D1"]).await;
    assert_eq!(send(&out, SERVICES, "gone").await, Sent::NoSubscriber);
    sleep(A_WHILE).await;
    let mut late = Vec::new();
    let end = soon("the end", dock.tcp.read_to_end(&mut late)).await;
    let end = end.map_err(|err| err.kind());
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset), "cut, not closed");
    assert!(late.len() < COUNT * BYTES, "what was still on this side went with it");
}

/// What other clients send to a dock, and how, changes nothing about ours: each waits for its own confirmation.
#[tokio::test]
async fn messages_of_others_do_not_confirm_ours() {
    let own = own().await;
    let port = own.broker.local_addr().port();
    let out = own.broker.outlet();
    let mut dock = Raw::dock(port, 5, "D1").await;
    dock.subscribe(SERVICES).await;
    let ours = sending(&out, Publish::new(SERVICES, "ours"));
    let (_, _, our_id) = dock.next_publish().await;
    let observer = up_as(port, "observer", &[]).await;
    assert!(is_confirmed(&send(&observer.out, SERVICES, "theirs").await));
    let (_, text, their_id) = dock.next_publish().await;
    assert_eq!(text, format!("{SERVICES} theirs"));
    dock.puback(their_id).await;
    sleep(A_WHILE).await;
    assert!(!ours.is_finished(), "that was for theirs");
    dock.puback(our_id).await;
    assert_eq!(
        soon("the result", ours).await.unwrap(),
        Sent::Confirmed { packet_id: Some(our_id) }
    );
}

/// Another connection of D1 under its own client id.
async fn another(port: u16, client_id: &'static str) -> Raw {
    Raw::connect(port, &Hello { client_id, ..Hello::new(5, "D1", "secret-D1") }).await
}

#[tokio::test]
async fn overlapping_filters_of_a_connection_get_one_copy() {
    for version in [4, 5] {
        let own = own().await;
        let out = own.broker.outlet();
        let mut dock = Raw::dock(own.broker.local_addr().port(), version, "D1").await;
        let filters = ["thing/product/D1/#", SERVICES, "thing/product/D1/+", SERVICES];
        for filter in filters {
            assert_eq!(dock.subscribe(filter).await, 1);
        }
        // The same words twice are two messages, also at QoS 0.
        for qos in [Qos::AtLeastOnce, Qos::AtLeastOnce, Qos::AtMostOnce, Qos::AtMostOnce] {
            let sent = sending(&out, Publish::new(SERVICES, "go").with_qos(qos));
            let (_, text, id) = dock.next_publish().await;
            assert_eq!(text, format!("{SERVICES} go"));
            if qos == Qos::AtLeastOnce {
                sleep(A_WHILE).await;
                assert!(!sent.is_finished(), "its own word is waited for");
                dock.puback(id).await;
            }
            assert!(is_confirmed(&soon("the result", sent).await.unwrap()));
        }
        // Whatever came twice would come before this.
        let last = sending(&out, Publish::new(SERVICES, "last"));
        let (_, text, id) = dock.next_publish().await;
        assert_eq!(text, format!("{SERVICES} last"));
        dock.puback(id).await;
        let packet_id = Some(id);
        assert_eq!(soon("the result", last).await.unwrap(), Sent::Confirmed { packet_id });
    }
}

#[tokio::test]
async fn of_a_users_connections_the_newest_that_listens_gets_a_message() {
    let own = own().await;
    let port = own.broker.local_addr().port();
    let out = own.broker.outlet();
    let mut old = Raw::dock(port, 5, "D1").await;
    let mut new = another(port, "D1-new").await;
    let mut deaf = another(port, "D1-deaf").await;
    new.subscribe("thing/product/D1/#").await;
    old.subscribe(SERVICES).await;
    until("all", || own.broker.clients() == 3).await;
    for word in ["one", "two"] {
        let sent = sending(&out, Publish::new(SERVICES, word));
        let (_, text, id) = new.next_publish().await;
        assert_eq!(text, format!("{SERVICES} {word}"));
        sleep(A_WHILE).await;
        assert!(!sent.is_finished(), "its word is waited for");
        new.puback(id).await;
        assert!(is_confirmed(&soon("the result", sent).await.unwrap()));
    }
    // It leaves with a message it has not confirmed: that one is not given to the other.
    let lost = sending(&out, Publish::new(SERVICES, "lost"));
    new.next_publish().await;
    drop(new);
    assert_eq!(soon("the result", lost).await.unwrap(), Sent::Unknown);
    until("it to be gone", || own.broker.clients() == 2).await;
    assert!(own.broker.is_subscribed("D1", SERVICES), "the other still listens");
    let sent = sending(&out, Publish::new(SERVICES, "now"));
    let (_, text, id) = old.next_publish().await;
    assert_eq!(text, format!("{SERVICES} now"), "nothing that went to the newer one");
    old.puback(id).await;
    assert!(is_confirmed(&soon("the result", sent).await.unwrap()));
    deaf.ping().await;
}

#[tokio::test]
async fn two_users_that_listen_get_a_copy_each_and_keep_their_count() {
    let own = own().await;
    let port = own.broker.local_addr().port();
    let out = own.broker.outlet();
    let mut dock = Raw::dock(port, 5, "D1").await;
    dock.subscribe(SERVICES).await;
    let mut other = Raw::dock(port, 5, "observer").await;
    other.subscribe(SERVICES).await;
    assert!(is_confirmed(&send(&out, SERVICES, "both").await), "handed over");
    let (_, _, both) = dock.next_publish().await;
    assert_eq!(other.next_publish().await.1, format!("{SERVICES} both"));
    other.disconnect().await;
    until("one to be left", || own.broker.clients() == 1).await;
    let one = sending(&out, Publish::new(SERVICES, "one"));
    let (_, _, id) = dock.next_publish().await;
    dock.puback(both).await;
    sleep(A_WHILE).await;
    assert!(!one.is_finished(), "that was for the other message");
    dock.puback(id).await;
    assert!(is_confirmed(&soon("the result", one).await.unwrap()));
}

#[tokio::test]
async fn a_connection_has_so_many_subscriptions_and_no_more() {
    for (version, over_quota) in [(4, 0x80), (5, 0x97)] {
        let own = own().await;
        let mut dock = Raw::dock(own.broker.local_addr().port(), version, "D1").await;
        for number in 0..64 {
            assert_eq!(dock.subscribe(&format!("thing/product/D1/{number}/#")).await, 1);
        }
        assert_eq!(dock.subscribe(SERVICES).await, over_quota);
        assert_eq!(dock.subscribe("thing/product/D1/0/#").await, 1, "it has that one");
        assert!(!own.broker.is_subscribed("D1", SERVICES));
        assert_eq!(send(&own.broker.outlet(), SERVICES, "go").await, Sent::NoSubscriber);
    }
}

#[tokio::test]
async fn guessers_shut_out_nobody_else_behind_their_address() {
    let own = own().await;
    let port = own.broker.local_addr().port();
    for guess in 0..25 {
        let users = [0, 1, 2, 3].map(|more| format!("guess-{}", guess * 4 + more));
        let tries = users.iter().map(|user| async move {
            Raw::try_connect(port, &Hello::new(5, user, "wrong")).await.1
        });
        assert_eq!(join_all(tries).await, [Some(0x86); 4]);
    }
    let (_dock, code) = Raw::try_connect(port, &Hello::new(5, "D1", "secret-D1")).await;
    assert_eq!(code, Some(0), "the right password of another user");
    let (_, code) = Raw::try_connect(port, &Hello::new(5, "guess", "wrong")).await;
    assert_eq!(code, Some(0x86), "the guesser goes on, slowly");
    let (_dock, code) = Raw::try_connect(port, &Hello::new(4, "D2", "secret-D2")).await;
    assert_eq!(code, Some(0));
}

/// A dock's own QoS 2 messages have ids of their own.
#[tokio::test]
async fn a_dock_may_publish_with_qos_2_while_ours_are_under_way() {
    let own = own().await;
    let out = own.broker.outlet();
    let mut dock = Raw::dock(own.broker.local_addr().port(), 4, "D1").await;
    dock.subscribe(SERVICES).await;
    let ours = sending(&out, Publish::new(SERVICES, "ours"));
    let (_, _, id) = dock.next_publish().await;
    let mut body = vec![0, 23];
    body.extend_from_slice(b"thing/product/D1/events");
    body.extend_from_slice(&id.to_be_bytes());
    body.extend_from_slice(b"two");
    // Twice, as when its answer was lost.
    for head in [0x34, 0x3c] {
        dock.write(&packet(head, &body)).await;
        let received = dock.next().await.unwrap();
        assert_eq!(received, (0x50, id.to_be_bytes().to_vec()));
    }
    dock.write(&packet(0x62, &id.to_be_bytes())).await;
    assert_eq!(dock.next().await.unwrap(), (0x70, id.to_be_bytes().to_vec()));
    assert_eq!(own.told.count("thing/product/D1/events two"), 1, "once");
    assert!(!ours.is_finished(), "none of that was its word for ours");
    dock.puback(id).await;
    assert!(is_confirmed(&soon("the result", ours).await.unwrap()));
    // Released, the id is free for another message.
    dock.write(&packet(0x34, &body)).await;
    assert_eq!(dock.next().await.unwrap().0, 0x50);
    until("the second", || own.told.count("thing/product/D1/events two") == 2).await;
}

/// A listener that takes nothing holds its sender up for a while, loses its place, and costs the sender nothing more.
#[tokio::test]
async fn a_listener_that_takes_nothing_is_let_go_and_holds_nobody_up_for_ever() {
    let own = own().await;
    let port = own.broker.local_addr().port();
    let hello = Hello { receive_max: Some(1), ..Hello::new(5, "observer", "secret-observer") };
    let mut deaf = Raw::connect(port, &hello).await;
    deaf.subscribe("thing/product/D1/#").await;
    let mut dock = Raw::dock(port, 5, "D1").await;
    for number in 0..200 {
        let code = dock.publish(0x32, "thing/product/D1/events", b"x").await;
        assert_eq!(code, Some(0), "{number}");
    }
    until("all of them", || own.told.messages().len() == 200).await;
    until("the listener to be gone", || own.broker.clients() == 1).await;
    dock.ping().await;
    let mut got = 0;
    while let Some((head, _)) = deaf.next().await {
        got += usize::from(head >> 4 == 3);
    }
    assert_eq!(got, 1, "no more than it may have unconfirmed");
}

/// Sent in two steps, and asked for in two steps.
#[tokio::test]
async fn a_message_with_qos_2_is_confirmed_by_its_last_step() {
    for version in [4, 5] {
        let own = own().await;
        let out = own.broker.outlet();
        let mut dock = Raw::dock(own.broker.local_addr().port(), version, "D1").await;
        let mut body = vec![0, 7];
        if version == 5 {
            body.push(0);
        }
        body.extend_from_slice(&[0, 25]);
        body.extend_from_slice(SERVICES.as_bytes());
        body.push(2);
        dock.write(&packet(0x82, &body)).await;
        assert_eq!(dock.next().await.unwrap().1.last(), Some(&2));
        let sent = sending(&out, Publish::new(SERVICES, "go").with_qos(Qos::ExactlyOnce));
        let (head, _, id) = dock.next_publish().await;
        assert_eq!(head & 0x06, 0x04);
        dock.puback(id).await;
        dock.write(&packet(0x50, &id.to_be_bytes())).await;
        assert_eq!(dock.next().await.unwrap(), (0x62, id.to_be_bytes().to_vec()));
        sleep(A_WHILE).await;
        assert!(!sent.is_finished(), "half-way, and a PUBACK is not its word");
        dock.write(&packet(0x70, &id.to_be_bytes())).await;
        let packet_id = Some(id);
        assert_eq!(soon("the result", sent).await.unwrap(), Sent::Confirmed { packet_id });
    }
}

/// What the CONNACK says of a nameless client's name, and of what there is not.
#[tokio::test]
async fn a_nameless_client_is_given_a_name_and_told_what_there_is_not() {
    let own = own().await;
    let port = own.broker.local_addr().port();
    let mut tcp = tokio::net::TcpStream::connect(here(port)).await.unwrap();
    let hello = Hello { client_id: "", ..Hello::new(5, "D1", "secret-D1") };
    tokio::io::AsyncWriteExt::write_all(&mut tcp, &hello.bytes()).await.unwrap();
    let mut head = [0; 5];
    soon("the CONNACK", tcp.read_exact(&mut head)).await.unwrap();
    assert_eq!((head[0], head[3]), (0x20, 0));
    let mut properties = vec![0; usize::from(head[4])];
    soon("its properties", tcp.read_exact(&mut properties)).await.unwrap();
    let text = String::from_utf8_lossy(&properties).into_owned();
    assert!(text.contains("auto-"), "the name it was given: {text}");
    for (what, pair) in [("retained", [0x25, 0]), ("shared", [0x2a, 0]), ("identifiers", [0x29, 0])]
    {
        assert!(properties.windows(2).any(|two| two == pair), "{what}");
    }
    let (_, code) = Raw::try_connect(
        port,
        &Hello { client_id: "", clean: false, ..Hello::new(4, "D2", "secret-D2") },
    )
    .await;
    assert_eq!(code, Some(2), "one that wants to be remembered needs a name");
    until("the one", || own.told.presence() == ["+D1"]).await;
}

#[tokio::test]
async fn unsubscribed_means_that_nothing_comes_any_more() {
    for version in [4, 5] {
        let own = own().await;
        let out = own.broker.outlet();
        let mut dock = Raw::dock(own.broker.local_addr().port(), version, "D1").await;
        dock.subscribe(SERVICES).await;
        for known in [true, false] {
            let mut body = vec![0, 8];
            if version == 5 {
                body.push(0);
            }
            body.extend_from_slice(&[0, 25]);
            body.extend_from_slice(SERVICES.as_bytes());
            dock.write(&packet(0xa2, &body)).await;
            let (head, body) = dock.next().await.unwrap();
            assert_eq!((head, &body[..2]), (0xb0, &[0, 8][..]));
            let code: &[u8] = if version == 4 { &[] } else { &[0, if known { 0 } else { 0x11 }] };
            assert_eq!(&body[2..], code);
        }
        assert_eq!(send(&out, SERVICES, "go").await, Sent::NoSubscriber);
        assert!(!own.broker.is_subscribed("D1", SERVICES));
    }
}
