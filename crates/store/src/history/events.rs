//! Device events.
