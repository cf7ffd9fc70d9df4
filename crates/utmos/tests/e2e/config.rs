//! `utmos config`.

use crate::shell::Shell;

#[test]
fn config_check_prints_every_value_with_its_source_and_masks_secrets() {
    let shell = Shell::new()
        .set("UTMOS_HTTP_LISTEN", "127.0.0.1:9999")
        .set("UTMOS_DJI_APP_KEY", "hush-hush");
    shell.write("utmos.toml", "[log]\nlevel = \"debug\"\n[dji]\napp_license = \"hush-hush\"\n");
    let printed = shell.ok(["config", "check", "--set", "http.connections_max=7"]);
    let value = |key: &str| -> Vec<String> {
        let line = printed.lines().find(|line| line.starts_with(&format!("{key} "))).unwrap();
        let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        cells.skip(1).map(str::to_owned).collect()
    };
    assert_eq!(value("http.listen"), ["\"127.0.0.1:9999\"", "environment UTMOS_HTTP_LISTEN"]);
    assert_eq!(value("log.level"), ["\"debug\"", "file utmos.toml"]);
    assert_eq!(value("http.connections_max"), ["7", "flag --set"]);
    assert_eq!(value("data_dir"), ["\"./utmos-data\"", "default"]);
    assert_eq!(value("dji.app_key"), ["(secret)", "environment UTMOS_DJI_APP_KEY"]);
    assert_eq!(value("dji.app_license"), ["(secret)", "file utmos.toml"]);
    assert!(!printed.contains("hush"));
}

#[test]
fn config_check_tells_all_problems_at_once_and_fails() {
    let shell = Shell::new().set("UTMOS_HTTP_LISTN", "x");
    shell.write("other.toml", "[mqtt]\nmode = \"both\"\n[store]\npaht = \"x\"\n");
    let run = shell.run(["config", "check", "--config", "other.toml", "--http-listen", "here"]);
    assert_eq!(run.code, 1);
    for expected in [
        "the configuration has 4 problems",
        "mqtt.mode = \"both\" (file other.toml): must be one of \"embedded\", \"external\"",
        "store.paht (file other.toml): unknown key; did you mean store.path?",
        "UTMOS_HTTP_LISTN (environment UTMOS_HTTP_LISTN): unknown variable; did you mean UTMOS_HTTP_LISTEN?",
        "http.listen = \"here\" (flag --http-listen): must be an IP address and a port",
    ] {
        assert!(run.err.contains(expected), "{expected}\n{}", run.err);
    }
    assert_eq!(run.out, "");
}

#[test]
fn the_default_file_is_a_configuration_that_changes_nothing() {
    let shell = Shell::new();
    shell.write("utmos.toml", shell.ok(["config", "default"]));
    let with_file = shell.ok(["config", "check"]);
    assert_eq!(with_file.matches("file utmos.toml").count(), with_file.lines().count() - 1);
    let values = |printed: &str| -> Vec<String> {
        let cells = printed
            .lines()
            .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
        cells.collect()
    };
    std::fs::remove_file(shell.path().join("utmos.toml")).unwrap();
    assert_eq!(values(&with_file), values(&shell.ok(["config", "check"])));
}

#[test]
fn a_configuration_file_that_is_named_must_be_there() {
    let run = Shell::new().set("UTMOS_CONFIG", "missing.toml").run(["config", "check"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("missing.toml"), "{}", run.err);
}
