//! The store on PostgreSQL, which several servers may share.

mod cells;
mod condition;
mod credentials;
mod fault;
mod limits;
mod open;
mod rare;
mod registry;
mod text;
mod tls;
mod url;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use deadpool_postgres::Pool;
use utmos_core::{
    credential::Credential,
    device::{Device, SubDevice},
    id::{ApiId, DeviceSn, GatewaySn},
    ports::{RegistryStore, StoreError, Tenant},
};

use self::{
    cells::Cells, condition::Condition, credentials::CredentialRow, open::Migrate, rare::rarely,
};
pub use self::{
    open::PostgresOpenError,
    tls::{TlsFault, TlsFiles},
    url::{PostgresUrl, UrlError},
};
use crate::{key::MasterKey, seal::Sealer};

/// What the store needs to know.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// Where the database is.
    pub url: PostgresUrl,
    /// Connections that read, and write what is rare. Two more write commands.
    pub connections: usize,
    /// Encrypts the secrets in it. All servers of one database need the same.
    pub master_key: MasterKey,
}

impl PostgresConfig {
    /// With the usual number of connections.
    #[must_use]
    pub fn new(url: PostgresUrl, master_key: MasterKey) -> Self {
        Self { url, connections: limits::DEFAULT_CONNECTIONS, master_key }
    }
}

/// The store on PostgreSQL.
pub struct PostgresStore {
    url: PostgresUrl,
    pool: Pool,
    sealer: Arc<Sealer>,
    condition: Arc<Condition>,
}

impl PostgresStore {
    /// Connects, and brings the schema up to date where no other server has done so.
    ///
    /// # Errors
    /// When the database cannot be used; the error names it and the remedy.
    pub async fn open(config: PostgresConfig) -> Result<Self, PostgresOpenError> {
        let tls = config.url.tls().map_err(|source| PostgresOpenError::Tls {
            database: config.url.to_string(),
            source,
        })?;
        let sealer = Sealer::new(&config.master_key);
        open::prepare(&config, &tls, &sealer, Migrate::Yes).await?;
        let pool = open::pool(&config, &tls).map_err(|why| PostgresOpenError::Unavailable {
            database: config.url.to_string(),
            why,
        })?;
        Ok(Self {
            pool,
            sealer: Arc::new(sealer),
            condition: Arc::new(Condition::new(config.url.to_string())),
            url: config.url,
        })
    }

    /// Brings the schema up to date and does nothing else.
    ///
    /// # Errors
    /// When the database cannot be used or a migration fails; the error names it and the remedy.
    pub async fn migrate(config: &PostgresConfig) -> Result<(), PostgresOpenError> {
        Self::prepare(config, Migrate::Yes).await
    }

    /// Looks at schema, master key and settings, and changes nothing.
    ///
    /// # Errors
    /// When something is not as it must be; the error names it and the remedy.
    pub async fn check(config: &PostgresConfig) -> Result<(), PostgresOpenError> {
        Self::prepare(config, Migrate::No).await
    }

    async fn prepare(config: &PostgresConfig, migrate: Migrate) -> Result<(), PostgresOpenError> {
        let tls = config.url.tls().map_err(|source| PostgresOpenError::Tls {
            database: config.url.to_string(),
            source,
        })?;
        open::prepare(config, &tls, &Sealer::new(&config.master_key), migrate).await
    }

    /// Writes what is queued and gives the connections back. Later calls are refused.
    pub async fn close(&self) {
        self.pool.close();
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("url", &self.url).finish_non_exhaustive()
    }
}

#[async_trait]
impl RegistryStore for PostgresStore {
    async fn generation(&self) -> Result<u64, StoreError> {
        let rows = self.read("SELECT n FROM generations WHERE name = 'registry'", &[]).await?;
        let row = rows.first().ok_or_else(|| {
            StoreError::Damaged("generations: there is none of the registry".to_owned())
        })?;
        Ok(Cells::new(row, "generations").get::<i64>("n")?.cast_unsigned())
    }

    async fn put_tenant(&self, tenant: Tenant) -> Result<(), StoreError> {
        rarely!(self, |tx| registry::put_tenant(&tx, &tenant))
    }

    async fn tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        registry::tenants(self).await
    }

    async fn put_credential(&self, credential: Credential) -> Result<(), StoreError> {
        let row = CredentialRow::new(credential, &self.sealer)?;
        rarely!(self, |tx| row.write(&tx))
    }

    async fn credential(&self, api_id: &ApiId) -> Result<Option<Credential>, StoreError> {
        credentials::one(self, api_id).await
    }

    async fn credentials(&self) -> Result<Vec<Credential>, StoreError> {
        credentials::every(self).await
    }

    async fn put_device(&self, device: Device) -> Result<(), StoreError> {
        rarely!(self, |tx| registry::put_device(&tx, &device))
    }

    async fn remove_device(&self, sn: &DeviceSn) -> Result<bool, StoreError> {
        rarely!(self, |tx| registry::remove_device(&tx, sn))
    }

    async fn devices(&self) -> Result<Vec<Device>, StoreError> {
        registry::devices(self).await
    }

    async fn put_topology(
        &self,
        gateway: &GatewaySn,
        new: Vec<Device>,
        subs: Vec<SubDevice>,
    ) -> Result<(), StoreError> {
        rarely!(self, |tx| registry::put_topology(&tx, gateway, &new, &subs))
    }

    async fn topologies(&self) -> Result<Vec<(GatewaySn, Vec<SubDevice>)>, StoreError> {
        registry::topologies(self).await
    }
}
