//! The program in a process of its own, which can be killed.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

use crate::{api::PATIENCE, place::Place};

/// Printed when everything is started.
const STARTED: &str = "data in ";
const SIGKILL: i32 = 9;

pub struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    stage: watch::Receiver<Stage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Starting,
    Running,
    Gone,
}

impl Place {
    /// `utmos serve` at this place. It kills itself at `crash_point`, if there is one.
    pub async fn spawn(&self, crash_point: Option<&str>) -> Process {
        let mut command = self.serve();
        command.envs(crash_point.map(|point| ("CRASH_POINT", point)));
        Process::start(command).await
    }

    /// What starts the server at this place, to be changed before it is run.
    pub fn serve(&self) -> Command {
        let mut command = self.utmos(&["serve"]);
        for assignment in self.assignments() {
            command.args(["--set", &assignment]);
        }
        command
    }

    /// The program at this place.
    pub fn utmos(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_utmos"));
        command.args(arguments).current_dir(self.path("")).env_clear();
        command.stdin(Stdio::null());
        command
    }

    /// What a server says that must not start here.
    pub async fn refuses_to_start(&self) -> String {
        Process::refuses(self.serve()).await
    }
}

impl Process {
    /// Starts a server and waits until it has started.
    pub async fn start(command: Command) -> Self {
        let mut process = Self::run(command);
        let stage = process.wait(|stage| stage != Stage::Starting).await;
        assert_eq!(stage, Stage::Running, "{}", process.log());
        process
    }

    /// What a server says that must not start.
    pub async fn refuses(command: Command) -> String {
        let mut process = Self::run(command);
        let stage = process.wait(|stage| stage != Stage::Starting).await;
        assert_eq!(stage, Stage::Gone, "it started: {}", process.log());
        let status = process.child.wait().unwrap();
        assert_eq!(status.code(), Some(1), "{status}: {}", process.log());
        process.log()
    }

    /// A server that may be killed on its way: `None` when it was.
    pub async fn starts_or_dies(command: Command) -> Option<Self> {
        let mut process = Self::run(command);
        match process.wait(|stage| stage != Stage::Starting).await {
            Stage::Gone => {
                process.died().await;
                None
            }
            Stage::Starting | Stage::Running => Some(process),
        }
    }

    fn run(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (tell, stage) = watch::channel(Stage::Starting);
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, kept) = (child.stderr.take().unwrap(), log.clone());
        let mut copy = std::env::var_os("DRILL_LOGS").map(|folder| {
            let file = std::path::Path::new(&folder).join(format!("{}.log", child.id()));
            std::fs::File::create(file).unwrap()
        });
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let has_started = line.starts_with(STARTED);
                if let Some(copy) = &mut copy {
                    writeln!(copy, "{line}").unwrap();
                }
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
                if has_started {
                    tell.send_replace(Stage::Running);
                }
            }
            tell.send_replace(Stage::Gone);
        });
        Self { child, log, stage }
    }

    async fn wait(&mut self, holds: impl Fn(Stage) -> bool) -> Stage {
        let wait = self.stage.wait_for(|stage| holds(*stage));
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(stage) => *stage.unwrap(),
            Err(_) => panic!("the process does not come so far: {}", self.log.lock().unwrap()),
        }
    }

    /// Everything it has written.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// What it holds of the machine's memory, in MiB.
    pub fn memory_mib(&self) -> u64 {
        memory_kib(self.child.id(), "VmRSS:") / 1024
    }

    /// How many sockets it has open.
    pub fn sockets(&self) -> usize {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let is_socket = |path: std::path::PathBuf| {
            std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
        };
        files.filter(|file| is_socket(file.as_ref().unwrap().path())).count()
    }

    /// `kill -9`.
    pub async fn kill(mut self) {
        self.child.kill().unwrap();
        self.died().await;
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, as a service is stopped. Answers what it has written.
    pub async fn stop(self) -> String {
        self.terminate();
        self.ends().await
    }

    /// SIGTERM, and no wait.
    pub fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Waits until it has ended as it should. Answers what it has written.
    pub async fn ends(mut self) -> String {
        self.wait(|stage| stage == Stage::Gone).await;
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{status}: {}", self.log());
        self.log()
    }

    /// Waits until it has killed itself.
    pub async fn died(mut self) {
        self.wait(|stage| stage == Stage::Gone).await;
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(SIGKILL), "{status}: {}", self.log());
    }
}

/// The most that a process has ever held of the machine's memory.
pub fn peak_memory_bytes(id: u32) -> u64 {
    memory_kib(id, "VmHWM:") * 1024
}

fn memory_kib(id: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Has a command run by another one, which runs what it is told at its end.
pub fn run_by(mut other: Command, command: &Command) -> Command {
    other.arg(command.get_program()).args(command.get_args()).env_clear();
    other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    other.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    other.current_dir(command.get_current_dir().unwrap()).stdin(Stdio::null());
    other
}

/// Asks again and again until it is so.
pub async fn until(otherwise: &str, mut holds: impl AsyncFnMut() -> bool) {
    let ask = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, ask).await.is_ok(), "{otherwise}");
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
