//! Waiting for a stop sign.

use tokio::sync::watch;

/// Returns when the sign says stop, or when whoever held it is gone. Safe to drop at any point.
pub(crate) async fn stopped(sign: &mut watch::Receiver<bool>) {
    drop(sign.wait_for(|stop| *stop).await);
}
