//! DJI's Cloud API protocol, pure: no runtime, socket, file, clock or random number.
//!
//! The wire half turns topics and bytes into core's words and back: [`topic`], [`envelope`], [`uplink`], [`downlink`],
//! [`answer`], and for simulated devices [`device_side`].
//! [`hms`] reads health alarms and knows what their codes mean.
//! The [`catalogue`] holds every method and error code as data, and checks payloads against it.
#![warn(missing_docs)]

pub mod answer;
pub mod catalogue;
pub mod device_side;
pub mod downlink;
pub mod envelope;
pub mod hms;
mod json;
pub mod product;
pub mod topic;
pub mod uplink;
mod writer;
