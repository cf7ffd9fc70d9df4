//! Which gateways are this server's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;
use utmos_core::{
    command::Command,
    id::{CommandId, GatewaySn},
    ports::{Asked, DirectLines, ReplicaStore, StoreError, Taken, Unheard},
    replica::{Handed, News, ReplicaId, Roll, SHARDS, Shard},
    store_clock::{Reading, StoreClock},
    time::{Clock, Deadline, Mono, Now, Timestamp},
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
    /// The latest wall time on record when this process started, in Unix milliseconds.
    newest_at_start: AtomicI64,
}

struct Shared {
    me: ReplicaId,
    store: Arc<dyn ReplicaStore>,
    lines: Arc<dyn DirectLines>,
    /// Who holds what, as the last roll says.
    holders: Mutex<BTreeMap<Shard, ReplicaId>>,
    shards: [AtomicU8; SHARDS as usize],
    /// In milliseconds of the running time.
    until: AtomicU64,
    /// Whether there are other servers to be told anything.
    has_others: AtomicBool,
    /// Whether another server can do what this one cannot.
    is_another_fit: AtomicBool,
    /// By how many milliseconds the clock is ahead of the store's, where that is too much and others go by what it writes.
    clock_off: AtomicI64,
    /// `None` until it was read.
    store_clock: Mutex<Option<StoreClock>>,
    /// Whether the broker is reached now; told by whoever joins.
    is_linked: OnceLock<IsLinked>,
}

/// Whether the broker is reached now.
pub type IsLinked = Arc<dyn Fn() -> bool + Send + Sync>;

impl Holdings {
    /// Those of a server that has its store to itself: everything.
    #[must_use]
    pub fn alone(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self::new(clock, None))
    }

    /// Those of a server that shares its store: nothing yet.
    #[must_use]
    pub fn shared(
        clock: Arc<dyn Clock>,
        store: Arc<dyn ReplicaStore>,
        lines: Arc<dyn DirectLines>,
        me: ReplicaId,
    ) -> Arc<Self> {
        let shared = Shared {
            me,
            store,
            lines,
            holders: Mutex::default(),
            shards: std::array::from_fn(|_| AtomicU8::new(NOT_HELD)),
            until: AtomicU64::new(0),
            has_others: AtomicBool::new(true),
            is_another_fit: AtomicBool::new(false),
            clock_off: AtomicI64::new(0),
            store_clock: Mutex::new(None),
            is_linked: OnceLock::new(),
        };
        Arc::new(Self::new(clock, Some(shared)))
    }

    fn new(clock: Arc<dyn Clock>, shared: Option<Shared>) -> Self {
        Self { clock, shared, handed: Notify::new(), newest_at_start: AtomicI64::new(i64::MIN) }
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

    /// Whether this server may send to a gateway now. Not while its clock is off.
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

    /// Shards that are held without all that is open there in care; `None` for a server that works alone.
    pub fn not_kept(&self) -> Option<BTreeSet<Shard>> {
        let shared = self.shared.as_ref()?;
        let is_it = |shard: &Shard| matches!(shared.state(*shard), TAKING | LEAVING);
        Some(Shard::all().filter(is_it).collect())
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

    /// Why this server takes no commands now but emergencies, with the remedy.
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
        self.tell_all_but(None, news);
    }

    /// The same, but for one that knows.
    fn tell_all_but(&self, but: Option<ReplicaId>, news: impl FnOnce() -> News) {
        let Some(shared) = &self.shared else { return };
        if !shared.has_others.load(Ordering::Relaxed) {
            return;
        }
        let news = news();
        if !shared.lines.tell(&news, but) {
            shared.store.tell(news);
        }
    }

    /// Tells the other servers that a command has ended, and how it did the one that had it accepted here.
    pub fn tell_end(&self, command: &Arc<Command>, asker: Option<ReplicaId>) {
        let lines = self.shared.as_ref().map(|shared| &shared.lines);
        let told = asker.filter(|it| lines.is_some_and(|lines| lines.ended(*it, command)));
        self.tell_all_but(told, || News::Ended(vec![command.spec.id]));
    }

    /// Has the server that holds a command's gateway accept it, where that is another and there is a line to it.
    ///
    /// # Errors
    /// When it was not asked, or has not answered.
    pub async fn ask_holder(&self, asked: Asked) -> Result<Taken, Unheard> {
        let Some(shared) = &self.shared else { return Err(Unheard::NotAsked) };
        // Who is let in is known by the store: who does not reach it asks nobody else for long.
        if !self.is_in_time(shared) {
            return Err(Unheard::NotAsked);
        }
        let shard = Shard::of(&asked.spec.gateway);
        let holder = match shared.state(shard) {
            NOT_HELD => shared.holders().get(&shard).copied().filter(|it| *it != shared.me),
            _ => None,
        };
        shared.lines.accept(holder.ok_or(Unheard::NotAsked)?, asked).await
    }

    /// Takes note of who is there, and who holds what.
    pub(super) fn follow(&self, roll: &Roll) {
        if let Some(shared) = &self.shared {
            shared.holders().clone_from(&roll.holders);
            shared.lines.follow(shared.me, roll);
        }
    }

    /// Something was handed to whoever holds a gateway.
    pub fn hand(&self, gateway: &GatewaySn) {
        match self.holds(gateway) {
            true => self.handed.notify_one(),
            false => self.tell(|| News::Handed),
        }
    }

    /// Hands a command that is on record to whoever holds its gateway.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn hand_stored(&self, id: CommandId, gateway: &GatewaySn) -> Result<(), StoreError> {
        if let Some(shared) = &self.shared {
            shared.store.hand(id, Shard::of(gateway)).await?;
            self.hand(gateway);
        }
        Ok(())
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

/// How deadlines go from one run of a server to another, and from one server to another.
impl Holdings {
    /// A time by which a deadline is written down.
    #[must_use]
    pub fn to_tell(&self, now: Now) -> Now {
        let Some(shared) = &self.shared else { return now };
        // Whoever has never read the store's clock tells nobody to go by what it says.
        let nothing = Timestamp::from_millis(i64::MIN);
        let wall = shared.store_clock().map_or(nothing, |clock| clock.earliest(now.mono));
        Now { wall, ..now }
    }

    /// Finds a deadline again that is on record, and was written down `length` before at the most.
    #[must_use]
    pub fn found_again(&self, deadline: Deadline, length: Duration) -> Deadline {
        let (now, boot) = (self.clock.now(), self.clock.boot());
        let Some(shared) = &self.shared else {
            let newest = Timestamp::from_millis(self.newest_at_start.load(Ordering::Relaxed));
            return deadline.found_again(now, boot, length, newest);
        };
        if deadline.boot == boot {
            return deadline;
        }
        let left = shared.store_clock().map(|clock| clock.left(deadline.wall, now.mono, length));
        deadline.with_left(left.unwrap_or(Duration::ZERO), now.mono, boot)
    }

    /// Takes note at the start of the latest time on record: a clock that shows less was set back.
    pub fn is_on_record(&self, newest: Timestamp) {
        match &self.shared {
            None => self.newest_at_start.store(newest.as_millis(), Ordering::Relaxed),
            Some(shared) => {
                let now = self.clock.now().mono;
                if let Some(clock) = shared.store_clock().as_mut() {
                    clock.is_on_record(newest, now);
                }
            }
        }
    }

    /// Takes note of what the store's clock showed. Answers by how many milliseconds it was set, if it was.
    pub(super) fn note_store_clock(&self, reading: Reading) -> Option<i64> {
        let mut known = self.shared.as_ref()?.store_clock();
        match known.as_mut() {
            Some(clock) => clock.note(reading),
            None => {
                *known = Some(StoreClock::read(reading));
                None
            }
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
    /// No code path leaves it half changed, so a poisoned lock still guards a whole one.
    fn store_clock(&self) -> MutexGuard<'_, Option<StoreClock>> {
        self.store_clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holders(&self) -> MutexGuard<'_, BTreeMap<Shard, ReplicaId>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

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
        "this machine's clock is {}.{:03} s {direction} the database's, and all servers go by the times that each puts on record: keep both in step (NTP); where every server says so, it is the database's that is wrong",
        by / 1_000,
        by % 1_000
    )
}
