//! Encryption of secrets at rest: AES-256-GCM, bound to the row they stand in.

use std::{cell::RefCell, fmt, sync::Arc};

use aes_gcm::{
    Aes256Gcm, Nonce,
    aead::{Aead, AeadInOut, KeyInit, Payload},
};
use hmac::{Hmac, Mac};
use rand::{Rng, SeedableRng, rngs::StdRng};
use sha2::Sha256;
use utmos_core::{
    credential::Secret,
    id::{ApiId, CommandId},
    ports::StoreError,
};
use zeroize::{Zeroize, Zeroizing};

use crate::key::MasterKey;

/// A secret as it is kept.
pub(crate) struct Sealed {
    pub(crate) key_id: [u8; 8],
    pub(crate) nonce: [u8; 12],
    pub(crate) sealed: Vec<u8>,
}

/// First byte of a sealed text: how it was sealed.
const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 12;
const HEAD_BYTES: usize = 1 + NONCE_BYTES;
const TAG_BYTES: usize = 16;

/// What a sealed text is, so that it opens as nothing else.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Slot {
    /// `commands.payload`.
    Payload,
    /// `lives.response_data`.
    Response,
    /// `lives.execution_ext`.
    Execution,
    /// `lives.texts`.
    Texts,
    /// `timeline.proof` of one line.
    Proof,
    /// The same of several lines.
    Proofs,
    /// `unmatched.raw`.
    Unmatched,
    /// `device_requests.payload`.
    RequestPayload,
    /// `device_requests.reply`.
    RequestReply,
    /// A line of the emergency journal.
    Journal,
}

impl Slot {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Payload => b"utmos commands.payload",
            Self::Response => b"utmos lives.response_data",
            Self::Execution => b"utmos lives.execution_ext",
            Self::Texts => b"utmos lives.texts",
            Self::Proof => b"utmos timeline.proof",
            Self::Proofs => b"utmos timeline.proof of several",
            Self::Unmatched => b"utmos unmatched.raw",
            Self::RequestPayload => b"utmos device_requests.payload",
            Self::RequestReply => b"utmos device_requests.reply",
            Self::Journal => b"utmos emergency journal",
        }
    }
}

/// Seals and opens the texts of one command. Each command has a key of its own, since random nonces wear a key out and
/// there are several texts to every command.
pub(crate) struct DataKey {
    cipher: Aes256Gcm,
}

impl DataKey {
    pub(crate) fn seal(&self, slot: Slot, text: &str) -> Result<Vec<u8>, StoreError> {
        let nonce = random_nonce()?;
        let mut kept = Vec::with_capacity(HEAD_BYTES + text.len() + TAG_BYTES);
        kept.push(FORMAT);
        kept.extend(nonce);
        kept.extend(text.as_bytes());
        let tag = self
            .cipher
            .encrypt_inout_detached(
                &Nonce::from(nonce),
                slot.label(),
                kept.split_at_mut(HEAD_BYTES).1.into(),
            )
            .map_err(|_| {
                StoreError::Unavailable(format!("{slot:?}: a text could not be encrypted"))
            })?;
        kept.extend(tag);
        Ok(kept)
    }

    /// Opens what [`DataKey::seal`] made, or says why it cannot be opened.
    pub(crate) fn open(&self, slot: Slot, kept: &[u8]) -> Result<Arc<str>, &'static str> {
        let Some((&FORMAT, rest)) = kept.split_first() else {
            return Err("it is no encrypted text");
        };
        let Some((nonce, sealed)) = rest.split_first_chunk::<NONCE_BYTES>() else {
            return Err("it is cut off");
        };
        let payload = Payload { msg: sealed, aad: slot.label() };
        let opened = self.cipher.decrypt(&Nonce::from(*nonce), payload).map_err(
            |_| "it was changed after it was encrypted, moved from another place, or encrypted under another master key",
        )?;
        String::from_utf8(opened).map(Arc::from).map_err(|_| "it is not text")
    }
}

/// Seals and opens secrets under one master key.
pub(crate) struct Sealer {
    cipher: Aes256Gcm,
    data: Zeroizing<[u8; 32]>,
    key_id: [u8; 8],
    check: [u8; 32],
}

impl Sealer {
    pub(crate) fn new(key: &MasterKey) -> Self {
        let key = key.bytes();
        let sealing = Zeroizing::new(derive(key, b"utmos credential secrets v1"));
        let mut key_id = [0; 8];
        key_id.copy_from_slice(&derive(key, b"utmos key id v1")[..8]);
        Self {
            cipher: Aes256Gcm::new((&*sealing).into()),
            data: Zeroizing::new(derive(key, b"utmos command data v1")),
            key_id,
            check: derive(key, b"utmos key check v1"),
        }
    }

    /// Stands in the database to tell whether it is opened with its own key. Gives nothing of the key away.
    pub(crate) fn check(&self) -> &[u8; 32] {
        &self.check
    }

    /// The key of the texts of a command.
    pub(crate) fn data_key(&self, id: CommandId) -> DataKey {
        self.data_key_of(id.uuid().as_bytes())
    }

    /// The key of the texts of something else with an id of its own.
    pub(crate) fn data_key_of(&self, id: &[u8]) -> DataKey {
        let key = Zeroizing::new(derive(&self.data, id));
        DataKey { cipher: Aes256Gcm::new((&*key).into()) }
    }

    pub(crate) fn seal(
        &self,
        api_id: &ApiId,
        slot: i64,
        secret: &Secret,
    ) -> Result<Sealed, StoreError> {
        let nonce = system_nonce()?;
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

thread_local! {
    /// Asking the system for every nonce costs a call each, and a command has about ten.
    static DICE: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// For keys that live long: straight from the system, which no snapshot of a machine repeats.
fn system_nonce() -> Result<[u8; NONCE_BYTES], StoreError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|err| no_dice(&err))?;
    Ok(nonce)
}

fn no_dice(err: &getrandom::Error) -> StoreError {
    StoreError::Unavailable(format!("the system gives no random numbers: {err}"))
}

fn random_nonce() -> Result<[u8; NONCE_BYTES], StoreError> {
    let mut nonce = [0; NONCE_BYTES];
    DICE.with_borrow_mut(|dice| {
        let dice = match dice {
            Some(dice) => dice,
            None => {
                let mut seed = <StdRng as SeedableRng>::Seed::default();
                getrandom::fill(&mut seed).map_err(|err| no_dice(&err))?;
                dice.insert(StdRng::from_seed(seed))
            }
        };
        dice.fill_bytes(&mut nonce);
        Ok(nonce)
    })
}

pub(crate) fn derive(key: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    // HMAC takes keys of every length; the error cannot occur.
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()));
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

    #[test]
    fn a_text_opens_only_as_what_it_is_of_its_own_command_under_its_own_key() {
        let sealer = Sealer::new(&MasterKey::from_hex(&"01".repeat(32)).unwrap());
        let other = Sealer::new(&MasterKey::from_hex(&"02".repeat(32)).unwrap());
        let [id, stranger] = [1, 2].map(|number| CommandId::new(uuid::Uuid::from_u128(number)));
        let key = sealer.data_key(id);
        let kept = key.seal(Slot::Payload, "s3cret").unwrap();
        assert!(!kept.windows(6).any(|window| window == b"s3cret"));
        assert_ne!(kept, key.seal(Slot::Payload, "s3cret").unwrap(), "each has its own nonce");
        assert_eq!(&*sealer.data_key(id).open(Slot::Payload, &kept).unwrap(), "s3cret");
        assert!(key.open(Slot::Proof, &kept).is_err());
        assert!(sealer.data_key(stranger).open(Slot::Payload, &kept).is_err());
        assert!(other.data_key(id).open(Slot::Payload, &kept).is_err());
        for at in 0..kept.len() {
            assert!(key.open(Slot::Payload, &kept[..at]).is_err(), "cut off at {at}");
            let mut changed = kept.clone();
            changed[at] ^= 1;
            assert!(key.open(Slot::Payload, &changed).is_err(), "changed at {at}");
        }
    }
}
