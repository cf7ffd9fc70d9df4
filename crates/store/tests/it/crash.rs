//! A process that is killed in the middle of its work: what it was told is durable is there, and nothing is half there.

#![expect(
    clippy::disallowed_methods,
    reason = "the killed process is told its file, and makes ids of its own"
)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Command as Process, Stdio},
    sync::Arc,
};

use utmos_core::{
    command::{Outcome, Phase, Status},
    id::{CommandId, TenantId},
    ports::{Accepted, Advanced, CommandStore, Store},
};
use utmos_store::SqliteStore;
use uuid::Uuid;

use crate::{
    given::{change, moved, new, nonce, takeoff},
    sqlite::{SqlitePlace, config},
};

const DATABASE: &str = "UTMOS_STORE_CRASH_DATABASE";

/// Not a test of its own: what the killed process runs.
#[test]
fn child() {
    let Ok(path) = std::env::var(DATABASE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(config(path.as_ref())).unwrap());
        let tasks: Vec<_> =
            (0..24_u128).map(|task| tokio::spawn(work(store.clone(), task))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// Says what is durable as soon as it is told so, without end.
async fn work(store: Arc<dyn Store>, task: u128) {
    for round in 0_u64.. {
        let own = Uuid::now_v7();
        let mut spec = takeoff(0, "");
        spec.id = CommandId::new(own);
        spec.idempotency_key = own.to_string();
        spec.tenant = TenantId::new(Uuid::from_u128(own.as_u128().rotate_left(7) ^ task));
        let wide = "x".repeat(usize::try_from(round % 5 * 2000).unwrap());
        spec.payload = format!("\"{wide}\"").into();
        let command = new(spec);
        let mut known =
            utmos_core::command::Command { spec: command.spec.clone(), life: command.life.clone() };
        assert_eq!(
            store.accept(Some(nonce(own.as_u128(), 9)), command).await.unwrap(),
            Accepted::New
        );
        say(&known);
        for phase in [Phase::Sending, Phase::Delivered, Phase::Ended(Outcome::Succeeded)] {
            let life = moved(&known.life, phase, 5);
            assert_eq!(store.advance(change(&known, life.clone())).await.unwrap(), Advanced::Yes);
            known.life = life;
            say(&known);
        }
    }
}

fn say(command: &utmos_core::command::Command) {
    let line = format!("durable {} {}\n", command.spec.id, command.life.version.0);
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

#[tokio::test]
async fn a_killed_process_leaves_everything_it_was_told_and_nothing_half() {
    let place = SqlitePlace::new();
    let mut told: BTreeMap<CommandId, u64> = BTreeMap::new();
    for lines in [1, 40, 333, 1000, 2500, 700, 17, 4000] {
        for (id, version) in run_and_kill(&place, lines) {
            told.insert(id, version);
        }
        check(&place, &told).await;
    }
    assert!(told.len() > 1000, "{} commands", told.len());
}

/// Kills the child after so many lines. Answers the last version it told of each command.
fn run_and_kill(place: &SqlitePlace, lines: usize) -> Vec<(CommandId, u64)> {
    let mut child = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture", "--test-threads=1"])
        .env(DATABASE, place.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = Vec::new();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in output.by_ref().map_while(Result::ok) {
        told.extend(parse(&line));
        if told.len() >= lines {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it had said before it died; the last line may be cut.
    told.extend(output.map_while(Result::ok).filter_map(|line| parse(&line)));
    assert!(told.len() >= lines, "the child ended by itself");
    told
}

fn parse(line: &str) -> Option<(CommandId, u64)> {
    let (_, rest) = line.split_once("durable ")?;
    let (id, version) = rest.split_once(' ')?;
    (id.len() == 36).then_some(())?;
    Some((id.parse().ok()?, version.parse().ok()?))
}

async fn check(place: &SqlitePlace, told: &BTreeMap<CommandId, u64>) {
    let store = place.store();
    for (id, version) in told {
        let command = store
            .command(*id)
            .await
            .unwrap()
            .unwrap_or_else(|| panic!("{id} was told and is gone"));
        assert!(command.life.version.0 >= *version, "{id} fell behind version {version}");
        let timeline = store.timeline(*id).await.unwrap();
        assert_eq!(timeline.len() as u64, command.life.version.0, "{id}");
        assert_eq!(timeline.last().unwrap().to, command.life.status(), "{id}");
        assert_eq!(timeline[0].to, Status::Accepted);
    }
    store.close().await;
    let raw = place.raw();
    let count = |sql: &str| raw.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(
        raw.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(),
        "ok"
    );
    let commands = count("SELECT count(*) FROM commands");
    assert!(commands >= i64::try_from(told.len()).unwrap());
    for (what, sql) in [
        ("lives", "SELECT count(*) FROM commands JOIN lives USING (row, id)"),
        ("keys", "SELECT count(DISTINCT row) FROM idempotency JOIN commands USING (row)"),
        ("all keys", "SELECT count(*) FROM idempotency"),
        ("nonces", "SELECT coalesce(sum(length(keys)), 0) / 16 FROM nonces"),
        ("first lines", "SELECT count(*) FROM timeline WHERE n = 0"),
        (
            "whole timelines",
            "SELECT count(*) FROM lives l WHERE entries = version AND entries = (SELECT sum(lines) FROM timeline t
             WHERE t.row = l.row) AND entries - 1 = (SELECT max(n) FROM timeline t WHERE t.row = l.row)",
        ),
        (
            "held motions",
            "SELECT count(*) FROM lives l WHERE holds_motion = EXISTS (SELECT 1 FROM motions m WHERE m.row = l.row)",
        ),
    ] {
        assert_eq!(count(sql), commands, "{what}");
    }
}
