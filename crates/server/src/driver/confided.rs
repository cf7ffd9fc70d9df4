//! What gateways were told in confidence lately: a device may repeat a command's secrets long after the command ended, in
//! messages that name no command. In memory, and of the commands that came under care here alone.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use utmos_core::{
    command::Spec,
    id::{CommandId, GatewaySn},
    time::Mono,
};
use utmos_dji::catalogue::Catalogue;

use super::Driver;
use crate::{
    http::{Hidden, Secrets},
    passing::Passing,
};

/// How long a command's secrets are known, from when it came under care.
const KNOWN_WAIT: Duration = Duration::from_secs(24 * 60 * 60);
/// Commands with secrets that are known of a gateway: the newest.
const PER_GATEWAY_MAX: usize = 32;
/// Bytes of secrets that are known of a gateway; those of its newest command are, however many.
const BYTES_PER_GATEWAY_MAX: usize = 64 * 1024;

/// Secrets by the gateway that was told them.
#[derive(Default)]
pub(super) struct Confided(Mutex<Passing<GatewaySn, VecDeque<Told>>>);

struct Told {
    id: CommandId,
    from: Mono,
    secrets: Arc<Secrets>,
}

impl Told {
    fn has_passed(&self, now: Mono) -> bool {
        now.since(self.from) > KNOWN_WAIT
    }
}

impl Confided {
    /// Notes what a command says in confidence.
    pub(super) fn note(&self, spec: &Spec, catalogue: &Catalogue, now: Mono) {
        // Most commands say nothing in confidence, and are not taken apart once more to learn that.
        let method = catalogue.method(&spec.method);
        if !method.is_some_and(|method| method.may_hold_secrets(&spec.payload)) {
            return;
        }
        let Some(secrets) = Hidden::of(spec, catalogue).secrets() else { return };
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let have_passed = |told: &VecDeque<Told>| told.iter().all(|one| one.has_passed(now));
        let of_gateway = held.of(&spec.gateway, have_passed);
        if of_gateway.iter().any(|one| one.id == spec.id) {
            return;
        }
        of_gateway.push_back(Told { id: spec.id, from: now, secrets: Arc::new(secrets) });
        let bytes =
            |told: &VecDeque<Told>| told.iter().map(|one| one.secrets.bytes()).sum::<usize>();
        while of_gateway.len() > PER_GATEWAY_MAX
            || (of_gateway.len() > 1 && bytes(of_gateway) > BYTES_PER_GATEWAY_MAX)
        {
            of_gateway.pop_front();
        }
    }

    /// What a gateway was told in confidence lately.
    pub(super) fn to(&self, gateway: &GatewaySn, now: Mono) -> Vec<Arc<Secrets>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(told) = held.get_mut(gateway) else { return Vec::new() };
        told.retain(|one| !one.has_passed(now));
        told.iter().map(|one| one.secrets.clone()).collect()
    }
}

impl Driver {
    /// What a gateway was told in confidence lately, by commands that are or were looked after here.
    pub(crate) fn confided_to(&self, gateway: &GatewaySn) -> Vec<Arc<Secrets>> {
        self.inner.confided.to(gateway, self.inner.clock.now().mono)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::{Value, json};
    use utmos_core::method::Risk;

    use super::*;
    use crate::driver::doubt::tests::command;

    const HUSH: &str = "hush-password";

    fn told(number: usize, secret: &str) -> Spec {
        let (_, command) = command(number, Risk::Emergency);
        let spec = (*command.spec).clone();
        let payload = json!({ "password": secret }).to_string();
        Spec { payload: payload.into(), ..spec }
    }

    fn shown(confided: &Confided, gateway: &GatewaySn, text: &str, now: Mono) -> Value {
        let mut data = json!({ "text": text });
        for secrets in confided.to(gateway, now) {
            secrets.hide_in(&mut data);
        }
        data["text"].clone()
    }

    #[test]
    fn the_newest_are_known_for_a_while_and_no_gateways_are_anothers() {
        let (confided, catalogue) = (Confided::default(), Catalogue::embedded().unwrap());
        let start = Mono::from_millis(1_000);
        let first = told(1, HUSH);
        let gateway = first.gateway.clone();
        confided.note(&first, &catalogue, start);
        confided.note(&Spec { payload: "{}".into(), ..told(2, "x") }, &catalogue, start);
        assert_eq!(confided.to(&gateway, start).len(), 1);
        let text = format!("no {HUSH} here");
        assert_eq!(shown(&confided, &gateway, &text, start), "no *** here");
        let other = GatewaySn::parse("OTHER-DOCK").unwrap();
        assert_eq!(shown(&confided, &other, &text, start), *text);
        // One that comes under care again is the same one, and as old.
        let late = start.plus(KNOWN_WAIT);
        confided.note(&first, &catalogue, late);
        assert_eq!(shown(&confided, &gateway, &text, late), "no *** here");
        let over = late.plus(Duration::from_millis(1));
        assert_eq!(shown(&confided, &gateway, &text, over), *text);
    }

    #[test]
    fn what_is_known_of_a_gateway_is_bounded_in_number_and_bytes() {
        let (confided, catalogue) = (Confided::default(), Catalogue::embedded().unwrap());
        let now = Mono::from_millis(1_000);
        let gateway = told(1, HUSH).gateway.clone();
        for number in 0..100 {
            confided.note(&told(number, &format!("hush-{number}")), &catalogue, now);
        }
        assert_eq!(confided.to(&gateway, now).len(), PER_GATEWAY_MAX);
        assert_eq!(shown(&confided, &gateway, "hush-99", now), "***");
        let long = |of: &str| of.repeat(BYTES_PER_GATEWAY_MAX / 2 + 1);
        for (number, of) in [(200, "a"), (201, "b"), (202, "c")] {
            confided.note(&told(number, &long(of)), &catalogue, now);
        }
        assert_eq!(confided.to(&gateway, now).len(), 1, "two are too many");
        assert_eq!(shown(&confided, &gateway, &long("c"), now), "***");
    }
}
