#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::{collections::BTreeSet, path::Path};

use super::{layer::variable, *};

fn problems(layers: Layers) -> Vec<String> {
    Config::load(layers).unwrap_err().0.iter().map(ToString::to_string).collect()
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn file(text: &str) -> Layers {
    Layers::new().file(Path::new("utmos.toml"), text)
}

#[test]
fn the_shipped_file_holds_every_key_that_is_read_and_no_other() {
    let loaded = Config::load(Layers::new()).unwrap();
    let read: Vec<&str> = loaded.rows.iter().map(|row| row.key.as_str()).collect();
    let layers = Layers::new();
    let shipped: Vec<&str> = layers.keys.iter().map(String::as_str).collect();
    assert_eq!(read, shipped);
    let once: BTreeSet<&str> = read.iter().copied().collect();
    assert_eq!(once.len(), read.len(), "a key is read twice");
    assert!(loaded.rows.iter().all(|row| row.origin == Origin::Default));
}

#[test]
fn the_shipped_file_says_something_about_every_key() {
    let mut before = "";
    for line in DEFAULT_FILE.lines() {
        let is_key = line.contains(" = ") && !line.starts_with('#');
        assert!(!is_key || before.starts_with("# "), "no comment above: {line}");
        before = line;
    }
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = Config::defaults().unwrap();
    assert_eq!(config.data_dir, Path::new("./utmos-data"));
    assert_eq!(config.store.path, Path::new("./utmos-data/utmos.sqlite"));
    assert_eq!(config.store.master_key_file, Path::new("./utmos-data/master.key"));
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.http.body_bytes_max, 1024 * 1024);
    assert_eq!(config.http.header_read_wait, Duration::from_secs(10));
    assert_eq!(config.commands.waiting_per_gateway_max, 1000);
    assert!(!config.bench.allow, "nobody may load a server that was not told so");
    let Mqtt::Embedded(broker) = config.mqtt else { panic!("embedded is the default") };
    assert_eq!(broker.listen.to_string(), "127.0.0.1:1883");
    assert!(broker.tls.is_none());
}

#[test]
fn every_key_has_a_variable_of_its_own() {
    let layers = Layers::new();
    let variables: BTreeSet<String> = layers.keys.iter().map(|key| variable(key)).collect();
    assert_eq!(variables.len(), layers.keys.len());
    assert!(variables.contains("UTMOS_MQTT_EMBEDDED_TLS_LISTEN"));
    assert!(OTHER_VARIABLES.iter().all(|other| !variables.contains(*other)));
}

#[test]
fn flags_beat_the_environment_which_beats_the_file_which_beats_the_defaults() {
    let base = || {
        file(
            "data_dir = \"f\"\n[http]\nlisten = \"127.0.0.1:1\"\nbody_read_seconds = 7\n[log]\nlevel = \"warn\"",
        )
    };
    let loaded = Config::load(
        base()
            .environment(env(&[
                ("UTMOS_HTTP_LISTEN", "127.0.0.1:2"),
                ("UTMOS_DATA_DIR", "e"),
                ("UTMOS_API_KEY", "k"),
                ("HOME", "/"),
            ]))
            .flag("--data-dir", "data_dir", "g")
            .assignments("--set", ["http.connections_max=9"]),
    )
    .unwrap();
    let config = &loaded.config;
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:2");
    assert_eq!(config.http.body_read_wait, Duration::from_secs(7));
    assert_eq!(config.http.connections_max, 9);
    assert_eq!(config.data_dir, Path::new("g"));
    assert_eq!(config.store.path, Path::new("g/utmos.sqlite"));
    assert_eq!(config.log.level, Level::WARN);
    let origin = |key| loaded.origin(key).unwrap().to_string();
    assert_eq!(origin("http.listen"), "environment UTMOS_HTTP_LISTEN");
    assert_eq!(origin("http.body_read_seconds"), "file utmos.toml");
    assert_eq!(origin("http.connections_max"), "flag --set");
    assert_eq!(origin("data_dir"), "flag --data-dir");
    assert_eq!(origin("http.header_read_seconds"), "default");
    assert_eq!(Config::load(base()).unwrap().config.data_dir, Path::new("f"));
}

#[test]
fn an_unknown_key_is_an_error_that_names_its_source_and_the_nearest_key() {
    let found = problems(
        file("datadir = \"x\"\nhttp = 3\n[htpp]\nlisten = \"x\"\n[queue]\n[log.level]\nx = 1")
            .environment(env(&[
                ("UTMOS_HTTP_LISTN", "x"),
                ("UTMOS_API_KEYS", "geheim"),
                ("UTMOS_SOMETHING_ELSE", "x"),
            ]))
            .assignments("--set", ["mqtt.embeded.listen=x", "log.level", "zzz=1"]),
    );
    let expected = [
        "datadir (file utmos.toml): unknown key; did you mean data_dir?",
        "htpp.listen (file utmos.toml): unknown key; did you mean http.listen?",
        "http (file utmos.toml): is a section; set its keys, such as http.listen",
        "log.level.x (file utmos.toml): unknown key; did you mean log.level?",
        "queue (file utmos.toml): unknown key; `utmos config default` lists those there are",
        "UTMOS_HTTP_LISTN (environment UTMOS_HTTP_LISTN): unknown variable; did you mean UTMOS_HTTP_LISTEN?",
        "UTMOS_API_KEYS (environment UTMOS_API_KEYS): unknown variable; did you mean UTMOS_API_KEY?",
        "UTMOS_SOMETHING_ELSE (environment UTMOS_SOMETHING_ELSE): unknown variable; `utmos config default` lists those there are",
        "mqtt.embeded.listen (flag --set): unknown key; did you mean mqtt.embedded.listen?",
        "log.level (flag --set): must be a key and its value, such as http.listen=127.0.0.1:8080",
        "zzz (flag --set): unknown key; `utmos config default` lists those there are",
    ];
    let (mut found, mut expected): (Vec<_>, Vec<_>) = (found, expected.map(str::to_owned).to_vec());
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn every_value_that_does_not_fit_is_told_at_once_with_what_is_allowed() {
    let found = problems(
        file(
            "data_dir = \"\"\n[http]\nlisten = \"localhost\"\nbody_bytes_max = \"1048576\"\nheader_read_seconds = 0\n\
             [mqtt]\nmode = \"both\"\n[mqtt.external]\ntls = \"yes\"\nport = 70000\n[dji]\napp_key = 7\n",
        )
        .environment(env(&[("UTMOS_LOG_LEVEL", "loud"), ("UTMOS_COMMANDS_WAITING_PER_GATEWAY_MAX", "-1")])),
    );
    assert_eq!(
        found,
        [
            "data_dir = \"\" (file utmos.toml): must be a path",
            "http.listen = \"localhost\" (file utmos.toml): must be an IP address and a port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080",
            "http.body_bytes_max = \"1048576\" (file utmos.toml): must be a whole number from 1024 to 16777216",
            "http.header_read_seconds = 0 (file utmos.toml): must be a whole number of seconds from 1 to 300",
            "mqtt.mode = \"both\" (file utmos.toml): must be one of \"embedded\", \"external\"",
            "mqtt.external.port = 70000 (file utmos.toml): must be a whole number from 1 to 65535",
            "mqtt.external.tls = \"yes\" (file utmos.toml): must be true or false",
            "commands.waiting_per_gateway_max = \"-1\" (environment UTMOS_COMMANDS_WAITING_PER_GATEWAY_MAX): must be a whole number from 1 to 1000000",
            "dji.app_key (file utmos.toml): must be text in quotation marks",
            "log.level = \"loud\" (environment UTMOS_LOG_LEVEL): must be one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
        ]
    );
}

#[test]
fn values_that_need_each_other_are_checked_together() {
    let cases = [
        ("mqtt.mode=external", "mqtt.external.host = \"\""),
        ("mqtt.embedded.tls_listen=0.0.0.0:8883", "mqtt.embedded.tls_cert_file = \"\""),
        ("mqtt.embedded.tls_cert_file=a.pem", "mqtt.embedded.tls_listen = \"\""),
        ("mqtt.embedded.listen=127.0.0.1:8080", "mqtt.embedded.listen = \"127.0.0.1:8080\""),
    ];
    for (assignment, expected) in cases {
        let found = problems(Layers::new().assignments("--set", [assignment]));
        assert!(
            found.iter().any(|problem| problem.starts_with(expected)),
            "{assignment}: {found:?}"
        );
    }
    let external =
        ["mqtt.mode=external", "mqtt.external.host=broker", "mqtt.external.protocol=3.1.1"];
    let config = Config::load(Layers::new().assignments("--set", external)).unwrap().config;
    let Mqtt::External(broker) = config.mqtt else { panic!("external was asked for") };
    assert_eq!((broker.host.as_str(), broker.protocol), ("broker", ProtocolChoice::V311));
    assert!(broker.username.is_none());
    let zero = ["mqtt.embedded.listen=127.0.0.1:0", "http.listen=127.0.0.1:0"];
    assert!(Config::load(Layers::new().assignments("--set", zero)).is_ok());
}

#[test]
fn a_secret_shows_neither_in_debug_output_nor_among_the_values_nor_in_a_problem() {
    let secret = "7f3a-secret";
    let loaded =
        Config::load(Layers::new().environment(env(&[("UTMOS_DJI_APP_KEY", secret)]))).unwrap();
    assert_eq!(loaded.config.dji.app_key.expose(), secret);
    assert!(!format!("{loaded:?}").contains(secret));
    let row = loaded.rows.iter().find(|row| row.key == "dji.app_key").unwrap();
    assert_eq!(row.shown, "(secret)");
    let broken = format!("[dji]\napp_key = \"{secret}\napp_id = \"1\"");
    let found = problems(file(&broken));
    assert!(found[0].starts_with("file utmos.toml: is no TOML: line 2: "), "{found:?}");
    let mistyped = format!("[dji]\napp_kye = \"{secret}\"");
    assert!(
        ![found, problems(file(&mistyped))].concat().iter().any(|problem| problem.contains(secret))
    );
}

#[test]
fn two_addresses_are_never_the_same() {
    let same = problems(Layers::new().assignments("--set", ["metrics.listen=127.0.0.1:8080"]));
    assert!(same.len() == 1 && same[0].contains("metrics.listen"), "{same:?}");
    let same = problems(Layers::new().assignments("--set", ["metrics.listen=127.0.0.1:1883"]));
    assert!(same.len() == 1 && same[0].contains("mqtt.embedded.listen"), "{same:?}");
    let free = Layers::new()
        .assignments("--set", ["metrics.listen=127.0.0.1:0", "http.listen=127.0.0.1:0"]);
    assert!(Config::load(free).is_ok());
}

#[test]
fn a_problem_with_an_empty_key_names_it() {
    for assignment in ["", "=1"] {
        let found = problems(Layers::new().assignments("--set", [assignment]));
        assert!(found[0].starts_with("\"\" (flag --set): "), "{found:?}");
    }
    let found = problems(file("\"\" = 1"));
    assert!(found[0].starts_with("\"\" (file utmos.toml): unknown key"), "{found:?}");
}

#[test]
fn presence_topics_are_checked_one_by_one() {
    let outside = |pairs: &[(&str, &str)]| {
        let pairs =
            pairs.iter().map(|(key, value)| format!("mqtt.external.presence_{key}={value}"));
        let all = ["mqtt.mode=external".to_owned(), "mqtt.external.host=broker".to_owned()];
        let all: Vec<String> = all.into_iter().chain(pairs).collect();
        Layers::new().assignments("--set", all.iter().map(String::as_str))
    };
    let emqx = [
        ("connected", "$SYS/brokers/+/clients/{client_id}/connected"),
        ("disconnected", "$SYS/brokers/+/clients/{client_id}/disconnected"),
        ("gateway", "username"),
    ];
    let loaded = Config::load(outside(&emqx)).unwrap();
    let Mqtt::External(broker) = loaded.config.mqtt else { panic!("external was asked for") };
    let filters: Vec<String> = broker.filters().collect();
    assert!(
        filters.ends_with(&["$SYS/brokers/+/clients/+/disconnected".to_owned()]),
        "{filters:?}"
    );
    assert_eq!(broker.presence.named_by, NamedBy::Username);
    for (pairs, key, says) in [
        (vec![("connected", "presence")], "presence_connected", "must have {client_id}"),
        (
            vec![("state", "thing/product/{client_id}/osd")],
            "presence_state",
            "where devices publish",
        ),
        (
            vec![("connected", "p/{client_id}"), ("state", "p/{client_id}")],
            "presence_state",
            "another",
        ),
        (vec![("gateway", "serial")], "presence_gateway", "\"client_id\", \"username\""),
    ] {
        let found = problems(outside(&pairs));
        assert!(found.len() == 1 && found[0].contains(key) && found[0].contains(says), "{found:?}");
    }
}

#[test]
fn a_certificate_of_the_servers_own_wants_its_key_and_tls() {
    let outside = ["mqtt.mode=external", "mqtt.external.host=b"];
    let with = |more: &[&'static str]| {
        Layers::new().assignments("--set", outside.iter().chain(more).copied())
    };
    let (cert, key) = ("mqtt.external.client_cert_file=c", "mqtt.external.client_key_file=k");
    for (more, named) in [
        (&[cert, "mqtt.external.tls=true"][..], "mqtt.external.client_key_file"),
        (&[key, "mqtt.external.tls=true"], "mqtt.external.client_cert_file"),
        (&[cert, key], "mqtt.external.tls"),
        (&["mqtt.external.command_qos=2"], "mqtt.external.command_qos"),
    ] {
        let problems = problems(with(more));
        assert!(problems.len() == 1 && problems[0].contains(named), "{named}: {problems:?}");
    }
    let loaded =
        Config::load(with(&[cert, key, "mqtt.external.tls=true", "mqtt.external.command_qos=0"]));
    let Mqtt::External(broker) = loaded.unwrap().config.mqtt else { panic!("it is outside") };
    assert_eq!(broker.command_qos, Qos::AtMostOnce);
    let own = broker.client_certificate.unwrap();
    assert_eq!((own.cert_file, own.key_file), ("c".into(), "k".into()));
}
