//! The published vectors, which an implementation in another language has computed.

use serde_json::Value;

use super::*;

fn vectors() -> Vec<Value> {
    let all: Value = serde_json::from_str(VECTORS).unwrap();
    assert_eq!(all["scheme"], SCHEME);
    all["vectors"].as_array().unwrap().clone()
}

fn body_of(vector: &Value) -> Vec<u8> {
    match vector["body_base64"].as_str() {
        Some(text) => from_base64(text),
        None => vector["body"].as_str().unwrap().as_bytes().to_vec(),
    }
}

/// RFC 4648, enough for a test.
fn from_base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = 0_u32;
    let mut count = 0;
    let mut out = Vec::new();
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let digit = alphabet.iter().position(|it| *it == byte).unwrap();
        bits = (bits << 6) | u32::try_from(digit).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from((bits >> count) & 0xff).unwrap());
        }
    }
    out
}

#[test]
fn published_vectors_agree_with_string_and_signature() {
    for vector in vectors() {
        let text = |name: &str| vector[name].as_str().unwrap();
        let body = body_of(&vector);
        let parts = SignedParts {
            method: text("method"),
            path: text("path"),
            query: vector["query"].as_str(),
            body: &body,
        };
        let api_id = ApiId::new(text("api_id"));
        let timestamp = vector["timestamp"].as_i64().unwrap();
        let string = string_to_sign(parts, &api_id, timestamp, text("nonce"));
        assert_eq!(string, text("string_to_sign"), "{}", text("name"));
        let key = SigningKey::new(text("key").as_bytes());
        let signature = sign(&key, parts, &api_id, timestamp, text("nonce"));
        assert_eq!(signature, text("signature"), "{}", text("name"));
    }
}

#[test]
fn published_vectors_are_many_and_named_once() {
    let all = vectors();
    let names: BTreeSet<&str> = all.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert!(names.len() >= 14 && names.len() == all.len());
}
