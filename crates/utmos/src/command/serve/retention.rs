//! Weeks of commands that are older than the configuration lets servers keep them go by themselves, at one server at a time.

use std::time::Duration;

use tokio::task::JoinHandle;
use utmos_server::config::Config;
use utmos_store::{PostgresConfig, PostgresStore, WeeksKept, WeeksTidied};

use crate::{opened, time::now};

/// How often it is looked for such weeks.
const LOOK_WAIT: Duration = Duration::from_hours(1);

/// Looks now and then until it is aborted, where commands are in PostgreSQL; weeks go where the configuration asks for it. What is
/// aborted in the middle is undone.
pub fn begin(config: &Config) -> anyhow::Result<Option<JoinHandle<()>>> {
    let keep = config.store.commands_keep;
    Ok(opened::postgres(config)?.map(|postgres| tokio::spawn(look(postgres, keep))))
}

async fn look(postgres: PostgresConfig, keep: Option<Duration>) {
    loop {
        if let Some(keep) = keep {
            tidy(&postgres, keep).await;
        }
        // A database that is away is told of by whoever works on it.
        if let Ok(kept) = PostgresStore::weeks_kept(&postgres.url).await
            && kept.are_too_many()
        {
            tracing::warn!("{kept}: {}", WeeksKept::REMEDY);
        }
        tokio::time::sleep(LOOK_WAIT).await;
    }
}

async fn tidy(postgres: &PostgresConfig, keep: Duration) {
    match PostgresStore::tidy_weeks(postgres, now(), keep).await {
        Ok(WeeksTidied { dropped, needed, busy, .. }) if dropped + busy > 0 => {
            tracing::info!(dropped, needed, busy, "dropped old weeks of commands");
        }
        Ok(WeeksTidied { needed, .. }) => {
            tracing::debug!(needed, "no week of commands to drop")
        }
        Err(error) => tracing::warn!(
            error = format!("{:#}", anyhow::Error::from(error)),
            "old weeks of commands could not be dropped; it is tried again in an hour"
        ),
    }
}
