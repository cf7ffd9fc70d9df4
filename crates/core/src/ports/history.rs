//! Where what devices reported is kept: much, in order, and apart from commands, which must not wait for it.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;

use super::{EventStore, StoreError};
use crate::{
    device::DeviceKind,
    id::{DeviceSn, TenantId},
    telemetry::{Latest, Sample, Samples},
    time::Timestamp,
};

/// What is to be kept of one device.
#[derive(Debug, Clone)]
pub struct DeviceTelemetry {
    /// Whose it was when it told this. Nobody else sees it.
    pub tenant: TenantId,
    /// The device.
    pub device: DeviceSn,
    /// What it is: how long this is kept depends on it.
    pub kind: DeviceKind,
    /// What it told since it was kept last.
    pub samples: Vec<Samples>,
    /// Everything it told last, where that has changed.
    pub latest: Option<Latest>,
}

/// Samples of one device that were told at `from` or later, and before `to`.
#[derive(Debug, Clone)]
pub struct SampleRange {
    /// Whose it was when it told them.
    pub tenant: TenantId,
    /// The device.
    pub device: DeviceSn,
    /// The earliest.
    pub from: Timestamp,
    /// The first moment after the latest.
    pub to: Timestamp,
    /// Not those before this place.
    pub begin: Option<SamplePlace>,
}

/// Where a sample lies in a store, in the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplePlace {
    /// When the piece it lies in begins.
    pub first: Timestamp,
    /// The piece.
    pub piece: i64,
    /// Which sample of the piece.
    pub index: usize,
}

/// Some samples, oldest first.
#[derive(Debug, Default)]
pub struct SamplesRead {
    /// Each with its place.
    pub samples: Vec<(SamplePlace, Sample)>,
    /// Pieces they lie in, and the bytes of these.
    pub pieces: usize,
    /// See `pieces`.
    pub bytes: usize,
    /// Where the rest begins; nothing when this was all.
    pub rest: Option<SamplePlace>,
}

/// How long what is kept, and how closely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryRules {
    /// How long samples of a dock are kept.
    pub dock: Duration,
    /// The same of a remote controller.
    pub remote_controller: Duration,
    /// The same of an aircraft.
    pub aircraft: Duration,
    /// How long they are kept as they came; older ones are merged into one each `step`.
    pub full_rate: Duration,
    /// See `full_rate`.
    pub step: Duration,
    /// Most bytes of the whole history; beyond, the oldest goes of the device that holds most of the tenant
    /// that holds most, however long it should be kept.
    pub bytes_max: u64,
}

impl TelemetryRules {
    /// How long samples of a device of this kind are kept.
    #[must_use]
    pub fn kept(&self, kind: DeviceKind) -> Duration {
        match kind {
            DeviceKind::Dock => self.dock,
            DeviceKind::RemoteController => self.remote_controller,
            DeviceKind::Aircraft => self.aircraft,
        }
    }
}

/// What a step of tidying did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Pieces that were removed.
    pub removed: usize,
    /// Pieces that were merged into fewer.
    pub merged: usize,
    /// Whether there is more to do.
    pub more: bool,
}

/// Telemetry over time. Unlike a command it need not be on the disk when a method returns: a power cut may cost the last
/// moments. A process that dies costs nothing that was kept.
#[async_trait]
pub trait TelemetryStore: Send + Sync {
    /// Whether several servers keep theirs here: then the one that holds a gateway keeps what its devices tell, and no other.
    fn is_shared(&self) -> bool {
        false
    }

    /// Keeps this, all or nothing.
    async fn keep_telemetry(&self, told: Vec<DeviceTelemetry>) -> Result<(), StoreError>;

    /// What was kept of these devices last; nothing of those of which nothing is.
    async fn latest_telemetry(
        &self,
        devices: Vec<(TenantId, DeviceSn)>,
    ) -> Result<BTreeMap<DeviceSn, Latest>, StoreError>;

    /// Samples, oldest first, as many as lie in `pieces_max` pieces and `bytes_max` bytes, but of one piece at least. Reads
    /// and takes apart on a thread that may block.
    async fn samples(
        &self,
        range: SampleRange,
        pieces_max: usize,
        bytes_max: usize,
    ) -> Result<SamplesRead, StoreError>;

    /// Does a little of what the rules want. What is kept by the day may stay until all of its day is old. Never holds up what is to be kept for long.
    async fn tidy_telemetry(
        &self,
        rules: &TelemetryRules,
        now: Timestamp,
    ) -> Result<Tidied, StoreError>;

    /// Bytes in use, without those that are only waiting to be used again.
    async fn history_bytes(&self) -> Result<u64, StoreError>;
}

/// The history, whole.
pub trait History: TelemetryStore + EventStore {}
impl<T: TelemetryStore + EventStore> History for T {}
