//! DJI's Cloud API protocol, pure: no runtime, socket, file, clock or random number.
//!
//! The wire half turns topics and bytes into core's words and back: [`topic`], [`envelope`], [`uplink`], [`downlink`],
//! [`answer`], and for simulated devices [`device_side`].
//! The [`catalogue`] holds every method and error code as data, and checks payloads against it.
#![warn(missing_docs)]

pub mod answer;
pub mod catalogue;
pub mod device_side;
pub mod downlink;
pub mod envelope;
mod json;
pub mod topic;
pub mod uplink;
mod writer;
