//! Carries out what core decides: load, decide, save, then act.
//!
//! Every gateway has two lanes, one for emergencies and one for the rest. A lane takes everything that was told about
//! its commands, decides it in order, saves all of it (one group commit), and only then publishes, in order. A slow
//! or silent gateway therefore holds up nobody else, and an emergency waits for nobody's queue or commit.
//!
//! The driver must never publish what is not claimed on disk, never publish twice, and never let go of a command that
//! still needs care.

mod between;
mod confided;
mod counted;
mod direct;
mod doubt;
mod elsewhere;
mod emergencies;
mod failures;
mod gather;
mod intake;
mod jobs;
mod lane;
mod overtaken;
pub mod presence;
mod publish;
mod timers;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utmos_core::{
    command::Command,
    id::{CommandId, DeviceSn, GatewaySn, TenantId},
    life::{Input, Moment, Presence},
    method::Risk,
    planted::{self, Fault},
    ports::{Ids, Store, StoreError},
    replica::ReplicaId,
    reply::Progress,
    time::{Clock, Now},
};
use utmos_dji::catalogue::Catalogue;
use utmos_mqtt::{Outlet, Qos};

#[cfg(test)]
pub(crate) use self::doubt::tests::command_for_tests;
pub(crate) use self::elsewhere::READ_PAGE;
pub use self::{
    elsewhere::Look,
    intake::{Cancelled, Draft, Resumed, SubmitError, Submitted},
    watch::{WaitsFor, Watch},
};
use self::{emergencies::LastEmergencies, lane::Lane, presence::PresenceBook};
use crate::{directory::Directory, durations::Durations, replicas::Holdings};

/// How often it is looked for answers before a stop.
const ANSWER_LOOK_WAIT: Duration = Duration::from_millis(5);

/// Bounds of the driver.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Commands that may wait in one gateway's lane; more are refused as overloaded, emergencies never.
    pub waiting_per_gateway_max: usize,
    /// First pause after the store failed; doubles up to `store_retry_wait_max`.
    pub store_retry_wait_min: Duration,
    /// Longest pause after the store failed.
    pub store_retry_wait_max: Duration,
    /// With which quality of service commands leave.
    pub command_qos: Qos,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            waiting_per_gateway_max: 1_000,
            store_retry_wait_min: Duration::from_millis(20),
            store_retry_wait_max: Duration::from_secs(1),
            command_qos: Qos::AtLeastOnce,
        }
    }
}

/// What the driver works with.
pub struct DriverParts {
    /// Where commands are kept.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn Ids>,
    /// Where messages leave.
    pub outlet: Arc<dyn Outlet>,
    /// How methods are written on the wire.
    pub catalogue: Arc<Catalogue>,
    /// Which model a gateway is.
    pub directory: Arc<Directory>,
    /// The name of this server on timelines.
    pub replica: String,
    /// Which gateways are this server's.
    pub holdings: Arc<Holdings>,
    /// How presence is known.
    pub presence: PresenceBook,
    /// Bounds.
    pub limits: Limits,
}

/// Figures of the driver since it started.
#[derive(Debug, Default)]
pub struct Figures {
    /// Commands accepted.
    pub accepted: AtomicU64,
    /// Messages handed to the broker.
    pub published: AtomicU64,
    /// Commands that another server accepted for this one, asked directly.
    pub accepted_directly: AtomicU64,
    /// Commands that another server was asked for directly, and nobody heard in time what came of it.
    pub unheard_directly: AtomicU64,
    /// Commands that ended.
    pub ended: AtomicU64,
    /// Saves that somebody else's change overtook.
    pub overtaken: AtomicU64,
    /// Saves that the store refused and that are tried again.
    pub store_failures: AtomicU64,
    /// From asking the store to accept a command until its answer.
    pub accept: Durations,
    /// From asking the store to save a change until its answer.
    pub advance: Durations,
    /// From handing a message to the broker until its word on it.
    pub publish: Durations,
}

/// What waits in all lanes together.
#[derive(Debug, Clone, Copy, Default)]
pub struct LaneDepths {
    /// Lanes that hold anything.
    pub lanes: usize,
    /// Commands that are looked after.
    pub open: usize,
    /// Of these, those that wait to be sent.
    pub waiting: usize,
    /// Of these, those that are claimed and not handed to the broker yet.
    pub leaving: usize,
    /// What was told of commands and is not decided yet.
    pub told: usize,
}

/// The one that moves commands. Cheap to clone.
#[derive(Clone)]
pub struct Driver {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    outlet: Arc<dyn Outlet>,
    catalogue: Arc<Catalogue>,
    directory: Arc<Directory>,
    replica: String,
    holdings: Arc<Holdings>,
    limits: Limits,
    state: Mutex<State>,
    figures: Figures,
    failures: failures::Failures,
    confided: confided::Confided,
    /// The earliest timer has changed.
    timer_moved: Notify,
    tasks: TaskTracker,
    stopping: CancellationToken,
    /// Ends waits for changes.
    watching: CancellationToken,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct LaneKey {
    gateway: GatewaySn,
    urgent: bool,
}

impl LaneKey {
    /// Where a command goes that is accepted now, or found on record: emergencies wait behind nothing else.
    fn of(gateway: &GatewaySn, risk: Risk) -> Self {
        let urgent =
            risk == Risk::Emergency && !planted::is_planted(Fault::EmergencyInOrdinaryLane);
        Self { gateway: gateway.clone(), urgent }
    }
}

struct State {
    lanes: BTreeMap<LaneKey, Lane>,
    /// Which lane keeps a command.
    homes: BTreeMap<CommandId, LaneKey>,
    timers: timers::Timers,
    presence: PresenceBook,
    watchers: watch::Watchers,
    /// Counts insertions, so that lanes keep the order of acceptance.
    order: u64,
    /// The same below where that began: for what was found on record, which was accepted before. What is found later of a
    /// gateway was accepted after what was found first.
    order_found: u64,
    last_emergencies: LastEmergencies,
    between: between::Between,
    /// What the store may hold although it did not say so.
    doubts: doubt::Doubts,
    /// How many commands of each gateway are being accepted that are no emergencies.
    accepting: BTreeMap<GatewaySn, usize>,
    /// How many of these are to be claimed with their acceptance.
    claiming: BTreeMap<GatewaySn, usize>,
    /// Commands that were accepted here for callers of other servers, and have not ended.
    askers: BTreeMap<CommandId, ReplicaId>,
}

/// Something told to a lane.
enum Told {
    /// An input for one command.
    Input { id: CommandId, input: Box<Input>, done: Option<oneshot::Sender<Arc<Command>>> },
    /// The same of a device, in a message of so many bytes: it waits in memory until it is saved.
    Said { id: CommandId, input: Box<Input>, bytes: usize },
    /// Whoever waits has its turn.
    Turn,
    /// How a command stands in the store, where another server has changed it.
    Stands(Box<Standing>),
}

/// How a command stands in the store.
struct Standing {
    command: Command,
    /// This server has claimed it. Where it is known here as one that waits, that has not been heard, and nothing has left.
    is_own_claim: bool,
}

/// How an aircraft moves, as far as movements in the way of others go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlightMode {
    /// On the ground, in standby.
    Down,
    /// In the air, or about to be.
    Flying,
    /// On its way home or down.
    Homing,
}

/// What became of an answer of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matched {
    /// It went to its command.
    Yes,
    /// No command of the tenant has this id.
    Unknown,
    /// It is not under care; the store may know it.
    NotHere,
    /// Its gateway has said more than could be saved so far, and this was dropped.
    Full,
}

impl Driver {
    /// Makes a driver and starts its timer. [`Driver::resume`] must follow before anything is submitted.
    #[must_use]
    pub fn start(parts: DriverParts) -> Self {
        let inner = Arc::new(Inner {
            store: parts.store,
            clock: parts.clock,
            ids: parts.ids,
            outlet: parts.outlet,
            catalogue: parts.catalogue,
            directory: parts.directory,
            replica: parts.replica,
            holdings: parts.holdings,
            limits: parts.limits,
            state: Mutex::new(State {
                lanes: BTreeMap::new(),
                homes: BTreeMap::new(),
                timers: timers::Timers::default(),
                presence: parts.presence,
                watchers: watch::Watchers::default(),
                order: FIRST_ORDER,
                order_found: 0,
                last_emergencies: LastEmergencies::default(),
                between: between::Between::default(),
                doubts: doubt::Doubts::default(),
                accepting: BTreeMap::new(),
                claiming: BTreeMap::new(),
                askers: BTreeMap::new(),
            }),
            figures: Figures::default(),
            failures: failures::Failures::default(),
            confided: confided::Confided::default(),
            timer_moved: Notify::new(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            watching: CancellationToken::new(),
        });
        let timer = inner.clone();
        inner.tasks.spawn(async move { timer.run_timers().await });
        Self { inner }
    }

    /// Waits until what has left is answered, as far as `patience` lasts: an answer that comes when nobody listens leaves
    /// its command in doubt. Jobs that have started are not waited for.
    pub async fn answers_come(&self, patience: Duration) {
        let look = async {
            while self.inner.lock().lanes.values().any(Lane::awaits_answers) {
                tokio::time::sleep(ANSWER_LOOK_WAIT).await;
            }
        };
        if tokio::time::timeout(patience, look).await.is_err() {
            tracing::info!("some commands that have left were not answered before the stop");
        }
    }

    /// Stops: what was begun is finished (saves, publishes) as far as `patience` lasts, nothing new is begun. What is on
    /// disk is true at every moment, so that nothing is lost by ending early.
    pub async fn stop(&self, patience: Duration) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(patience, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("stopped before everything that was begun had settled");
        }
    }

    /// Ends every wait for a change, so that those who wait are answered with what is known.
    pub fn release_watches(&self) {
        self.inner.watching.cancel();
    }

    /// Figures since the start.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.inner.figures
    }

    /// What waits now.
    #[must_use]
    pub fn depths(&self) -> LaneDepths {
        let state = self.inner.lock();
        let (lanes, open) = (state.lanes.len(), state.homes.len());
        let depths = LaneDepths { lanes, open, ..LaneDepths::default() };
        state.lanes.values().fold(depths, |depths, lane| LaneDepths {
            waiting: depths.waiting + lane.waiting(),
            leaving: depths.leaving + lane.leaving(),
            told: depths.told + lane.told(),
            ..depths
        })
    }

    /// Why no commands are taken now but emergencies, with the remedy.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.inner.holdings.trouble()
    }

    /// Gives whatever waits for a gateway its turn.
    pub fn turn(&self, gateway: &GatewaySn) {
        self.inner.give_turn(gateway);
    }

    /// Changes what is known of gateways' presence, and gives those that came their turn.
    pub fn presence<T>(
        &self,
        change: impl FnOnce(&mut PresenceBook, Now) -> (T, Vec<GatewaySn>),
    ) -> T {
        let now = self.inner.clock.now();
        let (answer, came) = change(&mut self.inner.lock().presence, now);
        for gateway in came {
            self.inner.give_turn(&gateway);
        }
        answer
    }

    /// A device is none of ours any more, or never came to be: nothing is remembered of it. That an emergency came is, for
    /// what was accepted before may still wait.
    pub fn forget(&self, device: &DeviceSn) {
        let mut state = self.inner.lock();
        state.presence.forget(&device.to_gateway());
        state.between.forget(device);
    }

    /// Whether a gateway is there.
    #[must_use]
    pub fn is_present(&self, gateway: &GatewaySn) -> Presence {
        let now = self.inner.clock.now();
        self.inner.lock().presence.of(gateway, now)
    }

    /// Whether an outside broker said that the session is over in which a gateway was heard last.
    #[must_use]
    pub fn session_is_over(&self, gateway: &GatewaySn) -> bool {
        self.inner.lock().presence.is_over(gateway)
    }

    /// From now on devices can be heard, where an outside broker is all that tells of them. Whoever has not been heard when the
    /// liveness window is over is not there; what waits has its turn then.
    pub fn listens(&self) {
        let window = self.presence(|book, now| (book.listens_from(now.mono), Vec::new()));
        let Some(window) = window else { return };
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = this.inner.stopping.cancelled() => {}
                // Its last moment is a part of the window.
                () = tokio::time::sleep(window + Duration::from_millis(1)) => this.link_is_up(),
            }
        });
    }

    /// The link to the broker is up (again): everything that waits has its turn.
    pub fn link_is_up(&self) {
        let gateways: BTreeSet<GatewaySn> =
            self.inner.lock().lanes.keys().map(|key| key.gateway.clone()).collect();
        for gateway in gateways {
            self.inner.give_turn(&gateway);
        }
    }

    /// Gives what a device said, in a message of so many bytes, to a command of `tenant` that is under care; waits for
    /// nothing. A device of another tenant cannot touch it, whatever it names.
    pub fn tell_now(&self, tenant: TenantId, id: CommandId, input: Input, bytes: usize) -> Matched {
        let key = {
            let mut guard = self.inner.lock();
            let state = &mut *guard;
            let Some(key) = state.homes.get(&id).cloned() else { return Matched::NotHere };
            let Some(lane) = state.lanes.get_mut(&key) else { return Matched::NotHere };
            match lane.command(id).map(|command| command.spec.tenant) {
                None => return Matched::NotHere,
                Some(owner) if owner != tenant => return Matched::Unknown,
                Some(_) => {}
            }
            let bytes = bytes.max(lane::MESSAGE_BYTES_MIN);
            if !lane.has_room_for(bytes) {
                return Matched::Full;
            }
            lane.take_in(Told::Said { id, input: Box::new(input), bytes }).then_some(key)
        };
        if let Some(key) = key {
            self.inner.spawn_lane(key);
        }
        Matched::Yes
    }

    /// Gives an input to a command of `tenant` that may or may not be looked after. A device of another tenant cannot
    /// touch it, whatever it names.
    ///
    /// # Errors
    /// When the command is not looked after and the store cannot be read.
    pub async fn tell(
        &self,
        tenant: TenantId,
        id: CommandId,
        input: Input,
    ) -> Result<Matched, StoreError> {
        let told = Told::Input { id, input: Box::new(input), done: None };
        self.inner.clone().tell_anyone(tenant, id, told).await
    }

    /// The gateway to which a command of `tenant` goes that is being looked after.
    #[must_use]
    pub fn gateway_of(&self, tenant: TenantId, id: CommandId) -> Option<GatewaySn> {
        let state = self.inner.lock();
        let command = state.lanes.get(state.homes.get(&id)?)?.command(id)?;
        (command.spec.tenant == tenant).then(|| command.spec.gateway.clone())
    }

    /// A command that is being looked after, as it is stored.
    #[must_use]
    pub fn cared_for(&self, id: CommandId) -> Option<Command> {
        let state = self.inner.lock();
        let key = state.homes.get(&id)?;
        state.lanes.get(key)?.command(id).cloned()
    }

    /// Whether a publish of a command is under way from here; `None` when it is not looked after.
    #[must_use]
    pub fn is_leaving(&self, id: CommandId) -> Option<bool> {
        let state = self.inner.lock();
        let lane = state.homes.get(&id).and_then(|key| state.lanes.get(key))?;
        Some(lane.is_leaving(id))
    }

    /// Finds the command a progress event that comes in now belongs to (LIFECYCLE.md, "job").
    #[must_use]
    pub fn find_job(&self, progress: &Progress) -> Option<CommandId> {
        self.inner.find_job(progress, None)
    }

    /// Finds the command an acknowledgement on `drc/up` belongs to: by method and `seq`; where the device repeats none, the
    /// oldest of the method that is open and has not been found before.
    #[must_use]
    pub fn find_drc(
        &self,
        gateway: &GatewaySn,
        method: &str,
        seq: Option<u64>,
    ) -> Option<CommandId> {
        let mut state = self.inner.lock();
        let key = |urgent| LaneKey { gateway: gateway.clone(), urgent };
        let mut open = Vec::new();
        for key in [key(true), key(false)] {
            open.extend(state.lanes.get(&key).into_iter().flat_map(|lane| lane.drc_of(method)));
        }
        let found = match seq {
            Some(seq) if open.iter().any(|one| one.seq.is_some()) => {
                open.iter().find(|one| one.seq == Some(seq))
            }
            // Devices answer one after another, so the first answer is the first command's, and the next the next one's.
            Some(_) | None => open.iter().min_by_key(|one| (one.is_answered, one.id)),
        };
        let id = found.map(|one| one.id)?;
        for key in [key(true), key(false)] {
            if let Some(lane) = state.lanes.get_mut(&key) {
                lane.drc_is_answered(id);
            }
        }
        Some(id)
    }

    /// Takes the flight mode an aircraft reports. When one that was on its way home no longer is, the movement that
    /// "return home" started is over, and when one that flew is down, every movement is: no event says so
    /// (`dji/open_platform_methods.json`, `return_home`). Only a change tells; one that stands still may be about to lift.
    pub fn flight_mode(&self, gateway: &GatewaySn, aircraft: &DeviceSn, mode: FlightMode) {
        let holders: Vec<CommandId> = {
            let mut state = self.inner.lock();
            let before = state.between.sees(gateway, aircraft, mode);
            let landed = match (before, mode) {
                (Some(FlightMode::Flying | FlightMode::Homing), FlightMode::Down) => true,
                (Some(FlightMode::Homing), FlightMode::Flying) => false,
                (Some(FlightMode::Flying), FlightMode::Flying | FlightMode::Homing)
                | (Some(FlightMode::Homing), FlightMode::Homing)
                | (Some(FlightMode::Down), _)
                | (None, _) => return,
            };
            [true, false]
                .into_iter()
                .filter_map(|urgent| state.lanes.get(&LaneKey { gateway: gateway.clone(), urgent }))
                .flat_map(|lane| lane.ended_holders(landed))
                .collect()
        };
        for id in holders {
            self.inner.tell_here(
                id,
                Told::Input { id, input: Box::new(Input::MovementOver), done: None },
            );
        }
    }
}

/// Where counting begins, with as much room before it.
const FIRST_ORDER: u64 = u64::MAX / 2;

impl State {
    /// Room for so many before everything that was accepted here; answers the place before the first of them.
    fn orders_found(&mut self, count: usize) -> u64 {
        let before = self.order_found;
        self.order_found += u64::try_from(count).unwrap_or(0) + 1;
        before
    }
}

impl Inner {
    /// No code path leaves the state half changed, so a poisoned lock still guards a whole one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moment(&self) -> Moment<'_> {
        let now = self.clock.now();
        let told = self.holdings.to_tell(now).wall;
        Moment { now, told, boot: self.clock.boot(), replica: &self.replica }
    }

    fn give_turn(self: &Arc<Self>, gateway: &GatewaySn) {
        for urgent in [true, false] {
            let key = LaneKey { gateway: gateway.clone(), urgent };
            let must_run = {
                let mut state = self.lock();
                state
                    .lanes
                    .get_mut(&key)
                    .is_some_and(|lane| lane.waiting() > 0 && lane.take_in(Told::Turn))
            };
            if must_run {
                self.spawn_lane(key);
            }
        }
    }

    /// Tells a command that is being looked after. Answers whether there is one.
    fn tell_here(self: &Arc<Self>, id: CommandId, told: Told) -> bool {
        let key = {
            let mut state = self.lock();
            let Some(key) = state.homes.get(&id).cloned() else { return false };
            let must_run = state.lanes.get_mut(&key).is_some_and(|lane| lane.take_in(told));
            must_run.then_some(key)
        };
        if let Some(key) = key {
            self.spawn_lane(key);
        }
        true
    }

    /// The tenant of a command that is under care.
    fn owner(&self, id: CommandId) -> Option<TenantId> {
        let state = self.lock();
        let lane = state.homes.get(&id).and_then(|key| state.lanes.get(key))?;
        lane.command(id).map(|command| command.spec.tenant)
    }

    async fn tell_anyone(
        self: Arc<Self>,
        tenant: TenantId,
        id: CommandId,
        told: Told,
    ) -> Result<Matched, StoreError> {
        if let Some(owner) = self.owner(id) {
            if owner != tenant {
                return Ok(Matched::Unknown);
            }
            self.tell_here(id, told);
            return Ok(Matched::Yes);
        }
        let Some(command) = self.store.command_of(tenant, id).await? else {
            return Ok(Matched::Unknown);
        };
        self.keep(command);
        self.tell_here(id, told);
        Ok(Matched::Yes)
    }

    /// Looks after a command from now on. Answers whether it was not looked after already.
    fn keep(self: &Arc<Self>, command: Command) -> bool {
        self.keep_and_tell(command, Vec::new(), None)
    }

    /// Looks after a command and tells it something before anybody else can. Answers whether it was not looked after already.
    fn keep_and_tell(
        self: &Arc<Self>,
        command: Command,
        inputs: Vec<Input>,
        order: Option<u64>,
    ) -> bool {
        let command = self.in_this_boot(command);
        self.confided.note(&command.spec, &self.catalogue, self.clock.now().mono);
        let mut guard = self.lock();
        let state = &mut *guard;
        let id = command.spec.id;
        if state.homes.contains_key(&id) {
            drop(guard);
            for input in inputs {
                self.tell_here(id, Told::Input { id, input: Box::new(input), done: None });
            }
            return false;
        }
        let key = LaneKey::of(&command.spec.gateway, command.spec.risk);
        state.order += 1;
        let order = match order.unwrap_or(state.order) {
            order if planted::is_planted(Fault::LastInFirstOut) => u64::MAX - order,
            order => order,
        };
        let due = command.life.due.map(|due| due.mono);
        let lane = state.lanes.entry(key.clone()).or_default();
        lane.keep(command, order);
        if inputs.iter().any(|input| matches!(input, Input::FoundAfterRestart)) {
            lane.is_anothers_claim(id);
        }
        let mut must_run = false;
        for input in inputs {
            must_run |= lane.take_in(Told::Input { id, input: Box::new(input), done: None });
        }
        state.homes.insert(id, key.clone());
        if due.is_some_and(|due| state.timers.set(due, id)) {
            self.timer_moved.notify_one();
        }
        drop(guard);
        if must_run {
            self.spawn_lane(key);
        }
        true
    }

    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
