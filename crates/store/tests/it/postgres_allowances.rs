//! What servers on one PostgreSQL have given of an allowance together.

use std::{sync::Arc, time::Duration};

use utmos_core::ports::{AllowanceStore, Charge};

use crate::{postgres_commands::PostgresPlace, postgres_server::Database};

const HOUR: Duration = Duration::from_hours(1);

fn charge(name: &str, given: Duration) -> Charge {
    Charge { name: name.to_owned(), given, most: HOUR * 100 }
}

fn near(missing: Duration, expected: Duration) -> bool {
    // Whatever a busy machine needs for the test comes back meanwhile.
    missing <= expected && expected < missing + HOUR
}

fn rows(database: &Database) -> String {
    database.sql("SELECT count(*) FROM allowances")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_that_charge_at_once_lose_nothing_of_it() {
    let place = PostgresPlace::new();
    let (one, two) = tokio::join!(place.store(), place.store());
    let stores = [Arc::new(one), Arc::new(two)];
    let mut charging = Vec::new();
    for number in 0..40_usize {
        let store = stores[number % 2].clone();
        charging.push(tokio::spawn(async move {
            // In another order each time, to see that they do not wait for each other for ever.
            let mut charges =
                vec![charge("c:a", HOUR), charge("c:b", HOUR / 2), charge("t:x", HOUR)];
            charges.rotate_left(number % 3);
            store.charge(charges).await.unwrap()
        }));
    }
    for one in charging {
        assert_eq!(one.await.unwrap().len(), 3);
    }
    let names = ["t:x", "c:a", "c:b", "c:never"];
    let asked = names.map(|name| charge(name, Duration::ZERO)).to_vec();
    let missing = stores[0].charge(asked).await.unwrap();
    assert!(near(missing[0], HOUR * 40), "{missing:?}");
    assert!(near(missing[1], HOUR * 40), "{missing:?}");
    assert!(near(missing[2], HOUR * 20), "{missing:?}");
    assert_eq!(missing[3], Duration::ZERO, "whoever never asked has all of it");
    assert_eq!(rows(&place.database), "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_missing_than_was_said_also_when_the_clock_was_set_back() {
    let place = PostgresPlace::new();
    let store = place.store().await;
    let small = |given| Charge { most: HOUR, ..charge("c:a", given) };
    let missing = store.charge(vec![small(HOUR * 9)]).await.unwrap();
    assert!(near(missing[0], HOUR), "{missing:?}");
    let missing = store.charge(vec![small(HOUR * 9)]).await.unwrap();
    assert!(near(missing[0], HOUR), "{missing:?}");
    place.database.sql("UPDATE allowances SET whole_at = whole_at + 1000000::bigint * 86400 * 365");
    let missing = store.charge(vec![small(Duration::ZERO)]).await.unwrap();
    assert!(near(missing[0], HOUR), "{missing:?}");
    place.database.sql("UPDATE allowances SET whole_at = 0");
    let missing = store.charge(vec![small(HOUR / 2)]).await.unwrap();
    assert!(near(missing[0], HOUR / 2), "what came back long ago does not add up: {missing:?}");
}
