//! A task that writes: it takes everything queued, makes one transaction of it, and answers after the commit. There are two,
//! each with a connection of its own: emergencies do not stand behind a batch.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::UnboundedReceiver,
    task::AbortHandle,
    time::{Instant, timeout},
};
use tokio_postgres::Client;
use utmos_core::ports::StoreError;
use uuid::Uuid;

use super::{
    batch::{self, Unwritten, Wanted},
    condition::{Condition, UNHEARD},
    decide::decide,
    fault::{Fault, again},
    fence::{Own, TakenIn},
    flow::{Backend, Flow},
    job::{Answer, Ask, Job},
    limits::{
        CROSSED_MAX, GATHER_FROM, OPEN_WAIT, PROBE_WAIT, RECONNECT_WAIT_MAX, RECONNECT_WAIT_MIN,
    },
    nonces::KnownNonces,
    open::{TRY_SPACE, connect_to_serve},
    partitions::{Week, Weeks},
    statements::Statements,
    tls::MakeTls,
    url::PostgresUrl,
};
use crate::sqlite::limits::{BATCH_MAX, GATHER_ENOUGH, GATHER_WAIT};

/// How PostgreSQL knows this connection.
const OWN_BACKEND: &str =
    "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()";

/// A connection with its statements.
pub(super) struct Session {
    client: Client,
    statements: Statements,
    backend: Backend,
    driver: AbortHandle,
}

impl Session {
    pub(super) async fn open(
        url: &PostgresUrl,
        tls: &MakeTls,
    ) -> Result<Self, tokio_postgres::Error> {
        let (client, driver) = connect_to_serve(url, tls).await?;
        let statements = Statements::prepare(&client).await?;
        let row = client.query_one(OWN_BACKEND, &[]).await?;
        let backend = Backend { pid: row.try_get(0)?, began: row.try_get(1)? };
        Ok(Self { client, statements, backend, driver })
    }

    /// Nothing of what was sent is sent once more, and no word of it is waited for.
    fn break_off(&self) {
        self.driver.abort();
    }

    /// Reads the nonces that are spent, and tidies what servers of the past left in `clocks`.
    pub(super) async fn prepare_store(
        &self,
        nonces: &KnownNonces,
    ) -> Result<(), tokio_postgres::Error> {
        let rows = self.client.query("SELECT key, expires_at FROM nonces", &[]).await?;
        let mut spent = Vec::with_capacity(rows.len());
        for row in rows {
            spent.push((row.try_get(0)?, row.try_get(1)?));
        }
        nonces.learn(spent.into_iter());
        // A server that lives writes its row again with its next command.
        self.client
            .batch_execute(
                "DELETE FROM clocks WHERE writer IN (
                     SELECT writer FROM clocks WHERE newest < (SELECT max(newest) FROM clocks)
                     ORDER BY writer FOR UPDATE SKIP LOCKED)",
            )
            .await
    }
}

pub(super) struct Writer {
    pub(super) url: PostgresUrl,
    pub(super) tls: MakeTls,
    pub(super) jobs: UnboundedReceiver<Job>,
    pub(super) condition: Arc<Condition>,
    pub(super) nonces: KnownNonces,
    /// Which member it writes for.
    pub(super) own: Own,
    /// What that one has taken in.
    pub(super) taken_in: TakenIn,
    /// Whose row in `clocks` is this one's.
    pub(super) id: Uuid,
    /// Whether company is waited for, and whether the end of trouble is looked for. Not by the one for emergencies.
    pub(super) is_patient: bool,
    /// `None` when it was lost and could not be made again yet.
    pub(super) session: Option<Session>,
    pub(super) weeks: Weeks,
    /// Of the batch that is under way what is committed was sent.
    pub(super) is_committing: bool,
    pub(super) retry: Retry,
}

/// When a connection is tried again, and what those are told who come before that.
#[derive(Default)]
pub(super) struct Retry {
    wait: Duration,
    not_before: Option<(Instant, String)>,
}

/// How a transaction went.
enum Failure {
    /// It was rolled back, for a reason of its own.
    RolledBack(Fault),
    /// It may have been written.
    Unknown(StoreError),
    /// The connection was lost before the commit was sent.
    Lost(StoreError),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::RolledBack(fault)
    }
}

impl Writer {
    pub(super) async fn run(mut self) {
        let mut last = 0;
        loop {
            let mut jobs = Vec::new();
            if self.is_patient && last >= GATHER_FROM {
                self.gather(&mut jobs).await;
            }
            if jobs.is_empty() && !self.next(&mut jobs).await {
                return;
            }
            last = jobs.len();
            self.write(jobs).await;
        }
    }

    /// Waits for work, and tries a small write now and then while nothing can be written. Answers whether there may be more.
    async fn next(&mut self, jobs: &mut Vec<Job>) -> bool {
        let taken = self.jobs.recv_many(jobs, BATCH_MAX);
        if !self.is_patient || self.condition.unwritable().is_none() {
            return taken.await > 0;
        }
        match timeout(PROBE_WAIT, taken).await {
            Ok(count) => count > 0,
            Err(_) => {
                jobs.push(Job::probe());
                true
            }
        }
    }

    /// Many are at work: lets company come for a moment.
    async fn gather(&mut self, jobs: &mut Vec<Job>) {
        let until = Instant::now() + GATHER_WAIT;
        while jobs.len() < GATHER_ENOUGH {
            let taken = self.jobs.recv_many(jobs, BATCH_MAX - jobs.len());
            match tokio::time::timeout_at(until, taken).await {
                Ok(count) if count > 0 => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Every job is answered here. One that fails for a reason of its own does not harm those beside it.
    async fn write(&mut self, jobs: Vec<Job>) {
        let jobs = match self.transact(jobs).await {
            None => return,
            Some(jobs) => jobs,
        };
        for job in jobs {
            if let Some(jobs) = self.transact(vec![job]).await {
                for job in jobs {
                    job.answer(Err(StoreError::Unavailable("the store gave it up".to_owned())));
                }
            }
        }
    }

    /// Writes all of them, or answers all. Gives them back when one of many is at fault.
    async fn transact(&mut self, jobs: Vec<Job>) -> Option<Vec<Job>> {
        let (mut crossed, mut lost) = (0, 0);
        loop {
            let failure = match self.attempt(&jobs).await {
                Ok(answers) => {
                    self.condition.written();
                    for (job, answer) in jobs.into_iter().zip(answers) {
                        job.answer(Ok(answer));
                    }
                    return None;
                }
                Err(failure) => failure,
            };
            let error = match failure {
                Failure::RolledBack(Fault::Crossed(_)) if crossed < CROSSED_MAX => {
                    crossed += 1;
                    continue;
                }
                Failure::Lost(_) if lost == 0 => {
                    lost += 1;
                    continue;
                }
                Failure::RolledBack(Fault::Own(_)) if jobs.len() > 1 => return Some(jobs),
                Failure::RolledBack(Fault::Own(error)) => {
                    answer_all(jobs, &error);
                    return None;
                }
                Failure::RolledBack(Fault::Crossed(error) | Fault::Everyone(error))
                | Failure::Unknown(error)
                | Failure::Lost(error) => error,
            };
            self.condition.not_written(&error);
            answer_all(jobs, &error);
            return None;
        }
    }

    async fn attempt(&mut self, jobs: &[Job]) -> Result<Vec<Answer>, Failure> {
        let condition = self.condition.clone();
        let _under_way = condition.begin(!self.is_patient);
        let flow = condition.flow(!self.is_patient);
        let mut session = self.session(flow).await?;
        self.is_committing = false;
        let written = tokio::select! {
            biased;
            written = self.transaction(&mut session, jobs, flow) => written,
            () = flow.given_up() => {
                session.break_off();
                Err(self.never_heard_of())
            }
        };
        match &written {
            Ok(_) => {
                flow.answered();
                self.session = Some(session);
            }
            Err(Failure::RolledBack(Fault::Own(_) | Fault::Crossed(_))) => {
                flow.answered();
                if session.client.batch_execute("ROLLBACK").await.is_ok() {
                    self.session = Some(session);
                }
                self.weeks.forget();
            }
            // Not to be used again.
            Err(
                Failure::RolledBack(Fault::Everyone(_)) | Failure::Unknown(_) | Failure::Lost(_),
            ) => flow.closed(),
        }
        written
    }

    /// What the connection was given up on.
    fn never_heard_of(&self) -> Failure {
        match self.is_committing {
            true => {
                let text = format!("{UNHEARD}; it may have been written");
                Failure::Unknown(StoreError::Unavailable(text))
            }
            false => Failure::Lost(StoreError::Unavailable(UNHEARD.to_owned())),
        }
    }

    async fn transaction(
        &mut self,
        session: &mut Session,
        jobs: &[Job],
        flow: &Flow,
    ) -> Result<Vec<Answer>, Failure> {
        let Session { client, statements, .. } = session;
        let asks = || jobs.iter().map(|job| &job.ask);
        let weeks: BTreeSet<Week> = asks().filter_map(week).collect();
        let before_commit = |fault: Fault, client: &Client| match fault {
            Fault::Everyone(error) if client.is_closed() => Failure::Lost(error),
            fault @ (Fault::Own(_) | Fault::Crossed(_) | Fault::Everyone(_)) => {
                Failure::RolledBack(fault)
            }
        };
        if asks().any(|ask| matches!(ask, Ask::Probe))
            && let Err(err) = client.batch_execute(TRY_SPACE).await
        {
            return Err(before_commit(Fault::from(err), client));
        }
        if let Err(fault) = self.weeks.ensure(client, &weeks).await {
            return Err(before_commit(fault, client));
        }
        // The same for all of the batch, whoever joins meanwhile.
        let own = self.own.id();
        let wanted = Wanted::of(asks(), own, self.taken_in.all());
        let facts = match batch::learn(client, statements, &wanted).await {
            Ok(facts) => facts,
            Err(fault) => return Err(before_commit(fault, client)),
        };
        let mut plan = decide(asks(), facts)?;
        if asks().any(|ask| matches!(ask, Ask::Probe)) {
            plan.newest.get_or_insert(i64::MIN);
        }
        // Asked under the member's lock: what was forgotten meanwhile went with its shard, and may have come back with it.
        let noted = asks().filter_map(|ask| match ask {
            Ask::TakenIn(ids) => Some(ids),
            Ask::Accept(_) | Ask::Advance(_) | Ask::Spend(_) | Ask::Probe => None,
        });
        plan.taken_in = self.taken_in.still(noted.flatten().copied());
        flow.goes_on();
        self.is_committing = true;
        match batch::write(client, statements, &plan, self.id, own).await {
            Ok(()) => {}
            Err(Unwritten::RolledBack(fault)) => return Err(Failure::RolledBack(fault)),
            Err(Unwritten::Unknown(error)) => return Err(Failure::Unknown(error)),
        }
        let spent = plan.nonces.iter();
        self.nonces.learn(spent.map(|it| (Uuid::from_bytes(it.key), it.expires_at.as_millis())));
        Ok(plan.answers)
    }

    /// The connection, or another where it was lost; not tried without end.
    async fn session(&mut self, flow: &Flow) -> Result<Session, Failure> {
        if let Some(session) = self.session.take()
            && !session.client.is_closed()
        {
            flow.opened(session.backend.clone());
            return Ok(session);
        }
        flow.closed();
        if let Some((not_before, why)) = &self.retry.not_before
            && Instant::now() < *not_before
        {
            let error = StoreError::Unavailable(why.clone());
            return Err(Failure::RolledBack(Fault::Everyone(error)));
        }
        let opened = timeout(OPEN_WAIT, Session::open(&self.url, &self.tls)).await;
        let error = match opened {
            Ok(Ok(session)) => {
                self.retry = Retry::default();
                self.weeks.forget();
                flow.opened(session.backend.clone());
                return Ok(session);
            }
            Ok(Err(err)) => super::fault::to_store_error(&err),
            Err(_) => StoreError::Unavailable(format!(
                "PostgreSQL has not let a connection begin within {} s; look at it, and at the network between",
                OPEN_WAIT.as_secs()
            )),
        };
        flow.not_opened();
        let (StoreError::Unavailable(text) | StoreError::Damaged(text)) = &error;
        let wait = (self.retry.wait * 2).clamp(RECONNECT_WAIT_MIN, RECONNECT_WAIT_MAX);
        self.retry = Retry { wait, not_before: Some((Instant::now() + wait, text.clone())) };
        Err(Failure::RolledBack(Fault::Everyone(error)))
    }
}

/// The week a new command is written in.
fn week(ask: &Ask) -> Option<Week> {
    match ask {
        Ask::Accept(acceptance) => Some(Week::of(acceptance.id())),
        Ask::Advance(_) | Ask::Spend(_) | Ask::TakenIn(_) | Ask::Probe => None,
    }
}

fn answer_all(jobs: Vec<Job>, error: &StoreError) {
    for job in jobs {
        job.answer(Err(again(error)));
    }
}
