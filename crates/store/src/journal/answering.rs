//! Answers that tell what came of another request. The nonce of a request goes where it outlives the process before its
//! answer leaves: who sends it again finds it spent, whoever has died meanwhile.

use std::time::Duration;

use utmos_core::{
    planted::{self, Fault},
    ports::{Accepted, Nonce, StoreError},
    signing::NonceUse,
};

use super::{
    JournalledStore, disk::Caller, file::JournalFile, lock, pending::Record, to_store_error,
};

impl JournalledStore {
    /// Answers an emergency with what is known. Its nonce goes to the store, which is waited for as long as there is patience,
    /// else into the journal; it is in memory only where both refuse it.
    pub(super) async fn answer(
        &self,
        nonce: Option<NonceUse>,
        known: Accepted,
        patience: Duration,
    ) -> Accepted {
        let Some(nonce) = nonce else { return known };
        // Of two that come at once with one nonce the second is told so.
        if !self.pending().claim(nonce) {
            return Accepted::NonceReplayed;
        }
        let spending = async {
            match patience {
                Duration::ZERO => None,
                _ => tokio::time::timeout(patience, self.inner.spend_nonce(nonce)).await.ok(),
            }
        };
        let answer = match spending.await {
            Some(Ok(Nonce::Spent)) => known,
            Some(Ok(Nonce::Replayed)) => Accepted::NonceReplayed,
            Some(Err(_)) | None => {
                self.keep_nonce(nonce).await;
                known
            }
        };
        self.pending().unclaim(&nonce);
        answer
    }

    /// Answers another command, which something in the journal speaks against. It may be captured and sent again when that is
    /// over: without its nonce on record there is no answer.
    pub(super) async fn refuse(
        &self,
        nonce: Option<NonceUse>,
        known: Accepted,
    ) -> Result<Accepted, StoreError> {
        let Some(nonce) = nonce else { return Ok(known) };
        Ok(match self.inner.spend_nonce(nonce).await? {
            Nonce::Spent => known,
            Nonce::Replayed => Accepted::NonceReplayed,
        })
    }

    async fn keep_nonce(&self, nonce: NonceUse) {
        let has_room =
            self.pending().has_room_for_nonces() && !planted::is_planted(Fault::NonceInMemoryOnly);
        if !has_room || self.note(nonce).await.is_err() {
            self.pending().remember(nonce);
        }
    }

    /// Writes a nonce into the journal. Should nobody wait for it any more, it is spent all the same.
    pub(super) async fn note(&self, nonce: NonceUse) -> Result<(), StoreError> {
        let pending = self.pending.clone();
        let work = move |file: &mut JournalFile, caller: Caller<()>| {
            let noted = file.append(&Record::Nonce { nonce });
            if noted.is_ok() {
                lock(&pending).add(Record::Nonce { nonce });
            }
            drop(caller.send(noted.map_err(|err| to_store_error(&err))));
        };
        self.disk.run(work).await
    }
}
