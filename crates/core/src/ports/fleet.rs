//! Where what is known of the fleet beside its registration is kept: when devices were seen, and who may join.

use async_trait::async_trait;

/// Sightings of devices, and the binding codes with which new ones join a tenant.
#[async_trait]
pub trait FleetStore: Send + Sync {}
