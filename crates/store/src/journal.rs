//! Emergencies do not wait for an unwell database (LIFECYCLE.md, "Emergencies first").
//!
//! [`JournalledStore`] stands before another store and passes everything on. When the store refuses, or takes too long,
//! an emergency command is written to a small file instead, synced to the disk, and goes its way; once the store is
//! well again, everything in the file is stored there. Other commands never take this way, and the file is asked about
//! them first: its emergencies hold their keys, their nonces and their aircraft before the store knows of them.
//!
//! A nonce that was spent, and a key that was used, are known all the same: nonces are in memory and, where the store has
//! not taken them, in the file; keys are read as long as the database can be read. Only where it cannot, a key that was used before cannot be known; a stop that is sent
//! twice is better than one that is not sent.

mod answering;
mod disk;
mod file;
mod fitting;
mod medium;
mod pending;
mod registry;
mod remembered;
mod settling;
#[cfg(test)]
mod tests;
#[doc(hidden)]
pub mod trying;
mod turns;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, error::Elapsed};
use utmos_core::{
    command::{Command, Spec},
    evidence::{Entry, Proof},
    id::{CommandId, TenantId},
    method::Risk,
    ports::{
        Accepted, Advance, Advanced, CommandFilter, CommandStore, NewCommand, Nonce, ReadNonce,
        Store, StoreDepths, StoreError, Unmatched,
    },
    replica::Shard,
    signing::{NonceUse, RequestTimes},
    time::Timestamp,
};
use uuid::Uuid;

use self::{
    disk::{Caller, Disk},
    file::JournalFile,
    medium::FileMedium,
    pending::{Pending, Record, Way},
    turns::{Turn, Turns},
};
pub use self::{
    disk::{JournalJob, JournalWriter},
    file::JournalError,
    medium::Medium,
};
use crate::{MasterKey, seal::Sealer};

/// How long an emergency waits for the store before it takes the journal.
const STORE_PATIENCE: Duration = Duration::from_millis(250);

/// Whether the key of an emergency was used before is read only once the store has taken so long to accept it: a read beside
/// every write would take its time from both.
const KEY_READ_WAIT: Duration = Duration::from_millis(20);

/// A store that never holds an emergency up.
pub struct JournalledStore {
    inner: Arc<dyn Store>,
    /// Never locked while anything is waited for. Only the thread of the disk adds records.
    pending: Arc<Mutex<Pending>>,
    disk: Disk,
    turns: Turns,
    /// Whether other servers, each with a journal of its own, work on the same store.
    is_shared: bool,
    key_read_wait: Duration,
    /// Whether it was told in the log that the file cannot be emptied.
    is_untidy: AtomicBool,
}

impl JournalledStore {
    /// Stands before a store of whichever kind, with the journal at `path`, sealed under `key`: the store's own, so that
    /// whoever can read the one can read the other. What an earlier process left in the journal is put into the store by
    /// [`JournalledStore::settle`].
    ///
    /// # Errors
    /// When the file cannot be made, read or locked. Lines that cannot be read are no error: see the log.
    pub fn open(inner: Arc<dyn Store>, key: &MasterKey, path: &Path) -> Result<Self, JournalError> {
        let io = |cause| JournalError::Io { path: path.to_owned(), cause };
        let in_use = || JournalError::InUse { path: path.to_owned() };
        let medium = FileMedium::open(path).map_err(io)?.ok_or_else(in_use)?;
        let (file, pending) = read(Box::new(medium), &Sealer::new(key))?;
        Ok(Self::new(inner, pending, Disk::start(file).map_err(io)?))
    }

    /// The same on another medium, without a thread: whatever is to be written waits for whoever has the writer.
    ///
    /// # Errors
    /// When the medium cannot be read or written.
    pub fn on(
        inner: Arc<dyn Store>,
        key: &MasterKey,
        medium: Box<dyn Medium>,
    ) -> Result<(Self, JournalWriter), JournalError> {
        let (file, pending) = read(medium, &Sealer::new(key))?;
        let (disk, writer) = Disk::with_writer(file);
        Ok((Self::new(inner, pending, disk), writer))
    }

    fn new(inner: Arc<dyn Store>, pending: Arc<Mutex<Pending>>, disk: Disk) -> Self {
        let (turns, is_untidy) = (Turns::default(), AtomicBool::new(false));
        let key_read_wait = KEY_READ_WAIT;
        Self { inner, pending, disk, turns, is_shared: false, key_read_wait, is_untidy }
    }

    /// The same where other servers, each with a journal of its own, work on the same store. What the store may hold unsent
    /// another server may come to send, and knows nothing of this journal. So a sending is begun here only together with the
    /// acceptance, under a claim that whatever the store holds of it bears as well; else the store is waited for.
    #[must_use]
    pub fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }

    /// With more time to read a key, for a test whose machine may be late.
    #[cfg(test)]
    fn reading_keys_for(self, key_read_wait: Duration) -> Self {
        Self { key_read_wait, ..self }
    }

    /// Whether a server has the journal at `path`, so that no other can start with it. Changes nothing.
    ///
    /// # Errors
    /// When there is a file that cannot be opened.
    pub fn is_in_use(path: &Path) -> io::Result<bool> {
        medium::is_in_use(path)
    }

    /// How many commands are in the journal and not in the store.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.pending().len()
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        lock(&self.pending)
    }

    /// How many nonces are to be put on record.
    #[must_use]
    pub fn unsettled_nonces(&self) -> usize {
        self.pending().unsettled_nonces()
    }

    /// What the store knows of a key, or what is known here of the copy that went while the store could not say.
    fn or_instead(&self, known: Accepted, spec: &Spec) -> Accepted {
        self.pending().answer_instead(&known, spec).unwrap_or(known)
    }

    /// Asks the store to take an emergency, and where it does not do so at once also whether its key was used before: that is
    /// read, and answered also while nothing can be written. Nothing of either when it takes too long.
    async fn accept_or_foresee(
        &self,
        nonce: Option<NonceUse>,
        new: &NewCommand,
        patience: Duration,
    ) -> (Option<Result<Accepted, StoreError>>, Option<Result<Accepted, StoreError>>) {
        let mut accepting = std::pin::pin!(self.ask(nonce, new.clone(), patience));
        let key_wait = self.key_read_wait.min(patience);
        let is_refused = match tokio::time::timeout(key_wait, &mut accepting).await {
            Ok(Some(answer)) => return (Some(answer), None),
            Ok(None) => true,
            Err(_) => false,
        };
        // One that waited for its turn has the time of a read all the same: another server may have taken a copy.
        let read_wait = patience.saturating_sub(key_wait).max(self.key_read_wait);
        let foreseeing = tokio::time::timeout(read_wait, self.inner.foresee(new.clone()));
        let mut foreseeing = std::pin::pin!(async { well(foreseeing.await) });
        if is_refused {
            return (None, foreseeing.await);
        }
        tokio::select! {
            biased;
            accepted = &mut accepting => {
                let foreseen = if accepted.is_none() { foreseeing.await } else { None };
                (accepted, foreseen)
            }
            foreseen = &mut foreseeing => (accepting.await, foreseen),
        }
    }

    /// Asks the store to accept. Where it takes too long it may answer, and write, when nobody waits for it any more.
    async fn ask(
        &self,
        nonce: Option<NonceUse>,
        new: NewCommand,
        patience: Duration,
    ) -> Option<Result<Accepted, StoreError>> {
        let (inner, pending, id) = (self.inner.clone(), self.pending.clone(), new.spec.id);
        self.pending().ask(id);
        let mut asking = Box::pin(async move {
            let spec = new.spec.clone();
            let answer = inner.accept(nonce, new).await;
            lock(&pending).answered(spec, &answer);
            answer
        });
        let answer = tokio::time::timeout(patience, &mut asking).await;
        if answer.is_err() {
            tokio::spawn(asking);
        }
        well(answer)
    }

    /// Saves a change of an emergency that is in the store: there, or in the journal. Of one that both refused the store may
    /// have written it all the same. Whatever is decided next on the same version must not go past it, so the first is
    /// saved then, and the next has lost.
    async fn advance_either(&self, advance: Advance) -> Result<Advanced, StoreError> {
        let id = advance.id;
        let before = self.pending().unsaid(&advance);
        let has_lost = before.is_some();
        let first = before.unwrap_or(advance);
        let may_journal = !self.is_others_to_know(&first);
        let answer = match patiently(self.inner.advance(first.clone())).await {
            Some(answer) => {
                if matches!(answer, Ok(Advanced::Yes)) {
                    self.pending().saved(id, &first.life);
                }
                answer
            }
            None if may_journal => self.journal_advance(first.clone()).await,
            None => Err(not_yet()),
        };
        match answer {
            // What the store may hold is not known yet, only that it is something else than was decided on.
            Ok(Advanced::Lost) => Ok(Advanced::Lost),
            Ok(answer) => {
                self.pending().is_said(id);
                Ok(if has_lost { Advanced::Lost } else { answer })
            }
            Err(error) => {
                self.pending().is_unsaid(first);
                Err(error)
            }
        }
    }

    /// These come into care.
    fn watched(&self, open: Vec<Command>) -> Vec<Command> {
        let mut pending = self.pending();
        open.iter().for_each(|command| pending.watch(command));
        drop(pending);
        open
    }

    /// Whether a change begins a sending that other servers could begin as well, as long as the store does not know of it.
    fn is_others_to_know(&self, advance: &Advance) -> bool {
        let is_claim = |entry: &Entry| matches!(entry.proof, Proof::SendingClaimed { .. });
        self.is_shared && advance.entries.iter().any(is_claim)
    }

    async fn journal_advance(&self, advance: Advance) -> Result<Advanced, StoreError> {
        let (id, seen) = (advance.id, advance.seen);
        let record = Record::Advance { advance };
        let is_evidence = record.is_evidence();
        let refused = move |pending: &Pending| {
            if pending.way(id, seen) == Way::Lost {
                return Some(Advanced::Lost);
            }
            // As the store does with what is too much for a timeline.
            (is_evidence && pending.is_full_of_evidence(id)).then_some(Advanced::Yes)
        };
        self.journal(record, refused, Advanced::Yes).await
    }

    /// Writes a record, unless `refused` says why it does not fit what is in the journal by then: when its turn comes, and once
    /// more when it is written, since the store may have told something meanwhile.
    async fn journal<T: Send + 'static>(
        &self,
        record: Record,
        refused: impl Fn(&Pending) -> Option<T> + Send + 'static,
        done: T,
    ) -> Result<T, StoreError> {
        let (id, record, pending) = (record.id(), record.kept()?, self.pending.clone());
        let answer = self.disk.run(move |file, caller| {
            let known = refused(&lock(&pending));
            let answer = match known {
                Some(known) => Ok(known),
                None => match file.append(&record) {
                    Ok(()) => return put_in(&pending, file, record, &refused, caller, done),
                    Err(err) => Err(to_store_error(&err)),
                },
            };
            drop(caller.send(answer));
        });
        let answer = answer.await?;
        let id = id.map(tracing::field::display);
        tracing::warn!(command.id = id, "the store is unwell: an emergency goes by the journal");
        Ok(answer)
    }
}

/// What is on a medium, and what of it is to be settled.
fn read(
    medium: Box<dyn Medium>,
    sealer: &Sealer,
) -> Result<(JournalFile, Arc<Mutex<Pending>>), JournalError> {
    let (file, records) = JournalFile::open(medium, sealer)?;
    let pending = Pending::of(records, file.is_empty());
    Ok((file, Arc::new(Mutex::new(pending))))
}

/// Makes a record known that is in the file. Where it is refused by now it is taken back, and where nobody waits for it any
/// more: nobody acts on it either, and a stop that nobody sends must not look like one that is under way.
fn put_in<T>(
    pending: &Mutex<Pending>,
    file: &mut JournalFile,
    record: Record,
    refused: &impl Fn(&Pending) -> Option<T>,
    caller: Caller<T>,
    done: T,
) {
    let id = record.id();
    let mut known = lock(pending);
    if let Some(answer) = refused(&known) {
        drop(known);
        file.take_back();
        drop(caller.send(Ok(answer)));
        return;
    }
    known.add(record);
    if caller.send(Ok(done)).is_err()
        && let Some(id) = id
    {
        known.take_back(id);
        drop(known);
        file.take_back();
    }
}

fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_yet() -> StoreError {
    let why = "another server may send this emergency until the store knows that this one does";
    StoreError::Unavailable(why.to_owned())
}

fn to_store_error(error: &JournalError) -> StoreError {
    StoreError::Unavailable(match error {
        JournalError::Io { cause, .. } => format!("{error}: {cause}"),
        JournalError::InUse { .. } | JournalError::Full => error.to_string(),
    })
}

/// Waits for the store as long as an emergency can. `None` when it cannot keep it, or must not be waited for.
async fn patiently<T>(
    work: impl Future<Output = Result<T, StoreError>>,
) -> Option<Result<T, StoreError>> {
    well(tokio::time::timeout(STORE_PATIENCE, work).await)
}

fn well<T>(answer: Result<Result<T, StoreError>, Elapsed>) -> Option<Result<T, StoreError>> {
    match answer {
        Ok(Err(StoreError::Unavailable(_) | StoreError::Damaged(_))) | Err(_) => None,
        Ok(answer) => Some(answer),
    }
}

#[async_trait]
impl CommandStore for JournalledStore {
    fn trouble(&self) -> Option<String> {
        self.inner.trouble()
    }

    fn depths(&self) -> StoreDepths {
        StoreDepths { unsettled: self.unsettled(), ..self.inner.depths() }
    }

    async fn accept(
        &self,
        nonce: Option<NonceUse>,
        new: NewCommand,
    ) -> Result<Accepted, StoreError> {
        let is_emergency = new.spec.risk == Risk::Emergency;
        let came = Instant::now();
        // Whatever has come of the copies before this one is known then.
        let turn = match is_emergency {
            true => Some(self.turns.take(&new.spec).await),
            false => None,
        };
        // Of an emergency before the store is asked, which may spend it and then not say so.
        let is_replayed = nonce.is_some_and(|nonce| match is_emergency {
            true => self.knows_nonce(&nonce),
            false => self.pending().knows_nonce(&nonce),
        });
        if is_replayed {
            return Ok(Accepted::NonceReplayed);
        }
        let known = self.pending().refusal(&new);
        if let Some(known) = known {
            drop(turn);
            return match is_emergency {
                true => Ok(self.answer(nonce, known, self.key_read_wait).await),
                false => self.refuse(nonce, known).await,
            };
        }
        // The store need not be asked for the command, and be waited for, once more for each copy that came at once.
        let has_waited = turn.as_ref().is_some_and(Turn::has_waited);
        let copied = has_waited.then(|| self.pending().same_key(&new.spec)).flatten();
        // What it has waited for those before it, it has waited for the store, which may be well by now all the same.
        let patience = STORE_PATIENCE.saturating_sub(came.elapsed()).max(self.key_read_wait);
        if let Some(known) = copied {
            drop(turn);
            return Ok(self.answer(nonce, known, patience).await);
        }
        if !is_emergency {
            return self.inner.accept(nonce, new).await;
        }
        let id = new.spec.id;
        // What was refused before and may still be written is the one that goes: the store is not asked for a second.
        let before = self.pending().refused(&new.spec);
        let (accepted, foreseen) = match before {
            Some(_) => (None, None),
            None => self.accept_or_foresee(nonce, &new, patience).await,
        };
        if let Some(answer) = accepted {
            return answer.map(|known| self.or_instead(known, &new.spec));
        }
        match foreseen {
            // It was written, and the store was too slow to say so.
            Some(Ok(Accepted::Replayed { id: stored, .. })) if stored == id => {
                self.pending().stored(new.spec.clone());
                Ok(Accepted::New)
            }
            Some(Ok(known @ (Accepted::Replayed { .. } | Accepted::Conflict { .. }))) => {
                drop(turn);
                let known = self.or_instead(known, &new.spec);
                // The store was asked to spend it, and may do so yet.
                Ok(self.answer(nonce, known, Duration::ZERO).await)
            }
            Some(
                Ok(
                    Accepted::New
                    | Accepted::Elsewhere
                    | Accepted::Busy { .. }
                    | Accepted::NonceReplayed,
                )
                | Err(_),
            )
            | None => {
                let (spec, given) = (new.spec.clone(), (nonce, new.clone()));
                let refused = move |pending: &Pending| {
                    let is_replayed = nonce.is_some_and(|nonce| pending.knows_nonce(&nonce));
                    is_replayed
                        .then_some(Accepted::NonceReplayed)
                        .or_else(|| pending.same_key(&spec))
                };
                let (record, done) = match before {
                    Some((nonce, new)) => {
                        let (id, accepted_at) = (new.spec.id, new.spec.accepted_at);
                        let status = new.life.status();
                        let done = Accepted::Replayed { id, accepted_at, status };
                        (Record::Accept { nonce, new }, done)
                    }
                    None => (Record::Accept { nonce, new }, Accepted::New),
                };
                match self.journal(record, refused, done).await {
                    // The store has told meanwhile.
                    Ok(Accepted::Replayed { id: stored, .. }) if stored == id => Ok(Accepted::New),
                    Ok(known @ (Accepted::Replayed { .. } | Accepted::Conflict { .. })) => {
                        drop(turn);
                        Ok(self.answer(nonce, known, Duration::ZERO).await)
                    }
                    Err(error) => {
                        self.pending().refuse(given.0, given.1);
                        Err(error)
                    }
                    answer @ Ok(
                        Accepted::New
                        | Accepted::Elsewhere
                        | Accepted::Busy { .. }
                        | Accepted::NonceReplayed,
                    ) => answer,
                }
            }
        }
    }

    fn knows_nonce(&self, nonce: &NonceUse) -> bool {
        self.pending().knows_nonce(nonce) || self.inner.knows_nonce(nonce)
    }

    fn may_hold(&self, id: CommandId) -> bool {
        self.pending().may_hold(id) || self.inner.may_hold(id)
    }

    async fn foresee(&self, new: NewCommand) -> Result<Accepted, StoreError> {
        let known = self.pending().refusal(&new);
        match known {
            Some(known) => Ok(known),
            None => {
                let spec = new.spec.clone();
                self.inner.foresee(new).await.map(|known| self.or_instead(known, &spec))
            }
        }
    }

    async fn advance(&self, advance: Advance) -> Result<Advanced, StoreError> {
        let way = self.pending().way_of(&advance);
        match way {
            Way::Store => self.inner.advance(advance).await,
            Way::Lost => Ok(Advanced::Lost),
            Way::Journal if self.is_others_to_know(&advance) => Err(not_yet()),
            Way::Journal => self.journal_advance(advance).await,
            Way::Either => self.advance_either(advance).await,
        }
    }

    async fn spend_nonce(&self, nonce: NonceUse) -> Result<Nonce, StoreError> {
        if self.pending().knows_nonce(&nonce) {
            return Ok(Nonce::Replayed);
        }
        self.inner.spend_nonce(nonce).await
    }

    async fn spend_nonce_to_read(
        &self,
        nonce: NonceUse,
        times: RequestTimes,
    ) -> Result<ReadNonce, StoreError> {
        if self.pending().knows_nonce(&nonce) {
            return Ok(ReadNonce::Replayed);
        }
        self.inner.spend_nonce_to_read(nonce, times).await
    }

    async fn forget_nonces(&self, at: Timestamp) -> Result<usize, StoreError> {
        self.inner.forget_nonces(at).await
    }

    async fn command(&self, id: CommandId) -> Result<Option<Command>, StoreError> {
        let (journalled, is_asked) = {
            let pending = self.pending();
            (pending.command(id), pending.is_asked(id))
        };
        if journalled.is_some() {
            return Ok(journalled);
        }
        let mut stored = self.inner.command(id).await?;
        if stored.is_none() && is_asked {
            return Err(StoreError::Unavailable("the command may still be written".to_owned()));
        }
        let mut pending = self.pending();
        pending.is_clear(id);
        if let Some(command) = &mut stored {
            pending.watch(command);
            pending.catch_up(command, self.is_shared);
        }
        drop(pending);
        Ok(stored)
    }

    async fn commands(&self, ids: Vec<CommandId>) -> Result<Vec<Command>, StoreError> {
        let (mut found, mut others) = (Vec::new(), Vec::new());
        {
            let pending = self.pending();
            for id in ids {
                match pending.command(id) {
                    Some(journalled) => found.push(journalled),
                    None => others.push(id),
                }
            }
        }
        let stored = self.inner.commands(others).await?;
        let mut pending = self.pending();
        for mut command in stored {
            pending.is_clear(command.spec.id);
            pending.watch(&command);
            pending.catch_up(&mut command, self.is_shared);
            found.push(command);
        }
        drop(pending);
        Ok(found)
    }

    async fn command_of(
        &self,
        tenant: TenantId,
        id: CommandId,
    ) -> Result<Option<Command>, StoreError> {
        let journalled = self.pending().command(id);
        match journalled.filter(|command| command.spec.tenant == tenant) {
            Some(command) => Ok(Some(command)),
            None => {
                let mut stored = self.inner.command_of(tenant, id).await?;
                let mut pending = self.pending();
                if let Some(command) = &mut stored {
                    pending.watch(command);
                    pending.catch_up(command, self.is_shared);
                }
                drop(pending);
                Ok(stored)
            }
        }
    }

    async fn list_floor(
        &self,
        tenant: TenantId,
        filter: CommandFilter,
        before: Option<CommandId>,
    ) -> Result<Option<CommandId>, StoreError> {
        self.inner.list_floor(tenant, filter, before).await
    }

    async fn commands_of(
        &self,
        tenant: TenantId,
        filter: CommandFilter,
        before: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<Command>, StoreError> {
        self.inner.commands_of(tenant, filter, before, limit).await
    }

    async fn timeline(&self, id: CommandId) -> Result<Vec<Entry>, StoreError> {
        let (is_whole, journalled) = self.pending().timeline(id);
        if is_whole {
            return Ok(journalled);
        }
        let mut timeline = self.inner.timeline(id).await?;
        timeline.extend(journalled);
        Ok(timeline)
    }

    async fn open_commands(
        &self,
        after: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<Command>, StoreError> {
        Ok(self.watched(self.inner.open_commands(after, limit).await?))
    }

    async fn open_commands_of(
        &self,
        shards: &BTreeSet<Shard>,
        after: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<Command>, StoreError> {
        Ok(self.watched(self.inner.open_commands_of(shards, after, limit).await?))
    }

    async fn emergency_after(&self, spec: &Spec) -> Result<Option<CommandId>, StoreError> {
        self.inner.emergency_after(spec).await
    }

    async fn emergencies_after(
        &self,
        specs: &[Arc<Spec>],
    ) -> Result<BTreeMap<CommandId, CommandId>, StoreError> {
        self.inner.emergencies_after(specs).await
    }

    async fn newest_record(&self) -> Result<Option<Timestamp>, StoreError> {
        self.inner.newest_record().await
    }

    async fn keep_unmatched(&self, unmatched: Unmatched) -> Result<(), StoreError> {
        self.inner.keep_unmatched(unmatched).await
    }

    async fn unmatched_of(
        &self,
        tenant: Option<TenantId>,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Unmatched>, StoreError> {
        self.inner.unmatched_of(tenant, before, limit).await
    }
}
