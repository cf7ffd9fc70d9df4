//! `utmos broker`: writes what another broker needs to know of the registry. Reads the store, changes nothing in it.

mod access;
mod emqx;
mod folder;
mod mosquitto;
mod password_file;

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};

use anyhow::bail;
use clap::{Args, Subcommand};
use utmos_core::{
    device::{Device, Registry},
    id::DeviceSn,
};
use utmos_dji::topic::SERVER_FILTERS;
use utmos_server::config::{Config, Mqtt};

use self::access::Access;
use crate::{
    exit::Exit,
    opened::{self, Database},
    output,
    settings::{ConfigArgs, Purpose},
};

/// The server's user where the configuration names none.
const SERVER_USER: &str = "utmos";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Write a broker's configuration: the server's user, one user for each gateway, and the topics of each
    ///
    /// Run it again whenever devices were added, moved or removed, or an aircraft stands behind another dock; see
    /// docs/outside-broker.md.
    #[command(subcommand)]
    Config(Kind),
}

/// Which broker.
#[derive(Debug, Subcommand)]
pub enum Kind {
    /// Mosquitto 2: utmos.conf, utmos.acl and, where passwords are asked for, utmos.passwords
    Mosquitto(MosquittoArgs),
    /// EMQX 5: emqx.conf, acl.conf and users.json with the passwords that the devices have
    Emqx(EmqxArgs),
}

/// Arguments for Mosquitto.
#[derive(Debug, Args)]
pub struct MosquittoArgs {
    /// Folder to write to; it is made if it is not there. Without it, configuration and rules are printed
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Where Mosquitto listens [default: all addresses, mqtt.external.port]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Mosquitto's certificate, PEM; with it the listener speaks TLS
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// The authority of client certificates, PEM: every client must show one, and its common name is its user name. Docks
    /// and the server need one each then, and no passwords
    #[arg(long, value_name = "FILE", requires = "cert_file", conflicts_with = "new_passwords")]
    client_ca_file: Option<PathBuf>,
    /// Make a password for every gateway that has none in FOLDER yet, and for the server unless mqtt.external.password_file
    /// holds one. They are written to FOLDER/new-passwords.txt, readable by its owner only
    #[arg(long, requires = "out")]
    new_passwords: bool,
    /// Make a new password for this gateway, in the place of the one it has; can be repeated
    #[arg(long, value_name = "SN", requires = "new_passwords", value_parser = parse_sn)]
    renew: Vec<DeviceSn>,
    /// Print new passwords in the place of writing them to a file
    #[arg(long, requires = "new_passwords")]
    show_passwords: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Arguments for EMQX.
#[derive(Debug, Args)]
pub struct EmqxArgs {
    /// Folder to write to; it is made if it is not there. Without it, configuration and rules are printed
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// What the store and the configuration say.
struct Known {
    config: Config,
    access: Access,
    gateways: Vec<Device>,
}

/// Runs it.
pub async fn run(action: Action) -> anyhow::Result<Exit> {
    let Action::Config(kind) = action;
    match kind {
        Kind::Mosquitto(args) => {
            let known = read(args.config.load(Purpose::Work)?.config).await?;
            let serials = known.gateways.iter().map(|gateway| &gateway.sn).collect::<BTreeSet<_>>();
            if let Some(unknown) = args.renew.iter().find(|sn| !serials.contains(sn)) {
                bail!(
                    "--renew {unknown}: there is no such dock or remote controller; `utmos device list` shows all"
                );
            }
            mosquitto::write(&known, &args)?;
        }
        Kind::Emqx(args) => {
            emqx::write(
                &read(args.config.load(Purpose::Work)?.config).await?,
                args.out.as_deref(),
            )?;
        }
    }
    Ok(Exit::Done)
}

async fn read(config: Config) -> anyhow::Result<Known> {
    let store = opened::store(&config).await?;
    let registry = registry(&*store).await;
    store.close().await;
    let registry = registry?;
    let (user, heard) = match &config.mqtt {
        Mqtt::External(broker) => (broker.username.clone(), broker.filters().collect()),
        Mqtt::Embedded(_) => {
            (None, SERVER_FILTERS.iter().map(|&filter| filter.to_owned()).collect())
        }
    };
    let user = user.unwrap_or_else(|| SERVER_USER.to_owned());
    if user.chars().any(|c| c.is_control() || "+#/:\"".contains(c)) {
        bail!(
            "mqtt.external.username {user:?} cannot be written into a broker's files; use letters and digits"
        );
    }
    if registry.devices().any(|device| device.sn.as_str() == user) {
        bail!(
            "mqtt.external.username {user:?} is the serial number of a device; the server needs a name of its own"
        );
    }
    let gateways = registry.devices().filter(|device| device.kind.is_gateway()).cloned().collect();
    Ok(Known { config, access: Access::new(user, heard, &registry), gateways })
}

/// Devices, and what stands behind them as far as is known: as a server has it at its start.
async fn registry(store: &dyn Database) -> anyhow::Result<Registry> {
    let mut registry = Registry::default();
    registry.replace_devices(store.devices().await?);
    for (gateway, subs) in store.topologies().await? {
        registry.recall_topology(&gateway, subs);
    }
    Ok(registry)
}

fn parse_sn(text: &str) -> Result<DeviceSn, String> {
    DeviceSn::parse(text).map_err(|err| err.to_string())
}

/// What was done, for people. Standard output belongs to what is printed in the place of files.
fn told(text: impl std::fmt::Display) {
    output::note(text);
}
