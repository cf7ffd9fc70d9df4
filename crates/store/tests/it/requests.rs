//! The contract's cases about device requests and the rules for them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use utmos_core::{
    command::{Outcome, Phase, StatusVersion},
    device_request::{
        Asked, AskedOn, DeviceRequest, Mode, Reply, ReplySource, RoutingDecision, Rule, Scope,
        Sending, SetRule,
    },
    id::DeviceRequestId,
    ports::{RequestChanged, RequestFilter, RequestKept, RuleSet, Store, TaskState},
};
use utmos_store::{REQUESTS_PER_TENANT_MAX, RULES_PER_TENANT_MAX};

use crate::{
    contract::FullPlace,
    given::{accepted, at, deadline, end, gateway, id, moved, sn, spec, tenant},
};

fn asked(millis: i64, number: u64) -> Asked {
    Asked {
        id: DeviceRequestId::new(id(millis, number)),
        tenant: tenant(1),
        device: sn("D1"),
        gateway: gateway("D1"),
        request_type: Some("config".to_owned()),
        tid: Some(format!("t{number}")),
        bid: Some("b".to_owned()),
        asked_on: AskedOn::Requests,
        repeat_key: Some(u128::from(number).to_be_bytes()),
        payload: r#"{"code":"hush-payload"}"#.into(),
        payload_is_cut: false,
        received_at: at(millis),
        deadline: deadline(millis + 30_000),
        reply_wait: Duration::from_secs(30),
        automatic_after: Some(Duration::from_secs(3)),
    }
}

pub fn waiting(millis: i64, number: u64) -> Arc<DeviceRequest> {
    Arc::new(DeviceRequest::new(Arc::new(asked(millis, number)), RoutingDecision::AwaitingReply))
}

fn reply() -> Reply {
    Reply {
        code: "0".to_owned(),
        message: Some("hush-message".to_owned()),
        source: ReplySource::Manual,
        by: Some(utmos_core::id::ApiId::new("utk_somebody")),
        data: r#"{"key":"hush-reply"}"#.into(),
        at: at(9),
    }
}

fn answered(millis: i64, number: u64) -> Arc<DeviceRequest> {
    Arc::new(DeviceRequest::answered(Arc::new(asked(millis, number)), reply()))
}

pub async fn what_was_kept_and_changed_is_read_back_whole_and_stands_nowhere_in_clear(
    place: &dyn FullPlace,
) {
    let store = place.open_full().await;
    let first = waiting(100, 1);
    let bare = Asked {
        request_type: None,
        tid: None,
        bid: None,
        asked_on: AskedOn::StatusOfThing,
        repeat_key: None,
        payload_is_cut: true,
        automatic_after: None,
        ..asked(200, 2)
    };
    let second = Arc::new(DeviceRequest::new(Arc::new(bare), RoutingDecision::Unsupported));
    for request in [&first, &second] {
        assert_eq!(store.keep_request(request.clone()).await.unwrap(), RequestKept::New);
    }
    let replied = Arc::new(DeviceRequest {
        state: RoutingDecision::Replied,
        reply: Some(reply()),
        sending: Sending::Sent,
        sent_at: Some(at(700)),
        version: StatusVersion(2),
        ..(*first).clone()
    });
    let changed = store.change_request(StatusVersion(1), replied.clone()).await.unwrap();
    assert_eq!(changed, RequestChanged::Yes);
    let lost = store.change_request(StatusVersion(1), replied.clone()).await.unwrap();
    assert_eq!(lost, RequestChanged::Lost);
    let unknown = store.change_request(StatusVersion(1), waiting(1, 9)).await.unwrap();
    assert_eq!(unknown, RequestChanged::Lost);

    let store = place.open_full().await;
    for request in [&replied, &second] {
        let found = store.request(request.asked.id).await.unwrap();
        assert_eq!(found.as_ref(), Some(&**request));
    }
    assert_eq!(store.request(DeviceRequestId::new(id(1, 1))).await.unwrap(), None);
    drop(store);
    let at_rest = place.at_rest().await;
    assert!(!at_rest.windows(5).any(|part| part == b"hush-"));
}

pub async fn a_request_with_the_key_of_another_is_that_one(place: &dyn FullPlace) {
    let store = place.open_full().await;
    let first = answered(100, 1);
    store.keep_request(first.clone()).await.unwrap();
    let again = Arc::new(DeviceRequest::new(
        Arc::new(Asked { id: DeviceRequestId::new(id(500, 7)), ..asked(500, 1) }),
        RoutingDecision::AwaitingReply,
    ));
    let kept = store.keep_request(again).await.unwrap();
    assert_eq!(kept, RequestKept::Repeats(Box::new((*first).clone())));
    let all = store.requests_of(tenant(1), RequestFilter::default(), None, 10).await.unwrap();
    assert_eq!(all, [(*first).clone()]);
}

pub async fn requests_are_listed_newest_first_by_device_state_and_type_and_by_care(
    place: &dyn FullPlace,
) {
    let store = place.open_full().await;
    let of = |number: u64, device: &str, tenant_number, state| {
        let asked = Asked {
            tenant: tenant(tenant_number),
            device: sn(device),
            gateway: gateway(device),
            request_type: Some(format!("type{}", number % 2)),
            ..asked(i64::try_from(number).unwrap() * 100, number)
        };
        Arc::new(DeviceRequest::new(Arc::new(asked), state))
    };
    let (waits, expired) = (RoutingDecision::AwaitingReply, RoutingDecision::Expired);
    let mine = [
        of(4, "D1", 1, waits),
        of(2, "D2", 1, expired),
        of(3, "D1", 1, expired),
        of(1, "D2", 1, waits),
    ];
    let foreign = of(5, "D9", 2, waits);
    for request in mine.iter().chain([&foreign]) {
        store.keep_request(request.clone()).await.unwrap();
    }
    let numbers = async |filter: RequestFilter, before, limit| {
        let found = store.requests_of(tenant(1), filter, before, limit).await.unwrap();
        found.iter().map(|one| one.asked.tid.clone().unwrap()).collect::<Vec<_>>().join(" ")
    };
    let any = RequestFilter::default;
    assert_eq!(numbers(any(), None, 10).await, "t4 t3 t2 t1");
    assert_eq!(numbers(any(), Some(mine[2].asked.id), 1).await, "t2");
    assert_eq!(numbers(RequestFilter { state: Some(waits), ..any() }, None, 10).await, "t4 t1");
    assert_eq!(numbers(RequestFilter { state: Some(expired), ..any() }, None, 10).await, "t3 t2");
    assert_eq!(numbers(RequestFilter { device: Some(sn("D1")), ..any() }, None, 10).await, "t4 t3");
    let type_0 = RequestFilter { request_type: Some("type0".to_owned()), ..any() };
    assert_eq!(numbers(type_0, None, 10).await, "t4 t2");
    let allowed = |names: &[&str]| Some(names.iter().map(|name| sn(name)).collect::<BTreeSet<_>>());
    let both = RequestFilter { devices: allowed(&["D1", "D2", "D9"]), ..any() };
    assert_eq!(numbers(both, None, 3).await, "t4 t3 t2");
    let other = RequestFilter { device: Some(sn("D1")), devices: allowed(&["D2"]), ..any() };
    assert_eq!(numbers(other, None, 10).await, "");

    let care = store.requests_in_care(None, 2).await.unwrap();
    let care: Vec<_> = care.iter().map(|one| one.asked.id).collect();
    assert_eq!(care, [mine[3].asked.id, mine[0].asked.id]);
    let rest = store.requests_in_care(care.last().copied(), 9).await.unwrap();
    assert_eq!(rest, [(*foreign).clone()]);
}

pub async fn of_who_asks_most_the_oldest_that_are_done_go_and_none_that_waits(
    place: &dyn FullPlace,
) {
    let store = place.open_full().await;
    let oldest = waiting(1, 1);
    store.keep_request(oldest.clone()).await.unwrap();
    // Of another gateway, which asks seldom.
    let seldom = Asked { gateway: gateway("D2"), device: sn("D2"), ..asked(2, 2) };
    let seldom = Arc::new(DeviceRequest::answered(Arc::new(seldom), reply()));
    store.keep_request(seldom.clone()).await.unwrap();
    let most = u64::from(REQUESTS_PER_TENANT_MAX);
    for chunk in (3..=most + 5).collect::<Vec<_>>().chunks(512) {
        let keeping: JoinSet<_> = chunk
            .iter()
            .map(|number| {
                let request = answered(i64::try_from(*number).unwrap(), *number);
                let store = store.clone();
                async move { store.keep_request(request).await }
            })
            .collect();
        for kept in keeping.join_all().await {
            assert_eq!(kept.unwrap(), RequestKept::New);
        }
    }
    let is_there = async |millis: i64, number: u64| {
        store.request(DeviceRequestId::new(id(millis, number))).await.unwrap().is_some()
    };
    assert!(is_there(1, 1).await, "it waits");
    assert!(is_there(2, 2).await, "its gateway has few on record");
    for number in 3..=7 {
        assert!(!is_there(i64::try_from(number).unwrap(), number).await, "{number} is done");
    }
    // Some more go with them, and no more than some.
    assert!(is_there(1_200, 1_200).await);
}

pub async fn where_all_ask_alike_the_oldest_of_all_go(place: &dyn FullPlace) {
    let store = place.open_full().await;
    let most = u64::from(REQUESTS_PER_TENANT_MAX);
    for chunk in (1..=most + 1).collect::<Vec<_>>().chunks(512) {
        let keeping: JoinSet<_> = chunk
            .iter()
            .map(|number| {
                let name = format!("D{}", number % 500);
                let asked = Asked {
                    gateway: gateway(&name),
                    device: sn(&name),
                    ..asked(i64::try_from(*number).unwrap(), *number)
                };
                let request = Arc::new(DeviceRequest::answered(Arc::new(asked), reply()));
                let store = store.clone();
                async move { store.keep_request(request).await }
            })
            .collect();
        for kept in keeping.join_all().await {
            assert_eq!(kept.unwrap(), RequestKept::New);
        }
    }
    let is_there = async |number: u64| {
        let millis = i64::try_from(number).unwrap();
        store.request(DeviceRequestId::new(id(millis, number))).await.unwrap().is_some()
    };
    assert!(!is_there(1).await, "it is the oldest");
    assert!(is_there(most + 1).await && is_there(most / 2).await);
    // The same gateway's as the newest, and older than half of all.
    assert!(is_there(501).await);
}

pub async fn rules_are_set_replaced_taken_back_and_counted(place: &dyn FullPlace) {
    let store = place.open_full().await;
    let scope = |request_type: &str, device: Option<&str>| Scope {
        tenant: tenant(1),
        request_type: request_type.to_owned(),
        device: device.map(sn),
    };
    let rule = |mode| Rule { mode, reply_wait: Duration::from_secs(40) };
    let after = Mode::AutoAfter(Duration::from_secs(4));
    let mut generation = store.rules_generation().await.unwrap();
    for (scope, mode) in [
        (scope("config", None), Mode::Manual),
        (scope("config", Some("D1")), after),
        (scope("config", None), Mode::Auto),
    ] {
        let set = SetRule { scope, rule: rule(mode), updated_at: at(1) };
        assert_eq!(store.put_rule(set).await.unwrap(), RuleSet::Yes);
        let next = store.rules_generation().await.unwrap();
        assert!(next > generation);
        generation = next;
    }
    let rules = place.open_full().await.rules().await.unwrap();
    let found: Vec<_> = rules.iter().map(|set| (set.scope.clone(), set.rule)).collect();
    let wanted =
        [(scope("config", None), rule(Mode::Auto)), (scope("config", Some("D1")), rule(after))];
    assert_eq!(found, wanted);
    assert!(store.remove_rule(scope("config", Some("D1"))).await.unwrap());
    let generation = store.rules_generation().await.unwrap();
    assert!(!store.remove_rule(scope("config", Some("D1"))).await.unwrap());
    assert_eq!(store.rules_generation().await.unwrap(), generation, "nothing changed");

    let numbers: Vec<_> = (1..RULES_PER_TENANT_MAX).collect();
    // Each waits for the one before it, and none of them for long.
    for some in numbers.chunks(50) {
        let puts = some.iter().map(|number| {
            let scope = scope(&format!("type{number}"), None);
            let set = SetRule { scope, rule: rule(Mode::Manual), updated_at: at(1) };
            let store = store.clone();
            async move { store.put_rule(set).await.unwrap() }
        });
        let puts: JoinSet<_> = puts.collect();
        assert!(puts.join_all().await.into_iter().all(|set| set == RuleSet::Yes));
    }
    let put = async |scope| {
        let set = SetRule { scope, rule: rule(Mode::Manual), updated_at: at(1) };
        store.put_rule(set).await.unwrap()
    };
    assert_eq!(put(scope("one more", None)).await, RuleSet::TooMany);
    assert_eq!(put(scope("config", None)).await, RuleSet::Yes, "one that is there is replaced");
    let other = Scope { tenant: tenant(2), ..scope("one more", None) };
    assert_eq!(put(other).await, RuleSet::Yes);
}

pub async fn a_task_is_found_by_its_newest_command_that_may_have_left(place: &dyn FullPlace) {
    let requests = place.open_full().await;
    let store: Arc<dyn Store> = requests.clone();
    let prepare = |millis, key: &str, payload: &str| {
        let mut spec = spec(millis, key);
        spec.method = "flighttask_prepare".to_owned();
        spec.job_ref = Some("task".to_owned());
        spec.payload = payload.into();
        spec
    };
    let sent = async |task: &str, of| {
        let found =
            requests.task_sent(tenant(of), &gateway("D1"), "flighttask_prepare", task).await;
        found.unwrap().map(|payload| payload.to_string())
    };
    let first = accepted(&store, prepare(100, "a", r#"{"n":1}"#)).await;
    assert_eq!(sent("task", 1).await, None, "it has not left");
    let claimed = moved(&first.life, Phase::Sending, 110);
    store.advance(crate::given::change(&first, claimed)).await.unwrap();
    let second = accepted(&store, prepare(200, "b", r#"{"n":2}"#)).await;
    end(&store, &second, Outcome::Succeeded, 210).await;
    accepted(&store, prepare(300, "c", r#"{"n":3}"#)).await;
    assert_eq!(sent("task", 1).await.as_deref(), Some(r#"{"n":2}"#));
    assert_eq!((sent("other", 1).await, sent("task", 2).await), (None, None));
    let state = requests.task_state(tenant(1), &gateway("D1"), "flighttask_prepare", "task").await;
    assert_eq!(state.unwrap(), None::<TaskState>, "nothing was reported");
}
