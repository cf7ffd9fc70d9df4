//! Devices that nobody has registered, at the broker of somebody else: told of once each, when there is room.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use tempfile::TempDir;
use utmos_core::time::{BootId, Clock, Mono, Now, Timestamp};
use utmos_dji::catalogue::Catalogue;
use utmos_mqtt::{Inbound, Outlet, Publish, Sent};
use utmos_server::{
    directory::Directory,
    driver::{
        Driver, DriverParts, Limits,
        presence::{Knowledge, PresenceBook},
    },
    ids::SystemIds,
    link::{Link, LinkParts},
    presence_topics::PresenceTopics,
    replicas::{Holdings, Missed},
};
use utmos_store::{MasterKey, SqliteConfig, SqliteStore};

use crate::{app::PATIENCE, unwell::Unwell};

/// Messages of unknown gateways that are kept in a second.
const KEPT_PER_SECOND: usize = 20;

/// Runs when it is told to.
#[derive(Default)]
struct Hands(AtomicU64);

impl Clock for Hands {
    fn now(&self) -> Now {
        let millis = self.0.load(Ordering::SeqCst);
        let wall = Timestamp::from_millis(1_790_000_000_000 + millis.cast_signed());
        Now { wall, mono: Mono::from_millis(millis) }
    }

    fn boot(&self) -> BootId {
        BootId([7; 16])
    }
}

struct Nowhere;

#[async_trait]
impl Outlet for Nowhere {
    async fn publish(&self, _: Publish) -> Sent {
        Sent::NoSubscriber
    }
}

/// A link to somebody else's broker, with nothing behind it but a store.
struct Site {
    _folder: TempDir,
    unwell: Arc<Unwell>,
    clock: Arc<Hands>,
    link: Arc<Link>,
}

impl Site {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("utmos.sqlite");
        let master_key = MasterKey::generate().unwrap();
        let store = SqliteStore::open(SqliteConfig { path, master_key }).unwrap();
        let store = Arc::new(Unwell::new(Arc::new(store)));
        let clock = Arc::new(Hands::default());
        let directory = Arc::new(Directory::load(store.clone()).await.unwrap());
        let catalogue = Arc::new(Catalogue::embedded().unwrap());
        let (ids, holdings) = (Arc::new(SystemIds::new()), Holdings::alone(clock.clone()));
        let window = PATIENCE;
        let driver = Driver::start(DriverParts {
            store: store.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            outlet: Arc::new(Nowhere),
            catalogue: catalogue.clone(),
            directory: directory.clone(),
            replica: "test".to_owned(),
            holdings: holdings.clone(),
            presence: PresenceBook::new(Knowledge::Heard { window }),
            limits: Limits::default(),
        });
        let link = Link::new(LinkParts {
            driver,
            directory,
            catalogue,
            outlet: Arc::new(Nowhere),
            store: store.clone(),
            clock: clock.clone(),
            ids,
            missed: Missed::new(clock.clone()),
            holdings,
            outside: None,
            presence_topics: PresenceTopics::default(),
            listeners: Vec::new(),
        });
        Self { _folder: folder, unwell: store, clock, link }
    }

    /// Something is said on a topic. Answers whether it is to be kept: nothing else goes on meanwhile.
    fn is_kept(&self, topic: &str) -> bool {
        let before = self.link.chores_waiting();
        self.link.take_in(Inbound::Message {
            topic: topic.into(),
            payload: "{}".into(),
            user: None,
            acknowledgement: None,
        });
        self.link.chores_waiting() > before
    }

    fn stranger_is_kept(&self) -> bool {
        self.is_kept("thing/product/STRANGER/osd")
    }
}

#[tokio::test]
async fn one_of_whom_nothing_could_be_kept_is_told_of_when_there_is_room() {
    let site = Site::start().await;
    let others = (0..2 * KEPT_PER_SECOND).filter(|_| site.is_kept("what/is/this"));
    assert_eq!(others.count(), KEPT_PER_SECOND);
    assert!(!site.stranger_is_kept(), "there is no room in this second");
    site.clock.0.fetch_add(1_000, Ordering::SeqCst);
    assert!(site.stranger_is_kept());
    assert!(!site.stranger_is_kept(), "once");
}

#[tokio::test]
async fn one_whose_record_the_store_refused_is_told_of_again() {
    let site = Site::start().await;
    site.unwell.refuse(true);
    assert!(site.stranger_is_kept());
    assert!(!site.stranger_is_kept(), "nobody knows yet that it is lost");
    let again = async {
        while !site.stranger_is_kept() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("it is never told of again");
    assert!(site.unwell.refused() > 0);
}
