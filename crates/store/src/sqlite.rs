//! The store in one SQLite file: one thread that writes in batches, a few connections that read, one that copies the WAL.

mod accept;
mod advance;
mod batch;
pub(crate) mod cells;
mod checkpoint;
pub(crate) mod condition;
mod credentials;
mod examine;
pub(crate) mod fault;
mod fleet;
mod health;
pub(crate) mod limits;
mod nonces;
pub(crate) mod open;
#[cfg(test)]
mod plans;
mod queue;
mod quick;
pub(crate) mod readers;
mod reads;
mod registry;
mod requests;
mod requests_rules;
mod rows;
mod sorted;
mod statements;
mod timeline;
pub(crate) mod transfer;
mod unmatched;
mod wal;
mod writer;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use async_trait::async_trait;
use utmos_core::{
    binding::BindingCode,
    command::{Command, Spec, StatusVersion},
    credential::Credential,
    device::{Device, SubDevice},
    device_request::{DeviceRequest, Scope, SetRule},
    evidence::Entry,
    id::{ApiId, BindingCodeId, CommandId, DeviceRequestId, DeviceSn, GatewaySn, TenantId},
    method::Risk,
    ports::{
        Accepted, Advance, Advanced, Bind, Bound, BoundAnswer, By, CommandFilter, CommandStore,
        DeviceOrder, DeviceRecord, FleetStore, NewCommand, Nonce, Ordered, ReadNonce,
        RegistryStore, RequestChanged, RequestFilter, RequestKept, RequestStore, RuleSet, Sighting,
        StoreDepths, StoreError, TaskState, Tenant, Unmatched,
    },
    reply::RawJson,
    signing::{NonceUse, RequestTimes},
    time::Timestamp,
};
use uuid::Uuid;

use self::{
    accept::Acceptance,
    advance::Change,
    batch::Batch,
    checkpoint::{Checkpointer, WalSize},
    condition::Condition,
    credentials::CredentialRow,
    fault::{Fault, to_store_error},
    nonces::{KnownNonces, Nonces},
    queue::Queue,
    quick::{Desk, Quick},
    readers::Readers,
    requests::{RequestPage, SealedRequest},
    requests_rules::OfTask,
    writer::Writer,
};
pub use self::{
    examine::{Examination, back_up, examine},
    open::{OpenError, check_not_lost},
};
use crate::{
    key::MasterKey,
    seal::Sealer,
    topology::subs_json,
    urgent::{Lane, UrgentCommands},
};

/// What the store needs to know.
#[derive(Debug, Clone)]
pub struct SqliteConfig {
    /// The database file; made when it is not there.
    pub path: PathBuf,
    /// Encrypts the secrets in it.
    pub master_key: MasterKey,
}

/// The store in a SQLite file. Several processes may have the same file open.
///
/// Dropping it ends its threads in the background, after what is queued has been written; [`SqliteStore::close`] waits.
pub struct SqliteStore {
    path: PathBuf,
    queue: Arc<Queue>,
    readers: Readers,
    sealer: Arc<Sealer>,
    known_nonces: KnownNonces,
    quick: Quick,
    urgent: UrgentCommands,
    condition: Arc<Condition>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteStore {
    /// Opens the database, makes it where there is none, and brings it up to date. Blocks, for a moment.
    ///
    /// # Errors
    /// When the file cannot be used; the error names it and the remedy.
    pub fn open(config: SqliteConfig) -> Result<Self, OpenError> {
        let path = config.path;
        let sealer = Sealer::new(&config.master_key);
        let prepared = open::prepare(&path, &sealer)?;
        let explain = |err| open::explain(&path, err);
        let wal = Arc::new(WalSize::new());
        let condition = Arc::new(Condition::new(path.clone()));
        let queue = Arc::new(Queue::new());
        let conn = open::writer(&path, &wal).map_err(explain)?;
        let newest = batch::newest_record(&conn).map_err(explain)?.unwrap_or(i64::MIN);
        let desk = Arc::new(Desk::default());
        let nonces = Nonces::load(&conn, desk.clone()).map_err(explain)?;
        let known_nonces = nonces.known();
        let quick = Quick::new(desk, known_nonces.clone(), queue.clone(), condition.clone());
        drop(prepared);
        let checkpointer = Checkpointer {
            conn: open::checkpointer(&path).map_err(explain)?,
            queue: queue.clone(),
            wal: wal.clone(),
            condition: condition.clone(),
        };
        let writer = Writer {
            path: path.clone(),
            queue: queue.clone(),
            wal: wal.clone(),
            condition: condition.clone(),
            conn: Some(conn),
            newest,
            nonces,
            leaves_untidy: false,
        };
        let copying = spawn("store-wal", move || checkpointer.run())?;
        let writing = spawn("store-writer", move || {
            writer.run();
            // The last of the WAL is copied after the last write.
            wal.close();
            drop(copying.join());
        });
        let writing = writing.inspect_err(|_| queue.close())?;
        Ok(Self {
            readers: Readers::new(path.clone(), condition.clone()),
            path,
            queue,
            sealer: Arc::new(sealer),
            known_nonces,
            quick,
            urgent: UrgentCommands::default(),
            condition,
            writer: Mutex::new(Some(writing)),
        })
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes that are not answered yet, for metrics: those of emergencies, and all others.
    #[must_use]
    pub fn queue_depth(&self) -> (usize, usize) {
        self.queue.depth()
    }

    /// Writes what is queued, copies the WAL into the database, and ends the threads. Later calls are refused.
    pub async fn close(&self) {
        self.end_quick_reads().await;
        self.queue.close();
        self.readers.close().await;
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && !matches!(tokio::task::spawn_blocking(move || writer.join()).await, Ok(Ok(())))
        {
            tracing::error!("the store's writer ended badly");
        }
    }

    /// Bounds the size of the database, for tests of what happens when the disk is full.
    #[doc(hidden)]
    pub async fn limit_pages(&self, pages: u32) -> Result<(), StoreError> {
        self.write(Lane::Normal, move |batch| {
            let sql = format!("PRAGMA max_page_count = {pages}");
            Ok(batch.conn.query_row(&sql, [], |_| Ok(()))?)
        })
        .await
    }

    /// Its connection writes nothing from now on, until it is opened anew, as it is after a write that failed so: for tests.
    #[doc(hidden)]
    pub async fn turn_read_only(&self) -> Result<(), StoreError> {
        self.write(Lane::Normal, |batch| Ok(batch.conn.execute_batch("PRAGMA query_only = ON")?))
            .await
    }

    async fn write<T, F>(&self, lane: Lane, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Batch<'_>) -> Result<T, Fault> + Send + 'static,
    {
        self.queue.submit(lane, work).await
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.quick.close();
        self.queue.close();
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(OpenError::Thread)
}

#[async_trait]
impl CommandStore for SqliteStore {
    fn trouble(&self) -> Option<String> {
        self.condition.trouble()
    }

    fn depths(&self) -> StoreDepths {
        let (urgent_writes, writes) = self.queue.depth();
        StoreDepths { urgent_writes, writes, unsettled: 0, commits: self.condition.commits() }
    }

    async fn accept(
        &self,
        nonce: Option<NonceUse>,
        new: NewCommand,
    ) -> Result<Accepted, StoreError> {
        if new.spec.risk != Risk::Emergency {
            self.condition.take_on()?;
        }
        let lane = self.urgent.lane_of_new(&new.spec);
        let acceptance = Acceptance::new(nonce, new, &self.sealer)?;
        self.write(lane, move |batch| acceptance.write(batch)).await
    }

    async fn foresee(&self, new: NewCommand) -> Result<Accepted, StoreError> {
        self.readers.read(move |conn| accept::foresee(conn, &new)).await
    }

    async fn advance(&self, advance: Advance) -> Result<Advanced, StoreError> {
        let lane = self.urgent.lane_of(advance.id);
        let change = Change::new(advance, &self.sealer)?;
        self.write(lane, move |batch| change.write(batch)).await
    }

    async fn spend_nonce(&self, nonce: NonceUse) -> Result<Nonce, StoreError> {
        self.write(Lane::Normal, move |batch| batch.nonces.spend(batch.conn, nonce)).await
    }

    async fn spend_nonce_to_read(
        &self,
        nonce: NonceUse,
        times: RequestTimes,
    ) -> Result<ReadNonce, StoreError> {
        match self.quick.spend(nonce, times).await {
            Some(done) => Ok(done),
            None => self.spend_nonce(nonce).await.map(ReadNonce::from),
        }
    }

    fn knows_nonce(&self, nonce: &NonceUse) -> bool {
        self.known_nonces.contains(nonce)
    }

    async fn forget_nonces(&self, at: Timestamp) -> Result<usize, StoreError> {
        let mut forgotten = 0;
        loop {
            let (gone, there_may_be_more) =
                self.write(Lane::Normal, move |batch| batch.nonces.forget(batch.conn, at)).await?;
            forgotten += gone;
            if !there_may_be_more {
                return Ok(forgotten);
            }
        }
    }

    async fn command(&self, id: CommandId) -> Result<Option<Command>, StoreError> {
        let sealer = self.sealer.clone();
        self.readers.read(move |conn| reads::one(conn, &sealer, id)).await
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
        let page = reads::Page { tenant, filter, before, limit: 0 };
        self.readers.read(move |conn| page.floor(conn)).await
    }

    async fn commands_of(
        &self,
        tenant: TenantId,
        filter: CommandFilter,
        before: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<Command>, StoreError> {
        let page = reads::Page { tenant, filter, before, limit };
        let sealer = self.sealer.clone();
        self.readers.read(move |conn| page.read(conn, &sealer)).await
    }

    async fn timeline(&self, id: CommandId) -> Result<Vec<Entry>, StoreError> {
        let sealer = self.sealer.clone();
        self.readers.read(move |conn| timeline::read(conn, &sealer, id)).await
    }

    async fn open_commands(
        &self,
        after: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<Command>, StoreError> {
        let sealer = self.sealer.clone();
        self.readers.read(move |conn| reads::open(conn, &sealer, after, limit)).await
    }

    async fn emergency_after(&self, spec: &Spec) -> Result<Option<CommandId>, StoreError> {
        let spec = spec.clone();
        self.readers.read(move |conn| reads::emergency_after(conn, &spec)).await
    }

    async fn emergencies_after(
        &self,
        specs: &[Arc<Spec>],
    ) -> Result<BTreeMap<CommandId, CommandId>, StoreError> {
        let specs = specs.to_vec();
        self.readers.read(move |conn| reads::emergencies_after(conn, &specs)).await
    }

    async fn newest_record(&self) -> Result<Option<Timestamp>, StoreError> {
        let read = |conn: &rusqlite::Connection| {
            batch::newest_record(conn).map_err(|err| to_store_error(&err))
        };
        Ok(self.readers.read(read).await?.map(Timestamp::from_millis))
    }

    async fn keep_unmatched(&self, unmatched: Unmatched) -> Result<(), StoreError> {
        let raw = unmatched::seal(&unmatched, &self.sealer)?;
        self.write(Lane::Normal, move |batch| unmatched::keep(batch, &unmatched, &raw)).await
    }

    async fn unmatched_of(
        &self,
        tenant: Option<TenantId>,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Unmatched>, StoreError> {
        let sealer = self.sealer.clone();
        self.readers.read(move |conn| unmatched::read(conn, &sealer, tenant, before, limit)).await
    }
}

#[async_trait]
impl RegistryStore for SqliteStore {
    async fn generation(&self) -> Result<u64, StoreError> {
        self.readers.read(registry::generation).await
    }

    async fn put_tenant(&self, tenant: Tenant) -> Result<(), StoreError> {
        self.write(Lane::Normal, move |batch| registry::put_tenant(batch, &tenant)).await
    }

    async fn tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        self.readers.read(registry::tenants).await
    }

    async fn put_credential(&self, credential: Credential) -> Result<(), StoreError> {
        let row = CredentialRow::new(credential, &self.sealer)?;
        self.write(Lane::Normal, move |batch| row.write(batch)).await
    }

    async fn credential(&self, api_id: &ApiId) -> Result<Option<Credential>, StoreError> {
        let (sealer, api_id) = (self.sealer.clone(), api_id.clone());
        self.readers.read(move |conn| credentials::one(conn, &sealer, &api_id)).await
    }

    async fn credentials(&self) -> Result<Vec<Credential>, StoreError> {
        let sealer = self.sealer.clone();
        self.readers.read(move |conn| credentials::every(conn, &sealer)).await
    }

    async fn devices(&self) -> Result<Vec<Device>, StoreError> {
        self.readers.read(registry::devices).await
    }

    async fn put_topology(
        &self,
        gateway: &GatewaySn,
        new: Vec<Device>,
        subs: Vec<SubDevice>,
    ) -> Result<(), StoreError> {
        let (gateway, subs) = (gateway.clone(), subs_json(&subs)?);
        self.write(Lane::Normal, move |batch| registry::put_topology(batch, &gateway, &new, &subs))
            .await
    }

    async fn topologies(&self) -> Result<Vec<(GatewaySn, Vec<SubDevice>)>, StoreError> {
        self.readers.read(registry::topologies).await
    }
}

#[async_trait]
impl RequestStore for SqliteStore {
    async fn keep_request(&self, request: Arc<DeviceRequest>) -> Result<RequestKept, StoreError> {
        let sealed = SealedRequest::new(request, &self.sealer)?;
        let sealer = self.sealer.clone();
        self.write(Lane::Normal, move |batch| sealed.keep(batch, &sealer)).await
    }

    async fn change_request(
        &self,
        seen: StatusVersion,
        request: Arc<DeviceRequest>,
    ) -> Result<RequestChanged, StoreError> {
        let sealed = SealedRequest::new(request, &self.sealer)?;
        self.write(Lane::Normal, move |batch| sealed.change(batch, seen)).await
    }

    async fn request_repeated(&self, key: [u8; 16]) -> Result<Option<DeviceRequest>, StoreError> {
        let sealer = self.sealer.clone();
        self.readers.read(move |conn| requests::repeated(conn, &sealer, key)).await
    }

    async fn request(&self, id: DeviceRequestId) -> Result<Option<DeviceRequest>, StoreError> {
        let sealer = self.sealer.clone();
        self.readers.read(move |conn| requests::one(conn, &sealer, id)).await
    }

    async fn requests_of(
        &self,
        tenant: TenantId,
        filter: RequestFilter,
        before: Option<DeviceRequestId>,
        limit: usize,
    ) -> Result<Vec<DeviceRequest>, StoreError> {
        let page = RequestPage { tenant, filter, before, limit };
        let sealer = self.sealer.clone();
        self.readers.read(move |conn| page.read(conn, &sealer)).await
    }

    async fn requests_in_care(
        &self,
        after: Option<DeviceRequestId>,
        limit: usize,
    ) -> Result<Vec<DeviceRequest>, StoreError> {
        let sealer = self.sealer.clone();
        self.readers.read(move |conn| requests::in_care(conn, &sealer, after, limit)).await
    }

    async fn task_sent(
        &self,
        tenant: TenantId,
        gateway: &GatewaySn,
        method: &str,
        task: &str,
    ) -> Result<Option<RawJson>, StoreError> {
        let (gateway, method, task) = (gateway.clone(), method.to_owned(), task.to_owned());
        let of_task = OfTask { tenant, gateway, method, task };
        let sealer = self.sealer.clone();
        let found = self.readers.read(move |conn| of_task.find(conn, &sealer)).await?;
        Ok(found.map(|command| command.spec.payload.clone()))
    }

    async fn task_state(
        &self,
        tenant: TenantId,
        gateway: &GatewaySn,
        method: &str,
        task: &str,
    ) -> Result<Option<TaskState>, StoreError> {
        let (gateway, method, task) = (gateway.clone(), method.to_owned(), task.to_owned());
        let of_task = OfTask { tenant, gateway, method, task };
        let sealer = self.sealer.clone();
        self.readers.read(move |conn| of_task.state(conn, &sealer)).await
    }

    async fn rules_generation(&self) -> Result<u64, StoreError> {
        self.readers.read(requests_rules::generation).await
    }

    async fn rules(&self) -> Result<Vec<SetRule>, StoreError> {
        self.readers.read(requests_rules::every).await
    }

    async fn put_rule(&self, rule: SetRule) -> Result<RuleSet, StoreError> {
        self.write(Lane::Normal, move |batch| requests_rules::put(batch, &rule)).await
    }

    async fn remove_rule(&self, scope: Scope) -> Result<bool, StoreError> {
        self.write(Lane::Normal, move |batch| requests_rules::remove(batch, &scope)).await
    }
}

#[async_trait]
impl FleetStore for SqliteStore {
    async fn keep_sightings(&self, seen: Vec<Sighting>) -> Result<(), StoreError> {
        self.write(Lane::Normal, move |batch| fleet::keep_sightings(batch, &seen)).await
    }

    async fn sightings(&self) -> Result<Vec<Sighting>, StoreError> {
        self.readers.read(fleet::sightings).await
    }

    async fn joined(&self) -> Result<Vec<(GatewaySn, DeviceSn)>, StoreError> {
        self.readers.read(fleet::joined).await
    }

    async fn order(&self, order: DeviceOrder, by: By) -> Result<Ordered, StoreError> {
        self.write(Lane::Normal, move |batch| fleet::order(batch, &order, &by)).await
    }

    async fn bind(&self, bind: Bind) -> Result<Bound, StoreError> {
        let subs = subs_json(&bind.subs)?;
        self.write(Lane::Normal, move |batch| fleet::bind(batch, &bind, &subs)).await
    }

    async fn bind_answering(
        &self,
        bind: Bind,
        seen: StatusVersion,
        request: Arc<DeviceRequest>,
    ) -> Result<BoundAnswer, StoreError> {
        let subs = subs_json(&bind.subs)?;
        let answer = SealedRequest::new(request, &self.sealer)?;
        self.write(Lane::Normal, move |batch| {
            fleet::bind_answering(batch, &bind, &subs, seen, &answer)
        })
        .await
    }

    async fn device_record(&self, sn: &DeviceSn) -> Result<Vec<DeviceRecord>, StoreError> {
        let sn = sn.clone();
        self.readers.read(move |conn| fleet::device_record(conn, &sn)).await
    }

    async fn add_binding_code(
        &self,
        code: BindingCode,
        active_max: usize,
    ) -> Result<bool, StoreError> {
        self.write(Lane::Normal, move |batch| fleet::add_code(batch, &code, active_max)).await
    }

    async fn binding_codes(&self) -> Result<Vec<BindingCode>, StoreError> {
        self.readers.read(fleet::codes).await
    }

    async fn revoke_binding_code(
        &self,
        tenant: TenantId,
        id: BindingCodeId,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(Lane::Normal, move |batch| fleet::revoke_code(batch, tenant, id, at)).await
    }
}
