//! Telemetry over time.
