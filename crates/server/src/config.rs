//! The configuration: one struct per section, read once, checked whole.
//!
//! Values come in layers (the shipped default file, a file, the environment, flags); a later one wins. An unknown key is
//! an error wherever it stands, and all problems are told at once. Nothing here reads a file or the environment: the
//! caller hands over what it found.

mod layer;
mod problem;
mod reader;

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use tracing::Level;
use utmos_core::{allowance::Rate, credential::Secret, ports::TelemetryRules};
use utmos_dji::topic::SERVER_FILTERS;
use utmos_mqtt::{ClientCertificate, ProtocolChoice, Qos};

use self::reader::Reader;
pub use self::{
    layer::{Layers, OTHER_VARIABLES, Origin},
    problem::{ConfigErrors, Problem},
    reader::Row,
};
use crate::{
    allowances::Rates,
    presence_topics::{NamedBy, PresenceFilter, PresenceTopics, Tells},
};

/// The shipped default file: every key with its default and its documentation.
pub const DEFAULT_FILE: &str = include_str!("../data/utmos.default.toml");

/// Most requests a second, or at once, that a limit can be.
const REQUESTS_MAX: u32 = 1_000_000;

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder for what the server keeps.
    pub data_dir: PathBuf,
    /// Threads that requests and messages are worked on with; `None`: half as many as there are processors.
    pub threads: Option<NonZeroUsize>,
    /// The HTTP API.
    pub http: Http,
    /// The metrics.
    pub metrics: Metrics,
    /// How often callers may ask.
    pub limits: Rates,
    /// The database.
    pub store: Store,
    /// Where docks connect.
    pub mqtt: Mqtt,
    /// The life of commands.
    pub commands: Commands,
    /// What devices tell of themselves.
    pub telemetry: Telemetry,
    /// Device events.
    pub events: Events,
    /// When devices count as there.
    pub presence: Presence,
    /// How servers of one database reach each other.
    pub servers: Servers,
    /// What devices are told.
    pub dji: Dji,
    /// The catalogue of methods.
    pub catalogue: CatalogueFile,
    /// Who may load it.
    pub bench: Bench,
    /// The log.
    pub log: Log,
}

/// The HTTP API.
#[derive(Debug, Clone)]
pub struct Http {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Largest request body.
    pub body_bytes_max: usize,
    /// Longest a client may take for the head of a request.
    pub header_read_wait: Duration,
    /// Longest a client may take for the body of a request.
    pub body_read_wait: Duration,
    /// Connections at once.
    pub connections_max: usize,
    /// How long a server that is told to stop says so in `/readyz` before it stops.
    pub notice_wait: Duration,
    /// Longest a shutdown may take to finish what was begun.
    pub shutdown_wait: Duration,
}

/// The metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Address and port of their own; `None` = those of the API.
    pub listen: Option<SocketAddr>,
}

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    /// The SQLite file; the journal of emergencies lies beside it.
    pub path: PathBuf,
    /// PostgreSQL instead of the SQLite file.
    pub postgres: Option<Postgres>,
    /// The file with the key that encrypts secrets.
    pub master_key_file: PathBuf,
    /// For how long servers keep commands after their week has ended; `None` = for ever. Only with PostgreSQL.
    pub commands_keep: Option<Duration>,
    /// Where telemetry and device events are kept.
    pub history: HistoryIn,
    /// The SQLite file of telemetry and device events.
    pub history_path: PathBuf,
}

/// Where telemetry and device events are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryIn {
    /// In PostgreSQL, where that is the store: one history of all servers. Else in the SQLite file.
    Store,
    /// In a SQLite file of each server, whatever the store is.
    File,
}

/// A PostgreSQL database.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// Where it is; may hold a password.
    pub url: Secret,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// PEM file of the authority; `None` = the system's.
    pub ca_file: Option<PathBuf>,
    /// Connections that read.
    pub connections: usize,
}

/// How servers of one database reach each other, past the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Servers {
    /// Whether this one takes part.
    pub direct: bool,
    /// Where it listens; `None` = the address from which it reaches the database, at a free port.
    pub listen: Option<SocketAddr>,
    /// What others are told, where that is another address.
    pub address: Option<SocketAddr>,
}

/// Where docks connect.
#[derive(Debug, Clone)]
pub enum Mqtt {
    /// To the broker inside this server.
    Embedded(EmbeddedBroker),
    /// To another broker, where the server meets them.
    External(ExternalBroker),
}

/// The broker inside this server.
#[derive(Debug, Clone)]
pub struct EmbeddedBroker {
    /// Address and port without TLS; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Connections at once.
    pub clients_max: usize,
    /// Largest MQTT packet.
    pub packet_bytes_max: usize,
    /// The second address, with TLS.
    pub tls: Option<EmbeddedTls>,
}

/// The embedded broker's address with TLS.
#[derive(Debug, Clone)]
pub struct EmbeddedTls {
    /// Address and port.
    pub listen: SocketAddr,
    /// PEM file with the certificate chain.
    pub cert_file: PathBuf,
    /// PEM file with the private key.
    pub key_file: PathBuf,
}

/// A broker outside.
#[derive(Debug, Clone)]
pub struct ExternalBroker {
    /// Its name or address; never empty.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User name.
    pub username: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// Which MQTT to speak.
    pub protocol: ProtocolChoice,
    /// Whether to use TLS.
    pub tls: bool,
    /// PEM file of the authority; `None` = the public ones.
    pub ca_file: Option<PathBuf>,
    /// What the server shows of itself, where the broker asks for it.
    pub client_certificate: Option<ClientCertificate>,
    /// With which quality of service commands leave: 0 or 1.
    pub command_qos: Qos,
    /// Client id; `None` = a random one at each start.
    pub client_id: Option<String>,
    /// MQTT keep-alive of the server's own connection.
    pub keep_alive: Duration,
    /// How long after its last message a gateway counts as online.
    pub liveness_window: Duration,
    /// Where the broker tells of connections.
    pub presence: PresenceTopics,
}

/// The life of commands.
#[derive(Debug, Clone)]
pub struct Commands {
    /// Commands that may wait for one gateway.
    pub waiting_per_gateway_max: usize,
}

/// What devices tell of themselves.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// How often it is kept.
    pub flush: Duration,
    /// Most bytes that may wait to be kept.
    pub pending_bytes_max: usize,
    /// Most bytes that are held of the latest of all devices.
    pub latest_bytes_max: usize,
    /// How long and how closely it is kept.
    pub rules: TelemetryRules,
}

/// Device events.
#[derive(Debug, Clone)]
pub struct Events {
    /// Newest events of a device that are kept: so many alarms and comings and goings, and so many others.
    pub per_device_max: usize,
    /// How long they are kept, in days.
    pub keep_days: u64,
}

/// When devices count as there.
#[derive(Debug, Clone)]
pub struct Presence {
    /// How long a device must be gone before that is told.
    pub offline_after: Duration,
}

/// What devices are told in `config` and binding requests.
#[derive(Debug, Clone)]
pub struct Dji {
    /// App id from DJI's developer site.
    pub app_id: String,
    /// App key.
    pub app_key: Secret,
    /// App licence.
    pub app_license: Secret,
    /// Time server.
    pub ntp_server_host: String,
    /// Its port.
    pub ntp_server_port: u16,
    /// Organisation docks are bound to.
    pub organization_id: String,
    /// Its name.
    pub organization_name: String,
}

impl Dji {
    /// Whether all is there that a real dock asks for in `config`.
    #[must_use]
    pub fn has_app(&self) -> bool {
        let secrets = [self.app_key.expose(), self.app_license.expose()];
        !self.app_id.is_empty() && secrets.iter().all(|secret| !secret.is_empty())
    }
}

/// The catalogue of methods.
#[derive(Debug, Clone)]
pub struct CatalogueFile {
    /// JSON file with changes.
    pub override_file: Option<PathBuf>,
}

/// Who may load it.
#[derive(Debug, Clone, Copy)]
pub struct Bench {
    /// Whether `utmos bench --server` may.
    pub allow: bool,
}

/// The log.
#[derive(Debug, Clone)]
pub struct Log {
    /// The least serious lines that are written.
    pub level: Level,
    /// How they are written.
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A configuration, with where each value comes from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Each key in the order of the default file: its value as it may be shown, and its origin.
    pub rows: Vec<Row>,
}

impl Loaded {
    /// Where the value of `key` comes from.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.rows.iter().find(|row| row.key == key).map(|row| &row.origin)
    }
}

impl Config {
    /// Reads the layers.
    ///
    /// # Errors
    /// Every unknown key in every layer, and every value in force that does not fit.
    pub fn load(layers: Layers) -> Result<Loaded, ConfigErrors> {
        let mut reader = Reader::new(layers);
        let config = Self::read(&mut reader);
        let rows = reader.finish()?;
        Ok(Loaded { config, rows })
    }

    /// The defaults alone, for tests and tools.
    ///
    /// # Errors
    /// When the shipped default file does not fit, which a test excludes.
    pub fn defaults() -> Result<Self, ConfigErrors> {
        Self::load(Layers::new()).map(|loaded| loaded.config)
    }

    fn read(reader: &mut Reader) -> Self {
        let data_dir = reader.path("data_dir");
        let threads = NonZeroUsize::new(reader.size("threads", 0..=1_024));
        let http = Http::read(reader);
        let metrics = Metrics { listen: reader.optional_address("metrics.listen") };
        let limits = Rates::read(reader);
        let own_path = data_dir.join("utmos.sqlite");
        let store_path = reader.path_or("store.path", own_path.clone());
        let postgres = Postgres::read(reader);
        if postgres.is_some() && store_path != own_path {
            let both = "names a SQLite file, and store.url a PostgreSQL database; leave one of the two empty";
            reader.refuse("store.path", both);
        }
        let keep_days = reader.size("store.commands_keep_days", 0..=36_500) as u64;
        if keep_days > 0 && postgres.is_none() {
            let why = "is for the weeks of a PostgreSQL database (store.url), and a SQLite database keeps every command; leave it 0";
            reader.refuse("store.commands_keep_days", why);
        }
        let store = Store {
            path: store_path,
            commands_keep: (keep_days > 0).then(|| Duration::from_secs(keep_days * 24 * 60 * 60)),
            postgres,
            master_key_file: reader.path_or("store.master_key_file", data_dir.join("master.key")),
            history: reader
                .choice("store.history", &[("store", HistoryIn::Store), ("file", HistoryIn::File)]),
            history_path: reader.path_or("store.history_path", data_dir.join("history.sqlite")),
        };
        let mqtt = Mqtt::read(reader);
        let are_several = store.postgres.is_some() && matches!(mqtt, Mqtt::External(_));
        let servers = Servers::read(reader, are_several);
        let is_same = |address: Option<SocketAddr>, other: SocketAddr| {
            address.is_some_and(|address| address.port() != 0 && address == other)
        };
        if is_same(metrics.listen, http.listen) {
            reader.refuse(
                "metrics.listen",
                "is the address of http.listen too; leave it empty for that, or choose another port",
            );
        }
        if let Mqtt::Embedded(broker) = &mqtt {
            let addresses = [
                ("mqtt.embedded.listen", Some(broker.listen)),
                ("mqtt.embedded.tls_listen", broker.tls.as_ref().map(|tls| tls.listen)),
            ];
            for (key, address) in addresses {
                if is_same(address, http.listen) {
                    reader.refuse(key, "is the address of http.listen too; choose another port");
                }
                if metrics.listen.is_some_and(|listen| is_same(address, listen)) {
                    reader.refuse(key, "is the address of metrics.listen too; choose another port");
                }
            }
        }
        let commands = Commands {
            waiting_per_gateway_max: reader.size("commands.waiting_per_gateway_max", 1..=1_000_000),
        };
        let telemetry = Telemetry::read(reader);
        let events = Events {
            per_device_max: reader.size("events.per_device_max", 100..=100_000),
            keep_days: reader.size("events.keep_days", 1..=3_650) as u64,
        };
        let presence =
            Presence { offline_after: reader.seconds("presence.offline_after_seconds", 1..=3600) };
        let dji = Dji {
            app_id: reader.text("dji.app_id"),
            app_key: reader.secret("dji.app_key"),
            app_license: reader.secret("dji.app_license"),
            ntp_server_host: reader.text("dji.ntp_server_host"),
            ntp_server_port: reader.port("dji.ntp_server_port"),
            organization_id: reader.text("dji.organization_id"),
            organization_name: reader.text("dji.organization_name"),
        };
        let catalogue =
            CatalogueFile { override_file: reader.optional_path("catalogue.override_file") };
        let bench = Bench { allow: reader.flag("bench.allow") };
        let log = Log {
            level: reader.choice(
                "log.level",
                &[
                    ("error", Level::ERROR),
                    ("warn", Level::WARN),
                    ("info", Level::INFO),
                    ("debug", Level::DEBUG),
                    ("trace", Level::TRACE),
                ],
            ),
            format: reader
                .choice("log.format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
        };
        Self {
            data_dir,
            threads,
            http,
            metrics,
            limits,
            store,
            mqtt,
            commands,
            telemetry,
            events,
            presence,
            dji,
            catalogue,
            servers,
            bench,
            log,
        }
    }
}

impl Postgres {
    fn read(reader: &mut Reader) -> Option<Self> {
        let url = reader.secret("store.url");
        let postgres = Self {
            password_file: reader.optional_path("store.password_file"),
            ca_file: reader.optional_path("store.ca_file"),
            connections: reader.size("store.connections", 1..=1000),
            url,
        };
        (!postgres.url.expose().is_empty()).then_some(postgres)
    }
}

impl Http {
    fn read(reader: &mut Reader) -> Self {
        Self {
            listen: reader.address("http.listen"),
            body_bytes_max: reader.size("http.body_bytes_max", 1024..=16 * 1024 * 1024),
            header_read_wait: reader.seconds("http.header_read_seconds", 1..=300),
            body_read_wait: reader.seconds("http.body_read_seconds", 1..=300),
            connections_max: reader.size("http.connections_max", 1..=1_000_000),
            notice_wait: reader.seconds("http.notice_seconds", 0..=300),
            shutdown_wait: reader.seconds("http.shutdown_seconds", 1..=600),
        }
    }
}

impl Rates {
    fn read(reader: &mut Reader) -> Self {
        let mut number = |key, least| {
            u32::try_from(reader.size(key, least..=u64::from(REQUESTS_MAX))).unwrap_or(REQUESTS_MAX)
        };
        let mut rate = |per_second, burst| Rate::new(number(per_second, 0), number(burst, 1));
        Self {
            credential: rate("limits.credential_per_second", "limits.credential_burst"),
            tenant: rate("limits.tenant_per_second", "limits.tenant_burst"),
        }
    }
}

impl Telemetry {
    fn read(reader: &mut Reader) -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let mut days = |key| DAY * u32::try_from(reader.size(key, 0..=3_650)).unwrap_or(0);
        let dock = days("telemetry.dock_days");
        let remote_controller = days("telemetry.remote_controller_days");
        let aircraft = days("telemetry.aircraft_days");
        let hours = u32::try_from(reader.size("telemetry.full_rate_hours", 1..=87_600));
        Self {
            flush: reader.seconds("telemetry.flush_seconds", 1..=300),
            pending_bytes_max: reader
                .size("telemetry.pending_bytes_max", 1_048_576..=4_294_967_296),
            latest_bytes_max: reader.size("telemetry.latest_bytes_max", 1_048_576..=68_719_476_736),
            rules: TelemetryRules {
                dock,
                remote_controller,
                aircraft,
                full_rate: Duration::from_secs(3600) * hours.unwrap_or(u32::MAX),
                step: reader.seconds("telemetry.step_seconds", 1..=3_600),
                bytes_max: reader.size("telemetry.history_bytes_max", 16_777_216..=1 << 44) as u64,
            },
        }
    }
}

impl Servers {
    /// Where servers share a database and a broker, and speak directly, it matters where.
    fn read(reader: &mut Reader, are_several: bool) -> Self {
        let servers = Self {
            direct: reader.flag("servers.direct"),
            listen: reader.optional_address("servers.listen"),
            address: reader.optional_address("servers.address"),
        };
        for (key, given) in
            [("servers.listen", servers.listen), ("servers.address", servers.address)]
        {
            if given.is_some() && !(are_several && servers.direct) {
                reader.refuse(key, "is for servers that share a PostgreSQL database (store.url) and a broker (mqtt.mode) and speak directly (servers.direct); leave it empty");
            }
        }
        if servers.address.is_some_and(|address| address.ip().is_unspecified()) {
            reader
                .refuse("servers.address", "must be an address at which others reach this server");
        }
        servers
    }
}

impl Mqtt {
    /// Both halves are read and checked, whichever is in force.
    fn read(reader: &mut Reader) -> Self {
        #[derive(Clone, Copy)]
        enum Mode {
            Embedded,
            External,
        }
        let mode = reader
            .choice("mqtt.mode", &[("embedded", Mode::Embedded), ("external", Mode::External)]);
        let embedded = EmbeddedBroker::read(reader);
        let external = ExternalBroker::read(reader);
        match mode {
            Mode::Embedded => Self::Embedded(embedded),
            Mode::External => {
                if external.host.is_empty() {
                    reader.refuse(
                        "mqtt.external.host",
                        "must be the broker's name or address in mode \"external\"",
                    );
                }
                Self::External(external)
            }
        }
    }
}

impl EmbeddedBroker {
    fn read(reader: &mut Reader) -> Self {
        let broker = Self {
            listen: reader.address("mqtt.embedded.listen"),
            clients_max: reader.size("mqtt.embedded.clients_max", 1..=1_000_000),
            packet_bytes_max: reader.size("mqtt.embedded.packet_bytes_max", 1024..=268_435_455),
            tls: None,
        };
        let listen = reader.optional_address("mqtt.embedded.tls_listen");
        let cert_file = reader.optional_path("mqtt.embedded.tls_cert_file");
        let key_file = reader.optional_path("mqtt.embedded.tls_key_file");
        if listen.is_none() && (cert_file.is_some() || key_file.is_some()) {
            reader.refuse(
                "mqtt.embedded.tls_listen",
                "must be an address when mqtt.embedded.tls_cert_file or tls_key_file is set",
            );
        }
        let Some(listen) = listen else { return broker };
        if listen == broker.listen && listen.port() != 0 {
            reader.refuse(
                "mqtt.embedded.tls_listen",
                "is the address of mqtt.embedded.listen too; choose another port",
            );
        }
        for (key, file) in
            [("mqtt.embedded.tls_cert_file", &cert_file), ("mqtt.embedded.tls_key_file", &key_file)]
        {
            if file.is_none() {
                reader.refuse(key, "must be a PEM file when mqtt.embedded.tls_listen is set");
            }
        }
        let (cert_file, key_file) = (cert_file.unwrap_or_default(), key_file.unwrap_or_default());
        Self { tls: Some(EmbeddedTls { listen, cert_file, key_file }), ..broker }
    }
}

impl ExternalBroker {
    /// The filters a server subscribes to there.
    pub fn filters(&self) -> impl Iterator<Item = String> {
        let presence = self.presence.filters.iter().map(|(filter, _)| filter.to_filter());
        SERVER_FILTERS.iter().map(|filter| (*filter).to_owned()).chain(presence)
    }

    fn read(reader: &mut Reader) -> Self {
        // In the order of the file, in which problems are told.
        let host = reader.text("mqtt.external.host");
        let port = reader.port("mqtt.external.port");
        let username = reader.optional_text("mqtt.external.username");
        let password_file = reader.optional_path("mqtt.external.password_file");
        let protocol = reader.choice(
            "mqtt.external.protocol",
            &[
                ("auto", ProtocolChoice::Auto),
                ("5", ProtocolChoice::V5),
                ("3.1.1", ProtocolChoice::V311),
            ],
        );
        let tls = reader.flag("mqtt.external.tls");
        let ca_file = reader.optional_path("mqtt.external.ca_file");
        let cert_file = reader.optional_path("mqtt.external.client_cert_file");
        let key_file = reader.optional_path("mqtt.external.client_key_file");
        match (&cert_file, &key_file) {
            (Some(_), None) => reader.refuse(
                "mqtt.external.client_key_file",
                "must be a PEM file when mqtt.external.client_cert_file is set",
            ),
            (None, Some(_)) => reader.refuse(
                "mqtt.external.client_cert_file",
                "must be a PEM file when mqtt.external.client_key_file is set",
            ),
            (None, None) | (Some(_), Some(_)) => {}
        }
        if cert_file.is_some() && !tls {
            reader.refuse(
                "mqtt.external.tls",
                "must be true when mqtt.external.client_cert_file is set",
            );
        }
        let client_certificate = cert_file
            .zip(key_file)
            .map(|(cert_file, key_file)| ClientCertificate { cert_file, key_file });
        let command_qos = match reader.size("mqtt.external.command_qos", 0..=1) {
            0 => Qos::AtMostOnce,
            _ => Qos::AtLeastOnce,
        };
        Self {
            client_certificate,
            command_qos,
            host,
            port,
            username,
            password_file,
            protocol,
            tls,
            ca_file,
            client_id: reader.optional_text("mqtt.external.client_id"),
            keep_alive: reader.seconds("mqtt.external.keep_alive_seconds", 2..=600),
            liveness_window: reader.seconds("mqtt.external.liveness_seconds", 5..=3600),
            presence: presence_topics(reader),
        }
    }
}

fn presence_topics(reader: &mut Reader) -> PresenceTopics {
    let mut filters = Vec::new();
    for (key, tells) in [
        ("mqtt.external.presence_connected", Tells::Connected),
        ("mqtt.external.presence_disconnected", Tells::Disconnected),
        ("mqtt.external.presence_state", Tells::State),
    ] {
        match reader.optional_text(key).map(|text| PresenceFilter::parse(&text)) {
            Some(Ok(filter)) if filters.iter().any(|(known, _)| *known == filter) => {
                reader.refuse(key, "is the topic of another mqtt.external.presence_ setting too");
            }
            Some(Ok(filter)) => filters.push((filter, tells)),
            Some(Err(problem)) => reader.refuse(key, problem),
            None => {}
        }
    }
    let named_by = reader.choice(
        "mqtt.external.presence_gateway",
        &[("client_id", NamedBy::ClientId), ("username", NamedBy::Username)],
    );
    PresenceTopics { filters, named_by }
}

#[cfg(test)]
mod tests;
