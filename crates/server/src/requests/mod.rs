//! What devices ask of the cloud (API.md section 5): answered by rule so that a dock works with nobody watching, or left
//! to whoever integrates, on record either way.
//!
//! [`intake`] takes what comes in and answers at once what is answered automatically; [`by_hand`] takes answers; [`tend`]
//! looks after what waits: for such an answer, for its gateway, for its deadline. What they decide,
//! `core::device_request` says; what binds devices as well goes through [`binding`]. Nothing here makes the way in wait,
//! and nothing a device asks makes memory or disk grow beyond the limits of [`doors`].

mod binding;
mod book;
mod by_hand;
mod doors;
mod facts;
mod intake;
mod remembered;
mod rules;
mod tend;
mod topologies;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utmos_core::{
    device_request::{Asked, AskedOn, DeviceRequest, Reply},
    id::GatewaySn,
    ports::{Ids, RequestStore, StoreError},
    time::Clock,
};
use utmos_dji::{
    answer::{self, CloudConfig, Question},
    topic::StatusRoot,
    uplink::{self, Exchange, Request, Uplink},
};
use utmos_mqtt::{Outlet, Publish, Sent};

use self::{book::Book, intake::Intake};
pub use self::{
    by_hand::{BIND, ByHand, ReplyError},
    rules::{Effective, RuleOrigin, Rules, UPDATE_TOPO},
};
use crate::{
    directory::Directory,
    driver::Driver,
    durations::Durations,
    fleet::Onboarding,
    link::{Listener, Said},
};

/// How long a stop waits for answers that are under way.
const STOP_WAIT: Duration = Duration::from_secs(1);
/// Requests read at once when a server starts.
const RESUME_PAGE: usize = 500;

/// What docks are told of the cloud they belong to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Answer to `config`.
    pub cloud: CloudConfig,
}

/// What the desk works with.
pub struct DeskParts {
    /// Who is who.
    pub directory: Arc<Directory>,
    /// What devices are told about organisations, and how they join.
    pub onboarding: Arc<Onboarding>,
    /// Who is there.
    pub driver: Driver,
    /// Where requests are kept.
    pub store: Arc<dyn RequestStore>,
    /// Where answers leave.
    pub outlet: Arc<dyn Outlet>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn Ids>,
    /// What docks are told.
    pub settings: Settings,
}

/// Figures of the desk since it started.
#[derive(Debug, Default)]
pub struct Figures {
    /// Requests that came, repeated ones and topology updates included.
    pub received: AtomicU64,
    /// Those that repeat one that is known.
    pub repeated: AtomicU64,
    /// Requests answered automatically.
    pub automatic: AtomicU64,
    /// Requests answered by hand.
    pub by_hand: AtomicU64,
    /// Requests nobody answered in time.
    pub expired: AtomicU64,
    /// Requests left to whoever integrates, since nothing answers them by itself.
    pub unanswered: AtomicU64,
    /// Requests answered without a record: the store was unwell, or their gateway asked more than is recorded.
    pub unrecorded: AtomicU64,
    /// Requests for which there was no room; the device asks again.
    pub dropped: AtomicU64,
    /// From the receipt of a request to its automatic answer being handed to the broker.
    pub answer: Durations,
}

/// Whose a gateway is that asked for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The tenant's whom it asked, or it came with a code of that.
    Theirs,
    /// Another tenant's, or it came with a code of that.
    Anothers,
    /// Nobody's, as far as is known here. It was removed; or it came with a code, and has not come again since the server
    /// started, so that what it asked waits for it.
    Nobodys,
}

/// Takes requests and answers them.
pub struct Desk {
    inner: Arc<Inner>,
}

struct Inner {
    parts: DeskParts,
    figures: Figures,
    rules: Rules,
    intake: Mutex<Intake>,
    book: Mutex<Book>,
    /// Wakes the timers, when something is due earlier than they know.
    timers_moved: Notify,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Listener for Desk {
    fn said(&self, said: &Said<'_>) {
        // Whoever holds the gateway answers it.
        if !said.is_ours {
            if let Uplink::Topology(topology) = said.uplink {
                // Another server puts on record what comes last from it.
                self.inner.intake().topologies.forget(&topology.gateway);
            }
            return;
        }
        if let Uplink::Request(request) = said.uplink {
            self.inner.asked(said, request);
        }
        if let Uplink::Topology(topology) = said.uplink {
            self.inner.topology_told(said, topology);
        }
    }

    fn presence(&self, gateway: &GatewaySn) {
        self.inner.gateway_was_heard(gateway);
    }
}

impl Desk {
    /// A desk at which whatever waits from before is looked after.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(parts: DeskParts) -> Result<Arc<Self>, StoreError> {
        let rules = Rules::load(parts.store.clone()).await?;
        let inner = Arc::new(Inner {
            parts,
            figures: Figures::default(),
            rules,
            intake: Mutex::default(),
            book: Mutex::default(),
            timers_moved: Notify::new(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        });
        inner.resume().await?;
        let timers = inner.clone();
        inner.tasks.spawn(async move { timers.run_timers().await });
        let follower = inner.clone();
        inner.tasks.spawn(async move { follower.rules.follow(&follower.stopping).await });
        Ok(Arc::new(Self { inner }))
    }

    /// Figures since the start.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.inner.figures
    }

    /// Where requests are read.
    #[must_use]
    pub fn store(&self) -> &dyn RequestStore {
        self.inner.parts.store.as_ref()
    }

    /// The rules by which requests are answered.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.inner.rules
    }

    /// Requests that wait for an answer by hand or for their gateway, and records that are being written.
    #[must_use]
    pub fn depths(&self) -> (usize, usize) {
        let recording = self.inner.intake().doors.recording();
        (self.inner.book().len(), recording)
    }

    /// Looks after whatever waits on record, also what another server was to look after that is gone. What two servers decide
    /// about one request, the store compares.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn look_after_all(&self) -> Result<(), StoreError> {
        self.inner.resume().await
    }

    /// Waits until the answers that are under way have left, for a moment. What has not left is on record.
    pub async fn stop(&self) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(STOP_WAIT, self.inner.tasks.wait()).await.is_err() {
            tracing::info!("stopped before every answer to a device had left");
        }
    }
}

impl Inner {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what waits from before.
    async fn resume(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.parts.store.requests_in_care(after, RESUME_PAGE).await?;
            for request in &page {
                self.look_after(request);
            }
            match page.last() {
                Some(last) => after = Some(last.asked.id),
                None => return Ok(()),
            }
        }
    }

    /// Whose the gateway that asked is by now, or would be: what a tenant answers is for no other's dock.
    fn whose(&self, asked: &Asked) -> Whose {
        match self.parts.directory.is_or_will_be_of(&asked.gateway) {
            Some(tenant) if tenant == asked.tenant => Whose::Theirs,
            Some(_) => Whose::Anothers,
            None => Whose::Nobodys,
        }
    }

    /// Sends an answer and waits for the broker's word on it.
    async fn send(
        &self,
        asked: &Asked,
        exchange: Exchange,
        reply: &Reply,
        expiry: Duration,
    ) -> Sent {
        let request = Request { exchange, ..wire(asked) };
        let outgoing = answer::request_reply(&request, &reply.data, self.parts.clock.now().wall);
        let topic = outgoing.topic.to_string();
        let (directory, gateway) = (self.parts.directory.clone(), asked.gateway.clone());
        let tenant = asked.tenant;
        let message = Publish::new(topic, outgoing.payload)
            .with_expiry(expiry)
            .with_gate(move || directory.is_to_be_of(&gateway, tenant));
        let sent = self.parts.outlet.publish(message).await;
        tracing::trace!(device_request.id = %asked.id, ?sent, "answered a device");
        sent
    }
}

/// The request as it was on the wire, as far as it was kept.
fn wire(asked: &Asked) -> Request {
    Request {
        gateway: asked.gateway.clone(),
        asked_on: match asked.asked_on {
            AskedOn::Requests => uplink::AskedOn::Requests,
            AskedOn::Status => uplink::AskedOn::Status(StatusRoot::Sys),
            AskedOn::StatusOfThing => uplink::AskedOn::Status(StatusRoot::Thing),
        },
        exchange: exchange_of(asked),
        method: asked.request_type.clone(),
        device_time: None,
        data: asked.payload.clone(),
    }
}

/// What a request on record asks, as far as it was kept.
fn kept_question(asked: &Asked) -> Question {
    match asked.payload_is_cut {
        true => Question::Unreadable,
        false => Question::of(&wire(asked)),
    }
}

fn exchange_of(asked: &Asked) -> Exchange {
    Exchange { tid: asked.tid.clone(), bid: asked.bid.clone() }
}

fn status_of(root: StatusRoot) -> AskedOn {
    match root {
        StatusRoot::Sys => AskedOn::Status,
        StatusRoot::Thing => AskedOn::StatusOfThing,
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The request after a decision, where it moved.
fn moved(decision: utmos_core::device_request::Decision) -> Option<Arc<DeviceRequest>> {
    use utmos_core::device_request::Decision;
    match decision {
        Decision::Move { to, .. } => Some(Arc::from(to)),
        Decision::Refuse(_) | Decision::Ignore => None,
    }
}
