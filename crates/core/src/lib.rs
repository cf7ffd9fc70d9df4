//! The decisions of the platform, pure: no runtime, socket, file, clock or random number.
//!
//! What a command's life may do ([`life`]), who may ask for it ([`signing`]) and how often ([`allowance`]), where it goes ([`device`]), what must be
//! remembered ([`ports`]).
//! Everything here is a synchronous function from values to values; `async` appears only in the signatures of ports.
#![warn(missing_docs)]

pub mod allowance;
pub mod binding;
pub mod command;
pub mod credential;
pub mod device;
pub mod device_event;
pub mod device_request;
pub mod evidence;
pub mod id;
pub mod idempotency;
pub mod json;
pub mod life;
pub mod method;
mod nearest;
#[doc(hidden)]
pub mod planted;
pub mod ports;
pub mod replica;
pub mod reply;
pub mod signing;
pub mod store_clock;
pub mod telemetry;
pub mod time;

pub use nearest::nearest;
