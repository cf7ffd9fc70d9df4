//! What faults are called in plans, and which fields go with each.

use super::Fault;

/// What every rule may say of the commands it meets.
pub(super) const CONDITIONS: [&str; 4] = ["gateway", "method", "nth", "probability"];

/// A kind of fault or incident, as plans name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindName {
    /// Its name.
    pub name: &'static str,
    /// Whether it befalls the fleet at a time, and not a command.
    pub is_incident: bool,
    /// Fields that must be given with it.
    pub required: &'static [&'static str],
    /// Fields that may be given with it, beside the conditions.
    pub optional: &'static [&'static str],
}

impl KindName {
    const fn rule(
        name: &'static str,
        required: &'static [&'static str],
        optional: &'static [&'static str],
    ) -> Self {
        Self { name, is_incident: false, required, optional }
    }

    const fn incident(
        name: &'static str,
        required: &'static [&'static str],
        optional: &'static [&'static str],
    ) -> Self {
        Self { name, is_incident: true, required, optional }
    }

    /// Every field that may stand beside `kind`.
    pub(super) fn fields(&self) -> impl Iterator<Item = &'static str> {
        let conditions = if self.is_incident { &[][..] } else { &CONDITIONS[..] };
        self.required.iter().chain(self.optional).chain(conditions).copied()
    }
}

/// Every kind there is.
pub const KINDS: [KindName; 21] = [
    KindName::rule("late", &["ms"], &[]),
    KindName::rule("never", &[], &[]),
    KindName::rule("silent", &[], &[]),
    KindName::rule("duplicate", &[], &[]),
    KindName::rule("wrong_tid", &[], &[]),
    KindName::rule("wrong_bid", &[], &[]),
    KindName::rule("wrong_method", &[], &[]),
    KindName::rule("wrong_gateway", &[], &["sn"]),
    KindName::rule("result", &["code"], &[]),
    KindName::rule("string_numbers", &[], &[]),
    KindName::rule("missing_field", &["field"], &[]),
    KindName::rule("truncated", &[], &[]),
    KindName::rule("binary", &[], &[]),
    KindName::rule("huge", &[], &["bytes"]),
    KindName::rule("progress_out_of_order", &[], &[]),
    KindName::rule("progress_stops", &[], &[]),
    KindName::rule("disconnect", &["ms"], &[]),
    KindName::rule("resend_events", &[], &[]),
    KindName::incident("reconnect_storm", &["at_ms", "ms"], &[]),
    KindName::incident("topology_flap", &["at_ms", "ms"], &["times"]),
    KindName::incident("clock_skew", &["at_ms", "seconds"], &[]),
];

/// What a fault is called.
pub(super) fn of(fault: &Fault) -> &'static str {
    match fault {
        Fault::Late { .. } => "late",
        Fault::Never => "never",
        Fault::Silent => "silent",
        Fault::Duplicate => "duplicate",
        Fault::WrongTid => "wrong_tid",
        Fault::WrongBid => "wrong_bid",
        Fault::WrongMethod => "wrong_method",
        Fault::WrongGateway { .. } => "wrong_gateway",
        Fault::Result { .. } => "result",
        Fault::StringNumbers => "string_numbers",
        Fault::MissingField(_) => "missing_field",
        Fault::Truncated => "truncated",
        Fault::Binary => "binary",
        Fault::Huge { .. } => "huge",
        Fault::ProgressOutOfOrder => "progress_out_of_order",
        Fault::ProgressStops => "progress_stops",
        Fault::Disconnect { .. } => "disconnect",
        Fault::ResendEvents => "resend_events",
    }
}
