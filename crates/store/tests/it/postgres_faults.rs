//! A PostgreSQL that restarts, and connections that break at the worst moment: nothing twice, nothing half, nothing lost.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use utmos_core::{
    command::Phase,
    id::CommandId,
    ports::{Accepted, Advanced, CommandStore, StoreError},
};
use utmos_store::PostgresStore;

use crate::{
    given::{change, moved, new, nonce, spec},
    postgres_commands::{PostgresPlace, config, whole},
    postgres_server::{Database, PostgresServer, Stop},
};

static NONCES: AtomicU64 = AtomicU64::new(1 << 32);

/// Accepts commands and moves each of them on, trying again as callers do, until it is told to stop.
async fn keep_writing(
    store: Arc<PostgresStore>,
    number: usize,
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
) -> BTreeMap<CommandId, Phase> {
    let mut written = BTreeMap::new();
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let command = new(spec(round, &format!("k{number}-{round}")));
        let (id, life) = (command.spec.id, command.life.clone());
        loop {
            let nonce = nonce(NONCES.fetch_add(1, Ordering::Relaxed).into(), 900);
            match store.accept(Some(nonce), command.clone()).await {
                Ok(Accepted::New) => break,
                Ok(Accepted::Replayed { id: before, .. }) if before == id => break,
                Ok(other) => panic!("{other:?}"),
                Err(StoreError::Unavailable(_)) => {
                    refused.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(err) => panic!("{err}"),
            }
        }
        written.insert(id, Phase::Waiting);
        let command = utmos_core::command::Command { spec: command.spec.clone(), life };
        let life = moved(&command.life, Phase::Sending, 1);
        let mut in_doubt = false;
        loop {
            match store.advance(change(&command, life.clone())).await {
                Ok(Advanced::Yes) => break,
                Ok(Advanced::Elsewhere | Advanced::Preempted(_)) => {
                    unreachable!("one server works alone")
                }
                Ok(Advanced::Lost) => {
                    assert!(in_doubt, "nobody else moves it");
                    break;
                }
                Err(StoreError::Unavailable(_)) => {
                    in_doubt = true;
                    refused.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(err) => panic!("{err}"),
            }
        }
        written.insert(id, Phase::Sending);
    }
    written
}

/// Writes with several tasks while `trouble` goes on, then looks at everything.
async fn write_through(database: &Database, trouble: impl AsyncFnOnce(&Arc<AtomicU64>)) {
    let store = Arc::new(PostgresStore::open(config(&database.url())).await.unwrap());
    let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..16)
        .map(|number| {
            tokio::spawn(keep_writing(store.clone(), number, stop.clone(), refused.clone()))
        })
        .collect();
    trouble(&refused).await;
    stop.store(true, Ordering::Relaxed);
    let mut written = BTreeMap::new();
    for task in tasks {
        written.extend(task.await.unwrap());
    }
    assert!(written.len() > 16);
    let count = |sql: &str| database.sql(sql).parse::<usize>().unwrap();
    assert_eq!(count("SELECT count(*) FROM commands"), written.len());
    assert_eq!(count("SELECT count(*) FROM idempotency"), written.len());
    assert_eq!(count("SELECT count(*) FROM lives WHERE entries = 2 AND phase = 2"), written.len());
    assert_eq!(count("SELECT count(*) FROM timeline"), 2 * written.len());
    for (id, phase) in written.into_iter().take(20) {
        assert_eq!(store.command(id).await.unwrap().unwrap().life.phase, phase);
    }
    assert_eq!(store.trouble(), None);
    whole(database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_and_a_crash_of_postgresql_lose_nothing_and_write_nothing_twice() {
    let server = PostgresServer::own();
    let database = server.database();
    write_through(&database, async |refused| {
        for how in [Stop::Fast, Stop::Immediate] {
            let before = refused.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.stop(how);
            // Every caller is told.
            until(|| refused.load(Ordering::Relaxed) > before).await;
            server.begin();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_ended_lose_nothing_and_write_nothing_twice() {
    let database = PostgresServer::shared().database();
    write_through(&database, async |_| {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            database.end_connections();
        }
    })
    .await;
}

async fn until(is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
}

/// Cuts connections at a moment of their conversation.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cut {
    Nowhere = 0,
    /// The transaction's first word does not arrive.
    AtBegin = 1,
    /// The commit does not arrive.
    BeforeCommit = 2,
    /// The commit was made, and the word of it does not arrive.
    AfterCommit = 3,
    /// The commit does not arrive, and the connection stays: as if the server's machine stood still.
    Stall = 4,
    /// Nothing arrives any more, and connections stay, until told otherwise; those stay silent then, too.
    Silent = 5,
    /// The same on connections that write commands, whenever these were made; all others go on.
    Writers = 6,
}

/// What a connection says that writes commands.
const WRITES: &[u8] = b"learn_batch";

/// Stands between the store and PostgreSQL. Cuts once for each time it is told to.
pub struct Wire {
    address: SocketAddr,
    cut: Arc<AtomicU8>,
}

impl Wire {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, cut) = (listener.local_addr().unwrap(), Arc::new(AtomicU8::new(0)));
        let at = cut.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(target).await.unwrap();
                tokio::spawn(carry(client, server, at.clone()));
            }
        });
        Self { address, cut }
    }

    /// Where it is reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn cut(&self, at: Cut) {
        self.cut.store(at as u8, Ordering::SeqCst);
    }

    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst) == Cut::Nowhere as u8
    }
}

async fn carry(client: TcpStream, server: TcpStream, cut: Arc<AtomicU8>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let is_writer = AtomicBool::new(false);
    let is = |at: Cut| cut.load(Ordering::SeqCst) == at as u8;
    let is_mute = || is(Cut::Writers) && is_writer.load(Ordering::SeqCst);
    let once = |at: Cut| {
        let (at, nowhere) = (at as u8, Cut::Nowhere as u8);
        cut.compare_exchange(at, nowhere, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    };
    let up = async {
        let mut buffer = vec![0; 1 << 20];
        let mut said = Vec::new();
        loop {
            let count = from_client.read(&mut buffer).await.unwrap_or(0);
            if is(Cut::Silent) {
                return std::future::pending().await;
            }
            said.extend_from_slice(&buffer[..count]);
            let holds = |word: &[u8]| said.windows(word.len()).any(|window| window == word);
            is_writer.fetch_or(holds(WRITES), Ordering::SeqCst);
            if is_mute() {
                return std::future::pending().await;
            }
            if is(Cut::Stall) && holds(b"COMMIT\0") && once(Cut::Stall) {
                return std::future::pending().await;
            }
            if count == 0
                || (is(Cut::AtBegin) && holds(b"BEGIN\0") && once(Cut::AtBegin))
                || (is(Cut::BeforeCommit) && holds(b"COMMIT\0") && once(Cut::BeforeCommit))
                || to_server.write_all(&buffer[..count]).await.is_err()
            {
                return;
            }
            // Less than the shortest word, so that none is found twice.
            said.drain(..said.len().saturating_sub(5));
        }
    };
    let down = async {
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = from_server.read(&mut buffer).await.unwrap_or(0);
            if is_mute() {
                return std::future::pending().await;
            }
            let made = buffer[..count].windows(7).any(|window| window == b"COMMIT\0");
            if count == 0
                || (made && once(Cut::AfterCommit))
                || to_client.write_all(&buffer[..count]).await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {} }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_around_the_commit_is_unknown_and_the_next_try_finds_the_truth() {
    let place = PostgresPlace::new();
    let direct = place.store().await;
    let wire = Wire::to(place.database.address()).await;
    let database = place.database.address().to_string();
    let url = place.database.url().replace(&database, &wire.address.to_string());
    let store = PostgresStore::open(config(&url)).await.unwrap();
    assert_eq!(store.accept(None, new(spec(0, "first"))).await.unwrap(), Accepted::New);

    for (number, at) in (1_i64..).zip([Cut::BeforeCommit, Cut::AfterCommit]) {
        let command = spec(number, &format!("k{number}"));
        let spent = nonce(number.unsigned_abs().into(), 900);
        wire.cut(at);
        let unknown = store.accept(Some(spent), new(command.clone())).await.unwrap_err();
        assert!(wire.is_cut());
        let StoreError::Unavailable(text) = unknown else { panic!("{unknown}") };
        assert!(text.contains("may have been written"), "{text}");
        let is_there = direct.command(command.id).await.unwrap().is_some();
        assert_eq!(is_there, at == Cut::AfterCommit);
        let again = nonce(100 + number.unsigned_abs() as u128, 900);
        match store.accept(Some(again), new(command.clone())).await.unwrap() {
            Accepted::New => assert!(at == Cut::BeforeCommit),
            Accepted::Replayed { id, .. } => {
                assert!(at == Cut::AfterCommit);
                assert_eq!(id, command.id);
                // Its nonce is as spent as it is.
                let refused = store.accept(Some(spent), new(command)).await.unwrap();
                assert_eq!(refused, Accepted::NonceReplayed);
            }
            other @ (Accepted::Conflict { .. }
            | Accepted::Elsewhere
            | Accepted::Busy { .. }
            | Accepted::NonceReplayed) => panic!("{other:?}"),
        }
        assert_eq!(store.trouble(), None);
    }

    // What certainly was not committed is tried again at once, on another connection.
    wire.cut(Cut::AtBegin);
    assert_eq!(store.accept(None, new(spec(5, "k5"))).await.unwrap(), Accepted::New);
    assert!(wire.is_cut());
    assert_eq!(place.database.sql("SELECT count(*) FROM commands"), "4");
}
