//! Remote debugging: the dock's hardware, and the jobs and switches that move it.
//!
//! The steps' keys are DJI's; which job goes through which of them is ours, after the examples of the page.

use super::{
    Dock,
    commands::{Command, Verdict},
    work::{Form, Step},
};
use crate::{flight::Power, refusal};

/// `mode_code` of the dock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Idle = 0,
    RemoteDebugging = 2,
    Updating = 3,
    Working = 4,
}

/// `cover_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    Closed = 0,
    Open = 1,
    HalfOpen = 2,
}

/// What the dock is made of, and how it stands.
#[derive(Debug)]
pub struct Hardware {
    pub mode: Mode,
    pub cover: Cover,
    /// Whether the driving rods are out.
    pub putter_open: bool,
    pub aircraft_on: bool,
    pub charging: bool,
    pub supplement_light: bool,
    pub alarm: bool,
    pub air_conditioner: i64,
    pub battery_store_mode: i64,
    pub battery_maintenance: bool,
    pub link_workmode: i64,
    /// Which way it looks, degrees.
    pub heading: f64,
    pub jobs_done: u64,
}

impl Hardware {
    pub fn new(heading: f64) -> Self {
        Self {
            mode: Mode::Idle,
            cover: Cover::Closed,
            putter_open: false,
            aircraft_on: true,
            charging: false,
            supplement_light: false,
            alarm: false,
            air_conditioner: 0,
            battery_store_mode: 2,
            battery_maintenance: false,
            link_workmode: 0,
            heading,
            jobs_done: 0,
        }
    }
}

/// The jobs that move the dock. One at a time, and in remote debugging only.
const JOBS: [&str; 12] = [
    "cover_open",
    "cover_close",
    "cover_force_close",
    "drone_open",
    "drone_close",
    "charge_open",
    "charge_close",
    "device_reboot",
    "device_format",
    "drone_format",
    "putter_open",
    "putter_close",
];

/// Whether a method is one of the jobs that move the dock.
pub fn is_dock_job(method: &str) -> bool {
    JOBS.contains(&method)
}

fn steps(method: &str) -> Vec<Step> {
    let checks = |then: &[(f64, i64, &str)]| {
        let first = [
            Step::at(0.3, 0, "get_bid"),
            Step::at(0.5, 5, "check_work_mode"),
            Step::at(0.7, 10, "check_task_state"),
        ];
        let then = then.iter().map(|(after, percent, key)| Step::at(*after, *percent, *key));
        first.into_iter().chain(then).collect::<Vec<Step>>()
    };
    let (mut steps, last) = match method {
        "cover_open" => (
            checks(&[
                (0.5, 20, "check_scram_state"),
                (1.0, 30, "open_alarm"),
                (2.0, 40, "open_cover"),
                (5.0, 70, "open_cover"),
                (5.0, 90, "open_cover"),
            ]),
            5.0,
        ),
        "cover_close" => (
            checks(&[
                (0.5, 20, "check_scram_state"),
                (1.0, 30, "drone_paddle_forward"),
                (3.0, 58, "drone_paddle_reverse"),
                (2.0, 65, "drone_paddle_stop"),
                (1.0, 70, "close_cover"),
                (6.0, 90, "close_cover"),
            ]),
            6.0,
        ),
        // The page's example has no key: nothing is checked.
        "cover_force_close" => (
            vec![
                Step::nameless(0.5, 6),
                Step::at(1.0, 20, "close_cover"),
                Step::at(6.0, 70, "close_cover"),
            ],
            6.0,
        ),
        "drone_open" => (
            checks(&[
                (1.0, 20, "get_drone_power_state"),
                (2.0, 35, "check_wired_connect_state"),
                (2.0, 50, "open_drone"),
                (8.0, 80, "check_drone_sdr_connect_state"),
            ]),
            8.0,
        ),
        "drone_close" => (
            checks(&[
                (1.0, 20, "check_work_mode"),
                (2.0, 50, "get_drone_power_state"),
                (3.0, 80, "check_wired_connect_state"),
            ]),
            4.0,
        ),
        "charge_open" => {
            (checks(&[(1.0, 45, "close_putter"), (5.0, 80, "get_drone_power_state")]), 3.0)
        }
        "charge_close" => (checks(&[(2.0, 80, "stop_charge")]), 3.0),
        "putter_open" => (checks(&[(1.0, 30, "check_work_mode"), (4.0, 80, "free_putter")]), 4.0),
        "putter_close" => (checks(&[(1.0, 30, "check_work_mode"), (4.0, 80, "close_putter")]), 4.0),
        "device_reboot" => (
            vec![
                Step::at(0.3, 0, "get_bid"),
                Step::at(0.5, 5, "upgrading_prevent_reboot"),
                Step::at(0.5, 10, "check_work_mode"),
                Step::at(0.7, 15, "check_task_state"),
                Step::at(1.0, 20, "write_reboot_param_file"),
                Step::at(10.0, 40, "land_mcu_reboot"),
                Step::at(10.0, 55, "rain_mcu_reboot"),
                Step::at(10.0, 70, "core_mcu_reboot"),
                Step::at(10.0, 90, "sdr_reboot"),
            ],
            15.0,
        ),
        "drone_format" => (checks(&[(4.0, 50, "check_drone_sdr_connect_state")]), 8.0),
        // device_format, which shows nothing but the checks.
        _ => (checks(&[(5.0, 60, "check_task_state")]), 8.0),
    };
    let key = steps.last().and_then(|step| step.step.clone());
    steps.push(Step::last(last, "ok", key));
    steps
}

impl Dock {
    pub(super) fn debugging(&mut self, command: &Command<'_>) -> Option<Verdict> {
        let method = command.method;
        Some(match method {
            "debug_mode_open" => self.open_debug_mode(),
            "debug_mode_close" => self.close_debug_mode(),
            "supplement_light_open" | "supplement_light_close" => self.switched(|hardware| {
                hardware.supplement_light = method.ends_with("_open");
            }),
            "alarm_state_switch" => self.switched_to(command, "/action", 0..=1, |hardware, on| {
                hardware.alarm = on == 1;
            }),
            "air_conditioner_mode_switch" => {
                self.switched_to(command, "/action", 0..=3, |hardware, mode| {
                    hardware.air_conditioner = mode;
                })
            }
            "battery_store_mode_switch" => {
                self.switched_to(command, "/action", 1..=2, |hardware, mode| {
                    hardware.battery_store_mode = mode;
                })
            }
            "battery_maintenance_switch" => {
                self.switched_to(command, "/action", 0..=1, |hardware, on| {
                    hardware.battery_maintenance = on == 1;
                })
            }
            // Used in flight too, so not bound to debugging.
            "sdr_workmode_switch" => match command.integer("/link_workmode") {
                Some(mode @ 0..=1) => {
                    self.hardware.link_workmode = mode;
                    Verdict::done()
                }
                Some(_) | None => Verdict::Refused(refusal::BAD_PARAMETER),
            },
            job if is_dock_job(job) => Verdict::unless(self.job_refused(job), || {
                let mut steps = steps(job);
                if self.conditions.aircraft_off
                    && job == "drone_open"
                    && let Some(last) = steps.last_mut()
                {
                    *last = Step::failing(last.after, "failed", refusal::NOT_SWITCHED_ON);
                }
                self.start_job(command, job, Form::Dock, steps);
                Verdict::in_progress()
            }),
            _ => return None,
        })
    }

    fn open_debug_mode(&mut self) -> Verdict {
        match self.hardware.mode {
            Mode::Working => Verdict::Refused(refusal::DEBUGGING_REFUSED),
            Mode::Updating => Verdict::Refused(refusal::DOCK_UPDATING),
            Mode::Idle | Mode::RemoteDebugging => {
                self.hardware.mode = Mode::RemoteDebugging;
                Verdict::done_ok()
            }
        }
    }

    fn close_debug_mode(&mut self) -> Verdict {
        if self.is_working(is_dock_job) {
            return Verdict::Refused(refusal::DOCK_BUSY);
        }
        if self.hardware.mode == Mode::RemoteDebugging {
            self.hardware.mode = Mode::Idle;
        }
        Verdict::done_ok()
    }

    fn not_debugging(&self) -> Option<i64> {
        (self.hardware.mode != Mode::RemoteDebugging).then_some(refusal::NOT_DEBUGGING)
    }

    fn switched(&mut self, act: impl FnOnce(&mut Hardware)) -> Verdict {
        Verdict::unless(self.not_debugging(), || {
            act(&mut self.hardware);
            Verdict::done_ok()
        })
    }

    fn switched_to(
        &mut self,
        command: &Command<'_>,
        pointer: &str,
        allowed: std::ops::RangeInclusive<i64>,
        act: impl FnOnce(&mut Hardware, i64),
    ) -> Verdict {
        match command.integer(pointer).filter(|value| allowed.contains(value)) {
            Some(value) => self.switched(|hardware| act(hardware, value)),
            None => Verdict::Refused(refusal::BAD_PARAMETER),
        }
    }

    fn job_refused(&self, job: &str) -> Option<i64> {
        self.not_debugging()
            .or_else(|| self.is_working(is_dock_job).then_some(refusal::DOCK_BUSY))
            .or_else(|| {
                let at_aircraft =
                    matches!(job, "drone_open" | "drone_close" | "charge_open" | "charge_close");
                let outside = at_aircraft && !self.sky.is_docked();
                outside.then_some(refusal::AIRCRAFT_OUTSIDE)
            })
            .or_else(|| {
                let full = job == "charge_open" && 95.0 <= self.aircraft.battery;
                full.then_some(refusal::BATTERY_FULL)
            })
            .or_else(|| {
                let off = job == "drone_format" && !self.hardware.aircraft_on;
                off.then_some(refusal::AIRCRAFT_OFF)
            })
    }

    /// What a step of a job does to the hardware while it goes on.
    pub(super) fn hardware_moves(&mut self, method: &str, key: Option<&str>) {
        if is_dock_job(method) && matches!(key, Some("open_cover" | "close_cover")) {
            self.hardware.cover = Cover::HalfOpen;
        }
    }

    /// What a job has brought about when it has ended.
    pub(super) fn job_done(&mut self, method: &str, result: i64) {
        self.hardware.jobs_done += 1;
        if result != 0 {
            return;
        }
        match method {
            "cover_open" => self.hardware.cover = Cover::Open,
            "cover_close" | "cover_force_close" => self.hardware.cover = Cover::Closed,
            "putter_open" => self.hardware.putter_open = true,
            "putter_close" => self.hardware.putter_open = false,
            "drone_open" => self.switch_aircraft(true),
            "drone_close" => self.switch_aircraft(false),
            "charge_open" => self.charge(true),
            "charge_close" => self.charge(false),
            "ota_create" => {
                self.hardware.mode = Mode::Idle;
            }
            "camera_photo_take" => self.payloads.camera.photo_running = false,
            "cloud_control_auth_request" => self.consented(),
            _ => {}
        }
    }

    /// An aircraft that is off is no sub-device any more.
    pub(super) fn switch_aircraft(&mut self, on: bool) {
        if self.hardware.aircraft_on != on {
            self.hardware.aircraft_on = on;
            self.update_topo();
            if on {
                self.push_aircraft_state();
            }
        }
    }

    pub(super) fn charge(&mut self, on: bool) {
        let now = self.flight_clock();
        self.aircraft.advance(now);
        self.hardware.charging = on;
        self.aircraft.power = if on { Power::Charging } else { Power::Resting };
    }
}
