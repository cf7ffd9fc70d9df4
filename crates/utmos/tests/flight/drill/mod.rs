//! Drills: the program as a process of its own on a real disk, brokers and docks over real sockets, and then somebody
//! pulls a plug. However it goes: no command that was accepted is lost, no dock has one twice or late, and what is said of
//! each in the end is what its dock wrote down.
//!
//! The long forms are left out of an ordinary run: `cargo test -p utmos --test flight drill -- --ignored --nocapture`.

mod broker;
mod clock;
mod damage;
mod disk;
mod ear;
mod kill;
mod load;
mod lost;
pub mod mount;
mod read_only;
mod replicas;
mod stop;
mod synced;
mod unwell;
mod way_out;

use std::time::Duration;

use tokio::time::Instant;

use crate::{place::Place, process::until, skips};

/// How often a long form does it, unless told otherwise.
const TIMES: u64 = 100;

/// How often a long form does it: `DRILL_TIMES`.
fn times() -> u64 {
    std::env::var_os("DRILL_TIMES")
        .map_or(TIMES, |times| times.to_str().and_then(|times| times.parse().ok()).unwrap())
}

/// Settings with which nobody asks too often: callers insist many times a second on what is refused, and a long form reads
/// thousands of commands in the end.
fn unlimited() -> impl Iterator<Item = String> {
    let limits = ["credential_per_second", "credential_burst", "tenant_per_second", "tenant_burst"];
    limits.into_iter().map(|limit| format!("limits.{limit}=1000000"))
}

/// A drill that cannot be done here.
fn skipped(what: &str, why: &str) {
    skips::skipped(what, why);
}

/// Waits until the server says that it can take commands.
async fn until_ready(place: &Place) {
    let api = place.api();
    until("it is not ready", async || api.get("/readyz").await.status.is_success()).await;
}

/// How long was waited, to be printed.
#[derive(Default)]
struct Waits(Vec<Duration>);

impl Waits {
    /// Notes the time since then.
    fn note(&mut self, began: Instant) {
        self.0.push(began.elapsed());
    }

    fn tell(mut self) -> String {
        self.0.sort();
        let at = |share: usize| self.0.get(self.0.len() * share / 100).or(self.0.last());
        let millis = |time: Option<&Duration>| time.map_or(0, Duration::as_millis);
        format!(
            "{} times, after {} ms (median), {} ms (p99), {} ms (longest)",
            self.0.len(),
            millis(at(50)),
            millis(at(99)),
            millis(self.0.last())
        )
    }
}
