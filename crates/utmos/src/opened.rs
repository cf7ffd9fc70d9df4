//! Opens what the configuration names: the store, the catalogue.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow};
use async_trait::async_trait;
use utmos_core::{
    ports::{
        AllowanceStore, DirectLines, FleetStore, History, NoLines, ReplicaStore, RequestStore,
        Store, StoreError, Tenant,
    },
    replica::InstanceId,
    time::{BootId, Timestamp},
};
use utmos_dji::catalogue::Catalogue;
use utmos_server::{
    Sharing,
    config::{Config, HistoryIn, Mqtt},
    replicas::{LineKey, Lines},
};
use utmos_store::{
    HistoryFile, JournalledStore, MasterKey, OpenError, PostgresConfig, PostgresHistory,
    PostgresStore, PostgresUrl, SqliteConfig, SqliteStore, check_not_lost,
};

use uuid::Uuid;

use crate::environment;

/// The variable that can hold the master key itself.
pub const MASTER_KEY: &str = "UTMOS_MASTER_KEY";

/// The variable that can hold the password of the database.
const STORE_PASSWORD: &str = "UTMOS_STORE_PASSWORD";

/// Emergencies that went out while the database was unwell; lies beside the database.
pub const JOURNAL_FILE: &str = "emergency.journal";

/// Which server this is, among those that share a store; lies beside the journal.
const INSTANCE_FILE: &str = "instance.id";

/// The store, whole, in whichever engine.
#[async_trait]
pub trait Database: Store + RequestStore + FleetStore {
    /// Writes what is queued and gives up what it holds. Later calls are refused.
    async fn close(&self);

    /// Where servers that share it find each other; `None` where it is one server's alone.
    fn replicas(self: Arc<Self>) -> Option<Arc<dyn ReplicaStore>>;

    /// Where they tell each other how often callers asked.
    fn allowances(self: Arc<Self>) -> Option<Arc<dyn AllowanceStore>>;

    /// What its own clock shows; `None` where it has none but this machine's.
    async fn clock(&self) -> Result<Option<Timestamp>, StoreError>;

    /// From which address it sees this server come; `None` where that is this machine's own affair.
    async fn seen_from(&self) -> Result<Option<IpAddr>, StoreError>;

    /// From now on this process alone uses the database, in this run of the machine: its server may answer who only reads before
    /// the disk. Nothing to do for one that several servers share.
    async fn is_mine(&self, boot: BootId) -> Result<(), StoreError>;

    /// The engine's own quick check: what is damaged, in its words; empty when nothing is.
    async fn quick_check(&self) -> Result<Vec<String>, StoreError>;
}

#[async_trait]
impl Database for SqliteStore {
    async fn close(&self) {
        Self::close(self).await;
    }

    fn replicas(self: Arc<Self>) -> Option<Arc<dyn ReplicaStore>> {
        None
    }

    fn allowances(self: Arc<Self>) -> Option<Arc<dyn AllowanceStore>> {
        None
    }

    async fn clock(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    async fn seen_from(&self) -> Result<Option<IpAddr>, StoreError> {
        Ok(None)
    }

    async fn is_mine(&self, boot: BootId) -> Result<(), StoreError> {
        self.read_quickly(boot).await
    }

    async fn quick_check(&self) -> Result<Vec<String>, StoreError> {
        Self::quick_check(self).await
    }
}

#[async_trait]
impl Database for PostgresStore {
    async fn close(&self) {
        Self::close(self).await;
    }

    fn replicas(self: Arc<Self>) -> Option<Arc<dyn ReplicaStore>> {
        Some(self)
    }

    fn allowances(self: Arc<Self>) -> Option<Arc<dyn AllowanceStore>> {
        Some(self)
    }

    async fn clock(&self) -> Result<Option<Timestamp>, StoreError> {
        Self::clock(self).await.map(Some)
    }

    async fn seen_from(&self) -> Result<Option<IpAddr>, StoreError> {
        Self::seen_from(self).await
    }

    async fn is_mine(&self, _: BootId) -> Result<(), StoreError> {
        Ok(())
    }

    /// PostgreSQL looks after its own pages.
    async fn quick_check(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }
}

/// The history, in whichever engine.
#[async_trait]
pub trait KeptHistory: History {
    /// Writes what is queued and gives up what it holds. Later calls are refused.
    async fn close(&self);
}

#[async_trait]
impl KeptHistory for HistoryFile {
    async fn close(&self) {
        Self::close(self).await;
    }
}

#[async_trait]
impl KeptHistory for PostgresHistory {
    async fn close(&self) {
        Self::close(self);
    }
}

/// How the database is named, without secrets.
pub fn name(config: &Config) -> String {
    let url = config.store.postgres.as_ref().map(|it| PostgresUrl::parse(it.url.expose()));
    match url {
        Some(Ok(url)) => url.to_string(),
        Some(Err(_)) => "of store.url".to_owned(),
        None => config.store.path.display().to_string(),
    }
}

/// Where PostgreSQL is, where it is the store, and who lets us in.
pub fn postgres_url(config: &Config) -> anyhow::Result<Option<PostgresUrl>> {
    let Some(postgres) = &config.store.postgres else { return Ok(None) };
    let mut url = PostgresUrl::parse(postgres.url.expose()).context("store.url cannot be used")?;
    if let Some(password) = environment::variable(STORE_PASSWORD) {
        url.set_password(&password);
    } else if let Some(path) = &postgres.password_file {
        let text = fs::read_to_string(path)
            .with_context(|| format!("store.password_file {} cannot be read", path.display()))?;
        url.set_password(text.trim_end_matches(['\r', '\n']));
    }
    if let Some(path) = &postgres.ca_file {
        url.set_ca(path.clone());
    }
    Ok(Some(url))
}

/// The same, with everything that the store needs to know.
pub fn postgres(config: &Config) -> anyhow::Result<Option<PostgresConfig>> {
    let Some(postgres) = &config.store.postgres else { return Ok(None) };
    let Some(url) = postgres_url(config)? else { return Ok(None) };
    make_folder(folder_of(&config.store.master_key_file))?;
    let mut found = PostgresConfig::new(url, master_key(config)?);
    found.connections = postgres.connections;
    Ok(Some(found))
}

/// Opens the store, and makes it with its folder and key where there is none.
pub async fn store(config: &Config) -> anyhow::Result<Arc<dyn Database>> {
    for file in [&config.store.path, &config.store.master_key_file] {
        make_folder(folder_of(file))?;
    }
    if let Some(postgres) = postgres(config)? {
        return Ok(Arc::new(PostgresStore::open(postgres).await?));
    }
    must_not_be_lost(config)?;
    let (path, master_key) = (config.store.path.clone(), master_key(config)?);
    Ok(Arc::new(SqliteStore::open(SqliteConfig { path, master_key })?))
}

/// Whether the key of the store is there.
pub fn has_master_key(config: &Config) -> bool {
    environment::variable(MASTER_KEY).is_some() || config.store.master_key_file.exists()
}

/// Refuses a SQLite database that was used and is empty or missing. Without one, nothing is made in its place, no key either.
pub fn must_not_be_lost(config: &Config) -> Result<(), OpenError> {
    check_not_lost(&config.store.path, &[&journal_path(config)])
}

/// The key of the store, made where there is neither.
fn master_key(config: &Config) -> anyhow::Result<MasterKey> {
    if let Some(digits) = environment::variable(MASTER_KEY) {
        return MasterKey::from_hex(digits.trim())
            .with_context(|| format!("{MASTER_KEY} cannot be used"));
    }
    must_have_its_key(config)?;
    Ok(MasterKey::load_or_create(&config.store.master_key_file)?)
}

/// Where the history is in PostgreSQL.
pub fn postgres_history(config: &Config) -> anyhow::Result<Option<PostgresConfig>> {
    match config.store.history {
        HistoryIn::Store => postgres(config),
        HistoryIn::File => Ok(None),
    }
}

/// Opens the history, and makes it where there is none.
pub async fn history(config: &Config) -> anyhow::Result<Arc<dyn KeptHistory>> {
    match postgres_history(config)? {
        Some(postgres) => Ok(Arc::new(PostgresHistory::open(&postgres).await?)),
        None => Ok(history_file(config)?),
    }
}

/// Opens the file of the history, and makes it where there is none.
pub fn history_file(config: &Config) -> anyhow::Result<Arc<HistoryFile>> {
    let path = &config.store.history_path;
    make_folder(folder_of(path))?;
    let opened = HistoryFile::open(path).with_context(|| {
        format!(
            "the history {} cannot be used; commands do not need it: moved away, it is made anew",
            path.display()
        )
    })?;
    Ok(Arc::new(opened))
}

/// A new key would open nothing that is in a database, and would take the place of the one that does.
fn must_have_its_key(config: &Config) -> anyhow::Result<()> {
    let (database, key) = (&config.store.path, &config.store.master_key_file);
    if config.store.postgres.is_some() {
        // The database itself says whether the key is its own.
        return Ok(());
    }
    let is_used = fs::metadata(database).is_ok_and(|file| file.len() > 0);
    if is_used && !key.try_exists().unwrap_or(true) {
        return Err(anyhow!(
            "the master key {} is missing, and the database {} was made with it; put it back from its copy, without it the credentials and commands in the database cannot be read",
            key.display(),
            database.display()
        ));
    }
    Ok(())
}

/// The store as a server uses it: emergencies get past a database that is unwell. One process at a time has the journal. What
/// is in it must be put on record ([`on_record`]) before it is used.
pub fn journalled(store: Arc<dyn Store>, config: &Config) -> anyhow::Result<Arc<JournalledStore>> {
    let (path, key) = (journal_path(config), master_key(config)?);
    let journalled = JournalledStore::open(store, &key, &path)
        .with_context(|| format!("the journal of emergencies {} cannot be used", path.display()))?;
    // With a broker of its own a server has its database to itself.
    let is_shared = config.store.postgres.is_some() && matches!(config.mqtt, Mqtt::External(_));
    Ok(Arc::new(if is_shared { journalled.shared() } else { journalled }))
}

/// Puts emergencies of an earlier run on record.
pub async fn on_record(journalled: Arc<JournalledStore>) -> Result<(), StoreError> {
    let settled = journalled.settle().await?;
    if settled > 0 {
        tracing::info!(settled, "emergencies of an earlier run were put on record");
    }
    Ok(())
}

/// How this server shares the store with others, where it can.
pub async fn sharing(
    store: &Arc<dyn Database>,
    config: &Config,
) -> anyhow::Result<Option<Sharing>> {
    let (replicas, allowances) = (store.clone().replicas(), store.clone().allowances());
    let Some((replicas, allowances)) = replicas.zip(allowances) else { return Ok(None) };
    let path = folder_of(&config.store.path).join(INSTANCE_FILE);
    let instance = instance(&path).with_context(|| format!("{} cannot be used", path.display()))?;
    let lines = lines(store, config).await?;
    Ok(Some(Sharing { store: replicas, allowances, instance, lines }))
}

/// What the master key is used for between servers.
const LINE_KEY: &str = "utmos direct lines between servers";

/// Where this server reaches the others directly. None is needed: where nobody chose an address and there cannot be one, all goes by
/// the store.
async fn lines(store: &Arc<dyn Database>, config: &Config) -> anyhow::Result<Arc<dyn DirectLines>> {
    let servers = &config.servers;
    if !servers.direct || matches!(config.mqtt, Mqtt::Embedded(_)) {
        return Ok(Arc::new(NoLines));
    }
    let here = store.seen_from().await?.unwrap_or(Ipv4Addr::LOCALHOST.into());
    let listen = servers.listen.unwrap_or(SocketAddr::new(here, 0));
    let reached = match listen.ip().is_unspecified() {
        true => Some(SocketAddr::new(here, listen.port())),
        false => None,
    };
    let key = LineKey::new(master_key(config)?.for_use(LINE_KEY));
    match Lines::listen(listen, servers.address.or(reached), &key).await {
        Ok(lines) => Ok(lines),
        Err(error) if servers.listen.is_some() => {
            Err(anyhow::Error::new(error).context("servers.listen cannot be used"))
        }
        Err(error) => {
            let error = format!("{:#}", anyhow::Error::new(error));
            tracing::warn!(
                %error,
                "other servers do not reach this one directly, and all goes by the database; set servers.listen and servers.address, or servers.direct = false"
            );
            Ok(Arc::new(NoLines))
        }
    }
}

/// Which server this is: whoever has its folder. The journal in it can be held by one process alone, so that two runs of one
/// server never live at the same time.
fn instance(path: &Path) -> anyhow::Result<InstanceId> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let id = Uuid::parse_str(text.trim()).context(
                "it does not hold the id of a server; remove it while the server is stopped",
            )?;
            Ok(InstanceId(id))
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            let id = Uuid::new_v4();
            fs::write(path, format!("{id}\n"))?;
            Ok(InstanceId(id))
        }
        Err(err) => Err(err.into()),
    }
}

/// Where the journal of emergencies lies.
pub fn journal_path(config: &Config) -> PathBuf {
    folder_of(&config.store.path).join(JOURNAL_FILE)
}

/// The catalogue, with the changes the configuration names.
pub fn catalogue(config: &Config) -> anyhow::Result<Catalogue> {
    let catalogue = Catalogue::embedded()?;
    let Some(path) = &config.catalogue.override_file else { return Ok(catalogue) };
    let text = fs::read_to_string(path)
        .with_context(|| format!("catalogue.override_file {} cannot be read", path.display()))?;
    catalogue
        .with_override(&text)
        .with_context(|| format!("catalogue.override_file {} does not fit", path.display()))
}

/// Makes a folder that only its owner may enter. One that is there stays as it is.
pub fn make_folder(folder: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("the folder {} cannot be made", folder.display()))
}

/// The folder a file lies in.
pub fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The tenant of this name; without a name, the only one there is.
pub async fn tenant(store: &dyn Database, name: Option<&str>) -> anyhow::Result<Tenant> {
    let tenants = store.tenants().await?;
    let names = || tenants.iter().map(|tenant| tenant.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, tenants.as_slice()) {
        (_, []) => Err(anyhow!("there is no tenant yet; make one with: utmos tenant create NAME")),
        (Some(name), _) => tenants
            .iter()
            .find(|tenant| tenant.name == name || tenant.id.to_string() == name)
            .cloned()
            .ok_or_else(|| anyhow!("there is no tenant {name:?}; there are: {}", names())),
        (None, [only]) => Ok(only.clone()),
        (None, _) => {
            Err(anyhow!("there are several tenants ({}); name one with --tenant", names()))
        }
    }
}
