//! Requests: their signature, their body, and the payload in it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{LazyLock, Mutex, PoisonError},
};

use jsonschema::Validator;
use serde_json::Value;
use utmos_core::{
    credential::{
        CLOCK_SKEW_DEFAULT, Credential, CredentialSecret, CredentialStatus, REPLAY_WINDOW_DEFAULT,
        Role, Secret,
    },
    device::{Device, DeviceKind, Registry, SubDevice},
    id::{ApiId, DeviceSn, TenantId},
    idempotency::fingerprint,
    method::CompleteOn,
    signing::{self, Caller, HEADERS, KeyedCredential, SignedHead, SignedParts},
    time::Timestamp,
};
use utmos_dji::catalogue::{DEPTH_MAX, Flaw, Method, VALUES_MAX};
use utmos_server::http::{problem::Problem, try_body};
use uuid::Uuid;

use super::{CATALOGUE, first_line, is_told};

/// Problems that one answer names at most.
const PROBLEMS_MAX: usize = 101;
const NOW: i64 = 1_767_225_600;
const KEY: &str = "the key of the one credential there is";

/// Reads the signed headers and the query, and lets nobody in who is unknown or has signed something else.
pub fn signed_headers(input: &[u8]) {
    let lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let line = |index: usize| lines.get(index).copied();
    let head = signing::read_headers(|name| {
        let index = HEADERS.iter().position(|header| *header == name).unwrap_or(0);
        line(index).into_iter()
    });
    let query = String::from_utf8_lossy(line(4).unwrap_or_default()).into_owned();
    let canonical = signing::canonical_query(&query);
    let body = line(5).unwrap_or_default();
    let head = match head {
        Ok(head) => head,
        Err(flaws) => {
            assert!(!flaws.is_empty());
            for flaw in flaws {
                assert!(HEADERS.contains(&flaw.header));
                is_told(&flaw.problem);
            }
            return;
        }
    };
    let parts = SignedParts { method: "POST", path: "/", query: Some(&query), body };
    let now = Timestamp::from_millis(head.timestamp.saturating_mul(1000));
    assert!(
        signing::verify(None, &head, parts, "", None, now).is_err(),
        "nobody is let in unknown"
    );
    let credential = &*CREDENTIAL;
    let key = Secret::new(KEY.to_owned()).signing_key();
    let right = signing::sign(&key, parts, &head.api_id, head.timestamp, &head.nonce);
    let verify = |signature: [u8; 32], parts: SignedParts<'_>| {
        let head = SignedHead { signature, ..head.clone() };
        signing::verify(Some(credential), &head, parts, "", None, now).is_ok()
    };
    let right = bytes(&right);
    assert!(verify(right, parts), "what is signed right is let in");
    assert!(verify(right, SignedParts { query: Some(&canonical), ..parts }), "in whatever order");
    let mut wrong = right;
    wrong[31] ^= 1;
    assert!(!verify(wrong, parts), "one bit of the signature");
    let longer = [body, b"x"].concat();
    assert!(!verify(right, SignedParts { body: &longer, ..parts }), "one byte of the body");
    assert!(!verify(right, SignedParts { path: "/x", ..parts }), "the path");
}

/// Puts a query into its canonical form: that of the same pairs in any order, and what is signed.
pub fn canonical_query(input: &[u8]) {
    let query = String::from_utf8_lossy(input).replace(['\r', '\n'], "");
    let canonical = signing::canonical_query(&query);
    assert_eq!(signing::canonical_query(&canonical), canonical, "canonical is canonical");
    let pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
    let sorted: Vec<&str> = canonical.split('&').filter(|pair| !pair.is_empty()).collect();
    let ordered = |pairs: &[&str]| {
        let mut pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        pairs.sort_unstable();
        pairs
    };
    assert_eq!(ordered(&sorted), ordered(&pairs), "no pair is lost or made");
    let parted = |pair: &&str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name.to_owned(), value.to_owned())
    };
    assert!(sorted.iter().map(parted).is_sorted(), "by name, then by value: {canonical}");
    let reversed = pairs.iter().rev().copied().collect::<Vec<_>>().join("&");
    let other = signing::canonical_query(&reversed);
    // `a` and `a=` say the same, and keep the order in which they were sent.
    let others = other.split('&').filter(|pair| !pair.is_empty());
    assert!(others.map(|pair| parted(&pair)).eq(sorted.iter().map(parted)), "in whatever order");

    let key = Secret::new(KEY.to_owned()).signing_key();
    let signed = |query: &str| {
        let parts = SignedParts { method: "GET", path: "/", query: Some(query), body: b"" };
        signing::sign(&key, parts, &ApiId::new("utk_hostile"), NOW, "nonce")
    };
    let right = signed(&query);
    assert_eq!(signed(&canonical), right);
    assert_ne!(signed(&format!("{query}&x")), right, "one pair more");
    if let Some((longest, _)) = query.char_indices().next_back() {
        let shorter = &query[..longest];
        let is_same = signing::canonical_query(shorter) == canonical;
        assert_eq!(signed(shorter) == right, is_same, "one letter less");
    }
}

fn bytes(hex: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        *byte = u8::from_str_radix(digits, 16).unwrap_or_default();
    }
    bytes
}

pub(super) static TENANT: LazyLock<TenantId> = LazyLock::new(|| TenantId::new(Uuid::from_u128(7)));

static CREDENTIAL: LazyLock<KeyedCredential> =
    LazyLock::new(|| credential(Some(BTreeSet::from([sn("SIM-DOCK-0001"), sn("SIM-M3D-0001")]))));

/// That of a caller who may do everything with these devices, or with all.
fn credential(devices: Option<BTreeSet<DeviceSn>>) -> KeyedCredential {
    KeyedCredential::new(Credential {
        api_id: ApiId::new("utk_hostile"),
        tenant: *TENANT,
        name: "hostile".to_owned(),
        status: CredentialStatus::Active,
        permissions: Role::TenantAdmin.permissions(),
        allowed_clock_skew: CLOCK_SKEW_DEFAULT,
        replay_window: REPLAY_WINDOW_DEFAULT,
        expires_at: None,
        ip_allow: Vec::new(),
        devices,
        complete_on: CompleteOn::Outcome,
        secrets: vec![CredentialSecret { secret: Secret::new(KEY.to_owned()), valid_until: None }],
        created_at: Timestamp::from_millis(0),
    })
}

pub(super) fn sn(text: &str) -> DeviceSn {
    DeviceSn::parse(text).unwrap_or_else(|err| panic!("{err}"))
}

/// A dock with its aircraft, one that is another tenant's, and one that the credential may not touch.
static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let mut registry = Registry::default();
    let other = TenantId::new(Uuid::from_u128(8));
    for (name, kind, tenant) in [
        ("SIM-DOCK-0001", DeviceKind::Dock, *TENANT),
        ("SIM-M3D-0001", DeviceKind::Aircraft, *TENANT),
        ("SIM-DOCK-0002", DeviceKind::Dock, *TENANT),
        ("SIM-DOCK-0009", DeviceKind::Dock, other),
    ] {
        registry.put(Device {
            sn: sn(name),
            tenant,
            kind,
            model_key: None,
            label: String::new(),
            tags: BTreeSet::new(),
            simulated: true,
            mqtt_secret_hash: None,
            created_at: Timestamp::from_millis(0),
        });
    }
    let behind = SubDevice { sn: sn("SIM-M3D-0001"), model_key: None, index: None };
    registry.recall_topology(&sn("SIM-DOCK-0001").to_gateway(), vec![behind]);
    registry
});

/// A caller who may do everything with all devices of the tenant.
pub(super) fn admin(body: &[u8]) -> Caller {
    static ADMIN: LazyLock<KeyedCredential> = LazyLock::new(|| credential(None));
    let_in(&ADMIN, body)
}

pub(super) fn caller(body: &[u8]) -> Caller {
    let_in(&CREDENTIAL, body)
}

fn let_in(credential: &KeyedCredential, body: &[u8]) -> Caller {
    let api_id = ApiId::new("utk_hostile");
    let parts = SignedParts { method: "POST", path: "/", query: None, body };
    let key = Secret::new(KEY.to_owned()).signing_key();
    let signature = bytes(&signing::sign(&key, parts, &api_id, NOW, "n"));
    let head = SignedHead { api_id, timestamp: NOW, nonce: "n".to_owned(), signature };
    let now = Timestamp::from_millis(NOW * 1000);
    signing::verify(Some(credential), &head, parts, "", None, now)
        .unwrap_or_else(|refusal| panic!("{refusal}"))
}

/// Reads the body of a command for a caller who may do everything with one dock and its aircraft.
pub fn command_body(input: &[u8]) {
    let read = |body: &[u8]| try_body(&CATALOGUE, &REGISTRY, &caller(body), body);
    let (draft, dry_run) = match read(input) {
        Ok(read) => read,
        Err(problem) => return refusal(&problem),
    };
    assert_eq!(draft.gateway.as_str(), "SIM-DOCK-0001", "it goes where the caller may go");
    assert!(["SIM-DOCK-0001", "SIM-M3D-0001"].contains(&draft.device.as_str()));
    assert!((1..=300).contains(&draft.timeout.as_secs()));
    let key = draft.idempotency_key.chars();
    assert!((1..=255).contains(&key.clone().count()) && !key.clone().any(char::is_control));
    let payload: Value = serde_json::from_str(&draft.payload)
        .unwrap_or_else(|err| panic!("a payload that is no JSON: {err}"));
    let method = CATALOGUE.method(&draft.method).unwrap_or_else(|| panic!("no such method"));
    let again = method.check(&payload).map(|checked| checked.payload);
    assert_eq!(again, Ok(payload), "what is sent would pass as it is");

    // The same request in another spelling is the same request.
    let value: Value = serde_json::from_slice(input).unwrap_or(Value::Null);
    let pretty = serde_json::to_vec_pretty(&value).unwrap_or_default();
    match read(&pretty) {
        Ok((same, same_dry_run)) => {
            assert_eq!((same.fingerprint, same_dry_run), (draft.fingerprint, dry_run));
            assert_eq!(same.payload, draft.payload);
        }
        Err(problem) => panic!("refused when it is written again: {problem:?}"),
    }
}

pub(super) fn refusal(problem: &Problem) {
    assert!(problem.code.status().is_client_error(), "{problem:?}");
    is_told(&problem.message);
    assert!(problem.details.len() <= PROBLEMS_MAX, "{} problems", problem.details.len());
    for detail in &problem.details {
        let field = detail.field.as_str();
        assert!(field.starts_with('/') || field.is_empty(), "a place that is none: {field}");
        is_told(&detail.problem);
        let given = detail.given.as_ref().map_or(0, |given| given.to_string().len());
        assert!(given < 4_096, "{given} bytes of what was given are said again");
    }
}

/// What the schema cannot say: how much there is of a payload, how long a text is in bytes, and that two spellings of one
/// field contradict each other.
const BEYOND_SCHEMA: [&str; 4] =
    ["bytes long", "nested deeper", "must not hold more", "another name of"];
/// Nor does it know that beyond this not every whole number is one in 64 bits.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

static SCHEMAS: LazyLock<Mutex<HashMap<String, Validator>>> = LazyLock::new(Mutex::default);

fn fits_schema(method: &Method, payload: &Value) -> bool {
    let mut schemas = SCHEMAS.lock().unwrap_or_else(PoisonError::into_inner);
    let schema = schemas.entry(method.name.clone()).or_insert_with(|| {
        jsonschema::validator_for(&method.payload_schema())
            .unwrap_or_else(|err| panic!("{}: {err}", method.name))
    });
    schema.is_valid(payload)
}

/// Checks a payload, and holds the check against the JSON Schema that the catalogue publishes.
pub fn payload(input: &[u8]) {
    let (name, text) = first_line(input);
    let Some(method) = CATALOGUE.method(&String::from_utf8_lossy(name)) else { return };
    let Ok(given) = serde_json::from_slice::<Value>(text) else { return };
    let masked = method.mask(&given);
    assert_eq!(masked.is_object(), given.is_object());
    match method.check(&given) {
        Ok(checked) => {
            assert!(fits_schema(method, &checked.payload), "the schema refuses what would be sent");
            let again = method.check(&checked.payload).map(|again| again.payload);
            assert_eq!(again.as_ref(), Ok(&checked.payload), "a second check changes nothing");
            let (depth, values) = extent(&checked.payload);
            assert!(depth <= 2 * DEPTH_MAX && values <= 2 * VALUES_MAX);
            for hint in checked.hints {
                is_told(&hint.hint);
            }
        }
        Err(flaws) => {
            assert!(!flaws.is_empty() && flaws.len() < PROBLEMS_MAX);
            for flaw in &flaws {
                is_told(&flaw.problem);
                assert!(flaw.pointer.is_empty() || flaw.pointer.starts_with('/'), "{flaw}");
                assert!(flaw.given.to_string().len() < 4_096, "{flaw}");
            }
            let is_schemas = |flaw: &Flaw| {
                let is_beyond = BEYOND_SCHEMA.iter().any(|words| flaw.problem.contains(words));
                !is_beyond && flaw.given.as_f64().is_none_or(|number| number.abs() <= EXACT_MAX)
            };
            if flaws.iter().all(is_schemas) && method.accepts.is_empty() {
                assert!(
                    !fits_schema(method, &without_nulls(&given)),
                    "the schema takes what the check refuses: {}",
                    flaws.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
                );
            }
        }
    }
    let _of_anything = fingerprint(&given, &[]);
}

/// As deep as the value is, and how many there are in it.
fn extent(value: &Value) -> (usize, usize) {
    let inner: Vec<(usize, usize)> = match value {
        Value::Array(items) => items.iter().map(extent).collect(),
        Value::Object(members) => members.values().map(extent).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    let deepest = inner.iter().map(|(depth, _)| *depth).max().unwrap_or(0);
    (1 + deepest, 1 + inner.iter().map(|(_, values)| values).sum::<usize>())
}

/// Null says as much as a field left out, which a schema cannot know.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|(_, member)| !member.is_null())
            .map(|(name, member)| (name.clone(), without_nulls(member)))
            .collect(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
