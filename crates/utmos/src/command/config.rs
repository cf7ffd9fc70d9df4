//! `utmos config`: what is in force, and what could be set.

use clap::Subcommand;
use utmos_server::config::DEFAULT_FILE;

use crate::{
    exit::Exit,
    output,
    settings::{ConfigArgs, Purpose},
};

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Check the configuration and print every value with its source; secrets are masked
    Check(ConfigArgs),
    /// Print the default file, which documents every key
    Default,
}

/// Runs it.
pub fn run(action: &Action) -> anyhow::Result<Exit> {
    match action {
        Action::Check(args) => {
            let loaded = args.load(Purpose::Work)?;
            let rows: Vec<_> = loaded
                .rows
                .into_iter()
                .map(|row| [row.key, row.shown, row.origin.to_string()])
                .collect();
            output::table(["KEY", "VALUE", "SOURCE"], &rows);
        }
        Action::Default => output::line(DEFAULT_FILE.trim_end()),
    }
    Ok(Exit::Done)
}
