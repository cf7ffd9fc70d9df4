//! Makes what is handed out to people: API ids, API keys, MQTT passwords. All from the system's random numbers.

use anyhow::anyhow;
use utmos_core::{credential::Secret, id::ApiId};

const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// No letters or digits that are mistaken for each other, and one case only: these are typed on a screen keyboard.
const TYPED: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";

const API_ID_DIGITS: usize = 22;
const MQTT_PASSWORD_CHARS: usize = 20;

/// `utk_` and 22 base62 digits.
pub fn api_id() -> anyhow::Result<ApiId> {
    Ok(ApiId::new(format!("utk_{}", pick(BASE62, API_ID_DIGITS)?)))
}

/// 256 bits as base64url, without padding.
pub fn api_key() -> anyhow::Result<Secret> {
    let mut bytes = [0; 32];
    fill(&mut bytes)?;
    Ok(Secret::new(base64url(&bytes)))
}

/// 20 characters that are easy to type: 99 bits.
pub fn mqtt_password() -> anyhow::Result<Secret> {
    pick(TYPED, MQTT_PASSWORD_CHARS).map(Secret::new)
}

/// Every character is equally likely: bytes beyond the last whole multiple of the alphabet are thrown away.
fn pick(alphabet: &[u8], count: usize) -> anyhow::Result<String> {
    let fair = 256 - 256 % alphabet.len();
    let mut text = String::with_capacity(count);
    let mut bytes = [0; 64];
    while text.len() < count {
        fill(&mut bytes)?;
        let fitting = bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < fair);
        let picked = fitting.filter_map(|byte| alphabet.get(byte % alphabet.len()));
        text.extend(picked.take(count - text.len()).map(|byte| char::from(*byte)));
    }
    Ok(text)
}

fn base64url(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_usize, |group, byte| group << 8 | usize::from(*byte))
            << (8 * (3 - chunk.len()));
        let digits = [18, 12, 6, 0].map(|shift| char::from(BASE64URL[group >> shift & 63]));
        text.extend(&digits[..=chunk.len()]);
    }
    text
}

fn fill(bytes: &mut [u8]) -> anyhow::Result<()> {
    getrandom::fill(bytes).map_err(|err| anyhow!("the system gives no random numbers: {err}"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn base64url_is_that_of_rfc_4648() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"foobar", "Zm9vYmFy"),
            (&[0xfb, 0xff, 0xfe], "-__-"),
        ] {
            assert_eq!(base64url(bytes), text);
        }
    }

    #[test]
    fn what_is_issued_has_its_form_and_never_repeats() {
        let mut seen = BTreeSet::new();
        for _ in 0..200 {
            let id = api_id().unwrap().to_string();
            let digits = id.strip_prefix("utk_").unwrap();
            assert!(
                digits.len() == 22 && digits.bytes().all(|b| b.is_ascii_alphanumeric()),
                "{id}"
            );
            let key = api_key().unwrap();
            let is_key = |b: u8| BASE64URL.contains(&b);
            assert!(key.expose().len() == 43 && key.expose().bytes().all(is_key));
            let password = mqtt_password().unwrap();
            assert!(password.expose().len() == 20);
            assert!(!password.expose().contains(['0', 'o', '1', 'l', 'i', 'O', 'I']));
            assert!(seen.insert(id) && seen.insert(key.expose().to_owned()));
            assert!(seen.insert(password.expose().to_owned()));
        }
    }

    #[test]
    fn every_character_is_equally_likely() {
        let text = pick(BASE62, 62_000).unwrap();
        let mut counts = BTreeMap::new();
        for c in text.chars() {
            *counts.entry(c).or_insert(0_u32) += 1;
        }
        assert_eq!(counts.len(), 62);
        // 1000 expected of each; seven standard deviations.
        assert!(counts.values().all(|count| (780..=1220).contains(count)), "{counts:?}");
    }
}
