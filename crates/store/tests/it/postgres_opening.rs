//! Opening a PostgreSQL that is not as it must be: errors that name the database and the remedy, and never the password.

use std::{path::Path, process::Command};

use utmos_core::ports::RegistryStore;
use utmos_store::{MasterKey, PostgresOpenError, PostgresStore, PostgresUrl};

use crate::{
    postgres_commands::{PostgresPlace, config},
    postgres_server::{Database, PostgresServer, Stop},
};

async fn refusal(url: &str) -> String {
    let refused = PostgresStore::open(config(url)).await;
    let mut text = String::new();
    let err = refused.unwrap_err();
    let mut next: Option<&dyn std::error::Error> = Some(&err);
    while let Some(err) = next {
        text.push_str(&format!("{err}; "));
        next = err.source();
    }
    text
}

#[tokio::test]
async fn what_cannot_be_reached_is_named_with_its_remedy() {
    let server = PostgresServer::shared();
    let there = server.database();
    let nobody = there.url().replace("//utmos@", "//nobody-here@");
    for (url, words) in [
        ("postgres://me:s3cret@127.0.0.1:1/utmos", ["127.0.0.1:1/utmos", "cannot reach"]),
        (&server.named("not_made").url(), ["not_made", "createdb"]),
        (&nobody, ["nobody-here", "check user and password"]),
        (
            &format!("{}?sslmode=require&sslrootcert=/nowhere/ca.pem", there.url()),
            ["TLS", "/nowhere/ca.pem"],
        ),
        (
            &format!("{}?sslmode=require&sslrootcert=/etc/hostname", there.url()),
            ["/etc/hostname", "no certificate"],
        ),
    ] {
        let text = refusal(url).await;
        for word in words {
            assert!(text.contains(word), "{url}: {text}");
        }
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[tokio::test]
async fn a_database_that_cannot_hold_every_text_is_refused() {
    let server = PostgresServer::shared();
    let beside = server.database();
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("in_{}", encoding.to_lowercase());
        beside.sql(&format!(
            "CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        ));
        let database = server.named(&name);
        let started = refusal(&database.url()).await;
        let url = PostgresUrl::parse(&database.url()).unwrap();
        let looked = PostgresStore::look(&url).await.unwrap_err().to_string();
        for text in [started, looked] {
            for word in [encoding, "--encoding=UTF8", &name] {
                assert!(text.contains(word), "{text}");
            }
        }
        let tables = "SELECT count(*) FROM pg_class WHERE relname = 'schema_migrations'";
        assert_eq!(database.sql(tables), "0", "left as it was");
    }
}

#[tokio::test]
async fn out_of_locks_is_named_with_both_remedies() {
    // Room for 10 locks each of some 20 sessions.
    let server = PostgresServer::own_with("max_locks_per_transaction = 10\nmax_connections = 20");
    let database = server.database();
    let url = database.url();
    let store = PostgresStore::open(config(&url)).await.unwrap();
    // A transaction of somebody else's takes what room is left, and a statement of ours finds none.
    database.sql(
        "CREATE FUNCTION take_locks() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN
             FOR n IN 1..1000000 LOOP PERFORM pg_advisory_xact_lock(n); END LOOP; RETURN 0; END $$;
         ALTER TABLE meta RENAME TO meta_before;
         CREATE VIEW meta AS SELECT name, value FROM meta_before WHERE take_locks() = 0",
    );
    drop(store);
    let text = refusal(&url).await;
    for word in ["max_locks_per_transaction", "store.commands_keep_days", "no room for more locks"]
    {
        assert!(text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn servers_that_start_together_make_one_schema() {
    let place = PostgresPlace::new();
    let stores = tokio::join!(place.store(), place.store(), place.store(), place.store());
    for store in [stores.0, stores.1, stores.2, stores.3] {
        assert_eq!(store.generation().await.unwrap(), 0);
    }
    PostgresStore::check(&config(&place.database.url())).await.unwrap();
}

#[tokio::test]
async fn a_schema_that_is_not_ours_is_refused_and_left_alone() {
    let place = PostgresPlace::new();
    let config = config(&place.database.url());
    let older = PostgresStore::check(&config).await.unwrap_err();
    assert!(matches!(older, PostgresOpenError::OlderSchema { found: 0, .. }), "{older}");
    assert!(older.to_string().contains("utmos store migrate"), "{older}");
    PostgresStore::migrate(&config).await.unwrap();
    PostgresStore::check(&config).await.unwrap();

    let mut stranger = config.clone();
    stranger.master_key = MasterKey::from_hex(&"08".repeat(32)).unwrap();
    let refused = PostgresStore::open(stranger).await.unwrap_err();
    assert!(matches!(refused, PostgresOpenError::OtherMasterKey(_)), "{refused}");

    place.database.sql("INSERT INTO schema_migrations VALUES (99, '\\x00')");
    let newer = PostgresStore::open(config.clone()).await.unwrap_err();
    assert!(matches!(newer, PostgresOpenError::NewerSchema { found: 99, .. }), "{newer}");
    place.database.sql("DELETE FROM schema_migrations WHERE version = 99");
    place.database.sql("UPDATE schema_migrations SET checksum = '\\x00' WHERE version = 1");
    let altered = PostgresStore::open(config).await.unwrap_err();
    assert!(matches!(altered, PostgresOpenError::Altered { number: 1, .. }), "{altered}");
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing() {
    let place = PostgresPlace::new();
    // Something else has a table of this name.
    place.database.sql("CREATE TABLE tenants (n int)");
    let failed = PostgresStore::open(config(&place.database.url())).await.unwrap_err();
    assert!(matches!(failed, PostgresOpenError::Migration { number: 1, .. }), "{failed}");
    assert_eq!(place.database.sql("SELECT count(*) FROM pg_class WHERE relname = 'commands'"), "0");
}

/// A server that speaks TLS only, and wants a password of the user `app`.
fn strict_server() -> (PostgresServer, Database) {
    let server = PostgresServer::own();
    let database = server.database();
    let name = database.url().rsplit('/').next().unwrap().to_owned();
    database.sql("CREATE ROLE app LOGIN PASSWORD 'r1ght'");
    database.sql(&format!("ALTER DATABASE {name} OWNER TO app"));
    database.sql("ALTER SCHEMA public OWNER TO app");
    database.sql("CREATE ROLE certified LOGIN IN ROLE app");
    server.stop(Stop::Fast);
    let (folder, data) = (server.folder(), server.folder().join("data"));
    certificates(folder, &database.address().ip().to_string());
    for file in ["server.crt", "server.key"] {
        let moved = data.join(file);
        std::fs::rename(folder.join(file), &moved).unwrap();
        let owner = std::fs::metadata(&data).unwrap();
        use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
        chown(&moved, Some(owner.uid()), Some(owner.gid())).unwrap();
        std::fs::set_permissions(&moved, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let hba = "host all utmos all trust\nhostssl all app all scram-sha-256\nhostssl all certified all cert\n";
    std::fs::write(data.join("pg_hba.conf"), hba).unwrap();
    let more = folder.join("more.conf");
    let authority = data.join("ca.crt");
    std::fs::copy(folder.join("ca.crt"), &authority).unwrap();
    std::fs::set_permissions(&authority, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    let text = std::fs::read_to_string(&more).unwrap() + "ssl = on\nssl_ca_file = 'ca.crt'\n";
    std::fs::write(&more, text).unwrap();
    server.begin();
    (server, database)
}

/// An authority in `ca.crt`, and certificates of it: for this address, and for the users `certified` and `other`. In `self.crt` one
/// for `certified` that nobody signed.
fn certificates(folder: &Path, address: &str) {
    let script = format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ca \\
             -keyout ca.key -out ca.crt &&
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=db -keyout server.key -out db.csr &&
         printf 'subjectAltName=IP:{address}\\nbasicConstraints=CA:FALSE\\n' >db.ext &&
         openssl x509 -req -in db.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile db.ext -out server.crt &&
         for user in certified other; do
             openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=$user -keyout $user.key -out user.csr &&
             openssl x509 -req -in user.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile user.ext -out $user.crt
         done &&
         openssl req -x509 -key certified.key -days 2 -subj /CN=certified -out self.crt"
    );
    std::fs::write(folder.join("user.ext"), "basicConstraints=CA:FALSE\n").unwrap();
    let said = Command::new("sh").args(["-ec", &script]).current_dir(folder).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

#[tokio::test]
async fn tls_checks_the_certificate_and_a_password_opens() {
    let (server, database) = strict_server();
    let url = |password: &str, options: &str| {
        database.url().replace("//utmos@", &format!("//app:{password}@")) + options
    };
    let ca = format!("?sslrootcert={}", server.folder().join("ca.crt").display());
    let store = PostgresStore::open(config(&url("r1ght", &ca))).await.unwrap();
    assert_eq!(store.generation().await.unwrap(), 0);
    drop(store);

    // The password may stand in a place of its own.
    let mut apart = PostgresUrl::parse(&database.url().replace("//utmos@", "//app@")).unwrap();
    apart.set_password("r1ght");
    apart.set_ca(server.folder().join("ca.crt"));
    let mut with_apart = config(&database.url());
    with_apart.url = apart;
    drop(PostgresStore::open(with_apart).await.unwrap());

    let wrong = refusal(&url("wr0ng", &ca)).await;
    assert!(wrong.contains("check user and password") && !wrong.contains("wr0ng"), "{wrong}");
    let plain = refusal(&url("r1ght", "?sslmode=disable")).await;
    assert!(plain.contains("does not let this user in"), "{plain}");
    // Nobody whom we believe has signed it.
    let stranger = refusal(&url("r1ght", "?sslmode=require")).await;
    assert!(stranger.contains("certificate"), "{stranger}");
}

#[tokio::test]
async fn a_certificate_of_the_client_opens_for_its_user_alone() {
    let (server, database) = strict_server();
    let folder = server.folder().to_owned();
    let url = |certificate: &str, key: &str| {
        let path = |name: &str| folder.join(name).display().to_string();
        let url = database.url().replace("//utmos@", "//certified@");
        let ca = path("ca.crt");
        format!("{url}?sslrootcert={ca}&sslcert={}&sslkey={}", path(certificate), path(key))
    };
    let store = PostgresStore::open(config(&url("certified.crt", "certified.key"))).await.unwrap();
    assert_eq!(store.generation().await.unwrap(), 0);
    drop(store);

    let none = database.url().replace("//utmos@", "//certified@");
    let none = format!("{none}?sslrootcert={}", folder.join("ca.crt").display());
    for (url, reason) in [
        (none, "does not let this user in"),
        (url("other.crt", "other.key"), "does not let this user in"),
        // PostgreSQL ends the connection, since its authority has not signed that.
        (url("self.crt", "certified.key"), "cannot reach PostgreSQL"),
        (url("certified.crt", "other.key"), "key"),
        (url("missing.crt", "certified.key"), "missing.crt"),
    ] {
        let said = refusal(&url).await;
        assert!(said.contains(reason), "{url}: {said}");
    }
}

#[tokio::test]
async fn a_socket_of_the_file_system_opens_without_tls() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let path = folder.path().display().to_string();
    let server = PostgresServer::own_with(&format!("unix_socket_directories = '{path}'"));
    let database = server.database();
    let name = database.url().rsplit('/').next().unwrap().to_owned();
    let url = format!("postgres://utmos@{}/{name}", path.replace('/', "%2F"));
    let store = PostgresStore::open(config(&url)).await.unwrap();
    assert_eq!(store.generation().await.unwrap(), 0);
}
