//! Who has not logged in: how long, how much and how many of them.
#![expect(clippy::unwrap_used, reason = "a test stops where its assumption fails")]

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use utmos_mqtt::{BrokerConfig, ProtocolChoice};

use super::raw::{Hello, Raw, packet};
use super::support::{config, here, own, own_with, soon, up};

/// A connection from another address of this machine.
async fn stranger(from: [u8; 4], port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    socket.connect(here(port)).await.unwrap()
}

async fn is_closed(mut tcp: TcpStream) {
    soon("the end of a connection", async {
        let mut rest = [0; 64];
        while let Ok(1..) = tcp.read(&mut rest).await {}
    })
    .await;
}

#[tokio::test]
async fn silent_strangers_make_room_and_who_has_logged_in_stays() {
    let own = own_with(BrokerConfig { clients_max: 80, ..BrokerConfig::new(here(0)) }).await;
    let port = own.broker.local_addr().port();
    let mut first = Raw::dock(port, 5, "D1").await;
    let mut silent = Vec::new();
    for number in 0..200_u8 {
        silent.push(stranger([127, 0, 3, number / 50 + 1], port).await);
    }
    let mut second = Raw::dock(port, 5, "D2").await;
    is_closed(silent.remove(0)).await;
    for (dock, sn) in [(&mut first, "D1"), (&mut second, "D2")] {
        let topic = format!("thing/product/{sn}/events");
        assert_eq!(dock.publish(0x32, &topic, b"here").await, Some(0));
    }
}

#[tokio::test]
async fn one_address_holds_no_more_than_its_share_without_logging_in() {
    let own = own_with(BrokerConfig { clients_max: 200, ..BrokerConfig::new(here(0)) }).await;
    let port = own.broker.local_addr().port();
    let other = stranger([127, 0, 3, 9], port).await;
    let first = stranger([127, 0, 3, 8], port).await;
    let mut more = Vec::new();
    for _ in 0..64 {
        more.push(stranger([127, 0, 3, 8], port).await);
    }
    is_closed(first).await;
    // Whoever is not of that address is not troubled.
    let mut other = other;
    other.write_all(&Hello::new(5, "D1", "secret-D1").bytes()).await.unwrap();
    let mut answer = [0; 2];
    soon("the CONNACK", other.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer[0], 0x20);
}

#[tokio::test]
async fn a_stranger_says_nothing_but_a_connect_of_a_bounded_size() {
    let own = own().await;
    let port = own.broker.local_addr().port();
    let large = "x".repeat(16 * 1024);
    let hello = Hello::new(5, "D1", &large).bytes();
    for said in [
        &hello[..5],
        b"GET / HTTP/1.1\r\n\r\n",
        &packet(0x30, b"\0\x01aX"),
        &[0x10, 255, 255, 255, 255],
    ] {
        let mut tcp = TcpStream::connect(here(port)).await.unwrap();
        tcp.write_all(said).await.unwrap();
        is_closed(tcp).await;
    }
    // One whose head comes in pieces is none of these.
    let mut tcp = TcpStream::connect(here(port)).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let hello = Hello::new(5, "D1", "secret-D1").bytes();
    tcp.write_all(&hello[..1]).await.unwrap();
    tokio::task::yield_now().await;
    tcp.write_all(&hello[1..]).await.unwrap();
    let mut answer = [0; 2];
    soon("the CONNACK", tcp.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer[0], 0x20);
    let mut settings = config(port, "D2", &[]);
    settings.protocol = ProtocolChoice::V311;
    up(settings).await;
}

#[tokio::test]
async fn a_user_name_longer_than_any_is_refused_though_the_doorkeeper_would_let_it_in() {
    let own = own().await;
    let port = own.broker.local_addr().port();
    for (version, refusal) in [(4, 4), (5, 0x86)] {
        for (bytes, code) in [(256, 0), (257, refusal), (4_096, refusal)] {
            let user = "u".repeat(bytes);
            let password = format!("secret-{user}");
            let hello = Hello { client_id: "D1", ..Hello::new(version, &user, &password) };
            let (_raw, answer) = Raw::try_connect(port, &hello).await;
            assert_eq!(answer, Some(code), "{bytes} bytes, version {version}");
        }
    }
}
