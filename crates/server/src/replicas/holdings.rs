//! Which gateways are this server's.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;
use utmos_core::{
    id::{CommandId, GatewaySn},
    ports::{ReplicaStore, StoreError},
    replica::{Handed, News, ReplicaId, SHARDS, Shard},
    time::{Clock, Mono},
};
use uuid::Uuid;

const NOT_HELD: u8 = 0;
const HELD: u8 = 1;
const LEAVING: u8 = 2;
/// Held, and what is open there has not been taken into care: older commands come first.
const TAKING: u8 = 3;

/// The shards of this server, and until when it may send to them.
pub struct Holdings {
    clock: Arc<dyn Clock>,
    /// `None` for a server that works alone: everything is its own, for good.
    shared: Option<Shared>,
    handed: Notify,
}

struct Shared {
    me: ReplicaId,
    store: Arc<dyn ReplicaStore>,
    shards: [AtomicU8; SHARDS as usize],
    /// In milliseconds of the running time.
    until: AtomicU64,
    /// Whether there are other servers to be told anything.
    has_others: AtomicBool,
    /// Whether another server can do what this one cannot.
    is_another_fit: AtomicBool,
    /// By how many milliseconds the clock is ahead of the store's, where that is too much and others count by it.
    clock_off: AtomicI64,
    /// Whether the broker is reached now; told by whoever joins.
    is_linked: OnceLock<IsLinked>,
}

/// Whether the broker is reached now.
pub type IsLinked = Arc<dyn Fn() -> bool + Send + Sync>;

impl Holdings {
    /// Those of a server that has its store to itself: everything.
    #[must_use]
    pub fn alone(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, shared: None, handed: Notify::new() })
    }

    /// Those of a server that shares its store: nothing yet.
    #[must_use]
    pub fn shared(clock: Arc<dyn Clock>, store: Arc<dyn ReplicaStore>, me: ReplicaId) -> Arc<Self> {
        let shared = Shared {
            me,
            store,
            shards: std::array::from_fn(|_| AtomicU8::new(NOT_HELD)),
            until: AtomicU64::new(0),
            has_others: AtomicBool::new(true),
            is_another_fit: AtomicBool::new(false),
            clock_off: AtomicI64::new(0),
            is_linked: OnceLock::new(),
        };
        Arc::new(Self { clock, shared: Some(shared), handed: Notify::new() })
    }

    /// Whether nobody else is at work on the store.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.shared.is_none()
    }

    /// Whether what a gateway says and asks is this server's to deal with.
    #[must_use]
    pub fn holds(&self, gateway: &GatewaySn) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.state(Shard::of(gateway)) != NOT_HELD)
    }

    /// Whether this server may send to a gateway now. Not while its clock misleads: what others accepted would leave late.
    #[must_use]
    pub fn may_send(&self, gateway: &GatewaySn) -> bool {
        self.shared.as_ref().is_none_or(|shared| {
            shared.state(Shard::of(gateway)) == HELD
                && shared.clock_off.load(Ordering::Relaxed) == 0
                && self.is_in_time(shared)
        })
    }

    /// Whether a gateway is this server's, all that is open there is in care, and it is not on its way to another.
    #[must_use]
    pub fn keeps(&self, gateway: &GatewaySn) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.state(Shard::of(gateway)) == HELD)
    }

    /// Whether this server does not reach the broker, and another does that can be told by the store: emergencies are handed
    /// to it then, and none is begun here.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| {
            shared.is_another_fit.load(Ordering::Relaxed)
                && shared.is_linked.get().is_some_and(|is_linked| !is_linked())
                && self.is_in_time(shared)
        })
    }

    pub(super) fn watch_link(&self, is_linked: IsLinked) {
        if let Some(shared) = &self.shared {
            // Whoever joins again asks the same broker.
            let _before = shared.is_linked.set(is_linked);
        }
    }

    /// Whether the last sign of life is young enough to send on.
    #[must_use]
    pub fn is_lease_on(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| self.is_in_time(shared))
    }

    fn is_in_time(&self, shared: &Shared) -> bool {
        self.clock.now().mono < Mono::from_millis(shared.until.load(Ordering::SeqCst))
    }

    /// Shards that are held and not on their way to others.
    #[must_use]
    pub fn held(&self) -> Vec<Shard> {
        match &self.shared {
            None => Shard::all().collect(),
            Some(shared) => {
                Shard::all().filter(|shard| matches!(shared.state(*shard), HELD | TAKING)).collect()
            }
        }
    }

    /// Shards that are on their way to others.
    pub(super) fn leaving(&self) -> Vec<Shard> {
        let shared = self.shared.iter();
        shared.flat_map(|it| Shard::all().filter(|shard| it.state(*shard) == LEAVING)).collect()
    }

    pub(super) fn begin_to_hold(&self, shards: &[Shard]) {
        self.set(shards, TAKING);
    }

    /// What is open in these shards is in care: from now on they are sent to. Those that were let go meanwhile stay so.
    pub(super) fn hold(&self, shards: &[Shard]) {
        let Some(shared) = &self.shared else { return };
        for shard in shards {
            if let Some(own) = shared.shards.get(usize::from(shard.number())) {
                let _other = own.compare_exchange(TAKING, HELD, Ordering::SeqCst, Ordering::SeqCst);
            }
        }
    }

    pub(super) fn begin_to_leave(&self, shards: &[Shard]) {
        self.set(shards, LEAVING);
    }

    pub(super) fn let_go(&self, shards: &[Shard]) {
        self.set(shards, NOT_HELD);
    }

    fn set(&self, shards: &[Shard], state: u8) {
        let Some(shared) = &self.shared else { return };
        for shard in shards {
            if let Some(own) = shared.shards.get(usize::from(shard.number())) {
                own.store(state, Ordering::SeqCst);
            }
        }
    }

    pub(super) fn extend(&self, until: Mono) {
        if let Some(shared) = &self.shared {
            shared.until.fetch_max(until.as_millis(), Ordering::SeqCst);
        }
    }

    pub(super) fn has_others(&self, has_others: bool) {
        if let Some(shared) = &self.shared {
            shared.has_others.store(has_others, Ordering::Relaxed);
        }
    }

    pub(super) fn is_another_fit(&self, is_another_fit: bool) {
        if let Some(shared) = &self.shared {
            shared.is_another_fit.store(is_another_fit, Ordering::Relaxed);
        }
    }

    /// Answers whether that is another than before.
    pub(super) fn clock_is_off(&self, by: Option<i64>) -> bool {
        let by = by.unwrap_or(0);
        let differ = |shared: &Shared| {
            let before = shared.clock_off.swap(by, Ordering::Relaxed);
            (before == 0) != (by == 0)
        };
        self.shared.as_ref().is_some_and(differ)
    }

    /// Why this server takes no commands now but emergencies, with the remedy: others would take their deadlines for other
    /// ones.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let off = self.shared.as_ref()?.clock_off.load(Ordering::Relaxed);
        (off != 0).then(|| clock_trouble(off))
    }

    /// Commands in the order in which they were accepted, over all servers; `None` for a server that works alone.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn in_order(
        &self,
        ids: impl Iterator<Item = CommandId>,
    ) -> Result<Option<Vec<CommandId>>, StoreError> {
        match &self.shared {
            None => Ok(None),
            Some(shared) => shared.store.in_order(ids.collect()).await.map(Some),
        }
    }

    /// Tells the other servers, if there are any.
    pub fn tell(&self, news: impl FnOnce() -> News) {
        if let Some(shared) = &self.shared
            && shared.has_others.load(Ordering::Relaxed)
        {
            shared.store.tell(news());
        }
    }

    /// Something was handed to whoever holds a gateway.
    pub fn hand(&self, gateway: &GatewaySn) {
        match self.holds(gateway) {
            true => self.handed.notify_one(),
            false => self.tell(|| News::Handed),
        }
    }

    /// An emergency waits that cannot be sent from here.
    pub fn pass_on(&self) {
        self.handed.notify_one();
    }

    /// Something was handed to this server by itself, behind what others handed to it, or is to be handed on.
    pub(super) async fn is_handed(&self) {
        self.handed.notified().await;
    }

    /// What was handed to this server and that it has not taken in.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn handed(&self) -> Result<Vec<Handed>, StoreError> {
        match &self.shared {
            None => Ok(Vec::new()),
            Some(shared) => shared.store.handed(shared.me).await,
        }
    }

    /// Open emergencies that other servers look after.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn emergencies_elsewhere(&self) -> Result<BTreeSet<CommandId>, StoreError> {
        match &self.shared {
            None => Ok(BTreeSet::new()),
            Some(shared) => shared.store.emergencies_elsewhere(shared.me).await,
        }
    }
}

impl Holdings {
    /// Open emergencies that this run of the server has accepted, or put on record from its journal.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn own_emergencies(&self) -> Result<BTreeSet<CommandId>, StoreError> {
        let Some(shared) = &self.shared else { return Ok(BTreeSet::new()) };
        // To somebody who is no member, those of all members are elsewhere.
        let nobody = ReplicaId(Uuid::nil());
        let of_all = shared.store.emergencies_elsewhere(nobody).await?;
        let of_others = shared.store.emergencies_elsewhere(shared.me).await?;
        Ok(&of_all - &of_others)
    }
}

impl Shared {
    fn state(&self, shard: Shard) -> u8 {
        self.shards
            .get(usize::from(shard.number()))
            .map_or(NOT_HELD, |state| state.load(Ordering::SeqCst))
    }
}

/// A clock that is ahead of the store's by so many milliseconds.
pub(super) fn clock_trouble(off: i64) -> String {
    let (by, direction) = (off.unsigned_abs(), if off > 0 { "ahead of" } else { "behind" });
    format!(
        "this machine's clock is {}.{:03} s {direction} the database's, and servers tell each other deadlines by their clocks: keep both in step (NTP); where every server says so, it is the database's that is wrong",
        by / 1_000,
        by % 1_000
    )
}
