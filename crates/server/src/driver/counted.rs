//! What is counted while commands are being accepted, and is counted out however that ends.

use std::{collections::BTreeMap, sync::Arc};

use utmos_core::id::GatewaySn;

use super::{Inner, LaneKey};

/// A command that was counted in at its lane; dropped once it has come, or will not.
pub(super) struct Expected {
    inner: Arc<Inner>,
    key: LaneKey,
}

impl Expected {
    pub(super) fn of(inner: &Arc<Inner>, key: &LaneKey) -> Self {
        Self { inner: inner.clone(), key: key.clone() }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.inner.expected_one(&self.key);
    }
}

/// A command of a gateway that is being accepted; dropped once that is over.
pub(super) struct Accepting {
    inner: Arc<Inner>,
    gateway: GatewaySn,
}

impl Accepting {
    pub(super) fn of(inner: &Arc<Inner>, gateway: &GatewaySn) -> Self {
        count_in(&mut inner.lock().accepting, gateway);
        Self { inner: inner.clone(), gateway: gateway.clone() }
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        count_out(&mut self.inner.lock().accepting, &self.gateway);
    }
}

/// A command that was counted in as one that is claimed with its acceptance; dropped once that is over.
pub(super) struct Claiming {
    inner: Arc<Inner>,
    gateway: GatewaySn,
}

impl Claiming {
    pub(super) fn of(inner: &Arc<Inner>, gateway: &GatewaySn) -> Self {
        Self { inner: inner.clone(), gateway: gateway.clone() }
    }
}

impl Drop for Claiming {
    fn drop(&mut self) {
        count_out(&mut self.inner.lock().claiming, &self.gateway);
    }
}

pub(super) fn count_in(counts: &mut BTreeMap<GatewaySn, usize>, gateway: &GatewaySn) {
    match counts.get_mut(gateway) {
        Some(count) => *count += 1,
        None => drop(counts.insert(gateway.clone(), 1)),
    }
}

fn count_out(counts: &mut BTreeMap<GatewaySn, usize>, gateway: &GatewaySn) {
    if let Some(count) = counts.get_mut(gateway) {
        *count -= 1;
        if *count == 0 {
            counts.remove(gateway);
        }
    }
}
