//! Where a race is held: one server or several, and what stands around them.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::Context;

use super::super::{
    child::{Place, Server},
    engine::{Around, Engine},
};
use crate::opened;

/// The places of servers. The first is that of the only one, where there is one.
pub struct Site {
    places: Vec<Place>,
    around: Around,
}

/// The running servers of a site.
pub struct Servers(Vec<Server>);

impl Site {
    /// So many servers of an engine, each in a folder of its own in `dir`, which share whatever is not inside of them.
    pub async fn new(engine: Engine, servers: usize, dir: &Path) -> anyhow::Result<Self> {
        let around = Around::start(engine, dir).await?;
        let mut site = Self { places: Vec::new(), around };
        for number in 0..servers.max(1) {
            let folder = match number {
                0 => dir.to_owned(),
                number => dir.join(format!("server-{}", number + 1)),
            };
            opened::make_folder(&folder)?;
            let mut place = Place::new(&folder)?;
            site.around.serve(&mut place);
            if let Some(first) = site.places.first() {
                place.share_with(first)?;
            }
            site.places.push(place);
        }
        Ok(site)
    }

    /// Has servers and docks meet at a broker that somebody else runs.
    pub fn meet_at(&mut self, broker: SocketAddr) {
        self.places.iter_mut().for_each(|place| place.meet_at(broker));
    }

    /// Puts a file into every server's folder, and has a setting name it.
    pub fn give(&mut self, setting: &str, name: &str, text: &str) -> anyhow::Result<()> {
        for place in &mut self.places {
            let file = place.file(name);
            std::fs::write(&file, text)
                .with_context(|| format!("{} cannot be written", file.display()))?;
            place.set(format!("{setting}={name}"));
        }
        Ok(())
    }

    /// The place of the first server, whose database is that of all.
    pub fn first(&self) -> anyhow::Result<&Place> {
        self.places.first().context("a race without a server")
    }

    /// Where each server is asked.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.places.iter().map(|place| place.http).collect()
    }

    /// How many servers there are.
    pub fn servers(&self) -> usize {
        self.places.len()
    }

    /// The broker that lives on without a server, where one of the race's own does.
    pub fn broker(&self) -> Option<SocketAddr> {
        self.around.broker()
    }

    /// Processor time that is not the servers'.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        self.around.cpu()
    }

    /// Starts all servers and waits until each is ready and has its part of the gateways.
    pub async fn start(&self) -> anyhow::Result<Servers> {
        let mut all = Vec::new();
        for place in &self.places {
            all.push(place.start().await?.server);
        }
        if let servers @ 2.. = self.places.len() {
            self.first()?.shared_by(u32::try_from(servers)?).await?;
        }
        Ok(Servers(all))
    }

    /// Starts one of them that was killed; answers how long it took.
    pub async fn start_again(&self, number: usize, all: &mut Servers) -> anyhow::Result<Duration> {
        let place = self.places.get(number).context("no such server")?;
        let started = place.start().await.context("after it was killed")?;
        *all.0.get_mut(number).context("no such server")? = started.server;
        Ok(started.took)
    }
}

impl Servers {
    /// Processor time that those who run have used.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        self.0.iter().map(Server::cpu).sum()
    }

    /// Kills one; answers the processor time it had used.
    pub fn kill(&mut self, number: usize) -> anyhow::Result<Duration> {
        let server = self.0.get_mut(number).context("no such server")?;
        let cpu = server.cpu()?;
        server.kill()?;
        Ok(cpu)
    }

    /// Ends all of them as an operator would.
    pub async fn stop(self) -> anyhow::Result<()> {
        for server in self.0 {
            server.stop().await?;
        }
        Ok(())
    }
}
