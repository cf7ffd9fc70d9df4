//! A cable between a server and what it works with, which can be cut.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use crate::place::own_address;

/// What PostgreSQL answers to a commit that was made.
const COMMITTED: &[u8] = b"COMMIT\0";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// Connections end, and new ones are ended at once.
    Cut,
    /// Nothing comes through, and nobody is told.
    Silent,
    /// The same on connections that write commands into PostgreSQL, whenever these were made; all others go on.
    WritersSilent,
}

/// What a connection says that writes commands.
const WRITES: &[u8] = b"learn_batch";

/// Listens on an address of its own, at the port of what stands behind it.
pub struct Forwarder {
    pub address: SocketAddr,
    way: watch::Sender<Way>,
    /// Answers to commits that get lost yet, with their connections.
    lost_commits: Arc<AtomicUsize>,
}

impl Forwarder {
    pub async fn to(target: SocketAddr) -> Self {
        let address = SocketAddr::from((own_address(), target.port()));
        let listener = TcpListener::bind(address).await.unwrap();
        let (way, lost_commits) = (watch::Sender::new(Way::Open), Arc::<AtomicUsize>::default());
        let (seen, lost) = (way.subscribe(), lost_commits.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target, seen.clone(), lost.clone()));
            }
        });
        Self { address, way, lost_commits }
    }

    pub fn cut(&self) {
        self.way.send_replace(Way::Cut);
    }

    pub fn fall_silent(&self) {
        self.way.send_replace(Way::Silent);
    }

    pub fn silence_writers(&self) {
        self.way.send_replace(Way::WritersSilent);
    }

    pub fn mend(&self) {
        self.way.send_replace(Way::Open);
    }

    /// So many commits are made, and whoever asked for them is cut off instead of being answered.
    pub fn lose_commits(&self, count: usize) {
        self.lost_commits.store(count, Ordering::SeqCst);
    }

    /// How many of them have not come.
    pub fn commits_to_lose(&self) -> usize {
        self.lost_commits.load(Ordering::SeqCst)
    }
}

async fn carry(
    client: TcpStream,
    target: SocketAddr,
    way: watch::Receiver<Way>,
    lost: Arc<AtomicUsize>,
) {
    let mut cut = way.clone();
    let carrying = async {
        let was_open = matches!(*way.borrow(), Way::Open | Way::WritersSilent);
        if !was_open {
            // Whoever knocked meanwhile has to knock again.
            is_open(&mut way.clone()).await;
            return;
        }
        let Ok(server) = TcpStream::connect(target).await else { return };
        // Else what comes in pieces waits some 40 ms here, which no network makes it do.
        if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
            return;
        }
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let is_writer = AtomicBool::new(false);
        tokio::select! {
            () = copy(from_client, to_server, way.clone(), None, &is_writer) => {}
            () = copy(from_server, to_client, way.clone(), Some(lost), &is_writer) => {}
        }
    };
    tokio::select! {
        _ = cut.wait_for(|way| *way == Way::Cut) => {}
        () = carrying => {}
    }
}

/// Waits while it is silent.
async fn is_open(way: &mut watch::Receiver<Way>) -> bool {
    way.wait_for(|way| *way != Way::Silent).await.is_ok_and(|way| *way != Way::Cut)
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    lost: Option<Arc<AtomicUsize>>,
    is_writer: &AtomicBool,
) {
    let mut buffer = vec![0; 1 << 16];
    let mut said = Vec::new();
    loop {
        let count = from.read(&mut buffer).await.unwrap_or(0);
        let is_said = buffer[..count].windows(WRITES.len()).any(|words| words == WRITES);
        is_writer.fetch_or(is_said, Ordering::SeqCst);
        if is_writer.load(Ordering::SeqCst) && *way.borrow() == Way::WritersSilent {
            // Both sides would have forgotten it by the time it is mended.
            drop(way.wait_for(|way| *way != Way::WritersSilent).await);
            return;
        }
        if count == 0 || !is_open(&mut way).await {
            return;
        }
        // What was lost in the silence only its sender could send again, and that one has broken off.
        if from.as_ref().take_error().unwrap().is_some() {
            return;
        }
        if let Some(lost) = &lost {
            said.extend_from_slice(&buffer[..count]);
            let is_committed = said.windows(COMMITTED.len()).any(|words| words == COMMITTED);
            let one_less = |count: usize| count.checked_sub(1);
            if is_committed
                && lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
            {
                return;
            }
            // Less than the words, so that none is found twice.
            said.drain(..said.len().saturating_sub(COMMITTED.len() - 1));
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
