//! The file of telemetry and device events. Makes none.

use utmos_core::ports::TelemetryStore;
use utmos_server::config::Config;

use super::finding::Finding;
use crate::opened;

/// Looks at the history.
pub async fn check(config: &Config) -> Finding {
    let path = config.store.history_path.display();
    if !config.store.history_path.exists() {
        return Finding::ok(
            "history",
            format!("{path} is not there yet; the first start makes it"),
        );
    }
    let history = match opened::history(config) {
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
