//! Encryption of secrets at rest: AES-256-GCM, bound to the row they stand in.

use std::fmt;

use aes_gcm::{
    Aes256Gcm, Nonce,
    aead::{Aead, KeyInit, Payload},
};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use utmos_core::{credential::Secret, id::ApiId, ports::StoreError};
use zeroize::{Zeroize, Zeroizing};

use crate::key::MasterKey;

/// A secret as it is kept.
pub(crate) struct Sealed {
    pub(crate) key_id: [u8; 8],
    pub(crate) nonce: [u8; 12],
    pub(crate) sealed: Vec<u8>,
}

/// Seals and opens secrets under one master key.
pub(crate) struct Sealer {
    cipher: Aes256Gcm,
    key_id: [u8; 8],
    check: [u8; 32],
}

impl Sealer {
    pub(crate) fn new(key: &MasterKey) -> Self {
        let sealing = Zeroizing::new(derive(key, b"utmos credential secrets v1"));
        let mut key_id = [0; 8];
        key_id.copy_from_slice(&derive(key, b"utmos key id v1")[..8]);
        Self {
            cipher: Aes256Gcm::new((&*sealing).into()),
            key_id,
            check: derive(key, b"utmos key check v1"),
        }
    }

    /// Stands in the database to tell whether it is opened with its own key. Gives nothing of the key away.
    pub(crate) fn check(&self) -> &[u8; 32] {
        &self.check
    }

    pub(crate) fn seal(
        &self,
        api_id: &ApiId,
        slot: i64,
        secret: &Secret,
    ) -> Result<Sealed, StoreError> {
        let mut nonce = [0; 12];
        getrandom::fill(&mut nonce).map_err(|err| {
            StoreError::Unavailable(format!("the system gives no random numbers: {err}"))
        })?;
        let payload = Payload { msg: secret.expose().as_bytes(), aad: &bound_to(api_id, slot) };
        let sealed = self.cipher.encrypt(&Nonce::from(nonce), payload).map_err(|_| {
            StoreError::Unavailable(format!(
                "the secret of credential {api_id} could not be encrypted"
            ))
        })?;
        Ok(Sealed { key_id: self.key_id, nonce, sealed })
    }

    pub(crate) fn open(
        &self,
        api_id: &ApiId,
        slot: i64,
        kept: &Sealed,
    ) -> Result<Secret, StoreError> {
        let damaged = |why: &str| {
            StoreError::Damaged(format!("credential_secrets {api_id}, slot {slot}: {why}"))
        };
        if kept.key_id != self.key_id {
            return Err(damaged("it was encrypted under another master key"));
        }
        let payload = Payload { msg: &kept.sealed, aad: &bound_to(api_id, slot) };
        let opened = self.cipher.decrypt(&Nonce::from(kept.nonce), payload).map_err(|_| {
            damaged("it was changed after it was encrypted, or moved from another row")
        })?;
        String::from_utf8(opened).map(Secret::new).map_err(|err| {
            err.into_bytes().zeroize();
            damaged("it is not text")
        })
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(…)")
    }
}

fn derive(key: &MasterKey, purpose: &[u8]) -> [u8; 32] {
    // HMAC takes keys of every length; the error cannot occur.
    let mut mac = Hmac::<Sha256>::new_from_slice(key.bytes())
        .unwrap_or_else(|_| Hmac::new(&Default::default()));
    mac.update(purpose);
    mac.finalize().into_bytes().into()
}

/// The row a secret stands in, so that it opens nowhere else.
fn bound_to(api_id: &ApiId, slot: i64) -> Vec<u8> {
    let mut bound = b"utmos credential_secrets".to_vec();
    bound.extend((api_id.as_str().len() as u64).to_be_bytes());
    bound.extend(api_id.as_str().as_bytes());
    bound.extend(slot.to_be_bytes());
    bound
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_secret_opens_only_in_its_own_row_under_its_own_key() {
        let sealer = Sealer::new(&MasterKey::from_hex(&"01".repeat(32)).unwrap());
        let other = Sealer::new(&MasterKey::from_hex(&"02".repeat(32)).unwrap());
        let (api_id, stranger) = (ApiId::new("ak_1"), ApiId::new("ak_2"));
        let mut kept = sealer.seal(&api_id, 0, &Secret::new("s3cret".to_owned())).unwrap();
        assert_eq!(sealer.open(&api_id, 0, &kept).unwrap().expose(), "s3cret");
        assert!(sealer.open(&api_id, 1, &kept).is_err());
        assert!(sealer.open(&stranger, 0, &kept).is_err());
        let err = other.open(&api_id, 0, &kept).unwrap_err();
        assert!(err.to_string().contains("another master key"), "{err}");
        kept.sealed[0] ^= 1;
        assert!(sealer.open(&api_id, 0, &kept).is_err());
        assert_ne!(sealer.check(), other.check());
    }
}
