//! What an administrator sets up, held in memory: credentials keyed for verification, devices, and who stands behind
//! whom. Follows the store's generation, so that a change by another process (the command line) counts within a second.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;
use utmos_core::{
    device::{Device, Registry, SubDevice, TopologyChange, TopologyReport},
    id::{ApiId, DeviceSn, GatewaySn, TenantId},
    ports::{Store, StoreError},
    signing::KeyedCredential,
    time::Timestamp,
};
use utmos_dji::catalogue::GatewayModel;

use crate::fleet::Newcomers;

/// How often the store's generation is looked at.
pub const FOLLOW_WAIT: Duration = Duration::from_secs(1);

/// So many topologies are refused, one after another, before the store is left alone until the next look at it.
const UNSAVED_REFUSED_MAX: usize = 3;

/// The directory. Readers never wait for the store.
pub struct Directory {
    store: Arc<dyn Store>,
    held: RwLock<Held>,
    /// Gateways that nobody has registered yet and that hold a binding code.
    newcomers: Newcomers,
    /// The devices that the store listed last, shared with the registry where they are the same. One look at the store at a time: what was read first must not come last.
    listed: tokio::sync::Mutex<Listed>,
    /// One topology is stored at a time, and of a gateway the last comes last.
    keeping: tokio::sync::Mutex<()>,
    told: OnceLock<Box<Told>>,
}

/// Devices as the store has them.
type Listed = BTreeMap<DeviceSn, Arc<Device>>;

/// Who is told of every change, once it counts.
type Told = dyn Fn(&[DeviceChange]) + Send + Sync;

/// What a gateway's report changed.
#[derive(Debug)]
pub struct Report {
    /// What stands behind it.
    pub change: TopologyChange,
    /// What was left out, since it may not stand there.
    pub left_out: Vec<DeviceSn>,
    /// Sub-devices that became devices of the gateway's tenant with it.
    pub new: Vec<Device>,
}

/// What became of a device since the store was last looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceChange {
    /// Which.
    pub sn: DeviceSn,
    /// What.
    pub what: Changed,
}

/// What can become of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It is new.
    Added,
    /// It is new, and somebody is connected under its serial number who has joined otherwise.
    AddedOverNewcomer,
    /// It is another tenant's.
    Moved {
        /// Whose it was.
        from: TenantId,
        /// Whose it is.
        to: TenantId,
    },
    /// It has another MQTT password, or none any more, or is another kind of device.
    Login,
    /// It is no device of ours any more.
    Removed,
}

impl DeviceChange {
    /// Whether a connection that was let in before must end.
    #[must_use]
    pub fn ends_sessions(&self) -> bool {
        match self.what {
            Changed::Added => false,
            Changed::AddedOverNewcomer
            | Changed::Moved { .. }
            | Changed::Login
            | Changed::Removed => true,
        }
    }
}

impl fmt::Display for DeviceChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sn = &self.sn;
        match self.what {
            Changed::Added | Changed::AddedOverNewcomer => write!(f, "device {sn} was added"),
            Changed::Moved { from, to } => {
                write!(f, "device {sn} was moved from tenant {from} to tenant {to}")
            }
            Changed::Login => write!(f, "device {sn} has another MQTT password"),
            Changed::Removed => write!(f, "device {sn} was removed"),
        }
    }
}

/// What the store lists now. What was listed before and is the same is not held twice.
fn list(devices: Vec<Device>, before: &Listed) -> Listed {
    let one = |device: Device| match before.get_key_value(&device.sn) {
        Some((sn, known)) if **known == device => (sn.clone(), known.clone()),
        Some(_) | None => (device.sn.clone(), Arc::new(device)),
    };
    devices.into_iter().map(one).collect()
}

/// The devices in which two lists differ.
fn differing(before: &Listed, now: &Listed) -> BTreeSet<DeviceSn> {
    let gone = before.keys().filter(|sn| !now.contains_key(*sn));
    let other = now.iter().filter(|(sn, device)| before.get(*sn) != Some(*device));
    gone.chain(other.map(|(sn, _)| sn)).cloned().collect()
}

/// What became of devices.
fn changes(before: &Registry, now: &[(DeviceSn, Option<Arc<Device>>)]) -> Vec<DeviceChange> {
    let became = |(sn, new): &(DeviceSn, Option<Arc<Device>>)| match (before.device(sn), new) {
        (None, None) => None,
        (Some(_), None) => Some(Changed::Removed),
        (None, Some(_)) => Some(Changed::Added),
        (Some(old), Some(new)) if new.tenant != old.tenant => {
            Some(Changed::Moved { from: old.tenant, to: new.tenant })
        }
        (Some(old), Some(new))
            if new.mqtt_secret_hash != old.mqtt_secret_hash || new.kind != old.kind =>
        {
            Some(Changed::Login)
        }
        (Some(_), Some(_)) => None,
    };
    now.iter()
        .filter_map(|one| Some(DeviceChange { what: became(one)?, sn: one.0.clone() }))
        .collect()
}

#[derive(Default)]
struct Held {
    generation: Option<u64>,
    credentials: BTreeMap<ApiId, Arc<KeyedCredential>>,
    registry: Registry,
    /// What gateways said they are.
    models: BTreeMap<GatewaySn, String>,
    /// Devices that joined with a report and that the store did not list yet, when it was read last.
    joining: BTreeMap<DeviceSn, Joining>,
    /// Gateways behind which other devices stand than the store has on record.
    unsaved: BTreeSet<GatewaySn>,
    /// How many tenants have devices …
    tenants: usize,
    /// … and how many have credentials.
    callers: usize,
}

/// A device that counts before it is on record.
struct Joining {
    device: Arc<Device>,
    /// Behind which it came.
    gateway: GatewaySn,
    /// Whether the store has said what became of it: from then on its list is the truth.
    is_settled: bool,
}

impl Held {
    /// Takes over what became of some of the devices that the store lists now, and of those that are on their way there:
    /// `settled` were so before it was read. What it costs does not grow with the number of devices.
    fn take(
        &mut self,
        mut differing: BTreeSet<DeviceSn>,
        listed: &Listed,
        settled: &BTreeSet<DeviceSn>,
        newcomers: &Newcomers,
    ) -> Vec<DeviceChange> {
        differing.extend(self.joining.keys().cloned());
        self.joining.retain(|sn, _| !settled.contains(sn) && !listed.contains_key(sn));
        let became = |sn: DeviceSn| {
            let joins = || self.joining.get(&sn).map(|joining| &joining.device);
            let device = listed.get(&sn).or_else(joins).cloned();
            (sn, device)
        };
        let now: Vec<(DeviceSn, Option<Arc<Device>>)> = differing.into_iter().map(became).collect();
        let mut changes = changes(&self.registry, &now);
        for change in changes.iter_mut().filter(|change| change.what == Changed::Added) {
            let device = listed.get(&change.sn);
            if device.is_some_and(|device| newcomers.gives_way_to(device)) {
                change.what = Changed::AddedOverNewcomer;
            }
        }
        self.registry.change_devices(now);
        changes
    }
}

impl Directory {
    /// Reads everything once.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let directory = Self {
            store,
            held: RwLock::default(),
            newcomers: Newcomers::default(),
            listed: tokio::sync::Mutex::default(),
            keeping: tokio::sync::Mutex::default(),
            told: OnceLock::new(),
        };
        directory.refresh().await?;
        for (gateway, subs) in directory.store.topologies().await? {
            directory.write().registry.recall_topology(&gateway, subs);
        }
        Ok(directory)
    }

    /// Has every change told from now on, once it counts here. Only the first who asks for it is.
    pub fn tell(&self, told: impl Fn(&[DeviceChange]) + Send + Sync + 'static) {
        let _ = self.told.set(Box::new(told));
    }

    /// Gateways that nobody has registered yet and that hold a binding code.
    #[must_use]
    pub fn newcomers(&self) -> &Newcomers {
        &self.newcomers
    }

    /// Reads again what changed, and tells of it.
    ///
    /// # Errors
    /// When the store cannot be read; what is held stays as it was.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let mut listed = self.listed.lock().await;
        let settled = self.settled();
        let generation = self.store.generation().await?;
        if self.read().generation == Some(generation) {
            return Ok(());
        }
        let credentials = self.store.credentials().await?;
        let devices = self.store.devices().await?;
        // Every message and every request needs the lock: all that grows with the fleet is done before it is held, or after.
        let callers = credentials.iter().map(|one| one.tenant).collect::<BTreeSet<_>>().len();
        let tenants = devices.iter().map(|device| device.tenant).collect::<BTreeSet<_>>().len();
        let mut credentials: BTreeMap<ApiId, Arc<KeyedCredential>> = credentials
            .into_iter()
            .map(|one| (one.api_id.clone(), Arc::new(KeyedCredential::new(one))))
            .collect();
        let devices = list(devices, &listed);
        let differing = differing(&listed, &devices);
        let mut held = self.write();
        held.generation = Some(generation);
        std::mem::swap(&mut held.credentials, &mut credentials);
        (held.tenants, held.callers) = (tenants, callers);
        let changes = held.take(differing, &devices, &settled, &self.newcomers);
        drop(held);
        *listed = devices;
        if let Some(told) = self.told.get() {
            told(&changes);
        }
        Ok(())
    }

    fn settled(&self) -> BTreeSet<DeviceSn> {
        let held = self.read();
        let settled = held.joining.iter().filter(|(_, joining)| joining.is_settled);
        settled.map(|(sn, _)| sn.clone()).collect()
    }

    /// Knows through which gateways devices joined in the time of earlier processes, which counts against how many may.
    pub fn recall_joined(&self, joined: Vec<(GatewaySn, DeviceSn)>) {
        let mut held = self.write();
        for (gateway, sn) in joined {
            held.registry.were_bound(&gateway, &[sn]);
        }
    }

    /// Follows the store until `stopping`, and has it follow where it could not. A write that hangs holds up no look.
    pub async fn follow(&self, stopping: CancellationToken) {
        tokio::join!(self.look(&stopping), self.keep(&stopping));
    }

    async fn look(&self, stopping: &CancellationToken) {
        while !is_over(stopping).await {
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "could not look for changed credentials and devices");
            }
        }
    }

    async fn keep(&self, stopping: &CancellationToken) {
        while !is_over(stopping).await {
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = self.keep_unsaved() => {}
            }
        }
    }

    /// A credential, ready for verification.
    #[must_use]
    pub fn credential(&self, api_id: &ApiId) -> Option<Arc<KeyedCredential>> {
        self.read().credentials.get(api_id).cloned()
    }

    /// Looks at the registry.
    pub fn with_registry<T>(&self, look: impl FnOnce(&Registry) -> T) -> T {
        look(&self.read().registry)
    }

    /// How many tenants have devices.
    #[must_use]
    pub fn tenants(&self) -> usize {
        self.read().tenants
    }

    /// How many tenants have credentials.
    #[must_use]
    pub fn callers(&self) -> usize {
        self.read().callers
    }

    /// The tenant of a gateway.
    #[must_use]
    pub fn tenant_of(&self, gateway: &GatewaySn) -> Option<TenantId> {
        self.read().registry.tenant_of(gateway)
    }

    /// Whose a gateway is, or will be once it has joined. Of one that came with a code nothing is known after a restart until
    /// it comes again.
    #[must_use]
    pub fn is_or_will_be_of(&self, gateway: &GatewaySn) -> Option<TenantId> {
        self.tenant_of(gateway).or_else(|| self.newcomers.tenant_of(gateway))
    }

    /// Whether a gateway is this tenant's, or will be once it has joined.
    #[must_use]
    pub fn is_to_be_of(&self, gateway: &GatewaySn, tenant: TenantId) -> bool {
        self.is_or_will_be_of(gateway) == Some(tenant)
    }

    /// The model of a gateway, where it is known and documented.
    #[must_use]
    pub fn model_of(&self, gateway: &GatewaySn) -> Option<GatewayModel> {
        let held = self.read();
        let told = held.models.get(gateway).map(String::as_str);
        let kept = || held.registry.device(&gateway.to_device())?.model_key.as_deref();
        GatewayModel::from_key(told.or_else(kept)?)
    }

    /// Takes the model a gateway says it is. It says so at every connect, so memory is enough.
    pub fn learn_model(&self, gateway: &GatewaySn, key: String) {
        self.write().models.insert(gateway.clone(), key);
    }

    /// Forgets what a gateway said it is, which is none of ours any more.
    pub fn forget_model(&self, gateway: &GatewaySn) {
        self.write().models.remove(gateway);
    }

    /// A device, of whichever tenant.
    #[must_use]
    pub fn device(&self, sn: &DeviceSn) -> Option<Device> {
        self.read().registry.device(sn).cloned()
    }

    /// Whether `password` is the one a gateway may connect with. Constant time in the password.
    #[must_use]
    pub fn opens(&self, user: &str, password: &[u8]) -> bool {
        let Ok(sn) = DeviceSn::parse(user) else { return false };
        let given = mqtt_secret_hash(&sn, password);
        let known = self.read().registry.device(&sn).and_then(|device| device.mqtt_secret_hash);
        // An unknown gateway costs the same comparison and never matches.
        let is_known = known.is_some();
        bool::from(known.unwrap_or([0; 32]).ct_eq(&given)) && is_known
    }

    /// Takes a gateway's report of what stands behind it, in memory. What changed is for [`Directory::keep_topology`].
    pub fn report_topology(
        &self,
        gateway: &GatewaySn,
        subs: &[SubDevice],
        now: Timestamp,
    ) -> Report {
        let mut held = self.write();
        let known: Vec<bool> =
            subs.iter().map(|sub| held.registry.device(&sub.sn).is_some()).collect();
        let TopologyReport { change, left_out } = held.registry.report_topology(gateway, subs, now);
        let unknown = subs.iter().zip(known).filter(|(_, known)| !known).map(|(sub, _)| sub);
        let new: Vec<Device> =
            unknown.filter_map(|sub| held.registry.device(&sub.sn).cloned()).collect();
        for device in &new {
            let gateway = gateway.clone();
            let joining = Joining { device: Arc::new(device.clone()), gateway, is_settled: false };
            held.joining.insert(device.sn.clone(), joining);
        }
        Report { change, left_out, new }
    }

    /// These were bound with a gateway. They stand behind it as far as is known, unless it has told something itself.
    pub fn were_bound(&self, gateway: &GatewaySn, subs: Vec<SubDevice>) {
        let mut held = self.write();
        let aircraft: Vec<DeviceSn> = subs.iter().map(|sub| sub.sn.clone()).collect();
        if held.registry.known_sub_devices(gateway).is_empty() {
            held.registry.recall_topology(gateway, subs);
        }
        held.registry.were_bound(gateway, &aircraft);
    }

    /// Remembers what stands behind a gateway. An aircraft that is only off is not forgotten.
    ///
    /// # Errors
    /// When it could not be stored. It counts in memory all the same, and is stored with [`Directory::follow`].
    pub async fn keep_topology(&self, gateway: &GatewaySn) -> Result<(), StoreError> {
        let _keeping = self.keeping.lock().await;
        let (new, lost, subs) = {
            let mut held = self.write();
            held.unsaved.remove(gateway);
            let subs = held.registry.known_sub_devices(gateway).to_vec();
            let tenant = held.registry.tenant_of(gateway).filter(|_| !subs.is_empty());
            // All that came behind it, also what stands there no more.
            let joining = held.joining.values();
            let joining = joining.filter(|one| !one.is_settled && one.gateway == *gateway);
            // Its gateway is another's by now: then it is not this one's to have.
            let (new, lost): (Vec<Device>, Vec<Device>) = joining
                .map(|one| Device::clone(&one.device))
                .partition(|device| Some(device.tenant) == tenant);
            (new, lost, tenant.map(|_| subs))
        };
        let names = |devices: &[Device]| -> Vec<DeviceSn> {
            devices.iter().map(|device| device.sn.clone()).collect()
        };
        self.settle(&names(&lost));
        let Some(subs) = subs else { return Ok(()) };
        let names = names(&new);
        let kept = self.store.put_topology(gateway, new, subs).await;
        match kept {
            Ok(()) => self.settle(&names),
            Err(_) => self.note_unsaved(gateway),
        }
        kept
    }

    /// What stands behind a gateway could not be stored, and is to be.
    pub fn note_unsaved(&self, gateway: &GatewaySn) {
        self.write().unsaved.insert(gateway.clone());
    }

    /// Stores the topologies that could not be.
    async fn keep_unsaved(&self) {
        let unsaved: Vec<GatewaySn> = self.read().unsaved.iter().cloned().collect();
        let mut refused = 0;
        for gateway in unsaved {
            if let Err(error) = self.keep_topology(&gateway).await {
                tracing::debug!(gateway.sn = %gateway, %error, "could not keep a topology yet");
                refused += 1;
            }
            // One of them may be at fault, but not several.
            if refused == UNSAVED_REFUSED_MAX {
                return;
            }
        }
    }

    /// These are on record now, or will not be: with the next change of the registry the store's list counts.
    pub fn settle(&self, new: &[DeviceSn]) {
        let mut held = self.write();
        for sn in new {
            if let Some(joining) = held.joining.get_mut(sn) {
                joining.is_settled = true;
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the next look is due. Answers whether there is none, since the server stops.
async fn is_over(stopping: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        () = stopping.cancelled() => true,
        () = tokio::time::sleep(FOLLOW_WAIT) => false,
    }
}

/// What is kept of a gateway's MQTT password: SHA-256 over serial number, a zero byte, and the password. Passwords are
/// made by us and long, so a slow hash would only slow down ten thousand docks that reconnect at once.
#[must_use]
pub fn mqtt_secret_hash(sn: &DeviceSn, password: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(sn.as_str())
        .chain_update([0])
        .chain_update(password)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use utmos_core::device::DeviceKind;
    use uuid::Uuid;

    use super::*;

    fn device(sn: &str, tenant: u128, password: &[u8]) -> Device {
        let sn = DeviceSn::parse(sn).unwrap();
        Device {
            mqtt_secret_hash: Some(mqtt_secret_hash(&sn, password)),
            sn,
            tenant: TenantId::new(Uuid::from_u128(tenant)),
            kind: DeviceKind::Dock,
            model_key: None,
            label: String::new(),
            tags: std::collections::BTreeSet::new(),
            simulated: false,
            created_at: Timestamp::from_millis(0),
        }
    }

    #[test]
    fn another_password_tenant_or_no_device_at_all_ends_sessions_and_nothing_else_does() {
        let mut before = Registry::default();
        for sn in ["SAME", "LABEL", "PASSWORD", "MOVED", "GONE"] {
            before.put(device(sn, 1, b"old"));
        }
        let labelled = Device { label: "Roof".to_owned(), ..device("LABEL", 1, b"old") };
        let now = [
            device("SAME", 1, b"old"),
            labelled,
            device("PASSWORD", 1, b"new"),
            device("MOVED", 2, b"old"),
            device("NEW", 1, b"old"),
        ];
        let mut now: Vec<_> = now.map(|it| (it.sn.clone(), Some(Arc::new(it)))).into();
        now.push((DeviceSn::parse("GONE").unwrap(), None));
        now.push((DeviceSn::parse("NEVER-THERE").unwrap(), None));
        let told = changes(&before, &now);
        let told: Vec<_> = told.iter().map(|one| (one.to_string(), one.ends_sessions())).collect();
        let tenant = |number| TenantId::new(Uuid::from_u128(number));
        let moved =
            format!("device MOVED was moved from tenant {} to tenant {}", tenant(1), tenant(2));
        assert_eq!(
            told,
            [
                ("device PASSWORD has another MQTT password".to_owned(), true),
                (moved, true),
                ("device NEW was added".to_owned(), false),
                ("device GONE was removed".to_owned(), true),
            ]
        );
    }

    fn listed(devices: impl IntoIterator<Item = Device>) -> Listed {
        list(devices.into_iter().collect(), &Listed::new())
    }

    /// As after a look at the store.
    fn look(held: &mut Held, before: &Listed, now: &Listed, settled: &[&str]) -> Vec<String> {
        let settled = settled.iter().map(|sn| DeviceSn::parse(sn).unwrap()).collect();
        let changes = held.take(differing(before, now), now, &settled, &Newcomers::default());
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_listed_as_before_is_held_once() {
        let (same, other) = (device("SAME", 1, b"old"), device("OTHER", 1, b"old"));
        let before = listed([same.clone(), other.clone()]);
        let now = list(vec![same, Device { label: "Roof".to_owned(), ..other }], &before);
        let is_shared = |sn: &str| {
            let sn = DeviceSn::parse(sn).unwrap();
            Arc::ptr_eq(&before[&sn], &now[&sn])
        };
        assert!(is_shared("SAME") && !is_shared("OTHER"));
        let mut held = Held::default();
        look(&mut held, &listed([]), &now, &[]);
        let in_registry = held.registry.device(&DeviceSn::parse("SAME").unwrap()).unwrap();
        assert!(std::ptr::eq(in_registry, &*before[&in_registry.sn]));
    }

    #[test]
    fn one_that_joins_counts_until_the_store_has_said_what_became_of_it() {
        let mut held = Held::default();
        let (none, dock) = (listed([]), listed([device("DOCK", 1, b"old")]));
        assert_eq!(look(&mut held, &none, &dock, &[]), ["device DOCK was added"]);
        let joins = |held: &mut Held, sn: &str| {
            let device = Device { kind: DeviceKind::Aircraft, ..device(sn, 1, b"") };
            held.registry.put(device.clone());
            let gateway = DeviceSn::parse("DOCK").unwrap().to_gateway();
            let device = Arc::new(device);
            held.joining.insert(device.sn.clone(), Joining { device, gateway, is_settled: false });
        };
        joins(&mut held, "AIR-1");
        joins(&mut held, "AIR-2");
        // Not listed yet, and neither forgotten nor told of.
        assert!(look(&mut held, &dock, &dock, &[]).is_empty());
        assert_eq!((held.registry.devices().count(), held.joining.len()), (3, 2));
        // One is on record, the other was refused.
        let first = Device { kind: DeviceKind::Aircraft, ..device("AIR-1", 1, b"") };
        let both = listed([device("DOCK", 1, b"old"), first]);
        assert_eq!(look(&mut held, &dock, &both, &["AIR-2"]), ["device AIR-2 was removed"]);
        assert_eq!((held.registry.devices().count(), held.joining.len()), (2, 0));
        assert_eq!(look(&mut held, &both, &dock, &[]), ["device AIR-1 was removed"]);
    }

    /// How long readers wait for a change of one label: `cargo test -p utmos-server --release --lib label_of_one -- --ignored
    /// --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    #[expect(clippy::disallowed_methods, reason = "microseconds, which no clock of ours tells")]
    fn a_label_of_one_among_ten_thousand_holds_the_lock_for_that_one() {
        let all = || listed((0..10_000).map(|n| device(&format!("DOCK-{n}"), n / 100, b"old")));
        let mut held = Held::default();
        let before = all();
        look(&mut held, &listed([]), &before, &[]);
        for n in 0..10_000 {
            let gateway = GatewaySn::parse(&format!("DOCK-{n}")).unwrap();
            let sub = SubDevice {
                sn: DeviceSn::parse(&format!("AIR-{n}")).unwrap(),
                model_key: None,
                index: None,
            };
            held.registry.report_topology(&gateway, &[sub], Timestamp::from_millis(0));
        }
        let mut now = all();
        let one = DeviceSn::parse("DOCK-5000").unwrap();
        let labelled = Device { label: "Roof".to_owned(), ..Device::clone(&before[&one]) };
        now.insert(one.clone(), Arc::new(labelled));
        let took = |work: &mut dyn FnMut()| {
            let begin = std::time::Instant::now();
            work();
            begin.elapsed()
        };
        let found = std::cell::RefCell::new(BTreeSet::new());
        let beside = took(&mut || *found.borrow_mut() = differing(&before, &now));
        let locked = took(&mut || {
            let found = found.take();
            held.take(found, &now, &BTreeSet::new(), &Newcomers::default());
        });
        let all = || now.values().map(|device| Device::clone(device)).collect();
        let whole = took(&mut || held.registry.replace_devices(all()));
        eprintln!(
            "beside the lock {beside:?}, with it {locked:?}; the whole list would take {whole:?}"
        );
        assert_eq!(held.registry.device(&one).unwrap().label, "Roof");
    }
}
