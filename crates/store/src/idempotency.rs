//! The 16 bytes a caller's key is looked up by.

use sha2::{Digest, Sha256};
use utmos_core::id::TenantId;
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
