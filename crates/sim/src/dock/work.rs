//! Jobs that go step by step and tell of every step, each in the form its method has.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};
use utmos_dji::catalogue::Job as JobForm;

use super::{Dock, Due, clock, commands::Command};
use crate::{Kind, Outcome};

/// Running jobs, by number.
#[derive(Debug, Default)]
pub struct Work {
    jobs: BTreeMap<u64, Job>,
    made: u64,
}

#[derive(Debug)]
struct Job {
    receipt: u64,
    method: String,
    event: String,
    bid: String,
    form: Form,
    steps: VecDeque<Step>,
}

/// One step of a job: after so many seconds of a real dock's life, this is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub after: f64,
    pub percent: i64,
    /// A key, or for some methods a number.
    pub step: Option<Value>,
    pub word: &'static str,
    pub result: i64,
    /// Whether it is the last, after which the job has ended.
    pub end: bool,
}

impl Step {
    /// The job is at `step`.
    pub fn at(after: f64, percent: i64, step: impl Into<Value>) -> Self {
        Self { after, percent, step: Some(step.into()), word: "in_progress", result: 0, end: false }
    }

    /// The job is somewhere it has no name for.
    pub fn nameless(after: f64, percent: i64) -> Self {
        Self { step: None, ..Self::at(after, percent, Value::Null) }
    }

    /// The same, in another word.
    pub fn saying(self, word: &'static str) -> Self {
        Self { word, ..self }
    }

    /// The last step, at 100 %.
    pub fn last(after: f64, word: &'static str, step: Option<Value>) -> Self {
        Self { after, percent: 100, step, word, result: 0, end: true }
    }

    /// The last step of a job that fails.
    pub fn failing(after: f64, word: &'static str, result: i64) -> Self {
        Self { after, percent: 0, step: None, word, result, end: true }
    }
}

/// Where the state stands in the events of a job.
#[derive(Debug)]
pub enum Form {
    /// `output.status`, `output.progress{percent, step_key}`: the remote debugging jobs and updates.
    Dock,
    /// The same with `current_step` and `ext.camera_mode`: panoramas.
    Panorama,
    /// The same with `psdk_index` and `md5`: the speaker.
    Speaker { psdk_index: Value, md5: Value },
    /// `status`, `reason` and `file`: custom flight areas.
    FlightAreas,
    /// `output.status` and `output.ext.files`: logs.
    Logs { files: Vec<Value> },
    /// `status`, `reason` and the circle: orbits.
    Orbit { speed: f64 },
    /// `output.status` and nothing more: a pilot's consent.
    Consent,
    /// Whatever the catalogue says of it.
    Catalogue { job: Box<JobForm>, reference: Option<Value> },
}

impl Dock {
    /// Starts a job with the command's receipt. `event` is the method of its events.
    pub(super) fn start_job(
        &mut self,
        command: &Command<'_>,
        event: &str,
        form: Form,
        steps: impl IntoIterator<Item = Step>,
    ) {
        self.work.made += 1;
        let number = self.work.made;
        let job = Job {
            receipt: command.receipt,
            method: command.method.to_owned(),
            event: event.to_owned(),
            bid: command.bid.to_owned(),
            form,
            steps: steps.into_iter().collect(),
        };
        let Some(first) = job.steps.front().map(|step| step.after) else { return };
        self.work.jobs.insert(number, job);
        self.after_scaled(clock::seconds(first), Due::Step(number));
    }

    /// Whether a job is running that `which` picks by the method of its command.
    pub(super) fn is_working(&self, which: impl Fn(&str) -> bool) -> bool {
        self.work.jobs.values().any(|job| which(&job.method))
    }

    /// Ends the jobs of a command method with this word and code, at once.
    pub(super) fn break_jobs(&mut self, method: &str, word: &'static str, result: i64) -> bool {
        let broken: Vec<u64> = self
            .work
            .jobs
            .iter()
            .filter(|(_, job)| job.method == method)
            .map(|(number, _)| *number)
            .collect();
        for number in &broken {
            self.timers.cancel(|due| matches!(due, Due::Step(n) if n == number));
            if let Some(job) = self.work.jobs.remove(number) {
                self.tell_step(&job, &Step::failing(0.0, word, result));
                self.ended(job.receipt, Outcome::Failed(result));
            }
        }
        !broken.is_empty()
    }

    pub(super) fn step_job(&mut self, number: u64) {
        let Some(mut job) = self.work.jobs.remove(&number) else { return };
        let Some(step) = job.steps.pop_front() else { return };
        let key = step.step.as_ref().and_then(Value::as_str).map(str::to_owned);
        self.hardware_moves(&job.method, key.as_deref());
        if step.end {
            self.job_done(&job.method, step.result);
        }
        self.tell_step(&job, &step);
        if step.end {
            let outcome =
                if step.result == 0 { Outcome::Succeeded } else { Outcome::Failed(step.result) };
            self.ended(job.receipt, outcome);
            return;
        }
        if let Some(next) = job.steps.front() {
            self.after_scaled(clock::seconds(next.after), Due::Step(number));
            self.work.jobs.insert(number, job);
        }
    }

    fn tell_step(&mut self, job: &Job, step: &Step) {
        let data = job.form.data(step);
        // Absent while it runs and 1 at the end: docks decide it for each message.
        let need_reply = step.end.then_some(true);
        self.event(&job.event, Some(&job.bid), need_reply, &data);
        self.happened(Kind::Progress {
            method: job.method.clone(),
            status: step.word.to_owned(),
            step: step.step.as_ref().map(|step| match step {
                Value::String(key) => key.clone(),
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::Array(_)
                | Value::Object(_) => step.to_string(),
            }),
            percent: Some(step.percent),
        });
    }

    /// A job as the catalogue describes it, with its first few steps and its first good word.
    pub(super) fn start_catalogue_job(&mut self, command: &Command<'_>, job: &JobForm) {
        let Some(event) = job.events.first() else { return };
        let reference = job
            .reference
            .as_ref()
            .and_then(|reference| command.data.pointer(&reference.payload).cloned());
        let keys: Vec<&String> = job.steps.keys().take(4).collect();
        let mut steps: Vec<Step> =
            (0_i64..).zip(&keys).map(|(n, key)| Step::at(2.0, 10 + n * 20, key.as_str())).collect();
        if steps.is_empty() {
            steps = vec![Step::nameless(2.0, 20), Step::nameless(3.0, 60)];
        }
        steps.push(Step::last(3.0, "", keys.last().map(|key| json!(key))));
        let form = Form::Catalogue { job: Box::new(job.clone()), reference };
        self.start_job(command, event, form, steps);
    }
}

impl Form {
    fn data(&self, step: &Step) -> Value {
        let Step { percent, word, result, .. } = step;
        match self {
            Self::Dock => {
                let mut progress = json!({"percent": percent});
                put(&mut progress, "/step_key", step.step.clone());
                json!({"result": result, "output": {"status": word, "progress": progress}})
            }
            Self::Panorama => {
                let mut progress = json!({"percent": percent});
                put(&mut progress, "/current_step", step.step.clone());
                json!({"result": result, "output": {
                    "status": word, "progress": progress, "ext": {"camera_mode": 3}}})
            }
            Self::Speaker { psdk_index, md5 } => {
                let mut progress = json!({"percent": percent});
                put(&mut progress, "/step_key", step.step.clone());
                json!({"result": result, "output": {
                    "psdk_index": psdk_index, "status": word, "md5": md5, "progress": progress}})
            }
            Self::FlightAreas => json!({
                "status": word,
                "reason": 0,
                "file": {"name": "geofence_sim.json", "checksum": ""},
            }),
            Self::Logs { files } => {
                let files: Vec<Value> = files
                    .iter()
                    .map(|file| {
                        let mut file = file.clone();
                        let progress = json!({
                            "current_step": percent / 5, "total_step": 20, "progress": percent,
                            "result": result, "status": word, "upload_rate": 512_000,
                        });
                        put(&mut file, "/progress", Some(progress));
                        file
                    })
                    .collect();
                json!({"result": result, "output": {"status": word, "ext": {"files": files}}})
            }
            Self::Orbit { speed } => json!({
                "status": word,
                "reason": step.step.clone().unwrap_or_else(|| json!(0)),
                "circle_radius": 30.0,
                "circle_speed": speed,
                "max_circle_speed": 12.0,
            }),
            Self::Consent => json!({"result": result, "output": {"status": word}}),
            Self::Catalogue { job, reference } => {
                let mut data = json!({"result": result});
                let good = job.good.first().map(String::as_str);
                let word = if step.end { good.unwrap_or("ok") } else { word };
                put(&mut data, &job.status, Some(json!(word)));
                if let Some(at) = &job.percent {
                    put(&mut data, at, Some(json!(percent)));
                }
                if let Some(at) = &job.step {
                    let number = |key: &Value| key.as_str()?.parse::<i64>().ok();
                    let named = step
                        .step
                        .as_ref()
                        .map(|key| number(key).map_or_else(|| key.clone(), Value::from));
                    put(&mut data, at, named);
                }
                if let Some(at) = &job.reference {
                    put(&mut data, &at.event, reference.clone());
                }
                data
            }
        }
    }
}

/// Puts a value where a pointer of names points, and the objects on the way there.
fn put(data: &mut Value, pointer: &str, value: Option<Value>) {
    let Some(value) = value else { return };
    let mut place = data;
    for name in pointer.split('/').skip(1) {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[name];
    }
    *place = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_put_where_the_pointer_points() {
        let mut data = json!({"result": 0});
        put(&mut data, "/output/progress/percent", Some(json!(40)));
        put(&mut data, "/output/status", Some(json!("ok")));
        put(&mut data, "/output/none", None);
        assert_eq!(
            data,
            json!({"result": 0, "output": {"status": "ok", "progress": {"percent": 40}}})
        );
    }
}
