//! Nonces that this server knows to be spent: in memory, so that it can tell while the database cannot be reached. What
//! another server spent is known here once somebody tries it here; the table is what decides.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use utmos_core::{ports::StoreError, signing::NonceUse, time::Timestamp};
use uuid::Uuid;

use super::limits::FORGET_BATCH;
use super::{
    PostgresStore,
    fault::Fault,
    rare::{execute, rarely},
};

/// Each with the time until which it must be remembered.
#[derive(Clone, Default)]
pub(super) struct KnownNonces(Arc<Mutex<BTreeMap<[u8; 16], i64>>>);

impl KnownNonces {
    pub(super) fn contains(&self, nonce: &NonceUse) -> bool {
        self.lock().contains_key(&nonce.key)
    }

    pub(super) fn learn(&self, nonces: impl Iterator<Item = (Uuid, i64)>) {
        let mut known = self.lock();
        for (key, expires_at) in nonces {
            let until = known.entry(key.into_bytes()).or_insert(expires_at);
            *until = expires_at.max(*until);
        }
    }

    fn forget(&self, at: Timestamp) {
        self.lock().retain(|_, expires_at| *expires_at >= at.as_millis());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<[u8; 16], i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever spends one of them again meanwhile is not waited for. A server whose clock is ahead would take from others what
/// they still need: by the database's clock it must be over as well.
const DELETE: &str = "
    DELETE FROM nonces WHERE key IN (
        SELECT key FROM nonces WHERE expires_at < least($1, (extract(epoch FROM now()) * 1000)::bigint)
        ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)";

pub(super) async fn forget(store: &PostgresStore, at: Timestamp) -> Result<usize, StoreError> {
    let most = i64::try_from(FORGET_BATCH).unwrap_or(i64::MAX);
    let mut forgotten = 0;
    loop {
        let delete = |gone: u64| usize::try_from(gone).unwrap_or(usize::MAX);
        let gone = rarely!(store, |tx| async {
            let params: super::rare::Params<'_> = &[&at.as_millis(), &most];
            let gone = execute(&tx, DELETE, params).await?;
            Ok::<_, Fault>(delete(gone))
        })?;
        forgotten += gone;
        if gone < FORGET_BATCH {
            store.nonces.forget(at);
            return Ok(forgotten);
        }
    }
}
