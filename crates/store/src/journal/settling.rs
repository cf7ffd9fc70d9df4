//! What is in the journal is put on record, and its space comes back.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::task::unconstrained;
use utmos_core::{
    id::CommandId,
    ports::{Accepted, Advance, Advanced, NewCommand, StoreError},
    signing::NonceUse,
};

use super::{
    JournalledStore,
    disk::Caller,
    file::JournalFile,
    fitting::fit,
    lock,
    pending::{Record, Unsettled},
    to_store_error,
};

/// How often the journal is looked at.
const SETTLE_WAIT: Duration = Duration::from_secs(1);

/// Commands, or nonces, that are put on record side by side: the store takes what it is asked for meanwhile as one
/// transaction, so a sync of its disk serves all of them. An emergency that comes waits for no more than that transaction.
pub(super) const SETTLED_AT_ONCE: usize = 128;

/// Nonces in memory that are put on record each time.
pub(super) const NONCES_PER_ROUND_MAX: usize = 64;

impl JournalledStore {
    /// Puts what is in the journal into the store: many commands side by side, of which the store is asked for the oldest
    /// first; what is known of one, one after another. A command of which the store holds something that cannot be read stays
    /// in the journal, and the others go on. Answers how many commands were settled.
    ///
    /// # Errors
    /// When the store is still unwell; what is left stays in the journal.
    pub async fn settle(&self) -> Result<usize, StoreError> {
        let (mut settled, mut passed) = (0, BTreeSet::new());
        loop {
            let next = self.pending().oldest(SETTLED_AT_ONCE, &passed);
            if next.is_empty() {
                break;
            }
            let mut unwell = None;
            let settling = join_all(next.into_iter().map(|one| self.settle_one(one)));
            // A task whose budget is spent would ask for those that are left in another order.
            for (id, stored) in unconstrained(settling).await {
                match stored {
                    Ok(is_settled) => settled += usize::from(is_settled),
                    Err(StoreError::Damaged(why)) => {
                        passed.insert(id);
                        // Tried again every time, and told once.
                        if self.pending().pass_over(id) {
                            tracing::error!(
                                command.id = %id, why,
                                "an emergency cannot be put on record; it stays in the emergency journal"
                            );
                        }
                    }
                    Err(error @ StoreError::Unavailable(_)) => unwell = Some(error),
                }
            }
            if let Some(unwell) = unwell {
                return Err(unwell);
            }
        }
        self.spend_remembered().await?;
        self.tidy().await;
        Ok(settled)
    }

    /// Puts what is known of a command on record. Answers whether nothing is left of it: what came meanwhile is settled in the
    /// next turn.
    async fn settle_one(&self, one: Unsettled) -> (CommandId, Result<bool, StoreError>) {
        let Unsettled { id, records, last } = one;
        let stored = self.store_all(&records).await;
        (id, stored.map(|()| self.pending().settled(id, last)))
    }

    async fn store_all(&self, records: &[Record]) -> Result<(), StoreError> {
        // Whether the store has the command just as it stood here after the record before.
        let mut is_as_here = false;
        for record in records {
            is_as_here = match record {
                Record::Accept { nonce, new } => self.store_accept(*nonce, new.clone()).await?,
                Record::Advance { advance } => self.store_advance(advance, is_as_here).await?,
                // Those stand beside the commands.
                Record::Nonce { .. } => is_as_here,
            };
        }
        Ok(())
    }

    /// Puts the nonces in the file on record, and some of those in memory only: not all at once, since more may come all the
    /// while.
    async fn spend_remembered(&self) -> Result<(), StoreError> {
        let nonces = {
            let pending = self.pending();
            let noted = pending.noted().into_iter();
            noted.chain(pending.remembered(NONCES_PER_ROUND_MAX)).collect::<Vec<_>>()
        };
        for some in nonces.chunks(SETTLED_AT_ONCE) {
            let spending = some.iter().map(|nonce| self.spend(*nonce));
            for spent in join_all(spending).await {
                match spent {
                    Ok(()) => {}
                    Err(StoreError::Damaged(why)) => {
                        tracing::error!(why, "the nonce of an emergency cannot be put on record");
                    }
                    Err(unwell @ StoreError::Unavailable(_)) => return Err(unwell),
                }
            }
        }
        Ok(())
    }

    async fn spend(&self, nonce: NonceUse) -> Result<(), StoreError> {
        self.inner.spend_nonce(nonce).await?;
        self.pending().has_nonce(&nonce);
        Ok(())
    }

    /// Gives the space in the file back as far as nothing in it is still to be settled: what the store cannot take for now
    /// goes aside. What fails is tried again the next time.
    async fn tidy(&self) {
        if self.pending().to_tidy().is_none() {
            return;
        }
        let pending = self.pending.clone();
        let work = move |file: &mut JournalFile, caller: Caller<()>| {
            // Only this thread adds to it, so that nothing comes meanwhile.
            let to_tidy = lock(&pending).to_tidy();
            let tidied = match to_tidy {
                Some((left, changes)) => file.tidy(&left).map(|()| lock(&pending).tidied(changes)),
                None => Ok(()),
            };
            drop(caller.send(tidied.map_err(|err| to_store_error(&err))));
        };
        let tidied = self.disk.run(work).await;
        let was_told = self.is_untidy.swap(tidied.is_err(), Ordering::Relaxed);
        if let Err(error) = tidied
            && !was_told
        {
            tracing::error!(%error, "could not empty the emergency journal; trying again");
        }
    }

    /// Settles again and again until dropped.
    pub async fn keep_settling(&self) {
        loop {
            tokio::time::sleep(SETTLE_WAIT).await;
            match self.settle().await {
                Ok(0) => {}
                Ok(settled) => tracing::info!(
                    settled,
                    "the store is well again; emergencies were put on record"
                ),
                Err(error) => tracing::warn!(%error, "the store is still unwell"),
            }
        }
    }

    /// Stores a change, fitted to what the store holds; what was stored already, by an attempt that took too long, is left as
    /// it is. Where the store has the command `as_here`, just as the change was decided on, it need not be read for that.
    /// Answers whether the store has it just as the change leaves it.
    async fn store_advance(&self, advance: &Advance, as_here: bool) -> Result<bool, StoreError> {
        let id = advance.id;
        if as_here {
            match self.inner.advance(advance.clone()).await? {
                Advanced::Yes => return Ok(true),
                // No emergency is another server's to send, and none gives way to another.
                Advanced::Elsewhere | Advanced::Preempted(_) => return Ok(false),
                // Another server moved it meanwhile.
                Advanced::Lost => {}
            }
        }
        loop {
            let timeline = self.inner.timeline(id).await?;
            let is_there = !advance.entries.is_empty()
                && advance.entries.iter().all(|entry| timeline.contains(entry));
            if is_there {
                return Ok(false);
            }
            let Some(stored) = self.inner.command(id).await? else {
                tracing::error!(command.id = %id, "an emergency's change is of none that is stored");
                return Ok(false);
            };
            let Some(fitting) = fit(advance, &stored.life, self.is_shared) else {
                if advance.life.version > stored.life.version {
                    tracing::error!(command.id = %id, "an emergency's change no longer fits what is stored");
                }
                return Ok(false);
            };
            let is_as_decided = fitting.life == advance.life;
            match self.inner.advance(fitting).await? {
                Advanced::Yes => return Ok(is_as_decided),
                Advanced::Elsewhere | Advanced::Preempted(_) => return Ok(false),
                Advanced::Lost => {}
            }
        }
    }

    /// Stores a command, unless it is there already. Answers whether the store has it just as it was accepted here.
    async fn store_accept(
        &self,
        nonce: Option<NonceUse>,
        mut new: NewCommand,
    ) -> Result<bool, StoreError> {
        let id = new.spec.id;
        let mut accepted = self.inner.accept(nonce, new.clone()).await?;
        if accepted == Accepted::NonceReplayed {
            if self.inner.command(id).await?.is_some() {
                return Ok(false);
            }
            // Another request spent it, which says nothing of the key.
            accepted = self.inner.accept(None, new.clone()).await?;
        }
        match accepted {
            Accepted::New => return Ok(true),
            Accepted::Elsewhere => return Ok(false),
            Accepted::Replayed { id: stored, .. } if stored == id => return Ok(false),
            Accepted::NonceReplayed
            | Accepted::Replayed { .. }
            | Accepted::Conflict { .. }
            | Accepted::Busy { .. } => {}
        }
        // Another command holds the key, which nobody could know: the record is kept under a key of its own.
        let mut spec = (*new.spec).clone();
        spec.idempotency_key = format!("{}#emergency:{id}", spec.idempotency_key);
        new.spec = Arc::new(spec);
        match self.inner.accept(None, new).await? {
            Accepted::New => return Ok(true),
            Accepted::Elsewhere | Accepted::Replayed { .. } => {}
            refused @ (Accepted::NonceReplayed
            | Accepted::Conflict { .. }
            | Accepted::Busy { .. }) => {
                tracing::error!(command.id = %id, ?refused, "an emergency could not be put on record");
            }
        }
        Ok(false)
    }
}
