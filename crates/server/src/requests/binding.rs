//! Whose devices are bound to what, from the registry alone.

use std::collections::BTreeMap;

use utmos_core::id::{DeviceSn, TenantId};
use utmos_dji::answer::{BindDevice, Binding, BindingOutcome, Facts, Organization, Question};

use super::{Inner, Settings};

/// The organisation of a tenant.
fn organization(settings: &Settings, tenant: TenantId) -> Organization {
    settings
        .organization
        .clone()
        .unwrap_or_else(|| Organization { id: tenant.to_string(), name: tenant.to_string() })
}

impl Inner {
    /// What is known of organisations and bindings.
    pub(super) fn binding_facts(&self, tenant: TenantId, question: &Question, facts: &mut Facts) {
        let organization = organization(&self.parts.settings, tenant);
        match question {
            Question::BindStatus { devices } => {
                facts.bindings = self.bindings(tenant, devices, &organization);
            }
            Question::Bind { devices } => {
                let outcome =
                    |one: &BindDevice| (one.sn.clone(), self.binding_outcome(tenant, &one.sn));
                facts.outcomes = devices.iter().map(outcome).collect();
            }
            Question::Organization { .. } => facts.organization = Some(organization),
            Question::Config
            | Question::FlightAreas
            | Question::OfflineMap
            | Question::Storage { .. }
            | Question::Resource { .. }
            | Question::Progress { .. }
            | Question::Unreadable
            | Question::NoMethod
            | Question::Other => {}
        }
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
