//! The store on PostgreSQL, which several servers may share.

mod allowances;
mod batch;
mod births;
mod cells;
mod condition;
mod credentials;
mod decide;
mod examine;
mod fault;
mod fence;
mod fleet;
mod flow;
mod gather;
mod history;
mod job;
mod limits;
mod lists;
mod lives;
mod look;
mod news;
mod nonces;
mod open;
mod partitions;
mod rare;
mod reads;
mod records;
mod registry;
mod replicas;
mod requests;
mod requests_rules;
mod retention;
mod rows;
mod statements;
pub(crate) mod text;
mod tls;
pub(crate) mod transfer;
mod unmatched;
mod upgrade;
mod url;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use async_trait::async_trait;
use deadpool_postgres::Pool;
use tokio::task::JoinHandle;
use utmos_core::{
    command::{Command, Spec},
    credential::Credential,
    device::{Device, SubDevice},
    evidence::Entry,
    id::{ApiId, CommandId, GatewaySn, TenantId},
    method::Risk,
    ports::{
        Accepted, Advance, Advanced, CommandFilter, CommandStore, NewCommand, Nonce, RegistryStore,
        RequestKept, StoreDepths, StoreError, Tenant, Unmatched,
    },
    replica::Shard,
    signing::NonceUse,
    time::Timestamp,
};
use uuid::Uuid;

use self::{
    cells::Cells,
    condition::Condition,
    credentials::CredentialRow,
    fault::closed,
    fence::{Own, TakenIn},
    gather::Gather,
    job::{Acceptance, Answer, Ask, Change, Line},
    news::Wire,
    nonces::KnownNonces,
    open::{Migrate, Named},
    partitions::Weeks,
    rare::rarely,
    requests::SealedRequest,
    tls::MakeTls,
    writer::{Retry, Session, Writer},
};
use crate::{
    key::MasterKey,
    seal::Sealer,
    sqlite::limits::{QUEUE_MAX, URGENT_QUEUE_MAX},
    urgent::{Lane, UrgentCommands},
};

pub use self::{
    history::PostgresHistory,
    look::{Looked, WeeksKept},
    open::PostgresOpenError,
    retention::WeeksTidied,
    tls::{TlsFault, TlsFiles},
    url::{PostgresUrl, UrlError},
};

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

/// The store on PostgreSQL. Alone on its database until a server joins by it ([`utmos_core::ports::ReplicaStore`]).
pub struct PostgresStore {
    url: PostgresUrl,
    pool: Pool,
    /// One connection on which nothing but signs of life goes, so that none of them waits for those of the pool.
    beats: Pool,
    sealer: Arc<Sealer>,
    condition: Arc<Condition>,
    nonces: KnownNonces,
    urgent: UrgentCommands,
    /// Whose row in `clocks` is that of the pool.
    id: Uuid,
    normal_line: Line,
    urgent_line: Line,
    requests: Arc<Gather<SealedRequest, RequestKept>>,
    own: Own,
    taken_in: TakenIn,
    news: Wire,
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
        let pool_of = |connections| {
            open::pool(&config, &tls, connections, "").map_err(|why| {
                PostgresOpenError::Unavailable { database: config.url.to_string(), why }
            })
        };
        let (pool, beats) = (pool_of(config.connections.max(1))?, pool_of(1)?);
        let (nonces, own) = (KnownNonces::default(), Own::default());
        let taken_in = TakenIn::default();
        let condition = Arc::new(Condition::new(config.url.to_string()));
        let (normal_line, normal) = Line::new(QUEUE_MAX);
        let (urgent_line, urgent) = Line::new(URGENT_QUEUE_MAX);
        for (jobs, is_patient) in [(normal, true), (urgent, false)] {
            let session = connected(&config.url, &tls).await?;
            if is_patient {
                session
                    .prepare_store(&nonces)
                    .await
                    .map_err(|err| Named(&config.url).explain(&err))?;
            }
            let writer = Writer {
                url: config.url.clone(),
                tls: tls.clone(),
                jobs,
                condition: condition.clone(),
                nonces: nonces.clone(),
                own: own.clone(),
                taken_in: taken_in.clone(),
                id: Uuid::new_v4(),
                is_patient,
                session: Some(session),
                weeks: Weeks::default(),
                is_committing: false,
                retry: Retry::default(),
            };
            // Ends when the store is dropped, after what is queued has been written.
            let writing: JoinHandle<()> = tokio::spawn(writer.run());
            let condition = condition.clone();
            tokio::spawn(async move {
                if writing.await.is_err() {
                    let bug =
                        "the store's writer ran into a bug and has stopped; restart the server";
                    condition.not_written(&StoreError::Unavailable(bug.to_owned()));
                }
            });
        }
        Ok(Self {
            pool,
            beats,
            sealer: Arc::new(sealer),
            condition,
            nonces,
            urgent: UrgentCommands::default(),
            id: Uuid::new_v4(),
            normal_line,
            urgent_line,
            requests: Arc::default(),
            own,
            taken_in,
            news: Wire::new(config.url.clone(), tls),
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
        self.urgent_line.close().await;
        self.normal_line.close().await;
        self.news.close().await;
        self.beats.close();
        self.pool.close();
    }

    async fn write(&self, lane: Lane, ask: Ask) -> Result<Answer, StoreError> {
        match lane {
            Lane::Urgent => self.urgent_line.submit(ask).await,
            Lane::Normal => self.normal_line.submit(ask).await,
        }
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("url", &self.url).finish_non_exhaustive()
    }
}

async fn connected(url: &PostgresUrl, tls: &MakeTls) -> Result<Session, PostgresOpenError> {
    Session::open(url, tls).await.map_err(|err| Named(url).explain(&err))
}

#[async_trait]
impl CommandStore for PostgresStore {
    fn trouble(&self) -> Option<String> {
        self.condition.trouble()
    }

    fn depths(&self) -> StoreDepths {
        let (urgent_writes, writes) = (self.urgent_line.depth(), self.normal_line.depth());
        StoreDepths { urgent_writes, writes, unsettled: 0, commits: self.condition.commits() }
    }

    async fn accept(
        &self,
        nonce: Option<NonceUse>,
        new: NewCommand,
    ) -> Result<Accepted, StoreError> {
        // What would stand behind a batch that nobody answers is not queued.
        if new.spec.risk != Risk::Emergency
            && let Some(silence) = self.condition.silence()
        {
            return Err(StoreError::Unavailable(silence));
        }
        let lane = self.urgent.lane_of_new(&new.spec);
        let acceptance = Acceptance::new(nonce, new, &self.sealer)?;
        match self.write(lane, Ask::Accept(Box::new(acceptance))).await? {
            Answer::Accepted(accepted) => Ok(accepted),
            Answer::Advanced(_) | Answer::Nonce(_) | Answer::Written => Err(closed()),
        }
    }

    async fn foresee(&self, new: NewCommand) -> Result<Accepted, StoreError> {
        reads::foresee(self, &new).await
    }

    async fn advance(&self, advance: Advance) -> Result<Advanced, StoreError> {
        let lane = self.urgent.lane_of(advance.id);
        let change = Change::new(advance, &self.sealer)?;
        match self.write(lane, Ask::Advance(Box::new(change))).await? {
            Answer::Advanced(advanced) => Ok(advanced),
            Answer::Accepted(_) | Answer::Nonce(_) | Answer::Written => Err(closed()),
        }
    }

    async fn spend_nonce(&self, nonce: NonceUse) -> Result<Nonce, StoreError> {
        match self.write(Lane::Normal, Ask::Spend(nonce)).await? {
            Answer::Nonce(nonce) => Ok(nonce),
            Answer::Accepted(_) | Answer::Advanced(_) | Answer::Written => Err(closed()),
        }
    }

    fn knows_nonce(&self, nonce: &NonceUse) -> bool {
        self.nonces.contains(nonce)
    }

    async fn forget_nonces(&self, at: Timestamp) -> Result<usize, StoreError> {
        nonces::forget(self, at).await
    }

    async fn command(&self, id: CommandId) -> Result<Option<Command>, StoreError> {
        reads::one(self, id).await
    }

    async fn commands(&self, ids: Vec<CommandId>) -> Result<Vec<Command>, StoreError> {
        reads::several(self, ids).await
    }

    async fn command_of(
        &self,
        tenant: TenantId,
        id: CommandId,
    ) -> Result<Option<Command>, StoreError> {
        let found = self.command(id).await?;
        Ok(found.filter(|command| command.spec.tenant == tenant))
    }

    async fn list_floor(
        &self,
        tenant: TenantId,
        filter: CommandFilter,
        before: Option<CommandId>,
    ) -> Result<Option<CommandId>, StoreError> {
        if !filter.leaves_out() {
            return Ok(None);
        }
        lists::floor(self, tenant, &filter, before).await
    }

    async fn commands_of(
        &self,
        tenant: TenantId,
        filter: CommandFilter,
        before: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<Command>, StoreError> {
        lists::page(self, tenant, &filter, before, limit).await
    }

    async fn timeline(&self, id: CommandId) -> Result<Vec<Entry>, StoreError> {
        reads::timeline(self, id).await
    }

    async fn open_commands(
        &self,
        after: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<Command>, StoreError> {
        reads::open(self, after, limit).await
    }

    async fn open_commands_of(
        &self,
        shards: &BTreeSet<Shard>,
        after: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<Command>, StoreError> {
        reads::open_of(self, shards, after, limit).await
    }

    async fn emergency_after(&self, spec: &Spec) -> Result<Option<CommandId>, StoreError> {
        reads::emergency_after(self, spec).await
    }

    async fn emergencies_after(
        &self,
        specs: &[Arc<Spec>],
    ) -> Result<BTreeMap<CommandId, CommandId>, StoreError> {
        reads::emergencies_after(self, specs).await
    }

    async fn newest_record(&self) -> Result<Option<Timestamp>, StoreError> {
        reads::newest_record(self).await
    }

    async fn keep_unmatched(&self, unmatched: Unmatched) -> Result<(), StoreError> {
        let raw = unmatched::seal(&unmatched, &self.sealer)?;
        rarely!(self, |tx| unmatched::keep(&tx, &unmatched, &raw, self.id))
    }

    async fn unmatched_of(
        &self,
        tenant: Option<TenantId>,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Unmatched>, StoreError> {
        unmatched::read(self, tenant, before, limit).await
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
