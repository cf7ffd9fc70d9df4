//! Writes on their way to a writer. They are data, so that many become a few statements.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use utmos_core::{
    command::Life,
    evidence::{Entry, Proof},
    id::CommandId,
    ports::{Accepted, Advance, Advanced, NewCommand, Nonce, StoreError},
    signing::NonceUse,
};
use uuid::Uuid;

use super::fault::closed;
use crate::{
    entry::EntryRow,
    idempotency::lookup_key,
    life::SealedLife,
    seal::{Sealer, Slot},
};

/// A command ready to be written.
pub(super) struct Acceptance {
    pub(super) nonce: Option<NonceUse>,
    pub(super) new: NewCommand,
    pub(super) payload: Vec<u8>,
    pub(super) life: SealedLife,
    /// How it begins where another server is to send it. Nothing of that is sealed.
    pub(super) unclaimed: Life,
    pub(super) entries: Vec<EntryRow>,
    pub(super) lookup: Uuid,
    sealer: Arc<Sealer>,
}

impl Acceptance {
    pub(super) fn new(
        nonce: Option<NonceUse>,
        new: NewCommand,
        sealer: &Arc<Sealer>,
    ) -> Result<Self, StoreError> {
        let key = sealer.data_key(new.spec.id);
        let payload = key.seal(Slot::Payload, &new.spec.payload)?;
        let life = SealedLife::new(&new.life, &key)?;
        let entries = EntryRow::all(&new.entries, &key)?;
        let lookup = Uuid::from_bytes(lookup_key(new.spec.tenant, &new.spec.idempotency_key));
        let unclaimed = Life::accepted(&new.spec);
        Ok(Self { nonce, new, payload, life, unclaimed, entries, lookup, sealer: sealer.clone() })
    }

    pub(super) fn id(&self) -> Uuid {
        self.new.spec.id.uuid()
    }

    /// The word of its acceptance alone.
    pub(super) fn first_line(&self) -> Result<Vec<EntryRow>, StoreError> {
        let first = self.new.entries.get(..1).unwrap_or_default();
        EntryRow::each(first, &self.sealer.data_key(self.new.spec.id))
    }
}

/// A change ready to be written.
pub(super) struct Change {
    pub(super) id: CommandId,
    pub(super) seen: i64,
    pub(super) life: Arc<Life>,
    pub(super) sealed: SealedLife,
    pub(super) entries: Vec<EntryRow>,
    /// What they were made of.
    lines: Arc<[Entry]>,
    sealer: Arc<Sealer>,
    /// It begins the command's sending.
    pub(super) is_claim: bool,
}

impl Change {
    pub(super) fn new(advance: Advance, sealer: &Arc<Sealer>) -> Result<Self, StoreError> {
        let key = sealer.data_key(advance.id);
        let sealed = SealedLife::new(&advance.life, &key)?;
        let entries = EntryRow::all(&advance.entries, &key)?;
        let is_claim =
            advance.entries.iter().any(|entry| matches!(entry.proof, Proof::SendingClaimed { .. }));
        let (id, seen, life) = (advance.id, advance.seen.0.cast_signed(), advance.life);
        let (lines, sealer) = (advance.entries, sealer.clone());
        Ok(Self { id, seen, life, sealed, entries, lines, sealer, is_claim })
    }

    /// A row of its own for each line, where not all of them have room.
    pub(super) fn each_line(&self) -> Result<Vec<EntryRow>, StoreError> {
        EntryRow::each(&self.lines, &self.sealer.data_key(self.id))
    }
}

/// What is to be written.
pub(super) enum Ask {
    Accept(Box<Acceptance>),
    Advance(Box<Change>),
    Spend(NonceUse),
    /// What was handed to this member was taken in by it.
    TakenIn(Vec<Uuid>),
    /// A small write that nobody waits for, to see whether anything can be written.
    Probe,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Answer {
    Accepted(Accepted),
    Advanced(Advanced),
    Nonce(Nonce),
    Written,
}

pub(super) struct Job {
    pub(super) ask: Ask,
    caller: Option<oneshot::Sender<Result<Answer, StoreError>>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Job {
    pub(super) fn probe() -> Self {
        Self { ask: Ask::Probe, caller: None, _place: None }
    }

    /// Tells the caller, once the batch is durable or given up.
    pub(super) fn answer(self, answer: Result<Answer, StoreError>) {
        if let Some(caller) = self.caller {
            // Whoever asked may be gone; the write stands.
            drop(caller.send(answer));
        }
    }
}

/// The way to one writer, bounded.
pub(super) struct Line {
    jobs: mpsc::UnboundedSender<Job>,
    places: Arc<Semaphore>,
    places_max: usize,
}

impl Line {
    pub(super) fn new(places_max: usize) -> (Self, mpsc::UnboundedReceiver<Job>) {
        let (jobs, taken) = mpsc::unbounded_channel();
        (Self { jobs, places: Arc::new(Semaphore::new(places_max)), places_max }, taken)
    }

    /// Queues a write and waits until it is durable.
    pub(super) async fn submit(&self, ask: Ask) -> Result<Answer, StoreError> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| closed())?;
        let (caller, answer) = oneshot::channel();
        let job = Job { ask, caller: Some(caller), _place: Some(place) };
        self.jobs.send(job).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Queues a write without waiting; the answer comes later. `None` where there is no place.
    pub(super) fn leave(&self, ask: Ask) -> Option<oneshot::Receiver<Result<Answer, StoreError>>> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let (caller, answer) = oneshot::channel();
        self.jobs.send(Job { ask, caller: Some(caller), _place: Some(place) }).ok()?;
        Some(answer)
    }

    /// Writes that are not answered yet.
    pub(super) fn depth(&self) -> usize {
        self.places_max.saturating_sub(self.places.available_permits())
    }

    /// Takes no more writes, and waits until those that are queued are answered.
    pub(super) async fn close(&self) {
        let all = u32::try_from(self.places_max).unwrap_or(u32::MAX);
        if let Ok(all) = self.places.acquire_many(all).await {
            self.places.close();
            drop(all);
        }
    }
}
