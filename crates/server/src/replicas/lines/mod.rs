//! Lines to the other servers, over TCP and TLS: one between any two, begun by the one with the smaller id.
//!
//! Where each is reached stands in the roll. A line that cannot be had, or breaks, is no trouble: the store is asked instead,
//! and the line is tried again.

mod frame;
mod key;
mod line;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::pki_types::{IpAddr, ServerName},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utmos_core::{
    command::Command,
    ports::{Asked, DirectLines, LineHeard, Taken, Unheard},
    replica::{News, ReplicaId, Roll},
};

pub use self::key::LineKey;
use self::{
    frame::{Frame, Hello},
    line::{Line, Over},
};

/// Longest until a line that is begun is up.
const BEGIN_WAIT: Duration = Duration::from_secs(2);
/// Lines that others begin and that are not up yet.
const BEGINNING_MAX: usize = 64;
/// Between two attempts to reach a server; doubles up to the longest.
const AGAIN_WAIT_MIN: Duration = Duration::from_millis(100);
const AGAIN_WAIT_MAX: Duration = Duration::from_secs(10);
/// The first word is shorter.
const HELLO_BYTES_MAX: usize = 1_024;

/// Why there can be no lines.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for other servers")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The key cannot be used, which a test excludes.
    #[error("the key between servers cannot be used: {0}")]
    Key(String),
}

/// The lines of this server.
pub struct Lines {
    inner: Arc<Inner>,
}

struct Inner {
    /// Where it listens, and what others are told.
    own: SocketAddr,
    address: SocketAddr,
    connector: TlsConnector,
    acceptor: TlsAcceptor,
    heard: OnceLock<Arc<dyn LineHeard>>,
    state: Mutex<State>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

#[derive(Default)]
struct State {
    me: Option<ReplicaId>,
    /// The others, and where each is reached.
    members: BTreeMap<ReplicaId, Option<SocketAddr>>,
    up: BTreeMap<ReplicaId, Arc<Line>>,
    /// Whom somebody is trying to reach.
    tried: BTreeSet<ReplicaId>,
}

impl Lines {
    /// Listens for other servers. `reached_at` is what they are told, where that is another address; its port 0 is the one that
    /// is listened on.
    ///
    /// # Errors
    /// See [`LinesError`].
    pub async fn listen(
        address: SocketAddr,
        reached_at: Option<SocketAddr>,
        key: &LineKey,
    ) -> Result<Arc<Self>, LinesError> {
        let (connector, acceptor) = key.ends().map_err(|err| LinesError::Key(err.to_string()))?;
        let failed = |cause| LinesError::Listen { address, cause };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let own = listener.local_addr().map_err(failed)?;
        let inner = Arc::new(Inner {
            own,
            address: reached_at.map_or(own, |at| match at.port() {
                0 => SocketAddr::new(at.ip(), own.port()),
                _ => at,
            }),
            connector,
            acceptor,
            heard: OnceLock::new(),
            state: Mutex::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        });
        inner.tasks.spawn(inner.clone().take_all(listener));
        Ok(Arc::new(Self { inner }))
    }

    /// Where it listens.
    #[must_use]
    pub fn own_address(&self) -> SocketAddr {
        self.inner.own
    }

    /// How many other servers there is a line to, and how many there are.
    #[must_use]
    pub fn reached(&self) -> (usize, usize) {
        let state = self.inner.lock();
        (state.up.len(), state.members.len())
    }
}

#[async_trait]
impl DirectLines for Lines {
    fn address(&self) -> Option<SocketAddr> {
        Some(self.inner.address)
    }

    fn follow(&self, me: ReplicaId, roll: &Roll) {
        let inner = &self.inner;
        let mut state = inner.lock();
        state.me = Some(me);
        let others = roll.members.iter().filter(|member| member.id != me);
        state.members = others.map(|member| (member.id, member.line)).collect();
        let State { members, up, tried, .. } = &mut *state;
        up.values().filter(|line| !members.contains_key(&line.member)).for_each(|it| it.close());
        let wanted = members.iter().filter_map(|(id, address)| Some((*id, (*address)?)));
        for (id, address) in wanted.filter(|(id, _)| me < *id && !up.contains_key(id)) {
            if tried.insert(id) {
                inner.tasks.spawn(inner.clone().reach(me, id, address));
            }
        }
    }

    fn listen(&self, heard: Arc<dyn LineHeard>) {
        // Whoever joins again is the same.
        let _before = self.inner.heard.set(heard);
    }

    async fn accept(&self, holder: ReplicaId, asked: Asked) -> Result<Taken, Unheard> {
        let line = self.inner.lock().up.get(&holder).cloned().ok_or(Unheard::NotAsked)?;
        line.ask(asked).await
    }

    fn ended(&self, member: ReplicaId, command: &Arc<Command>) -> bool {
        let line = self.inner.lock().up.get(&member).cloned();
        line.is_some_and(|line| line.ended(command))
    }

    fn tell(&self, news: &News, but: Option<ReplicaId>) -> bool {
        let lines: Option<Vec<Arc<Line>>> = {
            let state = self.inner.lock();
            if state.me.is_none() {
                return false;
            }
            let others = state.members.keys().filter(|id| Some(**id) != but);
            others.map(|id| state.up.get(id).cloned()).collect()
        };
        lines.is_some_and(|lines| Line::tell_all(&lines, news))
    }

    async fn close(&self) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Inner {
    /// Takes the lines that others begin.
    async fn take_all(self: Arc<Self>, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(BEGINNING_MAX));
        loop {
            let taken = tokio::select! {
                biased;
                () = self.stopping.cancelled() => return,
                taken = listener.accept() => taken,
            };
            let tcp = match taken {
                Ok((tcp, _)) => tcp,
                Err(error) => {
                    tracing::debug!(%error, "a line of another server could not be taken");
                    tokio::time::sleep(AGAIN_WAIT_MIN).await;
                    continue;
                }
            };
            // Whoever finds no room comes again.
            let Ok(place) = room.clone().try_acquire_owned() else { continue };
            let this = self.clone();
            self.tasks.spawn(async move {
                let begun = this.in_time(this.take(tcp)).await;
                drop(place);
                match begun {
                    Ok((line, stream, rest)) => this.keep(line, stream, rest).await,
                    Err(error) => tracing::debug!(%error, "what came is no line of a server"),
                }
            });
        }
    }

    async fn take(
        &self,
        tcp: TcpStream,
    ) -> Result<(Arc<Line>, impl AsyncRead + AsyncWrite + use<>, Vec<u8>), Over> {
        tcp.set_nodelay(true)?;
        let mut stream = self.acceptor.accept(tcp).await?;
        let (hello, rest) = first_word(&mut stream).await?;
        let me = {
            let state = self.lock();
            // One that has joined a moment ago is not known yet, and comes again.
            let is_expected = hello.from < hello.to && state.members.contains_key(&hello.from);
            state.me.filter(|me| *me == hello.to && is_expected).ok_or(Over::Stranger)?
        };
        greet(&mut stream, Hello::new(me, hello.from)).await?;
        Ok((Line::new(hello.from), stream, rest))
    }

    /// Tries to reach a server until there is a line to it, or no need of one.
    async fn reach(self: Arc<Self>, me: ReplicaId, id: ReplicaId, address: SocketAddr) {
        let _trying = Trying { inner: &self, id };
        let (mut wait, mut has_said) = (AGAIN_WAIT_MIN, false);
        let is_wanted = |state: &State| {
            state.me == Some(me)
                && state.members.get(&id) == Some(&Some(address))
                && !state.up.contains_key(&id)
        };
        while is_wanted(&self.lock()) && !self.stopping.is_cancelled() {
            let began = Instant::now();
            match self.in_time(self.begin(me, id, address)).await {
                Ok((line, stream, rest)) => {
                    self.keep(line, stream, rest).await;
                    if began.elapsed() > AGAIN_WAIT_MAX {
                        wait = AGAIN_WAIT_MIN;
                    }
                }
                // Said once: all goes by the database meanwhile.
                Err(error) if !has_said => {
                    has_said = true;
                    tracing::info!(server = %id.0, %address, %error, "no direct line to another server; it is tried again");
                }
                Err(error) => {
                    tracing::debug!(server = %id.0, %address, %error, "no direct line to a server");
                }
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(AGAIN_WAIT_MAX);
        }
    }

    /// What does not take too long, and is not wanted any more once this server stops.
    async fn in_time<T>(&self, begun: impl Future<Output = Result<T, Over>>) -> Result<T, Over> {
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => Err(Over::Closed),
            begun = timeout(BEGIN_WAIT, begun) => begun.unwrap_or(Err(Over::Silent)),
        }
    }

    async fn begin(
        &self,
        me: ReplicaId,
        id: ReplicaId,
        address: SocketAddr,
    ) -> Result<(Arc<Line>, impl AsyncRead + AsyncWrite + use<>, Vec<u8>), Over> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::IpAddress(IpAddr::from(address.ip()));
        let mut stream = self.connector.connect(name, tcp).await?;
        greet(&mut stream, Hello::new(me, id)).await?;
        let (hello, rest) = first_word(&mut stream).await?;
        match (hello.from, hello.to) == (id, me) {
            true => Ok((Line::new(id), stream, rest)),
            false => Err(Over::Stranger),
        }
    }

    /// A line is up: keeps it to its end.
    async fn keep(&self, line: Arc<Line>, stream: impl AsyncRead + AsyncWrite, rest: Vec<u8>) {
        let Some(heard) = self.heard.get().cloned() else { return };
        let before = {
            let mut state = self.lock();
            // It may have gone meanwhile.
            if !state.members.contains_key(&line.member) {
                return;
            }
            state.up.insert(line.member, line.clone())
        };
        if let Some(before) = before {
            before.close();
        }
        let up = Up { inner: self, line: line.clone() };
        tracing::info!(server = %line.member.0, "direct line to another server");
        heard.news(News::Missed);
        let mut running = std::pin::pin!(line.run(stream, rest, &heard));
        let over = tokio::select! {
            biased;
            () = self.stopping.cancelled() => {
                line.close();
                running.await
            }
            over = &mut running => over,
        };
        drop(up);
        tracing::info!(server = %line.member.0, reason = %over, "direct line to another server is over");
        heard.news(News::Missed);
    }

    /// No code path leaves it half changed, so a poisoned lock still guards a whole one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line that is up, taken out of those when this is dropped.
struct Up<'a> {
    inner: &'a Inner,
    line: Arc<Line>,
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        if state.up.get(&self.line.member).is_some_and(|up| Arc::ptr_eq(up, &self.line)) {
            state.up.remove(&self.line.member);
        }
    }
}

/// A server that is being reached for, until this is dropped.
struct Trying<'a> {
    inner: &'a Inner,
    id: ReplicaId,
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        self.inner.lock().tried.remove(&self.id);
    }
}

async fn greet(stream: &mut (impl AsyncWrite + Unpin), hello: Hello) -> Result<(), Over> {
    let mut bytes = Vec::new();
    let _always_fits = frame::write(&Frame::Hello(hello), &mut bytes);
    stream.write_all(&bytes).await?;
    Ok(stream.flush().await?)
}

/// The first word, and what came behind it.
async fn first_word(stream: &mut (impl AsyncRead + Unpin)) -> Result<(Hello, Vec<u8>), Over> {
    let mut bytes = Vec::with_capacity(HELLO_BYTES_MAX);
    loop {
        match frame::read(&bytes)? {
            Some((Frame::Hello(hello), length)) => {
                bytes.drain(..length);
                return Ok((hello, bytes));
            }
            Some(_) => return Err(Over::Stranger),
            None if bytes.len() > HELLO_BYTES_MAX => return Err(Over::Stranger),
            None => {}
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(Over::Ended);
        }
    }
}
