//! Mosquitto's password file: `user:$7$rounds$salt$hash`, PBKDF2 over HMAC-SHA-512, in standard base64.

use std::collections::BTreeMap;

use anyhow::anyhow;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;
use utmos_core::credential::Secret;

/// As `mosquitto_passwd` has it. Passwords made here have 99 bits, which need no slow hash.
const ROUNDS: u32 = 101;
const SALT_BYTES: usize = 12;
const HASH_BYTES: usize = 64;
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Users and what is kept of their passwords.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct PasswordFile(BTreeMap<String, String>);

impl PasswordFile {
    /// Reads one.
    ///
    /// # Errors
    /// A line that is no user and hash, by its number: what it says is nobody's business.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut users = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, kept) = line
                .split_once(':')
                .filter(|(user, kept)| !user.is_empty() && kept.starts_with('$'))
                .ok_or_else(|| {
                    anyhow!("line {number} is not `user:$…`, as mosquitto_passwd writes it")
                })?;
            users.insert(user.to_owned(), kept.to_owned());
        }
        Ok(Self(users))
    }

    /// Whether a user is in it.
    pub fn has(&self, user: &str) -> bool {
        self.0.contains_key(user)
    }

    /// Gives a user a password.
    pub fn put(&mut self, user: &str, password: &Secret) -> anyhow::Result<()> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt)
            .map_err(|err| anyhow!("the system gives no random numbers: {err}"))?;
        self.0.insert(user.to_owned(), kept(password.expose().as_bytes(), &salt)?);
        Ok(())
    }

    /// Forgets users, and names those it forgot.
    pub fn retain(&mut self, mut is_known: impl FnMut(&str) -> bool) -> Vec<String> {
        let gone: Vec<_> = self.0.keys().filter(|user| !is_known(user)).cloned().collect();
        self.0.retain(|user, _| !gone.contains(user));
        gone
    }

    /// The file.
    pub fn to_text(&self) -> String {
        self.0.iter().map(|(user, kept)| format!("{user}:{kept}\n")).collect()
    }
}

fn kept(password: &[u8], salt: &[u8]) -> anyhow::Result<String> {
    let hash = pbkdf2(password, salt, ROUNDS)?;
    Ok(format!("$7${ROUNDS}${}${}", base64(salt), base64(&hash)))
}

/// The first block of PBKDF2 with HMAC-SHA-512, which is all that is asked for (RFC 8018, 5.2).
fn pbkdf2(password: &[u8], salt: &[u8], rounds: u32) -> anyhow::Result<[u8; HASH_BYTES]> {
    let keyed =
        Hmac::<Sha512>::new_from_slice(password).map_err(|err| anyhow!("no HMAC key: {err}"))?;
    let mut last: [u8; HASH_BYTES] = keyed
        .clone()
        .chain_update(salt)
        .chain_update(1_u32.to_be_bytes())
        .finalize()
        .into_bytes()
        .into();
    let mut all = last;
    for _ in 1..rounds {
        last = keyed.clone().chain_update(last).finalize().into_bytes().into();
        for (sum, byte) in all.iter_mut().zip(last) {
            *sum ^= byte;
        }
    }
    Ok(all)
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_usize, |group, byte| group << 8 | usize::from(*byte))
            << (8 * (3 - chunk.len()));
        let digits = [18, 12, 6, 0].map(|shift| char::from(BASE64[group >> shift & 63]));
        text.extend(&digits[..=chunk.len()]);
        text.extend(std::iter::repeat_n('=', 3 - chunk.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn the_hash_is_the_one_that_other_programs_make() {
        // Python: hashlib.pbkdf2_hmac("sha512", b"password", b"salt", rounds).
        for (rounds, hash) in [
            (
                1,
                "867f70cf1ade02cff3752599a3a53dc4af34c7a669815ae5d513554e1c8cf252c02d470a285a0501bad999bfe943c08f050235d7d68b1da55e63f73b60a57fce",
            ),
            (
                2,
                "e1d9c16aa681708a45f5c7c4e215ceb66e011a2e9f0040713f18aefdb866d53cf76cab2868a39b9f7840edce4fef5a82be67335c77a6068e04112754f27ccf4e",
            ),
        ] {
            assert_eq!(hex::encode(pbkdf2(b"password", b"salt", rounds).unwrap()), hash);
        }
        assert_eq!(
            [&b"f"[..], b"fo", b"foo", b"\xfb\xff"].map(base64),
            ["Zg==", "Zm8=", "Zm9v", "+/8="]
        );
    }

    #[test]
    fn a_file_goes_round_and_a_broken_line_is_named_by_its_number_alone() {
        let mut file = PasswordFile::parse("# ours\n\nold:$7$101$a$b\n").unwrap();
        file.put("D1", &Secret::new("secret".to_owned())).unwrap();
        let text = file.to_text();
        assert!(text.starts_with("D1:$7$101$") && text.ends_with("old:$7$101$a$b\n"), "{text}");
        assert_eq!(PasswordFile::parse(&text).unwrap(), file);
        assert_eq!(file.retain(|user| user == "D1"), ["old"]);
        assert!(file.has("D1") && !file.has("old") && !file.to_text().contains("secret"));
        let err = PasswordFile::parse("a:$7$x\nD1 secret\n").unwrap_err().to_string();
        assert!(err.contains("line 2") && !err.contains("secret"), "{err}");
    }
}
