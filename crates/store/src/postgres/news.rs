//! What servers tell each other past the tables: hints, on a connection of their own.
//!
//! Never on a writer's: a transaction that notifies takes a lock of the whole database when it commits, so that all
//! writers would stand in one line. What is told within a few milliseconds goes as one. It is not synced to the disk, since
//! nobody relies on it.
//!
//! The connection is made when somebody first tells or listens. One that broke is made again; as something may have been
//! missed before a connection listens, the listener hears [`News::Missed`] each time.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_postgres::{AsyncMessage, Client, Statement};
use utmos_core::{id::CommandId, replica::News};
use uuid::Uuid;

use super::{
    fault::causes,
    limits::{
        CONNECT_WAIT, NEWS_GATHER_WAIT, NEWS_IDS_MAX, NEWS_IDS_PER_MESSAGE, NEWS_LOOK_WAIT,
        NEWS_WAIT, RECONNECT_WAIT_MAX, RECONNECT_WAIT_MIN,
    },
    tls::MakeTls,
    url::{PostgresUrl, mutual},
};

/// Of all servers of a database.
const CHANNEL: &str = "utmos_news";

type Heard = Arc<dyn Fn(News) + Send + Sync>;

/// What is to be told, with everything that was told twice in it once.
#[derive(Default)]
struct Untold {
    handed: bool,
    roll: bool,
    changed: BTreeSet<CommandId>,
    /// Ids that are not among those above: an end is all there is to tell of its command.
    ended: BTreeSet<CommandId>,
}

impl Untold {
    fn add(&mut self, news: News) {
        match news {
            News::Handed => self.handed = true,
            News::Roll => self.roll = true,
            News::Changed(ids) => {
                let room = self.room_for(ids.len());
                let goes_on = ids.into_iter().filter(|id| !self.ended.contains(id));
                self.changed.extend(goes_on.take(room));
            }
            News::Ended(ids) => {
                for id in &ids {
                    self.changed.remove(id);
                }
                let room = self.room_for(ids.len());
                self.ended.extend(ids.into_iter().take(room));
            }
            // Each finds that out by itself.
            News::Missed => {}
        }
    }

    fn room_for(&self, count: usize) -> usize {
        let room = NEWS_IDS_MAX.saturating_sub(self.changed.len() + self.ended.len());
        if count > room {
            tracing::debug!("too much to tell the other servers; some of it is dropped");
        }
        room
    }

    fn is_empty(&self) -> bool {
        !self.handed && !self.roll && self.changed.is_empty() && self.ended.is_empty()
    }

    /// As messages, none of them longer than PostgreSQL takes.
    fn into_messages(self) -> Vec<String> {
        let mut messages = Vec::new();
        if self.roll {
            messages.push(ROLL.to_owned());
        }
        if self.handed {
            messages.push(HANDED.to_owned());
        }
        for (letter, ids) in [(ENDED, self.ended), (CHANGED, self.changed)] {
            let ids: Vec<CommandId> = ids.into_iter().collect();
            messages.extend(ids.chunks(NEWS_IDS_PER_MESSAGE).map(|some| written(letter, some)));
        }
        messages
    }
}

/// As they are told: a letter, behind which stand ids of 32 digits each.
const HANDED: &str = "h";
const ROLL: &str = "r";
const CHANGED: &str = "c";
const ENDED: &str = "e";

fn written(letter: &str, ids: &[CommandId]) -> String {
    let mut text = letter.to_owned();
    ids.iter().for_each(|id| text.push_str(&id.uuid().simple().to_string()));
    text
}

/// `None` for what a later version tells.
fn read(message: &str) -> Option<News> {
    match message.as_bytes() {
        b"h" => Some(News::Handed),
        b"r" => Some(News::Roll),
        [b'c', ids @ ..] => read_ids(ids).map(News::Changed),
        [b'e', ids @ ..] => read_ids(ids).map(News::Ended),
        _ => None,
    }
}

fn read_ids(text: &[u8]) -> Option<Vec<CommandId>> {
    text.chunks(32).map(|id| Uuid::try_parse_ascii(id).ok().map(CommandId::new)).collect()
}

#[derive(Default)]
struct Board {
    untold: Mutex<Untold>,
    heard: Mutex<Option<Heard>>,
    /// There is something to do.
    stir: Notify,
}

impl Board {
    fn untold(&self) -> MutexGuard<'_, Untold> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self) -> Option<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hear(&self, news: News) {
        if let Some(heard) = self.heard() {
            heard(news);
        }
    }
}

/// The way to the other servers.
pub(super) struct Wire {
    board: Arc<Board>,
    /// The task that keeps the connection, and what ends it when it is dropped.
    task: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Wire {
    pub(super) fn new(url: PostgresUrl, tls: MakeTls) -> Self {
        let board = Arc::<Board>::default();
        let (end, ended) = oneshot::channel();
        let keeper = Keeper { url, tls, board: board.clone(), ended };
        let task = tokio::spawn(keeper.run());
        Self { board, task: Mutex::new(Some((end, task))) }
    }

    pub(super) fn tell(&self, news: News) {
        self.board.untold().add(news);
        self.board.stir.notify_one();
    }

    pub(super) fn listen(&self, heard: Box<dyn Fn(News) + Send + Sync>) {
        *self.board.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(heard.into());
        self.board.stir.notify_one();
    }

    /// Tells what is to be told, where that is quick, and gives the connection back.
    pub(super) async fn close(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((end, task)) = task {
            drop(end);
            drop(timeout(NEWS_WAIT, task).await);
        }
    }
}

/// The task that keeps the connection.
struct Keeper {
    url: PostgresUrl,
    tls: MakeTls,
    board: Arc<Board>,
    /// Comes when the store is closed or dropped.
    ended: oneshot::Receiver<()>,
}

/// A connection that listens.
struct Session {
    client: Client,
    /// Tells messages.
    notify: Statement,
    /// What it hears, of others; ends with the connection.
    messages: mpsc::UnboundedReceiver<String>,
}

impl Keeper {
    async fn run(mut self) {
        let mut wait = Duration::ZERO;
        while self.is_wanted().await {
            tokio::select! {
                biased;
                _ = &mut self.ended => return,
                () = tokio::time::sleep(wait) => {}
            }
            let session = tokio::select! {
                biased;
                _ = &mut self.ended => return,
                session = Session::open(&self.url, &self.tls) => session,
            };
            let error = match session {
                Ok(session) => {
                    wait = Duration::ZERO;
                    self.board.hear(News::Missed);
                    match self.serve(session).await {
                        Some(error) => error,
                        None => return,
                    }
                }
                Err(error) => error,
            };
            tracing::debug!("news of the other servers cannot be heard: {error}");
            wait = (wait * 2).clamp(RECONNECT_WAIT_MIN, RECONNECT_WAIT_MAX);
        }
    }

    /// Waits until there is something to do. Answers whether the store is still there.
    async fn is_wanted(&mut self) -> bool {
        loop {
            if self.board.heard().is_some() || !self.board.untold().is_empty() {
                return true;
            }
            tokio::select! {
                biased;
                _ = &mut self.ended => return false,
                () = self.board.stir.notified() => {}
            }
        }
    }

    /// Tells and hears. Answers why the connection is of no more use; `None` when the store is gone.
    async fn serve(&mut self, mut session: Session) -> Option<String> {
        let mut is_ending = false;
        let mut next = Instant::now();
        loop {
            if !self.board.untold().is_empty() {
                if !is_ending {
                    // What is told in the same moment goes with it, and what is told soon after the last goes as one.
                    tokio::task::yield_now().await;
                    tokio::time::sleep_until(next).await;
                    next = Instant::now() + NEWS_GATHER_WAIT;
                }
                let untold = std::mem::take(&mut *self.board.untold());
                if let Err(error) = session.tell(untold.into_messages()).await {
                    return Some(error);
                }
            }
            if is_ending {
                return None;
            }
            tokio::select! {
                biased;
                _ = &mut self.ended => is_ending = true,
                message = session.messages.recv() => match message {
                    Some(message) => {
                        if let Some(news) = read(&message) {
                            self.board.hear(news);
                        }
                    }
                    None => return Some("the connection was lost".to_owned()),
                },
                () = self.board.stir.notified() => {}
                () = tokio::time::sleep(NEWS_LOOK_WAIT) => {
                    if let Err(error) = session.look().await {
                        return Some(error);
                    }
                }
            }
        }
    }
}

impl Session {
    async fn open(url: &PostgresUrl, tls: &MakeTls) -> Result<Self, String> {
        let explain = |err: tokio_postgres::Error| causes(&err);
        let open = async {
            let (client, mut connection) =
                url.config().connect(tls.clone()).await.map_err(explain)?;
            let (heard, messages) = mpsc::unbounded_channel();
            let (tell_self, own) = oneshot::channel::<i32>();
            tokio::spawn(async move {
                let mut own = Some(own);
                let mut pid = None;
                while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                    match message {
                        Ok(AsyncMessage::Notification(it)) => {
                            // It listens only after its number is known.
                            pid =
                                pid.or_else(|| own.take().and_then(|mut own| own.try_recv().ok()));
                            if pid != Some(it.process_id())
                                && heard.send(it.payload().to_owned()).is_err()
                            {
                                return;
                            }
                        }
                        Ok(_) => {}
                        Err(_) => return,
                    }
                }
            });
            let settings = "SET synchronous_commit = off; SET client_min_messages = warning";
            client.batch_execute(&format!("{settings}; {}", mutual())).await.map_err(explain)?;
            let row = client.query_one("SELECT pg_backend_pid()", &[]).await.map_err(explain)?;
            // Without anybody to take it the connection is gone, and listening will say so.
            let _is_taken = tell_self.send(row.try_get(0).map_err(explain)?);
            client.batch_execute(&format!("LISTEN {CHANNEL}")).await.map_err(explain)?;
            let sql = "SELECT pg_notify($1, u.message) FROM unnest($2::text[]) AS u (message)";
            let notify = client.prepare(sql).await.map_err(explain)?;
            Ok(Self { client, notify, messages })
        };
        timeout(2 * CONNECT_WAIT, open)
            .await
            .unwrap_or_else(|_| Err("PostgreSQL is silent".to_owned()))
    }

    async fn tell(&self, messages: Vec<String>) -> Result<(), String> {
        answered(self.client.query(&self.notify, &[&CHANNEL, &messages])).await
    }

    /// Whether PostgreSQL is still there: a listener hears nothing of a connection that was cut off.
    async fn look(&self) -> Result<(), String> {
        answered(self.client.batch_execute("")).await
    }
}

async fn answered<T>(
    asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<(), String> {
    match timeout(NEWS_WAIT, asked).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(err)) => Err(causes(&err)),
        Err(_) => Err("PostgreSQL is silent".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: std::ops::Range<u128>) -> Vec<CommandId> {
        numbers.map(|number| CommandId::new(Uuid::from_u128(number << 64 | 7))).collect()
    }

    #[test]
    fn what_was_told_twice_goes_once_and_in_messages_that_postgresql_takes() {
        let mut untold = Untold::default();
        assert!(untold.is_empty());
        for news in [News::Handed, News::Changed(ids(0..400)), News::Handed, News::Roll] {
            untold.add(news);
        }
        untold.add(News::Changed(ids(300..600)));
        // Of what has ended that is told alone, whichever was said first.
        untold.add(News::Ended(ids(590..700)));
        untold.add(News::Changed(ids(650..700)));
        let messages = untold.into_messages();
        assert!(messages.iter().all(|message| message.len() < 8_000));
        let (mut changed, mut ended, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for message in &messages {
            match read(message) {
                Some(News::Changed(ids)) => changed.extend(ids),
                Some(News::Ended(ids)) => ended.extend(ids),
                other => rest.push(other),
            }
        }
        assert_eq!(changed, ids(0..590));
        assert_eq!(ended, ids(590..700));
        assert_eq!(rest, [Some(News::Roll), Some(News::Handed)]);
    }

    #[test]
    fn what_cannot_be_told_for_long_has_a_bound() {
        let mut untold = Untold::default();
        let most = u128::try_from(NEWS_IDS_MAX).unwrap_or_default();
        untold.add(News::Changed(ids(0..most + 9)));
        untold.add(News::Changed(ids(most..most + 9)));
        untold.add(News::Ended(ids(most..most + 9)));
        assert_eq!((untold.changed.len(), untold.ended.len()), (NEWS_IDS_MAX, 0));
        // The end of what was to be told of takes its place.
        untold.add(News::Ended(ids(0..9)));
        assert_eq!((untold.changed.len(), untold.ended.len()), (NEWS_IDS_MAX - 9, 9));
    }

    #[test]
    fn what_is_no_news_is_none() {
        for message in ["", "x", "hh", "c1", "e1", "cé", &format!("c{}", "g".repeat(32))] {
            assert_eq!(read(message), None, "{message}");
        }
    }
}
