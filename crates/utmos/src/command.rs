//! The subcommands, one file each.

mod bench;
mod broker;
mod catalog;
mod config;
mod credential;
mod device;
mod doctor;
mod send;
mod serve;
mod sign;
mod sim;
mod store;
mod tenant;

use std::{num::NonZeroUsize, thread};

use clap::Subcommand;
use tokio::runtime::Builder;

use crate::exit::Exit;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server; with --demo, with simulated docks and everything set up
    Serve(serve::Args),
    /// Run simulated docks against any broker
    Sim(sim::Args),
    /// Send a command to a device and wait for how it ends
    ///
    /// The exit code tells the outcome: 0 SUCCEEDED (or DELIVERED where nothing answers), 2 wrong usage, 3 refused by
    /// the API, 10 FAILED, 11 TIMED_OUT, 12 UNMATCHED_RESPONSE, 20 the server cannot be reached, 1 anything else.
    Send(send::Args),
    /// Print the string to sign and the signed headers of a request
    Sign(sign::Args),
    /// Show the methods that can be sent
    Catalog(catalog::Args),
    /// Make, list, rotate and disable API credentials
    #[command(subcommand)]
    Credential(credential::Action),
    /// Add and list devices, and give them MQTT passwords
    #[command(subcommand)]
    Device(device::Action),
    /// Make and list tenants
    #[command(subcommand)]
    Tenant(tenant::Action),
    /// Check clock, store, broker, ports and permissions, and say what to do
    Doctor(doctor::Args),
    /// Write the configuration of another broker: users, topics, passwords
    #[command(subcommand)]
    Broker(broker::Action),
    /// Check the database, or copy it while the server runs
    #[command(subcommand)]
    Store(store::Action),
    /// Check or print the configuration
    #[command(subcommand)]
    Config(config::Action),
    /// Measure the speed and memory of this build on this machine, or hold a race
    Bench(bench::Args),
}

/// Runs a subcommand on a runtime of its own.
pub fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Serve(args) => {
            let prepared = serve::prepare(args)?;
            on(&mut workers(prepared.threads()), serve::run(prepared))
        }
        // It leaves room for the server it loads.
        Command::Bench(args) => on(&mut workers(None), bench::run(args)),
        Command::Sim(args) => on(&mut Builder::new_multi_thread(), sim::run(args)),
        Command::Send(args) => on_this_thread(send::run(args)),
        Command::Sign(args) => sign::run(&args),
        Command::Catalog(args) => catalog::run(&args),
        Command::Credential(action) => on_this_thread(credential::run(action)),
        Command::Device(action) => on_this_thread(device::run(action)),
        Command::Tenant(action) => on_this_thread(tenant::run(action)),
        Command::Doctor(args) => on_this_thread(doctor::run(args)),
        Command::Broker(action) => on_this_thread(broker::run(action)),
        Command::Store(action) => on_this_thread(store::run(&action)),
        Command::Config(action) => config::run(&action),
    }
}

/// So many threads; where that is not said, half as many as there are processors. Requests and messages need less than the rest of a
/// command's way does, and threads that wait for work wake each other: what that costs is in docs/benchmarks.md.
pub(crate) fn workers(threads: Option<NonZeroUsize>) -> Builder {
    let half = || thread::available_parallelism().map_or(1, |all| all.get().div_ceil(2));
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads.map_or_else(half, NonZeroUsize::get));
    builder
}

fn on_this_thread(work: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    on(&mut Builder::new_current_thread(), work)
}

fn on(
    builder: &mut Builder,
    work: impl Future<Output = anyhow::Result<Exit>>,
) -> anyhow::Result<Exit> {
    let runtime = builder.enable_all().build()?;
    let exit = runtime.block_on(work);
    // Whatever blocks in the background, such as a read from standard input, must not hold up the end.
    runtime.shutdown_background();
    exit
}
