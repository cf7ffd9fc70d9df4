//! `utmos serve --demo`: a tenant, a credential and two simulated docks, all in a folder of their own.
//!
//! The credential's secret is printed at the first start only. It also lies in a private file beside the data, so that
//! `utmos send` finds it and later starts go on with it; when that file is gone, a new credential takes the place of the
//! old ones, which are disabled.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{sync::mpsc, task::JoinHandle};
use utmos_core::{
    credential::{CredentialStatus, Role},
    device::{Device, DeviceKind},
    id::{DeviceSn, TenantId},
    ports::{By, DeviceEdit, DeviceOrder, Ordered, Tenant},
};
use utmos_dji::catalogue::Catalogue;
use utmos_server::{
    Server,
    config::{Config, Loaded, Mqtt, Origin},
    directory::mqtt_secret_hash,
};
use utmos_sim::{BrokerAddress, DockConfig, Fleet, FleetConfig, Kind};

use super::{reachable, url};
use crate::{
    api::access::{Access, CREDENTIAL_FILE},
    command::{
        credential::{self, NewArgs},
        tenant,
    },
    issue,
    opened::{self, Database},
    output,
    settings::DEMO_DIR,
    time::now,
};

const TENANT: &str = "demo";
const CREDENTIAL: &str = "demo";
/// Who stands on the record of its devices.
const BY: &str = "demo";
const DOCKS: u32 = 2;
const SEED: u64 = 1;
const SPEED: f64 = 5.0;
/// Longest to wait for the docks before the introduction is printed all the same.
const ONLINE_WAIT: Duration = Duration::from_secs(10);
const HAPPENINGS_WAITING_MAX: usize = 1_024;

/// Takes free ports where the usual ones are taken and nobody asked for them by name.
pub fn move_to_free_ports(loaded: &mut Loaded) {
    let is_default = |key: &str| matches!(loaded.origin(key), Some(Origin::Default));
    let (http_may_move, mqtt_may_move) =
        (is_default("http.listen"), is_default("mqtt.embedded.listen"));
    let config = &mut loaded.config;
    if http_may_move {
        move_if_taken("HTTP", &mut config.http.listen);
    }
    if let Mqtt::Embedded(broker) = &mut config.mqtt
        && mqtt_may_move
    {
        move_if_taken("MQTT", &mut broker.listen);
    }
}

fn move_if_taken(what: &str, address: &mut SocketAddr) {
    let is_taken = TcpListener::bind(*address).is_err_and(|err| err.kind() == ErrorKind::AddrInUse);
    if is_taken {
        output::note(format_args!(
            "{what} port {} is taken by another program; a free one is used",
            address.port()
        ));
        address.set_port(0);
    }
}

/// What was set up before the server starts.
pub struct Prepared {
    file: PathBuf,
    access: Access,
    is_new: bool,
    docks: Vec<DockConfig>,
}

/// Sets up tenant, credential and docks.
pub async fn prepare(store: &dyn Database, config: &Config) -> anyhow::Result<Prepared> {
    let file = config.data_dir.join(CREDENTIAL_FILE);
    let tenant = match store.tenants().await?.into_iter().find(|tenant| tenant.name == TENANT) {
        Some(tenant) => tenant,
        None => tenant::create(store, TENANT).await?,
    };
    let (access, is_new) = match still_good(store, &tenant, &file).await? {
        Some(access) => (access, false),
        None => (new_access(store, &tenant).await?, true),
    };
    // Kept before it is shown; the address follows when it is known.
    opened::make_folder(&config.data_dir)?;
    access.store(&file)?;
    let docks = prepare_docks(store, &tenant).await?;
    Ok(Prepared { file, access, is_new, docks })
}

/// The access in the file, if the store still knows it.
async fn still_good(
    store: &dyn Database,
    tenant: &Tenant,
    file: &Path,
) -> anyhow::Result<Option<Access>> {
    let Some(access) = Access::stored(file) else { return Ok(None) };
    let credential = store.credential(&access.api_id).await?;
    let is_good = credential.is_some_and(|credential| {
        let is_current =
            |key: &str| credential.secrets.iter().any(|held| held.secret.expose() == key);
        credential.tenant == tenant.id
            && credential.status == CredentialStatus::Active
            && credential.expires_at.is_none_or(|expires_at| now() < expires_at)
            && is_current(access.key.expose())
    });
    Ok(is_good.then_some(access))
}

async fn new_access(store: &dyn Database, tenant: &Tenant) -> anyhow::Result<Access> {
    for mut old in store.credentials().await? {
        let is_ours = old.tenant == tenant.id
            && old.name == CREDENTIAL
            && old.status == CredentialStatus::Active;
        if is_ours {
            old.status = CredentialStatus::Disabled;
            output::note(format_args!(
                "the secret of {} is not at hand: it is disabled, a new one follows",
                old.api_id
            ));
            store.put_credential(old).await?;
        }
    }
    let new = NewArgs::of(CREDENTIAL, Role::TenantAdmin);
    let (credential, key) = credential::make(&new, tenant, now())?;
    let api_id = credential.api_id.clone();
    store.put_credential(credential).await?;
    Ok(Access { url: String::new(), api_id, key })
}

/// Each start gives the docks new passwords: nobody but this process needs them.
async fn prepare_docks(store: &dyn Database, tenant: &Tenant) -> anyhow::Result<Vec<DockConfig>> {
    let known = store.devices().await?;
    let mut docks = Vec::new();
    for number in 1..=DOCKS {
        let mut dock = DockConfig::numbered(SEED, number);
        let password = issue::mqtt_password()?;
        password.expose().clone_into(&mut dock.password);
        let sn = DeviceSn::parse(&dock.sn)?;
        let aircraft = DeviceSn::parse(&dock.aircraft_sn)?;
        let hash = mqtt_secret_hash(&sn, password.expose().as_bytes());
        for (sn, kind, mqtt_secret_hash) in
            [(sn, DeviceKind::Dock, Some(hash)), (aircraft, DeviceKind::Aircraft, None)]
        {
            let device = Device {
                sn,
                tenant: tenant.id,
                kind,
                model_key: None,
                label: format!("Demo {} {number}", kind.as_str()),
                tags: std::collections::BTreeSet::new(),
                simulated: true,
                mqtt_secret_hash,
                created_at: now(),
            };
            let has_it = known.iter().find(|known| known.sn == device.sn);
            take(store, device, has_it.map(|known| known.tenant)).await?;
        }
        docks.push(dock);
    }
    Ok(docks)
}

/// Makes a device the demo's, with a line on its record. One of another tenant stays that tenant's.
async fn take(store: &dyn Database, device: Device, whose: Option<TenantId>) -> anyhow::Result<()> {
    let Device { sn, tenant, mqtt_secret_hash, .. } = device.clone();
    let order = match (whose, mqtt_secret_hash) {
        (None, _) => DeviceOrder::Register(device),
        (Some(_), Some(_)) => {
            let edit = DeviceEdit { mqtt_secret_hash, ..DeviceEdit::default() };
            DeviceOrder::Edit { sn: sn.clone(), tenant, edit }
        }
        (Some(whose), None) if whose == tenant => return Ok(()),
        (Some(_), None) => DeviceOrder::Register(device),
    };
    match store.order(order, By { who: BY.to_owned(), at: now() }).await? {
        Ordered::Done(_) | Ordered::Known(_) => Ok(()),
        Ordered::Taken | Ordered::Unknown => bail!(
            "{sn} belongs to another tenant, and the demo wants it; see utmos device list, and give the demo a data folder of \
             its own with --data-dir"
        ),
    }
}

/// The docks, and who tells of them.
pub struct Running {
    fleet: Fleet,
    telling: JoinHandle<()>,
}

impl Running {
    /// Takes the docks off the air.
    pub async fn stop(self) {
        self.telling.abort();
        self.fleet.shutdown().await;
    }
}

impl Prepared {
    /// Starts the docks, waits for them, and says how to use it all.
    pub async fn run(
        mut self,
        config: &Config,
        catalogue: &Catalogue,
        server: &Server,
    ) -> anyhow::Result<Running> {
        self.access.url = url(server.http_addr());
        self.access.store(&self.file)?;
        let broker =
            server.mqtt_addr().map(reachable).context("the demo runs on the embedded broker")?;
        let (sender, mut happenings) = mpsc::channel(HAPPENINGS_WAITING_MAX);
        let mut fleet =
            FleetConfig::new(BrokerAddress::new(broker.ip().to_string(), broker.port()), 0, SEED);
        fleet.docks.clone_from(&self.docks);
        fleet.speed = SPEED;
        fleet.on_event = Some(sender);
        let fleet = Fleet::start(fleet).context("the simulated docks do not start")?;
        if tokio::time::timeout(ONLINE_WAIT, fleet.ready()).await.is_err() {
            output::note("the simulated docks are not online yet; commands for them will wait");
        }
        self.introduce(config, catalogue, broker)?;
        let telling = tokio::spawn(async move {
            while let Some(happening) = happenings.recv().await {
                // A line every other second for every aircraft in the air would bury the rest.
                if !matches!(happening.kind, Kind::Flight { .. }) {
                    output::note(happening);
                }
            }
        });
        Ok(Running { fleet, telling })
    }

    fn introduce(
        &self,
        config: &Config,
        catalogue: &Catalogue,
        broker: SocketAddr,
    ) -> anyhow::Result<()> {
        let docks: Vec<String> = self
            .docks
            .iter()
            .map(|dock| format!("{} with {}", dock.sn, dock.aircraft_sn))
            .collect();
        let file = sourceable(&self.file);
        output::line(format_args!(
            "\nThe demo runs. Everything in it is simulated; its data is in {}.\n",
            config.data_dir.display()
        ));
        output::line(format_args!("  API        {0}   (reference: {0}/docs)", self.access.url));
        output::line(format_args!("  MQTT       {broker}"));
        output::line(format_args!("  process    {}", std::process::id()));
        output::line(format_args!("  docks      {}", docks.join(", ")));
        output::line(format_args!("  API id     {}", self.access.api_id));
        if self.is_new {
            output::line(format_args!("  API key    {}", self.access.key.expose()));
            output::line(format_args!(
                "             shown this once; kept in {file}, which only you can read"
            ));
        } else {
            output::line(format_args!("  API key    that of the first start, in {file}"));
        }
        // One dock is for debugging, the other stays ready to fly: a dock in debugging refuses to.
        let [flying, debugged] = self.docks.as_slice() else { bail!("the demo has {DOCKS} docks") };
        let send = self.send_line();
        output::line("\nIn another shell, in this folder: open a cover …\n");
        output::line(format_args!(
            "  {send} {0} debug_mode_open && {send} {0} cover_open\n",
            debugged.sn
        ));
        output::line("… fly …\n");
        output::line(format_args!(
            "  {send} {} takeoff_to_point '{}'\n",
            flying.aircraft_sn,
            takeoff(catalogue)?
        ));
        output::line("… and the same with curl, signed by openssl:\n");
        output::line(curl_lines(&file, &debugged.sn));
        output::line("\nCtrl-C ends it. What the docks do:\n");
        Ok(())
    }

    /// How this very program is called, up to the device.
    fn send_line(&self) -> String {
        let program = std::env::args().next().filter(|name| name.contains('/'));
        let program =
            program.map_or_else(|| "utmos".to_owned(), |name| sourceable(Path::new(&name)));
        if self.file == Path::new(DEMO_DIR).join(CREDENTIAL_FILE) {
            return format!("{program} send");
        }
        format!("{program} send --credential-file {}", sourceable(&self.file))
    }
}

/// The fields a take-off must have, with the values of the catalogue's example: the demo's docks stand nearby.
fn takeoff(catalogue: &Catalogue) -> anyhow::Result<serde_json::Value> {
    let method =
        catalogue.method("takeoff_to_point").context("the catalogue has no takeoff_to_point")?;
    let mut payload = method.example().clone();
    if let Some(fields) = payload.as_object_mut() {
        fields.retain(|name, _| {
            method.payload.iter().any(|field| field.required && field.name == *name)
        });
    }
    Ok(payload)
}

/// A path that `.` of a shell takes for a path, quoted where it must be.
fn sourceable(path: &Path) -> String {
    let text = path.display().to_string();
    let text = if text.contains('/') { text } else { format!("./{text}") };
    let is_plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    if is_plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// A signed request in plain shell; the subshell leaves no variables behind.
fn curl_lines(file: &str, dock: &str) -> String {
    format!(
        r#"  ( . {file}; P=/api/v1/open/downlink/commands; T=$(date +%s); N=$(openssl rand -hex 16)
    B='{{"vendor":"dji","device_id":"{dock}","command_type":"debug_mode_open","payload":{{}},"idempotency_key":"'$N'"}}'
    H=$(printf %s "$B" | openssl dgst -sha256 -r | cut -d' ' -f1)
    S=$(printf 'UTMOS-HMAC-SHA256\nPOST\n%s\n\n%s\n%s\n%s\n%s' "$P" "$UTMOS_API_ID" "$T" "$N" "$H" |
      openssl dgst -sha256 -hmac "$UTMOS_API_KEY" -r | cut -d' ' -f1)
    curl -sS "$UTMOS_URL$P" -H 'Content-Type: application/json' -H "X-Api-Id: $UTMOS_API_ID" \
      -H "X-Api-Timestamp: $T" -H "X-Api-Nonce: $N" -H "X-Api-Signature: $S" --data-binary "$B"; echo )"#
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use utmos_core::ports::{
        FleetStore as _,
        Recorded::{Password, Registered},
        RegistryStore as _,
    };
    use utmos_store::{MasterKey, SqliteConfig, SqliteStore};

    use super::*;

    #[tokio::test]
    async fn what_the_demo_takes_stands_on_the_record_of_its_devices() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("utmos.sqlite");
        let master_key = MasterKey::from_hex(&"07".repeat(32)).unwrap();
        let store = SqliteStore::open(SqliteConfig { path, master_key }).unwrap();
        let demo = tenant::create(&store, TENANT).await.unwrap();
        let other = tenant::create(&store, "other").await.unwrap();
        let docks = prepare_docks(&store, &demo).await.unwrap();
        let sn = DeviceSn::parse(&docks[0].sn).unwrap();
        let of = || By { who: "somebody".to_owned(), at: now() };
        let edit = DeviceEdit { label: Some("Mine".to_owned()), ..DeviceEdit::default() };
        let named = DeviceOrder::Edit { sn: sn.clone(), tenant: demo.id, edit };
        assert!(matches!(store.order(named, of()).await.unwrap(), Ordered::Done(_)));

        let again = prepare_docks(&store, &demo).await.unwrap();
        assert_ne!(again[0].password, docks[0].password);
        let device = store.devices().await.unwrap().into_iter().find(|one| one.sn == sn).unwrap();
        assert_eq!((device.tenant, &*device.label), (demo.id, "Mine"), "it stays as it was");
        let hash = mqtt_secret_hash(&sn, again[0].password.as_bytes());
        assert_eq!(device.mqtt_secret_hash, Some(hash));
        let by_us = async || {
            let record = store.device_record(&sn).await.unwrap();
            let by_us = record.iter().filter(|line| line.by.who == BY);
            by_us.map(|line| line.what).collect::<Vec<_>>()
        };
        assert_eq!(by_us().await, [Password, Registered], "newest first");

        let away = DeviceOrder::Move { sn: sn.clone(), from: demo.id, to: other.id };
        assert!(matches!(store.order(away, of()).await.unwrap(), Ordered::Done(_)));
        let refused = prepare_docks(&store, &demo).await.unwrap_err();
        assert!(refused.to_string().contains("belongs to another tenant"), "{refused}");
        let device = store.devices().await.unwrap().into_iter().find(|one| one.sn == sn).unwrap();
        assert_eq!(device.tenant, other.id);
        assert_eq!(by_us().await, [Password, Registered]);
        store.close().await;
    }

    #[test]
    fn a_path_can_be_pasted_into_a_shell() {
        for (path, expected) in [
            ("./utmos-demo/credential.env", "./utmos-demo/credential.env"),
            ("credential.env", "./credential.env"),
            ("/tmp/my data/it's.env", r"'/tmp/my data/it'\''s.env'"),
        ] {
            assert_eq!(sourceable(Path::new(path)), expected);
        }
    }
}
