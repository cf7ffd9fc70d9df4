//! Calls the API: each call signed anew, so that a repeated one is a request of its own with the same meaning.

use std::time::Duration;

use anyhow::Context;
use reqwest::{Method, Url, header::RETRY_AFTER, redirect};
use serde_json::Value;
use utmos_core::{credential::SigningKey, signing::SignedParts, time::Clock};
use utmos_server::clock::SystemClock;
use uuid::Uuid;

use super::{access::Access, signed::signed_request};

/// Longest to wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Longest to wait for an answer that the server does not hold back.
const ANSWER_WAIT: Duration = Duration::from_secs(15);

/// Calls one server with one credential.
pub struct Client {
    http: reqwest::Client,
    access: Access,
    key: SigningKey,
    clock: SystemClock,
}

/// What the server answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; null when it is no JSON.
    pub body: Value,
    /// When to come again.
    pub retry_after: Option<Duration>,
    /// Whether the server says that it knew the request already.
    pub is_replayed: bool,
}

/// No answer came.
#[derive(Debug)]
pub struct NoAnswer {
    /// Whether the request may have arrived all the same.
    pub may_have_arrived: bool,
    /// Why, in words.
    pub reason: String,
}

impl Client {
    /// Makes a client; connects at the first call.
    pub fn new(access: Access) -> anyhow::Result<Self> {
        // A second call in one process finds the provider installed, which is as good.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let url: Url = access.url.parse().with_context(|| format!("{:?} is no URL", access.url))?;
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_WAIT)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .user_agent(concat!("utmos/", env!("CARGO_PKG_VERSION")));
        if is_this_machine(&url) {
            http = http.no_proxy();
        }
        let key = access.key.signing_key();
        Ok(Self { http: http.build()?, access, key, clock: SystemClock::new() })
    }

    /// The server that is called.
    pub fn url(&self) -> &str {
        &self.access.url
    }

    /// Milliseconds of the machine's running time.
    pub fn running_millis(&self) -> u64 {
        self.clock.now().mono.as_millis()
    }

    /// Calls `path_and_query`, with a body or without. The server may hold its answer back for `held`.
    pub async fn call(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<&Value>,
        held: Duration,
    ) -> Result<Answer, NoAnswer> {
        let refuse = |reason: String| NoAnswer { may_have_arrived: false, reason };
        let url = format!("{}{path_and_query}", self.access.url);
        let url: Url = url.parse().map_err(|err| refuse(format!("{url:?} is no URL: {err}")))?;
        let bytes = body.map(Value::to_string).unwrap_or_default().into_bytes();
        let parts = SignedParts {
            method: method.as_str(),
            path: url.path(),
            query: url.query(),
            body: &bytes,
        };
        let timestamp = self.clock.now().wall.as_millis().div_euclid(1000);
        let nonce = Uuid::new_v4().simple().to_string();
        let signed = signed_request(parts, &self.access.api_id, &self.key, timestamp, &nonce);

        let mut request = self.http.request(method, url.clone()).timeout(held + ANSWER_WAIT);
        for (name, value) in signed.headers {
            request = request.header(name, value);
        }
        if body.is_some() {
            request = request.header("Content-Type", "application/json").body(bytes);
        }
        let response = request.send().await.map_err(|err| no_answer(&err))?;
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok().map(str::to_owned))
        };
        let retry_after = header(RETRY_AFTER.as_str())
            .and_then(|text| text.parse().ok())
            .map(Duration::from_secs);
        let is_replayed = header("Idempotency-Replayed").is_some_and(|text| text == "true");
        let status = response.status().as_u16();
        let bytes = response.bytes().await.map_err(|err| no_answer(&err))?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Answer { status, body, retry_after, is_replayed })
    }
}

fn no_answer(err: &reqwest::Error) -> NoAnswer {
    let mut reason = err.to_string();
    let mut source = std::error::Error::source(err);
    while let Some(cause) = source {
        reason = format!("{reason}: {cause}");
        source = cause.source();
    }
    NoAnswer { may_have_arrived: !err.is_connect() && !err.is_builder(), reason }
}

/// A proxy from the environment is not meant for this machine.
fn is_this_machine(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn this_machine_is_known_by_its_names() {
        for (url, expected) in [
            ("http://127.0.0.1:1", true),
            ("http://localhost/", true),
            ("http://[::1]:8", true),
            ("http://10.0.0.1", false),
            ("https://utmos.example", false),
        ] {
            assert_eq!(is_this_machine(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
