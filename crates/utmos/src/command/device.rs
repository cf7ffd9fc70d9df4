//! `utmos device`: opens the store itself, so that it works whether or not the server runs. A password is shown once.

mod binding_code;
mod history;
mod strangers;

use std::sync::Arc;

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use utmos_core::{
    command::Command,
    credential::Secret,
    device::{Device, DeviceKind},
    device_request::Asked,
    id::DeviceSn,
    ports::{By, DeviceEdit, DeviceOrder, Ordered, Tenant},
};
use utmos_server::{
    config::{Config, Mqtt},
    directory::mqtt_secret_hash,
};

use crate::{
    exit::Exit,
    issue,
    opened::{self, Database},
    output,
    settings::{ConfigArgs, Purpose},
    time::now,
};

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Add a dock or a remote controller; its MQTT password is shown once. An aircraft joins the tenant of the first dock
    /// that reports it; added here beforehand, it is nobody else's
    Add {
        #[command(flatten)]
        new: NewArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Give a dock or a remote controller a new MQTT password; the old one no longer works
    Password {
        /// Its serial number
        #[arg(value_parser = parse_sn)]
        sn: DeviceSn,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Give a device to another tenant. What stands behind a dock is moved on its own
    Move {
        /// Its serial number
        #[arg(long, value_parser = parse_sn)]
        sn: DeviceSn,
        /// Whose it is from now on
        #[arg(long, value_name = "NAME")]
        tenant: String,
        #[command(flatten)]
        open: OpenArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Forget a device. A dock can no longer connect; an aircraft joins the tenant of the dock that reports it next
    Remove {
        /// Its serial number
        #[arg(long, value_parser = parse_sn)]
        sn: DeviceSn,
        #[command(flatten)]
        open: OpenArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Codes with which factory-new docks join a tenant
    #[command(subcommand)]
    BindingCode(binding_code::Action),
    /// Who had a device, and who changed what, the newest first; also of one that was removed
    History {
        /// Its serial number
        #[arg(value_parser = parse_sn)]
        sn: DeviceSn,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Messages of devices nobody has registered, and those that name none, the newest first; the beginning of each, secrets
    /// masked
    Strangers {
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// List devices
    List {
        /// Only of this tenant
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// What to do about commands that have not ended.
#[derive(Debug, Args)]
pub struct OpenArgs {
    /// Also while it has open commands or waits for answers. What it asked expires, and is answered by nobody. Commands stay its old tenant's: what has left goes on and is told as far as the
    /// device still answers its old tenant, what waits may leave until its deadline, at most 5 minutes
    #[arg(long)]
    force: bool,
}

/// A device to be added.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// Its serial number, as it is printed on the device
    #[arg(long, value_parser = parse_sn)]
    sn: DeviceSn,
    /// dock, remote_controller or aircraft
    #[arg(long, value_parser = parse_kind)]
    kind: DeviceKind,
    /// Whose it is; may be left out when there is only one tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// For people
    #[arg(long, default_value = "")]
    label: String,
    /// To find it by; can be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Mark it as simulated
    #[arg(long)]
    simulated: bool,
}

/// Who does what is done here.
const COMMAND_LINE: &str = "command line";

/// The command line, now.
fn by_hand() -> By {
    By { who: COMMAND_LINE.to_owned(), at: now() }
}

/// Runs it.
pub async fn run(action: Action) -> anyhow::Result<Exit> {
    let (Action::Add { config, .. }
    | Action::Password { config, .. }
    | Action::Move { config, .. }
    | Action::Remove { config, .. }
    | Action::History { config, .. }
    | Action::Strangers { config, .. }
    | Action::BindingCode(
        binding_code::Action::Create { config, .. }
        | binding_code::Action::List { config, .. }
        | binding_code::Action::Revoke { config, .. },
    )
    | Action::List { config, .. }) = &action;
    let config = config.load(Purpose::Work)?.config;
    let store = opened::store(&config).await?;
    let done = act(&*store, &config, action).await;
    store.close().await;
    done.map(|()| Exit::Done)
}

async fn act(store: &dyn Database, config: &Config, action: Action) -> anyhow::Result<()> {
    match action {
        Action::Add { new, json, .. } => {
            let tenant = opened::tenant(store, new.tenant.as_deref()).await?;
            if let Some(known) = find(store, &new.sn).await? {
                let (whose, remedy) = if known.tenant != tenant.id {
                    ("another tenant", "to take it over: utmos device move --sn")
                } else if known.kind.is_gateway() {
                    ("this tenant", "for a new password: utmos device password")
                } else {
                    ("this tenant", "to be rid of it: utmos device remove --sn")
                };
                bail!("{} is a device of {whose} already; {remedy} {0}", new.sn);
            }
            if !new.kind.is_gateway() {
                return add_aircraft(store, new, &tenant, json).await;
            }
            let password = issue::mqtt_password()?;
            let device = Device {
                mqtt_secret_hash: Some(mqtt_secret_hash(&new.sn, password.expose().as_bytes())),
                sn: new.sn,
                tenant: tenant.id,
                kind: new.kind,
                model_key: None,
                label: new.label,
                tags: new.tags.into_iter().collect(),
                simulated: new.simulated,
                created_at: now(),
            };
            carry_out(store, DeviceOrder::Register(device.clone())).await?;
            show_password(config, &device, &password, json);
            Ok(())
        }
        Action::Password { sn, json, .. } => {
            let device = known(store, &sn).await?;
            if !device.kind.is_gateway() {
                bail!(
                    "{sn} is an aircraft: it has no connection of its own, its dock or remote controller has"
                );
            }
            let password = issue::mqtt_password()?;
            let hash = mqtt_secret_hash(&sn, password.expose().as_bytes());
            let edit = DeviceEdit { mqtt_secret_hash: Some(hash), ..DeviceEdit::default() };
            let order = DeviceOrder::Edit { sn: sn.clone(), tenant: device.tenant, edit };
            carry_out(store, order).await?;
            show_password(config, &device, &password, json);
            Ok(())
        }
        Action::Move { sn, tenant, open, json, .. } => {
            let device = known(store, &sn).await?;
            let to = opened::tenant(store, Some(&tenant)).await?;
            if device.tenant == to.id {
                bail!("{sn} is a device of tenant {} already", to.name);
            }
            let from = name_of(&store.tenants().await?, &device);
            none_open(store, &device, &open, "moved").await?;
            let order = DeviceOrder::Move { sn: sn.clone(), from: device.tenant, to: to.id };
            carry_out(store, order).await?;
            if json {
                output::json(&json!({"sn": sn, "kind": device.kind, "from": from, "to": to.name}));
                return Ok(());
            }
            output::line(format_args!(
                "{} {sn} was moved from tenant {from} to tenant {}",
                device.kind.as_str(),
                to.name
            ));
            if device.kind.is_gateway() {
                output::line(format_args!(
                    "Its password is the old one (new: utmos device password {sn}). Its aircraft stay where they are: move them too."
                ));
            }
            Ok(())
        }
        Action::Remove { sn, open, json, .. } => {
            let device = known(store, &sn).await?;
            let from = name_of(&store.tenants().await?, &device);
            none_open(store, &device, &open, "removed").await?;
            let order = DeviceOrder::Remove { sn: sn.clone(), tenant: device.tenant };
            carry_out(store, order).await?;
            if json {
                output::json(&json!({"sn": sn, "kind": device.kind, "from": from}));
            } else {
                output::line(format_args!(
                    "{} {sn} was removed from tenant {from}",
                    device.kind.as_str()
                ));
            }
            Ok(())
        }
        Action::BindingCode(action) => binding_code::act(store, config, action).await,
        Action::History { sn, json, .. } => history::show(store, &sn, json).await,
        Action::Strangers { limit, json, .. } => strangers::show(store, limit, json).await,
        Action::List { tenant, json, .. } => list(store, tenant.as_deref(), json).await,
    }
}

/// Carries out a change, with its line on the device's record.
async fn carry_out(store: &dyn Database, order: DeviceOrder) -> anyhow::Result<()> {
    match store.order(order, by_hand()).await? {
        Ordered::Done(_) => Ok(()),
        Ordered::Known(device) => bail!("{} was registered just now", device.sn),
        Ordered::Taken | Ordered::Unknown => {
            bail!(
                "somebody else has just changed this device; see utmos device list, and try again"
            )
        }
    }
}

async fn add_aircraft(
    store: &dyn Database,
    new: NewArgs,
    tenant: &Tenant,
    as_json: bool,
) -> anyhow::Result<()> {
    let device = Device {
        sn: new.sn,
        tenant: tenant.id,
        kind: new.kind,
        model_key: None,
        label: new.label,
        tags: new.tags.into_iter().collect(),
        simulated: new.simulated,
        mqtt_secret_hash: None,
        created_at: now(),
    };
    carry_out(store, DeviceOrder::Register(device.clone())).await?;
    if as_json {
        let tenant = &tenant.name;
        output::json(&json!({"sn": device.sn, "kind": device.kind, "tenant": tenant}));
    } else {
        let (sn, name) = (&device.sn, &tenant.name);
        output::line(format_args!(
            "aircraft {sn} is tenant {name}'s; it is reached once a gateway of that tenant reports it"
        ));
    }
    Ok(())
}

/// Open commands read at once.
const PAGE: usize = 500;

/// Refuses what would take a device from under commands that have not ended.
async fn none_open(
    store: &dyn Database,
    device: &Device,
    args: &OpenArgs,
    what: &str,
) -> anyhow::Result<()> {
    if args.force {
        return Ok(());
    }
    let is_of = |command: &Command| {
        let spec = &command.spec;
        spec.device == device.sn
            || spec.gateway.as_str() == device.sn.as_str()
            || spec.aircraft.as_ref() == Some(&device.sn)
    };
    let (mut count, mut first, mut after) = (0, None, None);
    loop {
        let page = store.open_commands(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.spec.id);
        for command in page.iter().filter(|command| is_of(command)) {
            count += 1;
            first.get_or_insert_with(|| (command.spec.id, command.spec.method.clone()));
        }
    }
    if let Some((id, method)) = first {
        bail!(
            "{} has open commands ({count}; the oldest: {method}, {id}) and was not {what}; cancel them or wait for their end, or \
             see --force",
            device.sn
        )
    }
    none_asked(store, device, what).await
}

/// Refuses what would leave a device without the answers it waits for.
async fn none_asked(store: &dyn Database, device: &Device, what: &str) -> anyhow::Result<()> {
    let (mut count, mut first, mut after) = (0, None, None);
    loop {
        let page = store.requests_in_care(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.asked.id);
        let is_its = |asked: &&Arc<Asked>| asked.gateway.as_str() == device.sn.as_str();
        for asked in page.iter().map(|request| &request.asked).filter(is_its) {
            count += 1;
            let name =
                || asked.request_type.clone().unwrap_or_else(|| "without a method".to_owned());
            first.get_or_insert_with(|| (asked.id, name()));
        }
    }
    let Some((id, name)) = first else { return Ok(()) };
    bail!(
        "{} has open device requests ({count}; the oldest: {name}, {id}) and was not {what}; answer them or wait until they \
         expire, or see --force",
        device.sn
    )
}

async fn known(store: &dyn Database, sn: &DeviceSn) -> anyhow::Result<Device> {
    let found = find(store, sn).await?;
    found.ok_or_else(|| anyhow!("there is no device {sn}; `utmos device list` shows all"))
}

fn name_of(tenants: &[Tenant], device: &Device) -> String {
    let tenant = tenants.iter().find(|tenant| tenant.id == device.tenant);
    tenant.map_or_else(|| device.tenant.to_string(), |tenant| tenant.name.clone())
}

async fn find(store: &dyn Database, sn: &DeviceSn) -> anyhow::Result<Option<Device>> {
    Ok(store.devices().await?.into_iter().find(|device| device.sn == *sn))
}

fn show_password(config: &Config, device: &Device, password: &Secret, as_json: bool) {
    let (address, hint) = broker_address(config);
    if as_json {
        output::json(&json!({
            "sn": device.sn,
            "kind": device.kind,
            "broker": address,
            "username": device.sn,
            "password": password.expose(),
        }));
        return;
    }
    output::line(format_args!("{} {}: type this into the device", device.kind.as_str(), device.sn));
    output::line(format_args!("  broker    {address}"));
    output::line(format_args!("  username  {}", device.sn));
    output::line(format_args!("  password  {}", password.expose()));
    output::line("The password is not shown again.");
    if let Some(hint) = hint {
        output::line(hint);
    }
}

/// Where devices connect, and what to know about it.
fn broker_address(config: &Config) -> (String, Option<String>) {
    match &config.mqtt {
        Mqtt::Embedded(broker) => {
            let (scheme, address) = match &broker.tls {
                Some(tls) => ("ssl", tls.listen),
                None => ("tcp", broker.listen),
            };
            let hint = if address.ip().is_unspecified() {
                Some(
                    "Put an address of this machine that the device can reach in the place of the zeros.",
                )
            } else if address.ip().is_loopback() {
                Some(
                    "Only this machine reaches that address: set mqtt.embedded.listen = \"0.0.0.0:1883\" to let devices in.",
                )
            } else {
                None
            };
            (format!("{scheme}://{address}"), hint.map(str::to_owned))
        }
        Mqtt::External(broker) => {
            let scheme = if broker.tls { "ssl" } else { "tcp" };
            let hint = "That broker keeps its own passwords: give it this user and password, and access to the topics \
                        of this serial number only.";
            (format!("{scheme}://{}:{}", broker.host, broker.port), Some(hint.to_owned()))
        }
    }
}

async fn list(store: &dyn Database, tenant: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let tenants = store.tenants().await?;
    let only = match tenant {
        Some(name) => Some(opened::tenant(store, Some(name)).await?.id),
        None => None,
    };
    let topologies = store.topologies().await?;
    let behind = |device: &Device| -> Vec<String> {
        let found = topologies.iter().find(|(gateway, _)| gateway.as_str() == device.sn.as_str());
        found
            .map(|(_, subs)| subs.iter().map(|sub| sub.sn.to_string()).collect())
            .unwrap_or_default()
    };
    let name_of = |device: &Device| name_of(&tenants, device);
    let all = store.devices().await?;
    let chosen = all.iter().filter(|device| only.is_none_or(|only| device.tenant == only));
    if as_json {
        let items = chosen.map(|device| {
            json!({
                "sn": device.sn,
                "kind": device.kind,
                "tenant": name_of(device),
                "label": device.label,
                "tags": device.tags,
                "model_key": device.model_key,
                "simulated": device.simulated,
                "has_mqtt_password": device.mqtt_secret_hash.is_some(),
                "sub_devices": behind(device),
                "created_at": device.created_at.to_string(),
            })
        });
        output::json(&items.collect());
        return Ok(());
    }
    let rows: Vec<_> = chosen
        .map(|device| {
            [
                device.sn.to_string(),
                device.kind.as_str().to_owned(),
                name_of(device),
                device.label.clone(),
                if device.simulated { "simulated" } else { "" }.to_owned(),
                behind(device).join(","),
            ]
        })
        .collect();
    output::table(["SN", "KIND", "TENANT", "LABEL", "", "BEHIND IT"], &rows);
    Ok(())
}

fn parse_sn(text: &str) -> Result<DeviceSn, String> {
    DeviceSn::parse(text).map_err(|err| err.to_string())
}

fn parse_kind(text: &str) -> Result<DeviceKind, String> {
    DeviceKind::parse(text).ok_or_else(|| "must be dock, remote_controller or aircraft".to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use utmos_core::{
        device_request::{AskedOn, DeviceRequest, RoutingDecision},
        id::{DeviceRequestId, TenantId},
        ports::RequestStore,
        time::{BootId, Deadline, Mono},
    };
    use utmos_server::config::Layers;

    use super::*;

    #[test]
    fn the_address_that_is_typed_into_a_device_says_when_it_will_not_do() {
        let address = |assignments: &[&str]| {
            let layers = Layers::new().assignments("--set", assignments.iter().copied());
            broker_address(&Config::load(layers).unwrap().config)
        };
        let (local, hint) = address(&[]);
        assert_eq!(local, "tcp://127.0.0.1:1883");
        assert!(hint.unwrap().contains("0.0.0.0:1883"));
        assert!(address(&["mqtt.embedded.listen=0.0.0.0:1883"]).1.unwrap().contains("zeros"));
        assert_eq!(
            address(&["mqtt.embedded.listen=192.0.2.1:1883"]),
            ("tcp://192.0.2.1:1883".to_owned(), None)
        );
        let tls = [
            "mqtt.embedded.tls_listen=192.0.2.1:8883",
            "mqtt.embedded.tls_cert_file=a",
            "mqtt.embedded.tls_key_file=b",
        ];
        assert_eq!(address(&tls).0, "ssl://192.0.2.1:8883");
        let (outside, hint) = address(&["mqtt.mode=external", "mqtt.external.host=broker"]);
        assert_eq!(outside, "tcp://broker:1883");
        assert!(hint.unwrap().contains("its own passwords"));
    }

    #[tokio::test]
    async fn a_device_that_waits_for_an_answer_is_not_moved_from_under_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, master_key) =
            (folder.path().join("utmos.sqlite"), utmos_store::MasterKey::generate().unwrap());
        let config = utmos_store::SqliteConfig { path, master_key };
        let store = utmos_store::SqliteStore::open(config).unwrap();
        let (tenant, sn) =
            (TenantId::new(uuid::Uuid::from_u128(1)), DeviceSn::parse("D1").unwrap());
        let device = |sn: &DeviceSn| Device {
            sn: sn.clone(),
            tenant,
            kind: DeviceKind::Dock,
            model_key: None,
            label: String::new(),
            tags: std::collections::BTreeSet::new(),
            simulated: false,
            mqtt_secret_hash: None,
            created_at: now(),
        };
        let asked = Asked {
            id: DeviceRequestId::new(uuid::Uuid::from_u128(7)),
            tenant,
            gateway: sn.to_gateway(),
            device: sn.clone(),
            request_type: Some("flight_areas_get".to_owned()),
            tid: None,
            bid: None,
            asked_on: AskedOn::Requests,
            repeat_key: None,
            payload: "{}".into(),
            payload_is_cut: false,
            received_at: now(),
            deadline: Deadline { boot: BootId([3; 16]), mono: Mono::from_millis(1), wall: now() },
            reply_wait: std::time::Duration::from_secs(30),
            automatic_after: None,
        };
        let waiting = DeviceRequest::new(Arc::new(asked), RoutingDecision::AwaitingReply);
        store.keep_request(Arc::new(waiting)).await.unwrap();
        let tried = async |sn: &DeviceSn, force| {
            none_open(&store, &device(sn), &OpenArgs { force }, "moved")
                .await
                .map_err(|err| err.to_string())
        };
        let refused = tried(&sn, false).await.unwrap_err();
        assert!(
            refused.starts_with("D1 has open device requests (1; the oldest: flight_areas_get, "),
            "{refused}"
        );
        assert!(refused.contains("--force"), "{refused}");
        assert_eq!(tried(&sn, true).await, Ok(()));
        assert_eq!(tried(&DeviceSn::parse("D2").unwrap(), false).await, Ok(()));
        store.close().await;
    }
}
