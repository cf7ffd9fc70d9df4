//! A store of the fleet that a test can make slow, refuse, or lie, before the real one.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use tokio::sync::watch;
use utmos_core::{
    binding::BindingCode,
    command::StatusVersion,
    device_request::DeviceRequest,
    id::{BindingCodeId, DeviceSn, GatewaySn, TenantId},
    ports::{
        Bind, Bound, BoundAnswer, By, DeviceOrder, DeviceRecord, FleetStore, Ordered, Sighting,
        StoreError,
    },
    time::Timestamp,
};

use crate::app::PATIENCE;

pub struct UnwellFleet {
    inner: Arc<dyn FleetStore>,
    held: watch::Sender<bool>,
    held_sightings: watch::Sender<bool>,
    /// Writes of sightings that stand before the gate now.
    sightings_waiting: watch::Sender<usize>,
    /// Bindings that stand before the gate now.
    waiting: watch::Sender<usize>,
    refuses: AtomicBool,
    lies: AtomicBool,
}

impl UnwellFleet {
    pub fn new(inner: Arc<dyn FleetStore>) -> Self {
        Self {
            inner,
            held: watch::Sender::new(false),
            held_sightings: watch::Sender::new(false),
            sightings_waiting: watch::Sender::new(0),
            waiting: watch::Sender::new(0),
            refuses: AtomicBool::new(false),
            lies: AtomicBool::new(false),
        }
    }

    /// From now on bindings wait, or no longer.
    pub fn hold(&self, holds: bool) {
        self.held.send_replace(holds);
    }

    /// From now on writes of sightings wait, or no longer.
    pub fn hold_sightings(&self, holds: bool) {
        self.held_sightings.send_replace(holds);
    }

    /// Returns once a write of sightings waits.
    pub async fn until_sightings_wait(&self) {
        let mut waiting = self.sightings_waiting.subscribe();
        let wait = waiting.wait_for(|waiting| *waiting > 0);
        tokio::time::timeout(PATIENCE, wait).await.expect("nothing is written").unwrap();
    }

    /// From now on bindings are refused, or no longer.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }

    /// From now on bindings are written, and said not to be; or no longer.
    pub fn lie(&self, lies: bool) {
        self.lies.store(lies, Ordering::SeqCst);
    }

    /// Returns once so many bindings wait.
    pub async fn until_waiting(&self, count: usize) {
        let mut waiting = self.waiting.subscribe();
        let wait = waiting.wait_for(|waiting| *waiting >= count);
        tokio::time::timeout(PATIENCE, wait).await.expect("too few bindings came").unwrap();
    }

    async fn around<T>(
        &self,
        binding: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.waiting.send_modify(|waiting| *waiting += 1);
        let held = self.held.subscribe().wait_for(|held| !held).await.map(|_| ());
        self.waiting.send_modify(|waiting| *waiting -= 1);
        let unwell = || Err(StoreError::Unavailable("made so by a test".to_owned()));
        if held.is_err() || self.refuses.load(Ordering::SeqCst) {
            return unwell();
        }
        let bound = binding.await;
        match self.lies.load(Ordering::SeqCst) {
            true => unwell(),
            false => bound,
        }
    }
}

#[async_trait]
impl FleetStore for UnwellFleet {
    async fn keep_sightings(&self, seen: Vec<Sighting>) -> Result<(), StoreError> {
        self.sightings_waiting.send_modify(|waiting| *waiting += 1);
        let held = self.held_sightings.subscribe().wait_for(|held| !held).await.map(|_| ());
        self.sightings_waiting.send_modify(|waiting| *waiting -= 1);
        held.map_err(|_| StoreError::Unavailable("made so by a test".to_owned()))?;
        self.inner.keep_sightings(seen).await
    }

    async fn sightings(&self) -> Result<Vec<Sighting>, StoreError> {
        self.inner.sightings().await
    }

    async fn joined(&self) -> Result<Vec<(GatewaySn, DeviceSn)>, StoreError> {
        self.inner.joined().await
    }

    async fn order(&self, order: DeviceOrder, by: By) -> Result<Ordered, StoreError> {
        self.inner.order(order, by).await
    }

    async fn bind(&self, bind: Bind) -> Result<Bound, StoreError> {
        self.around(self.inner.bind(bind)).await
    }

    async fn bind_answering(
        &self,
        bind: Bind,
        seen: StatusVersion,
        request: Arc<DeviceRequest>,
    ) -> Result<BoundAnswer, StoreError> {
        self.around(self.inner.bind_answering(bind, seen, request)).await
    }

    async fn device_record(&self, sn: &DeviceSn) -> Result<Vec<DeviceRecord>, StoreError> {
        self.inner.device_record(sn).await
    }

    async fn add_binding_code(
        &self,
        code: BindingCode,
        active_max: usize,
    ) -> Result<bool, StoreError> {
        self.inner.add_binding_code(code, active_max).await
    }

    async fn binding_codes(&self) -> Result<Vec<BindingCode>, StoreError> {
        self.inner.binding_codes().await
    }

    async fn revoke_binding_code(
        &self,
        tenant: TenantId,
        id: BindingCodeId,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.inner.revoke_binding_code(tenant, id, at).await
    }
}
