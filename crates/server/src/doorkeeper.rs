//! Who may connect to the embedded broker, and which topics they reach: a gateway its own and its aircraft's, nothing
//! else; one that comes with a binding code only what it needs for binding. Answers come from memory.

use std::{net::SocketAddr, sync::Arc};

use utmos_core::{
    device::{NoRoute, Registry},
    id::{DeviceSn, GatewaySn},
    time::Clock,
};
use utmos_dji::topic::{UplinkTopic, access};
use utmos_mqtt::{Doorkeeper, Entry};

use crate::directory::Directory;

/// The door of the embedded broker. A gateway's user name is its serial number.
pub struct Door {
    directory: Arc<Directory>,
    clock: Arc<dyn Clock>,
}

impl Door {
    pub(crate) fn new(directory: Arc<Directory>, clock: Arc<dyn Clock>) -> Self {
        Self { directory, clock }
    }

    /// A gateway that nobody has registered comes in with a binding code in the place of a password.
    fn joins(&self, user: &str, password: &[u8]) -> Entry {
        let Ok(gateway) = GatewaySn::parse(user) else { return Entry::Refused };
        let is_free =
            || self.directory.with_registry(|known| known.is_unclaimed(&gateway.to_device()));
        if !is_free() {
            return Entry::Refused;
        }
        let newcomers = self.directory.newcomers();
        let entry = newcomers.admit(&gateway, password, self.clock.now());
        if entry == Entry::Refused {
            return entry;
        }
        // Whoever was registered in between did not see this one among the newcomers.
        if !is_free() {
            newcomers.forget(&gateway);
            return Entry::Refused;
        }
        tracing::info!(gateway.sn = %gateway, "{gateway} came with a binding code");
        entry
    }

    /// Whether one who is connected holds a binding code that is good, and nothing else yet.
    fn is_newcomer(&self, user: &str) -> Option<GatewaySn> {
        let gateway = GatewaySn::parse(user).ok()?;
        let is_free =
            self.directory.with_registry(|known| known.is_unclaimed(&gateway.to_device()));
        let newcomer = self.directory.newcomers().of(&gateway, self.clock.now().wall);
        (is_free && newcomer.is_some()).then_some(gateway)
    }

    /// Looks at a gateway's own aircraft, all in one moment: those on record that are aircraft of its tenant. What it
    /// merely claims does not open anybody else's topics.
    fn with_gateway(
        &self,
        user: &str,
        look: impl FnOnce(&GatewaySn, &[DeviceSn], &Registry) -> bool,
    ) -> bool {
        let Ok(gateway) = GatewaySn::parse(user) else { return false };
        self.directory.with_registry(|registry| {
            registry.tenant_of(&gateway).is_some()
                && look(&gateway, &registry.speaks_for(&gateway), registry)
        })
    }

    /// A client id that spells a gateway's serial number is that gateway's alone: under it, another could throw it out
    /// before it is there. (The broker refuses client ids that another user holds.)
    fn may_use(&self, client_id: &str, user: &str) -> bool {
        let is_gateway = |sn: DeviceSn| {
            self.directory.device(&sn).is_some_and(|device| device.kind.is_gateway())
        };
        client_id == user || !DeviceSn::parse(client_id).is_ok_and(is_gateway)
    }
}

impl Doorkeeper for Door {
    fn authenticate(
        &self,
        client_id: &str,
        user: Option<&str>,
        password: Option<&[u8]>,
        peer: Option<SocketAddr>,
    ) -> Entry {
        let (Some(user), Some(password)) = (user, password) else { return Entry::Refused };
        let may_use_id = self.may_use(client_id, user);
        let entry = match may_use_id {
            false => Entry::Refused,
            true if self.directory.opens(user, password) => Entry::Granted,
            true => self.joins(user, password),
        };
        if entry == Entry::Refused {
            let shown: String = user.chars().take(64).collect();
            tracing::warn!(user = shown, ?peer, may_use_id, "refused a connection to the broker");
        }
        entry
    }

    /// A gateway speaks for itself and its aircraft. Of an aircraft that no gateway leads yet it may speak too: it does
    /// so the moment it has announced it, while the announcement is still on its way through the link, which takes both
    /// in order and passes over whatever was not announced.
    fn may_publish(&self, user: &str, topic: &str) -> bool {
        let is_own = self.with_gateway(user, |gateway, subs, registry| {
            if access::may_publish(gateway, subs, topic) {
                return true;
            }
            let Ok(uplink) = UplinkTopic::parse(topic) else { return false };
            let device = uplink.device();
            let has_no_way =
                |tenant| matches!(registry.route(tenant, &device), Err(NoRoute::NoGateway(_)));
            let is_free = registry.is_unclaimed(&device)
                || registry.tenant_of(gateway).is_some_and(has_no_way);
            is_free && access::may_publish(gateway, &[device], topic)
        });
        is_own
            || self
                .is_newcomer(user)
                .is_some_and(|gateway| access::newcomer_may_publish(&gateway, topic))
    }

    fn may_subscribe(&self, user: &str, filter: &str) -> bool {
        self.with_gateway(user, |gateway, subs, _| access::may_subscribe(gateway, subs, filter))
            || self
                .is_newcomer(user)
                .is_some_and(|gateway| access::may_subscribe(&gateway, &[], filter))
    }

    /// What devices say is for the server alone: also below its own serial number a device hears nothing of it.
    fn may_overhear(&self, topic: &str) -> bool {
        UplinkTopic::parse(topic).is_err()
    }
}
