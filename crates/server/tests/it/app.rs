//! A server of its own for each test, and a client that signs.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use utmos_core::{
    credential::{
        CLOCK_SKEW_DEFAULT, Credential, CredentialSecret, CredentialStatus, Permission,
        REPLAY_WINDOW_DEFAULT, Role, Secret, SigningKey,
    },
    device::{Device, DeviceKind},
    id::{ApiId, DeviceSn, TenantId},
    method::CompleteOn,
    ports::{By, DeviceOrder, FleetStore, Ordered, RegistryStore, Tenant},
    signing::{self, SignedParts},
    time::{Clock, Timestamp},
};
use utmos_dji::catalogue::Catalogue;
use utmos_server::{
    Parts, Server,
    clock::SystemClock,
    config::{Config, Layers},
    directory::mqtt_secret_hash,
    ids::SystemIds,
};
use utmos_store::{HistoryFile, JournalledStore, MasterKey, SqliteConfig, SqliteStore};
use uuid::Uuid;

use crate::{
    dock::PretendDock, fleet_unwell::UnwellFleet, history_unwell::UnwellHistory,
    requests_unwell::UnwellRequests, unwell::Unwell,
};

/// Longest a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Password of every gateway in tests.
pub const PASSWORD: &str = "a-password-for-tests";

pub struct TestApp {
    pub server: Server,
    pub store: Arc<SqliteStore>,
    /// Stands before the store and can be made slow.
    pub unwell: Arc<Unwell>,
    /// Where telemetry is kept.
    pub history: Arc<HistoryFile>,
    /// The same before that.
    pub unwell_history: Arc<UnwellHistory>,
    /// The same before the store of device requests.
    pub unwell_requests: Arc<UnwellRequests>,
    /// The same before the store of the fleet.
    pub unwell_fleet: Arc<UnwellFleet>,
    pub http: SocketAddr,
    pub mqtt: SocketAddr,
    /// A credential of the first tenant that may do everything.
    pub api: Api,
    folder: TempDir,
    master_key: MasterKey,
    settings: Settings,
}

/// Assignments over the defaults, such as `http.body_read_seconds=1`.
pub type Settings = &'static [&'static str];

impl TestApp {
    /// A server with one tenant and docks `DOCK-1` and `DOCK-2`, which are not connected.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with other settings.
    pub async fn start_with(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let master_key = MasterKey::generate().unwrap();
        let store = open(&folder, &master_key);
        let tenant = put_tenant(&*store, "first").await;
        for sn in ["DOCK-1", "DOCK-2"] {
            put_gateway(&*store, tenant, sn).await;
        }
        let credential = put_credential(&*store, tenant, Role::TenantAdmin.permissions()).await;
        Self::start_on(folder, master_key, store, credential, settings).await
    }

    async fn start_on(
        folder: TempDir,
        master_key: MasterKey,
        store: Arc<SqliteStore>,
        given: Given,
        settings: Settings,
    ) -> Self {
        let journal = folder.path().join("emergency.journal");
        let unwell = Arc::new(Unwell::new(store.clone()));
        let unwell_requests = Arc::new(UnwellRequests::new(store.clone()));
        let unwell_fleet = Arc::new(UnwellFleet::new(store.clone()));
        let journalled =
            Arc::new(JournalledStore::open(unwell.clone(), &master_key, &journal).unwrap());
        journalled.settle().await.unwrap();
        let history = Arc::new(HistoryFile::open(&folder.path().join("history.sqlite")).unwrap());
        let unwell_history = Arc::new(UnwellHistory::new(history.clone()));
        let parts = Parts {
            store: journalled,
            on_record: None,
            requests: unwell_requests.clone(),
            fleet: unwell_fleet.clone(),
            history: unwell_history.clone(),
            sharing: None,
            clock: Arc::new(SystemClock::new()),
            ids: Arc::new(SystemIds::new()),
            catalogue: Arc::new(Catalogue::embedded().unwrap()),
        };
        let server = start_server(parts, settings).await;
        let (http, mqtt) = (server.http_addr(), server.mqtt_addr().unwrap());
        let api = Api::new(http, given);
        Self {
            server,
            store,
            unwell,
            unwell_requests,
            unwell_fleet,
            unwell_history,
            history,
            http,
            mqtt,
            api,
            folder,
            master_key,
            settings,
        }
    }

    /// Stops the server in good order and starts another on the same data.
    pub async fn restart(self) -> Self {
        let given = self.api.given.clone();
        self.server.stop().await;
        self.history.close().await;
        self.store.close().await;
        let store = open(&self.folder, &self.master_key);
        Self::start_on(self.folder, self.master_key, store, given, self.settings).await
    }

    /// What a server finds that starts after this one was killed now: its files as they are, unclosed.
    pub async fn as_if_killed(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The database before its log: what moves from the log into it meanwhile is then in both.
        for name in ["utmos.sqlite", "utmos.sqlite-wal", "emergency.journal"] {
            std::fs::copy(self.folder.path().join(name), folder.path().join(name)).unwrap();
        }
        for name in ["history.sqlite", "history.sqlite-wal"] {
            drop(std::fs::copy(self.folder.path().join(name), folder.path().join(name)));
        }
        let store = open(&folder, &self.master_key);
        let (key, given) = (self.master_key.clone(), self.api.given.clone());
        Self::start_on(folder, key, store, given, self.settings).await
    }

    /// A figure of the metrics, as it is written there.
    pub async fn metric(&self, name: &str) -> String {
        let text = Api::answer(self.api.bare(Method::GET, "/metrics")).await.body;
        let text = text.as_str().unwrap().to_owned();
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name}")).rsplit(' ').next().unwrap().to_owned()
    }

    /// Where the server keeps its files.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// A dock that is connected and listens, and does what `script` says.
    pub async fn dock(&self, sn: &str) -> PretendDock {
        PretendDock::connect(self.mqtt, sn).await
    }

    /// Another tenant with a gateway and a credential of its own.
    pub async fn other_tenant(&self, name: &str, gateway: &str) -> Api {
        let tenant = put_tenant(&*self.store, name).await;
        put_gateway(&*self.store, tenant, gateway).await;
        let given = put_credential(&*self.store, tenant, Role::TenantAdmin.permissions()).await;
        let api = Api::new(self.http, given);
        api.until_known().await;
        api
    }

    /// Another credential of the first tenant.
    pub async fn credential(&self, change: impl FnOnce(&mut Credential)) -> Api {
        let api = self.put_credential(change).await;
        api.until_known().await;
        api
    }

    /// The same without waiting until the server knows it. It knows all that were put before one it knows.
    pub async fn put_credential(&self, change: impl FnOnce(&mut Credential)) -> Api {
        let tenant = self.api.given.tenant;
        let (mut credential, given) = new_credential(tenant, Role::TenantAdmin.permissions());
        change(&mut credential);
        let given = Given { api_id: credential.api_id.clone(), ..given };
        self.store.put_credential(credential).await.unwrap();
        Api { given, ..self.api.clone() }
    }
}

fn open(folder: &TempDir, master_key: &MasterKey) -> Arc<SqliteStore> {
    let path: PathBuf = folder.path().join("utmos.sqlite");
    Arc::new(SqliteStore::open(SqliteConfig { path, master_key: master_key.clone() }).unwrap())
}

async fn start_server(parts: Parts, settings: Settings) -> Server {
    let _ = tracing_subscriber::fmt()
        .with_test_writer()
        .with_max_level(tracing::Level::WARN)
        .try_init();
    let own = ["http.listen=127.0.0.1:0", "mqtt.embedded.listen=127.0.0.1:0"];
    let layers = Layers::new().assignments("--set", own.iter().chain(settings).copied());
    let config = Config::load(layers).unwrap().config;
    Server::start(&config, parts).await.unwrap()
}

pub async fn put_tenant(store: &dyn RegistryStore, name: &str) -> TenantId {
    let id = TenantId::new(Uuid::new_v4());
    let tenant = Tenant { id, name: name.to_owned(), created_at: Timestamp::from_millis(0) };
    store.put_tenant(tenant).await.unwrap();
    id
}

pub async fn put_gateway(store: &dyn FleetStore, tenant: TenantId, sn: &str) {
    put_dock(store, tenant, sn, true).await;
}

/// The same, simulated or real.
pub async fn put_dock(store: &dyn FleetStore, tenant: TenantId, sn: &str, simulated: bool) {
    let sn = DeviceSn::parse(sn).unwrap();
    let mqtt_secret_hash = Some(mqtt_secret_hash(&sn, PASSWORD.as_bytes()));
    let device = Device {
        sn,
        tenant,
        kind: DeviceKind::Dock,
        model_key: Some("3-2-0".to_owned()),
        label: String::new(),
        tags: BTreeSet::new(),
        simulated,
        mqtt_secret_hash,
        created_at: Timestamp::from_millis(0),
    };
    let ordered = order(store, DeviceOrder::Register(device)).await;
    assert!(matches!(ordered, Ordered::Done(_)), "{ordered:?}");
}

/// Changes a device past the server.
pub async fn order(store: &dyn FleetStore, order: DeviceOrder) -> Ordered {
    let by = By { who: "test".to_owned(), at: Timestamp::from_millis(0) };
    store.order(order, by).await.unwrap()
}

/// What a caller holds of a credential.
#[derive(Clone)]
pub struct Given {
    pub tenant: TenantId,
    pub api_id: ApiId,
    pub key: SigningKey,
}

pub fn new_credential(tenant: TenantId, permissions: BTreeSet<Permission>) -> (Credential, Given) {
    let api_id = ApiId::new(format!("utk_{}", Uuid::new_v4().simple()));
    let secret = Secret::new(Uuid::new_v4().to_string());
    let given = Given { tenant, api_id: api_id.clone(), key: secret.signing_key() };
    let credential = Credential {
        api_id,
        tenant,
        name: "test".to_owned(),
        status: CredentialStatus::Active,
        permissions,
        allowed_clock_skew: CLOCK_SKEW_DEFAULT,
        replay_window: REPLAY_WINDOW_DEFAULT,
        expires_at: None,
        ip_allow: Vec::new(),
        devices: None,
        complete_on: CompleteOn::Outcome,
        secrets: vec![CredentialSecret { secret, valid_until: None }],
        created_at: Timestamp::from_millis(0),
    };
    (credential, given)
}

async fn put_credential(
    store: &dyn RegistryStore,
    tenant: TenantId,
    permissions: BTreeSet<Permission>,
) -> Given {
    let (credential, given) = new_credential(tenant, permissions);
    store.put_credential(credential).await.unwrap();
    given
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
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

/// The server's clock, which is ours.
pub fn unix_seconds() -> i64 {
    SystemClock::new().now().wall.as_millis() / 1000
}

pub fn with_headers(
    request: reqwest::RequestBuilder,
    headers: &[(&'static str, String)],
) -> reqwest::RequestBuilder {
    headers.iter().fold(request, |request, (name, value)| request.header(*name, value))
}

/// A client that signs.
#[derive(Clone)]
pub struct Api {
    pub given: Given,
    http: SocketAddr,
    client: reqwest::Client,
}

pub const COMMANDS: &str = "/api/v1/open/downlink/commands";

impl Api {
    pub fn new(http: SocketAddr, given: Given) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE * 3).build().unwrap();
        Self { given, http, client }
    }

    /// Sends a signed request.
    pub async fn request(&self, method: Method, target: &str, body: Option<&[u8]>) -> Answer {
        let nonce = Uuid::new_v4().to_string();
        self.request_with(method, target, body, &nonce, unix_seconds()).await
    }

    pub async fn request_with(
        &self,
        method: Method,
        target: &str,
        body: Option<&[u8]>,
        nonce: &str,
        timestamp: i64,
    ) -> Answer {
        let headers = self.headers(method.as_str(), target, body.unwrap_or(b""), nonce, timestamp);
        let mut request = with_headers(self.bare(method, target), &headers);
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body.to_vec());
        }
        Self::answer(request).await
    }

    /// The four headers that sign a request.
    pub fn headers(
        &self,
        method: &str,
        target: &str,
        body: &[u8],
        nonce: &str,
        timestamp: i64,
    ) -> [(&'static str, String); 4] {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let parts = SignedParts { method, path, query, body };
        let signature = signing::sign(&self.given.key, parts, &self.given.api_id, timestamp, nonce);
        let [id, time, once, sign] = signing::HEADERS;
        [
            (id, self.given.api_id.to_string()),
            (time, timestamp.to_string()),
            (once, nonce.to_owned()),
            (sign, signature),
        ]
    }

    /// The same with a fresh nonce and the present time.
    pub fn fresh_headers(
        &self,
        method: &str,
        target: &str,
        body: &[u8],
    ) -> [(&'static str, String); 4] {
        self.headers(method, target, body, &Uuid::new_v4().to_string(), unix_seconds())
    }

    /// Sends a request as it is.
    pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer { status, headers, body }
    }

    pub fn bare(&self, method: Method, target: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("http://{}{target}", self.http))
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.request(Method::GET, target, None).await
    }

    pub async fn post(&self, target: &str, body: &Value) -> Answer {
        self.request(Method::POST, target, Some(body.to_string().as_bytes())).await
    }

    /// Creates a command, with `more` over the usual members.
    pub async fn create(&self, device: &str, method: &str, payload: Value, more: Value) -> Answer {
        let mut body = json!({
            "vendor": "dji", "device_id": device, "command_type": method, "payload": payload,
            "idempotency_key": Uuid::new_v4().to_string(),
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        self.post(COMMANDS, &body).await
    }

    /// The command once it has ended.
    pub async fn ended(&self, id: &str) -> Value {
        let answer = self.get(&format!("{COMMANDS}/{id}?wait=30")).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert!(
            !answer.body["completed_at"].is_null(),
            "the command did not end: {:#}",
            answer.body
        );
        answer.body
    }

    /// The command as soon as `holds` is true of it. A command that has ended is not waited for by the server, and what
    /// comes late is kept beside the way in, so then it is asked again and again.
    pub async fn until(&self, id: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let asking = async {
            let mut version = 0;
            loop {
                let answer =
                    self.get(&format!("{COMMANDS}/{id}?wait=30&after_version={version}")).await;
                assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
                if holds(&answer.body) {
                    return answer.body;
                }
                version = answer.body["status_version"].as_u64().unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.expect("it never came to that")
    }

    /// The causes on the command's timeline.
    pub async fn causes(&self, id: &str) -> Vec<String> {
        let answer = self.get(&format!("{COMMANDS}/{id}/timeline")).await;
        let items = answer.body["items"].as_array().unwrap();
        items.iter().map(|item| item["cause"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until the server follows a credential that was added to the store.
    async fn until_known(&self) {
        tokio::time::timeout(PATIENCE, async {
            while self.get(COMMANDS).await.status == StatusCode::UNAUTHORIZED {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
}
