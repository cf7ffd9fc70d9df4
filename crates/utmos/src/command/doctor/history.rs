//! Where telemetry and device events are kept. Makes none.

use utmos_core::ports::TelemetryStore;
use utmos_server::config::{Config, HistoryIn};
use utmos_store::{PostgresConfig, PostgresHistory, PostgresOpenError};

use super::finding::Finding;
use crate::opened;

/// Looks at the history.
pub async fn check(config: &Config) -> Finding {
    if config.store.postgres.is_some()
        && config.store.history == HistoryIn::Store
        && !opened::has_master_key(config)
    {
        return Finding::ok("history", "in the database, of which the store says more");
    }
    match opened::postgres_history(config) {
        Ok(None) => check_file(config).await,
        Ok(Some(postgres)) => check_postgres(&postgres).await,
        Err(err) => Finding::fail("history", format!("{err:#}"), "see what is said of the store"),
    }
}

async fn check_postgres(postgres: &PostgresConfig) -> Finding {
    let used = match PostgresHistory::open_as_it_is(postgres).await {
        Ok(history) => {
            let used = history.history_bytes().await;
            history.close();
            used.map_err(|err| err.to_string())
        }
        Err(PostgresOpenError::OlderSchema { .. }) => {
            return Finding::ok("history", "its tables are brought up to date with the store's");
        }
        Err(err) => Err(err.to_string()),
    };
    match used {
        Ok(bytes) => {
            let used = bytes as f64 / 1e6;
            Finding::ok("history", format!("{used:.1} MB in use, in {}", postgres.url))
        }
        Err(err) => Finding::fail("history", err, "see what is said of the store"),
    }
}

async fn check_file(config: &Config) -> Finding {
    let path = config.store.history_path.display();
    if !config.store.history_path.exists() {
        return Finding::ok(
            "history",
            format!("{path} is not there yet; the first start makes it"),
        );
    }
    let history = match opened::history_file(config) {
        Ok(history) => history,
        Err(err) => {
            return Finding::fail(
                "history",
                format!("{err:#}"),
                format!(
                    "move {path} away with its -wal and -shm: telemetry and events of before are lost, commands are not"
                ),
            );
        }
    };
    let used = history.history_bytes().await;
    history.close().await;
    match used {
        Ok(bytes) => Finding::ok("history", format!("{:.1} MB in use", bytes as f64 / 1e6)),
        Err(err) => Finding::fail(
            "history",
            err.to_string(),
            format!("move {path} away with its -wal and -shm; commands do not need it"),
        ),
    }
}
