//! How devices are bound: what of a request to be bound may be carried out, and that this and what the device is told
//! about it are one thing.
//!
//! Where the request waited for an answer, the binding and the answer are stored in one transaction: one that was refused
//! or is over by then binds nothing, and no device is told what is not so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};

use utmos_core::{
    command::StatusVersion,
    device::{Device, DeviceKind, SubDevice},
    device_request::DeviceRequest,
    id::{ApiId, BindingCodeId, DeviceSn, GatewaySn, TenantId},
    ports::{Bind, Bound, BoundAnswer, By, StoreError},
};
use utmos_dji::{
    answer::{BindDevice, BindingOutcome},
    product,
};

use super::onboarding::{Asker, Onboarding, Shown, Typed};

/// Longest label that is taken from a device.
const LABEL_CHARS_MAX: usize = 64;

/// What becomes of each device that is to be bound.
pub type Outcomes = BTreeMap<DeviceSn, BindingOutcome>;

/// What is to be done about a request to be bound.
pub struct Plan {
    gateway: GatewaySn,
    /// What is certain already.
    decided: Outcomes,
    /// What is to be stored, and which devices of the request that is.
    bind: Option<(Bind, BTreeSet<DeviceSn>)>,
}

impl Plan {
    /// The same, approved by somebody, which goes on the devices' record.
    #[must_use]
    pub fn approved_by(mut self, by: &ApiId) -> Self {
        if let Some((bind, _)) = &mut self.bind {
            bind.by.who = By::approved(&bind.by.who, by);
        }
        self
    }

    /// What becomes of each device if all that is to be bound can be.
    fn outcomes(&self) -> Outcomes {
        let named = self.bind.iter().flat_map(|(_, named)| named);
        let bound = named.map(|sn| (sn.clone(), BindingOutcome::Bound));
        self.decided.iter().map(|(sn, outcome)| (sn.clone(), *outcome)).chain(bound).collect()
    }

    /// The same without what proved not to be free.
    fn without(self, bound: &Bound) -> Self {
        let Self { gateway, mut decided, bind } = self;
        let Some((mut bind, mut named)) = bind else {
            return Self { gateway, decided, bind: None };
        };
        let none = |outcome| named.iter().map(|sn| (sn.clone(), outcome)).collect::<Outcomes>();
        match bound {
            Bound::Done { taken } => {
                for sn in taken {
                    decided.insert(sn.clone(), BindingOutcome::AlreadyBound);
                    named.remove(sn);
                }
                bind.aircraft.retain(|device| !taken.contains(&device.sn));
                bind.subs.retain(|sub| !taken.contains(&sub.sn));
                return Self { gateway, decided, bind: Some((bind, named)) };
            }
            Bound::NoCode => decided.extend(none(BindingOutcome::WrongCode)),
            Bound::Taken => decided.extend(none(BindingOutcome::AlreadyBound)),
        }
        Self { gateway, decided, bind: None }
    }
}

/// What became of a binding that answers a request.
pub enum Answered {
    /// The request stands so, and what it says of the binding is so.
    Yes(Arc<DeviceRequest>),
    /// The request was changed by somebody else first; nothing is bound.
    Lost,
    /// Nothing can be bound: what is left to be stored is this answer, which says so.
    NothingToBind(Arc<DeviceRequest>),
}

/// How a request stands once it is answered with these outcomes; an error where it cannot be any more.
pub type ToAnswer<'a, E> = &'a (dyn Fn(&Outcomes) -> Result<Arc<DeviceRequest>, E> + Send + Sync);

/// Why a binding was not carried out.
pub enum NotAnswered<E> {
    /// The request cannot be answered.
    Refused(E),
    /// Nobody knows whether it was: it could not be stored, or its word was lost.
    Store(StoreError),
}

impl Onboarding {
    /// What is to be done where a gateway asks for these devices to be bound.
    #[must_use]
    pub fn plan(&self, tenant: TenantId, gateway: &GatewaySn, devices: &[BindDevice]) -> Plan {
        let asker = self.asker(tenant, gateway);
        let mut decided = Outcomes::new();
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
                    decided.insert(one.sn.clone(), BindingOutcome::WrongCode);
                }
            }
        }
        let (itself, others): (Vec<&BindDevice>, Vec<&BindDevice>) =
            wanted.into_iter().partition(|one| one.sn.as_str() == gateway.as_str());
        let mut aircraft: Vec<&BindDevice> = Vec::new();
        // Those that nobody has yet take the places of aircraft that may still join.
        let mut places =
            self.parts.directory.with_registry(|registry| registry.may_still_join(gateway));
        for one in &others {
            // It speaks for itself and for what stands behind it, and for no other gateway.
            let is_aircraft =
                product::kind_of(&one.model_key).is_none_or(|kind| kind == DeviceKind::Aircraft);
            let is_double = aircraft.iter().any(|known| known.sn == one.sn);
            let (is_new, may) = self.parts.directory.with_registry(|registry| {
                let is_new = registry.device(&one.sn).is_none();
                let may = is_aircraft && registry.may_be_bound(gateway, tenant, &one.sn);
                (is_new, may && (is_double || !is_new || places > 0))
            });
            if may && !is_double {
                places = places.saturating_sub(usize::from(is_new));
                aircraft.push(one);
            } else if !may {
                decided.insert(one.sn.clone(), BindingOutcome::AlreadyBound);
            }
        }
        let mut bind = None;
        if !itself.is_empty() || !aircraft.is_empty() {
            let wanted =
                self.to_bind(tenant, gateway, &asker, code, itself.first().copied(), &aircraft);
            let named = itself.iter().chain(&aircraft).map(|one| one.sn.clone()).collect();
            bind = wanted.map(|bind| (bind, named));
        }
        Plan { gateway: gateway.clone(), decided, bind }
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
            simulated: one.is_some_and(|one| one.simulated),
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
            Some(code) => By::gateway_with_code(gateway, code),
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

    /// Carries a plan out as far as it can be. Answers what became of each device.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn bind(&self, plan: Plan) -> Result<Outcomes, StoreError> {
        let Some((bind, _)) = &plan.bind else { return Ok(self.settle(&plan).await) };
        let bound = self.parts.store.bind(bind.clone()).await?;
        let plan = plan.without(&bound);
        Ok(self.settle(&plan).await)
    }

    /// Carries a plan out together with the answer that `to_answer` makes of what becomes of each device: both or neither.
    ///
    /// # Errors
    /// See [`NotAnswered`].
    pub async fn bind_answering<E>(
        &self,
        mut plan: Plan,
        seen: StatusVersion,
        to_answer: ToAnswer<'_, E>,
    ) -> Result<Answered, NotAnswered<E>> {
        // Each round but the last takes an aircraft out of the plan, or all that is in it.
        loop {
            let to = to_answer(&plan.outcomes()).map_err(NotAnswered::Refused)?;
            let Some((bind, _)) = &plan.bind else {
                self.settle(&plan).await;
                return Ok(Answered::NothingToBind(to));
            };
            let answering = self.parts.store.bind_answering(bind.clone(), seen, to.clone());
            match answering.await.map_err(NotAnswered::Store)? {
                BoundAnswer::Done => {
                    self.settle(&plan).await;
                    return Ok(Answered::Yes(to));
                }
                BoundAnswer::Lost => return Ok(Answered::Lost),
                BoundAnswer::Otherwise(bound) => plan = plan.without(&bound),
            }
        }
    }

    /// What follows from a plan that was carried out.
    async fn settle(&self, plan: &Plan) -> Outcomes {
        let gateway = &plan.gateway;
        if let Some((bind, _)) = &plan.bind {
            if let Err(error) = self.parts.directory.refresh().await {
                tracing::warn!(%error, "could not look for changed devices");
            }
            if bind.code.is_some() {
                self.figures.bound.fetch_add(1, Ordering::Relaxed);
                tracing::info!(gateway.sn = %gateway, "{gateway} joined with a binding code");
            }
            self.parts.directory.were_bound(gateway, bind.subs.clone());
        }
        let outcomes = plan.outcomes();
        let refused = outcomes.values().filter(|outcome| **outcome != BindingOutcome::Bound);
        self.refuse(gateway, refused.count());
        outcomes
    }
}
