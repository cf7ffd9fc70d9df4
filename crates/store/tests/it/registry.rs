//! The contract's cases about tenants, credentials, devices and topology.

use std::{collections::BTreeSet, time::Duration};

use utmos_core::{
    credential::{Credential, CredentialSecret, CredentialStatus, IpRange, Permission, Secret},
    device::{Device, DeviceKind, SubDevice},
    id::ApiId,
    method::CompleteOn,
    ports::{By, DeviceOrder, Ordered, StoreError, Tenant},
};
use uuid::Uuid;

use crate::{
    contract::{FullPlace, Place},
    given::{at, device, gateway, register, sn, tenant},
};

fn by() -> By {
    By { who: "test".to_owned(), at: at(0) }
}

fn named(number: u128, name: &str) -> Tenant {
    Tenant { id: tenant(number), name: name.to_owned(), created_at: at(0) }
}

pub fn credential(api_id: &str, millis: i64) -> Credential {
    let secret = |text: &str, valid_until| CredentialSecret {
        secret: Secret::new(text.to_owned()),
        valid_until,
    };
    Credential {
        api_id: ApiId::new(api_id),
        tenant: tenant(1),
        name: "integration".to_owned(),
        status: CredentialStatus::Active,
        permissions: BTreeSet::from([Permission::CommandCreate, Permission::CommandRead]),
        allowed_clock_skew: Duration::from_secs(300),
        replay_window: Duration::from_millis(1500),
        expires_at: Some(at(99)),
        ip_allow: vec![IpRange::parse("10.0.0.0/8").unwrap(), IpRange::parse("::1").unwrap()],
        devices: Some(BTreeSet::from([sn("D1"), sn("D2")])),
        complete_on: CompleteOn::Reply,
        secrets: vec![secret("SECRET-THAT-IS-NEW", None), secret("SECRET-THAT-WAS", Some(at(7)))],
        created_at: at(millis),
    }
}

fn same(one: &Credential, other: &Credential) {
    // `Debug` shows everything but the secrets.
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
    let exposed = |credential: &Credential| -> Vec<String> {
        credential.secrets.iter().map(|secret| secret.secret.expose().to_owned()).collect()
    };
    assert_eq!(exposed(one), exposed(other));
}

pub async fn tenants_come_by_name_and_can_be_renamed(place: &dyn Place) {
    let store = place.open().await;
    for tenant in [named(1, "zoo"), named(2, "airport"), named(1, "harbour")] {
        store.put_tenant(tenant).await.unwrap();
    }
    assert_eq!(
        place.open().await.tenants().await.unwrap(),
        [named(2, "airport"), named(1, "harbour")]
    );
}

pub async fn a_name_belongs_to_one_tenant(place: &dyn Place) {
    let store = place.open().await;
    store.put_tenant(named(1, "airport")).await.unwrap();
    let before = store.generation().await.unwrap();
    let err: StoreError = store.put_tenant(named(2, "airport")).await.unwrap_err();
    assert!(err.to_string().contains("airport"), "{err}");
    assert_eq!(store.tenants().await.unwrap(), [named(1, "airport")]);
    assert_eq!(store.generation().await.unwrap(), before);
}

pub async fn a_credential_is_kept_whole_with_its_secrets(place: &dyn Place) {
    let store = place.open().await;
    let mut kept = credential("ak_1", 0);
    store.put_credential(kept.clone()).await.unwrap();
    same(&place.open().await.credential(&kept.api_id).await.unwrap().unwrap(), &kept);
    kept.secrets.truncate(1);
    kept.secrets[0].secret = Secret::new("ANOTHER".to_owned());
    kept.devices = None;
    kept.ip_allow.clear();
    kept.expires_at = None;
    kept.status = CredentialStatus::Disabled;
    store.put_credential(kept.clone()).await.unwrap();
    same(&store.credential(&kept.api_id).await.unwrap().unwrap(), &kept);
    assert!(store.credential(&ApiId::new("ak_2")).await.unwrap().is_none());
}

pub async fn credentials_come_oldest_first(place: &dyn Place) {
    let store = place.open().await;
    for (name, millis) in [("b", 2), ("a", 3), ("c", 1)] {
        store.put_credential(credential(name, millis)).await.unwrap();
    }
    let all = store.credentials().await.unwrap();
    assert_eq!(all.iter().map(|one| one.api_id.as_str()).collect::<Vec<_>>(), ["c", "b", "a"]);
    same(&all[2], &credential("a", 3));
}

pub async fn devices_come_by_serial_number_and_can_move(place: &dyn FullPlace) {
    let store = place.open_full().await;
    let bare = Device {
        model_key: None,
        mqtt_secret_hash: None,
        kind: DeviceKind::RemoteController,
        simulated: true,
        ..device("B", tenant(1))
    };
    register(&*store, bare.clone()).await;
    register(&*store, device("A", tenant(1))).await;
    let order = DeviceOrder::Move { sn: sn("B"), from: tenant(1), to: tenant(2) };
    let moved = Device { tenant: tenant(2), ..bare };
    let ordered = store.order(order, by()).await.unwrap();
    assert_eq!(ordered, Ordered::Done(moved.clone()));
    assert_eq!(place.open_full().await.devices().await.unwrap(), [device("A", tenant(1)), moved]);
}

pub async fn topology_adds_only_devices_that_are_new(place: &dyn FullPlace) {
    let store = place.open_full().await;
    let mut known = device("A1", tenant(1));
    known.label = "named by hand".to_owned();
    register(&*store, known.clone()).await;
    let sub = |text: &str| SubDevice {
        sn: sn(text),
        model_key: Some("0-91-0".to_owned()),
        index: Some("A".to_owned()),
    };
    let new = vec![device("A1", tenant(9)), device("A2", tenant(1))];
    store.put_topology(&gateway("D1"), new, vec![sub("A1"), sub("A2")]).await.unwrap();
    store.put_topology(&gateway("D0"), Vec::new(), vec![sub("A1")]).await.unwrap();
    assert_eq!(store.devices().await.unwrap(), [known, device("A2", tenant(1))]);
    let expected = [(gateway("D0"), vec![sub("A1")]), (gateway("D1"), vec![sub("A1"), sub("A2")])];
    assert_eq!(place.open_full().await.topologies().await.unwrap(), expected);
    store.put_topology(&gateway("D1"), Vec::new(), Vec::new()).await.unwrap();
    assert_eq!(store.topologies().await.unwrap()[1], (gateway("D1"), Vec::new()));
}

pub async fn a_device_that_is_removed_leaves_no_trace_but_its_commands(place: &dyn FullPlace) {
    let store = place.open_full().await;
    let sub = |text: &str| SubDevice { sn: sn(text), model_key: None, index: None };
    let new = ["A1", "A10", "A2"].map(|text| device(text, tenant(1)));
    register(&*store, device("D1", tenant(1))).await;
    store.put_topology(&gateway("D1"), new.to_vec(), vec![sub("A1"), sub("A10")]).await.unwrap();
    store.put_topology(&gateway("D2"), Vec::new(), vec![sub("A2"), sub("A1")]).await.unwrap();
    let command = crate::given::accepted(&place.open().await, crate::given::spec(0, "k")).await;
    let before = store.generation().await.unwrap();

    let remove = async |text: &str| {
        let order = DeviceOrder::Remove { sn: sn(text), tenant: tenant(1) };
        store.order(order, by()).await.unwrap()
    };
    assert_eq!(remove("A1").await, Ordered::Done(device("A1", tenant(1))));
    let rest = [device("A10", tenant(1)), device("A2", tenant(1)), device("D1", tenant(1))];
    assert_eq!(place.open_full().await.devices().await.unwrap(), rest);
    let expected = [(gateway("D1"), vec![sub("A10")]), (gateway("D2"), vec![sub("A2")])];
    assert_eq!(store.topologies().await.unwrap(), expected);
    assert_eq!(store.command(command.spec.id).await.unwrap(), Some(command));
    let after = store.generation().await.unwrap();
    assert!(after > before);

    assert_eq!(remove("A1").await, Ordered::Unknown);
    assert_eq!(store.generation().await.unwrap(), after, "nothing changed");
    // A gateway takes with it what stood behind it, and no aircraft.
    assert_eq!(remove("D1").await, Ordered::Done(device("D1", tenant(1))));
    assert_eq!(store.topologies().await.unwrap(), expected[1..]);
    assert_eq!(store.devices().await.unwrap(), rest[..2]);
}

pub async fn the_generation_rises_with_changes_alone_and_for_everybody(place: &dyn FullPlace) {
    let (store, other) = (place.open_full().await, place.open_full().await);
    let mut before = store.generation().await.unwrap();
    let mut rose = async |name: &str, expected: bool| {
        let now = other.generation().await.unwrap();
        assert_eq!(now > before, expected, "{name}");
        before = now;
    };
    let subs = || vec![SubDevice { sn: sn("A1"), model_key: None, index: None }];
    store.put_tenant(named(1, "airport")).await.unwrap();
    rose("a tenant", true).await;
    store.put_tenant(named(1, "airport")).await.unwrap();
    rose("the same tenant", false).await;
    register(&*store, device("D1", tenant(1))).await;
    rose("a device", true).await;
    let again = store.order(DeviceOrder::Register(device("D1", tenant(1))), by()).await.unwrap();
    assert_eq!(again, Ordered::Known(device("D1", tenant(1))));
    rose("the same device", false).await;
    store.put_credential(credential("ak_1", 0)).await.unwrap();
    rose("a credential", true).await;
    store.put_topology(&gateway("D1"), vec![device("A1", tenant(1))], subs()).await.unwrap();
    rose("a topology", true).await;
    store.put_topology(&gateway("D1"), vec![device("A1", tenant(1))], subs()).await.unwrap();
    rose("the same topology", false).await;
    store.put_topology(&gateway("D1"), Vec::new(), Vec::new()).await.unwrap();
    rose("an aircraft that is off", true).await;
    let message = crate::given::unmatched(1, None);
    store.keep_unmatched(message).await.unwrap();
    store
        .accept(None, crate::given::new(crate::given::spec(0, &Uuid::nil().to_string())))
        .await
        .unwrap();
    rose("what is no part of the registry", false).await;
}
