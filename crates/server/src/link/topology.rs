//! What a gateway says stands behind it.

use std::sync::Arc;

use utmos_core::{
    device::{SubDevice, TopologyChange},
    id::{DeviceSn, TenantId},
};
use utmos_dji::uplink::{self, Topology};

use super::Link;

/// What of a report did not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeftOut {
    /// Nothing, or one aircraft too many.
    NothingForeign,
    /// A device of another tenant, or a gateway.
    Foreign,
}

impl Link {
    pub(super) fn topology(self: &Arc<Self>, tenant: TenantId, topology: &Topology) -> LeftOut {
        let now = self.parts.clock.now().wall;
        if let Some(model) = topology.model.key() {
            self.parts.directory.learn_model(&topology.gateway, model);
        }
        let Some(subs) = to_core_subs(topology) else { return LeftOut::NothingForeign };
        let report = self.parts.directory.report_topology(&topology.gateway, &subs, now);
        // A report may come as often as its gateway likes, and so may a change of it.
        let may_tell = self.evidence.may_tell(&topology.gateway);
        if let Some(sn) = report.left_out.first().filter(|_| may_tell) {
            tracing::warn!(
                gateway.sn = %topology.gateway, device.sn = %sn, count = report.left_out.len(),
                "a gateway reports a sub-device it may not have: of another tenant, a gateway, or one too many; \
                 utmos device list shows whose it is, utmos device move gives it to the gateway's tenant"
            );
        }
        match report.change {
            TopologyChange::Changed(subs) => {
                if may_tell {
                    tracing::info!(gateway.sn = %topology.gateway, aircraft = subs.len(), "topology changed");
                }
                let (link, gateway) = (self.clone(), topology.gateway.clone());
                let new: Vec<DeviceSn> = report.new.iter().map(|it| it.sn.clone()).collect();
                let is_ours = self.parts.holdings.holds(&topology.gateway);
                let is_taken = is_ours && self.later(Some(tenant), Some(&topology.gateway), 0, async move {
                    if let Err(error) = link.parts.directory.keep_topology(&gateway).await {
                        tracing::error!(gateway.sn = %gateway, %error, "could not keep a topology; it is tried again");
                    }
                });
                match (is_ours, is_taken) {
                    (true, true) => {}
                    (true, false) => self.parts.directory.note_unsaved(&topology.gateway),
                    // It is another's to keep.
                    (false, _) => self.parts.directory.settle(&new),
                }
            }
            TopologyChange::Same | TopologyChange::UnknownGateway => {}
        }
        self.parts
            .listeners
            .iter()
            .for_each(|listener| listener.topology(tenant, &topology.gateway));
        // One that nobody has registered is only one too many.
        let is_foreign = |sn: &DeviceSn| self.parts.directory.device(sn).is_some();
        if report.left_out.iter().any(is_foreign) {
            LeftOut::Foreign
        } else {
            LeftOut::NothingForeign
        }
    }
}

/// The sub-devices of a report, in core's words; `None` when the report does not say.
fn to_core_subs(topology: &Topology) -> Option<Vec<SubDevice>> {
    let subs = topology.sub_devices.as_ref()?;
    let to_core = |sub: &uplink::SubDevice| SubDevice {
        sn: sub.sn.clone(),
        model_key: sub.model.key(),
        index: sub.index.clone(),
    };
    Some(subs.iter().map(to_core).collect())
}
