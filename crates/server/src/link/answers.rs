//! What a dock is told when it asks, so that it comes up with nobody watching.

use std::{collections::BTreeMap, sync::Arc};

use utmos_core::{
    device::SubDevice,
    id::{DeviceSn, TenantId},
};
use utmos_dji::{
    answer::{self, Binding, BindingOutcome, CloudConfig, Facts, Organization, Question},
    uplink::{self, Request, Topology},
};

use super::Link;

/// What docks are told of the cloud they belong to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Answer to `config`.
    pub cloud: CloudConfig,
    /// The organisation devices are bound to; without it, the tenant's id and name stand in.
    pub organization: Option<Organization>,
}

impl Link {
    pub(super) fn answer_request(self: &Arc<Self>, tenant: TenantId, request: &Request) {
        let question = Question::of(request);
        let facts = self.facts(tenant, &question);
        match answer::automatic(&question, &facts) {
            Ok(answered) => {
                let at = self.parts.clock.now().wall;
                tracing::info!(
                    gateway.sn = %request.gateway, result = answered.result,
                    "answered {}", request.method.as_deref().unwrap_or("a request")
                );
                self.send(answer::request_reply(request, &answered.data, at));
            }
            Err(why) => {
                Self::count(&self.figures.unanswered);
                tracing::warn!(
                    gateway.sn = %request.gateway, %why,
                    "left {} unanswered", request.method.as_deref().unwrap_or("a request")
                );
            }
        }
    }

    fn facts(&self, tenant: TenantId, question: &Question) -> Facts {
        let organization =
            self.parts.settings.organization.clone().unwrap_or_else(|| Organization {
                id: tenant.to_string(),
                name: tenant.to_string(),
            });
        let mut facts = Facts {
            config: Some(self.parts.settings.cloud.clone()),
            organization: Some(organization.clone()),
            ..Facts::default()
        };
        match question {
            Question::BindStatus { devices } => {
                facts.bindings = self.bindings(tenant, devices, &organization)
            }
            Question::Bind { devices } => {
                let outcome = |sn: &DeviceSn| self.binding_outcome(tenant, sn);
                facts.outcomes =
                    devices.iter().map(|one| (one.sn.clone(), outcome(&one.sn))).collect();
            }
            Question::Config
            | Question::Organization { .. }
            | Question::FlightAreas
            | Question::OfflineMap
            | Question::Storage { .. }
            | Question::Resource { .. }
            | Question::Unreadable
            | Question::NoMethod
            | Question::Other => {}
        }
        facts
    }

    /// A device that is registered to the tenant counts as bound; an aircraft is registered when its dock reports it.
    fn bindings(
        &self,
        tenant: TenantId,
        devices: &[String],
        to: &Organization,
    ) -> BTreeMap<DeviceSn, Binding> {
        self.parts.directory.with_registry(|registry| {
            let parsed = devices.iter().filter_map(|sn| DeviceSn::parse(sn).ok());
            let known = parsed
                .filter_map(|sn| registry.device(&sn))
                .filter(|device| device.tenant == tenant);
            known
                .map(|device| {
                    let callsign = if device.label.is_empty() {
                        device.sn.to_string()
                    } else {
                        device.label.clone()
                    };
                    (device.sn.clone(), Binding { organization: to.clone(), callsign })
                })
                .collect()
        })
    }

    /// The gateway has proved who it is with its password, so it may bind itself and its own aircraft; nobody else's.
    fn binding_outcome(&self, tenant: TenantId, sn: &DeviceSn) -> BindingOutcome {
        match self.parts.directory.device(sn) {
            Some(device) if device.tenant != tenant => BindingOutcome::AlreadyBound,
            Some(_) | None => BindingOutcome::Bound,
        }
    }
}

/// The sub-devices of a report, in core's words; `None` when the report does not say.
pub(super) fn to_core_subs(topology: &Topology) -> Option<Vec<SubDevice>> {
    let subs = topology.sub_devices.as_ref()?;
    let to_core = |sub: &uplink::SubDevice| SubDevice {
        sn: sub.sn.clone(),
        model_key: sub.model.key(),
        index: sub.index.clone(),
    };
    Some(subs.iter().map(to_core).collect())
}
