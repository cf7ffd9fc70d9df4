//! Nonces of requests that are answered with what came of another, while the store is unwell.

use super::{
    medium::Platter,
    scripted::{Mood, Scripted},
    *,
};

/// A server on a platter that outlives it, before a store that refuses whatever is to be written.
struct Unwell {
    _folder: TempDir,
    scripted: Arc<Scripted>,
    platter: Platter,
}

impl Unwell {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("utmos.db");
        let store = SqliteStore::open(SqliteConfig { path, master_key: key() }).unwrap();
        let scripted = Arc::new(Scripted::new(Arc::new(store)));
        scripted.is(Mood::Stuck);
        // It says no at once.
        scripted.release();
        Self { _folder: folder, scripted, platter: Platter::new(256 << 10) }
    }

    /// The next process.
    fn starts(&self) -> Arc<JournalledStore> {
        let platter = Box::new(self.platter.clone());
        let (store, mut writer) =
            JournalledStore::on(self.scripted.clone(), &key(), platter).unwrap();
        tokio::spawn(async move {
            while let Some(job) = writer.next().await {
                writer.perform(job);
            }
        });
        Arc::new(store)
    }
}

async fn accept(store: &JournalledStore, number: u128, spec: Spec) -> Accepted {
    store.accept(Some(nonce(number, 900)), new(spec)).await.unwrap()
}

fn is_replayed(answer: &Accepted) -> bool {
    matches!(answer, Accepted::Replayed { .. })
}

/// Found by a trial: the nonce was in memory, and its process died before the store was well.
#[tokio::test]
async fn the_nonce_of_a_repeated_request_outlives_its_process() {
    let unwell = Unwell::new();
    let store = unwell.starts();
    assert_eq!(accept(&store, 1, emergency(0, "k")).await, Accepted::New);
    unwell.scripted.refuses_nonces(true);
    assert!(is_replayed(&accept(&store, 2, emergency(1, "k")).await));
    assert_eq!((store.unsettled(), store.unsettled_nonces()), (1, 1));
    drop(store);
    let store = unwell.starts();
    assert_eq!(store.unsettled_nonces(), 1);
    assert_eq!(accept(&store, 2, emergency(2, "captured")).await, Accepted::NonceReplayed);
    assert_eq!(accept(&store, 2, spec(2, "captured")).await, Accepted::NonceReplayed);
    unwell.scripted.is(Mood::Well);
    unwell.scripted.refuses_nonces(false);
    store.settle().await.unwrap();
    assert_eq!(store.unsettled_nonces(), 0);
    assert!(unwell.scripted.inner.knows_nonce(&nonce(2, 900)));
    drop(store);
    assert_eq!(unwell.starts().unsettled_nonces(), 0, "its line is gone");
}

#[tokio::test]
async fn of_identical_requests_at_once_one_is_answered() {
    let unwell = Unwell::new();
    unwell.scripted.refuses_nonces(true);
    let store = unwell.starts();
    assert_eq!(accept(&store, 1, emergency(0, "k")).await, Accepted::New);
    let same = || accept(&store, 2, emergency(1, "k"));
    let answers = tokio::join!(same(), same(), same());
    let answers = [answers.0, answers.1, answers.2];
    let replays = answers.iter().filter(|answer| **answer == Accepted::NonceReplayed).count();
    assert_eq!(replays, 2, "{answers:?}");
    assert!(answers.iter().any(is_replayed), "{answers:?}");
}

/// What is captured and refused today could be good tomorrow.
#[tokio::test]
async fn no_other_command_is_answered_before_its_nonce_is_on_record() {
    let unwell = Unwell::new();
    let store = unwell.starts();
    let home = Spec { starts_motion: true, aircraft: Some(given::sn("A1")), ..emergency(0, "k") };
    assert_eq!(accept(&store, 1, home.clone()).await, Accepted::New);
    let takeoff = || Spec { aircraft: Some(given::sn("A1")), ..given::takeoff(1, "takeoff") };
    unwell.scripted.refuses_nonces(true);
    let refused = store.accept(Some(nonce(2, 900)), new(takeoff())).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    unwell.scripted.refuses_nonces(false);
    let busy = Accepted::Busy { id: home.id, method: "return_home".to_owned() };
    assert_eq!(accept(&store, 2, takeoff()).await, busy);
    drop(store);
    assert_eq!(accept(&unwell.starts(), 2, takeoff()).await, Accepted::NonceReplayed);
}

#[tokio::test]
async fn nonces_have_a_bound_in_the_journal_and_what_does_not_fit_is_in_memory() {
    let unwell = Unwell::new();
    unwell.scripted.refuses_nonces(true);
    let store = unwell.starts();
    assert_eq!(accept(&store, 0, emergency(0, "k")).await, Accepted::New);
    let count = u128::try_from(NOTED_MAX).unwrap();
    for number in 1..=count + 1 {
        assert!(is_replayed(&accept(&store, number, emergency(1, "k")).await));
    }
    let held = store.pending().noted().len();
    assert!(held <= NOTED_MAX && store.unsettled_nonces() == NOTED_MAX + 1, "{held}");
    // Half of the room is left for emergencies.
    assert_eq!(accept(&store, count + 2, emergency(2, "other")).await, Accepted::New);
    for number in 1..=count + 2 {
        let again = accept(&store, number, emergency(3, "captured")).await;
        assert_eq!(again, Accepted::NonceReplayed, "{number}");
    }
    // A file that refuses as well holds up no answer.
    unwell.platter.fails(true);
    assert!(is_replayed(&accept(&store, count + 3, emergency(1, "k")).await));
    unwell.platter.fails(false);
    drop(store);
    assert_eq!(unwell.starts().unsettled_nonces(), held, "what was in memory is gone");
}
