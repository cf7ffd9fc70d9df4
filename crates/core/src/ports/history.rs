//! Where what devices reported is kept: much, in order, and apart from commands, which must not wait for it.

use async_trait::async_trait;

/// Telemetry over time.
#[async_trait]
pub trait TelemetryStore: Send + Sync {}

/// Device events.
#[async_trait]
pub trait EventStore: Send + Sync {}

/// The history, whole.
pub trait History: TelemetryStore + EventStore {}
impl<T: TelemetryStore + EventStore> History for T {}
