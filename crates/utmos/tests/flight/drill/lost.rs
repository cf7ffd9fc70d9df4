//! A database that is empty or gone: refused where one was used, since what was accepted is not in a new one; and made where
//! none was, also when an earlier first start was killed anywhere on its way.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    damage::{change, database, killed_place, log, stopped_place},
    skipped, until_ready,
};
use crate::{place::Place, process::Process};

/// What a first start writes, deletes and makes durable.
const CALLS: &str = "openat,mkdir,write,pwrite64,ftruncate,fsync,fdatasync,unlink,linkat,rename";
/// So many of the calls of one kind about one file are killed at, and the last of them.
const FIRST_ONES: usize = 3;
/// Otherwise it is no longer seen what a first start does.
const PLACES_MIN: usize = 40;

fn nonces(place: &Place) -> PathBuf {
    place.data_dir().join("utmos.sqlite.nonces")
}

fn journal(place: &Place) -> PathBuf {
    place.data_dir().join("emergency.journal")
}

/// Every file of a place with what is in it; the history is another matter, and the doctor looks at it.
fn files(place: &Place) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(place.data_dir()).unwrap().map(|entry| entry.unwrap().path());
    let is_history =
        |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("history.");
    files
        .filter(|path| !is_history(path))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// No server starts, nor does anything else make or change a file, and all say why.
async fn is_refused(place: &Place, how: &str, trace: &Path) {
    let before = files(place);
    let why = format!("utmos.sqlite is {how}, and {} beside it", trace.display());
    let started = place.refuses_to_start().await;
    assert!(started.contains(&why) && started.contains("docs/recovery.md"), "{why}: {started}");
    for arguments in [["store", "check"], ["tenant", "list"], ["broker", "users"]] {
        let done = place.utmos(&arguments).args(["--data-dir", "data"]).output().unwrap();
        assert!(!done.status.success(), "{arguments:?}: {done:?}");
    }
    let doctor = place.utmos(&["doctor", "--data-dir", "data"]).output().unwrap();
    assert!(
        String::from_utf8_lossy(&doctor.stdout).contains(&format!("is {how}, and ")),
        "{doctor:?}"
    );
    let after = files(place);
    let is_same = |path: &&PathBuf| before.get(*path) == after.get(*path);
    let changed: Vec<_> = before.keys().chain(after.keys()).filter(|path| !is_same(path)).collect();
    assert!(changed.is_empty(), "made or changed: {changed:?}");
}

/// Put back, everything is there.
async fn goes_on_with(place: &Place, kept: &[u8], made: &[String]) {
    fs::write(database(place), kept).unwrap();
    let process = place.spawn(None).await;
    assert_eq!(place.api().commands().await.len(), made.len());
    process.stop().await;
}

#[tokio::test]
async fn an_emptied_database_is_refused() {
    let (place, made) = stopped_place().await;
    let kept = fs::read(database(&place)).unwrap();
    change(&database(&place), Vec::clear);
    is_refused(&place, "empty", &nonces(&place)).await;
    goes_on_with(&place, &kept, &made).await;
}

#[tokio::test]
async fn a_database_that_is_gone_is_refused() {
    let (place, made) = stopped_place().await;
    let kept = fs::read(database(&place)).unwrap();
    fs::remove_file(database(&place)).unwrap();
    is_refused(&place, "missing", &nonces(&place)).await;
    // Nor is a key made that would open nothing of it.
    let key = place.data_dir().join("master.key");
    fs::rename(&key, place.path("master.key")).unwrap();
    is_refused(&place, "missing", &nonces(&place)).await;
    fs::rename(place.path("master.key"), &key).unwrap();
    goes_on_with(&place, &kept, &made).await;
}

#[tokio::test]
async fn an_emptied_database_beside_a_full_log_is_refused_and_the_log_is_kept() {
    let (place, made) = killed_place().await;
    let kept = fs::read(database(&place)).unwrap();
    change(&database(&place), Vec::clear);
    is_refused(&place, "empty", &log(&place)).await;
    let beside = fs::read(nonces(&place)).unwrap();
    fs::remove_file(nonces(&place)).unwrap();
    is_refused(&place, "empty", &log(&place)).await;
    fs::write(nonces(&place), beside).unwrap();
    goes_on_with(&place, &kept, &made).await;
}

#[tokio::test]
async fn a_journal_with_something_in_it_tells_that_there_was_a_database() {
    let (place, _) = stopped_place().await;
    let lose = || {
        for file in files(&place).into_keys() {
            if file.file_name().unwrap().to_str().unwrap().starts_with("utmos.sqlite") {
                fs::remove_file(file).unwrap();
            }
        }
    };
    // One without is there with PostgreSQL as the store as well.
    lose();
    place.spawn(None).await.stop().await;
    lose();
    let mut emergency = fs::OpenOptions::new().write(true).open(journal(&place)).unwrap();
    std::io::Write::write_all(&mut emergency, b"00ff").unwrap();
    is_refused(&place, "missing", &journal(&place)).await;
    // Whoever begins anew on purpose says so by moving it away too.
    fs::remove_file(journal(&place)).unwrap();
    place.spawn(None).await.stop().await;
}

/// The server with what it asks of the system looked at; `None` where that cannot be done.
fn watched(place: &Place, eye: &[&str]) -> Option<Command> {
    let why = match Command::new("strace").args(["-o", "/dev/null", "--", "true"]).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(_) => Some("there is no strace; run: apt-get install -y strace".to_owned()),
    };
    if let Some(why) = why {
        skipped("a first start that is killed", &why);
        return None;
    }
    let serve = place.serve();
    let mut command = Command::new("strace");
    // The server stays the process that is started; whoever looks at it is the child.
    command.args(["-D", "-f", "-qq", "-y", "-s", "0"]).args(eye).arg("--");
    command.arg(serve.get_program()).args(serve.get_args());
    command.current_dir(place.path("")).env_clear();
    Some(command)
}

/// A call, the file it is about, and how many of its kind a thread makes at most.
type Points = BTreeMap<(String, String), usize>;

/// Everything a first start asks of the system about its files.
fn points(place: &Place, calls: &str) -> Points {
    let folder = format!("{}/", place.data_dir().display());
    let mut counts: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
    for line in calls.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let Some((call, about)) = call.trim_start().split_once('(') else { continue };
        let Some((_, file)) = about.split_once(&folder) else { continue };
        let file = file.split(['"', '>']).next().unwrap();
        *counts.entry((thread, call, file)).or_default() += 1;
    }
    let mut points = Points::new();
    for ((_, call, file), count) in counts {
        // What is called otherwise each time cannot be named beforehand.
        if !file.ends_with(".new") {
            let most = points.entry((call.to_owned(), file.to_owned())).or_default();
            *most = count.max(*most);
        }
    }
    points
}

#[tokio::test]
async fn after_a_first_start_that_was_killed_anywhere_another_one_goes() {
    let place = Place::empty();
    let seen = place.path("calls");
    let eye = ["-e", &format!("trace={CALLS}"), "-o", seen.to_str().unwrap()];
    let Some(serve) = watched(&place, &eye) else { return };
    Process::start(serve).await.stop().await;
    let points = points(&place, &fs::read_to_string(&seen).unwrap());
    let has = |call: &str, file: &str| points.contains_key(&(call.to_owned(), file.to_owned()));
    assert!(
        has("pwrite64", "utmos.sqlite") && has("ftruncate", "utmos.sqlite.nonces"),
        "{points:?}"
    );
    let mut killed = 0;
    for ((call, file), count) in points {
        // The first ones and the last; in between a file is just being written to.
        for nth in (1..=count).filter(|nth| *nth <= FIRST_ONES || *nth == count) {
            let place = Place::empty();
            let path = place.data_dir().join(&file);
            let kill = format!("inject={call}:signal=KILL:when={nth}");
            let trace = format!("trace={call}");
            let eye = ["-P", path.to_str().unwrap(), "-e", &trace, "-e", &kill, "-o", "/dev/null"];
            let serve = watched(&place, &eye).unwrap();
            killed += usize::from(Process::starts_or_dies(serve).await.is_none());
            let again = place.spawn(None).await;
            until_ready(&place).await;
            again.kill().await;
        }
    }
    assert!(PLACES_MIN <= killed, "{killed}");
}
