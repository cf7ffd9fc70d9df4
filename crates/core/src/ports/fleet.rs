//! Where what is known of the fleet beside its registration is kept: when devices were seen, who may join, and who
//! changed what.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;

use super::StoreError;
use crate::{
    binding::BindingCode,
    command::StatusVersion,
    device::{Device, SubDevice},
    device_request::DeviceRequest,
    id::{ApiId, BindingCodeId, DeviceSn, GatewaySn, TenantId},
    time::Timestamp,
};

/// What was seen of a device. Changes with every message, so that it is written now and then only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Which.
    pub sn: DeviceSn,
    /// Whose it was when it was seen.
    pub tenant: TenantId,
    /// When it was seen for the first time.
    pub first_seen_at: Timestamp,
    /// When it was seen last.
    pub last_seen_at: Timestamp,
    /// The firmware it told of.
    pub firmware: Option<String>,
    /// `domain-type-sub_type` as it, or its gateway, told.
    pub model_key: Option<String>,
    /// Whether it was there.
    pub online: bool,
}

/// Stands between who does something and who approved of it. No serial number has a space.
const APPROVED_BY: &str = ", approved by ";
/// Stands between a gateway and the binding code it came with.
const WITH_CODE: &str = ", binding code ";

/// Who changes something, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// An API id, `command line`, or a gateway, with the binding code it came with; and who approved, see [`By::approved`].
    pub who: String,
    /// When.
    pub at: Timestamp,
}

impl By {
    /// How a gateway is named in `who`.
    #[must_use]
    pub fn gateway(gateway: &GatewaySn) -> String {
        format!("gateway {gateway}")
    }

    /// How a gateway is named that came with a binding code.
    #[must_use]
    pub fn gateway_with_code(gateway: &GatewaySn, code: BindingCodeId) -> String {
        format!("{}{WITH_CODE}{code}", Self::gateway(gateway))
    }

    /// The gateway named so.
    #[must_use]
    pub fn gateway_of(who: &str) -> Option<GatewaySn> {
        let named = who.split(APPROVED_BY).next()?.split(WITH_CODE).next()?;
        GatewaySn::parse(named.strip_prefix("gateway ")?).ok()
    }

    /// Which device joined through which gateway, by a line of that device's record that says who had it join. A gateway
    /// does not join through itself.
    #[must_use]
    pub fn joined(who: &str, sn: DeviceSn) -> Option<(GatewaySn, DeviceSn)> {
        let gateway = Self::gateway_of(who)?;
        (gateway.as_str() != sn.as_str()).then_some((gateway, sn))
    }

    /// How `who` is named where somebody else had to approve.
    #[must_use]
    pub fn approved(who: &str, by: &ApiId) -> String {
        format!("{who}{APPROVED_BY}{by}")
    }
}

/// What may be changed of a device that stays its tenant's. `None` leaves as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceEdit {
    /// Another label.
    pub label: Option<String>,
    /// Other tags.
    pub tags: Option<BTreeSet<String>>,
    /// Another MQTT password.
    pub mqtt_secret_hash: Option<[u8; 32]>,
}

/// A change of the registry that goes on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceOrder {
    /// A new device.
    Register(Device),
    /// A change that leaves it with its tenant.
    Edit {
        /// Which.
        sn: DeviceSn,
        /// Whose it must be.
        tenant: TenantId,
        /// What changes.
        edit: DeviceEdit,
    },
    /// It is given to another tenant.
    Move {
        /// Which.
        sn: DeviceSn,
        /// Whose it must be.
        from: TenantId,
        /// Whose it is from then on.
        to: TenantId,
    },
    /// It is forgotten: where it stood behind a gateway, what stood behind it, and whose it was. Its commands stay.
    Remove {
        /// Which.
        sn: DeviceSn,
        /// Whose it must be.
        tenant: TenantId,
    },
}

/// What became of a [`DeviceOrder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ordered {
    /// It was carried out; the device as it stands, or stood.
    Done(Device),
    /// To be registered, and the tenant's already: it stays as it is.
    Known(Device),
    /// To be registered, and another tenant's.
    Taken,
    /// The tenant has no such device.
    Unknown,
}

/// A gateway joins with a binding code, and aircraft with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// The gateway. Where it is its tenant's already, it stays as it is and no use of the code is spent.
    pub gateway: Device,
    /// The code that lets it join, where it is new.
    pub code: Option<BindingCodeId>,
    /// What joins with it where nobody has it yet.
    pub aircraft: Vec<Device>,
    /// What is remembered as standing behind it, where nothing is on record yet.
    pub subs: Vec<SubDevice>,
    /// Who.
    pub by: By,
}

/// What became of a [`Bind`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// The gateway and its aircraft are the tenant's, but for these, which are another's.
    Done {
        /// Another tenant's.
        taken: Vec<DeviceSn>,
    },
    /// The code is not good any more; nothing is stored.
    NoCode,
    /// The gateway is another tenant's; nothing is stored.
    Taken,
}

/// What became of a [`Bind`] that answers a device request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoundAnswer {
    /// All that it names is the tenant's, and the request is answered.
    Done,
    /// The request was changed by somebody else first, or is gone; nothing is stored.
    Lost,
    /// Not all of it can be bound, so that the answer would not be true; nothing is stored.
    Otherwise(Bound),
}

/// What goes on record of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It was registered.
    Registered,
    /// It joined with a binding code.
    Bound,
    /// It joined with the report of its gateway.
    Joined,
    /// Its label or its tags changed.
    Edited,
    /// It got another MQTT password.
    Password,
    /// It was given to another tenant.
    Moved,
    /// It was removed.
    Removed,
}

impl Recorded {
    /// Whether a tenant can have as many of these lines written as it likes: of them the newest are kept. The others say
    /// whose a device was and through whom it joined, and stay for good.
    #[must_use]
    pub fn is_passing(self) -> bool {
        match self {
            Self::Edited | Self::Password => true,
            Self::Registered | Self::Bound | Self::Joined | Self::Moved | Self::Removed => false,
        }
    }

    /// What happened, as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Bound => "bound",
            Self::Joined => "joined",
            Self::Edited => "edited",
            Self::Password => "password",
            Self::Moved => "moved",
            Self::Removed => "removed",
        }
    }
}

/// A line of a device's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRecord {
    /// Which device.
    pub sn: DeviceSn,
    /// What happened.
    pub what: Recorded,
    /// Whose it was before; `None` when nobody's.
    pub from: Option<TenantId>,
    /// Whose it was afterwards; `None` when nobody's.
    pub to: Option<TenantId>,
    /// Who and when.
    pub by: By,
}

/// Sightings of devices, the binding codes with which new ones join a tenant, and the record of who had which device.
#[async_trait]
pub trait FleetStore: Send + Sync {
    /// Remembers what was seen of devices; of those that are not registered, or another
    /// tenant's by now, nothing is kept.
    async fn keep_sightings(&self, seen: Vec<Sighting>) -> Result<(), StoreError>;
    /// What is known of every device.
    async fn sightings(&self) -> Result<Vec<Sighting>, StoreError>;
    /// Which devices joined or were bound through which gateway by its own word ([`By::gateway`],
    /// [`By::gateway_with_code`]), as far as it is on record; those that were removed since as well.
    async fn joined(&self) -> Result<Vec<(GatewaySn, DeviceSn)>, StoreError>;

    /// Carries out a change and puts it on record, both or neither.
    async fn order(&self, order: DeviceOrder, by: By) -> Result<Ordered, StoreError>;
    /// Binds a gateway, spends a use of its code, and puts both on record, all or nothing.
    async fn bind(&self, bind: Bind) -> Result<Bound, StoreError>;
    /// The same where a device request asked for it, which is answered with that: both or neither. Nothing is stored unless
    /// the request is still at the version it had and all that the binding names can be bound, as its answer says.
    async fn bind_answering(
        &self,
        bind: Bind,
        seen: StatusVersion,
        request: Arc<DeviceRequest>,
    ) -> Result<BoundAnswer, StoreError>;
    /// A device's record, newest first, also of one that was removed. Of the lines that pass ([`Recorded::is_passing`]) the
    /// newest, to a named limit.
    async fn device_record(&self, sn: &DeviceSn) -> Result<Vec<DeviceRecord>, StoreError>;

    /// Adds a binding code, unless the tenant has `active_max` that are good. Answers whether it did.
    async fn add_binding_code(
        &self,
        code: BindingCode,
        active_max: usize,
    ) -> Result<bool, StoreError>;
    /// Every binding code, oldest first. Those whose end was long ago are forgotten.
    async fn binding_codes(&self) -> Result<Vec<BindingCode>, StoreError>;
    /// Takes a tenant's code back. Answers whether there is such a code.
    async fn revoke_binding_code(
        &self,
        tenant: TenantId,
        id: BindingCodeId,
        at: Timestamp,
    ) -> Result<bool, StoreError>;
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_gateway_is_known_by_its_name_also_where_somebody_approved() {
        let gateway = GatewaySn::parse("DOCK-1").unwrap();
        let named = By::gateway(&gateway);
        let approved = By::approved(&named, &ApiId::new("utk_a".to_owned()));
        assert_eq!(approved, "gateway DOCK-1, approved by utk_a");
        let code = BindingCodeId::new(uuid::Uuid::from_u128(7));
        let with_code = By::gateway_with_code(&gateway, code);
        assert_eq!(with_code, format!("gateway DOCK-1, binding code {code}"));
        let both = By::approved(&with_code, &ApiId::new("utk_a".to_owned()));
        let aircraft = DeviceSn::parse("AIR").unwrap();
        for who in [named, approved, with_code, both] {
            assert_eq!(By::gateway_of(&who), Some(gateway.clone()), "{who}");
            assert_eq!(
                By::joined(&who, aircraft.clone()),
                Some((gateway.clone(), aircraft.clone()))
            );
            assert_eq!(By::joined(&who, gateway.to_device()), None, "it is no aircraft of its own");
        }
        assert_eq!(By::gateway_of("binding code x, approved by gateway DOCK-1"), None);
    }
}
