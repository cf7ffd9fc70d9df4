//! Who else wants to know what devices say: telemetry, events, requests, presence. The link does not depend on them.

use utmos_core::{
    id::{GatewaySn, TenantId},
    time::Now,
};
use utmos_dji::uplink::Uplink;

/// A message of a registered device, read and, where it asks for that, acknowledged.
#[derive(Debug)]
pub struct Said<'a> {
    /// Whose device it is.
    pub tenant: TenantId,
    /// The gateway behind the message.
    pub gateway: &'a GatewaySn,
    /// What it says.
    pub uplink: &'a Uplink,
    /// Bytes of the message.
    pub bytes: usize,
    /// When it came.
    pub at: Now,
    /// Whether this server holds the gateway, and is to answer it.
    pub is_ours: bool,
}

/// Takes note of what devices say. Called on the way in, one message after another: it must not wait for anything.
pub trait Listener: Send + Sync {
    /// A device said something. Called before the message has its effect on commands and topology.
    fn said(&self, said: &Said<'_>);

    /// A gateway was heard, came or went; whether that changed anything is for the listener to find out.
    fn presence(&self, _gateway: &GatewaySn) {}

    /// A gateway has told what stands behind it, and that counts now.
    fn topology(&self, _tenant: TenantId, _gateway: &GatewaySn) {}
}
