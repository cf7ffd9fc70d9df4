//! Where device requests are kept (API.md section 5).

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;

use super::StoreError;
use crate::{
    command::StatusVersion,
    device_request::{DeviceRequest, RoutingDecision, Scope, SetRule},
    id::{DeviceRequestId, DeviceSn, GatewaySn, TenantId},
    reply::RawJson,
};

/// What became of a request that was to be kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Kept {
    /// It is on record.
    New,
    /// It repeats one that is on record.
    Repeats(Box<DeviceRequest>),
}

/// What became of a change of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It is stored.
    Yes,
    /// It was changed by somebody else first, or is gone; nothing is stored.
    Lost,
}

/// What became of a rule that was to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleSet {
    /// It counts.
    Yes,
    /// The tenant has as many as it may have.
    TooMany,
}

/// Which requests to list.
#[derive(Debug, Clone, Default)]
pub struct RequestFilter {
    /// Of this device.
    pub device: Option<DeviceSn>,
    /// Of this type.
    pub request_type: Option<String>,
    /// In this state.
    pub state: Option<RoutingDecision>,
    /// Only of these devices (the credential's own limit).
    pub devices: Option<BTreeSet<DeviceSn>>,
}

/// How a flight task stands, as its dock reported it last.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskState {
    /// DJI's word.
    pub status: String,
    /// The `data` of that report, where it was kept.
    pub report: Option<RawJson>,
    /// How far it is.
    pub percent: Option<u8>,
}

/// Requests of devices, their answers, and the rules by which they are answered.
#[async_trait]
pub trait RequestStore: Send + Sync {
    /// Keeps a request, unless one with its repeat key is on record. A tenant's oldest that nobody has to look after go
    /// beyond a named limit.
    async fn keep_request(&self, request: Arc<DeviceRequest>) -> Result<Kept, StoreError>;

    /// Saves a change if the request is still at the version it had.
    async fn change_request(
        &self,
        seen: StatusVersion,
        request: Arc<DeviceRequest>,
    ) -> Result<Changed, StoreError>;

    /// The request that has this repeat key, if one is on record.
    async fn request_repeated(&self, key: [u8; 16]) -> Result<Option<DeviceRequest>, StoreError>;

    /// A request, of whichever tenant.
    async fn request(&self, id: DeviceRequestId) -> Result<Option<DeviceRequest>, StoreError>;

    /// Requests of this tenant, newest first, that come before `before` in that order.
    async fn requests_of(
        &self,
        tenant: TenantId,
        filter: RequestFilter,
        before: Option<DeviceRequestId>,
        limit: usize,
    ) -> Result<Vec<DeviceRequest>, StoreError>;

    /// Requests that somebody has to look after, oldest first, that come after `after`.
    async fn requests_in_care(
        &self,
        after: Option<DeviceRequestId>,
        limit: usize,
    ) -> Result<Vec<DeviceRequest>, StoreError>;

    /// The payload of the newest command of this method for this task that was sent to this gateway.
    async fn task_sent(
        &self,
        tenant: TenantId,
        gateway: &GatewaySn,
        method: &str,
        task: &str,
    ) -> Result<Option<RawJson>, StoreError>;

    /// How the newest command of this method for this task stands at this gateway, where it was reported on.
    async fn task_state(
        &self,
        tenant: TenantId,
        gateway: &GatewaySn,
        method: &str,
        task: &str,
    ) -> Result<Option<TaskState>, StoreError>;

    /// Rises with every change of a rule by whichever process.
    async fn rules_generation(&self) -> Result<u64, StoreError>;

    /// Every rule that somebody set.
    async fn rules(&self) -> Result<Vec<SetRule>, StoreError>;

    /// Sets or replaces a rule.
    async fn put_rule(&self, rule: SetRule) -> Result<RuleSet, StoreError>;

    /// Takes a rule back. Answers whether there was one.
    async fn remove_rule(&self, scope: Scope) -> Result<bool, StoreError>;
}
