#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::PathBuf, sync::mpsc};

use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;
use utmos_core::{
    command::{Life, Outcome, Phase, Spec, Status},
    evidence::Proof,
};

use self::given::{at, change, moved, new, nonce, record, spec, tenant};
use super::{
    pending::{EVIDENCE_PER_COMMAND_MAX, NOTED_MAX, Unsettled},
    remembered::LATEST_MAX,
    settling::NONCES_PER_ROUND_MAX,
    *,
};
use crate::{MasterKey, SqliteConfig, SqliteStore};

#[expect(dead_code, reason = "what others start from as well")]
#[path = "../../tests/it/given.rs"]
pub(super) mod given;
mod medium;
mod nonces;
mod scripted;
mod settling;
mod shared;
mod slow;

/// A store with a journal, and a way to lock the database.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("emergency.journal")
    }

    fn aside(&self) -> PathBuf {
        self.folder.path().join("emergency.journal.aside")
    }

    fn damaged(&self, number: u32) -> PathBuf {
        self.folder.path().join(format!("emergency.journal.damaged-{number}"))
    }

    fn open(&self) -> Arc<JournalledStore> {
        let master_key = key();
        let path = self.folder.path().join("utmos.db");
        let store =
            SqliteStore::open(SqliteConfig { path, master_key: master_key.clone() }).unwrap();
        Arc::new(JournalledStore::open(Arc::new(store), &master_key, &self.journal()).unwrap())
    }

    /// Nobody else writes to the database as long as this lives.
    fn lock(&self) -> Connection {
        let conn = Connection::open(self.folder.path().join("utmos.db")).unwrap();
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        conn
    }

    /// What stands in the file.
    fn written(&self) -> Vec<u8> {
        let mut bytes = fs::read(self.journal()).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(end);
        bytes
    }
}

fn key() -> MasterKey {
    MasterKey::from_hex(&"5a".repeat(32)).unwrap()
}

pub(super) fn emergency(millis: i64, key: &str) -> Spec {
    Spec { risk: Risk::Emergency, method: "return_home".to_owned(), ..spec(millis, key) }
}

fn command_of(spec: Spec) -> Command {
    let new = new(spec);
    Command { spec: new.spec, life: new.life }
}

fn ended(command: &Command) -> Advance {
    change(command, moved(&command.life, Phase::Ended(Outcome::Succeeded), 5))
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_nobody_but_whoever_waits_for_it_and_those_not_for_long() {
    let place = Place::new();
    let store = place.open();
    let lock = place.lock();
    let first = command_of(emergency(0, "first"));
    let answer = store.accept(None, new((*first.spec).clone())).await.unwrap();
    assert_eq!(answer, Accepted::New);

    let (release, hangs) = mpsc::channel::<()>();
    let disk = store.clone();
    let hanging = tokio::spawn(async move {
        let job = move |_: &mut JournalFile, caller: Caller<()>| {
            let _released = hangs.recv();
            drop(caller.send(Ok(())));
        };
        disk.disk.run(job).await
    });
    tokio::task::yield_now().await;
    let (late, other) = (emergency(1, "late"), store.clone());
    let waiting = tokio::spawn({
        let late = late.clone();
        async move { other.accept(None, new(late)).await }
    });
    tokio::time::sleep(STORE_PATIENCE * 2).await;
    // Meanwhile.
    let soon = Duration::from_millis(100);
    let read = tokio::time::timeout(soon, store.command(first.spec.id)).await.unwrap();
    assert_eq!(read.unwrap(), Some(first.clone()));
    let again = emergency(9, "first");
    let again = tokio::time::timeout(soon, store.accept(None, new(again))).await.unwrap().unwrap();
    assert!(matches!(again, Accepted::Replayed { .. }), "{again:?}");
    let mut stale = ended(&first);
    stale.seen = stale.life.version.next();
    Arc::make_mut(&mut stale.life).version = stale.seen.next();
    let lost = tokio::time::timeout(soon, store.advance(stale)).await.unwrap().unwrap();
    assert_eq!(lost, Advanced::Lost);

    let refused = waiting.await.unwrap();
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    let advance = store.advance(ended(&first)).await;
    assert!(matches!(advance, Err(StoreError::Unavailable(_))), "{advance:?}");
    drop(release);
    assert!(hanging.await.unwrap().is_err(), "it took too long");
    // Nothing of what was refused is there, and both can be tried again.
    assert_eq!(store.unsettled(), 1);
    assert_eq!(store.command(first.spec.id).await.unwrap(), Some(first.clone()));
    assert_eq!(store.accept(None, new(late.clone())).await.unwrap(), Accepted::New);
    assert_eq!(store.advance(ended(&first)).await.unwrap(), Advanced::Yes);
    drop(store);
    let store = place.open();
    assert_eq!(store.unsettled(), 2);
    drop(lock);
    assert_eq!(store.settle().await.unwrap(), 2);
    let life = store.command(first.spec.id).await.unwrap().unwrap().life;
    assert_eq!(life, ended(&first).life);
    assert!(store.command(late.id).await.unwrap().is_some());
    assert!(place.written().is_empty());
}

#[tokio::test]
async fn a_record_whose_caller_went_away_while_it_was_written_is_taken_back() {
    let place = Place::new();
    let store = place.open();
    let written = |key: &str| Record::Accept { nonce: None, new: new(emergency(0, key)) };
    let pending = store.pending.clone();
    let (stay, gone) = (written("stay"), written("gone"));
    let job = move |file: &mut JournalFile, caller: Caller<()>| {
        for (record, waits) in [(stay, true), (gone, false)] {
            let (told, answer) = tokio::sync::oneshot::channel();
            let answer = waits.then_some(answer);
            file.append(&record).unwrap();
            put_in(&pending, file, record, &|_| None, told, ());
            drop(answer);
        }
        drop(caller.send(Ok(())));
    };
    store.disk.run(job).await.unwrap();
    assert_eq!(store.unsettled(), 1);
    assert_eq!(place.written().iter().filter(|byte| **byte == b'\n').count(), 1);
    drop(store);
    let store = place.open();
    assert_eq!(store.settle().await.unwrap(), 1);
    assert!(store.command(emergency(0, "stay").id).await.unwrap().is_some());
    assert!(store.command(emergency(0, "gone").id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_record_is_taken_back_where_the_store_told_of_its_copy_while_it_was_written() {
    let place = Place::new();
    let store = place.open();
    let (goes, copy) = (emergency(0, "k"), Arc::new(emergency(1, "k")));
    let (known, key) = (copy.clone(), goes.clone());
    let record = Record::Accept { nonce: None, new: new(goes) };
    let pending = store.pending.clone();
    let work = move |file: &mut JournalFile, caller: Caller<Accepted>| {
        file.append(&record).unwrap();
        lock(&pending).stored(known);
        put_in(&pending, file, record, &|pending| pending.same_key(&key), caller, Accepted::New);
    };
    let answer = store.disk.run(work).await.unwrap();
    assert!(matches!(answer, Accepted::Replayed { id, .. } if id == copy.id), "{answer:?}");
    assert!(place.written().is_empty() && store.unsettled() == 0);
}

#[tokio::test]
async fn copies_that_come_at_once_make_one_record() {
    let place = Place::new();
    let store = place.open();
    let _lock = place.lock();
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let (store, mut copy) = (store.clone(), emergency(number, "k"));
            copy.id = emergency(number, &format!("k{number}")).id;
            tokio::spawn(async move { store.accept(None, new(copy)).await.unwrap() })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        made += usize::from(task.await.unwrap() == Accepted::New);
    }
    assert_eq!((made, store.unsettled()), (1, 1));
}

#[tokio::test]
async fn an_emergency_that_ended_by_the_journal_is_not_watched_for_ever() {
    let place = Place::new();
    let store = place.open();
    let command = command_of(emergency(0, "k"));
    store.accept(Some(nonce(1, 9)), new((*command.spec).clone())).await.unwrap();
    let end = ended(&command);
    assert_eq!(store.pending().way_of(&end), Way::Either);
    let lock = place.lock();
    assert_eq!(store.advance(end.clone()).await.unwrap(), Advanced::Yes);
    assert_eq!(store.pending().way_of(&end), Way::Lost, "nobody else may move it");
    drop(lock);
    assert_eq!(store.settle().await.unwrap(), 1);
    // Its device may go on talking of it. The last that ended are known, all others are the store's.
    assert_eq!(store.pending().way_of(&end), Way::Either);
    for number in 0..LATEST_MAX {
        let other = command_of(emergency(i64::try_from(number).unwrap(), "other"));
        store.pending().watch(&Command { life: end.life.clone(), ..other });
    }
    assert_eq!(store.pending().way_of(&end), Way::Store);
    assert_eq!(store.command(command.spec.id).await.unwrap().unwrap().life, end.life);
}

#[test]
fn what_comes_while_others_settle_is_not_taken_for_settled() {
    let mut pending = Pending::default();
    let command = command_of(emergency(0, "k"));
    let id = command.spec.id;
    pending.add(Record::Accept { nonce: None, new: new((*command.spec).clone()) });
    let next = |pending: &Pending| {
        let [Unsettled { records, last, .. }] = &pending.oldest(9, &BTreeSet::new())[..] else {
            panic!("there is one")
        };
        assert_eq!(records.len(), 1);
        *last
    };
    let last = next(&pending);
    pending.add(Record::Advance { advance: ended(&command) });
    assert!(!pending.settled(id, last));
    assert!(!pending.settled(id, last), "by two that settle at once");
    let last = next(&pending);
    assert!(pending.settled(id, last));
    assert!(!pending.settled(id, last));
    assert_eq!(pending.len(), 0);
}

/// Puts an emergency into the journal of which the store was never asked.
async fn journalled(store: &JournalledStore, nonce: Option<NonceUse>, spec: Spec) {
    let record = Record::Accept { nonce, new: new(spec) };
    store.journal(record, |_| None, ()).await.unwrap();
}

/// Three emergencies in the journal, and the database as it was.
async fn three() -> (Place, [Command; 3]) {
    let place = Place::new();
    let store = place.open();
    let commands = ["one", "two", "three"].map(|key| {
        let payload = r#"{"password":"SECRET-THAT-IS-SENT"}"#.into();
        command_of(Spec { payload, ..emergency(0, key) })
    });
    for command in &commands {
        journalled(&store, None, (*command.spec).clone()).await;
    }
    assert_eq!(store.unsettled(), 3);
    (place, commands)
}

#[tokio::test]
async fn secrets_are_not_in_the_journal() {
    let (place, commands) = three().await;
    let bytes = place.written();
    let plain: Vec<_> = bytes
        .split(|byte| *byte == b'\n')
        .flat_map(|line| [line.to_vec(), hex::decode(line).unwrap()])
        .collect();
    for secret in ["SECRET-THAT", "password", "return_home"] {
        for bytes in &plain {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
        }
    }
    let store = place.open();
    assert_eq!(store.command(commands[0].spec.id).await.unwrap(), Some(commands[0].clone()));
}

#[tokio::test]
async fn a_damaged_line_stops_no_server_and_is_kept_aside() {
    // Damage to the second line: a changed digit, something else, a hole.
    for damage in [&b"X"[..], b"{\"record\":{}}", &[0; 40]] {
        let (place, commands) = three().await;
        let mut bytes = fs::read(place.journal()).unwrap();
        let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 3;
        bytes[second..second + damage.len()].copy_from_slice(damage);
        fs::write(place.journal(), &bytes).unwrap();
        let found = place.written();
        for _ in ["at first", "and again, before it was settled"] {
            let store = place.open();
            assert_eq!(store.unsettled(), 2);
            assert_eq!(fs::read(place.damaged(1)).unwrap(), found);
            assert!(!place.damaged(2).exists());
        }
        let store = place.open();
        assert_eq!(store.settle().await.unwrap(), 2);
        for (command, is_there) in commands.iter().zip([true, false, true]) {
            let kept = store.command(command.spec.id).await.unwrap();
            assert_eq!(kept, is_there.then(|| command.clone()));
        }
        drop(store);
        assert!(place.written().is_empty());
        assert_eq!(place.open().unsettled(), 0);
        assert!(!place.damaged(2).exists());
    }
}

#[tokio::test]
async fn a_journal_of_nothing_readable_is_kept_aside_and_begins_anew() {
    let place = Place::new();
    for number in 1..4 {
        let garbage = format!("{number} is no journal\n");
        fs::write(place.journal(), &garbage).unwrap();
        let store = place.open();
        assert_eq!(store.unsettled(), 0);
        assert_eq!(fs::read_to_string(place.damaged(number)).unwrap(), garbage);
        assert!(place.written().is_empty());
    }
}

#[tokio::test]
async fn a_line_that_was_never_finished_is_passed_over() {
    let (place, _) = three().await;
    let whole = place.written();
    let mut bytes = fs::read(place.journal()).unwrap();
    bytes[whole.len() - 1] = 0;
    fs::write(place.journal(), &bytes).unwrap();
    let store = place.open();
    assert_eq!(store.unsettled(), 2);
    assert!(!place.damaged(1).exists());
    drop(store);
    assert!(place.written().len() < whole.len(), "what was left of it is gone");
}

#[tokio::test]
async fn whatever_a_device_answers_can_be_read_back_from_the_journal() {
    let place = Place::new();
    let store = place.open();
    let lock = place.lock();
    let command = command_of(emergency(0, "k"));
    store.accept(None, new((*command.spec).clone())).await.unwrap();
    let deep = format!("{}1{}", "[".repeat(126), "]".repeat(126));
    let long = format!("\"{}\"", "x".repeat(100_000));
    let lines: Vec<_> = [&deep, &long]
        .map(|text| Entry {
            at: at(1),
            from: Status::Accepted,
            to: Status::Accepted,
            proof: Proof::Reply {
                gateway: "D1".to_owned(),
                method: None,
                code: None,
                data: serde_json::from_str(text).unwrap(),
                late_response: false,
                duplicate: false,
                mismatch: None,
            },
        })
        .into();
    let advance = record(&command, command.life.version, lines);
    assert_eq!(store.advance(advance).await.unwrap(), Advanced::Yes);
    let shown = store.timeline(command.spec.id).await.unwrap();
    drop(store);
    let store = place.open();
    assert_eq!(store.timeline(command.spec.id).await.unwrap(), shown);
    let mut data = Vec::new();
    for line in &shown[1..] {
        let Proof::Reply { data: read, .. } = &line.proof else { panic!("{line:?}") };
        data.push(read);
    }
    assert_eq!(*data[0], Value::String(deep));
    assert_eq!(data[1]["bytes"], long.len());
    drop(lock);
    assert_eq!(store.settle().await.unwrap(), 1);
    assert_eq!(store.timeline(command.spec.id).await.unwrap(), shown);
    let life: Arc<Life> = store.command(command.spec.id).await.unwrap().unwrap().life;
    assert_eq!(life, command.life);
}

#[tokio::test]
async fn what_was_used_before_is_known_while_nothing_can_be_written() {
    let place = Place::new();
    let store = place.open();
    let accept =
        async |number, spec| store.accept(Some(nonce(number, 900)), new(spec)).await.unwrap();
    let stop = emergency(0, "stop");
    assert_eq!(accept(1, stop.clone()).await, Accepted::New);
    let lock = place.lock();
    assert_eq!(accept(1, emergency(5, "captured")).await, Accepted::NonceReplayed);
    let again = accept(2, emergency(6, "stop")).await;
    assert!(matches!(again, Accepted::Replayed { id, .. } if id == stop.id), "{again:?}");
    let other = Spec { fingerprint: [7; 32], ..emergency(7, "stop") };
    assert_eq!(accept(3, other).await, Accepted::Conflict { id: stop.id });
    assert_eq!(store.unsettled(), 0, "nothing of it went by the journal");

    // So are the nonces of those who were only told what is known.
    assert_eq!(accept(2, emergency(11, "captured")).await, Accepted::NonceReplayed);
    assert_eq!(accept(3, emergency(12, "captured")).await, Accepted::NonceReplayed);

    // What went by the journal is known as well.
    assert_eq!(accept(4, emergency(8, "fresh")).await, Accepted::New);
    assert_eq!(accept(4, emergency(9, "captured")).await, Accepted::NonceReplayed);
    let copies = tokio::join!(accept(5, emergency(10, "one")), accept(5, emergency(11, "other")));
    let copies = [copies.0, copies.1];
    let taken = copies.iter().filter(|answer| **answer == Accepted::New).count();
    assert_eq!(taken, 1, "{copies:?}");
    assert_eq!(store.unsettled(), 2);
    let again = accept(6, emergency(13, "fresh")).await;
    assert!(matches!(again, Accepted::Replayed { .. }), "{again:?}");
    assert_eq!(accept(6, emergency(14, "captured")).await, Accepted::NonceReplayed);
    drop(lock);
    assert_eq!(store.settle().await.unwrap(), 2);
    drop(store);
    let store = place.open();
    for number in [2, 3, 6] {
        assert!(store.knows_nonce(&nonce(number, 900)), "{number} is on record");
    }
}

#[tokio::test]
async fn a_command_that_the_store_cannot_take_stays_and_the_others_go_on() {
    let place = Place::new();
    let mut store = place.open();
    let bad = emergency(0, "bad");
    for (number, spec) in (1..).zip([bad.clone(), emergency(1, "good"), emergency(2, "better")]) {
        journalled(&store, Some(nonce(number, 900)), spec).await;
    }
    // Its key leads to a command that is not there.
    let conn = Connection::open(place.folder.path().join("utmos.db")).unwrap();
    conn.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    let lookup = crate::idempotency::lookup_key(bad.tenant, "bad");
    conn.execute("INSERT INTO idempotency (key, row) VALUES (?1, 999)", [lookup]).unwrap();
    assert_eq!(store.settle().await.unwrap(), 2);
    assert_eq!((store.settle().await.unwrap(), store.unsettled()), (0, 1));
    assert!(store.command(emergency(2, "better").id).await.unwrap().is_some());
    assert!(place.written().is_empty(), "it takes no room from others");
    // What becomes of it is kept as well.
    let bad = command_of(bad);
    assert_eq!(store.advance(ended(&bad)).await.unwrap(), Advanced::Yes);
    for _ in ["from the file and what was set aside", "from what was set aside"] {
        drop(store);
        store = place.open();
        assert_eq!(store.unsettled(), 1, "it is kept");
        assert_eq!(store.command(bad.spec.id).await.unwrap().unwrap().life, ended(&bad).life);
        assert_eq!(store.settle().await.unwrap(), 0);
        assert!(place.written().is_empty() && place.aside().exists());
    }
    conn.execute("DELETE FROM idempotency WHERE row = 999", []).unwrap();
    assert_eq!(store.settle().await.unwrap(), 1);
    assert_eq!(store.command(bad.spec.id).await.unwrap().unwrap().life, ended(&bad).life);
    drop(store);
    assert!(place.written().is_empty() && !place.aside().exists());
}

#[tokio::test]
async fn records_do_not_wait_for_nonces_and_those_are_put_on_record_by_and_by() {
    let place = Place::new();
    let store = place.open();
    journalled(&store, None, emergency(0, "k")).await;
    let count = u128::try_from(NONCES_PER_ROUND_MAX).unwrap() + 1;
    (0..count).for_each(|number| store.pending().remember(nonce(number, 900)));
    assert_eq!(store.settle().await.unwrap(), 1);
    assert_eq!(store.unsettled_nonces(), 1, "one is left for the next time");
    assert_eq!(store.settle().await.unwrap(), 0);
    assert_eq!(store.unsettled_nonces(), 0);
    assert!(store.inner.knows_nonce(&nonce(count - 1, 900)));
}

#[tokio::test]
async fn a_nonce_that_another_request_spent_takes_no_key_away() {
    let place = Place::new();
    let store = place.open();
    let stop = emergency(0, "stop");
    journalled(&store, Some(nonce(1, 900)), stop.clone()).await;
    // By another server, say.
    let spent = store.inner.spend_nonce(nonce(1, 900)).await.unwrap();
    assert_eq!(spent, Nonce::Spent);
    assert_eq!(store.settle().await.unwrap(), 1);
    let kept = store.command(stop.id).await.unwrap().unwrap();
    assert_eq!(kept.spec.idempotency_key, "stop");
    let again = store.accept(Some(nonce(2, 900)), new(emergency(5, "stop"))).await.unwrap();
    assert!(matches!(again, Accepted::Replayed { id, .. } if id == stop.id), "{again:?}");
}

#[tokio::test]
async fn what_is_in_the_journal_holds_its_key_its_nonce_and_its_aircraft() {
    let place = Place::new();
    let store = place.open();
    let of = |spec: Spec, aircraft: Option<&str>| {
        new(Spec { aircraft: aircraft.map(given::sn), ..spec })
    };
    let home = Spec { starts_motion: true, ..emergency(0, "home") };
    let accept = async |number, new| store.accept(Some(nonce(number, 900)), new).await.unwrap();
    let journalled_home = Spec { aircraft: Some(given::sn("A1")), ..home.clone() };
    journalled(&store, Some(nonce(1, 900)), journalled_home).await;

    let busy = Accepted::Busy { id: home.id, method: "return_home".to_owned() };
    let takeoff = |key| given::takeoff(1, key);
    assert_eq!(accept(2, of(takeoff("same"), Some("A1"))).await, busy);
    assert_eq!(accept(3, of(takeoff("unknown"), None)).await, busy);
    assert_eq!(store.foresee(of(takeoff("same"), Some("A1"))).await.unwrap(), busy);
    assert_eq!(accept(4, of(takeoff("other"), Some("A2"))).await, Accepted::New);
    assert_eq!(accept(5, new(spec(1, "ground"))).await, Accepted::New);

    let again = accept(6, new(spec(2, "home"))).await;
    assert!(matches!(again, Accepted::Replayed { id, .. } if id == home.id), "{again:?}");
    let other = Spec { fingerprint: [9; 32], ..spec(2, "home") };
    assert_eq!(accept(7, new(other)).await, Accepted::Conflict { id: home.id });
    assert_eq!(accept(1, new(spec(3, "captured"))).await, Accepted::NonceReplayed);
    assert_eq!(accept(2, new(spec(3, "captured"))).await, Accepted::NonceReplayed);
    assert_eq!(store.spend_nonce(nonce(1, 900)).await.unwrap(), Nonce::Replayed);

    // And as it is in the journal, so it is in the store.
    assert_eq!(store.settle().await.unwrap(), 1);
    assert_eq!(accept(8, of(takeoff("same"), Some("A1"))).await, busy);
    let kept = store.command(home.id).await.unwrap().unwrap();
    assert_eq!(kept.spec.idempotency_key, "home");
    for number in [1, 2, 3, 6, 7] {
        assert!(store.inner.knows_nonce(&nonce(number, 900)), "{number} is on record");
    }
}

/// A medium of any size.
struct Small(Vec<u8>);

impl Medium for Small {
    fn path(&self) -> &Path {
        Path::new("small")
    }

    fn space(&self) -> usize {
        self.0.len()
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.0.clone())
    }

    fn write(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn keep_copy(&mut self, _: &[u8]) -> io::Result<PathBuf> {
        Ok(PathBuf::from("copy"))
    }
}

fn small(space: usize) -> JournalFile {
    let sealer = Sealer::new(&MasterKey::from_hex(&"5a".repeat(32)).unwrap());
    let (file, records) = JournalFile::open(Box::new(Small(vec![0; space])), &sealer).unwrap();
    assert!(records.is_empty());
    file
}

/// Something that a device said of a command, and that changes no state of it.
fn said(command: &Command, seen: utmos_core::command::StatusVersion, length: usize) -> Advance {
    let proof = Proof::Reply {
        gateway: "D1".to_owned(),
        method: None,
        code: None,
        data: Value::String("x".repeat(length)),
        late_response: false,
        duplicate: true,
        mismatch: None,
    };
    let (from, to) = (Status::Accepted, Status::Accepted);
    record(command, seen, vec![Entry { at: at(1), from, to, proof }])
}

#[tokio::test]
async fn a_dock_that_talks_much_does_not_fill_the_journal() {
    let place = Place::new();
    let store = place.open();
    let command = command_of(emergency(0, "k"));
    let version = command.life.version;
    journalled(&store, None, (*command.spec).clone()).await;
    for _ in 0..EVIDENCE_PER_COMMAND_MAX + 5 {
        let answer = store.advance(said(&command, version, 10)).await.unwrap();
        assert_eq!(answer, Advanced::Yes);
    }
    let lines = place.written().iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines, 1 + EVIDENCE_PER_COMMAND_MAX);
    let mut stale = said(&command, version.next(), 10);
    Arc::make_mut(&mut stale.life).version = version.next();
    assert_eq!(store.advance(stale).await.unwrap(), Advanced::Lost);
    assert_eq!(store.advance(ended(&command)).await.unwrap(), Advanced::Yes);
    assert_eq!(store.settle().await.unwrap(), 1);
    let kept = store.command(command.spec.id).await.unwrap().unwrap();
    assert_eq!(kept.life, ended(&command).life);
}

#[test]
fn half_of_the_journal_is_kept_for_emergencies_and_what_becomes_of_them() {
    let space = 200 << 10;
    let mut file = small(space);
    let command = command_of(emergency(0, "k"));
    // With a version of its own each, as progress has.
    let mut talk = said(&command, command.life.version, 4000);
    Arc::make_mut(&mut talk.life).version = talk.seen.next();
    let talk = Record::Advance { advance: talk };
    let mut count = 0;
    while file.append(&talk).is_ok() {
        count += 1;
    }
    assert!(count > 5, "{count}");
    assert!(matches!(file.append(&talk), Err(JournalError::Full)));
    let accept = Record::Accept { nonce: None, new: new(emergency(1, "other")) };
    file.append(&accept).unwrap();
    file.append(&Record::Advance { advance: ended(&command) }).unwrap();
    let mut claim = ended(&command);
    claim.life = moved(&command.life, Phase::Sending, 2);
    claim.entries = Arc::from([]);
    file.append(&Record::Advance { advance: claim }).unwrap();
    assert!(matches!(file.append(&talk), Err(JournalError::Full)));
    // What was said while nothing could be written, and a change with it: the change is kept.
    let Record::Advance { advance: talk } = talk else { unreachable!() };
    let mut mixed = ended(&command);
    let heard = (0..40).flat_map(|_| talk.entries.iter().cloned());
    mixed.entries = mixed.entries.iter().cloned().chain(heard).collect();
    let before = file.end();
    file.append(&Record::Advance { advance: mixed }).unwrap();
    assert!(file.end() - before < 8_000, "{}", file.end() - before);
    file.append(&Record::Accept { nonce: None, new: new(emergency(2, "third")) }).unwrap();
}
