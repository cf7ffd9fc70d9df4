//! What devices ask of the cloud (API.md section 5), answered so that a dock comes up with nobody watching.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::task::TaskTracker;
use utmos_core::{
    id::{DeviceSn, TenantId},
    ports::RequestStore,
    time::Clock,
};
use utmos_dji::{
    answer::{self, Binding, BindingOutcome, CloudConfig, Facts, Organization, Question},
    uplink::{Request, Uplink},
};
use utmos_mqtt::{Outlet, Publish};

use crate::{
    directory::Directory,
    link::{Listener, Said},
};

/// Answers to devices are worth nothing later than this.
const ANSWER_EXPIRY: Duration = Duration::from_secs(30);

/// What docks are told of the cloud they belong to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Answer to `config`.
    pub cloud: CloudConfig,
    /// The organisation devices are bound to; without it, the tenant's id and name stand in.
    pub organization: Option<Organization>,
}

/// What the desk works with.
pub struct DeskParts {
    /// Who is who.
    pub directory: Arc<Directory>,
    /// Where requests are kept.
    pub store: Arc<dyn RequestStore>,
    /// Where answers leave.
    pub outlet: Arc<dyn Outlet>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What docks are told.
    pub settings: Settings,
}

/// Figures of the desk since it started.
#[derive(Debug, Default)]
pub struct Figures {
    /// Answers sent to devices.
    pub answered: AtomicU64,
    /// Requests of devices that nothing answers by itself.
    pub unanswered: AtomicU64,
}

/// Takes requests and answers them.
pub struct Desk {
    parts: DeskParts,
    figures: Figures,
    tasks: TaskTracker,
}

impl Listener for Desk {
    fn said(&self, said: &Said<'_>) {
        if let Uplink::Request(request) = said.uplink {
            self.answer(said.tenant, request);
        }
    }
}

impl Desk {
    /// A desk.
    #[must_use]
    pub fn new(parts: DeskParts) -> Arc<Self> {
        Arc::new(Self { parts, figures: Figures::default(), tasks: TaskTracker::new() })
    }

    /// Figures since the start.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Waits until the answers that are under way have left.
    pub async fn stop(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Sends an answer. Nobody waits for the broker's word on it: a device that missed it asks again.
    fn send(&self, outgoing: answer::Outgoing) {
        self.figures.answered.fetch_add(1, Ordering::Relaxed);
        let outlet = self.parts.outlet.clone();
        self.tasks.spawn(async move {
            let topic = outgoing.topic.to_string();
            let message = Publish::new(topic.clone(), outgoing.payload).with_expiry(ANSWER_EXPIRY);
            let sent = outlet.publish(message).await;
            tracing::trace!(topic, ?sent, "answered a device");
        });
    }
}

impl Desk {
    fn answer(&self, tenant: TenantId, request: &Request) {
        let question = Question::of(request);
        let facts = self.facts(tenant, &question);
        match answer::automatic(&question, &facts) {
            Ok(answered) => {
                let at = self.parts.clock.now().wall;
                tracing::info!(
                    gateway.sn = %request.gateway, result = answered.result,
                    "answered {}", request.method.as_deref().unwrap_or("a request")
                );
                self.send(answer::request_reply(request, &answered.data, at));
            }
            Err(why) => {
                self.figures.unanswered.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    gateway.sn = %request.gateway, %why,
                    "left {} unanswered", request.method.as_deref().unwrap_or("a request")
                );
            }
        }
    }

    fn facts(&self, tenant: TenantId, question: &Question) -> Facts {
        let organization =
            self.parts.settings.organization.clone().unwrap_or_else(|| Organization {
                id: tenant.to_string(),
                name: tenant.to_string(),
            });
        let mut facts = Facts {
            config: Some(self.parts.settings.cloud.clone()),
            organization: Some(organization.clone()),
            ..Facts::default()
        };
        match question {
            Question::BindStatus { devices } => {
                facts.bindings = self.bindings(tenant, devices, &organization)
            }
            Question::Bind { devices } => {
                let outcome = |sn: &DeviceSn| self.binding_outcome(tenant, sn);
                facts.outcomes =
                    devices.iter().map(|one| (one.sn.clone(), outcome(&one.sn))).collect();
            }
            Question::Config
            | Question::Organization { .. }
            | Question::FlightAreas
            | Question::OfflineMap
            | Question::Storage { .. }
            | Question::Resource { .. }
            | Question::Unreadable
            | Question::NoMethod
            | Question::Other => {}
        }
        facts
    }

    /// A device that is registered to the tenant counts as bound; an aircraft is registered when its dock reports it.
    fn bindings(
        &self,
        tenant: TenantId,
        devices: &[String],
        to: &Organization,
    ) -> BTreeMap<DeviceSn, Binding> {
        self.parts.directory.with_registry(|registry| {
            let parsed = devices.iter().filter_map(|sn| DeviceSn::parse(sn).ok());
            let known = parsed
                .filter_map(|sn| registry.device(&sn))
                .filter(|device| device.tenant == tenant);
            known
                .map(|device| {
                    let callsign = if device.label.is_empty() {
                        device.sn.to_string()
                    } else {
                        device.label.clone()
                    };
                    (device.sn.clone(), Binding { organization: to.clone(), callsign })
                })
                .collect()
        })
    }

    /// The gateway has proved who it is with its password, so it may bind itself and its own aircraft; nobody else's.
    fn binding_outcome(&self, tenant: TenantId, sn: &DeviceSn) -> BindingOutcome {
        match self.parts.directory.device(sn) {
            Some(device) if device.tenant != tenant => BindingOutcome::AlreadyBound,
            Some(_) | None => BindingOutcome::Bound,
        }
    }
}
