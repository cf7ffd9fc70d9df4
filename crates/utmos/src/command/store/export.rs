//! `utmos store export`: from PostgreSQL to a new SQLite file, with no server at work.

use std::{io::IsTerminal, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use tokio::time::Instant;
use utmos_server::config::Config;
use utmos_store::{Export, PostgresConfig, PostgresOpenError, PostgresStore};

use crate::{exit::Exit, opened, output};

/// How often it is told how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Takes everything over, or goes on with it.
pub async fn run(into: Option<&Path>, config: &Config) -> anyhow::Result<Exit> {
    let into = into.unwrap_or(&config.store.path);
    let Some(from) = opened::postgres(config)? else {
        bail!("store.url names no PostgreSQL database to export");
    };
    opened::make_folder(opened::folder_of(into))?;
    settle(&from, config).await?;
    let export = Export::new(from, into);
    let mut told = Instant::now();
    let told_of = |table: &str, rows: u64| {
        if told.elapsed() >= TOLD_EVERY && std::io::stderr().is_terminal() {
            told = Instant::now();
            output::note(format_args!("{table}: {rows} rows"));
        }
    };
    let taken = export.run(told_of).await?;
    for (table, rows) in &taken.rows {
        output::line(format_args!("{rows:>10} {table}"));
    }
    output::line(format_args!(
        "Everything is in {} and was compared. Start the one server on it with store.url = \"\" and the same master key; no server opens {} any more.",
        into.display(),
        export.from.url
    ));
    Ok(Exit::Done)
}

/// Emergencies in the journal of this server are put on record first; no server starts with it meanwhile. Where the database
/// is closed already, an export before did so.
async fn settle(from: &PostgresConfig, config: &Config) -> anyhow::Result<()> {
    let store = match PostgresStore::open(from.clone()).await {
        Ok(store) => Arc::new(store),
        Err(PostgresOpenError::Exported(_)) => return Ok(()),
        Err(err) => return Err(err.into()),
    };
    let journalled = opened::journalled(store.clone(), config)?;
    let settled = journalled.settle().await;
    store.close().await;
    settled.context("emergencies of an earlier run cannot be put on record").map(drop)
}
