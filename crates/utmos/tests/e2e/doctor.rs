//! `utmos doctor`.

use std::os::unix::fs::PermissionsExt;

use crate::shell::Shell;

/// Ports that are free for certain: the system picks them.
const PORTS: [&str; 4] = ["--http-listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0"];

#[test]
fn a_fresh_machine_is_well_and_stays_untouched() {
    let shell = Shell::new();
    let run = shell.run(["doctor"].iter().chain(&PORTS));
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.out.contains("is not there yet"), "{}", run.out);
    assert_eq!(std::fs::read_dir(shell.path()).unwrap().count(), 0, "it makes nothing");
}

#[test]
fn what_must_be_mended_is_named_with_its_remedy_and_fails() {
    let shell = Shell::new();
    shell.ok(["tenant", "create", "acme"]);
    let key = shell.path().join("utmos-data/master.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = shell.run(["doctor", "--http-listen", "127.0.0.1:0", "--mqtt-listen", &address]);
    assert_eq!(run.code, 1);
    for expected in [
        "chmod 600 ./utmos-data/master.key",
        &format!("another program uses {address}"),
        "mqtt.embedded.listen",
    ] {
        assert!(run.out.contains(expected), "{expected}\n{}", run.out);
    }
    let broken = shell.run(["doctor", "--set", "log.level=loud"]);
    assert_eq!(broken.code, 1);
    assert!(broken.out.contains("log.level"), "{}", broken.out);
}

#[test]
fn a_broker_that_is_not_there_fails() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let shell = Shell::new();
    shell.write(
        "utmos.toml",
        format!(
            "[mqtt]\nmode = \"external\"\n[mqtt.external]\nhost = \"127.0.0.1\"\nport = {}\n",
            nobody.port()
        ),
    );
    let run = shell.run(["doctor", "--http-listen", "127.0.0.1:0"]);
    assert_eq!(run.code, 1);
    assert!(run.out.contains(&format!("FAIL broker         {nobody}")), "{}", run.out);
}
