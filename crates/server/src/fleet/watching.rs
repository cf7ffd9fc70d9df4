//! What goes on beside the way in: what devices say is noted, those whose time has come are looked at, and what was seen
//! is written.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utmos_core::{
    id::{DeviceSn, GatewaySn, TenantId},
    life::Presence,
    time::Mono,
};
use utmos_dji::{product, uplink::Uplink};

use super::{BATCH, Fleet, Held};
use crate::{
    driver::presence::Knowledge,
    link::{Listener, Said},
};

/// What was seen is written so often.
const WRITE_WAIT: Duration = Duration::from_secs(60);
/// That a device came or went is written so soon; what comes meanwhile goes with it.
const SOON: Duration = Duration::from_secs(1);
/// DJI's `mode_code` of an aircraft that cannot be seen: its gateway speaks in its place.
const NOT_CONNECTED: i64 = 14;

impl Listener for Fleet {
    fn said(&self, said: &Said<'_>) {
        // A newcomer is nobody's yet.
        if self.parts.directory.tenant_of(said.gateway) != Some(said.tenant) {
            return;
        }
        let gateway = said.gateway.to_device();
        let aircraft = speaks(said.uplink).filter(|device| **device != gateway);
        let mut held = self.lock();
        held.sightings.seen(&gateway, said.tenant, said.at);
        let is_on = tells_that_it_is_on(said.uplink);
        let aircraft = aircraft.filter(|sn| is_on || !held.sightings.is_off(sn));
        if let Some(aircraft) = aircraft {
            held.sightings.seen(aircraft, said.tenant, said.at);
        }
        if let Some((device, firmware)) = said.uplink.firmware_version()
            && !held.sightings.is_off(device)
        {
            held.sightings.seen(device, said.tenant, said.at).has_firmware(&firmware);
        }
        if let Uplink::Topology(topology) = said.uplink
            && let Some(key) = topology.model.key().filter(|key| product::is_key(key))
        {
            held.sightings.seen(&gateway, said.tenant, said.at).model_key = Some(key);
        }
        let is_new = aircraft.is_some_and(|sn| !held.book.told(sn).0);
        drop(held);
        if let Some(aircraft) = aircraft.filter(|_| is_new) {
            self.look_at(aircraft);
        }
    }

    fn presence(&self, gateway: &GatewaySn) {
        let sn = gateway.to_device();
        // Mostly nothing is new, with thousands of messages a second.
        if self.parts.driver.is_present(gateway) == Presence::Online
            && self.lock().book.is_settled(&sn, self.parts.knowledge == Knowledge::OwnBroker)
        {
            return;
        }
        self.look_at(&sn);
    }

    fn topology(&self, tenant: TenantId, gateway: &GatewaySn) {
        let now = self.parts.clock.now();
        let (listed, known) = self.parts.directory.with_registry(|registry| {
            (registry.sub_devices(gateway).to_vec(), registry.known_sub_devices(gateway).to_vec())
        });
        let mut held = self.lock();
        for sub in &listed {
            let sight = held.sightings.seen(&sub.sn, tenant, now);
            if let Some(key) = sub.model_key.as_deref().filter(|key| product::is_key(key)) {
                sight.model_key = Some(key.to_owned());
            }
        }
        let listed: BTreeSet<DeviceSn> = listed.into_iter().map(|sub| sub.sn).collect();
        let before = held.listed.insert(gateway.clone(), listed.clone()).unwrap_or_default();
        let known = known.into_iter().map(|sub| sub.sn);
        let all: BTreeSet<DeviceSn> =
            before.into_iter().chain(known).chain(listed.iter().cloned()).collect();
        for gone in all.difference(&listed) {
            held.sightings.went_off(gone);
        }
        drop(held);
        all.iter().for_each(|sn| self.look_at(sn));
    }
}

/// Whether only an aircraft that is on can have said it. Of one that is off, its dock goes on to send states and events
/// again until they are answered.
fn tells_that_it_is_on(uplink: &Uplink) -> bool {
    matches!(uplink, Uplink::Osd(osd) if osd.mode_code.is_some_and(|mode| mode != NOT_CONNECTED))
}

/// The device whose own words a message holds.
fn speaks(uplink: &Uplink) -> Option<&DeviceSn> {
    match uplink {
        Uplink::Osd(osd) if osd.mode_code == Some(NOT_CONNECTED) => None,
        Uplink::Osd(osd) => Some(&osd.device),
        Uplink::State(state) => Some(&state.device),
        Uplink::Event(event) => Some(&event.device),
        Uplink::Reply(_)
        | Uplink::PropertyReply(_)
        | Uplink::DrcAck(_)
        | Uplink::DrcPush(_)
        | Uplink::Request(_)
        | Uplink::Topology(_) => None,
    }
}

impl Fleet {
    /// Looks at those whose time has come, writes what was seen, and follows binding codes, until `stopping`. None of the
    /// three waits for another: while the store hangs, whoever goes is told of all the same.
    pub async fn run(self: Arc<Self>, stopping: CancellationToken) {
        tokio::join!(self.watch(&stopping), self.write(&stopping), self.learn_codes(&stopping));
    }

    async fn watch(&self, stopping: &CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = self.until_due() => self.look_at_due(),
            }
        }
    }

    async fn write(&self, stopping: &CancellationToken) {
        let mut write_at = Instant::now() + WRITE_WAIT;
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = self.write.notified() => write_at = write_at.min(Instant::now() + SOON),
                () = tokio::time::sleep_until(write_at) => {
                    self.keep_all().await;
                    write_at = Instant::now() + WRITE_WAIT;
                }
            }
        }
    }

    async fn learn_codes(&self, stopping: &CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = self.codes.notified() => self.follow_codes().await,
            }
        }
    }

    /// Waits until a device is to be looked at.
    async fn until_due(&self) {
        loop {
            let notified = self.due.notified();
            let next: Option<Mono> = self.lock().book.next_due();
            let Some(at) = next else {
                notified.await;
                continue;
            };
            let left = at.since(self.parts.clock.now().mono);
            if left.is_zero() {
                return;
            }
            tokio::select! {
                biased;
                () = notified => {}
                () = tokio::time::sleep(left) => {}
            }
        }
    }

    fn look_at_due(&self) {
        let now = self.parts.clock.now().mono;
        let due = self.lock().book.take_due(now);
        due.iter().for_each(|sn| self.look_at(sn));
    }

    /// Writes all that was seen and is not written yet.
    pub async fn keep_all(&self) {
        loop {
            let taken = {
                let mut held = self.lock();
                let Held { book, sightings, .. } = &mut *held;
                sightings.take_unwritten(BATCH, |sn| book.told(sn).0)
            };
            if taken.is_empty() {
                return;
            }
            if let Err(error) = self.parts.store.keep_sightings(taken.clone()).await {
                tracing::warn!(%error, "could not keep when devices were seen; they are kept with the next");
                return self.lock().sightings.give_back(taken);
            }
        }
    }

    /// Learns of codes that were made or taken back elsewhere.
    pub(super) async fn follow_codes(&self) {
        match self.parts.store.binding_codes().await {
            Ok(codes) => {
                for gateway in self.parts.directory.newcomers().take_codes(codes) {
                    tracing::info!(gateway.sn = %gateway, "the binding code of {gateway} was taken back");
                    self.dismiss(&gateway);
                    // Not if somebody has registered it meanwhile.
                    if self.parts.directory.tenant_of(&gateway).is_none() {
                        self.forget(&gateway.to_device());
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "could not look for changed binding codes"),
        }
    }
}
