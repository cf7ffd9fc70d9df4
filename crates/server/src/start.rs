//! Puts the parts together, and takes them apart again in an order that finishes what was begun.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utmos_core::{
    ports::{
        AllowanceStore, DirectLines, FleetStore, History, Ids, ReplicaStore, RequestStore, Store,
        StoreError,
    },
    replica::{InstanceId, ReplicaId},
    time::Clock,
};
use utmos_dji::{
    answer::{CloudConfig, Organization},
    catalogue::{Catalogue, CatalogueError},
    hms,
};
use utmos_mqtt::{
    Broker, BrokerConfig, BrokerError, BrokerTls, Client, ClientConfig, ClientTls, Dismissals,
    Outlet, Password, Qos,
};

use crate::{
    allowances::{Allowances, Rates},
    config::{self, Config},
    directory::{DeviceChange, Directory},
    doorkeeper::Door,
    driver::{
        Driver, DriverParts, Limits, Resumed,
        presence::{Knowledge, PresenceBook},
    },
    events::{self, Events, EventsParts},
    fleet::{Fleet, FleetParts, Onboarding, OnboardingParts},
    http::{
        App, BodyBudget, HttpServer, Metrics, ReadingHistory, ServeLimits, Times, Waiting,
        metrics_router,
    },
    link::{Link, LinkParts, Listener},
    outside::{Outside, command_qos, presence_topics},
    replicas::{Holdings, JoinError, Membership, MembershipParts, Missed},
    requests::{self, Desk, DeskParts},
    telemetry::{self, Telemetry, TelemetryParts},
};

/// Connections of an address of its own for the metrics. Whoever watches needs one.
const METRICS_CONNECTIONS_MAX: usize = 64;
/// Messages of devices that may wait to be taken in; then the broker waits, and its devices with it.
const INBOUND_WAITING_MAX: usize = 4_096;
/// How long a stop waits for the answers of devices; most come within some tens of milliseconds.
const ANSWERS_WAIT: Duration = Duration::from_secs(1);
/// Before device requests of a server that is gone are read again.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// How often nonces that need not be remembered are forgotten.
const FORGET_WAIT: Duration = Duration::from_secs(30);
/// Longest between two attempts to reach an outside broker: others may wait for this server to take its part.
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// What a server is made of, chosen by whoever starts it.
pub struct Parts {
    /// Where commands, credentials and devices are kept.
    pub store: Arc<dyn Store>,
    /// What must be on record before anything else happens, such as emergencies of an earlier run. Begun once this server is
    /// one of those that share the store: what it puts on record is its own to look after.
    pub on_record: Option<BoxFuture<'static, Result<(), StoreError>>>,
    /// Where device requests are kept.
    pub requests: Arc<dyn RequestStore>,
    /// Where sightings of devices and binding codes are kept.
    pub fleet: Arc<dyn FleetStore>,
    /// Where telemetry and device events are kept.
    pub history: Arc<dyn History>,
    /// Where it finds the servers with which it shares the store; `None` when it has the store to itself.
    pub sharing: Option<Sharing>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn Ids>,
    /// The methods.
    pub catalogue: Arc<Catalogue>,
}

/// What a server needs to share its store with others.
pub struct Sharing {
    /// Where they find each other.
    pub store: Arc<dyn ReplicaStore>,
    /// Where they tell each other how often callers asked.
    pub allowances: Arc<dyn AllowanceStore>,
    /// Which server this is, over all of its runs: of two runs only one can live.
    pub instance: InstanceId,
    /// Where they reach each other directly.
    pub lines: Arc<dyn DirectLines>,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Store(#[source] StoreError),
    /// What is in the journal of emergencies cannot be put on record.
    #[error("emergencies of an earlier run cannot be put on record")]
    Journal(#[source] StoreError),
    /// It cannot become one of the servers of its store.
    #[error("cannot join the servers of this database")]
    Join(#[source] JoinError),
    /// The table of alarms that is part of the program does not read, which a test excludes.
    #[error("the table of alarms cannot be read")]
    AlarmTexts(#[source] CatalogueError),
    /// The embedded broker does not start.
    #[error("the embedded MQTT broker does not start")]
    Broker(#[source] BrokerError),
    /// The password of the outside broker cannot be read.
    #[error("cannot read mqtt.external.password_file {}; check its path and permissions", .file.display())]
    PasswordFile {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A file for TLS towards the outside broker cannot be used.
    #[error("mqtt.external: {0}")]
    OutsideTls(String),
    /// The HTTP address cannot be listened on.
    #[error("cannot listen on {key} = {address}; choose another address, or stop what uses it")]
    Http {
        /// The setting.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// A running server.
pub struct Server {
    http: HttpServer,
    /// The metrics, where they have an address of their own.
    metrics: Option<HttpServer>,
    broker: Broking,
    driver: Driver,
    membership: Option<Arc<Membership>>,
    desk: Arc<Desk>,
    events: Arc<Events>,
    fleet: Arc<Fleet>,
    resumed: Resumed,
    shutdown_wait: Duration,
    notice: CancellationToken,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// Our own broker, or a client of another.
enum Broking {
    Own(Broker),
    Other(Client),
}

impl Server {
    /// Starts everything. When this returns, commands of an earlier process are under care and requests are taken.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: &Config, parts: Parts) -> Result<Self, StartError> {
        let mut joined = None;
        let started = Self::assemble(config, parts, &mut joined).await;
        if started.is_err()
            && let Some(membership) = joined
        {
            // Nobody must wait for a server that did not come up.
            membership.leave().await;
        }
        started
    }

    async fn assemble(
        config: &Config,
        parts: Parts,
        joined: &mut Option<Arc<Membership>>,
    ) -> Result<Self, StartError> {
        let alarm_texts = hms::Meanings::embedded().map_err(StartError::AlarmTexts)?;
        let stopping = CancellationToken::new();
        let tasks = TaskTracker::new();
        let directory =
            Arc::new(Directory::load(parts.store.clone()).await.map_err(StartError::Store)?);
        directory.recall_joined(parts.fleet.joined().await.map_err(StartError::Store)?);
        let codes = parts.fleet.binding_codes().await.map_err(StartError::Store)?;
        directory.newcomers().take_codes(codes);
        let (sender, inbound) = mpsc::channel(INBOUND_WAITING_MAX);
        let waiting = Waiting { inbound: sender.downgrade() };
        let (broker, outlet, knowledge) =
            start_broking(config, &directory, &parts.clock, sender).await?;
        let replica_id = ReplicaId(parts.ids.random());
        let replica = replica(replica_id);
        let holdings = match &parts.sharing {
            None => Holdings::alone(parts.clock.clone()),
            Some(sharing) => {
                let (store, lines) = (sharing.store.clone(), sharing.lines.clone());
                Holdings::shared(parts.clock.clone(), store, lines, replica_id)
            }
        };
        let missed = Missed::new(parts.clock.clone());
        let driver = Driver::start(DriverParts {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            ids: parts.ids.clone(),
            outlet: outlet.clone(),
            catalogue: parts.catalogue.clone(),
            directory: directory.clone(),
            replica: replica.clone(),
            holdings: holdings.clone(),
            presence: PresenceBook::new(knowledge),
            limits: Limits {
                waiting_per_gateway_max: config.commands.waiting_per_gateway_max,
                command_qos: command_qos(config),
                ..Limits::default()
            },
        });
        // Until the link is up nobody can be heard either.
        driver.listens();
        let mut shared_allowances = None;
        let membership = match parts.sharing {
            None => None,
            Some(Sharing { store, allowances, instance, lines }) => {
                shared_allowances = matches!(broker, Broking::Other(_)).then_some(allowances);
                let joining = Membership::join(MembershipParts {
                    store,
                    lines,
                    holdings: holdings.clone(),
                    missed: missed.clone(),
                    driver: driver.clone(),
                    clock: parts.clock.clone(),
                    id: replica_id,
                    instance,
                    name: replica,
                    alone: matches!(broker, Broking::Own(_)),
                    client_id: match &config.mqtt {
                        config::Mqtt::Embedded(_) => None,
                        config::Mqtt::External(other) => other.client_id.clone(),
                    },
                    is_linked: match &broker {
                        Broking::Own(_) => Arc::new(|| true),
                        Broking::Other(client) => {
                            let health = client.health();
                            Arc::new(move || health.trouble().is_none())
                        }
                    },
                });
                let membership = joining.await.map_err(StartError::Join)?;
                tasks.spawn(membership.clone().beat());
                *joined = Some(membership.clone());
                Some(membership)
            }
        };
        if let Some(on_record) = parts.on_record {
            on_record.await.map_err(StartError::Journal)?;
        }
        let resumed = driver.resume().await.map_err(StartError::Store)?;
        if let Some(membership) = &membership {
            membership.has_resumed();
        }
        let onboarding = Arc::new(Onboarding::new(OnboardingParts {
            directory: directory.clone(),
            store: parts.fleet.clone(),
            clock: parts.clock.clone(),
            organization: organization(config),
        }));
        let desk = Desk::start(DeskParts {
            directory: directory.clone(),
            onboarding: onboarding.clone(),
            driver: driver.clone(),
            store: parts.requests,
            outlet: outlet.clone(),
            clock: parts.clock.clone(),
            ids: parts.ids.clone(),
            settings: settings(config),
        });
        let desk = desk.await.map_err(StartError::Store)?;
        let telemetry = Telemetry::new(TelemetryParts {
            directory: directory.clone(),
            store: parts.history.clone(),
            clock: parts.clock.clone(),
            settings: telemetry_settings(config),
        });
        let events = Events::start(EventsParts {
            store: parts.history.clone(),
            directory: directory.clone(),
            driver: driver.clone(),
            holdings: holdings.clone(),
            catalogue: parts.catalogue.clone(),
            clock: parts.clock.clone(),
            ids: parts.ids.clone(),
            settings: events::Settings {
                per_device_max: config.events.per_device_max,
                keep: Duration::from_secs(config.events.keep_days * 24 * 60 * 60),
            },
        })
        .await;
        let told = parts.history.newest_edges().await.unwrap_or_else(|error| {
            tracing::error!(%error, "which devices came or went last cannot be read");
            Vec::new()
        });
        let fleet = Fleet::load(FleetParts {
            told,
            driver: driver.clone(),
            directory: directory.clone(),
            store: parts.fleet,
            clock: parts.clock.clone(),
            ids: parts.ids.clone(),
            edges: vec![events.clone()],
            offline_after: config.presence.offline_after,
            knowledge,
        })
        .await
        .map_err(StartError::Store)?;
        let listeners: Vec<Arc<dyn Listener>> =
            vec![desk.clone(), telemetry.clone(), events.clone(), fleet.clone()];
        let outside = match &broker {
            Broking::Own(_) => None,
            Broking::Other(client) => Some(Arc::new(Outside::of(client.health(), config))),
        };
        let link = Link::new(LinkParts {
            outside: outside.clone(),
            driver: driver.clone(),
            directory: directory.clone(),
            catalogue: parts.catalogue.clone(),
            outlet,
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            ids: parts.ids.clone(),
            holdings: holdings.clone(),
            missed,
            presence_topics: presence_topics(config),
            listeners,
        });
        tasks.spawn(link.clone().run(inbound, stopping.clone()));
        if let Some(membership) = &membership {
            tasks.spawn(membership.clone().run(stopping.clone()));
            tasks.spawn(take_requests_over(membership.clone(), desk.clone(), stopping.clone()));
            membership.listens();
        }
        tasks.spawn(telemetry.clone().keep(stopping.clone()));
        tasks.spawn(telemetry.clone().tidy(stopping.clone()));
        let dismissals = match &broker {
            Broking::Own(broker) => Some(broker.dismissals()),
            Broking::Other(_) => None,
        };
        tell_of_changes(&directory, dismissals, &fleet, &events, &telemetry);
        tasks.spawn(follow(directory.clone(), stopping.clone()));
        tasks.spawn(fleet.clone().run(stopping.clone()));
        tasks.spawn(forget_nonces(parts.store.clone(), parts.clock.clone(), stopping.clone()));
        if config.bench.allow {
            tracing::warn!("{}", crate::http::LOAD_ALLOWED);
        }
        let rates = if config.bench.allow { Rates::default() } else { config.limits };
        let allowances = match (shared_allowances, membership.clone()) {
            (Some(store), Some(membership)) => {
                let allowances = Allowances::shared(rates, parts.clock.clone());
                let servers = move || membership.servers();
                tasks.spawn(allowances.clone().tell(store, servers, stopping.clone()));
                allowances
            }
            (None, _) | (_, None) => Allowances::alone(rates, parts.clock.clone()),
        };
        let notice = CancellationToken::new();
        let app = Arc::new(App {
            allowances,
            outside,
            driver: driver.clone(),
            store: parts.store,
            directory,
            catalogue: parts.catalogue,
            link,
            desk: desk.clone(),
            telemetry,
            history: parts.history,
            reading: ReadingHistory::default(),
            times: Times::default(),
            events: events.clone(),
            alarm_texts,
            fleet: fleet.clone(),
            onboarding,
            clock: parts.clock,
            ids: parts.ids,
            inbound: waiting,
            bodies: BodyBudget::default(),
            notice: notice.clone(),
            body_bytes_max: config.http.body_bytes_max,
            body_read_wait: config.http.body_read_wait,
            load_allowed: config.bench.allow,
        });
        let limits = ServeLimits {
            connections_max: config.http.connections_max,
            header_read_wait: config.http.header_read_wait,
        };
        let listen = async |key: &'static str, address: SocketAddr, router, limits| {
            HttpServer::start(address, router, app.ids.clone(), limits)
                .await
                .map_err(|cause| StartError::Http { key, address, cause })
        };
        let (place, metrics) = match config.metrics.listen {
            Some(address) => {
                let router = metrics_router(app.clone());
                let few = ServeLimits { connections_max: METRICS_CONNECTIONS_MAX, ..limits };
                (Metrics::Elsewhere, Some(listen("metrics.listen", address, router, few).await?))
            }
            None => (Metrics::Here, None),
        };
        let api = crate::http::router(app.clone(), place);
        let http = listen("http.listen", config.http.listen, api, limits).await?;
        tracing::info!(
            http = %http.address(), open = resumed.open, unclear = resumed.unclear,
            "started; commands of earlier processes are looked after"
        );
        Ok(Self {
            http,
            metrics,
            broker,
            driver,
            membership,
            desk,
            events,
            fleet,
            resumed,
            shutdown_wait: config.http.shutdown_wait,
            notice,
            stopping,
            tasks,
        })
    }

    /// Where the API listens.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http.address()
    }

    /// Where the metrics are, if they have an address of their own.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(HttpServer::address)
    }

    /// Where the embedded broker listens, if there is one.
    #[must_use]
    pub fn mqtt_addr(&self) -> Option<SocketAddr> {
        match &self.broker {
            Broking::Own(broker) => Some(broker.local_addr()),
            Broking::Other(_) => None,
        }
    }

    /// What happens at devices, for those who see them come and go.
    #[must_use]
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// What was found at start.
    #[must_use]
    pub fn resumed(&self) -> Resumed {
        self.resumed
    }

    /// Says in `/readyz` that this server is about to stop, so that who shares requests out sends them to others.
    pub fn give_notice(&self) {
        self.notice.cancel();
    }

    /// Stops within `http.shutdown_seconds`.
    pub async fn stop(self) {
        let by = Instant::now() + self.shutdown_wait;
        self.stop_by(by).await;
    }

    /// Stops: takes no more requests, answers those that wait, hears the answers that are on their way, finishes saves and
    /// publishes, then lets the broker go. Each takes a moment; one that does not end leaves half of the time that is left
    /// to those after it. The store is closed by whoever opened it.
    pub async fn stop_by(self, by: Instant) {
        if let Some(membership) = &self.membership {
            // While requests are still answered: what comes from now on is the other servers' to send.
            let leaving = membership.hand_over();
            if tokio::time::timeout_at(halfway(by), leaving).await.is_err() {
                tracing::warn!("could not give everything to the other servers in time");
            }
        }
        self.driver.release_watches();
        let metrics = async {
            if let Some(metrics) = self.metrics {
                metrics.stop(halfway(by)).await;
            }
        };
        tokio::join!(self.http.stop(halfway(by)), metrics);
        let answers = ANSWERS_WAIT.min(halfway(by).duration_since(Instant::now()));
        self.driver.answers_come(answers).await;
        self.driver.stop(halfway(by).duration_since(Instant::now())).await;
        if let Some(membership) = &self.membership {
            membership.leave().await;
            let hang_up = membership.hang_up();
            let _late = tokio::time::timeout_at(halfway(by), hang_up).await;
        }
        self.stopping.cancel();
        self.tasks.close();
        let rest = async {
            self.desk.stop().await;
            match self.broker {
                Broking::Own(broker) => broker.shutdown().await,
                Broking::Other(client) => client.shutdown().await,
            }
            self.tasks.wait().await;
            self.fleet.keep_all().await;
            self.events.stop().await;
        };
        if tokio::time::timeout_at(by, rest).await.is_err() {
            tracing::warn!("the broker did not let go in time; its connections are cut");
        }
    }
}

/// The middle of the time that is left.
fn halfway(by: Instant) -> Instant {
    let now = Instant::now();
    now + by.saturating_duration_since(now) / 2
}

async fn start_broking(
    config: &Config,
    directory: &Arc<Directory>,
    clock: &Arc<dyn Clock>,
    sender: mpsc::Sender<utmos_mqtt::Inbound>,
) -> Result<(Broking, Arc<dyn Outlet>, Knowledge), StartError> {
    match &config.mqtt {
        config::Mqtt::Embedded(own) => {
            let mut broker = BrokerConfig::new(own.listen);
            broker.clients_max = own.clients_max;
            broker.packet_bytes_max = own.packet_bytes_max;
            broker.tls = own.tls.as_ref().map(|tls| BrokerTls {
                listen: tls.listen,
                cert: tls.cert_file.clone(),
                key: tls.key_file.clone(),
            });
            let door = Arc::new(Door::new(directory.clone(), clock.clone()));
            let broker = Broker::start(broker, door, sender).await.map_err(StartError::Broker)?;
            let outlet = broker.outlet();
            Ok((Broking::Own(broker), outlet, Knowledge::OwnBroker))
        }
        config::Mqtt::External(other) => {
            let client = Client::start(outside_client(other)?, sender);
            let outlet = client.outlet();
            Ok((Broking::Other(client), outlet, Knowledge::Heard { window: other.liveness_window }))
        }
    }
}

/// How the server connects to an outside broker.
///
/// # Errors
/// When a file that the configuration names cannot be used.
pub fn outside_client(other: &config::ExternalBroker) -> Result<ClientConfig, StartError> {
    let client_id =
        other.client_id.clone().unwrap_or_else(|| format!("utmos-{}", uuid::Uuid::new_v4()));
    let mut client = ClientConfig::new(other.host.clone(), other.port, client_id);
    client.username.clone_from(&other.username);
    if let Some(file) = &other.password_file {
        let read = std::fs::read_to_string(file);
        let password =
            read.map_err(|cause| StartError::PasswordFile { file: file.clone(), cause })?;
        client.password = Some(Password::new(password.trim_end_matches(['\r', '\n']).as_bytes()));
    }
    client.keep_alive = other.keep_alive;
    client.reconnect_wait_max = RECONNECT_WAIT_MAX;
    client.protocol = other.protocol;
    client.tls = other.tls.then(|| ClientTls {
        ca_file: other.ca_file.clone(),
        server_name: None,
        client_certificate: other.client_certificate.clone(),
    });
    client.check_tls().map_err(StartError::OutsideTls)?;
    client.subscriptions = other.filters().map(|filter| (filter, Qos::AtLeastOnce)).collect();
    Ok(client)
}

/// The organisation devices are bound to, where one is set.
fn organization(config: &Config) -> Option<Organization> {
    let dji = &config.dji;
    let is_set = !dji.organization_id.is_empty() || !dji.organization_name.is_empty();
    is_set.then(|| Organization {
        id: dji.organization_id.clone(),
        name: dji.organization_name.clone(),
    })
}

fn settings(config: &Config) -> requests::Settings {
    let dji = &config.dji;
    requests::Settings {
        cloud: CloudConfig {
            ntp_server_host: dji.ntp_server_host.clone(),
            ntp_server_port: dji.ntp_server_port,
            app_id: dji.app_id.clone(),
            app_key: dji.app_key.expose().to_owned(),
            app_license: dji.app_license.expose().to_owned(),
        },
    }
}

fn telemetry_settings(config: &Config) -> telemetry::Settings {
    let config::Telemetry { flush, pending_bytes_max, latest_bytes_max, rules } =
        config.telemetry.clone();
    telemetry::Settings { flush, pending_bytes_max, latest_bytes_max, rules }
}

/// Has what an administrator changes take effect. A session of our own broker that was let in under an old password, for
/// another tenant or as a device that is none any more ends; an outside broker has logins of its own.
fn tell_of_changes(
    directory: &Directory,
    dismissals: Option<Dismissals>,
    fleet: &Arc<Fleet>,
    events: &Arc<Events>,
    telemetry: &Arc<Telemetry>,
) {
    if let Some(dismissals) = dismissals {
        fleet.dismisses(move |sn| dismissals.dismiss(sn.as_str()));
    }
    // They and the broker have the directory, so the directory must have none of them.
    let (fleet, events) = (Arc::downgrade(fleet), Arc::downgrade(events));
    let telemetry = Arc::downgrade(telemetry);
    directory.tell(move |changes: &[DeviceChange]| {
        tracing::info!("credentials or devices changed");
        let Some(fleet) = fleet.upgrade() else { return };
        for change in changes {
            tracing::info!(device.sn = %change.sn, "{change}");
            if change.ends_sessions() {
                fleet.dismiss(&change.sn.to_gateway());
            }
        }
        fleet.changed(changes);
        if let Some(events) = events.upgrade() {
            events.changed(changes);
        }
        if let Some(telemetry) = telemetry.upgrade() {
            telemetry.changed(changes);
        }
    });
}

/// What waits for an answer by hand, or for its time, at a server that is gone is looked after here.
async fn take_requests_over(
    membership: Arc<Membership>,
    desk: Arc<Desk>,
    stopping: CancellationToken,
) {
    let follow = async {
        loop {
            membership.takes_over().await;
            while let Err(error) = desk.look_after_all().await {
                tracing::warn!(%error, "could not look after device requests of another server");
                tokio::time::sleep(RETRY_WAIT).await;
            }
        }
    };
    tokio::select! {
        biased;
        () = stopping.cancelled() => {}
        () = follow => {}
    }
}

/// Follows what an administrator changes.
async fn follow(directory: Arc<Directory>, stopping: CancellationToken) {
    directory.follow(stopping).await;
}

/// Forgets nonces that are older than any window. A wall clock that jumps ahead must not make it forget those it still
/// needs.
async fn forget_nonces(store: Arc<dyn Store>, clock: Arc<dyn Clock>, stopping: CancellationToken) {
    let start = clock.now();
    loop {
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(FORGET_WAIT) => {}
        }
        match store.forget_nonces(clock.now().steady(start)).await {
            Ok(forgotten) => tracing::trace!(forgotten, "forgot nonces"),
            Err(error) => tracing::warn!(%error, "could not forget nonces"),
        }
    }
}

/// The name of this run of the server on timelines. Unlike a process id, which is the same in every container, no other
/// run has it: by it a server tells its own claim from one that another made at the same moment.
fn replica(id: ReplicaId) -> String {
    let id = id.0.simple().to_string();
    format!("utmos-{}-{}", std::process::id(), id.get(..8).unwrap_or(&id))
}
