//! A client that signs.

use std::{net::SocketAddr, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use utmos_core::{
    credential::SigningKey,
    id::{ApiId, TenantId},
    signing::{self, SignedParts},
    time::Clock,
};
use utmos_server::clock::SystemClock;
use uuid::Uuid;

/// Longest a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const COMMANDS: &str = "/api/v1/open/downlink/commands";

/// What a caller holds of a credential.
#[derive(Clone)]
pub struct Given {
    pub tenant: TenantId,
    pub api_id: ApiId,
    pub key: SigningKey,
    /// The key as it was shown once.
    pub shown: String,
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    /// Seconds.
    pub retry_after: Option<u64>,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or("")
    }

    pub fn id(&self) -> String {
        assert!(self.status.is_success(), "{self:?}");
        self.body["command_id"].as_str().unwrap().to_owned()
    }
}

#[derive(Clone)]
pub struct Api {
    pub given: Given,
    http: SocketAddr,
    client: reqwest::Client,
    /// Seconds by which the client's clock is ahead of the machine's.
    ahead: i64,
}

impl Api {
    pub fn new(http: SocketAddr, given: Given) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE * 2).build().unwrap();
        Self { given, http, client, ahead: 0 }
    }

    /// The same caller with a clock that is ahead by so many seconds.
    pub fn ahead(&self, seconds: i64) -> Self {
        Self { ahead: seconds, ..self.clone() }
    }

    /// A signed request, which may be sent as often as one likes.
    pub fn signed(
        &self,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> reqwest::RequestBuilder {
        let body = body.map(Value::to_string).unwrap_or_default();
        let timestamp = SystemClock::new().now().wall.as_millis() / 1_000 + self.ahead;
        let nonce = Uuid::new_v4().to_string();
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let parts = SignedParts { method: method.as_str(), path, query, body: body.as_bytes() };
        let signature =
            signing::sign(&self.given.key, parts, &self.given.api_id, timestamp, &nonce);
        let [id, time, once, sign] = signing::HEADERS;
        self.client
            .request(method, format!("http://{}{target}", self.http))
            .header(id, self.given.api_id.to_string())
            .header(time, timestamp.to_string())
            .header(once, nonce)
            .header(sign, signature)
            .header("Content-Type", "application/json")
            .body(body)
    }

    /// Sends a signed request; an error is a connection that was cut or refused.
    pub async fn try_request(
        &self,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> Result<Answer, reqwest::Error> {
        send(self.signed(method, target, body)).await
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.try_request(Method::GET, target, None).await.unwrap()
    }

    pub async fn post(&self, target: &str, body: &Value) -> Answer {
        self.try_request(Method::POST, target, Some(body)).await.unwrap()
    }

    /// Creates a command, with `more` over the usual members.
    pub async fn create(&self, device: &str, method: &str, payload: Value, more: Value) -> Answer {
        self.post(COMMANDS, &command(device, method, payload, more)).await
    }

    /// The command once it has ended.
    pub async fn ended(&self, id: &str) -> Value {
        self.until(id, |command| !command["completed_at"].is_null()).await
    }

    /// The command as soon as `holds` is true of it.
    pub async fn until(&self, id: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            let mut version = 0;
            loop {
                let target = format!("{COMMANDS}/{id}?wait=60&after_version={version}");
                let answer = self.get(&target).await;
                assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
                if holds(&answer.body) {
                    return answer.body;
                }
                version = answer.body["status_version"].as_u64().unwrap();
            }
        };
        match tokio::time::timeout(PATIENCE * 2, wait).await {
            Ok(command) => command,
            Err(_) => panic!("it did not come: {:#}", self.timeline(id).await),
        }
    }

    pub async fn timeline(&self, id: &str) -> Value {
        self.get(&format!("{COMMANDS}/{id}/timeline")).await.body["items"].clone()
    }

    /// The causes on the command's timeline.
    pub async fn causes(&self, id: &str) -> Vec<String> {
        let items = self.timeline(id).await;
        let items = items.as_array().unwrap();
        items.iter().map(|item| item["cause"].as_str().unwrap().to_owned()).collect()
    }

    /// Every command there is.
    pub async fn commands(&self) -> Vec<Value> {
        let mut all = Vec::new();
        let mut target = format!("{COMMANDS}?limit=500");
        loop {
            let page = self.get(&target).await;
            assert_eq!(page.status, StatusCode::OK, "{page:?}");
            all.extend(page.body["items"].as_array().unwrap().iter().cloned());
            let Some(cursor) = page.body["next_cursor"].as_str() else { return all };
            target = format!("{COMMANDS}?limit=500&cursor={cursor}");
        }
    }

    /// A figure of `/metrics`.
    pub async fn figure(&self, name: &str) -> u64 {
        let answer = self.get("/metrics").await;
        let text = answer.body.as_str().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("utmos_{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }
}

/// Sends a request as it is.
pub async fn send(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    let status = response.status();
    let retry_after = response.headers().get(reqwest::header::RETRY_AFTER);
    let retry_after = retry_after.map(|seconds| seconds.to_str().unwrap().parse().unwrap());
    let text = response.text().await?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Answer { status, retry_after, body })
}

/// The body that asks for a command.
pub fn command(device: &str, method: &str, payload: Value, more: Value) -> Value {
    let mut body = json!({
        "vendor": "dji", "device_id": device, "command_type": method, "payload": payload,
        "idempotency_key": Uuid::new_v4().to_string(),
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}
