//! `utmos bench`: which servers it loads and which it does not, what it starts, and what it finds.

use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::Path};

use serde_json::Value;

use crate::{demo::Demo, shell::Shell};

/// A demo whose server is marked, or not, and the shell it runs in.
fn demo(allow: bool) -> (Shell, Demo, String) {
    let shell = Shell::new();
    let demo = Demo::start_with(&shell, &["--set", &format!("bench.allow={allow}")]);
    let server = demo.address("API");
    (shell, demo, format!("http://{server}"))
}

/// Refused, and what is said then.
fn refused(shell: &Shell, arguments: &[&str]) -> String {
    let run = shell.run(["bench", "--quick"].iter().chain(arguments));
    assert_eq!(run.code, 1, "{run:?}");
    assert_eq!(run.out, "", "{run:?}");
    run.err
}

/// What `--json figures.json` wrote.
fn figures(shell: &Shell) -> Value {
    let text = std::fs::read_to_string(shell.path().join("figures.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A folder that PostgreSQL, which does not run as root, may enter too.
fn open_folder() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap()
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn every_engine_is_measured_beside_its_own_floors_and_nothing_stays() {
    // What is set for --server is in nobody's way.
    let (shell, folder) = (Shell::new().set("UTMOS_API_ID", "utk_any"), open_folder());
    let names =
        ["floor_commit", "floor_commit_64", "floor_mqtt_1", "loop_1", "loop_64", "emergency"];
    let only = names.iter().flat_map(|name| ["--only", name]);
    let mut bench = shell.command(crate::shell::PROGRAM);
    bench.args(["bench", "--engine", "all", "--runs", "1", "--seconds", "0.2"]).args(only);
    bench.args(["--json", "figures.json", "--data-dir"]).arg(folder.path());
    let run = crate::shell::run(&mut bench);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.out.contains("side by side"), "{run:?}");
    let figures = figures(&shell);
    let engines = figures["engines"].as_array().unwrap();
    let called: Vec<_> = engines.iter().map(|one| one["engine"].as_str().unwrap()).collect();
    assert_eq!(called, ["embedded", "mosquitto", "postgres"]);
    for engine in engines {
        let measures = engine["measures"].as_array().unwrap();
        let of = |name: &str| measures.iter().find(|one| one["name"] == name).unwrap();
        for name in names {
            assert!(of(name)["median"].as_f64() > Some(0.0), "{name}: {engine:#}");
        }
        let shares = of("loop_1")["shares_of_floors"].as_array().unwrap();
        assert_eq!(shares[0]["floor"], "floor_commit + floor_mqtt_1");
        assert_eq!(of("loop_64")["shares_of_floors"][0]["floor"], "floor_commit_64");
        assert_eq!(engine["commands"], engine["commands_right"]);
        let beside = measures.iter().any(|one| one["name"] == "cpu_beside_per_loop_64");
        assert_eq!(beside, engine["engine"] != "embedded", "{engine:#}");
    }
    assert!(is_empty(folder.path()));
    let compared = shell.ok(["bench", "compare", "figures.json", "figures.json"]);
    assert!(compared.contains("postgres: POST to outcome, 1 client"), "{compared}");
}

/// What ends a command that is not answered is its time, and the bench takes nothing else for right.
#[test]
fn docks_may_answer_late_or_never() {
    let (shell, folder) = (Shell::new(), open_folder());
    let apart = refused(&shell, &["--reply", "20", "--only", "reconnect_10k"]);
    assert!(apart.contains("--reply") && apart.contains("reconnect_10k"), "{apart}");
    for (reply, told, at_least_ms, paced) in
        [("150", "after 150 ms", 150.0, "paced_500"), ("never", "never", 1_000.0, "loop_16")]
    {
        let mut bench = shell.command(crate::shell::PROGRAM);
        bench.args(["bench", "--runs", "1", "--seconds", "0.3", "--reply", reply]);
        bench.args(["--only", "loop_1", "--only", "loop_16", "--only", paced]);
        bench.args(["--json", "figures.json", "--data-dir"]).arg(folder.path());
        let run = crate::shell::run(&mut bench);
        assert_eq!(run.code, 0, "{run:?}");
        assert!(run.out.contains(&format!("docks answer {told}")), "{run:?}");
        let figures = figures(&shell);
        assert_eq!(figures["docks_answer"], told);
        assert_eq!(figures["commands"], figures["commands_right"], "{figures:#}");
        for measured in figures["measures"].as_array().unwrap() {
            if ["loop_1", "loop_16", "paced_500"].contains(&measured["name"].as_str().unwrap()) {
                let p50 = measured["runs"][0]["p50_ms"].as_f64();
                assert!(p50 >= Some(at_least_ms), "{measured:#}");
            }
        }
    }
}

/// Each client goes to the next of them, and what they accept is counted over all.
#[test]
fn two_servers_on_one_database_are_held_against_one() {
    let (shell, folder) = (Shell::new(), open_folder());
    let alone = refused(&shell, &["--servers", "2"]);
    assert!(alone.contains("--engine postgres"), "{alone}");
    let mut bench = shell.command(crate::shell::PROGRAM);
    bench.args(["bench", "--engine", "postgres", "--servers", "1", "--servers", "2"]);
    bench.args(["--runs", "1", "--seconds", "0.3", "--only", "loop_16", "--only", "loop_64"]);
    bench.args(["--json", "figures.json", "--data-dir"]).arg(folder.path());
    let run = crate::shell::run(&mut bench);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.out.contains("Mosquitto + PostgreSQL, 2 servers"), "{run:?}");
    let figures = figures(&shell);
    let kinds = figures["engines"].as_array().unwrap();
    let servers: Vec<_> = kinds.iter().map(|one| one["servers"].as_u64().unwrap()).collect();
    assert_eq!(servers, [1, 2]);
    for kind in kinds {
        assert_eq!(kind["commands"], kind["commands_right"]);
        assert!(kind["commands"].as_u64() > Some(20), "{kind:#}");
    }
    assert!(is_empty(folder.path()));
    let compared = shell.ok(["bench", "compare", "figures.json", "figures.json"]);
    assert!(compared.contains("postgres x2: POST to outcome, 64 clients"), "{compared}");
}

#[test]
fn growth_holds_large_cases_against_small_ones() {
    let (shell, folder) = (Shell::new(), open_folder());
    let mut bench = shell.command(crate::shell::PROGRAM);
    bench.args(["bench", "growth", "--commands", "1500", "--docks", "130", "--tenants", "4"]);
    bench.args(["--in-flight", "200", "--rounds", "2", "--seconds", "0.3", "--clients", "4"]);
    // How it grows within a second in a debug build says nothing.
    bench.args([
        "--growth-max",
        "100000",
        "--keys",
        "random",
        "--json",
        "figures.json",
        "--data-dir",
    ]);
    let run = crate::shell::run(bench.arg(folder.path()));
    assert_eq!(run.code, 0, "{run:?}");
    let figures = figures(&shell);
    let grown = figures["grown"].as_array().unwrap();
    let cases: Vec<_> = grown
        .iter()
        .map(|one| {
            (
                one["name"].as_str().unwrap(),
                one["small"].as_u64().unwrap(),
                one["large"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(cases, [("tenants", 1, 4), ("docks", 100, 130), ("stored", 1000, 1500)]);
    for one in grown {
        assert!(one["figures"]["cpu_per_command"]["ratio"].as_f64() > Some(0.0), "{one:#}");
        assert_eq!(one["flat"], true);
    }
    let reads = figures["reads"].as_array().unwrap();
    assert_eq!(reads.len(), 10);
    for one in reads {
        assert!(one["large"]["samples"].as_u64() >= Some(20), "{one:#}");
        assert!(one["goal_met"].is_boolean(), "{one:#}");
    }
    let facts: Vec<_> = figures["facts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    let expected = [
        "memory_per_dock",
        "memory_docks",
        "memory_per_command_in_flight",
        "disk_per_command",
        "restart",
        "restart_open",
    ];
    assert_eq!(facts, expected);
    assert_eq!(figures["commands"], figures["commands_right"]);
    assert!(figures["commands"].as_u64() >= Some(24), "{figures:#}");
    assert!(is_empty(folder.path()));
}

#[test]
fn a_server_that_is_marked_is_loaded_and_judged() {
    let (shell, demo, server) = demo(true);
    let mqtt = demo.address("MQTT");
    let arguments =
        ["bench", "--server", &server, "--mqtt", &mqtt, "--runs", "1", "--seconds", "1"];
    let only = ["--only", "loop_16", "--only", "accept_64", "--only", "floor_http_64"];
    let run = shell.run(arguments.iter().chain(&only).chain(&["--json", "figures.json"]));
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.err.contains("BENCH-DOCK-0001 to BENCH-DOCK-0101 stay registered"), "{run:?}");
    let figures = figures(&shell);
    let names = figures["measures"].as_array().unwrap().iter().map(|one| one["name"].as_str());
    assert_eq!(
        names.collect::<Vec<_>>(),
        ["floor_http_64", "accept_64", "loop_16"].map(Some),
        "{figures:#}"
    );
    assert_eq!(figures["commands"], figures["commands_right"]);
    assert!(figures["commands"].as_u64() >= Some(16), "{figures:#}");
    // The docks of the first bench are taken again, with new passwords.
    let again = ["bench", "--quick", "--server", &server, "--mqtt", &mqtt, "--only", "loop_1"];
    let again = shell.run(again);
    assert_eq!(again.code, 0, "{again:?}");
    let listed = shell.json(["device", "list", "--json", "--data-dir", "utmos-demo"]);
    let docks = listed.as_array().unwrap().iter().filter_map(|one| one["sn"].as_str());
    assert_eq!(docks.filter(|sn| sn.starts_with("BENCH-DOCK-")).count(), 101);
    assert_eq!(demo.stop(), Some(0));
}

#[test]
fn a_server_that_is_not_marked_is_not_loaded() {
    let (shell, demo, server) = demo(false);
    let told = refused(&shell, &["--server", &server]);
    assert!(told.contains("not marked as allowed for load"), "{told}");
    assert!(told.contains("bench.allow = true"), "{told}");
    let listed = shell.ok(["device", "list", "--data-dir", "utmos-demo"]);
    assert!(!listed.contains("BENCH-DOCK"), "{listed}");
    assert_eq!(demo.stop(), Some(0));
}

#[test]
fn a_server_elsewhere_is_not_even_asked_before_it_was_named_twice() {
    // An address of documents, behind which nothing is.
    let (shell, elsewhere) = (Shell::new(), "http://192.0.2.1:8080");
    let twice = "--not-this-machine --load-host 192.0.2.1";
    for told_once in [&[][..], &["--not-this-machine"], &["--load-host", "192.0.2.1"]] {
        let told = refused(&shell, &[&["--server", elsewhere], told_once].concat());
        assert!(told.contains("192.0.2.1 (--server) is not this machine"), "{told}");
        assert!(told.contains(twice), "{told}");
    }
    let broker = ["--server", "http://127.0.0.1:9", "--mqtt", "192.0.2.1:1883"];
    let told = refused(&shell, &broker);
    assert!(told.contains("192.0.2.1 (--mqtt) is not this machine"), "{told}");
}

#[test]
fn a_race_at_a_broker_elsewhere_is_not_begun_before_it_was_named_twice() {
    let shell = Shell::new();
    for told_once in [&[][..], &["--not-this-machine"], &["--load-host", "192.0.2.1"]] {
        let race = ["bench", "race", "--broker", "192.0.2.1:1883"];
        let run = shell.run(race.iter().chain(told_once));
        assert_ne!(run.code, 0, "{run:?}");
        assert!(run.err.contains("192.0.2.1 (--broker) is not this machine"), "{run:?}");
    }
}

#[test]
fn a_figure_that_belongs_to_another_is_measured_with_it() {
    let shell = Shell::new();
    let only = ["--only", "server_cpu_per_loop_64", "--only", "start", "--only", "phase_stored"];
    let run = ["bench", "--runs", "1", "--seconds", "0.5", "--json", "figures.json"];
    let run = shell.run(run.iter().chain(&only));
    assert_eq!(run.code, 0, "{run:?}");
    let figures = figures(&shell);
    let measures = figures["measures"].as_array().unwrap();
    for wanted in ["loop_64", "server_cpu_per_loop_64", "start", "phase_stored"] {
        let found = measures.iter().find(|one| one["name"] == wanted);
        let median = found.and_then(|one| one["median"].as_f64());
        assert!(median.is_some_and(|median| median > 0.0), "{wanted}: {figures:#}");
    }
}

#[test]
fn what_cannot_be_loaded_is_named() {
    let (shell, demo, server) = demo(true);
    let nobody = refused(&shell, &["--server", "http://127.0.0.1:9"]);
    assert!(nobody.contains("http://127.0.0.1:9 cannot be asked"), "{nobody}");
    let tls = refused(&shell, &["--server", "https://127.0.0.1:8443"]);
    assert!(tls.contains("must be http://HOST:PORT"), "{tls}");
    let mqtt = refused(&shell, &["--server", &server, "--mqtt", "1883"]);
    assert!(mqtt.contains("--mqtt must be HOST:PORT"), "{mqtt}");
    let own = refused(&shell, &["--server", &server, "--only", "memory_idle"]);
    assert!(own.contains("memory_idle needs a server of the bench's own"), "{own}");

    let made = ["credential", "create", "--role", "viewer", "--json", "--data-dir", "utmos-demo"];
    let made = shell.json(made);
    let file = shell.write(
        "viewer.env",
        format!(
            "UTMOS_API_ID={}\nUTMOS_API_KEY={}\n",
            made["api_id"].as_str().unwrap(),
            made["api_key"].as_str().unwrap()
        ),
    );
    let file = file.to_str().unwrap();
    // A running server knows a new credential a moment later.
    let mut tries = (0..200).map(|_| refused(&shell, &["--server", &server, "--credential", file]));
    let poor = tries.find(|told| !told.contains("SIGNATURE_INVALID")).unwrap();
    assert!(poor.contains("BENCH-DOCK-0001 cannot be registered"), "{poor}");
    assert!(poor.contains("open:device:create"), "{poor}");
    let away = Shell::new();
    let none = refused(&away, &["--server", &server]);
    assert!(none.contains("no credential"), "{none}");
    assert_eq!(demo.stop(), Some(0));
}
