//! A store that does as a test says, before a real one.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;
use utmos_core::{
    credential::Credential,
    device::{Device, SubDevice},
    id::{ApiId, GatewaySn},
    ports::{RegistryStore, Tenant},
};

use super::*;

/// Of a read while writes are stuck; well below what a key is waited for.
const READ_TIME: Duration = Duration::from_millis(5);

/// What becomes of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    /// They are well at once, whatever the disk does, since nothing is written.
    Quick,
    /// They wait, and are then written.
    Slow,
    /// They wait, and are then refused.
    Stuck,
    /// They wait for the next transaction, as nonces alone do then as well.
    InTurns,
}

/// After how many more writes its process dies, and whether the writes that are under way then are made all the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Death {
    pub(super) after: usize,
    pub(super) is_written: bool,
}

pub(super) struct Scripted {
    pub(super) inner: Arc<dyn Store>,
    mood: Mutex<Mood>,
    released: watch::Sender<bool>,
    /// Nonces alone are refused; else they are taken whatever the mood.
    refuses_nonces: AtomicBool,
    /// Keys that were read.
    pub(super) foreseen: AtomicUsize,
    /// Writes that were begun.
    pub(super) begun: watch::Sender<usize>,
    /// Transactions that were let through, each with all that was begun before it; with how many writes that were.
    turns: watch::Sender<(usize, usize)>,
    /// Writes that were answered, whether or not the answer was a good one.
    answered: watch::Sender<usize>,
    death: Mutex<Option<Death>>,
}

impl Scripted {
    pub(super) fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            mood: Mutex::new(Mood::Well),
            released: watch::Sender::new(false),
            refuses_nonces: AtomicBool::new(false),
            foreseen: AtomicUsize::new(0),
            begun: watch::Sender::new(0),
            turns: watch::Sender::new((0, 0)),
            answered: watch::Sender::new(0),
            death: Mutex::new(None),
        }
    }

    /// What becomes of writes that begin from now on.
    pub(super) fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Whether nonces alone are refused from now on.
    pub(super) fn refuses_nonces(&self, refuses: bool) {
        self.refuses_nonces.store(refuses, Ordering::SeqCst);
    }

    /// Whatever waits goes on.
    pub(super) fn release(&self) {
        self.released.send_replace(true);
    }

    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    /// Its process dies in a while, or never.
    pub(super) fn dies(&self, death: Option<Death>) {
        *self.death.lock().unwrap() = death;
    }

    /// Lets transaction after transaction through until the work is done: each once all writes of the one before were
    /// answered, and the work has asked for whatever it asks for then. Answers how many there were.
    pub(super) async fn in_turns<T>(&self, work: impl Future<Output = T>) -> (T, usize) {
        self.is(Mood::InTurns);
        let before = self.turns.borrow().0;
        // All that is asked for at once is asked for before the next turn.
        let done = tokio::task::unconstrained(async {
            tokio::select! {
                biased;
                done = work => done,
                never = self.let_through() => match never {},
            }
        });
        let done = done.await;
        (done, self.turns.borrow().0 - before)
    }

    async fn let_through(&self) -> Infallible {
        let (mut begun, mut answered) = (self.begun.subscribe(), self.answered.subscribe());
        loop {
            let (number, taken) = *self.turns.borrow();
            answered.wait_for(|answered| *answered == taken).await.unwrap();
            let all = *begun.wait_for(|begun| *begun > taken).await.unwrap();
            self.turns.send_replace((number + 1, all));
        }
    }

    async fn write<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let is_dead = {
            let mut death = self.death.lock().unwrap();
            match death.as_mut() {
                Some(Death { after: 0, is_written }) => Some(*is_written),
                Some(death) => {
                    death.after -= 1;
                    None
                }
                None => None,
            }
        };
        let begun = self.begin().await;
        let answer = match (begun, is_dead) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(false)) => Err(made_so()),
            (Ok(()), Some(true)) => work.await.and(Err(made_so())),
            (Ok(()), None) => work.await,
        };
        self.answered.send_modify(|answered| *answered += 1);
        answer
    }

    async fn begin(&self) -> Result<(), StoreError> {
        let mood = self.mood();
        let mut turns = self.turns.subscribe();
        let mut number = 0;
        self.begun.send_modify(|begun| {
            *begun += 1;
            number = *begun;
        });
        if mood == Mood::InTurns {
            turns.wait_for(|(_, taken)| *taken >= number).await.unwrap();
        }
        if matches!(mood, Mood::Slow | Mood::Stuck) {
            self.released.subscribe().wait_for(|released| *released).await.unwrap();
        }
        match mood {
            Mood::Well | Mood::Quick | Mood::Slow | Mood::InTurns => Ok(()),
            Mood::Stuck => Err(made_so()),
        }
    }
}

fn made_so() -> StoreError {
    StoreError::Unavailable("made so by a test".to_owned())
}

#[async_trait]
impl CommandStore for Scripted {
    async fn accept(
        &self,
        nonce: Option<NonceUse>,
        new: NewCommand,
    ) -> Result<Accepted, StoreError> {
        let accept = async {
            match self.mood() {
                Mood::Quick => Ok(Accepted::New),
                Mood::Well | Mood::Slow | Mood::Stuck | Mood::InTurns => {
                    self.inner.accept(nonce, new).await
                }
            }
        };
        self.write(accept).await
    }

    async fn foresee(&self, new: NewCommand) -> Result<Accepted, StoreError> {
        self.foreseen.fetch_add(1, Ordering::SeqCst);
        if self.mood() == Mood::Stuck {
            // A read takes its time as well then.
            tokio::time::sleep(READ_TIME).await;
        }
        self.inner.foresee(new).await
    }

    async fn advance(&self, advance: Advance) -> Result<Advanced, StoreError> {
        self.write(self.inner.advance(advance)).await
    }

    async fn spend_nonce(&self, nonce: NonceUse) -> Result<Nonce, StoreError> {
        if self.refuses_nonces.load(Ordering::SeqCst) {
            return Err(made_so());
        }
        let may_die = self.death.lock().unwrap().is_some();
        match may_die || self.mood() == Mood::InTurns {
            true => self.write(self.inner.spend_nonce(nonce)).await,
            false => self.inner.spend_nonce(nonce).await,
        }
    }

    fn knows_nonce(&self, nonce: &NonceUse) -> bool {
        self.inner.knows_nonce(nonce)
    }

    async fn forget_nonces(&self, at: Timestamp) -> Result<usize, StoreError> {
        self.inner.forget_nonces(at).await
    }

    async fn command(&self, id: CommandId) -> Result<Option<Command>, StoreError> {
        self.inner.command(id).await
    }

    async fn command_of(
        &self,
        tenant: TenantId,
        id: CommandId,
    ) -> Result<Option<Command>, StoreError> {
        self.inner.command_of(tenant, id).await
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

    async fn newest_record(&self) -> Result<Option<Timestamp>, StoreError> {
        self.inner.newest_record().await
    }

    async fn keep_unmatched(&self, unmatched: Unmatched) -> Result<(), StoreError> {
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

/// No test of the journal asks for any of it.
#[async_trait]
impl RegistryStore for Scripted {
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
        self.inner.put_topology(gateway, new, subs).await
    }

    async fn topologies(&self) -> Result<Vec<(GatewaySn, Vec<SubDevice>)>, StoreError> {
        self.inner.topologies().await
    }
}
