//! The devices as they are at this moment: which are there and by what that is known, when each was seen, and how one
//! joins a tenant. The registry itself is the directory's.

mod binding;
mod edges;
mod newcomers;
mod onboarding;
mod orders;
pub mod presence;
pub mod secrets;
pub mod sightings;
mod watching;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;
use utmos_core::{
    device::Device,
    id::{DeviceSn, GatewaySn, TenantId},
    life::Presence,
    ports::{FleetStore, Ids, KeptEdge, Sighting, StoreError},
    time::{Clock, Mono, Now, Timestamp},
};

use self::{
    presence::{Book, Standing},
    sightings::{Sight, Sightings},
};
use crate::{
    directory::{Changed, DeviceChange, Directory},
    driver::{Driver, presence::Knowledge},
};

pub use self::{
    binding::{Answered, NotAnswered, Outcomes, Plan, ToAnswer},
    edges::{Edge, EdgeSink, Evidence},
    newcomers::{Newcomer, Newcomers},
    onboarding::{Onboarding, OnboardingParts},
    orders::{CODES_PER_TENANT_MAX, CodeAsked},
};

/// Sightings written at once.
const BATCH: usize = 500;

/// How long after its last message an aircraft counts as there that its gateway, which is connected to our own broker,
/// has not listed.
const HEARD_WINDOW: Duration = Duration::from_secs(60);

/// What the fleet works with.
pub struct FleetParts {
    /// Knows which gateways are there.
    pub driver: Driver,
    /// Who is who.
    pub directory: Arc<Directory>,
    /// Where sightings are kept.
    pub store: Arc<dyn FleetStore>,
    /// The last comings and goings that were told, oldest first. They are kept sooner than sightings: a process that died
    /// then left a record that knows nothing of them.
    pub told: Vec<KeptEdge>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn Ids>,
    /// Who is told that a device has come or gone.
    pub edges: Vec<Arc<dyn EdgeSink>>,
    /// How long a device must be gone before that is told.
    pub offline_after: Duration,
    /// How presence is known.
    pub knowledge: Knowledge,
}

/// Figures of the fleet since it started.
#[derive(Debug, Default)]
pub struct Figures {
    /// How often a device came.
    pub came: AtomicU64,
    /// How often a device went.
    pub went: AtomicU64,
    /// How often it was looked whether a device had come or gone.
    pub looks: AtomicU64,
}

/// The fleet.
pub struct Fleet {
    parts: FleetParts,
    held: Mutex<Held>,
    figures: Figures,
    /// Something is due earlier than it was.
    due: Notify,
    /// Something is to be written soon.
    write: Notify,
    /// Binding codes may have changed.
    codes: Notify,
    dismiss: OnceLock<Box<Dismiss>>,
}

/// Ends the connections of a gateway.
type Dismiss = dyn Fn(&GatewaySn) + Send + Sync;

struct Held {
    book: Book,
    sightings: Sightings,
    /// The aircraft that each gateway listed last.
    listed: BTreeMap<GatewaySn, BTreeSet<DeviceSn>>,
}

/// How a device stands, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Whether it is there now.
    pub online: bool,
    /// By what that is known.
    pub evidence: Evidence,
    /// Since when, where that is known; of one that was only heard, when that was last.
    pub at: Option<Timestamp>,
    /// What was seen of it.
    pub sight: Option<Sight>,
}

impl Fleet {
    /// A fleet with what is on record of it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load(mut parts: FleetParts) -> Result<Arc<Self>, StoreError> {
        let kept = match parts.store.sightings().await {
            // When a device was seen is worth no refusal to start; what is seen from now on is written over it.
            Err(StoreError::Damaged(what)) => {
                tracing::error!(what, "when devices were seen cannot be read");
                Vec::new()
            }
            kept => kept?,
        };
        let mut book = Book::new(parts.offline_after);
        let now = parts.clock.now();
        let told = std::mem::take(&mut parts.told);
        let added_at = |sn: &DeviceSn, tenant| {
            let device = parts.directory.device(sn).filter(|device| device.tenant == tenant);
            device.map(|device| device.created_at)
        };
        let is_gateway =
            |sn: &DeviceSn| parts.directory.device(sn).is_some_and(|it| it.kind.is_gateway());
        for (sn, since) in were_there(&kept, &told, added_at, now.wall) {
            book.was_there(&sn, since, now);
            // Another server has heard it, or this one before it was started anew.
            if is_gateway(&sn) {
                parts
                    .driver
                    .presence(|book, now| (book.was_heard(&sn.to_gateway(), since, now), vec![]));
            }
        }
        let held = Held { book, sightings: Sightings::of(&kept), listed: BTreeMap::new() };
        Ok(Arc::new(Self {
            parts,
            held: Mutex::new(held),
            figures: Figures::default(),
            due: Notify::new(),
            write: Notify::new(),
            codes: Notify::new(),
            dismiss: OnceLock::new(),
        }))
    }

    /// Figures since the start.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Devices that count as there.
    #[must_use]
    pub fn online(&self) -> usize {
        self.lock().book.online()
    }

    /// How connections are ended, where the broker is our own.
    pub fn dismisses(&self, dismiss: impl Fn(&GatewaySn) + Send + Sync + 'static) {
        let _ = self.dismiss.set(Box::new(dismiss));
    }

    /// Ends the connections of a gateway, where the broker is our own.
    pub fn dismiss(&self, gateway: &GatewaySn) {
        if let Some(dismiss) = self.dismiss.get() {
            dismiss(gateway);
        }
    }

    /// The registry has changed, and that counts.
    pub fn changed(&self, changes: &[DeviceChange]) {
        let mut held = self.lock();
        for change in changes {
            match change.what {
                Changed::Moved { .. } | Changed::Removed => {
                    held.book.forget(&change.sn);
                    held.sightings.forget(&change.sn);
                    held.listed.remove(&change.sn.to_gateway());
                }
                Changed::Added | Changed::AddedOverNewcomer | Changed::Login => {}
            }
        }
        drop(held);
        for change in changes.iter().filter(|change| change.what == Changed::Removed) {
            self.forget(&change.sn);
        }
        // Of one that has joined while it was connected, nothing else may be heard for a while.
        for change in changes.iter().filter(|change| change.what == Changed::Added) {
            self.look_at(&change.sn);
        }
        self.codes.notify_one();
    }

    /// A device is none of ours any more, or never came to be: what was held of it in memory goes.
    fn forget(&self, device: &DeviceSn) {
        self.parts.driver.forget(device);
        self.parts.directory.forget_model(&device.to_gateway());
    }

    /// How a device stands.
    #[must_use]
    pub fn shown(&self, device: &Device) -> Shown {
        let now = self.parts.clock.now();
        let presence = self.gateway_presence(device);
        let held = self.lock();
        let (standing, evidence) = self.standing(&held, device, presence, now);
        let sight = held.sightings.sight(&device.sn).cloned();
        let (told, since) = held.book.told(&device.sn);
        drop(held);
        let online = matches!(standing, Standing::There { .. });
        let heard_at = sight.as_ref().map(|sight| sight.last_seen_at);
        let at = match evidence {
            Evidence::Connected | Evidence::ListedByGateway => since.filter(|_| told),
            Evidence::Disconnected | Evidence::LeftGateway | Evidence::GatewayOffline => {
                since.filter(|_| !told).or(heard_at)
            }
            Evidence::Heard | Evidence::Silent => heard_at,
            Evidence::Never => None,
        };
        Shown { online, evidence, at, sight }
    }

    /// What the driver knows of a gateway; nothing of an aircraft.
    fn gateway_presence(&self, device: &Device) -> Option<Presence> {
        let is_gateway = device.kind.is_gateway();
        is_gateway.then(|| self.parts.driver.is_present(&device.sn.to_gateway()))
    }

    /// How a device stands at this moment, and by what that is known. `presence` is the driver's word on a gateway.
    fn standing(
        &self,
        held: &Held,
        device: &Device,
        presence: Option<Presence>,
        now: Now,
    ) -> (Standing, Evidence) {
        let (is_own, window) = match self.parts.knowledge {
            Knowledge::OwnBroker => (true, HEARD_WINDOW),
            Knowledge::Heard { window } => (false, window),
        };
        let heard = held.sightings.sight(&device.sn).and_then(|sight| sight.heard);
        let heard_until = heard.map(|at| at.plus(window));
        let never_or = |evidence| match held.sightings.sight(&device.sn) {
            Some(_) => evidence,
            None => Evidence::Never,
        };
        if let Some(presence) = presence {
            return match presence {
                Presence::Online if is_own => {
                    (Standing::There { until: None }, Evidence::Connected)
                }
                Presence::Online => {
                    let until = there_until(heard_until, now.mono, window);
                    (Standing::There { until: Some(until) }, Evidence::Heard)
                }
                Presence::Absent { .. } if is_own => {
                    (Standing::Gone, never_or(Evidence::Disconnected))
                }
                Presence::Absent { .. }
                    if self.parts.driver.session_is_over(&device.sn.to_gateway()) =>
                {
                    (Standing::Gone, never_or(Evidence::Disconnected))
                }
                Presence::Absent { .. } | Presence::NeverHeard | Presence::NotHeardYet => {
                    (Standing::Gone, never_or(Evidence::Silent))
                }
            };
        }
        let (now_behind, before) =
            self.parts.directory.with_registry(|registry| registry.gateways_of(&device.sn));
        let is_there =
            |gateway: &GatewaySn| self.parts.driver.is_present(gateway) == Presence::Online;
        if now_behind.iter().any(is_there) {
            return (Standing::There { until: None }, Evidence::ListedByGateway);
        }
        let was_heard = heard_until.filter(|until| now.mono <= *until);
        if let Some(until) = was_heard
            && before.iter().any(is_there)
        {
            return (Standing::There { until: Some(until) }, Evidence::Heard);
        }
        let why = if now_behind.is_empty() && before.iter().any(is_there) {
            Evidence::LeftGateway
        } else {
            Evidence::GatewayOffline
        };
        (Standing::Gone, never_or(why))
    }

    /// Looks at a device, and tells if it has come or gone.
    fn look_at(&self, sn: &DeviceSn) {
        self.figures.looks.fetch_add(1, Ordering::Relaxed);
        let Some(device) = self.parts.directory.device(sn) else {
            return self.lock().book.forget(sn);
        };
        // The directory's own, so that the same name is not held once more.
        let sn = &device.sn;
        let now = self.parts.clock.now();
        let mut held = self.lock();
        // Asked while the book is held: an older word than another's would stand until the next change.
        let presence = self.gateway_presence(&device);
        let (standing, evidence) = self.standing(&held, &device, presence, now);
        let next = held.book.next_due();
        let came = held.book.look(sn, standing, now);
        let mut edges = Vec::new();
        if let Some(online) = came {
            if online && device.kind.is_gateway() {
                held.sightings.seen(sn, device.tenant, now);
            }
            held.sightings.changed(sn);
            edges.push(Edge {
                tenant: device.tenant,
                device: sn.clone(),
                online,
                at: now.wall,
                evidence,
            });
        }
        let is_earlier = match (next, held.book.next_due()) {
            (Some(next), Some(then)) => then < next,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let aircraft = match came {
            Some(_) if device.kind.is_gateway() => held.listed.get(&sn.to_gateway()).cloned(),
            Some(_) | None => None,
        };
        drop(held);
        if is_earlier {
            self.due.notify_one();
        }
        self.tell(edges);
        for sn in aircraft.into_iter().flatten() {
            self.look_at_aircraft(&sn, came == Some(false));
        }
    }

    /// Looks at an aircraft whose gateway has come or gone. With the last gateway it goes as well: nobody waits twice.
    fn look_at_aircraft(&self, sn: &DeviceSn, gateway_has_gone: bool) {
        if !gateway_has_gone {
            return self.look_at(sn);
        }
        let Some(device) = self.parts.directory.device(sn) else { return };
        let now = self.parts.clock.now();
        let mut held = self.lock();
        let (standing, evidence) = self.standing(&held, &device, None, now);
        let has_gone = standing == Standing::Gone && held.book.end(sn, now);
        if has_gone {
            held.sightings.changed(sn);
        }
        drop(held);
        if has_gone {
            let tenant = device.tenant;
            let edge = Edge { tenant, device: sn.clone(), online: false, at: now.wall, evidence };
            self.tell(vec![edge]);
        }
    }

    fn tell(&self, edges: Vec<Edge>) {
        for edge in edges {
            let figure = if edge.online { &self.figures.came } else { &self.figures.went };
            figure.fetch_add(1, Ordering::Relaxed);
            let word = if edge.online { "online" } else { "offline" };
            tracing::info!(
                device.sn = %edge.device, evidence = edge.evidence.as_str(), "{} is {word}", edge.device
            );
            for sink in &self.parts.edges {
                sink.edge(&edge);
            }
            self.write.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The devices that were there when an earlier process ended, and since when that is known: by what was seen, or by what was
/// told later. `added_at` says since when a device is its tenant's: what was told of one that was removed and added again says
/// nothing of it. A wall clock that shows less than what is on record was set back since, and tells no order.
fn were_there(
    kept: &[Sighting],
    told: &[KeptEdge],
    added_at: impl Fn(&DeviceSn, TenantId) -> Option<Timestamp>,
    now: Timestamp,
) -> BTreeMap<DeviceSn, Timestamp> {
    let kept = kept.iter().filter(|one| added_at(&one.sn, one.tenant).is_some());
    // What was seen of a device goes with it.
    let kept: BTreeMap<&DeviceSn, &Sighting> = kept.map(|one| (&one.sn, one)).collect();
    let mut last: BTreeMap<&DeviceSn, (bool, Timestamp)> =
        kept.iter().map(|(sn, one)| (*sn, (one.online, one.last_seen_at))).collect();
    // In the order in which it was told, whatever the clock showed.
    for edge in told {
        let Some(added_at) = added_at(&edge.device, edge.tenant) else { continue };
        let seen = kept.get(&edge.device);
        let was_seen_before = seen.is_some_and(|seen| seen.first_seen_at <= edge.at);
        let is_of_before = edge.at < added_at && added_at <= now && !was_seen_before;
        let seen_after =
            seen.is_some_and(|seen| edge.at <= seen.last_seen_at && seen.last_seen_at <= now);
        if !is_of_before && !seen_after {
            last.insert(&edge.device, (edge.online, edge.at));
        }
    }
    let there = last.into_iter().filter(|(_, (online, _))| *online);
    there.map(|(sn, (_, at))| (sn.clone(), at)).collect()
}

/// When one that was heard lately is to be looked at again. What cannot be read is a sign of life and no sighting, so the
/// last sighting may be older than that: a time that is over would be looked at again and again.
fn there_until(heard_until: Option<Mono>, now: Mono, window: Duration) -> Mono {
    heard_until.filter(|until| now < *until).unwrap_or_else(|| now.plus(window))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn one_that_is_there_is_looked_at_again_after_now() {
        let window = Duration::from_secs(60);
        let now = Mono::from_millis(100_000);
        for (heard_until, wanted) in [
            (None, 160_000),
            (Some(130_000), 130_000),
            (Some(100_000), 160_000),
            (Some(1), 160_000),
        ] {
            let until = there_until(heard_until.map(Mono::from_millis), now, window);
            assert_eq!(until, Mono::from_millis(wanted), "{heard_until:?}");
        }
    }

    fn tenant() -> TenantId {
        TenantId::new(uuid::Uuid::from_u128(1))
    }

    fn seen(sn: &str, online: bool, millis: i64) -> Sighting {
        Sighting {
            sn: DeviceSn::parse(sn).unwrap(),
            tenant: tenant(),
            first_seen_at: Timestamp::from_millis(millis.min(10)),
            last_seen_at: Timestamp::from_millis(millis),
            online,
            firmware: None,
            model_key: None,
        }
    }

    fn edge(sn: &str, online: bool, millis: i64) -> KeptEdge {
        let device = DeviceSn::parse(sn).unwrap();
        KeptEdge { tenant: tenant(), device, online, at: Timestamp::from_millis(millis) }
    }

    /// Those that were there, of devices that were all added at that time.
    fn there(kept: &[Sighting], told: &[KeptEdge], added_at: i64, now: i64) -> Vec<(String, i64)> {
        let at = Timestamp::from_millis;
        let added_at = |sn: &DeviceSn, _| (sn.as_str() != "ANOTHERS").then(|| at(added_at));
        let there = were_there(kept, told, added_at, at(now));
        there.iter().map(|(sn, at)| (sn.to_string(), at.as_millis())).collect()
    }

    #[test]
    fn what_was_told_later_than_it_was_seen_counts() {
        let kept = [
            seen("STAYED", true, 10),
            seen("WENT", true, 10),
            seen("CAME", false, 10),
            seen("CAME-AND-WENT", false, 10),
            seen("SEEN-SINCE", true, 30),
            seen("GONE-SINCE", false, 30),
        ];
        let told = [
            edge("WENT", false, 20),
            edge("CAME", true, 20),
            edge("CAME-AND-WENT", true, 20),
            edge("CAME-AND-WENT", false, 21),
            edge("SEEN-SINCE", false, 20),
            edge("GONE-SINCE", true, 20),
            edge("NEVER-SEEN", true, 20),
            edge("ANOTHERS", true, 20),
        ];
        let expected = [("CAME", 20), ("NEVER-SEEN", 20), ("SEEN-SINCE", 30), ("STAYED", 10)];
        assert_eq!(there(&kept, &told, 0, 40), expected.map(|(sn, at)| (sn.to_owned(), at)));
    }

    #[test]
    fn what_was_told_of_one_before_it_was_added_again_says_nothing_of_it() {
        let told = [edge("DOCK", true, 20)];
        assert_eq!(there(&[], &told, 20, 40), [("DOCK".to_owned(), 20)]);
        assert_eq!(there(&[], &told, 21, 40), [], "it never came since");
        let told = [edge("DOCK", false, 20), edge("DOCK", true, 20), edge("DOCK", true, 30)];
        assert_eq!(there(&[], &told, 21, 40), [("DOCK".to_owned(), 30)]);
    }

    /// The times are minutes; the clock is set by an hour.
    #[test]
    fn a_wall_clock_that_was_set_makes_nobody_come_or_go() {
        // Set back: it went, and was killed before that was on record with what was seen.
        let (kept, told) = ([seen("DOCK", true, 120)], [edge("DOCK", false, 65)]);
        assert_eq!(there(&kept, &told, 0, 66), []);
        // Set ahead and back: it came at the wrong time, and went at the right one.
        let told = [edge("DOCK", true, 185), edge("DOCK", false, 126)];
        assert_eq!(there(&[], &told, 0, 127), []);
        assert_eq!(there(&[seen("DOCK", true, 185)], &told, 0, 127), []);
        // It was added while the clock was an hour ahead, and came since.
        let told = [edge("DOCK", true, 130)];
        assert_eq!(there(&[], &told, 185, 131), [("DOCK".to_owned(), 130)]);
        assert_eq!(
            there(&[seen("DOCK", false, 129)], &told, 185, 190),
            [("DOCK".to_owned(), 130)],
            "what was seen of it was seen since it was added"
        );
    }
}
