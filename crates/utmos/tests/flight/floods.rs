//! Floods and slow peers against the program in a process of its own. Meanwhile a signed command through a simulated dock
//! must come to its end, and the process must not grow without bound.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde_json::json;
use tokio::io::AsyncWriteExt;
use utmos_mqtt::ProtocolChoice;
use utmos_sim::{Fleet, FleetConfig};

use crate::{
    api::{Api, COMMANDS, PATIENCE},
    flood::{
        connect, crowd, endless_head, frame, get, hello, packet, preface, publish, refuses_head,
        rest, sockets_for, sources, subscribe, swelling_head,
    },
    place::{PASSWORD, Place, fly},
    process::{Process, until},
};

/// The most a process may take while it is flooded. A build for tests with two docks takes some 60 MiB.
const MEMORY_MIB_MAX: u64 = 400;

const EMERGENCY: &str = "fly_to_point_stop";
/// A server that may not open enough files for all connections it allows for parts them between HTTP and the broker: with 20,000
/// files and 10,000 clients of the broker it holds 6,581 of HTTP, and no more.
const FEW_CLIENTS_OF_MQTT: &str = "mqtt.embedded.clients_max=100";
/// So soon an emergency is accepted, whoever floods: a bound for a debug build on a machine with too much to do.
const EMERGENCY_WAIT: Duration = Duration::from_secs(10);

/// A server with a dock that does as it is told, and a client that behaves.
struct World {
    place: Place,
    process: Process,
    api: Api,
    fleet: Fleet,
    dock: String,
    http: SocketAddr,
    mqtt: SocketAddr,
}

impl World {
    async fn new(settings: &[&str], gateways: &[&str]) -> Self {
        let (mut place, mut config): (Place, FleetConfig) = Place::with_fleet(1).await;
        place.settings.extend(settings.iter().map(|setting| (*setting).to_owned()));
        for sn in gateways {
            use utmos_core::device::DeviceKind;
            place.put_gateway(place.given.tenant, sn, DeviceKind::Dock, PASSWORD, &[]).await;
        }
        let process = place.spawn(None).await;
        let address = |port| SocketAddr::from((place.address, port));
        let (http, mqtt) = (address(8080), address(1883));
        config.speed = 5.0;
        let fleet = fly(&config, mqtt, ProtocolChoice::Auto).await;
        let (api, dock) = (place.api(), config.docks[0].sn.clone());
        Self { place, process, api, fleet, dock, http, mqtt }
    }

    /// A client of no connection sends a command, and it succeeds; so does an emergency reach the dock, and is taken soon.
    async fn works(&self, while_: &str) {
        let api = self.place.api();
        let sent = async {
            let mut all = Vec::new();
            for method in ["debug_mode_open", EMERGENCY] {
                let accepted = api.create(&self.dock, method, json!({}), json!({}));
                let within = if method == EMERGENCY { EMERGENCY_WAIT } else { PATIENCE };
                let accepted = tokio::time::timeout(within, accepted).await;
                let id = accepted.unwrap_or_else(|_| panic!("{while_}: no {method}")).id();
                let ended = api.ended(&id).await;
                all.push((method, self.fleet.count(&id), ended));
            }
            all
        };
        let ended = tokio::time::timeout(PATIENCE, sent).await;
        let ended = ended.unwrap_or_else(|_| panic!("{while_}: no end; {}", self.process.log()));
        for (method, received, ended) in ended {
            assert_eq!(received, 1, "{while_}: {ended:#}");
            // There is no flight to stop, and the dock may say so.
            let is_stop = method == EMERGENCY;
            let is_answered = ended["failure_code"] == "DEVICE_EXECUTION_FAILED";
            let is_good = ended["status"] == "SUCCEEDED" || is_stop && is_answered;
            assert!(is_good, "{while_}: {ended:#}");
        }
        let memory = self.process.memory_mib();
        assert!(memory < MEMORY_MIB_MAX, "{while_}: {memory} MiB");
    }

    /// The server itself has taken at least so many of a crowd: they do not only stand in the system's queue. Of the others some
    /// had to make room, as strangers do, were sent away, or wait until there is a place.
    async fn has_taken(&self, at_least: usize) {
        until("too few are taken", async || at_least <= self.process.sockets()).await;
    }

    async fn end(self) {
        let log = self.process.log();
        assert!(!log.contains("panicked"), "{log}");
        self.fleet.shutdown().await;
        drop(self.api);
    }
}

fn head(path: &str, more: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{more}").into()
}

/// Headers of a signature that is well formed and wrong.
const WRONG: &str = "X-Api-Id: utk_nobody\r\nX-Api-Timestamp: 1767225600\r\nX-Api-Nonce: n\r\n\
     X-Api-Signature: 0000000000000000000000000000000000000000000000000000000000000000\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_and_slow_http_peers_keep_nobody_out() {
    let settings =
        ["http.header_read_seconds=300", "http.body_read_seconds=300", FEW_CLIENTS_OF_MQTT];
    let world = World::new(&settings, &[]).await;
    let count = sockets_for(10_000);
    let said = |number: usize| match number % 5 {
        0 => Vec::new(),
        1 => b"G".to_vec(),
        2 => head(COMMANDS, "X-A: "),
        3 => head(COMMANDS, &format!("{WRONG}Content-Length: 1000\r\n\r\n{{")),
        _ => preface(),
    };
    let mut crowd = crowd(&sources(10), world.http, count, said).await;
    assert_eq!(crowd.len(), count, "the system has connected all");
    world.works("ten thousand peers").await;
    // Those few make room in whose places others come: the server has as many places as there are peers.
    world.has_taken(count * 99 / 100).await;
    // And one byte more from each of them.
    for tcp in &mut crowd {
        let _cut = tcp.try_write(b"x");
    }
    world.works("ten thousand peers that go on").await;
    drop(crowd);
    world.works("after ten thousand peers").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_garbage_and_requests_by_the_thousand_keep_nobody_out() {
    let world = World::new(&["http.header_read_seconds=300"], &[]).await;
    let sources = sources(4);

    // Heads that are too long: one header, many, and the address itself. Each is told so, or cut.
    let long = "x".repeat(400_000);
    let many: String = (0..20_000).map(|number| format!("X-{number}: y\r\n")).collect();
    let heads = [
        head("/", &format!("X-A: {long}")),
        head("/", &many),
        head(&format!("/{long}"), "\r\n\r\n"),
    ];
    for (head, number) in heads.iter().zip(0..) {
        let mut tcp = connect(sources[number], world.http).await.unwrap();
        let _cut = tcp.write_all(head).await;
        let rest = rest(&mut tcp).await;
        let answer = String::from_utf8_lossy(&rest.said).into_owned();
        let is_told = ["HTTP/1.1 431", "HTTP/1.1 414"].iter().any(|told| answer.starts_with(told));
        let is_cut = rest.closed && answer.is_empty();
        assert!(is_told || is_cut, "{number}: closed {}: {answer}", rest.closed);
    }
    // The same of HTTP/2: a head that never ends, and one that is large only once it is read (64 MB of 20 KB).
    for (head, what) in [(endless_head(20_000), "endless"), (swelling_head(16_000), "swelling")] {
        let mut tcp = connect(sources[0], world.http).await.unwrap();
        let _cut = tcp.write_all(&head).await;
        let rest = rest(&mut tcp).await;
        assert!(refuses_head(&rest.said) || rest.closed, "{what}: {rest:?}");
        let held = crowd(&sources, world.http, 64, |_| head.clone()).await;
        world.works(&format!("{what} heads of HTTP/2")).await;
        drop(held);
    }
    // What is just not too long and never ends is held, and no more than it; what is longer is not.
    let unfinished =
        [60_000, 300_000].map(|length| head("/", &format!("X-A: {}", "x".repeat(length))));
    let held = crowd(&sources, world.http, 3_000, |number| unfinished[number % 2].clone()).await;
    world.works("3,000 heads without an end").await;
    drop(held);

    let garbage = |number: usize| match number % 4 {
        0 => b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n\0\xff\xfe garbage\r\n\r\n".to_vec(),
        1 => vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
        2 => [preface(), vec![0xff; 4_096]].concat(),
        _ => b"GET / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
            .to_vec(),
    };
    let held = crowd(&sources, world.http, 1_000, garbage).await;
    world.works("a thousand peers that babble").await;
    drop(held);

    // Rapid reset: streams that are begun and taken back, as many as the server bears.
    let resets: Vec<u8> = (0..20_000_u32)
        .flat_map(|number| {
            [get(2 * number + 1), frame(3, 0, 2 * number + 1, &[0, 0, 0, 8])].concat()
        })
        .collect();
    let streams: Vec<u8> = (0..2_000_u32).flat_map(|number| get(2 * number + 1)).collect();
    let rapid = crowd(&sources, world.http, 16, |number| {
        [preface(), if number % 2 == 0 { resets.clone() } else { streams.clone() }].concat()
    });
    let (held, ()) = tokio::join!(rapid, world.works("streams that are taken back"));
    drop(held);

    // Requests without end, with signatures that are wrong and with good ones.
    let bad = [head(COMMANDS, WRONG), b"Content-Length: 2\r\n\r\n{}".to_vec()].concat().repeat(200);
    let flood = async {
        let held = crowd(&sources, world.http, 32, |_| bad.clone()).await;
        for mut tcp in held {
            let mut some = vec![0; 64 * 1024];
            let _gone = tokio::io::AsyncReadExt::read(&mut tcp, &mut some).await;
        }
    };
    let good = futures_util::future::join_all((0..16).map(|_| async {
        for _ in 0..20 {
            assert_eq!(world.api.get(COMMANDS).await.status, 200);
        }
    }));
    tokio::join!(flood, good, world.works("floods of requests"));
    world.works("after floods of requests").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_at_the_broker_keep_no_dock_out() {
    let world = World::new(&["mqtt.embedded.clients_max=2000"], &["DOCK-1"]).await;
    let sources = sources(8);
    let large = packet(0x10, &vec![b'x'; 1_000_000]);
    let said = |number: usize| match number % 4 {
        // As much as there may be of a CONNECT without its end.
        0 => hello("DOCK-1", &"x".repeat(15_000))[..15_000].to_vec(),
        1 if number % 64 == 1 => large.clone(),
        1 => vec![0x10],
        2 => hello(&format!("guess-{number}"), "wrong"),
        _ => Vec::new(),
    };
    let count = sockets_for(4_000);
    let crowd = crowd(&sources, world.mqtt, count, said).await;
    assert_eq!(crowd.len(), count, "the system has connected all");
    world.works("strangers at the broker").await;
    world.has_taken(500).await;
    // Another dock comes, with the right password, from an address that has guessed none.
    let mut dock = connect(Ipv4Addr::new(127, 1, 3, 1), world.mqtt).await.unwrap();
    dock.write_all(&hello("DOCK-1", PASSWORD)).await.unwrap();
    let mut answer = [0; 4];
    let read = tokio::io::AsyncReadExt::read_exact(&mut dock, &mut answer);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0], "it is let in");
    world.works("strangers and a dock").await;
    drop(crowd);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docks_that_flood_or_do_not_read_hold_up_no_other() {
    let world = World::new(&[], &["DOCK-1", "DOCK-2", "DOCK-3"]).await;
    let here = Ipv4Addr::new(127, 1, 4, 1);

    // One that is subscribed and reads nothing, and is sent what its socket cannot hold.
    let mut deaf = connect(here, world.mqtt).await.unwrap();
    let services = "thing/product/DOCK-1/services";
    deaf.write_all(&[hello("DOCK-1", PASSWORD), subscribe(services)].concat()).await.unwrap();
    let note = "x".repeat(700_000);
    let deaf_commands = async {
        let mut sent = 0;
        for _ in 0..12 {
            let more = json!({"if_offline": "wait", "timeout_seconds": 5});
            let payload = json!({"action": 1, "note": note});
            let answer =
                world.api.create("DOCK-1", "battery_maintenance_switch", payload, more).await;
            sent += u32::from(answer.status.is_success());
        }
        assert_eq!(sent, 12);
    };
    tokio::join!(deaf_commands, world.works("a dock that does not read"));

    // One that sends a megabyte after another, and one whose packets are larger than the broker takes.
    let payload = vec![b' '; 1_000_000];
    let events = publish("thing/product/DOCK-2/events", 0, &payload);
    let loud = async {
        let mut dock = connect(here, world.mqtt).await.unwrap();
        dock.write_all(&hello("DOCK-2", PASSWORD)).await.unwrap();
        for _ in 0..100 {
            let written = tokio::time::timeout(PATIENCE, dock.write_all(&events)).await;
            written.expect("the broker goes on reading").unwrap();
        }
    };
    let too_large = publish("thing/product/DOCK-3/events", 1, &vec![b' '; 2 << 20]);
    let huge = async {
        for _ in 0..10 {
            let mut dock = connect(here, world.mqtt).await.unwrap();
            dock.write_all(&hello("DOCK-3", PASSWORD)).await.unwrap();
            let _cut = tokio::time::timeout(PATIENCE, dock.write_all(&too_large)).await;
            rest(&mut dock).await;
        }
    };
    tokio::join!(loud, huge, world.works("megabytes from a dock"));
    world.works("after megabytes from a dock").await;
    drop(deaf);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dock_that_asks_and_confirms_nothing_has_few_answers_under_way() {
    const ASKED: u64 = 10_000;
    /// Answers of one gateway under way, and of the simulated dock beside.
    const MOST: u64 = 512 + 10;
    let world = World::new(&[], &["DOCK-1"]).await;
    let mut dock = connect(Ipv4Addr::new(127, 1, 5, 1), world.mqtt).await.unwrap();
    let replies = subscribe("thing/product/DOCK-1/events_reply");
    dock.write_all(&[hello("DOCK-1", PASSWORD), replies].concat()).await.unwrap();
    let asking = async {
        for n in 0..ASKED {
            let event = json!({
                "tid": format!("t-{n}"), "bid": "b", "timestamp": 1, "gateway": "DOCK-1", "need_reply": 1,
                "method": "airsense_warning", "data": [],
            });
            let event = publish("thing/product/DOCK-1/events", 0, event.to_string().as_bytes());
            let written = tokio::time::timeout(PATIENCE, dock.write_all(&event)).await;
            written.expect("the broker goes on reading").unwrap();
        }
    };
    tokio::join!(asking, world.works("a dock that asks and asks"));
    let asked = async {
        loop {
            assert!(world.api.figure("uplink_answering").await <= MOST);
            let answered = world.api.figure("uplink_answered_total").await;
            let left = world.api.figure("uplink_left_unanswered_total").await;
            if ASKED <= answered + left {
                break left;
            }
        }
    };
    let left = tokio::time::timeout(PATIENCE, asked).await.expect("each is answered or counted");
    assert!(0 < left, "some found no room");
    world.works("after a dock that asked").await;
    drop(dock);
    world.end().await;
}
