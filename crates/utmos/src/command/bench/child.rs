//! The server that is measured: `utmos serve` of this very program, in a process of its own: its defaults, without limits of how often
//! it may be asked.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};
use utmos_core::{
    credential::Role,
    device::{Device, DeviceKind},
    id::{DeviceSn, TenantId},
    ports::{By, DeviceOrder},
    replica::SHARDS,
};
use utmos_server::{
    config::{Config, Layers},
    directory::mqtt_secret_hash,
};
use utmos_sim::{DockConfig, Model};

use super::{http::Connection, machine, reply::Reply};
use crate::{
    api::access::Access,
    command::{
        credential::{self, NewArgs},
        tenant,
    },
    environment,
    opened::{self, Database},
    time::now,
};

/// Fixes the docks' names and passwords.
pub const SEED: u64 = 1;
/// Longest a start may take.
const START_WAIT: Duration = Duration::from_secs(60);
/// Longest a stop may take.
const STOP_WAIT: Duration = Duration::from_secs(60);
/// How often a starting server is asked whether it is ready.
const LOOK_WAIT: Duration = Duration::from_millis(1);

/// Where a server lives: its folder and its addresses.
pub struct Place {
    dir: PathBuf,
    /// Assignments over the defaults.
    settings: Vec<String>,
    /// A program, with its arguments, that runs the server.
    under: Vec<String>,
    pub http: SocketAddr,
    /// Where docks connect: the broker inside the server, or one outside.
    pub mqtt: SocketAddr,
}

/// What the server was given before it started.
pub struct Prepared {
    pub access: Access,
    /// Of further tenants. The tenants have the docks in turn.
    pub others: Vec<Access>,
    /// The docks of the load, and as the last one the dock that emergencies go to.
    pub docks: Vec<DockConfig>,
    /// When the docks of the load answer.
    pub reply: Reply,
}

/// A server that answered.
pub struct Started {
    pub server: Server,
    /// From the start of the process until it was ready.
    pub took: Duration,
}

/// The running process. It does not outlive this.
pub struct Server {
    child: Child,
}

impl Place {
    /// A place of its own in `dir`, at free ports.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let (http, mqtt) = (free_address()?, free_address()?);
        // Counted as ever, and never reached.
        let settings =
            ["credential_per_second", "credential_burst", "tenant_per_second", "tenant_burst"]
                .map(|key| format!("limits.{key}=1000000"));
        Ok(Self { dir: dir.to_owned(), settings: settings.to_vec(), under: Vec::new(), http, mqtt })
    }

    /// A file in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Lets another program run the server, to look at it.
    pub fn run_under(&mut self, program: Vec<String>) {
        self.under = program;
    }

    /// Gives the server a setting that is not the default, as `--set` takes it.
    pub fn set(&mut self, assignment: String) {
        self.settings.push(assignment);
    }

    /// Has the server and its docks meet at a broker outside.
    pub fn meet_at(&mut self, broker: SocketAddr) {
        self.mqtt = broker;
        let settings = [
            ("mode", "external".to_owned()),
            ("external.host", broker.ip().to_string()),
            ("external.port", broker.port().to_string()),
            // Quiet docks are there all the same.
            ("external.liveness_seconds", "3600".to_owned()),
        ];
        self.settings
            .extend(settings.into_iter().map(|(key, value)| format!("mqtt.{key}={value}")));
    }

    /// Has the server read what another one's database holds.
    pub fn share_with(&mut self, other: &Self) -> anyhow::Result<()> {
        let key = other.config()?.store.master_key_file;
        self.set(format!("store.master_key_file={}", key.display()));
        Ok(())
    }

    /// Waits until so many servers share the database's gateways evenly.
    pub async fn shared_by(&self, servers: u32) -> anyhow::Result<()> {
        let store = opened::store(&self.config()?).await?;
        let replicas = store.clone().replicas().context("servers do not share this database")?;
        let (began, servers) = (Instant::now(), usize::try_from(servers)?);
        let shared = loop {
            let roll = replicas.roll().await?;
            let part = |id| roll.holders.values().filter(|holder| **holder == id).count();
            let least = usize::from(SHARDS) / servers;
            let is_shared = roll.members.len() == servers
                && roll.holders.len() == usize::from(SHARDS)
                && roll.members.iter().all(|member| part(member.id) + servers >= least);
            if is_shared || START_WAIT < began.elapsed() {
                break is_shared;
            }
            sleep(Duration::from_millis(50)).await;
        };
        store.close().await;
        match shared {
            true => Ok(()),
            false => {
                bail!("{servers} servers did not share the gateways in {} s", START_WAIT.as_secs())
            }
        }
    }

    /// The configuration of the server, for what is done to its database while it does not run.
    pub fn config(&self) -> anyhow::Result<Config> {
        let assignments = [format!("data_dir={}", self.dir.display())];
        let assignments = assignments.iter().chain(&self.settings).map(String::as_str);
        Ok(Config::load(Layers::new().assignments("--set", assignments))?.config)
    }

    /// Starts the server and waits until it is ready.
    pub async fn start(&self) -> anyhow::Result<Started> {
        let log = self.dir.join("server.log");
        let program =
            std::env::current_exe().context("this program does not know where it lies")?;
        let mut command = match self.under.split_first() {
            Some((other, arguments)) => {
                let mut command = Command::new(other);
                command.args(arguments).arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .arg("serve")
            .args(["--data-dir", "."])
            .args([
                "--http-listen",
                &self.http.to_string(),
                "--mqtt-listen",
                &self.mqtt.to_string(),
            ])
            .args(self.settings.iter().flat_map(|assignment| ["--set", assignment]))
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(&log)?);
        // Nothing else counts.
        for (name, _) in environment::ours() {
            command.env_remove(name);
        }
        let began = Instant::now();
        let mut server = Server { child: command.spawn().context("the server cannot be started")? };
        while !self.is_ready().await {
            if server.child.try_wait()?.is_some() || START_WAIT < began.elapsed() {
                let told = std::fs::read_to_string(&log).unwrap_or_default();
                let last: Vec<&str> = told.lines().rev().take(5).collect();
                bail!(
                    "the server did not start: {}",
                    last.into_iter().rev().collect::<Vec<_>>().join(" / ")
                );
            }
            sleep(LOOK_WAIT).await;
        }
        Ok(Started { server, took: began.elapsed() })
    }

    async fn is_ready(&self) -> bool {
        let Ok(mut connection) = Connection::open(self.http).await else { return false };
        connection.get("/readyz").await.is_ok_and(|answer| answer.status == 200)
    }
}

impl Prepared {
    /// The same with docks that answer so.
    pub fn answering(self, reply: Reply) -> Self {
        Self { reply, ..self }
    }

    /// A tenant, a credential, and `docks` docks and one more.
    pub async fn new(place: &Place, docks: u32) -> anyhow::Result<Self> {
        Self::of_tenants(place, 1, docks).await
    }

    /// So many tenants, each with a credential, which have `docks` docks and one more in turn.
    pub async fn of_tenants(place: &Place, tenants: u32, docks: u32) -> anyhow::Result<Self> {
        let docks = (1..=docks + 1).map(|number| DockConfig::numbered(SEED, number)).collect();
        Self::of(place, tenants, docks).await
    }

    /// A tenant, a credential, and so many gateways and one more, of these models in turn.
    pub async fn of_models(place: &Place, models: &[Model], docks: u32) -> anyhow::Result<Self> {
        let numbered = (1..=docks + 1).zip(models.iter().cycle());
        let docks = numbered.map(|(number, model)| DockConfig::numbered_as(*model, SEED, number));
        Self::of(place, 1, docks.collect()).await
    }

    async fn of(place: &Place, tenants: u32, docks: Vec<DockConfig>) -> anyhow::Result<Self> {
        let store = opened::store(&place.config()?).await?;
        let prepared = Self::fill(&*store, place, tenants, docks).await;
        store.close().await;
        prepared
    }

    async fn fill(
        store: &dyn Database,
        place: &Place,
        tenants: u32,
        docks: Vec<DockConfig>,
    ) -> anyhow::Result<Self> {
        let (mut ids, mut accesses) = (Vec::new(), Vec::new());
        for number in 1..=tenants.max(1) {
            let name = if number == 1 { "bench".to_owned() } else { format!("bench-{number}") };
            let tenant = tenant::create(store, &name).await?;
            let (credential, key) =
                credential::make(&NewArgs::of("bench", Role::TenantAdmin), &tenant, now())?;
            let url = format!("http://{}", place.http);
            accesses.push(Access { url, api_id: credential.api_id.clone(), key });
            store.put_credential(credential).await?;
            ids.push(tenant.id);
        }
        for (dock, tenant) in docks.iter().zip(ids.iter().cycle()) {
            let by = By { who: "bench".to_owned(), at: now() };
            store.order(DeviceOrder::Register(device(*tenant, dock)?), by).await?;
        }
        let mut accesses = accesses.into_iter();
        let access = accesses.next().context("a bench without a tenant")?;
        Ok(Self { access, others: accesses.collect(), docks, reply: Reply::AtOnce })
    }
}

fn device(tenant: TenantId, dock: &DockConfig) -> anyhow::Result<Device> {
    let sn = DeviceSn::parse(&dock.sn)?;
    Ok(Device {
        mqtt_secret_hash: Some(mqtt_secret_hash(&sn, dock.password.as_bytes())),
        sn,
        tenant,
        kind: if dock.model.is_dock() { DeviceKind::Dock } else { DeviceKind::RemoteController },
        model_key: None,
        label: String::new(),
        tags: std::collections::BTreeSet::new(),
        simulated: true,
        created_at: now(),
    })
}

impl Server {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Processor time it has used.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        machine::cpu_of(self.id())
    }

    /// Bytes it has caused to be written to the disk.
    pub fn written(&self) -> anyhow::Result<u64> {
        machine::written_by(self.id())
    }

    /// Its resident memory in MB.
    pub fn resident_mb(&self) -> anyhow::Result<f64> {
        machine::resident_mb(self.id())
    }

    /// Ends it with `kill -9`.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it as an operator would, and waits for it.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let by = Instant::now() + STOP_WAIT;
        loop {
            match self.child.try_wait()? {
                Some(end) if end.success() => return Ok(()),
                Some(end) => bail!("the server ended badly: {end}"),
                None if by < Instant::now() => {
                    bail!("the server did not end within {} s", STOP_WAIT.as_secs())
                }
                None => sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An address of this machine that nobody listens on.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
