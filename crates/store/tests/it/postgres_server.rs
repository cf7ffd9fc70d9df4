//! A PostgreSQL of the tests' own: its data in a temporary folder, on an address of this machine that nobody else uses.
//!
//! It ends with the test process however that ends: a shell waits for the end of a pipe that only this process holds, then
//! stops the server and removes its folder. Other crates' tests use this file by its path.

use std::{
    ffi::OsStr,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
};

/// The user of the database.
const ROLE: &str = "utmos";
/// Seconds that PostgreSQL may take to start or stop on a busy machine.
const PATIENCE: &str = "120";

/// A running server.
pub struct PostgresServer {
    programs: Programs,
    folder: PathBuf,
    address: Ipv4Addr,
    /// Reads from this process, and cleans up when that ends.
    keeper: Option<Child>,
}

/// A database on a server, empty at first.
#[derive(Debug, Clone)]
pub struct Database {
    address: Ipv4Addr,
    name: String,
    psql: PathBuf,
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy)]
pub enum Stop {
    /// Connections are ended, what is under way is undone, all is written.
    Fast,
    /// As a crash of the server.
    Immediate,
}

impl PostgresServer {
    /// The one that the tests of a process share. Nothing is synced to the disk, so that it is quick.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<PostgresServer> = LazyLock::new(|| {
            PostgresServer::start("fsync = off\nfull_page_writes = off\nsynchronous_commit = on\n")
        });
        &SHARED
    }

    /// One that a test may stop, restart and fill. It syncs what it commits.
    pub fn own() -> Self {
        Self::own_with("")
    }

    /// The same, with more lines of its configuration.
    pub fn own_with(settings: &str) -> Self {
        Self::start(settings)
    }

    fn start(settings: &str) -> Self {
        let programs = Programs::find();
        let folder = tempfile::Builder::new().prefix("utmos-postgres-").tempdir().unwrap().keep();
        if let Some((uid, gid)) = programs.owner {
            std::os::unix::fs::chown(&folder, Some(uid), Some(gid)).unwrap();
        }
        let address = own_address();
        let mut server = Self { programs, folder, address, keeper: None };
        server.keeper = Some(server.keep());
        let data = server.data();
        let mut make = server.programs.run("initdb");
        make.arg("-D").arg(&data).args(["--username", ROLE, "--auth=trust", "--encoding=UTF8"]);
        succeed(make.args(["--locale=C", "--no-sync", "--no-instructions"]));
        let config = format!(
            "listen_addresses = '{address}'\nport = 5432\nunix_socket_directories = ''\nmax_connections = 300\n\
             shared_buffers = 64MB\ntimezone = 'UTC'\nlog_line_prefix = '%m [%p] %d '\n{settings}\n"
        );
        std::fs::write(server.folder.join("more.conf"), config).unwrap();
        let main = data.join("postgresql.conf");
        let mut text = std::fs::read_to_string(&main).unwrap();
        text.push_str(&format!("include '{}'\n", server.folder.join("more.conf").display()));
        std::fs::write(&main, text).unwrap();
        server.begin();
        server
    }

    /// Cleans up when this process is gone.
    fn keep(&self) -> Child {
        use std::os::unix::process::CommandExt;
        let script = r#"cat >/dev/null; "$1" -D "$2/data" -m immediate -t 30 stop >/dev/null 2>&1; rm -rf "$2""#;
        let mut keeper = self.programs.as_owner("sh");
        keeper
            .args(["-c", script, "keeper"])
            .arg(self.programs.path("pg_ctl"))
            .arg(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Not ended by the key that ends the tests.
            .process_group(0)
            .spawn()
            .unwrap()
    }

    /// Where it keeps everything.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What the server has to say.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Starts it where it was stopped.
    pub fn begin(&self) {
        let log = self.folder.join("log");
        let mut start = self.programs.run("pg_ctl");
        start.arg("-D").arg(self.data()).args(["-w", "-t", PATIENCE, "-s", "-l"]).arg(log);
        let started = start.arg("start").stdin(Stdio::null()).stdout(Stdio::null()).status();
        assert!(started.unwrap().success(), "PostgreSQL does not start: {}", self.log());
    }

    /// Stops it.
    pub fn stop(&self, how: Stop) {
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        let mut stop = self.programs.run("pg_ctl");
        stop.arg("-D").arg(self.data()).args(["-w", "-t", PATIENCE, "-s", "-m", mode, "stop"]);
        assert!(stop.status().unwrap().success(), "PostgreSQL does not stop: {}", self.log());
    }

    /// Makes an empty database.
    pub fn database(&self) -> Database {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.server_wide().sql(&format!("CREATE DATABASE {name} TEMPLATE template0"));
        self.named(&name)
    }

    /// A database that is not made.
    pub fn named(&self, name: &str) -> Database {
        let psql = self.programs.path("psql");
        Database { address: self.address, name: name.to_owned(), psql }
    }

    fn server_wide(&self) -> Database {
        self.named("postgres")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _gone = keeper.wait();
        }
    }
}

impl Database {
    /// The address of its server.
    pub fn address(&self) -> SocketAddr {
        (self.address, 5432).into()
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("postgres://{ROLE}@{}:5432/{}", self.address, self.name)
    }

    /// Does this past the store, and answers what `psql` prints: a line for each row, cells between `|`.
    pub fn sql(&self, text: &str) -> String {
        let said = self.psql().args(["-c", text]).output().unwrap();
        let wrong = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "{text}: {wrong}");
        String::from_utf8(said.stdout).unwrap().trim_end().to_owned()
    }

    /// Begins to do this, and does not wait for its end.
    pub fn psql_in_the_background(&self, text: &str) -> Child {
        self.psql().args(["-c", text]).stdout(Stdio::null()).spawn().unwrap()
    }

    /// Ends every connection to it but this one, in the middle of whatever they do.
    pub fn end_connections(&self) -> usize {
        let ended = self.sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
        ended.parse().unwrap()
    }

    /// Everything in it, as text and as it would be restored.
    pub fn dump(&self) -> String {
        let mut dump = Command::new(self.psql.with_file_name("pg_dump"));
        let said = dump.args(["--data-only", "--inserts", "-d", &self.url()]).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap()
    }

    fn psql(&self) -> Command {
        let mut psql = Command::new(&self.psql);
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url()]);
        psql
    }
}

/// PostgreSQL's programs, and who may run them.
struct Programs {
    folder: PathBuf,
    /// PostgreSQL refuses to run as root.
    owner: Option<(u32, u32)>,
}

impl Programs {
    fn find() -> Self {
        let debian = Path::new("/usr/lib/postgresql");
        let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
        let installed = std::fs::read_dir(debian).into_iter().flatten().filter_map(|entry| {
            let path = entry.ok()?.path();
            path.join("bin/postgres").exists().then_some((version(&path)?, path.join("bin")))
        });
        let in_path = || {
            let paths = std::env::var_os("PATH")?;
            std::env::split_paths(&paths).find(|folder| folder.join("postgres").exists())
        };
        let folder = installed.max().map(|(_, folder)| folder).or_else(in_path);
        let Some(folder) = folder else {
            panic!("PostgreSQL is not installed; run: apt-get install -y postgresql")
        };
        let number = |args: &[&str]| {
            let said = Command::new("id").args(args).output().unwrap();
            said.status
                .success()
                .then(|| String::from_utf8(said.stdout).unwrap())?
                .trim()
                .parse()
                .ok()
        };
        let of = |name| Some((number(&["-u", name])?, number(&["-g", name])?));
        let is_root = number(&["-u"]) == Some(0);
        let owner = is_root.then(|| of("postgres").or_else(|| of("nobody")).unwrap());
        Self { folder, owner }
    }

    fn path(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }

    fn run(&self, program: &str) -> Command {
        self.as_owner(self.path(program))
    }

    fn as_owner(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self.owner {
            None => Command::new(program),
            Some((uid, gid)) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}"));
                command.arg("--clear-groups").arg(program);
                command
            }
        };
        command.current_dir("/");
        command
    }
}

fn succeed(command: &mut Command) {
    let said = command.output().unwrap();
    assert!(said.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said.stderr));
}

/// An address that no other test of any process uses, so that ports need no lottery.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 0x80, low, NEXT.fetch_add(1, Ordering::Relaxed))
}
