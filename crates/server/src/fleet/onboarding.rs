//! How a device joins a tenant: what it is told when it asks whether it is bound, whose a binding code is, and to be bound
//! (DJI, "Device binding to an organization").
//!
//! Nothing is given away to one that has no good code: what is wrong reads the same whether there is such a code or not,
//! and that a device is another tenant's is said only to one whose code is right.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use utmos_core::{
    device::{Device, DeviceKind, SubDevice},
    id::{BindingCodeId, DeviceSn, GatewaySn, TenantId},
    ports::{Bind, Bound, By, FleetStore, StoreError},
    time::Clock,
};
use utmos_dji::{
    answer::{BindDevice, Binding, BindingCode, BindingOutcome, Facts, Organization, Question},
    product,
};

use super::Newcomer;
use crate::directory::Directory;

/// Longest label that is taken from a device.
const LABEL_CHARS_MAX: usize = 64;

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
    parts: OnboardingParts,
    figures: OnboardingFigures,
}

/// Who asks.
enum Asker {
    /// A gateway of the tenant.
    Registered(Device),
    /// One that wants to be.
    Newcomer(Newcomer),
    /// Neither; its code has ended meanwhile.
    Nobody,
}

/// What was typed into a device to bind it.
#[derive(Clone, Copy)]
struct Typed<'a> {
    organization_id: &'a String,
    binding_code: &'a BindingCode,
}

/// What a device that is to be bound shows.
enum Shown {
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
                facts.outcomes = self.bind(tenant, gateway, devices).await?;
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

    fn asker(&self, tenant: TenantId, gateway: &GatewaySn) -> Asker {
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
    fn shown(
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

    async fn bind(
        &self,
        tenant: TenantId,
        gateway: &GatewaySn,
        devices: &[BindDevice],
    ) -> Result<BTreeMap<DeviceSn, BindingOutcome>, StoreError> {
        let asker = self.asker(tenant, gateway);
        let mut outcomes = BTreeMap::new();
        let mut wanted: Vec<&BindDevice> = Vec::new();
        let mut code = None;
        for one in devices {
            let BindDevice { organization_id, binding_code, .. } = one;
            let typed = Typed { organization_id, binding_code };
            match self.shown(tenant, gateway, &asker, typed) {
                Shown::Right(shown) => {
                    code = code.or(shown);
                    wanted.push(one);
                }
                Shown::Wrong => {
                    outcomes.insert(one.sn.clone(), BindingOutcome::WrongCode);
                }
            }
        }
        let (itself, others): (Vec<&BindDevice>, Vec<&BindDevice>) =
            wanted.into_iter().partition(|one| one.sn.as_str() == gateway.as_str());
        let mut aircraft: Vec<&BindDevice> = Vec::new();
        for one in &others {
            // It speaks for itself and for what stands behind it, and for no other gateway.
            let is_aircraft =
                product::kind_of(&one.model_key).is_none_or(|kind| kind == DeviceKind::Aircraft);
            let may = self.parts.directory.with_registry(|registry| {
                is_aircraft && registry.may_be_bound(gateway, tenant, &one.sn)
            });
            let is_double = aircraft.iter().any(|known| known.sn == one.sn);
            if may && !is_double {
                aircraft.push(one);
            } else if !may {
                outcomes.insert(one.sn.clone(), BindingOutcome::AlreadyBound);
            }
        }
        let to_store = !itself.is_empty() || !aircraft.is_empty();
        if to_store
            && let Some(bind) =
                self.to_bind(tenant, gateway, &asker, code, itself.first().copied(), &aircraft)
        {
            let named = itself.iter().chain(&aircraft).map(|one| one.sn.clone()).collect();
            outcomes.extend(self.store(gateway, bind, named).await?);
        }
        let refused = outcomes.values().filter(|outcome| **outcome != BindingOutcome::Bound);
        self.refuse(gateway, refused.count());
        Ok(outcomes)
    }

    /// What is to be stored. The gateway itself is bound whether or not it names itself: what stands behind it would be
    /// nobody's without it.
    fn to_bind(
        &self,
        tenant: TenantId,
        gateway: &GatewaySn,
        asker: &Asker,
        code: Option<BindingCodeId>,
        itself: Option<&BindDevice>,
        aircraft: &[&BindDevice],
    ) -> Option<Bind> {
        let now = self.parts.clock.now().wall;
        let key = |one: &BindDevice| Some(one.model_key.clone()).filter(|key| product::is_key(key));
        let label = |one: &BindDevice| match one.callsign.trim() {
            callsign if callsign == one.sn.as_str() => String::new(),
            callsign => callsign.chars().take(LABEL_CHARS_MAX).collect(),
        };
        let device = |sn: DeviceSn, kind, one: Option<&BindDevice>| Device {
            sn,
            tenant,
            kind,
            model_key: one.and_then(key),
            label: one.map(label).unwrap_or_default(),
            tags: BTreeSet::new(),
            simulated: false,
            mqtt_secret_hash: None,
            created_at: now,
        };
        let gateway_device = match asker {
            Asker::Registered(device) => device.clone(),
            Asker::Newcomer(newcomer) => {
                let told = itself.and_then(|one| product::kind_of(&one.model_key));
                let kind = told.filter(|kind| kind.is_gateway()).unwrap_or(DeviceKind::Dock);
                Device {
                    mqtt_secret_hash: Some(newcomer.mqtt_secret_hash),
                    ..device(gateway.to_device(), kind, itself)
                }
            }
            Asker::Nobody => return None,
        };
        let who = match code {
            Some(code) => format!("binding code {code}"),
            None => By::gateway(gateway),
        };
        let sub =
            |one: &&BindDevice| SubDevice { sn: one.sn.clone(), model_key: key(one), index: None };
        let new = |one: &&BindDevice| device(one.sn.clone(), DeviceKind::Aircraft, Some(one));
        Some(Bind {
            gateway: gateway_device,
            code,
            aircraft: aircraft.iter().map(new).collect(),
            subs: aircraft.iter().map(sub).collect(),
            by: By { who, at: now },
        })
    }

    async fn store(
        &self,
        gateway: &GatewaySn,
        bind: Bind,
        named: BTreeSet<DeviceSn>,
    ) -> Result<BTreeMap<DeviceSn, BindingOutcome>, StoreError> {
        let all =
            |outcome| named.iter().map(|sn| (sn.clone(), outcome)).collect::<BTreeMap<_, _>>();
        let (joins, subs) = (bind.code.is_some(), bind.subs.clone());
        Ok(match self.parts.store.bind(bind).await? {
            Bound::Done { taken } => {
                if let Err(error) = self.parts.directory.refresh().await {
                    tracing::warn!(%error, "could not look for changed devices");
                }
                if joins {
                    self.figures.bound.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(gateway.sn = %gateway, "{gateway} joined with a binding code");
                }
                let is_free = |sub: &SubDevice| !taken.contains(&sub.sn);
                let subs = subs.into_iter().filter(is_free).collect();
                self.parts.directory.were_bound(gateway, subs);
                let mut outcomes = all(BindingOutcome::Bound);
                outcomes.extend(taken.into_iter().map(|sn| (sn, BindingOutcome::AlreadyBound)));
                outcomes
            }
            Bound::NoCode => all(BindingOutcome::WrongCode),
            Bound::Taken => all(BindingOutcome::AlreadyBound),
        })
    }

    fn refuse(&self, gateway: &GatewaySn, count: usize) {
        if count > 0 {
            self.figures.refused.fetch_add(count as u64, Ordering::Relaxed);
            tracing::info!(gateway.sn = %gateway, count, "refused to bind devices of {gateway}");
        }
    }
}
