//! A server that runs already: whether it may be loaded, and docks of the bench's own at it.
//!
//! Load is damage where real docks are commanded, so two things must be said by two people: whoever runs the server marks
//! it as one that may be loaded, and whoever loads one that is not on this machine says so twice.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, bail};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::json;
use utmos_sim::DockConfig;

use super::{
    child::{Prepared, SEED},
    http::Connection,
    reply::Reply,
};
use crate::api::{
    access::{Access, CredentialArgs},
    client::{Answer, Client},
};

/// Where docks connect when nothing else is said.
const MQTT_PORT: u16 = 1883;
/// Longest to wait for the server to say whether it may be loaded.
const ASK_WAIT: Duration = Duration::from_secs(15);
/// What marks a dock as one of a bench.
const LABEL: &str = "utmos bench";
const DEVICES: &str = "/api/v1/open/devices";

/// Flags of a load on a server that runs already.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "A server that runs already")]
pub struct RunningArgs {
    /// Load this server instead of one of the bench's own. It must have been started with bench.allow = true
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Where docks connect to it, without TLS [default: the host of --server, port 1883]
    #[arg(long, value_name = "HOST:PORT", requires = "server")]
    mqtt: Option<String>,
    #[command(flatten)]
    pub elsewhere: Elsewhere,
    #[command(flatten)]
    credential: CredentialArgs,
}

/// What has to be said before anything that is not on this machine is loaded.
#[derive(Debug, Default, clap::Args)]
pub struct Elsewhere {
    /// Say that what is to be loaded is not on this machine; --load-host has to say it as well
    #[arg(long)]
    not_this_machine: bool,
    /// The host that is not on this machine and is to be loaded; can be repeated
    #[arg(long, value_name = "HOST")]
    load_host: Vec<String>,
}

/// A server that may be loaded.
#[derive(Debug)]
pub struct Running {
    pub http: SocketAddr,
    pub mqtt: SocketAddr,
    /// Whether floors of this machine are floors of the server.
    pub is_here: bool,
    access: Access,
}

/// A host and where it is.
#[derive(Debug)]
struct Host {
    /// The flag that names it.
    flag: &'static str,
    name: String,
    addresses: Vec<SocketAddr>,
}

impl Host {
    async fn find(flag: &'static str, name: &str, port: u16) -> anyhow::Result<Self> {
        let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        let found = tokio::net::lookup_host((name.as_str(), port)).await;
        let addresses: Vec<_> =
            found.with_context(|| format!("the host {name} of {flag} is not known"))?.collect();
        if addresses.is_empty() {
            bail!("the host {name} of {flag} has no address");
        }
        Ok(Self { flag, name, addresses })
    }

    fn is_here(&self) -> bool {
        self.addresses.iter().all(|address| is_loopback(address.ip()))
    }

    fn first(&self) -> anyhow::Result<SocketAddr> {
        self.addresses.first().copied().context("a host without an address")
    }
}

/// Whether an address is this machine's own.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

impl RunningArgs {
    /// Whether a server that runs already is meant.
    pub fn is_given(&self) -> bool {
        self.server.is_some()
    }

    /// Finds the server, unless it must not be loaded. Nothing is sent to one that is not on this machine before it was
    /// named twice.
    pub async fn find(&self) -> anyhow::Result<Running> {
        let given = self.server.as_deref().context("--server is missing")?;
        let (name, port) = parse_server(given)?;
        let (mqtt_flag, mqtt_name, mqtt_port) = match &self.mqtt {
            Some(text) => {
                let (name, port) = parse_host(text)
                    .with_context(|| format!("--mqtt must be HOST:PORT, got {text:?}"))?;
                ("--mqtt", name, port)
            }
            None => ("--server", name.clone(), MQTT_PORT),
        };
        let http = Host::find("--server", &name, port).await?;
        let mqtt = Host::find(mqtt_flag, &mqtt_name, mqtt_port).await?;
        for host in [&http, &mqtt] {
            self.elsewhere.must_be_meant(host.flag, &host.name, host.is_here())?;
        }
        let address = http.first()?;
        must_be_allowed(given, address).await?;
        let (api_id, key) = self.credential.find()?;
        Ok(Running {
            http: address,
            mqtt: mqtt.first()?,
            is_here: http.is_here() && mqtt.is_here(),
            // The address that was asked, and not the name, which may lead elsewhere the next time.
            access: Access { url: format!("http://{address}"), api_id, key },
        })
    }
}

impl Elsewhere {
    /// What is elsewhere is loaded only when two flags say so.
    pub fn must_be_meant(&self, flag: &str, name: &str, is_here: bool) -> anyhow::Result<()> {
        let is_named = self.load_host.iter().any(|host| host == name);
        if is_here || (self.not_this_machine && is_named) {
            return Ok(());
        }
        bail!(
            "{name} ({flag}) is not this machine; what is elsewhere is loaded only when that is said twice: \
             --not-this-machine --load-host {name}"
        );
    }
}

fn parse_server(given: &str) -> anyhow::Result<(String, u16)> {
    let url: Url = given.parse().with_context(|| format!("--server {given:?} is no URL"))?;
    let is_bare = url.path() == "/" && url.query().is_none() && url.username().is_empty();
    match (url.scheme(), url.host_str(), url.port_or_known_default()) {
        ("http", Some(host), Some(port)) if is_bare => Ok((host.to_owned(), port)),
        (_, _, _) => bail!(
            "--server must be http://HOST:PORT, the server's own address and not that of a TLS proxy before it; got {given:?}"
        ),
    }
}

fn parse_host(text: &str) -> Option<(String, u16)> {
    let (name, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!name.is_empty()).then(|| (name.to_owned(), port))
}

#[derive(Deserialize)]
struct Health {
    /// Servers that know nothing of it are not marked.
    #[serde(default)]
    load_allowed: bool,
}

/// Asks the server whether it may be loaded.
async fn must_be_allowed(given: &str, address: SocketAddr) -> anyhow::Result<()> {
    let asked = async {
        let mut connection = Connection::open(address).await?;
        let answer = connection.get("/healthz").await?;
        anyhow::ensure!(answer.status == 200, "/healthz was answered {}", answer.status);
        Ok::<Health, anyhow::Error>(serde_json::from_slice(answer.body)?)
    };
    let health = tokio::time::timeout(ASK_WAIT, asked)
        .await
        .context("no answer in time")
        .flatten()
        .with_context(|| format!("the server {given} cannot be asked whether it may be loaded"))?;
    if !health.load_allowed {
        bail!(
            "the server {given} is not marked as allowed for load: start it with bench.allow = true \
             (UTMOS_BENCH_ALLOW=true), and never one that commands real docks"
        );
    }
    Ok(())
}

#[derive(Deserialize)]
struct Registered {
    device: Device,
    mqtt: Option<Login>,
}

#[derive(Deserialize)]
struct Device {
    label: String,
    simulated: bool,
}

#[derive(Deserialize)]
struct NewPassword {
    mqtt: Login,
}

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
}

impl Running {
    /// Asks again, before each run: at that address another server may listen by now.
    pub async fn must_still_be_allowed(&self) -> anyhow::Result<()> {
        must_be_allowed(&self.access.url, self.http).await
    }

    /// Registers so many docks and one more, or gives those of an earlier bench new passwords.
    pub async fn prepare(&self, docks: u32) -> anyhow::Result<Prepared> {
        let client = Client::new(self.access.clone())?;
        let mut made = Vec::new();
        for number in 1..=docks + 1 {
            let mut dock = DockConfig::numbered(SEED, number);
            dock.sn = format!("BENCH-DOCK-{number:04}");
            dock.aircraft_sn = format!("BENCH-M3D-{number:04}");
            let login = register(&client, &dock.sn)
                .await
                .with_context(|| format!("the dock {} cannot be registered", dock.sn))?;
            (dock.username, dock.password) = (login.username, login.password);
            made.push(dock);
        }
        Ok(Prepared {
            access: self.access.clone(),
            others: Vec::new(),
            docks: made,
            reply: Reply::AtOnce,
        })
    }
}

async fn register(client: &Client, sn: &str) -> anyhow::Result<Login> {
    let body = json!({"device_id": sn, "kind": "dock", "label": LABEL, "simulated": true});
    let answer = call(client, DEVICES, Some(&body)).await?;
    let registered: Registered =
        serde_json::from_value(answer.body).context("an answer that cannot be read")?;
    if let Some(login) = registered.mqtt {
        return Ok(login);
    }
    if !registered.device.simulated || registered.device.label != LABEL {
        bail!("somebody else registered it; remove it with: utmos device remove --sn {sn}");
    }
    let answer = call(client, &format!("{DEVICES}/{sn}/mqtt-password"), None).await?;
    let new: NewPassword =
        serde_json::from_value(answer.body).context("an answer that cannot be read")?;
    Ok(new.mqtt)
}

async fn call(
    client: &Client,
    path: &str,
    body: Option<&serde_json::Value>,
) -> anyhow::Result<Answer> {
    let answer = client.call(Method::POST, path, body, Duration::ZERO).await;
    let answer = answer.map_err(|none| anyhow::anyhow!("no answer: {}", none.reason))?;
    if !(200..300).contains(&answer.status) {
        let word = |name: &str| answer.body.get(name).and_then(|it| it.as_str()).unwrap_or("");
        bail!("{} {}: {}", answer.status, word("code"), word("message"));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn host(name: &str, addresses: &[&str]) -> Host {
        let addresses = addresses.iter().map(|one| SocketAddr::new(one.parse().unwrap(), 1));
        Host { flag: "--server", name: name.to_owned(), addresses: addresses.collect() }
    }

    fn meant(not_this_machine: bool, load_host: &[&str], host: &Host) -> Result<(), String> {
        let load_host = load_host.iter().map(|name| (*name).to_owned()).collect();
        let elsewhere = Elsewhere { not_this_machine, load_host };
        let meant = elsewhere.must_be_meant(host.flag, &host.name, host.is_here());
        meant.map_err(|err| err.to_string())
    }

    #[test]
    fn a_server_elsewhere_is_loaded_only_when_it_was_said_twice() {
        let elsewhere = host("10.0.0.5", &["10.0.0.5"]);
        for (flag, hosts) in
            [(false, &[][..]), (true, &[]), (false, &["10.0.0.5"]), (true, &["10.0.0.6"])]
        {
            let told = meant(flag, hosts, &elsewhere).unwrap_err();
            assert!(told.contains("--not-this-machine --load-host 10.0.0.5"), "{told}");
        }
        assert_eq!(meant(true, &["10.0.0.5"], &elsewhere), Ok(()));
    }

    #[test]
    fn only_what_has_no_address_but_the_loopback_is_this_machine() {
        for (addresses, is_here) in [
            (&["127.0.0.1"][..], true),
            (&["::1", "127.8.8.8"], true),
            (&["::ffff:127.0.0.1"], true),
            (&["127.0.0.1", "10.0.0.5"], false),
            (&["0.0.0.0"], false),
            (&["fe80::1"], false),
        ] {
            assert_eq!(host("h", addresses).is_here(), is_here, "{addresses:?}");
        }
    }

    #[test]
    fn only_the_servers_own_address_is_taken() {
        let known = |text| parse_server(text).ok();
        assert_eq!(known("http://127.0.0.1:8080/"), Some(("127.0.0.1".to_owned(), 8080)));
        assert_eq!(known("http://localhost"), Some(("localhost".to_owned(), 80)));
        for refused in ["https://h:1", "http://h:1/api", "h:1", "", "http://u@h", "http://h/?a=b"] {
            assert_eq!(known(refused), None, "{refused}");
        }
        assert_eq!(parse_host("h:1883"), Some(("h".to_owned(), 1883)));
        assert_eq!(parse_host("[::1]:1"), Some(("[::1]".to_owned(), 1)));
        for refused in ["h", ":1", "h:0", "h:x"] {
            assert_eq!(parse_host(refused), None, "{refused}");
        }
    }
}
