//! One line to one server: what waits to be said on it, and what is waited for.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Notify, oneshot},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use utmos_core::{
    command::{Command, Spec},
    ports::{ASKED_WAIT_MAX, Accepted, Answer, Asked, LineHeard, Taken, Unheard},
    replica::{News, ReplicaId},
};

use super::frame::{self, Frame, Unreadable};

/// How often something is said, if only that one is there.
const PING_WAIT: Duration = Duration::from_millis(200);
/// A line on which nothing has come, or nothing could leave, for so long is given up: callers wait for what is asked on it.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// Where a question has waited for so long, no other is asked.
const SLOW_AFTER: Duration = Duration::from_millis(250);
/// And so long after one that was not answered in time.
const REST: Duration = Duration::from_secs(2);
/// Bytes that may wait to leave; more is not said.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Questions from one server that may wait for their answers.
const ASKED_MAX: usize = 4_096;
/// What is read at once, at the least.
const READ_BYTES: usize = 16 * 1024;

/// A line that is up, or was.
pub(super) struct Line {
    pub(super) member: ReplicaId,
    state: Mutex<State>,
    /// Something waits to leave.
    stir: Notify,
    closed: CancellationToken,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    next: u64,
    asked: BTreeMap<u64, Question>,
    /// Questions of the other server that have no answer yet.
    owed: usize,
    /// Until when nothing is asked, since what was asked before has not been answered in time.
    rests_until: Option<Instant>,
    is_closed: bool,
}

/// What was asked and is not answered.
struct Question {
    spec: Arc<Spec>,
    at: Instant,
    told: oneshot::Sender<Taken>,
}

/// Why a line is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Over {
    #[error("{0}")]
    Broken(#[from] io::Error),
    #[error("{0}")]
    Unreadable(#[from] Unreadable),
    #[error("the other server closed it")]
    Ended,
    #[error("the other server has been silent for {} ms", SILENCE_MAX.as_millis())]
    Silent,
    #[error("there is no need of it any more")]
    Closed,
    #[error("it is not the server that it should be")]
    Stranger,
}

impl Line {
    pub(super) fn new(member: ReplicaId) -> Arc<Self> {
        Arc::new(Self {
            member,
            state: Mutex::default(),
            stir: Notify::new(),
            closed: CancellationToken::new(),
        })
    }

    /// Ends it.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    /// Asks, and waits for the answer for its time as long as the line is up. Where others wait for long already, nothing is asked: the
    /// store of the other server may be slow, or gone.
    pub(super) async fn ask(&self, asked: Asked) -> Result<Taken, Unheard> {
        let spec = asked.spec.clone();
        let (number, answer) = {
            let mut state = self.lock();
            let number = state.next;
            let now = Instant::now();
            let is_slow = state.asked.values().next().is_some_and(|it| now > it.at + SLOW_AFTER)
                || state.rests_until.is_some_and(|until| now < until);
            if is_slow || state.asked.len() >= ASKED_MAX || !state.say(&Frame::Ask(number, asked)) {
                return Err(Unheard::NotAsked);
            }
            state.next += 1;
            let (told, answer) = oneshot::channel();
            state.asked.insert(number, Question { spec, at: now, told });
            (number, answer)
        };
        self.stir.notify_one();
        match timeout(ASKED_WAIT_MAX, answer).await {
            Ok(answer) => answer.map_err(|_| Unheard::Broken),
            Err(_) => {
                let mut state = self.lock();
                state.asked.remove(&number);
                state.rest();
                Err(Unheard::Broken)
            }
        }
    }

    pub(super) fn ended(&self, command: &Command) -> bool {
        let is_said = {
            let mut state = self.lock();
            state.has_room() && frame::write_ended(command, &mut state.waiting)
        };
        self.stir.notify_one();
        is_said
    }

    /// Says the same on all of these lines, or on none where one of them has no room for it.
    pub(super) fn tell_all(lines: &[Arc<Self>], news: &News) -> bool {
        if !lines.iter().all(|line| line.lock().has_room()) {
            return false;
        }
        let mut bytes = Vec::new();
        if !frame::write(&Frame::News(news.clone()), &mut bytes) {
            return false;
        }
        for line in lines {
            {
                let mut state = line.lock();
                // One that broke just now is noticed: whoever comes back has missed something.
                if !state.is_closed {
                    state.waiting.extend_from_slice(&bytes);
                }
            }
            line.stir.notify_one();
        }
        true
    }

    fn answer(&self, number: u64, taken: Taken) -> bool {
        let is_said = {
            let mut state = self.lock();
            state.owed = state.owed.saturating_sub(1);
            state.say(&Frame::Answer(number, taken))
        };
        self.stir.notify_one();
        is_said
    }

    /// Says and hears until it is over.
    pub(super) async fn run(
        self: &Arc<Self>,
        stream: impl AsyncRead + AsyncWrite,
        heard_before: Vec<u8>,
        heard: &Arc<dyn LineHeard>,
    ) -> Over {
        let (reader, writer) = tokio::io::split(stream);
        // Also where what is heard panics.
        let _closing = Closing(self);
        let over = tokio::select! {
            biased;
            () = self.closed.cancelled() => Ok(Over::Closed),
            over = self.hear(reader, heard_before, heard) => over,
            over = self.speak(writer) => over,
        };
        over.unwrap_or_else(|over| over)
    }

    async fn speak(&self, mut writer: impl AsyncWrite + Unpin) -> Result<Over, Over> {
        let mut leaving = Vec::new();
        loop {
            {
                let mut state = self.lock();
                std::mem::swap(&mut state.waiting, &mut leaving);
            }
            if leaving.is_empty() && timeout(PING_WAIT, self.stir.notified()).await.is_ok() {
                continue;
            }
            if leaving.is_empty() {
                let _always_fits = frame::write(&Frame::Ping, &mut leaving);
            }
            let written = async {
                writer.write_all(&leaving).await?;
                writer.flush().await
            };
            timeout(SILENCE_MAX, written).await.map_err(|_| Over::Silent)??;
            leaving.clear();
        }
    }

    async fn hear(
        self: &Arc<Self>,
        mut reader: impl AsyncRead + Unpin,
        mut bytes: Vec<u8>,
        heard: &Arc<dyn LineHeard>,
    ) -> Result<Over, Over> {
        loop {
            let mut taken = 0;
            while let Some((frame, length)) = frame::read(bytes.get(taken..).unwrap_or_default())? {
                taken += length;
                self.heed(frame, heard);
            }
            bytes.drain(..taken);
            bytes.reserve(READ_BYTES);
            let read = timeout(SILENCE_MAX, reader.read_buf(&mut bytes));
            if read.await.map_err(|_| Over::Silent)?? == 0 {
                return Ok(Over::Ended);
            }
        }
    }

    fn heed(self: &Arc<Self>, frame: Frame, heard: &Arc<dyn LineHeard>) {
        match frame {
            Frame::Ask(number, asked) => {
                let is_too_much = {
                    let mut state = self.lock();
                    state.owed += 1;
                    state.owed > ASKED_MAX
                };
                if is_too_much {
                    self.answer(number, Taken::NotHere);
                    return;
                }
                let owed = Owed { line: self.clone(), number, is_answered: false };
                let answer: Answer = Box::new(move |taken| owed.answer(taken));
                heard.asked(self.member, asked, answer);
            }
            Frame::Answer(number, taken) => {
                let asked = self.lock().asked.remove(&number);
                let Some(Question { spec, told, .. }) = asked else { return };
                match taken {
                    Taken::Stored(Accepted::New | Accepted::Elsewhere) => heard.accepted(&spec),
                    Taken::Unclear => self.lock().rest(),
                    Taken::Stored(_) | Taken::Full(_) | Taken::NotHere => {}
                }
                let _nobody_waits = told.send(taken);
            }
            Frame::Ended(command) => heard.ended(command),
            Frame::News(news) => heard.news(news),
            // Once more than is needed.
            Frame::Hello(_) | Frame::Ping => {}
        }
    }

    /// No code path leaves it half changed, so a poisoned lock still guards a whole one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a line that is over, however that came.
struct Closing<'a>(&'a Line);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.closed.cancel();
        let mut state = self.0.lock();
        state.is_closed = true;
        // Whoever waits hears that there will be no answer.
        state.asked.clear();
        state.waiting = Vec::new();
    }
}

/// An answer that is owed. One that is dropped is given all the same: nobody knows what became of the question.
struct Owed {
    line: Arc<Line>,
    number: u64,
    is_answered: bool,
}

impl Owed {
    fn answer(mut self, taken: Taken) -> bool {
        self.is_answered = true;
        self.line.answer(self.number, taken)
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if !self.is_answered {
            self.line.answer(self.number, Taken::Unclear);
        }
    }
}

impl State {
    fn rest(&mut self) {
        self.rests_until = Some(Instant::now() + REST);
    }

    fn has_room(&self) -> bool {
        !self.is_closed && self.waiting.len() < WAITING_BYTES_MAX
    }

    fn say(&mut self, frame: &Frame) -> bool {
        self.has_room() && frame::write(frame, &mut self.waiting)
    }
}
