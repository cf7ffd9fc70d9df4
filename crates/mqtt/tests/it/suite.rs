//! What a client may expect of any broker.

use futures_util::future::join_all;
use utmos_mqtt::{Protocol, Publish, Qos, Sent};

use super::raw::Raw;
use super::support::{
    Any, Mosquitto, choice, config, is_confirmed, own, send, soon, until, up, up_as,
};

async fn round_trip(broker: Any, protocol: Protocol) {
    let topic = "thing/product/observer/services";
    let mut settings = config(broker.port(), "observer", &[topic]);
    settings.protocol = choice(protocol);
    let client = up(settings).await;
    assert_eq!(client.told.ups(), [protocol]);

    for (qos, word) in
        [(Qos::AtMostOnce, "zero"), (Qos::AtLeastOnce, "one"), (Qos::ExactlyOnce, "two")]
    {
        let sent =
            soon("a confirmation", client.out.publish(Publish::new(topic, word).with_qos(qos)))
                .await;
        assert!(is_confirmed(&sent), "{word}: {sent:?}");
        until("the message", || client.told.count(&format!("{topic} {word}")) == 1).await;
    }
    client.client.shutdown().await;
}

async fn many_in_flight(broker: Any, protocol: Protocol) {
    const COUNT: usize = 2000;
    let topic = "thing/product/observer/events";
    let mut settings = config(broker.port(), "observer", &[topic]);
    settings.protocol = choice(protocol);
    let receiver = up(settings.clone()).await;
    "id-sender".clone_into(&mut settings.client_id);
    settings.subscriptions.clear();
    let sender = up(settings).await;

    let all = (0..COUNT).map(|number| sender.out.publish(Publish::new(topic, number.to_string())));
    let results = soon("all confirmations", join_all(all)).await;
    assert!(
        results.iter().all(is_confirmed),
        "{:?}",
        results.iter().find(|sent| !is_confirmed(sent))
    );
    until("all messages", || receiver.told.messages().len() >= COUNT).await;
    // Publishes that wait at the same time have no order among them; each must arrive once.
    let mut received = receiver.told.messages();
    received.sort();
    let mut expected: Vec<_> = (0..COUNT).map(|number| format!("{topic} {number}")).collect();
    expected.sort();
    assert!(received == expected, "{} of {COUNT} arrived, or not once each", received.len());
}

/// One after the other from one task is also the order of arrival.
async fn in_order(broker: Any) {
    let topic = "thing/product/observer/events";
    let receiver = up_as(broker.port(), "observer", &[topic]).await;
    let mut settings = config(broker.port(), "observer", &[]);
    "id-sender".clone_into(&mut settings.client_id);
    let sender = up(settings).await;
    let mut expected = Vec::new();
    for number in 0..200 {
        let qos = if number % 2 == 0 { Qos::AtLeastOnce } else { Qos::ExactlyOnce };
        let sent = soon(
            "a confirmation",
            sender.out.publish(Publish::new(topic, number.to_string()).with_qos(qos)),
        )
        .await;
        assert!(is_confirmed(&sent), "{number}: {sent:?}");
        expected.push(format!("{topic} {number}"));
    }
    until("all messages", || receiver.told.messages().len() >= expected.len()).await;
    assert_eq!(receiver.told.messages(), expected);
}

async fn unanswered_gate(broker: Any) {
    let proxy = super::proxy::Proxy::start(broker.port()).await;
    let client = up_as(proxy.port, "observer", &[]).await;
    let bytes = || proxy.upward.load(std::sync::atomic::Ordering::SeqCst);
    let before = bytes();
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        let withheld = Publish::new("thing/product/observer/services", "late")
            .with_qos(qos)
            .with_gate(|| false);
        assert_eq!(soon("the result", client.out.publish(withheld)).await, Sent::Withheld);
    }
    assert_eq!(bytes(), before, "nothing on the wire");
    let sent = send(&client.out, "thing/product/observer/events", "now").await;
    assert!(is_confirmed(&sent) || sent == Sent::NoSubscriber, "{sent:?}");
    assert!(bytes() > before, "the gate held back only what it was asked about");
}

#[tokio::test]
async fn own_round_trip_v5() {
    round_trip(Any::Own(own().await), Protocol::V5).await;
}

#[tokio::test]
async fn own_round_trip_v311() {
    round_trip(Any::Own(own().await), Protocol::V311).await;
}

#[tokio::test]
async fn mosquitto_round_trip_v5() {
    round_trip(Any::Mosquitto(Mosquitto::start().await), Protocol::V5).await;
}

#[tokio::test]
async fn mosquitto_round_trip_v311() {
    round_trip(Any::Mosquitto(Mosquitto::start().await), Protocol::V311).await;
}

#[tokio::test]
async fn own_many_in_flight_v5() {
    many_in_flight(Any::Own(own().await), Protocol::V5).await;
}

#[tokio::test]
async fn own_many_in_flight_v311() {
    many_in_flight(Any::Own(own().await), Protocol::V311).await;
}

#[tokio::test]
async fn mosquitto_many_in_flight_v5() {
    many_in_flight(Any::Mosquitto(Mosquitto::start().await), Protocol::V5).await;
}

#[tokio::test]
async fn mosquitto_many_in_flight_v311() {
    many_in_flight(Any::Mosquitto(Mosquitto::start().await), Protocol::V311).await;
}

#[tokio::test]
async fn own_a_withheld_message_puts_nothing_on_the_wire() {
    unanswered_gate(Any::Own(own().await)).await;
}

#[tokio::test]
async fn mosquitto_a_withheld_message_puts_nothing_on_the_wire() {
    unanswered_gate(Any::Mosquitto(Mosquitto::start().await)).await;
}

#[tokio::test]
async fn mosquitto_reason_0x10_reads_as_no_subscriber() {
    let mosquitto = Mosquitto::start().await;
    let client = up_as(mosquitto.port, "observer", &[]).await;
    assert_eq!(send(&client.out, "thing/product/nobody/services", "go").await, Sent::NoSubscriber);
}

#[tokio::test]
async fn own_keeps_the_order() {
    in_order(Any::Own(own().await)).await;
}

#[tokio::test]
async fn mosquitto_keeps_the_order() {
    in_order(Any::Mosquitto(Mosquitto::start().await)).await;
}

/// What was retained before the client came says nothing about now.
async fn retained_is_not_taken(protocol: Protocol) {
    let mosquitto = Mosquitto::start().await;
    let mut old = Raw::dock(mosquitto.port, 4, "old").await;
    for (number, topic) in ["thing/product/D1/osd", "thing/product/D2/osd"].iter().enumerate() {
        let code = old.publish(0x33, topic, format!("retained {number}").as_bytes()).await;
        assert_eq!(code, Some(0));
    }
    let mut witness = Raw::dock(mosquitto.port, 4, "witness").await;
    witness.subscribe("thing/product/D1/osd").await;
    assert_eq!(witness.next_publish().await.1, "thing/product/D1/osd retained 0", "it is kept");

    let mut settings = config(mosquitto.port, "observer", &["thing/product/+/osd"]);
    settings.protocol = choice(protocol);
    let client = up(settings).await;
    assert_eq!(old.publish(0x32, "thing/product/D1/osd", b"live").await, Some(0));
    // Retained anew while we are here: it happens now, and comes without the flag.
    assert_eq!(old.publish(0x33, "thing/product/D1/osd", b"live too").await, Some(0));
    until("the live messages", || client.told.messages().len() >= 2).await;
    assert_eq!(
        client.told.messages(),
        ["thing/product/D1/osd live", "thing/product/D1/osd live too"]
    );
}

#[tokio::test]
async fn mosquitto_retained_messages_are_not_taken_v5() {
    retained_is_not_taken(Protocol::V5).await;
}

#[tokio::test]
async fn mosquitto_retained_messages_are_not_taken_v311() {
    retained_is_not_taken(Protocol::V311).await;
}
