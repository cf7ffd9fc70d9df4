//! What the callers of a race ask for, drawn from its seed.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use utmos_sim::{DockConfig, Model};
use uuid::Uuid;

/// One of so many docks flies; the others are debugged.
const FLYING_EVERY: usize = 5;
/// The docks have no camera there.
const NO_CAMERA: &str = "52-0-0";
/// What a caller waits for a device's answer, in seconds.
const TIMEOUTS: std::ops::RangeInclusive<u64> = 2..=4;
/// Prepares a dock for its jobs.
pub const PREPARATION: &str = "debug_mode_open";
/// Asks the pilot of a remote controller, who allows everything from then on.
const CONSENT: &str = "cloud_control_auth_request";
/// A method that nothing answers, and whose message has no `tid`: it is known by its payload, which is new every time.
pub const STICK: &str = "stick_control";
/// Positions of a stick.
const STICK_MIN: usize = 364;
const STICK_PLACES: usize = 1_321;
/// Methods that are done with a job.
pub const JOBS: [&str; 7] = [
    CONSENT,
    "cover_open",
    "cover_close",
    "putter_open",
    "putter_close",
    "takeoff_to_point",
    "fly_to_point",
];

/// A command that somebody wants.
#[derive(Debug, Clone, PartialEq)]
pub struct Errand {
    pub dock: usize,
    pub method: &'static str,
    /// The body of the request, whole.
    pub body: String,
}

/// Draws errands.
#[derive(Debug)]
pub struct Errands {
    dice: StdRng,
    docks: Vec<DockConfig>,
    drawn: usize,
}

/// What is asked of a debugged dock, and how often.
const DEBUGGED: [(&str, u32); 11] = [
    ("custom_data_transmission_to_psdk", 25),
    (PREPARATION, 15),
    ("camera_recording_stop", 10),
    ("supplement_light_open", 8),
    ("supplement_light_close", 7),
    ("flight_areas_get", 6),
    ("flighttask_pause", 5),
    ("cover_open", 7),
    ("cover_close", 7),
    ("putter_open", 5),
    ("putter_close", 5),
];

/// The same of one that flies.
const FLYING: [(&str, u32); 8] = [
    ("takeoff_to_point", 25),
    ("fly_to_point", 20),
    ("return_home", 20),
    ("fly_to_point_stop", 10),
    ("flighttask_pause", 5),
    (STICK, 15),
    ("flight_authority_grab", 10),
    ("custom_data_transmission_to_psdk", 5),
];

/// The same of a remote controller, which does not know all of it and says so.
const CARRIED: [(&str, u32); 6] = [
    ("takeoff_to_point", 20),
    ("fly_to_point", 20),
    ("return_home", 20),
    ("fly_to_point_stop", 15),
    ("camera_recording_stop", 15),
    (PREPARATION, 10),
];

/// Whether the gateway with this number flies: remote controllers do.
pub fn flies(number: usize, model: Model) -> bool {
    !model.is_dock() || number % FLYING_EVERY == FLYING_EVERY - 1
}

impl Errands {
    pub fn new(seed: u64, docks: &[DockConfig]) -> Self {
        // Other dice than those of the faults.
        Self { dice: StdRng::seed_from_u64(!seed), docks: docks.to_vec(), drawn: 0 }
    }

    /// The first errand of a dock: it goes before all others.
    pub fn first(&mut self, dock: usize) -> Errand {
        let method = match (self.model(dock).is_dock(), flies(dock, self.model(dock))) {
            (false, _) => CONSENT,
            (true, true) => "custom_data_transmission_to_psdk",
            (true, false) => PREPARATION,
        };
        self.of(dock, method)
    }

    /// The next one; docks take turns.
    pub fn next(&mut self) -> Errand {
        let dock = self.drawn.checked_rem(self.docks.len()).unwrap_or(0);
        self.drawn += 1;
        let model = self.model(dock);
        let choices = match (model.is_dock(), flies(dock, model)) {
            (false, _) => &CARRIED[..],
            (true, true) => &FLYING[..],
            (true, false) => &DEBUGGED[..],
        };
        let mut thrown = self.dice.random_range(0..choices.iter().map(|(_, share)| share).sum());
        let method = choices.iter().find_map(|(method, share)| {
            let is_it = thrown < *share;
            thrown = thrown.saturating_sub(*share);
            is_it.then_some(*method)
        });
        // One that takes no sticks does not listen where they go, so that there is nobody to send them to.
        let method = method.filter(|method| *method != STICK || model != Model::Dock1);
        self.of(dock, method.unwrap_or(PREPARATION))
    }

    fn model(&self, dock: usize) -> Model {
        self.docks.get(dock).map_or(Model::default(), |dock| dock.model)
    }

    fn of(&mut self, dock: usize, method: &'static str) -> Errand {
        let payload = self.payload(dock, method);
        let device = self.docks.get(dock).map_or("", |dock| dock.sn.as_str());
        let body = json!({
            "vendor": "dji",
            "device_id": device,
            "command_type": method,
            "payload": payload,
            "timeout_seconds": self.dice.random_range(TIMEOUTS),
            "idempotency_key": self.id(),
        });
        Errand { dock, method, body: body.to_string() }
    }

    fn payload(&mut self, dock: usize, method: &str) -> Value {
        let Some(home) = self.docks.get(dock).map(|dock| dock.home) else { return json!({}) };
        let target = home.moved(60.0, 40.0);
        match method {
            "custom_data_transmission_to_psdk" => json!({"value": "race"}),
            CONSENT => {
                json!({"user_id": "race", "user_callsign": "race", "control_keys": ["flight"]})
            }
            "camera_recording_stop" => json!({"payload_index": NO_CAMERA}),
            STICK => json!({
                "roll": STICK_MIN + self.drawn % STICK_PLACES,
                "pitch": STICK_MIN + self.drawn / STICK_PLACES % STICK_PLACES,
                "throttle": 1_024,
                "yaw": 1_024,
            }),
            "takeoff_to_point" => json!({
                "target_latitude": target.latitude,
                "target_longitude": target.longitude,
                "target_height": target.height + 60.0,
                "security_takeoff_height": 40,
                "rth_mode": 1,
                "rth_altitude": 60,
                "rc_lost_action": 2,
                "exit_wayline_when_rc_lost": 0,
                "commander_mode_lost_action": 1,
                "commander_flight_mode": 1,
                "commander_flight_height": 50,
                "flight_id": self.id(),
                "max_speed": 12,
                "flight_safety_advance_check": 0,
            }),
            "fly_to_point" => {
                let (north, east) =
                    (self.dice.random_range(-150.0..150.0), self.dice.random_range(-150.0..150.0));
                let to = home.moved(north, east);
                json!({
                    "fly_to_id": self.id(),
                    "max_speed": 12,
                    "points": [
                        {"latitude": to.latitude, "longitude": to.longitude, "height": to.height + 70.0}
                    ],
                })
            }
            _ => json!({}),
        }
    }

    fn id(&mut self) -> String {
        Uuid::from_u128(self.dice.random()).to_string()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::collections::BTreeSet;

    use utmos_core::method::CompletesBy;
    use utmos_dji::catalogue::Catalogue;

    use super::*;

    fn errands(seed: u64) -> Errands {
        let models = [Model::Dock2, Model::Dock1, Model::RcPlus2, Model::Dock3, Model::Dock3];
        let docks = (1..).zip(models).map(|(n, model)| DockConfig::numbered_as(model, 1, n));
        Errands::new(seed, &docks.collect::<Vec<_>>())
    }

    #[test]
    fn a_seed_fixes_the_errands_and_every_key_is_new() {
        let draw = |seed| {
            let mut errands = errands(seed);
            (0..500).map(|_| errands.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let bodies: BTreeSet<String> = draw(1).into_iter().map(|errand| errand.body).collect();
        assert_eq!(bodies.len(), 500);
    }

    #[test]
    fn every_method_is_asked_for_and_the_jobs_are_the_catalogues() {
        let catalogue = Catalogue::embedded().unwrap();
        let mut errands = errands(1);
        let mut asked: BTreeSet<&str> = (0..2_000).map(|_| errands.next().method).collect();
        asked.insert(errands.first(2).method);
        assert!(asked.contains(CONSENT));
        for (method, _) in DEBUGGED.iter().chain(&FLYING).chain(&CARRIED) {
            assert!(asked.contains(method), "{method}");
        }
        for method in asked {
            let known = catalogue.method(method).unwrap();
            assert_eq!(JOBS.contains(&method), known.job.is_some(), "{method}");
            let is_unanswered = known.completes_by == CompletesBy::NoReply;
            assert_eq!(method == STICK, is_unanswered, "{method}");
        }
    }
}
