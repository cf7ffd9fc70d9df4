//! Who is there: joins, leaves, take-overs, wills, dismissals.

use std::time::Duration;

use tokio::sync::mpsc;
use utmos_mqtt::{Broker, BrokerConfig, BrokerError, Inbound, Publish, Sent};

use super::raw::{Hello, Raw};
use super::support::{
    TestDoor, here, is_confirmed, own, own_with, send, sending, soon, until, up_as,
};

const SERVICES: &str = "thing/product/D1/services";

#[tokio::test]
async fn a_take_over_ends_with_the_truth_and_re_sends_nothing() {
    for version in [4, 5] {
        let own = own().await;
        let port = own.broker.local_addr().port();
        let out = own.broker.outlet();
        let hello = || Hello { clean: false, ..Hello::new(version, "D1", "secret-D1") };
        let mut first = Raw::connect(port, &hello()).await;
        first.subscribe(SERVICES).await;
        let unconfirmed = sending(&out, Publish::new(SERVICES, "unconfirmed"));
        first.next_publish().await;

        let mut second = Raw::connect(port, &hello()).await;
        while first.next().await.is_some() {}
        let unconfirmed = soon("the result", unconfirmed).await;
        assert_eq!(unconfirmed.ok(), Some(Sent::Unknown));
        second.subscribe(SERVICES).await;
        let now = sending(&out, Publish::new(SERVICES, "now"));
        let (head, text, id) = second.next_publish().await;
        assert_eq!(
            (head & 0x08, text),
            (0, format!("{SERVICES} now")),
            "not a repeat of the unconfirmed one"
        );
        second.puback(id).await;
        assert!(soon("the result", now).await.is_ok_and(|sent| is_confirmed(&sent)));
        assert_eq!(own.told.presence(), ["+D1", "+D1"], "present is the last word");
        assert_eq!(own.broker.clients(), 1);
        second.disconnect().await;
        until("the end", || own.told.presence() == ["+D1", "+D1", "-D1"]).await;
    }
}

#[tokio::test]
async fn many_take_overs_in_a_row_end_with_the_truth() {
    let own = own().await;
    let port = own.broker.local_addr().port();
    let docks = futures_util::future::join_all((0..20).map(|_| Raw::dock(port, 5, "D1"))).await;
    until("all joins", || own.told.presence().iter().filter(|one| *one == "+D1").count() == 20)
        .await;
    until("one left standing", || own.broker.clients() == 1).await;
    assert_eq!(own.told.presence().last().map(String::as_str), Some("+D1"));
    drop(docks);
    until("the end", || own.told.presence().last().map(String::as_str) == Some("-D1")).await;
    assert_eq!(own.broker.clients(), 0);
}

#[tokio::test]
async fn another_user_cannot_take_a_client_id() {
    let own = own().await;
    let port = own.broker.local_addr().port();
    let mut dock = Raw::dock(port, 5, "D1").await;
    let (_, code) =
        Raw::try_connect(port, &Hello { client_id: "D1", ..Hello::new(5, "D2", "secret-D2") })
            .await;
    assert_eq!(code, Some(0x85));
    dock.ping().await;
    assert_eq!(own.told.presence(), ["+D1"]);
}

#[tokio::test]
async fn silence_past_the_keep_alive_means_gone() {
    let own = own().await;
    let hello = Hello { keep_alive: 1, ..Hello::new(5, "D1", "secret-D1") };
    let mut dock = Raw::connect(own.broker.local_addr().port(), &hello).await;
    dock.subscribe(SERVICES).await;
    until("the dock to be given up", || own.told.presence() == ["+D1", "-D1"]).await;
    assert_eq!(send(&own.broker.outlet(), SERVICES, "go").await, Sent::NoSubscriber);
}

#[tokio::test]
async fn a_will_is_delivered_before_the_leave_if_its_topic_is_the_clients_own() {
    for (topic, allowed) in [("thing/product/D1/events", true), ("thing/product/D2/events", false)]
    {
        let own = own().await;
        let hello = Hello { will: Some((topic, "gone")), ..Hello::new(5, "D1", "secret-D1") };
        let dock = Raw::connect(own.broker.local_addr().port(), &hello).await;
        drop(dock);
        until("the leave", || own.told.presence() == ["+D1", "-D1"]).await;
        let expected: &[&str] = if allowed { &["thing/product/D1/events gone"] } else { &[] };
        assert_eq!(own.told.messages(), expected);
        assert!(matches!(own.told.all().last(), Some(Inbound::Left { .. })));
    }
}

#[tokio::test]
async fn a_polite_goodbye_has_no_will() {
    let own = own().await;
    let hello = Hello {
        will: Some(("thing/product/D1/events", "gone")),
        ..Hello::new(5, "D1", "secret-D1")
    };
    Raw::connect(own.broker.local_addr().port(), &hello).await.disconnect().await;
    until("the leave", || own.told.presence() == ["+D1", "-D1"]).await;
    assert_eq!(own.told.messages(), [""; 0]);
}

#[tokio::test]
async fn a_dismissed_user_is_gone() {
    let own = own().await;
    let port = own.broker.local_addr().port();
    let mut dock = Raw::dock(port, 5, "D1").await;
    dock.subscribe(SERVICES).await;
    let mut other = Raw::dock(port, 5, "D2").await;
    own.broker.disconnect("D1");
    while dock.next().await.is_some() {}
    until("the leave", || own.told.presence() == ["+D1", "+D2", "-D1"]).await;
    assert_eq!(send(&own.broker.outlet(), SERVICES, "go").await, Sent::NoSubscriber);
    other.ping().await;
}

#[tokio::test]
async fn subscriptions_are_told() {
    let own = own().await;
    let mut dock = Raw::dock(own.broker.local_addr().port(), 5, "D1").await;
    dock.subscribe(SERVICES).await;
    dock.subscribe("thing/product/D2/services").await;
    dock.ping().await;
    let filters: Vec<_> = own
        .told
        .all()
        .iter()
        .filter_map(|one| {
            if let Inbound::Subscribed { filter, client_id, .. } = one {
                Some(format!("{client_id}: {filter}"))
            } else {
                None
            }
        })
        .collect();
    assert_eq!(filters, [format!("D1: {SERVICES}")]);
    assert!(own.broker.is_subscribed("D1", SERVICES) && !own.broker.is_subscribed("D2", SERVICES));
}

#[tokio::test]
async fn more_clients_than_allowed_are_turned_away() {
    let own = own_with(BrokerConfig { clients_max: 2, ..BrokerConfig::new(here(0)) }).await;
    let port = own.broker.local_addr().port();
    let _first = Raw::dock(port, 5, "D1").await;
    let second = Raw::dock(port, 5, "D2").await;
    let mut third =
        tokio::net::TcpStream::connect(here(port)).await.unwrap_or_else(|err| panic!("{err}"));
    let mut rest = Vec::new();
    soon("the door to shut", async {
        drop(tokio::io::AsyncReadExt::read_to_end(&mut third, &mut rest).await)
    })
    .await;
    assert!(rest.is_empty());
    second.disconnect().await;
    until("room", || own.told.presence().len() == 3).await;
    let client = up_as(port, "D3", &[]).await;
    assert!(client.client.is_up());
}

/// A socket that says nothing.
async fn silent(port: u16) -> tokio::net::TcpStream {
    tokio::net::TcpStream::connect(here(port)).await.unwrap_or_else(|err| panic!("{err}"))
}

#[tokio::test]
async fn connections_that_say_nothing_make_room_for_a_dock() {
    let own = own_with(BrokerConfig { clients_max: 3, ..BrokerConfig::new(here(0)) }).await;
    let port = own.broker.local_addr().port();
    let mut first = Raw::dock(port, 5, "D1").await;
    let mut idle = Vec::new();
    for _ in 0..5 {
        idle.push(silent(port).await);
    }
    let mut second = Raw::dock(port, 5, "D2").await;
    let mut third = Raw::dock(port, 5, "D3").await;
    for dock in [&mut first, &mut second, &mut third] {
        dock.ping().await;
    }
    for mut idle in idle {
        let mut rest = [0; 8];
        let end =
            soon("the idle one to be cut", tokio::io::AsyncReadExt::read(&mut idle, &mut rest));
        assert!(matches!(end.await, Ok(0) | Err(_)));
    }
    assert_eq!(own.told.presence(), ["+D1", "+D2", "+D3"]);
}

#[tokio::test]
async fn a_user_takes_no_more_than_its_own_places() {
    let own = own_with(BrokerConfig { clients_max: 8, ..BrokerConfig::new(here(0)) }).await;
    let port = own.broker.local_addr().port();
    let ids = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let mut all = Vec::new();
    for client_id in ids {
        all.push(
            Raw::connect(port, &Hello { client_id, ..Hello::new(5, "D1", "secret-D1") }).await,
        );
    }
    until("the oldest to be gone", || own.broker.clients() == 4).await;
    for dock in all.iter_mut().rev().take(4) {
        dock.ping().await;
    }
    let mut other = Raw::dock(port, 5, "D2").await;
    other.ping().await;
    assert_eq!(own.told.presence().iter().filter(|one| *one == "-D1").count(), 6);
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_remedy() {
    let own = own().await;
    let (inbound, _told) = mpsc::channel(1);
    let taken = BrokerConfig::new(own.broker.local_addr());
    let Err(err) = Broker::start(taken, std::sync::Arc::new(TestDoor), inbound).await else {
        panic!("started twice")
    };
    assert!(matches!(err, BrokerError::PortInUse { .. }));
    let text = err.to_string();
    assert!(
        text.contains(&own.broker.local_addr().to_string()) && text.contains("choose another port"),
        "{text}"
    );
}

#[tokio::test]
async fn a_full_channel_holds_up_the_sender_and_loses_nothing() {
    let (inbound, mut told) = mpsc::channel(4);
    let broker =
        Broker::start(BrokerConfig::new(here(0)), std::sync::Arc::new(TestDoor), inbound).await;
    let Ok(broker) = broker else { panic!("no broker") };
    let port = broker.local_addr().port();
    let sending = tokio::spawn(async move {
        let mut dock = Raw::dock(port, 5, "D1").await;
        for number in 0..200 {
            assert_eq!(
                dock.publish(0x32, "thing/product/D1/events", number.to_string().as_bytes()).await,
                Some(0)
            );
        }
        dock
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!sending.is_finished());
    let mut received = Vec::new();
    while received.len() < 200 {
        if let Some(Inbound::Message { payload, .. }) = soon("a message", told.recv()).await {
            received.push(String::from_utf8_lossy(&payload).into_owned());
        }
    }
    assert_eq!(received, (0..200).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_shutdown_tells_every_client_and_frees_the_port() {
    let own = own().await;
    let port = own.broker.local_addr().port();
    let mut dock = Raw::dock(port, 5, "D1").await;
    soon("the shutdown", own.broker.shutdown()).await;
    assert_eq!(
        dock.next().await.map(|(head, body)| (head, body.first().copied())),
        Some((0xe0, Some(0x8b)))
    );
    until("the leave", || own.told.presence() == ["+D1", "-D1"]).await;
    own_with(BrokerConfig::new(here(port))).await;
}

/// The server takes nothing for a while, and one dock floods: the others still get what is meant for them.
#[tokio::test]
async fn a_flood_holds_up_nobody_else() {
    const OWN: &str = "thing/product/D1/events";
    const FLOOD: usize = 5_000;
    let (inbound, mut told) = mpsc::channel(4);
    let broker =
        Broker::start(BrokerConfig::new(here(0)), std::sync::Arc::new(TestDoor), inbound).await;
    let Ok(broker) = broker else { panic!("{broker:?}") };
    let port = broker.local_addr().port();
    let out = broker.outlet();
    let mut dock = Raw::dock(port, 5, "D1").await;
    dock.subscribe(SERVICES).await;
    let flooder = Raw::dock(port, 4, "D2").await;
    until("both", || broker.clients() == 2 && broker.is_subscribed("D1", SERVICES)).await;

    let (mut unread, mut flood) = flooder.tcp.into_split();
    let flooding = tokio::spawn(async move {
        let mut one = vec![0x30, 0, 0, 23];
        one.extend_from_slice(b"thing/product/D2/events");
        one.extend_from_slice(&[b'x'; 75]);
        one[1] = u8::try_from(one.len() - 2).unwrap_or_default();
        let all: Vec<u8> = one.iter().copied().cycle().take(one.len() * FLOOD).collect();
        tokio::io::AsyncWriteExt::write_all(&mut flood, &all).await.map(|()| flood)
    });
    tokio::time::sleep(Duration::from_millis(300)).await;

    // Nobody has taken anything for some time, and the channel is full.
    for number in 0..10 {
        let code = dock.publish(0x32, OWN, number.to_string().as_bytes()).await;
        assert_eq!(code, Some(0), "taken over by its own connection");
    }
    let command = sending(&out, Publish::new(SERVICES, "stop").with_expiry(Duration::from_secs(5)));
    let (_, text, id) = dock.next_publish().await;
    assert_eq!(text, format!("{SERVICES} stop"));
    dock.puback(id).await;
    assert!(soon("the result", command).await.is_ok_and(|sent| is_confirmed(&sent)));

    // Each gets its turn, and nothing is lost or out of order.
    let (mut calm, mut wild) = (Vec::new(), 0);
    while calm.len() < 10 || wild < FLOOD {
        match soon("a message", told.recv()).await {
            Some(Inbound::Message { topic, payload, .. }) if &*topic == OWN => {
                assert!(wild < 100, "{wild} of the flood came first");
                calm.push(String::from_utf8_lossy(&payload).into_owned());
            }
            Some(Inbound::Message { .. }) => wild += 1,
            Some(
                Inbound::Joined { .. }
                | Inbound::Subscribed { .. }
                | Inbound::Left { .. }
                | Inbound::LinkUp { .. }
                | Inbound::LinkDown { .. },
            ) => {}
            None => panic!("the broker ended"),
        }
    }
    assert_eq!(calm, (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
    // The last words come before the farewell.
    assert_eq!(dock.publish(0x32, OWN, b"last").await, Some(0));
    dock.disconnect().await;
    assert!(
        matches!(soon("the last word", told.recv()).await, Some(Inbound::Message { payload, .. }) if payload == "last")
    );
    assert!(matches!(soon("the leave", told.recv()).await, Some(Inbound::Left { .. })));
    drop(flooding.await);
    drop(tokio::io::AsyncReadExt::read(&mut unread, &mut [0; 8]).await);
}
