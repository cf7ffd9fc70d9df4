//! PostgreSQL: a cluster of its own, on the disk that is measured, syncing every commit as it does by default.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    net::SocketAddr,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, getuid, kill_process};
use tokio::time::{Instant, sleep};

use crate::command::bench::child::free_address;

/// The user of the database.
const ROLE: &str = "utmos";
const DATABASE: &str = "postgres";
const START_WAIT: Duration = Duration::from_secs(60);
/// Where Debian puts the versions it has.
const DEBIAN: &str = "/usr/lib/postgresql";

pub struct Postgres {
    /// The process that all others of it come from.
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Postgres {
    /// Makes a cluster and starts it. Beside `dir` and not in it: another user has to reach it where this program is root's.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        let programs = Programs::find()?;
        let folder = beside(dir)?;
        let made = Self::make(&programs, &folder).await;
        if made.is_err() {
            drop(fs::remove_dir_all(&folder));
        }
        made
    }

    async fn make(programs: &Programs, folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir(folder)
            .with_context(|| format!("the folder {} cannot be made", folder.display()))?;
        if let Some((user, group)) = programs.owner {
            chown(folder, Some(user), Some(group))?;
        }
        let data = folder.join("data");
        let made = programs
            .run("initdb")
            .arg("-D")
            .arg(&data)
            .args(["--username", ROLE, "--auth=trust", "--encoding=UTF8", "--locale=C"])
            .args(["--no-sync", "--no-instructions"])
            .output()
            .context("initdb cannot be started")?;
        if !made.status.success() {
            bail!(
                "initdb failed in {}; it does not run as root, and its user must reach --data-dir: {}",
                folder.display(),
                String::from_utf8_lossy(&made.stderr).trim()
            );
        }
        let address = free_address()?;
        let config = format!(
            "listen_addresses = '{}'\nport = {}\nunix_socket_directories = ''\nmax_connections = 100\n",
            address.ip(),
            address.port()
        );
        let main = data.join("postgresql.conf");
        fs::File::options().append(true).open(&main)?.write_all(config.as_bytes())?;
        let log = folder.join("log");
        let child = programs
            .run("postgres")
            .arg("-D")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()
            .context("it cannot be started")?;
        let mut started = Self { child, address, folder: folder.to_owned() };
        let by = Instant::now() + START_WAIT;
        while !started.answers().await {
            if started.child.try_wait()?.is_some() || by < Instant::now() {
                let told = fs::read_to_string(&log).unwrap_or_default();
                bail!("it does not start: {}", told.trim());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(started)
    }

    async fn answers(&self) -> bool {
        tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await.is_ok()
    }

    pub fn url(&self) -> String {
        format!("postgres://{ROLE}@{}/{DATABASE}", self.address)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // At once: nothing in it is needed any more. Killed, it would leave its other processes behind.
        let told = kill_process(Pid::from_child(&self.child), Signal::QUIT);
        if told.is_err() {
            drop(self.child.kill());
        }
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// A folder whose way leads through none of the bench's own, which only their owner may enter.
fn beside(dir: &Path) -> anyhow::Result<PathBuf> {
    let own = |part: &Path| {
        let name = part.file_name().and_then(OsStr::to_str).unwrap_or_default();
        name.starts_with(super::super::FOLDER_START)
    };
    let own = dir.ancestors().find(|part| own(part)).context("a bench without a folder")?;
    let name = dir.strip_prefix(own)?.display().to_string().replace('/', "-");
    Ok(own.with_added_extension(format!("{name}-postgres")))
}

/// PostgreSQL's programs, and who may run them.
struct Programs {
    folder: PathBuf,
    /// It refuses to run as root.
    owner: Option<(u32, u32)>,
}

impl Programs {
    fn find() -> anyhow::Result<Self> {
        let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
        let installed = fs::read_dir(DEBIAN).into_iter().flatten().filter_map(|entry| {
            let path = entry.ok()?.path();
            path.join("bin/postgres").exists().then_some((version(&path)?, path.join("bin")))
        });
        let folder = installed.max().map(|(_, folder)| folder);
        let folder = folder.map_or_else(in_path, Ok)?;
        let owner = match getuid().is_root() {
            true => Some(owner()?),
            false => None,
        };
        Ok(Self { folder, owner })
    }

    fn run(&self, program: &str) -> Command {
        let program = self.folder.join(program);
        let mut command = match self.owner {
            None => Command::new(program),
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={user}")).arg(format!("--regid={group}"));
                command.arg("--clear-groups").arg(program);
                command
            }
        };
        command.current_dir("/");
        command
    }
}

fn in_path() -> anyhow::Result<PathBuf> {
    let said = Command::new("sh").args(["-c", "command -v postgres"]).output()?;
    let text = String::from_utf8(said.stdout)?;
    let folder = Path::new(text.trim()).parent().filter(|_| said.status.success());
    folder.map(Path::to_owned).context("it is not installed: apt-get install postgresql")
}

/// Whom it runs as where this program is root's.
fn owner() -> anyhow::Result<(u32, u32)> {
    let number = |kind: &str| {
        let said = Command::new("id").args([kind, "postgres"]).output()?;
        let text = String::from_utf8(said.stdout)?;
        text.trim().parse().context("it does not run as root, and there is no user postgres")
    };
    Ok((number("-u")?, number("-g")?))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn its_folder_lies_beside_the_one_that_only_we_may_enter() {
        let dir = Path::new("/disk/utmos-bench-7/run-1/mosquitto");
        let found = beside(dir).unwrap();
        assert_eq!(found, Path::new("/disk/utmos-bench-7.run-1-mosquitto-postgres"));
        assert!(beside(Path::new("/disk/run-1")).is_err());
    }
}
