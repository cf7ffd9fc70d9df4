//! Tenants, credentials and devices in a store of their own, without a server.

use crate::shell::Shell;

fn with_tenant() -> Shell {
    let shell = Shell::new();
    shell.ok(["tenant", "create", "acme"]);
    shell
}

#[test]
fn a_tenant_has_a_name_of_its_own() {
    let shell = with_tenant();
    let again = shell.run(["tenant", "create", "acme"]);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("already"), "{}", again.err);
    assert_eq!(shell.run(["tenant", "create", " "]).code, 1);
    shell.ok(["tenant", "create", "zeta"]);
    let listed = shell.json(["tenant", "list", "--json"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(listed[0]["name"], "acme");
    let unclear = shell.run(["credential", "create"]);
    assert!(
        unclear.err.contains("--tenant") && unclear.err.contains("acme, zeta"),
        "{}",
        unclear.err
    );
    let unknown = shell.run(["credential", "create", "--tenant", "omega"]);
    assert!(unknown.err.contains("\"omega\""), "{}", unknown.err);
}

#[test]
fn without_a_tenant_the_way_to_one_is_told() {
    let run = Shell::new().run(["device", "add", "--sn", "D1", "--kind", "dock"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("utmos tenant create"), "{}", run.err);
}

#[test]
fn a_credential_lives_from_creation_over_rotation_to_its_end() {
    let shell = with_tenant();
    shell.ok(["device", "add", "--sn", "D1", "--kind", "dock"]);
    let made = shell.json([
        "credential",
        "create",
        "--json",
        "--name",
        "ci",
        "--role",
        "viewer",
        "--permission",
        "open:command:create",
        "--device",
        "D1",
        "--ip",
        "10.0.0.0/8",
        "--expires",
        "90d",
    ]);
    let api_id = made["api_id"].as_str().unwrap();
    let first = made["api_key"].as_str().unwrap();
    assert!(api_id.starts_with("utk_") && api_id.len() == 26);
    assert_eq!(first.len(), 43);

    let listed = shell.json(["credential", "list", "--json"]);
    let kept = &listed[0];
    assert_eq!(kept["api_id"], api_id);
    assert_eq!((&kept["status"], &kept["keys"]), (&"ACTIVE".into(), &1.into()));
    assert_eq!(kept["devices"], serde_json::json!(["D1"]));
    assert_eq!(kept["ip_allow"], serde_json::json!(["10.0.0.0/8"]));
    let permissions: Vec<_> =
        kept["permissions"].as_array().unwrap().iter().map(|may| may.as_str().unwrap()).collect();
    assert!(
        permissions.contains(&"open:command:create")
            && !permissions.contains(&"open:device:update")
    );

    let rotated = shell.json(["credential", "rotate", api_id, "--overlap", "1h", "--json"]);
    let second = rotated["api_key"].as_str().unwrap();
    assert_ne!(second, first);
    assert!(rotated["old_key_valid_until"].is_string());
    assert_eq!(shell.json(["credential", "list", "--json"])[0]["keys"], 2);
    let at_once = shell.json(["credential", "rotate", api_id, "--overlap", "0", "--json"]);
    assert!(at_once["old_key_valid_until"].is_null());
    assert_eq!(shell.json(["credential", "list", "--json"])[0]["keys"], 1);

    shell.ok(["credential", "disable", api_id]);
    assert_eq!(shell.json(["credential", "list", "--json"])[0]["status"], "DISABLED");
    shell.ok(["credential", "enable", api_id]);
    assert_eq!(shell.json(["credential", "list", "--json"])[0]["status"], "ACTIVE");
    assert_eq!(shell.run(["credential", "disable", "utk_unknown"]).code, 1);
}

#[test]
fn secrets_are_shown_once_and_stored_nowhere_in_clear() {
    let shell = with_tenant();
    let printed = shell.ok(["credential", "create"]);
    let key = printed.lines().find_map(|line| line.trim().strip_prefix("API key")).unwrap().trim();
    let api_id =
        printed.lines().find_map(|line| line.trim().strip_prefix("API id")).unwrap().trim();
    assert_eq!(printed.matches(key).count(), 1);
    let added =
        shell.ok(["device", "add", "--sn", "4TADL210010014", "--kind", "dock", "--label", "Roof"]);
    let password =
        added.lines().find_map(|line| line.trim().strip_prefix("password")).unwrap().trim();
    assert_eq!(password.len(), 20);
    let rotated = shell.json(["credential", "rotate", api_id, "--json"]);
    let new_key = rotated["api_key"].as_str().unwrap();
    for secret in [key, new_key, password] {
        for arguments in [
            &["credential", "list"][..],
            &["credential", "list", "--json"],
            &["device", "list"],
            &["device", "list", "--json"],
            &["tenant", "list"],
            &["doctor"],
            &["config", "check"],
        ] {
            let run = shell.run(arguments);
            assert!(!run.out.contains(secret) && !run.err.contains(secret), "{arguments:?}");
        }
        assert!(!shell.holds(secret), "a file holds a secret in clear");
    }
    assert!(shell.holds(api_id), "the search finds what is there");
}

#[test]
fn a_device_is_added_once_and_can_get_a_new_password() {
    let shell = with_tenant();
    let first = shell.json(["device", "add", "--sn", "D1", "--kind", "dock", "--json"]);
    assert_eq!(first["username"], "D1");
    let again = shell.run(["device", "add", "--sn", "D1", "--kind", "dock"]);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("utmos device password D1"), "{}", again.err);
    let second = shell.json(["device", "password", "D1", "--json"]);
    assert_ne!(first["password"], second["password"]);
    shell.ok(["device", "add", "--sn", "RC1", "--kind", "remote_controller", "--simulated"]);
    let listed = shell.json(["device", "list", "--json"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(listed[1]["simulated"], true);
    for bad in [&["--sn", "a/b", "--kind", "dock"][..], &["--sn", "A1", "--kind", "payload"]] {
        assert_eq!(shell.run(["device", "add"].iter().chain(bad)).code, 2, "{bad:?}");
    }
    let unknown = shell.run(["credential", "create", "--device", "D9"]);
    assert!(unknown.err.contains("has no device D9"), "{}", unknown.err);
}

#[test]
fn an_aircraft_is_added_beforehand_moved_and_removed() {
    let shell = with_tenant();
    shell.ok(["tenant", "create", "zeta"]);
    let add = ["device", "add", "--sn", "A1", "--kind", "aircraft", "--tenant"];
    let added = shell.ok(add.iter().chain(&["acme"]));
    assert!(!added.contains("password"), "{added}");
    let taken = shell.run(add.iter().chain(&["zeta"]));
    assert!(taken.err.contains("utmos device move --sn A1"), "{}", taken.err);
    assert!(shell.run(["device", "password", "A1"]).err.contains("aircraft"));

    let move_to = |tenant: &'static str| ["device", "move", "--sn", "A1", "--tenant", tenant];
    let whose = || shell.json(["device", "list", "--json"])[0]["tenant"].clone();
    assert!(shell.run(move_to("acme")).err.contains("already"));
    assert!(shell.run(move_to("omega")).err.contains("\"omega\""));
    let moved = shell.ok(move_to("zeta"));
    assert!(moved.contains("A1 was moved from tenant acme to tenant zeta"), "{moved}");
    assert_eq!(whose(), "zeta");
    let back = shell.json(move_to("acme").iter().chain(&["--json"]));
    assert_eq!((&back["from"], &back["to"]), (&"zeta".into(), &"acme".into()));

    let removed = shell.ok(["device", "remove", "--sn", "A1"]);
    assert!(removed.contains("A1 was removed from tenant acme"), "{removed}");
    assert_eq!(shell.json(["device", "list", "--json"]).as_array().unwrap().len(), 0);
    for gone in [["device", "remove", "--sn", "A1"].to_vec(), move_to("zeta").to_vec()] {
        assert!(shell.run(gone).err.contains("there is no device A1"));
    }
}

#[test]
fn who_had_a_device_is_on_record() {
    let shell = with_tenant();
    shell.ok(["tenant", "create", "zeta"]);
    let tags = ["--tag", "north", "--tag", "roof"];
    let add = ["device", "add", "--sn", "D1", "--kind", "dock", "--tenant", "acme"];
    shell.ok(add.iter().chain(&tags));
    assert_eq!(
        shell.json(["device", "list", "--json"])[0]["tags"],
        serde_json::json!(["north", "roof"])
    );
    shell.ok(["device", "password", "D1"]);
    shell.ok(["device", "move", "--sn", "D1", "--tenant", "zeta"]);
    shell.ok(["device", "remove", "--sn", "D1"]);
    let lines = shell.json(["device", "history", "D1", "--json"]);
    let told: Vec<_> = lines
        .as_array()
        .unwrap()
        .iter()
        .map(|line| format!("{} {} {} {}", line["what"], line["from"], line["to"], line["by"]))
        .collect();
    assert_eq!(
        told,
        [
            r#""removed" "zeta" null "command line""#,
            r#""moved" "acme" "zeta" "command line""#,
            r#""password" "acme" "acme" "command line""#,
            r#""registered" null "acme" "command line""#,
        ]
    );
    let shown = shell.ok(["device", "history", "D1"]);
    assert!(shown.contains("moved") && shown.contains("zeta"), "{shown}");
    assert!(shell.ok(["device", "history", "D9"]).contains("nothing is on record of D9"));
}

#[test]
fn a_binding_code_is_shown_once_and_can_be_taken_back() {
    let shell = with_tenant();
    let create = ["device", "binding-code", "create", "--label", "North"];
    let shown = shell.ok(create);
    for part in
        ["username         its serial number", "organisation id  utmos", "one dock of tenant acme"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let made = shell.json(create.iter().chain(&["--uses", "3", "--expires", "7d", "--json"]));
    let code = made["code"].as_str().unwrap();
    assert_eq!(code.len(), 23, "{code}");
    let listed = shell.json(["device", "binding-code", "list", "--json"]);
    let of = |n: usize| (listed[n]["state"].clone(), listed[n]["uses_max"].clone());
    assert_eq!((of(0), of(1)), (("active".into(), 1.into()), ("active".into(), 3.into())));
    assert!(!listed.to_string().contains(code));
    shell.ok(["device", "binding-code", "revoke", made["id"].as_str().unwrap()]);
    let listed = shell.json(["device", "binding-code", "list", "--json", "--tenant", "acme"]);
    assert_eq!(listed[1]["state"], "revoked");
    let unknown = shell.run(["device", "binding-code", "revoke", "nothing"]);
    assert!(unknown.code == 1 && unknown.err.contains("there is no binding code"), "{unknown:?}");
    for bad in [["--uses", "0"], ["--uses", "10001"], ["--expires", "59s"], ["--expires", "31d"]] {
        assert_eq!(shell.run(create.iter().chain(&bad)).code, 2, "{bad:?}");
    }
}

#[test]
fn the_master_key_can_come_from_the_environment_and_must_stay_the_same() {
    let shell = Shell::new().set("UTMOS_MASTER_KEY", "ab".repeat(32));
    shell.ok(["tenant", "create", "acme"]);
    shell.ok(["credential", "create"]);
    assert!(!shell.path().join("utmos-data/master.key").exists());
    let shell = shell.set("UTMOS_MASTER_KEY", "cd".repeat(32));
    let run = shell.run(["credential", "list"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("another master key"), "{}", run.err);
}
