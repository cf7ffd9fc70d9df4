//! That a device has come or gone, for whoever wants to know.

use utmos_core::{
    id::{DeviceSn, TenantId},
    time::Timestamp,
};

/// By what it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// It is connected to our own broker and listens for commands.
    Connected,
    /// It was heard not long ago.
    Heard,
    /// Its gateway, which is there, has it.
    ListedByGateway,
    /// It has no connection that listens for commands any more.
    Disconnected,
    /// It was not heard for too long.
    Silent,
    /// Its gateway does not have it any more.
    LeftGateway,
    /// Its gateway is gone.
    GatewayOffline,
    /// Nothing was ever seen of it.
    Never,
}

impl Evidence {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::Connected,
        Self::Heard,
        Self::ListedByGateway,
        Self::Disconnected,
        Self::Silent,
        Self::LeftGateway,
        Self::GatewayOffline,
        Self::Never,
    ];

    /// The evidence as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Heard => "heard",
            Self::ListedByGateway => "listed_by_gateway",
            Self::Disconnected => "disconnected",
            Self::Silent => "silent",
            Self::LeftGateway => "left_gateway",
            Self::GatewayOffline => "gateway_offline",
            Self::Never => "never",
        }
    }
}

/// A device has come, or has gone. Told once for each time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Whose it is.
    pub tenant: TenantId,
    /// Which.
    pub device: DeviceSn,
    /// Whether it came.
    pub online: bool,
    /// When that was found out.
    pub at: Timestamp,
    /// By what.
    pub evidence: Evidence,
}

/// Is told of every edge. Called on the way in: it must not wait for anything.
pub trait EdgeSink: Send + Sync {
    /// A device has come or gone.
    fn edge(&self, edge: &Edge);
}

/// They are kept beside what devices report.
impl EdgeSink for crate::events::Events {
    fn edge(&self, edge: &Edge) {
        let evidence = edge.evidence.as_str();
        Self::edge(self, edge.tenant, &edge.device, edge.online, edge.at, evidence);
    }
}
