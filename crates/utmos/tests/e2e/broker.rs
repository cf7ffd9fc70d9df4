//! `utmos broker config`: what is written for another broker, and what is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use crate::shell::Shell;

/// A serial number with all that one may hold.
const ODD: &str = "4TA-d_2.10";

fn with_docks() -> Shell {
    let shell = Shell::new();
    shell.ok(["tenant", "create", "acme"]);
    for sn in ["D1", "D2"] {
        shell.ok(["device", "add", "--sn", sn, "--kind", "dock"]);
    }
    shell
}

/// Users of Mosquitto and what is kept of their passwords.
fn kept(shell: &Shell) -> BTreeMap<String, String> {
    let text = fs::read_to_string(shell.path().join("out/utmos.passwords")).unwrap();
    let pairs = text.lines().map(|line| line.split_once(':').unwrap());
    pairs.map(|(user, kept)| (user.to_owned(), kept.to_owned())).collect()
}

#[test]
fn without_a_folder_rules_are_printed_and_nothing_is_written() {
    let shell = with_docks();
    let mosquitto = shell.ok(["broker", "config", "mosquitto"]);
    for expected in [
        "listener 1883 0.0.0.0",
        "allow_anonymous false",
        "user D1\n",
        "topic read thing/product/D2/services",
    ] {
        assert!(mosquitto.contains(expected), "{expected}\n{mosquitto}");
    }
    let emqx = shell.ok(["broker", "config", "emqx"]);
    assert!(
        emqx.contains("{allow, {username, \"D1\"}, publish, [") && emqx.contains("{deny, all}."),
        "{emqx}"
    );
    assert!(!emqx.contains("password_hash\""), "{emqx}");
    assert_eq!(fs::read_dir(shell.path()).unwrap().count(), 1, "the database alone");
    let shown = shell.run(["broker", "config", "mosquitto", "--new-passwords"]);
    assert_eq!(shown.code, 2, "there is no folder for them: {shown:?}");
}

#[test]
fn passwords_stay_until_they_are_renewed_and_go_with_their_device() {
    let shell = with_docks();
    let write = ["broker", "config", "mosquitto", "--out", "out", "--new-passwords"];
    assert_eq!(shell.ok(write), "");
    let first = kept(&shell);
    assert_eq!(first.keys().collect::<Vec<_>>(), ["D1", "D2", "utmos"]);
    shell.ok(write);
    assert_eq!(kept(&shell), first);
    let printed = shell.ok(write.into_iter().chain(["--renew", "D1", "--show-passwords"]));
    let (user, password) = printed.trim().split_once(' ').unwrap();
    assert_eq!((user, password.len()), ("D1", 20), "{printed}");
    assert!(!shell.holds(password), "what is printed is in no file");
    let second = kept(&shell);
    assert!(second["D1"] != first["D1"] && second["D2"] == first["D2"]);
    shell.ok(["device", "remove", "--sn", "D2"]);
    let gone = shell.run(write);
    assert!(gone.err.contains("no longer let in: D2"), "{}", gone.err);
    assert!(!kept(&shell).contains_key("D2"));
    assert!(!fs::read_to_string(shell.path().join("out/utmos.acl")).unwrap().contains("D2"));
}

#[test]
fn emqx_gets_hashes_that_only_their_owner_reads() {
    let shell = with_docks();
    shell.ok(["broker", "config", "emqx", "--out", "out"]);
    let file = shell.path().join("out/users.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let users: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(users.as_array().unwrap().len(), 2);
    assert_eq!((&users[1]["user_id"], &users[1]["salt"]), (&"D2".into(), &"D2\0".into()));
    assert!(
        shell.path().join("out/acl.conf").exists() && shell.path().join("out/emqx.conf").exists()
    );
}

/// Reads rules as EMQX does, and prints who may do what. EMQX 5 reads its file with `file:consult` and takes a term for a rule
/// where it has one of these shapes.
const READ_RULES: &str = r#"
    [Path] = init:get_plain_arguments(),
    {ok, Terms} = file:consult(Path),
    Say = fun
        ({deny, all}) -> io:format("deny all~n");
        ({allow, {username, User}, Action, Topics})
            when is_list(User), Action =:= publish orelse Action =:= subscribe, is_list(Topics) ->
            [io:format("~ts ~ts ~ts~n", [User, Action, Topic]) || Topic <- Topics]
    end,
    lists:foreach(Say, Terms),
    halt()."#;

fn as_emqx_reads_it(file: &Path) -> Vec<String> {
    let mut erlang = Command::new("erl");
    erlang.args(["-noinput", "-boot", "start_clean", "-eval", READ_RULES, "-extra"]).arg(file);
    let read = erlang.output();
    assert!(read.is_ok(), "Erlang is not installed; run: apt-get install -y erlang-base: {read:?}");
    let read = read.unwrap();
    assert!(read.status.success(), "{read:?}");
    String::from_utf8(read.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn what_is_written_for_emqx_erlang_reads_as_the_rules_that_mosquitto_gets() {
    let shell = with_docks();
    shell.ok(["device", "add", "--sn", ODD, "--kind", "remote_controller"]);
    shell.ok(["broker", "config", "emqx", "--out", "out"]);
    let mut read = as_emqx_reads_it(&shell.path().join("out/acl.conf"));
    assert_eq!(read.pop().as_deref(), Some("deny all"), "after all others");
    let mosquitto = shell.ok(["broker", "config", "mosquitto"]);
    let (mut expected, mut user) = (BTreeSet::new(), "");
    for line in mosquitto.lines() {
        if let Some(name) = line.strip_prefix("user ") {
            user = name;
        }
        let Some((how, topic)) = line.strip_prefix("topic ").and_then(|it| it.split_once(' '))
        else {
            continue;
        };
        for (action, ways) in
            [("publish", ["write", "readwrite"]), ("subscribe", ["read", "readwrite"])]
        {
            if ways.contains(&how) {
                expected.insert(format!("{user} {action} {topic}"));
            }
        }
    }
    assert!(expected.contains(&format!("{ODD} subscribe thing/product/{ODD}/services")));
    assert_eq!(read.into_iter().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn what_cannot_be_written_is_said_with_the_remedy() {
    let shell = with_docks();
    let write = ["broker", "config", "mosquitto", "--out", "out", "--new-passwords"];
    let says = |arguments: &[&str], expected: &str| {
        let run = shell.run(write.iter().chain(arguments));
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.err.contains(expected), "{expected}\n{}", run.err);
    };
    says(&["--renew", "D9"], "utmos device list");
    let named = ["--set", "mqtt.mode=external", "--set", "mqtt.external.host=b", "--set"];
    says(
        &[&named[..], &["mqtt.external.username=D1"]].concat(),
        "the server needs a name of its own",
    );
    says(&[&named[..], &["mqtt.external.username=a/b"]].concat(), "use letters and digits");
    says(
        &["--cert-file", "nothing.pem", "--key-file", "nothing.key"],
        "--cert-file nothing.pem cannot be found",
    );
    fs::create_dir_all(shell.path().join("out")).unwrap();
    shell.write("out/utmos.passwords", "D1:$7$101$a$b\nD2 in-clear\n");
    says(&[], "line 2");
    assert!(!shell.run(write).err.contains("in-clear"));
}
