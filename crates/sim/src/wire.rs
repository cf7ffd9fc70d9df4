//! What passes between the docks and their broker, for whoever wants to judge by the wire and not by what a dock means.

use std::sync::Arc;

use utmos_core::time::Timestamp;
use utmos_mqtt::Sent;

/// Something that came about on the wire of one dock.
#[derive(Debug, Clone, PartialEq)]
pub enum Wire {
    /// A message passed.
    Passed(Passed),
    /// The dock has a connection, and all its subscriptions are granted.
    Linked {
        /// The dock.
        sn: Arc<str>,
        /// When, by the true clock.
        at: Timestamp,
    },
    /// Its connection is gone, or could not be made.
    Cut {
        /// The dock.
        sn: Arc<str>,
        /// When it noticed, by the true clock.
        at: Timestamp,
    },
}

/// A message of one dock, as faults left it.
#[derive(Debug, Clone, PartialEq)]
pub struct Passed {
    /// The dock.
    pub sn: Arc<str>,
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// When it came, or when it was handed to the connection; by the true clock and not the dock's own.
    pub at: Timestamp,
    /// Which way it went.
    pub way: Way,
}

/// Which way a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// To the dock.
    Down,
    /// From the dock.
    Up {
        /// What is known of it.
        sent: Sent,
        /// When that was known.
        settled_at: Timestamp,
    },
}
