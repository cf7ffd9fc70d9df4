//! `utmos serve --demo`: what it prints works as printed.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Child, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::shell::{PROGRAM, Shell, run};

/// A running demo. Ended when it is dropped, however the test ends.
pub struct Demo {
    child: Child,
    introduction: Vec<String>,
}

impl Demo {
    fn start(shell: &Shell) -> Self {
        Self::start_with(shell, &[])
    }

    /// With more arguments.
    pub fn start_with(shell: &Shell, more: &[&str]) -> Self {
        let mut command = shell.command(PROGRAM);
        command.args([
            "serve",
            "--demo",
            "--http-listen",
            "127.0.0.1:0",
            "--mqtt-listen",
            "127.0.0.1:0",
        ]);
        command.args(more);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let introduction: Vec<String> =
            lines.take_while(|line| !line.starts_with("Ctrl-C ends it")).collect();
        Self { child, introduction }
    }

    /// The indented lines that follow the one that ends like this.
    pub fn lines_after(&self, end: &str) -> String {
        let after = self.introduction.iter().skip_while(|line| !line.ends_with(end)).skip(2);
        after.take_while(|line| !line.is_empty()).cloned().collect::<Vec<_>>().join("\n")
    }

    fn value(&self, name: &str) -> String {
        let lines = self.introduction.iter().filter_map(|line| line.trim().strip_prefix(name));
        lines.map(|value| value.trim().to_owned()).next().unwrap()
    }

    /// Host and port of what it names so.
    pub fn address(&self, name: &str) -> String {
        let told = self.value(name);
        let address = told.split_whitespace().next().unwrap();
        address.trim_start_matches("http://").to_owned()
    }

    pub fn stop(mut self) -> Option<i32> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn the_lines_the_demo_prints_work_as_printed() {
    let shell = Shell::new();
    let demo = Demo::start(&shell);
    let pasted = |end: &str| {
        let line = demo.lines_after(end);
        assert!(!line.is_empty(), "{:?}", demo.introduction);
        run(shell.command("sh").args(["-c", &line]))
    };
    let cover = pasted("open a cover …");
    assert_eq!(cover.code, 0, "{cover:?}");
    assert_eq!(cover.out.matches("SUCCEEDED").count(), 2, "{cover:?}");
    let flight = pasted("… fly …");
    assert_eq!(flight.code, 0, "{flight:?}");
    let curl = pasted("signed by openssl:");
    assert!(curl.out.contains("\"status\":\"ACCEPTED\""), "{curl:?}");
    assert_eq!(demo.stop(), Some(0));
}

#[test]
fn a_later_start_goes_on_with_the_credential_and_never_shows_its_key_again() {
    let shell = Shell::new();
    let first = Demo::start(&shell);
    let (api_id, key) = (first.value("API id"), first.value("API key"));
    assert_eq!(first.stop(), Some(0));
    let file = shell.path().join("utmos-demo/credential.env");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let second = Demo::start(&shell);
    assert_eq!(second.value("API id"), api_id);
    assert!(!second.introduction.iter().any(|line| line.contains(&key)));
    assert_eq!(second.stop(), Some(0));

    std::fs::remove_file(&file).unwrap();
    let third = Demo::start(&shell);
    assert_ne!(third.value("API id"), api_id);
    assert_eq!(third.stop(), Some(0));
    let listed = shell.json(["credential", "list", "--json", "--data-dir", "utmos-demo"]);
    let statuses: Vec<&str> =
        listed.as_array().unwrap().iter().map(|kept| kept["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["DISABLED", "ACTIVE"]);
}

#[test]
fn a_second_server_on_the_same_data_is_refused_and_leaves_the_first_alone() {
    let shell = Shell::new();
    let first = Demo::start(&shell);
    let before = shell.ok(["device", "list", "--json", "--data-dir", "utmos-demo"]);
    let second = shell.run([
        "serve",
        "--demo",
        "--http-listen",
        "127.0.0.1:0",
        "--mqtt-listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.err.contains("used by another server"), "{second:?}");
    assert_eq!(shell.ok(["device", "list", "--json", "--data-dir", "utmos-demo"]), before);
    assert_eq!(shell.run(["send", "SIM-DOCK-0001", "debug_mode_open"]).code, 0);
    assert_eq!(first.stop(), Some(0));
}

#[test]
fn the_doctor_says_that_a_server_has_the_data() {
    let shell = Shell::new();
    let demo = Demo::start(&shell);
    let doctor = |http: &str, mqtt: &str| {
        shell.run([
            "doctor",
            "--data-dir",
            "./utmos-demo",
            "--http-listen",
            http,
            "--mqtt-listen",
            mqtt,
        ])
    };
    let elsewhere = doctor("127.0.0.1:0", "127.0.0.1:0");
    assert_eq!(elsewhere.code, 1, "{elsewhere:?}");
    assert!(elsewhere.out.contains("another server has the data in ./utmos-demo"), "{elsewhere:?}");
    let (http, mqtt) = (demo.address("API"), demo.address("MQTT"));
    let itself = doctor(&http, &mqtt);
    assert_eq!(itself.code, 0, "{itself:?}");
    assert!(itself.out.contains("A second server cannot start on this data."), "{itself:?}");
    assert!(!itself.out.contains("It will run"), "{itself:?}");
    let other = shell.run(["doctor", "--http-listen", &http, "--mqtt-listen", "127.0.0.1:0"]);
    assert_eq!(other.code, 1, "{other:?}");
    assert!(other.out.contains("a server with other data answers"), "{other:?}");
    drop(demo);
}

#[test]
fn the_demo_registers_its_docks_on_record_and_takes_none_of_another_tenant() {
    let shell = Shell::new();
    for _ in 0..2 {
        assert_eq!(Demo::start(&shell).stop(), Some(0));
    }
    let in_demo = |arguments: &[&'static str]| {
        let all = arguments.iter().chain(&["--data-dir", "utmos-demo"]).copied();
        all.collect::<Vec<&str>>()
    };
    let lines = shell.json(in_demo(&["device", "history", "SIM-DOCK-0001", "--json"]));
    let told: Vec<_> = lines.as_array().unwrap().iter().map(|line| line["what"].clone()).collect();
    assert_eq!(told, ["password", "registered"], "{lines:#}");
    shell.ok(in_demo(&["tenant", "create", "other"]));
    shell.ok(in_demo(&["device", "move", "--sn", "SIM-DOCK-0001", "--tenant", "other"]));
    let refused = shell.run([
        "serve",
        "--demo",
        "--http-listen",
        "127.0.0.1:0",
        "--mqtt-listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("SIM-DOCK-0001 belongs to another tenant"), "{refused:?}");
}
