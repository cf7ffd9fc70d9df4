//! What is to go wrong.

use super::Entry;
use crate::Condition;

/// The largest answer the `huge` fault makes unless told otherwise, in bytes.
pub(super) const HUGE_BYTES: usize = 1024 * 1024;

/// What is to go wrong, and when. The empty one changes nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FaultPlan {
    /// Fixes all dice of the plan; without one, the seed of the fleet does.
    pub seed: Option<u64>,
    /// Looked at in this order; the first that meets a command applies.
    pub rules: Vec<Rule>,
    /// What befalls docks, and the conditions they are under.
    pub incidents: Vec<Incident>,
}

impl FaultPlan {
    /// All of it: rules, then incidents.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let rules = self.rules.iter().cloned().map(Entry::Rule);
        rules.chain(self.incidents.iter().cloned().map(Entry::Incident))
    }

    /// Whether nothing is to go wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.incidents.is_empty()
    }
}

/// Something that goes wrong with some commands.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Which commands.
    pub meets: Meets,
    /// What goes wrong.
    pub fault: Fault,
}

/// Which commands a rule meets: those that all its conditions hold for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Meets {
    /// Serial number of the dock.
    pub gateway: Option<String>,
    /// The method; `property/set` for properties.
    pub method: Option<Glob>,
    /// Only the n-th of them at each dock, from 1.
    pub nth: Option<u64>,
    /// Only so many of them, from 0 to 1, by dice.
    pub probability: Option<f64>,
}

/// A name in which `*` stands for any text, the empty one too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// Takes it as it is written.
    #[must_use]
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it means exactly one name.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether it means this name.
    #[must_use]
    pub fn is_match(&self, name: &str) -> bool {
        let Some((start, rest)) = self.0.split_once('*') else { return self.0 == name };
        let Some(mut left) = name.strip_prefix(start) else { return false };
        let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
        // Each part as early as it can be, so that the most is left for the next.
        for part in middle.split('*') {
            let Some((_, after)) = left.split_once(part) else { return false };
            left = after;
        }
        left.ends_with(end)
    }
}

/// What can go wrong with a command. Each has its name in plans, in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The answer leaves this long after the command came (`late`).
    Late {
        /// Milliseconds.
        ms: u64,
    },
    /// Neither carried out nor answered (`never`).
    Never,
    /// Carried out and not answered (`silent`).
    Silent,
    /// The answer comes twice (`duplicate`).
    Duplicate,
    /// The answer has the `tid` of no command (`wrong_tid`).
    WrongTid,
    /// The answer has the `bid` of no command (`wrong_bid`).
    WrongBid,
    /// The answer names another method (`wrong_method`).
    WrongMethod,
    /// The answer comes on the topic of another gateway (`wrong_gateway`).
    WrongGateway {
        /// Which one; without it, one that nobody knows.
        sn: Option<String>,
    },
    /// Refused with this code (`result`).
    Result {
        /// Not 0.
        code: i64,
    },
    /// Every number of the answer is a text (`string_numbers`).
    StringNumbers,
    /// The answer lacks a field (`missing_field`).
    MissingField(AnswerField),
    /// The answer breaks off in the middle (`truncated`).
    Truncated,
    /// The answer is no text at all (`binary`).
    Binary,
    /// The answer is padded to this size (`huge`).
    Huge {
        /// Of the whole payload.
        bytes: usize,
    },
    /// The job's events come in pairs, each pair the wrong way round (`progress_out_of_order`).
    ProgressOutOfOrder,
    /// The job is told of up to its middle and then never again (`progress_stops`).
    ProgressStops,
    /// The connection is cut between the command and its answer, which is lost (`disconnect`).
    Disconnect {
        /// How long the dock stays away, in milliseconds.
        ms: u64,
    },
    /// Every event of the job comes once more with its `tid` (`resend_events`).
    ResendEvents,
    /// The answer is with the broker before the dock acknowledges the command to it (`early`).
    Early,
    /// The command is acknowledged to the broker so long after it came (`late_ack`).
    LateAck {
        /// Milliseconds.
        ms: u64,
    },
    /// The command is never acknowledged to the broker (`no_ack`).
    NoAck,
}

/// A field of an answer. `gateway` is none of them: no dock whose answers were recorded writes it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerField {
    /// `data.result`; in the answer to `property/set`, of every property.
    Result,
    /// `tid`.
    Tid,
    /// `bid`.
    Bid,
    /// `method`.
    Method,
    /// `data`.
    Data,
    /// `timestamp`.
    Timestamp,
}

impl AnswerField {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Result, Self::Tid, Self::Bid, Self::Method, Self::Data, Self::Timestamp];

    /// As DJI spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Tid => "tid",
            Self::Bid => "bid",
            Self::Method => "method",
            Self::Data => "data",
            Self::Timestamp => "timestamp",
        }
    }
}

/// Something that befalls one dock or all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    /// When, in milliseconds since the fleet was started, or since it was added to a running one.
    pub at_ms: u64,
    /// Serial number of the dock; all docks without it.
    pub gateway: Option<String>,
    /// What.
    pub trouble: Trouble,
}

impl Incident {
    /// Whether it befalls this dock.
    #[must_use]
    pub fn concerns(&self, gateway: &str) -> bool {
        self.gateway.as_deref().is_none_or(|sn| sn == gateway)
    }

    /// How long it goes on; for ever without a number.
    #[must_use]
    pub fn lasts_ms(&self) -> Option<u64> {
        match self.trouble {
            Trouble::ReconnectStorm { ms, times } | Trouble::TopologyFlap { ms, times } => {
                Some(ms.saturating_mul(2 * times - 1))
            }
            Trouble::Condition { condition: _, ms } => ms,
        }
    }
}

/// What can befall a dock. Each has its name in plans, in brackets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trouble {
    /// The connection is dropped and comes back (`reconnect_storm`).
    ReconnectStorm {
        /// How long it is away, and then there, in milliseconds.
        ms: u64,
        /// How often.
        times: u64,
    },
    /// The aircraft goes from `update_topo` and comes back (`topology_flap`).
    TopologyFlap {
        /// How long it is away, and then there, in milliseconds.
        ms: u64,
        /// How often.
        times: u64,
    },
    /// A condition begins.
    Condition {
        /// Which.
        condition: Condition,
        /// When it is over, in milliseconds after it began; without it, never.
        ms: Option<u64>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, yes, no) in [
            ("cover_open", &["cover_open"][..], &["cover_opens", "cover"][..]),
            ("*", &["", "cover_open"], &[]),
            ("cover_*", &["cover_open", "cover_"], &["recover_open", "cover"]),
            ("*_open", &["cover_open", "_open"], &["cover_open_", "open"]),
            ("*fly*point*", &["fly_to_point", "fly_to_point_stop"], &["fly_to", "point_fly"]),
            ("a*b*c", &["abc", "a_b_b_c"], &["ac", "acb", "ab"]),
            ("a*a", &["aa", "aba"], &["a"]),
        ] {
            for name in yes {
                assert!(Glob::new(pattern).is_match(name), "{pattern} {name}");
            }
            for name in no {
                assert!(!Glob::new(pattern).is_match(name), "{pattern} {name}");
            }
        }
    }
}
