//! Where log lines go: to standard error, so that results stay apart.

use std::io::IsTerminal;

use tracing::{Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, filter::Targets, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};
use utmos_server::config::{Log, LogFormat};

/// Libraries that tell of every connection at `info`, and at `warn` of what we tell as well.
const TALKATIVE: [&str; 1] = ["mqtt5_protocol"];

/// Starts to write. Called once.
pub fn start(log: &Log) {
    let filter = filter(log.level);
    let subscriber = tracing_subscriber::registry().with(lines(log.format).with_filter(filter));
    // Only a test that starts two servers in one process has one already.
    let _already = subscriber.try_init();
}

fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

fn filter(level: Level) -> Targets {
    let others = match level {
        Level::DEBUG | Level::TRACE => level,
        Level::INFO => Level::WARN,
        Level::WARN | Level::ERROR => Level::ERROR,
    };
    let filter = Targets::new().with_default(LevelFilter::from_level(level));
    TALKATIVE.into_iter().fold(filter, |filter, target| filter.with_target(target, others))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_stay_quiet_until_debugging_is_asked_for() {
        for (level, own, library) in [
            (Level::ERROR, (true, false), (true, false)),
            (Level::INFO, (true, true), (true, false)),
            (Level::DEBUG, (true, true), (true, true)),
        ] {
            let filter = filter(level);
            let shown = |target| {
                (
                    filter.would_enable(target, &Level::ERROR),
                    filter.would_enable(target, &Level::INFO),
                )
            };
            assert_eq!((shown("utmos_server"), shown("mqtt5_protocol")), (own, library), "{level}");
        }
    }
}
