//! Who speaks: the gateway behind a message. On an aircraft's topics that is the connection it came by; where another's
//! broker tells no connection, the one that leads the aircraft, or of several the one that the message names.

use utmos_core::{
    device::{NoRoute, Registry},
    id::{DeviceSn, GatewaySn, TenantId},
};
use utmos_dji::{
    answer,
    envelope::{self, Envelope},
    topic::UplinkTopic,
    uplink::{self, Uplink},
};

use super::{
    Link, Said,
    evidence::{About, Stray},
};

/// What one that has not joined may ask: what it must know to join. Anything else it asks once it has, and nobody has to
/// answer strangers by hand.
const NEWCOMER_ASKS: [&str; 4] =
    ["config", "airport_bind_status", "airport_organization_get", "airport_organization_bind"];

/// Whom a message comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    /// This gateway, of this tenant.
    Gateway(TenantId, GatewaySn),
    /// One of several gateways of this tenant, and nothing says which; this is the first of them.
    Unclear(TenantId, GatewaySn),
    /// A gateway that nobody has registered, connected to our own broker with a binding code of this tenant.
    Newcomer(TenantId, GatewaySn),
    /// A device nobody has registered.
    Stranger,
}

impl Link {
    pub(super) fn speaker(&self, device: &DeviceSn, user: Option<&str>, payload: &[u8]) -> Speaker {
        let found =
            self.parts.directory.with_registry(|registry| find(registry, device, user, payload));
        if found == Speaker::Stranger && user == Some(device.as_str()) {
            let gateway = device.to_gateway();
            let now = self.parts.clock.now().wall;
            if let Some(newcomer) = self.parts.directory.newcomers().of(&gateway, now) {
                return Speaker::Newcomer(newcomer.tenant, gateway);
            }
        }
        found
    }

    /// A newcomer asks what it must know to join, and tells what stands behind it, which counts once it has.
    pub(super) fn newcomer(
        self: &std::sync::Arc<Self>,
        tenant: TenantId,
        gateway: &GatewaySn,
        parsed: &UplinkTopic,
        topic: &str,
        payload: &[u8],
    ) {
        if !self.parts.holdings.holds(gateway) {
            return;
        }
        let uplink = match uplink::read(parsed, payload, &self.meanings_for(gateway)) {
            Ok(uplink) => uplink,
            Err(error) => {
                Self::count(&self.figures.malformed);
                return self.keep(Stray {
                    tenant: Some(tenant),
                    gateway: Some(gateway),
                    topic,
                    payload,
                    reason: &error.to_string(),
                    about: About::default(),
                });
            }
        };
        match &uplink {
            Uplink::Request(request)
                if !request.method.as_deref().is_some_and(|it| NEWCOMER_ASKS.contains(&it)) =>
            {
                tracing::debug!(gateway.sn = %gateway, "{gateway} asks more than one may that has not joined");
            }
            Uplink::Request(_) => {
                let at = self.parts.clock.now();
                let bytes = payload.len();
                let said = Said { tenant, gateway, uplink: &uplink, bytes, at, is_ours: true };
                self.parts.listeners.iter().for_each(|listener| listener.said(&said));
            }
            Uplink::Topology(_) => self.acknowledge(tenant, gateway, &uplink),
            // Its topics are not open to it.
            Uplink::Reply(_)
            | Uplink::PropertyReply(_)
            | Uplink::DrcAck(_)
            | Uplink::DrcPush(_)
            | Uplink::Event(_)
            | Uplink::Osd(_)
            | Uplink::State(_) => {}
        }
    }

    /// Where another's broker tells no connection, what a message says of its gateway is all there is: one that names a
    /// gateway which its device never stood behind is not from where it says it is.
    pub(super) fn is_forged(&self, device: &DeviceSn, named: &GatewaySn) -> bool {
        self.parts.directory.with_registry(|registry| {
            let (now, before) = registry.gateways_of(device);
            !now.contains(named) && !before.contains(named)
        })
    }

    /// What an aircraft says through one of several gateways is answered like anything else, or it would be said again
    /// and again; what it means for a command cannot be known.
    pub(super) fn unclear(
        self: &std::sync::Arc<Self>,
        tenant: TenantId,
        candidate: &GatewaySn,
        parsed: &UplinkTopic,
        topic: &str,
        payload: &[u8],
    ) {
        Self::count(&self.figures.unclear);
        if !self.parts.holdings.holds(candidate) {
            return;
        }
        let meanings = self.meanings_for(candidate);
        let now = self.parts.clock.now().wall;
        let answer = uplink::read(parsed, payload, &meanings)
            .ok()
            .and_then(|uplink| answer::acknowledge(&uplink, now));
        if let Some(answer) = answer {
            self.send(tenant, candidate, answer);
        }
        self.keep(Stray {
            tenant: Some(tenant),
            gateway: Some(candidate),
            topic,
            payload,
            reason: "several gateways have this aircraft, and the message names none of them",
            about: About::default(),
        });
    }
}

fn find(registry: &Registry, device: &DeviceSn, user: Option<&str>, payload: &[u8]) -> Speaker {
    let Some(known) = registry.device(device) else { return Speaker::Stranger };
    let tenant = known.tenant;
    if known.kind.is_gateway() {
        return Speaker::Gateway(tenant, device.to_gateway());
    }
    let is_of_tenant = |gateway: &GatewaySn| registry.tenant_of(gateway) == Some(tenant);
    // Our own broker lets a gateway speak only for an aircraft that it has, or has had. One of another tenant had it before
    // somebody here: what it says is not taken for what they say.
    if let Some(user) = user {
        let connected = GatewaySn::parse(user).ok().filter(is_of_tenant);
        return connected.map_or(Speaker::Stranger, |gateway| Speaker::Gateway(tenant, gateway));
    }
    match registry.route(tenant, device) {
        Ok(route) => Speaker::Gateway(tenant, route.gateway),
        Err(NoRoute::Ambiguous { gateways, .. }) => {
            let named = named_gateway(payload);
            let is_named =
                |gateway: &&String| named.as_ref().is_some_and(|named| named.as_str() == **gateway);
            let speaker = |gateway: &String| GatewaySn::parse(gateway).ok();
            match gateways.iter().find(is_named).and_then(speaker) {
                Some(gateway) => Speaker::Gateway(tenant, gateway),
                None => gateways
                    .first()
                    .and_then(speaker)
                    .map_or(Speaker::Stranger, |first| Speaker::Unclear(tenant, first)),
            }
        }
        Err(NoRoute::UnknownDevice(_) | NoRoute::NoGateway(_)) => Speaker::Stranger,
    }
}

/// The gateway a message names. A claim: it only chooses among those that may speak.
fn named_gateway(payload: &[u8]) -> Option<GatewaySn> {
    let text = envelope::text_of(payload).ok()?;
    Envelope::read(&text).ok()?.gateway
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use utmos_core::{
        device::{Device, DeviceKind, SubDevice},
        time::Timestamp,
    };
    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    fn device(text: &str, owner: u128, kind: DeviceKind) -> Device {
        Device {
            sn: DeviceSn::parse(text).unwrap(),
            tenant: tenant(owner),
            kind,
            model_key: None,
            label: String::new(),
            tags: std::collections::BTreeSet::new(),
            simulated: false,
            mqtt_secret_hash: None,
            created_at: Timestamp::from_millis(0),
        }
    }

    #[test]
    fn what_comes_by_another_tenants_connection_is_nobodys_word_for_an_aircraft() {
        let mut registry = Registry::default();
        registry.put(device("DOCK1", 1, DeviceKind::Dock));
        registry.put(device("DOCK9", 2, DeviceKind::Dock));
        registry.put(device("M4", 1, DeviceKind::Aircraft));
        let aircraft = DeviceSn::parse("M4").unwrap();
        let dock = GatewaySn::parse("DOCK1").unwrap();
        let subs = [SubDevice { sn: aircraft.clone(), model_key: None, index: None }];
        registry.report_topology(&dock, &subs, Timestamp::from_millis(7));
        let speaker = |user| find(&registry, &aircraft, user, b"{}");
        assert_eq!(speaker(Some("DOCK1")), Speaker::Gateway(tenant(1), dock.clone()));
        // It could speak for the aircraft while nobody had it, and its messages may still be on their way.
        assert_eq!(speaker(Some("DOCK9")), Speaker::Stranger);
        assert_eq!(speaker(Some("nobody at all")), Speaker::Stranger);
        // Another's broker tells no connection.
        assert_eq!(speaker(None), Speaker::Gateway(tenant(1), dock));
    }
}
