//! `utmos store`: looks at the whole database, copies it, brings it up to date, or takes it elsewhere.

mod export;
mod import;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Subcommand;
use utmos_server::config::Config;
use utmos_store::{Examination, PostgresConfig, PostgresStore, WeeksTidied};

use crate::{
    exit::Exit,
    opened, output,
    settings::{ConfigArgs, Purpose},
    time::now,
};

/// What to do with the database.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Read every page and index, and hold the tables against each other; changes nothing
    ///
    /// Works beside a running server. Exit code 0: nothing is wrong; 1: something is, or it cannot be read.
    Check {
        /// The database [default: that of the configuration]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Bring the schema of a PostgreSQL database up to date, as the first server to start would do
    Migrate {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Take a SQLite database over into the PostgreSQL database of the configuration, with every server stopped
    ///
    /// Stopped in the middle, it goes on when it is run again. In the end everything is compared.
    Import {
        /// The SQLite database [default: that in the data folder]
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Take the PostgreSQL database of the configuration back into a new SQLite file, with every server stopped
    ///
    /// No server opens the PostgreSQL database from then on. Stopped in the middle, it goes on when it is run again. In the end
    /// everything is compared.
    Export {
        /// The SQLite file; one that is there is refused [default: that in the data folder]
        #[arg(long, value_name = "FILE")]
        into: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Make the coming weeks of a PostgreSQL database, and drop old ones with their commands
    ///
    /// Works beside running servers, which do the same by themselves where store.commands_keep_days is set; else to be run
    /// once a day. A week in which something is unended stays.
    Tidy {
        /// Weeks that ended more than so many days ago go
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        older_than: u32,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Copy the database as it is at this moment into a new file, while the server runs or not
    Backup {
        /// The new file; one that is there is refused
        #[arg(value_name = "FILE")]
        into: PathBuf,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// Runs it.
pub async fn run(action: &Action) -> anyhow::Result<Exit> {
    match action {
        Action::Check { file: Some(file), .. } => check(file),
        Action::Check { file: None, config } => {
            let config = config.load(Purpose::Work)?.config;
            match opened::postgres(&config)? {
                Some(postgres) => check_postgres(&postgres).await,
                None => check(&config.store.path),
            }
        }
        Action::Migrate { config } => migrate(&config.load(Purpose::Work)?.config).await,
        Action::Import { from, config } => {
            import::run(from.as_deref(), &config.load(Purpose::Work)?.config).await
        }
        Action::Export { into, config } => {
            export::run(into.as_deref(), &config.load(Purpose::Work)?.config).await
        }
        Action::Tidy { older_than, config } => {
            tidy(*older_than, &config.load(Purpose::Work)?.config).await
        }
        Action::Backup { into, config } => {
            let config = config.load(Purpose::Work)?.config;
            if config.store.postgres.is_some() {
                bail!("store.url names a PostgreSQL database; copy it with: pg_dump");
            }
            back_up(&config.store.path, into)
        }
    }
}

async fn migrate(config: &Config) -> anyhow::Result<Exit> {
    let Some(postgres) = opened::postgres(config)? else {
        bail!(
            "a SQLite database is brought up to date by the server that opens it; only PostgreSQL needs this"
        );
    };
    PostgresStore::migrate(&postgres).await?;
    output::line(format_args!("{} is up to date", postgres.url));
    Ok(Exit::Done)
}

async fn tidy(days: u32, config: &Config) -> anyhow::Result<Exit> {
    let Some(postgres) = opened::postgres(config)? else {
        bail!("a SQLite database keeps every command; only PostgreSQL keeps them by week");
    };
    let keep = Duration::from_hours(24) * days;
    let WeeksTidied { dropped, needed, busy, is_under_way } =
        PostgresStore::tidy_weeks(&postgres, now(), keep).await?;
    if is_under_way {
        bail!("another program or server is dropping weeks of this database; run it again later");
    }
    output::line(format_args!("weeks dropped: {dropped}"));
    if needed > 0 {
        output::line(format_args!("weeks kept, since something in them is not ended: {needed}"));
    }
    if busy > 0 {
        output::line(format_args!(
            "weeks left for the next time, since others were at work: {busy}"
        ));
    }
    Ok(Exit::Done)
}

async fn check_postgres(postgres: &PostgresConfig) -> anyhow::Result<Exit> {
    PostgresStore::check(postgres).await?;
    let found = PostgresStore::examine(postgres).await?;
    tell(&postgres.url, &found);
    if found.faults.is_empty() {
        output::line("Nothing is wrong with it.");
        return Ok(Exit::Done);
    }
    output::line(
        "Its tables contradict each other. Stop the servers and restore the backup: docs/postgresql.md",
    );
    Ok(Exit::Failure)
}

fn tell(database: &dyn std::fmt::Display, found: &Examination) {
    let count = |count: Option<i64>| {
        count.map_or_else(|| "unreadable".to_owned(), |count| count.to_string())
    };
    let (commands, open) = (count(found.commands), count(found.open));
    output::line(format_args!("{database}: {commands} commands, {open} open"));
    for fault in &found.faults {
        output::line(format_args!("  {}", fault.replace('\n', " ")));
    }
    if let Some(older) = found.older {
        output::line(format_args!(
            "Its schema ({older}) is of an older program, so only its pages were looked at; the next start brings it up to date."
        ));
    }
}

fn check(path: &Path) -> anyhow::Result<Exit> {
    must_be_there(path)?;
    let found = utmos_store::examine(path)?;
    tell(&path.display(), &found);
    if found.faults.is_empty() {
        output::line("Nothing is wrong with it.");
        return Ok(Exit::Done);
    }
    output::line(
        "It is damaged. Stop the server, keep the files, and restore the backup or save what can be read: docs/recovery.md",
    );
    Ok(Exit::Failure)
}

fn back_up(path: &Path, into: &Path) -> anyhow::Result<Exit> {
    must_be_there(path)?;
    utmos_store::back_up(path, into)
        .with_context(|| format!("{} was not copied to {}", path.display(), into.display()))?;
    output::line(format_args!(
        "copied to {}; the master key is not in it, keep that in another place",
        into.display()
    ));
    Ok(Exit::Done)
}

fn must_be_there(path: &Path) -> anyhow::Result<()> {
    std::fs::metadata(path)
        .map(drop)
        .with_context(|| format!("the database {} cannot be read", path.display()))
}
