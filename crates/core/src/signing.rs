//! Signed requests (API.md section 1): the string to sign, and who is let in.
//!
//! [`verify`] is the only maker of a [`Caller`], so code that holds one has been let in. It does not spend the nonce:
//! that is a fact to be stored, and the [`Caller`] carries it until somebody stores it.

use std::{
    collections::BTreeSet,
    hint::black_box,
    net::IpAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    credential::{CLOCK_SKEW_DEFAULT, Credential, CredentialStatus, Permission, SigningKey},
    id::{ApiId, DeviceSn, TenantId},
    method::CompleteOn,
    time::Timestamp,
};

/// First line of the string to sign.
pub const SCHEME: &str = "UTMOS-HMAC-SHA256";
/// Longest API id that is looked up.
pub const API_ID_BYTES_MAX: usize = 128;
/// Longest nonce.
pub const NONCE_BYTES_MAX: usize = 128;
/// How much longer than its request could be taken a nonce is remembered, for replicas whose clocks differ.
pub const NONCE_MARGIN: Duration = Duration::from_secs(60);
/// Most secrets a credential has at once; a check costs as much for every credential, and for none.
pub const SECRETS_MAX: usize = 2;
/// Published test vectors, as JSON: what a client's own signing code is checked against.
pub const VECTORS: &str = include_str!("../data/signing_vectors.json");

/// Costs what a real key costs, and never lets anybody in.
static DECOY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::new(b"no such credential"));

/// The signed headers of a request, well formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    /// `X-Api-Id`.
    pub api_id: ApiId,
    /// `X-Api-Timestamp`, Unix seconds.
    pub timestamp: i64,
    /// `X-Api-Nonce`.
    pub nonce: String,
    /// `X-Api-Signature`.
    pub signature: [u8; 32],
}

/// A header that is missing or not well formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderFlaw {
    /// The header's name.
    pub header: &'static str,
    /// What is wrong with it and what it should be.
    pub problem: String,
}

/// Names of the signed headers.
pub const HEADERS: [&str; 4] = ["X-Api-Id", "X-Api-Timestamp", "X-Api-Nonce", "X-Api-Signature"];

/// Reads the signed headers. `values` gives the values of one of [`HEADERS`] as bytes.
///
/// # Errors
/// Every header that is missing, sent more than once or not well formed.
pub fn read_headers<'a, V: Iterator<Item = &'a [u8]>>(
    values: impl Fn(&'static str) -> V,
) -> Result<SignedHead, Vec<HeaderFlaw>> {
    let mut flaws = Vec::new();
    let mut read = |header: &'static str, wanted: &str, fits: &dyn Fn(&str) -> bool| -> &'a str {
        let mut sent = values(header);
        let problem = match (sent.next(), sent.next()) {
            (None, _) => format!("is missing; it must be {wanted}"),
            (Some(one), None) => match std::str::from_utf8(one) {
                Ok(text) if fits(text) => return text,
                Ok(_) | Err(_) => format!("must be {wanted}"),
            },
            (Some(_), Some(_)) => "was sent more than once".to_owned(),
        };
        flaws.push(HeaderFlaw { header, problem });
        ""
    };
    let [id, time, nonce, signature] = HEADERS;
    let api_id =
        read(id, "the API id of a credential, 1 to 128 visible ASCII characters", &|text| {
            is_visible(text, API_ID_BYTES_MAX)
        });
    // One spelling for each time: what is signed is the number, so nothing else may stand for it.
    let timestamp = read(time, "the Unix time in whole seconds, without leading zeros", &|text| {
        (1..=12).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'))
    });
    let nonce = read(
        nonce,
        "1 to 128 visible ASCII characters, never used before with this API id",
        &|text| is_visible(text, NONCE_BYTES_MAX),
    );
    let signature = read(signature, "64 lower-case hexadecimal digits", &|text| {
        text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    });
    let mut bytes = [0; 32];
    if !flaws.is_empty() || hex::decode_to_slice(signature, &mut bytes).is_err() {
        return Err(flaws);
    }
    let timestamp = timestamp.parse().unwrap_or_default();
    Ok(SignedHead {
        api_id: ApiId::new(api_id),
        timestamp,
        nonce: nonce.to_owned(),
        signature: bytes,
    })
}

fn is_visible(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// What of a request is signed beside its headers.
#[derive(Debug, Clone, Copy)]
pub struct SignedParts<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The path exactly as sent, still percent-encoded, without the query.
    pub path: &'a str,
    /// The query exactly as sent, without the `?`.
    pub query: Option<&'a str>,
    /// The raw body; empty when there is none.
    pub body: &'a [u8],
}

/// The string to sign: eight lines joined by `\n`.
#[must_use]
pub fn string_to_sign(
    parts: SignedParts<'_>,
    api_id: &ApiId,
    timestamp: i64,
    nonce: &str,
) -> String {
    format!(
        "{SCHEME}\n{}\n{}\n{}\n{}\n{timestamp}\n{nonce}\n{}",
        parts.method.to_ascii_uppercase(),
        parts.path,
        canonical_query(parts.query.unwrap_or("")),
        api_id.as_str(),
        hex::encode(Sha256::digest(parts.body)),
    )
}

/// The pairs as sent, sorted by encoded name, then by encoded value, joined with `&`. Empty pairs are left out.
#[must_use]
pub fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
    pairs.sort_by_key(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.join("&")
}

/// A nonce that must be stored before its request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NonceUse {
    /// The first half of a SHA-256 over API id and nonce.
    pub key: [u8; 16],
    /// Until when it must be remembered.
    pub expires_at: Timestamp,
}

/// When a request was signed, as it says, and when it came; both by the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestTimes {
    /// Its `X-Api-Timestamp`.
    pub signed_at: Timestamp,
    /// What the server's clock showed.
    pub came_at: Timestamp,
}

/// Who is asking. Only [`verify`] makes one.
#[derive(Debug, Clone)]
pub struct Caller {
    tenant: TenantId,
    api_id: ApiId,
    request_id: String,
    permissions: Arc<BTreeSet<Permission>>,
    devices: Option<Arc<BTreeSet<DeviceSn>>>,
    complete_on: CompleteOn,
    nonce: NonceUse,
    times: RequestTimes,
}

impl Caller {
    /// Whose data it may see.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The credential it used.
    #[must_use]
    pub fn api_id(&self) -> &ApiId {
        &self.api_id
    }

    /// The HTTP request.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// What `complete_on` means when the request does not say.
    #[must_use]
    pub fn complete_on(&self) -> CompleteOn {
        self.complete_on
    }

    /// Whether it may do this.
    #[must_use]
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission)
    }

    /// Whether it may touch this device at all.
    #[must_use]
    pub fn may_touch(&self, device: &DeviceSn) -> bool {
        self.devices.as_ref().is_none_or(|devices| devices.contains(device))
    }

    /// The devices it is limited to.
    #[must_use]
    pub fn devices(&self) -> Option<&BTreeSet<DeviceSn>> {
        self.devices.as_deref()
    }

    /// The nonce that must be stored before the request is answered.
    #[must_use]
    pub fn nonce(&self) -> NonceUse {
        self.nonce
    }

    /// When its request was signed and came.
    #[must_use]
    pub fn times(&self) -> RequestTimes {
        self.times
    }
}

/// A credential ready for verification: secrets keyed once, sets shared.
#[derive(Debug, Clone)]
pub struct KeyedCredential {
    credential: Arc<Credential>,
    keys: Vec<(SigningKey, Option<Timestamp>)>,
    permissions: Arc<BTreeSet<Permission>>,
    devices: Option<Arc<BTreeSet<DeviceSn>>>,
}

impl KeyedCredential {
    /// Keys the credential's secrets.
    #[must_use]
    pub fn new(credential: Credential) -> Self {
        let keys =
            credential.secrets.iter().map(|s| (s.secret.signing_key(), s.valid_until)).collect();
        let permissions = Arc::new(credential.permissions.clone());
        let devices = credential.devices.clone().map(Arc::new);
        Self { credential: Arc::new(credential), keys, permissions, devices }
    }

    /// Whether one of its secrets that still work made this signature. Every key is tried, and as often for each credential.
    fn signed(&self, text: &str, signature: &[u8; 32], now: Timestamp) -> bool {
        spend_checks(SECRETS_MAX.saturating_sub(self.keys.len()), text, signature);
        self.keys.iter().fold(false, |found, (key, valid_until)| {
            let is_valid = valid_until.is_none_or(|until| now < until);
            (key.verifies(text.as_bytes(), signature) & is_valid) | found
        })
    }
}

/// Why a request is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The timestamp is too far from the server's clock.
    #[error(
        "the timestamp is {off_by} s from the server's clock, which shows {server_time}; at most {allowed} s are allowed"
    )]
    TimestampExpired {
        /// By how many seconds it is off.
        off_by: u64,
        /// How many are allowed.
        allowed: u64,
        /// The server's clock in Unix seconds.
        server_time: i64,
    },
    /// The signature does not match, or there is no such API id: the two look the same from outside.
    #[error("the signature does not match; compare the string to sign with yours")]
    SignatureInvalid {
        /// The string the server built.
        string_to_sign: String,
    },
    /// The credential does not work any more, or not from there.
    #[error("{0}")]
    NotAllowed(&'static str),
}

/// Lets a request in, or not. `credential` is `None` when the API id is unknown.
///
/// # Errors
/// In this order: a timestamp too far off, a wrong signature, a credential that is disabled, expired or used from an
/// address it is not allowed from. An unknown API id costs the same work as a wrong signature and reads the same: until
/// a signature is right, nothing in the answer depends on the credential, its own clock skew included.
pub fn verify(
    credential: Option<&KeyedCredential>,
    head: &SignedHead,
    parts: SignedParts<'_>,
    request_id: &str,
    peer: Option<IpAddr>,
    now: Timestamp,
) -> Result<Caller, Refusal> {
    let text = string_to_sign(parts, &head.api_id, head.timestamp, &head.nonce);
    let signer = credential.filter(|keyed| keyed.signed(&text, &head.signature, now));
    if credential.is_none() {
        spend_checks(SECRETS_MAX, &text, &head.signature);
    }
    let skew = signer.map_or(CLOCK_SKEW_DEFAULT, |keyed| keyed.credential.allowed_clock_skew);
    check_timestamp(head.timestamp, skew, now)?;
    let Some(keyed) = signer else {
        return Err(Refusal::SignatureInvalid { string_to_sign: text });
    };

    let known = &keyed.credential;
    if known.status != CredentialStatus::Active {
        return Err(Refusal::NotAllowed(
            "this credential is disabled; ask the tenant's administrator for another",
        ));
    }
    if known.expires_at.is_some_and(|expires_at| expires_at <= now) {
        return Err(Refusal::NotAllowed(
            "this credential has expired; ask the tenant's administrator for another",
        ));
    }
    let is_from_allowed = known.ip_allow.is_empty()
        || peer.is_some_and(|peer| known.ip_allow.iter().any(|range| range.contains(peer)));
    if !is_from_allowed {
        return Err(Refusal::NotAllowed("this credential may not be used from this address"));
    }
    // A timestamp may lie ahead by the skew and stays good for as long again.
    let remember = skew.saturating_mul(2).saturating_add(NONCE_MARGIN).max(known.replay_window);
    Ok(Caller {
        tenant: known.tenant,
        api_id: known.api_id.clone(),
        request_id: request_id.to_owned(),
        permissions: keyed.permissions.clone(),
        devices: keyed.devices.clone(),
        complete_on: known.complete_on,
        nonce: NonceUse {
            key: nonce_key(&known.api_id, &head.nonce),
            expires_at: whole_second(now.plus(remember)),
        },
        times: RequestTimes {
            signed_at: Timestamp::from_millis(head.timestamp.saturating_mul(1000)),
            came_at: now,
        },
    })
}

/// The next whole second: stores keep what is remembered until the same moment together.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(
        (at.as_millis().saturating_add(999)).div_euclid(1000).saturating_mul(1000),
    )
}

fn spend_checks(count: usize, text: &str, signature: &[u8; 32]) {
    for _ in 0..count {
        black_box(DECOY.verifies(text.as_bytes(), signature));
    }
}

fn check_timestamp(timestamp: i64, skew: Duration, now: Timestamp) -> Result<(), Refusal> {
    let sent = timestamp.saturating_mul(1000);
    let off = now.as_millis().abs_diff(sent);
    if u128::from(off) <= skew.as_millis() {
        return Ok(());
    }
    Err(Refusal::TimestampExpired {
        off_by: off.div_ceil(1000),
        allowed: skew.as_secs(),
        server_time: now.as_millis().div_euclid(1000),
    })
}

fn nonce_key(api_id: &ApiId, nonce: &str) -> [u8; 16] {
    let hash = Sha256::new()
        .chain_update(api_id.as_str())
        .chain_update([0])
        .chain_update(nonce)
        .finalize();
    let mut key = [0; 16];
    key.copy_from_slice(&hash[..16]);
    key
}

/// Signs a request as a client does: the signature as it stands in `X-Api-Signature`.
#[must_use]
pub fn sign(
    key: &SigningKey,
    parts: SignedParts<'_>,
    api_id: &ApiId,
    timestamp: i64,
    nonce: &str,
) -> String {
    hex::encode(key.sign(string_to_sign(parts, api_id, timestamp, nonce).as_bytes()))
}

#[cfg(test)]
mod tests;
