//! The `utmos` binary: reads arguments, assembles the parts, holds no rules.

mod api;
mod command;
mod environment;
mod exit;
mod issue;
mod log;
mod open_files;
mod opened;
mod output;
mod settings;
mod time;

use std::process::ExitCode;

use clap::Parser;

use crate::exit::Exit;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Commands DJI docks over MQTT, through a signed HTTP API.
#[derive(Debug, Parser)]
#[command(name = "utmos", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: command::Command,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let exit = command::run(arguments.command).unwrap_or_else(|err| {
        output::trouble(format_args!("error: {err:#}"));
        Exit::Failure
    });
    exit.into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn no_two_arguments_get_in_each_others_way() {
        Arguments::command().debug_assert();
    }
}
