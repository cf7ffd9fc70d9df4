//! The alarms that are raised now. Devices send their full list every 2 s: what was not listed before is raised, what is
//! listed no more is over, and the repetition is nothing. An aircraft may stand behind two gateways, each of which passes on
//! a list of its own: an alarm is raised as long as one of them has it.

use std::{collections::BTreeMap, time::Duration};

use utmos_core::{
    device_event::Alarm,
    id::{DeviceSn, GatewaySn, TenantId},
    time::{Mono, Now, Timestamp},
};
use utmos_dji::hms::Entry;

/// How long a gateway's list counts beside that of another: it has not said since that anything is over.
const LIST_COUNTS: Duration = Duration::from_secs(30);

/// Who lists alarms, and when.
pub struct Lister<'a> {
    /// Whose device it is.
    pub tenant: TenantId,
    /// The device.
    pub device: &'a DeviceSn,
    /// The gateway it came through.
    pub gateway: &'a GatewaySn,
    /// When the list came.
    pub at: Now,
}

/// What a list changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Not raised before.
    pub raised: Vec<Alarm>,
    /// Raised before, and over.
    pub cleared: Vec<Alarm>,
}

#[derive(Debug, Default)]
struct OfDevice {
    lists: BTreeMap<GatewaySn, List>,
    /// When it last listed them, and whose it was then.
    heard: Option<(TenantId, Timestamp)>,
}

/// What one gateway passed on.
#[derive(Debug, Default)]
struct List {
    alarms: BTreeMap<String, Alarm>,
    /// When that was; of what an earlier process knew, when another gateway was heard first. By the running time: a wall clock
    /// that is set makes no list older, and keeps none.
    at: Option<Mono>,
}

impl OfDevice {
    /// Every alarm that one of them has.
    fn alarms(&self) -> BTreeMap<&str, &Alarm> {
        let all = self.lists.values().flat_map(|list| &list.alarms);
        all.map(|(key, alarm)| (key.as_str(), alarm)).collect()
    }

    fn retain(&mut self, keep: impl Fn(&Alarm) -> bool) {
        for list in self.lists.values_mut() {
            list.alarms.retain(|_, alarm| keep(alarm));
        }
    }

    fn cloned(&self) -> Vec<Alarm> {
        self.alarms().into_values().cloned().collect()
    }
}

/// Alarms by device.
#[derive(Debug, Default)]
pub struct Raised(BTreeMap<DeviceSn, OfDevice>);

impl Raised {
    /// What an earlier process knew.
    pub fn of(alarms: Vec<Alarm>) -> Self {
        let mut raised = Self::default();
        for alarm in alarms {
            let of_device = raised.0.entry(alarm.device.clone()).or_default();
            let list = of_device.lists.entry(alarm.gateway.clone()).or_default();
            list.alarms.insert(alarm.key.clone(), alarm);
        }
        raised
    }

    /// Takes a list in.
    pub fn listed(&mut self, by: &Lister<'_>, list: Vec<Entry>) -> Change {
        let of_device = self.0.entry(by.device.clone()).or_default();
        of_device.heard = Some((by.tenant, by.at.wall));
        // Those of a tenant that had the device before are nobody's business any more.
        of_device.retain(|alarm| alarm.tenant == by.tenant);
        let before: BTreeMap<String, Alarm> =
            of_device.cloned().into_iter().map(|alarm| (alarm.key.clone(), alarm)).collect();
        of_device.lists.retain(|gateway, list| {
            let at = *list.at.get_or_insert(by.at.mono);
            gateway == by.gateway || by.at.mono.since(at) < LIST_COUNTS
        });
        let mut change = Change::default();
        let mut now = List { alarms: BTreeMap::new(), at: Some(by.at.mono) };
        for entry in list {
            let key = entry.key();
            let alarm = match before.get(&key).cloned() {
                Some(known) => Alarm { entry: entry.raw, gateway: by.gateway.clone(), ..known },
                None => {
                    let alarm = Alarm {
                        tenant: by.tenant,
                        device: by.device.clone(),
                        gateway: by.gateway.clone(),
                        key: key.clone(),
                        entry: entry.raw,
                        since: by.at.wall,
                    };
                    if !now.alarms.contains_key(&key) {
                        change.raised.push(alarm.clone());
                    }
                    alarm
                }
            };
            now.alarms.insert(key, alarm);
        }
        of_device.lists.insert(by.gateway.clone(), now);
        let left = of_device.alarms();
        let is_over = |key: &String| !left.contains_key(key.as_str());
        change.cleared =
            before.into_iter().filter(|(key, _)| is_over(key)).map(|(_, alarm)| alarm).collect();
        change
    }

    /// The alarms of a device, and when it last listed them, as far as this process heard it.
    pub fn of_device(
        &self,
        tenant: TenantId,
        device: &DeviceSn,
    ) -> (Vec<Alarm>, Option<Timestamp>) {
        let Some(of_device) = self.0.get(device) else { return (Vec::new(), None) };
        let alarms = of_device.cloned().into_iter().filter(|alarm| alarm.tenant == tenant);
        let heard_at = of_device.heard.filter(|(whose, _)| *whose == tenant).map(|(_, at)| at);
        (alarms.collect(), heard_at)
    }

    /// A device is `whose` now, or nobody's: what it listed for others is forgotten. Answers the alarms it has left, where
    /// some went.
    pub fn belongs(&mut self, device: &DeviceSn, whose: Option<TenantId>) -> Option<Vec<Alarm>> {
        let of_device = self.0.get_mut(device)?;
        let before = of_device.alarms().len();
        of_device.retain(|alarm| Some(alarm.tenant) == whose);
        of_device.heard = of_device.heard.filter(|(tenant, _)| Some(*tenant) == whose);
        let left = of_device.cloned();
        if left.is_empty() && of_device.heard.is_none() {
            self.0.remove(device);
        }
        (left.len() < before).then_some(left)
    }

    /// The devices of which anything is known.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceSn> {
        self.0.keys()
    }

    /// The alarms of a tenant's devices, by device.
    pub fn of_tenant(&self, tenant: TenantId) -> Vec<Alarm> {
        let all = self.0.values().flat_map(OfDevice::cloned);
        all.filter(|alarm| alarm.tenant == tenant).collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use utmos_dji::hms;
    use uuid::Uuid;

    use super::*;

    fn list(codes: &[&str]) -> Vec<Entry> {
        let entries: Vec<String> =
            codes.iter().map(|code| format!(r#"{{"code":"{code}","level":1}}"#)).collect();
        hms::read(&format!(r#"{{"list":[{}]}}"#, entries.join(","))).unwrap()
    }

    /// So many milliseconds after the beginning, with a wall clock that was set by so many hours.
    fn at(millis: u64, set_by: i64) -> Now {
        let wall = i64::try_from(millis).unwrap() + set_by * 3_600_000;
        Now { wall: Timestamp::from_millis(wall), mono: Mono::from_millis(millis) }
    }

    #[test]
    fn only_what_changes_is_news() {
        let (device, gateway) =
            (DeviceSn::parse("DOCK").unwrap(), GatewaySn::parse("DOCK").unwrap());
        let (mine, other) = (TenantId::new(Uuid::from_u128(1)), TenantId::new(Uuid::from_u128(2)));
        let mut raised = Raised::default();
        let heard = |raised: &mut Raised, tenant, millis: u64, codes: &[&str]| {
            let by = Lister { tenant, device: &device, gateway: &gateway, at: at(millis, 0) };
            let change = raised.listed(&by, list(codes));
            let keys = |alarms: &[Alarm]| -> Vec<String> {
                alarms.iter().map(|alarm| alarm.key.trim_end().to_owned()).collect()
            };
            (keys(&change.raised), keys(&change.cleared))
        };
        let none: Vec<String> = Vec::new();
        assert_eq!(heard(&mut raised, mine, 1, &[]), (none.clone(), none.clone()));
        assert_eq!(
            heard(&mut raised, mine, 2, &["0x16100067", "0x19110014"]),
            (vec!["0x16100067".to_owned(), "0x19110014".to_owned()], none.clone())
        );
        assert_eq!(
            heard(&mut raised, mine, 3, &["0x19110014", "0x16100067"]),
            (none.clone(), none.clone())
        );
        assert_eq!(
            heard(&mut raised, mine, 4, &["0x19110014"]),
            (none.clone(), vec!["0x16100067".to_owned()])
        );
        let (alarms, heard_at) = raised.of_device(mine, &device);
        assert_eq!(alarms.len(), 1);
        assert_eq!(alarms[0].since, Timestamp::from_millis(2), "since it was first listed");
        assert_eq!(heard_at, Some(Timestamp::from_millis(4)));

        // After a restart nothing is raised a second time.
        let mut again = Raised::of(raised.of_tenant(mine));
        assert_eq!(heard(&mut again, mine, 5, &["0x19110014"]), (none.clone(), none.clone()));
        // A device that changed hands begins anew, and tells its new tenant nothing of before.
        assert_eq!(
            heard(&mut again, other, 6, &["0x16100067"]),
            (vec!["0x16100067".to_owned()], none)
        );
        assert_eq!(again.of_tenant(mine), []);
        assert_eq!(again.of_device(mine, &device), (Vec::new(), None), "nor when that was");

        // Once it is another's, or nobody's, nothing is left.
        assert_eq!(again.belongs(&device, Some(other)), None, "nothing went");
        assert_eq!(again.of_tenant(other).len(), 1);
        assert_eq!(again.belongs(&device, None), Some(Vec::new()));
        assert_eq!(again.of_device(other, &device), (Vec::new(), None));
        assert_eq!(again.devices().count(), 0);
    }
    #[test]
    fn two_gateways_of_one_aircraft_that_differ_do_not_make_its_alarms_flap() {
        let sn = DeviceSn::parse("AIRCRAFT").unwrap();
        let (dock, remote) =
            (GatewaySn::parse("DOCK").unwrap(), GatewaySn::parse("REMOTE").unwrap());
        let tenant = TenantId::new(Uuid::from_u128(1));
        let heard = |raised: &mut Raised, gateway: &GatewaySn, second: u64, codes: &[&str]| {
            let by = Lister { tenant, device: &sn, gateway, at: at(second * 1_000, 0) };
            let change = raised.listed(&by, list(codes));
            (change.raised.len(), change.cleared.len())
        };
        let mut raised = Raised::default();
        assert_eq!(heard(&mut raised, &dock, 0, &["0x16100067"]), (1, 0));
        for second in 1..100 {
            assert_eq!(heard(&mut raised, &remote, second, &[]), (0, 0), "{second}");
            assert_eq!(heard(&mut raised, &dock, second, &["0x16100067"]), (0, 0), "{second}");
        }
        assert_eq!(heard(&mut raised, &remote, 100, &["0x16100067", "0x19110014"]), (1, 0));
        assert_eq!(heard(&mut raised, &dock, 100, &[]), (0, 0), "the other has it still");
        let (alarms, _) = raised.of_device(tenant, &sn);
        assert_eq!(alarms.len(), 2, "all that one of them has, each once");
        assert_eq!(alarms[0].since, Timestamp::from_millis(0), "since it was first listed");
        assert_eq!(heard(&mut raised, &remote, 101, &["0x19110014"]), (0, 1), "neither has it");

        // The remote controller is silent from now on: its list counts for a while, also after a restart.
        let mut raised = Raised::of(raised.of_tenant(tenant));
        assert_eq!(heard(&mut raised, &dock, 110, &[]), (0, 0));
        assert_eq!(heard(&mut raised, &dock, 139, &[]), (0, 0));
        assert_eq!(heard(&mut raised, &dock, 140, &[]), (0, 1));
        assert_eq!(raised.of_device(tenant, &sn).0, []);
    }
    #[test]
    fn a_wall_clock_that_is_set_makes_no_list_older_and_keeps_none() {
        let sn = DeviceSn::parse("AIRCRAFT").unwrap();
        let (dock, remote) =
            (GatewaySn::parse("DOCK").unwrap(), GatewaySn::parse("REMOTE").unwrap());
        let tenant = TenantId::new(Uuid::from_u128(1));
        for set_by in [-1, 1] {
            let mut raised = Raised::default();
            let mut heard = |gateway: &GatewaySn, second: u64, codes: &[&str]| {
                let hours = if second < 10 { 0 } else { set_by };
                let at = at(second * 1_000, hours);
                let change =
                    raised.listed(&Lister { tenant, device: &sn, gateway, at }, list(codes));
                (change.raised.len(), change.cleared.len())
            };
            assert_eq!(heard(&remote, 0, &["0x16100067"]), (1, 0));
            assert_eq!(heard(&dock, 1, &["0x16100067"]), (0, 0));
            // The clock is set, and only the dock lists from now on.
            assert_eq!(heard(&dock, 10, &[]), (0, 0), "the other's list counts for a while");
            assert_eq!(heard(&dock, 29, &[]), (0, 0));
            assert_eq!(heard(&dock, 30, &[]), (0, 1), "and not for an hour");
        }
    }
}
