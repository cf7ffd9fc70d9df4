//! Where device events are kept.

use std::collections::BTreeSet;

use async_trait::async_trait;
use uuid::Uuid;

use super::StoreError;
use crate::{
    device_event::{Alarm, DeviceEvent, EventKind},
    id::{DeviceSn, TenantId},
    time::Timestamp,
};

/// What is to be kept, in one go.
#[derive(Debug, Clone, Default)]
pub struct EventBatch {
    /// In the order they came.
    pub events: Vec<DeviceEvent>,
    /// Per device, all alarms that are raised now; they take the place of what was kept for it.
    pub alarms: Vec<(DeviceSn, Vec<Alarm>)>,
    /// Newest events of a device that are kept: so many of the lasting ones, and so many of the others.
    pub per_device_max: usize,
}

/// Which events are wanted.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Of these kinds; all when empty.
    pub kinds: BTreeSet<EventKind>,
    /// Of this method.
    pub method: Option<String>,
    /// Received at this time or later.
    pub from: Option<Timestamp>,
    /// Received before this time.
    pub to: Option<Timestamp>,
}

/// That a device came or went, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptEdge {
    /// Whose it was.
    pub tenant: TenantId,
    /// Which.
    pub device: DeviceSn,
    /// Whether it came.
    pub online: bool,
    /// When that was found out.
    pub at: Timestamp,
}

/// Device events and the alarms that are raised now.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Keeps a batch. An event that is there already (same device, kind, method and `tid`) is passed over, and what is
    /// too much for its device goes, oldest first. Answers how many events were new.
    async fn keep_events(&self, batch: EventBatch) -> Result<usize, StoreError>;

    /// A device's events of a tenant, newest first, older than the event `before`.
    async fn events_of(
        &self,
        tenant: TenantId,
        device: DeviceSn,
        filter: EventFilter,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<DeviceEvent>, StoreError>;

    /// The last comings and goings of all devices, oldest first, as far back as a look at the newest events goes. None where that
    /// would cost more.
    async fn newest_edges(&self) -> Result<Vec<KeptEdge>, StoreError> {
        Ok(Vec::new())
    }

    /// Every alarm that is raised, of all tenants.
    async fn alarms(&self) -> Result<Vec<Alarm>, StoreError>;

    /// Forgets events received before this time, at most so many of the oldest; answers how many. What is kept by the week goes
    /// by the week: once all of it is old, and then all of it.
    async fn forget_events(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError>;
}
