//! `utmos device`: opens the store itself, so that it works whether or not the server runs. A password is shown once.

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use utmos_core::{
    credential::Secret,
    device::{Device, DeviceKind},
    id::DeviceSn,
    ports::RegistryStore,
};
use utmos_server::{
    config::{Config, Mqtt},
    directory::mqtt_secret_hash,
};
use utmos_store::SqliteStore;

use crate::{
    exit::Exit,
    issue, opened, output,
    settings::{ConfigArgs, Purpose},
    time::now,
};

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Add a dock or a remote controller; its MQTT password is shown once. Aircraft are added as their dock reports them
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

/// A device to be added.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// Its serial number, as it is printed on the device
    #[arg(long, value_parser = parse_sn)]
    sn: DeviceSn,
    /// dock or remote_controller
    #[arg(long, value_parser = parse_kind)]
    kind: DeviceKind,
    /// Whose it is; may be left out when there is only one tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// For people
    #[arg(long, default_value = "")]
    label: String,
    /// Mark it as simulated
    #[arg(long)]
    simulated: bool,
}

/// Runs it.
pub async fn run(action: Action) -> anyhow::Result<Exit> {
    let (Action::Add { config, .. }
    | Action::Password { config, .. }
    | Action::List { config, .. }) = &action;
    let config = config.load(Purpose::Work)?.config;
    let store = opened::store(&config)?;
    let done = act(&store, &config, action).await;
    store.close().await;
    done.map(|()| Exit::Done)
}

async fn act(store: &SqliteStore, config: &Config, action: Action) -> anyhow::Result<()> {
    match action {
        Action::Add { new, json, .. } => {
            let tenant = opened::tenant(store, new.tenant.as_deref()).await?;
            if let Some(known) = find(store, &new.sn).await? {
                let whose =
                    if known.tenant == tenant.id { "this tenant" } else { "another tenant" };
                bail!(
                    "{} is a device of {whose} already; for a new password: utmos device password {0}",
                    new.sn
                );
            }
            let password = issue::mqtt_password()?;
            let device = Device {
                mqtt_secret_hash: Some(mqtt_secret_hash(&new.sn, password.expose().as_bytes())),
                sn: new.sn,
                tenant: tenant.id,
                kind: new.kind,
                model_key: None,
                label: new.label,
                simulated: new.simulated,
                created_at: now(),
            };
            store.put_device(device.clone()).await?;
            show_password(config, &device, &password, json);
            Ok(())
        }
        Action::Password { sn, json, .. } => {
            let known = find(store, &sn).await?;
            let device = known
                .ok_or_else(|| anyhow!("there is no device {sn}; `utmos device list` shows all"))?;
            if !device.kind.is_gateway() {
                bail!(
                    "{sn} is an aircraft: it has no connection of its own, its dock or remote controller has"
                );
            }
            let password = issue::mqtt_password()?;
            let hash = mqtt_secret_hash(&sn, password.expose().as_bytes());
            let device = Device { mqtt_secret_hash: Some(hash), ..device };
            store.put_device(device.clone()).await?;
            show_password(config, &device, &password, json);
            Ok(())
        }
        Action::List { tenant, json, .. } => list(store, tenant.as_deref(), json).await,
    }
}

async fn find(store: &SqliteStore, sn: &DeviceSn) -> anyhow::Result<Option<Device>> {
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

async fn list(store: &SqliteStore, tenant: Option<&str>, as_json: bool) -> anyhow::Result<()> {
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
    let name_of = |device: &Device| {
        let tenant = tenants.iter().find(|tenant| tenant.id == device.tenant);
        tenant.map_or_else(|| device.tenant.to_string(), |tenant| tenant.name.clone())
    };
    let all = store.devices().await?;
    let chosen = all.iter().filter(|device| only.is_none_or(|only| device.tenant == only));
    if as_json {
        let items = chosen.map(|device| {
            json!({
                "sn": device.sn,
                "kind": device.kind,
                "tenant": name_of(device),
                "label": device.label,
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
    DeviceKind::parse(text).filter(|kind| kind.is_gateway()).ok_or_else(|| {
        "must be dock or remote_controller; aircraft are added as their gateway reports them"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
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
}
