//! Acknowledgements that are left to the receiver.
#![expect(clippy::unwrap_used, reason = "a test stops where its assumption fails")]

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use utmos_mqtt::{
    Acknowledge, Acknowledgement, Client, ClientConfig, Inbound, Protocol, ProtocolChoice, Publish,
    Qos, Sent,
};

use super::raw::packet;
use super::support::{choice, config, here, is_confirmed, own, send, sending, soon};

const OWN: &str = "thing/product/D1/services";

fn by_receiver(port: u16) -> ClientConfig {
    let mut settings = config(port, "D1", &[OWN]);
    settings.acknowledge = Acknowledge::ByReceiver;
    settings
}

/// The next message's payload and acknowledgement.
async fn next(told: &mut mpsc::Receiver<Inbound>) -> (Vec<u8>, Option<Acknowledgement>) {
    loop {
        let inbound = soon("a message", told.recv()).await.unwrap();
        if let Inbound::Message { payload, acknowledgement, .. } = inbound {
            return (payload.to_vec(), acknowledgement);
        }
        assert!(matches!(inbound, Inbound::LinkUp { .. }), "{inbound:?}");
    }
}

async fn a_message_is_confirmed_when_its_receiver_says_so(protocol: Protocol, qos: Qos) {
    let own = own().await;
    let mut settings = by_receiver(own.broker.local_addr().port());
    settings.protocol = choice(protocol);
    settings.subscriptions[0].1 = qos;
    let (inbound, mut told) = mpsc::channel(8);
    let client = Client::start(settings, inbound);
    assert!(matches!(soon("the link", told.recv()).await, Some(Inbound::LinkUp { .. })));

    let broker = own.broker.outlet();
    let first = sending(&broker, Publish::new(OWN, "first").with_qos(qos));
    let (payload, acknowledgement) = next(&mut told).await;
    assert_eq!(payload, b"first");
    // The receiver is heard meanwhile, and what comes after is delivered.
    let answer = send(&client.outlet(), "thing/product/D1/services_reply", "answer").await;
    assert!(is_confirmed(&answer), "{answer:?}");
    let second = sending(&broker, Publish::new(OWN, "second").with_qos(qos));
    let (payload, of_second) = next(&mut told).await;
    assert_eq!(payload, b"second");
    assert!(!first.is_finished() && !second.is_finished());

    // In any order, and once however often it is said.
    let of_second = of_second.unwrap();
    of_second.send();
    of_second.clone().send();
    assert!(is_confirmed(&soon("its confirmation", second).await.unwrap()));
    assert!(!first.is_finished());
    let of_first = acknowledgement.unwrap();
    assert!(soon("the write", of_first.write()).await);
    assert!(!soon("the answer", of_first.write()).await, "once");
    assert!(is_confirmed(&soon("its confirmation", first).await.unwrap()));
    client.shutdown().await;
}

#[tokio::test]
async fn a_receiver_confirms_qos_1_itself() {
    for protocol in [Protocol::V5, Protocol::V311] {
        a_message_is_confirmed_when_its_receiver_says_so(protocol, Qos::AtLeastOnce).await;
    }
}

#[tokio::test]
async fn a_receiver_confirms_qos_2_itself() {
    a_message_is_confirmed_when_its_receiver_says_so(Protocol::V5, Qos::ExactlyOnce).await;
}

#[tokio::test]
async fn what_is_never_acknowledged_is_unknown_when_the_connection_ends() {
    let own = own().await;
    let (inbound, mut told) = mpsc::channel(8);
    let client = Client::start(by_receiver(own.broker.local_addr().port()), inbound);
    assert!(matches!(soon("the link", told.recv()).await, Some(Inbound::LinkUp { .. })));
    let sent = sending(&own.broker.outlet(), Publish::new(OWN, "hello"));
    let (_, acknowledgement) = next(&mut told).await;
    client.shutdown().await;
    assert_eq!(soon("its result", sent).await.unwrap(), Sent::Unknown);
    // Too late for anything.
    assert!(!soon("the answer", acknowledgement.unwrap().write()).await);
}

async fn read_packet(tcp: &mut TcpStream) -> u8 {
    let mut head = [0; 2];
    tcp.read_exact(&mut head).await.unwrap();
    assert!(head[1] < 0x80, "a short packet");
    let mut body = vec![0; usize::from(head[1])];
    tcp.read_exact(&mut body).await.unwrap();
    head[0]
}

#[tokio::test]
async fn an_acknowledgement_leaves_before_what_is_published_after_it() {
    let listener = TcpListener::bind(here(0)).await.unwrap();
    let mut settings = by_receiver(listener.local_addr().unwrap().port());
    settings.protocol = ProtocolChoice::V311;
    let (inbound, mut told) = mpsc::channel(8);
    let client = Client::start(settings, inbound);
    let (mut tcp, _) = soon("the client", listener.accept()).await.unwrap();
    assert_eq!(read_packet(&mut tcp).await, 0x10, "CONNECT");
    tcp.write_all(&[0x20, 2, 0, 0]).await.unwrap();
    assert_eq!(read_packet(&mut tcp).await, 0x82, "SUBSCRIBE");
    tcp.write_all(&[0x90, 3, 0, 1, 1]).await.unwrap();
    for id in 1..=50 {
        let topic = [&[0, u8::try_from(OWN.len()).unwrap()], OWN.as_bytes()].concat();
        let publish = packet(0x32, &[&topic[..], &[0, id], b"go"].concat());
        tcp.write_all(&publish).await.unwrap();
        let (_, acknowledgement) = next(&mut told).await;
        acknowledgement.unwrap().send();
        let answer = Publish::new("a/b", "answer").with_qos(Qos::AtMostOnce);
        let sent = sending(&client.outlet(), answer);
        let order = soon("two packets", async {
            [read_packet(&mut tcp).await, read_packet(&mut tcp).await]
        });
        assert_eq!(order.await, [0x40, 0x30], "PUBACK, then PUBLISH");
        assert!(is_confirmed(&soon("its result", sent).await.unwrap()));
    }
}
