//! Gateways that nobody has registered yet and that came with a binding code: which there are, of which tenant, and what
//! they may be told. In memory; asked for every message they send.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use utmos_core::{
    binding::{BindingCode, CodeState, code_hash},
    device::Device,
    id::{BindingCodeId, DeviceSn, GatewaySn, TenantId},
    time::{Mono, Now, Timestamp},
};
use utmos_mqtt::Entry;

use crate::directory::mqtt_secret_hash;

/// Serial numbers that may come with one code beyond those that it can bind: some mistype theirs. Whoever holds a code and
/// makes numbers up fills no memory.
const MISTYPED_MAX: u32 = 64;

/// How long one that came in the place of another tenant's newcomer has to join before it may be replaced in its turn. Long
/// enough to be bound, so that whoever waits under somebody's serial number cannot keep the dock itself out.
const TURN: Duration = Duration::from_secs(60);

/// A gateway with a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newcomer {
    /// The tenant it will be one of.
    pub tenant: TenantId,
    /// The code.
    pub code: BindingCodeId,
    /// What is kept of its password from then on: with the code, typed as it was, it comes back.
    pub mqtt_secret_hash: [u8; 32],
    /// When it took another tenant's place. By the running time: a wall clock that is set ends no turn, and makes none longer.
    turn_from: Option<Mono>,
}

impl Newcomer {
    fn has_its_turn(&self, now: Mono) -> bool {
        self.turn_from.is_some_and(|from| now.since(from) < TURN)
    }
}

/// Codes and those who came with one.
#[derive(Debug, Default)]
pub struct Newcomers(RwLock<Held>);

#[derive(Debug, Default)]
struct Held {
    codes: BTreeMap<BindingCodeId, BindingCode>,
    admitted: BTreeMap<GatewaySn, Newcomer>,
}

impl Held {
    /// The code that was typed, if it is good. Every code is compared with, in constant time.
    fn code(&self, typed: &[u8], now: Timestamp) -> Option<&BindingCode> {
        let hash = code_hash(std::str::from_utf8(typed).ok()?)?;
        let mut found = None;
        for code in self.codes.values() {
            if code.has_hash(&hash) && code.is_active(now) {
                found = Some(code);
            }
        }
        found
    }
}

impl Newcomers {
    /// Takes the list of codes anew. Answers the gateways whose code was taken back.
    pub fn take_codes(&self, codes: Vec<BindingCode>) -> Vec<GatewaySn> {
        let mut held = self.write();
        held.codes = codes.into_iter().map(|code| (code.id, code)).collect();
        let Held { codes, admitted } = &mut *held;
        let mut gone = Vec::new();
        admitted.retain(|gateway, newcomer| {
            let code = codes.get(&newcomer.code);
            let stays = code.is_some_and(|code| code.revoked_at.is_none());
            if !stays {
                gone.push(gateway.clone());
            }
            stays
        });
        gone
    }

    /// Knows a code from now on.
    pub fn add_code(&self, code: BindingCode) {
        self.write().codes.insert(code.id, code);
    }

    /// Lets a gateway in whose password is a code that is good.
    ///
    /// All who are connected under a serial number came with the same password, so that none is taken for another when it
    /// joins: who comes with another takes the place of all of them. Between tenants that goes by turns.
    pub fn admit(&self, gateway: &GatewaySn, password: &[u8], now: Now) -> Entry {
        let mut held = self.write();
        let Some(code) = held.code(password, now.wall) else { return Entry::Refused };
        let id = code.id;
        let places = (code.uses_max - code.uses).saturating_add(MISTYPED_MAX);
        let mut newcomer = Newcomer {
            tenant: code.tenant,
            code: id,
            mqtt_secret_hash: mqtt_secret_hash(&gateway.to_device(), password),
            turn_from: None,
        };
        let others = held.admitted.iter().filter(|(sn, one)| one.code == id && *sn != gateway);
        if others.count() >= usize::try_from(places).unwrap_or(usize::MAX) {
            tracing::warn!(code = %id, "too many serial numbers came with one binding code");
            return Entry::Refused;
        }
        let Some(before) = held.admitted.get(gateway) else {
            held.admitted.insert(gateway.clone(), newcomer);
            return Entry::Granted;
        };
        if before.code == newcomer.code && before.mqtt_secret_hash == newcomer.mqtt_secret_hash {
            return Entry::Granted;
        }
        let can_join = held.codes.get(&before.code).is_some_and(|code| code.is_active(now.wall));
        if before.tenant == newcomer.tenant {
            newcomer.turn_from = before.turn_from;
        } else if can_join && before.has_its_turn(now.mono) {
            tracing::warn!(gateway.sn = %gateway, tenant = %newcomer.tenant, "codes of two tenants came under the serial number {gateway}; the second has to wait");
            return Entry::Refused;
        } else {
            tracing::warn!(gateway.sn = %gateway, from = %before.tenant, to = %newcomer.tenant, "codes of two tenants came under the serial number {gateway}; the first gives way");
            newcomer.turn_from = Some(now.mono);
        }
        held.admitted.insert(gateway.clone(), newcomer);
        Entry::GrantedAlone
    }

    /// Forgets one that came while somebody registered its serial number.
    pub fn forget(&self, gateway: &GatewaySn) {
        self.write().admitted.remove(gateway);
    }

    /// Who it is, while its code is good.
    #[must_use]
    pub fn of(&self, gateway: &GatewaySn, now: Timestamp) -> Option<Newcomer> {
        let held = self.read();
        let newcomer = held.admitted.get(gateway)?;
        let code = held.codes.get(&newcomer.code)?;
        code.is_active(now).then(|| newcomer.clone())
    }

    /// Whose it will be, also when its code has ended since it came.
    #[must_use]
    pub fn tenant_of(&self, gateway: &GatewaySn) -> Option<TenantId> {
        self.read().admitted.get(gateway).map(|newcomer| newcomer.tenant)
    }

    /// The code of this tenant that was typed, if it is good.
    #[must_use]
    pub fn code_of(&self, tenant: TenantId, typed: &str, now: Timestamp) -> Option<BindingCodeId> {
        let held = self.read();
        let code = held.code(typed.as_bytes(), now).filter(|code| code.tenant == tenant);
        code.map(|code| code.id)
    }

    /// How a code stands, as far as is known here.
    #[must_use]
    pub fn state_of(&self, id: BindingCodeId, now: Timestamp) -> Option<CodeState> {
        self.read().codes.get(&id).map(|code| code.state(now))
    }

    /// A device is registered now: whoever came under its serial number is no newcomer any more. Answers whether that is
    /// somebody else than the one that was registered, whose connection must end.
    pub fn gives_way_to(&self, device: &Device) -> bool {
        let gateway = device.sn.to_gateway();
        let known = self.read().admitted.contains_key(&gateway);
        let Some(newcomer) = known.then(|| self.write().admitted.remove(&gateway)).flatten() else {
            return false;
        };
        newcomer.tenant != device.tenant
            || device.mqtt_secret_hash != Some(newcomer.mqtt_secret_hash)
    }

    /// Whether somebody came under this serial number.
    #[must_use]
    pub fn holds(&self, sn: &DeviceSn) -> bool {
        self.read().admitted.contains_key(&sn.to_gateway())
    }

    fn read(&self) -> RwLockReadGuard<'_, Held> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Held> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use utmos_core::{binding::code_of, credential::Secret, device::DeviceKind};
    use uuid::Uuid;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn code(number: u8, uses_max: u32) -> (BindingCode, Secret) {
        let shown = code_of(&[number; 13]);
        let code = BindingCode {
            id: BindingCodeId::new(Uuid::from_u128(number.into())),
            tenant: TenantId::new(Uuid::from_u128(1)),
            label: String::new(),
            hash: code_hash(shown.expose()).unwrap(),
            uses_max,
            uses: 0,
            created_at: at(0),
            created_by: String::new(),
            expires_at: at(100),
            revoked_at: None,
        };
        (code, shown)
    }

    fn gateway(text: &str) -> GatewaySn {
        GatewaySn::parse(text).unwrap()
    }

    /// Both clocks, that of the wall set by so much.
    fn now(millis: i64, set_by: i64) -> Now {
        Now { wall: at(millis + set_by), mono: Mono::from_millis(millis.unsigned_abs()) }
    }

    fn comes(newcomers: &Newcomers, gateway: &GatewaySn, password: &[u8], wall: Timestamp) -> bool {
        newcomers.admit(gateway, password, now(wall.as_millis(), 0)) != Entry::Refused
    }

    #[test]
    fn who_comes_with_another_code_comes_alone_and_tenants_take_turns() {
        let newcomers = Newcomers::default();
        let mut typed = Vec::new();
        for (number, tenant) in [(1, 1), (2, 1), (3, 2)] {
            let (code, shown) = code(number, 9);
            let tenant = TenantId::new(Uuid::from_u128(tenant));
            newcomers.add_code(BindingCode { tenant, expires_at: at(1_000_000), ..code });
            typed.push(shown.expose().to_owned());
        }
        let dock = gateway("NEW");
        let came =
            |code: usize, millis| newcomers.admit(&dock, typed[code].as_bytes(), now(millis, 0));
        assert_eq!(came(0, 1), Entry::Granted);
        assert_eq!(came(0, 2), Entry::Granted, "another connection of its own");
        assert_eq!(came(1, 3), Entry::GrantedAlone, "the tenant typed another");
        assert_eq!(came(2, 4), Entry::GrantedAlone, "another tenant's has its turn");
        assert_eq!(came(0, 60_003), Entry::Refused);
        assert_eq!(came(2, 60_003), Entry::Granted);
        assert_eq!(came(0, 60_004), Entry::GrantedAlone, "it began when it came first");
        assert_eq!(came(2, 60_005), Entry::Refused);
        assert_eq!(came(1, 60_006), Entry::GrantedAlone, "the tenant's own");
        assert_eq!(came(2, 120_003), Entry::Refused);
        assert_eq!(came(2, 120_004), Entry::GrantedAlone);
        let small = typed[2].to_lowercase();
        assert_eq!(newcomers.admit(&dock, small.as_bytes(), now(120_005, 0)), Entry::GrantedAlone);
    }

    #[test]
    fn a_wall_clock_that_is_set_neither_ends_a_turn_nor_makes_it_longer() {
        const HOUR: i64 = 3_600_000;
        for set_by in [-HOUR, HOUR] {
            let newcomers = Newcomers::default();
            let typed = [1, 2].map(|number| {
                let (code, shown) = code(number, 9);
                let tenant = TenantId::new(Uuid::from_u128(number.into()));
                newcomers.add_code(BindingCode { tenant, expires_at: at(9 * HOUR), ..code });
                shown.expose().to_owned()
            });
            let dock = gateway("NEW");
            let came = |code: usize, now: Now| newcomers.admit(&dock, typed[code].as_bytes(), now);
            assert_eq!(came(0, now(HOUR, 0)), Entry::Granted);
            assert_eq!(came(1, now(HOUR, 0)), Entry::GrantedAlone);
            assert_eq!(came(0, now(HOUR + 59_999, set_by)), Entry::Refused);
            assert_eq!(came(0, now(HOUR + 60_000, set_by)), Entry::GrantedAlone);
        }
    }

    #[test]
    fn a_code_lets_in_while_it_is_good_and_no_longer() {
        let newcomers = Newcomers::default();
        let (code, shown) = code(7, 1);
        let dock = gateway("NEW");
        let password = shown.expose().to_lowercase();
        assert!(!comes(&newcomers, &dock, password.as_bytes(), at(1)), "nobody knows it yet");
        newcomers.add_code(code.clone());
        for wrong in [&b""[..], b"AAAAA-AAAAA-AAAAA-AAAAA", b"\xff\xfe"] {
            assert!(!comes(&newcomers, &dock, wrong, at(1)));
        }
        assert!(comes(&newcomers, &dock, password.as_bytes(), at(1)));
        assert_eq!(newcomers.of(&dock, at(99)).map(|one| one.tenant), Some(code.tenant));
        assert_eq!(newcomers.of(&dock, at(100)), None, "its time is over");
        assert!(!comes(&newcomers, &gateway("LATE"), password.as_bytes(), at(100)));
        assert_eq!(newcomers.of(&gateway("OTHER"), at(1)), None);
        let used = BindingCode { uses: 1, ..code.clone() };
        assert!(newcomers.take_codes(vec![used]).is_empty());
        assert_eq!(newcomers.of(&dock, at(1)), None, "another has joined with it");
        let revoked = BindingCode { revoked_at: Some(at(2)), ..code };
        assert_eq!(newcomers.take_codes(vec![revoked]), std::slice::from_ref(&dock));
        assert!(!newcomers.holds(&dock.to_device()));
    }

    #[test]
    fn whoever_holds_a_code_and_makes_numbers_up_fills_no_memory() {
        let newcomers = Newcomers::default();
        let (code, shown) = code(7, 2);
        newcomers.add_code(code);
        let came = |number: u32| {
            comes(
                &newcomers,
                &gateway(&format!("MADE-UP-{number}")),
                shown.expose().as_bytes(),
                at(1),
            )
        };
        assert_eq!((0..1_000).filter(|number| came(*number)).count(), 66);
        assert!(came(0), "one that is known may come again");
    }

    #[test]
    fn whoever_came_under_a_number_gives_way_to_the_one_it_is_registered_for() {
        let newcomers = Newcomers::default();
        let (code, shown) = code(7, 9);
        newcomers.add_code(code.clone());
        let dock = gateway("NEW");
        let hash = mqtt_secret_hash(&dock.to_device(), shown.expose().as_bytes());
        let bound = Device {
            sn: dock.to_device(),
            tenant: code.tenant,
            kind: DeviceKind::Dock,
            model_key: None,
            label: String::new(),
            tags: std::collections::BTreeSet::new(),
            simulated: false,
            mqtt_secret_hash: Some(hash),
            created_at: at(0),
        };
        assert!(!newcomers.gives_way_to(&bound), "nobody came");
        for (device, gives_way) in [
            (bound.clone(), false),
            (Device { mqtt_secret_hash: Some([1; 32]), ..bound.clone() }, true),
            (Device { tenant: TenantId::new(Uuid::from_u128(2)), ..bound }, true),
        ] {
            assert!(comes(&newcomers, &dock, shown.expose().as_bytes(), at(1)));
            assert_eq!(newcomers.gives_way_to(&device), gives_way);
            assert!(!newcomers.holds(&dock.to_device()));
        }
    }
}
