//! What a signature covers, who is let in, and what a refusal gives away.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod properties;
mod vectors;

use uuid::Uuid;

use super::*;
use crate::credential::{CredentialSecret, IpRange, REPLAY_WINDOW_DEFAULT, Secret};

const NOW: i64 = 1_767_225_600;
const KEY: &str = "current-key";
const OLD_KEY: &str = "old-key";
const REQUEST: SignedParts<'_> = SignedParts {
    method: "POST",
    path: "/api/v1/open/downlink/commands",
    query: Some("b=2&a=1"),
    body: br#"{"vendor":"dji"}"#,
};

fn seconds(unix: i64) -> Timestamp {
    Timestamp::from_millis(unix * 1000)
}

fn secret(text: &str, valid_until: Option<i64>) -> CredentialSecret {
    CredentialSecret { secret: Secret::new(text.to_owned()), valid_until: valid_until.map(seconds) }
}

fn credential() -> Credential {
    Credential {
        api_id: ApiId::new("ak_test"),
        tenant: TenantId::new(Uuid::from_u128(1)),
        name: "test".to_owned(),
        status: CredentialStatus::Active,
        permissions: BTreeSet::from([Permission::CommandCreate]),
        allowed_clock_skew: CLOCK_SKEW_DEFAULT,
        replay_window: REPLAY_WINDOW_DEFAULT,
        expires_at: None,
        ip_allow: Vec::new(),
        devices: None,
        complete_on: CompleteOn::Outcome,
        secrets: vec![secret(KEY, None)],
        created_at: seconds(0),
    }
}

fn head_at(timestamp: i64, key: &str) -> SignedHead {
    let api_id = ApiId::new("ak_test");
    let signature = sign(&SigningKey::new(key.as_bytes()), REQUEST, &api_id, timestamp, "nonce-1");
    let signature = <[u8; 32]>::try_from(hex::decode(signature).unwrap()).unwrap();
    SignedHead { api_id, timestamp, nonce: "nonce-1".to_owned(), signature }
}

fn ask(credential: Option<&Credential>, head: &SignedHead, now: i64) -> Result<Caller, Refusal> {
    ask_from(credential, head, now, None)
}

fn ask_from(
    credential: Option<&Credential>,
    head: &SignedHead,
    now: i64,
    peer: Option<&str>,
) -> Result<Caller, Refusal> {
    let keyed = credential.cloned().map(KeyedCredential::new);
    let peer = peer.map(|peer| peer.parse().unwrap());
    verify(keyed.as_ref(), head, REQUEST, "req-1", peer, seconds(now))
}

fn refusal(result: Result<Caller, Refusal>) -> Refusal {
    result.err().unwrap()
}

#[test]
fn a_good_signature_lets_in_with_what_the_credential_holds() {
    let device = DeviceSn::parse("DOCK1").unwrap();
    let known = Credential {
        devices: Some(BTreeSet::from([device.clone()])),
        complete_on: CompleteOn::Reply,
        ..credential()
    };
    let caller = ask(Some(&known), &head_at(NOW, KEY), NOW).unwrap();
    assert_eq!((caller.tenant(), caller.request_id()), (known.tenant, "req-1"));
    assert_eq!((caller.api_id(), caller.complete_on()), (&known.api_id, CompleteOn::Reply));
    assert!(caller.may(Permission::CommandCreate) && !caller.may(Permission::CommandRead));
    assert!(caller.may_touch(&device) && !caller.may_touch(&DeviceSn::parse("DOCK2").unwrap()));
    assert_eq!(caller.devices().map(BTreeSet::len), Some(1));
    let unlimited = ask(Some(&credential()), &head_at(NOW, KEY), NOW).unwrap();
    assert!(unlimited.may_touch(&device));
}

#[test]
fn a_timestamp_may_be_off_by_the_skew_either_way_and_not_by_more() {
    let head = head_at(NOW, KEY);
    for now in [NOW - 300, NOW, NOW + 300] {
        assert!(ask(Some(&credential()), &head, now).is_ok(), "{now}");
    }
    for now in [NOW - 301, NOW + 301] {
        let wanted = Refusal::TimestampExpired { off_by: 301, allowed: 300, server_time: now };
        assert_eq!(refusal(ask(Some(&credential()), &head, now)), wanted);
    }
    let keyed = KeyedCredential::new(credential());
    let just_after = Timestamp::from_millis((NOW + 300) * 1000 + 1);
    assert!(verify(Some(&keyed), &head, REQUEST, "req-1", None, just_after).is_err());
}

#[test]
fn a_credentials_own_skew_counts_for_who_holds_its_key() {
    let head = head_at(NOW, KEY);
    let narrow = Credential { allowed_clock_skew: Duration::from_secs(10), ..credential() };
    let wanted = Refusal::TimestampExpired { off_by: 11, allowed: 10, server_time: NOW + 11 };
    assert_eq!(refusal(ask(Some(&narrow), &head, NOW + 11)), wanted);
    let wide = Credential { allowed_clock_skew: Duration::from_secs(900), ..credential() };
    assert!(ask(Some(&wide), &head, NOW + 900).is_ok());
}

#[test]
fn an_absurd_skew_or_timestamp_is_no_panic() {
    let endless = Credential { allowed_clock_skew: Duration::MAX, ..credential() };
    assert!(ask(Some(&endless), &head_at(NOW, KEY), NOW).is_ok());
    for timestamp in [i64::MIN, -1, 0, i64::MAX] {
        let refused = refusal(ask(Some(&credential()), &head_at(timestamp, KEY), NOW));
        assert!(matches!(refused, Refusal::TimestampExpired { .. }), "{timestamp}");
    }
}

#[test]
fn a_wrong_signature_is_answered_with_the_string_the_server_built_and_no_key() {
    let refused = refusal(ask(Some(&credential()), &head_at(NOW, "wrong"), NOW));
    let text = string_to_sign(REQUEST, &ApiId::new("ak_test"), NOW, "nonce-1");
    assert!(!text.contains(KEY) && !refused.to_string().contains(KEY));
    assert_eq!(refused, Refusal::SignatureInvalid { string_to_sign: text });
}

#[test]
fn an_unknown_id_and_a_wrong_signature_give_the_same_refusal_whatever_the_credential() {
    let head = head_at(NOW, "wrong");
    let skewed =
        |skew| Credential { allowed_clock_skew: Duration::from_secs(skew), ..credential() };
    let known = [
        credential(),
        skewed(1),
        skewed(100_000),
        Credential { status: CredentialStatus::Disabled, ..credential() },
        Credential { status: CredentialStatus::Deleted, ..credential() },
        Credential { expires_at: Some(seconds(NOW - 1)), ..credential() },
        Credential { ip_allow: vec![IpRange::parse("10.0.0.1").unwrap()], ..credential() },
        Credential { secrets: vec![secret(OLD_KEY, Some(NOW - 10_000))], ..credential() },
        Credential { secrets: Vec::new(), ..credential() },
    ];
    for now in [NOW, NOW + 2, NOW - 200, NOW + 301, NOW + 50_000, NOW + 200_000] {
        let unknown = refusal(ask(None, &head, now));
        for known in &known {
            assert_eq!(refusal(ask(Some(known), &head, now)), unknown, "{known:?} at {now}");
        }
    }
}

#[test]
fn refusals_come_in_the_order_timestamp_signature_status_expiry_address() {
    let mut known = Credential {
        status: CredentialStatus::Disabled,
        expires_at: Some(seconds(NOW)),
        ip_allow: vec![IpRange::parse("10.0.0.0/8").unwrap()],
        ..credential()
    };
    let told = |known: &Credential, key, now| match refusal(ask_from(
        Some(known),
        &head_at(NOW, key),
        now,
        Some("192.168.1.1"),
    )) {
        Refusal::TimestampExpired { .. } => "timestamp",
        Refusal::SignatureInvalid { .. } => "signature",
        Refusal::NotAllowed(why) => why,
    };
    assert_eq!(told(&known, "wrong", NOW + 301), "timestamp");
    assert_eq!(told(&known, KEY, NOW + 301), "timestamp");
    assert_eq!(told(&known, "wrong", NOW), "signature");
    assert!(told(&known, KEY, NOW).contains("disabled"));
    known.status = CredentialStatus::Active;
    assert!(told(&known, KEY, NOW).contains("expired"));
    known.expires_at = Some(seconds(NOW + 1));
    assert!(told(&known, KEY, NOW).contains("address"));
    assert!(ask_from(Some(&known), &head_at(NOW, KEY), NOW, Some("10.1.2.3")).is_ok());
}

#[test]
fn an_address_list_refuses_others_and_those_whose_address_is_unknown() {
    let ranges = ["10.0.0.0/8", "2001:db8::/32"].map(|range| IpRange::parse(range).unwrap());
    let known = Credential { ip_allow: ranges.to_vec(), ..credential() };
    let head = head_at(NOW, KEY);
    for peer in ["10.9.9.9", "::ffff:10.9.9.9", "2001:db8::7"] {
        assert!(ask_from(Some(&known), &head, NOW, Some(peer)).is_ok(), "{peer}");
    }
    for peer in [Some("11.0.0.1"), Some("2001:db9::7"), None] {
        let refused = refusal(ask_from(Some(&known), &head, NOW, peer));
        assert!(matches!(refused, Refusal::NotAllowed(_)), "{peer:?}");
    }
}

#[test]
fn a_disabled_or_deleted_credential_is_refused_with_the_right_key() {
    for status in [CredentialStatus::Disabled, CredentialStatus::Deleted] {
        let known = Credential { status, ..credential() };
        let refused = refusal(ask(Some(&known), &head_at(NOW, KEY), NOW));
        assert!(matches!(refused, Refusal::NotAllowed(_)), "{status:?}");
    }
}

#[test]
fn during_a_rotation_both_keys_sign_and_afterwards_only_the_new_one() {
    let known = Credential {
        secrets: vec![secret(KEY, None), secret(OLD_KEY, Some(NOW + 60))],
        ..credential()
    };
    let works = |key, now| ask(Some(&known), &head_at(NOW, key), now).is_ok();
    assert!(works(KEY, NOW) && works(OLD_KEY, NOW) && works(OLD_KEY, NOW + 59));
    assert!(works(KEY, NOW + 60) && !works(OLD_KEY, NOW + 60));
    assert!(!works("wrong", NOW));
}

#[test]
fn a_nonce_is_remembered_longer_than_its_request_could_be_taken() {
    let nonce =
        |known: &Credential, now| ask(Some(known), &head_at(NOW, KEY), now).unwrap().nonce();
    // The request of a clock that is ahead by the whole skew can be taken longest.
    let used = nonce(&credential(), NOW - 300);
    assert!(used.expires_at >= seconds(NOW + 300).plus(NONCE_MARGIN));
    assert!(ask(Some(&credential()), &head_at(NOW, KEY), NOW + 301).is_err());
    let long = Credential { replay_window: Duration::from_secs(86_400), ..credential() };
    assert_eq!(nonce(&long, NOW).expires_at, seconds(NOW + 86_400));
    assert_eq!(nonce(&long, NOW).key, used.key);
}

#[test]
fn nonces_of_different_credentials_or_texts_never_meet() {
    let key = |id: &str, nonce: &str| nonce_key(&ApiId::new(id), nonce);
    assert_ne!(key("ak_a", "1"), key("ak_b", "1"));
    assert_ne!(key("ak_a", "1"), key("ak_a", "2"));
    assert_ne!(key("ak_a", "b1"), key("ak_ab", "1"));
}

#[test]
fn the_string_to_sign_has_eight_lines() {
    let text = string_to_sign(REQUEST, &ApiId::new("ak_test"), NOW, "nonce-1");
    let body = hex::encode(Sha256::digest(REQUEST.body));
    let lines: Vec<&str> = text.split('\n').collect();
    assert_eq!(
        lines,
        [SCHEME, "POST", REQUEST.path, "a=1&b=2", "ak_test", "1767225600", "nonce-1", &body]
    );
}

#[test]
fn the_canonical_query_sorts_pairs_as_they_are_spelt() {
    for (query, canonical) in [
        ("", ""),
        ("&", ""),
        ("a=1", "a=1"),
        ("b=2&a=1", "a=1&b=2"),
        ("a=2&a=1&a=", "a=&a=1&a=2"),
        ("a-b=1&a=2", "a=2&a-b=1"),
        ("a&a=", "a&a="),
        ("b&a=", "a=&b"),
        ("&b=2&&a=1&", "a=1&b=2"),
        ("a=c+d&a=c%20d&a=c%2Fd", "a=c%20d&a=c%2Fd&a=c+d"),
        ("q=%c3%bc&q=%C3%BC", "q=%C3%BC&q=%c3%bc"),
        ("a==&a=&=x", "=x&a=&a=="),
        ("ü=1&z=2", "z=2&ü=1"),
    ] {
        assert_eq!(canonical_query(query), canonical, "{query}");
    }
}

/// Reads headers from a list of name and value.
fn headers(list: &[(&str, &[u8])]) -> Result<SignedHead, Vec<HeaderFlaw>> {
    read_headers(|name| {
        list.iter().filter(move |(header, _)| *header == name).map(|(_, value)| *value)
    })
}

const SIGNATURE: [u8; 64] = [b'a'; 64];

fn good() -> Vec<(&'static str, &'static [u8])> {
    vec![
        ("X-Api-Id", b"ak_test"),
        ("X-Api-Timestamp", b"1767225600"),
        ("X-Api-Nonce", b"n!~\"1"),
        ("X-Api-Signature", &SIGNATURE),
    ]
}

#[test]
fn well_formed_headers_are_read() {
    let head = headers(&good()).unwrap();
    assert_eq!((head.api_id.as_str(), head.timestamp), ("ak_test", NOW));
    assert_eq!((head.nonce.as_str(), head.signature), ("n!~\"1", [0xaa; 32]));
}

#[test]
fn every_flaw_of_a_header_is_refused() {
    let long = [b'x'; 129];
    let upper = [b'A'; 64];
    let flaws: Vec<(&str, Vec<&[u8]>)> = vec![
        ("X-Api-Id", vec![b"", b"a b", b" ak", b"ak\n", "schlüssel".as_bytes(), b"\xff", &long]),
        (
            "X-Api-Timestamp",
            vec![
                b"",
                b"-1",
                b"+1",
                b"1.5",
                b" 1",
                b"1 ",
                b"1e9",
                b"01",
                b"00",
                b"0x1",
                b"now",
                b"1234567890123",
                "\u{661}".as_bytes(),
                b"\xff",
            ],
        ),
        ("X-Api-Nonce", vec![b"", b"a b", b"a\tb", b"\x7f", "é".as_bytes(), b"\xff", &long]),
        (
            "X-Api-Signature",
            vec![b"", &upper, &SIGNATURE[..63], &[b'a'; 65], &[b'g'; 64], &[0xff; 64], &[b' '; 64]],
        ),
    ];
    for (header, values) in flaws {
        for value in values {
            let mut list = good();
            list.retain(|(name, _)| *name != header);
            assert!(headers(&list).unwrap_err()[0].problem.contains("missing"));
            list.push((header, value));
            let flaws = headers(&list).unwrap_err();
            let named: Vec<&str> = flaws.iter().map(|flaw| flaw.header).collect();
            assert_eq!(named, [header], "{}", value.escape_ascii());
        }
    }
}

#[test]
fn a_header_sent_twice_is_refused_even_with_equal_values() {
    for (header, value) in good() {
        let mut list = good();
        list.push((header, value));
        let flaws = headers(&list).unwrap_err();
        assert_eq!((flaws.len(), flaws[0].header), (1, header));
        assert!(flaws[0].problem.contains("more than once"));
    }
}

#[test]
fn all_flaws_are_told_at_once() {
    let flaws = headers(&[
        ("X-Api-Timestamp", b"-5"),
        ("X-Api-Nonce", b"a"),
        ("X-Api-Nonce", b"b"),
        ("X-Api-Signature", &[b'F'; 64]),
    ])
    .unwrap_err();
    let named: Vec<&str> = flaws.iter().map(|flaw| flaw.header).collect();
    assert_eq!(named, HEADERS);
    assert_eq!(headers(&[]).unwrap_err().len(), 4);
}

#[test]
fn the_longest_id_and_nonce_are_taken_and_the_time_zero() {
    let longest = [b'x'; 128];
    let mut list = good();
    list[0].1 = &longest;
    list[1].1 = b"0";
    list[2].1 = &longest;
    let head = headers(&list).unwrap();
    assert_eq!((head.api_id.as_str().len(), head.timestamp, head.nonce.len()), (128, 0, 128));
}
