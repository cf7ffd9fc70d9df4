//! The wire half against messages nobody here wrote: recordings of real devices, DJI's own examples, and noise.
#![expect(clippy::unwrap_used, reason = "a test whose data do not read should stop")]
#![expect(clippy::expect_used, reason = "as above, with the message that did not read")]

mod data;
mod examples;
mod hostile;
mod progress;
mod recordings;
