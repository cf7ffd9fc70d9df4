//! A history that a test can make refuse what devices say of themselves, before the real one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use tokio::sync::watch;
use utmos_core::{
    device_event::{Alarm, DeviceEvent},
    id::{DeviceSn, TenantId},
    ports::{
        DeviceTelemetry, EventBatch, EventFilter, EventStore, KeptEdge, SampleRange, SamplesRead,
        StoreError, TelemetryRules, TelemetryStore, Tidied,
    },
    telemetry::Latest,
    time::Timestamp,
};
use utmos_store::HistoryFile;
use uuid::Uuid;

use crate::app::PATIENCE;

pub struct UnwellHistory {
    inner: Arc<HistoryFile>,
    refuses: AtomicBool,
    /// Batches that were refused.
    refused: watch::Sender<usize>,
    telemetry: Mutex<Telemetry>,
    /// How often telemetry was to be kept that was not.
    telemetry_tries: AtomicUsize,
}

/// What becomes of telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telemetry {
    Kept,
    Refused,
    /// Nobody is ever answered.
    Hangs,
}

impl UnwellHistory {
    pub fn new(inner: Arc<HistoryFile>) -> Self {
        Self {
            inner,
            refuses: AtomicBool::new(false),
            refused: watch::Sender::new(0),
            telemetry: Mutex::new(Telemetry::Kept),
            telemetry_tries: AtomicUsize::new(0),
        }
    }

    /// From now on events and alarms are refused, or no longer.
    pub fn refuse_events(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }

    /// What becomes of telemetry from now on.
    pub fn telemetry_is(&self, telemetry: Telemetry) {
        *self.telemetry.lock().unwrap() = telemetry;
    }

    /// How often telemetry was to be kept that was not.
    pub fn telemetry_tries(&self) -> usize {
        self.telemetry_tries.load(Ordering::SeqCst)
    }

    /// Returns once so many batches of events were refused.
    pub async fn until_refused(&self, count: usize) {
        let mut refused = self.refused.subscribe();
        let wait = refused.wait_for(|refused| *refused >= count);
        tokio::time::timeout(PATIENCE, wait).await.expect("too few batches came").unwrap();
    }
}

#[async_trait]
impl EventStore for UnwellHistory {
    async fn keep_events(&self, batch: EventBatch) -> Result<usize, StoreError> {
        if self.refuses.load(Ordering::SeqCst) {
            self.refused.send_modify(|refused| *refused += 1);
            return Err(StoreError::Unavailable("made so by a test".to_owned()));
        }
        self.inner.keep_events(batch).await
    }

    async fn events_of(
        &self,
        tenant: TenantId,
        device: DeviceSn,
        filter: EventFilter,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<DeviceEvent>, StoreError> {
        self.inner.events_of(tenant, device, filter, before, limit).await
    }

    async fn newest_edges(&self) -> Result<Vec<KeptEdge>, StoreError> {
        self.inner.newest_edges().await
    }

    async fn alarms(&self) -> Result<Vec<Alarm>, StoreError> {
        self.inner.alarms().await
    }

    async fn forget_events(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.inner.forget_events(before, limit).await
    }
}

#[async_trait]
impl TelemetryStore for UnwellHistory {
    async fn keep_telemetry(&self, told: Vec<DeviceTelemetry>) -> Result<(), StoreError> {
        let becomes = *self.telemetry.lock().unwrap();
        if becomes == Telemetry::Kept {
            return self.inner.keep_telemetry(told).await;
        }
        self.telemetry_tries.fetch_add(1, Ordering::SeqCst);
        if becomes == Telemetry::Hangs {
            std::future::pending::<()>().await;
        }
        Err(StoreError::Unavailable("made so by a test".to_owned()))
    }

    async fn latest_telemetry(
        &self,
        devices: Vec<(TenantId, DeviceSn)>,
    ) -> Result<BTreeMap<DeviceSn, Latest>, StoreError> {
        self.inner.latest_telemetry(devices).await
    }

    async fn samples(
        &self,
        range: SampleRange,
        pieces_max: usize,
        bytes_max: usize,
    ) -> Result<SamplesRead, StoreError> {
        self.inner.samples(range, pieces_max, bytes_max).await
    }

    async fn tidy_telemetry(
        &self,
        rules: &TelemetryRules,
        now: Timestamp,
    ) -> Result<Tidied, StoreError> {
        self.inner.tidy_telemetry(rules, now).await
    }

    async fn history_bytes(&self) -> Result<u64, StoreError> {
        self.inner.history_bytes().await
    }
}
