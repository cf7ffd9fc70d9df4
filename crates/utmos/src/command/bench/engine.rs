//! What stands around the server: the broker and the database inside it, or others, in processes of the bench's own.

mod mosquitto;
mod postgres;

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::Context;

use self::{mosquitto::Mosquitto, postgres::Postgres};
use super::{child::Place, machine};

/// What the server works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Engine {
    /// The embedded broker and SQLite
    Embedded,
    /// Mosquitto and SQLite
    Mosquitto,
    /// Mosquitto and PostgreSQL
    Postgres,
}

/// Which of them are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// The embedded broker and SQLite
    Embedded,
    /// Mosquitto and SQLite
    Mosquitto,
    /// Mosquitto and PostgreSQL
    Postgres,
    /// Each of them in turn, side by side
    All,
}

impl Choice {
    pub fn engines(self) -> &'static [Engine] {
        match self {
            Self::Embedded => &[Engine::Embedded],
            Self::Mosquitto => &[Engine::Mosquitto],
            Self::Postgres => &[Engine::Postgres],
            Self::All => &[Engine::Embedded, Engine::Mosquitto, Engine::Postgres],
        }
    }
}

impl Engine {
    /// Its name in arguments and in the JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Mosquitto => "mosquitto",
            Self::Postgres => "postgres",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Embedded => "embedded broker + SQLite",
            Self::Mosquitto => "Mosquitto + SQLite",
            Self::Postgres => "Mosquitto + PostgreSQL",
        }
    }
}

/// An engine, and how many servers share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    pub engine: Engine,
    pub servers: u32,
}

impl Kind {
    pub fn of(engine: Engine, servers: u32) -> Self {
        Self { engine, servers }
    }

    /// For people.
    pub fn title(self) -> String {
        match self.servers {
            1 => self.engine.title().to_owned(),
            several => format!("{}, {several} servers", self.engine.title()),
        }
    }
}

/// The processes beside a server. They end with this.
pub struct Around {
    mosquitto: Option<Mosquitto>,
    postgres: Option<Postgres>,
}

impl Around {
    /// Starts what an engine needs, on free ports, with its files in `dir`.
    pub async fn start(engine: Engine, dir: &Path) -> anyhow::Result<Self> {
        let mosquitto = match engine {
            Engine::Embedded => None,
            Engine::Mosquitto | Engine::Postgres => {
                Some(Mosquitto::start(dir).await.context("Mosquitto")?)
            }
        };
        let postgres = match engine {
            Engine::Embedded | Engine::Mosquitto => None,
            Engine::Postgres => Some(Postgres::start(dir).await.context("PostgreSQL")?),
        };
        Ok(Self { mosquitto, postgres })
    }

    /// Has a server work with them.
    pub fn serve(&self, place: &mut Place) {
        if let Some(mosquitto) = &self.mosquitto {
            place.meet_at(mosquitto.address);
        }
        if let Some(postgres) = &self.postgres {
            place.set(format!("store.url={}", postgres.url()));
        }
    }

    /// The broker, where it is not inside the server.
    pub fn broker(&self) -> Option<SocketAddr> {
        self.mosquitto.as_ref().map(|mosquitto| mosquitto.address)
    }

    /// The database, where it is not SQLite.
    pub fn database(&self) -> Option<String> {
        self.postgres.as_ref().map(Postgres::url)
    }

    /// Processor time that they have used.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        Ok(self.cpu_of_broker()?.unwrap_or_default() + self.cpu_of_database()?.unwrap_or_default())
    }

    /// What the broker has used, where it is not inside the server.
    pub fn cpu_of_broker(&self) -> anyhow::Result<Option<Duration>> {
        self.mosquitto.as_ref().map(|it| machine::cpu_of_all(it.id())).transpose()
    }

    /// What the database has used, where it is not SQLite.
    pub fn cpu_of_database(&self) -> anyhow::Result<Option<Duration>> {
        self.postgres.as_ref().map(|it| machine::cpu_of_all(it.id())).transpose()
    }

    /// Bytes that they have caused to be written to the disk.
    pub fn written(&self) -> anyhow::Result<u64> {
        let mosquitto = self.mosquitto.as_ref().map(Mosquitto::id);
        let postgres = self.postgres.as_ref().map(Postgres::id);
        mosquitto.into_iter().chain(postgres).map(machine::written_by_all).sum()
    }

    /// Whether there is anything beside the server.
    pub fn is_some(&self) -> bool {
        self.mosquitto.is_some() || self.postgres.is_some()
    }
}
