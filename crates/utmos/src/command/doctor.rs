//! `utmos doctor`: looks at everything a server needs, changes nothing, and says what to do.

mod broker;
mod clock;
mod finding;
mod history;
mod ports;
mod queueing;
mod store;

use utmos_server::config::Mqtt;

use self::finding::{Finding, Verdict};
use crate::{
    exit::Exit,
    opened, output,
    settings::{ConfigArgs, Purpose},
};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs it.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    let config = match args.config.load(Purpose::Work) {
        Ok(loaded) => {
            tell(&Finding::ok("configuration", "every key is known and every value fits"));
            loaded.config
        }
        Err(err) => {
            tell(&Finding::fail(
                "configuration",
                format!("{err:#}"),
                "mend it, then run utmos doctor again",
            ));
            return Ok(Exit::Failure);
        }
    };
    let mut worst = Verdict::Ok;
    let mut take = |findings: Vec<Finding>| {
        for finding in findings {
            tell(&finding);
            worst = worst.max(finding.verdict);
        }
    };
    take(vec![catalogue(&config)]);
    take(clock::check());
    take(store::check(&config).await);
    take(vec![history::check(&config).await]);
    let is_held = match store::is_held(&config) {
        Ok(is_held) => is_held,
        Err(err) => {
            take(vec![Finding::fail(
                "data",
                format!("{} cannot be opened: {err}", opened::journal_path(&config).display()),
                "run utmos doctor as the user that runs the server",
            )]);
            false
        }
    };
    take(ports::http(&config, is_held).await);
    match &config.mqtt {
        Mqtt::Embedded(broker) => take(broker::embedded(broker).await),
        Mqtt::External(broker) => take(broker::external(broker).await),
    }
    take(vec![ports::open_files(&config)]);
    output::line(match worst {
        Verdict::Fail => "Something must be mended first.",
        Verdict::Ok if is_held => {
            "It runs, and all is well. A second server cannot start on this data."
        }
        Verdict::Warn if is_held => {
            "It runs; see the warnings. A second server cannot start on this data."
        }
        Verdict::Ok => "All is well.",
        Verdict::Warn => "It will run; see the warnings.",
    });
    Ok(if worst == Verdict::Fail { Exit::Failure } else { Exit::Done })
}

fn catalogue(config: &utmos_server::config::Config) -> Finding {
    match opened::catalogue(config) {
        Ok(catalogue) => {
            Finding::ok("catalogue", format!("{} methods", catalogue.methods().count()))
        }
        Err(err) => Finding::fail(
            "catalogue",
            format!("{err:#}"),
            "mend the file, or empty catalogue.override_file",
        ),
    }
}

fn tell(finding: &Finding) {
    output::line(format_args!(
        "{:<5}{:<15}{}",
        finding.verdict.word(),
        finding.subject,
        finding.text
    ));
    if !finding.remedy.is_empty() {
        output::line(format_args!("{:<20}→ {}", "", finding.remedy));
    }
}
