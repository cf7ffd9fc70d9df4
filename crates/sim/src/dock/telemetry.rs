//! What is told by itself: `osd` of the gateway in one message or more and of the aircraft in one, at 0.5 Hz each, `state`
//! when something changes, alarms. Which keys there are, the model says; [`super::readings`] says what stands there.

use rand::RngExt;
use serde_json::{Map, Value, json};
use utmos_core::id::DeviceSn;
use utmos_dji::{device_side, downlink::Heading, topic::UplinkTopic};
use utmos_mqtt::Qos;

use super::{Dock, Due, debugging::Mode};
use crate::model::gateway::Alarms;

/// 0.5 Hz.
const OSD_PERIOD_MS: u64 = 2_000;

impl Dock {
    pub(super) fn start_telemetry(&mut self) {
        self.stop_telemetry();
        if self.settings.quiet {
            return;
        }
        // The docks of a fleet do not speak in chorus.
        let phase = self.rng.random_range(0..OSD_PERIOD_MS / 2);
        for part in 0..self.config.model.gateway().osd.len() {
            let lag = u64::try_from(part).unwrap_or(0) * 150;
            self.after(phase + lag, Due::GatewayOsd(part));
        }
        self.after(phase + 900, Due::AircraftOsd);
        self.after(phase + 500, Due::Alarms);
    }

    pub(super) fn stop_telemetry(&mut self) {
        self.timers
            .cancel(|due| matches!(due, Due::GatewayOsd(_) | Due::AircraftOsd | Due::Alarms));
    }

    pub(super) fn push_gateway_osd(&mut self, part: usize) {
        let now = self.flight_clock();
        self.aircraft.advance(now);
        let keys = self.config.model.gateway().osd.get(part).copied().unwrap_or_default();
        let data = self.gateway_values(keys);
        let device = self.sn.to_device();
        self.push_osd(UplinkTopic::Osd { device }, &data);
        self.after(OSD_PERIOD_MS, Due::GatewayOsd(part));
    }

    pub(super) fn push_aircraft_osd(&mut self) {
        if self.hardware.aircraft_on {
            let now = self.flight_clock();
            self.aircraft.advance(now);
            let mut data = self.aircraft_values(self.config.model.airframe().osd);
            let camera = &self.payloads.camera;
            data[camera.index] = camera.gimbal_osd(self.aircraft.heading);
            self.push_osd(UplinkTopic::Osd { device: self.aircraft_sn.clone() }, &data);
        }
        self.after(OSD_PERIOD_MS, Due::AircraftOsd);
    }

    /// An empty list while all is well. A recorded dock sends it without `need_reply`, on its own topic and on its
    /// aircraft's.
    pub(super) fn push_alarms(&mut self) {
        match self.config.model.gateway().alarms {
            Alarms::Listed => {
                if self.hardware.mode == Mode::Working {
                    let nothing = json!({"list": []});
                    self.event("hms", None, None, &nothing);
                    self.event_of(self.aircraft_sn.clone(), "hms", None, None, &nothing);
                }
            }
            Alarms::Within => {
                if self.hardware.aircraft_on {
                    self.push_alarms_within();
                }
            }
        }
        self.after(OSD_PERIOD_MS, Due::Alarms);
    }

    fn push_alarms_within(&mut self) {
        let (tid, bid) = self.told_ids();
        let heading = Heading { tid: &tid, bid: &bid, at: self.wall() };
        let payload = device_side::event_within(heading, &self.sn, "hms", "{\"codes\":[]}");
        let topic = UplinkTopic::Events { device: self.aircraft_sn.clone() };
        self.publish(&topic, payload, Qos::AtLeastOnce);
    }

    fn push_osd(&mut self, topic: UplinkTopic, data: &Value) {
        let (tid, bid) = self.told_ids();
        let heading = Heading { tid: &tid, bid: &bid, at: self.wall() };
        let payload = device_side::osd(heading, &self.sn, &data.to_string());
        self.publish(&topic, payload, Qos::AtMostOnce);
    }

    /// Everything `state` holds, after coming online.
    pub(super) fn push_whole_state(&mut self) {
        let data = self.gateway_values(self.config.model.gateway().state);
        self.state(self.sn.to_device(), &data);
        self.push_aircraft_state();
    }

    /// What the aircraft's state holds; after it was switched on and when a flight changes its stage.
    pub(super) fn push_aircraft_state(&mut self) {
        if self.hardware.aircraft_on {
            let data = self.aircraft_values(self.config.model.airframe().state);
            self.state(self.aircraft_sn.clone(), &data);
        }
    }

    /// Tells these of the aircraft's state, where the model has them.
    pub(super) fn push_aircraft_keys(&mut self, keys: &[&str]) {
        let has = self.config.model.airframe().state;
        let keys: Vec<&str> = keys.iter().copied().filter(|key| has.contains(key)).collect();
        if !keys.is_empty() {
            let data = self.aircraft_values(&keys);
            self.state(self.aircraft_sn.clone(), &data);
        }
    }

    fn gateway_values(&self, keys: &[&str]) -> Value {
        keyed(keys, |key| self.gateway_value(key))
    }

    fn aircraft_values(&self, keys: &[&str]) -> Value {
        keyed(keys, |key| self.aircraft_value(key))
    }

    /// Tells of properties that changed, of the gateway or its aircraft.
    pub(super) fn push_property(&mut self, device: DeviceSn, name: &str, value: Value) {
        self.state(device, &json!({name: value}));
    }
}

fn keyed(keys: &[&str], value: impl Fn(&str) -> Value) -> Value {
    Value::Object(keys.iter().map(|key| ((*key).to_owned(), value(key))).collect::<Map<_, _>>())
}
