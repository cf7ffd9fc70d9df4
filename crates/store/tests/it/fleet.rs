//! The contract's cases about sightings, binding codes, and changes of devices that go on record.

use std::{collections::BTreeSet, sync::Arc};

use utmos_core::{
    binding::BindingCode,
    command::StatusVersion,
    device::{Device, DeviceKind, SubDevice},
    device_request::{DeviceRequest, Reply, ReplySource, RoutingDecision},
    id::{ApiId, BindingCodeId, TenantId},
    ports::{
        Bind, Bound, BoundAnswer, By, DeviceEdit, DeviceOrder, Ordered, Recorded, RequestChanged,
        RequestKept, Sighting,
    },
};
use utmos_store::RECORDS_PER_DEVICE_MAX;
use uuid::Uuid;

use crate::{
    contract::{FullPlace, FullStore},
    given::{at, device, gateway, register, sn, tenant},
    requests::waiting,
};

fn by(who: &str, millis: i64) -> By {
    By { who: who.to_owned(), at: at(millis) }
}

fn code(number: u128, tenant: TenantId, uses_max: u32) -> BindingCode {
    BindingCode {
        id: BindingCodeId::new(Uuid::from_u128(number)),
        tenant,
        label: "the roof".to_owned(),
        hash: [7; 32],
        uses_max,
        uses: 0,
        created_at: at(0),
        created_by: "command line".to_owned(),
        expires_at: at(1_000),
        revoked_at: None,
    }
}

fn aircraft(text: &str, tenant: TenantId) -> Device {
    Device { kind: DeviceKind::Aircraft, mqtt_secret_hash: None, ..device(text, tenant) }
}

fn binding(gateway: &str, tenant: TenantId, code: u128, subs: &[&str]) -> Bind {
    Bind {
        gateway: device(gateway, tenant),
        code: Some(BindingCodeId::new(Uuid::from_u128(code))),
        aircraft: subs.iter().map(|text| aircraft(text, tenant)).collect(),
        subs: subs
            .iter()
            .map(|text| SubDevice { sn: sn(text), model_key: None, index: None })
            .collect(),
        by: by("binding code", 5),
    }
}

async fn record(
    store: &dyn FullStore,
    text: &str,
) -> Vec<(Recorded, Option<TenantId>, Option<TenantId>, String)> {
    let lines = store.device_record(&sn(text)).await.unwrap();
    lines.into_iter().map(|line| (line.what, line.from, line.to, line.by.who)).collect()
}

pub async fn a_serial_number_belongs_to_one_tenant_and_every_change_of_it_is_on_record(
    place: &dyn FullPlace,
) {
    let store = place.open_full().await;
    let (one, two) = (tenant(1), tenant(2));
    let order = async |order: DeviceOrder, who: &str| store.order(order, by(who, 1)).await.unwrap();
    let first = device("D1", one);
    let registered = order(DeviceOrder::Register(first.clone()), "utk_a").await;
    assert_eq!(registered, Ordered::Done(first.clone()));
    let again = Device { label: "another".to_owned(), ..first.clone() };
    assert_eq!(order(DeviceOrder::Register(again), "utk_a").await, Ordered::Known(first.clone()));
    assert_eq!(order(DeviceOrder::Register(device("D1", two)), "utk_b").await, Ordered::Taken);

    let tags: BTreeSet<String> = ["north", "été"].map(str::to_owned).into();
    let edit = DeviceEdit {
        tags: Some(tags.clone()),
        label: Some("Roof".to_owned()),
        mqtt_secret_hash: None,
    };
    let edit_as =
        |tenant, edit: &DeviceEdit| DeviceOrder::Edit { sn: sn("D1"), tenant, edit: edit.clone() };
    assert_eq!(order(edit_as(two, &edit), "utk_b").await, Ordered::Unknown);
    let edited = Device { tags, label: "Roof".to_owned(), ..first };
    assert_eq!(order(edit_as(one, &edit), "utk_a").await, Ordered::Done(edited.clone()));
    order(edit_as(one, &edit), "nothing changes").await;
    let password = DeviceEdit { mqtt_secret_hash: Some([3; 32]), ..DeviceEdit::default() };
    let edited = Device { mqtt_secret_hash: Some([3; 32]), ..edited };
    assert_eq!(order(edit_as(one, &password), "utk_a").await, Ordered::Done(edited.clone()));

    let move_from = |from, to| DeviceOrder::Move { sn: sn("D1"), from, to };
    assert_eq!(order(move_from(two, one), "x").await, Ordered::Unknown);
    let moved = Device { tenant: two, ..edited };
    assert_eq!(order(move_from(one, two), "command line").await, Ordered::Done(moved.clone()));
    assert_eq!(place.open_full().await.devices().await.unwrap(), std::slice::from_ref(&moved));
    let remove = |tenant| DeviceOrder::Remove { sn: sn("D1"), tenant };
    assert_eq!(order(remove(one), "x").await, Ordered::Unknown);
    assert_eq!(order(remove(two), "command line").await, Ordered::Done(moved));
    assert!(store.devices().await.unwrap().is_empty());

    let line = |what, from, to, who: &str| (what, from, to, who.to_owned());
    assert_eq!(
        record(&*place.open_full().await, "D1").await,
        [
            line(Recorded::Removed, Some(two), None, "command line"),
            line(Recorded::Moved, Some(one), Some(two), "command line"),
            line(Recorded::Password, Some(one), Some(one), "utk_a"),
            line(Recorded::Edited, Some(one), Some(one), "utk_a"),
            line(Recorded::Registered, None, Some(one), "utk_a"),
        ]
    );
}

pub async fn of_many_who_register_a_serial_number_at_once_one_gets_it(place: &dyn FullPlace) {
    let stores = [place.open_full().await, place.open_full().await];
    let all = (0..50_u8).map(|number| {
        let store = stores[usize::from(number % 2)].clone();
        tokio::spawn(async move {
            let device = device("D1", tenant(number.into()));
            store.order(DeviceOrder::Register(device), by("x", 0)).await.unwrap()
        })
    });
    let mut done = 0;
    for one in all.collect::<Vec<_>>() {
        let ordered = one.await.unwrap();
        done += usize::from(matches!(ordered, Ordered::Done(_)));
        assert!(matches!(ordered, Ordered::Done(_) | Ordered::Taken), "{ordered:?}");
    }
    assert_eq!(done, 1);
}

/// A tenant may change labels and passwords as often as it likes: whose the device was, and through whom it joined, which
/// counts against how many may, is on record all the same.
pub async fn a_record_keeps_its_newest_changes_and_everything_of_whose_the_device_was(
    place: &dyn FullPlace,
) {
    let store = place.open_full().await;
    store.put_topology(&gateway("D1"), vec![aircraft("A1", tenant(1))], Vec::new()).await.unwrap();
    store.put_topology(&gateway("D2"), vec![aircraft("A1", tenant(1))], Vec::new()).await.unwrap();
    let joined = (Recorded::Joined, None, Some(tenant(1)), "gateway D1".to_owned());
    assert_eq!(record(&*store, "A1").await, std::slice::from_ref(&joined));
    let moving = DeviceOrder::Move { sn: sn("A1"), from: tenant(1), to: tenant(2) };
    store.order(moving, by("command line", 0)).await.unwrap();
    let change = async |number: u32, edit: DeviceEdit| {
        let order = DeviceOrder::Edit { sn: sn("A1"), tenant: tenant(2), edit };
        store.order(order, by(&number.to_string(), 0)).await.unwrap();
    };
    for number in 0..RECORDS_PER_DEVICE_MAX + 5 {
        let mut edit = DeviceEdit::default();
        match number % 2 {
            0 => edit.label = Some(format!("{number}")),
            _ => edit.mqtt_secret_hash = Some([u8::try_from(number % 7).unwrap(); 32]),
        }
        change(number, edit).await;
    }
    let lines = record(&*place.open_full().await, "A1").await;
    assert_eq!(lines.len(), RECORDS_PER_DEVICE_MAX as usize + 2);
    let (changes, whose) = lines.split_at(RECORDS_PER_DEVICE_MAX as usize);
    assert_eq!(changes.last().unwrap().3, "5", "of the changes the oldest went");
    let moved = (Recorded::Moved, Some(tenant(1)), Some(tenant(2)), "command line".to_owned());
    assert_eq!(whose, [moved, joined]);
    assert_eq!(store.joined().await.unwrap(), [(gateway("D1"), sn("A1"))]);
}

pub async fn what_was_bound_with_a_code_counts_for_its_gateway_as_what_it_reported_does(
    place: &dyn FullPlace,
) {
    let store = place.open_full().await;
    let one = tenant(1);
    assert!(store.add_binding_code(code(1, one, 2), 10).await.unwrap());
    let id = BindingCodeId::new(Uuid::from_u128(1));
    let who = By::gateway_with_code(&gateway("D1"), id);
    let approved = By::approved(&who, &ApiId::new("utk_a".to_owned()));
    let bind = Bind { by: by(&who, 5), ..binding("D1", one, 1, &["A1"]) };
    store.bind(bind).await.unwrap();
    let bind = Bind { code: None, by: by(&approved, 5), ..binding("D1", one, 1, &["A2"]) };
    store.bind(bind).await.unwrap();
    store.put_topology(&gateway("D1"), vec![aircraft("A3", one)], Vec::new()).await.unwrap();
    let mut joined = place.open_full().await.joined().await.unwrap();
    joined.sort();
    let expected = ["A1", "A2", "A3"].map(|aircraft| (gateway("D1"), sn(aircraft)));
    assert_eq!(joined, expected, "without the gateway itself");
}

pub async fn a_code_lets_in_as_many_gateways_as_it_says_and_each_once(place: &dyn FullPlace) {
    let store = place.open_full().await;
    let one = tenant(1);
    assert!(store.add_binding_code(code(1, one, 2), 10).await.unwrap());
    let done = Bound::Done { taken: Vec::new() };
    assert_eq!(store.bind(binding("D1", one, 1, &["A1"])).await.unwrap(), done);
    assert_eq!(
        store.bind(binding("D1", one, 1, &["A1", "A2"])).await.unwrap(),
        done,
        "no use of it"
    );
    assert_eq!(store.bind(binding("D2", one, 1, &[])).await.unwrap(), done);
    assert_eq!(store.bind(binding("D3", one, 1, &["A3"])).await.unwrap(), Bound::NoCode);
    let known: Vec<String> = place
        .open_full()
        .await
        .devices()
        .await
        .unwrap()
        .iter()
        .map(|one| one.sn.to_string())
        .collect();
    assert_eq!(known, ["A1", "A2", "D1", "D2"]);
    assert_eq!(store.binding_codes().await.unwrap()[0].uses, 2);
    let topologies = store.topologies().await.unwrap();
    assert_eq!(topologies.len(), 1, "what is on record of D1 stays: {topologies:?}");
    assert_eq!(topologies[0].1.len(), 1);
    let bound = (Recorded::Bound, None, Some(one), "binding code".to_owned());
    assert_eq!(record(&*store, "D1").await, [bound]);
}

pub async fn a_code_of_another_tenant_that_is_over_or_taken_back_binds_nothing(
    place: &dyn FullPlace,
) {
    let store = place.open_full().await;
    let (one, two) = (tenant(1), tenant(2));
    let late = BindingCode { expires_at: at(5), ..code(2, one, 1) };
    for code in [code(1, two, 1), late, code(3, one, 1)] {
        assert!(store.add_binding_code(code, 10).await.unwrap());
    }
    let third = BindingCodeId::new(Uuid::from_u128(3));
    assert!(!store.revoke_binding_code(two, third, at(1)).await.unwrap(), "another tenant's");
    assert!(store.revoke_binding_code(one, third, at(1)).await.unwrap());
    assert!(store.revoke_binding_code(one, third, at(2)).await.unwrap(), "taken back already");
    assert_eq!(store.binding_codes().await.unwrap()[2].revoked_at, Some(at(1)));
    for number in 1..=4 {
        assert_eq!(store.bind(binding("D1", one, number, &["A1"])).await.unwrap(), Bound::NoCode);
    }
    assert!(store.devices().await.unwrap().is_empty());
    register(&*store, device("D1", two)).await;
    assert_eq!(store.bind(binding("D1", one, 1, &["A1"])).await.unwrap(), Bound::Taken);
    register(&*store, aircraft("A1", two)).await;
    register(&*store, device("D2", one)).await;
    let taken = Bound::Done { taken: vec![sn("A1")] };
    assert_eq!(store.bind(binding("D2", one, 1, &["A1"])).await.unwrap(), taken);
}

pub async fn a_tenant_has_a_bounded_number_of_good_codes_and_old_ones_are_forgotten(
    place: &dyn FullPlace,
) {
    let store = place.open_full().await;
    assert!(store.add_binding_code(code(1, tenant(1), 1), 2).await.unwrap());
    assert!(store.add_binding_code(code(2, tenant(1), 1), 2).await.unwrap());
    assert!(!store.add_binding_code(code(3, tenant(1), 1), 2).await.unwrap());
    assert!(store.add_binding_code(code(4, tenant(2), 1), 2).await.unwrap());
    let before = store.generation().await.unwrap();
    let much_later = 40 * 24 * 3_600_000;
    let next = BindingCode {
        created_at: at(much_later),
        expires_at: at(much_later + 1),
        ..code(5, tenant(1), 1)
    };
    assert!(store.add_binding_code(next.clone(), 2).await.unwrap());
    assert_eq!(store.binding_codes().await.unwrap(), [next]);
    assert!(store.generation().await.unwrap() > before, "servers look at codes anew");
}

pub async fn sightings_are_kept_of_registered_devices_and_go_with_them(place: &dyn FullPlace) {
    let store = place.open_full().await;
    register(&*store, device("D1", tenant(1))).await;
    let seen = |text: &str, first, last| Sighting {
        sn: sn(text),
        tenant: tenant(1),
        first_seen_at: at(first),
        last_seen_at: at(last),
        firmware: Some("10.01.0001".to_owned()),
        model_key: Some("3-2-0".to_owned()),
        online: true,
    };
    let before = store.generation().await.unwrap();
    store.keep_sightings(vec![seen("D1", 5, 6), seen("NOBODY", 5, 6)]).await.unwrap();
    let later = Sighting { online: false, firmware: None, ..seen("D1", 9, 10) };
    store.keep_sightings(vec![later.clone()]).await.unwrap();
    let expected = Sighting { first_seen_at: at(5), ..later };
    let kept = place.open_full().await.sightings().await.unwrap();
    assert_eq!(kept.as_slice(), std::slice::from_ref(&expected));
    // Another server that has heard nothing since knows less.
    store.keep_sightings(vec![seen("D1", 7, 8)]).await.unwrap();
    assert_eq!(store.sightings().await.unwrap(), [expected]);
    // What a clock wrote that was ahead stands in nobody's way.
    store.keep_sightings(vec![seen("D1", 9, i64::MAX / 2)]).await.unwrap();
    let right = Sighting { first_seen_at: at(5), ..seen("D1", 9, 11) };
    store.keep_sightings(vec![right.clone()]).await.unwrap();
    assert_eq!(store.sightings().await.unwrap(), [right]);
    assert_eq!(store.generation().await.unwrap(), before);
    let order = DeviceOrder::Move { sn: sn("D1"), from: tenant(1), to: tenant(2) };
    store.order(order, by("x", 0)).await.unwrap();
    assert!(store.sightings().await.unwrap().is_empty(), "the new tenant sees nothing of before");
    // Seen before it was moved, and written after.
    store.keep_sightings(vec![seen("D1", 9, 10)]).await.unwrap();
    assert!(store.sightings().await.unwrap().is_empty());
    let theirs = Sighting { tenant: tenant(2), ..seen("D1", 11, 12) };
    store.keep_sightings(vec![theirs.clone()]).await.unwrap();
    assert_eq!(store.sightings().await.unwrap(), [theirs]);
}

/// How a request stands after an answer by hand.
fn answered(request: &DeviceRequest, code: &str) -> Arc<DeviceRequest> {
    let reply = Reply {
        code: code.to_owned(),
        message: None,
        source: ReplySource::Manual,
        by: Some(utmos_core::id::ApiId::new("utk_somebody")),
        data: "{}".into(),
        at: at(9),
    };
    Arc::new(DeviceRequest {
        state: RoutingDecision::Replied,
        reply: Some(reply),
        version: request.version.next(),
        ..request.clone()
    })
}

pub async fn a_binding_and_the_answer_it_is_for_are_stored_both_or_neither(place: &dyn FullPlace) {
    let store = place.open_full().await;
    let (one, two) = (tenant(1), tenant(2));
    store.add_binding_code(code(1, one, 1), 10).await.unwrap();
    register(&*store, aircraft("A2", two)).await;
    let asked = waiting(1, 1);
    assert_eq!(store.keep_request(asked.clone()).await.unwrap(), RequestKept::New);
    let approved = answered(&asked, "APPROVED");
    let bind = async |bind: Bind, seen: StatusVersion| {
        store.bind_answering(bind, seen, approved.clone()).await.unwrap()
    };
    let untouched = async || {
        let names: Vec<String> =
            store.devices().await.unwrap().iter().map(|one| one.sn.to_string()).collect();
        assert_eq!(names, ["A2"]);
        assert_eq!(store.binding_codes().await.unwrap()[0].uses, 0);
        assert_eq!(store.request(asked.asked.id).await.unwrap().as_ref(), Some(&*asked));
        assert!(store.topologies().await.unwrap().is_empty());
        assert!(store.device_record(&sn("D1")).await.unwrap().is_empty());
    };
    let otherwise = BoundAnswer::Otherwise;
    let taken = Bound::Done { taken: vec![sn("A2")] };
    let seen = asked.version;
    assert_eq!(bind(binding("D1", one, 1, &["A1", "A2"]), seen).await, otherwise(taken));
    untouched().await;
    assert_eq!(bind(binding("D1", one, 7, &["A1"]), seen).await, otherwise(Bound::NoCode));
    untouched().await;
    assert_eq!(bind(binding("A2", one, 1, &["A1"]), seen).await, otherwise(Bound::Taken));
    untouched().await;
    assert_eq!(bind(binding("D1", one, 1, &["A1"]), seen.next()).await, BoundAnswer::Lost);
    untouched().await;
    assert_eq!(bind(binding("D1", one, 1, &["A1"]), seen).await, BoundAnswer::Done);
    let store = place.open_full().await;
    assert_eq!(store.request(asked.asked.id).await.unwrap().as_ref(), Some(&*approved));
    assert_eq!(store.devices().await.unwrap().len(), 3);
    assert_eq!(store.binding_codes().await.unwrap()[0].uses, 1);
    assert_eq!(store.topologies().await.unwrap().len(), 1);
    let bound = (Recorded::Bound, None, Some(one), "binding code".to_owned());
    assert_eq!(record(&*store, "D1").await, [bound]);
    // What is the tenant's already asks for no code.
    let again = waiting(2, 2);
    store.keep_request(again.clone()).await.unwrap();
    let without_code = Bind { code: None, ..binding("D1", one, 1, &["A1", "A3"]) };
    let done = store.bind_answering(without_code, again.version, answered(&again, "0")).await;
    assert_eq!(done.unwrap(), BoundAnswer::Done);
    assert_eq!(store.devices().await.unwrap().len(), 4);
}

pub async fn of_many_who_answer_a_binding_at_once_one_does_and_what_it_says_is_so(
    place: &dyn FullPlace,
) {
    let stores = [place.open_full().await, place.open_full().await];
    let one = tenant(1);
    stores[0].add_binding_code(code(1, one, 20), 10).await.unwrap();
    for number in 0..10_u64 {
        let asked = waiting(1, number);
        stores[0].keep_request(asked.clone()).await.unwrap();
        let dock = format!("D{number}");
        let all = (0..4_usize).map(|who| {
            let (store, asked, dock) = (stores[who % 2].clone(), asked.clone(), dock.clone());
            tokio::spawn(async move {
                let to = answered(&asked, if who < 2 { "APPROVED" } else { "1" });
                if who < 2 {
                    let bind = binding(&dock, one, 1, &[]);
                    let became = store.bind_answering(bind, asked.version, to).await.unwrap();
                    assert!(matches!(became, BoundAnswer::Done | BoundAnswer::Lost), "{became:?}");
                    became == BoundAnswer::Done
                } else {
                    let changed = store.change_request(asked.version, to).await.unwrap();
                    changed == RequestChanged::Yes
                }
            })
        });
        let mut won = 0;
        for one in all.collect::<Vec<_>>() {
            won += usize::from(one.await.unwrap());
        }
        assert_eq!(won, 1);
        let stands = stores[1].request(asked.asked.id).await.unwrap().unwrap();
        let is_approved = stands.reply.unwrap().code == "APPROVED";
        let devices = stores[1].devices().await.unwrap();
        let is_bound = devices.iter().any(|device| device.sn.as_str() == dock);
        assert_eq!(is_approved, is_bound, "{dock}");
    }
}
