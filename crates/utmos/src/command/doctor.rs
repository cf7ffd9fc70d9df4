//! `utmos doctor`: looks at everything a server needs, changes nothing, and says what to do.

mod broker;
mod clock;
mod finding;
mod greeting;
mod history;
mod outside;
mod ports;
mod servers;
mod store;

use std::{fs, path::PathBuf};

use anyhow::Context;
use utmos_server::config::Mqtt;

use self::{
    finding::{Finding, Verdict},
    outside::Login,
};
use crate::{
    command::serve::{NO_APP, NO_APP_REMEDY},
    exit::Exit,
    opened, output,
    settings::{ConfigArgs, Purpose},
};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A second user of an outside broker, such as one of its docks: what it reaches of other devices is tried
    #[arg(long, value_name = "NAME")]
    as_user: Option<String>,
    /// File with its password
    #[arg(long, value_name = "FILE", requires = "as_user")]
    as_password_file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs it.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    let other = args.as_user.map(|username| login(username, args.as_password_file)).transpose()?;
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
        Mqtt::External(broker) => {
            let is_shared = config.store.postgres.is_some();
            let bytes_max = config.http.body_bytes_max;
            take(outside::check(broker, bytes_max, other.as_ref(), is_shared).await);
        }
    }
    take(vec![ports::open_files(&config)]);
    take(vec![app(&config)]);
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

fn login(username: String, file: Option<PathBuf>) -> anyhow::Result<Login> {
    let read = |file: &PathBuf| {
        fs::read_to_string(file)
            .with_context(|| format!("--as-password-file {} cannot be read", file.display()))
    };
    let password = file.as_ref().map(read).transpose()?;
    let password = password.map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
    Ok(Login { username, password })
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

fn app(config: &utmos_server::config::Config) -> Finding {
    if config.dji.has_app() {
        Finding::ok("dji app", "docks are told the app credentials they ask for")
    } else {
        Finding::warn("dji app", NO_APP, NO_APP_REMEDY)
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
