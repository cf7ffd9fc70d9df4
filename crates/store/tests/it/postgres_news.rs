//! What servers on one database tell each other.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use utmos_core::{id::CommandId, ports::ReplicaStore, replica::News};
use utmos_store::PostgresStore;
use uuid::Uuid;

use crate::postgres_commands::PostgresPlace;

/// What a server has heard.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<News>>>);

impl Ear {
    async fn of(store: &PostgresStore) -> Self {
        let ear = Self::default();
        let heard = ear.clone();
        store.listen(Box::new(move |news| heard.0.lock().unwrap().push(news)));
        // Once it listens.
        ear.hears("that it may have missed something", |it| it.contains(&News::Missed)).await;
        ear.0.lock().unwrap().clear();
        ear
    }

    async fn hears(&self, what: &str, is_so: impl Fn(&[News]) -> bool) {
        let wait = async {
            while !is_so(&self.0.lock().unwrap()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let heard = tokio::time::timeout(Duration::from_secs(60), wait).await;
        heard.unwrap_or_else(|_| panic!("{what}: {:?}", self.0.lock().unwrap()));
    }

    fn changed(news: &[News]) -> BTreeSet<CommandId> {
        let ids = news.iter().filter_map(|news| match news {
            News::Changed(ids) => Some(ids.clone()),
            News::Ended(_) | News::Handed | News::Roll | News::Missed => None,
        });
        ids.flatten().collect()
    }
}

fn ids(numbers: std::ops::Range<u128>) -> Vec<CommandId> {
    numbers.map(|number| CommandId::new(Uuid::from_u128(number << 70 | 1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_hear_each_other_and_not_themselves() {
    let place = PostgresPlace::new();
    let (one, two) = (place.store().await, place.store().await);
    let (at_one, at_two) = (Ear::of(&one).await, Ear::of(&two).await);
    one.tell(News::Changed(ids(0..700)));
    for id in ids(600..900) {
        one.tell(News::Changed(vec![id]));
    }
    one.tell(News::Handed);
    let expected: BTreeSet<CommandId> = ids(0..900).into_iter().collect();
    at_two
        .hears("everything", |heard| {
            heard.contains(&News::Handed) && Ear::changed(heard) == expected
        })
        .await;
    two.tell(News::Roll);
    at_one.hears("the other", |heard| heard == [News::Roll]).await;
    // Told by a server that does not listen itself.
    let silent = place.store().await;
    silent.tell(News::Handed);
    at_one.hears("the third", |heard| heard == [News::Roll, News::Handed]).await;
    let ended = News::Ended(ids(2..5));
    two.tell(ended.clone());
    at_one.hears("what has ended", |heard| heard.contains(&ended)).await;
    // The last words of a server are told before it goes.
    two.tell(News::Changed(ids(1..2)));
    two.close().await;
    at_one
        .hears("the last words", |heard| Ear::changed(heard) == ids(1..2).into_iter().collect())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_connection_was_cut_it_is_told_that_something_may_have_been_missed() {
    let place = PostgresPlace::new();
    let (one, two) = (place.store().await, place.store().await);
    let (_at_one, at_two) = (Ear::of(&one).await, Ear::of(&two).await);
    for round in 0..3_u128 {
        place.database.end_connections();
        // Told while nobody may be there to take it: it goes once somebody is.
        one.tell(News::Changed(ids(round..round + 1)));
        at_two.hears("that it may have missed something", |it| it.contains(&News::Missed)).await;
        // Whoever hears this one listens again.
        let handed = async {
            loop {
                one.tell(News::Handed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            _ = handed => {}
            () = at_two.hears("the other", |it| it.contains(&News::Handed)) => {}
        }
        at_two.0.lock().unwrap().clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_tells_and_hears_nothing_has_no_connection_for_it() {
    let place = PostgresPlace::new();
    let store = place.store().await;
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let are_open = async |count: &str| {
        let wait = async {
            while place.database.sql(open) != count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    };
    // One for emergencies, one for the rest.
    are_open("2").await;
    store.tell(News::Handed);
    are_open("3").await;
    drop(store);
    are_open("0").await;
}
