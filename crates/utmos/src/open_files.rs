//! Every connection is an open file. More connections than files would leave none for the database, and for whoever comes
//! next, so there are never more of them than files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use utmos_server::config::{Config, Mqtt};

/// Files that are open beside the connections: the database, its readers, the logs.
pub const OTHER_FILES: u64 = 256;
/// Files that a connection to the embedded broker takes.
pub const FILES_OF_MQTT_CLIENT: usize = 2;

/// Raises the number of files this process may open as far as the system allows; the usual limit is for shells. Answers
/// the limit in force; nothing when there is none.
pub fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(err) => {
            tracing::debug!(%err, "the limit of open files stays as it is");
            limit.current
        }
    }
}

/// Files that the connections may take which the configuration allows for.
pub fn wanted(config: &Config) -> u64 {
    let clients = match &config.mqtt {
        Mqtt::Embedded(broker) => broker.clients_max.saturating_mul(FILES_OF_MQTT_CLIENT),
        Mqtt::External(_) => 1,
    };
    config.http.connections_max.saturating_add(clients) as u64
}

/// Lowers the numbers of connections to what the files are enough for, both by the same part.
pub fn fit(config: &mut Config, allowed: Option<u64>) {
    let wanted = wanted(config);
    let Some(there) = allowed.map(|allowed| allowed.saturating_sub(OTHER_FILES).max(1)) else {
        return;
    };
    if wanted <= there {
        return;
    }
    let lower = |connections: usize| {
        let part = connections as u128 * u128::from(there) / u128::from(wanted);
        usize::try_from(part).unwrap_or(connections).max(1)
    };
    config.http.connections_max = lower(config.http.connections_max);
    if let Mqtt::Embedded(broker) = &mut config.mqtt {
        broker.clients_max = lower(broker.clients_max);
    }
    let mqtt = match &config.mqtt {
        Mqtt::Embedded(broker) => broker.clients_max,
        Mqtt::External(_) => 1,
    };
    tracing::warn!(
        "this process may open {} files: http.connections_max is taken as {} and mqtt.embedded.clients_max as {mqtt}; \
         raise the limit (systemd: LimitNOFILE={}) for more",
        there + OTHER_FILES,
        config.http.connections_max,
        wanted + OTHER_FILES,
    );
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn fitted(allowed: Option<u64>) -> (usize, usize) {
        let mut config = Config::defaults().unwrap();
        fit(&mut config, allowed);
        let Mqtt::Embedded(broker) = &config.mqtt else { panic!("another broker") };
        (config.http.connections_max, broker.clients_max)
    }

    #[test]
    fn there_are_never_more_connections_than_files() {
        assert_eq!(fitted(None), (10_000, 10_000));
        assert_eq!(fitted(Some(30_256)), (10_000, 10_000));
        assert_eq!(fitted(Some(3_256)), (1_000, 1_000));
        let (http, mqtt) = fitted(Some(1024));
        assert_eq!((http, mqtt), (256, 256));
        assert!((http + FILES_OF_MQTT_CLIENT * mqtt) as u64 + OTHER_FILES <= 1024);
        assert_eq!(fitted(Some(0)), (1, 1));
    }
}
