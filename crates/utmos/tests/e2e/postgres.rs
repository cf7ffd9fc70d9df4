//! The program on PostgreSQL: what an administrator does, and commands that dock and aircraft carry out.

use crate::{
    demo::Demo,
    postgres_server::PostgresServer,
    shell::{Shell, run},
};

#[test]
fn an_administrator_works_on_postgresql_as_on_sqlite() {
    let database = PostgresServer::shared().database();
    let shell = Shell::new().set("UTMOS_STORE_URL", database.url());
    let unmade = shell.run(["store", "check"]);
    assert_eq!(unmade.code, 1, "{unmade:?}");
    assert!(unmade.err.contains("utmos store migrate"), "{unmade:?}");
    shell.ok(["store", "migrate"]);
    shell.ok(["tenant", "create", "acme"]);
    shell.ok(["device", "add", "--sn", "D1", "--kind", "dock"]);
    let made = shell.json(["credential", "create", "--json"]);
    let listed = shell.json(["credential", "list", "--json"]);
    assert_eq!(listed[0]["api_id"], made["api_id"]);
    assert_eq!(database.sql("SELECT sn FROM devices"), "D1");
    assert!(shell.ok(["store", "check"]).contains("Nothing is wrong"));
    let copied = shell.run(["store", "backup", "copy.sqlite"]);
    assert!(copied.err.contains("pg_dump"), "{copied:?}");
    assert!(!shell.path().join("utmos-data/utmos.sqlite").exists());
}

/// Whoever sets a server up asks doctor first, before there is any key.
#[test]
fn doctor_tries_the_database_before_there_is_a_key_and_makes_nothing() {
    let server = PostgresServer::own();
    let (database, shell) = (server.database(), Shell::new());
    let ports = ["--http-listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0"];
    let doctor = |url: &str| {
        let url = format!("store.url={url}");
        shell.run(["doctor", "--set", &url].iter().chain(&ports))
    };
    let run = doctor(&database.url());
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.out.contains("takes writes; the first start makes its tables"), "{}", run.out);
    assert!(run.out.contains("warn master key"), "{}", run.out);
    assert_eq!(database.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
    assert_eq!(std::fs::read_dir(shell.path()).unwrap().count(), 0, "it makes nothing");

    // What each of these has, and nobody has a key.
    let other = Shell::new();
    other.ok(["store", "migrate", "--set", &format!("store.url={}", database.url())]);
    let run = doctor(&database.url());
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.out.contains("takes writes and has schema"), "{}", run.out);
    let (nobody, missing) = (database.url().replace("//utmos@", "//nobody@"), server.named("gone"));
    for (url, words) in [
        ("postgres://utmos@127.0.0.1:1/utmos", "cannot reach PostgreSQL"),
        (&nobody, "check user and password"),
        (&missing.url(), "make it with: createdb"),
    ] {
        let run = doctor(url);
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.out.contains("FAIL store") && run.out.contains(words), "{words}: {}", run.out);
    }
    for (change, back, words) in [
        (
            "INSERT INTO schema_migrations VALUES (99, '\\x00')",
            "DELETE FROM schema_migrations WHERE version = 99",
            "made by a newer version",
        ),
        (
            "INSERT INTO meta VALUES ('exported', '\\x00')",
            "DELETE FROM meta WHERE name = 'exported'",
            "was exported",
        ),
        (
            "ALTER ROLE utmos SET default_transaction_read_only = on",
            "BEGIN READ WRITE; ALTER ROLE utmos RESET default_transaction_read_only; COMMIT",
            "PostgreSQL is read-only",
        ),
    ] {
        database.sql(change);
        let run = doctor(&database.url());
        database.sql(back);
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.out.contains("FAIL store") && run.out.contains(words), "{words}: {}", run.out);
    }
    database.sql("DELETE FROM schema_migrations WHERE version = 13");
    let run = doctor(&database.url());
    assert!(run.out.contains("has schema 12, older than 13"), "{}", run.out);
    database.sql("CREATE ROLE guest LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO guest; GRANT ALL ON SCHEMA public TO guest");
    let run = doctor(&database.url().replace("//utmos@", "//guest@"));
    assert!(run.out.contains("belongs to user utmos"), "{}", run.out);
}

#[test]
fn the_address_shows_nowhere_and_stands_beside_no_file() {
    let database = PostgresServer::shared().database();
    let url = database.url().replace("//utmos@", "//utmos:s3cret@");
    let shell = Shell::new().set("UTMOS_STORE_URL", url);
    let shown = shell.run(["config", "check"]);
    assert!(shown.out.contains("store.url"), "{shown:?}");
    assert!(!shown.out.contains("s3cret") && !shown.err.contains("s3cret"), "{shown:?}");
    let both = shell.run(["tenant", "list", "--set", "store.path=here.sqlite"]);
    assert_ne!(both.code, 0, "{both:?}");
    assert!(both.err.contains("store.path") && both.err.contains("store.url"), "{both:?}");
    let wrong = shell.run(["tenant", "list", "--set", "store.url=mysql://utmos:s3cret@h/d"]);
    assert!(wrong.err.contains("postgres://") && !wrong.err.contains("s3cret"), "{wrong:?}");
}

#[test]
fn commands_end_as_they_should_with_everything_on_postgresql() {
    let database = PostgresServer::shared().database();
    let shell = Shell::new();
    let url = format!("store.url={}", database.url());
    let demo = Demo::start_with(&shell, &["--set", &url]);
    let cover = demo.lines_after("open a cover …");
    let cover = run(shell.command("sh").args(["-c", &cover]));
    assert_eq!(cover.out.matches("SUCCEEDED").count(), 2, "{cover:?}");
    let flight = run(shell.command("sh").args(["-c", &demo.lines_after("… fly …")]));
    assert_eq!(flight.code, 0, "{flight:?}");
    assert_eq!(demo.stop(), Some(0));
    assert!(!shell.path().join("utmos-demo/utmos.sqlite").exists());
    assert_eq!(database.sql("SELECT count(*) >= 2 FROM lives WHERE phase = 5"), "t");
    let checked = shell.ok(["store", "check", "--data-dir", "utmos-demo", "--set", &url]);
    assert!(checked.contains("Nothing is wrong"), "{checked}");
}

#[test]
fn a_sqlite_database_is_taken_over_and_back_when_its_server_has_stopped() {
    let (database, shell) = (PostgresServer::shared().database(), Shell::new());
    let url = format!("store.url={}", database.url());
    let import = || shell.run(["store", "import", "--data-dir", "utmos-demo", "--set", &url]);
    let demo = Demo::start_with(&shell, &[]);
    let refused = import();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("stop the server"), "{refused:?}");
    assert_eq!(demo.stop(), Some(0));
    let of_before = shell.json(["credential", "list", "--json", "--data-dir", "utmos-demo"]);

    let taken = import();
    assert_eq!(taken.code, 0, "{taken:?}");
    assert!(taken.out.contains("was compared"), "{taken:?}");
    let demo = Demo::start_with(&shell, &["--set", &url]);
    let cover = run(shell.command("sh").args(["-c", &demo.lines_after("open a cover …")]));
    assert_eq!(cover.out.matches("SUCCEEDED").count(), 2, "{cover:?}");
    assert_eq!(demo.stop(), Some(0));
    let now =
        shell.json(["credential", "list", "--json", "--data-dir", "utmos-demo", "--set", &url]);
    assert_eq!(now, of_before);
    let again = import();
    assert!(again.err.contains("was filled from this database before"), "{again:?}");
    let tidied = ["store", "tidy", "--older-than", "30", "--data-dir", "utmos-demo", "--set", &url];
    assert!(shell.ok(tidied).contains("weeks dropped: 0"));
    // What the devices told is there, too, and not in a file.
    assert_ne!(database.sql("SELECT count(*) FROM history_latest"), "0");

    let demo = Demo::start_with(&shell, &["--set", &url]);
    let into = ["--into", "back/utmos.sqlite", "--data-dir", "utmos-demo", "--set", &url];
    let export = || shell.run(["store", "export"].iter().chain(&into));
    let refused = export();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("journal of emergencies"), "{refused:?}");
    assert_eq!(demo.stop(), Some(0));
    let taken = export();
    assert_eq!(taken.code, 0, "{taken:?}");
    assert!(taken.out.contains("was compared"), "{taken:?}");
    let closed = shell.run(["tenant", "list", "--data-dir", "utmos-demo", "--set", &url]);
    assert!(closed.code != 0 && closed.err.contains("was exported"), "{closed:?}");
    let again = export();
    assert!(again.err.contains("is there already"), "{again:?}");
    let path = ["--set", "store.path=back/utmos.sqlite"];
    let demo = Demo::start_with(&shell, &path);
    let cover = run(shell.command("sh").args(["-c", &demo.lines_after("open a cover …")]));
    assert_eq!(cover.out.matches("SUCCEEDED").count(), 2, "{cover:?}");
    assert_eq!(demo.stop(), Some(0));
    let list = ["credential", "list", "--json", "--data-dir", "utmos-demo"];
    assert_eq!(shell.json(list.iter().chain(&path)), of_before);
}

#[test]
fn a_server_drops_the_weeks_that_are_older_than_it_keeps_them() {
    let (database, shell) = (PostgresServer::shared().database(), Shell::new());
    let url = format!("store.url={}", database.url());
    let keep = ["--set", "store.commands_keep_days=30"];
    let refused = shell.run(["config", "check"].iter().chain(&keep));
    assert!(refused.code != 0 && refused.err.contains("store.commands_keep_days"), "{refused:?}");
    assert!(refused.err.contains("store.url"), "{refused:?}");

    shell.ok(["store", "migrate", "--data-dir", "utmos-demo", "--set", &url]);
    for table in ["commands", "lives", "timeline"] {
        let range = "FROM ('00000000-0000-7000-8000-000000000000') TO ('00000001-0000-7000-8000-000000000000')";
        database.sql(&format!("CREATE TABLE {table}_w0 PARTITION OF {table} FOR VALUES {range}"));
    }
    let demo = Demo::start_with(&shell, &["--set", &url, keep[0], keep[1]]);
    let is_gone = "SELECT to_regclass('commands_w0') IS NULL";
    assert!((0..2_000).any(|_| database.sql(is_gone) == "t"), "it is there still");
    let cover = run(shell.command("sh").args(["-c", &demo.lines_after("open a cover …")]));
    assert_eq!(cover.out.matches("SUCCEEDED").count(), 2, "{cover:?}");
    assert_eq!(demo.stop(), Some(0));
}
