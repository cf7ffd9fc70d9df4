//! Keeps what waits, a part of the devices at a time, and lets what is old go.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use utmos_core::{
    id::{DeviceSn, TenantId},
    ports::{DeviceTelemetry, StoreError},
    telemetry::Samples,
};

use super::{Earlier, Entry, SHARDS, Telemetry};

/// A device that has been silent for so long is known from the history alone.
const SILENCE_MAX: Duration = Duration::from_secs(3600);
/// Devices whose latest is read and written at once where there is no room for it in memory.
const BEYOND_AT_ONCE: usize = 32;
/// How long a part of the devices may take to be kept at a stop: a history that takes longer would hold up what matters more.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// Between two steps of tidying while there is more to do …
const TIDY_PAUSE: Duration = Duration::from_millis(100);
/// … and while there is not.
const TIDY_WAIT: Duration = Duration::from_secs(60);

impl Telemetry {
    /// Keeps everything every so often, and once more when `stopping`: until the first part that cannot be kept, for then the
    /// others cannot either, and each would take its time.
    pub async fn keep(self: Arc<Self>, stopping: CancellationToken) {
        // One part after another, so that no flush is long.
        let pause = self.parts.settings.flush / u32::try_from(SHARDS).unwrap_or(1);
        let mut shard = 0;
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
            self.keep_shard(shard).await;
            shard = (shard + 1) % SHARDS;
        }
        let (waiting, before) = (self.waiting(), self.figures.kept.load(Ordering::Relaxed));
        for shard in 0..SHARDS {
            if tokio::time::timeout(STOP_PATIENCE, self.keep_shard(shard)).await != Ok(true) {
                let kept = self.figures.kept.load(Ordering::Relaxed).saturating_sub(before);
                tracing::error!(
                    samples = waiting.saturating_sub(kept),
                    "the history takes no telemetry at this stop; what devices told in the last seconds is lost"
                );
                return;
            }
        }
    }

    /// Samples that wait to be kept.
    fn waiting(&self) -> u64 {
        let in_shards = (0..SHARDS)
            .map(|number| self.shard(number).values().map(Entry::waiting).sum::<usize>())
            .sum::<usize>();
        let left_over = self.left_over.lock().unwrap_or_else(PoisonError::into_inner);
        let left_over = left_over.iter().flat_map(|one| &one.samples).map(Samples::count);
        (in_shards + left_over.sum::<usize>()) as u64
    }

    /// Removes and merges what is old, a little at a time, until `stopping`. A wall clock that jumps ahead must not make
    /// it remove what is not old.
    pub async fn tidy(self: Arc<Self>, stopping: CancellationToken) {
        let start = self.now();
        let mut wait = TIDY_PAUSE;
        let mut is_unwell = false;
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            let rules = &self.parts.settings.rules;
            match self.parts.store.tidy_telemetry(rules, self.now().steady(start)).await {
                Ok(did) => {
                    is_unwell = false;
                    wait = if did.more { TIDY_PAUSE } else { TIDY_WAIT };
                }
                Err(error) => {
                    if !is_unwell {
                        tracing::warn!(%error, "old telemetry could not be removed");
                    }
                    (is_unwell, wait) = (true, TIDY_WAIT);
                }
            }
            if let Ok(bytes) = self.parts.store.history_bytes().await {
                self.figures.history_bytes.store(bytes, Ordering::Relaxed);
            }
        }
    }

    /// Answers whether all of it is kept.
    async fn keep_shard(&self, number: usize) -> bool {
        let is_read = self.recall(number).await;
        let mut told =
            std::mem::take(&mut *self.left_over.lock().unwrap_or_else(PoisonError::into_inner));
        let now = self.now();
        {
            let mut shard = self.shard(number);
            told.extend(shard.iter_mut().filter_map(|(sn, entry)| entry.hand_over(sn)));
            let stays =
                |entry: &Entry| entry.has_news() || now.mono.since(entry.touched) < SILENCE_MAX;
            shard
                .extract_if(.., |_, entry| !stays(entry))
                .for_each(|(_, entry)| self.let_go(&entry));
        }
        let is_kept = self.keep_told(number, told).await;
        let is_kept_beyond = self.keep_beyond(number).await;
        self.tell_of_room();
        is_read && is_kept && is_kept_beyond
    }

    async fn keep_told(&self, shard: usize, told: Vec<DeviceTelemetry>) -> bool {
        if told.is_empty() {
            return true;
        }
        let bytes =
            |one: &DeviceTelemetry| one.samples.iter().map(|piece| piece.bytes().len()).sum();
        let waited: Vec<(TenantId, usize)> =
            told.iter().map(|one| (one.tenant, bytes(one))).collect();
        let count = told.iter().flat_map(|one| &one.samples).map(Samples::count).sum();
        let newest: Vec<DeviceSn> = latest_of(&told);
        let kept = self.parts.store.keep_telemetry(told).await;
        // Only now do they wait no more: while the disk is slow, nothing else takes their place.
        let mut pending = self.pending();
        waited.into_iter().for_each(|(tenant, bytes)| pending.give_back(tenant, bytes));
        drop(pending);
        match kept {
            Ok(()) => {
                self.figures.kept.fetch_add(count as u64, Ordering::Relaxed);
                if self.unwell.swap(false, Ordering::Relaxed) {
                    tracing::info!("telemetry is kept again");
                }
                true
            }
            Err(error) => {
                self.could_not_keep(shard, count, &newest, &error);
                false
            }
        }
    }

    /// Keeps the latest of those of which more was kept earlier than there is room for in memory: what was is read, and what
    /// was told since put over it. A few at a time, for that is what the room is for.
    async fn keep_beyond(&self, number: usize) -> bool {
        let beyond = self.asked_of(number, Entry::keeps_beyond);
        for some in beyond.chunks(BEYOND_AT_ONCE) {
            let Ok(mut found) = self.parts.store.latest_telemetry(some.to_vec()).await else {
                return false;
            };
            let told = some.iter().filter_map(|(tenant, sn)| {
                let mut shard = self.shard(number);
                let entry = shard.get_mut(sn)?;
                if entry.tenant != *tenant || !entry.keeps_beyond() {
                    return None;
                }
                let earlier = found.remove(sn);
                let is_shared = self.parts.store.is_shared();
                let told = entry.hand_over_whole(sn, earlier.clone(), is_shared);
                // Perhaps there is room now.
                self.recall_into(entry, earlier);
                Some(told)
            });
            let told = told.collect();
            if !self.keep_told(number, told).await {
                return false;
            }
        }
        true
    }

    fn asked_of(
        &self,
        shard: usize,
        is_asked_of: impl Fn(&Entry) -> bool,
    ) -> Vec<(TenantId, DeviceSn)> {
        let shard = self.shard(shard);
        let asked = shard.iter().filter(|(_, entry)| is_asked_of(entry));
        asked.map(|(sn, entry)| (entry.tenant, sn.clone())).collect()
    }

    fn could_not_keep(
        &self,
        shard: usize,
        samples: usize,
        newest: &[DeviceSn],
        error: &StoreError,
    ) {
        self.figures.dropped.fetch_add(samples as u64, Ordering::Relaxed);
        let mut shard = self.shard(shard);
        for sn in newest {
            if let Some(entry) = shard.get_mut(sn) {
                entry.is_changed = true;
            }
        }
        if !self.unwell.swap(true, Ordering::Relaxed) {
            tracing::error!(
                %error,
                "telemetry cannot be kept and is dropped until it can be; commands go on, and so does the latest of it"
            );
        }
    }

    /// Adds what an earlier process kept to what devices have said since.
    async fn recall(&self, number: usize) -> bool {
        let unknown = self.asked_of(number, |entry| entry.earlier == Earlier::Unread);
        if unknown.is_empty() {
            return true;
        }
        let found = self.parts.store.latest_telemetry(unknown.clone()).await;
        let Ok(mut found) = found else { return false };
        let mut shard = self.shard(number);
        for (tenant, sn) in unknown {
            if let Some(entry) = shard.get_mut(&sn)
                && entry.tenant == tenant
            {
                self.recall_into(entry, found.remove(&sn));
            }
        }
        true
    }
}

fn latest_of(told: &[DeviceTelemetry]) -> Vec<DeviceSn> {
    told.iter().filter(|one| one.latest.is_some()).map(|one| one.device.clone()).collect()
}
