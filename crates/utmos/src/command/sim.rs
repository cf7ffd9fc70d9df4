//! `utmos sim`: simulated docks against any broker, and a line for whatever happens.

mod scenario;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use tokio::sync::mpsc;
use tracing::Level;
use utmos_dji::catalogue::Catalogue;
use utmos_mqtt::{ClientTls, ProtocolChoice};
use utmos_server::config::{Log, LogFormat};
use utmos_sim::{
    BrokerAddress, DockConfig, Fleet, FleetConfig, Happening, Login, Model, Scenario, ScenarioDock,
    ScenarioDocks, control::Control, text_of,
};

use super::sign::read_argument;
use crate::{exit::Exit, output};

const SEED: u64 = 1;
const HAPPENINGS_WAITING_MAX: usize = 10_000;
const DOCKS_MAX: u32 = 10_000;
/// How long the docks may take to come online before a word is said about it.
const ONLINE_WAIT: Duration = Duration::from_secs(10);

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The broker, as host:port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883", value_parser = parse_broker)]
    broker: (String, u16),
    /// How many docks [default: those of the scenario, or as many as the credentials file names, or 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(DOCKS_MAX)))]
    docks: Option<u32>,
    /// What they are: dock1, dock2, dock3, rc_pro or rc_plus_2, or one of these with its other aircraft, such as
    /// dock3_m4td. Of several, separated by commas, they take one after another [default: that of the scenario, or
    /// dock2]
    #[arg(long, value_name = "MODEL", value_delimiter = ',')]
    model: Vec<Model>,
    /// Fixes every id, delay and reading, and all dice [default: that of the scenario, or 1]
    #[arg(long)]
    seed: Option<u64>,
    /// How many times faster than real docks they fly, work and answer [default: that of the scenario, or 1]
    #[arg(long)]
    speed: Option<f64>,
    /// File with a serial number and an MQTT password per line, or what `utmos device add --json` printed; - for
    /// standard input. Without it, docks are called SIM-DOCK-0001 and so on, with passwords made from the seed
    #[arg(long, value_name = "FILE")]
    credentials: Option<String>,
    /// File with one password for all docks
    #[arg(long, value_name = "FILE", conflicts_with = "credentials")]
    password_from: Option<String>,
    /// Factory-new docks: nobody has registered them, and each connects with its serial number and this binding code, and
    /// asks to join with it
    #[arg(long, value_name = "CODE", conflicts_with_all = ["credentials", "password_from"])]
    binding_code: Option<String>,
    /// The organisation id that factory-new docks ask to join
    #[arg(long, value_name = "ID", default_value = "utmos", requires = "binding_code")]
    organization: String,
    /// MQTT 5 or 3.1.1 [default: 5, else 3.1.1]
    #[arg(long, value_parser = parse_protocol)]
    protocol: Option<ProtocolChoice>,
    /// Connect with TLS
    #[arg(long)]
    tls: bool,
    /// PEM file of the authority that signed the broker's certificate
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca_file: Option<std::path::PathBuf>,
    /// Send no telemetry
    #[arg(long)]
    no_telemetry: bool,
    #[command(flatten)]
    scenario: scenario::ScenarioArgs,
    /// Listen here for the control API: HTTP and JSON to look at the docks and to change what goes wrong while they run.
    /// Port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    control: Option<SocketAddr>,
    /// Let the control API be reached from other machines. It has no credentials
    #[arg(long, requires = "control")]
    control_anywhere: bool,
}

/// Runs it.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    crate::log::start(&Log { level: Level::WARN, format: LogFormat::Text });
    let (host, port) = args.broker.clone();
    let mut broker = BrokerAddress::new(host, port);
    broker.protocol = args.protocol.unwrap_or(ProtocolChoice::Auto);
    broker.tls = args.tls.then(|| ClientTls {
        ca_file: args.ca_file.clone(),
        server_name: None,
        client_certificate: None,
    });
    let scenario = args.scenario.read()?;
    let seed = args.seed.or(scenario.seed).unwrap_or(SEED);
    let mut config = FleetConfig::new(broker, 0, seed);
    config.docks = docks(&args, &scenario, seed)?;
    config.speed = args.speed.or(scenario.speed).unwrap_or(1.0);
    config.quiet = args.no_telemetry;
    config.faults = scenario.faults;
    if !scenario.named.is_empty() {
        let catalogue = Catalogue::embedded()?;
        let doubts = args.scenario.check(&scenario.named, &config.docks, &catalogue)?;
        doubts.iter().for_each(output::note);
    }
    let (sender, mut happenings) = mpsc::channel(HAPPENINGS_WAITING_MAX);
    config.on_event = Some(sender);
    let count = config.docks.len();
    let fleet = Fleet::start(config)?;
    let control = match args.control {
        Some(address) => {
            Some(Control::start(address, args.control_anywhere, fleet.controls()).await?)
        }
        None => None,
    };
    output::note(format_args!(
        "{count} simulated docks for {}:{}; Ctrl-C ends them",
        args.broker.0, args.broker.1
    ));
    if let Some(control) = &control {
        output::note(format_args!("control API at http://{}", control.address()));
    }
    watch(&fleet, &mut happenings).await;
    if let Some(control) = control {
        control.shutdown().await;
    }
    fleet.shutdown().await;
    Ok(Exit::Done)
}

/// Writes a line for whatever happens, until it is interrupted.
async fn watch(fleet: &Fleet, happenings: &mut mpsc::Receiver<Happening>) {
    let mut ready = std::pin::pin!(tokio::time::timeout(ONLINE_WAIT, fleet.ready()));
    let mut is_waiting = true;
    loop {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => return,
            () = fleet.stopped() => return,
            happening = happenings.recv() => match happening {
                Some(happening) => output::line(format_args!("{} {happening}", happening.at)),
                None => return,
            },
            outcome = &mut ready, if is_waiting => {
                is_waiting = false;
                match outcome {
                    Ok(()) => output::note("all docks are online"),
                    Err(_) => output::note("not all docks are online yet; they go on trying"),
                }
            }
        }
    }
}

fn docks(args: &Args, scenario: &Scenario, seed: u64) -> anyhow::Result<Vec<DockConfig>> {
    let named = match &scenario.docks {
        // Whoever says how many means the numbered ones.
        Some(ScenarioDocks::Named(named)) if args.docks.is_none() => Some(named.as_slice()),
        Some(ScenarioDocks::Named(_) | ScenarioDocks::Count(_)) | None => None,
    };
    let count = match scenario.docks {
        Some(ScenarioDocks::Count(count)) => args.docks.or(Some(count)),
        Some(ScenarioDocks::Named(_)) | None => args.docks,
    };
    let logins = args.credentials.as_deref().map(credentials).transpose()?;
    let usual = [scenario.model.unwrap_or_default()];
    let models = if args.model.is_empty() { &usual[..] } else { &args.model[..] };
    let numbers = || (1..).zip(models.iter().copied().cycle());
    let mut docks: Vec<DockConfig> = match (named, logins) {
        (Some(named), logins) => {
            let numbered = numbers().zip(named);
            numbered
                .map(|((number, usual), one)| {
                    named_dock(one.model.unwrap_or(usual), seed, number, one, logins.as_deref())
                })
                .collect::<anyhow::Result<_>>()?
        }
        (None, Some(logins)) => {
            let wanted = count.map_or(logins.len(), |count| count as usize);
            if logins.is_empty() || wanted > logins.len() {
                let source = args.credentials.as_deref().unwrap_or_default();
                bail!("{source} has passwords for {} docks and {wanted} are wanted", logins.len());
            }
            let numbered = numbers().zip(logins.into_iter().take(wanted));
            numbered
                .map(|((number, model), login)| DockConfig::named(model, seed, number, login))
                .collect()
        }
        (None, None) => {
            let numbered = numbers().take(count.unwrap_or(1) as usize);
            numbered.map(|(number, model)| DockConfig::numbered_as(model, seed, number)).collect()
        }
    };
    if let Some(path) = &args.password_from {
        let bytes = std::fs::read(path).with_context(|| format!("{path} cannot be read"))?;
        let text = text_of(&bytes).with_context(|| format!("in {path}"))?;
        for dock in &mut docks {
            text.trim_end_matches(['\r', '\n']).clone_into(&mut dock.password);
        }
    }
    if let Some(code) = &args.binding_code {
        docks.iter_mut().for_each(|dock| dock.be_factory_new(&args.organization, code));
    }
    Ok(docks)
}

/// What a file of credentials, or standard input, says.
fn credentials(source: &str) -> anyhow::Result<Vec<Login>> {
    let argument = if source == "-" { source.to_owned() } else { format!("@{source}") };
    let bytes = read_argument(&argument)?;
    let text = text_of(&bytes).with_context(|| format!("in {source}"))?;
    Login::read_all(text).with_context(|| format!("in {source}"))
}

/// A dock that a scenario names, with its password among these; without any, with one made from the seed.
fn named_dock(
    model: Model,
    seed: u64,
    number: u32,
    named: &ScenarioDock,
    logins: Option<&[Login]>,
) -> anyhow::Result<DockConfig> {
    let password = match logins {
        Some(logins) => {
            let login = logins.iter().find(|login| login.sn == named.sn);
            let login = login.with_context(|| {
                format!(
                    "the scenario has dock {}, and the credentials have no password for it",
                    named.sn
                )
            })?;
            login.password.clone()
        }
        None => DockConfig::numbered_as(model, seed, number).password,
    };
    let login = Login { sn: named.sn.clone(), password };
    let dock = DockConfig::named(model, seed, number, login);
    let aircraft_sn = named.aircraft_sn.clone().unwrap_or_else(|| dock.aircraft_sn.clone());
    Ok(DockConfig { aircraft_sn, ..dock })
}

fn parse_broker(text: &str) -> Result<(String, u16), String> {
    let wanted = || "must be host:port, such as 127.0.0.1:1883".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wanted)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match port.parse() {
        Ok(port) if !host.is_empty() => Ok((host.to_owned(), port)),
        Ok(_) | Err(_) => Err(wanted()),
    }
}

fn parse_protocol(text: &str) -> Result<ProtocolChoice, String> {
    match text {
        "auto" => Ok(ProtocolChoice::Auto),
        "5" => Ok(ProtocolChoice::V5),
        "3.1.1" => Ok(ProtocolChoice::V311),
        _ => Err("must be auto, 5 or 3.1.1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers() {
        assert_eq!(parse_broker("h:1883"), Ok(("h".to_owned(), 1883)));
        assert_eq!(parse_broker("[::1]:1883"), Ok(("::1".to_owned(), 1883)));
        for bad in ["h", "h:", ":1", "h:99999", "h:x"] {
            assert!(parse_broker(bad).is_err(), "{bad}");
        }
    }
}
