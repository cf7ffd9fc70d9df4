//! Peers that send too much, too slowly, or nothing at all.

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    app::{Api, COMMANDS, PATIENCE, TestApp},
    bad_input::{assert_nothing_came_of_it, assert_untouched, with, with_raw},
    routes::assert_refused,
    wire::{Wire, head, whole},
};

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_however_it_comes() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let fits =
        with_raw("payload", &format!("{{\"action\":1,\"note\":\"{}\"}}", "x".repeat(1_000_000)));
    let dry = String::from_utf8(fits).unwrap().replacen('{', "{\"dry_run\":true,", 1);
    let answer = app.api.request(Method::POST, COMMANDS, Some(dry.as_bytes())).await;
    assert_eq!(answer.status, StatusCode::OK, "just below the limit: {}", answer.body["code"]);
    let long = with_raw("payload", &format!("{{\"note\":\"{}\"}}", "x".repeat(3 * 1024 * 1024)));
    let headers = app.api.fresh_headers("POST", COMMANDS, &long);
    let mut wire = Wire::open(app.http).await;
    wire.send(&whole("POST", COMMANDS, &headers, &long)).await;
    assert_refused(&wire.answer().await.unwrap(), 413, "PAYLOAD_TOO_LARGE");
    assert_untouched(&app, &mut dock, "by length").await;

    let mut wire = Wire::open(app.http).await;
    let head = head("POST", COMMANDS, &headers);
    wire.send(
        format!("{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            .as_bytes(),
    )
    .await;
    for chunk in long.chunks(64 * 1024) {
        wire.send(&[format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()).await;
    }
    wire.send(b"0\r\n\r\n").await;
    assert_refused(&wire.answer().await.unwrap(), 413, "PAYLOAD_TOO_LARGE");
    assert_untouched(&app, &mut dock, "in chunks").await;

    // One that asks first is told without sending anything, and one that lies is not believed.
    let mut wire = Wire::open(app.http).await;
    wire.send(
        format!("{head}Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n").as_bytes(),
    )
    .await;
    assert_refused(&wire.answer().await.unwrap(), 413, "PAYLOAD_TOO_LARGE");
}

#[tokio::test]
async fn who_dawdles_is_let_go_and_holds_up_nobody() {
    let app =
        TestApp::start_with(&["http.body_read_seconds=1", "http.header_read_seconds=1"]).await;
    let mut dock = app.dock("DOCK-1").await;
    // A client that keeps no connection: here they are let go while it may want to use them.
    let fresh = || Api::new(app.http, app.api.given.clone());
    let body = with(json!({}));
    let head = head("POST", COMMANDS, &app.api.fresh_headers("POST", COMMANDS, &body));
    let mut slow_body = Wire::open(app.http).await;
    slow_body
        .send(
            format!(
                "{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{{",
                body.len()
            )
            .as_bytes(),
        )
        .await;
    // Nothing at all; what may still become HTTP/1 or HTTP/2; half a head; and half a second head.
    let mut silent = vec![Wire::open(app.http).await];
    for begun in [
        "P",
        "PRI * HTTP/2.0\r\n\r\nSM",
        "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut wire = Wire::open(app.http).await;
        wire.send(begun.as_bytes()).await;
        silent.push(wire);
    }
    let mut second = Wire::open(app.http).await;
    second.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz").await;
    assert_eq!(second.answer().await.unwrap().status, StatusCode::OK);
    let mut idle = Vec::new();
    for _ in 0..10 {
        // No more at a time than the system keeps for a server that has not taken them yet.
        idle.extend(futures_util::future::join_all((0..50).map(|_| Wire::open(app.http))).await);
        assert_eq!(fresh().get(COMMANDS).await.status, StatusCode::OK, "beside idle connections");
    }

    assert_refused(&slow_body.answer().await.unwrap(), 408, "REQUEST_TIMEOUT");
    for mut wire in silent.into_iter().chain([second]).chain(idle) {
        wire.closed().await;
    }
    assert_nothing_came_of_it(&fresh(), &mut dock, "slow").await;
}

// The limits are of the whole, and not of the wait for the next byte.
#[tokio::test]
async fn who_sends_a_byte_now_and_then_is_let_go_at_the_limit() {
    let app =
        TestApp::start_with(&["http.body_read_seconds=1", "http.header_read_seconds=1"]).await;
    let mut dock = app.dock("DOCK-1").await;
    let opened = async |begun: &str| {
        let mut wire = Wire::open(app.http).await;
        wire.send(begun.as_bytes()).await;
        wire
    };
    let address = async || {
        let mut wire = opened("GET /").await;
        wire.drips(b"a").await;
    };
    let header = async || {
        let mut wire = opened("GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ").await;
        wire.drips(b"a").await;
    };
    let many_headers = async || {
        let mut wire = opened("GET /healthz HTTP/1.1\r\nHost: x\r\n").await;
        wire.drips(b"X: a\r\n").await;
    };
    let second_head = async || {
        let mut wire = opened("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /").await;
        assert_eq!(wire.answer().await.unwrap().status, StatusCode::OK);
        wire.drips(b"a").await;
    };
    let body = with(json!({}));
    let signed = head("POST", COMMANDS, &app.api.fresh_headers("POST", COMMANDS, &body));
    let signed = format!("{signed}Content-Type: application/json\r\n");
    let by_length = async || {
        let mut wire = opened(&format!("{signed}Content-Length: 100000\r\n\r\n{{")).await;
        wire.drips(b" ").await;
        assert_refused(&wire.answer().await.unwrap(), 408, "REQUEST_TIMEOUT");
    };
    let in_chunks = async || {
        let mut wire = opened(&format!("{signed}Transfer-Encoding: chunked\r\n\r\n")).await;
        wire.drips(b"1\r\n \r\n").await;
        assert_refused(&wire.answer().await.unwrap(), 408, "REQUEST_TIMEOUT");
    };
    tokio::join!(address(), header(), many_headers(), second_head(), by_length(), in_chunks());
    let fresh = Api::new(app.http, app.api.given.clone());
    assert_nothing_came_of_it(&fresh, &mut dock, "byte by byte").await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_served_when_others_are_let_go() {
    let app = TestApp::start_with(&["http.connections_max=4", "http.header_read_seconds=1"]).await;
    let _idle = futures_util::future::join_all((0..8).map(|_| Wire::open(app.http))).await;
    assert_eq!(app.api.get(COMMANDS).await.status, StatusCode::OK);
}

/// One signed request on a connection.
async fn lists_commands(app: &TestApp, wire: &mut Wire) -> StatusCode {
    wire.send(&whole("GET", COMMANDS, &app.api.fresh_headers("GET", COMMANDS, b""), b"")).await;
    wire.answer().await.unwrap().status
}

#[tokio::test]
async fn idle_strangers_make_room_when_all_places_are_taken_and_who_signed_stays() {
    let app =
        TestApp::start_with(&["http.connections_max=3", "http.header_read_seconds=300"]).await;
    let mut signed = Wire::open(app.http).await;
    assert_eq!(lists_commands(&app, &mut signed).await, StatusCode::OK);
    let mut idle = [Wire::open(app.http).await, Wire::open(app.http).await];
    let mut dock = app.dock("DOCK-1").await;
    let stop = app.api.create("DOCK-1", "return_home", json!({}), json!({})).await;
    assert_eq!(stop.status, StatusCode::ACCEPTED, "{stop:?}");
    assert_eq!(dock.command().await.tid(), stop.id());
    idle[0].closed().await;
    assert_eq!(lists_commands(&app, &mut signed).await, StatusCode::OK);
    assert_eq!(lists_commands(&app, &mut idle[1]).await, StatusCode::OK, "the younger one stayed");

    // Two of the three places are the tenant's now; whatever is beyond its share makes room, also for itself.
    let mut next = Wire::open(app.http).await;
    assert_eq!(lists_commands(&app, &mut next).await, StatusCode::OK);
    idle[1].closed().await;
    assert_eq!(lists_commands(&app, &mut signed).await, StatusCode::OK);
}

#[tokio::test]
async fn a_tenant_that_takes_every_place_keeps_no_emergency_of_another_out() {
    let app =
        TestApp::start_with(&["http.connections_max=60", "http.header_read_seconds=300"]).await;
    let other = app.other_tenant("second", "DOCK-9").await;
    let mut dock = app.dock("DOCK-9").await;
    let wait = json!({"if_offline": "wait", "timeout_seconds": 300});
    let waits = app.api.create("DOCK-1", "debug_mode_open", json!({}), wait).await.id();
    let target = format!("{COMMANDS}/{waits}?wait=60");
    let mut held = Vec::new();
    let mut flood = async || {
        for number in 0..90 {
            let mut wire = Wire::open(app.http).await;
            assert_eq!(lists_commands(&app, &mut wire).await, StatusCode::OK, "{number}");
            if number % 2 == 0 {
                let headers = app.api.fresh_headers("GET", &target, b"");
                wire.send(&whole("GET", &target, &headers, b"")).await;
            }
            held.push(wire);
        }
    };
    flood().await;
    let fresh = Api::new(app.http, other.given.clone());
    let stop = fresh.create("DOCK-9", "return_home", json!({}), json!({})).await;
    assert_eq!(stop.status, StatusCode::ACCEPTED, "{stop:?}");
    assert_eq!(dock.command().await.tid(), stop.id());
    // And a connection of the other tenant stays, whatever the first one does.
    let mut stays = Wire::open(app.http).await;
    let headers = || other.fresh_headers("GET", COMMANDS, b"");
    stays.send(&whole("GET", COMMANDS, &headers(), b"")).await;
    assert_eq!(stays.answer().await.unwrap().status, StatusCode::OK);
    flood().await;
    stays.send(&whole("GET", COMMANDS, &headers(), b"")).await;
    assert_eq!(stays.answer().await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn one_peer_cannot_hold_more_than_its_share_without_signing() {
    let app =
        TestApp::start_with(&["http.connections_max=200", "http.header_read_seconds=300"]).await;
    let mut first = Wire::open(app.http).await;
    let _more = futures_util::future::join_all((0..64).map(|_| Wire::open(app.http))).await;
    first.closed().await;
    assert_eq!(app.api.get(COMMANDS).await.status, StatusCode::OK);
}

#[tokio::test]
async fn large_bodies_share_a_budget_and_an_emergency_needs_none() {
    const BODY_BYTES: usize = 16 * 1024 * 1024;
    // Hashing 64 MiB takes its time in a debug build; the client's own idle connection must outlast that.
    let app = TestApp::start_with(&[
        "http.body_bytes_max=16777216",
        "http.body_read_seconds=300",
        "http.header_read_seconds=300",
    ])
    .await;
    let mut dock = app.dock("DOCK-1").await;
    let note = "x".repeat(1024 * 1024);
    let large = async || {
        let dry = json!({"dry_run": true, "payload": {"action": 1, "note": note}});
        app.api.create("DOCK-1", "battery_maintenance_switch", json!({}), dry).await
    };
    assert_eq!(large().await.status, StatusCode::OK);
    // Whoever asks; unknown and wrong credentials fare alike.
    let mut headers = app.api.fresh_headers("POST", COMMANDS, b"");
    headers[0].1 = "utk_nobody".to_owned();
    let head = head("POST", COMMANDS, &headers);
    let hog = async || {
        let mut wire = Wire::open(app.http).await;
        wire.send(format!("{head}Content-Length: {BODY_BYTES}\r\n\r\n").as_bytes()).await;
        wire.send(&vec![b' '; BODY_BYTES - 1]).await;
        wire
    };
    let mut hogs = Vec::new();
    for _ in 0..4 {
        hogs.push(hog().await);
    }
    let refused = tokio::time::timeout(PATIENCE, async {
        for tries in 1_u64.. {
            let answer = large().await;
            if answer.status != StatusCode::OK {
                return Some(answer);
            }
            // The end of a large body may have found no room beside the request that was just answered: then it holds nothing
            // any more, and is answered when it is over. Another takes its place.
            if tries.is_multiple_of(100) {
                hogs.push(hog().await);
            }
        }
        None
    });
    let refused = refused.await.unwrap().unwrap();
    assert_refused(&refused, 503, "OVERLOADED");
    assert!(refused.headers.contains_key("retry-after"));
    let stop = app.api.create("DOCK-1", "return_home", json!({}), json!({})).await;
    assert_eq!(stop.status, StatusCode::ACCEPTED, "{stop:?}");
    assert_eq!(dock.command().await.tid(), stop.id());

    let mut held = 0;
    for mut hog in hogs {
        hog.send(b" ").await;
        match hog.answer().await.unwrap() {
            whole if whole.status == StatusCode::UNAUTHORIZED => {
                assert_refused(&whole, 401, "SIGNATURE_INVALID");
                held += 1;
            }
            no_room => assert_refused(&no_room, 503, "OVERLOADED"),
        }
    }
    assert_eq!(held, 4, "as many as there is room for");
    assert_eq!(large().await.status, StatusCode::OK, "what was held is free again");
}

#[tokio::test]
async fn a_connection_of_http_2_takes_16_requests_at_a_time() {
    const SETTINGS: u8 = 4;
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    let app = TestApp::start().await;
    let mut stream = TcpStream::connect(app.http).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!((head[..2].to_vec(), head[3]), (vec![0, 0], SETTINGS));
    let mut settings = vec![0; head[2].into()];
    stream.read_exact(&mut settings).await.unwrap();
    let streams = settings
        .chunks(6)
        .find(|one| u16::from_be_bytes([one[0], one[1]]) == MAX_CONCURRENT_STREAMS)
        .unwrap();
    assert_eq!(streams[2..], 16_u32.to_be_bytes());
}

#[tokio::test]
async fn what_is_no_request_is_refused_like_everything_else() {
    let app = TestApp::start().await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "x".repeat(70_000));
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    let many = format!("GET /healthz HTTP/1.1\r\nHost: test\r\n{many}\r\n");
    let cases: [(&str, &[u8], u16, &str); 8] = [
        ("a bad request line", b"GET /healthz\r\n\r\n", 400, "MALFORMED_REQUEST"),
        (
            "no HTTP",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            400,
            "MALFORMED_REQUEST",
        ),
        ("another version", b"GET /healthz HTTP/3.7\r\n\r\n", 400, "MALFORMED_REQUEST"),
        ("a bad header", b"GET /healthz HTTP/1.1\r\nHost : test\r\n\r\n", 400, "MALFORMED_REQUEST"),
        (
            "two lengths",
            b"POST /healthz HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
            "MALFORMED_REQUEST",
        ),
        (
            "HTTP/1.0 with a bad length",
            b"POST / HTTP/1.0\r\nContent-Length: x\r\n\r\n",
            400,
            "MALFORMED_REQUEST",
        ),
        ("a long target", long.as_bytes(), 414, "URI_TOO_LONG"),
        ("many headers", many.as_bytes(), 431, "HEADERS_TOO_LARGE"),
    ];
    for (case, bytes, status, code) in cases {
        let mut wire = Wire::open(app.http).await;
        wire.send(bytes).await;
        let answer = wire.answer().await.unwrap_or_else(|| panic!("{case}: no answer"));
        assert_refused(&answer, status, code);
        assert_eq!(answer.headers["connection"], "close", "{case}");
        wire.closed().await;
        // The same after requests that were answered, all in one go.
        let good = whole("GET", "/healthz", &[], b"");
        let mut wire = Wire::open(app.http).await;
        wire.send(&[&good[..], &good, bytes].concat()).await;
        for _ in 0..2 {
            assert_eq!(wire.answer().await.unwrap().status, StatusCode::OK, "{case}");
        }
        assert_refused(&wire.answer().await.unwrap(), status, code);
        assert!(wire.answer().await.is_none(), "{case}");
    }
}
