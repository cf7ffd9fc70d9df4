//! How a device joins a tenant: what it is told when it asks whether it is bound and whose a binding code is, and what it
//! has to show to be bound (DJI, "Device binding to an organization"). The binding itself is in `binding`.
//!
//! Nothing is given away to one that has no good code: what is wrong reads the same whether there is such a code or not,
//! and that a device is another tenant's is said only to one whose code is right.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use utmos_core::{
    device::Device,
    id::{BindingCodeId, DeviceSn, GatewaySn, TenantId},
    ports::{FleetStore, StoreError},
    time::Clock,
};
use utmos_dji::answer::{Binding, BindingCode, Facts, Organization, Question};

use super::Newcomer;
use crate::directory::Directory;

/// What onboarding works with.
pub struct OnboardingParts {
    /// Who is who.
    pub directory: Arc<Directory>,
    /// Where devices are bound.
    pub store: Arc<dyn FleetStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The organisation devices are told they belong to; without it, the tenant's id stands in.
    pub organization: Option<Organization>,
}

/// Figures since the start.
#[derive(Debug, Default)]
pub struct OnboardingFigures {
    /// Gateways that joined with a code.
    pub bound: AtomicU64,
    /// Devices whose binding was refused.
    pub refused: AtomicU64,
}

/// Answers what devices ask about organisations.
pub struct Onboarding {
    pub(super) parts: OnboardingParts,
    pub(super) figures: OnboardingFigures,
}

/// Who asks.
pub(super) enum Asker {
    /// A gateway of the tenant.
    Registered(Device),
    /// One that wants to be.
    Newcomer(Newcomer),
    /// Neither; its code has ended meanwhile.
    Nobody,
}

/// What was typed into a device to bind it.
#[derive(Clone, Copy)]
pub(super) struct Typed<'a> {
    pub(super) organization_id: &'a String,
    pub(super) binding_code: &'a BindingCode,
}

/// What a device that is to be bound shows.
pub(super) enum Shown {
    /// What was typed into the gateway: the organisation's id, and its MQTT password or a good code.
    Right(Option<BindingCodeId>),
    /// Anything else.
    Wrong,
}

impl Onboarding {
    /// Ready to answer.
    #[must_use]
    pub fn new(parts: OnboardingParts) -> Self {
        Self { parts, figures: OnboardingFigures::default() }
    }

    /// Figures since the start.
    #[must_use]
    pub fn figures(&self) -> &OnboardingFigures {
        &self.figures
    }

    /// What a question about organisations is answered with, and for `airport_organization_bind` what is done about it.
    /// Other questions get nothing from here.
    ///
    /// # Errors
    /// When a binding could not be stored: nothing is to be answered then, and the device asks again.
    pub async fn facts(
        &self,
        tenant: TenantId,
        gateway: &GatewaySn,
        question: &Question,
    ) -> Result<Facts, StoreError> {
        let mut facts = Facts::default();
        match question {
            // Of one that has not joined nothing is bound, and what else the tenant has it is not told.
            Question::BindStatus { devices } => match self.asker(tenant, gateway) {
                Asker::Registered(_) => facts.bindings = self.bindings(tenant, devices),
                Asker::Newcomer(_) | Asker::Nobody => {}
            },
            Question::Organization { organization_id, binding_code } => {
                let asker = self.asker(tenant, gateway);
                let typed = Typed { organization_id, binding_code };
                if let Shown::Right(_) = self.shown(tenant, gateway, &asker, typed) {
                    facts.organization = Some(self.organization(tenant));
                } else {
                    self.refuse(gateway, 1);
                }
            }
            Question::Bind { devices } => {
                facts.outcomes = self.bind(self.plan(tenant, gateway, devices)).await?;
            }
            Question::Config { .. }
            | Question::FlightAreas
            | Question::OfflineMap
            | Question::Storage { .. }
            | Question::Resource { .. }
            | Question::Progress { .. }
            | Question::Unreadable
            | Question::NoMethod
            | Question::Other => {}
        }
        Ok(facts)
    }

    /// The organisation that a tenant's devices are bound to.
    #[must_use]
    pub fn organization(&self, tenant: TenantId) -> Organization {
        let own = || Organization { id: tenant.to_string(), name: tenant.to_string() };
        self.parts.organization.clone().unwrap_or_else(own)
    }

    /// A device that is registered to the tenant counts as bound.
    fn bindings(&self, tenant: TenantId, devices: &[String]) -> BTreeMap<DeviceSn, Binding> {
        let organization = self.organization(tenant);
        self.parts.directory.with_registry(|registry| {
            let parsed = devices.iter().filter_map(|sn| DeviceSn::parse(sn).ok());
            let known = parsed.filter_map(|sn| registry.device(&sn));
            let theirs = known.filter(|device| device.tenant == tenant);
            let binding = |device: &Device| {
                let callsign = match device.label.as_str() {
                    "" => device.sn.to_string(),
                    label => label.to_owned(),
                };
                (device.sn.clone(), Binding { organization: organization.clone(), callsign })
            };
            theirs.map(binding).collect()
        })
    }

    pub(super) fn asker(&self, tenant: TenantId, gateway: &GatewaySn) -> Asker {
        if let Some(device) = self.parts.directory.device(&gateway.to_device()) {
            let is_theirs = device.tenant == tenant && device.kind.is_gateway();
            return if is_theirs { Asker::Registered(device) } else { Asker::Nobody };
        }
        let now = self.parts.clock.now().wall;
        match self.parts.directory.newcomers().of(gateway, now) {
            Some(newcomer) if newcomer.tenant == tenant => Asker::Newcomer(newcomer),
            Some(_) | None => Asker::Nobody,
        }
    }

    /// Both must fit, the organisation and the code. A newcomer shows the code it came with. A gateway of the tenant shows a good code, or its own MQTT password, which
    /// for one that joined with a code is that code for ever.
    pub(super) fn shown(
        &self,
        tenant: TenantId,
        gateway: &GatewaySn,
        asker: &Asker,
        typed: Typed<'_>,
    ) -> Shown {
        let Typed { organization_id, binding_code: typed } = typed;
        let own = self.organization(tenant).id;
        // An organisation that is configured without an id has none to be typed.
        if !own.is_empty() && *organization_id != own {
            return Shown::Wrong;
        }
        let now = self.parts.clock.now().wall;
        let code = || self.parts.directory.newcomers().code_of(tenant, typed.reveal(), now);
        match asker {
            Asker::Registered(_) => {
                let opens = self.parts.directory.opens(gateway.as_str(), typed.reveal().as_bytes());
                if opens || code().is_some() { Shown::Right(None) } else { Shown::Wrong }
            }
            Asker::Newcomer(newcomer) => match code() {
                Some(code) if code == newcomer.code => Shown::Right(Some(code)),
                Some(_) | None => Shown::Wrong,
            },
            Asker::Nobody => Shown::Wrong,
        }
    }

    pub(super) fn refuse(&self, gateway: &GatewaySn, count: usize) {
        if count > 0 {
            self.figures.refused.fetch_add(count as u64, Ordering::Relaxed);
            tracing::info!(gateway.sn = %gateway, count, "refused to bind devices of {gateway}");
        }
    }
}
