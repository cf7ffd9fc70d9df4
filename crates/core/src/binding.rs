//! Binding codes: with one, a factory-new dock joins a tenant. Typed into a device by hand, kept only as a hash.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    credential::Secret,
    id::{BindingCodeId, TenantId},
    time::Timestamp,
};

/// Characters of a code: 5 bits each, 100 in all.
pub const CODE_CHARS: usize = 20;
/// Random bytes of which a code is made.
pub const CODE_BYTES: usize = 13;
/// Characters between two dashes.
const GROUP_CHARS: usize = 5;
/// Longest text that is read as a code, dashes and spaces included.
const TYPED_CHARS_MAX: usize = 64;
/// Digits and capitals without I, L, O and U; those that look alike are read as the one that is there.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Most devices that may join with one code.
pub const USES_MAX: u32 = 10_000;

/// A binding code as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct BindingCode {
    /// Its id.
    pub id: BindingCodeId,
    /// Whose it is.
    pub tenant: TenantId,
    /// For people.
    pub label: String,
    /// What [`code_hash`] makes of the code.
    pub hash: [u8; 32],
    /// How many gateways may join with it.
    pub uses_max: u32,
    /// How many have.
    pub uses: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// From when on it is no longer good.
    pub expires_at: Timestamp,
    /// Since when it is no longer wanted.
    pub revoked_at: Option<Timestamp>,
}

impl fmt::Debug for BindingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BindingCode")
            .field("id", &self.id)
            .field("tenant", &self.tenant)
            .field("uses", &self.uses)
            .finish_non_exhaustive()
    }
}

/// How a code stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeState {
    /// It is good.
    Active,
    /// As many as may have joined with it.
    UsedUp,
    /// Its time is over.
    Expired,
    /// Somebody took it back.
    Revoked,
}

impl CodeState {
    /// The state as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::UsedUp => "used_up",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl BindingCode {
    /// How it stands.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> CodeState {
        if self.revoked_at.is_some() {
            CodeState::Revoked
        } else if self.uses >= self.uses_max {
            CodeState::UsedUp
        } else if self.expires_at <= now {
            CodeState::Expired
        } else {
            CodeState::Active
        }
    }

    /// Whether it lets somebody in.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.state(now) == CodeState::Active
    }

    /// Whether `hash` is its own, in constant time.
    #[must_use]
    pub fn has_hash(&self, hash: &[u8; 32]) -> bool {
        self.hash.ct_eq(hash).into()
    }
}

/// The code that these random bytes make, as it is shown: four groups of five.
#[must_use]
pub fn code_of(random: &[u8; CODE_BYTES]) -> Secret {
    let bits = random.iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    let mut text = String::with_capacity(CODE_CHARS + CODE_CHARS / GROUP_CHARS);
    for place in 0..CODE_CHARS {
        if place > 0 && place % GROUP_CHARS == 0 {
            text.push('-');
        }
        let digit = usize::try_from(bits >> (5 * place) & 31).unwrap_or(0);
        text.push(char::from(ALPHABET[digit]));
    }
    Secret::new(text)
}

/// What is kept of a code, however it was typed: small letters, without dashes, with spaces, with an O for a 0. `None` for
/// what is no code at all.
#[must_use]
pub fn code_hash(typed: &str) -> Option<[u8; 32]> {
    if typed.len() > TYPED_CHARS_MAX {
        return None;
    }
    let mut hash = Sha256::new().chain_update(b"utmos binding code\0");
    let mut count = 0;
    for typed in typed.chars().filter(|c| !matches!(c, '-' | ' ')) {
        let meant = match typed.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        };
        let byte = u8::try_from(meant).ok().filter(|byte| ALPHABET.contains(byte))?;
        hash.update([byte]);
        count += 1;
    }
    (count == CODE_CHARS).then(|| hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_however_it_is_typed() {
        let code = code_of(&[0x5a, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 250, 251]);
        let text = code.expose();
        assert_eq!((text.len(), text.matches('-').count()), (23, 3), "{text}");
        let hash = code_hash(text);
        assert!(hash.is_some());
        for typed in [
            text.to_lowercase(),
            text.replace('-', ""),
            text.replace('-', " "),
            text.replace('0', "o").replace('1', "l"),
        ] {
            assert_eq!(code_hash(&typed), hash, "{typed}");
        }
        let mut other = text.replace('-', "");
        let last = other.pop();
        assert_eq!(code_hash(&other), None, "one is missing");
        other.push(if last == Some('A') { 'B' } else { 'A' });
        assert_ne!(code_hash(&other), hash);
        for bad in ["", "U", "é", &"A".repeat(21), &"-".repeat(100), &format!("{text}!")] {
            assert_eq!(code_hash(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_bit_counts() {
        let zero = code_of(&[0; CODE_BYTES]);
        for bit in 4..CODE_BYTES * 8 {
            let mut bytes = [0; CODE_BYTES];
            bytes[bit / 8] = 0x80 >> (bit % 8);
            assert_ne!(code_of(&bytes).expose(), zero.expose(), "{bit}");
        }
    }

    #[test]
    fn a_code_ends_with_its_time_its_uses_or_when_it_is_taken_back() {
        let at = Timestamp::from_millis;
        let code = BindingCode {
            id: BindingCodeId::new(uuid::Uuid::nil()),
            tenant: TenantId::new(uuid::Uuid::nil()),
            label: String::new(),
            hash: [1; 32],
            uses_max: 2,
            uses: 1,
            created_at: at(0),
            created_by: String::new(),
            expires_at: at(100),
            revoked_at: None,
        };
        assert!(code.is_active(at(99)));
        assert_eq!(code.state(at(100)), CodeState::Expired);
        assert_eq!(BindingCode { uses: 2, ..code.clone() }.state(at(1)), CodeState::UsedUp);
        let revoked = BindingCode { revoked_at: Some(at(5)), ..code.clone() };
        assert_eq!(revoked.state(at(1)), CodeState::Revoked);
        assert!(code.has_hash(&[1; 32]) && !code.has_hash(&[2; 32]));
    }
}
