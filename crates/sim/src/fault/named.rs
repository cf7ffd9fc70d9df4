//! What an entry names that may not be there: its dock and its method. The same is said of it whichever way it came.

use utmos_dji::catalogue::Catalogue;

use super::{Entry, Incident, Meets, Rule};

/// What rules call the setting of properties, which has no method.
const PROPERTY_SET: &str = "property/set";

/// A dock or a method that an entry names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The line of the file; nothing where there is no file.
    pub line: Option<usize>,
    /// Which of the two.
    pub what: Thing,
    /// Its name.
    pub name: String,
}

/// What can be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    /// A dock, by its serial number.
    Gateway,
    /// A method, without a star.
    Method,
}

impl Thing {
    /// The field that names one.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Method => "method",
        }
    }
}

impl Named {
    /// What an entry names.
    #[must_use]
    pub fn by(entry: &Entry) -> Vec<Self> {
        let (gateway, method) = match entry {
            Entry::Rule(Rule { meets: Meets { gateway, method, .. }, fault: _ }) => {
                let plain = method.as_ref().filter(|method| method.is_plain());
                (gateway.as_deref(), plain.map(super::Glob::as_str))
            }
            Entry::Incident(Incident { gateway, .. }) => (gateway.as_deref(), None),
        };
        let both = [(Thing::Gateway, gateway), (Thing::Method, method)];
        let both = both.into_iter().filter_map(|(what, name)| Some((what, name?.to_owned())));
        both.map(|(what, name)| Self { line: None, what, name }).collect()
    }

    /// Why its method may never be met. No error: a dock may be sent what no catalogue knows.
    #[must_use]
    pub fn doubt(&self, catalogue: &Catalogue) -> Option<String> {
        let name = &self.name;
        let is_known =
            self.what != Thing::Method || name == PROPERTY_SET || catalogue.method(name).is_some();
        let meant = || catalogue.nearest(name).map(|name| format!("; did you mean {name}?"));
        (!is_known).then(|| {
            let meant = meant().unwrap_or_default();
            format!("this may never happen: the catalogue has no method {name}{meant}")
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::fault::FaultFlag;

    #[test]
    fn what_is_named_is_found_and_a_method_that_nobody_knows_is_doubted() {
        let catalogue = Catalogue::embedded().unwrap();
        let doubt = "this may never happen: the catalogue has no method cover_opne; did you mean cover_open?";
        for (flag, names, doubts) in [
            ("kind=never,method=cover_opne", &["cover_opne"][..], &[doubt][..]),
            ("kind=never,method=cover_*", &[], &[]),
            ("kind=never,method=property/set,gateway=D1", &["D1", "property/set"], &[]),
            ("kind=wind,speed=3,gateway=D2", &["D2"], &[]),
            ("kind=topology_flap,ms=3,gateway=D3", &["D3"], &[]),
        ] {
            let named = Named::by(flag.parse::<FaultFlag>().unwrap().entry());
            let all: Vec<&str> = named.iter().map(|one| one.name.as_str()).collect();
            assert_eq!(all, names, "{flag}");
            let said: Vec<String> = named.iter().filter_map(|one| one.doubt(&catalogue)).collect();
            assert_eq!(said, doubts, "{flag}");
        }
    }
}
