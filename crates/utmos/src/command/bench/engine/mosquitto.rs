//! Mosquitto: open to everybody on this machine, keeping nothing.

use std::{
    fs::File,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::command::bench::child::free_address;

/// Where Debian puts it; other systems have it in the path.
const DEBIAN: &str = "/usr/sbin/mosquitto";
const START_WAIT: Duration = Duration::from_secs(30);

pub struct Mosquitto {
    child: Child,
    pub address: SocketAddr,
}

impl Mosquitto {
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        let address = free_address()?;
        let (file, log) = (dir.join("mosquitto.conf"), dir.join("mosquitto.log"));
        // Nagle's wait for company costs 40 ms a message. What waits for a client in flight has no bound, as at the broker
        // inside the server, which answers for its own.
        let text = format!(
            "listener {} {}\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\nmax_inflight_messages 0\n",
            address.port(),
            address.ip()
        );
        std::fs::write(&file, text)?;
        let program = if Path::new(DEBIAN).exists() { DEBIAN } else { "mosquitto" };
        let child = Command::new(program)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("it cannot be started; is it installed? apt-get install mosquitto")?;
        let mut started = Self { child, address };
        let by = Instant::now() + START_WAIT;
        while TcpStream::connect(address).await.is_err() {
            if started.child.try_wait()?.is_some() || by < Instant::now() {
                let told = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("it does not start: {}", told.trim());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(started)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
