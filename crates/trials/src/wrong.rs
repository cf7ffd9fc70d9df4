//! What stands between the driver and the journal: it notes what the driver wanted, and where a mutation of the journal is
//! on, it undoes what was mended there once.

use std::{collections::BTreeMap, future::poll_fn, sync::Arc, task::Poll};

use async_trait::async_trait;
use utmos_core::{
    command::{Command, Spec},
    credential::Credential,
    device::{Device, SubDevice},
    evidence::{Entry, Proof},
    id::{ApiId, CommandId, GatewaySn, TenantId},
    method::Risk,
    ports::{
        Accepted, Advance, Advanced, CommandFilter, CommandStore, NewCommand, Nonce, RegistryStore,
        Store, StoreDepths, StoreError, Tenant, Unmatched,
    },
    signing::NonceUse,
    time::Timestamp,
};
use uuid::Uuid;

use crate::{life::LifeLine, mutation::Mutation, world::World};

tokio::task_local! {
    static SETTLING: ();
}

/// Runs what puts a journal on record, so that the store knows by whom it is asked.
pub(crate) async fn settling<T>(work: impl Future<Output = T>) -> T {
    SETTLING.scope((), work).await
}

pub(crate) fn is_settling() -> bool {
    SETTLING.try_with(|()| ()).is_ok()
}

/// The store as the driver sees it.
pub(crate) struct Wanted {
    pub(crate) world: Arc<World>,
    pub(crate) line: LifeLine,
    /// With the journal before it, where there is one.
    pub(crate) store: Arc<dyn Store>,
    pub(crate) bare: Arc<dyn Store>,
}

impl Wanted {
    fn is_mutated(&self, mutation: Mutation) -> bool {
        self.world.mutation == Some(mutation)
    }

    /// Whom a command is asked of.
    fn before(&self, new: &NewCommand) -> &Arc<dyn Store> {
        let passes_by =
            self.is_mutated(Mutation::JournalInNobodysWay) && new.spec.risk != Risk::Emergency;
        if passes_by { &self.bare } else { &self.store }
    }
}

impl World {
    /// Whether another command of this key is known already.
    fn is_asked_again(&self, spec: &Spec) -> bool {
        self.state().known.values().any(|known| {
            known.spec.id != spec.id && known.spec.idempotency_key == spec.idempotency_key
        })
    }
}

#[async_trait]
impl CommandStore for Wanted {
    fn trouble(&self) -> Option<String> {
        self.store.trouble()
    }

    fn depths(&self) -> StoreDepths {
        self.store.depths()
    }

    fn may_hold(&self, id: CommandId) -> bool {
        self.store.may_hold(id)
    }

    async fn accept(
        &self,
        nonce: Option<NonceUse>,
        new: NewCommand,
    ) -> Result<Accepted, StoreError> {
        if self.is_mutated(Mutation::PanicAtAccept) {
            panic!("made so by the trial");
        }
        if self.is_mutated(Mutation::NeverIdle) {
            poll_fn(|context| {
                context.waker().wake_by_ref();
                Poll::<()>::Pending
            })
            .await;
        }
        let forgets = self.is_mutated(Mutation::JournalAnswerNotRemembered)
            && self.world.store_fails().is_some()
            && self.world.is_asked_again(&new.spec);
        let id = new.spec.id;
        self.world.note_asked(&self.line, &new);
        let answer = self.before(&new).accept(nonce.filter(|_| !forgets), new).await;
        if matches!(answer, Ok(Accepted::Replayed { id: other, .. }) if other != id) {
            self.world.state().copies.insert(id);
        }
        if answer.is_err() {
            self.world.state().unsaid.insert(id);
        }
        answer
    }

    async fn foresee(&self, new: NewCommand) -> Result<Accepted, StoreError> {
        self.before(&new).foresee(new).await
    }

    async fn advance(&self, mut advance: Advance) -> Result<Advanced, StoreError> {
        self.world.note_decided(&self.line, &advance);
        if self.is_mutated(Mutation::JournalFilledByTalk) {
            let entries = Arc::make_mut(&mut advance.entries);
            for entry in entries.iter_mut().filter(|entry| entry.from == entry.to) {
                entry.proof = Proof::NotSent { reason: format!("{:?}", entry.proof) };
            }
        }
        self.store.advance(advance).await
    }

    async fn spend_nonce(&self, nonce: NonceUse) -> Result<Nonce, StoreError> {
        self.store.spend_nonce(nonce).await
    }

    fn knows_nonce(&self, nonce: &NonceUse) -> bool {
        self.store.knows_nonce(nonce)
    }

    async fn forget_nonces(&self, at: Timestamp) -> Result<usize, StoreError> {
        self.store.forget_nonces(at).await
    }

    async fn command(&self, id: CommandId) -> Result<Option<Command>, StoreError> {
        self.store.command(id).await
    }

    async fn command_of(
        &self,
        tenant: TenantId,
        id: CommandId,
    ) -> Result<Option<Command>, StoreError> {
        self.store.command_of(tenant, id).await
    }

    async fn list_floor(
        &self,
        tenant: TenantId,
        filter: CommandFilter,
        before: Option<CommandId>,
    ) -> Result<Option<CommandId>, StoreError> {
        self.store.list_floor(tenant, filter, before).await
    }

    async fn commands_of(
        &self,
        tenant: TenantId,
        filter: CommandFilter,
        before: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<Command>, StoreError> {
        self.store.commands_of(tenant, filter, before, limit).await
    }

    async fn timeline(&self, id: CommandId) -> Result<Vec<Entry>, StoreError> {
        self.store.timeline(id).await
    }

    async fn open_commands(
        &self,
        after: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<Command>, StoreError> {
        if self.is_mutated(Mutation::PanicAtStart) {
            panic!("made so by the trial");
        }
        self.store.open_commands(after, limit).await
    }

    async fn emergency_after(&self, spec: &Spec) -> Result<Option<CommandId>, StoreError> {
        self.store.emergency_after(spec).await
    }

    async fn emergencies_after(
        &self,
        specs: &[Arc<Spec>],
    ) -> Result<BTreeMap<CommandId, CommandId>, StoreError> {
        self.store.emergencies_after(specs).await
    }

    async fn newest_record(&self) -> Result<Option<Timestamp>, StoreError> {
        self.store.newest_record().await
    }

    async fn keep_unmatched(&self, unmatched: Unmatched) -> Result<(), StoreError> {
        self.store.keep_unmatched(unmatched).await
    }

    async fn unmatched_of(
        &self,
        tenant: Option<TenantId>,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Unmatched>, StoreError> {
        self.store.unmatched_of(tenant, before, limit).await
    }
}

#[async_trait]
impl RegistryStore for Wanted {
    async fn generation(&self) -> Result<u64, StoreError> {
        self.store.generation().await
    }

    async fn put_tenant(&self, tenant: Tenant) -> Result<(), StoreError> {
        self.store.put_tenant(tenant).await
    }

    async fn tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        self.store.tenants().await
    }

    async fn put_credential(&self, credential: Credential) -> Result<(), StoreError> {
        self.store.put_credential(credential).await
    }

    async fn credential(&self, api_id: &ApiId) -> Result<Option<Credential>, StoreError> {
        self.store.credential(api_id).await
    }

    async fn credentials(&self) -> Result<Vec<Credential>, StoreError> {
        self.store.credentials().await
    }

    async fn devices(&self) -> Result<Vec<Device>, StoreError> {
        self.store.devices().await
    }

    async fn put_topology(
        &self,
        gateway: &GatewaySn,
        new: Vec<Device>,
        subs: Vec<SubDevice>,
    ) -> Result<(), StoreError> {
        self.store.put_topology(gateway, new, subs).await
    }

    async fn topologies(&self) -> Result<Vec<(GatewaySn, Vec<SubDevice>)>, StoreError> {
        self.store.topologies().await
    }
}
