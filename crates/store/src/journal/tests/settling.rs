//! What an earlier process left in the journal goes on record: many side by side, and whatever comes between.

use std::collections::BTreeMap;

use super::{
    super::settling::SETTLED_AT_ONCE,
    medium::Platter,
    scripted::{Death, Scripted},
    *,
};

/// A server on a platter, before a store; both outlive it.
struct Site {
    folder: TempDir,
    scripted: Arc<Scripted>,
    platter: Platter,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("utmos.db");
        let store = SqliteStore::open(SqliteConfig { path, master_key: key() }).unwrap();
        let scripted = Arc::new(Scripted::new(Arc::new(store)));
        Self { folder, scripted, platter: Platter::new(256 << 10) }
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

    /// The commands on record, in the order in which they came there.
    fn stored(&self) -> Vec<CommandId> {
        let conn = Connection::open(self.folder.path().join("utmos.db")).unwrap();
        let mut select = conn.prepare("SELECT id FROM commands ORDER BY row").unwrap();
        let ids = select.query_map([], |row| row.get::<_, [u8; 16]>(0)).unwrap();
        ids.map(|id| CommandId::new(Uuid::from_bytes(id.unwrap()))).collect()
    }
}

/// What the journal has of an emergency: accepted, sent, talked of, and ended.
fn story(number: i64) -> Vec<Record> {
    let spec = emergency(number, &format!("k{number}"));
    let accepted = command_of(spec);
    let nonce = nonce(u128::try_from(number).unwrap(), 900);
    let new = new((*accepted.spec).clone());
    let sending = Command {
        spec: accepted.spec.clone(),
        life: moved(&accepted.life, Phase::Sending, number + 1),
    };
    let mut talk = said(&sending, sending.life.version, 10);
    for entry in Arc::make_mut(&mut talk.entries) {
        (entry.from, entry.to) = (sending.life.status(), sending.life.status());
    }
    let advances = [change(&accepted, sending.life.clone()), talk, ended(&sending)];
    let accept = Record::Accept { nonce: Some(nonce), new };
    let advances = advances.into_iter().map(|advance| Record::Advance { advance });
    std::iter::once(accept).chain(advances).collect()
}

/// What the store has to show of it.
fn shown(story: &[Record]) -> (Arc<Life>, Vec<Entry>) {
    let mut pending = Pending::default();
    story.iter().for_each(|record| pending.add(record.clone()));
    let id = story[0].id().unwrap();
    (pending.command(id).unwrap().life, pending.timeline(id).1)
}

#[tokio::test]
async fn many_emergencies_go_on_record_in_as_many_transactions_as_one_of_them_takes() {
    let site = Site::new();
    let store = site.starts();
    let count = 2 * SETTLED_AT_ONCE;
    let stories: Vec<Vec<Record>> =
        (0..count).map(|number| story(i64::try_from(number).unwrap())).collect();
    for record in stories.iter().flatten() {
        store.pending().add(record.clone());
    }
    let nonces = 1_000_000..1_000_000 + u128::try_from(count).unwrap();
    for nonce in nonces.clone().map(|number| nonce(number, 900)) {
        store.pending().add(Record::Nonce { nonce });
    }
    let (settled, transactions) = site.scripted.in_turns(store.settle()).await;
    assert_eq!((settled.unwrap(), store.unsettled(), store.unsettled_nonces()), (count, 0, 0));
    assert_eq!(transactions, 2 * stories[0].len() + 2, "twice as many as go side by side");
    assert!(nonces.into_iter().all(|number| site.scripted.inner.knows_nonce(&nonce(number, 900))));
    for story in &stories {
        let (id, (life, timeline)) = (story[0].id().unwrap(), shown(story));
        assert_eq!(site.scripted.inner.command(id).await.unwrap().unwrap().life, life);
        assert_eq!(site.scripted.inner.timeline(id).await.unwrap(), timeline);
    }
}

#[tokio::test]
async fn the_store_is_asked_for_the_oldest_first() {
    let site = Site::new();
    let store = site.starts();
    let count = 2 * SETTLED_AT_ONCE + 1;
    let mut stories: Vec<Vec<Record>> =
        (0..count).map(|number| story(i64::try_from(number).unwrap())).collect();
    let ids: Vec<CommandId> = stories.iter().map(|story| story[0].id().unwrap()).collect();
    stories.reverse();
    for record in stories.into_iter().flatten() {
        store.pending().add(record);
    }
    assert_eq!(store.settle().await.unwrap(), count);
    assert_eq!(site.stored(), ids);
}

#[tokio::test]
async fn a_crash_while_emergencies_go_on_record_loses_none_and_doubles_none() {
    let stories: Vec<Vec<Record>> = (0..3).map(story).collect();
    let kept = nonce(900, 900);
    // Each of them is a write, and so is the nonce.
    let writes = stories.iter().flatten().count() + 1;
    let mut before = BTreeMap::new();
    for (after, is_written) in (0..=writes).flat_map(|after| [(after, false), (after, true)]) {
        let site = Site::new();
        let store = site.starts();
        for record in stories.iter().flatten() {
            store.journal(record.clone(), |_| None, ()).await.unwrap();
        }
        store.note(kept).await.unwrap();
        site.scripted.dies(Some(Death { after, is_written }));
        let died = store.settle().await;
        assert_eq!(died.is_err(), after < writes, "{after}");
        drop(store);
        site.scripted.dies(None);
        *before.entry(site.stored().len()).or_insert(0) += 1;

        let store = site.starts();
        store.settle().await.unwrap();
        let case = format!("after {after} writes, and the next was made: {is_written}");
        assert_eq!((store.unsettled(), store.unsettled_nonces()), (0, 0), "{case}");
        let ids: Vec<CommandId> = stories.iter().map(|story| story[0].id().unwrap()).collect();
        assert_eq!(site.stored(), ids, "{case}");
        for (id, story) in ids.iter().zip(&stories) {
            let (life, timeline) = shown(story);
            let found = site.scripted.inner.command(*id).await.unwrap().unwrap();
            assert_eq!(found.life, life, "{case}");
            assert_eq!(site.scripted.inner.timeline(*id).await.unwrap(), timeline, "{case}");
        }
        let spent = [0, 1, 2].map(|number| nonce(number, 900));
        assert!(spent.iter().chain([&kept]).all(|nonce| site.scripted.inner.knows_nonce(nonce)));
        drop(store);
        assert_eq!(site.starts().unsettled(), 0, "{case}");
    }
    // How many of the others are there depends on how soon the store answers.
    let is_tried = |count| before.contains_key(&count);
    assert!(is_tried(0) && is_tried(1) && is_tried(3), "none, some, and all: {before:?}");
}
