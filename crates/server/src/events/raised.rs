//! The alarms that are raised now. Devices send their full list every 2 s: what was not listed before is raised, what is
//! listed no more is over, and the repetition is nothing.

use std::collections::BTreeMap;

use utmos_core::{
    device_event::Alarm,
    id::{DeviceSn, GatewaySn, TenantId},
    time::Timestamp,
};
use utmos_dji::hms::Entry;

/// Who lists alarms, and when.
pub struct Lister<'a> {
    /// Whose device it is.
    pub tenant: TenantId,
    /// The device.
    pub device: &'a DeviceSn,
    /// The gateway it came through.
    pub gateway: &'a GatewaySn,
    /// When the list came.
    pub at: Timestamp,
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
    alarms: BTreeMap<String, Alarm>,
    /// When it last listed them, and whose it was then.
    heard: Option<(TenantId, Timestamp)>,
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
            of_device.alarms.insert(alarm.key.clone(), alarm);
        }
        raised
    }

    /// Takes a list in.
    pub fn listed(&mut self, by: &Lister<'_>, list: Vec<Entry>) -> Change {
        let of_device = self.0.entry(by.device.clone()).or_default();
        of_device.heard = Some((by.tenant, by.at));
        // Those of a tenant that had the device before are nobody's business any more.
        of_device.alarms.retain(|_, alarm| alarm.tenant == by.tenant);
        let mut change = Change::default();
        let mut now = BTreeMap::new();
        for entry in list {
            let key = entry.key();
            let alarm = match of_device.alarms.remove(&key) {
                Some(known) => Alarm { entry: entry.raw, gateway: by.gateway.clone(), ..known },
                None => {
                    let alarm = Alarm {
                        tenant: by.tenant,
                        device: by.device.clone(),
                        gateway: by.gateway.clone(),
                        key: key.clone(),
                        entry: entry.raw,
                        since: by.at,
                    };
                    change.raised.push(alarm.clone());
                    alarm
                }
            };
            now.insert(key, alarm);
        }
        change.cleared = std::mem::replace(&mut of_device.alarms, now).into_values().collect();
        change
    }

    /// The alarms of a device, and when it last listed them, as far as this process heard it.
    pub fn of_device(
        &self,
        tenant: TenantId,
        device: &DeviceSn,
    ) -> (Vec<Alarm>, Option<Timestamp>) {
        let Some(of_device) = self.0.get(device) else { return (Vec::new(), None) };
        let alarms = of_device.alarms.values().filter(|alarm| alarm.tenant == tenant);
        let heard_at = of_device.heard.filter(|(whose, _)| *whose == tenant).map(|(_, at)| at);
        (alarms.cloned().collect(), heard_at)
    }

    /// A device is `whose` now, or nobody's: what it listed for others is forgotten. Answers the alarms it has left, where
    /// some went.
    pub fn belongs(&mut self, device: &DeviceSn, whose: Option<TenantId>) -> Option<Vec<Alarm>> {
        let of_device = self.0.get_mut(device)?;
        let before = of_device.alarms.len();
        of_device.alarms.retain(|_, alarm| Some(alarm.tenant) == whose);
        of_device.heard = of_device.heard.filter(|(tenant, _)| Some(*tenant) == whose);
        let left: Vec<Alarm> = of_device.alarms.values().cloned().collect();
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
        let all = self.0.values().flat_map(|of_device| of_device.alarms.values());
        all.filter(|alarm| alarm.tenant == tenant).cloned().collect()
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

    #[test]
    fn only_what_changes_is_news() {
        let (device, gateway) =
            (DeviceSn::parse("DOCK").unwrap(), GatewaySn::parse("DOCK").unwrap());
        let (mine, other) = (TenantId::new(Uuid::from_u128(1)), TenantId::new(Uuid::from_u128(2)));
        let mut raised = Raised::default();
        let heard = |raised: &mut Raised, tenant, at: i64, codes: &[&str]| {
            let by = Lister {
                tenant,
                device: &device,
                gateway: &gateway,
                at: Timestamp::from_millis(at),
            };
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
}
