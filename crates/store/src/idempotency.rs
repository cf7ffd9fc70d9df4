//! The 16 bytes a caller's key is looked up by, and what a key that was used before means.

use sha2::{Digest, Sha256};
use utmos_core::{
    command::{Phase, Spec},
    id::{CommandId, TenantId},
    method::Risk,
    ports::{Accepted, NewCommand},
    time::Timestamp,
};
use uuid::{Uuid, Version};

/// Bytes of a time-ordered key that are kept in front, so that keys of one time lie side by side in the tree.
const TIME_BYTES: usize = 6;

/// The lookup key: half a SHA-256 over tenant and key. Where the caller's key is itself a UUID of version 7, the hash
/// yields its first bytes to the key's time: such keys land at the end of the tree, others anywhere in it.
///
/// Whoever finds a row by it still compares tenant and key as text.
pub(crate) fn lookup_key(tenant: TenantId, key: &str) -> [u8; 16] {
    let hash = Sha256::new()
        .chain_update(tenant.uuid().as_bytes())
        .chain_update(key.as_bytes())
        .finalize();
    let mut lookup = [0; 16];
    lookup.copy_from_slice(&hash[..16]);
    if let Ok(id) = Uuid::try_parse(key)
        && id.get_version() == Some(Version::SortRand)
    {
        lookup[..TIME_BYTES].copy_from_slice(&id.as_bytes()[..TIME_BYTES]);
    }
    lookup
}

/// What is known of the command that came under a key first.
pub(crate) struct Before {
    pub(crate) id: CommandId,
    pub(crate) tenant: TenantId,
    pub(crate) key: String,
    pub(crate) fingerprint: [u8; 32],
    pub(crate) accepted_at: Timestamp,
    pub(crate) phase: Phase,
}

impl Before {
    /// What it means for one that comes under the same key now, or what is wrong on record.
    pub(crate) fn answer(&self, spec: &Spec) -> Result<Accepted, String> {
        let id = self.id;
        if self.tenant != spec.tenant || self.key != spec.idempotency_key {
            return Err(format!("command {id} came under another key"));
        }
        if self.fingerprint != spec.fingerprint {
            return Ok(Accepted::Conflict { id });
        }
        let (accepted_at, status) = (self.accepted_at, self.phase.status());
        Ok(Accepted::Replayed { id, accepted_at, status })
    }
}

/// Whether no other movement of its aircraft may be running.
pub(crate) fn needs_free_way(new: &NewCommand) -> bool {
    (new.spec.starts_motion || new.life.holds_motion) && new.spec.risk != Risk::Emergency
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_ordered_keys_lie_in_order_of_their_time_and_tenants_apart() {
        let (one, other) = (TenantId::new(Uuid::from_u128(1)), TenantId::new(Uuid::from_u128(2)));
        let (early, late) =
            ("0190a000-0000-7000-8000-000000000000", "0190a000-0001-7000-8000-000000000000");
        assert!(lookup_key(one, early) < lookup_key(one, late));
        assert_ne!(lookup_key(one, early), lookup_key(other, early));
        assert_ne!(
            lookup_key(one, early),
            lookup_key(one, &early.to_uppercase().replace("0190A", "0190a").replace('-', ""))
        );
        assert_ne!(lookup_key(one, "a"), lookup_key(one, "b"));
    }
}
