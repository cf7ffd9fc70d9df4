//! The file of the history: ours or refused, and no trouble to others.

use std::{fs, path::Path};

use utmos_core::ports::TelemetryStore;
use utmos_store::{HistoryFile, MasterKey, SqliteConfig, SqliteStore};

fn refusal(path: &Path) -> String {
    HistoryFile::open(path).err().unwrap().to_string()
}

#[tokio::test]
async fn a_file_that_is_something_else_is_refused_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    fs::write(&text, "not a database at all, but long enough to look like one".repeat(100))
        .unwrap();
    assert!(refusal(&text).contains("notes.txt"), "{}", refusal(&text));
    assert!(fs::read_to_string(&text).unwrap().starts_with("not a database"));

    // The commands' own database, by a slip in the configuration.
    let path = folder.path().join("utmos.sqlite");
    let config = SqliteConfig { path: path.clone(), master_key: MasterKey::generate().unwrap() };
    let store = SqliteStore::open(config.clone()).unwrap();
    store.close().await;
    let told = refusal(&path);
    assert!(told.contains("utmos.sqlite"), "{told}");
    SqliteStore::open(config).unwrap().close().await;

    let nowhere = folder.path().join("no/such/folder/history.sqlite");
    assert!(refusal(&nowhere).contains("check that its folder exists"), "{}", refusal(&nowhere));
}

#[tokio::test]
async fn a_file_of_a_newer_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.sqlite");
    HistoryFile::open(&path).unwrap().close().await;
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute("INSERT INTO schema_migrations (version) VALUES (999)", []).unwrap();
    let free: i64 = conn.query_row("PRAGMA auto_vacuum", [], |row| row.get(0)).unwrap();
    assert_eq!(free, 2, "what retention frees can be given back");
    drop(conn);
    assert!(refusal(&path).contains("newer"), "{}", refusal(&path));
}

#[tokio::test]
async fn damage_of_a_table_is_an_error_with_its_name_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.sqlite");
    let file = HistoryFile::open(&path).unwrap();
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch("ALTER TABLE telemetry_latest RENAME TO gone").unwrap();
    let asked = vec![(crate::given::tenant(1), crate::given::sn("D1"))];
    let told = file.latest_telemetry(asked).await.unwrap_err().to_string();
    assert!(told.contains("telemetry_latest"), "{told}");
    file.close().await;
}
