//! The rules by which requests are answered, in memory. Follows the store, so that what another process changes counts
//! within a second.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use tokio_util::sync::CancellationToken;
use utmos_core::{
    device_request::{Rule, Scope, SetRule},
    id::{DeviceSn, TenantId},
    ports::{RequestStore, RuleSet, StoreError},
    time::Timestamp,
};
use utmos_dji::answer::AUTOMATIC_TYPES;

use crate::directory::FOLLOW_WAIT;

/// The one type that is answered on another way, before any rule is asked.
pub const UPDATE_TOPO: &str = "update_topo";

/// The rules.
pub struct Rules {
    store: Arc<dyn RequestStore>,
    held: RwLock<Held>,
}

#[derive(Default)]
struct Held {
    generation: Option<u64>,
    rules: BTreeMap<Scope, (Rule, Timestamp)>,
}

/// Where a rule comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleOrigin {
    /// Set for the device.
    Device,
    /// Set for all of the tenant's devices.
    Tenant,
    /// Set by nobody.
    Default,
}

/// The rule that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effective {
    /// The rule.
    pub rule: Rule,
    /// Where it comes from.
    pub origin: RuleOrigin,
    /// When it was set.
    pub updated_at: Option<Timestamp>,
}

impl Rules {
    pub(super) async fn load(store: Arc<dyn RequestStore>) -> Result<Self, StoreError> {
        let rules = Self { store, held: RwLock::default() };
        rules.refresh().await?;
        Ok(rules)
    }

    /// Whether the server may have an answer of its own to requests of this type.
    #[must_use]
    pub fn has_automatic(request_type: &str) -> bool {
        AUTOMATIC_TYPES.contains(&request_type)
    }

    /// The rule that counts for requests of this type of a device, or of a tenant's devices in general.
    #[must_use]
    pub fn effective(
        &self,
        tenant: TenantId,
        device: Option<&DeviceSn>,
        request_type: &str,
    ) -> Effective {
        let scope = |device: Option<&DeviceSn>| Scope {
            tenant,
            request_type: request_type.to_owned(),
            device: device.cloned(),
        };
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let find = |device, origin| {
            let (rule, at) = held.rules.get(&scope(device))?;
            Some(Effective { rule: *rule, origin, updated_at: Some(*at) })
        };
        let of_device = device.and_then(|device| find(Some(device), RuleOrigin::Device));
        of_device.or_else(|| find(None, RuleOrigin::Tenant)).unwrap_or_else(|| Effective {
            rule: Rule::default_for(
                Self::has_automatic(request_type) || request_type == UPDATE_TOPO,
            ),
            origin: RuleOrigin::Default,
            updated_at: None,
        })
    }

    /// Whether anybody has ever set a rule, of whichever tenant, as far as this server knows: a second ago at the latest.
    pub(super) fn were_ever_set(&self) -> bool {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.generation != Some(0)
    }

    /// What somebody set for this tenant.
    #[must_use]
    pub fn of_tenant(&self, tenant: TenantId) -> Vec<SetRule> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let mine = held.rules.iter().filter(|(scope, _)| scope.tenant == tenant);
        mine.map(|(scope, (rule, at))| SetRule {
            scope: scope.clone(),
            rule: *rule,
            updated_at: *at,
        })
        .collect()
    }

    /// Sets a rule; it counts here when this returns.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn set(&self, rule: SetRule) -> Result<RuleSet, StoreError> {
        let set = self.store.put_rule(rule).await?;
        self.refresh().await?;
        Ok(set)
    }

    /// Takes a rule back. Answers whether there was one.
    ///
    /// # Errors
    /// When that could not be stored.
    pub async fn remove(&self, scope: Scope) -> Result<bool, StoreError> {
        let removed = self.store.remove_rule(scope).await?;
        self.refresh().await?;
        Ok(removed)
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        let generation = self.store.rules_generation().await?;
        let known = self.held.read().unwrap_or_else(PoisonError::into_inner).generation;
        if known == Some(generation) {
            return Ok(());
        }
        let rules = self.store.rules().await?;
        let rules = rules.into_iter().map(|set| (set.scope, (set.rule, set.updated_at))).collect();
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        // Of two who read at once, the one who began later has the newer.
        if held.generation.is_none_or(|known| known < generation) {
            *held = Held { generation: Some(generation), rules };
        }
        Ok(())
    }

    pub(super) async fn follow(&self, stopping: &CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(FOLLOW_WAIT) => {}
            }
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "could not look for changed rules of device requests");
            }
        }
    }
}
