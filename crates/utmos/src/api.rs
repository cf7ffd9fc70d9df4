//! The signed HTTP API, from a client's side.

pub mod access;
pub mod client;
pub mod signed;
