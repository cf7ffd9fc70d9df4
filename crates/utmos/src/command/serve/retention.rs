//! Weeks of commands that are older than the configuration lets servers keep them go by themselves, at one server at a time.

use std::time::Duration;

use tokio::task::JoinHandle;
use utmos_server::config::Config;
use utmos_store::{PostgresConfig, PostgresStore, WeeksTidied};

use crate::{opened, time::now};

/// How often it is looked for such weeks.
const LOOK_WAIT: Duration = Duration::from_hours(1);

/// Looks now and then until it is aborted, where the configuration asks for it. What is aborted in the middle is undone.
pub fn begin(config: &Config) -> anyhow::Result<Option<JoinHandle<()>>> {
    let postgres = opened::postgres(config)?;
    let wanted = config.store.commands_keep.zip(postgres);
    Ok(wanted.map(|(keep, postgres)| tokio::spawn(tidy(postgres, keep))))
}

async fn tidy(postgres: PostgresConfig, keep: Duration) {
    loop {
        match PostgresStore::tidy_weeks(&postgres, now(), keep).await {
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
        tokio::time::sleep(LOOK_WAIT).await;
    }
}
