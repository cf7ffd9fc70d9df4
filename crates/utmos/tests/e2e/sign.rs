//! `utmos sign`, against the published vectors.

use serde_json::Value;

use crate::shell::Shell;

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../core/data/signing_vectors.json");

#[test]
fn every_published_vector_is_signed_as_published() {
    let text = std::fs::read_to_string(VECTORS).unwrap();
    let published: Value = serde_json::from_str(&text).unwrap();
    let vectors = published["vectors"].as_array().unwrap();
    assert!(vectors.len() >= 12);
    for vector in vectors {
        let text = |name: &str| vector[name].as_str().unwrap_or_default().to_owned();
        let shell =
            Shell::new().set("UTMOS_API_KEY", text("key")).set("UTMOS_API_ID", text("api_id"));
        let body = if vector["body"].is_string() {
            text("body").into_bytes()
        } else {
            from_base64(&text("body_base64"))
        };
        shell.write("body", body);
        let query = vector["query"].as_str().map(|query| format!("?{query}")).unwrap_or_default();
        let url = format!("https://utmos.example{}{query}", text("path"));
        let timestamp = vector["timestamp"].to_string();
        let nonce = format!("--nonce={}", text("nonce"));
        let printed = shell.ok([
            "sign",
            &text("method"),
            &url,
            "--body",
            "@body",
            "--timestamp",
            &timestamp,
            &nonce,
        ]);
        let lines: Vec<&str> = printed.split('\n').collect();
        let (string_to_sign, headers) = (lines[..8].join("\n"), lines[9..].join("\n"));
        assert_eq!(lines[8], "");
        let name = text("name");
        assert_eq!(string_to_sign, text("string_to_sign"), "{name}");
        let expected = format!(
            "X-Api-Id: {}\nX-Api-Timestamp: {timestamp}\nX-Api-Nonce: {}\nX-Api-Signature: {}\n",
            text("api_id"),
            text("nonce"),
            text("signature"),
        );
        assert_eq!(headers, expected, "{name}");
        assert!(!printed.contains(&text("key")), "{name}");
    }
}

#[test]
fn two_signatures_of_one_request_have_two_nonces() {
    let shell = Shell::new().set("UTMOS_API_KEY", "k").set("UTMOS_API_ID", "utk_x");
    let headers = || shell.ok(["sign", "GET", "/api/v1/open/downlink/commands", "--headers"]);
    assert_ne!(headers(), headers());
    assert_eq!(headers().lines().count(), 4);
}

#[test]
fn a_key_is_never_an_argument_and_never_guessed() {
    let shell = Shell::new();
    let help = shell.ok(["sign", "--help"]);
    assert!(!help.contains("--api-key"));
    let run = shell.run(["sign", "GET", "/x", "--api-id", "utk_x"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("UTMOS_API_KEY"), "{}", run.err);
}

fn from_base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut held, mut bits) = (0_u32, 0);
    for digit in text.bytes().filter(|digit| *digit != b'=') {
        let value = DIGITS.iter().position(|known| *known == digit).unwrap();
        held = held << 6 | u32::try_from(value).unwrap();
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).unwrap());
        }
    }
    bytes
}
