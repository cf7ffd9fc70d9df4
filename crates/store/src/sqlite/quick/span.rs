//! Times at which requests were signed. Pure.

use std::time::Duration;

use utmos_core::time::Timestamp;

/// How far behind the clock a request may be signed to be answered quickly.
pub(super) const BEHIND: Duration = Duration::from_secs(30);

/// And how far ahead.
pub(super) const AHEAD: Duration = Duration::from_secs(10);

/// Most spans that are remembered apart: as many power cuts, each at another time by the clock.
const SPANS_MAX: usize = 32;

/// Requests are signed at whole seconds: what is no further apart has none in between.
const GAP_MILLIS: i64 = 1000;

/// From one time to another, both among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

impl Span {
    /// Not a single time.
    pub(super) const NONE: Self =
        Self { from: Timestamp::from_millis(i64::MAX), to: Timestamp::from_millis(i64::MIN) };

    /// What is answered quickly at this time.
    pub(super) fn around(now: Timestamp) -> Self {
        let behind = i64::try_from(BEHIND.as_millis()).unwrap_or(i64::MAX);
        let from = Timestamp::from_millis(now.as_millis().saturating_sub(behind));
        Self { from, to: now.plus(AHEAD) }
    }

    pub(super) fn contains(self, at: Timestamp) -> bool {
        self.from <= at && at <= self.to
    }

    /// What is in both.
    pub(super) fn common(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }
}

/// Some, in order and apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spans(Vec<Span>);

impl Spans {
    /// The end of the one that this time is in.
    pub(super) fn end_of(&self, at: Timestamp) -> Option<Timestamp> {
        self.0.iter().find(|span| span.contains(at)).map(|span| span.to)
    }

    /// The last time of all.
    pub(super) fn last(&self) -> Option<Timestamp> {
        self.0.last().map(|span| span.to)
    }

    /// The same and one more. None is ever left out: where there are too many, the two that are closest become one.
    pub(super) fn with(mut self, span: Span) -> Self {
        self.0.push(span);
        self.0.sort_unstable();
        while let Some(at) = self.closest() {
            let next = self.0.remove(at + 1);
            if let Some(first) = self.0.get_mut(at) {
                first.to = first.to.max(next.to);
            }
        }
        self
    }

    /// The place of the first of two that are to become one.
    fn closest(&self) -> Option<usize> {
        let gap = |(at, pair): (usize, &[Span])| match pair {
            [one, next] => Some((next.from.as_millis().saturating_sub(one.to.as_millis()), at)),
            _ => None,
        };
        let (gap, at) = self.0.windows(2).enumerate().filter_map(gap).min()?;
        (gap <= GAP_MILLIS || self.0.len() > SPANS_MAX).then_some(at)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let times = self.0.iter().flat_map(|span| [span.from, span.to]);
        times.flat_map(|time| time.as_millis().to_be_bytes()).collect()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let (times, _) = bytes.as_chunks::<8>();
        let time = |bytes: &[u8; 8]| Timestamp::from_millis(i64::from_be_bytes(*bytes));
        let (pairs, _) = times.as_chunks::<2>();
        Self(pairs.iter().map(|[from, to]| Span { from: time(from), to: time(to) }).collect())
    }
}
