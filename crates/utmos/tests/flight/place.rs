//! A folder with a database, a tenant, a credential and devices, on which servers are started one after another.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU16, Ordering},
    },
};

use tempfile::TempDir;
use utmos_core::{
    credential::{
        CLOCK_SKEW_DEFAULT, Credential, CredentialSecret, CredentialStatus, Permission,
        REPLAY_WINDOW_DEFAULT, Role, Secret,
    },
    device::{Device, DeviceKind, SubDevice},
    id::{ApiId, DeviceSn, TenantId},
    method::CompleteOn,
    ports::{By, DeviceOrder, FleetStore, RegistryStore, Tenant},
    time::{Clock, Timestamp},
};
use utmos_dji::catalogue::Catalogue;
use utmos_mqtt::ProtocolChoice;
use utmos_server::{
    Parts, Server,
    clock::SystemClock,
    config::{Config, Layers},
    directory::mqtt_secret_hash,
    ids::SystemIds,
};
use utmos_sim::{BrokerAddress, DockConfig, Fleet, FleetConfig, Model, ReplyTiming};
use utmos_store::{HistoryFile, JournalledStore, MasterKey, SqliteConfig, SqliteStore};
use uuid::Uuid;

use crate::api::{Api, Given, PATIENCE};

/// Password of every gateway that a test plays itself.
pub const PASSWORD: &str = "mqtt-password-of-a-dock";
/// Of simulated docks: their numbering and their dice.
pub const SEED: u64 = 20_261_123;

pub static CATALOGUE: LazyLock<Arc<Catalogue>> =
    LazyLock::new(|| Arc::new(Catalogue::embedded().unwrap()));

/// An address of this machine that no other test of any process uses, so that ports need no lottery.
pub fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let [.., process] = std::process::id().to_be_bytes();
    // 127.0.x.y is where everybody else is, and floods come from 127.1.x.y.
    Ipv4Addr::new(127, process | 0x80, high, low)
}

pub struct Place {
    folder: TempDir,
    pub address: Ipv4Addr,
    pub given: Given,
    /// More assignments over the defaults.
    pub settings: Vec<String>,
}

/// A server in this process.
pub struct Running {
    pub api: Api,
    server: Server,
    store: Arc<SqliteStore>,
}

impl Running {
    pub fn mqtt(&self) -> SocketAddr {
        self.server.mqtt_addr().unwrap()
    }

    pub async fn stop(self) {
        self.server.stop().await;
        self.store.close().await;
    }
}

impl Place {
    /// A place where no server has been, and nobody is known.
    pub fn empty() -> Self {
        Self::of_someone().0
    }

    fn of_someone() -> (Self, Credential) {
        let folder = tempfile::tempdir().unwrap();
        let (credential, given) = credential(TenantId::new(Uuid::new_v4()));
        let place = Self { folder, address: own_address(), given, settings: Vec::new() };
        (place, credential)
    }

    /// A place with a tenant and nothing else.
    pub async fn new() -> Self {
        let (place, credential) = Self::of_someone();
        let store = place.store();
        put_tenant(&store, place.given.tenant).await;
        store.put_credential(credential).await.unwrap();
        store.close().await;
        place
    }

    /// A place with these gateways, which tests play themselves.
    pub async fn with_gateways(sns: &[&str]) -> Self {
        let place = Self::new().await;
        for sn in sns {
            place.put_gateway(place.given.tenant, sn, DeviceKind::Dock, PASSWORD, &[]).await;
        }
        place
    }

    /// A place with so many simulated docks, and what their fleet is made of.
    pub async fn with_fleet(docks: u32) -> (Self, FleetConfig) {
        Self::with_models(&vec![Model::Dock2; usize::try_from(docks).unwrap()]).await
    }

    /// A place with a simulated gateway of each of these models, and what their fleet is made of.
    pub async fn with_models(models: &[Model]) -> (Self, FleetConfig) {
        let place = Self::new().await;
        let mut fleet = fleet_of(models);
        // In one spot, so that all fly equally far to the places in documented payloads.
        let home = fleet.docks[0].home;
        fleet.docks.iter_mut().for_each(|dock| dock.home = home);
        let store = place.store();
        for dock in &fleet.docks {
            let subs = [dock.aircraft_sn.as_str()];
            put_gateway(
                &store,
                place.given.tenant,
                &dock.sn,
                kind_of(dock.model),
                &dock.password,
                &subs,
            )
            .await;
        }
        store.close().await;
        (place, fleet)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// The database, for as long as no server runs on it.
    fn store(&self) -> Arc<SqliteStore> {
        std::fs::create_dir_all(self.data_dir()).unwrap();
        let (path, master_key) = (self.data_dir().join("utmos.sqlite"), self.master_key());
        Arc::new(SqliteStore::open(SqliteConfig { path, master_key }).unwrap())
    }

    fn master_key(&self) -> MasterKey {
        MasterKey::load_or_create(&self.data_dir().join("master.key")).unwrap()
    }

    pub async fn put_gateway(
        &self,
        tenant: TenantId,
        sn: &str,
        kind: DeviceKind,
        password: &str,
        aircraft: &[&str],
    ) {
        let store = self.store();
        put_gateway(&store, tenant, sn, kind, password, aircraft).await;
        store.close().await;
    }

    /// Another tenant, with a credential of its own.
    pub async fn other_tenant(&self) -> Given {
        let (credential, given) = credential(TenantId::new(Uuid::new_v4()));
        let store = self.store();
        put_tenant(&store, given.tenant).await;
        store.put_credential(credential).await.unwrap();
        store.close().await;
        given
    }

    /// What a server here is told, in this process or in one of its own.
    pub fn assignments(&self) -> Vec<String> {
        let listen = |key: &str, port: u16| format!("{key}={}:{port}", self.address);
        let mut all = vec![
            format!("data_dir={}", self.data_dir().display()),
            listen("http.listen", 8080),
            listen("mqtt.embedded.listen", 1883),
        ];
        all.extend(self.settings.iter().cloned());
        all
    }

    pub fn api(&self) -> Api {
        Api::new(SocketAddr::from((self.address, 8080)), self.given.clone())
    }

    pub async fn start(&self) -> Running {
        self.start_at(Arc::new(SystemClock::new())).await
    }

    pub async fn start_at(&self, clock: Arc<dyn Clock>) -> Running {
        let assignments = self.assignments();
        let layers = Layers::new().assignments("--set", assignments.iter().map(String::as_str));
        let config = Config::load(layers).unwrap().config;
        let store = self.store();
        let journal = self.data_dir().join("emergency.journal");
        let key = self.master_key();
        let journalled = Arc::new(JournalledStore::open(store.clone(), &key, &journal).unwrap());
        journalled.settle().await.unwrap();
        let parts = Parts {
            store: journalled,
            on_record: None,
            requests: store.clone(),
            fleet: store.clone(),
            history: Arc::new(HistoryFile::open(&config.store.history_path).unwrap()),
            sharing: None,
            clock,
            ids: Arc::new(SystemIds::new()),
            catalogue: CATALOGUE.clone(),
        };
        let server = Server::start(&config, parts).await.unwrap();
        Running { api: self.api(), server, store }
    }
}

/// A fleet of a gateway of each of these models, numbered from 1.
pub fn fleet_of(models: &[Model]) -> FleetConfig {
    let mut fleet = FleetConfig::new(BrokerAddress::new("127.0.0.1", 0), 0, SEED);
    let numbered = (1..).zip(models);
    fleet.docks = numbered.map(|(n, model)| DockConfig::numbered_as(*model, SEED, n)).collect();
    fleet.reply = ReplyTiming::AtOnce;
    fleet.broker.reconnect_wait_min = std::time::Duration::from_millis(10);
    fleet.broker.reconnect_wait_max = std::time::Duration::from_millis(50);
    fleet
}

/// What a model is registered as.
pub fn kind_of(model: Model) -> DeviceKind {
    if model.is_dock() { DeviceKind::Dock } else { DeviceKind::RemoteController }
}

/// Starts docks at this broker and waits until they are there.
pub async fn fly(config: &FleetConfig, broker: SocketAddr, protocol: ProtocolChoice) -> Fleet {
    let fleet = start_docks(config, broker, protocol);
    tokio::time::timeout(PATIENCE, fleet.ready()).await.expect("the docks come up");
    fleet
}

/// Starts docks at this broker, which may go away before they are there.
pub fn start_docks(config: &FleetConfig, broker: SocketAddr, protocol: ProtocolChoice) -> Fleet {
    let mut config = config.clone();
    config.broker.host = broker.ip().to_string();
    config.broker.port = broker.port();
    config.broker.protocol = protocol;
    Fleet::start(config).unwrap()
}

async fn put_tenant(store: &SqliteStore, id: TenantId) {
    let tenant = Tenant { id, name: id.to_string(), created_at: Timestamp::from_millis(0) };
    store.put_tenant(tenant).await.unwrap();
}

async fn put_gateway(
    store: &SqliteStore,
    tenant: TenantId,
    sn: &str,
    kind: DeviceKind,
    password: &str,
    aircraft: &[&str],
) {
    let sn = DeviceSn::parse(sn).unwrap();
    let hash = mqtt_secret_hash(&sn, password.as_bytes());
    let device = |sn: &DeviceSn, kind: DeviceKind, mqtt_secret_hash: Option<[u8; 32]>| Device {
        sn: sn.clone(),
        tenant,
        kind,
        model_key: None,
        label: String::new(),
        tags: BTreeSet::new(),
        simulated: true,
        mqtt_secret_hash,
        created_at: Timestamp::from_millis(0),
    };
    let order = DeviceOrder::Register(device(&sn, kind, Some(hash)));
    let by = By { who: "test".to_owned(), at: Timestamp::from_millis(0) };
    store.order(order, by).await.unwrap();
    let behind: Vec<DeviceSn> = aircraft.iter().map(|sn| DeviceSn::parse(sn).unwrap()).collect();
    let new = behind.iter().map(|sn| device(sn, DeviceKind::Aircraft, None)).collect();
    let subs =
        behind.into_iter().map(|sn| SubDevice { sn, model_key: None, index: None }).collect();
    store.put_topology(&sn.to_gateway(), new, subs).await.unwrap();
}

fn credential(tenant: TenantId) -> (Credential, Given) {
    let api_id = ApiId::new(format!("utk_{}", Uuid::new_v4().simple()));
    let shown = format!("key-{}", Uuid::new_v4());
    let secret = Secret::new(shown.clone());
    let given = Given { tenant, api_id: api_id.clone(), key: secret.signing_key(), shown };
    let permissions: BTreeSet<Permission> = Role::TenantAdmin.permissions();
    let credential = Credential {
        api_id,
        tenant,
        name: "flight".to_owned(),
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

/// Reads a test file of the protocol crate.
pub fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dji/tests/data").join(name);
    std::fs::read_to_string(path).unwrap()
}
