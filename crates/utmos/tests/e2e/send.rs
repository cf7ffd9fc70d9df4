//! `utmos send` against a server that answers as it is told.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use utmos_core::{
    credential::SigningKey,
    id::ApiId,
    signing::{SignedParts, sign},
};

use crate::shell::{Run, Shell};

const KEY: &str = "test-key";
const API_ID: &str = "utk_test";

/// What the server does with one request.
enum Reply {
    /// Reads it and hangs up.
    HangUp,
    /// Answers.
    Json(u16, Value),
}

/// A request as it came.
#[derive(Debug, Clone)]
struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    fn is_signed(&self) -> bool {
        let (path, query) = self
            .target
            .split_once('?')
            .map_or((self.target.as_str(), None), |(path, query)| (path, Some(query)));
        let parts = SignedParts { method: &self.method, path, query, body: self.body.as_bytes() };
        let timestamp = self.header("X-Api-Timestamp").parse().unwrap();
        let key = SigningKey::new(KEY.as_bytes());
        sign(&key, parts, &ApiId::new(API_ID), timestamp, self.header("X-Api-Nonce"))
            == self.header("X-Api-Signature")
    }
}

/// Starts a server that gives these replies in turn and remembers what it was asked.
fn serve(replies: Vec<Reply>) -> (String, Arc<Mutex<Vec<Request>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = seen.clone();
    std::thread::spawn(move || {
        for reply in replies {
            let (stream, _) = listener.accept().unwrap();
            requests.lock().unwrap().push(read(&stream));
            if let Reply::Json(status, body) = reply {
                answer(stream, status, &body.to_string());
            }
        }
    });
    (url, seen)
}

fn read(stream: &TcpStream) -> Request {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut text = String::new();
        reader.read_line(&mut text).unwrap();
        text.trim_end().to_owned()
    };
    let start = line();
    let mut words = start.split(' ');
    let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let mut headers = Vec::new();
    loop {
        let text = line();
        let Some((name, value)) = text.split_once(": ") else { break };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let mut request = Request { method, target, headers, body: String::new() };
    let length = request.header("Content-Length").parse().unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    request.body = String::from_utf8(body).unwrap();
    request
}

fn answer(mut stream: TcpStream, status: u16, body: &str) {
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).unwrap();
}

fn accepted() -> Reply {
    Reply::Json(
        202,
        json!({"command_id": "c1", "status": "ACCEPTED", "accepted_at": "t", "request_id": "r"}),
    )
}

fn ended(status: &str) -> Reply {
    Reply::Json(
        200,
        json!({"command_id": "c1", "status": status, "completed_at": "t", "status_version": 3}),
    )
}

fn send(url: &str, more: &[&str]) -> Run {
    let shell =
        Shell::new().set("UTMOS_API_KEY", KEY).set("UTMOS_API_ID", API_ID).set("UTMOS_URL", url);
    shell.run(["send", "D1", "cover_open"].iter().chain(more))
}

#[test]
fn the_exit_code_tells_the_outcome() {
    for (status, code) in [
        ("SUCCEEDED", 0),
        ("DELIVERED", 0),
        ("FAILED", 10),
        ("TIMED_OUT", 11),
        ("UNMATCHED_RESPONSE", 12),
    ] {
        let (url, _) = serve(vec![accepted(), ended(status)]);
        let run = send(&url, &[]);
        assert_eq!(run.code, code, "{run:?}");
        assert!(run.out.starts_with(status), "{run:?}");
    }
    let refusal = json!({"code": "DEVICE_NOT_FOUND", "message": "no device D1 in this tenant", "request_id": "r9"});
    let (url, _) = serve(vec![Reply::Json(404, refusal)]);
    let run = send(&url, &[]);
    assert_eq!(run.code, 3);
    assert_eq!(run.err, "error: 404 DEVICE_NOT_FOUND: no device D1 in this tenant\n  request r9\n");
}

#[test]
fn a_lost_answer_is_asked_for_again_under_the_same_key() {
    let (url, seen) =
        serve(vec![Reply::HangUp, Reply::HangUp, accepted(), Reply::HangUp, ended("SUCCEEDED")]);
    let run = send(&url, &["{\"a\": 1}"]);
    assert_eq!(run.code, 0, "{run:?}");
    let seen = seen.lock().unwrap();
    let posts: Vec<&Request> = seen.iter().filter(|request| request.method == "POST").collect();
    assert_eq!(posts.len(), 3);
    assert!(posts.iter().all(|post| post.body == posts[0].body), "one body, one key");
    let key = serde_json::from_str::<Value>(&posts[0].body).unwrap()["idempotency_key"].clone();
    assert_eq!(key.as_str().unwrap().parse::<uuid::Uuid>().unwrap().get_version_num(), 7);
    let mut nonces: Vec<&str> = seen.iter().map(|request| request.header("X-Api-Nonce")).collect();
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), seen.len(), "every attempt has a nonce of its own");
    assert!(seen.iter().all(Request::is_signed));
}

#[test]
fn the_wait_goes_on_from_the_version_that_was_seen() {
    let started = json!({"command_id": "c1", "status": "DELIVERED", "completed_at": null, "status_version": 5,
        "execution": {"state": "in_progress", "step": "open_cover", "percent": 40}});
    let (url, seen) = serve(vec![accepted(), Reply::Json(200, started), ended("SUCCEEDED")]);
    let run = send(&url, &["--json"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.err.contains("DELIVERED  in_progress, open_cover, 40 %"), "{run:?}");
    assert_eq!(serde_json::from_str::<Value>(&run.out).unwrap()["status"], "SUCCEEDED");
    let targets: Vec<String> =
        seen.lock().unwrap().iter().skip(1).map(|request| request.target.clone()).collect();
    assert!(
        targets[0].ends_with("after_version=0") && targets[1].ends_with("after_version=5"),
        "{targets:?}"
    );
}

#[test]
fn nobody_there_is_told_apart_from_a_refusal() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let run = send(&format!("http://{nobody}"), &[]);
    assert_eq!(run.code, 20, "{run:?}");
    assert!(run.err.contains("check that the server runs"), "{run:?}");
}

#[test]
fn arguments_that_make_no_sense_send_nothing() {
    let (url, seen) = serve(vec![accepted()]);
    for more in [&["{broken"][..], &["--timeout", "301"], &["@missing.json"]] {
        assert_eq!(send(&url, more).code, 2, "{more:?}");
    }
    assert!(seen.lock().unwrap().is_empty());
    assert_eq!(Shell::new().run(["send", "D1", "cover_open"]).code, 2, "without a credential");
}

#[test]
fn a_dry_run_shows_what_would_be_sent() {
    let (url, seen) = serve(vec![Reply::Json(200, json!({"dry_run": true, "gateway_id": "D1"}))]);
    let run = send(&url, &["--dry-run"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.out.contains("\"gateway_id\": \"D1\""));
    assert!(seen.lock().unwrap()[0].body.contains("\"dry_run\":true"));
}
