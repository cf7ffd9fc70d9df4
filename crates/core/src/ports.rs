//! What lives outside and is called from here: the store, and the dice.
//!
//! Each method of a store is one transaction, durable (on the disk, not only handed to the system) when it returns, unless it
//! says otherwise.

mod allowances;
mod events;
mod fleet;
mod history;
mod lines;
mod replicas;
mod requests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    command::{Command, Life, Spec, Status, StatusVersion},
    credential::Credential,
    device::{Device, SubDevice},
    evidence::Entry,
    id::{ApiId, CommandId, DeviceSn, GatewaySn, TenantId},
    method::Risk,
    replica::Shard,
    signing::{NonceUse, RequestTimes},
    time::Timestamp,
};

pub use self::{
    allowances::{AllowanceStore, Charge},
    events::{EventBatch, EventFilter, EventStore, KeptEdge},
    fleet::{
        Bind, Bound, BoundAnswer, By, DeviceEdit, DeviceOrder, DeviceRecord, FleetStore, Ordered,
        Recorded, Sighting,
    },
    history::{
        DeviceTelemetry, History, SamplePlace, SampleRange, SamplesRead, TelemetryRules,
        TelemetryStore, Tidied,
    },
    lines::{
        ANSWERED_AGE_MAX, ASKED_WAIT_MAX, Answer, Asked, DirectLines, LineHeard, NoLines, Taken,
        Unheard,
    },
    replicas::{Joined, ReplicaStore},
    requests::{
        Changed as RequestChanged, Kept as RequestKept, RequestFilter, RequestStore, RuleSet,
        TaskState,
    },
};

/// Whether [`CommandStore::open_commands_of`] answers a command of this gateway and this risk.
#[must_use]
pub fn is_of(shards: &BTreeSet<Shard>, gateway: &GatewaySn, risk: Risk) -> bool {
    risk == Risk::Emergency || shards.contains(&Shard::of(gateway))
}

/// Makes ids. The only source of randomness a decision may depend on.
pub trait Ids: Send + Sync {
    /// A UUID of version 7 for this moment.
    fn ordered(&self, at: Timestamp) -> Uuid;
    /// A UUID of version 4.
    fn random(&self) -> Uuid;
}

/// Why the store did not do it. What is expected is a value; this is not.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or written now: disk full, read-only, locked, closed.
    #[error("the store cannot be written or read now: {0}")]
    Unavailable(String),
    /// What it holds cannot be read.
    #[error("the store holds something that cannot be read: {0}")]
    Damaged(String),
}

/// A command that is to be accepted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewCommand {
    /// What is asked for.
    pub spec: Arc<Spec>,
    /// How its life begins.
    pub life: Arc<Life>,
    /// Its first lines.
    pub entries: Vec<Entry>,
}

/// What became of a command that was to be accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accepted {
    /// It is stored, and its server looks after it.
    New,
    /// It is stored unclaimed, however its life was to begin, and handed to whoever holds the shard of its gateway: another
    /// server, or this one, where what was handed to it before for that shard has not been taken in. Only where several
    /// servers share a store, and never of an emergency.
    Elsewhere,
    /// The key was used before with an equal body.
    Replayed {
        /// The command of that time.
        id: CommandId,
        /// When it was accepted.
        accepted_at: Timestamp,
        /// How it stands today.
        status: Status,
    },
    /// The key was used before with another body; nothing is stored but the nonce.
    Conflict {
        /// The command of that time.
        id: CommandId,
    },
    /// Another movement of the aircraft is running; nothing is stored but the nonce.
    Busy {
        /// The command in the way.
        id: CommandId,
        /// Its method.
        method: String,
    },
    /// The nonce was used before; nothing is stored.
    NonceReplayed,
}

/// What became of a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nonce {
    /// It is remembered now.
    Spent,
    /// It was used before.
    Replayed,
}

/// What became of the nonce of a request that only reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadNonce {
    /// It is remembered now.
    Spent,
    /// It was used before.
    Replayed,
    /// The machine went down with nonces that were not on the disk, and the request was signed around then: nobody knows any
    /// more whether it was answered.
    Unclear {
        /// What is signed later can be told apart.
        up_to: Timestamp,
    },
}

impl From<Nonce> for ReadNonce {
    fn from(nonce: Nonce) -> Self {
        match nonce {
            Nonce::Spent => Self::Spent,
            Nonce::Replayed => Self::Replayed,
        }
    }
}

/// A change of a command.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Advance {
    /// Which.
    pub id: CommandId,
    /// The version it must still have.
    pub seen: StatusVersion,
    /// How it stands afterwards; the same version as `seen` when only evidence is added.
    pub life: Arc<Life>,
    /// What goes on its timeline.
    pub entries: Arc<[Entry]>,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advanced {
    /// It is stored.
    Yes,
    /// Somebody else moved the command first; nothing is stored.
    Lost,
    /// It would begin a sending that is another server's to begin; nothing is stored.
    Elsewhere,
    /// It would begin the sending of a movement, and this emergency of its aircraft was accepted after that, perhaps by
    /// another server; nothing is stored. Only where several servers share a store. One that is being stored at the same
    /// moment is not seen.
    Preempted(CommandId),
}

/// Which commands to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandFilter {
    /// Of this device.
    pub device: Option<DeviceSn>,
    /// In this state.
    pub status: Option<Status>,
    /// Of this method.
    pub method: Option<String>,
    /// Accepted at this time or later.
    pub accepted_after: Option<Timestamp>,
    /// Accepted before this time.
    pub accepted_before: Option<Timestamp>,
    /// Only of these devices (the credential's own limit).
    pub devices: Option<BTreeSet<DeviceSn>>,
    /// This one and newer ones: what [`CommandStore::list_floor`] answered.
    pub down_to: Option<CommandId>,
}

impl CommandFilter {
    /// Whether it leaves out some of the commands it has to look at.
    #[must_use]
    pub fn leaves_out(&self) -> bool {
        self.status.is_some()
            || self.method.is_some()
            || self.accepted_after.is_some()
            || self.accepted_before.is_some()
    }
}

/// A message of a device that belongs to no command, or could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmatched {
    /// Its id, version 7.
    pub id: Uuid,
    /// The tenant of the gateway, where the gateway is known.
    pub tenant: Option<TenantId>,
    /// The gateway, where the topic names one.
    pub gateway: Option<GatewaySn>,
    /// The topic it came on.
    pub topic: String,
    /// Its `tid`, where readable.
    pub tid: Option<String>,
    /// Its method, where readable.
    pub method: Option<String>,
    /// Why it belongs to nothing.
    pub reason: String,
    /// What came, cut to a named length, with unreadable bytes replaced.
    pub raw: String,
    /// When it came.
    pub received_at: Timestamp,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name, unique.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// How much waits in a store and how much it has done, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreDepths {
    /// Writes of emergencies that are not answered yet.
    pub urgent_writes: usize,
    /// All other writes that are not answered yet.
    pub writes: usize,
    /// Emergencies that went out while the store was unwell and are not on record yet.
    pub unsettled: usize,
    /// Transactions that were committed, each of them one sync of the database's log.
    pub commits: u64,
}

/// Commands and what is known of them.
#[async_trait]
pub trait CommandStore: Send + Sync {
    /// Why new commands cannot be stored now, as far as is known, with the remedy; `None` while all is well. Answers at
    /// once. Whatever stands before another store passes this on.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// How much waits in it, and how much it has done. Nothing in one without queues.
    fn depths(&self) -> StoreDepths {
        StoreDepths::default()
    }

    /// Whether it may hold a command, or come to hold it, that it has not said to be accepted; told at once. `false` in a
    /// store that answers only when it is certain. Whatever stands before another store asks that one as well.
    fn may_hold(&self, _: CommandId) -> bool {
        false
    }

    /// Stores a command and spends the nonce of its request, or says why not.
    ///
    /// The order of the checks: nonce, idempotency key, one motion at a time (waived for emergencies).
    async fn accept(
        &self,
        nonce: Option<NonceUse>,
        new: NewCommand,
    ) -> Result<Accepted, StoreError>;

    /// What would become of a command that were accepted now, but for its nonce. Stores nothing, and promises nothing.
    async fn foresee(&self, new: NewCommand) -> Result<Accepted, StoreError>;

    /// Saves a change if the command is still at the version it had, also one that only adds evidence: what an answer
    /// means depends on how the command stood when it was judged. Entries beyond a named limit of evidence per
    /// command are dropped; transitions are always kept.
    async fn advance(&self, advance: Advance) -> Result<Advanced, StoreError>;

    /// Remembers a nonce. Nonces are unique over all credentials, since the API id is part of the key.
    async fn spend_nonce(&self, nonce: NonceUse) -> Result<Nonce, StoreError>;

    /// Remembers the nonce of a request that only reads. When this returns it need not be on the disk, as long as the same
    /// request is refused all the same after a crash, and after a power cut.
    async fn spend_nonce_to_read(
        &self,
        nonce: NonceUse,
        _: RequestTimes,
    ) -> Result<ReadNonce, StoreError> {
        self.spend_nonce(nonce).await.map(ReadNonce::from)
    }

    /// Whether a nonce is known to have been spent, told without the disk: also while nothing can be written.
    fn knows_nonce(&self, nonce: &NonceUse) -> bool;

    /// Forgets nonces that need not be remembered at this time. Answers how many.
    async fn forget_nonces(&self, at: Timestamp) -> Result<usize, StoreError>;

    /// A command, of whichever tenant: for the driver, which serves all.
    async fn command(&self, id: CommandId) -> Result<Option<Command>, StoreError>;

    /// Some commands, in no order. Those that are not there, or cannot be read, are left out.
    async fn commands(&self, ids: Vec<CommandId>) -> Result<Vec<Command>, StoreError> {
        let mut found = Vec::new();
        for id in ids {
            match self.command(id).await {
                Ok(command) => found.extend(command),
                Err(StoreError::Damaged(_)) => {}
                Err(error @ StoreError::Unavailable(_)) => return Err(error),
            }
        }
        Ok(found)
    }

    /// A command of this tenant.
    async fn command_of(
        &self,
        tenant: TenantId,
        id: CommandId,
    ) -> Result<Option<Command>, StoreError>;

    /// Down to where one page of such a list may look, where that is not the end: what the filter leaves out may be far more
    /// than what it finds, and nobody waits for a look at all of it. The next page begins before this place, which need not be a
    /// command.
    async fn list_floor(
        &self,
        tenant: TenantId,
        filter: CommandFilter,
        before: Option<CommandId>,
    ) -> Result<Option<CommandId>, StoreError>;

    /// Commands of this tenant, newest first, that are older than `before`.
    async fn commands_of(
        &self,
        tenant: TenantId,
        filter: CommandFilter,
        before: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<Command>, StoreError>;

    /// A command's timeline, oldest first. The caller has checked whose it is.
    async fn timeline(&self, id: CommandId) -> Result<Vec<Entry>, StoreError>;

    /// Commands that still need somebody to look after them, oldest first, that come after `after`.
    async fn open_commands(
        &self,
        after: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<Command>, StoreError>;

    /// Of these, those whose gateways are in `shards`, and every emergency. Fewer than `limit` may be answered before the last of
    /// them, and none after it.
    async fn open_commands_of(
        &self,
        shards: &BTreeSet<Shard>,
        mut after: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<Command>, StoreError> {
        loop {
            let mut page = self.open_commands(after, limit).await?;
            let Some(last) = page.last() else { return Ok(page) };
            after = Some(last.spec.id);
            page.retain(|command| is_of(shards, &command.spec.gateway, command.spec.risk));
            if !page.is_empty() {
                return Ok(page);
            }
        }
    }

    /// An emergency of this command's aircraft that was accepted after it, if there is one: a movement from before it must
    /// not leave any more, also after a restart. What shares an aircraft, [`Spec::shares_aircraft_with`] says.
    async fn emergency_after(&self, spec: &Spec) -> Result<Option<CommandId>, StoreError>;

    /// The same of many commands at once, each with its emergency; one without an emergency is left out.
    async fn emergencies_after(
        &self,
        specs: &[Arc<Spec>],
    ) -> Result<BTreeMap<CommandId, CommandId>, StoreError>;

    /// The latest wall time on record, by which a clock that was set back is noticed.
    async fn newest_record(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Keeps a message that belongs to nothing; only the newest of a tenant are kept, to a named limit.
    async fn keep_unmatched(&self, unmatched: Unmatched) -> Result<(), StoreError>;

    /// Messages of this tenant, or of nobody's device (`None`), that belong to nothing, newest first, that come before `before` in that order.
    async fn unmatched_of(
        &self,
        tenant: Option<TenantId>,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Unmatched>, StoreError>;
}

/// Tenants, credentials and devices: what an administrator sets up.
#[async_trait]
pub trait RegistryStore: Send + Sync {
    /// Rises with every change of tenants, credentials or devices by whichever process, so that caches can follow.
    async fn generation(&self) -> Result<u64, StoreError>;

    /// Adds or renames a tenant.
    async fn put_tenant(&self, tenant: Tenant) -> Result<(), StoreError>;
    /// Every tenant, by name.
    async fn tenants(&self) -> Result<Vec<Tenant>, StoreError>;

    /// Adds or replaces a credential; its secrets are encrypted at rest.
    async fn put_credential(&self, credential: Credential) -> Result<(), StoreError>;
    /// A credential with its secrets.
    async fn credential(&self, api_id: &ApiId) -> Result<Option<Credential>, StoreError>;
    /// Every credential, oldest first.
    async fn credentials(&self) -> Result<Vec<Credential>, StoreError>;

    /// Every device, by serial number. What changes them is [`FleetStore::order`], which puts it on record.
    async fn devices(&self) -> Result<Vec<Device>, StoreError>;

    /// Remembers what stands behind a gateway, and adds the sub-devices that are new as devices of its tenant.
    async fn put_topology(
        &self,
        gateway: &GatewaySn,
        new: Vec<Device>,
        subs: Vec<SubDevice>,
    ) -> Result<(), StoreError>;
    /// What stood behind each gateway last.
    async fn topologies(&self) -> Result<Vec<(GatewaySn, Vec<SubDevice>)>, StoreError>;
}

/// A store, whole.
pub trait Store: CommandStore + RegistryStore {}
impl<T: CommandStore + RegistryStore> Store for T {}
