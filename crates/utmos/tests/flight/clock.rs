//! Clocks that jump. Deadlines follow the running time, signatures and timestamps follow the wall, and after a reboot
//! with the wall set back nothing of before is trusted to be fresh.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use reqwest::StatusCode;
use serde_json::json;
use utmos_core::time::{BootId, Clock, Mono, Now, Timestamp};
use utmos_server::clock::SystemClock;

use crate::{
    api::COMMANDS,
    dock::PretendDock,
    place::{Place, Running},
};

const HOUR: Duration = Duration::from_hours(1);
const HOUR_SECONDS: i64 = 3_600;

/// The machine's clocks, moved by hand.
struct TestClock {
    machine: SystemClock,
    boot: BootId,
    wall_ahead_ms: AtomicI64,
    mono_ahead_ms: AtomicI64,
}

impl TestClock {
    /// A machine in its `boot`-th run, whose wall clock is ahead by so many seconds.
    fn new(boot: u8, wall_ahead_seconds: i64) -> Arc<Self> {
        let clock = Self {
            machine: SystemClock::new(),
            boot: BootId([boot; 16]),
            wall_ahead_ms: AtomicI64::new(wall_ahead_seconds * 1_000),
            mono_ahead_ms: AtomicI64::new(0),
        };
        Arc::new(clock)
    }

    fn jump_to(&self, wall_ahead_seconds: i64) {
        self.wall_ahead_ms.store(wall_ahead_seconds * 1_000, Ordering::SeqCst);
    }

    /// Time passes, and the wall shows nothing of it.
    fn run(&self, time: Duration) {
        let millis = i64::try_from(time.as_millis()).unwrap();
        self.mono_ahead_ms.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Now {
        let now = self.machine.now();
        let wall = now.wall.as_millis() + self.wall_ahead_ms.load(Ordering::SeqCst);
        // Each run of a machine counts from its own start.
        let mono = i64::try_from(now.mono.as_millis()).unwrap()
            + self.mono_ahead_ms.load(Ordering::SeqCst)
            + i64::from(self.boot.0[0]) * 100_000_000;
        Now {
            wall: Timestamp::from_millis(wall),
            mono: Mono::from_millis(u64::try_from(mono).unwrap()),
        }
    }

    fn boot(&self) -> BootId {
        self.boot
    }
}

/// A dock comes, and gets these commands and no others; it carries them out.
async fn gets(server: &Running, sn: &str, expected: &[&String]) -> Vec<serde_json::Value> {
    let mut dock = PretendDock::connect(server.mqtt(), sn).await;
    let mut bodies = Vec::new();
    for id in expected {
        let command = dock.command().await;
        assert_eq!(command.tid(), id.as_str());
        dock.reply(&command, json!({"result": 0})).await;
        bodies.push(command.body);
    }
    assert!(dock.drain_commands().await.is_empty());
    dock.leave().await;
    bodies
}

async fn a_jump_of_the_wall_moves_no_deadline(ahead: i64) {
    let place = Place::with_gateways(&["DOCK-1"]).await;
    let clock = TestClock::new(1, 0);
    let server = place.start_at(clock.clone()).await;
    let before = &server.api;
    let timeout = |seconds: u64| json!({"timeout_seconds": seconds});
    let kept = before.create("DOCK-1", "debug_mode_open", json!({}), timeout(200)).await.id();
    let late = before.create("DOCK-1", "debug_mode_close", json!({}), timeout(100)).await.id();
    clock.jump_to(ahead);
    let after = server.api.ahead(ahead);
    let new = after.create("DOCK-1", "flight_authority_grab", json!({}), timeout(200)).await.id();
    clock.run(Duration::from_secs(120));
    let expired = after.ended(&late).await;
    assert_eq!(
        (&expired["status"], &expired["failure_code"]),
        (&json!("TIMED_OUT"), &json!("DEVICE_OFFLINE")),
        "nothing goes out late"
    );
    for id in [&kept, &new] {
        let waiting = after.get(&format!("{COMMANDS}/{id}")).await;
        assert_eq!(waiting.body["status"], "ACCEPTED", "nothing expires early: {waiting:?}");
    }
    for body in gets(&server, "DOCK-1", &[&kept, &new]).await {
        let shown = body["timestamp"].as_i64().unwrap();
        let difference = (clock.now().wall.as_millis() - shown).abs();
        assert!(difference < HOUR_SECONDS * 500, "the wire shows the wall: {body:#}");
    }
    for id in [&kept, &new] {
        assert_eq!(after.ended(id).await["status"], "SUCCEEDED");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_wall_set_forward_expires_nothing_early() {
    a_jump_of_the_wall_moves_no_deadline(HOUR_SECONDS).await;
}

#[tokio::test]
async fn a_wall_set_back_sends_nothing_late() {
    a_jump_of_the_wall_moves_no_deadline(-HOUR_SECONDS).await;
}

#[tokio::test]
async fn an_answer_is_waited_for_in_running_time() {
    for ahead in [HOUR_SECONDS, -HOUR_SECONDS] {
        let place = Place::with_gateways(&["DOCK-1"]).await;
        let clock = TestClock::new(1, 0);
        let server = place.start_at(clock.clone()).await;
        let mut dock = PretendDock::connect(server.mqtt(), "DOCK-1").await;
        let silent =
            server.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
        let slow = json!({"timeout_seconds": 300});
        let slow = server.api.create("DOCK-1", "debug_mode_close", json!({}), slow).await.id();
        dock.command().await;
        let command = dock.command().await;
        clock.jump_to(ahead);
        let api = server.api.ahead(ahead);
        clock.run(Duration::from_secs(60));
        assert_eq!(api.ended(&silent).await["failure_code"], "NO_RESPONSE");
        dock.reply(&command, json!({"result": 0})).await;
        assert_eq!(api.ended(&slow).await["status"], "SUCCEEDED");
        server.stop().await;
    }
}

#[tokio::test]
async fn signatures_follow_the_wall() {
    let place = Place::new().await;
    let clock = TestClock::new(1, 0);
    let server = place.start_at(clock.clone()).await;
    for shown in [0, HOUR_SECONDS, -HOUR_SECONDS, 0] {
        clock.jump_to(shown);
        for signed in [0, HOUR_SECONDS, -HOUR_SECONDS] {
            let answer = server.api.ahead(signed).get(COMMANDS).await;
            let expected = if signed == shown {
                (StatusCode::OK, "")
            } else {
                (StatusCode::UNAUTHORIZED, "TIMESTAMP_EXPIRED")
            };
            assert_eq!((answer.status, answer.code()), expected, "{signed} s at {shown} s");
        }
    }
    server.stop().await;
}

/// A command waits, the machine reboots with its wall clock ahead by so much: whether the command still goes out.
async fn is_sent_after_a_reboot(wall_ahead_seconds: i64) -> bool {
    let place = Place::with_gateways(&["DOCK-1"]).await;
    let server = place.start_at(TestClock::new(1, 0)).await;
    let long = json!({"timeout_seconds": 300});
    let old = server.api.create("DOCK-1", "debug_mode_open", json!({}), long.clone()).await.id();
    server.stop().await;

    let server = place.start_at(TestClock::new(2, wall_ahead_seconds)).await;
    let api = server.api.ahead(wall_ahead_seconds);
    let new = api.create("DOCK-1", "debug_mode_close", json!({}), long).await.id();
    let state = api.get(&format!("{COMMANDS}/{old}")).await.body;
    let is_open = state["completed_at"].is_null();
    let mut dock = PretendDock::connect(server.mqtt(), "DOCK-1").await;
    let mut came = Vec::new();
    while !came.contains(&new) {
        let command = dock.command().await;
        dock.reply(&command, json!({"result": 0})).await;
        came.push(command.tid().to_owned());
    }
    assert!(dock.drain_commands().await.is_empty());
    assert_eq!(api.ended(&new).await["status"], "SUCCEEDED", "what is new goes out");
    let ended = api.ended(&old).await;
    let was_sent = came.contains(&old);
    if was_sent {
        assert!(is_open);
        assert_eq!(ended["status"], "SUCCEEDED");
    } else {
        assert_eq!(ended["status"], "TIMED_OUT", "{ended:#}");
        let code = ended["failure_code"].as_str().unwrap();
        assert!(["DEVICE_OFFLINE", "EXPIRED_BEFORE_SENDING"].contains(&code), "{ended:#}");
        let causes = api.causes(&old).await;
        assert!(!causes.contains(&"sending_claimed".to_owned()), "{causes:?}");
    }
    server.stop().await;
    was_sent
}

#[tokio::test]
async fn after_a_reboot_the_wall_tells_how_old_a_command_is() {
    assert!(is_sent_after_a_reboot(0).await, "its deadline is ahead");
    let past = i64::try_from(HOUR.as_secs()).unwrap();
    assert!(!is_sent_after_a_reboot(past).await, "its deadline has passed");
}

#[tokio::test]
async fn after_a_reboot_with_the_wall_set_back_nothing_old_is_sent() {
    assert!(!is_sent_after_a_reboot(-HOUR_SECONDS).await);
    assert!(!is_sent_after_a_reboot(-100).await, "and be it less than the deadline is away");
}
