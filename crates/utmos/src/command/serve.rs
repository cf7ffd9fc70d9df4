//! `utmos serve`: puts the parts together and runs them until it is told to stop.

mod demo;
mod retention;

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc};

use anyhow::Context;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};
use utmos_core::time::Clock;
use utmos_server::{Parts, Server, clock::SystemClock, config::Config, ids::SystemIds};

use crate::{
    exit::Exit,
    open_files, opened, output,
    settings::{ConfigArgs, Purpose},
};

/// What part of the time for a stop is left to the database.
const STORE_SHARE: u32 = 5;

/// What is so while DJI's app credentials are not set.
pub const NO_APP: &str = "dji.app_id, app_key and app_license are not all set: what a real dock asks first (config) waits for an \
                          answer by hand, since an empty licence would have it leave";
/// What to do about it.
pub const NO_APP_REMEDY: &str =
    "create a Cloud API app at developer.dji.com and set the three; simulated docks need none";

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Set up a tenant, a credential and two simulated docks in ./utmos-demo, and show how to use them
    #[arg(long)]
    demo: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// What is to be run, read and checked.
pub struct Prepared {
    config: Config,
    is_demo: bool,
}

impl Prepared {
    /// On how many threads; `None`: as many as fit the machine.
    pub fn threads(&self) -> Option<NonZeroUsize> {
        self.config.threads
    }
}

/// Reads the configuration.
pub fn prepare(args: Args) -> anyhow::Result<Prepared> {
    let purpose = if args.demo { Purpose::Demo } else { Purpose::Work };
    let mut loaded = args.config.load(purpose)?;
    crate::log::start(&loaded.config.log);
    if args.demo {
        demo::move_to_free_ports(&mut loaded);
    }
    Ok(Prepared { config: loaded.config, is_demo: args.demo })
}

/// Runs it.
pub async fn run(prepared: Prepared) -> anyhow::Result<Exit> {
    let Prepared { mut config, is_demo } = prepared;
    open_files::fit(&mut config, open_files::raise());
    let store = opened::store(&config).await?;
    // First of all, because only one server gets it: a second one must not touch what the first relies on.
    let journalled = opened::journalled(store.clone(), &config)?;
    let clock = Arc::new(SystemClock::new());
    store.is_mine(clock.boot()).await?;
    let history = opened::history(&config).await?;
    let prepared = if is_demo { Some(demo::prepare(&*store, &config).await?) } else { None };
    // Listened for before anything is begun, so that a stop during the start is not lost.
    let stop = stop_sign()?;
    let catalogue = Arc::new(opened::catalogue(&config)?);
    let parts = Parts {
        store: journalled.clone(),
        on_record: Some(Box::pin(opened::on_record(journalled.clone()))),
        requests: store.clone(),
        fleet: store.clone(),
        history: history.clone(),
        sharing: opened::sharing(&store, &config).await?,
        clock,
        ids: Arc::new(SystemIds::new()),
        catalogue: catalogue.clone(),
    };
    let server = Server::start(&config, parts).await.with_context(|| {
        format!("the server does not start with the database {}", opened::name(&config))
    })?;
    let settling = tokio::spawn({
        let journalled = journalled.clone();
        async move { journalled.keep_settling().await }
    });
    let retention = retention::begin(&config)?;
    let running = match prepared {
        Some(prepared) => Some(prepared.run(&config, &catalogue, &server).await?),
        None => {
            announce(&config, &server);
            if !config.dji.has_app() {
                tracing::warn!("{NO_APP}; {NO_APP_REMEDY}");
            }
            None
        }
    };
    stop.await;
    server.give_notice();
    let notice = config.http.notice_wait;
    if !notice.is_zero() {
        output::note(format_args!(
            "stopping in {} s; /readyz says so until then",
            notice.as_secs()
        ));
        tokio::time::sleep(notice).await;
    }
    output::note("stopping: what was begun is being finished");
    let by = Instant::now() + config.http.shutdown_wait;
    let stopping = async {
        if let Some(running) = running {
            running.stop().await;
        }
        // A part of the time is kept for the database.
        server.stop_by(by - config.http.shutdown_wait / STORE_SHARE).await;
        settling.abort();
        if let Some(retention) = &retention {
            retention.abort();
        }
        if let Err(err) = journalled.settle().await {
            tracing::warn!(%err, "the store is unwell; emergencies in the journal are put on record at the next start");
        }
        history.close().await;
        store.close().await;
    };
    if tokio::time::timeout_at(by, stopping).await.is_err() {
        // Waiting for a disk that hangs could take for ever; what is on it is true.
        output::trouble(format_args!(
            "stopped before the database was closed; what was begun is found again at the next start"
        ));
        std::process::exit(1);
    }
    Ok(Exit::Done)
}

fn announce(config: &Config, server: &Server) {
    output::note(format_args!("API at {}, reference at {0}/docs", url(server.http_addr())));
    if let Some(address) = server.metrics_addr() {
        output::note(format_args!("metrics at {}/metrics", url(address)));
    }
    if let Some(address) = server.mqtt_addr() {
        output::note(format_args!("devices connect to {address}"));
    }
    output::note(format_args!("data in {}", config.data_dir.display()));
}

/// How this machine reaches an address the server listens on.
fn url(address: SocketAddr) -> String {
    format!("http://{}", reachable(address))
}

pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// Done when the first SIGTERM or SIGINT comes; a second one ends the process at once.
fn stop_sign() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (told, stop) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        next_of(&mut terminate, &mut interrupt).await;
        let _nobody_waits = told.send(());
        next_of(&mut terminate, &mut interrupt).await;
        output::note("stopped at once; what was begun is found again at the next start");
        std::process::exit(1);
    });
    Ok(async move {
        let _gone = stop.await;
    })
}

async fn next_of(one: &mut Signal, other: &mut Signal) {
    tokio::select! { _ = one.recv() => {}, _ = other.recv() => {} }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn an_address_of_all_interfaces_is_reached_at_the_loopback() {
        for (listen, expected) in [
            ("0.0.0.0:8080", "http://127.0.0.1:8080"),
            ("[::]:8080", "http://[::1]:8080"),
            ("192.0.2.1:80", "http://192.0.2.1:80"),
        ] {
            assert_eq!(url(listen.parse().unwrap()), expected);
        }
    }
}
