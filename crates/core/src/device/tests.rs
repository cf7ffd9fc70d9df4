//! Where a command for a device goes, and what a topology report changes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use uuid::Uuid;

use super::*;

fn tenant(number: u128) -> TenantId {
    TenantId::new(Uuid::from_u128(number))
}

fn sn(text: &str) -> DeviceSn {
    DeviceSn::parse(text).unwrap()
}

fn gateway(text: &str) -> GatewaySn {
    GatewaySn::parse(text).unwrap()
}

fn device(text: &str, owner: u128, kind: DeviceKind) -> Device {
    Device {
        sn: sn(text),
        tenant: tenant(owner),
        kind,
        model_key: None,
        label: String::new(),
        tags: BTreeSet::new(),
        simulated: false,
        mqtt_secret_hash: None,
        created_at: Timestamp::from_millis(0),
    }
}

fn subs(sns: &[&str]) -> Vec<SubDevice> {
    sns.iter().map(|text| SubDevice { sn: sn(text), model_key: None, index: None }).collect()
}

/// Two docks and a remote controller of tenant 1, a dock of tenant 2.
fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.put(device("DOCK1", 1, DeviceKind::Dock));
    registry.put(device("DOCK2", 1, DeviceKind::Dock));
    registry.put(device("RC1", 1, DeviceKind::RemoteController));
    registry.put(device("DOCK9", 2, DeviceKind::Dock));
    registry
}

fn report(registry: &mut Registry, from: &str, sns: &[&str]) -> TopologyChange {
    report_whole(registry, from, sns).change
}

fn report_whole(registry: &mut Registry, from: &str, sns: &[&str]) -> TopologyReport {
    registry.report_topology(&gateway(from), &subs(sns), Timestamp::from_millis(7))
}

/// These stand behind it now, and those were left out.
fn partly(taken: &[&str], left_out: &[&str]) -> TopologyReport {
    let left_out = left_out.iter().map(|text| sn(text)).collect();
    TopologyReport { change: TopologyChange::Changed(subs(taken)), left_out }
}

/// After these reports, a command for `device` goes to `wanted`.
fn check(reports: &[(&str, &[&str])], device: &str, wanted: Result<(&str, Option<&str>), NoRoute>) {
    let mut registry = registry();
    for (from, sns) in reports {
        report(&mut registry, from, sns);
    }
    let wanted =
        wanted.map(|(to, aircraft)| Route { gateway: gateway(to), aircraft: aircraft.map(sn) });
    assert_eq!(registry.route(tenant(1), &sn(device)), wanted, "{device} after {reports:?}");
}

fn ambiguous(gateways: &[&str]) -> NoRoute {
    NoRoute::Ambiguous {
        device: sn("M4"),
        gateways: gateways.iter().map(|text| (*text).to_owned()).collect(),
    }
}

#[test]
fn a_gateway_is_its_own_way_and_names_the_aircraft_behind_it() {
    check(&[], "DOCK1", Ok(("DOCK1", None)));
    check(&[("DOCK1", &["M4"])], "DOCK1", Ok(("DOCK1", Some("M4"))));
    check(&[("RC1", &["M4"])], "RC1", Ok(("RC1", Some("M4"))));
}

#[test]
fn an_aircraft_is_reached_through_the_gateway_that_reports_it() {
    check(&[("DOCK1", &["M4"])], "M4", Ok(("DOCK1", Some("M4"))));
    check(&[("RC1", &["M4", "M5"])], "M5", Ok(("RC1", Some("M5"))));
}

#[test]
fn an_aircraft_nobody_has_reported_has_no_way() {
    let mut registry = registry();
    registry.put(device("M4", 1, DeviceKind::Aircraft));
    assert_eq!(registry.route(tenant(1), &sn("M4")), Err(NoRoute::NoGateway(sn("M4"))));
    let unknown = NoRoute::UnknownDevice(sn("M5"));
    assert_eq!(registry.route(tenant(1), &sn("M5")), Err(unknown));
}

#[test]
fn another_tenants_device_reads_as_unknown() {
    let mut registry = registry();
    report(&mut registry, "DOCK9", &["M4"]);
    for device in ["DOCK9", "M4"] {
        let unknown = NoRoute::UnknownDevice(sn(device));
        assert_eq!(registry.route(tenant(1), &sn(device)), Err(unknown));
        assert!(registry.route(tenant(2), &sn(device)).is_ok());
    }
}

#[test]
fn an_aircraft_behind_two_gateways_at_once_is_ambiguous() {
    let both: &[(&str, &[&str])] = &[("DOCK1", &["M4"]), ("RC1", &["M4"])];
    check(both, "M4", Err(ambiguous(&["DOCK1", "RC1"])));
    check(both, "DOCK1", Ok(("DOCK1", Some("M4"))));
    let text = ambiguous(&["DOCK1", "RC1"]).to_string();
    assert!(text.contains("M4") && text.contains("DOCK1, RC1"), "{text}");
}

#[test]
fn an_aircraft_that_is_off_is_reached_through_the_gateway_that_had_it_last() {
    check(&[("DOCK1", &["M4"]), ("DOCK1", &[])], "M4", Ok(("DOCK1", Some("M4"))));
    check(&[("DOCK1", &["M4"]), ("DOCK1", &[])], "DOCK1", Ok(("DOCK1", Some("M4"))));
}

#[test]
fn an_aircraft_that_moved_is_reached_through_its_new_gateway_also_when_it_is_off() {
    let away: &[(&str, &[&str])] = &[("DOCK1", &["M4"]), ("DOCK1", &[]), ("DOCK2", &["M4"])];
    check(away, "M4", Ok(("DOCK2", Some("M4"))));
    check(&[away, &[("DOCK2", &[])]].concat(), "M4", Ok(("DOCK2", Some("M4"))));
    let back = [away, &[("DOCK2", &[]), ("DOCK1", &["M4"]), ("DOCK1", &[])]].concat();
    check(&back, "M4", Ok(("DOCK1", Some("M4"))));
    let overlapping: &[(&str, &[&str])] =
        &[("DOCK1", &["M4"]), ("DOCK2", &["M4"]), ("DOCK1", &[]), ("DOCK2", &[])];
    check(overlapping, "M4", Ok(("DOCK2", Some("M4"))));
}

#[test]
fn a_gateway_that_got_another_aircraft_is_no_way_to_the_old_one() {
    let exchanged: &[(&str, &[&str])] = &[("DOCK1", &["M4"]), ("DOCK1", &["M5"])];
    check(exchanged, "M4", Err(NoRoute::NoGateway(sn("M4"))));
    check(exchanged, "M5", Ok(("DOCK1", Some("M5"))));
    check(exchanged, "DOCK1", Ok(("DOCK1", Some("M5"))));
}

#[test]
fn the_same_report_twice_changes_nothing() {
    let mut registry = registry();
    assert_eq!(report(&mut registry, "DOCK1", &[]), TopologyChange::Same);
    let changed = TopologyChange::Changed(subs(&["M4"]));
    assert_eq!(report(&mut registry, "DOCK1", &["M4"]), changed);
    assert_eq!(report(&mut registry, "DOCK1", &["M4"]), TopologyChange::Same);
    assert_eq!(report(&mut registry, "DOCK1", &[]), TopologyChange::Changed(Vec::new()));
    assert_eq!(report(&mut registry, "DOCK1", &[]), TopologyChange::Same);
    assert_eq!(report(&mut registry, "DOCK1", &["M4"]), changed);
}

#[test]
fn an_empty_report_means_the_aircraft_left_and_is_remembered() {
    let mut registry = registry();
    report(&mut registry, "DOCK1", &["M4"]);
    assert_eq!(registry.sub_devices(&gateway("DOCK1")), subs(&["M4"]));
    report(&mut registry, "DOCK1", &[]);
    assert!(registry.sub_devices(&gateway("DOCK1")).is_empty());
    assert_eq!(registry.known_sub_devices(&gateway("DOCK1")), subs(&["M4"]));
}

#[test]
fn an_unknown_sub_device_joins_the_gateways_tenant_as_an_aircraft() {
    let mut registry = registry();
    report(&mut registry, "DOCK9", &["M4"]);
    let added = registry.device(&sn("M4")).unwrap();
    assert_eq!((added.tenant, added.kind), (tenant(2), DeviceKind::Aircraft));
    assert_eq!(added.created_at, Timestamp::from_millis(7));
    assert!(!added.simulated);
}

#[test]
fn an_aircraft_that_joins_behind_a_simulated_gateway_is_simulated_and_one_that_was_known_stays_as_it_is()
 {
    let mut registry = registry();
    report(&mut registry, "DOCK1", &["M4"]);
    let dock = registry.device(&sn("DOCK1")).unwrap().clone();
    registry.put(Device { simulated: true, ..dock });
    report(&mut registry, "DOCK1", &["M4", "M5"]);
    let marks = ["M4", "M5"].map(|aircraft| registry.device(&sn(aircraft)).unwrap().simulated);
    assert_eq!(marks, [false, true]);
}

#[test]
fn a_report_that_names_another_tenants_device_counts_without_it() {
    let mut registry = registry();
    report(&mut registry, "DOCK1", &["M4"]);
    assert_eq!(report_whole(&mut registry, "DOCK9", &["M4", "M7"]), partly(&["M7"], &["M4"]));
    assert_eq!(registry.route(tenant(1), &sn("M4")).unwrap().gateway, gateway("DOCK1"));
    assert_eq!(registry.speaks_for(&gateway("DOCK9")), [sn("M7")]);
    assert_eq!(registry.route(tenant(2), &sn("DOCK9")).unwrap().aircraft, Some(sn("M7")));
    // With nothing else in it, none of its own is there.
    assert_eq!(report_whole(&mut registry, "DOCK9", &["M4"]), partly(&[], &["M4"]));
    assert_eq!(registry.known_sub_devices(&gateway("DOCK9")), subs(&["M7"]));
}

/// The list of devices with `change` made to M4.
fn with_m4(registry: &Registry, change: impl FnOnce(Device) -> Option<Device>) -> Vec<Device> {
    let (m4, mut rest): (Vec<Device>, Vec<Device>) =
        registry.devices().cloned().partition(|it| it.sn == sn("M4"));
    rest.extend(m4.into_iter().next().and_then(change));
    rest
}

#[test]
fn an_aircraft_that_is_moved_to_the_tenant_of_its_dock_stands_behind_it_at_once() {
    let mut registry = registry();
    // A stranger named it first.
    report(&mut registry, "DOCK9", &["M4"]);
    assert_eq!(report_whole(&mut registry, "DOCK1", &["M4", "M5"]), partly(&["M5"], &["M4"]));
    let moved = with_m4(&registry, |m4| Some(Device { tenant: tenant(1), ..m4 }));
    registry.replace_devices(moved);
    assert_eq!(registry.route(tenant(1), &sn("M4")).unwrap().gateway, gateway("DOCK1"));
    assert_eq!(registry.route(tenant(2), &sn("M4")), Err(NoRoute::UnknownDevice(sn("M4"))));
    let both: BTreeSet<DeviceSn> = registry.speaks_for(&gateway("DOCK1")).into_iter().collect();
    assert_eq!(both, BTreeSet::from([sn("M4"), sn("M5")]));
    assert!(registry.speaks_for(&gateway("DOCK9")).is_empty());
    // Once it has left, nothing brings it back but a report.
    report(&mut registry, "DOCK9", &["M4", "M6"]);
    report(&mut registry, "DOCK9", &["M6"]);
    let back = with_m4(&registry, |m4| Some(Device { tenant: tenant(2), ..m4 }));
    registry.replace_devices(back);
    assert_eq!(registry.speaks_for(&gateway("DOCK9")), [sn("M6")]);
}

#[test]
fn an_aircraft_that_is_moved_away_and_back_stands_behind_its_dock_again() {
    let mut registry = registry();
    report(&mut registry, "DOCK1", &["M4"]);
    for owner in [2, 1] {
        let moved = with_m4(&registry, |m4| Some(Device { tenant: tenant(owner), ..m4 }));
        registry.replace_devices(moved);
    }
    assert_eq!(registry.route(tenant(1), &sn("M4")).unwrap().gateway, gateway("DOCK1"));
    assert_eq!(registry.sub_devices(&gateway("DOCK1")), subs(&["M4"]));
}

#[test]
fn an_aircraft_that_was_removed_joins_whoever_reports_it_next_also_the_same() {
    for next in ["DOCK9", "DOCK2"] {
        let mut registry = registry();
        report(&mut registry, "DOCK9", &["M4"]);
        let removed = with_m4(&registry, |_| None);
        registry.replace_devices(removed);
        assert!(
            registry.is_unclaimed(&sn("M4")) && registry.speaks_for(&gateway("DOCK9")).is_empty()
        );
        assert_eq!(report_whole(&mut registry, next, &["M4"]), partly(&["M4"], &[]));
        assert_eq!(
            registry.device(&sn("M4")).map(|it| it.tenant),
            registry.tenant_of(&gateway(next))
        );
        assert_eq!(report(&mut registry, next, &["M4"]), TopologyChange::Same);
    }
}

#[test]
fn a_gateway_that_is_not_registered_changes_nothing() {
    let mut registry = registry();
    assert_eq!(report(&mut registry, "DOCK7", &["M4"]), TopologyChange::UnknownGateway);
    assert!(registry.device(&sn("M4")).is_none());
}

#[test]
fn a_dock_that_changed_hands_names_no_aircraft_of_its_old_owner() {
    let mut registry = registry();
    report(&mut registry, "DOCK1", &["M4"]);
    registry.put(device("DOCK1", 2, DeviceKind::Dock));
    assert_eq!(registry.route(tenant(2), &sn("DOCK1")).unwrap().aircraft, None);
    assert_eq!(registry.route(tenant(1), &sn("M4")), Err(NoRoute::NoGateway(sn("M4"))));
}

#[test]
fn a_gateway_reported_behind_a_gateway_is_no_aircraft() {
    check(&[("DOCK1", &["RC1", "M4"])], "DOCK1", Ok(("DOCK1", Some("M4"))));
    check(&[("DOCK1", &["DOCK1"])], "DOCK1", Ok(("DOCK1", None)));
    check(&[("DOCK1", &["RC1"])], "RC1", Ok(("RC1", None)));
}

#[test]
fn a_report_that_names_a_gateway_counts_without_it() {
    for named in ["DOCK1", "DOCK2", "RC1", "DOCK9"] {
        let mut registry = registry();
        assert_eq!(report_whole(&mut registry, "DOCK1", &[named, "M5"]), partly(&["M5"], &[named]));
        assert_eq!(registry.sub_devices(&gateway("DOCK1")), subs(&["M5"]));
        assert_eq!(registry.speaks_for(&gateway("DOCK1")), [sn("M5")]);
    }
}

#[test]
fn a_gateway_speaks_for_its_own_tenants_aircraft_and_nobody_else() {
    let mut registry = registry();
    assert!(registry.speaks_for(&gateway("DOCK1")).is_empty());
    report(&mut registry, "DOCK1", &["M4", "M5"]);
    report(&mut registry, "DOCK9", &["M9"]);
    let both = [sn("M4"), sn("M5")];
    assert_eq!(registry.speaks_for(&gateway("DOCK1")), both);
    report(&mut registry, "DOCK1", &[]);
    assert_eq!(registry.speaks_for(&gateway("DOCK1")), both, "also while they are off");
    assert!(registry.speaks_for(&gateway("DOCK2")).is_empty());
    registry.put(device("M4", 2, DeviceKind::Aircraft));
    registry.put(device("M5", 1, DeviceKind::RemoteController));
    assert!(registry.speaks_for(&gateway("DOCK1")).is_empty());
    assert!(registry.speaks_for(&gateway("DOCK7")).is_empty());
}

#[test]
fn a_serial_number_is_unclaimed_until_some_device_has_it() {
    let mut registry = registry();
    assert!(registry.is_unclaimed(&sn("M4")));
    assert!(!registry.is_unclaimed(&sn("DOCK9")));
    report(&mut registry, "DOCK1", &["M4"]);
    assert!(!registry.is_unclaimed(&sn("M4")));
}

/// Makes the registry anew with `more`, M4 to M6 having been reported behind DOCK1.
fn replaced(more: &[Device]) -> Registry {
    let mut registry = registry();
    report(&mut registry, "DOCK1", &["M4", "M5", "M6"]);
    let mut devices: BTreeMap<DeviceSn, Device> =
        registry.devices().map(|it| (it.sn.clone(), it.clone())).collect();
    devices.extend(more.iter().map(|it| (it.sn.clone(), it.clone())));
    registry.replace_devices(devices.into_values().collect());
    registry
}

#[test]
fn new_devices_leave_the_topology_as_it_was_reported() {
    let mut registry = replaced(&[]);
    assert_eq!(registry.sub_devices(&gateway("DOCK1")), subs(&["M4", "M5", "M6"]));
    assert_eq!(registry.route(tenant(1), &sn("M5")).unwrap().gateway, gateway("DOCK1"));
    assert_eq!(report(&mut registry, "DOCK1", &["M4", "M5", "M6"]), TopologyChange::Same);
    // One the list does not have yet may be on its way to the store.
    let devices = registry.devices().filter(|it| it.sn != sn("M5")).cloned().collect();
    registry.replace_devices(devices);
    assert_eq!(registry.sub_devices(&gateway("DOCK1")), subs(&["M4", "M5", "M6"]));
}

#[test]
fn a_sub_device_that_changed_hands_or_became_a_gateway_stands_behind_nobody() {
    let mut registry = replaced(&[
        device("M4", 2, DeviceKind::Aircraft),
        device("M5", 1, DeviceKind::RemoteController),
    ]);
    assert_eq!(registry.known_sub_devices(&gateway("DOCK1")), subs(&["M6"]));
    registry.put(device("M4", 1, DeviceKind::Aircraft));
    registry.put(device("M5", 1, DeviceKind::Aircraft));
    for gone in ["M4", "M5"] {
        let no_way = Err(NoRoute::NoGateway(sn(gone)));
        assert_eq!(registry.route(tenant(1), &sn(gone)), no_way);
    }
    assert_eq!(registry.route(tenant(1), &sn("M6")).unwrap().gateway, gateway("DOCK1"));
}

#[test]
fn a_gateway_that_changed_hands_or_is_gone_has_nothing_behind_it() {
    let mut registry = replaced(&[device("DOCK1", 2, DeviceKind::Dock)]);
    assert!(registry.known_sub_devices(&gateway("DOCK1")).is_empty());
    assert_eq!(report(&mut registry, "DOCK1", &[]), TopologyChange::Same);
    registry.put(device("DOCK1", 1, DeviceKind::Dock));
    assert_eq!(registry.route(tenant(1), &sn("M4")), Err(NoRoute::NoGateway(sn("M4"))));

    let mut registry = replaced(&[]);
    let devices = registry.devices().filter(|it| it.sn != sn("DOCK1")).cloned().collect();
    registry.replace_devices(devices);
    assert!(registry.known_sub_devices(&gateway("DOCK1")).is_empty());
    assert_eq!(registry.route(tenant(1), &sn("M4")), Err(NoRoute::NoGateway(sn("M4"))));
}

#[test]
fn what_is_on_record_brings_back_nobody_elses_device_and_no_gateway() {
    let mut registry = registry();
    registry.put(device("M9", 2, DeviceKind::Aircraft));
    registry.recall_topology(&gateway("DOCK1"), subs(&["DOCK2", "M9", "M4", "DOCK1"]));
    assert_eq!(registry.known_sub_devices(&gateway("DOCK1")), subs(&["M4"]));
}

#[test]
fn a_gateway_that_makes_serial_numbers_up_registers_no_more_than_eight() {
    let mut registry = registry();
    let name = |number: usize| format!("M{number}");
    for number in 0..AIRCRAFT_PER_GATEWAY_MAX {
        let changed = TopologyChange::Changed(subs(&[&name(number)]));
        assert_eq!(report(&mut registry, "DOCK1", &[&name(number)]), changed);
    }
    let before = registry.devices().count();
    assert_eq!(report_whole(&mut registry, "DOCK1", &["M100", "M0"]), partly(&["M0"], &["M100"]));
    assert_eq!(report_whole(&mut registry, "DOCK1", &["M100"]), partly(&[], &["M100"]));
    assert_eq!(registry.devices().count(), before);

    // Those it has, and those somebody registers by hand, may come and go.
    assert_eq!(report(&mut registry, "DOCK1", &["M0"]), TopologyChange::Changed(subs(&["M0"])));
    registry.put(device("M100", 1, DeviceKind::Aircraft));
    let taken = TopologyChange::Changed(subs(&["M100"]));
    assert_eq!(report(&mut registry, "DOCK1", &["M100"]), taken);
    // Neither does another gateway pay for it, nor do new devices or the record set it free.
    assert_eq!(report(&mut registry, "DOCK2", &["M200"]), TopologyChange::Changed(subs(&["M200"])));
    let devices = registry.devices().filter(|it| it.sn != sn("M1")).cloned().collect();
    registry.replace_devices(devices);
    registry.recall_topology(&gateway("DOCK1"), subs(&["M0"]));
    assert_eq!(report_whole(&mut registry, "DOCK1", &["M101"]).left_out, [sn("M101")]);
    assert!(registry.is_unclaimed(&sn("M101")));
}

#[test]
fn of_a_report_of_more_than_eight_unknown_sub_devices_the_first_eight_join() {
    let mut registry = registry();
    let names: Vec<String> = (0..=AIRCRAFT_PER_GATEWAY_MAX).map(|it| format!("M{it}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let (last, first) = all.split_last().unwrap();
    assert_eq!(report_whole(&mut registry, "DOCK1", &all), partly(first, &[last]));
    assert!(registry.is_unclaimed(&sn("M8")));
}

#[test]
fn what_is_on_record_leads_to_an_aircraft_until_somebody_reports_it() {
    let mut registry = registry();
    registry.put(device("M4", 1, DeviceKind::Aircraft));
    registry.recall_topology(&gateway("DOCK1"), subs(&["M4"]));
    assert!(registry.sub_devices(&gateway("DOCK1")).is_empty());
    assert_eq!(registry.route(tenant(1), &sn("M4")).unwrap().gateway, gateway("DOCK1"));
    registry.recall_topology(&gateway("DOCK2"), subs(&["M4"]));
    let both = Err(ambiguous(&["DOCK1", "DOCK2"]));
    assert_eq!(registry.route(tenant(1), &sn("M4")), both);
    report(&mut registry, "DOCK2", &["M4"]);
    report(&mut registry, "DOCK2", &[]);
    assert_eq!(registry.route(tenant(1), &sn("M4")).unwrap().gateway, gateway("DOCK2"));
    registry.recall_topology(&gateway("DOCK2"), Vec::new());
    assert_eq!(registry.route(tenant(1), &sn("M4")).unwrap().gateway, gateway("DOCK1"));
}

#[test]
fn kinds_read_back() {
    for kind in [DeviceKind::Dock, DeviceKind::RemoteController, DeviceKind::Aircraft] {
        assert_eq!(DeviceKind::parse(kind.as_str()), Some(kind));
        assert_eq!(kind.is_gateway(), kind != DeviceKind::Aircraft);
    }
    assert_eq!(DeviceKind::parse("payload"), None);
}

#[test]
fn a_tenants_devices_come_in_order_and_no_others() {
    let mut registry = registry();
    report(&mut registry, "DOCK1", &["AIR1"]);
    let of = |tenant_number, after: Option<&str>| -> Vec<String> {
        let after = after.map(sn);
        let found = registry.devices_of(tenant(tenant_number), after.as_ref());
        found.map(|device| device.sn.to_string()).collect()
    };
    assert_eq!(of(1, None), ["AIR1", "DOCK1", "DOCK2", "RC1"]);
    assert_eq!(of(1, Some("DOCK1")), ["DOCK2", "RC1"]);
    assert_eq!(of(1, Some("DOCK15")), ["DOCK2", "RC1"], "the cursor itself may be gone");
    assert_eq!(of(2, None), ["DOCK9"]);
    assert!(of(3, None).is_empty() && of(1, Some("RC1")).is_empty());
}

#[test]
fn the_gateways_of_an_aircraft_are_those_that_have_it_and_those_that_had_it() {
    let mut registry = registry();
    report(&mut registry, "DOCK1", &["AIR1"]);
    report(&mut registry, "RC1", &["AIR1"]);
    report(&mut registry, "DOCK1", &[]);
    assert_eq!(registry.gateways_of(&sn("AIR1")), (vec![gateway("RC1")], vec![gateway("DOCK1")]));
    assert_eq!(registry.gateways_of(&sn("DOCK1")), (Vec::new(), Vec::new()));
    assert_eq!(registry.gateways_of(&sn("NOBODY")), (Vec::new(), Vec::new()));
}

#[test]
fn what_may_be_bound_with_a_gateway_is_its_tenants_aircraft_or_nobodys_up_to_a_limit() {
    let mut registry = registry();
    report(&mut registry, "DOCK9", &["THEIRS"]);
    report(&mut registry, "DOCK2", &["OURS"]);
    let may = |registry: &Registry, text: &str| {
        registry.may_be_bound(&gateway("DOCK1"), tenant(1), &sn(text))
    };
    for (text, expected) in [
        ("OURS", true),
        ("NEW", true),
        ("THEIRS", false),
        ("DOCK1", false),
        ("DOCK2", false),
        ("DOCK9", false),
    ] {
        assert_eq!(may(&registry, text), expected, "{text}");
    }
    let many: Vec<DeviceSn> =
        (0..AIRCRAFT_PER_GATEWAY_MAX).map(|number| sn(&format!("A{number}"))).collect();
    registry.were_bound(&gateway("DOCK1"), &many);
    assert!(!may(&registry, "NEW") && may(&registry, "OURS"), "one that is known takes no room");
    assert!(registry.may_be_bound(&gateway("UNKNOWN"), tenant(1), &sn("NEW")), "a newcomer");
}
