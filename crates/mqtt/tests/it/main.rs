//! The acceptance suite: the same behaviour on our broker and on Mosquitto, then what only the embedded broker promises.
//!
//! Needs Mosquitto (`apt-get install -y mosquitto`); without it the tests of that broker fail.

mod acknowledge;
mod certificates;
mod cut;
mod embedded;
mod presence;
mod probe;
mod protocol;
mod proxy;
mod raw;
mod strangers;
mod suite;
mod support;
mod tls;
