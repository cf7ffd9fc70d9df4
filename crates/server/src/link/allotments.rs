//! How much the link may have in hand of what devices say: what waits for the store, and the answers that are on their way.
//!
//! Each gateway has a bound, and tenants share the room, so that one that floods us takes nothing from the others.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use utmos_core::id::{GatewaySn, TenantId};

use crate::shares::Room;

/// Messages in hand in all, and their bytes; tenants share both.
pub(super) const MESSAGES_MAX: usize = 8_192;
const BYTES_MAX: usize = 128 * 1024 * 1024;
/// Bytes of the messages of one gateway.
pub(super) const BYTES_PER_GATEWAY_MAX: usize = 2 * 1024 * 1024;

/// Whose message it is. `None` stands for those nobody knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose<'a> {
    pub(super) tenant: Option<TenantId>,
    pub(super) gateway: Option<&'a GatewaySn>,
    /// How many tenants there are.
    pub(super) tenants: usize,
}

/// What is in hand of one gateway.
#[derive(Debug, Clone, Copy, Default)]
struct InHand {
    messages: usize,
    bytes: usize,
}

/// What is in hand. Pure.
#[derive(Debug)]
struct Shares {
    /// Messages of one gateway.
    per_gateway: usize,
    gateways: BTreeMap<Option<GatewaySn>, InHand>,
    messages: Room<Option<TenantId>>,
    bytes: Room<Option<TenantId>>,
}

impl Shares {
    fn take(&mut self, whose: Whose<'_>, bytes: usize) -> bool {
        let Whose { tenant, gateway, tenants } = whose;
        // Nobody has a part as well.
        let tenants = tenants + 1;
        let in_hand = self.gateways.get(&gateway.cloned()).copied().unwrap_or_default();
        // Of a gateway, one message alone always finds room, however large.
        let is_full = in_hand.messages >= self.per_gateway
            || (in_hand.messages > 0 && in_hand.bytes + bytes > BYTES_PER_GATEWAY_MAX);
        if is_full || !self.messages.take(tenant, 1, tenants) {
            return false;
        }
        if !self.bytes.take(tenant, bytes, tenants) {
            self.messages.give_back(tenant, 1);
            return false;
        }
        let in_hand = InHand { messages: in_hand.messages + 1, bytes: in_hand.bytes + bytes };
        self.gateways.insert(gateway.cloned(), in_hand);
        true
    }

    fn give_back(&mut self, tenant: Option<TenantId>, gateway: &Option<GatewaySn>, bytes: usize) {
        self.messages.give_back(tenant, 1);
        self.bytes.give_back(tenant, bytes);
        let Some(in_hand) = self.gateways.get_mut(gateway) else { return };
        in_hand.messages -= 1;
        in_hand.bytes -= bytes;
        if in_hand.messages == 0 {
            self.gateways.remove(gateway);
        }
    }
}

/// The room for them.
#[derive(Debug)]
pub(super) struct Allotments(Arc<Mutex<Shares>>);

impl Allotments {
    /// Room of which one gateway may take so many messages.
    pub(super) fn new(per_gateway: usize) -> Self {
        Self(Arc::new(Mutex::new(Shares {
            per_gateway,
            gateways: BTreeMap::new(),
            messages: Room::new(MESSAGES_MAX),
            bytes: Room::new(BYTES_MAX),
        })))
    }

    /// Messages in hand.
    pub(super) fn taken(&self) -> usize {
        lock(&self.0).messages.taken()
    }

    /// Takes room for a message of somebody's that has so many bytes, if there is some.
    pub(super) fn take(&self, whose: Whose<'_>, bytes: usize) -> Option<Allotment> {
        let Whose { tenant, gateway, .. } = whose;
        let (shares, gateway) = (self.0.clone(), gateway.cloned());
        let taken = lock(&shares).take(whose, bytes);
        // Made only then: what is dropped gives back.
        taken.then(|| Allotment { shares, tenant, gateway, bytes })
    }
}

/// A message's part of the room, until this is dropped.
#[derive(Debug)]
pub(super) struct Allotment {
    shares: Arc<Mutex<Shares>>,
    tenant: Option<TenantId>,
    gateway: Option<GatewaySn>,
    bytes: usize,
}

impl Drop for Allotment {
    fn drop(&mut self) {
        lock(&self.shares).give_back(self.tenant, &self.gateway, self.bytes);
    }
}

fn lock(shares: &Mutex<Shares>) -> MutexGuard<'_, Shares> {
    shares.lock().unwrap_or_else(PoisonError::into_inner)
}
