//! A store that a test can make slow or refuse, before the real one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use tokio::sync::watch;
use utmos_core::{
    command::{Command, Spec},
    credential::Credential,
    device::{Device, SubDevice},
    evidence::Entry,
    id::{ApiId, CommandId, GatewaySn, TenantId},
    ports::{
        Accepted, Advance, Advanced, CommandFilter, CommandStore, NewCommand, Nonce, RegistryStore,
        Store, StoreDepths, StoreError, Tenant, Unmatched,
    },
    signing::NonceUse,
    time::Timestamp,
};
use uuid::Uuid;

pub struct Unwell {
    inner: Arc<dyn Store>,
    held: watch::Sender<bool>,
    holds_acceptances: AtomicBool,
    holds_everything: AtomicBool,
    refuses: AtomicBool,
    lies: AtomicBool,
    damaged: AtomicBool,
    /// Changes that stand before the gate now.
    waiting: watch::Sender<usize>,
    refused: AtomicUsize,
    /// Commands whose acceptance was held.
    acceptances: Mutex<Vec<CommandId>>,
}

impl Unwell {
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            held: watch::Sender::new(false),
            holds_acceptances: AtomicBool::new(false),
            holds_everything: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            lies: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            waiting: watch::Sender::new(0),
            refused: AtomicUsize::new(0),
            acceptances: Mutex::default(),
        }
    }

    /// From now on changes and evidence wait.
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Whether commands that are being accepted from now on wait until [`Self::release`].
    pub fn hold_acceptances(&self, holds: bool) {
        self.holds_acceptances.store(holds, Ordering::SeqCst);
        if holds {
            self.hold();
        }
    }

    /// Commands whose acceptance was held so far.
    pub fn held_acceptances(&self) -> Vec<CommandId> {
        self.acceptances.lock().unwrap().clone()
    }

    /// From now on everything waits that has to do with commands, as when the disk hangs.
    pub fn hold_everything(&self) {
        self.holds_everything.store(true, Ordering::SeqCst);
        self.hold_acceptances(true);
    }

    pub fn release(&self) {
        self.held.send_replace(false);
    }

    /// From now on nothing that has to do with commands can be read or written, or it can again.
    pub fn damage(&self, is_damaged: bool) {
        self.damaged.store(is_damaged, Ordering::SeqCst);
    }

    fn read(&self) -> Result<(), StoreError> {
        match self.damaged.load(Ordering::SeqCst) {
            true => Err(StoreError::Damaged("made so by a test".to_owned())),
            false => Ok(()),
        }
    }

    async fn hang(&self) -> Result<(), StoreError> {
        self.read()?;
        if self.holds_everything.load(Ordering::SeqCst) {
            self.pass().await?;
        }
        Ok(())
    }

    /// From now on changes are refused, or no longer.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }

    /// The next change is written, and said not to be; those after it wait.
    pub fn lie_and_hold(&self) {
        self.lies.store(true, Ordering::SeqCst);
    }

    /// Changes that were refused so far.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// Returns once so many changes wait.
    pub async fn until_waiting(&self, count: usize) {
        self.waiting.subscribe().wait_for(|waiting| *waiting >= count).await.unwrap();
    }

    async fn pass(&self) -> Result<(), StoreError> {
        self.read()?;
        self.waiting.send_modify(|waiting| *waiting += 1);
        let held = self.held.subscribe().wait_for(|held| !held).await.map(|_| ());
        self.waiting.send_modify(|waiting| *waiting -= 1);
        if held.is_err() || self.refuses.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::Unavailable("made so by a test".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl CommandStore for Unwell {
    fn trouble(&self) -> Option<String> {
        self.inner.trouble()
    }

    fn depths(&self) -> StoreDepths {
        self.inner.depths()
    }

    async fn accept(
        &self,
        nonce: Option<NonceUse>,
        new: NewCommand,
    ) -> Result<Accepted, StoreError> {
        self.read()?;
        if self.holds_acceptances.load(Ordering::SeqCst) {
            self.acceptances.lock().unwrap().push(new.spec.id);
            self.pass().await?;
        }
        self.inner.accept(nonce, new).await
    }

    async fn foresee(&self, new: NewCommand) -> Result<Accepted, StoreError> {
        self.hang().await?;
        self.inner.foresee(new).await
    }

    async fn advance(&self, advance: Advance) -> Result<Advanced, StoreError> {
        self.pass().await?;
        let lies = self.lies.swap(false, Ordering::SeqCst);
        if lies {
            // Before it is written: who sees it written and releases what is held has it released.
            self.hold();
        }
        let answer = self.inner.advance(advance).await;
        if lies { Err(StoreError::Unavailable("made so by a test".to_owned())) } else { answer }
    }

    async fn spend_nonce(&self, nonce: NonceUse) -> Result<Nonce, StoreError> {
        self.hang().await?;
        self.inner.spend_nonce(nonce).await
    }

    async fn forget_nonces(&self, at: Timestamp) -> Result<usize, StoreError> {
        self.inner.forget_nonces(at).await
    }

    async fn command(&self, id: CommandId) -> Result<Option<Command>, StoreError> {
        self.hang().await?;
        self.inner.command(id).await
    }

    async fn command_of(
        &self,
        tenant: TenantId,
        id: CommandId,
    ) -> Result<Option<Command>, StoreError> {
        self.hang().await?;
        self.inner.command_of(tenant, id).await
    }

    async fn commands(&self, ids: Vec<CommandId>) -> Result<Vec<Command>, StoreError> {
        self.hang().await?;
        self.inner.commands(ids).await
    }

    async fn list_floor(
        &self,
        tenant: TenantId,
        filter: CommandFilter,
        before: Option<CommandId>,
    ) -> Result<Option<CommandId>, StoreError> {
        self.inner.list_floor(tenant, filter, before).await
    }

    async fn commands_of(
        &self,
        tenant: TenantId,
        filter: CommandFilter,
        before: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<Command>, StoreError> {
        self.inner.commands_of(tenant, filter, before, limit).await
    }

    async fn timeline(&self, id: CommandId) -> Result<Vec<Entry>, StoreError> {
        self.hang().await?;
        self.inner.timeline(id).await
    }

    async fn open_commands(
        &self,
        after: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<Command>, StoreError> {
        self.inner.open_commands(after, limit).await
    }

    async fn emergency_after(&self, spec: &Spec) -> Result<Option<CommandId>, StoreError> {
        self.inner.emergency_after(spec).await
    }

    async fn emergencies_after(
        &self,
        specs: &[Arc<Spec>],
    ) -> Result<BTreeMap<CommandId, CommandId>, StoreError> {
        self.inner.emergencies_after(specs).await
    }

    fn knows_nonce(&self, nonce: &NonceUse) -> bool {
        self.inner.knows_nonce(nonce)
    }

    async fn newest_record(&self) -> Result<Option<Timestamp>, StoreError> {
        self.inner.newest_record().await
    }

    async fn keep_unmatched(&self, unmatched: Unmatched) -> Result<(), StoreError> {
        self.pass().await?;
        self.inner.keep_unmatched(unmatched).await
    }

    async fn unmatched_of(
        &self,
        tenant: Option<TenantId>,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Unmatched>, StoreError> {
        self.inner.unmatched_of(tenant, before, limit).await
    }
}

#[async_trait]
impl RegistryStore for Unwell {
    async fn generation(&self) -> Result<u64, StoreError> {
        self.inner.generation().await
    }

    async fn put_tenant(&self, tenant: Tenant) -> Result<(), StoreError> {
        self.inner.put_tenant(tenant).await
    }

    async fn tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        self.inner.tenants().await
    }

    async fn put_credential(&self, credential: Credential) -> Result<(), StoreError> {
        self.inner.put_credential(credential).await
    }

    async fn credential(&self, api_id: &ApiId) -> Result<Option<Credential>, StoreError> {
        self.inner.credential(api_id).await
    }

    async fn credentials(&self) -> Result<Vec<Credential>, StoreError> {
        self.inner.credentials().await
    }

    async fn devices(&self) -> Result<Vec<Device>, StoreError> {
        self.inner.devices().await
    }

    async fn put_topology(
        &self,
        gateway: &GatewaySn,
        new: Vec<Device>,
        subs: Vec<SubDevice>,
    ) -> Result<(), StoreError> {
        self.pass().await?;
        self.inner.put_topology(gateway, new, subs).await
    }

    async fn topologies(&self) -> Result<Vec<(GatewaySn, Vec<SubDevice>)>, StoreError> {
        self.inner.topologies().await
    }
}
