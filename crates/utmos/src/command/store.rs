//! `utmos store`: looks at the whole database, or copies it. Needs no master key, since it reads no secret.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;

use crate::{
    exit::Exit,
    output,
    settings::{ConfigArgs, Purpose},
};

/// What to do with the database.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Read every page and index, and hold the tables against each other; changes nothing
    ///
    /// Works beside a running server. Exit code 0: nothing is wrong; 1: something is, or it cannot be read.
    Check {
        /// The database [default: that of the configuration]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Copy the database as it is at this moment into a new file, while the server runs or not
    Backup {
        /// The new file; one that is there is refused
        #[arg(value_name = "FILE")]
        into: PathBuf,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// Runs it.
pub fn run(action: &Action) -> anyhow::Result<Exit> {
    match action {
        Action::Check { file: Some(file), .. } => check(file),
        Action::Check { file: None, config } => {
            check(&config.load(Purpose::Work)?.config.store.path)
        }
        Action::Backup { into, config } => {
            back_up(&config.load(Purpose::Work)?.config.store.path, into)
        }
    }
}

fn check(path: &Path) -> anyhow::Result<Exit> {
    must_be_there(path)?;
    let found = utmos_store::examine(path)?;
    let count = |count: Option<i64>| {
        count.map_or_else(|| "unreadable".to_owned(), |count| count.to_string())
    };
    output::line(format_args!(
        "{}: {} commands, {} open",
        path.display(),
        count(found.commands),
        count(found.open)
    ));
    for fault in &found.faults {
        output::line(format_args!("  {}", fault.replace('\n', " ")));
    }
    if found.faults.is_empty() {
        output::line("Nothing is wrong with it.");
        return Ok(Exit::Done);
    }
    output::line(
        "It is damaged. Stop the server, keep the files, and restore the backup or save what can be read: docs/recovery.md",
    );
    Ok(Exit::Failure)
}

fn back_up(path: &Path, into: &Path) -> anyhow::Result<Exit> {
    must_be_there(path)?;
    utmos_store::back_up(path, into)
        .with_context(|| format!("{} was not copied to {}", path.display(), into.display()))?;
    output::line(format_args!(
        "copied to {}; the master key is not in it, keep that in another place",
        into.display()
    ));
    Ok(Exit::Done)
}

fn must_be_there(path: &Path) -> anyhow::Result<()> {
    std::fs::metadata(path)
        .map(drop)
        .with_context(|| format!("the database {} cannot be read", path.display()))
}
