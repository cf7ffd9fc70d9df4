//! Where device requests are kept (API.md section 5).

use async_trait::async_trait;

/// Requests of devices, their answers, and the rules by which they are answered.
#[async_trait]
pub trait RequestStore: Send + Sync {}
