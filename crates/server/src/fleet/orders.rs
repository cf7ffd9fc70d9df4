//! What an administrator asks for over the API: carried out, put on record, and in force when the answer leaves.

use std::time::Duration;

use utmos_core::{
    binding::{BindingCode, code_hash},
    credential::Secret,
    id::{BindingCodeId, TenantId},
    ports::{By, DeviceOrder, Ordered, StoreError},
    time::Timestamp,
};
use uuid::Uuid;

use super::{Fleet, secrets};

/// Binding codes of a tenant that may be good at once.
pub const CODES_PER_TENANT_MAX: usize = 100;

/// How a binding code is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeAsked {
    /// For people.
    pub label: String,
    /// How many gateways may join with it.
    pub uses_max: u32,
    /// How long it is good.
    pub good_for: Duration,
}

impl CodeAsked {
    /// Without a word: one gateway, within a day.
    pub const GOOD_FOR: Duration = Duration::from_hours(24);
    /// The longest a code may be good.
    pub const GOOD_FOR_MAX: Duration = Duration::from_hours(24 * 30);

    /// Makes the code: what is kept of it, and what is shown once.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn make(
        self,
        tenant: TenantId,
        id: Uuid,
        who: &str,
        now: Timestamp,
    ) -> Result<(BindingCode, Secret), secrets::NoRandomNumbers> {
        let shown = secrets::binding_code()?;
        let code = BindingCode {
            id: BindingCodeId::new(id),
            tenant,
            label: self.label,
            // A code that was just made is one.
            hash: code_hash(shown.expose()).unwrap_or_default(),
            uses_max: self.uses_max,
            uses: 0,
            created_at: now,
            created_by: who.to_owned(),
            expires_at: now.plus(self.good_for),
            revoked_at: None,
        };
        Ok((code, shown))
    }
}

impl Fleet {
    /// Carries out a change of the registry, which counts here when this returns.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn order(&self, order: DeviceOrder, who: &str) -> Result<Ordered, StoreError> {
        let by = By { who: who.to_owned(), at: self.parts.clock.now().wall };
        let what = match &order {
            DeviceOrder::Register(device) => format!("register {}", device.sn),
            DeviceOrder::Edit { sn, .. } => format!("change {sn}"),
            DeviceOrder::Move { sn, .. } => format!("move {sn}"),
            DeviceOrder::Remove { sn, .. } => format!("remove {sn}"),
        };
        let ordered = self.parts.store.order(order, by).await?;
        if let Ordered::Done(device) = &ordered {
            tracing::info!(device.sn = %device.sn, who, "{who} had us {what}");
        }
        // It is stored; whoever follows the store looks again within a second.
        if let Err(error) = self.parts.directory.refresh().await {
            tracing::warn!(%error, "could not look for changed devices");
        }
        Ok(ordered)
    }

    /// Makes a binding code. `None` when the tenant has as many as it may have.
    ///
    /// # Errors
    /// When it could not be made or stored.
    pub async fn make_code(
        &self,
        tenant: TenantId,
        asked: CodeAsked,
        who: &str,
    ) -> Result<Option<(BindingCode, Secret)>, StoreError> {
        let now = self.parts.clock.now().wall;
        let made = asked.make(tenant, self.parts.ids.ordered(now), who, now);
        let (code, shown) = made.map_err(|err| StoreError::Unavailable(err.to_string()))?;
        if !self.parts.store.add_binding_code(code.clone(), CODES_PER_TENANT_MAX).await? {
            return Ok(None);
        }
        tracing::info!(code = %code.id, who, "a binding code was made");
        self.parts.directory.newcomers().add_code(code.clone());
        Ok(Some((code, shown)))
    }

    /// The tenant's binding codes, newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn codes(&self, tenant: TenantId) -> Result<Vec<BindingCode>, StoreError> {
        let mut codes = self.parts.store.binding_codes().await?;
        codes.retain(|code| code.tenant == tenant);
        codes.reverse();
        Ok(codes)
    }

    /// Takes a code back; who came with it and has not joined has to go. Answers whether there is such a code.
    ///
    /// # Errors
    /// When that could not be stored.
    pub async fn revoke_code(
        &self,
        tenant: TenantId,
        id: BindingCodeId,
        who: &str,
    ) -> Result<bool, StoreError> {
        let now = self.parts.clock.now().wall;
        let known = self.parts.store.revoke_binding_code(tenant, id, now).await?;
        if known {
            tracing::info!(code = %id, who, "a binding code was taken back");
            self.follow_codes().await;
        }
        Ok(known)
    }
}
