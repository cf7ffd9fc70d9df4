//! Times as people type and read them.

use std::time::Duration;

use utmos_core::time::{Clock, Timestamp};
use utmos_server::clock::SystemClock;

/// The wall time.
pub fn now() -> Timestamp {
    SystemClock::new().now().wall
}

/// Reads `30`, `30s`, `15m`, `24h` or `90d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wanted = || format!("{text:?} is no duration; write 30s, 15m, 24h or 90d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wanted())?;
    let seconds = match text.strip_prefix(digits).unwrap_or_default() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wanted()),
    };
    let total = number.checked_mul(seconds).filter(|total| *total <= 100 * 366 * 24 * 60 * 60);
    total.map(Duration::from_secs).ok_or_else(|| format!("{text:?} is longer than 100 years"))
}

/// A moment, given as itself or as a duration from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// At this time.
    At(Timestamp),
    /// So much later.
    After(Duration),
}

impl Moment {
    /// Reads `90d` or `2027-01-31T00:00:00Z`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(wait) = parse_duration(text) {
            return Ok(Self::After(wait));
        }
        let at: jiff::Timestamp = text.parse().map_err(|_| {
            format!(
                "{text:?} is neither a duration such as 90d nor a time such as 2027-01-31T00:00:00Z"
            )
        })?;
        Ok(Self::At(Timestamp::from_millis(at.as_millisecond())))
    }

    /// The time it is.
    pub fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::After(wait) => now.plus(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in
            [("0", 0), ("30", 30), ("45s", 45), ("15m", 900), ("24h", 86_400), ("90d", 7_776_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in
            ["", "s", "-5s", "1.5h", "5 m", "5w", "5mm", "h5", "18446744073709551615d", "99999999d"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments() {
        let now = Timestamp::from_millis(1_000);
        assert_eq!(
            Moment::parse("1m").map(|moment| moment.from(now)),
            Ok(Timestamp::from_millis(61_000))
        );
        assert_eq!(
            Moment::parse("2026-05-21T08:28:04Z").map(|moment| moment.from(now)),
            Ok(Timestamp::from_millis(1_779_352_084_000))
        );
        assert!(Moment::parse("tomorrow").is_err());
    }
}
