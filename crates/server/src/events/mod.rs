//! What happens at devices (API.md section 6): every event a device tells by itself once, the alarms that are raised and
//! over, and when devices come and go. Stored beside the way in, by a task of its own; what finds no room is dropped and
//! counted. Answering is the link's, and needs nothing of this.

mod aside;
mod queue;
#[doc(hidden)]
pub mod raised;
mod repeats;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utmos_core::{
    command::Spec,
    device_event::{Alarm, DeviceEvent, EventKind},
    id::{DeviceSn, GatewaySn, TenantId},
    ports::{EventBatch, EventStore, History, Ids},
    reply::RawJson,
    time::{Clock, Timestamp},
};
use utmos_dji::{
    catalogue::{self, Catalogue},
    hms,
    uplink::{Event, Uplink},
};

use self::{
    aside::{Aside, Origin, What},
    queue::{Pending, Queue},
    raised::{Lister, Raised},
    repeats::{Mark, Repeats},
};
use crate::{
    directory::{Changed, DeviceChange, Directory},
    driver::Driver,
    http::Hidden,
    link::{Listener, Said},
    replicas::Holdings,
};

/// Most of what an event says that is kept, in bytes.
pub const DATA_BYTES_MAX: usize = 16 * 1024;
/// Longest `tid` and method that are kept, in bytes.
const WORD_BYTES_MAX: usize = 128;
/// How long the first event waits for company.
const GATHER_WAIT: Duration = Duration::from_millis(20);
/// How often it is looked for whether what happened at others' gateways is this server's by now.
const ASIDE_LOOK_WAIT: Duration = Duration::from_millis(250);
/// How long the store is left alone after a failure, and how often it is asked for one batch.
const RETRY_WAIT: Duration = Duration::from_secs(1);
const TRIES_MAX: usize = 5;
/// How often old events are looked for, and how many are forgotten at once.
const FORGET_WAIT: Duration = Duration::from_secs(600);
const FORGET_MAX: usize = 1_000;
/// What stands in the place of data that cannot be looked through for secrets.
const TOO_DEEP: &str = "hidden: nested too deeply to be looked through for secrets";

/// What is kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Newest events of a device: so many alarms and comings and goings, and so many others.
    pub per_device_max: usize,
    /// How long events are kept.
    pub keep: Duration,
}

/// What events work with.
pub struct EventsParts {
    /// Where they are kept.
    pub store: Arc<dyn History>,
    /// Who is who.
    pub directory: Arc<Directory>,
    /// Knows which command an event belongs to.
    pub driver: Driver,
    /// Knows which gateways are this server's: of several that share a history the holder keeps what happens.
    pub holdings: Arc<Holdings>,
    /// Knows what is secret in commands.
    pub catalogue: Arc<Catalogue>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn Ids>,
    /// What is kept.
    pub settings: Settings,
}

/// Figures since the start.
#[derive(Debug, Default)]
pub struct Figures {
    /// Events that came, every copy.
    pub received: AtomicU64,
    /// Those that told nothing new: copies, and lists of alarms that did not change.
    pub repeated: AtomicU64,
    /// Events that were stored.
    pub stored: AtomicU64,
    /// Events that found no room, or that the store did not take.
    pub dropped: AtomicU64,
}

/// Keeps device events.
pub struct Events {
    parts: EventsParts,
    figures: Figures,
    state: Mutex<State>,
    wake: Notify,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Default)]
struct State {
    queue: Queue,
    repeats: Repeats,
    /// Lists of alarms, which come every 2 s: they push out nothing of what else was said.
    lists: Repeats,
    raised: Raised,
    /// What happened lately at gateways of other servers.
    aside: Aside,
    /// Devices whose alarms another server keeps.
    others: BTreeSet<DeviceSn>,
}

impl Listener for Events {
    fn said(&self, said: &Said<'_>) {
        let Uplink::Event(event) = said.uplink else { return };
        count(&self.figures.received, 1);
        let list = (event.method.as_deref() == Some(hms::METHOD))
            .then(|| hms::read(&event.data))
            .flatten();
        match list {
            Some(list) => self.alarms_listed(said, event, list),
            None => self.told(&origin_of(said), event),
        }
    }
}

impl Events {
    /// Begins to keep events. Alarms that an earlier process knew are raised still.
    pub async fn start(parts: EventsParts) -> Arc<Self> {
        // Commands do not need the history, so nothing about it may keep a server from starting.
        let raised = match parts.store.alarms().await {
            Ok(alarms) => Raised::of(alarms),
            Err(error) => {
                tracing::error!(%error, "the alarms of before cannot be read; they are raised anew");
                Raised::default()
            }
        };
        let listed: Vec<DeviceSn> = raised.devices().cloned().collect();
        let events = Arc::new(Self {
            parts,
            figures: Figures::default(),
            state: Mutex::new(State { raised, ..State::default() }),
            wake: Notify::new(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        // Some may have left while no process ran.
        listed.iter().for_each(|device| events.belongs_now(device));
        events.tasks.spawn(events.clone().keep());
        events.tasks.spawn(events.clone().forget());
        events
    }

    /// Stores what waits, and ends.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Figures since the start.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// How many events wait for the store.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().queue.len()
    }

    /// Where events are read.
    #[must_use]
    pub fn store(&self) -> &dyn EventStore {
        &*self.parts.store
    }

    /// The alarms of a device that are raised now, and when it last listed them.
    #[must_use]
    pub fn alarms_of(
        &self,
        tenant: TenantId,
        device: &DeviceSn,
    ) -> (Vec<Alarm>, Option<Timestamp>) {
        self.lock().raised.of_device(tenant, device)
    }

    /// The alarms of a tenant's devices that are raised now, by device.
    #[must_use]
    pub fn alarms_of_tenant(&self, tenant: TenantId) -> Vec<Alarm> {
        self.lock().raised.of_tenant(tenant)
    }

    /// A device came or went; `evidence` says by what that is known.
    pub fn edge(
        &self,
        tenant: TenantId,
        device: &DeviceSn,
        is_online: bool,
        at: Timestamp,
        evidence: &str,
    ) {
        let route = self.parts.directory.with_registry(|registry| registry.route(tenant, device));
        let gateway = route.map_or_else(|_| device.to_gateway(), |route| route.gateway);
        let is_ours = self.is_ours(&gateway);
        let event = DeviceEvent {
            id: self.parts.ids.ordered(at),
            tenant,
            device: device.clone(),
            gateway,
            kind: if is_online { EventKind::Online } else { EventKind::Offline },
            method: None,
            tid: None,
            data: json!({ "evidence": evidence }).to_string().into(),
            is_cut: false,
            received_at: at,
            device_time: None,
            need_reply: false,
            command: None,
        };
        let mut state = self.lock();
        match is_ours {
            true => drop(self.push(&mut state, Pending { event, spec: None })),
            false => self.set_aside(&mut state, What::Found(Box::new(event))),
        }
    }

    /// The registry has changed, and that counts: the alarms of a device that is another's, or nobody's, are over.
    pub fn changed(&self, changes: &[DeviceChange]) {
        for change in changes {
            match change.what {
                Changed::Moved { .. } | Changed::Removed => {
                    let mut state = self.lock();
                    state.repeats.forget(&change.sn);
                    state.lists.forget(&change.sn);
                    state.others.remove(&change.sn);
                    drop(state);
                    self.belongs_now(&change.sn);
                }
                Changed::Added | Changed::AddedOverNewcomer | Changed::Login => {}
            }
        }
    }

    fn belongs_now(&self, device: &DeviceSn) {
        let mut state = self.lock();
        let whose = self.parts.directory.device(device).map(|device| device.tenant);
        if let Some(left) = state.raised.belongs(device, whose) {
            state.queue.set_alarms(device, left);
            self.wake.notify_one();
        }
    }

    /// Whether this server keeps what happens at a gateway and behind it.
    fn is_ours(&self, gateway: &GatewaySn) -> bool {
        !self.parts.store.is_shared() || self.parts.holdings.holds(gateway)
    }

    /// Puts what happened at another's gateway where this server finds it if it takes over.
    fn set_aside(&self, state: &mut State, what: What) {
        if state.aside.is_empty() {
            self.wake.notify_one();
        }
        state.aside.put(self.parts.clock.now().mono, what);
    }

    /// What happened at gateways that others held is this server's to keep, where they are this server's by now.
    fn take_over(&self) {
        if self.lock().aside.is_empty() {
            return;
        }
        let now = self.parts.clock.now().mono;
        let ours = self.lock().aside.take(now, |gateway| self.is_ours(gateway));
        for what in ours {
            match what {
                What::Said(origin, event) => self.told(&origin, &event),
                What::Found(event) => {
                    self.push(&mut self.lock(), Pending { event: *event, spec: None });
                }
            }
        }
    }

    fn told(&self, said: &Origin, event: &Event) {
        if !self.is_ours(&said.gateway) {
            let what = What::Said(said.clone(), Box::new(event.clone()));
            return self.set_aside(&mut self.lock(), what);
        }
        let mark = Mark::of(event, said.at.mono);
        if self.lock().repeats.knows(&event.device, mark, said.at.mono) {
            return count(&self.figures.repeated, 1);
        }
        let command = event.progress.as_ref().and_then(|progress| {
            let mut progress = (**progress).clone();
            progress.gateway = said.gateway.clone();
            self.parts.driver.find_job(&progress)
        });
        let spec = command
            .and_then(|id| self.parts.driver.cared_for(id))
            .map(|command| command.spec.clone());
        let mut made = self.event(said, event, EventKind::Event, event.data.clone());
        made.command = command;
        made.tid = event.exchange.own_tid().map(short);
        let mut state = self.lock();
        if self.push(&mut state, Pending { event: made, spec }) {
            state.repeats.note(&event.device, mark);
        }
    }

    fn alarms_listed(&self, said: &Said<'_>, event: &Event, list: Vec<hms::Entry>) {
        let by = Lister {
            tenant: said.tenant,
            device: &event.device,
            gateway: said.gateway,
            at: said.at,
        };
        let mut state = self.lock();
        // It may have left since the message came in; what it lists would stay for good.
        let device = self.parts.directory.device(&event.device);
        if device.is_none_or(|device| device.tenant != said.tenant) {
            return count(&self.figures.dropped, 1);
        }
        // A copy that comes late would take the place of newer lists. Without an id of its own a list is what it says.
        if event.exchange.own_tid().is_some() {
            let mark = Mark::of(event, said.at.mono);
            if state.lists.knows(&event.device, mark, said.at.mono) {
                return count(&self.figures.repeated, 1);
            }
            state.lists.note(&event.device, mark);
        }
        let change = state.raised.listed(&by, list);
        let is_ours = self.is_ours(said.gateway);
        // What the former holder did not come to keep is kept now.
        let was_anothers = is_ours && state.others.remove(&event.device);
        if !is_ours {
            state.others.insert(event.device.clone());
        }
        let is_changed = !change.raised.is_empty() || !change.cleared.is_empty();
        if is_ours && (is_changed || was_anothers) {
            let (alarms, _) = state.raised.of_device(said.tenant, &event.device);
            state.queue.set_alarms(&event.device, alarms);
            self.wake.notify_one();
        }
        if !is_changed {
            return count(&self.figures.repeated, 1);
        }
        let kinds =
            [(EventKind::AlarmRaised, change.raised), (EventKind::AlarmCleared, change.cleared)];
        for (kind, alarms) in kinds.into_iter().filter(|(_, alarms)| !alarms.is_empty()) {
            let entries: Vec<&str> = alarms.iter().map(|alarm| &*alarm.entry).collect();
            let data = format!(r#"{{"list":[{}]}}"#, entries.join(","));
            let made = self.event(&origin_of(said), event, kind, data.into());
            match is_ours {
                true => drop(self.push(&mut state, Pending { event: made, spec: None })),
                false => self.set_aside(&mut state, What::Found(Box::new(made))),
            }
        }
        self.wake.notify_one();
    }

    fn event(&self, said: &Origin, event: &Event, kind: EventKind, data: RawJson) -> DeviceEvent {
        DeviceEvent {
            id: self.parts.ids.ordered(said.at.wall),
            tenant: said.tenant,
            device: event.device.clone(),
            gateway: said.gateway.clone(),
            kind,
            method: event.method.as_deref().map(short),
            tid: None,
            data,
            is_cut: false,
            received_at: said.at.wall,
            device_time: event.device_time,
            need_reply: event.need_reply,
            command: None,
        }
    }

    fn push(&self, state: &mut State, pending: Pending) -> bool {
        let pending = self.shorten(pending);
        let has_room = state.queue.push(pending, self.parts.directory.tenants());
        if has_room {
            self.wake.notify_one();
        } else {
            count(&self.figures.dropped, 1);
        }
        has_room
    }

    async fn keep(self: Arc<Self>) {
        loop {
            self.take_over();
            let (events, alarms) = self.lock().queue.take();
            if !events.is_empty() || !alarms.is_empty() {
                let is_kept = self.save(events, alarms).await;
                if !is_kept && self.stopping.is_cancelled() {
                    return;
                }
                continue;
            }
            if self.stopping.is_cancelled() {
                return;
            }
            let is_anything_aside = !self.lock().aside.is_empty();
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => {}
                () = self.wake.notified() => tokio::time::sleep(GATHER_WAIT).await,
                () = tokio::time::sleep(ASIDE_LOOK_WAIT), if is_anything_aside => {}
            }
        }
    }

    /// Stores this. Of what the store does not take, events are dropped; alarms wait on, one list for each device, for
    /// without them it would go on to say what is over.
    async fn save(&self, pending: Vec<Pending>, alarms: Vec<(DeviceSn, Vec<Alarm>)>) -> bool {
        let count_of = pending.len();
        let events = pending.into_iter().map(|pending| self.fit(pending)).collect();
        let mut alarms = alarms;
        for alarm in alarms.iter_mut().flat_map(|(_, alarms)| alarms) {
            if let Some(shown) = self.hide(&alarm.gateway, None, &alarm.entry) {
                alarm.entry = shown;
            }
        }
        let batch =
            EventBatch { events, alarms, per_device_max: self.parts.settings.per_device_max };
        for attempt in 1..=TRIES_MAX {
            match self.parts.store.keep_events(batch.clone()).await {
                Ok(new) => {
                    count(&self.figures.stored, new);
                    count(&self.figures.repeated, count_of.saturating_sub(new));
                    return true;
                }
                Err(error) => {
                    let devices = batch.alarms.len();
                    tracing::error!(
                        %error, attempt,
                        "could not store {count_of} device events, and the alarms of {devices} devices"
                    );
                }
            }
            if attempt < TRIES_MAX {
                tokio::select! {
                    biased;
                    () = self.stopping.cancelled() => {}
                    () = tokio::time::sleep(RETRY_WAIT) => {}
                }
            }
        }
        count(&self.figures.dropped, count_of);
        self.lock().queue.keep_alarms(batch.alarms);
        false
    }

    /// What a device says as it may be kept, where that is not as it says it: the history is not sealed. Hidden are the
    /// secrets of its command, those that were told to its gateway lately, and whatever is a secret by its name.
    fn hide(&self, gateway: &GatewaySn, spec: Option<&Spec>, data: &str) -> Option<RawJson> {
        let Ok(data) = serde_json::from_str::<Value>(data) else {
            return Some(Value::from(TOO_DEEP).to_string().into());
        };
        let mut shown = match spec {
            Some(spec) => Hidden::of(spec, &self.parts.catalogue).data(&data),
            None => data.clone(),
        };
        for secrets in self.parts.driver.confided_to(gateway) {
            secrets.hide_in(&mut shown);
        }
        let shown = catalogue::mask_by_name(&shown);
        (shown != data).then(|| shown.to_string().into())
    }

    /// No secret may get into the history, and nothing that is too long.
    fn fit(&self, pending: Pending) -> DeviceEvent {
        let Pending { mut event, spec } = pending;
        if let Some(shown) = self.hide(&event.gateway, spec.as_deref(), &event.data) {
            event.data = shown;
        }
        if !event.is_cut && DATA_BYTES_MAX < event.data.len() {
            event.data = Value::from(beginning(&event.data)).to_string().into();
            event.is_cut = true;
        }
        event
    }

    /// What is too long to be kept takes no room from what waits, so it is cut before. Of a text that is cut, what may be
    /// secret is known by its name alone; what the secrets of commands are is looked for before.
    fn shorten(&self, pending: Pending) -> Pending {
        if pending.event.data.len() <= DATA_BYTES_MAX {
            return pending;
        }
        let has_secrets = || !self.parts.driver.confided_to(&pending.event.gateway).is_empty();
        if pending.spec.is_some() || has_secrets() {
            return Pending { event: self.fit(pending), spec: None };
        }
        Pending { event: cut(pending.event), spec: None }
    }

    /// Forgets what is old. A wall clock that jumps ahead must not make it forget what is not.
    async fn forget(self: Arc<Self>) {
        let start = self.parts.clock.now();
        let keep = i64::try_from(self.parts.settings.keep.as_millis()).unwrap_or(i64::MAX);
        loop {
            let now = self.parts.clock.now();
            let steady = now.steady(start);
            let before = Timestamp::from_millis(steady.as_millis().saturating_sub(keep));
            loop {
                match self.parts.store.forget_events(before, FORGET_MAX).await {
                    Ok(forgotten) if forgotten >= FORGET_MAX && !self.stopping.is_cancelled() => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(%error, "could not forget old device events");
                        break;
                    }
                }
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(FORGET_WAIT) => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn origin_of(said: &Said<'_>) -> Origin {
    Origin { tenant: said.tenant, gateway: said.gateway.clone(), at: said.at }
}

fn count(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

/// Leaves the beginning of what an event says, up to where a secret may be named.
fn cut(mut event: DeviceEvent) -> DeviceEvent {
    let shown = catalogue::mask_cut_request(beginning(&event.data));
    event.data = Value::from(shown).to_string().into();
    event.is_cut = true;
    event
}

/// As much of what an event says as is kept.
fn beginning(data: &str) -> &str {
    let end = (0..=DATA_BYTES_MAX.min(data.len())).rev().find(|end| data.is_char_boundary(*end));
    data.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// A word of a device's, cut to what is kept.
fn short(word: &str) -> String {
    let end = (0..=WORD_BYTES_MAX.min(word.len())).rev().find(|end| word.is_char_boundary(*end));
    word.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}
