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

use clap::Subcommand;

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
    let mut builder = match &command {
        Command::Serve(_) | Command::Sim(_) | Command::Bench(_) => {
            tokio::runtime::Builder::new_multi_thread()
        }
        Command::Send(_)
        | Command::Sign(_)
        | Command::Catalog(_)
        | Command::Credential(_)
        | Command::Device(_)
        | Command::Tenant(_)
        | Command::Doctor(_)
        | Command::Broker(_)
        | Command::Store(_)
        | Command::Config(_) => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build()?;
    let exit = runtime.block_on(async {
        match command {
            Command::Serve(args) => serve::run(args).await,
            Command::Sim(args) => sim::run(args).await,
            Command::Send(args) => send::run(args).await,
            Command::Sign(args) => sign::run(&args),
            Command::Catalog(args) => catalog::run(&args),
            Command::Credential(action) => credential::run(action).await,
            Command::Device(action) => device::run(action).await,
            Command::Tenant(action) => tenant::run(action).await,
            Command::Doctor(args) => doctor::run(args).await,
            Command::Broker(action) => broker::run(action).await,
            Command::Store(action) => store::run(&action).await,
            Command::Config(action) => config::run(&action),
            Command::Bench(args) => bench::run(args).await,
        }
    });
    // Whatever blocks in the background, such as a read from standard input, must not hold up the end.
    runtime.shutdown_background();
    exit
}
