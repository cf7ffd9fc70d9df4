//! What is in the journal is put on record, and its space comes back.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use utmos_core::{
    ports::{Accepted, Advance, Advanced, NewCommand, StoreError},
    signing::NonceUse,
};

use super::{
    JournalledStore, disk::Caller, file::JournalFile, fitting::fit, lock, pending::Record,
    to_store_error,
};

/// How often the journal is looked at.
const SETTLE_WAIT: Duration = Duration::from_secs(1);

/// Nonces that are put on record each time.
pub(super) const NONCES_PER_ROUND_MAX: usize = 64;

impl JournalledStore {
    /// Puts what is in the journal into the store, the oldest command first. A command of which the store holds something
    /// that cannot be read stays in the journal, and the others go on. Answers how many commands were settled.
    ///
    /// # Errors
    /// When the store is still unwell; what is left stays in the journal.
    pub async fn settle(&self) -> Result<usize, StoreError> {
        let (mut settled, mut passed) = (0, None);
        loop {
            let next = self.pending().next(passed);
            let Some((id, records, last)) = next else { break };
            match self.store_all(&records).await {
                // What came meanwhile is settled in the next turn.
                Ok(()) => settled += usize::from(self.pending().settled(id, last)),
                Err(StoreError::Damaged(why)) => {
                    passed = Some(id);
                    // Tried again every time, and told once.
                    if self.pending().pass_over(id) {
                        tracing::error!(
                            command.id = %id, why,
                            "an emergency cannot be put on record; it stays in the emergency journal"
                        );
                    }
                }
                Err(unwell @ StoreError::Unavailable(_)) => return Err(unwell),
            }
        }
        self.spend_remembered().await?;
        self.tidy().await;
        Ok(settled)
    }

    async fn store_all(&self, records: &[Record]) -> Result<(), StoreError> {
        for record in records {
            self.store(record).await?;
        }
        Ok(())
    }

    /// Puts the nonces in the file on record, and some of those in memory only: not all at once, since more may come all the
    /// while.
    async fn spend_remembered(&self) -> Result<(), StoreError> {
        let noted = self.pending().noted();
        for nonce in noted {
            if !self.spend(nonce).await? {
                return Ok(());
            }
        }
        for _ in 0..NONCES_PER_ROUND_MAX {
            let remembered = self.pending().remembered();
            let Some(nonce) = remembered else { break };
            if !self.spend(nonce).await? {
                break;
            }
        }
        Ok(())
    }

    /// Whether the store has this nonce now.
    async fn spend(&self, nonce: NonceUse) -> Result<bool, StoreError> {
        match self.inner.spend_nonce(nonce).await {
            Ok(_) => {
                self.pending().has_nonce(&nonce);
                Ok(true)
            }
            Err(StoreError::Damaged(why)) => {
                tracing::error!(why, "the nonce of an emergency cannot be put on record");
                Ok(false)
            }
            Err(unwell @ StoreError::Unavailable(_)) => Err(unwell),
        }
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

    /// Stores one record. Whatever was stored already, by an attempt that took too long, is left as it is.
    async fn store(&self, record: &Record) -> Result<(), StoreError> {
        match record {
            Record::Accept { nonce, new } => self.store_accept(*nonce, new.clone()).await,
            Record::Advance { advance } => self.store_advance(advance).await,
            Record::Nonce { nonce } => self.inner.spend_nonce(*nonce).await.map(drop),
        }
    }

    async fn store_advance(&self, advance: &Advance) -> Result<(), StoreError> {
        let id = advance.id;
        loop {
            let timeline = self.inner.timeline(id).await?;
            let is_there = !advance.entries.is_empty()
                && advance.entries.iter().all(|entry| timeline.contains(entry));
            if is_there {
                return Ok(());
            }
            let Some(stored) = self.inner.command(id).await? else {
                tracing::error!(command.id = %id, "an emergency's change is of none that is stored");
                return Ok(());
            };
            let Some(fitting) = fit(advance, &stored.life, self.is_shared) else {
                if advance.life.version > stored.life.version {
                    tracing::error!(command.id = %id, "an emergency's change no longer fits what is stored");
                }
                return Ok(());
            };
            match self.inner.advance(fitting).await? {
                // No emergency is another server's to send, and none gives way to another.
                Advanced::Yes | Advanced::Elsewhere | Advanced::Preempted(_) => return Ok(()),
                Advanced::Lost => {}
            }
        }
    }

    async fn store_accept(
        &self,
        nonce: Option<NonceUse>,
        mut new: NewCommand,
    ) -> Result<(), StoreError> {
        let id = new.spec.id;
        let mut accepted = self.inner.accept(nonce, new.clone()).await?;
        if accepted == Accepted::NonceReplayed {
            if self.inner.command(id).await?.is_some() {
                return Ok(());
            }
            // Another request spent it, which says nothing of the key.
            accepted = self.inner.accept(None, new.clone()).await?;
        }
        match accepted {
            Accepted::New | Accepted::Elsewhere => return Ok(()),
            Accepted::Replayed { id: stored, .. } if stored == id => return Ok(()),
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
            Accepted::New | Accepted::Elsewhere | Accepted::Replayed { .. } => {}
            refused @ (Accepted::NonceReplayed
            | Accepted::Conflict { .. }
            | Accepted::Busy { .. }) => {
                tracing::error!(command.id = %id, ?refused, "an emergency could not be put on record");
            }
        }
        Ok(())
    }
}
