//! `utmos store import`: from a SQLite database to PostgreSQL, with no server at work on either.

use std::{io::IsTerminal, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use tokio::time::Instant;
use utmos_core::{
    ports::RegistryStore,
    time::{Clock, Timestamp},
};
use utmos_server::{clock::SystemClock, config::Config};
use utmos_store::{Import, JournalledStore, MasterKey, SqliteConfig, SqliteStore};

use crate::{environment, exit::Exit, opened, output};

/// How often it is told how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Takes everything over, or goes on with it.
pub async fn run(from: Option<&Path>, config: &Config) -> anyhow::Result<Exit> {
    let from = from.unwrap_or(&config.store.path);
    super::must_be_there(from)?;
    let key_file = &config.store.master_key_file;
    if environment::variable(opened::MASTER_KEY).is_none() && !key_file.exists() {
        bail!(
            "the master key {} is missing; {} was made with it, and PostgreSQL needs the same",
            key_file.display(),
            from.display()
        );
    }
    let Some(into) = opened::postgres(config)? else {
        bail!("store.url names no PostgreSQL database to import into");
    };
    // Whoever has the journal has the database: no server starts, and what is in it is put on record first.
    let _journal = settled(from, &into.master_key).await?;
    let import = Import::new(from, into);
    let mut told = Instant::now();
    let told_of = |table: &str, rows: u64| {
        if told.elapsed() >= TOLD_EVERY && std::io::stderr().is_terminal() {
            told = Instant::now();
            output::note(format_args!("{table}: {rows} rows"));
        }
    };
    let taken = import.run(told_of).await?;
    for (table, rows) in &taken.rows {
        output::line(format_args!("{rows:>10} {table}"));
    }
    output::line(format_args!(
        "Everything is in {} and was compared. Keep {} in a place where no server opens it again.",
        import.into.url,
        from.display()
    ));
    Ok(Exit::Done)
}

async fn settled(from: &Path, key: &MasterKey) -> anyhow::Result<JournalledStore> {
    let (path, master_key) = (from.to_owned(), key.clone());
    let store = Arc::new(SqliteStore::open(SqliteConfig { path, master_key })?);
    let journal = opened::folder_of(from).join(opened::JOURNAL_FILE);
    let journalled = JournalledStore::open(store.clone(), key, &journal).with_context(|| {
        format!("the journal of emergencies {} cannot be used; stop the server", journal.display())
    })?;
    // With what it had answered before it was on the disk.
    let clock = SystemClock::new();
    store.read_quickly(clock.boot()).await?;
    let skews = store.credentials().await?.into_iter().map(|one| one.allowed_clock_skew);
    let forgotten = store.reads_refused_up_to();
    if let Some(until) = waits_until(forgotten, skews.max().unwrap_or_default(), clock.now().wall) {
        store.close().await;
        bail!(
            "the machine went down unexpectedly, and requests that only read and were signed around then may have been answered without a trace in {}; PostgreSQL would answer them again: import after {until}, when their timestamps are too old",
            from.display()
        );
    }
    journalled.settle().await.context("emergencies of an earlier run cannot be put on record")?;
    Ok(journalled)
}

/// Until when somebody may send again what was signed up to `forgotten`, if that is not over.
fn waits_until(forgotten: Option<Timestamp>, skew: Duration, now: Timestamp) -> Option<Timestamp> {
    forgotten.map(|up_to| up_to.plus(skew)).filter(|until| now <= *until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_forgotten_must_be_too_old_to_be_sent_again() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let skew = Duration::from_secs(300);
        assert_eq!(waits_until(None, skew, at(1_000)), None);
        assert_eq!(waits_until(Some(at(700)), skew, at(1_000)), Some(at(1_000)));
        assert_eq!(waits_until(Some(at(699)), skew, at(1_000)), None);
        // The clock was ahead then.
        assert_eq!(waits_until(Some(at(9_000)), skew, at(1_000)), Some(at(9_300)));
    }
}
