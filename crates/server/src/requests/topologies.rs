//! The topology each gateway told last without an id of its own. A remote controller sends zeros as its `tid`, and the same
//! topology over and over: it is put on record once. Pure.

use std::collections::BTreeMap;

use utmos_core::id::GatewaySn;

use super::book::RepeatKey;

/// Gateways of which it is known. What is forgotten is put on record once more.
const GATEWAYS_MAX: usize = 16_384;

/// What they told.
#[derive(Debug, Default)]
pub(super) struct Topologies(BTreeMap<GatewaySn, RepeatKey>);

impl Topologies {
    /// Whether a topology is another one than its gateway's last. The key of one that has an id of its own is `None`: the
    /// store tells those apart, and it is the last from now on.
    pub(super) fn is_news(&mut self, gateway: &GatewaySn, key: Option<RepeatKey>) -> bool {
        let Some(key) = key else {
            self.0.remove(gateway);
            return true;
        };
        if self.0.get(gateway) == Some(&key) {
            return false;
        }
        while self.0.len() >= GATEWAYS_MAX && !self.0.contains_key(gateway) {
            self.0.pop_first();
        }
        self.0.insert(gateway.clone(), key);
        true
    }

    /// What a gateway told last is not known any more, or not on record.
    pub(super) fn forget(&mut self, gateway: &GatewaySn) {
        self.0.remove(gateway);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn the_same_again_is_no_news_and_what_came_between_makes_it_news() {
        let mut topologies = Topologies::default();
        let (one, two) = (GatewaySn::parse("RC-1").unwrap(), GatewaySn::parse("RC-2").unwrap());
        let key = |byte| Some([byte; size_of::<RepeatKey>()]);
        let told = [(&one, key(1)), (&one, key(1)), (&two, key(1)), (&one, key(2)), (&one, key(1))];
        let news = told.map(|(gateway, key)| topologies.is_news(gateway, key));
        assert_eq!(news, [true, false, true, true, true]);
        let told = [(&one, None), (&one, key(1)), (&one, key(1)), (&two, key(1))];
        let news = told.map(|(gateway, key)| topologies.is_news(gateway, key));
        assert_eq!(news, [true, true, false, false]);
        topologies.forget(&one);
        assert!(topologies.is_news(&one, key(1)) && !topologies.is_news(&two, key(1)));
        for number in 0..2 * GATEWAYS_MAX {
            assert!(topologies.is_news(&GatewaySn::parse(&format!("N{number}")).unwrap(), key(1)));
        }
        assert_eq!(topologies.0.len(), GATEWAYS_MAX);
    }
}
