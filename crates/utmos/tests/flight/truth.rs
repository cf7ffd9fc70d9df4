//! Holds what the platform says of a command against what the docks wrote down.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;
use utmos_sim::{Fleet, Outcome, oracle};

use crate::api::PATIENCE;

/// A dock on a busy machine may look at its clock this much after the message came.
const CLOCKS_APART_MS: i64 = 500;

/// A story that claims no more than what happened: the device had the command at most once, in time, and did what the
/// status says.
pub fn must_be_true(command: &Value, fleet: &Fleet) {
    must_be_what_happened(command, fleet);
    must_be_in_time(command, fleet, millis(command["accepted_at"].as_str().unwrap()));
}

/// The same but for the time, where the server's clock is not to be believed.
pub fn must_be_what_happened(command: &Value, fleet: &Fleet) {
    let tid = command["command_id"].as_str().unwrap();
    let outcomes = fleet.outcomes(tid);
    assert!(outcomes.len() <= 1, "received {} times: {command:#}", outcomes.len());
    let (status, failure) = (&command["status"], command["failure_code"].as_str());
    let is_true = match (status.as_str().unwrap(), failure) {
        ("SUCCEEDED", None) => match outcomes.as_slice() {
            [outcome] => matches!(outcome, Outcome::Done | Outcome::Succeeded),
            _ => false,
        },
        ("FAILED", Some("DEVICE_EXECUTION_FAILED")) => match outcomes.as_slice() {
            [Outcome::Refused(code)] => {
                command["response_code"].as_str() == Some(code.to_string().as_str())
            }
            [Outcome::Failed(_)] => true,
            _ => false,
        },
        ("FAILED", Some("DEVICE_OFFLINE" | "CANCELLED" | "PREEMPTED_BY_EMERGENCY"))
        | ("TIMED_OUT", Some("DEVICE_OFFLINE" | "EXPIRED_BEFORE_SENDING")) => outcomes.is_empty(),
        ("TIMED_OUT", Some("NO_RESPONSE" | "EXECUTION_UNCONFIRMED" | "DISPATCH_UNCERTAIN")) => true,
        _ => false,
    };
    assert!(is_true, "the dock says {outcomes:?}, the platform {command:#}");
}

/// No dock had it later than its time after this moment of its acceptance.
pub fn must_be_in_time(command: &Value, fleet: &Fleet, accepted_ms: i64) {
    let tid = command["command_id"].as_str().unwrap();
    let timeout = Duration::from_secs(command["timeout_seconds"].as_u64().unwrap());
    for received in fleet.received().iter().filter(|one| one.tid.as_deref() == Some(tid)) {
        let deadline = accepted_ms + i64::try_from(timeout.as_millis()).unwrap();
        assert!(
            received.at.as_millis() <= deadline + CLOCKS_APART_MS,
            "received {} ms late: {command:#}",
            received.at.as_millis() - deadline
        );
    }
}

/// A time as the API tells it, in Unix milliseconds.
pub fn millis(rfc_3339: &str) -> i64 {
    rfc_3339.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

/// Waits for what the docks write down.
pub async fn until(fleet: &Fleet, holds: impl Fn(&Fleet) -> bool) {
    let mut changes = fleet.changes();
    let wait = async {
        while !holds(fleet) {
            changes.changed().await.unwrap();
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "the docks never did it");
}

/// What each dock made of the commands on `drc/down`, which have no `tid`, in the order they came.
pub fn controls(lines: &[oracle::Line]) -> BTreeMap<Arc<str>, Vec<(Arc<str>, Outcome)>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for line in lines {
        if let (None, oracle::Entry::Received { outcome }) = (&line.received.tid, line.entry) {
            let method = line.received.method.clone();
            all.entry(line.received.sn.clone()).or_default().push((method, outcome));
        }
    }
    all
}
