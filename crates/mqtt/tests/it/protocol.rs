//! The agreement on a protocol, and brokers that behave badly.
#![expect(clippy::unwrap_used, reason = "a test stops where its assumption fails")]

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use utmos_mqtt::{Protocol, ProtocolChoice, Publish, Qos, Sent};

use super::support::{config, here, own, send, sending, soon, start, until, up};

const SECOND: Duration = Duration::from_secs(1);

async fn connect_version(tcp: &mut TcpStream) -> u8 {
    let mut head = [0; 2];
    tcp.read_exact(&mut head).await.unwrap();
    let mut body = vec![0; usize::from(head[1])];
    tcp.read_exact(&mut body).await.unwrap();
    body[6]
}

/// A broker that knows 3.1.1 only and answers MQTT 5 with `refusal` before it closes.
async fn old_broker(refusal: &'static [u8]) -> u16 {
    let listener = TcpListener::bind(here(0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                if connect_version(&mut tcp).await == 5 {
                    tcp.write_all(refusal).await.unwrap();
                    return;
                }
                tcp.write_all(&[0x20, 2, 0, 0]).await.unwrap();
                let mut buf = [0; 256];
                while let Ok(1..) = tcp.read(&mut buf).await {}
            });
        }
    });
    port
}

#[tokio::test]
async fn a_broker_without_mqtt_5_gets_3_1_1() {
    for refusal in [&[0x20, 2, 0, 1][..], &[0x20, 3, 0, 0x84, 0], &[0x20, 2, 0, 0], &[]] {
        let mut settings = config(old_broker(refusal).await, "D1", &[]);
        settings.protocol = ProtocolChoice::Auto;
        let client = up(settings).await;
        assert_eq!(client.told.ups(), [Protocol::V311], "{refusal:?}");
    }
}

#[tokio::test]
async fn mqtt_5_is_preferred() {
    let own = own().await;
    let client = up(config(own.broker.local_addr().port(), "D1", &[])).await;
    assert_eq!(client.told.ups(), [Protocol::V5]);
}

#[tokio::test]
async fn a_choice_is_kept() {
    let mut settings = config(old_broker(&[0x20, 2, 0, 1]).await, "D1", &[]);
    settings.protocol = ProtocolChoice::V5;
    let client = start(settings);
    until("the refusal", || !client.told.downs().is_empty()).await;
    assert!(
        client.told.downs()[0].contains("UnsupportedProtocolVersion"),
        "{:?}",
        client.told.downs()
    );
    assert_eq!(send(&client.out, "a/b", "hello").await, Sent::NotConnected);
}

#[tokio::test]
async fn a_refused_subscription_keeps_the_link_down_and_says_which() {
    let own = own().await;
    let client = start(config(
        own.broker.local_addr().port(),
        "D1",
        &["thing/product/D1/services", "thing/product/D2/services"],
    ));
    until("the refusal", || !client.told.downs().is_empty()).await;
    assert!(client.told.downs()[0].contains("thing/product/D2/services"));
    assert!(client.told.ups().is_empty() && !client.client.is_up());
}

#[tokio::test]
async fn one_reason_is_told_once() {
    let port = TcpListener::bind(here(0)).await.unwrap().local_addr().unwrap().port();
    let client = start(config(port, "D1", &[]));
    until("the refusal", || !client.told.downs().is_empty()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(client.told.downs().len(), 1, "{:?}", client.told.downs());
    soon("the shutdown", client.client.shutdown()).await;
}

#[tokio::test]
async fn a_silent_broker_is_given_up() {
    let listener = TcpListener::bind(here(0)).await.unwrap();
    let mut settings = config(listener.local_addr().unwrap().port(), "D1", &[]);
    settings.keep_alive = Duration::from_secs(1);
    let client = start(settings);
    let (mut tcp, _) = soon("the client", listener.accept()).await.unwrap();
    assert_eq!(connect_version(&mut tcp).await, 5);
    tcp.write_all(&[0x20, 3, 0, 0, 0]).await.unwrap();
    until("the link", || client.client.is_up()).await;
    let publish = tokio::spawn({
        let out = client.client.outlet();
        async move { send(&out, "a/b", "hello").await }
    });
    until("the silence to be noticed", || client.told.downs() == ["the broker is silent"]).await;
    assert_eq!(soon("the result", publish).await.unwrap(), Sent::Unknown);
}

/// Long before the keep-alive would tell: whoever asked for a confirmation waits for it. And what was written is not
/// delivered later, when the network is whole again.
#[tokio::test]
async fn a_publish_that_nothing_answers_gives_the_broker_up_before_its_keep_alive_does() {
    let listener = TcpListener::bind(here(0)).await.unwrap();
    let mut settings = config(listener.local_addr().unwrap().port(), "D1", &[]);
    // Quiet alone is noticed after 17.5 s, longer than anything here is waited for.
    settings.keep_alive = Duration::from_secs(14);
    let client = start(settings);
    let (mut tcp, _) = soon("the client", listener.accept()).await.unwrap();
    assert_eq!(connect_version(&mut tcp).await, 5);
    tcp.write_all(&[0x20, 3, 0, 0, 0]).await.unwrap();
    until("the link", || client.client.is_up()).await;
    let publish = tokio::spawn({
        let out = client.client.outlet();
        async move { send(&out, "a/b", "hello").await }
    });
    until("the silence to be noticed", || client.told.downs() == ["the broker is silent"]).await;
    assert_eq!(soon("the result", publish).await.unwrap(), Sent::Unknown);
    // The connection was reset, not closed behind what was written.
    let mut rest = Vec::new();
    let ended = soon("the end", tcp.read_to_end(&mut rest)).await.unwrap_err();
    assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset);
}

/// It is heard all the time, so nothing is silent; but what was written may be anywhere, and would be late.
#[tokio::test]
async fn a_broker_that_has_not_read_a_message_in_its_time_is_left() {
    for qos in [Qos::AtLeastOnce, Qos::AtMostOnce] {
        let listener = TcpListener::bind(here(0)).await.unwrap();
        let client = start(config(listener.local_addr().unwrap().port(), "D1", &[]));
        let (mut tcp, _) = soon("the client", listener.accept()).await.unwrap();
        assert_eq!(connect_version(&mut tcp).await, 5);
        tcp.write_all(&[0x20, 3, 0, 0, 0]).await.unwrap();
        until("the link", || client.client.is_up()).await;
        let message = Publish::new("a/b", "hello").with_qos(qos).with_expiry(SECOND);
        let publish = tokio::spawn({
            let out = client.client.outlet();
            async move { out.publish(message).await }
        });
        let talk = tokio::spawn(async move {
            // Messages of others, until the connection is reset.
            while tcp.write_all(&[0x30, 5, 0, 1, b'c', 0, b'x']).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let why = "the broker has not read a message in its time";
        until("it to be left", || client.told.downs() == [why]).await;
        let sent = soon("the result", publish).await.unwrap();
        let unconfirmed = Sent::Confirmed { packet_id: None };
        let expected = if qos == Qos::AtMostOnce { unconfirmed } else { Sent::Unknown };
        assert_eq!(sent, expected);
        soon("the end", talk).await.unwrap();
    }
}

#[tokio::test]
async fn a_broker_that_has_read_a_message_may_take_its_time_to_confirm_it() {
    for qos in [Qos::AtLeastOnce, Qos::AtMostOnce] {
        let listener = TcpListener::bind(here(0)).await.unwrap();
        let client = start(config(listener.local_addr().unwrap().port(), "D1", &[]));
        let (mut tcp, _) = soon("the client", listener.accept()).await.unwrap();
        assert_eq!(connect_version(&mut tcp).await, 5);
        tcp.write_all(&[0x20, 3, 0, 0, 0]).await.unwrap();
        until("the link", || client.client.is_up()).await;
        let out = client.client.outlet();
        let message = Publish::new("a/b", "hello").with_qos(qos).with_expiry(SECOND);
        let _publish = tokio::spawn(async move { out.publish(message).await });
        let mut read = Vec::new();
        // Nobody asked for it but the message.
        while !read.ends_with(&[0xc0, 0]) {
            let count = soon("a ping", tcp.read_buf(&mut read)).await.unwrap();
            assert!(count > 0, "it left: {:?}", client.told.downs());
        }
        tcp.write_all(&[0xd0, 0]).await.unwrap();
        tokio::time::sleep(2 * SECOND).await;
        assert!(client.client.is_up() && client.told.downs().is_empty());
    }
}

#[tokio::test]
async fn a_broker_that_answers_and_confirms_nothing_is_kept() {
    let listener = TcpListener::bind(here(0)).await.unwrap();
    let mut settings = config(listener.local_addr().unwrap().port(), "D1", &[]);
    settings.keep_alive = Duration::from_secs(1);
    let client = start(settings);
    let (mut tcp, _) = soon("the client", listener.accept()).await.unwrap();
    assert_eq!(connect_version(&mut tcp).await, 5);
    tcp.write_all(&[0x20, 3, 0, 0, 0]).await.unwrap();
    until("the link", || client.client.is_up()).await;
    let out = client.client.outlet();
    let _publish = tokio::spawn(async move { send(&out, "a/b", "hello").await });
    let (mut read, mut pings) = ([0; 256], 0);
    while pings < 6 {
        let count = soon("a ping", tcp.read(&mut read)).await.unwrap();
        assert!(count > 0, "it left: {:?}", client.told.downs());
        if read[..count].ends_with(&[0xc0, 0]) {
            pings += 1;
            tcp.write_all(&[0xd0, 0]).await.unwrap();
        }
    }
    assert!(client.client.is_up() && client.told.downs().is_empty());
}

#[tokio::test]
async fn a_broker_that_sends_rubbish_is_left() {
    let listener = TcpListener::bind(here(0)).await.unwrap();
    let _client = start(config(listener.local_addr().unwrap().port(), "D1", &[]));
    for rubbish in [
        &[0x30, 0xff, 0xff, 0xff, 0xff][..],
        &[0x32, 3, 0, 9, b'a'],
        &[0xf1, 0],
        &[0x82, 0],
        &[0x40, 1, 0],
    ] {
        let (mut tcp, _) = soon("the client", listener.accept()).await.unwrap();
        connect_version(&mut tcp).await;
        tcp.write_all(&[0x20, 3, 0, 0, 0]).await.unwrap();
        tcp.write_all(rubbish).await.unwrap();
        let mut rest = Vec::new();
        soon("the end", async { drop(tcp.read_to_end(&mut rest).await) }).await;
    }
}

#[tokio::test]
async fn passwords_are_not_printed() {
    let mut settings = config(1, "D1", &[]);
    settings.password = Some(utmos_mqtt::Password::new("hunter2"));
    let text = format!("{settings:?}");
    assert!(!text.contains("hunter2") && !text.contains("104, 117"), "{text}");
}

/// What is urgent passes what is queued, and finds a place although the broker confirms nothing.
#[tokio::test]
async fn urgent_messages_pass_the_queue_and_have_a_place_of_their_own() {
    let listener = TcpListener::bind(here(0)).await.unwrap();
    let client = start(config(listener.local_addr().unwrap().port(), "D1", &[]));
    let (mut tcp, _) = soon("the client", listener.accept()).await.unwrap();
    assert_eq!(connect_version(&mut tcp).await, 5);
    // Receive maximum 4.
    tcp.write_all(&[0x20, 6, 0, 0, 3, 0x21, 0, 4]).await.unwrap();
    until("the link", || client.client.is_up()).await;

    let mut usual: Vec<_> =
        (0..6).map(|_| sending(&client.out, Publish::new("a", "usual"))).collect();
    let mut wire = Vec::new();
    let usual_bytes = b"\x32\x0b\0\x01a\0\0\0usual".len();
    while wire.len() < 3 * usual_bytes {
        soon("the first three", tcp.read_buf(&mut wire)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let urgent = sending(&client.out, Publish::new("a", "urgent").with_urgent());
    while wire.len() < 4 * usual_bytes + 1 {
        soon("the urgent one", tcp.read_buf(&mut wire)).await.unwrap();
    }
    assert!(wire.ends_with(b"urgent"), "{}", String::from_utf8_lossy(&wire));
    assert_eq!(wire.len(), 4 * usual_bytes + 1, "the others wait");
    let later = sending(&client.out, Publish::new("a", "urgent").with_urgent());
    tokio::time::sleep(Duration::from_millis(100)).await;

    // Two places: one for what is urgent, and one that stays kept.
    let id = |index: usize| wire[index * usual_bytes + 5..][..2].to_vec();
    for id in [id(0), id(3)] {
        tcp.write_all(&[0x40, 2, id[0], id[1]]).await.unwrap();
    }
    assert!(matches!(soon("the result", urgent).await.unwrap(), Sent::Confirmed { .. }));
    let mut more = Vec::new();
    while more.len() < usual_bytes + 1 {
        soon("the second urgent one", tcp.read_buf(&mut more)).await.unwrap();
    }
    assert!(more.ends_with(b"urgent"), "{}", String::from_utf8_lossy(&more));

    drop(tcp);
    assert_eq!(soon("the result", later).await.unwrap(), Sent::Unknown);
    let mut results = Vec::new();
    for one in usual.drain(..) {
        results.push(soon("the result", one).await.unwrap());
    }
    let count = |sent: &Sent| results.iter().filter(|one| *one == sent).count();
    assert_eq!(
        (count(&Sent::Unknown), count(&Sent::NotConnected)),
        (2, 3),
        "one confirmed, two on the wire, three that never left: {results:?}"
    );
}

/// A confirmation was asked for, and there is none: that the bytes left is no more than "perhaps".
#[tokio::test]
async fn a_broker_that_lowers_the_quality_of_service_confirms_nothing() {
    let listener = TcpListener::bind(here(0)).await.unwrap();
    let client = start(config(listener.local_addr().unwrap().port(), "D1", &[]));
    let (mut tcp, _) = soon("the client", listener.accept()).await.unwrap();
    assert_eq!(connect_version(&mut tcp).await, 5);
    // Maximum QoS 0.
    tcp.write_all(&[0x20, 5, 0, 0, 2, 0x24, 0]).await.unwrap();
    until("the link", || client.client.is_up()).await;
    assert_eq!(send(&client.out, "a/b", "one").await, Sent::Unknown);
    let asked = Publish::new("a/b", "two").with_qos(utmos_mqtt::Qos::AtMostOnce);
    let sent = soon("the result", client.out.publish(asked)).await;
    assert_eq!(sent, Sent::Confirmed { packet_id: None });
    let mut wire = vec![0; 2 * b"\x30\x09\0\x03a/b\0one".len()];
    soon("both", tcp.read_exact(&mut wire)).await.unwrap();
    assert_eq!(wire, b"\x30\x09\0\x03a/b\0one\x30\x09\0\x03a/b\0two");
}
