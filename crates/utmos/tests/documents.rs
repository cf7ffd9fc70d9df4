//! What the documents say is so: every example runs as it is printed, every key, command and link is there.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_utmos");
/// Longest to wait for a line of output.
const PATIENCE: Duration = Duration::from_secs(120);
/// The broker's address as the documents print it; a test has its own.
const MQTT: &str = "127.0.0.1:1883";
/// Stands in the documents for the demo's process id.
const PROCESS: &str = "kill -9 12345";
const DOCUMENTS: [&str; 19] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "docs/benchmarks.md",
    "docs/device-behaviour.md",
    "docs/device-requests.md",
    "docs/devices.md",
    "docs/drills.md",
    "docs/errors.md",
    "docs/events.md",
    "docs/outside-broker.md",
    "docs/postgresql.md",
    "docs/race.md",
    "docs/recovery.md",
    "docs/scale.md",
    "docs/simulator.md",
    "docs/states.md",
    "docs/telemetry.md",
    "docs/trials.md",
];

#[test]
fn every_signing_example_signs_every_published_vector() {
    let text = read("crates/core/data/signing_vectors.json");
    let published: Value = serde_json::from_str(&text).unwrap();
    let vectors = published["vectors"].as_array().unwrap();
    assert!(vectors.len() >= 12);
    let dir = tempfile::tempdir().unwrap();
    for vector in vectors {
        let text = |name: &str| vector[name].as_str().unwrap_or_default();
        let expected = format!("{}\n\n{}\n", text("string_to_sign"), text("signature"));
        let file = dir.path().join("vector.json");
        fs::write(&file, vector.to_string()).unwrap();
        for (program, example) in [("python3", "sign.py"), ("node", "sign.mjs")] {
            let printed = output(
                interpreter(program)
                    .arg(root().join("examples/signing").join(example))
                    .arg("--vector")
                    .stdin(fs::File::open(&file).unwrap()),
            );
            assert_eq!(printed, expected, "{example}: {}", text("name"));
        }
        let body = match vector["body"].as_str() {
            Some(body) => body.as_bytes().to_vec(),
            None => from_base64(text("body_base64")),
        };
        fs::write(dir.path().join("body"), body).unwrap();
        let query = vector["query"].as_str().map(|query| format!("?{query}")).unwrap_or_default();
        let printed = output(
            interpreter("bash")
                .arg(root().join("examples/signing/sign.sh"))
                .args(["--vector", text("method")])
                .arg(format!("https://utmos.example{}{query}", text("path")))
                .arg("@body")
                .env("UTMOS_API_ID", text("api_id"))
                .env("UTMOS_API_KEY", text("key"))
                .env("UTMOS_TIMESTAMP", vector["timestamp"].to_string())
                .env("UTMOS_NONCE", text("nonce"))
                .current_dir(dir.path()),
        );
        assert_eq!(printed, expected, "sign.sh: {}", text("name"));
    }
}

#[test]
fn every_signing_example_sends_a_command_and_reads_its_outcome() {
    let place = Place::new();
    let _demo = place.demo();
    let credential = place.credential();
    let commands = format!("{}/api/v1/open/downlink/commands", credential["UTMOS_URL"]);
    for (program, example) in [("bash", "sign.sh"), ("python3", "sign.py"), ("node", "sign.mjs")] {
        let call = |method: &str, url: &str, body: &[&str]| {
            let printed = output(
                place
                    .within(&mut interpreter(program))
                    .arg(root().join("examples/signing").join(example))
                    .args([method, url])
                    .args(body)
                    .envs(&credential),
            );
            serde_json::from_str::<Value>(&printed).unwrap()
        };
        let body = format!(
            r#"{{"vendor": "dji", "device_id": "SIM-DOCK-0002", "command_type": "debug_mode_open", "payload": {{}}, "idempotency_key": "größe {example}"}}"#
        );
        let created = call("POST", &commands, &[&body]);
        assert_eq!(created["status"], "ACCEPTED", "{example}: {created}");
        let id = created["command_id"].as_str().unwrap();
        let ended = call("GET", &format!("{commands}/{id}?wait=60"), &[]);
        assert_eq!(ended["status"], "SUCCEEDED", "{example}: {ended}");
        let page = call(
            "GET",
            &format!("{commands}?status=SUCCEEDED&limit=1&device_id=SIM-DOCK-0002"),
            &[],
        );
        assert_eq!(page["items"][0]["command_id"], id, "{example}: the query is signed sorted");
    }
}

#[test]
fn what_the_demo_prints_works_in_bash_as_printed() {
    let place = Place::new();
    let demo = place.demo();
    let pasted = |end: &str| {
        let after = demo.introduction.iter().skip_while(|line| !line.ends_with(end)).skip(2);
        let lines: Vec<&str> =
            after.take_while(|line| !line.is_empty()).map(String::as_str).collect();
        assert!(!lines.is_empty(), "nothing after {end:?} in {:?}", demo.introduction);
        output(place.within(&mut interpreter("bash")).args(["-ec", &lines.join("\n")]))
    };
    let created: Value = serde_json::from_str(&pasted("signed by openssl:")).unwrap();
    assert!(created["command_id"].is_string(), "{created}");
    assert!(pasted("open a cover …").contains("SUCCEEDED"));
    assert!(pasted("… fly …").starts_with("SUCCEEDED"));
}

/// Runs every block of README that says in which shell it belongs, and compares what it prints with what stands there.
#[test]
fn the_tour_works_as_printed() {
    let place = Place::new();
    let readme = read("README.md");
    let steps = tour(&readme);
    assert!(steps.len() > 12, "the tour's blocks are found");
    let mut shell = None;
    let mut demo: Option<Demo> = None;
    let mut docks: Option<Lines> = None;
    for step in steps {
        match step.shell {
            1 => {
                assert_eq!(step.script.trim(), "./demo");
                // The one before was killed by the tour itself.
                drop(demo.take());
                demo = Some(place.demo());
            }
            2 => {
                let pid = demo.as_ref().expect("shell 1 comes first").lines.child.id();
                let script = step.script.replace(PROCESS, &format!("kill -9 {pid}"));
                let shell = shell.get_or_insert_with(|| Shell::start(&place));
                let printed = shell.run(&script);
                check(&step, &printed);
            }
            3 => {
                let script = step.script.replace(MQTT, &place.mqtt.borrow());
                let mut command = interpreter("bash");
                command.args(["-c", &format!("exec {} 2>&1", script.trim())]);
                let mut lines = Lines::of(place.within(&mut command));
                lines.until(|line| line == "all docks are online");
                docks = Some(lines);
            }
            other => panic!("the tour has no shell {other}"),
        }
    }
    let mut docks = docks.expect("a dock of its own process");
    let told = docks.stop();
    let opened = told.iter().filter(|line| line.ends_with("← cover_open")).count();
    assert_eq!(opened, 1, "sent once over a kill -9: {told:#?}");
}

/// Runs every block of the simulator's manual that says in which shell it belongs.
#[test]
fn the_control_api_of_the_simulator_answers_as_printed() {
    const CONTROL: &str = "127.0.0.1:9100";
    let place = Place::new();
    let mut sim: Option<(Lines, String)> = None;
    let mut shell = None;
    for step in tour(&read("docs/simulator.md")) {
        if step.shell == 1 {
            // No broker is needed for what is shown.
            let script = step.script.replace(MQTT, "127.0.0.1:1");
            let script = script.replace(CONTROL, "127.0.0.1:0");
            let program = format!("exec target/release/{} 2>&1", script.trim());
            let mut command = interpreter("bash");
            command.args(["-c", &program]);
            let mut lines = Lines::of(place.within(&mut command));
            let told = lines.until(|line| line.starts_with("control API at http://"));
            let address = told.last().and_then(|line| line.rsplit('/').next()).expect("an address");
            let address = address.to_owned();
            sim = Some((lines, address));
        } else {
            let (_, address) = sim.as_ref().expect("shell 1 comes first");
            let shell = shell.get_or_insert_with(|| Shell::start(&place));
            let printed = shell.run(&step.script.replace(CONTROL, address));
            check(&step, &printed);
        }
    }
    let (mut lines, _) = sim.expect("the manual starts the simulator");
    assert!(lines.child.wait().unwrap().success(), "it was stopped by its last request");
}

/// Runs every block of the tour of device requests.
#[test]
fn the_tour_of_device_requests_works_as_printed() {
    const CONTROL: &str = "127.0.0.1:9100";
    let place = Place::new();
    let mut demo: Option<Demo> = None;
    let mut docks: Option<(Lines, String)> = None;
    let mut shell = None;
    let steps = tour(&read("docs/device-requests.md"));
    assert!(steps.len() > 6, "the tour's blocks are found");
    for step in steps {
        match step.shell {
            1 => demo = Some(place.demo()),
            2 => {
                assert!(demo.is_some(), "shell 1 comes first");
                let address = docks.as_ref().map_or(CONTROL, |(_, address)| address);
                let shell = shell.get_or_insert_with(|| Shell::start(&place));
                let printed = shell.run(&step.script.replace(CONTROL, address));
                check(&step, &printed);
            }
            3 => {
                let script = step.script.replace(MQTT, &place.mqtt.borrow());
                let script = script.replace(CONTROL, "127.0.0.1:0");
                let mut command = interpreter("bash");
                command.args(["-c", &format!("exec {} 2>&1", script.trim())]);
                let mut lines = Lines::of(place.within(&mut command));
                let mut told = lines.until(|line| line.starts_with("control API at http://"));
                let address = told.pop().expect("the line that was waited for");
                let address = address.rsplit('/').next().expect("an address").to_owned();
                if !lines.seen.iter().any(|line| line == "all docks are online") {
                    lines.until(|line| line == "all docks are online");
                }
                docks = Some((lines, address));
            }
            other => panic!("the tour has no shell {other}"),
        }
    }
}

#[test]
fn every_setting_is_in_the_readme_with_its_default() {
    let defaults: toml::Table = read("crates/server/data/utmos.default.toml").parse().unwrap();
    let mut expected = BTreeMap::new();
    collect("", &defaults, &mut expected);
    let readme = read("README.md");
    let table = readme.split("## Configuration").nth(1).unwrap().split("\n## ").next().unwrap();
    let printed: BTreeMap<String, String> = table
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split("` | `");
            let key = cells.next()?.to_owned();
            let default = cells.next()?.split("` | ").next()?.to_owned();
            Some((key, default))
        })
        .collect();
    assert_eq!(printed, expected);
}

#[test]
fn every_subcommand_the_documents_name_is_there() {
    let mut named = BTreeSet::new();
    for document in DOCUMENTS {
        for code in code_of(&read(document)) {
            for (at, _) in code.match_indices("utmos ") {
                let before = code[..at].chars().next_back();
                if before.is_none_or(|c| c.is_whitespace() || "/(|&".contains(c)) {
                    named.insert(words(&code[at + "utmos ".len()..]));
                }
            }
        }
    }
    assert!(named.len() > 10, "{named:?}");
    let groups = ["credential", "device", "tenant", "config"];
    for mut words in named.into_iter().filter(|words| !words.is_empty()) {
        words.truncate(if groups.contains(&words[0].as_str()) { 2 } else { 1 });
        let told = Command::new(PROGRAM).args(&words).arg("--help").output().unwrap();
        assert!(told.status.success(), "there is no utmos {}", words.join(" "));
    }
}

#[test]
fn every_test_that_holds_a_behaviour_of_devices_is_there() {
    let mut sources = String::new();
    let mut open = vec![root().join("crates")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
            if entry.is_dir() && name != "target" {
                open.push(entry);
            } else if name.ends_with(".rs") {
                sources.push_str(&fs::read_to_string(entry).unwrap());
            }
        }
    }
    let text = read("docs/device-behaviour.md");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split('|').map(str::trim).collect())
        .filter(|cells: &Vec<&str>| cells.get(1).is_some_and(|cell| cell.parse::<u32>().is_ok()))
        .collect();
    let numbers: Vec<u32> = rows.iter().map(|cells| cells[1].parse().unwrap()).collect();
    assert_eq!(numbers, (1..=21).collect::<Vec<_>>());
    for cells in rows {
        let tests: Vec<&str> = cells[3].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{} has no test", cells[1]);
        for test in tests {
            assert!(sources.contains(&format!("fn {test}(")), "{}: no test {test}", cells[1]);
        }
    }
}

#[test]
fn the_scale_plan_says_what_the_model_works_out() {
    let text = read("docs/scale.md");
    let broker = "threads of the broker, for telemetry";
    for (docks, threads, groups, machines, first) in [
        ("10000", "1", 1, 4, broker),
        ("1000000", "1", 89, 356, broker),
        ("1000000", "8", 49, 196, "disk of PostgreSQL"),
    ] {
        let mut model = Command::new(PROGRAM);
        let plan = ["bench", "capacity", "--json", "--docks", docks, "--broker-threads", threads];
        let answers: Value = serde_json::from_str(&output(model.args(plan))).unwrap();
        let several = &answers[2];
        assert_eq!((&several["groups"], &several["machines"]), (&groups.into(), &machines.into()));
        assert_eq!(several["first_limit"], first);
        let groups = format!("{groups} groups of two servers");
        assert!(groups.starts_with("1 ") || text.contains(&groups), "{groups}");
        assert!(text.contains(&format!("| {machines} |")), "{machines}");
    }
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    for document in DOCUMENTS {
        let text = read(document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http://") || target.starts_with("https://") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() {
                root().join(document)
            } else {
                root().join(document).parent().unwrap().join(path)
            };
            assert!(file.exists(), "{document}: {target}");
            if !anchor.is_empty() {
                let there = fs::read_to_string(&file).unwrap();
                let is_there = there
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| slug(line) == anchor);
                assert!(is_there, "{document}: {target}");
            }
        }
    }
}

/// A folder to run the examples in, with addresses of its own: free ones until the demo has started, then those.
struct Place {
    dir: TempDir,
    http: RefCell<String>,
    mqtt: RefCell<String>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Where the documents expect them.
        symlink(root().join("examples"), dir.path().join("examples")).unwrap();
        fs::create_dir_all(dir.path().join("target/release")).unwrap();
        symlink(PROGRAM, dir.path().join("target/release/utmos")).unwrap();
        let free = || RefCell::new("127.0.0.1:0".to_owned());
        Self { http: free(), mqtt: free(), dir }
    }

    fn within<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .current_dir(self.dir.path())
            .env("UTMOS_HTTP_LISTEN", &*self.http.borrow())
            .env("UTMOS_MQTT_EMBEDDED_LISTEN", &*self.mqtt.borrow())
    }

    /// The demo, as soon as it has introduced itself.
    fn demo(&self) -> Demo {
        let mut command = Command::new("target/release/utmos");
        let mut lines = Lines::of(self.within(&mut command).args(["serve", "--demo"]));
        let introduction = lines.until(|line| line.starts_with("Ctrl-C ends it"));
        // A later start must listen where the clients of the first come back to.
        for (name, address) in [("API", &self.http), ("MQTT", &self.mqtt)] {
            let told = introduction.iter().find_map(|line| line.trim().strip_prefix(name));
            let told = told.and_then(|told| told.split_whitespace().next()).expect("an address");
            address.replace(told.trim_start_matches("http://").to_owned());
        }
        Demo { lines, introduction }
    }

    /// What the demo wrote for those who call it.
    fn credential(&self) -> BTreeMap<String, String> {
        let text = fs::read_to_string(self.dir.path().join("utmos-demo/credential.env")).unwrap();
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

struct Demo {
    lines: Lines,
    introduction: Vec<String>,
}

/// A program that runs, and what it prints, line by line. Ended when it is dropped, however the test ends.
struct Lines {
    child: Child,
    printed: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, printed) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, printed, seen: Vec::new() }
    }

    /// The lines up to the one that is waited for.
    fn until(&mut self, is_last: impl Fn(&str) -> bool) -> Vec<String> {
        let start = self.seen.len();
        loop {
            match self.printed.recv_timeout(PATIENCE) {
                Ok(line) => {
                    let is_last = is_last(&line);
                    self.seen.push(line);
                    if is_last {
                        return self.seen[start..].to_vec();
                    }
                }
                Err(err) => panic!("{err}; so far: {:#?}", self.seen),
            }
        }
    }

    /// Ends the program; everything it printed.
    fn stop(&mut self) -> Vec<String> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        self.child.wait().unwrap();
        loop {
            match self.printed.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return std::mem::take(&mut self.seen),
                Err(RecvTimeoutError::Timeout) => panic!("the output has no end"),
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A bash that keeps its variables and jobs from one block to the next, as a reader's does.
struct Shell {
    lines: Lines,
    stdin: std::process::ChildStdin,
    blocks: PathBuf,
    count: u32,
}

impl Shell {
    fn start(place: &Place) -> Self {
        for needed in ["openssl", "curl", "python3", "node"] {
            interpreter(needed);
        }
        let mut command = interpreter("bash");
        let mut lines = Lines::of(place.within(command.stdin(Stdio::piped())));
        let stdin = lines.child.stdin.take().unwrap();
        Self { lines, stdin, blocks: place.dir.path().to_owned(), count: 0 }
    }

    /// Runs a block; every command of it must succeed.
    fn run(&mut self, script: &str) -> Vec<String> {
        self.count += 1;
        let file = self.blocks.join(format!("block-{}.sh", self.count));
        fs::write(&file, script).unwrap();
        let done = format!("block {} ended with", self.count);
        // From a file, so that no command of the block reads the shell's own input.
        let line =
            format!("set -e; . {} </dev/null 2>&1; set +e; echo; echo {done} $?", file.display());
        writeln!(self.stdin, "{line}").unwrap();
        let mut printed = self.lines.until(|line| line.starts_with(&done));
        assert_eq!(printed.pop(), Some(format!("{done} 0")), "{script}\n{printed:#?}");
        printed
    }
}

/// A block of the tour: in which shell, what is typed, and what is promised.
struct Step {
    shell: u32,
    script: String,
    promised: Vec<String>,
}

fn tour(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_promise_next = false;
    for (language, lines) in blocks(readme) {
        let shell = lines.first().and_then(|line| line.strip_prefix("# shell ")?.parse().ok());
        match (language, shell) {
            ("sh", Some(shell)) => {
                let script = lines[1..].join("\n") + "\n";
                steps.push(Step { shell, script, promised: Vec::new() });
                is_promise_next = true;
            }
            ("text", _) if is_promise_next => {
                let last = steps.last_mut().expect("a block before it");
                last.promised = lines.iter().map(|line| (*line).to_owned()).collect();
                is_promise_next = false;
            }
            _ => is_promise_next = false,
        }
    }
    steps
}

/// Every promised line is printed, in this order; `…` stands for any number of others, ids and figures for others.
fn check(step: &Step, printed: &[String]) {
    let skeletons: Vec<String> = printed.iter().map(|line| skeleton(line)).collect();
    let mut left = skeletons.iter();
    for line in step.promised.iter().filter(|line| *line != "…") {
        let wanted = skeleton(line);
        assert!(
            left.any(|line| *line == wanted),
            "{}\npromised: {line}\nprinted: {printed:#?}",
            step.script
        );
    }
}

/// A line without what differs from run to run: ids, times, figures, space at the ends.
fn skeleton(line: &str) -> String {
    let mut text = String::new();
    for word in line.trim().split_inclusive([' ', '"', '(', ')', ';', ',']) {
        let (word, end) =
            word.split_at(word.trim_end_matches([' ', '"', '(', ')', ';', ',']).len());
        let is_figure = word.len() >= 3
            && word.bytes().any(|b| b.is_ascii_digit())
            && word.bytes().all(|b| b.is_ascii_hexdigit() || b"-.:TZ".contains(&b));
        text += if is_figure { "#" } else { word };
        text += end;
    }
    text
}

/// The fenced blocks of a document: language and lines.
fn blocks(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, Vec<&str>)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => open = Some((language, Vec::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => {}
        }
    }
    blocks
}

/// Everything that is set as code, in blocks and in lines.
fn code_of(text: &str) -> Vec<String> {
    let mut code: Vec<String> = blocks(text)
        .into_iter()
        .filter(|(language, _)| *language == "sh")
        .flat_map(|(_, lines)| lines.into_iter().map(str::to_owned))
        .collect();
    let mut is_in_block = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_in_block = !is_in_block;
        } else if !is_in_block {
            code.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    code
}

/// The words a command line begins with, up to the first that can be no subcommand.
fn words(line: &str) -> Vec<String> {
    let words = line.split(' ').map(|word| word.trim_end_matches([',', ';', '.']));
    words
        .take_while(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase()))
        .map(str::to_owned)
        .collect()
}

fn collect(prefix: &str, table: &toml::Table, into: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value.as_table() {
            Some(inner) => collect(&key, inner, into),
            None => {
                into.insert(key, value.to_string());
            }
        }
    }
}

/// The anchor of a heading, as web pages make it.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the workspace").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|err| panic!("{path}: {err}"))
}

/// A program the examples need, without anything of ours in its environment.
fn interpreter(name: &str) -> Command {
    let package = if name == "node" { "nodejs" } else { name };
    let found = Command::new(name)
        .arg(if name == "openssl" { "version" } else { "--version" })
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(
        found.is_ok_and(|status| status.success()),
        "the examples need {name}: apt-get install {package}, or run ./test, which installs it"
    );
    let mut command = Command::new(name);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("UTMOS_") {
            command.env_remove(variable);
        }
    }
    command
}

/// What a command that must succeed prints.
fn output(command: &mut Command) -> String {
    let done = command.output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{command:?}\n{text}{}", String::from_utf8_lossy(&done.stderr));
    text
}

fn from_base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut held, mut bits) = (0_u32, 0);
    for digit in text.bytes().filter(|digit| *digit != b'=') {
        let value = DIGITS.iter().position(|known| *known == digit).unwrap();
        held = held << 6 | u32::try_from(value).unwrap();
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).unwrap());
        }
    }
    bytes
}
