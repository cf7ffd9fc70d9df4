//! The store of one run of the server: it queues, writes in groups, fails, is slow, and dies with its process.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use rand::RngExt;
use tokio::sync::{mpsc, oneshot};
use utmos_core::{
    command::{Command, Phase, Spec},
    credential::Credential,
    device::{Device, SubDevice},
    evidence::Entry,
    id::{ApiId, CommandId, GatewaySn, TenantId},
    ports::{
        Accepted, Advance, Advanced, CommandFilter, CommandStore, NewCommand, Nonce, RegistryStore,
        StoreError, Tenant, Unmatched,
    },
    signing::NonceUse,
    time::Timestamp,
};
use uuid::Uuid;

use crate::{
    disk::{At, Disk},
    life::LifeLine,
    mutation::Mutation,
    world::{Known, World},
    wrong,
};

/// How a group of writes ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Written,
    Refused,
    /// Written, and said not to be.
    Lied,
}

/// A write that waits. Run once; what it gives back tells the caller, later.
type Write = Box<dyn FnOnce(&mut Disk, At, End) -> Tell + Send>;
type Tell = Box<dyn FnOnce() + Send>;

/// The store as one run of the server sees it.
pub(crate) struct TrialStore {
    pub(crate) world: Arc<World>,
    pub(crate) line: LifeLine,
    queue: mpsc::UnboundedSender<Write>,
}

impl TrialStore {
    pub(crate) fn open(world: Arc<World>, line: LifeLine) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        tokio::spawn(write_groups(world.clone(), line.clone(), waiting));
        Self { world, line, queue }
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Disk, At) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (tell, told) = oneshot::channel();
        if self.world.is_cut_off(self.line.server) {
            return Err(refused());
        }
        let write: Write = Box::new(move |disk, at, end| {
            let answer = match end {
                End::Written => work(disk, at),
                End::Refused => {
                    // A real store says itself what it cannot write.
                    if disk.has_twin() {
                        drop(work(disk, at));
                    }
                    Err(refused())
                }
                End::Lied => {
                    drop(work(disk, at));
                    Err(refused())
                }
            };
            Box::new(move || drop(tell.send(answer)))
        });
        // In its place at once: writes of one task, of which it may have several under way, keep their order.
        drop(self.queue.send(write));
        let Ok(answer) = told.await else {
            // The process is gone, and nothing of it goes on.
            return std::future::pending().await;
        };
        self.give_way().await;
        answer
    }

    /// Whether others go on first is the seed's; a process that died meanwhile does not go on.
    async fn give_way(&self) {
        self.world.give_way().await;
        self.line.or_never().await;
    }

    /// Tells the caller before anything is durable.
    fn write_later<T: Send + 'static>(
        &self,
        answer: T,
        work: impl FnOnce(&mut Disk, At) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        let write: Write = Box::new(move |disk, at, end| {
            if !matches!(end, End::Refused) {
                drop(work(disk, at));
            }
            Box::new(|| {})
        });
        drop(self.queue.send(write));
        answer
    }

    pub(crate) async fn read<T>(
        &self,
        look: impl FnOnce(&Disk) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let pause = self.world.dice(|dice| dice.random_range(0..=1));
        tokio::time::sleep(Duration::from_millis(pause)).await;
        self.give_way().await;
        if self.world.reads_fail() || self.world.is_cut_off(self.line.server) {
            return Err(refused());
        }
        let answer = look(&self.world.state().disk);
        self.give_way().await;
        answer
    }
}

impl TrialStore {
    /// As it was once: where the nonce had been spent, the key was taken for somebody else's.
    fn rename(&self, nonce: Option<NonceUse>, new: &mut NewCommand) {
        let id = new.spec.id;
        let is_second = nonce.is_none() && self.world.state().disk.has_met_spent_nonce(id);
        if is_second && wrong::is_settling() && !new.spec.idempotency_key.contains('#') {
            let mut spec = (*new.spec).clone();
            spec.idempotency_key = format!("{}#emergency:{id}", spec.idempotency_key);
            new.spec = Arc::new(spec);
        }
    }
}

impl World {
    /// Notes a command that is to be accepted. Whether it was before: so the journal puts on record what has left already.
    fn asks_again(&self, spec: &Arc<Spec>, server: u8) -> bool {
        let known = Known { spec: spec.clone(), asked: self.clock.elapsed(), server };
        let mut state = self.state();
        let is_known = state.known.contains_key(&spec.id);
        state.known.entry(spec.id).or_insert(known);
        is_known
    }
}

/// Takes whatever waits, writes it together, and tells everybody afterwards.
async fn write_groups(
    world: Arc<World>,
    line: LifeLine,
    mut waiting: mpsc::UnboundedReceiver<Write>,
) {
    while let Some(first) = waiting.recv().await {
        world.give_way().await;
        line.or_never().await;
        let mut group = vec![first];
        while let Ok(next) = waiting.try_recv() {
            group.push(next);
        }
        let (sync, tell) = world.dice(|dice| (dice.random_range(1..=4), dice.random_range(0..=2)));
        tokio::time::sleep(Duration::from_millis(sync + world.store_slowness())).await;
        if line.is_dead() {
            return;
        }
        let end = match world.store_fails() {
            None => End::Written,
            Some(lies) if world.dice(|dice| dice.random_range(0..100)) < u32::from(lies) => {
                End::Lied
            }
            Some(_) => End::Refused,
        };
        let at = At { elapsed: world.clock.elapsed(), life: line.number };
        let tells: Vec<Tell> = {
            let mut state = world.state();
            let write_all =
                |disk: &mut Disk| group.into_iter().map(|write| write(disk, at, end)).collect();
            let tells = match end {
                End::Written | End::Lied => state.disk.as_one(write_all),
                End::Refused => state.disk.while_upset(write_all),
            };
            state.check_written(at.elapsed);
            tells
        };
        tokio::time::sleep(Duration::from_millis(tell)).await;
        line.or_never().await;
        tells.into_iter().for_each(|tell| tell());
    }
}

/// What the store says of a row that was damaged.
fn damaged(disk: &Disk, id: CommandId, key: Option<(TenantId, &str)>) -> Result<(), StoreError> {
    if !disk.meets_damage(id, key) {
        return Ok(());
    }
    let why = format!("the row of {id} cannot be read");
    // A journal that takes this for a store that is unwell waits for it for ever.
    match disk.is_mutated(Mutation::JournalStuckOnDamage) {
        true => Err(StoreError::Unavailable(why)),
        false => Err(StoreError::Damaged(why)),
    }
}

fn damaged_by_key(disk: &Disk, spec: &Spec) -> Result<(), StoreError> {
    damaged(disk, spec.id, Some((spec.tenant, &spec.idempotency_key)))
}

fn refused() -> StoreError {
    StoreError::Unavailable("made so by the trial".to_owned())
}

#[async_trait]
impl CommandStore for TrialStore {
    async fn accept(
        &self,
        mut nonce: Option<NonceUse>,
        mut new: NewCommand,
    ) -> Result<Accepted, StoreError> {
        let is_put_on_record = self.world.asks_again(&new.spec, self.line.server);
        match self.world.mutation.filter(|_| is_put_on_record) {
            Some(Mutation::JournalReplayedAsNew) => {
                Arc::make_mut(&mut new.life).phase = Phase::Waiting;
            }
            Some(Mutation::JournalNonceForgotten) => nonce = None,
            Some(Mutation::JournalKeyRenamed) => self.rename(nonce, &mut new),
            Some(_) | None => {}
        }
        let (id, is_settling) = (new.spec.id, wrong::is_settling());
        let work = move |disk: &mut Disk, at| {
            damaged_by_key(disk, &new.spec)?;
            let accepted = disk.accept(nonce, new, is_put_on_record, at);
            if is_settling && accepted == Accepted::NonceReplayed {
                disk.met_spent_nonce(id);
            }
            Ok(accepted)
        };
        match self.world.mutation {
            Some(Mutation::AcceptBeforeDurable) => Ok(self.write_later(Accepted::New, work)),
            Some(_) | None => self.write(work).await,
        }
    }

    async fn foresee(&self, new: NewCommand) -> Result<Accepted, StoreError> {
        self.read(|disk| {
            damaged_by_key(disk, &new.spec)?;
            Ok(disk.foresee(&new))
        })
        .await
    }

    async fn advance(&self, mut advance: Advance) -> Result<Advanced, StoreError> {
        if self.world.mutation == Some(Mutation::JournalVersionsMeet) && wrong::is_settling() {
            let moves = advance.entries.iter().any(|entry| entry.from != entry.to);
            let version = if moves { advance.seen.next() } else { advance.seen };
            let life = Arc::make_mut(&mut advance.life);
            life.version = life.version.min(version);
        }
        let work = move |disk: &mut Disk, at| {
            damaged(disk, advance.id, None)?;
            Ok(disk.advance(advance, at))
        };
        match self.world.mutation {
            Some(Mutation::ClaimBeforeDurable) => Ok(self.write_later(Advanced::Yes, work)),
            Some(_) | None => self.write(work).await,
        }
    }

    async fn spend_nonce(&self, nonce: NonceUse) -> Result<Nonce, StoreError> {
        self.write(move |disk, _| Ok(disk.spend(nonce))).await
    }

    async fn forget_nonces(&self, _: Timestamp) -> Result<usize, StoreError> {
        Ok(0)
    }

    async fn command(&self, id: CommandId) -> Result<Option<Command>, StoreError> {
        let is_blind =
            self.world.mutation == Some(Mutation::JournalOverFinalStates) && wrong::is_settling();
        self.read(|disk| {
            damaged(disk, id, None)?;
            let mut command = disk.command(id);
            if let (true, Some(command)) = (is_blind, &mut command) {
                Arc::make_mut(&mut command.life).phase = Phase::Sending;
            }
            Ok(command)
        })
        .await
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
        _: TenantId,
        _: CommandFilter,
        _: Option<CommandId>,
    ) -> Result<Option<CommandId>, StoreError> {
        // Everything is in memory, and of that there is little.
        Ok(None)
    }

    async fn commands_of(
        &self,
        tenant: TenantId,
        _: CommandFilter,
        before: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<Command>, StoreError> {
        self.read(|disk| {
            let all = disk.records.values().rev().map(|record| &record.command);
            let wanted = |command: &&Command| {
                command.spec.tenant == tenant
                    && before.is_none_or(|before| command.spec.id < before)
            };
            Ok(all.filter(wanted).take(limit).cloned().collect())
        })
        .await
    }

    async fn timeline(&self, id: CommandId) -> Result<Vec<Entry>, StoreError> {
        self.read(|disk| {
            damaged(disk, id, None)?;
            Ok(disk.timeline(id))
        })
        .await
    }

    async fn open_commands(
        &self,
        after: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<Command>, StoreError> {
        // It reads much.
        let slowness = self.world.store_slowness();
        if slowness > 0 {
            tokio::time::sleep(Duration::from_millis(slowness)).await;
        }
        self.read(|disk| Ok(disk.open(after, limit))).await
    }

    async fn emergency_after(&self, spec: &Spec) -> Result<Option<CommandId>, StoreError> {
        self.read(|disk| Ok(disk.emergency_after(spec))).await
    }

    async fn emergencies_after(
        &self,
        specs: &[Arc<Spec>],
    ) -> Result<BTreeMap<CommandId, CommandId>, StoreError> {
        self.read(|disk| Ok(disk.emergencies_after(specs))).await
    }

    fn knows_nonce(&self, nonce: &NonceUse) -> bool {
        self.world.state().disk.knows(nonce)
    }

    async fn newest_record(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read(|disk| Ok(disk.newest())).await
    }

    async fn keep_unmatched(&self, _: Unmatched) -> Result<(), StoreError> {
        self.write(|_, _| Ok(())).await
    }

    async fn unmatched_of(
        &self,
        _: Option<TenantId>,
        _: Option<Uuid>,
        _: usize,
    ) -> Result<Vec<Unmatched>, StoreError> {
        Ok(Vec::new())
    }
}

/// Tenants, credentials and devices stand still in a trial.
#[async_trait]
impl RegistryStore for TrialStore {
    async fn generation(&self) -> Result<u64, StoreError> {
        Ok(1)
    }

    async fn put_tenant(&self, _: Tenant) -> Result<(), StoreError> {
        Ok(())
    }

    async fn tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        Ok(Vec::new())
    }

    async fn put_credential(&self, _: Credential) -> Result<(), StoreError> {
        Ok(())
    }

    async fn credential(&self, _: &ApiId) -> Result<Option<Credential>, StoreError> {
        Ok(None)
    }

    async fn credentials(&self) -> Result<Vec<Credential>, StoreError> {
        Ok(Vec::new())
    }

    async fn devices(&self) -> Result<Vec<Device>, StoreError> {
        self.read(|_| Ok(())).await?;
        Ok(self.world.devices())
    }

    async fn put_topology(
        &self,
        _: &GatewaySn,
        _: Vec<Device>,
        _: Vec<SubDevice>,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    async fn topologies(&self) -> Result<Vec<(GatewaySn, Vec<SubDevice>)>, StoreError> {
        Ok(self.world.topologies())
    }
}
