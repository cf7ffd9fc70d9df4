//! The program in a process of its own, which can be killed.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

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
        let mut command = Command::new(env!("CARGO_BIN_EXE_utmos"));
        command.arg("serve").current_dir(self.path("")).env_clear();
        for assignment in self.assignments() {
            command.args(["--set", &assignment]);
        }
        command.envs(crash_point.map(|point| ("CRASH_POINT", point)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (tell, stage) = watch::channel(Stage::Starting);
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, kept) = (child.stderr.take().unwrap(), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let has_started = line.starts_with(STARTED);
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
                if has_started {
                    tell.send_replace(Stage::Running);
                }
            }
            tell.send_replace(Stage::Gone);
        });
        let mut process = Process { child, log, stage };
        let stage = process.wait(|stage| stage != Stage::Starting).await;
        assert_eq!(stage, Stage::Running, "{}", process.log());
        process
    }
}

impl Process {
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

    /// `kill -9`.
    pub async fn kill(mut self) {
        self.child.kill().unwrap();
        self.died().await;
    }

    /// Waits until it has killed itself.
    pub async fn died(mut self) {
        self.wait(|stage| stage == Stage::Gone).await;
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(SIGKILL), "{status}: {}", self.log());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
