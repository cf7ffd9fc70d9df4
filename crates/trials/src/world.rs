//! Everything around the platform, and what is seen of both.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Notify;
use utmos_core::{
    command::{FailureCode, Phase, Spec},
    device::{Device, DeviceKind, SubDevice},
    id::{CommandId, DeviceSn, GatewaySn, TenantId},
    method::Risk,
    ports::Ids,
    replica::CLOCK_OFF_MAX_MS,
    signing::NonceUse,
    time::{Clock, Timestamp},
};
use utmos_dji::catalogue::Catalogue;
use utmos_mqtt::Inbound;
use uuid::Uuid;

use crate::{
    beside::Twin,
    caller::Spent,
    clock::{MachineClock, TrialClock},
    disk::{Disk, Record},
    facts::Facts,
    journal::{Platter, id_of},
    life::{LifeLine, Platform},
    lines::Net,
    mutation::Mutation,
    news::Ways,
    plan::{Broker, Plan, What, Wish},
    presence::Told,
    rare::Rare,
};

/// How many records may stand in line before a slow journal.
const SLOW_LINE: u64 = 8;
/// How long an emergency waits for its journal, in milliseconds.
const JOURNAL_PATIENCE: u64 = 2_000;
/// Two servers that have read the store's clock lately are unsure of it by no more than that together, in milliseconds.
const UNSURE_MAX: u64 = 50;
/// How often whoever meets the world lets all others that are ready go on before it, at most.
const GIVES_WAY_MAX: u32 = 3;

/// The tenant of every trial.
pub(crate) fn tenant() -> TenantId {
    TenantId::new(Uuid::from_u128(1))
}

/// What a caller knows of its wish.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// When requests left.
    pub(crate) tries: Vec<u64>,
    /// Which commands it was told, and when.
    pub(crate) told: Vec<(CommandId, u64)>,
    /// Nonces of requests that were answered, as far as they had somewhere to go.
    pub(crate) nonces: Vec<NonceUse>,
}

#[derive(Debug, Default)]
pub(crate) struct Dock {
    /// Rises with every connection.
    pub(crate) session: u64,
    pub(crate) is_connected: bool,
    pub(crate) away_until: u64,
    pub(crate) last_write: u64,
    pub(crate) last_arrival: u64,
    /// When the last of those that have come was written.
    pub(crate) newest_arrived: u64,
    /// When it connected (`true`) and lost its connection.
    pub(crate) changes: Vec<(u64, bool)>,
    /// Messages that a broker of a mutation sends (again) at the next connection.
    pub(crate) stored: Vec<CommandId>,
}

impl Dock {
    /// Whether it was connected all the time between the two.
    pub(crate) fn was_steady(&self, from: u64, to: u64) -> bool {
        let before = self.changes.iter().take_while(|(at, _)| *at < from).last();
        let is_changed = self.changes.iter().any(|(at, _)| (from..=to).contains(at));
        before.is_some_and(|(_, is_connected)| *is_connected) && !is_changed
    }
}

/// Where a server runs: one process after another.
#[derive(Default)]
pub(crate) struct Post {
    pub(crate) line: Option<LifeLine>,
    pub(crate) platform: Option<Platform>,
    /// Rises with every start and every death, so that a start that was overtaken ends.
    pub(crate) launches: u64,
    /// Where its emergencies are kept while the store is unwell.
    pub(crate) platter: Platter,
}

impl Post {
    fn new(journal_kib: u16) -> Self {
        Self { platter: Platter::new(journal_kib), ..Self::default() }
    }
}

/// What the platform first asked the store to take.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) spec: Arc<Spec>,
    /// When.
    pub(crate) asked: u64,
    /// By which server.
    pub(crate) server: u8,
}

/// What is in trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The store refuses, or is slow.
    Store,
    /// The store cannot be read either.
    Reads,
    /// The journals refuse, or are slow.
    Journal,
    /// The journals refuse, or are so slow that nobody waits for them.
    JournalGivenUp,
    /// A server stands still.
    Still,
    /// Servers, machines, links, docks.
    World,
}

pub(crate) struct State {
    pub(crate) disk: Disk,
    pub(crate) posts: Vec<Post>,
    lives: u64,
    pub(crate) docks: Vec<Dock>,
    broker_down_until: u64,
    store_fails: (u64, u8),
    reads_fail: u64,
    journal_fails: u64,
    journal_slow: (u64, u64),
    store_slow: (u64, u64),
    /// Until when each server does not reach the store.
    cut_off: BTreeMap<u8, u64>,
    /// From and until when each server did not reach the broker last.
    unlinked: BTreeMap<u8, (u64, u64)>,
    /// Commands of which a line in a journal was damaged, on purpose: what only it knew is lost.
    pub(crate) spoiled: BTreeSet<CommandId>,
    /// The same of nonces.
    pub(crate) spoiled_nonces: BTreeSet<[u8; 16]>,
    pub(crate) facts: BTreeMap<CommandId, Facts>,
    /// What each run of a server was told of each dock.
    pub(crate) told: BTreeMap<(u64, u8), Told>,
    pub(crate) asked: BTreeMap<usize, Asked>,
    pub(crate) violations: Vec<String>,
    /// There is one, here or in the store.
    pub(crate) went_wrong: Arc<Notify>,
    /// Every command that the platform wanted to accept.
    pub(crate) known: BTreeMap<CommandId, Known>,
    /// When runs of servers began, and died.
    pub(crate) births: BTreeMap<u64, u64>,
    pub(crate) deaths: BTreeMap<u64, u64>,
    /// When something was wrong around the platform: what, from and to.
    troubles: Vec<(Trouble, u64, u64)>,
    pub(crate) dice: StdRng,
    /// For what was not thrown for when plans were kept: what they throw for stays as it was.
    pub(crate) more_dice: StdRng,
    /// Decides who of those that are ready goes on first, and nothing else.
    turns: StdRng,
    trace: Vec<String>,
    /// Commands whose callers were told that the store could not say whether it holds them.
    pub(crate) unsaid: BTreeSet<CommandId>,
    /// Commands that somebody has cancelled.
    pub(crate) cancelled: BTreeSet<CommandId>,
    /// Commands of which nothing came, since another copy of their request was taken.
    pub(crate) copies: BTreeSet<CommandId>,
    /// Nonces of requests that were answered with a command.
    pub(crate) answered_nonces: BTreeMap<[u8; 16], Spent>,
    pub(crate) rare: Rare,
    pub(crate) ways: Ways,
    pub(crate) net: Net,
}

impl State {
    /// What of the rare things came about.
    pub(crate) fn all_rare(&self) -> Rare {
        let mut rare = self.rare;
        (rare.refused_beside, rare.written_beside, rare.at_once_beside) =
            self.disk.figures_beside();
        rare.pages_torn_beside = self.disk.pages_torn_beside();
        rare.copies = self.copies.len();
        rare.came_twice = self.facts.values().filter(|facts| facts.received.len() > 1).count();
        for (id, record) in &self.disk.records {
            let is_urgent = record.command.spec.risk == Risk::Emergency;
            let was_written = self.facts.get(id).is_some_and(|facts| !facts.written.is_empty());
            let failure = record.command.life.phase.failure();
            rare.preempted += usize::from(failure == Some(FailureCode::PreemptedByEmergency));
            rare.journalled += usize::from(record.by_journal && is_urgent);
            if self.unsaid.contains(id) {
                rare.doubted += 1;
                rare.doubted_emergencies += usize::from(is_urgent);
                rare.doubted_and_sent += usize::from(was_written);
            }
        }
        rare
    }

    pub(crate) fn clock_is_set(&mut self) {
        let records = self.disk.records.values();
        let waits = |record: &&Record| record.command.life.phase == Phase::Waiting;
        self.rare.waited_over_jump += records.filter(waits).count();
    }

    pub(crate) fn broker_stands(&self, now: u64) -> bool {
        now >= self.broker_down_until
    }

    /// Whether a server stands.
    pub(crate) fn is_served(&self) -> bool {
        self.posts.iter().any(|post| post.platform.is_some())
    }

    /// Whether nothing was wrong around the platform between the two.
    pub(crate) fn was_calm(&self, from: u64, to: u64) -> bool {
        self.was_calm_but_for(&[], from, to)
    }

    /// Whether nothing else was wrong around the platform between the two.
    pub(crate) fn was_calm_but_for(&self, but: &[Trouble], from: u64, to: u64) -> bool {
        let matters = |(what, begin, end): &(Trouble, u64, u64)| {
            !but.contains(what) && *begin <= to && from <= *end
        };
        !self.troubles.iter().any(matters)
    }

    /// Whether this was not in trouble between the two.
    pub(crate) fn was_well(&self, what: Trouble, from: u64, to: u64) -> bool {
        let is_it = |(which, begin, end): &(Trouble, u64, u64)| {
            *which == what && *begin <= to && from <= *end
        };
        !self.troubles.iter().any(is_it)
    }

    /// Whether a server reaches its broker.
    pub(crate) fn is_linked(&self, server: u8, now: u64) -> bool {
        let is_over = self.unlinked.get(&server).is_none_or(|(_, until)| now >= *until);
        is_over && self.broker_stands(now)
    }

    /// Whether a server lost its broker since then.
    pub(crate) fn was_cut_from_broker(&self, server: u8, since: u64) -> bool {
        self.unlinked.get(&server).is_some_and(|(from, _)| *from >= since)
    }

    pub(crate) fn facts(&mut self, id: CommandId) -> &mut Facts {
        self.facts.entry(id).or_default()
    }
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) clock: Arc<TrialClock>,
    pub(crate) ids: Arc<TrialIds>,
    pub(crate) catalogue: Arc<Catalogue>,
    state: Mutex<State>,
}

impl World {
    pub(crate) fn new(
        plan: Plan,
        mutation: Option<Mutation>,
        catalogue: Arc<Catalogue>,
        twin: Option<Twin>,
    ) -> Arc<Self> {
        let dice = StdRng::seed_from_u64(plan.seed ^ 0x5eed);
        let disk = Disk::new(mutation, twin);
        let docks = (0..plan.docks).map(|_| Dock::default()).collect();
        let ids = TrialIds::new(plan.seed ^ 0x1d5);
        let state = State {
            disk,
            posts: (0..plan.servers).map(|_| Post::new(plan.journal_kib)).collect(),
            lives: 0,
            docks,
            broker_down_until: 0,
            store_fails: (0, 0),
            reads_fail: 0,
            journal_fails: 0,
            journal_slow: (0, 0),
            spoiled: BTreeSet::new(),
            spoiled_nonces: BTreeSet::new(),
            store_slow: (0, 0),
            cut_off: BTreeMap::new(),
            unlinked: BTreeMap::new(),
            facts: BTreeMap::new(),
            told: BTreeMap::new(),
            asked: BTreeMap::new(),
            violations: Vec::new(),
            went_wrong: Arc::default(),
            known: BTreeMap::new(),
            births: BTreeMap::new(),
            deaths: BTreeMap::new(),
            troubles: Vec::new(),
            dice,
            more_dice: StdRng::seed_from_u64(plan.seed ^ 0xd1ce),
            turns: StdRng::seed_from_u64(plan.seed ^ 0x7a2e),
            trace: Vec::new(),
            unsaid: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            copies: BTreeSet::new(),
            answered_nonces: BTreeMap::new(),
            rare: Rare::default(),
            ways: Ways::new(plan.seed),
            net: Net::new(&plan),
        };
        let clock = TrialClock::new(mutation, !plan.clocks_apart.is_empty());
        Arc::new(Self { plan, mutation, clock, ids, catalogue, state: Mutex::new(state) })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn dice<T>(&self, throw: impl FnOnce(&mut StdRng) -> T) -> T {
        throw(&mut self.state().dice)
    }

    /// Lets all others that are ready go on first, as often as the seed says. The runtime lets tasks go on in the order in which
    /// they became ready, which no machine promises.
    pub(crate) async fn give_way(&self) {
        let times = self.state().turns.random_range(0..=GIVES_WAY_MAX);
        for _ in 0..times {
            tokio::task::yield_now().await;
        }
    }

    /// Writes down what happened, for whoever looks at a trial that failed.
    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        let line = format!("{:>6} {}", self.clock.elapsed(), line());
        self.state().trace.push(line);
    }

    pub(crate) fn take_trace(&self) -> Vec<String> {
        std::mem::take(&mut self.state().trace)
    }

    /// A process has found commands that others accepted.
    pub(crate) fn found(&self, open: usize, unclear: usize) {
        let mut state = self.state();
        state.rare.taken_over += open;
        state.rare.taken_over_unclear += unclear;
    }

    pub(crate) fn begin_launch(&self, server: u8) -> Option<u64> {
        let mut state = self.state();
        let post = state.posts.get_mut(usize::from(server))?;
        post.launches += 1;
        Some(post.launches)
    }

    /// The next run of a server; `None` when its launch was overtaken.
    pub(crate) fn begin_life(&self, server: u8, launch: u64) -> Option<LifeLine> {
        let mut guard = self.state();
        let state = &mut *guard;
        let post = state.posts.get_mut(usize::from(server))?;
        if post.launches != launch {
            return None;
        }
        state.lives += 1;
        let (number, now) = (state.lives, self.clock.elapsed());
        state.births.insert(number, now);
        let line = LifeLine::new(state.lives, server);
        post.line = Some(line.clone());
        Some(line)
    }

    /// The servers that stand.
    pub(crate) fn standing(&self) -> Vec<Platform> {
        self.state().posts.iter().filter_map(|post| post.platform.clone()).collect()
    }

    /// The wish a command was made for.
    pub(crate) fn wish_of(&self, key: &str) -> Option<(usize, &Wish)> {
        let number = number_of(key)?;
        let What::Command(wish) = &self.plan.happenings.get(number)?.what else { return None };
        Some((number, wish))
    }

    /// By how many milliseconds the wall clock of a server is ahead of the store's.
    pub(crate) fn ahead(&self, server: u8) -> i64 {
        self.plan.clocks_apart.get(usize::from(server)).copied().unwrap_or(0)
    }

    /// Whether the clock of a server is so wrong that it must not do its work beside others.
    pub(crate) fn is_clock_off(&self, server: u8) -> bool {
        self.ahead(server).abs() > CLOCK_OFF_MAX_MS
    }

    /// How much sooner than in time a command may be over for a server that did not accept it, in milliseconds: by what the two are
    /// unsure of the store's clock.
    pub(crate) fn may_be_early_by(&self) -> u64 {
        if self.plan.servers > 1 { UNSURE_MAX } else { 0 }
    }

    pub(crate) fn clock_of(&self, line: &LifeLine) -> Arc<dyn Clock> {
        let (server, trial, line) = (line.server, self.clock.clone(), line.clone());
        let machine = if self.plan.clocks_apart.is_empty() { 0 } else { server + 1 };
        Arc::new(MachineClock { trial, machine, ahead: self.ahead(server), line })
    }

    /// Whether emergencies have somewhere to go while the store is unwell.
    pub(crate) fn has_journals(&self) -> bool {
        self.plan.servers == 1 || self.plan.every_journal
    }

    /// While the store fails: of a hundred failures, how many have written all the same.
    pub(crate) fn store_fails(&self) -> Option<u8> {
        let (until, lies) = self.state().store_fails;
        (self.clock.elapsed() < until).then_some(lies)
    }

    pub(crate) fn store_slowness(&self) -> u64 {
        let (until, by) = self.state().store_slow;
        if self.clock.elapsed() < until { by } else { 0 }
    }

    pub(crate) fn cut_off(&self, server: u8, wait: u64) {
        let until = self.clock.elapsed() + wait;
        self.state().cut_off.insert(server, until);
        self.note_trouble(Trouble::Store, wait);
        self.note_trouble(Trouble::Reads, wait);
    }

    /// A server does not reach the broker any more.
    pub(crate) fn unlink(&self, server: u8, wait: u64) {
        let now = self.clock.elapsed();
        self.state().unlinked.insert(server, (now, now + wait));
        self.trouble(wait);
        self.tell_server(server, Inbound::LinkDown { reason: "the link was cut".to_owned() });
    }

    pub(crate) fn is_linked(&self, server: u8) -> bool {
        let now = self.clock.elapsed();
        self.state().is_linked(server, now)
    }

    pub(crate) fn is_cut_off(&self, server: u8) -> bool {
        let now = self.clock.elapsed();
        self.state().cut_off.get(&server).is_some_and(|until| now < *until)
    }

    /// For how many milliseconds a server goes on not reaching the store.
    pub(crate) fn cut_for(&self, server: u8) -> u64 {
        let (now, state) = (self.clock.elapsed(), self.state());
        let until = state.cut_off.get(&server).copied().unwrap_or(0).max(state.reads_fail);
        until.saturating_sub(now)
    }

    pub(crate) fn reads_fail(&self) -> bool {
        self.clock.elapsed() < self.state().reads_fail
    }

    pub(crate) fn journal_fails(&self) -> bool {
        self.clock.elapsed() < self.state().journal_fails
    }

    pub(crate) fn journal_slowness(&self) -> u64 {
        let (until, by) = self.state().journal_slow;
        if self.clock.elapsed() < until { by } else { 0 }
    }

    pub(crate) fn slow_journals_down(&self, wait: u64, by: u64) {
        self.state().journal_slow = (self.clock.elapsed() + wait, by);
        // Those that wait for it wait one after another.
        self.note_trouble(Trouble::Journal, wait + SLOW_LINE * by);
        if by * SLOW_LINE >= JOURNAL_PATIENCE {
            self.note_trouble(Trouble::JournalGivenUp, wait + SLOW_LINE * by);
        }
    }

    pub(crate) fn damage_journal(&self, server: u8, at: u8) {
        let mut guard = self.state();
        let State { posts, spoiled, spoiled_nonces, .. } = &mut *guard;
        if let Some(post) = posts.get_mut(usize::from(server)) {
            let lost = post.platter.damage(usize::from(at));
            spoiled.extend(lost.iter().filter_map(id_of));
            let nonce = |record: &Value| NonceUse::deserialize(&record["nonce"]).ok();
            spoiled_nonces.extend(lost.iter().filter_map(nonce).map(|nonce| nonce.key));
        }
        drop(guard);
        self.note_trouble(Trouble::Journal, 0);
    }

    /// From now on the row of the newest emergency that has not ended can be neither read nor changed.
    pub(crate) fn damage_row(&self) {
        let damaged = self.state().disk.damage_newest_emergency();
        self.trace(|| format!("the row of {damaged:?} is damaged"));
    }

    pub(crate) fn let_store_fail(&self, wait: u64, lies: u8, reads: bool) {
        let until = self.clock.elapsed() + wait;
        self.state().store_fails = (until, lies);
        self.note_trouble(Trouble::Store, wait);
        if !reads {
            self.state().reads_fail = until;
            self.note_trouble(Trouble::Reads, wait);
        }
    }

    pub(crate) fn let_journal_fail(&self, wait: u64) {
        self.state().journal_fails = self.clock.elapsed() + wait;
        self.note_trouble(Trouble::Journal, wait);
        self.note_trouble(Trouble::JournalGivenUp, wait);
    }

    /// What was not synced may be gone.
    pub(crate) fn cut_power(&self) {
        let mut guard = self.state();
        let State { posts, dice, rare, .. } = &mut *guard;
        posts.iter_mut().for_each(|post| rare.torn += post.platter.power_is_cut(dice));
    }

    pub(crate) fn slow_store_down(&self, wait: u64, by: u64) {
        self.state().store_slow = (self.clock.elapsed() + wait, by);
        self.note_trouble(Trouble::Store, wait + by);
    }

    pub(crate) fn let_broker_fall(&self, wait: u64) {
        self.state().broker_down_until = self.clock.elapsed() + wait;
        self.trouble(wait);
        if self.plan.broker.is_outside() {
            self.tell_servers(&Inbound::LinkDown { reason: "the broker fell".to_owned() });
        }
        self.cut_all();
    }

    pub(crate) fn trouble(&self, wait: u64) {
        self.note_trouble(Trouble::World, wait);
    }

    pub(crate) fn note_trouble(&self, what: Trouble, wait: u64) {
        let now = self.clock.elapsed();
        self.state().troubles.push((what, now, now + wait));
    }

    /// Something reaches every server that stands.
    pub(crate) fn tell_servers(&self, came: &Inbound) {
        self.standing().iter().for_each(|platform| self.tell(platform, came.clone()));
    }

    pub(crate) fn tell_server(&self, server: u8, came: Inbound) {
        if let Some(platform) = self.standing().iter().find(|it| it.line.server == server) {
            self.tell(platform, came);
        }
    }

    /// The servers that hear what docks say.
    pub(crate) fn listening(&self) -> Vec<Platform> {
        let mut standing = self.standing();
        standing.retain(|platform| self.is_linked(platform.line.server));
        standing
    }

    pub(crate) fn cut_all(&self) {
        for dock in 0..self.plan.docks {
            self.cut(dock);
        }
    }

    /// A dock's connection is gone.
    pub(crate) fn cut(&self, dock: u8) {
        let was_connected = {
            let now = self.clock.elapsed();
            let mut state = self.state();
            let Some(dock) = state.docks.get_mut(usize::from(dock)) else { return };
            if dock.is_connected {
                dock.changes.push((now, false));
            }
            std::mem::take(&mut dock.is_connected)
        };
        if !was_connected {
            return;
        }
        self.trace(|| format!("{} is cut", gateway(dock)));
        if self.plan.broker == Broker::Embedded {
            let user: Arc<str> = gateway(dock).as_str().into();
            self.tell_servers(&Inbound::Left { user: user.clone(), client_id: user });
        }
    }

    pub(crate) fn devices(&self) -> Vec<Device> {
        let device = |sn: DeviceSn, kind, model: &str| Device {
            sn,
            tenant: tenant(),
            kind,
            model_key: Some(model.to_owned()),
            label: String::new(),
            tags: BTreeSet::new(),
            simulated: true,
            mqtt_secret_hash: None,
            created_at: Timestamp::from_millis(0),
        };
        (0..self.plan.docks)
            .flat_map(|dock| {
                [
                    device(gateway(dock).to_device(), DeviceKind::Dock, "3-2-0"),
                    device(aircraft(dock), DeviceKind::Aircraft, "0-91-1"),
                ]
            })
            .collect()
    }

    pub(crate) fn topologies(&self) -> Vec<(GatewaySn, Vec<SubDevice>)> {
        let behind = |dock| SubDevice {
            sn: aircraft(dock),
            model_key: Some("0-91-1".to_owned()),
            index: Some("A".to_owned()),
        };
        (0..self.plan.docks).map(|dock| (gateway(dock), vec![behind(dock)])).collect()
    }
}

/// The number of the wish that a key was made for. A journal puts a key that is taken on record with an addition.
pub(crate) fn number_of(key: &str) -> Option<usize> {
    let number = key.strip_prefix("wish-")?;
    number.split_once('#').map_or(number, |(number, _)| number).parse().ok()
}

fn name(text: &str) -> DeviceSn {
    // Names of letters and digits are serial numbers; there are no others here.
    DeviceSn::parse(text).unwrap_or_else(|_| unreachable!("{text} is a serial number"))
}

pub(crate) fn gateway(dock: u8) -> GatewaySn {
    name(&format!("DOCK{dock}")).to_gateway()
}

pub(crate) fn aircraft(dock: u8) -> DeviceSn {
    name(&format!("DRONE{dock}"))
}

/// Ids out of the seed; ordered ones rise within a millisecond.
#[derive(Debug)]
pub(crate) struct TrialIds {
    dice: Mutex<(StdRng, u64)>,
}

impl TrialIds {
    fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { dice: Mutex::new((StdRng::seed_from_u64(seed), 0)) })
    }
}

impl Ids for TrialIds {
    fn ordered(&self, at: Timestamp) -> Uuid {
        let millis = u64::try_from(at.as_millis()).unwrap_or(0);
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        dice.1 += 1;
        let mut rest = [0; 10];
        rest[2..].copy_from_slice(&dice.1.to_be_bytes());
        uuid::Builder::from_unix_timestamp_millis(millis, &rest).into_uuid()
    }

    fn random(&self) -> Uuid {
        let bytes: u128 = self.dice.lock().unwrap_or_else(PoisonError::into_inner).0.random();
        uuid::Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid()
    }
}
