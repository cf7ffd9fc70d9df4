//! One sample for every step of time: what was known last within it.

use std::time::Duration;

use super::{Latest, Sample, Source};

/// Merges samples, oldest first, step by step. Steps are counted from the epoch, so that two queries agree on them.
#[derive(Debug)]
pub struct Steps {
    step_ms: i64,
    open: Option<(i64, Latest)>,
}

impl Steps {
    /// Steps of this length, of at least a millisecond.
    #[must_use]
    pub fn of(step: Duration) -> Self {
        let step_ms = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
        Self { step_ms, open: None }
    }

    /// Takes one in; answers the step before when a new one begins with it.
    pub fn push(&mut self, sample: &Sample) -> Option<Sample> {
        let number = sample.at.as_millis().div_euclid(self.step_ms);
        let done = match &self.open {
            Some((open, _)) if *open == number => None,
            Some(_) | None => self.finish(),
        };
        let (_, latest) = self.open.get_or_insert_with(|| (number, Latest::default()));
        // What is no object has nothing to be merged.
        let _ = latest.take(&sample.values, sample.source, sample.at);
        done
    }

    /// The last step, as far as it has come.
    pub fn finish(&mut self) -> Option<Sample> {
        let (_, latest) = self.open.take()?;
        let values = latest.to_values().into();
        Some(Sample { at: latest.updated_at()?, source: Source::Merged, values })
    }
}

/// All at once.
#[must_use]
pub fn merge_by_step(samples: &[Sample], step: Duration) -> Vec<Sample> {
    let mut steps = Steps::of(step);
    let mut merged: Vec<Sample> = samples.iter().filter_map(|one| steps.push(one)).collect();
    merged.extend(steps.finish());
    merged
}
